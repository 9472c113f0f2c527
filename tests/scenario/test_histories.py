"""Random histories of a group: whatever happens in whatever order, those in an epoch agree, and nobody else knows.

The rules are what clients, the service and the network do; `World` knows what must be true after each. A short run is
part of `make test`; `make histories` (or COTERIE_HISTORIES with a number of examples) runs longer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from coterie.errors import CoterieError, EpochError, RuleViolation, StateError
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.external import external_proposal, new_member_add
from coterie.mls.framing import MLSMessage
from coterie.mls.group import (
    ApplicationMessage,
    CommitOptions,
    ExternalJoin,
    Group,
    OwnMessage,
    PendingCommit,
)
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import VerifiedKeyPackage
from coterie.mls.proposal import Add, PreSharedKey, Proposal, ReInit, Remove
from coterie.mls.types import CipherSuite, ProtocolVersion
from tests.scenario.world import CUSTOM, PSKS, Client, Seat, Sent, Truth, World, attempt, lifetime

MOST_MEMBERS = 12
LONG = "COTERIE_HISTORIES" in os.environ
EXAMPLES = int(os.environ.get("COTERIE_HISTORIES", "30"))
STEPS = 100 if LONG else 50
# Mostly the mandatory suite: the others differ in their primitives, and some of those are slow.
SUITES = st.sampled_from((1,) * 12 + (2, 3, 4, 5, 6, 7))
PICK = st.integers(0, 2**16)


class UsedKeys:
    """The keys that sealed something in the present history: one that seals twice fails it, whatever the nonce."""

    keys: ClassVar[set[bytes]] = set()

    @classmethod
    def watch(cls, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wraps the suites' sealing."""
        seal = Suite.aead_seal

        def seal_once(
            suite: Suite, key: bytes, nonce: bytes, aad: bytes, plaintext: bytes
        ) -> bytes:
            assert bytes(key) not in cls.keys, "a key encrypts a second message"
            cls.keys.add(bytes(key))
            return seal(suite, key, nonce, aad, plaintext)

        monkeypatch.setattr(Suite, "aead_seal", seal_once)


