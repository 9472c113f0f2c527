"""The client's side of the Authentication Service over HTTP: signs requests, reads answers.

The device's private key stays with its owner: a `DeviceKey` signs what it is given. Answers are not secret and are
verified by whoever uses them: certificates against the anchors, the revocation list against their keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol, TypeVar

import httpx

from coterie.errors import DecodeError, ServiceError
from coterie.mls.tls import Struct
from coterie.transport import as_api
from coterie.transport.as_api import Operation, Refused, RequestHeader
from coterie.transport.asking import ask, wrong_scheme

Answer = TypeVar("Answer", bound=Struct)


class DeviceKey(Protocol):
    """A device's signature key, wherever its private half is kept."""

    @property
    def signature_key(self) -> bytes:
        """The public key as MLS encodes it."""

    def sign(self, content: bytes) -> bytes:
        """The signature over `content` by the key's own algorithm, as in MLS."""


class AuthenticationClient:
    """Calls one Authentication Service at `base_url` over an `httpx.AsyncClient`.

    `clock` gives seconds since 1970. Every method raises `Refused` where the service says no, `ServiceError` where it
    cannot be reached (with `retry_after`, unless the address has the wrong scheme), and may be repeated after either.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        realm: str,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._http = http
        self._base = base_url.rstrip("/")
        self._realm = realm
        self._clock = clock
        self._has_answered = False

    async def realm_info(self) -> as_api.RealmInfo:
        """The realm and its anchors. They are as trustworthy as the connection: pin them."""
        return _decode(as_api.RealmInfo, await self._call("GET", "realm", None))

    async def revocation_list(self) -> bytes:
        """The list of revoked certificates in DER."""
        return await self._call("GET", "revocations", None)

    async def enrol(self, key: DeviceKey, user: str, code: str) -> as_api.Issued:
        """The first certificate of this device; `user` without the realm."""
        request = as_api.EnrolRequest(self._header(), user.encode(), code.encode())
        return await self._signed(Operation.ENROL, key, request, as_api.Issued)

    async def renew(self, key: DeviceKey, new_key: DeviceKey | None = None) -> as_api.Issued:
        """A new certificate for this key, or for a new one in its place."""
        header = self._header()
        public, possession = key.signature_key, b""
        if new_key is not None and new_key.signature_key != public:
            change = as_api.KeyChange(header, public, new_key.signature_key)
            public = new_key.signature_key
            possession = new_key.sign(as_api.key_change_to_be_signed(change))
        request = as_api.RenewRequest(header, public, possession)
        return await self._signed(Operation.RENEW, key, request, as_api.Issued)

    async def link(self, key: DeviceKey) -> as_api.LinkCode:
        """A one-time code for a further device of the same user."""
        request = as_api.LinkRequest(self._header())
        return await self._signed(Operation.LINK, key, request, as_api.LinkCode)

    async def devices(self, key: DeviceKey) -> as_api.DeviceList:
        """The user's own devices."""
        request = as_api.DevicesRequest(self._header())
        return await self._signed(Operation.DEVICES, key, request, as_api.DeviceList)

    async def revoke(self, key: DeviceKey, device: str) -> as_api.DeviceList:
        """Revokes a device of the same user, perhaps this one; gives those that are left."""
        request = as_api.RevokeRequest(self._header(), device.encode())
        return await self._signed(Operation.REVOKE, key, request, as_api.DeviceList)

    def _header(self) -> RequestHeader:
        nonce = secrets.token_bytes(as_api.NONCE_LENGTH)
        return RequestHeader(self._realm.encode(), self._clock(), nonce)

    async def _signed(
        self, operation: Operation, key: DeviceKey, request: Struct, answer: type[Answer]
    ) -> Answer:
        content = request.encode()
        signature = key.sign(as_api.to_be_signed(operation, content))
        signed = as_api.SignedRequest(content, key.signature_key, signature)
        return _decode(answer, await self._call("POST", operation.value, signed.encode()))

    async def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = as_api.MEDIA_TYPE
        url = f"{self._base}/v{as_api.VERSION}/{path}"
        try:
            response, answer = await ask(
                self._http,
                method,
                url,
                body,
                whose="the Authentication Service's",
                headers=headers,
            )
        except (httpx.HTTPError, TimeoutError) as error:
            wrong = None if self._has_answered else await wrong_scheme(self._base, error)
            if wrong is not None:
                raise ServiceError(wrong) from error
            msg = f"the Authentication Service at {self._base} cannot be reached: {error}"
            raise ServiceError(msg, retry_after=5) from error
        self._has_answered = True
        if response.status_code == 200:
            return answer
        raise _refused(response, answer)


def _decode(kind: type[Answer], body: bytes) -> Answer:
    try:
        return kind.decode(body)
    except DecodeError as error:
        msg = f"the Authentication Service's answer is no {kind.__name__}: {error}"
        raise ServiceError(msg, rule=error.rule) from error


def _refused(response: httpx.Response, body: bytes) -> ServiceError:
    try:
        return Refused.of(as_api.Failure.decode(body))
    except DecodeError:
        retry = 30.0 if response.status_code >= 500 else None
        msg = f"the Authentication Service answered with HTTP status {response.status_code}"
        return ServiceError(msg, retry_after=retry)
