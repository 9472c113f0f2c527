"""What `coterie serve` runs: one or both services as one ASGI application under uvicorn.

The Delivery Service answers at `/v1/`, the Authentication Service at `/authentication/v1/`; with both in one process
they share nothing but the process: three databases in two directories, and the revocation list, which anyone may have.
Logs are lines of JSON on standard error, without names, ids or addresses: uvicorn's own, which have addresses, are off.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from coterie.apps.backup import check_restored
from coterie.apps.config import Config, Tls, from_table
from coterie.apps.connections import (
    HTTP_OPTIONS,
    Doorkeeper,
    Listening,
    prepare,
    protocols,
    use_small_tls_buffers,
)
from coterie.authentication.app import create_app
from coterie.authentication.keystore import (
    ROOT_KEY_FILE,
    load_authority,
    load_code_key,
    read_passphrase,
    read_private,
    write_private,
)
from coterie.authentication.ledger import Ledger
from coterie.authentication.service import AuthenticationService
from coterie.errors import CoterieError, StateError, StorageError
from coterie.identity.issuer import X509Issuer
from coterie.identity.revocation import RevocationLists
from coterie.identity.x509 import Anchor
from coterie.mls.credential import Credential
from coterie.mls.secret import Secret
from coterie.transport.authentication import AuthenticationClient
from coterie.transport.http import platform_trust

if TYPE_CHECKING:
    from coterie.delivery.service import DeliveryService

AUTHENTICATION_PATH: Final = "/authentication"
_CERTIFICATE_ENDS_SOON: Final = 14 * 86400
REVOCATION_INTERVAL: Final = 600
"""Seconds between two fetches of the revocation list by a Delivery Service that runs apart."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_log: Final = logging.getLogger("coterie.serve")


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record: time, level, logger, event, and what the caller gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging(level: str) -> None:
    """Sends the services' logs to standard error as JSON; raises `StateError` for a level that is none."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        msg = f"log_level = {level!r}: must be debug, info, warning or error"
        raise StateError(msg)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("coterie").setLevel(number)
    # At "info" uvicorn names the client's address with each WebSocket.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def authentication_directory(config: Config) -> Path:
    """Where the Authentication Service keeps its database and keys."""
    return config.data / "authentication"


def open_authentication(config: Config) -> AuthenticationService:
    """The Authentication Service over its directory, which is set up if it is not there."""
    check_restored(config.data)
    directory = authentication_directory(config)
    passphrase = _passphrase(config, directory) if config.root.key_file is None else None
    authority = load_authority(
        directory, config.realm, now=now(), passphrase=passphrase, key_file=config.root.key_file
    )
    return AuthenticationService(
        authority,
        Ledger(directory / "authentication.db"),
        code_key=load_code_key(directory),
        clock=now,
        settings=config.authentication,
    )


def _passphrase(config: Config, directory: Path) -> Secret:
    """What opens the root key; made on the first start, unless the operator names a file."""
    path = config.passphrase_file
    if path.exists() or config.root.passphrase_file is not None:
        return read_passphrase(path)
    if (directory / ROOT_KEY_FILE).exists():
        # A new one would open nothing, and would stand where the right one belongs.
        msg = (
            f"there is no {path}, and {directory / ROOT_KEY_FILE} opens with its passphrase only: put it back, name "
            "the file in root.passphrase_file, or run this as the user and with the environment of the first start"
        )
        raise StorageError(msg)
    write_private(path, secrets.token_urlsafe(32).encode() + b"\n")
    _log.warning(
        "made a passphrase for the root key, in %s; keep a copy of it apart from backups of the data",
        path,
    )
    return read_passphrase(path)


class _Trust:
    """What the Delivery Service believes of credentials: anchors, and revocation lists from where they come."""

    def __init__(self, anchors: tuple[bytes, ...], local: AuthenticationService | None) -> None:
        self._local = local
        self.lists = RevocationLists([Anchor(anchor).certificate for anchor in anchors])
        self._issuer = X509Issuer(anchors, revocations=self.lists)
        self.realm = Anchor(anchors[0]).realm

    def identify(
        self, credential: Credential, signature_key: bytes, at: int
    ) -> tuple[bytes, bytes]:
        """The names of the credential's user and device; raises `VerificationError` if it proves neither."""
        if self._local is not None:
            self.lists.update(self._local.revocation_list())
        device = self._issuer.identify(credential, signature_key, now=at)
        return str(device.user).encode(), device.device.encode()

    async def follow(self, url: str) -> None:
        """Fetches the revocation list again and again; what goes wrong is logged, the list that is held goes on."""
        async with httpx.AsyncClient(timeout=30, verify=platform_trust()) as http:
            client = AuthenticationClient(http, url, self.realm, clock=now)
            while True:
                try:
                    self.lists.update(await client.revocation_list())
                except CoterieError as error:
                    _log.warning("revocation list not renewed", extra={"reason": str(error)})
                await asyncio.sleep(REVOCATION_INTERVAL)


