"""Hostile services and networks, and hostile members, over real HTTP: real server process, real clients, real sockets.

What the clients are told, and that they agree when it is over. The same and more without sockets, by the hundred, is in
`tests/unit/client/test_hostile_answers.py` and the simulator.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.apps.config import load
from coterie.apps.serve import open_authentication
from coterie.authentication.service import AuthenticationService
from coterie.client import Client
from coterie.client.events import Event, Joining, Problem
from coterie.client.line import Line
from coterie.delivery.settings import Rates
from coterie.errors import ServiceError
from coterie.mls.group import CommitOptions
from coterie.mls.group import commit as commit_module
from coterie.mls.treekem import seal_path
from coterie.storage import StorageKey
from coterie.transport import api, asking
from coterie.transport.http import HTTPCarrier
from tests.client_world import refused_candidate, texts
from tests.hostile_proxy import Proxy, Writer, between, response
from tests.installation import CONFIG, Installation

MIB = 1 << 20
RATES = """
[authentication]
requests_burst = 100000
enrolments_burst = 100000
""" + "".join(
    f"[delivery.rates.{kind}]\nburst = 100000\ninterval = 0.001\n"
    for kind in Rates.__dataclass_fields__
)
_numbers = count()


@dataclass
class Services:
    """Both services as one process, and a door to enrol by."""

    url: str
    data: Path
    authentication: AuthenticationService


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("services")
    installed = Installation(home / "here", CONFIG + RATES)
    with installed.serving() as (url, _):
        config = load(installed.config)
        with closing(open_authentication(config)) as authentication:
            yield Services(url, installed.home / "data", authentication)


@dataclass
class Scene:
    """A hostile network, and who must live with it."""

    services: Services
    proxy: Proxy
    folder: Path
    open: AsyncExitStack
    clients: dict[str, Client] = field(default_factory=dict)

    async def device(self, name: str) -> Client:
        user = f"{name}{next(_numbers)}"
        code = self.services.authentication.add_user(user).code.decode()
        client = await self.open.enter_async_context(
            Client.open(
                self.folder / user,
                StorageKey.given(bytes(32)),
                server=self.proxy.url,
                welcome_delay=0.0,
                durable=False,
            )
        )
        await client.enrol(user, code)
        self.clients[name] = client
        return client

    async def friends(self, *names: str) -> list[Client]:
        """A group of which the first has made the others members."""
        made = [await self.device(name) for name in names]
        group = await made[0].create_group("Friends")
        await group.add(*(client.user for client in made[1:]))
        await self.settle()
        return made

    async def settle(self, rounds: int = 2) -> dict[str, list[str]]:
        """All catch up; the problems that each was told."""
        told: dict[str, list[str]] = {name: [] for name in self.clients}
        for _ in range(rounds):
            for name, client in self.clients.items():
                await client.sync()
                told[name] += problems(client.pending_events())
        return told

    def receipt_key(self) -> Ed25519PrivateKey:
        """What a service signs receipts with; a hostile one has it."""
        [path] = self.services.data.rglob("receipt.key")
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())

    async def agree(self, *clients: Client) -> None:
        """After it is over: all are in one epoch and hear each other."""
        self.proxy.honest()
        await self.settle(3)
        for client in clients:
            await client.groups()[0].send(f"from {client.user}")
        await self.settle()
        assert len({client.groups()[0].epoch_authenticator for client in clients}) == 1
        for client in clients:
            assert set(texts(client)) >= {f"from {other.user}" for other in clients}


def problems(events: list[Event]) -> list[str]:
    return [event.what for event in events if isinstance(event, Problem)]


def play(services: Services, folder: Path, story: Callable[[Scene], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def scene() -> AsyncIterator[Scene]:
        async with between(services.url) as proxy, AsyncExitStack() as stack:
            yield Scene(services, proxy, folder, stack)

    async def main() -> None:
        async with scene() as made:
            await story(made)

    asyncio.run(main())


# -- a hostile service


def test_two_histories_are_found_out_and_told(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, bob, carol = await s.friends("alice", "bob", "carol")
        await alice.groups()[0].send("one")
        await s.settle()
        key = s.receipt_key()

        def fork(_: api.Read, result: api.ReadResult) -> api.ReadResult:
            head = result.head.replace(entry_hash=bytes(32))
            return result.replace(head=head.replace(signature=key.sign(head.to_be_signed())))

        s.proxy.lies["logs/read"] = fork
        await bob.sync()
        assert any("contradicts itself" in what for what in problems(bob.pending_events()))
        assert bob.groups()[0].status == "stopped"
        # Those to whom it tells one history only go on.
        del s.clients["bob"]
        await s.agree(alice, carol)

    play(services, tmp_path, story)


def test_an_older_history_takes_nothing_back(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        await alice.groups()[0].send("one")
        old: list[api.ReadResult] = []

        def keep(_: api.Read, result: api.ReadResult) -> api.ReadResult:
            old.append(result)
            return result

        s.proxy.lies["logs/read"] = keep
        await s.settle()
        await alice.groups()[0].send("two")
        await s.settle()
        first = next(result for result in old if result.entries)
        s.proxy.lies["logs/read"] = lambda _, __: first
        with pytest.raises(ServiceError):
            await bob.sync()
        assert texts(bob) == ["one", "two"]
        await s.agree(alice, bob)

    play(services, tmp_path, story)


@pytest.mark.parametrize("how", ["reordered", "repeated", "without the first", "without entries"])
def test_a_log_that_is_not_the_log_is_thrown_away(
    services: Services, tmp_path: Path, how: str
) -> None:
    changes: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {
        "reordered": lambda entries: entries[::-1],
        "repeated": lambda entries: entries[:1] + entries,
        "without the first": lambda entries: entries[1:],
        "without entries": lambda _: (),
    }

    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        for text in ("one", "two"):
            await alice.groups()[0].send(text)
        s.proxy.lies["logs/read"] = lambda _, result: result.replace(
            entries=changes[how](result.entries)
        )
        with pytest.raises(ServiceError):
            await bob.sync()
        assert bob.groups()[0].status == "active"
        assert texts(bob) in ([], ["one"])
        await s.agree(alice, bob)
        assert texts(bob)[:2] == ["one", "two"]

    play(services, tmp_path, story)


def test_what_is_withheld_from_some_is_not_lost(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, bob, carol = await s.friends("alice", "bob", "carol")
        before = bob.groups()[0].epoch
        [conversation] = bob._conversations.values()
        stale = await bob.tools.delivery.read(conversation.line.read())
        await alice.groups()[0].renew_keys()
        await alice.groups()[0].send("not for bob")
        await carol.sync()
        s.proxy.lies["logs/read"] = lambda _, __: stale
        await bob.sync()
        assert bob.groups()[0].epoch == before
        assert problems(bob.pending_events()) == []
        s.proxy.honest()
        await s.settle()
        assert texts(bob) == ["not for bob"]
        await s.agree(alice, bob, carol)

    play(services, tmp_path, story)


def test_a_proposal_cannot_be_hidden_from_one(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, bob, carol = await s.friends("alice", "bob", "carol")
        await carol.groups()[0].leave()

        def hide(_: api.Read, result: api.ReadResult) -> api.ReadResult:
            return result.replace(entries=result.entries[1:])

        s.proxy.lies["logs/read"] = hide
        with pytest.raises(ServiceError):
            await bob.sync()
        assert len(bob.groups()[0].members()) == 3
        s.proxy.honest()
        await alice.sync()
        await alice.groups()[0].renew_keys()
        await s.settle(3)
        assert carol.groups()[0].status == "left"
        del s.clients["carol"]
        await s.agree(alice, bob)
        assert len(bob.groups()[0].members()) == 2

    play(services, tmp_path, story)


def test_a_wrong_welcome_is_not_joined(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        carol = await s.device("carol")
        key = s.receipt_key()

        def elsewhere(_: api.Append, answer: api.Appended) -> api.Appended:
            if answer.opened is None:
                return answer
            wrong = answer.opened.replace(epoch=bytes(32))
            return answer.replace(opened=wrong.replace(signature=key.sign(wrong.to_be_signed())))

        s.proxy.lies["logs/append"] = elsewhere
        await alice.groups()[0].add(carol.user)
        s.proxy.honest()
        told = await s.settle()
        assert any("not valid" in what for what in told["carol"] + told["alice"])
        assert carol.groups() == []
        del s.clients["carol"]
        await s.agree(alice, bob)

    play(services, tmp_path, story)


def test_a_key_package_of_another_is_not_added(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        mallory, carol = await s.device("mallory"), await s.device("carol")
        request = api.Claim(
            api.DeliveryVersion.COTERIE1,
            mallory.user.encode(),
            (alice.identity.suite.cipher_suite,),
        )
        of_mallory = await alice.tools.inboxes.claim(request)
        s.proxy.lies["directory/claim"] = lambda _, __: of_mallory
        await alice.groups()[0].add(carol.user)
        assert any("somebody else" in what for what in problems(alice.pending_events()))
        assert len(alice.groups()[0].members()) == 2
        s.proxy.honest()
        await alice.groups()[0].add(carol.user)
        await s.settle(3)
        await s.agree(alice, bob, carol)

    play(services, tmp_path, story)


def test_who_empties_the_directory_keeps_nobody_out(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        alice, mallory = await s.friends("alice", "mallory")
        carol = await s.device("carol")
        claim = api.Claim(
            api.DeliveryVersion.COTERIE1, carol.user.encode(), (alice.identity.suite.cipher_suite,)
        )
        claimed = [await mallory.tools.inboxes.claim(claim) for _ in range(25)]
        packages = [each.packages[0].key_package for each in claimed]
        assert len(set(packages)) < len(packages)
        await alice.groups()[0].add(carol.user)
        await s.settle(3)
        await s.agree(alice, carol)
        # And the stock is filled up again.
        after = (await mallory.tools.inboxes.claim(claim)).packages[0].key_package
        assert after not in packages

    play(services, tmp_path, story)


def _forged(chunk: api.Chunk | None) -> api.Chunk:
    assert chunk is not None
    return api.Chunk(bytes((chunk.data[0] ^ 1,)) + chunk.data[1:])


# What becomes of chunks, given one that is the group's and stands elsewhere. In this order: the last two leave some as
# they are, which a newcomer keeps and does not ask for again.
CHUNK_LIES: dict[str, Callable[[list[Any], api.Chunk], list[Any]]] = {
    "withheld": lambda chunks, _: [None] * len(chunks),
    "empty": lambda chunks, _: [api.Chunk(b"")] * len(chunks),
    "truncated": lambda chunks, _: [api.Chunk(chunk.data[:-1]) for chunk in chunks],
    "of another place": lambda chunks, other: [other] * len(chunks),
    "swapped": lambda chunks, _: [*chunks[1:], chunks[0]] if chunks[1:] else [None],
    "the last one forged": lambda chunks, _: [*chunks[:-1], _forged(chunks[-1])],
    "the last one withheld": lambda chunks, _: [*chunks[:-1], None],
}


def test_chunks_that_are_not_the_groups_let_nobody_in(services: Services, tmp_path: Path) -> None:
    """A newcomer meets every lie about the first chunk, then about those to which it refers, then the truth."""

    async def story(s: Scene) -> None:
        alice, bob = await s.device("alice"), await s.device("bob")
        crowd = [await s.device(f"member{number}") for number in range(15)]
        for number in range(len(crowd)):
            del s.clients[f"member{number}"]
        group = await alice.create_group("Large")
        await group.add(bob.user, *(client.user for client in crowd))
        carol = await s.device("carol")
        await group.add(carol.user)
        roots: list[api.Chunk] = []
        told: list[str] = []

        def about(how: str, *, deep: bool) -> Callable[[api.FetchChunks, api.Chunks], api.Chunks]:
            def lie(request: api.FetchChunks, answer: api.Chunks) -> api.Chunks:
                chunks = list(answer.chunks)
                roots.extend(chunk for chunk in chunks[:1] if chunk is not None and not roots)
                if deep and roots[0].address() in request.addresses:
                    return answer
                told.append(how)
                other = roots[0] if deep else api.Chunk(b"of another group")
                return api.Chunks(tuple(CHUNK_LIES[how](chunks, other)))

            return lie

        for deep in (False, True):
            for how in CHUNK_LIES:
                s.proxy.lies["chunks/fetch"] = about(how, deep=deep)
                with pytest.raises(ServiceError, match="chunks of the group's state"):
                    await carol.sync()
                assert carol.groups() == []
        assert told == [*CHUNK_LIES] * 2
        s.proxy.lies.clear()
        s.proxy.raw["chunks/fetch"] = _truncated
        with pytest.raises(ServiceError, match="cannot be reached"):
            await carol.sync()
        assert carol.groups() == []
        carol.pending_events()
        s.proxy.honest()
        events = [event for _ in range(2) for event in await _synced(carol)]
        # What was right among the lies was kept.
        steps = [(event.done, event.known) for event in events if isinstance(event, Joining)]
        assert steps == [(3, 3)]
        assert problems(events) == []
        await s.agree(alice, bob, carol)
        assert len(carol.groups()[0].members()) == 18

    play(services, tmp_path, story)


async def _synced(client: Client) -> list[Event]:
    await client.sync()
    return client.pending_events()


# -- a hostile network


async def _truncated(writer: Writer, content: bytes) -> None:
    writer.write(response(content[: len(content) // 2], length=len(content)))
    await writer.drain()


async def _junk(writer: Writer, _: bytes) -> None:
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    await writer.drain()


async def _page(writer: Writer, _: bytes) -> None:
    writer.write(response(b"<html>log in first</html>", kind="text/html"))
    await writer.drain()


async def _compressed(writer: Writer, content: bytes) -> None:
    head, _, rest = response(content).partition(b"\r\n\r\n")
    writer.write(head + b"\r\nContent-Encoding: gzip\r\n\r\n" + rest)
    await writer.drain()


async def _cut(writer: Writer, _: bytes) -> None:
    writer.close()


@pytest.mark.parametrize("raw", [_truncated, _junk, _page, _compressed, _cut])
def test_an_answer_that_is_broken_on_the_way_is_asked_for_again(
    services: Services, tmp_path: Path, raw: Any
) -> None:
    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        s.proxy.raw = dict.fromkeys(("logs/read", "logs/append"), raw)
        await alice.groups()[0].send("through all of it")
        with pytest.raises(ServiceError):
            await bob.sync()
        s.proxy.honest()
        await s.settle()
        assert texts(bob) == ["through all of it"]
        await s.agree(alice, bob)

    play(services, tmp_path, story)


def test_an_answer_without_end_is_not_kept(services: Services, tmp_path: Path) -> None:
    written = [0]

    async def endless(writer: Writer, _: bytes) -> None:
        writer.write(response(b"", length=1 << 40))
        while True:
            writer.write(bytes(MIB))
            await writer.drain()
            written[0] += 1

    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        s.proxy.raw["logs/read"] = endless
        with pytest.raises(ServiceError, match="longer than"):
            await bob.sync()
        assert 60 < written[0] < 200
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 300 * 1024
        await s.agree(alice, bob)

    play(services, tmp_path, story)


@pytest.mark.parametrize("path", ["logs/read", "chunks/fetch", "service"])
@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_drips_is_given_up_and_asked_for_again(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, part: str
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 2.0)

    async def drip(writer: Writer, content: bytes) -> None:
        whole = response(content)
        head = whole.index(b"\r\n\r\n") + 4
        writer.write(whole[: 20 if part == "head" else head])
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.1)

    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        await alice.groups()[0].send("in the end")
        carrier = HTTPCarrier(s.proxy.url)
        asked: dict[str, Callable[[], Awaitable[object]]] = {
            "logs/read": bob.sync,
            "service": carrier.info,
            "chunks/fetch": lambda: carrier.call(
                "chunks/fetch", api.FetchChunks(bytes(32), bytes(32), bytes(32), ()), api.Chunks
            ),
        }
        s.proxy.raw[path] = drip
        started = time.monotonic()
        with pytest.raises(ServiceError, match="no whole answer"):
            await asked[path]()
        assert time.monotonic() - started < 20
        await carrier.close()
        await s.agree(alice, bob)
        assert texts(bob)[0] == "in the end"

    play(services, tmp_path, story)


def _frame(opcode: int, payload: bytes, length: bytes | None = None) -> bytes:
    return bytes((0x80 | opcode,)) + (length or bytes((len(payload),))) + payload


FRAMES = {
    "text": _frame(1, b"hello"),
    "an empty frame": _frame(2, b""),
    "no struct": _frame(2, b"\xff" * 20),
    "a reserved opcode": _frame(7, b"x"),
    "a masked frame": bytes((0x82, 0x81)) + b"mask" + b"x",
    "a length of exabytes": _frame(2, b"x", b"\x7f" + b"\x7f" * 8),
    "a control frame in parts": bytes((0x09, 0x01)) + b"x",
    "text that is no UTF-8": _frame(1, b"\xff\xfe"),
    "a reserved close code": _frame(8, b"\x03\xed"),
}


@pytest.mark.parametrize("what", FRAMES)
def test_bad_frames_cost_a_client_nothing_but_the_push(
    services: Services, tmp_path: Path, what: str
) -> None:
    async def story(s: Scene) -> None:
        alice, bob = await s.friends("alice", "bob")
        s.proxy.frames = FRAMES[what]
        changes = bob.changes(poll=0.2)
        await anext(changes)
        await alice.groups()[0].send("all the same")

        async def until_read() -> None:
            while texts(bob) != ["all the same"]:
                await anext(changes)

        await asyncio.wait_for(until_read(), 30)
        await changes.aclose()  # type: ignore[attr-defined]
        await s.agree(alice, bob)

    play(services, tmp_path, story)


def test_a_server_answers_while_others_hold_connections_open(services: Services) -> None:
    host, _, port = services.url.removeprefix("http://").partition(":")
    held = []
    try:
        for number in range(200):
            slow = socket.create_connection((host, int(port)), timeout=10)
            held.append(slow)
            slow.sendall(b"POST /v1/logs/append HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n")
            if number % 2:
                slow.sendall(b"\r\nabc")
        started = time.monotonic()
        info = httpx.get(f"{services.url}/v1/service", timeout=10)
        assert info.status_code == 200
        assert time.monotonic() - started < 10
    finally:
        for slow in held:
            slow.close()


# -- a hostile member


async def _line_of(client: Client) -> Line:
    await client.sync()
    [conversation] = client._conversations.values()
    line = conversation.line
    assert not line.unconfirmed
    return line


def test_a_commit_that_fails_for_one_brings_that_one_back(
    services: Services, tmp_path: Path
) -> None:
    """A path secret that opens, for one member, to another than the others'; and one that does not open."""

    async def story(s: Scene) -> None:
        mallory, alice, bob, carol = await s.friends("mallory", "alice", "bob", "carol")
        line = await _line_of(mallory)

        def spoil(*args: Any, **options: Any) -> Any:
            *nodes, top = seal_path(*args, **options)
            sealed = list(top.encrypted_path_secret)
            sealed[-1] = sealed[-1].replace(ciphertext=bytes(len(sealed[-1].ciphertext)))
            return (*nodes, top.replace(encrypted_path_secret=tuple(sealed)))

        with mock.patch.object(commit_module, "seal_path", spoil):
            pending = line.group.commit((), options=CommitOptions(external_pub=False))
        await mallory.tools.delivery.append(line.bundle(pending))
        told = await s.settle(4)
        hit = [
            name for name, what in told.items() if any("could not be followed" in w for w in what)
        ]
        assert hit
        assert "mallory" not in hit
        await s.agree(mallory, alice, bob, carol)

    play(services, tmp_path, story)


