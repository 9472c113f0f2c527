"""Every operational parameter of the Delivery Service, with its default and what it is for (D-TRA-4, RFC 9750 §7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from coterie.errors import StateError

KIB: Final = 1024
MIB: Final = 1024 * KIB
HOUR: Final = 3600
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `burst` requests at once, then one every `interval` seconds (0: no limit)."""

    burst: int
    interval: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What one requester (a network prefix) may do, or may be done to one target."""

    appends: Rate = Rate(2000, 0.005)
    """Message entries of one prefix."""
    bundles: Rate = Rate(4, 10.0)
    """Bundles of one prefix in one log; the interval exceeds the time to fetch, build and upload one (D-BUN-8)."""
    corrections: Rate = Rate(8, 10.0)
    """Corrections of one prefix in one log (D-COR-4)."""
    successors: Rate = Rate(4, 60.0)
    """Successors of one prefix in one log (D-SUC-5)."""
    chunk_uploads: Rate = Rate(64, 1.0)
    """PutChunks of one prefix in one log (D-CHK-7)."""
    logs: Rate = Rate(50, 60.0)
    """Logs made by one prefix (D-LOG-4)."""
    requests: Rate = Rate(20, 30.0)
    """Requests of one prefix into boxes (D-BOX-1)."""
    requests_to_box: Rate = Rate(100, 10.0)
    """Requests into one epoch's box (D-BOX-1)."""
    reads: Rate = Rate(5000, 0.002)
    """Reads and fetches of one prefix."""
    inboxes: Rate = Rate(50, 60.0)
    """Inboxes opened by one prefix (D-INB-2)."""
    envelopes: Rate = Rate(500, 0.2)
    """Envelopes posted by one prefix."""
    publishes: Rate = Rate(100, 5.0)
    """Publish, Withdraw and MintTickets of one prefix."""
    claims: Rate = Rate(500, 0.5)
    """Claims of one prefix (D-DIR-4)."""
    claims_of_target: Rate = Rate(50, 60.0)
    """Claims of one user by anybody; beyond it only last-resort packages are given (D-DIR-4)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The Delivery Service's settings. Sizes are in bytes, times in seconds."""

    max_entry: int = 256 * KIB
    """A message, correction or successor entry."""
    max_bundle: int = 32 * MIB
    """A bundle with its chunks, and so any request body."""
    max_chunk: int = 256 * KIB
    """One chunk of group state."""
    max_chunks: int = 8192
    """Chunks or addresses in one request."""
    inline_limit: int = 64 * KIB
    """Entries above it are fetched apart, not sent in reads and subscriptions (D-REC-7)."""
    max_read: int = 16 * MIB
    """Content of one answer (D-REC-6)."""
    min_retention: int = DAY
    """The shortest retention that a log may ask for (D-LOG-3)."""
    max_retention: int = 400 * DAY
    """The longest one."""
    message_quota: int = 256 * MIB
    """Messages of one branch; beyond it the oldest are dropped (D-RET-1)."""
    bundle_quota: int = 1024 * MIB
    """Bundles and chunks of one branch; beyond it bundles are refused, uploads and successors beyond half (D-RET-3)."""
    idle_age: int = 400 * DAY
    """An open epoch without a new entry for so long is dropped (D-RET-5)."""
    request_age: int = 7 * DAY
    """How long a box keeps requests (D-BOX-3)."""
    max_requests: int = 1000
    """Requests that one log's boxes keep at a time."""
    inbox_age: int = 30 * DAY
    """How long an inbox keeps envelopes (D-INB-9)."""
    max_envelopes: int = 2000
    """Envelopes that one inbox keeps."""
    ticket_age: int = 90 * DAY
    """How long a minted ticket may be used (D-INB-3)."""
    max_tickets: int = 1000
    """Minted tickets of one inbox that are not used."""
    key_package_lifetime: int = 100 * DAY
    """The longest lifetime of a published key package (D-DIR-1)."""
    max_key_packages: int = 500
    """Unclaimed key packages of one device; more in one Publish are refused too."""
    low_water: int = 10
    """The owner is told when so few key packages of a suite are left (D-DIR-6)."""
    sweep_interval: float = 300.0
    """Between two rounds of retention."""
    clock_wait: float = 3600.0
    """For how long nothing is dropped where the clock is a week or more ahead of the round before (D-RET-6)."""
    max_subscriptions: int = 1000
    """Subscriptions on one connection."""
    max_waiting: int = 2 * MIB
    """Bytes that may wait for one slow reader (D-SUB-4)."""
    slow_after: float = 30.0
    """Seconds that a reader may take nothing while something waits for it."""
    max_under_way: int = 1024 * MIB
    """Bytes of request bodies and answers that are held at once, while slow peers send or take them; more are refused
    for now. Requests below 64 KiB, answer included, are not counted."""
    max_under_way_of_prefix: int = 256 * MIB
    """The same for one network prefix."""
    prefix_ipv4: int = 32
    """Bits of an IPv4 address that make a requester."""
    prefix_ipv6: int = 56
    """Bits of an IPv6 address that make a requester."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For is believed, for applications that serve this one themselves: `coterie serve` has
    believed its own `trusted_proxies` before."""
    queue_limit: int = 10_000
    """Writes that may wait for the disk before new ones are told to come later."""
    batch_limit: int = 512
    """Writes that share one transaction (group commit)."""
    reader_threads: int = 2
    """Threads that read databases."""
    rates: Rates = field(default_factory=Rates)
    """Rates of requesters and targets."""

    def check(self) -> None:
        """Raises `StateError` for values that contradict each other, or are no lengths of prefixes."""
        if self.min_retention > self.max_retention:
            msg = (
                f"delivery: min_retention ({self.min_retention}) must not be more than max_retention "
                f"({self.max_retention})"
            )
            raise StateError(msg)
        largest = max(self.max_bundle, self.max_read)
        if not 2 * largest <= self.max_under_way_of_prefix <= self.max_under_way:
            msg = (
                f"delivery: max_under_way_of_prefix ({self.max_under_way_of_prefix}) must be twice max_bundle and "
                f"max_read (2 * {largest}) or more, and max_under_way ({self.max_under_way}) as much or more"
            )
            raise StateError(msg)
        if self.prefix_ipv4 > 32 or self.prefix_ipv6 > 128:
            msg = "delivery: prefix_ipv4 has up to 32 bits, prefix_ipv6 up to 128"
            raise StateError(msg)
