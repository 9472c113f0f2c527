"""`coterie demo`: the whole life of a group, on this machine, with the real services and real clients over HTTP.

Everything happens in a temporary directory. A client that is killed is a real process, killed with SIGKILL after the
service has taken its Commit and before it heard of it: a small proxy in between holds the answer back.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from coterie.apps.terminal import describe
from coterie.client import Client, GroupHandle
from coterie.errors import CoterieError, ServiceError
from coterie.storage import StorageKey

REALM: Final = "demo.example"
_READY_WITHIN: Final = 30.0
_APPEND: Final = b"POST /v1/logs/append"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "coterie.apps", *words]


class Services:
    """`coterie serve` as a process of its own, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self.config = directory / "coterie.toml"
        self.data = directory / "data"
        self.config.write_text(
            f'realm = "{REALM}"\nlisten = "127.0.0.1:{self.port}"\ndata = "{self.data}"\n'
            'log_level = "error"\n'
            "[delivery.rates.bundles]\nburst = 1000\ninterval = 0.1\n",
            encoding="utf-8",
        )
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where the services answer."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts them and waits until they answer."""
        errors = (self.directory / "services.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            *_command("serve", "--config", str(self.config)),
            stdout=errors,
            stderr=errors,
            stdin=asyncio.subprocess.DEVNULL,
        )
        errors.close()
        ends = time.monotonic() + _READY_WITHIN
        async with httpx.AsyncClient(trust_env=False) as http:
            while time.monotonic() < ends and self._process.returncode is None:
                try:
                    if (await http.get(f"{self.url}/health/ready")).is_success:
                        return
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)
        log = (self.directory / "services.log").read_text(encoding="utf-8")
        msg = f"the services did not start within {_READY_WITHIN:.0f} seconds: {log[-500:]}"
        raise ServiceError(msg)

    async def code_for(self, user: str) -> str:
        """Adds a user, as the operator does; returns the one-time code."""
        answer = await _call(
            "user", "add", user, "--json", "--config", str(self.config), env=dict(os.environ)
        )
        code: str = json.loads(answer)["code"]
        return code

    async def stop(self) -> None:
        """Ends them."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


class Proxy:
    """Passes connections on to the services; can keep back the answer to an append."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.holding = False
        self.held = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Starts to listen; returns its address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Ends it, with all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
            silent = asyncio.Event()
            await asyncio.gather(
                self._pump(reader, to_writer, silent, requests=True),
                self._pump(to_reader, writer, silent, requests=False),
            )
        except OSError:
            pass
        finally:
            if task is not None:
                self._tasks.discard(task)
            writer.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        silent: asyncio.Event,
        *,
        requests: bool,
    ) -> None:
        while data := await reader.read(1 << 16):
            if requests and self.holding and _APPEND in data:
                silent.set()
            if not requests and silent.is_set():
                self.held.set()
                continue
            writer.write(data)
            await writer.drain()
        writer.close()


class Stage:
    """What the demo prints: numbered scenes, and what each client sees."""

    def __init__(self, *, pause: float) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._pause = pause
        self._scene = 0
        self._started = time.monotonic()
        self.checks: list[str] = []

    async def scene(self, title: str) -> None:
        """A new scene, after a moment to read the last one."""
        if self._scene:
            await asyncio.sleep(self._pause)
        self._scene += 1
        elapsed = time.monotonic() - self._started
        self.console.print(f"\n[bold cyan]{self._scene}. {title}[/] [dim]{elapsed:.1f}s[/]")

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(f"   {text}")

    def check(self, text: str, *, holds: bool) -> None:
        """A claim that was checked; the demo fails where it does not hold."""
        self.console.print(f"   {'[green]✓[/]' if holds else '[red]✗[/]'} {text}")
        if not holds:
            msg = f"the demo found what should not be: {text}"
            raise CoterieError(msg)
        self.checks.append(text)


