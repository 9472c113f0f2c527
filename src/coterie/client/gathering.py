"""Bringing the user's own devices into the group: one that appears later is added by one that is there.

The Authentication Service says which devices the user has (`Client.devices`). One that was in the group and is not any
more has left, or was removed: it is not brought back.
"""

from __future__ import annotations

from coterie.client.identity import read_key_package
from coterie.client.intents import Intent, IntentKind
from coterie.client.reading import Reading
from coterie.errors import CoterieError, ServiceError


class Gathering(Reading):
    """Adds the user's further devices."""

    _looked: frozenset[bytes] | None = None
    """The answer for which this group was looked at."""
    _complete: frozenset[bytes] = frozenset()
    """Devices of which none was missing."""

    async def _add_own_devices(self) -> None:
        """Wants the user's devices added that were never in the group, once for each answer about which there are."""
        tools, found = self._tools, self._tools.own_devices
        if found is None or found is self._looked or found == self._complete:
            return
        if not self.is_active or self._needs_commit():
            return
        missing = self._missing(found)
        self._looked = found
        if not missing:
            self._complete = found
            return
        user = tools.identity.user
        for _, intent in tools.vault.intents(self.id):
            if intent.kind == IntentKind.ADD and user in intent.argument.decode().split():
                return
        client_id = tools.config.authenticator.client_id
        try:
            await tools.refresh()
            claimed = tuple(
                package
                for package in await self._claim_of(user)
                if client_id(read_key_package(package.key_package).leaf_node.credential) in missing
            )
        except ServiceError:
            # What nobody asked for holds up nothing that somebody did; it is tried again with the next sync.
            self._looked = None
            return
        except CoterieError:
            tools.count("own key packages that are none")
            return
        if claimed:
            self.want(Intent(IntentKind.ADD, user.encode(), claimed))

    def _missing(self, devices: frozenset[bytes]) -> set[bytes]:
        """Those of the user's devices that are not in the group, and never were as far as this one knows."""
        tools = self._tools
        client_id = tools.config.authenticator.client_id
        present = {
            client_id(self.group.member(leaf).node.credential)
            for leaf in self.users().get(tools.identity.user, [])
        }
        known = tools.vault.added_with
        return {c for c in devices - present if not known(self.id, c)}
