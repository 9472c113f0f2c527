"""Blocking a user: nothing of theirs is shown, nothing is lost, and they do not learn of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client.client import Client
from coterie.client.events import Joined, JoinRequested, MessageReceived, MessageSeen
from coterie.errors import StateError
from tests.client_world import REALM, World, texts, world

ALICE, BOB, CAROL = (f"{name}@{REALM}" for name in ("alice", "bob", "carol"))


async def _three(w: World) -> tuple[Client, Client, Client]:
    alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
    group = await alice.create_group("Friends")
    await group.add("bob", "carol")
    await w.settle()
    return alice, bob, carol


def test_texts_of_somebody_blocked_are_kept_and_not_shown(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await bob.groups()[0].send("one")
            await w.settle()
            alice.block("bob")
            assert alice.blocked() == {BOB: w.now}
            await bob.groups()[0].send("two")
            await carol.groups()[0].send("three")
            told = await w.settle()
            assert [e.text for e in told["alice"] if isinstance(e, MessageReceived)] == ["three"]
            assert [m.text for m in alice.groups()[0].unread()] == ["three"]
            assert texts(alice) == ["three"]
            assert alice.search("two") == []
            assert sorted(texts(carol)) == ["one", "three", "two"]
            alice.unblock("bob")
            assert texts(alice) == ["one", "two", "three"]
            assert [m.text for m in alice.search("two")] == ["two"]

    asyncio.run(story())


def test_a_step_knows_whom_it_blocked_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            with alice.vault.step() as step:
                assert step.blocked() == {}
                step.set_blocked(BOB, 7)
                assert step.blocked() == {BOB: 7}
                step.set_blocked(BOB, None)
                assert step.blocked() == {}

    asyncio.run(story())


def test_texts_behind_many_of_somebody_blocked_are_found(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await carol.groups()[0].send("before the flood")
            for n in range(250):
                bob.groups()[0]._conversation.want_text(f"flood {n}")
            await w.settle()
            alice.block("bob")
            assert [m.text for m in alice.groups()[0].history(1)] == ["before the flood"]
            assert [m.text for m in alice.groups()[0].unread()] == ["before the flood"]

    asyncio.run(story())


def test_an_invitation_by_somebody_blocked_makes_no_group_appear(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
            alice.block("bob")
            group = await bob.create_group("Spam")
            await group.add("alice", "carol")
            told = await w.settle()
            assert alice.groups() == []
            assert not any(isinstance(e, Joined) for e in told["alice"])
            # Bob sees a member who has not appeared yet, as any who is offline.
            assert ALICE in group.members()
            # Neither does it appear when others replace the member that never came.
            await group.make_admin("carol")
            await w.settle()
            await carol.groups()[0].remove("alice")
            await carol.groups()[0].add("alice")
            await w.settle()
            assert alice.groups() == []
            # Unblocked, invitations count again.
            alice.unblock("bob")
            await bob.sync()
            await group.remove("alice")
            await group.add("alice")
            told = await w.settle()
            assert [e.by for e in told["alice"] if isinstance(e, Joined)] == [BOB]

    asyncio.run(story())


def test_who_added_is_named_as_who_did(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.groups()[0].change_rules(may_add="members")
            await w.device("dave")
            await w.settle()
            await bob.groups()[0].add("dave")
            told = await w.settle()
            assert [e.by for e in told["dave"] if isinstance(e, Joined)] == [BOB]

    asyncio.run(story())


def test_a_group_that_one_is_in_or_asked_for_is_kept_whoever_adds(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
            group = await bob.create_group("Club")
            await group.change_rules(links="ask")
            alice.block("bob")
            await alice.join(group.link())
            await bob.sync()
            await group.accept("alice")
            await w.settle()
            assert [g.name for g in alice.groups()] == ["Club"]
            # Bob's client brings her back after a failure; that is no invitation.
            with alice.vault.step() as step:
                step.set_status(group.id, "stuck", "a test")
            await alice.sync()
            await w.settle(rounds=3)
            assert alice.groups()[0].status == "active"
            assert carol.groups() == []

    asyncio.run(story())


def test_requests_and_receipts_of_somebody_blocked_are_not_shown(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            dave = await w.device("dave")
            group = alice.groups()[0]
            await group.change_rules(links="ask", receipts=True)
            await dave.join(group.link())
            await alice.sync()
            assert [r.user for r in group.requests()] == [f"dave@{REALM}"]
            alice.block("dave")
            alice.block("bob")
            assert group.requests() == []
            await w.device("eve")
            alice.block("eve")
            await w.clients["eve"].join(group.link())
            await group.send("hello")
            await w.settle()
            for message in bob.groups()[0].unread():
                bob.groups()[0].mark_read(message)
            await bob.groups()[0].tell_seen()
            told = await w.settle()
            assert not any(isinstance(e, MessageSeen | JoinRequested) for e in told["alice"])
            assert group.history()[-1].seen_by == ()
            # Nor does Alice tell Bob that she has seen what she was not shown.
            await bob.groups()[0].send("seen?")
            await w.settle()
            await w.clients["carol"].groups()[0].send("and mine?")
            await w.settle()
            for message in group.unread():
                group.mark_read(message)
            await group.tell_seen()
            await w.settle()
            assert bob.groups()[0].history()[-2].seen_by == ()
            assert w.clients["carol"].groups()[0].history()[-1].seen_by == (ALICE,)

    asyncio.run(story())


def test_with_open_links_the_client_of_who_blocks_lets_nobody_blocked_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, _ = await _three(w)
            dave = await w.device("dave")
            await alice.groups()[0].change_rules(links="open")
            await dave.join(alice.groups()[0].link())
            alice.block("dave")
            for _ in range(3):
                w.now += 10
                await w.settle()
            assert dave.groups() == []

    asyncio.run(story())


def test_blocking_oneself_and_unblocking_nobody_are_errors(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            with pytest.raises(StateError, match="yourself"):
                alice.block("alice")
            with pytest.raises(StateError, match="is not blocked"):
                alice.unblock("bob")
            with pytest.raises(StateError, match="no user's name"):
                alice.block("Not A Name")

    asyncio.run(story())
