"""The commands about other people: whom to see nothing of, and what they learn of what was read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from coterie.apps.answering import JsonOption, answer, out, say
from coterie.apps.profile import opened, run
from coterie.apps.showing import clock, person, visible
from coterie.apps.terminal import ProfileOption, UserArgument

app = typer.Typer(no_args_is_help=True)
PANEL = "People"


@app.command(rich_help_panel=PANEL)
def block(user: UserArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Show nothing more of a user: no texts, invitations or requests. They are not told.

    A group that they add you to does not appear here; there you stand as a member who has not come yet.

    Example: coterie block mallory
    """

    async def task() -> None:
        async with opened(profile) as client:
            client.block(user)
            name = client.identity.full_name(user)
            kept = "what they write is kept: coterie unblock shows it"
            words = f"blocked {escape(visible(user))}; {kept}"
            answer({"user": name, "blocked": True}, words, as_json=as_json)

    run(task())


@app.command(rich_help_panel=PANEL)
def unblock(user: UserArgument, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Show what a user writes again, and what they wrote meanwhile."""

    async def task() -> None:
        async with opened(profile) as client:
            client.unblock(user)
            name = client.identity.full_name(user)
            words = f"not blocked any more: {escape(visible(user))}"
            answer({"user": name, "blocked": False}, words, as_json=as_json)

    run(task())


@app.command(rich_help_panel=PANEL)
def blocked(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List the users whom you have blocked."""

    async def task() -> None:
        async with opened(profile) as client:
            found = client.blocked()
            if as_json:
                answer([{"user": u, "since": at} for u, at in found.items()], as_json=True)
                return
            if not found:
                say("nobody is blocked")
                return
            realm = client.identity.stored.realm.decode()
            table = Table("user", "since", box=None)
            for user, at in found.items():
                table.add_row(escape(person(user, realm)), clock(at))
            out().print(table)

    run(task())


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@app.command(rich_help_panel=PANEL)
def receipts(
    switch: Annotated[Switch | None, typer.Argument(help="On, or off; none: show.")] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether others are told what you have read, in groups whose rules want that.

    Example: coterie receipts off
    """

    async def task() -> None:
        async with opened(profile) as client:
            if switch is not None:
                client.tells_seen = switch == Switch.ON
            words = "nobody is told what you have read"
            if client.tells_seen:
                words = "others are told what you have read, in groups whose rules want that"
            answer({"tells_seen": client.tells_seen}, words, as_json=as_json)

    run(task())
