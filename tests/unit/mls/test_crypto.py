"""`coterie.mls.crypto`: labels, signatures, tags, suites, and what hostile bytes do."""

from __future__ import annotations

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import DecodeError, DecryptionError, UnsupportedError, VerificationError
from coterie.mls import crypto
from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES, SignatureJob, Suite, suite_of
from coterie.mls.hpke import P256_ORDER
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret

SUITES = [pytest.param(suite_of(number), id=str(number)) for number in SUPPORTED_CIPHER_SUITES]
ECDSA_SUITES = [pytest.param(suite_of(number), id=str(number)) for number in (2, 5, 7)]
ONE = suite_of(1)
RULE = "0/rule-of-the-test"
each_suite = pytest.mark.parametrize("suite", SUITES)


# -- the table


def test_a_suite_is_found_under_its_number_and_has_the_registry_s_name() -> None:
    assert SUPPORTED_CIPHER_SUITES == (1, 2, 3, 4, 5, 6, 7)
    for number in SUPPORTED_CIPHER_SUITES:
        suite = suite_of(number)
        assert suite.cipher_suite == number
        assert repr(suite) == f"<Suite {suite.name}>"
        level = "256" if number > 3 else "128"
        assert suite.name.startswith(f"MLS_{level}_DHKEM")


@each_suite
def test_a_suite_s_algorithms_are_those_of_its_name(suite: Suite) -> None:
    _, _, kem, aead, hash_name, signature = suite.name.split("_")
    parts = suite.hpke
    assert parts.kem.name.replace("-", "") == f"DHKEM({kem.removeprefix('DHKEM')})"
    assert parts.aead.name.replace("-", "").upper() == aead
    assert parts.kdf.name == f"HKDF-{hash_name}"
    assert suite.hash_length * 8 == int(hash_name.removeprefix("SHA"))
    names = {"P256": "ECDSA secp256r1", "P384": "ECDSA secp384r1", "P521": "ECDSA secp521r1"}
    assert suite.signature.name == names.get(signature, signature)


@pytest.mark.parametrize("number", [0, 8, 0x0A0A, 0xF000, 65536, -1])
def test_an_unknown_suite_is_unsupported(number: int) -> None:
    with pytest.raises(UnsupportedError, match="1, 2, 3, 4, 5, 6, 7") as caught:
        suite_of(number)
    assert caught.value.rule == "5.1/cipher-suite"


# -- hash, MAC, key derivation


@each_suite
def test_the_short_forms_are_expand_with_label(suite: Suite) -> None:
    secret = os.urandom(suite.hash_length)
    full = suite.expand_with_label
    assert suite.derive_secret(secret, "epoch") == full(secret, "epoch", b"", suite.hash_length)
    generation = (7).to_bytes(4)
    assert suite.derive_tree_secret(secret, "key", 7, 16) == full(secret, "key", generation, 16)
    lengths = {"key": suite.key_length, "nonce": suite.nonce_length, "secret": suite.hash_length}
    assert suite.derive_generation(secret, 7) == tuple(
        full(secret, label, generation, length) for label, length in lengths.items()
    )
    labels = ("epoch", "init", "a label that nobody uses")
    derived = suite.derive_secrets(secret, labels)
    assert derived == [full(secret, label, b"", suite.hash_length) for label in labels]
    for context in (b"", b"context", bytes(100)):
        assert suite.key_and_nonce(secret, context) == (
            full(secret, "key", context, suite.key_length),
            full(secret, "nonce", context, suite.nonce_length),
        )


@each_suite
def test_what_is_derived_is_secret(suite: Suite) -> None:
    secret = suite.extract(b"salt", b"ikm")
    assert len(secret) == suite.hash_length
    for derived in (
        secret,
        suite.expand(secret, b"info", 1000),
        suite.expand_with_label(secret, "label", b"context", 16),
        suite.derive_secret(secret, "label"),
        suite.derive_tree_secret(secret, "label", 0, 16),
        *suite.derive_generation(secret, 0),
        *suite.derive_secrets(secret, ("label", "another")),
        *suite.key_and_nonce(secret, b"context"),
    ):
        assert isinstance(derived, Secret)


def test_a_kdf_label_of_any_length_is_encoded_as_the_section_says() -> None:
    secret, context = os.urandom(32), os.urandom(100)
    label = b"MLS 1.0 " + b"x" * 92
    info = b"\x00\x14" + b"\x40\x64" + label + b"\x40\x64" + context
    assert ONE.expand_with_label(secret, "x" * 92, context, 20) == ONE.expand(secret, info, 20)


