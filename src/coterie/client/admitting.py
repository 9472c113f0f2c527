"""Letting people in who ask by a link (docs/delivery-protocol.md, D-BOX-6)."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.client import events
from coterie.client.box import check_request
from coterie.client.content import Links
from coterie.client.identity import inbox_of, read_key_package
from coterie.client.intents import ClaimedPackage, Intent, IntentKind
from coterie.client.line import Line
from coterie.client.links import ASK_ENDS, MAX_NOTE
from coterie.client.notes import StoredJoin
from coterie.client.returning import AHEAD, Returning
from coterie.client.vault import Step
from coterie.errors import CoterieError, StateError, StorageError
from coterie.transport import api

MAX_JOINS = 200
"""How many devices' requests are kept for a group; who asks beyond that is passed over."""


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """Somebody with a link asks to come in."""

    user: str
    note: str
    """What they wrote; it comes from outside, and so may say anything."""
    asked_at: int
    """When, in seconds since 1970, by their clock."""
    devices: int
    """How many of their devices ask."""


class Admitting(Returning):
    """Keeps requests to be let in, and answers them."""

    def join_requests(self) -> list[JoinRequest]:
        """Who asks, oldest first; who is blocked is left out."""
        blocked = self._tools.vault.blocked()
        found: dict[str, list[StoredJoin]] = {}
        for join in self._tools.vault.joins(self.id).values():
            found.setdefault(join.user.decode(), []).append(join)
        asked = [
            JoinRequest(
                user,
                joins[-1].note.decode(errors="replace")[:MAX_NOTE],
                max(join.asked_at for join in joins),
                len(joins),
            )
            for user, joins in found.items()
            if user not in blocked
        ]
        return sorted(asked, key=lambda request: (request.asked_at, request.user))

    def admit(self, user: str) -> None:
        """Wants a user to be let in who asked; raises `StateError` where nobody of that name did."""
        asked = self._asked(user)
        claimed = tuple(ClaimedPackage(join.key_package, join.ticket) for join in asked.values())
        with self._tools.vault.step() as step:
            step.add_intent(self.id, Intent(IntentKind.ADD, user.encode(), claimed, asked=1))
            for client in asked:
                step.forget_join(self.id, client)

    def turn_away(self, user: str) -> None:
        """Forgets what a user asked for; raises `StateError` where nobody of that name did."""
        with self._tools.vault.step() as step:
            for client in self._asked(user):
                step.forget_join(self.id, client)

    def _asked(self, user: str) -> dict[bytes, StoredJoin]:
        joins = self._tools.vault.joins(self.id)
        found = {client: join for client, join in joins.items() if join.user == user.encode()}
        if not found:
            msg = f"{user} does not ask to come into this group (any more)"
            raise StateError(msg)
        return found

    def _take_join(self, step: Step, line: Line, request: api.RequestContent, epoch: bytes) -> bool:
        """Keeps a request that came by a link; False for one that is passed over."""
        vault, now, profile = self._tools.vault, self._tools.clock(), self.profile
        number = vault.box_epoch(self.id, epoch)
        if profile.links == Links.OFF or number is None or number < profile.links_since:
            return False
        authenticator = self._tools.config.authenticator
        try:
            package = read_key_package(request.tbs.key_package)
            # Also whether its client is in the group already.
            line.group.check_key_package(package, now=now)
            check_request(request, package, line.binding.log_id)
            inbox_of(package)
            client = authenticator.client_id(package.leaf_node.credential)
            user = self._tools.identity.user_of_credential(package.leaf_node.credential)
        except StorageError:
            raise
        except CoterieError:
            return False
        lifetime = package.leaf_node.lifetime
        begins = 0 if lifetime is None else lifetime.not_before
        asked = request.tbs.requested_at
        # Who was in the group may have kept a request: it counts only once, and only for some days.
        old = begins <= vault.added_with(self.id, client) or not now - ASK_ENDS <= asked
        if old or asked > now + AHEAD or user in vault.blocked():
            return False
        joins = vault.joins(self.id)
        key = api.sha256(client)
        known = joins.get(key)
        if (known is None and len(joins) >= MAX_JOINS) or (known and known.asked_at >= asked):
            return False
        note = request.tbs.note[: 4 * MAX_NOTE]
        tbs = request.tbs
        join = StoredJoin(user.encode(), tbs.key_package, tbs.ticket, note, asked, now)
        step.save_join(self.id, key, join)
        if profile.links == Links.ASK and known is None:
            shown = note.decode(errors="replace")[:MAX_NOTE]
            self._told.append(events.JoinRequested(self.id, user, shown))
        return True

    def _admit_at_once(self) -> None:
        """Lets in who asked, where the group's rules want that and it is this member's turn (D-BOX-6)."""
        if not self.is_active or self.profile.links != Links.OPEN:
            return
        blocked = self._tools.vault.blocked()
        # Several devices of one user are let in together: of each user only the first request that is due counts.
        due: dict[str, None] = {}
        for request in self._tools.vault.joins(self.id).values():
            user = request.user.decode()
            if user not in blocked and self._my_turn(request.came_at, self.profile.may_add):
                due[user] = None
        for user in due:
            self.admit(user)
