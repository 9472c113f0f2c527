"""Who is there in a simulation, and what may happen to them."""

from __future__ import annotations

import random
from dataclasses import replace

from coterie.testing.simulator.insider import Insider
from coterie.testing.simulator.later_devices import LATER
from coterie.testing.simulator.liar import LyingService
from coterie.testing.simulator.outsiders import LinkHolder, RemovedMember
from coterie.testing.simulator.reformings import DECLINING, REFORMING
from coterie.testing.simulator.run import STORMY, Scenario
from coterie.testing.simulator.successions import MOVING
from coterie.testing.simulator.world import Kit, World

ATTACKED = (*STORMY, *("attack",) * 8)
INSIDER = "m1"


def _storm(rng: random.Random) -> Kit:
    return Kit(
        members=rng.randrange(2, 6),
        outsiders=rng.randrange(3),
        loss=rng.choice((0.0, 0.05, 0.2)),
        doubling=rng.choice((0.0, 0.3)),
        chunks=rng.random() < 0.5,
    )


def _weather(rng: random.Random) -> Kit:
    return Kit(
        members=rng.randrange(4, 7),
        outsiders=1,
        loss=rng.choice((0.0, 0.05)),
        chunks=rng.random() < 0.5,
    )


def _with_insider(rng: random.Random) -> Kit:
    return replace(_weather(rng), dishonest=frozenset({INSIDER}))


def _small(rng: random.Random) -> Kit:
    return Kit(members=3 + rng.randrange(2), outsiders=0, dishonest=frozenset({INSIDER}))


def _lying(rng: random.Random) -> Kit:
    return replace(_weather(rng), lying_service=True)


def _lying_with_insider(rng: random.Random) -> Kit:
    return replace(_with_insider(rng), lying_service=True)


def _insider(world: World) -> None:
    world.attackers.append(Insider(world, INSIDER))


def _service(world: World) -> None:
    world.attackers.append(LyingService(world))


def _tampering(world: World) -> None:
    network = LyingService(world)
    network.attacks = (
        network.tells_truth,
        network.withholds,
        network.forges,
        network.swaps,
        network.skips,
        network.spoils_chunks,
    )
    world.attackers.append(network)


def _both(world: World) -> None:
    _insider(world)
    _service(world)


def _remove(world: World) -> None:
    first, out = world.devices["m0"], world.devices[INSIDER]
    if first.handle is not None:
        first.run(first.handle.remove(out.user))
    out.sync()


def _removed(world: World) -> None:
    _remove(world)
    world.attackers.append(RemovedMember(world, INSIDER))


def _link(world: World) -> None:
    first = world.devices["m0"].line()
    if first is not None:
        world.attackers.append(LinkHolder(world, INSIDER, first.state.epoch, first.keys))
    _remove(world)


def _flood(world: World) -> None:
    insider = Insider(world, INSIDER)
    world.pressure = insider.floods
    world.attackers.append(insider)


WEATHER = Scenario("honest members in bad weather", _storm)
"""Requests and answers are lost and doubled, processes crash, profiles are restored, retention goes on."""
WITH_SUBSCRIBERS = Scenario(
    "subscribers, fast and slow",
    _storm,
    ("send", "send", "send", "subscribe", "subscribe", "stall", "stall", "renew", "sync", "hours"),
)
"""Members' connections stall, are cut off and resume, while entries are accepted."""


def _with_links(rng: random.Random) -> Kit:
    return replace(_storm(rng), outsiders=3, links=True)


WITH_LINKS = Scenario("people who ask by a link", _with_links, (*STORMY, "ask", "ask", "ask"))
"""In bad weather as well: who asks is let in by one of the members, once."""
LOST = Scenario(
    "members who lose each other",
    lambda rng: replace(_storm(rng), members=rng.randrange(2, 4), outsiders=3),
    (
        *("add", "add", "send", "sync", "sync", "start", "step", "remove", "tick"),
        *("back_up", "restore", "hours", "hours", "hours", "lose_mail", "lose_mail"),
    ),
)
"""Copies that forget who was added, members away beyond retention, and a service that loses invitations."""
WITH_INSIDER = Scenario("an insider", _with_insider, ATTACKED, prepare=_insider)
WITH_FLOOD = Scenario("an insider that floods", _small, ("send", "sync", "tick"), 6, prepare=_flood)
WITH_REMOVED = Scenario("a removed member", _with_insider, ATTACKED, prepare=_removed)
WITH_LINK = Scenario("a link holder", _with_insider, ATTACKED, prepare=_link)
WITH_TAMPERING = Scenario("a network that tampers", _weather, ATTACKED, prepare=_tampering)
"""The service is honest, and what it answers is changed on the way: it must not be blamed for it."""
WITH_LIAR = Scenario("a lying service", _lying, ATTACKED, prepare=_service)
WITH_LIAR_AND_INSIDER = Scenario(
    "a lying service and an insider", _lying_with_insider, ATTACKED, prepare=_both
)

SCENARIOS = (
    WEATHER,
    WITH_SUBSCRIBERS,
    WITH_LINKS,
    LOST,
    WITH_INSIDER,
    WITH_FLOOD,
    WITH_REMOVED,
    WITH_LINK,
    WITH_TAMPERING,
    WITH_LIAR,
    WITH_LIAR_AND_INSIDER,
    MOVING,
    REFORMING,
    DECLINING,
    LATER,
)
