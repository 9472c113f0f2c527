"""The Authentication Service: who gets a certificate, and who does not; over its own HTTP face, in memory."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from coterie.authentication.app import create_app
from coterie.authentication.ledger import SCHEMA_VERSION, Ledger
from coterie.authentication.settings import DAY, HOUR, Settings
from coterie.errors import DecodeError, ServiceError, StateError, StorageError
from coterie.identity.names import DeviceId, UserId
from coterie.identity.revocation import RevocationLists
from coterie.identity.rules import CredentialRule
from coterie.identity.x509 import Anchor, load_certificate
from coterie.transport import as_api
from coterie.transport.as_api import ErrorCode, Operation, Refused
from coterie.transport.authentication import AuthenticationClient
from tests.authentication_world import START, Key, World, refused
from tests.pki import KEY_KINDS, REALM


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "authentication.sqlite")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
async def _closed(world: World, anyio_backend: str) -> AsyncIterator[None]:
    yield
    await world.http.aclose()
    world.service.close()
    world.ledger.close()


pytestmark = pytest.mark.anyio


# -- enrolling


@pytest.mark.parametrize("kind", KEY_KINDS)
async def test_a_code_gives_a_certificate_for_any_kind_of_key(world: World, kind: str) -> None:
    key, issued = await world.enrolled("alice", kind)
    device = world.accepts(key, issued)
    assert device == DeviceId(UserId("alice", REALM), issued.device.decode())


async def test_the_clients_anchor_is_the_services_root(world: World) -> None:
    info = await world.client.realm_info()
    assert (info.realm, info.versions) == (REALM.encode(), (1,))
    assert [a.cert_data for a in info.anchors] == [world.ca.certificate]


async def test_a_code_works_as_people_type_it(world: World) -> None:
    typed = world.add("alice").lower().replace("-", " ").replace("0", "o").replace("1", "l")
    await world.client.enrol(Key(), "alice", typed)


async def test_a_code_works_once_but_its_user_may_repeat_the_request(world: World) -> None:
    code, key = world.add("alice"), Key()
    first = await world.client.enrol(key, "alice", code)
    assert await world.client.enrol(key, "alice", code) == first
    await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), "alice", code))


async def test_a_code_is_for_its_user_and_its_time_only(world: World) -> None:
    code = world.add("alice")
    world.add("bob")
    for name in ("bob", "nobody"):
        await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), name, code))
    world.time += world.settings.code_lifetime + HOUR
    await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), "alice", code))


@pytest.mark.parametrize("into_the_hour", [0, 1, HOUR - 1])
async def test_a_code_lasts_for_its_lifetime_whenever_it_was_made(
    world: World, into_the_hour: int
) -> None:
    key, _ = await world.enrolled("alice")
    world.time += HOUR - world.time % HOUR + into_the_hour
    code = await world.client.link(key)
    assert code.expires_at % HOUR == 0
    world.time += world.settings.link_code_lifetime - 1
    await world.client.enrol(Key(), "alice", code.code.decode())


async def test_a_full_disk_is_named_and_what_comes_after_it_is_stored(world: World) -> None:
    db = world.ledger._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        world.ledger.keep_revocation_list(1, START, bytes(200_000))
    db.execute("PRAGMA max_page_count = 100000")
    world.add("bob")
    beside = sqlite3.connect(world.path)
    assert beside.execute("SELECT count(*) FROM users").fetchone() == (1,)
    beside.close()


async def test_a_commit_that_fails_swallows_nothing_that_comes_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy:
        """A connection whose next COMMIT fails and leaves the transaction open, as SQLite says it may."""

        def __init__(self, db: sqlite3.Connection) -> None:
            self.db, self.fails = db, True

        def __getattr__(self, name: str) -> object:
            return getattr(self.db, name)

        def execute(self, sql: str, *values: Any) -> object:
            if sql == "COMMIT" and self.fails:
                self.fails = False
                raise sqlite3.OperationalError("database is locked")
            return self.db.execute(sql, *values)

    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "_db", Busy(world.ledger._db))
        with pytest.raises(StorageError, match="locked"):
            world.add("alice")
    world.add("bob")
    beside = sqlite3.connect(world.path)
    assert beside.execute("SELECT name FROM users").fetchall() == [("bob",)]
    beside.close()


async def test_a_wrong_code_does_not_say_whether_the_user_exists(world: World) -> None:
    world.add("alice")
    known = await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), "alice", "0" * 20))
    unknown = await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), "nobody", "0" * 20))
    assert str(known) == str(unknown)


async def test_a_key_is_of_one_device_only(world: World) -> None:
    key, _ = await world.enrolled("alice")
    await refused(ErrorCode.KEY_IN_USE, world.client.enrol(key, "bob", world.add("bob")))


async def test_a_user_has_a_limited_number_of_devices(world: World) -> None:
    world.settings = replace(world.settings, max_devices=2)
    world.restart()
    for _ in range(2):
        await world.enrolled("alice")
    await refused(ErrorCode.TOO_MANY, world.enrolled("alice"))


async def test_no_certificate_without_the_private_key(world: World) -> None:
    class Stolen(Key):
        def sign(self, content: bytes) -> bytes:
            return Key().sign(content)

    await refused(
        ErrorCode.BAD_SIGNATURE, world.client.enrol(Stolen(), "alice", world.add("alice"))
    )


# -- requests


async def test_a_signature_is_for_one_operation(world: World) -> None:
    key, _ = await world.enrolled()
    content = as_api.LinkRequest(
        as_api.RequestHeader(REALM.encode(), world.time, bytes(16))
    ).encode()
    signature = key.sign(as_api.to_be_signed(Operation.DEVICES, content))
    signed = as_api.SignedRequest(content, key.signature_key, signature)
    with pytest.raises(Refused) as caught:
        world.service.link(signed)
    assert caught.value.code == ErrorCode.BAD_SIGNATURE
    world.service.devices(signed)


async def test_a_request_is_for_one_realm_one_moment_and_one_use(world: World) -> None:
    key, _ = await world.enrolled()

    def link(realm: str, at: int, nonce: bytes) -> as_api.LinkCode:
        content = as_api.LinkRequest(as_api.RequestHeader(realm.encode(), at, nonce)).encode()
        signature = key.sign(as_api.to_be_signed(Operation.LINK, content))
        return world.service.link(as_api.SignedRequest(content, key.signature_key, signature))

    cases: list[tuple[ErrorCode, Callable[[], object]]] = [
        (ErrorCode.WRONG_REALM, lambda: link("other.example", world.time, b"a" * 16)),
        (ErrorCode.CLOCK, lambda: link(REALM, world.time - 301, b"b" * 16)),
        (ErrorCode.CLOCK, lambda: link(REALM, world.time + 301, b"c" * 16)),
    ]
    link(REALM, world.time - 300, b"d" * 16)
    cases.append((ErrorCode.NONCE_USED, lambda: link(REALM, world.time, b"d" * 16)))
    for code, call in cases:
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == code


async def test_a_used_nonce_is_remembered_over_a_restart_for_as_long_as_its_request_is_of_now(
    world: World,
) -> None:
    key, _ = await world.enrolled()
    content = as_api.LinkRequest(
        as_api.RequestHeader(REALM.encode(), world.time, b"n" * 16)
    ).encode()
    signature = key.sign(as_api.to_be_signed(Operation.LINK, content))
    signed = as_api.SignedRequest(content, key.signature_key, signature)
    world.service.link(signed)
    world.time += 300
    world.restart()
    world.ledger.expire(world.time)
    with pytest.raises(Refused) as caught:
        world.service.link(signed)
    assert caught.value.code == ErrorCode.NONCE_USED


async def test_a_client_whose_clock_is_off_is_told_so(world: World) -> None:
    key, _ = await world.enrolled()
    world.client_ahead = 3600
    error = await refused(ErrorCode.CLOCK, world.client.devices(key))
    assert str(world.time) in str(error)


MALFORMED = {
    "nothing": b"",
    "junk": b"\xff" * 40,
    "a request without content": as_api.SignedRequest(b"", bytes(32), b"").encode(),
    "no public key": as_api.SignedRequest(
        as_api.LinkRequest(as_api.RequestHeader(REALM.encode(), START, bytes(16))).encode(),
        b"key",
        b"",
    ).encode(),
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("operation", Operation)
async def test_what_is_no_request_gets_a_400_that_says_so(
    world: World, what: str, operation: Operation
) -> None:
    headers = {"Content-Type": as_api.MEDIA_TYPE}
    answer = await world.http.post(
        f"http://service/v1/{operation.value}", content=MALFORMED[what], headers=headers
    )
    assert answer.status_code == 400
    failure = as_api.Failure.decode(answer.content)
    assert failure.code == ErrorCode.MALFORMED
    assert failure.message


async def test_wrong_paths_methods_types_and_sizes_are_refused(world: World) -> None:
    headers = {"Content-Type": as_api.MEDIA_TYPE}
    too_large = bytes(as_api.MAX_REQUEST + 1)
    for answer, status in (
        (await world.http.get("http://service/v1/nothing"), 404),
        (await world.http.get("http://service/v1/enrol"), 404),
        (await world.http.post("http://service/v1/enrol", content=b"{}"), 400),
        (await world.http.post("http://service/v1/enrol", content=too_large, headers=headers), 413),
    ):
        assert answer.status_code == status
        assert as_api.Failure.decode(answer.content).message


# -- renewing, linking, revoking


async def test_a_renewed_certificate_is_of_the_same_device_and_lives_longer(world: World) -> None:
    key, issued = await world.enrolled()
    world.time += 20 * DAY
    renewed = await world.client.renew(key)
    assert renewed.device == issued.device
    world.time += 20 * DAY
    assert world.accepts(key, renewed).device == issued.device.decode()
    assert world.refuses(key, issued) == CredentialRule.CHAIN


async def test_a_new_key_replaces_the_old_one_which_ends_after_the_overlap(world: World) -> None:
    (old, issued), new = await world.enrolled(), Key("P-384")
    renewed = await world.client.renew(old, new)
    assert renewed.device == issued.device
    world.accepts(new, renewed)
    world.accepts(old, issued)
    await refused(ErrorCode.REVOKED, world.client.link(old))
    world.time += world.settings.key_overlap
    assert world.refuses(old, issued) == CredentialRule.REVOKED
    world.accepts(new, renewed)


async def test_a_change_of_keys_may_be_repeated_and_gives_the_same_certificate(
    world: World,
) -> None:
    (old, _), new = await world.enrolled(), Key()
    first = await world.client.renew(old, new)
    assert await world.client.renew(old, new) == first
    await refused(ErrorCode.REVOKED, world.client.renew(old, Key()))


async def test_a_new_key_must_sign_the_change(world: World) -> None:
    old, _ = await world.enrolled()

    class Stolen(Key):
        def sign(self, content: bytes) -> bytes:
            return old.sign(content)

    await refused(ErrorCode.BAD_SIGNATURE, world.client.renew(old, Stolen()))


async def test_a_new_key_cannot_be_anothers(world: World) -> None:
    (alice, _), (bob, _) = await world.enrolled("alice"), await world.enrolled("bob")
    await refused(ErrorCode.KEY_IN_USE, world.client.renew(alice, bob))


async def test_an_expired_certificate_can_be_renewed_for_some_time(world: World) -> None:
    key, _ = await world.enrolled()
    world.time += world.settings.certificate_lifetime + world.settings.renewal_grace - HOUR
    renewed = await world.client.renew(key)
    world.accepts(key, renewed)
    world.time += world.settings.certificate_lifetime + world.settings.renewal_grace + HOUR
    await refused(ErrorCode.EXPIRED, world.client.renew(key))


async def test_who_may_not_renew_any_more_brings_in_no_device_and_throws_out_no_other(
    world: World,
) -> None:
    key, issued = await world.enrolled()
    world.time += world.settings.certificate_lifetime
    code = (await world.client.link(key)).code.decode()
    second = await world.client.enrol(Key(), "alice", code)
    world.time += world.settings.renewal_grace + 2 * HOUR
    await refused(ErrorCode.EXPIRED, world.client.link(key))
    await refused(ErrorCode.EXPIRED, world.client.revoke(key, second.device.decode()))
    assert len((await world.client.revoke(key, issued.device.decode())).devices) == 1


async def test_a_device_gets_a_limited_number_of_certificates_in_a_day(world: World) -> None:
    world.settings = replace(world.settings, certificates_per_day=3)
    world.restart()
    key, _ = await world.enrolled()
    for _ in range(2):
        await world.client.renew(key)
    error = await refused(ErrorCode.TOO_MANY, world.client.renew(key))
    assert error.retry_after is not None
    world.time += DAY + HOUR
    await world.client.renew(key)


async def test_an_enrolled_device_links_another_of_the_same_user(world: World) -> None:
    key, first = await world.enrolled()
    link, tablet = await world.client.link(key), Key("Ed448")
    second = await world.client.enrol(tablet, "alice", link.code.decode())
    assert second.device != first.device
    assert world.accepts(tablet, second).user == UserId("alice", REALM)
    listed = (await world.client.devices(key)).devices
    assert {d.device for d in listed} == {first.device, second.device}


async def test_who_is_not_enrolled_gets_nothing(world: World) -> None:
    stranger = Key()
    for call in (world.client.renew, world.client.link, world.client.devices):
        await refused(ErrorCode.UNKNOWN_KEY, call(stranger))
    await refused(ErrorCode.UNKNOWN_KEY, world.client.revoke(stranger, "0" * 32))


async def test_a_user_revokes_a_lost_device_with_another(world: World) -> None:
    (phone, phones), (laptop, _) = await world.enrolled(), await world.enrolled()
    await world.client.revoke(laptop, phones.device.decode())
    assert world.refuses(phone, phones) == CredentialRule.REVOKED
    await refused(ErrorCode.REVOKED, world.client.renew(phone))
    await refused(ErrorCode.UNKNOWN_DEVICE, world.client.revoke(laptop, phones.device.decode()))


async def test_nobody_revokes_anothers_device(world: World) -> None:
    (_, alices), (bob, _) = await world.enrolled("alice"), await world.enrolled("bob")
    await refused(ErrorCode.UNKNOWN_DEVICE, world.client.revoke(bob, alices.device.decode()))


async def test_the_operator_revokes_a_user_with_all_devices_and_codes(world: World) -> None:
    phone, phones = await world.enrolled()
    tablet, tablets = await world.enrolled()
    code = world.code("alice")
    world.service.revoke_user("alice")
    for key, issued in ((phone, phones), (tablet, tablets)):
        assert world.refuses(key, issued) == CredentialRule.REVOKED
        await refused(ErrorCode.REVOKED, world.client.renew(key))
    await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), "alice", code))
    with pytest.raises(StateError, match="revoked"):
        world.code("alice")


async def test_the_operator_revokes_one_device(world: World) -> None:
    (phone, phones), (tablet, tablets) = await world.enrolled(), await world.enrolled()
    world.service.revoke_user("alice", phones.device.decode())
    assert world.refuses(phone, phones) == CredentialRule.REVOKED
    world.accepts(tablet, tablets)
    with pytest.raises(StateError, match="no device"):
        world.service.revoke_user("alice", phones.device.decode())


async def test_a_deleted_user_is_forgotten_revoked_and_the_name_never_given_again(
    world: World,
) -> None:
    key, issued = await world.enrolled("mallory")
    world.service.delete_user("mallory")
    assert world.refuses(key, issued) == CredentialRule.REVOKED
    await refused(ErrorCode.UNKNOWN_KEY, world.client.renew(key))
    with pytest.raises(StateError, match="taken"):
        world.add("mallory")
    world.ledger.close()
    stored = b"".join(f.read_bytes() for f in world.path.parent.iterdir())
    for gone in (b"mallory", issued.device, key.signature_key, issued.chain[0].cert_data):
        assert gone not in stored


async def test_the_operator_sees_how_far_every_user_is(world: World) -> None:
    def found() -> dict[str, tuple[str, int, int | None, int | None, int | None]]:
        users, _ = world.service.users()
        assert [user.name for user in users] == sorted(user.name for user in users)
        return {
            user.name: (
                user.state,
                user.devices,
                user.valid_until,
                user.code_until,
                user.revoked_at,
            )
            for user in users
        }

    assert world.service.users() == ([], 0)
    hour = START - START % HOUR
    until = hour + world.settings.certificate_lifetime
    code = world.service.add_user("carol").expires_at
    assert found() == {"carol": ("code", 0, None, code, None)}
    _, first = await world.enrolled("alice")
    await world.enrolled("alice")
    assert found()["alice"] == ("enrolled", 2, until, None, None), "a used code waits for nobody"
    further = world.service.new_code("alice").expires_at
    assert found()["alice"] == ("enrolled", 2, until, further, None)
    world.service.revoke_user("alice", first.device.decode())
    assert found()["alice"] == ("enrolled", 1, until, further, None)
    await world.enrolled("bob")
    world.service.revoke_user("bob")
    assert found()["bob"] == ("revoked", 0, None, None, hour)
    world.time = max(code, further)
    assert found() == {
        "alice": ("enrolled", 1, until, None, None),
        "bob": ("revoked", 0, None, None, hour),
        "carol": ("none", 0, None, None, None),
    }
    world.service.delete_user("bob")
    assert list(found()) == ["alice", "carol"]
    assert world.service.users()[1] == 1


async def test_a_user_cannot_be_added_twice_nor_under_a_name_that_is_none(world: World) -> None:
    world.add("alice")
    with pytest.raises(StateError, match="taken"):
        world.add("alice")
    with pytest.raises(DecodeError):
        world.add("Alice Smith")
    for missing in (world.service.revoke_user, world.service.delete_user, world.service.new_code):
        with pytest.raises(StateError, match="no user"):
            missing("bob")


# -- the revocation list


async def test_the_list_is_made_anew_after_a_revocation_and_with_age_and_not_else(
    world: World,
) -> None:
    _, issued = await world.enrolled()
    first = await world.client.revocation_list()
    world.time += HOUR - START % HOUR - 1
    assert await world.client.revocation_list() == first
    world.service.revoke_user("alice", issued.device.decode())
    second = await world.client.revocation_list()
    assert second != first
    world.time += HOUR
    assert await world.client.revocation_list() != second


async def test_verifiers_take_lists_of_a_service_that_was_restored_from_a_backup(
    world: World,
) -> None:
    lists = RevocationLists([Anchor(world.ca.certificate).certificate])
    lists.update(world.service.revocation_list())
    world.ledger.close()
    world.path = world.path.with_name("restored.sqlite")
    world.time += HOUR
    world.restart()
    lists.update(world.service.revocation_list())


async def test_a_certificate_that_ended_leaves_the_list(world: World) -> None:
    key, issued = await world.enrolled()
    world.service.revoke_user("alice")
    long = len(world.service.revocation_list())
    world.time += world.settings.certificate_lifetime + HOUR
    assert len(world.service.revocation_list()) < long
    assert world.refuses(key, issued) == CredentialRule.CHAIN


# -- what is stored, logged, limited


async def test_no_code_and_no_exact_time_is_stored(world: World) -> None:
    code = world.add("alice")
    key = Key()
    issued = await world.client.enrol(key, "alice", code)
    world.code("alice")
    world.service.revoke_user("alice", issued.device.decode())
    with closing(sqlite3.connect(world.path)) as beside:
        dump = "\n".join(beside.iterdump())
    assert code not in dump
    assert code.replace("-", "") not in dump
    assert str(world.time) not in dump
    der = load_certificate(issued.chain[0].cert_data)
    assert der.not_valid_before_utc.minute == der.not_valid_after_utc.minute == 0


async def test_logs_and_metrics_name_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "coterie"):
        key, issued = await world.enrolled("alice")
        await refused(ErrorCode.BAD_CODE, world.client.enrol(Key(), "alice", "wrong"))
        await refused(ErrorCode.UNKNOWN_DEVICE, world.client.revoke(key, "0" * 32))
    metrics = (await world.http.get("http://service/metrics")).text
    assert 'requests_total{operation="enrol",status="403"} 1' in metrics
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "'operation': 'enrol'" in logged
    for name in ("alice", issued.device.decode(), key.signature_key.hex(), "127.0.0.1"):
        assert name not in metrics
        assert name not in logged


async def test_one_network_cannot_try_codes_without_end_and_another_can_go_on(world: World) -> None:
    world.settings = Settings(enrolments_burst=3)
    world.restart()
    codes = [
        ErrorCode.BAD_CODE,
        ErrorCode.BAD_CODE,
        ErrorCode.BAD_CODE,
        ErrorCode.RATE_LIMITED,
    ]
    for expected in codes:
        error = await refused(expected, world.client.enrol(Key(), "alice", "0" * 20))
    assert error.retry_after == 30
    app = create_app(world.service)
    elsewhere = httpx.ASGITransport(app, client=("203.0.113.9", 1))
    async with httpx.AsyncClient(transport=elsewhere) as http:
        client = AuthenticationClient(http, "http://service", REALM, clock=lambda: world.time)
        await client.enrol(Key(), "alice", world.add("alice"))


async def test_health_and_readiness_are_answered(world: World) -> None:
    for path in ("health/live", "health/ready"):
        assert (await world.http.get(f"http://service/{path}")).status_code == 200


async def test_a_service_whose_database_fails_is_not_ready_and_says_when_to_come_back(
    world: World,
) -> None:
    world.ledger.close()
    assert (await world.http.get("http://service/health/ready")).status_code == 503
    error = await refused(ErrorCode.UNAVAILABLE, world.client.enrol(Key(), "alice", "x"))
    assert error.retry_after == 30


async def test_a_server_that_does_not_answer_or_is_none_of_ours_is_a_service_error(
    world: World,
) -> None:
    def dead(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    def other(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>")

    for handler, retry in ((dead, 5), (other, None)):
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
            client = AuthenticationClient(http, "http://service", REALM, clock=lambda: world.time)
            with pytest.raises(ServiceError) as caught:
                await client.realm_info()
            assert caught.value.retry_after == retry


async def test_concurrent_uses_of_one_code_give_one_device(world: World) -> None:
    code = world.add("alice")
    outcomes: list[object] = []

    async def attempt() -> None:
        try:
            outcomes.append(await world.client.enrol(Key(), "alice", code))
        except Refused as error:
            outcomes.append(error.code)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(attempt)
    assert outcomes.count(ErrorCode.BAD_CODE) == 19
    assert len(world.service.devices_of("alice")) == 1


# -- the database's format


async def test_a_database_of_a_newer_version_or_of_another_program_is_refused(
    world: World, tmp_path: Path
) -> None:
    newer = sqlite3.connect(world.path)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(StorageError, match="newer version"):
        Ledger(world.path)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(StorageError, match="another program"):
        Ledger(other)
    (tmp_path / "text").write_bytes(b"no database at all, but long enough to look at" * 20)
    with pytest.raises(StorageError, match="cannot open"):
        Ledger(tmp_path / "text")
    with pytest.raises(StorageError, match="cannot open"):
        Ledger(tmp_path / "nowhere" / "at all")


async def test_a_new_database_has_the_present_schema(world: World) -> None:
    with closing(sqlite3.connect(world.path)) as beside:
        found = beside.execute("PRAGMA user_version").fetchone()
    assert found == (SCHEMA_VERSION,)


# -- whatever arrives


def _valid(world: World, operation: Operation) -> bytes:
    """A sound request of each operation, of an enrolled device (or, for `enrol`, of a new one with its code)."""
    header = as_api.RequestHeader(REALM.encode(), world.time, b"0" * 16)
    key = Key()
    code = world.add("fuzzed") if world.ledger.find_user("fuzzed") is None else world.code("fuzzed")
    request = {
        Operation.ENROL: as_api.EnrolRequest(header, b"fuzzed", code.encode()),
        Operation.RENEW: as_api.RenewRequest(header, key.signature_key, b""),
        Operation.LINK: as_api.LinkRequest(header),
        Operation.DEVICES: as_api.DevicesRequest(header),
        Operation.REVOKE: as_api.RevokeRequest(header, b"0" * 32),
    }[operation]
    content = request.encode()
    signature = key.sign(as_api.to_be_signed(operation, content))
    return as_api.SignedRequest(content, key.signature_key, signature).encode()


@pytest.mark.parametrize("operation", Operation)
async def test_a_request_with_any_byte_changed_gets_a_refusal_and_never_a_certificate(
    world: World, operation: Operation
) -> None:
    sound = _valid(world, operation)
    headers = {"Content-Type": as_api.MEDIA_TYPE}
    url = f"http://service/v1/{operation.value}"
    chance = random.Random(operation.value)
    for at in chance.sample(range(len(sound)), 60):
        damaged = bytearray(sound)
        damaged[at] ^= chance.randint(1, 255)
        for body in (bytes(damaged), sound[:at]):
            answer = await world.http.post(url, content=body, headers=headers)
            assert 400 <= answer.status_code < 500
            assert as_api.Failure.decode(answer.content).message
    assert world.service.devices_of("fuzzed") == []
