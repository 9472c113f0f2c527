"""The operator's commands: serve, users, status, backup and restore. They work on the data directory, not over HTTP.

Each command reads the configuration, does one thing and says what it did. `cli` mounts them beside everybody else's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from coterie.apps.answering import JsonOption, answer, counted, installing, note, out, say, working
from coterie.errors import StateError, UnsupportedError

if TYPE_CHECKING:
    from coterie.apps.config import Config
    from coterie.authentication.ledger import UserRow
    from coterie.authentication.service import AuthenticationService
    from coterie.transport.as_api import LinkCode

PANEL = "Running the services"
app = typer.Typer(no_args_is_help=True)
user_app = typer.Typer(
    no_args_is_help=True, help="Add, list, revoke and delete users, by the operator."
)
app.add_typer(user_app, name="user", rich_help_panel=PANEL)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file.", envvar="COTERIE_CONFIG"),
]
DataOption = Annotated[
    Path | None, typer.Option(help="The data directory instead of the configured one.")
]
NameArgument = Annotated[str, typer.Argument(help="The user's name, without the realm.")]


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [
        name
        for name in ("apsw", "httpx", "platformdirs", "starlette", "uvicorn")
        if find_spec(name) is None
    ]
    if missing:
        msg = f"the services need {', '.join(missing)}; {installing('serve')}"
        raise UnsupportedError(msg)


def _load(path: Path | None, data: Path | None) -> Config:
    _require_extra()
    from coterie.apps.config import default_path, load

    loaded = load(path if path is not None else default_path())
    return loaded if data is None else replace(loaded, data=data)


def _config(path: Path | None, data: Path | None = None) -> Config:
    config = _load(path, data)
    config.check()
    return config


@contextmanager
def _service(path: Path | None, data: Path | None) -> Iterator[AuthenticationService]:
    from coterie.apps.serve import authentication_directory, open_authentication

    config = _config(path, data)
    if "authentication" not in config.services:
        msg = "this machine runs no Authentication Service (services in the configuration)"
        raise StateError(msg)
    os.umask(0o077)
    directory = authentication_directory(config)
    if not directory.exists():
        note("setting up", f"the Authentication Service of {config.realm} in {directory}")
    with closing(open_authentication(config)) as service:
        yield service


@app.command(rich_help_panel=PANEL)
def serve(
    config: ConfigOption = None,
    only: Annotated[
        str | None, typer.Option(help="Run one service only: authentication or delivery.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT instead of the configured one.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Run the Delivery Service and the Authentication Service.

    Example: coterie serve --config /etc/coterie/coterie.toml
    """
    loaded = _load(config, data)
    from coterie.apps.serve import run

    if only is not None:
        loaded = replace(loaded, services=(only,))
    if listen is not None:
        loaded = replace(loaded, listen=listen)
    loaded.check()
    run(loaded)


def _show_code(name: str, realm: str, code: LinkCode, *, as_json: bool) -> None:
    text, until = code.code.decode(), datetime.fromtimestamp(code.expires_at, UTC)
    user = f"{name}@{realm}"
    words = (
        f"user:  {escape(user)}\n"
        f"code:  {text}\n"
        f"valid: until {until:%Y-%m-%d %H:%M} UTC, for one device\n"
        "\nGive the code to the user over a channel that you trust. Whoever has it becomes that user."
    )
    answer({"user": user, "code": text, "expires_at": code.expires_at}, words, as_json=as_json)


