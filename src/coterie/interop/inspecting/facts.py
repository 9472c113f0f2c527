"""What can be known about a struct without being a member: references, hashes, whether signatures hold.

Each function takes the context that the structs around give: the cipher suite, the group, the sender, the leaf. Where
that does not suffice, the fact says what is missing instead of guessing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from coterie.errors import CoterieError, VerificationError
from coterie.interop.structs import RatchetTreeList
from coterie.mls.credential import AcceptAnything
from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES, Suite, suite_of
from coterie.mls.extension import find_extension
from coterie.mls.framing import (
    AuthenticatedContent,
    FramedContent,
    MLSMessage,
    PublicMessage,
    content_to_be_signed,
)
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage, KeyPackageTBS
from coterie.mls.leaf_node import LeafNode, Lifetime, check_signature
from coterie.mls.proposal import Add, Proposal, ReInit
from coterie.mls.ratchet_tree import UnverifiedTree, verify_parent_hashes, verify_structure
from coterie.mls.rules import Rule
from coterie.mls.tls import Struct
from coterie.mls.types import (
    ContentType,
    ExtensionType,
    LeafNodeSource,
    SenderType,
    WireFormat,
)
from coterie.mls.validation import Policy, verify_tree
from coterie.mls.welcome import GroupInfo, Welcome

_LAST_DATE = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Fact:
    """Something computed: `good` says whether a check held, None where there was nothing to check."""

    name: str
    value: str
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the structs around one say about it."""

    suite: Suite | None = None
    now: int | None = None
    group_id: bytes | None = None
    leaf_index: int | None = None
    group_context: GroupContext | None = None

    def inside(self, struct: Struct) -> Context:
        """The context of what is inside a struct."""
        match struct:
            case KeyPackage() | Welcome():
                return replace(self, suite=_known(struct.cipher_suite))
            case GroupInfo(group_context=context):
                return self.inside(context)
            case GroupContext():
                return replace(
                    self,
                    suite=_known(struct.cipher_suite),
                    group_id=struct.group_id,
                    group_context=struct,
                )
            case PublicMessage(content=content) | AuthenticatedContent(content=content):
                return self.inside(content)
            case FramedContent(sender=sender):
                return replace(self, group_id=struct.group_id, leaf_index=sender.leaf_index)
        return self


def _known(number: int) -> Suite | None:
    return suite_of(number) if number in SUPPORTED_CIPHER_SUITES else None


def facts_of(struct: Struct, context: Context) -> Iterator[Fact]:
    """What can be said about one struct; what is inside it is asked separately."""
    function = _FACTS.get(type(struct))
    if function is not None:
        yield from function(struct, context)


def _checked(name: str, check: Callable[[], object], good: str = "valid") -> Fact:
    """A check as a fact: `good`, or the reason why it fails."""
    try:
        check()
    except CoterieError as error:
        return Fact(name, str(error), good=False)
    return Fact(name, good, good=True)


def date(seconds: int) -> str:
    """A time in UTC; what is beyond the calendar stays a number."""
    if seconds > _LAST_DATE:
        return "beyond the year 9999"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


# -- messages


def _message(message: MLSMessage, _context: Context) -> Iterator[Fact]:
    yield Fact("SHA-256 of the message", hashlib.sha256(message.encode()).hexdigest())
    if message.version != 1:
        yield Fact("version", "only MLS 1.0 is spoken here", good=False)


def _public_message(message: PublicMessage, context: Context) -> Iterator[Fact]:
    content = message.content
    authenticated = AuthenticatedContent(WireFormat.MLS_PUBLIC_MESSAGE, content, message.auth)
    yield from _authenticated_content(authenticated, context)


def _authenticated_content(message: AuthenticatedContent, context: Context) -> Iterator[Fact]:
    content = message.content
    if content.content_type == ContentType.APPLICATION:
        if message.wire_format == WireFormat.MLS_PUBLIC_MESSAGE:
            yield Fact("framing", "application data is never sent in the clear", good=False)
    elif content.content_type == ContentType.PROPOSAL:
        yield from _references(message, context)
    yield _content_signature(message)


def _references(message: AuthenticatedContent, context: Context) -> Iterator[Fact]:
    """The ProposalRef, with each hash function that the suite may have where that is not known."""
    encoded = message.encode()
    proposal = message.content.body
    suite = context.suite
    if suite is None and isinstance(proposal, Proposal) and isinstance(proposal.content, Add):
        suite = _known(proposal.content.key_package.cipher_suite)
    suites = [suite] if suite else list(_by(lambda s: s.hash_name).values())
    for each in suites:
        name = "ProposalRef" if suite else f"ProposalRef with {_hash_name(each)}"
        yield Fact(name, each.proposal_ref(encoded).hex())


