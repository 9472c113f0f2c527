"""A thief of a device: what a full copy of its disk (with the storage key) and of its memory opens.

`Recorder` keeps everything that went over the network, and of each message a lock: what must be found to open it. The
thief is given more than a real one has: for the lock of a message, the envelope around it and who sent it as which
generation. `Loot` is one theft. It is tried in two ways: every secret in it in every role that the protocol has for a
secret, and Coterie's own code, started on the stolen state and given all that was recorded.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

from cryptography.exceptions import InvalidTag

from coterie.authentication.service import AuthenticationService
from coterie.client import Client
from coterie.client.epoch_keys import EpochKeys
from coterie.client.line import Line
from coterie.client.vault import Vault
from coterie.delivery.service import DeliveryService
from coterie.errors import CoterieError
from coterie.mls.crypto import SignaturePrivateKey, Suite
from coterie.mls.framing import MLSMessage, PrivateMessage, PublicMessage
from coterie.mls.group import ApplicationMessage, Group, StagedCommit
from coterie.mls.group_context import GroupContext
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.key_schedule import Joiner, exported_secret
from coterie.mls.private_message import SenderData, open_sender_data, ratchet_of
from coterie.mls.proposal import Commit
from coterie.mls.secret import Secret
from coterie.mls.tls import encode_opaque
from coterie.mls.treekem import PATH_LABEL
from coterie.storage import Profile, StorageKey
from coterie.transport import api
from tests.client_world import Weather, World

DEPTH = 3
"""How many levels a tree of these tests has below its root, at most."""


@dataclass(frozen=True)
class Lock:
    """A recorded message: opened by whoever finds the key of the envelope, and that of the message in it."""

    entry: api.Entry
    log_id: bytes
    suite: Suite
    context: GroupContext
    message: PrivateMessage
    sender: SenderData

    def opened_with(self, key: bytes, nonce: bytes) -> bool:
        """Whether these are the message's key and nonce."""
        message, guard = self.message, int.from_bytes(self.sender.reuse_guard)
        if len(key) != self.suite.key_length or len(nonce) != self.suite.nonce_length:
            return False
        guarded = (int.from_bytes(nonce[:4]) ^ guard).to_bytes(4) + nonce[4:]
        head = encode_opaque(message.group_id) + message.epoch.to_bytes(8)
        head += bytes((message.content_type,)) + encode_opaque(message.authenticated_data)
        with suppress(CoterieError):
            self.suite.aead_open(key, guarded, head, message.ciphertext)
            return True
        return False


class Recorder:
    """Everything that clients sent to the logs, in order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: list[api.Entry] = []
        self.locks: dict[bytes, Lock] = {}
        world.weather.tamper["logs/append"] = self._append

    def _append(self, request: api.Append, answer: api.Appended) -> api.Appended:
        self.entries.append(request.entry)
        for client in self.world.clients.values():
            for conversation in client._conversations.values():
                line = conversation._line
                if line is not None and line.state.epoch == request.entry.header.epoch:
                    self._lock(line, request)
                    return answer
        return answer

    def _lock(self, line: Line, request: api.Append) -> None:
        content = line.keys.open(request.entry)
        if content.kind != api.ContentKind.APPLICATION:
            return
        body = MLSMessage.read(content.content).body
        assert isinstance(body, PrivateMessage)
        keys = line.group._keys.of_epoch(body.epoch)
        assert keys is not None
        sender = open_sender_data(line.group.suite, body, keys.sender_data_secret)
        self.locks[request.entry.header.id] = Lock(
            request.entry, request.log_id, line.group.suite, line.group.context, body, sender
        )

    @property
    def last(self) -> Lock:
        """The lock of the message that was sent last."""
        return list(self.locks.values())[-1]


ELSEWHERE = (
    *(type, ModuleType, FrameType, World, Weather, DeliveryService, AuthenticationService),
    Suite,
)
"""What is not on the stolen device; frames are those of the test."""


def memory_of(*roots: object) -> list[Any]:
    """Everything that is reached from a client: through closures, too, which the thief's dump has."""
    seen: dict[int, Any] = {}
    todo = list(roots)
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, ELSEWHERE):
            continue
        seen[id(value)] = value
        if isinstance(value, FunctionType):
            todo += value.__closure__ or ()
        else:
            todo += gc.get_referents(value)
    return list(seen.values())


