"""The group that follows one which ended with a ReInit: announcing it, making it, judging it (section 11).

The log of the new group is opened by an epoch of its own, whose keys all members of the ended group derive; so whoever
makes the group opens the same log (D-SUC-9). Nothing here does I/O.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from coterie.client.chunks import WIDTH, SharedState
from coterie.client.content import BINDING_EXTENSION, read_binding, read_profile
from coterie.client.epoch_keys import EpochKeys, Exporter
from coterie.client.identity import Identity, read_key_package
from coterie.client.intents import ClaimedPackage, WelcomeSlice
from coterie.client.keeping import Counting, Prepared
from coterie.client.line import Line
from coterie.errors import CoterieError, DecodeError, RuleViolation, StateError
from coterie.mls.credential import Authenticator
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Group
from coterie.mls.key_package import VerifiedKeyPackage
from coterie.mls.proposal import ReInit
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tls import Struct, Uint
from coterie.mls.types import CipherSuite, ProtocolVersion
from coterie.mls.welcome import GroupInfo, Welcome
from coterie.transport import api


class Announcement(Struct):
    """What an administrator wants of the next group: the argument of an intent.

    `create` is the request for its log, once the Commit is sealed that names it.
    """

    cipher_suite: Annotated[int, Uint(2)]
    retention: Annotated[int, Uint(4)]
    create: api.CreateLogRequest | None = None


def announce(line: Line, wanted: Announcement) -> ReInit:
    """The ReInit that leads to a group with a fresh id and a fresh log at the same service (D-SUC-8)."""
    context = line.group.context
    origin = api.Predecessor(
        api.PredecessorType.REINIT,
        context.group_id,
        line.binding.log_id,
        line.state.epoch,
        line.state.head,
    )
    binding = read_binding(context.extensions).replace(
        log_id=secrets.token_bytes(32), retention=wanted.retention, predecessor=origin
    )
    kept = [e for e in context.extensions if e.extension_type != BINDING_EXTENSION]
    return ReInit(
        secrets.token_bytes(32),
        ProtocolVersion.MLS10,
        CipherSuite(wanted.cipher_suite),
        (Extension(BINDING_EXTENSION, binding.encode()), *kept),
    )


def create_log(export: Exporter, reinit: ReInit) -> api.CreateLogRequest:
    """The request that opens the new log, the same from every member of the epoch that ended the group (D-SUC-9)."""
    binding = read_binding(reinit.extensions)
    keys = EpochKeys.derive(export, binding.log_id)
    create = api.CreateLog(
        api.DeliveryVersion.COTERIE1, binding.log_id, keys.access, binding.retention
    )
    return api.CreateLogRequest(create, keys.sign(create.to_be_signed()))


def announced(group: Group) -> ReInit:
    """What a group was reinitialised to; `StateError` where it was not."""
    if group.reinitialized is None:
        msg = "the group was not reinitialised"
        raise StateError(msg)
    return group.reinitialized


def first_epoch(line: Line) -> tuple[EpochKeys, bytes]:
    """Keys and name of the epoch that opens the new log."""
    log_id = read_binding(announced(line.group).extensions).log_id
    keys = EpochKeys.derive(line.group.export_secret, log_id)
    return keys, keys.name(api.ZERO32)


# -- who must be in it


@dataclass(frozen=True, slots=True)
class Membership:
    """Key packages of members, and who has none."""

    packages: tuple[tuple[ClaimedPackage, VerifiedKeyPackage], ...]
    lacking: tuple[int, ...]
    """Leaves of members without one that is good."""


def members_of(
    group: Group,
    claimed: Iterable[ClaimedPackage],
    cipher_suite: int,
    auth: Authenticator,
    now: int,
) -> Membership:
    """The first good key package of each member but the own device; what is no member's is left out."""
    clients = {
        auth.client_id(node.credential): int(leaf)
        for leaf, node in group.tree.members()
        if leaf != group.own_leaf
    }
    found: dict[bytes, tuple[ClaimedPackage, VerifiedKeyPackage]] = {}
    for one in claimed:
        try:
            package = read_key_package(one.key_package)
            client = auth.client_id(package.leaf_node.credential)
            if client in clients and client not in found:
                found[client] = one, package.validate(suite_of(cipher_suite), auth, now=now)
        except CoterieError:
            continue
    lacking = tuple(leaf for client, leaf in clients.items() if client not in found)
    return Membership(tuple(found.values()), lacking)


# -- making it


