"""Secrets that never print: the type of every key and every derived secret (RFC 9420, sections 8, 9 and 16.6).

Among the lowest modules of the core: it imports nothing of ours. `Secret` is a `bytes`, so that hash functions and
ciphers take it as it is; what differs is everything by which bytes leak by accident: repr, str, format, pickle and
comparison. What is made out of a secret by slicing or joining is plain bytes again; keep that short-lived.
"""

from __future__ import annotations

import hmac
from typing import NoReturn, Self


class Confidential:
    """What may not leave the process by accident: refuses to be pickled, and copying it makes no second copy."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse; storage asks for the bytes in so many words."""
        raise TypeError(f"{type(self).__name__} holds a secret and cannot be pickled")

    def __copy__(self) -> Self:
        """Return the object itself, which is immutable."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the object itself, which is immutable."""
        return self


class Secret(Confidential, bytes):
    """Secret bytes: shows only its length, compares in constant time, cannot be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the length in bytes and nothing else."""
        return f"Secret({len(self)} bytes)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        """Format what `repr` shows."""
        return format(repr(self), format_spec)

    def __eq__(self, other: object) -> bool:
        """Compare with other bytes in time that depends on the lengths only."""
        if not isinstance(other, (bytes, bytearray, memoryview)):
            return NotImplemented
        return hmac.compare_digest(self, other)

    def __ne__(self, other: object) -> bool:
        """Compare as `==` does; inherited from bytes, it would take a short cut."""
        if not isinstance(other, (bytes, bytearray, memoryview)):
            return NotImplemented
        return not hmac.compare_digest(self, other)

    __hash__ = bytes.__hash__
