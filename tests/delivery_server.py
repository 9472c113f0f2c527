"""A Delivery Service as a real process on loopback, for tests and benchmarks: `python -m tests.delivery_server`.

Prints the port it listens on. Credentials are basic ones taken at their word; requests say in X-Forwarded-For whom to
charge. Rates are off unless `--rates` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import datetime as dt
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
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from coterie.apps.config import Connections
from coterie.apps.connections import HTTP_OPTIONS, protocols, use_small_tls_buffers
from coterie.delivery.app import create_app
from coterie.delivery.directory import Identify
from coterie.delivery.identify import by_certificate
from coterie.delivery.service import Places
from coterie.delivery.settings import Rates, Settings
from coterie.identity.issuer import X509Issuer
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
    parser.add_argument("--anchor", type=Path, help="the root of credentials that are certificates")
    parser.add_argument("--tls", action="store_true", help="with a certificate made for the run")
    parser.add_argument("--profile", type=Path, help="where the profile goes at SIGTERM")
    arguments = parser.parse_args()
    settings = Settings(
        rates=Rates() if arguments.rates else UNLIMITED,
        trusted_proxies=("127.0.0.1",),
        max_waiting=arguments.max_waiting,
    )
    identify: Identify = identify_basic
    if arguments.anchor is not None:
        identify = by_certificate(X509Issuer([arguments.anchor.read_bytes()]))
    app = create_app(
        Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED),
        identify,
        places=Places.within(arguments.folder),
        settings=settings,
    )
    # The protocol must be named, or asyncio leaves Nagle's algorithm on: 40 ms for each answer.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", arguments.port))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    certificate = self_signed(arguments.folder) if arguments.tls else None
    use_small_tls_buffers()
    with profiled(arguments.profile):
        asyncio.run(serve(app, listening, certificate))


@contextlib.contextmanager
def profiled(path: Path | None) -> Iterator[None]:
    """Writes down where the time went, if a path is given."""
    if path is None:
        yield
        return
    # uvicorn raises the signal that ended it once more, which must not end the process before the profile is written.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with cProfile.Profile() as profile:
        yield
    profile.dump_stats(path)


def self_signed(folder: Path) -> Path:
    """A file with a key and a certificate for it that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    path = folder / "tls.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    return path


async def serve(app: object, listening: socket.socket, certificate: Path | None) -> None:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        **HTTP_OPTIONS,
        **protocols(Connections()),
        log_level="warning",
        proxy_headers=False,
        ssl_certfile=certificate,
    )
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    main()
