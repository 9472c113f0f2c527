"""Large groups by the clock, by memory and from the disk: `python -m bench.large --members 50000 --json FILE`.

`bench.core` times one thread. Here are the operations that use all cores (joining, adding many), with floors that use
them too: the same signature checks and seals, bare, over the same threads in the same run. Then what a join needs in
memory, a restart through `coterie.storage`, and an epoch of messages that a member reads who was away. With
`--primitives libsodium` both the operations and their floors use it where the core does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_der_x509_certificate

from bench import floor
from bench.core import BESIDE, Row, machine, print_table, say, unchecked, whole
from bench.floor import Prices
from bench.shapes import LIFETIME, NOW, Kind, Shape, build
from coterie.authentication.ca import CertificateAuthority
from coterie.client.cores import on_all_cores
from coterie.errors import UnsupportedError
from coterie.identity.issuer import X509Issuer
from coterie.identity.names import DeviceId, UserId
from coterie.identity.x509 import forget_end_entities
from coterie.mls.credential import AcceptAnything, Credential
from coterie.mls.crypto import SignaturePrivateKey, Suite, suite_of
from coterie.mls.group import Group, StagedCommit
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage, validate_all
from coterie.mls.leaf_node import signature_jobs
from coterie.mls.ratchet_tree import UnverifiedTree, collector_paused
from coterie.mls.sodium import use_libsodium
from coterie.mls.validation import Policy, verify_tree
from coterie.storage import Profile, StorageKey

Raw = tuple[bytes, bytes, bytes]
"""Public key, signature, message: what the library takes."""
SENDERS = 100
MESSAGES = 10_000


def clocked(
    function: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """The seconds that a call takes."""
    gc.collect()
    start = clock()
    function()
    return clock() - start


def labelled(suite: Suite, jobs: Iterator[tuple[bytes, str, bytes, bytes]]) -> list[Raw]:
    """Signature checks as the library takes them, put together beforehand."""
    seen: list[Raw] = []
    verify = suite.signature
    recorder = replace(
        verify, verify=lambda public, signature, text: seen.append((public, signature, text))
    )
    suite.signature = recorder
    try:
        suite.verify_batch(list(jobs))
    finally:
        suite.signature = verify
    return seen


def check_bare(suite: Suite, raw: Sequence[Raw]) -> None:
    """The signature checks and nothing else, on all cores."""
    verify = suite.signature.verify

    def batch(some: Sequence[Raw]) -> None:
        for public, signature, message in some:
            verify(public, signature, message)

    for _ in on_all_cores(batch, [raw[n : n + 64] for n in range(0, len(raw), 64)]):
        pass


def seal_bare(suite: Suite, keys: Sequence[bytes]) -> None:
    """The seals and nothing else, on all cores where the curve lets other threads run."""
    sealer = suite.sealer("Welcome", bytes(200))
    for _ in sealer.seal_many(((key, bytes(70)) for key in keys), os.urandom, on_all_cores):
        pass


def joining(shape: Shape, rounds: int) -> Iterator[Row]:
    """Joining with the tree beside, on all cores, against the bare signature checks on all cores."""
    bundle, me, suite = shape.bundle(b"joiner"), shape.member(0), shape.suite
    package = bundle.key_package.validate(suite, shape.config.authenticator, now=NOW)
    pending = me.commit([package], now=NOW, options=BESIDE)
    welcome, following = pending.welcome, pending.next
    assert welcome is not None
    assert following is not None
    tree = following.epoch.tree
    encoded, group_id = tree.encode(), shape.context.group_id
    raw = labelled(suite, signature_jobs(tree.members(), group_id))
    config = replace(shape.config, run=on_all_cores)
    bare: list[float] = []
    whole_join: list[float] = []
    besides: list[float] = []
    alone = replace(shape.config, run=unchecked)
    for _ in range(rounds):
        bare.append(clocked(partial(check_bare, suite, raw)))
        whole_join.append(clocked(partial(Group.join, welcome, bundle, config, tree=encoded)))
        join = partial(Group.join, welcome, bundle, alone, tree=encoded)
        besides.append(clocked(join, time.thread_time))
    n = shape.n
    yield Row(
        "join, all cores",
        "large",
        n,
        statistics.median(whole_join),
        statistics.median(bare),
        len(encoded),
    )
    yield Row("join besides signatures", "large", n, statistics.median(besides))
    yield Row("join, memory", "large", n, 0, 0, memory_of_join(shape))


def joining_x509(n: int) -> Iterator[Row]:
    """Verifying a tree whose members have certificates of one authority, against its bare signature checks."""
    start = int(time.time())
    authority = CertificateAuthority.create("example.org", now=start)
    realm = load_der_x509_certificate(authority.certificate).public_key()
    assert isinstance(realm, EllipticCurvePublicKey)
    certificates: list[bytes] = []

    def certified(leaf: int, key: SignaturePrivateKey) -> Credential:
        device = DeviceId(UserId(f"user{leaf}", "example.org"), f"{leaf:032x}")
        made = authority.issue(device, key.public, now=start, lifetime=30 * 24 * 3600)
        certificates.append(made)
        return Credential.x509((made,))

    kind = replace(Kind.plain(n, suite_of(1), LIFETIME), credential=certified)
    shape = build(n, "warm", kind=kind)
    encoded, policy = shape.tree.encode(), Policy(X509Issuer([authority.certificate]))
    raw = labelled(shape.suite, signature_jobs(shape.tree.members(), shape.context.group_id))
    signed = [load_der_x509_certificate(each) for each in certificates]
    parts = [(each.signature, each.tbs_certificate_bytes) for each in signed]
    ecdsa, verify = ECDSA(SHA256()), shape.suite.signature.verify

    def bare(some: Sequence[tuple[tuple[bytes, bytes], Raw]]) -> None:
        for (signature, data), one in some:
            realm.verify(signature, data, ecdsa)
            verify(*one)

    pairs = list(zip(parts, raw, strict=True))
    by_64 = [pairs[n : n + 64] for n in range(0, len(pairs), 64)]

    def join(run: Callable[..., Iterable[Any]]) -> None:
        # A joiner has seen none of the certificates.
        forget_end_entities()
        with collector_paused():
            unverified = UnverifiedTree.decode(encoded, shape.suite)
            verify_tree(unverified, shape.context, policy, run)

    at_least = clocked(partial(bare, pairs), time.thread_time)
    seconds = clocked(partial(join, map), time.thread_time)
    yield Row("join with X.509", "large", n, seconds, at_least, len(encoded))
    at_least = clocked(lambda: list(on_all_cores(bare, by_64)))
    seconds = clocked(partial(join, on_all_cores))
    yield Row("join with X.509, all cores", "large", n, seconds, at_least, len(encoded))


def memory_of_join(shape: Shape) -> int:
    """The bytes that a fresh process has at most while it reads and verifies the tree, of which it had some before."""
    with tempfile.TemporaryDirectory() as directory:
        tree, context = Path(directory, "tree"), Path(directory, "context")
        tree.write_bytes(shape.tree.encode())
        context.write_bytes(shape.context.encode())
        done = subprocess.run(
            [sys.executable, "-m", "bench.large", "--memory", str(tree), str(context)],
            check=True,
            capture_output=True,
            text=True,
        )
    return int(done.stdout)


def peak() -> int:
    """The most memory that this process had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # What the system counts for a process by `getrusage` may be its parent's before the program started.
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high.split()[1]) * 1024
    import resource  # noqa: PLC0415 - not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def verify_files(tree: Path, context: Path) -> int:
    """Reads and verifies a tree, as a join does; the peak of this process."""
    given = GroupContext.decode(context.read_bytes())
    suite, policy = suite_of(given.cipher_suite), Policy(AcceptAnything())
    with collector_paused():
        unverified = UnverifiedTree.decode(tree.read_bytes(), suite)
        kept = verify_tree(unverified, given, policy, on_all_cores)
    assert kept
    return peak()


