"""A Delivery Service as a real process on loopback, for tests and benchmarks: `python -m tests.delivery_server`.

Prints the port it listens on. Credentials are basic ones taken at their word; requests say in X-Forwarded-For whom to
charge. Rates are off unless `--rates` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.app import create_app
from coterie.delivery.service import Places
from coterie.delivery.settings import Rates, Settings
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import identify_basic

ROOT = Path(__file__).resolve().parent.parent
RECEIPT_SEED = bytes(range(32))


@dataclass
class Server:
    """A running service; it is killed at the end of the `with` block."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(folder: Path, *options: str, port: int = 0) -> Iterator[Server]:
    """Starts a service on the databases in `folder` and waits until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.delivery_server", str(folder), f"--port={port}", *options],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        server = Server(process, int(line))
        _wait_for(server.port)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--max-waiting", type=int, default=Settings().max_waiting)
    arguments = parser.parse_args()
    settings = Settings(
        rates=Rates() if arguments.rates else UNLIMITED,
        trusted_proxies=("127.0.0.1",),
        max_waiting=arguments.max_waiting,
    )
    app = create_app(
        Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED),
        identify_basic,
        places=Places.within(arguments.folder),
        settings=settings,
    )
    # The protocol must be named, or asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", arguments.port))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    asyncio.run(serve(app, listening))


async def serve(app: object, listening: socket.socket) -> None:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="httptools",
        ws="websockets-sansio",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        ws_per_message_deflate=False,
        ws_max_size=64 * 1024,
        backlog=4096,
    )
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    main()
