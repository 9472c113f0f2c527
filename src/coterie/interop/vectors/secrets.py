"""Vectors of derived secrets: key-schedule, psk_secret, secret-tree, transcript-hashes (RFC 9420 §8, §9)."""

from __future__ import annotations

from coterie.interop.vectors.kind import Case, Generated, Kind, expect, longest
from coterie.mls.crypto import Suite
from coterie.mls.framing import (
    AuthenticatedContent,
    FramedContent,
    FramedContentAuthData,
    confirmed_transcript_hash,
    interim_transcript_hash,
)
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.hpke import RandomSource
from coterie.mls.key_schedule import (
    EpochSecrets,
    Joiner,
    confirmation_tag,
    exported_secret,
    external_key_pair,
    psk_secret,
)
from coterie.mls.private_message import sender_data_key
from coterie.mls.proposal import Commit
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import RatchetKind, SecretTree
from coterie.mls.tls import JSON
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    CipherSuite,
    ContentType,
    ProtocolVersion,
    Sender,
    SenderType,
    WireFormat,
)

_EXPORTED = 32


def context_of(
    suite: Suite, group_id: bytes, epoch: int, tree_hash: bytes, confirmed: bytes
) -> GroupContext:
    """A GroupContext without extensions."""
    number = CipherSuite(suite.cipher_suite)
    return GroupContext(ProtocolVersion.MLS10, number, group_id, epoch, tree_hash, confirmed, ())


# -- key-schedule


def verify_key_schedule(case: Case) -> None:
    """The secrets of one epoch after another."""
    suite, group_id = case.suite, case.data("group_id")
    init = case.data("initial_init_secret")
    for number, epoch in enumerate(case.cases("epochs")):
        context = context_of(
            suite,
            group_id,
            number,
            epoch.data("tree_hash"),
            epoch.data("confirmed_transcript_hash"),
        )
        expect("group_context", context.encode(), epoch.data("group_context"))
        joiner = Joiner.of_commit(
            suite, init, epoch.data("commit_secret"), epoch.data("psk_secret"), context
        )
        secrets, computed = _computed(suite, joiner, context)
        for name, value in computed.items():
            expect(f"epoch {number}: {name}", value, epoch.data(name))
        exporter = epoch.case("exporter")
        label, about = exporter.text("label"), exporter.data("context")
        exported = exported_secret(
            suite, secrets.exporter_secret, label, about, exporter.number("length", longest(suite))
        )
        expect(f"epoch {number}: exporter", bytes(exported), exporter.data("secret"))
        init = secrets.init_secret


def _computed(
    suite: Suite, joiner: Joiner, context: GroupContext
) -> tuple[EpochSecrets, dict[str, bytes]]:
    """The secrets of an epoch and everything that its vector says about them."""
    secrets, encryption_secret = joiner.epoch(context)
    named: dict[str, bytes] = {
        "joiner_secret": joiner.joiner_secret,
        "welcome_secret": suite.derive_secret(joiner.member_secret, "welcome"),
        "encryption_secret": encryption_secret,
        "sender_data_secret": secrets.sender_data_secret,
        "exporter_secret": secrets.exporter_secret,
        "external_secret": secrets.external_secret,
        "confirmation_key": secrets.confirmation_key,
        "membership_key": secrets.membership_key,
        "resumption_psk": secrets.resumption_psk,
        "epoch_authenticator": secrets.epoch_authenticator,
        "init_secret": secrets.init_secret,
        "external_pub": external_key_pair(suite, secrets.external_secret).public,
    }
    return secrets, {name: bytes(value) for name, value in named.items()}


