"""docs/simulator.md says for every rule of the delivery protocol what shows that it is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coterie.testing.simulator.scenarios import SCENARIOS
from coterie.testing.simulator.switches import SWITCHES

ROOT = Path(__file__).parents[3]
PROTOCOL = (ROOT / "docs" / "delivery-protocol.md").read_text()
DOCUMENT = (ROOT / "docs" / "simulator.md").read_text()
SHOWN = dict(re.findall(r"^\| (D-[A-Z]{3}-\d+) \| (.*) \|$", DOCUMENT, re.MULTILINE))
SWITCHED = {switch.rule.partition(":")[0] for switch in SWITCHES}
NOT_IN_THE_CLIENT: set[str] = set()
TESTS = sorted({shown.strip("`") for shown in SHOWN.values() if shown.startswith("`")})


def _rules() -> set[str]:
    rules = re.findall(
        r"^- \*\*(D-[A-Z]{3}-\d+)\*\*(.*?)(?=^- \*\*D-|^## |\Z)", PROTOCOL, re.MULTILINE | re.DOTALL
    )
    return {rule for rule, text in rules if "[M]" in text or "[S]" in text}


def test_every_rule_that_binds_a_side_is_in_the_table() -> None:
    assert SHOWN.keys() == _rules()


def test_rules_are_said_to_be_switched_off_that_are() -> None:
    assert {rule for rule, shown in SHOWN.items() if shown == "switch"} == SWITCHED


@pytest.mark.parametrize("test", TESTS)
def test_a_test_that_is_named_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_nothing_else_counts_as_evidence() -> None:
    left = {rule for rule, shown in SHOWN.items() if shown == "not in the client"}
    assert left <= NOT_IN_THE_CLIENT
    assert len(SHOWN) == len(SWITCHED) + sum(s.startswith("`") for s in SHOWN.values()) + len(left)


def test_every_scenario_is_described() -> None:
    assert not [s.name for s in SCENARIOS if f"| {s.name} |" not in DOCUMENT]
