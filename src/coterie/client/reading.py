"""Catching up with the log, many entries in one transaction (docs/delivery-protocol.md, sections 3, 7, 8)."""

from __future__ import annotations

import random

from coterie.client import events
from coterie.client.content import (
    LATEST,
    Content,
    ContentType,
    read_profile,
)
from coterie.client.identity import read_key_package
from coterie.client.intents import COMMITS, CommitNote, Intent, IntentKind
from coterie.client.keeping import Succession
from coterie.client.line import Line
from coterie.client.making import Making
from coterie.client.notes import StoredAdded
from coterie.client.outcomes import (
    Announced,
    Committed,
    Data,
    Evidence,
    Outcome,
    Proposed,
    Sent,
    Stuck,
    Void,
)
from coterie.client.place import DROPPED, no_answer
from coterie.client.rules import rules_of
from coterie.client.scheduling import own_turn_to_fill
from coterie.client.successor import judge_successor, may_lead
from coterie.client.supplying import DOUBT_WAIT
from coterie.client.trail import Passed
from coterie.client.vault import Step
from coterie.errors import (
    CoterieError,
    DecodeError,
    ServiceError,
    StorageError,
    VerificationError,
)
from coterie.mls.group import StagedCommit
from coterie.mls.group_context import GroupContext
from coterie.mls.proposal import GroupContextExtensions, Remove
from coterie.mls.types import LeafNodeSource, SenderType
from coterie.transport import api
from coterie.transport.refusal import Refused

HOUR = 3600
_PART = 1 << 20
_ENTRIES = 256
"""Entries that are taken in one transaction, whose cost they share; few enough that the program answers meanwhile."""
MAX_ENTRY = 64 * 1024 * 1024
"""The largest entry that is fetched, in bytes; a service takes bundles of 32 MiB by default."""


