"""What one member, one box, one group or one answer is worth: it holds up nothing but what it is about."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from coterie.client import Client
from coterie.client.box import return_request, signed_request
from coterie.client.content import DAY, INBOX_EXTENSION
from coterie.client.conversation import Conversation
from coterie.client.events import Event, Joined, MessageReceived, Problem
from coterie.client.identity import Identity, Package, read_key_package
from coterie.client.intents import ClaimedPackage, Intent, IntentKind
from coterie.client.mailbox import STOCK
from coterie.errors import ServiceError
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import create_key_package
from coterie.transport import api
from coterie.transport.refusal import Refused
from tests.client_world import REALM, World, texts, world

_BAD_INBOXES: dict[str, Callable[[Identity], list[Extension]]] = {
    "none": lambda _: [],
    "junk": lambda _: [Extension(INBOX_EXTENSION, b"x")],
    "a short key": lambda i: [_inbox(i, b"key")],
    "a key of small order": lambda i: [_inbox(i, bytes(32))],
}
"""Inboxes that no Welcome can be sealed for."""


def _inbox(identity: Identity, key: bytes) -> Extension:
    return Extension(INBOX_EXTENSION, api.InboxInfo(identity.stored.inbox_id, key).encode())


def _package(client: Client, now: int, extensions: list[Extension]) -> Package:
    """A valid key package of a client, but for where its Welcome goes."""
    identity = client.identity
    bundle = create_key_package(
        identity.suite,
        identity.signature_key,
        identity.credential,
        identity.capabilities(),
        identity.lifetime(now),
        rng=secrets.token_bytes,
        extensions=extensions,
    )
    return Package(bundle, identity.new_package(now).inbox_key, last_resort=False)


def _message(package: Package) -> bytes:
    return MLSMessage.of(package.bundle.key_package).encode()


def _conversation(client: Client, number: int = 0) -> Conversation:
    return client._conversations[client.groups()[number].id]


def _problems(told: list[Event]) -> list[str]:
    return [event.what for event in told if isinstance(event, Problem)]


def _refuse(code: api.ErrorCode, retry_after: float | None = None) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise Refused(code, "not now", retry_after=retry_after)

    return refuse


async def _two(w: World, other: str = "bob") -> tuple[Client, Client]:
    alice, second = [await w.device(name) for name in ("alice", other)]
    await (await alice.create_group("Friends")).add(other)
    await w.settle()
    return alice, second


@pytest.mark.parametrize("bad", _BAD_INBOXES)
def test_a_request_to_return_that_no_welcome_can_answer_is_passed_over(
    tmp_path: Path, bad: str
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, mallory = await _two(w, "mallory")
            line = _conversation(mallory).line
            package = _package(mallory, w.now, _BAD_INBOXES[bad](mallory.identity))
            leaf = line.group.member(line.group.own_leaf)
            tbs = api.RequestTBS(
                line.binding.log_id,
                api.RequestKind.RETURN,
                _message(package),
                bytes(32),
                w.now,
                api.Replaced(leaf.leaf, api.sha256(leaf.node.encode())),
            )
            request = return_request(line, signed_request(package, tbs))
            await mallory.tools.delivery.post_request(request)
            await w.settle("alice")
            assert alice.tools.counters["requests passed over"] == 1
            assert alice.groups()[0].waiting() == 0

    asyncio.run(story())


@pytest.mark.parametrize("bad", _BAD_INBOXES)
def test_who_cannot_be_invited_takes_no_invitation_from_the_others(
    tmp_path: Path, bad: str
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            carol, mallory = await w.device("carol"), await w.device("mallory")
            conversation = _conversation(alice)
            good = await conversation._claim_of(f"carol@{REALM}")
            package = _package(mallory, w.now, _BAD_INBOXES[bad](mallory.identity))
            claimed = (ClaimedPackage(_message(package), bytes(32)), *good)
            users = f"carol@{REALM} mallory@{REALM}".encode()
            conversation.want(Intent(IntentKind.ADD, users, claimed))
            told = await w.settle()
            assert carol.groups()[0].status == "active"
            assert mallory.groups() == []
            assert len(_problems(told["alice"])) == 1
            assert alice.groups()[0].waiting() == 0

    asyncio.run(story())


def test_an_add_that_another_proposed_is_committed_and_stops_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, mallory = await _two(w, "mallory")
            await alice.groups()[0].change_rules(may_add="members")
            carol = await w.device("carol")
            await w.settle()
            conversation = _conversation(mallory)
            line = conversation.line
            [claimed] = await conversation._claim_of(f"carol@{REALM}")
            package = read_key_package(claimed.key_package).validate(
                line.group.suite, mallory.tools.config.authenticator, now=w.now
            )
            message = line.group.propose_add(package, now=w.now)
            await mallory.tools.delivery.append(line.message(api.ContentKind.PROPOSAL, message))
            await alice.sync()
            await alice.groups()[0].send("hello")
            assert f"carol@{REALM}" in alice.groups()[0].members()
            assert alice.groups()[0].waiting() == 0
            await w.settle()
            assert texts(mallory) == ["hello"]
            assert carol.groups() == []

    asyncio.run(story())


def test_a_key_package_that_is_none_is_told_and_holds_up_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await w.device("carol")
            w.weather.tamper["directory/claim"] = lambda _, result: result.replace(
                packages=(result.packages[0].replace(key_package=b"junk"),)
            )
            await alice.groups()[0].add("carol")
            await alice.groups()[0].send("hello")
            assert len(_problems(alice.pending_events())) == 1
            await w.settle()
            assert texts(bob) == ["hello"]
            w.weather.tamper.clear()
            await alice.groups()[0].add("carol")
            assert f"carol@{REALM}" in alice.groups()[0].members()

    asyncio.run(story())


def _left_behind(client: Client) -> None:
    with client.vault.step() as step:
        step.set_status(client.groups()[0].id, "stuck", "for a test")


@pytest.mark.parametrize("bad", _BAD_INBOXES)
def test_who_was_left_behind_asks_others_than_who_cannot_be_asked(tmp_path: Path, bad: str) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            mallory = await w.device("mallory")
            await alice.groups()[0].add("mallory")
            await w.settle()
            package = _package(mallory, w.now, _BAD_INBOXES[bad](mallory.identity))

            def claim(request: api.Claim, result: api.ClaimResult) -> api.ClaimResult:
                if not request.name.startswith(b"mallory"):
                    return result
                return result.replace(packages=(api.Claimed(_message(package), bytes(32)),))

            _left_behind(bob)
            w.weather.tamper["boxes/post"] = _refuse(api.ErrorCode.GONE)
            w.weather.tamper["directory/claim"] = claim
            kept = len(bob.vault.packages(bob.identity))
            for _ in range(3):
                await bob.sync()
            assert bob.vault.requested_at(bob.groups()[0].id) == w.now
            assert len(bob.vault.packages(bob.identity)) == kept + 1
            w.weather.tamper.clear()
            await w.settle("alice", "bob")
            assert bob.groups()[0].status == "active"

    asyncio.run(story())


def test_who_was_left_behind_asks_members_where_somebody_has_filled_the_box(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            full = _refuse(api.ErrorCode.QUOTA, 3600)
            w.weather.tamper["boxes/post"] = full
            # What was put into the box after all is not what brings this member back.
            w.weather.tamper["boxes/read"] = lambda _, result: result.replace(items=())
            _left_behind(bob)
            await bob.sync()
            await w.settle()
            assert bob.groups()[0].status == "active"
            assert alice.groups()[0].epoch == bob.groups()[0].epoch

    asyncio.run(story())


def test_requests_that_the_service_refuses_leave_no_keys_behind(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].change_rules(links="ask")
            carol = await w.device("carol")
            kept = len(carol.vault.packages(carol.identity))
            left = len(bob.vault.packages(bob.identity))
            w.weather.tamper["boxes/post"] = _refuse(api.ErrorCode.RATE_LIMITED, 60)
            _left_behind(bob)
            await carol.join(alice.groups()[0].link())
            for _ in range(5):
                w.now += 120
                await carol.sync()
                with pytest.raises(ServiceError):
                    await bob.sync()
            assert len(carol.vault.packages(carol.identity)) == kept
            assert len(bob.vault.packages(bob.identity)) == left
            w.weather.tamper.clear()
            w.now += 120
            await w.settle()
            assert bob.groups()[0].status == "active"
            assert len(alice.groups()[0].requests()) == 1

    asyncio.run(story())


def test_a_full_box_behind_a_link_keeps_no_group_from_being_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            mallory = await w.device("mallory")
            trap = await mallory.create_group("Come in")
            await trap.change_rules(links="ask")
            w.weather.tamper["boxes/post"] = _refuse(api.ErrorCode.QUOTA, 3600)
            await bob.join(trap.link())
            await alice.groups()[0].send("hello")
            posts = w.weather.paths.count("boxes/post")
            for _ in range(3):
                await bob.sync()
            assert texts(bob) == ["hello"]
            assert w.weather.paths.count("boxes/post") == posts + 1

    asyncio.run(story())


def _refuse_log(w: World, log_id: bytes, retry_after: float) -> None:
    """The service answers nothing about one log."""

    def read(request: Any, result: Any) -> Any:
        if request.log_id == log_id:
            raise Refused(api.ErrorCode.RATE_LIMITED, "not now", retry_after=retry_after)
        return result

    w.weather.tamper["logs/read"] = read


async def _three_groups(w: World) -> tuple[Client, Client]:
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    for name in ("one", "two", "three"):
        await (await alice.create_group(name)).add("bob")
    await w.settle()
    return alice, bob


def test_a_group_that_the_service_refuses_holds_up_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _three_groups(w)
            first, *others = (_conversation(bob, n) for n in range(3))
            for group in alice.groups():
                await group.send("hello")
            _refuse_log(w, first.line.binding.log_id, 1e9)
            with pytest.raises(ServiceError):
                await bob.sync()
            read = {n: [m.text for m in bob.group(n).history()] for n in (c.id for c in others)}
            assert list(read.values()) == [["hello"], ["hello"]]
            w.weather.tamper.clear()
            await bob.sync()
            assert [m.text for m in bob.group(first.id).history()] == ["hello"]

    asyncio.run(story())


def test_a_group_that_the_service_refuses_for_long_puts_nobody_to_sleep(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _three_groups(w)
            _refuse_log(w, _conversation(bob).line.binding.log_id, 1e9)
            bob.pending_events()

            async def listen() -> str:
                async for event in bob.events(poll=0.5):
                    if isinstance(event, MessageReceived):
                        return event.text
                raise AssertionError

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.2)
            await alice.group("three").send("hello")
            async with asyncio.timeout(20):
                assert await listening == "hello"

    asyncio.run(story())


@pytest.mark.parametrize("code", [api.ErrorCode.RATE_LIMITED, api.ErrorCode.INTERNAL])
def test_an_inbox_that_deletes_nothing_holds_up_nothing(
    tmp_path: Path, code: api.ErrorCode
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            group = await alice.create_group("More")
            await group.add("bob")
            await alice.group("Friends").send("hello")
            # Before it deletes anything: what is there is given again and again.
            handlers = w.delivery._handlers
            works, handlers["inboxes/ack"] = handlers["inboxes/ack"], _refuse(code, 1)
            told = (await w.settle("bob", rounds=3))["bob"]
            assert [type(event) for event in told].count(Joined) == 1
            assert [m.text for m in bob.group("Friends").history()] == ["hello"]
            assert bob.tools.counters[f"acknowledging refused: {code.name.lower()}"] == 3
            # Once the service takes it, it is asked no more.
            handlers["inboxes/ack"] = works
            await bob.sync()
            asked = w.weather.paths.count("inboxes/ack")
            await bob.sync()
            assert w.weather.paths.count("inboxes/ack") == asked

    asyncio.run(story())


def test_an_inbox_that_cannot_be_read_keeps_no_group_from_being_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("hello")
            w.weather.tamper["inboxes/read"] = _refuse(api.ErrorCode.RATE_LIMITED, 1)
            with pytest.raises(Refused, match="not now"):
                await bob.sync()
            assert texts(bob) == ["hello"]

    asyncio.run(story())


def test_key_packages_that_the_directory_refuses_leave_no_keys_behind(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob = await _two(w)
            w.now += 80 * DAY
            w.weather.tamper["directory/publish"] = _refuse(api.ErrorCode.QUOTA, 3600)
            await bob.sync()
            kept = len(bob.vault.packages(bob.identity))
            for _ in range(3):
                await bob.sync()
            assert bob.tools.counters["publishing refused: quota"] == 4
            assert len(bob.vault.packages(bob.identity)) == kept

    asyncio.run(story())


def test_a_last_resort_package_is_replaced_before_it_ends_and_its_keys_go(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            first = {p.reference for p in bob.vault.packages(bob.identity)}
            for _ in range(13):
                w.now += 10 * DAY
                await w.settle()
            claim = api.Claim(
                api.DeliveryVersion.COTERIE1,
                f"bob@{REALM}".encode(),
                (alice.identity.suite.cipher_suite,),
            )
            for _ in range(2 * STOCK):
                assert (await alice.tools.inboxes.claim(claim)).packages
            kept = {p.reference for p in bob.vault.packages(bob.identity)}
            assert not kept & first

    asyncio.run(story())


def test_a_group_that_two_tasks_finish_making_is_not_put_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            await w.device("bob")
            late, waiting = asyncio.Event(), asyncio.Event()
            create = alice._delivery.create_log

            async def slow(request: api.CreateLogRequest) -> api.Appended:
                if waiting.is_set():
                    return await create(request)
                waiting.set()
                await late.wait()
                return await create(request)

            alice._delivery.create_log = slow  # type: ignore[method-assign]
            making = asyncio.create_task(alice.create_group("Friends"))
            await waiting.wait()
            other = asyncio.create_task(alice.sync())
            done, _ = await asyncio.wait({other}, timeout=1)
            if done:
                await alice.groups()[0].add("bob")
            late.set()
            group = await making
            await other
            if not done:
                await group.add("bob")
            alice._conversations[group.id].forget()
            await group.send("hello")
            assert group.waiting() == 0
            assert [m.state.name for m in group.history()] == ["SENT"]

    asyncio.run(story())


def test_a_junk_receipt_for_a_new_log_is_an_error_of_the_service(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            w.weather.tamper["logs/create"] = lambda _, answer: answer.replace(
                receipt=answer.receipt.replace(signature=bytes(64))
            )
            with pytest.raises(ServiceError, match="not valid"):
                await alice.create_group("Friends")
            with pytest.raises(ServiceError, match="not valid"):
                await alice.sync()
            w.weather.tamper.clear()
            await alice.sync()
            assert alice.groups()[0].status == "active"

    asyncio.run(story())
