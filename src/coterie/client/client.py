"""`Client`: one device of one user, for applications; whoever embeds it never handles an epoch.

async with Client.open("profile", key, server="http://127.0.0.1:8080") as client:
    await client.enrol("alice", code)
    group = await client.create_group("Friends")
    await group.add("bob@example")
    await group.send("Hello")
    async for event in client.events():
        ...
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from coterie.client.calling import answer_calls
from coterie.client.content import ProfileRules, check_name, check_retention
from coterie.client.conversation import Conversation
from coterie.client.cores import on_all_cores
from coterie.client.creating import new_group, open_log
from coterie.client.enrolling import Enrolment
from coterie.client.events import Event, Problem
from coterie.client.handle import GroupHandle
from coterie.client.identity import DEFAULT_SUITE, Identity, SigningKey
from coterie.client.intents import Intent, IntentKind
from coterie.client.inviting import Inviting
from coterie.client.joining import Joins
from coterie.client.links import ask, post_asks, read_link
from coterie.client.listening import Heard, Listener
from coterie.client.mailbox import Mailbox
from coterie.client.own_devices import LOOK_AGAIN, OwnDevices
from coterie.client.place import Tools, no_answer
from coterie.client.reforming import plan_reform
from coterie.client.vault import Vault
from coterie.errors import (
    ServiceError,
    StateError,
    VerificationError,
)
from coterie.mls.group import Config, Limits
from coterie.storage import Message, Profile, StorageKey
from coterie.storage.profile import KEY_FILE
from coterie.transport import api, as_api
from coterie.transport.authentication import AuthenticationClient
from coterie.transport.client import Carrier, DeliveryClient
from coterie.transport.http import HTTPCarrier, platform_trust
from coterie.transport.refusal import Refused, Unreachable

RETENTION = 30 * 24 * 3600
"""For how many seconds a group's log keeps its entries by default."""
AUTHENTICATION_PATH = "/authentication"
_MEMBERS_PER_POLL = 1_000
"""So many members more make the time between two polls longer by once `poll`."""
_TICK = 2.0
"""Seconds after which a client looks whether it is its turn to commit what waits."""
_WAIT, _LONGEST_WAIT = 5.0, 60.0
"""For how many seconds nothing is begun in a group by turn after the service has refused something there."""
REVOCATION_AGE = 600
"""For how many seconds a list of revoked certificates is taken without asking for a newer one."""


def _now() -> int:
    return int(time.time())


def _http() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=30, trust_env=False, verify=platform_trust())


@dataclass(frozen=True, slots=True)
class Network:
    """How a client reaches the services; other carriers are for tests and other transports."""

    carrier: Callable[[str], Carrier] = HTTPCarrier
    http: Callable[[], httpx.AsyncClient] = _http


