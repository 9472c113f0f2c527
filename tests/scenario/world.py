"""A small world in which groups live: clients with stores, one ordered log, application messages beside it.

The log is what a Delivery Service would keep: handshake messages in the order in which it accepted them, of each epoch
the first Commit. Members read it at their own pace. Every step of a group is saved as deltas into the member's store.
What ought to hold is checked against `truth`: what the first member that came to an epoch saw there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TypeVar

from coterie.errors import CoterieError, DecryptionError, EpochError, RuleViolation
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import (
    Capabilities,
    Extension,
    ExternalSender,
    ExternalSenders,
    capabilities,
)
from coterie.mls.framing import MLSMessage, PublicMessage
from coterie.mls.group import (
    ApplicationMessage,
    Config,
    Group,
    Limits,
    OwnMessage,
    PendingCommit,
    StagedCommit,
)
from coterie.mls.group_context import GroupContext, PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle, VerifiedKeyPackage, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Commit
from coterie.mls.public_group import PublicCommit, PublicGroup
from coterie.mls.rules import Rule
from coterie.mls.treekem import PATH_LABEL
from coterie.mls.types import ExtensionType, WireFormat
from coterie.mls.validation import CustomProposal
from coterie.testing import Clock, MemoryStore, Randomness
from tests.scenario.held import Watch

T = TypeVar("T")

CUSTOM = 0xF001
GROUP_NAME = 0xF002
PAST_EPOCHS = 2
PSKS = {b"first": b"1" * 32, b"second": b"2" * 32}


def find_psk(psk: PreSharedKeyID) -> bytes | None:
    return PSKS.get(psk.psk_id or b"")


@dataclass
class Client:
    """Somebody with a name and a signature key, member or not."""

    name: bytes
    suite: Suite
    config: Config
    key: SignaturePrivateKey

    @property
    def credential(self) -> Credential:
        return Credential.basic(self.name)

    def move_to(self, suite: Suite) -> None:
        """Gets a signature key of a suite, where it has one of another."""
        if suite is not self.suite:
            self.suite, self.key = suite, suite.generate_signature_key(self.config.rng)

    def capabilities(self) -> Capabilities:
        return capabilities(
            cipher_suites=[self.suite.cipher_suite],
            proposals=[CUSTOM],
            extensions=[GROUP_NAME],
            rng=self.config.rng,
        )

    def package(self, now: int) -> KeyPackageBundle:
        return create_key_package(
            self.suite,
            self.key,
            self.credential,
            self.capabilities(),
            lifetime(now),
            rng=self.config.rng,
        )


def lifetime(now: int) -> Lifetime:
    return Lifetime(now - 3600, now + 30 * 24 * 3600)


@dataclass
class Truth:
    """What all who are in an epoch must see."""

    context: bytes
    tree: bytes
    authenticator: bytes
    exported: bytes
    names: frozenset[bytes]

    @classmethod
    def of(cls, group: Group) -> Truth:
        return cls(
            group.context.encode(),
            group.tree.encode(),
            group.epoch_authenticator,
            bytes(group.export_secret("test", b"context", 32)),
            frozenset(member.credential.identity for member in group.members()),
        )


@dataclass
class Sent:
    """An application message, and who has read it."""

    sender: int
    epoch: int
    text: bytes
    data: bytes
    read_by: set[int] = field(default_factory=set)


@dataclass
class Entry:
    """A handshake message that the service accepted."""

    epoch: int
    data: bytes
    commit: bool


@dataclass
class Seat:
    """One stay of a client in the group."""

    number: int
    client: Client
    group: Group
    cursor: int
    joined: int
    store: MemoryStore = field(default_factory=MemoryStore)
    lost: bool = False
    """A proposal of the present epoch never arrived."""
    stuck: bool = False
    """A Commit cannot be processed for want of it."""
    watch: Watch = field(default_factory=Watch)

    def save(self) -> None:
        self.store.apply(self.group.save())

    def restart(self) -> None:
        self.group = Group.load(self.store.entries(), self.store, self.client.config)


class World:
    """Everybody, the log, and what is true."""

    def __init__(self, suite: int, seed: int = 0, *, private: bool = True) -> None:
        self.suite = suite_of(suite)
        self.rng = Randomness(seed)
        self.clock = Clock()
        self.waiting_room: dict[bytes, tuple[Client, KeyPackageBundle]] = {}
        self.seen = Counter[str]()
        self._seat_numbers = count()
        self._client_numbers = count()
        self._group_numbers = count()
        self.outside = self.suite.generate_signature_key(self.rng)
        self.found(self.new_client(private=private))

    def found(self, founder: Client) -> None:
        """A new group with one member; what was before is forgotten."""
        founder.move_to(self.suite)
        group = Group.create(
            self.fresh_id(),
            self.suite,
            founder.key,
            founder.credential,
            founder.capabilities(),
            founder.config,
            lifetime=lifetime(self.clock()),
            extensions=self.group_extensions(b"the first name"),
        )
        self.move([founder], [group])

    def move(self, clients: list[Client], groups: list[Group]) -> None:
        """These clients are in a new group now, all in its present epoch."""
        self.seats: dict[int, Seat] = {}
        self.ghosts: list[Group] = []
        self.log: list[Entry] = []
        self.sent: list[Sent] = []
        self.waiting_room.clear()
        first = groups[0]
        self.epoch = first.epoch
        self.truth = {first.epoch: Truth.of(first)}
        for client, group in zip(clients, groups, strict=True):
            self.sit(client, group)
        info = MLSMessage.read(first.group_info().encode())
        self.observer: PublicGroup | None = PublicGroup.follow(info, clients[0].config.policy())

    def change_suite(self, suite: int) -> None:
        """The next group has another suite, and everybody keys of that."""
        if self.suite.cipher_suite == suite:
            return
        self.suite = suite_of(suite)
        self.outside = self.suite.generate_signature_key(self.rng)
        for seat in self.seats.values():
            seat.client.move_to(self.suite)

    # -- people

    def fresh_id(self) -> bytes:
        return b"group %d" % next(self._group_numbers)

    def new_client(self, *, private: bool) -> Client:
        config = Config(
            AcceptAnything(),
            Limits(private_handshakes=private, max_past_epochs=PAST_EPOCHS),
            custom_proposals={CUSTOM: CustomProposal(path_required=False)},
            psk=find_psk,
            rng=self.rng,
        )
        name = b"client %d" % next(self._client_numbers)
        return Client(name, self.suite, config, self.suite.generate_signature_key(self.rng))

    def group_extensions(self, name: bytes) -> tuple[Extension, ...]:
        senders = ExternalSenders(
            (ExternalSender(self.outside.public, Credential.basic(b"the outside")),)
        )
        return (
            Extension(ExtensionType(GROUP_NAME), name),
            Extension(ExtensionType.EXTERNAL_SENDERS, senders.encode()),
        )

    def sit(self, client: Client, group: Group) -> Seat:
        seat = Seat(next(self._seat_numbers), client, group, len(self.log), group.epoch)
        self.seats[seat.number] = seat
        seat.save()
        return seat

    def present(self) -> list[Seat]:
        """Those who have come to the present epoch, which may be the last one."""
        return [
            seat
            for seat in self.seats.values()
            if seat.group.epoch == self.epoch and not seat.stuck
        ]

    # -- the log

    def accept(self, epoch: int, message: MLSMessage, *, commit: bool) -> bool:
        """The service takes a message of the present epoch, of Commits the first."""
        if epoch != self.epoch:
            return False
        data = message.encode()
        self.log.append(Entry(epoch, data, commit))
        if commit:
            self.epoch += 1
        self.observe(data)
        return True

    def observe(self, data: bytes) -> None:
        """The observer sees what is public, and gives up at the first encrypted Commit."""
        if self.observer is None:
            return
        if MLSMessage.read(data).wire_format != WireFormat.MLS_PUBLIC_MESSAGE:
            self.observer = None
            return
        seen = self.observer.receive(data, now=self.clock())
        if isinstance(seen, PublicCommit):
            self.observer.adopt(seen)
            self.seen["observed commit"] += 1

    def read(self, seat: Seat, most: int = 1 << 30) -> None:
        """A member reads on in the log."""
        while most and seat.cursor < len(self.log) and not seat.stuck:
            entry = self.log[seat.cursor]
            most -= 1
            refused = attempt(partial(self.process, seat, entry))
            if refused is not None:
                assert isinstance(refused, RuleViolation), refused
                assert refused.rule == Rule.PROPOSAL_UNKNOWN
                assert seat.lost, "a proposal is unknown that was not lost"
                seat.stuck = True
                seat.save()
                return
            seat.cursor += 1
            if seat.number not in self.seats:
                return

    def process(self, seat: Seat, entry: Entry) -> None:
        group = seat.group
        received = group.receive(entry.data, now=self.clock())
        seat.save()
        if isinstance(received, OwnMessage) and entry.commit:
            assert received.pending
            pending = group.pending_commit
            assert pending is not None
            group.adopt(pending, now=self.clock())
        elif isinstance(received, StagedCommit):
            self.seen["updated"] += any(m.leaf == group.own_leaf for m in received.updated)
            if received.removes_self:
                self.leave(seat, entry)
                return
            self.seen["opened path"] += self.opens_path(group, entry)
            group.adopt(received, now=self.clock())
        if entry.commit:
            seat.lost = False
        seat.save()

    def leave(self, seat: Seat, entry: Entry) -> None:
        """A member was removed: the state it had is kept as a ghost, which must learn nothing more."""
        ghost = Group.load(seat.store.entries(), seat.store.copy(), seat.client.config)
        self.ghosts.append(ghost)
        del self.seats[seat.number]
        self.seen["removed"] += 1
        assert not self.opens_path(ghost, entry), "a removed member's key opens the new path"

    def opens_path(self, group: Group, entry: Entry) -> bool:
        """Whether a private key that a group has before a Commit opens any path secret of it."""
        body = MLSMessage.read(entry.data).body
        if not isinstance(body, PublicMessage) or not isinstance(body.content.body, Commit):
            return False
        path = body.content.body.path
        if path is None:
            return False
        private = group._epoch.private
        # What path secrets are sealed to: the new epoch's context, but for the Commit's own hash.
        context = GroupContext.decode(self.truth[entry.epoch + 1].context).replace(
            confirmed_transcript_hash=group.context.confirmed_transcript_hash
        )
        for key in (private.leaf_key, *private.parents.values()):
            for node in path.nodes:
                for sealed in node.encrypted_path_secret:
                    try:
                        group.suite.decrypt_with_label(
                            key, PATH_LABEL, context.encode(), sealed.kem_output, sealed.ciphertext
                        )
                    except DecryptionError:
                        continue
                    return True
        return False

    # -- Commits

    def submit(self, seat: Seat) -> bool:
        """The pending Commit goes to the service; whoever it adds joins when it was accepted."""
        pending = seat.group.pending_commit
        assert pending is not None
        if not self.accept(pending.commit.epoch, pending.message, commit=True):
            self.seen["lost race"] += 1
            return False
        self.read(seat)
        self.truth[seat.group.epoch] = Truth.of(seat.group)
        self.welcome(seat, pending)
        return True

    def welcome(self, seat: Seat, pending: PendingCommit) -> None:
        """Everybody whom a Commit adds finds the one Welcome that is for it."""
        tree = seat.group.tree.encode()
        for member in pending.commit.added:
            client, bundle = self.waiting_room.pop(member.credential.identity)
            tried = [
                attempt(partial(Group.join, w, bundle, client.config, tree=tree))
                for w in (MLSMessage.read(each.encode()) for each in pending.welcomes)
            ]
            joined = [group for group in tried if isinstance(group, Group)]
            others = [error for error in tried if isinstance(error, CoterieError)]
            assert len(joined) == 1, others
            assert all(error.rule == Rule.WELCOME_KEY_PACKAGE for error in others), others
            self.sit(client, joined[0])
            self.seen["joined"] += 1

    def invite(self) -> VerifiedKeyPackage:
        """A new client's verified key package; it joins where somebody adds it."""
        client = self.new_client(private=bool(self.rng(1)[0] & 1))
        bundle = client.package(self.clock())
        self.waiting_room[client.name] = (client, bundle)
        return bundle.key_package.validate(
            self.suite, client.config.authenticator, now=self.clock()
        )

    # -- what must hold

    def check(self) -> None:
        """All who are in an epoch agree; a member holds what it says it holds."""
        for seat in self.seats.values():
            assert Truth.of(seat.group) == self.truth[seat.group.epoch]
            self.check_held(seat)
            seat.watch.check(seat.group)
        if self.observer is not None:
            assert self.observer.context.encode() == self.truth[self.epoch].context
            assert self.observer.tree.encode() == self.truth[self.epoch].tree

    def check_held(self, seat: Seat) -> None:
        """`secrets_held` names as many secrets as are stored, of no epoch that is too old."""
        kinds = Counter[bytes]()
        for key in seat.store.data:
            name = key.split(b"/")
            if name[0] == b"s":
                kinds[b"s"] += 2 if name[2].startswith(b"s") else 1
            else:
                kinds[name[0]] += 1
        held = Counter[bytes]()
        for secret in seat.group.secrets_held():
            held[_stored_as(secret.what, late=secret.epoch < seat.group.epoch)] += 1
            if secret.what != "resumption key":
                assert secret.epoch >= seat.group.epoch - PAST_EPOCHS
        for kind in (b"s", b"k", b"u", b"e", b"c"):
            assert held[kind] == kinds[kind], (kind, held, kinds)

    def deliver(self, seat: Seat, sent: Sent) -> None:
        """An application message arrives, maybe late, twice, or where it should not; the right thing must happen."""
        group = seat.group
        received = attempt(lambda: group.receive(sent.data, now=self.clock()))
        seat.save()
        if isinstance(received, EpochError):
            assert not self.within_reach(seat, sent)
            assert received.stale == (sent.epoch < group.epoch)
            return
        assert self.within_reach(seat, sent)
        if isinstance(received, DecryptionError):
            assert received.rule == Rule.GENERATION_USED, received
            assert seat.number in sent.read_by
            return
        if isinstance(received, OwnMessage):
            assert sent.sender == seat.number
            return
        assert isinstance(received, ApplicationMessage)
        assert sent.sender != seat.number
        assert seat.number not in sent.read_by
        assert received.data == sent.text
        sent.read_by.add(seat.number)
        self.seen["read"] += 1

    @staticmethod
    def within_reach(seat: Seat, sent: Sent) -> bool:
        """Whether this stay of a member gives it the keys of a message."""
        epoch = seat.group.epoch
        return max(seat.joined, epoch - PAST_EPOCHS) <= sent.epoch <= epoch

    def haunt(self) -> None:
        """No removed member opens what was sent after its removal."""
        for ghost in self.ghosts:
            for sent in self.sent:
                if sent.epoch > ghost.epoch:
                    try:
                        ghost.receive(sent.data)
                    except EpochError:
                        continue
                    raise AssertionError("a removed member opened a later message")


def attempt(call: Callable[[], T]) -> T | CoterieError:
    """What a call returns, or the error of ours that it raises."""
    try:
        return call()
    except CoterieError as error:
        return error


def _stored_as(what: str, *, late: bool) -> bytes:
    """Under which prefix a secret that is held is stored; the epoch's own secrets are all in one entry."""
    if what == "resumption key":
        return b"k"
    if what == "keys of an own Update":
        return b"u"
    if what == "the pending epoch":
        return b"c"
    if what.startswith(("secret tree", "handshake", "application", "skipped")):
        return b"s"
    return b"e" if what == "sender_data_secret" and late else b"g"
