"""What a client stores about people beside the groups' keys: requests to be let in, who is blocked, what was seen.

The bases of `vault.Step`, which writes, and `vault.Vault`, which reads.
"""

from __future__ import annotations

from typing import Annotated

from coterie.client.intents import ClaimedPackage
from coterie.mls.tls import Struct, Uint
from coterie.storage import Profile, Transaction, View
from coterie.transport import api

_CLIENT = "client"
_ASKED = "asked"
_REQUESTS = "requests"
_BLOCKED = "blocked"
_DECLINED = "declined"
_TOLD = b"told-seen/"
_DUE = b"tell-seen/"
_QUIET = b"quiet"
_NEXT_LOOK = b"next-look"
_LINKING = b"linking"
_NEXT_CALL = b"next-call/"
_CALLS = "calls"
_LEAVING = b"leaving/"
_CALLED = "called"
_ADDED = "added"
_RENEWED = "renewed"
_HEARD = "heard"
_REVOKED = "revoked"
_GOING = "going"
_TAKEN = "taken"
_LEFT = "left"
_CLAIMED = "claimed"
_LEAF = 4


class StoredAsk(Struct):
    """What this device asks for with a link; kept until it is let in."""

    link: api.Link
    note: bytes
    made_at: Annotated[int, Uint(8)]
    posted_at: Annotated[int, Uint(8)] = 0
    """When the request was put into the box; 0 where it was not yet."""
    package: bytes = b""
    """The reference of the key package in it."""


class StoredJoin(Struct):
    """Somebody's request to be let into a group."""

    user: bytes
    key_package: bytes
    ticket: api.Token
    note: bytes
    asked_at: Annotated[int, Uint(8)]
    came_at: Annotated[int, Uint(8)]


class StoredAdded(Struct):
    """Which leaves a Commit added, and when that was read."""

    epoch: Annotated[int, Uint(8)]
    at: Annotated[int, Uint(8)]
    leaves: tuple[Annotated[int, Uint(4)], ...]
    tried_at: Annotated[int, Uint(8)] = 0
    """When it was tried in vain to replace those that never appeared."""


class StoredGoing(Struct):
    """A leaf whose device says that it does not come, and when that was read."""

    leaf: Annotated[int, Uint(4)]
    at: Annotated[int, Uint(8)]


class StoredCall(Struct):
    """A call from a group in which this device does not take part, and when it was answered; 0 where it was not."""

    call: api.Call
    answered_at: Annotated[int, Uint(8)] = 0


class StoredClaim(Struct):
    """A user's key packages that were claimed for an Add that was not made, and when."""

    claimed: tuple[ClaimedPackage, ...]
    at: Annotated[int, Uint(8)]


def _claim_key(suite: int, user: str) -> bytes:
    return suite.to_bytes(2) + user.encode()


def blocked(view: View) -> dict[str, int]:
    """The users that are blocked, and since when."""
    return {key.decode(): int(value) for key, value in view.scan(_BLOCKED)}


def mark_of(item: api.InboxItem | api.BoxItem) -> bytes:
    """By what an item is known again: what is in it, since its number is the service's word."""
    return api.sha256(item.replace(number=0).encode())


