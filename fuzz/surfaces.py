"""What is fuzzed outside of the core: other decoders, text, the services' HTTP and WebSocket faces, stored state."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import tempfile
from collections.abc import MutableMapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette

import coterie
from coterie.apps import config
from coterie.authentication.app import create_app
from coterie.authentication.ca import CertificateAuthority
from coterie.authentication.ledger import Ledger
from coterie.authentication.service import AuthenticationService
from coterie.authentication.settings import Settings as AuthenticationSettings
from coterie.client.links import read_link, write_link
from coterie.delivery.app import DeliveryApp
from coterie.delivery.service import DeliveryService
from coterie.delivery.settings import Rate, Rates, Settings
from coterie.errors import DecodeError, StateError, StorageError, UnsupportedError
from coterie.identity.names import UserId
from coterie.mls.group import Group
from coterie.mls.secret import Secret
from coterie.mls.tls import Struct
from coterie.storage import StorageKey
from coterie.transport import api, as_api
from tests.delivery_devices import identify_basic
from tests.rules.world import NOW, Store, make
from tests.structs import needs_given

LOOP = asyncio.new_event_loop()
FOLDER = tempfile.TemporaryDirectory(prefix="coterie-fuzz-")
_FREE = Rate(1, 0.0)
ROOMS = tuple(f"coterie.{room}" for room in ("mls", "transport", "client", "storage"))


@cache
def structs() -> list[type[Struct]]:
    """Every struct that decodes by itself."""
    found: set[type[Struct]] = set()
    for module in pkgutil.walk_packages(coterie.__path__, "coterie."):
        if module.name.startswith(ROOMS):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, Struct) and value is not Struct:
                    found.add(value)
    return sorted(
        (cls for cls in found if not needs_given(cls)),
        key=lambda cls: (cls.__module__, cls.__qualname__),
    )


def struct(data: bytes) -> None:
    """Two bytes choose the struct, the rest decodes to what encodes to it, or is refused."""
    cls = structs()[int.from_bytes(data[:2]) % len(structs())]
    with suppress(DecodeError):
        assert cls.decode(data[2:]).encode() == data[2:]


def text(data: bytes) -> None:
    """What people type and configure: a link, a user's name, a configuration file."""
    kind, rest = data[:1], data[1:]
    said = rest.decode("utf-8", "replace")
    with suppress(StateError, DecodeError):
        if kind == b"l":
            link = read_link(said)
            assert read_link(write_link(link)) == link
        elif kind == b"u":
            user = UserId.parse(said, default_realm="x.example")
            assert UserId.parse(str(user)) == user
        else:
            with tempfile.NamedTemporaryFile() as file:
                file.write(rest)
                file.flush()
                config.load(Path(file.name)).check()


# -- HTTP and WebSocket


@cache
def _delivery() -> DeliveryApp:
    service = DeliveryService(
        Ed25519PrivateKey.from_private_bytes(bytes(32)),
        identify_basic,
        settings=Settings(rates=Rates(**{name: _FREE for name in Rates.__dataclass_fields__})),  # noqa: C420
        clock=lambda: NOW,
    )
    return DeliveryApp(service)


@cache
def _authentication() -> Starlette:
    settings = AuthenticationSettings(requests_interval=0, enrolments_interval=0)
    service = AuthenticationService(
        CertificateAuthority.create("x.example", now=NOW),
        Ledger(Path(FOLDER.name) / "authentication.db"),
        code_key=Secret(bytes(32)),
        clock=lambda: NOW,
        settings=settings,
    )
    return create_app(service)


Message = MutableMapping[str, Any]


def _ask(app: Any, scope: Message, messages: list[Message]) -> list[Message]:  # noqa: ANN401
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    LOOP.run_until_complete(app(scope, receive, send))
    return sent


def _post(app: Any, path: str, body: bytes, kind: str) -> tuple[int, bytes]:  # noqa: ANN401
    scope = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "method": "POST",
        "headers": [(b"content-type", kind.encode())],
        "client": ("192.0.2.1", 1),
    }
    sent = _ask(app, scope, [{"type": "http.request", "body": body}])
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:])


PATHS = tuple(sorted(api.OPERATIONS))


def delivery(data: bytes) -> None:
    """The first byte is the request's path: it is answered, or refused in the protocol's words."""
    path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
    status, answer = _post(_delivery(), f"/v1/{path}", data[1:], api.MEDIA_TYPE)
    if status == 200:
        api.OPERATIONS[path][1].decode(answer)
    else:
        assert api.Failure.decode(answer).code is not api.ErrorCode.INTERNAL


def socket(data: bytes) -> None:
    """Frames of a WebSocket, each after a byte that says how long it is."""
    frames: list[Message] = [{"type": "websocket.connect"}]
    while data:
        length = data[0]
        frames.append({"type": "websocket.receive", "bytes": data[1 : 1 + length]})
        data = data[1 + length :]
    frames.append({"type": "websocket.disconnect"})
    scope = {
        "type": "websocket",
        "path": "/v1/subscribe",
        "subprotocols": [api.SUBPROTOCOL],
        "headers": [],
    }
    sent = _ask(_delivery(), scope, frames)
    assert sent[0]["type"] == "websocket.accept"
    assert all(message["type"] in {"websocket.send", "websocket.close"} for message in sent[1:])


OPERATIONS = tuple(as_api.Operation)


def authentication(data: bytes) -> None:
    """The first byte is the request's path."""
    operation = OPERATIONS[data[0] % len(OPERATIONS)] if data else OPERATIONS[0]
    path = f"/v1/{operation.value}"
    status, answer = _post(_authentication(), path, data[1:], as_api.MEDIA_TYPE)
    assert status in {200, *as_api.HTTP_STATUS.values()}
    if status != 200:
        as_api.Failure.decode(answer)


# -- stored state


@cache
def _saved() -> Store:
    made = make()
    store = Store(made.stores["alice"])
    group = made.member("alice")
    group.encrypt(b"its echo is awaited")
    group.propose_update()
    group.commit(now=NOW)
    store.apply(group)
    return store


def saved(data: bytes) -> None:
    """Two bytes choose an entry of a saved group, the rest stands in its place."""
    store = Store(_saved())
    keys = sorted(store)
    store[keys[int.from_bytes(data[:2]) % len(keys)]] = data[2:]
    entries = {k: v for k, v in store.items() if k[:2] not in {b"n/", b"i/"}}
    with suppress(StorageError, UnsupportedError):
        group = Group.load(entries, store, make_config())
        group.tree.encode()
        group.save()


@cache
def make_config() -> Any:  # noqa: ANN401
    """What the saved group is loaded with."""
    return make().config


def vault(data: bytes) -> None:
    """The file with a profile's wrapped key."""
    with suppress(StorageError):
        StorageKey.given(bytes(32)).unwrap(data, Path("profile.key"))


def close() -> None:
    """Ends what the targets have started."""
    if _delivery.cache_info().currsize:
        LOOP.run_until_complete(_delivery()._service.close())  # noqa: SLF001
    LOOP.close()
    FOLDER.cleanup()


SURFACES = (struct, text, delivery, socket, authentication, saved, vault)
