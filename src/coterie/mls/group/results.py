"""What a `Group` returns: frozen values that say who did what, and what storage must keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coterie.errors import StateError
from coterie.mls.framing import MLSMessage
from coterie.mls.group.epoch import StagedEpoch
from coterie.mls.public_group import CommitSummary, Member, ProposalReceived
from coterie.mls.secret import Confidential
from coterie.mls.types import ContentType


@dataclass(frozen=True, slots=True)
class Delta(Confidential):
    """What changed since the last `save`, for one transaction: apply the drops first, then the puts."""

    puts: Mapping[bytes, bytes] = field(repr=False)
    drops: frozenset[bytes] = frozenset()
    drop_prefixes: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """The bytes that are written: keys and values of all puts."""
        return sum(len(key) + len(value) for key, value in self.puts.items())


@dataclass(frozen=True, slots=True)
class ApplicationMessage:
    """Application data that a member sent; `epoch` may be one that is over."""

    sender: Member
    epoch: int
    generation: int
    data: bytes = field(repr=False)
    authenticated_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedCommit(CommitSummary):
    """A valid Commit, not adopted: give it to `Group.adopt`, or drop it.

    `next` is None where the Commit removes this member; adopting it ends the group here.
    """

    next: StagedEpoch | None

    def following(self) -> StagedEpoch:
        """The epoch that it begins; raises `StateError` where it removes this member."""
        if self.next is None:
            msg = "the Commit removes this member: no epoch follows here"
            raise StateError(msg)
        return self.next

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
