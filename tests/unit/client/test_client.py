"""What a client does for its user, over services in the same process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.client.client import Client
from coterie.client.content import LATEST, Content, ContentType
from coterie.client.events import (
    Joined,
    MembersAdded,
    MembersRemoved,
    MessageReceived,
    Problem,
    RemovedFromGroup,
    Renamed,
)
from coterie.client.intents import Intent, IntentKind
from coterie.errors import ServiceError, StateError
from coterie.storage import MessageState, StorageKey
from coterie.transport import api, as_api
from coterie.transport.authentication import AuthenticationClient
from tests.client_world import REALM, World, texts, world


async def _three(w: World) -> tuple[Client, Client, Client]:
    alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
    group = await alice.create_group("Friends")
    await group.add("bob", f"carol@{REALM}")
    await w.settle()
    return alice, bob, carol


def _same(*clients: Client) -> bool:
    return len({c.groups()[0].epoch_authenticator for c in clients}) == 1


def test_a_group_is_made_joined_and_written_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            assert _same(alice, bob, carol)
            assert alice.groups()[0].members() == {
                f"{n}@{REALM}": 1 for n in ("alice", "bob", "carol")
            }
            await bob.groups()[0].send("hello")
            told = await w.settle()
            for label in ("alice", "carol"):
                received = [e for e in told[label] if isinstance(e, MessageReceived)]
                assert [(e.sender, e.text) for e in received] == [(f"bob@{REALM}", "hello")]
            assert bob.groups()[0].history()[0].state == MessageState.SENT

    asyncio.run(story())


def test_who_joins_is_told_and_reads_nothing_from_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            bob = await w.device("bob")
            group = await alice.create_group("Friends")
            await group.send("before bob came")
            await group.add("bob")
            told = await w.settle()
            assert any(isinstance(e, Joined) and e.name == "Friends" for e in told["bob"])
            assert texts(bob) == []

    asyncio.run(story())


def test_who_leaves_is_told_of_as_one_who_left(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await carol.groups()[0].leave()
            told = await w.settle()
            w.now += 60
            told = {label: told[label] + more for label, more in (await w.settle()).items()}
            removed = [e for e in told["bob"] if isinstance(e, MembersRemoved)]
            assert [(e.users, e.by) for e in removed] == [((carol.user,), carol.user)]
            (out,) = [e for e in told["carol"] if isinstance(e, RemovedFromGroup)]
            assert out.by == carol.user
            assert set(alice.groups()[0].members()) == {alice.user, bob.user}

    asyncio.run(story())


def test_who_logs_out_is_out_of_all_groups_revoked_and_keeps_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.create_group("Others")
            await alice.groups()[-1].add("bob")
            await w.settle()
            await bob.log_out()
            assert not list((tmp_path / "bob").glob("*"))
            del w.clients["bob"]
            w.now += 60
            await w.settle()
            assert all(bob.user not in group.members() for group in alice.groups())
            serials = alice.identity.revoked_serials()
            w.now += 3600
            await alice.sync()
            assert len(alice.identity.revoked_serials()) == len(serials) + 1

    asyncio.run(story())


def test_a_revoked_device_can_still_log_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol = await _three(w)
            w.authentication.revoke_user("carol")
            await carol.log_out()
            assert not list((tmp_path / "carol").glob("*"))
            alice.wipe()
            assert not list((tmp_path / "alice").glob("*"))

    asyncio.run(story())


def test_a_removed_device_is_told_and_reads_nothing_more(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            await alice.groups()[0].remove("carol")
            await alice.groups()[0].send("without carol")
            told = await w.settle()
            assert any(isinstance(e, RemovedFromGroup) for e in told["carol"])
            assert texts(carol) == []
            assert texts(bob) == ["without carol"]
            with pytest.raises(StateError, match="not in the group"):
                await carol.groups()[0].send("hello?")

    asyncio.run(story())


def test_only_administrators_add_and_remove(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob, carol = await _three(w)
            await w.device("dave")
            await bob.groups()[0].add("dave")
            await bob.groups()[0].remove("carol")
            problems = [e.what for e in bob.pending_events() if isinstance(e, Problem)]
            assert len(problems) == 2
            assert all("may not" in what for what in problems)
            await w.settle()
            assert f"carol@{REALM}" in bob.groups()[0].members()
            assert carol.groups()[0].status == "active"

    asyncio.run(story())


def test_a_group_is_renamed_for_everybody(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await bob.groups()[0].rename("Best friends")
            told = await w.settle()
            assert any(isinstance(e, Renamed) for e in told["carol"])
            assert alice.group("Best friends").name == "Best friends"

    asyncio.run(story())


def test_who_leaves_and_commits_before_the_others_do_is_removed_all_the_same(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            await (await alice.create_group("Friends")).add("bob")
            await w.settle()
            await bob.groups()[0].leave()
            # Nobody can remove itself: bob's own Commit ends the epoch in which that was proposed.
            await bob.groups()[0].renew_keys()
            await w.settle(rounds=3)
            assert bob.groups()[0].status == "left"
            assert set(alice.groups()[0].members()) == {alice.user}

    asyncio.run(story())


def test_who_leaves_is_removed_by_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob, carol = await _three(w)
            await carol.groups()[0].leave()
            await w.settle()
            w.now += 60
            await w.settle()
            assert carol.groups()[0].status == "left"
            assert f"carol@{REALM}" not in bob.groups()[0].members()

    asyncio.run(story())


def test_a_second_device_is_added_with_its_user(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            phone = await w.device("bob-phone", "bob")
            await alice.groups()[0].add("bob")
            told = await w.settle()
            assert any(isinstance(e, MembersAdded) for e in told["bob"])
            assert alice.groups()[0].members()[f"bob@{REALM}"] == 2
            assert _same(alice, bob, phone)

    asyncio.run(story())


def test_what_is_wanted_while_the_service_is_away_happens_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            w.weather.lose_request = 1.0
            await alice.groups()[0].send("one")
            await alice.groups()[0].rename("Later")
            await alice.groups()[0].send("two")
            assert alice.groups()[0].waiting() == 3
            with pytest.raises(ServiceError):
                await alice.sync()
            w.weather.lose_request = 0.0
            await w.settle()
            assert texts(bob) == ["one", "two"]
            assert bob.groups()[0].name == "Later"

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(4))
def test_lost_requests_and_answers_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            clients = await _three(w)
            w.weather.random.seed(seed)
            w.weather.lose_request = w.weather.lose_answer = 0.15
            wanted: list[str] = []
            for n in range(12):
                client = clients[n % 3]
                wanted.append(f"text {n}")
                await client.groups()[0].send(wanted[-1])
                if n % 4 == 0:
                    await client.groups()[0].renew_keys()
                for other in clients:
                    try:
                        await other.sync()
                    except ServiceError:
                        continue
            w.weather.lose_request = w.weather.lose_answer = 0.0
            await w.settle(rounds=4)
            assert _same(*clients)
            for client in clients:
                assert sorted(texts(client)) == sorted(wanted)

    asyncio.run(story())


def test_a_client_that_is_opened_again_goes_on_where_it_was(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.groups()[0].send("to whom it may concern")
            await w.open.aclose()
            w.clients.clear()
            for label in ("alice", "bob", "carol"):
                w.clients[label] = await w.open.enter_async_context(w.profile(label))
            await w.settle()
            assert texts(w.clients["bob"]) == ["to whom it may concern"]
            await w.clients["bob"].groups()[0].send("read")
            await w.settle()
            assert texts(w.clients["carol"]) == ["to whom it may concern", "read"]
            del bob

    asyncio.run(story())


def test_a_profile_restored_from_a_copy_sends_nothing_and_is_added_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            w.clients.pop("bob")
            bob.vault.profile.backup(tmp_path / "copy")
            await bob.groups()[0].send("after the copy was made")
            await w.settle()
            async with Client.open(
                tmp_path / "copy",
                StorageKey.given(b"bob".ljust(32, b"\0")),
                clock=w.clock,
                welcome_delay=0.0,
                network=w.network(),
                durable=False,
            ) as restored:
                await restored.sync()
                assert restored.groups()[0].status == "stuck"
                w.clients["restored"] = restored
                await w.settle(rounds=3)
                assert restored.groups()[0].status == "active"
                await restored.groups()[0].send("back")
                await w.settle("alice", "carol", "restored")
                assert texts(alice) == ["after the copy was made", "back"]
                assert alice.groups()[0].members()[f"bob@{REALM}"] == 1
                w.clients.pop("restored")

    asyncio.run(story())


def test_a_member_that_a_commit_left_behind_comes_back_by_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            group = bob.groups()[0]
            with bob.vault.step() as step:
                step.set_status(group.id, "stuck", "a path secret did not open")
            await w.settle(rounds=3)
            assert group.status == "active"
            assert _same(alice, bob, carol)
            await group.send("here I am")
            await w.settle()
            assert texts(carol) == ["here I am"]

    asyncio.run(story())


def test_a_revoked_user_is_not_added(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, _ = await _three(w)
            await w.device("dave")
            w.authentication.revoke_user("dave")
            w.now += 3600
            await alice.groups()[0].add("dave")
            problems = [e.what for e in alice.pending_events() if isinstance(e, Problem)]
            assert len(problems) == 1
            assert "revoked" in problems[0]
            assert f"dave@{REALM}" not in alice.groups()[0].members()

    asyncio.run(story())


def test_certificates_and_keys_are_renewed_on_schedule(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            clients = await _three(w)
            before = [c.identity.credential for c in clients]
            epoch = clients[0].groups()[0].epoch
            lifetime = w.authentication.settings.certificate_lifetime
            w.now += lifetime * 3 // 4
            await w.settle(rounds=3)
            assert all(c.identity.credential != old for c, old in zip(clients, before, strict=True))
            assert clients[0].groups()[0].epoch > epoch
            assert _same(*clients)
            leaves = {
                n.credential.encode()
                for _, n in clients[0]
                .tools.vault.load_group(clients[0].groups()[0].id, clients[0].tools.config)
                .tree.members()
            }
            assert leaves == {c.identity.credential.encode() for c in clients}

    asyncio.run(story())


@pytest.mark.parametrize("who", ["alice", "bob", "delivery"])
@pytest.mark.parametrize("by", [-3600, 3600])
def test_a_clock_that_is_off_by_an_hour_stops_nobody(tmp_path: Path, who: str, by: int) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            w.wrong_by[who] = by
            await alice.groups()[0].send("what time is it?")
            await bob.groups()[0].rename("Late")
            await w.device("dave")
            await alice.groups()[0].add("dave")
            await w.settle()
            await w.clients["dave"].groups()[0].send("here")
            await w.settle()
            assert texts(bob) == ["what time is it?", "here"]
            assert _same(*w.clients.values())

    asyncio.run(story())


def test_events_are_given_out_in_one_place_and_none_is_lost_when_that_changes(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            group = await alice.create_group("Friends")
            await group.add("bob")
            await group.send("one")
            before, after = bob.events(poll=0.1), bob.events(poll=0.1)
            first = await anext(before)
            second = await anext(after)
            with pytest.raises(StateError, match="read elsewhere"):
                await anext(before)
            assert [type(event).__name__ for event in (first, second)] == [
                "Joined",
                "MessageReceived",
            ]
            await group.send("two")
            assert isinstance(await anext(after), MessageReceived)

    asyncio.run(story())


@pytest.mark.parametrize("when", [2**64 - 1, (2**63 - 1) // 1000, LATEST + 1])
def test_a_text_with_an_impossible_time_holds_up_nothing(tmp_path: Path, when: int) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            forged = Content(b"sixteen bytes id", when, ContentType.TEXT, b"late")
            group = alice.groups()[0]
            alice._conversations[group.id].want(Intent(IntentKind.SEND, forged.encode()))
            await group.sync()
            await group.send("after it")
            await bob.sync()
            late, after = bob.groups()[0].unread()
            assert (late.text, after.text) == ("late", "after it")
            assert late.sent_at == late.received_at

    asyncio.run(story())


def test_an_answer_that_does_not_verify_costs_no_text_that_waits(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            (group,) = alice.groups()
            conversation = alice._conversations[group.id]
            conversation.line.state = conversation.line.state.replace(
                head=conversation.line.state.head.replace(signature=bytes(64))
            )
            assert conversation.line.unconfirmed
            conversation.want_text("kept")

            def unsigned(_request: api.Read, answer: api.ReadResult) -> api.ReadResult:
                return answer.replace(head=answer.head.replace(signature=bytes(64)))

            w.weather.tamper["logs/read"] = unsigned
            with pytest.raises(ServiceError, match="receipt"):
                await conversation._do(*alice.vault.intents(group.id)[0])
            assert group.waiting() == 1
            del w.weather.tamper["logs/read"]
            conversation.forget()
            await w.settle()
            assert texts(bob)[-1] == "kept"

    asyncio.run(story())


def test_a_code_whose_answer_was_lost_is_good_for_this_device_also_after_a_restart(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            code = w.authentication.add_user("alice").code.decode()
            real = AuthenticationClient.enrol

            async def lost(*given: Any) -> as_api.Issued:
                await real(*given)
                raise ServiceError("the answer was lost", retry_after=1)

            with mock.patch.object(AuthenticationClient, "enrol", lost):
                async with w.profile("alice") as client:
                    with pytest.raises(ServiceError, match="lost"):
                        await client.enrol("alice", code)
            async with w.profile("alice") as client:
                await client.enrol("alice", code)
                assert client.user == f"alice@{REALM}"
                assert client.vault.attempt() is None
            async with w.profile("mallory") as other:
                with pytest.raises(ServiceError, match="wrong, used"):
                    await other.enrol("alice", code)

    asyncio.run(story())
