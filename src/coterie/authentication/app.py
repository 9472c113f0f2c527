"""The HTTP face of the Authentication Service: an ASGI application (Starlette) over `service`.

It decodes, limits and counts; what is answered is decided in `service`, which runs in a thread since its database
blocks. Neither logs nor metrics contain a name, a key or an address.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from coterie.authentication.limits import RateLimit
from coterie.authentication.service import AuthenticationService
from coterie.errors import CoterieError, DecodeError, StorageError
from coterie.mls.tls import Struct
from coterie.transport.as_api import (
    HTTP_STATUS,
    LIST_MEDIA_TYPE,
    MAX_REQUEST,
    MEDIA_TYPE,
    ErrorCode,
    Operation,
    Refused,
    SignedRequest,
)

_log: Final = logging.getLogger("coterie.authentication")


class _Face:
    """The handlers, with what they share."""

    def __init__(self, service: AuthenticationService) -> None:
        self.service = service
        self.answered: Counter[tuple[str, int]] = Counter()
        settings = service.settings
        self._requests = RateLimit(settings.requests_burst, settings.requests_interval)
        self._enrolments = RateLimit(settings.enrolments_burst, settings.enrolments_interval)
        self._operations: dict[Operation, Callable[[SignedRequest], Struct]] = {
            Operation.ENROL: service.enrol,
            Operation.RENEW: service.renew,
            Operation.LINK: service.link,
            Operation.DEVICES: service.devices,
            Operation.REVOKE: service.revoke,
        }

    def handler(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """The handler of a signed request."""

        async def handle(request: Request) -> Response:
            return await self._answer(operation.value, self._signed(operation, request), MEDIA_TYPE)

        return handle

    async def realm(self, request: Request) -> Response:
        """GET /v1/realm."""
        return await self._answer("realm", self._realm(request), MEDIA_TYPE)

    async def revocations(self, request: Request) -> Response:
        """GET /v1/revocations."""
        return await self._answer("revocations", self._revocations(request), LIST_MEDIA_TYPE)

    async def _signed(self, operation: Operation, request: Request) -> bytes:
        self._limit(request, enrolment=operation is Operation.ENROL)
        signed = SignedRequest.decode(await _body(request))
        answer = await run_in_threadpool(self._operations[operation], signed)
        return answer.encode()

    async def _realm(self, request: Request) -> bytes:
        self._limit(request)
        return self.service.realm_info().encode()

    async def _revocations(self, request: Request) -> bytes:
        self._limit(request)
        return await run_in_threadpool(self.service.revocation_list)

    def _limit(self, request: Request, *, enrolment: bool = False) -> None:
        address = request.client.host if request.client else ""
        now = time.monotonic()
        self._requests.take(address, now)
        if enrolment:
            self._enrolments.take(address, now)

    async def _answer(self, operation: str, body: Awaitable[bytes], media_type: str) -> Response:
        started = time.monotonic()
        try:
            response = Response(await body, media_type=media_type)
        except CoterieError as error:
            response = refusal(_as_refused(error))
        self.answered[operation, response.status_code] += 1
        milliseconds = round((time.monotonic() - started) * 1000)
        extra = {"operation": operation, "status": response.status_code, "ms": milliseconds}
        _log.debug("answered", extra=extra)
        return response


def _as_refused(error: CoterieError) -> Refused:
    if isinstance(error, Refused):
        return error
    if isinstance(error, DecodeError):
        return Refused(ErrorCode.MALFORMED, str(error))
    if isinstance(error, StorageError):
        _log.error("storage", extra={"reason": str(error)})
        return Refused(
            ErrorCode.UNAVAILABLE, "the service's storage does not answer", retry_after=30
        )
    raise error


def refusal(refused: Refused) -> Response:
    """The HTTP answer that says why a request was refused."""
    headers = {} if refused.retry_after is None else {"Retry-After": str(int(refused.retry_after))}
    body = refused.failure().encode()
    return Response(body, HTTP_STATUS[refused.code], headers, media_type=MEDIA_TYPE)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        raise Refused(ErrorCode.MALFORMED, f"the Content-Type must be {MEDIA_TYPE}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_REQUEST:
            raise Refused(ErrorCode.TOO_LARGE, f"a request has at most {MAX_REQUEST} bytes")
    return bytes(body)


async def _no_such_path(_: Request, error: Exception) -> Response:
    what = "method" if isinstance(error, HTTPException) and error.status_code == 405 else "path"
    return refusal(Refused(ErrorCode.UNKNOWN_PATH, f"no such {what} in version 1 of this protocol"))


def create_app(service: AuthenticationService, *, monitoring: bool = True) -> Starlette:
    """The ASGI application; it may stand below any path. `monitoring` adds health and metrics."""
    face = _Face(service)

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        try:
            await run_in_threadpool(service.revocation_list)
        except StorageError:
            return JSONResponse({"ready": False}, 503)
        return JSONResponse({"ready": True})

    async def metrics(_: Request) -> Response:
        counts = await run_in_threadpool(service.ledger.counts)
        return PlainTextResponse(_metrics(face.answered, counts))

    routes = [
        *(Route(f"/v1/{o}", face.handler(o), methods=["POST"]) for o in Operation),
        Route("/v1/realm", face.realm),
        Route("/v1/revocations", face.revocations),
    ]
    if monitoring:
        routes += [
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
        ]
    handlers = {404: _no_such_path, 405: _no_such_path}
    return Starlette(routes=routes, exception_handlers=handlers)


def _metrics(answered: Counter[tuple[str, int]], counts: dict[str, int]) -> str:
    lines = [
        "# HELP coterie_authentication_requests_total Requests answered.",
        "# TYPE coterie_authentication_requests_total counter",
    ]
    for (operation, status), n in sorted(answered.items()):
        labels = f'operation="{operation}",status="{status}"'
        lines.append(f"coterie_authentication_requests_total{{{labels}}} {n}")
    for table, n in counts.items():
        name = f"coterie_authentication_{table}"
        lines += [f"# HELP {name} Rows stored.", f"# TYPE {name} gauge", f"{name} {n}"]
    return "\n".join(lines) + "\n"
