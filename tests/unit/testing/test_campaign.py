"""The table of long simulations says what it counts."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

from coterie.testing.simulator import run
from coterie.testing.simulator.campaign import Sum, table
from coterie.testing.simulator.run import Scenario, simulate
from coterie.testing.simulator.world import Kit


def test_the_time_of_a_run_is_the_processors() -> None:
    small = Scenario("small", lambda _: Kit(members=2, outsiders=0), length=0)
    clock = SimpleNamespace(process_time=mock.Mock(side_effect=(10.0, 12.5)))
    with mock.patch.object(run, "time", clock):
        result = simulate(small, 0)
    assert result.seconds == 2.5
    sums = {0: Sum(), 1: Sum()}
    sums[1].add(result)
    assert table(sums)[-1].split(" | ")[-1] == "2 |"
