"""Edge cases of Ed25519 and X25519, and what each library says to them: `python -m bench.edge_cases`.

Prints a table, and with `--write` the vectors that `tests/unit/mls/test_sodium.py` reads. The curve's arithmetic below
is for making bad points out of good ones; nothing else may use it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from coterie.mls.crypto import ED25519
from coterie.mls.hpke import X25519_BY_OPENSSL
from coterie.mls.sodium import load

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, P) % P
_ROOT = pow(2, (P - 1) // 4, P)
VECTORS = Path(__file__).parents[1] / "tests/data/edges/curve25519.json"

Point = tuple[int, int]
Case = tuple[str, bytes, bytes, bytes]
"""What it is, public key, message, signature."""


def x_of(y: int, sign: int) -> int | None:
    """The x of a point with this y, None where there is none."""
    u, v = (y * y - 1) % P, (_D * y * y + 1) % P
    x = pow(u * pow(v, -1, P), (P + 3) // 8, P)
    if (x * x * v - u) % P:
        x = x * _ROOT % P
    if (x * x * v - u) % P:
        return None
    return P - x if x & 1 != sign and x else x


def add(a: Point, b: Point) -> Point:
    """The sum of two points."""
    (x1, y1), (x2, y2) = a, b
    t = _D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P)
    return x % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(n: int, point: Point) -> Point:
    """A multiple of a point."""
    result = NEUTRAL
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def encoded(point: Point) -> bytes:
    """RFC 8032's encoding."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


NEUTRAL: Point = (0, 1)
_Y = 4 * pow(5, -1, P) % P
BASE: Point = (x_of(_Y, 0) or 0, _Y)


def _order_eight() -> Point:
    for y in range(2, 1000):
        x = x_of(y, 0)
        if x is not None:
            point = times(ORDER, (x, y))
            if times(4, point) != NEUTRAL:
                return point
    raise AssertionError


TORSION = _order_eight()


