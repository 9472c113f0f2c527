"""Garbage decodes or raises `DecodeError`, never anything else; what decodes is encoded to the very same bytes."""

from __future__ import annotations

import importlib
import os
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coterie.mls
from coterie.errors import DecodeError, RuleViolation
from coterie.mls.framing import MLSMessage
from coterie.mls.ratchet_tree import HPKECiphertext, UnverifiedTree
from coterie.mls.tls import Struct
from coterie.mls.types import CipherSuite
from coterie.mls.welcome import EncryptedGroupSecrets, Welcome
from tests.fuzz.mutation import mutated
from tests.rules.forging import PUBLIC
from tests.rules.world import make

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
NEED_A_TYPE = {"FramedContentAuthData", "PrivateMessageContent"}
"""Structs that select by what stands outside of them."""


def _structs() -> list[type[Struct]]:
    for module in pkgutil.walk_packages(coterie.mls.__path__, "coterie.mls."):
        importlib.import_module(module.name)
    found, todo = [], [Struct]
    while todo:
        for each in todo.pop().__subclasses__():
            todo.append(each)
            if each.__dict__.get("_fields") and each.__module__.startswith("coterie.mls"):
                found.append(each)
    return sorted(set(found), key=lambda cls: cls.__qualname__)


STRUCTS = [cls for cls in _structs() if cls.__name__ not in NEED_A_TYPE]
WORLD = make()


def _long_welcome() -> bytes:
    """One with so many entries that they are read lazily."""
    rng, suite = WORLD.rng, CipherSuite(WORLD.suite.cipher_suite)
    entries = tuple(
        EncryptedGroupSecrets(rng(32), HPKECiphertext(rng(32), rng(100))) for _ in range(12)
    )
    return MLSMessage.of(Welcome(suite, entries, rng(70))).encode()


MESSAGES = [
    _long_welcome(),
    WORLD.forger().commit().data,
    WORLD.forger("alice", PUBLIC).commit().data,
    MLSMessage.of(WORLD.bundle("zoe").key_package).encode(),
    MLSMessage.of(WORLD.forger().group_info()).encode(),
    WORLD.forger().welcome(WORLD.bundle("zoe")),
]


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_any_bytes_decode_or_raise(cls: type[Struct]) -> None:
    @settings(max_examples=EXAMPLES)
    @given(st.binary(max_size=80))
    def run(data: bytes) -> None:
        _roundtrip(cls, data)

    run()


@settings(max_examples=20 * EXAMPLES)
@given(st.sampled_from(MESSAGES).flatmap(mutated))
def test_a_changed_message_decodes_or_raises(data: bytes) -> None:
    _roundtrip(MLSMessage, data)


@settings(max_examples=10 * EXAMPLES)
@given(mutated(WORLD.member("bob").tree.encode()))
def test_a_changed_tree_decodes_or_raises(data: bytes) -> None:
    try:
        tree = UnverifiedTree.decode(data, WORLD.suite).trust()
    except (DecodeError, RuleViolation) as error:
        refusal = error
    else:
        assert tree.encode() == data
        return
    assert refusal.rule


def _roundtrip(cls: type[Struct], data: bytes) -> None:
    try:
        value = cls.decode(data)
    except DecodeError as error:
        refusal: DecodeError | None = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.rule
        return
    assert value.encode() == data
    again = value.replace()
    assert again == value
    assert again.encode() == data
    assert cls.from_json(value.to_json()) == value
