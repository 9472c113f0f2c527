"""Connections: how many, and what becomes of who takes no answer; tests/services/test_slow_peers has real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from coterie.apps.config import Config, Connections
from coterie.apps.connections import Doorkeeper, protocols
from coterie.apps.serve import _prefixes
from coterie.errors import StateError

LIMITS = Connections(slow_after=0.5, slowest=100)
PACE = 50
"""Bytes that must be taken in each `slow_after`."""


class Transport(asyncio.Transport):
    """A transport whose buffer holds what a test says."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left, self.ended = left, ""

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"

    def write(self, data: object) -> None:
        """Takes everything."""

    def pause_reading(self) -> None:
        """Nothing is read that a test does not give."""


@dataclass
class Timer:
    at: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Timers that go off when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, delay: float, call: Callable[..., None], *given: object) -> Timer:
        timer = Timer(self.now + delay, partial(call, *given))
        self.timers.append(timer)
        return timer

    def forward(self, seconds: float) -> None:
        self.now += seconds
        for timer in [each for each in self.timers if each.at <= self.now]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.call()


async def _nothing(scope: object, receive: object, send: object) -> None:
    """An application that is never asked."""


def watch(begin: Callable[[Any], None], *buffers: int) -> str:
    """How a connection ends whose buffer holds so much when it begins and after each `slow_after`; "" if it lives."""

    async def main() -> str:
        options = protocols(LIMITS)
        config = uvicorn.Config(_nothing, interface="asgi3", **options)
        loop, transport = Loop(), Transport(buffers[0])
        protocol = options["http"](config, ServerState(), {}, loop)
        protocol.connection_made(transport)
        protocol._no_request_timer()
        begin(protocol)
        for left in buffers[1:]:
            transport.left = left
            loop.forward(LIMITS.slow_after)
        return transport.ended

    return asyncio.run(main())


def stalls(protocol: Any) -> None:
    """The buffer is over its high-water mark."""
    protocol.pause_writing()


def is_idle(protocol: Any) -> None:
    """The answer is complete, and nothing was asked for a while."""
    protocol.timeout_keep_alive_handler()


@pytest.mark.parametrize(
    ("begin", "buffers", "end"),
    [
        (stalls, (1000, 1000), "aborted"),
        (stalls, (1000, 1000 - PACE + 1), "aborted"),
        (stalls, (1000, 1000 - PACE), ""),
        (stalls, (1000, 1000 - PACE, 1000 - PACE), "aborted"),
        (is_idle, (0,), "closed"),
        (is_idle, (1000,), ""),
        (is_idle, (1000, 1000 - PACE + 1), "aborted"),
        (is_idle, (1000, 1000 - PACE), ""),
        (is_idle, (1000, 0), "closed"),
    ],
)
def test_who_takes_an_answer_too_slowly_is_cut_off(
    begin: Callable[[Any], None], buffers: tuple[int, ...], end: str
) -> None:
    assert watch(begin, *buffers) == end


def test_who_takes_the_answer_after_all_is_not_watched_any_more() -> None:
    def stalls_and_goes_on(protocol: Any) -> None:
        protocol.pause_writing()
        protocol.resume_writing()

    assert watch(stalls_and_goes_on, 1000, 1000) == ""


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
HEAD, BODY = LIMITS.head_timeout, LIMITS.slow_after


@pytest.mark.parametrize(
    ("pieces", "waits"),
    [
        # A timer for each request would cost every append what only slow ones are to pay.
        ((GET,), [[]]),
        ((POST + b"body",), [[]]),
        ((GET[:9],), [[HEAD]]),
        ((GET[:9], GET[9:]), [[HEAD], []]),
        ((POST[:9], POST[9:] + b"body"), [[HEAD], []]),
        ((POST,), [[BODY]]),
        ((POST, b"bo", b"dy"), [[BODY], [BODY], []]),
        ((GET, b"\r\n"), [[], [HEAD]]),
        ((GET, b"\r\n", GET), [[], [HEAD], []]),
        ((GET, GET[:9]), [[], [HEAD]]),
        ((b"no request\r\n\r\n",), [[]]),
    ],
)
def test_only_what_is_missing_is_waited_for(
    pieces: tuple[bytes, ...], waits: list[list[float]]
) -> None:
    class Idle(Loop):
        def create_task(self, work: Any, **_: object) -> asyncio.Future[None]:
            work.close()
            return asyncio.get_running_loop().create_future()

    async def main() -> list[list[float]]:
        options = protocols(LIMITS)
        loop, transport = Idle(), Transport(0)
        config = uvicorn.Config(_nothing, interface="asgi3", **options)
        protocol = options["http"](config, ServerState(), {}, loop)
        protocol.connection_made(transport)
        protocol._no_request_timer()
        seen = []
        for piece in pieces:
            protocol.data_received(piece)
            seen.append([timer.at for timer in loop.timers if not timer.cancelled])
        return seen

    assert asyncio.run(main()) == waits


def test_a_doorkeeper_counts_all_and_each_prefix() -> None:
    limits = Connections(most=4, most_of_prefix=2)
    doorkeeper = Doorkeeper(
        limits, lambda address: None if address == "proxy" else address.encode()
    )
    left = [doorkeeper.enter(address) for address in ("a", "a", "b")]
    assert all(left)
    assert doorkeeper.enter("a") is None
    assert doorkeeper.enter("proxy") is not None
    assert doorkeeper.enter("c") is None
    assert left[0] is not None
    left[0]()
    assert doorkeeper.enter("a") is not None


def test_a_proxys_connections_are_not_counted_as_one_prefixs() -> None:
    doorkeeper = Doorkeeper(Connections(most_of_prefix=1), lambda _address: None)
    assert all(doorkeeper.enter("10.0.0.1") for _ in range(100))


@pytest.mark.parametrize("proxies", [("10.0.0.0/8",), ("192.0.2.1", "10.1.2.3")])
def test_a_proxy_in_a_network_that_is_trusted_is_one(proxies: tuple[str, ...]) -> None:
    prefix_of = _prefixes(Config(trusted_proxies=proxies))
    assert prefix_of("10.1.2.3") is None
    assert prefix_of("11.1.2.3") not in {None, prefix_of("11.1.2.4")}
    assert prefix_of("not an address") is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"most_of_prefix": 0},
        {"head_timeout": 0.0},
        {"slow_after": 0.0},
        {"most": -1},
        {"slowest": -1},
    ],
)
def test_limits_that_cut_everybody_off_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(StateError, match=f"connections.{next(iter(wrong))} must"):
        Config(connections=Connections(**wrong)).check()
    Config(connections=Connections(most=0, slowest=0)).check()


def test_without_a_number_open_files_are_the_limit() -> None:
    assert Doorkeeper(Connections(), lambda _address: None).most > 0


def test_a_websocket_that_is_closed_is_cut_off_if_nobody_takes_the_goodbye() -> None:
    async def run() -> None:
        options = protocols(Connections(slow_after=0.05))
        config = uvicorn.Config(_nothing, interface="asgi3", log_config=None, **options)
        config.load()
        protocol = options["ws"](config=config, server_state=ServerState(), app_state={})
        protocol.transport = transport = Transport(1000)
        protocol.pause_writing()
        goodbye = protocol.send({"type": "websocket.close", "code": 1013})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(goodbye, 0.01)
        ended = [transport.ended]
        await asyncio.sleep(0.2)
        assert [*ended, transport.ended] == ["", "aborted"]

    asyncio.run(run())
