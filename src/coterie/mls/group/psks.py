"""Where pre-shared keys come from (RFC 9420 §8.4, §8.6): this group, the one that it continues, the application."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coterie.errors import DecryptionError, StateError
from coterie.mls.group.config import PskLookup
from coterie.mls.group_context import PreSharedKeyID
from coterie.mls.rules import Rule
from coterie.mls.secret import Secret
from coterie.mls.types import PSKType, ResumptionPSKUsage

PskSecrets = Sequence[tuple[PreSharedKeyID, bytes]]
PskFinder = Callable[[Sequence[PreSharedKeyID]], PskSecrets]
Resumption = Callable[[int], Secret | None]
"""Finds the resumption key of an epoch of one group."""

CONTINUING = frozenset({ResumptionPSKUsage.REINIT, ResumptionPSKUsage.BRANCH})
"""What a resumption key is for that links a group to the one that it continues (§11.2, §11.3)."""


def finder(lookup: PskLookup, groups: Sequence[tuple[bytes, Resumption]]) -> PskFinder:
    """A function that finds keys in these groups, by their ids, and else asks the application.

    It raises `DecryptionError` for a key that is not held here: that says nothing against who asks for it; `StateError`
    where it is that of a group that is continued, and no group was given.
    """

    def one(psk: PreSharedKeyID) -> bytes:
        found: bytes | None = None
        if psk.psktype == PSKType.RESUMPTION:
            for group_id, resumption in groups:
                if psk.psk_group_id == group_id and psk.psk_epoch is not None:
                    found = found or resumption(psk.psk_epoch)
        if found is None:
            found = lookup(psk)
        if found is None and not groups and psk.usage in CONTINUING:
            msg = (
                f"the group continues {(psk.psk_group_id or b'').hex()}: give that group to join it"
            )
            raise StateError(msg)
        if found is None:
            msg = f"the pre-shared key {psk!r} is not known here"
            raise DecryptionError(msg, rule=Rule.PSK_UNKNOWN)
        return found

    return lambda psks: [(psk, one(psk)) for psk in psks]
