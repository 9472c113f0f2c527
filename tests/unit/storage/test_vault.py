"""What is deleted is gone: an attacker who has the storage key decrypts all that is on the disk and searches it."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

from coterie.errors import StorageError
from coterie.mls.secret import Secret
from coterie.storage import Message, Profile, StorageKey, Transaction, vault
from coterie.storage.profile import DATABASE, KEY_FILE
from coterie.storage.vault import Vault

PAGE = 4096
SEEDS, STEPS = (10, 400) if os.environ.get("COTERIE_CRASH") == "full" else (2, 200)
KEY = StorageKey.given(bytes(range(32)))


def decrypted_pages(directory: Path) -> list[bytes]:
    """Every page of the database, decrypted without SQLite, as the cipher is described in docs/storage.md."""
    path = directory / KEY_FILE
    key = KEY.unwrap(path.read_bytes(), path)
    data = (directory / DATABASE).read_bytes()
    assert len(data) % PAGE == 0
    return [
        decrypted(key, number, data[start : start + PAGE])
        for number, start in enumerate(range(0, len(data), PAGE), 1)
    ]


def decrypted(key: Secret, number: int, page: bytes) -> bytes:
    nonce, tag = page[-32:-16], page[-16:]
    block = int.from_bytes(nonce[12:], "little") ^ number
    keys = chacha20(key, block, nonce, bytes(64))
    Poly1305.verify_tag(keys[:32], page[:-16], tag)
    # On the first page the salt and eight bytes of SQLite's header stay in the clear.
    return chacha20(keys[32:], block + 1, nonce, page[24 if number == 1 else 0 : -32])


def chacha20(key: bytes, block: int, nonce: bytes, data: bytes) -> bytes:
    start = (block % (1 << 32)).to_bytes(4, "little") + nonce[:12]
    return Cipher(ChaCha20(key, start), mode=None).encryptor().update(data)


class Keeper:
    """Remembers every key that a vault has made."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def urandom(self, length: int) -> bytes:
        self.keys.append(os.urandom(length))
        return self.keys[-1]


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    keeper = Keeper()
    monkeypatch.setattr(vault, "urandom", keeper.urandom)
    return keeper


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[Profile]:
    with Profile.open(tmp_path / "p", KEY, create=True, durable=False) as profile:
        yield profile


