"""How a group is stored: structs, keys and the way back (format 1).

A group is a set of entries under short keys, so that a step writes what it changed and no more:

    g                  the present epoch: StoredEpoch, preceded by the format
    n/HASH             a node of the ratchet tree, by its tree hash
    i/NAME             a counter of the index of used keys
    s/EPOCH/NAME       a secret of the secret tree
    e/EPOCH            a past epoch whose messages can still be read
    k/EPOCH            the resumption key of a past epoch
    p/REF              a proposal that waits for a Commit
    u/KEY              the private keys of an own Update
    o/EPOCH/HASH       the hash of an own message, so that its echo is known
    c                  the own Commit that is pending, with the epoch that it begins

The caller keeps them in any store, gives `n/` and `i/` entries back one by one through a `NodeStore`, all others at
once; after loading a group of 50,000 only what is touched is read.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from coterie.errors import DecodeError, StorageError
from coterie.mls.crypto import suite_of
from coterie.mls.framing import AuthenticatedContent
from coterie.mls.group.commit import OwnUpdate
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_schedule import EpochSecrets
from coterie.mls.proposal import ReInit
from coterie.mls.ratchet_tree import NodeStore, RatchetTree
from coterie.mls.ratchet_tree.subtree import StoredChild
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct, Uint
from coterie.mls.tree_math import LeafIndex, NodeIndex
from coterie.mls.treekem import PrivatePath

FORMAT = b"\x01"

GROUP_KEY = b"g"
PENDING_KEY = b"c"


class StoredKey(Struct):
    """A private key of a node and its public key."""

    node: Annotated[NodeIndex, Uint(4)]
    private: Secret
    public: bytes


class StoredTree(Struct):
    """The root of a ratchet tree."""

    level: Annotated[int, Uint(1)]
    root: StoredChild


class StoredEpoch(Struct):
    """An epoch without its message keys."""

    context: GroupContext
    tree: StoredTree
    leaf: Annotated[LeafIndex, Uint(4)]
    keys: tuple[StoredKey, ...]
    signature_key: Secret
    secrets: EpochSecrets
    interim_transcript_hash: bytes
    confirmation_tag: bytes
    reinit: ReInit | None


class StoredPast(Struct):
    """A past epoch: what opening its messages needs, and which nodes to drop with it."""

    context: GroupContext
    tree: StoredTree
    sender_data_secret: Secret
    ended: Annotated[int, Uint(8)]
    gone: tuple[bytes, ...]


class StoredProposal(Struct):
    """A proposal that was received and found valid, with its place in the order of arrival."""

    number: Annotated[int, Uint(4)]
    content: AuthenticatedContent


class StoredUpdate(Struct):
    """The private keys of an own Update."""

    encryption_key: Secret
    encryption_public: bytes
    signature_key: Secret


class StoredChange(Struct):
    """One change of the index of used keys, moved by 2^31 to be positive."""

    name: bytes
    change: Annotated[int, Uint(4)]


class StoredNode(Struct):
    """A node that only the staged epoch has."""

    key: bytes
    value: bytes


class StoredStaged(Struct):
    """A staged epoch with the nodes that only it has."""

    epoch: StoredEpoch
    encryption_secret: Secret
    changes: tuple[StoredChange, ...]
    nodes: tuple[StoredNode, ...]


_ZERO = 1 << 31


def stored_tree(tree: RatchetTree) -> StoredTree:
    """The root of a tree as it is stored."""
    return StoredTree(tree.root.level, tree.root.as_stored_child(tree.suite))


def stored_epoch(epoch: Epoch) -> StoredEpoch:
    """An epoch as it is stored."""
    private = epoch.private
    keys = [
        StoredKey(node, key.private_bytes(), key.public)
        for node, key in (
            (private.leaf.node(), private.leaf_key),
            *sorted(private.parents.items()),
        )
    ]
    return StoredEpoch(
        epoch.context,
        stored_tree(epoch.tree),
        private.leaf,
        tuple(keys),
        epoch.signature_key.private_bytes(),
        epoch.secrets,
        epoch.interim_transcript_hash,
        epoch.confirmation_tag,
        epoch.reinit,
    )


def load_epoch(stored: StoredEpoch, store: NodeStore) -> Epoch:
    """The epoch that was stored; its tree is read node by node, when it is needed."""
    suite = suite_of(stored.context.cipher_suite)
    keys: dict[NodeIndex, HPKEPrivateKey] = {
        key.node: suite.load_hpke_key(key.private, key.public) for key in stored.keys
    }
    leaf_key = keys.pop(stored.leaf.node())
    return Epoch(
        suite,
        stored.context,
        RatchetTree.stored(suite, stored.tree.level, stored.tree.root, store),
        PrivatePath(stored.leaf, leaf_key, keys),
        suite.load_signature_key(stored.signature_key),
        stored.secrets,
        stored.interim_transcript_hash,
        stored.confirmation_tag,
        stored.reinit,
    )


def stored_staged(staged: StagedEpoch, present: RatchetTree) -> StoredStaged:
    """A staged epoch as it is stored: O(log n), since it shares its tree with the present one."""
    puts, _ = staged.epoch.tree.store_changes(present)
    return StoredStaged(
        stored_epoch(staged.epoch),
        staged.encryption_secret,
        tuple(
            StoredChange(name, change + _ZERO)
            for name, change in sorted(staged.index_changes.items())
        ),
        tuple(StoredNode(key, value) for key, value in puts.items()),
    )


class _Overlay:
    """A store with the nodes of a staged epoch before it."""

    def __init__(self, store: NodeStore, nodes: tuple[StoredNode, ...]) -> None:
        self._store = store
        self._nodes = {node.key: node.value for node in nodes}

    def get(self, key: bytes) -> bytes | None:
        """The value stored under a key, or None."""
        value = self._nodes.get(key)
        return self._store.get(key) if value is None else value


def load_staged(stored: StoredStaged, store: NodeStore) -> StagedEpoch:
    """The staged epoch that was stored."""
    epoch = load_epoch(stored.epoch, _Overlay(store, stored.nodes))
    changes = {change.name: change.change - _ZERO for change in stored.changes}
    return StagedEpoch(epoch, stored.encryption_secret, changes)


def stored_update(update: OwnUpdate) -> bytes:
    """The private keys of an own Update as they are stored."""
    return StoredUpdate(
        update.encryption_key.private_bytes(),
        update.encryption_key.public,
        update.signature_key.private_bytes(),
    ).encode()


def read_format(value: bytes | None) -> bytes:
    """What follows the format number; raises `StorageError` for another format or for nothing."""
    if not value:
        msg = "there is no group under this name in the store"
        raise StorageError(msg)
    if value[:1] != FORMAT:
        msg = f"the group is stored in format {value[0]}, this version reads format {FORMAT[0]}"
        raise StorageError(msg)
    return value[1:]


S = TypeVar("S", bound=Struct)


def decode_stored(cls: type[S], value: bytes) -> S:
    """A stored struct; raises `StorageError` where it is damaged."""
    try:
        return cls.decode(value)
    except DecodeError as error:
        msg = f"the store is damaged: {error}; restore it from a backup"
        raise StorageError(msg) from error
