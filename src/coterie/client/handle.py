"""`GroupHandle`: a group of this device, for the application."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coterie.client.admitting import JoinRequest
from coterie.client.content import Links, check_name
from coterie.client.conversation import Conversation
from coterie.client.intents import Intent, IntentKind
from coterie.client.links import link_of, write_link
from coterie.client.rules import GroupRules, changed, encode_change, rules_of
from coterie.errors import StateError
from coterie.storage import Message

if TYPE_CHECKING:
    from coterie.client.client import Client


@dataclass(frozen=True, slots=True)
class ReformedBy:
    """A group that somebody made in the place of another one: by whom, with whom, and without whom."""

    by: str
    users: tuple[str, ...]
    missing: tuple[str, ...]


class GroupHandle:
    """A group of this device, for the application."""

    def __init__(self, client: Client, conversation: Conversation) -> None:
        self._client = client
        self._conversation = conversation

    def __repr__(self) -> str:
        return f"GroupHandle({self.name!r}, {self.id[:8]}…)"

    @property
    def id(self) -> str:
        """The conversation's id on this device: the hexadecimal id of the first group that it had."""
        return self._conversation.id

    @property
    def name(self) -> str:
        """The group's name."""
        return self._conversation.name

    @property
    def status(self) -> str:
        """active, creating, moving, left, stuck or stopped."""
        return self._client.vault.status(self.id)

    @property
    def why(self) -> str:
        """Why this device takes no part; empty while it does."""
        return self._client.vault.conversation(self.id).why.decode(errors="replace")

    @property
    def epoch(self) -> int:
        """The number of the present epoch, for display."""
        return self._conversation.epoch

    @property
    def epoch_authenticator(self) -> bytes:
        """Equal for all members that are in the same epoch of the same history (RFC 9420 §8.7)."""
        return self._conversation.group.epoch_authenticator

    def members(self) -> dict[str, int]:
        """The users in the group and how many devices each has there."""
        return {user: len(leaves) for user, leaves in sorted(self._conversation.users().items())}

    def revoked(self) -> list[str]:
        """The users with a device in the group whose certificate was revoked."""
        return self._conversation.revoked_users()

    def admins(self) -> list[str]:
        """The users who are administrators."""
        return [admin.decode(errors="replace") for admin in self._conversation.profile.admins]

    async def add(self, *users: str) -> None:
        """Adds users with all their devices; stored at once, done as soon as the service answers."""
        await self._want(IntentKind.ADD, self._names(users))

    async def remove(self, *users: str) -> None:
        """Removes users with all their devices."""
        await self._want(IntentKind.REMOVE, self._names(users))

    async def rename(self, name: str) -> None:
        """Gives the group another name, which all members see; `StateError` for one that no group can have."""
        check_name(name)
        await self._want(IntentKind.RENAME, name.encode())

    def rules(self) -> GroupRules:
        """Who may do what, and what members do by themselves."""
        return rules_of(self._conversation.profile)

    async def change_rules(self, **rules: str | bool | int) -> None:
        """Changes rules by the names of `GroupRules`; only administrators may.

        Raises `StateError` for a rule that there is not, or a value that it does not have.
        """
        await self._want(IntentKind.CHANGE_RULES, encode_change(rules))

    async def make_admin(self, *users: str) -> None:
        """Makes members administrators; raises `StateError` for who is not in the group."""
        names, present = self._names(users).decode().split(), self.members()
        absent = [name for name in names if name not in present]
        if absent:
            msg = f"{', '.join(absent)} is not in the group: add the user first"
            raise StateError(msg)
        await self._want(IntentKind.CHANGE_RULES, encode_change({}, admit=names))

    async def unmake_admin(self, *users: str) -> None:
        """Makes administrators simple members again; the last one stays administrator."""
        names = self._names(users).decode().split()
        changed(self._conversation.profile, encode_change({}, dismiss=names), self.epoch)
        await self._want(IntentKind.CHANGE_RULES, encode_change({}, dismiss=names))

    def link(self) -> str:
        """A text with which others can ask to come in (`Client.join`); it opens nothing of what is written here.

        Raises `StateError` where the group's rules allow no links.
        """
        if self._conversation.profile.links == Links.OFF:
            msg = "this group has no links: an administrator can allow them (coterie rules GROUP links=ask)"
            raise StateError(msg)
        return write_link(link_of(self._conversation.line))

    async def revoke_links(self) -> None:
        """Makes all links that were made until now worthless; only administrators may."""
        await self._want(IntentKind.CHANGE_RULES, encode_change({}, revoke_links=True))

    def requests(self) -> list[JoinRequest]:
        """Who asks to come in by a link, oldest first."""
        return self._conversation.join_requests()

    async def accept(self, *users: str) -> None:
        """Lets users in who asked; raises `StateError` where one did not."""
        for user in self._names(users).decode().split():
            self._conversation.admit(user)
        await self._client.try_sync(self._conversation)

    def refuse(self, *users: str) -> None:
        """Forgets what users asked for; they are not told. Raises `StateError` where one did not ask."""
        for user in self._names(users).decode().split():
            self._conversation.turn_away(user)

    async def renew_keys(self) -> None:
        """Replaces this device's keys in the group: who had a copy of the old ones is locked out."""
        await self._want(IntentKind.RENEW, b"")

    async def reinitialise(
        self, *, cipher_suite: int | None = None, retention: int | None = None
    ) -> None:
        """Moves the group to a new one of another cipher suite, or whose log keeps entries for another time (seconds).

        Name, rules, members, history and what waits go along; all devices follow by themselves. For administrators.
        Raises `StateError` for what cannot be; where a member cannot follow, a `Problem` names it, and nothing is done.
        """
        self._conversation.want_other(cipher_suite, retention)
        await self._client.try_sync(self._conversation)

    async def reform(self, *, without: Iterable[str] = ()) -> None:
        """Replaces a group that is jammed by one without some users; the others are asked, and history stays.

        Raises `StateError` where the group works, or this user has no right to.
        """
        await self._client.reform(self.id, without)

    def invitations(self) -> list[ReformedBy]:
        """The groups that others made in the place of this one, the one that counts first."""
        return [
            ReformedBy(
                invitation.by.decode(),
                tuple(user.decode() for user in invitation.users),
                tuple(user.decode() for user in invitation.missing),
            )
            for invitation in self._client.vault.reforms(self.id)
        ]

    async def follow(self, by: str | None = None) -> None:
        """Goes to the group that replaces this one, with the history; `StateError` where there is none."""
        await self._client.follow(self.id, self._full_name(by))

    def decline(self, by: str | None = None) -> None:
        """Stays out of the group that replaces this one; the others are told with the next `sync`."""
        self._client.decline(self.id, self._full_name(by))

    def _full_name(self, user: str | None) -> str | None:
        return None if user is None else self._client.identity.full_name(user)

    async def leave(self) -> None:
        """Asks the others to remove this device; they do with their next Commit. Who is alone is out at once.

        So is who can take no part (`status` is `stuck` or `stopped`); the others see the device until they remove it.

        Raises `StateError` for the last device of the only administrator, as long as others are in the group.
        """
        if self._conversation.reads:
            self._conversation.check_leaving()
        await self.leave_anyway()

    async def leave_anyway(self) -> None:
        """Leaves, even if nobody stays who is administrator: everybody has an administrator's rights then."""
        async with self._conversation.lock:
            # Whoever is in the middle of a step would store what was just deleted.
            if self._conversation.leave_here():
                return
        await self._want(IntentKind.LEAVE, b"")

    async def send(self, text: str, *, answers: Message | None = None) -> str:
        """Sends a text; returns its id. It is kept and sent later where the service is away.

        With `answers` that message is marked as read in the same step: a program that is killed and started again
        neither forgets an answer nor gives it twice.
        """
        message_id = self._conversation.want_text(text, answers.position if answers else 0)
        await self._client.try_sync(self._conversation)
        return message_id

    def history(self, limit: int = 50) -> list[Message]:
        """The last texts, oldest first, with their state: waiting, sent or received."""
        return self._client.vault.messages(self.id, limit)

    def unread(self) -> list[Message]:
        """What arrived from others and was not marked as read, oldest first; kept over restarts."""
        return self._client.vault.unread(self.id)

    def mark_read(self, message: Message) -> None:
        """Everything up to this message is read: `unread` gives it no more."""
        with self._client.vault.step() as step:
            self._conversation.mark_read(step, message.position)

    async def tell_seen(self) -> None:
        """Tells the others now what was marked as read, where the group wants that; it is done by itself soon."""
        self._conversation.hurry_receipts()
        await self._client.try_sync(self._conversation)

    def waiting(self) -> int:
        """How many things are wanted and not done; that the group is made is one of them."""
        return len(self._client.vault.intents(self.id)) + (self.status == "creating")

    async def sync(self) -> None:
        """Catches up and carries out what is wanted; raises `ServiceError` where the service is away."""
        await self._conversation.sync()

    def _names(self, users: tuple[str, ...]) -> bytes:
        identity = self._client.identity
        return " ".join(identity.full_name(user) for user in users).encode()

    async def _want(self, kind: IntentKind, argument: bytes) -> None:
        self._conversation.want(Intent(kind, argument))
        await self._client.try_sync(self._conversation)
