"""A group that this device is in: what it is, and what the user wants of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from coterie.client import events
from coterie.client.content import (
    Content,
    GroupProfile,
    WhoMay,
    read_profile,
)
from coterie.client.identity import Identity
from coterie.client.intents import Intent, IntentKind
from coterie.client.line import (
    Line,
)
from coterie.client.scheduling import own_turn
from coterie.client.vault import Step, Vault
from coterie.errors import CoterieError, ServiceError, StateError
from coterie.mls.group import Config, Group
from coterie.mls.proposal import Remove
from coterie.transport import api
from coterie.transport.client import DeliveryClient

DROPPED = frozenset(
    {api.ErrorCode.GONE, api.ErrorCode.UNKNOWN_EPOCH, api.ErrorCode.UNKNOWN_CANDIDATE}
)
"""What the service says of an epoch that retention dropped."""
UNSURE = frozenset({api.ErrorCode.UNAVAILABLE, api.ErrorCode.INTERNAL})
"""What the service says where it does not know itself whether it has stored what was sent (D-TRA-5)."""
RECEIPT_DELAY = (5, 30)
"""Between how many seconds pass until others are told what was read; what is read meanwhile goes with it."""
END_WAIT = 5
"""The longest first wait, in seconds, before an epoch with refused candidates only is ended (D-BUN-11)."""


def no_answer(error: CoterieError) -> ServiceError:
    """What a service said does not verify, or is malformed: it is thrown away, and asked for again later.

    Without two signatures that contradict each other it is no evidence.
    """
    msg = f"what the service answered is not valid: {error}"
    return ServiceError(msg, rule=error.rule, retry_after=60)


@dataclass(slots=True)
class Tools:
    """What conversations share: the device, its storage, the service, the time."""

    identity: Identity
    vault: Vault
    delivery: DeliveryClient
    config: Config
    inboxes: DeliveryClient
    """The same service over connections that carry nothing about logs (D-INB-6)."""
    refresh: Callable[[], Awaitable[None]]
    """Fetches what decides about certificates now: the revocation list."""
    clock: Callable[[], int]
    emit: Callable[[events.Event], None]
    fresh: Callable[[], DeliveryClient]
    """The same service over a connection that carried nothing yet (D-REC-12)."""
    welcome_delay: float = 5.0
    """The longest random wait before a Welcome is posted, in seconds (D-INB-6)."""
    own_devices: frozenset[bytes] | None = None
    """The client ids of the user's devices that are not revoked, as the Authentication Service said last."""
    counters: dict[str, int] = field(default_factory=dict)
    not_before: dict[bytes, int] = field(default_factory=dict)
    """When what the service refused may be asked again, by the log's id or the conversation's."""

    def count(self, what: str) -> None:
        """Counts an occurrence, for `status` and tests."""
        self.count_many(what, 1)

    def count_many(self, what: str, times: int) -> None:
        """Counts occurrences."""
        self.counters[what] = self.counters.get(what, 0) + times


