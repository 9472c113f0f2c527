"""The Delivery Service's HTTP and WebSocket face, called as a server would call it: what it refuses before decoding."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.app import DeliveryApp
from coterie.delivery.limits import LOCAL
from coterie.delivery.service import DeliveryService
from coterie.delivery.settings import Settings
from coterie.errors import StorageError
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.api import (
    ClientFrame,
    ClientFrameType,
    Delivery,
    ErrorCode,
    Failure,
    Subscribe,
    TargetType,
)
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED
from tests.delivery_devices import Device, identify_basic
from tests.delivery_model import new_log

LIMIT = 2000
CREATE = "/v1/logs/create"
Message = dict[str, Any]


def _with_app(test: Callable[[DeliveryApp], Awaitable[None]]) -> None:
    async def main() -> None:
        service = DeliveryService(
            Ed25519PrivateKey.generate(),
            identify_basic,
            settings=Settings(rates=UNLIMITED, max_bundle=LIMIT),
        )
        try:
            await test(DeliveryApp(service))
        finally:
            await service.close()

    asyncio.run(main())


async def _http(
    app: DeliveryApp,
    parts: Iterable[bytes | None],
    *,
    path: str = CREATE,
    method: str = "POST",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Sends a body in parts, None for a connection that is cut; gives status and body of the answer."""
    given = list(parts)
    messages: list[Message] = [
        {"type": "http.disconnect"}
        if part is None
        else {"type": "http.request", "body": part, "more_body": number < len(given)}
        for number, part in enumerate(given, 1)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    # Once, as an iterable may be gone through: a dictionary of them is made once for each request.
    raw = iter([(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()])
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": raw,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def _code(answer: tuple[int, bytes]) -> ErrorCode:
    assert answer[0] != 200
    return Failure.decode(answer[1]).code


def _request() -> bytes:
    return new_log()[1].encode()


def test_a_body_may_come_in_parts() -> None:
    async def test(app: DeliveryApp) -> None:
        body = _request()
        for parts in ([body], [body[:1], body[1:]], [b"", body[:50], body[50:], b""]):
            assert (await _http(app, parts))[0] == 200
        assert (await _http(app, [body[:-1]])) == (await _http(app, [body[:1], body[1:-1]]))

    _with_app(test)


def test_requests_are_posts_and_posts_decode() -> None:
    async def test(app: DeliveryApp) -> None:
        for method in ("GET", "PUT", "DELETE", "post"):
            assert _code(await _http(app, [_request()], method=method)) is ErrorCode.MALFORMED
        for body in (b"", b"\xff", _request() + b"\0"):
            assert _code(await _http(app, [body])) is ErrorCode.MALFORMED
        assert _code(await _http(app, [b""], path="/v1/nothing", method="GET")) is (
            ErrorCode.UNKNOWN_PATH
        )
        assert (await _http(app, [b""], path="/v1/nothing"))[0] == 405

    _with_app(test)


@pytest.mark.parametrize(
    ("said", "taken"),
    [("1", True), ("2, 1", True), (" 1 ,7", True), ("2", False), ("11", False), ("", False)],
)
def test_a_client_says_which_versions_it_speaks(said: str, taken: bool) -> None:
    async def test(app: DeliveryApp) -> None:
        answer = await _http(app, [_request()], headers={api.VERSION_HEADER: said})
        if taken:
            assert answer[0] == 200
        else:
            assert _code(answer) is ErrorCode.UNSUPPORTED_VERSION

    _with_app(test)


@pytest.mark.parametrize("declared", [str(LIMIT + 1), "9" * 30, "-1", "1e3", "", "٣"])
def test_a_length_that_is_too_large_or_none_is_refused_unread(declared: str) -> None:
    async def test(app: DeliveryApp) -> None:
        # Nothing is there to be received: reading would fail.
        answer = await _http(app, [], headers={"Content-Length": declared})
        assert _code(answer) is ErrorCode.TOO_LARGE

    _with_app(test)


def test_a_body_is_read_up_to_the_limit_and_no_further() -> None:
    async def test(app: DeliveryApp) -> None:
        exact = [bytes(LIMIT - 1), b"\0"]
        length = {"Content-Length": str(LIMIT)}
        assert _code(await _http(app, exact, headers=length)) is ErrorCode.MALFORMED
        assert _code(await _http(app, exact)) is ErrorCode.MALFORMED
        # After the byte too many there is nothing to be received.
        more = [bytes(LIMIT), b"\0"]
        assert _code(await _http(app, more)) is ErrorCode.TOO_LARGE

    _with_app(test)


def test_a_connection_that_is_cut_in_a_body_is_no_request() -> None:
    async def test(app: DeliveryApp) -> None:
        body = _request()
        answer = await _http(app, [body, None])
        assert _code(answer) is ErrorCode.MALFORMED
        assert b"cut" in answer[1]

    _with_app(test)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1])
