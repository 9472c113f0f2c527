"""What is done in a group of a peer's clients, in phases; each phase fills several cells.

In a phase three clients of the peer take part: the first member, the second (the nearest possible) and the last (the
farthest). A phase is a generator that stops after each round, so that two libraries can take turns (`together`); rounds
go on until their share of time is used up, once at least.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from bench import floor
from bench.floor import Geometry, Prices
from bench.sidebyside import groups
from bench.sidebyside.book import Cell
from bench.sidebyside.driver import PATIENCE, Answer, Ask, RefusedError
from coterie.mls.framing import MLSMessage, PrivateMessage

FIRST, NEAR, FAR = "first", "near", "far"
SIZES = {"64 B": 64, "1 KiB": 1 << 10, "64 KiB": 1 << 16}
MOST = 200
"""No operation is repeated more often."""
MOST_SAMPLES = 24
"""So often the prices of an operation's primitives are sampled beside it."""
TURN = 0.1
"""About how many seconds a turn of both takes, where a round does not take longer."""
MOST_AT_ONCE = 10
OVER = object()
TAG = 16
SETUP = 5.0
"""Making a group ready may take so many times the limit of an operation."""


@dataclass
class Session:
    """A peer's clients in one group, and what has been measured with them."""

    ask: Ask
    members: int
    shape: str
    suite: int
    budget: float
    limit: float
    prices: Prices | None = None
    """Set for ourselves only: then floors are kept as well."""
    cells: dict[str, Cell] = field(default_factory=lambda: defaultdict(Cell))
    at: str = ""
    """The operation that is being measured."""
    entered: bool = False
    _floors: dict[str, floor.Floor] = field(default_factory=dict)
    _samples: dict[str, int] = field(default_factory=dict)
    _joined: int = 0
    _used: float = 0.0

    def timed(self, operation: str, do: str, **request: object) -> Answer:
        """A request whose times go into a cell."""
        self.at = operation
        answer = self.ask(do, **request)
        self._used += sum(answer["cpu"]) / 1e9
        cell = self.cells[operation]
        cell.wall += answer["wall"]
        cell.cpu += answer["cpu"]
        cell.bytes = answer.get("bytes", cell.bytes)
        self.at = ""
        return answer

    def untimed(self, do: str, **request: object) -> Answer:
        """A request on the way; it may take longer."""
        return self.ask(do, limit=SETUP * self.limit, **request)

    def commit(self, member: str, **what: object) -> Answer:
        """An untimed Commit; empty where nothing is said."""
        return self.untimed("commit", member=member, **{**EMPTY, **what})

    def rounds(self, least: int = 1) -> Iterator[int]:
        """Counts while there is time, from 0: the driver's processor time, and not for ever on a busy machine."""
        end, late = self._used + self.budget, time.monotonic() + PATIENCE * self.budget
        for number in range(MOST):
            yield number
            over = self._used > end or time.monotonic() > late
            if over and number + 1 >= least:
                return

    def price(self, operation: str, calls: Callable[[], floor.Floor], **public: int) -> None:
        """Samples the price of an operation's floor, beside the operation.

        `public` counts what of it are signatures, verifications, HPKE seals and openings.
        """
        self.cells[operation].calls = public
        if self.prices is None or self.suite != 1:
            return
        if operation not in self._floors:
            self._floors[operation] = calls()
            self.prices.floor(self._floors[operation])
        if self._samples.setdefault(operation, 0) < MOST_SAMPLES:
            self._samples[operation] += 1
            self.prices.sample()
        self.cells[operation].floor = self.prices.floor(self._floors[operation])

    def newcomer(self) -> tuple[str, str]:
        """A name that was not used, and its key package."""
        self._joined += 1
        name = f"newcomer {self._joined}"
        return name, self.untimed("package", member=name)["package"]


EMPTY = {"packages": [], "remove": [], "inside": False}


