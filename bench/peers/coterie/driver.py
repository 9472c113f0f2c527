"""The benchmark driver of Coterie itself: the same requests by line as its peers' (see ../README.md).

Run: python -m bench.peers.coterie.driver
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, TypeVar

import cryptography

from coterie import __version__
from coterie.client.cores import on_all_cores
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.extension import capabilities
from coterie.mls.framing import MLSMessage
from coterie.mls.group import (
    ApplicationMessage,
    CommitOptions,
    Config,
    Group,
    PendingCommit,
    StagedCommit,
)
from coterie.mls.key_package import (
    KeyPackage,
    KeyPackageBundle,
    VerifiedKeyPackage,
    create_key_package,
    validate_all,
)
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Proposal, Remove
from coterie.mls.sodium import use_libsodium
from coterie.mls.tree_math import LeafIndex
from coterie.testing import MemoryStore

Answer = dict[str, Any]
T = TypeVar("T")
HOUR, DAY = 3600, 24 * 3600
CALLS = 200


class Clock:
    """Times calls, by the clock and in the processor time of the whole process; nanoseconds."""

    def __init__(self) -> None:
        self.wall: list[int] = []
        self.cpu: list[int] = []

    def run(self, function: Callable[[], T]) -> T:
        """Calls and times it."""
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        result = function()
        self.cpu.append(time.process_time_ns() - cpu)
        self.wall.append(time.perf_counter_ns() - wall)
        return result

    def answer(self, **more: Any) -> Answer:
        """The times, with what else the request gives."""
        return {"wall": self.wall, "cpu": self.cpu, **more}


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _price(call: Callable[[], object]) -> float:
    clock = Clock()
    for _ in range(CALLS):
        clock.run(call)
    return statistics.median(clock.cpu)


class Member:
    """A client and, once it is in it, its group."""

    def __init__(self, suite: Suite, name: str) -> None:
        now = int(time.time())
        self.key: SignaturePrivateKey = suite.generate_signature_key(os.urandom)
        self.bundle: KeyPackageBundle = create_key_package(
            suite,
            self.key,
            Credential.basic(name.encode()),
            capabilities(cipher_suites=[suite.cipher_suite]),
            Lifetime(now - HOUR, now + 28 * DAY),
            rng=os.urandom,
        )
        self.store = MemoryStore()
        self._group: Group | None = None

    @property
    def group(self) -> Group:
        """The group that it is in."""
        assert self._group is not None
        return self._group

    @group.setter
    def group(self, group: Group) -> None:
        self._group = group


class Driver:
    """Answers requests; one method for each."""

    def __init__(self) -> None:
        self._config = Config(AcceptAnything(), run=on_all_cores)
        self._suite = suite_of(1)
        self._members: dict[str, Member] = {}

    def open(self, suite: int, provider: str) -> Answer:
        """Which suite all members of this process use, and whether libsodium helps."""
        self._suite = suite_of(suite)
        if provider == "libsodium":
            use_libsodium()
        return {"version": f"{__version__}, cryptography {cryptography.__version__}"}

    def primitives(self) -> Answer:
        """What the primitives cost, in nanoseconds of the processor."""
        suite, content, secret = self._suite, bytes(300), bytes(32)
        key, pair = suite.generate_signature_key(os.urandom), suite.derive_key_pair(secret)
        signature = suite.sign_with_label(key, "Bench", content)
        sealer = suite.sealer("Bench", content[:150])
        enc, sealed = sealer.seal(pair.public, secret, os.urandom)
        prices = {
            "sign": _price(lambda: suite.sign_with_label(key, "Bench", content)),
            "verify": _price(
                lambda: suite.verify_with_label(
                    key.public, "Bench", content, signature, rule="bench"
                )
            ),
            "seal": _price(lambda: sealer.seal(pair.public, secret, os.urandom)),
            "open": _price(
                lambda: suite.decrypt_with_label(pair, "Bench", content[:150], enc, sealed)
            ),
        }
        return {"prices": prices}

    def package(self, member: str) -> Answer:
        """A new client's key package."""
        made = self._members[member] = Member(self._suite, member)
        return {"package": _text(MLSMessage.of(made.bundle.key_package).encode())}

    def create(self, member: str) -> Answer:
        """A new group with one member."""
        made = self._members[member] = Member(self._suite, member)
        leaf = made.bundle.key_package.leaf_node
        assert leaf.lifetime is not None
        made.group = Group.create(
            os.urandom(16),
            self._suite,
            made.key,
            leaf.credential,
            leaf.capabilities,
            self._config,
            lifetime=leaf.lifetime,
        )
        return {}

    def join(self, member: str, welcome: str, tree: str | None) -> Answer:
        """Joining by a Welcome, with the tree inside or beside."""
        clock, joining = Clock(), self._members[member]
        message, beside = b64decode(welcome), b64decode(tree) if tree else None
        gc.collect()
        joining.group = clock.run(
            lambda: Group.join(MLSMessage.read(message), joining.bundle, self._config, tree=beside)
        )
        return clock.answer()

    def commit(self, member: str, packages: list[str], remove: list[int], inside: bool) -> Answer:  # noqa: FBT001 - JSON
        """A Commit that adds and removes, made and adopted."""
        clock, group, now = Clock(), self._members[member].group, int(time.time())
        added = [b64decode(package) for package in packages]
        removed = [Proposal.of(Remove(LeafIndex(leaf))) for leaf in remove]
        options = CommitOptions(tree_inside=inside)

        def act() -> tuple[PendingCommit, bytes, bytes]:
            proposals: list[Proposal | VerifiedKeyPackage] = [*removed, *self._validated(added)]
            pending = group.commit(proposals, now=now, options=options)
            welcome = pending.welcome.encode() if pending.welcome else b""
            message = pending.message.encode()
            group.adopt(pending, now=now)
            return pending, message, welcome

        before = _geometry(group)
        pending, message, welcome = clock.run(act)
        at = [*(before if not added else _geometry(group)), len(message), *_lengths(group)]
        return clock.answer(
            commit=_text(message),
            welcome=_text(welcome) if welcome else None,
            tree=_text(group.tree.encode()) if welcome and not inside else None,
            added=[add.leaf for add in pending.commit.added][:1],
            at=at,
        )

    def _validated(self, packages: list[bytes]) -> list[VerifiedKeyPackage]:
        bodies = [MLSMessage.read(package).body for package in packages]
        read = [body for body in bodies if isinstance(body, KeyPackage)]
        return validate_all(
            read,
            self._suite,
            self._config.authenticator,
            now=int(time.time()),
            run=self._config.run,
        )

    def process(self, member: str, commit: str) -> Answer:
        """A Commit of another member, verified and adopted."""
        clock, group, now = Clock(), self._members[member].group, int(time.time())
        message = b64decode(commit)

        def act() -> None:
            staged = group.receive(message, now=now)
            assert isinstance(staged, StagedCommit)
            group.adopt(staged, now=now)

        clock.run(act)
        return clock.answer()

    def encrypt(self, member: str, size: int, count: int) -> Answer:
        """Application messages of `size` bytes."""
        clock, group, data = Clock(), self._members[member].group, bytes(size)
        sent = [clock.run(lambda: group.encrypt(data).encode()) for _ in range(count)]
        return clock.answer(messages=[_text(message) for message in sent])

    def decrypt(self, member: str, messages: list[str]) -> Answer:
        """Application messages of another member, in their order."""
        clock, group = Clock(), self._members[member].group
        for message in [b64decode(message) for message in messages]:
            received = clock.run(lambda message=message: group.receive(message))  # type: ignore[misc]
            assert isinstance(received, ApplicationMessage)
        return clock.answer()

    def save(self, member: str) -> Answer:
        """What the last step changed, ready for a transaction; a dictionary takes it apart from the time."""
        clock, saving = Clock(), self._members[member]

        delta = clock.run(saving.group.save)
        saving.store.apply(delta)
        return clock.answer(bytes=delta.size)

    def load(self, member: str) -> Answer:
        """A saved group, ready to receive: it has looked up a sender."""
        clock, store = Clock(), self._members[member].store
        entries = store.entries()
        clock.run(lambda: Group.load(entries, store, self._config).member(0))
        return clock.answer(bytes=sum(map(len, store.data.values())))

    def drop(self, member: str) -> Answer:
        """Forgets a member."""
        del self._members[member]
        gc.collect()
        return {}


def _geometry(group: Group) -> list[int]:
    """Depth, path and ciphertexts of this member's next Commit, for `bench.floor.Geometry`."""
    path = group.tree.filtered_direct_path(group.own_leaf)
    seals = sum(node.sibling.resolution_size for node in path)
    return [group.tree.root.level, len(path), seals]


def _lengths(group: Group) -> list[int]:
    leaf = group.tree.leaf(group.own_leaf)
    assert leaf is not None
    return [len(leaf.encode()), len(group.context.encode())]


def main() -> None:
    driver = Driver()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(driver, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 - the other side wants the words
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
