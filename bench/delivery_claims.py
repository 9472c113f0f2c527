"""Key-package claims per second over HTTP, durable: `python -m bench.delivery_claims`."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from bench.delivery_load import drive, http_request
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from tests.delivery_devices import Device, claim
from tests.delivery_server import running


async def run(users: int, packages: int, connections: int) -> list[dict[str, float | str]]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        client = DeliveryClient(HTTPCarrier(server.url))
        devices = [Device(f"user{n}@bench".encode()) for n in range(users)]
        batches = []
        for device in devices:
            await client.open_inbox(device.open())
            batches.append(http_request("directory/publish", device.publish(packages).encode()))
        await client.close()
        published = await drive(server.port, batches, 4)
        claims = [
            http_request("directory/claim", claim(devices[n % users].user).encode())
            for n in range(users * packages)
        ]
        claimed = await drive(server.port, claims, connections)
        return [
            published.report(f"publish of {packages} packages, 4 connections"),
            claimed.report(f"claims, {connections} connections, {users} users"),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--packages", type=int, default=100)
    parser.add_argument("--connections", type=int, default=32)
    a = parser.parse_args()
    for line in asyncio.run(run(a.users, a.packages, a.connections)):
        print(json.dumps(line))


if __name__ == "__main__":
    main()
