"""Compares every struct, enum and registry of the core with the presentation blocks and tables of RFC 9420."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import pytest

from coterie.interop.inspecting.items import selected_name
from coterie.interop.structs import RatchetTreeList
from coterie.mls import types
from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES, suite_of
from coterie.mls.proposal import EXTERNAL_SENDER_TYPES, NO_PATH_REQUIRED
from coterie.mls.tls import (
    GIVEN,
    Field,
    Nested,
    Select,
    Struct,
    Uint8Enum,
    Uint16Registry,
    json_name,
)
from coterie.mls.types import GREASE_VALUES, CipherSuite, ProposalType
from tests.structs import all_structs

# What is stored and never sent is ours alone; so is everything in the package `group`.
PRIVATE_MODULES = {
    "coterie.mls.key_schedule",
    "coterie.mls.public_group",
    "coterie.mls.ratchet_tree.subtree",
    "coterie.mls.secret_tree",
}
# Inputs of hash, KDF, signature and HPKE that crypto.py puts together from their parts, and the two examples of §2.1.
WITHOUT_CLASS = {
    "SignContent",
    "EncryptContext",
    "RefHashInput",
    "KDFLabel",
    "optional",
    "StructWithVectors",
}
STRUCTS = [
    cls
    for cls in all_structs()
    if cls.__module__ not in PRIVATE_MODULES and not cls.__module__.startswith("coterie.mls.group.")
]
ENUMS = [
    value
    for value in vars(types).values()
    if isinstance(value, type) and issubclass(value, IntEnum) and value.__module__ == types.__name__
]


@dataclass
class Declared:
    """A struct as the RFC declares it: plain declarations, and selections as (path, {case: declarations})."""

    entries: list[str | tuple[str, dict[str, list[str]]]] = field(default_factory=list)


class Presentation:
    """Everything that the RFC declares in its presentation language."""

    def __init__(self, text: str) -> None:
        self.structs: dict[str, Declared] = {}
        self.enums: dict[str, tuple[int, dict[str, int]]] = {}
        self.aliases: dict[str, str] = {}
        self.lists: dict[str, str] = {}
        for block in re.findall(r"~~~ tls-presentation\n(.*?)~~~", text, re.DOTALL):
            clean = re.sub(r"/\*.*?\*/|//[^\n]*", "", block, flags=re.DOTALL)
            self._tokens: list[str] = re.findall(
                r"[\w.]+(?:<[\w.]+>)?(?:<V>|\[\w+\])?|[{}();:=]", clean
            )
            while self._tokens:
                self._declaration()

    def _next(self, expected: str = "") -> str:
        token: str = self._tokens.pop(0)
        assert not expected or token == expected, f"expected {expected}, found {token}"
        return token

    def _declaration(self) -> None:
        kind = self._next()
        if kind == "struct":
            declared = self._struct_body()
            self.structs[re.sub(r"<.*", "", self._next())] = declared
        elif kind == "enum":
            width, values = self._enum_body()
            self.enums[self._next()] = width, values
        else:
            self._top_level(kind, self._next())
        self._next(";")

    def _top_level(self, kind: str, name: str) -> None:
        if name.endswith("<V>") and kind == "opaque":
            self.aliases[name.removesuffix("<V>")] = "opaque<V>"
        elif name.endswith("<V>"):
            self.lists[name.removesuffix("<V>")] = self.resolved(f"{kind} {name}")
        elif kind in self.aliases:
            self.aliases[name] = self.aliases[kind]
        elif kind.startswith("uint"):
            self.enums[name] = (int(kind.removeprefix("uint")) // 8, {})

    def _enum_body(self) -> tuple[int, dict[str, int]]:
        self._next("{")
        values: dict[str, int] = {}
        width = 0
        while (token := self._next()) != "}":
            if token == "(":
                width = (int(self._next()).bit_length() + 7) // 8
                self._next(")")
                continue
            self._next("(")
            values[token] = int(self._next())
            self._next(")")
        return width, {name: value for name, value in values.items() if name != "reserved"}

    def _struct_body(self) -> Declared:
        self._next("{")
        declared = Declared()
        while (token := self._next()) != "}":
            if token == "select":
                declared.entries.append(self._select())
            elif token == "struct":
                self._next("{")
                self._next("}")
            else:
                declared.entries.append(self._field(token))
                continue
            self._next(";")
        return declared

    def _field(self, kind: str) -> str:
        if self._tokens[0] == ";":
            self._next()
            return kind
        name = self._next()
        while self._next() != ";":
            pass
        return self.resolved(f"{kind} {name}")

    def resolved(self, declaration: str) -> str:
        """A declaration with the aliases of opaque vectors replaced by what they stand for."""
        kind, name = declaration.split(" ")
        if self.aliases.get(kind) == "opaque<V>":
            return f"opaque {name}<V>"
        return declaration

    def _select(self) -> tuple[str, dict[str, list[str]]]:
        self._next("(")
        path = self._next()
        self._next(")")
        self._next("{")
        cases: dict[str, list[str]] = {}
        open_cases: list[str] = []
        while (token := self._next()) != "}":
            if token == "case":
                if any(cases[name] for name in open_cases) or getattr(self, "_closed", False):
                    open_cases = []
                self._closed = False
                open_cases.append(self._next())
                cases[open_cases[-1]] = []
                self._next(":")
            elif token == "struct":
                self._next("{")
                self._next("}")
                self._next(";")
                self._closed = True
            else:
                declared = self._field(token)
                for name in open_cases:
                    cases[name].append(declared)
        self._closed = False
        return path, cases


@pytest.fixture(scope="module")
def text(shared: Path) -> str:
    return (shared / "specs" / "rfc9420.md").read_text()


@pytest.fixture(scope="module")
def rfc(text: str) -> Presentation:
    return Presentation(text)


def of_rfc(cls: type[Struct], declared: Declared) -> list[object]:
    """The RFC's entries in the form of `of_ours`: a selection becomes one choice or some conditional fields."""
    out: list[object] = []
    for entry in declared.entries:
        if isinstance(entry, str):
            out.append(entry)
            continue
        owner, _, path = entry[0].partition(".")
        path = path if owner == cls.__name__ else GIVEN
        if any(isinstance(f.codec, Select) and f.codec.path == path for f in cls._fields):
            out.append((path, {case: _only(fields) for case, fields in entry[1].items()}))
            continue
        conditional: dict[str, set[str]] = {}
        for case, fields in entry[1].items():
            for declaration in fields:
                conditional.setdefault(declaration, set()).add(case)
        out += [(path, declaration, cases) for declaration, cases in conditional.items()]
    return out


