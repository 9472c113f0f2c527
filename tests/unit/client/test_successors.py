"""Groups that follow one another by a ReInit, and what members believe (docs/delivery-protocol.md, section 11)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.client import Client
from coterie.client import moving as moving_module
from coterie.client.content import BINDING_EXTENSION, Content, ProfileRules, read_binding
from coterie.client.epoch_keys import EpochKeys
from coterie.client.events import Invited, Moved, Moving
from coterie.client.identity import Identity, read_key_package, seal_envelope
from coterie.client.line import Line
from coterie.client.moving import TAKE_OVER, TOO_LONG
from coterie.client.moving import Moving as MovingConversation
from coterie.client.successor import (
    announce,
    announced,
    confirmation_tag,
    create_log,
    make_successor,
)
from coterie.errors import DecodeError, RuleViolation, ServiceError, StateError
from coterie.mls.credential import AcceptAnything
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group
from coterie.mls.group_context import GroupContext
from coterie.mls.proposal import ReInit
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ProtocolVersion
from coterie.mls.welcome import GroupInfoTBS, Welcome
from coterie.transport import api
from coterie.transport.refusal import Refused
from tests.client_world import REALM, World, texts
from tests.successions import (
    DAY,
    conversation,
    group,
    group_of,
    line,
    make_admins,
    problems,
    run,
    same,
    suite,
)

NAMES = ("alice", "bob", "carol")


@contextmanager
def nobody_goes_on() -> Iterator[None]:
    """The ReInit lands, and nobody makes the next group."""
    with mock.patch.object(MovingConversation, "_is_own_turn", return_value=False):
        yield


async def post(client: Client, append: api.Append) -> None:
    """Appends an entry behind the client's back."""
    await client.tools.delivery.append(append)


