"""What a client's carriers make of services that fail, lie or answer what is no answer: always an error of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from coterie.errors import DecodeError, ServiceError
from coterie.transport import api, as_api, asking
from coterie.transport.authentication import AuthenticationClient
from coterie.transport.client import Connection
from coterie.transport.http import HTTPCarrier
from coterie.transport.memory import MemoryCarrier
from coterie.transport.refusal import Refused, Unreachable
from tests.delivery_model import new_log

REQUEST = new_log()[1]


def _answered(*, status: int = 200, content: bytes = b"", kind: str = api.MEDIA_TYPE) -> Any:
    """What `call` raises where the service answers this."""

    async def main() -> None:
        carrier = HTTPCarrier("http://service")
        await carrier._client.aclose()
        carrier._client = httpx.AsyncClient(
            transport=httpx.MockTransport(
                lambda _: httpx.Response(status, headers={"content-type": kind}, content=content)
            )
        )
        try:
            await carrier.call("logs/create", REQUEST, api.Appended)
        finally:
            await carrier.close()

    with pytest.raises(ServiceError) as caught:
        asyncio.run(main())
    return caught.value


def test_an_answer_of_another_type_is_none() -> None:
    for status, retry in ((200, None), (404, None), (503, 1.0)):
        error = _answered(status=status, kind="text/html")
        assert "address" in str(error)
        assert error.retry_after == retry


def test_a_malformed_answer_is_an_error_of_the_service() -> None:
    for status in (200, 400, 500):
        assert "malformed" in str(_answered(status=status, content=b"\xff"))


def test_a_refusal_is_raised_whatever_its_status() -> None:
    failure = api.Failure(api.ErrorCode.QUOTA, b"full", 7)
    for status in (400, 429, 503):
        error = _answered(status=status, content=failure.encode())
        assert isinstance(error, Refused)
        assert (error.code, error.retry_after) == (api.ErrorCode.QUOTA, 7)


def test_a_service_that_is_not_there_may_be_tried_again() -> None:
    async def main() -> None:
        carrier = HTTPCarrier("http://127.0.0.1:1")
        for work in (carrier.info(), carrier.connect()):
            with pytest.raises(ServiceError, match="cannot be reached") as caught:
                await work
            assert caught.value.retry_after is not None
        await carrier.close()

    asyncio.run(main())


# -- addresses with the wrong scheme


async def _hangs_up(
    handle: Callable[[bytes], bytes] = lambda _: b"",
) -> tuple[asyncio.Server, str, list[bytes]]:
    """A server that speaks no TLS: answers what comes as told, and hangs up; its host and port, and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(1 << 16))
        writer.write(handle(came[-1]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"127.0.0.1:{server.sockets[0].getsockname()[1]}", came


def test_a_server_without_tls_is_said_to_be_one() -> None:
    async def main() -> None:
        server, place, _ = await _hangs_up(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n")
        async with server:
            carrier = HTTPCarrier(f"https://{place}")
            with pytest.raises(Unreachable) as caught:
                await carrier.info()
            await carrier.close()
        assert str(caught.value) == (
            f"the service at https://{place} does not speak TLS: its address is http://{place}"
        )
        assert caught.value.retry_after is None, "it is not a matter of time"

    asyncio.run(main())


@pytest.mark.parametrize("words", ["WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"])
def test_nobody_is_told_to_do_without_tls_on_a_network(words: str) -> None:
    async def main() -> None:
        error = httpx.ConnectError(f"[SSL: {words}] (_ssl.c:1006)")
        for place in ("chat.example.org", "192.0.2.1:8470", "[2001:db8::1]"):
            said = await asking.wrong_scheme(f"https://{place}/v1/", error)
            assert said is not None
            assert "http://" not in said
            assert "let the operator set up TLS" in said
        for place in ("localhost:8470", "127.0.0.1", "[::1]:8470"):
            said = await asking.wrong_scheme(f"https://{place}/v1/", error)
            assert said is not None
            assert said.endswith(f"its address is http://{place}")

    asyncio.run(main())


def test_a_server_that_hangs_up_and_speaks_no_tls_either_may_be_tried_again() -> None:
    async def main() -> None:
        server, place, came = await _hangs_up()
        async with server:
            carrier = HTTPCarrier(f"http://{place}")
            with pytest.raises(Unreachable, match="cannot be reached") as caught:
                await carrier.info()
            await carrier.close()
        assert caught.value.retry_after is not None
        assert [first[:1] for first in came] == [b"G", b"\x16"], "a request, then a handshake"

    asyncio.run(main())


def test_who_answered_before_is_not_suspected_of_speaking_something_else() -> None:
    async def asked(ask: Callable[[str, httpx.AsyncClient], Awaitable[object]]) -> int:
        answers = [b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", b""]
        server, place, came = await _hangs_up(lambda _: answers[len(came) - 1])
        async with server, httpx.AsyncClient() as http:
            await ask(f"http://{place}", http)
        return len(came)

    async def twice(ask: Callable[[], Awaitable[object]]) -> None:
        for _ in range(2):
            with pytest.raises(ServiceError):
                await ask()

    async def delivery(url: str, _: httpx.AsyncClient) -> None:
        carrier = HTTPCarrier(url)
        await twice(carrier.info)
        await carrier.close()

    async def authentication(url: str, http: httpx.AsyncClient) -> None:
        await twice(AuthenticationClient(http, url, "example.org", clock=lambda: 0).realm_info)

    assert asyncio.run(asked(delivery)) == 2
    assert asyncio.run(asked(authentication)) == 2


# -- WebSocket


def _connected(
    serving: Callable[[ServerConnection], Awaitable[None]],
    client: Callable[[Connection], Awaitable[None]],
) -> None:
    async def main() -> None:
        protocols = [Subprotocol(api.SUBPROTOCOL)]
        async with serve(serving, "127.0.0.1", 0, subprotocols=protocols) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            carrier = HTTPCarrier(f"http://127.0.0.1:{port}")
            connection = await carrier.connect()
            try:
                await client(connection)
            finally:
                await connection.close()
                await carrier.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "error"),
    [("text", ServiceError), (b"", DecodeError), (b"\xff" * 9, DecodeError)],
)
def test_a_frame_that_is_none_raises(sent: str | bytes, error: type[Exception]) -> None:
    async def serving(socket: ServerConnection) -> None:
        await socket.send(sent)
        await socket.wait_closed()

    async def client(connection: Connection) -> None:
        with pytest.raises(error):
            await connection.receive()

    _connected(serving, client)


@pytest.mark.parametrize(
    ("reason", "code"),
    [("quota: full", api.ErrorCode.QUOTA), ("nonsense: x", None), ("", None)],
)
def test_a_connection_that_was_ended_says_why(reason: str, code: api.ErrorCode | None) -> None:
    async def serving(socket: ServerConnection) -> None:
        await socket.close(1008, reason)

    async def client(connection: Connection) -> None:
        frame = api.ClientFrame(api.ClientFrameType.UNSUBSCRIBE, unsubscribe=api.Unsubscribe(1))
        with pytest.raises(ServiceError) as caught:
            await connection.receive()
        assert getattr(caught.value, "code", None) is code
        with pytest.raises(ServiceError):
            await connection.send(frame)

    _connected(serving, client)


class _Channel:
    def receive(self, frame: api.ClientFrame) -> None:
        pass

    def shut(self) -> None:
        pass


class _Ending:
    """A service whose subscriptions end at once."""

    def channel(self, send: Any, close: Callable[[api.Failure], Awaitable[None]]) -> _Channel:
        self.close = close
        return _Channel()


def test_a_connection_in_memory_says_why_it_was_ended() -> None:
    async def main() -> None:
        service = _Ending()
        connection = await MemoryCarrier(service).connect()  # type: ignore[arg-type]
        await service.close(api.Failure(api.ErrorCode.TOO_SLOW, b"slow"))
        with pytest.raises(Refused) as caught:
            await connection.receive()
        assert caught.value.code is api.ErrorCode.TOO_SLOW
        await connection.close()
        with pytest.raises(ServiceError, match="closed"):
            await connection.receive()

    asyncio.run(main())


# -- the Authentication Service


def _asked(response: httpx.Response) -> ServiceError:
    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as http:
            client = AuthenticationClient(http, "http://service/", "realm", clock=lambda: 0)
            await client.realm_info()

    with pytest.raises(ServiceError) as caught:
        asyncio.run(main())
    return caught.value


def test_the_authentication_services_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER", 100)
    assert "longer" not in str(_asked(httpx.Response(200, content=bytes(100))))
    assert "longer than 100 bytes" in str(_asked(httpx.Response(200, content=bytes(101))))


def test_the_authentication_services_answer_is_given_up_if_it_drips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.1)

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b"a"

    late = _asked(httpx.Response(200, content=dripping()))
    assert "no whole answer" in str(late)
    assert late.retry_after is not None


def test_the_authentication_services_answer_decodes_or_is_an_error() -> None:
    assert "no RealmInfo" in str(_asked(httpx.Response(200, content=b"\xff")))
    page = _asked(httpx.Response(502, content=b"<html>"))
    assert "status 502" in str(page)
    assert page.retry_after is not None
    failure = as_api.Failure(as_api.ErrorCode.UNAVAILABLE, b"later", 30)
    refused = _asked(httpx.Response(503, content=failure.encode()))
    assert isinstance(refused, as_api.Refused)
