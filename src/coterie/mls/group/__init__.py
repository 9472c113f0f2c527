"""One member's state in a group (RFC 9420 §11, §12): `Group`, and what goes in and comes out of it."""

from __future__ import annotations

from coterie.mls.group.config import CommitOptions, Config, Limits
from coterie.mls.group.epoch import Epoch, StagedEpoch
from coterie.mls.group.group import Group
from coterie.mls.group.joining import ExternalJoin
from coterie.mls.group.results import (
    ApplicationMessage,
    Delta,
    OwnMessage,
    PendingCommit,
    Received,
    SecretHeld,
    StagedCommit,
)
from coterie.mls.group.welcoming import OpenedWelcome
from coterie.mls.public_group import Member, ProposalReceived

__all__ = [
    "ApplicationMessage",
    "CommitOptions",
    "Config",
    "Delta",
    "Epoch",
    "ExternalJoin",
    "Group",
    "Limits",
    "Member",
    "OpenedWelcome",
    "OwnMessage",
    "PendingCommit",
    "ProposalReceived",
    "Received",
    "SecretHeld",
    "StagedCommit",
    "StagedEpoch",
]
