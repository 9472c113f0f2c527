"""`coterie`, the command: mounts everybody's commands and turns errors into one line that says what to do.

Exit codes: 0 done, 1 an error that the line explains, 2 wrong usage, 75 a service is away and trying later helps.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coterie import __version__
from coterie.apps import (
    answering,
    demo,
    groups,
    inspect,
    interop,
    operator,
    people,
    successions,
    user,
    vectors,
)
from coterie.errors import CoterieError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="End-to-end encrypted group messaging.",
)
app.add_typer(user.app)
app.add_typer(groups.app)
app.add_typer(successions.app)
app.add_typer(people.app)
app.add_typer(operator.app)
app.add_typer(demo.app)
app.add_typer(vectors.app)
app.add_typer(inspect.app)
app.add_typer(interop.app, name="interop")


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
