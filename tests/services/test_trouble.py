"""What commands say where something goes wrong: nothing is lost silently, and each line says what to do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from coterie.apps.demo import Services
from tests.services.test_person import Person


async def _logged_in(name: str, folder: Path, services: Services) -> Person:
    person = Person(name, folder, services)
    await person.types("login", name, "--code", await services.code_for(name))
    return person


def test_a_text_that_is_too_long_is_not_said_to_be_sent(tmp_path: Path) -> None:
    async def story() -> None:
        services = Services(tmp_path)
        await services.start()
        alice = await _logged_in("alice", tmp_path, services)
        await alice.types("new", "Friends")
        said = await alice.types("send", "Friends", stdin="x" * 300_000)
        assert "at most 262144 are allowed" in said
        assert said.endswith("(exit code 1)\n")
        assert "(not sent)" in await alice.types("read", "Friends")
        await services.stop()

    asyncio.run(story())


def test_a_group_that_is_made_offline_is_said_to_be_stored(tmp_path: Path) -> None:
    async def story() -> None:
        services = Services(tmp_path)
        await services.start()
        alice = await _logged_in("alice", tmp_path, services)
        await services.stop()
        said = await alice.types("new", "Friends", "bob")
        assert "stored, not done yet: made Friends" in said
        assert "exit code" not in said
        told = (await alice.scripts("groups")).splitlines()[1:]
        assert [group["status"] for group in json.loads(told[0])] == ["creating"]

    asyncio.run(story())
