"""Nothing in the logs' database can be joined with what the other databases and the log files hold.

Both services run as a real process; users enrol, publish, claim, make a group of the real core, talk, post requests,
renew and revoke. Then everything that was stored and logged is searched, and so are copies in which a leak was planted.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coterie.identity.issuer import X509Issuer
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, suite_of
from coterie.mls.extension import Extension, capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Config, Group
from coterie.mls.key_package import KeyPackage, KeyPackageBundle, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite, ExtensionType
from coterie.transport import api
from coterie.transport.authentication import AuthenticationClient
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from tests.delivery_model import MONTH, V1, ModelEpoch
from tests.installation import CONFIG, Installation
from tests.leaks import Holding, find_fine_times, find_shared_bytes

REALM = "example.org"
SUITE = suite_of(1)
USERS = ("alice", "bob", "carol", "dave", "erin")


class Key:
    """The device's key as the Authentication Service's client wants it."""

    def __init__(self) -> None:
        self.mls: SignaturePrivateKey = SUITE.generate_signature_key(os.urandom)

    @property
    def signature_key(self) -> bytes:
        return self.mls.public

    def sign(self, content: bytes) -> bytes:
        return bytes(self.mls.key.sign(content))


@dataclass
class Device:
    """A user's device: key, credential, inbox, key packages, and its groups with their logs."""

    name: str
    key: Key = field(default_factory=Key)
    inbox_id: bytes = field(default_factory=lambda: os.urandom(32))
    inbox_token: bytes = field(default_factory=lambda: os.urandom(32))
    bundles: dict[bytes, KeyPackageBundle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inbox_key = SUITE.generate_hpke_key(os.urandom)

    @property
    def user(self) -> bytes:
        return f"{self.name}@{REALM}".encode()

    def package(self) -> api.KeyPackageMessage:
        now = int(time.time())
        info = api.InboxInfo(self.inbox_id, self.inbox_key.public)
        bundle = create_key_package(
            SUITE,
            self.key.mls,
            self.credential,
            capabilities(cipher_suites=(1,), extensions=(api.INBOX_EXTENSION,)),
            Lifetime(now - 3600, now + MONTH),
            rng=os.urandom,
            extensions=(Extension(ExtensionType(api.INBOX_EXTENSION), info.encode()),),
        )
        self.bundles[bundle.key_package.reference()] = bundle
        return api.KeyPackageMessage(MLSMessage.of(bundle.key_package).encode())

    async def enrol(self, town: Town) -> None:
        code = town.here.ok("user", "add", self.name).split()[3]
        issued = await town.authentication.enrol(self.key, self.name, code)
        self.credential = Credential.x509(tuple(c.cert_data for c in issued.chain))
        await town.delivery.open_inbox(api.OpenInbox(self.inbox_id, api.sha256(self.inbox_token)))
        packages = tuple(self.package() for _ in range(4))
        publish = api.Publish(
            V1, self.user, self.inbox_id, self.inbox_token, packages, (self.package(),)
        )
        await town.delivery.publish(publish)


@dataclass
class Town:
    """The running services and everybody who uses them."""

    here: Installation
    authentication: AuthenticationClient
    delivery: DeliveryClient
    issuer: X509Issuer
    devices: dict[str, Device] = field(default_factory=dict)

    def config(self) -> Config:
        return Config(self.issuer)

    async def claim(self, name: str) -> tuple[KeyPackage, bytes]:
        claim = api.Claim(V1, self.devices[name].user, (CipherSuite(1),))
        (claimed,) = (await self.delivery.claim(claim)).packages
        package = MLSMessage.decode(claimed.key_package).body
        assert isinstance(package, KeyPackage)
        package.validate(SUITE, self.issuer, now=int(time.time()))
        return package, claimed.ticket


class Room:
    """A group of the real core with its log, as its creator sees it."""

    def __init__(self, town: Town, founder: Device) -> None:
        self.town = town
        self.log_id = os.urandom(32)
        now = int(time.time())
        self.group = Group.create(
            os.urandom(32),
            SUITE,
            founder.key.mls,
            founder.credential,
            capabilities(cipher_suites=(1,), extensions=(api.INBOX_EXTENSION,)),
            town.config(),
            lifetime=Lifetime(now - 3600, now + MONTH),
        )
        self.epoch = self._epoch(api.ZERO32)

    def _epoch(self, parent: bytes) -> ModelEpoch:
        label = api.EXPORT_APPEND_SEED.decode()
        return ModelEpoch(
            self.log_id, parent, bytes(self.group.export_secret(label, self.log_id, 32))
        )

    async def open(self) -> None:
        create = api.CreateLog(V1, self.log_id, self.epoch.access, MONTH)
        signature = self.epoch.key.sign(create.to_be_signed())
        await self.town.delivery.create_log(api.CreateLogRequest(create, signature))

    def seal(self, content: bytes) -> bytes:
        key = bytes(self.group.export_secret("coterie envelope", os.urandom(32), 32))
        return AESGCM(key).encrypt(bytes(12), content.ljust(1024, b"\0"), None)

    async def say(self, text: bytes) -> None:
        message = self.group.encrypt(text).encode()
        await self.town.delivery.append(self.epoch.message(self.seal(message), os.urandom(32)))

    async def commit(self, add: str | None = None, remove: int | None = None) -> None:
        """Adds or removes a member: a bundle with chunks of the tree, then the Welcome into the inbox."""
        proposals: list[Proposal] = []
        ticket = b""
        if add is not None:
            package, ticket = await self.town.claim(add)
            proposals.append(Proposal.of(Add(package)))
        if remove is not None:
            proposals.append(Proposal.of(Remove(LeafIndex(remove))))
        pending = self.group.commit(
            proposals, now=int(time.time()), options=CommitOptions(pending=False)
        )
        sealed = self.seal(pending.message.encode())
        tree = pending.group_info.encode() if pending.group_info is not None else os.urandom(2048)
        chunks = tuple(api.Chunk(self.seal(tree[i : i + 1000])) for i in range(0, len(tree), 1000))
        last = self.epoch
        self.group.adopt(pending)
        self.epoch = self._epoch(last.name)
        bundle = last.bundle(self.epoch, sealed=sealed, chunks=chunks, id=os.urandom(32))
        await self.town.delivery.append(bundle)
        if add is not None and pending.welcome is not None:
            await self._welcome(add, package, ticket, pending.welcome)

    async def _welcome(
        self, name: str, package: KeyPackage, ticket: bytes, welcome: MLSMessage
    ) -> None:
        device = self.town.devices[name]
        joined = Group.join(welcome, device.bundles[package.reference()], self.town.config())
        assert joined.epoch_authenticator == self.group.epoch_authenticator
        inside = self.log_id + self.epoch.name + self.epoch.read_token + welcome.encode()
        info = api.INBOX_INFO + package.reference()
        kem_output, ciphertext = SUITE.hpke.seal(
            device.inbox_key.public, info, b"", inside.ljust(8192 - 16, b"\0"), os.urandom
        )
        envelope = api.PostEnvelope(device.inbox_id, ticket, kem_output, ciphertext)
        await self.town.delivery.post_envelope(envelope)

    async def knock(self, device: Device) -> None:
        """A request in the box, as of somebody who has a link."""
        sealed = api.SealedRequest(
            os.urandom(32), self.seal(device.package().encode()[:900]).ljust(4096, b"\1")
        )
        request = self.epoch.request()
        await self.town.delivery.post_request(request.replace(request=sealed))


async def live(here: Installation, url: str) -> None:
    """Lively use: two groups, five users, every kind of request that leaves something behind."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient())
        delivery = DeliveryClient(HTTPCarrier(url))
        stack.push_async_callback(delivery.close)
        authentication = AuthenticationClient(
            http, f"{url}/authentication", REALM, clock=lambda: int(time.time())
        )
        anchors = [a.cert_data for a in (await authentication.realm_info()).anchors]
        town = Town(here, authentication, delivery, X509Issuer(anchors))
        for name in USERS:
            town.devices[name] = Device(name)
            await town.devices[name].enrol(town)
        rooms = [Room(town, town.devices["alice"]), Room(town, town.devices["bob"])]
        for room, others in zip(rooms, (USERS[1:], USERS[2:]), strict=True):
            await room.open()
            for name in others:
                await room.commit(add=name)
                await room.say(f"welcome, {name}@{REALM}".encode())
            await room.knock(town.devices["erin"])
            await room.commit(remove=1)
            for i in range(5):
                await room.say(b"message %d" % i)
            await room.town.delivery.read(room.epoch.read())
        await _administer(town)


async def _administer(town: Town) -> None:
    carol, dave = town.devices["carol"], town.devices["dave"]
    await town.authentication.renew(carol.key, Key())
    await town.authentication.link(dave.key)
    await town.authentication.devices(dave.key)
    town.here.ok("user", "revoke", "erin")
    town.here.ok("user", "delete", "erin", "--yes")
    read = api.ReadInbox(dave.inbox_id, dave.inbox_token)
    got = await town.delivery.read_inbox(read)
    assert got.items
    await town.delivery.ack_inbox(api.AckInbox(dave.inbox_id, dave.inbox_token, 1))
    await town.authentication.revocation_list()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory and log of services that were used, stopped."""
    text = (
        'log_level = "debug"\n'
        + CONFIG
        + "[delivery.rates]\nbundles = { burst = 99, interval = 0.1 }\n"
    )
    here = Installation(tmp_path_factory.mktemp("used"), text)
    with here.serving() as (url, _):
        asyncio.run(live(here, url))
    return here.home


def holdings(home: Path) -> tuple[Holding, list[Holding]]:
    """The logs' database, and everything else."""
    logs = Holding.of_database(home / "data" / "delivery" / "logs.db")
    others = [
        Holding.of_database(home / "data" / "delivery" / "directory.db"),
        Holding.of_database(home / "data" / "authentication" / "authentication.db"),
        Holding.of_log(home / "log"),
    ]
    return logs, others


def test_the_services_were_used_so_there_is_something_to_find(used: Path) -> None:
    logs, (directory, authentication, log) = holdings(used)
    filled = {table for table, _, _ in logs.values}
    assert filled >= {"log", "epoch", "entry", "chunk", "request"}
    assert {t for t, _, _ in directory.values} >= {"inbox", "ticket", "envelope", "package"}
    assert {t for t, _, _ in authentication.values} >= {"users", "devices", "certificates", "codes"}
    assert b"logs/append" in log.raw
    assert b"enrol" in log.raw
    assert len(logs.values) > 200


def test_no_bytes_of_the_logs_nor_their_hash_hex_or_base64_stand_elsewhere(used: Path) -> None:
    logs, others = holdings(used)
    assert find_shared_bytes(logs, others) == []


def test_no_stored_time_is_finer_than_an_hour(used: Path) -> None:
    logs, others = holdings(used)
    assert find_fine_times([logs, *others]) == []


def _log_id(home: Path) -> bytes:
    with closing(sqlite3.connect(home / "data" / "delivery" / "logs.db")) as database:
        found: bytes = database.execute("SELECT log_id FROM log").fetchone()[0]
    return found


def _execute(home: Path, database: str, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(home / "data" / database)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def inbox_with_a_part_of_a_log_id(home: Path) -> None:
    planted = os.urandom(10) + _log_id(home)[5:13] + os.urandom(14)
    where = "WHERE key = (SELECT min(key) FROM inbox)"
    _execute(home, "delivery/directory.db", f"UPDATE inbox SET token_hash = ? {where}", planted)


def user_named_by_the_hash_of_a_log_id(home: Path) -> None:
    name = "u" + hashlib.sha256(_log_id(home)).hexdigest()[:40]
    _execute(home, "authentication/authentication.db", "INSERT INTO users (name) VALUES (?)", name)


def log_line_with_a_log_id_in_base64(home: Path) -> None:
    with (home / "log").open("a") as log:
        encoded = base64.urlsafe_b64encode(_log_id(home)[3:17]).decode()
        log.write(f'{{"event": "append", "to": "x{encoded}"}}\n')


def log_line_with_a_log_id_in_hexadecimal(home: Path) -> None:
    with (home / "log").open("a") as log:
        log.write(f'{{"event": "append", "to": "{_log_id(home)[:8].hex()}"}}\n')


def entry_id_that_is_the_hash_of_an_inbox(home: Path) -> None:
    with closing(sqlite3.connect(home / "data" / "delivery" / "directory.db")) as database:
        (inbox_id,) = database.execute("SELECT inbox_id FROM inbox").fetchone()
    where = "WHERE key = (SELECT min(key) FROM entry)"
    planted = hashlib.sha256(inbox_id).digest()
    _execute(home, "delivery/logs.db", f"UPDATE entry SET id = ? {where}", planted)


@pytest.mark.parametrize(
    "plant",
    [
        inbox_with_a_part_of_a_log_id,
        user_named_by_the_hash_of_a_log_id,
        log_line_with_a_log_id_in_base64,
        log_line_with_a_log_id_in_hexadecimal,
        entry_id_that_is_the_hash_of_an_inbox,
    ],
)
def test_a_planted_leak_is_found(used: Path, tmp_path: Path, plant: Callable[[Path], None]) -> None:
    home = tmp_path / "copy"
    shutil.copytree(used, home)
    plant(home)
    assert find_shared_bytes(*holdings(home))


@pytest.mark.parametrize("unit", [1, 1000, 1_000_000])
def test_a_planted_exact_time_is_found(used: Path, tmp_path: Path, unit: int) -> None:
    home = tmp_path / "copy"
    shutil.copytree(used, home)
    exact = 1_800_000_001 * unit
    where = "WHERE key = (SELECT min(key) FROM inbox)"
    _execute(home, "delivery/directory.db", f"UPDATE inbox SET next_number = ? {where}", exact)
    logs, others = holdings(home)
    assert find_fine_times([logs, *others]) == ["directory.db has exact times in inbox.next_number"]
