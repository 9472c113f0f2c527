"""The receipts of the present epoch that a member has verified, to compare others' heads with (D-REC-11).

Bounded: of an epoch with more entries the newest `KEPT` are there. Stored in the step that stores the place in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from coterie.mls.tls import Struct, Uint
from coterie.transport import api

KEPT = 16_384
"""How many receipts of an epoch are kept (168 bytes each)."""


def _nothing(_key: bytes) -> None:
    """What is stored of an epoch that begins."""


PASSED = 64
"""How many epochs that it has left a member remembers at most."""


class Passed(Struct):
    """An epoch that this member has left: its token, and the receipt of the Commit by which it left (D-REC-12)."""

    read_token: api.Token
    last: api.Receipt
    left_at: Annotated[int, Uint(8)]


class Trail:
    """Receipts by number. `stored` gives what an earlier process has kept; without it, an epoch begins."""

    def __init__(self, stored: Callable[[bytes], bytes | None] | None = None) -> None:
        self.begins = stored is None
        self._stored = stored or _nothing
        self._new: dict[int, api.Receipt] = {}

    def add(self, receipt: api.Receipt) -> None:
        """Keeps a receipt that was verified."""
        self._new[receipt.number] = receipt

    def at(self, number: int) -> api.Receipt | None:
        """The receipt with a number; None where it was never read, or is too old to be kept."""
        if number in self._new:
            return self._new[number]
        value = self._stored(_key(number))
        return None if value is None else api.Receipt.decode(value)

    def unsaved(self) -> tuple[dict[bytes, bytes], frozenset[bytes]]:
        """What is to be stored, by key, and the keys of what it pushes out."""
        puts = {_key(number): receipt.encode() for number, receipt in self._new.items()}
        return puts, frozenset(_key(number - KEPT) for number in self._new if number >= KEPT)

    def saved(self, stored: Callable[[bytes], bytes | None]) -> None:
        """All of it is stored now."""
        self.begins = False
        self._stored = stored
        self._new.clear()


def _key(number: int) -> bytes:
    return number.to_bytes(8)
