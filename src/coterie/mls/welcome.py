"""GroupInfo and Welcome, the structs, and the signature on a GroupInfo (RFC 9420 §12.4.3)."""

from __future__ import annotations

from typing import Annotated

from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.extension import Extension
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.ratchet_tree import HPKECiphertext
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tls import Lazy, Struct, Uint, encode_opaque
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import CipherSuite


class GroupInfo(Struct):
    """§12.4.3."""

    group_context: GroupContext
    extensions: tuple[Extension, ...]
    confirmation_tag: bytes
    signer: Annotated[LeafIndex, Uint(4)]
    signature: bytes

    def verify(self, suite: Suite, signature_key: bytes) -> None:
        """Raises `VerificationError` unless the signer signed it (§12.4.3)."""
        raw = self.encode()
        suite.verify_with_label(
            signature_key,
            "GroupInfoTBS",
            raw[: len(raw) - len(encode_opaque(self.signature))],
            self.signature,
            rule=Rule.GROUP_INFO_SIGNATURE,
        )


class GroupInfoTBS(Struct):
    """§12.4.3: what the signature on a GroupInfo covers."""

    group_context: GroupContext
    extensions: tuple[Extension, ...]
    confirmation_tag: bytes
    signer: Annotated[LeafIndex, Uint(4)]

    def sign(self, suite: Suite, key: SignaturePrivateKey) -> GroupInfo:
        """The GroupInfo with its signature."""
        signature = suite.sign_with_label(key, "GroupInfoTBS", self.encode())
        return GroupInfo(
            self.group_context, self.extensions, self.confirmation_tag, self.signer, signature
        )


class PathSecret(Struct):
    """§12.4.3.1."""

    path_secret: Secret


class GroupSecrets(Struct):
    """§12.4.3.1."""

    joiner_secret: Secret
    path_secret: PathSecret | None
    psks: tuple[PreSharedKeyID, ...]


class EncryptedGroupSecrets(Struct):
    """§12.4.3.1."""

    new_member: bytes
    encrypted_group_secrets: HPKECiphertext


class Welcome(Struct):
    """§12.4.3.1."""

    cipher_suite: CipherSuite
    secrets: Annotated[tuple[EncryptedGroupSecrets, ...], Lazy()]
    encrypted_group_info: bytes
