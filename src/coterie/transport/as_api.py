"""The requests and answers of the Authentication Service, which client and service share.

Every request that asks for something on a device's behalf is a `SignedRequest`: the encoded request, the public key and
a signature over both with a label that names the operation. There are no passwords and no sessions: the key that is, or
will be, in the certificate is the account. The header binds a request to one service (the realm), one moment and one
use (the nonce); repeating an operation under a new nonce is safe, as each has the same effect the second time.

Names and codes are UTF-8. Times are seconds since 1970. Requests are POST to `/v1/` and the operation, bodies are
TLS-encoded structs (`MEDIA_TYPE`), errors are a `Failure`. `GET /v1/realm` gives RealmInfo, `GET /v1/revocations` the
list of revoked certificates in DER, both to anyone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from coterie.errors import ServiceError
from coterie.mls.credential import Certificate
from coterie.mls.tls import Fixed, Struct, Uint, Uint16Enum

MEDIA_TYPE: Final = "application/vnd.coterie.v1"
LIST_MEDIA_TYPE: Final = "application/pkix-crl"
VERSION: Final = 1
"""The version of this protocol; it stands in every path."""
NONCE_LENGTH: Final = 16
MAX_CLOCK_DIFFERENCE: Final = 300
"""A request is refused whose `issued_at` is further than this many seconds from the service's clock."""
MAX_REQUEST: Final = 16 * 1024
"""Bytes in the body of a request."""


class Operation(StrEnum):
    """What is asked for; the value is the last part of the path."""

    ENROL = "enrol"
    RENEW = "renew"
    LINK = "link"
    DEVICES = "devices"
    REVOKE = "revoke"


class RequestHeader(Struct):
    """What every signed request starts with."""

    realm: bytes
    issued_at: Annotated[int, Uint(8)]
    nonce: Annotated[bytes, Fixed(NONCE_LENGTH)]


class EnrolRequest(Struct):
    """Asks for the first certificate of a new device; signed by the device's new key."""

    header: RequestHeader
    user: bytes
    code: bytes


class RenewRequest(Struct):
    """Asks for a new certificate, for the key that signs the request or for a new one.

    `possession` is the new key's signature over a `KeyChange`, empty where the key stays.
    """

    header: RequestHeader
    new_signature_key: bytes
    possession: bytes


class KeyChange(Struct):
    """What a new key signs to prove that its owner wants it to replace the old one."""

    header: RequestHeader
    old_signature_key: bytes
    new_signature_key: bytes


class LinkRequest(Struct):
    """Asks for a one-time code with which a further device of the same user can enrol."""

    header: RequestHeader


class DevicesRequest(Struct):
    """Asks for the user's own devices."""

    header: RequestHeader


class RevokeRequest(Struct):
    """Revokes a device of the same user, the one that signs included."""

    header: RequestHeader
    device: bytes


class SignedRequest(Struct):
    """An encoded request and who signed it: `signature` is over `to_be_signed(operation, content)`."""

    content: bytes
    signature_key: bytes
    signature: bytes


class Issued(Struct):
    """A certificate, as a chain for a credential, and the device that it names (32 hexadecimal digits)."""

    device: bytes
    user: bytes
    realm: bytes
    chain: tuple[Certificate, ...]


class LinkCode(Struct):
    """A one-time code and when it ends."""

    code: bytes
    expires_at: Annotated[int, Uint(8)]


class DeviceEntry(Struct):
    """A device and until when its latest certificate is valid."""

    device: bytes
    valid_until: Annotated[int, Uint(8)]


class DeviceList(Struct):
    """The devices of one user that are not revoked."""

    devices: tuple[DeviceEntry, ...]


class RealmInfo(Struct):
    """What anyone may know of the service: its realm, its trust anchors, the protocol versions it speaks."""

    realm: bytes
    anchors: tuple[Certificate, ...]
    versions: tuple[Annotated[int, Uint(2)], ...]
    certificate_lifetime: Annotated[int, Uint(8)]


class ErrorCode(Uint16Enum):
    """Why a request was refused."""

    MALFORMED = 1
    WRONG_REALM = 2
    CLOCK = 3
    NONCE_USED = 4
    BAD_SIGNATURE = 5
    BAD_CODE = 6
    UNKNOWN_KEY = 7
    REVOKED = 8
    KEY_IN_USE = 9
    TOO_MANY = 10
    UNKNOWN_DEVICE = 11
    EXPIRED = 12
    RATE_LIMITED = 13
    TOO_LARGE = 14
    UNKNOWN_PATH = 15
    UNAVAILABLE = 16


HTTP_STATUS: Final[dict[ErrorCode, int]] = {
    ErrorCode.MALFORMED: 400,
    ErrorCode.WRONG_REALM: 421,
    ErrorCode.CLOCK: 403,
    ErrorCode.NONCE_USED: 409,
    ErrorCode.BAD_SIGNATURE: 403,
    ErrorCode.BAD_CODE: 403,
    ErrorCode.UNKNOWN_KEY: 403,
    ErrorCode.REVOKED: 403,
    ErrorCode.KEY_IN_USE: 409,
    ErrorCode.TOO_MANY: 429,
    ErrorCode.UNKNOWN_DEVICE: 404,
    ErrorCode.EXPIRED: 403,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNKNOWN_PATH: 404,
    ErrorCode.UNAVAILABLE: 503,
}


class Failure(Struct):
    """The answer to a request that was refused; `message` is UTF-8, `retry_after` in seconds."""

    code: ErrorCode
    message: bytes
    retry_after: Annotated[int | None, Uint(4)] = None


class Refused(ServiceError):
    """The service refused a request: `code` says why, `retry_after` (seconds) whether waiting helps."""

    def __init__(self, code: ErrorCode, message: str, *, retry_after: int | None = None) -> None:
        rule = f"authentication/{code.name.lower().replace('_', '-')}"
        super().__init__(message, rule=rule, retry_after=retry_after)
        self.code = code

    def failure(self) -> Failure:
        """The struct that says the same on the wire."""
        seconds = None if self.retry_after is None else int(self.retry_after)
        return Failure(self.code, str(self.args[0]).encode(), seconds)

    @classmethod
    def of(cls, failure: Failure) -> Refused:
        """The exception for what a service answered."""
        message = failure.message.decode(errors="replace")
        return cls(failure.code, message, retry_after=failure.retry_after)


class _SignContent(Struct):
    """As RFC 9420 §5.1.2 frames what is signed, with labels that no group uses."""

    label: bytes
    content: bytes


def to_be_signed(operation: Operation, content: bytes) -> bytes:
    """What the device's key signs for a request."""
    label = f"Coterie 1.0 Authentication {operation.value}"
    return _SignContent(label.encode(), content).encode()


def key_change_to_be_signed(change: KeyChange) -> bytes:
    """What the new key signs for a change of keys."""
    return _SignContent(b"Coterie 1.0 Authentication key change", change.encode()).encode()
