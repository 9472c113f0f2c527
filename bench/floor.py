"""The floor of an operation: the primitive calls that it cannot do without, times what each costs here and now.

Nobody can be faster with the same library from the same language, so a ratio to the floor says what our own code adds.
Each operation is a list of calls with their input sizes, counted from the protocol (RFC 9420, section in brackets) and
not from our code; every signature that the protocol or the design asks for is in it. The prices are medians measured
in the same run as the operation, through the library in use (pyca/cryptography and hashlib).

What is not in a floor: encoding, decoding, comparing keys, keeping state.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HASH = 32
SEAL_INFO = 200
"""About the length of what is hashed once per Commit for all its HPKE seals: label and GroupContext."""


@dataclass(frozen=True, order=True)
class Call:
    """One primitive with the length of its input, in bytes."""

    primitive: str
    size: int


Floor = Counter[Call]


def calls(*listed: tuple[str, int, float]) -> Floor:
    """A floor out of (primitive, size, count)."""
    floor: Floor = Counter()
    for primitive, size, count in listed:
        floor[Call(primitive, size)] += count  # type: ignore[assignment] # a count may be a mean
    return floor


def times(floor: Floor, count: float) -> Floor:
    """The same, so many times."""
    return Counter({call: number * count for call, number in floor.items()})


# -- what operations cannot do without


def _hmac(count: float, size: int = 64) -> tuple[str, int, float]:
    return ("hmac", size, count)


def hpke_seals(count: int, plaintext: int = HASH) -> Floor:
    """EncryptWithLabel [§5.1.3]: an ephemeral key, an exchange, two steps in the KEM, three in HPKE, the AEAD."""
    return calls(
        ("x25519 base", 0, count),
        ("x25519 exchange", 0, count),
        _hmac(5 * count),
        ("aead seal", plaintext, count),
    )


def hpke_open(plaintext: int = HASH) -> Floor:
    """DecryptWithLabel with a key that is loaded."""
    return calls(("x25519 exchange", 0, 1), _hmac(6, 128), ("aead open", plaintext, 1))


def path_keys(count: int) -> Floor:
    """Node secret, path secret and key pair of each node [§7.4]."""
    return calls(_hmac(4 * count), ("x25519 base", 0, count))


def tree_hashes(path: int, depth: int, leaf: int) -> Floor:
    """Parent hashes of a path and the tree hashes above one leaf [§7.8, §7.9]."""
    return calls(("sha256", 100, path), ("sha256", leaf, 1), ("sha256", 135, depth))


def key_schedule() -> Floor:
    """From the init secret to those of the epoch [§8]: 3 steps, the epoch secret, 9 labels, the tag."""
    return calls(_hmac(14, 100))


def transcript(content: int) -> Floor:
    """Both transcript hashes [§8.2]."""
    return calls(("sha256", content + 100, 1), ("sha256", 65, 1))


def secret_tree(depth: int) -> Floor:
    """From the encryption secret to one leaf's two ratchets [§9]: siblings must outlive their parent."""
    return calls(_hmac(2 * depth + 2))


def one_generation() -> Floor:
    """Key, nonce, next secret; key and nonce of the sender data [§9.1, §6.3.2]."""
    return calls(_hmac(3), _hmac(2, 80))


def private_seal(size: int) -> Floor:
    """Content and sender data encrypted [§6.3]."""
    return one_generation() + calls(("aead seal", size, 1), ("aead seal", 12, 1))


def private_open(size: int) -> Floor:
    """Sender data and content decrypted [§6.3]."""
    return one_generation() + calls(("aead open", size, 1), ("aead open", 12, 1))


@dataclass(frozen=True)
class Geometry:
    """What the floor of a Commit depends on: the tree's depth, the path's nodes and ciphertexts, lengths in bytes."""

    depth: int
    path: int
    ciphertexts: int
    message: int
    leaf: int
    context: int


def create_commit(at: Geometry) -> Floor:
    """An empty Commit with a path, sent as a PrivateMessage: two signatures."""
    return (
        calls(("x25519 base", 0, 1), ("sign", at.leaf, 1), ("sign", at.message + at.context, 1))
        + path_keys(at.path)
        + tree_hashes(at.path, at.depth, at.leaf)
        + hpke_seals(at.ciphertexts)
        + calls(_hmac(1, SEAL_INFO))
        + transcript(at.message)
        + key_schedule()
        + secret_tree(at.depth)
        + private_seal(at.message)
    )


def process_commit(at: Geometry, shared: int) -> Floor:
    """Receiving it, `shared` nodes of the path being above this member too: two verifications, one opening."""
    return (
        calls(("verify", at.leaf, 1), ("verify", at.message + at.context, 1))
        + hpke_open()
        + path_keys(shared)
        + tree_hashes(at.path, at.depth, at.leaf)
        + transcript(at.message)
        + key_schedule()
        + secret_tree(at.depth)
        + private_open(at.message)
    )


def add_member(at: Geometry) -> Floor:
    """A Commit that adds one: key package and its leaf verified, GroupInfo signed, Welcome sealed [§12.4.3]."""
    package = at.leaf + 120
    return (
        create_commit(at)
        + calls(("verify", at.leaf, 1), ("verify", package, 1), ("sha256", package, 1))
        + calls(("sign", at.context + 100, 1), _hmac(3), ("aead seal", at.context + 200, 1))
        + hpke_seals(1, 2 * HASH)
        + calls(_hmac(1, SEAL_INFO), ("sha256", at.leaf, 1), ("sha256", 135, at.depth))
    )


