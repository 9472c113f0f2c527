"""Groups of any size in memory, in seconds: for benchmarks, and for the tests that count operations.

A group of 50,000 would take hours to reach by commits. Here its tree is built from the leaves up, with every private
key known to the builder, so that any member's `Group` can be made; what it looks like is said by which leaves have
committed. Everything in it is what real commits leave behind: each leaf signed by its own key, each parent vouched for
by the parent hash of one node below (RFC 9420 §7.9.2), so that a joiner accepts the tree.

- `blank`: one commit by leaf 0, which added all others.
- `warm`: everybody has committed; every copath resolution of every filtered direct path has one node.
- `half`: one leaf in eight has committed, at random: about half of the parents are blank.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import Capabilities, Extension, capabilities
from coterie.mls.framing import interim_transcript_hash
from coterie.mls.group import Config, Epoch, Group
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.key_package import KeyPackageBundle, create_key_package
from coterie.mls.key_schedule import EpochSecrets, confirmation_tag, epoch_secrets, exported_secret
from coterie.mls.leaf_node import LeafNode, LeafNodeTBS, Lifetime
from coterie.mls.ratchet_tree import ParentNode, RatchetTree, Subtree
from coterie.mls.ratchet_tree.tree import parent_hash_input
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex, NodeIndex, tree_depth
from coterie.mls.treekem import PrivatePath
from coterie.mls.types import CipherSuite, LeafNodeSource, ProtocolVersion

SHAPES = ("blank", "warm", "half")
NOW = 1_000
LIFETIME = Lifetime(0, 10_000)


def deterministic(seed: bytes) -> RandomSource:
    """A random source that repeats, and that costs no more than the operating system's."""
    stream = hashlib.shake_128(seed).digest(64)
    rng = random.Random(stream)
    return rng.randbytes


@dataclass
class Shape:
    """A group of `n` members in one epoch, with all private keys."""

    suite: Suite
    config: Config
    tree: RatchetTree
    context: GroupContext
    secrets: EpochSecrets
    encryption_secret: Secret
    interim: bytes
    tag: bytes
    leaf_keys: list[HPKEPrivateKey]
    signature_keys: list[SignaturePrivateKey]
    parent_keys: dict[NodeIndex, HPKEPrivateKey]
    _counters: dict[bytes, int] | None = field(default=None, repr=False)

    @property
    def n(self) -> int:
        """How many members there are."""
        return len(self.leaf_keys)

    def export_secret(self, label: str, context: bytes, length: int) -> Secret:
        """What any member exports (RFC 9420 §8.5)."""
        exporter = self.secrets.exporter_secret
        return exported_secret(self.suite, exporter, label, context, length)

    def epoch(self, leaf: int) -> Epoch:
        """The epoch as the member at a leaf sees it."""
        held = {
            node.index: self.parent_keys[node.index]
            for node, _ in self.tree.direct_path(leaf)
            if node.index in self.parent_keys
        }
        return Epoch(
            self.suite,
            self.context,
            self.tree,
            PrivatePath(LeafIndex(leaf), self.leaf_keys[leaf], held),
            self.signature_keys[leaf],
            self.secrets,
            self.interim,
            self.tag,
        )

    def member(self, leaf: int, config: Config | None = None) -> Group:
        """The group as the member at a leaf has it."""
        config = config or self.config
        if self._counters is None:
            index = TreeIndex.of_tree(self.tree, config.authenticator)
            self._counters = dict(index.named())
        index = TreeIndex()
        index.apply(self._counters)
        secret_tree = SecretTree.of_epoch(
            self.suite, self.tree.leaf_count, self.encryption_secret, config.limits.ratchets
        )
        return Group(self.epoch(leaf), secret_tree, index, config)

    def own_part(self, leaf: int, config: Config) -> dict[bytes, bytes]:
        """What a member stores besides the tree and the counters of keys, which all members have alike."""
        secret_tree = SecretTree.of_epoch(
            self.suite, self.tree.leaf_count, self.encryption_secret, config.limits.ratchets
        )
        group = Group(self.epoch(leaf), secret_tree, TreeIndex(), config)
        group._saver._tree = self.tree  # noqa: SLF001 - as if the tree were stored
        return dict(group.save().puts)

    def bundle(
        self, name: bytes, config: Config | None = None, lifetime: Lifetime = LIFETIME
    ) -> KeyPackageBundle:
        """A newcomer's key package, with its private keys."""
        rng = (config or self.config).rng
        return create_key_package(
            self.suite,
            self.suite.generate_signature_key(rng),
            Credential.basic(name),
            _capabilities(self.suite),
            lifetime,
            rng=rng,
        )


@dataclass(frozen=True)
class Kind:
    """What the members of a group are, where they are not those of a benchmark of the core alone."""

    group_id: bytes
    signature_key: Callable[[int], SignaturePrivateKey | None]
    """The key of a leaf; None for a new one."""
    credential: Callable[[int, SignaturePrivateKey], Credential]
    capabilities: Capabilities
    lifetime: Lifetime
    extensions: tuple[Extension, ...] = ()

    @classmethod
    def plain(cls, n: int, suite: Suite, lifetime: Lifetime) -> Kind:
        """Members with basic credentials."""
        return cls(
            b"a group of %d" % n,
            lambda _: None,
            lambda leaf, _: Credential.basic(b"member %d" % leaf),
            _capabilities(suite),
            lifetime,
        )


