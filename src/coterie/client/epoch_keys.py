"""What a member derives from an epoch for its log: access, envelopes, box (delivery protocol, sections 1, 2, 10)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.errors import DecryptionError
from coterie.mls.secret import Secret
from coterie.transport import api

Exporter = Callable[[str, bytes, int], Secret]
"""`Group.export_secret`, or that of an epoch which is only staged."""

_NONCE = bytes(12)
_STEP = 256
_LARGE = 4096


@dataclass(frozen=True, slots=True, repr=False)
class EpochKeys:
    """The secrets of one epoch of a log; all members derive the same (D-ACC-2)."""

    log_id: bytes
    append_seed: Secret
    read_token: Secret
    envelope_secret: Secret
    box_seed: Secret
    box_token: Secret
    state_secret: Secret

    @classmethod
    def derive(cls, export: Exporter, log_id: bytes) -> EpochKeys:
        """Asks the epoch's exporter for one secret per label."""

        def secret(label: bytes) -> Secret:
            return export(label.decode(), log_id, 32)

        return cls(
            log_id,
            secret(api.EXPORT_APPEND_SEED),
            secret(api.EXPORT_READ_TOKEN),
            secret(api.EXPORT_ENVELOPE_SECRET),
            secret(api.EXPORT_BOX_SEED),
            secret(api.EXPORT_BOX_TOKEN),
            secret(api.EXPORT_STATE_SECRET),
        )

    @property
    def access(self) -> api.Access:
        """What the service learns of the epoch (D-ACC-4)."""
        public = self._append_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return api.Access(public, api.sha256(self.read_token), api.sha256(self.box_token))

    def name(self, parent: bytes) -> bytes:
        """The epoch's name, as a child of the epoch with the name `parent` (D-ACC-4)."""
        return api.EpochName(self.log_id, parent, self.access).name()

    def _append_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.append_seed)

    def sign(self, content: bytes) -> bytes:
        """A signature under the epoch's append key."""
        return self._append_key().sign(content)

    def _envelope(self, entry_id: bytes) -> AESGCM:
        # HKDF-Expand of one block, which is one HMAC; the library's object for it takes three times as long.
        return AESGCM(
            hmac.digest(self.envelope_secret, api.ENTRY_KEY_INFO + entry_id + b"\1", "sha256")
        )

    def append(self, header: api.EntryHeader, content: api.SealedContent) -> api.Append:
        """Seals a content under its header, and signs the entry (D-ENT-1, D-ENT-7)."""
        plaintext = padded(content).encode()
        sealed = self._envelope(header.id).encrypt(_NONCE, plaintext, header.encode())
        entry = api.Entry(header, sealed)
        signature = self.sign(api.append_to_be_signed(entry.hash()))
        return api.Append(self.log_id, entry, signature)

    def open(self, entry: api.Entry) -> api.SealedContent:
        """Opens an entry's envelope; raises `DecryptionError` or `DecodeError`."""
        try:
            plaintext = self._envelope(entry.header.id).decrypt(
                _NONCE, entry.sealed, entry.header.encode()
            )
        except InvalidTag as error:
            msg = "an entry of the log does not open with its epoch's key"
            raise DecryptionError(msg, rule="D-ENT-11") from error
        return api.SealedContent.decode(plaintext)


def padded(content: api.SealedContent) -> api.SealedContent:
    """The content with zeros up to the next size that hides its length (D-ENT-10)."""
    bare = len(content.replace(padding=b"").encode())
    target = _STEP
    while target < bare:
        target = target * 2 if target < _LARGE else target + _LARGE
    # The padding's own length header grows with it: take one that fits, one size further if none does.
    while True:
        for header in (1, 2, 4):
            length = target - bare - header + 1
            filled = content.replace(padding=bytes(max(length, 0)))
            if len(filled.encode()) == target:
                return filled
        target = target * 2 if target < _LARGE else target + _LARGE
