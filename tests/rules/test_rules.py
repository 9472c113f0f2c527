"""Every rule is broken by a forging member: the error must name the rule, and the state must be what it was."""

from __future__ import annotations

import pytest

from coterie.mls.group import Group
from coterie.mls.rules import Rule
from tests.rules.cases import CASES, Case
from tests.rules.check import check, check_observer
from tests.rules.world import World, make


@pytest.fixture(scope="module")
def worlds() -> dict[bool, World]:
    """A group whose members have all committed, and one without parents in its tree."""
    return {warm: make(warm=warm) for warm in (True, False)}


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=pytest.mark.rule(each.rule), id=each.id) for each in CASES]
)
def test_a_violation_is_refused_by_its_rule_and_changes_nothing(
    case: Case, worlds: dict[bool, World]
) -> None:
    world = worlds[case.warm]
    attack = case.make(world, world.forger("alice", case.framing))
    check(attack, world, case.rule)
    check_observer(attack, world, case.rule)


def test_every_rule_is_broken_in_at_least_two_ways() -> None:
    counts = dict.fromkeys(Rule, 0)
    for case in CASES:
        counts[case.rule] += 1
    assert {rule for rule, count in counts.items() if count < 2} == ONE_WAY


ONE_WAY = {Rule.TREE_SIZE, Rule.PSK_COUNT}
"""Rules that can be broken in one way only."""


def test_the_titles_of_cases_are_unique() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


def test_what_the_forger_says_is_accepted_where_nothing_is_wrong_with_it(
    worlds: dict[bool, World],
) -> None:
    for world in worlds.values():
        bob = world.member("bob")
        staged = bob.receive(world.forger().commit().data)
        bob.adopt(staged)  # type: ignore[arg-type]
        assert isinstance(bob, Group)
        assert bob.epoch == world.member("bob").epoch + 1
