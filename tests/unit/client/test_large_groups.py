"""Groups whose tree is in chunks: joining, a service that lies about them, insiders who do, crashes and cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coterie.client import Client, chunks, creating, joining, mailbox, making, supplying
from coterie.client.chunks import StateChange
from coterie.client.events import Event, Joined, Joining, Problem
from coterie.client.line import Line
from coterie.client.making import Making
from coterie.client.vault import Step, Vault
from coterie.errors import ServiceError
from coterie.mls.group import PendingCommit
from coterie.mls.tls import encode_opaque
from coterie.transport import api
from coterie.transport.refusal import Refused
from tests.client_world import World, texts, world
from tests.crowd import crowd

DAY = 24 * 3600
LIMIT = 4096 << 6
"""The largest envelope (D-INB-5)."""


def run(tmp_path: Path, story: Callable[[World], Awaitable[None]]) -> None:
    async def go() -> None:
        async with world(tmp_path) as w:
            await story(w)

    asyncio.run(go())


async def some(w: World, *labels: str, extras: int = 20, **settings: Any) -> list[Client]:
    """A group of the first device, with these devices and some who do nothing."""
    clients = [await w.device(label) for label in labels]
    group = await clients[0].create_group("Large", **settings)
    await group.add(*labels[1:], *await crowd(w, extras))
    await w.settle()
    return clients


def line(client: Client) -> Line:
    return client.groups()[0]._conversation.line


def roots(*clients: Client) -> set[api.ChunkRef | None]:
    return {line(client).shared.root for client in clients}


def problems(told: list[Event]) -> list[str]:
    return [event.what for event in told if isinstance(event, Problem)]


async def invite(w: World, adder: Client, label: str) -> Client:
    """A device that was added, and has not looked yet."""
    newcomer = await w.device(label)
    await adder.groups()[0].add(label)
    return newcomer


async def agree(w: World, *clients: Client) -> None:
    """All are in one epoch with one state, and read each other."""
    await clients[-1].groups()[0].send("here I am")
    await w.settle()
    assert {texts(client)[-1] for client in clients} == {"here I am"}
    assert len({client.groups()[0].epoch_authenticator for client in clients}) == 1
    assert len(roots(*clients)) == 1


def test_a_group_whose_tree_no_envelope_holds_is_joined_and_used(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob", extras=430)
        assert len(line(alice).group.tree.encode()) > LIMIT
        w.weather.paths.clear()
        carol = await invite(w, alice, "carol")
        told = (await w.settle("carol"))["carol"]
        steps = [event for event in told if isinstance(event, Joining)]
        assert [(event.done, event.known) for event in steps] == [(1, 1), (3, 3), (31, 31)]
        assert isinstance(told[-1], Joined)
        assert len(carol.groups()[0].members()) == 433
        await agree(w, alice, bob, carol)
        await carol.groups()[0].renew_keys()
        await w.settle()
        dave = await invite(w, alice, "dave")
        await w.settle()
        await agree(w, alice, bob, carol, dave)
        # A Commit brings its chunks with it: nothing is uploaded apart.
        assert "chunks/put" not in w.weather.paths

    run(tmp_path, story)


def test_a_small_group_has_its_tree_in_the_welcome(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob", extras=14)
        assert not {path for path in w.weather.paths if path.startswith("chunks/")}
        assert roots(alice, bob) == {None}
        assert list(line(alice).shared.all_refs(line(alice).group.tree)) == []
        carol = await invite(w, alice, "carol")
        await w.settle()
        assert "chunks/fetch" in w.weather.paths
        await agree(w, alice, bob, carol)
        for client in (carol, bob):
            await alice.groups()[0].remove(client.user)
        await w.settle()
        assert roots(alice) == {None}

    run(tmp_path, story)


def _forge(chunk: api.Chunk) -> api.Chunk:
    return api.Chunk(chunk.data[:-1] + bytes([chunk.data[-1] ^ 1]))


LIES: dict[str, Callable[[list[api.Chunk | None]], list[api.Chunk | None]]] = {
    "withheld": lambda found: [None, *found[1:]],
    "forged": lambda found: [*found[:-1], found[-1] and _forge(found[-1])],
    "swapped": lambda found: found[::-1] if len(found) > 1 else [api.Chunk(b"")],
    "empty": lambda found: [api.Chunk(b"") for _ in found],
}


@pytest.mark.parametrize("lie", LIES)
def test_chunks_that_the_service_lies_about_let_nobody_half_in(tmp_path: Path, lie: str) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        carol = await invite(w, alice, "carol")
        w.weather.tamper["chunks/fetch"] = lambda _, answer: answer.replace(
            chunks=tuple(LIES[lie](list(answer.chunks)))
        )
        for _ in range(2):
            with pytest.raises(ServiceError, match="D-CHK-6"):
                await carol.sync()
            assert carol.groups() == []
        w.weather.tamper.clear()
        await carol.sync()
        await agree(w, alice, bob, carol)
        assert carol.vault.invitations() == []
        assert not carol.vault.profile.view.spaces("chunks/")

    run(tmp_path, story)


@pytest.mark.parametrize("answer", [(), (api.Chunk(b""), None, None)])
def test_more_or_fewer_chunks_than_were_asked_for_end_in_an_error(
    tmp_path: Path, answer: tuple[api.Chunk | None, ...]
) -> None:
    async def story(w: World) -> None:
        alice, _ = await some(w, "alice", "bob")
        carol = await invite(w, alice, "carol")
        w.weather.tamper["chunks/fetch"] = lambda *_: api.Chunks(answer)
        with pytest.raises(ServiceError, match="D-CHK-5"):
            await carol.sync()

    run(tmp_path, story)


def test_answers_that_are_cut_short_are_asked_for_again(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        carol = await invite(w, alice, "carol")
        w.weather.tamper["chunks/fetch"] = lambda _, answer: api.Chunks(answer.chunks[:1])
        w.weather.paths.clear()
        await carol.sync()
        assert w.weather.paths.count("chunks/fetch") == 3
        w.weather.tamper.clear()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_a_stale_chunk_is_not_taken(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        place = chunks.Place(0, 0)
        old = line(alice).shared.ref(line(alice).group.tree, place)
        assert old is not None
        before = api.Chunk(line(alice).shared.data(line(alice).group.tree, place, old))
        carol = await invite(w, alice, "carol")
        new = line(alice).shared.ref(line(alice).group.tree, place)
        assert new is not None

        def stale(request: api.FetchChunks, answer: api.Chunks) -> api.Chunks:
            pairs = zip(request.addresses, answer.chunks, strict=True)
            return api.Chunks(tuple(before if a == new.address else c for a, c in pairs))

        w.weather.tamper["chunks/fetch"] = stale
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        w.weather.tamper.clear()
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_who_cannot_have_the_state_asks_to_be_added_again_and_a_member_supplies_it(
    tmp_path: Path,
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        carol = await invite(w, alice, "carol")
        await alice.sync()
        root = line(alice).shared.root
        assert root is not None
        lost = {
            ref.address for place, ref in line(alice).shared.all_refs(line(alice).group.tree)
        } - {root.address}

        def lose(request: api.FetchChunks, answer: api.Chunks) -> api.Chunks:
            pairs = zip(request.addresses, answer.chunks, strict=True)
            return api.Chunks(tuple(None if a in lost else c for a, c in pairs))

        def forget(request: api.PutChunksRequest, _: api.PutChunksResult) -> api.PutChunksResult:
            gone = tuple(a for a in request.put.renewed if a in lost)
            lost.difference_update(chunk.address() for chunk in request.put.chunks)
            return api.PutChunksResult(gone)

        w.weather.tamper = {"chunks/fetch": lose, "chunks/put": forget}
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        w.now += joining.PATIENCE
        await carol.sync()
        assert any("cannot be had" in what for what in problems(carol.pending_events()))
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        assert w.weather.paths.count("boxes/post") == 1
        await bob.sync()
        assert bob.tools.counters["chunks supplied"] == 2
        assert not lost
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_a_second_invitation_takes_the_place_of_one_that_could_not_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        with monkeypatch.context() as patch:
            patch.setattr(mailbox, "STOCK", 0)
            carol = await invite(w, alice, "carol")
        w.weather.tamper["chunks/fetch"] = lambda _, answer: api.Chunks(
            (None,) * len(answer.chunks)
        )
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        first = carol.vault.invitations()
        await alice.groups()[0].remove("carol")
        await alice.groups()[0].add("carol")
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        second = carol.vault.invitations()
        assert len(first) == len(second) == 1
        assert first[0].package != second[0].package
        # The first was for the last-resort package, which others may have claimed as well.
        kept = {package.reference: package for package in carol.vault.packages(carol.identity)}
        assert kept[first[0].package].last_resort
        w.weather.tamper.clear()
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_an_invitation_under_the_same_id_displaces_no_download_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        carol, mallory = await invite(w, alice, "carol"), await w.device("mallory")
        w.weather.tamper["chunks/fetch"] = lambda _, answer: api.Chunks(
            (None,) * len(answer.chunks)
        )
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        known = bytes.fromhex(alice.groups()[0].id)
        with monkeypatch.context() as patch:
            fresh = [known, bytes(range(32))]
            patch.setattr(creating, "secrets", SimpleNamespace(token_bytes=lambda _: fresh.pop()))
            group = await mallory.create_group("Large")
        w.now += 60
        await group.add("bob", "carol", *await crowd(w, 20, "other"))
        assert group.id == alice.groups()[0].id
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        assert len(carol.vault.invitations()) == 2
        w.weather.tamper.clear()
        told = await w.settle("carol")
        assert not problems(told["carol"])
        assert carol.vault.invitations() == []
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_an_invitation_to_a_log_of_another_service_is_refused_before_its_download(
    tmp_path: Path,
) -> None:
    async def story(w: World) -> None:
        alice, _ = await some(w, "alice", "bob")
        carol = await invite(w, alice, "carol")
        carol.identity.stored = carol.identity.stored.replace(receipt_key=bytes(32))
        told = await w.settle("carol")
        assert any("kept by another service" in what for what in problems(told["carol"]))
        assert "chunks/fetch" not in w.weather_of["carol"].paths

    run(tmp_path, story)


def test_an_invitation_that_is_too_old_is_given_up_with_its_keys(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, _ = await some(w, "alice", "bob", retention=DAY)
        carol = await invite(w, alice, "carol")
        w.weather.tamper["chunks/fetch"] = lambda _, answer: api.Chunks(
            (None,) * len(answer.chunks)
        )
        with pytest.raises(ServiceError, match="D-CHK-6"):
            await carol.sync()
        [invitation] = carol.vault.invitations()
        await alice.groups()[0].renew_keys()
        w.now += 3 * DAY
        await w.delivery.sweep()
        w.weather.tamper.clear()
        await carol.sync()
        assert any("too old" in what for what in problems(carol.pending_events()))
        assert carol.vault.invitations() == []
        assert carol.vault.package(carol.identity, invitation.package) is None

    run(tmp_path, story)


# -- insiders


def _forging(forge: Callable[[StateChange], StateChange]) -> Any:
    real = Line.next_state

    def next_state(self: Line, pending: PendingCommit) -> StateChange:
        return forge(real(self, pending))

    return next_state


def _other_root(change: StateChange) -> StateChange:
    assert change.root is not None
    return replace(change, root=change.root.replace(address=bytes(32)))


def _not_listed(change: StateChange) -> StateChange:
    return replace(change, chunks={}, data={})


def _listed_for_nothing(change: StateChange) -> StateChange:
    nowhere = chunks.Place(5, 5)
    ref = api.ChunkRef(api.sha256(b"x"), bytes(32))
    return replace(
        change, chunks={**change.chunks, nowhere: ref}, data={**change.data, nowhere: b"x"}
    )


@pytest.mark.parametrize(
    ("forge", "supplied"), [(_other_root, 0), (_not_listed, 2), (_listed_for_nothing, 0)]
)
def test_a_committer_who_names_another_state_is_noticed_and_its_state_supplied(
    tmp_path: Path,
    forge: Callable[[StateChange], StateChange],
    supplied: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(w: World) -> None:
        alice, bob, mallory = await some(w, "alice", "bob", "mallory")
        with monkeypatch.context() as patch:
            patch.setattr(Line, "next_state", _forging(forge))
            await mallory.groups()[0].renew_keys()
        told = await w.settle("alice", "bob")
        for client in (alice, bob):
            assert client.tools.counters["bundles with other chunks"] == 1
        assert all("not stored as it is" in problems(events)[0] for events in told.values())
        # It is no ground against the Commit (D-VAL-6).
        assert len({c.groups()[0].epoch_authenticator for c in (alice, bob, mallory)}) == 1
        monkeypatch.setattr(supplying, "RENEWERS", 1000)
        w.now += supplying.DOUBT_WAIT
        await w.settle("alice")
        assert alice.tools.counters["chunks supplied"] == supplied
        carol = await invite(w, alice, "carol")
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_a_welcome_that_refers_to_the_state_of_another_epoch_is_refused_before_a_download(
    tmp_path: Path,
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        old = line(alice).shared.root
        real = Making._plan_welcomes

        def plan(self: Making, step: Step, line: Line, *rest: Any) -> None:
            line.shared.root, root = old, line.shared.root
            real(self, step, line, *rest)
            line.shared.root = root

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Making, "_plan_welcomes", plan)
            carol = await invite(w, alice, "carol")
        w.weather.paths.clear()
        await carol.sync()
        assert any("state of another epoch" in what for what in problems(carol.pending_events()))
        assert "chunks/fetch" not in w.weather.paths
        assert carol.groups() == []
        await w.settle()
        await agree(w, alice, bob)

    run(tmp_path, story)


def test_a_state_that_is_not_the_groups_lets_nobody_in_and_another_member_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adder seals another tree under the right keys; only the tree hash can tell."""

    async def story(w: World) -> None:
        mallory, alice, bob = await some(w, "mallory", "alice", "bob")
        real = chunks.content_of

        def forged(tree: Any, place: chunks.Place, children: Any) -> api.ChunkContent:
            content = real(tree, place, children)
            return content if place.level else api.ChunkContent(encode_opaque(bytes(31)))

        with monkeypatch.context() as patch:
            patch.setattr(chunks, "content_of", forged)
            carol = await invite(w, mallory, "carol")
        await carol.sync()
        told = problems(carol.pending_events())
        assert any("is not the state of 'Large'" in what for what in told)
        assert carol.groups() == []
        assert not carol.vault.profile.view.spaces("chunks/")
        # It asks at once, and does not download the same again.
        assert w.weather.paths.count("boxes/post") == 1
        w.weather.paths.clear()
        await carol.sync()
        assert "chunks/fetch" not in w.weather.paths
        await w.settle("alice", "bob")
        await w.settle("carol")
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


