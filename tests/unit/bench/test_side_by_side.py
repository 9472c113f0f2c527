"""The bookkeeping of the benchmarks beside other libraries: what is kept, what is skipped, what the page says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from bench.parts import write_part
from bench.peers.coterie.driver import Driver as OurDriver
from bench.sidebyside.__main__ import parse_columns
from bench.sidebyside.book import Book, Cell, Key
from bench.sidebyside.driver import Driver, OverError, RefusedError
from bench.sidebyside.phases import PHASES, Phase, Session, enter, is_careless
from bench.sidebyside.report import Report
from bench.sidebyside.run import Plan, Runner, Startable
from coterie.errors import VerificationError

MACHINE = {
    "processor": "P",
    "cores": 2,
    "system": "S",
    "python": "CPython",
    "cryptography": "1",
}
OURS = Key("coterie", "pyca", 1, "warm", 1_000, "create commit")
THEIRS = replace(OURS, peer="openmls", provider="libcrux")
ECHO = """
import json, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "sleep":
        time.sleep(60)
    while request["do"] == "work":
        pass
    if request["do"] == "die":
        sys.exit("out of luck")
    if request["do"] == "babble":
        print("warning: all is well", flush=True)
        continue
    if request["do"] == "fail":
        request = {"error": "no such thing"}
    print(json.dumps(request), flush=True)
