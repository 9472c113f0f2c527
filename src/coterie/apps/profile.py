"""Opening this person's profile for a command: where it is, which key it has."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import typer

from coterie.apps.answering import EXIT_INTERRUPTED, ask, note
from coterie.client import Client
from coterie.errors import StateError, StorageError, UnsupportedError
from coterie.mls.sodium import use_libsodium
from coterie.storage import StorageKey
from coterie.storage.key import key_kind, keyring_is_usable
from coterie.storage.profile import KEY_FILE

T = TypeVar("T")

DEFAULT_SERVER = "http://127.0.0.1:8470"


def profile_path(given: Path | None) -> Path:
    """The directory of the profile: as given, from `COTERIE_PROFILE`, or the platform's place."""
    if given is not None:
        return given
    named = os.environ.get("COTERIE_PROFILE")
    return Path(named) if named else platformdirs.user_data_path("coterie") / "profile"


def storage_key(path: Path, *, create: bool = False) -> StorageKey:
    """The key of a profile, of the kind that it was made with; `create` chooses one for a new profile.

    A new profile's key is in the system's keyring where there is one, else it follows from a passphrase, which is asked
    for on a terminal. `COTERIE_PASSPHRASE` gives a passphrase. `COTERIE_KEY` chooses: keyring, passphrase, or file, a
    key beside the data that protects a copy of the database alone. Nothing weaker is ever taken without being told.
    Raises `StateError` where there is no profile, or no key can be had.
    """
    kind = key_kind(path / KEY_FILE)
    if kind is None and not create:
        msg = "this device is not enrolled yet: run `coterie login` with a code from the operator"
        raise StateError(msg)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.environ.get("COTERIE_PASSPHRASE"):
        return StorageKey.from_passphrase(os.environ["COTERIE_PASSPHRASE"])
    if kind is None:
        return _new_key(path)
    if kind == "keyring":
        return StorageKey.from_keyring(_keyring_name(path))
    if kind == "passphrase":
        return _asked_passphrase(confirm=False)
    return _key_file(path)


def _new_key(path: Path) -> StorageKey:
    wanted = os.environ.get("COTERIE_KEY", "")
    if wanted not in {"", "keyring", "passphrase", "file"}:
        msg = f"COTERIE_KEY is keyring, passphrase or file, not {wanted!r}"
        raise StateError(msg)
    if wanted == "file":
        return _key_file(path)
    if wanted == "keyring":
        return StorageKey.from_keyring(_keyring_name(path), create=True)
    if wanted != "passphrase" and keyring_is_usable():
        try:
            return StorageKey.from_keyring(_keyring_name(path), create=True)
        except StorageError as error:
            note("no keyring", str(error))
    return _asked_passphrase(confirm=True)


def _asked_passphrase(*, confirm: bool) -> StorageKey:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        what = (
            "no usable keyring and no terminal to ask for a passphrase"
            if confirm
            else "no terminal"
        )
        way = ", or COTERIE_KEY=file to keep the key beside the data" if confirm else ""
        msg = f"the profile needs a passphrase, and there is {what}: set COTERIE_PASSPHRASE{way}"
        raise StateError(msg)
    if confirm:
        typer.echo("There is no keyring here; a passphrase protects this device's keys.", err=True)
    return StorageKey.from_passphrase(ask("Passphrase", hidden=True, twice=confirm))


def _keyring_name(path: Path) -> str:
    """Under which name the keyring has this profile's key: random, so that the directory can be moved."""
    file = path / "storage.keyring"
    if not file.exists():
        _write_new(file, secrets.token_hex(16).encode())
    return file.read_text(encoding="ascii").strip()


def _key_file(path: Path) -> StorageKey:
    file = path / "storage.key"
    if not file.exists():
        _write_new(file, secrets.token_bytes(32))
    key = file.read_bytes()
    if len(key) != 32:
        msg = f"{file} is not a storage key: it has {len(key)} bytes, a key has 32"
        raise StateError(msg)
    return StorageKey.given(key)


def forget_key(path: Path) -> None:
    """Deletes what is left of a profile that was deleted: its storage key, in the keyring too."""
    name = path / "storage.keyring"
    if name.exists():
        StorageKey.forget_in_keyring(_keyring_name(path))
    for file in (name, path / "storage.key"):
        file.unlink(missing_ok=True)
    with suppress(OSError):
        path.rmdir()


def _write_new(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)


@asynccontextmanager
async def opened(path: Path | None, *, server: str = "") -> AsyncIterator[Client]:
    """The person's client; with libsodium for signatures and exchanges where the extra `fast` is installed."""
    with suppress(UnsupportedError):
        use_libsodium()
    directory = profile_path(path)
    delay = float(os.environ.get("COTERIE_WELCOME_DELAY", "5"))
    key = storage_key(directory, create=bool(server))
    async with Client.open(directory, key, server=server, welcome_delay=delay) as client:
        yield client


def run(task: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine; an interrupt ends it without a traceback."""
    try:
        return asyncio.run(task)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
