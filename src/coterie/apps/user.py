"""The commands of a person who chats: log in, make groups, add people, send and read.

What is wanted is stored before it is sent, so every command may be interrupted, and works while the service is away:
it says so, and the next command (or `tail -f`) carries it out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from coterie.apps.answering import JsonOption, answer, ask, counted, out, say, working
from coterie.apps.chatting import following, greet, typing
from coterie.apps.diagnosis import Check, diagnose, not_enrolled
from coterie.apps.profile import DEFAULT_SERVER, forget_key, opened, profile_path, run
from coterie.apps.showing import clock, person, visible
from coterie.apps.terminal import GroupArgument, ProfileOption, catch_up, check, describe, go_online
from coterie.client import Client
from coterie.client.events import Event, MessageReceived
from coterie.errors import StateError
from coterie.storage import Message, MessageState
from coterie.storage.key import key_kind
from coterie.storage.profile import KEY_FILE

app = typer.Typer(no_args_is_help=True)
PassphraseOption = Annotated[
    str | None,
    typer.Option(
        help="The file's passphrase; asked for if not given.", envvar="COTERIE_FILE_PASSPHRASE"
    ),
]
DEVICE, MESSAGES = "This device", "Messages"


@app.command(rich_help_panel=DEVICE)
def login(
    user: Annotated[str, typer.Argument(help="The user name that the operator gave.")],
    code: Annotated[
        str | None, typer.Option(help="The one-time code; asked for if not given.")
    ] = None,
    server: Annotated[
        str, typer.Option(help="The server's address.", envvar="COTERIE_SERVER")
    ] = DEFAULT_SERVER,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make this computer one of a user's devices.

    Example: coterie login alice --code 7KQM2-3F5TA-9XWB4-C8RD1
    """
    given = code or ask("Code")

    async def task() -> None:
        async with opened(profile, server=server) as client:
            await client.enrol(user, given)
            words = f"this device is [bold]{escape(visible(client.user))}[/] now"
            answer(_this_device(client), words, as_json=as_json)

    run(task())


def _this_device(client: Client) -> dict[str, str]:
    return {"user": client.user, "device": client.identity.stored.device.decode()}


