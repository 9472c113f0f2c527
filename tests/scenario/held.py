"""What a group holds in memory: what it says (`secrets_held`), compared with everything that can be reached from it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from coterie.mls.credential import AcceptAnything
from coterie.mls.crypto import Suite
from coterie.mls.group import Config, Group, SecretHeld
from coterie.mls.secret import Secret
from coterie.testing import MemoryStore, Randomness

OUTSIDE = (
    *(type, ModuleType, FunctionType, Config, MemoryStore, Randomness, Suite, AcceptAnything),
)
"""Where the walk ends: what is the caller's, and what all groups share."""
RAW_KEYS = (
    *(
        X25519PrivateKey,
        X448PrivateKey,
        Ed25519PrivateKey,
        Ed448PrivateKey,
        EllipticCurvePrivateKey,
    ),
)
LONGEST_KEY = 66
"""The private key of P-521, in bytes."""


def reached(*roots: object) -> list[Any]:
    """Everything that the collector reaches from here."""
    seen: dict[int, Any] = {}
    todo = list(roots)
    while todo:
        value = todo.pop()
        if id(value) not in seen and not isinstance(value, OUTSIDE):
            seen[id(value)] = value
            todo += gc.get_referents(value)
    return list(seen.values())


def secret_values(objects: Iterable[Any]) -> set[bytes]:
    """The secrets among them, also those in key objects of the library, which show no bytes by themselves.

    What is longer than any key is the plaintext of a GroupInfo, whose parts are no secrets of their own.
    """
    return {
        *(bytes(e) for e in objects if isinstance(e, Secret) and 0 < len(e) <= LONGEST_KEY),
        *(_raw(e) for e in objects if isinstance(e, RAW_KEYS)),
    }


def _raw(key: Any) -> bytes:
    if isinstance(key, EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8)
    value: bytes = key.private_bytes_raw()
    return value


def named_values(group: Group) -> set[bytes]:
    """The secret that each line of `secrets_held` speaks of; a line that speaks of none fails."""
    found: set[bytes] = set()
    for held in group.secrets_held():
        values = _values(group, held)
        assert values, held
        found |= values
    return found


def _values(group: Group, held: SecretHeld) -> set[bytes]:
    epoch, keys = group._epoch, group._keys
    alone: dict[str, Callable[[], Iterable[object]]] = {
        "the pending epoch": lambda: reached(group._pending),
        "keys of an own Update": lambda: reached(group._proposals.own_updates),
        "resumption key": lambda: [keys.resumption_psk(held.epoch)],
        "signature private key": lambda: reached(epoch.signature_key),
        "leaf private key": lambda: reached(epoch.private.leaf_key),
        **{
            f"private key of {node!r}": partial(reached, key)
            for node, key in epoch.private.parents.items()
        },
    }
    if held.what in alone:
        return secret_values(alone[held.what]())
    past = keys.of_epoch(held.epoch)
    assert past is not None, held
    if held.what == "sender_data_secret":
        return {bytes(past.sender_data_secret)}
    if held.what in [field.name for field in epoch.secrets._fields]:
        assert held.epoch == group.epoch
        return {bytes(getattr(epoch.secrets, held.what))}
    return {bytes(value) for what, value in past.secret_tree.held() if what == held.what}


class Watch:
    """Looks into a group's memory after each step of its life."""

    def __init__(self) -> None:
        self._ever: set[bytes] = set()

    def check(self, group: Group) -> None:
        """It holds the secrets that it names and no others, and no trace of one that it held before."""
        objects = reached(group)
        held, named = secret_values(objects), named_values(group)
        assert held == named, (len(held - named), len(named - held))
        everything = b"\0".join(bytes(each) for each in objects if isinstance(each, bytes))
        left = [gone for gone in self._ever - held if gone in everything]
        assert not left, f"{len(left)} secrets that were given up are still in memory"
        self._ever |= held
