"""A model member: the real `Client` and all below it, with storage in memory, carried on step by step.

Its coroutines run without an event loop: every request to the service is a point at which the scheduler may let
somebody else go first, stop the device for good (a crash), or lose the request or its answer. Whatever the client would
wait for by the clock is such a point as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from coterie.client import Client
from coterie.client.client import Network
from coterie.client.content import EXTENSION_TYPES
from coterie.client.handle import GroupHandle
from coterie.client.identity import Identity, StoredIdentity
from coterie.client.line import Line
from coterie.client.vault import Vault
from coterie.errors import CoterieError, ServiceError, StateError
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Capabilities, capabilities
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct
from coterie.mls.types import CredentialType
from coterie.testing.simulator.memory_profile import Contents, MemoryProfile
from coterie.transport import api

if TYPE_CHECKING:
    from coterie.testing.simulator.world import World

REALM = "sim.example"
SUITE = 1
T = TypeVar("T", bound=Struct)


class Pause:
    """Awaited where somebody else may go first."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class ModelIdentity(Identity):
    """A device with a basic credential `user/device`."""

    def __init__(
        self, user: str, label: str, receipt_key: bytes, rng: Callable[[int], bytes]
    ) -> None:
        suite = suite_of(SUITE)
        key = suite.generate_signature_key(rng)
        self._credential = Credential.basic(f"{user}@{REALM}/{label}".encode())
        self.stored = StoredIdentity(
            b"memory",
            user.encode(),
            REALM.encode(),
            label.encode(),
            SUITE,
            (),
            (),
            key.private_bytes(),
            receipt_key,
            rng(32),
            Secret(rng(32)),
        )
        self.suite = suite
        self.signature_key = key
        self.credential = self._credential
        self.issuer = AcceptAnything()  # type: ignore[assignment]
        self._rng = rng

    @staticmethod
    def user_of_credential(credential: Credential) -> str:
        """The user before the slash."""
        return credential.identity.decode().partition("/")[0]

    def client_id(self, credential: Credential) -> bytes:
        """The whole credential: one leaf for each device."""
        return self.issuer.client_id(credential)

    @property
    def suites(self) -> tuple[int, ...]:
        """One is enough for a model: fewer key packages to make."""
        return (SUITE,)

    def capabilities(self) -> Capabilities:
        """What the model supports."""
        return capabilities(
            cipher_suites=[SUITE],
            credentials=[CredentialType.BASIC],
            extensions=EXTENSION_TYPES,
            rng=self._rng,
        )

    def revoked_serials(self) -> frozenset[int]:
        """None: there is no certificate."""
        return frozenset()

    def renewal_due(self, now: int) -> bool:
        """Never: there is no certificate."""
        del now
        return False


class ModelVault(Vault):
    """A vault that knows its device from the start."""

    def __init__(self, profile: MemoryProfile, identity: Identity, *, looks: bool) -> None:
        super().__init__(profile)  # type: ignore[arg-type]
        self._identity = identity
        self._looks = looks

    def identity(self) -> Identity | None:
        """The device."""
        return self._identity

    def next_look(self) -> int | None:
        """When it is asked which devices the user has; never where there is nobody to ask."""
        return super().next_look() if self._looks else 1 << 62


class ModelCarrier:
    """Carries one device's requests through the simulated network."""

    def __init__(self, device: Device, *, fresh: bool) -> None:
        self._device = device
        self._fresh = fresh

    async def call(self, path: str, request: Struct, answer: type[T]) -> T:
        """See Carrier: the request or its answer may be lost."""
        await Pause()
        result = self._device.world.carry(self._device, path, request, fresh=self._fresh)
        await Pause()
        if self._device.world.network.loses_answer():
            raise ServiceError("the answer was lost", retry_after=0)
        return answer.decode(result.encode())

    async def info(self) -> api.ServiceInfo:
        """See Carrier."""
        return self._device.world.service.info()

    async def connect(self) -> Any:  # noqa: ANN401 - never returns
        """Simulated devices poll."""
        raise ServiceError("there are no subscriptions here")

    async def close(self) -> None:
        """Nothing is open."""


