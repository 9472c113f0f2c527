"""From a message to verified content (RFC 9420 §6, §12.1): every check that comes before acting on it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from coterie.errors import CoterieError, DecodeError, DecryptionError, RuleViolation
from coterie.mls.framing import (
    AuthenticatedContent,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    VerifiedContent,
    unprotect_public,
    verify_content,
    verify_contents,
)
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing, MessageEpoch
from coterie.mls.group.results import ApplicationMessage, OwnMessage
from coterie.mls.group_context import GroupContext
from coterie.mls.private_message import (
    SenderData,
    open_content,
    open_private,
    open_sender_data,
)
from coterie.mls.public_group import Member
from coterie.mls.rules import Rule
from coterie.mls.secret_tree import RatchetKind
from coterie.mls.types import ContentType
from coterie.mls.validation import sender_key, wrong_epoch

MAX_AHEAD = 256
"""How many messages are opened before it is their turn: some milliseconds of work for each core, and little memory."""


@dataclass(slots=True)
class Foreseen:
    """A message that was opened and verified before its turn; its key is not consumed."""

    sender: SenderData
    content: VerifiedContent


class Opener:
    """Opens messages with the keys of a group."""

    def __init__(self, keys: KeyRing, config: Config) -> None:
        self._keys = keys
        self._config = config
        self._ahead: dict[bytes, Foreseen] = {}

    def look_ahead(self, present: Epoch, messages: Iterable[MLSMessage]) -> None:
        """Opens application messages before it is their turn, and verifies them on all cores; changes nothing.

        What does not open, or does not hold, is as if it had not been given: `open` judges it by itself.
        """
        opened = {}
        for message in islice(messages, MAX_AHEAD):
            # An error is raised when it is this message's turn, if it still is one then.
            with suppress(CoterieError):
                found = self._open_ahead(present, message)
                if found is not None:
                    opened[message.encode()] = found
        verified = verify_contents(
            present.suite, (found[1:] for found in opened.values()), self._config.run
        )
        for raw, found, content in zip(opened, opened.values(), verified, strict=True):
            if content is not None:
                self._ahead[raw] = Foreseen(found[0], content)

    def _open_ahead(
        self, present: Epoch, message: MLSMessage
    ) -> tuple[SenderData, AuthenticatedContent, bytes, GroupContext] | None:
        body = message.body
        if not isinstance(body, PrivateMessage) or not _is_data(body):
            return None
        keys = self._keys.of_epoch(body.epoch)
        if keys is None or body.group_id != present.context.group_id:
            return None
        suite = present.suite
        sender = open_sender_data(suite, body, keys.sender_data_secret)
        if sender.leaf_index == present.leaf:
            return None
        leaf = keys.tree.member(sender.leaf_index, rule=Rule.SENDER_DATA_LEAF)
        key = keys.secret_tree.look_ahead(
            sender.leaf_index, RatchetKind.APPLICATION, sender.generation
        )
        if key is None:
            return None
        content = open_content(suite, body, sender, *key)
        return sender, content, leaf.signature_key, keys.context

    def forget_ahead(self) -> None:
        """Drops what was opened before its turn, and the secrets that this took."""
        self._ahead.clear()
        self._keys.forget_ahead()

    def open(
        self, present: Epoch, message: MLSMessage, *, now: int | None
    ) -> ApplicationMessage | VerifiedContent | OwnMessage:
        """Opens and verifies a message; the key of a private one is consumed then and only then."""
        body = message.body
        if not isinstance(body, PublicMessage | PrivateMessage):
            msg = f"a {type(body).__name__} is not a message within a group"
            raise DecodeError(msg, rule=Rule.ENUM_VALUE)
        frame = body.content if isinstance(body, PublicMessage) else body
        if frame.group_id != present.context.group_id:
            msg = f"the message is for group {frame.group_id.hex()}, this is {present!r}"
            raise RuleViolation(msg, rule=Rule.GROUP_ID)
        keys = self._keys.of_epoch(frame.epoch)
        if keys is None or (frame.epoch != present.number and not _is_data(body)):
            own = self._keys.own_message(message)
            if own is not None:
                return OwnMessage(*own)
            raise wrong_epoch(frame.epoch, present.number)
        if isinstance(body, PublicMessage):
            return self._open_public(present, message, body)
        return self._open_private(present, keys, message, body, now)

    def _own(self, message: MLSMessage) -> OwnMessage:
        """The echo of an own message; raises where it is in one's own name and not one's own."""
        own = self._keys.own_message(message)
        if own is None:
            msg = "a message in this member's name that this client did not make, or does not remember"
            raise DecryptionError(msg, rule=Rule.OWN_MESSAGE_UNKNOWN)
        return OwnMessage(*own)

    def _open_public(
        self, present: Epoch, message: MLSMessage, body: PublicMessage
    ) -> VerifiedContent | OwnMessage:
        suite, context = present.suite, present.context
        key = sender_key(body.content, present.tree, context)
        content = unprotect_public(suite, body, context, present.secrets.membership_key)
        verified = verify_content(suite, content, key, context)
        if body.content.sender == present.sender:
            return self._own(message)
        return verified

    def _open_private(
        self,
        present: Epoch,
        keys: MessageEpoch,
        message: MLSMessage,
        body: PrivateMessage,
        now: int | None,
    ) -> ApplicationMessage | VerifiedContent | OwnMessage:
        foreseen = self._ahead.get(message.encode()) if self._ahead else None
        if foreseen is not None:
            return _as_foreseen(keys, foreseen, body, now)
        suite = present.suite
        sender = open_sender_data(suite, body, keys.sender_data_secret)
        leaf = keys.tree.member(sender.leaf_index, rule=Rule.SENDER_DATA_LEAF)
        if sender.leaf_index == present.leaf:
            own = self._keys.own_message(message)
            if own is not None:
                return OwnMessage(*own)
        opened = open_private(suite, body, sender, keys.secret_tree)
        content = verify_content(suite, opened.content, leaf.signature_key, keys.context)
        if sender.leaf_index == present.leaf:
            # Signed with the own key, in a generation that was never used here: not junk that an insider made up.
            return self._own(message)
        keys.secret_tree.consume(opened.key, now or 0)
        data = content.content.body
        if not isinstance(data, bytes):
            return content
        return ApplicationMessage(
            Member(sender.leaf_index, leaf),
            body.epoch,
            sender.generation,
            data,
            body.authenticated_data,
        )


def _as_foreseen(
    keys: MessageEpoch, foreseen: Foreseen, body: PrivateMessage, now: int | None
) -> ApplicationMessage:
    """The message that was opened ahead; only whether its generation is still to be had is known just now."""
    sender = foreseen.sender
    leaf = keys.tree.member(sender.leaf_index, rule=Rule.SENDER_DATA_LEAF)
    key = keys.secret_tree.find(sender.leaf_index, RatchetKind.APPLICATION, sender.generation)
    keys.secret_tree.consume(key, now or 0)
    return ApplicationMessage(
        Member(sender.leaf_index, leaf),
        body.epoch,
        sender.generation,
        foreseen.content.body(bytes),
        body.authenticated_data,
    )


def _is_data(body: PublicMessage | PrivateMessage) -> bool:
    return isinstance(body, PrivateMessage) and body.content_type == ContentType.APPLICATION