def test_a_group_moves_to_another_suite_with_its_name_history_and_texts(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        clients = alice, bob, _ = await group_of(w, *NAMES)
        await group(bob).send("before")
        await w.settle()
        ids = [group(c).id for c in clients]
        await group(alice).reinitialise(cipher_suite=3)
        told = await w.settle()
        await group(bob).send("after")
        await w.settle()
        assert ids == [group(c).id for c in clients]
        for client in clients:
            assert (suite(client), group(client).name) == (3, "Friends")
            assert group(client).status == "active"
            assert texts(client) == ["before", "after"]
        assert same(*clients)
        assert any(isinstance(e, Moving) and e.by == f"alice@{REALM}" for e in told["bob"])
        assert any(isinstance(e, Moved) for e in told["bob"])

    run(tmp_path, story)


def test_a_group_moves_again_and_lives_on_there(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        carol = await w.device("carol")
        await group(alice).reinitialise(cipher_suite=3)
        await w.settle()
        await group(alice).add("carol")
        await w.settle()
        assert suite(carol) == 3
        await group(alice).reinitialise(cipher_suite=1, retention=5 * DAY)
        await w.settle()
        await group(carol).send("hello")
        await group(bob).rename("Best friends")
        await w.settle()
        assert same(alice, bob, carol)
        assert {suite(c) for c in (alice, bob, carol)} == {1}
        assert line(bob).binding.retention == 5 * DAY
        assert (texts(bob), group(carol).name) == (["hello"], "Best friends")
        await group(alice).remove("carol")
        await w.settle()
        assert group(carol).status == "left"

    run(tmp_path, story)


def test_what_was_typed_on_the_way_is_sent_in_the_new_group(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            assert {group(c).status for c in (alice, bob)} == {"moving"}
            await group(bob).send("typed on the way")
            assert texts(alice) == []
        await w.settle()
        assert texts(alice) == ["typed on the way"]

    run(tmp_path, story)


def test_who_was_away_all_the_time_follows(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES)
        await group(bob).send("first")
        await group(alice).reinitialise(cipher_suite=3)
        await w.settle("alice", "bob")
        await group(bob).send("second")
        await group(alice).renew_keys()
        await w.settle("alice", "bob")
        await w.settle("carol")
        assert texts(carol) == ["first", "second"]
        assert same(alice, bob, carol)

    run(tmp_path, story)


def test_who_was_added_just_before_follows_too(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        carol = await w.device("carol")
        lost = w.weather.tamper
        lost["inboxes/post"] = _lose
        await group(alice).add("carol")
        await group(alice).reinitialise(cipher_suite=3)
        assert carol.groups() == []
        lost.clear()
        await w.settle("alice", "bob")
        await w.settle()
        assert same(alice, bob, carol)
        assert suite(carol) == 3

    run(tmp_path, story)


def _lose(_request: Any, _answer: Any) -> Any:
    raise ServiceError("the answer was lost", retry_after=0)


def test_who_asked_to_leave_is_not_taken_along(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES)
        await group(carol).leave()
        await alice.sync()
        await group(alice).reinitialise(cipher_suite=3)
        await w.settle()
        assert set(group(alice).members()) == {f"alice@{REALM}", f"bob@{REALM}"}
        assert group(carol).status == "left"
        assert same(alice, bob)

    run(tmp_path, story)


# -- what is refused beforehand


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        for handle, options, what in (
            (group(bob), {"cipher_suite": 3}, "only an administrator"),
            (group(alice), {"cipher_suite": 2}, "can use 1, 3"),
            (group(alice), {"cipher_suite": 1}, "say what is to change"),
            (group(alice), {}, "say what is to change"),
        ):
            with pytest.raises(StateError, match=what):
                await handle.reinitialise(**options)
            assert handle.waiting() == 0

    run(tmp_path, story)


def test_who_lacks_the_suite_is_named_and_nothing_happens(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        with mock.patch.object(Identity, "suites", (1,)):
            alice, bob = await group_of(w, "alice", "bob")
        await group(alice).renew_keys()
        await group(alice).reinitialise(cipher_suite=3)
        (what,) = problems(alice.pending_events())
        assert f"cannot use cipher suite 3: bob@{REALM}" in what
        await w.settle()
        assert (suite(alice), group(alice).status) == (1, "active")
        await w.settle("bob")
        await group(bob).renew_keys()
        await group(alice).reinitialise(cipher_suite=3)
        await w.settle()
        assert same(alice, bob)
        assert suite(bob) == 3

    run(tmp_path, story)


def test_who_has_no_key_package_of_the_suite_is_named(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, _ = await group_of(w, "alice", "bob")
        w.weather.tamper["directory/claim"] = lambda _request, _answer: api.ClaimResult(())
        await group(alice).reinitialise(cipher_suite=3)
        (what,) = problems(alice.pending_events())
        assert "no key package of cipher suite 3" in what
        assert f"bob@{REALM}" in what
        assert (suite(alice), group(alice).waiting()) == (1, 0)

    run(tmp_path, story)


# -- D-SUC-8: what a ReInit may say


def _other_binding(reinit: ReInit, **changes: Any) -> ReInit:
    extensions = tuple(
        Extension(BINDING_EXTENSION, read_binding((e,)).replace(**changes).encode())
        if e.extension_type == BINDING_EXTENSION
        else e
        for e in reinit.extensions
    )
    return reinit.replace(extensions=extensions)


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (lambda r, _: _other_binding(r, predecessor=None), "does not name"),
        (lambda r, x: _other_binding(r, log_id=x.binding.log_id), "id or log"),
        (lambda r, x: r.replace(group_id=x.group.group_id), "id or log"),
        (lambda r, _: _other_binding(r, receipt_key=bytes(32)), "stays with its service"),
        (lambda r, _: _other_binding(r, service=b"http://elsewhere"), "stays with its service"),
        (lambda r, _: r.replace(cipher_suite=2), "not all devices can use"),
        (lambda r, _: r.replace(extensions=r.extensions[:1]), "no profile"),
    ],
)
def test_a_reinit_that_not_all_could_follow_is_refused(
    tmp_path: Path, forge: Any, why: str
) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")

        def forged(at: Any, wanted: Any) -> ReInit:
            made: ReInit = forge(announce(at, wanted), at)
            return made

        with (
            mock.patch.object(moving_module, "announce", forged),
            mock.patch.object(moving_module, "create_log", return_value=None),
            mock.patch.object(ProfileRules, "check_commit"),
            nobody_goes_on(),
        ):
            await group(alice).reinitialise(cipher_suite=3)
        told = await w.settle("bob")
        assert any("invalid" in what and why in what for what in problems(told["bob"]))
        assert group(bob).status == "active"

    run(tmp_path, story)


def test_a_reinit_by_who_has_no_right_is_refused(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with (
            mock.patch.object(moving_module, "may_lead", return_value=True),
            mock.patch.object(ProfileRules, "check_commit"),
            nobody_goes_on(),
        ):
            await group(bob).reinitialise(cipher_suite=3)
        told = await w.settle("alice")
        assert any("may not end the group" in what for what in problems(told["alice"]))
        assert group(alice).status == "active"

    run(tmp_path, story)


# -- D-SUC-1: nothing else is read in the last epoch


def test_nothing_that_is_said_in_the_last_epoch_is_heard(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        late = line(bob).group.encrypt(Content.text("too late", w.now).encode())
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            await post(bob, line(bob).message(api.ContentKind.APPLICATION, late))
            await w.settle()
        await w.settle()
        assert texts(alice) == []
        assert suite(alice) == 3

    run(tmp_path, story)


def test_junk_that_ends_the_last_epoch_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            at = line(bob)
            access = api.Access(bytes(32), bytes(32), bytes(32))
            header = at._header(api.EntryKind.BUNDLE, bundle=api.Bundle(api.ZERO32, access, ()))
            content = api.SealedContent(api.ContentKind.COMMIT, at.state.head, b"junk")
            await post(bob, at.keys.append(header, content))
        await w.settle()
        assert (suite(alice), suite(bob)) == (3, 3)
        assert same(alice, bob)

    run(tmp_path, story)


# -- D-SUC-2: which successor counts


def _content(client: Client, leaf: int | None = None, **changes: Any) -> bytes:
    """A successor by a client, of a group that is not the announced one in one point."""
    at = line(client)
    reinit = at.group.reinitialized
    assert reinit is not None
    binding = read_binding(reinit.extensions)
    made = changes.pop("info", None) or _info(at, **changes)
    tbs = api.SuccessorTBS(MLSMessage.of(made).encode(), changes.get("log_id", binding.log_id))
    own = at.group.own_leaf if leaf is None else leaf
    signature = at.group.sign(api.SUCCESSOR_LABEL.decode(), tbs.encode())
    return api.SuccessorContent(own, tbs, signature).encode()


def _info(at: Any, **changes: Any) -> Any:
    reinit = at.group.reinitialized
    context = GroupContext(
        ProtocolVersion.MLS10,
        reinit.cipher_suite,
        reinit.group_id,
        1,
        bytes(32),
        bytes(32),
        reinit.extensions,
    )
    context = context.replace(**{k: v for k, v in changes.items() if k != "log_id"})
    tbs = GroupInfoTBS(context, (), bytes(32), LeafIndex(0))
    return tbs.sign(suite_of(1), at.group._epoch.signature_key)


FORGED: list[dict[str, Any]] = [
    {"group_id": b"another"},
    {"cipher_suite": 1},
    {"extensions": ()},
    {"epoch": 2},
    {"log_id": bytes(32)},
    {"leaf": 0},
    {"leaf": 7},
]


@pytest.mark.parametrize("forged", FORGED, ids=lambda forged: next(iter(forged)))
def test_a_successor_that_was_not_announced_does_not_count(
    tmp_path: Path, forged: dict[str, Any]
) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob", admins=("bob",))
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            await post(bob, line(bob).successor(_content(bob, **forged)))
            await w.settle()
            for client in (alice, bob):
                succession = client.vault.succession(group(client).id)
                assert succession is not None
                assert succession.counting is None
        await w.settle()
        assert same(alice, bob)
        assert suite(bob) == 3

    run(tmp_path, story)


def test_what_follows_is_known_of_a_group_that_ended_only(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        (alice,) = await group_of(w, "alice")
        with pytest.raises(StateError, match="not reinitialised"):
            announced(line(alice).group)
        package = alice.identity.new_package(w.now).bundle.key_package
        with pytest.raises(DecodeError, match="without a GroupInfo"):
            confirmation_tag(MLSMessage.of(package))

    run(tmp_path, story)


def test_a_successor_by_who_has_no_right_does_not_count(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            await post(bob, line(bob).successor(_content(bob)))
        await w.settle()
        assert same(alice, bob)
        assert suite(bob) == 3

    run(tmp_path, story)


def test_a_forged_group_info_of_an_administrator_is_told_and_can_be_replaced(
    tmp_path: Path,
) -> None:
    """It counts, since it is an administrator's; no Welcome leads there, so nobody goes anywhere."""

    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES, admins=("bob",))
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            await post(bob, line(bob).successor(_content(bob)))
        await w.settle()
        assert {group(c).status for c in (alice, bob, carol)} == {"moving"}
        assert alice.vault.succession(group(alice).id).prepared is None  # type: ignore[union-attr]
        w.now += TOO_LONG
        told = await w.settle("alice", "carol")
        assert all(any("an hour ago" in p for p in problems(t)) for t in told.values())
        await group(alice).reform(without=["bob"])
        await w.settle("alice", "carol")
        await group(carol).follow()
        await w.settle("alice", "carol")
        assert same(alice, carol)

    run(tmp_path, story)


# -- D-SUC-3: somebody takes over


def test_an_administrator_takes_over_after_ten_minutes_and_not_before(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES, admins=("bob",))
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
        w.now += TAKE_OVER - 1
        await w.settle("bob", "carol")
        assert {group(c).status for c in (bob, carol)} == {"moving"}
        w.now += 1
        await w.settle("carol")
        assert group(carol).status == "moving", "who is no administrator waits"
        await w.settle("bob", "carol")
        assert same(bob, carol)
        await w.settle()
        assert same(alice, bob, carol)
        assert suite(alice) == 3

    run(tmp_path, story)


def test_of_two_successors_the_first_in_the_log_counts(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES, admins=("bob",))
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
        w.now += TAKE_OVER
        # Alice makes her group and is held up before she can say so; Bob takes over.
        posting = w.weather.tamper
        posting["logs/append"] = _lose_successor
        with pytest.raises(ServiceError, match="lost"):
            await alice.sync()
        posting.clear()
        taken = [c.vault.succession(group(c).id) for c in (alice,)]
        assert taken[0] is not None
        assert taken[0].prepared is not None
        await w.settle("bob", "alice", "carol")
        await w.settle()
        assert same(alice, bob, carol)
        for client in (alice, bob, carol):
            assert client.vault.profile.view.spaces("next/") == []

    run(tmp_path, story)


def _lose_successor(request: api.Append, answer: Any) -> Any:
    return _lose(request, answer) if request.entry.header.bundle is not None else answer


# -- D-SUC-4: which Welcome is followed


async def _invite_elsewhere(w: World, by: Client, whom: str) -> None:
    """A member makes a group of its own in the place of the announced one, and invites somebody to it."""
    at, identity = line(by), by.identity
    talk = conversation(by)
    members = await talk._claim_members((), 3, lambda *_: None)
    opening = await by.tools.delivery.create_log(
        create_log(at.group.export_secret, announced(at.group))
    )
    made, prepared = make_successor(at, members.packages, identity, opening.receipt, w.now)
    opened = await by.tools.delivery.append(prepared.opening)
    assert opened.opened is not None
    keys = Line.opened(made, prepared.parent, opened.opened).keys
    for guest in prepared.guests:
        package = read_key_package(guest.claimed.key_package)
        if identity.user_of_credential(package.leaf_node.credential) != f"{whom}@{REALM}":
            continue
        welcome = api.WelcomeContent(
            at.binding.service,
            prepared.opening.log_id,
            prepared.parent,
            bytes(keys.read_token),
            opened.opened,
            None,
            MLSMessage.of(
                Welcome(prepared.cipher_suite, (guest.secrets,), prepared.encrypted_group_info)
            ).encode(),
        )
        envelope = api.EnvelopeContent(api.EnvelopeKind.WELCOME, welcome)
        await by.tools.inboxes.post_envelope(seal_envelope(package, guest.claimed.ticket, envelope))


def test_a_welcome_to_another_group_than_the_successor_is_not_followed(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES, admins=("bob",))
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            await _invite_elsewhere(w, bob, "carol")
            await w.settle("carol")
            assert group(carol).status == "moving", "no successor counts yet"
        away = ServiceError("no Welcome goes out yet", retry_after=0)
        with mock.patch.object(MovingConversation, "_post_welcomes", side_effect=away):
            with suppress(ServiceError):
                await alice.sync()
            told = await w.settle("carol")
        assert any("D-SUC-4" in what for what in problems(told["carol"]))
        assert group(carol).status == "moving"
        await w.settle()
        assert same(alice, bob, carol)

    run(tmp_path, story)


def test_a_withheld_successor_keeps_a_member_waiting_and_misleads_it_nowhere(
    tmp_path: Path,
) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES)
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
        at = line(carol).state
        await w.settle("alice", "bob")

        def withhold(request: api.Read, result: api.ReadResult) -> api.ReadResult:
            if request.epoch != at.epoch:
                return result
            number = request.from_number
            return result.replace(entries=(), next_number=number, head=line(carol).state.head)

        w.weather.tamper["logs/read"] = withhold
        await w.settle("carol")
        assert group(carol).status == "moving"
        w.now += TOO_LONG
        told = await w.settle("carol")
        assert any("an hour ago" in what for what in problems(told["carol"]))
        w.weather.tamper.clear()
        await w.settle("carol")
        assert same(alice, bob, carol)

    run(tmp_path, story)


# -- what is left behind


def test_no_secret_of_the_old_group_is_left(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        clients = alice, bob = await group_of(w, "alice", "bob")
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            old = line(bob)
            secrets = [
                bytes(old.group.resumption_psk(n) or b"") for n in range(old.group.epoch + 1)
            ]
            secrets += [bytes(old.keys.read_token), bytes(old.keys.box_seed)]
        await w.settle()
        for client in clients:
            view = client.vault.profile.view
            values = [value for name in view.spaces() for _, value in view.scan(name)]
            values += [intent.payload for intent in view.intents()]
            for secret in filter(None, secrets):
                assert not any(secret in value for value in values)
            assert client.vault.succession(group(client).id) is None
            assert client.vault.parked() == []

    run(tmp_path, story)


def test_the_log_of_the_next_group_cannot_be_taken(tmp_path: Path) -> None:
    """Who reads the ReInit knows the log's id; by then the log is open (D-SUC-9)."""

    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        with nobody_goes_on():
            await group(alice).reinitialise(cipher_suite=3)
            await w.settle()
            reinit = line(bob).group.reinitialized
            assert reinit is not None
            log_id = read_binding(reinit.extensions).log_id
            keys = line(bob).keys
            create = api.CreateLog(api.DeliveryVersion.COTERIE1, log_id, keys.access, DAY)
            with pytest.raises(Refused, match="D-LOG-2"):
                await bob.tools.delivery.create_log(
                    api.CreateLogRequest(create, keys.sign(create.to_be_signed()))
                )
        await w.settle()
        assert same(alice, bob)

    run(tmp_path, story)


@pytest.mark.parametrize("seed", range(4))
def test_lost_requests_and_answers_lose_nobody_on_the_way(tmp_path: Path, seed: int) -> None:
    async def story(w: World) -> None:
        clients = alice, bob, _ = await group_of(w, *NAMES, admins=("bob",))
        w.weather.random.seed(seed)
        w.weather.lose_request = w.weather.lose_answer = 0.15
        await group(alice).reinitialise(cipher_suite=3)
        await group(bob).send("on the way")
        for _ in range(30):
            w.now += 61
            for client in clients:
                with suppress(ServiceError):
                    await client.sync()
        w.weather.lose_request = w.weather.lose_answer = 0.0
        await w.settle()
        assert same(*clients)
        assert {suite(c) for c in clients} == {3}
        assert all(texts(c) == ["on the way"] for c in clients)

    run(tmp_path, story)


def test_a_new_administrator_may_move_the_group(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await group_of(w, "alice", "bob")
        await make_admins(alice, "bob")
        await w.settle()
        await group(bob).reinitialise(retention=3 * DAY)
        await w.settle()
        assert same(alice, bob)
        assert line(alice).binding.retention == 3 * DAY

    run(tmp_path, story)


def test_a_group_at_another_service_is_not_joined(tmp_path: Path) -> None:
    """A client talks to one service; a binding that names another key is of another one (D-ACC-10)."""

    async def story(w: World) -> None:
        alice = await w.device("alice")
        bob = await w.device("bob")
        stored = bob.identity.stored
        bob.identity.stored = stored.replace(receipt_key=bytes(32))
        made = await alice.create_group("Friends")
        await made.add("bob")
        told = await w.settle()
        assert any("D-ACC-10" in what for what in problems(told["bob"]))
        assert bob.groups() == []

    run(tmp_path, story)


def test_nobody_comes_in_by_an_external_commit(tmp_path: Path) -> None:
    """Neither a stranger, nor a client that has a leaf, which would have two then."""

    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES)
        at, identity = line(bob), bob.identity
        key = identity.suite.generate_signature_key(lambda n: bytes(range(n)))
        again, message = Group.join_external(
            at.group.group_info(),
            key,
            identity.credential,
            identity.capabilities(),
            replace(bob.tools.config, rules=None, authenticator=AcceptAnything()),
        )
        keys = EpochKeys.derive(again.export_secret, at.binding.log_id)
        commit = message.encode()
        header = at._header(api.EntryKind.BUNDLE, bundle=api.Bundle(api.ZERO32, keys.access, ()))
        tbs = api.ManifestTBS(
            at.state.epoch,
            header.id,
            api.ZERO32,
            keys.access,
            api.sha256(commit),
            api.ZERO32,
            at.state.head.hash(),
            at.group.own_leaf,
        )
        signature = at.group.sign(api.MANIFEST_LABEL.decode(), tbs.encode())
        content = api.CommitContent(api.Manifest(tbs, signature), commit).encode()
        await post(
            bob,
            at.keys.append(
                header, api.SealedContent(api.ContentKind.COMMIT, at.state.head, content)
            ),
        )
        told = await w.settle("alice", "carol")
        for label in ("alice", "carol"):
            assert any("no member's Commit" in what for what in problems(told[label]))
        w.now += 61
        await w.settle("alice", "carol")
        assert line(alice).group.tree.member_count == 3
        with pytest.raises(RuleViolation, match="no external Commits"):
            ProfileRules(identity).check_commit(at.group.context, at.group.tree, None, None)  # type: ignore[arg-type]
        await group(alice).send("still here")
        await w.settle("alice", "carol")
        assert texts(carol) == ["still here"]

    run(tmp_path, story)


def test_who_was_stuck_when_the_group_moved_is_asked_and_comes_after(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES)
        with carol.vault.step() as step:
            step.set_status(group(carol).id, "stuck", "it could not follow")
        await group(alice).reinitialise(retention=9 * DAY)
        await w.settle()
        assert group(carol).status == "stuck"
        w.now += DAY + 1
        told = await w.settle(rounds=4)
        assert any("for a day" in what for what in problems(told["carol"]))
        assert any(isinstance(e, Invited) for e in told["carol"])
        await group(carol).follow()
        await w.settle()
        assert same(alice, bob, carol)

    run(tmp_path, story)


def test_who_is_two_moves_behind_catches_up(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol = await group_of(w, *NAMES)
        for retention in (9, 10):
            await group(alice).reinitialise(retention=retention * DAY)
            await w.settle("alice", "bob")
        await group(bob).send("there already")
        await w.settle("carol", rounds=3)
        assert same(alice, bob, carol)
        assert texts(carol) == ["there already"]
        assert carol.vault.parked() == []

    run(tmp_path, story)


def test_a_group_moves_though_not_all_can_be_claimed_at_once_and_nobody_is_claimed_twice(
    tmp_path: Path,
) -> None:
    async def story(w: World) -> None:
        alice, *_ = await group_of(w, *NAMES)
        claim, asked, left = alice.tools.inboxes.claim, list[str](), 1

        async def limited(request: api.Claim) -> api.ClaimResult:
            nonlocal left
            if not left:
                raise Refused(api.ErrorCode.RATE_LIMITED, "too many claims", retry_after=60)
            left -= 1
            asked.append(request.name.decode())
            return await claim(request)

        with mock.patch.object(alice.tools.inboxes, "claim", limited):
            await group(alice).reinitialise(cipher_suite=3)
            assert asked == [f"bob@{REALM}"]
            left = 1
            await w.settle(rounds=4)
        assert asked == [f"bob@{REALM}", f"carol@{REALM}"]
        assert {suite(client) for client in w.clients.values()} == {3}

    run(tmp_path, story)
