"""What the commands of a person share: options, saying things, catching up, events as lines for a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from coterie.apps.answering import answer, is_watched, note, tell
from coterie.apps.profile import opened, run
from coterie.apps.showing import clock, person, visible
from coterie.client import Client, GroupHandle
from coterie.client.events import (
    Event,
    Invited,
    Joined,
    Joining,
    JoinRequested,
    MembersAdded,
    MembersRemoved,
    MembersReturned,
    MembersRevoked,
    MessageReceived,
    Missed,
    Moved,
    Moving,
    Problem,
    RemovedFromGroup,
    Renamed,
    RulesChanged,
)
from coterie.client.rules import differences
from coterie.errors import ServiceError

ProfileOption = Annotated[
    Path | None,
    typer.Option("--profile", "-p", help="The profile's directory.", envvar="COTERIE_PROFILE"),
]
_LONG = 0.4
"""Seconds after which something takes long."""
GroupArgument = Annotated[str, typer.Argument(help="The group's name, or the beginning of its id.")]
UserArgument = Annotated[str, typer.Argument(help="A user, with or without the realm.")]
UsersArgument = Annotated[list[str], typer.Argument(help="Users, with or without the realm.")]


async def go_online(client: Client) -> tuple[bool, list[Event]]:
    """Syncs, and shows how far it is where that takes long; whether the service could be reached, and what happened."""
    told: list[Event] = []
    showing = asyncio.create_task(_show_progress(client, told)) if is_watched() else None
    online = True
    try:
        await client.sync()
    except ServiceError as error:
        online = False
        reason = str(error)
    finally:
        if showing is not None:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
    if not online:
        note("offline", reason)
    return online, told + client.pending_events()


async def _show_progress(client: Client, told: list[Event]) -> None:
    """A bar for a large group that is downloaded, and a count of what arrives; `told` gets the events."""
    await asyncio.sleep(_LONG)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("catching up", total=None)
        while True:
            told += client.pending_events()
            texts = sum(isinstance(event, MessageReceived) for event in told)
            progress.update(bar, completed=texts, description="catching up")
            for event in (event for event in told if isinstance(event, Joining)):
                name = escape(visible(event.name))
                what = f"getting the members of {name}"
                progress.update(bar, completed=event.done, total=event.known, description=what)
            await asyncio.sleep(_LONG)


async def catch_up(client: Client) -> bool:
    """Syncs, and tells what happened meanwhile; whether the service could be reached.

    Events are told once, so they are told by the command that finds them out, beside its answer. Texts stay unread.
    """
    online, told = await go_online(client)
    for event in told:
        line = "" if isinstance(event, MessageReceived | Joining) else describe(event, client)
        if line:
            tell({"event": type(event).__name__, **asdict(event)}, line)
    return online


def change(
    group: str,
    profile: Path | None,
    as_json: bool,
    act: Callable[[GroupHandle], Awaitable[None]],
    done: str | Callable[[GroupHandle], str],
) -> None:
    """Carries out a command that changes a group, and says that it is done; `done` may depend on what came of it."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            await act(handle)
            words = done if isinstance(done, str) else done(handle)
            report(client, handle, words, as_json=as_json)

    run(task())


def check(client: Client) -> None:
    """Says what could not be done, if anything; the command ends then, with exit code 1."""
    problems = [event for event in client.pending_events() if isinstance(event, Problem)]
    for event in problems:
        facts = {"error": event.what, "kind": "Problem", "what_to_do": event.what_to_do}
        tell({**facts, "group": event.conversation}, describe(event, client))
    if problems:
        raise typer.Exit(1)


def report(client: Client, group: GroupHandle, done: str, *, as_json: bool) -> None:
    """Says that it is done, or stored, or why it cannot be; exit code 1 then."""
    check(client)
    left = group.waiting()
    later = f"[yellow]stored, not done yet:[/] {done} ({left} waiting for the service)"
    words = later if left else done
    facts = {"id": group.id, "name": group.name, "status": group.status, "waiting": left}
    answer(facts, words, as_json=as_json)


