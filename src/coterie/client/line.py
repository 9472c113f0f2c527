"""One member's place in a log: what it has verified, and where it stands (docs/delivery-protocol.md, sections 3, 4, 7).

A `Line` joins a `Group` with its log. It makes entries and judges those that it reads, in the order of the log, and it
does no I/O: `conversation` fetches, stores and sends. The log is the only truth: an own Commit, too, takes effect when
it is read back, not when the service answered.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coterie.client import receipts
from coterie.client.ahead import WORTH_IT, Ahead, Run
from coterie.client.chunks import SharedState, StateChange
from coterie.client.content import read_binding
from coterie.client.epoch_keys import EpochKeys
from coterie.client.outcomes import (
    Announced,
    Committed,
    Data,
    Evidence,
    Outcome,
    Proposed,
    Sent,
    Stuck,
    Void,
)
from coterie.client.trail import Trail
from coterie.errors import (
    CoterieError,
    DecodeError,
    DecryptionError,
    StateError,
    StorageError,
    VerificationError,
)
from coterie.mls.framing import MLSMessage, PublicMessage
from coterie.mls.group import (
    ApplicationMessage,
    Group,
    OwnMessage,
    PendingCommit,
    ProposalReceived,
    StagedCommit,
    StagedEpoch,
)
from coterie.mls.key_schedule import exported_secret
from coterie.mls.proposal import Commit, PreSharedKey, Proposal
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct, Uint
from coterie.mls.types import SenderType
from coterie.mls.validation.proposal_list import CommittedProposal
from coterie.transport import api

PRIVATE_RULES = frozenset(
    {
        Rule.PATH_SECRET_OPENS,
        Rule.PATH_SECRET_MATCHES,
        Rule.PSK_UNKNOWN,
        Rule.OWN_MESSAGE_UNKNOWN,
    }
)
"""What may have failed for this member alone (D-VAL-9)."""


_UNSIGNED = bytes(64)
"""The signature of a receipt of which it is known what must stand in it, and that the service did not give yet."""


class LineState(Struct):
    """Where a member stands in its log; stored with the group."""

    parent: api.Hash
    epoch: api.Hash
    opening: api.Receipt
    head: api.Receipt
    last_candidate: api.Hash
    used_leaves: tuple[Annotated[int, Uint(4)], ...]
    missed: Annotated[int, Uint(1)] = 0
    """1 where retention dropped entries of this epoch before they were read (D-VAL-7)."""

    def at(self, head: api.Receipt) -> LineState:
        """As `replace`, in a third of its time: each entry that is read moves the head."""
        return LineState(
            self.parent,
            self.epoch,
            self.opening,
            head,
            self.last_candidate,
            self.used_leaves,
            self.missed,
        )


class Line:
    """A group and its log, as one member sees them."""

    def __init__(
        self,
        group: Group,
        state: LineState,
        trail: Trail | None = None,
        shared: SharedState | None = None,
    ) -> None:
        self.group = group
        self.state = state
        self.trail = trail or Trail()
        self.shared = SharedState() if shared is None else shared
        self._next_state: tuple[PendingCommit, StateChange] | None = None
        self.binding = read_binding(group.context.extensions)
        self._keys: EpochKeys | None = None
        self._ahead: Ahead | None = None
        self._receipt_key = Ed25519PublicKey.from_public_bytes(self.binding.receipt_key)

    @property
    def keys(self) -> EpochKeys:
        """The present epoch's keys."""
        if self._keys is None:
            self._keys = EpochKeys.derive(self.group.export_secret, self.binding.log_id)
        return self._keys

    @property
    def receipt_key(self) -> Ed25519PublicKey:
        """The key under which the service signs the log."""
        return self._receipt_key

    @property
    def next_number(self) -> int:
        """The number of the next entry to read."""
        return self.state.head.number + 1

    def read(self) -> api.Read:
        """The request for what this member has not read."""
        return api.Read(
            self.binding.log_id, self.state.epoch, self.keys.read_token, self.next_number
        )

    def read_own_next(self) -> api.Read | None:
        """The request for the epoch that the own pending Commit begins; None without one (D-BOX-15)."""
        following = self._own_next()
        if following is None:
            return None
        name = following.name(self.state.epoch)
        return api.Read(self.binding.log_id, name, following.read_token, 1)

    def _own_next(self) -> EpochKeys | None:
        pending = self.group.pending_commit
        if pending is None or pending.next is None:
            return None
        return EpochKeys.derive(staged_exporter(pending.next), self.binding.log_id)

    # -- beginning

    @classmethod
    def opened(
        cls,
        group: Group,
        parent: bytes,
        opening: api.Receipt,
        shared: SharedState | None = None,
    ) -> Line:
        """The line of a member that enters an epoch; checks the opening receipt (D-INB-7, D-REC-3).

        Raises `VerificationError` where the receipt is not of this epoch or not the service's.
        """
        binding = read_binding(group.context.extensions)
        keys = EpochKeys.derive(group.export_secret, binding.log_id)
        name = receipts.verify_opening(binding, keys, parent, opening)
        state = LineState(parent, name, opening, opening, api.ZERO32, ())
        return cls(group, state, shared=shared)

    # -- writing

    def message(self, kind: api.ContentKind, message: MLSMessage) -> api.Append:
        """An entry with a message for the present epoch."""
        header = self._header(api.EntryKind.MESSAGE)
        sealed = api.SealedContent(kind, self.state.head, message.encode())
        return self.keys.append(header, sealed)

    def successor(self, content: bytes) -> api.Append:
        """The entry that announces the group which follows a reinitialised one (D-SUC-2)."""
        header = self._header(api.EntryKind.SUCCESSOR)
        sealed = api.SealedContent(api.ContentKind.SUCCESSOR, self.state.head, content)
        return self.keys.append(header, sealed)

    def _header(
        self,
        kind: api.EntryKind,
        *,
        bundle: api.Bundle | None = None,
        correction: api.Correction | None = None,
    ) -> api.EntryHeader:
        return api.EntryHeader(
            api.DeliveryVersion.COTERIE1,
            kind,
            self.state.epoch,
            secrets.token_bytes(32),
            bundle,
            correction,
        )

    def bundle(self, pending: PendingCommit) -> api.Append:
        """The entry that ends the epoch with an own Commit (D-BUN-2)."""
        staged = pending.next
        if staged is None:
            msg = "a Commit that removes this member cannot be its own"
            raise StateError(msg)
        following = EpochKeys.derive(staged_exporter(staged), self.binding.log_id)
        change = self.next_state(pending)
        header = self._header(
            api.EntryKind.BUNDLE,
            bundle=api.Bundle(self.state.last_candidate, following.access, change.added),
        )
        commit = pending.message.encode()
        tbs = api.ManifestTBS(
            self.state.epoch,
            header.id,
            self.state.last_candidate,
            following.access,
            api.sha256(commit),
            change.root_address,
            self.state.head.hash(),
            self.group.own_leaf,
        )
        signature = self.group.sign(api.MANIFEST_LABEL.decode(), tbs.encode())
        content = api.CommitContent(api.Manifest(tbs, signature), commit)
        sealed = api.SealedContent(api.ContentKind.COMMIT, self.state.head, content.encode())
        return self.keys.append(header, sealed)

    def next_state(self, pending: PendingCommit) -> StateChange:
        """What an own pending Commit adds to the chunks (D-BUN-1); the same each time it is asked for."""
        known = self._next_state
        if known is not None and known[0] is pending:
            return known[1]
        staged = pending.next
        if staged is None:
            return StateChange(None, {}, {}, 0)
        keys = EpochKeys.derive(staged_exporter(staged), self.binding.log_id)
        change = self.shared.change(self.group.tree, staged.epoch.tree, keys.state_secret)
        self._next_state = pending, change
        return change

    # -- reading

    @contextmanager
    def looking_ahead(self, entries: Sequence[api.StoredEntry], run: Run) -> Iterator[None]:
        """While it lasts, `take` of these entries costs less: their signatures are verified already, on all cores.

        Only what holds is remembered; everything else `take` finds out by itself, when it is its turn. So the verdicts
        are those of one by one.
        """
        if run is map or len(entries) < WORTH_IT:
            yield
            return
        try:
            self._ahead = Ahead.look(entries, self.keys, self._receipt_key, run)
            with self.group.looking_ahead(self._ahead.messages()):
                yield
        finally:
            self._ahead = None

    def take(self, stored: api.StoredEntry, *, now: int) -> Outcome:
        """Verifies and acts on the next entry; raises `Evidence`, or `VerificationError` for what is not the log.

        Anything that a member wrote gives an outcome, never an exception: what is wrong with it is void, refused, or a
        private failure.
        """
        self._chain(stored.receipt)
        entry = stored.entry
        if entry is None and stored.size == 0:
            # Retention dropped it between others that are still there (D-REC-8).
            self._follow(stored.receipt)
            return Void(stored.receipt.number, "dropped by age before this member read it")
        if entry is None or entry.hash() != stored.receipt.entry_hash:
            msg = f"the service gave another entry than its receipt {stored.receipt.number} names"
            raise VerificationError(msg, rule="D-REC-9")
        outcome = self._judge(entry, stored.receipt, now)
        if isinstance(outcome, Committed) and outcome.commit.next is not None:
            return outcome
        self._advance(stored.receipt, entry)
        return outcome

    def take_own(self, entry: api.Entry, opening: api.Receipt) -> Committed:
        """Goes over to the epoch that the own pending Commit began, by the receipt that opened it (D-BOX-15).

        Raises `VerificationError` where the receipt is not the service's, of another epoch or of another entry.
        """
        pending, following = self.group.pending_commit, self._own_next()
        if pending is None or following is None:
            msg = "there is no own Commit that waits"
            raise StateError(msg)
        receipts.verify_opening(self.binding, following, self.state.epoch, opening)
        if opening.entry_hash != entry.hash():
            msg = "the epoch was opened by another entry than the own Commit"
            raise VerificationError(msg, rule="D-BOX-15")
        manifest = api.CommitContent.decode(self.keys.open(entry).content).manifest.tbs
        outcome = self._adopt(pending.commit, manifest, own=True, entry=entry, receipt=opening)
        if not isinstance(outcome, Committed):
            msg = "an own Commit that removes this member cannot be its own"
            raise StateError(msg)
        # The receipt of the bundle went with its epoch; the one that opened the next names it by hash.
        self.state = self.state.replace(opening=opening, head=opening)
        return outcome

    def _chain(self, receipt: api.Receipt) -> None:
        """Receipts chain without gap from the one this member has (D-REC-9)."""
        if self._ahead is None or receipt.encode() not in self._ahead.receipts:
            receipts.verify_receipt(self._receipt_key, receipt)
        head = self.state.head
        if receipt.epoch != self.state.epoch or receipt.number != head.number + 1:
            msg = f"expected receipt {head.number + 1} of the epoch, got {receipt.number}"
            raise VerificationError(msg, rule="D-REC-9")
        if receipt.previous != head.hash():
            raise Evidence(head, receipt, "a receipt names another one before it than it served")

    def see_head(self, head: api.Receipt) -> None:
        """Compares the head that the service names with the own chain, and takes over its signature.

        After a Commit was adopted the opening receipt is known but for its signature, which the service gives here.
        """
        mine = self.state.head
        if head.epoch != self.state.epoch or head.number != mine.number:
            return
        receipts.verify_receipt(self._receipt_key, head)
        if head.hash() != mine.hash():
            raise Evidence(mine, head, f"two receipts with number {head.number}")
        self.state = self.state.replace(head=head)
        if head.number == 0:
            self.state = self.state.replace(opening=head)

    def skip_gone(self, gone: api.Receipt) -> None:
        """Goes on after what retention dropped (D-REC-8)."""
        receipts.verify_receipt(self._receipt_key, gone)
        if gone.epoch != self.state.epoch or gone.number < self.next_number:
            msg = "the service reports as dropped what this member has read"
            raise VerificationError(msg, rule="D-REC-8")
        self._follow(gone)
        self.state = self.state.replace(missed=1)

    def _follow(self, receipt: api.Receipt) -> None:
        self.trail.add(receipt)
        self.state = self.state.at(receipt)

    @property
    def ended(self) -> bool:
        """Whether the epoch has candidates, all of which were void or refused: it takes nothing but another one."""
        return self.state.last_candidate != api.ZERO32

    @property
    def spent(self) -> bool:
        """Whether this member's one candidate of the epoch was refused: only another member can end it (D-VAL-4)."""
        return int(self.group.own_leaf) in self.state.used_leaves

    @property
    def unconfirmed(self) -> bool:
        """Whether the service has not yet shown this member its signature under the newest receipt.

        So it is after a Commit was adopted. An entry that names this head would be void for all (D-REC-11).
        """
        return self.state.head.signature == _UNSIGNED

    @property
    def uncorrected(self) -> bool:
        """Whether the present epoch is one that the committer did not claim, and that is not known to be open yet."""
        return self.state.opening.entry_hash == api.ZERO32

    def corrected(self, answer: api.Appended) -> None:
        """Takes the answer to a correction: who opened the epoch, this member or another before it (D-COR-3).

        Raises `VerificationError` where the answer is not about the present epoch.
        """
        opener, opened = answer.receipt, answer.opened
        if opened is None or (opened.epoch, opened.number) != (self.state.epoch, 0):
            msg = "the service does not say that the epoch is open that a correction asked for"
            raise VerificationError(msg, rule="D-COR-3")
        receipts.verify_receipt(self._receipt_key, opener)
        receipts.verify_receipt(self._receipt_key, opened)
        if (opener.epoch, opener.hash(), opener.entry_hash) != (
            self.state.parent,
            opened.previous,
            opened.entry_hash,
        ):
            msg = "the opening receipt of a corrected epoch is not that of its opener"
            raise VerificationError(msg, rule="D-REC-3")
        self.state = self.state.replace(opening=opened, head=opened)

    def _advance(self, receipt: api.Receipt, entry: api.Entry) -> None:
        self._follow(receipt)
        if entry.header.kind == api.EntryKind.BUNDLE:
            self.state = self.state.replace(last_candidate=receipt.hash())

    def _judge(self, entry: api.Entry, receipt: api.Receipt, now: int) -> Outcome:
        number, kind = receipt.number, entry.header.kind
        if kind == api.EntryKind.BUNDLE:
            bundle = _bundle_of(entry)
            if bundle.last_candidate != self.state.last_candidate:
                raise Evidence(
                    self.state.head, receipt, "a bundle was accepted over a missing candidate"
                )
        if self.group.reinitialized is not None:
            return self._judge_last(entry, receipt)
        if kind in {api.EntryKind.CORRECTION, api.EntryKind.SUCCESSOR}:
            return Void(number, "a correction or successor, which this member does not need")
        try:
            known = None if self._ahead is None else self._ahead.opened.get(id(entry))
            content = self.keys.open(entry) if known is None else known.content
            self._check_head(content.head, receipt)
            if kind == api.EntryKind.BUNDLE:
                return self._judge_bundle(entry, receipt, content, now)
            message = MLSMessage.read(content.content) if known is None else known.message
            return self._judge_message(entry, receipt, content, message, now)
        except (Evidence, StorageError):
            raise
        except CoterieError as error:
            if error.rule == Rule.OWN_MESSAGE_UNKNOWN:
                # Signed with this device's key and not remembered: the profile is a copy that fell behind (D-BOX-8).
                return Stuck(number, "this profile was restored from a copy")
            return Void(number, str(error), getattr(error, "leaf", None))

    def _judge_last(self, entry: api.Entry, receipt: api.Receipt) -> Outcome:
        """After a ReInit nothing is read but its successor (D-SUC-1)."""
        number = receipt.number
        if entry.header.kind != api.EntryKind.SUCCESSOR:
            return Void(number, "the group was reinitialised: nothing is said in it any more")
        try:
            content = self.keys.open(entry)
            self._check_head(content.head, receipt)
        except (Evidence, StorageError):
            raise
        except CoterieError as error:
            return Void(number, str(error))
        if content.kind != api.ContentKind.SUCCESSOR:
            return Void(number, "a successor entry with something else in it")
        return Announced(content.content, number)

    def _check_head(self, head: api.Receipt, receipt: api.Receipt) -> None:
        """The head that a sender saw is one of this chain, or evidence (D-REC-11)."""
        mine = None
        if head.epoch == self.state.epoch:
            mine = self.trail.at(head.number) if head.number else self.state.opening
        # Mostly it is a receipt whose signature was verified when it was read: all bytes are the same. But the opening
        # receipt of an epoch that was just adopted is known without its signature, and without one it is nobody's head.
        known = mine is not None and mine.encode() == head.encode()
        if not known or head.signature == _UNSIGNED:
            receipts.verify_receipt(self._receipt_key, head)
        if head.epoch != self.state.epoch or head.number >= receipt.number:
            msg = "the head inside an entry is not one from before it"
            raise VerificationError(msg, rule="D-REC-11")
        if mine is not None and not known and mine.hash() != head.hash():
            raise Evidence(mine, head, f"two receipts with number {head.number}")

    def _judge_message(
        self,
        entry: api.Entry,
        receipt: api.Receipt,
        content: api.SealedContent,
        message: MLSMessage,
        now: int,
    ) -> Outcome:
        wanted = api.ContentKind.PROPOSAL
        if not isinstance(message.body, PublicMessage):
            wanted = api.ContentKind.APPLICATION
        if content.kind != wanted:
            return Void(receipt.number, "the entry's kind is not that of its message")
        # A proposal is judged like a Commit: by nothing that members may see differently, such as the time.
        data = content.kind == api.ContentKind.APPLICATION
        received = self.group.receive(message, now=now if data else None)
        if isinstance(received, OwnMessage):
            return Sent(entry.hash(), receipt.number)
        if isinstance(received, ApplicationMessage):
            return Data(received, receipt.number)
        if isinstance(received, ProposalReceived):
            return Proposed(received)
        return Void(receipt.number, "a Commit outside of a bundle")

    def _judge_bundle(
        self, entry: api.Entry, receipt: api.Receipt, sealed: api.SealedContent, now: int
    ) -> Outcome:
        """A candidate: void, refused, valid, or a private failure (section 7)."""
        del now  # Nothing about a Commit is judged by the time (D-VAL-6).
        number = receipt.number
        content = self._check_manifest(entry, sealed)
        leaf = content.manifest.tbs.leaf_index
        if leaf in self.state.used_leaves:
            return Void(number, f"a second candidate of leaf {leaf}")
        self.state = self.state.replace(used_leaves=(*self.state.used_leaves, leaf))
        try:
            commit, own = self._commit_of(content)
        except StorageError:
            # What this device's disk does not give is no verdict about anybody's Commit (D-VAL-6).
            raise
        except CoterieError as error:
            if isinstance(error, DecryptionError) or error.rule in PRIVATE_RULES:
                return Stuck(number, str(error), leaf=leaf)
            waiting = self.group.pending_proposals
            if error.rule == Rule.CONFIRMATION_TAG and _has_private_inputs(content.commit, waiting):
                return Stuck(number, str(error), leaf=leaf)
            if error.rule == Rule.PROPOSAL_UNKNOWN and self.state.missed:
                # The proposal may stand where retention was faster than this member (D-VAL-7).
                return Stuck(number, str(error), leaf=leaf)
            return Void(number, str(error), leaf)
        return self._adopt(commit, content.manifest.tbs, own=own, entry=entry, receipt=receipt)

    def _check_manifest(self, entry: api.Entry, sealed: api.SealedContent) -> api.CommitContent:
        """Raises where a bundle is void (D-VAL-3)."""
        if sealed.kind != api.ContentKind.COMMIT:
            raise DecodeError("a bundle without a Commit in it", rule="D-VAL-3")
        content, header = api.CommitContent.decode(sealed.content), entry.header
        tbs, bundle = content.manifest.tbs, _bundle_of(entry)
        fits = (
            (tbs.epoch, tbs.id) == (header.epoch, header.id)
            and (tbs.last_candidate, tbs.next) == (bundle.last_candidate, bundle.next)
            and tbs.head == sealed.head.hash()
            and tbs.commit_hash == api.sha256(content.commit)
        )
        if not fits:
            raise DecodeError("a manifest that is not of its bundle", rule="D-VAL-3")
        leaf = self.group.tree.member(tbs.leaf_index, rule="D-VAL-3")
        self.group.suite.verify_with_label(
            leaf.signature_key,
            api.MANIFEST_LABEL.decode(),
            tbs.encode(),
            content.manifest.signature,
            rule="D-VAL-3",
        )
        return content

    def _commit_of(self, content: api.CommitContent) -> tuple[StagedCommit, bool]:
        message = MLSMessage.read(content.commit)
        body = message.body
        sender = body.content.sender if isinstance(body, PublicMessage) else None
        if sender is None or sender.sender_type != SenderType.MEMBER:
            raise DecodeError("a bundle whose message is no member's Commit", rule="D-VAL-5")
        if sender.leaf_index != content.manifest.tbs.leaf_index:
            raise DecodeError("a Commit by another leaf than its manifest's", rule="D-VAL-5")
        received = self.group.receive(message, now=None)
        if isinstance(received, StagedCommit):
            return received, False
        pending = self.group.pending_commit
        if isinstance(received, OwnMessage) and received.pending and pending is not None:
            return pending.commit, True
        if isinstance(received, OwnMessage):
            msg = "an own Commit of which this client has no record"
            raise DecryptionError(msg, rule=Rule.OWN_MESSAGE_UNKNOWN)
        raise DecodeError("a bundle whose message is no Commit", rule="D-VAL-5")

    def _adopt(
        self,
        commit: StagedCommit,
        manifest: api.ManifestTBS,
        *,
        own: bool,
        entry: api.Entry,
        receipt: api.Receipt,
    ) -> Outcome:
        staged = commit.next
        correct = None
        if staged is None:
            key = self.group.member(self.group.own_leaf).node.signature_key
            if any(member.node.signature_key == key for member in commit.added):
                return Stuck(receipt.number, "this device was added again", added_again=True)
            self.group.adopt(commit)
            return Committed(commit, own, None)
        bundle = _bundle_of(entry)
        following = EpochKeys.derive(staged_exporter(staged), self.binding.log_id)
        if following.access != bundle.next:
            header = self._header(
                api.EntryKind.CORRECTION,
                correction=api.Correction(entry.hash(), following.access),
            )
            bare = api.Entry(header, b"")
            signature = self.keys.sign(api.append_to_be_signed(bare.hash()))
            correct = api.Append(self.binding.log_id, bare, signature)
        pending = self.group.pending_commit
        sent = pending.welcomes if own and pending is not None else ()
        old, new = self.group.tree, staged.epoch.tree
        if own and pending is not None:
            change = self.next_state(pending)
        else:
            change = self.shared.change(old, new, following.state_secret)
        fits = (change.root_address, change.added) == (manifest.state_root, bundle.added)
        self.shared.apply(change, old, new)
        self._next_state = None
        self.group.adopt(commit)
        parent = self.state.epoch
        name = following.name(parent)
        # The service signs the opening receipt when it is asked; until then only what must stand in it is known.
        opening = api.Receipt(name, 0, receipt.hash(), entry.hash(), _UNSIGNED)
        if correct is not None:
            # Whoever corrects first opens it: `corrected` tells.
            opening = api.Receipt(name, 0, api.ZERO32, api.ZERO32, _UNSIGNED)
        self.state = LineState(parent, name, opening, opening, api.ZERO32, ())
        self.trail = Trail()
        self._keys, self._ahead = following, None
        self.binding = read_binding(self.group.context.extensions)
        return Committed(commit, own, correct, sent, fits)


