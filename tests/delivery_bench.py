"""The logs of a Delivery Service over one connection, for tests that call it without any transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self, TypeVar

import apsw
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.ledger import LogTransaction
from coterie.delivery.limits import LOCAL, Limiter, Requester
from coterie.delivery.logs import Logs
from coterie.delivery.settings import Rate, Rates, Settings
from coterie.delivery.sqlite_ledger import SCHEMA, SQLiteTransaction
from coterie.delivery.store import connect, migrate
from coterie.transport.api import Append, Appended, ErrorCode, LostRace, ReadResult
from coterie.transport.refusal import Refused
from tests.delivery_model import Clock, ModelEpoch, new_log

T = TypeVar("T")
UNLIMITED = Rates(**{f.name: Rate(1, 0) for f in fields(Rates)})


class Bench:
    """Logs over one connection, each request in a transaction of its own."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(rates=UNLIMITED)
        self.clock = Clock()
        self.db: apsw.Connection = connect(":memory:")
        migrate(self.db, SCHEMA)
        limiter = Limiter(self.settings.rates, self.clock)
        self.logs = Logs(self.settings, limiter, Ed25519PrivateKey.generate(), self.clock)
        self.receipt_key = self.logs.receipt_public_key

    def run(self, function: Callable[[LogTransaction], T]) -> T:
        self.db.execute("BEGIN")
        try:
            result = function(SQLiteTransaction(self.db))
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return result

    def new_log(self, **options: Any) -> ModelEpoch:
        epoch, create = new_log(**options)
        self.run(lambda tx: self.logs.create(tx, create, LOCAL))
        return epoch

    def append(self, request: Append, requester: Requester = LOCAL) -> Appended:
        return self.run(lambda tx: self.logs.append(tx, request, requester)).answer

    def read(self, epoch: ModelEpoch, from_number: int = 0, max_bytes: int = 1 << 31) -> ReadResult:
        return self.run(lambda tx: self.logs.read(tx, epoch.read(from_number, max_bytes)))

    def sealed(self, epoch: ModelEpoch, from_number: int = 0) -> list[bytes]:
        """The sealed contents of an epoch's entries."""
        entries = self.read(epoch, from_number).entries
        return [stored.entry.sealed for stored in entries if stored.entry is not None]

    def with_settings(self, **changes: Any) -> Bench:
        return Bench(replace(self.settings, **changes))


class Raises:
    """Expects a refusal with a code and a rule; the exception is in `.error`."""

    error: Refused

    def __init__(self, code: ErrorCode, rule: str) -> None:
        self.code, self.rule = code, rule

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        assert isinstance(error, Refused), f"expected {self.code.name}, got {error!r}"
        assert (error.code, error.rule) == (self.code, self.rule), str(error)
        self.error = error
        return True

    @property
    def race(self) -> LostRace:
        """Who was first."""
        assert self.error.lost_race is not None
        return self.error.lost_race
