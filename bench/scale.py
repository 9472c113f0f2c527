"""A group of 50,000 through the real Delivery Service: `python -m bench.scale --members 50000 --real 200`.

The service is a process on loopback with its databases on disk. The group is put together in memory (`bench.shapes`)
with X.509 credentials for everybody, and its log begins with that epoch. Some members are real clients with profiles on
disk; the others are played: they subscribe, take what is pushed, and show the next epoch's token after each Commit.
Writes JSON; `--page` makes `docs/scale.md` of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from bench.delivery_fanout import allow_many_files
from bench.delivery_load import resident_kib, server_seconds
from bench.played import Crowd
from bench.shapes import Kind, Shape, build
from coterie.authentication.app import create_app
from coterie.authentication.ca import CertificateAuthority
from coterie.authentication.ledger import Ledger
from coterie.authentication.service import AuthenticationService
from coterie.authentication.settings import Settings as AuthenticationSettings
from coterie.client import Client
from coterie.client.chunks import SharedState
from coterie.client.client import Network
from coterie.client.content import BINDING_EXTENSION, EXTENSION_TYPES, GroupProfile, ProfileRules
from coterie.client.conversation import Conversation
from coterie.client.epoch_keys import EpochKeys
from coterie.client.identity import Identity, Package, StoredIdentity
from coterie.client.line import Line
from coterie.client.vault import StoredConversation, Vault
from coterie.identity.names import DeviceId, UserId
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, suite_of
from coterie.mls.extension import Extension, capabilities
from coterie.mls.group import Config
from coterie.mls.group.results import Delta
from coterie.mls.leaf_node import Lifetime
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct
from coterie.mls.types import CredentialType
from coterie.storage import Profile, StorageKey
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier, HTTPConnection
from tests.delivery_server import Server, running

REALM: Final = "scale.example"
DAY: Final = 24 * 3600
RETENTION: Final = 30 * DAY
KEY: Final = StorageKey.given(bytes(32))
SUITE: Final = 1
UPLOAD: Final = 4 << 20
AWAY: Final = 100
PATIENCE: Final = 600
"""Seconds for which anything is waited for."""
T = TypeVar("T", bound=Struct)


class CountingCarrier(HTTPCarrier):
    """Counts what a client sends and gets, in bytes of the protocol's structs."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent = 0
        self.received = 0

    async def call(self, path: str, request: Struct, answer: type[T]) -> T:
        """See Carrier."""
        self.sent += len(request.encode())
        result = await super().call(path, request, answer)
        self.received += len(result.encode())
        return result

    async def connect(self) -> HTTPConnection:
        """See Carrier."""
        connection = await super().connect()
        receive = connection.receive

        async def counted() -> api.ServerFrame:
            frame = await receive()
            self.received += len(frame.encode())
            return frame

        connection.receive = counted  # type: ignore[method-assign]
        return connection


@dataclass
class Person:
    """A real client, and what it has sent and got."""

    client: Client
    carriers: list[CountingCarrier]

    @property
    def sent(self) -> int:
        """Bytes."""
        return sum(carrier.sent for carrier in self.carriers)

    @property
    def received(self) -> int:
        """Bytes."""
        return sum(carrier.received for carrier in self.carriers)


@dataclass(frozen=True)
class Enrolled:
    """What a device has before it is in any group."""

    stored: StoredIdentity
    packages: list[Package]