@dataclass
class Loot:
    """One theft: a copy of the disk, and every secret in it and in the memory."""

    folder: Path
    key: StorageKey
    secrets: set[bytes] = field(default_factory=set)

    @classmethod
    def take(cls, world: World, label: str, name: str) -> Loot:
        """Copies what a running device has on its disk and in its memory."""
        folder = world.folder / f"stolen-{name}"
        shutil.copytree(world.folder / label, folder)
        loot = cls(folder, StorageKey.given(label.encode().ljust(32, b"\0")))
        gc.collect()
        loot.secrets |= set(_secrets(memory_of(world.clients[label])))
        loot.secrets |= set(loot._on_disk())
        return loot

    def _on_disk(self) -> Iterator[bytes]:
        with Profile.open(self.folder, self.key) as profile:
            for space in profile.view.spaces():
                for value in profile.view.entries(space).values():
                    yield from _likely(value)
            for intent in profile.view.intents():
                yield from _likely(intent.payload)

    def line(self, profile: Profile, client: Client) -> Line:
        """The group as the stolen disk has it."""
        vault = Vault(profile)
        [conversation] = vault.conversations()
        return vault.load_line(conversation, client.tools.config)

    # -- the first way: every secret in every role

    def opens_message(self, lock: Lock) -> bool:
        """Whether anything stolen is, or leads to, the key of the message itself."""
        found = _Closure(lock.suite, lock.context, self.secrets)
        return found.has_message_key(lock)

    def opens_envelope(self, lock: Lock) -> bool:
        """Whether anything stolen is, or leads to, the key of the envelope around the message."""
        found = _Closure(lock.suite, lock.context, self.secrets)
        return any(_opens(candidate, lock) for candidate in found.envelope_secrets(lock.log_id))

    def opens_path(self, commit: bytes, context: GroupContext, suite: Suite) -> bool:
        """Whether a stolen private key opens any path secret of a Commit that began the epoch `context`."""
        body = MLSMessage.read(commit).body
        assert isinstance(body, PublicMessage)
        assert isinstance(body.content.body, Commit)
        assert body.content.body.path is not None
        sealed = [s for node in body.content.body.path.nodes for s in node.encrypted_path_secret]
        assert sealed
        for private in self.secrets:
            with suppress(CoterieError):
                key = suite.load_hpke_key(private)
                for each in sealed:
                    with suppress(CoterieError):
                        suite.decrypt_with_label(
                            key, PATH_LABEL, context.encode(), each.kem_output, each.ciphertext
                        )
                        return True
        return False

    # -- the second way: the program itself

    def follow(self, entries: Iterable[api.Entry], client: Client) -> list[bytes]:
        """What the stolen state reads of the log when it goes on as its owner would."""
        read: list[bytes] = []
        with Profile.open(self.folder, self.key) as profile:
            line = self.line(profile, client)
            group, log_id, keys = line.group, line.binding.log_id, line.keys
            for entry in entries:
                with suppress(CoterieError):
                    keys = _go_on(group, keys, log_id, entry, read)
        return read


def _go_on(
    group: Group, keys: EpochKeys, log_id: bytes, entry: api.Entry, read: list[bytes]
) -> EpochKeys:
    content = keys.open(entry)
    data = content.content
    if content.kind == api.ContentKind.COMMIT:
        data = api.CommitContent.decode(data).commit
    received = group.receive(MLSMessage.read(data), now=None)
    if isinstance(received, ApplicationMessage):
        read.append(received.data)
    if isinstance(received, StagedCommit):
        group.adopt(received)
        return EpochKeys.derive(group.export_secret, log_id)
    return keys