"""


def measured(
    *milliseconds: float,
    ours: Sequence[float] = (),
    floor: float = 0.0,
    calls: dict[str, int] | None = None,
) -> Cell:
    times, beside = ([int(ms * 1e6) for ms in listed] for listed in (milliseconds, ours))
    cell = Cell(wall=times, cpu=times, floor=floor, calls=calls or {})
    cell.put_beside(Cell(wall=beside, cpu=beside))
    return cell


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "book.json", MACHINE)


# -- the book


def test_a_saved_book_is_read_back(book: Book) -> None:
    book.opened("openmls", "1")
    book.prices[THEIRS.priced] = {"sign": (1.0, 2.0)}
    book.put(THEIRS, measured(1, 2, 3, ours=(4, 5)))
    book.save()
    again = Book(book.path, MACHINE)
    assert again.cells == {THEIRS: measured(1, 2, 3, ours=(4, 5))}
    assert again.versions == {"openmls": "1"}
    assert again.prices == {THEIRS.priced: {"sign": (1.0, 2.0)}}


def test_what_another_machine_measured_is_not_read(book: Book) -> None:
    book.put(THEIRS, measured(1))
    book.save()
    assert Book(book.path, {**MACHINE, "cores": 64}).cells == {}


def test_what_is_no_book_is_left_alone(book: Book) -> None:
    for text in ("", "[]", "{}", "{"):
        book.path.write_text(text)
        with pytest.raises(ValueError, match="move it away"):
            Book(book.path, MACHINE)
        assert book.path.read_text() == text


def test_a_new_version_gives_up_its_own_cells_and_a_new_one_of_ours_all(book: Book) -> None:
    other = replace(THEIRS, peer="ts-mls")
    for peer in ("openmls", "coterie"):
        book.opened(peer, "1")
    book.prices = {THEIRS.priced: {"sign": (1.0, 1.0)}, other.priced: {"sign": (2.0, 1.0)}}
    for key in (OURS, THEIRS, other):
        book.put(key, measured(1))
    for peer in ("openmls", "coterie"):
        book.opened(peer, "1")
    assert set(book.cells) == {OURS, THEIRS, other}
    book.opened("openmls", "2")
    assert set(book.cells) == {OURS, other}
    assert set(book.prices) == {other.priced}
    book.opened("coterie", "2")
    assert (book.cells, book.prices) == ({}, {})


def test_too_long_in_a_smaller_group_is_too_long_in_a_larger_one_and_nowhere_else(
    book: Book,
) -> None:
    book.put(THEIRS, Cell("over"))
    assert book.over(replace(THEIRS, members=10_000))
    assert not book.over(THEIRS)
    assert not book.over(replace(THEIRS, members=100))
    assert not book.over(replace(THEIRS, members=10_000, shape="blank"))
    assert not book.over(replace(THEIRS, members=10_000, provider="rustcrypto"))
    assert not book.over(replace(THEIRS, members=10_000, operation="add all"))


# -- drivers


def test_a_driver_is_asked_and_refuses_with_its_words() -> None:
    with Driver([sys.executable, "-c", ECHO], 30) as driver:
        assert driver.ask("greet", whom="you") == {"do": "greet", "whom": "you"}
        with pytest.raises(RefusedError, match="no such thing"):
            driver.ask("fail")
        with pytest.raises(RefusedError, match="all is well"):
            driver.ask("babble")


def test_a_driver_that_ends_says_so_with_its_last_words() -> None:
    with (
        Driver([sys.executable, "-c", ECHO], 30) as driver,
        pytest.raises(RefusedError, match="ended while asked for die"),
    ):
        driver.ask("die")


@pytest.mark.parametrize("how", ["sleep", "work"])
def test_a_driver_that_takes_too_long_is_ended(how: str) -> None:
    with Driver([sys.executable, "-c", ECHO], 0.2) as driver:
        with pytest.raises(OverError):
            driver.ask(how)
        with pytest.raises(RefusedError):
            driver.ask("greet")


class Careful:
    """A client that joins by Coterie, and looks at leaves only if it is told to."""

    def __init__(self, *, looks: bool) -> None:
        self._driver, self._looks = OurDriver(), looks
        self._driver.open(1, "pyca")

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        try:
            return getattr(self._driver, do)(**request)  # type: ignore[no-any-return]
        except VerificationError as error:
            if self._looks:
                raise RefusedError(str(error)) from error
            return {}


def test_who_joins_a_group_with_a_wrong_signature_is_careless() -> None:
    assert not is_careless(Careful(looks=True).ask, 1)
    assert is_careless(Careful(looks=False).ask, 1)


@pytest.mark.parametrize("shape", ["warm", "half", "blank"])
def test_all_phases_pass_in_our_own_driver_and_the_tree_has_the_wanted_shape(shape: str) -> None:
    driver = OurDriver()
    driver.open(1, "pyca")

    def ask(do: str, limit: float = 0, **request: Any) -> dict[str, Any]:
        del limit
        return getattr(driver, do)(**request)  # type: ignore[no-any-return]

    session = Session(ask, 20, shape, 1, budget=0.0, limit=1.0)
    enter(session)
    made = ask("commit", member="first", packages=[], remove=[], inside=False)
    depth, path, seals = made["at"][:3]
    assert depth == path == 5
    assert {"warm": seals == 5, "half": 5 < seals < 18, "blank": seals == 18}[shape]
    for name in ("near", "far"):
        ask("process", member=name, commit=made["commit"])
    for phase in PHASES:
        phase.together(session, session)
        assert all(session.cells[operation].wall for operation in phase.operations)
    assert session.cells["join, tree beside"].calls == {"verify": 22, "open": 1}
    assert session.cells["process commit, far"].calls == {"verify": 2, "open": 1}


# -- the runner, with a driver that answers anything

ANYTHING = """
import json, sys, time
for line in sys.stdin:
    request = json.loads(line)
    do = request["do"]
    if do == {slow!r} and request.get("limit") != 1:
        time.sleep(60)
    if do == {refused!r}:
        print(json.dumps({{"error": "not today"}}), flush=True)
        continue
    answer = {{"version": "1", "prices": {{"sign": 1}}, "package": "", "commit": "", "welcome": "",
              "tree": "", "wall": [5], "cpu": [4], "bytes": 3}}
    print(json.dumps(answer), flush=True)
