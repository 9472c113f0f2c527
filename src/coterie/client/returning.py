"""Coming back after a failure, and bringing others back (docs/delivery-protocol.md, section 10)."""

from __future__ import annotations

import random
import secrets
from abc import abstractmethod

from coterie.client import events
from coterie.client.box import check_request, open_request, return_content, return_request
from coterie.client.content import DAY
from coterie.client.identity import inbox_of, read_key_package
from coterie.client.intents import ClaimedPackage, Intent, IntentKind
from coterie.client.line import (
    Line,
)
from coterie.client.notes import StoredGoing, mark_of
from coterie.client.place import DROPPED, UNSURE
from coterie.client.posting import post_to
from coterie.client.reading import Reading
from coterie.client.vault import Step
from coterie.errors import CoterieError, StorageError
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api
from coterie.transport.refusal import Refused

ASK_AGAIN = 24 * 3600
"""Seconds after which a device that asked to be added again asks once more (D-BOX-8)."""
AHEAD = 3600
"""By how many seconds the clock of who asks may be ahead of one's own (D-BOX-7)."""
_UNREACHABLE = DROPPED | {api.ErrorCode.QUOTA}
"""What the service says of a box that takes no request: it is gone, or somebody has filled it."""
_ASKED = 3
"""In how many inboxes a device asks to be added again, at a time."""