def enter(session: Session) -> None:
    """Makes the clients members of a group of the session's size and shape, if they are not yet."""
    if session.entered:
        return
    session.entered = True
    if session.members < groups.LEAST:
        _create(session)
        return
    names = (FIRST, NEAR, FAR)
    packages = [session.untimed("package", member=name)["package"] for name in names]
    shape = groups.shape_of(session.members, session.shape, session.suite)
    welcome, tree = groups.invite(shape, packages)
    for name in names:
        session.untimed("join", member=name, welcome=welcome, tree=tree)
    if session.shape != "blank":
        for committer in (FAR, NEAR, FIRST):
            message = session.commit(committer)["commit"]
            for name in set(names) - {committer}:
                session.untimed("process", member=name, commit=message)


def is_careless(ask: Ask, suite: int) -> bool:
    """Whether a peer's client joins a group in which a leaf's signature is wrong."""
    names = (FIRST, NEAR, FAR)
    packages = [ask("package", member=name)["package"] for name in names]
    welcome, tree = groups.invite(groups.spoiled(suite), packages)
    try:
        ask("join", member=FIRST, welcome=welcome, tree=tree)
    except RefusedError:
        return False
    return True


def _create(session: Session) -> None:
    session.untimed("create", member=FIRST)
    package = session.untimed("package", member=FAR)["package"]
    made = session.commit(FIRST, packages=[package])
    session.untimed("join", member=FAR, welcome=made["welcome"], tree=made["tree"])


def _geometry(answer: Answer) -> Geometry:
    depth, path, ciphertexts, message, leaf, context = answer["at"]
    return Geometry(depth, path, ciphertexts, message, leaf, context)


def commits(session: Session) -> Iterator[None]:
    """Empty Commits of the first member, processed by the others; the last one saves."""
    enter(session)
    near = session.members >= groups.LEAST
    saves = _try("save", session)
    for _ in session.rounds():
        made = session.timed("create commit", "commit", member=FIRST, **EMPTY)
        if near:
            session.timed("process commit, near", "process", member=NEAR, commit=made["commit"])
        session.timed("process commit, far", "process", member=FAR, commit=made["commit"])
        if saves:
            session.timed("save", "save", member=FAR)
        if "at" in made:
            _price_commit(session, _geometry(made), near=near)
        yield


def loading(session: Session) -> Iterator[None]:
    """The last member, as it was saved, is loaded."""
    enter(session)
    if _try("load", session):
        for _ in session.rounds():
            session.timed("load", "load", member=FAR)
            yield


def _price_commit(session: Session, at: Geometry, *, near: bool) -> None:
    made = partial(floor.create_commit, at)
    session.price("create commit", made, sign=2, seal=at.ciphertexts)
    for place, shared in (("near", at.path), ("far", 1)):
        if near or place == "far":
            processed = partial(floor.process_commit, at, shared)
            session.price(f"process commit, {place}", processed, verify=2, open=1)


def _try(operation: str, session: Session) -> bool:
    """Whether the library has such a thing. The first save writes everything; what is of interest is those after it."""
    with suppress(RefusedError):
        # Where there is no saving apart, there may be loading.
        session.untimed("save", member=FAR)
    try:
        session.untimed(operation, member=FAR)
    except RefusedError as refused:
        session.cells[operation] = Cell("lacking", words=str(refused))
        return False
    return True


def membership(session: Session) -> Iterator[None]:
    """The first member adds one and removes it; the newcomer joins, with the tree beside and inside in turn."""
    enter(session)
    # What a library finds out once for a group, and needs for who is added, is not what adding one takes.
    _, package = session.newcomer()
    session.commit(FIRST, packages=[package])
    session.commit(FIRST, remove=[session.members])
    for number in session.rounds(4):
        inside = bool(number % 2)
        where = "inside" if inside else "beside"
        added, joined = f"add one, tree {where}", f"join, tree {where}"
        name, package = session.newcomer()
        made = session.timed(
            added, "commit", member=FIRST, packages=[package], remove=[], inside=inside
        )
        session.timed(joined, "join", member=name, welcome=made["welcome"], tree=made["tree"])
        session.untimed("drop", member=name)
        removed = session.timed(
            "remove one",
            "commit",
            member=FIRST,
            packages=[],
            remove=[session.members],
            inside=False,
        )
        if "at" in made:
            _price_membership(session, _geometry(made), where)
            at = _geometry(removed)
            without = partial(floor.create_commit, at)
            session.price("remove one", without, sign=2, seal=at.ciphertexts)
        yield


