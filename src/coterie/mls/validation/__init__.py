"""The rules that need no secret (RFC 9420 §7.3, §12.2, §12.4): what members and observers check alike.

`proposal_list` judges which proposals may stand together, `leaves` what a leaf must be to stand in this group,
`commit` applies a Commit to the public state, `joining` verifies a tree that somebody else gives.
"""

from __future__ import annotations

from coterie.mls.validation.commit import (
    Policy,
    PublicState,
    StagedPublic,
    stage_path,
    stage_proposals,
)
from coterie.mls.validation.joining import verify_tree
from coterie.mls.validation.leaves import GroupRules
from coterie.mls.validation.proposal_list import (
    CommittedProposal,
    CustomProposal,
    ProposalList,
    check_proposal_sender,
    list_for_commit,
    list_for_external_commit,
)

__all__ = [
    "CommittedProposal",
    "CustomProposal",
    "GroupRules",
    "Policy",
    "ProposalList",
    "PublicState",
    "StagedPublic",
    "check_proposal_sender",
    "list_for_commit",
    "list_for_external_commit",
    "stage_path",
    "stage_proposals",
    "verify_tree",
]
