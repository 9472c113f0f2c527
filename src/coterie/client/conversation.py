"""One group as its member uses it: catches up, carries out what is wanted, tells what happened.

Every step is one transaction: what the core consumed, where the log was read to, what is shown and what is still to be
sent are stored together or not at all. After an exception the objects in memory are thrown away and loaded again, so
that memory never runs ahead of the disk. The log is the only truth: an own message is sent, an own Commit takes effect,
when it is read back (D-BUN-9); a timeout only means that the same bytes are sent again.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from coterie.client import events
from coterie.client.box import open_request, return_content, return_request
from coterie.client.content import (
    BINDING_EXTENSION,
    PROFILE_EXTENSION,
    Content,
    ContentType,
    GroupProfile,
    read_profile,
)
from coterie.client.epoch_keys import EpochKeys
from coterie.client.identity import Identity, inbox_of, read_key_package, seal_envelope
from coterie.client.intents import COMMITS, ClaimedPackage, Intent, IntentKind, WelcomeParts
from coterie.client.line import (
    Committed,
    Data,
    Evidence,
    Line,
    Outcome,
    Proposed,
    Sent,
    Stuck,
    Void,
)
from coterie.client.vault import Step, Vault
from coterie.errors import CoterieError, RuleViolation, ServiceError, StateError, VerificationError
from coterie.mls.extension import Extension
from coterie.mls.group import CommitOptions, Config, Group, StagedCommit
from coterie.mls.proposal import Add, GroupContextExtensions, Proposal, Remove
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.refusal import Refused

HOUR = 3600
ASK_AGAIN = 24 * 3600
"""Seconds after which a device that asked to be added again asks once more (D-BOX-8)."""
MAX_ATTEMPTS = 20
"""How often a lost race is run again before the user is told."""
_ENDED = frozenset({api.ErrorCode.EPOCH_ENDED, api.ErrorCode.LOST_RACE, api.ErrorCode.EPOCH_CLOSED})
_DROPPED = frozenset(
    {api.ErrorCode.GONE, api.ErrorCode.UNKNOWN_EPOCH, api.ErrorCode.UNKNOWN_CANDIDATE}
)
_PART = 1 << 20
_BACKDATED = 3600
"""By how many seconds a key package's lifetime begins before it was made."""
_END_WAIT = 5
_LONGEST_END_WAIT = 60
_ASKED = 3
"""In how many inboxes a device asks to be added again, at a time."""


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
    welcome_delay: float = 5.0
    """The longest random wait before a Welcome is posted, in seconds (D-INB-6)."""
    counters: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Counts an occurrence, for `status` and tests."""
        self.counters[what] = self.counters.get(what, 0) + 1


class Conversation:
    """A group that this device is in, or was."""

    def __init__(self, tools: Tools, conversation_id: str) -> None:
        self._tools = tools
        self.id = conversation_id
        self._line: Line | None = None
        self._lock = asyncio.Lock()
        self._proposals_since: int | None = None
        self._ends_at: int | None = None
        self._end_wait = _END_WAIT

    def enter(self, line: Line) -> None:
        """Takes the place in the log that a Welcome gave; the caller stores it."""
        self._line = line
        self._proposals_since = None

    # -- what it is

    @property
    def line(self) -> Line:
        """The place in the log; loaded from storage where need be. `StateError` where the group is over here."""
        if self._line is None:
            self._line = self._tools.vault.load_line(self.id, self._tools.config)
        return self._line

    @property
    def is_active(self) -> bool:
        """Whether this device is still in the group."""
        return self._tools.vault.status(self.id) == "active"

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

    def users(self) -> dict[str, list[int]]:
        """The users in the group, each with the leaves of their devices."""
        found: dict[str, list[int]] = {}
        for leaf, node in self.group.tree.members():
            user = self._tools.identity.user_of_credential(node.credential)
            found.setdefault(user, []).append(leaf)
        return found

    def _user(self, leaf: int) -> str:
        return self._tools.identity.user_of(self.group.tree, leaf)

    # -- what the user wants

    def want(self, intent: Intent) -> int:
        """Stores an intent; it is carried out by `sync`, now or when the service can be reached."""
        if not self.is_active:
            msg = f"this device is not in the group {self.name!r} any more"
            raise StateError(msg)
        with self._tools.vault.step() as step:
            return step.add_intent(self.id, intent)

    def want_text(self, text: str, answering: int = 0) -> str:
        """Stores a text to send; returns its message id.

        With it everything up to the position `answering` is marked as read, so that an answer is given once.
        """
        if not self.is_active:
            msg = f"this device is not in the group {self.name!r} any more"
            raise StateError(msg)
        content = Content.text(text, self._tools.clock())
        with self._tools.vault.step() as step:
            step.add_intent(self.id, Intent(IntentKind.SEND, content.encode()))
            step.add_own_text(self.id, content, self._tools.identity.user)
            if answering:
                step.mark_read(self.id, answering)
        return content.message_id.hex()

    # -- catching up and carrying out

    async def sync(self) -> None:
        """Reads the log to its end and carries out what is wanted; raises `ServiceError` where the service is away."""
        async with self._lock:
            try:
                await self._catch_up()
                await self._read_box()
                self._plan_renewal()
                await self._carry_out()
                await self._ask_to_return()
            except BaseException:
                self._line = None
                raise

    async def _catch_up(self) -> None:
        """Reads the log to its end; who comes too late for it asks to be added again (D-BOX-8)."""
        try:
            await self._read_on()
        except Refused as refused:
            if refused.code not in _DROPPED:
                raise
            self._fall_behind(str(refused))

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

    async def _read_on(self) -> None:
        while self.is_active:
            line = self.line
            if line.uncorrected:
                await self._correct(line)
            epoch = line.state.epoch
            result = await self._tools.delivery.read(line.read())
            if result.gone is not None:
                self._note_gone(line, result.gone)
            for stored in result.entries:
                full = await self._whole(line, stored)
                self._take(line, full)
                if self._moved_on(line, epoch):
                    break
            else:
                before = line.state
                try:
                    line.see_head(result.head)
                except Evidence as evidence:
                    self._stop(evidence)
                    return
                if line.state is not before:
                    self._store(line)
                if line.next_number >= result.next_number:
                    return
                if not result.entries:
                    msg = "the service names newer entries than it gives"
                    raise ServiceError(msg, retry_after=5)

    def _moved_on(self, line: Line, epoch: bytes) -> bool:
        """Whether what was read just now ended the epoch, or this device's part in the group."""
        return line.state.epoch != epoch or not self.is_active

    def _note_gone(self, line: Line, gone: api.Receipt) -> None:
        missed = gone.number - line.state.head.number
        line.skip_gone(gone)
        self._store(line)
        self._tools.emit(events.Missed(self.id, missed))

    async def _whole(self, line: Line, stored: api.StoredEntry) -> api.StoredEntry:
        """The entry with its bytes, fetched in parts where it is large (D-REC-7)."""
        if stored.entry is not None or stored.size == 0:
            return stored
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

    def _take(self, line: Line, stored: api.StoredEntry) -> None:
        """One entry, one transaction; what it means is told after it is stored."""
        tools = self._tools
        told: list[events.Event] = []
        try:
            with tools.vault.step() as step:
                tree = line.group.tree
                outcome = line.take(stored, now=tools.clock())
                if isinstance(outcome, Committed):
                    self._note_leaves(step, tree, outcome.commit)
                told = self._act(step, line, outcome)
                if self._ended(outcome):
                    step.end(self.id, line)
                else:
                    step.save_line(self.id, line)
        except VerificationError as error:
            # Without two signatures that contradict each other it is no evidence, only an answer to throw away.
            msg = f"the service's answer is not the log: {error}"
            raise ServiceError(msg, rule=error.rule, retry_after=60) from error
        except Evidence as evidence:
            self._stop(evidence)
        for event in told:
            tools.emit(event)

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
                step.set_status(self.id, "stuck", outcome.why)
                what = f"a Commit could not be followed: {outcome.why}"
                told = [events.Problem(self.id, what, "this device asks to be added again")]
            case Void():
                told = self._act_on_void(outcome)
        return told

    def _note_leaves(self, step: Step, before: RatchetTree, commit: StagedCommit) -> None:
        """Remembers the leaf nodes that a Commit replaced, so that a restored copy can name one (D-BOX-7)."""
        client_id, now = self._tools.config.authenticator.client_id, self._tools.clock()
        back = {client_id(member.credential) for member in commit.added}
        replaced = [m.node for m in commit.removed if client_id(m.credential) in back]
        for member in commit.removed:
            if client_id(member.credential) not in back:
                step.forget_former_leaves(self.id, client_id(member.credential))
        old = before.leaf(commit.committer.leaf)
        if old is not None and old != commit.committer.node:
            replaced.append(old)
        for node in replaced:
            client = client_id(node.credential)
            step.add_former_leaf(self.id, client, api.sha256(node.encode()), now)

    def _act_on_void(self, outcome: Void) -> list[events.Event]:
        self._tools.count("void entries")
        if outcome.leaf is None:
            return []
        what = f"{self._user(outcome.leaf)} sent a Commit that is invalid: {outcome.why}"
        return [events.Problem(self.id, what, "an administrator may remove the sender")]

    def _act_on_data(self, step: Step, outcome: Data) -> list[events.Event]:
        message = outcome.message
        sender = self._tools.identity.user_of_credential(message.sender.credential)
        try:
            content = Content.decode(message.data)
        except CoterieError:
            self._tools.count("unreadable contents")
            return []
        if content.content_type == ContentType.SEEN:
            ids = [content.body[n : n + 16].hex() for n in range(0, len(content.body), 16)]
            step.mark_seen(self.id, ids, sender)
            return [events.MessageSeen(self.id, tuple(ids), sender)]
        if not step.add_text(self.id, content, sender, self._tools.clock()):
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
            if intent.kind != IntentKind.SEND:
                return []
            message_id = Content.decode(intent.argument).message_id.hex()
            step.mark_sent(self.id, message_id)
            return [events.MessageSent(self.id, message_id)]
        return []

    def _act_on_commit(self, step: Step, line: Line, outcome: Committed) -> list[events.Event]:
        commit = outcome.commit
        self._proposals_since = None
        for intent_id, intent in step.intents(self.id):
            if outcome.own and intent.kind in COMMITS and intent.sealed is not None:
                self._plan_welcomes(step, line, intent, outcome)
                step.remove_intent(intent_id)
            elif intent.sealed is not None and intent.kind not in {
                IntentKind.WELCOME,
                IntentKind.CORRECT,
            }:
                if intent.kind in COMMITS:
                    self._tools.count("lost races")
                step.update_intent(intent_id, intent.waiting())
        if outcome.correct is not None:
            step.add_intent(self.id, Intent(IntentKind.CORRECT, b"", sealed=outcome.correct))
        if commit.removes_self:
            return [events.RemovedFromGroup(self.id, self._name_of(commit))]
        step.add_box(self.id, line.state.epoch, bytes(line.keys.box_seed))
        name = read_profile(self.group.context.extensions).name.decode(errors="replace")
        step.set_name(self.id, name)
        return self._tell(commit, name)

    def _name_of(self, commit: StagedCommit) -> str:
        return self._tools.identity.user_of_credential(commit.committer.credential)

    def _tell(self, commit: StagedCommit, name: str) -> list[events.Event]:
        by, told = self._name_of(commit), list[events.Event]()
        user_of = self._tools.identity.user_of_credential
        added = sorted({user_of(member.credential) for member in commit.added})
        removed = sorted({user_of(member.credential) for member in commit.removed})
        if added:
            told.append(events.MembersAdded(self.id, tuple(added), by))
        if removed:
            told.append(events.MembersRemoved(self.id, tuple(removed), by))
        contents = [entry.proposal.content for entry in commit.proposals]
        if any(isinstance(content, GroupContextExtensions) for content in contents):
            told.append(events.Renamed(self.id, name, by))
        if not contents:
            told.append(events.KeysRenewed(self.id, by))
        return told

    def _plan_renewal(self) -> None:
        """Replaces this device's keys some hours after it joined, and then about once a week."""
        if not self.is_active:
            return
        now, due = self._tools.clock(), self._tools.vault.next_renewal(self.id)
        joined = self._tools.vault.conversation(self.id).joined_at
        if due is None:
            due = joined + random.randint(HOUR, 24 * HOUR)  # noqa: S311 - a time, not a secret
        elif now >= due:
            self.want(Intent(IntentKind.RENEW, b""))
            due = now + random.randint(6 * 24 * HOUR, 8 * 24 * HOUR)  # noqa: S311 - a time
        else:
            return
        with self._tools.vault.step() as step:
            step.set_next_renewal(self.id, due)

    # -- coming back

    async def _ask_to_return(self) -> None:
        """Asks in the box of the last epoch that this device can name to be added again (D-BOX-8)."""
        tools = self._tools
        if tools.vault.status(self.id) != "stuck":
            return
        asked = tools.vault.requested_at(self.id)
        if asked is not None and tools.clock() - asked < ASK_AGAIN:
            return
        line, identity = self.line, tools.identity
        package = identity.new_package(tools.clock())
        ticket = secrets.token_bytes(32)
        with tools.vault.step() as step:
            step.add_package(package)
        await tools.inboxes.mint_tickets(
            api.MintTickets(
                identity.stored.inbox_id,
                bytes(identity.stored.inbox_token),
                (api.sha256(ticket),),
            )
        )
        content = return_content(line, package, ticket)
        reached = False
        try:
            await tools.delivery.post_request(return_request(line, content))
            reached = True
        except Refused as refused:
            if refused.code not in _DROPPED:
                raise
        if asked is not None or not reached:
            await self._ask_members(content)
        with tools.vault.step() as step:
            step.set_requested(self.id, package.reference, tools.clock())

    async def _ask_members(self, content: api.RequestContent) -> None:
        """Asks in the inboxes of some members, where the box is gone or nobody has answered for a day (D-BOX-8)."""
        tools = self._tools
        users = [user for user in self.users() if user != tools.identity.user]
        random.shuffle(users)
        envelope = api.EnvelopeContent(api.EnvelopeKind.REQUEST, request=content)
        suites = (self.group.context.cipher_suite,)
        for user in users[:_ASKED]:
            claim = api.Claim(api.DeliveryVersion.COTERIE1, user.encode(), suites)
            try:
                claimed = await tools.inboxes.claim(claim)
            except Refused:
                continue
            for package in claimed.packages:
                sealed = seal_envelope(
                    read_key_package(package.key_package), package.ticket, envelope
                )
                await tools.inboxes.post_envelope(sealed)

    def take_request(self, step: Step, request: api.RequestContent) -> bool:
        """Notes a request that came by the inbox; False where it is not for this group (D-INB-10)."""
        if not self.is_active or request.kind != api.RequestKind.RETURN:
            return False
        replaced = self._returning(self.line, request)
        if replaced is None:
            return False
        claimed = ClaimedPackage(request.key_package, request.ticket)
        step.add_intent(self.id, Intent(IntentKind.READD, replaced.encode(), (claimed,)))
        return True

    async def _read_box(self) -> None:
        """Reads what was asked in the boxes of this epoch and of those before, and answers it (D-BOX-3, D-BOX-7)."""
        if not self.is_active:
            return
        line, vault = self.line, self._tools.vault
        cursor = vault.box_cursor(self.id)
        result = await self._tools.delivery.read_box(
            api.ReadBox(line.binding.log_id, line.state.epoch, bytes(line.keys.read_token), cursor)
        )
        if not result.items:
            return
        boxes = {line.state.epoch: bytes(line.keys.box_seed), **vault.boxes(self.id)}
        with vault.step() as step:
            for item in result.items:
                request = open_request(line, boxes.get(item.epoch), item)
                if request is None or request.kind != api.RequestKind.RETURN:
                    self._tools.count("requests passed over")
                    continue
                replaced = self._returning(line, request)
                if replaced is None:
                    self._tools.count("requests passed over")
                    continue
                claimed = ClaimedPackage(request.key_package, request.ticket)
                step.add_intent(self.id, Intent(IntentKind.READD, replaced.encode(), (claimed,)))
            step.set_box_cursor(self.id, result.next_number)

    def _returning(self, line: Line, request: api.RequestContent) -> api.Replaced | None:
        """The leaf that makes room for who asks; None where it is not its client's, or the request is an old one."""
        replaced = request.replaced
        authenticator = self._tools.config.authenticator
        try:
            package = read_key_package(request.key_package)
            package.validate(line.group.suite, authenticator, now=self._tools.clock())
            client = authenticator.client_id(package.leaf_node.credential)
        except CoterieError:
            return None
        found = self._leaf_of(line, client, None if replaced is None else replaced.leaf_index)
        if replaced is None or found is None or found == line.group.own_leaf:
            return None
        present = api.sha256(line.group.member(found).node.encode())
        if replaced.leaf_node_hash != present:
            # A copy that fell behind names the leaf it remembers; it must be one, and the package newer than today's.
            since, former = self._tools.vault.former_leaves(self.id, client)
            lifetime = package.leaf_node.lifetime
            made = 0 if lifetime is None else lifetime.not_before + _BACKDATED
            if replaced.leaf_node_hash not in former or made <= since:
                return None
        return api.Replaced(found, present)

    def _leaf_of(self, line: Line, client: bytes, likely: int | None) -> int | None:
        """The leaf of a client, which is looked for where it is likely to be first."""
        client_id = self._tools.config.authenticator.client_id
        leaf = None if likely is None else line.group.tree.leaf(likely)
        if likely is not None and leaf is not None and client_id(leaf.credential) == client:
            return likely
        members = line.group.tree.members()
        return next((int(n) for n, node in members if client_id(node.credential) == client), None)

    def _readd(self, intent: Intent) -> list[Proposal] | None:
        """Remove and Add of one client in one Commit; nothing where the leaf is another by now."""
        replaced = api.Replaced.decode(intent.argument)
        leaf = self.group.tree.leaf(replaced.leaf_index)
        if leaf is None or api.sha256(leaf.encode()) != replaced.leaf_node_hash:
            return None
        package = read_key_package(intent.claimed[0].key_package)
        return [
            Proposal.of(Remove(LeafIndex(replaced.leaf_index))),
            Proposal.of(Add(package)),
        ]

    # -- carrying out

    async def _carry_out(self) -> None:
        """Intents in order; the epoch may change under each of them, then it is done again."""
        attempts = 0
        while self.is_active:
            waiting = self._tools.vault.intents(self.id)
            if not waiting:
                if not self._must_commit_pending() and not self._must_end():
                    return
                self.want(Intent(IntentKind.COMMIT_PENDING, b""))
                continue
            # Welcomes take their random time; they hold nothing else up.
            waiting.sort(key=lambda entry: entry[1].kind == IntentKind.WELCOME)
            intent_id, intent = waiting[0]
            attempts += 1
            if attempts > MAX_ATTEMPTS:
                msg = f"{MAX_ATTEMPTS} attempts were not enough: the group is busy, trying later"
                raise ServiceError(msg, retry_after=1)
            if intent.kind == IntentKind.SEND and self._needs_commit():
                intent_id, intent = self._commit_first()
            await self._do(intent_id, intent)

    def _commit_first(self) -> tuple[int, Intent]:
        for intent_id, intent in self._tools.vault.intents(self.id):
            if intent.kind in COMMITS:
                return intent_id, intent
        intent = Intent(IntentKind.COMMIT_PENDING, b"")
        return self.want(intent), intent

    def _needs_commit(self) -> bool:
        """Whether nothing but a Commit can go now.

        Data may not go before the proposals that wait (RFC 9420 §12.4), nor into an epoch that has ended with nothing
        but refused candidates (D-BUN-11). And where retention was faster than this device, own messages may have been
        dropped that a copy does not remember: then new ratchets come first, so that no key serves twice (D-BOX-8).
        """
        state = self.line.state
        return bool(self.group.pending_proposals) or self.line.ended or bool(state.missed)

    def _must_end(self) -> bool:
        """Whether it is time to post a candidate after refused ones only: after a random wait, longer each time."""
        if not self.line.ended:
            self._ends_at, self._end_wait = None, _END_WAIT
            return False
        now = self._tools.clock()
        if self._ends_at is None:
            self._ends_at = now + random.randint(0, self._end_wait)  # noqa: S311 - a time, not a secret
            self._end_wait = min(2 * self._end_wait, _LONGEST_END_WAIT)
        if now < self._ends_at:
            return False
        self._ends_at = None
        return True

    def _must_commit_pending(self) -> bool:
        """Whether it is this member's turn to commit what waits: the lower the leaf, the earlier."""
        if self._proposals_since is None or not self.group.pending_proposals:
            return False
        own = self.group.own_leaf
        leaving = {
            entry.proposal.content.removed
            for entry in self.group.pending_proposals
            if isinstance(entry.proposal.content, Remove)
        }
        if own in leaving:
            return False
        rank = sum(1 for leaf, _ in self.group.tree.members() if leaf < own and leaf not in leaving)
        return self._tools.clock() - self._proposals_since >= 2 * min(rank, 15)

    async def _do(self, intent_id: int, intent: Intent) -> None:
        try:
            if intent.kind == IntentKind.WELCOME:
                await self._post_welcome(intent_id, intent)
                return
            if intent.kind == IntentKind.CORRECT:
                # Of an earlier membership: one of the present is sent before anything is read.
                with self._tools.vault.step() as step:
                    step.remove_intent(intent_id)
                return
            if intent.sealed is None:
                intent = await self._prepare(intent_id, intent)
                if intent.sealed is None:
                    return
            appended = await self._tools.delivery.append(intent.sealed)
        except Refused as refused:
            if refused.code in _ENDED:
                await self._lost(intent_id, intent)
                if refused.code == api.ErrorCode.EPOCH_CLOSED and self._stands_in(intent):
                    self._fall_behind(str(refused))
            elif refused.retry_after is None:
                # Trying again is of no use, and nothing behind it may wait for ever.
                self._give_up(intent_id, refused)
            else:
                raise
            return
        except (RuleViolation, StateError, VerificationError) as error:
            self._give_up(intent_id, error)
            return
        self._check_receipt(intent.sealed, appended.receipt)
        self._keep_opened(intent_id, intent, appended)
        await self._catch_up()

    def _keep_opened(self, intent_id: int, intent: Intent, appended: api.Appended) -> None:
        """The epoch may be dropped before its Welcomes are out; then nobody could be asked for its receipt again."""
        if appended.opened is not None and intent.claimed:
            with self._tools.vault.step() as step:
                step.update_intent(intent_id, intent.replace(opened=appended.opened))

    def _give_up(self, intent_id: int, error: CoterieError) -> None:
        with self._tools.vault.step() as step:
            step.remove_intent(intent_id)
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

    def _check_receipt(self, sent: api.Append, receipt: api.Receipt) -> None:
        if receipt.entry_hash != sent.entry.hash() or receipt.epoch != sent.entry.header.epoch:
            msg = "the service's receipt is for something else than what was sent"
            raise ServiceError(msg, rule="D-REC-5", retry_after=5)

    async def _prepare(self, intent_id: int, intent: Intent) -> Intent:
        """Seals an intent for the present epoch and stores it so, before the first byte leaves."""
        if intent.kind == IntentKind.ADD and not intent.claimed:
            intent = await self._claim(intent_id, intent)
        line = self.line
        with self._tools.vault.step() as step:
            make = self._make_bundle if intent.kind in COMMITS else self._make_message
            sealed = make(line, intent)
            if sealed is None:
                step.remove_intent(intent_id)
                return intent.replace(sealed=None)
            intent = intent.replace(sealed=sealed)
            step.update_intent(intent_id, intent)
            step.save_line(self.id, line)
        return intent

    async def _claim(self, intent_id: int, intent: Intent) -> Intent:
        """Claims a key package of every device of the users to add; stored, so that none is claimed twice."""
        await self._tools.refresh()
        claimed: list[ClaimedPackage] = []
        for user in intent.argument.decode().split():
            result = await self._tools.inboxes.claim(
                api.Claim(
                    api.DeliveryVersion.COTERIE1,
                    user.encode(),
                    (self.group.context.cipher_suite,),
                )
            )
            claimed += [ClaimedPackage(c.key_package, c.ticket) for c in result.packages]
        intent = intent.replace(claimed=tuple(claimed))
        with self._tools.vault.step() as step:
            step.update_intent(intent_id, intent)
        return intent

    def _make_message(self, line: Line, intent: Intent) -> api.Append | None:
        if intent.kind == IntentKind.LEAVE:
            message = line.group.propose_remove(line.group.own_leaf)
            return line.message(api.ContentKind.PROPOSAL, message)
        message = line.group.encrypt(intent.argument)
        return line.message(api.ContentKind.APPLICATION, message)

    def _make_bundle(self, line: Line, intent: Intent) -> api.Append | None:
        proposals = self._proposals(intent)
        if proposals is None:
            return None
        if line.group.pending_commit is not None:
            line.group.drop_pending()
        options = CommitOptions(members_per_welcome=1, external_pub=False)
        pending = line.group.commit(
            proposals,
            now=self._tools.clock(),
            options=options,
            credential=self._tools.identity.credential,
        )
        return line.bundle(pending)

    def _proposals(self, intent: Intent) -> list[Proposal] | None:
        """What an intent means in the present epoch; None where it is done already."""
        match intent.kind:
            case IntentKind.ADD:
                return self._adds(intent)
            case IntentKind.REMOVE:
                users = set(intent.argument.decode().split())
                leaves = [leaf for user in users for leaf in self.users().get(user, [])]
                if self.group.own_leaf in leaves:
                    msg = "to go yourself, leave the group"
                    raise StateError(msg)
                return [Proposal.of(Remove(LeafIndex(leaf))) for leaf in leaves] or None
            case IntentKind.RENAME | IntentKind.CHANGE_RULES:
                profile = self.profile.replace(name=intent.argument)
                if intent.kind == IntentKind.CHANGE_RULES:
                    profile = GroupProfile.decode(intent.argument)
                return None if profile == self.profile else [self._extensions(profile)]
            case IntentKind.READD:
                return self._readd(intent)
            case IntentKind.COMMIT_PENDING:
                return [] if self._needs_commit() else None
            case _:
                return []

    def _adds(self, intent: Intent) -> list[Proposal] | None:
        wanted = set(intent.argument.decode().split())
        present = {
            self._tools.config.authenticator.client_id(node.credential)
            for _, node in self.group.tree.members()
        }
        proposals = []
        for claimed in intent.claimed:
            package = read_key_package(claimed.key_package)
            verified = package.validate(
                self.group.suite, self._tools.config.authenticator, now=self._tools.clock()
            )
            credential = package.leaf_node.credential
            if self._tools.identity.user_of_credential(credential) not in wanted:
                msg = "the directory gave a key package of somebody else than was asked for"
                raise RuleViolation(msg, rule="D-DIR-3")
            inbox_of(package)
            if self._tools.config.authenticator.client_id(credential) not in present:
                proposals.append(Proposal.of(Add(verified.key_package)))
        return proposals or None

    def _extensions(self, profile: GroupProfile) -> Proposal:
        kept = [e for e in self.group.context.extensions if e.extension_type == BINDING_EXTENSION]
        profile_extension = Extension(PROFILE_EXTENSION, profile.encode())
        return Proposal.of(GroupContextExtensions((*kept, profile_extension)))

    # -- Welcomes

    def _plan_welcomes(self, step: Step, line: Line, intent: Intent, outcome: Committed) -> None:
        """The own Commit was accepted: its Welcomes become intents of their own (D-INB-6)."""
        if intent.sealed is None:
            return
        by_reference = {
            read_key_package(claimed.key_package).reference(): claimed for claimed in intent.claimed
        }
        for welcome in outcome.welcomes:
            claimed = by_reference[welcome.body.secrets[0].new_member]  # type: ignore[union-attr]
            parts = WelcomeParts(
                claimed,
                welcome.encode(),
                line.state.parent,
                bytes(line.keys.read_token),
                intent.sealed,
                intent.opened,
            )
            step.add_intent(self.id, Intent(IntentKind.WELCOME, parts.encode()))

    async def _opening(self, parts: WelcomeParts) -> api.Receipt:
        """The opening receipt of the epoch that an own Commit began.

        Where the answer to the bundle did not arrive, repeating it gives the same one (D-ENT-3).
        """
        if parts.opened is not None:
            return parts.opened
        appended = await self._tools.delivery.append(parts.bundle)
        if appended.opened is None:
            msg = "the service did not say which epoch the Commit opened"
            raise ServiceError(msg, retry_after=5)
        return appended.opened

    async def _post_welcome(self, intent_id: int, intent: Intent) -> None:
        parts = WelcomeParts.decode(intent.argument)
        opening = await self._opening(parts)
        content = api.WelcomeContent(
            self.line.binding.service,
            self.line.binding.log_id,
            parts.parent,
            parts.read_token,
            opening,
            None,
            parts.welcome,
        )
        envelope = seal_envelope(
            read_key_package(parts.claimed.key_package),
            parts.claimed.ticket,
            api.EnvelopeContent(api.EnvelopeKind.WELCOME, content),
        )
        await asyncio.sleep(random.uniform(0, self._tools.welcome_delay))  # noqa: S311
        try:
            await self._tools.inboxes.post_envelope(envelope)
        except Refused as refused:
            if refused.code != api.ErrorCode.TICKET_USED:
                raise
        with self._tools.vault.step() as step:
            step.remove_intent(intent_id)


def create_group(
    identity: Identity,
    config: Config,
    name: str,
    service: bytes,
    retention: int,
    now: int,
) -> tuple[Group, api.CreateLogRequest]:
    """A new group with its log's first epoch (D-LOG-5); the caller stores both before it sends the request."""
    log_id = secrets.token_bytes(32)
    binding = api.DeliveryBinding(
        api.DeliveryVersion.COTERIE1, service, identity.stored.receipt_key, log_id, retention
    )
    profile = GroupProfile(name.encode(), (identity.user.encode(),))
    group = Group.create(
        secrets.token_bytes(32),
        identity.suite,
        identity.signature_key,
        identity.credential,
        identity.capabilities(),
        config,
        lifetime=identity.lifetime(now),
        extensions=[Extension(BINDING_EXTENSION, binding.encode()), profile.extension()],
    )
    keys = EpochKeys.derive(group.export_secret, log_id)
    create = api.CreateLog(api.DeliveryVersion.COTERIE1, log_id, keys.access, retention)
    return group, api.CreateLogRequest(create, keys.sign(create.to_be_signed()))
