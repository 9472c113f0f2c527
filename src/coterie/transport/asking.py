"""One request over HTTP with bounds on its answer: on its length, and on the time for all of it.

httpx bounds each step of a request. A service that sends a byte now and then is never late by that, and would hold the
client for as long as it likes. Where no answer comes since the address has the wrong scheme, `wrong_scheme` says so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httpx

from coterie.errors import ServiceError
from coterie.transport.refusal import Unreachable

MAX_ANSWER: Final = 64 * 1024 * 1024
"""The longest answer or frame that is taken, in bytes."""
PATIENCE: Final = 120.0
"""Seconds from the beginning of a request to the end of its answer; with `SLOWEST`."""
SLOWEST: Final = 4096
"""Each so many bytes that are sent or have come give a second more: large answers over slow links arrive."""

_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""What OpenSSL says, by its version, where the answer to its greeting is no TLS at all."""
_HANDSHAKE: Final = 3.0
"""Seconds for a handshake that only tries whether TLS is spoken."""


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

    Raises what httpx raises where none comes, `TimeoutError` for one that takes too long in all, and `Unreachable`
    after `client` was closed.
    """
    if client.is_closed:
        # Not a mistake of who asks, who would give up what the service may still do when the client is opened again.
        msg = "this client was closed, and asks for nothing more"
        raise Unreachable(msg, retry_after=0)
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


async def wrong_scheme(url: str, error: Exception) -> str | None:
    """What is wrong, and what to do, where the service does not speak the scheme of its address; else None.

    `error` is what came of a request. A server that waits for TLS tells plain requests nothing: a handshake is tried.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return _lacks_tls(parts) if any(word in str(error) for word in _NOT_TLS) else None
    if not isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
        return None
    if not await _speaks_tls(parts.hostname or "", parts.port or 80):
        return None
    return f"the service at {_place(parts)} speaks TLS: its address is https://{parts.netloc}"


def _place(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc}"


def _lacks_tls(parts: SplitResult) -> str:
    """Nobody is told to do without TLS on a network: whoever sits in it can make a service look as if it had none."""
    if _is_here(parts.hostname or ""):
        advice = f"its address is http://{parts.netloc}"
    else:
        advice = "check the address and its port, or let the operator set up TLS"
    return f"the service at {_place(parts)} does not speak TLS: {advice}"


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether somebody answers a handshake. Nothing is sent over the connection, so nobody has to be trusted for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_HANDSHAKE):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        # An alert is TLS as well.
        return "ALERT" in str(error.reason)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    return True
