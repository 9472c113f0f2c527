"""What is known of all members at once, without looking at each (RFC 9420 §7.3, §11.1, §12.2).

Which keys and clients a tree has, and how many members support each extension, proposal and credential type: counters
under short names, which change by as many entries as leaves and parents do. A group keeps them for the epoch that it
adopted; an epoch that is only staged has an `IndexView`: the same counters and what would be added to them.

Names start with a letter: `e` encryption key, `s` signature key, `m` client, `x` extension type, `p` proposal type,
`c` credential type in the capabilities, `u` credential type in use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from coterie.errors import StorageError
from coterie.mls.credential import Authenticator
from coterie.mls.extension import Capabilities
from coterie.mls.leaf_node import LeafNode
from coterie.mls.ratchet_tree import NodeStore, ParentNode, RatchetTree

INDEX_PREFIX = b"i/"
"""Stored counters have this before their name; the value is decimal digits."""

_ENCRYPTION = b"e"
_SIGNATURE = b"s"
_CLIENT = b"m"
_IN_USE = b"u"


def encryption_key_name(key: bytes) -> bytes:
    """The name of an HPKE public key."""
    return _ENCRYPTION + key


def signature_key_name(key: bytes) -> bytes:
    """The name of a signature key."""
    return _SIGNATURE + key


def client_name(client_id: bytes) -> bytes:
    """The name of a client, of fixed length."""
    return _CLIENT + sha256(client_id).digest()


def type_name(kind: bytes, value: int) -> bytes:
    """The name of a type; `kind` is one of x, p, c, u."""
    return kind + int(value).to_bytes(2)


def entries(content: LeafNode | ParentNode | None, authenticator: Authenticator) -> Iterable[bytes]:
    """The names under which a node of the tree counts."""
    if content is None:
        return
    yield encryption_key_name(content.encryption_key)
    if isinstance(content, LeafNode):
        yield signature_key_name(content.signature_key)
        yield client_name(authenticator.client_id(content.credential))
        yield type_name(_IN_USE, content.credential.credential_type)
        yield from capability_names(content.capabilities)


def capability_names(own: Capabilities) -> Iterable[bytes]:
    """The names of what a leaf supports, each once."""
    yield from {type_name(b"x", t) for t in own.extensions}
    yield from {type_name(b"p", t) for t in own.proposals}
    yield from {type_name(b"c", t) for t in own.credentials}


def changes_between(
    old: RatchetTree, new: RatchetTree, authenticator: Authenticator
) -> dict[bytes, int]:
    """What must be added to the counters of `old` to have those of `new`; looks at what differs only."""
    changes: dict[bytes, int] = {}
    lost, gained = new.changes_since(old)
    gone = {(node.level, node.start): node.node for node in lost}
    members: list[LeafNode] = []
    for tree in gained:
        before, after = gone.pop((tree.level, tree.start), None), tree.node
        if before is after:
            continue
        if before is None and isinstance(after, LeafNode):
            members.append(after)
            continue
        if before is None or after is None or not tree.level:
            _count_change(changes, before, after, authenticator)
            continue
        # A parent that is merely renewed, as all nodes of a path are: only its key is another one.
        name = _ENCRYPTION + before.encryption_key
        changes[name] = changes.get(name, 0) - 1
        name = _ENCRYPTION + after.encryption_key
        changes[name] = changes.get(name, 0) + 1
    for before in gone.values():
        _count_change(changes, before, None, authenticator)
    _count_members(changes, members, authenticator)
    return {name: count for name, count in changes.items() if count}


def added_up(first: Mapping[bytes, int], then: Mapping[bytes, int]) -> Mapping[bytes, int]:
    """What must be added for two changes, one after the other."""
    if not first:
        return then
    changes = dict(first)
    for name, count in then.items():
        total = changes.get(name, 0) + count
        if total:
            changes[name] = total
        else:
            del changes[name]
    return changes


def _count_members(
    changes: dict[bytes, int], leaves: Sequence[LeafNode], authenticator: Authenticator
) -> None:
    """Counts leaves that come to blank places: maybe thousands, most with equal capabilities that are one object."""
    count, client_id = changes.get, authenticator.client_id
    for leaf in leaves:
        for name in (
            _ENCRYPTION + leaf.encryption_key,
            _SIGNATURE + leaf.signature_key,
            client_name(client_id(leaf.credential)),
        ):
            changes[name] = count(name, 0) + 1
    for kind, number in Counter(int(leaf.credential.credential_type) for leaf in leaves).items():
        name = type_name(_IN_USE, kind)
        changes[name] = count(name, 0) + number
    own = [leaf.capabilities for leaf in leaves]
    alike = Counter(map(id, own))
    for each in {id(capabilities): capabilities for capabilities in own}.values():
        for name in capability_names(each):
            changes[name] = count(name, 0) + alike[id(each)]


def _count_change(
    changes: dict[bytes, int],
    before: LeafNode | ParentNode | None,
    after: LeafNode | ParentNode | None,
    authenticator: Authenticator,
) -> None:
    """Counts what takes another node's place."""
    if before is not None and after is not None and _is_renewed(before, after):
        out: Iterable[bytes] = (encryption_key_name(before.encryption_key),)
        into: Iterable[bytes] = (encryption_key_name(after.encryption_key),)
    else:
        out, into = entries(before, authenticator), entries(after, authenticator)
    for name in out:
        changes[name] = changes.get(name, 0) - 1
    for name in into:
        changes[name] = changes.get(name, 0) + 1


