"""The wire codec of RFC 9420 §2.1: TLS presentation language with optional values and variable-size vectors.

A struct is declared once, as a class whose annotations are the RFC's fields in the RFC's order; the codec, the JSON
mapping, equality and `repr` follow from the declaration:

    class Certificate(Struct):
        cert_data: bytes                                        # opaque cert_data<V>

    class Sender(Struct):
        sender_type: SenderType                                 # an enum brings its own width
        leaf_index: Annotated[LeafIndex | None, Uint(4), When("sender_type", SenderType.MEMBER)] = None

`bytes` is `opaque x<V>`, `tuple[T, ...]` is `T x<V>`, `T | None` is `optional<T>` (unless a `When` says that presence
follows from another field), and everything else is an `Annotated` with one of the small codec classes below.

Strategy: when the class is made, one decoder and one encoder are generated for it as Python source, since a group of
50,000 has 100,000 structs to read. A decoded struct keeps the slice it came from, so what arrived is what is hashed,
and encoding it again is free. Lengths are compared with what is left of the buffer before anything is allocated.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from operator import attrgetter
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeAlias,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from coterie.errors import DecodeError
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret

JSON: TypeAlias = "bool | int | str | list[JSON] | dict[str, JSON] | None"

MAX_VECTOR_LENGTH = (1 << 30) - 1
_SHORT_HEADERS = tuple(bytes((n,)) for n in range(64))


def encode_varint(n: int) -> bytes:
    """The header of a vector of `n` bytes, 1, 2 or 4 bytes long (§2.1.2); ValueError above 2^30 - 1."""
    if n < 64:
        return _SHORT_HEADERS[n]
    if n < 16384:
        return (n | 0x4000).to_bytes(2)
    if n <= MAX_VECTOR_LENGTH:
        return (n | 0x8000_0000).to_bytes(4)
    msg = f"a vector of {n} bytes is longer than the {MAX_VECTOR_LENGTH} that its header can say"
    raise ValueError(msg)


def encode_opaque(data: bytes) -> bytes:
    """`opaque data<V>`: the header and the bytes."""
    n = len(data)
    return (_SHORT_HEADERS[n] if n < 64 else encode_varint(n)) + data


def decode_varint(buf: bytes, pos: int) -> tuple[int, int]:
    """The length that the vector header at `pos` says, and the position after it (§2.1.2).

    Raises `DecodeError` for the invalid prefix, a header that is not minimal, or one that is cut off.
    """
    try:
        first = buf[pos]
        return (first, pos + 1) if first < 64 else _long_varint(buf, first, pos + 1)
    except IndexError:
        raise _ends_early("a vector header") from None


def _long_varint(buf: bytes, first: int, pos: int) -> tuple[int, int]:
    if first < 0x80:
        n = (first & 0x3F) << 8 | buf[pos]
        minimum, pos = 64, pos + 1
    elif first < 0xC0:
        n = (first & 0x3F) << 24 | buf[pos] << 16 | buf[pos + 1] << 8 | buf[pos + 2]
        minimum, pos = 16384, pos + 3
    else:
        raise DecodeError("a vector header starts with the bits 11", rule=Rule.VECTOR_PREFIX)
    if n < minimum:
        raise DecodeError(f"length {n} is written in too many bytes", rule=Rule.VECTOR_MINIMAL)
    return n, pos


def _ends_early(what: str) -> DecodeError:
    return DecodeError(f"the bytes end in the middle of {what}", rule=Rule.TRUNCATED)


def _overlong(name: str, length: int, left: int) -> DecodeError:
    return DecodeError(
        f"{name} says it has {length} bytes, {left} are left", rule=Rule.VECTOR_OVERRUN
    )


def _overrun(name: str) -> DecodeError:
    return DecodeError(f"the last element of {name} goes past its end", rule=Rule.VECTOR_OVERRUN)


def _bad_presence(name: str, value: int) -> DecodeError:
    return DecodeError(f"{name}: presence octet {value}, must be 0 or 1", rule=Rule.PRESENCE_OCTET)


def _bad_enum(name: str, value: int) -> DecodeError:
    return DecodeError(f"{name} has no value {value}", rule=Rule.ENUM_VALUE)


def _of_length(value: bytes, length: int) -> bytes:
    if len(value) != length:
        msg = f"{len(value)} bytes where there must be {length}"
        raise ValueError(msg)
    return value


class Uint8Enum(IntEnum):
    """A closed enum of one byte: other values do not decode."""


class Uint16Enum(IntEnum):
    """A closed enum of two bytes: other values do not decode."""


class Uint16Registry(IntEnum):
    """An open IANA registry of two-byte values: unknown ones survive decoding, JSON and encoding (§13)."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"0x{value:04x}"
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether the registry names this value here."""
        return self._value_ in type(self)._value2member_map_


class Gen:
    """The source of one generated function and the names it uses."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._count = 0

    def add(self, source: str, indent: int = 0) -> None:
        """Appends the lines of `source`, indented by `indent` steps."""
        self.lines += ["    " * (indent + 1) + line for line in source.splitlines()]

    def bind(self, value: object, hint: str = "k") -> str:
        """A fresh global name that stands for `value`."""
        self._count += 1
        name = f"_{hint}{self._count}"
        self.names[name] = value
        return name

    def var(self, hint: str = "v") -> str:
        """A fresh local name."""
        self._count += 1
        return f"{hint}{self._count}"

    def function(self, header: str, extra: dict[str, Any]) -> Any:  # noqa: ANN401 - made at run time
        """Compiles what was collected under `header`."""
        source = f"def {header}:\n" + "\n".join(self.lines)
        namespace = {**self.names, **extra}
        exec(compile(source, f"<{header}>", "exec"), namespace)
        return namespace[header[: header.index("(")]]


