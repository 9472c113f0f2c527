"""The secret tree: a key and a nonce for every message of an epoch (RFC 9420 §9).

Strategy: secrets are derived when a leaf first sends or receives, from the lowest ancestor that is still held down to
that leaf only; what was derived from is gone in the same step (§9.2). Opening a message works in two halves, because a
generation must not be consumed by bytes that turn out to be junk: `find` derives without changing anything, `consume`
changes. All changes are collected under the names under which they are stored, so that a step stores what it touched.

Bounds: a receiver derives at most `max_forward` generations ahead for one message, and keeps at most `max_skipped`
keys of messages that have not come yet, for `max_skipped_age` seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from coterie.errors import DecryptionError, StateError
from coterie.mls.crypto import Suite
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct, Uint
from coterie.mls.tree_math import LeafIndex, NodeIndex, node_at, root, tree_depth


class RatchetKind(IntEnum):
    """The two ratchets of a leaf (§9.1)."""

    HANDSHAKE = 0
    APPLICATION = 1

    @property
    def label(self) -> str:
        """Its name in the key schedule."""
        return self.name.lower()


_KINDS = tuple(RatchetKind)


@dataclass(frozen=True, slots=True)
class RatchetLimits:
    """Bounds of a receiver's ratchets."""

    max_forward: int = 1000
    """How many generations at once a message may be ahead."""
    max_skipped: int = 2000
    """How many keys of skipped messages are kept, over all senders of an epoch; the oldest go first."""
    max_skipped_age: int = 7 * 24 * 3600
    """For how many seconds a skipped key is kept."""
    max_sent: int = 1 << 20
    """How many messages of a kind one member sends in an epoch (AEAD limits, §6.3.1)."""


class StoredRatchet(Struct):
    """A ratchet as it is stored: the next generation and its secret."""

    generation: Annotated[int, Uint(8)]
    secret: Secret


class StoredSkipped(Struct):
    """A skipped key as it is stored."""

    key: Secret
    nonce: Secret
    since: Annotated[int, Uint(8)]


@dataclass(frozen=True, slots=True, repr=False)
class Descent:
    """What is derived on the way from the lowest held secret above a leaf down to it."""

    origin: NodeIndex
    """The node from whose secret all of it was derived."""
    siblings: dict[NodeIndex, Secret]
    ratchets: tuple[Secret, Secret]
    """The first secret of each ratchet, by `RatchetKind`."""


@dataclass(slots=True, repr=False, eq=False)
class MessageKey:
    """The key and nonce of one generation, found but not consumed; nobody changes it.

    Not frozen, since one is made for each message: setting eight fields of a frozen dataclass takes a microsecond.
    """

    leaf: LeafIndex
    kind: RatchetKind
    generation: int
    key: Secret
    nonce: Secret
    advanced: tuple[int, Secret] | None
    """The ratchet after it, None where a skipped key was found."""
    passed: tuple[tuple[int, Secret, Secret], ...]
    """Generation, key and nonce of what was skipped on the way."""
    descent: Descent | None = None
    """What was derived from the tree, where the leaf had no ratchet yet."""

    def __repr__(self) -> str:
        return f"MessageKey({self.leaf!r}, {self.kind.label}, generation {self.generation})"


SkippedName = tuple[LeafIndex, RatchetKind, int]
RatchetName = tuple[LeafIndex, RatchetKind]
Name = NodeIndex | RatchetName | SkippedName
"""What one secret of the tree is known under; `_stored_name` writes it, when a step is stored."""


class Ahead:
    """Secrets that were derived before it is their turn, while a run of messages is received."""

    __slots__ = ("descents", "heads", "steps")

    def __init__(self) -> None:
        self.steps: dict[SkippedName, tuple[Secret, Secret, Secret]] = {}
        self.heads: dict[RatchetName, tuple[int, Secret]] = {}
        self.descents: dict[LeafIndex, Descent] = {}