def _is_renewed(before: LeafNode | ParentNode, after: LeafNode | ParentNode) -> bool:
    """Whether only the key pair of a leaf is another: so it is with the committer's, in every Commit."""
    return (
        isinstance(before, LeafNode)
        and isinstance(after, LeafNode)
        and before.signature_key == after.signature_key
        and before.credential == after.credential
        and before.capabilities == after.capabilities
    )


class Counters(Protocol):
    """Counters that can be looked up."""

    def count(self, name: bytes) -> int:
        """How many nodes count under the name."""

    def counts(self, names: Iterable[bytes]) -> list[int]:
        """How many nodes count under each name."""

    def credential_types_in_use(self) -> frozenset[int]:
        """The types of all members' credentials."""


class TreeIndex:
    """The counters of an adopted epoch, in memory or, where not yet looked at, in the store.

    What a whole tree has once gets no name until somebody changes or saves it: a joiner asks of 50,000 members' keys
    only whether they differ. Sets of the very bytes that are in the tree say that; they take no copies.
    """

    __slots__ = ("_all_changed", "_changed", "_clients", "_counts", "_in_use", "_once", "_store")

    def __init__(self, store: NodeStore | None = None) -> None:
        self._store = store
        self._counts: dict[bytes, int] = {}
        self._once: dict[bytes, set[bytes]] = {}
        """What follows the kind's letter in names that count 1 and are not in `_counts`."""
        self._clients: list[bytes] = []
        """Clients that were not counted yet: a joiner need not know who has two leaves."""
        self._changed: set[bytes] = set()
        self._all_changed = False
        self._in_use: Counter[int] | None = None if store else Counter()

    @classmethod
    def of_tree(cls, tree: RatchetTree, authenticator: Authenticator) -> TreeIndex:
        """The counters of a whole tree: looks at every node."""
        leaves, client_id = tree.leaf_nodes(), authenticator.client_id
        credentials = [leaf.credential for leaf in leaves]
        keys = [at.node.encryption_key for at in tree.parents()]  # type: ignore[union-attr]
        keys += [leaf.encryption_key for leaf in leaves]
        index = cls()
        index._all_changed = True
        index._once = {
            _ENCRYPTION: index._take(keys, encryption_key_name),
            _SIGNATURE: index._take([leaf.signature_key for leaf in leaves], signature_key_name),
        }
        index._clients = list(map(client_id, credentials))
        index._in_use = Counter(int(credential.credential_type) for credential in credentials)
        for kind, count in index._in_use.items():
            index._counts[type_name(_IN_USE, kind)] = count
        # Most leaves have the same capabilities, as one object.
        own = [leaf.capabilities for leaf in leaves]
        alike = Counter(map(id, own))
        for each in dict(zip(map(id, own), own, strict=True)).values():
            for name in capability_names(each):
                index._counts[name] = index._counts.get(name, 0) + alike[id(each)]
        return index

    def _take(self, values: list[bytes], name: Callable[[bytes], bytes]) -> set[bytes]:
        """Counts what is there more than once; returns the rest, nearly always all."""
        once = set(values)
        if len(once) == len(values):
            return once
        repeated = {value: count for value, count in Counter(values).items() if count > 1}
        self._counts.update((name(value), count) for value, count in repeated.items())
        return once - repeated.keys()

    def _names_once(self, kind: bytes) -> set[bytes]:
        """What follows the letter in the names of a kind that count 1 and are not in `_counts`."""
        if kind == _CLIENT and self._clients:
            once = self._take(self._clients, client_name)
            self._once[_CLIENT] = {client_name(client)[1:] for client in once}
            self._clients = []
        return self._once.get(kind, set())

    def count(self, name: bytes) -> int:
        """How many nodes count under the name."""
        known = self._counts.get(name)
        if known is None:
            if self._store is None:
                once = self._names_once(name[:1])
                return self._counts.get(name) or int(name[1:] in once)
            known = _number(self._store.get(INDEX_PREFIX + name) or b"0")
            self._counts[name] = known
        return known

    def counts(self, names: Iterable[bytes]) -> list[int]:
        """How many nodes count under each name."""
        if self._store is not None or not self._is_named():
            return list(map(self.count, names))
        known = self._counts
        return [known.get(name, 0) for name in names]

    def _is_named(self) -> bool:
        """Whether everything that is in memory has its name in `_counts`."""
        return not (self._clients or any(self._once.values()))

    def credential_types_in_use(self) -> frozenset[int]:
        """The types of all members' credentials."""
        return frozenset(t for t, count in self._types_in_use().items() if count)

    def _types_in_use(self) -> Counter[int]:
        if self._in_use is None:
            stored = (self._store.get(INDEX_PREFIX + _IN_USE) if self._store else None) or b""
            pairs = (entry.partition(b":") for entry in stored.split())
            self._in_use = Counter({_number(kind): _number(count) for kind, _, count in pairs})
        return self._in_use

    def duplicates(self) -> Iterable[tuple[bytes, int]]:
        """The names of keys that more than one node has, of what is in memory."""
        for name, count in self._counts.items():
            if count > 1 and name[:1] in {_ENCRYPTION, _SIGNATURE}:
                yield name, count

    def apply(self, changes: Mapping[bytes, int]) -> None:
        """Adopts the changes of a staged epoch."""
        in_use = self._types_in_use()
        counts, in_memory = self._counts, self._store is None
        before = self.counts(changes)
        if not self._is_named():
            for name in changes:
                self._names_once(name[:1]).discard(name[1:])
        for (name, change), value in zip(changes.items(), before, strict=True):
            if name[:1] == _IN_USE:
                in_use[int.from_bytes(name[1:])] += change
            if value + change or not in_memory:
                counts[name] = value + change
            else:
                counts.pop(name, None)
        self._changed.update(changes)

    def named(self) -> Mapping[bytes, int]:
        """All counters that are in memory, under their names."""
        for kind in (_ENCRYPTION, _SIGNATURE, _CLIENT):
            once = self._names_once(kind)
            self._counts.update(dict.fromkeys([kind + rest for rest in once], 1))
            once.clear()
        return self._counts

    def take_changes(self) -> dict[bytes, bytes | None]:
        """What changed since the last call, as it is stored; None for what is gone."""
        if self._all_changed:
            self._changed.update(self.named())
            self._all_changed = False
        changes: dict[bytes, bytes | None] = {
            INDEX_PREFIX + name: b"%d" % count if (count := self.count(name)) else None
            for name in self._changed
        }
        if any(name[:1] == _IN_USE for name in self._changed):
            pairs = (b"%d:%d" % pair for pair in sorted(self._types_in_use().items()) if pair[1])
            changes[INDEX_PREFIX + _IN_USE] = b" ".join(pairs)
        self._changed.clear()
        return changes


