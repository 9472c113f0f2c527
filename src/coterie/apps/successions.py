"""The commands for a group that goes on as another one: moved on purpose, or replaced because it is jammed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from coterie.apps.answering import JsonOption, answer, say
from coterie.apps.profile import opened, run
from coterie.apps.showing import person, visible
from coterie.apps.terminal import GroupArgument, ProfileOption, catch_up, report
from coterie.client import Client, GroupHandle
from coterie.client.content import DAY

app = typer.Typer(no_args_is_help=True)
PANEL = "Groups"
ByOption = Annotated[
    str | None, typer.Option("--by", help="Whose, where several people re-formed it.")
]


@app.command("move", rich_help_panel=PANEL)
def move(
    group: GroupArgument,
    suite: Annotated[
        int | None, typer.Option("--suite", help="The number of another cipher suite.")
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option("--keep-days", help="For how many days the log keeps entries.")
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a group to another cipher suite or another time of keeping, with members, name and history.

    Everybody's devices follow by themselves. For administrators.

    Example: coterie move Friends --suite 3
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            retention = None if keep_days is None else keep_days * DAY
            await handle.reinitialise(cipher_suite=suite, retention=retention)
            done = "moved" if handle.status == "active" else "it is being moved"
            words = f"{done}; the others follow when they are online"
            report(client, handle, words, as_json=as_json)

    run(task())


@app.command("reform", rich_help_panel=PANEL)
def reform(
    group: GroupArgument,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Who is left out; may be repeated.")
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a group that cannot go on by a new one, without whoever jammed it. Everybody else is asked.

    `coterie doctor` says when this is the thing to do.

    Example: coterie reform Friends --without mallory
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.reform(without=without or [])
            words = "re-formed; the others are asked whether they come"
            report(client, handle, words, as_json=as_json)

    run(task())


@app.command("invitations", rich_help_panel=PANEL)
def invitations(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List the groups that others re-formed, and that wait for your word."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            found = [(g, i) for g in client.groups() for i in g.invitations()]
            if as_json:
                rows = [{"group": g.id, "name": g.name, **asdict(i)} for g, i in found]
                answer(rows, as_json=True)
                return
            realm = client.identity.stored.realm.decode()
            for handle, invitation in found:
                missing = ", ".join(person(user, realm) for user in invitation.missing)
                left = f", without {escape(missing)}" if missing else ""
                who = escape(person(invitation.by, realm))
                say(f"[cyan]{escape(visible(handle.name))}[/] re-formed by {who}{left}")
            if not found:
                say("nobody has re-formed a group of yours")

    run(task())


@app.command("follow", rich_help_panel=PANEL)
def follow(
    group: GroupArgument,
    by: ByOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go to the group that somebody made in the place of this one; the history stays.

    Example: coterie follow Friends
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = _invited(client, group)
            await handle.follow(by)
            report(client, handle, "you are in the new group now", as_json=as_json)

    run(task())


@app.command("decline", rich_help_panel=PANEL)
def decline(
    group: GroupArgument,
    by: ByOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stay out of the group that somebody made in the place of this one. Its members are told."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = _invited(client, group)
            handle.decline(by)
            await catch_up(client)
            report(client, handle, "declined", as_json=as_json)

    run(task())


def _invited(client: Client, name: str) -> GroupHandle:
    """The group of that name that waits for an answer, or the one that the name means otherwise."""
    found = [g for g in client.groups() if g.invitations() and name in {g.name, g.id}]
    return found[0] if len(found) == 1 else client.group(name)
