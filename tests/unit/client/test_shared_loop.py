"""One loop for all threads of a script: what each of them waits for is done, and nothing while none waits."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from coterie.client import BlockingClient
from coterie.client.shared_loop import SharedLoop
from coterie.errors import StateError
from coterie.storage import StorageKey

T = TypeVar("T")
KEY = StorageKey.given(bytes(32))
INTERRUPTS = pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")


async def _value(value: T, seconds: float = 0.0) -> T:
    await asyncio.sleep(seconds)
    return value


class _Waiting:
    """A coroutine that waits until it is let go on, in a thread of its own."""

    def __init__(self, loop: SharedLoop, pool: ThreadPoolExecutor) -> None:
        self.began = threading.Event()
        self.ended = ""
        self._go = asyncio.Event()
        self.result: Future[str] = pool.submit(loop.run, self._wait())
        assert self.began.wait(10)

    async def _wait(self) -> str:
        self.began.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        return "went on"

    async def let_go(self) -> None:
        self._go.set()


def test_a_thread_is_served_while_another_one_waits() -> None:
    with SharedLoop() as loop, ThreadPoolExecutor() as pool:
        waiting = _Waiting(loop, pool)
        assert loop.run(_value("a")) == "a"
        assert not waiting.result.done()
        loop.run(waiting.let_go())
        assert waiting.result.result(10) == "went on"


def test_who_waits_longer_runs_the_loop_when_the_first_one_is_done() -> None:
    with SharedLoop() as loop, ThreadPoolExecutor() as pool:
        first = _Waiting(loop, pool)
        second, third = _Waiting(loop, pool), _Waiting(loop, pool)
        for one in (first, third, second):
            loop.run(one.let_go())
            assert one.result.result(10) == "went on"


def test_nothing_happens_while_no_thread_waits() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(tick())

    with SharedLoop() as loop:
        ticking = loop.run(begin())
        loop.run(_value(None, 0.01))
        seen = ticks
        assert seen > 0
        time.sleep(0.05)
        assert ticks == seen
        ticking.cancel()


def test_many_threads_have_each_their_own_answer_and_errors() -> None:
    async def answer(n: int) -> int:
        await asyncio.sleep(n % 3 / 1000)
        if n % 7 == 0:
            msg = f"{n}"
            raise StateError(msg)
        return n

    def ask(n: int) -> int | str:
        try:
            return loop.run(answer(n))
        except StateError as error:
            return str(error)

    with SharedLoop() as loop, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(500)))
    assert found == [str(n) if n % 7 == 0 else n for n in range(500)]


def test_closing_ends_what_others_wait_for_and_tells_them() -> None:
    with ThreadPoolExecutor() as pool:
        with SharedLoop() as loop:
            waiting = [_Waiting(loop, pool) for _ in range(3)]
            # What is ended ends before the last thing, which may close what it works on.
            assert loop.finish(_ends_of(waiting)) == ["cancelled"] * 3
            with pytest.raises(StateError, match=r"closed: open it again"):
                loop.run(_value(1))
        for one in waiting:
            with pytest.raises(StateError, match="another thread closed the client"):
                one.result.result(10)


async def _ends_of(waiting: list[_Waiting]) -> list[str]:
    return [one.ended for one in waiting]


def test_a_loop_that_is_closed_without_a_last_thing_leaves_nobody_waiting() -> None:
    with ThreadPoolExecutor() as pool:
        with SharedLoop() as loop:
            waiting = [_Waiting(loop, pool) for _ in range(2)]
        for one in waiting:
            with pytest.raises(StateError, match="another thread closed the client"):
                one.result.result(10)


def _interrupted(loop: SharedLoop, began: threading.Event, ends: list[str]) -> None:
    """Ctrl-C while this, the main thread, waits."""

    async def wait() -> None:
        began.set()
        try:
            while True:  # noqa: ASYNC110 - an interrupt may come before the loop waits
                await asyncio.sleep(0.05)
        finally:
            ends.append("ended")

    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert began.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(wait())
    killer.join()


@INTERRUPTS
def test_an_interrupted_call_is_ended_and_the_loop_goes_on() -> None:
    ends: list[str] = []
    with SharedLoop() as loop:
        _interrupted(loop, threading.Event(), ends)
        assert ends == ["ended"]
        assert loop.run(_value(1)) == 1


@INTERRUPTS
def test_an_interrupted_call_ends_where_another_thread_runs_the_loop() -> None:
    ends: list[str] = []
    with SharedLoop() as loop, ThreadPoolExecutor() as pool:
        waiting = _Waiting(loop, pool)
        _interrupted(loop, threading.Event(), ends)
        loop.run(waiting.let_go())
        assert waiting.result.result(10) == "went on"
        assert ends == ["ended"]


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.is_enrolled,
        lambda client: client.groups(),
        lambda client: client.sync(),
        lambda client: client.search("x"),
        lambda client: next(client.events()),
    ],
)
def test_a_client_that_is_closed_says_so(
    tmp_path: Path, use: Callable[[BlockingClient], object]
) -> None:
    with BlockingClient.open(tmp_path / "profile", KEY) as client:
        assert not client.is_enrolled
    with pytest.raises(StateError, match=r"this client is closed: open it again"):
        use(client)


def test_a_client_is_not_used_inside_an_event_loop(tmp_path: Path) -> None:
    with BlockingClient.open(tmp_path / "profile", KEY) as client:

        async def story() -> None:
            with pytest.raises(StateError, match=r"coterie\.client\.Client"):
                client.sync()

        asyncio.run(story())


def test_threads_share_a_client(tmp_path: Path) -> None:
    with (
        BlockingClient.open(tmp_path / "profile", KEY) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        assert set(pool.map(lambda _: client.is_enrolled, range(40))) == {False}
        assert list(pool.map(lambda _: client.blocked(), range(40))) == [{}] * 40