class SecretTree:
    """The secret tree of one epoch, with one mutable owner."""

    __slots__ = (
        "_ahead",
        "_changed",
        "_depth",
        "_nodes",
        "_ratchets",
        "_skipped",
        "limits",
        "suite",
    )

    def __init__(self, suite: Suite, leaf_count: int, limits: RatchetLimits | None = None) -> None:
        self.suite = suite
        self.limits = limits or RatchetLimits()
        self._depth = tree_depth(leaf_count)
        self._nodes: dict[NodeIndex, Secret] = {}
        self._ratchets: dict[RatchetName, tuple[int, Secret]] = {}
        self._skipped: OrderedDict[SkippedName, tuple[Secret, Secret, int]] = OrderedDict()
        self._changed: set[Name] = set()
        self._ahead: Ahead | None = None

    @classmethod
    def of_epoch(
        cls,
        suite: Suite,
        leaf_count: int,
        encryption_secret: Secret,
        limits: RatchetLimits | None = None,
    ) -> SecretTree:
        """The tree of a new epoch, rooted in its encryption secret."""
        tree = cls(suite, leaf_count, limits)
        index = root(leaf_count)
        tree._nodes[index] = encryption_secret
        tree._changed.add(index)
        return tree

    # -- sending and receiving

    def next_sending(self, leaf: LeafIndex, kind: RatchetKind) -> MessageKey:
        """Takes the next generation of the own ratchet; it is burnt at once (§9.2).

        Raises `StateError` when the epoch's limit is reached.
        """
        name = (leaf, kind)
        if name not in self._ratchets:
            _, _, descent = self._ratchet(leaf, kind)
            self._settle(leaf, descent)
        generation, secret = self._ratchets[name]
        if generation >= self.limits.max_sent:
            msg = f"{generation} messages were sent in this epoch, which is its limit: commit first"
            raise StateError(msg)
        key, nonce, after = self.suite.derive_generation(secret, generation)
        self._ratchets[name] = (generation + 1, after)
        self._changed.add(name)
        return MessageKey(leaf, kind, generation, key, nonce, None, ())

    def find(self, leaf: LeafIndex, kind: RatchetKind, generation: int) -> MessageKey:
        """The key of a received generation, without consuming it.

        Raises `DecryptionError` where it was consumed or evicted, or is too far ahead.
        """
        skipped = self._skipped.get((leaf, kind, generation))
        if skipped is not None:
            return MessageKey(leaf, kind, generation, skipped[0], skipped[1], None, ())
        present, secret, descent = self._ratchet(leaf, kind)
        if generation < present:
            msg = f"the key of generation {generation} of leaf {int(leaf)} is used or was given up"
            raise DecryptionError(msg, rule=Rule.GENERATION_USED)
        if generation - present > self.limits.max_forward:
            msg = (
                f"generation {generation} of leaf {int(leaf)} is {generation - present} ahead, "
                f"at most {self.limits.max_forward} are skipped"
            )
            raise DecryptionError(msg, rule=Rule.GENERATION_FORWARD)
        passed = []
        for step in range(present, generation):
            key, nonce, secret = self._derive(leaf, kind, step, secret)
            passed.append((step, key, nonce))
        return self._step(leaf, kind, generation, secret, tuple(passed), descent)

    def consume(self, found: MessageKey, now: int) -> None:
        """Gives up the key for good, and keeps those that were skipped on the way (§9.2)."""
        name = (found.leaf, found.kind)
        if found.advanced is None:
            self._forget((*name, found.generation))
        else:
            if name not in self._ratchets:
                self._settle(found.leaf, found.descent)
            self._ratchets[name] = found.advanced
            self._changed.add(name)
            for generation, key, nonce in found.passed:
                skipped = (*name, generation)
                self._skipped[skipped] = (key, nonce, now)
                self._changed.add(skipped)
        if self._skipped:
            self.evict(now)

    def evict(self, now: int) -> None:
        """Gives up skipped keys that are too many or too old; `now` is 0 where nobody knows."""
        limits = self.limits
        while self._skipped:
            name, (key, nonce, since) = next(iter(self._skipped.items()))
            if len(self._skipped) <= limits.max_skipped:
                if now and not 0 < since <= now:
                    # Skipped when nobody told the time, or the clock was ahead: its age counts from now.
                    self._skipped[name] = (key, nonce, now)
                    self._skipped.move_to_end(name)
                    self._changed.add(name)
                    continue
                if now - since <= limits.max_skipped_age:
                    return
            self._forget(name)

    def generation(self, leaf: LeafIndex, kind: RatchetKind) -> int:
        """The next generation of a ratchet."""
        return self._ratchets.get((leaf, kind), (0, b""))[0]

    def _step(
        self,
        leaf: LeafIndex,
        kind: RatchetKind,
        generation: int,
        secret: Secret,
        passed: tuple[tuple[int, Secret, Secret], ...],
        descent: Descent | None,
    ) -> MessageKey:
        key, nonce, after = self._derive(leaf, kind, generation, secret)
        advanced = (generation + 1, after)
        return MessageKey(leaf, kind, generation, key, nonce, advanced, passed, descent)

    def _derive(
        self, leaf: LeafIndex, kind: RatchetKind, generation: int, secret: Secret
    ) -> tuple[Secret, Secret, Secret]:
        """Key, nonce and the secret after them, which `look_ahead` may have derived a moment ago."""
        if self._ahead is not None:
            known = self._ahead.steps.get((leaf, kind, generation))
            if known is not None:
                return known
        return self.suite.derive_generation(secret, generation)

    # -- looking ahead

    def look_ahead(
        self, leaf: LeafIndex, kind: RatchetKind, generation: int
    ) -> tuple[Secret, Secret] | None:
        """Key and nonce of a generation as they will be when it is its turn; None where this is not worth knowing.

        What is derived is kept until `forget_ahead`, beside the tree: neither `find` nor what is stored depends on it.
        """
        name = (leaf, kind, generation)
        skipped = self._skipped.get(name)
        if skipped is not None:
            return skipped[:2]
        if self._ahead is None:
            self._ahead = Ahead()
        steps, heads = self._ahead.steps, self._ahead.heads
        if name not in steps:
            present, secret = heads.get((leaf, kind)) or self._head(leaf, kind, self._ahead)
            distance = generation - present
            if not 0 <= distance <= self.limits.max_forward:
                return None
            if len(steps) + distance >= self.limits.max_skipped:
                return None
            for step in range(present, generation + 1):
                steps[leaf, kind, step] = self.suite.derive_generation(secret, step)
                secret = steps[leaf, kind, step][2]
            heads[leaf, kind] = (generation + 1, secret)
        return steps[name][:2]

    def _head(self, leaf: LeafIndex, kind: RatchetKind, ahead: Ahead) -> tuple[int, Secret]:
        present, secret, descent = self._ratchet(leaf, kind)
        if descent is not None:
            ahead.descents[leaf] = descent
        return present, secret

    def forget_ahead(self) -> None:
        """Drops what `look_ahead` derived."""
        self._ahead = None

    # -- from the root to a leaf

    def _ratchet(self, leaf: LeafIndex, kind: RatchetKind) -> tuple[int, Secret, Descent | None]:
        """The next generation of a ratchet and its secret, derived from the tree if need be; changes nothing."""
        held = self._ratchets.get((leaf, kind))
        if held is not None:
            return (*held, None)
        known = None if self._ahead is None else self._ahead.descents.get(leaf)
        if known is not None and known.origin in self._nodes:
            return 0, known.ratchets[kind], known
        descent = self._descend(leaf)
        return 0, descent.ratchets[kind], descent

    def _descend(self, leaf: LeafIndex) -> Descent:
        suite, nodes = self.suite, self._nodes
        # From the top, where it is until the epoch's first messages; only one node on the way can be held.
        level = next((n for n in range(self._depth, -1, -1) if node_at(n, leaf) in nodes), None)
        if level is None:
            msg = f"no secret of leaf {int(leaf)} is held in this epoch"
            raise DecryptionError(msg, rule=Rule.GENERATION_USED)
        origin = node_at(level, leaf)
        secret = nodes[origin]
        siblings: dict[NodeIndex, Secret] = {}
        while level:
            level -= 1
            left, right = suite.derive_children(secret)
            if leaf >> level & 1:
                secret, sibling = right, left
            else:
                secret, sibling = left, right
            # The node at `level` that is not above the leaf, as `node_at` counts it.
            siblings[NodeIndex(((leaf >> level ^ 1) << level + 1) + (1 << level) - 1)] = sibling
        handshake, application = suite.derive_secrets(secret, ("handshake", "application"))
        return Descent(origin, siblings, (handshake, application))

    def _settle(self, leaf: LeafIndex, descent: Descent | None) -> None:
        """Replaces the secrets above a leaf by those beside its path and its two ratchets (§9.2)."""
        if descent is None or descent.origin not in self._nodes:
            # Another message came first and gave up what this was derived from.
            descent = self._descend(leaf)
        del self._nodes[descent.origin]
        self._changed.add(descent.origin)
        self._nodes.update(descent.siblings)
        self._changed.update(descent.siblings)
        for kind, secret in zip(_KINDS, descent.ratchets, strict=True):
            self._ratchets[(leaf, kind)] = (0, secret)
            self._changed.add((leaf, kind))

    def _forget(self, name: SkippedName) -> None:
        del self._skipped[name]
        self._changed.add(name)

    # -- storage

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What changed since the last call, by name; None for what is gone."""
        changes = {_stored_name(name): self._stored(name) for name in self._changed}
        self._changed.clear()
        return changes

    def _stored(self, name: Name) -> bytes | None:
        if isinstance(name, NodeIndex):
            secret = self._nodes.get(name)
            return None if secret is None else bytes(secret)
        if len(name) == 2:
            held = self._ratchets.get(name)
            return None if held is None else StoredRatchet(*held).encode()
        skipped = self._skipped.get(name)
        return None if skipped is None else StoredSkipped(*skipped).encode()

    def load(self, stored: Iterator[tuple[bytes, bytes]]) -> None:
        """Fills the tree with what `take_changes` gave, in any order."""
        skipped: list[tuple[int, SkippedName, tuple[Secret, Secret, int]]] = []
        for name, value in stored:
            kind, numbers = name[:1], [int(n) for n in name[1:].split(b".")]
            if kind == b"n":
                self._nodes[NodeIndex(numbers[0])] = Secret(value)
            elif kind == b"r":
                ratchet = StoredRatchet.decode(value)
                self._ratchets[(LeafIndex(numbers[0]), RatchetKind(numbers[1]))] = (
                    ratchet.generation,
                    ratchet.secret,
                )
            else:
                one = StoredSkipped.decode(value)
                full = (LeafIndex(numbers[0]), RatchetKind(numbers[1]), numbers[2])
                skipped.append((one.since, full, (one.key, one.nonce, one.since)))
        for _, full, entry in sorted(skipped, key=lambda s: (s[0], s[1])):
            self._skipped[full] = entry

    def held(self) -> Iterator[tuple[str, Secret]]:
        """Every secret that is held, with what it is (for `secrets_held`)."""
        for index, secret in self._nodes.items():
            yield f"secret tree {index!r}", secret
        for (leaf, kind), (generation, secret) in self._ratchets.items():
            yield f"{kind.label} ratchet of {leaf!r} from generation {generation}", secret
        for (leaf, kind, generation), (key, nonce, _) in self._skipped.items():
            yield f"skipped {kind.label} key {generation} of {leaf!r}", key
            yield f"skipped {kind.label} nonce {generation} of {leaf!r}", nonce


def _stored_name(name: Name) -> bytes:
    if isinstance(name, NodeIndex):
        return b"n%d" % name
    return (b"r%d.%d" if len(name) == 2 else b"s%d.%d.%d") % name
