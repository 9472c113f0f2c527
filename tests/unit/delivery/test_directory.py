"""The service's rules for key packages and inboxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pytest

from coterie.delivery.directory import Directory
from coterie.delivery.directory_store import SCHEMA, DirectoryTables
from coterie.delivery.limits import LOCAL, Limiter
from coterie.delivery.settings import Rate, Settings
from coterie.delivery.store import connect, migrate
from coterie.mls.framing import MLSMessage, PrivateMessage
from coterie.mls.key_package import KeyPackage
from coterie.mls.types import ContentType
from coterie.transport.api import (
    AckInbox,
    Claim,
    ClaimResult,
    ErrorCode,
    KeyPackageMessage,
    KeyPackageReference,
    MintTickets,
    PostEnvelope,
    Publish,
    PublishResult,
    ReadInboxResult,
    Withdraw,
    sha256,
)
from tests.delivery_bench import UNLIMITED, Raises
from tests.delivery_devices import Device, claim, identify_basic
from tests.delivery_model import Clock, fresh_id

T = TypeVar("T")
DAY = 86400


class Desk:
    """A directory over one connection."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = Clock()
        settings = settings or Settings(rates=UNLIMITED)
        limiter = Limiter(settings.rates, self.clock)
        self.directory = Directory(settings, limiter, identify_basic, self.clock)
        self.db = connect(":memory:")
        migrate(self.db, SCHEMA)
        self.woken: tuple[bytes, ...] = ()

    def run(self, function: Callable[[DirectoryTables], T]) -> T:
        self.db.execute("BEGIN")
        try:
            result = function(DirectoryTables(self.db))
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return result

    def device(self, user: bytes = b"alice@x", device: bytes = b"phone", suite: int = 1) -> Device:
        made = Device(user, device, suite, now=self.clock.now)
        self.run(lambda t: self.directory.open_inbox(t, made.open(), LOCAL))
        return made

    def publish(self, request: Publish) -> PublishResult:
        packages = self.directory.verify_publish(request)
        return self.run(lambda t: self.directory.publish(t, request, packages))

    def claim(self, request: Claim) -> ClaimResult:
        result, woken = self.run(lambda t: self.directory.claim(t, request, LOCAL))
        self.woken = woken.inbox_ids
        return result

    def post(self, request: PostEnvelope) -> int | None:
        return self.run(lambda t: self.directory.post(t, request, LOCAL))[1]

    def read(self, device: Device, from_number: int = 0) -> ReadInboxResult:
        return self.run(lambda t: self.directory.read(t, device.read(from_number)))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_package_is_claimed_once(desk: Desk) -> None:
    alice = desk.device()
    published = alice.publish(3)
    desk.publish(published)
    claimed = [desk.claim(claim(alice.user)).packages[0].key_package for _ in range(3)]
    assert claimed == [p.message for p in published.key_packages]
    with Raises(ErrorCode.NONE_LEFT, "D-DIR-3"):
        desk.claim(claim(alice.user))


def test_a_claimed_package_cannot_be_published_again(desk: Desk) -> None:
    alice = desk.device()
    request = alice.publish(1)
    desk.publish(request)
    desk.claim(claim(alice.user))
    desk.publish(request)
    with Raises(ErrorCode.NONE_LEFT, "D-DIR-3"):
        desk.claim(claim(alice.user))


def test_the_last_resort_package_never_runs_out_and_is_used_last(desk: Desk) -> None:
    alice = desk.device()
    request = alice.publish(1, last_resort=1)
    desk.publish(request)
    first, second, third = (desk.claim(claim(alice.user)).packages[0] for _ in range(3))
    assert first.key_package == request.key_packages[0].message
    assert second.key_package == third.key_package == request.last_resort[0].message
    assert second.ticket != third.ticket
    assert desk.read(alice).stock[0].last_resort_used == 1


def test_a_new_last_resort_package_replaces_the_old_one(desk: Desk) -> None:
    alice = desk.device()
    desk.publish(alice.publish(0, last_resort=1))
    newer = alice.publish(0, last_resort=1)
    desk.publish(newer)
    assert desk.claim(claim(alice.user)).packages[0].key_package == newer.last_resort[0].message


