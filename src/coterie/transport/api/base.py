"""The strings, labels and hashes that all requests are made of (docs/delivery-protocol.md, section 1)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Final, TypeAlias

from coterie.mls.tls import Fixed, Gen, Uint, Uint16Enum

ZERO32: Final = bytes(32)
MEDIA_TYPE: Final = "application/vnd.coterie.v1"
VERSION_HEADER: Final = "Coterie-Version"
SUBPROTOCOL: Final = "coterie.v1"
BINDING_EXTENSION: Final = 0xF0C1
INBOX_EXTENSION: Final = 0xF0C2

# Labels for the MLS exporter, with the log id as context and 32 as length (D-ACC-2).
EXPORT_APPEND_SEED: Final = b"coterie append"
EXPORT_READ_TOKEN: Final = b"coterie read"
EXPORT_ENVELOPE_SECRET: Final = b"coterie envelope"
EXPORT_STATE_SECRET: Final = b"coterie state"
EXPORT_BOX_SEED: Final = b"coterie box"
EXPORT_BOX_TOKEN: Final = b"coterie box write"

# Info strings of HKDF-Expand and HPKE, and labels of SignWithLabel.
ENTRY_KEY_INFO: Final = b"coterie entry v1"
CHUNK_KEY_INFO: Final = b"coterie chunk v1"
BOX_INFO: Final = b"coterie box v1"
INBOX_INFO: Final = b"coterie inbox v1"
MANIFEST_LABEL: Final = b"CoterieManifest"
SUCCESSOR_LABEL: Final = b"CoterieSuccessor"
REQUEST_LABEL: Final = b"CoterieRequest"

NAME_LABEL: Final = b"coterie epoch v1"
APPEND_LABEL: Final = b"coterie append v1"
CREATE_LABEL: Final = b"coterie create v1"
CHUNKS_LABEL: Final = b"coterie chunks v1"
RECEIPT_LABEL: Final = b"coterie receipt v1"


class Bytes(Fixed):
    """A string of fixed length under the name that the protocol gives it; another length is not encoded."""

    def __init__(self, length: int, name: str = "", *, hidden: bool = False) -> None:
        super().__init__(length)
        self.name = name
        self.hidden = hidden

    def encode_source(self, gen: Gen, value: str, indent: int) -> None:
        """See Codec."""
        what = self.name or "the field"
        gen.add(
            f"if len({value}) != {self.length}: "
            f"raise ValueError('{what} has %d bytes, must have {self.length}' % len({value}))",
            indent,
        )
        super().encode_source(gen, value, indent)

    def presentation(self, name: str) -> str:
        """See Codec."""
        return f"{self.name} {name}" if self.name else super().presentation(name)


Hash: TypeAlias = Annotated[bytes, Bytes(32, "Hash")]
Id: TypeAlias = Annotated[bytes, Bytes(32, "Id")]
Token: TypeAlias = Annotated[bytes, Bytes(32, "Token", hidden=True)]
PublicKey: TypeAlias = Annotated[bytes, Bytes(32, "PublicKey")]
Signature: TypeAlias = Annotated[bytes, Bytes(64, "Signature")]
Uint8: TypeAlias = Annotated[int, Uint(1)]
Uint32: TypeAlias = Annotated[int, Uint(4)]
Uint64: TypeAlias = Annotated[int, Uint(8)]


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def token_fits(token: bytes, expected_hash: bytes) -> bool:
    """Whether `token` is the one whose hash is given, in constant time (D-ACC-5)."""
    return hmac.compare_digest(sha256(token), expected_hash)


class DeliveryVersion(Uint16Enum):
    """The version of this protocol."""

    COTERIE1 = 1
