"""What generators draw from: a group of several clients in one process, and a bare tree with all its secrets.

Both are driven by one source of bytes, so that a seed gives the same vectors again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coterie.errors import StateError
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.extension import capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Config, Group, Limits, StagedCommit
from coterie.mls.group.results import PendingCommit
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.key_package import KeyPackageBundle, create_key_package
from coterie.mls.leaf_node import LeafNode, LeafNodeTBS, Lifetime
from coterie.mls.proposal import Add, Proposal
from coterie.mls.ratchet_tree import ParentNode, RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.treekem import DerivedPath, derive_path
from coterie.mls.types import LeafNodeSource

LIFETIME = Lifetime(0, (1 << 64) - 1)
NOW = 0
"""Generated histories know no time of day: all happens in this second."""
"""Vectors do not expire."""


class SimulatedGroup:
    """A group whose members all live here; every message reaches everybody at once."""

    def __init__(
        self,
        suite: Suite,
        rng: RandomSource,
        *,
        private: bool = True,
        psks: int = 0,
        grease: bool = True,
    ) -> None:
        self.suite = suite
        self.grease = grease
        self.rng = rng
        self.psks = {rng(16): rng(suite.hash_length) for _ in range(psks)}
        self.config = Config(
            AcceptAnything(),
            Limits(private_handshakes=private, max_lifetime=None, grease=grease),
            psk=self._psk,
            rng=rng,
        )
        first = self.new_client()
        leaf = first.key_package.leaf_node
        group = Group.create(
            rng(16),
            suite,
            first.signature_key,
            leaf.credential,
            leaf.capabilities,
            self.config,
            lifetime=LIFETIME,
        )
        self.groups = [group]

    def _psk(self, psk: PreSharedKeyID) -> bytes | None:
        return self.psks.get(psk.psk_id or b"")

    def new_client(self) -> KeyPackageBundle:
        """A client that is in no group yet."""
        return new_client(self.suite, self.rng, grease=self.grease)

    def deliver(self, message: MLSMessage, sender: Group) -> None:
        """Everybody but the sender receives a proposal or application data."""
        for group in self.groups:
            if group is not sender:
                group.receive(message.encode())

    def commit(
        self,
        by: int = 0,
        proposals: Iterable[Proposal] = (),
        options: CommitOptions | None = None,
    ) -> PendingCommit:
        """A member commits, everybody goes to the next epoch, those that are removed are gone."""
        sender = self.groups[by]
        pending = sender.commit(tuple(proposals), options=options or CommitOptions(), now=NOW)
        remaining = []
        for group in self.groups:
            if group is sender:
                group.adopt(pending)
            else:
                staged = group.receive(pending.message.encode())
                if not isinstance(staged, StagedCommit):
                    msg = f"a Commit was received as {type(staged).__name__}"
                    raise StateError(msg)
                group.adopt(staged)
                if staged.removes_self:
                    continue
            remaining.append(group)
        self.groups = remaining
        return pending

    def add(
        self, count: int = 1, by: int = 0, options: CommitOptions | None = None
    ) -> PendingCommit:
        """A member adds new clients, which join."""
        clients = [self.new_client() for _ in range(count)]
        proposals = [Proposal.of(Add(client.key_package)) for client in clients]
        pending = self.commit(by, proposals, options)
        welcome = welcome_of(pending).encode()
        tree = self.groups[by].tree.encode()
        self.groups += [
            Group.join(MLSMessage.read(welcome), client, self.config, tree=tree)
            for client in clients
        ]
        return pending


def welcome_of(pending: PendingCommit) -> MLSMessage:
    """The one Welcome of a Commit that adds somebody."""
    if pending.welcome is None:
        msg = "the Commit has not exactly one Welcome: add somebody, leave members_per_welcome at 0"
        raise StateError(msg)
    return pending.welcome


def new_client(suite: Suite, rng: RandomSource, *, grease: bool = True) -> KeyPackageBundle:
    """A fresh key package with its private keys, for a client with a random name."""
    return create_key_package(
        suite,
        suite.generate_signature_key(rng),
        Credential.basic(rng(8).hex().encode()),
        capabilities(cipher_suites=[suite.cipher_suite], rng=rng if grease else None),
        LIFETIME,
        rng=rng,
    )


@dataclass(slots=True)
class TreeMember:
    """A member of a `SimulatedTree`: its keys, and the path secrets that it knows, by node."""

    signature_key: SignaturePrivateKey
    leaf_key: HPKEPrivateKey
    path_secrets: dict[NodeIndex, Secret] = field(default_factory=dict)


class SimulatedTree:
    """A ratchet tree without a group around it, with the secrets of all its members."""

    def __init__(self, suite: Suite, rng: RandomSource, group_id: bytes) -> None:
        self.suite = suite
        self.rng = rng
        self.group_id = group_id
        self.members: dict[LeafIndex, TreeMember] = {}
        client = new_client(suite, rng)
        self.tree = RatchetTree.of_one(suite, client.key_package.leaf_node)
        self._enter(LeafIndex(0), client)

    @classmethod
    def of(cls, suite: Suite, rng: RandomSource, group_id: bytes, leaf_count: int) -> SimulatedTree:
        """The working group's `get_tree`: each leaf in turn commits adding the next one."""
        tree = cls(suite, rng, group_id)
        for leaf in range(leaf_count - 1):
            tree.add()
            tree.commit(LeafIndex(leaf))
        return tree

    def _enter(self, leaf: LeafIndex, client: KeyPackageBundle) -> None:
        self.members[leaf] = TreeMember(client.signature_key, client.encryption_key)

    def add(self) -> LeafIndex:
        """A new member, without a path."""
        client = new_client(self.suite, self.rng)
        self.tree, (leaf,) = self.tree.with_added([client.key_package.leaf_node])
        self._enter(leaf, client)
        return leaf

    def remove(self, *leaves: int) -> None:
        """Members go, and everybody forgets the secrets above them."""
        self.tree = self.tree.with_leaves(dict.fromkeys(leaves))
        for leaf in leaves:
            del self.members[LeafIndex(leaf)]
        for member in self.members.values():
            for node in list(member.path_secrets):
                if any(node.covers(LeafIndex(leaf)) for leaf in leaves):
                    del member.path_secrets[node]

    def commit(self, leaf: LeafIndex) -> None:
        """A member renews its path, and everybody learns their share of the secrets."""
        derived, leaf_node, nodes = new_path(
            self.suite, self.tree, leaf, self.members[leaf].signature_key, self.group_id, self.rng
        )
        self.tree = self.tree.with_path(leaf, leaf_node, nodes)
        committer = self.members[leaf]
        committer.leaf_key = derived.leaf_key
        for other, member in self.members.items():
            for above, _ in self.tree.direct_path(leaf):
                if above.index.covers(other):
                    member.path_secrets.pop(above.index, None)
            for step in derived.steps:
                if step.node.index.covers(other):
                    member.path_secrets[step.node.index] = step.path_secret


def new_path(
    suite: Suite,
    tree: RatchetTree,
    leaf: LeafIndex,
    key: SignaturePrivateKey,
    group_id: bytes,
    rng: RandomSource,
) -> tuple[DerivedPath, LeafNode, dict[NodeIndex, ParentNode]]:
    """Fresh secrets for a path, the signed leaf that begins it, and its parent nodes (§7.4, §7.5)."""
    derived = derive_path(suite, tree, leaf, rng)
    path = tree.filtered_direct_path(leaf)
    nodes, parent_hash = tree.path_parents(path, [step.key.public for step in derived.steps])
    old = tree.member(leaf, rule=Rule.SENDER_BLANK)
    leaf_node = LeafNodeTBS(
        encryption_key=derived.leaf_key.public,
        signature_key=old.signature_key,
        credential=old.credential,
        capabilities=old.capabilities,
        leaf_node_source=LeafNodeSource.COMMIT,
        lifetime=None,
        parent_hash=parent_hash,
        extensions=old.extensions,
        group_id=group_id,
        leaf_index=leaf,
    ).sign(suite, key)
    return derived, leaf_node, nodes
