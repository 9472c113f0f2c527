"""The example bot goes on after what would stop it: texts that it cannot answer, groups that it was removed from."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.client_world import World, world

BOT = Path(__file__).parents[3] / "examples" / "bot.py"


@pytest.fixture
def bot() -> dict[str, Any]:
    """The names of the program, which its functions share."""
    answer_all = runpy.run_path(str(BOT))["answer_all"]
    names: dict[str, Any] = answer_all.__globals__
    return names


async def _asked(w: World, *texts: str) -> None:
    alice, helper = await w.device("alice"), await w.device("helper")
    group = await alice.create_group("Questions")
    await group.add("helper")
    await w.settle()
    for text in texts:
        await group.send(text)
    await helper.sync()


def test_a_text_that_cannot_be_answered_keeps_the_bot_from_no_other(
    tmp_path: Path, bot: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def reply_to(text: str) -> str:
        if text == "raise":
            msg = "the handler fails"
            raise ValueError(msg)
        if text == "hang":
            await asyncio.Event().wait()
        return text.upper()

    async def story() -> None:
        async with world(tmp_path) as w:
            await _asked(w, "raise", "hang", "hello")
            await bot["answer_all"](w.clients["helper"])
            await w.settle()
            assert [m.text for m in w.clients["alice"].groups()[0].unread()] == ["HELLO"]
            assert w.clients["helper"].groups()[0].unread() == []

    bot.update(reply_to=reply_to, PATIENCE=0.05)
    asyncio.run(story())
    assert len(caplog.records) == 2


def test_a_bot_that_was_removed_from_one_group_answers_in_the_others(
    tmp_path: Path, bot: dict[str, Any]
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            await _asked(w, "!echo one", "!echo ")
            alice, helper = w.clients["alice"], w.clients["helper"]
            other = await alice.create_group("Other questions")
            await other.add("helper")
            await alice.group("Questions").remove("helper")
            await other.send("!echo two")
            await w.settle()
            await bot["answer_all"](helper)
            await w.settle()
            assert [m.text for m in other.unread()] == ["two"]

    asyncio.run(story())
