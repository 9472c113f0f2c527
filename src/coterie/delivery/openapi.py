"""The OpenAPI description, generated from the structs and the table of operations (issue of truth: the code).

Bodies are binary structs, which JSON Schema cannot take apart; each is described by its declaration in the presentation
language and by the fields that hold an MLSMessage, which have the media type `message/mls` (RFC 9420 §17.10).
"""

from __future__ import annotations

from typing import Any, Final

from coterie.delivery.settings import Settings
from coterie.mls.tls import Struct
from coterie.transport import api
from coterie.transport.refusal import HTTP_STATUS

MLS_MEDIA_TYPE: Final = "message/mls"
_MLS_FIELDS: Final[dict[type[Struct], tuple[str, ...]]] = {
    api.Claimed: ("key_package",),
    api.KeyPackageMessage: ("message",),
    api.WelcomeContent: ("welcome",),
}


def declaration(cls: type[Struct]) -> str:
    """A struct in the presentation language."""
    lines = []
    for field in cls._fields:
        text = field.codec.presentation(field.name)
        if field.when is not None:
            values = ", ".join(value.name.lower() for value in field.when.values)
            text += f" /* if {field.when.path} is {values} */"
        lines.append(f"    {text};")
    return "\n".join(["struct {", *lines, f"}} {cls.__name__};"])


def _schema(cls: type[Struct], limit: int) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "string",
        "format": "binary",
        "title": cls.__name__,
        "description": f"{cls.__doc__}\n\n```\n{declaration(cls)}\n```",
        "maxLength": limit,
    }
    if cls in _MLS_FIELDS:
        schema["x-mls-fields"] = dict.fromkeys(_MLS_FIELDS[cls], MLS_MEDIA_TYPE)
    return schema


def _structs() -> list[type[Struct]]:
    used = {cls for pair in api.OPERATIONS.values() for cls in pair}
    used |= {api.Failure, api.ServiceInfo}
    used |= _MLS_FIELDS.keys()
    return sorted(used, key=lambda cls: cls.__name__)


def _body(cls: type[Struct]) -> dict[str, Any]:
    return {api.MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{cls.__name__}"}}}


def _operation(path: str, request: type[Struct], answer: type[Struct]) -> dict[str, Any]:
    errors = {
        str(status): {"description": "refused; the body says why", "content": _body(api.Failure)}
        for status in sorted(set(HTTP_STATUS.values()))
    }
    return {
        "post": {
            "operationId": path.replace("/", "_"),
            "summary": (request.__doc__ or "").splitlines()[0],
            "parameters": [{"$ref": "#/components/parameters/version"}],
            "requestBody": {"required": True, "content": _body(request)},
            "responses": {
                "200": {"description": "done", "content": _body(answer)},
                **errors,
            },
        }
    }


def description(settings: Settings) -> dict[str, Any]:
    """The document, for these settings."""
    paths = {f"/v1/{path}": _operation(path, *pair) for path, pair in api.OPERATIONS.items()}
    paths["/v1/service"] = {
        "get": {
            "operationId": "service",
            "summary": (api.ServiceInfo.__doc__ or "").splitlines()[0],
            "responses": {"200": {"description": "done", "content": _body(api.ServiceInfo)}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Coterie Delivery Service",
            "version": "1",
            "description": "The protocol is docs/delivery-protocol.md.",
        },
        "paths": paths,
        "components": {
            "parameters": {
                "version": {
                    "name": api.VERSION_HEADER,
                    "in": "header",
                    "required": False,
                    "description": "The protocol versions that the client speaks, newest first.",
                    "schema": {"type": "string", "pattern": "^[0-9]+(, *[0-9]+)*$"},
                }
            },
            "schemas": {cls.__name__: _schema(cls, settings.max_bundle) for cls in _structs()},
        },
    }
