"""Calling members that were not heard of for long (docs/delivery-protocol.md, D-BOX-14).

Who must be added again asks those whom it can name. All of them may be stuck as well, or gone, while somebody is there
who came later: it cannot know of them, but they know of it. So now and then they call, and who is called answers.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from coterie.client.box import post_into, request_to_return
from coterie.client.content import DAY
from coterie.client.identity import Package
from coterie.client.links import link_of
from coterie.client.notes import StoredCall
from coterie.client.posting import post_to
from coterie.client.reading import Reading
from coterie.client.returning import ASK_AGAIN
from coterie.errors import CoterieError, ServiceError
from coterie.transport import api
from coterie.transport.refusal import Refused

if TYPE_CHECKING:
    from coterie.client.conversation import Conversation
    from coterie.client.place import Tools

CALL_AFTER = 21 * DAY
"""Seconds without new keys after which a member is called: devices replace them about weekly, and who never appeared
is replaced before (D-INB-8)."""
LOOK_AGAIN = DAY, 3 * DAY
"""Between how many seconds pass from one look who is to be called to the next."""
CALLERS = 3
"""How many of those who are there call somebody, on average."""
AT_ONCE = 8
"""The most members that are called in one look; the others wait for the next one."""


class Calling(Reading):
    """Tells who may be stuck where it can ask."""

    async def _call_silent(self) -> None:
        """Calls members whose keys are old, each less and less often, and not all who are there call."""
        tools, vault = self._tools, self._tools.vault
        if not self.is_active:
            return
        now, due = tools.clock(), vault.next_call(self.id)
        if due is None:
            due = vault.conversation(self.id).joined_at + CALL_AFTER
        if now < due:
            return
        with vault.step() as step:
            wait = random.randint(*LOOK_AGAIN)  # noqa: S311 - a time, not a secret
            step.set_next_call(self.id, now + wait)
        leaves, there = self._to_call(now)
        for leaf in random.sample(leaves, min(len(leaves), AT_ONCE)):
            if random.random() * there < CALLERS:  # noqa: S311 - a choice, not a secret
                try:
                    await self._call(leaf)
                except ServiceError:
                    # What nobody asked for holds up nothing that somebody did.
                    return
            with vault.step() as step:
                step.note_called(self.id, leaf, now)

    def _to_call(self, now: int) -> tuple[list[int], int]:
        """The leaves that are to be called now, and how many members are there."""
        vault = self._tools.vault
        joined, newest = vault.conversation(self.id).joined_at, vault.renewals(self.id)
        found, there = [], 1
        for index, _ in self.group.tree.members():
            leaf = int(index)
            if leaf == self.group.own_leaf:
                continue
            since = newest.get(leaf, joined)
            if now < since + CALL_AFTER:
                there += 1
                continue
            called = vault.called_at(self.id, leaf)
            # Silent for twice as long as when it was called last; of who has had new keys since, that is forgotten.
            if called <= since or now - since >= 2 * (called - since):
                found.append(leaf)
        return found, there

    async def _call(self, leaf: int) -> None:
        tools = self._tools
        client = tools.config.authenticator.client_id(self.group.member(leaf).node.credential)
        call = api.Call(link_of(self.line), tools.identity.user.encode())
        envelope = api.EnvelopeContent(api.EnvelopeKind.CALL, call=call)
        suite = int(self.group.context.cipher_suite)
        await post_to(tools, self._user(leaf), suite, envelope, client)


def note_call(tools: Tools, package: Package, call: api.Call, mark: bytes) -> None:
    """Keeps a call that came by the inbox until it is answered; several may call at once, and one answer is enough."""
    answered = {bytes(c.call.box.log_id) for c in tools.vault.calls() if c.answered_at}
    with tools.vault.step() as step:
        if bytes(call.box.log_id) not in answered:
            step.save_call(StoredCall(call))
        if not package.last_resort:
            step.remove_package(package.reference)
        step.note_taken(mark, tools.clock())


async def answer_calls(tools: Tools, conversations: Iterable[Conversation]) -> None:
    """Asks to be added again where somebody called from a group in which this device does not take part.

    Who called proves nothing, and learns nothing but that: whether the request is answered is for members to say.
    """
    calls, now = tools.vault.calls(), tools.clock()
    if not calls:
        return
    settled = _settled(tools, conversations)
    for stored in calls:
        log_id = bytes(stored.call.box.log_id)
        over = stored.answered_at and now - stored.answered_at >= ASK_AGAIN
        if log_id in settled or over:
            with tools.vault.step() as step:
                step.forget_call(log_id)
        elif not stored.answered_at:
            try:
                await _answer(tools, stored.call)
            except Refused:
                tools.count("calls in vain")
            except ServiceError:
                return
            except CoterieError:
                tools.count("calls that are none")
            with tools.vault.step() as step:
                step.save_call(stored.replace(answered_at=now))


def _settled(tools: Tools, conversations: Iterable[Conversation]) -> set[bytes]:
    """The logs of groups in which this device is, or to which only its user may bring it back."""
    found = tools.vault.left_logs()
    for conversation in conversations:
        if tools.vault.status(conversation.id) in {"active", "moving", "stopped"}:
            found.add(bytes(conversation.line.binding.log_id))
        origin = tools.vault.origin(conversation.id)
        if origin is not None:
            found.add(bytes(origin.log_id))
    return found


async def _answer(tools: Tools, call: api.Call) -> None:
    """One request, into the box that the call names, or where that is gone to who called."""
    identity, stored, link = tools.identity, tools.identity.stored, call.box
    if int(link.cipher_suite) not in identity.suites:
        tools.count("calls that are none")
        return
    package = identity.new_package(tools.clock(), int(link.cipher_suite))
    ticket = secrets.token_bytes(32)
    with tools.vault.step() as step:
        step.add_package(package)
    ticket_hashes = (api.sha256(ticket),)
    await tools.inboxes.mint_tickets(
        api.MintTickets(stored.inbox_id, bytes(stored.inbox_token), ticket_hashes)
    )
    content = request_to_return(link.log_id, package, ticket, None, now=tools.clock())
    try:
        await tools.delivery.post_request(post_into(link, content))
    except Refused:
        envelope = api.EnvelopeContent(api.EnvelopeKind.REQUEST, request=content)
        user = call.user.decode(errors="replace")
        await post_to(tools, user, int(link.cipher_suite), envelope)
