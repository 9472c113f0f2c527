"""`coterie`, the command: mounts everybody's commands and turns errors into one line that says what to do.

Exit codes: 0 done, 1 an error that the line explains, 2 wrong usage, 75 a service is away and trying later helps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Final

import typer

from coterie import __version__
from coterie.apps import answering, inspect, interop, operator, vectors
from coterie.apps.answering import installing
from coterie.errors import CoterieError, UnsupportedError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="End-to-end encrypted group messaging.",
)
OF_PEOPLE: Final = ("user", "groups", "successions", "people", "demo")
"""The modules whose commands need what the extra `client` installs; an operator's machine may do without."""
NAMES_OF_PEOPLE: Final = (
    *("login", "send", "read", "tail", "devices", "search", "export", "import", "logout", "doctor"),
    *("link-device", "revoke-device", "chat"),
    *("new", "add", "remove", "rename", "renew-keys", "leave", "groups", "members"),
    *("make-admin", "unmake-admin", "rules", "link", "join", "requests", "accept", "refuse"),
    *("move", "reform", "invitations", "follow", "decline"),
    *("block", "unblock", "blocked", "receipts", "demo"),
)


def _mount(to: typer.Typer) -> None:
    """Mounts everybody's commands; those of people, where something that they need is missing, say what to install."""
    found = []
    try:
        found = [import_module(f"coterie.apps.{name}") for name in OF_PEOPLE]
    except ModuleNotFoundError as error:
        if (error.name or "coterie").startswith("coterie"):
            raise
        for name in NAMES_OF_PEOPLE:
            to.command(name, hidden=True, context_settings=_ANYTHING)(_lacking(name, error.name))
    for module in (*found[:-1], operator, *found[-1:], vectors, inspect):
        to.add_typer(module.app)
    to.add_typer(interop.app, name="interop", rich_help_panel="Trying and checking")


_ANYTHING: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


def _lacking(name: str, module: str | None) -> Callable[[], None]:
    def say_so() -> None:
        msg = f"coterie {name} needs {module}; {installing('client,serve')}"
        raise UnsupportedError(msg)

    return say_so


_mount(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coterie {__version__}")
        raise typer.Exit


@app.callback()
def common(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """End-to-end encrypted group messaging."""


def main() -> None:
    """Runs the command line; every `CoterieError` becomes one line on standard error and an exit code."""
    answering.begin()
    try:
        app(prog_name="coterie")
    except CoterieError as error:
        sys.exit(answering.complain(error))
    except KeyboardInterrupt:
        # Before a command runs: nothing has been done.
        sys.exit(answering.EXIT_INTERRUPTED)
