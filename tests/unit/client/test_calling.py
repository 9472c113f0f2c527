"""Members that were not heard of for weeks are called, and who is called asks to be added again (D-BOX-14)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.client import Client, calling
from coterie.client.calling import CALL_AFTER
from coterie.client.conversation import Conversation
from coterie.client.links import link_of
from coterie.client.notes import StoredCall
from coterie.client.posting import post_to
from coterie.client.returning import Returning
from coterie.errors import ServiceError
from coterie.mls.types import CipherSuite
from coterie.transport import api
from tests.client_world import REALM, World, world
from tests.successions import conversation, group, group_of, line, same

DAY = 24 * 3600
ALL = ("alice", "bob", "carol")


async def _nothing(_self: Any) -> None:
    """Asks nobody: who is stuck can name nobody who is there."""


async def _stranded(w: World) -> tuple[Client, Client, Client]:
    """Alice and Bob are stuck, and only Carol is there, of whom they know nothing."""
    alice, bob = await group_of(w, "alice", "bob", admins=("bob",))
    carol = await w.device("carol")
    await group(bob).add("carol")
    await w.settle("bob", "carol")
    for client in (alice, bob):
        with client.vault.step() as step:
            step.set_status(group(client).id, "stuck", "its keys are lost")
    return alice, bob, carol


async def _days(w: World, days: int, *labels: str) -> None:
    for _ in range(days):
        w.now += DAY
        await w.settle(*labels)


def _story(tmp_path: Path, tell: Callable[[World], Any]) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            await tell(w)

    with mock.patch.object(Returning, "_ask_to_return", _nothing):
        asyncio.run(story())


def test_who_can_name_nobody_that_is_there_is_called_after_three_weeks(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, bob, carol = await _stranded(w)
        await _days(w, CALL_AFTER // DAY - 1, *ALL)
        assert [group(c).status for c in (alice, bob)] == ["stuck", "stuck"]
        await _days(w, 3, *ALL)
        assert same(alice, bob, carol)
        assert [group(c).status for c in (alice, bob, carol)] == ["active"] * 3
        assert alice.vault.calls() == []

    _story(tmp_path, tell)


def test_where_the_box_is_gone_the_caller_is_asked(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, _, carol = await _stranded(w)
        await _days(w, CALL_AFTER // DAY, "bob", "carol")
        old = link_of(line(carol)).replace(epoch=b"e" * 32)
        with mock.patch.object(calling, "link_of", return_value=old):
            await _days(w, 2, "carol")
        await w.settle("alice", "carol", "alice")
        assert group(alice).status == "active"
        assert same(alice, carol)

    _story(tmp_path, tell)


def test_a_device_that_remembers_no_group_is_brought_back_by_a_call(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, _, carol = await _stranded(w)
        with alice.vault.step() as step:
            step.end(group(alice).id, "it was restored from a copy of before it was added again")
        await _days(w, CALL_AFTER // DAY + 2, *ALL)
        assert same(alice, carol)

    _story(tmp_path, tell)


def test_each_is_called_less_and_less_often_and_not_by_all(tmp_path: Path) -> None:
    called: list[int] = []

    async def call(_self: Conversation, leaf: int) -> None:
        called.append(leaf)

    async def tell(w: World) -> None:
        carol = (await _stranded(w))[2]
        await _days(w, 100, "carol")
        # After 21, 42 and 84 days, each of the two.
        assert len(called) == 6
        assert set(called) == {0, 1}
        called.clear()
        start = carol.vault.conversation(group(carol).id).joined_at
        leaves, there = conversation(carol)._to_call(start + CALL_AFTER - 1)
        assert (leaves, there) == ([], 3)
        with (
            mock.patch.object(Conversation, "_to_call", return_value=([0, 1], 30)),
            mock.patch.object(calling, "random", random.Random(3)),
        ):
            for _ in range(200):
                w.now += 3 * DAY
                await conversation(carol)._call_silent()
        assert 20 < len(called) < 65, "one in ten, where thirty members are there"

    with mock.patch.object(Conversation, "_call", call):
        _story(tmp_path, tell)


def test_who_takes_part_or_was_stopped_by_evidence_answers_no_call(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        call = api.Call(link_of(line(alice)), alice.user.encode())
        with ExitStack() as stack:
            answered = stack.enter_context(mock.patch.object(calling, "_answer"))
            for status in ("active", "stopped", "stuck"):
                with bob.vault.step() as step:
                    step.set_status(group(bob).id, status, "")
                    step.save_call(StoredCall(call))
                await calling.answer_calls(bob.tools, [conversation(bob)])
                assert answered.called is (status == "stuck")
                assert bool(bob.vault.calls()) is (status == "stuck")

    _story(tmp_path, tell)


@pytest.mark.parametrize("status", ["stuck", "stopped"])
def test_who_takes_no_part_leaves_on_its_own_device_and_no_call_brings_it_back(
    tmp_path: Path, status: str
) -> None:
    async def tell(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with bob.vault.step() as step:
            step.set_status(group(bob).id, status, "for a test")
        await group(bob).leave()
        assert (group(bob).status, bool(group(bob).why)) == ("left", True)
        call = api.Call(link_of(line(alice)), alice.user.encode())
        with bob.vault.step() as step:
            step.save_call(StoredCall(call))
        with mock.patch.object(calling, "_answer") as answered:
            await calling.answer_calls(bob.tools, [conversation(bob)])
        assert not answered.called
        w.weather.paths.clear()
        w.now += 2 * DAY
        await bob.sync()
        assert not {"boxes/post", "inboxes/post"} & set(w.weather.paths), "it asks no more"
        await group(alice).remove("bob")
        await w.settle()
        await group(alice).add("bob")
        await w.settle()
        assert group(bob).status == "active"
        assert not bob.vault.left_logs()

    _story(tmp_path, tell)


def test_a_call_that_leads_nowhere_holds_up_nothing(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        link = link_of(line(alice)).replace(log_id=b"l" * 32)
        for bad in (link, link.replace(box_key=b"none"), link.replace(cipher_suite=77)):
            call = api.Call(bad, b"nobody@nowhere")
            envelope = api.EnvelopeContent(api.EnvelopeKind.CALL, call=call)
            assert await post_to(alice.tools, bob.user, 1, envelope) == 1
            await bob.sync()
            assert [c.answered_at for c in bob.vault.calls()] == [w.now]
            w.now += DAY
            await bob.sync()
            assert bob.vault.calls() == []
            assert group(bob).status == "active"
        call = api.Call(link, b"nobody@nowhere")
        with bob.vault.step() as step:
            step.save_call(StoredCall(call))
        w.weather_of["bob"].lose_request = 1.0
        with pytest.raises(ServiceError):
            await bob.sync()
        assert bob.vault.calls() == [StoredCall(call)], "it is answered when the service is there"

    _story(tmp_path, tell)


def test_of_several_calls_one_a_day_is_answered(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with bob.vault.step() as step:
            step.set_status(group(bob).id, "stuck", "its keys are lost")
        call = api.Call(link_of(line(alice)).replace(log_id=b"l" * 32), alice.user.encode())
        envelope = api.EnvelopeContent(api.EnvelopeKind.CALL, call=call)
        with mock.patch.object(calling, "_answer") as answered:
            for _ in range(3):
                await post_to(alice.tools, bob.user, 1, envelope)
                await bob.sync()
            assert answered.call_count == 1
            w.now += DAY
            await bob.sync()
            await post_to(alice.tools, bob.user, 1, envelope)
            await bob.sync()
            assert answered.call_count == 2

    _story(tmp_path, tell)


def test_nothing_is_sealed_to_a_key_package_that_is_somebody_elses(tmp_path: Path) -> None:
    async def tell(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        mallory = await w.device("mallory")
        content = api.Call(link_of(line(alice)), alice.user.encode())
        envelope = api.EnvelopeContent(api.EnvelopeKind.CALL, call=content)
        assert await post_to(alice.tools, bob.user, 1, envelope, b"another device") == 0
        assert await post_to(alice.tools, f"nobody@{REALM}", 1, envelope) == 0
        suites = (CipherSuite(1),)
        claim = api.Claim(api.DeliveryVersion.COTERIE1, mallory.user.encode(), suites)
        theirs = await alice.tools.inboxes.claim(claim)
        w.weather.tamper["directory/claim"] = lambda _request, _answer: theirs
        assert await post_to(alice.tools, bob.user, 1, envelope) == 0
        spoilt = bytearray(theirs.packages[0].key_package)
        spoilt[-1] ^= 1
        bad = theirs.replace(packages=(theirs.packages[0].replace(key_package=bytes(spoilt)),))
        w.weather.tamper["directory/claim"] = lambda _request, _answer: bad
        assert await post_to(alice.tools, mallory.user, 1, envelope) == 0

    _story(tmp_path, tell)
