"""The rules of docs/delivery-protocol.md for the directory and the inboxes (sections 12 and 13).

A Publish is admitted, verified (`verify_publish`, which may run on another thread), then stored in its transaction.
Whose a credential is says an injected `Identify`; whoever claims or posts an envelope shows no credential at all.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from coterie.delivery.directory_store import DirectoryTables, Inbox, Package
from coterie.delivery.limits import Limiter, Requester
from coterie.delivery.settings import HOUR, Settings
from coterie.errors import CoterieError, DecodeError
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import find_extension
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import KeyPackage
from coterie.mls.types import ExtensionType
from coterie.transport.api import (
    INBOX_EXTENSION,
    AckInbox,
    Claim,
    Claimed,
    ClaimResult,
    Done,
    ErrorCode,
    InboxInfo,
    MintTickets,
    OpenInbox,
    PostEnvelope,
    Publish,
    PublishResult,
    ReadInbox,
    ReadInboxResult,
    Withdraw,
    sha256,
    token_fits,
)
from coterie.transport.refusal import Refused

Identify = Callable[[Credential, bytes, int], tuple[bytes, bytes]]
"""Given a credential, the signature key and the time, returns the user's name and the device's, or raises
`VerificationError`: the Authentication Service's roots judge, offline (D-DIR-1)."""

ENVELOPE_SIZES: Final = tuple(4096 << k for k in range(7))
MAX_NAME: Final = 512


@dataclass(frozen=True, slots=True)
class Woken:
    """Inboxes whose owners should hear of their stock."""

    inbox_ids: tuple[bytes, ...]


