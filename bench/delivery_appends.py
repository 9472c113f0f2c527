"""Sustained durable appends of 1 KiB messages over HTTP: `python -m bench.delivery_appends --count 20000`."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from bench.delivery_load import drive, http_request, server_seconds
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from tests.delivery_model import new_log
from tests.delivery_server import running


async def run(
    count: int, connections: int, logs: int, size: int, options: tuple[str, ...] = ()
) -> dict[str, float | str]:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), *options) as server:
        client = DeliveryClient(HTTPCarrier(server.url))
        epochs = []
        for _ in range(logs):
            epoch, create = new_log()
            await client.create_log(create)
            epochs.append(epoch)
        await client.close()
        body = bytes(size)
        requests = [
            http_request("logs/append", epochs[n % logs].message(body).encode())
            for n in range(count)
        ]
        await drive(server.port, requests[: count // 10], connections)
        used = server_seconds(server.process.pid)
        load = await drive(server.port, requests[count // 10 :], connections)
        used = server_seconds(server.process.pid) - used
        server.process.terminate()
        server.process.wait()
        report = load.report(f"appends of {size} B, {connections} connections, {logs} logs")
        return {
            **report,
            "connections": connections,
            "server_us_each": round(1e6 * used / len(load.latencies)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--logs", type=int, default=50)
    parser.add_argument("--size", type=int, default=1024)
    a = parser.parse_args()
    print(json.dumps(asyncio.run(run(a.count, a.connections, a.logs, a.size))))


if __name__ == "__main__":
    main()
