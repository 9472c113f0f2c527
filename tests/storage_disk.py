"""Disks for tests of storage: one that records, and forgets what was not synced; one that fails when told to.

Both are SQLite VFSs below the cipher, so what they see is what lies on a disk.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512


@dataclass(frozen=True)
class Write:
    name: str
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Truncate:
    name: str
    size: int


@dataclass(frozen=True)
class Sync:
    name: str


@dataclass(frozen=True)
class Delete:
    name: str


@dataclass(frozen=True)
class Mark:
    """Not an operation: what the caller was told by now."""

    step: int


Operation = Write | Truncate | Sync | Delete | Mark


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(path or "").name

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._disk.note(Write(self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.note(Truncate(self._name, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.note(Sync(self._name))
        super().xSync(flags)


class Disk(apsw.VFS):
    """Records every operation; `fail`, called with each before it happens, may raise in its place.

    Got from `disk`: the cipher keeps a pointer to the VFS of a name, so one is made per name and never taken away.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, base="unix")
        self.operations: list[Operation] = []
        self.fail: Callable[[Operation], None] | None = None

    def note(self, operation: Operation) -> None:
        if self.fail is not None:
            self.fail(operation)
        self.operations.append(operation)

    def xOpen(self, name: Any, flags: list[int]) -> _File:  # noqa: N802
        return _File(self, name, flags)

    def xDelete(self, name: str, sync_directory: bool) -> None:  # noqa: N802
        self.note(Delete(Path(name).name))
        super().xDelete(name, sync_directory)


@functools.cache
def disk(name: str) -> Disk:
    """The disk of a name, as it was left."""
    return Disk(name)


def crashed(operations: Sequence[Operation], kept: float, rng: random.Random) -> dict[str, bytes]:
    """The files after a power cut that followed these operations.

    Of what was not synced, each operation counts with the probability `kept`; of a write that counts, any of
    its sectors may be missing. A file that was never synced does not exist, unless something of it was kept.
    """
    durable: dict[str, bytearray] = {}
    waiting: dict[str, list[Operation]] = {}
    for operation in operations:
        match operation:
            case Sync(name):
                content = durable.setdefault(name, bytearray())
                for earlier in waiting.pop(name, ()):
                    _apply(content, earlier)
            case Delete(name):
                durable.pop(name, None)
                waiting.pop(name, None)
            case Write(name) | Truncate(name):
                waiting.setdefault(name, []).append(operation)
            case Mark():
                pass
    for name, unsynced in waiting.items():
        for operation in unsynced:
            if rng.random() < kept:
                _apply_torn(durable.setdefault(name, bytearray()), operation, rng)
    return {name: bytes(content) for name, content in durable.items()}


def _apply(content: bytearray, operation: Operation) -> None:
    match operation:
        case Write(_, offset, data):
            if len(content) < offset:
                content.extend(bytes(offset - len(content)))
            content[offset : offset + len(data)] = data
        case Truncate(_, size):
            del content[size:]


def _apply_torn(content: bytearray, operation: Operation, rng: random.Random) -> None:
    if not isinstance(operation, Write) or rng.random() < 0.5:
        _apply(content, operation)
        return
    for start in range(0, len(operation.data), SECTOR):
        if rng.random() < 0.7:
            sector = operation.data[start : start + SECTOR]
            _apply(content, Write(operation.name, operation.offset + start, sector))
