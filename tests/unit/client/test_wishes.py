"""What becomes of what a user wants: stored while the service is away, refused at once, or given up and said so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest import mock

import pytest

from coterie.client import Client
from coterie.client.conversation import Conversation
from coterie.client.events import Problem, RemovedFromGroup
from coterie.client.intents import Intent, IntentKind
from coterie.errors import ServiceError, StateError
from coterie.storage import MessageState
from coterie.transport.refusal import Unreachable
from tests.client_world import World, world


def test_a_text_that_no_service_takes_is_told_of_and_kept_as_not_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Friends")
            await group.send("x" * 300_000)
            (problem,) = [e for e in alice.pending_events() if isinstance(e, Problem)]
            assert "at most 262144" in problem.what
            await group.send("short")
            assert [m.state for m in group.history()] == [MessageState.FAILED, MessageState.SENT]

    asyncio.run(story())


def test_what_waits_when_the_device_is_removed_is_kept_as_not_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            await (await alice.create_group("Friends")).add("bob")
            await w.settle()
            w.weather_of["bob"].lose_request = 1
            await bob.groups()[0].send("too late")
            w.weather_of["bob"].lose_request = 0
            await alice.groups()[0].remove("bob")
            told = await w.settle()
            assert any(isinstance(e, RemovedFromGroup) for e in told["bob"])
            (text,) = bob.groups()[0].history()
            assert text.state == MessageState.FAILED

    asyncio.run(story())


def test_a_group_that_is_made_while_the_service_is_away_is_made_once_with_all_that_was_wanted(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            w.weather.lose_request = 1
            group = await alice.create_group("Friends")
            await group.add("bob")
            await group.send("hello")
            assert (group.status, group.waiting()) == ("creating", 3)
            w.weather.lose_request = 0
            await w.settle()
            assert (group.status, group.waiting()) == ("active", 0)
            assert list(group.members()) == [alice.user, bob.user]
            assert [g.name for g in bob.groups()] == ["Friends"]
            assert [m.text for m in bob.groups()[0].history()] == ["hello"]

    asyncio.run(story())


def test_a_group_that_is_made_at_a_wrong_address_waits_for_the_right_one(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            wrong = Unreachable("the service speaks TLS")
            with mock.patch.object(alice.tools.delivery, "create_log", side_effect=wrong):
                group = await alice.create_group("Friends")
                assert (group.status, group.waiting()) == ("creating", 1)
            await w.settle()
            assert (group.status, group.waiting()) == ("active", 0)

    asyncio.run(story())


def test_a_group_that_no_service_makes_holds_up_nothing_afterwards(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            with pytest.raises(ServiceError, match="retention"):
                await alice.create_group("Friends", retention=1)
            await alice.sync()
            assert [(g.status, g.waiting()) for g in alice.groups()] == [("left", 0)]
            assert "was not made" in alice.groups()[0].why

    asyncio.run(story())


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "needs a name"), (" \n", "needs a name"), ("é" * 101, "202"), ("\udcff", "no text")],
)
def test_no_group_gets_a_name_that_it_cannot_keep(tmp_path: Path, name: str, why: str) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            with pytest.raises(StateError, match=why):
                await alice.create_group(name)
            group = await alice.create_group("é" * 100)
            with pytest.raises(StateError, match=why):
                await group.rename(name)
            assert [(g.name, g.waiting()) for g in alice.groups()] == [("é" * 100, 0)]

    asyncio.run(story())


@pytest.mark.parametrize("seconds", [-1, 0, 1 << 32])
def test_no_group_gets_a_retention_that_it_cannot_have(tmp_path: Path, seconds: int) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            with pytest.raises(StateError, match=f"1 to 4294967295 seconds, not for {seconds}"):
                await alice.create_group("Friends", retention=seconds)
            assert alice.groups() == []
            group = await alice.create_group("Friends")
            with pytest.raises(StateError, match="seconds, not for"):
                await group.reinitialise(retention=seconds)
            assert group.waiting() == 0

    asyncio.run(story())


def test_what_is_no_text_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Friends")
            with pytest.raises(StateError, match="no text"):
                await group.send("caf\udce9")
            assert (group.waiting(), group.history()) == (0, [])

    asyncio.run(story())


async def _stuck(w: World) -> None:
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    await (await alice.create_group("Friends")).add("bob")
    await w.settle()
    with bob.vault.step() as step:
        step.set_status(bob.groups()[0].id, "stuck", "it was restored")


def test_who_waits_to_be_added_again_is_not_told_that_it_was_removed(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            await _stuck(w)
            with pytest.raises(StateError, match="waits to be added again to 'Friends'"):
                await w.clients["bob"].groups()[0].send("hello?")

    asyncio.run(story())


def _before_it_is_sealed(
    monkeypatch: pytest.MonkeyPatch, client: Client, happens: Callable[[], Awaitable[object]]
) -> None:
    """Has something happen, and be read, when the client has a wish in hand and seals it next."""
    plain = Conversation._confirm
    ours = client._conversations[client.groups()[0].id]

    async def confirm(conversation: Conversation) -> None:
        await plain(conversation)
        if conversation is ours:
            await happens()
            await conversation._catch_up()

    monkeypatch.setattr(Conversation, "_confirm", confirm)


def test_who_is_removed_while_a_text_is_in_hand_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            group = await alice.create_group("Friends")
            await group.add("bob")
            await w.settle()
            _before_it_is_sealed(monkeypatch, bob, lambda: group.remove("bob"))
            (there,) = bob.groups()
            await there.send("too late")
            assert there.status == "left"
            assert [m.state for m in there.history()] == [MessageState.FAILED]
            assert [type(event) for event in bob.pending_events()] == [RemovedFromGroup]

    asyncio.run(story())


def test_what_another_member_does_meanwhile_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
            group = await alice.create_group("Friends")
            await group.add("bob")
            await group.make_admin("bob")
            await w.settle()
            (there,) = bob.groups()
            claimed = await bob._conversations[there.id]._claim_of(carol.user)
            intent = Intent(IntentKind.ADD, carol.user.encode(), tuple(claimed))
            bob._conversations[there.id].want(intent)
            _before_it_is_sealed(monkeypatch, bob, lambda: group.add("carol"))
            await bob.sync()
            assert there.waiting() == 0
            assert there.members() == {alice.user: 1, bob.user: 1, carol.user: 1}
            assert not [event for event in bob.pending_events() if isinstance(event, Problem)]

    asyncio.run(story())
