"""What is found out about many entries of the log before it is their turn, with all cores (D-REC-9, D-ENT-11).

Nothing is judged here. Signatures that hold, and envelopes that open, are remembered; `Line.take` judges the entries in
their order and finds out by itself what is not remembered, and so does `Group.receive`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coterie.client.epoch_keys import EpochKeys
from coterie.errors import CoterieError
from coterie.mls.framing import MLSMessage
from coterie.transport import api

Run: TypeAlias = Callable[..., Iterable[Any]]
"""`map`, or one that uses all cores (`cores`)."""

WORTH_IT = 64
"""So many entries are worth looking ahead: fewer are judged sooner than threads are started."""
_BATCH = 64
"""Receipts for one call of a thread: some milliseconds of work."""


@dataclass(slots=True)
class Opened:
    """What an entry's envelope holds."""

    content: api.SealedContent
    message: MLSMessage


@dataclass(slots=True)
class Ahead:
    """What is known of some entries before they are judged."""

    receipts: frozenset[bytes]
    """The receipts, encoded, that the service signed."""
    opened: dict[int, Opened]
    """By the identity of the entry, which whoever looks ahead keeps meanwhile."""

    @classmethod
    def look(
        cls,
        entries: Sequence[api.StoredEntry],
        keys: EpochKeys,
        receipt_key: Ed25519PublicKey,
        run: Run,
    ) -> Ahead:
        """Verifies the receipts on all cores, and opens the messages' envelopes."""
        opened = {}
        for stored in entries:
            entry = stored.entry
            if entry is None or entry.header.kind != api.EntryKind.MESSAGE:
                continue
            # Whether it opens is judged when it is its turn.
            with suppress(CoterieError):
                content = keys.open(entry)
                opened[id(entry)] = Opened(content, MLSMessage.read(content.content))
        return cls(signed([stored.receipt for stored in entries], receipt_key, run), opened)

    def messages(self) -> Iterator[MLSMessage]:
        """The messages that could be read, in the order of the log."""
        return (opened.message for opened in self.opened.values())


def signed(
    receipts: Sequence[api.Receipt], receipt_key: Ed25519PublicKey, run: Run
) -> frozenset[bytes]:
    """Those receipts, encoded, that the service signed."""
    jobs = [(receipt.encode(), receipt.signature, receipt.to_be_signed()) for receipt in receipts]

    def judge(batch: Sequence[tuple[bytes, bytes, bytes]]) -> list[bytes]:
        held = []
        for encoded, signature, content in batch:
            with suppress(InvalidSignature):
                receipt_key.verify(signature, content)
                held.append(encoded)
        return held

    parts = (jobs[start : start + _BATCH] for start in range(0, len(jobs), _BATCH))
    return frozenset(chain.from_iterable(run(judge, parts)))
