"""`coterie.mls.hpke` against RFC 9180's vectors, pyca's own HPKE, and what hostile bytes do."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import hmac
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import hpke as native
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import example, given
from hypothesis import strategies as st

from coterie.errors import DecodeError, DecryptionError, VerificationError
from coterie.mls import hpke
from coterie.mls.hpke import AEADS, HPKE, KDFS, KEM, KEMS, HPKEPrivateKey
from coterie.mls.secret import Secret

DATA = Path(__file__).parents[2] / "data" / "hpke"
VECTORS = json.loads((DATA / "rfc9180-base.json").read_text())
BASE = [
    pytest.param(vector, id=f"kem{vector['kem_id']}-kdf{vector['kdf_id']}-aead{vector['aead_id']}")
    for vector in VECTORS["base"]
]
KEM_VECTORS = [
    pytest.param(vector, id=f"kem{vector['kem_id']}-{vector['enc'][-6:]}")
    for vector in VECTORS["base"] + VECTORS["kem"]
]
KEM_NAMES = [pytest.param(kem, id=kem.name) for kem in KEMS.values()]
MONTGOMERY = (hpke.DHKEM_X25519, hpke.DHKEM_X448)


def unhex(vector: dict[str, Any], *fields: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(vector[field]) for field in fields)


def hpke_of(vector: dict[str, Any]) -> HPKE:
    return HPKE(KEMS[vector["kem_id"]], KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]])


def ephemeral(vector: dict[str, Any]) -> Callable[[int], bytes]:
    """A random source that makes `encap` use the vector's ephemeral key."""
    curve = KEMS[vector["kem_id"]].curve
    seed = bytes.fromhex(vector["ikmE"] if curve.order else vector["skEm"])

    def rng(length: int) -> bytes:
        assert length == len(seed)
        return seed

    return rng


def counting_rng() -> Callable[[int], bytes]:
    """A random source that repeats: its n-th output is always the same."""
    calls = iter(range(1_000_000))
    return lambda length: hashlib.shake_256(next(calls).to_bytes(4)).digest(length)


def plain_hpke(kem: KEM) -> HPKE:
    return HPKE(kem, hpke.HKDF_SHA256, hpke.AES_128_GCM)


# -- RFC 9180's vectors


@pytest.mark.parametrize("vector", KEM_VECTORS)
def test_a_seed_gives_the_key_pair_of_the_vector(vector: dict[str, Any]) -> None:
    seed, private, public = unhex(vector, "ikmR", "skRm", "pkRm")
    kem = KEMS[vector["kem_id"]]
    derived = kem.derive_key_pair(seed)
    assert derived.public == public
    assert kem.curve.public_bytes(kem.curve.load(private)) == public
    if kem not in MONTGOMERY:  # their vectors hold the scalar with its fixed bits already set
        assert derived.private_bytes() == private


@pytest.mark.parametrize("vector", KEM_VECTORS)
def test_the_receiver_finds_the_shared_secret_of_the_vector(vector: dict[str, Any]) -> None:
    private, enc, shared_secret = unhex(vector, "skRm", "enc", "shared_secret")
    kem = KEMS[vector["kem_id"]]
    assert kem.decap(HPKEPrivateKey(kem, private), enc) == shared_secret


@pytest.mark.parametrize("vector", KEM_VECTORS)
def test_the_sender_makes_the_shared_secret_of_the_vector(vector: dict[str, Any]) -> None:
    public, enc, shared_secret, seed = unhex(vector, "pkRm", "enc", "shared_secret", "ikmE")
    kem = KEMS[vector["kem_id"]]
    private = kem.derive_key_pair(seed).private_bytes()
    rng = (lambda _: seed) if kem.curve.order else (lambda _: bytes(private))
    assert kem.encap(public, rng) == (shared_secret, enc)


@pytest.mark.parametrize("vector", BASE)
def test_seal_gives_the_ciphertext_of_the_vector_and_open_its_plaintext(
    vector: dict[str, Any],
) -> None:
    suite = hpke_of(vector)
    public, private, enc, info = unhex(vector, "pkRm", "skRm", "enc", "info")
    aad, plaintext, ciphertext = unhex(vector["encryption"], "aad", "pt", "ct")
    assert suite.seal(public, info, aad, plaintext, ephemeral(vector)) == (enc, ciphertext)
    assert suite.open(suite.load(private), enc, info, aad, ciphertext) == plaintext


@pytest.mark.parametrize("vector", BASE)
def test_both_sides_export_the_secrets_of_the_vector(vector: dict[str, Any]) -> None:
    suite = hpke_of(vector)
    public, private, enc, info = unhex(vector, "pkRm", "skRm", "enc", "info")
    key = suite.load(private)
    for export in vector["exports"]:
        context, expected = unhex(export, "exporter_context", "exported_value")
        sealed = suite.export_seal(public, info, context, export["L"], ephemeral(vector))
        assert sealed == (enc, expected)
        assert isinstance(sealed[1], Secret)
        assert suite.export_open(key, enc, info, context, export["L"]) == expected


