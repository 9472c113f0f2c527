"""The Authentication Service without HTTP: who gets a certificate, for which key, until when.

Order of a request: decode, realm, clock, signature, nonce, then the operation in one transaction. The signature is
checked before the nonce is stored, so that nobody can use up another's nonces. Each operation has the same effect when
it is repeated under a new nonce: a timeout is safe to retry.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from coterie.authentication.ca import CertificateAuthority, Revocation
from coterie.authentication.codes import code_hash, name_hash, new_code
from coterie.authentication.ledger import CertificateRow, Holder, Ledger, UserRow
from coterie.authentication.settings import DAY, HOUR, Settings
from coterie.errors import StateError, VerificationError
from coterie.identity.keys import verify_signature
from coterie.identity.names import DeviceId, UserId
from coterie.identity.x509 import load_certificate
from coterie.mls.credential import Certificate
from coterie.mls.secret import Secret
from coterie.transport import as_api
from coterie.transport.as_api import ErrorCode, Operation, Refused, SignedRequest

_LISTS_IN_AN_HOUR: Final = 20
"""Bits of a list's number below the hour."""

RequestType = TypeVar(
    "RequestType",
    as_api.EnrolRequest,
    as_api.RenewRequest,
    as_api.LinkRequest,
    as_api.DevicesRequest,
    as_api.RevokeRequest,
)


def _hour(seconds: int) -> int:
    return seconds - seconds % HOUR


