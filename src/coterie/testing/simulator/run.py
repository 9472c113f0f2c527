"""Runs simulations: schedules out of seeds, assertions after every action, the shortest schedule that breaks one."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from coterie.testing.simulator.assertions import ALWAYS, AT_THE_END, Broken
from coterie.testing.simulator.world import Action, Kit, World

Without = Callable[[World], AbstractContextManager[object]]
"""Switches a rule off in a world while a block runs."""
CALM = ("send", "renew", "rename", "add", "remove", "sync", "tick")
STORMY = (
    *CALM,
    *("send", "sync", "start", "step", "step", "crash", "back_up", "restore", "hours", "replay"),
    *("subscribe", "stall"),
)


def nothing(_world: World) -> None:
    """Prepares nothing."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who is there, and what may happen."""

    name: str
    kit: Callable[[random.Random], Kit]
    actions: tuple[str, ...] = STORMY
    length: int = 60
    prepare: Callable[[World], None] = nothing

    def schedule(self, seed: int) -> list[Action]:
        """The actions of a seed."""
        rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        return [
            Action(rng.choice(self.actions), rng.randrange(1000), rng.randrange(1000))
            for _ in range(self.length)
        ]


@dataclass(slots=True)
class Result:
    """What came of one simulation."""

    scenario: str
    seed: int
    steps: int
    broken: Broken | None
    schedule: Sequence[Action]
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def simulate(
    scenario: Scenario,
    seed: int,
    schedule: Sequence[Action] | None = None,
    *,
    without: Without | None = None,
) -> Result:
    """Runs one seed (or a part of its schedule); `without` switches a rule off while it runs."""
    actions = scenario.schedule(seed) if schedule is None else schedule
    world = World(seed, scenario.kit(random.Random(seed)))  # noqa: S311 - not a secret
    started = time.process_time()
    broken = None
    with world.running(), without(world) if without else nullcontext():
        scenario.prepare(world)
        try:
            for action in actions:
                world.act(action)
                for check in ALWAYS:
                    check(world)
            world.heal()
            for check in (*ALWAYS, *AT_THE_END):
                check(world)
        except Broken as found:
            broken = found
    return Result(
        scenario.name,
        seed,
        world.steps,
        broken,
        actions,
        world.service.requests,
        world.observer.outcomes,
        time.process_time() - started,
    )


def shrink(
    scenario: Scenario,
    result: Result,
    *,
    without: Without | None = None,
) -> Result:
    """The shortest part of a schedule found to break the same assertion: chunks are left out, halved each time."""
    if result.broken is None:
        return result
    best = result
    size = max(len(best.schedule) // 2, 1)
    while True:
        at = 0
        while at < len(best.schedule):
            shorter = [*best.schedule[:at], *best.schedule[at + size :]]
            tried = simulate(scenario, result.seed, shorter, without=without)
            if tried.broken is not None and tried.broken.name == result.broken.name:
                best = tried
            else:
                at += size
        if size == 1:
            return best
        size = max(size // 2, 1)