def _price_membership(session: Session, at: Geometry, where: str) -> None:
    members = session.members + 1
    parents = session.members - 1 if session.shape == "warm" else at.path
    added = partial(floor.add_member, at)
    joined = partial(floor.join, at, members, parents, at.path)
    session.price(f"add one, tree {where}", added, sign=3, verify=2, seal=at.ciphertexts + 1)
    session.price(f"join, tree {where}", joined, verify=members + 1, open=1)


def messages(session: Session, words: str) -> Iterator[None]:
    """Application data from the first member to the last, past the first messages of the epoch."""
    enter(session)
    size = SIZES[words]
    warming = session.untimed("encrypt", member=FIRST, size=size, count=3)
    session.untimed("decrypt", member=FAR, messages=warming["messages"])
    body = MLSMessage.read(b64decode(warming["messages"][0])).body
    assert isinstance(body, PrivateMessage)
    inner = len(body.ciphertext) - TAG
    encrypt, decrypt, context = f"encrypt {words}", f"decrypt {words}", 100
    for _ in session.rounds():
        sent = session.timed(encrypt, "encrypt", member=FIRST, size=size, count=20)
        session.timed(decrypt, "decrypt", member=FAR, messages=sent["messages"])
        session.price(encrypt, partial(floor.encrypt, inner, context), sign=1)
        session.price(decrypt, partial(floor.decrypt, inner, context), verify=1)
        yield


def bulk(session: Session) -> Iterator[None]:
    """A new group, and all others added in one Commit; their key packages are read and verified in the same time."""
    packages = groups.key_packages(session.members - 1, session.suite)
    for number in session.rounds():
        name = f"creator {number}"
        session.untimed("create", member=name)
        made = session.timed(
            "add all", "commit", member=name, packages=packages, remove=[], inside=False
        )
        if "at" in made:
            others = session.members - 1
            calls = partial(floor.add_many, _geometry(made), others)
            session.price("add all", calls, sign=3, verify=2 * others, seal=others)
        session.untimed("drop", member=name)
        yield


@dataclass(frozen=True)
class Phase:
    """A phase, the cells that it fills, and the shapes in which it is of interest."""

    name: str
    run: Callable[[Session], Iterator[None]]
    operations: tuple[str, ...]
    shapes: tuple[str, ...]

    def together(
        self, ours: Session, theirs: Session, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Both in turn, until the first has used its time.

        So what the machine does to one it does to the other, and a round of theirs has one of ours near it. A turn has
        several rounds where they are short, for the first one finds what the other has left in the caches.
        """
        runs = self.run(ours), self.run(theirs)
        rounds = 1
        for turn in count():
            start = clock()
            if not all(_play(run, rounds) for run in runs):
                return
            if turn == 1:
                # The first one made the groups ready.
                rounds = max(1, min(MOST_AT_ONCE, int(TURN / (clock() - start))))


def _play(run: Iterator[None], rounds: int) -> bool:
    """Whether there were so many."""
    return all(next(run, OVER) is None for _ in range(rounds))


ALL_SHAPES = ("warm", "half", "blank")
PHASES = (
    # In this order: in the membership phase only the first member goes on.
    Phase(
        "commits",
        commits,
        ("create commit", "process commit, near", "process commit, far", "save"),
        ALL_SHAPES,
    ),
    Phase("loading", loading, ("load",), ALL_SHAPES),
    *(
        Phase(
            f"messages of {words}",
            partial(messages, words=words),
            (f"encrypt {words}", f"decrypt {words}"),
            ("warm",),
        )
        for words in SIZES
    ),
    Phase(
        "membership",
        membership,
        (
            "add one, tree beside",
            "add one, tree inside",
            "remove one",
            "join, tree beside",
            "join, tree inside",
        ),
        ALL_SHAPES,
    ),
    Phase("bulk", bulk, ("add all",), ("warm",)),
)