_RUNTIME = {
    "_long_varint": _long_varint,
    "_overlong": _overlong,
    "_overrun": _overrun,
    "_bad_presence": _bad_presence,
    "_bad_enum": _bad_enum,
    "_ends_early": _ends_early,
    "_header": encode_varint,
    "_of_length": _of_length,
    "DecodeError": DecodeError,
}


def _kind(value: JSON) -> str:
    """What a JSON value is; the value itself may be a secret."""
    return type(value).__name__


class Codec:
    """How one field is written. `name` in the generated code is what errors call the field."""

    hidden = False
    """Whether a secret is in it."""
    nests = False
    """Whether structs are in it, which keep the slice that they came from."""

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """Adds code that reads from `b` at `p` (end `e`) into the local `target` and moves `p`."""
        raise NotImplementedError

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """Adds code that appends the encoding of the expression `value` with `w(...)`."""
        raise NotImplementedError

    def to_json(self, value: Any) -> JSON:  # noqa: ANN401 - the field's own type
        """The JSON form of a value."""
        raise NotImplementedError

    def from_json(self, value: JSON) -> Any:  # noqa: ANN401 - the field's own type
        """The value of a JSON form; ValueError or TypeError where it is none."""
        raise NotImplementedError

    def presentation(self, name: str) -> str:
        """The declaration of a field `name` in the presentation language."""
        raise NotImplementedError


class Uint(Codec):
    """An unsigned integer of `width` bytes, big-endian, as an int or a subclass of it."""

    _formats: ClassVar[dict[int, str]] = {1: "B", 2: "H", 4: "I", 8: "Q"}

    def __init__(self, width: int, cast: type[int] = int) -> None:
        self.width = width
        self.cast = cast
        self.packer = struct.Struct(">" + self._formats[width])

    def with_cast(self, cast: type[int]) -> Uint:
        """The same integer as instances of `cast`."""
        return Uint(self.width, cast)

    def _read(self, gen: Gen, name: str, indent: int) -> str:
        if self.width == 1:
            gen.add(f"if p >= e: raise _ends_early({name!r})", indent)
            gen.add("i = b[p]; p += 1", indent)
        else:
            unpack = gen.bind(self.packer.unpack_from, "unpack")
            gen.add(f"if p + {self.width} > e: raise _ends_early({name!r})", indent)
            gen.add(f"i = {unpack}(b, p)[0]; p += {self.width}", indent)
        return "i"

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        value = self._read(gen, name, indent)
        if self.cast is not int:
            value = f"{gen.bind(self.cast, 'cast')}({value})"
        gen.add(f"{target} = {value}", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"w({gen.bind(self.packer.pack, 'pack')}({value}))", indent)

    def to_json(self, value: int) -> JSON:
        """A number, or a decimal string for 64 bits (JavaScript's numbers end at 2^53)."""
        return str(int(value)) if self.width == 8 else int(value)

    def from_json(self, value: JSON) -> int:
        """See Codec."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            msg = f"expected an integer, found {_kind(value)}"
            raise TypeError(msg)
        number = int(value)
        if not 0 <= number < 1 << (8 * self.width):
            msg = f"{number} does not fit in {self.width} bytes"
            raise ValueError(msg)
        return self.cast(number)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"uint{8 * self.width} {name}"


class Enumerated(Uint):
    """A value of a closed enum or of an open registry; the class says which."""

    def __init__(self, cls: type[IntEnum]) -> None:
        super().__init__(1 if issubclass(cls, Uint8Enum) else 2, cls)
        self.cls = cls

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        value = self._read(gen, name, indent)
        gen.add(
            f"{target} = {gen.bind(self.cls._value2member_map_.get, 'members')}({value})", indent
        )
        if issubclass(self.cls, Uint16Registry):
            gen.add(f"if {target} is None: {target} = {gen.bind(self.cls, 'cls')}({value})", indent)
        else:
            gen.add(f"if {target} is None: raise _bad_enum({self.cls.__name__!r}, {value})", indent)

    def to_json(self, value: int) -> JSON:
        """The RFC's name in lower case, or the number of a value that is not known here."""
        member = self.cls._value2member_map_.get(int(value))
        return int(value) if member is None else json_name(member.name)

    def from_json(self, value: JSON) -> int:
        """See Codec."""
        if isinstance(value, str):
            for member in self.cls:
                if json_name(member.name) == value:
                    return member
            msg = f"{self.cls.__name__} has no value named {value!r}"
            raise ValueError(msg)
        return self.cls(super().from_json(value))

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"{self.cls.__name__} {name}"