class Place:
    """The services and the people around them."""

    def __init__(self, folder: Path, server: Server, authority: CertificateAuthority) -> None:
        self.folder = folder
        self.server = server
        self.authority = authority
        self.now = int(time.time())
        self.authentication = AuthenticationService(
            authority,
            Ledger(folder / "authentication.db"),
            code_key=Secret(bytes(32)),
            clock=lambda: int(time.time()),
            settings=AuthenticationSettings(),
        )
        self.delivery = DeliveryClient(HTTPCarrier(server.url))
        self.open = contextlib.AsyncExitStack()

    async def person(self, path: Path) -> Person:
        """Opens a client's profile."""
        carriers: list[CountingCarrier] = []

        def carrier(url: str) -> CountingCarrier:
            carriers.append(CountingCarrier(url))
            return carriers[-1]

        client = await self.open.enter_async_context(
            Client.open(
                path,
                KEY,
                server=self.server.url,
                welcome_delay=0.0,
                network=Network(carrier, self._http),
            )
        )
        return Person(client, carriers)

    def _http(self) -> httpx.AsyncClient:
        app = create_app(self.authentication)

        async def strip(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
            if scope["type"] == "http":
                path = scope["path"].removeprefix("/authentication")
                scope = {**scope, "path": path, "raw_path": path.encode()}
            await app(scope, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(strip))

    async def newcomer(self, name: str) -> Person:
        """A new user's device, enrolled."""
        code = self.authentication.add_user(name).code.decode()
        person = await self.person(self.folder / name)
        await person.client.enrol(name, code)
        return person

    async def enrolled(self, name: str) -> Enrolled:
        """The identity and the key packages of a new user's device, whose profile is made later."""
        code = self.authentication.add_user(name).code.decode()
        path = self.folder / name
        network = Network(HTTPCarrier, self._http)
        async with Client.open(
            path, KEY, server=self.server.url, network=network, durable=False
        ) as client:
            await client.enrol(name, code)
            identity = client.identity
            made = Enrolled(identity.stored, client.vault.packages(identity))
        shutil.rmtree(path)
        return made

    def certificate(self, name: str, key: SignaturePrivateKey) -> Credential:
        """The credential of somebody who is played."""
        device = DeviceId(UserId(name, REALM), hashlib.sha256(name.encode()).hexdigest()[:32])
        der = self.authority.issue(device, key.public, now=self.now, lifetime=90 * DAY)
        return Credential.x509((der,))


@dataclass
class Made:
    """A group of any size with its log: the shape, the identities of its real members, its first receipt."""

    shape: Shape
    conversation: str
    binding: api.DeliveryBinding
    leaves: dict[int, StoredIdentity]
    packages: dict[int, list[Package]]
    opening: api.Receipt
    keys: EpochKeys
    template: Path
    name: str
    chunk_bytes: int = 0


async def found(
    place: Place, name: str, shape_name: str, members: int, real: list[Enrolled]
) -> Made:
    """Builds a group in which the identities stand evenly among played members, makes its log, uploads its state."""
    info = await place.delivery.info()
    at = [number * members // len(real) for number in range(len(real))]
    leaves = {leaf: one.stored for leaf, one in zip(at, real, strict=True)}
    binding = api.DeliveryBinding(
        api.DeliveryVersion.COTERIE1,
        place.server.url.encode(),
        info.receipt_key,
        secrets.token_bytes(32),
        RETENTION,
    )
    admins = tuple(f"{s.user.decode()}@{REALM}".encode() for s in leaves.values())
    profile = GroupProfile(name.encode(), admins[:1])
    suite = suite_of(SUITE)

    def key(leaf: int) -> SignaturePrivateKey | None:
        stored = leaves.get(leaf)
        return None if stored is None else suite.load_signature_key(stored.signature_key)

    def credential(leaf: int, signature_key: SignaturePrivateKey) -> Credential:
        stored = leaves.get(leaf)
        if stored is None:
            return place.certificate(f"{name}{leaf}", signature_key)
        return Credential.x509(tuple(c.cert_data for c in stored.chain))

    kind = Kind(
        secrets.token_bytes(32),
        key,
        credential,
        capabilities(
            cipher_suites=[SUITE], credentials=[CredentialType.X509], extensions=EXTENSION_TYPES
        ),
        Lifetime(place.now - DAY, place.now + 80 * DAY),
        (Extension(BINDING_EXTENSION, binding.encode()), profile.extension()),
    )
    shape = build(members, shape_name, suite=SUITE, seed=binding.log_id, kind=kind)
    keys = EpochKeys.derive(shape.export_secret, binding.log_id)
    create = api.CreateLog(
        api.DeliveryVersion.COTERIE1, binding.log_id, keys.access, binding.retention
    )
    request = api.CreateLogRequest(create, keys.sign(create.to_be_signed()))
    opening = (await place.delivery.create_log(request)).receipt
    made = Made(
        shape,
        shape.context.group_id.hex(),
        binding,
        leaves,
        {leaf: one.packages for leaf, one in zip(at, real, strict=True)},
        opening,
        keys,
        place.folder / f"template-{name}",
        name,
    )
    await _upload_state(place, made)
    return made


async def _upload_state(place: Place, made: Made) -> None:
    """Puts the chunks into the store and all that is no secret into a profile from which others are copied."""
    shape, keys = made.shape, made.keys
    nothing = build(1).tree
    shared = SharedState()
    change = shared.change(nothing, shape.tree, keys.state_secret)
    shared.apply(change, nothing, shape.tree)
    waiting: list[api.Chunk] = []
    for spot, ref in shared.all_refs(shape.tree):
        waiting.append(api.Chunk(shared.data(shape.tree, spot, ref)))
        if len(waiting) * 8192 >= UPLOAD:
            await _put(place, made, waiting)
            waiting = []
    await _put(place, made, waiting)
    made.chunk_bytes = change.size
    leaf = next(iter(made.leaves))
    with Profile.open(made.template, KEY, create=True, durable=False) as profile:
        line = Line.opened(shape.member(leaf), api.ZERO32, made.opening, shared)
        with Vault(profile).step() as step:
            step.begin(made.conversation, _conversation(place, made))
            step.save_line(made.conversation, line)


def _conversation(place: Place, made: Made) -> StoredConversation:
    return StoredConversation(made.name.encode(), b"active", b"", place.now)


def settle(place: Place, made: Made, leaf: int, stored: StoredIdentity) -> Path:
    """A profile of a real member: what all members have alike is copied, its secrets are put in their place."""
    path = place.folder / f"{made.name}-member-{leaf}"
    shutil.copytree(made.template, path)
    identity = Identity(stored)
    config = Config(identity.issuer, rules=ProfileRules(identity))
    own = made.shape.own_part(leaf, config)
    with Profile.open(path, KEY, create=False, durable=False) as profile:
        with profile.transaction() as tx:
            tx.apply(f"group/{made.conversation}", Delta(own, frozenset(), ()))
        with Vault(profile).step() as step:
            step.save_identity(stored)
            for package in made.packages[leaf]:
                step.add_package(package)
    return path


async def _put(place: Place, made: Made, chunks: list[api.Chunk]) -> None:
    put = api.PutChunks(
        made.binding.log_id, made.opening.epoch, secrets.token_bytes(32), (), tuple(chunks)
    )
    signature = made.keys.sign(put.to_be_signed())
    await place.delivery.put_chunks(api.PutChunksRequest(put, signature))


@dataclass
class Report:
    """What was measured, in order."""

    figures: dict[str, Any] = field(default_factory=dict)

    def note(self, what: str, **values: float | str) -> None:
        """Keeps and prints figures."""
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        self.figures[what] = rounded
        print(f"{what}: {json.dumps(rounded)}", flush=True)


class Used:
    """Processor time of the service, and the clock, over a stretch."""

    def __init__(self, server: Server) -> None:
        self._pid = server.process.pid
        self._cpu, self._own = server_seconds(self._pid), time.process_time()
        self._clock = time.perf_counter()

    def so_far(self, each: float = 1) -> dict[str, float]:
        """Seconds since the beginning, divided."""
        return {
            "seconds": (time.perf_counter() - self._clock) / each,
            "service_cpu_s": (server_seconds(self._pid) - self._cpu) / each,
            "clients_cpu_s": (time.process_time() - self._own) / each,
        }


class Scale:
    """One group, its real clients and its crowd."""

    def __init__(self, place: Place, made: Made, report: Report) -> None:
        self.place, self.made, self.report = place, made, report
        self.people: list[Person] = []
        self.crowd: Crowd | None = None
        self._living: list[asyncio.Task[None]] = []

    @property
    def epoch(self) -> int:
        """The number of the epoch that the first real client is in."""
        return self.people[0].client.groups()[0].epoch

    async def open_real(self) -> None:
        """Makes the profiles of the real members, and opens their clients."""
        used = Used(self.place.server)
        for leaf, stored in self.made.leaves.items():
            path = settle(self.place, self.made, leaf, stored)
            self.people.append(await self.place.person(path))
        before = resident_kib(_own_pid())
        opening = Used(self.place.server)
        for person in self.people:
            await person.client.sync()
        first = opening.so_far(len(self.people))
        self.report.note(
            "first catching up of a real client",
            received=statistics.median(p.received for p in self.people),
            memory_kib=(resident_kib(_own_pid()) - before) / len(self.people),
            **first,
        )
        self.report.note("profiles", count=len(self.people), **used.so_far())

    def live(self, people: list[Person]) -> None:
        """Lets clients live as programs do."""

        async def one(person: Person) -> None:
            async for _ in person.client.changes(poll=3600):
                pass

        self._living += [asyncio.create_task(one(person)) for person in people]

    async def rest(self) -> None:
        """Ends what lives."""
        for task in self._living:
            task.cancel()
        await asyncio.gather(*self._living, return_exceptions=True)
        self._living.clear()

    async def gather(self, members: int, connections: int) -> None:
        """Brings the played members."""
        server = self.place.server
        self.crowd = Crowd(members, connections)
        before, used = resident_kib(server.process.pid), Used(server)
        await self.crowd.connect(server.port)
        connected = resident_kib(server.process.pid)
        seconds = await self.crowd.follow(self.target())
        after = resident_kib(server.process.pid)
        self.report.note(
            "played members come",
            members=members,
            connections=connections,
            first_frames_s=seconds,
            kib_a_connection=(connected - before) / connections,
            kib_a_subscription=(after - connected) / members,
            **used.so_far(),
        )

    def target(self) -> api.LogTarget:
        """The present epoch, as the first real client knows it."""
        return _conversation_of(self.people[0]).log_target()

    async def message(self, rounds: int) -> None:
        """One real client writes, all others and the crowd have it."""
        delays, last, frames = [], [], 0
        used = Used(self.place.server)
        for number in range(rounds):
            text = f"message {number} in epoch {self.epoch}"
            before = 0 if self.crowd is None else self.crowd.frames
            started = time.perf_counter()
            await self.people[0].client.groups()[0].send(text)
            await _until(lambda text=text: all(_has(p, text) for p in self.people[1:]))  # type: ignore[misc]
            delays.append(time.perf_counter() - started)
            if self.crowd is not None:
                await self.crowd.until(before + self.crowd.members)
                last.append(self.crowd.last - started)
                frames = self.crowd.frames - before
        self.report.note(
            "a message reaches all",
            real_clients_s=statistics.median(delays),
            last_of_the_crowd_s=statistics.median(last) if last else 0.0,
            frames=frames,
            **used.so_far(rounds),
        )

    async def commit(self, rounds: int) -> None:
        """A real client renews its keys; all others adopt it, and the crowd follows to the next epoch."""
        made, taken, follow, sent, received = [], [], [], [], []
        used = Used(self.place.server)
        for number in range(rounds):
            person = self.people[number % len(self.people)]
            before, got = person.sent, [p.received for p in self.people]
            epoch, started = self.epoch_of(person), time.perf_counter()
            await person.client.groups()[0].renew_keys()
            made.append(time.perf_counter() - started)
            sent.append(person.sent - before)
            if not self._living:
                for other in self.people:
                    await other.client.sync()
            await _until(lambda epoch=epoch: all(self.epoch_of(p) > epoch for p in self.people))  # type: ignore[misc]
            taken.append(time.perf_counter() - started)
            received += [
                p.received - old for p, old in zip(self.people, got, strict=True) if p is not person
            ]
            if self.crowd is not None:
                follow.append(await self.crowd.follow(self.target()))
        self.report.note(
            "a Commit reaches all" if self._living else "a Commit, clients poll",
            made_s=statistics.median(made),
            all_real_adopted_s=statistics.median(taken),
            crowd_in_next_epoch_s=statistics.median(follow) if follow else 0.0,
            bytes_sent=statistics.median(sent),
            bytes_received_each=statistics.median(received),
            **used.so_far(rounds),
        )

    def epoch_of(self, person: Person) -> int:
        """The number of the epoch that a client is in."""
        return person.client.groups()[0].epoch

    async def away(self, count: int) -> None:
        """One client catches up over many epochs."""
        person, others = self.people[-1], self.people[:-1]
        for number in range(count):
            await others[number % min(len(others), 20)].client.groups()[0].renew_keys()
        used, before = Used(self.place.server), (person.received, person.sent)
        await person.client.sync()
        assert self.epoch_of(person) == max(self.epoch_of(p) for p in self.people)
        self.report.note(
            f"back after {count} epochs",
            received=person.received - before[0],
            sent=person.sent - before[1],
            **used.so_far(),
        )

    async def join(self) -> None:
        """A newcomer is added, and downloads the group's state in chunks."""
        newcomer = await self.place.newcomer(f"newcomer{self.made.shape.n}")
        adder = self.people[0]
        used, before = Used(self.place.server), adder.sent
        await adder.client.groups()[0].add(newcomer.client.user)
        await adder.client.sync()
        self.report.note("adding one", sent=adder.sent - before, **used.so_far())
        used, before = Used(self.place.server), newcomer.received
        while not [g for g in newcomer.client.groups() if g.status == "active"]:
            await newcomer.client.sync()
        for person in self.people:
            await person.client.sync()
        theirs = newcomer.client.groups()[0].epoch_authenticator
        assert theirs == adder.client.groups()[0].epoch_authenticator
        self.report.note(
            "joining by chunks",
            state_bytes=self.made.chunk_bytes,
            received=newcomer.received - before,
            **used.so_far(),
        )


def _own_pid() -> int:
    return os.getpid()


def _conversation_of(person: Person) -> Conversation:
    (conversation,) = person.client._conversations.values()  # noqa: SLF001 - what is public says too little
    return conversation


def _has(person: Person, text: str) -> bool:
    return any(message.text == text for message in person.client.groups()[0].history(3))


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


async def warm(place: Place, report: Report, members: int, real: int, connections: int) -> None:
    """All that happens in a group that has lived for a while."""
    used = Used(place.server)
    enrolled = [await place.enrolled(f"person{n}") for n in range(real)]
    report.note("enrolling", devices=real, **used.so_far())
    used = Used(place.server)
    made = await found(place, "warm", "warm", members, enrolled)
    report.note(
        "making the group and uploading its state",
        members=members,
        state_bytes=made.chunk_bytes,
        **used.so_far(),
    )
    scale = Scale(place, made, report)
    await scale.open_real()
    await scale.commit(min(5, real))
    await scale.join()
    scale.live(scale.people)
    await asyncio.sleep(3)
    await scale.gather(members - real, connections)
    await scale.message(5)
    await scale.commit(3)
    await scale.rest()
    assert scale.crowd is not None
    scale.crowd.close()
    # Last, since the others are then away as well, but for those who commit.
    await scale.away(AWAY)


async def blank(place: Place, report: Report, members: int) -> None:
    """The first Commit by another in a tree that is blank after everybody was added at once."""
    enrolled = [await place.enrolled(f"early{n}") for n in range(4)]
    made = await found(place, "blank", "blank", members, enrolled)
    scale = Scale(place, made, Report())
    await scale.open_real()
    committer, readers = scale.people[1], [scale.people[0], *scale.people[2:]]
    used, before = Used(place.server), committer.sent
    await committer.client.groups()[0].renew_keys()
    report.note("the Commit of a blank tree", sent=committer.sent - before, **used.so_far())
    for number, reader in enumerate(readers):
        used, before = Used(place.server), reader.received
        await reader.client.sync()
        report.note(
            f"reading it, reader {number + 1}", received=reader.received - before, **used.so_far()
        )


async def run(folder: Path, members: int, real: int, connections: int) -> dict[str, Any]:
    """All of it."""
    report = Report()
    authority = CertificateAuthority.create(REALM, now=int(time.time()))
    anchor = folder / "anchor.der"
    anchor.write_bytes(authority.certificate)
    with running(folder, "--anchor", str(anchor)) as server:
        place = Place(folder, server, authority)
        async with place.open:
            await warm(place, report, members, real, connections)
        place.open = contextlib.AsyncExitStack()
        async with place.open:
            await blank(place, report, members)
        report.note(
            "the service in the end",
            resident_kib=resident_kib(server.process.pid),
            logs_mib=_size(folder / "logs.db") / 2**20,
            directory_mib=_size(folder / "directory.db") / 2**20,
        )
        await place.delivery.close()
    return report.figures


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.parent.glob(path.name + "*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--real", type=int, default=200)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=Path("build/bench-scale.json"))
    a = parser.parse_args()
    allow_many_files()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(run(Path(folder), a.members, a.real, a.connections))
    a.json.parent.mkdir(exist_ok=True)
    a.json.write_text(json.dumps({"members": a.members, "real": a.real, **figures}, indent=1))


if __name__ == "__main__":
    main()
