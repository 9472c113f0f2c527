"""`docs/bounds.md` names tests and rules that exist, and the two bounds that nothing else tests hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.mls.credential import Certificate
from coterie.mls.rules import Rule
from coterie.mls.tls import Codec, Nested, OptionalValue, Select, Struct, Vector
from coterie.mls.tls.nested import InternedStruct
from tests.structs import all_structs

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/bounds.md").read_text()


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 25
    missing = [f"{p}::{t}" for p, t in named if f"def {t}(" not in (ROOT / p).read_text()]
    assert not missing


def test_every_rule_that_is_named_exists() -> None:
    named = set(re.findall(r"`(\d[\d.]*/[\w-]+)`", TEXT))
    assert named
    assert named <= {str(rule) for rule in Rule}


def _inner(codec: Codec | None) -> Iterator[type[Struct]]:
    match codec:
        case Nested(cls=cls):
            yield cls
        case Vector(element=element) | OptionalValue(element=element):
            yield from _inner(element)
        case Select(table=table, default=default):
            for each in (*table.values(), default):
                yield from _inner(each)


def _below(cls: type[Struct], path: tuple[type[Struct], ...] = ()) -> None:
    assert cls not in path, path
    for field in cls._fields:
        for inner in _inner(field.codec):
            _below(inner, (*path, cls))


@pytest.mark.parametrize("cls", all_structs(), ids=lambda cls: cls.__name__)
def test_no_struct_contains_itself(cls: type[Struct]) -> None:
    _below(cls)


def test_repeated_structs_are_kept_up_to_a_bound() -> None:
    codec = InternedStruct(Certificate)
    for number in range(codec._MOST + 10):
        codec._find(Certificate(b"%d" % number).encode())
        assert len(codec._known) <= codec._MOST