# -- crashes and cuts


class Crash(BaseException):
    """The process is gone."""


def test_a_join_that_crashes_at_any_step_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob", extras=40)
        monkeypatch.setattr(joining, "_BATCH", 2)
        monkeypatch.setattr(joining, "_AT_ONCE", 1)
        steps = await crash_at(w, alice, 10**9)
        assert steps > 5
        asked = []
        for at in range(1, steps + 1):
            w.weather.paths.clear()
            await crash_at(w, alice, at)
            asked.append(w.weather.paths.count("chunks/fetch"))
        # Kept are all chunks but those whose transaction the crash cut.
        assert max(asked) <= min(asked) + 1
        await w.settle()
        await agree(w, alice, bob)

    async def crash_at(w: World, alice: Client, at: int) -> int:
        """Adds a new device, which crashes at a step of its own; how many steps there were."""
        label = f"newcomer-{at}"
        count, real = 0, Vault.step
        carol = await w.device(label)
        await alice.groups()[0].add(label)

        def step(self: Vault) -> Any:
            nonlocal count
            count += self is carol.vault
            if count == at and self is carol.vault:
                raise Crash
            return real(self)

        with monkeypatch.context() as patch:
            patch.setattr(Vault, "step", step)
            try:
                await carol.sync()
            except Crash:
                assert carol.groups() == [] or carol.groups()[0].status == "active"
        carol.vault.profile.close()
        del w.clients[label]
        async with w.profile(label) as again:
            await again.sync()
            assert again.groups()[0].epoch_authenticator == alice.groups()[0].epoch_authenticator
            assert roots(again) == roots(alice)
            assert again.vault.invitations() == []
        return count

    run(tmp_path, story)


