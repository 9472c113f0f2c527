"""The groups in which the rules are tested: members as saved states, so that every test starts from the same bytes.

`alice` (leaf 0) is the one who forges, `bob` (leaf 1) the one who must not be fooled. The group has an external sender,
a required custom proposal type and an extension of its own; every member supports them.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from coterie.interop.negative import EXTENSION, PROPOSAL, UNSUPPORTED_PROPOSAL, Names, supported
from coterie.mls.credential import Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import (
    Capabilities,
    Extension,
    ExternalSender,
    ExternalSenders,
    RequiredCapabilities,
)
from coterie.mls.group import CommitOptions, Config, Group, Limits, PendingCommit
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.hpke import RandomSource
from coterie.mls.key_package import KeyPackageBundle, create_key_package
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Add, Proposal, Remove
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ExtensionType, WireFormat
from coterie.mls.validation import CustomProposal
from tests.rules.forging import PRIVATE, PSK, Forger, Generation, Sent

NOW = int(os.environ.get("COTERIE_RULES_NOW", "1000000"))
"""When everything happens, in seconds since 1970; another time is for peers that ask the clock."""
LIFETIME = Lifetime(NOW - 1000, NOW + (86_400 if "COTERIE_RULES_NOW" in os.environ else 1000))
"""A day where the time is real: playing all vectors through all peers takes a quarter of an hour."""
NAMES = ("alice", "bob", "carol", "dave", "eve")


def seeded(seed: bytes) -> RandomSource:
    """Random bytes that are the same in every run: what is generated from them can be checked in."""
    state = hashlib.shake_256(seed)
    count = 0

    def draw(length: int) -> bytes:
        nonlocal count
        count += 1
        block = state.copy()
        block.update(count.to_bytes(8))
        return block.digest(length)

    return draw


def find_psk(psk: PreSharedKeyID) -> bytes | None:
    """The external keys that every member has."""
    return PSK if psk.psk_id is not None and psk.psk_id.startswith(b"shared") else None


def config(rng: RandomSource, **limits: object) -> Config:
    """How every member is set up."""
    return Config(
        Names(),
        Limits(**{"grease": False, **limits}),  # type: ignore[arg-type]
        custom_proposals={
            int(PROPOSAL): CustomProposal(path_required=False),
            int(UNSUPPORTED_PROPOSAL): CustomProposal(path_required=False),
        },
        psk=find_psk,
        rng=rng,
    )


class Store(dict[bytes, bytes]):
    """A member's saved state."""

    def apply(self, group: Group) -> None:
        """Stores what changed."""
        delta = group.save()
        for prefix in delta.drop_prefixes:
            for key in [key for key in self if key.startswith(prefix)]:
                del self[key]
        for key in delta.drops:
            self.pop(key, None)
        self.update(delta.puts)


