"""What intents become in the present epoch: entries, Commits, Welcomes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from coterie.client.content import (
    BINDING_EXTENSION,
    PROFILE_EXTENSION,
    GroupProfile,
)
from coterie.client.identity import inbox_of, read_key_package, seal_envelope
from coterie.client.intents import COMMITS, ClaimedPackage, Intent, IntentKind, WelcomeParts
from coterie.client.line import (
    Committed,
    Line,
)
from coterie.client.place import DROPPED, Place
from coterie.client.rules import changed
from coterie.client.vault import Step
from coterie.errors import RuleViolation, ServiceError, StateError
from coterie.mls.extension import Extension
from coterie.mls.group import CommitOptions
from coterie.mls.proposal import Add, GroupContextExtensions, Proposal, Remove
from coterie.mls.tree_math import LeafIndex
from coterie.transport import api
from coterie.transport.refusal import Refused


class Making(Place):
    """Seals what is wanted, and sends the Welcomes of what was accepted."""

    async def _prepare(self, intent_id: int, intent: Intent) -> Intent:
        """Seals an intent for the present epoch and stores it so, before the first byte leaves."""
        if intent.kind == IntentKind.ADD:
            await self._tools.refresh()
            # Added by this device already, and never invited: what it knew of that went with an earlier membership.
            await self._add_again(intent.claimed)
            if not intent.claimed:
                intent = await self._claim(intent_id, intent)
        line = self.line
        with self._tools.vault.step() as step:
            make = self._make_bundle if intent.kind in COMMITS else self._make_message
            sealed = make(line, intent)
            if sealed is None:
                step.remove_intent(intent_id)
                return intent.replace(sealed=None)
            intent = intent.replace(sealed=sealed)
            step.update_intent(intent_id, intent)
            step.save_line(self.id, line)
        return intent

    async def _claim(self, intent_id: int, intent: Intent) -> Intent:
        """Claims a key package of every device of the users to add; stored, so that none is claimed twice."""
        users = intent.argument.decode().split()
        claimed = [package for user in users for package in await self._claim_of(user)]
        intent = intent.replace(claimed=tuple(claimed))
        with self._tools.vault.step() as step:
            step.update_intent(intent_id, intent)
        return intent

    async def _claim_of(self, user: str) -> list[ClaimedPackage]:
        suites = (self.group.context.cipher_suite,)
        result = await self._tools.inboxes.claim(
            api.Claim(api.DeliveryVersion.COTERIE1, user.encode(), suites)
        )
        return [ClaimedPackage(c.key_package, c.ticket) for c in result.packages]

    async def _add_again(self, lost: Sequence[ClaimedPackage]) -> None:
        """Wants who stands in the tree with a package of which the Welcome is lost to be added once more (D-INB-11)."""
        client_id = self._tools.config.authenticator.client_id
        for claimed in lost:
            node = read_key_package(claimed.key_package).leaf_node
            leaf = next((n for n, found in self.group.tree.members() if found == node), None)
            if leaf is None:
                continue  # Not added, gone, or it has committed since, so that it was invited.
            replaced = api.Replaced(leaf, api.sha256(node.encode())).encode()
            for again in await self._claim_of(
                self._tools.identity.user_of_credential(node.credential)
            ):
                credential = read_key_package(again.key_package).leaf_node.credential
                if client_id(credential) == client_id(node.credential):
                    self.want(Intent(IntentKind.READD, replaced, (again,)))
                    break

    def _make_message(self, line: Line, intent: Intent) -> api.Append | None:
        if intent.kind == IntentKind.LEAVE:
            message = line.group.propose_remove(line.group.own_leaf)
            return line.message(api.ContentKind.PROPOSAL, message)
        message = line.group.encrypt(intent.argument)
        return line.message(api.ContentKind.APPLICATION, message)

    def _make_bundle(self, line: Line, intent: Intent) -> api.Append | None:
        proposals = self._proposals(intent)
        if proposals is None:
            return None
        if line.group.pending_commit is not None:
            line.group.drop_pending()
        options = CommitOptions(members_per_welcome=1, external_pub=False)
        pending = line.group.commit(
            proposals,
            now=self._tools.clock(),
            options=options,
            credential=self._tools.identity.credential,
        )
        return line.bundle(pending)

    def _proposals(self, intent: Intent) -> list[Proposal] | None:
        """What an intent means in the present epoch; None where it is done already."""
        match intent.kind:
            case IntentKind.ADD:
                return self._adds(intent)
            case IntentKind.REMOVE:
                users = set(intent.argument.decode().split())
                leaves = [leaf for user in users for leaf in self.users().get(user, [])]
                if self.group.own_leaf in leaves:
                    msg = "to go yourself, leave the group"
                    raise StateError(msg)
                return [Proposal.of(Remove(LeafIndex(leaf))) for leaf in leaves] or None
            case IntentKind.RENAME | IntentKind.CHANGE_RULES:
                profile = self.profile.replace(name=intent.argument)
                if intent.kind == IntentKind.CHANGE_RULES:
                    profile = changed(self.profile, intent.argument, self.epoch)
                return None if profile == self.profile else [self._extensions(profile)]
            case IntentKind.READD:
                return self._readd(intent)
            case IntentKind.COMMIT_PENDING:
                return [] if self._needs_commit() else None
            case _:
                return []

    def _adds(self, intent: Intent) -> list[Proposal] | None:
        wanted = set(intent.argument.decode().split())
        present = {
            self._tools.config.authenticator.client_id(node.credential)
            for _, node in self.group.tree.members()
        }
        proposals = []
        for claimed in intent.claimed:
            package = read_key_package(claimed.key_package)
            verified = package.validate(
                self.group.suite, self._tools.config.authenticator, now=self._tools.clock()
            )
            credential = package.leaf_node.credential
            if self._tools.identity.user_of_credential(credential) not in wanted:
                msg = "the directory gave a key package of somebody else than was asked for"
                raise RuleViolation(msg, rule="D-DIR-3")
            inbox_of(package)
            if self._tools.config.authenticator.client_id(credential) not in present:
                proposals.append(Proposal.of(Add(verified.key_package)))
        return proposals or None

    def _readd(self, intent: Intent) -> list[Proposal] | None:
        """Remove and Add of one client in one Commit; nothing where the leaf is another by now."""
        replaced = api.Replaced.decode(intent.argument)
        leaf = self.group.tree.leaf(replaced.leaf_index)
        if leaf is None or api.sha256(leaf.encode()) != replaced.leaf_node_hash:
            return None
        package = read_key_package(intent.claimed[0].key_package)
        return [
            Proposal.of(Remove(LeafIndex(replaced.leaf_index))),
            Proposal.of(Add(package)),
        ]

    def _needs_commit(self) -> bool:
        """Whether nothing but a Commit can go now.

        Data may not go before the proposals that wait (RFC 9420 §12.4), nor into an epoch that has ended with nothing
        but refused candidates (D-BUN-11). And where retention was faster than this device, own messages may have been
        dropped that a copy does not remember: then new ratchets come first, so that no key serves twice (D-BOX-8).
        """
        state = self.line.state
        return bool(self.group.pending_proposals) or self.line.ended or bool(state.missed)

    def _extensions(self, profile: GroupProfile) -> Proposal:
        kept = [e for e in self.group.context.extensions if e.extension_type == BINDING_EXTENSION]
        profile_extension = Extension(PROFILE_EXTENSION, profile.encode())
        return Proposal.of(GroupContextExtensions((*kept, profile_extension)))

    def _plan_welcomes(self, step: Step, line: Line, intent: Intent, outcome: Committed) -> None:
        """The own Commit was accepted: its Welcomes become intents of their own (D-INB-6)."""
        if intent.sealed is None:
            return
        by_reference = {
            read_key_package(claimed.key_package).reference(): claimed for claimed in intent.claimed
        }
        for welcome in outcome.welcomes:
            claimed = by_reference[welcome.body.secrets[0].new_member]  # type: ignore[union-attr]
            parts = WelcomeParts(
                claimed,
                welcome.encode(),
                line.state.parent,
                bytes(line.keys.read_token),
                intent.sealed,
                intent.opened,
            )
            step.add_intent(self.id, Intent(IntentKind.WELCOME, parts.encode()))

    async def _opening(self, parts: WelcomeParts) -> api.Receipt:
        """The opening receipt of the epoch that an own Commit began.

        Where the answer to the bundle did not arrive, repeating it gives the same one (D-ENT-3).
        """
        if parts.opened is not None:
            return parts.opened
        appended = await self._tools.delivery.append(parts.bundle)
        if appended.opened is None:
            msg = "the service did not say which epoch the Commit opened"
            raise ServiceError(msg, retry_after=5)
        return appended.opened

    async def _post_welcome(self, intent_id: int, intent: Intent) -> None:
        parts = WelcomeParts.decode(intent.argument)
        try:
            opening = await self._opening(parts)
        except Refused as refused:
            if refused.code not in DROPPED:
                raise
            await self._add_again([parts.claimed])
            with self._tools.vault.step() as step:
                step.remove_intent(intent_id)
            return
        content = api.WelcomeContent(
            self.line.binding.service,
            self.line.binding.log_id,
            parts.parent,
            parts.read_token,
            opening,
            None,
            parts.welcome,
        )
        envelope = seal_envelope(
            read_key_package(parts.claimed.key_package),
            parts.claimed.ticket,
            api.EnvelopeContent(api.EnvelopeKind.WELCOME, content),
        )
        await asyncio.sleep(random.uniform(0, self._tools.welcome_delay))  # noqa: S311
        try:
            await self._tools.inboxes.post_envelope(envelope)
        except Refused as refused:
            if refused.code != api.ErrorCode.TICKET_USED:
                raise
        with self._tools.vault.step() as step:
            step.remove_intent(intent_id)