def test_an_upload_that_is_cut_goes_on_and_sends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        monkeypatch.setattr(chunks, "KEPT_DATA", 0)
        monkeypatch.setattr(supplying, "_UPLOAD", 1)
        alice, bob = await w.device("alice"), await w.device("bob")
        group = await alice.create_group("Large")
        uploaded: list[bytes] = []
        real = alice.tools.delivery.put_chunks

        async def put(request: api.PutChunksRequest) -> api.PutChunksResult:
            if request.put.chunks and len(uploaded) == 2:
                uploaded.append(b"cut")
                raise ServiceError("the connection was cut", retry_after=0)
            result = await real(request)
            uploaded.extend(chunk.address() for chunk in request.put.chunks)
            return result

        monkeypatch.setattr(alice.tools.delivery, "put_chunks", put)
        await group.add("bob", *await crowd(w, 60))
        assert group.epoch == 0
        await alice.sync()
        assert group.epoch == 1
        assert len(uploaded) == len(set(uploaded)) == 6
        await w.settle()
        await agree(w, alice, bob)

    run(tmp_path, story)


def test_a_device_that_is_killed_in_an_upload_finishes_the_commit_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        monkeypatch.setattr(chunks, "KEPT_DATA", 0)
        monkeypatch.setattr(supplying, "_UPLOAD", 1)
        alice, bob = await w.device("alice"), await w.device("bob")
        group = await alice.create_group("Large")

        async def put(_: Any) -> None:
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(alice.tools.delivery, "put_chunks", put)
            with pytest.raises(Crash):
                await group.add("bob", *await crowd(w, 60))
        alice.vault.profile.close()
        async with w.profile("alice") as again:
            w.clients["alice"] = again
            await w.settle()
            await agree(w, again, bob)

    run(tmp_path, story)


