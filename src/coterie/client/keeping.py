"""What is kept of groups that follow one another: what is announced, prepared, parked until it can be joined.

A conversation keeps its id when its group is followed by another one; so there is a table from groups to conversations,
which has the groups of before as well (decision 0099).
"""

from __future__ import annotations

from typing import Annotated

from coterie.client.intents import ClaimedPackage, WelcomeSlice
from coterie.mls.group import Config, Group
from coterie.mls.tls import Struct, Uint
from coterie.mls.types import CipherSuite
from coterie.storage import Profile, Transaction
from coterie.storage.transaction import PUBLIC_PREFIXES
from coterie.transport import api

_CLIENT = "client"
_CONVERSATIONS = "conversations"
_SUCCESSIONS = "successions"
_PARKED = "parked"
_REFORMS = "reforms"
_ORIGINS = "origins"
_PREPARED_DECLINES = "prepared-declines"
_DECLINES = "declines"
_OF_GROUP = b"group/"
_PRESENT = b"present/"
_LOG_OF = b"log/"
_LAZY = (b"n/", b"i/")
MAX_PARKED = 64
"""How many invitations are kept that cannot be joined yet; the oldest is given up."""


class Prepared(Struct):
    """The group that this device made to follow a reinitialised one; nobody is told before its successor counts."""

    parent: api.Hash
    """The name of the new log's first epoch, which opens the group's."""
    tag: bytes
    """The GroupInfo's confirmation tag."""
    access: api.Access
    content: bytes
    """The SuccessorContent."""
    opening: api.Append
    """The entry that opens the new group's first epoch in its log."""
    successor: api.Append
    cipher_suite: CipherSuite
    encrypted_group_info: bytes
    guests: tuple[WelcomeSlice, ...]
    opened: api.Receipt | None = None


class Counting(Struct):
    """The successor that counts: the group that the Welcomes must lead to (D-SUC-2, D-SUC-4)."""

    group_id: bytes
    log_id: api.Id
    tag: bytes
    leaf: Annotated[int, Uint(4)]


class Succession(Struct):
    """A group that ended with a ReInit, and how far this device is on the way to the next one."""

    committer: Annotated[int, Uint(4)]
    since: Annotated[int, Uint(8)]
    """When this device adopted the ReInit, in seconds since 1970."""
    claimed: tuple[ClaimedPackage, ...] = ()
    prepared: Prepared | None = None
    counting: Counting | None = None
    wait_until: Annotated[int, Uint(8)] = 0
    """When to try again, where making the next group failed."""
    told: Annotated[int, Uint(1)] = 0
    """1 where the user was told that it takes too long."""


class Parked(Struct):
    """A Welcome that leads on from a group in which this device is not that far yet."""

    package: bytes
    """The key package's reference."""
    continues: bytes
    """The id of the group that it leads on from."""
    welcome: api.WelcomeContent
    at: Annotated[int, Uint(8)]


class Reformed(Struct):
    """A Welcome into a group that says that it replaces another one: joined when the user says so (D-SUC-6)."""

    package: bytes
    welcome: api.WelcomeContent
    group_id: bytes
    log_id: api.Id
    name: bytes
    by: bytes
    users: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    """Users of the old group, as far as it is known, who are not in the new one."""
    agreed: Annotated[int, Uint(1)] = 0
    """1 once the user wants to go there, while the group's state is downloaded."""


class Origin(Struct):
    """The group that a re-formed one replaces: by what is judged whether another one counts (D-SUC-7)."""

    group_id: bytes
    log_id: api.Id
    admins: tuple[bytes, ...]
    users: tuple[bytes, ...]
    without: tuple[bytes, ...]
    """Users of the old group whom this device's user left behind."""


def _space(conversation: str) -> str:
    return f"group/{conversation}"


def _next_space(conversation: str) -> str:
    return f"next/{conversation}"


