"""Whose a credential is, by the certificates of the Authentication Service: the directory's `Identify` (D-DIR-1)."""

from __future__ import annotations

from coterie.delivery.directory import Identify
from coterie.identity.issuer import X509Issuer
from coterie.mls.credential import Credential


def by_certificate(issuer: X509Issuer) -> Identify:
    """Verifies credentials offline against the issuer's anchors; users are `name@realm`."""

    def identify(credential: Credential, signature_key: bytes, now: int) -> tuple[bytes, bytes]:
        device = issuer.identify(credential, signature_key, now=now)
        return str(device.user).encode(), device.device.encode()

    return identify