@dataclass
class World:
    """One group with its members' saved states."""

    suite: Suite
    seed: bytes
    warm: bool = True
    """Whether all parents have keys: every member has committed."""
    passive: bool = False
    """Whether bob's whole history is one Welcome, as negative vectors need it."""
    bare: bool = False
    """Whether the GroupContext has no extensions, for peers that do not know ours."""
    start: tuple[KeyPackageBundle, bytes] | None = None
    """With what he joined then."""
    history: tuple[bytes, ...] = ()
    """The Commits that bob has adopted since he was saved first."""
    stores: dict[str, Store] = field(default_factory=dict)
    keys: dict[str, SignaturePrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = seeded(self.seed + bytes((self.suite.cipher_suite,)))
        self.config = config(self.rng)
        self._build()

    @property
    def capabilities(self) -> Capabilities:
        """What every member supports."""
        return supported(self.suite)

    def key(self, name: str) -> SignaturePrivateKey:
        """The signature key of a name."""
        if name not in self.keys:
            self.keys[name] = self.suite.generate_signature_key(self.rng)
        return self.keys[name]

    def bundle(self, name: str) -> KeyPackageBundle:
        """A key package of a name with its private keys."""
        return create_key_package(
            self.suite,
            self.key(name),
            Credential.basic(name.encode()),
            self.capabilities,
            LIFETIME,
            rng=self.rng,
        )

    def group_extensions(self) -> list[Extension]:
        """The extensions of the GroupContext."""
        if self.bare:
            return []
        sender = ExternalSender(self.key("server").public, Credential.basic(b"server"))
        required = RequiredCapabilities(proposal_types=(PROPOSAL,))
        return [
            Extension(ExtensionType.EXTERNAL_SENDERS, ExternalSenders((sender,)).encode()),
            Extension(ExtensionType.REQUIRED_CAPABILITIES, required.encode()),
            Extension(EXTENSION, b"application data"),
        ]

    def _build(self) -> None:
        groups = {"alice": self._create()}
        bundles = {name: self.bundle(name) for name in NAMES[1:]}
        adds = [Proposal.of(Add(bundle.key_package)) for bundle in bundles.values()]
        pending = groups["alice"].commit(adds, now=NOW, options=CommitOptions(path=False))
        groups["alice"].adopt(pending, now=NOW)
        assert pending.welcome is not None
        for name, bundle in bundles.items():
            groups[name] = Group.join(pending.welcome, bundle, self.config)
        if self.warm:
            for name in ("dave", "eve", "carol", "bob", "alice"):
                self.commit(groups, name)
        if self.passive:
            self._invite_again(groups)
        for name, group in groups.items():
            self.stores[name] = Store()
            self.stores[name].apply(group)

    def _invite_again(self, groups: dict[str, Group]) -> None:
        """Removes bob and adds him again: his whole history is a Welcome then."""
        del groups["bob"]
        self.commit(groups, "alice", Proposal.of(Remove(LeafIndex(1))))
        bundle = self.bundle("bob")
        pending = self.commit(groups, "alice", Proposal.of(Add(bundle.key_package)))
        assert pending.welcome is not None
        self.start = bundle, pending.welcome.encode()
        groups["bob"] = Group.join(pending.welcome, bundle, self.config)

    def _create(self) -> Group:
        return Group.create(
            b"the group",
            self.suite,
            self.key("alice"),
            Credential.basic(b"alice"),
            self.capabilities,
            self.config,
            lifetime=LIFETIME,
            extensions=self.group_extensions(),
        )

    def commit(self, groups: Mapping[str, Group], name: str, *proposals: Proposal) -> PendingCommit:
        """A Commit that all adopt."""
        pending = groups[name].commit(proposals, now=NOW)
        data = pending.message.encode()
        for other, group in groups.items():
            staged = pending if other == name else group.receive(data, now=NOW)
            group.adopt(staged, now=NOW)  # type: ignore[arg-type]
        return pending

    def member(self, name: str, **limits: object) -> Group:
        """A member as it was saved."""
        return load(self.stores[name], config(self.rng, **limits))

    def forger(self, name: str = "alice", framing: WireFormat = PRIVATE) -> Forger:
        """A member who forges."""
        return Forger(self.member(name), self.rng, framing)

    def victim(
        self,
        sent: Sent,
        *,
        name: str = "bob",
        consumes: bool = True,
        after: Iterable[bytes] = (),
        limits: Mapping[str, object] = {},
    ) -> Receive:
        """A member that receives a forged message, after some that are in order.

        The generation of a private message is consumed where its content was verified before it was refused.
        """
        store = Store(self.stores[name])
        if after:
            group = load(store, config(self.rng, **limits))
            for data in after:
                group.receive(data, now=NOW)
            store.apply(group)
        generation = sent.generation if consumes else None
        return Receive(store, sent.data, generation, limits, tuple(after), self.history)

    def adopted(self, *proposals: Proposal) -> World:
        """The world after a Commit of alice's that alice and bob have adopted."""
        alice, bob = self.member("alice"), self.member("bob")
        pending = alice.commit(proposals, now=NOW)
        data = pending.message.encode()
        bob.adopt(bob.receive(data, now=NOW), now=NOW)  # type: ignore[arg-type]
        alice.adopt(pending, now=NOW)
        world = copy.copy(self)
        world.history = (*self.history, data)
        world.stores = {name: Store(store) for name, store in self.stores.items()}
        world.stores["alice"].apply(alice)
        world.stores["bob"].apply(bob)
        return world


@dataclass(frozen=True)
class Receive:
    """A member that receives bytes which break a rule."""

    store: Store
    data: bytes
    consumed: Generation | None
    limits: Mapping[str, object]
    after: tuple[bytes, ...] = ()
    """What it has received before, in order; its saved state knows that already."""
    history: tuple[bytes, ...] = ()
    """The Commits that it has adopted before that."""


@dataclass(frozen=True)
class Join:
    """A client that joins by a Welcome which breaks a rule."""

    bundle: KeyPackageBundle
    welcome: bytes
    tree: bytes | None = None
    groups: frozenset[bytes] = frozenset()
    continues: Store | None = None
    history: tuple[bytes, ...] = ()
    """The Commits that the old group's member has adopted."""


@dataclass(frozen=True)
class JoinExternal:
    """A client that joins by a GroupInfo which breaks a rule."""

    info: bytes
    tree: bytes | None = None
    groups: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Call:
    """A function that refuses what no message of bearable size can carry, or what is no message."""

    function: Callable[[], object]


Attack = Receive | Join | JoinExternal | Call


def load(store: Mapping[bytes, bytes], how: Config) -> Group:
    """The group of a saved state."""
    entries = {key: value for key, value in store.items() if key[:2] not in {b"n/", b"i/"}}
    return Group.load(entries, store, how)


def make(suite: int = 1, *, warm: bool = True, passive: bool = False, bare: bool = False) -> World:
    """A world of a suite, always the same."""
    return World(suite_of(suite), b"warm" if warm else b"flat", warm, passive, bare)
