"""What all members agree on in an epoch, and the names of pre-shared keys (RFC 9420 §8.1, §8.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from coterie.mls.extension import (
    Extension,
    ExternalSenders,
    RequiredCapabilities,
    find_extension,
)
from coterie.mls.tls import Struct, Uint, When
from coterie.mls.types import (
    CipherSuite,
    ExtensionType,
    ProtocolVersion,
    PSKType,
    ResumptionPSKUsage,
)


class GroupContext(Struct):
    """§8.1."""

    version: ProtocolVersion
    cipher_suite: CipherSuite
    group_id: bytes
    epoch: Annotated[int, Uint(8)]
    tree_hash: bytes
    confirmed_transcript_hash: bytes
    extensions: tuple[Extension, ...]

    def required_capabilities(self) -> RequiredCapabilities | None:
        """What the group requires of its members (§11.1)."""
        return required_capabilities(self.extensions)

    def external_senders(self) -> ExternalSenders | None:
        """Who may send proposals from outside (§12.1.8.1)."""
        return find_extension(self.extensions, ExtensionType.EXTERNAL_SENDERS, ExternalSenders)


def required_capabilities(extensions: Sequence[Extension]) -> RequiredCapabilities | None:
    """What a group with these extensions requires of its members (§11.1)."""
    return find_extension(extensions, ExtensionType.REQUIRED_CAPABILITIES, RequiredCapabilities)


class PreSharedKeyID(Struct):
    """§8.4."""

    psktype: PSKType
    psk_id: Annotated[bytes | None, When("psktype", PSKType.EXTERNAL)]
    usage: Annotated[ResumptionPSKUsage | None, When("psktype", PSKType.RESUMPTION)]
    psk_group_id: Annotated[bytes | None, When("psktype", PSKType.RESUMPTION)]
    psk_epoch: Annotated[int | None, Uint(8), When("psktype", PSKType.RESUMPTION)]
    psk_nonce: bytes

    @classmethod
    def external(cls, psk_id: bytes, nonce: bytes) -> PreSharedKeyID:
        """A key that the members got outside the protocol."""
        return cls(PSKType.EXTERNAL, psk_id, None, None, None, nonce)

    @classmethod
    def resumption(
        cls, usage: ResumptionPSKUsage, group_id: bytes, epoch: int, nonce: bytes
    ) -> PreSharedKeyID:
        """The resumption key of an epoch of a group."""
        return cls(PSKType.RESUMPTION, None, usage, group_id, epoch, nonce)


class PSKLabel(Struct):
    """§8.4."""

    id: PreSharedKeyID
    index: Annotated[int, Uint(2)]
    count: Annotated[int, Uint(2)]