def join(at: Geometry, members: int, parents: int, shared: int) -> Floor:
    """Joining with the tree beside [§12.4.3.1]: every leaf's signature, every tree hash, every parent hash."""
    return (
        calls(
            ("verify", at.leaf, members),
            ("verify", at.context + 100, 1),
            ("sha256", at.leaf, members),
            ("sha256", 135, (1 << at.depth) - 1),
            ("sha256", 100, parents),
            ("aead open", at.context + 200, 1),
        )
        + hpke_open(2 * HASH)
        + path_keys(shared)
        + calls(_hmac(14, 100))
    )


def add_many(at: Geometry, members: int) -> Floor:
    """A Commit that adds many, key packages verified: two verifications and a Welcome's seal for each."""
    package = at.leaf + 120
    return (
        create_commit(at)
        + calls(
            ("verify", at.leaf, members),
            ("verify", package, members),
            ("sha256", package, members),
            ("sha256", at.leaf, members),
            ("sha256", 135, members),
            ("sign", at.context + 100, 1),
        )
        + hpke_seals(members, 2 * HASH)
    )


def encrypt(size: int, context: int) -> Floor:
    """An application message: one signature."""
    return calls(("sign", size + context, 1)) + private_seal(size)


def decrypt(size: int, context: int) -> Floor:
    """Reading it: one verification."""
    return calls(("verify", size + context, 1)) + private_open(size)


# -- what a call costs


def _hmac_sha256() -> Callable[[bytes], bytes]:
    """HMAC of two hashes over translated pads, the cheapest from Python; for each call a new key."""
    ipad = bytes(byte ^ 0x36 for byte in range(256))
    opad = bytes(byte ^ 0x5C for byte in range(256))
    sha256, key = hashlib.sha256, bytes(HASH)

    def hmac(data: bytes) -> bytes:
        pad = key.ljust(64, b"\0")
        inner = sha256(pad.translate(ipad) + data).digest()
        return sha256(pad.translate(opad) + inner).digest()

    return hmac


def _primitive(call: Call) -> Callable[[], object]:
    data = bytes(range(256)) * (call.size // 256 + 1)
    data = data[: call.size]
    signer, nonce = Ed25519PrivateKey.from_private_bytes(bytes(32)), bytes(12)
    own, seed = X25519PrivateKey.from_private_bytes(bytes(range(32))), bytes(range(1, 33))
    other = own.public_key().public_bytes_raw()
    public, hmac = signer.public_key().public_bytes_raw(), _hmac_sha256()
    signature, sealed = signer.sign(data), AESGCM(bytes(16)).encrypt(nonce, data, b"")
    table: dict[str, Callable[[], object]] = {
        "sha256": lambda: hashlib.sha256(data).digest(),
        "hmac": lambda: hmac(data),
        "aead seal": lambda: AESGCM(seed[:16]).encrypt(nonce, data, b""),
        "aead open": lambda: AESGCM(bytes(16)).decrypt(nonce, sealed, b""),
        "sign": lambda: signer.sign(data),
        "verify": lambda: Ed25519PublicKey.from_public_bytes(public).verify(signature, data),
        "x25519 base": lambda: (
            X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        ),
        "x25519 exchange": lambda: own.exchange(X25519PublicKey.from_public_bytes(other)),
    }
    return table[call.primitive]


class Prices:
    """What each primitive costs on this machine: medians of samples that are taken between the operations.

    A busy or throttled machine slows primitives and operations alike; a price from another minute would tell lies.
    """

    def __init__(self, least: float = 0.0002) -> None:
        """`least`: seconds that one sample takes at least."""
        self._least = least
        self._functions: dict[Call, tuple[Callable[[], object], int]] = {}
        self._samples: dict[Call, list[float]] = {}

    def sample(self) -> None:
        """Measures once more whatever a floor has asked for so far."""
        for call, (function, count) in self._functions.items():
            self._samples[call].append(_seconds(function, count) / count)

    def of(self, call: Call) -> float:
        """The median seconds of one call; sizes are rounded to 16 bytes."""
        call = Call(call.primitive, -(-call.size // 16) * 16)
        if call not in self._functions:
            function, count = _primitive(call), 1
            while _seconds(function, count) < self._least:
                count *= 2
            self._functions[call] = function, count
            self._samples[call] = [_seconds(function, count) / count]
        return statistics.median(self._samples[call])

    def floor(self, floor: Floor) -> float:
        """The seconds that all calls of an operation take."""
        return sum(self.of(call) * count for call, count in floor.items())

    def renew(self) -> None:
        """Forgets the samples, for other operations at another time."""
        self._functions.clear()
        self._samples.clear()

    def table(self) -> dict[str, float]:
        """All prices so far, in seconds."""
        return {f"{call.primitive} {call.size}": self.of(call) for call in sorted(self._functions)}


def _seconds(function: Callable[[], object], count: int) -> float:
    clock = time.thread_time
    start = clock()
    for _ in range(count):
        function()
    return clock() - start


def explain(floor: Floor, prices: Prices) -> Iterable[tuple[str, float, float]]:
    """What a floor is made of: primitive, how often, seconds in all; the dearest first."""
    sums: dict[str, tuple[float, float]] = {}
    for call, count in floor.items():
        often, seconds = sums.get(call.primitive, (0.0, 0.0))
        sums[call.primitive] = (often + count, seconds + prices.of(call) * count)
    rows = ((primitive, often, seconds) for primitive, (often, seconds) in sums.items())
    return sorted(rows, key=lambda row: -row[2])
