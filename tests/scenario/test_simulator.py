"""The delivery protocol holds against bad weather, insiders, outsiders and a lying service; each rule shown is needed.

`COTERIE_SIMULATOR_SEEDS` seeds of each scenario (`make simulate` for hours); a seed that breaks an assertion is shrunk,
and the message is the schedule that is left.
"""

from __future__ import annotations

import os

import pytest

from coterie.testing.simulator.run import Scenario, shrink, simulate
from coterie.testing.simulator.scenarios import SCENARIOS, WEATHER, WITH_INSIDER
from coterie.testing.simulator.switches import SWITCHES, Switch

SEEDS = int(os.environ.get("COTERIE_SIMULATOR_SEEDS", "2"))
FIRST = int(os.environ.get("COTERIE_SIMULATOR_FIRST", "0"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_every_assertion_holds_against(scenario: Scenario) -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        result = simulate(scenario, seed)
        if result.broken is not None:
            least = shrink(scenario, result)
            schedule = ", ".join(map(str, least.schedule))
            pytest.fail(f"seed {seed}: {least.broken}; shrunk schedule: {schedule}")


ONCE = (
    ("members who lose each other", 20037),
    ("people who ask by a link", 500023),
    ("a network that tampers", 500025),
    ("members who lose each other", 500032),
    ("members who lose each other", 500073),
    ("people who ask by a link", 500089),
)
"""Seeds that long runs have found, which broke the protocol or an assertion that asked too much."""


@pytest.mark.parametrize(("name", "seed"), ONCE)
def test_what_broke_once_holds(name: str, seed: int) -> None:
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
    assert simulate(scenario, seed).broken is None


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: s.rule)
def test_a_break_is_found_without(switch: Switch) -> None:
    for seed in range(switch.seeds):
        broken = simulate(switch.scenario, seed, without=switch.off).broken
        if broken is not None and broken.name in switch.breaks:
            assert simulate(switch.scenario, seed).broken is None, "it breaks with the rule, too"
            return
    pytest.fail(f"{switch.seeds} seeds show no break without {switch.rule}")


def test_a_seed_always_tells_the_same_story() -> None:
    first, second = simulate(WITH_INSIDER, 1), simulate(WITH_INSIDER, 1)
    assert first.outcomes == second.outcomes
    assert first.requests == second.requests
    assert first.outcomes["Committed"] > 1


def test_a_break_is_shrunk_to_few_actions() -> None:
    switch = next(s for s in SWITCHES if s.rule.startswith("D-VAL-3"))
    result = simulate(switch.scenario, 0, without=switch.off)
    least = shrink(switch.scenario, result, without=switch.off)
    assert least.broken is not None
    assert len(least.schedule) < 5 < len(result.schedule)


def test_weather_is_bad_enough_to_matter() -> None:
    outcomes = simulate(WEATHER, 0).outcomes
    assert outcomes["Committed"] > 10
    assert outcomes["Data"] > 1
