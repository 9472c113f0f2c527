"""How fields are written: each codec adds its part to the source of a struct's generated functions."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, ClassVar

from coterie.errors import DecodeError
from coterie.mls.secret import Secret
from coterie.mls.tls.enums import Uint8Enum, Uint16Registry
from coterie.mls.tls.varint import (
    JSON,
    SHORT_HEADERS,
    bad_enum,
    bad_presence,
    encode_varint,
    ends_early,
    long_varint,
    of_length,
    overrun,
    past_end,
)


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


RUNTIME = {
    "_long_varint": long_varint,
    "_past_end": past_end,
    "_overrun": overrun,
    "_bad_presence": bad_presence,
    "_bad_enum": bad_enum,
    "_ends_early": ends_early,
    "_header": encode_varint,
    "_short": SHORT_HEADERS,
    "_of_length": of_length,
    "DecodeError": DecodeError,
}


def kind_of(value: JSON) -> str:
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
            msg = f"expected an integer, found {kind_of(value)}"
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
        vector_header(gen, "q", name, indent)
        cast = "" if self.cast is bytes else gen.bind(self.cast, "cast")
        gen.add(f"{target} = {cast}(b[p:q]); p = q", indent)

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        # Most are short: their headers are looked up without a call.
        gen.add(f"x = {value}; n = len(x)", indent)
        gen.add("w(_short[n] if n < 64 else _header(n)); w(x)", indent)

    def to_json(self, value: bytes) -> JSON:
        """Hexadecimal digits."""
        return bytes(value).hex()

    def from_json(self, value: JSON) -> bytes:
        """See Codec."""
        if not isinstance(value, str):
            msg = f"expected hexadecimal digits, found {kind_of(value)}"
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
        return of_length(super().from_json(value), self.length)

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


def vector_header(gen: Gen, end: str, name: str, indent: int) -> None:
    """Code that reads a vector's header and puts its end into the local `end`.

    One comparison tells that all is within the bounds; which one is broken is found out when it is. Lengths from 64
    to 255, most signatures', are read without a call.
    """
    gen.add("n = b[p]; p += 1", indent)
    gen.add("if n > 63:", indent)
    gen.add("if n == 64 and p < e and b[p] > 63: n = b[p]; p += 1", indent + 1)
    gen.add("else: n, p = _long_varint(b, n, p, e)", indent + 1)
    gen.add(f"{end} = p + n", indent)
    gen.add(f"if {end} > e: raise _past_end({name!r}, n, p, e)", indent)
