"""What was measured: one cell for each peer, provider, suite, shape, size and operation, kept in one JSON file.

A file belongs to one machine and to one version of our sources, a peer's cells to the version of its driver and its
library: what still holds is not measured again, so that an interrupted run goes on where it was. Each cell of a peer
has our own times of the same rounds beside its own, and only these are compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["measured", "over", "failed", "lacking", "unreached"]
"""`over`: one operation takes longer than is waited for; `lacking`: the library has no such thing; `unreached`: what
came before it was over or failed."""
Clock = Literal["cpu", "wall"]
OURS = "coterie"
FORMAT = 2
"""Of the file; one of another format is measured anew."""


@dataclass(frozen=True, order=True)
class Key:
    """Which cell."""

    peer: str
    provider: str
    suite: int
    shape: str
    members: int
    operation: str

    @property
    def column(self) -> tuple[str, str]:
        """The peer with its provider."""
        return self.peer, self.provider

    @property
    def priced(self) -> str:
        """Under which name the prices of its primitives are kept."""
        return f"{self.peer}/{self.provider}/{self.suite}"


@dataclass
class Cell:
    """One operation of one peer in one group; times in nanoseconds, one for each iteration."""

    status: Status = "measured"
    wall: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    beside: dict[str, list[int]] = field(default_factory=dict)
    """Our own times, by clock, in the same rounds."""
    bytes: int = 0
    words: str = ""
    """Why there are no times."""
    floor: float = 0.0
    """Seconds of processor time that the operation's primitive calls take; ours only."""
    calls: dict[str, int] = field(default_factory=dict)
    """How many signatures, verifications, HPKE seals and openings the protocol asks for; ours only."""

    def seconds(self, clock: Clock = "cpu") -> float | None:
        """The median, or None where nothing was measured."""
        times = self._times(clock)
        return statistics.median(times) / 1e9 if times else None

    def _times(self, clock: Clock) -> list[int]:
        return self.cpu if clock == "cpu" else self.wall

    def put_beside(self, ours: Cell) -> None:
        """Takes our own times of the same rounds in."""
        self.beside = {"cpu": ours.cpu, "wall": ours.wall}

    def ours(self, clock: Clock = "cpu") -> float | None:
        """Our own median in these rounds."""
        pairs = self._pairs(clock)
        return statistics.median(ours for _, ours in pairs) / 1e9 if pairs else None

    def ratio(self, clock: Clock = "cpu") -> float | None:
        """The median, over the rounds, of its time divided by ours."""
        pairs = self._pairs(clock)
        return statistics.median(its / ours for its, ours in pairs) if pairs else None

    def _pairs(self, clock: Clock) -> list[tuple[int, int]]:
        pairs = zip(self._times(clock), self.beside.get(clock, ()), strict=False)
        return [(its, ours) for its, ours in pairs if ours]


class Book:
    """All cells of one machine, saved after each change of many."""

    def __init__(self, path: Path, machine: dict[str, Any]) -> None:
        self.path = path
        self.machine = machine
        self.versions: dict[str, str] = {}
        self.cells: dict[Key, Cell] = {}
        self.prices: dict[str, dict[str, tuple[float, float]]] = {}
        """Nanoseconds of one call of each primitive, and of ours in turn with it, by peer, provider and suite."""
        self.careless: dict[str, bool] = {}
        """Who joins a group in which a leaf's signature is wrong, by the same names."""
        if path.exists():
            self._read(path.read_text())

    def _read(self, text: str) -> None:
        try:
            report = json.loads(text)
            kept = report["format"] == FORMAT and report["machine"] == self.machine
        except (ValueError, TypeError, KeyError):
            msg = f"{self.path} is not what these benchmarks write: move it away and run again"
            raise ValueError(msg) from None
        if not kept:
            return
        self.versions = report["versions"]
        self.prices = {
            place: {name: (its, ours) for name, (its, ours) in prices.items()}
            for place, prices in report["prices"].items()
        }
        self.careless = report["careless"]
        for entry in report["cells"]:
            key = Key(**entry.pop("key"))
            self.cells[key] = Cell(**entry)

    def opened(self, peer: str, version: str) -> None:
        """Notes a peer's version; cells of another version are given up, all of them where it is ours."""
        if self.versions.get(peer, version) != version:
            self._forget(peer)
        self.versions[peer] = version

    def expects(self, peer: str, identity: str) -> None:
        """Gives up a peer's cells if their version does not end with this."""
        if not self.versions.get(peer, identity).endswith(identity):
            self._forget(peer)
            del self.versions[peer]

    def _forget(self, peer: str) -> None:
        """Gives up what is a peer's, or everything where it is ourselves: all is measured against us."""
        everything = peer == OURS
        for key in [key for key in self.cells if everything or key.peer == peer]:
            del self.cells[key]
        for kept in (self.prices, self.careless):
            for place in [place for place in kept if everything or place.startswith(f"{peer}/")]:
                del kept[place]

    def put(self, key: Key, cell: Cell) -> None:
        """Takes a cell in."""
        self.cells[key] = cell

    def holds(self, keys: Iterable[Key]) -> bool:
        """Whether all of these cells are there."""
        return all(key in self.cells for key in keys)

    def groups(self) -> tuple[tuple[int, str, int], ...]:
        """Suite, shape and size of all groups in which anything was measured, the small ones first."""
        found = {
            (key.suite, key.shape, key.members) for key, cell in self.cells.items() if cell.wall
        }
        return tuple(sorted(found, key=lambda group: (group[2], group)))

    def over(self, key: Key) -> bool:
        """Whether a smaller group of the same kind was already too much."""
        return any(
            cell.status == "over" and _alike(other, key) and other.members < key.members
            for other, cell in self.cells.items()
        )

    def find(self, **wanted: Any) -> Iterator[tuple[Key, Cell]]:
        """Cells whose key has these values."""
        for key, cell in sorted(self.cells.items()):
            if all(getattr(key, name) == value for name, value in wanted.items()):
                yield key, cell

    def save(self) -> None:
        """Writes the file; whatever happens, the old or the new one is there."""
        report = {
            "format": FORMAT,
            "machine": self.machine,
            "versions": self.versions,
            "prices": self.prices,
            "careless": self.careless,
            "cells": [
                {"key": asdict(key), **asdict(cell)} for key, cell in sorted(self.cells.items())
            ],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(report) + "\n")
        fresh.replace(self.path)


def _alike(one: Key, other: Key) -> bool:
    fields = ("peer", "provider", "suite", "shape", "operation")
    return all(getattr(one, name) == getattr(other, name) for name in fields)
