"""Making a group and its log (docs/delivery-protocol.md, section 6)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from coterie.client.content import (
    BINDING_EXTENSION,
    GroupProfile,
)
from coterie.client.epoch_keys import EpochKeys
from coterie.client.line import Line
from coterie.client.place import Tools, no_answer
from coterie.client.vault import Step, StoredConversation
from coterie.errors import StorageError, VerificationError
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Extension
from coterie.mls.group import Group
from coterie.transport import api


@dataclass(frozen=True, slots=True)
class Follows:
    """The group that a new one replaces, as its maker has it."""

    predecessor: api.Predecessor
    profile: GroupProfile
    cipher_suite: int


@dataclass(frozen=True, slots=True)
class NewGroup:
    """A group of this device alone, in memory: to be stored before its log is created (D-LOG-2)."""

    group: Group
    entry: StoredConversation

    def store(self, step: Step, conversation: str) -> None:
        """Stores it as one that is being made."""
        step.begin(conversation, self.entry)
        step.save_group(conversation, self.group)


def new_group(tools: Tools, name: str, retention: int, follows: Follows | None = None) -> NewGroup:
    """A new group with its log's first epoch (D-LOG-5)."""
    identity, now = tools.identity, tools.clock()
    log_id = secrets.token_bytes(32)
    stored = identity.stored
    binding = api.DeliveryBinding(
        api.DeliveryVersion.COTERIE1, stored.server, stored.receipt_key, log_id, retention
    )
    profile = GroupProfile(name.encode(), (identity.user.encode(),))
    suite = identity.suite
    if follows is not None:
        binding, profile = binding.replace(predecessor=follows.predecessor), follows.profile
        if follows.cipher_suite in identity.suites:
            suite = suite_of(follows.cipher_suite)
    group = Group.create(
        secrets.token_bytes(32),
        suite,
        identity.signature_key,
        identity.credential,
        identity.capabilities(),
        tools.config,
        lifetime=identity.lifetime(now),
        extensions=[Extension(BINDING_EXTENSION, binding.encode()), profile.extension()],
    )
    keys = EpochKeys.derive(group.export_secret, log_id)
    create = api.CreateLog(api.DeliveryVersion.COTERIE1, log_id, keys.access, retention)
    request = api.CreateLogRequest(create, keys.sign(create.to_be_signed()))
    return NewGroup(group, StoredConversation(name.encode(), b"creating", b"", now, request))


async def open_log(tools: Tools, conversation: str) -> None:
    """Creates the log of a group that was made and stored; repeating the same request is harmless (D-LOG-2)."""
    vault = tools.vault
    entry = vault.conversation(conversation)
    if entry.status != b"creating":
        return
    if entry.create is None:
        msg = f"nothing is known of how the group {conversation} was made"
        raise StorageError(msg)
    appended = await tools.delivery.create_log(entry.create)
    group = vault.load_group(conversation, tools.config)
    try:
        line = Line.opened(group, api.ZERO32, appended.receipt)
    except VerificationError as error:
        raise no_answer(error) from error
    with vault.step() as step:
        step.save_line(conversation, line)
        step.note_log(group.group_id, line.binding.log_id)
        step.set_status(conversation, "active")