class Place:
    """A group that this device is in, or was."""

    def __init__(self, tools: Tools, conversation_id: str) -> None:
        self._tools = tools
        self.id = conversation_id
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        self._proposals_since: int | None = None
        self._epoch_since = tools.clock()
        self._ends_at: int | None = None
        self._told: list[events.Event] = []
        """What is told when the step that it comes from is stored."""
        self._end_wait = END_WAIT
        self._offered: list[api.ReadResult] = []

    @property
    def lock(self) -> asyncio.Lock:
        """Held by whoever changes the place in the log."""
        return self._lock

    def forget(self) -> None:
        """Drops what is in memory: what is stored has changed."""
        self._line = None
        self._proposals_since = None

    def enter(self, line: Line) -> None:
        """Takes the place in the log that a Welcome gave; the caller stores it."""
        self._line = line
        self._proposals_since, self._epoch_since = None, self._tools.clock()

    @property
    def line(self) -> Line:
        """The place in the log; loaded from storage where need be. `StateError` where the group is over here."""
        if self._line is None:
            self._line = self._tools.vault.load_line(self.id, self._tools.config)
            if self._proposals_since is None and self._line.group.pending_proposals:
                # Read by an earlier process; when, nobody remembers, and a later turn is as good.
                self._proposals_since = self._tools.clock()
        return self._line

    @property
    def is_active(self) -> bool:
        """Whether this device is still in the group."""
        return self._tools.vault.status(self.id) == "active"

    @property
    def reads(self) -> bool:
        """Whether this device reads the group's log: it is in the group, or on the way to the one that follows."""
        return self._tools.vault.status(self.id) in {"active", "moving"}

    @property
    def group(self) -> Group:
        """The MLS group."""
        return self.line.group

    @property
    def profile(self) -> GroupProfile:
        """Name and rules."""
        return read_profile(self.group.context.extensions)

    @property
    def name(self) -> str:
        """The group's name."""
        return self._tools.vault.name(self.id)

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self.group.epoch

    def size(self) -> int:
        """How many members there are."""
        return self.group.tree.root.members

    def log_target(self) -> api.LogTarget:
        """The present epoch, from the first entry on that was not read."""
        return self._target(self.line.next_number)

    def box_target(self) -> api.LogTarget:
        """The present epoch's boxes, from the first request on that was not read."""
        return self._target(self._tools.vault.box_cursor(self.id))

    def _target(self, number: int) -> api.LogTarget:
        line = self.line
        token = bytes(line.keys.read_token)
        return api.LogTarget(line.binding.log_id, line.state.epoch, token, number)

    def users(self) -> dict[str, list[int]]:
        """The users in the group, each with the leaves of their devices."""
        found: dict[str, list[int]] = {}
        for leaf, node in self.group.tree.members():
            user = self._tools.identity.user_of_credential(node.credential)
            found.setdefault(user, []).append(leaf)
        return found

    def _my_turn(
        self, since: int, who: WhoMay = WhoMay.MEMBERS, *, away: Iterable[int] = ()
    ) -> bool:
        """Whether this member is to commit what has waited since then (`scheduling`), among those who may.

        `away` are leaves of which nobody expects anything.
        """
        group, profile = self.group, self.profile
        # Only who asked for it itself: else anybody could take all others' turns by proposing to remove them.
        leaving = {
            int(entry.proposal.content.removed)
            for entry in group.pending_proposals
            if isinstance(entry.proposal.content, Remove)
            and entry.sender.leaf_index == entry.proposal.content.removed
        }
        if len(leaving) == group.tree.member_count:
            # All want to go: who commits removes the others, and is alone then.
            leaving = set()
        leaving |= set(away)
        if who == WhoMay.ADMINS:
            users = self.users()
            admins = {leaf for user in users if profile.is_admin(user) for leaf in users[user]}
            if admins:
                leaving |= {leaf for leaves in users.values() for leaf in leaves} - admins
        now = self._tools.clock()
        return own_turn(group.tree, group.own_leaf, since, now, epoch=self.epoch, leaving=leaving)

    def _user(self, leaf: int) -> str:
        return self._tools.identity.user_of(self.group.tree, leaf)

    def check_leaving(self) -> None:
        """Raises `StateError` where nobody would be administrator if this device left, though others stay."""
        users, own = self.users(), self._tools.identity.user
        admins = [user for user in users if self.profile.is_admin(user)]
        if admins == [own] and len(users) > 1 and len(users[own]) == 1:
            msg = "you are the only administrator: make somebody else one before you leave"
            raise StateError(msg)

    def leave_here(self) -> bool:
        """Ends the group on this device alone, where it cannot ask to be removed; whether it did.

        Who is the only member has nobody to ask. Who is stuck, or has evidence against the service, would not read that
        it was removed: others see its leaf until they remove it, and no call of theirs brings it back (D-BOX-14).
        """
        vault = self._tools.vault
        if self.is_active and self.group.tree.member_count == 1:
            why = "you left the group; nobody else was in it"
        elif vault.status(self.id) in {"stuck", "stopped"}:
            why = "you left the group; this device could not tell the others, who see it until they remove it"
        else:
            return False
        log_id = bytes(self.line.binding.log_id)
        with vault.step() as step:
            step.end(self.id, why)
            step.note_left(log_id)
        self._line = None
        return True

    def _check_wanting(self) -> None:
        """Raises `StateError` where nothing can be wanted of the group, and says whether that will be otherwise."""
        status = self._tools.vault.status(self.id)
        if status == "stuck":
            msg = f"this device waits to be added again to {self.name!r}; nothing was stored: try again after that"
            raise StateError(msg)
        if status not in {"creating", "active", "moving"}:
            msg = f"this device is not in the group {self.name!r} any more"
            raise StateError(msg)

    def want(self, intent: Intent) -> int:
        """Stores an intent; it is carried out by `sync`, now or when the service can be reached."""
        self._check_wanting()
        with self._tools.vault.step() as step:
            return step.add_intent(self.id, intent)

    def want_text(self, text: str, answering: int = 0) -> str:
        """Stores a text to send; returns its message id.

        With it everything up to the position `answering` is marked as read, so that an answer is given once.
        """
        self._check_wanting()
        content = Content.text(text, self._tools.clock())
        with self._tools.vault.step() as step:
            step.add_intent(self.id, Intent(IntentKind.SEND, content.encode()))
            step.add_own_text(self.id, content, self._tools.identity.user)
            if answering:
                self.mark_read(step, answering)
        return content.message_id.hex()

    def mark_read(self, step: Step, position: int) -> None:
        """Notes up to where the user has read, and when others are told, if they are."""
        vault = self._tools.vault
        step.mark_read(self.id, position)
        if not self.is_active or vault.quiet() or not self.profile.receipts:
            # What is read now is not told later, when the group or the user changes their mind.
            step.set_told(self.id, position)
        elif vault.tell_at(self.id) is None:
            wait = random.randint(*RECEIPT_DELAY)  # noqa: S311 - a time, not a secret
            step.set_tell_at(self.id, self._tools.clock() + wait)
