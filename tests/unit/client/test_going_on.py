"""A device whose own Commit was the last that was heard of an epoch, which the service has dropped since (D-BOX-15)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from coterie.client import Client
from coterie.errors import ServiceError
from coterie.transport import api
from tests.client_world import World, world

DAY = 24 * 3600


def _lost() -> api.Appended:
    raise ServiceError("the answer was lost", retry_after=0)


async def _unanswered(w: World) -> Client:
    """Alice, alone: her Commit was accepted, the answer was lost, and then the epoch was dropped by age."""
    alice = await w.device("alice")
    group = await alice.create_group("Notes", retention=DAY)
    await alice.sync()
    w.weather.tamper["logs/append"] = lambda _request, _answer: _lost()
    with suppress(ServiceError):
        await group.renew_keys()
    del w.weather.tamper["logs/append"]
    w.now += 3 * DAY
    await w.delivery.sweep()
    return alice


def test_who_ended_an_epoch_that_was_dropped_goes_on_in_the_next(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await _unanswered(w)
            before = alice.groups()[0].epoch
            await alice.sync()
            (group,) = alice.groups()
            assert (group.status, group.epoch) == ("active", before + 1)
            assert group.waiting() == 0
            bob = await w.device("bob")
            await group.add("bob")
            await w.settle()
            assert bob.groups()[0].epoch_authenticator == group.epoch_authenticator

    asyncio.run(story())


def test_an_opening_receipt_for_another_entry_moves_nobody_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await _unanswered(w)
            before = alice.groups()[0].epoch
            wrong: list[api.ReadResult] = []

            def other(_request: api.Read, answer: api.ReadResult) -> api.ReadResult:
                wrong.append(answer)
                return answer.replace(head=answer.head.replace(entry_hash=bytes(32)))

            w.weather.tamper["logs/read"] = other
            with suppress(ServiceError):
                await alice.sync()
            assert wrong
            assert (alice.groups()[0].status, alice.groups()[0].epoch) == ("active", before)
            del w.weather.tamper["logs/read"]
            await alice.sync()
            assert alice.groups()[0].epoch == before + 1

    asyncio.run(story())
