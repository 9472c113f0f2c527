"""The configuration of the services: one TOML file, every value of which has a default (see `deploy/coterie.toml`).

Tables and keys are the fields of the dataclasses here and of the services' `settings` modules; an unknown key, or a
value of the wrong type, is an error that says which. Relative paths start at the configuration file's directory.
"""

from __future__ import annotations

import ipaddress
import math
import os
import sys
import tomllib
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

import platformdirs

from coterie.authentication.settings import Settings as AuthenticationSettings
from coterie.errors import DecodeError, StateError
from coterie.identity.names import check_realm

SERVICES: Final = ("authentication", "delivery")
_APP: Final = "coterie"

_UNLIMITED: Final = {"interval", "requests_interval", "enrolments_interval"}
"""Intervals of rates: 0 means no limit."""
_MAY_BE_ZERO: Final = _UNLIMITED | {
    "renewal_grace",
    "key_overlap",
    "inline_limit",
    "low_water",
    "prefix_ipv4",
    "prefix_ipv6",
    "most",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate chain and private key of the server, PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class RootKey:
    """Where the root key comes from: a passphrase file, or a key file of the operator's."""

    passphrase_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """What a Delivery Service that runs apart trusts: anchors (DER or PEM files) and where revocations come from."""

    anchors: tuple[Path, ...] = ()
    authentication_url: str | None = None


@dataclass(frozen=True, slots=True)
class Connections:
    """What connections may hold. Times are in seconds."""

    most: int = 0
    """Connections at once; 0 means as many as the system lets this process open files, less what databases need."""
    most_of_prefix: int = 4096
    """Connections of one network prefix at once; those of trusted proxies are not counted."""
    head_timeout: float = 20.0
    """From the connection, or from a request's first byte, until its head is complete."""
    slow_after: float = 30.0
    """How often the pace of a request's body, or of who takes an answer, is looked at."""
    slowest: int = 1024
    """Bytes per second that a body or a reader must make in each such time."""

    def check(self) -> None:
        """Raises `StateError` for values with which everybody would be cut off."""
        for name in ("most_of_prefix", "head_timeout", "slow_after"):
            if getattr(self, name) <= 0:
                msg = f"connections.{name} must be more than 0"
                raise StateError(msg)
        for name in ("most", "slowest"):
            if getattr(self, name) < 0:
                msg = f"connections.{name} must not be negative"
                raise StateError(msg)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of `coterie serve` and of the operator's commands."""

    realm: str = "localhost"
    listen: str = "127.0.0.1:8470"
    services: tuple[str, ...] = SERVICES
    data: Path = field(default_factory=lambda: platformdirs.user_data_path(_APP) / "services")
    tls: Tls | None = None
    allow_plaintext: bool = False
    trusted_proxies: tuple[str, ...] = ()
    log_level: str = "info"
    monitoring: bool = True
    """Whether health and metrics are answered; they name nobody, but an operator may keep them inside."""
    root: RootKey = field(default_factory=RootKey)
    trust: Trust = field(default_factory=Trust)
    connections: Connections = field(default_factory=Connections)
    authentication: AuthenticationSettings = field(default_factory=AuthenticationSettings)
    delivery: Mapping[str, Any] = field(default_factory=dict)
    """The table as it was read; the Delivery Service's settings are made of it where that service runs."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`; raises `StateError` for one that is none."""
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            msg = f"listen = {self.listen!r} is not HOST:PORT, such as 127.0.0.1:8470 or [::]:443"
            raise StateError(msg)
        return host.strip("[]"), int(port)

    @property
    def passphrase_file(self) -> Path:
        """The file with the root key's passphrase: the configured one, systemd's credential, or the default.

        The default lies with the settings and not with the data, so that a copy of the data cannot open the key.
        """
        if self.root.passphrase_file is not None:
            return self.root.passphrase_file
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and (Path(credentials) / "root-passphrase").exists():
            return Path(credentials) / "root-passphrase"
        return platformdirs.user_config_path(_APP) / f"root-passphrase-{self.realm}"

    def check(self) -> None:
        """Raises `StateError` or `DecodeError` for values that cannot be served with."""
        check_realm(self.realm)
        host, _ = self.address
        unknown = set(self.services) - set(SERVICES)
        if unknown or not self.services:
            msg = f"services = {list(self.services)}: must be one or both of {list(SERVICES)}"
            raise StateError(msg)
        self.authentication.check()
        self.connections.check()
        for proxy in self.trusted_proxies:
            _check_network(proxy)
        if self.tls is None and not self.allow_plaintext and not is_loopback(host):
            msg = (
                f"refusing to listen on {host} without TLS: give tls.certificate and tls.key, or, if a proxy on this "
                "machine or a private network speaks TLS for it, allow_plaintext = true"
            )
            raise StateError(msg)


def _check_network(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        msg = f"trusted_proxies: {text!r} is no IP address or network: {error}"
        raise StateError(msg) from error


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_path() -> Path | None:
    """The configuration file that is read if none is named: COTERIE_CONFIG, the user's, the system's, or none."""
    named = os.environ.get("COTERIE_CONFIG")
    if named:
        return Path(named)
    candidates = (
        platformdirs.user_config_path(_APP) / "coterie.toml",
        platformdirs.site_config_path(_APP) / "coterie.toml",
        Path("/etc/coterie/coterie.toml"),
    )
    return next((path for path in candidates if path.is_file()), None)


def load(path: Path | None) -> Config:
    """Reads a configuration file; None means the defaults. Raises `DecodeError` that says what is wrong where."""
    if path is None:
        return Config()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the configuration {path}: {error.strerror}"
        raise StateError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not TOML: {error}"
        raise DecodeError(msg) from error
    return from_table(Config, table, where=str(path), base=path.parent)


def from_table(kind: type[T], table: Mapping[str, Any], *, where: str, base: Path) -> T:
    """A settings dataclass from a table; keys that are left out have their defaults."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - set(known))
    if unknown:
        msg = f"{where}: unknown {', '.join(unknown)}; known are {', '.join(known)}"
        raise DecodeError(msg)
    missing = [
        name
        for name, f in known.items()
        if name not in table and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        msg = f"{where}: {', '.join(missing)} must be given"
        raise DecodeError(msg)
    values = {
        name: _value(hints[name], value, f"{where}: {name}", base) for name, value in table.items()
    }
    for name, value in values.items():
        _check_number(name, value, where)
    return kind(**values)


def _check_number(name: str, value: object, where: str) -> None:
    """Refuses a number that no size, time, count or rate can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    least = 0 if name in _MAY_BE_ZERO else 1 if isinstance(value, int) else sys.float_info.min
    if not (math.isfinite(value) and value >= least):
        msg = f"{where}: {name}: {value} should be {'0 or more' if not least else 'more than 0'}"
        raise DecodeError(msg)


def _value(hint: Any, value: Any, where: str, base: Path) -> Any:  # noqa: ANN401 - whatever TOML and hints hold
    origin = get_origin(hint)
    if origin is types.UnionType:
        hint = next(arg for arg in get_args(hint) if arg is not types.NoneType)
        origin = get_origin(hint)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        return from_table(hint, value, where=where, base=base)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], item, where, base) for item in value)
    if hint is Path and isinstance(value, str):
        return base / Path(value).expanduser()
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    plain = dict if origin is Mapping else hint
    if isinstance(plain, type) and type(value) is plain:
        return value
    msg = f"{where}: {value!r} should be {_words(hint)}"
    raise DecodeError(msg)


def _words(hint: Any) -> str:  # noqa: ANN401 - as above
    if isinstance(hint, type) and is_dataclass(hint):
        return "a table"
    if get_origin(hint) is tuple:
        return "a list"
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a text",
        Path: "a path",
    }
    return words.get(hint, "a table")