def _hash_name(suite: Suite) -> str:
    return suite.hash_name.upper().replace("SHA", "SHA-")


def _by(key: Callable[[Suite], Any]) -> dict[Any, Suite]:
    """One suite for each value of something."""
    found: dict[Any, Suite] = {}
    for number in SUPPORTED_CIPHER_SUITES:
        suite = suite_of(number)
        found.setdefault(key(suite), suite)
    return found


def _content_signature(message: AuthenticatedContent) -> Fact:
    content = message.content
    kind, body = content.sender.sender_type, content.body
    if kind == SenderType.NEW_MEMBER_PROPOSAL:
        if not isinstance(body, Proposal) or not isinstance(body.content, Add):
            return Fact("signature", "a new member proposes nothing but its Add", good=False)
        package = body.content.key_package
        suite = _known(package.cipher_suite)
        if suite is None:
            return Fact("signature", _unknown_suite(package.cipher_suite))
        # What this sender signs has no GroupContext in it; an empty one is not looked at.
        tbs = content_to_be_signed(message.wire_format, content, _NO_CONTEXT)
        return _checked(
            "signature",
            lambda: suite.verify_with_label(
                package.leaf_node.signature_key,
                "FramedContentTBS",
                tbs,
                message.auth.signature,
                rule=Rule.CONTENT_SIGNATURE,
            ),
        )
    if kind == SenderType.EXTERNAL:
        return Fact("signature", "not known: the key is in the group's external_senders")
    return Fact("signature", "not known: it covers the epoch's GroupContext")


_NO_CONTEXT = GroupContext.decode(b"\x00\x01\x00\x01" + bytes(12))


def _unknown_suite(number: int) -> str:
    return f"not known: cipher suite {int(number)} is not supported here"


# -- key packages and leaves


def _key_package(package: KeyPackage, context: Context) -> Iterator[Fact]:
    suite = _known(package.cipher_suite)
    if suite is None:
        yield Fact("KeyPackageRef", _unknown_suite(package.cipher_suite))
        return
    yield Fact("KeyPackageRef", package.reference().hex())
    tbs = KeyPackageTBS(
        package.version,
        package.cipher_suite,
        package.init_key,
        package.leaf_node,
        package.extensions,
    )
    yield _checked(
        "signature",
        lambda: suite.verify_with_label(
            package.leaf_node.signature_key,
            "KeyPackageTBS",
            tbs.encode(),
            package.signature,
            rule=Rule.KEY_PACKAGE_SIGNATURE,
        ),
    )
    yield _checked(
        "checks of §10.1",
        lambda: package.validate(suite, AcceptAnything(), now=context.now, max_lifetime=None),
        "all hold (the credential is not authenticated)",
    )


def _leaf(leaf: LeafNode, context: Context) -> Iterator[Fact]:
    bound = leaf.leaf_node_source != LeafNodeSource.KEY_PACKAGE
    if bound and (context.group_id is None or context.leaf_index is None):
        yield Fact("signature", "not known: it covers the group id and the leaf index")
        return
    suites = list(_candidates(leaf, context))
    if not suites:
        yield Fact("signature", "not known: no cipher suite that is supported here fits")
        return
    for suite in suites:
        try:
            check_signature(leaf, suite, context.group_id or b"", context.leaf_index or 0)
        except VerificationError:
            continue
        yield Fact("signature", f"valid ({suite.signature.name})", good=True)
        return
    yield Fact("signature", f"does not verify [{Rule.LEAF_SIGNATURE}]", good=False)


def _candidates(leaf: LeafNode, context: Context) -> Iterator[Suite]:
    """One suite for each signature scheme that the leaf may be signed with."""
    if context.suite is not None:
        yield context.suite
        return
    listed = {int(number) for number in leaf.capabilities.cipher_suites}
    for suite in _by(lambda s: s.signature.name).values():
        same = {int(s) for s in SUPPORTED_CIPHER_SUITES if suite_of(s).signature is suite.signature}
        if same & listed:
            yield suite


def _lifetime(lifetime: Lifetime, context: Context) -> Iterator[Fact]:
    first, last = lifetime.not_before, lifetime.not_after
    if first > last:
        yield Fact("lifetime", "ends before it begins", good=False)
        return
    days = (last - first) / 86400
    if days < 100_000:
        yield Fact("length", f"{days:.1f} days")
    if context.now is not None:
        if context.now < first:
            yield Fact("now", "not valid yet", good=False)
        else:
            expired = context.now > last
            yield Fact("now", "expired" if expired else "valid", good=not expired)


