"""`Client` for scripts that have no event loop: each call returns when it is done, and nothing happens in between.

with BlockingClient.open("profile", key, server="http://127.0.0.1:8470") as client:
    client.group("Friends").send("The backup is done")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from coterie.client.client import RETENTION, Client
from coterie.client.events import Event
from coterie.client.handle import GroupHandle
from coterie.client.shared_loop import SharedLoop, refuse_running_loop
from coterie.storage import StorageKey

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class _Facade(Generic[T]):
    """Something of the client, and the loop in which its calls are carried out, whichever thread makes them."""

    def __init__(self, inner: T, loop: SharedLoop) -> None:
        self._inner = inner
        self._loop = loop

    def _done(self, method: Callable[Concatenate[T, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What a method gives that waits for nothing: nothing else is in the middle of something meanwhile."""

        async def done() -> R:
            return method(self._inner, *args, **kwargs)

        return self._loop.run(done())

    def _each(self, found: AsyncIterator[R]) -> Iterator[R]:
        """What an asynchronous iterator gives; the loop stands still while the caller has an item."""

        async def one() -> R:
            return await anext(found)

        while True:
            try:
                item = self._loop.run(one())
            except StopAsyncIteration:
                return
            yield item


def _blocking(
    method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[_Facade[T], P], R]:
    """The method, carried out to its end."""

    @wraps(method)
    def call(facade: _Facade[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return facade._loop.run(method(facade._inner, *args, **kwargs))  # noqa: SLF001 - its own

    return call


def _same(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[_Facade[T], P], R]:
    """The method as it is: it does not wait for anything."""

    @wraps(method)
    def call(facade: _Facade[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return facade._done(method, *args, **kwargs)  # noqa: SLF001 - its own

    return call


class BlockingGroup(_Facade[GroupHandle]):
    """`GroupHandle` for scripts; the methods are those of `GroupHandle`."""

    def __repr__(self) -> str:
        # Not its name, which cannot be read any more once the client is closed.
        return f"BlockingGroup({self.id[:8]}…)"

    add = _blocking(GroupHandle.add)
    remove = _blocking(GroupHandle.remove)
    rename = _blocking(GroupHandle.rename)
    make_admin = _blocking(GroupHandle.make_admin)
    unmake_admin = _blocking(GroupHandle.unmake_admin)
    revoke_links = _blocking(GroupHandle.revoke_links)
    accept = _blocking(GroupHandle.accept)
    renew_keys = _blocking(GroupHandle.renew_keys)
    reinitialise = _blocking(GroupHandle.reinitialise)
    reform = _blocking(GroupHandle.reform)
    follow = _blocking(GroupHandle.follow)
    leave = _blocking(GroupHandle.leave)
    leave_anyway = _blocking(GroupHandle.leave_anyway)
    send = _blocking(GroupHandle.send)
    tell_seen = _blocking(GroupHandle.tell_seen)
    sync = _blocking(GroupHandle.sync)
    members = _same(GroupHandle.members)
    revoked = _same(GroupHandle.revoked)
    admins = _same(GroupHandle.admins)
    rules = _same(GroupHandle.rules)
    link = _same(GroupHandle.link)
    requests = _same(GroupHandle.requests)
    refuse = _same(GroupHandle.refuse)
    invitations = _same(GroupHandle.invitations)
    decline = _same(GroupHandle.decline)
    history = _same(GroupHandle.history)
    unread = _same(GroupHandle.unread)
    mark_read = _same(GroupHandle.mark_read)
    waiting = _same(GroupHandle.waiting)

    def change_rules(self, **rules: str | bool | int) -> None:
        """See `GroupHandle.change_rules`."""
        self._loop.run(self._inner.change_rules(**rules))

    @property
    def id(self) -> str:
        """See `GroupHandle.id`."""
        return self._inner.id

    @property
    def name(self) -> str:
        """The group's name."""
        return self._done(lambda group: group.name)

    @property
    def status(self) -> str:
        """active, creating, moving, left, stuck or stopped."""
        return self._done(lambda group: group.status)

    @property
    def why(self) -> str:
        """Why this device takes no part; empty while it does."""
        return self._done(lambda group: group.why)

    @property
    def epoch(self) -> int:
        """The number of the present epoch, for display."""
        return self._done(lambda group: group.epoch)

    @property
    def epoch_authenticator(self) -> bytes:
        """See `GroupHandle.epoch_authenticator`."""
        return self._done(lambda group: group.epoch_authenticator)


class BlockingClient(_Facade[Client]):
    """`Client` for scripts; the methods are those of `Client`. Make one with `BlockingClient.open`."""

    @classmethod
    @contextmanager
    def open(
        cls, path: str | Path, key: StorageKey, *, server: str = "", welcome_delay: float = 5.0
    ) -> Iterator[Self]:
        """See `Client.open`. Raises `StateError` inside a running event loop, where `Client` is to be used."""
        refuse_running_loop()
        with SharedLoop() as loop:
            opened = Client.open(path, key, server=server, welcome_delay=welcome_delay)
            client = loop.run(opened.__aenter__())
            try:
                yield cls(client, loop)
            finally:
                loop.finish(opened.__aexit__(None, None, None))

    enrol = _blocking(Client.enrol)
    link_code = _blocking(Client.link_code)
    devices = _blocking(Client.devices)
    revoke_device = _blocking(Client.revoke_device)
    log_out = _blocking(Client.log_out)
    join = _blocking(Client.join)
    sync = _blocking(Client.sync)
    wipe = _same(Client.wipe)
    search = _same(Client.search)
    block = _same(Client.block)
    unblock = _same(Client.unblock)
    blocked = _same(Client.blocked)
    export_history = _same(Client.export_history)
    import_history = _same(Client.import_history)
    asked = _same(Client.asked)
    pending_events = _same(Client.pending_events)

    @property
    def is_enrolled(self) -> bool:
        """Whether the device has a certificate."""
        return self._done(lambda client: client.is_enrolled)

    @property
    def user(self) -> str:
        """`name@realm` of the device's user."""
        return self._done(lambda client: client.user)

    @property
    def tells_seen(self) -> bool:
        """See `Client.tells_seen`."""
        return self._done(lambda client: client.tells_seen)

    @tells_seen.setter
    def tells_seen(self, tell: bool) -> None:
        self._done(lambda client: setattr(client, "tells_seen", tell))

    def groups(self) -> list[BlockingGroup]:
        """All groups that this device is or was in."""
        return [BlockingGroup(group, self._loop) for group in self._done(Client.groups)]

    def group(self, name: str) -> BlockingGroup:
        """A group by name, id or beginning of the id; `StateError` where none or more than one fits."""
        return BlockingGroup(self._done(Client.group, name), self._loop)

    def create_group(self, name: str, *, retention: int = RETENTION) -> BlockingGroup:
        """See `Client.create_group`."""
        made = self._loop.run(self._inner.create_group(name, retention=retention))
        return BlockingGroup(made, self._loop)

    def changes(self, *, poll: float = 30.0) -> Iterator[bool]:
        """See `Client.changes`; between two items nothing is read, so come back soon."""
        return self._each(self._inner.changes(poll=poll))

    def events(self, *, poll: float = 30.0) -> Iterator[Event]:
        """Everything that happens, for ever; between two items nothing is read, so come back soon."""
        return self._each(self._inner.events(poll=poll))
