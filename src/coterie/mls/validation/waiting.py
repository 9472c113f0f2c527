"""Proposals that wait for a Commit (RFC 9420 §12.1, §12.4), as members and observers keep them."""

from __future__ import annotations

from collections.abc import Sequence

from coterie.errors import RuleViolation
from coterie.mls.proposal import (
    Add,
    Commit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.rules import Rule
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import Sender
from coterie.mls.validation.proposal_list import CommittedProposal


class WaitingProposals:
    """The proposals of the present epoch that were found valid by themselves, by reference."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[bytes, CommittedProposal] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> tuple[CommittedProposal, ...]:
        """What waits, in the order of arrival."""
        return tuple(self._entries.values())

    def check_room(self, reference: bytes) -> None:
        """Raises `RuleViolation` where too many wait to keep another one."""
        if len(self._entries) >= self._limit and reference not in self._entries:
            msg = f"{self._limit} proposals wait already: commit them first"
            raise RuleViolation(msg, rule=Rule.PROPOSAL_COUNT)

    def add(self, reference: bytes, sender: Sender, proposal: Proposal) -> None:
        """Keeps a proposal; raises `RuleViolation` where there are too many."""
        self.check_room(reference)
        self._note(reference, sender, proposal)

    def _note(self, reference: bytes, sender: Sender, proposal: Proposal) -> None:
        self._entries[reference] = CommittedProposal(proposal, sender, reference, checked=True)

    def clear(self) -> None:
        """Forgets everything: the epoch is over."""
        self._entries.clear()

    def resolve(self, commit: Commit, sender: Sender) -> list[CommittedProposal]:
        """The proposals of a received Commit; raises `RuleViolation` for a reference that is not known."""
        resolved = []
        for item in commit.proposals:
            if isinstance(item.content, Proposal):
                resolved.append(CommittedProposal(item.content, sender))
                continue
            if sender.leaf_index is None:
                msg = "an external Commit with a proposal by reference"
                raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_REFERENCE)
            entry = self._entries.get(item.content)
            if entry is None:
                msg = f"the Commit refers to a proposal that did not arrive: {item.content.hex()}"
                raise RuleViolation(msg, rule=Rule.PROPOSAL_UNKNOWN)
            resolved.append(entry)
        return resolved

    def select(
        self, own: LeafIndex, first: Sequence[CommittedProposal], now: int | None
    ) -> list[CommittedProposal]:
        """What a Commit covers: `first`, and of what waits all that may stand beside it (§12.2).

        Removes go before Updates, later Updates before earlier ones, everything before a ReInit; Adds whose lifetime is
        over at `now` stay out.
        """
        chosen = _Chosen(own, now)
        for entry in first:
            chosen.fits(entry)
        order: dict[type, int] = {Remove: 0, Update: 1}
        ranked = sorted(
            enumerate(self._entries.values()),
            key=lambda item: (order.get(type(item[1].proposal.content), 2), -item[0]),
        )
        picked = {number for number, entry in ranked if chosen.fits(entry)}
        waiting = [e for number, e in enumerate(self._entries.values()) if number in picked]
        entries = [*first, *waiting]
        if len(entries) > 1:
            entries = [
                entry
                for entry in entries
                if not isinstance(entry.proposal.content, ReInit) or entry.reference is None
            ]
        return entries


class _Chosen:
    """What is in a Commit so far, as far as it keeps other proposals out."""

    def __init__(self, own: LeafIndex, now: int | None) -> None:
        self._own = own
        self._now = now
        self._seen: set[object] = set()

    def fits(self, entry: CommittedProposal) -> bool:
        """Whether a proposal can be in too; if so it is noted."""
        content = entry.proposal.content
        if isinstance(content, Remove | Update):
            leaf = content.removed if isinstance(content, Remove) else entry.sender.leaf_index
            return leaf not in {None, self._own} and self._first(leaf)
        if isinstance(content, Add):
            leaf_node = content.key_package.leaf_node
            lifetime = leaf_node.lifetime
            if self._now is not None and lifetime is not None and not lifetime.covers(self._now):
                return False
            return self._first(leaf_node.signature_key)
        if isinstance(content, PreSharedKey):
            return self._first(content.psk)
        if isinstance(content, GroupContextExtensions | ReInit):
            return self._first(type(content))
        return True

    def _first(self, name: object) -> bool:
        new = name not in self._seen
        self._seen.add(name)
        return new
