"""Keys of a profile, and the file that wraps the database's key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from coterie.errors import StorageError
from coterie.mls.secret import Secret
from coterie.storage import KeyCost, StorageKey

CHEAP = KeyCost(passes=1, memory_kib=64, lanes=1)
DATABASE_KEY = Secret(b"the key of the database, 32 long")
PATH = Path("profile.key")


def passphrase(text: str = "correct horse") -> StorageKey:
    return StorageKey.from_passphrase(text, cost=CHEAP)


class MemoryKeyring(KeyringBackend):
    priority = 1.0

    def __init__(self) -> None:
        self.passwords: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password


@pytest.fixture
def memory_keyring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    memory = MemoryKeyring()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


@pytest.fixture
def no_keyring() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(before)


def test_a_passphrase_opens_what_it_wrapped() -> None:
    content = passphrase().wrap(DATABASE_KEY)
    assert passphrase().unwrap(content, PATH) == DATABASE_KEY


def test_the_cost_is_read_from_the_key_file() -> None:
    content = StorageKey.from_passphrase("x", cost=KeyCost(2, 128, 2)).wrap(DATABASE_KEY)
    assert StorageKey.from_passphrase("x").unwrap(content, PATH) == DATABASE_KEY


def test_the_default_cost_is_64_mib() -> None:
    head = json.loads(StorageKey.from_passphrase("x").wrap(DATABASE_KEY))
    assert (head["argon2id"]["memory_kib"], head["argon2id"]["passes"]) == (65536, 3)


@pytest.mark.parametrize(
    "cost",
    [
        KeyCost(65, 64, 1),
        KeyCost(0, 64, 1),
        KeyCost(1, (1 << 22) + 1, 1),
        KeyCost(1, 8, 2),
        KeyCost(1, 1 << 20, 65),
    ],
)
def test_a_key_that_no_key_file_may_hold_is_not_made(cost: KeyCost) -> None:
    with pytest.raises(StorageError, match="no cost that a key file may have"):
        StorageKey.from_passphrase("correct horse", cost=cost)


def test_a_key_for_which_memory_is_short_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def derive(_kdf: object, _passphrase: bytes) -> bytes:
        raise MemoryError

    content = passphrase().wrap(DATABASE_KEY)
    monkeypatch.setattr("coterie.storage.key.Argon2id.derive", derive)
    with pytest.raises(StorageError, match="64 KiB of memory"):
        passphrase().unwrap(content, PATH)


def test_another_encoding_of_the_same_characters_is_the_same_passphrase() -> None:
    content = passphrase("Zo\u00eb").wrap(DATABASE_KEY)
    assert passphrase("Zoe\u0308").unwrap(content, PATH) == DATABASE_KEY


def test_a_wrong_passphrase_is_told_apart_from_damage() -> None:
    content = passphrase().wrap(DATABASE_KEY)
    with pytest.raises(StorageError, match="the passphrase does not open"):
        passphrase("wrong").unwrap(content, PATH)


def test_a_passphrase_that_is_no_text_is_refused_and_not_kept() -> None:
    with pytest.raises(StorageError, match="no text in UTF-8") as refused:
        StorageKey.from_passphrase("secret \udcff")
    assert "secret" not in str(refused.value)
    assert refused.value.__context__ is None


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(StorageError, match="empty"):
        StorageKey.from_passphrase("")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_given_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(StorageError, match="32 bytes"):
        StorageKey.given(bytes(length))


def test_a_given_key_opens_what_it_wrapped_and_no_other_does() -> None:
    content = StorageKey.given(bytes(32)).wrap(DATABASE_KEY)
    assert StorageKey.given(bytes(32)).unwrap(content, PATH) == DATABASE_KEY
    with pytest.raises(StorageError, match="does not open"):
        StorageKey.given(b"1" * 32).unwrap(content, PATH)


def test_a_key_of_another_kind_is_refused_by_name() -> None:
    content = passphrase().wrap(DATABASE_KEY)
    with pytest.raises(StorageError, match="opened with the passphrase, not with the key that was"):
        StorageKey.given(bytes(32)).unwrap(content, PATH)


def test_a_key_shows_nothing_of_itself() -> None:
    assert repr(passphrase("hush")) == "StorageKey(passphrase)"
    assert "hush" not in str(passphrase("hush"))
    with pytest.raises(TypeError):
        passphrase("hush").__reduce_ex__(4)


def test_the_keyring_keeps_a_random_key(memory_keyring: MemoryKeyring) -> None:
    content = StorageKey.from_keyring("alice", create=True).wrap(DATABASE_KEY)
    assert StorageKey.from_keyring("alice").unwrap(content, PATH) == DATABASE_KEY
    assert StorageKey.from_keyring("alice", create=True).unwrap(content, PATH) == DATABASE_KEY
    [stored] = memory_keyring.passwords.values()
    assert len(bytes.fromhex(stored)) == 32


def test_a_key_that_the_keyring_lost_is_reported(memory_keyring: MemoryKeyring) -> None:
    with pytest.raises(StorageError, match="no key for alice"):
        StorageKey.from_keyring("alice")


def test_a_damaged_key_in_the_keyring_is_reported(memory_keyring: MemoryKeyring) -> None:
    memory_keyring.set_password("coterie", "alice", "no hexadecimal")
    with pytest.raises(StorageError, match="damaged"):
        StorageKey.from_keyring("alice")


def test_a_system_without_a_keyring_is_told_to_use_a_passphrase(no_keyring: None) -> None:
    with pytest.raises(StorageError, match="use a passphrase"):
        StorageKey.from_keyring("alice", create=True)


def changed(**changes: Any) -> bytes:
    head = json.loads(passphrase().wrap(DATABASE_KEY))
    for name, value in changes.items():
        inner, _, last = name.rpartition("__")
        (head[inner] if inner else head)[last] = value
    return json.dumps(head).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        changed(format="1"),
        changed(kind="other"),
        changed(kind="given"),
        changed(kind=["passphrase"]),
        changed(format=True),
        b"[" * 100_000,
        changed(argon2id__lanes=64),
        changed(argon2id=None),
        changed(argon2id__passes=0),
        changed(argon2id__passes=True),
        changed(argon2id__passes=65),
        changed(argon2id__memory_kib=2**40),
        changed(argon2id__lanes="4"),
        changed(argon2id__salt="00"),
        changed(argon2id__salt="z" * 32),
        changed(nonce="00"),
        changed(nonce=None),
        changed(key="zz"),
        changed(key="00" * 47),
    ],
)
def test_a_damaged_key_file_is_reported_and_never_another_error(content: bytes) -> None:
    with pytest.raises(StorageError, match=r"restore it|not with"):
        passphrase().unwrap(content, PATH)


@pytest.mark.parametrize(
    "changes", [{"nonce": "00" * 12}, {"argon2id__salt": "00" * 16}, {"key": "00" * 48}]
)
def test_a_changed_key_file_does_not_open(changes: dict[str, str]) -> None:
    with pytest.raises(StorageError, match="does not open"):
        passphrase().unwrap(changed(**changes), PATH)


def test_a_newer_key_file_asks_for_a_newer_program() -> None:
    with pytest.raises(StorageError, match="update the program"):
        passphrase().unwrap(changed(format=2), PATH)