def _secrets(objects: Iterable[Any]) -> Iterator[bytes]:
    for value in objects:
        if isinstance(value, HPKEPrivateKey | SignaturePrivateKey):
            yield bytes(value.private_bytes())
        elif isinstance(value, bytes) and (isinstance(value, Secret) or len(value) in (12, 16, 32)):
            yield bytes(value)
            yield from _likely(value)
        elif isinstance(value, bytes | bytearray) and len(value) < 1 << 16:
            yield from _likely(bytes(value))


def _likely(value: bytes) -> Iterator[bytes]:
    """What may be a key in an encoding: after a header that says 12, 16 or 32 bytes, first or last."""
    for length in (12, 16, 32):
        yield value[:length]
        yield value[-length:]
        place = value.find(bytes((length,)))
        while 0 <= place < len(value) - length:
            yield value[place + 1 : place + 1 + length]
            place = value.find(bytes((length,)), place + 1)


def _opens(candidate: bytes, lock: Lock) -> bool:
    nothing = Secret(bytes(32))
    keys = EpochKeys(lock.log_id, nothing, nothing, Secret(candidate), nothing, nothing, nothing)
    try:
        keys._envelope(lock.entry.header.id).decrypt(
            bytes(12), lock.entry.sealed, lock.entry.header.encode()
        )
    except InvalidTag:
        return False
    return True


class _Closure:
    """What can be derived from stolen secrets by the protocol, whatever each of them is."""

    def __init__(self, suite: Suite, context: GroupContext, stolen: set[bytes]) -> None:
        self.suite = suite
        self.context = context
        self.short = [s for s in stolen if len(s) in (suite.key_length, suite.nonce_length)]
        self.long = [s for s in stolen if len(s) == suite.hash_length]

    def epochs(self) -> Iterator[tuple[bytes, bytes]]:
        """Exporter and encryption secrets of this epoch: each secret as itself, or as one from which they follow."""
        suite, zero = self.suite, bytes(self.suite.hash_length)
        context, length = self.context.encode(), suite.hash_length
        for secret in self.long:
            yield secret, secret
            for made in (
                secret,
                suite.extract(secret, zero),
                # As the init secret, where the Commit had no path.
                Joiner.of_commit(suite, secret, zero, zero, self.context).member_secret,
            ):
                for epoch in (made, suite.expand_with_label(made, "epoch", context, length)):
                    yield (
                        suite.derive_secret(epoch, "exporter"),
                        suite.derive_secret(epoch, "encryption"),
                    )

    def envelope_secrets(self, log_id: bytes) -> Iterator[bytes]:
        """Everything that may be the secret of the envelopes."""
        label = api.EXPORT_ENVELOPE_SECRET.decode()
        for exporter, _ in self.epochs():
            yield exporter
            yield exported_secret(self.suite, exporter, label, log_id, 32)

    def has_message_key(self, lock: Lock) -> bool:
        """Whether the key of the message is among them, or follows from one of them."""
        keys = [s for s in self.short if len(s) == self.suite.key_length]
        nonces = [s for s in self.short if len(s) == self.suite.nonce_length]
        if any(lock.opened_with(key, nonce) for key in keys for nonce in nonces):
            return True
        return any(self._ratchet_opens(lock, r) for r in self._ratchets(lock))

    def _ratchets(self, lock: Lock) -> Iterator[bytes]:
        label = ratchet_of(lock.message.content_type).label
        seen: set[bytes] = set()
        for _, encryption in self.epochs():
            level = {bytes(encryption)} - seen
            for _ in range(DEPTH + 1):
                seen |= level
                yield from level
                yield from (self.suite.derive_secret(s, label) for s in level)
                level = {bytes(c) for s in level for c in self.suite.derive_children(s)}

    def _ratchet_opens(self, lock: Lock, secret: bytes) -> bool:
        """As the ratchet of any generation up to the message's."""
        suite, last = self.suite, lock.sender.generation
        for first in range(last + 1):
            at = secret
            for generation in range(first, last):
                at = suite.derive_tree_secret(at, "secret", generation, suite.hash_length)
            key = suite.derive_tree_secret(at, "key", last, suite.key_length)
            nonce = suite.derive_tree_secret(at, "nonce", last, suite.nonce_length)
            if lock.opened_with(key, nonce):
                return True
        return False
