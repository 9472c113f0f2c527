"""The client: one device of one user, its groups, its storage, kept in step with the services.

`Client` and `GroupHandle` are the public API, with the values of `events`; `BlockingClient` and `BlockingGroup` are the
same for scripts without an event loop. Everything else is private.
"""

from __future__ import annotations

from coterie.client.blocking import BlockingClient, BlockingGroup
from coterie.client.client import Client
from coterie.client.handle import GroupHandle

__all__ = ["BlockingClient", "BlockingGroup", "Client", "GroupHandle"]
