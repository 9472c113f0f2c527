"""Replacing a group that cannot go on by one without the offender (docs/delivery-protocol.md, D-SUC-6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coterie.client.content import read_profile
from coterie.client.conversation import Conversation
from coterie.client.creating import Follows
from coterie.client.identity import Identity
from coterie.client.inviting import Known, may_reform
from coterie.client.keeping import Origin
from coterie.client.moving import TAKE_OVER
from coterie.client.successor import users_of
from coterie.client.vault import Vault
from coterie.errors import StateError
from coterie.transport import api

JAMMED = frozenset({"stuck", "stopped", "moving"})
"""The states in which a group may be past help."""


@dataclass(frozen=True, slots=True)
class Reform:
    """A group that takes another one's place: what it says of itself, and who is asked to come."""

    follows: Follows
    origin: Origin
    name: str
    invited: tuple[str, ...]


def plan_reform(
    conversation: Conversation, vault: Vault, identity: Identity, without: Iterable[str], now: int
) -> Reform:
    """Raises `StateError` where the group works, or this user has no right to replace it."""
    name, left = conversation.id, {identity.full_name(user) for user in without}
    _check_jammed(conversation, vault, now)
    line = conversation.line
    group = line.group
    users = users_of(group.tree, identity)
    if strangers := left - users:
        msg = f"not in the group: {', '.join(sorted(strangers))}"
        raise StateError(msg)
    if identity.user in left:
        msg = "to go yourself, decline, or leave the group"
        raise StateError(msg)
    profile = read_profile(group.context.extensions)
    admins = [admin.decode(errors="replace") for admin in profile.admins]
    staying = users - left
    if not may_reform(identity.user, staying, Known(frozenset(admins), frozenset(users))):
        msg = f"only an administrator may replace the group: {', '.join(admins)}"
        raise StateError(msg)
    kept = tuple(admin.encode() for admin in admins if admin in staying)
    predecessor = api.Predecessor(
        api.PredecessorType.REFORM,
        group.group_id,
        line.binding.log_id,
        line.state.epoch,
        line.state.head,
    )
    origin = Origin(
        group.group_id,
        line.binding.log_id,
        profile.admins,
        tuple(user.encode() for user in sorted(users)),
        tuple(user.encode() for user in sorted(left)),
    )
    own = [n for n, node in group.tree.members()
           if identity.user_of_credential(node.credential) == identity.user]  # fmt: skip
    invited = staying if len(own) > 1 else staying - {identity.user}
    follows = Follows(
        predecessor,
        profile.replace(admins=kept or (identity.user.encode(),)),
        int(group.context.cipher_suite),
    )
    return Reform(follows, origin, vault.name(name), tuple(sorted(invited)))


def _check_jammed(conversation: Conversation, vault: Vault, now: int) -> None:
    status, succession = vault.status(conversation.id), vault.succession(conversation.id)
    if vault.reforms(conversation.id):
        msg = "somebody has re-formed this group already: follow there, or decline it first"
        raise StateError(msg)
    if status == "active":
        msg = "the group works: to go on without somebody, remove them"
        raise StateError(msg)
    if status not in JAMMED:
        msg = f"this device is not in the group: {vault.conversation(conversation.id).why.decode()}"
        raise StateError(msg)
    if status == "moving" and succession is not None and now - succession.since < TAKE_OVER:
        msg = "the group is being moved to a new one: wait ten minutes before you give that up"
        raise StateError(msg)
