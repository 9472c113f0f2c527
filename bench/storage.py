"""What a step of the client's storage costs: microseconds, synced as in use, on this machine and its disk.

Run: .venv/bin/python bench/storage.py [--members 50000] [--steps 300] [--directory DIR]
The directory should lie on the disk that is of interest; a temporary one is made in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coterie.mls.group import Delta
from coterie.storage import Message, Profile, StorageKey, Transaction

KEY = StorageKey.given(os.urandom(32))
SPACE = "group"
EPOCH = 1500  # bytes of entry "g"
NODE = 400
RATCHET = 60


def message(number: int) -> Message:
    words = f"message {number} says something of ordinary length, as people do, and no more"
    return Message(b"talk", os.urandom(16), "alice@example", number, number, text=words)


def receive(transaction: Transaction, number: int) -> None:
    """A message came in: one ratchet goes on, its text is kept."""
    transaction.apply(
        SPACE,
        Delta(puts={b"s/1/%d" % (number % 50): os.urandom(RATCHET), b"g": os.urandom(EPOCH)}),
    )
    transaction.add_message(message(number))


def send(transaction: Transaction, number: int) -> None:
    """A message goes out: as above, with the ciphertext in an intent and one intent settled."""
    receive(transaction, number)
    intents = transaction.intents()
    if intents:
        transaction.remove_intent(intents[0].number)
    transaction.add_intent(b"talk", "send", os.urandom(1000))


def commit(depth: int, members: int) -> Callable[[Transaction, int], None]:
    """A Commit is adopted: a path of nodes replaced, the secrets of an epoch dropped and put."""

    def step(transaction: Transaction, number: int) -> None:
        old = [b"n/%032d" % ((number * 7919 + i * 104729) % (2 * members)) for i in range(depth)]
        new = {b"n/" + os.urandom(32): os.urandom(NODE) for _ in range(depth)}
        secrets = {b"s/%d/%d" % (number + 1, i): os.urandom(RATCHET) for i in range(3)}
        past = {b"e/%d" % number: os.urandom(300), b"k/%d" % number: os.urandom(32)}
        puts = {**new, **secrets, **past, b"g": os.urandom(EPOCH)}
        transaction.apply(SPACE, Delta(puts, frozenset(old), (b"s/", b"p/", b"u/")))

    return step


def fill(profile: Profile, members: int) -> None:
    puts = {b"n/%032d" % number: os.urandom(NODE) for number in range(2 * members)}
    with profile.transaction() as transaction:
        transaction.apply(SPACE, Delta(puts | {b"g": os.urandom(EPOCH)}))


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"{what:<44} {(time.perf_counter() - start) * 1000:>10.1f} ms")


def measure(what: str, steps: int, step: Callable[[int], object]) -> None:
    took = []
    for number in range(steps):
        start = time.perf_counter()
        step(number)
        took.append((time.perf_counter() - start) * 1e6)
    quantiles = statistics.quantiles(took, n=20)
    print(f"{what:<44} {statistics.median(took):>10.0f} µs {quantiles[-1]:>10.0f} µs")


def measure_sync(directory: Path, steps: int) -> None:
    with (directory / "raw").open("wb", buffering=0) as file:

        def sync(_: int) -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        measure("4 KiB written and synced, for comparison", steps, sync)


def measure_steps(profile: Profile, steps: int, members: int) -> None:
    def in_transaction(step: Callable[[Transaction, int], None]) -> Callable[[int], None]:
        def run(number: int) -> None:
            with profile.transaction() as transaction:
                step(transaction, number)

        return run

    depth = members.bit_length()
    measure("receive a message", steps, in_transaction(receive))
    measure("send a message", steps, in_transaction(send))
    measure(f"adopt a Commit ({depth} nodes)", steps, in_transaction(commit(depth, members)))
    reader = profile.reader(SPACE)
    measure("read a node", steps, lambda n: reader.get(b"n/%032d" % (n * 31)))
    measure("read what Group.load needs", steps, lambda _: reader.entries((b"n/", b"i/")))


def measure_batch(profile: Profile, count: int) -> None:
    with (
        timed(f"receive {count} messages in one transaction"),
        profile.transaction() as transaction,
    ):
        for number in range(count):
            receive(transaction, number)


def measure_profile(path: Path, steps: int, members: int, *, synced: bool) -> None:
    print(f"-- {'synced' if synced else 'not synced'}, {members} members")
    with Profile.open(path, KEY, create=True, durable=synced) as profile:
        with timed(f"store the tree of {members} members"):
            fill(profile, members)
        measure_steps(profile, steps, members)
        measure_batch(profile, 10_000)
        measure("search 10,000 messages", 50, lambda _: profile.view.search("ordinary 77"))
    measure("open and close the profile", 20, lambda _: Profile.open(path, KEY).close())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--directory", type=Path, default=None)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=a.directory) as directory:
        print(f"{'':<44} {'median':>13} {'95 in 100':>13}")
        measure_sync(Path(directory), a.steps)
        for synced in (True, False):
            measure_profile(Path(directory, str(synced)), a.steps, a.members, synced=synced)


if __name__ == "__main__":
    main()
