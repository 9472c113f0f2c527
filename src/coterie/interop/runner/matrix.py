"""What came out: one cell for each pair of actors, suite, scenario and way of travelling."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from coterie.interop.tables import spans


class Outcome(StrEnum):
    """How a scenario ended."""

    OK = "ok"
    LACKING = "lacking"
    """A peer says that it has no such thing."""
    EXPLAINED = "explained"
    """It failed for a reason that is known, with a verdict."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Cell:
    """One scenario, once played."""

    first: str
    second: str
    suite: int
    scenario: str
    way: str
    outcome: Outcome
    who: str = ""
    """The peer that lacks or refused something."""
    words: str = ""
    """Its words, or what differs."""
    transcript: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        """What was played."""
        return self.first, self.second, self.suite, self.scenario, self.way


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """One random history, once played."""

    peers: tuple[str, ...]
    suite: int
    way: str
    seed: int
    outcome: Outcome
    steps: int
    epochs: int
    messages: int
    lacked: dict[str, int]
    words: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> tuple[object, ...]:
        """What was played."""
        return self.peers, self.suite, self.way, self.seed


@dataclass
class Matrix:
    """Everything that was played."""

    versions: dict[str, str]
    cells: list[Cell] = field(default_factory=list)
    histories: list[HistoryResult] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Why some peers were not there."""

    @property
    def failures(self) -> int:
        """How many plays failed without a known reason."""
        played: list[Cell | HistoryResult] = [*self.cells, *self.histories]
        return sum(each.outcome is Outcome.FAILED for each in played)

    def take_over(self, other: Matrix) -> None:
        """Adds what was played in another run, in the place of what was played here already."""
        cells = {cell.key: cell for cell in (*self.cells, *other.cells)}
        histories = {each.key: each for each in (*self.histories, *other.histories)}
        self.versions = {**self.versions, **other.versions}
        self.cells, self.histories = list(cells.values()), list(histories.values())

    def forget_failures(self) -> None:
        """Leaves out what failed, to be played again."""
        self.cells = [each for each in self.cells if each.outcome is not Outcome.FAILED]
        self.histories = [each for each in self.histories if each.outcome is not Outcome.FAILED]

    def counted(self) -> dict[tuple[str, str, int], Counter[Outcome]]:
        """The outcomes of each pair in each suite."""
        found: dict[tuple[str, str, int], Counter[Outcome]] = defaultdict(Counter)
        for cell in self.cells:
            found[cell.first, cell.second, cell.suite][cell.outcome] += 1
        return dict(found)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Square:
    """What one scenario came to for one pair, over all suites and ways."""

    text: str
    notes: tuple[str, ...]


def square(cells: Sequence[Cell]) -> Square:
    """Sums up the cells of one pair and one scenario: suites that are fine, and what stands against the others."""
    if not cells:
        return Square("", ())
    marks: dict[int, Outcome] = {}
    notes: dict[str, None] = {}
    order = (Outcome.FAILED, Outcome.EXPLAINED, Outcome.LACKING, Outcome.OK)
    for suite in sorted({cell.suite for cell in cells}):
        outcomes = [cell.outcome for cell in cells if cell.suite == suite]
        marks[suite] = min(outcomes, key=order.index)
    for cell in cells:
        if cell.outcome is not Outcome.OK:
            notes[note(cell)] = None
    names = {
        Outcome.OK: "ok",
        Outcome.LACKING: "–",
        Outcome.EXPLAINED: "!",
        Outcome.FAILED: "**FAILED**",
    }
    grouped: dict[Outcome, list[int]] = defaultdict(list)
    for suite, mark in marks.items():
        grouped[mark].append(suite)
    text = "; ".join(f"{names[mark]} {spans(suites)}" for mark, suites in grouped.items())
    return Square(text, tuple(notes))


def note(cell: Cell) -> str:
    """Why a cell is not green, in one line."""
    return f"{cell.who}: {cell.words}" if cell.who else cell.words
