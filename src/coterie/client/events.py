"""What a client tells its application, as values."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.client.rules import GroupRules


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a conversation."""

    conversation: str
    """The conversation's id on this device: the hexadecimal id of the first group that it had."""


@dataclass(frozen=True, slots=True)
class Joining(Event):
    """This device was added to a group and downloads its state: `done` of the `known` chunks are here."""

    name: str
    done: int
    known: int


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """This device is in a group now; `by` added it."""

    name: str
    by: str


@dataclass(frozen=True, slots=True)
class MessageReceived(Event):
    """A text arrived."""

    message_id: str
    sender: str
    text: str
    sent_at: int


@dataclass(frozen=True, slots=True)
class MessageSent(Event):
    """An own text stands in the log: everybody who is in the group can read it."""

    message_id: str


@dataclass(frozen=True, slots=True)
class MessageSeen(Event):
    """A member says that it has shown these messages."""

    message_ids: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class MembersAdded(Event):
    """Users (or further devices of theirs) were added."""

    users: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class MembersRemoved(Event):
    """Users (or devices of theirs) were removed; where one left, `by` is that user.

    `why` is idle, revoked or declined (they were added, and say that they do not come) where nobody asked for it.
    """

    users: tuple[str, ...]
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class MembersReturned(Event):
    """Devices of users were added anew in one step: they had lost their place, or (`why`: silent) never came."""

    users: tuple[str, ...]
    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class MembersRevoked(Event):
    """Devices of users were revoked, and are still in the group; whose client may removes them."""

    users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Renamed(Event):
    """The group has another name."""

    name: str
    by: str


@dataclass(frozen=True, slots=True)
class RulesChanged(Event):
    """The group has other rules, or other administrators (`name@realm`)."""

    rules: GroupRules
    before: GroupRules
    admins_added: tuple[str, ...]
    admins_removed: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class RemovedFromGroup(Event):
    """This device is no longer in the group, and can read nothing that is sent from now on.

    `why` is idle or revoked where nobody asked for it; `by` is the own user where this device left.
    """

    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class JoinRequested(Event):
    """Somebody with a link asks to come in; `note` is theirs. `GroupHandle.accept` and `refuse` answer."""

    user: str
    note: str


@dataclass(frozen=True, slots=True)
class Moving(Event):
    """A member moves the group to a new one, of another suite or retention; texts wait until this device is there."""

    by: str


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """The conversation goes on in a new group, which follows the old one or replaces it; its history stays."""

    by: str


@dataclass(frozen=True, slots=True)
class Invited(Event):
    """Somebody re-formed the group: `GroupHandle.follow` goes there, with the history; nothing happens before."""

    by: str
    users: tuple[str, ...]
    """Who is in the new group."""
    missing: tuple[str, ...]
    """Who was in the old one and is not."""


@dataclass(frozen=True, slots=True)
class KeysRenewed(Event):
    """A member renewed its keys."""

    by: str


@dataclass(frozen=True, slots=True)
class Missed(Event):
    """Retention dropped messages before this device read them."""

    count: int


@dataclass(frozen=True, slots=True)
class Problem(Event):
    """Something is wrong that the user should know; `what_to_do` says what, if anything."""

    what: str
    what_to_do: str = ""
