"""What an input may cost: the signature checks of a valid input of its size and half a second; 100 MiB per MiB.

Time is that of the processor, so that a busy machine changes little; a factor allows for instrumentation.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from functools import cache
from statistics import median

from coterie.mls.crypto import suite_of

Target = Callable[[bytes], None]
SIGNED = 128
"""A signature stands for at least so many bytes of a valid input: a key, the signature, and what is signed."""
HALF = 0.5
FLOOR = 4 << 20
"""What small inputs may take all the same, in bytes: caches that fill at the first use."""
PER_BYTE = 100


@cache
def signature_check() -> float:
    """Seconds of one check on this machine, the median of some."""
    suite = suite_of(1)
    key = suite.generate_signature_key(os.urandom)
    signed = suite.sign_with_label(key, "x", bytes(SIGNED))
    taken = []
    for _ in range(31):
        began = time.process_time()
        suite.verify_with_label(key.public, "x", bytes(SIGNED), signed, rule="x")
        taken.append(time.process_time() - began)
    return max(median(taken), 1e-5)


def seconds(size: int) -> float:
    """What an input of this size may take."""
    return HALF + size / SIGNED * signature_check()


def within_time(target: Target, factor: float = 1.0) -> Target:
    """The target, failing where an input takes longer than it may."""

    def run(data: bytes) -> None:
        began = time.process_time()
        target(data)
        taken = time.process_time() - began
        allowed = seconds(len(data)) * factor
        assert taken <= allowed, f"{len(data)} bytes took {taken:.2f} s, at most {allowed:.2f}"

    return run


def within_memory(target: Target) -> Target:
    """The target, failing where an input makes it hold more than it may at a time; several times slower."""

    def run(data: bytes) -> None:
        tracing = tracemalloc.is_tracing()
        if not tracing:
            tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            target(data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            if not tracing:
                tracemalloc.stop()
        allowed = FLOOR + PER_BYTE * len(data)
        assert peak - before <= allowed, f"{len(data)} bytes took {peak - before} bytes of memory"

    return run
