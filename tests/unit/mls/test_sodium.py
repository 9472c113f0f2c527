"""libsodium beside OpenSSL: the same verdict on every signature, the same secret of every exchange."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from bench.edge_cases import ORDER, TORSION, Maker, add, encoded, times
from bench.shapes import NOW, build
from coterie.client.cores import on_all_cores
from coterie.errors import UnsupportedError, VerificationError
from coterie.mls import sodium
from coterie.mls.crypto import ED25519, suite_of
from coterie.mls.group import ApplicationMessage, CommitOptions, StagedCommit
from coterie.mls.hpke import X25519_BY_OPENSSL
from tests.unit.mls.test_hpke import low_order_keys

LIBRARY = sodium.load()
VERIFY = sodium.verifier(LIBRARY)
DATA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data/edges/curve25519.json").read_text()
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    if os.environ.get("COTERIE_PRIMITIVES") == "libsodium":
        sodium.use_libsodium()
    else:
        sodium.use_openssl()


@pytest.fixture
def libsodium() -> None:
    sodium.use_libsodium()


def verdict(verify: Any, public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        verify(public, signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def exchange(function: Any, private: bytes, public: bytes) -> bytes:
    try:
        return bytes(function(private, public))
    except ValueError:
        return b""


def by_openssl(private: bytes, public: bytes) -> bytes:
    return X25519_BY_OPENSSL.exchange(X25519_BY_OPENSSL.load(private), public)


@pytest.mark.parametrize("case", DATA["ed25519"], ids=lambda case: case["name"])
def test_both_judge_an_edge_case_alike(case: dict[str, Any]) -> None:
    public, signature, message = (
        bytes.fromhex(case[field]) for field in ("public", "signature", "message")
    )
    assert verdict(ED25519.verify, public, signature, message) is case["valid"]
    assert verdict(VERIFY, public, signature, message) is case["valid"]


def test_libsodium_alone_judges_some_cases_otherwise() -> None:
    """What the detour is for; where this fails, a newer libsodium may need none, or another."""
    differing = {
        case["name"]
        for case in DATA["ed25519"]
        if case["valid"]
        and not verdict(
            LIBRARY.verify,
            *(bytes.fromhex(case[field]) for field in ("public", "signature", "message")),
        )
    }
    assert "A of small order 4" in differing
    assert "R of small order 0" in differing
    assert "A of mixed order, equation holds" not in differing


@pytest.mark.parametrize("case", DATA["x25519"], ids=lambda case: case["name"])
def test_both_compute_an_edge_case_of_an_exchange_alike(case: dict[str, str]) -> None:
    private, public = bytes(range(32)), bytes.fromhex(case["public"])
    shared = bytes.fromhex(case["shared"])
    assert exchange(by_openssl, private, public) == shared
    assert exchange(LIBRARY.exchange, private, public) == shared


def test_both_judge_random_changes_alike() -> None:
    rng = random.Random(7)
    for number in range(300):
        key = ED25519.generate(rng.randbytes)
        message = rng.randbytes(number)
        changed = bytearray(ED25519.sign(key.key, message) + key.public)
        if number % 3:
            changed[rng.randrange(96)] ^= 1 << rng.randrange(8)
        signature, public = bytes(changed[:64]), bytes(changed[64:])
        openssl = verdict(ED25519.verify, public, signature, message)
        assert verdict(VERIFY, public, signature, message) is openssl
        assert openssl or number % 3


def test_both_judge_sums_with_points_of_small_order_alike() -> None:
    """Signatures whose A and R carry any point of small order: only the equation without the cofactor counts."""
    maker, valid = Maker(), 0
    for number in range(64):
        a = encoded(add(maker.public, times(number % 8, TORSION)))
        r = encoded(add(maker.point, times(number // 8, TORSION)))
        for text in (b"one %d" % number, b"two %d" % number):
            _, public, message, signature = maker.signed("", a, r, text)
            openssl = verdict(ED25519.verify, public, signature, message)
            assert verdict(VERIFY, public, signature, message) is openssl
            valid += openssl
    assert 8 <= valid <= 64


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_and_signatures_of_a_wrong_length_are_refused(length: int) -> None:
    key = ED25519.generate(os.urandom)
    signature = ED25519.sign(key.key, b"message")
    assert not verdict(VERIFY, bytes(length), signature, b"message")
    assert not verdict(VERIFY, key.public, signature[:length], b"message") or length == 64
    assert not verdict(VERIFY, key.public, signature + bytes(length or 1), b"message")
    assert exchange(LIBRARY.exchange, bytes(range(32)), bytes(length)) == b""


def test_exchanges_and_public_keys_are_the_same() -> None:
    for _ in range(200):
        private, public = os.urandom(32), os.urandom(32)
        assert LIBRARY.exchange(private, public) == by_openssl(private, public)
        loaded = X25519_BY_OPENSSL.load(private)
        assert LIBRARY.public_bytes(private) == X25519_BY_OPENSSL.public_bytes(loaded)


@pytest.mark.parametrize("length", [0, 100, 1 << 13, (1 << 13) + 1, 100_000])
def test_signatures_are_the_same(length: int) -> None:
    scheme = sodium.signer(LIBRARY)
    for _ in range(20):
        private, message = os.urandom(32), os.urandom(length)
        by_openssl, by_libsodium = ED25519.load(private), scheme.load(private)
        assert scheme.public_bytes(by_libsodium) == ED25519.public_bytes(by_openssl)
        assert scheme.sign(by_libsodium, message) == ED25519.sign(by_openssl, message)


def test_libsodium_signs_what_is_short_and_openssl_what_is_long() -> None:
    signed = []

    def sign(_key: bytes, message: bytes) -> bytes:
        signed.append(message)
        return bytes(64)

    scheme = sodium.signer(replace(LIBRARY, sign=sign))
    key = scheme.load(bytes(32))
    assert scheme.sign(key, b"short") == bytes(64)
    assert scheme.sign(key, bytes((1 << 13) + 1)) != bytes(64)
    assert signed == [b"short"]


def test_openssl_loads_a_key_once_however_often_it_signs() -> None:
    scheme = sodium.signer(LIBRARY)
    key = scheme.load(bytes(32))
    long = bytes(1 << 14)
    assert scheme.sign(key, long) == scheme.sign(key, long)
    assert key.by_openssl is key.by_openssl
    assert repr(key) == "<SodiumKey Ed25519>"


def test_a_key_signs_with_the_library_that_loaded_it() -> None:
    suite = suite_of(1)
    sodium.use_openssl()
    old = suite.load_signature_key(bytes(32))
    expected = suite.sign_with_label(old, "label", b"content")
    sodium.use_libsodium()
    new = suite.load_signature_key(bytes(32))
    assert isinstance(new.key, sodium.SodiumKey)
    assert suite.sign_with_label(old, "label", b"content") == expected
    assert suite.sign_with_label(new, "label", b"content") == expected
    assert old.public == new.public


def test_a_long_message_is_verified_by_openssl() -> None:
    key = ED25519.generate(os.urandom)
    message = bytes(100_000)
    signature = ED25519.sign(key.key, message)

    def never(_public: bytes, _signature: bytes, _message: bytes) -> None:
        raise AssertionError

    verify = sodium.verifier(replace(LIBRARY, verify=never))
    assert verdict(verify, key.public, signature, message)
    assert not verdict(verify, key.public, signature, message + b"\0")


def test_a_library_with_another_equation_is_not_used() -> None:
    def cofactored(public: bytes, signature: bytes, message: bytes) -> None:
        s = int.from_bytes(signature[32:], "little")
        if s >= ORDER:
            raise InvalidSignature

    def strict(public: bytes, signature: bytes, message: bytes) -> None:
        raise InvalidSignature

    sodium.check(LIBRARY)
    for other in (cofactored, strict):
        with pytest.raises(UnsupportedError, match="another equation"):
            sodium.check(replace(LIBRARY, verify=other))


def test_without_the_extra_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    sodium.use_openssl()
    monkeypatch.setitem(sys.modules, "nacl", None)
    with pytest.raises(UnsupportedError, match=r"coterie\[fast\]"):
        sodium.use_libsodium()
    assert suite_of(1).signature is ED25519
    assert suite_of(1).hpke.kem.curve is X25519_BY_OPENSSL


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.usefixtures("libsodium")
def test_members_with_either_library_are_in_one_group(number: int) -> None:
    libraries = (sodium.use_openssl, sodium.use_libsodium)
    for ours, theirs in (libraries, libraries[::-1]):
        ours()
        sender = build(5, "half", suite=number, seed=b"one").member(0)
        pending = sender.commit()
        sender.adopt(pending)
        sent = sender.encrypt(b"hello").encode()
        theirs()
        receiver = build(5, "half", suite=number, seed=b"one").member(4)
        staged = receiver.receive(pending.message.encode())
        assert isinstance(staged, StagedCommit)
        receiver.adopt(staged)
        assert receiver.epoch_authenticator == sender.epoch_authenticator
        read = receiver.receive(sent)
        assert isinstance(read, ApplicationMessage)
        assert read.data == b"hello"


@pytest.mark.usefixtures("libsodium")
def test_keys_of_low_order_are_refused_when_sealing() -> None:
    suite = suite_of(1)
    for public in low_order_keys(suite.hpke.kem):
        with pytest.raises(VerificationError):
            suite.encrypt_with_label(public, "label", b"", b"secret", os.urandom)


@pytest.mark.usefixtures("libsodium")
def test_a_commit_sealed_on_all_cores_is_the_same_to_the_last_byte() -> None:
    made = []
    for run in (map, on_all_cores):
        shape = build(300, "blank", seed=b"same")
        config = replace(shape.config, rng=random.Random(1).randbytes, run=run)
        bundles = [shape.bundle(b"new %d" % n, config) for n in range(100)]
        packages = [
            b.key_package.validate(shape.suite, config.authenticator, now=NOW) for b in bundles
        ]
        group = shape.member(0, config)
        pending = group.commit(packages, now=NOW, options=CommitOptions(tree_inside=False))
        assert pending.welcome is not None
        made.append((pending.message.encode(), pending.welcome.encode()))
    assert made[0] == made[1]
