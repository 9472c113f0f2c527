"""Two tasks of one application use one client at once, as one that listens and one that asks do."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coterie.client.events import Joined, Problem
from tests.client_world import texts, world
from tests.crowd import crowd


def test_a_large_group_that_two_tasks_download_at_once_is_entered_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await w.device("alice"), await w.device("bob")
            group = await alice.create_group("Large")
            await group.add("bob", *await crowd(w, 20))
            await asyncio.gather(bob.sync(), bob.sync())
            told = bob.pending_events()
            assert not [event for event in told if isinstance(event, Problem)]
            assert len([event for event in told if isinstance(event, Joined)]) == 1
            await bob.groups()[0].send("here I am")
            await alice.sync()
            assert texts(alice) == ["here I am"]

    asyncio.run(story())