def build(
    n: int,
    shape: str = "warm",
    *,
    suite: int = 1,
    config: Config | None = None,
    seed: bytes = b"",
    lifetime: Lifetime = LIFETIME,
    spoiled: int | None = None,
    kind: Kind | None = None,
) -> Shape:
    """A group of `n` members of the given shape; the same seed gives the same group.

    The signature of the leaf `spoiled` is wrong, where one is given: nobody should join.
    """
    rng = deterministic(b"%d %s %s" % (n, shape.encode(), seed))
    kind = kind or Kind.plain(n, suite_of(suite), lifetime)
    builder = _Builder(suite_of(suite), n, _committers(n, shape), rng, kind, spoiled)
    return builder.finish(config or Config(AcceptAnything(), rng=os.urandom))


def _committers(n: int, shape: str) -> list[bool]:
    choose = random.Random(n)
    rule: dict[str, Callable[[int], bool]] = {
        "blank": lambda leaf: leaf == 0,
        "warm": lambda _: True,
        "half": lambda leaf: leaf == 0 or choose.random() < 1 / 8,
    }
    return [rule[shape](leaf) for leaf in range(n)]


def _capabilities(suite: Suite) -> Capabilities:
    return capabilities(cipher_suites=[suite.cipher_suite])


class _Builder:
    """Makes the tree from the root down, since parent hashes run that way, sibling before child."""

    def __init__(
        self,
        suite: Suite,
        n: int,
        committed: list[bool],
        rng: RandomSource,
        kind: Kind,
        spoiled: int | None,
    ) -> None:
        self.suite = suite
        self.spoiled = spoiled
        self.kind = kind
        self.n = n
        self.rng = rng
        self.leaf_keys = [suite.generate_hpke_key(rng) for _ in range(n)]
        self.signature_keys = [
            kind.signature_key(leaf) or suite.generate_signature_key(rng) for leaf in range(n)
        ]
        self.parent_keys: dict[NodeIndex, HPKEPrivateKey] = {}
        self.committed = [0]
        for one in committed:
            self.committed.append(self.committed[-1] + one)

    def commits(self, level: int, start: int) -> int:
        """How many leaves below a place have committed."""
        end = min(start + (1 << level), self.n)
        return self.committed[end] - self.committed[start] if start < end else 0

    def subtree(self, level: int, start: int, parent_hash: bytes) -> Subtree:
        """The subtree whose topmost node has the given parent hash."""
        if start >= self.n:
            return Subtree.blank(level, start)
        if level == 0:
            return Subtree.leaf(start, self.leaf(start, parent_hash))
        below, right_start = level - 1, start + (1 << (level - 1))
        if right_start >= self.n:
            # Nobody is to the right: this node is on no filtered direct path, and stays blank.
            left = self.subtree(below, start, parent_hash)
            return Subtree.parent(None, left, Subtree.blank(below, right_start))
        in_left, in_right = self.commits(below, start), self.commits(below, right_start)
        if in_left + in_right == 0:
            left = self.subtree(below, start, parent_hash)
            return Subtree.parent(None, left, self.subtree(below, right_start, parent_hash))
        return self.parent(level, start, parent_hash, last_on_left=in_left >= in_right)

    def parent(self, level: int, start: int, parent_hash: bytes, *, last_on_left: bool) -> Subtree:
        """A parent that the last commit below it set; the other side has what an older one left there."""
        below, right_start = level - 1, start + (1 << (level - 1))
        first, second = (right_start, start) if last_on_left else (start, right_start)
        key = self.suite.generate_hpke_key(self.rng)
        sibling = self.subtree(below, first, self.rng(self.suite.hash_length))
        hashed = parent_hash_input(key.public, parent_hash, sibling.tree_hash(self.suite))
        child = self.subtree(below, second, self.suite.hash(hashed))
        left, right = (child, sibling) if last_on_left else (sibling, child)
        tree = Subtree.parent(ParentNode(key.public, parent_hash, ()), left, right)
        self.parent_keys[tree.index] = key
        return tree

    def leaf(self, index: int, parent_hash: bytes) -> LeafNode:
        """A signed leaf: of a commit where its member has committed, else of a key package."""
        commit = bool(self.commits(0, index))
        key = self.signature_keys[index]
        signing = key if index != self.spoiled else self.suite.generate_signature_key(self.rng)
        return LeafNodeTBS(
            encryption_key=self.leaf_keys[index].public,
            signature_key=key.public,
            credential=self.kind.credential(index, key),
            capabilities=self.kind.capabilities,
            leaf_node_source=LeafNodeSource.COMMIT if commit else LeafNodeSource.KEY_PACKAGE,
            lifetime=None if commit else self.kind.lifetime,
            parent_hash=parent_hash if commit else None,
            extensions=(),
            group_id=self.kind.group_id if commit else None,
            leaf_index=LeafIndex(index) if commit else None,
        ).sign(self.suite, signing)

    def finish(self, config: Config) -> Shape:
        """The group around the tree."""
        suite = self.suite
        tree = RatchetTree(suite, self.subtree(tree_depth(self.n), 0, b""))
        confirmed = self.rng(suite.hash_length)
        context = GroupContext(
            ProtocolVersion.MLS10,
            CipherSuite(suite.cipher_suite),
            self.kind.group_id,
            1_000,
            tree.tree_hash(),
            confirmed,
            self.kind.extensions,
        )
        secrets, encryption_secret = epoch_secrets(suite, Secret(self.rng(suite.hash_length)))
        tag = confirmation_tag(suite, secrets.confirmation_key, confirmed)
        return Shape(
            suite,
            config,
            tree,
            context,
            secrets,
            encryption_secret,
            interim_transcript_hash(suite, confirmed, tag),
            tag,
            self.leaf_keys,
            self.signature_keys,
            self.parent_keys,
        )
