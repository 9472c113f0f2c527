"""`Group`: one member's handle on a group (RFC 9420 §11, §12).

An epoch is a value; what changes is here: the message keys of the present epoch and of a few past ones, the proposals
that wait, own Updates whose keys are still secret, the Commit that is pending. `receive` and `encrypt` change only
those; `adopt` is the only switch of epochs.

The rule of storage: after every call, also one that raised, `save()` returns what changed since the last `save()`;
store that in one transaction before anything that the call returned leaves the process. Receiving a Commit and adopting
it are one step in this: a private Commit whose key was given up and stored cannot be opened again after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Self

from coterie.errors import CoterieError, RuleViolation, StateError, UnsupportedError
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import Capabilities, Extension, grease_extensions
from coterie.mls.framing import MLSMessage, VerifiedContent
from coterie.mls.group.commit import (
    CommitPlan,
    CreatedCommit,
    NewLeaf,
    OwnUpdate,
    create_commit,
    fitting_proposals,
    process_commit,
    sign,
)
from coterie.mls.group.config import CommitOptions, Config
from coterie.mls.group.epoch import StagedEpoch
from coterie.mls.group.joining import (
    Entered,
    ExternalJoin,
    check_group_id,
    create_first_epoch,
    enter_by_external_commit,
    enter_by_welcome,
)
from coterie.mls.group.member import Membership
from coterie.mls.group.psks import PskSecrets, finder
from coterie.mls.group.receiving import MAX_AHEAD
from coterie.mls.group.results import (
    ApplicationMessage,
    Delta,
    OwnMessage,
    PendingCommit,
    Received,
    StagedCommit,
)
from coterie.mls.group.saving import Saver, load_parts
from coterie.mls.group.sending import send, send_data
from coterie.mls.group.successor import Succession, check_continuing, check_members
from coterie.mls.group.welcoming import (
    OpenedWelcome,
    group_info,
    open_welcome,
    read_welcome,
    welcomes,
)
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle, VerifiedKeyPackage
from coterie.mls.leaf_node import Lifetime
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
from coterie.mls.public_group import ProposalReceived
from coterie.mls.ratchet_tree import NodeStore, collector_paused
from coterie.mls.rules import Rule
from coterie.mls.secret_tree import SecretTree
from coterie.mls.tree_index import TreeIndex, client_name
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import (
    GREASE_VALUES,
    ContentType,
    LeafNodeSource,
    ProtocolVersion,
    ResumptionPSKUsage,
)
from coterie.mls.validation import (
    CommittedProposal,
    check_proposal,
    read_group_info,
)
from coterie.mls.welcome import GroupInfo, Welcome

_DEFAULTS = CommitOptions()
_MANY = 1000
"""A Commit of so many proposals makes more than the collector should look at meanwhile."""
_JOIN = ExternalJoin()


class Group(Membership):
    """One member's state in one group, and all that can be done with it; not for several threads at once."""

    # -- beginning

    @classmethod
    def create(  # noqa: PLR0913 - what a new group says of itself, by name
        cls,
        group_id: bytes,
        suite: Suite,
        signature_key: SignaturePrivateKey,
        credential: Credential,
        capabilities: Capabilities,
        config: Config,
        *,
        lifetime: Lifetime,
        extensions: Iterable[Extension] = (),
        groups: frozenset[bytes] = frozenset(),
    ) -> Self:
        """A new group with this client as its only member, in epoch 0 (§11).

        `lifetime` is that of the creator's first leaf, `extensions` are those of the GroupContext, `groups` the ids of
        the groups that this client is in. Raises `RuleViolation` where the capabilities do not cover the extensions
        or the suite, `StateError` where the client has a group with this id.
        """
        check_group_id(group_id, groups)
        leaf = NewLeaf.first(signature_key, credential, capabilities, config)
        entered = create_first_epoch(suite, group_id, leaf, tuple(extensions), lifetime, config)
        return cls._enter(entered, config)

    @classmethod
    def join(
        cls,
        welcome: MLSMessage | Welcome,
        bundle: KeyPackageBundle,
        config: Config,
        *,
        tree: bytes | None = None,
        groups: frozenset[bytes] = frozenset(),
        continues: Group | None = None,
    ) -> Self:
        """Joins by a Welcome (§12.4.3.1).

        `tree` is the encoded ratchet tree where the Welcome has none inside; `groups` are the ids of the groups that
        this client is in; `continues` is the group that a reinitialised or branched one comes from (§11.2, §11.3).
        Raises `DecodeError`, `RuleViolation`, `VerificationError` or `DecryptionError`, and `StateError` for a group
        that this client has already or that continues one that is not given. Delete the key package's private keys
        once the group is stored.
        """
        opened = cls.open_welcome(welcome, bundle, config, groups=groups, continues=continues)
        entered = enter_by_welcome(opened, bundle, tree, config)
        check_continuing(opened, entered.staged.epoch, continues, config.authenticator)
        group = cls._enter(entered, config)
        group._welcomed_by = opened.info.signer
        return group

    @classmethod
    def open_welcome(
        cls,
        welcome: MLSMessage | Welcome,
        bundle: KeyPackageBundle,
        config: Config,
        *,
        groups: frozenset[bytes] = frozenset(),
        continues: Group | None = None,
    ) -> OpenedWelcome:
        """What a Welcome says, before the tree is there: nothing of it is verified, `join` does that.

        Raises `DecodeError`, `RuleViolation`, `VerificationError`, `DecryptionError` or `StateError`, as `join` does.
        """
        suite = suite_of(bundle.key_package.cipher_suite)
        old = [] if continues is None else [(continues.group_id, continues.resumption_psk)]
        opened = open_welcome(read_welcome(welcome), bundle, suite, finder(config.psk, old))
        check_group_id(opened.info.group_context.group_id, groups)
        return opened

    @classmethod
    def join_external(  # noqa: PLR0913 - what a new member says of itself, by name
        cls,
        info: MLSMessage | GroupInfo,
        signature_key: SignaturePrivateKey,
        credential: Credential,
        capabilities: Capabilities,
        config: Config,
        *,
        tree: bytes | None = None,
        groups: frozenset[bytes] = frozenset(),
        join: ExternalJoin = _JOIN,
        now: int | None = None,
    ) -> tuple[Self, MLSMessage]:
        """Joins, or comes back, by an external Commit (§12.4.3.2); returns the group and the Commit to send.

        `tree` is the encoded ratchet tree where the GroupInfo has none inside; `groups` are the ids of the groups that
        this client is in (to come back is to name the old leaf in `join`). Drop the group where another Commit won.
        Raises `DecodeError`, `RuleViolation`, `VerificationError`, `DecryptionError` or `StateError`.
        """
        read = read_group_info(info)
        if join.remove is None:
            check_group_id(read.group_context.group_id, groups)
        leaf = NewLeaf.first(signature_key, credential, capabilities, config)
        find = finder(config.psk, ())
        entered, message = enter_by_external_commit(read, tree, leaf, join, config, find, now=now)
        group = cls._enter(entered, config)
        group._keys.remember_own(message.encode(), group.epoch - 1)
        return group, message

    @classmethod
    def _enter(cls, entered: Entered, config: Config) -> Self:
        staged = entered.staged
        entered.index.apply(staged.index_changes)
        tree = SecretTree.of_epoch(
            staged.epoch.suite,
            staged.epoch.tree.leaf_count,
            staged.encryption_secret,
            config.limits.ratchets,
        )
        return cls(staged.epoch, tree, entered.index, config)

    # -- sending

    def encrypt(self, data: bytes, *, authenticated_data: bytes = b"") -> MLSMessage:
        """A private message with application data (§15).

        Raises `StateError` while proposals wait that must be committed first (§12.4).
        """
        self._require_active()
        if len(self._proposals):
            msg = f"{len(self._proposals)} proposals wait: commit them before sending data"
            raise StateError(msg)
        return send_data(self._epoch, self._keys, self._config, data, authenticated_data)

    def propose(
        self, proposal: Proposal, *, authenticated_data: bytes = b"", now: int | None = None
    ) -> MLSMessage:
        """A message with a proposal, which is kept for the next Commit (§12.1).

        Raises `RuleViolation` or `VerificationError` where the proposal is invalid by itself, `StateError` where an Add
        is proposed without `now` (seconds since 1970), with which its lifetime must be compared (§7.3).
        """
        self._require_active()
        _require_time([proposal], now)
        content = self._epoch.content(ContentType.PROPOSAL, proposal, authenticated_data)
        signed = sign(self._epoch, self._config.limits.handshake_format, content)
        check_proposal(self._epoch.public(self._index), signed, self._config.policy(), now=now)
        reference = self._reference(signed)
        self._proposals.check_room(reference)
        message = send(self._epoch, self._keys, self._config, content, signed.auth)
        self._proposals.keep(reference, signed)
        return message

    def propose_add(self, package: VerifiedKeyPackage, *, now: int) -> MLSMessage:
        """Proposes to add a client; `now` is in seconds since 1970."""
        return self.propose(Proposal.of(Add(package.key_package)), now=now)

    def propose_remove(self, leaf: LeafIndex | int) -> MLSMessage:
        """Proposes to remove a member."""
        return self.propose(Proposal.of(Remove(LeafIndex(leaf))))

    def propose_update(
        self,
        *,
        signature_key: SignaturePrivateKey | None = None,
        credential: Credential | None = None,
        capabilities: Capabilities | None = None,
        extensions: Iterable[Extension] | None = None,
    ) -> MLSMessage:
        """Proposes new keys for the own leaf; the private ones are kept until the epoch ends (§12.1.2).

        What is given takes the place of what the leaf says now. Raises `VerificationError` where the credential is no
        valid successor of the present one.
        """
        new = self._new_leaf(signature_key, credential, capabilities, extensions)
        encryption_key = self.suite.generate_hpke_key(self._config.rng)
        leaf = new.sign(
            self.suite,
            encryption_key.public,
            LeafNodeSource.UPDATE,
            group_id=self.group_id,
            leaf_index=self.own_leaf,
        )
        message = self.propose(Proposal.of(Update(leaf)))
        self._proposals.keep_update(OwnUpdate(encryption_key, new.signature_key))
        return message

    def propose_psk(self, psk: PreSharedKeyID) -> MLSMessage:
        """Proposes to mix a pre-shared key into the next epoch."""
        return self.propose(Proposal.of(PreSharedKey(psk)))

    def propose_extensions(self, extensions: Iterable[Extension]) -> MLSMessage:
        """Proposes to replace the GroupContext's extensions."""
        return self.propose(Proposal.of(GroupContextExtensions(tuple(extensions))))

    def propose_reinit(self, reinit: ReInit) -> MLSMessage:
        """Proposes to end the group in favour of a new one (§11.2)."""
        return self.propose(Proposal.of(reinit))

    def external_psk(self, psk_id: bytes) -> PreSharedKeyID:
        """A PreSharedKeyID with a fresh nonce for an external key (§8.4)."""
        return PreSharedKeyID.external(psk_id, self._config.rng(self.suite.hash_length))

    def application_psk(self, epoch: int) -> PreSharedKeyID:
        """A PreSharedKeyID with a fresh nonce for this group's own resumption key (§8.4, §8.6)."""
        return PreSharedKeyID.resumption(
            ResumptionPSKUsage.APPLICATION,
            self.group_id,
            epoch,
            self._config.rng(self.suite.hash_length),
        )

    def commit(
        self,
        proposals: Sequence[Proposal | VerifiedKeyPackage] = (),
        *,
        now: int | None = None,
        options: CommitOptions = _DEFAULTS,
        signature_key: SignaturePrivateKey | None = None,
        credential: Credential | None = None,
        capabilities: Capabilities | None = None,
        extensions: Iterable[Extension] | None = None,
    ) -> PendingCommit:
        """Makes a Commit of the given proposals and of those that wait (§12.4.1).

        A key package that was validated stands for an Add of it; only its suite and lifetime are looked at again.
        Of what waits it leaves out what does not make a valid Commit with the rest. Its handshake generation is burnt
        even where the Commit is dropped. A signature key, credential, capabilities or extensions of the own leaf that
        are given take the place of the present ones with it.

        Raises `RuleViolation` where the given proposals may not stand together or others would refuse the own leaf,
        `VerificationError` where its credential is no valid successor of the present one, `DecryptionError` for a
        pre-shared key that is not held, and `StateError` where another own Commit is pending, or an Add is given
        without `now` (seconds since 1970), with which its lifetime must be compared (§7.3).
        """
        changes = (signature_key, credential, capabilities, extensions)
        if any(change is not None for change in changes):
            options = replace(options, path=True)
        new_leaf = self._new_leaf(*changes)
        sender = self._epoch.sender
        entries = [
            CommittedProposal(Proposal.of(self._add_of(item, now)), sender, checked=True)
            if isinstance(item, VerifiedKeyPackage)
            else CommittedProposal(item, sender)
            for item in proposals
        ]
        return self._commit(CommitPlan(entries, new_leaf, self._find_psks, options), now)

    def _add_of(self, verified: VerifiedKeyPackage, now: int | None) -> Add:
        """The Add of a key package, which may have been validated long ago, or for another group."""
        package, limits = verified.key_package, self._config.limits
        package.check_use(self.suite, now=now, max_lifetime=limits.max_lifetime)
        return Add(package)

    def _new_leaf(
        self,
        signature_key: SignaturePrivateKey | None,
        credential: Credential | None,
        capabilities: Capabilities | None,
        extensions: Iterable[Extension] | None,
    ) -> NewLeaf:
        old = self._epoch.leaf_node
        if extensions is None:
            extensions = old.extensions
            if capabilities is not None:
                # New capabilities list another GREASE type, if any (§13.5).
                kept = (e for e in extensions if e.extension_type not in GREASE_VALUES)
                extensions = (*kept, *grease_extensions(capabilities, self._config.rng))
        return NewLeaf(
            signature_key or self._epoch.signature_key,
            credential or old.credential,
            capabilities or old.capabilities,
            tuple(extensions),
        )

    def _commit(self, plan: CommitPlan, now: int | None) -> PendingCommit:
        self._require_active()
        if self._pending is not None:
            msg = "an own Commit is pending: adopt it or drop it before making another"
            raise StateError(msg)
        _require_time([entry.proposal for entry in plan.proposals], now)
        if plan.options.pending and len(self._proposals):
            plan = replace(plan, proposals=self._with_waiting(plan, now))
        with collector_paused(when=len(plan.proposals) >= _MANY):
            created = create_commit(self._epoch, self._index, plan, self._config, now=now)
            message = send(self._epoch, self._keys, self._config, created.content, created.auth)
            self._pending = self._pend(created, message, plan.options)
        self._saver.pending_changed = True
        return self._pending

    def _with_waiting(self, plan: CommitPlan, now: int | None) -> list[CommittedProposal]:
        """The plan's proposals and what waits, as far as it makes a valid Commit with them."""
        state, policy = self._epoch.public(self._index), self._config.policy()
        entries = self._proposals.select(self.own_leaf, plan.proposals, now)
        waiting = entries[len(plan.proposals) :]
        return fitting_proposals(state, self.own_leaf, plan, waiting, policy, now=now)

    def _pend(
        self, created: CreatedCommit, message: MLSMessage, options: CommitOptions
    ) -> PendingCommit:
        info: MLSMessage | None = None
        sent: tuple[MLSMessage, ...] = ()
        if created.staged.new_leaves or options.group_info:
            # Not for every Commit: with the tree in it, it is as long as the group is large.
            made = group_info(
                created.begun.epoch,
                self._config,
                tree=options.carries(created.staged.tree.leaf_count),
                external_pub=options.external_pub,
            )
            info = MLSMessage.of(made)
            sent = tuple(welcomes(created, made, options, self._config))
        staged = StagedCommit.describe(
            self.tree,
            created.staged.tree,
            created.staged.proposals.all,
            self.own_leaf,
            created.staged.new_leaves,
            external=False,
            epoch=self.epoch,
            authenticated_data=options.authenticated_data,
            next=created.next,
        )
        return PendingCommit(message, sent, info, staged)

    def drop_pending(self) -> None:
        """Gives up the own pending Commit: another one won (§14)."""
        self._pending = None
        self._saver.pending_changed = True

    # -- groups that continue this one

    def reinit(
        self,
        packages: Sequence[VerifiedKeyPackage],
        *,
        lifetime: Lifetime,
        now: int,
        options: CommitOptions = _DEFAULTS,
        signature_key: SignaturePrivateKey | None = None,
        credential: Credential | None = None,
        capabilities: Capabilities | None = None,
    ) -> tuple[Self, PendingCommit]:
        """After a ReInit was committed and adopted: makes the group that it announced (§11.2).

        `packages` are fresh key packages of all other members. Where the new suite has other signature keys, give a
        `signature_key` and `capabilities`. Returns the new group, in epoch 1, and its first Commit, of which only the
        Welcomes matter; the others `join` with `continues`. Raises `StateError` where no ReInit was adopted or a
        member is missing, `UnsupportedError` where the announced version or suite is not spoken here.
        """
        announced = self._epoch.reinit
        if announced is None or self._closed is not None:
            msg = "the group was not reinitialised: commit a ReInit and adopt that first"
            raise StateError(msg)
        if announced.version != ProtocolVersion.MLS10:
            msg = f"the group was reinitialised to protocol version {int(announced.version)}, only MLS 1.0 is spoken"
            raise UnsupportedError(msg)
        check_members(self, packages, self._config.authenticator, all_of_them=True)
        plan = Succession(
            announced.group_id,
            suite_of(announced.cipher_suite),
            announced.extensions,
            ResumptionPSKUsage.REINIT,
            lifetime,
        )
        leaf = self._new_leaf(signature_key, credential, capabilities, None)
        return self._succeed(plan, leaf, packages, options, now)

    def branch(
        self,
        group_id: bytes,
        packages: Sequence[VerifiedKeyPackage],
        *,
        lifetime: Lifetime,
        now: int,
        options: CommitOptions = _DEFAULTS,
        extensions: Iterable[Extension] = (),
        signature_key: SignaturePrivateKey | None = None,
    ) -> tuple[Self, PendingCommit]:
        """Makes a group of some of this group's members, linked to this one (§11.3); this one goes on.

        `packages` are fresh key packages of the members that shall be in it, `extensions` those of its GroupContext.
        Returns the new group, in epoch 1, and its first Commit, of which only the Welcomes matter; the others `join`
        with `continues`. Raises `StateError` where somebody is no member of this group.
        """
        self._require_active()
        if group_id == self.group_id:
            msg = "a branch needs a group id of its own"
            raise StateError(msg)
        check_members(self, packages, self._config.authenticator, all_of_them=False)
        plan = Succession(
            group_id, self.suite, tuple(extensions), ResumptionPSKUsage.BRANCH, lifetime
        )
        leaf = self._new_leaf(signature_key, None, None, None)
        return self._succeed(plan, leaf, packages, options, now)

    def _succeed(
        self,
        plan: Succession,
        leaf: NewLeaf,
        packages: Sequence[VerifiedKeyPackage],
        options: CommitOptions,
        now: int,
    ) -> tuple[Self, PendingCommit]:
        """The new group: epoch 0 alone, then one Commit that adds everybody and names the old group's epoch."""
        config = self._config
        entered = create_first_epoch(
            plan.suite, plan.group_id, leaf, plan.extensions, plan.lifetime, config
        )
        group = self._enter(entered, config)
        nonce = config.rng(plan.suite.hash_length)
        psk = PreSharedKeyID.resumption(plan.usage, self.group_id, self.epoch, nonce)
        proposals = [Proposal.of(Add(package.key_package)) for package in packages]
        proposals.append(Proposal.of(PreSharedKey(psk)))
        sender = group._epoch.sender
        commit = group._commit(
            CommitPlan(
                [CommittedProposal(proposal, sender) for proposal in proposals],
                leaf,
                self._find_psks,
                options,
                plan.usage,
            ),
            now,
        )
        group.adopt(commit, now=now)
        return group, commit

    # -- receiving

    def receive(self, message: MLSMessage | bytes, *, now: int | None = None) -> Received:
        """Takes a message of this group, whatever it is.

        `now` is in seconds since 1970; None judges nothing by the time. Give None where members receive proposals and
        Commits at different times: a key package or certificate that expires in between would part them.
        Raises an error of `coterie.errors` where the message is not acceptable; then nothing has changed, but that a
        verified message's key is consumed.
        """
        if isinstance(message, bytes):
            message = MLSMessage.read(message)
        if self._closed is not None:
            raise StateError(self._closed)
        opened = self._opener.open(self._epoch, message, now=now)
        if isinstance(opened, ApplicationMessage):
            return opened
        if isinstance(opened, OwnMessage):
            pending = self._pending is not None and self._pending.message == message
            return OwnMessage(opened.content_type, opened.epoch, pending)
        if opened.content.content_type == ContentType.PROPOSAL:
            return self._receive_proposal(opened, now)
        return self._receive_commit(opened, now)

    def receive_many(
        self, messages: Sequence[MLSMessage | bytes], *, now: int | None = None
    ) -> list[Received | CoterieError]:
        """`receive` for each message in order, with its result or its error; the signatures are verified on all cores.

        Results, errors and what is stored are those of one by one. A Commit ends the run, and is its last result: adopt
        it or drop it, and go on with the messages after it. `Config.run` says what all cores are.
        """
        results: list[Received | CoterieError] = []
        for start in range(0, len(messages), MAX_AHEAD):
            part = messages[start : start + MAX_AHEAD]
            with self.looking_ahead(part):
                for message in part:
                    try:
                        received = self.receive(message, now=now)
                    except CoterieError as error:
                        results.append(error)
                        continue
                    results.append(received)
                    if isinstance(received, StagedCommit):
                        return results
        return results

    @contextmanager
    def looking_ahead(self, messages: Iterable[MLSMessage | bytes]) -> Iterator[None]:
        """While it lasts, `receive` of these messages in this order costs less: their signatures are verified already.

        It changes nothing by itself, raises nothing for a bad message, and looks at the first 256. Where `Config.run`
        is `map` there is nothing to gain, and it does nothing.
        """
        try:
            if self._config.run is not map and self._closed is None:
                self._opener.look_ahead(self._epoch, _readable(messages))
            yield
        finally:
            self._opener.forget_ahead()

    def _receive_proposal(self, content: VerifiedContent, now: int | None) -> ProposalReceived:
        self._require_open()
        state = self._epoch.public(self._index)
        check_proposal(state, content, self._config.policy(), now=now)
        reference = self._reference(content)
        self._proposals.keep(reference, content)
        return ProposalReceived(
            content.body(Proposal), content.sender, reference, content.content.authenticated_data
        )

    def _receive_commit(self, content: VerifiedContent, now: int | None) -> StagedCommit:
        self._require_open()
        proposals = self._proposals.resolve(content.body(Commit), content.sender)
        with collector_paused(when=len(proposals) >= _MANY):
            processed = process_commit(
                self._epoch,
                self._index,
                content,
                proposals,
                self._config,
                self._find_psks,
                self._proposals.own_updates,
                now=now,
            )
        return StagedCommit.describe(
            self.tree,
            processed.staged.tree,
            processed.proposals.all,
            processed.committer,
            processed.staged.new_leaves,
            external=content.sender.leaf_index is None,
            epoch=self.epoch,
            authenticated_data=content.content.authenticated_data,
            next=processed.next,
        )

    def _require_open(self) -> None:
        if self._epoch.reinit is not None:
            msg = "the group was reinitialised and takes no more proposals and Commits"
            raise RuleViolation(msg, rule=Rule.AFTER_REINIT)

    # -- the switch of epochs

    def adopt(self, commit: StagedCommit | PendingCommit, *, now: int = 0) -> None:
        """Goes to the epoch that a Commit begins: the only switch of epochs.

        `now` (seconds since 1970) is when the present epoch ends, for keeping its message keys a while; 0 keeps them
        by number only. A pending own Commit that is not the one is dropped with it; one that was dropped earlier can
        be adopted all the same, while its epoch lasts. Raises `StateError` where the Commit is not one of the present
        epoch of this group.
        """
        staged = commit.commit if isinstance(commit, PendingCommit) else commit
        if staged.epoch != self.epoch or self._closed is not None:
            msg = f"the Commit ends epoch {staged.epoch}, the group is in epoch {self.epoch}"
            raise StateError(msg)
        if staged.next is not None and staged.next.epoch.context.group_id != self.group_id:
            msg = "the Commit is of another group"
            raise StateError(msg)
        if staged.next is None:
            self._close("this member was removed from the group")
            return
        self._adopt(staged.next, now)

    def _adopt(self, staged: StagedEpoch, now: int) -> None:
        old, self._epoch = self._epoch, staged.epoch
        tree = SecretTree.of_epoch(
            self.suite,
            staged.epoch.tree.leaf_count,
            staged.encryption_secret,
            self._config.limits.ratchets,
        )
        self._keys.advance(old, staged.epoch, tree, now)
        self._index.apply(staged.index_changes)
        self._proposals.clear()
        self._pending = None
        self._saver.pending_changed = True

    def expire(self, now: int) -> None:
        """Gives up what is older than the limits allow: past epochs and skipped keys (§9.2)."""
        self._keys.expire(now)

    def _close(self, why: str) -> None:
        self._closed = why
        self._epoch = self._epoch.forgotten(self._config.rng)
        self._keys.clear()
        self._proposals.clear()
        self._pending = None

    # -- storage

    def has_client(self, credential: Credential) -> bool:
        """Whether a member's credential is of the same client (§12.2); costs the same in a group of any size."""
        client = self._config.authenticator.client_id(credential)
        return self._index.count(client_name(client)) > 0

    def save(self) -> Delta:
        """What changed since the last call; store it in one transaction before what the step returned is used."""
        return self._saver.delta(
            self._epoch,
            self._keys,
            self._index,
            self._proposals,
            self._pending,
            closed=self._closed is not None,
        )

    @classmethod
    def load(cls, entries: Mapping[bytes, bytes], store: NodeStore, config: Config) -> Self:
        """The group that was saved.

        `entries` are all that `save` gave but those under `n/` and `i/`, which are read through `store`. Raises
        `StorageError` where something is missing, damaged or of another format.
        """
        parts = load_parts(entries, store, config.limits)
        group = cls(parts.epoch, parts.secret_tree, TreeIndex(store), config)
        group._keys.restore(parts.past, parts.resumption, parts.own)
        waiting = [(group._reference(content), content) for content in parts.proposals]
        group._proposals.restore(waiting, parts.updates)
        group._pending = parts.pending
        group._saver = Saver(parts.epoch)
        return group

    # -- inside

    def _reference(self, content: VerifiedContent) -> bytes:
        return self.suite.proposal_ref(content.authenticated_content().encode())

    def _find_psks(self, psks: Sequence[PreSharedKeyID]) -> PskSecrets:
        own = [(self.group_id, self._keys.resumption_psk)]
        return finder(self._config.psk, own)(psks)


def _readable(messages: Iterable[MLSMessage | bytes]) -> Iterator[MLSMessage]:
    for message in messages:
        with suppress(CoterieError):
            yield MLSMessage.read(message) if isinstance(message, bytes) else message


def _require_time(proposals: Iterable[Proposal], now: int | None) -> None:
    if now is None and any(isinstance(proposal.content, Add) for proposal in proposals):
        msg = "give the time (`now`): a key package's lifetime must be checked before it is added"
        raise StateError(msg)
