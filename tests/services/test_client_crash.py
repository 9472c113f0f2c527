"""A client is killed at each storage step and each request of a story, before and after it; then it is opened again.

Nothing that was said is lost, nothing is shown twice, no key and nonce serve twice, and all end in one epoch. Twelve
points by default, all of them with `COTERIE_CRASH_POINTS=all` (`make crash-client`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from coterie.client import Client
from coterie.client.vault import Step, Vault
from coterie.errors import StorageError
from coterie.mls.crypto import Suite
from tests.client_world import World, WorldCarrier, texts, world

POINTS = 240
"""More than the story has; that it has no more is a test."""
CHOSEN = range(POINTS) if os.environ.get("COTERIE_CRASH_POINTS") == "all" else range(3, 200, 17)


class Killed(BaseException):
    """The process is gone."""


class Reaper:
    """Counts the moments at which a client can be killed, and kills it at one."""

    def __init__(self, at: int, end: type[BaseException] = Killed) -> None:
        self.at = at
        self.end = end
        self.count = 0
        self.armed = False
        self.seals: set[tuple[bytes, bytes]] = set()

    def moment(self) -> None:
        """One of the moments."""
        if not self.armed:
            return
        self.count += 1
        if self.count - 1 == self.at:
            self.armed = self.end is StorageError
            raise self.end("the moment has come")


@pytest.fixture
def reaper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reaper:
    made = Reaper(*getattr(request, "param", (-1,)))
    stepping, calling, sealing = Vault.step, WorldCarrier.call, Suite.aead_seal

    @contextmanager
    def step(self: Vault) -> Iterator[Step]:
        mine = self.profile.path.name == "alice"
        with stepping(self) as taken:
            yield taken
            if mine:
                made.moment()
        if mine and made.end is Killed:
            made.moment()

    async def call(self: WorldCarrier, path: str, sent: Any, answer: Any) -> Any:
        if made.armed and made.end is Killed:
            made.moment()
        result = await calling(self, path, sent, answer)
        if made.armed and made.end is Killed:
            made.moment()
        return result

    def seal(self: Suite, key: bytes, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
        pair = (bytes(key), bytes(nonce))
        assert pair not in made.seals, "a key and nonce served twice"
        made.seals.add(pair)
        return sealing(self, key, nonce, aad, plaintext)

    monkeypatch.setattr(Vault, "step", step)
    monkeypatch.setattr(WorldCarrier, "call", call)
    monkeypatch.setattr(Suite, "aead_seal", seal)
    return made


async def _story(alice: Client, stage: int) -> None:
    """What alice does; each stage can be done again, and then does what is missing."""
    group = alice.groups()[0]
    match stage:
        case 0 | 2 | 4 | 6:
            text = f"text {stage}"
            if text not in texts(alice):
                await group.send(text)
        case 1:
            await group.add("carol")
        case 3:
            await group.rename("Survivors")
        case 5:
            await group.renew_keys()
        case 7:
            await group.remove("carol")
    await alice.sync()


async def _play(w: World, reaper: Reaper) -> int:
    """The story with at most one death in it; returns how many moments it had."""
    bob = await w.device("bob")
    await w.device("carol")
    alice = await w.device("alice")
    await (await alice.create_group("Friends")).add("bob")
    await w.settle()
    own = AsyncExitStack()
    reaper.armed = True
    stage = 0
    while stage < 8:
        try:
            await _story(alice, stage)
            stage += 1
        except StorageError:
            continue
        except Killed:
            await own.aclose()
            alice.vault.profile.close()
            alice = await own.enter_async_context(w.profile("alice"))
            w.clients["alice"] = alice
    reaper.armed = False
    await w.settle(rounds=3)
    for client in (alice, bob):
        assert sorted(texts(client)) == [f"text {n}" for n in (0, 2, 4, 6)]
        assert client.groups()[0].name == "Survivors"
        assert len(client.groups()[0].members()) == 2
        assert client.groups()[0].waiting() == 0
    assert alice.groups()[0].epoch_authenticator == bob.groups()[0].epoch_authenticator
    await own.aclose()
    return reaper.count


@pytest.mark.parametrize("reaper", [(at,) for at in CHOSEN], indirect=True)
def test_a_client_that_is_killed_goes_on_as_if_nothing_had_been(
    reaper: Reaper, tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            await _play(w, reaper)

    asyncio.run(story())


@pytest.mark.parametrize("reaper", [(at, StorageError) for at in CHOSEN[::3]], indirect=True)
def test_a_full_disk_at_any_step_loses_nothing_either(reaper: Reaper, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            await _play(w, reaper)

    asyncio.run(story())


def test_the_story_has_many_moments_and_fewer_than_are_tried(
    reaper: Reaper, tmp_path: Path
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            moments = await _play(w, reaper)
            assert 100 < moments <= POINTS, moments

    asyncio.run(story())