class Client:
    """One device. Make one with `Client.open`."""

    def __init__(
        self,
        vault: Vault,
        server: str,
        *,
        clock: Callable[[], int] = _now,
        welcome_delay: float = 5.0,
        network: Network = Network(),
    ) -> None:
        """For `open`; use that."""
        self.vault = vault
        self._clock = clock
        self._server = server.rstrip("/")
        self._welcome_delay = welcome_delay
        self._http = network.http()
        self._network = network
        self._delivery = self._fresh()
        self._inboxes = self._fresh()
        self._listener: Listener | None = None
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._reader: object | None = None
        self._stirred = asyncio.Event()
        """Set where a call has left something to tell, or to do, for who goes through `changes`."""
        self._cut_off: set[str] = set()
        """Groups in which a call was cancelled: what it wanted is stored, and perhaps not done."""
        self._cuts = 0
        self._is_closed = False
        self._conversations: dict[str, Conversation] = {}
        self._tools: Tools | None = None
        self._revocations_at = 0
        self._renew_at = 0
        self._entering = asyncio.Lock()
        """Held by who takes invitations: where two tasks did it, one group would be entered twice."""
        identity = vault.identity()
        if identity is not None:
            self._begin(identity)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: str | Path,
        key: StorageKey,
        *,
        server: str = "",
        clock: Callable[[], int] = _now,
        welcome_delay: float = 5.0,
        network: Network = Network(),
        durable: bool = True,
    ) -> AsyncIterator[Self]:
        """Opens (or makes) the profile at `path`; `server` is needed until the device is enrolled.

        `clock` gives seconds since 1970; `welcome_delay` is in seconds; `durable=False` leaves out syncs, for tests.

        Raises `StorageError` where the profile is in use, damaged, or the key is wrong.
        """
        # A profile that has its key and not its database is damaged; it must not be taken for a new one.
        create = not (Path(path) / KEY_FILE).exists()
        with Profile.open(Path(path), key, create=create, durable=durable) as profile:
            vault = Vault(profile)
            known = vault.identity()
            address = known.stored.server.decode() if known else server
            client = cls(vault, address, clock=clock, welcome_delay=welcome_delay, network=network)
            try:
                yield client
            finally:
                await client._close()

    def _fresh(self) -> DeliveryClient:
        return DeliveryClient(self._network.carrier(self._server))

    async def _close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
        await self._http.aclose()
        await self._delivery.close()
        await self._inboxes.close()
        # Not before: what a task is at would count as not possible, and be given up, as long as that can be stored.
        self._is_closed = True
        self._stir()

    def _must_be_ready(self) -> None:
        """Raises `StateError` after the client was closed, and before the device is enrolled."""
        if self._is_closed:
            msg = "this client is closed: open it again with Client.open"
            raise StateError(msg)
        _ = self.tools

    # -- the device

    def _begin(self, identity: Identity) -> None:
        config = Config(
            identity.issuer,
            limits=Limits(private_handshakes=False, max_past_epochs=0),
            rules=ProfileRules(identity),
            run=on_all_cores if (os.cpu_count() or 1) > 1 else map,
        )
        self._tools = Tools(
            identity,
            self.vault,
            self._delivery,
            config,
            self._inboxes,
            self.refresh_revocations,
            self._clock,
            self._tell,
            self._fresh,
            self._welcome_delay,
        )
        self._conversations = {
            name: Conversation(self._tools, name) for name in self.vault.conversations()
        }
        self._inviting = Inviting(self._tools, self._conversations)
        self._joins = Joins(self._tools, self._conversations, self._inviting)
        self._inviting.downloads(self._joins)
        self._mailbox = Mailbox(self._tools, self._conversations, self._inviting)
        self._own_devices = OwnDevices(self._tools, self._own_service)

    @property
    def tools(self) -> Tools:
        """What conversations share; `StateError` before the device is enrolled."""
        if self._tools is None:
            msg = "this device is not enrolled yet: enrol it with a code from the operator"
            raise StateError(msg)
        return self._tools

    @property
    def identity(self) -> Identity:
        """The enrolled device; `StateError` before it is."""
        return self.tools.identity

    @property
    def is_enrolled(self) -> bool:
        """Whether the device has a certificate."""
        return self._tools is not None

    @property
    def user(self) -> str:
        """`name@realm` of the device's user."""
        return self.identity.user

    async def enrol(self, user: str, code: str, *, cipher_suite: int = DEFAULT_SUITE) -> None:
        """Makes this device one of the user's, with a one-time code; then others can add it to groups.

        Raises `ServiceError` with the service's reason. Where no answer came it can be tried again with the same code,
        also after a restart: the key that the code is good for is stored before it is sent.
        """
        if self._tools is not None:
            msg = f"this device is enrolled already, as {self.user}"
            raise StateError(msg)
        if not self._server.startswith(("https://", "http://")):
            msg = f"enrolling needs the server's address, which begins with https:// (or http://), not {self._server!r}"
            raise StateError(msg)
        info = await self._delivery.info()
        attempt = Enrolment(self.vault, self._server, info.receipt_key, cipher_suite)
        identity = await attempt.enrol(self._authentication, user, code, self._clock())
        self._begin(identity)
        await self.publish()

    def _authentication(self, realm: str) -> AuthenticationClient:
        base = self._server + AUTHENTICATION_PATH
        return AuthenticationClient(self._http, base, realm, clock=self._clock)

    def _own_service(self) -> tuple[AuthenticationClient, SigningKey]:
        stored = self.identity.stored
        return self._authentication(stored.realm.decode()), SigningKey(self.identity.signature_key)

    async def link_code(self) -> tuple[str, int]:
        """A one-time code for a further device of this user, and until when it is valid.

        Once that device has logged in, this one adds it to all groups in which it is (`sync`).
        """
        self._must_be_ready()
        return await self._own_devices.link()

    async def devices(self) -> list[tuple[str, int]]:
        """The user's devices that are not revoked, and until when their certificates are valid.

        Those that were never in a group of this device are added to it by the next `sync`.
        """
        self._must_be_ready()
        return await self._own_devices.listed()

    async def revoke_device(self, device: str) -> None:
        """Revokes a lost device of the same user."""
        self._must_be_ready()
        service, key = self._own_service()
        await service.revoke(key, device)

    async def refresh_revocations(self) -> None:
        """Has a list of revoked certificates that is in force; raises `ServiceError` where none can be had."""
        lists = self.identity.revocations
        stored = self.vault.revocations()
        if stored is not None and not lists.fresh(self._clock()):
            lists.update(stored)
        now = self._clock()
        if lists.fresh(now) and now - self._revocations_at < REVOCATION_AGE:
            return
        service, _ = self._own_service()
        newest = await service.revocation_list()
        try:
            lists.update(newest)
        except VerificationError as error:
            raise no_answer(error) from error
        self._revocations_at = now
        with self.vault.step() as step:
            step.save_revocations(newest)

    async def renew_certificate(self) -> None:
        """Asks for a new certificate for the same key, and brings it into every group.

        Raises `ServiceError` where the service gives another one than was asked for; nothing is changed then.
        """
        service, key = self._own_service()
        await self.refresh_revocations()
        issued = await service.renew(key)
        try:
            stored = self.identity.replaced(issued.chain, self._clock())
        except VerificationError as error:
            raise no_answer(error) from error
        with self.vault.step() as step:
            step.save_identity(stored)
        # The identity and the conversations stay: a second place in one log would use its keys a second time.
        self.identity.renew(stored)
        for group in self.groups():
            if group.status == "active":
                self._conversations[group.id].want(Intent(IntentKind.RENEW, b""))

    async def _renew_in_time(self) -> None:
        """Renews the certificate in the last third of its lifetime; what cannot be done yet holds up nothing else."""
        now = self._clock()
        if not self.identity.renewal_due(now) or now < self._renew_at:
            return
        try:
            await self.renew_certificate()
        except ServiceError as error:
            if not self._renew_at:
                what = f"this device's certificate could not be renewed: {error}"
                self.tools.emit(Problem("", what, "it is tried again every hour"))
            self._renew_at = now + LOOK_AGAIN
        else:
            self._renew_at = 0

    async def publish(self) -> None:
        """Opens the inbox and brings the stock of key packages in the directory up to what is kept there (D-DIR-7)."""
        await self._mailbox.publish()

    # -- groups

    def groups(self) -> list[GroupHandle]:
        """All groups that this device is or was in."""
        return [GroupHandle(self, conversation) for conversation in self._conversations.values()]

    def group(self, name: str) -> GroupHandle:
        """A group by name, id or beginning of the id; `StateError` where none or more than one fits."""
        found = [
            group
            for group in self.groups()
            if group.name == name or group.id.startswith(name.lower())
        ]
        active = [group for group in found if group.status == "active"]
        if len(active) == 1:
            return active[0]
        if not found:
            msg = f"there is no group {name!r} on this device"
            raise StateError(msg)
        if len(found) > 1:
            ids = ", ".join(group.id[:12] for group in found)
            msg = f"{len(found)} groups are called {name!r}; use the beginning of an id: {ids}"
            raise StateError(msg)
        return found[0]

    def search(self, text: str, limit: int = 50) -> list[Message]:
        """Texts of all groups that have all the words, newest first; the last word may be a beginning."""
        blocked = self.vault.blocked()
        found = self.vault.profile.view.search(text, limit=limit)
        return [message for message in found if message.sender not in blocked]

    # -- people

    def block(self, user: str) -> None:
        """Shows nothing more of a user: no texts, invitations or requests. They are not told.

        What they write is kept, and shown again after `unblock`. Groups that they invite to do not appear; there
        this user stands as a member who has not come yet. Raises `StateError` for the own name.
        """
        name = self.identity.full_name(user)
        if name == self.user:
            msg = "you cannot block yourself"
            raise StateError(msg)
        with self.vault.step() as step:
            step.set_blocked(name, self._clock())

    def unblock(self, user: str) -> None:
        """Shows what a user writes and wrote; raises `StateError` for who is not blocked."""
        name = self.identity.full_name(user)
        if name not in self.vault.blocked():
            msg = f"{name} is not blocked"
            raise StateError(msg)
        with self.vault.step() as step:
            step.set_blocked(name, None)

    def blocked(self) -> dict[str, int]:
        """The users who are blocked, and since when (seconds since 1970)."""
        return self.vault.blocked()

    @property
    def tells_seen(self) -> bool:
        """Whether others are told which texts were marked as read, in groups that want that."""
        return not self.vault.quiet()

    @tells_seen.setter
    def tells_seen(self, tell: bool) -> None:
        with self.vault.step() as step:
            step.set_quiet(quiet=not tell)

    def export_history(self, path: str | Path, passphrase: str) -> int:
        """Writes the history to an encrypted file; returns how many texts. `StateError` where the file exists."""
        return self.vault.profile.view.export_history(path, passphrase)

    def import_history(self, path: str | Path, passphrase: str) -> int:
        """Adds an exported history; returns how many texts were new. `StorageError` for a wrong passphrase.

        They stand before all others in the history of their group, count as read, and can be searched.
        """
        with self.vault.profile.transaction() as tx:
            return tx.import_history(path, passphrase)

    async def log_out(self) -> None:
        """Asks to be removed from every group, revokes this device, and deletes the profile with all it holds.

        Raises `ServiceError` where the service is away; nothing is deleted then. `wipe` asks nobody.
        """
        for group in self.groups():
            if group.status == "active":
                await group.leave_anyway()
        try:
            await self.revoke_device(self.identity.stored.device.decode())
        except as_api.Refused as refused:
            # Somebody revoked it before: then there is nothing left but to delete what it holds.
            if refused.code != as_api.ErrorCode.REVOKED:
                raise
        self.wipe()

    def wipe(self) -> None:
        """Deletes the profile with all keys and history; nobody is told, so the device stays in its groups."""
        self.vault.profile.wipe()

    async def create_group(self, name: str, *, retention: int = RETENTION) -> GroupHandle:
        """Makes a group of which this device is the only member, and administrator.

        It is stored at once, and made as soon as the service answers: `status` is `creating` until then. Raises
        `StateError` for a name or retention that no group can have, and `ServiceError` where trying again would be of
        no use.
        """
        check_name(name)
        check_retention(retention)
        made = new_group(self.tools, name, retention)
        conversation = made.group.group_id.hex()
        with self.vault.step() as step:
            made.store(step, conversation)
        self._conversations[conversation] = Conversation(self.tools, conversation)
        try:
            with self._going_on(conversation):
                await self._finish_creating(conversation)
        except ServiceError as error:
            if isinstance(error, Refused) and error.retry_after is None:
                with self.vault.step() as step:
                    step.end(conversation, f"the group was not made: {error}")
            # What the service signed wrongly is told at once, though it is asked for again.
            lasts = error.retry_after is None and not isinstance(error, Unreachable)
            if lasts or isinstance(error.__cause__, VerificationError):
                raise
        return GroupHandle(self, self._conversations[conversation])

    async def reform(self, conversation: str, without: Iterable[str] = ()) -> None:
        """Replaces a group that cannot go on by a new one without some users; all others are asked to come (D-SUC-6).

        Raises `StateError` where the group works or this user has no right to.
        """
        handle, now = self._conversations[conversation], self._clock()
        async with handle.lock:
            plan = plan_reform(handle, self.vault, self.identity, without, now)
            retention = handle.line.binding.retention
            made = new_group(self.tools, plan.name, retention, plan.follows)
            with self.vault.step() as step:
                step.continue_in(conversation, made.group.group_id, reformed=True)
                made.store(step, conversation)
                step.save_origin(conversation, plan.origin)
                if plan.invited:
                    argument = " ".join(plan.invited).encode()
                    step.add_intent(conversation, Intent(IntentKind.ADD, argument))
            handle.forget()
        with suppress(ServiceError):
            await self._finish_creating(conversation)
            await handle.sync()

    async def follow(self, conversation: str, by: str | None = None) -> None:
        """Goes to the group that replaces this one; `by` (`name@realm`) says whose where there are several."""
        async with self._entering:
            await self._inviting.accept(conversation, by)
            await self._joins.carry_on()
        await self.try_sync(self._conversations[conversation])

    def decline(self, conversation: str, by: str | None = None) -> None:
        """Forgets an invitation to a group that replaces this one; the next `sync` tells the others there."""
        self._inviting.decline(conversation, by)

    async def _finish_creating(self, conversation: str) -> None:
        """Creates the log of a group that was made.

        Under the conversation's lock: where two tasks do it, the second must not put the group back to its beginning.
        """
        async with self._conversations[conversation].lock:
            await open_log(self.tools, conversation)

    async def join(self, link: str, note: str = "") -> None:
        """Asks to be let into the group of a link, with a note of up to 500 characters for those who decide.

        The request is stored, and sent as soon as the service answers; `Joined` tells when it was granted. Raises
        `StateError` for a link that is damaged, expired, of another server, or to a group that this device is in.
        """
        await ask(self.tools, self._conversations.values(), read_link(link), note)

    def asked(self) -> list[int]:
        """When this device asked by links to be let in (seconds since 1970), as far as nobody has let it in."""
        return [ask.made_at for ask in self.vault.asks()]

    # -- staying up to date

    async def sync(self) -> None:
        """Reads the inbox, catches up in every group, carries out what is wanted.

        Raises `ServiceError` where the service is away, or does not answer for the inbox or some group as it should;
        the others are up to date then, and everything that is wanted stays stored.
        """
        self._must_be_ready()
        async with self._entering:
            await self._sync()

    async def _sync(self) -> None:
        await self._renew_in_time()
        failed: list[ServiceError] = []
        try:
            await self._mailbox.read()
        except Unreachable:
            raise
        except ServiceError as error:
            failed.append(error)
        await post_asks(self.tools)
        await self._inviting.post_declines()
        await answer_calls(self.tools, self._conversations.values())
        if self._clock() - self._revocations_at >= REVOCATION_AGE:
            with suppress(ServiceError):
                await self.tools.refresh()
        await self._own_devices.look()
        cut = await self._joins.carry_on()
        failed += [] if cut is None else [cut]
        failed += await self._sync_all(list(self._conversations))
        failed += await self._sync_all(await self._inviting.retry())
        if failed:
            raise failed[0]

    async def _sync_all(self, names: Iterable[str]) -> list[ServiceError]:
        """Synchronises groups; what the service or the members of one do to it holds up no other."""
        failed = []
        for name in names:
            try:
                await self._advance(self._conversations[name])
            except Unreachable:
                raise
            except ServiceError as error:
                failed.append(error)
                wait = min(error.retry_after or _WAIT, _LONGEST_WAIT)
                self.tools.not_before[name.encode()] = self._clock() + math.ceil(wait)
        return failed

    async def _advance(self, conversation: Conversation) -> None:
        """Makes a group's log where that is still to be done, catches up there, and carries out what is wanted."""
        if self.vault.status(conversation.id) == "creating":
            await self._finish_creating(conversation.id)
        if self.vault.status(conversation.id) != "stopped":
            await conversation.sync()

    def _turns(self) -> set[str]:
        """The groups in which it is this device's turn to do something, and nothing was refused just now."""
        now, not_before = self._clock(), self.tools.not_before
        return {
            name
            for name, conversation in self._conversations.items()
            if now >= not_before.get(name.encode(), 0)
            and (name in self._cut_off or conversation.has_turn())
        }

    async def try_sync(self, conversation: Conversation) -> None:
        """Carries out what is wanted now if the service can be reached; it stays stored otherwise."""
        with suppress(ServiceError), self._going_on(conversation.id):
            await self._advance(conversation)

    @contextmanager
    def _going_on(self, conversation: str) -> Iterator[None]:
        """Has what a cancelled call wanted done soon by who goes through `changes`, not with the next poll only."""
        try:
            yield
        except asyncio.CancelledError:
            self._cut_off.add(conversation)
            self._cuts += 1
            self._stir()
            raise

    def _tell(self, event: Event) -> None:
        self._queue.put_nowait(event)
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        if self._listener is not None:
            self._listener.look_up()

    async def changes(self, *, poll: float = 30.0) -> AsyncIterator[bool]:
        """Goes on for ever: after each time that this device caught up, True, and False where the service was away.

        The service pushes what is new; besides, the client looks by itself, every `poll` seconds in small groups and
        less often in large ones, where so many polls would be most of what the service does.

        It gives an item as well where another call has something to tell (`pending_events`).
        """
        while True:
            try:
                await self.sync()
            except Unreachable as error:
                self._stirred.clear()
                yield False
                async for _ in self._idle(error.retry_after or poll):
                    yield False
                continue
            except ServiceError:
                # How long to wait for one thing says nothing about all others.
                self._stirred.clear()
                yield False
            else:
                self._stirred.clear()
                yield True
            async for _ in self._pushed(self._interval(poll)):
                yield True

    async def _idle(self, seconds: float) -> AsyncIterator[None]:
        """Lets time pass; yields whenever a call has left something to tell."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._stirred.wait()
            if self._stirred.is_set():
                self._stirred.clear()
                if self._is_closed:
                    return
                yield

    def _interval(self, poll: float) -> float:
        sizes = [c.size() for c in self._conversations.values() if c.is_active]
        longer = 1 + max(sizes, default=0) / _MEMBERS_PER_POLL
        return poll * longer * random.uniform(0.8, 1.2)  # noqa: S311 - a time, not a secret

    async def _pushed(self, seconds: float) -> AsyncIterator[None]:
        """Acts on what the service pushes, until it is time to look again; yields after each thing."""
        ends = time.monotonic() + seconds
        listener = self._listener or Listener(self._delivery, self._inboxes, self._stirred)
        self._listener = listener
        try:
            while (left := ends - time.monotonic()) > 0:
                target = api.InboxTarget(
                    self.identity.stored.inbox_id,
                    bytes(self.identity.stored.inbox_token),
                )
                groups = list(self._conversations.values())
                heard = await listener.next(groups, target, min(left, _TICK))
                if await self._act_on(heard) or self._stirred.is_set():
                    self._stirred.clear()
                    yield
        except ServiceError:
            # Without a connection the client polls. One that worked is made anew soon, after what was missed is read.
            self._listener = None
            await listener.close()
            left = max(0.0, ends - time.monotonic())
            async for _ in self._idle(min(left, _TICK) if listener.heard else left):
                before = self._cuts
                with suppress(ServiceError):
                    await self._act_on(Heard())
                # What this left to tell is told now, and is no reason to act again; who was cut off meanwhile is.
                if self._cuts == before:
                    self._stirred.clear()
                yield

    async def _act_on(self, heard: Heard) -> bool:
        """Does what was heard, and what is this device's turn; returns whether there was anything."""
        if heard.inbox:
            async with self._entering:
                await self._mailbox.read()
        turns = self._turns()
        self._cut_off -= turns
        # What fails here is told by the next `sync`; the connection, and the other groups, are not at fault.
        await self._sync_all(heard.ask | turns)
        for name in heard.entries - heard.ask - turns:
            with suppress(Refused):
                await self._conversations[name].take_offered()
        return bool(heard or turns)

    async def events(self, *, poll: float = 30.0) -> AsyncIterator[Event]:
        """Everything that happens, for ever. What arrived while nobody listened is in `GroupHandle.unread`.

        Each event is given out once: where another call of this begins, the one before ends with `StateError`.
        """
        reader = self._reader = object()
        async for _ in self.changes(poll=poll):
            while True:
                if self._reader is not reader:
                    msg = "the client's events are read elsewhere since: read them in one place, and hand them on"
                    raise StateError(msg)
                if self._queue.empty():
                    break
                yield self._queue.get_nowait()

    def pending_events(self) -> list[Event]:
        """What happened since the last call; for applications that call `sync` themselves."""
        found = []
        while not self._queue.empty():
            found.append(self._queue.get_nowait())
        return found
