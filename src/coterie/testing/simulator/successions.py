"""Groups that are moved by a ReInit, in bad weather, with a member who announces a group of its own (section 11)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from coterie.client import reading
from coterie.client.content import read_binding
from coterie.client.handle import GroupHandle
from coterie.client.line import Line
from coterie.client.successor import announced
from coterie.errors import CoterieError
from coterie.mls.crypto import suite_of
from coterie.mls.framing import MLSMessage
from coterie.mls.group_context import GroupContext
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ProtocolVersion
from coterie.mls.welcome import GroupInfoTBS
from coterie.testing.simulator.device import Device
from coterie.testing.simulator.run import Scenario
from coterie.testing.simulator.service import RETENTION
from coterie.testing.simulator.world import HOUR, Kit, World
from coterie.transport import api
from coterie.transport.refusal import Refused

INSIDER = "m1"
ACTIONS = (
    "move",
    "move",
    "send",
    "sync",
    "start",
    "start",
    "step",
    "step",
    "attack",
    "attack",
    "crash",
)


def _kit(rng: random.Random) -> Kit:
    members = rng.randrange(3, 5)
    return Kit(members=members, outsiders=0, loss=0.05, dishonest=frozenset({INSIDER}))


def _move(device: Device) -> None:
    """An administrator moves the group to a log that keeps its entries for another time."""
    device.finish()
    line, handle = device.line(), device.handle
    if device.status != "active" or line is None or handle is None:
        return
    if device.user not in handle.admins():
        return
    other = RETENTION if line.binding.retention != RETENTION else RETENTION + 24 * HOUR
    device.start(_wish(handle, other))


async def _wish(handle: GroupHandle, retention: int) -> None:
    await handle.reinitialise(retention=retention)


def forged_successor(line: Line, rng: random.Random) -> api.Append:
    """A successor that announces a group which nobody made."""
    reinit = announced(line.group)
    context = GroupContext(
        ProtocolVersion.MLS10,
        reinit.cipher_suite,
        reinit.group_id,
        1,
        rng.randbytes(32),
        rng.randbytes(32),
        reinit.extensions,
    )
    tbs = GroupInfoTBS(context, (), rng.randbytes(32), LeafIndex(0))
    key = line.group.suite.generate_signature_key(rng.randbytes)
    info = MLSMessage.of(tbs.sign(suite_of(reinit.cipher_suite), key)).encode()
    said = api.SuccessorTBS(info, read_binding(reinit.extensions).log_id)
    signature = line.group.sign(api.SUCCESSOR_LABEL.decode(), said.encode())
    return line.successor(api.SuccessorContent(line.group.own_leaf, said, signature).encode())


class Pretender:
    """A member without the right who announces a group of its own whenever one is ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.device = world.devices[INSIDER]

    def __call__(self, _choice: int, rng: random.Random) -> None:
        """Announces, if there is anything to announce."""
        self.device.sync()
        line = self.device.line()
        if self.device.status != "moving" or line is None or line.unconfirmed:
            return
        append = forged_successor(line, rng)
        self.world.observer.by_outsiders.add(append.entry.hash())
        try:
            self.world.ask(INSIDER, "logs/append", append, self.device.side)
        except (Refused, CoterieError):
            return


def _prepare(world: World) -> None:
    first = world.devices["m0"]
    others = [d.user for d in world.honest if d is not first]
    if first.handle is not None and others:
        first.run(first.handle.make_admin(*others))
    for device in world.devices.values():
        device.sync()

    def do_move(a: int, _b: int) -> None:
        device = world.pick(a)
        if device is not None:
            _move(device)

    world.do_move = do_move  # type: ignore[attr-defined]
    world.attackers.append(Pretender(world))


MOVING = Scenario("a group that is moved", _kit, ACTIONS, 40, prepare=_prepare)
"""Administrators move the group while requests are lost and devices crash, and an insider announces other groups."""


@contextmanager
def anybody_succeeds(_world: World) -> Iterator[None]:
    """D-SUC-2 without the question who may announce a successor."""
    with mock.patch.object(reading, "may_lead", return_value=True):
        yield
