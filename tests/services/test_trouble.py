"""What commands say where something goes wrong: nothing is lost silently, and each line says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import pytest

from coterie.apps import cli
from coterie.apps.demo import Services
from tests.services.test_person import Person


@asynccontextmanager
async def _alice(folder: Path) -> AsyncIterator[tuple[Person, Services]]:
    """Somebody who has logged in, and the services, which the story may stop."""
    services = Services(folder)
    await services.start()
    try:
        alice = Person("alice", folder, services)
        await alice.types("login", "alice", "--code", await services.code_for("alice"))
        yield alice, services
    finally:
        await services.stop()


def _is_list(line: str) -> bool:
    return line.startswith("[")


def test_a_text_that_is_too_long_is_not_said_to_be_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with _alice(tmp_path) as (alice, _):
            await alice.types("new", "Friends")
            said = await alice.types("send", "Friends", stdin="x" * 300_000)
            assert "at most 262144 are allowed" in said
            assert said.endswith("(exit code 1)\n")
            assert "(not sent)" in await alice.types("read", "Friends")

    asyncio.run(story())


def test_a_group_that_is_made_offline_is_said_to_be_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with _alice(tmp_path) as (alice, services):
            await services.stop()
            said = await alice.types("new", "Friends", "bob")
            assert "stored, not done yet: made Friends" in said
            assert "exit code" not in said
            found = await alice.scripts("groups")
            (group,) = next(map(json.loads, filter(_is_list, found.splitlines())))
            assert group["status"] == "creating"

    asyncio.run(story())


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_who_interrupts_at_a_question_is_not_asked_any_further(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    environment = {**os.environ, "COTERIE_PROFILE": str(tmp_path), "COTERIE_KEY": "passphrase"}
    environment.pop("COTERIE_PASSPHRASE", None)
    with subprocess.Popen(
        [sys.executable, "-m", "coterie.apps", "login", "alice", "--code", "7KQM2"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(follower)
        shown = b""
        while b"Passphrase" not in shown:
            shown += os.read(leader, 1 << 16)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == 130
        finally:
            process.kill()
    os.close(leader)


def test_who_interrupts_before_a_command_runs_sees_no_traceback() -> None:
    with (
        mock.patch.object(cli, "app", side_effect=KeyboardInterrupt),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("server", "code", "words"),
    [
        ("127.0.0.1:8470", 1, "begins with https:// (or http://), not '127.0.0.1:8470'"),
        ("http://127.0.0.1:9", 75, "the service at http://127.0.0.1:9 cannot be reached"),
    ],
)
def test_a_server_that_is_not_there_is_named(
    tmp_path: Path, server: str, code: int, words: str
) -> None:
    async def story() -> None:
        alice = Person("alice", tmp_path, mock.Mock(url=server))
        said = await alice.types("login", "alice", "--code", "7KQM2")
        assert words in said
        assert said.endswith(f"(exit code {code})\n")

    asyncio.run(story())
