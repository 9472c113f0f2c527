"""Receipts of an epoch are kept, up to a bound, and heads inside entries are compared with all (D-REC-11)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client import Client
from coterie.client.content import Content
from coterie.client.trail import KEPT, Trail
from coterie.transport import api
from tests.client_world import World, world


def _receipt(number: int) -> api.Receipt:
    return api.Receipt(bytes(32), number, bytes(32), bytes(32), bytes(64))


def test_a_receipt_is_found_before_and_after_it_is_stored() -> None:
    trail, stored = Trail(), dict[bytes, bytes]()
    trail.add(_receipt(3))
    assert trail.at(3) == _receipt(3)
    assert trail.at(2) is None
    stored.update(trail.unsaved()[0])
    trail.saved(stored.get)
    assert trail.unsaved() == ({}, frozenset())
    assert trail.at(3) == _receipt(3)
    assert trail.at(2) is None


def test_the_oldest_receipts_are_pushed_out() -> None:
    trail, stored = Trail(), dict[bytes, bytes]()
    for number in range(1, KEPT + 100):
        trail.add(_receipt(number))
        puts, drops = trail.unsaved()
        for pushed_out in drops:
            stored.pop(pushed_out, None)
        stored.update(puts)
        trail.saved(stored.get)
    assert len(stored) == KEPT
    assert trail.at(99) is None
    assert trail.at(100) is not None


async def _relayed(w: World, number: int) -> Client:
    """Bob, to whom the service gives what Alice sent after another entry `number` than he knows."""
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    group = await alice.create_group("Friends")
    await group.add("bob")
    await w.settle()
    for text in ("one", "two", "three"):
        await group.send(text)
    await w.settle()
    line = alice._conversations[group.id].line
    mine = line.trail.at(number)
    assert mine is not None
    other = mine.replace(entry_hash=bytes(32))
    key = w.delivery.logs._receipt_key
    other = other.replace(signature=key.sign(other.to_be_signed()))
    line.state = line.state.replace(head=other)
    content = Content.text("from the other side", w.now)
    message = line.group.encrypt(content.encode())
    await alice.tools.delivery.append(line.message(api.ContentKind.APPLICATION, message))
    return bob


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_head_of_another_history_is_evidence_however_old_it_is(
    tmp_path: Path, number: int
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            bob = await _relayed(w, number)
            bob._conversations[bob.groups()[0].id]._line = None  # As after a restart.
            await bob.sync()
            assert bob.groups()[0].status == "stopped"

    asyncio.run(story())


def test_an_epoch_begins_without_the_receipts_of_the_one_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Notes")
            await group.send("one")
            conversation = alice._conversations[group.id]
            space = f"receipts/{group.id}"
            assert len(list(alice.vault.profile.view.scan(space))) == 1
            await group.renew_keys()
            assert not list(alice.vault.profile.view.scan(space))
            assert conversation.line.trail.at(1) is None

    asyncio.run(story())