def test_a_claim_gives_one_package_of_each_device(desk: Desk) -> None:
    devices = [desk.device(device=name) for name in (b"phone", b"tablet")]
    for device in devices:
        desk.publish(device.publish(2))
    assert len(desk.claim(claim(b"alice@x")).packages) == 2


def test_a_claim_takes_the_first_suite_that_the_device_has(desk: Desk) -> None:
    old, new = desk.device(device=b"old", suite=2), desk.device(device=b"new", suite=1)
    desk.publish(old.publish(1))
    desk.publish(new.publish(1))
    suites = []
    for package in desk.claim(claim(b"alice@x", 1, 2)).packages:
        body = MLSMessage.read(package.key_package).body
        assert isinstance(body, KeyPackage)
        suites.append(body.cipher_suite)
    assert sorted(suites) == [1, 2]


def test_an_unknown_name_is_unknown(desk: Desk) -> None:
    with Raises(ErrorCode.UNKNOWN_NAME, "D-DIR-3"):
        desk.claim(claim(b"nobody@x"))


def test_an_expired_package_is_not_handed_out(desk: Desk) -> None:
    alice = desk.device()
    desk.publish(alice.publish(1, days=1))
    desk.clock.forward(2 * DAY)
    with Raises(ErrorCode.NONE_LEFT, "D-DIR-3"):
        desk.claim(claim(alice.user))
    desk.run(desk.directory.sweep)
    with Raises(ErrorCode.UNKNOWN_NAME, "D-DIR-3"):
        desk.claim(claim(alice.user))


@pytest.mark.parametrize("days", [-1, 4000])
def test_a_package_out_of_its_lifetime_is_not_published(desk: Desk, days: float) -> None:
    alice = desk.device()
    with Raises(ErrorCode.BAD_KEY_PACKAGE, "D-DIR-1"):
        desk.publish(alice.publish(1, days=days) if days > 0 else alice.publish(1, days=-0.01))


def test_a_package_of_another_user_is_refused(desk: Desk) -> None:
    alice, bob = desk.device(), desk.device(b"bob@x")
    with Raises(ErrorCode.BAD_CREDENTIAL, "D-DIR-1"):
        desk.publish(bob.publish(1).replace(name=alice.user))


def test_a_package_for_another_inbox_is_refused(desk: Desk) -> None:
    alice, other = desk.device(), desk.device(device=b"other")
    request = alice.publish(1).replace(inbox_id=other.inbox_id, token=other.token)
    with Raises(ErrorCode.BAD_KEY_PACKAGE, "D-DIR-1"):
        desk.publish(request)


def test_a_package_with_a_broken_signature_is_refused(desk: Desk) -> None:
    alice = desk.device()
    request = alice.publish(1)
    message = bytearray(request.key_packages[0].message)
    message[-1] ^= 1
    broken = request.replace(key_packages=(KeyPackageMessage(bytes(message)),))
    with Raises(ErrorCode.BAD_KEY_PACKAGE, "D-DIR-1"):
        desk.publish(broken)


def test_a_batch_is_published_whole_or_not_at_all(desk: Desk) -> None:
    alice = desk.device()
    good = alice.publish(1)
    mixed = good.replace(key_packages=(*good.key_packages, KeyPackageMessage(b"junk")))
    with Raises(ErrorCode.BAD_KEY_PACKAGE, "D-DIR-1"):
        desk.publish(mixed)
    with Raises(ErrorCode.UNKNOWN_NAME, "D-DIR-3"):
        desk.claim(claim(alice.user))


def test_one_batch_has_one_signature_key(desk: Desk) -> None:
    alice = desk.device()
    first = alice.publish(1)
    twin = Device(alice.user, alice.device, now=alice.now, inbox_id=alice.inbox_id)
    mixed = first.replace(key_packages=(*first.key_packages, twin.message()))
    with Raises(ErrorCode.BAD_KEY_PACKAGE, "D-DIR-1"):
        desk.publish(mixed)


