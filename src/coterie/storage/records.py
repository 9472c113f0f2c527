"""What storage keeps in tables, because it is searched or ordered: messages and intents."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class MessageState(IntEnum):
    """Where a message is on its way; the numbers are stored."""

    RECEIVED = 0
    """Somebody else's message."""
    WAITING = 1
    """Own: not accepted by the service yet."""
    SENT = 2
    """Own: accepted by the service."""
    FAILED = 3
    """Own: given up."""
    ERASED = 4
    """Its content is gone; the row stays, so that a copy that arrives later is not shown."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the history. Times are milliseconds since 1970-01-01 UTC, as the client gives them.

    `conversation` and `message_id` together are unique. `text` is what search finds; `body` is whatever else the
    client keeps. `position` is given by storage: the order of arrival on this device, from 1, never reused; imported
    history stands before, at 0 and below.
    `seen_by` is in the order of seeing; storage fills it, see `Transaction.mark_seen`.
    """

    conversation: bytes
    message_id: bytes
    sender: str
    sent_at: int
    received_at: int
    kind: str = "text"
    text: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)
    state: MessageState = MessageState.RECEIVED
    seen_by: tuple[str, ...] = ()
    position: int = 0


@dataclass(frozen=True, slots=True)
class Intent:
    """What the user asked for and the service has not accepted yet; `number` orders intents and is never reused.

    `kind`, `state` and `payload` mean what the client makes of them.
    """

    number: int
    conversation: bytes
    kind: str
    state: str
    payload: bytes = field(repr=False)