def test_the_extract_is_what_its_script_makes_of_the_package() -> None:
    pytest.importorskip("cryptography_vectors", reason="install coterie[vectors] to compare")
    script: dict[str, Any] = {"__name__": "extract", "__file__": str(DATA / "extract.py")}
    exec((DATA / "extract.py").read_text(), script)
    assert script["extract"]() == VECTORS


# -- the same as pyca's HPKE, both ways

NATIVE_KEMS = {
    0x10: native.KEM.P256,
    0x11: native.KEM.P384,
    0x12: native.KEM.P521,
    0x20: native.KEM.X25519,
}
NATIVE_KDFS = {1: native.KDF.HKDF_SHA256, 2: native.KDF.HKDF_SHA384, 3: native.KDF.HKDF_SHA512}
NATIVE_AEADS = {
    1: native.AEAD.AES_128_GCM,
    2: native.AEAD.AES_256_GCM,
    3: native.AEAD.CHACHA20_POLY1305,
}


@pytest.mark.parametrize("aead_id", NATIVE_AEADS)
@pytest.mark.parametrize("kdf_id", NATIVE_KDFS)
@pytest.mark.parametrize("kem_id", NATIVE_KEMS)
def test_pyca_opens_what_we_seal_and_we_open_what_pyca_seals(
    kem_id: int, kdf_id: int, aead_id: int
) -> None:
    ours = HPKE(KEMS[kem_id], KDFS[kdf_id], AEADS[aead_id])
    theirs = native.Suite(NATIVE_KEMS[kem_id], NATIVE_KDFS[kdf_id], NATIVE_AEADS[aead_id])
    key = ours.generate(os.urandom)
    # The same whichever library `ours` uses for X25519.
    is_x25519 = ours.kem is hpke.DHKEM_X25519
    held = X25519PrivateKey.from_private_bytes(key.private_bytes()) if is_x25519 else key.key
    for length in (0, 1, 32, 1000):
        info, plaintext = os.urandom(length), os.urandom(length)
        kem_output, ciphertext = ours.seal(key.public, info, b"", plaintext, os.urandom)
        assert theirs.decrypt(kem_output + ciphertext, held, info) == plaintext
        kem_output, ciphertext = ours.sealer(info).seal(key.public, plaintext, os.urandom)
        assert theirs.decrypt(kem_output + ciphertext, held, info) == plaintext
        sealed = theirs.encrypt(plaintext, held.public_key(), info)
        split = len(kem_output)
        assert ours.open(key, sealed[:split], info, b"", sealed[split:]) == plaintext


HASHES: dict[int, tuple[str, hashes.HashAlgorithm]] = {
    1: ("sha256", hashes.SHA256()),
    2: ("sha384", hashes.SHA384()),
    3: ("sha512", hashes.SHA512()),
}


@pytest.mark.parametrize("kdf_id", KDFS)
@given(key=st.binary(max_size=300), message=st.binary(max_size=300))
@example(key=b"k" * 64, message=b"")
@example(key=b"k" * 65, message=b"m" * 64)
@example(key=b"k" * 128, message=b"m" * 300)
@example(key=b"k" * 129, message=b"m")
def test_hmac_is_the_standard_library_s(kdf_id: int, key: bytes, message: bytes) -> None:
    expected = hmac.digest(key, message, HASHES[kdf_id][0])
    assert KDFS[kdf_id].hmac(key, message) == expected
    assert KDFS[kdf_id].extract(message) == hmac.digest(b"", message, HASHES[kdf_id][0])
    assert KDFS[kdf_id].hmacs(key, [b"before", message])[1] == expected
    assert KDFS[kdf_id].hmac_pair(key, b"before", message)[1] == expected
    assert KDFS[kdf_id].hmac_pair(key, message, b"after")[0] == expected


@pytest.mark.parametrize("kdf_id", KDFS)
@given(prk=st.binary(min_size=1, max_size=80), info=st.binary(max_size=80), data=st.data())
def test_expand_is_pyca_s(kdf_id: int, prk: bytes, info: bytes, data: st.DataObject) -> None:
    kdf = KDFS[kdf_id]
    limit = 255 * kdf.hash_length
    length = data.draw(st.integers(1, 3 * kdf.hash_length) | st.just(limit))
    expected = HKDFExpand(HASHES[kdf_id][1], length, info).derive(prk)
    assert kdf.expand(prk, info, length) == expected


@pytest.mark.parametrize("kdf_id", KDFS)
def test_expand_refuses_more_than_255_blocks(kdf_id: int) -> None:
    with pytest.raises(ValueError, match="at most"):
        KDFS[kdf_id].expand(b"prk", b"", 255 * KDFS[kdf_id].hash_length + 1)


