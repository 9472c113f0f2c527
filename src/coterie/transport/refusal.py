"""A refusal of the delivery protocol, raised alike by the service's code and by every transport of a client."""

from __future__ import annotations

import math
from typing import Final

from coterie.errors import ServiceError
from coterie.transport.api import ErrorCode, Failure, LostRace

HTTP_STATUS: Final[dict[ErrorCode, int]] = {
    ErrorCode.MALFORMED: 400,
    ErrorCode.UNSUPPORTED_VERSION: 400,
    ErrorCode.UNKNOWN_EPOCH: 404,
    ErrorCode.GONE: 410,
    ErrorCode.BAD_TOKEN: 403,
    ErrorCode.BAD_SIGNATURE: 403,
    ErrorCode.ID_REUSED: 409,
    ErrorCode.EPOCH_ENDED: 409,
    ErrorCode.EPOCH_CLOSED: 409,
    ErrorCode.LOST_RACE: 409,
    ErrorCode.BAD_ACCESS: 409,
    ErrorCode.MISSING_CHUNK: 422,
    ErrorCode.UNKNOWN_CANDIDATE: 422,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.BAD_SIZE: 422,
    ErrorCode.BAD_RETENTION: 422,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.QUOTA: 429,
    ErrorCode.UNKNOWN_NAME: 404,
    ErrorCode.NONE_LEFT: 404,
    ErrorCode.BAD_CREDENTIAL: 403,
    ErrorCode.BAD_KEY_PACKAGE: 422,
    ErrorCode.TICKET_USED: 409,
    ErrorCode.UNKNOWN_INBOX: 404,
    ErrorCode.TOO_SLOW: 429,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNKNOWN_PATH: 404,
}
"""The HTTP status of each error (D-TRA-2)."""


class Unreachable(ServiceError):
    """No answer came: what was sent may have been stored, and whatever else is asked now will have none either.

    Without `retry_after` the address is wrong; what is wanted waits for a service there all the same.
    """


class Refused(ServiceError):
    """The service refused a request: `code` says why, `retry_after` (seconds) whether waiting helps.

    `lost_race` is there when another bundle was first: the winner and where to read on (D-BUN-4).
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        rule: str | None = None,
        retry_after: float | None = None,
        lost_race: LostRace | None = None,
    ) -> None:
        super().__init__(message, rule=rule, retry_after=retry_after)
        self.code = code
        self.lost_race = lost_race

    def failure(self) -> Failure:
        """The struct that says the same on the wire; seconds are rounded up."""
        seconds = None if self.retry_after is None else math.ceil(self.retry_after)
        return Failure(self.code, str(self).encode(), seconds, self.lost_race)

    @classmethod
    def of(cls, failure: Failure) -> Refused:
        """The exception for what a service answered."""
        return cls(
            failure.code,
            failure.message.decode(errors="replace"),
            retry_after=failure.retry_after,
            lost_race=failure.lost_race,
        )
