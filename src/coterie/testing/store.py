"""A store of one group in memory: what `Group.save` gives goes in, what `Group.load` needs comes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coterie.mls.group import Delta

_LAZY = (b"n/", b"i/")


class MemoryStore:
    """A dictionary that takes deltas, one transaction each, and is the `NodeStore` of the group that it keeps."""

    def __init__(self, data: Mapping[bytes, bytes] | None = None) -> None:
        self.data: dict[bytes, bytes] = dict(data or {})
        self.bytes_written = 0

    def __len__(self) -> int:
        return len(self.data)

    def apply(self, delta: Delta) -> None:
        """Stores what a step changed: drops first, then puts."""
        for prefix in delta.drop_prefixes:
            for key in [key for key in self.data if key.startswith(prefix)]:
                del self.data[key]
        for key in delta.drops:
            self.data.pop(key, None)
        self.data.update(delta.puts)
        self.bytes_written += delta.size

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or None: what a group reads lazily after loading."""
        return self.data.get(key)

    def entries(self) -> dict[bytes, bytes]:
        """What `Group.load` takes at once: everything but tree nodes and counters."""
        return {key: value for key, value in self.data.items() if not key.startswith(_LAZY)}

    def copy(self) -> MemoryStore:
        """A copy, as a backup or a crash would leave it."""
        return MemoryStore(self.data)
