"""Where the command line keeps a profile's key: in the keyring if there is one, nowhere weaker without a word."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import keyring
import pytest
import typer
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as NullKeyring
from keyring.errors import KeyringLocked

from coterie.apps.profile import forget_key, storage_key
from coterie.errors import StateError, StorageError
from coterie.storage import Profile, StorageKey
from coterie.storage.key import key_kind
from coterie.storage.profile import KEY_FILE


class FakeKeyring(KeyringBackend):
    """A keyring in memory."""

    priority = 5.0

    def __init__(self) -> None:
        self.passwords: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.passwords[service, username]


class LockedKeyring(FakeKeyring):
    """A keyring that nobody opens."""

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("the keyring is locked")


class WeakKeyring(FakeKeyring):
    """A keyring that keeps what it is given in a plain file, as some do, and says so by its priority."""

    priority = 0.5


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("COTERIE_PASSPHRASE", "COTERIE_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return tmp_path / "profile"


def _use(monkeypatch: pytest.MonkeyPatch, backend: KeyringBackend) -> KeyringBackend:
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)
    return backend


def _terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> list[bool]:
    """A terminal at which somebody types a passphrase; whether each was asked for twice."""
    asked: list[bool] = []

    def prompt(_: str, *, confirmation_prompt: bool, **__: object) -> str:
        asked.append(confirmation_prompt)
        return answer

    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "prompt", prompt)
    return asked


def _made(directory: Path) -> str | None:
    """Makes the profile, opens it again as later commands do, and says what opens it."""
    with Profile.open(directory, storage_key(directory, create=True), create=True):
        pass
    with Profile.open(directory, storage_key(directory)):
        return key_kind(directory / KEY_FILE)


def test_the_keyring_is_taken_where_there_is_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FakeKeyring()
    _use(monkeypatch, backend)
    assert _made(directory) == "keyring"
    assert len(backend.passwords) == 1
    assert not (directory / "storage.key").exists()
    directory.rename(directory.with_name("moved"))
    with Profile.open(directory.with_name("moved"), storage_key(directory.with_name("moved"))):
        pass


def test_a_keyring_that_lost_the_key_is_an_error_and_makes_no_new_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FakeKeyring()
    _use(monkeypatch, backend)
    _made(directory)
    backend.passwords.clear()
    with pytest.raises(StorageError, match="has no key for"):
        storage_key(directory)
    assert backend.passwords == {}


@pytest.mark.parametrize("backend", [NoKeyring, NullKeyring, WeakKeyring, LockedKeyring])
def test_without_a_keyring_a_passphrase_is_asked_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch, backend: type[KeyringBackend]
) -> None:
    _use(monkeypatch, backend())
    asked = _terminal(monkeypatch, "four words or more")
    assert _made(directory) == "passphrase"
    assert asked == [True, False]
    assert not (directory / "storage.key").exists()


@pytest.mark.parametrize("backend", [NoKeyring, NullKeyring, WeakKeyring, LockedKeyring])
def test_without_keyring_and_terminal_nothing_is_made_and_the_ways_out_are_named(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: type[KeyringBackend],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _use(monkeypatch, backend())
    with pytest.raises(StateError, match=r"COTERIE_PASSPHRASE, or COTERIE_KEY=file"):
        storage_key(directory, create=True)
    assert not (directory / KEY_FILE).exists()
    assert not (directory / "storage.key").exists()
    assert ("keyring is locked" in capsys.readouterr().err) == (backend is LockedKeyring)


def test_a_file_beside_the_data_is_made_only_when_asked_for_and_opened_ever_after(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, FakeKeyring())
    monkeypatch.setenv("COTERIE_KEY", "file")
    assert _made(directory) == "given"
    assert (directory / "storage.key").stat().st_mode & 0o777 == 0o600
    monkeypatch.delenv("COTERIE_KEY")
    with Profile.open(directory, storage_key(directory)):
        pass
    (directory / "storage.key").write_bytes(b"short")
    with pytest.raises(StateError, match="a key has 32"):
        storage_key(directory)


def test_a_passphrase_in_the_environment_comes_first_and_must_be_the_profiles(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, FakeKeyring())
    monkeypatch.setenv("COTERIE_PASSPHRASE", "several words")
    assert _made(directory) == "passphrase"
    monkeypatch.delenv("COTERIE_PASSPHRASE")
    with pytest.raises(StateError, match=r"no terminal: set COTERIE_PASSPHRASE$"):
        storage_key(directory)
    other = directory.with_name("other")
    _made(other)
    monkeypatch.setenv("COTERIE_PASSPHRASE", "several words")
    with (
        pytest.raises(StorageError, match="opened with the key from the system's keyring"),
        Profile.open(other, storage_key(other)),
    ):
        pass


def test_the_kind_can_be_chosen_and_a_wrong_one_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, NoKeyring())  # type: ignore[no-untyped-call]
    monkeypatch.setenv("COTERIE_KEY", "keyring")
    with pytest.raises(StorageError, match="keyring cannot be used"):
        storage_key(directory, create=True)
    monkeypatch.setenv("COTERIE_KEY", "vault")
    with pytest.raises(StateError, match="keyring, passphrase or file, not 'vault'"):
        storage_key(directory, create=True)


def test_commands_other_than_login_make_no_profile(directory: Path) -> None:
    with pytest.raises(StateError, match="coterie login"):
        storage_key(directory)
    assert not directory.exists()


def test_a_key_file_without_a_known_kind_is_reported(directory: Path) -> None:
    directory.mkdir()
    (directory / KEY_FILE).write_bytes(b"{}")
    with pytest.raises(StorageError, match="damaged"):
        storage_key(directory)
    with Profile.open(directory.with_name("ok"), StorageKey.given(bytes(32)), create=True):
        assert key_kind(directory.with_name("ok") / KEY_FILE) == "given"


@pytest.mark.parametrize("kind", ["keyring", "file"])
def test_of_a_profile_that_is_gone_no_key_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    backend = FakeKeyring()
    _use(monkeypatch, backend)
    monkeypatch.setenv("COTERIE_KEY", kind)
    with Profile.open(directory, storage_key(directory, create=True), create=True) as profile:
        profile.wipe()
    assert len(backend.passwords) == (1 if kind == "keyring" else 0)
    forget_key(directory)
    assert backend.passwords == {}
    assert not directory.exists()
    forget_key(directory)
