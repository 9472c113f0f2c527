"""Structs in structs, and fields whose shape another field decides; what repeats or is seldom read costs little."""

from __future__ import annotations

import types
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from coterie.mls.tls.codecs import (
    Codec,
    Enumerated,
    Gen,
    Opaque,
    OptionalValue,
    Uint,
    json_name,
    kind_of,
    vector_header,
)
from coterie.mls.tls.varint import JSON, decode_varint, overlong

if TYPE_CHECKING:
    from coterie.mls.tls.struct import Struct


class Vector(Codec):
    """`T x<V>` as a tuple; elements of one size of the struct `lazy` are decoded when they are asked for."""

    def __init__(self, element: Codec, lazy: type[Struct] | None = None) -> None:
        self.element = element
        self.hidden, self.nests = element.hidden, element.nests
        self.lazy = lazy
        if lazy is not None:
            _opaques(lazy)

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        end, item, items = gen.var("end"), gen.var("item"), gen.var("items")
        vector_header(gen, end, name, indent)
        if self.lazy is not None:
            read, cls = gen.bind(EqualSized.read, "read"), gen.bind(self.lazy, "cls")
            gen.add(f"{target} = {read}(b, p, {end}, {cls})", indent)
            gen.add(f"if {target} is not None: p = {end}", indent)
            gen.add("else:", indent)
            indent += 1
        gen.add(f"{target} = ()", indent)
        gen.add("if n:", indent)
        gen.add(f"{items} = []", indent + 1)
        gen.add(f"while p < {end}:", indent + 1)
        self.element.decode_source(gen, item, name, indent + 2)
        gen.add(f"{items}.append({item})", indent + 2)
        gen.add(f"if p > {end}: raise _overrun({name!r})", indent + 1)
        gen.add(f"{target} = tuple({items})", indent + 1)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        outer, item = gen.var("outer"), gen.var("item")
        gen.add(f"{outer} = w; part = []; w = part.append", indent)
        parts = gen.var("parts")
        gen.add(f"{parts} = part", indent)
        gen.add(f"for {item} in {value}:", indent)
        self.element.encode_source(gen, item, indent + 1)
        gen.add(f"w = {outer}; x = b''.join({parts})\nw(_header(len(x))); w(x)", indent)

    def to_json(self, value: tuple[Any, ...]) -> JSON:
        """A list."""
        return [self.element.to_json(item) for item in value]

    def from_json(self, value: JSON) -> tuple[Any, ...]:
        """See Codec."""
        if not isinstance(value, list):
            msg = f"expected a list, found {kind_of(value)}"
            raise TypeError(msg)
        return tuple(self.element.from_json(item) for item in value)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return self.element.presentation(name) + "<V>"


class Nested(Codec):
    """A struct in a struct; `given` is the path to what its own selections depend on, if anything."""

    nests = True

    def __init__(self, cls: type[Struct], given: str = "") -> None:
        self.cls = cls
        self.given = given
        self.hidden = cls._confidential

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        del name
        given = f", {self.given}" if self.given else ""
        gen.add(f"{target}, p = {gen.bind(self.cls._decode, 'decode')}(b, p, e{given})", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"w({value}.encode())", indent)

    def to_json(self, value: Struct) -> JSON:
        """An object with a key for each field."""
        return value.to_json()

    def from_json(self, value: JSON, given: Any = None) -> Struct:  # noqa: ANN401 - see Given
        """See Codec."""
        return self.cls.from_json(value, given)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"{self.cls.__name__} {name}"


