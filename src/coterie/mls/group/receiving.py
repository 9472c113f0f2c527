"""From a message to verified content (RFC 9420 §6, §12.1): every check that comes before acting on it."""

from __future__ import annotations

from coterie.errors import DecodeError, DecryptionError, RuleViolation
from coterie.mls.framing import (
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    VerifiedContent,
    unprotect_public,
    verify_content,
)
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing, MessageEpoch
from coterie.mls.group.results import ApplicationMessage, OwnMessage
from coterie.mls.private_message import open_private, open_sender_data
from coterie.mls.public_group import Member
from coterie.mls.rules import Rule
from coterie.mls.types import ContentType
from coterie.mls.validation import sender_key, wrong_epoch


class Opener:
    """Opens messages with the keys of a group."""

    def __init__(self, keys: KeyRing, config: Config) -> None:
        self._keys = keys
        self._config = config

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


def _is_data(body: PublicMessage | PrivateMessage) -> bool:
    return isinstance(body, PrivateMessage) and body.content_type == ContentType.APPLICATION
