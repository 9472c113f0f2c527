"""What a client takes from a service at most: no answer beyond the bound, and none that unpacks to one."""

from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest

from coterie.errors import ServiceError
from coterie.transport import http
from coterie.transport.authentication import _read


def _response(content: bytes, **headers: str) -> httpx.Response:
    return httpx.Response(200, headers=headers, content=content)


@pytest.mark.parametrize("read", [http.read_bounded, _read])
def test_a_compressed_answer_is_not_unpacked(read: object) -> None:
    response = _response(gzip.compress(bytes(100)), **{"content-encoding": "gzip"})
    with pytest.raises(ServiceError, match="compressed"):
        asyncio.run(read(response))  # type: ignore[operator]


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_ANSWER", 100)
    assert asyncio.run(http.read_bounded(_response(bytes(100)))) == bytes(100)
    with pytest.raises(ServiceError, match="longer than 100 bytes"):
        asyncio.run(http.read_bounded(_response(bytes(101))))