def adding(n: int, rounds: int) -> Iterator[Row]:
    """Adding `n` clients in one Commit on all cores, against the bare signature checks and seals."""
    shape = build(2, "blank")
    suite, config = shape.suite, replace(shape.config, run=on_all_cores)
    packages = [shape.bundle(b"newcomer %d" % number).key_package for number in range(n)]
    raw = labelled(suite, (package._signed() for package in packages))  # noqa: SLF001 - the jobs themselves
    leaves = (
        (leaf.signature_key, "LeafNodeTBS", leaf.to_be_signed(b"", 0), leaf.signature)
        for leaf in (package.leaf_node for package in packages)
    )
    raw += labelled(suite, leaves)
    keys = [package.init_key for package in packages]
    encoded = [package.encode() for package in packages]
    del packages
    added: list[float] = []
    bare: list[float] = []
    for _ in range(rounds):
        bare.append(
            clocked(partial(check_bare, suite, raw)) + clocked(partial(seal_bare, suite, keys))
        )
        group = shape.member(0, config)
        fresh = [KeyPackage.decode(data) for data in encoded]

        def add(group: Group = group, fresh: list[KeyPackage] = fresh) -> None:
            verified = validate_all(fresh, suite, config.authenticator, now=NOW, run=on_all_cores)
            group.commit(verified, now=NOW, options=BESIDE)

        added.append(clocked(add))
    yield Row("add all, all cores", "large", n, statistics.median(added), statistics.median(bare))