def generate_key_schedule(suite: Suite, rng: RandomSource) -> Generated:
    """Five epochs, every other one with a pre-shared key."""
    size = suite.hash_length
    group_id, first = rng(32), rng(size)
    init: bytes = first
    epochs: list[JSON] = []
    for number in range(5):
        tree_hash, confirmed, commit_secret = rng(size), rng(size), rng(size)
        psk = rng(size) if number % 2 else bytes(size)
        context = context_of(suite, group_id, number, tree_hash, confirmed)
        joiner = Joiner.of_commit(suite, init, commit_secret, psk, context)
        secrets, computed = _computed(suite, joiner, context)
        label, about = f"exporter label {number}", rng(16)
        exported = exported_secret(suite, secrets.exporter_secret, label, about, _EXPORTED)
        epochs.append(
            {
                "tree_hash": tree_hash.hex(),
                "commit_secret": commit_secret.hex(),
                "psk_secret": psk.hex(),
                "confirmed_transcript_hash": confirmed.hex(),
                "group_context": context.encode().hex(),
                **{name: value.hex() for name, value in computed.items()},
                "exporter": {
                    "label": label,
                    "context": about.hex(),
                    "length": _EXPORTED,
                    "secret": exported.hex(),
                },
            }
        )
        init = secrets.init_secret
    case: dict[str, JSON] = {
        "cipher_suite": int(suite.cipher_suite),
        "group_id": group_id.hex(),
        "initial_init_secret": first.hex(),
        "epochs": epochs,
    }
    return [case]


# -- psk_secret


def verify_psk_secret(case: Case) -> None:
    """All pre-shared keys in one."""
    psks = [
        (PreSharedKeyID.external(psk.data("psk_id"), psk.data("psk_nonce")), psk.data("psk"))
        for psk in case.cases("psks")
    ]
    expect("psk_secret", bytes(psk_secret(case.suite, psks)), case.data("psk_secret"))


def generate_psk_secret(suite: Suite, rng: RandomSource) -> Generated:
    """None to five pre-shared keys."""
    made: Generated = []
    for count in range(6):
        psks = [(rng(16), rng(suite.hash_length), rng(suite.hash_length)) for _ in range(count)]
        named = [(PreSharedKeyID.external(psk_id, nonce), psk) for psk_id, psk, nonce in psks]
        listed: list[JSON] = [
            {"psk_id": psk_id.hex(), "psk": psk.hex(), "psk_nonce": nonce.hex()}
            for psk_id, psk, nonce in psks
        ]
        made.append(
            {
                "cipher_suite": int(suite.cipher_suite),
                "psks": listed,
                "psk_secret": psk_secret(suite, named).hex(),
            }
        )
    return made


# -- secret-tree


def verify_secret_tree(case: Case) -> None:
    """Keys and nonces of every leaf's ratchets."""
    suite, part = case.suite, case.case("sender_data")
    key, nonce = sender_data_key(suite, part.data("sender_data_secret"), part.data("ciphertext"))
    expect("sender_data.key", bytes(key), part.data("key"))
    expect("sender_data.nonce", bytes(nonce), part.data("nonce"))
    leaves = case.lists("leaves")
    tree = SecretTree.of_epoch(suite, len(leaves), Secret(case.data("encryption_secret")))
    for index, generations in enumerate(leaves):
        for number, entry in enumerate(generations):
            found = Case(entry, f"leaves[{index}][{number}]")
            _verify_generation(tree, LeafIndex(index), found)


def _verify_generation(tree: SecretTree, leaf: LeafIndex, entry: Case) -> None:
    generation = entry.number("generation", 1 << 32)
    for kind in RatchetKind:
        found = tree.find(leaf, kind, generation)
        what = f"leaf {int(leaf)}, generation {generation}: {kind.label}"
        expect(f"{what}_key", bytes(found.key), entry.data(f"{kind.label}_key"))
        expect(f"{what}_nonce", bytes(found.nonce), entry.data(f"{kind.label}_nonce"))


def generate_secret_tree(suite: Suite, rng: RandomSource) -> Generated:
    """Trees of 1, 8 and 32 leaves."""
    return [_secret_tree(suite, rng, leaf_count) for leaf_count in (1, 8, 32)]


