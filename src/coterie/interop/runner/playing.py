"""Plays scenarios with every pair of peers, and random histories with all of them."""

from __future__ import annotations

import contextlib
import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from coterie.errors import CoterieError
from coterie.interop.runner.histories import History
from coterie.interop.runner.matrix import Cell, HistoryResult, Matrix, Outcome
from coterie.interop.runner.peers import Peer, RefusalError, Startable, started
from coterie.interop.runner.scenarios import SCENARIOS
from coterie.interop.runner.transcript import Transcript
from coterie.interop.runner.verdicts import verdict_of
from coterie.interop.runner.world import WAYS, Way, World

Peers = dict[str, Peer]
J = TypeVar("J", "Job", "HistoryJob")


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario to play."""

    first: str
    second: str
    suite: int
    scenario: str
    way: Way

    @property
    def key(self) -> tuple[object, ...]:
        """What is to be played, as a result names it."""
        return self.first, self.second, self.suite, self.scenario, str(self.way)


@dataclass(frozen=True, slots=True)
class HistoryJob:
    """One random history to play."""

    peers: tuple[str, ...]
    suite: int
    way: Way
    seed: int
    steps: int

    @property
    def key(self) -> tuple[object, ...]:
        """What is to be played, as a result names it."""
        return self.peers, self.suite, str(self.way), self.seed


def jobs(
    offered: dict[str, frozenset[int]],
    suites: Sequence[int],
    scenarios: Sequence[str],
    *,
    ways: int = len(WAYS),
    around: str | None = None,
) -> list[Job]:
    """Every scenario for every ordered pair in every suite that both have.

    `around` leaves out pairs without that peer. With fewer `ways` than four, each scenario of each suite takes its turn
    among the four.
    """
    found = []
    for first, second in itertools.product(offered, repeat=2):
        if around is not None and around not in (first, second):
            continue
        for suite in sorted(set(suites) & offered[first] & offered[second]):
            for number, scenario in enumerate(scenarios):
                chosen = [WAYS[(number + suite + 3 * turn) % len(WAYS)] for turn in range(ways)]
                found += [Job(first, second, suite, scenario, way) for way in chosen]
    return found


def history_jobs(
    offered: dict[str, frozenset[int]], suites: Sequence[int], count: int, steps: int, seed: int
) -> list[HistoryJob]:
    """Histories with all peers that have the suite, suites and ways in turn."""
    found = []
    for number in range(count):
        suite = suites[number % len(suites)]
        peers = tuple(name for name, has in offered.items() if suite in has)
        way = WAYS[(number + number // len(WAYS)) % len(WAYS)]
        if peers:
            found.append(HistoryJob(peers, suite, way, seed + number, steps))
    return found


def unplayed(todo: Sequence[J], done: Sequence[Cell | HistoryResult]) -> list[J]:
    """The jobs that have no result yet."""
    keys = {each.key for each in done}
    return [job for job in todo if job.key not in keys]


def play_scenario(peers: Peers, job: Job, transcripts: Path | None = None) -> Cell:
    """Plays one scenario; writes its transcript if it fails, or always where a folder is given."""
    transcript = Transcript()
    first, second = peers[job.first], peers[job.second]
    first.transcript = second.transcript = transcript
    world, began = World(job.suite, job.way), time.monotonic()
    outcome, who, words, path = Outcome.OK, "", "", ""
    try:
        SCENARIOS[job.scenario].play(world, first, second)
        world.free()
    except RefusalError as error:
        who, words = error.peer, f"{error.call}: {error.words}"
        known = error.lacking or verdict_of(error.peer, error.call, error.words, job.scenario)
        outcome = Outcome.LACKING if error.lacking else Outcome.FAILED
        if known and not error.lacking:
            outcome = Outcome.EXPLAINED
        if outcome is Outcome.FAILED:
            words = f"{error.call} answers {error.code}: {error.words}"
    except CoterieError as error:
        outcome, words = Outcome.FAILED, str(error)
    finally:
        first.transcript = second.transcript = None
    if transcripts is not None:
        name = (
            f"{job.first}-{job.second}-{job.suite}-{job.scenario}-{str(job.way).replace('/', '-')}"
        )
        transcript.write(transcripts / f"{name}.jsonl")
        path = f"{name}.jsonl"
    seconds = round(time.monotonic() - began, 3)
    return Cell(
        job.first, job.second, job.suite, job.scenario, str(job.way), outcome, who, words, path, seconds
    )  # fmt: skip


def play_history(
    peers: Peers,
    job: HistoryJob,
    transcripts: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> HistoryResult:
    """Plays one random history; its transcript is written where a folder is given.

    `progress` is called after every step.
    """
    transcript, began = Transcript(), time.monotonic()
    playing = [peers[name] for name in job.peers]
    for peer in playing:
        peer.transcript = transcript if transcripts else None
    history: History | None = None
    outcome, words = Outcome.OK, ""
    try:
        history = History(playing, job.suite, job.way, job.seed)
        history.play(job.steps, progress)
        history.world.free()
    except CoterieError as error:
        outcome, words = Outcome.FAILED, str(error)
    finally:
        for peer in playing:
            peer.transcript = None
    if transcripts is not None:
        transcript.write(transcripts / f"history-{job.suite}-{job.seed}.jsonl")
    lacked = {f"{p}'s {c}": n for (p, c), n in history.lacked.items()} if history else {}
    return HistoryResult(
        job.peers,
        job.suite,
        str(job.way),
        job.seed,
        outcome,
        sum(history.done.values()) if history else 0,
        history.world.epochs if history else 0,
        history.world.messages if history else 0,
        lacked,
        words,
        round(time.monotonic() - began, 3),
    )


@contextlib.contextmanager
def all_started(startables: Sequence[Startable]) -> Iterator[Peers]:
    """Every peer, running."""
    with contextlib.ExitStack() as stack:
        yield {each.name: stack.enter_context(started(each)) for each in startables}


@dataclass
class Plan:
    """What to play, and where to put it."""

    startables: Sequence[Startable]
    scenarios: Sequence[Job]
    histories: Sequence[HistoryJob]
    lanes: int = 1
    """How many sets of servers play side by side."""
    transcripts: Path | None = None
    seconds: float = math.inf
    """After how long nothing new is begun."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the run shall end: nothing new is begun, and histories end after their present step."""


