"""How long a start takes with a million messages stored: `python -m bench.delivery_restart`.

The messages are put into the database by the service's own code in large transactions, since a million requests over
HTTP would only make the wait longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.delivery_load import resident_kib
from coterie.delivery.ledger import EntryRow
from coterie.delivery.limits import LOCAL, Limiter
from coterie.delivery.logs import Logs
from coterie.delivery.settings import Settings
from coterie.delivery.sqlite_ledger import SCHEMA, SQLiteTransaction
from coterie.delivery.store import connect, migrate
from coterie.transport.api import EntryKind, Receipt
from coterie.transport.client import DeliveryClient
from coterie.transport.http import HTTPCarrier
from tests.delivery_bench import UNLIMITED
from tests.delivery_model import ModelEpoch, digest, new_log
from tests.delivery_server import RECEIPT_SEED, running


def fill(path: Path, count: int, logs: int) -> list[ModelEpoch]:
    """Stores `count` messages in `logs` logs."""
    db = connect(str(path))
    migrate(db, SCHEMA)
    settings = Settings(rates=UNLIMITED)
    key = Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED)
    desk = Logs(settings, Limiter(UNLIMITED, time.time), key, time.time)
    tx, epochs = SQLiteTransaction(db), []
    hour = int(time.time()) // 3600
    for _ in range(logs):
        model, create = new_log()
        db.execute("BEGIN")
        desk.create(tx, create, LOCAL)
        epoch = tx.epoch(model.name)
        assert epoch is not None
        body = model.message(bytes(100)).entry.encode()
        for number in range(1, count // logs + 1):
            # Only the shape of the rows matters here, so one signature serves them all.
            receipt = Receipt(model.name, number, digest(number - 1), digest(number), bytes(64))
            row = EntryRow(EntryKind.MESSAGE, receipt, len(body), hour, None)
            tx.add_entry(epoch, row, digest("fill", number), body, first_candidate=False)
        db.execute("COMMIT")
        epochs.append(model)
    db.close()
    return epochs


async def first_answer(url: str, epoch: ModelEpoch) -> float:
    client = DeliveryClient(HTTPCarrier(url))
    started = time.perf_counter()
    await client.append(epoch.message())
    await client.read(epoch.read(1, 10_000))
    await client.close()
    return time.perf_counter() - started


def run(count: int, logs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        epochs = fill(Path(folder) / "logs.db", count, logs)
        started = time.perf_counter()
        with running(Path(folder)) as server:
            up = time.perf_counter() - started
            answer = asyncio.run(first_answer(server.url, epochs[0]))
            memory = resident_kib(server.process.pid)
        size = (Path(folder) / "logs.db").stat().st_size
    return {
        "messages": count,
        "database_mib": round(size / 2**20),
        "listening_after_s": round(up, 2),
        "first_append_and_read_s": round(answer, 3),
        "resident_kib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--logs", type=int, default=100)
    a = parser.parse_args()
    print(json.dumps(run(a.count, a.logs)))


if __name__ == "__main__":
    main()
