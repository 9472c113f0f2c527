"""Vectors of TreeKEM: treekem (RFC 9420 §7.4-§7.6, §7.9)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from coterie.errors import DecodeError
from coterie.interop.vectors.kind import Case, Generated, Kind, Mismatch, expect
from coterie.interop.vectors.secrets import context_of
from coterie.interop.vectors.sources import SimulatedTree, new_path
from coterie.interop.vectors.trees import gap_tree, read_tree, unmerged_tree
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.ratchet_tree import (
    ParentNode,
    PathNode,
    RatchetTree,
    UpdatePath,
    verify_parent_hashes,
)
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tls import JSON
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.treekem import DerivedPath, PrivatePath, keys_above, open_path, seal_path

_LEAVES = 1 << 24


class _Setting:
    """The epoch of a case: its tree, its context but for the tree hash, the members' private keys."""

    def __init__(self, suite: Suite, tree: RatchetTree, group_id: bytes, epoch: int) -> None:
        self.suite = suite
        self.tree = tree
        self.group_id = group_id
        self.epoch = epoch
        self.confirmed = b""
        self.private: dict[LeafIndex, PrivatePath] = {}
        self.signature_keys: dict[LeafIndex, SignaturePrivateKey] = {}

    @classmethod
    def of_case(cls, case: Case) -> _Setting:
        suite = case.suite
        tree = read_tree(suite, case.data("ratchet_tree"))
        setting = cls(suite, tree, case.data("group_id"), case.number("epoch"))
        setting.confirmed = case.data("confirmed_transcript_hash")
        for member in case.cases("leaves_private"):
            setting._take_member(member)
        return setting

    def _take_member(self, member: Case) -> None:
        suite = self.suite
        leaf = LeafIndex(member.number("index", _LEAVES))
        node = self.tree.member(leaf, rule=Rule.SENDER_BLANK)
        leaf_key = member.hpke_key("encryption_priv", suite)
        expect(f"encryption key of {leaf!r}", leaf_key.public, node.encryption_key)
        signature_key = member.signature_key("signature_priv", suite)
        expect(f"signature key of {leaf!r}", signature_key.public, node.signature_key)
        parents: dict[NodeIndex, HPKEPrivateKey] = {}
        for entry in member.cases("path_secrets"):
            index = NodeIndex(entry.number("node", 2 * self.tree.leaf_count - 1))
            parent = self.tree.node(index)
            if parent is None:
                msg = f"{leaf!r} has a path secret of {index!r}, which is blank"
                raise Mismatch(msg)
            secret = suite.derive_secret(entry.data("path_secret"), "node")
            parents[index] = suite.derive_key_pair(secret)
            expect(f"key of {index!r}", parents[index].public, parent.encryption_key)
        for above, _ in self.tree.direct_path(leaf):
            merged = isinstance(above.node, ParentNode) and leaf not in above.node.unmerged_leaves
            if merged and above.index not in parents:
                msg = f"{leaf!r} has no path secret of {above.index!r}, which it must know"
                raise Mismatch(msg)
        self.private[leaf] = PrivatePath(leaf, leaf_key, parents)
        self.signature_keys[leaf] = signature_key

    def context(self, tree_hash: bytes) -> GroupContext:
        return context_of(self.suite, self.group_id, self.epoch, tree_hash, self.confirmed)

    def merged(self, sender: LeafIndex, update: UpdatePath) -> RatchetTree:
        """The tree with the path in it; raises `Mismatch` where its leaf does not carry the parent hash."""
        path = self.tree.filtered_direct_path(sender)
        keys = [node.encryption_key for node in update.nodes]
        expect("nodes of the path", len(keys), len(path))
        sealed = [len(node.encrypted_path_secret) for node in update.nodes]
        expect("ciphertexts of the path", sealed, [node.sibling.resolution_size for node in path])
        nodes, parent_hash = self.tree.path_parents(path, keys)
        expect("parent_hash of the path's leaf", update.leaf_node.parent_hash, parent_hash)
        after = self.tree.with_path(sender, update.leaf_node, nodes)
        verify_parent_hashes(after)
        return after

    def opened(
        self, sender: LeafIndex, update: UpdatePath, receiver: LeafIndex, context: bytes
    ) -> tuple[Mapping[NodeIndex, HPKEPrivateKey], Secret]:
        """What one member learns from a path: its new keys and the commit secret."""
        path = self.tree.filtered_direct_path(sender)
        return open_path(self.suite, self.private[receiver], path, update, context, ())

    def new_update(
        self, sender: LeafIndex, rng: RandomSource
    ) -> tuple[UpdatePath, DerivedPath, RatchetTree]:
        """A path that this implementation makes."""
        suite, tree = self.suite, self.tree
        key = self.signature_keys[sender]
        derived, leaf_node, nodes = new_path(suite, tree, sender, key, self.group_id, rng)
        after = tree.with_path(sender, leaf_node, nodes)
        context = self.context(after.tree_hash()).encode()
        sealed = seal_path(suite, tree, derived, context, (), rng)
        return UpdatePath(leaf_node, sealed), derived, after


