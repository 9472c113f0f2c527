"""What a group's history shows: the last texts, those that were imported as well."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.client_world import texts, world


def test_imported_texts_stand_before_all_others_and_count_as_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await w.device("alice"), await w.device("bob")
            group = await alice.create_group("Friends")
            await group.add("bob")
            for n in range(3):
                await group.send(f"old {n}")
            await w.settle()
            assert bob.export_history(str(tmp_path / "file"), "several words") == 3
            phone = await w.device("phone", "bob")
            assert phone.import_history(str(tmp_path / "file"), "several words") == 3
            await group.add("bob")
            await w.settle()
            await group.send("new")
            await w.settle()
            assert texts(phone) == ["old 0", "old 1", "old 2", "new"]
            (there,) = phone.groups()
            assert [m.text for m in there.history(2)] == ["old 2", "new"]
            assert [m.text for m in there.unread()] == ["new"]

    asyncio.run(story())


def test_a_history_of_no_texts_is_empty(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice = await w.device("alice")
            group = await alice.create_group("Notes")
            await group.send("one")
            assert [len(group.history(limit)) for limit in (-1, 0, 1)] == [0, 0, 1]

    asyncio.run(story())
