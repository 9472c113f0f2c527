"""Goes through all cells of a plan and fills those that are missing."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.floor import Prices
from bench.peers.build import PEERS, build_folder, try_build
from bench.sidebyside import groups
from bench.sidebyside.book import Book, Cell, Key
from bench.sidebyside.driver import Driver, OverError, RefusedError
from bench.sidebyside.phases import PHASES, SETUP, Phase, Session, is_careless
from coterie.errors import CoterieError

OURS = "coterie"
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
        self._prices = Prices()

    def run(self) -> None:
        """All groups, and in each all peers, one after the other."""
        for peer, driver in self._drivers.items():
            self._book.expects(peer, driver.identity)
        for suite, shape, size in self._plan.groups():
            for peer, provider in self._plan.columns:
                if peer in self._drivers:
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
        session, done, start = None, 0, self._drivers[place.peer]
        try:
            with Driver(start.command, self._plan.limit) as driver:
                patience = SETUP * self._plan.limit
                answer = driver.ask("open", patience, suite=place.suite, provider=place.provider)
                version = f"{answer['version']}, {start.identity}"
                self._book.opened(place.peer, version)
                self._know(place, driver)
                session = self._session(place, driver.ask)
                for phase, _ in waiting:
                    say(f"{place.peer} {place.provider}, suite {place.suite}, {place.shape} group of "
                        f"{place.members:,}: {phase.run.__name__}")  # fmt: skip
                    phase.run(session)
                    done += 1
                    self._keep(place, session)
        except OverError:
            words = f"more than {self._plan.limit:g} s"
            self._stopped(session, waiting[done][1], "over", words)
            done += 1
        except (RefusedError, CoterieError) as refused:
            # Ours too, where a peer's key package is not valid for us.
            self._stopped(session, waiting[done][1], "failed", str(refused))
            done += 1
        self._keep(place, session)
        return done

    def _keep(self, place: Key, session: Session | None) -> None:
        for operation, cell in session.cells.items() if session else ():
            if cell.wall or cell.status != "measured":
                self._book.put(replace(place, operation=operation), cell)
        self._book.save()

    def _know(self, place: Key, driver: Driver) -> None:
        """What is of interest once for each provider."""
        ask = partial(driver.ask, limit=SETUP * self._plan.limit)
        if place.priced not in self._book.prices:
            self._book.prices[place.priced] = ask("primitives")["prices"]
        if place.priced not in self._book.careless:
            self._book.careless[place.priced] = is_careless(ask, place.suite)

    def _session(self, place: Key, ask: Callable[..., dict[str, object]]) -> Session:
        self._prices.renew()
        return Session(
            ask,
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


def _there_is(operation: str, members: int) -> bool:
    return operation != "process commit, near" or members >= groups.LEAST
