"""The enums and registries of RFC 9420 §6, §7, §8.4, §12 and §17, and the sender of a message.

Closed enums do not decode from values that the RFC does not name. Registries are open: a value that is not known here,
a GREASE value (§13.5) for instance, survives, and what it may be used for is decided where it is used.
"""

from __future__ import annotations

from typing import Annotated

from coterie.mls.tls import Struct, Uint, Uint8Enum, Uint16Registry, When
from coterie.mls.tree_math import LeafIndex

GREASE_VALUES = frozenset(0x0A0A + 0x1010 * n for n in range(15))
"""The values of §13.5 that mean nothing and must be tolerated."""


class ProtocolVersion(Uint16Registry):
    """§6."""

    MLS10 = 1


class CipherSuite(Uint16Registry):
    """§17.1."""

    MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519 = 1
    MLS_128_DHKEMP256_AES128GCM_SHA256_P256 = 2
    MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519 = 3
    MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448 = 4
    MLS_256_DHKEMP521_AES256GCM_SHA512_P521 = 5
    MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448 = 6
    MLS_256_DHKEMP384_AES256GCM_SHA384_P384 = 7


class WireFormat(Uint16Registry):
    """§17.2."""

    MLS_PUBLIC_MESSAGE = 1
    MLS_PRIVATE_MESSAGE = 2
    MLS_WELCOME = 3
    MLS_GROUP_INFO = 4
    MLS_KEY_PACKAGE = 5


class ExtensionType(Uint16Registry):
    """§17.3."""

    APPLICATION_ID = 1
    RATCHET_TREE = 2
    REQUIRED_CAPABILITIES = 3
    EXTERNAL_PUB = 4
    EXTERNAL_SENDERS = 5


DEFAULT_EXTENSION_TYPES = frozenset(t for t in ExtensionType)
"""The extension types that every client supports and no capabilities list (§7.2)."""


class ProposalType(Uint16Registry):
    """§17.4."""

    ADD = 1
    UPDATE = 2
    REMOVE = 3
    PSK = 4
    REINIT = 5
    EXTERNAL_INIT = 6
    GROUP_CONTEXT_EXTENSIONS = 7


DEFAULT_PROPOSAL_TYPES = frozenset(t for t in ProposalType)
"""The proposal types that every client supports and no capabilities list (§7.2)."""


class CredentialType(Uint16Registry):
    """§17.5."""

    BASIC = 1
    X509 = 2


class ContentType(Uint8Enum):
    """§6."""

    APPLICATION = 1
    PROPOSAL = 2
    COMMIT = 3


class SenderType(Uint8Enum):
    """§6."""

    MEMBER = 1
    EXTERNAL = 2
    NEW_MEMBER_PROPOSAL = 3
    NEW_MEMBER_COMMIT = 4


class NodeType(Uint8Enum):
    """§12.4.3.3."""

    LEAF = 1
    PARENT = 2


class LeafNodeSource(Uint8Enum):
    """§7.2."""

    KEY_PACKAGE = 1
    UPDATE = 2
    COMMIT = 3


class ProposalOrRefType(Uint8Enum):
    """§12.4."""

    PROPOSAL = 1
    REFERENCE = 2


class PSKType(Uint8Enum):
    """§8.4."""

    EXTERNAL = 1
    RESUMPTION = 2


class ResumptionPSKUsage(Uint8Enum):
    """§8.4."""

    APPLICATION = 1
    REINIT = 2
    BRANCH = 3


class Sender(Struct):
    """§6."""

    sender_type: SenderType
    leaf_index: Annotated[LeafIndex | None, Uint(4), When("sender_type", SenderType.MEMBER)] = None
    sender_index: Annotated[int | None, Uint(4), When("sender_type", SenderType.EXTERNAL)] = None