def _read_anchor(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"cannot read the trust anchor {path}: {error.strerror}"
        raise StateError(msg) from error
    try:
        if content.startswith(b"-----"):
            content = x509.load_pem_x509_certificate(content).public_bytes(Encoding.DER)
        Anchor(content)
    except (ValueError, CoterieError) as error:
        msg = f"the trust anchor {path} is no root certificate of a realm, as root.der is: {error}"
        raise StateError(msg) from error
    return content


def _trust(config: Config, local: AuthenticationService | None) -> _Trust:
    anchors = tuple(map(_read_anchor, config.trust.anchors))
    if local is not None:
        anchors = (local.ca.certificate, *anchors)
    elif not anchors or config.trust.authentication_url is None:
        msg = (
            "a Delivery Service without an Authentication Service beside it needs trust.anchors (the root's "
            "certificate, root.der) and trust.authentication_url in the configuration"
        )
        raise StateError(msg)
    return _Trust(anchors, local)


def _receipt_key(directory: Path) -> bytes:
    path = directory / "receipt.key"
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    key = read_private(path)
    if len(key) != 32:
        msg = f"{path} has {len(key)} bytes, must have 32; restore it from a backup"
        raise StorageError(msg)
    return key


def open_delivery(config: Config, trust: _Trust) -> DeliveryService:
    """The Delivery Service over its directory, which is set up if it is not there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from coterie.delivery.service import DeliveryService, Places
    from coterie.delivery.settings import Settings

    directory = config.data / "delivery"
    key = Ed25519PrivateKey.from_private_bytes(_receipt_key(directory))
    settings = from_table(Settings, config.delivery, where="delivery", base=directory)
    settings.check()
    return DeliveryService(key, trust.identify, places=Places.within(directory), settings=settings)


@contextlib.contextmanager
def sole_user(config: Config) -> Iterator[None]:
    """Holds the data directory; raises `StateError` if another process serves from it, or it is not restored wholly."""
    check_restored(config.data)
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_usable(config.data, error) from error
    with contextlib.ExitStack() as held:
        for service in config.services:
            held.enter_context(_lock(config.data / f".{service}.lock"))
        yield


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _not_usable(path.parent, error) from error
    try:
        _lock_descriptor(descriptor)
        yield
    except BlockingIOError as error:
        msg = f"another process serves from {path.parent}; stop it first"
        raise StateError(msg) from error
    finally:
        os.close(descriptor)


def _not_usable(data: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the data directory {data} cannot be used: {error.strerror}; it must be this user's to write "
        "(data in the configuration, or --data)"
    )


if sys.platform == "win32":
    import msvcrt

    def _lock_descriptor(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
else:
    import fcntl

    def _lock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class ServicesApp:
    """The ASGI application: hands each request to the service whose path it has. One dictionary look-up, no framework.

    The databases are open from the start; the lifespan starts what runs beside requests, and closes everything.
    """

    def __init__(self, config: Config) -> None:
        self._authentication: ASGIApp | None = None
        self._delivery: ASGIApp | None = None
        self._start: list[Callable[[], Awaitable[None]]] = []
        self._close: list[Callable[[], Awaitable[None]]] = []
        self._beside: list[asyncio.Task[None]] = []
        local = None
        if "authentication" in config.services:
            local = open_authentication(config)
            self._authentication = create_app(local, monitoring=config.monitoring)
            self._close.append(partial(asyncio.to_thread, local.close))
        if "delivery" in config.services:
            self._add_delivery(config, local)

    def _add_delivery(self, config: Config, local: AuthenticationService | None) -> None:
        from coterie.delivery.app import DeliveryApp

        trust = _trust(config, local)
        service = open_delivery(config, trust)
        self._delivery = DeliveryApp(service, monitoring=config.monitoring)
        url = config.trust.authentication_url

        async def start() -> None:
            service.start()
            if local is None and url is not None:
                self._beside.append(asyncio.create_task(trust.follow(url)))

        self._start.append(start)
        self._close.append(service.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path: str = scope["path"]
        if path.startswith(AUTHENTICATION_PATH + "/"):
            below = {**scope, "root_path": scope.get("root_path", "") + AUTHENTICATION_PATH}
            await (self._authentication or _nowhere)(below, receive, send)
        else:
            await (self._delivery or _nowhere)(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        for start in self._start:
            await start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        for close in self._close:
            await close()
        await send({"type": "lifespan.shutdown.complete"})


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    response = PlainTextResponse("this machine does not run that service\n", 404)
    await response(scope, receive, send)


class _Server(uvicorn.Server):
    """Says when it listens, and where: the port may have been 0."""

    def __init__(self, options: uvicorn.Config, head_timeout: float) -> None:
        super().__init__(options)
        self._head_timeout = head_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn starts the services and we listen: it leaves a TLS handshake a minute, whatever is configured.
        await super().startup([])
        tls = self.config.ssl
        for listening in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                self._protocol,
                sock=listening,
                ssl=tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=self._head_timeout if tls else None,
            )
            self.servers.append(server)
            host, port = listening.getsockname()[:2]
            _log.info("listening", extra={"host": host, "port": port, "pid": os.getpid()})

    def _protocol(self) -> asyncio.Protocol:
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def uvicorn_options(config: Config) -> dict[str, Any]:
    """How uvicorn is set up."""
    options: dict[str, Any] = {
        **HTTP_OPTIONS,
        **protocols(config.connections),
        "log_config": None,
        "proxy_headers": bool(config.trusted_proxies),
        "forwarded_allow_ips": list(config.trusted_proxies),
        "timeout_graceful_shutdown": 10,
        "lifespan": "on",
    }
    if config.tls is not None:
        options |= {
            "ssl_certfile": config.tls.certificate,
            "ssl_keyfile": config.tls.key,
        }
    return options


def run(config: Config) -> None:
    """Serves until it is told to stop (SIGINT, SIGTERM). Raises a `CoterieError` for what cannot be served."""
    set_up_logging(config.log_level)
    use_small_tls_buffers()
    os.umask(0o077)
    with sole_user(config), _listening(config) as listening:
        if config.tls is not None:
            _look_at_certificate(config.tls)
        options = uvicorn.Config(ServicesApp(config), **uvicorn_options(config))
        try:
            options.load()
        except OSError as error:
            files = "" if config.tls is None else f"{config.tls.certificate} and {config.tls.key} "
            msg = f"TLS: {files}are no PEM files of a certificate and its key: {error}"
            raise StateError(msg) from error
        _Server(options, config.connections.head_timeout).run(sockets=[listening])


def _look_at_certificate(tls: Tls) -> None:
    """Names a file that cannot be read; says of a certificate that nobody accepts it, or soon nobody will."""
    for name, path in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            content = path.read_bytes()
        except OSError as error:
            msg = f"tls.{name}: cannot read {path}: {error.strerror}"
            raise StateError(msg) from error
        if name == "key":
            continue
        with contextlib.suppress(ValueError):  # uvicorn says of those what is wrong
            until = x509.load_pem_x509_certificate(content).not_valid_after_utc
            left = until.timestamp() - now()
            if left < _CERTIFICATE_ENDS_SOON:
                what = "ends soon" if left > 0 else "has ended; clients refuse it"
                _log.warning("the TLS certificate %s", what, extra={"until": until.isoformat()})


@contextlib.contextmanager
def _listening(config: Config) -> Iterator[socket.socket]:
    host, port = config.address
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.create_server(address, family=family, backlog=2048)
        prepare(bound, config.connections)
    except OSError as error:
        msg = f"cannot listen on {config.listen}: {error.strerror}"
        raise StateError(msg) from error
    doorkeeper = Doorkeeper(config.connections, _prefixes(config))
    with Listening(bound, doorkeeper, says_why=config.tls is None) as listening:
        yield listening


def _prefixes(config: Config) -> Callable[[str], bytes | None]:
    """The network prefix that a connection counts for; a proxy's connections are other people's."""
    from coterie.delivery.limits import requester_of
    from coterie.delivery.settings import Settings

    settings = from_table(Settings, config.delivery, where="delivery", base=config.data)

    proxies = [ipaddress.ip_network(each) for each in config.trusted_proxies]

    @lru_cache(maxsize=4096)
    def is_proxy(address: str) -> bool:
        with contextlib.suppress(ValueError):
            return any(ipaddress.ip_address(address) in network for network in proxies)
        return False

    def prefix_of(address: str) -> bytes | None:
        return None if proxies and is_proxy(address) else requester_of(address, settings)

    return prefix_of
