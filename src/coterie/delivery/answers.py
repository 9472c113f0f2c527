"""Answers that many readers ask for alike.

After a Commit every subscriber of a group shows the next epoch's token and reads from the same number on. They get one
answer: who asks while the first one reads waits for it, who asks later gets what was found, for as long as nothing has
been written and the hour is the same. A question is the whole request, its token included, so a wrong token is another
question; what is refused is not remembered. (docs/decisions/0150)
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from coterie.transport.api import Read, ReadResult
from coterie.transport.api.base import sha256

REMEMBERED: Final = 256
"""Answers that are remembered at most."""
LARGEST_REMEMBERED: Final = 64 * 1024
"""Bytes of an answer that is remembered. Larger ones are shared only while they are being read."""

State = tuple[int, int]


class SharedReads:
    """Reads of logs, each made once for all who ask for it.

    `read` asks the database. `state` gives the number of writes so far and the hour: what an answer depends on beside
    the request. Everything runs on one event loop's thread.
    """

    def __init__(
        self, read: Callable[[Read], Awaitable[ReadResult]], state: Callable[[], State]
    ) -> None:
        self._read, self._state = read, state
        self._held_at = state()
        self._answers: OrderedDict[bytes, ReadResult] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[ReadResult]] = {}

    async def read(self, request: Read) -> ReadResult:
        """The answer to a request; raises what the first to ask was refused with."""
        state = self._state()
        if state != self._held_at:
            # Who waits for a read from before goes on waiting for it; who comes now must see what was written.
            self._answers.clear()
            self._under_way.clear()
            self._held_at = state
        question = sha256(request.encode())
        answer = self._answers.get(question)
        if answer is not None:
            return answer
        reading = self._under_way.get(question)
        if reading is None:
            reading = asyncio.ensure_future(self._read(request))
            self._under_way[question] = reading
            reading.add_done_callback(lambda done: self._keep(question, state, done))
        # One reader who leaves must not take the answer from the others.
        return await asyncio.shield(reading)

    def _keep(self, question: bytes, state: State, reading: asyncio.Future[ReadResult]) -> None:
        """Remembers what was found, unless something was written meanwhile: it may have been read before that."""
        if self._under_way.get(question) is reading:
            del self._under_way[question]
        if reading.cancelled() or reading.exception() is not None:
            return
        answer = reading.result()
        if state != self._held_at or state != self._state():
            return
        if len(answer.encode()) <= LARGEST_REMEMBERED:
            self._answers[question] = answer
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
