"""What the calls of the interop harness mean in terms of `Group`.

A state is one member in one epoch. A call that makes a new epoch leaves the old state as it was and answers with a new
one: the group is saved and loaded again, which also puts saving and loading to the test.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from coterie.errors import StateError, UnsupportedError
from coterie.interop.descriptions import (
    described_from_outside,
    extensions_of,
    group_info_of,
    key_package_of,
    leaf_named,
    member_named,
    options_of,
    package_fields,
    reinit_of,
)
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import (
    SUPPORTED_CIPHER_SUITES,
    SignaturePrivateKey,
    Suite,
    suite_of,
)
from coterie.mls.extension import (
    Capabilities,
    Extension,
    ExternalSender,
    ExternalSenders,
    capabilities,
)
from coterie.mls.external import external_proposal, new_member_add
from coterie.mls.framing import MLSMessage
from coterie.mls.group import (
    ApplicationMessage,
    CommitOptions,
    Config,
    ExternalJoin,
    Group,
    Limits,
    PendingCommit,
    StagedCommit,
)
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import (
    KeyPackageBundle,
    VerifiedKeyPackage,
    create_key_package,
)
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import (
    Add,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    Remove,
)
from coterie.mls.types import ExtensionType, PSKType
from coterie.testing.store import MemoryStore

T = TypeVar("T")
_DAY = 24 * 3600
_PRIVATE_EXTENSIONS = tuple(range(0xFF00, 0xFF08))
"""Extension types for private use that scenarios put into a group."""


@dataclass(slots=True)
class Psks:
    """External keys that a member was given, and resumption keys of its earlier epochs."""

    external: dict[bytes, bytes] = field(default_factory=dict)

    def find(self, psk: PreSharedKeyID) -> bytes | None:
        """The key of an id, if it was given."""
        if psk.psktype == PSKType.EXTERNAL and psk.psk_id is not None:
            return self.external.get(psk.psk_id)
        return None


@dataclass(slots=True)
class State:
    """One member in one epoch."""

    group: Group
    store: MemoryStore
    psks: Psks
    config: Config
    identity: bytes
    known: dict[bytes, bytes] = field(default_factory=dict)
    """The proposals of the epoch, own and received ones: the message, and where the group stores it."""

    def save(self) -> None:
        """Keeps what the last call changed."""
        self.store.apply(self.group.save())

    def fork(self) -> State:
        """The same member again, from what is saved."""
        self.save()
        store = self.store.copy()
        psks = Psks(dict(self.psks.external))
        config = replace(self.config, psk=psks.find)
        group = Group.load(store.entries(), store, config)
        return State(group, store, psks, config, self.identity, dict(self.known))

    def propose(self, proposal: Proposal) -> bytes:
        """Makes a proposal and remembers it."""
        before = self._stored_proposals()
        message = self.group.propose(proposal, now=_now()).encode()
        self._remember(message, before)
        return message

    def update(self) -> bytes:
        """Makes an Update proposal and remembers it."""
        before = self._stored_proposals()
        message = self.group.propose_update().encode()
        self._remember(message, before)
        return message

    def take(self, messages: Iterable[bytes]) -> None:
        """Receives proposals that are not known yet."""
        for message in messages:
            if message not in self.known:
                before = self._stored_proposals()
                self.group.receive(message, now=_now())
                self._remember(message, before)

    def commit(
        self, named: Iterable[bytes], proposals: Sequence[Proposal], options: CommitOptions
    ) -> PendingCommit:
        """Makes a Commit of the proposals given and of those named, and of no other that waits."""
        self.group.drop_pending()
        self.take(named)
        self.save()
        wanted = {self.known[message] for message in named}
        aside = {key: self.store.data.pop(key) for key in self._stored_proposals() - wanted}
        if aside:
            self.group = Group.load(self.store.entries(), self.store, self.config)
        try:
            return self.group.commit(proposals, now=_now(), options=options)
        finally:
            self.save()
            if aside:
                self.store.data.update(aside)
                self.group = Group.load(self.store.entries(), self.store, self.config)

    def _stored_proposals(self) -> set[bytes]:
        return {key for key in self.store.data if key.startswith(b"p/")}

    def _remember(self, message: bytes, before: set[bytes]) -> None:
        self.save()
        for key in self._stored_proposals() - before:
            self.known[message] = key


@dataclass(slots=True)
class Transaction:
    """A key package that waits for its Welcome."""

    bundle: KeyPackageBundle
    suite: Suite
    identity: bytes
    psks: Psks = field(default_factory=Psks)


@dataclass(slots=True)
class Reinit:
    """A member between a group that was reinitialised and the one that follows it."""

    state: State
    transaction: Transaction


@dataclass(slots=True)
class Signer:
    """An external sender."""

    key: SignaturePrivateKey
    credential: Credential


def _now() -> int:
    return int(time.time())


def _lifetime() -> Lifetime:
    return Lifetime(_now() - _DAY, _now() + 30 * _DAY)


def _found(kept: Mapping[int, T], number: int, what: str) -> T:
    try:
        return kept[number]
    except KeyError:
        msg = f"there is no {what} {number}"
        raise StateError(msg) from None


class States:
    """Everything the server remembers, and a method for each call of the interface."""

    def __init__(self, messages: Any, *, grease: bool = False) -> None:  # noqa: ANN401 - a module made at run time
        self._pb = messages
        self._grease = grease
        self._numbers = itertools.count(1)
        self._states: dict[int, State] = {}
        self._transactions: dict[int, Transaction] = {}
        self._reinits: dict[int, Reinit] = {}
        self._signers: dict[int, Signer] = {}

    # -- what it keeps

    def _keep(self, kept: dict[int, Any], value: object) -> int:
        number = next(self._numbers)
        kept[number] = value
        return number

    def _state(self, number: int) -> State:
        return _found(self._states, number, "state")

    def _add(self, group: Group, psks: Psks, config: Config, identity: bytes) -> int:
        state = State(group, MemoryStore(), psks, config, identity)
        state.save()
        return self._keep(self._states, state)

    def _config(self, psks: Psks, *, encrypt: bool) -> Config:
        # Some clients under test make key packages that never end (§7.2 leaves the maximum to the application).
        limits = Limits(private_handshakes=encrypt, max_lifetime=None)
        return Config(AcceptAnything(), limits=limits, psk=psks.find)

    def _capabilities(self) -> Capabilities:
        made = capabilities(
            cipher_suites=SUPPORTED_CIPHER_SUITES, extensions=_PRIVATE_EXTENSIONS, rng=os.urandom
        )
        if self._grease:
            return made
        # The other lists keep their GREASE value; an extension type that is listed would also be used.
        return Capabilities(
            made.versions,
            made.cipher_suites,
            tuple(map(ExtensionType, _PRIVATE_EXTENSIONS)),
            made.proposals,
            made.credentials,
        )

    def _transaction(self, suite: Suite, identity: bytes) -> Transaction:
        bundle = create_key_package(
            suite,
            suite.generate_signature_key(os.urandom),
            Credential.basic(identity),
            self._capabilities(),
            _lifetime(),
            rng=os.urandom,
        )
        return Transaction(bundle, suite, identity)

    # -- the implementation

    def Name(self, _request: Any) -> Any:  # noqa: N802, ANN401, D102 - the interface's names
        return self._pb.NameResponse(name="Coterie")

    def SupportedCiphersuites(self, _request: Any) -> Any:  # noqa: N802, ANN401, D102
        suites = [int(suite) for suite in SUPPORTED_CIPHER_SUITES]
        return self._pb.SupportedCiphersuitesResponse(ciphersuites=suites)

    def Free(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        self._state(request.state_id)
        del self._states[request.state_id]
        return self._pb.FreeResponse()

    # -- entering

    def CreateGroup(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        suite, psks = suite_of(request.cipher_suite), Psks()
        config = self._config(psks, encrypt=request.encrypt_handshake)
        group = Group.create(
            request.group_id,
            suite,
            suite.generate_signature_key(os.urandom),
            Credential.basic(request.identity),
            self._capabilities(),
            config,
            lifetime=_lifetime(),
        )
        state = self._add(group, psks, config, request.identity)
        return self._pb.CreateGroupResponse(state_id=state)

    def CreateKeyPackage(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        made = self._transaction(suite_of(request.cipher_suite), request.identity)
        return self._pb.CreateKeyPackageResponse(
            transaction_id=self._keep(self._transactions, made), **package_fields(made.bundle)
        )

    def JoinGroup(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        waiting = _found(self._transactions, request.transaction_id, "transaction")
        config = self._config(waiting.psks, encrypt=request.encrypt_handshake)
        group = Group.join(
            MLSMessage.read(request.welcome),
            waiting.bundle,
            config,
            tree=request.ratchet_tree or None,
        )
        state = self._add(group, waiting.psks, config, waiting.identity)
        return self._pb.JoinGroupResponse(
            state_id=state, epoch_authenticator=group.epoch_authenticator
        )

    def ExternalJoin(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        info = group_info_of(request.group_info)
        suite = suite_of(info.group_context.cipher_suite)
        psks = Psks({psk.psk_id: psk.psk_secret for psk in request.psks})
        config = self._config(psks, encrypt=request.encrypt_handshake)
        tree = request.ratchet_tree or None
        prior = leaf_named(info, suite, tree, request.identity) if request.remove_prior else None
        ids = [PreSharedKeyID.external(i, os.urandom(suite.hash_length)) for i in psks.external]
        group, message = Group.join_external(
            info,
            suite.generate_signature_key(os.urandom),
            Credential.basic(request.identity),
            self._capabilities(),
            config,
            tree=tree,
            join=ExternalJoin(remove=prior, psks=ids),
            now=_now(),
        )
        state = self._add(group, psks, config, request.identity)
        return self._pb.ExternalJoinResponse(
            state_id=state, commit=message.encode(), epoch_authenticator=group.epoch_authenticator
        )

    # -- one epoch

    def GroupInfo(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        group = self._state(request.state_id).group
        message = group.group_info(tree=not request.external_tree)
        return self._pb.GroupInfoResponse(
            group_info=message.encode(),
            ratchet_tree=group.tree.encode() if request.external_tree else b"",
        )

    def StateAuth(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        secret = self._state(request.state_id).group.epoch_authenticator
        return self._pb.StateAuthResponse(state_auth_secret=secret)

    def Export(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        group = self._state(request.state_id).group
        secret = group.export_secret(request.label, request.context, request.key_length)
        return self._pb.ExportResponse(exported_secret=bytes(secret))

    def Protect(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        state = self._state(request.state_id)
        message = state.group.encrypt(
            request.plaintext, authenticated_data=request.authenticated_data
        )
        state.save()
        return self._pb.ProtectResponse(ciphertext=message.encode())

    def Unprotect(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        state = self._state(request.state_id)
        received = state.group.receive(request.ciphertext, now=_now())
        state.save()
        if not isinstance(received, ApplicationMessage):
            msg = f"the message is no application data but a {type(received).__name__}"
            raise StateError(msg)
        return self._pb.UnprotectResponse(
            authenticated_data=received.authenticated_data, plaintext=received.data
        )

    def StorePSK(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        number = request.state_or_transaction_id
        holder = self._states.get(number) or self._transactions.get(number)
        if holder is None:
            msg = f"there is no state or transaction {number}"
            raise StateError(msg)
        holder.psks.external[request.psk_id] = request.psk_secret
        return self._pb.StorePSKResponse()

    # -- proposals

    def _propose(self, number: int, proposal: Proposal) -> Any:  # noqa: ANN401
        return self._pb.ProposalResponse(proposal=self._state(number).propose(proposal))

    def AddProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        add = Add(key_package_of(request.key_package))
        return self._propose(request.state_id, Proposal.of(add))

    def UpdateProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        return self._pb.ProposalResponse(proposal=self._state(request.state_id).update())

    def RemoveProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        leaf = member_named(self._state(request.state_id).group, request.removed_id)
        return self._propose(request.state_id, Proposal.of(Remove(leaf)))

    def ExternalPSKProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        psk = self._state(request.state_id).group.external_psk(request.psk_id)
        return self._propose(request.state_id, Proposal.of(PreSharedKey(psk)))

    def ResumptionPSKProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        psk = self._state(request.state_id).group.application_psk(request.epoch_id)
        return self._propose(request.state_id, Proposal.of(PreSharedKey(psk)))

    def GroupContextExtensionsProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        content = GroupContextExtensions(extensions_of(request.extensions))
        return self._propose(request.state_id, Proposal.of(content))

    def ReInitProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        content = reinit_of(request.group_id, request.cipher_suite, request.extensions)
        return self._propose(request.state_id, Proposal.of(content))

    # -- Commits

    def Commit(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        state = self._state(request.state_id)
        group = state.group
        proposals = [self._described(group, one, _now()) for one in request.by_value]
        pending = state.commit(request.by_reference, proposals, options_of(request))
        following = pending.next
        tree = following.epoch.tree.encode() if following and request.external_tree else b""
        welcome = pending.welcome.encode() if pending.welcome else b""
        return self._pb.CommitResponse(
            commit=pending.message.encode(), welcome=welcome, ratchet_tree=tree
        )

    ReInitCommit = Commit

    def _described(self, group: Group, wanted: Any, now: int) -> Proposal:  # noqa: ANN401
        """A proposal by value from its description."""
        kind = wanted.proposal_type.decode()
        match kind:
            case "add":
                package = group.check_key_package(key_package_of(wanted.key_package), now=now)
                return Proposal.of(Add(package.key_package))
            case "remove":
                return Proposal.of(Remove(member_named(group, wanted.removed_id)))
            case "externalPSK":
                return Proposal.of(PreSharedKey(group.external_psk(wanted.psk_id)))
            case "resumptionPSK":
                return Proposal.of(PreSharedKey(group.application_psk(wanted.epoch_id)))
            case "groupContextExtensions":
                return Proposal.of(GroupContextExtensions(extensions_of(wanted.extensions)))
            case "reinit":
                return Proposal.of(
                    reinit_of(wanted.group_id, wanted.cipher_suite, wanted.extensions)
                )
        msg = f"proposals of type {kind!r} are not known by value"
        raise UnsupportedError(msg)

    def _handled(self, request: Any) -> State:  # noqa: ANN401
        """The state after somebody else's Commit."""
        state = self._state(request.state_id).fork()
        state.take(request.proposal)
        received = state.group.receive(request.commit, now=_now())
        if not isinstance(received, StagedCommit):
            msg = f"the message is no Commit of somebody else but a {type(received).__name__}"
            raise StateError(msg)
        if received.removes_self:
            msg = "the Commit removes this member"
            raise StateError(msg)
        state.group.adopt(received, now=_now())
        state.known.clear()
        state.save()
        return state

    def _adopted(self, number: int) -> State:
        """The state after the own pending Commit."""
        state = self._state(number).fork()
        pending = state.group.pending_commit
        if pending is None:
            msg = "no Commit is pending in this state"
            raise StateError(msg)
        state.group.adopt(pending, now=_now())
        state.known.clear()
        state.save()
        return state

    def _commit_answer(self, state: State) -> Any:  # noqa: ANN401
        return self._pb.HandleCommitResponse(
            state_id=self._keep(self._states, state),
            epoch_authenticator=state.group.epoch_authenticator,
        )

    def HandleCommit(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        return self._commit_answer(self._handled(request))

    def HandlePendingCommit(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        return self._commit_answer(self._adopted(request.state_id))

    # -- reinitialisation and branching

    def _reinit_answer(self, state: State) -> Any:  # noqa: ANN401
        announced = state.group.reinitialized
        if announced is None:
            msg = "the Commit reinitialises nothing"
            raise StateError(msg)
        fresh = self._transaction(suite_of(announced.cipher_suite), state.identity)
        fresh.psks = state.psks
        return self._pb.HandleReInitCommitResponse(
            reinit_id=self._keep(self._reinits, Reinit(state, fresh)),
            key_package=MLSMessage.of(fresh.bundle.key_package).encode(),
            epoch_authenticator=state.group.epoch_authenticator,
        )

    def HandlePendingReInitCommit(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        return self._reinit_answer(self._adopted(request.state_id))

    def HandleReInitCommit(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        return self._reinit_answer(self._handled(request))

    def ReInitWelcome(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        between = _found(self._reinits, request.reinit_id, "reinitialisation")
        state, fresh = between.state, between.transaction
        group, pending = state.group.reinit(
            self._verified(request.key_package, fresh.suite, state.config),
            lifetime=_lifetime(),
            now=_now(),
            options=options_of(request),
            signature_key=fresh.bundle.signature_key,
            capabilities=self._capabilities(),
        )
        return self._subgroup(group, pending, state, external_tree=request.external_tree)

    def HandleReInitWelcome(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        between = _found(self._reinits, request.reinit_id, "reinitialisation")
        return self._continue(
            between.transaction, between.state, request, self._pb.JoinGroupResponse
        )

    def CreateBranch(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        state = self._state(request.state_id)
        group, pending = state.group.branch(
            request.group_id,
            self._verified(request.key_packages, state.group.suite, state.config),
            lifetime=_lifetime(),
            now=_now(),
            options=options_of(request),
            extensions=extensions_of(request.extensions),
        )
        return self._subgroup(group, pending, state, external_tree=request.external_tree)

    def HandleBranch(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        waiting = _found(self._transactions, request.transaction_id, "transaction")
        state = self._state(request.state_id)
        return self._continue(waiting, state, request, self._pb.HandleBranchResponse)

    def _verified(
        self, packages: Iterable[bytes], suite: Suite, config: Config
    ) -> list[VerifiedKeyPackage]:
        return [
            key_package_of(package).validate(
                suite, config.authenticator, now=_now(), max_lifetime=None
            )
            for package in packages
        ]

    def _subgroup(
        self, group: Group, pending: PendingCommit, old: State, *, external_tree: bool
    ) -> Any:  # noqa: ANN401
        psks = Psks(dict(old.psks.external))
        config = replace(old.config, psk=psks.find)
        state = self._add(group, psks, config, old.identity)
        return self._pb.CreateSubgroupResponse(
            state_id=state,
            welcome=pending.welcome.encode() if pending.welcome else b"",
            ratchet_tree=group.tree.encode() if external_tree else b"",
            epoch_authenticator=group.epoch_authenticator,
        )

    def _continue(self, waiting: Transaction, old: State, request: Any, answer: Any) -> Any:  # noqa: ANN401
        psks = Psks({**old.psks.external, **waiting.psks.external})
        config = replace(old.config, psk=psks.find)
        group = Group.join(
            MLSMessage.read(request.welcome),
            waiting.bundle,
            config,
            tree=request.ratchet_tree or None,
            continues=old.group,
        )
        state = self._add(group, psks, config, old.identity)
        return answer(state_id=state, epoch_authenticator=group.epoch_authenticator)

    # -- from outside

    def NewMemberAddProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        info = group_info_of(request.group_info)
        made = self._transaction(suite_of(info.group_context.cipher_suite), request.identity)
        bundle = made.bundle
        message = new_member_add(info.group_context, bundle.key_package, bundle.signature_key)
        fields = package_fields(bundle)
        del fields["key_package"]
        return self._pb.NewMemberAddProposalResponse(
            transaction_id=self._keep(self._transactions, made),
            proposal=message.encode(),
            **fields,
        )

    def CreateExternalSigner(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        suite = suite_of(request.cipher_suite)
        signer = Signer(
            suite.generate_signature_key(os.urandom), Credential.basic(request.identity)
        )
        sender = ExternalSender(signer.key.public, signer.credential)
        return self._pb.CreateExternalSignerResponse(
            signer_id=self._keep(self._signers, signer), external_sender=sender.encode()
        )

    def AddExternalSigner(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        group = self._state(request.state_id).group
        listed = group.context.external_senders()
        senders = (
            *(listed.external_senders if listed else ()),
            ExternalSender.decode(request.external_sender),
        )
        kept = [
            e
            for e in group.context.extensions
            if e.extension_type != ExtensionType.EXTERNAL_SENDERS
        ]
        added = Extension(ExtensionType.EXTERNAL_SENDERS, ExternalSenders(senders).encode())
        return self._propose(request.state_id, Proposal.of(GroupContextExtensions((*kept, added))))

    def ExternalSignerProposal(self, request: Any) -> Any:  # noqa: N802, ANN401, D102
        info, signer = (
            group_info_of(request.group_info),
            _found(self._signers, request.signer_id, "signer"),
        )
        context = info.group_context
        proposal = described_from_outside(info, request.ratchet_tree or None, request.description)
        message = external_proposal(context, proposal, signer.key)
        return self._pb.ProposalResponse(proposal=message.encode())
