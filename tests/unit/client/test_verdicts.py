"""What is no verdict: what this device's disk does not give, and what an earlier process has read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest import mock

import pytest

from coterie.client import Client
from coterie.client.conversation import Conversation
from coterie.client.events import Problem
from coterie.errors import StorageError
from coterie.mls.ratchet_tree import RatchetTree
from coterie.storage.view import SpaceReader
from tests.client_world import REALM, World, texts, world


async def _three(w: World) -> tuple[Client, Client, Client]:
    alice, bob, carol = [await w.device(name) for name in ("alice", "bob", "carol")]
    await (await alice.create_group("Friends")).add("bob", "carol")
    await w.settle()
    return alice, bob, carol


@pytest.mark.parametrize("by", ["tree", "store"])
def test_a_disk_that_fails_for_a_moment_refuses_nobodys_commit(tmp_path: Path, by: str) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, _ = await _three(w)
            await alice.groups()[0].rename("Others")
            await alice.groups()[0].send("hello")
            bob._conversations[bob.groups()[0].id].forget()
            failure = StorageError("the disk gives another page than was written")
            place: tuple[object, str] = (RatchetTree, "member")
            if by == "store":
                _ = bob.groups()[
                    0
                ].epoch  # What is read at once is read; nodes are when they are needed.
                place = SpaceReader, "get"
            with mock.patch.object(*place, side_effect=failure), pytest.raises(StorageError):
                await bob.sync()
            told = (await w.settle())["bob"]
            assert not [event for event in told if isinstance(event, Problem)]
            assert bob.groups()[0].name == "Others"
            assert texts(bob) == ["hello"]
            assert bob.groups()[0].epoch == alice.groups()[0].epoch

    asyncio.run(story())


def test_who_asked_to_leave_is_removed_by_members_who_were_opened_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob, carol = await _three(w)
            with mock.patch.object(Conversation, "_must_commit_pending", return_value=False):
                await carol.groups()[0].leave()
                await w.settle()
            assert len(alice.groups()[0].members()) == 3
            for client in (alice, bob):
                for name in client._conversations:
                    client._conversations[name] = Conversation(client.tools, name)
            for _ in range(3):
                await w.settle("alice", "bob")
                w.now += 60
            assert f"carol@{REALM}" not in alice.groups()[0].members()

    asyncio.run(story())