def test_an_access_that_does_not_follow_is_corrected(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        mallory, alice, bob = await s.friends("mallory", "alice", "bob")
        line = await _line_of(mallory)
        pending = line.group.commit((), options=CommitOptions(external_pub=False))
        stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        garbage = api.Access(stranger, b"r" * 32, b"b" * 32)
        with mock.patch("coterie.client.epoch_keys.EpochKeys.access", garbage):
            append = line.bundle(pending)
        await mallory.tools.delivery.append(append)
        await s.settle(3)
        await s.agree(mallory, alice, bob)

    play(services, tmp_path, story)


def test_junk_and_commits_for_nobody_hold_nobody_up(services: Services, tmp_path: Path) -> None:
    async def story(s: Scene) -> None:
        mallory, alice, bob = await s.friends("mallory", "alice", "bob")
        line = await _line_of(mallory)
        for sealed in (b"j" * 256, None):
            message = line.group.encrypt(b"no content at all")
            good = line.message(api.ContentKind.APPLICATION, message)
            entry = good.entry if sealed is None else good.entry.replace(sealed=sealed)
            signature = line.keys.sign(api.append_to_be_signed(entry.hash()))
            await mallory.tools.delivery.append(good.replace(entry=entry, signature=signature))
        line = await _line_of(mallory)
        await mallory.tools.delivery.append(refused_candidate(line))
        # It is always the offender's turn first to end the epoch, and each further candidate of that leaf is void.
        with mock.patch("coterie.client.conversation.END_WAIT", 0):
            await mallory.groups()[0].send("waits for another's Commit")
            await mallory.sync()
            assert (await _line_of(mallory)).spent
            told = await s.settle(3)
        for name in ("alice", "bob"):
            assert any("is invalid" in what for what in told[name])
        await s.agree(mallory, alice, bob)
        assert "waits for another's Commit" in texts(alice)

    play(services, tmp_path, story)