def verify_treekem(case: Case) -> None:
    """Paths of the vector opened by everybody, and a path of our own opened by everybody."""
    setting = _Setting.of_case(case)
    for entry in case.cases("update_paths"):
        sender = LeafIndex(entry.number("sender", _LEAVES))
        if sender not in setting.private:
            msg = f"there are no private keys of the sender, {sender!r}"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        _verify_given(setting, entry, sender)
        _verify_own(setting, sender)


def _verify_given(setting: _Setting, entry: Case, sender: LeafIndex) -> None:
    update = UpdatePath.decode(entry.data("update_path"))
    after = setting.merged(sender, update)
    expect("tree_hash_after", after.tree_hash(), entry.data("tree_hash_after"))
    context = setting.context(after.tree_hash()).encode()
    commit_secret, path_secrets = entry.data("commit_secret"), entry.datas("path_secrets")
    for receiver in setting.private:
        if receiver == sender:
            continue
        wanted = path_secrets[receiver] if receiver < len(path_secrets) else None
        if wanted is None:
            msg = f"the vector has no path secret for {receiver!r}"
            raise Mismatch(msg)
        keys, secret = setting.opened(sender, update, receiver, context)
        expect(f"commit_secret of {receiver!r}", bytes(secret), commit_secret)
        above = _shared_path(setting.tree, sender, receiver)
        publics = [node.encryption_key for node in update.nodes[-len(above) :]]
        expected, _ = keys_above(setting.suite, above, publics, Secret(wanted))
        expect(f"path secret of {receiver!r}", _public(keys), _public(expected))


def _shared_path(tree: RatchetTree, sender: LeafIndex, receiver: LeafIndex) -> list[PathNode]:
    """The nodes of a sender's filtered direct path that are above a receiver as well."""
    return [node for node in tree.filtered_direct_path(sender) if node.index.covers(receiver)]


def _public(keys: Mapping[NodeIndex, HPKEPrivateKey]) -> dict[int, bytes]:
    return {int(index): key.public for index, key in keys.items()}


def _verify_own(setting: _Setting, sender: LeafIndex) -> None:
    update, derived, after = setting.new_update(sender, os.urandom)
    expect(
        "tree hash after an own path", setting.merged(sender, update).tree_hash(), after.tree_hash()
    )
    context = setting.context(after.tree_hash()).encode()
    for receiver in setting.private:
        if receiver != sender:
            _, secret = setting.opened(sender, update, receiver, context)
            expect(f"commit secret of an own path, {receiver!r}", secret, derived.commit_secret)


def generate_treekem(suite: Suite, rng: RandomSource) -> Generated:
    """Full trees, trees with gaps, a tree with unmerged leaves; every member sends."""
    group_id = rng(16)
    sources = [SimulatedTree.of(suite, rng, group_id, n) for n in (2, 3, 5)]
    sources.append(gap_tree(suite, rng, group_id, (1, 2, 3), add=False))
    sources.append(unmerged_tree(suite, rng, group_id))
    return [_case(source) for source in sources]


def _case(source: SimulatedTree) -> dict[str, JSON]:
    rng, suite = source.rng, source.suite
    setting = _Setting(suite, source.tree, source.group_id, int.from_bytes(rng(3)))
    setting.confirmed = rng(suite.hash_length)
    leaves: list[JSON] = []
    for leaf, member in sorted(source.members.items()):
        setting.signature_keys[leaf] = member.signature_key
        secrets: list[JSON] = [
            {"node": int(node), "path_secret": secret.hex()}
            for node, secret in sorted(member.path_secrets.items())
        ]
        leaves.append(
            {
                "index": int(leaf),
                "encryption_priv": member.leaf_key.private_bytes().hex(),
                "signature_priv": member.signature_key.private_bytes().hex(),
                "path_secrets": secrets,
            }
        )
    return {
        "cipher_suite": int(suite.cipher_suite),
        "group_id": source.group_id.hex(),
        "epoch": setting.epoch,
        "confirmed_transcript_hash": setting.confirmed.hex(),
        "ratchet_tree": source.tree.encode().hex(),
        "leaves_private": leaves,
        "update_paths": [_update(setting, leaf, rng) for leaf in sorted(source.members)],
    }


def _update(setting: _Setting, sender: LeafIndex, rng: RandomSource) -> dict[str, JSON]:
    update, derived, after = setting.new_update(sender, rng)
    secrets: list[JSON] = []
    for leaf in range(setting.tree.leaf_count):
        secret = derived.secret_for(LeafIndex(leaf))
        known = leaf in setting.signature_keys and leaf != sender and secret is not None
        secrets.append(secret.hex() if known and secret is not None else None)
    return {
        "sender": int(sender),
        "update_path": update.encode().hex(),
        "path_secrets": secrets,
        "commit_secret": derived.commit_secret.hex(),
        "tree_hash_after": after.tree_hash().hex(),
    }


TREEKEM = Kind(
    "treekem",
    frozenset({"cipher_suite", "ratchet_tree", "leaves_private", "update_paths"}),
    verify_treekem,
    generate_treekem,
)
