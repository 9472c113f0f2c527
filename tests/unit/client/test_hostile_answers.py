"""Whatever a service answers, a client's call returns or raises `ServiceError`, and all is well when it has stopped.

Answers are changed as structs: bytes flipped, parts dropped, doubled, taken from earlier answers to other requests. The
service is hostile without its receipt key here, so that nothing of it is evidence.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from coterie.client import Client
from coterie.client.epoch_keys import EpochKeys
from coterie.client.reading import MAX_ENTRY
from coterie.errors import DecodeError, ServiceError
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.refusal import Refused
from tests.client_world import World, texts, world

SEEDS = int(os.environ.get("FUZZ_EXAMPLES", "12"))
PATHS = tuple(api.OPERATIONS)


class Liar:
    """Makes something else of every answer now and then."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.earlier: dict[type[Struct], list[Struct]] = {}
        self.lies = 0

    def __call__(self, _request: Struct, answer: Struct) -> Struct:
        earlier = self.earlier.setdefault(type(answer), [])
        earlier.append(answer)
        if self.random.random() < 0.5:
            return answer
        kinds: list[Callable[[Struct], Struct]] = [
            self._flipped,
            self._flipped,
            lambda _: self.random.choice(earlier),
            self._changed,
        ]
        lie = self.random.choice(kinds)(answer)
        self.lies += lie != answer
        return lie

    def _flipped(self, answer: Struct) -> Struct:
        data = bytearray(answer.encode())
        for _ in range(self.random.choice((1, 1, 3))):
            if data:
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        try:
            return type(answer).decode(bytes(data))
        except DecodeError as error:
            # What the carrier of HTTP makes of it.
            raise ServiceError(f"the service's answer is malformed: {error}") from error

    def _changed(self, answer: Struct) -> Struct:
        lists = [f.name for f in answer._fields if isinstance(getattr(answer, f.name), tuple)]
        if not lists:
            return answer
        name = self.random.choice(lists)
        items = list(getattr(answer, name))
        self.random.shuffle(items)
        items = items[:1] + items if self.random.random() < 0.5 else items[1:]
        changed: Struct = answer.replace(**{name: tuple(items)})
        return changed


async def _tried(work: Awaitable[Any]) -> None:
    with suppress(ServiceError):
        await asyncio.wait_for(work, 20)


async def _busy(rng: random.Random, w: World, clients: list[Client]) -> None:
    """Something that a user does."""
    client = rng.choice(clients)
    groups = [group for group in client.groups() if group.status == "active"]
    if not groups or rng.random() < 0.4:
        await _tried(client.sync())
    elif rng.random() < 0.7:
        await _tried(groups[0].send(f"{rng.random()}"))
    elif rng.random() < 0.5:
        await _tried(groups[0].renew_keys())
    else:
        await _tried(groups[0].rename(f"{rng.random()}"))
    w.now += 60


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_a_service_answers_is_an_error_of_the_service(tmp_path: Path, seed: int) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            rng, liar = random.Random(seed), Liar(seed)
            clients = [await w.device(name) for name in ("alice", "bob", "carol")]
            await (await clients[0].create_group("Friends")).add("bob")
            await w.settle()
            w.weather.tamper = dict.fromkeys(PATHS, liar)
            for step in range(25):
                if step == 10:
                    await _tried(clients[0].groups()[0].add("carol"))
                await _busy(rng, w, clients)
            assert liar.lies > 5
            w.weather.tamper = {}
            w.now += 3600
            await w.settle(rounds=5)
            active = [c.groups()[0] for c in clients[:2]]
            assert [group.status for group in active] == ["active", "active"]
            await active[0].send("the end")
            await w.settle(rounds=3)
            assert len({group.epoch_authenticator for group in active}) == 1
            assert texts(clients[1])[-1] == "the end"

    asyncio.run(story())


async def _two(w: World) -> tuple[Client, Client]:
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    await (await alice.create_group("Friends")).add("bob")
    await w.settle()
    return alice, bob