class Owner:
    """Stores and deletes secrets at random, and knows which should be there."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self._profile = profile
        self._rng = random.Random(seed)
        self.values: dict[bytes, bytes] = {}
        self.intents: dict[int, bytes] = {}
        self.dead: list[bytes] = []

    def step(self) -> None:
        with self._profile.transaction() as transaction:
            for _ in range(self._rng.randint(1, 30)):
                chance = self._rng.random()
                if chance < 0.5:
                    self._put(transaction)
                elif chance < 0.7:
                    self._drop(transaction)
                elif chance < 0.72:
                    self._drop_prefix(transaction)
                elif chance < 0.85:
                    self._add_intent(transaction)
                else:
                    self._change_intent(transaction)

    def secret(self) -> bytes:
        return b"SECRET-%020d-" % self._rng.randrange(10**20) + b"x" * self._rng.randrange(400)

    def _put(self, transaction: Transaction) -> None:
        key = self._rng.randbytes(self._rng.choice((1, 2, 30)))
        if key in self.values:
            self.dead.append(self.values[key])
        self.values[key] = self.secret()
        transaction.put("space", key, self.values[key])

    def _drop(self, transaction: Transaction) -> None:
        if self.values:
            key = self._rng.choice(list(self.values))
            self.dead.append(self.values.pop(key))
            transaction.delete("space", key)

    def _drop_prefix(self, transaction: Transaction) -> None:
        prefix = self._rng.randbytes(1)
        gone = [key for key in self.values if key.startswith(prefix)]
        self.dead.extend(self.values.pop(key) for key in gone)
        transaction.delete_prefix("space", prefix)

    def _add_intent(self, transaction: Transaction) -> None:
        payload = self.secret()
        self.intents[transaction.add_intent(b"c", "send", payload)] = payload

    def _change_intent(self, transaction: Transaction) -> None:
        if not self.intents:
            return
        number = self._rng.choice(list(self.intents))
        self.dead.append(self.intents.pop(number))
        if self._rng.random() < 0.5:
            self.intents[number] = self.secret()
            transaction.update_intent(number, payload=self.intents[number])
        else:
            transaction.remove_intent(number)


def on_disk(directory: Path) -> bytes:
    """All that the attacker can decrypt; the journal must be empty, whatever it held."""
    assert {path.name for path in directory.iterdir()} == {
        DATABASE,
        f"{DATABASE}-journal",
        KEY_FILE,
    }
    assert (directory / f"{DATABASE}-journal").stat().st_size == 0
    return b"".join(decrypted_pages(directory))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_attacker_with_the_storage_key_finds_no_deleted_secret_on_the_disk(
    seed: int, profile: Profile, keeper: Keeper, tmp_path: Path
) -> None:
    owner = Owner(profile, seed)
    found = b""
    for step in range(STEPS):
        owner.step()
        if step % 40 == 39:
            found = on_disk(tmp_path / "p")
            living = {key for (key,) in profile._database.run("SELECT secret FROM slot")}
            gone = [key for key in keeper.keys if key not in living]
            assert [key.hex() for key in gone if key in found] == []
            # Values are on the disk under keys of their own only, the living ones too.
            assert b"SECRET-" not in found
            assert all(key in found for key in living)
    assert len(owner.dead) > 100
    assert profile.view.entries("space") == owner.values


def test_the_attacker_would_find_a_key_that_was_not_overwritten(
    profile: Profile, keeper: Keeper, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def forget_to_erase(vault: Vault, slot: int | None) -> None:
        pass

    monkeypatch.setattr(Vault, "erase", forget_to_erase)
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"value")
    with profile.transaction() as transaction:
        transaction.delete("space", b"key")
    [key] = keeper.keys
    assert key in on_disk(tmp_path / "p")


def test_a_value_that_is_said_to_be_public_has_no_key_of_its_own(
    profile: Profile, keeper: Keeper, tmp_path: Path
) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"a public value", secret=False)
    assert b"a public value" in on_disk(tmp_path / "p")
    assert keeper.keys == []


def test_a_secret_that_becomes_public_loses_its_key(
    profile: Profile, keeper: Keeper, tmp_path: Path
) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"a secret")
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"a public value", secret=False)
    assert keeper.keys[0] not in on_disk(tmp_path / "p")
    assert profile.view.get("space", b"key") == b"a public value"


def test_no_plaintext_of_anything_is_in_the_files_without_the_key(
    profile: Profile, tmp_path: Path
) -> None:
    with profile.transaction() as transaction:
        transaction.put("space-name", b"key-name", b"a public value", secret=False)
        transaction.add_message(Message(b"c", b"1", "alice", 1, 1, text="what was said"))
    raw = (tmp_path / "p" / DATABASE).read_bytes()
    for text in (
        b"space-name",
        b"key-name",
        b"a public value",
        b"alice",
        b"what was said",
        b"CREATE",
    ):
        assert text not in raw


def test_an_erased_text_is_overwritten_where_it_stood(profile: Profile, tmp_path: Path) -> None:
    with profile.transaction() as transaction:
        transaction.add_message(Message(b"c", b"1", "alice", 1, 1, text="regretted forever"))
    assert b"regretted" in on_disk(tmp_path / "p")
    with profile.transaction() as transaction:
        transaction.erase_message(b"c", b"1")
    found = on_disk(tmp_path / "p")
    assert b"regretted" not in found
    assert b"forever" not in found


def test_after_compacting_no_copy_of_an_erased_text_is_left(
    profile: Profile, tmp_path: Path
) -> None:
    with profile.transaction() as transaction:
        for number in range(400):
            text = f"kept{number} between" if number % 3 else f"regretted{number} forever"
            transaction.add_message(Message(b"c", b"%d" % number, "alice", 1, 1, text=text))
    with profile.transaction() as transaction:
        for number in range(0, 400, 3):
            transaction.erase_message(b"c", b"%d" % number)
    profile.compact()
    found = on_disk(tmp_path / "p")
    assert b"kept1 between" in found
    assert b"regretted" not in found
    assert b"forever" not in found


def test_slots_are_used_again(profile: Profile) -> None:
    for number in range(50):
        with profile.transaction() as transaction:
            transaction.put("space", b"%d" % number, b"value")
            transaction.delete("space", b"%d" % (number - 1))
    assert profile._database.run("SELECT count(*) FROM slot") == [(2,)]


def undo(profile: Profile) -> None:
    with contextlib.suppress(ZeroDivisionError), profile.transaction() as transaction:
        transaction.put("space", b"lost", b"value")
        raise ZeroDivisionError


def test_free_slots_are_found_again_after_opening_and_after_a_rollback(tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p", KEY, create=True, durable=False) as profile:
        with profile.transaction() as transaction:
            for number in range(5):
                transaction.put("space", b"%d" % number, b"value")
        with profile.transaction() as transaction:
            transaction.delete_prefix("space", b"")
    with Profile.open(tmp_path / "p", KEY, durable=False) as profile:
        undo(profile)
        with profile.transaction() as transaction:
            for number in range(5):
                transaction.put("space", b"%d" % number, b"value %d" % number)
        assert profile._database.run("SELECT count(*) FROM slot") == [(5,)]
        assert profile.view.get("space", b"4") == b"value 4"


def test_a_value_whose_key_was_changed_is_reported_as_damage(profile: Profile) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"value")
    profile._database.run("UPDATE slot SET secret = zeroblob(32)")
    with pytest.raises(StorageError, match="damaged"):
        profile.view.get("space", b"key")


def test_a_value_whose_key_is_missing_is_reported_as_damage(profile: Profile) -> None:
    with profile.transaction() as transaction:
        transaction.put("space", b"key", b"value")
    profile._database.run("DELETE FROM slot")
    with pytest.raises(StorageError, match="damaged"):
        profile.view.get("space", b"key")


@pytest.mark.parametrize("place", [0, 20, 100, PAGE - 1, PAGE, 2 * PAGE - 40])
def test_a_page_that_was_changed_from_outside_is_noticed(place: int, tmp_path: Path) -> None:
    with Profile.open(tmp_path / "p", KEY, create=True, durable=False):
        pass
    path = tmp_path / "p" / DATABASE
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        read_all(tmp_path / "p")


def read_all(directory: Path) -> None:
    with Profile.open(directory, KEY, durable=False) as profile:
        profile.view.entries("space")
        if profile._database.run("PRAGMA integrity_check") != [("ok",)]:
            msg = "damaged"
            raise StorageError(msg)
