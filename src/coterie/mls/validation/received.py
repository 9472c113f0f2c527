"""What members and observers check alike of a message that arrived (RFC 9420 §6.1, §12.1, §12.4.2).

In the order of use: the key with which it must be signed, the rules for one proposal by itself, a Commit's public part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from coterie.errors import EpochError, RuleViolation
from coterie.mls.extension import check_extension_list
from coterie.mls.framing import FramedContent, VerifiedContent
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage, VerifiedKeyPackage
from coterie.mls.leaf_node import LeafNode
from coterie.mls.proposal import (
    Add,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType, Sender, SenderType
from coterie.mls.validation.commit import (
    Policy,
    PublicState,
    StagedPublic,
    check_add,
    check_external_senders,
    check_next_tree,
    check_update,
    stage_path,
    stage_proposals,
)
from coterie.mls.validation.proposal_list import (
    CommittedProposal,
    ProposalList,
    check_custom_type,
    check_proposal_sender,
    check_psk,
    check_reinit,
    list_for_commit,
    list_for_external_commit,
)


def sender_key(content: FramedContent, tree: RatchetTree, context: GroupContext) -> bytes:
    """The signature key with which content of this sender must be signed (§6.1).

    Raises `RuleViolation` where the sender is nobody, or may not send such content.
    """
    sender, body = content.sender, content.body
    kind = sender.sender_type
    if kind == SenderType.MEMBER:
        return tree.member(sender.leaf_index or 0, rule=Rule.SENDER_BLANK).signature_key
    if kind == SenderType.EXTERNAL:
        if content.content_type != ContentType.PROPOSAL:
            msg = "an external sender sent something else than a proposal"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_SENDER_CONTENT)
        listed = context.external_senders()
        index = sender.sender_index or 0
        if listed is None or index >= len(listed.external_senders):
            msg = f"external sender {index} is not listed by the group"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_SENDER_INDEX)
        return listed.external_senders[index].signature_key
    if kind == SenderType.NEW_MEMBER_COMMIT:
        if not isinstance(body, Commit):
            msg = "a new member's message that should be a Commit is none"
            raise RuleViolation(msg, rule=Rule.NEW_MEMBER_CONTENT)
        if body.path is None:
            msg = "an external Commit without a path"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_PATH)
        return body.path.leaf_node.signature_key
    if not isinstance(body, Proposal):
        msg = "a new member's message that should be a proposal is none"
        raise RuleViolation(msg, rule=Rule.NEW_MEMBER_CONTENT)
    if not isinstance(body.content, Add):
        msg = "a new member may propose its own Add only"
        raise RuleViolation(msg, rule=Rule.NEW_MEMBER_PROPOSAL_TYPE)
    return body.content.key_package.leaf_node.signature_key


def check_proposal(
    state: PublicState, content: VerifiedContent, policy: Policy, *, now: int | None
) -> None:
    """Raises where a proposal is invalid by itself, whatever else is committed with it (§12.1)."""
    proposal, sender = content.body(Proposal), content.sender
    check_proposal_sender(proposal, sender, policy.custom)
    body, suite = proposal.content, state.suite
    match body:
        case Add():
            check_add(state, body, policy, now=now)
        case Update():
            if sender.leaf_index is not None:
                check_update(state, sender.leaf_index, body, policy, now=now)
        case Remove():
            state.tree.member(body.removed, rule=Rule.REMOVE_BLANK)
        case PreSharedKey():
            check_psk(body.psk, suite.hash_length, None)
        case ReInit():
            check_reinit(body, state.context.version)
        case ExternalInit():
            msg = "an ExternalInit outside of an external Commit"
            raise RuleViolation(msg, rule=Rule.LIST_EXTERNAL_INIT)
        case GroupContextExtensions():
            check_extension_list(body.extensions)
            check_external_senders(
                body.extensions, state.context.extensions, policy.authenticator, now=now
            )
        case bytes():
            check_custom_type(proposal.proposal_type, policy.custom)


def stage_public_commit(
    state: PublicState,
    content: VerifiedContent,
    proposals: Sequence[CommittedProposal],
    policy: Policy,
    *,
    now: int | None,
) -> tuple[LeafIndex, StagedPublic]:
    """The public part of a received Commit: all rules that need no secret; returns the committer's leaf."""
    suite, commit = state.suite, content.body(Commit)
    sender = content.sender.leaf_index
    if sender is None:
        checked = list_for_external_commit(proposals, suite.hash_length)
    else:
        checked = list_for_commit(proposals, sender, suite.hash_length, state.context.version)
    # An external Commit without a path has no key to be verified with: `sender_key` refused it.
    if commit.path is None and checked.path_required(policy.custom):
        msg = "the Commit has no path, which its proposals ask for"
        raise RuleViolation(msg, rule=Rule.PATH_REQUIRED, leaf=sender)
    staged = stage_proposals(state, checked, policy, sender, now=now)
    committer = staged.tree.leftmost_blank() if sender is None else sender
    if commit.path is not None:
        staged = stage_path(
            state,
            staged,
            commit.path,
            committer,
            policy,
            replaced=_replaced(state.tree, checked, sender),
            now=now,
        )
    check_next_tree(state, staged)
    return committer, staged


def _replaced(
    tree: RatchetTree, proposals: ProposalList, sender: LeafIndex | None
) -> LeafNode | None:
    """The leaf whose place the path's leaf takes: the committer's, or the one that an external Commit removes."""
    if sender is not None:
        return tree.leaf(sender)
    return tree.leaf(proposals.removes[0]) if proposals.removes else None


def check_key_package(
    state: PublicState, package: KeyPackage, policy: Policy, *, now: int | None
) -> VerifiedKeyPackage:
    """Validates a key package (§10.1), and that an Add of it alone would leave the group valid (§7.3, §12.2).

    Raises `RuleViolation` or `VerificationError`. The group's own rules (`Policy.rules`) are not asked.
    """
    verified = package.validate(
        state.suite, policy.authenticator, now=now, max_lifetime=policy.max_lifetime
    )
    add = CommittedProposal(
        Proposal.of(Add(package)), Sender(SenderType.NEW_MEMBER_PROPOSAL), checked=True
    )
    proposals = list_for_commit([add], LeafIndex(0), state.suite.hash_length, state.context.version)
    staged = stage_proposals(state, proposals, replace(policy, rules=None), None, now=now)
    check_next_tree(state, staged)
    return verified


def wrong_epoch(epoch: int, present: int) -> EpochError:
    """The error for a message of another epoch than the present one (§6)."""
    stale = epoch < present
    msg = (
        f"the message is of epoch {epoch}, which is over (the group is in {present})"
        if stale
        else f"the message is of epoch {epoch}, the group is in {present}: catch up first"
    )
    return EpochError(msg, rule=Rule.EPOCH, stale=stale)
