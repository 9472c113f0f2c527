"""Warm groups of any size of which only what is touched exists: for tests that count at 50,000 members and above.

`bench.shapes` builds every node. Here the ratchet tree comes out of a store that makes a node when it is asked for:
keys from its place, and hashes of what is below that are names instead of hashes. Members follow each other's commits
in it as in a real group; a joiner's checks would refuse it, since nothing below the top is hashed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.shapes import LIFETIME, deterministic
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import capabilities
from coterie.mls.framing import interim_transcript_hash
from coterie.mls.group import Config, Epoch, Group
from coterie.mls.group.saving import Saver
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_schedule import confirmation_tag, epoch_secrets
from coterie.mls.leaf_node import LeafNode, LeafNodeTBS
from coterie.mls.ratchet_tree import ParentNode, RatchetTree, Subtree
from coterie.mls.ratchet_tree.subtree import NODE_PREFIX, StoredChild, StoredLeaf, StoredParent
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tree_index import INDEX_PREFIX, TreeIndex, capability_names, entries, type_name
from coterie.mls.tree_math import LeafIndex, NodeIndex, node_at, tree_depth
from coterie.mls.treekem import PrivatePath
from coterie.mls.types import CipherSuite, LeafNodeSource, ProtocolVersion

_MARK = b"a place, not a hash: "


@dataclass
class SketchedTree:
    """The store of a warm tree of `n` members; every node of it is a function of its place."""

    suite: Suite
    n: int
    reads: int = 0
    _counts: dict[bytes, int] = field(default_factory=dict)
    _made: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.capabilities = capabilities(cipher_suites=[self.suite.cipher_suite])
        for name in capability_names(self.capabilities):
            self._counts[name] = self.n
        self._counts[type_name(b"u", 1)] = self.n

    def private_key(self, level: int, start: int) -> HPKEPrivateKey:
        """The private key of a node."""
        return self.suite.derive_key_pair(b"node %d %d" % (level, start))

    def signature_key(self, leaf: int) -> SignaturePrivateKey:
        """The signature key of a member."""
        return self.suite.generate_signature_key(deterministic(b"signer %d" % leaf))

    def child(self, level: int, start: int) -> StoredChild:
        """What a parent says of the subtree at a place."""
        if start >= self.n:
            blank = Subtree.blank(level, start)
            return StoredChild(blank.tree_hash(self.suite), 0, 0)
        members = min(1 << level, self.n - start)
        name = _MARK + level.to_bytes(1) + start.to_bytes(4)
        return StoredChild(name.ljust(self.suite.hash_length, b"."), members, 1)

    def get(self, key: bytes) -> bytes | None:
        """A node or a counter."""
        self.reads += 1
        if key == INDEX_PREFIX + b"u":
            return b"1:%d" % self.n
        if key.startswith(INDEX_PREFIX):
            return b"%d" % self._counts.get(key[len(INDEX_PREFIX) :], 0)
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    def _make(self, key: bytes) -> bytes:
        place = key[len(NODE_PREFIX) + len(_MARK) :]
        level, start = place[0], int.from_bytes(place[1:5])
        node = self.leaf(start) if level == 0 else self.parent(level, start)
        if node is not None:
            for name in entries(node, AcceptAnything()):
                self._counts.setdefault(name, 1)
        if isinstance(node, LeafNode):
            return StoredLeaf(node).encode()
        half = start + (1 << (level - 1))
        children = self.child(level - 1, start), self.child(level - 1, half)
        return StoredParent(node, *children).encode()

    def leaf(self, index: int) -> LeafNode:
        """The leaf of a member; its parent hash is nobody's."""
        key = self.signature_key(index)
        return LeafNodeTBS(
            encryption_key=self.private_key(0, index).public,
            signature_key=key.public,
            credential=Credential.basic(b"member %d" % index),
            capabilities=self.capabilities,
            leaf_node_source=LeafNodeSource.KEY_PACKAGE,
            lifetime=LIFETIME,
            parent_hash=None,
            extensions=(),
        ).sign(self.suite, key)

    def parent(self, level: int, start: int) -> ParentNode | None:
        """The parent at a place, blank where nobody is to its right."""
        if start + (1 << (level - 1)) >= self.n:
            return None
        key = self.private_key(level, start).public
        return ParentNode(key, bytes(self.suite.hash_length), ())


@dataclass
class Sketch:
    """A group whose tree is a `SketchedTree`; members are made one by one, as if their groups had been saved."""

    store: SketchedTree
    config: Config

    @property
    def depth(self) -> int:
        """The levels of the tree above its leaves."""
        return tree_depth(self.store.n)

    def member(self, leaf: int) -> Group:
        """The group as the member at a leaf has it."""
        store, suite = self.store, self.store.suite
        tree = RatchetTree.stored(suite, self.depth, store.child(self.depth, 0), store)
        confirmed = bytes(suite.hash_length)
        context = GroupContext(
            ProtocolVersion.MLS10,
            CipherSuite(suite.cipher_suite),
            b"a sketch of %d" % store.n,
            1_000,
            tree.tree_hash(),
            confirmed,
            (),
        )
        secrets, encryption_secret = epoch_secrets(suite, Secret(b"epoch".ljust(32)))
        tag = confirmation_tag(suite, secrets.confirmation_key, confirmed)
        epoch = Epoch(
            suite,
            context,
            tree,
            PrivatePath(LeafIndex(leaf), store.private_key(0, leaf), self._held(leaf)),
            store.signature_key(leaf),
            secrets,
            interim_transcript_hash(suite, confirmed, tag),
            tag,
        )
        limits = self.config.limits.ratchets
        secret_tree = SecretTree.of_epoch(suite, 1 << self.depth, encryption_secret, limits)
        group = Group(epoch, secret_tree, TreeIndex(store), self.config)
        group._saver = Saver(epoch)  # noqa: SLF001 - what its store has
        return group

    def _held(self, leaf: int) -> dict[NodeIndex, HPKEPrivateKey]:
        held = {}
        for level in range(1, self.depth + 1):
            start = leaf >> level << level
            if self.store.parent(level, start) is not None:
                held[node_at(level, start)] = self.store.private_key(level, start)
        return held


def sketch(n: int, *, suite: int = 1) -> Sketch:
    """A warm group of `n` members."""
    return Sketch(SketchedTree(suite_of(suite), n), Config(AcceptAnything()))
