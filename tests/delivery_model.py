"""A model member for tests of the Delivery Service: epochs whose secrets are hashes, no MLS group behind them."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.transport.api import (
    ZERO32,
    Access,
    Append,
    Bundle,
    Chunk,
    Correction,
    CreateLog,
    CreateLogRequest,
    DeliveryVersion,
    Entry,
    EntryHeader,
    EntryKind,
    EpochName,
    FetchChunks,
    LogTarget,
    PostRequest,
    PutChunks,
    PutChunksRequest,
    Read,
    ReadBox,
    Receipt,
    SealedRequest,
    append_to_be_signed,
)

V1 = DeliveryVersion.COTERIE1
MONTH = 30 * 86400
_ids = itertools.count(1)


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def fresh_id() -> bytes:
    return digest("id", next(_ids))


@dataclass(frozen=True)
class ModelEpoch:
    """An epoch as its members know it; `seed` stands for the exporter."""

    log_id: bytes
    parent: bytes
    seed: bytes

    @cached_property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(digest("append", self.seed))

    @cached_property
    def read_token(self) -> bytes:
        return digest("read", self.seed)

    @cached_property
    def box_token(self) -> bytes:
        return digest("box", self.seed)

    @cached_property
    def access(self) -> Access:
        public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Access(
            public,
            hashlib.sha256(self.read_token).digest(),
            hashlib.sha256(self.box_token).digest(),
        )

    @cached_property
    def name(self) -> bytes:
        return EpochName(self.log_id, self.parent, self.access).name()

    def child(self, *label: object) -> ModelEpoch:
        """The epoch after a Commit that `label` tells apart."""
        return ModelEpoch(self.log_id, self.name, digest("child", self.seed, label))

    # -- requests

    def sign(self, header: EntryHeader, sealed: bytes, chunks: tuple[Chunk, ...] = ()) -> Append:
        entry = Entry(header, sealed)
        signature = self.key.sign(append_to_be_signed(entry.hash()))
        return Append(self.log_id, entry, signature, chunks)

    def message(self, sealed: bytes = b"sealed", id: bytes | None = None) -> Append:
        header = EntryHeader(V1, EntryKind.MESSAGE, self.name, id or fresh_id())
        return self.sign(header, sealed)

    def bundle(
        self,
        next: ModelEpoch,
        last_candidate: bytes = ZERO32,
        *,
        sealed: bytes = b"commit",
        chunks: tuple[Chunk, ...] = (),
        added: tuple[bytes, ...] | None = None,
        id: bytes | None = None,
    ) -> Append:
        listed = tuple(c.address() for c in chunks) if added is None else added
        header = EntryHeader(
            V1,
            EntryKind.BUNDLE,
            self.name,
            id or fresh_id(),
            bundle=Bundle(last_candidate, next.access, listed),
        )
        return self.sign(header, sealed, chunks)

    def correction(self, candidate: bytes, next: ModelEpoch) -> Append:
        correction = Correction(candidate, next.access)
        header = EntryHeader(V1, EntryKind.CORRECTION, self.name, fresh_id(), correction=correction)
        return self.sign(header, b"")

    def successor(self) -> Append:
        return self.sign(EntryHeader(V1, EntryKind.SUCCESSOR, self.name, fresh_id()), b"successor")

    def read(self, from_number: int = 0, max_bytes: int = 1 << 31) -> Read:
        return Read(self.log_id, self.name, self.read_token, from_number, max_bytes)

    def read_box(self, from_number: int = 0) -> ReadBox:
        return ReadBox(self.log_id, self.name, self.read_token, from_number)

    def target(self, from_number: int = 0) -> LogTarget:
        return LogTarget(self.log_id, self.name, self.read_token, from_number)

    def request(self, size: int = 4096) -> PostRequest:
        sealed = SealedRequest(b"kem", bytes(size))
        return PostRequest(self.log_id, self.name, self.box_token, sealed)

    def fetch_chunks(self, *addresses: bytes) -> FetchChunks:
        return FetchChunks(self.log_id, self.name, self.read_token, addresses)

    def put_chunks(self, chunks: tuple[Chunk, ...], *renewed: bytes) -> PutChunksRequest:
        put = PutChunks(self.log_id, self.name, fresh_id(), renewed, chunks)
        return PutChunksRequest(put, self.key.sign(put.to_be_signed()))


def new_log(*label: object, retention: int = MONTH) -> tuple[ModelEpoch, CreateLogRequest]:
    """A log's first epoch, and the request that makes it."""
    log_id = digest("log", label, next(_ids))
    epoch = ModelEpoch(log_id, ZERO32, digest("first", log_id))
    create = CreateLog(V1, log_id, epoch.access, retention)
    return epoch, CreateLogRequest(create, epoch.key.sign(create.to_be_signed()))


def verify_receipt(receipt: Receipt, key: bytes) -> None:
    """Raises InvalidSignature for a receipt that the service did not sign."""
    Ed25519PublicKey.from_public_bytes(key).verify(receipt.signature, receipt.to_be_signed())


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1_800_000_000.0
    log: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds
