"""`coterie interop`: this implementation under the working group's harness, and against other implementations."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coterie.apps.answering import JsonOption, answer, installing
from coterie.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from coterie.interop.runner.matrix import Cell, HistoryResult, Matrix
    from coterie.interop.runner.peers import Startable
    from coterie.interop.runner.playing import Plan

app = typer.Typer(
    no_args_is_help=True, help="Talk to other MLS implementations (needs the extra `interop`)."
)

_ALL_SUITES = tuple(range(1, 8))
_OTHERS = ("ts-mls", "openmls", "mls-rs", "bouncy-castle")
_TERMINATED = 128 + signal.SIGTERM
_SAVED_EVERY = 60
"""Seconds between two writings of an unfinished matrix."""


def _needs_grpc() -> None:
    if find_spec("grpc_tools") is None:
        msg = f"this needs gRPC; {installing('interop')}"
        raise StateError(msg)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 for any.")] = 50001,
    grease: Annotated[
        bool, typer.Option("--grease", help="Put GREASE extensions into key packages and leaves.")
    ] = False,
) -> None:
    """Serve the interop harness's gRPC interface, as an implementation under test."""
    _needs_grpc()
    from coterie.interop.server import serve as run

    run(port, grease=grease)


@app.command()
def run(  # noqa: PLR0913, PLR0917 - a command's options
    peers: Annotated[
        list[str] | None, typer.Argument(help="Who plays; all peers and ourselves if none.")
    ] = None,
    suite: Annotated[list[int] | None, typer.Option(help="Cipher suites; all if none.")] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(help='Scenarios; all if not given; "none" for histories only.'),
    ] = None,
    ways: Annotated[
        int, typer.Option(min=1, max=4, help="In how many of the four ways each is played.")
    ] = 1,
    around: Annotated[str | None, typer.Option(help="Only pairs with this peer.")] = None,
    histories: Annotated[int, typer.Option(min=0, help="How many random histories.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="The steps of each history.")] = 100,
    seed: Annotated[int, typer.Option(help="The seed of the first history.")] = 1,
    lanes: Annotated[int, typer.Option(min=1, help="How many plays go on side by side.")] = 1,
    minutes: Annotated[
        float, typer.Option(min=0, help="Begin nothing new after so many minutes.")
    ] = math.inf,
    transcripts: Annotated[
        Path | None, typer.Option(help="A folder for the transcripts of all plays.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the matrix here.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Do not play again what is fine in the file of --json.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the matrix as a page here.")
    ] = None,
) -> None:
    """Play one group across implementations: every scenario for every pair, and random histories.

    Peers are built where that is needed. The exit status is 1 where a play failed without a known reason.

    Example: coterie interop run coterie ts-mls --suite 1

    Example: coterie interop run --histories 20 --json build/interop.json --resume
    """
    _needs_grpc()
    ended = _ended_by_signal()
    from coterie.interop.runner.peers import OURSELVES
    from coterie.interop.runner.playing import Plan, history_jobs, jobs, unplayed
    from coterie.interop.runner.scenarios import SCENARIOS

    chosen = _chosen(scenario or list(SCENARIOS), SCENARIOS)
    startables, missing = _built(peers or [OURSELVES, *_OTHERS])
    matrix = _matrix(startables, missing, as_json if resume else None)
    offered = _offered(startables)
    suites = suite or list(_ALL_SUITES)
    plan = Plan(
        startables,
        unplayed(jobs(offered, suites, chosen, ways=ways, around=around), matrix.cells),
        unplayed(history_jobs(offered, suites, histories, steps, seed), matrix.histories),
        lanes,
        transcripts,
        60 * minutes,
        ended,
    )
    _play(plan, matrix, as_json, output)


def _ended_by_signal() -> threading.Event:
    """What is set when this process is told to end."""
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        # The peers' servers are ended on the way out, so being ended must be a way out. The exception alone
        # would not do: where it meets a callback of gRPC's it is lost.
        ended.set()
        sys.exit(_TERMINATED)

    signal.signal(signal.SIGTERM, end)
    return ended


def _built(names: list[str]) -> tuple[list[Startable], list[str]]:
    """Those that can be started, and why others cannot; ourselves alone need no folder of peers."""
    from coterie.interop.runner.peers import OURSELVES, built, peers_folder

    return built(None if names == [OURSELVES] else peers_folder(), names)


def _offered(startables: Sequence[Startable]) -> dict[str, frozenset[int]]:
    """The suites that each peer says it has."""
    from coterie.interop.runner.playing import all_started

    with all_started(startables) as running:
        return {name: peer.suites for name, peer in running.items()}


def _matrix(startables: Sequence[Startable], missing: list[str], before: Path | None) -> Matrix:
    """What is known before anything is played: of an earlier run, what was fine there."""
    from coterie.interop.runner.document import read_matrix
    from coterie.interop.runner.matrix import Matrix

    matrix = Matrix({each.name: each.version for each in startables}, missing=missing)
    if before is not None and before.exists():
        matrix.take_over(read_matrix(before))
        matrix.forget_failures()
    return matrix


def _chosen(given: list[str], known: Container[str]) -> list[str]:
    for name in given:
        if name != "none" and name not in known:
            msg = f"there is no scenario {name!r}; `coterie interop scenarios` lists them"
            raise StateError(msg)
    return [] if given == ["none"] else given


@app.command()
def scenarios(as_json: JsonOption = False) -> None:
    """List the scenarios."""
    _needs_grpc()
    from coterie.interop.runner.scenarios import SCENARIOS

    facts = [{"name": each.name, "about": each.about} for each in SCENARIOS.values()]
    said = [f"{each.name:28} {escape(each.about)}" for each in SCENARIOS.values()]
    answer(facts, "\n".join(said), as_json=as_json)


@app.command()
def replay(
    transcript: Annotated[Path, typer.Argument(help="A transcript that a run wrote.")],
    as_json: JsonOption = False,
) -> None:
    """Play a transcript again: the same calls, new keys; what was equal must be equal again."""
    _needs_grpc()
    from coterie.interop.runner.playing import all_started
    from coterie.interop.runner.transcript import Replay, read_transcript

    lines = read_transcript(transcript)
    names = list(dict.fromkeys(line["peer"] for line in lines))
    startables, missing = _built(names)
    if missing:
        raise StateError("; ".join(missing))
    with all_started(startables) as running:
        difference = Replay(running).play(lines)
    words = escape(difference) if difference else f"{len(lines)} calls, all as before"
    answer({"calls": len(lines), "difference": difference or None}, words, as_json=as_json)
    if difference:
        raise typer.Exit(1)


@app.command()
def document(
    matrix: Annotated[list[Path], typer.Argument(help="The JSON of one or more runs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes.")],
    vectors: Annotated[
        Path | None, typer.Option(help="The JSON of `coterie interop vectors`, for its section.")
    ] = None,
) -> None:
    """Write the page of runs, from their JSON; of what was played in several of them, the last counts."""
    from coterie.interop.replaying.pages import passive_section, read_played
    from coterie.interop.runner.document import document as page
    from coterie.interop.runner.document import read_matrix

    whole, *others = [read_matrix(path) for path in matrix]
    for other in others:
        whole.take_over(other)
    output.write_text(page(whole, passive_section(read_played(vectors)) if vectors else ""))


@app.command("vectors")
def play_vectors(
    negative: Annotated[
        list[Path] | None, typer.Argument(help="Folders of negative vectors that are made for now.")
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Who plays; all peers if none.")] = None,
    suite: Annotated[
        list[int] | None, typer.Option(help="Suites of the passive-client vectors; all if none.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the passive-client vectors.")] = 1,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the differences as a page here.")
    ] = None,
) -> None:
    """Play our vectors through the peers: passive clients, and the negative vectors of some folders.

    The exit status is 1 where a peer accepts what we refuse, and no judgement says who is right; or where it comes to
    another epoch authenticator than a passive-client vector.

    Example: coterie interop vectors --peer ts-mls --suite 1
    """
    _needs_grpc()
    from coterie.interop.replaying.pages import differential_page
    from coterie.interop.replaying.playing import play

    played, missing = play(peer or _OTHERS, suite or _ALL_SUITES, seed, negative or [], print)
    for why in missing:
        Console(stderr=True).print(f"not there: {escape(why)}")
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(played.to_json(), indent=1))
    if output is not None:
        output.write_text(differential_page(played))
    for each in played.unjudged:
        print(
            f"{each.peer}, {each.rule}: {each.outcome.value}, and nobody has judged: {each.about}"
        )
    if played.unjudged or played.wrong:
        raise typer.Exit(1)


