"""What an application decides about a group: local limits and hooks (RFC 9420 §5.3, §6.3, §9.2, §15)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.mls.credential import Authenticator
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.hpke import RandomSource
from coterie.mls.key_package import MAX_LIFETIME, Progress
from coterie.mls.private_message import Padding
from coterie.mls.secret_tree import RatchetLimits
from coterie.mls.types import WireFormat
from coterie.mls.validation import CustomProposal, GroupRules, Policy

PskLookup = Callable[[PreSharedKeyID], bytes | None]


def no_psk(_psk_id: PreSharedKeyID) -> bytes | None:
    """The lookup of a client that has no pre-shared keys."""
    return None


@dataclass(frozen=True, slots=True)
class Limits:
    """Local bounds and habits; members need not agree on them."""

    ratchets: RatchetLimits = field(default_factory=RatchetLimits)
    max_past_epochs: int = 3
    """How many past epochs' messages can still be read."""
    max_past_age: int = 7 * 24 * 3600
    """For how many seconds after its end a past epoch's messages can be read."""
    max_resumption_psks: int = 16
    """Of how many past epochs the resumption key is kept."""
    max_proposals: int = 10_000
    """How many proposals of an epoch are kept for its Commit."""
    padding: Padding = Padding.PADME
    private_handshakes: bool = True
    """Whether proposals and Commits are sent encrypted."""
    max_lifetime: int | None = MAX_LIFETIME
    """The longest lifetime of a key package that is accepted, in seconds."""
    grease: bool = True
    """Whether GREASE values are put where they may be (§13.5)."""

    @property
    def handshake_format(self) -> WireFormat:
        """How proposals and Commits are sent."""
        if self.private_handshakes:
            return WireFormat.MLS_PRIVATE_MESSAGE
        return WireFormat.MLS_PUBLIC_MESSAGE


@dataclass(frozen=True, slots=True)
class Config:
    """The hooks and limits of one client; `authenticator` cannot be left out."""

    authenticator: Authenticator
    limits: Limits = field(default_factory=Limits)
    rules: GroupRules | None = None
    custom_proposals: Mapping[int, CustomProposal] = field(default_factory=dict)
    psk: PskLookup = no_psk
    """Finds external pre-shared keys, and resumption keys of other groups."""
    rng: RandomSource = os.urandom
    run: Callable[..., Iterable[Any]] = map
    """`map`, or an executor's, for bulk work."""
    progress: Progress | None = None
    """Called in the caller's thread while many signatures are verified: so many of so many hold."""

    def policy(self) -> Policy:
        """What decides about validity."""
        return Policy(
            self.authenticator,
            self.rules,
            self.custom_proposals,
            self.limits.max_lifetime,
            self.run,
            self.progress,
        )


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """How a Commit is made."""

    path: bool = True
    """Whether to renew the own keys even where the proposals do not ask for it."""
    pending: bool = True
    """Whether proposals that were received are committed as well."""
    tree_inside: bool = True
    """Whether Welcomes and GroupInfo carry the ratchet tree."""
    largest_tree_inside: int | None = None
    """The most leaves, blank ones included, that a tree may have to be carried; None for no limit."""
    members_per_welcome: int = 0
    """How many new members share one Welcome; 0 for one Welcome for all."""
    group_info: bool = False
    """Whether a GroupInfo is made even where nobody is added; `Group.group_info` makes one after adopting as well."""
    external_pub: bool = True
    """Whether the GroupInfo allows external Commits."""
    authenticated_data: bytes = b""

    def carries(self, leaf_count: int) -> bool:
        """Whether a tree with room for so many leaves is carried."""
        largest = self.largest_tree_inside
        return self.tree_inside and (largest is None or leaf_count <= largest)
