"""A clock that stands still until it is moved."""

from __future__ import annotations


class Clock:
    """Call it for the time, in whole seconds since 1970, as `now` is given everywhere in Coterie."""

    def __init__(self, now: int = 1_700_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        """The time."""
        return self.now

    def advance(self, seconds: int) -> int:
        """Lets time pass; returns the new time. Raises `ValueError` for a negative number."""
        if seconds < 0:
            msg = f"time does not go back by {-seconds} seconds"
            raise ValueError(msg)
        self.now += seconds
        return self.now
