"""Looks for anything by which the logs' database could be joined with what the other services store or log.

Every run of eight bytes of every value in the logs is looked for in the others' values and raw files, as it is, in
hexadecimal and in base64; so are hashes of values and of everything in them that is as long as an id, in both
directions. Stored times must be full hours.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

WINDOW = 8
HASHES: tuple[Callable[[bytes], bytes], ...] = tuple(
    lambda data, name=name: hashlib.new(name, data).digest()  # type: ignore[misc]
    for name in ("sha256", "sha512", "sha384", "sha1", "sha3_256", "blake2b", "blake2s", "md5")
)
_HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{11,}")
# What clients choose themselves: the end of a key package's lifetime stands in the package.
CHOSEN_BY_CLIENTS = {("package", "not_after")}


@dataclass(frozen=True)
class Holding:
    """What somebody who gets one database, or one log file, holds."""

    name: str
    values: tuple[tuple[str, str, bytes], ...]
    numbers: tuple[tuple[str, str, float], ...]
    raw: bytes

    @classmethod
    def of_database(cls, path: Path) -> Holding:
        values: list[tuple[str, str, bytes]] = []
        numbers: list[tuple[str, str, float]] = []
        with closing(sqlite3.connect(path)) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in tables.fetchall():
                rows = database.execute(f"SELECT * FROM {table}")
                columns = [description[0] for description in rows.description]
                for row in rows:
                    for column, value in zip(columns, row, strict=True):
                        if isinstance(value, str | bytes):
                            encoded = value.encode() if isinstance(value, str) else value
                            values.append((table, column, encoded))
                        elif value is not None:
                            numbers.append((table, column, value))
        files = sorted(path.parent.glob(path.name + "*"))
        raw = b"".join(file.read_bytes() for file in files)
        return cls(path.name, tuple(values), tuple(numbers), raw)

    @classmethod
    def of_log(cls, path: Path) -> Holding:
        return cls(path.name, (), (), path.read_bytes())

    def contents(self) -> Iterator[bytes]:
        yield self.raw
        for _, _, value in self.values:
            yield value


def windows(data: bytes) -> Iterator[bytes]:
    """Every run of eight bytes that says something: zeros and the like stand everywhere."""
    for i in range(len(data) - WINDOW + 1):
        window = data[i : i + WINDOW]
        if len(set(window)) > 3:
            yield window


def decodings(data: bytes) -> Iterator[bytes]:
    """What runs of hexadecimal and base64 digits stand for, wherever in the run the encoding starts."""
    for run in _HEX.findall(data):
        for start in (0, 1):
            digits = run[start:]
            yield binascii.unhexlify(digits[: len(digits) // 2 * 2])
    for run in _BASE64.findall(data):
        standard = run.replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):
            digits = standard[start:]
            yield base64.b64decode(digits[: len(digits) // 4 * 4])
            rest = len(digits) % 4
            if rest > 1:
                tail = digits[len(digits) - rest - 8 if len(digits) > 8 else 0 :]
                tail = tail[len(tail) % 4 :] if len(tail) % 4 == 1 else tail
                yield base64.b64decode(tail + b"=" * (-len(tail) % 4))


def _haystack(holding: Holding) -> set[bytes]:
    found: set[bytes] = set()
    for content in holding.contents():
        found.update(windows(content))
        for decoded in decodings(content):
            found.update(windows(decoded))
    return found


def _hashed(holding: Holding) -> Iterator[tuple[str, bytes]]:
    """Hashes of whole values, and of all that is as long as an id or a key in short ones."""
    for table, column, value in holding.values:
        if len(value) < WINDOW:
            continue
        parts = {value}
        if len(value) <= 512:
            parts |= {value[i : i + n] for n in (16, 32) for i in range(len(value) - n + 1)}
        for part in parts:
            for hash in HASHES:
                yield f"{table}.{column}", hash(part)[:WINDOW]


def find_shared_bytes(logs: Holding, others: Iterable[Holding]) -> list[str]:
    """A line for each column of the logs whose bytes, or whose bytes' hash, stand in another holding."""
    leaks: set[str] = set()
    own = _haystack(logs)
    own_hashes = list(_hashed(logs))
    for other in others:
        theirs = _haystack(other)
        for table, column, value in logs.values:
            if any(window in theirs for window in windows(value)):
                leaks.add(f"{other.name} has bytes of {table}.{column}")
        leaks |= {f"{other.name} has a hash of {what}" for what, h in own_hashes if h in theirs}
        leaks |= {
            f"{logs.name} has a hash of {other.name} {what}"
            for what, h in _hashed(other)
            if h in own
        }
    return sorted(leaks)


def _seconds(number: float) -> float | None:
    """The number as a time since 1970 in seconds, if it can be one, in whatever unit it was written."""
    for unit in (1, 1e3, 1e6, 1e9):
        if 1.4e9 <= number / unit <= 4e9:
            return number / unit
    return None


def find_fine_times(holdings: Iterable[Holding]) -> list[str]:
    """A line for each column that holds a time finer than an hour."""
    found = set()
    for holding in holdings:
        for table, column, number in holding.numbers:
            time = _seconds(number)
            if time is not None and time % 3600 and (table, column) not in CHOSEN_BY_CLIENTS:
                found.add(f"{holding.name} has exact times in {table}.{column}")
    return sorted(found)