def json_name(name: str) -> str:
    """How the RFC writes the name of an enum's value: suites as they are, all else in lower case."""
    is_suite = name.startswith("MLS_") and name[4:7].isdigit()
    return name if is_suite else name.lower()


class Opaque(Codec):
    """`opaque x<V>`; `cast` is bytes or Secret, `type_name` an alias that the RFC gives it."""

    def __init__(self, cast: type[bytes] = bytes, type_name: str = "") -> None:
        self.cast = cast
        self.type_name = type_name
        self.hidden = cast is Secret

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        _vector_header(gen, "q", name, indent)
        cast = "" if self.cast is bytes else gen.bind(self.cast, "cast")
        gen.add(f"{target} = {cast}(b[p:q]); p = q", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"x = {value}\nw(_header(len(x))); w(x)", indent)

    def to_json(self, value: bytes) -> JSON:
        """Hexadecimal digits."""
        return bytes(value).hex()

    def from_json(self, value: JSON) -> bytes:
        """See Codec."""
        if not isinstance(value, str):
            msg = f"expected hexadecimal digits, found {_kind(value)}"
            raise TypeError(msg)
        return self.cast(bytes.fromhex(value))

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"{self.type_name} {name}" if self.type_name else f"opaque {name}<V>"


class Fixed(Opaque):
    """`opaque x[n]`."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"q = p + {self.length}", indent)
        gen.add(f"if q > e: raise _ends_early({name!r})", indent)
        gen.add(f"{target} = b[p:q]; p = q", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"w(_of_length({value}, {self.length}))", indent)

    def from_json(self, value: JSON) -> bytes:
        """See Codec."""
        return _of_length(super().from_json(value), self.length)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"opaque {name}[{self.length}]"


class Rest(Opaque):
    """All bytes up to the end: the padding of a PrivateMessageContent."""

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        del name
        gen.add(f"{target} = b[p:e]; p = e", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"w({value})", indent)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"opaque {name}[length_of_{name}]"


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
        _vector_header(gen, end, name, indent)
        if self.lazy is not None:
            read, cls = gen.bind(EqualSized.read, "read"), gen.bind(self.lazy, "cls")
            gen.add(f"{target} = {read}(b, p, {end}, {cls})", indent)
            gen.add(f"if {target} is not None: p = {end}", indent)
            gen.add("else:", indent)
            indent += 1
        gen.add(f"{items} = []", indent)
        gen.add(f"while p < {end}:", indent)
        self.element.decode_source(gen, item, name, indent + 1)
        gen.add(f"{items}.append({item})", indent + 1)
        gen.add(f"if p > {end}: raise _overrun({name!r})", indent)
        gen.add(f"{target} = tuple({items})", indent)

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
            msg = f"expected a list, found {_kind(value)}"
            raise TypeError(msg)
        return tuple(self.element.from_json(item) for item in value)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return self.element.presentation(name) + "<V>"


class OptionalValue(Codec):
    """`optional<T> x` as a value or None."""

    def __init__(self, element: Codec) -> None:
        self.element = element
        self.hidden, self.nests = element.hidden, element.nests

    def decode_source(self, gen: Gen, target: str, name: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"if p >= e: raise _ends_early({name!r})", indent)
        gen.add("i = b[p]; p += 1", indent)
        gen.add("if i == 0:", indent)
        gen.add(f"{target} = None", indent + 1)
        gen.add("elif i == 1:", indent)
        self.element.decode_source(gen, target, name, indent + 1)
        gen.add(f"else: raise _bad_presence({name!r}, i)", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        gen.add(f"if {value} is None: w(b'\\x00')", indent)
        gen.add("else:", indent)
        gen.add("w(b'\\x01')", indent + 1)
        self.element.encode_source(gen, value, indent + 1)

    def to_json(self, value: Any) -> JSON:  # noqa: ANN401 - the field's own type
        """The value, or null."""
        return None if value is None else self.element.to_json(value)

    def from_json(self, value: JSON) -> Any:  # noqa: ANN401 - the field's own type
        """See Codec."""
        return None if value is None else self.element.from_json(value)

    def presentation(self, name: str) -> str:
        """See Codec."""
        inner = self.element.presentation(name)
        return f"optional<{inner.rsplit(' ', 1)[0]}> {name}"


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
            _vector_header(gen, "q", name, indent + 1)
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
            raise _overlong(name, length, end - body)
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
        path, word = _own(self.path), "if"
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


def _own(path: str) -> str:
    return path if path == GIVEN else f"self.{path}"


def _vector_header(gen: Gen, end: str, name: str, indent: int) -> None:
    """Code that reads a vector's header and puts its end into the local `end`."""
    gen.add(f"if p >= e: raise _ends_early({name!r})", indent)
    gen.add("n = b[p]; p += 1", indent)
    gen.add("if n > 63: n, p = _long_varint(b, n, p)", indent)
    gen.add(f"{end} = p + n", indent)
    gen.add(f"if {end} > e: raise _overlong({name!r}, n, e - p)", indent)


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
        if issubclass(annotation, Struct):
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


