"""From a group that ended with a ReInit to the one that follows it (docs/delivery-protocol.md, section 11).

Whoever committed the ReInit makes the next group; if it does not, an administrator does after ten minutes. Each step is
stored before the next one: the log is opened, the group made, its epoch opened in the log, the successor posted. Only
when the successor is read back and counts are the Welcomes sent.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from coterie.client import events
from coterie.client.chunks import WIDTH
from coterie.client.content import check_retention, lacking_suite
from coterie.client.intents import ClaimedPackage, Intent, IntentKind, WelcomeParts
from coterie.client.keeping import Prepared, Succession
from coterie.client.line import Line, staged_exporter
from coterie.client.making import NOBODY
from coterie.client.place import no_answer
from coterie.client.receipts import verify_receipt
from coterie.client.rereading import Rereading
from coterie.client.successor import (
    Announcement,
    Membership,
    announce,
    announced,
    create_log,
    first_epoch,
    first_state,
    make_successor,
    may_lead,
    members_of,
    opening_entry,
)
from coterie.client.vault import Step
from coterie.errors import CoterieError, ServiceError, StateError, VerificationError
from coterie.mls.group import CommitOptions
from coterie.mls.proposal import Proposal
from coterie.mls.types import CipherSuite
from coterie.transport import api
from coterie.transport.refusal import Refused

TAKE_OVER = 600
"""Seconds after which an administrator makes the next group if the ReInit's committer has not (D-SUC-3)."""
TOO_LONG = 3600
"""Seconds after which the user is told that the next group does not come, and how often making it is tried again."""
_RACES = 8


