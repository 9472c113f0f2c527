"""One client in several tasks: what one of them does is told in another, and who is cancelled loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from coterie.client import Client
from coterie.client.events import Event, MessageSent, Problem
from coterie.errors import ServiceError, StateError
from coterie.mls.tls import Struct
from coterie.storage import MessageState
from coterie.transport.memory import MemoryConnection
from coterie.transport.refusal import Unreachable
from tests.client_world import WorldCarrier, texts, world

NEVER = 1_000_000.0
T = TypeVar("T", bound=Struct)
SOON = 20


async def _collect(client: Client, found: list[Event]) -> None:
    async for event in client.events(poll=NEVER):
        found.append(event)  # noqa: PERF401 - it is looked at while it grows


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


async def _no_connection(_carrier: WorldCarrier) -> MemoryConnection:
    raise ServiceError("no WebSocket gets through here")


@pytest.mark.parametrize("connected", [True, False])
def test_what_comes_of_a_call_is_told_at_once_in_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Friends")
            found: list[Event] = []
            task = asyncio.create_task(_collect(alice, found))
            await asyncio.sleep(0.1)
            # Nothing of this is pushed: it is refused before anything is sent.
            await group.add("nobody")
            await _until(lambda: any(isinstance(event, Problem) for event in found))
            task.cancel()

    if not connected:
        monkeypatch.setattr(WorldCarrier, "connect", _no_connection)
    asyncio.run(story())


def test_what_comes_of_a_call_is_told_while_the_service_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Friends")
            found: list[Event] = []
            monkeypatch.setattr(alice, "sync", _away)
            task = asyncio.create_task(_collect(alice, found))
            await asyncio.sleep(0.1)
            await group.send("by another task")
            await _until(lambda: any(isinstance(event, MessageSent) for event in found))
            task.cancel()

    async def _away() -> None:
        raise Unreachable("away", retry_after=NEVER)

    asyncio.run(story())


async def _cut(call: Coroutine[Any, Any, object]) -> None:
    """Begins a call, and cancels it while it waits for the service."""
    task = asyncio.create_task(call)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("connected", [True, False])
def test_what_a_cancelled_call_wanted_is_done_soon_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    opened = asyncio.Event()
    opened.set()
    plain = WorldCarrier.call

    async def call(carrier: WorldCarrier, path: str, request: Struct, answer: type[T]) -> T:
        await opened.wait()
        return await plain(carrier, path, request, answer)

    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await w.device("alice"), await w.device("bob")
            group = await alice.create_group("Friends")
            await group.add("bob")
            await w.settle()
            task = asyncio.create_task(_collect(alice, []))
            await asyncio.sleep(0.1)
            opened.clear()
            await _cut(group.send("cut off"))
            await _cut(alice.create_group("Others"))
            assert (group.waiting(), alice.group("Others").status) == (1, "creating")
            opened.set()
            await _until(lambda: group.waiting() == 0 and alice.group("Others").status == "active")
            task.cancel()
            await bob.sync()
            assert texts(bob) == ["cut off"]

    monkeypatch.setattr(WorldCarrier, "call", call)
    if not connected:
        monkeypatch.setattr(WorldCarrier, "connect", _no_connection)
    asyncio.run(story())


def test_a_client_that_is_left_ends_what_tasks_are_at_and_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            await w.device("alice")
            await w.open.aclose()
            found: list[Event] = []
            async with w.profile("alice") as client:
                group = await client.create_group("Notes")
                tasks = [
                    asyncio.create_task(_collect(client, found)),
                    asyncio.create_task(_for_ever(lambda: group.send("text"))),
                    asyncio.create_task(_for_ever(client.sync)),
                ]
                await asyncio.sleep(0.2)
            async with asyncio.timeout(SOON):
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(end) for end in ends] == [StateError] * 3
            for call in (client.sync, client.devices, client.link_code):
                with pytest.raises(StateError, match="closed: open it again"):
                    await call()
            async with w.profile("alice") as client:
                await client.sync()
                states = {m.state for m in client.groups()[0].history(1_000_000)}
                assert states == {MessageState.SENT}

    asyncio.run(story())


async def _for_ever(call: Callable[[], Awaitable[object]]) -> None:
    while True:
        await call()


def test_a_device_that_is_not_enrolled_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w, w.profile("alice") as client:
            calls: list[Callable[[], Awaitable[object]]] = [
                client.sync,
                client.devices,
                client.link_code,
                lambda: client.revoke_device("id"),
                lambda: client.create_group("Friends"),
            ]
            for call in calls:
                with pytest.raises(StateError, match="not enrolled yet"):
                    await call()

    asyncio.run(story())