# -- keys


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_the_same_random_bytes_give_the_same_history(kem: KEM) -> None:
    suite = plain_hpke(kem)

    def history() -> list[object]:
        rng = counting_rng()
        key = suite.generate(rng)
        first = suite.seal(key.public, b"info", b"aad", b"plaintext", rng)
        second = suite.sealer(b"info").seal(key.public, b"plaintext", rng)
        return [key.public, first, second, suite.export_seal(key.public, b"", b"", 32, rng)]

    assert history() == history()
    assert len({str(step) for step in history()}) == 4


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_a_private_key_that_was_stored_opens_with_and_without_its_public_key(kem: KEM) -> None:
    suite = plain_hpke(kem)
    key = suite.generate(os.urandom)
    kem_output, ciphertext = suite.seal(key.public, b"info", b"", b"plaintext", os.urandom)
    for public in (None, key.public):
        loaded = suite.load(bytes(key.private_bytes()), public)
        assert suite.open(loaded, kem_output, b"info", b"", ciphertext) == b"plaintext"
        assert loaded.public == key.public


def test_a_known_public_key_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    key = hpke.DHKEM_X25519.generate(os.urandom)
    loads: list[bytes] = []
    curve = dataclasses.replace(hpke.DHKEM_X25519.curve, load=loads.append)
    monkeypatch.setattr(hpke.DHKEM_X25519, "curve", curve)
    assert HPKEPrivateKey(hpke.DHKEM_X25519, key.private_bytes(), b"known").public == b"known"
    assert loads == []


def test_a_wrong_public_key_beside_a_private_key_opens_nothing() -> None:
    suite = plain_hpke(hpke.DHKEM_X25519)
    key, other = suite.generate(os.urandom), suite.generate(os.urandom)
    kem_output, ciphertext = suite.seal(key.public, b"", b"", b"plaintext", os.urandom)
    with pytest.raises(DecryptionError):
        suite.open(suite.load(key.private_bytes(), other.public), kem_output, b"", b"", ciphertext)


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_a_private_key_shows_and_pickles_nothing(kem: KEM) -> None:
    key = kem.generate(os.urandom)
    private = bytes(key.private_bytes())
    assert isinstance(key.private_bytes(), Secret)
    assert repr(key) == str(key) == f"<HPKEPrivateKey {kem.name}>"
    assert private.hex() not in repr(key)
    assert copy.deepcopy(key) is key
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key)


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_bytes_that_are_no_private_key_are_refused_at_once(kem: KEM) -> None:
    good = bytes(kem.generate(os.urandom).private_bytes())
    bad = [b"", good[:-1], good + b"\0"]
    if kem.curve.order:
        length = kem.curve.private_length
        bad += [bytes(length), kem.curve.order.to_bytes(length), b"\xff" * length]
    for private in bad:
        with pytest.raises(DecodeError, match=r"are not a DHKEM.* private key"):
            HPKEPrivateKey(kem, private)


@pytest.mark.parametrize(
    ("kem", "curve"),
    [
        (hpke.DHKEM_P256, ec.SECP256R1()),
        (hpke.DHKEM_P384, ec.SECP384R1()),
        (hpke.DHKEM_P521, ec.SECP521R1()),
    ],
)
def test_the_order_is_the_curve_s(kem: KEM, curve: ec.EllipticCurve) -> None:
    order = kem.curve.order
    assert order is not None
    assert ec.derive_private_key(order - 1, curve).private_numbers().private_value == order - 1
    with pytest.raises(ValueError):
        ec.derive_private_key(order, curve)


def test_a_candidate_that_is_no_scalar_is_passed_over() -> None:
    """No seed is known whose first candidate P-256 refuses, so the order is made small enough to refuse half."""
    halved = 2**255
    curve = dataclasses.replace(hpke.DHKEM_P256.curve, order=halved)
    kem = KEM(0x0010, "DHKEM(P-256)", curve, hpke.HKDF_SHA256)
    passed_over = 0
    for number in range(40):
        seed = bytes((number,)) * 32
        usual = hpke.DHKEM_P256.derive_key_pair(seed).private_bytes()
        derived = kem.derive_key_pair(seed).private_bytes()
        assert int.from_bytes(derived) < halved
        if int.from_bytes(usual) < halved:
            assert derived == usual
        else:
            passed_over += 1
    assert 0 < passed_over < 40


def test_a_seed_without_any_scalar_is_an_error_not_a_loop() -> None:
    curve = dataclasses.replace(hpke.DHKEM_P256.curve, order=1)
    kem = KEM(0x0010, "DHKEM(P-256)", curve, hpke.HKDF_SHA256)
    with pytest.raises(ValueError, match="no key pair can be derived"):
        kem.derive_key_pair(bytes(32))


