"""A client is killed at each storage step on the way to another group, before and after it; then it is opened again.

Nothing is lost or shown twice, all end in one group, and nothing of the way is left. Four points of each way by
default, all of them with `COTERIE_CRASH_POINTS=all`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from coterie.client import Client
from coterie.client.vault import Step, Vault
from tests.client_world import World, texts, world
from tests.successions import group, group_of, jam, same, suite

ALL = os.environ.get("COTERIE_CRASH_POINTS") == "all"
POINTS = 60
"""Twice as many as the longest way has steps; that it has no more is a test."""
Story = Callable[[World, Client], Awaitable[None]]


class Killed(BaseException):
    """The process is gone."""


class Reaper:
    """Kills a device before or after one of its storage steps, counted from when it is armed."""

    def __init__(self, label: str, at: int) -> None:
        self.label = label
        self.at = at
        self.count = 0
        self.armed = False

    def moment(self, vault: Vault) -> None:
        """One of the moments."""
        if self.armed and vault.profile.path.name == self.label:
            self.count += 1
            if self.count - 1 == self.at:
                self.armed = False
                raise Killed


@contextmanager
def reaping(label: str, at: int) -> Iterator[Reaper]:
    """Kills the device `label` at a moment."""
    reaper, stepping = Reaper(label, at), Vault.step

    @contextmanager
    def step(self: Vault) -> Iterator[Step]:
        with stepping(self) as taken:
            yield taken
            reaper.moment(self)
        reaper.moment(self)

    Vault.step = step  # type: ignore[method-assign]
    try:
        yield reaper
    finally:
        Vault.step = stepping  # type: ignore[method-assign]


async def _move(w: World, client: Client) -> None:
    """One attempt at the whole way to another suite."""
    if not group(client).waiting() and suite(client) == 1 and group(client).status == "active":
        await group(client).reinitialise(cipher_suite=3)
    for _ in range(3):
        await client.sync()


async def _follow(w: World, client: Client) -> None:
    for _ in range(3):
        await client.sync()


async def _reform(w: World, client: Client) -> None:
    if group(client).status == "stuck":
        await group(client).reform(without=["mallory"])
    for _ in range(2):
        await client.sync()


async def _accept(w: World, client: Client) -> None:
    await client.sync()
    if group(client).invitations():
        await group(client).follow()
    await client.sync()


async def _again(w: World, label: str, story: Story) -> bool:
    """Does a story in a process of its own; False where that was killed."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(w.profile(label))
        try:
            await story(w, client)
        except Killed:
            return False
    return True


async def _close(w: World) -> None:
    """Ends every process; what is stored stays."""
    await w.open.aclose()
    w.clients.clear()


async def _killed_at(folder: Path, victim: str, at: int, story: str) -> int:
    with reaping(victim, at) as reaper:
        async with world(folder) as w:
            labels = ("alice", "bob")
            if story == "move":
                clients = await group_of(w, *labels)
                await group(clients[1]).send("before")
                await w.settle()
                ways = {"alice": _move, "bob": _follow}
            else:
                clients = await group_of(w, *labels, "mallory")
                await group(clients[1]).send("before")
                await w.settle()
                await jam(w, clients[2])
                ways = {"alice": _reform, "bob": _accept}
            await _close(w)
            reaper.armed = True
            for label in (*labels, *labels, *labels):
                while not await _again(w, label, ways[label]):
                    pass
            reaper.armed = False
            await _check(w, labels, story)
    return reaper.count


async def _check(w: World, labels: tuple[str, ...], story: str) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(w.profile(label)) for label in labels]
        w.clients.update(zip(labels, clients, strict=True))
        await group(clients[0]).send("after")
        await w.settle()
        assert same(*clients)
        for client in clients:
            assert texts(client) == ["before", "after"]
            assert group(client).status == "active"
            assert suite(client) == (3 if story == "move" else 1)
            view = client.vault.profile.view
            assert view.spaces("next/") == []
            assert client.vault.succession(group(client).id) is None
            assert client.vault.parked() == []
            assert client.vault.reforms(group(client).id) == []
            assert client.vault.invitations() == []
        w.clients.clear()


CHOSEN = range(POINTS) if ALL else (3, 9, 14, 21)


@pytest.mark.parametrize("at", CHOSEN)
@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("story", ["move", "reform"])
def test_a_client_killed_on_the_way_arrives(
    tmp_path: Path, story: str, victim: str, at: int
) -> None:
    asyncio.run(_killed_at(tmp_path, victim, at, story))


@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("story", ["move", "reform"])
def test_every_step_of_the_way_is_among_them(tmp_path: Path, story: str, victim: str) -> None:
    count = asyncio.run(_killed_at(tmp_path, victim, -1, story))
    assert 0 < count <= POINTS
