"""What is said about MLS bytes: recognised in any form, named as in the RFC, verified where that can be."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import CoterieError, DecodeError, StateError, UnsupportedError
from coterie.interop.inspecting import STRUCTS, Description, describe
from coterie.interop.vectors.kind import seeded
from coterie.interop.vectors.sources import SimulatedGroup, new_client
from coterie.mls.credential import Credential
from coterie.mls.crypto import suite_of
from coterie.mls.extension import Extension, capabilities
from coterie.mls.framing import MLSMessage, PublicMessage
from coterie.mls.key_package import KeyPackage, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.types import ExtensionType
from tests.structs import all_structs, structs
from tests.vector_files import own

CASE: dict[str, str] = own("messages").cases[0]
BYTES = {name: bytes.fromhex(value) for name, value in CASE.items()}
RNG = seeded(7)


def facts(found: Description) -> dict[tuple[str, str], tuple[str, bool | None]]:
    return {(path, fact.name): (fact.value, fact.good) for path, fact in found.root.all_facts()}


def goods(found: Description) -> set[bool | None]:
    return {fact.good for _, fact in found.root.all_facts()}


def value_of(found: Description, *names: str) -> Any:
    item = found.root
    for name in names:
        item = next(child for child in item.children if child.name == name)
    return item


# -- forms


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("binary", BYTES["mls_welcome"]),
        ("hexadecimal", CASE["mls_welcome"].encode()),
        ("hexadecimal", CASE["mls_welcome"].upper().encode() + b"\r\n"),
        ("hexadecimal", b'"' + CASE["mls_welcome"].encode() + b'"'),
        ("hexadecimal", BYTES["mls_welcome"].hex(":").encode()),
        ("hexadecimal", b"0x" + CASE["mls_welcome"].encode()),
        ("base64", base64.b64encode(BYTES["mls_welcome"])),
        ("base64", base64.encodebytes(BYTES["mls_welcome"])),
        ("base64", base64.urlsafe_b64encode(BYTES["mls_welcome"]).rstrip(b"=")),
        (
            "PEM (MLS MESSAGE)",
            b"Hello,\n-----BEGIN MLS MESSAGE-----\nComment: none\n\n"
            + base64.encodebytes(BYTES["mls_welcome"])
            + b"-----END MLS MESSAGE-----\n-- \nsignature",
        ),
    ],
)
def test_a_message_is_read_in_every_form(form: str, data: bytes) -> None:
    found = describe(data)
    assert (found.form, found.type_name) == (form, "MLSMessage (Welcome)")
    assert found.size == len(BYTES["mls_welcome"])


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("mls_welcome", "MLSMessage (Welcome)"),
        ("mls_group_info", "MLSMessage (GroupInfo)"),
        ("mls_key_package", "MLSMessage (KeyPackage)"),
        ("public_message_commit", "MLSMessage (PublicMessage)"),
        ("private_message", "MLSMessage (PrivateMessage)"),
        ("ratchet_tree", "ratchet_tree"),
        ("add_proposal", "KeyPackage"),
        ("update_proposal", "LeafNode"),
    ],
)
def test_what_it_is_is_recognised(name: str, type_name: str) -> None:
    assert describe(BYTES[name]).type_name == type_name


@pytest.mark.parametrize(
    ("name", "type_name"),
    [
        ("group_secrets", "GroupSecrets"),
        ("commit", "commit"),
        ("re_init_proposal", "ReInit"),
        ("pre_shared_key_proposal", "presharedkey"),
    ],
)
def test_any_struct_is_read_by_its_name(name: str, type_name: str) -> None:
    found = describe(CASE[name].encode(), type_name)
    assert found.type_name.lower() == type_name.lower()
    assert found.struct.encode() == BYTES[name]


def test_a_struct_that_depends_on_a_content_type_is_read_with_it() -> None:
    found = describe(bytes.fromhex("02 6869 01 aa 0000"), "PrivateMessageContent:application")
    assert value_of(found, "application_data").note == '"hi"'
    with pytest.raises(StateError, match="PrivateMessageContent:commit"):
        describe(b"\0", "PrivateMessageContent")


def test_a_name_that_is_no_struct_is_an_error_that_names_similar_ones() -> None:
    with pytest.raises(StateError, match="LeafNode"):
        describe(b"\0", "LeafNod")


@pytest.mark.parametrize("name", [n for n in BYTES if n.startswith("mls_")])
def test_a_message_that_is_cut_off_is_reported_as_such_and_not_as_something_else(name: str) -> None:
    with pytest.raises(DecodeError) as caught:
        describe(CASE[name][:-2].encode())
    assert caught.value.rule is not None
    assert caught.value.rule.startswith("2.1")


def test_bytes_that_are_nothing_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DecodeError, match="--type"):
        describe(b"certainly not MLS")


def test_a_suite_that_is_not_known_is_an_error() -> None:
    with pytest.raises(UnsupportedError):
        describe(BYTES["ratchet_tree"], suite=99)


# -- what is known


def test_a_good_key_package_verifies_and_has_its_reference() -> None:
    found = describe(BYTES["mls_key_package"], now=5)
    package = found.struct.body  # type: ignore[attr-defined]
    known = facts(found)
    assert known["key_package", "KeyPackageRef"] == (package.reference().hex(), None)
    assert known["key_package", "signature"] == ("valid", True)
    assert known["key_package.leaf_node", "signature"][1] is True
    assert known["key_package.leaf_node.lifetime", "now"] == ("valid", True)
    assert False not in goods(found)


def changed(package: KeyPackage, **changes: Any) -> bytes:
    return package.replace(**changes).encode()


def test_a_key_package_with_another_signature_does_not_verify() -> None:
    package = new_client(suite_of(2), RNG).key_package
    known = facts(describe(changed(package, signature=b"\0" * 70), "KeyPackage"))
    assert known["", "signature"][1] is False
    assert "10.1/signature" in known["", "signature"][0]
    assert known["leaf_node", "signature"][1] is True


def test_a_leaf_with_another_signature_does_not_verify() -> None:
    package = new_client(suite_of(7), RNG).key_package
    leaf = package.leaf_node.replace(signature=b"\0" * 70)
    assert facts(describe(changed(package, leaf_node=leaf)))["leaf_node", "signature"][1] is False


def test_a_key_package_that_breaks_a_rule_names_the_rule() -> None:
    package = new_client(suite_of(1), RNG).key_package
    twin = changed(package, init_key=package.leaf_node.encryption_key)
    assert "10.1/init-key" in facts(describe(twin, "KeyPackage"))["", "checks of §10.1"][0]


def test_a_key_package_of_an_unknown_suite_is_shown_and_not_judged() -> None:
    package = new_client(suite_of(1), RNG).key_package
    found = describe(changed(package, cipher_suite=type(package.cipher_suite)(0xF00D)))
    assert facts(found)["", "KeyPackageRef"][1] is None
    assert value_of(found, "cipher_suite").value == "0xf00d (not known here)"


@pytest.mark.parametrize(("now", "word"), [(5, "not valid yet"), (15, "valid"), (25, "expired")])
def test_a_lifetime_is_judged_by_the_clock(now: int, word: str) -> None:
    suite = suite_of(1)
    package = create_key_package(
        suite,
        suite.generate_signature_key(RNG),
        Credential.basic(b"alice"),
        capabilities(cipher_suites=[1]),
        Lifetime(10, 20),
        rng=RNG,
    ).key_package
    found = describe(package.encode(), now=now)
    assert facts(found)["leaf_node.lifetime", "now"] == (word, word == "valid")


def test_a_group_info_verifies_with_the_tree_that_is_in_it() -> None:
    found = describe(BYTES["mls_group_info"])
    known = facts(found)
    tree = "group_info.extensions[0].extension_data"
    assert known["group_info", "signature"] == ("valid", True)
    assert known["group_info", "ratchet tree"][1] is True
    context = found.struct.body.group_context  # type: ignore[attr-defined]
    assert known[tree, "tree hash"][0] == context.tree_hash.hex()
    assert known[f"{tree}[0]", "signature"][1] is True
    assert False not in goods(found)


def test_a_group_info_with_another_tree_hash_does_not_verify() -> None:
    info: Any = MLSMessage.decode(BYTES["mls_group_info"]).body
    context = info.group_context.replace(tree_hash=b"\0" * 32)
    known = facts(describe(info.replace(group_context=context).encode(), "GroupInfo"))
    assert known["", "signature"][1] is False
    assert "12.4.3.1/tree-hash" in known["", "ratchet tree"][0]


def test_a_group_info_without_a_tree_says_what_is_missing() -> None:
    info: Any = MLSMessage.decode(BYTES["mls_group_info"]).body
    known = facts(describe(info.replace(extensions=()).encode(), "GroupInfo"))
    assert known["", "signature"][1] is None
    assert "tree" in known["", "signature"][0]


def test_a_group_info_with_a_malformed_tree_is_shown() -> None:
    info: Any = MLSMessage.decode(BYTES["mls_group_info"]).body
    broken = info.replace(extensions=(Extension(ExtensionType.RATCHET_TREE, b"\x05\x01"),))
    found = describe(broken.encode(), "GroupInfo")
    assert facts(found)["", "ratchet tree"][1] is False
    assert "malformed" in value_of(found, "extensions", "[0]").note


def test_a_tree_by_itself_has_its_hash_and_its_parent_hashes_are_verified() -> None:
    known = facts(describe(BYTES["ratchet_tree"]))
    wanted: Any = MLSMessage.decode(BYTES["mls_group_info"]).body
    assert known["", "tree hash"][0] == wanted.group_context.tree_hash.hex()
    assert known["", "parent hashes"] == ("valid", True)


def test_a_tree_with_a_wrong_parent_hash_is_reported() -> None:
    vector = own("tree-validation").cases[3]
    data = bytearray.fromhex(vector["tree"])
    tree: Any = describe(bytes(data), "ratchet_tree").struct
    parent = tree.ratchet_tree[1]
    wrong = parent.replace(node=parent.node.replace(parent_hash=b"\1" * 32))
    nodes = (tree.ratchet_tree[0], wrong, *tree.ratchet_tree[2:])
    known = facts(describe(tree.replace(ratchet_tree=nodes).encode(), "ratchet_tree"))
    assert "7.9.2/parent-hash" in known["", "parent hashes"][0]


def test_the_reference_of_a_proposal_is_that_by_which_commits_name_it() -> None:
    group = SimulatedGroup(suite_of(1), seeded(3), private=False)
    group.add(1)
    sent = group.groups[0].propose_remove(1)
    group.deliver(sent, group.groups[0])
    waiting = group.groups[0].pending_proposals[0].reference
    assert waiting is not None
    known = facts(describe(sent.encode()))
    assert known["public_message", "ProposalRef with SHA-256"][0] == waiting.hex()
    known = facts(describe(sent.encode(), suite=1))
    assert known["public_message", "ProposalRef"][0] == waiting.hex()


def test_an_update_verifies_with_what_its_message_says() -> None:
    known = facts(describe(BYTES["public_message_proposal"]))
    leaf = "public_message.content.proposal.update.leaf_node"
    assert known[leaf, "signature"] == ("valid (Ed25519)", True)
    message: Any = MLSMessage.decode(BYTES["public_message_proposal"])
    content = message.body.content.replace(group_id=b"another")
    other = MLSMessage.of(message.body.replace(content=content))
    assert facts(describe(other.encode()))[leaf, "signature"][1] is False


def test_application_data_in_the_clear_is_reported() -> None:
    known = facts(describe(BYTES["public_message_application"]))
    assert known["public_message", "framing"][1] is False


def test_a_signature_that_cannot_be_judged_says_why() -> None:
    assert isinstance(MLSMessage.decode(BYTES["public_message_commit"]).body, PublicMessage)
    known = facts(describe(BYTES["public_message_commit"]))
    assert known["public_message", "signature"][1] is None
    assert "GroupContext" in known["public_message", "signature"][0]


# -- how it is shown


def test_every_struct_of_the_core_that_travels_can_be_asked_for() -> None:
    private = ("group.", "key_schedule", "public_group", "ratchet_tree.subtree", "secret_tree")
    travelling = {
        cls.__name__
        for cls in all_structs()
        if not cls.__module__.removeprefix("coterie.mls.").startswith(private)
    }
    assert travelling <= STRUCTS.keys()


def test_text_in_an_identity_cannot_act_on_the_terminal() -> None:
    suite = suite_of(1)
    package = create_key_package(
        suite,
        suite.generate_signature_key(RNG),
        Credential.basic("a\x1b[31m\u202eecila\u2028\u200b".encode()),
        capabilities(cipher_suites=[1]),
        Lifetime(0, 20),
        rng=RNG,
    ).key_package
    note = value_of(describe(package.encode()), "leaf_node", "credential", "identity").note
    assert note == '"a⟨U+001B⟩[31m⟨U+202E⟩ecila⟨U+2028⟩⟨U+200B⟩"'


def test_a_certificate_shows_its_subject_and_junk_that_it_is_none() -> None:
    found = describe(Credential.x509((b"junk",)).encode(), "Credential")
    assert "not a certificate" in value_of(found, "certificates", "[0]").note


def test_a_certificate_is_read() -> None:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice\u202e")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=1))
    certificate = builder.sign(key, None)
    der = certificate.public_bytes(serialization.Encoding.DER)
    found = describe(Credential.x509((der,)).encode(), "Credential")
    note = value_of(found, "certificates", "[0]").note
    assert note == "subject CN=alice⟨U+202E⟩, issuer CN=alice⟨U+202E⟩, valid until 2026-01-02"


def test_the_json_form_has_the_mapping_and_the_facts() -> None:
    found = describe(BYTES["mls_key_package"], now=5)
    said = json.loads(json.dumps(found.to_json()))
    assert MLSMessage.from_json(said["fields"]).encode() == BYTES["mls_key_package"]
    assert said["type"] == "MLSMessage (KeyPackage)"
    assert {"path": "key_package", "name": "signature", "value": "valid", "good": True} in said[
        "computed"
    ]


# -- whatever comes


def looked_at(data: bytes, type_name: str | None = None) -> None:
    try:
        found = describe(data, type_name, now=1_700_000_000)
    except CoterieError:
        return
    json.dumps(found.to_json())


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@settings(max_examples=200)
def test_any_input_is_described_or_raises_one_of_our_errors(data: bytes) -> None:
    looked_at(data)


@pytest.mark.parametrize("name", list(BYTES))
@settings(max_examples=15)
@given(data=st.data())
def test_a_changed_object_is_described_or_raises_one_of_our_errors(
    name: str, data: st.DataObject
) -> None:
    changed = bytearray(BYTES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    looked_at(bytes(changed))
    looked_at(bytes(changed).hex().encode())


@pytest.mark.parametrize("name", sorted(STRUCTS))
@settings(max_examples=8)
@given(data=st.data())
def test_every_struct_that_can_be_made_is_described(name: str, data: st.DataObject) -> None:
    cls = STRUCTS[name]
    if name in {"FramedContentAuthData", "PrivateMessageContent"}:
        looked_at(data.draw(st.binary(max_size=80)), f"{name}:commit")
        return
    struct: Any = data.draw(structs(cls))
    found = describe(struct.encode(), name, now=1_700_000_000)
    json.dumps(found.to_json())
    if found.form == "binary":
        assert found.struct == struct
