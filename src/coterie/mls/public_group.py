"""`PublicGroup`: follows a group from its public messages, without any secret (RFC 9420 §6.2, §12.2, §12.4).

For servers that take part in the bookkeeping, and for inspecting. It begins with a GroupInfo and its tree and makes
every check that needs no secret: signatures, proposals, Commits and external Commits with their trees. What it cannot
check are membership tags, confirmation tags and what is encrypted; a group whose handshake messages are private cannot
be followed. The results that members and observers share are declared here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from coterie.errors import DecodeError, RuleViolation, StateError
from coterie.mls.credential import Credential
from coterie.mls.crypto import Suite, suite_of
from coterie.mls.framing import (
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    VerifiedContent,
    confirmed_transcript_hash,
    interim_transcript_hash,
    unprotect_public,
    verify_content,
)
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage, VerifiedKeyPackage
from coterie.mls.leaf_node import LeafNode
from coterie.mls.proposal import Commit, Proposal, ReInit, Remove, Update
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, Sender
from coterie.mls.validation import (
    CommittedProposal,
    Policy,
    PublicState,
    StagedPublic,
    WaitingProposals,
    check_key_package,
    check_proposal,
    next_context,
    read_group_info,
    sender_key,
    stage_public_commit,
    verify_group_info,
    wrong_epoch,
)
from coterie.mls.validation.joining import Map
from coterie.mls.welcome import GroupInfo


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
class ProposalReceived:
    """A proposal that is valid by itself and waits for a Commit."""

    proposal: Proposal
    sender: Sender
    reference: bytes
    authenticated_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitSummary:
    """Who did what in a Commit.

    `committer` is who the Commit is by (for an external Commit the member that it makes); `added` and `updated` are as
    they stand in the tree after it, `removed` as they stood in the one before; `epoch` is the one that it ends.
    """

    committer: Member
    external: bool
    proposals: tuple[CommittedProposal, ...]
    added: tuple[Member, ...]
    removed: tuple[Member, ...]
    updated: tuple[Member, ...]
    epoch: int
    reinit: ReInit | None = None
    authenticated_data: bytes = b""

    @classmethod
    def describe(
        cls,
        before: RatchetTree,
        after: RatchetTree,
        proposals: tuple[CommittedProposal, ...],
        committer: LeafIndex,
        added: Iterable[LeafIndex],
        **rest: Any,
    ) -> Self:
        """The summary of a Commit between two trees; `rest` are the other fields."""
        contents = [(entry.sender, entry.proposal.content) for entry in proposals]
        removes = [c.removed for _, c in contents if isinstance(c, Remove)]
        updates = [s.leaf_index for s, c in contents if isinstance(c, Update)]
        return cls(
            committer=_members(after, [committer])[0],
            proposals=proposals,
            added=_members(after, added),
            removed=_members(before, removes),
            updated=_members(after, updates),
            reinit=next((c for _, c in contents if isinstance(c, ReInit)), None),
            **rest,
        )


def _members(where: RatchetTree, leaves: Iterable[LeafIndex | None]) -> tuple[Member, ...]:
    found = ((leaf, where.leaf(leaf)) for leaf in leaves if leaf is not None)
    return tuple(Member(leaf, node) for leaf, node in found if node is not None)


@dataclass(frozen=True, slots=True, repr=False)
class PublicEpoch:
    """The public part of an epoch that a Commit begins."""

    context: GroupContext
    tree: RatchetTree
    interim_transcript_hash: bytes
    index_changes: Mapping[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCommit(CommitSummary):
    """A Commit in which an observer found nothing wrong, not adopted: give it to `PublicGroup.adopt`, or drop it."""

    next: PublicEpoch


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted message of the group, of which an observer sees this much."""

    epoch: int
    content_type: ContentType


