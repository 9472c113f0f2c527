"""Users who enrol further devices, which their own devices add to the group (D-DIR-10).

The Authentication Service may name devices that nobody made, the directory may hand out others' key packages, and a
member tries to bring in others' devices, to which it has no right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from coterie.client.content import ProfileRules
from coterie.client.gathering import Gathering
from coterie.errors import ServiceError
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group
from coterie.mls.key_package import KeyPackage
from coterie.mls.proposal import Add, Proposal
from coterie.mls.tls import Struct
from coterie.testing.simulator.device import Device, Pause
from coterie.testing.simulator.insider import Forgery, Insider
from coterie.testing.simulator.run import Scenario
from coterie.testing.simulator.service import RETENTION
from coterie.testing.simulator.world import Kit, World
from coterie.transport import api
from coterie.transport.refusal import Refused

INSIDER = "m1"
ACTIONS = (
    *("enrol", "enrol", "unlink", "look", "look", "attack", "attack", "attack"),
    *("send", "renew", "sync", "sync", "start", "step", "step", "crash", "tick", "hours"),
)
_MOST = 3
"""How many devices a user has at most."""


def _kit(rng: random.Random) -> Kit:
    return Kit(
        members=rng.randrange(3, 5),
        outsiders=0,
        loss=rng.choice((0.0, 0.05, 0.2)),
        dishonest=frozenset({INSIDER}),
        chunks=rng.random() < 0.3,
        retention=30 * RETENTION,
    )


class Users:
    """Which devices the users have, as the Authentication Service says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ghosts: set[bytes] = set()
        """Devices that it names and that nobody made."""
        for device in list(world.devices.values()):
            self.knows(device)

    def knows(self, device: Device) -> None:
        """Has a device ask which devices its user has."""

        async def devices() -> list[tuple[str, int]]:
            await Pause()
            if self.world.network.loses_request():
                raise ServiceError("the request was lost", retry_after=0)
            tools = device.client.tools
            tools.own_devices = frozenset({*self._of(device.user), *self.ghosts})
            return []

        device.ask_devices = devices
        device.crash()

    def _of(self, user: str) -> set[bytes]:
        found = [d for d in self.world.devices.values() if d.user == user]
        return {d.identity.client_id(d.identity.credential) for d in found}

    def enrol(self, a: int) -> None:
        """A user has one more device."""
        first = self.world.honest[a % len(self.world.honest)]
        same = [d for d in self.world.devices.values() if d.user == first.user]
        if len(same) >= _MOST:
            return
        name = first.user.partition("@")[0]
        device = Device(self.world, f"{name}x{len(same)}", name)
        self.world.devices[device.label] = device
        self.world.later.add(device.label)
        self.knows(device)
        device.run(device.client.publish())

    def unlink(self, a: int) -> None:
        """A further device leaves the group; its user keeps it, and does not want it there."""
        later = [d for d in self.world.honest if d.label in self.world.later]
        if later:
            device = later[a % len(later)]
            device.finish()
            if device.status == "active" and device.handle is not None:
                self.world.later.discard(device.label)
                self.world.unlinked.add(device.label)
                device.run(device.handle.leave_anyway())


class Meddler(Insider):
    """A member who brings in others' devices, and services that say what is not so."""

    def __init__(self, world: World, users: Users) -> None:
        super().__init__(world, INSIDER)
        self.users = users
        self.swaps = False
        self.attacks = (self.brings_anothers, self.names_ghosts, self.swaps_packages)
        world.tamper.append(self._tamper)

    def brings_anothers(self, rng: random.Random) -> None:
        """Adds a device of another user, who is in the group and did not ask for it: refused (D-VAL-5)."""
        missing = [
            d for d in self.world.honest if d.label in self.world.later and d.status == "none"
        ]
        line = self.line()
        if line is None or not missing:
            return
        user = missing[rng.randrange(len(missing))].user
        present = {m.node.credential for m in line.group.members()}
        suites = (line.group.context.cipher_suite,)
        claim = api.Claim(api.DeliveryVersion.COTERIE1, user.encode(), suites)
        try:
            claimed = self.world.ask(INSIDER, "directory/claim", claim)
        except Refused:
            return
        packages = [read(one) for one in api.ClaimResult.decode(claimed.encode()).packages]
        adds = [Proposal.of(Add(p)) for p in packages if p.leaf_node.credential not in present]
        if adds:
            with mock.patch.object(ProfileRules, "check_commit"):
                pending, access = self.commit(line, adds[:1])
            self.post(self.bundle(line, Forgery(pending.message.encode(), access), rng))

    def names_ghosts(self, rng: random.Random) -> None:
        """The Authentication Service names a device that nobody made."""
        self.users.ghosts = set() if self.users.ghosts else {rng.randbytes(24)}

    def swaps_packages(self, _rng: random.Random) -> None:
        """The directory hands out key packages of somebody else, or does not any more."""
        self.swaps = not self.swaps

    def _tamper(self, device: Device, path: str, request: Struct, answer: Struct) -> Struct:
        if path != "directory/claim" or not self.swaps or not isinstance(request, api.Claim):
            return answer
        others = [d.user for d in self.world.devices.values() if d.user != device.user]
        try:
            claim = request.replace(name=others[0].encode())
            return self.world.ask(device.label, path, claim, device.side)
        except Refused:
            return answer


def read(claimed: api.Claimed) -> KeyPackage:
    """The key package that was claimed."""
    body = MLSMessage.read(claimed.key_package).body
    if not isinstance(body, KeyPackage):
        raise Refused(api.ErrorCode.BAD_KEY_PACKAGE, "the directory has something else")
    return body


def _prepare(world: World) -> None:
    first = world.devices["m0"]
    with world.calm():
        if first.handle is not None:
            first.run(first.handle.change_rules(may_add="admins", may_remove="admins"))
        for device in world.devices.values():
            device.sync()
    users = Users(world)
    meddler = Meddler(world, users)

    def do_enrol(a: int, _b: int) -> None:
        users.enrol(a)

    def do_unlink(a: int, _b: int) -> None:
        users.unlink(a)

    def do_look(a: int, b: int) -> None:
        """A user links a device just now: the one that made the code looks at once."""
        device = world.pick(a)
        if device is not None:
            device.finish()
            with device.client.vault.step() as step:
                step.set_next_look(world.clock())
            world.do_start(a, b)

    actions: dict[str, Callable[[int, int], None]] = {
        "do_enrol": do_enrol,
        "do_unlink": do_unlink,
        "do_look": do_look,
    }
    for name, action in actions.items():
        setattr(world, name, action)
    world.attackers.append(meddler)

    def over() -> None:
        users.ghosts.clear()
        meddler.swaps = False

    world.users = over


LATER = Scenario("users who enrol further devices", _kit, ACTIONS, 50, prepare=_prepare)
"""They come and go in bad weather, while a member and the services meddle."""


@contextmanager
def all_are_missing(_world: World) -> Iterator[None]:
    """D-DIR-10 without the question who was in the group: who left it is brought back."""

    def missing(self: Gathering, devices: frozenset[bytes]) -> set[bytes]:
        client_id = self._tools.config.authenticator.client_id
        group: Group = self.group
        return set(devices) - {client_id(m.node.credential) for m in group.members()}

    with mock.patch.object(Gathering, "_missing", missing):
        yield