# -- groups


def _group_info(info: GroupInfo, context: Context) -> Iterator[Fact]:
    inside = context.inside(info)
    suite = inside.suite
    if suite is None:
        yield Fact("signature", _unknown_suite(info.group_context.cipher_suite))
        return
    try:
        inner = find_extension(info.extensions, ExtensionType.RATCHET_TREE, RatchetTreeList)
        tree = None if inner is None else UnverifiedTree.decode(inner.encode(), suite)
    except CoterieError as error:
        yield Fact("ratchet tree", str(error), good=False)
        return
    if tree is None:
        yield Fact("signature", "not known: the signer's key is in the tree, which is not inside")
        return
    unverified = tree
    signer = unverified.trust().leaf(info.signer)
    if signer is None:
        yield Fact("signature", f"leaf {int(info.signer)}, the signer, is blank", good=False)
        return
    yield _checked("signature", lambda: info.verify(suite, signer.signature_key))
    policy = Policy(AcceptAnything(), max_lifetime=None)
    yield _checked(
        "ratchet tree",
        lambda: verify_tree(unverified, info.group_context, policy),
        "has the tree hash of the GroupContext, and every check of §12.4.3.1 holds",
    )


def _tree(tree: RatchetTreeList, context: Context) -> Iterator[Fact]:
    nodes = tree.ratchet_tree
    leaves, parents = nodes[::2], nodes[1::2]
    yield Fact("members", f"{sum(n is not None for n in leaves)} in {len(leaves)} leaves")
    yield Fact("parents", f"{sum(n is not None for n in parents)} of {len(parents)} are not blank")
    suites = [context.suite] if context.suite else list(_tree_suites(tree))
    if not suites:
        yield Fact("tree hash", "not known: the cipher suite is not clear; name it with --suite")
    for suite in suites:
        yield from _tree_facts(tree.encode(), suite, alone=len(suites) == 1)


def _tree_suites(tree: RatchetTreeList) -> Iterator[Suite]:
    """One suite for each hash function that a tree may have, by what its leaves list and the keys' validity."""
    leaves = [n.node for n in tree.ratchet_tree if n is not None and isinstance(n.node, LeafNode)]
    if not leaves:
        return
    listed = set.intersection(*({int(s) for s in n.capabilities.cipher_suites} for n in leaves))
    seen: set[str] = set()
    for number in SUPPORTED_CIPHER_SUITES:
        suite = suite_of(number)
        if number in listed and suite.hash_name not in seen and _has_keys_of(leaves[0], suite):
            seen.add(suite.hash_name)
            yield suite


def _has_keys_of(leaf: LeafNode, suite: Suite) -> bool:
    try:
        suite.check_hpke_public_key(leaf.encryption_key)
        suite.check_signature_public_key(leaf.signature_key)
    except VerificationError:
        return False
    return True


def _tree_facts(encoded: bytes, suite: Suite, *, alone: bool) -> Iterator[Fact]:
    with_hash = "" if alone else f" with {_hash_name(suite)}"
    try:
        tree = UnverifiedTree.decode(encoded, suite).trust()
    except CoterieError as error:
        yield Fact("shape", str(error), good=False)
        return
    yield Fact(f"tree hash{with_hash}", tree.tree_hash().hex())
    yield _checked("unmerged leaves", lambda: verify_structure(tree))
    yield _checked(f"parent hashes{with_hash}", lambda: verify_parent_hashes(tree))


def _group_context(context: GroupContext, _outside: Context) -> Iterator[Fact]:
    if _known(context.cipher_suite) is None:
        yield Fact("cipher suite", _unknown_suite(context.cipher_suite))


def _welcome(welcome: Welcome, _context: Context) -> Iterator[Fact]:
    count = len(welcome.secrets)
    yield Fact("recipients", f"{count}, named by their KeyPackageRef (new_member)")


def _reinit(reinit: ReInit, _context: Context) -> Iterator[Fact]:
    if _known(reinit.cipher_suite) is None:
        yield Fact("cipher suite", _unknown_suite(reinit.cipher_suite))


_FACTS: dict[type[Struct], Callable[[Any, Context], Iterator[Fact]]] = {
    MLSMessage: _message,
    PublicMessage: _public_message,
    AuthenticatedContent: _authenticated_content,
    KeyPackage: _key_package,
    LeafNode: _leaf,
    Lifetime: _lifetime,
    GroupInfo: _group_info,
    GroupContext: _group_context,
    RatchetTreeList: _tree,
    Welcome: _welcome,
    ReInit: _reinit,
}
