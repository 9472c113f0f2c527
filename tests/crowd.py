"""Users who are in a group and do nothing: certificates, inboxes and key packages, without a client behind them."""

from __future__ import annotations

import hashlib
import secrets

from coterie.authentication.settings import Settings
from coterie.client.identity import Identity, SigningKey, StoredIdentity
from coterie.identity.names import DeviceId, UserId
from coterie.mls.credential import Certificate
from coterie.mls.crypto import suite_of
from coterie.mls.framing import MLSMessage
from coterie.mls.secret import Secret
from coterie.transport import api
from coterie.transport.client import DeliveryClient
from coterie.transport.memory import MemoryCarrier
from tests.client_world import REALM, World


def extra(world: World, name: str) -> Identity:
    """The identity of a user who exists in certificates only."""
    suite = suite_of(1)
    key = suite.generate_signature_key(secrets.token_bytes)
    device = hashlib.sha256(name.encode()).hexdigest()[:32]
    der = world.authority.issue(
        DeviceId(UserId(name, REALM), device),
        SigningKey(key).signature_key,
        now=world.now,
        lifetime=Settings().certificate_lifetime,
    )
    stored = StoredIdentity(
        b"http://services",
        name.encode(),
        REALM.encode(),
        device.encode(),
        int(suite.cipher_suite),
        world.authentication.realm_info().anchors,
        (Certificate(der),),
        key.private_bytes(),
        bytes(32),
        secrets.token_bytes(32),
        Secret(secrets.token_bytes(32)),
    )
    return Identity(stored)


async def crowd(world: World, count: int, prefix: str = "extra") -> list[str]:
    """So many users whose key packages can be claimed; their names."""
    delivery = DeliveryClient(MemoryCarrier(world.delivery))
    names = [f"{prefix}{number}" for number in range(count)]
    for name in names:
        identity = extra(world, name)
        stored = identity.stored
        await delivery.open_inbox(api.OpenInbox(stored.inbox_id, api.sha256(stored.inbox_token)))
        package = identity.new_package(world.now)
        message = MLSMessage.of(package.bundle.key_package).encode()
        await delivery.publish(
            api.Publish(
                api.DeliveryVersion.COTERIE1,
                identity.user.encode(),
                stored.inbox_id,
                bytes(stored.inbox_token),
                (api.KeyPackageMessage(message),),
            )
        )
    return names
