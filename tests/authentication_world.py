"""An Authentication Service with a clock that is told, and a client of it over its own HTTP face, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from coterie.authentication.app import create_app
from coterie.authentication.ca import CertificateAuthority
from coterie.authentication.ledger import Ledger
from coterie.authentication.service import AuthenticationService
from coterie.authentication.settings import Settings
from coterie.errors import VerificationError
from coterie.identity.issuer import X509Issuer
from coterie.identity.names import DeviceId
from coterie.identity.revocation import RevocationLists
from coterie.identity.x509 import Anchor
from coterie.mls.credential import Credential
from coterie.mls.secret import Secret
from coterie.transport import as_api
from coterie.transport.as_api import ErrorCode, Refused
from coterie.transport.authentication import AuthenticationClient
from tests.pki import KEY_KINDS, NOW, REALM, raw, sign

START = NOW + 1234


class Key:
    """A device's key that lives in the test."""

    def __init__(self, kind: str = "Ed25519") -> None:
        self.private = KEY_KINDS[kind]()
        self.signature_key = raw(self.private)

    def sign(self, content: bytes) -> bytes:
        return sign(self.private, content)


@dataclass
class World:
    """A service, its clock and a client of it."""

    path: Path
    settings: Settings = field(
        default_factory=lambda: Settings(requests_burst=1000, enrolments_burst=1000)
    )
    time: int = START
    client_ahead: int = 0
    ca: CertificateAuthority = field(
        default_factory=lambda: CertificateAuthority.create(REALM, now=START)
    )

    def __post_init__(self) -> None:
        self.start()

    def restart(self) -> None:
        """Ends the service and starts it again, over the same database."""
        self.service.close()
        self.start()

    def start(self) -> None:
        self.ledger = Ledger(self.path)
        self.service = AuthenticationService(
            self.ca,
            self.ledger,
            code_key=Secret(bytes(32)),
            clock=lambda: self.time,
            settings=self.settings,
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(self.service)))
        self.client = AuthenticationClient(
            self.http, "http://service/", REALM, clock=lambda: self.time + self.client_ahead
        )

    def add(self, name: str) -> str:
        return self.service.add_user(name).code.decode()

    async def enrolled(
        self, name: str = "alice", kind: str = "Ed25519"
    ) -> tuple[Key, as_api.Issued]:
        key = Key(kind)
        code = self.add(name) if self.ledger.find_user(name) is None else self.code(name)
        return key, await self.client.enrol(key, name, code)

    def code(self, name: str) -> str:
        return self.service.new_code(name).code.decode()

    def verifier(self) -> X509Issuer:
        lists = RevocationLists([Anchor(self.ca.certificate).certificate])
        lists.update(self.service.revocation_list())
        return X509Issuer([self.ca.certificate], revocations=lists)

    def accepts(self, key: Key, issued: as_api.Issued) -> DeviceId:
        return self.verifier().identify(credential(issued), key.signature_key, now=self.time)

    def refuses(self, key: Key, issued: as_api.Issued) -> str:
        with pytest.raises(VerificationError) as caught:
            self.accepts(key, issued)
        return str(caught.value.rule)


def credential(issued: as_api.Issued) -> Credential:
    return Credential.x509(tuple(c.cert_data for c in issued.chain))


async def refused(code: ErrorCode, awaitable: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    assert caught.value.code == code, caught.value
    return caught.value