def _only(fields: list[str]) -> str | None:
    assert len(fields) <= 1
    return fields[0] if fields else None


def of_ours(cls: type[Struct], declared: list[object]) -> list[object]:
    """Our fields in the same form; a choice, which has one name of its own, takes its cases' names from the RFC."""
    choices = iter([entry for entry in declared if isinstance(entry, tuple) and len(entry) == 2])
    return [_ours(field, choices) for field in cls._fields]


def _ours(field: Field, choices: object) -> object:
    if isinstance(field.codec, Select):
        names: dict[str, str] = next(choices)[1]  # type: ignore[call-overload]
        return field.codec.path, {
            json_name(selector.name): None
            if codec is None
            else codec.presentation(_name(names.get(json_name(selector.name)))).strip()
            for selector, codec in field.codec.table.items()
        }
    declaration = field.codec.presentation(field.name)
    if field.when is None:
        return declaration
    return field.when.path, declaration, {json_name(value.name) for value in field.when.values}


def _name(declaration: str | None) -> str:
    _, _, name = (declaration or "").partition(" ")
    return name.removesuffix("<V>")


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_a_struct_has_the_fields_of_the_rfc_in_its_order_and_of_its_types(
    cls: type[Struct], rfc: Presentation
) -> None:
    if cls.__name__ == "ExternalSenders":
        assert of_ours(cls, []) == [rfc.lists["external_senders"]]
        return
    assert cls.__name__ in rfc.structs, f"RFC 9420 declares no struct {cls.__name__}"
    declared = of_rfc(cls, rfc.structs[cls.__name__])
    assert of_ours(cls, declared) == declared


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_inspection_shows_the_field_of_a_case_under_the_name_of_the_rfc(
    cls: type[Struct], rfc: Presentation
) -> None:
    for each in cls._fields:
        if isinstance(each.codec, Select):
            (cases,) = [e[1] for e in rfc.structs[cls.__name__].entries if not isinstance(e, str)]
            for case, fields in cases.items():
                # The contents of a Proposal have no names in the RFC; there the case names them.
                wanted = _name(_only(fields)) or case
                assert selected_name(cls.__name__, case, each.name) == wanted


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_a_nested_struct_is_given_what_the_rfc_lets_it_select_by(cls: type[Struct]) -> None:
    for each in cls._fields:
        if isinstance(each.codec, Nested):
            selects = any(
                GIVEN in {getattr(f.codec, "path", None), f.when and f.when.path}
                for f in each.codec.cls._fields
            )
            assert bool(each.codec.given) == selects


