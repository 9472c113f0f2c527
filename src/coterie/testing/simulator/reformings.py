"""Groups that an insider jams, and that their members replace by another one (D-SUC-6 and D-SUC-7).

Its Commit has a path that nobody can open: all who are there are stuck, and nobody is left to ask. So administrators
re-form the group, several at once, and the insider makes one as well, with the smallest log id that anybody can have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from coterie.client import creating, inviting, reforming
from coterie.client.inviting import Inviting
from coterie.client.making import Making
from coterie.client.returning import Returning
from coterie.client.vault import Vault
from coterie.errors import ServiceError, StateError
from coterie.mls.group import commit as commit_module
from coterie.testing.simulator.device import Device
from coterie.testing.simulator.insider import Forgery, Insider, spoiling
from coterie.testing.simulator.run import Scenario
from coterie.testing.simulator.service import RETENTION
from coterie.testing.simulator.world import Action, Kit, World

INSIDER = "m1"
DAY = 24 * 3600
ACTIONS = (
    *("jam", "reform", "reform", "reform", "follow", "attack"),
    *("send", "sync", "sync", "start", "step", "step", "crash", "tick", "hours"),
)


def _kit(rng: random.Random) -> Kit:
    return Kit(
        members=rng.randrange(4, 6),
        outsiders=0,
        loss=rng.choice((0.0, 0.05, 0.2)),
        dishonest=frozenset({INSIDER}),
        chunks=rng.random() < 0.3,
        retention=30 * RETENTION,
    )


class Jammer(Insider):
    """An insider that ends the line for everybody, and makes a group of its own in the place of the jammed one."""

    def __init__(self, world: World) -> None:
        super().__init__(world, INSIDER)
        self.attacks = (self.reforms, self.takes_part)

    def __call__(self, choice: int, rng: random.Random) -> None:
        """Does one of its attacks, whether it is in the group or stuck as well."""
        self.attempt(self.attacks[choice % len(self.attacks)], rng)

    def attempt(self, attack: Callable[[random.Random], None], rng: random.Random) -> None:
        """Does something, whose keys are its own business."""
        try:
            attack(rng)
        finally:
            self.world.observer.forging = False

    def jams(self, rng: random.Random) -> None:
        """A Commit whose path nobody can open: a private failure for all (D-VAL-9)."""
        line = self.line() if self.device.status == "active" else None
        if line is None:
            return
        self.world.hopeless = True
        with mock.patch.object(commit_module, "seal_path", spoiling(rng, 1.0)):
            pending, access = self.commit(line)
        self.post(self.bundle(line, Forgery(pending.message.encode(), access), rng))

    def reforms(self, rng: random.Random) -> None:
        """Its own group, right or not, with a log id that is smaller than any honest one."""
        self.device.sync()
        if self.device.status not in {"stuck", "active"} or not self.world.hopeless:
            return
        small = SimpleNamespace(token_bytes=lambda n: bytes(8) + rng.randbytes(n - 8))
        with (
            mock.patch.object(creating, "secrets", small),
            mock.patch.object(reforming, "may_reform", return_value=True),
            mock.patch.object(reforming, "_check_jammed"),
        ):
            self.device.run(self.device.client.reform(self.world.group_id))


class People:
    """What the users of honest devices do with a jammed group."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.offender = world.devices[INSIDER].user
        first = world.devices["m0"].handle
        self.wary = first is not None and self.offender in first.admins()
        """Whether people must look themselves: the rules let an administrator replace the group (D-SUC-6)."""

    def reform(self, device: Device) -> None:
        """A user replaces the group by one without the offender, where it is jammed and there is the right to."""
        device.finish()
        if device.status != "stuck" or device.label in self.world.declining:
            return
        device.run(device.client.reform(self.world.group_id, [self.offender]))
        # Who has no right, or is to follow another group, is told so.
        device.errors = [error for error in device.errors if not isinstance(error, StateError)]
        create = device.client.vault.conversation(self.world.group_id).create
        line = device.line()
        log = create.create.log_id if create is not None else line.binding.log_id if line else b""
        if log and device.status in {"creating", "active"}:
            self.world.reformed[bytes(log)] = device.label

    def follow(self, device: Device) -> None:
        """A user goes to the group that counts, as far as the user knows who the offender is, or to none."""
        device.finish()
        handle = device.handle
        if handle is None or handle.status == "creating":
            return
        declining = device.label in self.world.declining
        for invitation in handle.invitations():
            suspect = self.wary and self.offender in {invitation.by, *invitation.users}
            if declining or suspect:
                handle.decline(invitation.by)
        if handle.invitations():
            with contextlib.suppress(ServiceError):
                device.run(handle.follow())

    def __call__(self) -> None:
        """When the storms are over: everybody goes where others are, or replaces the group."""
        for device in self.world.honest:
            self.follow(device)
        for device in self.world.honest:
            if self.world.hopeless:
                self.reform(device)


