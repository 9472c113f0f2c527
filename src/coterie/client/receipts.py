"""What the service signs: receipts, and those that open an epoch (docs/delivery-protocol.md, section 3)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coterie.client.epoch_keys import EpochKeys
from coterie.errors import VerificationError
from coterie.transport import api


def verify_opening(
    binding: api.DeliveryBinding, keys: EpochKeys, parent: bytes, opening: api.Receipt
) -> bytes:
    """The name of the epoch that a receipt opened (D-INB-7); raises `VerificationError` where it is of other keys."""
    name = keys.name(parent)
    if opening.epoch != name or opening.number != 0:
        msg = "the opening receipt is not that of the epoch that the group is in"
        raise VerificationError(msg, rule="D-INB-7")
    verify_receipt(Ed25519PublicKey.from_public_bytes(binding.receipt_key), opening)
    return name


def verify_receipt(key: Ed25519PublicKey, receipt: api.Receipt) -> None:
    """Raises `VerificationError` unless the service signed the receipt (D-REC-1)."""
    try:
        key.verify(receipt.signature, receipt.to_be_signed())
    except InvalidSignature as error:
        msg = "a receipt is not signed with the service's receipt key"
        raise VerificationError(msg, rule="D-REC-9") from error
