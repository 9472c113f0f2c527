"""A struct as a tree of named fields with their values, and facts where something is known about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from coterie.errors import CoterieError
from coterie.interop.inspecting.facts import Context, Fact, date, facts_of
from coterie.interop.structs import RatchetTreeList
from coterie.mls.credential import Certificate
from coterie.mls.extension import (
    Extension,
    ExternalPub,
    ExternalSenders,
    RequiredCapabilities,
)
from coterie.mls.ratchet_tree import Node, UpdatePath
from coterie.mls.secret import Secret
from coterie.mls.tls import (
    GIVEN,
    Codec,
    Enumerated,
    Field,
    Nested,
    OptionalValue,
    Select,
    Struct,
    Uint,
    Uint16Registry,
    Vector,
    json_name,
)
from coterie.mls.tree_math import NodeIndex
from coterie.mls.types import GREASE_VALUES, ExtensionType

_TIMES = frozenset({"not_before", "not_after"})
_SELECTED: dict[str, Callable[[str], str]] = {
    "MLSMessage": lambda name: name.removeprefix("mls_"),
    "FramedContent": lambda name: "application_data" if name == "application" else name,
    "PrivateMessageContent": lambda name: "application_data" if name == "application" else name,
    "Credential": lambda name: {"basic": "identity", "x509": "certificates"}.get(name, "content"),
    "Node": lambda name: f"{name}_node",
    "TreeHashInput": lambda name: f"{name}_node",
    "Proposal": lambda name: name,
    "ProposalOrRef": lambda name: name,
}
_EXTENSIONS: dict[int, type[Struct]] = {
    ExtensionType.RATCHET_TREE: RatchetTreeList,
    ExtensionType.REQUIRED_CAPABILITIES: RequiredCapabilities,
    ExtensionType.EXTERNAL_PUB: ExternalPub,
    ExtensionType.EXTERNAL_SENDERS: ExternalSenders,
}


@dataclass(frozen=True, slots=True)
class Item:
    """A field: the RFC's name and type, its value in words (None where it has parts), its parts, what is known."""

    name: str
    type: str
    value: str | None = None
    note: str = ""
    """The value in another form: bytes as text, seconds as a date."""
    data: bytes | None = None
    """The value of an opaque field."""
    children: tuple[Item, ...] = ()
    facts: tuple[Fact, ...] = ()
    secret: bool = False

    def all_facts(self, path: str = "") -> Iterator[tuple[str, Fact]]:
        """Every fact with the path to what it is about."""
        for fact in self.facts:
            yield path, fact
        for child in self.children:
            inner = child.name if child.name.startswith("[") or not path else f".{child.name}"
            yield from child.all_facts(path + inner)


def item_of(struct: Struct, context: Context, *, given: Any = None) -> Item:  # noqa: ANN401 - see Given
    """A whole struct; `given` is what it selects by where that stands outside."""
    return _struct_item(type(struct).__name__, struct, context, given)


def _struct_item(name: str, struct: Struct, context: Context, given: Any = None) -> Item:  # noqa: ANN401
    if isinstance(struct, RatchetTreeList):
        facts = tuple(facts_of(struct, context))
        return replace(_tree_item(struct, context), name=name, facts=facts)
    inside = context.inside(struct)
    children = [
        _field_item(struct, field, inside, given)
        for field in struct._fields
        if field.when is None or getattr(struct, field.name) is not None
    ]
    facts = tuple(facts_of(struct, context))
    note = ""
    if isinstance(struct, Extension):
        children[1], note = _extension_item(struct, children[1], inside)
    elif isinstance(struct, Certificate):
        note = _certificate(struct.cert_data)
    elif isinstance(struct, UpdatePath):
        note = f"{len(struct.nodes)} nodes above the leaf"
    return Item(name, type(struct).__name__, note=note, children=tuple(children), facts=facts)


def _field_item(struct: Struct, field: Field, context: Context, given: Any) -> Item:  # noqa: ANN401
    value, codec, name = getattr(struct, field.name), field.codec, field.name
    inner = None
    if isinstance(codec, Nested) and codec.given:
        inner = given if codec.given == GIVEN else attrgetter(codec.given)(struct)
    if isinstance(codec, Select):
        selector = given if codec.path == GIVEN else attrgetter(codec.path)(struct)
        name = selected_name(type(struct).__name__, json_name(selector.name), name)
        chosen = codec.case(selector)
        if chosen is None:
            return Item(name, "nothing")
        codec = chosen
    item = _value_item(name, codec, value, context, inner)
    if field.name in _TIMES:
        item = replace(item, note=date(value))
    return item


