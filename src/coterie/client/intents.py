"""What the user asked for, stored before anything is sent, and done again until the log shows it.

An intent waits, or it is sealed: then the very bytes that go to the service are stored with it, so that a repetition is
the same entry (D-ENT-2). When the epoch ends under it, it waits again. An intent is gone when the log has its entry.
"""

from __future__ import annotations

from typing import Annotated

from coterie.mls.tls import Struct, Uint, Uint8Enum
from coterie.mls.types import CipherSuite
from coterie.mls.welcome import EncryptedGroupSecrets
from coterie.transport import api


class IntentKind(Uint8Enum):
    """What is wanted."""

    SEND = 1
    ADD = 2
    REMOVE = 3
    RENAME = 4
    RENEW = 5
    LEAVE = 6
    COMMIT_PENDING = 7
    WELCOME = 8
    CORRECT = 9
    CHANGE_RULES = 10
    READD = 11
    TEND = 12
    REINIT = 13


COMMITS = frozenset(
    {
        IntentKind.ADD,
        IntentKind.REMOVE,
        IntentKind.RENAME,
        IntentKind.RENEW,
        IntentKind.COMMIT_PENDING,
        IntentKind.CHANGE_RULES,
        IntentKind.READD,
        IntentKind.TEND,
        IntentKind.REINIT,
    }
)
"""Intents that end the epoch."""
_OF_ONE_GROUP = frozenset(
    {
        IntentKind.WELCOME,
        IntentKind.CORRECT,
        IntentKind.READD,
        IntentKind.COMMIT_PENDING,
        IntentKind.RENEW,
        IntentKind.TEND,
        IntentKind.REINIT,
    }
)
"""Intents that mean nothing in the group that follows."""


class Reason(Uint8Enum):
    """Why a Commit removes members without anybody having asked for it: what its authenticated data says."""

    IDLE = 1
    """Their keys are older than the group allows."""
    REVOKED = 2
    """Their certificates were revoked."""
    SILENT = 3
    """They were added, and never appeared; they are added anew (D-INB-8)."""
    DECLINED = 4
    """They were added, and their device says that its user does not come (D-BOX-13)."""


class CommitNote(Struct):
    """The authenticated data of a Commit that was made for a reason; it is the committer's word."""

    reason: Reason


class ClaimedPackage(Struct):
    """A key package that was claimed for an Add, and the ticket for its inbox."""

    key_package: bytes
    ticket: bytes


class Intent(Struct):
    """One thing that the user wants in one conversation.

    `argument` is the content of a message, the users (UTF-8, separated by spaces) to add or remove, a new name, or a
    Welcome's parts; `sealed` are the bytes of the Append that were stored before they were sent.
    """

    kind: IntentKind
    argument: bytes
    claimed: tuple[ClaimedPackage, ...] = ()
    sealed: api.Append | None = None
    attempts: Annotated[int, Uint(4)] = 0
    opened: api.Receipt | None = None
    """The opening receipt of the epoch that an accepted Commit began, where the service's answer arrived."""
    reason: Reason | None = None
    asked: Annotated[int, Uint(1)] = 0
    """1 where those to add have asked: all members have their key packages, and whoever is first adds them."""

    def waiting(self) -> Intent:
        """The intent without what was sealed for an epoch that is over."""
        return self.replace(sealed=None, opened=None, attempts=self.attempts + 1)

    def carried(self, *, reformed: bool) -> Intent | None:
        """What is wanted of the group that follows, None for nothing.

        Of a re-formed group, which has other members and rules, nothing is wanted but that texts are sent.
        """
        if self.kind == IntentKind.SEND:
            return self.waiting()
        if reformed or self.kind in _OF_ONE_GROUP:
            return None
        return self.waiting().replace(claimed=(), asked=0)


class Leaves(Struct):
    """The leaves that an intent is about, as they were when it was made."""

    leaves: tuple[api.Replaced, ...]


class WelcomeParts(Struct):
    """What the Welcomes of one Commit have in common; the rest is in a `WelcomeSlice` for each new member."""

    count: Annotated[int, Uint(4)]
    cipher_suite: CipherSuite
    encrypted_group_info: bytes
    parent: api.Hash
    read_token: api.Token
    state: api.ChunkRef | None
    bundle: api.Append | None
    """The own Commit, to ask for the opening receipt where the answer that had it did not arrive."""
    opened: api.Receipt | None


class WelcomeSlice(Struct):
    """What one new member gets, and where it is to be posted."""

    claimed: ClaimedPackage
    secrets: EncryptedGroupSecrets


class Invitation(Struct):
    """An invitation to a group whose state is still to be downloaded."""

    conversation: bytes
    package: bytes
    """The reference of the key package that it is for."""
    welcome: api.WelcomeContent
    received_at: Annotated[int, Uint(8)]
    asked_at: Annotated[int, Uint(8)] = 0
    """When this device asked to be added again, 0 where it did not."""
    hopeless: Annotated[int, Uint(1)] = 0
    """1 where what was downloaded is not the group's state: trying again is of no use."""