class Histories(RuleBasedStateMachine):
    """What may happen to a group of up to twelve."""

    world: World

    @initialize(suite=SUITES, seed=st.integers(0, 2**32), private=st.booleans())
    def found(self, suite: int, seed: int, private: bool) -> None:
        UsedKeys.keys.clear()
        self.world = World(suite, seed, private=private)
        seat = next(iter(self.world.seats.values()))
        for _ in range(3):
            self._commit(seat, [Proposal.of(Add(self.world.invite().key_package))])

    # -- who

    def _seat(self, pick: int) -> Seat:
        seats = list(self.world.seats.values())
        return seats[pick % len(seats)]

    def _active(self, pick: int) -> Seat | None:
        """Somebody who can act: mostly one who has read everything, sometimes one who is behind."""
        seat = self._seat(pick)
        if pick % 4:
            self.world.read(seat)
        gone = seat.number not in self.world.seats
        return None if gone or seat.stuck or not seat.group.is_active else seat

    def _room(self) -> bool:
        return len(self.world.truth[self.world.epoch].names) < MOST_MEMBERS - 2

    # -- application messages

    @rule(pick=PICK, size=st.integers(0, 300))
    def send(self, pick: int, size: int) -> None:
        """Anybody speaks, also who is behind; it needs that no proposal waits."""
        seat = self._seat(pick)
        text = b"message %d " % len(self.world.sent) + b"x" * size
        if not seat.group.is_active or seat.group.pending_proposals:
            with pytest.raises(StateError):
                seat.group.encrypt(text)
            return
        data = seat.group.encrypt(text).encode()
        seat.save()
        self.world.sent.append(Sent(seat.number, seat.group.epoch, text, data))

    @rule(reader=PICK, picks=st.lists(PICK, min_size=1, max_size=6))
    def deliver(self, reader: int, picks: list[int]) -> None:
        """Messages arrive late, twice, out of order, or never."""
        seat = self._seat(reader)
        for pick in picks:
            if self.world.sent:
                self.world.deliver(seat, self.world.sent[-1 - pick % len(self.world.sent)])

    @rule(reader=PICK)
    def deliver_latest(self, reader: int) -> None:
        for sent in self.world.sent[-5:]:
            self.world.deliver(self._seat(reader), sent)

    @rule(reader=PICK)
    def junk(self, reader: int) -> None:
        """A message with one byte changed is refused, and its key is still good for the true one."""
        if not self.world.sent:
            return
        sent, seat = self.world.sent[-1], self._seat(reader)
        place = self.world.rng(1)[0] % 64 + 1
        data = (
            sent.data[:-place]
            + bytes((sent.data[-place] ^ 1,))
            + sent.data[len(sent.data) - place + 1 :]
        )
        with pytest.raises(CoterieError):
            seat.group.receive(data)
        seat.save()
        self.world.deliver(seat, sent)

    # -- proposals

    def _propose(self, seat: Seat, make: Callable[[Group], MLSMessage]) -> None:
        message = make(seat.group)
        seat.save()
        self.world.accept(seat.group.epoch, message, commit=False)

    @rule(pick=PICK, new_key=st.booleans())
    def propose_update(self, pick: int, new_key: bool) -> None:
        seat = self._active(pick)
        if seat is None:
            return
        key = self.world.suite.generate_signature_key(self.world.rng) if new_key else None
        self._propose(seat, lambda group: group.propose_update(signature_key=key))
        if pick % 2:
            seat.restart()

    @rule(pick=PICK, whom=PICK)
    def propose_remove(self, pick: int, whom: int) -> None:
        seat = self._active(pick)
        if seat is None:
            return
        members = list(seat.group.members())
        victim = members[whom % len(members)].leaf
        self._propose(seat, lambda group: group.propose_remove(victim))

    @rule(pick=PICK)
    def propose_add(self, pick: int) -> None:
        seat = self._active(pick)
        if seat is None or not self._room():
            return
        package = self.world.invite()
        self._propose(seat, lambda group: group.propose_add(package, now=self.world.clock()))

    @rule(pick=PICK, what=st.sampled_from(("psk", "name", "custom")))
    def propose_other(self, pick: int, what: str) -> None:
        seat = self._active(pick)
        if seat is None:
            return
        group = seat.group
        if what == "psk":
            name = sorted(PSKS)[pick % len(PSKS)]
            self._propose(seat, lambda group: group.propose_psk(group.external_psk(name)))
        elif what == "name":
            extensions = self.world.group_extensions(b"name %d" % pick)
            self._propose(seat, lambda group: group.propose_extensions(extensions))
        else:
            proposal = Proposal.custom(CUSTOM, b"custom %d" % pick)
            self._propose(seat, lambda group: group.propose(proposal))
        assert group.pending_proposals

    @rule(new_member=st.booleans(), pick=PICK)
    def propose_from_outside(self, new_member: bool, pick: int) -> None:
        """The listed external sender proposes to remove somebody, or a client asks to be added."""
        seat = self._active(pick)
        if seat is None:
            return
        context = seat.group.context
        if new_member:
            if not self._room():
                return
            package = self.world.invite().key_package
            client, bundle = self.world.waiting_room[package.leaf_node.credential.identity]
            message = new_member_add(context, bundle.key_package, client.key)
        elif context.external_senders() is None:
            return
        else:
            members = list(seat.group.members())
            proposal = Proposal.of(Remove(members[pick % len(members)].leaf))
            message = external_proposal(context, proposal, self.world.outside)
        self.world.accept(context.epoch, message, commit=False)

    # -- Commits

    def _commit(
        self, seat: Seat, proposals: list[Proposal], options: CommitOptions | None = None
    ) -> None:
        self._prepare(seat, proposals, options)
        self.world.submit(seat)

    def _prepare(
        self, seat: Seat, proposals: list[Proposal], options: CommitOptions | None = None
    ) -> None:
        seat.group.commit(proposals, now=self.world.clock(), options=options or CommitOptions())
        seat.save()

    @rule(
        pick=PICK,
        whom=PICK,
        adds=st.integers(0, 2),
        remove=st.booleans(),
        psk=st.sampled_from((None, "external", "own")),
        path=st.booleans(),
        at_once=st.booleans(),
        per_welcome=st.integers(0, 2),
    )
    def commit(
        self,
        pick: int,
        whom: int,
        adds: int,
        remove: bool,
        psk: str | None,
        path: bool,
        at_once: bool,
        per_welcome: int,
    ) -> None:
        """Somebody commits what waits and more; the Commit goes out now or later."""
        seat = self._active(pick)
        if seat is None or seat.group.pending_commit is not None:
            return
        proposals = [
            Proposal.of(Add(self.world.invite().key_package))
            for _ in range(adds if self._room() and psk != "own" else 0)
        ]
        victim = list(seat.group.members())[whom % len(list(seat.group.members()))].leaf
        if remove and victim != seat.group.own_leaf:
            proposals.append(Proposal.of(Remove(victim)))
        if psk == "external":
            proposals.append(Proposal.of(PreSharedKey(seat.group.external_psk(b"first"))))
        elif psk == "own":
            present = seat.group.application_psk(seat.group.epoch)
            proposals.append(Proposal.of(PreSharedKey(present)))
        options = CommitOptions(
            path=path,
            # Who is added cannot have the group's own resumption keys.
            pending=psk != "own",
            tree_inside=path,
            members_per_welcome=per_welcome,
        )
        self._prepare(seat, proposals, options)
        if at_once:
            self.world.submit(seat)

    @rule(pick=PICK)
    def submit(self, pick: int) -> None:
        """A Commit that was made earlier is sent: it may have lost its race by now."""
        seat = self._seat(pick)
        if seat.group.pending_commit is not None:
            self.world.submit(seat)

    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        """A Commit that was made, and never sent, is given up."""
        seat = self._seat(pick)
        seat.group.drop_pending()
        seat.save()

    @rule(pick=PICK)
    def rotate(self, pick: int) -> None:
        """A member commits a new signature key for its leaf."""
        seat = self._active(pick)
        if seat is None or seat.group.pending_commit is not None:
            return
        key = self.world.suite.generate_signature_key(self.world.rng)
        seat.group.commit(now=self.world.clock(), signature_key=key)
        seat.save()
        self.world.submit(seat)

    # -- whole rounds, which single steps seldom make

    @rule(
        proposers=st.lists(PICK, min_size=1, max_size=4),
        committer=PICK,
        restarts=st.booleans(),
        path=st.booleans(),
    )
    def round_of_proposals(
        self, proposers: list[int], committer: int, restarts: bool, path: bool
    ) -> None:
        """Several propose, everybody reads, maybe all restart, one commits, everybody reads."""
        for pick in proposers:
            self.propose_update(pick | 1, new_key=bool(pick & 2))
            if pick & 4:
                self.propose_remove(pick, whom=pick // 8)
            if pick & 8:
                self.propose_other(pick, "name" if pick & 16 else "custom")
        self.everybody_reads()
        if restarts:
            self.everybody_restarts()
        seat = self._active(committer | 1)
        if seat is None or seat.group.pending_commit is not None:
            return
        self._commit(seat, [], CommitOptions(path=path))
        self.everybody_reads()
        self.conversation([committer, *proposers])

    @rule(speakers=st.lists(PICK, min_size=1, max_size=5))
    def conversation(self, speakers: list[int]) -> None:
        """Several speak, and everybody hears them in another order."""
        before = len(self.world.sent)
        for pick in speakers:
            self.send(pick, size=pick % 100)
        said = self.world.sent[before:]
        for seat in self.world.seats.values():
            for sent in sorted(said, key=lambda sent: sent.data[-1] ^ seat.number):
                if (sent.data[-2] ^ seat.number) % 4:
                    self.world.deliver(seat, sent)

    # -- the network

    @rule(pick=PICK, most=st.integers(1, 3))
    def read(self, pick: int, most: int) -> None:
        self.world.read(self._seat(pick), most)

    @rule()
    def everybody_reads(self) -> None:
        for seat in list(self.world.seats.values()):
            self.world.read(seat)

    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        """The next proposal never reaches a member."""
        seat = self._seat(pick)
        log = self.world.log
        if seat.cursor < len(log) and not log[seat.cursor].commit:
            seat.cursor += 1
            seat.lost = True

    @rule(pick=PICK, which=PICK)
    def repeat(self, pick: int, which: int) -> None:
        """A handshake message of an epoch that is over comes again: stale, or known as one's own."""
        seat, log = self._seat(pick), self.world.log
        past = [entry for entry in log if entry.epoch < seat.group.epoch]
        if not past:
            return
        entry = past[which % len(past)]
        before = seat.group.epoch
        outcome = attempt(lambda: seat.group.receive(entry.data))
        assert isinstance(outcome, OwnMessage) or (
            isinstance(outcome, EpochError) and outcome.stale
        )
        seat.save()
        assert seat.group.epoch == before

    # -- crashes and returns

    @rule(pick=PICK)
    def restart(self, pick: int) -> None:
        self._seat(pick).restart()

    @rule()
    def everybody_restarts(self) -> None:
        for seat in self.world.seats.values():
            seat.restart()

    @rule(pick=PICK, private=st.booleans(), psk=st.booleans())
    def join_external(self, pick: int, private: bool, psk: bool) -> None:
        """A new client joins by a GroupInfo, which may be out of date."""
        seat = self._seat(pick)
        if not self._room() or not seat.group.is_active:
            return
        client = self.world.new_client(private=private)
        self._enter(client.key, seat, client, ExternalJoin(psks=self._external_psks(seat, psk)))

    @staticmethod
    def _external_psks(seat: Seat, wanted: bool) -> list[PreSharedKeyID]:
        return [seat.group.external_psk(b"second")] if wanted else []

    @rule(pick=PICK, helper=PICK, psk=st.booleans())
    def come_back(self, pick: int, helper: int, psk: bool) -> None:
        """A member that lost its state, or is stuck, replaces its own leaf by an external Commit."""
        seat, other = self._seat(pick), self._active(helper)
        if other is None or other is seat or seat.number not in self.world.seats:
            return
        mine = seat.client.credential
        leaf = next((m.leaf for m in other.group.members() if m.credential == mine), None)
        if leaf is None:
            return
        key = self.world.suite.generate_signature_key(self.world.rng)
        join = ExternalJoin(remove=leaf, psks=self._external_psks(other, psk))
        if self._enter(key, other, seat.client, join):
            seat.client.key = key
            self.world.seats.pop(seat.number, None)
            self.world.seen["came back"] += 1

    def _enter(
        self, key: SignaturePrivateKey, seat: Seat, client: Client, join: ExternalJoin
    ) -> bool:
        world = self.world
        inside = bool(join.psks)
        info = MLSMessage.read(seat.group.group_info(tree=inside).encode())
        group, message = Group.join_external(
            info,
            key,
            client.credential,
            client.capabilities(),
            client.config,
            tree=None if inside else seat.group.tree.encode(),
            join=join,
            now=world.clock(),
        )
        if not world.accept(group.epoch - 1, message, commit=True):
            world.seen["lost external join"] += 1
            return False
        world.truth[group.epoch] = Truth.of(group)
        world.sit(client, group)
        world.seen["joined externally"] += 1
        return True

    # -- groups that continue this one

    @rule(pick=PICK, whom=PICK)
    def branch(self, pick: int, whom: int) -> None:
        """Some members make a group of their own; what is said there stays there."""
        world, seat = self.world, self._active(pick)
        if seat is None:
            return
        epoch = seat.group.epoch
        others = [o for o in world.seats.values() if o is not seat and o.group.epoch == epoch]
        if not others:
            return
        chosen = others[: 1 + whom % len(others)]

        def make(packages: list[VerifiedKeyPackage]) -> tuple[Group, PendingCommit]:
            return seat.group.branch(
                world.fresh_id(),
                packages,
                lifetime=lifetime(world.clock()),
                now=world.clock(),
                signature_key=world.suite.generate_signature_key(world.rng),
            )

        joined = self._successors(chosen, make)
        text = joined[0].encrypt(b"among us").encode()
        for group in joined[1:]:
            received = group.receive(text)
            assert isinstance(received, ApplicationMessage)
            assert received.data == b"among us"
        for other in world.seats.values():
            with pytest.raises(RuleViolation):
                other.group.receive(text)
        world.seen["branched"] += 1

    def _successors(
        self,
        chosen: list[Seat],
        make: Callable[[list[VerifiedKeyPackage]], tuple[Group, PendingCommit]],
    ) -> list[Group]:
        """Makes a group that continues this one, and lets the others join."""
        now = self.world.clock()
        bundles = [other.client.package(now) for other in chosen]
        packages = [
            bundle.key_package.validate(
                other.client.suite, other.client.config.authenticator, now=now
            )
            for other, bundle in zip(chosen, bundles, strict=True)
        ]
        group, commit = make(packages)
        joined = [group]
        for other, bundle in zip(chosen, bundles, strict=True):
            assert commit.welcome is not None
            welcome = MLSMessage.read(commit.welcome.encode())
            with pytest.raises(CoterieError):
                Group.join(welcome, bundle, other.client.config)
            joined.append(Group.join(welcome, bundle, other.client.config, continues=other.group))
        assert all(Truth.of(each) == Truth.of(group) for each in joined)
        assert group.epoch == 1
        return joined

    @precondition(lambda self: len(self.world.log) > 8)
    @rule(pick=PICK, suite=SUITES)
    def reinit(self, pick: int, suite: int) -> None:
        """The group ends in favour of another one, maybe of another suite; all move there."""
        world = self.world
        seat = self._active(pick)
        if seat is None or seat.group.pending_commit is not None:
            return
        extensions = world.group_extensions(b"after") if suite == world.suite.cipher_suite else ()
        proposal = ReInit(
            world.fresh_id(), ProtocolVersion.MLS10, CipherSuite(suite), tuple(extensions)
        )
        self._prepare(seat, [Proposal.of(proposal)], CommitOptions(pending=False))
        if not world.submit(seat):
            return
        for other in list(world.seats.values()):
            world.read(other)
        world.check()
        if len(world.present()) != len(world.truth[world.epoch].names):
            # Somebody is stuck: the group cannot be continued with all its members.
            world.found(seat.client)
            return
        self._continue(seat)

    def _continue(self, seat: Seat) -> None:
        world, announced = self.world, seat.group.reinitialized
        assert announced is not None
        with pytest.raises(StateError):
            seat.group.encrypt(b"too late")
        world.change_suite(int(announced.cipher_suite))
        others = [other for other in world.present() if other is not seat]

        def make(packages: list[VerifiedKeyPackage]) -> tuple[Group, PendingCommit]:
            with pytest.raises(StateError):
                seat.group.reinit(packages[1:], lifetime=lifetime(world.clock()), now=world.clock())
            return seat.group.reinit(
                packages,
                lifetime=lifetime(world.clock()),
                now=world.clock(),
                signature_key=seat.client.key,
                capabilities=seat.client.capabilities(),
            )

        if others:
            groups = self._successors(others, make)
            world.move([seat.client, *(other.client for other in others)], groups)
            world.seen["reinitialised"] += 1

    # -- what must hold

    @invariant()
    def all_agree(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            self.world.haunt()

    def teardown(self) -> None:
        """At the end everybody reads everything that it may."""
        if not hasattr(self, "world"):
            return
        self.everybody_reads()
        for seat in self.world.seats.values():
            for sent in self.world.sent:
                self.world.deliver(seat, sent)
        self.all_agree()
        for what, number in self.world.seen.items():
            if number:
                SEEN[what] = SEEN.get(what, 0) + number


SEEN: dict[str, int] = {}
EVENTS = {
    "read",
    "joined",
    "removed",
    "joined externally",
    "came back",
    "branched",
    "lost race",
    "updated",
    "opened path",
}
"""What some history must have had, or the run says nothing."""


def test_all_members_agree_and_nobody_else_knows_in_any_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    UsedKeys.watch(monkeypatch)
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # The short run is the same each time; new histories are what the long one is for.
            derandomize=not LONG,
            suppress_health_check=list(HealthCheck),
            # Shrinking a history takes longer than reading it.
            phases=(Phase.generate,),
        ),
    )
    assert UsedKeys.keys, "the wrapper saw no sealing"
    missing = EVENTS - SEEN.keys()
    assert not missing, f"no history had {missing}"
