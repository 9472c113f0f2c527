"""Older epochs are read again, as somebody whom the service does not know, and forgotten in time (D-REC-12)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coterie.client import Client
from coterie.client.trail import PASSED, Passed
from coterie.errors import ServiceError
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.refusal import Refused
from tests.client_world import World, world

DAY = 24 * 3600


async def _alone(w: World) -> Client:
    """Alice, who has left two epochs behind."""
    alice = await w.device("alice")
    group = await alice.create_group("Notes", retention=10 * DAY)
    await group.renew_keys()
    await group.renew_keys()
    return alice


async def _days(w: World, alice: Client, days: int) -> None:
    for _ in range(days):
        w.now += DAY
        await alice.sync()


def _read_again(alice: Client) -> int:
    return alice.tools.counters.get("epochs read again", 0)


def test_about_once_a_day_an_older_epoch_is_read_over_a_fresh_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await _alone(w)
            connections: list[DeliveryClient] = []
            real = alice.tools.fresh

            def fresh() -> DeliveryClient:
                connections.append(real())
                return connections[-1]

            alice.tools.fresh = fresh
            await _days(w, alice, 8)
            assert 8 <= _read_again(alice) <= 24
            assert len(connections) == _read_again(alice)
            assert alice.groups()[0].status == "active"

    asyncio.run(story())


def _with(receipt: api.Receipt, key: Any) -> api.Receipt:
    other = receipt.replace(entry_hash=bytes(32))
    return other if key is None else other.replace(signature=key.sign(other.to_be_signed()))


@pytest.mark.parametrize("gone", [False, True], ids=["kept", "dropped"])
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_another_receipt_is_evidence_if_the_service_signed_it(
    tmp_path: Path, *, signed: bool, gone: bool
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await _alone(w)
            present = alice._conversations[alice.groups()[0].id].line.state.epoch
            key = w.delivery.logs._receipt_key if signed else None

            def two_histories(request: api.Read, result: api.ReadResult) -> api.ReadResult:
                if request.epoch == present:
                    return result
                first = result.entries[0]
                other = _with(first.receipt, key)
                if gone:
                    return result.replace(gone=other, entries=())
                return result.replace(entries=(first.replace(receipt=other),))

            await alice.sync()
            w.weather.tamper["logs/read"] = two_histories
            await _days(w, alice, 5)
            assert alice.groups()[0].status == ("stopped" if signed else "active")

    asyncio.run(story())


@pytest.mark.parametrize(
    "error",
    [ServiceError("away", retry_after=1), Refused(api.ErrorCode.GONE, "dropped", rule="D-REC-8")],
    ids=["away", "gone"],
)
def test_an_epoch_that_cannot_be_read_is_no_evidence(tmp_path: Path, error: Exception) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await _alone(w)
            present = alice._conversations[alice.groups()[0].id].line.state.epoch

            def absent(request: api.Read, result: api.ReadResult) -> api.ReadResult:
                if request.epoch == present:
                    return result
                raise error

            await alice.sync()
            w.weather.tamper["logs/read"] = absent
            await _days(w, alice, 4)
            assert alice.groups()[0].status == "active"

    asyncio.run(story())


def test_what_the_service_has_dropped_is_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await _alone(w)
            group = alice.groups()[0].id
            line = alice._conversations[group].line
            assert len(alice.vault.passed(group)) == 2
            assert len(alice.vault.boxes(group)) == 2
            with alice.vault.step() as step:
                step.set_next_renewal(group, w.now + 1000 * DAY)
            await _days(w, alice, 14)
            assert alice.vault.passed(group) == []
            assert list(alice.vault.boxes(group)) == [line.state.epoch]

    asyncio.run(story())


def test_who_is_out_keeps_no_seed_of_a_box(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await w.device("alice"), await w.device("bob")
            group = await alice.create_group("Notes")
            await group.add("bob@world.example")
            await bob.sync()
            await group.renew_keys()
            await bob.sync()
            assert len(bob.vault.boxes(group.id)) == 2
            await group.remove("bob@world.example")
            await bob.sync()
            assert bob.groups()[0].status == "left"
            assert bob.vault.boxes(group.id) == {}
            assert bob.vault.box_cursor(group.id) == bob.vault.box_look(group.id) == 0

    asyncio.run(story())


def test_the_message_keys_of_an_epoch_go_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await w.device("alice"), await w.device("bob")
            group = await alice.create_group("Notes")
            await group.add("bob@world.example")
            await bob.sync()
            await bob.groups()[0].send("hello")
            await group.renew_keys()
            await bob.sync()
            for client in (alice, bob):
                reader = client.vault.profile.reader(f"group/{group.id}")
                epochs = {
                    key.split(b"/")[1]
                    for key in reader.entries()
                    if key[:2] in {b"s/", b"e/", b"o/"}
                }
                assert epochs == {b"%d" % group.epoch}

    asyncio.run(story())


def test_no_more_than_64_epochs_are_remembered(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            receipt = api.Receipt(bytes(32), 1, bytes(32), bytes(32), bytes(64))
            with alice.vault.step() as step:
                for epoch in range(PASSED + 10):
                    step.add_passed("group", epoch, Passed(bytes(32), receipt, epoch))
            kept = [passed.left_at for passed in alice.vault.passed("group")]
            assert kept == list(range(10, 74))

    asyncio.run(story())