def make_successor(
    line: Line,
    members: Sequence[tuple[ClaimedPackage, VerifiedKeyPackage]],
    identity: Identity,
    opening: api.Receipt,
    now: int,
) -> tuple[Group, Prepared]:
    """The new group in epoch 1, and everything that is sent for it; the caller stores both before anything is sent."""
    group, pending = line.group.reinit(
        [package for _, package in members],
        lifetime=identity.lifetime(now),
        now=now,
        options=CommitOptions(largest_tree_inside=WIDTH, external_pub=False),
        credential=identity.credential,
        capabilities=identity.capabilities(),
    )
    binding = read_binding(group.context.extensions)
    info = group.group_info(tree=False, external_pub=False)
    tbs = api.SuccessorTBS(info.encode(), binding.log_id)
    signature = line.group.sign(api.SUCCESSOR_LABEL.decode(), tbs.encode())
    content = api.SuccessorContent(line.group.own_leaf, tbs, signature).encode()
    keys, name = first_epoch(line)
    access = EpochKeys.derive(group.export_secret, binding.log_id).access
    by_reference = {package.key_package.reference(): one for one, package in members}
    welcome = pending.welcomes[0].body if pending.welcomes else None
    secrets_of = welcome.secrets if isinstance(welcome, Welcome) else ()
    guests = tuple(WelcomeSlice(by_reference[each.new_member], each) for each in secrets_of)
    return group, Prepared(
        name,
        confirmation_tag(info),
        access,
        content,
        opening_entry(keys, opening, api.ZERO32, access, content),
        line.successor(content),
        group.context.cipher_suite,
        welcome.encrypted_group_info if isinstance(welcome, Welcome) else b"",
        guests,
    )


def first_state(group: Group, state_secret: bytes) -> SharedState:
    """The chunks of a group that begins with all its members: its first epoch makes them all (D-CHK-3)."""
    shared, own = SharedState(), group.member(group.own_leaf).node
    alone = RatchetTree.of_one(group.suite, own)
    shared.apply(shared.change(alone, group.tree, state_secret), alone, group.tree)
    return shared


def opening_entry(
    keys: EpochKeys, opening: api.Receipt, last: bytes, access: api.Access, content: bytes
) -> api.Append:
    """The bundle that opens the new group's first epoch in the first epoch of its log; nobody need read it."""
    header = api.EntryHeader(
        api.DeliveryVersion.COTERIE1,
        api.EntryKind.BUNDLE,
        opening.epoch,
        secrets.token_bytes(32),
        api.Bundle(last, access, ()),
    )
    return keys.append(header, api.SealedContent(api.ContentKind.SUCCESSOR, opening, content))


def confirmation_tag(info: MLSMessage) -> bytes:
    """The confirmation tag of a GroupInfo, which stands for the group's whole state."""
    return _group_info(info).confirmation_tag


def _group_info(message: MLSMessage) -> GroupInfo:
    if not isinstance(message.body, GroupInfo):
        msg = "a successor without a GroupInfo"
        raise DecodeError(msg, rule="D-SUC-2")
    return message.body


# -- judging it


def judge_successor(group: Group, content: bytes) -> Counting:
    """Raises `CoterieError` unless a successor announces the group that the ReInit did (D-SUC-2).

    Whether its leaf has the right to is asked by `may_succeed`.
    """
    successor = api.SuccessorContent.decode(content)
    leaf = group.tree.member(successor.leaf_index, rule="D-SUC-2")
    group.suite.verify_with_label(
        leaf.signature_key,
        api.SUCCESSOR_LABEL.decode(),
        successor.tbs.encode(),
        successor.signature,
        rule="D-SUC-2",
    )
    info, reinit = _group_info(MLSMessage.read(successor.tbs.group_info)), announced(group)
    context = info.group_context
    same = (
        (context.group_id, context.cipher_suite) == (reinit.group_id, reinit.cipher_suite)
        and int(context.version) == int(reinit.version)
        and context.extensions == reinit.extensions
        and context.epoch == 1
        and successor.tbs.log_id == read_binding(reinit.extensions).log_id
    )
    if not same:
        msg = "a successor that is not the group that was announced"
        raise RuleViolation(msg, rule="D-SUC-2")
    return Counting(
        context.group_id, successor.tbs.log_id, info.confirmation_tag, successor.leaf_index
    )


def may_lead(group: Group, identity: Identity, leaf: int) -> bool:
    """Whether a leaf is an administrator's, or no administrator is left in the group."""
    profile = read_profile(group.context.extensions)
    return profile.is_admin(identity.user_of(group.tree, leaf)) or not any(
        profile.is_admin(identity.user_of(group.tree, n)) for n, _ in group.tree.members()
    )


def users_of(tree: RatchetTree, identity: Identity) -> set[str]:
    """The users of a tree's leaves."""
    return {identity.user_of_credential(node.credential) for _, node in tree.members()}