class PublicGroup:
    """An observer's state of one group. Not safe for use by several threads at once."""

    def __init__(
        self,
        state: PublicState,
        index: TreeIndex,
        interim: bytes,
        policy: Policy,
        *,
        max_proposals: int,
    ) -> None:
        """For `follow`; use that."""
        self._suite = state.suite
        self._context = state.context
        self._tree = state.tree
        self._index = index
        self._interim = interim
        self._policy = policy
        self._proposals = WaitingProposals(max_proposals)
        self._reinit: ReInit | None = None

    @classmethod
    def follow(
        cls,
        info: MLSMessage | GroupInfo,
        policy: Policy,
        *,
        tree: bytes | None = None,
        max_proposals: int = 10_000,
        run: Map = map,
    ) -> Self:
        """Begins with the epoch of a GroupInfo (§12.4.3).

        `tree` is the encoded ratchet tree where the GroupInfo has none inside, `run` is `map` or an executor's for the
        signatures of the leaves. Raises `RuleViolation` or `VerificationError`.
        """
        read = read_group_info(info)
        context = read.group_context
        suite = suite_of(context.cipher_suite)
        verified, index = verify_group_info(read, suite, tree, policy, run)
        interim = interim_transcript_hash(
            suite, context.confirmed_transcript_hash, read.confirmation_tag
        )
        state = PublicState(suite, context, verified.settled(), index)
        return cls(state, index, interim, policy, max_proposals=max_proposals)

    def __repr__(self) -> str:
        return f"PublicGroup({self.group_id.hex()}, epoch {self.epoch})"

    @property
    def suite(self) -> Suite:
        """The cipher suite."""
        return self._suite

    @property
    def context(self) -> GroupContext:
        """What all members agree on (§8.1)."""
        return self._context

    @property
    def group_id(self) -> bytes:
        """The group's id."""
        return self._context.group_id

    @property
    def epoch(self) -> int:
        """The number of the present epoch."""
        return self._context.epoch

    @property
    def tree(self) -> RatchetTree:
        """The public ratchet tree."""
        return self._tree

    @property
    def interim_transcript_hash(self) -> bytes:
        """The hash of the group's history so far (§8.2), Nh bytes."""
        return self._interim

    @property
    def pending_proposals(self) -> tuple[CommittedProposal, ...]:
        """The proposals that wait for a Commit."""
        return self._proposals.entries()

    @property
    def reinit(self) -> ReInit | None:
        """What the group was reinitialised to: it is over then (§11.2)."""
        return self._reinit

    def members(self) -> Iterator[Member]:
        """All members, by leaf."""
        for leaf, node in self._tree.members():
            yield Member(leaf, node)

    def check_key_package(
        self, package: KeyPackage, *, now: int | None = None
    ) -> VerifiedKeyPackage:
        """Validates a key package, and that its client could be added to the group as it is (§10.1, §7.3).

        Raises `RuleViolation` or `VerificationError`. `now` is in seconds since 1970; None does not look at lifetimes.
        """
        return check_key_package(self._state(), package, self._policy, now=now)

    # -- following

    def receive(
        self, message: MLSMessage | bytes, *, now: int | None = None
    ) -> ProposalReceived | PublicCommit | Sealed:
        """Takes a message of the group; nothing but a proposal that was found valid changes anything.

        Raises `DecodeError`, `RuleViolation`, `VerificationError`, `EpochError` or `StateError`.
        """
        if isinstance(message, bytes):
            message = MLSMessage.read(message)
        body = message.body
        if not isinstance(body, PublicMessage | PrivateMessage):
            msg = f"a {type(body).__name__} is not a message within a group"
            raise DecodeError(msg, rule=Rule.ENUM_VALUE)
        frame = body.content if isinstance(body, PublicMessage) else body
        if frame.group_id != self.group_id:
            msg = f"the message is for group {frame.group_id.hex()}, this is {self!r}"
            raise RuleViolation(msg, rule=Rule.GROUP_ID)
        if isinstance(body, PrivateMessage):
            return Sealed(body.epoch, body.content_type)
        if body.content.epoch != self.epoch:
            raise wrong_epoch(body.content.epoch, self.epoch)
        key = sender_key(body.content, self._tree, self._context)
        content = unprotect_public(self._suite, body, self._context, None)
        verified = verify_content(self._suite, content, key, self._context)
        if verified.content.content_type == ContentType.PROPOSAL:
            return self._receive_proposal(verified, now)
        return self._receive_commit(verified, now)

    def _require_open(self) -> None:
        if self._reinit is not None:
            msg = "the group was reinitialised and takes no more proposals and Commits"
            raise RuleViolation(msg, rule=Rule.AFTER_REINIT)

    def _receive_proposal(self, content: VerifiedContent, now: int | None) -> ProposalReceived:
        self._require_open()
        check_proposal(self._state(), content, self._policy, now=now)
        proposal = content.body(Proposal)
        reference = self._suite.proposal_ref(content.authenticated_content().encode())
        self._proposals.add(reference, content.sender, proposal)
        data = content.content.authenticated_data
        return ProposalReceived(proposal, content.sender, reference, data)

    def _receive_commit(self, content: VerifiedContent, now: int | None) -> PublicCommit:
        self._require_open()
        proposals = self._proposals.resolve(content.body(Commit), content.sender)
        committer, staged = stage_public_commit(
            self._state(), content, proposals, self._policy, now=now
        )
        return PublicCommit.describe(
            self._tree,
            staged.tree,
            staged.proposals.all,
            committer,
            staged.new_leaves,
            external=content.sender.leaf_index is None,
            epoch=self.epoch,
            authenticated_data=content.content.authenticated_data,
            next=self._next(content, staged),
        )

    def _next(self, content: VerifiedContent, staged: StagedPublic) -> PublicEpoch:
        auth = content.auth
        confirmed = confirmed_transcript_hash(
            self._suite, self._interim, content.wire_format, content.content, auth.signature
        )
        context = next_context(self._context, staged, confirmed)
        interim = interim_transcript_hash(self._suite, confirmed, auth.confirmation_tag or b"")
        return PublicEpoch(context, staged.tree, interim, staged.changes)

    def adopt(self, commit: PublicCommit) -> None:
        """Goes to the epoch that a Commit begins; raises `StateError` where it is not one of the present epoch."""
        following = commit.next
        if commit.epoch != self.epoch or following.context.group_id != self.group_id:
            msg = f"the Commit ends epoch {commit.epoch}, the group is in epoch {self.epoch}"
            raise StateError(msg)
        self._context, self._tree = following.context, following.tree
        self._interim = following.interim_transcript_hash
        self._index.apply(following.index_changes)
        self._proposals.clear()
        self._reinit = commit.reinit

    def _state(self) -> PublicState:
        return PublicState(self._suite, self._context, self._tree, self._index)
