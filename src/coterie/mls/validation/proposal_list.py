"""Which proposals may stand together in a Commit (RFC 9420 §12.2), and who may send which (§6.1, §12.1.8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coterie.errors import RuleViolation
from coterie.mls.extension import check_extension_list
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.proposal import (
    EXTERNAL_SENDER_TYPES,
    NO_PATH_REQUIRED,
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
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    DEFAULT_PROPOSAL_TYPES,
    ProposalType,
    ResumptionPSKUsage,
    Sender,
    SenderType,
)

MAX_PROPOSALS = 1 << 17
"""The most proposals that one Commit may cover."""

MAX_PSKS = (1 << 16) - 1
"""The most pre-shared keys that PSKLabel can count (§8.4)."""


@dataclass(frozen=True, slots=True)
class CommittedProposal:
    """A proposal of a Commit with who made it; `reference` is None where it stands in the Commit itself.

    `checked` is True where the proposal by itself was found valid when it arrived, in this same epoch.
    """

    proposal: Proposal
    sender: Sender
    reference: bytes | None = None
    checked: bool = False


@dataclass(frozen=True, slots=True)
class CustomProposal:
    """What the application says of a proposal type that it defines (§17.4)."""

    path_required: bool = True
    external: bool = False


@dataclass(frozen=True, slots=True)
class ProposalList:
    """The proposals of a Commit by kind, in the order in which they are applied (§12.3); valid by §12.2.

    Updates and adds come with whether they were checked when they arrived.
    """

    all: tuple[CommittedProposal, ...]
    extensions: GroupContextExtensions | None
    updates: Mapping[LeafIndex, tuple[Update, bool]]
    removes: tuple[LeafIndex, ...]
    adds: tuple[tuple[Add, bool], ...]
    psks: tuple[PreSharedKeyID, ...]
    reinit: ReInit | None
    external_init: ExternalInit | None
    custom: tuple[CommittedProposal, ...]

    def path_required(self, custom: Mapping[int, CustomProposal]) -> bool:
        """Whether the Commit must have a path (§12.4)."""
        if not self.all:
            return True
        for entry in self.all:
            kind = entry.proposal.proposal_type
            if kind in NO_PATH_REQUIRED:
                continue
            if kind not in custom or custom[kind].path_required:
                return True
        return False


_NONE = ProposalList((), None, {}, (), (), (), None, None, ())
"""The list of a Commit that only renews keys."""


def check_proposal_sender(
    proposal: Proposal, sender: Sender, custom: Mapping[int, CustomProposal]
) -> None:
    """Raises `RuleViolation` where this kind of sender may not send this kind of proposal (§6.1, §12.1.8)."""
    kind = proposal.proposal_type
    if sender.sender_type == SenderType.EXTERNAL:
        allowed = kind in EXTERNAL_SENDER_TYPES or (kind in custom and custom[kind].external)
        if not allowed:
            msg = f"an external sender may not propose {kind.name.lower()}"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_SENDER_TYPE)


def _sorted(proposals: Iterable[CommittedProposal]) -> ProposalList:
    """By kind; raises where there are two of what there may be one of."""
    entries = tuple(proposals)
    if not entries:
        return _NONE
    if len(entries) > MAX_PROPOSALS:
        msg = f"{len(entries)} proposals in a Commit, at most {MAX_PROPOSALS} are accepted"
        raise RuleViolation(msg, rule=Rule.PROPOSAL_COUNT)
    updates: dict[LeafIndex, tuple[Update, bool]] = {}
    removes: list[LeafIndex] = []
    adds: list[tuple[Add, bool]] = []
    singles: dict[type, list[object]] = {GroupContextExtensions: [], ReInit: [], ExternalInit: []}
    psks: list[PreSharedKeyID] = []
    custom: list[CommittedProposal] = []
    for entry in entries:
        content = entry.proposal.content
        if isinstance(content, Update):
            _take_update(entry, content, updates)
        elif isinstance(content, Remove):
            removes.append(content.removed)
        elif isinstance(content, Add):
            adds.append((content, entry.checked))
        elif isinstance(content, PreSharedKey):
            psks.append(content.psk)
        elif isinstance(content, bytes):
            custom.append(entry)
        else:
            singles[type(content)].append(content)
    extensions, reinit, external = (
        _at_most_one(singles[cls], rule)
        for cls, rule in (
            (GroupContextExtensions, Rule.LIST_TWO_EXTENSIONS),
            (ReInit, Rule.LIST_REINIT_ALONE),
            (ExternalInit, Rule.EXTERNAL_COMMIT_INIT),
        )
    )
    return ProposalList(
        entries,
        extensions,  # type: ignore[arg-type]
        updates,
        tuple(removes),
        tuple(adds),
        tuple(psks),
        reinit,  # type: ignore[arg-type]
        external,  # type: ignore[arg-type]
        tuple(custom),
    )


def _take_update(
    entry: CommittedProposal, update: Update, updates: dict[LeafIndex, tuple[Update, bool]]
) -> None:
    leaf = entry.sender.leaf_index
    if leaf is None:
        msg = "an Update by somebody who is not a member"
        raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_TYPES)
    if leaf in updates:
        msg = f"two Updates of leaf {int(leaf)}"
        raise RuleViolation(msg, rule=Rule.LIST_ONE_PER_LEAF)
    updates[leaf] = (update, entry.checked)


def _at_most_one(found: list[object], rule: Rule) -> object | None:
    if len(found) > 1:
        msg = f"{len(found)} proposals of type {type(found[0]).__name__} in one Commit"
        raise RuleViolation(msg, rule=rule)
    return found[0] if found else None


def list_for_commit(
    proposals: Iterable[CommittedProposal],
    committer: LeafIndex,
    nonce_length: int,
    version: int,
    psk_usage: ResumptionPSKUsage | None = None,
) -> ProposalList:
    """The list of a member's Commit; raises `RuleViolation` where it is invalid by itself (§12.2).

    `nonce_length` is Nh, `version` the group's. `psk_usage` is reinit or branch in the first Commit of a group that
    continues another one, where such a resumption key is allowed (§12.1.4).
    """
    result = _sorted(proposals)
    if result.external_init is not None:
        msg = "an ExternalInit in a member's Commit"
        raise RuleViolation(msg, rule=Rule.LIST_EXTERNAL_INIT)
    if committer in result.updates:
        msg = "the committer cannot commit its own Update; its path replaces its leaf"
        raise RuleViolation(msg, rule=Rule.LIST_OWN_UPDATE)
    if committer in result.removes:
        msg = "the committer cannot remove itself"
        raise RuleViolation(msg, rule=Rule.LIST_OWN_REMOVE)
    if len({*result.removes, *result.updates}) != len(result.removes) + len(result.updates):
        msg = "more than one Update or Remove of the same leaf"
        raise RuleViolation(msg, rule=Rule.LIST_ONE_PER_LEAF)
    if result.reinit is not None:
        if len(result.all) > 1:
            msg = "a ReInit must be the only proposal of its Commit"
            raise RuleViolation(msg, rule=Rule.LIST_REINIT_ALONE)
        check_reinit(result.reinit, version)
    check_psks(result.psks, nonce_length, psk_usage)
    return result


def list_for_external_commit(
    proposals: Iterable[CommittedProposal], nonce_length: int
) -> ProposalList:
    """The list of an external Commit; raises `RuleViolation` where it is invalid by itself (§12.2, §12.4.3.2)."""
    entries = tuple(proposals)
    if any(entry.reference is not None for entry in entries):
        msg = "an external Commit with a proposal by reference"
        raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_REFERENCE)
    result = _sorted(entries)
    if result.external_init is None:
        msg = "an external Commit without ExternalInit"
        raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_INIT)
    if len(result.removes) > 1:
        msg = "an external Commit with more than one Remove"
        raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_REMOVE)
    if len(result.all) != 1 + len(result.removes) + len(result.psks):
        msg = "an external Commit may cover ExternalInit, one Remove and PreSharedKeys only"
        raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_TYPES)
    check_psks(result.psks, nonce_length, None)
    return result


def check_reinit(reinit: ReInit, version: int) -> None:
    """Raises `RuleViolation` for a ReInit to an older protocol version (§12.1.5)."""
    if reinit.version < version:
        msg = f"a ReInit from protocol version {version} back to {int(reinit.version)}"
        raise RuleViolation(msg, rule=Rule.REINIT_VERSION)
    check_extension_list(reinit.extensions)


def check_psks(
    psks: Sequence[PreSharedKeyID], nonce_length: int, allowed: ResumptionPSKUsage | None
) -> None:
    """Raises `RuleViolation` for pre-shared keys that may not be used here (§12.1.4, §12.2)."""
    if len(psks) > MAX_PSKS:
        msg = f"{len(psks)} pre-shared keys, at most {MAX_PSKS} can be mixed in"
        raise RuleViolation(msg, rule=Rule.PSK_COUNT)
    seen = set()
    for psk in psks:
        check_psk(psk, nonce_length, allowed)
        if psk in seen:
            msg = "the same pre-shared key twice in one Commit"
            raise RuleViolation(msg, rule=Rule.LIST_TWO_PSKS)
        seen.add(psk)


def check_psk(psk: PreSharedKeyID, nonce_length: int, allowed: ResumptionPSKUsage | None) -> None:
    """Raises `RuleViolation` for one PreSharedKeyID that is invalid (§12.1.4)."""
    if len(psk.psk_nonce) != nonce_length:
        msg = f"a psk_nonce of {len(psk.psk_nonce)} bytes, it must have {nonce_length}"
        raise RuleViolation(msg, rule=Rule.PSK_NONCE)
    if psk.usage not in {None, ResumptionPSKUsage.APPLICATION, allowed}:
        msg = f"a resumption key for {psk.usage.name.lower()} outside of one"
        raise RuleViolation(msg, rule=Rule.PSK_USAGE)


def custom_types(proposals: ProposalList) -> set[int]:
    """The non-default proposal types of a list."""
    kinds = {int(entry.proposal.proposal_type) for entry in proposals.all}
    return kinds - DEFAULT_PROPOSAL_TYPES


def check_custom_type(kind: ProposalType, custom: Mapping[int, CustomProposal]) -> None:
    """Raises `RuleViolation` for a proposal type that neither the RFC nor the application defines (§12.2)."""
    if kind not in custom:
        msg = f"proposals of type {int(kind)} are not supported here"
        raise RuleViolation(msg, rule=Rule.LIST_CUSTOM_SUPPORT)
