"""Many clients in one group, each committing at random: every Commit lands or is done again, all end alike.

Four seconds by default, `COTERIE_CONCURRENCY_SECONDS` for longer (one minute: `make concurrency`).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from coterie.client import Client
from coterie.errors import ServiceError
from tests.client_world import World, texts, world

CLIENTS = 20
SECONDS = float(os.environ.get("COTERIE_CONCURRENCY_SECONDS", "4"))


async def _group_of(w: World) -> list[Client]:
    clients = [await w.device(f"member{n}") for n in range(CLIENTS)]
    group = await clients[0].create_group("Everybody")
    await group.add(*(f"member{n}" for n in range(1, CLIENTS)))
    await w.settle()
    return clients


async def _busy(client: Client, rng: random.Random, until: float, sent: list[str]) -> int:
    commits = 0
    group = client.groups()[0]
    while time.monotonic() < until:
        try:
            match rng.randrange(3):
                case 0:
                    await group.renew_keys()
                    commits += 1
                case 1:
                    await group.rename(f"Everybody {rng.randrange(1000)}")
                    commits += 1
                case _:
                    sent.append(f"{client.user} {len(sent)}")
                    await group.send(sent[-1])
        except ServiceError:
            await asyncio.sleep(0.05)
        await asyncio.sleep(rng.uniform(0, 0.5))
    return commits


def test_twenty_clients_that_commit_at_random_converge(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report = record_property

    async def story() -> None:
        async with world(tmp_path) as w:
            clients = await _group_of(w)
            before = clients[0].groups()[0].epoch
            until, sent = time.monotonic() + SECONDS, list[str]()
            commits = await asyncio.gather(
                *(_busy(client, random.Random(n), until, sent) for n, client in enumerate(clients))
            )
            for _ in range(20):
                await w.settle(rounds=1)
                if not any(client.groups()[0].waiting() for client in clients):
                    break
            await w.settle(rounds=1)
            assert len({c.groups()[0].epoch_authenticator for c in clients}) == 1
            assert not any(client.groups()[0].waiting() for client in clients)
            for client in clients:
                shown = [m.text for m in client.vault.messages(client.groups()[0].id, 100_000)]
                assert sorted(shown) == sorted(sent)
            epochs = clients[0].groups()[0].epoch - before
            retries = sum(client.tools.counters.get("lost races", 0) for client in clients)
            report("commits wanted", sum(commits))
            report("epochs", epochs)
            report("lost races", retries)
            assert texts(clients[0])

    asyncio.run(story())
