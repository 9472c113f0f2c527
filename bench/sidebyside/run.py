"""Goes through all cells of a plan and fills those that are missing, a peer and ourselves taking turns."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from bench.floor import Prices
from bench.peers.build import PEERS, build_folder, try_build
from bench.sidebyside import groups
from bench.sidebyside.book import OURS, Book, Cell, Key
from bench.sidebyside.driver import Driver, OverError, RefusedError
from bench.sidebyside.phases import PHASES, SETUP, Phase, Session, is_careless
from coterie.errors import CoterieError

PRICED = 7
"""So often in turn the primitives are measured."""
SAMPLE = 0.001
"""Seconds that a sample of a primitive's price takes at least."""
ROOT = Path(__file__).resolve().parents[2]
PROVIDERS = {
    OURS: ("pyca", "libsodium"),
    "openmls": ("rustcrypto", "libcrux"),
    "mls-rs": ("rustcrypto", "openssl", "awslc"),
    "ts-mls": ("default", "noble"),
    "bouncy-castle": ("default",),
}
"""Each peer's cryptography, as its driver calls it; the one that its own documents begin with first."""
FLOORED = (OURS, "pyca")
FASTEST = (OURS, "libsodium")
COLUMNS = (
    (OURS, "libsodium"),
    (OURS, "pyca"),
    ("openmls", "rustcrypto"),
    ("openmls", "libcrux"),
    ("mls-rs", "rustcrypto"),
    ("mls-rs", "awslc"),
    ("ts-mls", "default"),
    ("bouncy-castle", "default"),
)
"""What is measured where nothing else is said: default and fastest."""


@dataclass(frozen=True)
class Plan:
    """Which cells are wanted, and how long each may take."""

    columns: tuple[tuple[str, str], ...] = COLUMNS
    reference: tuple[str, str] = FASTEST
    """Our own column, beside which the others are measured."""
    suites: tuple[int, ...] = (1,)
    shapes: tuple[str, ...] = ("warm",)
    sizes: tuple[int, ...] = (10, 100, 1_000)
    operations: tuple[str, ...] = ()
    """Only these; all where it is empty."""
    budget: float = 2.0
    """Seconds for which one operation is repeated."""
    limit: float = 60.0
    """Seconds that one operation may take."""
    again: bool = False
    """Whether to measure also what has been measured."""
    known: tuple[tuple[int, str, int], ...] = ()
    """These groups, where any are given, and not those of the three lists."""

    def groups(self) -> Iterator[tuple[int, str, int]]:
        """Suite, shape and size of each group; small groups are warm after one Commit, whatever they were."""
        yield from self.known
        for suite in self.suites if not self.known else ():
            for size in sorted(self.sizes):
                for shape in self.shapes:
                    if shape == "warm" or size >= groups.LEAST:
                        yield suite, shape, size

    def phases(self, shape: str) -> Iterator[Phase]:
        """The phases that fill wanted cells."""
        for phase in PHASES:
            wanted = not self.operations or set(self.operations) & set(phase.operations)
            if shape in phase.shapes and wanted:
                yield phase