def _number(value: bytes) -> int:
    """A stored counter; raises `StorageError` where it is none."""
    if not value.isdigit():
        msg = f"the store is damaged: {value[:20]!r} is no counter; restore it from a backup"
        raise StorageError(msg)
    return int(value)


class IndexView:
    """The counters of an epoch that is only staged: those of the present one and what would be added."""

    __slots__ = ("_in_use", "base", "changes")

    def __init__(self, base: Counters, changes: Mapping[bytes, int]) -> None:
        self.base = base
        self.changes = changes
        self._in_use: frozenset[int] | None = None

    def count(self, name: bytes) -> int:
        """How many nodes count under the name."""
        return self.base.count(name) + self.changes.get(name, 0)

    def counts(self, names: Iterable[bytes]) -> list[int]:
        """How many nodes count under each name."""
        names, changes = list(names), self.changes
        before = self.base.counts(names)
        return [count + changes.get(name, 0) for name, count in zip(names, before, strict=True)]

    def credential_types_in_use(self) -> frozenset[int]:
        """The types of all members' credentials."""
        if self._in_use is None:
            types = set(self.base.credential_types_in_use())
            types.update(int.from_bytes(name[1:]) for name in self.changes if name[:1] == _IN_USE)
            self._in_use = frozenset(t for t in types if self.count(type_name(_IN_USE, t)))
        return self._in_use
