"""Forward secrecy and healing, shown by attack: thefts of a real client's disk and memory at different times.

Each theft that opens nothing stands beside one that is able to: the same attack at another time, which does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from coterie.client import Client
from coterie.storage import Profile
from coterie.transport import api
from tests.attacker import Loot, Recorder
from tests.client_world import World, texts, world


@dataclass
class Scene:
    """A victim, somebody she talks to, and who records it all."""

    world: World
    alice: Client
    bob: Client
    recorder: Recorder

    def steal(self, name: str) -> Loot:
        return Loot.take(self.world, "alice", name)

    async def bob_sends(self, text: str) -> None:
        await self.bob.groups()[0].send(text)

    async def settle(self) -> None:
        await self.world.settle()


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    async with world(folder) as w:
        alice, bob = [await w.device(name) for name in ("alice", "bob")]
        recorder = Recorder(w)
        group = await alice.create_group("Friends")
        await group.add("bob")
        await w.settle()
        yield Scene(w, alice, bob, recorder)


def test_what_was_read_is_not_opened_by_who_comes_after(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            for text in ("one", "two"):
                await s.bob_sends(text)
            first, second = s.recorder.locks.values()
            before = s.steal("before")
            await s.settle()
            after = s.steal("after")
            assert texts(s.alice) == ["one", "two"]
            for lock in (first, second):
                assert before.opens_message(lock)
                assert not after.opens_message(lock)
                # Within the epoch only the keys of the messages themselves are given up.
                assert after.opens_envelope(lock)
            assert len(before.follow(s.recorder.entries, s.alice)) == 2
            assert after.follow(s.recorder.entries, s.alice) == []

    asyncio.run(story())


def test_what_was_sent_is_not_opened_by_who_comes_after(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            before = s.steal("before")
            await s.alice.groups()[0].send("of my own")
            lock = s.recorder.last
            sent = s.steal("sent")
            await s.settle()
            settled = s.steal("settled")
            assert before.opens_message(lock)
            assert not sent.opens_message(lock)
            assert not settled.opens_message(lock)

    asyncio.run(story())


def test_nothing_of_an_epoch_that_has_ended_is_opened(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            await s.bob_sends("in the old epoch")
            lock = s.recorder.last
            await s.settle()
            within = s.steal("within")
            await s.bob.groups()[0].renew_keys()
            await s.settle()
            after = s.steal("after")
            assert within.opens_envelope(lock)
            assert not after.opens_envelope(lock)
            assert not after.opens_message(lock)
            assert after.follow(s.recorder.entries, s.alice) == []

    asyncio.run(story())


def _commit_of(s: Scene, entry: api.Entry, loot: Loot) -> bytes:
    """The Commit in a bundle, which whoever was in the epoch before opens."""
    assert entry.header.bundle is not None
    with Profile.open(loot.folder, loot.key) as profile:
        content = loot.line(profile, s.alice).keys.open(entry)
    return api.CommitContent.decode(content.content).commit


def test_an_update_locks_a_thief_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            before, of_bob = s.steal("before"), Loot.take(s.world, "bob", "bob")
            [conversation] = s.alice._conversations.values()
            confirmed = conversation.group.context.confirmed_transcript_hash
            start = len(s.recorder.entries)
            await s.alice.groups()[0].renew_keys()
            await s.settle()
            bundle = next(e for e in s.recorder.entries[start:] if e.header.bundle is not None)
            after = s.steal("after")
            await s.bob_sends("healed")
            lock = s.recorder.last
            assert after.opens_message(lock)
            assert after.opens_envelope(lock)
            assert not before.opens_message(lock)
            assert not before.opens_envelope(lock)
            assert before.follow(s.recorder.entries[start:], s.alice) == []
            assert len(after.follow(s.recorder.entries[start:], s.alice)) == 1
            # Nor is there a key for the Commit's path, which those for whom it is made can open.
            commit = _commit_of(s, bundle, before)
            suite, context = conversation.group.suite, conversation.group.context
            # What path secrets are sealed to: the new epoch's context, but for the Commit's own hash.
            context = context.replace(confirmed_transcript_hash=confirmed)
            assert of_bob.opens_path(commit, context, suite)
            assert not before.opens_path(commit, context, suite)

    asyncio.run(story())


def test_before_the_update_the_thief_goes_on_reading(tmp_path: Path) -> None:
    async def story() -> None:
        async with scene(tmp_path) as s:
            before = s.steal("before")
            start = len(s.recorder.entries)
            await s.bob.groups()[0].renew_keys()
            await s.settle()
            await s.bob_sends("still open")
            read = before.follow(s.recorder.entries[start:], s.alice)
            assert len(read) == 1

    asyncio.run(story())


def test_the_keys_of_a_key_package_are_gone_after_it_was_used(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            packages = {p.reference: p for p in bob.vault.packages(bob.identity)}
            before = Loot.take(w, "bob", "before")
            group = await alice.create_group("Friends")
            await group.add("bob")
            await w.settle()
            joined = Loot.take(w, "bob", "joined")
            await bob.groups()[0].renew_keys()
            await w.settle()
            renewed = Loot.take(w, "bob", "renewed")
            left = {p.reference for p in bob.vault.packages(bob.identity)}
            [used] = [packages[r] for r in packages.keys() - left]
            init = bytes(used.bundle.init_key.private_bytes())
            leaf = bytes(used.bundle.encryption_key.private_bytes())
            inbox = bytes(used.inbox_key.private_bytes())
            assert {init, leaf, inbox} <= before.secrets
            assert {init, leaf, inbox} & joined.secrets == {leaf}
            assert not {init, leaf, inbox} & renewed.secrets

    asyncio.run(story())
