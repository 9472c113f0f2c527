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

from coterie.apps.answering import JsonOption, answer, ask, out, say
from coterie.apps.chatting import following, greet, typed_lines
from coterie.apps.diagnosis import diagnose
from coterie.apps.profile import DEFAULT_SERVER, opened, profile_path, run
from coterie.apps.showing import clock, person, visible
from coterie.apps.terminal import GroupArgument, ProfileOption, catch_up, describe
from coterie.client import Client
from coterie.client.events import Event, MessageReceived
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

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            message_id = await handle.send(body)
            state = "waiting" if handle.waiting() else "sent"
            words = "" if state == "sent" else "stored; it goes out when the service can be reached"
            answer({"id": message_id, "state": state}, words, as_json=as_json)

    run(task())


@app.command(rich_help_panel=MESSAGES)
def read(
    group: GroupArgument,
    limit: Annotated[int, typer.Option("-n", help="How many texts.")] = 50,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the last texts of a group."""

    async def task() -> None:
        async with opened(profile) as client:
            await catch_up(client)
            handle = client.group(group)
            realm = client.identity.stored.realm.decode()
            for message in handle.history(limit):
                _show_message(message, realm, as_json=as_json)
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
    marks = {MessageState.WAITING: " [yellow](waiting)[/]", MessageState.SENT: " [green]✓[/]"}
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
                await catch_up(client)
                _show_news(client, wanted, as_json=as_json)
                for handle in client.groups():
                    await handle.tell_seen()
                return
            async for _ in following(client):
                _show_news(client, wanted, as_json=as_json)

    run(task())


def _show_news(client: Client, wanted: str | None, *, as_json: bool) -> None:
    """What happened, and the texts that were not read yet; they are read now."""
    told = [e for e in client.pending_events() if not isinstance(e, MessageReceived)]
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
            for message in client.search(" ".join(words)):
                _show_message(message, realm, as_json=as_json)

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
            count = client.export_history(file, words)
            wrote = f"wrote {count} texts to {escape(str(file))}"
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
            count = client.import_history(file, words)
            answer({"file": str(file), "texts": count}, f"added {count} texts", as_json=as_json)

    run(task())


@app.command(rich_help_panel=DEVICE)
def logout(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Leave every group, revoke this device and delete its profile with all keys and history."""
    if not yes:
        typer.confirm("Delete this device's keys and history for good?", abort=True, err=True)

    async def task() -> dict[str, str]:
        async with opened(profile) as client:
            gone = _this_device(client)
            await client.log_out()
            return gone

    answer(run(task()), "this device is logged out, and its profile deleted", as_json=as_json)


@app.command(rich_help_panel=DEVICE)
def doctor(
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong and what to do. The report names no user, group or key."""

    async def task() -> bool:
        async with opened(profile) as client:
            online = client.is_enrolled and await catch_up(client)
            kind = key_kind(profile_path(profile) / KEY_FILE) or "given"
            checks = diagnose(client, online=online, key_kind=kind)
            if as_json:
                answer([asdict(check) for check in checks], as_json=True)
            for check in checks if not as_json else ():
                mark = "[green]✓[/]" if check.good else "[yellow]![/]"
                advice = f"\n  → {check.advice}" if check.advice and not check.good else ""
                say(f"{mark} {check.what}{advice}")
            return all(check.good for check in checks)

    if not run(task()):
        raise typer.Exit(1)


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
            words = "revoked; remove it from your groups with: coterie remove GROUP and add yourself again"
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
                    _show_news(client, handle.id, as_json=False)

            showing = asyncio.create_task(show())
            try:
                async for line in typed_lines():
                    if line.strip():
                        await handle.send(line)
            finally:
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)

    run(task())
