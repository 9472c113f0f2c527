"""§12.1 and §12.2: proposals that are wrong by themselves, and lists of them that may not stand together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from coterie.interop.negative import UNSUPPORTED_PROPOSAL
from coterie.mls.credential import Credential
from coterie.mls.extension import Extension, ExternalSender, ExternalSenders, RequiredCapabilities
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.proposal import (
    Add,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.rules import Rule
from coterie.mls.secret_tree import RatchetKind
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    CipherSuite,
    ExtensionType,
    ProposalType,
    ProtocolVersion,
    ResumptionPSKUsage,
    Sender,
    SenderType,
)
from coterie.mls.validation import CommittedProposal, list_for_commit
from coterie.mls.validation.proposal_list import (
    MAX_PROPOSALS,
    MAX_PSKS,
    check_psks,
    list_for_external_commit,
)
from tests.rules.cases.leaves import referred
from tests.rules.cases.registry import BOTH, case
from tests.rules.forging import PUBLIC, Forger, PathChanges, key_package
from tests.rules.world import Attack, Call, World

BLANK, OUTSIDE = LeafIndex(5), LeafIndex(99)
CAROL, DAVE = LeafIndex(2), LeafIndex(3)
NOT_LISTED = ExtensionType(0xF0F0)


def _psk(w: World, psk_id: bytes = b"shared", *, length: int | None = None) -> PreSharedKey:
    size = w.suite.hash_length if length is None else length
    return PreSharedKey(PreSharedKeyID.external(psk_id, w.rng(size)))


def _resumption(w: World, usage: ResumptionPSKUsage) -> PreSharedKey:
    nonce = w.rng(w.suite.hash_length)
    return PreSharedKey(PreSharedKeyID.resumption(usage, b"the group", 5, nonce))


def _reinit(w: World, **changes: Any) -> ReInit:
    suite = CipherSuite(w.suite.cipher_suite)
    return ReInit(b"the next group", ProtocolVersion.MLS10, suite, ()).replace(**changes)


def both(rule: Rule, title: str) -> Callable[[Callable[[World, Forger], Any]], None]:
    """The same wrong proposal in a message of its own, and by value in a Commit."""

    def decorate(make: Callable[[World, Forger], Any]) -> None:
        case(rule, f"{title}, proposed", framings=BOTH)(
            lambda w, f: w.victim(f.propose(make(w, f)))
        )
        case(rule, f"{title}, committed", framings=BOTH)(
            lambda w, f: w.victim(f.commit([make(w, f)]))
        )

    return decorate


@both(Rule.REMOVE_BLANK, "a Remove of a blank leaf")
def _(w: World, f: Forger) -> Any:
    return Remove(BLANK)


@both(Rule.REMOVE_BLANK, "a Remove of a leaf outside of the tree")
def _(w: World, f: Forger) -> Any:
    return Remove(OUTSIDE)


@both(Rule.PSK_USAGE, "a resumption key for reinit")
def _(w: World, f: Forger) -> Any:
    return _resumption(w, ResumptionPSKUsage.REINIT)


@both(Rule.PSK_USAGE, "a resumption key for branch")
def _(w: World, f: Forger) -> Any:
    return _resumption(w, ResumptionPSKUsage.BRANCH)


@both(Rule.PSK_NONCE, "a nonce that is too short")
def _(w: World, f: Forger) -> Any:
    return _psk(w, length=w.suite.hash_length - 1)


@both(Rule.PSK_NONCE, "a nonce that is too long")
def _(w: World, f: Forger) -> Any:
    return _psk(w, length=w.suite.hash_length + 1)


@both(Rule.PSK_NONCE, "no nonce")
def _(w: World, f: Forger) -> Any:
    return _psk(w, length=0)


@both(Rule.REINIT_VERSION, "a ReInit to version 0")
def _(w: World, f: Forger) -> Any:
    return _reinit(w, version=ProtocolVersion(0))


@both(Rule.EXTENSION_DUPLICATE, "a ReInit with two extensions of a type")
def _(w: World, f: Forger) -> Any:
    return _reinit(w, extensions=(Extension(NOT_LISTED, b"1"), Extension(NOT_LISTED, b"2")))


@both(Rule.EXTENSION_DUPLICATE, "group extensions with two of a type")
def _(w: World, f: Forger) -> Any:
    kept = f.context.extensions
    return GroupContextExtensions((*kept, kept[0]))


@both(Rule.CREDENTIAL, "an external sender that nobody vouches for")
def _(w: World, f: Forger) -> Any:
    sender = ExternalSender(w.key("yan").public, Credential.basic(b"!yan"))
    extension = Extension(ExtensionType.EXTERNAL_SENDERS, ExternalSenders((sender,)).encode())
    return GroupContextExtensions((extension,))


@both(Rule.LIST_EXTERNAL_INIT, "an ExternalInit by a member")
def _(w: World, f: Forger) -> Any:
    return ExternalInit(w.rng(32))


@both(Rule.LIST_CUSTOM_SUPPORT, "a proposal of a type that is not defined")
def _(w: World, f: Forger) -> Any:
    return Proposal.custom(0xF0F0, b"")


@both(Rule.LIST_CUSTOM_SUPPORT, "a proposal of a GREASE type")
def _(w: World, f: Forger) -> Any:
    return Proposal.custom(0x0A0A, b"")


@case(Rule.LIST_CUSTOM_SUPPORT, "a proposal of a type that no member lists", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Proposal.custom(UNSUPPORTED_PROPOSAL, b"")]))


@case(Rule.LIST_CUSTOM_SUPPORT, "a proposal of a type that one member lists", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    types = (*w.capabilities.proposals, UNSUPPORTED_PROPOSAL)
    leaf = {"capabilities": w.capabilities.replace(proposals=types)}
    proposal = Proposal.custom(UNSUPPORTED_PROPOSAL, b"")
    return w.victim(f.commit([proposal], path=PathChanges(leaf=leaf)))


def _from_outside(w: World, f: Forger, content: Any) -> Attack:
    proposal = content if isinstance(content, Proposal) else Proposal.of(content)
    sender = Sender(SenderType.EXTERNAL, sender_index=0)
    framed = f.content(proposal, sender=sender)
    return w.victim(f.public(framed, f.sign(framed, PUBLIC, w.key("server"))))


@case(Rule.EXTERNAL_SENDER_TYPE, "an Update by an external sender")
def _(w: World, f: Forger) -> Attack:
    return _from_outside(w, f, Update(f.update_leaf()))


@case(Rule.EXTERNAL_SENDER_TYPE, "an ExternalInit by an external sender")
def _(w: World, f: Forger) -> Attack:
    return _from_outside(w, f, ExternalInit(w.rng(32)))


@case(
    Rule.EXTERNAL_SENDER_TYPE, "a custom proposal that is for members only, by an external sender"
)
def _(w: World, f: Forger) -> Attack:
    return _from_outside(w, f, Proposal.custom(w.capabilities.proposals[0], b""))


@case(Rule.LIST_OWN_UPDATE, "an Update by the committer, by value", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Update(f.update_leaf())]))


@case(Rule.LIST_OWN_UPDATE, "an Update by the committer, by reference", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    update = Update(f.update_leaf())
    sent = f.propose(update)
    commit = _next(f).commit([referred(w, sent, update, 0)])
    return w.victim(commit, after=[sent.data])


def _next(f: Forger) -> Forger:
    """The forger at its next handshake generation."""
    f.group._keys.of_epoch(f.context.epoch).secret_tree.next_sending(  # type: ignore[union-attr]
        f.leaf, RatchetKind.HANDSHAKE
    )
    return f


@case(Rule.LIST_OWN_REMOVE, "a committer that removes itself", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Remove(f.leaf)]))


@case(Rule.LIST_OWN_REMOVE, "a committer that removes itself and another", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Remove(CAROL), Remove(f.leaf)]))


@case(Rule.LIST_ONE_PER_LEAF, "two Removes of one leaf", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Remove(CAROL), Remove(CAROL)]))


@case(Rule.LIST_ONE_PER_LEAF, "an Update and a Remove of one leaf", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    carol = w.forger("carol", f.framing)
    update = Update(carol.update_leaf())
    sent = carol.propose(update)
    commit = f.commit([referred(w, sent, update, CAROL), Remove(CAROL)])
    return w.victim(commit, after=[sent.data])


@case(Rule.LIST_ONE_PER_LEAF, "two Updates of one leaf", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    carol = w.forger("carol", f.framing)
    updates = [Update(carol.update_leaf()) for _ in range(2)]
    sent = [carol.propose(updates[0]), _next(carol).propose(updates[1])]
    refs = [referred(w, s, u, CAROL) for s, u in zip(sent, updates, strict=True)]
    return w.victim(f.commit(refs), after=[s.data for s in sent])


@case(Rule.LIST_ONE_PER_LEAF, "one Update twice", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    carol = w.forger("carol", f.framing)
    update = Update(carol.update_leaf())
    sent = carol.propose(update)
    ref = referred(w, sent, update, CAROL)
    return w.victim(f.commit([ref, replace(ref)]), after=[sent.data])


def add(w: World, name: str, **leaf: Any) -> Add:
    return Add(key_package(w.suite, w.bundle(name), leaf=leaf))


@case(Rule.LIST_SAME_CLIENT, "an Add of a member's second device under one name", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([add(w, "carol#2")]))


@case(Rule.LIST_SAME_CLIENT, "two Adds of one client", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([add(w, "zoe#1"), add(w, "zoe#2")]))


@case(Rule.LIST_SAME_CLIENT, "an Add of a client while another one is removed", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([Remove(DAVE), add(w, "carol#2")]))


@case(Rule.LIST_TWO_PSKS, "one pre-shared key twice", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    psk = _psk(w)
    return w.victim(f.commit([psk, psk]))


@case(Rule.LIST_TWO_PSKS, "one pre-shared key twice among others", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    psk = _psk(w)
    return w.victim(f.commit([psk, _psk(w, b"shared too"), psk]))


@case(Rule.LIST_TWO_EXTENSIONS, "two proposals of group extensions", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    same = GroupContextExtensions(f.context.extensions)
    return w.victim(f.commit([same, same]))


@case(Rule.LIST_REINIT_ALONE, "a ReInit beside a Remove", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([_reinit(w), Remove(CAROL)]))


@case(Rule.LIST_REINIT_ALONE, "a ReInit beside a pre-shared key", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([_psk(w), _reinit(w)]))


@case(Rule.LIST_REINIT_ALONE, "two ReInits", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([_reinit(w), _reinit(w, group_id=b"another")]))


def _extensions(f: Forger, extra: Extension) -> GroupContextExtensions:
    kept = [e for e in f.context.extensions if e.extension_type != extra.extension_type]
    return GroupContextExtensions((*kept, extra))


@case(Rule.EXTENSION_SUPPORT, "a group extension that others do not support", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    types = (*w.capabilities.extensions, NOT_LISTED)
    leaf = {"capabilities": w.capabilities.replace(extensions=types)}
    proposal = _extensions(f, Extension(NOT_LISTED, b""))
    return w.victim(f.commit([proposal], path=PathChanges(leaf=leaf)))


@case(
    Rule.LEAF_GROUP_EXTENSION,
    "a group extension that the committer does not support",
    framings=BOTH,
)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([_extensions(f, Extension(NOT_LISTED, b""))]))


def _requiring(f: Forger, **types: Any) -> GroupContextExtensions:
    required = RequiredCapabilities(**types).encode()
    return _extensions(f, Extension(ExtensionType.REQUIRED_CAPABILITIES, required))


@case(Rule.REQUIRED_CAPABILITIES_SUPPORT, "a required extension that others lack", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    types = (*w.capabilities.extensions, NOT_LISTED)
    leaf = {"capabilities": w.capabilities.replace(extensions=types)}
    proposal = _requiring(f, extension_types=(NOT_LISTED,))
    return w.victim(f.commit([proposal], path=PathChanges(leaf=leaf)))


@case(Rule.REQUIRED_CAPABILITIES_SUPPORT, "a required proposal that others lack", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    kind = ProposalType(0xF0F0)
    types = (*w.capabilities.proposals, kind)
    leaf = {"capabilities": w.capabilities.replace(proposals=types)}
    proposal = _requiring(f, proposal_types=(kind,))
    return w.victim(f.commit([proposal], path=PathChanges(leaf=leaf)))


@case(
    Rule.LEAF_REQUIRED_CAPABILITIES, "a required extension that the committer lacks", framings=BOTH
)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([_requiring(f, extension_types=(NOT_LISTED,))]))


@case(
    Rule.LEAF_REQUIRED_CAPABILITIES,
    "an Add that does not support what the same Commit makes required",
    framings=BOTH,
)
def _(w: World, f: Forger) -> Attack:
    types = (*w.capabilities.extensions, NOT_LISTED)
    leaf = {"capabilities": w.capabilities.replace(extensions=types)}
    proposals = [add(w, "zoe"), _requiring(f, extension_types=(NOT_LISTED,))]
    return w.victim(f.commit(proposals, path=PathChanges(leaf=leaf)))


@case(Rule.PSK_UNKNOWN, "a pre-shared key that the receiver has not", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    return w.victim(f.commit([_psk(w, b"unheard of")]))


@case(Rule.PSK_UNKNOWN, "a resumption key of an epoch that never was", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    nonce = w.rng(w.suite.hash_length)
    usage = ResumptionPSKUsage.APPLICATION
    psk = PreSharedKeyID.resumption(usage, b"the group", 99, nonce)
    return w.victim(f.commit([PreSharedKey(psk)]))


@case(Rule.PSK_COUNT, "more pre-shared keys than can be counted")
def _(w: World, f: Forger) -> Attack:
    psks = [_psk(w).psk] * (MAX_PSKS + 1)
    return Call(lambda: check_psks(psks, w.suite.hash_length, None))


@case(Rule.PROPOSAL_COUNT, "more proposals than a Commit may cover")
def _(w: World, f: Forger) -> Attack:
    entries = [CommittedProposal(Proposal.of(Remove(CAROL)), f.me)] * (MAX_PROPOSALS + 1)
    return Call(lambda: list_for_commit(entries, f.leaf, w.suite.hash_length, 1))


@case(Rule.PROPOSAL_COUNT, "more proposals than the receiver keeps", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    first = f.propose(Remove(CAROL))
    second = _next(f).propose(Remove(DAVE))
    return w.victim(second, after=[first.data], limits={"max_proposals": 1})


@case(Rule.PROPOSAL_UNKNOWN, "a reference to nothing", framings=BOTH)
def _(w: World, f: Forger) -> Attack:
    sent = f.propose(Remove(CAROL))
    return w.victim(_next(f).commit([referred(w, sent, Remove(CAROL), 0)]))


def _outside(proposals: Sequence[Any]) -> list[CommittedProposal]:
    sender = Sender(SenderType.NEW_MEMBER_COMMIT)
    return [CommittedProposal(Proposal.of(p), sender, b"reference") for p in proposals]


@case(Rule.EXTERNAL_COMMIT_REFERENCE, "a list with references for an external Commit")
def _(w: World, f: Forger) -> Attack:
    entries = _outside([ExternalInit(b""), Remove(CAROL)])
    return Call(lambda: list_for_external_commit(entries, w.suite.hash_length))