def describe(event: Event, client: Client) -> str:
    """One line for a person, as rich markup; empty where there is nothing to say."""
    realm = client.identity.stored.realm.decode()
    if isinstance(event, Joining):
        # This device is not in the group yet, and has no name for it.
        head = f"[cyan]{escape(visible(event.name))}[/]"
        return f"{head} [dim]{event.done} of {event.known} parts of the group are here[/]"
    name = client.vault.name(event.conversation) if event.conversation else ""
    if isinstance(event, RemovedFromGroup) and event.by == client.user:
        return f"[cyan]{escape(visible(name))}[/] [dim]you left[/]"
    told = _about_members, _about_this_device, _about_the_next_group
    line = next(filter(None, (about(event, realm) for about in told)), "")
    return f"[cyan]{escape(visible(name))}[/] {line}" if line else ""


def _who(realm: str, *users: str) -> str:
    return escape(", ".join(person(user, realm) for user in users))


def _why(reason: str) -> str:
    """Why somebody's client did a thing by itself, in brackets."""
    reasons = {
        "idle": " (away for longer than the group allows)",
        "revoked": " (the certificate was revoked)",
        "silent": " (never appeared)",
        "declined": " (declined to come)",
    }
    return reasons.get(reason, "")


def _about_members(event: Event, realm: str) -> str:
    """What somebody did to the group."""
    match event:
        case MembersAdded() if event.users == (event.by,):
            did = f"{_who(realm, event.by)} added another own device"
        case MembersAdded():
            others = _who(realm, *(user for user in event.users if user != event.by))
            own = " and another own device" if event.by in event.users else ""
            did = f"{_who(realm, event.by)} added {others}{own}"
        case MembersRemoved() if event.users == (event.by,) and not event.why:
            did = f"{_who(realm, event.by)} left"
        case MembersRemoved():
            did = f"{_who(realm, event.by)} removed {_who(realm, *event.users)}{_why(event.why)}"
        case MembersReturned():
            did = f"{_who(realm, event.by)} added {_who(realm, *event.users)} anew{_why(event.why)}"
        case MembersRevoked():
            did = f"a device of {_who(realm, *event.users)} was revoked and is still in the group"
        case Renamed():
            did = f"{_who(realm, event.by)} renamed the group: {escape(visible(event.name))}"
        case RulesChanged():
            said = [f"made {_who(realm, user)} administrator" for user in event.admins_added]
            said += [f"made {_who(realm, user)} a simple member" for user in event.admins_removed]
            rules = differences(event.before, event.rules)
            said += [f"changed the rules: {'; '.join(rules)}"] if rules else []
            did = f"{_who(realm, event.by)} {'; '.join(said)}"
        case _:
            return ""
    return f"[dim]{did}[/]"


def _about_the_next_group(event: Event, realm: str) -> str:
    """How a group that goes on as another one does so."""
    match event:
        case Moving():
            who = _who(realm, event.by)
            return f"[dim]{who} is moving the group; what you write goes out there[/]"
        case Moved():
            return "[green]the group goes on as a new one, and you are in it[/]"
        case Invited():
            left = f" without {_who(realm, *event.missing)}" if event.missing else ""
            ask = "coterie follow, or coterie decline"
            return f"[yellow]{_who(realm, event.by)} re-formed the group{left}[/]: {ask}"
        case _:
            return ""


def _about_this_device(event: Event, realm: str) -> str:
    """What this device received, and how it stands."""
    line = ""
    match event:
        case MessageReceived():
            text = escape(visible(event.text, lines=True))
            who = _who(realm, event.sender)
            line = f"[dim]{clock(event.sent_at)}[/] [bold]{who}[/]: {text}"
        case JoinRequested():
            note = f": {escape(visible(event.note))}" if event.note else ""
            line = f"[green]{_who(realm, event.user)} asks to come in{note}[/]"
        case Joined():
            line = "[green]you are in this group now[/]"
        case RemovedFromGroup():
            what = f"{_who(realm, event.by)} removed you{_why(event.why)}"
            line = f"[red]{what}: you read nothing that comes now[/]"
        case Missed():
            line = f"[yellow]{event.count} entries were dropped before you read them[/]"
        case Problem():
            advice = f" — {escape(event.what_to_do)}" if event.what_to_do else ""
            line = f"[yellow]{escape(visible(event.what))}[/]{advice}"
    return line
