"""What members do for a group without being asked: replacing who never came, removing who is idle or revoked.

All follows from what each client has noted of the log by its own clock, and from the group's rules. So several may find
the same at once; `scheduling` says whose turn it is, and a Commit that comes too late finds nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coterie.client import events
from coterie.client.identity import read_key_package
from coterie.client.intents import ClaimedPackage, Intent, IntentKind, Leaves, Reason
from coterie.client.reading import HOUR, Reading
from coterie.client.rules import LEAST_EVICT_AFTER, LEAST_REPLACE_AFTER
from coterie.errors import CoterieError, RuleViolation, ServiceError, StorageError
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import LeafNodeSource
from coterie.transport import api

LOOK_AGAIN = 6 * HOUR
"""Seconds between two looks at the ages of all keys, where nothing was found."""
TRY_AGAIN = 24 * HOUR
"""Seconds after which it is tried again to replace somebody of whom the directory has no key package."""


class Tending(Reading):
    """Looks after the group's members."""

    _looked_at = 0
    """When all keys were young enough."""
    _judged: frozenset[int] = frozenset()
    """The revoked serial numbers for which all members were looked at."""
    _revoked: tuple[tuple[int, int], ...] = ()
    """Leaves whose certificates are revoked, and when that was noticed."""

    async def _tend(self) -> None:
        """Wants what is this member's turn to do for the group."""
        if not self.is_active or self._needs_commit():
            return
        wanted = self._wanted_leaves()
        self._look_for_revoked()
        since = max((at for _, at in self._revoked), default=0)
        self._remove([n for n, _ in self._revoked if n not in wanted], since, Reason.REVOKED)
        going = self._going()
        since = max((at for _, at in going), default=0)
        self._remove([n for n, _ in going if n not in wanted], since, Reason.DECLINED)
        idle = list(self._idle())
        since = max((at for _, at in idle), default=0)
        self._remove([n for n, _ in idle if n not in wanted], since, Reason.IDLE)
        wanted |= {leaf for leaf, _ in going}
        silent = [(n, at) for n, at in self._silent() if n not in wanted]
        away = [n for n, _ in silent]
        for leaf, since in silent:
            if self._my_turn(since, away=away):
                await self._replace(leaf)

    def revoked_users(self) -> list[str]:
        """The users with a device in the group whose certificate was revoked."""
        self._look_for_revoked()
        return sorted({self._user(leaf) for leaf, _ in self._revoked})

    def _wanted_leaves(self) -> set[int]:
        """The leaves that an intent is about already."""
        found: set[int] = set()
        for _, intent in self._tools.vault.intents(self.id):
            if intent.kind == IntentKind.TEND:
                found |= {one.leaf_index for one in Leaves.decode(intent.argument).leaves}
            elif intent.kind == IntentKind.READD:
                found.add(api.Replaced.decode(intent.argument).leaf_index)
        return found

    def _remove(self, leaves: list[int], since: int, reason: Reason) -> None:
        """Wants leaves removed, if this member may and it is its turn."""
        own, may = self.group.own_leaf, self.profile.may_remove
        leaves = [leaf for leaf in leaves if leaf != own]
        if not leaves or not self._my_turn(since, may, away=leaves):
            return
        named = Leaves(tuple(self._named(leaf) for leaf in leaves))
        self.want(Intent(IntentKind.TEND, named.encode(), reason=reason))

    def _named(self, leaf: int) -> api.Replaced:
        return api.Replaced(leaf, api.sha256(self.group.member(leaf).node.encode()))

    # -- who never came (D-INB-8)

    def _silent(self) -> Iterator[tuple[int, int]]:
        """Leaves as their key packages were, whose time to appear is over, and since when."""
        wait, vault = self.profile.replace_after, self._tools.vault
        if not wait:
            return
        now, tree, records = self._tools.clock(), self.group.tree, vault.added(self.id)
        wait = max(wait, LEAST_REPLACE_AFTER)
        if not records or now < records[0].at + wait:
            return
        newest = {leaf: record.epoch for record in records for leaf in record.leaves}
        for record in records:
            due = record.at + wait
            if now < due:
                break
            left = [
                leaf
                for leaf in record.leaves
                if newest[leaf] == record.epoch
                and (node := tree.leaf(leaf)) is not None
                and node.leaf_node_source == LeafNodeSource.KEY_PACKAGE
                and vault.heard_at(self.id, leaf) < record.at
            ]
            if not left:
                with vault.step() as step:
                    step.forget_added(self.id, record.epoch)
            elif now >= record.tried_at + TRY_AGAIN:
                yield from ((leaf, due) for leaf in left)

    async def _replace(self, leaf: int) -> None:
        """Wants a leaf removed and its client added with a key package claimed anew."""
        tools, named = self._tools, self._named(leaf)
        client_id = tools.config.authenticator.client_id
        client = client_id(self.group.member(leaf).node.credential)
        try:
            await tools.refresh()
            claimed = await self._claim_of(self._user(leaf))
        except (ServiceError, RuleViolation):
            # What nobody asked for holds up nothing that somebody did.
            claimed = []
        for package in claimed:
            if self._good_of(package) == client:
                self.want(
                    Intent(IntentKind.READD, named.encode(), (package,), reason=Reason.SILENT)
                )
                return
        with tools.vault.step() as step:
            for record in tools.vault.added(self.id):
                if leaf in record.leaves:
                    step.save_added(self.id, record.replace(tried_at=tools.clock()))

    def _good_of(self, claimed: ClaimedPackage) -> bytes | None:
        """Whose key package was claimed; None where it is none with which somebody can be added now."""
        config, package = self._tools.config, read_key_package(claimed.key_package)
        try:
            package.validate(self.group.suite, config.authenticator, now=self._tools.clock())
        except StorageError:
            raise
        except CoterieError:
            # Such as one of a device that was revoked: a Commit with it would be given up, with each look anew.
            return None
        return config.authenticator.client_id(package.leaf_node.credential)

    # -- who does not come (D-BOX-13)

    def _going(self) -> list[tuple[int, int]]:
        """Leaves as they were added whose devices say that they do not come, and since when."""
        found = []
        for node_hash, going in self._tools.vault.going(self.id).items():
            node = self.group.tree.leaf(LeafIndex(going.leaf))
            if node is not None and api.sha256(node.encode()) == node_hash:
                found.append((int(going.leaf), int(going.at)))
                continue
            with self._tools.vault.step() as step:
                step.note_going(self.id, node_hash, None)
        return found

    # -- who is idle

    def _idle(self) -> Iterable[tuple[int, int]]:
        """Leaves whose keys are older than the group allows, and since when they are."""
        if not self.profile.evict_after:
            return []
        now, vault = self._tools.clock(), self._tools.vault
        if now - self._looked_at < LOOK_AGAIN:
            return []
        wait = max(self.profile.evict_after, LEAST_EVICT_AFTER)
        joined, newest = vault.conversation(self.id).joined_at, vault.renewals(self.id)
        due = [
            (int(leaf), newest.get(int(leaf), joined) + wait)
            for leaf, _ in self.group.tree.members()
            if leaf != self.group.own_leaf
        ]
        found = [(leaf, at) for leaf, at in due if now >= at]
        if not found:
            self._looked_at = now
        return found

    # -- who is revoked

    def _look_for_revoked(self) -> None:
        """Finds members whose certificates were revoked, and tells of each once."""
        identity, vault = self._tools.identity, self._tools.vault
        serials = identity.revoked_serials()
        tree, known = self.group.tree, dict(self._revoked)
        # Nobody adds a device that is revoked already: without new numbers only those that were found can change.
        members = [(leaf, tree.leaf(leaf)) for leaf in known]
        if serials != self._judged:
            members = [(int(leaf), node) for leaf, node in tree.members()]
        now, self._judged = self._tools.clock(), serials
        self._revoked = tuple(
            (leaf, known.get(leaf, now))
            for leaf, node in members
            if node is not None and identity.is_revoked(node.credential)
        )
        new = [
            leaf
            for leaf, _ in self._revoked
            if not vault.was_told_revoked(self.id, self._named(leaf).leaf_node_hash)
        ]
        if new:
            with vault.step() as step:
                for leaf in new:
                    step.told_revoked(self.id, self._named(leaf).leaf_node_hash)
            users = tuple(sorted({self._user(leaf) for leaf in new}))
            self._tools.emit(events.MembersRevoked(self.id, users))
