"""Posting into the inboxes of a user's devices what is no Welcome: requests and calls (D-BOX-8, D-BOX-14)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from coterie.client.identity import read_key_package, seal_envelope
from coterie.errors import CoterieError, ServiceError
from coterie.mls.crypto import suite_of
from coterie.mls.types import CipherSuite
from coterie.transport import api
from coterie.transport.refusal import Refused

if TYPE_CHECKING:
    from coterie.client.place import Tools


async def post_to(
    tools: Tools,
    user: str,
    cipher_suite: int,
    envelope: api.EnvelopeContent,
    client: bytes | None = None,
) -> int:
    """Posts an envelope to each device of a user, or to one client only; to how many.

    Raises `ServiceError` where the service is away. What the directory gives is verified first: it must not learn by
    a package of its own what is inside.
    """
    suites = (CipherSuite(cipher_suite),)
    claim = api.Claim(api.DeliveryVersion.COTERIE1, user.encode(), suites)
    try:
        claimed = await tools.inboxes.claim(claim)
    except Refused:
        return 0
    posted = 0
    for one in claimed.packages:
        try:
            post = _sealed(tools, user, one, envelope, client)
        except CoterieError:
            tools.count("key packages that are none")
            continue
        if post is None:
            continue
        # One who cannot be asked keeps nobody from being asked who can.
        with suppress(Refused):
            await tools.inboxes.post_envelope(post)
            posted += 1
    return posted


def _sealed(
    tools: Tools,
    user: str,
    claimed: api.Claimed,
    envelope: api.EnvelopeContent,
    client: bytes | None,
) -> api.PostEnvelope | None:
    """The envelope for who made a package; None where that is another client than is meant."""
    package, authenticator = read_key_package(claimed.key_package), tools.config.authenticator
    package.validate(suite_of(package.cipher_suite), authenticator, now=tools.clock())
    credential = package.leaf_node.credential
    if tools.identity.user_of_credential(credential) != user:
        msg = "the directory gave a key package of somebody else than was asked for"
        raise ServiceError(msg, rule="D-DIR-3")
    if client is not None and authenticator.client_id(credential) != client:
        return None
    return seal_envelope(package, claimed.ticket, envelope)
