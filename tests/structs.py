"""Every struct class of the core, and strategies of hypothesis that make instances from the declarations alone."""

from __future__ import annotations

import importlib
import pkgutil
from enum import IntEnum
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

import coterie.mls
from coterie.mls.tls import (
    GIVEN,
    Codec,
    Enumerated,
    Field,
    Fixed,
    Nested,
    Opaque,
    OptionalValue,
    Select,
    Struct,
    Uint,
    Uint16Registry,
    Vector,
)
from coterie.mls.types import ContentType


def all_structs() -> list[type[Struct]]:
    """Every struct class under `coterie.mls`, by module and name."""
    found: set[type[Struct]] = set()
    for module in pkgutil.walk_packages(coterie.mls.__path__, "coterie.mls."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Struct) and value is not Struct:
                found.add(value)
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def needs_given(cls: type[Struct]) -> bool:
    """Whether a struct can only be read and written when the content type is given from outside."""
    return any(_path(field) == GIVEN for field in cls._fields)


def _path(field: Field) -> str | None:
    codec = field.codec
    if isinstance(codec, Nested) and codec.given:
        return codec.given
    if isinstance(codec, Select):
        return codec.path
    return field.when.path if field.when else None


def values(codec: Codec, given: Any = None) -> st.SearchStrategy[Any]:
    """Values of one field."""
    match codec:
        case Vector(element=element):
            return st.lists(values(element), max_size=3).map(tuple)
        case OptionalValue(element=element):
            return st.none() | values(element)
        case Nested(cls=cls):
            return structs(cls, given)
    return _plain_values(codec)


def _plain_values(codec: Codec) -> st.SearchStrategy[Any]:
    match codec:
        case Enumerated(cls=cls):
            return _members(cls)
        case Uint(width=width, cast=cast):
            return st.integers(0, (1 << (8 * width)) - 1).map(cast)
        case Fixed(length=length):
            return st.binary(min_size=length, max_size=length)
        case Opaque(cast=cast):
            return st.binary(max_size=70).map(cast)
    raise TypeError(codec)


def _members(cls: type[IntEnum]) -> st.SearchStrategy[Any]:
    known = st.sampled_from(list(cls))
    if issubclass(cls, Uint16Registry):
        return known | st.integers(0, 0xFFFF).map(cls)
    return known


@st.composite
def structs(draw: st.DrawFn, cls: type[Struct], given: Any = None) -> Any:
    """Instances of a struct class; fields that depend on others follow them."""
    made = SimpleNamespace(given=given)
    for field in cls._fields:
        codec: Codec | None = field.codec
        selector: Any = attrgetter(path)(made) if (path := _path(field)) else None
        if field.when is not None and selector not in field.when.values:
            setattr(made, field.name, None)
            continue
        inner = None
        if isinstance(codec, Nested) and codec.given:
            inner = selector
        if isinstance(codec, Select):
            # A message of a wire format that nobody knows has no body that could be made.
            if codec.default is None and selector not in codec.table:
                selector = draw(st.sampled_from(sorted(codec.table)))
                setattr(made, path or "", selector)
            codec = codec.case(selector)
        setattr(made, field.name, None if codec is None else draw(values(codec, inner)))
    return cls(**{field.name: getattr(made, field.name) for field in cls._fields})


def with_given(cls: type[Struct]) -> st.SearchStrategy[tuple[Any, Any]]:
    """An instance of a struct class and what must be given to write it, None for most."""
    if not needs_given(cls):
        return structs(cls).map(lambda struct: (struct, None))
    return st.sampled_from(ContentType).flatmap(
        lambda given: structs(cls, given).map(lambda struct: (struct, given))
    )
