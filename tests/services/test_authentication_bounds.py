"""The Authentication Service's limits to the last request and second, and its HTTP face where something fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from coterie.authentication.ca import CertificateAuthority
from coterie.authentication.limits import RateLimit
from coterie.authentication.settings import DAY, Settings
from coterie.errors import ServiceError, StateError, StorageError
from coterie.identity.x509 import load_certificate
from coterie.transport import as_api
from coterie.transport.as_api import ErrorCode, Operation, Refused
from tests.authentication_world import START, Key, World, refused
from tests.pki import REALM

ENROL = "http://service/v1/enrol"
TYPE = {"Content-Type": as_api.MEDIA_TYPE}


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


pytestmark = pytest.mark.anyio


async def test_a_burst_is_taken_whole_and_not_one_more() -> None:
    limit = RateLimit(3, 10.0)
    for _ in range(3):
        limit.take("192.0.2.1", 1000.0)
    with pytest.raises(Refused) as caught:
        limit.take("192.0.2.1", 1000.0)
    assert caught.value.retry_after == 10
    limit.take("192.0.2.1", 1010.0)
    with pytest.raises(Refused):
        limit.take("192.0.2.1", 1010.0)


@pytest.mark.parametrize("path", ["realm", "revocations"])
async def test_what_anybody_may_ask_is_rated_as_well(world: World, path: str) -> None:
    world.settings = replace(world.settings, requests_burst=2, requests_interval=60.0)
    world.restart()
    url = f"http://service/v1/{path}"
    for _ in range(2):
        assert (await world.http.get(url)).status_code == 200
    answer = await world.http.get(url)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


async def test_signed_requests_have_the_rate_of_all_requests_and_enrolments_one_of_their_own(
    world: World,
) -> None:
    key, _ = await world.enrolled()
    world.settings = replace(world.settings, requests_burst=3, enrolments_burst=1)
    world.restart()
    other = world.add("bob")
    await world.client.enrol(Key(), "bob", other)
    await refused(ErrorCode.RATE_LIMITED, world.client.enrol(Key(), "bob", other))
    await world.client.devices(key)
    await refused(ErrorCode.RATE_LIMITED, world.client.devices(key))


async def test_a_body_needs_its_type_and_has_a_largest_size(world: World) -> None:
    largest = bytes(as_api.MAX_REQUEST)
    answer = await world.http.post(ENROL, content=largest, headers=TYPE)
    assert as_api.Failure.decode(answer.content).code is ErrorCode.MALFORMED
    for headers in ({}, {"Content-Type": "application/json"}):
        answer = await world.http.post(ENROL, content=largest, headers=headers)
        assert answer.status_code == 400
        assert b"Content-Type" in as_api.Failure.decode(answer.content).message


async def test_an_error_that_is_no_answer_is_not_made_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> as_api.RealmInfo:
        raise StateError("a mistake of ours")

    monkeypatch.setattr(world.service, "realm_info", fail)
    with pytest.raises(StateError, match="of ours"):
        await world.client.realm_info()


@pytest.mark.parametrize(("late", "taken"), [(0, True), (1, False)])
async def test_a_certificate_is_renewed_up_to_the_last_second(
    world: World, late: int, taken: bool
) -> None:
    key, issued = await world.enrolled()
    ends = load_certificate(issued.chain[0].cert_data).not_valid_after_utc
    world.time = int(ends.timestamp()) + world.settings.renewal_grace + late
    if taken:
        world.accepts(key, await world.client.renew(key))
    else:
        await refused(ErrorCode.EXPIRED, world.client.renew(key))


async def test_an_enrolment_that_is_repeated_after_a_revocation_is_refused(world: World) -> None:
    key, code = Key(), world.add("alice")
    issued = await world.client.enrol(key, "alice", code)
    assert await world.client.enrol(key, "alice", code) == issued
    other, _ = await world.enrolled()
    await world.client.revoke(other, issued.device.decode())
    await refused(ErrorCode.REVOKED, world.client.enrol(key, "alice", code))


@pytest.mark.parametrize("what", ["renew", "link", "devices"])
async def test_a_revoked_device_gets_nothing(world: World, what: str) -> None:
    key, issued = await world.enrolled()
    other, _ = await world.enrolled()
    await world.client.revoke(other, issued.device.decode())
    await refused(ErrorCode.REVOKED, getattr(world.client, what)(key))
    world.time += DAY
    with pytest.raises(ServiceError):
        await world.client.revoke(key, issued.device.decode())


@pytest.mark.parametrize("field", ["user", "code"])
async def test_a_user_or_code_that_is_no_text_is_malformed(world: World, field: str) -> None:
    key, code = Key(), world.add("alice")
    header = as_api.RequestHeader(REALM.encode(), world.time, bytes(16))
    request = as_api.EnrolRequest(header, b"alice", code.encode()).replace(**{field: b"\xff\xfe"})
    content = request.encode()
    signature = key.sign(as_api.to_be_signed(Operation.ENROL, content))
    signed = as_api.SignedRequest(content, key.signature_key, signature)
    answer = await world.http.post(ENROL, content=signed.encode(), headers=TYPE)
    assert as_api.Failure.decode(answer.content).code is ErrorCode.MALFORMED


def test_a_root_on_a_curve_that_is_not_supported_is_not_made() -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    with pytest.raises(StorageError, match="P-256 or P-384"):
        CertificateAuthority.create(REALM, now=START, key=key)


def test_there_is_a_list_in_force_when_the_next_one_is_made() -> None:
    settings = Settings(list_lifetime=3601, list_interval=3600)
    settings.check()
    with pytest.raises(StateError, match="list_interval"):
        replace(settings, list_interval=3601).check()


def test_a_list_is_not_made_anew_for_each_request() -> None:
    with pytest.raises(StateError, match="list_interval"):
        Settings(list_interval=3599).check()
