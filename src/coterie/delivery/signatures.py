"""Signatures of appends, verified on another core while many wait.

A check is a third of what an append costs. Threads do not help: OpenSSL lets go of the interpreter's lock, but to get
it back costs as much as the check (docs/decisions/0128). So batches go to a process of their own. The rules' order
stays that of D-ENT-4: a check only says whether a signature holds under a key; the transaction asks when it is the
signature's turn, and verifies by itself what was not checked, or was under another key than the epoch's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, cast

from coterie.delivery.signature_worker import COUNT_SIZE, HOLDS
from coterie.transport.api import append_to_be_signed

_KNOWN_EPOCHS: Final = 65_536
_CONTENT_SIZE: Final = len(append_to_be_signed(bytes(32)))
_WORTH_IT: Final = 4
"""So many appends must be under way: fewer are verified sooner where they are than they could be sent."""
_PATIENCE: Final = 5.0
"""Seconds for a batch, which takes milliseconds: a process that hangs must not take the appends with it."""
_PAUSE: Final = 5.0
"""Seconds until a process that failed is started again."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A signature over a content that holds under a key."""

    key: bytes
    signature: bytes
    content: bytes


@dataclass(slots=True)
class _Waiting:
    checked: Checked
    future: asyncio.Future[Checked | None]


class SignatureChecks:
    """Checks on another core, for one event loop. The process is started when there is work for it."""

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, bytes] = OrderedDict()
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self.failures = 0
        """How often the process ended by itself."""

    @property
    def process(self) -> Process | None:
        """The process, while there is one."""
        return self._process

    def learn(self, epoch: bytes, key: bytes) -> None:
        """Remembers an epoch's append key, which never changes: the epoch's name is made from it (D-ACC-4)."""
        self._keys[epoch] = key
        if len(self._keys) > _KNOWN_EPOCHS:
            self._keys.popitem(last=False)

    async def check(
        self, epoch: bytes, signature: bytes, content: bytes, *, under_way: int
    ) -> Checked | None:
        """The check of an append to an epoch, one of so many under way.

        None where it was not made, or the signature does not hold.
        """
        key = self._keys.get(epoch)
        if key is None or under_way < _WORTH_IT:
            return None
        if self._process is None:
            self._start()
            return None
        future: asyncio.Future[Checked | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Checked(key, signature, content), future))
        self._wake.set()
        return await future

    def _start(self) -> None:
        if self._task is None and (os.cpu_count() or 1) > 1:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Ends the process; what waits is told that nothing was checked."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._serve()
            except (OSError, asyncio.IncompleteReadError):
                self.failures += 1
            finally:
                await self._end()
            await asyncio.sleep(_PAUSE)

    async def _serve(self) -> None:
        """Starts a process and sends it batches until it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "coterie.delivery.signature_worker", str(_CONTENT_SIZE)),
            stdin=PIPE,
            stdout=PIPE,
        )
        self._process = process
        # Both are there, since both were asked for.
        source = cast("asyncio.StreamWriter", process.stdin)
        sink = cast("asyncio.StreamReader", process.stdout)
        while True:
            await self._wake.wait()
            self._wake.clear()
            # One turn of the loop: what came in with this one goes along.
            await asyncio.sleep(0)
            while len(self._waiting) >= _WORTH_IT:
                batch = self._waiting[:]
                source.write(_encoded(batch))
                # They leave the list with their answers only: if the process fails before, `_end` answers them.
                async with asyncio.timeout(_PATIENCE):
                    answers = await sink.readexactly(len(batch))
                del self._waiting[: len(batch)]
                for item, answer in zip(batch, answers, strict=True):
                    if not item.future.done():
                        item.future.set_result(item.checked if answer == HOLDS[0] else None)
            self._pass_over()

    def _pass_over(self) -> None:
        for item in self._waiting:
            if not item.future.done():
                item.future.set_result(None)
        self._waiting = []

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._pass_over()
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()


def _encoded(batch: list[_Waiting]) -> bytes:
    parts = [len(batch).to_bytes(COUNT_SIZE)]
    for item in batch:
        checked = item.checked
        parts += (checked.key, checked.signature, checked.content)
    return b"".join(parts)
