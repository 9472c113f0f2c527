"""Proposals that wait for a Commit (RFC 9420 §12.1, §12.4), and the private keys of own Updates among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coterie.errors import RuleViolation
from coterie.mls.framing import VerifiedContent
from coterie.mls.group.commit import OwnUpdate
from coterie.mls.group.results import SecretHeld
from coterie.mls.group.state import StoredProposal, stored_update
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
from coterie.mls.validation import CommittedProposal


class ProposalCache:
    """The valid proposals of the present epoch, by reference."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[bytes, CommittedProposal] = {}
        self.own_updates: dict[bytes, OwnUpdate] = {}
        self._puts: dict[bytes, bytes] = {}
        self._cleared = False

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> tuple[CommittedProposal, ...]:
        """What waits, in the order of arrival."""
        return tuple(self._entries.values())

    def add(self, reference: bytes, content: VerifiedContent, proposal: Proposal) -> None:
        """Keeps a proposal that was found valid by itself; raises `RuleViolation` where there are too many."""
        if len(self._entries) >= self._limit and reference not in self._entries:
            msg = f"{self._limit} proposals wait already: commit them first"
            raise RuleViolation(msg, rule=Rule.PROPOSAL_COUNT)
        self._entries[reference] = CommittedProposal(
            proposal, content.sender, reference, checked=True
        )
        self._puts[b"p/" + reference] = StoredProposal(content.authenticated_content()).encode()

    def keep_update(self, update: OwnUpdate) -> None:
        """Keeps the private keys of an own Update until the epoch ends."""
        self.own_updates[update.encryption_key.public] = update
        self._puts[b"u/" + update.encryption_key.public] = stored_update(update)

    def clear(self) -> None:
        """Forgets everything: the epoch is over."""
        self._entries.clear()
        self.own_updates.clear()
        self._puts.clear()
        self._cleared = True

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

    def select(self, own: LeafIndex, first: Sequence[CommittedProposal]) -> list[CommittedProposal]:
        """What a Commit covers: `first`, and of what waits all that may stand beside it (§12.2).

        Removes go before Updates, later Updates before earlier ones, everything before a ReInit.
        """
        chosen = _Chosen(own)
        for entry in first:
            chosen.take(entry)
        waiting = list(self._entries.values())
        order: dict[type, int] = {Remove: 0, Update: 1}
        latest_first = sorted(
            reversed(waiting), key=lambda entry: order.get(type(entry.proposal.content), 2)
        )
        picked = {id(entry) for entry in latest_first if chosen.fits(entry)}
        entries = [*first, *(entry for entry in waiting if id(entry) in picked)]
        if len(entries) > 1:
            entries = [
                entry
                for entry in entries
                if not isinstance(entry.proposal.content, ReInit) or entry.reference is None
            ]
        return entries

    def held(self, epoch: int) -> Iterator[SecretHeld]:
        """The private keys of own Updates."""
        for _ in self.own_updates:
            yield SecretHeld("keys of an own Update", epoch, "somebody may commit it")

    def take_changes(self) -> tuple[dict[bytes, bytes], tuple[bytes, ...]]:
        """Puts and dropped prefixes since the last call."""
        puts, self._puts = self._puts, {}
        prefixes = (b"p/", b"u/") if self._cleared else ()
        self._cleared = False
        return puts, prefixes

    def forget_changes(self) -> None:
        """What is here is stored already."""
        self._puts.clear()
        self._cleared = False


class _Chosen:
    """What is in a Commit so far, as far as it keeps other proposals out."""

    def __init__(self, own: LeafIndex) -> None:
        self._own = own
        self._leaves: set[LeafIndex] = set()
        self._keys: set[bytes] = set()
        self._psks: set[object] = set()
        self._extensions = False
        self._reinit = False

    def take(self, entry: CommittedProposal) -> None:
        """Notes a proposal that is in, come what may."""
        self.fits(entry)

    def fits(self, entry: CommittedProposal) -> bool:
        """Whether a proposal can be in too; if so it is noted."""
        content = entry.proposal.content
        if isinstance(content, Remove | Update):
            leaf = content.removed if isinstance(content, Remove) else entry.sender.leaf_index
            if leaf is None or leaf == self._own or leaf in self._leaves:
                return False
            self._leaves.add(leaf)
        elif isinstance(content, Add):
            key = content.key_package.leaf_node.signature_key
            if key in self._keys:
                return False
            self._keys.add(key)
        elif isinstance(content, PreSharedKey):
            if content.psk in self._psks:
                return False
            self._psks.add(content.psk)
        elif isinstance(content, GroupContextExtensions):
            if self._extensions:
                return False
            self._extensions = True
        elif isinstance(content, ReInit):
            if self._reinit:
                return False
            self._reinit = True
        return True
