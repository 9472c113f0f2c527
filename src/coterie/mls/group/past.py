"""The message keys of the present epoch and of a few past ones, and what goes with them (RFC 9420 §8.6, §9.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from coterie.mls.framing import MLSMessage
from coterie.mls.group.config import Limits
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.results import SecretHeld
from coterie.mls.group.state import StoredPast, stored_tree
from coterie.mls.group_context import GroupContext
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.ratchet_tree.subtree import NODE_PREFIX
from coterie.mls.secret import Secret
from coterie.mls.secret_tree import MessageKey, RatchetKind, SecretTree
from coterie.mls.tree_math import LeafIndex
from coterie.mls.types import ContentType


@dataclass(frozen=True, slots=True, repr=False)
class MessageEpoch:
    """What opening messages of one epoch needs."""

    context: GroupContext
    tree: RatchetTree
    sender_data_secret: Secret
    secret_tree: SecretTree
    ended: int | None = None
    gone: tuple[bytes, ...] = ()
    """The hashes of nodes that the next epoch's tree has not; they are dropped with this epoch."""


class KeyRing:
    """All message keys of a group; the one mutable owner of its secret trees."""

    def __init__(self, epoch: Epoch, secret_tree: SecretTree, limits: Limits) -> None:
        self._limits = limits
        self._present = _of(epoch, secret_tree)
        self._past: dict[int, MessageEpoch] = {}
        self._resumption: dict[int, Secret] = {epoch.number: epoch.secrets.resumption_psk}
        self._own: dict[bytes, tuple[ContentType, int]] = {}
        self._doomed: dict[bytes, int] = {}
        """The nodes that the store drops, with the past epoch with which they go."""
        self._puts: dict[bytes, bytes] = {}
        self._drops: set[bytes] = set()
        self._drop_prefixes: list[bytes] = []
        self._keep_psk(epoch)

    # -- keys

    def next_sending(self, leaf: LeafIndex, kind: RatchetKind) -> MessageKey:
        """Burns the next generation of the own ratchet."""
        return self._present.secret_tree.next_sending(leaf, kind)

    def of_epoch(self, number: int) -> MessageEpoch | None:
        """The keys of an epoch, if they are held."""
        if number == self._present.context.epoch:
            return self._present
        return self._past.get(number)

    def past_trees(self, after: int) -> Iterator[RatchetTree]:
        """The trees of past epochs with a higher number."""
        return (keys.tree for number, keys in self._past.items() if number > after)

    def resumption_psk(self, epoch: int) -> Secret | None:
        """The resumption key of an epoch, if it is held."""
        return self._resumption.get(epoch)

    def forget_ahead(self) -> None:
        """Drops the secrets that were derived before it was their turn."""
        for keys in (self._present, *self._past.values()):
            keys.secret_tree.forget_ahead()

    # -- own messages

    def remember_own(
        self, message: bytes, epoch: int, kind: ContentType = ContentType.COMMIT
    ) -> None:
        """Notes a message that this client made, so that its echo is recognised."""
        digest = hashlib.sha256(message).digest()
        self._own[digest] = (kind, epoch)
        self._puts[_own_key(epoch, digest)] = bytes((kind,))

    def own_message(self, message: MLSMessage) -> tuple[ContentType, int] | None:
        """Content type and epoch of a message that this client made, None for others'."""
        return self._own.get(hashlib.sha256(message.encode()).digest())

    # -- time goes on

    def advance(self, old: Epoch, new: Epoch, secret_tree: SecretTree, now: int) -> None:
        """The present epoch becomes a past one."""
        suite, before = old.suite, self._present
        lost, gained = new.tree.changes_since(old.tree)
        gone = tuple(node.tree_hash(suite) for node in lost)
        if self._doomed or self._drops:
            for node in gained:
                self._spare(node.tree_hash(suite))
        self._doomed.update(dict.fromkeys(gone, before.context.epoch))
        past = MessageEpoch(
            before.context, before.tree, before.sender_data_secret, before.secret_tree, now, gone
        )
        self._keep_past(past)
        if old.number - 1 not in self._past:
            # The epoch that ended with the external Commit by which this member came.
            self._forget(old.number - 1)
        self._present = _of(new, secret_tree)
        self._keep_psk(new)
        self.expire(now)

    def _spare(self, tree_hash: bytes) -> None:
        """A node that an earlier epoch gave up stands in the tree again, and is kept when that epoch goes."""
        # Where that epoch went since the last save, the store has the node still.
        self._drops.discard(NODE_PREFIX + tree_hash)
        number = self._doomed.pop(tree_hash, None)
        if number is not None:
            past = self._past[number]
            self._keep_past(replace(past, gone=tuple(h for h in past.gone if h != tree_hash)))

    def _keep_past(self, past: MessageEpoch) -> None:
        self._past[past.context.epoch] = past
        self._puts[_past_key(past.context.epoch)] = _stored_past(past)

    def _keep_psk(self, epoch: Epoch) -> None:
        number = epoch.number
        self._resumption[number] = epoch.secrets.resumption_psk
        self._puts[_psk_key(number)] = bytes(epoch.secrets.resumption_psk)
        while len(self._resumption) > self._limits.max_resumption_psks + 1:
            oldest = min(self._resumption)
            del self._resumption[oldest]
            self._drop(_psk_key(oldest))

    def expire(self, now: int) -> None:
        """Gives up past epochs that are too many or too old, and skipped keys."""
        limits, numbers = self._limits, sorted(self._past)
        gone = max(len(numbers) - limits.max_past_epochs, 0)
        for place, number in enumerate(numbers, 1):
            past = self._past[number]
            if past.ended and now - past.ended > limits.max_past_age:
                gone = max(gone, place)
            elif past.ended and 0 < now < past.ended:
                # Ended when the clock was ahead: its age counts from now.
                self._keep_past(replace(past, ended=now))
        # All up to the last one: clocks are set back, and the nodes that it gave up may be those of an earlier one.
        for number in numbers[:gone]:
            self._give_up(self._past.pop(number))
        for keys in (self._present, *self._past.values()):
            keys.secret_tree.evict(now)

    def _give_up(self, past: MessageEpoch) -> None:
        number = past.context.epoch
        for tree_hash in past.gone:
            if self._doomed.get(tree_hash) == number:
                del self._doomed[tree_hash]
                self._drop(NODE_PREFIX + tree_hash)
        self._drop(_past_key(number))
        self._forget(number)

    def _forget(self, number: int) -> None:
        """Drops the message keys and the memory of own messages of an epoch."""
        prefixes = (b"s/%d/" % number, b"o/%d/" % number)
        self._drop_prefixes += prefixes
        for key in [key for key in self._puts if key.startswith(prefixes)]:
            del self._puts[key]
        for digest in [digest for digest, (_, epoch) in self._own.items() if epoch == number]:
            del self._own[digest]

    def _drop(self, key: bytes) -> None:
        self._puts.pop(key, None)
        self._drops.add(key)

    def clear(self) -> None:
        """Forgets every key: the group is over for this client."""
        empty = SecretTree(self._present.tree.suite, 1, self._limits.ratchets)
        present = self._present
        self._present = MessageEpoch(
            present.context, present.tree, Secret(b""), empty, present.ended
        )
        self._past.clear()
        self._doomed.clear()
        self._resumption.clear()
        self._own.clear()
        self._puts.clear()

    # -- storage

    def take_changes(self) -> tuple[dict[bytes, bytes], set[bytes], list[bytes]]:
        """Puts, drops and dropped prefixes since the last call."""
        puts, drops, prefixes = self._puts, self._drops, self._drop_prefixes
        self._puts, self._drops, self._drop_prefixes = {}, set(), []
        for keys in (self._present, *self._past.values()):
            prefix = b"s/%d/" % keys.context.epoch
            for name, value in keys.secret_tree.take_changes().items():
                if value is None:
                    drops.add(prefix + name)
                else:
                    puts[prefix + name] = value
        return puts, drops, prefixes

    def restore(
        self,
        past: Iterable[MessageEpoch],
        resumption: dict[int, Secret],
        own: dict[bytes, tuple[ContentType, int]],
    ) -> None:
        """Takes over what was stored."""
        self._past = {keys.context.epoch: keys for keys in past}
        for number, keys in self._past.items():
            self._doomed.update(dict.fromkeys(keys.gone, number))
        self._resumption = resumption
        self._own = own
        self._puts.clear()

    def held(self, present: Epoch) -> Iterator[SecretHeld]:
        """Every secret, since when and why."""
        number = present.number
        why = "members of the epoch share it until the next Commit"
        for field in present.secrets._fields:
            yield SecretHeld(field.name, number, why)
        yield SecretHeld("leaf private key", number, "opens path secrets for the own leaf")
        for node in present.private.parents:
            yield SecretHeld(f"private key of {node!r}", number, "opens path secrets for it")
        yield SecretHeld("signature private key", number, "signs in this member's name")
        for epoch in self._resumption:
            yield SecretHeld("resumption key", epoch, "may be asked for by a later Commit")
        for keys in (self._present, *self._past.values()):
            epoch = keys.context.epoch
            late = epoch != number
            if late:
                yield SecretHeld("sender_data_secret", epoch, "opens late messages")
            for what, _ in keys.secret_tree.held():
                yield SecretHeld(what, epoch, "opens late messages" if late else "message keys")


def _of(epoch: Epoch, secret_tree: SecretTree) -> MessageEpoch:
    return MessageEpoch(epoch.context, epoch.tree, epoch.secrets.sender_data_secret, secret_tree)


def _stored_past(past: MessageEpoch) -> bytes:
    return StoredPast(
        past.context, stored_tree(past.tree), past.sender_data_secret, past.ended or 0, past.gone
    ).encode()


def _past_key(epoch: int) -> bytes:
    return b"e/%d" % epoch


def _psk_key(epoch: int) -> bytes:
    return b"k/%d" % epoch


def _own_key(epoch: int, digest: bytes) -> bytes:
    return b"o/%d/" % epoch + digest