class StepNotes:
    """The writing half."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._blocked: dict[str, int] | None = None

    def note_taken(self, mark: bytes, now: int) -> None:
        """Notes that an item of the inbox or of a box was taken; it is not taken a second time."""
        self._tx.put(_TAKEN, mark, b"%d" % now, secret=False)

    def forget_taken(self, before: int) -> None:
        """Forgets what was taken before some time: it is in no box any more."""
        for mark, at in list(self._tx.scan(_TAKEN)):
            if int(at) < before:
                self._tx.delete(_TAKEN, mark)

    def save_ask(self, ask: StoredAsk) -> None:
        """Keeps what this device asks for; a new request to a group takes the place of an old one."""
        self._tx.put(_ASKED, bytes(ask.link.log_id), ask.encode())

    def forget_ask(self, log_id: bytes) -> None:
        """It is let in, or gave up."""
        self._tx.delete(_ASKED, log_id)

    def save_join(self, conversation: str, client: bytes, join: StoredJoin) -> None:
        """Keeps the request of a client (the hash of its id); its newest takes the place of those before."""
        self._tx.put(_REQUESTS, conversation.encode() + client, join.encode())

    def forget_join(self, conversation: str, client: bytes) -> None:
        """It was answered."""
        self._tx.delete(_REQUESTS, conversation.encode() + client)

    def forget_joins(self, conversation: str) -> None:
        """This device is out."""
        for key, _ in list(self._tx.scan(_REQUESTS, conversation.encode())):
            self._tx.delete(_REQUESTS, key)

    def set_blocked(self, user: str, at: int | None) -> None:
        """Blocks a user, or (None) does not any more."""
        self._blocked = None
        if at is None:
            self._tx.delete(_BLOCKED, user.encode())
            for group_id, by in list(self._tx.scan(_DECLINED)):
                if by == user.encode():
                    self._tx.delete(_DECLINED, group_id)
        else:
            self._tx.put(_BLOCKED, user.encode(), b"%d" % at)

    def blocked(self) -> dict[str, int]:
        """The users that are blocked, and since when: looked up once for all entries of a step."""
        if self._blocked is None:
            self._blocked = blocked(self._tx)
        return self._blocked

    def decline(self, group_id: bytes, user: str) -> None:
        """Notes that an invitation by a blocked user was passed over."""
        self._tx.put(_DECLINED, group_id, user.encode())

    def save_added(self, conversation: str, added: StoredAdded) -> None:
        """Keeps which leaves were added when."""
        key = conversation.encode() + added.epoch.to_bytes(8)
        self._tx.put(_ADDED, key, added.encode(), secret=False)

    def forget_added(self, conversation: str, epoch: int) -> None:
        """All of them have appeared, or are gone."""
        self._tx.delete(_ADDED, conversation.encode() + epoch.to_bytes(8))

    def note_renewed(self, conversation: str, leaf: int, now: int | None) -> None:
        """A member at a leaf has new keys; None: it is gone."""
        key = conversation.encode() + leaf.to_bytes(_LEAF)
        if now is None:
            self._tx.delete(_RENEWED, key)
        else:
            self._tx.put(_RENEWED, key, b"%d" % now, secret=False)

    def note_heard(self, conversation: str, leaf: int, now: int) -> None:
        """A member that has not committed yet has sent something."""
        key = conversation.encode() + leaf.to_bytes(_LEAF)
        self._tx.put(_HEARD, key, b"%d" % now, secret=False)

    def told_revoked(self, conversation: str, node_hash: bytes) -> None:
        """The user was told that a leaf's certificate is revoked."""
        self._tx.put(_REVOKED, conversation.encode() + node_hash, b"", secret=False)

    def note_going(self, conversation: str, node_hash: bytes, going: StoredGoing | None) -> None:
        """A device that was added does not come; None: its leaf is gone."""
        key = conversation.encode() + node_hash
        if going is None:
            self._tx.delete(_GOING, key)
        else:
            self._tx.put(_GOING, key, going.encode(), secret=False)

    def forget_members(self, conversation: str) -> None:
        """Deletes what was noted of members, since this device is out or comes in anew."""
        for space in (_ADDED, _RENEWED, _HEARD, _REVOKED, _GOING, _CALLED):
            for key, _ in list(self._tx.scan(space, conversation.encode())):
                self._tx.delete(space, key)

    def note_left(self, log_id: bytes) -> None:
        """The user left a group here that its members could not be told of: no call brings the device back."""
        self._tx.put(_LEFT, log_id, b"", secret=False)

    def forget_left(self, log_id: bytes) -> None:
        """The device is in the group again."""
        self._tx.delete(_LEFT, log_id)

    def set_told(self, conversation: str, position: int) -> None:
        """Up to which text others were told that it was seen, or are not to be told; nothing more is due."""
        self._tx.put(_CLIENT, _TOLD + conversation.encode(), b"%d" % position, secret=False)
        self._tx.delete(_CLIENT, _DUE + conversation.encode())

    def set_tell_at(self, conversation: str, at: int) -> None:
        """When others are to be told what was seen."""
        self._tx.put(_CLIENT, _DUE + conversation.encode(), b"%d" % at, secret=False)

    def set_quiet(self, *, quiet: bool) -> None:
        """Whether others are told nothing about what was seen, whatever groups want."""
        self._tx.put(_CLIENT, _QUIET, b"%d" % quiet, secret=False)

    def set_next_look(self, at: int) -> None:
        """When to ask which devices the user has."""
        self._tx.put(_CLIENT, _NEXT_LOOK, b"%d" % at, secret=False)

    def set_leaving(self, conversation: str, *, leaving: bool) -> None:
        """Whether this device has proposed its own removal, which takes effect with a Commit of somebody else."""
        key = _LEAVING + conversation.encode()
        if leaving:
            self._tx.put(_CLIENT, key, b"1", secret=False)
        else:
            self._tx.delete(_CLIENT, key)

    def save_call(self, stored: StoredCall) -> None:
        """Keeps a call; the newest from a log takes the place of those before."""
        self._tx.put(_CALLS, bytes(stored.call.box.log_id), stored.encode())

    def forget_call(self, log_id: bytes) -> None:
        """It was answered a while ago, or needs no answer."""
        self._tx.delete(_CALLS, log_id)

    def set_next_call(self, conversation: str, at: int) -> None:
        """When to look next who is to be called."""
        self._tx.put(_CLIENT, _NEXT_CALL + conversation.encode(), b"%d" % at, secret=False)

    def note_called(self, conversation: str, leaf: int, now: int) -> None:
        """A member was called, or it was left to others."""
        key = conversation.encode() + leaf.to_bytes(_LEAF)
        self._tx.put(_CALLED, key, b"%d" % now, secret=False)

    def keep_claim(self, suite: int, user: str, claim: StoredClaim) -> None:
        """Keeps what was claimed of a user for the next attempt."""
        self._tx.put(_CLAIMED, _claim_key(suite, user), claim.encode())

    def forget_claim(self, suite: int, user: str, before: int) -> None:
        """It is taken, since a key package is used once; so do all go that were claimed before some time."""
        self._tx.delete(_CLAIMED, _claim_key(suite, user))
        for key, value in list(self._tx.scan(_CLAIMED)):
            if StoredClaim.decode(value).at < before:
                self._tx.delete(_CLAIMED, key)

    def set_linking(self, until: int) -> None:
        """Until when a further device may log in with a code of this one."""
        self._tx.put(_CLIENT, _LINKING, b"%d" % until, secret=False)


