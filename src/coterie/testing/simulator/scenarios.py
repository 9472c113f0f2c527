"""Who is there in a simulation, and what may happen to them."""

from __future__ import annotations

import random

from coterie.testing.simulator.run import Scenario
from coterie.testing.simulator.world import Kit


def _storm(rng: random.Random) -> Kit:
    return Kit(
        members=rng.randrange(2, 6),
        outsiders=rng.randrange(3),
        loss=rng.choice((0.0, 0.05, 0.2)),
        doubling=rng.choice((0.0, 0.3)),
    )


WEATHER = Scenario("honest members in bad weather", _storm)
"""Requests and answers are lost and doubled, processes crash, profiles are restored, retention goes on."""

SCENARIOS = (WEATHER,)
