"""Nothing that others do, or leave undone, holds a device up for good or has it try the same thing without end."""

from __future__ import annotations

import asyncio
import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.client.client import Client
from coterie.client.content import DAY
from coterie.client.events import MembersAdded, Problem, RemovedFromGroup
from coterie.client.intents import Intent, IntentKind
from coterie.client.place import END_WAIT, RECEIPT_DELAY
from coterie.mls.proposal import Proposal, Remove
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api
from coterie.transport.refusal import Refused
from tests.client_world import REALM, World, refused_candidate, texts, world

CAROL = f"carol@{REALM}"
LONGEST = mock.patch.object(random, "randint", lambda _, longest: longest)
"""All random times are the longest ones."""


async def _friends(w: World, *names: str) -> list[Client]:
    clients = [await w.device(name) for name in names]
    group = await clients[0].create_group("Friends")
    await group.add(*names[1:])
    await w.settle()
    return clients


async def _post_refused(client: Client) -> None:
    """Appends a candidate whose Commit all members refuse, as a hostile member can."""
    line = client.tools.vault.load_line(client.groups()[0].id, client.tools.config)
    await client.tools.delivery.append(refused_candidate(line))


def _propose_removes(client: Client) -> list[api.Append]:
    """Proposals to remove all other members, as a hostile member can make them."""
    line = client.tools.vault.load_line(client.groups()[0].id, client.tools.config)
    others = [n for n, _ in line.group.tree.members() if n != line.group.own_leaf]
    found = []
    for leaf in others:
        message = line.group.propose(Proposal.of(Remove(LeafIndex(leaf))))
        found.append(line.message(api.ContentKind.PROPOSAL, message))
    return found