def test_every_struct_of_the_rfc_has_a_class(rfc: Presentation) -> None:
    assert rfc.structs.keys() - {cls.__name__ for cls in STRUCTS} == WITHOUT_CLASS


def test_the_tree_of_the_extension_is_a_list_of_optional_nodes(rfc: Presentation) -> None:
    assert of_ours(RatchetTreeList, []) == [rfc.lists["ratchet_tree"]]


@pytest.mark.parametrize("cls", ENUMS, ids=lambda cls: cls.__name__)
def test_an_enum_has_the_width_and_the_values_of_the_rfc(
    cls: type[IntEnum], rfc: Presentation
) -> None:
    if cls in (Uint8Enum, Uint16Registry):
        return
    width, values = rfc.enums[cls.__name__]
    assert width == (1 if issubclass(cls, Uint8Enum) else 2)
    if values:
        assert {json_name(member.name): int(member) for member in cls} == values


def test_every_enum_of_the_rfc_has_a_class(rfc: Presentation) -> None:
    assert {cls.__name__ for cls in ENUMS} == rfc.enums.keys()


def table(text: str, title: str) -> list[list[str]]:
    """The rows of a table of §17 that name a value, its values as they are written."""
    before = text[: text.index(f'{{: title="{title}" }}')]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in before.rsplit("\n\n", 1)[1].splitlines()
    ]
    return [row for row in rows if re.fullmatch(r"0x[0-9A-F]{4}", row[0])]


@pytest.mark.parametrize(
    ("title", "cls"),
    [
        ("MLS Wire Formats Registry", types.WireFormat),
        ("MLS Proposal Types Registry", types.ProposalType),
        ("MLS Credential Types Registry", types.CredentialType),
    ],
)
def test_a_registry_has_the_values_of_the_rfc(
    title: str, cls: type[Uint16Registry], text: str
) -> None:
    listed = {row[1]: int(row[0], 16) for row in table(text, title)}
    named = {n: v for n, v in listed.items() if n not in {"RESERVED", "GREASE"}}
    assert {json_name(member.name): int(member) for member in cls} == named


def test_proposal_types_need_a_path_and_may_come_from_outside_as_the_rfc_says(text: str) -> None:
    rows = [row for row in table(text, "MLS Proposal Types Registry") if row[3] in {"Y", "N"}]
    assert {ProposalType(int(row[0], 16)) for row in rows if row[3] == "Y"} == EXTERNAL_SENDER_TYPES
    assert {ProposalType(int(row[0], 16)) for row in rows if row[4] == "N"} == NO_PATH_REQUIRED


def test_grease_values_are_those_of_the_rfc(text: str) -> None:
    rows = table(text, "MLS Proposal Types Registry")
    assert {int(row[0], 16) for row in rows if row[1] == "GREASE"} == GREASE_VALUES


def test_suites_have_the_names_and_the_algorithms_of_the_rfc(text: str) -> None:
    rows = re.findall(r"^\| (0x000[1-7]) +\| (MLS_\w+) ", text, re.MULTILINE)
    assert {int(value, 16): name for value, name in rows} == {int(s): s.name for s in CipherSuite}
    algorithms = re.findall(
        r"^\| (0x000[1-7]) \| (0x\w+) \| (0x\w+) \| (0x\w+) \| SHA(\d+) ", text, re.MULTILINE
    )
    assert len(algorithms) == len(SUPPORTED_CIPHER_SUITES)
    for value, *ids, bits in algorithms:
        suite = suite_of(int(value, 16))
        hpke = suite.hpke
        assert [hpke.kem.kem_id, hpke.kdf.kdf_id, hpke.aead.aead_id] == [int(i, 16) for i in ids]
        assert suite.hash_name == f"sha{bits}"
