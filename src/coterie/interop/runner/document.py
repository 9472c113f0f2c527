"""The matrix for people: `docs/interop.md`, and how a matrix is read back from its JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from coterie.errors import DecodeError
from coterie.interop.runner.matrix import Cell, HistoryResult, Matrix, Outcome, square
from coterie.interop.runner.scenarios import SCENARIOS
from coterie.interop.runner.verdicts import verdict_of, verdicts
from coterie.interop.tables import flat, spans, table

_HEAD = """# Interoperability

Written by `coterie interop run`; do not edit. Each cell is played with real servers, one for each implementation, over
the working group's gRPC interface: `make interop` builds them and plays everything again.

A row's implementation creates the group and has two of the three first members, a column's has the other. After every
Commit all members have the same epoch authenticator and the same exported secret, or the cell has failed.

`ok 1-3` means: played in cipher suites 1 to 3, everything equal. `–` means that one of the two says that it lacks
something, `!` that it refuses what RFC 9420 allows and the verdict is below; the small numbers lead to its words.
What the implementations make of messages that break a rule is in [differential.md](differential.md).
"""


def read_matrix(path: Path) -> Matrix:
    """A matrix from the JSON that a run wrote; raises `DecodeError` for another file."""
    try:
        data = json.loads(path.read_text())
        cells = [_cell(each) for each in data["cells"]]
        histories = [
            HistoryResult(
                **{**each, "outcome": Outcome(each["outcome"]), "peers": tuple(each["peers"])}
            )
            for each in data["histories"]
        ]
        return Matrix(dict(data["versions"]), cells, histories, list(data["missing"]))
    except (ValueError, TypeError, KeyError) as error:
        msg = f"{path} is no matrix of an interop run: {error}"
        raise DecodeError(msg) from error


def _cell(data: dict[str, Any]) -> Cell:
    cell = Cell(**{**data, "outcome": Outcome(data["outcome"])})
    if cell.outcome is Outcome.FAILED and _known(cell):
        return replace(cell, outcome=Outcome.EXPLAINED)
    return cell


def _known(cell: Cell) -> bool:
    call = cell.words.split(":")[0].split(" ")[0]
    return verdict_of(cell.who, call, cell.words, cell.scenario) is not None


def document(matrix: Matrix, vectors: str = "") -> str:
    """The text of `docs/interop.md`; `vectors` is the section of what the peers make of our vectors."""
    parts = [_HEAD, _versions(matrix), _summary(matrix)]
    notes: dict[str, int] = {}
    parts += [_scenario(matrix, name, notes) for name in SCENARIOS]
    parts += [_notes(notes), _histories(matrix), vectors, _verdicts()]
    return "\n".join(part for part in parts if part)


def _versions(matrix: Matrix) -> str:
    versions = table(("implementation", "version"), matrix.versions.items())
    missing = "".join(f"Not there: {flat(why)}\n" for why in matrix.missing)
    return f"## Versions\n\n{versions}{missing}"


def _summary(matrix: Matrix) -> str:
    counts = matrix.counted()
    rows = []
    for first, second in dict.fromkeys((f, s) for f, s, _ in counts):
        suites = [suite for f, s, suite in counts if (f, s) == (first, second)]
        total: Counter[Outcome] = sum(
            (counts[first, second, suite] for suite in suites), Counter[Outcome]()
        )
        numbers = [str(total[outcome]) for outcome in Outcome]
        rows.append([first, second, spans(suites), *numbers])
    played = len(matrix.cells)
    ways = ", ".join(sorted({cell.way for cell in matrix.cells}))
    told = f"{played} plays of {len(SCENARIOS)} scenarios; handshakes/tree: {ways}.\n\n"
    head = ("creates", "joins", "suites", *(outcome.value for outcome in Outcome))
    return f"## Summary\n\n{told}{table(head, rows)}"


def _scenario(matrix: Matrix, name: str, notes: dict[str, int]) -> str:
    cells = [cell for cell in matrix.cells if cell.scenario == name]
    if not cells:
        return ""
    peers = list(matrix.versions)
    rows = []
    for first in peers:
        row = [f"**{first}**"]
        for second in peers:
            found = square([c for c in cells if (c.first, c.second) == (first, second)])
            marks = [
                f"[{notes.setdefault(each, len(notes) + 1)}](#reasons)" for each in found.notes
            ]
            row.append(" ".join([found.text, *marks]))
        rows.append(row)
    return f"## {name}\n\n{SCENARIOS[name].about}\n\n{table(['', *peers], rows)}"


def _notes(notes: dict[str, int]) -> str:
    lines = "".join(f"{number}. {flat(words)}\n" for words, number in notes.items())
    return f"## Reasons\n\n{lines or 'None: everything is green.'}"


def _histories(matrix: Matrix) -> str:
    if not matrix.histories:
        return ""
    rows = [
        [
            ", ".join(each.peers),
            str(each.suite),
            each.way,
            str(each.seed),
            str(each.steps),
            str(each.epochs),
            str(each.messages),
            each.outcome.value + (f": {flat(each.words)}" if each.words else ""),
        ]
        for each in matrix.histories
    ]
    lacked: Counter[str] = Counter()
    for each in matrix.histories:
        lacked.update(each.lacked)
    given_up = ", ".join(f"{what} {count}" for what, count in sorted(lacked.items()))
    head = ("members from", "suite", "way", "seed", "steps", "epochs", "messages read", "outcome")
    about = (
        "Up to ten members, each of an implementation drawn at random. Steps given up and replaced because a peer "
        f"lacks a call or refuses with a verdict below: {given_up or 'none'}.\n"
    )
    return f"## Random histories\n\n{about}\n{table(head, rows)}"


def _verdicts() -> str:
    rows = [
        [each.peer, each.call, flat(each.when), f"§{each.section}", flat(each.verdict)]
        for each in verdicts()
    ]
    head = ("who", "where", "when", "RFC 9420", "verdict")
    return f"## Differences and who is right\n\n{table(head, rows)}"