class InternedStruct(Nested):
    """A struct that many others carry in the same bytes: equal ones are one object, decoded once.

    Most often it is the one that was read before. No encoding is the beginning of another, so comparing is enough.
    """

    _MOST = 4096

    def __init__(self, cls: type[Struct]) -> None:
        super().__init__(cls)
        self._known: dict[bytes, Struct] = {}
        self._last: list[Any] = [b"", None]

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        last, start = gen.bind(self._last, "last"), gen.var("start")
        gen.add(f"x, {target} = {last}", indent)
        gen.add(f"{start} = p; p += len(x)", indent)
        gen.add(f"if {target} is None or p > e or not b.startswith(x, {start}):", indent)
        gen.add(f"p = {start}", indent + 1)
        for _ in _vectors(self.cls):
            vector_header(gen, "q", name, indent + 1)
            gen.add("p = q", indent + 1)
        gen.add(f"{target} = {gen.bind(self._find, 'find')}(b[{start}:p])", indent + 1)

    def _find(self, data: bytes) -> Struct:
        value = self._known.get(data)
        if value is None:
            if len(self._known) >= self._MOST:
                self._known.clear()
            value = self._known[data] = self.cls.decode(data)
        self._last[:] = data, value
        return value


class Interned:
    """Says of a field that its struct repeats: see `InternedStruct`."""


class Lazy:
    """Says of a vector that most readers need few of its elements: see `EqualSized`."""


