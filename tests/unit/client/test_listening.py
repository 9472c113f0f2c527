"""What the service pushes: heard at once, asked for no more, judged as what is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coterie.client import Client
from coterie.client.events import Problem
from coterie.client.mailbox import STOCK
from coterie.delivery.limits import LOCAL
from coterie.errors import ServiceError
from coterie.mls.types import CipherSuite
from coterie.transport import api
from coterie.transport.memory import MemoryConnection
from tests.client_world import World, WorldCarrier, texts, world

NEVER = 1_000_000.0
PATIENCE = 20


@contextlib.asynccontextmanager
async def listening(client: Client, *, poll: float = NEVER) -> AsyncIterator[list[bool]]:
    """Lets a client live as it does in a program; what `changes` told."""
    told: list[bool] = []

    async def live() -> None:
        async for well in client.changes(poll=poll):
            told.append(well)  # noqa: PERF401 - it is looked at while it grows

    task = asyncio.create_task(live())
    try:
        await until(lambda: bool(told))
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def pair(w: World) -> tuple[Client, Client]:
    alice, bob = await w.device("alice"), await w.device("bob")
    group = await alice.create_group("Friends")
    await group.add("bob")
    await w.settle()
    return alice, bob


async def subscribed(w: World, log: int = 1) -> None:
    """Until the service has so many subscriptions to logs."""
    await until(lambda: w.delivery.hub.subscriptions >= 1 + 2 * log)


def test_a_message_is_heard_and_not_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            async with listening(bob):
                await subscribed(w)
                asked = w.weather_of["bob"].paths
                asked.clear()
                await alice.group("Friends").send("one")
                await until(lambda: texts(bob) == ["one"])
                await alice.group("Friends").renew_keys()
                await alice.group("Friends").send("two")
                await until(lambda: texts(bob) == ["one", "two"])
                assert asked == []

    asyncio.run(run())


def test_a_listener_follows_the_group_from_epoch_to_epoch(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            async with listening(bob):
                await subscribed(w)
                for n in range(3):
                    await alice.group("Friends").renew_keys()
                    await alice.group("Friends").send(f"after {n}")
                await until(lambda: texts(bob) == ["after 0", "after 1", "after 2"])
                theirs = bob.group("Friends").epoch_authenticator
                assert theirs == alice.group("Friends").epoch_authenticator

    asyncio.run(run())


def test_an_invitation_is_heard(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await w.device("alice"), await w.device("bob")
            group = await alice.create_group("Friends")
            async with listening(bob):
                await until(lambda: w.delivery.hub.subscriptions == 1)
                await group.add("bob")
                await until(lambda: bool(bob.groups()))
                await group.send("hello")
                await until(lambda: texts(bob) == ["hello"])

    asyncio.run(run())


def test_a_request_to_come_back_is_heard(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            async with listening(alice):
                await subscribed(w)
                with bob.vault.step() as step:
                    step.set_status(bob.groups()[0].id, "stuck", "for the test")
                await bob.sync()
                await until(lambda: alice.group("Friends").epoch > 1)
                await until(lambda: alice.group("Friends").waiting() == 0)
                await bob.sync()
                assert bob.group("Friends").status == "active"

    asyncio.run(run())


def test_a_pushed_forgery_is_judged_as_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge: list[bool] = []
    honest = MemoryConnection.receive

    async def receive(connection: MemoryConnection) -> api.ServerFrame:
        frame = await honest(connection)
        if not forge or frame.entries is None or not frame.entries.result.entries:
            return frame
        forge.clear()
        (stored,) = frame.entries.result.entries
        assert stored.entry is not None
        false = stored.replace(entry=stored.entry.replace(sealed=b"junk"))
        result = frame.entries.result.replace(entries=(false,))
        return frame.replace(entries=frame.entries.replace(result=result))

    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            async with listening(bob) as told:
                await subscribed(w)
                forge.append(True)
                await alice.group("Friends").send("true")
                # The forgery is thrown away, and the connection with it; the poll after it reads the log.
                await until(lambda: texts(bob) == ["true"])
                assert not forge
                assert all(told)
                assert bob.group("Friends").status == "active"
                assert not [e for e in bob.pending_events() if isinstance(e, Problem)]

    monkeypatch.setattr(MemoryConnection, "receive", receive)
    asyncio.run(run())


def test_a_lost_connection_is_made_again_and_what_was_missed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[MemoryConnection] = []
    plain = WorldCarrier.connect

    async def connect(carrier: WorldCarrier) -> MemoryConnection:
        opened.append(await plain(carrier))
        return opened[-1]

    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            async with listening(bob):
                await subscribed(w)
                await alice.group("Friends").send("heard")
                await until(lambda: texts(bob) == ["heard"])
                for connection in opened:
                    await connection.close()
                await alice.group("Friends").send("missed")
                await until(lambda: texts(bob) == ["heard", "missed"])
                await until(lambda: len(opened) == 4)

    monkeypatch.setattr(WorldCarrier, "connect", connect)
    asyncio.run(run())


@pytest.mark.parametrize("cut_at", [1, 2, 3])
def test_who_is_cancelled_while_subscribing_subscribes_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    sent = 0
    plain = MemoryConnection.send

    async def send(connection: MemoryConnection, frame: api.ClientFrame) -> None:
        nonlocal sent
        sent += 1
        if sent == cut_at:
            await asyncio.sleep(NEVER)
        await plain(connection, frame)

    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            monkeypatch.setattr(MemoryConnection, "send", send)
            async with listening(bob):
                await until(lambda: sent == cut_at)
            assert sent == cut_at
            async with listening(bob):
                await subscribed(w)
                asked = w.weather_of["bob"].paths
                asked.clear()
                await alice.group("Friends").send("heard")
                await until(lambda: texts(bob) == ["heard"])
                assert asked == []
                # The inbox, the log and its boxes; each once.
                assert w.delivery.hub.subscriptions == 3

    asyncio.run(run())


def test_without_a_connection_the_client_polls_and_does_not_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[WorldCarrier] = []

    async def connect(carrier: WorldCarrier) -> MemoryConnection:
        tries.append(carrier)
        raise ServiceError("no WebSocket gets through here")

    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = await pair(w)
            async with listening(bob, poll=0.2):
                await alice.group("Friends").send("by polling")
                await until(lambda: texts(bob) == ["by polling"])
                asked = w.weather_of["bob"].paths
                asked.clear()
                await asyncio.sleep(1)
                # Five polls of a few requests each, not a loop that never waits.
                assert 3 <= len(asked) < 60
                assert tries

    monkeypatch.setattr(WorldCarrier, "connect", connect)
    asyncio.run(run())


def test_a_drained_stock_of_key_packages_is_filled_as_soon_as_it_is_heard(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            bob = await w.device("bob")
            claim = api.Claim(api.DeliveryVersion.COTERIE1, bob.user.encode(), (CipherSuite(1),))

            async def drain(count: int) -> None:
                for _ in range(count):
                    await w.delivery.handle("directory/claim", claim, LOCAL)

            async with listening(bob):
                await until(lambda: w.delivery.hub.subscriptions == 1)
                published = w.weather_of["bob"].paths.count("directory/publish")
                await drain(12)
                await until(
                    lambda: w.weather_of["bob"].paths.count("directory/publish") > published
                )
            # By polling, too, and the one of last resort is replaced when it was given away.
            await drain(30)
            await bob.sync()
            stock = (await bob.tools.inboxes.read_inbox(own_inbox(bob))).stock
            assert {(s.available, s.last_resort_used) for s in stock} == {(STOCK, 0)}

    asyncio.run(run())


def own_inbox(client: Client) -> api.ReadInbox:
    stored = client.identity.stored
    return api.ReadInbox(stored.inbox_id, bytes(stored.inbox_token), 0)