class AuthenticationService:
    """One realm's service over its CA and its database.

    `code_key` (32 bytes) keys the hashes in the database; `clock` gives seconds since 1970.
    """

    def __init__(
        self,
        ca: CertificateAuthority,
        ledger: Ledger,
        *,
        code_key: Secret,
        clock: Callable[[], int],
        settings: Settings | None = None,
    ) -> None:
        self.ca = ca
        self.ledger = ledger
        self.settings = Settings() if settings is None else settings
        self._code_key = code_key
        self._clock = clock

    def close(self) -> None:
        """Closes the database; nothing can be asked of the service afterwards."""
        self.ledger.close()

    # -- for the operator

    def add_user(self, name: str) -> as_api.LinkCode:
        """Adds a user and gives the one-time code for the first device.

        Raises `DecodeError` for a name that is none, `StateError` for one that is taken, or was by a deleted user.
        """
        user = UserId(name, self.ca.realm)
        with self.ledger.transaction():
            user_id = self.ledger.add_user(user.name, name_hash(self._code_key, user.name))
            if user_id is None:
                msg = (
                    f"the name {name!r} is taken, or was by a user who has been deleted; "
                    "for a further device of an existing user ask for a code (coterie user code)"
                )
                raise StateError(msg)
            return self._new_code(user_id, user.name, self.settings.code_lifetime)

    def new_code(self, name: str) -> as_api.LinkCode:
        """Another one-time code for an existing user; `StateError` if there is none or the user is revoked."""
        with self.ledger.transaction():
            user_id, revoked = self._known_user(name)
            if revoked:
                msg = f"{name!r} is revoked; a revoked user gets no devices"
                raise StateError(msg)
            return self._new_code(user_id, name, self.settings.code_lifetime)

    def revoke_user(self, name: str, device: str | None = None) -> None:
        """Revokes a user for good, or one device; `StateError` if there is no such user or device."""
        with self.ledger.transaction():
            user_id, _ = self._known_user(name)
            if device is None:
                self.ledger.revoke_user(user_id, _hour(self._now()))
                return
            if device not in dict(self.ledger.devices(user_id)):
                msg = f"{name!r} has no device {device!r} that could be revoked"
                raise StateError(msg)
            self.ledger.revoke_device(device, _hour(self._now()))

    def delete_user(self, name: str) -> None:
        """Revokes a user and forgets the name; nobody gets it again. `StateError` if there is no such user."""
        with self.ledger.transaction():
            user_id, _ = self._known_user(name)
            self.ledger.delete_user(user_id, name_hash(self._code_key, name), _hour(self._now()))

    def users(self) -> tuple[list[UserRow], int]:
        """All users by name, and how many were deleted."""
        return self.ledger.users(self._now()), self.ledger.deleted_users()

    def devices_of(self, name: str) -> list[tuple[str, int]]:
        """A user's devices that are not revoked, with the end of each one's latest certificate."""
        return self.ledger.devices(self._known_user(name)[0])

    def _known_user(self, name: str) -> tuple[int, bool]:
        found = self.ledger.find_user(name)
        if found is None:
            msg = f"there is no user {name!r}"
            raise StateError(msg)
        return found

    # -- for anyone

    def realm_info(self) -> as_api.RealmInfo:
        """The realm and its trust anchor."""
        anchors = (Certificate(self.ca.certificate),)
        lifetime = self.settings.certificate_lifetime
        return as_api.RealmInfo(self.ca.realm.encode(), anchors, (as_api.VERSION,), lifetime)

    def revocation_list(self) -> bytes:
        """The list of revoked certificates in DER: made anew after a revocation and every `list_interval`."""
        now = self._now()
        with self.ledger.transaction():
            last = self.ledger.revocation_list()
            if (
                last
                and not last.stale
                and last.made_at <= now < last.made_at + self.settings.list_interval
            ):
                return last.der
            # Numbers follow the clock, so that they still grow after an older backup was restored.
            number = max(now // HOUR << _LISTS_IN_AN_HOUR, 0 if last is None else last.number + 1)
            entries = [Revocation(int(serial, 16), at) for serial, at in self.ledger.revoked(now)]
            der = self.ca.revocation_list(
                entries, number=number, now=_hour(now), lifetime=self.settings.list_lifetime
            )
            self.ledger.keep_revocation_list(number, _hour(now), der)
            self.ledger.expire(now)
            return der

    # -- for devices

    def enrol(self, signed: SignedRequest) -> as_api.Issued:
        """The first certificate of a new device, for a one-time code."""
        request = self._open(Operation.ENROL, as_api.EnrolRequest, signed)
        user, hashed = self._code_of(request)
        with self.ledger.transaction():
            code = self.ledger.find_code(hashed, self._now())
            if code is None or (code.used_by is not None and code.used_by != signed.signature_key):
                _refuse(
                    ErrorCode.BAD_CODE, "the code is wrong, used, or out of date; ask for another"
                )
            holder = self.ledger.holder(signed.signature_key)
            if code.used_by is None:
                if holder is not None:
                    _refuse(ErrorCode.KEY_IN_USE, "the key has a device already; make a new key")
                if len(self.ledger.devices(code.user_id)) >= self.settings.max_devices:
                    _refuse(ErrorCode.TOO_MANY, "the user has too many devices; revoke one first")
                device = DeviceId(user, secrets.token_hex(16))
                self.ledger.add_device(device.device, code.user_id)
                self.ledger.use_code(hashed, signed.signature_key)
                return self._issue(device, signed.signature_key)
            return self._repeat(holder, signed.signature_key)

    def _code_of(self, request: as_api.EnrolRequest) -> tuple[UserId, bytes]:
        try:
            user = UserId(request.user.decode(), self.ca.realm)
            return user, code_hash(self._code_key, user.name, request.code.decode())
        except UnicodeDecodeError:
            _refuse(ErrorCode.MALFORMED, "user and code must be UTF-8")

    def renew(self, signed: SignedRequest) -> as_api.Issued:
        """A new certificate of an enrolled device, for its key or a new one; the old key's end soon after."""
        request = self._open(Operation.RENEW, as_api.RenewRequest, signed)
        old, new = signed.signature_key, request.new_signature_key
        if new != old:
            self._check_possession(request, old)
        with self.ledger.transaction():
            successor = None if new == old else self.ledger.holder(new)
            if successor is not None and self._was_changed(old, successor):
                return self._repeat(successor, new)
            holder = self._holder(old)
            self._check_renewal(holder)
            if new != old:
                if successor is not None:
                    _refuse(
                        ErrorCode.KEY_IN_USE, "the new key has, or had, a device; make a new key"
                    )
                self.ledger.revoke_key(old, _hour(self._now()) + self.settings.key_overlap)
            return self._issue(DeviceId(UserId(holder.user, self.ca.realm), holder.device), new)

    def _was_changed(self, old: bytes, successor: Holder) -> bool:
        """Whether this very change of keys was made before: the request is repeated after a timeout."""
        holder = self.ledger.holder(old)
        return holder is not None and holder.device == successor.device

    def _check_current(self, holder: Holder) -> None:
        """A device whose certificate ended long ago may be lost; it brings in no other one, and gets no certificate."""
        if self._now() > holder.valid_until + self.settings.renewal_grace:
            _refuse(ErrorCode.EXPIRED, "the certificate ended too long ago; link the device again")

    def _check_renewal(self, holder: Holder) -> None:
        now = self._now()
        self._check_current(holder)
        if self.ledger.issued_since(holder.device, now - DAY) >= self.settings.certificates_per_day:
            msg = "the device asked for too many certificates today"
            raise Refused(ErrorCode.TOO_MANY, msg, retry_after=HOUR)

    def _check_possession(self, request: as_api.RenewRequest, old: bytes) -> None:
        change = as_api.KeyChange(request.header, old, request.new_signature_key)
        try:
            verify_signature(
                request.new_signature_key,
                as_api.key_change_to_be_signed(change),
                request.possession,
            )
        except VerificationError:
            _refuse(ErrorCode.BAD_SIGNATURE, "the new key did not sign the change of keys")

    def link(self, signed: SignedRequest) -> as_api.LinkCode:
        """A one-time code with which a further device of the same user can enrol."""
        self._open(Operation.LINK, as_api.LinkRequest, signed)
        with self.ledger.transaction():
            holder = self._holder(signed.signature_key)
            self._check_current(holder)
            return self._new_code(holder.user_id, holder.user, self.settings.link_code_lifetime)

    def devices(self, signed: SignedRequest) -> as_api.DeviceList:
        """The devices of the user whose device asks."""
        self._open(Operation.DEVICES, as_api.DevicesRequest, signed)
        holder = self._holder(signed.signature_key)
        found = self.ledger.devices(holder.user_id)
        return as_api.DeviceList(
            tuple(as_api.DeviceEntry(device.encode(), until) for device, until in found)
        )

    def revoke(self, signed: SignedRequest) -> as_api.DeviceList:
        """Revokes a device of the user whose device asks; gives the devices that are left."""
        request = self._open(Operation.REVOKE, as_api.RevokeRequest, signed)
        with self.ledger.transaction():
            holder = self._holder(signed.signature_key)
            device = request.device.decode(errors="replace")
            if device != holder.device:
                self._check_current(holder)
            if device not in dict(self.ledger.devices(holder.user_id)):
                _refuse(
                    ErrorCode.UNKNOWN_DEVICE,
                    "the user has no such device, or it is revoked already",
                )
            self.ledger.revoke_device(device, _hour(self._now()))
            left = self.ledger.devices(holder.user_id)
        return as_api.DeviceList(
            tuple(as_api.DeviceEntry(device.encode(), until) for device, until in left)
        )

    # -- what they share

    def _now(self) -> int:
        return self._clock()

    def _open(
        self, operation: Operation, kind: type[RequestType], signed: SignedRequest
    ) -> RequestType:
        request = kind.decode(signed.content)
        if request.header.realm != self.ca.realm.encode():
            _refuse(ErrorCode.WRONG_REALM, f"this is the service of {self.ca.realm}")
        now = self._now()
        if abs(now - request.header.issued_at) > as_api.MAX_CLOCK_DIFFERENCE:
            _refuse(ErrorCode.CLOCK, f"the request is not of now; the service's clock says {now}")
        try:
            verify_signature(
                signed.signature_key,
                as_api.to_be_signed(operation, signed.content),
                signed.signature,
            )
        except VerificationError:
            _refuse(
                ErrorCode.BAD_SIGNATURE, "the signature is not by the key that the request names"
            )
        # Two hours after the hour's beginning is past the last moment at which the request could be repeated.
        if not self.ledger.take_nonce(request.header.nonce, _hour(now) + 2 * HOUR):
            _refuse(ErrorCode.NONCE_USED, "the request was made before; sign a new one")
        return request

    def _holder(self, signature_key: bytes) -> Holder:
        holder = self.ledger.holder(signature_key)
        if holder is None:
            _refuse(ErrorCode.UNKNOWN_KEY, "no device has this key; enrol first")
        if holder.revoked:
            _refuse(ErrorCode.REVOKED, "the device or its key is revoked")
        return holder

    def _new_code(self, user_id: int, user: str, lifetime: int) -> as_api.LinkCode:
        code = new_code()
        # Times are stored to the hour: a code is valid for its lifetime at least.
        expires_at = _hour(self._now() + HOUR - 1) + lifetime
        self.ledger.add_code(code_hash(self._code_key, user, code), user_id, expires_at)
        return as_api.LinkCode(code.encode(), expires_at)

    def _repeat(self, holder: Holder | None, signature_key: bytes) -> as_api.Issued:
        latest = self.ledger.latest_certificate(signature_key)
        if holder is None or holder.revoked or latest is None:
            _refuse(ErrorCode.REVOKED, "the device or its key is revoked")
        device = DeviceId(UserId(holder.user, self.ca.realm), holder.device)
        return _issued(device, latest.der)

    def _issue(self, device: DeviceId, signature_key: bytes) -> as_api.Issued:
        hour = _hour(self._now())
        lifetime = self.settings.certificate_lifetime
        der = self.ca.issue(device, signature_key, now=hour, lifetime=lifetime)
        serial = f"{load_certificate(der).serial_number:x}"
        self.ledger.add_certificate(
            CertificateRow(serial, device.device, signature_key, der, hour, hour + lifetime)
        )
        return _issued(device, der)


def _issued(device: DeviceId, der: bytes) -> as_api.Issued:
    return as_api.Issued(
        device.device.encode(),
        device.user.name.encode(),
        device.user.realm.encode(),
        (Certificate(der),),
    )


def _refuse(code: ErrorCode, message: str) -> NoReturn:
    raise Refused(code, message)
