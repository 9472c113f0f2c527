"""Model devices for tests of the directory and the inboxes: basic credentials of the form `user/device`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from coterie.errors import VerificationError
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, suite_of
from coterie.mls.extension import Extension, capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import KeyPackageBundle, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.types import CipherSuite, ExtensionType
from coterie.transport.api import (
    INBOX_EXTENSION,
    Claim,
    InboxInfo,
    KeyPackageMessage,
    OpenInbox,
    PostEnvelope,
    Publish,
    ReadInbox,
    sha256,
)
from tests.delivery_model import V1

SUITE = CipherSuite(1)


def identify_basic(credential: Credential, signature_key: bytes, now: int) -> tuple[bytes, bytes]:
    """Takes basic credentials at their word."""
    user, slash, device = credential.identity.partition(b"/")
    if not slash:
        raise VerificationError("the credential names no device")
    return user, device


@dataclass
class Device:
    """A device with an inbox, which makes key packages."""

    user: bytes
    device: bytes = b"phone"
    suite: int = 1
    now: float = field(default_factory=time.time)
    inbox_id: bytes = field(default_factory=lambda: os.urandom(32))
    token: bytes = field(default_factory=lambda: os.urandom(32))

    def __post_init__(self) -> None:
        self.key: SignaturePrivateKey = suite_of(self.suite).generate_signature_key(os.urandom)

    def package(self, *, days: float = 30, inbox_id: bytes | None = None) -> KeyPackageBundle:
        now = int(self.now)
        info = InboxInfo(inbox_id or self.inbox_id, b"inbox key")
        return create_key_package(
            suite_of(self.suite),
            self.key,
            Credential.basic(self.user + b"/" + self.device),
            capabilities(cipher_suites=(self.suite,), extensions=(INBOX_EXTENSION,)),
            Lifetime(now - 3600, now + int(days * 86400)),
            rng=os.urandom,
            extensions=(Extension(ExtensionType(INBOX_EXTENSION), info.encode()),),
        )

    def message(self, *, days: float = 30) -> KeyPackageMessage:
        return KeyPackageMessage(MLSMessage.of(self.package(days=days).key_package).encode())

    def open(self) -> OpenInbox:
        return OpenInbox(self.inbox_id, sha256(self.token))

    def publish(self, count: int, last_resort: int = 0, *, days: float = 30) -> Publish:
        packages = tuple(self.message(days=days) for _ in range(count))
        last = tuple(self.message(days=days) for _ in range(last_resort))
        return Publish(V1, self.user, self.inbox_id, self.token, packages, last)

    def read(self, from_number: int = 0) -> ReadInbox:
        return ReadInbox(self.inbox_id, self.token, from_number)

    def envelope(self, ticket: bytes, fill: int = 0, size: int = 4096) -> PostEnvelope:
        return PostEnvelope(self.inbox_id, ticket, b"kem", bytes([fill]) * size)


def claim(user: bytes, *suites: int) -> Claim:
    return Claim(V1, user, tuple(CipherSuite(s) for s in suites or (1,)))
