"""The process that verifies signatures for `signatures.SignatureChecks`: records in, one byte each out.

It holds no secret and sees what any reader of the log's database sees: append keys, signatures, hashes of entries. It
ends when its input does, so it never outlives the service, however that ends.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

COUNT_SIZE: Final = 4
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
HOLDS: Final = b"\x01"
FAILS: Final = b"\x00"


@lru_cache(maxsize=4096)
def _public_key(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def holds(key: bytes, signature: bytes, content: bytes) -> bool:
    """Whether an Ed25519 signature verifies (RFC 8032 §5.1.7); False, too, for bytes that are no key at all."""
    try:
        _public_key(key).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def work(source: BinaryIO, sink: BinaryIO, content_size: int) -> None:
    """Answers batches until the input ends: a count of 4 bytes, then key, signature and content of each."""
    size = KEY_SIZE + SIGNATURE_SIZE + content_size
    while len(head := source.read(COUNT_SIZE)) == COUNT_SIZE:
        batch = source.read(int.from_bytes(head) * size)
        sink.write(b"".join(_answers(batch, size)))
        sink.flush()


def _answers(batch: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(batch) - size + 1, size):
        key = batch[at : at + KEY_SIZE]
        signature = batch[at + KEY_SIZE : at + KEY_SIZE + SIGNATURE_SIZE]
        content = batch[at + KEY_SIZE + SIGNATURE_SIZE : at + size]
        yield HOLDS if holds(key, signature, content) else FAILS


if __name__ == "__main__":
    # Ctrl-C goes to the whole group of processes; this one ends when the service closes its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]))
