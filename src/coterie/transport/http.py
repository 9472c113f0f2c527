"""The carrier over HTTP and WebSocket: httpx for requests, websockets for subscriptions."""

from __future__ import annotations

import ssl
from typing import Final, TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from coterie.errors import DecodeError, ServiceError
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.asking import MAX_ANSWER, ask, wrong_scheme
from coterie.transport.refusal import Refused, Unreachable

T = TypeVar("T", bound=Struct)

_RETRY: Final = 1.0
_CLOSE_TIMEOUT: Final = 1.0
"""For how many seconds a service may leave a goodbye without an answer; nothing depends on it."""
_KEEP: Final = 30.0
"""Seconds for which a connection is kept that is not used: less than servers do, or one is closed under a request."""
_PING: Final = 60.0
"""Seconds between two looks whether a quiet connection is still there."""
_VERSIONS: Final = "1"


def platform_trust() -> ssl.SSLContext:
    """Verifies services with the platform's trust store, or what SSL_CERT_FILE and SSL_CERT_DIR name in its place.

    httpx would take a list of its own, where the authority of an organisation does not stand. It is taken where the
    platform has none, as beside some builds of Python for macOS.
    """
    context, paths = ssl.create_default_context(), ssl.get_default_verify_paths()
    if context.cert_store_stats()["x509_ca"] or paths.cafile or paths.capath:
        return context
    return httpx.create_ssl_context(trust_env=False)


class HTTPConnection:
    """A subscription connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, frame: api.ClientFrame) -> None:
        """See Connection."""
        try:
            await self._socket.send(frame.encode())
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> api.ServerFrame:
        """See Connection."""
        try:
            message = await self._socket.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error
        if isinstance(message, str):
            raise ServiceError("the service sent text where frames are binary")
        return api.ServerFrame.decode(message)

    async def close(self) -> None:
        """See Connection."""
        await self._socket.close()


def _closed(error: ConnectionClosed) -> ServiceError:
    reason = "" if error.rcvd is None else error.rcvd.reason
    name, _, text = reason.partition(": ")
    code = api.ErrorCode.__members__.get(name.upper())
    if code is not None:
        return Refused(code, text, retry_after=_RETRY)
    return ServiceError(
        f"the connection to the service is over{': ' + reason if reason else ''}", retry_after=0
    )


class HTTPCarrier:
    """Carries requests to the service at a base URL such as `https://example.org/`.

    `tls` is the context to verify the service with, None for the platform's; `timeout` is in seconds and holds for each
    step of a request (`asking` bounds all of them together). One carrier keeps connections open; requests that must not
    be linked go over different carriers.
    """

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._base = base_url.rstrip("/") + "/v1/"
        self._tls = tls
        if base_url.startswith("https:") and tls is None:
            self._tls = platform_trust()
        self._timeout = timeout
        self._has_answered = False
        self._client = httpx.AsyncClient(
            # Without TLS one that believes nobody: to read a list of authorities takes a while.
            verify=self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=timeout,
            limits=httpx.Limits(keepalive_expiry=_KEEP),
            trust_env=False,
            headers={
                "Accept-Encoding": "identity",
                "Content-Type": api.MEDIA_TYPE,
                api.VERSION_HEADER: _VERSIONS,
            },
        )

    async def call(self, path: str, request: Struct, answer: type[T]) -> T:
        """See Carrier."""
        return await self._ask("POST", path, answer, request.encode())

    async def info(self) -> api.ServiceInfo:
        """See Carrier."""
        return await self._ask("GET", "service", api.ServiceInfo)

    async def _ask(
        self, method: str, path: str, answer: type[T], content: bytes | None = None
    ) -> T:
        try:
            response, body = await ask(
                self._client,
                method,
                self._base + path,
                content,
                whose="the service's",
            )
        except (httpx.HTTPError, TimeoutError) as error:
            wrong = None if self._has_answered else await wrong_scheme(self._base, error)
            if wrong is not None:
                raise Unreachable(wrong) from error
            raise self._unreachable(error) from error
        self._has_answered = True
        return _answer(response, body, answer)

    async def connect(self) -> HTTPConnection:
        """See Carrier."""
        url = "ws" + self._base.removeprefix("http") + "subscribe"
        try:
            socket = await connect(
                url,
                ssl=self._tls,
                subprotocols=[Subprotocol(api.SUBPROTOCOL)],
                ping_interval=_PING,
                ping_timeout=_PING,
                compression=None,
                max_size=MAX_ANSWER,
                open_timeout=self._timeout,
                close_timeout=_CLOSE_TIMEOUT,
                proxy=None,
            )
        except (OSError, InvalidHandshake, TimeoutError) as error:
            raise self._unreachable(error) from error
        return HTTPConnection(socket)

    async def close(self) -> None:
        """See Carrier."""
        await self._client.aclose()

    def _unreachable(self, error: Exception) -> Unreachable:
        address = self._base.removesuffix("/v1/")
        msg = f"the service at {address} cannot be reached ({type(error).__name__}: {error})"
        if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            msg += "; what was sent may have been stored"
        return Unreachable(msg, retry_after=_RETRY)


def _answer(response: httpx.Response, body: bytes, answer: type[T]) -> T:
    if response.headers.get("content-type") != api.MEDIA_TYPE:
        raise ServiceError(
            f"status {response.status_code} with a body that is not of this protocol: "
            "is this the service's address?",
            retry_after=_RETRY if response.is_server_error else None,
        )
    try:
        if response.is_success:
            return answer.decode(body)
        failure = api.Failure.decode(body)
    except DecodeError as error:
        raise ServiceError(f"the service's answer is malformed: {error}") from error
    raise Refused.of(failure)