def play(plan: Plan, matrix: Matrix, told: Callable[[Cell | HistoryResult], None]) -> int:
    """Plays a plan into a matrix; calls `told` after each cell and history.

    Gives how many plays were left out because the time was up, or the run was told to end.
    """
    return _Run(plan, matrix, told).play()


class _EndedError(Exception):
    """The run was told to end."""


class _Run:
    """The lanes of one run, each with a set of servers."""

    def __init__(
        self, plan: Plan, matrix: Matrix, told: Callable[[Cell | HistoryResult], None]
    ) -> None:
        self.plan, self.matrix, self.told = plan, matrix, told
        self.end = time.monotonic() + plan.seconds
        self.waiting: queue.SimpleQueue[Job | HistoryJob] = queue.SimpleQueue()
        # By suite, so that what is left out when the time is up is alike for all pairs.
        todo: list[Job | HistoryJob] = [*sorted(plan.scenarios, key=lambda job: job.suite)]
        for job in [*todo, *plan.histories]:
            self.waiting.put(job)
        self.lock = threading.Lock()
        self.errors: list[BaseException] = []

    def play(self) -> int:
        # A pool's futures are waited for, not its threads: CPython 3.11 takes a thread whose `join` a signal's handler
        # interrupts for one that has ended, and the run would leave before its lanes have ended their peers.
        with ThreadPoolExecutor(self.plan.lanes) as pool:
            lanes = [pool.submit(self._lane) for _ in range(self.plan.lanes)]
            try:
                wait(lanes)
            except BaseException:
                # Told to end: the lanes end their peers after the step that they are in.
                self.plan.ended.set()
                wait(lanes)
                raise
        if self.errors:
            raise self.errors[0]
        return self.waiting.qsize()

    def _lane(self) -> None:
        try:
            with all_started(self.plan.startables) as peers:
                while not self.plan.ended.is_set() and time.monotonic() < self.end:
                    self._play_one(self.waiting.get_nowait(), peers)
        except (queue.Empty, _EndedError):
            return
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            self.errors.append(error)
            self.plan.ended.set()

    def _go_on(self) -> None:
        if self.plan.ended.is_set():
            raise _EndedError

    def _play_one(self, job: Job | HistoryJob, peers: Peers) -> None:
        result: Cell | HistoryResult
        if isinstance(job, Job):
            result = play_scenario(peers, job, self.plan.transcripts)
        else:
            result = play_history(peers, job, self.plan.transcripts, self._go_on)
        with self.lock:
            if isinstance(result, Cell):
                self.matrix.cells.append(result)
            else:
                self.matrix.histories.append(result)
            self.told(result)
