"""An event loop without a thread of its own: it runs in one of those that wait for something in it.

So nothing happens while no thread waits; and where several do, one of them runs the loop for all, until it has what it
waited for, and leaves it to another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from coterie.errors import StateError

T = TypeVar("T")

_SLICE = 0.5
"""Seconds after which a thread that waits looks up: on some systems Ctrl-C reaches it only then."""
_CLOSED = "this client is closed: open it again with BlockingClient.open"
_CLOSED_MEANWHILE = "another thread closed the client while this call was under way"


def refuse_running_loop() -> None:
    """Raises `StateError` in a thread whose event loop would stand still while somebody waits here."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        msg = "an event loop runs here: use coterie.client.Client, and await its calls"
        raise StateError(msg)


class _Job(Generic[T]):
    """What one thread waits for; `task` is there once the loop has come to it."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.task: asyncio.Task[T] | None = None

    @property
    def is_done(self) -> bool:
        return self.task is not None and self.task.done()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def wait(self) -> None:
        """Until it is done; who is interrupted meanwhile interrupts it, and waits until it has ended."""
        assert self.task is not None  # noqa: S101 - what was begun before comes first
        try:
            await asyncio.wait([self.task])
        except asyncio.CancelledError:
            self.task.cancel()
            await asyncio.wait([self.task])
            raise


class SharedLoop:
    """The loop; a context manager that closes it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changed = threading.Condition()
        """Held to look at what follows, and told of each change of it and of each task's end."""
        self._is_run = False
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            # Only where `finish` was interrupted is there anything left.
            self._loop.call_soon_threadsafe(self._cancel, self._tasks)
            self._changed.wait_for(lambda: not self._is_run)
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives. Raises `StateError` where the loop is closed, before or meanwhile."""
        return self._result(self._begin(coroutine))

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The last one: nothing is begun any more, and what other threads wait for is cancelled before."""

        async def last() -> T:
            others = self._tasks - {asyncio.current_task()}
            self._cancel(others)
            if others:
                await asyncio.wait(others)
            return await coroutine

        return self._result(self._begin(last(), last=True))

    @staticmethod
    def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()

    def _begin(self, coroutine: Coroutine[Any, Any, T], *, last: bool = False) -> _Job[T]:
        job = _Job(coroutine)
        try:
            refuse_running_loop()
            with self._changed:
                if self._is_closed:
                    raise StateError(_CLOSED)
                self._is_closed = last
                # Done whether a thread runs the loop now or not, and in the order of these calls.
                self._loop.call_soon_threadsafe(self._start, job)
        except BaseException:
            coroutine.close()
            raise
        return job

    def _start(self, job: _Job[Any]) -> None:
        job.task = self._loop.create_task(job.coroutine)
        self._tasks.add(job.task)
        job.task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        with self._changed:
            self._changed.notify_all()

    def _result(self, job: _Job[T]) -> T:
        try:
            self._see_through(job)
        except BaseException:
            # Interrupted: whoever runs the loop next ends it.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(job.cancel)
            raise
        assert job.task is not None  # noqa: S101 - it is done
        if job.task.cancelled() and self._is_closed:
            raise StateError(_CLOSED_MEANWHILE)
        return job.task.result()

    def _see_through(self, job: _Job[Any]) -> None:
        """Waits for a job: runs the loop, or lets the thread do it that is at it."""
        with self._changed:
            while not self._changed.wait_for(lambda: job.is_done or not self._is_run, _SLICE):
                pass
            if job.is_done:
                return
            self._is_run = True
        try:
            self._runner.run(job.wait())
        finally:
            with self._changed:
                self._is_run = False
                self._changed.notify_all()
