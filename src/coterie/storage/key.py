"""Where the key of a profile comes from, and the key file beside the database.

The database's key is random and never changes. The key file holds it wrapped (AES-256-GCM) under a key that the user's
passphrase gives (Argon2id), or that the system's keyring holds, or that the caller gives. So a wrong passphrase is told
apart from a damaged database, a passphrase is changed without rewriting the database, and deleting one small file makes
the rest unreadable. Everything in the key file is authenticated but the nonce, which the tag covers as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import keyring
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as NullKeyring
from keyring.errors import KeyringError

from coterie.errors import StorageError
from coterie.mls.secret import Confidential, Secret
from coterie.storage.files import replace_file

KEY_LENGTH: Final = 32
_FORMAT: Final = 1
_SALT_LENGTH: Final = 16
_SALT: Final = re.compile(f"[0-9a-f]{{{2 * _SALT_LENGTH}}}")
_NONCE_LENGTH: Final = 12
_KEYRING_SERVICE: Final = "coterie"
# What a key file may ask for at most, so that a forged one cannot stall the program.
_MOST: Final = {"passes": 64, "memory_kib": 4 * 1024 * 1024, "lanes": 64}


@dataclass(frozen=True, slots=True)
class KeyCost:
    """What Argon2id (RFC 9106) is made to cost: the default is that RFC's second recommendation, 64 MiB."""

    passes: int = 3
    memory_kib: int = 65536
    lanes: int = 4


class StorageKey(Confidential):
    """What opens a profile: made with `from_passphrase`, `from_keyring` or `given`. Shows nothing of itself."""

    __slots__ = ("_cost", "_kind", "_secret")

    def __init__(self, kind: str, secret: Secret, cost: KeyCost | None = None) -> None:
        self._kind = kind
        self._secret = secret
        self._cost = cost

    def __repr__(self) -> str:
        return f"StorageKey({self._kind})"

    @classmethod
    def from_passphrase(cls, passphrase: str, *, cost: KeyCost | None = None) -> Self:
        """A passphrase, of which different encodings of the same characters are the same (Unicode NFC).

        `cost` counts when a profile is made; one that exists says itself what its key costs. Raises `StorageError`
        for an empty passphrase, and for a cost that no key file may ask for.
        """
        if not passphrase:
            msg = "the passphrase is empty; choose one of several words"
            raise StorageError(msg)
        cost = cost or KeyCost()
        if not _may_cost(asdict(cost)):
            msg = f"{cost} is no cost that a key file may have: up to {KeyCost(**_MOST)}, and 8 KiB for each lane"
            raise StorageError(msg)
        return cls("passphrase", encode_passphrase(passphrase), cost)

    @staticmethod
    def forget_in_keyring(name: str) -> None:
        """Deletes the key that the system's keyring holds under a name, if it does and can."""
        with contextlib.suppress(KeyringError):
            keyring.delete_password(_KEYRING_SERVICE, name)

    @classmethod
    def from_keyring(cls, name: str, *, create: bool = False) -> Self:
        """A random key that the system's keyring holds under `name`; `create` makes one if there is none.

        Raises `StorageError` if there is no keyring, it refuses, or it has no such key.
        """
        try:
            found = keyring.get_password(_KEYRING_SERVICE, name)
            if found is None and create:
                found = os.urandom(KEY_LENGTH).hex()
                keyring.set_password(_KEYRING_SERVICE, name, found)
        except KeyringError as error:
            msg = f"the system's keyring cannot be used ({error}); use a passphrase instead"
            raise StorageError(msg) from error
        if found is None:
            msg = f"the system's keyring has no key for {name}; was the profile made by another user or system?"
            raise StorageError(msg)
        return cls("keyring", _from_hex(found, KEY_LENGTH, f"the key for {name} in the keyring"))

    @classmethod
    def given(cls, key: bytes) -> Self:
        """A key of 32 random bytes that the caller keeps; raises `StorageError` for another length."""
        if len(key) != KEY_LENGTH:
            msg = f"a storage key has {KEY_LENGTH} bytes, this one has {len(key)}"
            raise StorageError(msg)
        return cls("given", Secret(key))

    def wrap(self, key: Secret) -> bytes:
        """The content of a key file that holds `key`."""
        head: dict[str, Any] = {"format": _FORMAT, "kind": self._kind}
        if self._cost is not None:
            head["argon2id"] = {**asdict(self._cost), "salt": os.urandom(_SALT_LENGTH).hex()}
        nonce = os.urandom(_NONCE_LENGTH)
        sealed = AESGCM(self._wrapping_key(head)).encrypt(nonce, key, _canonical(head))
        return json.dumps({**head, "nonce": nonce.hex(), "key": sealed.hex()}, indent=1).encode()

    def unwrap(self, content: bytes, path: Path) -> Secret:
        """The key that a key file holds; raises `StorageError` for a wrong key, a damaged or newer file."""
        head = _read(content, path)
        if head["kind"] != self._kind:
            msg = f"the profile of {path} is opened with {_NAMES[head['kind']]}, not with {_NAMES[self._kind]}"
            raise StorageError(msg)
        damaged = f"the key file {path}"
        nonce = _from_hex(head.pop("nonce", None), _NONCE_LENGTH, damaged)
        sealed = _from_hex(head.pop("key", None), KEY_LENGTH + 16, damaged)
        try:
            return Secret(AESGCM(self._wrapping_key(head)).decrypt(nonce, sealed, _canonical(head)))
        except InvalidTag:
            msg = f"{_NAMES[self._kind]} does not open {path}; check it (or the file was changed: restore it)"
            raise StorageError(msg) from None

    def _wrapping_key(self, head: dict[str, Any]) -> Secret:
        if self._cost is None:
            return self._secret
        asked = head["argon2id"]
        try:
            kdf = Argon2id(
                salt=bytes.fromhex(asked["salt"]),
                length=KEY_LENGTH,
                iterations=asked["passes"],
                lanes=asked["lanes"],
                memory_cost=asked["memory_kib"],
            )
            return Secret(kdf.derive(self._secret))
        except MemoryError:
            msg = f"the passphrase's key takes {asked['memory_kib']} KiB of memory, which are not to be had here"
            raise StorageError(msg) from None
        except UnsupportedAlgorithm as error:
            msg = (
                "this build of the cryptography package has no Argon2id; install it from its wheel"
            )
            raise StorageError(msg) from error


