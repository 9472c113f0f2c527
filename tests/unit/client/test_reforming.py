"""A group that is past help is replaced by another one (docs/delivery-protocol.md, D-SUC-6 and D-SUC-7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from coterie.client import Client
from coterie.client import reforming as reforming_module
from coterie.client.box import decline_request
from coterie.client.events import Invited, MembersRemoved, Moved
from coterie.client.inviting import Known, may_reform
from coterie.errors import ServiceError, StateError
from coterie.transport.client import DeliveryClient
from tests.client_world import REALM, World, texts
from tests.successions import DAY, group, group_of, jam, line, make_admins, problems, run, same

HONEST = ("alice", "bob", "carol")
ALL = (*HONEST, "mallory")


def full(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}@{REALM}" for name in names)


async def jammed(w: World, *names: str, admins: tuple[str, ...] = ()) -> tuple[Client, ...]:
    """Clients in a group that the last of them has jammed."""
    clients = await group_of(w, *names, admins=admins)
    await jam(w, clients[-1])
    return clients


def test_a_jammed_group_is_replaced_without_the_offender_in_one_step(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol, mallory = await group_of(w, *ALL)
        await group(bob).send("before")
        await w.settle()
        ids = [group(c).id for c in (alice, bob, carol)]
        await jam(w, mallory)
        await group(alice).reform(without=["mallory"])
        told = await w.settle(*HONEST)
        for label, client in (("bob", bob), ("carol", carol)):
            (asked,) = [e for e in told[label] if isinstance(e, Invited)]
            assert (asked.by, asked.missing) == (f"alice@{REALM}", full("mallory"))
            assert group(client).status == "stuck", "nobody goes there unasked"
            await group(client).follow()
            assert any(isinstance(e, Moved) for e in client.pending_events())
        await group(bob).send("after")
        await w.settle(*HONEST)
        assert same(alice, bob, carol)
        assert ids == [group(c).id for c in (alice, bob, carol)]
        for client in (alice, bob, carol):
            assert texts(client) == ["before", "after"]
            assert set(group(client).members()) == set(full(*HONEST))
            assert group(client).invitations() == []

    run(tmp_path, story)


def test_who_jammed_the_group_is_named(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, mallory = await group_of(w, "alice", "mallory")
        await jam(w, mallory)
        (what,) = problems(alice.pending_events())
        assert f"a Commit by mallory@{REALM} could not be followed" in what

    run(tmp_path, story)


def test_a_group_that_works_is_not_replaced(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, _ = await group_of(w, "alice", "bob")
        with pytest.raises(StateError, match="the group works"):
            await group(alice).reform(without=["bob"])

    run(tmp_path, story)


def test_who_has_no_right_to_replace_a_group_is_told_so(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, _ = await jammed(w, "alice", "bob", "mallory")
        with pytest.raises(StateError, match="only an administrator"):
            await group(bob).reform(without=["mallory"])
        with pytest.raises(StateError, match="not in the group"):
            await group(alice).reform(without=["dave"])
        assert {group(c).status for c in (alice, bob)} == {"stuck"}

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("maker", "users", "admins", "may"),
    [
        ("a", "ab", "a", True),
        ("b", "ab", "a", False),
        ("b", "bc", "a", True),
        ("b", "bc", "ad", False),
        ("d", "cd", "ad", True),
        ("x", "bx", "a", False),
        ("b", "bc", "", True),
    ],
)
def test_the_right_to_replace_a_group(maker: str, users: str, admins: str, may: bool) -> None:
    old = Known(frozenset(admins), frozenset("abcd"))
    assert may_reform(maker, set(users), old) is may


def test_where_the_only_administrator_is_the_offender_any_member_may(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        mallory, bob, carol = await group_of(w, "mallory", "bob", "carol")
        await jam(w, mallory)
        await group(bob).reform(without=["mallory"])
        await w.settle("bob", "carol")
        await group(carol).follow()
        await w.settle("bob", "carol")
        assert same(bob, carol)
        assert group(carol).admins() == list(full("bob"))

    run(tmp_path, story)


def test_a_group_by_who_has_no_right_is_not_even_asked_about(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        _, bob, carol, _ = await jammed(w, "alice", "bob", "carol", "mallory")
        with mock.patch.object(reforming_module, "may_reform", return_value=True):
            await group(bob).reform(without=["mallory"])
        told = await w.settle("bob", "carol")
        assert not any(isinstance(e, Invited) for e in told["carol"])
        assert any("D-SUC-6" in what for what in problems(told["carol"]))
        assert group(carol).status == "stuck"

    run(tmp_path, story)


def test_of_two_that_are_made_at_once_the_smaller_log_id_counts_for_all(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol, _ = await jammed(w, *ALL, admins=("bob",))
        await group(alice).reform(without=["mallory"])
        await group(bob).reform(without=["mallory"])
        smaller = min(line(alice).binding.log_id, line(bob).binding.log_id)
        await w.settle("carol")
        assert len(group(carol).invitations()) == 2
        await group(carol).follow()
        await w.settle(*HONEST, rounds=4)
        assert {line(c).binding.log_id for c in (alice, bob, carol)} == {smaller}
        await group(carol).send("together")
        await w.settle(*HONEST)
        assert same(alice, bob, carol)
        assert texts(alice) == texts(bob) == ["together"]
        passed = "re-formed groups that do not count"
        assert [c.tools.counters.get(passed, 0) for c in (alice, bob)].count(1) == 1

    run(tmp_path, story)


def test_the_offenders_own_group_draws_nobody_away_unasked(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, mallory = await group_of(w, "alice", "bob", "mallory", admins=("mallory",))
        await jam(w, mallory)
        await group(alice).reform(without=["mallory"])
        await w.settle("alice", "bob")
        await group(bob).follow()
        before = line(bob).binding.log_id
        with (
            mock.patch(
                "coterie.client.creating.secrets.token_bytes", lambda n: bytes(n - 1) + b"\1"
            ),
            mock.patch.object(reforming_module, "_check_jammed"),
        ):
            await group(mallory).reform()
        told = await w.settle("bob", "alice")
        assert line(bob).binding.log_id == before
        assert line(mallory).binding.log_id < before
        assert any(isinstance(e, Invited) for e in told["bob"]), "the user may still want to"
        assert same(alice, bob)
        group(bob).decline()
        assert group(bob).invitations() == []

    run(tmp_path, story)


def test_an_invitation_can_be_declined_and_another_followed(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol, _ = await jammed(w, *ALL, admins=("bob",))
        await group(alice).reform(without=["mallory", "bob"])
        await w.settle("carol")
        group(carol).decline("alice")
        with pytest.raises(StateError, match="nobody has re-formed"):
            await group(carol).follow()
        assert group(carol).status == "stuck"
        await group(bob).reform(without=["mallory", "alice"])
        await w.settle("carol")
        with pytest.raises(StateError, match="has not re-formed"):
            await group(carol).follow("alice")
        await group(carol).follow("bob")
        await w.settle("bob", "carol")
        assert same(bob, carol)

    run(tmp_path, story)


async def reformed(w: World) -> tuple[Client, ...]:
    """Alice has replaced the group; bob is asked, and carol has followed."""
    alice, bob, carol, mallory = await group_of(w, *ALL)
    await jam(w, mallory)
    await group(alice).reform(without=["mallory"])
    await w.settle(*HONEST)
    await group(carol).follow()
    await w.settle(*HONEST)
    assert set(group(alice).members()) == set(full(*HONEST))
    return alice, bob, carol


def test_who_declines_is_removed_from_the_new_group_and_asked_no_more(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await reformed(w)
        group(bob).decline()
        assert group(bob).invitations() == []
        told = await w.settle(*HONEST)
        removed = [e for e in told["carol"] if isinstance(e, MembersRemoved)]
        assert [(e.users, e.by, e.why) for e in removed] == [
            (full("bob"), *full("alice"), "declined")
        ]
        assert set(group(alice).members()) == set(full("alice", "carol"))
        w.now += 16 * DAY
        told = await w.settle(*HONEST)
        assert group(bob).invitations() == []
        assert not any(isinstance(event, Invited) for event in told["bob"])
        assert same(alice, carol)
        assert bob.vault.declines() == []

    run(tmp_path, story)


def test_who_declines_goes_on_asking_in_the_group_before(
    tmp_path: Path,
) -> None:
    async def asked(client: Client) -> list[bytes]:
        post = DeliveryClient.post_request
        with mock.patch.object(
            DeliveryClient, "post_request", autospec=True, side_effect=post
        ) as posted:
            await client.sync()
        return [bytes(call.args[1].log_id) for call in posted.call_args_list]

    async def story(w: World) -> None:
        _, bob, _ = await reformed(w)
        before = bytes(line(bob).binding.log_id)
        group(bob).decline()
        await w.settle(*HONEST)
        for _ in range(2):
            w.now += DAY + 3600
            assert await asked(bob) == [before], "somebody may be there who can answer"

    run(tmp_path, story)


def test_a_declined_leaf_waits_for_somebody_who_may_remove_and_is_not_added_anew(
    tmp_path: Path,
) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await reformed(w)
        await make_admins(alice, "carol")
        await group(alice).unmake_admin("alice")
        await w.settle("alice", "carol")
        group(bob).decline()
        await bob.sync()
        w.now += 16 * DAY
        # Alice added him, and would add him anew who never appeared; but she may not remove.
        await w.settle("alice", "bob")
        assert set(group(alice).members()) == set(full(*HONEST))
        assert group(bob).invitations() == []
        await w.settle("alice", "carol")
        assert set(group(carol).members()) == set(full("alice", "carol"))

    run(tmp_path, story)


def test_who_asked_to_come_back_and_then_declines_is_not_added_anew(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, _ = await reformed(w)
        w.now += DAY + 3600
        # He asks in their inboxes to be added to the group before again, where nobody has answered for a day.
        await bob.sync()
        group(bob).decline()
        await bob.sync()
        told = await w.settle(*HONEST)
        assert not any(isinstance(event, Invited) for event in told["bob"])
        assert set(group(alice).members()) == set(full("alice", "carol"))

    run(tmp_path, story)


def test_that_a_user_declines_is_said_when_the_service_is_back(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, _ = await reformed(w)
        group(bob).decline()
        with (
            mock.patch.object(DeliveryClient, "post_request", side_effect=_away),
            pytest.raises(ServiceError),
        ):
            await bob.sync()
        assert len(bob.vault.declines()) == 1
        await w.settle(*HONEST)
        assert set(group(alice).members()) == set(full("alice", "carol"))

    run(tmp_path, story)


def _away(_: object) -> None:
    msg = "away"
    raise ServiceError(msg, retry_after=5)


def test_nobody_can_decline_for_another_or_once_the_leaf_is_another(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await reformed(w)
        (asked,) = bob.vault.reforms(group(bob).id)
        package = bob.vault.package(bob.identity, asked.package)
        assert package is not None
        stranger = replace(
            package, bundle=replace(package.bundle, signature_key=carol.identity.signature_key)
        )
        await carol.tools.delivery.post_request(decline_request(line(carol), stranger, w.now))
        await w.settle(*HONEST)
        assert set(group(alice).members()) == set(full(*HONEST))
        assert alice.tools.counters["requests passed over"] == 1
        await group(bob).follow()
        await group(bob).renew_keys()
        await w.settle(*HONEST)
        await bob.tools.delivery.post_request(decline_request(line(bob), package, w.now))
        await w.settle(*HONEST)
        assert same(alice, bob, carol)
        assert set(group(alice).members()) == set(full(*HONEST))
        assert alice.tools.counters["requests passed over"] == 2

    run(tmp_path, story)


def test_an_invitation_to_a_group_left_behind_is_passed_over(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, mallory = await group_of(w, "alice", "bob", "mallory")
        await jam(w, mallory)
        await group(alice).reform(without=["mallory"])
        await w.settle("alice", "bob")
        await group(bob).follow()
        await w.settle("alice", "bob")
        # Mallory, alone in the old group, now answers that Bob asked to be added again.
        await mallory.sync()
        told = await w.settle("bob")
        assert any("left behind" in what for what in problems(told["bob"]))
        assert same(alice, bob)

    run(tmp_path, story)


def test_a_group_that_was_replaced_can_be_replaced_again(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol, mallory = await group_of(w, *ALL)
        await jam(w, mallory)
        await group(alice).reform(without=["mallory"])
        await w.settle(*HONEST)
        for client in (bob, carol):
            await group(client).follow()
        await w.settle(*HONEST)
        del w.clients["mallory"]
        await jam(w, carol)
        await group(alice).reform(without=["carol"])
        await w.settle("alice", "bob")
        await group(bob).follow()
        await w.settle("alice", "bob")
        assert same(alice, bob)

    run(tmp_path, story)


def test_somebody_made_administrator_there_may_replace_it_too(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, mallory = await group_of(w, "alice", "bob", "mallory")
        await make_admins(alice, "bob")
        await w.settle()
        await jam(w, mallory)
        await group(bob).reform(without=["mallory"])
        await w.settle("alice", "bob")
        await group(alice).follow()
        await w.settle("alice", "bob")
        assert same(alice, bob)
        assert set(group(bob).admins()) == set(full("alice", "bob"))

    run(tmp_path, story)
