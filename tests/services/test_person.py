"""What a person meets: the demo, the commands over real HTTP, the bot; what commands print is kept as snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from coterie.apps.cli import main
from coterie.apps.demo import Services
from coterie.client import BlockingClient, Client
from coterie.client.events import Event, Joined, MembersAdded, MessageReceived
from coterie.errors import StateError
from coterie.storage import MessageState, StorageKey

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOTS = Path(__file__).parent / "snapshots"
_COTERIE = [sys.executable, "-m", "coterie.apps"]


@asynccontextmanager
async def _services(folder: Path) -> AsyncIterator[Services]:
    services = Services(folder)
    await services.start()
    try:
        yield services
    finally:
        await services.stop()


class Person:
    """Somebody at a terminal; the commands run in this process, which spares starting Python for each."""

    def __init__(self, name: str, folder: Path, services: Services) -> None:
        self.name = name
        self.environment = {
            "COTERIE_PROFILE": str(folder / name),
            "COTERIE_SERVER": services.url,
            "COTERIE_WELCOME_DELAY": "0",
            "COTERIE_KEY": "file",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "COLUMNS": "100",
        }

    async def types(self, *words: str, stdin: str = "") -> str:
        """What a command prints, standard error after standard output, then its exit code."""
        return await asyncio.to_thread(self._run, words, stdin)

    async def scripts(self, *words: str) -> str:
        """What a command with `--json` answers, which is JSON and nothing else."""
        return await asyncio.to_thread(self._run, (*words, "--json"), "", only_json=True)

    def _run(self, words: tuple[str, ...], stdin: str, *, only_json: bool = False) -> str:
        out, errors, code = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.dict(os.environ, self.environment),
            mock.patch.object(sys, "argv", ["coterie", *words]),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        printed = out.getvalue() + errors.getvalue()
        if only_json:
            assert all(isinstance(json.loads(line), dict | list) for line in printed.splitlines())
        text = f"$ coterie {' '.join(words)}\n{printed}"
        return text + (f"(exit code {code})\n" if code else "")


def _settled(text: str) -> str:
    """What differs between runs, made alike."""
    text = re.sub(r"\b[0-9A-Z]{5}(-[0-9A-Z]{5}){3}\b", "CODE", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "GROUP", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "DEVICE", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "GROUPID", text)
    text = re.sub(r"\b\d{10}\b", "SECONDS", text)
    text = re.sub(r"\b(\d{4}-\d\d-\d\d )?\d\d:\d\d\b", "TIME", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", text)
    text = re.sub(r"coterie1_[\w-]+", "LINK", text)
    text = re.sub(r"coterie \d+\.\d+\S*", "coterie VERSION", text)
    return re.sub(r"[ \t]+\n", "\n", text)


def _matches(name: str, text: str) -> None:
    """Compares with the snapshot; `COTERIE_SNAPSHOTS=write` writes it anew."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("COTERIE_SNAPSHOTS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(_settled(text), encoding="utf-8")
    assert _settled(text) == path.read_text(encoding="utf-8")


