"""Coming back to a group: who may ask for it, and what becomes of who did not (delivery protocol, section 10)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from coterie.client import Client, creating
from coterie.client.box import (
    check_request,
    request_to_return,
    return_request,
    signed_request,
)
from coterie.client.events import MembersReturned, Problem
from coterie.client.identity import Package, read_key_package
from coterie.client.intents import ClaimedPackage, Intent, IntentKind
from coterie.client.mailbox import STOCK
from coterie.errors import ServiceError, StateError, VerificationError
from coterie.mls.framing import MLSMessage
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.refusal import Refused, Unreachable
from tests.client_world import REALM, World, world

DAY = 24 * 3600


async def _two(w: World) -> tuple[Client, Client]:
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    await (await alice.create_group("Friends")).add("bob")
    await w.settle()
    return alice, bob


def _request(package: Package, log_id: bytes) -> api.RequestTBS:
    message = MLSMessage.of(package.bundle.key_package).encode()
    return api.RequestTBS(
        log_id, api.RequestKind.RETURN, message, bytes(32), 1, api.Replaced(1, bytes(32))
    )


def test_a_request_is_signed_by_who_made_its_key_package_and_for_one_log(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            mine, others = (c.identity.new_package(w.now) for c in (alice, bob))
            tbs = _request(mine, b"l" * 32)
            package = mine.bundle.key_package
            good = signed_request(mine, tbs)
            check_request(good, package, b"l" * 32)
            for bad, log_id in (
                (signed_request(others, tbs), b"l" * 32),
                (good.replace(tbs=tbs.replace(ticket=b"t" * 32)), b"l" * 32),
                (good, b"m" * 32),
            ):
                with pytest.raises(VerificationError) as failed:
                    check_request(bad, package, log_id)
                assert failed.value.rule == "D-BOX-10"

    asyncio.run(story())


def test_a_request_longer_than_any_size_of_a_box_is_not_made(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            package = alice.identity.new_package(w.now)
            line = alice._conversations[alice.groups()[0].id].line
            tbs = _request(package, b"l" * 32)
            return_request(line, signed_request(package, tbs.replace(note=bytes(10_000))))
            with pytest.raises(StateError, match="does not fit a box"):
                return_request(line, signed_request(package, tbs.replace(note=bytes(17_000))))

    asyncio.run(story())


def test_a_request_to_come_back_is_its_own_clients_and_of_now(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            group = alice.groups()[0].id
            line = bob._conversations[group].line
            node = line.group.member(line.group.own_leaf).node
            fresh, old = (bob.identity.new_package(now) for now in (w.now, w.now - 400 * DAY))
            others = alice.identity.new_package(w.now)
            stolen = replace(
                fresh, bundle=replace(fresh.bundle, signature_key=alice.identity.signature_key)
            )

            def taken(package: Package, log_id: bytes) -> bool:
                request = request_to_return(
                    log_id, package, bytes(32), node, line.group.own_leaf, now=w.now
                )
                with alice.vault.step() as step:
                    return alice._conversations[group].take_request(step, request)

            log_id = line.binding.log_id
            assert not taken(old, log_id)
            assert not taken(stolen, log_id)
            assert not taken(others, log_id)
            assert not taken(fresh, b"m" * 32)
            assert taken(fresh, log_id)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "asked"), [(api.ErrorCode.GONE, True), (api.ErrorCode.BAD_TOKEN, False)]
)
def test_members_are_asked_where_the_box_is_gone_and_not_where_it_refuses(
    tmp_path: Path, code: api.ErrorCode, asked: bool
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob = await _two(w)
            conversation = bob._conversations[bob.groups()[0].id]
            with bob.vault.step() as step:
                step.set_status(conversation.id, "stuck", "for a test")
            refused = Refused(code, "no", rule="D-BOX-1")
            w.weather_of["bob"].paths.clear()
            with (
                mock.patch.object(DeliveryClient, "post_request", side_effect=refused),
                suppress(Refused),
            ):
                await bob.sync()
            assert ("directory/claim" in w.weather_of["bob"].paths) == asked

    asyncio.run(story())


async def _add_again(w: World, alice: Client, ticket: bytes | None = None) -> None:
    """Alice removes Bob and adds him in one Commit, with a package out of the directory."""
    suites = (alice.identity.suite.cipher_suite,)
    claim = api.Claim(api.DeliveryVersion.COTERIE1, f"bob@{REALM}".encode(), suites)
    claimed = (await alice.tools.inboxes.claim(claim)).packages[0]
    conversation = alice._conversations[alice.groups()[0].id]
    leaf = conversation.users()[f"bob@{REALM}"][0]
    node = conversation.group.member(leaf).node
    replaced = api.Replaced(leaf, api.sha256(node.encode()))
    package = ClaimedPackage(claimed.key_package, ticket or claimed.ticket)
    conversation.want(Intent(IntentKind.READD, replaced.encode(), (package,)))
    assert read_key_package(claimed.key_package).leaf_node.signature_key == node.signature_key
    await alice.sync()


def test_who_was_added_again_in_its_absence_follows_the_welcome(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await _add_again(w, alice)
            await bob.sync()
            assert bob.groups()[0].status == "active"
            assert bob.groups()[0].epoch_authenticator == alice.groups()[0].epoch_authenticator

    asyncio.run(story())


def test_who_was_added_again_without_a_welcome_asks_after_a_day(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await _add_again(w, alice, ticket=bytes(32))
            await bob.sync()
            group = bob.groups()[0]
            assert group.status == "stuck"
            w.now += DAY // 2
            await w.settle()
            assert group.status == "stuck"
            w.now += DAY
            await w.settle(rounds=3)
            assert group.status == "active"
            assert group.epoch_authenticator == alice.groups()[0].epoch_authenticator

    asyncio.run(story())


async def _lost_welcome(w: World) -> tuple[Client, Client, Client]:
    """Alice's Commit that adds Carol was accepted, and she does not know."""
    alice, bob = await _two(w)
    carol = await w.device("carol")
    claimed = await alice.tools.inboxes.claim(
        api.Claim(
            api.DeliveryVersion.COTERIE1,
            f"carol@{REALM}".encode(),
            (alice.identity.suite.cipher_suite,),
        )
    )
    conversation = alice._conversations[alice.groups()[0].id]
    packages = tuple(ClaimedPackage(c.key_package, c.ticket) for c in claimed.packages)
    conversation.want(Intent(IntentKind.ADD, f"carol@{REALM}".encode(), packages))
    await alice.tools.refresh()
    w.weather.tamper["logs/append"] = lambda _request, _answer: _lost()
    with pytest.raises(ServiceError):
        await alice.sync()
    del w.weather.tamper["logs/append"]
    return alice, bob, carol


