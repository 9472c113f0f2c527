"""Telling others what was read: where the group wants it, in one message, and never without end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client import seeing
from coterie.client.client import Client
from coterie.client.content import MAX_SEEN, Content
from coterie.client.events import MessageReceived, MessageSeen, MessageSent
from coterie.client.intents import Intent, IntentKind
from coterie.client.place import RECEIPT_DELAY
from tests.client_world import REALM, World, world

ALICE, BOB, CAROL = (f"{name}@{REALM}" for name in ("alice", "bob", "carol"))


async def _three(w: World, *, receipts: bool = True) -> tuple[Client, Client, Client]:
    alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
    group = await alice.create_group("Friends")
    await group.add("bob", "carol")
    if receipts:
        await group.change_rules(receipts=True)
    await w.settle()
    return alice, bob, carol


def _entries(w: World) -> int:
    return w.weather.paths.count("logs/append")


async def _read_all(w: World, client: Client) -> None:
    group = client.groups()[0]
    for message in group.unread():
        group.mark_read(message)


def _seen_by(client: Client) -> list[tuple[str, ...]]:
    return [message.seen_by for message in client.groups()[0].history()]


def test_reading_a_hundred_texts_makes_one_message_after_a_while(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            for n in range(100):
                alice.groups()[0]._conversation.want_text(f"text {n}")
            await w.settle()
            before = _entries(w)
            await _read_all(w, bob)
            await w.settle()
            assert _entries(w) == before
            w.now += RECEIPT_DELAY[1]
            assert bob.groups()[0]._conversation.has_turn()
            told = await w.settle(rounds=3)
            assert _entries(w) == before + 1
            seen = [e for e in told["alice"] if isinstance(e, MessageSeen)]
            assert [(len(e.message_ids), e.by) for e in seen] == [(100, BOB)]
            assert _seen_by(alice) == [(BOB,)] * 50
            # It is no text: nobody is shown it, and nobody answers it.
            assert not any(isinstance(e, MessageReceived | MessageSent) for e in told["bob"])
            assert carol.groups()[0].unread()[-1].text == "text 99"
            await _read_all(w, carol)
            w.now += RECEIPT_DELAY[1]
            await w.settle(rounds=3)
            assert _entries(w) == before + 2
            w.now += 1000
            await w.settle(rounds=3)
            assert _entries(w) == before + 2

    asyncio.run(story())


def test_a_short_program_tells_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.groups()[0].send("hello")
            await w.settle()
            await _read_all(w, bob)
            await bob.groups()[0].tell_seen()
            await w.settle("alice")
            assert _seen_by(alice) == [(BOB,)]
            before = _entries(w)
            await bob.groups()[0].tell_seen()
            assert _entries(w) == before

    asyncio.run(story())


def test_without_the_rule_nobody_tells_and_what_was_read_then_is_never_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w, receipts=False)
            await alice.groups()[0].send("before")
            await w.settle()
            await _read_all(w, bob)
            await bob.groups()[0].tell_seen()
            await alice.groups()[0].change_rules(receipts=True)
            await alice.groups()[0].send("after")
            await w.settle()
            await _read_all(w, bob)
            await bob.groups()[0].tell_seen()
            await w.settle()
            assert _seen_by(alice) == [(), (BOB,)]

    asyncio.run(story())


def test_who_does_not_want_to_tells_nothing_also_not_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            bob.tells_seen = False
            assert not bob.tells_seen
            await alice.groups()[0].send("in private")
            await w.settle()
            await _read_all(w, bob)
            await bob.groups()[0].tell_seen()
            bob.tells_seen = True
            await alice.groups()[0].send("in public")
            await w.settle()
            await _read_all(w, bob)
            # Turned off between reading and telling.
            bob.tells_seen = False
            await bob.groups()[0].tell_seen()
            await w.settle()
            assert _seen_by(alice) == [(), ()]

    asyncio.run(story())


def test_in_large_groups_nobody_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeing, "MAX_MEMBERS", 2)

    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.groups()[0].send("hello, all")
            await w.settle()
            await _read_all(w, bob)
            await bob.groups()[0].tell_seen()
            await w.settle()
            assert _seen_by(alice) == [()]

    asyncio.run(story())


def test_telling_forces_no_commit(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await alice.groups()[0].send("hello")
            await w.settle()
            await carol.groups()[0].leave()
            await bob.sync()
            epoch = bob.groups()[0].epoch
            await _read_all(w, bob)
            await bob.groups()[0].tell_seen()
            # Whether it is Bob's turn to commit is another question; here it is not.
            if bob.groups()[0].epoch == epoch:
                assert bob.groups()[0].waiting() == 0
            w.now += 60
            await w.settle("alice", "bob", rounds=3)
            assert _seen_by(alice) == [(BOB,)]

    asyncio.run(story())


def test_what_somebody_says_to_have_seen_is_bounded_and_told_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            text = bytes.fromhex(await alice.groups()[0].send("hello"))
            await w.settle()
            junk = [n.to_bytes(16) for n in range(MAX_SEEN - 1)]
            for ids in ([text, b"?" * 16], [*junk, b"!" * 16, text], [text], [text + b"odd"]):
                content = Content.seen(ids, w.now)
                assert len(content.seen_ids()) <= MAX_SEEN
                bob.groups()[0]._conversation.want(Intent(IntentKind.SEND, content.encode()))
            told = await w.settle()
            seen = [e for e in told["alice"] if isinstance(e, MessageSeen)]
            assert [(e.message_ids, e.by) for e in seen] == [((text.hex(),), BOB)]
            assert _seen_by(alice) == [(BOB,)]

    asyncio.run(story())