def test_the_demo_shows_what_it_claims_in_less_than_two_minutes() -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [*_COTERIE, "demo", "--fast"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert "9 claims checked" in done.stdout
    closing = done.stdout.partition("To go on alone:")[2].strip().splitlines()
    commands = [line.split("#")[0].split() for line in closing]
    # The words must work where the demo was run: by name where that is on the path, else by the place of the command.
    assert all(shutil.which(words[0]) or Path(words[0]).is_file() for words in commands)
    assert [[Path(words[0]).name, *words[1:3]] for words in commands] == [
        ["coterie", "serve"],
        ["coterie", "user", "add"],
        ["coterie", "login", "alice"],
    ]
    assert time.monotonic() - begun < 120


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("variables", "terminal", "coloured"),
    [({}, True, True), ({"NO_COLOR": "1"}, True, False), ({}, False, False)],
)
def test_there_are_colours_on_a_terminal_only_and_none_where_they_are_not_wanted(
    tmp_path: Path, variables: dict[str, str], terminal: bool, coloured: bool
) -> None:
    leader, follower = os.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR", "TERM"}}
    environment = {**kept, "COTERIE_PROFILE": str(tmp_path), "TERM": "xterm-256color", **variables}
    with subprocess.Popen(
        [*_COTERIE, "doctor"],
        stdout=follower if terminal else subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        printed = b"" if process.stdout is None else process.stdout.read()
    os.close(follower)
    if terminal:
        printed = os.read(leader, 1 << 16)
    os.close(leader)
    assert "not enrolled" in printed.decode()
    assert (b"\x1b[" in printed) is coloured


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_who_chats_at_a_terminal_goes_on_typing_below_what_others_write(tmp_path: Path) -> None:
    from tests.terminals import at_a_terminal  # noqa: PLC0415 - for systems that have such terminals

    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob = (Person(name, tmp_path, services) for name in ("alice", "bob"))
            for person in (alice, bob):
                code = await services.code_for(person.name)
                await person.types("login", person.name, "--code", code)
            await alice.types("new", "Friends", "bob")
            await bob.types("tail")
            environment = {**alice.environment, "TERM": "xterm"}
            with at_a_terminal([*_COTERIE, "chat", "Friends"], environment) as terminal:
                greeting = "Friends, 2 people: write a line and press Enter to send it; Ctrl-D ends"
                await asyncio.to_thread(terminal.shows, greeting, ">")
                terminal.types("I am half")
                await asyncio.to_thread(terminal.shows, greeting, "> I am half")
                await bob.types("send", "Friends", "hello\u202ethere", "\x1b[31mred")
                hello = re.compile(r"\d\d:\d\d bob: hello⟨U\+202E⟩there ⟨U\+001B⟩\[31mred")
                await asyncio.to_thread(terminal.shows, greeting, hello, "> I am half")
                terminal.types(" way\r")
                await asyncio.to_thread(terminal.shows, hello, "> I am half way", ">")
                # A line is sent while the next one is typed: it may still be on its way.
                async with asyncio.timeout(60):
                    while "alice: I am half way" not in await bob.types("tail"):
                        pass
                terminal.types("\x04")
                assert await asyncio.to_thread(terminal.ends) == 0
            # Colours are not wanted; and nothing was said twice.
            assert not re.search(r"\x1b\[[\d;]*3\dm", terminal.captured)
            assert terminal.captured.count("hello") == 1

    asyncio.run(story())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(shell: str) -> None:
    environment = {
        **os.environ,
        "_COTERIE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "coterie link",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "coterie link",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run([*_COTERIE], capture_output=True, text=True, check=False, env=environment)
    assert "link-device" in done.stdout


def test_what_a_person_types_and_reads(tmp_path: Path) -> None:
    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob = (Person(name, tmp_path, services) for name in ("alice", "bob"))
            said = await alice.types("send", "Friends", "too early")
            said += await alice.types("doctor")
            for person in (alice, bob):
                code = await services.code_for(person.name)
                said += await person.types("login", person.name, "--code", code)
            said += await alice.types("new", "Friends", "bob")
            said += await bob.types("tail")
            said += await bob.types("send", "Friends", "hello\u202ethere", "\x1b[31mred")
            said += await alice.types("tail", "Friends")
            said += await alice.types("tail", "Friends")
            said += await alice.types("send", "Friends", stdin="two\nlines\n")
            said += await alice.types("read", "Friends")
            said += await bob.types("add", "Friends", "nobody")
            said += await alice.types("add", "Friends", "bob")
            said += await alice.types("remove", "Friends", "nobody")
            said += await alice.types("send", "Friends", "")
            said += await alice.types("new", "Chess", "nobody")
            said += await alice.types("leave", "Chess")
            said += await bob.types("remove", "Friends", "alice")
            said += await alice.types("remove", "Friends", "bbo")
            said += await alice.types("new", "Club", "bob", "nobody")
            said += await alice.types("new", "Club")
            said += await alice.types("send", "Club", "which one?")
            said += await alice.types("rename", "Friends", "Best friends")
            said += await alice.types("groups")
            said += await alice.types("members", "Best friends")
            said += await alice.types("members", "Best friends", "--json")
            said += await alice.types("search", "hel")
            said += await alice.types("search", "nothing")
            said += await alice.types("status")
            said += await alice.types("status", "--json")
            said += await alice.types("devices")
            said += await alice.types("doctor")
            said += await alice.types("remove", "Best friends", "bob")
            said += await bob.types("tail")
            said += await bob.types("send", "Best friends", "still here?")
            said += await bob.types("read", "nothing like this")
            await services.stop()
            said += await alice.types("send", "Best friends", "into the dark")
            said += await alice.types("doctor")
            _matches("person", said)

    asyncio.run(story())


def test_what_an_administrator_types_and_reads(tmp_path: Path) -> None:
    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob = (Person(name, tmp_path, services) for name in ("alice", "bob"))
            for person in (alice, bob):
                code = await services.code_for(person.name)
                await person.types("login", person.name, "--code", code)
            await alice.types("new", "Friends", "bob")
            said = await bob.types("tail")
            said += await bob.types("rules", "Friends")
            said += await bob.types("rules", "Friends", "add=members")
            said += await alice.types("rules", "Friends", "add=somebody")
            said += await alice.types("rules", "Friends", "colour=blue")
            said += await alice.types("rules", "Friends", "evict-after=3")
            said += await alice.types(
                "rules", "Friends", "add=members", "receipts=on", "evict-after=60"
            )
            said += await alice.types("rules", "Friends", "--json")
            said += await bob.types("tail")
            said += await alice.types("unmake-admin", "Friends", "alice")
            said += await alice.types("leave", "Friends")
            said += await alice.types("make-admin", "Friends", "carol")
            said += await alice.types("make-admin", "Friends", "bob")
            said += await bob.types("unmake-admin", "Friends", "alice")
            said += await alice.types("tail")
            said += await alice.types("members", "Friends")
            _matches("administrator", said)

    asyncio.run(story())


def test_what_those_type_who_come_by_a_link_and_those_who_let_them_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob, carol = (
                Person(name, tmp_path, services) for name in ("alice", "bob", "carol")
            )
            for person in (alice, bob, carol):
                code = await services.code_for(person.name)
                await person.types("login", person.name, "--code", code)
            said = await alice.types("new", "Friends")
            said += await alice.types("link", "Friends")
            await alice.types("rules", "Friends", "links=ask")
            link = (await alice.types("link", "Friends")).splitlines()[1]
            said += await bob.types("join", link, "--note", "Bob from work")
            said += await bob.types("join", link, "--note", "Bob from work")
            said += await bob.types("groups")
            said += await bob.types("join", link[:-9])
            said += await carol.types("join", link)
            said += await alice.types("tail")
            said += await alice.types("requests", "Friends")
            said += await alice.types("refuse", "Friends", "carol")
            said += await alice.types("accept", "Friends", "carol")
            said += await alice.types("accept", "Friends", "bob")
            said += await alice.types("requests", "Friends")
            said += await bob.types("tail")
            said += await bob.types("join", link)
            said += await alice.types("link", "Friends", "--revoke")
            _matches("links", said)

    asyncio.run(story())


def test_what_is_typed_about_other_people(tmp_path: Path) -> None:
    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob = (Person(name, tmp_path, services) for name in ("alice", "bob"))
            for person in (alice, bob):
                code = await services.code_for(person.name)
                await person.types("login", person.name, "--code", code)
            await alice.types("new", "Friends", "bob")
            await alice.types("rules", "Friends", "receipts=on")
            await alice.types("send", "Friends", "hello")
            said = await bob.types("tail")
            said += await alice.types("read", "Friends")
            said += await bob.types("receipts", "off")
            await alice.types("send", "Friends", "in private")
            await bob.types("read", "Friends")
            said += await alice.types("read", "Friends")
            said += await bob.types("receipts", "--json")
            said += await bob.types("block", "alice")
            await alice.types("send", "Friends", "unheard")
            said += await bob.types("tail")
            said += await bob.types("blocked")
            said += await bob.types("members", "Friends")
            said += await bob.types("unblock", "alice")
            said += await bob.types("unblock", "alice")
            said += await bob.types("block", "bob")
            said += await bob.types("read", "Friends")
            _matches("people", said)

    asyncio.run(story())


def test_what_scripts_are_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob, carol = (
                Person(name, tmp_path, services) for name in ("alice", "bob", "carol")
            )
            said = await alice.scripts("groups")
            for person in (alice, bob, carol):
                code = await services.code_for(person.name)
                said += await person.scripts("login", person.name, "--code", code)
            said += await _of_groups(alice, bob, carol)
            said += await _of_texts_and_people(alice, bob, tmp_path / "history")
            said += await _of_devices(alice, services)
            said += await bob.scripts("logout", "--yes")
            await services.stop()
            said += await alice.scripts("rename", "Friends", "Later")
            said += await alice.scripts("link-device")
            _matches("scripts", said.replace(str(tmp_path), "FOLDER"))

    asyncio.run(story())


async def _of_groups(alice: Person, bob: Person, carol: Person) -> str:
    said = await alice.scripts("new", "Friends", "bob")
    said += await bob.scripts("tail")
    said += await bob.scripts("invitations")
    said += await alice.scripts("groups")
    said += await alice.scripts("members", "Friends")
    said += await bob.scripts("add", "Friends", "carol")
    said += await alice.scripts("rules", "Friends", "links=ask", "receipts=on")
    answer = await alice.scripts("link", "Friends", "--revoke")
    said += answer
    link = json.loads(answer.splitlines()[1])["link"]
    said += await carol.scripts("join", link, "--note", "Carol")
    said += await alice.scripts("requests", "Friends")
    said += await alice.scripts("refuse", "Friends", "carol")
    said += await alice.scripts("accept", "Friends", "carol")
    said += await alice.scripts("add", "Friends", "carol")
    said += await alice.scripts("make-admin", "Friends", "bob")
    said += await alice.scripts("unmake-admin", "Friends", "bob")
    said += await alice.scripts("remove", "Friends", "carol")
    said += await alice.scripts("renew-keys", "Friends")
    said += await alice.scripts("rename", "Friends", "Club")
    said += await alice.scripts("rename", "Club", "Friends")
    said += await alice.scripts("reform", "Friends")
    said += await alice.scripts("follow", "Friends")
    said += await alice.scripts("decline", "Friends")
    said += await carol.scripts("tail")
    said += await alice.scripts("move", "Friends", "--keep-days", "40")
    return said + await alice.scripts("leave", "Friends")


async def _of_texts_and_people(alice: Person, bob: Person, file: Path) -> str:
    await bob.scripts("groups")
    said = await bob.scripts("send", "Friends", "hello")
    said += await alice.scripts("read", "Friends")
    said += await alice.scripts("search", "hello")
    said += await alice.scripts("export", str(file), "--passphrase", "a secret of many words")
    said += await bob.scripts("import", str(file), "--passphrase", "a secret of many words")
    said += await bob.scripts("import", str(file), "--passphrase", "another one")
    said += await bob.scripts("block", "alice")
    said += await bob.scripts("blocked")
    said += await bob.scripts("unblock", "alice")
    return said + await bob.scripts("receipts", "off")


async def _of_devices(alice: Person, services: Services) -> str:
    answer = await alice.scripts("link-device")
    phone = Person("phone", Path(services.directory), services)
    said = answer + await phone.scripts(
        "login", "alice", "--code", json.loads(answer.splitlines()[1])["code"]
    )
    found = await alice.scripts("devices")
    said += found
    here = json.loads((await phone.scripts("doctor")).splitlines()[1])
    assert here[0]["good"]
    return said + await alice.scripts(
        "revoke-device", json.loads(found.splitlines()[1])[-1]["device"]
    )


def test_what_an_operator_learns_of_the_users(tmp_path: Path) -> None:
    async def story() -> None:
        async with _services(tmp_path) as services:
            alice, bob = (Person(name, tmp_path, services) for name in ("alice", "bob"))
            at = "--config", str(services.config)
            said = await alice.types("user", "list", *at)
            for person in (alice, bob):
                code = await services.code_for(person.name)
                await person.types("login", person.name, "--code", code)
            link = json.loads((await alice.scripts("link-device")).splitlines()[1])
            phone = Person("phone", tmp_path, services)
            await phone.types("login", "alice", "--code", link["code"])
            for name in ("carol", "a-name-that-is-rather-long", "gone"):
                await services.code_for(name)
            await bob.types("user", "revoke", "bob", *at)
            await bob.types("user", "delete", "gone", "--yes", *at)
            said += await alice.types("user", "list", *at)
            said += await alice.scripts("user", "list", *at)
            _matches("users", said.replace(str(tmp_path), "FOLDER"))

    asyncio.run(story())


@pytest.mark.parametrize(
    "command", ["", "send", "tail", "doctor", "rules", "join", "block", "user", "user list"]
)
def test_the_help_is_what_it_was(command: str) -> None:
    words = [*command.split(), "--help"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}
    done = subprocess.run(
        [*_COTERIE, *words], capture_output=True, text=True, check=True, env=environment
    )
    _matches(f"help-{command.replace(' ', '-') or 'all'}", done.stdout)


def test_the_client_program_in_the_readme_adds_bob_and_says_hello(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(from coterie\.client import.*?)```", readme, re.DOTALL)
    assert block is not None
    told: list[Event] = []
    program: dict[str, Any] = {"print": told.append}
    exec(compile(block[1], "README.md", "exec"), program)

    async def story() -> None:
        async with (
            _services(tmp_path) as services,
            Client.open(tmp_path / "bob", StorageKey.given(bytes(32)), server=services.url) as bob,
        ):
            await bob.enrol("bob", await services.code_for("bob"))
            code = await services.code_for("alice")
            running = asyncio.create_task(program["main"](services.url, code, "a passphrase"))
            try:
                for _ in range(150):
                    await bob.sync()
                    if told and bob.groups() and bob.groups()[0].history():
                        break
                    await asyncio.sleep(0.1)
                assert [m.text for m in bob.groups()[0].history()] == ["Hello"]
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            assert any(isinstance(event, MembersAdded) for event in told)

    asyncio.run(story())


def test_a_script_without_an_event_loop_says_and_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    block = re.search(
        r"```python\n(from coterie.client import BlockingClient.*?)```", page, re.DOTALL
    )
    assert block is not None
    script: dict[str, Any] = {}
    exec(compile(block[1], "embedding.md", "exec"), script)

    def typed(url: str, code: str, bob: str) -> None:
        key, other = StorageKey.from_passphrase("a passphrase"), StorageKey.given(bytes(32))
        with (
            BlockingClient.open(tmp_path / "bob", other, server=url, welcome_delay=0.0) as friend,
            BlockingClient.open(tmp_path / "alice", key, server=url, welcome_delay=0.0) as client,
        ):
            friend.enrol("bob", bob)
            client.enrol("alice", code)
            group = client.create_group("Friends")
            group.add("bob")
            group.change_rules(receipts=True)
            told = next(friend.events())
            assert isinstance(told, Joined)
            friend.group("Friends").send("hello")
        script["report"](tmp_path / "alice", "a passphrase", "all is well")
        with BlockingClient.open(tmp_path / "bob", other) as friend:
            assert next(friend.changes())
            assert [m.text for m in friend.groups()[0].unread()] == ["all is well"]
            with pytest.raises(StateError, match="no group"):
                friend.group("Strangers")
            friend.log_out()
        assert not list((tmp_path / "bob").glob("*"))
        with BlockingClient.open(tmp_path / "alice", key) as client:
            client.sync()
            client.sync()
            assert client.groups()[0].members() == {"alice@demo.example": 1}

    async def story() -> None:
        async with _services(tmp_path) as services:
            codes = [await services.code_for(name) for name in ("alice", "bob")]
            await asyncio.to_thread(typed, services.url, *codes)

    asyncio.run(story())
    assert capsys.readouterr().out == "bob@demo.example hello\n"


def test_one_thread_of_a_script_listens_while_others_write(tmp_path: Path) -> None:
    def script(url: str, code: str, bob: str) -> None:
        key = StorageKey.given(bytes(32))
        heard: list[str] = []
        with (
            ThreadPoolExecutor() as pool,
            BlockingClient.open(tmp_path / "bob", key, server=url, welcome_delay=0.0) as friend,
            BlockingClient.open(tmp_path / "alice", key, server=url, welcome_delay=0.0) as client,
        ):
            friend.enrol("bob", bob)
            client.enrol("alice", code)

            def listen() -> None:
                heard.extend(
                    event.text for event in friend.events() if isinstance(event, MessageReceived)
                )

            listening = pool.submit(listen)
            group = client.create_group("Friends")
            group.add("bob")
            while not friend.groups():
                time.sleep(0.05)
            list(pool.map(group.send, (f"from alice {n}" for n in range(10))))
            theirs = friend.group("Friends")
            list(pool.map(theirs.send, (f"from bob {n}" for n in range(10))))
            client.sync()
            while len(heard) < 10:
                time.sleep(0.05)
            assert sorted(heard) == [f"from alice {n}" for n in range(10)]
            assert {m.text for m in group.unread()} == {f"from bob {n}" for n in range(10)}
            assert {m.state for m in theirs.history()} == {MessageState.RECEIVED, MessageState.SENT}
            assert not listening.done()
        with pytest.raises(StateError, match="another thread closed the client"):
            listening.result(10)
        assert repr(theirs) == f"BlockingGroup({theirs.id[:8]}…)"

    async def story() -> None:
        async with _services(tmp_path) as services:
            codes = [await services.code_for(name) for name in ("alice", "bob")]
            async with asyncio.timeout(120):
                await asyncio.to_thread(script, services.url, *codes)

    asyncio.run(story())


def test_the_bot_answers_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def bot(services: Services, code: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "examples" / "bot.py"),
            str(tmp_path / "bot"),
            services.url,
            "bot",
            code,
        )

    async def heard(client: Client, text: str) -> bool:
        for _ in range(100):
            await client.sync()
            if any(m.text == text for m in client.groups()[0].history()):
                return True
            await asyncio.sleep(0.1)
        return False

    async def story() -> None:
        async with (
            _services(tmp_path) as services,
            Client.open(
                tmp_path / "alice",
                StorageKey.given(bytes(32)),
                server=services.url,
                welcome_delay=0.0,
            ) as alice,
        ):
            code = await services.code_for("bot")
            await alice.enrol("alice", await services.code_for("alice"))
            running = await bot(services, code)
            try:
                group = await alice.create_group("Testers")
                for _ in range(100):
                    await group.add("bot")
                    if len(group.members()) == 2:
                        break
                    await asyncio.sleep(0.1)
                await group.send("!echo one")
                assert await heard(alice, "one")
                running.send_signal(signal.SIGKILL)
                await running.wait()
                await group.send("!echo two")
                running = await bot(services, code)
                assert await heard(alice, "two")
                assert [m.text for m in group.history()].count("one") == 1
            finally:
                running.kill()
                await running.wait()

    asyncio.run(story())
