"""Bytes that are held for clients: bodies that are still coming, and answers that are still being taken.

Connections are counted before any of this, but each may have a body of 32 MiB or an answer of 16 under way, at the pace
of a slow peer. So all of them together have a bound, and those of one network prefix a lower one, which leaves room for
everybody else (docs/decisions/0179). Small ones are not counted, and go on when large ones are refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from coterie.delivery.limits import Requester
from coterie.transport.api import ErrorCode
from coterie.transport.refusal import Refused

SMALL: Final = 64 * 1024
"""Bytes of a request and its answer that are taken in any case."""


class UnderWay:
    """What is held, in all and by requester."""

    def __init__(self, most: int, most_of_requester: int) -> None:
        self._most, self._most_of_requester = most, most_of_requester
        self._all = 0
        self._of: Counter[Requester] = Counter()

    @property
    def bytes(self) -> int:
        """How many bytes are held."""
        return self._all

    def has_room(self, requester: Requester, size: int) -> bool:
        """Whether so many more may be held for the requester."""
        of_requester = self._of[requester] + size
        return self._all + size <= self._most and of_requester <= self._most_of_requester

    def change(self, requester: Requester, by: int) -> None:
        """Counts."""
        if by:
            self._all += by
            self._of[requester] += by
            if not self._of[requester]:
                del self._of[requester]


@dataclass(slots=True)
class Held:
    """What is held for one request."""

    under_way: UnderWay
    requester: Requester
    size: int = 0
    _asked: int = 0

    def take(self, size: int) -> None:
        """Counts a part of its body, or its answer; raises `Refused` (unavailable) where there is no room for it."""
        self._asked += size
        if self._asked <= SMALL:
            return
        more = self._asked - self.size
        if not self.under_way.has_room(self.requester, more):
            raise Refused(
                ErrorCode.UNAVAILABLE,
                "too many large requests and answers are under way; repeat this one later",
                rule="D-TRA-4",
                retry_after=1,
            )
        self.size = self._asked
        self.under_way.change(self.requester, more)

    def give_back(self) -> None:
        """Ends it."""
        self.under_way.change(self.requester, -self.size)
        self.size = 0
