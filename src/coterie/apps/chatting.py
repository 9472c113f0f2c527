"""What `coterie chat` reads and says while it runs.

What is typed is read by a thread that nobody waits for: an interrupt ends the chat at once, and not with the next line.
"""

from __future__ import annotations

import asyncio
import codecs
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from rich.markup import escape

from coterie.apps.answering import note, tell
from coterie.apps.showing import visible
from coterie.client import Client, GroupHandle

_PIECE = 1 << 16


def greet(group: GroupHandle) -> None:
    """Says where what is typed goes, and how to end, to whoever types."""
    if sys.stdin.isatty():
        words = "write a line and press Enter to send it; Ctrl-D ends"
        facts = f"{visible(group.name)}, {len(group.members())} people: {words}"
        tell({"note": facts}, f"[dim]{escape(facts)}[/]")


async def following(client: Client, *, poll: float = 30.0) -> AsyncIterator[None]:
    """As `Client.changes`; says once that the service is away, and once that it is back."""
    away = False
    async for online in client.changes(poll=poll):
        if away == online:
            away = not online
            if away:
                what = "the service is away, or refused something"
                note("offline", f"{what}; what you write is kept, and goes out later")
            else:
                note("online", "the service is back")
        yield


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input, until it ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        # The loop may be closed by the time that something is typed.
        with suppress(RuntimeError):
            for line in _read():
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, name="typed lines", daemon=True).start()
    while (line := await lines.get()) is not None:
        yield line


def _read() -> Iterator[str]:
    """Reads below `sys.stdin`, whose lock a thread that is left behind would hold when the program ends."""
    decoder = codecs.getincrementaldecoder(sys.stdin.encoding or "utf-8")(errors="replace")
    rest = ""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as raw:
        while piece := raw.read(_PIECE):
            *whole, rest = (rest + decoder.decode(piece)).split("\n")
            yield from whole
    if rest:
        yield rest
