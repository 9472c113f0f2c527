"""A few people in one group, each with a store: what the readable scenarios are told with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import Capabilities, Extension, capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.group import (
    ApplicationMessage,
    CommitOptions,
    Config,
    Group,
    Limits,
    PendingCommit,
    StagedCommit,
)
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.key_package import KeyPackageBundle, VerifiedKeyPackage, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, Proposal
from coterie.mls.validation import CustomProposal
from coterie.testing import Clock, MemoryStore, Randomness

CUSTOM = 0xF001
NAME = 0xF002
SUITE = suite_of(1)


class Names(AcceptAnything):
    """Credentials `name/anything` are all the client `name`'s."""

    def client_id(self, credential: Credential) -> bytes:
        return credential.identity.split(b"/")[0]

    def valid_successor(self, old: Credential, new: Credential) -> None:
        assert self.client_id(old) == self.client_id(new)


@dataclass
class Person:
    """A client: its keys and settings, its store, and its group once it is in one."""

    name: str
    clock: Clock
    suite: Suite = SUITE
    psks: dict[bytes, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.rng = Randomness(self.name.encode())
        self.key: SignaturePrivateKey = self.suite.generate_signature_key(self.rng)
        self.credential = Credential.basic(self.name.encode())
        self.config = Config(
            Names(),
            self.limits,
            custom_proposals={CUSTOM: CustomProposal(path_required=False, external=True)},
            psk=self.find_psk,
            rng=self.rng,
        )
        self._group: Group | None = None

    def find_psk(self, psk: PreSharedKeyID) -> bytes | None:
        return self.psks.get(psk.psk_id or b"")

    @property
    def group(self) -> Group:
        assert self._group is not None, f"{self.name} is in no group"
        return self._group

    @group.setter
    def group(self, group: Group) -> None:
        self._group = group
        self.save()

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime(self.clock() - 3600, self.clock() + 7 * 24 * 3600)

    def capabilities(self) -> Capabilities:
        return capabilities(
            cipher_suites=[self.suite.cipher_suite],
            proposals=[CUSTOM],
            extensions=[NAME],
            rng=self.rng,
        )

    def create(self, group_id: bytes = b"the circle", extensions: Sequence[Extension] = ()) -> None:
        self.group = Group.create(
            group_id,
            self.suite,
            self.key,
            self.credential,
            self.capabilities(),
            self.config,
            lifetime=self.lifetime,
            extensions=extensions,
        )

    def bundle(self) -> KeyPackageBundle:
        return create_key_package(
            self.suite, self.key, self.credential, self.capabilities(), self.lifetime, rng=self.rng
        )

    def verified(self, bundle: KeyPackageBundle) -> VerifiedKeyPackage:
        return bundle.key_package.validate(self.suite, Names(), now=self.clock())

    def save(self) -> None:
        self.store.apply(self.group.save())

    def restart(self) -> None:
        self._group = Group.load(self.store.entries(), self.store, self.config)

    def hears(self, message: MLSMessage) -> bytes:
        received = self.group.receive(message.encode(), now=self.clock())
        self.save()
        assert isinstance(received, ApplicationMessage)
        return received.data


class Circle:
    """People in one group who all read everything at once."""

    def __init__(self, *names: str, private: bool = True, suite: int = 1) -> None:
        self.clock = Clock()
        self.limits = Limits(private_handshakes=private)
        self.suite = suite_of(suite)
        self.people: dict[str, Person] = {}
        founder = self.person(names[0])
        founder.create()
        self.people[names[0]] = founder
        for name in names[1:]:
            self.add(names[0], self.person(name))

    def __getitem__(self, name: str) -> Person:
        return self.people[name]

    def person(self, name: str) -> Person:
        return Person(name, self.clock, self.suite, limits=replace(self.limits))

    def add(self, by: str, *people: Person, options: CommitOptions | None = None) -> PendingCommit:
        bundles = [person.bundle() for person in people]
        proposals = [Proposal.of(Add(bundle.key_package)) for bundle in bundles]
        pending = self.commit(by, proposals, options)
        assert pending.welcome is not None
        for person, bundle in zip(people, bundles, strict=True):
            welcome = MLSMessage.read(pending.welcome.encode())
            tree = self[by].group.tree.encode()
            person.group = Group.join(welcome, bundle, person.config, tree=tree)
            self.people[person.name] = person
        return pending

    def commit(
        self, by: str, proposals: Sequence[Proposal] = (), options: CommitOptions | None = None
    ) -> PendingCommit:
        """Somebody commits, and everybody adopts; whoever is removed is no longer in the circle."""
        person = self[by]
        pending = person.group.commit(
            proposals, now=self.clock(), options=options or CommitOptions()
        )
        person.save()
        self.adopt(pending.message, besides=by)
        person.group.adopt(pending, now=self.clock())
        person.save()
        return pending

    def adopt(self, message: MLSMessage, besides: str = "") -> None:
        for name, person in list(self.people.items()):
            if name != besides:
                staged = person.group.receive(message.encode(), now=self.clock())
                assert isinstance(staged, StagedCommit)
                person.group.adopt(staged, now=self.clock())
                person.save()
                if staged.removes_self:
                    del self.people[name]

    def tell(self, message: MLSMessage, besides: str = "") -> None:
        """Everybody but one receives a proposal."""
        for name, person in self.people.items():
            if name != besides:
                person.group.receive(message.encode(), now=self.clock())
                person.save()

    def agrees(self) -> bool:
        groups = [person.group for person in self.people.values()]
        return (
            len({(g.epoch_authenticator, g.context.encode(), g.tree.encode()) for g in groups}) == 1
        )
