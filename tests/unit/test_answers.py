"""What a client takes from a service at most: no answer beyond the bound, none that unpacks to one, none that drips."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from coterie.errors import ServiceError
from coterie.transport import asking
from coterie.transport.refusal import Unreachable


class _Parts(httpx.AsyncByteStream):
    """A body that comes in parts, a moment between two."""

    def __init__(self, parts: Iterator[bytes], pause: float) -> None:
        self._parts, self._pause = parts, pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            await asyncio.sleep(self._pause)
            yield part


def _asked(response: httpx.Response, content: bytes | None = None) -> bytes:
    async def main() -> bytes:
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as http:
            _, body = await asking.ask(http, "POST", "http://x/", content, whose="the service's")
            return body

    return asyncio.run(main())


def _response(content: bytes, **headers: str) -> httpx.Response:
    return httpx.Response(200, headers=headers, content=content)


def test_a_compressed_answer_is_not_unpacked() -> None:
    response = _response(gzip.compress(bytes(100)), **{"content-encoding": "gzip"})
    with pytest.raises(ServiceError, match="compressed"):
        _asked(response)


def test_a_client_that_was_closed_asks_for_nothing() -> None:
    async def main() -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: _response(b"")))
        await http.aclose()
        with pytest.raises(Unreachable, match="was closed"):
            await asking.ask(http, "POST", "http://x/", whose="the service's")

    asyncio.run(main())


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER", 100)
    assert _asked(_response(bytes(100))) == bytes(100)
    with pytest.raises(ServiceError, match="longer than 100 bytes"):
        _asked(_response(bytes(101)))


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.3)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no whole answer"):
        _asked(httpx.Response(200, stream=_Parts(iter([b"a"] * 2000), 0.01)))
    assert time.monotonic() - started < 10


def test_an_answer_that_keeps_coming_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 1.0)
    monkeypatch.setattr(asking, "SLOWEST", 100)
    parts = [bytes(100)] * 16
    assert len(_asked(httpx.Response(200, stream=_Parts(iter(parts), 0.1)))) == 1600


def test_what_is_long_to_send_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.1)
    monkeypatch.setattr(asking, "SLOWEST", 100)
    response = httpx.Response(200, stream=_Parts(iter([b"a"]), 0.5))
    assert _asked(response, bytes(1000)) == b"a"
