"""The rules that need no secret (RFC 9420 §7.3, §12.2, §12.4): what members and observers check alike.

`proposal_list` judges which proposals may stand together, `leaves` what a leaf must be to stand in this group,
`commit` applies a Commit to the public state, `received` judges what arrived, `joining` verifies a tree that somebody
else gives.
"""

from __future__ import annotations

from coterie.mls.validation.commit import (
    Policy,
    PublicState,
    StagedPublic,
    check_next_tree,
    next_context,
    stage_path,
    stage_proposals,
)
from coterie.mls.validation.joining import read_group_info, verify_group_info, verify_tree
from coterie.mls.validation.leaves import GroupRules
from coterie.mls.validation.proposal_list import (
    CommittedProposal,
    CustomProposal,
    ProposalList,
    list_for_commit,
    list_for_external_commit,
)
from coterie.mls.validation.received import (
    check_key_package,
    check_proposal,
    sender_key,
    stage_public_commit,
    wrong_epoch,
)
from coterie.mls.validation.waiting import WaitingProposals

__all__ = [
    "CommittedProposal",
    "CustomProposal",
    "GroupRules",
    "Policy",
    "ProposalList",
    "PublicState",
    "StagedPublic",
    "WaitingProposals",
    "check_key_package",
    "check_next_tree",
    "check_proposal",
    "list_for_commit",
    "list_for_external_commit",
    "next_context",
    "read_group_info",
    "sender_key",
    "stage_path",
    "stage_proposals",
    "stage_public_commit",
    "verify_group_info",
    "verify_tree",
    "wrong_epoch",
]
