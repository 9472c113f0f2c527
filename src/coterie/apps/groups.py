"""The commands about groups: who is in them, who may do what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from coterie.apps.answering import JsonOption, answer, note, out, say
from coterie.apps.profile import opened, run
from coterie.apps.showing import clock, named, person, visible
from coterie.apps.terminal import (
    GroupArgument,
    ProfileOption,
    UsersArgument,
    catch_up,
    change,
    check,
    report,
)
from coterie.client import Client, GroupHandle
from coterie.client.content import DAY
from coterie.client.rules import explained
from coterie.errors import StateError

app = typer.Typer(no_args_is_help=True)
PANEL, LINKS = "Groups", "Links to groups"


@app.command(rich_help_panel=PANEL)
def new(
    name: Annotated[str, typer.Argument(help="The group's name, which its members see.")],
    users: Annotated[list[str] | None, typer.Argument(help="Users to add at once.")] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a group, of which you are the administrator.

    Example: coterie new Friends bob carol
    """

    async def task() -> None:
        async with opened(profile) as client:
            if any(g.name == name and g.status == "active" for g in client.groups()):
                note("same name", f"you are in another group that is called {name}, too")
            group = await client.create_group(name)
            made = f"made [bold]{escape(visible(name))}[/] ({group.id[:12]})"
            if users:
                await group.add(*users)
            try:
                report(client, group, made, as_json=as_json)
            except typer.Exit:
                # Whoever tries again with `new` would have two.
                more = f"{name} ({group.id[:12]}); coterie add brings in others"
                note("made all the same", more)
                raise

    run(task())


