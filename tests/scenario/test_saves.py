"""Random histories in which one member's store is compared with what a fresh save would write.

The member lives on; what it stored step by step, or not for some steps, must be what is in its memory, and what is
loaded from that must be the member. Clocks are set back, or not told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from coterie.errors import CoterieError, StorageError
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Delta, Group, OwnMessage, StagedCommit
from coterie.mls.group.past import _stored_past
from coterie.mls.group.saving import _stored_pending
from coterie.mls.group.state import FORMAT, StoredProposal, stored_epoch, stored_update
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.secret_tree import RatchetLimits, StoredRatchet, StoredSkipped, _stored_name
from coterie.mls.tree_index import TreeIndex
from coterie.mls.tree_math import LeafIndex
from tests.scenario.circle import CUSTOM, Circle, Person
from tests.scenario.world import attempt

STEPS = 60


def whole(group: Group) -> dict[bytes, bytes]:
    """All entries of a group out of what it has in memory."""
    ring, epoch, found = group._keys, group._epoch, dict[bytes, bytes]()
    found[b"g"] = FORMAT + stored_epoch(epoch).encode()
    for keys in (ring._present, *ring._past.values()):
        found.update(keys.tree.store_changes(None)[0])
        tree, prefix = keys.secret_tree, b"s/%d/" % keys.context.epoch
        found.update({prefix + _stored_name(n): bytes(v) for n, v in tree._nodes.items()})
        for name, ratchet in tree._ratchets.items():
            found[prefix + _stored_name(name)] = StoredRatchet(*ratchet).encode()
        for skipped, key in tree._skipped.items():
            found[prefix + _stored_name(skipped)] = StoredSkipped(*key).encode()
    found.update({b"e/%d" % number: _stored_past(past) for number, past in ring._past.items()})
    found.update({b"k/%d" % number: bytes(key) for number, key in ring._resumption.items()})
    found.update({b"o/%d/" % n + digest: bytes((kind,)) for digest, (kind, n) in ring._own.items()})
    index = TreeIndex.of_tree(epoch.tree, group._config.authenticator)
    found.update({k: v for k, v in index.take_changes().items() if v is not None})
    for update in group._proposals.own_updates.values():
        found[b"u/" + update.encryption_key.public] = stored_update(update)
    for number, entry in enumerate(group.pending_proposals):
        found[b"p/" + (entry.reference or b"")] = _waits(number, entry.proposal)
    if group.pending_commit is not None:
        found[b"c"] = _stored_pending(group.pending_commit, epoch).encode()
    return found


def stored(person: Person) -> dict[bytes, bytes]:
    """All entries of a store, but that of proposals only their places are looked at, and what is proposed."""
    found = dict(person.store.data)
    for key in [key for key in found if key.startswith(b"p/")]:
        proposal = StoredProposal.decode(found[key])
        body = proposal.content.content.body
        assert isinstance(body, Proposal)
        found[key] = _waits(proposal.number, body)
    return found


def _waits(number: int, proposal: Proposal) -> bytes:
    return b"%d " % number + proposal.encode()


class History:
    """Four or more, of whom bob is looked at."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.circle = Circle("alice", "bob", "carol", "dave", private=self.random.random() < 0.5)
        self.bob, self.inbox, self.count = self.circle["bob"], list[bytes](), 0
        self.limits = replace(
            self.bob.limits,
            max_past_epochs=self.random.choice([0, 1, 3, 3]),
            max_past_age=1000,
            max_resumption_psks=self.random.choice([0, 2, 16]),
            ratchets=RatchetLimits(max_forward=20, max_skipped_age=700),
        )
        self.bob.config = replace(self.bob.config, limits=self.limits)
        self.bob.restart()
        self.saves = self.random.choice([1, 0.5, 0.2])

    def step(self) -> None:
        """Something happens; then bob is saved and compared, or not."""
        kinds = (self.speak, self.hear, self.propose, self.commit, self.prepare, self.time)
        self.random.choice(kinds)()
        if self.random.random() > self.saves:
            return
        self.bob.store.apply(self.bob.group.save())
        assert stored(self.bob) == whole(self.bob.group)
        again = Group.load(self.bob.store.entries(), self.bob.store.copy(), self.bob.config)
        assert whole(again) == whole(self.bob.group)
        assert again.save() == Delta({})
        if self.random.random() < 0.3:
            self.bob.restart()

    def anybody(self) -> Person:
        return self.random.choice(list(self.circle.people.values()))

    def speak(self) -> None:
        person = self.anybody()
        for _ in range(self.random.randint(1, 6)):
            said = attempt(lambda: person.group.encrypt(b"hello"))
            if isinstance(said, MLSMessage):
                self.inbox.append(said.encode())

    def hear(self) -> None:
        """Late, in any order, twice, or with an octet changed."""
        for data in self.random.sample(self.inbox, min(3, len(self.inbox))):
            self.receive(data[:-1] + bytes((data[-1] ^ (self.random.random() < 0.2),)))

    def receive(self, data: bytes) -> None:
        """Bob reads something, and adopts what is to be adopted."""
        group, now = self.bob.group, self.random.choice([self.circle.clock(), 0])
        received = attempt(lambda: group.receive(data, now=self.circle.clock()))
        assert not isinstance(received, StorageError)
        if isinstance(received, OwnMessage) and received.pending:
            assert group.pending_commit is not None
            group.adopt(group.pending_commit, now=now)
        elif isinstance(received, StagedCommit):
            group.adopt(received, now=now)

    def propose(self) -> None:
        person = self.anybody()
        group, newcomer = person.group, self.newcomer()
        add = Proposal.of(Add(newcomer.bundle().key_package))
        others = [m.leaf for m in group.members() if m.leaf not in {self.bob.group.own_leaf, 0}]
        kinds: list[Callable[[], MLSMessage]] = [
            group.propose_update,
            lambda: group.propose_update(signature_key=person.key),
            lambda: group.propose(add, now=self.circle.clock()),
            lambda: group.propose(Proposal.custom(CUSTOM, b"custom %d" % self.count)),
            lambda: group.propose_remove(self.random.choice(others or [LeafIndex(0)])),
        ]
        message = self.random.choice(kinds)().encode()
        for other in self.circle.people.values():
            if other is self.bob and other is not person:
                self.receive(message)
            elif other is not person:
                other.group.receive(message, now=self.circle.clock())

    def newcomer(self) -> Person:
        self.count += 1
        return self.circle.person(f"newcomer {self.count}")

    def commit(self) -> None:
        """Somebody commits what waits, and maybe adds or removes somebody whom nobody else plays."""
        person = self.anybody()
        group, proposals = person.group, list[Proposal]()
        strangers = [m for m in group.members() if m.credential.identity.startswith(b"newcomer")]
        if strangers and self.random.random() < 0.5:
            proposals.append(Proposal.of(Remove(self.random.choice(strangers).leaf)))
        elif len(strangers) < 3 and self.random.random() < 0.5:
            proposals.append(Proposal.of(Add(self.newcomer().bundle().key_package)))
        group.drop_pending()
        options = CommitOptions(path=self.random.random() < 0.5)
        made = attempt(lambda: group.commit(proposals, now=self.circle.clock(), options=options))
        if not isinstance(made, CoterieError):
            self.publish(person, made.message.encode())

    def publish(self, by: Person, data: bytes) -> None:
        for name, person in list(self.circle.people.items()):
            if person is self.bob:
                self.receive(data)
            elif person is by:
                assert person.group.pending_commit is not None
                person.group.adopt(person.group.pending_commit, now=self.circle.clock())
            else:
                staged = person.group.receive(data, now=self.circle.clock())
                assert isinstance(staged, StagedCommit)
                person.group.adopt(staged, now=self.circle.clock())
                if staged.removes_self:
                    del self.circle.people[name]
        assert self.circle.agrees()

    def prepare(self) -> None:
        """Bob makes a Commit that waits, sends one that does, or gives it up."""
        pending = self.bob.group.pending_commit
        if pending is None:
            attempt(lambda: self.bob.group.commit(now=self.circle.clock()))
        elif self.random.random() < 0.5:
            self.publish(self.bob, pending.message.encode())
        else:
            self.bob.group.drop_pending()

    def time(self) -> None:
        """Clocks go on, or are set back."""
        self.circle.clock.now += self.random.choice([1, 300, 900, 3000, -300])
        self.bob.group.expire(self.circle.clock())


@pytest.mark.parametrize("seed", range(16))
def test_what_was_stored_step_by_step_is_what_a_fresh_save_would_write(seed: int) -> None:
    history = History(seed)
    for _ in range(STEPS):
        history.step()
    assert history.bob.group.epoch > 6
