"""The exceptions of Coterie: one class for each thing a caller can do about it.

    CoterieError
    ├── DecodeError        bytes are not the struct they should be      → drop them; the sender is broken
    ├── RuleViolation      a peer broke the RFC or the group's rules    → refuse; `leaf` names the offender if proved
    ├── VerificationError  a signature, tag or credential does not hold → refuse; nothing is known about the sender
    ├── DecryptionError    a ciphertext does not open with the keys held → drop it, or ask to be added again
    ├── EpochError         a message belongs to another epoch           → `stale`: drop it, else catch up first
    ├── StateError         the caller asked for what cannot be now      → do first what the message says
    ├── UnsupportedError   a version, suite, extension we do not speak  → tell the user, negotiate another
    ├── StorageError       storage is locked, full, corrupt, newer      → do what the message says
    └── ServiceError       a service answered with an error             → `retry_after` says whether to try again

Every error that stems from received bytes carries `rule`, the stable id of the rule that the bytes broke; the rules are
listed in `docs/rules.md`.
"""

from __future__ import annotations


class CoterieError(Exception):
    """The base of every exception that Coterie raises on purpose.

    `rule` is the stable id of the rule that received bytes broke, or None where no bytes from outside were involved.
    """

    def __init__(self, message: str, *, rule: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message} [{self.rule}]" if self.rule else message


class DecodeError(CoterieError):
    """Bytes are not an encoding of the struct that was expected."""


class RuleViolation(CoterieError):
    """A peer's well-formed message breaks a rule of the protocol or of the group.

    `leaf` is the index of the offending member's leaf where a signature proves who it was, else None.
    """

    def __init__(self, message: str, *, rule: str, leaf: int | None = None) -> None:
        super().__init__(message, rule=rule)
        self.leaf = leaf


class VerificationError(CoterieError):
    """A signature, a MAC or a credential does not verify."""


class DecryptionError(CoterieError):
    """A ciphertext does not open, or the key for it is not held (any more)."""


class EpochError(CoterieError):
    """A message belongs to an epoch that is not the one at hand.

    `stale` is True for an epoch that is over and False for one that is still to come.
    """

    def __init__(self, message: str, *, rule: str, stale: bool) -> None:
        super().__init__(message, rule=rule)
        self.stale = stale


class StateError(CoterieError):
    """The caller asked for something that is not possible in the present state; the message says what to do first."""


class UnsupportedError(CoterieError):
    """A protocol version, cipher suite, credential or extension that is not supported here."""


class StorageError(CoterieError):
    """The storage is locked, full, corrupt, of a newer format, or opened with the wrong key."""


class ServiceError(CoterieError):
    """A service refused or failed; `retry_after` is in seconds, or None where trying again is of no use."""

    def __init__(
        self, message: str, *, rule: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, rule=rule)
        self.retry_after = retry_after