class Field:
    """One declared field: its name, codec, the condition of its presence, its default."""

    __slots__ = ("codec", "default", "has_default", "name", "when")

    def __init__(self, name: str, annotation: Any, default: tuple[Any, ...]) -> None:  # noqa: ANN401
        metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        self.name = name
        self.codec = codec_of(annotation)
        self.when = next((m for m in metadata if isinstance(m, When)), None)
        self.has_default = bool(default)
        self.default = default[0] if default else None


@dataclass_transform(frozen_default=True)
class StructMeta(type):
    """Turns annotations into slots and generates constructor, decoder and encoder."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any
    ) -> StructMeta:
        """Makes the class with slots for the annotated fields."""
        own = [
            f
            for f, hint in namespace.get("__annotations__", {}).items()
            if "ClassVar" not in str(hint)
        ]
        defaults = {f: (namespace.pop(f),) if f in namespace else () for f in own}
        namespace["__slots__"] = (*own, "_raw") if own or not bases else ()
        if bases and not own:
            namespace["__slots__"] = ("_raw",)
        if not bases:
            namespace["__slots__"] = ()
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        if bases:
            _finish(cls, own, defaults)  # type: ignore[arg-type]
        return cls


class Struct(metaclass=StructMeta):
    """The base of every struct; immutable, compared by encoding."""

    _fields: ClassVar[tuple[Field, ...]]
    _confidential: ClassVar[bool] = False
    """Whether a secret is among the fields, or among theirs."""
    _raw: ClassVar[Any]
    _decode: ClassVar[Any]
    _build: ClassVar[Any]

    @classmethod
    def decode(cls, data: bytes, given: Any = None) -> Self:  # noqa: ANN401 - see Given
        """Reads a struct that fills `data` exactly; `given` is for structs that select by what stands outside.

        Raises `DecodeError` for anything else, trailing bytes included (§2.1).
        """
        value, end = cls.decode_prefix(data, 0, given)
        if end != len(data):
            msg = f"{len(data) - end} bytes after the end of {cls.__name__}"
            raise DecodeError(msg, rule=Rule.TRAILING_BYTES)
        return value

    @classmethod
    def decode_prefix(cls, data: bytes, pos: int = 0, given: Any = None) -> tuple[Self, int]:  # noqa: ANN401
        """Reads a struct that starts at `pos`; returns it and the position after it."""
        try:
            if given is None:
                result: tuple[Self, int] = cls._decode(data, pos, len(data))
            else:
                result = cls._decode(data, pos, len(data), given)
        except IndexError:
            raise _ends_early(cls.__name__) from None
        return result

    def encode(self, given: Any = None) -> bytes:  # noqa: ANN401 - see Given
        """The encoding: the very bytes it was decoded from, or new ones.

        Raises ValueError for a field that is out of its range, of another type, or missing.
        """
        raw = self._raw
        if type(raw) is bytes:
            return raw
        if raw is None:
            try:
                raw = self._build(given)
            except (struct.error, TypeError, AttributeError) as error:
                msg = f"{type(self).__name__} has a field out of range or of another type: {error}"
                raise ValueError(msg) from None
        else:
            raw = raw[0][raw[1] : raw[2]]
        object.__setattr__(self, "_raw", raw)
        return raw  # type: ignore[no-any-return]

    @classmethod
    def assembled(cls, raw: bytes, *values: Any) -> Self:
        """A struct of values that were decoded, put together from the slices that arrived: `raw` is its encoding."""
        self = cls(*values)
        object.__setattr__(self, "_raw", raw)
        return self

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        values = {f.name: getattr(self, f.name) for f in self._fields}
        return type(self)(**{**values, **changes})

    def to_json(self, given: Any = None) -> JSON:  # noqa: ANN401 - see Given
        """The JSON mapping, documented in `docs/json.md`; `from_json` gives back an equal struct."""
        out: dict[str, JSON] = {}
        for field in self._fields:
            value = getattr(self, field.name)
            if field.when is not None and value is None:
                continue
            codec = self._case(field, given)
            out[field.name] = None if codec is None else codec.to_json(value)
        return out

    def _case(self, field: Field, given: Any) -> Codec | None:  # noqa: ANN401 - see Given
        if not isinstance(field.codec, Select):
            return field.codec
        if field.codec.path == GIVEN:
            return field.codec.case(given)
        return field.codec.case(attrgetter(field.codec.path)(self))

    @classmethod
    def from_json(cls, value: JSON, given: Any = None) -> Self:  # noqa: ANN401 - see Given
        """The struct of a JSON mapping; raises `DecodeError` where it is none."""
        try:
            return cls(**cls._json_fields(value, given))
        except (TypeError, ValueError, AttributeError) as error:
            msg = f"{cls.__name__}: {error}"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING) from error

    @classmethod
    def _json_fields(cls, value: JSON, given: Any) -> dict[str, Any]:  # noqa: ANN401 - see Given
        if not isinstance(value, dict):
            msg = f"expected an object, found {_kind(value)}"
            raise TypeError(msg)
        unknown = value.keys() - {f.name for f in cls._fields}
        if unknown:
            msg = f"unknown fields {sorted(unknown)}"
            raise ValueError(msg)
        values: dict[str, Any] = {GIVEN: given}
        for field in cls._fields:
            if not cls._expects(field, values, field.name in value):
                values[field.name] = None
                continue
            codec: Codec | None = field.codec
            if isinstance(codec, Nested) and codec.given:
                inner = _selector(values, codec.given)
                values[field.name] = codec.from_json(value[field.name], inner)
                continue
            if isinstance(codec, Select):
                codec = codec.case(_selector(values, codec.path))
            values[field.name] = None if codec is None else codec.from_json(value[field.name])
        del values[GIVEN]
        return values

    @classmethod
    def _expects(cls, field: Field, values: dict[str, Any], present: bool) -> bool:  # noqa: FBT001
        """Whether JSON must have the field; ValueError where that is not what `present` says."""
        expected = True
        if field.when is not None:
            selector = _selector(values, field.when.path)
            # A struct that selects by what stands outside may be read without that being known.
            expected = present if selector is None else selector in field.when.values
        if expected != present:
            msg = f"field {field.name!r} is {'missing' if expected else 'not part of this case'}"
            raise ValueError(msg)
        return expected

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"{type(self).__name__} is immutable; use replace({name}=...)"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"{type(self).__name__} is immutable"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        if other is self:
            return True
        if type(other) is not type(self):
            return NotImplemented
        return all(
            getattr(self, field.name) == getattr(other, field.name) for field in self._fields
        )

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in self._fields))

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={self._show_field(field)}"
            for field in self._fields
            if field.when is None or getattr(self, field.name) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def _show_field(self, field: Field) -> str:
        value = getattr(self, field.name)
        if field.codec.hidden and isinstance(value, bytes):
            return repr(Secret(value))
        return _show(value)

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields and nothing else: the slice that a struct came from may have more around it.
        if self._confidential:
            msg = f"{type(self).__name__} holds a secret and cannot be pickled"
            raise TypeError(msg)
        return type(self), tuple(getattr(self, field.name) for field in self._fields)


def _selector(values: dict[str, Any], path: str) -> Any:  # noqa: ANN401 - any enum
    """The value at a path that starts with the name of a field that was read already."""
    first, _, rest = path.partition(".")
    return attrgetter(rest)(values[first]) if rest else values[first]


def _show(value: Any) -> str:  # noqa: ANN401 - anything a field can hold
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 8 else f"{value[:8].hex()}…({len(value)})"
    if isinstance(value, IntEnum):
        return json_name(value.name)
    if isinstance(value, tuple):
        inner = ", ".join(map(_show, value[:4])) + (", …" if len(value) > 4 else "")
        return f"({inner})"
    return repr(value)


def _finish(cls: type[Struct], own: list[str], defaults: dict[str, tuple[Any, ...]]) -> None:
    hints = get_type_hints(cls, include_extras=True)
    cls._fields = tuple(Field(name, hints[name], defaults[name]) for name in own)
    cls._confidential = any(field.codec.hidden for field in cls._fields)
    setters = {f"_set_{name}": cls.__dict__[name].__set__ for name in own}
    setters["_set__raw"] = cls.__dict__["_raw"].__set__
    _make_init(cls, setters)
    _make_decode(cls, setters)
    _make_build(cls)


def _make_init(cls: type[Struct], setters: dict[str, Any]) -> None:
    gen, parameters = Gen(), []
    for field in cls._fields:
        default = f"={gen.bind(field.default, 'default')}" if field.has_default else ""
        parameters.append(field.name + default)
        gen.add(f"_set_{field.name}(self, {field.name})")
    gen.add("_set__raw(self, None)")
    header = f"__init__({', '.join(['self', *parameters])})"
    cls.__init__ = gen.function(header, setters)  # type: ignore[method-assign]


def _condition(when: When, path: str) -> str:
    if len(when.values) == 1:
        return f"{path} == {int(when.values[0])}"
    return f"{path} in {tuple(int(v) for v in when.values)}"


def _make_decode(cls: type[Struct], setters: dict[str, Any]) -> None:
    gen = Gen()
    gen.add("start = p")
    for field in cls._fields:
        name, indent = f"{cls.__name__}.{field.name}", 0
        if field.when is not None:
            gen.add(f"{field.name} = None")
            gen.add(f"if {_condition(field.when, field.when.path)}:")
            indent = 1
        detach = cls._confidential and field.codec.nests and not field.codec.hidden
        if detach:
            gen.add("first = p", indent)
        field.codec.decode_source(gen, field.name, name, indent)
        if detach:
            # What is public outlives its secret neighbours and must not keep their bytes: read it from a copy.
            gen.add("whole = b, p, e", indent)
            gen.add("b = b[first:p]; p, e = 0, len(b)", indent)
            field.codec.decode_source(gen, field.name, name, indent)
            gen.add("b, p, e = whole", indent)
    gen.add("self = _new(_cls)")
    for field in cls._fields:
        gen.add(f"_set_{field.name}(self, {field.name})")
    gen.add("_set__raw(self, (b, start, p))")
    gen.add("return self, p")
    names = {**_RUNTIME, **setters, "_new": object.__new__, "_cls": cls}
    cls._decode = staticmethod(gen.function("_decode(b, p, e, given=None)", names))


def _make_build(cls: type[Struct]) -> None:
    gen = Gen()
    gen.add("out = []; w = out.append")
    for field in cls._fields:
        value, indent = f"self.{field.name}", 0
        if field.when is not None:
            gen.add(f"if {_condition(field.when, _own(field.when.path))}:")
            indent = 1
        if isinstance(field.codec, Nested) and field.codec.given:
            gen.add(f"w({value}.encode({_own(field.codec.given)}))", indent)
        else:
            field.codec.encode_source(gen, value, indent)
    gen.add("return b''.join(out)")
    cls._build = gen.function("_build(self, given)", _RUNTIME)
