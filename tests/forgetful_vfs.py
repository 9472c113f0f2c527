"""A file system for SQLite that lives in memory and forgets, when it crashes, what was not synced.

Every write, truncation and sync is a *point*. A crash can be set for any of them: it fails, nothing after it reaches
the disk, and `survivors` is what the disk holds then, the synced state plus any later writes that chance let through.
"""

from __future__ import annotations

import random
from typing import Any

import apsw

Change = tuple[int, bytes | None]
"""A write at an offset, or a truncation to it."""


class Disk:
    """The files of one machine: what is synced, and what only its page cache has."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.synced: dict[str, bytearray] = {n: bytearray(b) for n, b in (files or {}).items()}
        self.cached: dict[str, bytearray] = {n: bytearray(b) for n, b in (files or {}).items()}
        self.pending: dict[str, list[Change]] = {name: [] for name in self.cached}
        self.points: list[str] = []
        self.crash_at: int | None = None
        self.crashed = False
        self.full = False

    def point(self, what: str) -> None:
        """Counts a point, and crashes if it is the one."""
        if not self.crashed and len(self.points) == self.crash_at:
            self.crashed = True
            raise apsw.IOError("the machine has crashed")
        self.points.append(what)

    def survivors(self, rng: random.Random) -> dict[str, bytes]:
        """The files after a crash: of the writes that were not synced, any subset."""
        out = {}
        for name, synced in self.synced.items():
            content = bytearray(synced)
            for change in self.pending.get(name, []):
                if rng.random() < 0.5:
                    _apply(content, change)
            out[name] = bytes(content)
        return out


def _apply(content: bytearray, change: Change) -> None:
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


class ForgetfulFile:
    """One open file."""

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk, self._name = disk, name

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's names
        return bytes(self._disk.cached[self._name][offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.full:
            raise apsw.FullError("the disk is full")
        self._disk.point(f"write {self._name}")
        self._change((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.point(f"truncate {self._name}")
        self._change((size, None))

    def _change(self, change: Change) -> None:
        _apply(self._disk.cached[self._name], change)
        if not self._disk.crashed:
            self._disk.pending[self._name].append(change)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.point(f"sync {self._name}")
        if not self._disk.crashed:
            self._disk.synced[self._name] = bytearray(self._disk.cached[self._name])
            self._disk.pending[self._name] = []

    def xFileSize(self) -> int:  # noqa: N802
        return len(self._disk.cached[self._name])

    def xLock(self, level: int) -> None:  # noqa: N802
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xClose(self) -> None:  # noqa: N802
        pass


class ForgetfulVFS(apsw.VFS):
    """The file system over a disk, under a name for `Connection(vfs=...)`."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.name, self.disk = name, disk
        super().__init__(name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        text = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        for files in (self.disk.cached, self.disk.synced):
            files.setdefault(text, bytearray())
        self.disk.pending.setdefault(text, [])
        flags[1] = flags[0]
        return ForgetfulFile(self.disk, text)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        self.disk.point(f"delete {name}")
        self.disk.cached.pop(name, None)
        if not self.disk.crashed:
            self.disk.synced.pop(name, None)
            self.disk.pending.pop(name, None)

    def xAccess(self, name: str, flags: int) -> bool:  # noqa: N802
        return bool(self.disk.cached.get(name))

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xRandomness(self, amount: int) -> bytes:  # noqa: N802
        return random.randbytes(amount)

    def xSleep(self, microseconds: int) -> int:  # noqa: N802
        return microseconds

    def xCurrentTime(self) -> float:  # noqa: N802
        return 2460000.5
