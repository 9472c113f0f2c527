"""A page of the log that was verified ahead is judged as one entry after another is (D-REC-9, D-REC-11)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.client import Client, receipts
from coterie.client.ahead import Ahead, signed
from coterie.client.content import Content
from coterie.client.cores import on_all_cores
from coterie.client.line import Line
from coterie.client.outcomes import Evidence
from coterie.errors import VerificationError
from coterie.mls.crypto import Suite
from coterie.transport import api
from tests.client_world import World, world

COUNT = 70


def through_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
    """As on a machine with two cores."""
    return on_all_cores(function, items, threads=2)


def line_of(client: Client) -> Line:
    return client._conversations[client.groups()[0].id].line


def entries(w: World, alice: Line, bob: Line) -> list[api.StoredEntry]:
    """A page as the service gives it, of messages of Alice's."""
    found, head = [], bob.state.head
    for number in range(COUNT):
        message = alice.group.encrypt(Content.text(f"{number}", 1).encode())
        entry = alice.message(api.ContentKind.APPLICATION, message).entry
        found.append(after(w, head, entry))
        head = found[-1].receipt
    return found


def after(w: World, head: api.Receipt, entry: api.Entry) -> api.StoredEntry:
    receipt = api.Receipt(head.epoch, head.number + 1, head.hash(), entry.hash(), bytes(64))
    signature = w.delivery.logs._receipt_key.sign(receipt.to_be_signed())
    return api.StoredEntry(receipt.replace(signature=signature), entry, len(entry.encode()))


def judged(line: Line, page: list[api.StoredEntry], now: int) -> list[object]:
    """Every outcome up to what is not the log, and the place after it."""
    outcomes: list[object] = []
    for stored in page:
        try:
            outcomes.append(line.take(stored, now=now))
        except (VerificationError, Evidence) as error:
            outcomes.append((type(error), error.rule, str(error)))
            break
    return [*outcomes, line.state]


def spoiled(w: World, page: list[api.StoredEntry], what: str) -> list[api.StoredEntry]:
    """The page with something wrong at an entry in its middle."""
    at, page = COUNT // 2, list(page)
    stored, entry = page[at], page[at].entry
    assert entry is not None
    if what == "unsigned":
        page[at] = stored.replace(receipt=stored.receipt.replace(signature=bytes(64)))
    elif what == "another entry":
        page[at] = stored.replace(entry=page[at - 1].entry)
    elif what == "a gap":
        del page[at]
    elif what in {"envelope", "twice"}:
        # In a chain of its own, since the service signs what it is given.
        made = entry.replace(sealed=bytes(len(entry.sealed)))
        page[at] = after(
            w, page[at - 1].receipt, made if what == "envelope" else _entry(page[at - 1])
        )
        for later in range(at + 1, COUNT):
            page[later] = after(w, page[later - 1].receipt, _entry(page[later]))
    return page


def _entry(stored: api.StoredEntry) -> api.Entry:
    assert stored.entry is not None
    return stored.entry


def play(tmp_path: Path, act: Callable[[World, Client, Client], None]) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            await (await alice.create_group("Friends")).add("bob")
            await w.settle()
            act(w, alice, bob)

    asyncio.run(run())


def loaded(bob: Client) -> Line:
    """Bob's place in the log as an earlier process left it, on a machine with two cores."""
    config = replace(bob.tools.config, run=through_threads)
    return bob.vault.load_line(bob.groups()[0].id, config)


@pytest.mark.parametrize("what", ["", "unsigned", "another entry", "a gap", "envelope", "twice"])
def test_a_page_gets_the_verdicts_of_one_by_one(tmp_path: Path, what: str) -> None:
    def act(w: World, alice: Client, bob: Client) -> None:
        single, many = loaded(bob), loaded(bob)
        page = spoiled(w, entries(w, line_of(alice), single), what)
        expected = judged(single, page, w.now)
        with many.looking_ahead(page, through_threads):
            assert many._ahead is not None
            assert judged(many, page, w.now) == expected
        assert many._ahead is None
        assert many.group.save() == single.group.save()
        assert len(expected) == COUNT + 1 or what in {"unsigned", "another entry", "a gap"}

    play(tmp_path, act)


def test_what_was_verified_ahead_is_not_verified_again(tmp_path: Path) -> None:
    def act(w: World, alice: Client, bob: Client) -> None:
        line = loaded(bob)
        page = entries(w, line_of(alice), line)
        with (
            line.looking_ahead(page, through_threads),
            mock.patch.object(Suite, "verify_with_label", side_effect=AssertionError),
            mock.patch.object(receipts, "verify_receipt", side_effect=AssertionError),
        ):
            assert len(judged(line, page, w.now)) == COUNT + 1

    play(tmp_path, act)


def test_few_entries_and_one_core_are_read_as_they_come(tmp_path: Path) -> None:
    def act(w: World, alice: Client, bob: Client) -> None:
        line = line_of(bob)
        page = entries(w, line_of(alice), line)
        with mock.patch.object(Ahead, "look", side_effect=AssertionError):
            with line.looking_ahead(page, map):
                pass
            with line.looking_ahead(page[:10], through_threads):
                pass

    play(tmp_path, act)


def test_only_signed_receipts_are_remembered(tmp_path: Path) -> None:
    def act(w: World, alice: Client, bob: Client) -> None:
        line = line_of(bob)
        receipts = [stored.receipt for stored in entries(w, line_of(alice), line)]
        receipts[5] = receipts[5].replace(signature=receipts[4].signature)
        found = signed(receipts, line.receipt_key, through_threads)
        assert found == {r.encode() for r in receipts if r is not receipts[5]}

    play(tmp_path, act)