def test_only_the_owner_of_the_inbox_publishes(desk: Desk) -> None:
    alice = desk.device()
    with Raises(ErrorCode.BAD_TOKEN, "D-INB-1"):
        desk.publish(alice.publish(1).replace(token=bytes(32)))


def test_a_withdrawn_package_is_not_handed_out_and_not_taken_again(desk: Desk) -> None:
    alice = desk.device()
    request = alice.publish(1)
    desk.publish(request)
    package = MLSMessage.read(request.key_packages[0].message).body
    assert isinstance(package, KeyPackage)
    reference = KeyPackageReference(package.reference())
    withdraw = Withdraw(alice.inbox_id, alice.token, (reference,))
    desk.run(lambda t: desk.directory.withdraw(t, withdraw, LOCAL))
    desk.publish(request)
    with Raises(ErrorCode.NONE_LEFT, "D-DIR-3"):
        desk.claim(claim(alice.user))


def test_the_owner_hears_when_few_packages_are_left() -> None:
    desk = Desk(Settings(rates=UNLIMITED, low_water=2))
    alice = desk.device()
    desk.publish(alice.publish(4))
    desk.claim(claim(alice.user))
    assert not desk.woken
    desk.claim(claim(alice.user))
    assert desk.woken == (alice.inbox_id,)


def test_nobody_drains_a_user() -> None:
    desk = Desk(Settings(rates=replace(UNLIMITED, claims_of_target=Rate(2, 3600.0))))
    alice = desk.device()
    request = alice.publish(5, last_resort=1)
    desk.publish(request)
    claimed = [desk.claim(claim(alice.user)).packages[0].key_package for _ in range(6)]
    assert claimed[2:] == [request.last_resort[0].message] * 4
    assert desk.read(alice).stock[0].available == 3


def test_too_many_packages_of_one_device_are_refused() -> None:
    desk = Desk(Settings(rates=UNLIMITED, max_key_packages=3))
    alice = desk.device()
    desk.publish(alice.publish(3))
    with Raises(ErrorCode.QUOTA, "D-DIR-1"):
        desk.publish(alice.publish(1))
    with Raises(ErrorCode.TOO_LARGE, "D-DIR-1"):
        desk.publish(alice.publish(4))


# -- inboxes


def ticket_for(desk: Desk, alice: Device) -> bytes:
    desk.publish(alice.publish(1))
    return desk.claim(claim(alice.user)).packages[0].ticket


def test_one_claim_is_good_for_one_envelope(desk: Desk) -> None:
    alice = desk.device()
    ticket = ticket_for(desk, alice)
    assert desk.post(alice.envelope(ticket, 1)) == 1
    with Raises(ErrorCode.TICKET_USED, "D-INB-3"):
        desk.post(alice.envelope(ticket, 2))
    assert [item.ciphertext[0] for item in desk.read(alice).items] == [1]


def test_a_repeated_envelope_is_stored_once(desk: Desk) -> None:
    alice = desk.device()
    envelope = alice.envelope(ticket_for(desk, alice))
    assert desk.post(envelope) == 1
    assert desk.post(envelope) is None
    assert len(desk.read(alice).items) == 1


def test_an_envelope_without_a_ticket_is_refused(desk: Desk) -> None:
    alice = desk.device()
    with Raises(ErrorCode.BAD_TOKEN, "D-INB-3"):
        desk.post(alice.envelope(fresh_id()))


def test_a_ticket_opens_no_other_inbox(desk: Desk) -> None:
    alice, bob = desk.device(), desk.device(b"bob@x")
    ticket = ticket_for(desk, alice)
    with Raises(ErrorCode.BAD_TOKEN, "D-INB-3"):
        desk.post(bob.envelope(ticket))


def test_the_owner_mints_tickets(desk: Desk) -> None:
    alice = desk.device()
    ticket = fresh_id()
    mint = MintTickets(alice.inbox_id, alice.token, (sha256(ticket),))
    desk.run(lambda t: desk.directory.mint(t, mint, LOCAL))
    assert desk.post(alice.envelope(ticket)) == 1
    with Raises(ErrorCode.BAD_TOKEN, "D-INB-1"):
        desk.run(lambda t: desk.directory.mint(t, mint.replace(token=bytes(32)), LOCAL))


