"""Vector headers and the errors of decoding (RFC 9420 §2.1.2)."""

from __future__ import annotations

from typing import TypeAlias

from coterie.errors import DecodeError
from coterie.mls.rules import Rule

JSON: TypeAlias = "bool | int | str | list[JSON] | dict[str, JSON] | None"

MAX_VECTOR_LENGTH = (1 << 30) - 1
SHORT_HEADERS = tuple(bytes((n,)) for n in range(64))


def encode_varint(n: int) -> bytes:
    """The header of a vector of `n` bytes, 1, 2 or 4 bytes long (§2.1.2); ValueError above 2^30 - 1."""
    if n < 64:
        return SHORT_HEADERS[n]
    if n < 16384:
        return (n | 0x4000).to_bytes(2)
    if n <= MAX_VECTOR_LENGTH:
        return (n | 0x8000_0000).to_bytes(4)
    msg = f"a vector of {n} bytes is longer than the {MAX_VECTOR_LENGTH} that its header can say"
    raise ValueError(msg)


def encode_opaque(data: bytes) -> bytes:
    """`opaque data<V>`: the header and the bytes."""
    n = len(data)
    if n < 64:
        return SHORT_HEADERS[n] + data
    # As `encode_varint`, without the call: signatures and texts are of this length.
    return ((n | 0x4000).to_bytes(2) if n < 16384 else encode_varint(n)) + data


def decode_varint(buf: bytes, pos: int) -> tuple[int, int]:
    """The length that the vector header at `pos` says, and the position after it (§2.1.2).

    Raises `DecodeError` for the invalid prefix, a header that is not minimal, or one that is cut off.
    """
    try:
        first = buf[pos]
        return (first, pos + 1) if first < 64 else long_varint(buf, first, pos + 1, len(buf))
    except IndexError:
        raise ends_early("a vector header") from None


def long_varint(buf: bytes, first: int, pos: int, end: int) -> tuple[int, int]:
    """The rest of a header of two or four bytes, whose first byte was read, of bytes that go to `end`."""
    if pos > end:
        raise ends_early("a vector header")
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


def ends_early(what: str) -> DecodeError:
    """Bytes that end too soon."""
    return DecodeError(f"the bytes end in the middle of {what}", rule=Rule.TRUNCATED)


def overlong(name: str, length: int, left: int) -> DecodeError:
    """A length that is more than what is left."""
    return DecodeError(
        f"{name} says it has {length} bytes, {left} are left", rule=Rule.VECTOR_OVERRUN
    )


def past_end(name: str, length: int, pos: int, end: int) -> DecodeError:
    """A vector that goes past the end: its header does, or what the header announces."""
    return ends_early(name) if pos > end and length < 64 else overlong(name, length, end - pos)


def overrun(name: str) -> DecodeError:
    """An element that goes past its vector's end."""
    return DecodeError(f"the last element of {name} goes past its end", rule=Rule.VECTOR_OVERRUN)


def bad_presence(name: str, value: int) -> DecodeError:
    """A presence octet that is neither 0 nor 1."""
    return DecodeError(f"{name}: presence octet {value}, must be 0 or 1", rule=Rule.PRESENCE_OCTET)


def bad_enum(name: str, value: int) -> DecodeError:
    """A number that a closed enum does not have."""
    return DecodeError(f"{name} has no value {value}", rule=Rule.ENUM_VALUE)


def of_length(value: bytes, length: int) -> bytes:
    """The bytes, if they have the length that they must have; ValueError otherwise."""
    if len(value) != length:
        msg = f"{len(value)} bytes where there must be {length}"
        raise ValueError(msg)
    return value