class Moving(Rereading):
    """Announces a new group, makes it, and goes there."""

    # -- announcing

    def want_other(self, cipher_suite: int | None, retention: int | None) -> None:
        """Stores that the group is to be moved; raises `StateError` for what this device knows to be impossible."""
        identity, line = self._tools.identity, self.line
        present = int(line.group.context.cipher_suite), line.binding.retention
        wanted = (
            present[0] if cipher_suite is None else cipher_suite,
            present[1] if retention is None else retention,
        )
        if wanted == present:
            msg = "the group has this cipher suite and retention: say what is to change"
            raise StateError(msg)
        check_retention(wanted[1])
        if wanted[0] not in identity.suites:
            known = ", ".join(map(str, identity.suites))
            msg = (
                f"this device cannot use cipher suite {wanted[0]} with its key; it can use {known}"
            )
            raise StateError(msg)
        if not may_lead(line.group, identity, line.group.own_leaf):
            admins = ", ".join(admin.decode(errors="replace") for admin in self.profile.admins)
            msg = f"only an administrator may move the group: {admins}"
            raise StateError(msg)
        self.want(Intent(IntentKind.REINIT, Announcement(*wanted).encode()))

    async def _prepare_reinit(self, intent_id: int, intent: Intent) -> Intent:
        """Seals the Commit with the ReInit; whoever lacks the suite is named and nothing is done.

        Everybody's key packages are claimed first: a group that cannot be followed is not ended.
        """
        wanted = Announcement.decode(intent.argument)
        if lacking := lacking_suite(self.group.tree, wanted.cipher_suite):
            raise StateError(self._lack(lacking, f"cannot use cipher suite {wanted.cipher_suite}"))

        def keep(step: Step, claimed: tuple[ClaimedPackage, ...]) -> None:
            step.update_intent(intent_id, intent.replace(claimed=claimed))

        members = await self._claim_members(intent.claimed, wanted.cipher_suite, keep)
        if members.lacking:
            what = f"no key package of cipher suite {wanted.cipher_suite} that is good"
            raise StateError(self._lack(members.lacking, f"have {what}"))
        line = self.line
        with self._tools.vault.step() as step:
            if line.group.pending_commit is not None:
                line.group.drop_pending()
            reinit = announce(line, wanted)
            pending = line.group.commit(
                [Proposal.of(reinit)],
                now=self._tools.clock(),
                options=CommitOptions(largest_tree_inside=WIDTH, external_pub=False, pending=False),
                credential=self._tools.identity.credential,
            )
            create = create_log(staged_exporter(pending.commit.following()), reinit)
            intent = intent.replace(
                argument=wanted.replace(create=create).encode(),
                claimed=tuple(one for one, _ in members.packages),
                sealed=line.bundle(pending),
            )
            step.update_intent(intent_id, intent)
            step.save_line(self.id, line)
        return intent

    async def _prepare(self, intent_id: int, intent: Intent) -> Intent:
        """See Making; a ReInit is prepared here."""
        if intent.kind == IntentKind.REINIT:
            return await self._prepare_reinit(intent_id, intent)
        return await super()._prepare(intent_id, intent)

    async def _send(self, intent: Intent) -> api.Appended:
        """Appends what was sealed.

        Before a ReInit is sent the log is opened that it names: who reads it could take that id otherwise (D-SUC-9).
        """
        if intent.kind == IntentKind.REINIT:
            create = Announcement.decode(intent.argument).create
            if create is not None:
                await self._tools.delivery.create_log(create)
        return await self._append(intent)

    @staticmethod
    def _check_receipt(sent: api.Append, receipt: api.Receipt) -> None:
        if receipt.entry_hash != sent.entry.hash() or receipt.epoch != sent.entry.header.epoch:
            msg = "the service's receipt is for something else than what was sent"
            raise ServiceError(msg, rule="D-REC-5", retry_after=5)

    def _lack(self, leaves: tuple[int, ...] | list[int], what: str) -> str:
        users = ", ".join(sorted({self._user(leaf) for leaf in leaves}))
        return f"not all members can follow: these {what}: {users}"

    async def _claim_members(
        self,
        claimed: tuple[ClaimedPackage, ...],
        cipher_suite: int,
        keep: Callable[[Step, tuple[ClaimedPackage, ...]], None],
    ) -> Membership:
        """A key package of every other member's device; claims for those users only of whom one is missing.

        `keep` stores what was claimed where no more can be for now. Begun anew each time, a group of more users than
        the service's rate allows at once would never move, and its members would lose one key package after the other.
        """
        tools = self._tools
        await tools.refresh()

        def found() -> Membership:
            authenticator = tools.config.authenticator
            return members_of(self.group, claimed, cipher_suite, authenticator, tools.clock())

        members = found()
        for user in sorted({self._user(leaf) for leaf in members.lacking}):
            request = api.Claim(
                api.DeliveryVersion.COTERIE1, user.encode(), (CipherSuite(cipher_suite),)
            )
            try:
                result = await tools.inboxes.claim(request)
            except ServiceError as error:
                if isinstance(error, Refused) and error.code in NOBODY:
                    continue
                with tools.vault.step() as step:
                    keep(step, claimed)
                raise
            claimed += tuple(ClaimedPackage(c.key_package, c.ticket) for c in result.packages)
        return found()

    # -- going there

    async def _move_on(self) -> None:
        """Makes the next group if it is this device's turn, and enters it if it counts."""
        vault = self._tools.vault
        found = vault.succession(self.id)
        if vault.status(self.id) != "moving" or found is None:
            return
        await self._post_old_welcomes()
        if found.counting is None and self._is_own_turn(found):
            try:
                await self._make_next(found)
            except (StateError, Refused) as error:
                if isinstance(error, Refused) and error.retry_after is not None:
                    raise
                self._try_later(error)
            found = vault.succession(self.id)
        if found is None or vault.status(self.id) != "moving":
            return
        if found.counting is not None and found.prepared is not None:
            self._settle(found, found.prepared)
        self._tell_if_late()

    async def _post_old_welcomes(self) -> None:
        """Who was added just before the end follows by the old group's Welcome."""
        while waiting := [
            entry
            for entry in self._tools.vault.intents(self.id)
            if entry[1].kind == IntentKind.WELCOME
        ]:
            await self._post_welcomes(*waiting[0])

    def _is_own_turn(self, found: Succession) -> bool:
        now, own = self._tools.clock(), self.group.own_leaf
        if now < found.wait_until:
            return False
        if found.prepared is not None or found.committer == own:
            return True
        return now - found.since >= TAKE_OVER and may_lead(self.group, self._tools.identity, own)

    def _try_later(self, error: CoterieError) -> None:
        found = self._tools.vault.succession(self.id)
        if found is None:
            return
        with self._tools.vault.step() as step:
            wait_until = self._tools.clock() + TOO_LONG
            step.save_succession(self.id, found.replace(wait_until=wait_until))
        what = f"the group that follows could not be made: {error}"
        self._tools.emit(
            events.Problem(self.id, what, "it is tried again in an hour; or re-form it")
        )

    async def _make_next(self, found: Succession) -> None:
        """Makes the next group and posts it as the successor; who was first is read from the log."""
        delivery, line = self._tools.delivery, self.line
        if line.unconfirmed:
            msg = "the service does not sign that the epoch is open"
            raise ServiceError(msg, rule="D-REC-6", retry_after=5)
        log = await delivery.create_log(create_log(line.group.export_secret, announced(line.group)))
        self._check_first(line, log.receipt)
        prepared = found.prepared or await self._make(found, log.receipt)
        await self._open_next(line, prepared, log.receipt)
        await self._supply_next()
        appended = await delivery.append(prepared.successor)
        self._check_receipt(prepared.successor, appended.receipt)
        await self._catch_up()

    def _check_first(self, line: Line, receipt: api.Receipt) -> None:
        self._check_opening(line, receipt, first_epoch(line)[1])

    @staticmethod
    def _check_opening(line: Line, receipt: api.Receipt | None, epoch: bytes) -> None:
        """Raises `ServiceError` unless the service says that an epoch is open."""
        if receipt is None or (receipt.epoch, receipt.number) != (epoch, 0):
            msg = "the service's answer is not about the epoch that was to be opened"
            raise ServiceError(msg, rule="D-REC-3", retry_after=60)
        try:
            verify_receipt(line.receipt_key, receipt)
        except VerificationError as error:
            raise no_answer(error) from error

    async def _make(self, found: Succession, opening: api.Receipt) -> Prepared:
        reinit = announced(self.group)

        def keep(step: Step, claimed: tuple[ClaimedPackage, ...]) -> None:
            step.save_succession(self.id, found.replace(claimed=claimed))

        members = await self._claim_members(found.claimed, int(reinit.cipher_suite), keep)
        if members.lacking:
            what = f"have no key package of cipher suite {int(reinit.cipher_suite)} that is good"
            raise StateError(self._lack(members.lacking, what))
        tools = self._tools
        group, prepared = make_successor(
            self.line, members.packages, tools.identity, opening, tools.clock()
        )
        with tools.vault.step() as step:
            step.save_next_group(self.id, group)
            step.save_succession(self.id, found.replace(claimed=(), prepared=prepared))
        return prepared

    async def _open_next(self, line: Line, prepared: Prepared, log: api.Receipt) -> None:
        """Opens the new group's epoch in its log; another's candidate there is no hindrance (D-BUN-3)."""
        keys, name = first_epoch(line)
        for _ in range(_RACES):
            if prepared.opened is not None:
                return
            try:
                appended = await self._tools.delivery.append(prepared.opening)
            except Refused as refused:
                if refused.code != api.ErrorCode.LOST_RACE or refused.lost_race is None:
                    raise
                winner = refused.lost_race.winner.receipt
                last = winner.hash() if winner.epoch == name else api.ZERO32
                opening = opening_entry(keys, log, last, prepared.access, prepared.content)
                prepared = prepared.replace(opening=opening)
            else:
                self._check_receipt(prepared.opening, appended.receipt)
                following = api.EpochName(prepared.opening.log_id, name, prepared.access).name()
                self._check_opening(line, appended.opened, following)
                prepared = prepared.replace(opened=appended.opened)
            self._keep_prepared(prepared)
        msg = f"{_RACES} attempts to open the next group's log were not enough, trying later"
        raise ServiceError(msg, retry_after=10)

    def _next_line(self, prepared: Prepared, opened: api.Receipt) -> Line:
        """The place in the group that this device prepared, whose epoch is open."""
        group = self._tools.vault.load_next_group(self.id, self._tools.config)
        keys = Line.opened(group, prepared.parent, opened).keys
        shared = first_state(group, keys.state_secret)
        return Line.opened(group, prepared.parent, opened, shared)

    async def _supply_next(self) -> None:
        """Uploads the chunks of the new group's state, where it has any, before anybody is invited."""
        found = self._tools.vault.succession(self.id)
        prepared = None if found is None else found.prepared
        if prepared is None or prepared.opened is None:
            return
        line = self._next_line(prepared, prepared.opened)
        tree = line.group.tree
        refs = dict(line.shared.all_refs(tree))
        places = {ref.address: place for place, ref in refs.items()}
        await self._supply(
            line, places, lambda a: line.shared.data(tree, places[a], refs[places[a]])
        )

    def _keep_prepared(self, prepared: Prepared) -> None:
        found = self._tools.vault.succession(self.id)
        if found is not None:
            with self._tools.vault.step() as step:
                step.save_succession(self.id, found.replace(prepared=prepared))

    def _settle(self, found: Succession, prepared: Prepared) -> None:
        """The own group counts: it takes the place of the old one. Or another does: the own one is dropped."""
        tools, counting = self._tools, found.counting
        opened = prepared.opened
        if counting is None or opened is None or not compare_digest(counting.tag, prepared.tag):
            with tools.vault.step() as step:
                step.drop_next_group(self.id)
                step.save_succession(self.id, found.replace(prepared=None))
            return
        first, _ = first_epoch(self.line)
        line = self._next_line(prepared, opened)
        parts = WelcomeParts(
            len(prepared.guests),
            prepared.cipher_suite,
            prepared.encrypted_group_info,
            prepared.parent,
            bytes(line.keys.read_token),
            line.shared.root,
            None,
            opened,
        )
        with tools.vault.step() as step:
            step.continue_in(self.id, line.group.group_id, reformed=False, next_group=True)
            step.save_line(self.id, line)
            step.note_log(line.group.group_id, line.binding.log_id)
            step.forget_origin(self.id)
            step.add_box(self.id, prepared.parent, bytes(first.box_seed), 0)
            step.add_box(self.id, line.state.epoch, bytes(line.keys.box_seed), line.group.epoch)
            number = step.add_intent(self.id, Intent(IntentKind.WELCOME, parts.encode()))
            for place, piece in enumerate(prepared.guests):
                step.add_welcome(self.id, number, place, piece)
            step.set_status(self.id, "active")
        self._line = None
        tools.emit(events.Moved(self.id, tools.identity.user))

    def _tell_if_late(self) -> None:
        found, now = self._tools.vault.succession(self.id), self._tools.clock()
        if found is None or found.told or now - found.since < TOO_LONG:
            return
        with self._tools.vault.step() as step:
            step.save_succession(self.id, found.replace(told=1))
        what = "the group was ended for a new one an hour ago, and this device is not in that"
        advice = "wait for a member to come online, or re-form the group"
        self._tools.emit(events.Problem(self.id, what, advice))
