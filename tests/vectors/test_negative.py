"""Our own negative vectors: every violation is refused by its rule, and the runner notices where one is not."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coterie.interop.kinds import read_vectors, verify_file
from coterie.interop.negative import verify_negative
from coterie.interop.vectors.kind import Case, Mismatch
from coterie.mls.rules import Rule

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "vectors/negative"
FILES = sorted(DIRECTORY.glob("*.json"))

NO_MESSAGE = {Rule.JSON_MAPPING, Rule.PSK_COUNT, Rule.TREE_SIZE}
"""Rules that no message breaks, or none of bearable size."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_violation_is_refused_by_its_rule(path: Path) -> None:
    report = verify_file(read_vectors(path))
    assert not report.failures
    assert report.passed == 1


def _violations(suite: int) -> list[dict[str, Any]]:
    files = DIRECTORY.glob(f"suite-{suite}-*.json")
    return [
        v for path in files for case in json.loads(path.read_text()) for v in case["violations"]
    ]


@pytest.mark.parametrize("suite", [1, 2, 5])
def test_every_rule_that_a_message_can_break_is_broken_in_two_ways(suite: int) -> None:
    counts = Counter(violation["rule"] for violation in _violations(suite))
    assert set(counts) == {rule.value for rule in Rule if rule not in NO_MESSAGE}
    assert {rule for rule, count in counts.items() if count < 2} == set()


FAULT = re.compile(r"^\| (?P<fault>[^|`]+) \|(?P<rules>[^|]*)\|(?P<tests>[^|]*)\|$", re.MULTILINE)


def test_every_fault_of_others_has_its_vectors_or_tests() -> None:
    _, text = (ROOT / "docs/negative-vectors.md").read_text().split("## What has gone wrong", 1)
    faults = [row for row in FAULT.finditer(text) if row["fault"] not in {"fault", "---"}]
    assert len(faults) == text.count("\n| ") - text.count("\n| fault |")
    with_vectors = {rule.value for rule in Rule} - NO_MESSAGE
    for row in faults:
        rules, tests = (re.findall(r"`([^`]+)`", row[column]) for column in ("rules", "tests"))
        assert rules or tests, row["fault"]
        assert set(rules) <= with_vectors, row["fault"]
        for file, _, name in (test.partition("::") for test in tests):
            assert f"def {name}(" in (ROOT / file).read_text(), f"{row['fault']}: {file}::{name}"


def test_all_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES) <= 2_800_000


@pytest.fixture
def framing() -> Any:
    """The vectors on framing."""
    return json.loads((DIRECTORY / "suite-1-chapter-6.json").read_text())[0]


def test_a_violation_that_breaks_another_rule_is_noticed(framing: Any) -> None:
    framing["violations"][0]["rule"] = "6/nothing"
    with pytest.raises(Mismatch, match="the rule that was broken"):
        verify_negative(Case(framing))


def test_a_message_that_is_accepted_is_noticed(framing: Any) -> None:
    framing["violations"][0] |= {"message": framing["then"]["commit"], "before": []}
    with pytest.raises(Mismatch, match="accepted"):
        verify_negative(Case(framing))


def test_a_generation_that_is_not_consumed_is_noticed(framing: Any) -> None:
    consumed = {"leaf": 0, "ratchet": "handshake", "generation": 0}
    framing["violations"][0]["consumes"] = [consumed]
    with pytest.raises(Mismatch, match="stores afterwards"):
        verify_negative(Case(framing))


def test_a_valid_commit_that_is_refused_afterwards_is_noticed(framing: Any) -> None:
    changed = copy.deepcopy(framing)
    changed["then"]["epoch_authenticator"] = "00" * 32
    with pytest.raises(Mismatch, match="epoch_authenticator"):
        verify_negative(Case(changed))