class Reading(Making):
    """Reads the log to its end, and acts on what stands in it."""

    async def _catch_up(self, *, ask: bool = True) -> None:
        """Reads the log to its end; who comes too late for it asks to be added again (D-BOX-8)."""
        try:
            await self._read_on(ask=ask)
        except Refused as refused:
            if refused.code not in DROPPED:
                raise
            if await self._go_on_alone():
                await self._read_on(ask=ask)
            else:
                self._fall_behind(str(refused))
        except (VerificationError, DecodeError) as error:
            # Said by the service: what the user wants is not to be given up for it, whoever asked to read.
            raise no_answer(error) from error

    async def _go_on_alone(self) -> bool:
        """Whether the epoch that was dropped ended with this device's own Commit, of which it had no answer.

        Then it is in the one that follows, where nobody has said anything yet: all others may be where it was, and
        nobody would be there to bring them back (D-BOX-15).
        """
        line = self.line
        sealed = [
            (number, intent, intent.sealed.entry)
            for number, intent in self._tools.vault.intents(self.id)
            if intent.kind in COMMITS and intent.sealed is not None
        ]
        request = line.read_own_next()
        if not sealed or request is None:
            return False
        try:
            result = await self._tools.delivery.read(request)
        except Refused as refused:
            if refused.code not in DROPPED:
                raise
            return False
        if (
            result.gone
            or result.entries
            or result.head.number
            or result.state != api.EpochState.OPEN
        ):
            return False
        self._take_own(line, *sealed[0], result.head)
        return True

    def _take_own(
        self, line: Line, number: int, intent: Intent, entry: api.Entry, opening: api.Receipt
    ) -> None:
        context, before = line.group.context, line.group.epoch
        outcome = line.take_own(entry, opening)
        with self._tools.vault.step() as step:
            step.update_intent(number, intent.replace(opened=opening))
            told = self._follow(step, line, before, context, outcome)
            step.save_line(self.id, line)
        what = "what others wrote just before this device's last change may be missing: it was dropped by age"
        self._tools.emit(events.Problem(self.id, what, "ask them whether they wrote something"))
        for event in told:
            self._tools.emit(event)

    def _fall_behind(self, why: str) -> None:
        with self._tools.vault.step() as step:
            step.set_status(self.id, "stuck", why)
        what = f"this device was away for too long: {why}"
        self._tools.emit(events.Problem(self.id, what, "this device asks to be added again"))

    async def _correct(self, line: Line) -> None:
        """Opens the epoch that follows from a Commit whose maker claimed another one (D-COR-1)."""
        for intent_id, intent in self._tools.vault.intents(self.id):
            if intent.kind != IntentKind.CORRECT or intent.sealed is None:
                continue
            answer = await self._tools.delivery.append(intent.sealed)
            line.corrected(answer)
            with self._tools.vault.step() as step:
                step.remove_intent(intent_id)
                step.save_line(self.id, line)

    def offer(self, result: api.ReadResult) -> None:
        """Takes what the service pushed; it is judged as what is read, by the next reading."""
        self._offered.append(result)

    def _offer(self, line: Line) -> api.ReadResult | None:
        """What was pushed and comes next; what was read already, or belongs to another epoch, is thrown away."""
        while self._offered:
            result = self._offered.pop(0)
            first = result.gone or result.entries[0].receipt
            if first.epoch == line.state.epoch and (
                first.number == line.next_number
                or (result.gone is not None and first.number > line.next_number)
            ):
                return result
        return None

    async def _read_on(self, *, ask: bool = True) -> None:
        """Reads to the end of the log, or of what was pushed where the service is not to be asked."""
        while self.reads:
            line = self.line
            if line.uncorrected:
                await self._correct(line)
            epoch = line.state.epoch
            result = self._offer(line)
            if result is None:
                if not ask:
                    return
                result = await self._tools.delivery.read(line.read())
            if result.gone is not None:
                self._note_gone(line, result.gone)
            left = list(result.entries)
            while left and not self._moved_on(line, epoch):
                left[0] = await self._whole(line, left[0])
                self._take(line, _batch(left))
            if not self._moved_on(line, epoch) and self._read_all(line, result):
                return

    def _read_all(self, line: Line, result: api.ReadResult) -> bool:
        """Whether there is nothing more to read, now that the entries of a result are read; compares its head."""
        before = line.state
        try:
            line.see_head(result.head)
        except Evidence as evidence:
            self._stop(evidence)
            return True
        if line.state is not before:
            self._store(line)
        if line.next_number >= result.next_number:
            return not self._offered
        if not result.entries:
            msg = "the service names newer entries than it gives"
            raise ServiceError(msg, retry_after=5)
        return False

    def _moved_on(self, line: Line, epoch: bytes) -> bool:
        """Whether what was read just now ended the epoch, or this device's part in the group."""
        return line.state.epoch != epoch or not self.reads

    def _note_gone(self, line: Line, gone: api.Receipt) -> None:
        missed = gone.number - line.state.head.number
        line.skip_gone(gone)
        self._store(line)
        self._tools.emit(events.Missed(self.id, missed))

    async def _whole(self, line: Line, stored: api.StoredEntry) -> api.StoredEntry:
        """The entry with its bytes, fetched in parts where it is large (D-REC-7)."""
        if stored.entry is not None or stored.size == 0:
            return stored
        if stored.size > MAX_ENTRY:
            msg = f"the service names an entry of {stored.size} bytes, more than {MAX_ENTRY}"
            raise ServiceError(msg, retry_after=60)
        data = bytearray()
        while len(data) < stored.size:
            part = await self._tools.delivery.fetch_entry(
                api.FetchEntry(
                    line.binding.log_id,
                    line.state.epoch,
                    line.keys.read_token,
                    stored.receipt.number,
                    len(data),
                    _PART,
                )
            )
            if not part.part:
                msg = "the service gives no more of a large entry"
                raise ServiceError(msg, retry_after=1)
            data += part.part
        return stored.replace(entry=api.Entry.decode(bytes(data)))

    def _store(self, line: Line) -> None:
        with self._tools.vault.step() as step:
            step.save_line(self.id, line)

    def _take(self, line: Line, entries: list[api.StoredEntry]) -> None:
        """Some entries, one transaction, up to the one that ends the epoch; what they mean is told after it.

        Where one of them is not the log, what came before it is stored all the same, so that no such answer holds up
        what is good.
        """
        told: list[events.Event] = []
        wrong: VerificationError | Evidence | None = None
        with self._tools.vault.step() as step:
            ended = False
            with line.looking_ahead(entries, self._tools.config.run):
                for stored in entries:
                    try:
                        outcome, meant = self._take_one(step, line, stored)
                    except (VerificationError, Evidence) as error:
                        wrong = error
                        break
                    told += meant
                    ended = self._ended(outcome)
                    if isinstance(outcome, Committed | Stuck):
                        break
            if ended:
                step.end(self.id, _why_out(told))
            else:
                step.save_line(self.id, line)
        for event in told:
            self._tools.emit(event)
        if isinstance(wrong, Evidence):
            self._stop(wrong)
        elif wrong is not None:
            raise no_answer(wrong) from wrong

    def _take_one(
        self, step: Step, line: Line, stored: api.StoredEntry
    ) -> tuple[Outcome, list[events.Event]]:
        tools, context = self._tools, line.group.context
        before, keys = line.group.epoch, line.keys
        outcome = line.take(stored, now=tools.clock())
        if isinstance(outcome, Committed):
            token = bytes(keys.read_token)
            step.add_passed(self.id, before, Passed(token, stored.receipt, tools.clock()))
            return outcome, self._follow(step, line, before, context, outcome)
        if isinstance(outcome, Void):
            self._want_again(step, line, stored.receipt.entry_hash)
        told = self._act(step, line, outcome)
        return outcome, told

    def _follow(
        self, step: Step, line: Line, before: int, context: GroupContext, outcome: Committed
    ) -> list[events.Event]:
        """What follows for this device from a Commit; `before` and `context` are those of the epoch that it ended."""
        self._note_added(step, outcome.commit)
        self._note_keys(step, before + 1, outcome.commit)
        told = self._act(step, line, outcome)
        if outcome.commit.next is not None:
            told += self._changes(context, outcome.commit)
        return told

    def _stop(self, evidence: Evidence) -> None:
        """Keeps the evidence, sends nothing more in this group, and tells the user (D-REC-10)."""
        with self._tools.vault.step() as step:
            step.set_status(self.id, "stopped", str(evidence))
            step.save_evidence(self.id, evidence.first.encode() + evidence.second.encode())
        self._line = None
        advice = "ask the operator; nothing more is sent in this group"
        self._tools.emit(events.Problem(self.id, str(evidence), advice))

    @staticmethod
    def _ended(outcome: Outcome) -> bool:
        return isinstance(outcome, Committed) and outcome.commit.removes_self

    def _act(self, step: Step, line: Line, outcome: Outcome) -> list[events.Event]:
        match outcome:
            case Data():
                told = self._act_on_data(step, outcome)
            case Sent():
                told = self._act_on_sent(step, outcome)
            case Proposed():
                self._proposals_since, told = self._tools.clock(), []
            case Committed():
                told = self._act_on_commit(step, line, outcome)
            case Stuck():
                told = self._act_on_stuck(step, outcome)
            case Announced():
                told = self._act_on_announced(step, line, outcome)
            case Void():
                told = self._act_on_void(outcome)
        return told

    def _act_on_stuck(self, step: Step, outcome: Stuck) -> list[events.Event]:
        step.set_status(self.id, "stuck", outcome.why)
        if outcome.added_again:
            # The Welcome is on its way; without one this device asks in a day (D-BOX-11).
            step.set_requested(self.id, b"", self._tools.clock())
            return []
        by = "" if outcome.leaf is None else f" by {self._user(outcome.leaf)}"
        what = f"a Commit{by} could not be followed: {outcome.why}"
        advice = "this device asks to be added again; if nobody is left who can, re-form the group"
        return [events.Problem(self.id, what, advice)]

    def _note_added(self, step: Step, commit: StagedCommit) -> None:
        """Remembers how new the key packages were with which clients were added: older requests are old (D-BOX-7)."""
        client_id = self._tools.config.authenticator.client_id
        for member in commit.added:
            step.forget_join(self.id, api.sha256(client_id(member.credential)))
            if member.node.lifetime is not None:
                client = client_id(member.credential)
                step.note_added(self.id, client, member.node.lifetime.not_before)

    def _note_keys(self, step: Step, epoch: int, commit: StagedCommit) -> None:
        """Remembers how old members' keys are, and who has not appeared yet (`tending`)."""
        now = self._tools.clock()
        tools = self._tools
        for member in commit.removed:
            step.note_renewed(self.id, int(member.leaf), None)
            if tools.identity.user_of_credential(member.credential) == tools.identity.user:
                # A device of this user that was in the group is not brought back by itself (`gathering`).
                step.note_added(self.id, tools.config.authenticator.client_id(member.credential), 1)
        step.note_renewed(self.id, int(commit.committer.leaf), now)
        if commit.added:
            leaves = tuple(int(member.leaf) for member in commit.added)
            step.save_added(self.id, StoredAdded(epoch, now, leaves))

    def _want_again(self, step: Step, line: Line, entry_hash: bytes) -> None:
        """An own entry that is void for all has told nobody anything: it is made anew."""
        for intent_id, intent in step.intents(self.id):
            if intent.sealed is None or intent.kind not in COMMITS | {
                IntentKind.SEND,
                IntentKind.LEAVE,
            }:
                continue
            if intent.sealed.entry.hash() == entry_hash:
                if intent.kind in COMMITS:
                    line.group.drop_pending()
                step.update_intent(intent_id, intent.waiting())

    def _act_on_announced(self, step: Step, line: Line, outcome: Announced) -> list[events.Event]:
        """The first valid successor counts, all others are void (D-SUC-2)."""
        succession = self._tools.vault.succession(self.id)
        if succession is None or succession.counting is not None:
            return []
        try:
            counting = judge_successor(line.group, outcome.content)
        except StorageError:
            raise
        except CoterieError as error:
            return self._act_on_void(Void(outcome.number, str(error)))
        if counting.leaf != succession.committer and not may_lead(
            line.group, self._tools.identity, counting.leaf
        ):
            return self._act_on_void(Void(outcome.number, "a successor by who has no right to it"))
        step.save_succession(self.id, succession.replace(counting=counting))
        return []

    def _begin_to_move(self, step: Step, commit: StagedCommit, own: Intent | None) -> None:
        """The group ended with a ReInit: only the successor is read now (D-SUC-1)."""
        succession = Succession(
            commit.committer.leaf,
            self._tools.clock(),
            () if own is None else own.claimed,
        )
        step.save_succession(self.id, succession)
        step.set_status(self.id, "moving", "the group is being moved to a new one")

    def _act_on_void(self, outcome: Void) -> list[events.Event]:
        self._tools.count("void entries")
        if outcome.leaf is None:
            return []
        what = f"{self._user(outcome.leaf)} sent a Commit that is invalid: {outcome.why}"
        return [events.Problem(self.id, what, "an administrator may remove the sender")]

    def _act_on_data(self, step: Step, outcome: Data) -> list[events.Event]:
        message = outcome.message
        sender = self._tools.identity.user_of_credential(message.sender.credential)
        if message.sender.node.leaf_node_source == LeafNodeSource.KEY_PACKAGE:
            step.note_heard(self.id, int(message.sender.leaf), self._tools.clock())
        try:
            content = Content.decode(message.data)
        except CoterieError:
            self._tools.count("unreadable contents")
            return []
        blocked = sender in step.blocked()
        if content.content_type == ContentType.SEEN:
            new = [] if blocked else step.mark_seen(self.id, content.seen_ids(), sender)
            return [events.MessageSeen(self.id, tuple(new), sender)] if new else []
        if content.sent_at > LATEST:
            # A text must not end the reading of the log, whatever its sender says of its time.
            content = content.replace(sent_at=self._tools.clock())
        if not step.add_text(self.id, content, sender, self._tools.clock()) or blocked:
            return []
        return [
            events.MessageReceived(
                self.id,
                content.message_id.hex(),
                sender,
                content.body.decode(errors="replace"),
                content.sent_at,
            )
        ]

    def _act_on_sent(self, step: Step, outcome: Sent) -> list[events.Event]:
        for intent_id, intent in step.intents(self.id):
            if intent.sealed is None or intent.sealed.entry.hash() != outcome.entry_hash:
                continue
            step.remove_intent(intent_id)
            if intent.kind == IntentKind.LEAVE:
                step.set_leaving(self.id, leaving=True)
            if intent.kind != IntentKind.SEND:
                return []
            content = Content.decode(intent.argument)
            if content.content_type != ContentType.TEXT:
                return []
            message_id = content.message_id.hex()
            step.mark_sent(self.id, message_id)
            return [events.MessageSent(self.id, message_id)]
        return []

    def _act_on_commit(self, step: Step, line: Line, outcome: Committed) -> list[events.Event]:
        commit, now = outcome.commit, self._tools.clock()
        self._proposals_since, self._epoch_since = None, now
        if outcome.own:
            step.set_next_renewal(self.id, _next_renewal(now))
        mine = self._want_still(step, line, outcome)
        if outcome.correct is not None:
            step.add_intent(self.id, Intent(IntentKind.CORRECT, b"", sealed=outcome.correct))
        if self._tools.vault.leaving(self.id) and not commit.removes_self:
            # Whoever committed had not read that this device wants to go, or it was this device itself.
            step.set_leaving(self.id, leaving=False)
            step.add_intent(self.id, Intent(IntentKind.LEAVE, b""))
        doubts = self._doubt_state(step, commit, fits=outcome.state_fits)
        if commit.removes_self:
            left = int(line.group.own_leaf) in _leavers(commit)
            by = self._tools.identity.user if left else self._name_of(commit)
            return [events.RemovedFromGroup(self.id, by, _reason(commit))]
        if line.group.reinitialized is not None:
            self._begin_to_move(step, commit, mine)
            return [events.Moving(self.id, self._name_of(commit))]
        step.add_box(self.id, line.state.epoch, bytes(line.keys.box_seed), line.group.epoch)
        name = read_profile(self.group.context.extensions).name.decode(errors="replace")
        step.set_name(self.id, name)
        return [*self._tell(commit), *doubts]

    def _want_still(self, step: Step, line: Line, outcome: Committed) -> Intent | None:
        """What is still wanted after a Commit is made anew; returns what the own Commit was made of."""
        mine: Intent | None = None
        for intent_id, intent in step.intents(self.id):
            if outcome.own and intent.kind in COMMITS and intent.sealed is not None:
                self._plan_welcomes(step, line, intent, outcome)
                step.remove_intent(intent_id)
                mine = intent
            elif intent.sealed is not None and intent.kind not in {
                IntentKind.WELCOME,
                IntentKind.CORRECT,
            }:
                if intent.kind in COMMITS:
                    self._tools.count("lost races")
                step.update_intent(intent_id, intent.waiting())
        if outcome.commit.added and not outcome.own:
            self._want_no_more(step, outcome.commit)
        return mine

    def _want_no_more(self, step: Step, commit: StagedCommit) -> None:
        """Whom another member has added need not be added.

        Else their package, a last one that both claimed, looks as if this device had added them and lost their
        Welcome (D-INB-11).
        """
        client_id = self._tools.config.authenticator.client_id
        came = {client_id(member.credential) for member in commit.added}
        for intent_id, intent in step.intents(self.id):
            if intent.kind != IntentKind.ADD or not intent.claimed:
                continue
            left = tuple(
                claimed
                for claimed in intent.claimed
                if client_id(read_key_package(claimed.key_package).leaf_node.credential) not in came
            )
            if not left:
                step.remove_intent(intent_id)
            elif len(left) < len(intent.claimed):
                step.update_intent(intent_id, intent.replace(claimed=left))

    def _doubt_state(self, step: Step, commit: StagedCommit, *, fits: bool) -> list[events.Event]:
        """The committer named other chunks than follow from its Commit: some member supplies them soon (D-CHK-10)."""
        if fits:
            return []
        self._tools.count("bundles with other chunks")
        wait = random.randint(0, DOUBT_WAIT)  # noqa: S311 - a time, not a secret
        step.set_state_due(self.id, self._tools.clock() + wait)
        what = (
            f"the group's state was not stored as it is, with a Commit of {self._name_of(commit)}"
        )
        return [events.Problem(self.id, what, "members who see this repair it")]

    def _name_of(self, commit: StagedCommit) -> str:
        return self._tools.identity.user_of_credential(commit.committer.credential)

    def _tell(self, commit: StagedCommit) -> list[events.Event]:
        by, told = self._name_of(commit), list[events.Event]()
        user_of = self._tools.identity.user_of_credential
        client_id, why = self._tools.config.authenticator.client_id, _reason(commit)
        came = {client_id(m.credential): user_of(m.credential) for m in commit.added}
        went = {client_id(m.credential): user_of(m.credential) for m in commit.removed}
        added = {user for client, user in came.items() if client not in went}
        removed = {user for client, user in went.items() if client not in came}
        leavers = _leavers(commit)
        left = {user_of(m.credential) for m in commit.removed if int(m.leaf) in leavers}
        for user in sorted(left & removed):
            told.append(events.MembersRemoved(self.id, (user,), user))
        removed -= left
        back = {user for client, user in came.items() if client in went}
        if added:
            told.append(events.MembersAdded(self.id, tuple(sorted(added)), by))
        if removed:
            told.append(events.MembersRemoved(self.id, tuple(sorted(removed)), by, why))
        if back:
            told.append(events.MembersReturned(self.id, tuple(sorted(back)), by, why))
        if not commit.proposals:
            told.append(events.KeysRenewed(self.id, by))
        return told

    def _changes(self, before: GroupContext, commit: StagedCommit) -> list[events.Event]:
        """What a Commit made of the group's name and rules."""
        contents = [entry.proposal.content for entry in commit.proposals]
        if not any(isinstance(content, GroupContextExtensions) for content in contents):
            return []
        by, told = self._name_of(commit), list[events.Event]()
        old, new = read_profile(before.extensions), self.profile
        if old.name != new.name:
            told.append(events.Renamed(self.id, new.name.decode(errors="replace"), by))
        if old.replace(name=new.name, links_since=new.links_since) != new:
            added = [a.decode(errors="replace") for a in new.admins if a not in old.admins]
            removed = [a.decode(errors="replace") for a in old.admins if a not in new.admins]
            event = events.RulesChanged(
                self.id, rules_of(new), rules_of(old), tuple(added), tuple(removed), by
            )
            told.append(event)
        return told

    def _plan_renewal(self) -> None:
        """Replaces this device's keys some hours after it joined, and then about once a week.

        Earlier where its Commit makes those of many others cheaper, and it is this member's turn (`scheduling`).
        """
        if not self.is_active:
            return
        now, due = self._tools.clock(), self._tools.vault.next_renewal(self.id)
        joined = self._tools.vault.conversation(self.id).joined_at
        fill = own_turn_to_fill(
            self.group.tree, self.group.own_leaf, self._epoch_since, now, epoch=self.epoch
        )
        if fill or (due is not None and now >= due):
            # Once, however long it cannot be done.
            intents = self._tools.vault.intents(self.id)
            if all(intent.kind != IntentKind.RENEW for _, intent in intents):
                self.want(Intent(IntentKind.RENEW, b""))
            due = _next_renewal(now)
        elif due is None:
            due = joined + random.randint(HOUR, 24 * HOUR)  # noqa: S311 - a time, not a secret
        else:
            return
        with self._tools.vault.step() as step:
            step.set_next_renewal(self.id, due)


