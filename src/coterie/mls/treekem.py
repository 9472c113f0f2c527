"""TreeKEM: the private side of the ratchet tree (RFC 9420 §7.4-§7.6).

A committer first derives its path and signs its leaf, because the ciphertexts are bound to a GroupContext that contains
the hash of the finished tree; only then it seals. A receiver finds the one ciphertext that is for it by counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.errors import DecryptionError
from coterie.mls.crypto import Suite
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.ratchet_tree import (
    HPKECiphertext,
    ParentNode,
    PathNode,
    RatchetTree,
    UpdatePath,
    UpdatePathNode,
    ciphertext_position,
)
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tree_math import LeafIndex, NodeIndex, common_ancestor_level

PATH_LABEL = "UpdatePathNode"


@dataclass(frozen=True, slots=True, repr=False)
class PrivatePath:
    """The private keys that one member has: its leaf's, and those of parents above it; immutable."""

    leaf: LeafIndex
    leaf_key: HPKEPrivateKey
    parents: Mapping[NodeIndex, HPKEPrivateKey]

    def __repr__(self) -> str:
        return f"PrivatePath({self.leaf!r}, {len(self.parents)} parents)"

    def key(self, node: NodeIndex) -> HPKEPrivateKey:
        """The private key of a node."""
        return self.leaf_key if node == self.leaf.node() else self.parents[node]

    def fitting(
        self,
        tree: RatchetTree,
        changed: Mapping[NodeIndex, HPKEPrivateKey],
        leaf_key: HPKEPrivateKey | None = None,
    ) -> PrivatePath:
        """The path in a new tree: new keys added, keys of nodes that are blank or changed dropped."""
        parents = {}
        for above, _ in tree.direct_path(self.leaf):
            node, index = above.node, above.index
            if isinstance(node, ParentNode):
                key = changed.get(index)
                if key is None:
                    key = self.parents.get(index)
                    if key is None or key.public != node.encryption_key:
                        continue
                parents[index] = key
        return PrivatePath(self.leaf, leaf_key or self.leaf_key, parents)


@dataclass(slots=True, repr=False, eq=False)
class PathStep:
    """One node of a path with its secret and the key pair derived from it; not frozen, as `PathNode` is not."""

    node: PathNode
    path_secret: Secret
    key: HPKEPrivateKey


@dataclass(frozen=True, slots=True, repr=False)
class DerivedPath:
    """A committer's new path: a leaf key, a step for each node of the filtered direct path, the commit secret."""

    leaf: LeafIndex
    leaf_key: HPKEPrivateKey
    steps: tuple[PathStep, ...]
    commit_secret: Secret

    def keys(self) -> dict[NodeIndex, HPKEPrivateKey]:
        """The private key of each node of the path."""
        return {step.node.index: step.key for step in self.steps}

    def secret_for(self, leaf: LeafIndex) -> Secret | None:
        """The path secret of the lowest node of the path above a leaf (§12.4.3.1)."""
        lowest = common_ancestor_level(self.leaf, leaf)
        for step in self.steps:
            if step.node.level >= lowest:
                return step.path_secret
        return None


def derive_path(suite: Suite, tree: RatchetTree, leaf: LeafIndex, rng: RandomSource) -> DerivedPath:
    """Fresh secrets and keys for a leaf and its filtered direct path (§7.4)."""
    leaf_key = suite.generate_hpke_key(rng)
    path = tree.filtered_direct_path(leaf)
    steps, commit_secret = _derive_steps(suite, path, Secret(rng(suite.hash_length)))
    return DerivedPath(leaf, leaf_key, steps, commit_secret)


def _derive_steps(
    suite: Suite, path: Sequence[PathNode], path_secret: Secret
) -> tuple[tuple[PathStep, ...], Secret]:
    """A step for each node, from the path secret of the first; and the secret after the last."""
    steps = []
    for node in path:
        node_secret, following = suite.derive_secrets(path_secret, ("node", "path"))
        steps.append(PathStep(node, path_secret, suite.derive_key_pair(node_secret)))
        path_secret = following
    return tuple(steps), path_secret


