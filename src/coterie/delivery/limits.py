"""Who asks, and how often: token buckets in memory, never in a database (D-DIR-9, D-BUN-8).

A requester is what `Identify` makes of a connection: its network prefix now, a blindly issued token later. Buckets are
keyed by a hash under a random key per process and kind, so what they hold joins with nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import NewType

from coterie.delivery.settings import Rate, Rates, Settings
from coterie.transport.api import ErrorCode
from coterie.transport.refusal import Refused

Requester = NewType("Requester", bytes)
"""Who is charged for a request; says nothing to anybody else."""

LOCAL = Requester(b"local")
"""The requester of calls within the process."""

Clock = Callable[[], float]
"""Gives the time in seconds since 1970."""

_SWEEP_EVERY = 4096


def requester_of(address: str, settings: Settings) -> Requester:
    """The network prefix of an IP address; an address that is none (a Unix socket) is a requester of its own."""
    return _prefix(address, settings.prefix_ipv4, settings.prefix_ipv6)


@lru_cache(maxsize=16384)
def _prefix(address: str, bits4: int, bits6: int) -> Requester:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Requester(b"other:" + address.encode())
    # A socket that takes both versions shows IPv4 so; all of it would be one requester.
    ip = getattr(ip, "ipv4_mapped", None) or ip
    bits = bits4 if ip.version == 4 else bits6
    network = ipaddress.ip_network((ip, bits), strict=False)
    return Requester(network.network_address.packed)


def client_address(peer: str, forwarded: str | None, settings: Settings) -> str:
    """The address to charge: the peer's, or behind trusted proxies the last one that they did not add themselves."""
    if forwarded is None or peer not in settings.trusted_proxies:
        return peer
    for hop in reversed([part.strip() for part in forwarded.split(",")]):
        if hop not in settings.trusted_proxies:
            return hop
    return peer


@dataclass(slots=True)
class _Bucket:
    full_at: float
    """When the bucket is full again; now or earlier means full."""


class Limiter:
    """Charges requests to buckets. Safe to use from several threads."""

    def __init__(self, rates: Rates, clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._key = os.urandom(32)
        self._buckets: dict[bytes, _Bucket] = {}
        self._lock = Lock()
        self._charges = 0

    def charge(self, kind: str, *parts: bytes) -> None:
        """Takes one from the bucket of `kind` for `parts`; raises `Refused` (rate_limited) if it is empty."""
        wait = self._wait(kind, parts)
        if wait > 0:
            raise Refused(
                ErrorCode.RATE_LIMITED,
                f"too many requests of this kind ({kind.replace('_', ' ')}); wait before the next",
                rule="D-TRA-4",
                retry_after=wait,
            )

    def allows(self, kind: str, *parts: bytes) -> bool:
        """Takes one if there is one, and says whether there was."""
        return self._wait(kind, parts) <= 0

    def _wait(self, kind: str, parts: tuple[bytes, ...]) -> float:
        rate: Rate = getattr(self._rates, kind)
        if rate.interval <= 0:
            return 0.0
        digest = hashlib.blake2b(b"\0".join(parts), key=self._key, person=kind.encode()[:16])
        now = self._clock()
        with self._lock:
            self._forget(now)
            bucket = self._buckets.setdefault(digest.digest(), _Bucket(now))
            longest = rate.burst * rate.interval
            # At most a whole bucket is owed: a clock that is set back must lock nobody out.
            start = bucket.full_at = min(max(bucket.full_at, now), now + longest)
            if start + rate.interval > now + longest + 1e-9:
                return start + rate.interval - now - longest
            bucket.full_at = start + rate.interval
        return 0.0

    def _forget(self, now: float) -> None:
        self._charges += 1
        if self._charges % _SWEEP_EVERY == 0:
            self._buckets = {k: b for k, b in self._buckets.items() if b.full_at > now}
