"""The Delivery Service of a simulation: the real rules over real tables in memory, and ways to lie.

`coterie.delivery.logs` and `.directory` answer every request inside one SQLite transaction, without an event loop. A
lying service is a second log database that begins as a copy of the first one, under the same receipt key: what the two
hand out under one number is an equivocation. Each member is served from one of the two.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery import retention
from coterie.delivery.directory import Directory
from coterie.delivery.directory_store import SCHEMA as DIRECTORY_SCHEMA
from coterie.delivery.directory_store import DirectoryTables
from coterie.delivery.limits import Limiter, Requester
from coterie.delivery.logs import Logs
from coterie.delivery.settings import Rate, Rates, Settings
from coterie.delivery.sqlite_ledger import SCHEMA as LOGS_SCHEMA
from coterie.delivery.sqlite_ledger import SQLiteTransaction
from coterie.delivery.store import Connection, open_database
from coterie.mls.credential import Credential
from coterie.mls.tls import Struct
from coterie.testing.simulator.watchers import Subscribers
from coterie.transport import api
from coterie.transport.refusal import Refused

T = TypeVar("T")

RETENTION = 24 * 3600
"""The shortest that a service keeps (seconds); the simulations' logs ask for it."""
_MANY = Rate(1_000_000, 0.0)
SETTINGS = Settings(
    min_retention=RETENTION,
    rates=Rates(
        appends=_MANY,
        logs=_MANY,
        reads=_MANY,
        inboxes=_MANY,
        envelopes=_MANY,
        publishes=_MANY,
        claims=_MANY,
        claims_of_target=_MANY,
    ),
)
"""The defaults where an attacker could flood a group, no limits elsewhere."""


def identify(credential: Credential, key: bytes, at: int) -> tuple[bytes, bytes]:
    """A basic credential says `user/device`; the directory takes it at its word."""
    del key, at
    user, _, device = credential.identity.partition(b"/")
    return user, device


class ModelService:
    """One service; `sides` are its log databases: one where it is honest, two where it equivocates."""

    def __init__(
        self, clock: Callable[[], int], seed: bytes, settings: Settings = SETTINGS
    ) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(api.sha256(seed))
        self._clock = clock
        self.settings = settings
        limiter = Limiter(settings.rates, clock)
        self.logs = Logs(settings, limiter, self._key, clock)
        self.directory = Directory(settings, limiter, identify, clock)
        self.sides = [open_database(":memory:", LOGS_SCHEMA)]
        self.mail = open_database(":memory:", DIRECTORY_SCHEMA)
        self.requests = 0
        self.subscribers = Subscribers(self, random.Random(seed))  # noqa: S311 - a schedule

    @property
    def receipt_key(self) -> bytes:
        """The public receipt key."""
        return self.logs.receipt_public_key

    def fork(self) -> None:
        """Copies the logs: from now on the two sides may tell different histories."""
        copy = open_database(":memory:", LOGS_SCHEMA)
        with copy.backup("main", self.sides[0], "main") as backup:
            backup.step()
        self.sides.append(copy)

    def close(self) -> None:
        """Closes the connections and the databases."""
        self.subscribers.close()
        for db in (*self.sides, self.mail):
            db.close()

    # -- requests

    def handle(self, path: str, request: Struct, requester: bytes, side: int = 0) -> Struct:
        """Answers a request, or raises `Refused`; a refusal has changed nothing."""
        self.requests += 1
        who = Requester(requester)
        handler = self._mail_handlers().get(path)
        if handler is not None:
            return self._write(self.mail, lambda db: handler(DirectoryTables(db), request, who))
        if isinstance(request, api.Append):
            accepted = self.on_log(side, lambda tx: self.logs.append(tx, request, who))
            if accepted.stored is not None and side == 0:
                self.subscribers.accepted(accepted.stored, accepted.state)
            return accepted.answer
        return self.on_log(side, lambda tx: self._log_request(tx, path, request, who))

    def on_log(self, side: int, function: Callable[[SQLiteTransaction], T]) -> T:
        """Runs a function of a transaction on one side's logs."""
        return self._write(self.sides[side], lambda db: function(SQLiteTransaction(db)))

    @staticmethod
    def _write(db: Connection, function: Callable[[Connection], T]) -> T:
        db.execute("BEGIN IMMEDIATE")
        try:
            result = function(db)
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        return result

    def _log_request(
        self,
        tx: SQLiteTransaction,
        path: str,
        request: Any,  # noqa: ANN401 - what the path says
        who: Requester,
    ) -> Struct:
        logs = self.logs
        reads: dict[str, Callable[[SQLiteTransaction, Any], Struct]] = {
            "logs/read": logs.read,
            "logs/entry": logs.fetch_entry,
            "chunks/fetch": logs.fetch_chunks,
            "boxes/read": logs.read_box,
        }
        if path in reads:
            return reads[path](tx, request)
        match path:
            case "logs/create":
                return logs.create(tx, request, who)
            case "chunks/put":
                return logs.put_chunks(tx, request, who)
            case "boxes/post":
                return logs.post_request(tx, request, who)[0]
            case _:
                raise Refused(api.ErrorCode.UNKNOWN_PATH, f"{path} is not simulated")

    def _mail_handlers(self) -> dict[str, Callable[[DirectoryTables, Any, Requester], Struct]]:
        mail = self.directory
        return {
            "inboxes/open": mail.open_inbox,
            "inboxes/mint": mail.mint,
            "inboxes/post": lambda t, r, q: mail.post(t, r, q)[0],
            "inboxes/read": lambda t, r, _: mail.read(t, r),
            "inboxes/ack": lambda t, r, _: mail.acknowledge(t, r),
            "directory/publish": self._publish,
            "directory/claim": lambda t, r, q: mail.claim(t, r, q)[0],
        }

    def _publish(
        self, tables: DirectoryTables, request: api.Publish, requester: Requester
    ) -> Struct:
        self.directory.admit_publish(tables, request, requester)
        packages = self.directory.verify_publish(request)
        return self.directory.publish(tables, request, packages)

    def answer_and_forget(self, request: api.Append, requester: bytes, side: int) -> Struct:
        """What an append would be answered; nothing of it is stored."""
        self.sides[side].execute("SAVEPOINT forgotten")
        try:
            return self.logs.append(
                SQLiteTransaction(self.sides[side]), request, Requester(requester)
            ).answer
        finally:
            self.sides[side].execute("ROLLBACK TO forgotten")
            self.sides[side].execute("RELEASE forgotten")

    def sweep(self) -> None:
        """One round of retention."""
        now = self._clock()
        for side in range(len(self.sides)):
            while self.on_log(side, lambda tx: retention.sweep(tx, self.settings, now)):
                pass
        self._write(self.mail, lambda db: self.directory.sweep(DirectoryTables(db)))

    def sign_receipt(self, epoch: bytes, number: int, previous: bytes, entry: bytes) -> api.Receipt:
        """A receipt for anything: what a lying service can make."""
        tbs = api.receipt_to_be_signed(epoch, number, previous, entry)
        return api.Receipt(epoch, number, previous, entry, self._key.sign(tbs))

    def info(self) -> api.ServiceInfo:
        """What the service says about itself."""
        s = self.settings
        return api.ServiceInfo(
            (api.DeliveryVersion.COTERIE1,),
            self.receipt_key,
            self._clock(),
            s.max_entry,
            s.max_bundle,
            s.inline_limit,
            s.min_retention,
            s.max_retention,
            (),
        )