class KeepingStep:
    """Changes, as a part of `Step`."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def save_succession(self, conversation: str, succession: Succession) -> None:
        """How far this device is."""
        self._tx.put(_SUCCESSIONS, conversation.encode(), succession.encode())

    def save_next_group(self, conversation: str, group: Group) -> None:
        """The group that is prepared beside the present one."""
        self._tx.delete_space(_next_space(conversation))
        self._tx.apply(_next_space(conversation), group.save())

    def drop_next_group(self, conversation: str) -> None:
        """It does not count."""
        self._tx.delete_space(_next_space(conversation))

    def take_next_group(self, conversation: str) -> None:
        """The prepared group becomes the conversation's, whose old one was deleted."""
        for key, value in list(self._tx.scan(_next_space(conversation))):
            public = key.startswith(PUBLIC_PREFIXES)
            self._tx.put(_space(conversation), key, value, secret=not public)
        self._tx.delete_space(_next_space(conversation))

    def end_succession(self, conversation: str) -> None:
        """The conversation has arrived, or goes another way."""
        self._tx.delete(_SUCCESSIONS, conversation.encode())
        self._tx.delete_space(_next_space(conversation))

    def link_group(self, group_id: bytes, conversation: str, *, present: bool) -> None:
        """A group is one of a conversation's: the present one, or one that the user is asked about."""
        self._tx.put(_CLIENT, _OF_GROUP + group_id, conversation.encode(), secret=False)
        if present:
            self._tx.put(_CLIENT, _PRESENT + conversation.encode(), group_id, secret=False)

    def note_log(self, group_id: bytes, log_id: bytes) -> None:
        """In which log a group is; it is in no other, as long as it lives (D-ACC-9)."""
        self._tx.put(_CLIENT, _LOG_OF + group_id, log_id, secret=False)

    def save_origin(self, conversation: str, origin: Origin) -> None:
        """Which group a re-formed one replaces."""
        self._tx.put(_ORIGINS, conversation.encode(), origin.encode(), secret=False)

    def forget_origin(self, conversation: str) -> None:
        """The present group was not re-formed."""
        self._tx.delete(_ORIGINS, conversation.encode())

    def park(self, parked: Parked) -> list[bytes]:
        """Keeps a Welcome for later; the references of key packages whose Welcomes were given up for it."""
        kept = sorted(
            ((Parked.decode(v), key) for key, v in self._tx.scan(_PARKED)), key=lambda p: p[0].at
        )
        given_up = kept[: max(len(kept) - MAX_PARKED + 1, 0)]
        for _, key in given_up:
            self._tx.delete(_PARKED, key)
        self._tx.put(_PARKED, api.sha256(parked.welcome.welcome), parked.encode())
        return [old.package for old, _ in given_up]

    def unpark(self, parked: Parked) -> None:
        """It was joined, or leads nowhere."""
        self._tx.delete(_PARKED, api.sha256(parked.welcome.welcome))

    def save_reform(self, conversation: str, invitation: Reformed) -> None:
        """Keeps a Welcome until the user is asked."""
        key = conversation.encode() + b"/" + invitation.log_id
        self._tx.put(_REFORMS, key, invitation.encode())

    def drop_reform(self, conversation: str, invitation: Reformed) -> None:
        """The user has answered, or it does not count any more."""
        self._tx.delete(_REFORMS, conversation.encode() + b"/" + invitation.log_id)
        self._tx.delete(_PREPARED_DECLINES, invitation.log_id)

    def prepare_decline(self, request: api.PostRequest) -> None:
        """Keeps what is said in a group if the user does not want to be in it."""
        self._tx.put(_PREPARED_DECLINES, request.log_id, request.encode())

    def decline_reform(self, conversation: str, invitation: Reformed) -> None:
        """The user does not want to be in it, which is to be said there."""
        request = self._tx.get(_PREPARED_DECLINES, invitation.log_id)
        self.drop_reform(conversation, invitation)
        if request is not None:
            self._tx.put(_DECLINES, invitation.log_id, request)

    def forget_decline(self, log_id: bytes) -> None:
        """It was said, or nobody can hear it any more."""
        self._tx.delete(_DECLINES, log_id)


class KeepingView:
    """Reads, as a part of `Vault`."""

    profile: Profile

    def succession(self, conversation: str) -> Succession | None:
        """Where the group ended with a ReInit: how far this device is."""
        value = self.profile.view.get(_SUCCESSIONS, conversation.encode())
        return None if value is None else Succession.decode(value)

    def load_next_group(self, conversation: str, config: Config) -> Group:
        """The group that was prepared."""
        reader = self.profile.reader(_next_space(conversation))
        return Group.load(reader.entries(_LAZY), reader, config)

    def conversation_of(self, group_id: bytes) -> str | None:
        """The conversation that a group is or was of, None where there is none."""
        view = self.profile.view
        value = view.get(_CLIENT, _OF_GROUP + group_id)
        if value is None and view.get(_CONVERSATIONS, group_id.hex().encode()) is not None:
            value = group_id.hex().encode()
        return None if value is None else value.decode()

    def log_of(self, group_id: bytes) -> bytes | None:
        """The log of a group that this device is in or was, None for another one."""
        return self.profile.view.get(_CLIENT, _LOG_OF + group_id)

    def present_group(self, conversation: str) -> bytes:
        """The id of a conversation's group."""
        value = self.profile.view.get(_CLIENT, _PRESENT + conversation.encode())
        return bytes.fromhex(conversation) if value is None else value

    def origin(self, conversation: str) -> Origin | None:
        """The group that the present one was re-formed from."""
        value = self.profile.view.get(_ORIGINS, conversation.encode())
        return None if value is None else Origin.decode(value)

    def parked(self) -> list[Parked]:
        """The Welcomes that wait until this device is that far."""
        return [Parked.decode(value) for _, value in self.profile.view.scan(_PARKED)]

    def reforms(self, conversation: str) -> list[Reformed]:
        """What the user is asked about, the group with the smallest log id first (D-SUC-7)."""
        found = self.profile.view.scan(_REFORMS, conversation.encode() + b"/")
        return [Reformed.decode(value) for _, value in found]

    def declines(self) -> list[api.PostRequest]:
        """In which groups it is to be said that the user does not want to be in them."""
        return [api.PostRequest.decode(value) for _, value in self.profile.view.scan(_DECLINES)]