class VaultNotes:
    """The reading half."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    @property
    def _view(self) -> View:
        return self.profile.view

    def asks(self) -> list[StoredAsk]:
        """What this device asks for and was not let into."""
        return [StoredAsk.decode(value) for _, value in self._view.scan(_ASKED)]

    def was_taken(self, mark: bytes) -> bool:
        """Whether an item of the inbox or of a box was taken."""
        return self._view.get(_TAKEN, mark) is not None

    def joins(self, conversation: str) -> dict[bytes, StoredJoin]:
        """Requests to be let into a group, by the hash of the client."""
        prefix = conversation.encode()
        found = self._view.scan(_REQUESTS, prefix)
        return {key[len(prefix) :]: StoredJoin.decode(value) for key, value in found}

    def blocked(self) -> dict[str, int]:
        """The users that are blocked, and since when."""
        return blocked(self._view)

    def declined(self, group_id: bytes) -> bool:
        """Whether an invitation to a group was passed over, since its sender is blocked."""
        return self._view.get(_DECLINED, group_id) is not None

    def told(self, conversation: str) -> int:
        """Up to which text others were told that it was seen."""
        return int(self._view.get(_CLIENT, _TOLD + conversation.encode()) or 0)

    def tell_at(self, conversation: str) -> int | None:
        """When others are to be told what was seen; None where there is nothing to tell."""
        value = self._view.get(_CLIENT, _DUE + conversation.encode())
        return None if value is None else int(value)

    def quiet(self) -> bool:
        """Whether others are told nothing about what was seen."""
        return self._view.get(_CLIENT, _QUIET) == b"1"

    def next_look(self) -> int | None:
        """When to ask which devices the user has; None where that was never thought of."""
        value = self._view.get(_CLIENT, _NEXT_LOOK)
        return None if value is None else int(value)

    def leaving(self, conversation: str) -> bool:
        """Whether this device has proposed its own removal."""
        return self._view.get(_CLIENT, _LEAVING + conversation.encode()) is not None

    def calls(self) -> list[StoredCall]:
        """Calls that are to be answered, or were not long ago."""
        return [StoredCall.decode(value) for _, value in self._view.scan(_CALLS)]

    def next_call(self, conversation: str) -> int | None:
        """When to look next who is to be called; None where nobody has looked."""
        value = self._view.get(_CLIENT, _NEXT_CALL + conversation.encode())
        return None if value is None else int(value)

    def claim(self, suite: int, user: str) -> StoredClaim | None:
        """What was claimed of a user for an Add that was not made."""
        value = self._view.get(_CLAIMED, _claim_key(suite, user))
        return None if value is None else StoredClaim.decode(value)

    def left_logs(self) -> set[bytes]:
        """The logs of groups that the user left here while the device could take no part in them."""
        return {log_id for log_id, _ in self._view.scan(_LEFT)}

    def called_at(self, conversation: str, leaf: int) -> int:
        """When a member was called last; 0 where it was not."""
        value = self._view.get(_CALLED, conversation.encode() + leaf.to_bytes(_LEAF))
        return int(value or 0)

    def linking(self) -> int:
        """Until when a further device may log in with a code of this one; 0 where there was none."""
        return int(self._view.get(_CLIENT, _LINKING) or 0)

    def added(self, conversation: str) -> list[StoredAdded]:
        """Which leaves were added when, oldest first."""
        found = self._view.scan(_ADDED, conversation.encode())
        return [StoredAdded.decode(value) for _, value in found]

    def going(self, conversation: str) -> dict[bytes, StoredGoing]:
        """The leaves whose devices do not come, by the hash of the leaf node."""
        prefix = conversation.encode()
        found = self._view.scan(_GOING, prefix)
        return {key[len(prefix) :]: StoredGoing.decode(value) for key, value in found}

    def renewals(self, conversation: str) -> dict[int, int]:
        """When each leaf was last seen with new keys, or was added; who was there before is not in it."""
        prefix = conversation.encode()
        newest = {leaf: record.at for record in self.added(conversation) for leaf in record.leaves}
        for key, value in self._view.scan(_RENEWED, prefix):
            leaf = int.from_bytes(key[len(prefix) :])
            newest[leaf] = max(int(value), newest.get(leaf, 0))
        return newest

    def heard_at(self, conversation: str, leaf: int) -> int:
        """When a member that had not committed was heard of."""
        value = self._view.get(_HEARD, conversation.encode() + leaf.to_bytes(_LEAF))
        return int(value or 0)

    def was_told_revoked(self, conversation: str, node_hash: bytes) -> bool:
        """Whether the user was told that a leaf's certificate is revoked."""
        return self._view.get(_REVOKED, conversation.encode() + node_hash) is not None