async def _nothing() -> None:
    """There are no revocation lists here."""


class _NoHTTP:
    async def aclose(self) -> None:
        """Nothing is open."""


class Device:
    """One member's device."""

    def __init__(self, world: World, label: str, user: str = "") -> None:
        self.world = world
        self.label = label
        self.side = 0
        self.profile = MemoryProfile()
        self.ask_devices: Callable[[], Coroutine[Any, Any, list[tuple[str, int]]]] | None = None
        """Asks which devices the user has, where there is an Authentication Service."""
        self.identity = ModelIdentity(
            user or label, label, world.service.receipt_key, world.randomness
        )
        self.snapshots: list[Contents] = []
        self.task: Coroutine[Any, Any, Any] | None = None
        self.told: list[Any] = []
        self.errors: list[CoterieError] = []
        self.refused: list[ServiceError] = []
        self.client = self._open()

    def _open(self) -> Client:
        self._is_open = False
        network = Network(lambda _: ModelCarrier(self, fresh=self._is_open), _NoHTTP)  # type: ignore[arg-type]
        client = Client(
            ModelVault(self.profile, self.identity, looks=self.ask_devices is not None),
            "memory",
            clock=self.world.clock,
            welcome_delay=0.0,
            network=network,
        )
        tools = client.tools
        tools.config = dataclasses.replace(tools.config, rng=self.world.randomness)
        tools.refresh = _nothing
        if self.ask_devices is not None:
            client._own_devices.listed = self.ask_devices  # type: ignore[method-assign]  # noqa: SLF001 - the service
        self._is_open = True
        return client

    @property
    def user(self) -> str:
        """`name@realm`."""
        return self.client.user

    # -- what the assertions look at

    @property
    def handle(self) -> GroupHandle | None:
        """The simulation's group on this device."""
        for group in self.client.groups():
            if group.id == self.world.group_id:
                return group
        return None

    @property
    def status(self) -> str:
        """Of the group: none, creating, active, left, stuck or stopped."""
        handle = self.handle
        return "none" if handle is None else handle.status

    @property
    def why(self) -> str:
        """Why the device does not take part."""
        if self.status == "none":
            return "it never joined"
        return self.client.vault.conversation(self.world.group_id).why.decode()

    def line(self) -> Line | None:
        """A copy of the place in the log, as it is stored; None where the device is in no epoch."""
        try:
            return self.client.vault.load_line(self.world.group_id, self.client.tools.config)
        except StateError:
            return None

    # -- running

    def start(self, task: Coroutine[Any, Any, Any]) -> None:
        """Begins something; nothing else may be going on."""
        if self.task is not None:
            self.task.close()
        self.task = task

    def step(self) -> bool:
        """Lets the task go on to its next request; False when there is none any more."""
        if self.task is None:
            return False
        try:
            self.task.send(None)
        except StopIteration:
            self.task = None
        except ServiceError as error:
            self.refused.append(error)
            # The service is away, or refuses: what is wanted stays stored, and is tried again with the next sync.
            self.task = None
        except CoterieError as error:
            self.task = None
            self.errors.append(error)
        return self.task is not None

    def finish(self) -> None:
        """Lets the task go on to its end."""
        while self.step():
            pass
        self.told.extend(self.client.pending_events())

    def run(self, task: Coroutine[Any, Any, Any]) -> None:
        """Something from beginning to end, undisturbed."""
        self.start(task)
        self.finish()

    def sync(self) -> None:
        """Catches up and carries out what is wanted."""
        self.finish()
        self.run(self.client.sync())

    def crash(self) -> None:
        """The process ends wherever it is, and begins again with what is stored."""
        if self.task is not None:
            self.task.close()
            self.task = None
        self.told.extend(self.client.pending_events())
        self.client = self._open()

    def back_up(self) -> None:
        """Keeps a copy of the profile."""
        self.snapshots.append(self.profile.snapshot())

    def restore(self, which: int) -> bool:
        """Falls back to a copy; False where there is none."""
        if not self.snapshots:
            return False
        self.profile.contents = self.snapshots[which % len(self.snapshots)].copy()
        self.crash()
        return True
