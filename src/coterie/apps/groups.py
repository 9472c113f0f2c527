"""The commands about groups: who is in them, who may do what."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from coterie.apps.profile import opened, run
from coterie.apps.showing import clock, person, visible
from coterie.apps.terminal import (
    GroupArgument,
    JsonOption,
    ProfileOption,
    UsersArgument,
    catch_up,
    out,
    report,
    say,
)
from coterie.client.content import DAY
from coterie.client.rules import explained

app = typer.Typer(no_args_is_help=True)
PANEL, LINKS = "Groups", "Links to groups"


@app.command(rich_help_panel=PANEL)
def new(
    name: Annotated[str, typer.Argument(help="The group's name, which its members see.")],
    users: Annotated[list[str] | None, typer.Argument(help="Users to add at once.")] = None,
    profile: ProfileOption = None,
) -> None:
    """Make a group, of which you are the administrator.

    Example: coterie new Friends bob carol
    """

    async def task() -> None:
        async with opened(profile) as client:
            group = await client.create_group(name)
            if users:
                await group.add(*users)
            report(client, group, f"made [bold]{escape(visible(name))}[/] ({group.id[:12]})")

    run(task())


@app.command(rich_help_panel=PANEL)
def add(group: GroupArgument, users: UsersArgument, profile: ProfileOption = None) -> None:
    """Add users, with all their devices, to a group."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.add(*users)
            report(client, handle, f"added {escape(visible(', '.join(users)))}")

    run(task())


@app.command(rich_help_panel=PANEL)
def remove(group: GroupArgument, users: UsersArgument, profile: ProfileOption = None) -> None:
    """Remove users, with all their devices, from a group."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.remove(*users)
            report(client, handle, f"removed {escape(visible(', '.join(users)))}")

    run(task())


@app.command(rich_help_panel=PANEL)
def rename(group: GroupArgument, name: str, profile: ProfileOption = None) -> None:
    """Give a group another name, which all members see."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.rename(name)
            report(client, handle, f"the group is called [bold]{escape(visible(name))}[/]")

    run(task())


@app.command("renew-keys", rich_help_panel=PANEL)
def renew_keys(group: GroupArgument, profile: ProfileOption = None) -> None:
    """Replace this device's keys in a group: who had a copy of the old ones is locked out."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.renew_keys()
            report(client, handle, "renewed")

    run(task())


@app.command(rich_help_panel=PANEL)
def leave(group: GroupArgument, profile: ProfileOption = None) -> None:
    """Leave a group: the others remove this device with their next Commit."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.leave()
            report(client, handle, "asked to be removed")

    run(task())


