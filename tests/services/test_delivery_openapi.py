"""schemathesis over the OpenAPI description: its bodies, and valid ones of ours, so that all handlers are reached."""

from __future__ import annotations

import asyncio
import collections
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies

from coterie.delivery.openapi import description
from coterie.delivery.settings import Settings
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from tests.delivery_devices import Device, claim
from tests.delivery_model import ModelEpoch, fresh_id, new_log
from tests.delivery_server import Server, running

HISTOGRAM: collections.Counter[tuple[str, int]] = collections.Counter()
SCHEMA = schemathesis.openapi.from_dict(description(Settings()))
EXAMPLES = int(os.environ.get("COTERIE_SCHEMATHESIS_EXAMPLES", "10"))


@schemathesis.serializer(api.MEDIA_TYPE)
def struct_body(context: Any, value: Any) -> bytes:
    """Bodies are bytes already."""
    return bytes(getattr(value, "data", value))


class World:
    """Things that exist on a server, and valid requests about them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(headers={"Content-Type": api.MEDIA_TYPE})
        self.epoch, create = new_log()
        self.ended, other = new_log()
        self.alice = Device(b"alice@schema")
        self.ticket = fresh_id()
        asyncio.run(self._make(create, other))

    async def _make(self, *logs: api.CreateLogRequest) -> None:
        client = DeliveryClient(HTTPCarrier(self.server.url))
        for create in logs:
            await client.create_log(create)
        await client.append(self.ended.bundle(self.ended.child()))
        await client.open_inbox(self.alice.open())
        await client.publish(self.alice.publish(1, last_resort=1))
        await client.append(self.epoch.message())
        hashes = (api.sha256(self.ticket),)
        await client.mint_tickets(api.MintTickets(self.alice.inbox_id, self.alice.token, hashes))
        await client.close()

    def post(self, url: str, body: bytes) -> httpx.Response:
        return self.http.post(url, content=body)

    def valid(self, path: str, rng: random.Random) -> Struct:
        """A request that the server understands; most of them it accepts."""
        epoch: ModelEpoch = rng.choice((self.epoch, self.ended))
        token = rng.choice((epoch.read_token, epoch.box_token))
        alice = self.alice
        made: dict[str, Callable[[], Struct]] = {
            "logs/create": lambda: new_log(retention=rng.choice((1, 86400 * 30)))[1],
            "logs/append": lambda: rng.choice(
                (epoch.message(), epoch.successor(), epoch.bundle(epoch.child(rng.random())))
            ),
            "logs/read": lambda: epoch.read(rng.randrange(3)).replace(token=token),
            "logs/entry": lambda: api.FetchEntry(epoch.log_id, epoch.name, epoch.read_token, 1, 5),
            "chunks/fetch": lambda: epoch.fetch_chunks(fresh_id()),
            "chunks/put": lambda: epoch.put_chunks((api.Chunk(b"x"),), fresh_id()),
            "boxes/post": lambda: epoch.request(rng.choice((4096, 4097))),
            "boxes/read": lambda: epoch.read_box().replace(token=token),
            "inboxes/open": lambda: rng.choice((alice, Device(b"new"))).open(),
            "inboxes/mint": lambda: api.MintTickets(alice.inbox_id, alice.token, (fresh_id(),)),
            "inboxes/post": lambda: alice.envelope(rng.choice((self.ticket, fresh_id()))),
            "inboxes/read": lambda: rng.choice((alice, Device(b"unknown"))).read(),
            "inboxes/ack": lambda: api.AckInbox(alice.inbox_id, alice.token, 0),
            "directory/publish": lambda: alice.publish(1),
            "directory/withdraw": lambda: api.Withdraw(
                alice.inbox_id, alice.token, (api.KeyPackageReference(fresh_id()),)
            ),
            "directory/claim": lambda: claim(rng.choice((alice.user, b"nobody"))),
        }
        return made[path]()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("schema")) as server:
        made = World(server)
        yield made
        made.http.close()


@pytest.mark.parametrize("path", sorted(api.OPERATIONS))
def test_every_answer_is_one_that_the_description_names(world: World, path: str) -> None:
    url = f"{world.server.url}/v1/{path}"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=SCHEMA[f"/v1/{path}"]["POST"].as_strategy(), rng=strategies.randoms())
    def check(case: Any, rng: random.Random) -> None:
        _check(path, case.call(base_url=world.server.url))
        valid = world.valid(path, rng).encode()
        _check(path, world.post(url, valid))
        broken = bytearray(valid)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        _check(path, world.post(url, bytes(broken)))
        _check(path, world.post(url, valid[: rng.randrange(len(valid))]))

    check()
    statuses = {status: n for (of, status), n in HISTOGRAM.items() if of == path}
    print(f"{path:20} {statuses}")  # noqa: T201 - `pytest -s` shows the histogram
    assert any(status >= 400 for status in statuses)
    assert 200 in statuses, "the handler was never reached"


def _check(path: str, response: Any) -> None:
    """200 with the declared answer, or a 4xx that says what was wrong."""
    HISTOGRAM[path, response.status_code] += 1
    kind = response.headers["content-type"]
    assert kind in (api.MEDIA_TYPE, [api.MEDIA_TYPE])
    if response.status_code == 200:
        api.OPERATIONS[path][1].decode(response.content)
        return
    assert 400 <= response.status_code < 500, response.status_code
    failure = api.Failure.decode(response.content)
    assert failure.message
