"""What members do unasked: replacing who never came, removing who is idle or revoked, one of them in turn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client.client import Client
from coterie.client.content import DAY
from coterie.client.events import (
    Event,
    Joined,
    MembersRemoved,
    MembersReturned,
    MembersRevoked,
    Problem,
    RemovedFromGroup,
)
from coterie.client.intents import CommitNote, Reason
from coterie.client.notes import mark_of
from coterie.errors import StateError
from coterie.transport import api
from tests.client_world import REALM, World, world

ALICE, BOB, CAROL, DAVE = (f"{name}@{REALM}" for name in ("alice", "bob", "carol", "dave"))


async def _group(w: World, *names: str) -> list[Client]:
    clients = [await w.device(name) for name in names]
    group = await clients[0].create_group("Friends")
    await group.add(*names[1:])
    return clients


async def _days(w: World, days: int, *labels: str) -> dict[str, list[Event]]:
    """Lets days pass in which some devices are online; what they were told."""
    told: dict[str, list[Event]] = {label: [] for label in labels}
    for _ in range(days):
        w.now += DAY
        for label, events in (await w.settle(*labels)).items():
            told[label] += events
    return told


def test_who_never_appears_is_replaced_by_one_member_after_two_weeks(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, dave = await _group(w, "alice", "bob", "carol", "dave")
            await w.settle("alice", "bob", "carol")
            # Dave's device has lost the invitation.
            stored = dave.identity.stored
            found = await dave.tools.inboxes.read_inbox(
                api.ReadInbox(stored.inbox_id, bytes(stored.inbox_token), 0)
            )
            assert len(found.items) == 1
            with dave.vault.step() as step:
                step.note_taken(mark_of(found.items[0]), w.now)
            told = await _days(w, 13, "alice", "bob", "carol")
            assert not any(isinstance(e, MembersReturned) for e in told["alice"])
            assert dave.groups() == []
            told = await _days(w, 2, "alice", "bob", "carol")
            for label in told:
                back = [e for e in told[label] if isinstance(e, MembersReturned)]
                assert [(e.users, e.why) for e in back] == [((DAVE,), "silent")]
                assert not any(isinstance(e, MembersRemoved) for e in told[label])
            seen = (await w.settle("dave"))["dave"]
            assert [e.name for e in seen if isinstance(e, Joined)] == ["Friends"]
            await alice.groups()[0].send("there you are")
            await w.settle()
            assert dave.groups()[0].history()[-1].text == "there you are"
            await _days(w, 20, "alice", "bob", "carol", "dave")
            assert len({c.groups()[0].epoch_authenticator for c in (alice, bob, carol, dave)}) == 1

    asyncio.run(story())


def test_who_has_written_or_committed_is_not_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _group(w, "alice", "bob", "carol")
            await w.settle()
            # Carol writes at once and is away from then on; Bob renews his keys as all do.
            await carol.groups()[0].send("hello, and good-bye")
            told = await _days(w, 40, "alice", "bob")
            assert not any(isinstance(e, MembersReturned) for e in told["alice"])
            assert bob.groups()[0].members() == alice.groups()[0].members()

    asyncio.run(story())


def test_with_the_rule_off_or_no_key_package_nobody_is_replaced_and_nothing_is_hurried(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, *_ = await _group(w, "alice", "bob", "dave")
            await alice.groups()[0].change_rules(replace_after=0)
            await w.settle("alice", "bob")
            told = await _days(w, 20, "alice", "bob")
            assert not any(isinstance(e, MembersReturned) for e in told["alice"])
            w.authentication.delete_user("dave")
            await alice.groups()[0].change_rules(replace_after=DAY)
            before = w.weather.paths.count("directory/claim")
            for _ in range(10):
                w.now += 600
                await w.settle("alice", "bob")
            assert w.weather.paths.count("directory/claim") - before <= 2

    asyncio.run(story())


def test_who_is_idle_is_removed_where_the_group_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _group(w, "alice", "bob", "carol")
            await w.settle()
            await _days(w, 2, "alice", "bob", "carol")
            told = await _days(w, 40, "alice", "bob")
            assert CAROL in alice.groups()[0].members()
            await alice.groups()[0].change_rules(evict_after=30 * DAY)
            told = await _days(w, 1, "alice", "bob")
            removed = [e for e in told["bob"] if isinstance(e, MembersRemoved)]
            assert [(e.users, e.by, e.why) for e in removed] == [((CAROL,), ALICE, "idle")]
            # Who is there renews, and stays.
            await _days(w, 40, "alice", "bob")
            assert set(alice.groups()[0].members()) == {ALICE, BOB}
            assert bob.groups()[0].status == "active"

    asyncio.run(story())


def test_an_evicted_device_says_why_and_how_to_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol = await _group(w, "alice", "bob", "carol")
            await w.settle()
            await alice.groups()[0].change_rules(evict_after=14 * DAY)
            await w.settle()
            told = await _days(w, 16, "alice", "bob")
            assert any(isinstance(e, MembersRemoved) and e.why == "idle" for e in told["alice"])
            found = (await w.settle("carol"))["carol"]
            assert [e.why for e in found if isinstance(e, RemovedFromGroup)] == ["idle"]
            assert carol.groups()[0].status == "left"
            assert (
                "ask a member to add you"
                in carol.vault.conversation(carol.groups()[0].id).why.decode()
            )
            with pytest.raises(StateError):
                await carol.groups()[0].send("hello?")
            await alice.groups()[0].add("carol")
            await w.settle()
            assert carol.groups()[0].status == "active"

    asyncio.run(story())


def test_a_revoked_member_is_flagged_told_once_and_removed_by_who_may(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob, _ = await _group(w, "alice", "bob", "carol")
            await w.settle()
            w.authentication.revoke_user("carol")
            w.now += 700
            told = await w.settle("bob")
            assert [e.users for e in told["bob"] if isinstance(e, MembersRevoked)] == [(CAROL,)]
            assert bob.groups()[0].revoked() == [CAROL]
            w.now += 700
            told = await w.settle("bob")
            assert not any(isinstance(e, MembersRevoked | Problem) for e in told["bob"])
            assert CAROL in bob.groups()[0].members()
            told = await w.settle("alice", "bob")
            assert any(isinstance(e, MembersRevoked) for e in told["alice"])
            removed = [e for e in told["bob"] if isinstance(e, MembersRemoved)]
            assert [(e.users, e.by, e.why) for e in removed] == [((CAROL,), ALICE, "revoked")]
            assert bob.groups()[0].revoked() == []
            found = (await w.settle("carol"))["carol"]
            assert [e.why for e in found if isinstance(e, RemovedFromGroup)] == ["revoked"]

    asyncio.run(story())


def test_a_revoked_administrator_is_removed_by_another_and_one_device_is_not_the_user(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            second = await w.device("alice-2", "alice")
            bob = await w.device("bob")
            group = await alice.create_group("Friends")
            await group.add("alice", "bob")
            await group.make_admin("bob")
            await w.settle()
            lost = alice.identity.stored.device.decode()
            await second.revoke_device(lost)
            w.now += 700
            await w.settle("bob", "alice-2")
            w.now += 60
            await w.settle("bob", "alice-2")
            assert bob.groups()[0].members() == {ALICE: 1, BOB: 1}
            assert second.groups()[0].status == "active"

    asyncio.run(story())


def test_a_note_that_is_none_means_nothing() -> None:
    assert CommitNote.decode(CommitNote(Reason.IDLE).encode()).reason == Reason.IDLE
