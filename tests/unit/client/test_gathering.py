"""A user's devices belong together: one that appears later is added by one that is there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest import mock

import pytest

from coterie.client.client import Client
from coterie.client.content import DAY
from coterie.client.events import MembersAdded, Problem
from coterie.client.intents import Intent, IntentKind
from coterie.client.own_devices import LOOK_AGAIN, LOOK_WHILE_LINKING, OwnDevices
from coterie.errors import ServiceError
from coterie.transport import api
from tests.client_world import REALM, World, world

ALICE, BOB, CAROL = (f"{name}@{REALM}" for name in ("alice", "bob", "carol"))


async def _two_groups(w: World) -> tuple[Client, Client]:
    """Bob in two groups of which alice is the administrator."""
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    for name in ("Friends", "Choir"):
        await (await alice.create_group(name)).add("bob")
    await w.settle()
    return alice, bob


async def _link(w: World, by: Client, label: str) -> Client:
    """A further device logs in with a code of the first one."""
    code, _ = await by.link_code()
    client = await w.open.enter_async_context(w.profile(label))
    await client.enrol(by.identity.stored.user.decode(), code)
    w.clients[label] = client
    return client


def _devices(client: Client) -> list[dict[str, int]]:
    return [group.members() for group in client.groups()]


def test_a_linked_device_is_added_to_all_groups_by_the_one_that_linked_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            tablet = await _link(w, bob, "bob-tablet")
            # Alice, who alone may add members, does nothing meanwhile.
            await w.settle("bob", "bob-tablet")
            assert _devices(tablet) == [{ALICE: 1, BOB: 2}] * 2
            told = await w.settle()
            added = [e for e in told["alice"] if isinstance(e, MembersAdded)]
            assert [(e.users, e.by) for e in added] == [((BOB,), BOB)] * 2
            assert not any(isinstance(e, Problem) for events in told.values() for e in events)
            await tablet.group("Choir").send("from the tablet")
            await w.settle()
            assert [m.text for m in alice.group("Choir").history()] == ["from the tablet"]

    asyncio.run(story())


def test_a_device_is_found_the_day_after_by_one_that_did_not_link_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            await w.device("bob-tablet", "bob")
            w.now += DAY // 4
            await w.settle()
            assert _devices(alice) == [{ALICE: 1, BOB: 1}] * 2
            w.now += DAY * 3 // 2
            await w.settle()
            assert _devices(alice) == _devices(bob) == [{ALICE: 1, BOB: 2}] * 2

    asyncio.run(story())


def test_who_asks_for_the_list_of_devices_adds_those_that_are_missing(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            await w.device("bob-tablet", "bob")
            assert len(await bob.devices()) == 2
            await w.settle()
            assert _devices(alice) == [{ALICE: 1, BOB: 2}] * 2

    asyncio.run(story())


def test_two_devices_that_add_a_third_at_once_add_it_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            phone = await _link(w, bob, "bob-phone")
            await w.settle()
            tablet = await _link(w, bob, "bob-tablet")
            # Both want it added, and have sealed that for the same epoch, before either is heard.
            for client in (bob, phone):
                await client.devices()
                for conversation in client._conversations.values():
                    await conversation._add_own_devices()
                    ((number, intent),) = client.vault.intents(conversation.id)
                    await conversation._prepare(number, intent)
            told = await w.settle(rounds=3)
            for client in (alice, bob, phone, tablet):
                assert _devices(client) == [{ALICE: 1, BOB: 3}] * 2
                assert all(group.waiting() == 0 for group in client.groups())
            added = [e for e in told["alice"] if isinstance(e, MembersAdded)]
            assert [(e.users, e.by) for e in added] == [((BOB,), BOB)] * 2
            assert not any(isinstance(e, Problem) for events in told.values() for e in events)

    asyncio.run(story())


def test_nobody_without_the_right_adds_a_device_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            await w.device("alice-phone", "alice")
            await w.device("carol")
            for user in ("alice", "carol"):
                await bob.group("Friends").add(user)
            found = [e.what for e in bob.pending_events() if isinstance(e, Problem)]
            assert len(found) == 2
            assert all(f"{BOB} may not add members" in what for what in found)
            # A client that breaks the rule on purpose is refused by all others.
            with monkeypatch.context() as patched:
                own = bob.tools.config.rules
                patched.setattr(own, "check_commit", lambda *_: None)
                bob.group("Friends")._conversation.want(
                    Intent(IntentKind.ADD, b"carol@" + REALM.encode())
                )
                await bob.group("Friends")._conversation.sync()
            await w.settle("alice")
            w.now += 60
            # The epoch ends with a Commit of hers, after the refused one.
            await w.settle("alice")
            assert alice.group("Friends").members() == {ALICE: 1, BOB: 1}
            assert alice.group("Friends").epoch == 2

    asyncio.run(story())


def test_a_revoked_device_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob = await _two_groups(w)
            tablet = await _link(w, bob, "bob-tablet")
            await bob.devices()
            still_named = bob.tools.own_devices
            await bob.revoke_device(tablet.identity.stored.device.decode())
            w.now += 700
            await w.settle("alice", "bob")
            assert _devices(bob) == [{ALICE: 1, BOB: 1}] * 2
            # Nor where the list of devices still names it: its certificate is on the list of revoked ones.
            assert still_named is not None
            monkeypatch.setattr(OwnDevices, "look", _nothing)
            bob.tools.own_devices = still_named
            await w.settle("alice", "bob")
            assert _devices(bob) == [{ALICE: 1, BOB: 1}] * 2

    asyncio.run(story())


async def _nothing(_: OwnDevices) -> None:
    """Asks for no list."""


def test_a_device_that_left_a_group_is_not_brought_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            tablet = await _link(w, bob, "bob-tablet")
            await w.settle()
            await tablet.group("Choir").leave()
            w.now += 60
            await w.settle()
            for _ in range(2):
                w.now += 2 * DAY
                await w.settle()
            assert alice.group("Choir").members() == {ALICE: 1, BOB: 1}
            assert alice.group("Friends").members() == {ALICE: 1, BOB: 2}
            # Its user may bring it back, whoever may add members.
            await bob.group("Choir").add("bob")
            await w.settle()
            assert alice.group("Choir").members() == {ALICE: 1, BOB: 2}

    asyncio.run(story())


def test_a_device_that_was_there_before_and_left_is_not_brought_back_either(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            tablet = await w.device("bob-tablet", "bob")
            # All of bob's devices come in at once: none of them has seen another one come.
            await (await alice.create_group("Friends")).add("bob")
            await w.settle()
            await tablet.groups()[0].leave()
            w.now += 60
            await w.settle()
            await bob.devices()
            await w.settle()
            assert _devices(alice) == _devices(bob) == [{ALICE: 1, BOB: 1}]

    asyncio.run(story())


def test_the_service_is_asked_seldom_and_its_absence_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            asked = []
            devices = OwnDevices.listed

            async def counted(own: OwnDevices) -> list[tuple[str, int]]:
                asked.append(w.now)
                if len(asked) == 1:
                    raise ServiceError("away", retry_after=5)
                return await devices(own)

            monkeypatch.setattr(OwnDevices, "listed", counted)
            await w.settle("bob")
            assert asked == []
            w.now += DAY * 3 // 2
            await bob.group("Friends").send("still heard")
            await w.settle("bob", rounds=3)
            assert len(asked) == 1
            w.now += LOOK_AGAIN
            await w.settle("bob", rounds=3)
            assert len(asked) == 2
            w.now += DAY // 3
            await w.settle("bob", rounds=3)
            assert len(asked) == 2
            await bob.link_code()
            await w.settle("bob", rounds=3)
            w.now += LOOK_WHILE_LINKING
            await w.settle("bob", rounds=3)
            assert len(asked) == 4
            await w.settle("alice")
            assert [m.text for m in alice.group("Friends").history()] == ["still heard"]

    asyncio.run(story())


def test_without_a_key_package_of_the_device_it_is_added_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two_groups(w)
            await _link(w, bob, "bob-tablet")
            w.weather.tamper["directory/claim"] = lambda _request, _answer: api.ClaimResult(())
            told = await w.settle("bob")
            assert not any(isinstance(e, Problem) for e in told["bob"])
            assert all(group.waiting() == 0 for group in bob.groups())
            del w.weather.tamper["directory/claim"]
            w.now += LOOK_WHILE_LINKING
            await w.settle()
            assert _devices(alice) == [{ALICE: 1, BOB: 2}] * 2

    asyncio.run(story())


def test_a_device_whose_first_key_packages_did_not_arrive_publishes_them_later(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob = await _two_groups(w)
            code, _ = await bob.link_code()
            tablet = await w.open.enter_async_context(w.profile("bob-tablet"))
            lost = mock.patch.object(tablet, "publish", side_effect=ServiceError("it was lost"))
            with lost, pytest.raises(ServiceError):
                await tablet.enrol("bob", code)
            w.clients["bob-tablet"] = tablet
            await tablet.sync()
            w.now += 60
            await w.settle("bob", "bob-tablet")
            assert _devices(tablet) == [{ALICE: 1, BOB: 2}] * 2

    asyncio.run(story())