@app.command(rich_help_panel=PANEL)
def add(
    group: GroupArgument,
    users: UsersArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add users, with all their devices, to a group.

    Example: coterie add Friends bob carol
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            before = handle.members()
            await handle.add(*users)
            check(client)
            names = [client.identity.full_name(user) for user in users]
            after = handle.members()
            there = [name for name in names if before.get(name, 0) == after.get(name)]
            words = f"added {_people(client, [name for name in names if name not in there])}"
            if there and not handle.waiting():
                found = f"in the group already, with all devices: {_people(client, there)}"
                words = found if len(there) == len(names) else f"{words}; {found}"
            report(client, handle, words, as_json=as_json)

    run(task())


@app.command(rich_help_panel=PANEL)
def remove(
    group: GroupArgument,
    users: UsersArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove users, with all their devices, from a group.

    Example: coterie remove Friends mallory
    """

    async def act(handle: GroupHandle) -> None:
        _check_members(handle, users)
        await handle.remove(*users)

    change(group, profile, as_json, act, f"removed {escape(visible(', '.join(users)))}")


def _check_members(handle: GroupHandle, users: list[str]) -> None:
    """Raises `StateError` for a name that nobody in the group has: a slip would be answered like success."""
    if handle.status != "active" or handle.waiting():
        return  # Somebody may be about to come in.
    members = set(handle.members())
    short = {member.partition("@")[0] for member in members}
    for user in users:
        if user not in members | short:
            msg = f"{user} is not in this group; see: coterie members"
            raise StateError(msg)


@app.command(rich_help_panel=PANEL)
def rename(
    group: GroupArgument,
    name: str,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a group another name, which all members see."""
    change(
        group,
        profile,
        as_json,
        lambda handle: handle.rename(name),
        f"the group is called [bold]{escape(visible(name))}[/]",
    )


def _people(client: Client, names: list[str]) -> str:
    realm = client.identity.stored.realm.decode()
    return escape(", ".join(person(name, realm) for name in names))


@app.command("renew-keys", rich_help_panel=PANEL)
def renew_keys(
    group: GroupArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace this device's keys in a group: who had a copy of the old ones is locked out."""
    change(group, profile, as_json, lambda handle: handle.renew_keys(), "renewed")


@app.command(rich_help_panel=PANEL)
def leave(
    group: GroupArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave a group: the first other device that is online takes this one out."""
    change(group, profile, as_json, lambda handle: handle.leave(), _left)


def _left(group: GroupHandle) -> str:
    if group.status == "left":
        return group.why
    return "asked to be removed: the first other device that is online does it"


@app.command(rich_help_panel=PANEL)
def groups(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List the groups that this device is or was in."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            asked = client.asked()
            ordered = sorted(client.groups(), key=lambda g: (g.name.casefold(), g.id))
            rows = [(g.name, g.id, g.status, len(g.members()) if g.status == "active" else 0)
                    for g in ordered]  # fmt: skip
            if as_json:
                keys = ("name", "id", "status", "users")
                answer([dict(zip(keys, row, strict=True)) for row in rows], as_json=True)
                return
            if not rows:
                say("no groups yet: coterie new NAME makes one, and others can add you to theirs")
            table = Table("group", "id", "status", "users", box=None)
            for name, group_id, status, count in rows:
                table.add_row(
                    escape(named(name)), group_id[:12], status, str(count) if count else ""
                )
            if rows:
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
                rows = [
                    {"user": user, "devices": count, "admin": user in admins,
                     "revoked": user in revoked}
                    for user, count in found.items()
                ]  # fmt: skip
                answer(rows, as_json=True)
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
def make_admin(
    group: GroupArgument,
    users: UsersArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make members administrators, who may change the rules.

    Example: coterie make-admin Friends bob
    """
    change(
        group,
        profile,
        as_json,
        lambda handle: handle.make_admin(*users),
        f"administrator now: {escape(visible(', '.join(users)))}",
    )


@app.command("unmake-admin", rich_help_panel=PANEL)
def unmake_admin(
    group: GroupArgument,
    users: UsersArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make administrators simple members again.

    Example: coterie unmake-admin Friends bob
    """
    change(
        group,
        profile,
        as_json,
        lambda handle: handle.unmake_admin(*users),
        f"a simple member now: {escape(visible(', '.join(users)))}",
    )


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
                _say_changed(client, handle, "changed", as_json=as_json)
            found = handle.rules()
            if as_json:
                facts = {**asdict(found), "admins": handle.admins(), "waiting": handle.waiting()}
                answer(facts, as_json=True)
                return
            realm = client.identity.stored.realm.decode()
            who = ", ".join(person(user, realm) for user in handle.admins())
            say(f"administrators: {escape(who)}")
            for sentence in explained(found).values():
                say(f"- {sentence}")

    run(task())


def _say_changed(client: Client, handle: GroupHandle, words: str, *, as_json: bool) -> None:
    """Says of a change that it is done, before what there is then is shown, which is all that scripts are told."""
    if as_json:
        check(client)
    else:
        report(client, handle, words, as_json=False)


_RULES = {"add": "may_add", "remove": "may_remove", "rename": "may_rename"}


def _rule(change: str) -> tuple[str, str | bool | int]:
    """A rule's name and new value from `NAME=VALUE`."""
    word, _, value = change.partition("=")
    known = "add", "remove", "rename", "links", "receipts", "replace-after", "evict-after"
    if word not in known:
        msg = f"there is no rule {word!r}; the rules are {', '.join(known)}: coterie rules --help"
        raise StateError(msg)
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
                words = "links made until now are worthless"
                _say_changed(client, handle, words, as_json=as_json)
            facts = {"link": handle.link(), "waiting": handle.waiting()}
            answer(facts, escape(handle.link()), as_json=as_json)

    run(task())


@app.command(rich_help_panel=LINKS)
def join(
    link: Annotated[str, typer.Argument(help="The link that a member gave you.")],
    note: Annotated[str, typer.Option(help="What those who decide read.")] = "",
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask to come into the group of a link.

    Example: coterie join coterie1_… --note "Carol, from work"
    """

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            await client.join(link, note)
            words = "asked; `coterie tail -f` tells when you are let in"
            answer({"asked_at": max(client.asked())}, words, as_json=as_json)

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
                answer([asdict(request) for request in found], as_json=True)
                return
            if not found:
                say("nobody asks")
                return
            realm = client.identity.stored.realm.decode()
            table = Table("user", "asked", "devices", "note", box=None)
            for request in found:
                user, words = person(request.user, realm), visible(request.note)
                when = clock(request.asked_at)
                table.add_row(escape(user), when, str(request.devices), escape(words))
            out().print(table)

    run(task())


@app.command(rich_help_panel=LINKS)
def accept(
    group: GroupArgument,
    users: UsersArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let users into a group who ask.

    Example: coterie accept Friends carol
    """
    change(
        group,
        profile,
        as_json,
        lambda handle: handle.accept(*users),
        f"let in {escape(visible(', '.join(users)))}",
    )


@app.command(rich_help_panel=LINKS)
def refuse(
    group: GroupArgument,
    users: UsersArgument,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget that users ask to come in; they are not told. Other members still see it."""

    async def act(handle: GroupHandle) -> None:
        handle.refuse(*users)

    change(group, profile, as_json, act, f"refused {escape(visible(', '.join(users)))}")
