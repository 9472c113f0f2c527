"""What `coterie chat` reads and says while it runs.

At a terminal lines are edited with prompt_toolkit, which puts what arrives above what is half typed (decision 0194).
From anywhere else they are read by a thread that nobody waits for. Either way an interrupt ends the chat at once, and
not with the next line.
"""

from __future__ import annotations

import asyncio
import codecs
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    ExitStack,
    asynccontextmanager,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO, cast

import typer
from rich.markup import escape

from coterie.apps.answering import EXIT_INTERRUPTED, installing, note, tell
from coterie.apps.showing import visible
from coterie.client import Client, GroupHandle
from coterie.errors import UnsupportedError

if TYPE_CHECKING:
    from prompt_toolkit.output import Output

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


@asynccontextmanager
async def typing() -> AsyncIterator[AsyncIterator[str]]:
    """The lines that are typed, or piped in; inside, what is printed does not break into a half-typed one."""
    if _can_redraw():
        async with _edited_lines() as lines:
            yield lines
    else:
        yield typed_lines()


def _can_redraw() -> bool:
    """Whether somebody types at a terminal that can move its cursor."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    if find_spec("prompt_toolkit") is None:
        msg = f"coterie chat needs prompt_toolkit at a terminal; {installing('client')}"
        raise UnsupportedError(msg)
    from prompt_toolkit.utils import is_dumb_terminal

    return not is_dumb_terminal()


@asynccontextmanager
async def _edited_lines() -> AsyncIterator[AsyncIterator[str]]:
    """Lines as they are edited at the terminal, by a task of its own: typing goes on while one is sent."""
    from prompt_toolkit import PromptSession

    session = PromptSession[str]("> ", output=_output(), enable_suspend=True)
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    chat, interrupted = asyncio.current_task(), False

    async def edit() -> None:
        nonlocal interrupted
        try:
            with suppress(EOFError):
                while True:
                    lines.put_nowait(await session.prompt_async(handle_sigint=False))
        except KeyboardInterrupt:
            # A key here: the terminal sends no signal while a line is edited. What is being sent does not hold it up.
            interrupted = True
            if chat is not None:
                chat.cancel()
        finally:
            lines.put_nowait(None)

    with _printing_above():
        editing = asyncio.create_task(edit())
        try:
            yield _until_none(lines)
            await editing
        except asyncio.CancelledError:
            if interrupted:
                raise typer.Exit(EXIT_INTERRUPTED) from None
            raise
        finally:
            editing.cancel()
            await asyncio.gather(editing, return_exceptions=True)


def _output() -> Output:
    from prompt_toolkit.application import get_app_session
    from prompt_toolkit.output.vt100 import Vt100_Output

    output = get_app_session().output
    if isinstance(output, Vt100_Output):
        # Where the cursor is matters to menus only. Not every terminal answers, and an answer that comes when the chat
        # has ended would be typed into the shell.
        output.enable_cpr = False
    return output


@contextmanager
def _printing_above() -> Iterator[None]:
    """Puts what is printed above the line that is edited; what goes to a file, as errors may, still does."""
    from prompt_toolkit.patch_stdout import StdoutProxy

    with ExitStack() as stack:
        # Raw: what others wrote was made visible before, and colours are the console's business.
        proxy = cast("TextIO", stack.enter_context(StdoutProxy(raw=True)))
        stack.enter_context(redirect_stdout(proxy))
        if sys.stderr.isatty():
            stack.enter_context(redirect_stderr(proxy))
        yield


async def _until_none(lines: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    while (line := await lines.get()) is not None:
        yield line


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input as they come, until it ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        # The loop may be closed by the time that something is typed.
        with suppress(RuntimeError):
            for line in _read():
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, name="typed lines", daemon=True).start()
    async for line in _until_none(lines):
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
