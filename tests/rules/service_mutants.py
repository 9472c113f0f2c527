"""Takes the checks of the services and of the client out one by one, and sees whether their tests notice.

`python -m tests.rules.service_mutants [--list] [--every=N] [--only=PART] [--reach=FILE] [PART_OF_A_NAME]`; the parts
are `services` and `client`. The three kinds of mutants are those of `mutating`. Which tests are meant for a place is
measured: first all run once, and which lines each of them executes in this process is kept (in FILE, for another time);
of a mutant, those run that come by, first those that met the very error, then those that met another one in its module.
What nobody has noticed after two minutes of the processor has survived: who is meant for it comes early.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rules.mutating import (
    QUIET,
    ROOT,
    SOURCE,
    UNNOTICED,
    WAITING,
    Mutant,
    Part,
    called,
    choose,
    error_of,
    report,
    survives,
)

ROOMS = ("delivery", "authentication", "identity", "transport")
TESTS = (
    "tests/unit/delivery",
    "tests/unit/identity",
    "tests/unit/transport",
    "tests/unit/test_answers.py",
    "tests/services/test_authentication.py",
    "tests/services/test_authentication_bounds.py",
    "tests/services/test_authentication_keys.py",
    "tests/services/test_delivery.py",
    "tests/services/test_delivery_openapi.py",
)
CLIENT = (
    *("line", "box", "content", "reading", "rereading", "returning", "trail", "links", "chunks"),
    *("successor", "receipts"),
)
"""The modules of the client that judge what others say."""
CLIENT_TESTS = ("tests/unit/client", "tests/unit/test_answers.py")
CHECK = re.compile(r"_?(check|verify|require|refuse|validate|limit|charge|take|use)(_|$)")
EQUIVALENT: dict[str, str] = {}
PATIENCE = 120
"""For how many seconds of the processor tests are run that do not notice a mutant, and one that does not end."""


def _guarded(node: ast.stmt) -> bool:
    return isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr) and (called(node.value) or "").startswith("_refuse")
    )


def _part(paths: Iterable[Path]) -> Part:
    return Part(
        tuple(paths),
        raises=lambda node: error_of(node) is not None or isinstance(node.exc, ast.Name),
        checks=lambda name: CHECK.match(name) is not None,
        guarded=_guarded,
        predicates=True,
    )


@dataclass(frozen=True)
class Subject:
    """What is mutated, and where the tests are that must notice."""

    part: Part
    tests: tuple[str, ...]


SUBJECTS = {
    "services": Subject(
        _part(p for room in ROOMS for p in sorted((SOURCE / "coterie" / room).rglob("*.py"))),
        TESTS,
    ),
    "client": Subject(
        _part(SOURCE / "coterie/client" / f"{name}.py" for name in CLIENT), CLIENT_TESTS
    ),
}


@dataclass(frozen=True)
class Reach:
    """Which tests come by where, and how long they take in seconds."""

    by_line: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]

    def tests(self, mutant: Mutant, errors: Iterable[int]) -> list[str]:
        """Those that execute the line: first those that meet its error, then another of `errors`, the quick first."""
        lines = self.by_line.get(str(mutant.path), {})
        met = set(lines.get(mutant.error_line, ()))
        wary = {test for line in errors for test in lines.get(line, ())}
        return sorted(
            lines.get(mutant.line, ()),
            key=lambda test: (test not in met, test not in wary, self.seconds[test]),
        )


class _Clock:
    """A plugin of pytest that keeps how long each test took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration


def _measure(subject: Subject, target: Path) -> bool:
    """Runs all tests and writes what they reach; in a child, since it loads the services."""
    import coverage  # noqa: PLC0415 - only where it is used
    import pytest  # noqa: PLC0415

    clock, data = _Clock(), target.with_suffix(".coverage")
    tracer = coverage.Coverage(
        data_file=str(data), include=[str(path) for path in subject.part.paths]
    )

    class Contexts:
        def pytest_runtest_logstart(self, nodeid: str) -> None:
            tracer.switch_context(nodeid)

    tracer.start()
    files = [name for name in subject.tests if (ROOT / name).exists()]
    ended = pytest.main([*QUIET, *files], plugins=[clock, Contexts()])
    tracer.stop()
    found = tracer.get_data()
    by_line = {name: found.contexts_by_lineno(name) for name in found.measured_files()}
    target.write_text(json.dumps([by_line, clock.seconds]), encoding="utf-8")
    return ended == 0


def measured(subject: Subject, target: Path) -> Reach | None:
    """What the tests reach, written to a file as well; None if they fail."""
    return read_reach(target) if survives(None, lambda: _measure(subject, target)) else None


def read_reach(target: Path) -> Reach:
    """What was measured before."""
    by_line, seconds = json.loads(target.read_text(encoding="utf-8"))
    return Reach(
        {
            name: {
                int(line): [each for each in tests if each in seconds]
                for line, tests in lines.items()
            }
            for name, lines in by_line.items()
        },
        seconds,
    )


class _Patience:
    """A plugin of pytest: a test that does not end has noticed the mutant, and when all took too long nobody has."""

    def __init__(self) -> None:
        self.end = time.process_time() + PATIENCE

    def pytest_runtest_logstart(self) -> None:
        if time.process_time() > self.end:
            os._exit(UNNOTICED)
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        signal.alarm(WAITING)


def _held(tests: Sequence[str]) -> bool:
    """Runs in the child: whether these tests notice nothing."""
    import pytest  # noqa: PLC0415 - loaded before

    return not tests or pytest.main([*QUIET, *tests], plugins=[_Patience()]) == 0


def main(arguments: Sequence[str]) -> int:
    """Runs them; the exit status is 1 where one survives that is not equivalent."""
    _load()
    only = [a.partition("=")[2] for a in arguments if a.startswith("--only=")]
    return max(_run(SUBJECTS[name], arguments) for name in only or SUBJECTS)


def _run(subject: Subject, arguments: Sequence[str]) -> int:
    chosen = choose(subject.part, arguments)
    if "--list" in arguments:
        print("\n".join(mutant.name for mutant in chosen))  # noqa: T201 - a command prints
        return 0
    reach = _reach(subject, arguments) if chosen else None
    if reach is None:
        if chosen:
            print("the tests fail without any mutant: run them first", file=sys.stderr)  # noqa: T201
        return 2 if chosen else 0
    errors: dict[Path, set[int]] = defaultdict(set)
    for mutant in subject.part.mutants():
        if mutant.kind == "raise":
            errors[mutant.path].add(mutant.line)

    def alive(mutant: Mutant) -> bool:
        tests = reach.tests(mutant, errors[mutant.path])
        return survives(mutant, lambda: _held(tests))

    return report(chosen, alive, EQUIVALENT)


def _reach(subject: Subject, arguments: Sequence[str]) -> Reach | None:
    named = [Path(a.partition("=")[2]) for a in arguments if a.startswith("--reach=")]
    if not named:
        with tempfile.TemporaryDirectory() as folder:
            return measured(subject, Path(folder) / "reach.json")
    return read_reach(named[0]) if named[0].exists() else measured(subject, named[0])


def _load() -> None:
    """Loads the libraries once for all children."""
    import cryptography.x509  # noqa: PLC0415
    import httpx  # noqa: PLC0415
    import hypothesis  # noqa: PLC0415
    import pytest  # noqa: PLC0415
    import schemathesis  # noqa: PLC0415
    import starlette.applications  # noqa: PLC0415
    import uvicorn  # noqa: PLC0415

    del cryptography, httpx, hypothesis, pytest, schemathesis, starlette, uvicorn


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
