"""What a step stores, and a group out of what was stored. The layout is described in `state`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from coterie.errors import DecodeError, StorageError
from coterie.mls.crypto import suite_of
from coterie.mls.framing import MLSMessage, VerifiedContent, own_content
from coterie.mls.group.commit import OwnUpdate
from coterie.mls.group.config import Limits
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing, MessageEpoch
from coterie.mls.group.pending import ProposalCache
from coterie.mls.group.results import Delta, PendingCommit, StagedCommit
from coterie.mls.group.state import (
    FORMAT,
    GROUP_KEY,
    PENDING_KEY,
    StoredEpoch,
    StoredPast,
    StoredProposal,
    StoredStaged,
    StoredUpdate,
    decode_stored,
    load_epoch,
    load_staged,
    read_format,
    stored_epoch,
    stored_staged,
)
from coterie.mls.proposal import Proposal
from coterie.mls.ratchet_tree import NodeStore, RatchetTree
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tls import Struct, Uint
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, Sender
from coterie.mls.validation import CommittedProposal

_MIXED = "its entries are of different moments"


class StoredCommitted(Struct):
    """A proposal of the pending Commit; the reference is empty where it stands in the Commit itself."""

    proposal: Proposal
    sender: Sender
    reference: bytes


class StoredOwn(Struct):
    """What is stored of an own message under its hash."""

    content_type: ContentType


class StoredPending(Struct):
    """The own Commit that waits, whole: its sender could never process it from the wire."""

    message: MLSMessage
    welcomes: tuple[MLSMessage, ...]
    group_info: MLSMessage | None
    staged: StoredStaged
    proposals: tuple[StoredCommitted, ...]
    added: tuple[Annotated[LeafIndex, Uint(4)], ...]
    authenticated_data: bytes


class Saver:
    """Remembers what the store has."""

    def __init__(self, epoch: Epoch | None = None) -> None:
        # Not the epoch itself: its secrets are not to live longer for it.
        self._saved = -1 if epoch is None else epoch.number
        self._tree = None if epoch is None else epoch.tree
        self.pending_changed = False

    def delta(
        self,
        epoch: Epoch,
        keys: KeyRing,
        index: TreeIndex,
        proposals: ProposalCache,
        pending: PendingCommit | None,
        *,
        closed: bool,
    ) -> Delta:
        """What changed since the last call."""
        if closed:
            return Delta({}, frozenset(), (b"",))
        puts, drops, prefixes = keys.take_changes()
        if epoch.number != self._saved:
            before = self._tree
            # Past epochs that came and went since the last call: late messages name their members.
            for tree in keys.past_trees(after=self._saved):
                puts.update(tree.store_changes(before)[0])
            puts.update(epoch.tree.store_changes(before)[0])
            puts[GROUP_KEY] = FORMAT + stored_epoch(epoch).encode()
            self._saved, self._tree = epoch.number, epoch.tree
        for name, value in index.take_changes().items():
            if value is None:
                drops.add(name)
            else:
                puts[name] = value
        waiting, cleared = proposals.take_changes()
        puts.update(waiting)
        if self.pending_changed:
            self.pending_changed = False
            if pending is None:
                drops.add(PENDING_KEY)
            else:
                puts[PENDING_KEY] = _stored_pending(pending, epoch).encode()
        return Delta(puts, frozenset(drops - puts.keys()), (*prefixes, *cleared))


def _stored_pending(pending: PendingCommit, present: Epoch) -> StoredPending:
    commit = pending.commit
    return StoredPending(
        pending.message,
        pending.welcomes,
        pending.group_info,
        stored_staged(commit.following(), present.tree),
        tuple(
            StoredCommitted(entry.proposal, entry.sender, entry.reference or b"")
            for entry in commit.proposals
        ),
        tuple(member.leaf for member in commit.added),
        commit.authenticated_data,
    )


def _load_pending(stored: StoredPending, present: Epoch, store: NodeStore) -> PendingCommit:
    staged = load_staged(stored.staged, store)
    if staged.epoch.number != present.number + 1:
        raise ValueError(_MIXED)
    entries = tuple(
        CommittedProposal(entry.proposal, entry.sender, entry.reference or None)
        for entry in stored.proposals
    )
    commit = StagedCommit.describe(
        present.tree,
        staged.epoch.tree,
        entries,
        present.leaf,
        stored.added,
        external=False,
        epoch=present.number,
        authenticated_data=stored.authenticated_data,
        next=staged,
    )
    return PendingCommit(stored.message, stored.welcomes, stored.group_info, commit)


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """Everything of a group that was stored, as objects."""

    epoch: Epoch
    secret_tree: SecretTree
    past: list[MessageEpoch]
    resumption: dict[int, Secret]
    own: dict[bytes, tuple[ContentType, int]]
    proposals: list[VerifiedContent]
    updates: list[OwnUpdate]
    pending: PendingCommit | None


def load_parts(entries: Mapping[bytes, bytes], store: NodeStore, limits: Limits) -> Parts:
    """Reads a stored group; raises `StorageError` where something is missing or damaged."""
    try:
        return _read_parts(entries, store, limits)
    except (DecodeError, ValueError, LookupError) as error:
        msg = f"the store is damaged: {error}; restore it from a backup"
        raise StorageError(msg) from error


def _read_parts(entries: Mapping[bytes, bytes], store: NodeStore, limits: Limits) -> Parts:
    stored = decode_stored(StoredEpoch, read_format(entries.get(GROUP_KEY)))
    epoch = load_epoch(stored, store)
    past = [
        _load_past(decode_stored(StoredPast, value), entries, store, limits)
        for key, value in entries.items()
        if key.startswith(b"e/")
    ]
    pending = entries.get(PENDING_KEY)
    if any(keys.context.epoch >= epoch.number for keys in past):
        raise ValueError(_MIXED)
    return Parts(
        epoch,
        _load_secret_tree(epoch.tree, epoch.number, entries, limits),
        sorted(past, key=lambda keys: keys.context.epoch),
        _numbered(entries, b"k/"),
        _load_own(entries),
        _load_proposals(entries),
        [_load_update(epoch, value) for key, value in entries.items() if key.startswith(b"u/")],
        None
        if pending is None
        else _load_pending(decode_stored(StoredPending, pending), epoch, store),
    )


def _load_secret_tree(
    tree: RatchetTree, epoch: int, entries: Mapping[bytes, bytes], limits: Limits
) -> SecretTree:
    prefix = b"s/%d/" % epoch
    secret_tree = SecretTree(tree.suite, tree.leaf_count, limits.ratchets)
    secret_tree.load(
        (key[len(prefix) :], value) for key, value in entries.items() if key.startswith(prefix)
    )
    return secret_tree


def _load_past(
    stored: StoredPast, entries: Mapping[bytes, bytes], store: NodeStore, limits: Limits
) -> MessageEpoch:
    suite = suite_of(stored.context.cipher_suite)
    tree = RatchetTree.stored(suite, stored.tree.level, stored.tree.root, store)
    return MessageEpoch(
        stored.context,
        tree,
        stored.sender_data_secret,
        _load_secret_tree(tree, stored.context.epoch, entries, limits),
        stored.ended,
        stored.gone,
    )


def _numbered(entries: Mapping[bytes, bytes], prefix: bytes) -> dict[int, Secret]:
    found = {int(k[len(prefix) :]): Secret(v) for k, v in entries.items() if k.startswith(prefix)}
    return dict(sorted(found.items()))


def _load_own(entries: Mapping[bytes, bytes]) -> dict[bytes, tuple[ContentType, int]]:
    own = {}
    for key, value in entries.items():
        if key.startswith(b"o/"):
            epoch, digest = key[2:].split(b"/", 1)
            own[digest] = (decode_stored(StoredOwn, value).content_type, int(epoch))
    return own


def _load_proposals(entries: Mapping[bytes, bytes]) -> list[VerifiedContent]:
    stored = [
        decode_stored(StoredProposal, value)
        for key, value in entries.items()
        if key.startswith(b"p/")
    ]
    contents = [entry.content for entry in sorted(stored, key=lambda entry: entry.number)]
    if not all(isinstance(c.content.body, Proposal) for c in contents):
        raise ValueError("what waits for a Commit is no proposal")
    return [own_content(c.wire_format, c.content, c.auth) for c in contents]


def _load_update(epoch: Epoch, value: bytes) -> OwnUpdate:
    stored = decode_stored(StoredUpdate, value)
    return OwnUpdate(
        epoch.suite.load_hpke_key(stored.encryption_key, stored.encryption_public),
        epoch.suite.load_signature_key(stored.signature_key),
    )