# -- hostile bytes


def low_order_keys(kem: KEM) -> list[bytes]:
    """Every encoding of a point of low order that the check knows."""
    return sorted(kem.curve.refused or ())


@pytest.mark.parametrize("kem", MONTGOMERY, ids=lambda kem: kem.name)
def test_the_keys_of_low_order_are_those_that_pyca_cannot_exchange_with(kem: KEM) -> None:
    keys = low_order_keys(kem)
    assert len(keys) == {32: 14, 56: 5}[kem.curve.public_length]

    def exchange(public: bytes) -> bytes:
        if kem is hpke.DHKEM_X25519:
            return X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
        return X448PrivateKey.generate().exchange(X448PublicKey.from_public_bytes(public))

    for public in keys:
        with pytest.raises(ValueError):
            exchange(public)


def not_public_keys(kem: KEM) -> list[bytes]:
    good = kem.generate(os.urandom).public
    bad = [b"", good[:-1], good + b"\0", b"\0"]
    if kem in MONTGOMERY:
        return bad + low_order_keys(kem)
    off_curve = good[:-1] + bytes((good[-1] ^ 1,))
    half = (len(good) - 1) // 2
    compressed = bytes((2 + (good[-1] & 1),)) + good[1 : 1 + half]
    hybrid = bytes((6 + (good[-1] & 1),)) + good[1:]
    return [*bad, off_curve, compressed, hybrid, bytes(len(good)), b"\x04" + b"\xff" * (2 * half)]


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_what_is_no_public_key_is_refused_by_the_check_and_by_sealing(kem: KEM) -> None:
    suite = plain_hpke(kem)
    attempts: list[Callable[[bytes], object]] = [
        suite.check_public_key,
        lambda public: suite.seal(public, b"", b"", b"", os.urandom),
        lambda public: suite.sealer(b"").seal(public, b"", os.urandom),
        lambda public: suite.export_seal(public, b"", b"", 32, os.urandom),
    ]
    for public in not_public_keys(kem):
        for attempt in attempts:
            with pytest.raises(VerificationError) as caught:
                attempt(public)
            assert caught.value.rule == "5.1.1/hpke-public-key"


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_a_kem_output_that_is_no_public_key_does_not_open(kem: KEM) -> None:
    suite = plain_hpke(kem)
    key = suite.generate(os.urandom)
    for kem_output in not_public_keys(kem):
        with pytest.raises(DecryptionError) as caught:
            suite.open(key, kem_output, b"", b"", bytes(48))
        assert caught.value.rule == "5.1.3/decrypt"
        with pytest.raises(DecryptionError):
            suite.export_open(key, kem_output, b"", b"", 32)


@pytest.mark.parametrize("kem", KEM_NAMES)
def test_a_fresh_public_key_passes_the_check(kem: KEM) -> None:
    kem.check_public_key(kem.generate(os.urandom).public)


@pytest.mark.parametrize("aead_id", AEADS)
def test_whatever_differs_the_ciphertext_does_not_open(aead_id: int) -> None:
    suite = HPKE(hpke.DHKEM_X25519, hpke.HKDF_SHA256, AEADS[aead_id])
    key, other = suite.generate(os.urandom), suite.generate(os.urandom)
    enc, ct = suite.seal(key.public, b"info", b"aad", b"plaintext", os.urandom)
    assert isinstance(suite.open(key, enc, b"info", b"aad", ct), Secret)
    flipped = bytes((ct[0] ^ 1,)) + ct[1:]
    for arguments in (
        (other, enc, b"info", b"aad", ct),
        (key, other.public, b"info", b"aad", ct),
        (key, enc, b"Info", b"aad", ct),
        (key, enc, b"info", b"Aad", ct),
        (key, enc, b"info", b"aad", flipped),
        (key, enc, b"info", b"aad", ct[:-1]),
        (key, enc, b"info", b"aad", ct + b"\0"),
        (key, enc, b"info", b"aad", b""),
    ):
        with pytest.raises(DecryptionError) as caught:
            suite.open(*arguments)
        assert caught.value.rule == "5.1.3/decrypt"


@pytest.mark.parametrize("kem", KEM_NAMES)
@given(enc=st.binary(max_size=140), ciphertext=st.binary(max_size=80))
def test_opening_garbage_raises_a_decryption_error(kem: KEM, enc: bytes, ciphertext: bytes) -> None:
    suite = plain_hpke(kem)
    key = kem.derive_key_pair(b"seed")
    exact = (enc * 140)[: kem.curve.public_length] if enc else bytes(kem.curve.public_length)
    for kem_output in (enc, exact, b"\x04" + exact[1:]):
        with pytest.raises(DecryptionError):
            suite.open(key, kem_output, b"", b"", ciphertext)
