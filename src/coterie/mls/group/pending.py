"""What waits for a Commit: proposals, and the private keys of own Updates among them (RFC 9420 §12.1, §12.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coterie.mls.framing import VerifiedContent
from coterie.mls.group.commit import OwnUpdate
from coterie.mls.group.results import SecretHeld
from coterie.mls.group.state import StoredProposal, stored_update
from coterie.mls.proposal import Proposal
from coterie.mls.validation import WaitingProposals


class ProposalCache(WaitingProposals):
    """The valid proposals of the present epoch as a member keeps and stores them."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.own_updates: dict[bytes, OwnUpdate] = {}
        self._puts: dict[bytes, bytes] = {}
        self._cleared = False

    def keep(self, reference: bytes, content: VerifiedContent) -> None:
        """Keeps a proposal that was found valid by itself; raises `RuleViolation` where there are too many."""
        number = len(self)
        self.add(reference, content.sender, content.body(Proposal))
        if len(self) == number:
            # It arrived again: its place in the order is kept.
            return
        self._puts[b"p/" + reference] = StoredProposal(
            number, content.authenticated_content()
        ).encode()

    def keep_update(self, update: OwnUpdate) -> None:
        """Keeps the private keys of an own Update until the epoch ends."""
        self.own_updates[update.encryption_key.public] = update
        self._puts[b"u/" + update.encryption_key.public] = stored_update(update)

    def clear(self) -> None:
        """Forgets everything: the epoch is over."""
        super().clear()
        self.own_updates.clear()
        self._puts.clear()
        self._cleared = True

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

    def restore(
        self, contents: Iterable[tuple[bytes, VerifiedContent]], updates: Iterable[OwnUpdate]
    ) -> None:
        """Takes over what was stored, also where less may wait by now."""
        for reference, content in contents:
            self._note(reference, content.sender, content.body(Proposal))
        for update in updates:
            self.own_updates[update.encryption_key.public] = update
