"""The user's other devices: linking one, and finding out about those that others linked (D-VAL-5)."""

from __future__ import annotations

import random
from collections.abc import Callable

from coterie.client.content import DAY
from coterie.client.identity import SigningKey
from coterie.client.place import Tools
from coterie.errors import DecodeError, ServiceError
from coterie.identity.names import DeviceId, UserId
from coterie.transport.authentication import AuthenticationClient

LOOK_WHILE_LINKING = 10
"""Least seconds between two questions which devices the user has, while a code for a further one is good."""
LOOK_AGAIN = 3600
"""Seconds after which the Authentication Service is asked again where it gave no answer."""


class OwnDevices:
    """The devices of this device's user."""

    def __init__(
        self, tools: Tools, service: Callable[[], tuple[AuthenticationClient, SigningKey]]
    ) -> None:
        """`service` gives what asks the Authentication Service, and the key that proves who asks."""
        self._tools = tools
        self._service = service

    async def link(self) -> tuple[str, int]:
        """A one-time code for a further device, and until when it is valid; until then this one looks often."""
        service, key = self._service()
        code = await service.link(key)
        with self._tools.vault.step() as step:
            step.set_linking(code.expires_at)
            step.set_next_look(self._tools.clock())
        return code.code.decode(), code.expires_at

    async def listed(self) -> list[tuple[str, int]]:
        """The devices that are not revoked, and until when their certificates are valid; groups learn of them."""
        service, key = self._service()
        listed = (await service.devices(key)).devices
        user = UserId.parse(self._tools.identity.user)
        try:
            found = [(DeviceId(user, d.device.decode()), d.valid_until) for d in listed]
        except (DecodeError, UnicodeDecodeError) as error:
            msg = f"the Authentication Service named a device that is none: {error}"
            raise ServiceError(msg, retry_after=60) from error
        self._tools.own_devices = frozenset(device.uri.encode() for device, _ in found)
        return [(device.device, until) for device, until in found]

    async def look(self) -> None:
        """Asks which devices the user has, when it is time: often while one is linked, else about once a day."""
        now, due = self._tools.clock(), self._tools.vault.next_look()
        if due is not None and now < due:
            return
        later = now + random.randint(DAY // 2, DAY * 3 // 2)  # noqa: S311 - a time, not a secret
        if now < self._tools.vault.linking():
            later = now + LOOK_WHILE_LINKING
        if due is not None:
            try:
                await self.listed()
            except ServiceError:
                later = min(later, now + LOOK_AGAIN)
        with self._tools.vault.step() as step:
            step.set_next_look(later)