@app.command(rich_help_panel=PANEL)
def groups(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List the groups that this device is or was in."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            asked = client.asked()
            rows = [(g.name, g.id, g.status, len(g.members()) if g.status == "active" else 0)
                    for g in client.groups()]  # fmt: skip
            if as_json:
                keys = ("name", "id", "status", "users")
                typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
                return
            table = Table("group", "id", "status", "users", box=None)
            for name, group_id, status, count in rows:
                table.add_row(
                    escape(visible(name)), group_id[:12], status, str(count) if count else ""
                )
            out().print(table)
            for when in asked:
                say(f" [dim]asked at {clock(when)} by a link to come in; no answer yet[/]")

    run(task())


@app.command(rich_help_panel=PANEL)
def members(
    group: GroupArgument, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """List the users of a group, and how many devices each has in it."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            admins = set(handle.admins())
            found, revoked = handle.members(), handle.revoked()
            if as_json:
                typer.echo(
                    json.dumps(
                        [
                            {
                                "user": user,
                                "devices": count,
                                "admin": user in admins,
                                "revoked": user in revoked,
                            }
                            for user, count in found.items()
                        ]
                    )
                )
                return
            realm = client.identity.stored.realm.decode()
            table = Table("user", "devices", "", box=None)
            for user, count in found.items():
                roles = ["administrator"] if user in admins else []
                roles += ["a device is revoked"] if user in revoked else []
                roles += ["blocked by you"] if user in client.blocked() else []
                table.add_row(escape(person(user, realm)), str(count), ", ".join(roles))
            out().print(table)
            rules = explained(handle.rules())
            for name in ("may_add", "may_remove"):
                out().print(f" [dim]{rules[name]}[/]")

    run(task())


@app.command("make-admin", rich_help_panel=PANEL)
def make_admin(group: GroupArgument, users: UsersArgument, profile: ProfileOption = None) -> None:
    """Make members administrators, who may change the rules.

    Example: coterie make-admin Friends bob
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.make_admin(*users)
            report(client, handle, f"administrator now: {escape(visible(', '.join(users)))}")

    run(task())


@app.command("unmake-admin", rich_help_panel=PANEL)
def unmake_admin(group: GroupArgument, users: UsersArgument, profile: ProfileOption = None) -> None:
    """Make administrators simple members again.

    Example: coterie unmake-admin Friends bob
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.unmake_admin(*users)
            report(client, handle, f"a simple member now: {escape(visible(', '.join(users)))}")

    run(task())


@app.command(rich_help_panel=PANEL)
def rules(
    group: GroupArgument,
    changes: Annotated[
        list[str] | None, typer.Argument(help="NAME=VALUE, to change (administrators).")
    ] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the rules of a group, or change them.

    add, remove, rename = admins or members: who may.
    links = off, ask or open: who has a link may do nothing, ask, or come in at once.
    receipts = on or off: whether members say which texts they have shown.
    replace-after = DAYS (0: never) until somebody who was added and never appeared is added anew.
    evict-after = DAYS (0: never) away until a device is removed.

    Example: coterie rules Friends add=members links=ask
    """
    wanted = dict(map(_rule, changes or ()))

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            if wanted:
                await handle.change_rules(**wanted)
                report(client, handle, "" if as_json else "changed")
            found = handle.rules()
            if as_json:
                typer.echo(json.dumps({**asdict(found), "admins": handle.admins()}))
                return
            realm = client.identity.stored.realm.decode()
            who = ", ".join(person(user, realm) for user in handle.admins())
            say(f"administrators: {escape(who)}")
            for sentence in explained(found).values():
                say(f"- {sentence}")

    run(task())


_RULES = {"add": "may_add", "remove": "may_remove", "rename": "may_rename"}


def _rule(change: str) -> tuple[str, str | bool | int]:
    """A rule's name and new value from `NAME=VALUE`."""
    word, _, value = change.partition("=")
    name = _RULES.get(word, word.replace("-", "_"))
    if name in {"replace_after", "evict_after"} and value.isdecimal():
        return name, int(value) * DAY
    if name == "receipts" and value in {"on", "off"}:
        return name, value == "on"
    return name, value


@app.command(rich_help_panel=LINKS)
def link(
    group: GroupArgument,
    *,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Make all links until now worthless first.")
    ] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a text with which others can ask to come into a group (its rules must allow links).

    Example: coterie link Friends
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            if revoke:
                await handle.revoke_links()
                report(client, handle, "" if as_json else "links made until now are worthless")
            text = handle.link()
            typer.echo(json.dumps({"link": text}) if as_json else text)

    run(task())


@app.command(rich_help_panel=LINKS)
def join(
    link: Annotated[str, typer.Argument(help="The link that a member gave you.")],
    note: Annotated[str, typer.Option(help="What those who decide read.")] = "",
    profile: ProfileOption = None,
) -> None:
    """Ask to come into the group of a link.

    Example: coterie join coterie1_… --note "Carol, from work"
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            await client.join(link, note)
            say("asked; `coterie tail -f` tells when you are let in")

    run(task())


@app.command(rich_help_panel=LINKS)
def requests(
    group: GroupArgument, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """List who asks to come into a group."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            found = client.group(group).requests()
            if as_json:
                typer.echo(json.dumps([asdict(request) for request in found]))
                return
            if not found:
                say("nobody asks")
                return
            realm = client.identity.stored.realm.decode()
            table = Table("user", "asked", "devices", "note", box=None)
            for request in found:
                user, note = person(request.user, realm), visible(request.note)
                when = clock(request.asked_at)
                table.add_row(escape(user), when, str(request.devices), escape(note))
            out().print(table)

    run(task())


@app.command(rich_help_panel=LINKS)
def accept(group: GroupArgument, users: UsersArgument, profile: ProfileOption = None) -> None:
    """Let users into a group who ask.

    Example: coterie accept Friends carol
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await handle.accept(*users)
            report(client, handle, f"let in {escape(visible(', '.join(users)))}")

    run(task())


@app.command(rich_help_panel=LINKS)
def refuse(group: GroupArgument, users: UsersArgument, profile: ProfileOption = None) -> None:
    """Forget that users ask to come in; they are not told. Other members still see it."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            client.group(group).refuse(*users)
            say(f"refused {escape(visible(', '.join(users)))}")

    run(task())