@user_app.command("add")
def user_add(
    name: NameArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a user and show the one-time code for the first device.

    Example: coterie user add alice
    """
    with _service(config, data) as service:
        _show_code(name, service.ca.realm, service.add_user(name), as_json=as_json)


@user_app.command("code")
def user_code(
    name: NameArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show another one-time code, for a user who has lost every device."""
    with _service(config, data) as service:
        _show_code(name, service.ca.realm, service.new_code(name), as_json=as_json)


@user_app.command("list")
def user_list(
    config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """List all users: who has yet to use a code, who has how many devices, who is revoked.

    The time says until when the code, or the latest certificate, is valid. Of a deleted user not even the name is kept.

    Example: coterie user list
    """
    with _service(config, data) as service:
        found, deleted = service.users()
    if as_json:
        users = [
            {
                "user": f"{user.name}@{service.ca.realm}",
                "state": user.state,
                "devices": user.devices,
                "valid_until": user.valid_until,
                "code_until": user.code_until,
                "revoked_at": user.revoked_at,
            }
            for user in found
        ]
        answer({"users": users, "deleted": deleted}, as_json=True)
        return
    if found:
        # The whole name, also on a narrow terminal: the other commands want it.
        table = Table(Column("user", no_wrap=True), "state", "devices", "", box=None)
        for user in found:
            state, when = _how_far(user)
            table.add_row(user.name, state, str(user.devices), when)
        out().print(table)
    else:
        say("there are no users: coterie user add")
    if deleted:
        say(f"{counted(deleted, 'user')} deleted")


def _how_far(user: UserRow) -> tuple[str, str]:
    """A user's state for people, and the time that matters in it."""
    match user.state:
        case "enrolled":
            ended = (user.valid_until or 0) < datetime.now(UTC).timestamp()
            state, what, at = "enrolled", "ended" if ended else "until", user.valid_until
        case "code":
            state, what, at = "has a code", "until", user.code_until
        case "revoked":
            state, what, at = "revoked", "withdrawn", user.revoked_at
        case _:
            return "no device", "coterie user code"
    return (
        state,
        "" if at is None else f"{what} {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC",
    )


@user_app.command("devices")
def user_devices(
    name: NameArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a user's devices that are not revoked."""
    with _service(config, data) as service:
        found = service.devices_of(name)
    if as_json:
        answer([{"device": d, "valid_until": until} for d, until in found], as_json=True)
        return
    table = Table(Column("device", no_wrap=True), "certificate ends", box=None)
    for device, until in found:
        table.add_row(device, f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC")
    out().print(table)


@user_app.command("revoke")
def user_revoke(
    name: NameArgument,
    device: Annotated[
        str | None, typer.Option(help="Only this device (see: user devices).")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a user for good, with all devices, or one device.

    Others see it with the next list of the revoked that they fetch. Members of groups are told, and remove the user.
    """
    with _service(config, data) as service:
        service.revoke_user(name, device)
    what = f"device {device} of {name}" if device else f"{name}, with all devices"
    words = (
        f"revoked {escape(what)}; others see it with the next list of the revoked that they fetch"
    )
    answer({"user": f"{name}@{service.ca.realm}", "device": device}, words, as_json=as_json)


@user_app.command("delete")
def user_delete(
    name: NameArgument,
    config: ConfigOption = None,
    data: DataOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a user and forget the name. Nobody can have the name again."""
    with _service(config, data) as service:
        service.devices_of(name)
        if not yes:
            typer.confirm(f"Delete {name}@{service.ca.realm} for good?", abort=True, err=True)
        service.delete_user(name)
    answer({"user": f"{name}@{service.ca.realm}"}, f"deleted {escape(name)}", as_json=as_json)


@app.command(rich_help_panel=PANEL)
def backup(
    target: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy all databases and keys of the services, also while they run.

    The passphrase of the root key is not in the copy: keep it elsewhere.
    """
    from coterie.apps.backup import back_up

    with working("copying"):
        files = back_up(_config(config, data).data, target)
    words = f"copied {len(files)} files to {escape(str(target))}"
    answer(
        {"directory": str(target), "files": files},
        f"{words}; the root key's passphrase is not among them",
        as_json=as_json,
    )


@app.command(rich_help_panel=PANEL)
def restore(
    source: Annotated[Path, typer.Argument(help="A directory that `coterie backup` made.")],
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into the data directory, which must be empty. The services must not run.

    Clients that have seen more of a group's log than the backup holds will report the service, and rightly so.
    """
    from coterie.apps.backup import put_back

    directory = _config(config, data).data
    with working("checking and copying"):
        files = put_back(source, directory)
    words = f"restored {len(files)} files to {escape(str(directory))}"
    answer({"directory": str(directory), "files": files}, words, as_json=as_json)


@app.command(rich_help_panel="This device")
def status(
    config: ConfigOption = None,
    server: Annotated[
        bool, typer.Option("--server", help="Ask the services whether they are well.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="Where they are, if not as configured.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option("--profile", "-p", help="This device's profile.", envvar="COTERIE_PROFILE"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how this device stands; with --server whether the services answer and are ready (exit code 1: one is not).

    Example: coterie status --server --url https://chat.example.org
    """
    if not server:
        _show_device(profile, as_json=as_json)
        return
    from coterie.apps.server_status import ask

    reports = ask(_config(config), url)
    if as_json:
        answer(reports, as_json=True)
    else:
        table = Table("service", "ready", "detail", box=None)
        for name, report in reports.items():
            table.add_row(name, "yes" if report["ready"] else "no", str(report["detail"]))
        out().print(table)
    if not all(report["ready"] for report in reports.values()):
        raise typer.Exit(1)


def _show_device(profile: Path | None, *, as_json: bool) -> None:
    try:
        from coterie.apps.user import show_status
    except ModuleNotFoundError as error:
        msg = f"this machine is nobody's device (it lacks {error.name}): --server asks the services"
        raise UnsupportedError(msg) from error
    show_status(profile, as_json=as_json)