def restart(shape: Shape, rounds: int) -> Iterator[Row]:
    """From a closed profile on the disk to a Commit that is received, through `coterie.storage`."""
    key, space = StorageKey.given(os.urandom(32)), "group"
    sender, receiver = shape.member(0), shape.member(shape.n - 1)
    message = sender.commit().message.encode()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "profile")
        with Profile.open(path, key, create=True) as profile, profile.transaction() as transaction:
            transaction.apply(space, whole(receiver))
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

        def ready() -> None:
            with Profile.open(path, key) as profile:
                reader = profile.reader(space)
                group = Group.load(reader.entries((b"n/", b"i/")), reader, shape.config)
                staged = group.receive(message, now=NOW)
                assert isinstance(staged, StagedCommit)

        times = [clocked(ready) for _ in range(rounds)]
    yield Row("restart and receive a Commit", "large", shape.n, statistics.median(times), 0, size)


def reading(shape: Shape, prices: Prices) -> Iterator[Row]:
    """A member who was away reads 10,000 messages of an epoch, by 100 senders."""
    reader = shape.member(shape.n - 1)
    sent: list[bytes] = []
    for leaf in range(min(SENDERS, shape.n - 1)):
        sender = shape.member(leaf)
        sent += [sender.encrypt(bytes(200)).encode() for _ in range(MESSAGES // SENDERS)]
    inner = len(sender.encrypt(bytes(200)).body.ciphertext) - 16  # type: ignore[union-attr]
    depth = shape.tree.root.level
    once = floor.decrypt(inner, len(shape.context.encode()))
    calls = floor.times(once, len(sent)) + floor.times(floor.secret_tree(depth), SENDERS)
    prices.renew()
    prices.floor(calls)

    gc.collect()
    seconds = 0.0
    for begin in range(0, len(sent), 500):
        part = sent[begin : begin + 500]
        start = time.thread_time()
        for message in part:
            reader.receive(message)
        seconds += time.thread_time() - start
        prices.sample()
    once_on_one_core = prices.floor(calls)
    yield Row(f"read {len(sent):,} messages", "large", shape.n, seconds, once_on_one_core)
    config = replace(shape.config, run=on_all_cores)
    raw = signatures_of(shape.member(shape.n - 1, config), sent)
    reader = shape.member(shape.n - 1, config)
    clock = clocked(partial(reader.receive_many, sent))
    name = f"read {len(sent):,} messages, all cores"
    yield Row(name, "large", shape.n, clock, once_on_one_core)
    verified = Counter({call: n for call, n in calls.items() if call.primitive == "verify"})
    rest = once_on_one_core - prices.floor(verified)
    bare = clocked(partial(check_bare, shape.suite, raw))
    yield Row(f"{name}, floor on all", "large", shape.n, clock, rest + bare)


def signatures_of(reader: Group, sent: Sequence[bytes]) -> list[Raw]:
    """What is signed in messages, as the library takes it."""
    seen: list[Raw] = []
    suite, verify = reader.suite, reader.suite.signature
    suite.signature = replace(
        verify, verify=lambda public, signature, text: seen.append((public, signature, text))
    )
    try:
        reader.receive_many(sent)
    finally:
        suite.signature = verify
    return seen


def measure(sizes: Sequence[int], rounds: int, *, messages: bool) -> Iterator[Row]:
    """Everything, in groups of these sizes; messages only where the floor's library is the one in use."""
    for n in sizes:
        say(f"large: adding {n:,}")
        yield from adding(n, rounds)
        say(f"large: group of {n:,}")
        shape = build(n, "warm")
        yield from joining(shape, rounds)
        if messages:
            yield from reading(shape, Prices())
        yield from restart(shape, 10)
        del shape
        say(f"large: {n:,} with certificates")
        yield from joining_x509(n)


def main() -> None:
    """Measures and writes, or verifies one tree for its memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", default="5000,50000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--primitives", choices=("openssl", "libsodium"), default="openssl")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", nargs=2, type=Path, metavar=("TREE", "CONTEXT"))
    arguments = parser.parse_args()
    if arguments.memory:
        print(verify_files(*arguments.memory))
        return
    if arguments.primitives == "libsodium":
        try:
            use_libsodium()
        except UnsupportedError as error:
            say(f"nothing measured with libsodium: {error.args[0]}")
            return
    sizes = [int(n) for n in arguments.members.split(",")]
    openssl = arguments.primitives == "openssl"
    rows = list(measure(sizes, arguments.rounds, messages=openssl))
    print_table(rows)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "machine": machine(),
            "primitives": arguments.primitives,
            "rows": [asdict(row) for row in rows],
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
