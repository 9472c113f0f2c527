"""A client that was away reads many messages of one epoch: what each costs, beside what it cannot cost less.

Run: .venv/bin/python -m bench.client_catchup [--messages 10000] [--members 2] [--profile] [--one-core]
The Delivery Service runs in the same process, its reads in other threads; storage is encrypted and synced as in use.
Signatures of a page are verified on all cores, so `clock` is what somebody waits for, on an idle machine and with the
service's own time in it; `thread` is the processor's time of the client's thread, without what other threads verified.
With `--one-core` all is done in the client's thread, as on a machine with one core. The floor of a message are its
primitives (two signatures, the sender's and the service's; three ciphertexts) and its row in the history, all rows
stored in one transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.floor import Prices, calls, decrypt
from coterie.client import Client
from coterie.client import line as line_module
from coterie.client.content import Content
from coterie.delivery.service import Places
from coterie.storage import Message, MessageState, Profile, StorageKey
from coterie.transport import api
from tests.client_world import World, world
from tests.crowd import crowd

ROUNDS = 10
TEXT = "a message of ordinary length, as people write them, and a little more than that"


def messages_floor(prices: Prices, size: int) -> float:
    """Seconds that the primitives of one message take."""
    parts = decrypt(len(TEXT) + 60, 600) + calls(
        ("verify", 110, 1),  # the receipt
        ("sha256", size, 2),  # the entry, the receipt's hash
        ("hmac", 64, 1),  # the envelope's key
        ("aead open", size, 1),  # the envelope
    )
    return prices.floor(parts)


def storing_floor(folder: Path, count: int) -> float:
    """Seconds that so many rows of the history take in one transaction, each."""
    key = StorageKey.given(bytes(32))
    with Profile.open(folder, key, create=True) as profile:
        start = time.thread_time()
        with profile.transaction() as tx:
            for number in range(count):
                tx.add_message(
                    Message(
                        conversation=b"x" * 64,
                        message_id=number.to_bytes(16),
                        sender="alice@world.example",
                        sent_at=number,
                        received_at=number,
                        text=f"{number} {TEXT}",
                        state=MessageState.RECEIVED,
                    )
                )
        return (time.thread_time() - start) / count


async def fill(w: World, alice: Client, count: int) -> int:
    """So many messages in the log; the size of one entry."""
    line = alice.groups()[0]._conversation.line  # noqa: SLF001 - faster than through the outbox
    size = 0
    for number in range(count):
        content = Content.text(f"{number} {TEXT}", w.now)
        message = line.group.encrypt(content.encode())
        append = line.message(api.ContentKind.APPLICATION, message)
        size = len(append.entry.encode())
        await alice.tools.delivery.append(append)
        line.group.save()
    return size


@dataclass(slots=True)
class Times:
    """Microseconds for each message, of one round each: floor and client lie next to each other in time."""

    thread: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    primitives: list[float] = field(default_factory=list)
    row: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """The medians, and those of the rounds' ratios to the floor on one core."""
        found = {
            name: round(statistics.median(getattr(self, name)) * 1e6, 1)
            for name in ("thread", "clock", "primitives", "row")
        }
        floors = [a + b for a, b in zip(self.primitives, self.row, strict=True)]
        for name in ("thread", "clock"):
            ratios = [a / b for a, b in zip(getattr(self, name), floors, strict=True)]
            found[f"{name} ratio"] = round(statistics.median(ratios), 2)
        return found


async def measure(count: int, members: int, *, profiled: bool) -> dict[str, float]:
    """Medians over rounds: bob is away while alice sends a part of the messages, and reads them."""
    times, watch, prices = Times(), cProfile.Profile(), Prices()
    part = count // ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        # With its database in memory the service would read in the client's thread.
        async with world(Path(folder), Places.within(Path(folder))) as w:
            alice = await w.device("alice")
            async with w.profile("bob", durable=True) as bob:
                await bob.enrol("bob", w.authentication.add_user("bob").code.decode())
                group = await alice.create_group("Away")
                await group.add("bob", *await crowd(w, members - 2))
                await bob.sync()
                for number in range(ROUNDS):
                    size = await fill(w, alice, part)
                    before = storing_floor(Path(folder, f"floor {number}"), part)
                    prices.renew()
                    messages_floor(prices, size)
                    if profiled:
                        watch.enable()
                    start, clock = time.thread_time(), time.perf_counter()
                    await bob.sync()
                    times.clock.append((time.perf_counter() - clock) / part)
                    times.thread.append((time.thread_time() - start) / part)
                    watch.disable()
                    prices.sample()
                    times.primitives.append(messages_floor(prices, size))
                    after = storing_floor(Path(folder, f"floor {number}, after"), part)
                    times.row.append((before + after) / 2)
                assert len(bob.groups()[0].history(count + 1)) == part * ROUNDS
    if profiled:
        pstats.Stats(watch, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    return times.medians()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--one-core", action="store_true")
    options = parser.parse_args()
    if options.one_core:
        line_module.WORTH_IT = sys.maxsize
    found = asyncio.run(measure(options.messages, options.members, profiled=options.profile))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
