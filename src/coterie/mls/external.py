"""Proposals from outside of a group (RFC 9420 §12.1.8): by a client that wants in, by a listed external sender.

Nothing here needs a secret of the group: what must be known of it are its id and epoch, from a GroupInfo or a
`PublicGroup`. The messages are public and have no membership tag.
"""

from __future__ import annotations

from coterie.errors import StateError
from coterie.mls.crypto import SignaturePrivateKey, suite_of
from coterie.mls.framing import (
    FramedContent,
    FramedContentAuthData,
    MLSMessage,
    protect_public,
    sign_content,
)
from coterie.mls.group_context import GroupContext
from coterie.mls.key_package import KeyPackage
from coterie.mls.proposal import EXTERNAL_SENDER_TYPES, Add, Proposal
from coterie.mls.types import (
    DEFAULT_PROPOSAL_TYPES,
    ContentType,
    Sender,
    SenderType,
    WireFormat,
)


def new_member_add(
    context: GroupContext,
    package: KeyPackage,
    signature_key: SignaturePrivateKey,
    *,
    authenticated_data: bytes = b"",
) -> MLSMessage:
    """A message in which a client proposes to add itself by its own key package (§12.1.8).

    `signature_key` is that of the key package's leaf. A member must commit it. Raises `StateError` where the key or
    the cipher suite is another one.
    """
    if signature_key.public != package.leaf_node.signature_key:
        msg = "a new member signs its Add with the signature key of its key package"
        raise StateError(msg)
    if package.cipher_suite != context.cipher_suite:
        msg = f"the group has cipher suite {int(context.cipher_suite)}, the key package another one"
        raise StateError(msg)
    sender = Sender(SenderType.NEW_MEMBER_PROPOSAL)
    proposal = Proposal.of(Add(package))
    return _propose(context, sender, proposal, signature_key, authenticated_data)


def external_proposal(
    context: GroupContext,
    proposal: Proposal,
    signature_key: SignaturePrivateKey,
    *,
    authenticated_data: bytes = b"",
) -> MLSMessage:
    """A message in which an external sender proposes something (§12.1.8.1).

    The sender must be listed in the group's `external_senders` with the public half of `signature_key`; its place there
    goes into the message. Raises `StateError` where it is not listed, or may not propose this.
    """
    kind = proposal.proposal_type
    if kind in DEFAULT_PROPOSAL_TYPES and kind not in EXTERNAL_SENDER_TYPES:
        msg = f"an external sender may not propose {kind.name.lower()}"
        raise StateError(msg)
    listed = context.external_senders()
    keys = [] if listed is None else [s.signature_key for s in listed.external_senders]
    if signature_key.public not in keys:
        msg = "this signature key is not among the group's external senders"
        raise StateError(msg)
    sender = Sender(SenderType.EXTERNAL, sender_index=keys.index(signature_key.public))
    return _propose(context, sender, proposal, signature_key, authenticated_data)


def _propose(
    context: GroupContext,
    sender: Sender,
    proposal: Proposal,
    signature_key: SignaturePrivateKey,
    authenticated_data: bytes,
) -> MLSMessage:
    suite = suite_of(context.cipher_suite)
    content = FramedContent(
        context.group_id, context.epoch, sender, authenticated_data, ContentType.PROPOSAL, proposal
    )
    signature = sign_content(suite, signature_key, WireFormat.MLS_PUBLIC_MESSAGE, content, context)
    auth = FramedContentAuthData(signature)
    return MLSMessage.of(protect_public(suite, content, auth, context, None))
