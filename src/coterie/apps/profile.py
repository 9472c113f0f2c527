"""Opening this person's profile for a command: where it is, which key it has."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
import typer

from coterie.client import Client
from coterie.errors import StateError, UnsupportedError
from coterie.mls.sodium import use_libsodium
from coterie.storage import StorageKey

T = TypeVar("T")

DEFAULT_SERVER = "http://127.0.0.1:8470"


def profile_path(given: Path | None) -> Path:
    """The directory of the profile: as given, from `COTERIE_PROFILE`, or the platform's place."""
    if given is not None:
        return given
    named = os.environ.get("COTERIE_PROFILE")
    return Path(named) if named else platformdirs.user_data_path("coterie") / "profile"


def storage_key(path: Path) -> StorageKey:
    """The key of a profile: from a passphrase in `COTERIE_PASSPHRASE`, else from a file beside the database.

    A key file protects a copy of the database alone, not one of the whole directory; `coterie doctor` says so.
    """
    passphrase = os.environ.get("COTERIE_PASSPHRASE")
    if passphrase:
        return StorageKey.from_passphrase(passphrase)
    file = path / "storage.key"
    if not file.exists():
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(32))
    key = file.read_bytes()
    if len(key) != 32:
        msg = f"{file} is not a storage key: it has {len(key)} bytes, a key has 32"
        raise StateError(msg)
    return StorageKey.given(key)


@asynccontextmanager
async def opened(path: Path | None, *, server: str = "") -> AsyncIterator[Client]:
    """The person's client; with libsodium for signatures and exchanges where the extra `fast` is installed."""
    with suppress(UnsupportedError):
        use_libsodium()
    directory = profile_path(path)
    delay = float(os.environ.get("COTERIE_WELCOME_DELAY", "5"))
    key = storage_key(directory)
    async with Client.open(directory, key, server=server, welcome_delay=delay) as client:
        yield client


def run(task: Coroutine[Any, Any, T]) -> T:
    """Runs a command's coroutine; an interrupt ends it without a traceback."""
    try:
        return asyncio.run(task)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