def test_an_envelope_that_is_not_padded_is_refused(desk: Desk) -> None:
    alice = desk.device()
    with Raises(ErrorCode.BAD_SIZE, "D-INB-5"):
        desk.post(alice.envelope(fresh_id(), size=5000))


def test_an_inbox_is_read_by_its_owner_only(desk: Desk) -> None:
    alice = desk.device()
    with Raises(ErrorCode.BAD_TOKEN, "D-INB-1"):
        desk.run(lambda t: desk.directory.read(t, alice.read().replace(token=bytes(32))))


def test_what_is_acknowledged_is_deleted(desk: Desk) -> None:
    alice = desk.device()
    for n in range(3):
        desk.post(alice.envelope(ticket_for(desk, alice), n))
    ack = AckInbox(alice.inbox_id, alice.token, 2)
    desk.run(lambda t: desk.directory.acknowledge(t, ack))
    assert [item.number for item in desk.read(alice).items] == [3]


def test_an_inbox_is_opened_once_by_one_token(desk: Desk) -> None:
    alice = desk.device()
    desk.run(lambda t: desk.directory.open_inbox(t, alice.open(), LOCAL))
    with Raises(ErrorCode.ID_REUSED, "D-INB-2"):
        other = alice.open().replace(token_hash=fresh_id())
        desk.run(lambda t: desk.directory.open_inbox(t, other, LOCAL))


def test_an_unknown_inbox_is_unknown(desk: Desk) -> None:
    stranger = Device(b"x")
    with Raises(ErrorCode.UNKNOWN_INBOX, "D-INB-1"):
        desk.read(stranger)


def test_envelopes_and_tickets_are_dropped_by_age(desk: Desk) -> None:
    alice = desk.device()
    kept = ticket_for(desk, alice)
    desk.post(alice.envelope(ticket_for(desk, alice)))
    desk.clock.forward(32 * DAY)
    desk.run(desk.directory.sweep)
    assert desk.read(alice).items == ()
    with Raises(ErrorCode.BAD_TOKEN, "D-INB-3"):
        desk.post(alice.envelope(kept))


def test_a_full_inbox_refuses(desk: Desk) -> None:
    desk = Desk(Settings(rates=UNLIMITED, max_envelopes=1))
    alice = desk.device()
    first, second = ticket_for(desk, alice), ticket_for(desk, alice)
    desk.post(alice.envelope(first))
    with Raises(ErrorCode.QUOTA, "D-INB-9"):
        desk.post(alice.envelope(second))


def test_tickets_that_are_not_used_are_limited() -> None:
    desk = Desk(Settings(rates=UNLIMITED, max_tickets=2))
    alice = desk.device()
    mint = MintTickets(alice.inbox_id, alice.token, (fresh_id(), fresh_id()))
    desk.run(lambda t: desk.directory.mint(t, mint, LOCAL))
    with Raises(ErrorCode.QUOTA, "D-INB-4"):
        desk.run(lambda t: desk.directory.mint(t, mint, LOCAL))


@pytest.mark.parametrize("name", [b"", b"a" * 513])
def test_a_name_is_neither_empty_nor_endless(desk: Desk, name: bytes) -> None:
    alice = desk.device()
    with Raises(ErrorCode.MALFORMED, "D-DIR-1"):
        desk.publish(alice.publish(1).replace(name=name))


def test_a_message_that_is_no_key_package_is_refused(desk: Desk) -> None:
    alice = desk.device()
    private = PrivateMessage(b"group", 0, ContentType.APPLICATION, b"", b"x", b"y")
    message = KeyPackageMessage(MLSMessage.of(private).encode())
    with Raises(ErrorCode.BAD_KEY_PACKAGE, "D-DIR-1"):
        desk.publish(alice.publish(1).replace(key_packages=(message,)))