@app.command(rich_help_panel=MESSAGES)
def send(
    group: GroupArgument,
    text: Annotated[list[str] | None, typer.Argument(help="The text; - or none: stdin.")] = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send a text to a group. It is kept and sent later where the service is away.

    Example: coterie send Friends "See you at eight"
    """
    words = text or ["-"]
    body = sys.stdin.read().rstrip("\n") if words == ["-"] else " ".join(words)
    if not body.strip():
        msg = "there is nothing to send: the text is empty"
        raise StateError(msg)

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            message_id = await handle.send(body)
            check(client)
            state = "waiting" if handle.waiting() else "sent"
            words = "" if state == "sent" else "stored; it goes out when the service can be reached"
            answer({"id": message_id, "state": state}, words, as_json=as_json)

    run(task())


@app.command(rich_help_panel=MESSAGES)
def read(
    group: GroupArgument,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many texts.")] = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last texts of a group."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            realm = client.identity.stored.realm.decode()
            texts = handle.history(limit)
            for message in texts:
                _show_message(message, realm, as_json=as_json)
            if not texts and not as_json:
                say("nobody has written anything here yet")
            for message in handle.unread()[-1:]:
                handle.mark_read(message)
            await handle.tell_seen()

    run(task())


def _show_message(message: Message, realm: str, *, as_json: bool) -> None:
    if as_json:
        facts = {
            "id": message.message_id.hex(),
            "sender": message.sender,
            "sent_at": message.sent_at // 1000,
            "text": message.text,
            "state": message.state.name.lower(),
            "seen_by": message.seen_by,
        }
        answer(facts, as_json=True)
        return
    marks = {
        MessageState.WAITING: " [yellow](waiting)[/]",
        MessageState.SENT: " [green]✓[/]",
        MessageState.FAILED: " [red](not sent)[/]",
    }
    mark = marks.get(message.state, "")
    if message.seen_by and message.state == MessageState.SENT:
        seen_by = ", ".join(person(user, realm) for user in message.seen_by)
        mark = f" [green]✓ seen by {escape(seen_by)}[/]"
    who = escape(person(message.sender, realm))
    text = escape(visible(message.text, lines=True))
    say(f"[dim]{clock(message.sent_at // 1000)}[/] [bold]{who}[/]: {text}{mark}")


@app.command(rich_help_panel=MESSAGES)
def tail(
    group: Annotated[str | None, typer.Argument(help="One group; all if none.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until stopped.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is new, and with -f what comes, until stopped."""

    async def task() -> None:
        async with opened(profile) as client:
            wanted = client.group(group).id if group else None
            if not follow:
                _, told = await go_online(client)
                _show_news(client, told, wanted, as_json=as_json)
                for handle in client.groups():
                    await handle.tell_seen()
                return
            async for _ in following(client):
                _show_news(client, client.pending_events(), wanted, as_json=as_json)

    run(task())


def _show_news(
    client: Client, happened: Iterable[Event], wanted: str | None, *, as_json: bool
) -> None:
    """What happened, and the texts that were not read yet; they are read now."""
    told = [event for event in happened if not isinstance(event, MessageReceived)]
    _show_events(client, told, wanted, as_json=as_json)
    realm = client.identity.stored.realm.decode()
    for group in client.groups():
        if wanted not in {None, group.id}:
            continue
        for message in group.unread():
            if not as_json and wanted is None:
                out().print(f"[cyan]{escape(visible(group.name))}[/] ", end="")
            _show_message(message, realm, as_json=as_json)
            group.mark_read(message)


def _show_events(
    client: Client, found: Iterable[Event], wanted: str | None, *, as_json: bool
) -> None:
    for event in found:
        if wanted not in {None, event.conversation}:
            continue
        if as_json:
            answer({"event": type(event).__name__, **asdict(event)}, as_json=True)
            continue
        line = describe(event, client)
        if line:
            say(line)


@app.command(rich_help_panel=DEVICE)
def devices(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List your devices that are not revoked."""

    async def task() -> None:
        async with opened(profile) as client:
            found = await client.devices()
            own = client.identity.stored.device.decode()
            if as_json:
                answer([{"device": d, "valid_until": v} for d, v in found], as_json=True)
            else:
                # The whole id, also on a narrow terminal: revoke-device wants it.
                table = Table(Column("device", no_wrap=True), "certificate ends", "", box=None)
                for device, until in found:
                    table.add_row(device, clock(until), "this one" if device == own else "")
                out().print(table)
            # Those that are not in this device's groups yet are added.
            await catch_up(client)

    run(task())


@app.command(rich_help_panel=MESSAGES)
def search(
    words: Annotated[list[str], typer.Argument(help="Words; the last may be a beginning.")],
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find texts in this device's history.

    Example: coterie search night watch
    """

    async def task() -> None:
        async with opened(profile) as client:
            realm = client.identity.stored.realm.decode()
            found = client.search(" ".join(words))
            for message in found:
                _show_message(message, realm, as_json=as_json)
            if not found and not as_json:
                say("nothing found in this device's history")

    run(task())


@app.command("export", rich_help_panel=DEVICE)
def export_history(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    passphrase: PassphraseOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write this device's history to an encrypted file."""
    words = passphrase or ask("Passphrase", hidden=True, twice=True)

    async def task() -> None:
        async with opened(profile) as client:
            with working("writing the history"):
                count = client.export_history(file, words)
            wrote = f"wrote {counted(count, 'text')} to {escape(str(file))}"
            answer({"file": str(file), "texts": count}, wrote, as_json=as_json)

    run(task())


@app.command("import", rich_help_panel=DEVICE)
def import_history(
    file: Annotated[Path, typer.Argument(help="A file that `coterie export` wrote.")],
    passphrase: PassphraseOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the history in an exported file to this device's."""
    words = passphrase or ask("Passphrase", hidden=True)

    async def task() -> None:
        async with opened(profile) as client:
            with working("reading the history"):
                count = client.import_history(file, words)
            answer(
                {"file": str(file), "texts": count},
                f"added {counted(count, 'text')}",
                as_json=as_json,
            )

    run(task())


@app.command(rich_help_panel=DEVICE)
def logout(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Only delete what is here; the device stays in its groups until others remove it.",
        ),
    ] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave every group, revoke this device and delete its profile with all keys and history."""
    if not yes:
        typer.confirm("Delete this device's keys and history for good?", abort=True, err=True)

    async def task() -> dict[str, str]:
        async with opened(profile) as client:
            gone = _this_device(client)
            if offline:
                client.wipe()
            else:
                await client.log_out()
            return gone

    gone = run(task())
    forget_key(profile_path(profile))
    answer(gone, "this device is logged out, and its profile deleted", as_json=as_json)


@app.command(rich_help_panel=DEVICE)
def doctor(
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong and what to do. The report names no user, group or key."""

    async def task() -> list[Check]:
        kind = key_kind(profile_path(profile) / KEY_FILE)
        if kind is None:
            return not_enrolled()
        async with opened(profile) as client:
            online = client.is_enrolled and await catch_up(client)
            return diagnose(client, online=online, key_kind=kind)

    checks = run(task())
    if as_json:
        answer([asdict(found) for found in checks], as_json=True)
    for found in checks if not as_json else ():
        mark = "[green]✓[/]" if found.good else "[yellow]![/]"
        advice = f"\n  → {found.advice}" if found.advice and not found.good else ""
        say(f"{mark} {found.what}{advice}")
    if not all(found.good for found in checks):
        raise typer.Exit(1)


def show_status(profile: Path | None, *, as_json: bool) -> None:
    """How this device stands: whose it is, what is unread, what waits."""

    async def task() -> None:
        async with opened(profile) as client:
            online = await catch_up(client)
            groups = [group for group in client.groups() if group.status != "left"]
            server = client.identity.stored.server.decode()
            unread = sum(len(group.unread()) for group in groups)
            waiting = sum(group.waiting() for group in groups)
            facts = {
                **_this_device(client),
                "server": server,
                "online": online,
                "groups": len(groups),
                "unread": unread,
                "waiting": waiting,
                "not_active": [group.id for group in groups if group.status != "active"],
            }
            there = "online" if online else "offline"
            counts = f"{counted(len(groups), 'group')}, {counted(unread, 'unread text')}"
            words = [
                f"[bold]{escape(visible(client.user))}[/] at {escape(server)}, {there}",
                f"{counts}, {waiting} waiting to be sent",
            ]
            words += [
                f"[yellow]{escape(visible(group.name))} is {group.status}[/]: coterie doctor says what to do"
                for group in groups
                if group.status != "active"
            ]
            answer(facts, "\n".join(words), as_json=as_json)

    run(task())


@app.command("link-device", rich_help_panel=DEVICE)
def link_device(profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Show a one-time code with which a further device of yours logs in."""

    async def task() -> None:
        async with opened(profile) as client:
            code, until = await client.link_code()
            name = client.identity.stored.user.decode()
            words = (
                f"on the other device: [bold]coterie login {escape(name)} --code {code}[/]\n"
                f"valid until {clock(until)}, for one device\n"
                "this one then adds it to your groups: run `coterie devices` here, or leave `tail -f` on"
            )
            facts = {"user": client.user, "code": code, "expires_at": until}
            answer(facts, words, as_json=as_json)

    run(task())


@app.command("revoke-device", rich_help_panel=DEVICE)
def revoke_device(device: str, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Revoke a lost device of yours (see: coterie devices)."""

    async def task() -> None:
        async with opened(profile) as client:
            await client.revoke_device(device)
            words = (
                "revoked; the devices of those who may remove members take it out of your groups"
            )
            answer({"user": client.user, "device": device}, words, as_json=as_json)

    run(task())


@app.command(rich_help_panel=MESSAGES)
def chat(group: GroupArgument, profile: ProfileOption = None) -> None:
    """Chat line by line: what you type is sent, what comes is shown. End with Ctrl-D."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            greet(handle)
            realm = client.identity.stored.realm.decode()
            for message in handle.history(10):
                _show_message(message, realm, as_json=False)
            for message in handle.unread()[-1:]:
                handle.mark_read(message)

            async def show() -> None:
                async for _ in following(client, poll=5):
                    _show_news(client, client.pending_events(), handle.id, as_json=False)

            async with typing() as lines:
                showing = asyncio.create_task(show())
                try:
                    async for line in lines:
                        if line.strip():
                            await handle.send(line)
                finally:
                    showing.cancel()
                    await asyncio.gather(showing, return_exceptions=True)

    run(task())