class Returning(Reading):
    """Asks to be added again, and answers those who ask."""

    @abstractmethod
    def _take_join(self, step: Step, line: Line, request: api.RequestContent, epoch: bytes) -> bool:
        """Keeps a request that came by a link; False for one that is passed over."""

    async def _ask_to_return(self) -> None:
        """Asks in the box of the last epoch that this device can name to be added again (D-BOX-8)."""
        tools = self._tools
        if tools.vault.status(self.id) != "stuck":
            return
        asked = tools.vault.requested_at(self.id)
        if asked is not None and tools.clock() - asked < ASK_AGAIN:
            return
        line, identity = self.line, tools.identity
        package = identity.new_package(tools.clock(), self.group.context.cipher_suite)
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
        content = return_content(line, package, ticket, tools.clock())
        reached = False
        try:
            await tools.delivery.post_request(return_request(line, content))
            reached = True
        except Refused as refused:
            if refused.code not in _UNREACHABLE:
                if refused.code not in UNSURE:
                    # Nobody has it. Kept, there would be one more each time that the service refuses.
                    with tools.vault.step() as step:
                        step.remove_package(package.reference)
                raise
        if asked is not None or not reached:
            await self._ask_members(content)
        with tools.vault.step() as step:
            step.set_requested(self.id, package.reference, tools.clock())
        if asked is not None:
            what = "nobody has added this device again for a day"
            advice = "where nobody is left who could, an administrator re-forms the group"
            tools.emit(events.Problem(self.id, what, advice))

    async def _ask_members(self, content: api.RequestContent) -> None:
        """Asks in the inboxes of some members, where the box is gone or nobody has answered for a day (D-BOX-8)."""
        tools = self._tools
        users = [user for user in self.users() if user != tools.identity.user]
        random.shuffle(users)
        envelope = api.EnvelopeContent(api.EnvelopeKind.REQUEST, request=content)
        for user in users[:_ASKED]:
            await post_to(tools, user, int(self.group.context.cipher_suite), envelope)

    def take_request(self, step: Step, request: api.RequestContent) -> bool:
        """Notes a request that came by the inbox; False where it is not for this group (D-INB-10)."""
        if not self.is_active:
            return False
        return self._answer(step, self.line, request)

    def _answer(self, step: Step, line: Line, request: api.RequestContent | None) -> bool:
        """Notes that a client is to be added again; False where the request is none that is answered."""
        replaced = None if request is None else self._returning(line, request)
        if request is None or replaced is None:
            return False
        claimed = ClaimedPackage(request.tbs.key_package, request.tbs.ticket)
        step.add_intent(self.id, Intent(IntentKind.READD, replaced.encode(), (claimed,)))
        return True

    async def _read_box(self) -> None:
        """Reads what was asked in the boxes of this epoch and of those before, and answers it (D-BOX-3, D-BOX-7)."""
        if not self.is_active:
            return
        line, vault = self.line, self._tools.vault
        now, looked = self._tools.clock(), vault.box_look(self.id)
        # Numbers are the service's word: one that is too high must not hide for good what comes after.
        anew = not looked <= now < looked + DAY
        cursor = 0 if anew else vault.box_cursor(self.id)
        result = await self._tools.delivery.read_box(
            api.ReadBox(line.binding.log_id, line.state.epoch, bytes(line.keys.read_token), cursor)
        )
        if anew:
            with vault.step() as step:
                step.set_box_look(self.id, now)
                step.set_box_cursor(self.id, 0)
        if not result.items:
            return
        # Nobody is judged by an outdated list of revoked certificates; what was asked stays in the box until then.
        await self._tools.refresh()
        self._told = []
        boxes = {line.state.epoch: bytes(line.keys.box_seed), **vault.boxes(self.id)}
        with vault.step() as step:
            for item in result.items:
                mark = mark_of(item)
                if vault.was_taken(mark):
                    continue
                step.note_taken(mark, now)
                request = open_request(line, boxes.get(item.epoch), item)
                if request is not None and request.tbs.kind == api.RequestKind.JOIN:
                    taken = self._take_join(step, line, request, item.epoch)
                elif request is not None and request.tbs.kind == api.RequestKind.DECLINE:
                    taken = self._take_decline(step, line, request)
                else:
                    taken = self._answer(step, line, request)
                if not taken:
                    self._tools.count("requests passed over")
            step.set_box_cursor(self.id, result.next_number)
        told, self._told = self._told, []
        for event in told:
            self._tools.emit(event)

    def _take_decline(self, step: Step, line: Line, request: api.RequestContent) -> bool:
        """Notes that a device does not come whose leaf is still as it was added (D-BOX-13); False for any other."""
        authenticator = self._tools.config.authenticator
        try:
            package = read_key_package(request.tbs.key_package)
            check_request(request, package, line.binding.log_id)
            client = authenticator.client_id(package.leaf_node.credential)
        except StorageError:
            raise
        except CoterieError:
            return False
        leaf, node = self._leaf_of(line, client, None), package.leaf_node.encode()
        if leaf is None or line.group.member(LeafIndex(leaf)).node.encode() != node:
            return False
        going = StoredGoing(leaf, self._tools.clock())
        step.note_going(self.id, api.sha256(node), going)
        return True

    def _returning(self, line: Line, request: api.RequestContent) -> api.Replaced | None:
        """The leaf that makes room for who asks; None where it is not its client's, or the request is an old one."""
        replaced, now = request.tbs.replaced, self._tools.clock()
        authenticator = self._tools.config.authenticator
        try:
            package = read_key_package(request.tbs.key_package)
            package.validate(line.group.suite, authenticator, now=now)
            check_request(request, package, _log_meant(line, request))
            inbox_of(package)
            client = authenticator.client_id(package.leaf_node.credential)
        except StorageError:
            raise
        except CoterieError:
            return None
        found = self._leaf_of(line, client, None if replaced is None else replaced.leaf_index)
        if replaced is None or found is None or found == line.group.own_leaf:
            return None
        present = api.sha256(line.group.member(found).node.encode())
        if present in self._tools.vault.going(self.id):
            # It asks to come back to the group before this one, and has said that it does not come here.
            return None
        if replaced.leaf_node_hash != present:
            # A copy that fell behind names the leaf it remembers; what was answered before must not be answered again.
            lifetime = package.leaf_node.lifetime
            begins = 0 if lifetime is None else lifetime.not_before
            joined = self._tools.vault.conversation(self.id).joined_at
            seen = self._tools.vault.added_with(self.id, client)
            if begins <= seen or not joined <= request.tbs.requested_at <= now + AHEAD:
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


def _log_meant(line: Line, request: api.RequestContent) -> bytes:
    """The log that a request must be for: this one, or that of the group before, where its sender was left behind."""
    before = line.binding.predecessor
    named = before is not None and request.tbs.log_id == before.log_id
    return before.log_id if before is not None and named else line.binding.log_id
