"""Clients and services in one process: real code, real storage, a carrier that can misbehave, a clock that is told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.authentication.app import create_app
from coterie.authentication.ca import CertificateAuthority
from coterie.authentication.ledger import Ledger
from coterie.authentication.service import AuthenticationService
from coterie.authentication.settings import Settings as AuthenticationSettings
from coterie.client import Client
from coterie.client.client import Network
from coterie.client.events import Event
from coterie.client.line import Line
from coterie.delivery.service import DeliveryService, Places
from coterie.delivery.settings import Rate, Rates, Settings
from coterie.errors import ServiceError
from coterie.identity.issuer import X509Issuer
from coterie.mls.credential import Credential
from coterie.mls.group import CommitOptions
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct
from coterie.storage import StorageKey
from coterie.transport import api
from coterie.transport.memory import MemoryCarrier, MemoryConnection

REALM = "world.example"
START = 1_800_000_000
T = TypeVar("T", bound=Struct)
_MANY = Rate(1_000_000, 0.0)
UNLIMITED = Settings(
    rates=Rates(**{name: _MANY for name in Rates.__dataclass_fields__})  # noqa: C420 - not a constant dict of names
)


class Weather:
    """What may happen to requests: lost on the way, or answered without the answer arriving."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.lose_request = 0.0
        self.lose_answer = 0.0
        self.paths: list[str] = []
        self.tamper: dict[str, Callable[[Any, Any], Any]] = {}
        """What a hostile service makes of a request and the answer to it, by path."""

    def before(self, path: str) -> None:
        """May lose the request."""
        self.paths.append(path)
        if self.random.random() < self.lose_request:
            raise ServiceError("the request was lost", retry_after=0)

    def after(self) -> None:
        """May lose the answer."""
        if self.random.random() < self.lose_answer:
            raise ServiceError("the answer was lost", retry_after=0)


class WorldCarrier(MemoryCarrier):
    """A carrier in weather."""

    def __init__(self, service: Any, weather: Weather, own: Weather) -> None:
        super().__init__(service)
        self._weather = weather
        self._own = own

    async def call(self, path: str, request: Struct, answer: type[T]) -> T:
        self._own.before(path)
        self._weather.before(path)
        result = await super().call(path, request, answer)
        self._weather.after()
        tamper = self._weather.tamper.get(path)
        return result if tamper is None else answer.decode(tamper(request, result).encode())

    async def connect(self) -> MemoryConnection:
        self._weather.before("subscribe")
        return await super().connect()


class World:
    """Both services, and any number of devices."""

    def __init__(self, folder: Path, places: Places | None = None) -> None:
        self.folder = folder
        self.now = START
        self.weather = Weather()
        self.weather_of: dict[str, Weather] = {}
        """Paths that each device asked for stand here as well."""
        self.wrong_by: dict[str, int] = {}
        """By how many seconds the clock of a device, or of the `delivery` service, is wrong."""
        self.authority = CertificateAuthority.create(REALM, now=START)
        self.authentication = AuthenticationService(
            self.authority,
            Ledger(folder / "authentication.db"),
            code_key=Secret(bytes(32)),
            clock=self.clock,
            settings=AuthenticationSettings(requests_burst=1_000_000),
        )
        issuer = X509Issuer([a.cert_data for a in self.authentication.realm_info().anchors])

        def identify(credential: Credential, key: bytes, at: int) -> tuple[bytes, bytes]:
            device = issuer.identify(credential, key, now=at)
            return str(device.user).encode(), device.device.encode()

        self.delivery = DeliveryService(
            Ed25519PrivateKey.generate(),
            identify,
            places=places,
            settings=UNLIMITED,
            clock=lambda: self.now + self.wrong_by.get("delivery", 0),
        )
        self.open = AsyncExitStack()
        self.clients: dict[str, Client] = {}

    def clock(self) -> int:
        """The world's time, in seconds since 1970."""
        return self.now

    def network(self, label: str = "") -> Network:
        """The way of a device to the services."""
        own = self.weather_of.setdefault(label, Weather())

        def http() -> httpx.AsyncClient:
            app = create_app(self.authentication)

            async def strip(
                scope: Any, receive: Callable[..., Any], send: Callable[..., Any]
            ) -> None:
                if scope["type"] == "http":
                    path = scope["path"].removeprefix("/authentication")
                    scope = {**scope, "path": path, "raw_path": path.encode()}
                await app(scope, receive, send)

            return httpx.AsyncClient(transport=httpx.ASGITransport(strip))

        return Network(lambda _: WorldCarrier(self.delivery, self.weather, own), http)

    @asynccontextmanager
    async def profile(self, label: str, *, durable: bool = False) -> AsyncIterator[Client]:
        """Opens a device's profile."""
        async with Client.open(
            self.folder / label,
            StorageKey.given(label.encode().ljust(32, b"\0")),
            server="http://services",
            clock=lambda: self.now + self.wrong_by.get(label, 0),
            welcome_delay=0.0,
            network=self.network(label),
            durable=durable,
        ) as client:
            yield client

    async def device(self, label: str, user: str | None = None) -> Client:
        """A new device of a user (who is added if new), enrolled."""
        name = user or label
        if any(c.is_enrolled and c.user == f"{name}@{REALM}" for c in self.clients.values()):
            code = self.authentication.new_code(name).code.decode()
        else:
            code = self.authentication.add_user(name).code.decode()
        client = await self.open.enter_async_context(self.profile(label))
        await client.enrol(name, code)
        self.clients[label] = client
        return client

    async def settle(self, *labels: str, rounds: int = 2) -> dict[str, list[Event]]:
        """Lets devices (all if none is named) catch up; what each was told."""
        told: dict[str, list[Event]] = {}
        for _ in range(rounds):
            for label in labels or tuple(self.clients):
                await self.clients[label].sync()
                told.setdefault(label, []).extend(self.clients[label].pending_events())
        return told


@asynccontextmanager
async def world(folder: Path, places: Places | None = None) -> AsyncIterator[World]:
    """A world with its services running, the Delivery Service's databases in memory or where `places` says."""
    made = World(folder, places)
    made.delivery.start()
    try:
        async with made.open:
            yield made
    finally:
        await made.delivery.close()
        made.authentication.close()


def texts(client: Client) -> list[str]:
    """The texts of a client's first group, oldest first."""
    return [message.text for message in client.groups()[0].history()]


def refused_candidate(line: Line) -> api.Append:
    """A candidate whose Commit all members refuse, as a hostile member can make it: it uses up the leaf."""
    pending = line.group.commit((), options=CommitOptions(external_pub=False))
    broken = bytearray(pending.message.encode())
    broken[-1] ^= 1
    bundle = line.bundle(pending)
    opened = line.keys.open(bundle.entry)
    content = api.CommitContent.decode(opened.content)
    tbs = content.manifest.tbs.replace(commit_hash=api.sha256(bytes(broken)))
    signed = line.group.sign(api.MANIFEST_LABEL.decode(), tbs.encode())
    wrong = api.CommitContent(api.Manifest(tbs, signed), bytes(broken))
    resealed = opened.replace(content=wrong.encode(), padding=b"")
    return line.keys.append(bundle.entry.header, resealed)