def test_nothing_is_sealed_over_a_head_that_the_service_has_not_signed(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            [conversation] = alice._conversations.values()
            old = await alice.tools.delivery.read(conversation.line.read())
            await bob.groups()[0].renew_keys()

            def hide(request: api.Read, result: api.ReadResult) -> api.ReadResult:
                if request.epoch == old.head.epoch:
                    return result
                return result.replace(head=old.head)

            w.weather.tamper["logs/read"] = hide
            await alice.groups()[0].send("over a head that is signed")
            assert conversation.line.unconfirmed
            with pytest.raises(ServiceError, match="does not sign"):
                await alice.sync()
            assert alice.groups()[0].waiting() == 1
            w.weather.tamper = {}
            await w.settle()
            assert texts(bob) == ["over a head that is signed"]

    asyncio.run(story())


def test_what_waits_when_a_commit_is_pushed_is_sealed_over_a_signed_head(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            [conversation] = alice._conversations.values()
            await bob.groups()[0].renew_keys()
            pushed = await alice.tools.delivery.read(conversation.line.read())
            conversation.want_text("queued")
            conversation.offer(pushed)
            await conversation.take_offered()
            await w.settle()
            assert texts(bob) == ["queued"]
            assert alice.groups()[0].waiting() == 0

    asyncio.run(story())


@pytest.mark.parametrize("wanted", ["a text", "a Commit", "to leave"])
def test_an_own_entry_that_is_void_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    """Sealed over a head that nobody has signed, by a mistake of whatever kind."""
    mistakes = [bytes(64)]
    append = EpochKeys.append

    def mistaken(
        self: EpochKeys, header: api.EntryHeader, content: api.SealedContent
    ) -> api.Append:
        if mistakes:
            content = content.replace(head=content.head.replace(signature=mistakes.pop()))
        return append(self, header, content)

    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            if wanted == "to leave":
                # The only administrator cannot.
                alice, bob = bob, alice
            group = alice.groups()[0]
            monkeypatch.setattr(EpochKeys, "append", mistaken)
            if wanted == "a text":
                await group.send("said once")
            elif wanted == "a Commit":
                await group.rename("Others")
            else:
                await group.leave()
            w.now += 60
            await w.settle(rounds=3)
            assert not mistakes
            assert group.waiting() == 0
            assert bob.tools.counters["void entries"] == 1
            assert texts(bob) == (["said once"] if wanted == "a text" else [])
            assert bob.groups()[0].name == ("Others" if wanted == "a Commit" else "Friends")
            assert len(bob.groups()[0].members()) == (1 if wanted == "to leave" else 2)

    asyncio.run(story())


def test_an_entry_that_is_said_to_be_huge_is_not_fetched(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].send("one")

            def inflate(_request: api.Read, result: api.ReadResult) -> api.ReadResult:
                entries = tuple(e.replace(entry=None, size=sizes[0]) for e in result.entries)
                return result.replace(entries=entries)

            w.weather.tamper["logs/read"] = inflate
            for size, asked in ((MAX_ENTRY + 1, False), (MAX_ENTRY, True)):
                sizes[0] = size
                w.weather.paths.clear()
                w.weather.tamper["logs/entry"] = lambda _, part: part.replace(part=b"")
                with pytest.raises(ServiceError):
                    await bob.sync()
                assert ("logs/entry" in w.weather.paths) == asked
            w.weather.tamper = {}
            await w.settle()
            assert texts(bob) == ["one"]

    sizes = [0]
    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "status"), [(api.ErrorCode.GONE, "stuck"), (api.ErrorCode.BAD_TOKEN, "active")]
)
def test_only_what_was_dropped_leaves_a_reader_behind(
    tmp_path: Path, code: api.ErrorCode, status: str
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            _, bob = await _two(w)

            def refuse(_request: api.Read, _result: api.ReadResult) -> api.ReadResult:
                raise Refused(code, "no", rule="D-REC-8")

            w.weather.tamper["logs/read"] = refuse
            with suppress(Refused):
                await bob.sync()
            assert bob.groups()[0].status == status

    asyncio.run(story())


def test_the_signature_of_an_epochs_first_receipt_is_stored_when_it_is_seen(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            await alice.groups()[0].renew_keys()
            await bob.sync()
            conversation = bob._conversations[bob.groups()[0].id]
            seen = conversation.line.state
            assert not conversation.line.unconfirmed
            conversation._line = None  # As after a restart.
            assert conversation.line.state == seen

    asyncio.run(story())


def test_a_revocation_list_that_nobody_signed_is_an_error_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, _ = await _two(w)
            await w.device("carol")
            w.now += 3600
            good = w.authentication.revocation_list()
            monkeypatch.setattr(w.authentication, "revocation_list", lambda: good[:-1] + b"x")
            with pytest.raises(ServiceError, match="no known issuer signed it"):
                await alice.refresh_revocations()
            await alice.groups()[0].add("carol")
            assert alice.groups()[0].waiting() == 1
            monkeypatch.undo()
            await w.settle(rounds=3)
            assert len(alice.groups()[0].members()) == 3

    asyncio.run(story())
