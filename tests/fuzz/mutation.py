"""Small changes of bytes, drawn by hypothesis: what a clumsy or a malicious sender would do to an encoding."""

from __future__ import annotations

from hypothesis import strategies as st

LENGTHS = (
    b"\x00",
    b"\x3f",
    b"\x40\x40",
    b"\x7f\xff",
    b"\x80\x00\x40\x00",
    b"\xbf\xff\xff\xff",
    b"\xff",
)
"""Vector headers that are worth trying."""


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with one to four changes."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 1, 2, 4, 33))))
        data = draw(st.sampled_from(KINDS))(draw, data, start, end)
    return data


def _flip(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    bit = 1 << draw(st.integers(0, 7))
    return data[:start] + bytes(each ^ bit for each in data[start:end]) + data[end:]


def _set(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    value = draw(st.sampled_from((0, 1, 2, 3, 0x40, 0x7F, 0xFF)))
    return data[:start] + bytes((value,)) * (end - start) + data[end:]


def _cut(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    return data[:start] + data[end:]


def _insert(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    return data[:start] + draw(st.binary(max_size=4)) + data[start:]


def _repeat(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    return data[:end] + data[start:end] * draw(st.integers(1, 3)) + data[end:]


def _length(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    return data[:start] + draw(st.sampled_from(LENGTHS)) + data[start + 1 :]


def _end(draw: st.DrawFn, data: bytes, start: int, end: int) -> bytes:
    return data[:start]


KINDS = (_flip, _set, _cut, _insert, _repeat, _length, _end)