def _lost() -> api.Appended:
    raise ServiceError("the answer was lost", retry_after=0)


def test_a_welcome_that_cannot_be_sent_any_more_is_replaced_by_another(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _lost_welcome(w)
            real, dropped = alice.tools.delivery.append, [alice.groups()[0].epoch]

            async def append(request: api.Append) -> api.Appended:
                if dropped:
                    dropped.pop()
                    raise Refused(api.ErrorCode.GONE, "the epoch was dropped", rule="D-REC-8")
                return await real(request)

            with mock.patch.object(alice.tools.delivery, "append", append):
                await alice.sync()
            await w.settle()
            assert [c.groups()[0].status for c in (alice, bob, carol)] == ["active"] * 3
            assert len({c.groups()[0].epoch_authenticator for c in (alice, bob, carol)}) == 1

    asyncio.run(story())


def test_who_had_to_come_back_itself_invites_again_whom_it_had_added(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _lost_welcome(w)
            with alice.vault.step() as step:
                step.set_status(alice.groups()[0].id, "stuck", "a path secret did not open")
            await w.settle(rounds=4)
            assert [c.groups()[0].status for c in (alice, bob, carol)] == ["active"] * 3
            assert alice.groups()[0].waiting() == 0
            assert len({c.groups()[0].epoch_authenticator for c in (alice, bob, carol)}) == 1

    asyncio.run(story())


def test_whom_two_claimed_with_one_last_package_the_second_leaves_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            carol = await w.device("carol")
            user = f"carol@{REALM}".encode()
            claim = api.Claim(
                api.DeliveryVersion.COTERIE1, user, (alice.identity.suite.cipher_suite,)
            )
            seen = [(await bob.tools.inboxes.claim(claim)).packages[0] for _ in range(STOCK + 2)]
            last = seen[-1]
            assert last.key_package == seen[-2].key_package
            conversation = bob._conversations[bob.groups()[0].id]
            kept = ClaimedPackage(last.key_package, last.ticket)
            conversation.want(Intent(IntentKind.ADD, user, (kept,)))
            await alice.groups()[0].add("carol")
            await w.settle()
            events = [event for client in (alice, bob, carol) for event in client.pending_events()]
            assert not [event for event in events if isinstance(event, MembersReturned)]
            assert bob.groups()[0].waiting() == 0
            assert len({c.groups()[0].epoch_authenticator for c in (alice, bob, carol)}) == 1

    asyncio.run(story())


@pytest.mark.parametrize("status", ["stuck", "left", "stopped"])
def test_another_group_with_the_same_id_does_not_take_the_place_of_the_history(
    tmp_path: Path, status: str
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("among friends")
            await w.settle()
            group_id = bytes.fromhex(bob.groups()[0].id)
            if status == "left":
                await alice.groups()[0].remove("bob")
                await w.settle()
            else:
                with bob.vault.step() as step:
                    step.set_status(bob.groups()[0].id, status, "for a test")
            eve = await w.device("eve")
            drawn = [b"l" * 32, group_id]
            drawing = SimpleNamespace(token_bytes=lambda _: drawn.pop(0))
            with mock.patch.object(creating, "secrets", drawing):
                trap = await eve.create_group("Friends")
            await trap.add("bob")
            await bob.sync()
            assert f"bob@{REALM}" in trap.members()
            problems = [e.what for e in bob.pending_events() if isinstance(e, Problem)]
            assert any(
                "another log" in what or "in a group with the id" in what for what in problems
            ), problems
            assert bob.groups()[0].status == status

    asyncio.run(story())


def test_nobody_but_the_user_takes_a_device_back_into_a_log_that_contradicted_itself(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            with bob.vault.step() as step:
                step.set_status(bob.groups()[0].id, "stopped", "for a test")
            await _add_again(w, alice)
            await bob.sync()
            assert bob.groups()[0].status == "stopped"

    asyncio.run(story())


def test_an_invitation_is_kept_until_the_removal_before_it_can_be_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            group = alice.groups()[0]
            await group.remove("bob")
            await group.add("bob")
            for refusal in (_away, _refused):
                w.weather.tamper["logs/read"] = refusal
                with pytest.raises(ServiceError):
                    await bob.sync()
                del w.weather.tamper["logs/read"]
            assert bob.pending_events() == []
            await w.settle("bob")
            assert bob.groups()[0].status == "active"
            assert bob.groups()[0].epoch_authenticator == group.epoch_authenticator
            stored = bob.identity.stored
            left = await w.delivery.read_inbox(
                api.ReadInbox(stored.inbox_id, bytes(stored.inbox_token))
            )
            assert left.items == ()

    def _away(_request: api.Read, _answer: api.ReadResult) -> api.ReadResult:
        raise Unreachable("no answer", retry_after=0)

    def _refused(_request: api.Read, _answer: api.ReadResult) -> api.ReadResult:
        raise Refused(api.ErrorCode.RATE_LIMITED, "too many reads", retry_after=1)

    asyncio.run(story())


def test_of_several_invitations_to_a_group_the_last_one_leads_into_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            group = await alice.create_group("Friends")
            for _ in range(3):
                await group.add("bob")
                await group.remove("bob")
            await group.add("bob")
            told = await w.settle("bob")
            assert bob.groups()[0].status == "active"
            assert bob.groups()[0].epoch_authenticator == group.epoch_authenticator
            assert not [event for event in told["bob"] if isinstance(event, Problem)]

    asyncio.run(story())
