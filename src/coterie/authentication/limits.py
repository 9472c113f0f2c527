"""How often one requester may ask: token buckets per network prefix, in memory, keyed by a hash that dies with it."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
from collections import OrderedDict
from typing import Final

from coterie.transport.as_api import ErrorCode, Refused

_MAX_BUCKETS: Final = 100_000


def network_of(address: str) -> str:
    """The network that counts as one requester: /24 of IPv4, /56 of IPv6; what is no address counts as one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 56), strict=False))


class RateLimit:
    """`burst` requests at once, then one every `interval` seconds, for each requester."""

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._key = secrets.token_bytes(16)
        # When each bucket will be full again; a missing one is full.
        self._full_at: OrderedDict[bytes, float] = OrderedDict()

    def take(self, address: str, now: float) -> None:
        """Counts a request at `now` (seconds, monotonic); raises `Refused` if it is one too many."""
        key = hashlib.blake2b(network_of(address).encode(), key=self._key, digest_size=16).digest()
        full_at = max(self._full_at.get(key, now), now) + self._interval
        wait = full_at - now - self._burst * self._interval
        if wait > 0:
            msg = "too many requests from this network"
            raise Refused(ErrorCode.RATE_LIMITED, msg, retry_after=math.ceil(wait))
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > _MAX_BUCKETS:
            self._full_at.popitem(last=False)