@each_suite
def test_references_have_their_labels(suite: Suite) -> None:
    value = os.urandom(70)
    expected = suite.hash(b"\x1cMLS 1.0 KeyPackage Reference\x40\x46" + value)
    assert suite.key_package_ref(value) == expected
    assert suite.proposal_ref(value) == suite.hash(
        b"\x1aMLS 1.0 Proposal Reference\x40\x46" + value
    )


@each_suite
def test_a_mac_verifies_only_whole(suite: Suite) -> None:
    tag = suite.mac(b"key", b"data")
    assert len(tag) == suite.hash_length
    suite.verify_mac(b"key", b"data", tag, RULE)
    for bad in (b"", tag[:-1], tag + b"\0", tag[:16], tag[:-1] + bytes((tag[-1] ^ 1,))):
        with pytest.raises(VerificationError) as caught:
            suite.verify_mac(b"key", b"data", bad, RULE)
        assert caught.value.rule == RULE
    with pytest.raises(VerificationError):
        suite.verify_mac(b"key", b"Data", tag, RULE)


# -- signatures


@each_suite
def test_a_signature_holds_for_its_key_label_and_content_only(suite: Suite) -> None:
    key, other = (suite.generate_signature_key(os.urandom) for _ in range(2))
    signature = suite.sign_with_label(key, "Label", b"content")
    suite.verify_with_label(key.public, "Label", b"content", signature, rule=RULE)
    flipped = signature[:-1] + bytes((signature[-1] ^ 1,))
    for job in (
        (other.public, "Label", b"content", signature),
        (key.public, "label", b"content", signature),
        (key.public, "Label", b"Content", signature),
        (key.public, "Label", b"content", flipped),
        (key.public, "Label", b"content", signature + b"\0"),
        (key.public, "Label", b"content", signature[:-1]),
        (key.public, "Label", b"content", b""),
        (b"", "Label", b"content", signature),
        (key.public + b"\0", "Label", b"content", signature),
    ):
        with pytest.raises(VerificationError) as caught:
            suite.verify_with_label(*job, rule=RULE)
        assert caught.value.rule == RULE


@each_suite
@given(public=st.binary(max_size=140), signature=st.binary(max_size=150))
def test_verifying_garbage_raises_a_verification_error(
    suite: Suite, public: bytes, signature: bytes
) -> None:
    good = suite.signature.generate(lambda length: b"\x01" * length).public
    garbled = (public * 140)[: len(good)] if public else bytes(len(good))
    for key in (public, garbled, good[:1] + garbled[1:], good):
        with pytest.raises(VerificationError):
            suite.verify_with_label(key, "Label", b"content", signature, rule=RULE)


@each_suite
def test_the_same_key_signs_the_same_content_alike(suite: Suite) -> None:
    def history() -> tuple[bytes, bytes]:
        key = suite.generate_signature_key(lambda length: bytes(range(1, length + 1)))
        return key.public, suite.sign_with_label(key, "Label", b"content")

    assert history() == history()


def test_without_deterministic_nonces_in_openssl_ecdsa_takes_random_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = ec.ECDSA

    def older(algorithm: hashes.HashAlgorithm, *, deterministic_signing: bool = False) -> ec.ECDSA:
        if deterministic_signing:
            raise UnsupportedAlgorithm("OpenSSL is too old")
        return real(algorithm)

    # pyca looks its class up at the first signature of a process, and must not find the one below.
    crypto.ECDSA_P256.sign(crypto.ECDSA_P256.generate(os.urandom).key, b"message")
    monkeypatch.setattr(ec, "ECDSA", older)
    scheme = crypto._ecdsa(ec.SECP256R1(), P256_ORDER, hashes.SHA256())
    key = scheme.generate(os.urandom)
    signatures = {scheme.sign(key.key, b"message") for _ in range(2)}
    assert len(signatures) == 2
    for signature in signatures:
        scheme.verify(key.public, signature, b"message")


@each_suite
def test_a_signature_key_that_was_stored_is_the_same_key(suite: Suite) -> None:
    key = suite.generate_signature_key(os.urandom)
    assert suite.load_signature_key(bytes(key.private_bytes())).public == key.public
    suite.check_signature_public_key(key.public)


@each_suite
def test_a_signature_key_shows_and_pickles_nothing(suite: Suite) -> None:
    key = suite.generate_signature_key(os.urandom)
    assert isinstance(key.private_bytes(), Secret)
    assert repr(key) == str(key) == f"<SignaturePrivateKey {suite.signature.name}>"
    assert copy.deepcopy(key) is key
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key)


