"""A simulated world: devices, a service, a network, a clock, and the actions that a schedule is made of.

Nothing in it is left to chance: randomness comes from the seed, time from the clock, and what goes on at once is
interleaved by the schedule. A schedule is a list of actions with small numbers as arguments, taken modulo what there
is, so that any part of a schedule is a schedule too; that is what shrinking rests on.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

from coterie.client import chunks, client, mailbox, making
from coterie.errors import ServiceError, StateError
from coterie.mls.tls import Struct
from coterie.testing.clock import Clock
from coterie.testing.randomness import Randomness
from coterie.testing.simulator.device import Device, Pause
from coterie.testing.simulator.observer import Observer, name_of
from coterie.testing.simulator.service import RETENTION, ModelService
from coterie.testing.simulator.watchers import Watcher
from coterie.transport import api
from coterie.transport.refusal import Refused

HOUR = 3600
SMALL_CHUNKS = ((chunks, "LEVELS", 1), (chunks, "WIDTH", 2), (making, "WIDTH", 2))


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a schedule."""

    name: str
    a: int = 0
    b: int = 0

    def __str__(self) -> str:
        return f"{self.name}({self.a}, {self.b})"


class Network:
    """Loses requests and answers, holds requests back and delivers them twice."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self.loss = 0.0
        self.doubling = 0.0
        self.held: list[tuple[str, str, Struct, int]] = []

    def loses_request(self) -> bool:
        """Whether this request is lost."""
        return self._random.random() < self.loss

    def loses_answer(self) -> bool:
        """Whether this answer is lost."""
        return self._random.random() < self.loss

    def hold(self, who: str, path: str, request: Struct, side: int) -> None:
        """May keep a copy of a request, to deliver it once more, later."""
        if self._random.random() < self.doubling:
            self.held.append((who, path, request, side))


@dataclass(slots=True)
class Kit:
    """What the members of a world are."""

    members: int = 4
    outsiders: int = 2
    """Devices that are not in the group at first, and may be added."""
    loss: float = 0.0
    doubling: float = 0.0
    dishonest: frozenset[str] = field(default_factory=frozenset)
    """Members whose fate nobody promises anything about."""
    lying_service: bool = False
    links: bool = False
    """Whether who has a link and asks is let in at once."""
    chunks: bool = False
    """Whether a tree of more than two leaves is in chunks, each with two leaves (D-CHK-1 says sixteen)."""
    retention: int = RETENTION
    for_weeks: bool = False
    """Whether the story is long enough for what members look at once a day."""
    patience: int = 45
    """For how many days it is waited for who is missing when the storms are over (D-INB-8, D-BOX-14)."""


class World:
    """One simulation."""

    def __init__(self, seed: int, kit: Kit) -> None:
        self.seed = seed
        self.kit = kit
        self.clock = Clock(1_800_000_000)
        self.randomness = Randomness(seed)
        self.random = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.network = Network(random.Random(seed + 1))  # noqa: S311 - weather, not a secret
        self.service = ModelService(self.clock, b"receipt key %d" % seed)
        self.observer = Observer(kit.dishonest)
        self.group_id = ""
        self.texts: list[bytes] = []
        self.steps = 0
        self.devices: dict[str, Device] = {}
        self.leaks: list[str] = []
        """What somebody read or wrote who should not."""
        self.attackers: list[Callable[[int, random.Random], None]] = []
        """Each does one of its attacks when it is called."""
        self.tamper: list[Callable[[Device, str, Struct, Struct], Struct]] = []
        """What a lying service makes of its answers."""
        self.pressure: Callable[[random.Random], None] | None = None
        """What an attacker goes on doing when the storms are over."""
        self.appends: list[api.Append] = []
        """What the service was sent, in order: whoever is in league with it may have a look."""
        self.pressed = self.moved_on = False
        """Whether an attacker pressed on at the end, and whether a Commit landed all the same."""
        self.hopeless = False
        """Whether somebody made a Commit that nobody may be able to follow."""
        self.reformed: dict[bytes, str] = {}
        """The logs of the groups that honest members made in the place of a jammed one, and who made them."""
        self.declining: set[str] = set()
        """Devices whose users come into no group that takes the place of another one."""
        self.later: set[str] = set()
        """Devices that their users enrolled later and want in the group."""
        self.unlinked: set[str] = set()
        """Devices that left the group, and stay their users'."""
        self.loses_mail = 0
        """How many envelopes a service answers and does not keep."""
        self.users: Callable[[], None] | None = None
        """What people do by themselves when the storms are over."""
        self.drops = 0
        """How many appends a lying service answers and does not keep."""

    # -- beginning and end

    @contextmanager
    def running(self) -> Iterator[World]:
        """Takes chance and time away from the client's modules while the block runs."""
        entropy = SimpleNamespace(token_bytes=self.randomness)
        replaced = {"secrets": entropy, "asyncio": Waiting(), "random": self.random}
        with ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                for what, replacement in replaced.items():
                    if name.startswith("coterie.client.") and hasattr(module, what):
                        stack.enter_context(mock.patch.object(module, what, replacement))
            stack.enter_context(mock.patch.object(mailbox, "STOCK", 2))
            stack.enter_context(mock.patch.object(client, "RETENTION", RETENTION))
            if self.kit.chunks:
                for module, name, number in SMALL_CHUNKS:
                    stack.enter_context(mock.patch.object(module, name, number))
            stack.enter_context(self.observer.watching())
            try:
                self._populate()
                yield self
            finally:
                for device in self.devices.values():
                    if device.task is not None:
                        device.task.close()
                self.service.close()

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Nothing is lost while a scenario is prepared."""
        loss, self.network.loss = self.network.loss, 0.0
        yield
        self.network.loss = loss

    def _populate(self) -> None:
        names = [f"m{n}" for n in range(self.kit.members)]
        names += [f"o{n}" for n in range(self.kit.outsiders)]
        for name in names:
            self.devices[name] = Device(self, name)
            self.devices[name].run(self.devices[name].client.publish())
        first = self.devices["m0"]
        first.run(first.client.create_group("Model", retention=self.kit.retention))
        group = first.client.groups()[0]
        self.group_id = group.id
        links = "open" if self.kit.links else "off"
        first.run(group.change_rules(may_add="members", may_remove="members", links=links))
        others = names[1 : self.kit.members]
        if others:
            first.run(group.add(*others))
        for name in names[: self.kit.members]:
            self.devices[name].sync()
        self.network.loss = self.kit.loss
        self.network.doubling = self.kit.doubling

    # -- who is there

    @property
    def honest(self) -> list[Device]:
        """The devices that follow the protocol."""
        return [d for d in self.devices.values() if d.label not in self.kit.dishonest]

    @property
    def together(self) -> list[Device]:
        """The honest devices that are to end in one group: all but those that did not come into a re-formed one."""
        return [d for d in self.honest if not self.reformed or d.label not in self.declining]

    def pick(self, number: int, *, active: bool = True) -> Device | None:
        """An honest device in the group."""
        found = [d for d in self.honest if not active or d.status == "active"]
        return found[number % len(found)] if found else None

    # -- the network

    def carry(self, device: Device, path: str, request: Struct, *, fresh: bool = False) -> Struct:
        """Takes a device's request to the service; raises `ServiceError` for what is lost or refused.

        Over a fresh connection the service does not know which device it is.
        """
        if self.network.loses_request():
            raise ServiceError("the request was lost", retry_after=0)
        if isinstance(request, api.Append):
            self.observer.arrived(request)
        if path in {"logs/append", "boxes/post", "inboxes/post"}:
            self.network.hold(device.label, path, request, device.side)
        if self.pressure is not None and device.label not in self.kit.dishonest:
            bundle = request.entry.header.bundle if isinstance(request, api.Append) else None
            if bundle is not None:
                self.pressure(self.random)
        if fresh:
            return self.ask("", path, request, self.random.randrange(len(self.service.sides)))
        answer = self.ask(device.label, path, request, device.side)
        for tamper in self.tamper:
            answer = tamper(device, path, request, answer)
        return answer

    def ask(self, who: str, path: str, request: Struct, side: int = 0) -> Struct:
        """Asks the service, whoever it is."""
        if isinstance(request, api.PostEnvelope):
            self.observer.posted(request)
            if self.loses_mail:
                self.loses_mail -= 1
                return api.Done()
        if isinstance(request, api.PostRequest):
            self.observer.posted(request.request)
        if isinstance(request, api.Append):
            self.appends.append(request)
            if self.drops:
                self.drops -= 1
                return self.service.answer_and_forget(request, who.encode(), side)
        answer = self.service.handle(path, request, who.encode(), side)
        if isinstance(request, api.Append):
            order = self.observer.accepted
            order.setdefault(request.entry.hash(), len(order))
        return answer

    # -- actions

    def act(self, action: Action) -> None:
        """Does one line of a schedule."""
        self.steps += 1
        getattr(self, f"do_{action.name}")(action.a, action.b)

    def do_send(self, a: int, b: int) -> None:
        """A member sends a text."""
        self._begin(a, b, lambda d: d.handle.send(self._text()))

    def _text(self) -> str:
        text = f"text {len(self.texts)} {self.randomness(8).hex()}"
        self.texts.append(text.encode())
        return text

    def do_renew(self, a: int, b: int) -> None:
        """A member renews its keys."""
        self._begin(a, b, lambda d: d.handle.renew_keys())

    def do_rename(self, a: int, b: int) -> None:
        """A member renames the group."""
        self._begin(a, b, lambda d: d.handle.rename(f"Model {b}"))

    def do_add(self, a: int, b: int) -> None:
        """A member adds a user who is not in the group."""
        outside = [d for d in self.honest if d.status in {"none", "left"}]
        if outside:
            user = outside[b % len(outside)].user
            self._begin(a, b, lambda d: d.handle.add(user))

    def do_ask(self, a: int, b: int) -> None:
        """Somebody who is not in the group has a link and asks to come in."""
        outside = [d for d in self.honest if d.status in {"none", "left"}]
        by = self.pick(a)
        if outside and by is not None and by.handle is not None:
            who, link = outside[b % len(outside)], by.handle.link()
            who.finish()
            who.start(who.client.join(link, "let me in"))
            who.finish()
            # Who has asked already, or was let in meanwhile, is told so.
            who.errors = [error for error in who.errors if not isinstance(error, StateError)]

    def do_remove(self, a: int, b: int) -> None:
        """A member removes another; two honest ones stay."""
        inside = [d for d in self.devices.values() if d.status == "active"]
        by = self.pick(a)
        if by is None or len([d for d in self.honest if d.status == "active"]) < 4:
            return
        whom = inside[b % len(inside)]
        if whom is not by:
            self._begin(a, b, lambda d: d.handle.remove(whom.user))

    def do_sync(self, a: int, _b: int) -> None:
        """A device catches up."""
        device = self.pick(a, active=False)
        if device is not None:
            device.sync()

    def do_start(self, a: int, b: int) -> None:
        """A device begins to catch up, and is left somewhere in it."""
        device = self.pick(a, active=False)
        if device is not None and device.task is None:
            device.start(device.client.sync())
            self._some_steps(device, b)

    def do_step(self, a: int, b: int) -> None:
        """A device goes on with what it is doing."""
        device = self.pick(a, active=False)
        if device is not None:
            self._some_steps(device, b)

    def _begin(self, a: int, b: int, what: Callable[[Any], Any]) -> None:
        device = self.pick(a)
        if device is None:
            return
        device.finish()
        if device.status != "active":
            return
        device.start(what(device))
        if b % 3:
            device.finish()
        else:
            self._some_steps(device, b)

    @staticmethod
    def _some_steps(device: Device, b: int) -> None:
        for _ in range(1 + b % 7):
            if not device.step():
                break
        device.told.extend(device.client.pending_events())

    def do_crash(self, a: int, _b: int) -> None:
        """A device's process ends and begins again."""
        device = self.pick(a, active=False)
        if device is not None:
            device.crash()

    def do_back_up(self, a: int, _b: int) -> None:
        """A device's profile is copied."""
        device = self.pick(a)
        if device is not None:
            device.back_up()

    def do_restore(self, a: int, b: int) -> None:
        """A device falls back to a copy."""
        device = self.pick(a, active=False)
        if device is not None and device.restore(b):
            self.observer.restored[device.label] += 1

    def do_tick(self, a: int, _b: int) -> None:
        """Seconds pass."""
        self.clock.advance(1 + a % 120)

    def do_hours(self, a: int, _b: int) -> None:
        """Hours pass, and the service drops what is too old."""
        self.clock.advance((1 + a % 11) * HOUR)
        self.service.sweep()

    def do_lose_mail(self, _a: int, _b: int) -> None:
        """The next envelope to an inbox is lost, though the service says that it has it."""
        self.loses_mail = 1

    def do_day(self, _a: int, _b: int) -> None:
        """Most of a day passes."""
        self.clock.advance(20 * HOUR)

    def do_replay(self, a: int, _b: int) -> None:
        """The network delivers a request once more."""
        if self.network.held:
            who, path, request, side = self.network.held[a % len(self.network.held)]
            try:
                self.ask(who, path, request, side)
            except Refused:
                return

    # -- who subscribes

    def do_subscribe(self, a: int, b: int) -> None:
        """Somebody who shows a member's tokens follows the epoch that the member is in."""
        subscribers, device = self.service.subscribers, self.pick(a)
        if device is None or device.side:
            return
        line = device.line()
        if line is None:
            return
        if len(subscribers.watchers) < 1 + b % 4:
            watcher = Watcher(subscribers, wake_only=bool(b % 3 == 0))
            subscribers.watchers.append(watcher)
        else:
            watcher = subscribers.watchers[b % len(subscribers.watchers)]
        read = line.read()
        target = api.LogTarget(read.log_id, read.epoch, read.token, 1)
        subscribers.on_loop(lambda: watcher.follow(target), b % 5)

    def do_stall(self, a: int, b: int) -> None:
        """A subscriber takes nothing for a while, or goes on, or its connection is cut, or it connects again."""
        watchers = self.service.subscribers.watchers
        if not watchers:
            return
        watcher = watchers[a % len(watchers)]
        if not watcher.connected:
            self.service.subscribers.on_loop(watcher.connect, b % 5)
            return
        act = (watcher.stall, watcher.go_on, watcher.lose_connection)[b % 3]
        self.service.subscribers.on_loop(act, b % 7)

    def do_attack(self, a: int, b: int) -> None:
        """An adversary does something."""
        if self.attackers:
            attacker = self.attackers[a % len(self.attackers)]
            attacker(a // len(self.attackers), random.Random(b))  # noqa: S311 - repeats

    # -- the end

    MOVING = 60
    """Within how many seconds a Commit must land, whatever an attacker does."""

    def _press_on(self) -> None:
        """A member wants a new epoch while an attacker is before it at every request."""
        device = self.pick(0)
        if self.pressure is None or device is None or device.handle is None:
            return
        device.sync()
        until, before = self.clock() + self.MOVING, device.handle.epoch
        device.run(device.handle.renew_keys())
        while self.clock() < until and device.status == "active":
            self.moved_on = device.handle.epoch > before
            if self.moved_on:
                break
            self.clock.advance(20)
            device.sync()
        self.moved_on = self.moved_on or device.status != "active"
        self.pressed, self.pressure = True, None

    def heal(self, rounds: int = 4) -> None:
        """Storms end: everybody is there, nothing is lost, and time passes."""
        self.network.loss, self.loses_mail = 0.0, 0
        if not self.kit.lying_service:
            self.tamper.clear()
        self.service.subscribers.reconnect()
        self._press_on()
        for wait in ((61,) * rounds + (25 * HOUR,)) * 2 + (61,) * rounds:
            self._all_sync()
            self.clock.advance(wait)
        days = 0
        while self.missing() and days < self.kit.patience:
            days += 1
            for wait in (61, 61, 22 * HOUR):
                self._all_sync()
                self.clock.advance(wait)
            self.service.sweep()
        # Who came in last renews its keys, which the others have to read.
        least = rounds if days else 1
        for turn in range(1, _MOST_ROUNDS + 1):
            before = len(self.appends)
            self._all_sync()
            self.clock.advance(61)
            if turn >= least and len(self.appends) == before:
                break

    def _all_sync(self) -> None:
        for device in self.honest:
            device.sync()
        if self.users is not None:
            self.users()

    def members(self) -> set[str]:
        """Who is in the group, as the honest members who are furthest on see it; a stuck one may not know it is out."""
        lines = [line for d in self.together if d.status == "active" and (line := d.line())]
        if not lines:
            # All are stuck: where a path may have failed for all, or all are copies, the line is over (D-SUC-6).
            over = self.hopeless or bool(self.observer.restored)
            return set() if over else {d.label for d in self.honest if d.status == "stuck"}
        newest = max(lines, key=lambda line: line.group.epoch)
        return {name_of(member.node.credential) for member in newest.group.members()}

    def missing(self) -> list[Device]:
        """The honest members that take no part, while another honest one is there and the service is honest."""
        if self.kit.lying_service:
            return []
        members = self.members()
        return [d for d in self.together if d.label in members and d.status != "active"]


_MOST_ROUNDS = 12
"""For how many rounds it is waited until nobody appends anything."""


class Waiting:
    """`asyncio` where time does not pass by itself, and where nothing is done but in turn."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever asyncio has
        return {"sleep": _sleep, "gather": _in_turn}.get(name) or getattr(asyncio, name)


async def _in_turn(*waiting: Coroutine[Any, Any, Any], return_exceptions: bool) -> list[Any]:
    """`asyncio.gather` without an event loop: one after the other."""
    results: list[Any] = []
    left = list(waiting)
    try:
        while left:
            try:
                results.append(await left.pop(0))
            except Exception as error:
                if not return_exceptions:
                    raise
                results.append(error)
    finally:
        for each in left:
            each.close()
    return results


async def _sleep(seconds: float) -> None:
    """Waiting by the clock is a point at which others may go first."""
    del seconds
    await Pause()
