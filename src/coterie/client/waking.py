"""Waiting until the service says that something arrived (docs/delivery-protocol.md, section 9)."""

from __future__ import annotations

from coterie.transport import api
from coterie.transport.client import Connection


def subscribe(
    number: int,
    target_type: api.TargetType,
    *,
    log: api.LogTarget | None = None,
    inbox: api.InboxTarget | None = None,
) -> api.ClientFrame:
    """The frame that asks to be woken, without content, by what comes after a number."""
    return api.ClientFrame(
        api.ClientFrameType.SUBSCRIBE,
        api.Subscribe(number, api.Delivery.WAKE_ONLY, target_type, log=log, inbox=inbox),
    )


async def first_wake(connection: Connection, known: dict[int, int]) -> None:
    """Returns when one of the subscriptions has something from the number on that is known of it."""
    while True:
        frame = await connection.receive()
        woken = frame.woken
        if woken is None or woken.next_number > known.get(woken.subscription, 0):
            return