def _next_renewal(now: int) -> int:
    """When keys are replaced that were replaced now."""
    return now + random.randint(6 * 24 * HOUR, 8 * 24 * HOUR)  # noqa: S311 - a time, not a secret


def _batch(left: list[api.StoredEntry]) -> list[api.StoredEntry]:
    """Takes off the list what is judged in one step: the first entry, and those after it that are here whole."""
    end = 1
    while end < min(len(left), _ENTRIES) and (left[end].entry is not None or not left[end].size):
        end += 1
    taken, left[:] = left[:end], left[end:]
    return taken


def _reason(commit: StagedCommit) -> str:
    """Why a Commit removes whom nobody asked to remove, by its committer's word; empty where it says nothing."""
    try:
        return CommitNote.decode(commit.authenticated_data).reason.name.lower()
    except CoterieError:
        return ""


def _leavers(commit: StagedCommit) -> set[int]:
    """The leaves that a Commit removes because they asked for it themselves."""
    return {
        int(content.removed)
        for entry in commit.proposals
        if isinstance(content := entry.proposal.content, Remove)
        and entry.sender.sender_type == SenderType.MEMBER
        and entry.sender.leaf_index == content.removed
    }


def _why_out(told: list[events.Event]) -> str:
    why = next((event.why for event in told if isinstance(event, events.RemovedFromGroup)), "")
    return OUT.get(why, OUT[""])


OUT = {
    "": "this device was removed from the group",
    "idle": "this device was away for longer than the group allows, and was removed:"
    " ask a member to add you again, or use a link",
    "revoked": "this device was removed from the group, since its certificate was revoked:"
    " log in anew on it, then ask a member to add you again",
}
"""What the user is told of a group that this device is out of, by the reason in the Commit."""
