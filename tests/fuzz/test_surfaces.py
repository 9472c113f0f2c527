"""What a user or a service hands to the program: any bytes are described, verified or refused by an error of ours.

The decoders of the services' and the client's structs, `coterie inspect`, files of vectors, and a saved group of which
any entry, value or name, is damaged. FUZZ_EXAMPLES says how much.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import pkgutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coterie
from coterie.errors import CoterieError, DecodeError, StorageError, UnsupportedError
from coterie.interop.inspecting import STRUCTS, describe
from coterie.interop.kinds import generate, read_vectors, verify_file
from coterie.mls.group import Group
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tls import Struct
from coterie.mls.tree_math import LeafIndex
from tests.fuzz.mutation import mutated
from tests.rules.world import NOW, Store, make
from tests.structs import needs_given, structs

WORLD = make()
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
ROOMS = (
    "coterie.transport",
    "coterie.client",
    "coterie.storage",
    "coterie.delivery",
    "coterie.authentication",
)


def _others() -> list[type[Struct]]:
    """The structs of every room but the core, whose own test is beside this one."""
    found: set[type[Struct]] = set()
    for module in pkgutil.walk_packages(coterie.__path__, "coterie."):
        if module.name.startswith(ROOMS):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, Struct) and value is not Struct:
                    found.add(value)
    return sorted(
        (c for c in found if not c.__module__.startswith("coterie.mls") and not needs_given(c)),
        key=lambda cls: (cls.__module__, cls.__qualname__),
    )


@pytest.mark.parametrize("cls", _others(), ids=lambda cls: cls.__name__)
def test_a_struct_of_a_service_decodes_or_is_refused(cls: type[Struct]) -> None:
    valid = structs(cls).map(lambda made: made.encode()).flatmap(mutated)

    @settings(max_examples=max(EXAMPLES // 3, 1))
    @given(valid | st.binary(max_size=100))
    def run(data: bytes) -> None:
        with suppress(DecodeError):
            assert cls.decode(data).encode() == data

    run()


@cache
def _samples() -> tuple[bytes, ...]:
    forger = WORLD.forger()
    return (
        forger.commit().data,
        forger.welcome(WORLD.bundle("zoe")),
        WORLD.bundle("zoe").key_package.encode(),
        WORLD.member("bob").tree.encode(),
        forger.group_info().encode(),
    )


def _texts(data: bytes) -> st.SearchStrategy[bytes]:
    armoured = b"-----BEGIN MLS-----\n" + base64.encodebytes(data) + b"-----END MLS-----\n"
    return st.sampled_from((data, data.hex().encode(), base64.b64encode(data), armoured))


@settings(max_examples=6 * EXAMPLES)
@given(
    st.deferred(lambda: st.sampled_from(_samples())).flatmap(mutated).flatmap(_texts)
    | st.deferred(lambda: st.sampled_from(_samples())).flatmap(_texts).flatmap(mutated)
    | st.binary(max_size=200),
    st.none() | st.sampled_from(sorted(STRUCTS)) | st.text(max_size=8),
    st.none() | st.integers(0, 9),
)
def test_whatever_is_inspected_is_described_or_refused(
    data: bytes, type_name: str | None, suite: int | None
) -> None:
    with suppress(CoterieError):
        json.dumps(describe(data, type_name, suite=suite, now=1_000_000).to_json())


@cache
def _vectors(kind: str) -> bytes:
    return json.dumps(generate(kind, (1,))[:2]).encode()


KINDS = ("tree-math", "crypto-basics", "secret-tree", "messages", "transcript-hashes")


@settings(max_examples=4 * EXAMPLES)
@given(
    st.deferred(lambda: st.sampled_from(KINDS).map(_vectors)).flatmap(mutated)
    | st.binary(max_size=60)
)
def test_a_damaged_file_of_vectors_is_verified_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.json"
        path.write_bytes(data)
        with suppress(CoterieError):
            verify_file(read_vectors(path))


@cache
def _saved() -> Store:
    """A group with something under every kind of key."""
    store = Store(WORLD.stores["alice"])
    group, bob = WORLD.member("alice"), WORLD.member("bob")
    group.receive(WORLD.member("carol").encrypt(b"skips nothing").encode(), now=NOW)
    group.encrypt(b"its echo is awaited")
    group.propose_update()
    group.receive(bob.propose_remove(LeafIndex(3)).encode(), now=NOW)
    store.apply(group)
    group.commit(now=NOW)
    store.apply(group)
    return store


def test_the_saved_group_has_every_kind_of_entry() -> None:
    kinds = {key[:1] for key in _saved()}
    assert kinds == {b"g", b"n", b"i", b"s", b"e", b"k", b"p", b"u", b"o", b"c"}


@settings(max_examples=10 * EXAMPLES)
@given(st.data())
def test_a_saved_group_with_a_damaged_entry_loads_or_is_a_storage_error(
    data: st.DataObject,
) -> None:
    store = Store(_saved())
    kind = data.draw(st.sampled_from(sorted({key[:1] for key in store})))
    key = data.draw(st.sampled_from(sorted(k for k in store if k[:1] == kind)))
    value = store.pop(key)
    match data.draw(st.sampled_from(("value", "name", "gone"))):
        case "value":
            store[key] = data.draw(mutated(value))
        case "name":
            store[data.draw(mutated(key))] = value
    entries = {k: v for k, v in store.items() if k[:2] not in {b"n/", b"i/"}}
    with suppress(StorageError, UnsupportedError):
        group = Group.load(entries, store, WORLD.config)
        group.tree.encode()
        group.save()


def test_a_saved_tree_of_an_impossible_size_is_a_storage_error() -> None:
    group = WORLD.member("bob")
    with pytest.raises(StorageError, match="levels"):
        RatchetTree.stored(group.suite, 25, group.tree.root.as_stored_child(group.suite), Store())