@each_suite
def test_bytes_that_are_no_signature_key_are_refused_at_once(suite: Suite) -> None:
    good = bytes(suite.generate_signature_key(os.urandom).private_bytes())
    bad = [b"", good[:-1], good + b"\0"]
    order = suite.signature.order
    if order:
        bad += [bytes(len(good)), order.to_bytes(len(good)), b"\xff" * len(good)]
    for private in bad:
        with pytest.raises(DecodeError, match="private key"):
            suite.load_signature_key(private)


@pytest.mark.parametrize("suite", ECDSA_SUITES)
def test_only_an_uncompressed_point_of_the_curve_is_an_ecdsa_public_key(suite: Suite) -> None:
    good = suite.generate_signature_key(os.urandom).public
    half = (len(good) - 1) // 2
    for public in (
        b"",
        b"\0",
        good[:-1],
        good + b"\0",
        good[:-1] + bytes((good[-1] ^ 1,)),
        bytes((2 + (good[-1] & 1),)) + good[1 : 1 + half],
        bytes((6 + (good[-1] & 1),)) + good[1:],
    ):
        with pytest.raises(VerificationError) as caught:
            suite.check_signature_public_key(public)
        assert caught.value.rule == "5.1.1/signature-public-key"


@pytest.mark.parametrize(("number", "length"), [(1, 32), (3, 32), (4, 57), (6, 57)])
def test_an_eddsa_public_key_has_its_length(number: int, length: int) -> None:
    suite_of(number).check_signature_public_key(bytes(length))
    for wrong in (0, length - 1, length + 1):
        with pytest.raises(VerificationError):
            suite_of(number).check_signature_public_key(bytes(wrong))


@pytest.mark.parametrize("suite", ECDSA_SUITES)
def test_random_bytes_that_are_no_scalar_are_drawn_again(suite: Suite) -> None:
    scheme = suite.signature
    draws = [b"\xff" * scheme.private_length, bytes(scheme.private_length)]
    good = bytes(scheme.private_length - 1) + b"\x05"
    key = scheme.generate(lambda _: draws.pop() if draws else good)
    assert key.private_bytes() == good
    with pytest.raises(ValueError, match="random source"):
        scheme.generate(bytes)


def test_bits_above_a_scalar_s_length_are_taken_off() -> None:
    scheme = suite_of(5).signature
    key = scheme.generate(lambda length: b"\xfe" + b"\x05" * (length - 1))
    assert key.private_bytes() == b"\0" + b"\x05" * 65


def test_a_key_of_another_scheme_signs_nothing() -> None:
    key = suite_of(2).generate_signature_key(os.urandom)
    with pytest.raises(ValueError, match="Ed25519"):
        ONE.sign_with_label(key, "Label", b"content")


# -- many signatures


@pytest.fixture(scope="module")
def jobs() -> list[SignatureJob]:
    key = ONE.generate_signature_key(os.urandom)
    contents = [str(number).encode() for number in range(150)]
    return [(key.public, "L", text, ONE.sign_with_label(key, "L", text)) for text in contents]


@pytest.mark.parametrize("count", [0, 1, 64, 65, 150])
def test_many_good_signatures_verify_and_progress_is_told(
    jobs: list[SignatureJob], count: int
) -> None:
    told: list[int] = []
    ONE.verify_many(iter(jobs[:count]), rule=RULE, progress=told.append)
    assert told == [number for number in (64, 128) if number <= count] + (
        [count] if count % 64 else []
    )


@pytest.mark.parametrize("bad", [{0}, {63}, {64}, {149}, {70, 140}])
def test_the_first_bad_signature_of_many_is_named(jobs: list[SignatureJob], bad: set[int]) -> None:
    spoilt = [
        (public, label, content, bytes(64) if number in bad else signature)
        for number, (public, label, content, signature) in enumerate(jobs)
    ]
    with ThreadPoolExecutor(2) as threads:
        for map_ in (map, threads.map):
            with pytest.raises(VerificationError, match=f"signature {min(bad)} ") as caught:
                ONE.verify_many(spoilt, rule=RULE, map=map_)
            assert caught.value.rule == RULE