def seal_path(
    suite: Suite,
    tree: RatchetTree,
    path: DerivedPath,
    context: bytes,
    new_leaves: Sequence[int],
    rng: RandomSource,
    run: Callable[..., Iterable[Any]] = map,
) -> tuple[UpdatePathNode, ...]:
    """Encrypts each path secret to the resolution of the node's copath child (§7.6).

    `context` is the encoded provisional GroupContext, `new_leaves` the sorted leaves that the same Commit adds;
    `run` is `map` or an executor's.
    """
    recipients = [list(tree.recipients(step.node.sibling, new_leaves)) for step in path.steps]
    jobs = (
        (public, step.path_secret)
        for step, keys in zip(path.steps, recipients, strict=True)
        for public in keys
    )
    sealed = suite.sealer(PATH_LABEL, context).seal_many(jobs, rng, run)
    return tuple(
        UpdatePathNode(
            step.key.public,
            tuple([HPKECiphertext(*next(sealed)) for _ in keys]),
        )
        for step, keys in zip(path.steps, recipients, strict=True)
    )


def open_path(
    suite: Suite,
    private: PrivatePath,
    path: Sequence[PathNode],
    update: UpdatePath,
    context: bytes,
    new_leaves: Sequence[int],
) -> tuple[dict[NodeIndex, HPKEPrivateKey], Secret]:
    """A receiver's new keys and the commit secret out of an UpdatePath (§7.5).

    `path` and `private` are those of the tree with the proposals applied, before the path is. Raises `DecryptionError`
    where the ciphertext does not open, or what is in it does not belong to the public keys of the path.
    """
    place = next(n for n, node in enumerate(path) if node.sibling.covers(private.leaf))
    position, held = ciphertext_position(
        path[place].sibling, private.leaf, private.parents, new_leaves
    )
    ciphertexts = update.nodes[place].encrypted_path_secret
    if position >= len(ciphertexts):
        # Who was welcomed without the path secret that was due lacks keys of nodes at which it is not unmerged.
        msg = (
            f"no private key is held for which the path secret for {path[place].index!r} is sealed"
        )
        raise DecryptionError(msg, rule=Rule.PATH_SECRET_OPENS)
    sealed = ciphertexts[position]
    try:
        secret = suite.decrypt_with_label(
            private.key(held), PATH_LABEL, context, sealed.kem_output, sealed.ciphertext
        )
    except DecryptionError as error:
        msg = f"the path secret for {path[place].index!r} does not open"
        raise DecryptionError(msg, rule=Rule.PATH_SECRET_OPENS) from error
    keys = [node.encryption_key for node in update.nodes[place:]]
    return keys_above(suite, path[place:], keys, secret)


def keys_above(
    suite: Suite, path: Sequence[PathNode], public_keys: Sequence[bytes], path_secret: Secret
) -> tuple[dict[NodeIndex, HPKEPrivateKey], Secret]:
    """The private keys of a path from the path secret of its first node, and the secret after its last.

    Raises `DecryptionError` where one does not belong to the public key that is there (§7.5, §12.4.3.1).
    """
    if len(path_secret) != suite.hash_length:
        msg = f"a path secret of {len(path_secret)} bytes, it must have {suite.hash_length}"
        raise DecryptionError(msg, rule=Rule.PATH_SECRET_MATCHES)
    steps, after = _derive_steps(suite, path, path_secret)
    for step, public in zip(steps, public_keys, strict=True):
        if step.key.public != public:
            msg = f"the path secret does not give the public key of {step.node.index!r}"
            raise DecryptionError(msg, rule=Rule.PATH_SECRET_MATCHES)
    return {step.node.index: step.key for step in steps}, after