class EqualSized(Sequence[Any]):
    """The elements of a vector whose parts have equal lengths, each decoded when it is asked for.

    The structs in it consist of opaque vectors only. That every element is well formed is checked when the vector is
    read, by comparing each octet of the headers through one slice with a stride: a Commit to 50,000 blank leaves costs
    a receiver, who needs one ciphertext of it, less than a millisecond to decode.
    """

    __slots__ = ("_buffer", "_cls", "_count", "_size", "_start")

    _LEAST = 1024
    """From how many bytes on it is worth it."""

    def __init__(self, buffer: bytes, start: int, size: int, count: int, cls: type[Struct]) -> None:
        self._buffer = buffer
        self._start = start
        self._size = size
        self._count = count
        self._cls = cls

    @classmethod
    def read(cls, buffer: bytes, pos: int, end: int, element: type[Struct]) -> EqualSized | None:
        """The elements between two positions, or None where they are few or differ in shape."""
        if end - pos < cls._LEAST:
            return None
        headers = _headers(buffer, pos, end, element)
        size = headers.pop() - pos
        count, rest = divmod(end - pos, size)
        if rest:
            return None
        for at in headers:
            if buffer[at:end:size] != buffer[at : at + 1] * count:
                return None
        return cls(buffer, pos, size, count, element)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an index or a slice
        found = range(self._count)[index]
        if isinstance(found, range):
            return tuple(map(self._at, found))
        return self._at(found)

    def _at(self, index: int) -> Any:  # noqa: ANN401 - the element's type
        start = self._start + index * self._size
        return self._cls._decode(self._buffer, start, start + self._size)[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EqualSized | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"({self._count} of {self._cls.__name__})"


def _headers(buffer: bytes, pos: int, end: int, element: type[Struct]) -> list[int]:
    """Where the octets of all headers of the element at `pos` are, and at last where it ends."""
    found: list[int] = []
    for name in _vectors(element):
        length, body = decode_varint(buffer, pos)
        found += range(pos, body)
        pos = body + length
        if pos > end:
            raise overlong(name, length, end - body)
    return [*found, pos]


def _opaques(cls: type[Struct]) -> None:
    """TypeError unless the struct and those in it consist of opaque vectors, of which any bytes are well formed."""
    for field in cls._fields:
        if isinstance(field.codec, Nested):
            _opaques(field.codec.cls)
        elif type(field.codec) is not Opaque:
            msg = f"{cls.__name__}.{field.name} is not opaque"
            raise TypeError(msg)


@cache
def _vectors(cls: type[Struct]) -> tuple[str, ...]:
    """The vectors of which a struct and those in it consist; TypeError where there is anything else."""
    found: list[str] = []
    for field in cls._fields:
        if type(field.codec) is Nested and field.when is None:
            found += _vectors(field.codec.cls)
        elif type(field.codec) in {Opaque, Vector} and field.when is None:
            found.append(f"{cls.__name__}.{field.name}")
        else:
            msg = f"{cls.__name__}.{field.name} is no vector"
            raise TypeError(msg)
    return tuple(found)


class Given:
    """Passes the value at `path` (a field before this one) to the struct in this field, which selects by it."""

    def __init__(self, path: str) -> None:
        self.path = path


GIVEN = "given"


class When:
    """This field is present exactly if the field at `path` has one of `values`; else it is None."""

    def __init__(self, path: str, *values: IntEnum) -> None:
        self.path = path
        self.values = values


class Select(Codec):
    """One field whose type depends on the field at `path`; `default` serves values that the table lacks."""

    def __init__(self, path: str, table: dict[Any, Any], default: Any = None) -> None:  # noqa: ANN401
        self.path = path
        self.table = {value: None if t is None else codec_of(t) for value, t in table.items()}
        self.default = None if default is None else codec_of(default)
        cases = [codec for codec in (*self.table.values(), self.default) if codec is not None]
        self.hidden = any(codec.hidden for codec in cases)
        self.nests = any(codec.nests for codec in cases)

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        word = "if"
        for value, codec in self.table.items():
            gen.add(f"{word} {self.path} == {int(value)}:", indent)
            word = "elif"
            if codec is None:
                gen.add(f"{target} = None", indent + 1)
            else:
                codec.decode_source(gen, target, f"{name}.{json_name(value.name)}", indent + 1)
        gen.add("else:", indent)
        if self.default is None:
            gen.add(f"raise _bad_enum({self.path!r}, {self.path})", indent + 1)
        else:
            self.default.decode_source(gen, target, name, indent + 1)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        path, word = own(self.path), "if"
        for selector, codec in self.table.items():
            gen.add(f"{word} {path} == {int(selector)}:", indent)
            word = "elif"
            if codec is None:
                gen.add("pass", indent + 1)
            else:
                codec.encode_source(gen, value, indent + 1)
        gen.add("else:", indent)
        if self.default is None:
            gen.add(f"raise ValueError('no case for %r' % ({path},))", indent + 1)
        else:
            self.default.encode_source(gen, value, indent + 1)

    def case(self, selector: int) -> Codec | None:
        """The codec of the field when the selecting field is `selector`; ValueError where there is none."""
        if selector in self.table:
            return self.table[selector]
        if self.default is None:
            msg = f"no case for {self.path} = {selector}"
            raise ValueError(msg)
        return self.default


def own(path: str) -> str:
    """The expression for a path in a method of the struct."""
    return path if path == GIVEN else f"self.{path}"


def codec_of(annotation: Any) -> Codec:  # noqa: ANN401 - annotations have no common type
    """The codec that an annotation stands for; TypeError where it stands for none."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(args[0], args[1:])
    if origin is tuple:
        return Vector(codec_of(args[0]))
    if origin is types.UnionType:
        return OptionalValue(codec_of(_without_none(annotation)))
    if isinstance(annotation, type):
        if hasattr(annotation, "_decode"):
            return Nested(annotation)
        if issubclass(annotation, IntEnum):
            return Enumerated(annotation)
        if issubclass(annotation, bytes):
            return Opaque(annotation)
    msg = f"{annotation!r} says nothing about its encoding"
    raise TypeError(msg)


def _without_none(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    return next(arg for arg in get_args(annotation) if arg is not types.NoneType)


def _annotated(base: Any, metadata: tuple[Any, ...]) -> Codec:  # noqa: ANN401
    codec = next((m for m in metadata if isinstance(m, Codec)), None)
    given = next((m for m in metadata if isinstance(m, Given)), None)
    optional = get_origin(base) is types.UnionType
    inner = _without_none(base) if optional else base
    if isinstance(codec, Uint) and isinstance(inner, type) and codec.cast is int:
        codec = codec.with_cast(inner)
    if given is not None:
        codec = Nested(inner, given.path)
    if codec is None:
        codec = codec_of(inner)
    if any(isinstance(m, Interned) for m in metadata):
        codec = InternedStruct(inner)
    if any(isinstance(m, Lazy) for m in metadata):
        element = get_args(inner)[0]
        codec = Vector(codec_of(element), lazy=element)
    if (
        optional
        and not any(isinstance(m, When) for m in metadata)
        and not isinstance(codec, Select)
    ):
        codec = OptionalValue(codec)
    return codec
