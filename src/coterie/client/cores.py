"""Bulk verification on all cores: what the core takes as `Config.run`, which is `map` and thus one core by default.

Verifying an Ed25519 or ECDSA signature lets other threads run. Results come in the order of the items, so the error
that is raised is the same on any number of cores.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_IN_FLIGHT = 4
"""Items that are handed out at once, for each thread: so memory is bounded, however many there are."""


def on_all_cores(
    function: Callable[[T], R], items: Iterable[T], *, threads: int | None = None
) -> Iterator[R]:
    """As `map`, with a thread for each core while there is more than one item."""
    iterator = iter(items)
    first = list(islice(iterator, 2))
    threads = threads or os.cpu_count() or 1
    if len(first) < 2 or threads == 1:
        yield from map(function, chain(first, iterator))
        return
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[R]] = deque()
        for item in chain(first, iterator):
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _IN_FLIGHT * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Nobody asks for the rest where an item failed.
        pool.shutdown(cancel_futures=True)
