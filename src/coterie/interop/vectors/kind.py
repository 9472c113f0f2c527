"""What a kind of test vectors is, and how the fields of a case are read.

A vector file is a JSON list of cases. Each kind has a function that verifies one case, and most have one that makes
fresh cases. Whatever stands in a file, verifying returns or raises a `CoterieError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from coterie.errors import CoterieError, DecodeError
from coterie.mls.crypto import (
    SUPPORTED_CIPHER_SUITES,
    SignaturePrivateKey,
    Suite,
    suite_of,
)
from coterie.mls.hpke import HPKEPrivateKey, RandomSource
from coterie.mls.rules import Rule
from coterie.mls.tls import JSON

_SHOWN = 16


class Mismatch(CoterieError):
    """A vector's value is not the one that is computed from it here."""


def longest(suite: Suite) -> int:
    """One more than the bytes that KDF.Expand gives at most."""
    return 255 * suite.hash_length + 1


def expect(what: str, found: object, wanted: object) -> None:
    """Raises `Mismatch` unless the two are equal."""
    if found != wanted:
        msg = f"{what}: computed {_short(found)}, the vector says {_short(wanted)}"
        raise Mismatch(msg)


def _short(value: object) -> str:
    if isinstance(value, bytes):
        digits = bytes(value[:_SHOWN]).hex()
        return digits if len(value) <= _SHOWN else f"{digits}… ({len(value)} bytes)"
    text = repr(value)
    return text if len(text) <= 4 * _SHOWN else text[: 4 * _SHOWN] + "…"


class Case:
    """One JSON object of a vector file; reading a field raises `DecodeError` where it is not what it should be."""

    __slots__ = ("_fields", "_path")

    def __init__(self, fields: object, path: str = "case") -> None:
        if not isinstance(fields, dict):
            msg = f"{path} is not a JSON object"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        self._fields: dict[str, Any] = fields
        self._path = path

    def _get(self, name: str, kind: type, what: str) -> Any:  # noqa: ANN401 - the caller says which
        if name not in self._fields:
            msg = f"{self._path} has no field {name!r}"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        value = self._fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            msg = f"{self._path}.{name} is not {what}"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        return value

    def data(self, name: str) -> bytes:
        """Hexadecimal digits as bytes."""
        return _bytes_of(self._get(name, str, "hexadecimal digits"), f"{self._path}.{name}")

    def data_or_none(self, name: str) -> bytes | None:
        """Hexadecimal digits as bytes, or null."""
        return None if self._fields.get(name, 0) is None else self.data(name)

    def number(self, name: str, limit: int = 1 << 64) -> int:
        """An integer from 0, below `limit`."""
        value: int = self._get(name, int, "an integer")
        if not 0 <= value < limit:
            msg = f"{self._path}.{name} is {value}, it must be from 0 and below {limit}"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        return value

    def text(self, name: str) -> str:
        """A string."""
        value: str = self._get(name, str, "a string")
        return value

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        value: list[Any] = self._get(name, list, "a list")
        return value

    def lists(self, name: str) -> list[list[Any]]:
        """A list of lists of anything."""
        values = self.items(name)
        if not all(isinstance(value, list) for value in values):
            msg = f"{self._path}.{name} has something else than lists"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        return values

    def numbers(self, name: str) -> list[int | None]:
        """A list of integers and nulls."""
        values = self.items(name)
        if not all(v is None or (isinstance(v, int) and not isinstance(v, bool)) for v in values):
            msg = f"{self._path}.{name} has something else than integers and nulls"
            raise DecodeError(msg, rule=Rule.JSON_MAPPING)
        return values

    def datas(self, name: str) -> list[bytes | None]:
        """A list of byte strings and nulls."""
        path = f"{self._path}.{name}"
        return [
            None if value is None else _bytes_of(value, f"{path}[{n}]")
            for n, value in enumerate(self.items(name))
        ]

    def case(self, name: str) -> Case:
        """An object inside."""
        return Case(self._get(name, dict, "an object"), f"{self._path}.{name}")

    def cases(self, name: str) -> Iterator[Case]:
        """A list of objects inside."""
        for n, value in enumerate(self.items(name)):
            yield Case(value, f"{self._path}.{name}[{n}]")

    @property
    def suite(self) -> Suite:
        """The cipher suite that `cipher_suite` names; raises `UnsupportedError` for one that is not known."""
        return suite_of(self.number("cipher_suite", 1 << 16))

    @property
    def is_supported(self) -> bool:
        """Whether this case's cipher suite is one that is spoken here, or it has none."""
        number = self._fields.get("cipher_suite")
        return not isinstance(number, int) or number in SUPPORTED_CIPHER_SUITES

    def hpke_key(self, name: str, suite: Suite) -> HPKEPrivateKey:
        """An HPKE private key; a scalar may come without its leading zeros, as in some of the official files."""
        curve = suite.hpke.kem.curve
        return suite.load_hpke_key(_scalar(self.data(name), curve.order, curve.private_length))

    def signature_key(self, name: str, suite: Suite) -> SignaturePrivateKey:
        """A signature private key; a scalar may come without its leading zeros."""
        scheme = suite.signature
        return suite.load_signature_key(
            _scalar(self.data(name), scheme.order, scheme.private_length)
        )

    def has(self, names: frozenset[str]) -> bool:
        """Whether all of these fields are there."""
        return names <= self._fields.keys()


def _scalar(data: bytes, order: int | None, length: int) -> bytes:
    """A private key in full length; only the scalars of the NIST curves are numbers that can be short."""
    return data if order is None else data.rjust(length, b"\0")


def _bytes_of(value: object, path: str) -> bytes:
    try:
        return bytes.fromhex(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        msg = f"{path} is not a string of hexadecimal digits"
        raise DecodeError(msg, rule=Rule.JSON_MAPPING) from None


Generated = list[dict[str, JSON]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of vectors: its name, which is that of the official file, and what can be done with its cases.

    `fields` are those by which a case of this kind is recognised. `generate` makes cases of one suite; it is None
    where no vectors of this kind are made here.
    """

    name: str
    fields: frozenset[str]
    verify: Callable[[Case], None]
    generate: Callable[[Suite, RandomSource], Generated] | None = None
    has_suites: bool = True
    """Whether cases differ between cipher suites."""


def seeded(seed: int) -> RandomSource:
    """A source of bytes that gives the same ones for the same seed: for vectors, never to protect anything."""
    counter = 0

    def read(length: int) -> bytes:
        nonlocal counter
        counter += 1
        return hashlib.shake_256(f"coterie vectors {seed} {counter}".encode()).digest(length)

    return read