def _prepare(world: World) -> None:
    rng = random.Random(world.seed)  # noqa: S311 - a schedule, not a secret
    first = world.devices["m0"]
    admins = [d.user for d in world.devices.values() if d is not first and rng.random() < 0.5]
    with world.calm():
        if first.handle is not None and admins:
            first.run(first.handle.make_admin(*admins))
        for device in world.devices.values():
            device.sync()
    insider, people = Jammer(world), People(world)

    def do_jam(_a: int, b: int) -> None:
        insider.attempt(insider.jams, random.Random(b))  # noqa: S311 - repeats

    def do_reform(a: int, _b: int) -> None:
        people.reform(world.honest[a % len(world.honest)])

    def do_follow(a: int, _b: int) -> None:
        people.follow(world.honest[a % len(world.honest)])

    actions: dict[str, Callable[[int, int], None]] = {
        "do_jam": do_jam,
        "do_reform": do_reform,
        "do_follow": do_follow,
    }
    for name, action in actions.items():
        setattr(world, name, action)
    world.attackers.append(insider)
    world.users = people


def _prepare_declining(world: World) -> None:
    rng = random.Random(world.seed)  # noqa: S311 - a schedule, not a secret
    # The first one, who is an administrator, can replace the group in any case.
    others = [device.label for device in world.honest[1:]]
    world.declining.update(rng.sample(others, rng.randrange(1, len(others) + 1)))
    first = world.devices["m0"]
    with world.calm():
        if first.handle is not None and rng.random() < 0.5:
            first.run(first.handle.change_rules(may_remove="admins"))
    _prepare(world)


def asks_and_declines(world: World) -> None:
    """Whoever declines has asked before, in inboxes that nobody has read yet, to be added again (D-BOX-8)."""
    _prepare_declining(world)
    declining = [device for device in world.honest if device.label in world.declining]
    with world.calm():
        world.act(Action("jam"))
        for device in world.honest:
            device.sync()
        world.act(Action("reform"))
        world.clock.advance(DAY)
        for device in declining:
            device.sync()
        if world.users is not None:
            world.users()
        for device in declining:
            device.sync()


REFORMING = Scenario("a group that is jammed and re-formed", _kit, ACTIONS, 40, prepare=_prepare)
"""An insider jams the group; administrators replace it at once and in bad weather, and the insider does, too."""
DECLINING = dataclasses.replace(
    REFORMING, name="a re-formed group that some do not want", prepare=_prepare_declining
)
"""The same, with users who decline whatever they are asked into, and go on asking in the group before."""


@contextlib.contextmanager
def anybody_replaces(_world: World) -> Iterator[None]:
    """D-SUC-6 without the question who may replace a group."""
    with mock.patch.object(inviting, "may_reform", return_value=True):
        yield


@contextlib.contextmanager
def declining_is_forgotten(_world: World) -> Iterator[None]:
    """D-BOX-13 without what it says of who asks to return: such a device is added anew all the same."""

    def forgetting(real: Any) -> Any:  # noqa: ANN401 - a method of Conversation
        def answer(*args: Any) -> Any:  # noqa: ANN401 - what the real one takes and gives
            with mock.patch.object(Vault, "going", return_value={}):
                return real(*args)

        return answer

    with (
        mock.patch.object(Returning, "_returning", forgetting(Returning._returning)),  # noqa: SLF001
        mock.patch.object(Making, "_readd", forgetting(Making._readd)),  # noqa: SLF001
    ):
        yield


@contextlib.contextmanager
def none_counts(_world: World) -> Iterator[None]:
    """D-SUC-7 without the comparison of log ids: who is in one re-formed group stays there."""
    with mock.patch.object(Inviting, "_present_log", return_value=b""):
        yield
