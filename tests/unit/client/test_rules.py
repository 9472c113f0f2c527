"""A group's rules: who may do what, alike for all, and explained."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client import making
from coterie.client.client import Client
from coterie.client.content import DAY, GroupProfile, Links, WhoMay
from coterie.client.events import Problem, RemovedFromGroup, Renamed, RulesChanged
from coterie.client.intents import Intent, IntentKind
from coterie.client.rules import (
    LEAST_EVICT_AFTER,
    GroupRules,
    changed,
    differences,
    encode_change,
    explained,
    rules_of,
)
from coterie.errors import StateError
from tests.client_world import REALM, World, world

ALICE, BOB, CAROL = (f"{name}@{REALM}" for name in ("alice", "bob", "carol"))


async def _three(w: World) -> tuple[Client, Client, Client]:
    alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
    group = await alice.create_group("Friends")
    await group.add("bob", "carol")
    await w.settle()
    return alice, bob, carol


def _problems(client: Client) -> list[str]:
    return [event.what for event in client.pending_events() if isinstance(event, Problem)]


def test_an_administrator_makes_another_who_then_may_do_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await alice.groups()[0].make_admin("bob")
            told = await w.settle()
            events = [e for e in told["carol"] if isinstance(e, RulesChanged)]
            assert [(e.admins_added, e.admins_removed, e.by) for e in events] == [
                ((BOB,), (), ALICE)
            ]
            await bob.groups()[0].unmake_admin("alice")
            await w.settle()
            assert carol.groups()[0].admins() == [BOB]
            await alice.groups()[0].remove("carol")
            why = f"{ALICE} may not remove members: only administrators may ({BOB})"
            assert _problems(alice) == [f"not done: {why} [profile/may-remove]"]
            assert carol.groups()[0].status == "active"

    asyncio.run(story())


def test_only_administrators_change_rules(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await bob.groups()[0].change_rules(may_add="members")
            await bob.groups()[0].make_admin("bob")
            found = _problems(bob)
            assert len(found) == 2
            assert all("may not change the group's rules" in what for what in found)
            await w.settle()
            assert carol.groups()[0].admins() == [ALICE]
            assert alice.groups()[0].rules().may_add == "admins"

    asyncio.run(story())


def test_with_the_rules_changed_everybody_adds_and_removes(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await w.device("dave")
            await alice.groups()[0].change_rules(may_add="members", may_remove="members")
            told = await w.settle()
            event = next(e for e in told["bob"] if isinstance(e, RulesChanged))
            assert differences(event.before, event.rules) == [
                "everybody may add members",
                "everybody may remove members",
            ]
            assert not any(isinstance(e, Renamed) for e in told["bob"])
            await bob.groups()[0].add("dave")
            await bob.groups()[0].remove("carol")
            told = await w.settle()
            assert set(alice.groups()[0].members()) == {ALICE, BOB, f"dave@{REALM}"}
            assert carol.groups()[0].status == "left"

    asyncio.run(story())


def test_renaming_can_be_kept_for_administrators(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.groups()[0].change_rules(may_rename="admins")
            await w.settle()
            await bob.groups()[0].rename("Bob's")
            assert any("may not change" in what for what in _problems(bob))
            assert bob.groups()[0].name == "Friends"

    asyncio.run(story())


def test_two_changes_at_once_both_take_effect(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await alice.groups()[0].make_admin("bob")
            await w.settle()
            # Both are sealed for the same epoch; the loser's is applied to what the winner made.
            for client, change in (
                (alice, encode_change({"links": "ask"})),
                (bob, encode_change({"receipts": True}, admit=[CAROL])),
            ):
                conversation = client.groups()[0]._conversation
                conversation.want(Intent(IntentKind.CHANGE_RULES, change))
                ((number, intent),) = client.vault.intents(conversation.id)
                await conversation._prepare(number, intent)
            await w.settle()
            for client in (alice, bob, carol):
                group = client.groups()[0]
                assert (group.rules().links, group.rules().receipts) == ("ask", True)
                assert group.admins() == [ALICE, BOB, CAROL]

    asyncio.run(story())


def test_the_last_administrator_stays_one_and_names_another_before_leaving(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            group = alice.groups()[0]
            with pytest.raises(StateError, match="make somebody else one"):
                await group.unmake_admin("alice")
            with pytest.raises(StateError, match="only administrator"):
                await group.leave()
            with pytest.raises(StateError, match="not in the group: add"):
                await group.make_admin("dave")
            assert group.waiting() == 0
            await group.make_admin("bob")
            await group.leave()
            w.now += 60
            await w.settle()
            assert set(bob.groups()[0].members()) == {BOB, CAROL}

    asyncio.run(story())


def test_who_is_alone_leaves_at_once_and_keeps_no_key(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Alone")
            await group.send("hello, me")
            await group.leave()
            assert group.status == "left"
            assert alice.vault.profile.reader(f"group/{group.id}").entries() == {}
            assert [m.text for m in group.history()] == ["hello, me"]
            with pytest.raises(StateError, match="not in the group"):
                await group.send("still here?")
            await alice.sync()

    asyncio.run(story())


def test_where_no_administrator_is_left_everybody_may(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await bob.groups()[0].remove("carol")
            assert _problems(bob)
            await alice.groups()[0].leave_anyway()
            w.now += 60
            await w.settle()
            assert set(bob.groups()[0].members()) == {BOB, CAROL}
            await bob.groups()[0].make_admin("bob")
            await bob.groups()[0].remove("carol")
            told = await w.settle()
            assert any(isinstance(e, RemovedFromGroup) for e in told["carol"])
            assert bob.groups()[0].admins() == [ALICE, BOB]

    asyncio.run(story())


def test_a_profile_without_an_administrator_is_refused_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol = await _three(w)
            conversation = alice.groups()[0]._conversation
            empty = conversation.profile.replace(admins=())
            with pytest.raises(StateError):
                changed(conversation.profile, encode_change({}, dismiss=[ALICE]), 1)
            monkeypatch.setattr(making, "changed", lambda *_: empty)
            await alice.groups()[0].change_rules(receipts=True)
            assert any("profile/no-admin" in what for what in _problems(alice))
            await w.settle()
            assert carol.groups()[0].admins() == [ALICE]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("rule", "value", "why"),
    [
        ("may_add", "nobody", "one of members, admins"),
        ("links", "on", "one of off, ask, open"),
        ("receipts", "on", "on or off"),
        ("evict_after", LEAST_EVICT_AFTER - 1, "14 to 3650 days, or 0 for never"),
        ("replace_after", "3", "1 to 3650 days"),
        ("replace_after", True, "1 to 3650 days"),
        ("colour", "blue", "no rule 'colour'"),
    ],
)
def test_a_rule_that_is_none_is_refused_and_says_why(rule: str, value: object, why: str) -> None:
    with pytest.raises(StateError, match=why):
        encode_change({rule: value})


def test_every_rule_is_explained_and_a_change_of_it_is_told() -> None:
    profile = GroupProfile(b"Friends", (ALICE.encode(),))
    assert rules_of(profile) == GroupRules(
        "admins", "admins", "members", "off", receipts=False, replace_after=14 * DAY, evict_after=0
    )
    for name, value in {
        "may_add": "members",
        "may_remove": "members",
        "may_rename": "admins",
        "links": "ask",
        "receipts": True,
        "replace_after": 0,
        "evict_after": 30 * DAY,
    }.items():
        after = rules_of(changed(profile, encode_change({name: value}), 0))
        assert differences(rules_of(profile), after) == [explained(after)[name]]
    links = profile.replace(links=Links.ASK, may_add=WhoMay.MEMBERS)
    assert "members decide" in explained(rules_of(links))["links"]