class Demo:
    """The story."""

    def __init__(self, directory: Path, stage: Stage) -> None:
        self.directory = directory
        self.stage = stage
        self.services = Services(directory)
        self.clients: dict[str, Client] = {}
        self._open = AsyncExitStack()

    async def device(self, label: str, user: str, code: str, server: str = "") -> Client:
        """Opens a profile and enrols it."""
        client = await self._open.enter_async_context(self._profile(label, server))
        await client.enrol(user, code)
        self.clients[label] = client
        return client

    @asynccontextmanager
    async def _profile(self, label: str, server: str = "") -> AsyncIterator[Client]:
        path = self.directory / label
        async with Client.open(
            path, _key(label), server=server or self.services.url, welcome_delay=0.0
        ) as client:
            yield client

    async def settle(self, *labels: str) -> None:
        """Lets the named clients catch up, twice, and prints what each sees."""
        for _ in range(2):
            for label in labels:
                await self.clients[label].sync()
        for label in labels:
            client = self.clients[label]
            for event in client.pending_events():
                line = describe(event, client)
                if line:
                    self.stage.say(f"[dim]{label:>13} │[/] {line}")

    async def run(self) -> None:
        """All scenes; the clients are closed and the services stopped at the end, whatever happens."""
        try:
            await self._setting_up()
            await self._talking()
            await self._catching_up()
            await self._killed()
            await self._removed()
            await self._looking_into_the_database()
        finally:
            await self._open.aclose()
            await self.services.stop()

    async def _setting_up(self) -> None:
        stage = self.stage
        await stage.scene("The services start, and three people enrol")
        await self.services.start()
        stage.say(f"Delivery Service and Authentication Service at [bold]{self.services.url}[/]")
        for user in ("alice", "bob", "carol"):
            await self.device(user, user, await self.services.code_for(user))
        code, _ = await self.clients["alice"].link_code()
        await self.device("alice-phone", "alice", code)
        stage.say(
            "alice (a laptop and a phone, linked by the laptop), bob and carol have certificates"
        )
        await stage.scene("Alice makes a group and adds the others by name")
        group = await self.clients["alice"].create_group("Lighthouse")
        await group.add("bob", "carol", "alice")
        await self.settle("alice", "bob", "carol", "alice-phone")
        self._same_epoch("alice", "bob", "carol", "alice-phone")
        stage.say(f"members: {', '.join(f'{u} ({n})' for u, n in group.members().items())}")

    def _group(self, label: str) -> GroupHandle:
        return self.clients[label].groups()[0]

    def _same_epoch(self, *labels: str, who: str = "all {} devices") -> None:
        groups = [self._group(label) for label in labels]
        seen = {(group.epoch, group.epoch_authenticator) for group in groups}
        self.stage.check(
            f"{who.format(len(labels))} are in epoch {groups[0].epoch} with the same authenticator",
            holds=len(seen) == 1,
        )

    async def _talking(self) -> None:
        await self.stage.scene("They write to each other")
        await self._group("alice").send("The lamp is lit. Who takes the night watch?")
        await self.settle("bob", "carol", "alice-phone")
        await self._group("bob").send("I do. ⚓")
        await self._group("carol").send("And I bring soup.")
        await self.settle("alice", "bob", "carol", "alice-phone")

    async def _catching_up(self) -> None:
        stage = self.stage
        await stage.scene("Carol is offline while the group goes through five epochs")
        stage.say("alice's phone is switched off, too")
        before = self._group("carol").epoch
        for round_number in range(5):
            label = ("alice", "bob")[round_number % 2]
            await self._group(label).renew_keys()
            await self._group(label).send(f"watch report {round_number + 1}: all quiet")
            await self.settle("alice", "bob")
        stage.say(f"carol's device still stands in epoch {before}; now it comes back")
        await self.settle("carol")
        self._same_epoch("alice", "bob", "carol", who="the {} devices that are on")
        texts = [m.text for m in self._group("carol").history() if "watch report" in m.text]
        stage.check("carol has all five reports, in order", holds=len(texts) == 5)

    async def _killed(self) -> None:
        stage = self.stage
        await stage.scene("A device is killed in the middle of a Commit")
        proxy = Proxy(self.services.port)
        address = await proxy.start()
        try:
            code, _ = await self.clients["bob"].link_code()
            environment = _environment(self.directory / "tablet", address)
            await _call("login", "bob", "--code", code, "--server", address, env=environment)
            stage.say("bob links a tablet, a process of its own; his first device adds it")
            await self.settle("bob", "alice", "carol")
            await _call("groups", env=environment)
            await self._group("alice").send("a tablet? Now we are five")
            proxy.holding = True
            tablet = await asyncio.create_subprocess_exec(
                *_command("renew-keys", "Lighthouse"),
                env=environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await asyncio.wait_for(proxy.held.wait(), timeout=30)
            tablet.send_signal(signal.SIGKILL)
            await tablet.wait()
            stage.say(
                "[red]SIGKILL[/]: the service has the tablet's Commit, the tablet never heard so"
            )
            proxy.holding = False
            await _call("send", "Lighthouse", "back again, nothing lost", env=environment)
            await self.settle("alice", "bob", "carol", "alice-phone")
            heard = [m.text for m in self._group("carol").history()]
            stage.check(
                "the tablet found its own Commit in the log, went on, and was heard once",
                holds=heard.count("back again, nothing lost") == 1,
            )
            self._same_epoch(
                "alice", "bob", "carol", "alice-phone", who="the {} others, the phone among them,"
            )
        finally:
            await proxy.stop()

    async def _removed(self) -> None:
        stage = self.stage
        await stage.scene("Alice removes Carol")
        await self._group("alice").remove("carol")
        await self.settle("alice", "bob")
        await self._group("alice").send("Carol must not read this.")
        await self.settle("bob", "carol")
        stage.check("carol's own device says so", holds=self._group("carol").status == "left")
        texts = [m.text for m in self._group("carol").history()]
        stage.check(
            "what was sent afterwards is not on it",
            holds=all("must not read" not in text for text in texts),
        )

    async def _looking_into_the_database(self) -> None:
        stage = self.stage
        await stage.scene("What the service has stored")
        directory = self.services.data / "delivery"
        logs = directory / "logs.db"
        names = [b"alice", b"bob", b"carol", b"Lighthouse", REALM.encode(), b"watch report"]
        content = b"".join(p.read_bytes() for p in directory.glob("logs.db*"))
        table = Table(box=None, padding=(0, 2))
        for column in ("epoch", "entry", "what the service sees", "bytes", "received"):
            table.add_column(column)
        kinds = {1: "message", 2: "end of an epoch", 3: "correction", 4: "successor"}
        with closing(sqlite3.connect(f"file:{logs}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "SELECT epoch, number, kind, size, hour FROM entry ORDER BY key LIMIT 6"
            ).fetchall()
            count = database.execute("SELECT count(*) FROM entry").fetchone()[0]
        ordinals: dict[int, str] = {}
        for epoch, number, kind, size, hour in rows:
            # The service's own names for epochs are random.
            ordinal = ordinals.setdefault(epoch, f"{len(ordinals) + 1}.")
            received = f"{datetime.fromtimestamp(hour * 3600, UTC):%Y-%m-%d, %H} h UTC"
            table.add_row(ordinal, str(number), kinds[kind], str(size), received)
        stage.console.print(table)
        stage.say(f"[dim]… {count} entries in all[/]")
        found = [name.decode() for name in names if name in content]
        stage.check(
            "the logs' database has no name of a user or group, and no text", holds=not found
        )
        directory_content = b"".join(p.read_bytes() for p in directory.glob("directory.db*"))
        stage.check(
            "the key-package directory beside it does have names: that is what it is for",
            holds=b"alice" in directory_content,
        )


def _key(label: str) -> StorageKey:
    return StorageKey.given(label.encode().ljust(32, b"\0"))


def _environment(profile: Path, server: str) -> dict[str, str]:
    return {
        **os.environ,
        "COTERIE_PROFILE": str(profile),
        "COTERIE_SERVER": server,
        "COTERIE_WELCOME_DELAY": "0",
        # Nobody is there to be asked, and the demo leaves nothing in this user's keyring.
        "COTERIE_KEY": "file",
        "NO_COLOR": "1",
    }


async def _call(*words: str, env: dict[str, str]) -> str:
    """Runs a command of the command line to its end; raises `CoterieError` with what it said where it fails."""
    process = await asyncio.create_subprocess_exec(
        *_command(*words),
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    if process.returncode:
        msg = f"coterie {' '.join(words)} failed: {errors.decode(errors='replace')[-500:]}"
        raise CoterieError(msg)
    return out.decode(errors="replace")


app = typer.Typer()


@app.command(rich_help_panel="Trying and checking")
def demo(
    *,
    fast: Annotated[bool, typer.Option("--fast", help="No pauses, for tests.")] = False,
) -> None:
    """Show the whole life of a group on this machine: real services, real clients, one minute."""
    stage = Stage(pause=0.0 if fast else 1.5)
    stage.console.print(
        Panel(
            "One server that orders what it cannot read, three people, five devices,\n"
            "one crash, one removal. Everything happens in a temporary directory.",
            title="Coterie",
            border_style="cyan",
        )
    )
    with tempfile.TemporaryDirectory(prefix="coterie-demo-") as directory:
        asyncio.run(Demo(Path(directory), stage).run())
    stage.console.print(f"\n[green]{len(stage.checks)} claims checked.[/] To go on alone:\n")
    command = _own_command()
    for words, about in (
        ("serve", ""),
        ("user add alice", "in another terminal: prints a one-time code"),
        ("login alice --code CODE", "then: new Friends, chat Friends"),
    ):
        comment = f"   # {about}" if about else ""
        stage.console.print(f"   [bold]{escape(f'{command} {words}')}[/][dim]{comment}[/]")


def _own_command() -> str:
    """What a person types to run this program from here: after `make demo` its directory is on nobody's path."""
    found, script = shutil.which("coterie"), Path(sys.executable).with_name("coterie")
    if (found and Path(found).parent.resolve() == script.parent.resolve()) or not script.exists():
        return "coterie"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) else script)