"""
SMALL = Plan(columns=(("openmls", "libcrux"),), sizes=(2,), budget=0.0, limit=20.0)


def run(book: Book, plan: Plan, slow: str = "", refused: str = "") -> None:
    drivers = {
        peer: Startable([sys.executable, "-c", ANYTHING.format(slow=slow, refused=refused)], "x")
        for peer, slow, refused in (("coterie", "", ""), ("openmls", slow, refused))
    }
    # What this driver answers has no key package in it.
    with patch("bench.sidebyside.run.is_careless", return_value=False):
        Runner(book, plan, drivers).run()


def cells(book: Book) -> dict[str, Cell]:
    return {key.operation: cell for key, cell in book.cells.items() if key.peer == "openmls"}


def only(operation: str) -> Plan:
    return replace(SMALL, operations=(operation,))


def test_a_phase_fills_its_cells(book: Book) -> None:
    run(book, only("save"))
    found = cells(book)
    assert found.keys() == {"create commit", "process commit, far", "save"}
    for cell in found.values():
        beside = {"cpu": [4], "wall": [5]}
        assert cell == Cell(wall=[5], cpu=[4], bytes=cell.bytes, beside=beside)
    assert json.loads(book.path.read_text())["versions"] == {"coterie": "1, x", "openmls": "1, x"}


def test_what_goes_wrong_in_one_phase_does_not_keep_the_next_from_a_fresh_driver(
    book: Book,
) -> None:
    plan = replace(SMALL, operations=("save", "add all"))
    run(book, plan, refused="process")
    found = cells(book)
    assert found["process commit, far"].status == "failed"
    assert found["add all"].status == "measured"


def test_what_was_measured_is_not_measured_again_unless_asked(book: Book) -> None:
    run(book, only("save"))
    key = next(key for key in book.cells if (key.peer, key.operation) == ("openmls", "save"))
    book.put(key, measured(7))
    run(book, only("save"))
    assert book.cells[key] == measured(7)
    run(book, replace(only("save"), again=True))
    assert book.cells[key].wall == [5]


def test_what_an_older_driver_measured_is_measured_again(book: Book) -> None:
    run(book, only("save"))
    key = next(key for key in book.cells if (key.peer, key.operation) == ("openmls", "save"))
    book.put(key, measured(7))
    book.versions["openmls"] = "1, older"
    run(book, only("save"))
    assert book.cells[key].wall == [5]
    assert book.versions == {"coterie": "1, x", "openmls": "1, x"}


def test_an_operation_over_the_limit_is_noted_and_what_follows_is_not_reached(book: Book) -> None:
    run(book, replace(only("save"), limit=1.0), slow="process")
    found = cells(book)
    assert found["create commit"].status == "measured"
    assert found["process commit, far"].status == "over"
    assert found["save"].status == "unreached"


def test_larger_groups_are_spared_a_phase_that_was_too_much(book: Book) -> None:
    (phase,) = only("add all").phases("warm")
    smaller = [replace(THEIRS, members=2, operation=name) for name in phase.operations]
    for key in smaller:
        book.put(key, Cell("over"))
    drivers = {peer: Startable(["/no"], "x") for peer in ("coterie", "openmls")}
    Runner(book, replace(only("add all"), sizes=(3,)), drivers).run()
    assert all(book.cells[replace(key, members=3)].status == "over" for key in smaller)


def test_a_refusal_is_noted_with_its_words(book: Book) -> None:
    run(book, only("add one, tree beside"), refused="join")
    found = cells(book)
    assert {(cell.status, cell.words) for cell in found.values()} == {("failed", "not today")}


def test_a_library_that_cannot_save_lacks_it(book: Book) -> None:
    run(book, only("save"), refused="save")
    found = cells(book)
    assert (found["save"].status, found["save"].words) == ("lacking", "not today")
    assert found["create commit"].status == "measured"


def test_a_plan_names_the_phases_that_fill_what_is_wanted() -> None:
    assert [phase.name for phase in only("join, tree inside").phases("warm")] == ["membership"]
    names = ["commits", "loading", "membership"]
    assert [phase.name for phase in SMALL.phases("blank")] == names
    shapes = replace(SMALL, shapes=("warm", "blank"), sizes=(2, 10))
    assert list(shapes.groups()) == [(1, "warm", 2), (1, "warm", 10), (1, "blank", 10)]


def test_the_groups_of_a_book_can_be_a_plan(book: Book) -> None:
    book.put(replace(THEIRS, members=50_000, shape="blank"), measured(1))
    book.put(THEIRS, measured(1))
    book.put(replace(THEIRS, members=7), Cell("failed"))
    assert list(replace(SMALL, known=book.groups()).groups()) == [
        (1, "warm", 1_000),
        (1, "blank", 50_000),
    ]


def test_no_operation_is_in_two_phases() -> None:
    operations = [name for phase in PHASES for name in phase.operations]
    assert len(operations) == len(set(operations))


def test_rounds_go_on_until_the_driver_has_used_its_time() -> None:
    def ask(_do: str, **_: object) -> dict[str, object]:
        return {"wall": [1], "cpu": [1]}

    session = Session(ask, 10, "warm", 1, budget=0.0, limit=1.0)
    counted = 0
    for _ in session.rounds():
        session.timed("create commit", "commit")
        counted += 1
    assert counted == 1, "once at least, and no longer than the budget"


@pytest.mark.parametrize(
    ("seconds", "ours", "theirs", "turns"),
    [
        (0.06, 3, 5, "ototot"),
        (0.06, 3, 2, "ototo"),
        (0.005, 14, 13, "otot" + 10 * "o" + 10 * "t" + 2 * "o"),
        (0.02, 6, 6, "otot" + "oott" + "oott"),
    ],
)
def test_two_libraries_take_turns_and_short_rounds_go_together(
    seconds: float, ours: int, theirs: int, turns: str
) -> None:
    asked: list[str] = []

    def play(name: str, rounds: int) -> Iterator[None]:
        for _ in range(rounds):
            asked.append(name)
            yield

    runs = iter((play("o", ours), play("t", theirs)))
    session = Session(Careful(looks=True).ask, 2, "warm", 1, budget=0.0, limit=1.0)
    phase = Phase("played", lambda _: next(runs), (), ())
    phase.together(session, session, lambda: seconds * len(asked))
    assert "".join(asked) == turns


def test_columns_are_peers_with_one_or_all_of_their_providers() -> None:
    assert parse_columns("coterie,openmls/libcrux") == (
        ("coterie", "pyca"),
        ("coterie", "libsodium"),
        ("openmls", "libcrux"),
    )
    assert parse_columns("openmls") == (("openmls", "rustcrypto"), ("openmls", "libcrux"))
    with pytest.raises(ValueError, match="none of"):
        parse_columns("openmls/nss")


# -- the page


def report(book: Book) -> Report:
    return Report(book, "cpu")


def test_ratios_are_the_peers_time_in_ours_and_a_lead_is_marked(book: Book) -> None:
    book.put(OURS, measured(1, 2, 30, floor=0.001))
    book.put(THEIRS, measured(9, 10, 11, ours=(2, 2, 2)))
    assert report(book).group(1, "warm", 1_000)[-1] == "| create commit | 2.00 | 5 |"
    book.put(THEIRS, measured(1, 1, 1, ours=(2, 2, 2)))
    assert report(book).group(1, "warm", 1_000)[-1] == "| create commit | 2.00 | **0.50** |"


def test_only_times_of_the_same_rounds_are_compared(book: Book) -> None:
    # The machine was half as fast in the second half, in which ours had one round more.
    book.put(OURS, measured(100, floor=0.1))
    book.put(THEIRS, measured(3, 3, 6, 6, ours=(1, 1, 2, 2, 2)))
    assert report(book).group(1, "warm", 1_000)[-1] == "| create commit | 1.00 | 3 |"


def test_we_are_the_faster_of_our_own_columns(book: Book) -> None:
    book.put(OURS, measured(2, ours=(1,), floor=0.001))
    book.put(replace(OURS, provider="libsodium"), measured(1))
    book.put(THEIRS, measured(3, ours=(1,)))
    assert report(book).reference == ("coterie", "libsodium")
    assert report(book).group(1, "warm", 1_000)[-1] == "| create commit | 2.00 | 2 | 3 |"


@pytest.mark.parametrize(
    ("status", "shown"), [("over", "> limit"), ("failed", "failed"), ("lacking", "none")]
)
def test_a_cell_without_times_says_why(book: Book, status: str, shown: str) -> None:
    book.put(OURS, measured(1))
    book.put(THEIRS, Cell(status, words="so it is"))  # type: ignore[arg-type]
    assert report(book).group(1, "warm", 1_000)[-1] == f"| create commit |  | {shown} |"
    assert report(book).failures() == [
        "- OpenMLS, libcrux, warm, create commit (1,000 members): so it is"
    ]


def test_what_failed_alike_is_said_once(book: Book) -> None:
    for phase in PHASES:
        for operation in phase.operations:
            for members in (10, 1_000):
                key = replace(THEIRS, operation=operation, members=members)
                book.put(key, Cell("failed", words="no such suite"))
    assert report(book).failures() == [
        "- OpenMLS, libcrux, warm, everything (10, 1,000 members): no such suite"
    ]


def test_a_lead_says_how_much_of_it_primitives_are(book: Book) -> None:
    book.prices = {THEIRS.priced: {"sign": (100_000.0, 300_000.0)}}
    book.put(OURS, measured(1, calls={"sign": 2}))
    book.put(THEIRS, measured(0.8, ours=(1,)))
    (lead,) = report(book).leads(1_000)
    assert lead.ratio == pytest.approx(0.8)
    assert lead.our_share == pytest.approx(0.6)
    assert lead.swapped == pytest.approx(0.8 - 0.2 + 0.6)
    assert list(report(book).leads(1_001)) == []
    assert report(book).lead_table(1_000)[-1] == (
        "| create commit, warm, 1,000 | OpenMLS, libcrux | 0.80 | 60% | 1.20 |"
    )


def test_a_peer_that_is_cheaper_than_its_primitives_does_not_make_them_all(book: Book) -> None:
    book.prices = {THEIRS.priced: {"verify": (300_000.0, 300_000.0)}}
    book.put(OURS, measured(1, calls={"verify": 2}))
    book.put(THEIRS, measured(0.1, ours=(1,)))
    (lead,) = report(book).leads(1_000)
    assert lead.swapped is None
    assert report(book).lead_table(1_000)[-1] == (
        "| create commit, warm, 1,000 | OpenMLS, libcrux | 0.10 | 60% ‡ |  |"
    )


def test_the_page_has_the_machine_the_versions_and_each_group(book: Book) -> None:
    book.opened("openmls", "openmls 9, abc")
    book.put(OURS, measured(1))
    book.put(THEIRS, measured(3, ours=(1,)))
    page = report(book).page()
    assert "### Warm group of 1,000\n" in page
    assert "openmls 9, abc" in page
    assert "P, 2 cores" in page


def test_a_join_without_its_checks_is_marked(book: Book) -> None:
    ours, theirs = (replace(key, operation="join, tree beside") for key in (OURS, THEIRS))
    book.put(ours, measured(10))
    book.put(theirs, measured(1, ours=(10,)))
    assert report(book).group(1, "warm", 1_000)[-1] == "| join, tree beside |  | **0.10** |"
    book.careless = {THEIRS.priced: True}
    assert report(book).group(1, "warm", 1_000)[-1] == "| join, tree beside |  | **0.10** † |"
    assert "although the signature of a leaf is wrong" in report(book).page()


def test_parts_of_a_page_are_replaced_where_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("of another age\n")
    write_part(page, "one", "# One\n")
    write_part(page, "two", "## Two\n")
    write_part(page, "one", "# New\n")
    assert page.read_text() == "<!-- part: one -->\n# New\n\n<!-- part: two -->\n## Two\n"
