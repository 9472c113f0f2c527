"""What tests of groups that follow one another share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

from coterie.client import Client, GroupHandle
from coterie.client.conversation import Conversation
from coterie.client.events import Event, Problem
from coterie.client.line import Line
from coterie.mls.group import commit as commit_module
from coterie.mls.ratchet_tree import HPKECiphertext
from coterie.mls.treekem import seal_path
from tests.client_world import World, world

HOUR = 3600
DAY = 24 * HOUR


def run(folder: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """A story in a world of its own."""

    async def told() -> None:
        async with world(folder) as w:
            await story(w)

    asyncio.run(told())


async def group_of(w: World, *names: str, admins: tuple[str, ...] = ()) -> tuple[Client, ...]:
    """Clients in one group; the first one made it, and is an administrator as well as those named."""
    clients = tuple([await w.device(name) for name in names])
    group = await clients[0].create_group("Friends")
    if len(names) > 1:
        await group.add(*names[1:])
    await w.settle()
    if admins:
        await make_admins(clients[0], *admins)
        await w.settle()
    return clients


async def make_admins(client: Client, *names: str) -> None:
    """Makes users administrators, besides those there are."""
    await group(client).make_admin(*names)


def group(client: Client) -> GroupHandle:
    """A client's one group."""
    assert len(client.groups()) == 1
    return client.groups()[0]


def conversation(client: Client) -> Conversation:
    """The private side of it."""
    return group(client)._conversation


def line(client: Client) -> Line:
    """The place in the log, as it is in memory."""
    return conversation(client).line


def problems(told: list[Event]) -> list[str]:
    """What the user was told that is wrong."""
    return [event.what for event in told if isinstance(event, Problem)]


def suite(client: Client) -> int:
    """The cipher suite of a client's group."""
    return int(conversation(client).group.context.cipher_suite)


def same(*clients: Client) -> bool:
    """Whether all are in one epoch of one history."""
    return len({group(c).epoch_authenticator for c in clients}) == 1


def spoilt_path(*args: Any) -> Any:
    """`seal_path` of a member whose path nobody can open."""
    return tuple(
        node.replace(
            encrypted_path_secret=tuple(
                HPKECiphertext(c.kem_output, bytes(b ^ 1 for b in c.ciphertext))
                for c in node.encrypted_path_secret
            )
        )
        for node in seal_path(*args)
    )


async def jam(w: World, by: Client) -> None:
    """One member's Commit that nobody can follow ends the line for all others."""
    with mock.patch.object(commit_module, "seal_path", spoilt_path):
        await group(by).renew_keys()
    for client in w.clients.values():
        if client is not by:
            await client.sync()
            assert group(client).status == "stuck"
