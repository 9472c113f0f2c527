"""Every operational parameter of the Authentication Service, with its default and what it is for (RFC 9750 §7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coterie.errors import StateError

MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Settings:
    """The Authentication Service's settings; times are in seconds."""

    certificate_lifetime: int = 30 * DAY
    """How long a certificate is valid; clients renew after two thirds of it."""
    renewal_grace: int = 180 * DAY
    """How long after its certificate ended a device may still renew it; after that it must be linked again."""
    key_overlap: int = 7 * DAY
    """How long the certificates of a device's old key stay valid after it changed its key."""
    code_lifetime: int = 3 * DAY
    """How long a one-time code of the operator's is valid."""
    link_code_lifetime: int = HOUR
    """How long a one-time code for a further device is valid."""
    list_lifetime: int = 2 * DAY
    """How long a revocation list is in force: verifiers that get no newer one accept nobody after it."""
    list_interval: int = HOUR
    """How often the list is made anew if nothing was revoked; a revocation makes it anew at once."""
    max_devices: int = 32
    """Devices of one user that are not revoked."""
    certificates_per_day: int = 24
    """Certificates that one device may ask for in a day."""
    requests_burst: int = 60
    """Requests of one network prefix at once ..."""
    requests_interval: float = 1.0
    """... and then one in so many seconds."""
    enrolments_burst: int = 10
    """Attempts to enrol of one network prefix at once ..."""
    enrolments_interval: float = 30.0
    """... and then one in so many seconds."""

    def check(self) -> None:
        """Raises `StateError` for values that contradict each other."""
        if self.list_interval < HOUR:
            msg = (
                f"authentication: list_interval ({self.list_interval}) must be an hour ({HOUR}) or more: times are "
                "kept to the hour, and the list would be made anew for every request"
            )
            raise StateError(msg)
        if self.list_interval >= self.list_lifetime:
            msg = (
                f"authentication: list_interval ({self.list_interval}) must be less than list_lifetime "
                f"({self.list_lifetime}), or there is no list in force before the next one is made"
            )
            raise StateError(msg)