def _scalar(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


class Maker:
    """Makes signatures that an honest signer never makes."""

    def __init__(self) -> None:
        rng = random.Random(25519)
        self.private, self.nonce = rng.randrange(ORDER), rng.randrange(ORDER)
        self.public, self.point = times(self.private, BASE), times(self.nonce, BASE)

    def signed(
        self, name: str, key: bytes, r: bytes, message: bytes, private: int | None = None
    ) -> Case:
        """With S = nonce + hash * private."""
        private = self.private if private is None else private
        s = (self.nonce + _scalar(r, key, message) * private) % ORDER
        return name, key, message, r + s.to_bytes(32, "little")

    def message_where(self, key: bytes, r: bytes, point: Point, *, vanishes: bool) -> bytes:
        """A message for which hash * point is, or is not, the neutral point."""
        for n in range(1000):
            message = b"%d" % n
            if (times(_scalar(r, key, message) % 8, point) == NEUTRAL) is vanishes:
                return message
        raise AssertionError

    def cases(self) -> Iterator[Case]:
        """All of them."""
        key, r, message = encoded(self.public), encoded(self.point), b"message"
        honest = self.signed("honest", key, r, message)
        yield honest
        s = int.from_bytes(honest[3][32:], "little")
        yield "message changed", key, b"another", honest[3]
        for factor in (1, 8):
            bad = (s + factor * ORDER).to_bytes(32, "little")
            yield f"S + {factor} L", key, message, r + bad
        yield from self._small_order()
        yield from self._mixed_order()
        yield from self._not_canonical()

    def _small_order(self) -> Iterator[Case]:
        key, r = encoded(self.public), encoded(self.point)
        for n in range(8):
            small = times(n, TORSION)
            text = self.message_where(encoded(small), r, small, vanishes=True)
            yield self.signed(f"A of small order {n}", encoded(small), r, text, 0)
            s = _scalar(encoded(small), key, b"message") * self.private % ORDER
            yield (
                f"R of small order {n}",
                key,
                b"message",
                encoded(small) + s.to_bytes(32, "little"),
            )
        yield "A and R neutral, S = 0", encoded(NEUTRAL), b"message", encoded(NEUTRAL) + bytes(32)

    def _mixed_order(self) -> Iterator[Case]:
        mixed, r = encoded(add(self.public, TORSION)), encoded(self.point)
        text = self.message_where(mixed, r, TORSION, vanishes=True)
        yield self.signed("A of mixed order, equation holds", mixed, r, text)
        text = self.message_where(mixed, r, TORSION, vanishes=False)
        yield self.signed("A of mixed order, holds only times 8", mixed, r, text)
        key, odd = encoded(self.public), encoded(add(self.point, TORSION))
        yield self.signed("R of mixed order, holds only times 8", key, odd, b"message")
        for n in range(8000):
            shifted = encoded(add(self.point, times(n % 7 + 1, TORSION)))
            if (_scalar(shifted, mixed, b"%d" % n) + n % 7 + 1) % 8 == 0:
                yield self.signed(
                    "A and R of mixed order, equation holds", mixed, shifted, b"%d" % n
                )
                return

    def _not_canonical(self) -> Iterator[Case]:
        r = encoded(self.point)
        for y in (*range(19), P - 1):
            for sign in (0, 1):
                x = x_of(y, sign)
                if x is None or (y == P - 1 and not sign):
                    continue
                value = y if y == P - 1 else y + P
                key = (value | sign << 255).to_bytes(32, "little")
                # A key whose logarithm nobody knows verifies only what a small order makes true.
                small = times(8, (x, y)) == NEUTRAL
                text = self.message_where(key, r, (x, y), vanishes=True) if small else b"message"
                yield self.signed(
                    f"A not canonical: y = p {y - P if value == y else f'+ {y}'}, sign {sign}",
                    key,
                    r,
                    text,
                    0,
                )
        neutral = (1 + P).to_bytes(32, "little")
        yield "R not canonical, A neutral, S = 0", encoded(NEUTRAL), b"message", neutral + bytes(32)


def exchanges() -> Iterator[tuple[str, bytes]]:
    """Public keys for X25519: of low order, not reduced, with the highest bit."""
    order_8 = 0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F
    other_8 = 0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0
    named = {
        "0": 0,
        "1": 1,
        "of order 8": order_8,
        "of order 8, other": other_8,
        "p - 1": P - 1,
        "9": 9,
    }
    named |= {f"p + {n}": P + n for n in range(19)}
    for name, u in named.items():
        for bit in (0, 1):
            yield f"u = {name}, highest bit {bit}", (u | bit << 255).to_bytes(32, "little")


PRIVATE = bytes(range(32))


def _says(verify: object, case: Case) -> bool:
    try:
        verify(case[1], case[3], case[2])  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - each library has its own
        return False
    return True


def _shared(exchange: object, public: bytes) -> str:
    try:
        return exchange(PRIVATE, public).hex()  # type: ignore[operator,no-any-return]
    except Exception:  # noqa: BLE001 - each library has its own
        return ""


def _openssl_exchange(private: bytes, public: bytes) -> bytes:
    return X25519_BY_OPENSSL.exchange(X25519_BY_OPENSSL.load(private), public)


def main() -> None:
    """Prints the table; writes the vectors where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    cases, library = list(Maker().cases()), load()
    print("| Ed25519 | OpenSSL | libsodium |\n|---|---|---|")
    word = {True: "accepts", False: "refuses"}
    for case in cases:
        print(
            f"| {case[0]} | {word[_says(ED25519.verify, case)]} | {word[_says(library.verify, case)]} |"
        )
    print("\n| X25519 | OpenSSL | libsodium |\n|---|---|---|")
    for name, public in exchanges():
        ours, theirs = _shared(_openssl_exchange, public), _shared(library.exchange, public)
        same = "the same" if ours == theirs else "another"
        print(f"| {name} | {'a secret' if ours else 'refuses'} | {same if theirs else 'refuses'} |")
    if arguments.write:
        found = {
            "ed25519": [
                {
                    "name": case[0],
                    "public": case[1].hex(),
                    "message": case[2].hex(),
                    "signature": case[3].hex(),
                    "valid": _says(ED25519.verify, case),
                }
                for case in cases
            ],
            "x25519": [
                {"name": name, "public": public.hex(), "shared": _shared(_openssl_exchange, public)}
                for name, public in exchanges()
            ],
        }
        VECTORS.parent.mkdir(parents=True, exist_ok=True)
        VECTORS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
