"""Catching up: many entries in one transaction, and nothing lost or doubled where it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from coterie.client import Client, reading
from coterie.client.events import MessageReceived
from coterie.client.vault import Step, Vault
from coterie.errors import ServiceError
from coterie.transport import api
from tests.client_world import World, texts, world


def run(tmp_path: Path, story: Callable[[World, Client, Client], Awaitable[None]]) -> None:
    async def go() -> None:
        async with world(tmp_path) as w:
            alice, bob = [await w.device(name) for name in ("alice", "bob")]
            await (await alice.create_group("Away")).add("bob")
            await w.settle()
            await story(w, alice, bob)

    asyncio.run(go())


async def write(alice: Client, count: int) -> list[str]:
    written = [f"message {number}" for number in range(count)]
    for text in written:
        await alice.groups()[0].send(text)
    return written


def count_steps(monkeypatch: pytest.MonkeyPatch, client: Client) -> list[None]:
    real, seen = Vault.step, list[None]()

    def step(self: Vault) -> Any:
        if self is client.vault:
            seen.append(None)
        return real(self)

    monkeypatch.setattr(Vault, "step", step)
    return seen


def test_many_messages_are_taken_in_few_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        del w
        written = await write(alice, 60)
        monkeypatch.setattr(reading, "_ENTRIES", 25)
        steps = count_steps(monkeypatch, bob)
        await bob.sync()
        # Three batches, and what every `sync` stores about its plans.
        assert len(steps) <= 3 + 4
        told = [e.text for e in bob.pending_events() if isinstance(e, MessageReceived)]
        assert [message.text for message in bob.groups()[0].history(100)] == told == written

    run(tmp_path, story)


def test_commits_between_messages_are_followed(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        written = []
        for _ in range(3):
            written += await write(alice, 4)
            await alice.groups()[0].renew_keys()
        await w.settle()
        assert texts(bob) == written
        assert bob.groups()[0].epoch_authenticator == alice.groups()[0].epoch_authenticator

    run(tmp_path, story)


def test_what_comes_before_an_answer_that_is_not_the_log_is_kept(tmp_path: Path) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        written = await write(alice, 9)

        def forge(_: api.Read, result: api.ReadResult) -> api.ReadResult:
            entries = list(result.entries)
            for number, stored in enumerate(entries):
                if stored.receipt.number == 6:
                    entries[number] = stored.replace(entry=result.entries[number + 1].entry)
            return result.replace(entries=tuple(entries))

        w.weather.tamper["logs/read"] = forge
        for _ in range(2):
            with pytest.raises(ServiceError, match="D-REC-9"):
                await bob.sync()
            assert texts(bob) == written[:5]
        w.weather.tamper.clear()
        await w.settle()
        assert texts(bob) == written

    run(tmp_path, story)


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_crash_among_many_messages_loses_and_doubles_none(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        written = await write(alice, 20)
        monkeypatch.setattr(reading, "_ENTRIES", 8)
        count, real = 0, Step.add_text

        def add_text(self: Step, *arguments: Any) -> bool:
            nonlocal count
            count += 1
            if count == at:
                raise Crash
            return real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Step, "add_text", add_text)
            with pytest.raises(Crash):
                await bob.sync()
        # What was told is what is stored: whole batches.
        told = [e.text for e in bob.pending_events() if isinstance(e, MessageReceived)]
        assert told == written[: (at - 1) // 8 * 8] == texts(bob)
        bob.vault.profile.close()
        async with w.profile("bob") as again:
            w.clients["bob"] = again
            await w.settle()
            assert texts(again) == written
            assert again.tools.counters.get("void entries", 0) == 0

    run(tmp_path, story)


def test_two_histories_among_many_messages_keep_what_came_before_and_stop_the_group(
    tmp_path: Path,
) -> None:
    async def story(w: World, alice: Client, bob: Client) -> None:
        written = await write(alice, 5)
        key = w.delivery.logs._receipt_key

        def fork(_: api.Read, result: api.ReadResult) -> api.ReadResult:
            entries = list(result.entries)
            old = entries[3].receipt
            other = old.replace(previous=bytes(32))
            other = other.replace(signature=key.sign(other.to_be_signed()))
            entries[3] = entries[3].replace(receipt=other)
            return result.replace(entries=tuple(entries))

        w.weather.tamper["logs/read"] = fork
        await bob.sync()
        assert bob.groups()[0].status == "stopped"
        assert texts(bob) == written[:3]

    run(tmp_path, story)


def test_a_head_is_known_by_all_its_bytes_also_by_its_signature(tmp_path: Path) -> None:
    """Otherwise members who read the receipt and members who did not would judge the same entry differently."""

    async def story(w: World, alice: Client, bob: Client) -> None:
        await write(alice, 3)
        await w.settle()
        line = alice.groups()[0]._conversation.line
        head = line.state.head
        line.state = line.state.replace(head=head.replace(signature=b"\1" * 64))
        message = line.group.encrypt(b"?")
        await alice.tools.delivery.append(line.message(api.ContentKind.APPLICATION, message))
        with alice.vault.step() as step:
            line.state = line.state.replace(head=head)
            step.save_line(alice.groups()[0].id, line)
        await bob.sync()
        assert bob.tools.counters["void entries"] == 1

    run(tmp_path, story)
