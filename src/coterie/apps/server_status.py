"""Asks the services over HTTP how they are: for `coterie status --server` and for monitoring scripts."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC
from typing import Any

import httpx
from cryptography import x509

from coterie.apps.config import Config
from coterie.apps.serve import AUTHENTICATION_PATH
from coterie.errors import CoterieError, StateError
from coterie.transport import api, as_api
from coterie.transport.asking import wrong_scheme


def ask(config: Config, url: str | None) -> dict[str, dict[str, Any]]:
    """For each configured service: `ready`, and `detail` in words. Never raises because a service is away."""
    base = (url or _own_url(config)).rstrip("/")
    asked = {"delivery": _delivery, "authentication": _authentication}
    with httpx.Client(timeout=10, verify=_trusted(config, url)) as http:
        return {name: _report(asked[name], http, base) for name in config.services}


def _own_url(config: Config) -> str:
    host, port = config.address
    if port == 0:
        msg = "the configuration lets the system choose the port; give --url"
        raise StateError(msg)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - these are replaced
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if config.tls else 'http'}://{host}:{port}"


def _trusted(config: Config, url: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if url is None and config.tls is not None:
        # Asked by its address on this machine, the server shows the very certificate of the configuration.
        context.load_verify_locations(config.tls.certificate)
        context.check_hostname = False
    return context


def _report(asked: Any, http: httpx.Client, base: str) -> dict[str, Any]:  # noqa: ANN401 - one of two functions
    try:
        return {"ready": True, "detail": asked(http, base)}
    except httpx.HTTPStatusError as error:
        return {"ready": False, "detail": f"answered with status {error.response.status_code}"}
    except httpx.HTTPError as error:
        wrong = asyncio.run(wrong_scheme(base, error))
        return {"ready": False, "detail": wrong or f"does not answer: {error}"}
    except (CoterieError, ValueError) as error:
        return {"ready": False, "detail": f"answered with something else: {error}"}


def _get(http: httpx.Client, url: str) -> bytes:
    return http.get(url).raise_for_status().content


def _delivery(http: httpx.Client, base: str) -> str:
    _get(http, f"{base}/health/ready")
    info = api.ServiceInfo.decode(_get(http, f"{base}/v1/service"))
    return f"receipt key {info.receipt_key.hex()[:16]}…, retention up to {info.max_retention // 86400} days"


def _authentication(http: httpx.Client, base: str) -> str:
    below = base + AUTHENTICATION_PATH
    _get(http, f"{below}/health/ready")
    info = as_api.RealmInfo.decode(_get(http, f"{below}/v1/realm"))
    crl = x509.load_der_x509_crl(_get(http, f"{below}/v1/revocations"))
    until = crl.next_update_utc
    in_force = "for ever" if until is None else f"until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"realm {info.realm.decode()}, {len(crl)} revoked, list in force {in_force}"