def test_who_leaves_where_all_candidates_were_refused_ends_the_epoch_first(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            mallory, alice, _ = await _friends(w, "mallory", "alice", "bob")
            await _post_refused(mallory)
            group, before = alice.groups()[0], w.weather.paths.count("logs/append")
            await group.leave()
            # What ends the epoch, and the proposal in the next one.
            assert w.weather.paths.count("logs/append") == before + 2
            assert group.waiting() == 0
            await w.settle("bob")
            w.now += 60
            await w.settle("bob", "alice")
            assert group.status == "left"

    asyncio.run(story())


def test_an_epoch_of_refused_candidates_is_ended_when_the_wait_is_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            mallory, alice, _ = await _friends(w, "mallory", "alice", "bob")
            group = alice.groups()[0]
            conversation, before = group._conversation, group.epoch
            await _post_refused(mallory)
            with LONGEST:
                await w.settle("alice")
                assert not conversation.has_turn()
                w.now += END_WAIT
                # Whoever asks whose turn it is does not take it away.
                assert conversation.has_turn()
                assert conversation.has_turn()
                await w.settle("alice", rounds=1)
            assert group.epoch == before + 1
            assert not conversation.has_turn()

    asyncio.run(story())


def test_what_has_to_wait_for_a_commit_is_not_looked_after_again_and_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            mallory, alice, bob = await _friends(w, "mallory", "alice", "bob")
            await mallory.groups()[0].change_rules(receipts=True)
            await bob.groups()[0].send("hello")
            await w.settle()
            group = alice.groups()[0]
            group.mark_read(group.unread()[-1])
            w.now += RECEIPT_DELAY[1]
            assert group._conversation.has_turn()
            await _post_refused(mallory)
            with LONGEST:
                await w.settle("alice", rounds=1)
                assert not group._conversation.has_turn()
                w.now += END_WAIT
                await w.settle("alice")
            await w.settle("bob")
            assert [m.seen_by for m in bob.groups()[0].history()] == [(alice.user,)]

    asyncio.run(story())


def test_all_members_may_leave_at_the_same_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            clients = await _friends(w, "alice", "bob", "carol")
            for client in clients:
                await client.groups()[0].leave_anyway()
            told = await w.settle()
            w.now += 60
            for label, events in (await w.settle()).items():
                told[label] += events
            for client, label in zip(clients, ("alice", "bob", "carol"), strict=True):
                assert client.groups()[0].status == "left"
                (out,) = [e for e in told[label] if isinstance(e, RemovedFromGroup)]
                assert out.by == client.user

    asyncio.run(story())


def test_who_proposes_to_remove_all_others_takes_nobody_s_turn(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, mallory = await _friends(w, "alice", "bob", "mallory")
            before = alice.groups()[0].epoch
            for proposal in _propose_removes(mallory):
                await mallory.tools.delivery.append(proposal)
            await w.settle("alice", "bob")
            w.now += 60
            assert alice.groups()[0]._conversation.has_turn()
            await w.settle("alice", "bob")
            assert alice.groups()[0].epoch == before + 1
            assert set(bob.groups()[0].members()) == {alice.user, bob.user, mallory.user}

    asyncio.run(story())


def test_two_devices_of_one_user_that_ask_by_a_link_are_let_in_together(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _friends(w, "alice", "bob")
            carol, phone = await w.device("carol"), await w.device("phone", "carol")
            await alice.groups()[0].change_rules(links="open")
            for client in (carol, phone):
                await client.join(alice.groups()[0].link())
            told = await w.settle("alice")
            w.now += 60
            told["alice"] += (await w.settle("alice"))["alice"]
            await w.settle()
            assert alice.groups()[0].members()[CAROL] == 2
            (added,) = [e for e in told["alice"] if isinstance(e, MembersAdded)]
            assert added.users == (CAROL,)
            assert {c.groups()[0].status for c in (carol, phone)} == {"active"}

    asyncio.run(story())


def test_a_welcome_that_the_service_says_comes_too_late_ends_what_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            group, asked = await alice.create_group("Friends"), list[object]()

            def refuse(request: Any, answer: Any) -> Any:
                asked.append(request)
                if len(asked) < 30:
                    raise Refused(api.ErrorCode.EPOCH_ENDED, "too late", retry_after=1)
                return answer

            w.weather.tamper["inboxes/post"] = refuse
            group._conversation.want(Intent(IntentKind.ADD, bob.user.encode()))
            with pytest.raises(Refused, match="too late"):
                await group.sync()
            assert len(asked) == 1
            assert group.waiting() == 1
            del w.weather.tamper["inboxes/post"]
            await w.settle()
            assert bob.groups()[0].status == "active"

    asyncio.run(story())


def test_whom_nobody_can_add_to_this_group_holds_up_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _friends(w, "alice", "bob")
            code = w.authentication.add_user("carol").code.decode()
            carol = await w.open.enter_async_context(w.profile("carol"))
            # A key for other suites than the group's: the directory has key packages of hers, and none that fits.
            await carol.enrol("carol", code, cipher_suite=2)
            group = alice.groups()[0]
            await group.add("carol")
            told = [e.what for e in alice.pending_events() if isinstance(e, Problem)]
            await group.send("hello")
            assert group.waiting() == 0
            assert told == [
                f"not done: {CAROL} cannot be added: no device of theirs has a key package that fits this group"
            ]
            await w.settle("bob")
            assert texts(bob) == ["hello"]

    asyncio.run(story())


def test_who_never_came_and_is_revoked_is_not_replaced_again_and_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, *_ = [await w.device(name) for name in ("alice", "bob", "dave")]
            group = await alice.create_group("Friends")
            await group.add("bob")
            await w.settle("alice", "bob")
            await group.add("dave")
            await w.settle("alice", "bob")
            w.authentication.revoke_user("dave")
            # Whoever may remove him is away.
            w.now += 15 * DAY
            before = w.weather.paths.count("directory/claim")
            told = []
            for _ in range(5):
                w.now += 600
                told += (await w.settle("bob"))["bob"]
            assert not any(isinstance(e, Problem) for e in told)
            assert w.weather.paths.count("directory/claim") - before <= 1

    asyncio.run(story())


def test_keys_are_to_be_renewed_once_however_long_that_cannot_be_done(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _friends(w, "alice", "bob")
            slow = Refused(api.ErrorCode.RATE_LIMITED, "slowly", retry_after=1)
            with mock.patch("coterie.client.reading.own_turn_to_fill", return_value=True):
                for _ in range(3):
                    with (
                        mock.patch.object(alice.tools.delivery, "append", side_effect=slow),
                        pytest.raises(Refused, match="slowly"),
                    ):
                        await alice.sync()
            assert alice.groups()[0].waiting() == 1

    asyncio.run(story())


def test_whom_the_rate_of_claims_lets_in_is_added_and_nobody_loses_packages_for_the_others(
    tmp_path: Path,
) -> None:
    """A rate of two claims at once, when four are to be added."""

    async def story() -> None:
        async with world(tmp_path) as w:
            alice, *others = [await w.device(name) for name in ("alice", "b", "c", "d", "e")]
            group = await alice.create_group("Friends")
            claim, asked, left = alice.tools.inboxes.claim, list[str](), 2

            async def limited(request: api.Claim) -> api.ClaimResult:
                nonlocal left
                if not left:
                    msg = "too many claims"
                    raise Refused(api.ErrorCode.RATE_LIMITED, msg, retry_after=60)
                left -= 1
                asked.append(request.name.decode())
                return await claim(request)

            with mock.patch.object(alice.tools.inboxes, "claim", limited):
                await group.add("b", "c", "d", "e")
                assert len(group.members()) == 3
                left = 2
                await alice.sync()
                assert len(group.members()) == 5
            assert asked == [client.user for client in others], "each once"
            await w.settle()
            assert all(client.groups() for client in others)

    asyncio.run(story())


def _counting(client: Client, asked: list[str]) -> AbstractContextManager[object]:
    """Notes whose key packages are claimed."""
    claim = client.tools.inboxes.claim

    async def counting(request: api.Claim) -> api.ClaimResult:
        asked.append(request.name.decode().partition("@")[0])
        return await claim(request)

    return mock.patch.object(client.tools.inboxes, "claim", counting)


def test_who_cannot_be_added_is_named_with_all_others_of_the_kind_and_costs_nobody_a_key_package(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, *others = [await w.device(name) for name in ("alice", "bob", "carol")]
            code = w.authentication.add_user("erin").code.decode()
            erin = await w.open.enter_async_context(w.profile("erin"))
            await erin.enrol("erin", code, cipher_suite=2)
            group, asked = await alice.create_group("Friends"), list[str]()
            with _counting(alice, asked):
                await group.add("bob", "nobody", "erin", "carol", "noone")
                (problem,) = [e.what for e in alice.pending_events() if isinstance(e, Problem)]
                assert problem == (
                    f"not done: nobody@{REALM}, noone@{REALM} cannot be added: there is no such user, or no device "
                    f"of theirs has logged in; check the name, or try later; erin@{REALM} cannot be added: no device "
                    "of theirs has a key package that fits this group; the others were not added either"
                )
                assert (list(group.members()), group.waiting()) == ([alice.user], 0)
                asked.clear()
                await group.add("bob", "noone", "carol")
                assert asked == ["noone"]
                await group.add("bob", "carol")
                assert asked == ["noone"]
                await w.settle()
                await group.send("hello")
                await w.settle()
                assert [texts(client) for client in others] == [["hello"], ["hello"]]
                # Each is used once.
                await (await alice.create_group("Club")).add("bob")
                assert asked == ["noone", "bob"]

    asyncio.run(story())


@pytest.mark.parametrize(("later", "again"), [(3600, []), (3601, ["bob"])])
def test_what_was_claimed_in_vain_is_kept_for_a_while_only(
    tmp_path: Path, later: int, again: list[str]
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, *_ = [await w.device(name) for name in ("alice", "bob", "carol")]
            group, asked = await alice.create_group("Friends"), list[str]()
            await group.add("bob", "carol", "nobody")
            w.now += later
            with _counting(alice, asked):
                await group.add("bob")
            assert asked == again
            assert len(group.members()) == 2
            # What is out of date is forgotten with it.
            carols = alice.vault.claim(int(group._conversation.group.context.cipher_suite), CAROL)
            assert (carols is None) is bool(again)

    asyncio.run(story())


def test_what_was_claimed_before_the_directory_lied_is_kept(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, *_ = [await w.device(name) for name in ("alice", "bob", "carol")]
            group, asked = await alice.create_group("Friends"), list[str]()
            claim = alice.tools.inboxes.claim

            async def lying(request: api.Claim) -> api.ClaimResult:
                result = await claim(request)
                if request.name.decode() != CAROL:
                    return result
                return api.ClaimResult((result.packages[0].replace(key_package=b"none"),))

            with mock.patch.object(alice.tools.inboxes, "claim", lying):
                await group.add("bob", "carol")
            assert any(isinstance(e, Problem) for e in alice.pending_events())
            with _counting(alice, asked):
                await group.add("bob", "carol")
            assert asked == ["carol"]
            assert len(group.members()) == 3

    asyncio.run(story())