def selected_name(struct: str, case: str, name: str) -> str:
    """The RFC's name of the field in a case of a selection, which for a Proposal's content is the case's own."""
    rename = _SELECTED.get(struct)
    return name if rename is None or case.startswith("0x") else rename(case)


def _value_item(name: str, codec: Codec, value: Any, context: Context, given: Any = None) -> Item:  # noqa: ANN401
    match codec:
        case Nested():
            return _struct_item(name, value, context, given)
        case OptionalValue(element=element):
            if value is None:
                return Item(name, _type(codec), "not present")
            return _value_item(name, element, value, context)
        case Vector(element=element):
            return _vector_item(name, codec, element, value, context)
    return _plain_item(name, codec, value)


def _plain_item(name: str, codec: Codec, value: Any) -> Item:  # noqa: ANN401 - a number or bytes
    if isinstance(codec, Enumerated):
        return Item(name, _type(codec), f"{json_name(value.name)} ({_registered(value)})")
    if isinstance(codec, Uint):
        return Item(name, _type(codec), str(int(value)))
    if isinstance(value, Secret):
        return Item(name, _type(codec), data=bytes(value), secret=True)
    return Item(name, _type(codec), note=_as_text(name, value), data=bytes(value))


def _vector_item(name: str, codec: Codec, element: Codec, value: Any, context: Context) -> Item:  # noqa: ANN401
    if isinstance(element, Uint):
        shown = [_plain_item("", element, each) for each in value]
        return Item(name, _type(codec), ", ".join(str(item.value) for item in shown) or "none")
    children = tuple(_value_item(f"[{n}]", element, each, context) for n, each in enumerate(value))
    return Item(name, _type(codec), None if children else "none", children=children)


def _tree_item(tree: RatchetTreeList, context: Context) -> Item:
    children = []
    for number, node in enumerate(tree.ratchet_tree):
        index = NodeIndex(number)
        leaf_index = number // 2 if index.is_leaf() else None
        children.append(_node_item(index, node, replace(context, leaf_index=leaf_index)))
    return Item("ratchet_tree", "optional<Node><V>", children=tuple(children))


def _node_item(index: NodeIndex, node: Node | None, context: Context) -> Item:
    where = f"leaf {index // 2}" if index.is_leaf() else f"parent, level {index.level()}"
    if node is None:
        return Item(f"[{int(index)}]", "Node", "blank", note=where)
    item = _struct_item(f"[{int(index)}]", node.node, context)
    return replace(item, note=where)


def _extension_item(extension: Extension, shown: Item, context: Context) -> tuple[Item, str]:
    """The content of an extension whose type is known, and a remark where it is malformed."""
    cls = _EXTENSIONS.get(extension.extension_type)
    if cls is None:
        return shown, ""
    try:
        inner = cls.decode(extension.extension_data)
    except CoterieError as error:
        return shown, f"malformed: {error}"
    return _struct_item("extension_data", inner, context), ""


def _type(codec: Codec) -> str:
    return codec.presentation("").strip().replace(" ", "")


def _registered(value: Any) -> str:  # noqa: ANN401 - any enum
    if isinstance(value, Uint16Registry) and not value.is_known:
        return "GREASE" if int(value) in GREASE_VALUES else "not known here"
    return f"{int(value)}"


def _as_text(name: str, data: bytes) -> str:
    """Bytes as text: identities whenever they are UTF-8, others where all of it is printable."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    if name == "identity" or (text and text.isprintable()):
        return f'"{visible(text)}"'
    return ""


def visible(text: str) -> str:
    """Text in which control, bidirectional and other invisible characters are written as their code points."""
    return "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text)


def _certificate(der: bytes) -> str:
    """Subject, issuer and validity of a certificate, or that it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
            parts: tuple[Callable[[], str], ...] = (
                lambda: f"subject {certificate.subject.rfc4514_string() or 'empty'}",
                lambda: f"issuer {certificate.issuer.rfc4514_string() or 'empty'}",
                lambda: f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}",
            )
            return visible(", ".join(part() for part in parts))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        return visible(f"not a certificate: {str(error).splitlines()[0] if str(error) else 'DER'}")
