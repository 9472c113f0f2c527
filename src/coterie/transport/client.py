"""A client's view of the Delivery Service: one method per request, over any carrier (`http`, `memory`).

A refusal is raised as `Refused`; a service that cannot be reached, or answers what is no answer, as `ServiceError` with
`retry_after`. Neither says whether an append was stored: send the same bytes again (D-TRA-5).
"""

from __future__ import annotations

from typing import Protocol, TypeVar, cast

from coterie.mls.tls import Struct
from coterie.transport import api

T = TypeVar("T", bound=Struct)


class Connection(Protocol):
    """An open subscription connection."""

    async def send(self, frame: api.ClientFrame) -> None:
        """Sends a frame."""

    async def receive(self) -> api.ServerFrame:
        """The next frame; `Refused` with the service's reason, or `ServiceError`, when the connection is over."""

    async def close(self) -> None:
        """Ends the connection."""


class Carrier(Protocol):
    """A way for requests to travel."""

    async def call(self, path: str, request: Struct, answer: type[T]) -> T:
        """Sends a request and returns the decoded answer."""

    async def info(self) -> api.ServiceInfo:
        """What the service says about itself."""

    async def connect(self) -> Connection:
        """Opens a subscription connection."""

    async def close(self) -> None:
        """Closes connections that are kept open."""


class DeliveryClient:
    """The requests of section 14, typed."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    async def _call(self, path: str, request: Struct) -> Struct:
        return await self.carrier.call(path, request, api.OPERATIONS[path][1])

    async def info(self) -> api.ServiceInfo:
        """Versions, receipt key, limits."""
        return await self.carrier.info()

    async def connect(self) -> Connection:
        """A connection for subscriptions; logs and inboxes need different ones (D-SUB-7)."""
        return await self.carrier.connect()

    async def close(self) -> None:
        """Closes the carrier."""
        await self.carrier.close()

    async def create_log(self, request: api.CreateLogRequest) -> api.Appended:
        """Makes a log (section 6)."""
        return cast("api.Appended", await self._call("logs/create", request))

    async def append(self, request: api.Append) -> api.Appended:
        """Appends an entry (sections 2, 4, 8)."""
        return cast("api.Appended", await self._call("logs/append", request))

    async def read(self, request: api.Read) -> api.ReadResult:
        """Reads an epoch from a number on (D-REC-6)."""
        return cast("api.ReadResult", await self._call("logs/read", request))

    async def fetch_entry(self, request: api.FetchEntry) -> api.EntryPart:
        """Fetches a part of a large entry (D-REC-7)."""
        return cast("api.EntryPart", await self._call("logs/entry", request))

    async def fetch_chunks(self, request: api.FetchChunks) -> api.Chunks:
        """Fetches chunks of group state (D-CHK-5)."""
        return cast("api.Chunks", await self._call("chunks/fetch", request))

    async def put_chunks(self, request: api.PutChunksRequest) -> api.PutChunksResult:
        """Uploads or renews chunks (D-CHK-7)."""
        return cast("api.PutChunksResult", await self._call("chunks/put", request))

    async def post_request(self, request: api.PostRequest) -> api.Posted:
        """Puts a request into a box (D-BOX-1)."""
        return cast("api.Posted", await self._call("boxes/post", request))

    async def read_box(self, request: api.ReadBox) -> api.ReadBoxResult:
        """Reads the boxes of an epoch and its ancestors (D-BOX-3)."""
        return cast("api.ReadBoxResult", await self._call("boxes/read", request))

    async def open_inbox(self, request: api.OpenInbox) -> api.Done:
        """Opens an inbox (D-INB-2)."""
        return cast("api.Done", await self._call("inboxes/open", request))

    async def mint_tickets(self, request: api.MintTickets) -> api.Done:
        """Mints tickets for the own inbox (D-INB-4)."""
        return cast("api.Done", await self._call("inboxes/mint", request))

    async def post_envelope(self, request: api.PostEnvelope) -> api.Done:
        """Puts an envelope into an inbox (D-INB-3)."""
        return cast("api.Done", await self._call("inboxes/post", request))

    async def read_inbox(self, request: api.ReadInbox) -> api.ReadInboxResult:
        """Reads the own inbox (D-INB-9)."""
        return cast("api.ReadInboxResult", await self._call("inboxes/read", request))

    async def ack_inbox(self, request: api.AckInbox) -> api.Done:
        """Deletes envelopes from the own inbox (D-INB-9)."""
        return cast("api.Done", await self._call("inboxes/ack", request))

    async def publish(self, request: api.Publish) -> api.PublishResult:
        """Publishes key packages (D-DIR-1)."""
        return cast("api.PublishResult", await self._call("directory/publish", request))

    async def withdraw(self, request: api.Withdraw) -> api.PublishResult:
        """Withdraws key packages (D-DIR-8)."""
        return cast("api.PublishResult", await self._call("directory/withdraw", request))

    async def claim(self, request: api.Claim) -> api.ClaimResult:
        """Claims a key package of each device of a user (D-DIR-3)."""
        return cast("api.ClaimResult", await self._call("directory/claim", request))
