"""`coterie vectors`: verifies files of test vectors in the working group's format, and makes fresh ones."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coterie.apps.answering import JsonOption, answer
from coterie.errors import CoterieError, StateError

if TYPE_CHECKING:
    from rich.progress import Progress

    from coterie.interop.kinds import Report, VectorFile

_SHOWN_FAILURES = 5

app = typer.Typer()


@app.command(rich_help_panel="Trying and checking")
def vectors(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files of vectors, or directories with such files.", metavar="FILE..."),
    ] = None,
    as_json: JsonOption = False,
    generate: Annotated[
        str | None,
        typer.Option(help="Make fresh vectors of this kind instead.", metavar="KIND"),
    ] = None,
    suite: Annotated[
        list[int] | None,
        typer.Option(help="For this cipher suite only (may be given several times)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same vectors; random without.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")
    ] = None,
    list_kinds: Annotated[
        bool, typer.Option("--list", help="List the kinds of vectors that are known.")
    ] = False,
) -> None:
    """Verify files of MLS test vectors, or make fresh ones.

    The kind of a file is recognised from its content, or its name. The exit status is 1 where a case does not hold.

    Example: coterie vectors treekem.json welcome.json

    Example: coterie vectors --generate treekem --suite 1 --seed 7 -o treekem.json
    """
    if list_kinds:
        _list_kinds(as_json=as_json)
    elif generate is not None:
        if files:
            msg = "give files to verify or --generate, not both"
            raise StateError(msg)
        _generate(generate, tuple(suite or ()), seed, output)
    elif not files:
        msg = "give at least one file of vectors, or --generate KIND, or --list"
        raise StateError(msg)
    else:
        outcomes = _verify_all(_expanded(files), quiet=as_json)
        if as_json:
            typer.echo(json.dumps(_summary(outcomes), indent=2))
        else:
            _print(outcomes)
        if any(outcome.failed for outcome in outcomes):
            raise typer.Exit(1)


class _Outcome:
    """What came of one path: a report, or why there is none; and how long it took."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report: Report | None = None
        self.error: str | None = None
        self.seconds = 0.0

    @property
    def failed(self) -> bool:
        return self.report is None or bool(self.report.failures)


def _expanded(paths: list[Path]) -> list[Path]:
    """Files as they are, directories as the JSON files in them."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            msg = f"{path} has no .json files in it"
            raise StateError(msg)
        found += inside
    return found


def _verify_all(paths: list[Path], *, quiet: bool) -> list[_Outcome]:
    from coterie.interop.kinds import read_vectors, verify_file

    outcomes = [_Outcome(path) for path in paths]
    read: list[tuple[_Outcome, VectorFile]] = []
    for outcome in outcomes:
        try:
            read.append((outcome, read_vectors(outcome.path)))
        except CoterieError as error:
            outcome.error = str(error)
        except OSError as error:
            outcome.error = f"{outcome.path} cannot be read: {error.strerror}"
    with _progress(quiet=quiet) as progress:
        task = progress.add_task("", total=sum(len(vectors.cases) for _, vectors in read))
        for outcome, vectors in read:
            progress.update(task, description=escape(vectors.kind.name))
            started = time.perf_counter()
            outcome.report = verify_file(vectors, lambda: progress.advance(task))
            outcome.seconds = time.perf_counter() - started
    return outcomes


def _progress(*, quiet: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:<30}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )


def _totals(outcomes: list[_Outcome]) -> tuple[int, int, int]:
    """Passed, failed and skipped; a file that cannot be read is one failure."""
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    unreadable = len(outcomes) - len(reports)
    return (
        sum(report.passed for report in reports),
        sum(report.failed for report in reports) + unreadable,
        sum(report.skipped for report in reports),
    )


def _summary(outcomes: list[_Outcome]) -> dict[str, Any]:
    passed, failed, skipped = _totals(outcomes)
    files: list[dict[str, Any]] = []
    for outcome in outcomes:
        entry: dict[str, Any] = {"file": str(outcome.path)}
        report = outcome.report
        if report is None:
            entry["error"] = outcome.error
        else:
            entry |= {
                "kind": report.kind,
                "passed": report.passed,
                "failed": report.failed,
                "skipped": report.skipped,
                "seconds": round(outcome.seconds, 3),
                "failures": [
                    {"case": f.case, "cipher_suite": f.cipher_suite, "reason": f.reason}
                    for f in report.failures
                ],
            }
        files.append(entry)
    return {"passed": passed, "failed": failed, "skipped": skipped, "files": files}


def _print(outcomes: list[_Outcome]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", overflow="fold")
    for name in ("passed", "failed", "skipped", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in outcomes:
        table.add_row(*_row(outcome))
    console.print(table)
    for outcome in outcomes:
        _print_failures(console, outcome)
    passed, failed, skipped = _totals(outcomes)
    mark = "[bold red]✗[/]" if failed else "[bold green]✓[/]"
    counts = f"{passed} passed, {failed} failed, {skipped} skipped"
    console.print(f"\n{mark} {counts} in {sum(o.seconds for o in outcomes):.1f} s")


def _row(outcome: _Outcome) -> tuple[str, ...]:
    report = outcome.report
    name = escape(_plain(outcome.path.name))
    if report is None:
        return f"{name} [dim](not read)[/]", "", "[bold red]1[/]", "", ""
    if report.kind != outcome.path.stem:
        name += f" [dim]({report.kind})[/]"
    return (
        name,
        f"[green]{report.passed}[/]" if report.passed else "0",
        f"[bold red]{report.failed}[/]" if report.failed else "0",
        f"[yellow]{report.skipped}[/]" if report.skipped else "0",
        f"{outcome.seconds:.2f}",
    )


def _print_failures(console: Console, outcome: _Outcome) -> None:
    name = escape(_plain(outcome.path.name))
    if outcome.report is None:
        console.print(f"\n[bold red]✗[/] {escape(_plain(outcome.error or ''))}", soft_wrap=True)
        return
    failures = outcome.report.failures
    for failure in failures[:_SHOWN_FAILURES]:
        suite = "" if failure.cipher_suite is None else f", suite {failure.cipher_suite}"
        where = f"\n[bold red]✗[/] {name}, case {failure.case}{suite}:"
        console.print(f"{where} {escape(_plain(failure.reason))}", soft_wrap=True)
    if len(failures) > _SHOWN_FAILURES:
        more = len(failures) - _SHOWN_FAILURES
        console.print(f"\n… and {more} more in {name}; --json shows all")


def _plain(text: str) -> str:
    """What a file says, or is called, without what would act on the terminal."""
    return "".join(c if c.isprintable() else f"⟨U+{ord(c):04X}⟩" for c in text)


def _list_kinds(*, as_json: bool) -> None:
    from coterie.interop.kinds import KINDS

    facts = [{"kind": kind.name, "made": bool(kind.generate)} for kind in KINDS.values()]
    said = [kind.name + ("" if kind.generate else " (verified only)") for kind in KINDS.values()]
    answer(facts, "\n".join(said), as_json=as_json)


def _generate(kind: str, suites: tuple[int, ...], seed: int | None, output: Path | None) -> None:
    import secrets

    from coterie.interop.kinds import generate

    cases = generate(kind, suites, secrets.randbits(64) if seed is None else seed)
    text = json.dumps(cases, indent=1) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        msg = f"{output} cannot be written: {error.strerror}"
        raise StateError(msg) from None
    count = f"{len(cases)} case{'' if len(cases) == 1 else 's'}"
    typer.echo(f"{count} of {kind} written to {output}", err=True)
