"""Making a device one of a user's, with a one-time code."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from coterie.client.content import utf8
from coterie.client.identity import Identity, SigningKey, StoredAttempt, StoredIdentity
from coterie.client.vault import Vault
from coterie.mls.crypto import SignaturePrivateKey, suite_of
from coterie.mls.secret import Secret
from coterie.transport.authentication import AuthenticationClient


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a device is enrolled with: where it keeps things, at which server, for which suite."""

    vault: Vault
    server: str
    receipt_key: bytes
    cipher_suite: int

    async def enrol(
        self, service_of: Callable[[str], AuthenticationClient], user: str, code: str, now: int
    ) -> Identity:
        """The device, stored; `service_of` gives the service of a realm. Raises `ServiceError` with its reason."""
        realm = await service_of("").realm_info()
        service, name = service_of(realm.realm.decode()), user.split("@", maxsplit=1)[0]
        key = self._key_for(name, code)
        issued = await service.enrol(SigningKey(key), name, code)
        stored = StoredIdentity(
            self.server.encode(),
            issued.user,
            issued.realm,
            issued.device,
            self.cipher_suite,
            realm.anchors,
            issued.chain,
            key.private_bytes(),
            self.receipt_key,
            secrets.token_bytes(32),
            Secret(secrets.token_bytes(32)),
        )
        identity = Identity(stored)
        identity.revocations.update(await service.revocation_list())
        identity.issuer.authenticate(identity.credential, key.public, now=now)
        with self.vault.step() as step:
            step.save_identity(stored)
        return identity

    def _key_for(self, name: str, code: str) -> SignaturePrivateKey:
        """The key of this attempt; that of the one before, where it was the same: a code is good for one key.

        It is stored before it is sent, so that the answer may be lost.
        """
        suite, before = suite_of(self.cipher_suite), self.vault.attempt()
        wanted = (utf8(name), Secret(utf8(code)), self.cipher_suite)
        if before is not None and (before.user, before.code, before.cipher_suite) == wanted:
            return suite.load_signature_key(before.signature_key)
        key = suite.generate_signature_key(secrets.token_bytes)
        with self.vault.step() as step:
            step.save_attempt(StoredAttempt(*wanted, key.private_bytes()))
        return key
