"""The key schedule: from the secrets of a Commit to those of an epoch (RFC 9420 §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coterie.mls.crypto import Suite
from coterie.mls.group_context import GroupContext, PreSharedKeyID, PSKLabel
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct

EXTERNAL_INIT_LABEL = b"MLS 1.0 external init secret"


class EpochSecrets(Struct):
    """What members of an epoch share and keep until the next one (§8, table of labels); each has Nh bytes.

    The encryption secret is not here: it becomes the root of the secret tree and is gone.
    """

    sender_data_secret: Secret
    exporter_secret: Secret
    external_secret: Secret
    confirmation_key: Secret
    membership_key: Secret
    resumption_psk: Secret
    epoch_authenticator: Secret
    init_secret: Secret


_EPOCH_LABELS = (
    "sender data",
    "exporter",
    "external",
    "confirm",
    "membership",
    "resumption",
    "authentication",
    "init",
    "encryption",
)
"""The labels of the fields of EpochSecrets, in their order, and that of the encryption secret."""


@dataclass(frozen=True, slots=True)
class Joiner:
    """The key schedule from its joiner secret on: what a Welcome hands over."""

    suite: Suite
    joiner_secret: Secret
    member_secret: Secret

    @classmethod
    def of(cls, suite: Suite, joiner_secret: Secret, psk_secret: bytes) -> Joiner:
        """Mixes the pre-shared keys into a joiner secret."""
        return cls(suite, joiner_secret, suite.extract(joiner_secret, psk_secret))

    @classmethod
    def of_commit(
        cls,
        suite: Suite,
        init_secret: bytes,
        commit_secret: bytes,
        psk_secret: bytes,
        context: GroupContext,
    ) -> Joiner:
        """The joiner secret of the epoch that a Commit begins; `context` is the new epoch's."""
        extracted = suite.extract(init_secret, commit_secret)
        joiner = suite.expand_with_label(extracted, "joiner", context.encode(), suite.hash_length)
        return cls.of(suite, joiner, psk_secret)

    def welcome_key_and_nonce(self) -> tuple[Secret, Secret]:
        """What encrypts the GroupInfo of a Welcome (§12.4.3.1)."""
        suite = self.suite
        welcome = suite.derive_secret(self.member_secret, "welcome")
        return suite.key_and_nonce(welcome, b"")

    def epoch(self, context: GroupContext) -> tuple[EpochSecrets, Secret]:
        """The secrets of the epoch, and its encryption secret."""
        suite = self.suite
        epoch_secret = suite.expand_with_label(
            self.member_secret, "epoch", context.encode(), suite.hash_length
        )
        return epoch_secrets(suite, epoch_secret)


def epoch_secrets(suite: Suite, epoch_secret: Secret) -> tuple[EpochSecrets, Secret]:
    """Everything that is derived from an epoch secret: what is kept, and the encryption secret."""
    *kept, encryption_secret = suite.derive_secrets(epoch_secret, _EPOCH_LABELS)
    return EpochSecrets(*kept), encryption_secret


def psk_secret(suite: Suite, psks: Sequence[tuple[PreSharedKeyID, bytes]]) -> Secret:
    """All pre-shared keys of a Commit in one (§8.4), Nh bytes; zeros where there are none."""
    zero = bytes(suite.hash_length)
    result = Secret(zero)
    for index, (psk_id, psk) in enumerate(psks):
        label = PSKLabel(psk_id, index, len(psks))
        extracted = suite.extract(zero, psk)
        expanded = suite.expand_with_label(
            extracted, "derived psk", label.encode(), suite.hash_length
        )
        result = suite.extract(expanded, result)
    return result


def exported_secret(
    suite: Suite, exporter_secret: bytes, label: str, context: bytes, length: int
) -> Secret:
    """MLS-Exporter (§8.5): `length` bytes for the application's own use."""
    derived = suite.derive_secret(exporter_secret, label)
    return suite.expand_with_label(derived, "exported", suite.hash(context), length)


def external_key_pair(suite: Suite, external_secret: bytes) -> HPKEPrivateKey:
    """The key pair to which external joiners seal their init secret (§8.3)."""
    return suite.derive_key_pair(external_secret)


def external_init_seal(
    suite: Suite, external_pub: bytes, rng: RandomSource
) -> tuple[bytes, Secret]:
    """A new init secret for an external Commit, and the KEM output from which members derive it (§8.3)."""
    return suite.export_seal(external_pub, b"", EXTERNAL_INIT_LABEL, suite.hash_length, rng)


def external_init_open(suite: Suite, external_key: HPKEPrivateKey, kem_output: bytes) -> Secret:
    """The init secret that an external joiner sealed; raises `DecryptionError` (§8.3)."""
    return suite.export_open(external_key, kem_output, b"", EXTERNAL_INIT_LABEL, suite.hash_length)


def confirmation_tag(suite: Suite, confirmation_key: bytes, confirmed_hash: bytes) -> bytes:
    """The MAC that confirms an epoch (§6.1)."""
    return suite.mac(confirmation_key, confirmed_hash)
