"""The carrier within one process: requests are encoded and decoded as on the wire, but no socket is involved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from coterie.errors import ServiceError
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.refusal import Refused

T = TypeVar("T", bound=Struct)


class ServiceChannel(Protocol):
    """A service's end of a subscription connection."""

    def receive(self, frame: api.ClientFrame) -> None:
        """Acts on a client's frame."""

    def shut(self) -> None:
        """Ends it."""


class LocalService(Protocol):
    """A service in this process: `coterie.delivery.service.DeliveryService` is one."""

    async def handle(self, path: str, request: Struct, requester: Any) -> Struct:  # noqa: ANN401
        """Answers a request."""

    def info(self) -> api.ServiceInfo:
        """What the service says about itself."""

    def channel(
        self,
        send: Callable[[bytes], Coroutine[Any, None, None]],
        close: Callable[[api.Failure], Awaitable[None]],
    ) -> ServiceChannel:
        """A channel for a new connection."""


class MemoryConnection:
    """A subscription connection to a service in this process."""

    def __init__(self, service: LocalService) -> None:
        self._frames: asyncio.Queue[bytes | api.Failure | None] = asyncio.Queue()
        self._channel = service.channel(self._frames.put, self._frames.put)

    async def send(self, frame: api.ClientFrame) -> None:
        """See Connection."""
        self._channel.receive(api.ClientFrame.decode(frame.encode()))

    async def receive(self) -> api.ServerFrame:
        """See Connection."""
        frame = await self._frames.get()
        if frame is None:
            raise ServiceError("the connection is closed", retry_after=0)
        if isinstance(frame, api.Failure):
            raise Refused.of(frame)
        return api.ServerFrame.decode(frame)

    async def close(self) -> None:
        """See Connection."""
        self._channel.shut()
        await self._frames.put(None)


class MemoryCarrier:
    """Carries requests of `requester` to a service in this process."""

    def __init__(self, service: LocalService, requester: bytes = b"local") -> None:
        self._service = service
        self._requester = requester

    async def call(self, path: str, request: Struct, answer: type[T]) -> T:
        """See Carrier."""
        decoded = api.OPERATIONS[path][0].decode(request.encode())
        try:
            result = await self._service.handle(path, decoded, self._requester)
        except Refused as refused:
            raise Refused.of(api.Failure.decode(refused.failure().encode())) from None
        return answer.decode(result.encode())

    async def info(self) -> api.ServiceInfo:
        """See Carrier."""
        return api.ServiceInfo.decode(self._service.info().encode())

    async def connect(self) -> MemoryConnection:
        """See Carrier."""
        return MemoryConnection(self._service)

    async def close(self) -> None:
        """See Carrier."""
