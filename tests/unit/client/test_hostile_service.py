"""What a client does not believe a service about (docs/attacks.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coterie.client import Client, creating
from coterie.client.content import DAY
from coterie.client.events import Event, Problem
from coterie.errors import ServiceError
from coterie.transport import api
from tests.client_world import REALM, World, texts, world


async def _two(w: World) -> tuple[Client, Client]:
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    group = await alice.create_group("Friends")
    await group.add("bob")
    await w.settle()
    return alice, bob


def _problems(told: list[Event]) -> list[str]:
    return [event.what for event in told if isinstance(event, Problem)]


def _first_receipt(result: api.ReadResult, **changes: Any) -> api.ReadResult:
    first, *rest = result.entries
    return result.replace(entries=(first.replace(receipt=first.receipt.replace(**changes)), *rest))


def test_a_key_package_of_somebody_else_is_not_added(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            await w.device("mallory")
            await w.device("carol")
            mallory = api.Claim(
                api.DeliveryVersion.COTERIE1,
                f"mallory@{REALM}".encode(),
                (alice.identity.suite.cipher_suite,),
            )
            other = await alice.tools.inboxes.claim(mallory)
            w.weather.tamper["directory/claim"] = lambda _request, _answer: other
            await alice.groups()[0].add("carol")
            assert any("somebody else" in what for what in _problems(alice.pending_events()))
            assert len(alice.groups()[0].members()) == 2

    asyncio.run(story())


def test_another_entry_than_the_receipt_names_is_not_taken(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("one")
            await alice.groups()[0].send("two")

            def swap(_request: api.Read, result: api.ReadResult) -> api.ReadResult:
                if len(result.entries) < 2:
                    return result
                a, b = result.entries[0], result.entries[1]
                return result.replace(entries=(a.replace(entry=b.entry), b.replace(entry=a.entry)))

            w.weather.tamper["logs/read"] = swap
            with pytest.raises(ServiceError, match="D-REC-9"):
                await bob.sync()
            w.weather.tamper.clear()
            await w.settle()
            assert texts(bob) == ["one", "two"]

    asyncio.run(story())


def test_entries_in_another_order_are_not_taken(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            for text in ("one", "two"):
                await alice.groups()[0].send(text)
            w.weather.tamper["logs/read"] = lambda _request, result: result.replace(
                entries=tuple(reversed(result.entries))
            )
            with pytest.raises(ServiceError, match="D-REC-9"):
                await bob.sync()
            assert texts(bob) == []

    asyncio.run(story())


@pytest.mark.parametrize(
    "changes", [{"signature": bytes(64)}, {"previous": bytes(32)}, {"epoch": bytes(32)}]
)
def test_a_receipt_that_the_service_did_not_sign_is_not_taken(
    tmp_path: Path, changes: dict[str, bytes]
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("one")

            def forge(_request: api.Read, result: api.ReadResult) -> api.ReadResult:
                return _first_receipt(result, **changes) if result.entries else result

            w.weather.tamper["logs/read"] = forge
            with pytest.raises(ServiceError, match="D-REC-9"):
                await bob.sync()
            assert texts(bob) == []

    asyncio.run(story())


def test_two_histories_stop_the_group_and_are_told(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("one")
            await w.settle()
            key = w.delivery.logs._receipt_key

            def fork(_request: api.Read, result: api.ReadResult) -> api.ReadResult:
                head = result.head.replace(entry_hash=bytes(32))
                return result.replace(head=head.replace(signature=key.sign(head.to_be_signed())))

            w.weather.tamper["logs/read"] = fork
            await bob.sync()
            assert bob.groups()[0].status == "stopped"
            assert any("contradicts itself" in what for what in _problems(bob.pending_events()))

    asyncio.run(story())


def test_entries_that_are_named_and_withheld_end_in_an_error_not_in_a_loop(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("one")
            w.weather.tamper["logs/read"] = lambda _request, result: result.replace(entries=())
            with pytest.raises(ServiceError, match="newer entries than it gives"):
                await asyncio.wait_for(bob.sync(), 10)

    asyncio.run(story())


def test_a_receipt_for_something_else_does_not_pass_for_an_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            w.weather.tamper["logs/append"] = lambda _request, answer: answer.replace(
                receipt=answer.receipt.replace(entry_hash=bytes(32))
            )
            await alice.groups()[0].send("one")
            assert alice.groups()[0].waiting() == 1
            w.weather.tamper.clear()
            await w.settle()
            assert texts(bob) == ["one"]
            assert alice.groups()[0].waiting() == 0

    asyncio.run(story())


def test_junk_in_the_inbox_is_passed_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await w.device("carol")

            def junk(_request: api.ReadInbox, result: api.ReadInboxResult) -> api.ReadInboxResult:
                item = api.InboxItem(result.next_number, bytes(32), bytes(4096))
                return result.replace(items=(item, *result.items))

            w.weather.tamper["inboxes/read"] = junk
            await bob.sync()
            w.weather.tamper.clear()
            await alice.groups()[0].add("carol")
            await w.settle()
            assert len(w.clients["carol"].groups()) == 1

    asyncio.run(story())


@pytest.mark.parametrize("number", [1 << 40, (1 << 64) - 1])
def test_a_huge_number_in_the_inbox_hides_no_invitation_for_good(
    tmp_path: Path, number: int
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            carol = await w.device("carol")

            def junk(_request: api.ReadInbox, result: api.ReadInboxResult) -> api.ReadInboxResult:
                return result.replace(items=(api.InboxItem(number, bytes(32), bytes(4096)),))

            w.weather.tamper["inboxes/read"] = junk
            await carol.sync()
            w.weather.tamper.clear()
            await alice.groups()[0].add("carol")
            await w.settle()
            assert len(carol.groups()) == 1

    asyncio.run(story())


def test_an_envelope_that_the_service_gives_again_is_taken_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            carol = await w.device("carol")
            seen: list[api.InboxItem] = []

            def again(_request: api.ReadInbox, result: api.ReadInboxResult) -> api.ReadInboxResult:
                seen.extend(result.items)
                items = tuple(item.replace(number=n + 1) for n, item in enumerate(seen))
                return result.replace(items=items)

            w.weather.tamper["inboxes/read"] = again
            await alice.groups()[0].add("carol")
            await w.settle("carol", rounds=3)
            assert len(seen) == 1
            assert len(carol.groups()) == 1
            assert "envelopes passed over" not in carol.tools.counters

    asyncio.run(story())


def test_a_huge_number_in_a_box_hides_no_request_for_good(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            carol = await w.device("carol")
            group = alice.groups()[0]
            await group.change_rules(links="ask")
            link = group.link()

            def junk(_request: api.ReadBox, result: api.ReadBoxResult) -> api.ReadBoxResult:
                request = api.SealedRequest(bytes(32), bytes(4096))
                item = api.BoxItem(
                    1 << 40, alice.groups()[0]._conversation.line.state.epoch, request
                )
                return result.replace(items=(item,), next_number=(1 << 40) + 1)

            w.weather.tamper["boxes/read"] = junk
            await alice.sync()
            w.weather.tamper.clear()
            await carol.join(link, "hello")
            w.now += DAY
            await alice.sync()
            assert [request.user for request in group.requests()] == [carol.user]
            # Who was turned away is not shown again when the box is read from its beginning once more.
            group.refuse("carol")
            w.now += DAY
            await alice.sync()
            assert group.requests() == []

    asyncio.run(story())


def test_a_group_whose_id_is_the_beginning_of_another_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            mallory = await w.device("mallory")
            fresh = [bytes.fromhex(alice.groups()[0].id)[:1], bytes(range(32))]
            with monkeypatch.context() as patch:
                new = SimpleNamespace(token_bytes=lambda _: fresh.pop())
                patch.setattr(creating, "secrets", new)
                group = await mallory.create_group("Reaching")
            await group.add("bob")
            told = await w.settle("bob")
            assert [p for p in _problems(told["bob"]) if "32 bytes" in p]
            assert [g.id for g in bob.groups()] == [alice.groups()[0].id]

    asyncio.run(story())


def test_a_welcome_with_a_made_up_epoch_is_not_followed(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            carol = await w.device("carol")
            w.weather.tamper["logs/append"] = lambda _request, answer: (
                answer
                if answer.opened is None
                else answer.replace(opened=answer.opened.replace(epoch=bytes(32)))
            )
            await alice.groups()[0].add("carol")
            told = await w.settle("carol")
            assert any("not valid" in what for what in _problems(told["carol"]))
            assert carol.groups() == []

    asyncio.run(story())
