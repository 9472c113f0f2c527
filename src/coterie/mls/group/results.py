"""What a `Group` returns: frozen values that say who did what, and what storage must keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coterie.mls.credential import Credential
from coterie.mls.framing import MLSMessage
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.leaf_node import LeafNode
from coterie.mls.proposal import Proposal, ReInit, Remove, Update
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, Sender
from coterie.mls.validation import CommittedProposal


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed since the last `save`, for one transaction: apply the drops first, then the puts."""

    puts: Mapping[bytes, bytes]
    drops: frozenset[bytes] = frozenset()
    drop_prefixes: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """The bytes that are written: keys and values of all puts."""
        return sum(len(key) + len(value) for key, value in self.puts.items())


@dataclass(frozen=True, slots=True)
class Member:
    """A member as a leaf of the tree shows it."""

    leaf: LeafIndex
    node: LeafNode

    @property
    def credential(self) -> Credential:
        """The member's credential."""
        return self.node.credential

    @property
    def signature_key(self) -> bytes:
        """The member's signature key."""
        return self.node.signature_key


@dataclass(frozen=True, slots=True)
class ApplicationMessage:
    """Application data that a member sent; `epoch` may be one that is over."""

    sender: Member
    epoch: int
    generation: int
    data: bytes = field(repr=False)
    authenticated_data: bytes = b""


@dataclass(frozen=True, slots=True)
class ProposalReceived:
    """A proposal that is valid by itself and waits for a Commit."""

    proposal: Proposal
    sender: Sender
    reference: bytes
    authenticated_data: bytes = b""


@dataclass(frozen=True, slots=True)
class StagedCommit:
    """A valid Commit, not adopted: give it to `Group.adopt`, or drop it.

    `committer` is who the Commit is by (for an external Commit the member that it makes). `next` is None where the
    Commit removes this member; adopting it ends the group here.
    """

    committer: Member
    external: bool
    proposals: tuple[CommittedProposal, ...]
    added: tuple[Member, ...]
    removed: tuple[Member, ...]
    updated: tuple[Member, ...]
    epoch: int
    next: StagedEpoch | None
    reinit: ReInit | None = None
    authenticated_data: bytes = b""

    @property
    def removes_self(self) -> bool:
        """Whether this member is no longer in the group afterwards."""
        return self.next is None


@dataclass(frozen=True, slots=True)
class OwnMessage:
    """A message that this member sent itself came back; `pending` is True for the Commit that waits for adoption."""

    content_type: ContentType
    epoch: int
    pending: bool = False


@dataclass(frozen=True, slots=True)
class PendingCommit:
    """An own Commit: `message` goes to the group, `welcomes` to new members once the Commit is accepted.

    `group_info` is None where nobody is added and the options did not ask for one.
    Adopt it when the Delivery Service accepted it; drop it when another Commit won.
    """

    message: MLSMessage
    welcomes: tuple[MLSMessage, ...]
    group_info: MLSMessage | None
    commit: StagedCommit

    @property
    def welcome(self) -> MLSMessage | None:
        """The Welcome, where there is exactly one."""
        return self.welcomes[0] if len(self.welcomes) == 1 else None

    @property
    def next(self) -> StagedEpoch | None:
        """The epoch that the Commit begins."""
        return self.commit.next


@dataclass(frozen=True, slots=True)
class SecretHeld:
    """One secret that a group holds: what it is, since which epoch, and why it is still needed."""

    what: str
    epoch: int
    why: str


Received = ApplicationMessage | ProposalReceived | StagedCommit | OwnMessage


def describe_commit(
    present: Epoch,
    following: StagedEpoch | None,
    committer: LeafIndex,
    proposals: tuple[CommittedProposal, ...],
    added: Sequence[LeafIndex],
    authenticated_data: bytes,
    *,
    external: bool,
    tree: RatchetTree,
) -> StagedCommit:
    """Who did what in a Commit that ends `present`; `tree` is the one after it."""
    contents = [(entry.sender, entry.proposal.content) for entry in proposals]
    return StagedCommit(
        committer=_members(tree, [committer])[0],
        external=external,
        proposals=proposals,
        added=_members(tree, added),
        removed=_members(present.tree, [c.removed for _, c in contents if isinstance(c, Remove)]),
        updated=_members(tree, [s.leaf_index for s, c in contents if isinstance(c, Update)]),
        epoch=present.number,
        next=following,
        reinit=next((c for _, c in contents if isinstance(c, ReInit)), None),
        authenticated_data=authenticated_data,
    )


def _members(where: RatchetTree, leaves: Iterable[LeafIndex | None]) -> tuple[Member, ...]:
    found = ((leaf, where.leaf(leaf)) for leaf in leaves if leaf is not None)
    return tuple(Member(leaf, node) for leaf, node in found if node is not None)
