"""Extensions, capabilities and what groups require of members (RFC 9420 §7.2, §11.1, §12.1.8.1, §13.4, §13.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from coterie.errors import RuleViolation
from coterie.mls.credential import Credential
from coterie.mls.hpke import RandomSource
from coterie.mls.rules import Rule
from coterie.mls.tls import Struct, Uint16Registry
from coterie.mls.types import (
    DEFAULT_EXTENSION_TYPES,
    DEFAULT_PROPOSAL_TYPES,
    GREASE_VALUES,
    CipherSuite,
    CredentialType,
    ExtensionType,
    ProposalType,
    ProtocolVersion,
)

MAX_CAPABILITIES = 256
"""The most values that one list of a Capabilities may have: every member counts each of them."""


class Extension(Struct):
    """§7.2."""

    extension_type: ExtensionType
    extension_data: bytes


class Capabilities(Struct):
    """§7.2: what a client supports besides what every client does."""

    versions: tuple[ProtocolVersion, ...]
    cipher_suites: tuple[CipherSuite, ...]
    extensions: tuple[ExtensionType, ...]
    proposals: tuple[ProposalType, ...]
    credentials: tuple[CredentialType, ...]

    def supports_extension(self, extension_type: int) -> bool:
        """Whether the type is a default one or listed."""
        return extension_type in DEFAULT_EXTENSION_TYPES or extension_type in self.extensions

    def supports_proposal(self, proposal_type: int) -> bool:
        """Whether the type is a default one or listed."""
        return proposal_type in DEFAULT_PROPOSAL_TYPES or proposal_type in self.proposals


class RequiredCapabilities(Struct):
    """§11.1."""

    extension_types: tuple[ExtensionType, ...] = ()
    proposal_types: tuple[ProposalType, ...] = ()
    credential_types: tuple[CredentialType, ...] = ()


class ExternalPub(Struct):
    """§12.4.3.2."""

    external_pub: bytes


class ExternalSender(Struct):
    """§12.1.8.1."""

    signature_key: bytes
    credential: Credential


class ExternalSenders(Struct):
    """§12.1.8.1: the content of the extension `external_senders`."""

    external_senders: tuple[ExternalSender, ...]


S = TypeVar("S", bound=Struct)
R = TypeVar("R", bound=Uint16Registry)


def find_extension(
    extensions: Iterable[Extension], extension_type: ExtensionType, cls: type[S]
) -> S | None:
    """The extension of the type, decoded as `cls`, or None; raises `DecodeError` where it is malformed."""
    for extension in extensions:
        if extension.extension_type == extension_type:
            return cls.decode(extension.extension_data)
    return None


def check_extension_list(extensions: Iterable[Extension]) -> None:
    """Raises `RuleViolation` where a type appears twice (§13.4)."""
    types = [extension.extension_type for extension in extensions]
    if len(set(types)) != len(types):
        msg = "a list of extensions has two of one type"
        raise RuleViolation(msg, rule=Rule.EXTENSION_DUPLICATE)


def grease(rng: RandomSource, count: int = 1) -> tuple[int, ...]:
    """`count` distinct GREASE values, in random order (§13.5)."""
    values = sorted(GREASE_VALUES)
    return tuple(values.pop(rng(1)[0] % len(values)) for _ in range(count))


def grease_extensions(listed: Capabilities, rng: RandomSource) -> tuple[Extension, ...]:
    """An extension without meaning, of a GREASE type that the capabilities list; none where they list none (§13.5)."""
    types = GREASE_VALUES.intersection(listed.extensions)
    return tuple(Extension(ExtensionType(t), rng(rng(1)[0] % 16)) for t in sorted(types)[:1])


def capabilities(
    *,
    cipher_suites: Iterable[int],
    credentials: Iterable[int] = (CredentialType.BASIC, CredentialType.X509),
    extensions: Iterable[int] = (),
    proposals: Iterable[int] = (),
    rng: RandomSource | None = None,
) -> Capabilities:
    """The capabilities of a client; with a random source, a GREASE value in each list that may carry one."""

    def listed(kind: type[R], values: Iterable[int]) -> tuple[R, ...]:
        extra = () if rng is None else grease(rng)
        return tuple(kind(v) for v in (*values, *extra))

    return Capabilities(
        (ProtocolVersion.MLS10,),
        listed(CipherSuite, cipher_suites),
        listed(ExtensionType, extensions),
        listed(ProposalType, proposals),
        listed(CredentialType, credentials),
    )
