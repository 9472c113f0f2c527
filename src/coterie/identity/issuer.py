"""The Authentication Service as its users see it (RFC 9750 §4): is this credential that user's, that device's?

`Issuer` is the interface; X.509 is the one implementation now, and logins by OpenID Connect or imported identities may
stand behind it later. `X509Issuer` is also the hook that the protocol core asks (`coterie.mls.credential`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from coterie.errors import DecodeError, VerificationError
from coterie.identity.names import DeviceId, UserId
from coterie.identity.revocation import RevocationLists
from coterie.identity.rules import CredentialRule
from coterie.identity.x509 import ChainVerifier, presented_device
from coterie.mls.credential import Credential
from coterie.mls.types import CredentialType


class Issuer(Protocol):
    """Who can say whose a credential is."""

    def validate(
        self,
        credential: Credential,
        reference: UserId | DeviceId,
        *,
        signature_key: bytes,
        now: int | None,
    ) -> DeviceId:
        """The credential's device; raises `VerificationError` unless it is the reference, or a device of it."""

    def same_client(self, a: Credential, b: Credential) -> bool:
        """Whether both are of one device."""

    def same_user(self, a: Credential, b: Credential) -> bool:
        """Whether both are of one user."""


def _chain(credential: Credential) -> tuple[bytes, ...]:
    if credential.credential_type != CredentialType.X509 or isinstance(credential.content, bytes):
        msg = "the credential is not a chain of X.509 certificates"
        raise VerificationError(msg, rule=CredentialRule.CREDENTIAL_TYPE)
    return tuple(certificate.cert_data for certificate in credential.content)


def presented_by(credential: Credential) -> DeviceId:
    """The device that a credential says it is of, unverified. `DecodeError` or `VerificationError` if it says none."""
    chain = _chain(credential)
    if not chain:
        msg = "the credential has no certificate"
        raise VerificationError(msg, rule=CredentialRule.CHAIN_LENGTH)
    return presented_device(chain[0])


class X509Issuer:
    """An Authentication Service whose credentials are certificates, verified offline against `anchors` (DER).

    `revocations` is consulted whenever a verdict is asked for at a time; see `coterie.identity.revocation`.
    """

    thread_safe: Final = True
    """Verifying certificates lets other threads run (`coterie.mls.credential`)."""

    def __init__(
        self, anchors: Iterable[bytes], *, revocations: RevocationLists | None = None
    ) -> None:
        self._verifier = ChainVerifier(anchors, revocations=revocations)

    def identify(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> DeviceId:
        """The device that the credential proves to own the key; `VerificationError` if it proves nothing."""
        try:
            return self._verifier.verify(_chain(credential), signature_key, now=now)
        except DecodeError as error:
            raise VerificationError(str(error.args[0]), rule=error.rule) from error

    def validate(
        self,
        credential: Credential,
        reference: UserId | DeviceId,
        *,
        signature_key: bytes,
        now: int | None,
    ) -> DeviceId:
        """See `Issuer`."""
        device = self.identify(credential, signature_key, now=now)
        if reference not in (device, device.user):
            msg = f"the credential is of {device}, not of {reference}"
            raise VerificationError(msg, rule=CredentialRule.REFERENCE)
        return device

    def authenticate(
        self, credential: Credential, signature_key: bytes, *, now: int | None
    ) -> None:
        """Raises `VerificationError` unless the credential proves whose the key is. See `Authenticator`."""
        self.identify(credential, signature_key, now=now)

    def client_id(self, credential: Credential) -> bytes:
        """The device's URI; raises `VerificationError` for a credential that names none. See `Authenticator`."""
        try:
            return presented_by(credential).uri.encode()
        except DecodeError as error:
            raise VerificationError(str(error.args[0]), rule=error.rule) from error

    def same_client(self, a: Credential, b: Credential) -> bool:
        """Whether both name one device; credentials that name none are of no client."""
        try:
            return presented_by(a) == presented_by(b)
        except (DecodeError, VerificationError):
            return False

    def same_user(self, a: Credential, b: Credential) -> bool:
        """Whether both name devices of one user."""
        try:
            return presented_by(a).user == presented_by(b).user
        except (DecodeError, VerificationError):
            return False

    def valid_successor(self, old: Credential, new: Credential) -> None:
        """Raises `VerificationError` unless the new credential is of the same device as the old one."""
        if not self.same_client(old, new):
            msg = "a member's credential can be replaced by one of the same device only"
            raise VerificationError(msg, rule=CredentialRule.SUCCESSOR)
