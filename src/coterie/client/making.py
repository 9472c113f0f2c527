"""What intents become in the present epoch: entries, Commits, Welcomes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence

from coterie.client import events
from coterie.client.chunks import WIDTH
from coterie.client.content import (
    BINDING_EXTENSION,
    PROFILE_EXTENSION,
    GroupProfile,
)
from coterie.client.identity import inbox_of, read_key_package, seal_envelope
from coterie.client.intents import (
    COMMITS,
    ClaimedPackage,
    CommitNote,
    Intent,
    IntentKind,
    Leaves,
    WelcomeParts,
    WelcomeSlice,
)
from coterie.client.line import Line
from coterie.client.notes import StoredClaim
from coterie.client.outcomes import Committed
from coterie.client.place import DROPPED
from coterie.client.rules import changed
from coterie.client.supplying import Supplying
from coterie.client.vault import Step
from coterie.errors import (
    CoterieError,
    DecodeError,
    RuleViolation,
    ServiceError,
    StateError,
    UnsupportedError,
    VerificationError,
)
from coterie.mls.extension import Capabilities, Extension
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions
from coterie.mls.key_package import VerifiedKeyPackage, validate_all
from coterie.mls.proposal import Add, GroupContextExtensions, Proposal, Remove
from coterie.mls.tree_math import LeafIndex
from coterie.mls.welcome import Welcome
from coterie.transport import api
from coterie.transport.refusal import Refused

NOT_SEALED = (DecodeError, VerificationError, UnsupportedError, StateError)
"""What is raised where nothing can be sealed for who published a key package."""
NOBODY = {
    api.ErrorCode.UNKNOWN_NAME: "there is no such user, or no device of theirs has logged in;"
    " check the name, or try later",
    api.ErrorCode.NONE_LEFT: "no device of theirs has a key package that fits this group",
}
"""Why the directory gives no key package of a user."""
MOST_ADDED = 8 << 20
"""Bytes of key packages in one Commit; a service takes bundles of 32 MiB by default."""
CLAIMS_KEPT = 3600
"""Seconds for which key packages are kept that were claimed for an Add that was not made: a slip is soon corrected."""


def _nobody(absent: Mapping[str, api.ErrorCode], *, others: bool) -> Refused:
    """The directory has nothing of some users; all of them are named, by what is the matter."""
    said = []
    for code, why in NOBODY.items():
        users = ", ".join(user for user, found in absent.items() if found == code)
        said += [f"{users} cannot be added: {why}"] if users else []
    said += ["the others were not added either"] if others else []
    return Refused(next(iter(absent.values())), "; ".join(said))


def _is_final(error: CoterieError) -> bool:
    """Whether trying again is of no use, so that an intent is given up."""
    return not isinstance(error, ServiceError) or (
        error.retry_after is None and isinstance(error, Refused)
    )


class Making(Supplying):
    """Seals what is wanted, and sends the Welcomes of what was accepted."""

    async def _prepare(self, intent_id: int, intent: Intent) -> Intent:
        """Seals an intent for the present epoch and stores it so, before the first byte leaves."""
        if intent.kind == IntentKind.ADD:
            await self._tools.refresh()
            if not intent.asked:
                # Added by this device already, and never invited: what it knew of that went with an earlier membership.
                await self._add_again(intent.claimed)
            if not intent.claimed:
                intent = await self._claim(intent_id, intent)
            intent = self._share_out(intent_id, intent)
        if intent.kind == IntentKind.READD:
            # Who could not have the state before shall have it now (D-CHK-6).
            await self._see_state_stored()
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
        """Claims a key package of every device of the users to add; stored, so that none is claimed twice.

        Where no more can be claimed for now, the others are left to a further intent: begun anew each time, more users
        than the service's rate allows at once would never be added, and would lose one key package after the other.
        Where somebody cannot be added at all, nobody is, and what was claimed of the others is kept for a next attempt.
        """
        users = list(dict.fromkeys(intent.argument.decode().split()))
        claimed, absent = dict[str, tuple[ClaimedPackage, ...]](), dict[str, api.ErrorCode]()
        stopped: CoterieError | None = None
        for user in users:
            try:
                claimed[user] = self._kept_claim(user) or tuple(await self._claim_of(user))
            except (ServiceError, RuleViolation) as error:
                if not isinstance(error, Refused) or error.code not in NOBODY:
                    stopped = error
                    break
                absent[user] = error.code
        if absent:
            stopped = _nobody(absent, others=len(absent) < len(users))
        if stopped is not None and (not claimed or _is_final(stopped)):
            self._keep_claims(claimed)
            raise stopped
        packages = tuple(package for of_user in claimed.values() for package in of_user)
        first = intent.replace(argument=" ".join(claimed).encode(), claimed=packages)
        with self._tools.vault.step() as step:
            step.update_intent(intent_id, first)
            if left := users[len(claimed) :]:
                step.add_intent(self.id, intent.replace(argument=" ".join(left).encode()))
        return first

    def _kept_claim(self, user: str) -> tuple[ClaimedPackage, ...]:
        """What was claimed of a user not long ago, for an Add that was not made; it is given out once."""
        suite, since = int(self.group.context.cipher_suite), self._tools.clock() - CLAIMS_KEPT
        kept = self._tools.vault.claim(suite, user)
        if kept is None:
            return ()
        with self._tools.vault.step() as step:
            step.forget_claim(suite, user, since)
        return kept.claimed if kept.at >= since else ()

    def _keep_claims(self, claimed: Mapping[str, tuple[ClaimedPackage, ...]]) -> None:
        suite, now = int(self.group.context.cipher_suite), self._tools.clock()
        with self._tools.vault.step() as step:
            for user, packages in claimed.items():
                step.keep_claim(suite, user, StoredClaim(packages, now))

    async def _claim_of(self, user: str) -> list[ClaimedPackage]:
        suites = (self.group.context.cipher_suite,)
        claim = api.Claim(api.DeliveryVersion.COTERIE1, user.encode(), suites)
        try:
            result = await self._tools.inboxes.claim(claim)
        except Refused as refused:
            why = NOBODY.get(refused.code)
            if why is None:
                raise
            # The service's words name nobody, and several may be added at once. It says when to ask again, too; but
            # until a device of that user is there, all that is wanted in the group would wait.
            what = f"{user} cannot be added: {why}"
            raise Refused(refused.code, what, rule=refused.rule) from refused
        try:
            for claimed in result.packages:
                inbox_of(read_key_package(claimed.key_package))
        except NOT_SEALED as error:
            # Before it is stored, for what is wanted would hold up the group as long as it cannot be done.
            msg = f"the directory gave a key package of {user} that is none: {error}"
            raise RuleViolation(msg, rule="D-DIR-3") from error
        return [ClaimedPackage(c.key_package, c.ticket) for c in result.packages]

    async def _add_again(self, lost: Sequence[ClaimedPackage]) -> None:
        """Wants who stands in the tree with a package of which the Welcome is lost to be added once more (D-INB-11)."""
        client_id = self._tools.config.authenticator.client_id
        leaves = {node: leaf for leaf, node in self.group.tree.members()} if lost else {}
        for claimed in lost:
            node = read_key_package(claimed.key_package).leaf_node
            leaf = leaves.get(node)
            if leaf is None:
                continue  # Not added, gone, or it has committed since, so that it was invited.
            replaced = api.Replaced(leaf, api.sha256(node.encode())).encode()
            user = self._tools.identity.user_of_credential(node.credential)
            try:
                claimed_anew = await self._claim_of(user)
            except (RuleViolation, Refused) as error:
                # The others who lost a Welcome are added again all the same.
                what = f"{user} cannot be invited again: {error}"
                self._tools.emit(events.Problem(self.id, what, "remove and add the user"))
                continue
            for again in claimed_anew:
                credential = read_key_package(again.key_package).leaf_node.credential
                if client_id(credential) == client_id(node.credential):
                    self.want(Intent(IntentKind.READD, replaced, (again,)))
                    break

    def _share_out(self, intent_id: int, intent: Intent) -> Intent:
        """Leaves to a further intent what is too much for one Commit; each must fit the service's limit (D-TRA-4)."""
        size, count = 0, 0
        for claimed in intent.claimed:
            size += len(claimed.key_package)
            if size > MOST_ADDED and count:
                break
            count += 1
        if count == len(intent.claimed):
            return intent
        first = intent.replace(claimed=intent.claimed[:count])
        with self._tools.vault.step() as step:
            step.update_intent(intent_id, first)
            step.add_intent(self.id, intent.replace(claimed=intent.claimed[count:]))
        return first

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
        # One Welcome, which is cut up for its envelopes; a large tree travels in chunks (D-CHK-1).
        note = b"" if intent.reason is None else CommitNote(intent.reason).encode()
        options = CommitOptions(
            largest_tree_inside=WIDTH, external_pub=False, authenticated_data=note
        )
        pending = line.group.commit(
            proposals,
            now=self._tools.clock(),
            options=options,
            credential=self._tools.identity.credential,
            capabilities=self._grown(),
        )
        return line.bundle(pending)

    def _grown(self) -> Capabilities | None:
        """What this client supports, where its leaf does not list it all."""
        identity = self._tools.identity
        listed = self.group.member(self.group.own_leaf).node.capabilities.cipher_suites
        return None if set(identity.suites) <= set(listed) else identity.capabilities()

    def _proposals(self, intent: Intent) -> Sequence[Proposal | VerifiedKeyPackage] | None:
        """What an intent means in the present epoch; None where it is done already."""
        proposals: Sequence[Proposal | VerifiedKeyPackage] | None = []
        match intent.kind:
            case IntentKind.ADD:
                proposals = self._adds(intent)
            case IntentKind.REMOVE:
                users = set(intent.argument.decode().split())
                leaves = [leaf for user in users for leaf in self.users().get(user, [])]
                if self.group.own_leaf in leaves:
                    msg = "to go yourself, leave the group"
                    raise StateError(msg)
                proposals = [Proposal.of(Remove(LeafIndex(leaf))) for leaf in leaves] or None
            case IntentKind.RENAME | IntentKind.CHANGE_RULES:
                profile = self.profile.replace(name=intent.argument)
                if intent.kind == IntentKind.CHANGE_RULES:
                    profile = changed(self.profile, intent.argument, self.epoch)
                proposals = None if profile == self.profile else [self._extensions(profile)]
            case IntentKind.TEND:
                proposals = self._removes(Leaves.decode(intent.argument).leaves)
            case IntentKind.READD:
                proposals = self._readd(intent)
            case IntentKind.COMMIT_PENDING if not self._needs_commit():
                proposals = None
        return proposals

    def _adds(self, intent: Intent) -> list[VerifiedKeyPackage] | None:
        """What was claimed, without the clients that are in the group; validated once, on all cores."""
        config = self._tools.config
        wanted = set(intent.argument.decode().split())
        found = []
        for verified in validate_all(
            [read_key_package(claimed.key_package) for claimed in intent.claimed],
            self.group.suite,
            config.authenticator,
            now=self._tools.clock(),
            max_lifetime=config.limits.max_lifetime,
            run=config.run,
        ):
            package = verified.key_package
            credential = package.leaf_node.credential
            if self._tools.identity.user_of_credential(credential) not in wanted:
                msg = "the directory gave a key package of somebody else than was asked for"
                raise RuleViolation(msg, rule="D-DIR-3")
            if not self.group.has_client(credential):
                found.append(verified)
        return found or None

    def _removes(self, leaves: Sequence[api.Replaced]) -> list[Proposal] | None:
        """Removes of leaves that are still what they were."""
        found = []
        for replaced in leaves:
            node = self.group.tree.leaf(replaced.leaf_index)
            if node is not None and api.sha256(node.encode()) == replaced.leaf_node_hash:
                found.append(Proposal.of(Remove(LeafIndex(replaced.leaf_index))))
        return found or None

    def _readd(self, intent: Intent) -> list[Proposal] | None:
        """Remove and Add of one client in one Commit; nothing where the leaf is another by now, or does not come."""
        replaced = api.Replaced.decode(intent.argument)
        leaf = self.group.tree.leaf(replaced.leaf_index)
        if leaf is None or api.sha256(leaf.encode()) != replaced.leaf_node_hash:
            return None
        if replaced.leaf_node_hash in self._tools.vault.going(self.id):
            return None  # What was asked before the user declined is over, too (D-BOX-13).
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
        """The own Commit was accepted: what each new member gets is noted (D-INB-6).

        The GroupInfo, which is the same for all, is kept once; of what differs one slice for each.
        """
        by_reference = {
            read_key_package(claimed.key_package).reference(): claimed for claimed in intent.claimed
        }
        for message in outcome.welcomes:
            welcome = message.body
            if not isinstance(welcome, Welcome):
                continue
            parts = WelcomeParts(
                len(welcome.secrets),
                welcome.cipher_suite,
                welcome.encrypted_group_info,
                line.state.parent,
                bytes(line.keys.read_token),
                line.shared.root,
                intent.sealed if intent.opened is None else None,
                intent.opened,
            )
            number = step.add_intent(self.id, Intent(IntentKind.WELCOME, parts.encode()))
            for place, each in enumerate(welcome.secrets):
                # Another member may have proposed the Add: then that one has the ticket, and nobody else (D-INB-6).
                claimed = by_reference.get(each.new_member)
                if claimed is not None:
                    step.add_welcome(self.id, number, place, WelcomeSlice(claimed, each))

    async def _opening(self, parts: WelcomeParts) -> api.Receipt:
        """The opening receipt of the epoch that an own Commit began.

        Where the answer to the bundle did not arrive, repeating it gives the same one (D-ENT-3).
        """
        if parts.opened is not None:
            return parts.opened
        if parts.bundle is None:
            msg = "nothing is known of the bundle that a Welcome belongs to"
            raise StateError(msg)
        appended = await self._tools.delivery.append(parts.bundle)
        if appended.opened is None:
            msg = "the service did not say which epoch the Commit opened"
            raise ServiceError(msg, retry_after=5)
        return appended.opened

    async def _post_welcomes(self, intent_id: int, intent: Intent) -> bool:
        """Posts some of the slices that wait, each after a delay of its own; whether there are more.

        The intent goes with the last one.
        """
        parts = WelcomeParts.decode(intent.argument)
        waiting = self._tools.vault.welcomes(self.id, intent_id, parts.count)
        if waiting and parts.opened is None:
            try:
                parts = parts.replace(opened=await self._opening(parts), bundle=None)
            except Refused as refused:
                if refused.code not in DROPPED:
                    raise
                await self._add_again([piece.claimed for _, piece in waiting])
                self._drop_slices(intent_id, [number for number, _ in waiting])
                return True
            with self._tools.vault.step() as step:
                step.update_intent(intent_id, intent.replace(argument=parts.encode()))
        posts = (self._post_welcome(intent_id, n, parts, piece) for n, piece in waiting)
        for result in await asyncio.gather(*posts, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        if self._tools.vault.welcomes(self.id, intent_id, parts.count):
            return True
        with self._tools.vault.step() as step:
            step.remove_welcomes(self.id, intent_id)
            step.remove_intent(intent_id)
        return False

    def _drop_slices(self, intent_id: int, numbers: Iterable[int]) -> None:
        with self._tools.vault.step() as step:
            for number in numbers:
                step.remove_welcome(self.id, intent_id, number)

    async def _post_welcome(
        self, intent_id: int, number: int, parts: WelcomeParts, piece: WelcomeSlice
    ) -> None:
        if parts.opened is None:
            msg = "a Welcome is posted before its epoch is known to be open"
            raise StateError(msg)
        welcome = Welcome(parts.cipher_suite, (piece.secrets,), parts.encrypted_group_info)
        binding = self.line.binding
        content = api.WelcomeContent(
            binding.service,
            binding.log_id,
            parts.parent,
            parts.read_token,
            parts.opened,
            parts.state,
            MLSMessage.of(welcome).encode(),
        )
        claimed = piece.claimed
        await asyncio.sleep(random.uniform(0, self._tools.welcome_delay))  # noqa: S311
        try:
            envelope = seal_envelope(
                read_key_package(claimed.key_package),
                claimed.ticket,
                api.EnvelopeContent(api.EnvelopeKind.WELCOME, content),
            )
            await self._tools.inboxes.post_envelope(envelope)
        except (Refused, *NOT_SEALED) as error:
            if isinstance(error, Refused) and error.retry_after is not None:
                raise
            # The others that came with the same Commit are invited all the same.
            if not (isinstance(error, Refused) and error.code == api.ErrorCode.TICKET_USED):
                what = f"an invitation could not be delivered: {error}"
                self._tools.emit(events.Problem(self.id, what))
        with self._tools.vault.step() as step:
            step.remove_welcome(self.id, intent_id, number)
