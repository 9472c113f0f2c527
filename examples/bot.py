"""A bot that answers in every group it is in, and goes on where it was after a restart.

python examples/bot.py PROFILE http://127.0.0.1:8470 NAME CODE
"""

import asyncio
import logging
import sys
from contextlib import suppress

from coterie.client import Client, GroupHandle
from coterie.errors import CoterieError
from coterie.storage import Message, StorageKey

_LOG = logging.getLogger("bot")
PATIENCE = 30.0
"""Seconds that one answer may take; the bot hears nothing else meanwhile, and loses nothing either."""


async def reply_to(text: str) -> str:
    """What the bot says to a text, empty for nothing: your own work goes here."""
    return text.removeprefix("!echo ") if text.startswith("!echo ") else ""


async def answer(group: GroupHandle, message: Message) -> None:
    """Answers a text. One that cannot be answered counts as read, or it would stop the bot at each start."""
    reply = ""
    try:
        async with asyncio.timeout(PATIENCE):
            reply = await reply_to(message.text)
    except Exception:  # noqa: BLE001 - whatever it is, it must not end the bot
        _LOG.exception("no answer to a text")
    if reply:
        await group.send(reply, answers=message)
    else:
        group.mark_read(message)


async def answer_all(client: Client) -> None:
    """Answers what is unread; a group that the bot was removed from, or waits to come back to, takes no texts."""
    for group in client.groups():
        if group.status == "active":
            for message in group.unread():
                await answer(group, message)


async def main(profile: str, server: str, name: str, code: str) -> None:
    key = StorageKey.from_passphrase("the bot's own passphrase")
    async with Client.open(profile, key, server=server) as client:
        if not client.is_enrolled:
            await client.enrol(name, code)
        async for _ in client.changes():
            await answer_all(client)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    with suppress(KeyboardInterrupt):
        try:
            asyncio.run(main(*sys.argv[1:]))
        except CoterieError as error:
            sys.exit(f"error: {error}")