class Directory:
    """The service's side of key packages and inboxes."""

    def __init__(
        self,
        settings: Settings,
        limiter: Limiter,
        identify: Identify,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._limiter = limiter
        self._identify = identify
        self._clock = clock

    # -- inboxes

    def open_inbox(self, tables: DirectoryTables, request: OpenInbox, requester: Requester) -> Done:
        """Makes an inbox (D-INB-2)."""
        inbox = tables.inbox(request.inbox_id)
        if inbox is None:
            self._limiter.charge("inboxes", requester)
            tables.add_inbox(request.inbox_id, request.token_hash)
        elif not hmac.compare_digest(inbox.token_hash, request.token_hash):
            raise Refused(
                ErrorCode.ID_REUSED,
                "an inbox with this id exists; draw another id at random",
                rule="D-INB-2",
            )
        return Done()

    def mint(self, tables: DirectoryTables, request: MintTickets, requester: Requester) -> Done:
        """Accepts tickets that the owner made (D-INB-4)."""
        inbox = self._owned(tables, request.inbox_id, request.token)
        self._limiter.charge("publishes", requester)
        count = tables.minted_tickets(inbox.key) + len(request.ticket_hashes)
        if count > self._settings.max_tickets:
            raise Refused(
                ErrorCode.QUOTA,
                f"{count} tickets that are not used; at most {self._settings.max_tickets} are kept",
                rule="D-INB-4",
                retry_after=HOUR,
            )
        expires = self._hour() + -(-self._settings.ticket_age // HOUR)
        for ticket_hash in request.ticket_hashes:
            tables.add_ticket(inbox.key, ticket_hash, expires, minted=True)
        return Done()

    def post(
        self, tables: DirectoryTables, request: PostEnvelope, requester: Requester
    ) -> tuple[Done, int | None]:
        """Puts an envelope into an inbox and uses up its ticket (D-INB-3); None for a repetition."""
        size = len(request.ciphertext)
        if size not in ENVELOPE_SIZES or len(request.kem_output) > 2048:
            raise Refused(
                ErrorCode.BAD_SIZE,
                f"an envelope of {size} bytes; it must be padded to one of {ENVELOPE_SIZES}",
                rule="D-INB-5",
            )
        inbox = self._inbox(tables, request.inbox_id)
        ticket_hash, envelope_hash = sha256(request.ticket), sha256(request.encode())
        ticket = tables.ticket(inbox.key, ticket_hash)
        if ticket is None:
            raise Refused(
                ErrorCode.BAD_TOKEN, "this inbox has no such ticket, or no longer", rule="D-INB-3"
            )
        if ticket[0] is not None:
            return self._posted_before(ticket[0], envelope_hash), None
        self._limiter.charge("envelopes", requester)
        if tables.count_envelopes(inbox.key) >= self._settings.max_envelopes:
            raise Refused(ErrorCode.QUOTA, "the inbox is full", rule="D-INB-9", retry_after=HOUR)
        tables.use_ticket(inbox.key, ticket_hash, envelope_hash)
        number = tables.add_envelope(
            inbox.key, request.kem_output, request.ciphertext, self._hour()
        )
        return Done(), number

    @staticmethod
    def _posted_before(used_by: bytes, envelope_hash: bytes) -> Done:
        if used_by != envelope_hash:
            raise Refused(
                ErrorCode.TICKET_USED,
                "another envelope has used this ticket; claim a key package anew",
                rule="D-INB-3",
            )
        return Done()

    def read(self, tables: DirectoryTables, request: ReadInbox) -> ReadInboxResult:
        """Answers envelopes and the stock of key packages (D-INB-9)."""
        inbox = self._owned(tables, request.inbox_id, request.token)
        items = tables.envelopes(inbox.key, request.from_number, self._settings.max_read)
        next_number = items[-1].number + 1 if items else max(request.from_number, 1)
        return ReadInboxResult(
            tuple(items), next_number, tables.stock(inbox.key, int(self._clock()))
        )

    def acknowledge(self, tables: DirectoryTables, request: AckInbox) -> Done:
        """Deletes what the owner has (D-INB-9)."""
        inbox = self._owned(tables, request.inbox_id, request.token)
        tables.delete_envelopes(inbox.key, request.through_number)
        return Done()

    # -- key packages

    def admit_publish(
        self, tables: DirectoryTables, request: Publish, requester: Requester
    ) -> None:
        """Refuses and counts a batch before its hundreds of signatures and certificates are verified."""
        self._owned(tables, request.inbox_id, request.token)
        self._limiter.charge("publishes", requester)

    def verify_publish(self, request: Publish) -> list[Package]:
        """Checks every package of a batch (D-DIR-1); needs no storage."""
        count = len(request.key_packages) + len(request.last_resort)
        if not 0 < count <= self._settings.max_key_packages:
            raise Refused(
                ErrorCode.TOO_LARGE,
                f"{count} key packages; one to {self._settings.max_key_packages} make a batch",
                rule="D-DIR-1",
            )
        if not 0 < len(request.name) <= MAX_NAME:
            raise Refused(ErrorCode.MALFORMED, f"a name has 1 to {MAX_NAME} bytes", rule="D-DIR-1")
        ordinary = [self._verify(request, p.message, last=False) for p in request.key_packages]
        last = [self._verify(request, p.message, last=True) for p in request.last_resort]
        packages = [package for package, _ in (*ordinary, *last)]
        if len({key for _, key in (*ordinary, *last)}) > 1:
            raise Refused(
                ErrorCode.BAD_KEY_PACKAGE,
                "the packages of one batch have different signature keys",
                rule="D-DIR-1",
            )
        return packages

    def _verify(self, request: Publish, message: bytes, *, last: bool) -> tuple[Package, bytes]:
        now = int(self._clock())
        package = self._valid_package(message, request.inbox_id, now)
        leaf = package.leaf_node
        try:
            name, device = self._identify(leaf.credential, leaf.signature_key, now)
        except CoterieError as error:
            raise Refused(ErrorCode.BAD_CREDENTIAL, str(error), rule="D-DIR-1") from error
        if name != request.name:
            raise Refused(
                ErrorCode.BAD_CREDENTIAL,
                "the credential is of another user than the name to publish under",
                rule="D-DIR-1",
            )
        not_after = 0 if leaf.lifetime is None else leaf.lifetime.not_after
        reference = package.reference()
        suite = int(package.cipher_suite)
        return Package(name, device, suite, reference, not_after, last, message), leaf.signature_key

    def _valid_package(self, message: bytes, inbox_id: bytes, now: int) -> KeyPackage:
        try:
            package = MLSMessage.read(message).body
            if not isinstance(package, KeyPackage):
                raise DecodeError("the message is not a key package")
            package.validate(
                suite_of(package.cipher_suite),
                AcceptAnything(),
                now=now,
                max_lifetime=self._settings.key_package_lifetime,
            )
            info = find_extension(package.extensions, ExtensionType(INBOX_EXTENSION), InboxInfo)
            if info is None or info.inbox_id != inbox_id:
                raise DecodeError(
                    "the key package does not name this inbox in its extension 0xF0C2"
                )
        except CoterieError as error:
            raise Refused(ErrorCode.BAD_KEY_PACKAGE, str(error), rule="D-DIR-1") from error
        return package

    def publish(
        self,
        tables: DirectoryTables,
        request: Publish,
        packages: list[Package],
    ) -> PublishResult:
        """Stores the verified packages of a batch (D-DIR-2, D-DIR-7)."""
        inbox = self._owned(tables, request.inbox_id, request.token)
        added = sum(tables.add_package(inbox.key, package) for package in packages)
        for package in packages:
            if package.last_resort:
                tables.retire_last_resort(inbox.key, package)
        if added and tables.count_packages(inbox.key) > self._settings.max_key_packages:
            raise Refused(
                ErrorCode.QUOTA,
                f"more than {self._settings.max_key_packages} key packages of one device",
                rule="D-DIR-1",
                retry_after=HOUR,
            )
        return PublishResult(tables.stock(inbox.key, int(self._clock())))

    def withdraw(
        self, tables: DirectoryTables, request: Withdraw, requester: Requester
    ) -> PublishResult:
        """Takes packages back (D-DIR-8)."""
        inbox = self._owned(tables, request.inbox_id, request.token)
        self._limiter.charge("publishes", requester)
        for reference in request.references:
            tables.withdraw(inbox.key, reference.reference)
        return PublishResult(tables.stock(inbox.key, int(self._clock())))

    def claim(
        self, tables: DirectoryTables, request: Claim, requester: Requester
    ) -> tuple[ClaimResult, Woken]:
        """Claims one package of each device of a user (D-DIR-3, D-DIR-4)."""
        self._limiter.charge("claims", requester)
        if not tables.knows(request.name):
            raise Refused(
                ErrorCode.UNKNOWN_NAME,
                "no key packages are published under this name",
                rule="D-DIR-3",
            )
        spare = not self._limiter.allows("claims_of_target", request.name)
        claimed, woken = [], []
        for device in tables.devices(request.name):
            taken = self._take(tables, request, device, only_last_resort=spare)
            if taken is not None:
                package, inbox = taken
                claimed.append(package)
                woken += self._low(tables, inbox)
        if not claimed:
            raise Refused(
                ErrorCode.NONE_LEFT,
                "the user has no key package left of the suites asked for",
                rule="D-DIR-3",
                retry_after=HOUR,
            )
        return ClaimResult(tuple(claimed)), Woken(tuple(woken))

    def _take(
        self, tables: DirectoryTables, request: Claim, device: bytes, *, only_last_resort: bool
    ) -> tuple[Claimed, int] | None:
        now = int(self._clock())
        kinds = (True,) if only_last_resort else (False, True)
        for last_resort in kinds:
            for suite in request.cipher_suites[:64]:
                taken = tables.take(
                    request.name, device, int(suite), last_resort=last_resort, now=now
                )
                if taken is not None:
                    inbox, data, not_after = taken
                    ticket = os.urandom(32)
                    expires = not_after // HOUR + 1
                    tables.add_ticket(inbox, sha256(ticket), expires, minted=False)
                    return Claimed(data, ticket), inbox
        return None

    def _low(self, tables: DirectoryTables, inbox: int) -> list[bytes]:
        """The inbox's id if its owner should publish anew (D-DIR-6)."""
        stock = tables.stock(inbox, int(self._clock()))
        low = not stock or any(
            s.available <= self._settings.low_water or s.last_resort_used for s in stock
        )
        return [tables.inbox_id(inbox)] if low else []

    def sweep(self, tables: DirectoryTables) -> int:
        """Drops what is too old (D-INB-9, D-INB-3, D-DIR-5)."""
        hour = self._hour()
        envelope_hour = hour - -(-self._settings.inbox_age // HOUR)
        return tables.drop_old(int(self._clock()), hour, envelope_hour)

    # -- what they share

    def _hour(self) -> int:
        return int(self._clock()) // HOUR

    @staticmethod
    def _inbox(tables: DirectoryTables, inbox_id: bytes) -> Inbox:
        inbox = tables.inbox(inbox_id)
        if inbox is None:
            raise Refused(
                ErrorCode.UNKNOWN_INBOX, "there is no such inbox; open it first", rule="D-INB-1"
            )
        return inbox

    def _owned(self, tables: DirectoryTables, inbox_id: bytes, token: bytes) -> Inbox:
        inbox = self._inbox(tables, inbox_id)
        if not token_fits(token, inbox.token_hash):
            raise Refused(ErrorCode.BAD_TOKEN, "the token is not that of the inbox", rule="D-INB-1")
        return inbox
