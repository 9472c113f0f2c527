"""Links: texts that let whoever has one ask to come into a group (docs/delivery-protocol.md, D-BOX-5 and D-BOX-6).

A link carries the address of a box, in which a request can be put that only members open, and nothing that opens an
entry. As text it is `coterie1_`, then the struct and four bytes of its SHA-256 in URL-safe Base64 without padding.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from coterie.client.box import join_request
from coterie.client.content import utf8
from coterie.client.events import Problem
from coterie.client.notes import StoredAsk
from coterie.client.place import UNSURE
from coterie.errors import CoterieError, DecodeError, ServiceError, StateError
from coterie.mls.crypto import suite_of
from coterie.mls.types import CipherSuite
from coterie.transport import api
from coterie.transport.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coterie.client.conversation import Conversation
    from coterie.client.line import Line
    from coterie.client.place import Tools

MAX_NOTE = 500
"""The longest note with a request, in characters."""
ASK_AGAIN = 24 * 3600
"""Seconds after which a request by a link can be repeated."""
ASK_LATER = 60
"""Seconds after which a request is sent again that the service did not take."""
ASK_ENDS = 7 * 24 * 3600
"""Seconds after which a request is forgotten: services keep them no longer (D-BOX-3)."""
_SCHEME = re.compile(r"coterie(\d+)_")
_VERSION = "1"
_CHECK = 4
_OVER = frozenset({api.ErrorCode.GONE, api.ErrorCode.UNKNOWN_EPOCH, api.ErrorCode.BAD_TOKEN})


def link_of(line: Line) -> api.Link:
    """The link to the box of the epoch that a line is in."""
    suite, keys, binding = line.group.suite, line.keys, line.binding
    return api.Link(
        binding.service,
        CipherSuite(suite.cipher_suite),
        binding.log_id,
        line.state.epoch,
        bytes(keys.box_token),
        suite.derive_key_pair(keys.box_seed).public,
    )


def write_link(link: api.Link) -> str:
    """A link as text that survives mail, chats and web addresses."""
    data = link.encode()
    checked = data + api.sha256(data)[:_CHECK]
    return f"coterie{_VERSION}_{base64.urlsafe_b64encode(checked).decode().rstrip('=')}"


def read_link(text: str) -> api.Link:
    """The link in a text; raises `StateError` that says what is wrong with it."""
    bare = "".join(text.split())
    scheme = _SCHEME.match(bare)
    if scheme is None:
        msg = "this is not a link to a group: those begin with coterie1_"
        raise StateError(msg)
    if scheme[1] != _VERSION:
        msg = "this link was made by a newer version of this program; update the program"
        raise StateError(msg)
    body = bare[scheme.end() :]
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        content, check = data[:-_CHECK], data[-_CHECK:]
        if api.sha256(content)[:_CHECK] != check:
            raise DecodeError("the checksum is wrong", rule="D-BOX-5")
        return api.Link.decode(content)
    except (binascii.Error, ValueError, DecodeError):
        msg = "the link is damaged: characters are missing or changed. Ask for it again"
        raise StateError(msg) from None


def check_link(tools: Tools, link: api.Link) -> None:
    """Raises `StateError` where this device cannot use the link."""
    suite = tools.identity.stored.cipher_suite
    if link.cipher_suite != suite:
        msg = f"the group uses cipher suite {int(link.cipher_suite)}, this device {suite}"
        raise StateError(msg)
    try:
        suite_of(suite).hpke.check_public_key(link.box_key)
    except (CoterieError, ValueError) as error:
        msg = "the link is damaged: its key is none. Ask for it again"
        raise StateError(msg) from error


async def ask(
    tools: Tools, conversations: Iterable[Conversation], link: api.Link, note: str
) -> None:
    """Stores the wish to be let into the group of a link, and tries once to send it.

    Raises `StateError` for a link that is of no use, or was used in the last day.
    """
    check_link(tools, link)
    wanted = StoredAsk(link, utf8(note[:MAX_NOTE]), tools.clock())
    for conversation in conversations:
        if conversation.is_active and conversation.line.binding.log_id == link.log_id:
            msg = f"this device is in the group {conversation.name!r} already"
            raise StateError(msg)
    for asked in tools.vault.asks():
        if (asked.link, asked.note) == (wanted.link, wanted.note):
            if tools.clock() - asked.posted_at < ASK_AGAIN:
                msg = "this device has asked already: wait for the answer, or ask again in a day"
                raise StateError(msg)
            wanted = asked.replace(posted_at=0, made_at=tools.clock())
    with tools.vault.step() as step:
        step.save_ask(wanted)
    with suppress(ServiceError):
        await post_ask(tools, wanted)


async def post_asks(tools: Tools) -> None:
    """Sends requests that are not sent yet, and forgets those that nobody keeps any more."""
    for asked in tools.vault.asks():
        if tools.clock() - asked.made_at >= ASK_ENDS:
            forget_ask(tools, asked)
        elif not asked.posted_at and tools.clock() >= tools.not_before.get(asked.link.log_id, 0):
            try:
                await post_ask(tools, asked)
            except StateError as error:
                tools.emit(Problem("", f"a request to be let in failed: {error}"))
            except Refused as refused:
                # A box that others have filled holds up nothing but what was to go into it.
                wait = math.ceil(refused.retry_after or ASK_LATER)
                tools.not_before[asked.link.log_id] = tools.clock() + wait


async def post_ask(tools: Tools, ask: StoredAsk) -> None:
    """Puts a request into the link's box; it is stored before, and marked as posted after.

    Raises `StateError` where the link leads nowhere: the request is forgotten then. Raises `ServiceError` where the
    service is away.
    """
    stored, link = tools.identity.stored, ask.link
    package = tools.identity.new_package(tools.clock())
    ticket = secrets.token_bytes(32)
    before = ask.package
    with tools.vault.step() as step:
        # Packages of earlier attempts stay: one of those may be the request that is answered.
        step.add_package(package)
        step.save_ask(ask := ask.replace(package=package.reference))
    ticket_hashes = (api.sha256(ticket),)
    try:
        await tools.inboxes.mint_tickets(
            api.MintTickets(stored.inbox_id, bytes(stored.inbox_token), ticket_hashes)
        )
        request = join_request(link, package, ticket, ask.note, tools.clock())
        await tools.delivery.post_request(request)
    except Refused as refused:
        if refused.retry_after is not None and refused.code not in _OVER:
            if refused.code not in UNSURE:
                # Nobody has it. Kept, there would be one more each time that the service refuses.
                with tools.vault.step() as step:
                    step.remove_package(package.reference)
                    step.save_ask(ask.replace(package=before))
            raise
        forget_ask(tools, ask)
        raise StateError(_explained(tools, link, refused)) from refused
    with tools.vault.step() as step:
        step.save_ask(ask.replace(posted_at=tools.clock()))


def forget_ask(tools: Tools, ask: StoredAsk) -> None:
    """Gives up a request, with the keys that were made for it."""
    with tools.vault.step() as step:
        step.forget_ask(ask.link.log_id)
        if ask.package:
            step.remove_package(ask.package)


def _explained(tools: Tools, link: api.Link, refused: ServiceError) -> str:
    theirs = link.service.decode(errors="replace")
    if link.service != tools.identity.stored.server:
        own = tools.identity.stored.server.decode()
        return f"the link is for a group on {theirs}; this device is enrolled at {own}"
    if isinstance(refused, Refused) and refused.code in _OVER:
        return "the link has expired, or its group is gone: ask for a new one"
    return f"the service did not take the request: {refused}"
