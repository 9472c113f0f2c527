"""Users and devices, and the form their names have in certificates.

A user is `name@realm`; the realm is the host name of the Authentication Service that vouches for the name, so that
names of two organisations never collide. A device is one client of a user: 32 hexadecimal digits that the service
draws. In a certificate both stand as URIs in the form of draft-ietf-mimi-protocol (`mimi://realm/u/name`), the
device's as `mimi://realm/d/name/device`. Names are ASCII in lower case, so that few can be mistaken for one another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from coterie.errors import DecodeError
from coterie.identity.rules import CredentialRule

SCHEME: Final = "mimi://"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_REALM = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_DEVICE = re.compile(r"[0-9a-f]{32}")


def check_realm(realm: str) -> str:
    """The realm itself; raises `DecodeError` unless it is a host name in lower case (1 to 253 characters)."""
    if not _REALM.fullmatch(realm):
        msg = f"{realm!r} is not a realm: a host name in lower case, such as example.org"
        raise DecodeError(msg, rule=CredentialRule.REALM)
    return realm


def realm_uri(realm: str) -> str:
    """The URI that names a realm in the certificate of its CA."""
    return f"{SCHEME}{check_realm(realm)}"


def realm_of_uri(uri: str) -> str | None:
    """The realm that a URI names, or None where the URI is of another kind."""
    rest = uri.removeprefix(SCHEME)
    return rest if rest != uri and _REALM.fullmatch(rest) else None


@dataclass(frozen=True, slots=True, order=True)
class UserId:
    """A user: `name` within `realm`. Raises `DecodeError` for a name or realm that is not well formed."""

    name: str
    realm: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            msg = (
                f"{self.name!r} is not a user name: 1 to 64 characters of a-z, 0-9, '.', '_' and '-', "
                "the first one a letter or a digit"
            )
            raise DecodeError(msg, rule=CredentialRule.USER_NAME)
        check_realm(self.realm)

    @classmethod
    def parse(cls, text: str, *, default_realm: str | None = None) -> UserId:
        """The user of `name@realm`, or of a bare `name` in the default realm, if there is one."""
        name, at, realm = text.partition("@")
        if at:
            return cls(name, realm)
        if default_realm is None:
            msg = f"{text!r} names no realm; write it as name@realm"
            raise DecodeError(msg, rule=CredentialRule.REALM)
        return cls(name, default_realm)

    @property
    def uri(self) -> str:
        """The name as it stands in a certificate."""
        return f"{SCHEME}{self.realm}/u/{self.name}"

    def __str__(self) -> str:
        return f"{self.name}@{self.realm}"


@dataclass(frozen=True, slots=True, order=True)
class DeviceId:
    """One device of a user; `device` is 32 lower-case hexadecimal digits (16 random bytes)."""

    user: UserId
    device: str

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            msg = f"{self.device!r} is not a device: 32 hexadecimal digits in lower case"
            raise DecodeError(msg, rule=CredentialRule.DEVICE)

    @property
    def uri(self) -> str:
        """The name as it stands in a certificate."""
        return f"{SCHEME}{self.user.realm}/d/{self.user.name}/{self.device}"

    def __str__(self) -> str:
        return f"{self.user}/{self.device}"


def device_of_uris(uris: list[str]) -> DeviceId:
    """The device that a certificate's URIs name: exactly one user's and exactly one device's, of that user.

    Raises `DecodeError` for anything else; URIs of other schemes are passed over.
    """
    ours = [uri for uri in uris if uri.startswith(SCHEME)]
    parts = [uri.removeprefix(SCHEME).split("/") for uri in ours]
    users = [UserId(p[2], p[0]) for p in parts if len(p) == 3 and p[1] == "u"]
    devices = [DeviceId(UserId(p[2], p[0]), p[3]) for p in parts if len(p) == 4 and p[1] == "d"]
    if len(ours) != 2 or len(users) != 1 or len(devices) != 1 or devices[0].user != users[0]:
        msg = f"the certificate must name one user and one device of that user, it names {ours}"
        raise DecodeError(msg, rule=CredentialRule.SUBJECT)
    return devices[0]