def _bundle_of(entry: api.Entry) -> api.Bundle:
    """The visible part of a bundle; an entry of that kind does not decode without one."""
    if entry.header.bundle is None:
        raise DecodeError("an entry that is no bundle", rule="D-ENT-5")
    return entry.header.bundle


def _has_private_inputs(commit: bytes, waiting: Iterable[CommittedProposal] = ()) -> bool:
    """Whether a failed confirmation tag may be one's own failure: after a path or a PSK (D-VAL-8, D-VAL-9).

    `waiting` are the proposals to which the Commit may refer; the tag is looked at only where all of them are known.
    """
    body = MLSMessage.read(commit).body
    if not isinstance(body, PublicMessage) or not isinstance(body.content.body, Commit):
        return False
    content = body.content.body
    by_reference = {entry.reference: entry.proposal for entry in waiting}
    proposals = [
        item.content if isinstance(item.content, Proposal) else by_reference.get(item.content)
        for item in content.proposals
    ]
    return content.path is not None or any(
        proposal is None or isinstance(proposal.content, PreSharedKey) for proposal in proposals
    )


def staged_exporter(staged: StagedEpoch) -> EpochExporter:
    """The exporter of an epoch that is not adopted yet."""
    return EpochExporter(staged)


@dataclass(frozen=True, slots=True, repr=False)
class EpochExporter:
    """`Group.export_secret` for a staged epoch."""

    staged: StagedEpoch

    def __call__(self, label: str, context: bytes, length: int) -> Secret:
        """A secret of `length` bytes."""
        epoch = self.staged.epoch
        return exported_secret(epoch.suite, epoch.secrets.exporter_secret, label, context, length)