def test_many_signatures_are_each_verified_by_the_one_operation(
    jobs: list[SignatureJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[SignatureJob] = []

    def verify_batch(self: Suite, batch: list[SignatureJob]) -> tuple[int, bool]:
        verified.extend(batch)
        return len(batch), True

    monkeypatch.setattr(Suite, "verify_batch", verify_batch)
    ONE.verify_many(jobs, rule=RULE)
    assert verified == jobs


@each_suite
def test_many_keys_are_checked_as_each_alone(suite: Suite) -> None:
    hpke_keys = [suite.generate_hpke_key(os.urandom).public for _ in range(3)]
    signature_keys = [suite.generate_signature_key(os.urandom).public for _ in range(3)]
    suite.check_hpke_public_keys(hpke_keys)
    suite.check_signature_public_keys(signature_keys)
    for bad in (b"", bytes(len(hpke_keys[0])), hpke_keys[0] + b"\0"):
        with pytest.raises(VerificationError) as caught:
            suite.check_hpke_public_keys([*hpke_keys, bad, *hpke_keys])
        assert caught.value.rule == "5.1.1/hpke-public-key"
    for bad in (b"", signature_keys[0][:-1], signature_keys[0] + b"\0"):
        with pytest.raises(VerificationError) as caught:
            suite.check_signature_public_keys([*signature_keys, bad])
        assert caught.value.rule == Rule.SIGNATURE_PUBLIC_KEY


def test_of_many_keys_the_first_bad_one_is_told() -> None:
    with pytest.raises(VerificationError, match="has 1 bytes"):
        ONE.check_hpke_public_keys([b"x", b"xy"])
    with pytest.raises(VerificationError, match="has 1 bytes"):
        ONE.check_signature_public_keys([b"x", b"xy"])


@each_suite
def test_hashes_of_many_are_those_of_each(suite: Suite) -> None:
    data = [b"", b"a", bytes(1000)]
    assert suite.hash_many(data) == [suite.hash(each) for each in data]


# -- encryption


@each_suite
def test_what_is_sealed_with_a_label_opens_with_it_only(suite: Suite) -> None:
    key = suite.generate_hpke_key(os.urandom)
    suite.check_hpke_public_key(key.public)
    sealed = [
        suite.encrypt_with_label(key.public, "Label", b"context", b"plaintext", os.urandom),
        suite.sealer("Label", b"context").seal(key.public, b"plaintext", os.urandom),
    ]
    for kem_output, ciphertext in sealed:
        opened = suite.decrypt_with_label(key, "Label", b"context", kem_output, ciphertext)
        assert opened == b"plaintext"
        assert isinstance(opened, Secret)
        for label, context in (("label", b"context"), ("Label", b"Context")):
            with pytest.raises(DecryptionError):
                suite.decrypt_with_label(key, label, context, kem_output, ciphertext)


def test_the_encrypt_context_is_encoded_as_the_section_says() -> None:
    key = ONE.generate_hpke_key(os.urandom)
    kem_output, ciphertext = ONE.encrypt_with_label(key.public, "L", b"ctx", b"pt", os.urandom)
    info = b"\x09MLS 1.0 L\x03ctx"
    assert ONE.hpke.open(key, kem_output, info, b"", ciphertext) == b"pt"


@each_suite
def test_a_derived_key_pair_is_always_the_same(suite: Suite) -> None:
    one, two = suite.derive_key_pair(b"seed"), suite.derive_key_pair(b"seed")
    assert one.public == two.public
    assert one.private_bytes() == two.private_bytes()
    assert suite.load_hpke_key(one.private_bytes()).public == one.public
    assert suite.derive_key_pair(b"Seed").public != one.public


@each_suite
def test_both_sides_of_an_external_init_export_one_secret(suite: Suite) -> None:
    key = suite.derive_key_pair(b"external secret")
    length = suite.hash_length
    kem_output, secret = suite.export_seal(key.public, b"", b"label", length, os.urandom)
    assert len(secret) == length
    assert suite.export_open(key, kem_output, b"", b"label", length) == secret
    assert suite.export_open(key, kem_output, b"", b"Label", length) != secret


@each_suite
def test_a_ciphertext_opens_under_its_key_nonce_and_data_only(suite: Suite) -> None:
    key, nonce = os.urandom(suite.key_length), os.urandom(suite.nonce_length)
    sealed = suite.aead_seal(key, nonce, b"aad", b"plaintext")
    opened = suite.aead_open(key, nonce, b"aad", sealed)
    assert opened == b"plaintext"
    assert isinstance(opened, Secret)
    for arguments in (
        (os.urandom(suite.key_length), nonce, b"aad", sealed),
        (key, os.urandom(suite.nonce_length), b"aad", sealed),
        (key, nonce, b"Aad", sealed),
        (key, nonce, b"aad", sealed[:-1]),
        (key, nonce, b"aad", sealed + b"\0"),
        (key, nonce, b"aad", b""),
    ):
        with pytest.raises(DecryptionError) as caught:
            suite.aead_open(*arguments, rule=RULE)
        assert caught.value.rule == RULE
