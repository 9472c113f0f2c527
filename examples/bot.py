"""A bot that answers in every group it is in, and goes on where it was after a restart.

python examples/bot.py PROFILE http://127.0.0.1:8470 NAME CODE
"""

import asyncio
import sys

from coterie.client import Client
from coterie.storage import StorageKey


async def main(profile: str, server: str, name: str, code: str) -> None:
    key = StorageKey.from_passphrase("the bot's own passphrase")
    async with Client.open(profile, key, server=server) as client:
        if not client.is_enrolled:
            await client.enrol(name, code)
        async for _ in client.changes():
            for group in client.groups():
                for message in group.unread():
                    if message.text.startswith("!echo "):
                        await group.send(message.text.removeprefix("!echo "), answers=message)
                    else:
                        group.mark_read(message)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
