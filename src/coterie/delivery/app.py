"""The Delivery Service over HTTP and WebSocket, as an ASGI application (section 14).

The paths are fixed and have no parameters, so routing is one dictionary; docs/decisions/0025 says why no framework.
Nothing of a request is logged but its path, outcome and duration (D-TRA-6).
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.directory import Identify
from coterie.delivery.limits import Clock, Requester, client_address, requester_of
from coterie.delivery.openapi import description
from coterie.delivery.service import DeliveryService, Places
from coterie.delivery.settings import Settings
from coterie.delivery.under_way import Held, UnderWay
from coterie.errors import CoterieError, DecodeError
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.api import ClientFrame, ErrorCode, Failure
from coterie.transport.refusal import HTTP_STATUS, Refused

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]

PREFIX: Final = "/v1/"
log = logging.getLogger("coterie.delivery")

_PLAIN: Final = b"text/plain; version=0.0.4; charset=utf-8"
_JSON: Final = b"application/json"
_PIECE: Final = 256 * 1024
_CLOSE_TRY_LATER: Final = 1013
_CLOSE_BAD_DATA: Final = 1007


class DeliveryApp:
    """The ASGI application around a service; `monitoring` adds health and metrics, which may be kept inside."""

    def __init__(self, service: DeliveryService, *, monitoring: bool = True) -> None:
        self._service = service
        self._monitoring = monitoring
        most = service.settings.max_under_way, service.settings.max_under_way_of_prefix
        self._held = UnderWay(*most)
        self._openapi = json.dumps(description(service.settings)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or request."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._service.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._service.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    # -- HTTP

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        operation = path.removeprefix(PREFIX)
        if operation in api.OPERATIONS and path.startswith(PREFIX):
            await self._operation(operation, scope, receive, send)
            return
        status, kind, body = await self._page(path, scope["method"])
        await _respond(send, status, kind, body)

    async def _operation(self, operation: str, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        held = Held(self._held, self._requester(scope, headers))
        try:
            await self._operate(operation, scope["method"], headers, receive, send, held)
        finally:
            held.give_back()

    async def _operate(
        self,
        operation: str,
        method: str,
        headers: Headers,
        receive: Receive,
        send: Send,
        held: Held,
    ) -> None:
        started = time.perf_counter()
        extra: tuple[tuple[bytes, bytes], ...] = ()
        try:
            answer = (await self._answer(operation, method, headers, receive, held)).encode()
            held.take(len(answer))
            outcome, status = "ok", 200
        except Refused as refused:
            failure = refused.failure()
            answer, status = failure.encode(), HTTP_STATUS[refused.code]
            outcome, extra = refused.code.name.lower(), _retry_header(failure)
        except Exception as error:  # noqa: BLE001 - the last resort: say no more than that it failed
            failure = Failure(ErrorCode.INTERNAL, b"the service failed", 1)
            answer, status = failure.encode(), 500
            outcome, extra = "internal", _retry_header(failure)
            # A traceback could show what a request held, so only the class is written down.
            log.error("request failed: %s in %s", type(error).__name__, operation)  # noqa: TRY400
        seconds = time.perf_counter() - started
        self._service.metrics.request(operation, outcome, seconds)
        log.debug("%s %s %.1f ms", operation, outcome, seconds * 1000)
        await _respond(send, status, api.MEDIA_TYPE.encode(), answer, extra)

    async def _answer(
        self, operation: str, method: str, headers: Headers, receive: Receive, held: Held
    ) -> Struct:
        if method != "POST":
            raise _malformed("requests of this protocol are POST")
        _check_version(headers.get(api.VERSION_HEADER.lower().encode()))
        body = await self._body(headers, receive, held)
        try:
            request = api.OPERATIONS[operation][0].decode(body)
        except DecodeError as error:
            raise _malformed(str(error)) from error
        return await self._service.handle(operation, request, held.requester)

    async def _body(self, headers: Headers, receive: Receive, held: Held) -> bytes:
        limit = self._service.settings.max_bundle
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            raise _too_large(limit)
        message = await receive()
        if not message.get("more_body"):
            body: bytes = message.get("body", b"")
            return body
        parts, size = [message["body"]], len(message["body"])
        held.take(size)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _malformed("the connection was cut in the middle of the body")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            held.take(len(parts[-1]))
        return b"".join(parts)

    def _requester(self, scope: Scope, headers: Headers) -> Requester:
        peer = (scope.get("client") or ("",))[0]
        forwarded = headers.get(b"x-forwarded-for")
        settings = self._service.settings
        address = client_address(
            peer, None if forwarded is None else forwarded.decode("latin-1"), settings
        )
        return requester_of(address, settings)

    async def _page(self, path: str, method: str) -> tuple[int, bytes, bytes]:
        if method not in {"GET", "HEAD"}:
            return 405, _JSON, b'{"error": "GET only"}'
        if path == "/v1/service":
            return 200, api.MEDIA_TYPE.encode(), self._service.info().encode()
        if path == "/v1/openapi.json":
            return 200, _JSON, self._openapi
        page = await self._monitor(path) if self._monitoring else None
        if page is not None:
            return page
        failure = Failure(ErrorCode.UNKNOWN_PATH, b"there is no such request [D-TRA-1]")
        return 404, api.MEDIA_TYPE.encode(), failure.encode()

    async def _monitor(self, path: str) -> tuple[int, bytes, bytes] | None:
        if path == "/health/live":
            return 200, _JSON, b'{"live": true}'
        if path == "/health/ready":
            ready = await self._service.ready()
            return (200 if ready else 503), _JSON, json.dumps({"ready": ready}).encode()
        if path == "/metrics":
            return 200, _PLAIN, self._service.metrics.text(self._service.gauges()).encode()
        return None

    # -- WebSocket

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] != "/v1/subscribe" or api.SUBPROTOCOL not in scope["subprotocols"]:
            await send({"type": "websocket.close", "code": 1008, "reason": "unsupported_version"})
            return
        await send({"type": "websocket.accept", "subprotocol": api.SUBPROTOCOL})
        self._service.metrics.count("connections")

        async def push(frame: bytes) -> None:
            await send({"type": "websocket.send", "bytes": frame})

        async def close(failure: Failure) -> None:
            # Counted first: who is slow may take its time to be told.
            self._service.metrics.count("slow_readers")
            await _close(send, failure, _CLOSE_TRY_LATER)

        channel = self._service.channel(push, close)
        try:
            while (message := await receive())["type"] == "websocket.receive":
                channel.receive(ClientFrame.decode(message.get("bytes") or b""))
        except CoterieError as error:
            code = error.code if isinstance(error, Refused) else ErrorCode.MALFORMED
            await _close(send, Failure(code, str(error).encode()), _CLOSE_BAD_DATA)
        finally:
            channel.shut()


def create_app(
    receipt_key: Ed25519PrivateKey,
    identify: Identify,
    *,
    places: Places,
    settings: Settings | None = None,
    clock: Clock = time.time,
    monitoring: bool = True,
) -> DeliveryApp:
    """The application of a new service: databases are opened here, retention starts with the event loop.

    `receipt_key` must stay the same for as long as logs live, since groups pin it; `identify` says whose a credential
    is (`coterie.delivery.identify.by_certificate`). Raises `StorageError` if a database cannot be opened.
    """
    service = DeliveryService(receipt_key, identify, places=places, settings=settings, clock=clock)
    return DeliveryApp(service, monitoring=monitoring)


async def _close(send: Send, failure: Failure, code: int) -> None:
    """Closes a WebSocket with `name: message` as the reason, 123 bytes of UTF-8 at most."""
    text = f"{failure.code.name.lower()}: {failure.message.decode()}".encode()[:123]
    reason = text.decode(errors="ignore")
    try:
        await asyncio.wait_for(
            send({"type": "websocket.close", "code": code, "reason": reason}), timeout=1
        )
    except (TimeoutError, RuntimeError):
        log.debug("a connection was gone before it was closed")


async def _respond(
    send: Send,
    status: int,
    kind: bytes,
    body: bytes,
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    # In pieces, each of which waits for the reader to take the ones before.
    for at in range(0, len(body) - _PIECE, _PIECE):
        piece = body[at : at + _PIECE]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": body[(len(body) - 1) // _PIECE * _PIECE :]})


def _retry_header(failure: Failure) -> tuple[tuple[bytes, bytes], ...]:
    if failure.retry_after is None:
        return ()
    return ((b"retry-after", str(failure.retry_after).encode()),)


def _check_version(header: bytes | None) -> None:
    """D-TRA-3: one of the versions that the client speaks must be ours."""
    if header is not None and b"1" not in {part.strip() for part in header.split(b",")}:
        raise Refused(
            ErrorCode.UNSUPPORTED_VERSION, "this service speaks version 1", rule="D-TRA-3"
        )


def _malformed(why: str) -> Refused:
    return Refused(ErrorCode.MALFORMED, why, rule="D-TRA-2")


def _too_large(limit: int) -> Refused:
    return Refused(ErrorCode.TOO_LARGE, f"a request has at most {limit} bytes", rule="D-TRA-4")
