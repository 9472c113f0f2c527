"""From content to a message in one of the two formats (RFC 9420 §6), and the memory of what was sent."""

from __future__ import annotations

from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    protect_public,
)
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing
from coterie.mls.private_message import protect_private, ratchet_of
from coterie.mls.types import ContentType


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
