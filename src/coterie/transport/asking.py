"""One request over HTTP with bounds on its answer: on its length, and on the time for all of it.

httpx bounds each step of a request. A service that sends a byte now and then is never late by that, and would hold the
client for as long as it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import httpx

from coterie.errors import ServiceError

MAX_ANSWER: Final = 64 * 1024 * 1024
"""The longest answer or frame that is taken, in bytes."""
PATIENCE: Final = 120.0
"""Seconds from the beginning of a request to the end of its answer; with `SLOWEST`."""
SLOWEST: Final = 4096
"""Each so many bytes that are sent or have come give a second more: large answers over slow links arrive."""


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    content: bytes | None = None,
    *,
    whose: str,
    headers: Mapping[str, str] | None = None,
) -> tuple[httpx.Response, bytes]:
    """The answer and its body. Raises `ServiceError` for one that is too long or compressed; `whose` answer says it.

    Raises what httpx raises where none comes, and `TimeoutError` for one that takes too long in all.
    """
    size = 0 if content is None else len(content)
    try:
        async with asyncio.timeout(PATIENCE + size / SLOWEST) as limit:
            async with client.stream(method, url, content=content, headers=headers) as response:
                return response, await _read(response, whose, limit)
    except TimeoutError as error:
        msg = f"no whole answer within {PATIENCE:.0f} seconds and one for each {SLOWEST} bytes"
        raise TimeoutError(msg) from error


async def _read(response: httpx.Response, whose: str, limit: asyncio.Timeout) -> bytes:
    """The body. A compressed one, which nobody asked for, could become a thousand times as long."""
    if response.headers.get("content-encoding", "identity") != "identity":
        msg = f"{whose} answer is compressed, which was not asked for"
        raise ServiceError(msg)
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            msg = f"{whose} answer is longer than {MAX_ANSWER} bytes"
            raise ServiceError(msg)
        limit.reschedule((limit.when() or 0) + len(part) / SLOWEST)
    return bytes(body)
