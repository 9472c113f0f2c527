"""Joining by link (delivery protocol, D-BOX-5 and D-BOX-6): who asks, who decides, what a link is worth."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.client import admitting, links
from coterie.client.admitting import JoinRequest
from coterie.client.box import join_request, signed_request
from coterie.client.client import Client
from coterie.client.content import DAY
from coterie.client.events import Joined, JoinRequested, Problem
from coterie.client.links import read_link, write_link
from coterie.errors import ServiceError, StateError
from coterie.mls.types import CipherSuite
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.refusal import Refused
from tests.client_world import REALM, START, World, world

BOB, CAROL, DAVE = (f"{name}@{REALM}" for name in ("bob", "carol", "dave"))


async def _asking(w: World, rule: str = "ask") -> tuple[Client, Client, Client, str]:
    """Alice and Bob in a group with links, Carol outside with one."""
    alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
    group = await alice.create_group("Friends")
    await group.add("bob")
    await group.change_rules(links=rule)
    await w.settle()
    return alice, bob, carol, bob.groups()[0].link()


def test_who_asks_by_a_link_is_shown_accepted_and_comes_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w)
            await carol.join(link, "Carol from work")
            assert carol.asked() == [START]
            told = await w.settle("alice", "bob")
            group = alice.groups()[0]
            for label in ("alice", "bob"):
                asked = [e for e in told[label] if isinstance(e, JoinRequested)]
                assert asked == [JoinRequested(group.id, CAROL, "Carol from work")]
            assert group.requests() == [JoinRequest(CAROL, "Carol from work", START, 1)]
            await group.accept("carol")
            told = await w.settle()
            assert any(isinstance(e, Joined) for e in told["carol"])
            assert set(carol.groups()[0].members()) == {f"alice@{REALM}", BOB, CAROL}
            assert carol.asked() == []
            assert group.requests() == bob.groups()[0].requests() == []
            await carol.groups()[0].send("hello")
            await w.settle()
            assert bob.groups()[0].history()[-1].text == "hello"

    asyncio.run(story())


def test_who_may_not_add_lets_nobody_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w)
            await carol.join(link)
            await w.settle("alice", "bob")
            await bob.groups()[0].accept("carol")
            assert any(
                "may not add" in e.what for e in bob.pending_events() if isinstance(e, Problem)
            )
            await w.settle()
            assert CAROL not in alice.groups()[0].members()
            assert [r.user for r in alice.groups()[0].requests()] == [CAROL]

    asyncio.run(story())


def test_who_is_refused_stays_out_and_can_ask_again_in_a_day(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol, link = await _asking(w)
            await carol.join(link)
            await w.settle("alice")
            alice.groups()[0].refuse("carol")
            assert alice.groups()[0].requests() == []
            with pytest.raises(StateError, match="does not ask"):
                alice.groups()[0].refuse("carol")
            with pytest.raises(StateError, match="asked already"):
                await carol.join(link)
            w.now += links.ASK_AGAIN
            await carol.join(link)
            await w.settle("alice")
            assert [r.user for r in alice.groups()[0].requests()] == [CAROL]

    asyncio.run(story())


def test_with_open_links_one_who_may_add_lets_in_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w, "open")
            before = alice.groups()[0].epoch
            await carol.join(link)
            # Bob may not add, and does not try.
            await w.settle("bob")
            w.now += 60
            told = await w.settle("bob")
            assert not any(isinstance(e, Problem) for e in told["bob"])
            assert carol.groups() == []
            told = await w.settle("alice", "carol", "bob")
            assert not any(isinstance(e, JoinRequested) for e in told["alice"])
            assert CAROL in bob.groups()[0].members()
            assert carol.groups()[0].status == "active"
            assert alice.groups()[0].epoch == before + 1

    asyncio.run(story())


def test_with_open_links_and_everybody_adding_one_does_it_in_turn(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w, "open")
            await alice.groups()[0].change_rules(may_add="members")
            await w.settle()
            before = alice.groups()[0].epoch
            await carol.join(link)
            for _ in range(4):
                w.now += 2
                await w.settle()
            assert carol.groups()[0].status == "active"
            assert bob.groups()[0].epoch == before + 1

    asyncio.run(story())


def test_without_the_rule_there_is_no_link_and_requests_are_passed_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w)
            await alice.groups()[0].change_rules(links="off")
            with pytest.raises(StateError, match="no links"):
                alice.groups()[0].link()
            await carol.join(link)
            await w.settle()
            assert alice.groups()[0].requests() == bob.groups()[0].requests() == []
            assert alice.tools.counters["requests passed over"] == 1

    asyncio.run(story())


def test_a_revoked_link_asks_for_nothing_and_a_new_one_does(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w)
            await w.device("dave")
            await bob.groups()[0].revoke_links()
            assert any(
                "may not change" in e.what for e in bob.pending_events() if isinstance(e, Problem)
            )
            await alice.groups()[0].revoke_links()
            await w.settle()
            await carol.join(link)
            await w.clients["dave"].join(bob.groups()[0].link())
            await w.settle("alice", "bob")
            assert [r.user for r in alice.groups()[0].requests()] == [DAVE]

    asyncio.run(story())


def test_a_member_does_not_ask_and_is_not_asked_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w)
            with pytest.raises(StateError, match="in the group 'Friends' already"):
                await bob.join(link)
            await carol.join(link)
            await w.settle("alice", "bob")
            # Bob's client has seen the request, too; the Commit that adds her answers it there.
            await alice.groups()[0].add("carol")
            await w.settle("alice", "bob")
            assert bob.groups()[0].requests() == []

    asyncio.run(story())


def test_a_request_that_a_former_member_plays_again_does_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol, link = await _asking(w)
            kept: list[api.PostRequest] = []

            def keep(request: api.PostRequest, answer: api.Posted) -> api.Posted:
                kept.append(request)
                return answer

            w.weather.tamper["boxes/post"] = keep
            await carol.join(link)
            await w.settle("alice", "bob")
            await alice.groups()[0].accept("carol")
            await w.settle()
            await alice.groups()[0].remove("carol")
            await w.settle()
            await bob.tools.delivery.post_request(kept[0])
            await w.settle("alice")
            assert alice.groups()[0].requests() == []
            # She herself can ask again.
            w.now += links.ASK_AGAIN
            await carol.join(link)
            await w.settle("alice")
            assert [r.user for r in alice.groups()[0].requests()] == [CAROL]

    asyncio.run(story())


def test_a_request_in_somebody_elses_name_or_by_somebody_revoked_is_passed_over(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _, link = await _asking(w)
            dave = await w.device("dave")
            claim = api.Claim(api.DeliveryVersion.COTERIE1, CAROL.encode(), (CipherSuite(1),))
            claimed = (await dave.tools.inboxes.claim(claim)).packages[0]
            mine = dave.identity.new_package(w.now)
            good = join_request(read_link(link), mine, bytes(32), b"", w.now)
            forged = api.RequestTBS(
                read_link(link).log_id, api.RequestKind.JOIN, claimed.key_package, bytes(32), w.now
            )
            content = signed_request(mine, forged)
            step_taken = []
            conversation = alice.groups()[0]._conversation
            with alice.vault.step() as step:
                step_taken.append(
                    conversation._take_join(
                        step, conversation.line, content, conversation.line.state.epoch
                    )
                )
            assert step_taken == [False]
            w.authentication.revoke_user("dave")
            await dave.tools.delivery.post_request(good)
            w.now += 700
            await w.settle("alice", "bob")
            assert alice.groups()[0].requests() == bob.groups()[0].requests() == []

    asyncio.run(story())


@pytest.mark.parametrize("shift", [-8 * DAY, 2 * 3600])
def test_a_request_from_another_time_is_passed_over(tmp_path: Path, shift: int) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol, link = await _asking(w)
            package = carol.identity.new_package(w.now)
            request = join_request(read_link(link), package, bytes(32), b"", w.now + shift)
            await carol.tools.delivery.post_request(request)
            await w.settle("alice")
            assert alice.groups()[0].requests() == []

    asyncio.run(story())


def test_more_requests_than_are_kept_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "MAX_JOINS", 1)

    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol, link = await _asking(w)
            dave = await w.device("dave")
            await carol.join(link, "first")
            await dave.join(link)
            w.now += 1
            await carol.join(link, "second")
            await w.settle("alice")
            found = [(r.user, r.note) for r in alice.groups()[0].requests()]
            assert found == [(CAROL, "second")]

    asyncio.run(story())


def test_a_link_whose_epoch_is_gone_says_so_and_nothing_stays_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, _, carol, link = await _asking(w)
            good = read_link(link)
            stock = len(carol.vault.packages(carol.identity))
            for bad in (good.replace(epoch=b"e" * 32), good.replace(log_id=b"l" * 32)):
                with pytest.raises(StateError, match="has expired, or its group is gone"):
                    await carol.join(write_link(bad))
            with pytest.raises(StateError, match="has expired"):
                await carol.join(write_link(good.replace(box_token=bytes(32))))
            away = good.replace(service=b"https://elsewhere.example", epoch=b"e" * 32)
            with pytest.raises(StateError, match=r"on https://elsewhere\.example; this device is"):
                await carol.join(write_link(away))
            with pytest.raises(StateError, match="cipher suite 2, this device 1"):
                await carol.join(write_link(good.replace(cipher_suite=CipherSuite(2))))
            with pytest.raises(StateError, match="its key is none"):
                await carol.join(write_link(good.replace(box_key=bytes(32))))
            assert carol.asked() == []
            assert len(carol.vault.packages(carol.identity)) == stock

    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "retry_after", "kept"),
    [
        (api.ErrorCode.RATE_LIMITED, 60, True),
        (api.ErrorCode.QUOTA, None, False),
        (api.ErrorCode.GONE, 60, False),
    ],
)
def test_a_request_is_kept_where_waiting_helps_and_the_link_is_still_good(
    tmp_path: Path, code: api.ErrorCode, retry_after: float | None, kept: bool
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, _, carol, link = await _asking(w)
            refused = Refused(code, "no", rule="D-BOX-1", retry_after=retry_after)
            with mock.patch.object(DeliveryClient, "post_request", side_effect=refused):
                if kept:
                    await carol.join(link)
                else:
                    with pytest.raises(StateError):
                        await carol.join(link)
            assert bool(carol.asked()) == kept

    asyncio.run(story())


def test_a_request_made_offline_is_sent_later_and_given_up_after_a_week(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _, carol, link = await _asking(w)
            w.weather.lose_request = 1.0
            await carol.join(link, "from the train")
            assert carol.asked() == [START]
            with pytest.raises(ServiceError):
                await carol.sync()
            w.weather.lose_request = 0.0
            await w.settle("carol", "alice")
            assert [r.note for r in alice.groups()[0].requests()] == ["from the train"]
            w.now += links.ASK_ENDS
            await carol.sync()
            assert carol.asked() == []

    asyncio.run(story())


def test_a_damaged_link_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, _, carol, link = await _asking(w)
            assert len(link) < 300
            assert set(link) <= set(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
            )
            broken_by_mail = link[:60] + "\n  " + link[60:]
            assert read_link(broken_by_mail) == read_link(f" {link}\n")
            for text, why in (
                ("", "not a link"),
                ("https://example.org/x", "begin with coterie1_"),
                (link.replace("coterie1_", "coterie2_"), "newer version"),
                (link[:-1], "damaged"),
                (link[:20], "damaged"),
                ("coterie1_", "damaged"),
                (link[:40] + ("A" if link[40] != "A" else "B") + link[41:], "damaged"),
                (link + "é", "damaged"),
            ):
                with pytest.raises(StateError, match=why):
                    await carol.join(text)
            assert carol.asked() == []

    asyncio.run(story())


def test_a_link_opens_no_entry(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob, carol, text = await _asking(w)
            await bob.groups()[0].send("secret")
            link = read_link(text)
            secrets_in_it: list[Any] = [link.box_token, link.box_key]
            for token in secrets_in_it:
                with pytest.raises(ServiceError):
                    await carol.tools.delivery.read(
                        api.Read(link.log_id, link.epoch, bytes(token), 0, 1 << 20)
                    )

    asyncio.run(story())