_NAMES: Final = {
    "passphrase": "the passphrase",
    "keyring": "the key from the system's keyring",
    "given": "the key that was given",
}


def encode_passphrase(passphrase: str) -> Secret:
    """A passphrase in bytes, the same for all encodings of its characters (Unicode NFC).

    Raises `StorageError` for what is no text, as a terminal or variable in another encoding gives.
    """
    with contextlib.suppress(UnicodeEncodeError):
        return Secret(unicodedata.normalize("NFC", passphrase).encode())
    # Not raised while that is handled, which holds the passphrase.
    msg = "the passphrase is no text in UTF-8; look at the terminal's encoding, or choose another passphrase"
    raise StorageError(msg)


def key_kind(path: Path) -> str | None:
    """What opens the key file: passphrase, keyring or given; None where there is none.

    Raises `StorageError` for a damaged file.
    """
    try:
        return str(_read(path.read_bytes(), path)["kind"])
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"the key file {path} cannot be read: {error.strerror}"
        raise StorageError(msg) from error


def keyring_is_usable() -> bool:
    """Whether the system has a keyring that keeps secrets: not none, and not one that only pretends to."""
    backend = keyring.get_keyring()
    return not isinstance(backend, (NoKeyring, NullKeyring)) and float(backend.priority) >= 1


def load_or_make(path: Path, key: StorageKey, *, create: bool) -> Secret:
    """The database's key from the key file, which is made if there is none and `create` is set."""
    try:
        if create and not path.exists():
            replace_file(path, key.wrap(Secret(os.urandom(KEY_LENGTH))), overwrite=False)
        content = path.read_bytes()
    except FileNotFoundError:
        msg = f"there is no profile at {path.parent}; give another path, or make one"
        raise StorageError(msg) from None
    except OSError as error:
        msg = f"the key file {path} cannot be read or written: {error.strerror}"
        raise StorageError(msg) from error
    return key.unwrap(content, path)


def _read(content: bytes, path: Path) -> dict[str, Any]:
    damaged = f"the key file {path} is damaged; restore it from a backup"
    try:
        head = json.loads(content)
    except (ValueError, RecursionError):
        raise StorageError(damaged) from None
    if not isinstance(head, dict) or type(head.get("format")) is not int:
        raise StorageError(damaged)
    if head["format"] > _FORMAT:
        msg = f"{path} was written by a newer version of this program; update the program"
        raise StorageError(msg)
    if str(head.get("kind")) not in _NAMES or not _sound_cost(head):
        raise StorageError(damaged)
    return head


def _sound_cost(head: dict[str, Any]) -> bool:
    asked = head.get("argon2id")
    if head["kind"] != "passphrase":
        return asked is None
    if not isinstance(asked, dict) or set(asked) != {*_MOST, "salt"}:
        return False
    return _may_cost(asked) and bool(_SALT.fullmatch(str(asked["salt"])))


def _may_cost(asked: dict[str, Any]) -> bool:
    numbers = [(asked[name], most) for name, most in _MOST.items()]
    if not all(type(number) is int and 0 < number <= most for number, most in numbers):
        return False
    # Argon2 needs eight blocks of memory in each lane.
    return bool(asked["memory_kib"] >= 8 * asked["lanes"])


def _canonical(head: dict[str, Any]) -> bytes:
    return json.dumps(head, sort_keys=True, separators=(",", ":")).encode()


def _from_hex(text: object, length: int, what: str) -> Secret:
    try:
        value = bytes.fromhex(text if isinstance(text, str) else "")
    except ValueError:
        value = b""
    if len(value) != length:
        msg = (
            f"{what} is damaged: it is not {length} bytes in hexadecimal; restore it from a backup"
        )
        raise StorageError(msg)
    return Secret(value)
