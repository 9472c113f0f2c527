"""What the next entry of a log turns out to be, for the member that reads it (docs/delivery-protocol.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.errors import CoterieError
from coterie.mls.framing import MLSMessage
from coterie.mls.group import ApplicationMessage, ProposalReceived, StagedCommit
from coterie.transport import api


class Evidence(CoterieError):
    """The service signed two things that cannot both be true (D-REC-10); both receipts are kept."""

    def __init__(self, first: api.Receipt, second: api.Receipt, what: str) -> None:
        msg = f"the Delivery Service contradicts itself: {what}. Nothing more is sent in this group"
        super().__init__(msg, rule="D-REC-10")
        self.first = first
        self.second = second


@dataclass(frozen=True, slots=True)
class Sent:
    """An own entry stands in the log."""

    entry_hash: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Data:
    """Application data of a member."""

    message: ApplicationMessage
    number: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal waits for a Commit."""

    proposal: ProposalReceived


@dataclass(frozen=True, slots=True)
class Committed:
    """A Commit was adopted; the member is in the next epoch, or out."""

    commit: StagedCommit
    own: bool
    correct: api.Append | None
    """A correction to append where the committer claimed a wrong access (D-COR-1)."""
    welcomes: tuple[MLSMessage, ...] = ()
    """The Welcomes of an own Commit, to be sent now that it stands."""
    state_fits: bool = True
    """Whether the committer named, and the service has, the chunks that follow from the Commit (D-CHK-10)."""


@dataclass(frozen=True, slots=True)
class Void:
    """An entry that means nothing (D-ENT-11, D-VAL-3), or a refused Commit with its proved author."""

    number: int
    why: str
    leaf: int | None = None


@dataclass(frozen=True, slots=True)
class Stuck:
    """A Commit that this member cannot follow though others may (D-VAL-9): it must be added again."""

    number: int
    why: str
    added_again: bool = False
    """Whether the Commit does that: its Welcome is on the way (D-BOX-11)."""
    leaf: int | None = None
    """Whose Commit it is; not proved to be at fault."""


@dataclass(frozen=True, slots=True)
class Announced:
    """A successor of a group that was reinitialised; whether it counts is for who acts on it (D-SUC-2)."""

    content: bytes
    number: int


Outcome = Sent | Data | Proposed | Committed | Void | Stuck | Announced
