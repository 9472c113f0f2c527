"""Shows what MLS bytes mean: decoded field by field, with what can be computed from them.

`reading` finds the bytes in a text and the struct in the bytes, `facts` computes and verifies what can be known without
being a member, `items` puts both into a tree. Whatever bytes come in, `describe` returns or raises a `CoterieError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from coterie.interop.inspecting.facts import Context, Fact
from coterie.interop.inspecting.items import Item, item_of
from coterie.interop.inspecting.reading import (
    STRUCTS,
    Found,
    Wanted,
    find_struct,
    unwrap,
    wanted,
)
from coterie.mls.crypto import suite_of
from coterie.mls.tls import JSON, Struct

__all__ = [
    "STRUCTS",
    "Context",
    "Description",
    "Fact",
    "Item",
    "describe",
    "describe_struct",
    "unwrap",
]


@dataclass(frozen=True, slots=True)
class Description:
    """An object that was read: in which form it came, what it is, its fields and what is known about them."""

    form: str
    type_name: str
    size: int
    struct: Struct
    root: Item
    fields: JSON
    also: tuple[str, ...] = ()
    """Other structs that the bytes decode as, where none was asked for."""

    def to_json(self) -> dict[str, Any]:
        """The description as JSON; `fields` is the mapping of `docs/json.md`."""
        return {
            "form": self.form,
            "type": self.type_name,
            "size": self.size,
            "could_also_be": list(self.also),
            "fields": self.fields,
            "computed": [
                {
                    "path": path,
                    "name": fact.name,
                    "value": fact.value,
                    "good": fact.good,
                }
                for path, fact in self.root.all_facts()
            ],
        }


def describe(
    data: bytes, type_name: str | None = None, *, suite: int | None = None, now: int | None = None
) -> Description:
    """Reads an MLS object out of a text or out of bytes, and says what it is.

    `data` is binary, hexadecimal, base64 or PEM-like; `type_name` the RFC's name of a struct, or None for messages, key
    packages, GroupInfo, ratchet trees, Welcomes and leaf nodes, which are recognised. `suite` is the number of the
    cipher suite where the bytes do not say it; `now` (seconds since 1970) judges lifetimes. Raises `DecodeError` or
    another `CoterieError`.
    """
    context = Context(suite=None if suite is None else suite_of(suite), now=now)
    found = find_struct(data, None if type_name is None else wanted(type_name))
    return _described(found, context)


def describe_struct(struct: Struct, context: Context | None = None) -> Item:
    """The tree of a struct that is decoded already."""
    return item_of(struct, context or Context())


def _described(found: Found, context: Context) -> Description:
    given = found.wanted.given
    root = item_of(found.struct, context, given=given)
    return Description(
        form=found.form,
        type_name=_title(found.wanted, root),
        size=len(found.data),
        struct=found.struct,
        root=root,
        fields=found.struct.to_json(given),
        also=found.also,
    )


def _title(what: Wanted, root: Item) -> str:
    """The name of the struct; for a message also what it carries."""
    if what.cls.__name__ != "MLSMessage":
        return what.name
    return f"{what.name} ({root.children[-1].type})"