def say(text: str) -> None:
    """Progress, on the error stream."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Startable:
    """How to start a driver, and what its cells depend on: a hash of its sources, of all of ours for our own."""

    command: list[str]
    identity: str


def startable(names: Iterable[str]) -> dict[str, Startable]:
    """The drivers that can be built here, by peer."""
    ours = [sys.executable, "-m", "bench.peers.coterie.driver"]
    found = {OURS: Startable(ours, _identity(OURS))}
    for name in dict.fromkeys(names):
        if name != OURS and (command := try_build(name)):
            found[name] = Startable(command, _identity(name))
    return found


def _identity(peer: str) -> str:
    if peer != OURS:
        return build_folder(PEERS[peer]).name.rsplit("-", 1)[1][:8]
    digest = hashlib.sha256()
    for folder in ("src/coterie/mls", "bench/peers/coterie"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


class Runner:
    """Fills a book."""

    def __init__(self, book: Book, plan: Plan, drivers: dict[str, Startable]) -> None:
        self._book = book
        self._plan = plan
        self._drivers = drivers
        self._prices = Prices(least=SAMPLE)

    def run(self) -> None:
        """All groups, and in each all peers, one after the other, each in turns with ourselves."""
        for peer, driver in self._drivers.items():
            self._book.expects(peer, driver.identity)
        for suite, shape, size in self._plan.groups():
            for peer, provider in self._plan.columns:
                if peer in self._drivers and (peer, provider) != self._plan.reference:
                    self._visit(Key(peer, provider, suite, shape, size, ""))

    def _visit(self, place: Key) -> None:
        """All phases of one peer in one group, in one process until something goes wrong in it."""
        phases = [(phase, self._wanted(place, phase)) for phase in self._plan.phases(place.shape)]
        waiting = [(phase, wanted) for phase, wanted in phases if wanted]
        while waiting:
            waiting = waiting[self._go_through(place, waiting) :]

    def _wanted(self, place: Key, phase: Phase) -> list[Key]:
        operations = [name for name in phase.operations if _there_is(name, place.members)]
        keys = [replace(place, operation=operation) for operation in operations]
        for key in keys:
            if self._book.over(key):
                words = "a smaller group was already too much"
                self._book.put(key, Cell("over", words=words))
        if self._plan.again:
            return [key for key in keys if not self._book.over(key)]
        return [key for key in keys if not self._book.holds([key])]

    def _go_through(self, place: Key, waiting: Sequence[tuple[Phase, list[Key]]]) -> int:
        """How many phases are done with: all of them, or those up to the first that did not end well."""
        theirs, done = None, 0
        mine = replace(place, peer=OURS, provider=self._plan.reference[1])
        try:
            with self._start(mine) as our_driver, self._start(place) as driver:
                self._know(place, our_driver, driver)
                self._prices.renew()
                ours, theirs = self._session(mine, our_driver), self._session(place, driver)
                for phase, _ in waiting:
                    say(f"{place.peer} {place.provider}, suite {place.suite}, {place.shape} group of "
                        f"{place.members:,}: {phase.name}")  # fmt: skip
                    phase.together(ours, theirs)
                    done += 1
                    self._keep(place, ours, theirs)
        except OverError:
            words = f"more than {self._plan.limit:g} s"
            self._stopped(theirs, waiting[done][1], "over", words)
            done += 1
        except (RefusedError, CoterieError) as refused:
            # Ours too, where a peer's key package is not valid for us.
            self._stopped(theirs, waiting[done][1], "failed", str(refused))
            done += 1
        if theirs is not None:
            self._keep(place, ours, theirs)
        return done

    @contextmanager
    def _start(self, place: Key) -> Iterator[Driver]:
        start = self._drivers[place.peer]
        with Driver(start.command, self._plan.limit) as driver:
            patience = SETUP * self._plan.limit
            answer = driver.ask("open", patience, suite=place.suite, provider=place.provider)
            self._book.opened(place.peer, f"{answer['version']}, {start.identity}")
            yield driver

    def _keep(self, place: Key, ours: Session, theirs: Session) -> None:
        for operation, cell in theirs.cells.items():
            if cell.wall or cell.status != "measured":
                cell.put_beside(ours.cells[operation])
                self._book.put(replace(place, operation=operation), cell)
        for operation, cell in ours.cells.items():
            if cell.wall:
                key = replace(place, peer=OURS, provider=self._plan.reference[1])
                self._book.put(replace(key, operation=operation), cell)
        self._book.save()

    def _know(self, place: Key, ours: Driver, theirs: Driver) -> None:
        """What is of interest once for each provider."""
        patience = SETUP * self._plan.limit
        if place.priced not in self._book.prices:
            drivers = (theirs, ours)
            turns = [
                [driver.ask("primitives", patience)["prices"] for driver in drivers]
                for _ in range(PRICED)
            ]
            self._book.prices[place.priced] = {
                name: _pair([(its[name], our[name]) for its, our in turns]) for name in turns[0][0]
            }
        if place.priced not in self._book.careless:
            ask = partial(theirs.ask, limit=patience)
            self._book.careless[place.priced] = is_careless(ask, place.suite)

    def _session(self, place: Key, driver: Driver) -> Session:
        return Session(
            driver.ask,
            place.members,
            place.shape,
            place.suite,
            self._plan.budget,
            self._plan.limit,
            # The floor is that of OpenSSL's primitives.
            self._prices if (place.peer, place.provider) == FLOORED else None,
        )

    def _stopped(
        self, session: Session | None, wanted: Sequence[Key], status: str, words: str
    ) -> None:
        """What was being done gets the status; what then could not be reached says so."""
        at = session.at if session else ""
        say(f"  {at or 'getting there'}: {words}")
        for key in wanted:
            measured = session and session.cells.get(key.operation)
            if measured and measured.wall:
                continue
            if key.operation == at or not at:
                self._book.put(key, Cell(status, words=words))  # type: ignore[arg-type]
            elif not measured:
                self._book.put(key, Cell("unreached", words=f"{at}: {words}"))


def _pair(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """A peer's price and ours, of which the first in the second is the median of the turns."""
    ours = median(mine for _, mine in pairs)
    return ours * median(its / mine for its, mine in pairs), ours


def _there_is(operation: str, members: int) -> bool:
    return operation != "process commit, near" or members >= groups.LEAST
