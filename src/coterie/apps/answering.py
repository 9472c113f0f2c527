"""How commands answer: in words to people, in JSON to scripts that give `--json`.

With `--json` standard output has the answer and nothing else. What goes wrong, and what is to be known besides, are
objects on standard error, one a line (docs/command-line.md).
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from coterie.apps.showing import visible
from coterie.errors import CoterieError, ServiceError

EXIT_ERROR = 1
EXIT_LATER = 75
EXIT_INTERRUPTED = 130

_for_scripts: ContextVar[bool] = ContextVar("for_scripts", default=False)
"""Whether the command that runs was given `--json`; for what is said where its arguments are out of sight."""


def begin() -> None:
    """A command begins, and nothing is known of how it is to answer."""
    _for_scripts.set(False)


def _remember(wanted: bool) -> bool:
    _for_scripts.set(wanted)
    return wanted


JsonOption = Annotated[
    bool, typer.Option("--json", help="Answer in JSON, errors too.", callback=_remember)
]


def out() -> Console:
    """Standard output for people."""
    return Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints a line of rich markup; what comes from others is escaped by the caller."""
    out().print(text)


def answer(value: object, words: str = "", *, as_json: bool) -> None:
    """What a command has to say: `value` for scripts, `words`, as rich markup, for people."""
    if as_json:
        typer.echo(json.dumps(value))
    elif words:
        say(words)


def installing(extra: str) -> str:
    """How what an extra has is installed, as the end of a sentence: from a package, or from the source."""
    return (
        f"install it with: pip install 'coterie[{extra}]', in a checkout: pip install '.[{extra}]'"
    )


def counted(number: int, what: str) -> str:
    """A number of things, as `1 text`, `2 texts`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def tell(facts: dict[str, object], words: str) -> None:
    """Says something on standard error: `facts` to scripts, `words`, as rich markup, to people."""
    if _for_scripts.get():
        typer.echo(json.dumps(facts), err=True)
    else:
        Console(stderr=True, highlight=False).print(words, soft_wrap=True)


def note(head: str, text: str) -> None:
    """What is to be known besides, and is no error, as `offline: …`; `text` may be from others."""
    tell({"note": f"{head}: {text}"}, f"[yellow]{head}:[/] {escape(visible(text))}")


def complain(error: CoterieError) -> int:
    """Says what went wrong; the command is to end with the exit code that is returned."""
    later = error.retry_after if isinstance(error, ServiceError) else None
    facts = {"error": str(error), "kind": type(error).__name__, "rule": error.rule}
    # What a peer or a service wrote may stand in a message: nothing that acts reaches the terminal.
    rule = f" [dim]{escape(f'[{error.rule}]')}[/]" if error.rule else ""
    words = f"[bold red]error:[/] {escape(visible(str(error.args[0])))}{rule}"
    tell({**facts, "retry_after": later}, words)
    return EXIT_ERROR if later is None else EXIT_LATER


def is_watched() -> bool:
    """Whether a person watches standard error: what moves there is for nobody else."""
    return sys.stderr.isatty() and not _for_scripts.get()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows a person that something is going on."""
    if not is_watched():
        yield
        return
    with Console(stderr=True, highlight=False).status(escape(what)):
        yield


def ask(what: str, *, hidden: bool = False, twice: bool = False) -> str:
    """Asks the person at the terminal, on standard error: what a command prints may be going to a file.

    Who interrupts, or ends the input, ends the command.
    """
    try:
        with _interrupts_at_once():
            return str(typer.prompt(what, hide_input=hidden, confirmation_prompt=twice, err=True))
    except typer.Abort:
        typer.echo(err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _interrupts_at_once() -> Iterator[None]:
    """Ends a question when it is interrupted: an event loop would wait until it is answered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
