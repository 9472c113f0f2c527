"""One group as its member uses it: catches up, carries out what is wanted, tells what happened.

Every step is one transaction: what the core consumed, where the log was read to, what is shown and what is still to be
sent are stored together or not at all. After an exception the objects in memory are thrown away and loaded again, so
that memory never runs ahead of the disk. The log is the only truth: an own message is sent, an own Commit takes effect,
when it is read back (D-BUN-9); a timeout only means that the same bytes are sent again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coterie.client import events
from coterie.client.admitting import Admitting
from coterie.client.calling import Calling
from coterie.client.gathering import Gathering
from coterie.client.intents import COMMITS, Intent, IntentKind
from coterie.client.moving import Moving
from coterie.client.place import END_WAIT, no_answer
from coterie.client.seeing import Seeing
from coterie.client.tending import Tending
from coterie.errors import (
    CoterieError,
    DecodeError,
    RuleViolation,
    ServiceError,
    StateError,
    VerificationError,
)
from coterie.transport import api
from coterie.transport.refusal import Refused

MAX_ATTEMPTS = 20
"""How often a lost race is run again before the user is told."""
_ENDED = frozenset({api.ErrorCode.EPOCH_ENDED, api.ErrorCode.LOST_RACE, api.ErrorCode.EPOCH_CLOSED})
_LONGEST_END_WAIT = 60
_OUTSIDE = frozenset({IntentKind.WELCOME, IntentKind.CORRECT})
"""What needs no entry in the present epoch."""


class Conversation(Moving, Admitting, Seeing, Tending, Gathering, Calling):
    """A group that this device is in, or was."""

    async def sync(self) -> None:
        """Reads the log to its end and carries out what is wanted; raises `ServiceError` where the service is away."""
        async with self._at_work():
            await self._catch_up()
            await self._move_on()
            await self._read_box()
            self._admit_at_once()
            self._plan_renewal()
            self._plan_receipts()
            await self._tend()
            await self._add_own_devices()
            await self._carry_out()
            await self._ask_to_return()
            await self._call_silent()
            await self._keep_state()
            await self._reread()

    async def take_offered(self) -> None:
        """Acts on what the service pushed, and carries out what is wanted; asks for nothing that was pushed."""
        async with self._at_work():
            await self._catch_up(ask=False)
            await self._carry_out()

    def has_turn(self) -> bool:
        """Whether it is this device's turn to do something that no push and no user asks for, and `sync` does it.

        What `sync` would put off is no turn: it would be called again and again for nothing.
        """
        if not self.is_active or self.line.spent:
            return False
        if self._must_commit_pending() or self._must_end():
            return True
        return self._must_tell() and not self._needs_commit()

    async def catch_up(self) -> None:
        """Reads the log to its end and sends nothing but corrections; raises `ServiceError` as `sync` does."""
        async with self._at_work():
            await self._catch_up()

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """One call at a time; after an error memory is thrown away.

        What does not verify or decode was not said by a member, whose mistakes are outcomes: the service answered it.
        """
        async with self._lock:
            try:
                yield
            except BaseException as error:
                self._line = None
                if isinstance(error, VerificationError | DecodeError):
                    raise no_answer(error) from error
                raise

    async def _carry_out(self) -> None:
        """Intents in order; the epoch may change under each of them, then it is done again."""
        attempts: Counter[int | None] = Counter()
        while self.is_active:
            waiting = self._feasible()
            if not waiting:
                if self.line.spent or not (self._must_commit_pending() or self._must_end()):
                    return
                attempts[None] += 1
                self._ends_at = None
                self.want(Intent(IntentKind.COMMIT_PENDING, b""))
                continue
            # Welcomes take their random time; they hold nothing else up.
            waiting.sort(key=lambda entry: entry[1].kind == IntentKind.WELCOME)
            intent_id, intent = waiting[0]
            attempts[intent_id] += intent.kind != IntentKind.WELCOME
            if max(attempts[None], attempts[intent_id]) > MAX_ATTEMPTS:
                msg = f"{MAX_ATTEMPTS} attempts were not enough: the group is busy, trying later"
                raise ServiceError(msg, retry_after=1)
            if self._waits_for_commit(intent):
                intent_id, intent = self._commit_first()
            if intent.kind == IntentKind.REINIT and self.group.pending_proposals:
                # What waits would be lost with the group: who asked to leave is not taken along.
                intent = Intent(IntentKind.COMMIT_PENDING, b"")
                intent_id = self.want(intent)
            await self._do(intent_id, intent)

    def _feasible(self) -> list[tuple[int, Intent]]:
        """What is wanted and can be done; the rest waits for another member's Commit (`Line.spent`)."""
        waiting = self._tools.vault.intents(self.id)
        if self.line.spent:
            return [entry for entry in waiting if entry[1].kind in _OUTSIDE]
        return waiting

    def _waits_for_commit(self, intent: Intent) -> bool:
        """Whether what is wanted can only be sent after a Commit: the service takes no message into an ended epoch."""
        if intent.kind == IntentKind.LEAVE:
            return self.line.ended
        return intent.kind == IntentKind.SEND and self._needs_commit()

    def _commit_first(self) -> tuple[int, Intent]:
        for intent_id, intent in self._tools.vault.intents(self.id):
            if intent.kind in COMMITS:
                return intent_id, intent
        intent = Intent(IntentKind.COMMIT_PENDING, b"")
        return self.want(intent), intent

    def _must_end(self) -> bool:
        """Whether it is time to post a candidate after refused ones only: after a random wait, longer each time.

        The wait is over until a candidate is posted, however often this is asked.
        """
        if not self.line.ended:
            self._ends_at, self._end_wait = None, END_WAIT
            return False
        now = self._tools.clock()
        if self._ends_at is None:
            self._ends_at = now + random.randint(0, self._end_wait)  # noqa: S311 - a time, not a secret
            self._end_wait = min(2 * self._end_wait, _LONGEST_END_WAIT)
        return now >= self._ends_at

    def _must_commit_pending(self) -> bool:
        """Whether it is this member's turn to commit what waits (`scheduling`)."""
        if self._proposals_since is None or not self.group.pending_proposals:
            return False
        return self._my_turn(self._proposals_since)

    async def _do(self, intent_id: int, intent: Intent) -> None:
        try:
            read_on = await self._try(intent_id, intent)
        except Refused as refused:
            if refused.code in _ENDED and intent.kind != IntentKind.WELCOME:
                await self._lost(intent_id, intent)
                if refused.code == api.ErrorCode.EPOCH_CLOSED and self._stands_in(intent):
                    self._fall_behind(str(refused))
            elif refused.retry_after is None:
                # Trying again is of no use, and nothing behind it may wait for ever.
                self._give_up(intent_id, intent, refused)
            else:
                raise
            return
        except (RuleViolation, StateError, VerificationError) as error:
            self._give_up(intent_id, intent, error)
            return
        if read_on:
            await self._catch_up()

    async def _try(self, intent_id: int, intent: Intent) -> bool:
        """Does what an intent wants, as far as it can be done now; whether there is more to read then."""
        if intent.kind == IntentKind.WELCOME:
            # Where there are many, what arrives meanwhile need not wait for them.
            return await self._post_welcomes(intent_id, intent)
        if intent.kind == IntentKind.CORRECT:
            # Of an earlier membership: one of the present is sent before anything is read.
            with self._tools.vault.step() as step:
                step.remove_intent(intent_id)
            return False
        if intent.kind == IntentKind.LEAVE and self.leave_here():
            # The others went, and nobody is left who could be asked.
            self._tools.emit(events.RemovedFromGroup(self.id, self._tools.identity.user))
            return False
        if intent.sealed is None:
            await self._confirm()
            # What was read for that may have ended this membership, or have done what is wanted.
            still = dict(self._tools.vault.intents(self.id)).get(intent_id)
            if still is None or not self.is_active:
                return False
            intent = await self._prepare(intent_id, still)
        if intent.sealed is None:
            return False
        appended = await self._send(intent)
        self._check_receipt(intent.sealed, appended.receipt)
        self._keep_opened(intent_id, intent, appended)
        return True

    async def _confirm(self) -> None:
        """Has the service's signature under the newest receipt, which what is sealed will name."""
        if self.line.unconfirmed:
            await self._catch_up()
        if self.is_active and self.line.unconfirmed:
            msg = "the service does not sign that the epoch is open"
            raise ServiceError(msg, rule="D-REC-6", retry_after=5)

    def _keep_opened(self, intent_id: int, intent: Intent, appended: api.Appended) -> None:
        """The epoch may be dropped before its Welcomes are out; then nobody could be asked for its receipt again."""
        if appended.opened is not None and intent.claimed:
            with self._tools.vault.step() as step:
                step.update_intent(intent_id, intent.replace(opened=appended.opened))

    def _give_up(self, intent_id: int, intent: Intent, error: CoterieError) -> None:
        with self._tools.vault.step() as step:
            step.give_up(self.id, intent_id, intent)
        self._line = None
        self._tools.emit(events.Problem(self.id, f"not done: {error}"))

    def _stands_in(self, intent: Intent) -> bool:
        """Whether this device is still in the epoch that an intent was sealed for."""
        sealed = intent.sealed
        return (
            self.is_active
            and sealed is not None
            and sealed.entry.header.epoch == self.line.state.epoch
        )

    async def _lost(self, intent_id: int, intent: Intent) -> None:
        """Somebody else was first: read on; adopting the winner makes every sealed intent wait again."""
        before = self.line.state.epoch
        await self._catch_up()
        if self.is_active and self.line.state.epoch == before:
            # All candidates were void or refused: another one, built anew (D-BUN-10).
            with self._tools.vault.step() as step:
                line = self.line
                if intent.kind in COMMITS:
                    line.group.drop_pending()
                step.update_intent(intent_id, intent.waiting())
                step.save_line(self.id, line)
        await asyncio.sleep(random.uniform(0, 0.05 * min(intent.attempts + 1, 10)))  # noqa: S311
