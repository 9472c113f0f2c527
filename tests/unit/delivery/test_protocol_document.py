"""docs/delivery-protocol.md against the declarations in coterie.transport.api."""

from __future__ import annotations

import inspect
import re
from enum import IntEnum
from pathlib import Path

import pytest

from coterie.mls.tls import Struct
from coterie.transport import api

DOCUMENT = (Path(__file__).parents[3] / "docs" / "delivery-protocol.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
STRUCTS = {
    name: body
    for body, name in re.findall(r"^struct \{\n(.*?)^\} (\w+);", BLOCKS, re.MULTILINE | re.DOTALL)
}
ENUMS = {
    name: body
    for body, name in re.findall(r"^enum \{(.*?)\} (\w+);", BLOCKS, re.MULTILINE | re.DOTALL)
}


def declared_structs() -> dict[str, type[Struct]]:
    return {
        name: value
        for name, value in vars(api).items()
        if inspect.isclass(value)
        and issubclass(value, Struct)
        and value.__module__.startswith(api.__name__)
    }


def declared_enums() -> dict[str, type[IntEnum]]:
    return {
        name: value
        for name, value in vars(api).items()
        if inspect.isclass(value)
        and issubclass(value, IntEnum)
        and value.__module__.startswith(api.__name__)
    }


def written_fields(body: str) -> list[tuple[str, str]]:
    """Each field with the case it stands under, "" outside a select."""
    fields, selector = [], ""
    for line in map(str.strip, body.splitlines()):
        if match := re.fullmatch(r"select \(\w+\.(\w+)\) \{", line):
            selector = match[1]
        elif line == "};":
            selector = ""
        elif match := re.fullmatch(r"case (\w+): (.*);", line):
            fields.append((f"{selector}={match[1]}", match[2]))
        else:
            fields.append(("", line.removesuffix(";")))
    return fields


def declared_fields(cls: type[Struct]) -> list[tuple[str, str]]:
    return [
        (
            "" if f.when is None else f"{f.when.path}={f.when.values[0].name.lower()}",
            f.codec.presentation(f.name),
        )
        for f in cls._fields
    ]


def test_the_document_and_the_code_declare_the_same_structs() -> None:
    assert len(STRUCTS) > 60
    assert declared_structs().keys() == STRUCTS.keys()


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_a_struct_has_the_fields_that_the_document_gives_it(name: str) -> None:
    assert declared_fields(declared_structs()[name]) == written_fields(STRUCTS[name])


def test_enums_have_the_values_that_the_document_gives_them() -> None:
    for name, cls in declared_enums().items():
        written = {n.upper(): int(v) for n, v in re.findall(r"(\w+)\((\d+)\)", ENUMS[name])}
        assert {m.name: m.value for m in cls} == written, name
    assert declared_enums().keys() == ENUMS.keys()


def test_the_document_lists_the_paths_that_the_code_serves() -> None:
    written = re.findall(r"`(\w+/\w+)`\s+\((\w+)\s+→\s+(\w+)\)", DOCUMENT)
    assert {path: (a, b) for path, a, b in written} == {
        path: (a.__name__, b.__name__) for path, (a, b) in api.OPERATIONS.items()
    }


def test_every_rule_has_one_id_and_is_marked_where_it_binds_a_side() -> None:
    ids = re.findall(r"^- \*\*(D-[A-Z]{3}-\d+)\*\*", DOCUMENT, re.MULTILINE)
    assert len(ids) == len(set(ids)) > 90
    mentioned = set(re.findall(r"D-[A-Z]{3}-\d+", DOCUMENT))
    assert mentioned == set(ids)
