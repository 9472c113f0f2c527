"""This device's inbox, and its stock of key packages in the directory (delivery protocol, sections 9 and 10).

What arrives was sealed to one of the key packages; what they are used up for is filled again.
"""

from __future__ import annotations

import math

from coterie.client.calling import note_call
from coterie.client.content import DAY
from coterie.client.conversation import Conversation
from coterie.client.events import Problem
from coterie.client.identity import Package
from coterie.client.inviting import Inviting
from coterie.client.notes import mark_of
from coterie.client.place import UNSURE, Tools
from coterie.errors import CoterieError, ServiceError, StateError, StorageError
from coterie.mls.framing import MLSMessage
from coterie.transport import api
from coterie.transport.refusal import Refused, Unreachable

STOCK = 20
"""How many key packages are kept in the directory."""
LOW_STOCK = STOCK // 2
"""With so few left, new ones are published."""
SPARE = 14 * DAY
"""A last-resort package is replaced so many seconds before it expires; the directory hands none out afterwards."""
KEPT = 30 * DAY
"""For so many seconds after it has expired the keys of a package are kept: a Welcome may wait in the inbox.

As long it is remembered what was taken."""


class Mailbox:
    """The inbox of one device."""

    def __init__(
        self, tools: Tools, conversations: dict[str, Conversation], inviting: Inviting
    ) -> None:
        self._tools = tools
        self._conversations = conversations
        self._inviting = inviting
        self._look_at = 0
        self._spare_until = 0
        """Until when no last-resort package need be replaced for its age."""

    async def publish(self) -> None:
        """Opens the inbox and brings the stock of key packages in the directory up to `STOCK` a suite (D-DIR-7)."""
        stored = self._tools.identity.stored
        await self._tools.inboxes.open_inbox(
            api.OpenInbox(stored.inbox_id, api.sha256(stored.inbox_token))
        )
        result = await self._tools.inboxes.read_inbox(
            api.ReadInbox(stored.inbox_id, stored.inbox_token)
        )
        stocks = {int(stock.cipher_suite): stock for stock in result.stock}
        now, new = self._tools.clock(), self._tools.identity.new_package
        packages = self._tools.vault.packages(self._tools.identity)
        kept = {p.cipher_suite for p in packages if p.last_resort and p.not_after - now > SPARE}
        fresh: list[Package] = []
        last: list[Package] = []
        for suite in self._tools.identity.suites:
            stock = stocks.get(suite)
            fresh += [new(now, suite) for _ in range(STOCK - (stock.available if stock else 0))]
            if suite not in kept or (stock is not None and stock.last_resort_used):
                last.append(new(now, suite, last_resort=True))
        if not fresh and not last:
            return
        # Stored first: a Welcome for a package whose keys are not stored could never be opened.
        with self._tools.vault.step() as step:
            for package in (*fresh, *last):
                step.add_package(package)
        request = api.Publish(
            api.DeliveryVersion.COTERIE1,
            self._tools.identity.user.encode(),
            stored.inbox_id,
            bytes(stored.inbox_token),
            tuple(map(_published, fresh)),
            tuple(map(_published, last)),
        )
        self._look_at = 0
        try:
            await self._tools.inboxes.publish(request)
        except Refused as refused:
            if refused.code not in UNSURE:
                # Nobody has them. Kept, they would be more each time that the service refuses.
                with self._tools.vault.step() as step:
                    for package in (*fresh, *last):
                        step.remove_package(package.reference)
            raise

    async def read(self) -> None:
        """Takes what arrived, and fills the stock where that used it up."""
        stored = self._tools.identity.stored
        # All that is there, whatever its numbers: what was taken is known by itself, and deleted there.
        try:
            result = await self._tools.inboxes.read_inbox(
                api.ReadInbox(stored.inbox_id, bytes(stored.inbox_token))
            )
        except Refused as refused:
            if refused.code != api.ErrorCode.UNKNOWN_INBOX:
                raise
            # What this device published first when it was enrolled did not arrive.
            await self.publish()
            return
        left = await self._take_envelopes(result.items)
        done = [item.number for item in result.items if item.number < left]
        if done:
            await self._acknowledge(done[-1])
        if result.items or self._is_low(result.stock):
            try:
                await self.publish()
            except Refused as refused:
                # Others can still claim what is there; what arrived in the logs must not wait for it.
                self._tools.count(f"publishing refused: {refused.code.name.lower()}")

    async def _take_envelopes(self, items: tuple[api.InboxItem, ...]) -> float:
        """Takes what was not taken; the number of the first that is left for later, infinite where none is.

        A Commit that adds this device again comes before its Welcome (D-BOX-11). So the logs are read before, and once
        more where an earlier envelope may have led into a group out of which a later one says that it was.
        """
        left = math.inf
        unread = await self._read_logs() if items else False
        entered = False
        for item in items:
            if self._tools.vault.was_taken(mark_of(item)):
                continue
            taken = await self._take_envelope(item, unsure=unread or entered)
            if not taken and entered:
                unread, entered = await self._read_logs(), False
                taken = await self._take_envelope(item, unsure=unread)
            entered = entered or taken
            if not taken:
                left = min(left, item.number)
        return left

    async def _acknowledge(self, last: int) -> None:
        """Has what was taken deleted; what the service keeps all the same is known the next time, and passed over."""
        stored = self._tools.identity.stored
        try:
            await self._tools.inboxes.ack_inbox(
                api.AckInbox(stored.inbox_id, bytes(stored.inbox_token), last)
            )
        except Refused as refused:
            self._tools.count(f"acknowledging refused: {refused.code.name.lower()}")

    def _is_low(self, stock: tuple[api.Stock, ...]) -> bool:
        """Whether packages are to be published before the last of a suite is claimed, or expires (D-DIR-7)."""
        if self._tools.clock() >= self._look_at:
            self._look()
        left = {int(one.cipher_suite): one for one in stock}
        return self._tools.clock() >= self._spare_until or any(
            suite not in left or left[suite].available <= LOW_STOCK or left[suite].last_resort_used
            for suite in self._tools.identity.suites
        )

    def _look(self) -> None:
        """Sees about once a day how long last-resort packages are good; forgets what was kept long enough."""
        now, packages = self._tools.clock(), self._tools.vault.packages(self._tools.identity)
        ends = dict.fromkeys(self._tools.identity.suites, 0)
        for package in packages:
            if package.last_resort:
                ends[package.cipher_suite] = max(ends[package.cipher_suite], package.not_after)
        self._spare_until, self._look_at = min(ends.values()) - SPARE, now + DAY
        with self._tools.vault.step() as step:
            step.forget_taken(now - KEPT)
            for package in packages:
                if package.not_after + KEPT < now:
                    step.remove_package(package.reference)

    async def _read_logs(self) -> bool:
        """Reads what the logs have; whether one could not be read. Raises `Unreachable` where the service is away."""
        unread = False
        for conversation in list(self._conversations.values()):
            try:
                await conversation.catch_up()
            except Unreachable:
                raise
            except ServiceError:
                unread = True
        return unread

    async def _take_envelope(self, item: api.InboxItem, *, unsure: bool) -> bool:
        """Joins what an envelope invites to; one that means nothing is passed over, and counted.

        False for one that is left for later: where it is `unsure` what the logs have, this device may seem to be in the
        group to which it was invited anew.
        """
        mark = mark_of(item)
        for package in self._tools.vault.packages(self._tools.identity):
            content = package.open(item)
            if content is None:
                continue
            if content.request is not None:
                self._take_request(package, content.request, mark)
                return True
            if content.call is not None:
                note_call(self._tools, package, content.call, mark)
                return True
            try:
                await self._inviting.take(package, content, mark)
            except CoterieError as error:
                if isinstance(error, StorageError):
                    raise
                if unsure and isinstance(error, StateError):
                    self._tools.count("invitations left until the logs can be read")
                    return False
                self._tools.emit(Problem("", f"an invitation is not valid: {error}"))
                break
            return True
        self._tools.count("envelopes passed over")
        with self._tools.vault.step() as step:
            step.note_taken(mark, self._tools.clock())
        return True

    def _take_request(self, package: Package, request: api.RequestContent, mark: bytes) -> None:
        """A member asks here to be added again to one of the groups (D-INB-10)."""
        with self._tools.vault.step() as step:
            found = [c for c in self._conversations.values() if c.take_request(step, request)]
            if not found:
                self._tools.count("requests passed over")
            if not package.last_resort:
                step.remove_package(package.reference)
            step.note_taken(mark, self._tools.clock())


def _published(package: Package) -> api.KeyPackageMessage:
    return api.KeyPackageMessage(MLSMessage.of(package.bundle.key_package).encode())
