"""From content to a message in one of the two formats (RFC 9420 §6), and the memory of what was sent."""

from __future__ import annotations

from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    encode_member_content,
    protect_public,
    sign_data,
)
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing
from coterie.mls.private_message import PrivateHead, protect_private, ratchet_of, seal_private
from coterie.mls.secret_tree import RatchetKind
from coterie.mls.tls import encode_opaque
from coterie.mls.types import ContentType, ProtocolVersion, WireFormat


def send(
    epoch: Epoch,
    keys: KeyRing,
    config: Config,
    content: FramedContent,
    auth: FramedContentAuthData,
) -> MLSMessage:
    """Frames signed content of this member; a private message burns a generation of the own ratchet."""
    kind = content.content_type
    if kind == ContentType.APPLICATION or config.limits.private_handshakes:
        body = _private(epoch, keys, config, content, auth)
    else:
        body = protect_public(
            epoch.suite, content, auth, epoch.context, epoch.secrets.membership_key
        )
    message = MLSMessage.of(body)
    keys.remember_own(message.encode(), epoch.number, kind)
    return message


def send_data(
    epoch: Epoch, keys: KeyRing, config: Config, data: bytes, authenticated_data: bytes
) -> MLSMessage:
    """Signs and frames application data (§15), as `send` does with content.

    Most messages of a group are these. Nobody looks at the structs inside, so what is signed and encrypted is put
    together from bytes: that is a fifth of what a message costs.
    """
    suite, context, leaf = epoch.suite, epoch.context, epoch.private.leaf
    head = PrivateHead(context.group_id, context.epoch, ContentType.APPLICATION, authenticated_data)
    body = encode_opaque(data)
    content = encode_member_content(
        head.group_id, head.epoch, leaf, authenticated_data, ContentType.APPLICATION, body
    )
    signature = sign_data(suite, epoch.signature_key, content, context)
    private = seal_private(
        suite,
        keys.next_sending(leaf, RatchetKind.APPLICATION),
        epoch.secrets.sender_data_secret,
        head,
        body + encode_opaque(signature),
        config.limits.padding,
        config.rng,
    )
    raw = b"\x00\x01\x00\x02" + private.encode()
    keys.remember_own(raw, context.epoch, ContentType.APPLICATION)
    return MLSMessage.assembled(raw, ProtocolVersion.MLS10, WireFormat.MLS_PRIVATE_MESSAGE, private)


def _private(
    epoch: Epoch,
    keys: KeyRing,
    config: Config,
    content: FramedContent,
    auth: FramedContentAuthData,
) -> PrivateMessage | PublicMessage:
    return protect_private(
        epoch.suite,
        keys.next_sending(epoch.leaf, ratchet_of(content.content_type)),
        epoch.secrets.sender_data_secret,
        content,
        auth,
        config.limits.padding,
        config.rng,
    )
