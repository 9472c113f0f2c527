"""The official vectors crypto-basics.json: RefHash, ExpandWithLabel and its kin, SignWithLabel, EncryptWithLabel."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from coterie.mls.crypto import SUPPORTED_CIPHER_SUITES, Suite, suite_of
from tests.vector_files import (
    assert_change_is_noticed,
    assert_official_vectors_hold,
    assert_own_vectors_hold,
)


@pytest.fixture(scope="module")
def vectors(shared: Path) -> dict[int, dict[str, Any]]:
    """The vectors by cipher suite."""
    every = json.loads((shared / "test-vectors" / "crypto-basics.json").read_text())
    return {vector["cipher_suite"]: vector for vector in every}


def case(
    vectors: dict[int, dict[str, Any]], cipher_suite: int, name: str
) -> tuple[Suite, dict[str, Any]]:
    """One case of one suite, with byte strings for the hex."""
    entries = vectors[cipher_suite][name]
    return suite_of(cipher_suite), {
        field: bytes.fromhex(value) if isinstance(value, str) and field != "label" else value
        for field, value in entries.items()
    }


def test_every_suite_of_the_vectors_is_supported(vectors: dict[int, dict[str, Any]]) -> None:
    assert set(vectors) == set(SUPPORTED_CIPHER_SUITES)


each_suite = pytest.mark.parametrize("cipher_suite", SUPPORTED_CIPHER_SUITES)


@each_suite
def test_ref_hash(vectors: dict[int, dict[str, Any]], cipher_suite: int) -> None:
    suite, v = case(vectors, cipher_suite, "ref_hash")
    assert suite.ref_hash(v["label"], v["value"]) == v["out"]


@each_suite
def test_expand_with_label(vectors: dict[int, dict[str, Any]], cipher_suite: int) -> None:
    suite, v = case(vectors, cipher_suite, "expand_with_label")
    derived = suite.expand_with_label(v["secret"], v["label"], v["context"], v["length"])
    assert derived == v["out"]


@each_suite
def test_derive_secret(vectors: dict[int, dict[str, Any]], cipher_suite: int) -> None:
    suite, v = case(vectors, cipher_suite, "derive_secret")
    assert suite.derive_secret(v["secret"], v["label"]) == v["out"]


@each_suite
def test_derive_tree_secret(vectors: dict[int, dict[str, Any]], cipher_suite: int) -> None:
    suite, v = case(vectors, cipher_suite, "derive_tree_secret")
    derived = suite.derive_tree_secret(v["secret"], v["label"], v["generation"], v["length"])
    assert derived == v["out"]


@each_suite
def test_sign_with_label(vectors: dict[int, dict[str, Any]], cipher_suite: int) -> None:
    suite, v = case(vectors, cipher_suite, "sign_with_label")
    key = suite.load_signature_key(v["priv"])
    assert key.public == v["pub"]
    own = suite.sign_with_label(key, v["label"], v["content"])
    for signature in (v["signature"], own):
        suite.verify_with_label(v["pub"], v["label"], v["content"], signature, rule="rule")


@each_suite
def test_encrypt_with_label(vectors: dict[int, dict[str, Any]], cipher_suite: int) -> None:
    suite, v = case(vectors, cipher_suite, "encrypt_with_label")
    key = suite.load_hpke_key(v["priv"])
    assert key.public == v["pub"]
    label, context = v["label"], v["context"]
    own = suite.encrypt_with_label(v["pub"], label, context, v["plaintext"], os.urandom)
    for kem_output, ciphertext in ((v["kem_output"], v["ciphertext"]), own):
        opened = suite.decrypt_with_label(key, label, context, kem_output, ciphertext)
        assert opened == v["plaintext"]


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "crypto-basics", 7)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("crypto-basics")


@pytest.mark.parametrize(
    "path",
    [
        "ref_hash.out",
        "expand_with_label.out",
        "derive_secret.out",
        "derive_tree_secret.out",
        "derive_tree_secret.generation",
        "sign_with_label.priv",
        "sign_with_label.signature",
        "sign_with_label.content",
        "encrypt_with_label.priv",
        "encrypt_with_label.context",
        "encrypt_with_label.kem_output",
        "encrypt_with_label.ciphertext",
        "encrypt_with_label.plaintext",
    ],
)
@pytest.mark.parametrize("case", [0, 4, 6])
def test_a_changed_value_is_noticed(path: str, case: int) -> None:
    assert_change_is_noticed("crypto-basics", path, case)
