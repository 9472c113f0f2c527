"""Fakes for the tests of programs that embed Coterie: a store in memory, repeatable randomness, a clock that is set.

They keep the promises of what they stand in for and nothing more: no disk, no entropy, no time of day. Never use them
outside of tests; `Randomness` least of all.
"""

from __future__ import annotations

from coterie.testing.clock import Clock
from coterie.testing.randomness import Randomness
from coterie.testing.store import MemoryStore

__all__ = ["Clock", "MemoryStore", "Randomness"]