def _play(plan: Plan, matrix: Matrix, as_json: Path | None, output: Path | None) -> None:
    from coterie.interop.runner.matrix import Cell, Outcome
    from coterie.interop.runner.playing import play

    saved = time.monotonic()

    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    with progress:
        bar = progress.add_task("starting", total=len(plan.scenarios) + len(plan.histories))

        def told(result: Cell | HistoryResult) -> None:
            nonlocal saved
            if as_json is not None and time.monotonic() - saved > _SAVED_EVERY:
                _save(matrix, as_json)
                saved = time.monotonic()
            where = (
                f"{result.first} + {result.second}, {result.scenario}"
                if isinstance(result, Cell)
                else f"history {result.seed}"
            )
            progress.update(bar, advance=1, description=f"suite {result.suite}, {where}")
            if result.outcome is Outcome.FAILED:
                progress.console.print(f"[red]failed[/] {escape(where)}: {escape(result.words)}")

        try:
            left = play(plan, matrix, told)
        finally:
            if as_json is not None:
                _save(matrix, as_json)
    if left:
        print(f"{left} plays were left out: the time is up")
    if plan.ended.is_set():
        sys.exit(_TERMINATED)
    _finish(matrix, output)


def _finish(matrix: Matrix, output: Path | None) -> None:
    if output is not None:
        from coterie.interop.runner.document import document as page

        output.write_text(page(matrix))
    Console().print(_shown(matrix))
    for why in matrix.missing:
        Console(stderr=True).print(f"not there: {escape(why)}")
    for history in matrix.histories:
        print(
            f"history {history.seed}, suite {history.suite}: {history.outcome.value}, {history.steps}"
            f" steps, {history.epochs} epochs, {history.messages} messages read"
        )
    if matrix.failures:
        print(f"{matrix.failures} plays failed")
        raise typer.Exit(1)


def _save(matrix: Matrix, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(json.dumps(matrix.to_json(), indent=1))
    unfinished.replace(path)


def _shown(matrix: Matrix) -> Table:
    from coterie.interop.runner.matrix import Outcome

    table = Table("creates", "joins", "suite", *(outcome.value for outcome in Outcome))
    for (first, second, suite), counts in matrix.counted().items():
        numbers = [str(counts[outcome] or "") for outcome in Outcome]
        style = "red" if counts[Outcome.FAILED] else "green"
        table.add_row(first, second, str(suite), *numbers, style=style)
    return table
