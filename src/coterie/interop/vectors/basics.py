"""Vectors that need no group: tree-math, deserialization, crypto-basics (RFC 9420 §2.1.2, §5, appendix C)."""

from __future__ import annotations

import os
from itertools import pairwise

from coterie.interop.vectors.kind import Case, Generated, Kind, expect, longest
from coterie.mls.crypto import Suite
from coterie.mls.hpke import RandomSource
from coterie.mls.rules import Rule
from coterie.mls.tls import JSON, decode_varint, encode_varint
from coterie.mls.tree_math import NodeIndex, node_width, root

_MAX_LEAVES = 1 << 20


def _relations(leaf_count: int) -> dict[str, list[int | None]]:
    """The columns of a tree-math case."""
    top = root(leaf_count)
    nodes = [NodeIndex(n) for n in range(node_width(leaf_count))]
    return {
        "left": [None if n.is_leaf() else int(n.left()) for n in nodes],
        "right": [None if n.is_leaf() else int(n.right()) for n in nodes],
        "parent": [None if n == top else int(n.parent()) for n in nodes],
        "sibling": [None if n == top else int(n.sibling()) for n in nodes],
    }


def verify_tree_math(case: Case) -> None:
    """Positions in a full tree."""
    leaf_count = case.number("n_leaves", _MAX_LEAVES)
    expect("n_nodes", node_width(leaf_count), case.number("n_nodes"))
    expect("root", int(root(leaf_count)), case.number("root"))
    for name, column in _relations(leaf_count).items():
        expect(name, column, case.numbers(name))


def generate_tree_math(_suite: Suite, _rng: RandomSource) -> Generated:
    """Full trees of 1 to 64 leaves."""
    return [_tree_math(1 << depth) for depth in range(7)]


def _tree_math(leaf_count: int) -> dict[str, JSON]:
    columns: dict[str, JSON] = {name: list(c) for name, c in _relations(leaf_count).items()}
    return {
        "n_leaves": leaf_count,
        "n_nodes": node_width(leaf_count),
        "root": int(root(leaf_count)),
        **columns,
    }


def verify_deserialization(case: Case) -> None:
    """The header of a vector."""
    header = case.data("vlbytes_header")
    length, end = decode_varint(header, 0)
    expect("length", length, case.number("length"))
    expect("bytes of the header", end, len(header))
    expect("vlbytes_header", encode_varint(length), header)


def generate_deserialization(_suite: Suite, rng: RandomSource) -> Generated:
    """The ends of each range of lengths and something in between."""
    edges = (0, 64, 1 << 14, 1 << 30)
    lengths: set[int] = set()
    for low, high in pairwise(edges):
        lengths |= {low, low + 1, low + int.from_bytes(rng(4)) % (high - low), high - 1}
    return [{"vlbytes_header": encode_varint(n).hex(), "length": n} for n in sorted(lengths)]


def verify_crypto_basics(case: Case) -> None:
    """References, labelled derivation, signing and encryption."""
    suite = case.suite
    part = case.case("ref_hash")
    expect("ref_hash", suite.ref_hash(part.text("label"), part.data("value")), part.data("out"))
    part = case.case("expand_with_label")
    length = part.number("length", longest(suite))
    derived = suite.expand_with_label(
        part.data("secret"), part.text("label"), part.data("context"), length
    )
    expect("expand_with_label", bytes(derived), part.data("out"))
    part = case.case("derive_secret")
    derived = suite.derive_secret(part.data("secret"), part.text("label"))
    expect("derive_secret", bytes(derived), part.data("out"))
    part = case.case("derive_tree_secret")
    derived = suite.derive_tree_secret(
        part.data("secret"),
        part.text("label"),
        part.number("generation", 1 << 32),
        part.number("length", longest(suite)),
    )
    expect("derive_tree_secret", bytes(derived), part.data("out"))
    _verify_signature(suite, case.case("sign_with_label"))
    _verify_encryption(suite, case.case("encrypt_with_label"))


def _verify_signature(suite: Suite, part: Case) -> None:
    key = part.signature_key("priv", suite)
    public, label, content = part.data("pub"), part.text("label"), part.data("content")
    expect("sign_with_label.pub", key.public, public)
    own = suite.sign_with_label(key, label, content)
    for signature in (part.data("signature"), own):
        suite.verify_with_label(public, label, content, signature, rule=Rule.CONTENT_SIGNATURE)


def _verify_encryption(suite: Suite, part: Case) -> None:
    key = part.hpke_key("priv", suite)
    public, label, context = part.data("pub"), part.text("label"), part.data("context")
    plaintext = part.data("plaintext")
    expect("encrypt_with_label.pub", key.public, public)
    own = suite.encrypt_with_label(public, label, context, plaintext, os.urandom)
    for kem_output, ciphertext in ((part.data("kem_output"), part.data("ciphertext")), own):
        opened = suite.decrypt_with_label(key, label, context, kem_output, ciphertext)
        expect("encrypt_with_label.plaintext", bytes(opened), plaintext)


def generate_crypto_basics(suite: Suite, rng: RandomSource) -> Generated:
    """One case."""
    value, secret, context, content = rng(64), rng(suite.hash_length), rng(32), rng(48)
    signer, recipient = suite.generate_signature_key(rng), suite.generate_hpke_key(rng)
    sealed = suite.encrypt_with_label(recipient.public, "EncryptWithLabel", context, content, rng)
    length, generation = suite.hash_length // 2, int.from_bytes(rng(4))
    tree_secret = suite.derive_tree_secret(secret, "DeriveTreeSecret", generation, length)
    case: dict[str, JSON] = {
        "cipher_suite": int(suite.cipher_suite),
        "ref_hash": {
            "label": "RefHash",
            "value": value.hex(),
            "out": suite.ref_hash("RefHash", value).hex(),
        },
        "expand_with_label": {
            "secret": secret.hex(),
            "label": "ExpandWithLabel",
            "context": context.hex(),
            "length": length,
            "out": suite.expand_with_label(secret, "ExpandWithLabel", context, length).hex(),
        },
        "derive_secret": {
            "secret": secret.hex(),
            "label": "DeriveSecret",
            "out": suite.derive_secret(secret, "DeriveSecret").hex(),
        },
        "derive_tree_secret": {
            "secret": secret.hex(),
            "label": "DeriveTreeSecret",
            "generation": generation,
            "length": length,
            "out": tree_secret.hex(),
        },
        "sign_with_label": {
            "priv": signer.private_bytes().hex(),
            "pub": signer.public.hex(),
            "content": content.hex(),
            "label": "SignWithLabel",
            "signature": suite.sign_with_label(signer, "SignWithLabel", content).hex(),
        },
        "encrypt_with_label": {
            "priv": recipient.private_bytes().hex(),
            "pub": recipient.public.hex(),
            "label": "EncryptWithLabel",
            "context": context.hex(),
            "plaintext": content.hex(),
            "kem_output": sealed[0].hex(),
            "ciphertext": sealed[1].hex(),
        },
    }
    return [case]


TREE_MATH = Kind(
    "tree-math",
    frozenset({"n_leaves", "n_nodes", "left", "sibling"}),
    verify_tree_math,
    generate_tree_math,
    has_suites=False,
)
DESERIALIZATION = Kind(
    "deserialization",
    frozenset({"vlbytes_header", "length"}),
    verify_deserialization,
    generate_deserialization,
    has_suites=False,
)
CRYPTO_BASICS = Kind(
    "crypto-basics",
    frozenset({"cipher_suite", "ref_hash", "expand_with_label", "encrypt_with_label"}),
    verify_crypto_basics,
    generate_crypto_basics,
)
