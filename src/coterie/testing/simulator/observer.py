"""What a simulation records behind everybody's back: who adopted what, who was blamed, which keys served.

The methods of the real classes are wrapped while a simulation runs; nothing that they do changes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from coterie.client import box, chunks
from coterie.client.epoch_keys import EpochKeys
from coterie.client.identity import Package, read_key_package
from coterie.client.line import Line
from coterie.client.outcomes import Committed, Data, Evidence, Proposed, Void
from coterie.client.reading import Reading
from coterie.client.returning import Returning
from coterie.client.vault import Step
from coterie.mls.framing import MLSMessage
from coterie.mls.group import Group, StagedCommit
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.secret_tree import SecretTree
from coterie.transport import api


@dataclass(frozen=True, slots=True)
class Adopted:
    """A member went from one epoch to the next."""

    label: str
    parent: bytes
    entry_hash: bytes
    epoch: bytes
    authenticator: bytes


@dataclass(frozen=True, slots=True)
class Blamed:
    """A member was told that another one's Commit is invalid."""

    by: str
    whom: str
    why: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A member learnt that a Commit had removed it or another."""

    entry_hash: bytes
    whom: str


@dataclass(slots=True)
class Observer:
    """Everything that was recorded."""

    dishonest: frozenset[str] = frozenset()
    adopted: list[Adopted] = field(default_factory=list)
    blamed: list[Blamed] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    evidence: list[tuple[str, Evidence]] = field(default_factory=list)
    receipts: dict[str, dict[tuple[bytes, int], api.Receipt]] = field(default_factory=dict)
    """What each member verified, by epoch and number: the history that it has now."""
    verified: dict[str, dict[tuple[bytes, int], set[api.Receipt]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    """All that each member ever verified, also before a copy of it was restored."""
    keys: dict[str, dict[bytes, EpochKeys]] = field(default_factory=dict)
    """The epoch keys that each member ever had, by epoch."""
    served: dict[str, dict[bytes, set[bytes]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    """The entries (by hash) that came to the service under each message key and envelope key.

    What a crash or the network stopped on its way nobody has, and a copy of the device may seal another with its key.
    """
    sealed: dict[bytes, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """What was sealed (by hash) under each key of a chunk, and each encapsulated key of a box or inbox."""
    judged: Counter[tuple[str, bytes, int]] = field(default_factory=Counter)
    """How many Commits of a leaf a member judged in an epoch, those it refused."""
    outcomes: Counter[str] = field(default_factory=Counter)
    accepted: dict[bytes, int] = field(default_factory=dict)
    """The order in which the service accepted entries."""
    asked: dict[str, set[bytes]] = field(default_factory=dict)
    """The key packages (by hash) with which each device asked to be added again."""
    moved: dict[tuple[str, bytes], set[bytes]] = field(default_factory=dict)
    """The Commits that removed and added a device at once, by the device and the package's hash."""
    added: dict[str, dict[bytes, str]] = field(default_factory=dict)
    """The Commits that added a device which was not in the group, each with the user who made it."""
    entered: dict[str, set[bytes]] = field(default_factory=dict)
    """The leaves (by encryption key) as which each device came in by a Welcome."""
    declined: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """The leaves (by encryption key) of which each member has read that their devices do not come."""
    brought_back: list[str] = field(default_factory=list)
    """What members did to add such a device anew."""
    _sealed_with: dict[bytes, tuple[bytes, bytes | None]] = field(default_factory=dict)
    _last_message_key: bytes | None = None
    forging: bool = False
    """While an adversary makes what it does not store: its own keys are its own business."""
    mixed: list[str] = field(default_factory=list)
    """What members took from somebody whose history is not theirs."""
    by_outsiders: set[bytes] = field(default_factory=set)
    """Entries that an adversary made: what it reads in them it knew before."""
    missed: Counter[str] = field(default_factory=Counter)
    """How often retention was faster than a member."""
    restored: Counter[str] = field(default_factory=Counter)
    """How often a device fell back to a copy."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wraps what is watched."""
        with ExitStack() as stack:
            for owner, name, wrapper in (
                (Line, "take", self._take),
                (Line, "skip_gone", self._skip),
                (EpochKeys, "append", self._append),
                (SecretTree, "next_sending", self._sending),
                (box, "signed_request", self._asking),
                (chunks, "seal_chunk", self._sealing),
                (Line, "opened", self._opened),
                (Reading, "_stop", self._stop),
                (Returning, "_take_decline", self._declining),
                (Group, "commit", self._committing),
            ):
                stack.enter_context(mock.patch.object(owner, name, wrapper(getattr(owner, name))))
            yield

    def _take(self, real: Any) -> Any:  # noqa: ANN401 - a method of Line
        def take(line: Line, stored: api.StoredEntry, *, now: int) -> Any:  # noqa: ANN401 - Outcome
            label = label_of(line)
            before, keys = line.state, line.keys
            self.keys.setdefault(label, {})[before.epoch] = line.keys
            members = {int(m.leaf): m.node.credential.identity for m in line.group.members()}
            outcome = real(line, stored, now=now)
            number, receipts = stored.receipt.number, self.receipts.setdefault(label, {})
            receipts[(before.epoch, number)] = stored.receipt
            self.verified[label][(before.epoch, number)].add(stored.receipt)
            # What was read before a copy was restored is not the history that this member has now.
            while receipts.pop((before.epoch, number := number + 1), None):
                pass
            self.outcomes[type(outcome).__name__] += 1
            if isinstance(outcome, Data | Proposed | Committed):
                self._compare(label, keys, stored)
            self._note(label, members, before.epoch, stored, line, outcome)
            return outcome

        return take

    def _compare(self, label: str, keys: EpochKeys, stored: api.StoredEntry) -> None:
        """Whether the sender of what a member took had seen what the member has seen, up to the sender's head."""
        if stored.entry is None:
            return
        bundle = stored.entry.header.bundle
        if bundle is not None and bundle.last_candidate != api.ZERO32:
            epoch, last = stored.receipt.epoch, stored.receipt.number
            read = self.receipts[label].items()
            seen = {receipt.hash() for (e, n), receipt in read if e == epoch and n < last}
            if bundle.last_candidate not in seen:
                self.mixed.append(f"{label} adopted a Commit over a candidate that it has not seen")
        head = keys.open(stored.entry).head
        mine = self.receipts[label].get((head.epoch, head.number))
        if mine is not None and mine.hash() != head.hash():
            self.mixed.append(
                f"{label} took entry {stored.receipt.number}, sent after another {head.number}"
            )

    def _note(
        self,
        label: str,
        members: dict[int, bytes],
        epoch: bytes,
        stored: api.StoredEntry,
        line: Line,
        outcome: Any,  # noqa: ANN401 - Outcome
    ) -> None:
        entry_hash = stored.receipt.entry_hash
        match outcome:
            case Committed() if outcome.commit.next is not None:
                self.adopted.append(
                    Adopted(
                        label,
                        epoch,
                        entry_hash,
                        line.state.epoch,
                        line.group.epoch_authenticator,
                    )
                )
                self.keys[label][line.state.epoch] = line.keys
                for member in outcome.commit.removed:
                    self.removals.append(Removal(entry_hash, name_of(member.node.credential)))
                self._note_moved(entry_hash, outcome.commit)
            case Committed():
                self.removals.append(Removal(entry_hash, label))
            case Void(leaf=int() as leaf):
                whom = members[leaf].decode().rpartition("/")[2]
                self.blamed.append(Blamed(label, whom, outcome.why))
                self.judged[(label, epoch, leaf)] += 1
            case _:
                pass

    def _stop(self, real: Any) -> Any:  # noqa: ANN401 - a method of Reading
        def stop(conversation: Reading, evidence: Evidence) -> None:
            label = name_of(conversation._tools.identity.credential)  # noqa: SLF001 - whose it is
            self.evidence.append((label, evidence))
            real(conversation, evidence)

        return stop

    def _declining(self, real: Any) -> Any:  # noqa: ANN401 - a method of Returning
        def take_decline(
            conversation: Returning,
            step: Step,
            line: Line,
            request: api.RequestContent,
        ) -> bool:
            taken: bool = real(conversation, step, line, request)
            if taken:
                package = read_key_package(request.tbs.key_package)
                self.declined[label_of(line)].add(package.leaf_node.encryption_key)
            return taken

        return take_decline

    def _committing(self, real: Any) -> Any:  # noqa: ANN401 - a method of Group
        def commit(group: Group, proposals: Sequence[Any] = (), **options: Any) -> Any:  # noqa: ANN401
            label = name_of(group.member(group.own_leaf).node.credential)
            contents = [p.content for p in proposals if isinstance(p, Proposal)]
            out = [group.member(r.removed).node for r in contents if isinstance(r, Remove)]
            gone = {name_of(n.credential) for n in out if n.encryption_key in self.declined[label]}
            adds = [a.key_package.leaf_node for a in contents if isinstance(a, Add)]
            for whom in sorted(gone & {name_of(node.credential) for node in adds}):
                self.brought_back.append(f"{label} adds {whom} anew, who declined")
            return real(group, proposals, **options)

        return commit

    def _note_moved(self, entry_hash: bytes, commit: StagedCommit) -> None:
        went = {name_of(member.credential) for member in commit.removed}
        by = commit.committer.credential.identity.decode().partition("/")[0]
        for member in commit.added:
            if (whom := name_of(member.credential)) not in went:
                self.added.setdefault(whom, {})[entry_hash] = by
        committer = name_of(commit.committer.credential)
        if committer in self.dishonest:
            return
        out = {
            name
            for member in commit.removed
            if member.node.encryption_key
            in self.entered.get(name := name_of(member.credential), ())
        }
        for proposal in commit.proposals:
            add = proposal.proposal.content
            if isinstance(add, Add) and name_of(add.key_package.leaf_node.credential) in out:
                package = api.sha256(MLSMessage.of(add.key_package).encode())
                whom = name_of(add.key_package.leaf_node.credential)
                if self.restored[committer] and by in self.added.get(whom, {}).values():
                    continue  # A copy does not know that the Welcome of its Add was sent (D-INB-11).
                self.moved.setdefault((whom, package), set()).add(entry_hash)

    def _sealing(self, real: Any) -> Any:  # noqa: ANN401 - a function of chunks
        def seal_chunk(content: api.ChunkContent, key: bytes) -> bytes:
            data: bytes = real(content, key)
            if not self.forging:
                self.sealed[bytes(key)].add(api.sha256(data))
            return data

        return seal_chunk

    def arrived(self, request: api.Append) -> None:
        """An entry has come as far as the service."""
        entry_hash = request.entry.hash()
        envelope_key, message_key = self._sealed_with.get(entry_hash, (None, None))
        if envelope_key is not None:
            self.served["an envelope key"][envelope_key].add(entry_hash)
        if message_key is not None:
            self.served["a message key"][message_key].add(entry_hash)

    def posted(self, request: api.PostEnvelope | api.SealedRequest) -> None:
        """Somebody posted what is sealed with HPKE."""
        self.sealed[request.kem_output].add(api.sha256(request.ciphertext))

    def _opened(self, real: Any) -> Any:  # noqa: ANN401 - a class method of Line
        def opened(*args: Any) -> Line:
            line: Line = real(*args)
            own = line.group.member(line.group.own_leaf)
            self.entered.setdefault(label_of(line), set()).add(own.node.encryption_key)
            return line

        return opened

    def _asking(self, real: Any) -> Any:  # noqa: ANN401 - a function of box
        def signed_request(package: Package, tbs: api.RequestTBS) -> api.RequestContent:
            label = name_of(package.bundle.key_package.leaf_node.credential)
            if not self.forging:
                self.asked.setdefault(label, set()).add(api.sha256(tbs.key_package))
            content: api.RequestContent = real(package, tbs)
            return content

        return signed_request

    def _append(self, real: Any) -> Any:  # noqa: ANN401 - a method of EpochKeys
        def append(keys: EpochKeys, header: api.EntryHeader, content: api.SealedContent) -> Any:  # noqa: ANN401
            made: api.Append = real(keys, header, content)
            if not self.forging:
                key = bytes(keys.envelope_secret) + header.id
                self._sealed_with[made.entry.hash()] = (key, self._last_message_key)
                self._last_message_key = None
            return made

        return append

    def _skip(self, real: Any) -> Any:  # noqa: ANN401 - a method of Line
        def skip_gone(line: Line, gone: api.Receipt) -> None:
            self.missed[label_of(line)] += 1
            real(line, gone)

        return skip_gone

    def _sending(self, real: Any) -> Any:  # noqa: ANN401 - a method of SecretTree
        def next_sending(tree: SecretTree, leaf: Any, kind: Any) -> Any:  # noqa: ANN401
            found = real(tree, leaf, kind)
            if not self.forging:
                self._last_message_key = bytes(found.key) + bytes(found.nonce)
            return found

        return next_sending


def name_of(credential: Any) -> str:  # noqa: ANN401 - Credential
    """The device that a simulation's credential names."""
    device: str = credential.identity.decode().rpartition("/")[2]
    return device


def label_of(line: Line) -> str:
    """Whose place in the log it is."""
    return name_of(line.group.member(line.group.own_leaf).node.credential)