def _secret_tree(suite: Suite, rng: RandomSource, leaf_count: int) -> dict[str, JSON]:
    secret, sender_data_secret, ciphertext = rng(suite.hash_length), rng(suite.hash_length), rng(77)
    key, nonce = sender_data_key(suite, sender_data_secret, ciphertext)
    tree = SecretTree.of_epoch(suite, leaf_count, Secret(secret))
    leaves: list[JSON] = []
    for leaf in range(leaf_count):
        generations: list[JSON] = []
        for generation in (0, 15):
            entry: dict[str, JSON] = {"generation": generation}
            for kind in RatchetKind:
                found = tree.find(LeafIndex(leaf), kind, generation)
                entry[f"{kind.label}_key"] = found.key.hex()
                entry[f"{kind.label}_nonce"] = found.nonce.hex()
            generations.append(entry)
        leaves.append(generations)
    return {
        "cipher_suite": int(suite.cipher_suite),
        "encryption_secret": secret.hex(),
        "sender_data": {
            "sender_data_secret": sender_data_secret.hex(),
            "ciphertext": ciphertext.hex(),
            "key": key.hex(),
            "nonce": nonce.hex(),
        },
        "leaves": leaves,
    }


# -- transcript-hashes


def verify_transcript_hashes(case: Case) -> None:
    """The two hashes that a Commit leaves behind, and its confirmation tag."""
    suite = case.suite
    message = AuthenticatedContent.decode(case.data("authenticated_content"))
    expect("content_type", message.content.content_type, ContentType.COMMIT)
    confirmed = confirmed_transcript_hash(
        suite,
        case.data("interim_transcript_hash_before"),
        message.wire_format,
        message.content,
        message.auth.signature,
    )
    expect(
        "confirmed_transcript_hash_after", confirmed, case.data("confirmed_transcript_hash_after")
    )
    tag = message.auth.confirmation_tag or b""
    suite.verify_mac(case.data("confirmation_key"), confirmed, tag, rule=Rule.CONFIRMATION_TAG)
    interim = interim_transcript_hash(suite, confirmed, tag)
    expect("interim_transcript_hash_after", interim, case.data("interim_transcript_hash_after"))


def generate_transcript_hashes(suite: Suite, rng: RandomSource) -> Generated:
    """One Commit of nothing."""
    size = suite.hash_length
    before, key, signature = rng(size), rng(size), rng(64)
    sender = Sender(SenderType.MEMBER, LeafIndex(rng(1)[0]))
    content = FramedContent(
        rng(32), int.from_bytes(rng(4)), sender, b"", ContentType.COMMIT, Commit((), None)
    )
    wire_format = WireFormat.MLS_PRIVATE_MESSAGE
    confirmed = confirmed_transcript_hash(suite, before, wire_format, content, signature)
    tag = confirmation_tag(suite, key, confirmed)
    message = AuthenticatedContent(wire_format, content, FramedContentAuthData(signature, tag))
    case: dict[str, JSON] = {
        "cipher_suite": int(suite.cipher_suite),
        "confirmation_key": key.hex(),
        "authenticated_content": message.encode().hex(),
        "interim_transcript_hash_before": before.hex(),
        "confirmed_transcript_hash_after": confirmed.hex(),
        "interim_transcript_hash_after": interim_transcript_hash(suite, confirmed, tag).hex(),
    }
    return [case]


KEY_SCHEDULE = Kind(
    "key-schedule",
    frozenset({"cipher_suite", "group_id", "initial_init_secret", "epochs"}),
    verify_key_schedule,
    generate_key_schedule,
)
PSK_SECRET = Kind(
    "psk_secret",
    frozenset({"cipher_suite", "psks", "psk_secret"}),
    verify_psk_secret,
    generate_psk_secret,
)
SECRET_TREE = Kind(
    "secret-tree",
    frozenset({"cipher_suite", "encryption_secret", "sender_data", "leaves"}),
    verify_secret_tree,
    generate_secret_tree,
)
TRANSCRIPT_HASHES = Kind(
    "transcript-hashes",
    frozenset({"cipher_suite", "confirmation_key", "authenticated_content"}),
    verify_transcript_hashes,
    generate_transcript_hashes,
)
