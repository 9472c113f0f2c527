"""Finds the bytes in a text and the struct in the bytes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from coterie.errors import DecodeError, StateError
from coterie.interop.structs import RatchetTreeList
from coterie.mls import (
    credential,
    extension,
    framing,
    group_context,
    key_package,
    leaf_node,
    private_message,
    proposal,
    types,
    welcome,
)
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import KeyPackage
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import structs as tree_structs
from coterie.mls.rules import Rule
from coterie.mls.tls import GIVEN, Nested, Select, Struct, json_name
from coterie.mls.types import ContentType
from coterie.mls.welcome import GroupInfo, Welcome

_MODULES = (
    types,
    credential,
    extension,
    leaf_node,
    key_package,
    tree_structs,
    group_context,
    proposal,
    welcome,
    framing,
    private_message,
)

STRUCTS: dict[str, type[Struct]] = {
    name: value
    for module in _MODULES
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Struct) and value is not Struct
} | {"ratchet_tree": RatchetTreeList}
"""Every struct of the RFC by its name, and the ratchet tree under its field's name."""

_PEM = re.compile(rb"-----BEGIN ([^\r\n-]*)-----(.*?)-----END \1-----", re.DOTALL)
_HEX = re.compile(rb"(?:0x)?[0-9a-fA-F]*")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_MESSAGE_START = b"\x00\x01\x00"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A struct class, the name that it was asked for by, and the content type where it needs one from outside."""

    name: str
    cls: type[Struct]
    given: ContentType | None = None

    def read(self, data: bytes) -> Struct:
        """Decodes exactly these bytes."""
        return self.cls.decode(data, self.given)


@dataclass(frozen=True, slots=True)
class Found:
    """A struct, the bytes that it was read from, and the form in which they came."""

    form: str
    data: bytes
    wanted: Wanted
    struct: Struct
    also: tuple[str, ...] = ()


def wanted(name: str) -> Wanted:
    """The struct of a name: `LeafNode`, `ratchet_tree`, or `PrivateMessageContent:commit`.

    Raises `StateError` for a name that is not known, or where the content type is missing or unknown.
    """
    plain, _, kind = name.partition(":")
    found = {each.lower(): each for each in STRUCTS}.get(plain.strip().lower())
    if found is None:
        close = get_close_matches(plain, STRUCTS, cutoff=0.5) or ["LeafNode", "ratchet_tree"]
        msg = f"RFC 9420 has no struct {plain!r}; it has, for example, {', '.join(close)}"
        raise StateError(msg)
    cls = STRUCTS[found]
    if not _needs_content_type(cls):
        return Wanted(found, cls)
    for content_type in ContentType:
        if json_name(content_type.name) == kind.strip().lower():
            return Wanted(found, cls, content_type)
    names = ", ".join(f"{found}:{json_name(each.name)}" for each in ContentType)
    msg = f"{found} depends on the content type around it: say one of {names}"
    raise StateError(msg)


def _needs_content_type(cls: type[Struct]) -> bool:
    return any(
        (field.when is not None and field.when.path == GIVEN)
        or (isinstance(field.codec, Nested) and field.codec.given == GIVEN)
        or (isinstance(field.codec, Select) and field.codec.path == GIVEN)
        for field in cls._fields
    )


_RECOGNISED = tuple(
    Wanted(name, cls)
    for name, cls in (
        ("MLSMessage", MLSMessage),
        ("KeyPackage", KeyPackage),
        ("GroupInfo", GroupInfo),
        ("Welcome", Welcome),
        ("ratchet_tree", RatchetTreeList),
        ("LeafNode", LeafNode),
    )
)


def find_struct(data: bytes, what: Wanted | None = None) -> Found:
    """The struct in some input, whatever form it came in.

    Raises `DecodeError` with the most telling reason where there is none.
    """
    failures: list[tuple[int, DecodeError]] = []
    for form, inner in unwrap(data):
        fitting: list[tuple[Wanted, Struct]] = []
        for each in (what,) if what is not None else _RECOGNISED:
            try:
                fitting.append((each, each.read(inner)))
            except DecodeError as error:
                failures.append((_telling(each, form, inner), error))
        if fitting:
            (first, struct), *others = fitting
            return Found(form, inner, first, struct, tuple(other.name for other, _ in others))
    if what is None and not any(rank for rank, _ in failures):
        names = ", ".join(each.name for each in _RECOGNISED)
        msg = f"these bytes are none of {names}; name another struct with --type"
        raise DecodeError(msg, rule=Rule.TRUNCATED if len(data) < len(_MESSAGE_START) else None)
    raise max(failures, key=lambda failure: failure[0])[1]


def _telling(what: Wanted, form: str, data: bytes) -> int:
    """How much a failure says: most where the bytes begin like a message, and came in a form of text."""
    if what not in _RECOGNISED:
        return 1 + (form != "binary")
    return 2 * (what.cls is MLSMessage and data.startswith(_MESSAGE_START))


def unwrap(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes that some input may stand for, the most likely form first."""
    pem = _PEM.search(data)
    if pem is not None:
        inner = _base64(re.sub(rb"^[\w-]+:.*$", b"", pem[2], flags=re.MULTILINE))
        if inner is not None:
            yield f"PEM ({pem[1].decode('ascii', 'replace').strip()})", inner
    compact = re.sub(rb"[\s:\"',]+", b"", data)
    if compact and _HEX.fullmatch(compact):
        digits = compact.removeprefix(b"0x")
        if digits and len(digits) % 2 == 0:
            yield "hexadecimal", bytes.fromhex(digits.decode())
    inner = _base64(re.sub(rb"[\s\"']+", b"", data))
    if inner is not None:
        yield "base64", inner
    yield "binary", data


def _base64(text: bytes) -> bytes | None:
    """The bytes of base64 in either alphabet, with or without padding; None where it is none."""
    compact = re.sub(rb"\s+", b"", text)
    if not _BASE64.fullmatch(compact):
        return None
    compact = compact.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
