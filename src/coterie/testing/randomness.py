"""Randomness that repeats: the same seed gives the same keys, nonces and messages."""

from __future__ import annotations

import hashlib


class Randomness:
    """A `RandomSource` whose output depends on its seed and on how often it was called. No secret may come from it."""

    def __init__(self, seed: bytes | int) -> None:
        self._seed = seed if isinstance(seed, bytes) else str(seed).encode()
        self._calls = 0

    def __call__(self, length: int) -> bytes:
        """The next `length` bytes."""
        self._calls += 1
        return hashlib.shake_256(self._seed + self._calls.to_bytes(8)).digest(length)
