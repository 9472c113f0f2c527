"""One-time codes: 20 characters of Crockford's base 32 in groups of five, 100 bits from the system's randomness.

The database holds their keyed hash, so that neither it nor a copy of it lets anyone enrol. They are too long to guess;
the limit on attempts (`service`) is against load, not against guessing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from coterie.mls.secret import Secret

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH: Final = 20
_READ_AS: Final = str.maketrans("OIL", "011", "- \t\n")


def new_code() -> str:
    """A new code, as people see it: `K7Q2M-…`, four groups of five."""
    drawn = "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
    return "-".join(drawn[i : i + 5] for i in range(0, _LENGTH, 5))


def normal_form(typed: str) -> str:
    """A code as it was drawn, from what somebody typed: letters in either case, O for 0, I and L for 1."""
    return typed.upper().translate(_READ_AS)


def code_hash(key: Secret, user: str, code: str) -> bytes:
    """What the database holds of a code: HMAC-SHA-256 over the user and the code."""
    message = b"code\0" + user.encode() + b"\0" + normal_form(code).encode()
    return hmac.digest(key, message, hashlib.sha256)


def name_hash(key: Secret, user: str) -> bytes:
    """What the database holds of a deleted user's name."""
    return hmac.digest(key, b"name\0" + user.encode(), hashlib.sha256)