def test_a_number_that_no_database_holds_is_only_a_large_one(number: int) -> None:
    async def test(app: DeliveryApp) -> None:
        epoch, create = new_log()
        await _http(app, [create.encode()])
        inbox = Device(b"alice@x")
        await _http(app, [inbox.open().encode()], path="/v1/inboxes/open")
        asked: dict[str, Struct] = {
            "logs/read": epoch.read(number),
            "boxes/read": epoch.read_box(number),
            "inboxes/read": inbox.read(number),
            "inboxes/ack": api.AckInbox(inbox.inbox_id, inbox.token, number),
        }
        for path, request in asked.items():
            assert (await _http(app, [request.encode()], path=f"/v1/{path}"))[0] == 200, path
        entry = api.FetchEntry(epoch.log_id, epoch.name, epoch.read_token, number, 0)
        answer = await _http(app, [entry.encode()], path="/v1/logs/entry")
        assert _code(answer) is ErrorCode.MALFORMED
        target = epoch.target(number)
        request = Subscribe(1, Delivery.CONTENT, TargetType.LOG, log=target)
        frame = ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request).encode()
        sent = await _socket(app, [{"type": "websocket.receive", "bytes": frame}])
        assert all(message["type"] != "websocket.close" for message in sent)

    _with_app(test)


# -- WebSocket


async def _socket(
    app: DeliveryApp,
    frames: list[Message],
    *,
    path: str = "/v1/subscribe",
    protocols: tuple[str, ...] = (api.SUBPROTOCOL,),
) -> list[Message]:
    """Sends messages over a WebSocket, and gives what was sent back."""
    messages = [{"type": "websocket.connect"}, *frames, {"type": "websocket.disconnect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "subprotocols": list(protocols), "headers": []}
    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("path", "protocols"),
    [("/v1/subscribe", ()), ("/v1/subscribe", ("x",)), ("/v1/other", (api.SUBPROTOCOL,))],
)
def test_a_socket_of_another_path_or_protocol_is_closed_at_once(
    path: str, protocols: tuple[str, ...]
) -> None:
    async def test(app: DeliveryApp) -> None:
        [closed] = await _socket(app, [], path=path, protocols=protocols)
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)

    _with_app(test)


@pytest.mark.parametrize(
    "message", [{"bytes": b"\xff\xff"}, {"bytes": b""}, {"text": "hello", "bytes": None}]
)
def test_a_frame_that_is_none_ends_the_connection(message: Message) -> None:
    async def test(app: DeliveryApp) -> None:
        accepted, closed = await _socket(app, [{"type": "websocket.receive", **message}])
        assert accepted["type"] == "websocket.accept"
        assert (closed["type"], closed["code"]) == ("websocket.close", 1007)
        assert closed["reason"].startswith("malformed: ")

    _with_app(test)


def test_a_number_that_is_used_twice_ends_the_connection() -> None:
    async def test(app: DeliveryApp) -> None:
        request = Subscribe(1, Delivery.CONTENT, TargetType.LOG, log=new_log()[0].target())
        frame = ClientFrame(ClientFrameType.SUBSCRIBE, subscribe=request).encode()
        message = {"type": "websocket.receive", "bytes": frame}
        sent = await _socket(app, [message, message])
        assert sent[-1]["code"] == 1007
        assert "D-SUB-1" in sent[-1]["reason"]

    _with_app(test)


# -- the service beneath


def test_a_request_without_a_handler_and_a_database_that_fails_are_refusals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(app: DeliveryApp) -> None:
        service = app._service
        with pytest.raises(Refused) as caught:
            await service.handle("logs/none", new_log()[1], LOCAL)
        assert caught.value.code is ErrorCode.UNKNOWN_PATH

        async def fail(*_: object) -> None:
            raise StorageError("the disk is full")

        monkeypatch.setitem(service._handlers, "logs/create", fail)
        assert _code(await _http(app, [_request()])) is ErrorCode.UNAVAILABLE

    _with_app(test)