def test_a_bundle_whose_chunks_the_service_misses_is_supplied_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob")
        real = alice.tools.delivery.append

        async def append(request: api.Append) -> api.Appended:
            return await real(request.replace(chunks=()))

        monkeypatch.setattr(alice.tools.delivery, "append", append)
        carol = await invite(w, alice, "carol")
        assert alice.tools.counters["chunks supplied"] == 3
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_a_service_that_keeps_no_chunks_loses_no_intent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        alice, _ = await some(w, "alice", "bob")
        carol = await w.device("carol")

        async def append(_: api.Append) -> api.Appended:
            raise Refused(api.ErrorCode.MISSING_CHUNK, "no", rule="D-BUN-5")

        with monkeypatch.context() as patch:
            patch.setattr(alice.tools.delivery, "append", append)
            await alice.groups()[0].add("carol")
            with pytest.raises(ServiceError, match="D-BUN-5"):
                await alice.sync()
        assert alice.groups()[0].waiting() == 1
        await w.settle()
        assert carol.groups()[0].status == "active"

    run(tmp_path, story)


def test_a_service_that_misses_what_it_was_not_asked_about_gets_nothing(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, _ = await some(w, "alice", "bob")
        conversation = alice.groups()[0]._conversation
        w.weather.tamper["chunks/put"] = lambda *_: api.PutChunksResult((bytes(32),))
        with pytest.raises(ServiceError, match="D-CHK-7"):
            await conversation._renew_state()

    run(tmp_path, story)


def test_a_chunk_that_its_maker_sealed_in_another_way_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was given such a reference when it joined cannot make the chunk, and still supplies the others."""

    async def story(w: World) -> None:
        alice, _ = await some(w, "alice", "bob")
        conversation = alice.groups()[0]._conversation
        w.weather.tamper["chunks/put"] = lambda request, _: api.PutChunksResult(request.put.renewed)
        real, place = chunks.SharedState.data, chunks.Place(0, 1)

        def data(self: chunks.SharedState, tree: Any, at: chunks.Place, ref: Any) -> bytes:
            return b"other" if at == place else real(self, tree, at, ref)

        monkeypatch.setattr(chunks.SharedState, "data", data)
        await conversation._renew_state()
        assert alice.tools.counters["chunks that cannot be made again"] == 1
        assert alice.tools.counters["chunks supplied"] == 2

    run(tmp_path, story)


def test_chunks_that_aged_away_are_supplied_by_who_comes_back(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob", retention=DAY)
        w.now += 2 * DAY
        await w.delivery.sweep()
        await alice.sync()
        assert alice.tools.counters["chunks supplied"] == 3
        carol = await invite(w, alice, "carol")
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


def test_chunks_are_renewed_before_they_age_away_and_by_few_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        alice, bob = await some(w, "alice", "bob", retention=10 * DAY)
        monkeypatch.setattr(supplying, "RENEWERS", 1000)
        await w.settle()
        w.weather.paths.clear()
        for _ in range(30):
            w.now += DAY
            await w.settle(rounds=1)
            await w.delivery.sweep()
        # Each of the two at 0.4 to 0.6 of the retention, looking once a day.
        assert 8 <= w.weather.paths.count("chunks/put") <= 16
        assert alice.tools.counters.get("chunks supplied", 0) == 0
        monkeypatch.setattr(supplying, "RENEWERS", 0)
        w.weather.paths.clear()
        for _ in range(7):
            w.now += DAY
            await w.settle(rounds=1)
        assert "chunks/put" not in w.weather.paths
        carol = await invite(w, alice, "carol")
        await w.settle()
        await agree(w, alice, bob, carol)

    run(tmp_path, story)


# -- Welcomes


def test_many_are_added_by_several_commits_where_one_would_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        monkeypatch.setattr(making, "MOST_ADDED", 20_000)
        alice, bob = await some(w, "alice", "bob", extras=60)
        assert len(alice.groups()[0].members()) == 62
        assert alice.groups()[0].epoch > 2
        await agree(w, alice, bob)

    run(tmp_path, story)


def test_welcomes_cost_their_number_and_nothing_of_the_group(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice = await w.device("alice")
        group = await alice.create_group("Large")
        sizes: dict[int, int] = {}
        real = Step.add_intent

        def add_intent(self: Step, conversation: str, intent: Any) -> int:
            if intent.kind.name == "WELCOME":
                sizes[count] = len(intent.encode())
            return real(self, conversation, intent)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Step, "add_intent", add_intent)
            for count in (20, 200):
                await group.add(*await crowd(w, count, f"round{count}-"))
        assert sizes[200] <= sizes[20] + 100
        assert not alice.vault.profile.view.spaces("welcomes/")

    run(tmp_path, story)


def test_welcomes_that_a_crash_cut_are_posted_later_and_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World) -> None:
        labels = ["bob", "carol", "dave"]
        alice = await w.device("alice")
        clients = [await w.device(label) for label in labels]
        group = await alice.create_group("Large")
        posted = 0
        real = alice.tools.inboxes.post_envelope

        async def post(envelope: api.PostEnvelope) -> api.Done:
            nonlocal posted
            posted += 1
            if posted == 20:
                raise Crash
            return await real(envelope)

        with monkeypatch.context() as patch:
            patch.setattr(alice.tools.inboxes, "post_envelope", post)
            with pytest.raises(Crash):
                await group.add(*labels, *await crowd(w, 30))
        alice.vault.profile.close()
        async with w.profile("alice") as again:
            w.clients["alice"] = again
            await w.settle()
            assert again.groups()[0].waiting() == 0
            await agree(w, again, *clients)
            assert not any(c.tools.counters.get("envelopes passed over") for c in clients)

    run(tmp_path, story)
