"""All kinds of vectors, how a file's kind is recognised, and how a file is verified.

Another kind joins by standing in `KINDS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError, DecodeError, StateError
from coterie.interop.negative import NEGATIVE
from coterie.interop.vectors.basics import CRYPTO_BASICS, DESERIALIZATION, TREE_MATH
from coterie.interop.vectors.groups import (
    PASSIVE_CLIENT_HANDLING_COMMIT,
    PASSIVE_CLIENT_RANDOM,
    PASSIVE_CLIENT_WELCOME,
    WELCOME,
)
from coterie.interop.vectors.kind import Case, Generated, Kind, seeded
from coterie.interop.vectors.messages import MESSAGE_PROTECTION, MESSAGES
from coterie.interop.vectors.secrets import (
    KEY_SCHEDULE,
    PSK_SECRET,
    SECRET_TREE,
    TRANSCRIPT_HASHES,
)
from coterie.interop.vectors.treekem import TREEKEM
from coterie.interop.vectors.trees import TREE_OPERATIONS, TREE_VALIDATION
from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES, suite_of
from coterie.mls.rules import Rule

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        TREE_MATH,
        DESERIALIZATION,
        CRYPTO_BASICS,
        KEY_SCHEDULE,
        PSK_SECRET,
        SECRET_TREE,
        TRANSCRIPT_HASHES,
        MESSAGES,
        MESSAGE_PROTECTION,
        TREE_OPERATIONS,
        TREE_VALIDATION,
        TREEKEM,
        WELCOME,
        PASSIVE_CLIENT_WELCOME,
        PASSIVE_CLIENT_HANDLING_COMMIT,
        PASSIVE_CLIENT_RANDOM,
        NEGATIVE,
    )
}
"""Every kind by its name, which is that of the official file; `negative` is our own."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that does not hold: its place in the file, its cipher suite where it has one, and why."""

    case: int
    cipher_suite: int | None
    reason: str


@dataclass(slots=True)
class Report:
    """What came of one file."""

    file: str
    kind: str
    passed: int = 0
    skipped: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many cases do not hold."""
        return len(self.failures)


@dataclass(frozen=True, slots=True)
class VectorFile:
    """A file that was read: its cases and the kind that they are of."""

    name: str
    kind: Kind
    cases: list[Any]


def read_vectors(path: Path) -> VectorFile:
    """Reads a file of vectors; raises `DecodeError` where it is none, and OSError where it cannot be read."""
    try:
        cases = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not JSON: {error}"
        raise DecodeError(msg, rule=Rule.JSON_MAPPING) from None
    if not isinstance(cases, list):
        msg = f"{path} is not a JSON list of cases"
        raise DecodeError(msg, rule=Rule.JSON_MAPPING)
    return VectorFile(str(path), recognise(cases, path.stem), cases)


def recognise(cases: list[Any], stem: str) -> Kind:
    """The kind of some cases: by their fields, and by the file's name where several kinds have the same ones.

    Raises `DecodeError` where it is none.
    """
    if not cases:
        named = _named(tuple(KINDS.values()), stem)
        if named is not None:
            return named
    first = Case(cases[0] if cases else {})
    fitting = tuple(kind for kind in KINDS.values() if first.has(kind.fields))
    if not fitting:
        msg = f"{stem}: the cases are of no kind that is known; known are {', '.join(KINDS)}"
        raise DecodeError(msg, rule=Rule.JSON_MAPPING)
    return _named(fitting, stem) or fitting[0]


def _named(kinds: tuple[Kind, ...], stem: str) -> Kind | None:
    """The kind with the longest name that is in the file's name."""
    found = [kind for kind in kinds if kind.name in stem]
    return max(found, key=lambda kind: len(kind.name), default=None)


def verify_file(vectors: VectorFile, progress: Callable[[], None] | None = None) -> Report:
    """Verifies every case; cases of suites that are not spoken here are counted as skipped."""
    report = Report(vectors.name, vectors.kind.name)
    for number, failure in verify_cases(vectors):
        if failure is None:
            report.passed += 1
        elif failure is SKIPPED:
            report.skipped += 1
        else:
            report.failures.append(Failure(number, _suite_number(vectors.cases[number]), failure))
        if progress is not None:
            progress()
    return report


SKIPPED = "the cipher suite is not supported"
"""The outcome of a case that cannot be verified here."""


def verify_cases(vectors: VectorFile) -> Iterator[tuple[int, str | None]]:
    """The outcome of each case: None where it holds, else the reason."""
    for number, entry in enumerate(vectors.cases):
        try:
            case = Case(entry)
            if not case.is_supported:
                yield number, SKIPPED
                continue
            vectors.kind.verify(case)
        except CoterieError as error:
            yield number, str(error)
        else:
            yield number, None


def _suite_number(entry: object) -> int | None:
    number = entry.get("cipher_suite") if isinstance(entry, dict) else None
    return number if isinstance(number, int) else None


def generate(name: str, suites: tuple[int, ...] = (), seed: int = 0) -> Generated:
    """Fresh vectors of a kind, for some suites or for all; the same seed gives the same ones.

    Raises `StateError` for a kind that is not known or not made here, `UnsupportedError` for a suite that is not
    known.
    """
    kind = KINDS.get(name)
    if kind is None or kind.generate is None:
        made = ", ".join(each.name for each in KINDS.values() if each.generate)
        msg = f"vectors of kind {name!r} are not made here; choose one of {made}"
        raise StateError(msg)
    chosen = suites or SUPPORTED_CIPHER_SUITES
    if not kind.has_suites:
        chosen = chosen[:1]
    cases: Generated = []
    for number in chosen:
        cases += kind.generate(suite_of(number), seeded(seed * 65536 + number))
    return cases
