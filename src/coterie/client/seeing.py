"""Telling others which texts were shown here, where their group wants that and the user does not mind."""

from __future__ import annotations

from coterie.client.content import MAX_SEEN, Content
from coterie.client.intents import Intent, IntentKind
from coterie.client.reading import Reading
from coterie.storage import MessageState

MAX_MEMBERS = 50
"""In groups with more devices nobody tells: each statement is traffic for all of them."""


class Seeing(Reading):
    """Makes one message of what was read in some seconds; such messages are not texts, so nobody answers them."""

    def hurry_receipts(self) -> None:
        """Has what was read told with the next `sync`, for programs that end before the time comes."""
        if self._tools.vault.tell_at(self.id) is not None:
            with self._tools.vault.step() as step:
                step.set_tell_at(self.id, self._tools.clock())

    def _must_tell(self) -> bool:
        at = self._tools.vault.tell_at(self.id)
        return at is not None and self._tools.clock() >= at

    def _plan_receipts(self) -> None:
        """Wants to tell what was read since the last time."""
        vault = self._tools.vault
        # Where proposals wait a message would force a Commit; being told is not worth one.
        if not self.is_active or not self._must_tell() or self._needs_commit():
            return
        read, told = vault.read_up_to(self.id), vault.told(self.id)
        found = vault.texts_after(self.id, told, MAX_SEEN, read + 1)
        own = self._tools.identity.user
        ids = [m.message_id for m in found if m.state == MessageState.RECEIVED and m.sender != own]
        small = self.group.tree.member_count <= MAX_MEMBERS
        with vault.step() as step:
            step.set_told(self.id, read)
            if ids and small and self.profile.receipts and not vault.quiet():
                content = Content.seen(ids, self._tools.clock())
                step.add_intent(self.id, Intent(IntentKind.SEND, content.encode()))
