"""From a message to verified content (RFC 9420 §6, §12.1): every check that comes before acting on it."""

from __future__ import annotations

from coterie.errors import DecodeError, DecryptionError, EpochError, RuleViolation
from coterie.mls.extension import check_extension_list
from coterie.mls.framing import (
    FramedContent,
    MLSMessage,
    PrivateMessage,
    PublicMessage,
    VerifiedContent,
    unprotect_public,
    verify_content,
)
from coterie.mls.group.config import Config
from coterie.mls.group.epoch import Epoch
from coterie.mls.group.past import KeyRing, MessageEpoch
from coterie.mls.group.results import ApplicationMessage, Member, OwnMessage
from coterie.mls.group_context import GroupContext
from coterie.mls.private_message import open_private, open_sender_data
from coterie.mls.proposal import (
    Add,
    Commit,
    ExternalInit,
    GroupContextExtensions,
    PreSharedKey,
    Proposal,
    ReInit,
    Remove,
    Update,
)
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.rules import Rule
from coterie.mls.tree_index import Counters
from coterie.mls.types import ContentType, SenderType
from coterie.mls.validation import PublicState, check_proposal_sender
from coterie.mls.validation.commit import check_add, check_external_senders, check_update
from coterie.mls.validation.proposal_list import check_custom_type, check_psk, check_reinit


class Opener:
    """Opens messages with the keys of a group."""

    def __init__(self, keys: KeyRing, config: Config) -> None:
        self._keys = keys
        self._config = config

    def open(
        self, present: Epoch, message: MLSMessage, *, now: int | None
    ) -> ApplicationMessage | VerifiedContent | OwnMessage:
        """Opens and verifies a message; the key of a private one is consumed then and only then."""
        body = message.body
        if not isinstance(body, PublicMessage | PrivateMessage):
            msg = f"a {type(body).__name__} is not a message within a group"
            raise DecodeError(msg, rule=Rule.ENUM_VALUE)
        frame = body.content if isinstance(body, PublicMessage) else body
        if frame.group_id != present.context.group_id:
            msg = f"the message is for group {frame.group_id.hex()}, this is {present!r}"
            raise RuleViolation(msg, rule=Rule.GROUP_ID)
        keys = self._keys.of_epoch(frame.epoch)
        if keys is None or (frame.epoch != present.number and not _is_data(body)):
            own = self._keys.own_message(message)
            if own is not None:
                return OwnMessage(*own)
            raise _wrong_epoch(frame.epoch, present.number)
        if isinstance(body, PublicMessage):
            return self._open_public(present, message, body)
        return self._open_private(present, keys, message, body, now)

    def _own(self, message: MLSMessage) -> OwnMessage:
        """The echo of an own message; raises where it is in one's own name and not one's own."""
        own = self._keys.own_message(message)
        if own is None:
            msg = "a message in this member's name that this client did not make, or does not remember"
            raise DecryptionError(msg, rule=Rule.OWN_MESSAGE_UNKNOWN)
        return OwnMessage(*own)

    def _open_public(
        self, present: Epoch, message: MLSMessage, body: PublicMessage
    ) -> VerifiedContent | OwnMessage:
        suite, context = present.suite, present.context
        key = sender_key(body.content, present.tree, context)
        content = unprotect_public(suite, body, context, present.secrets.membership_key)
        verified = verify_content(suite, content, key, context)
        if body.content.sender == present.sender:
            return self._own(message)
        return verified

    def _open_private(
        self,
        present: Epoch,
        keys: MessageEpoch,
        message: MLSMessage,
        body: PrivateMessage,
        now: int | None,
    ) -> ApplicationMessage | VerifiedContent | OwnMessage:
        suite = present.suite
        sender = open_sender_data(suite, body, keys.sender_data_secret)
        leaf = keys.tree.member(sender.leaf_index, rule=Rule.SENDER_DATA_LEAF)
        if sender.leaf_index == present.leaf:
            return self._own(message)
        opened = open_private(suite, body, sender, keys.secret_tree)
        content = verify_content(suite, opened.content, leaf.signature_key, keys.context)
        keys.secret_tree.consume(opened.key, now or 0)
        data = content.content.body
        if not isinstance(data, bytes):
            return content
        return ApplicationMessage(
            Member(sender.leaf_index, leaf),
            body.epoch,
            sender.generation,
            data,
            body.authenticated_data,
        )

    def check_proposal(
        self, present: Epoch, index: Counters, content: VerifiedContent, *, now: int | None
    ) -> None:
        """Raises where a proposal is invalid by itself (§12.1)."""
        check_single_proposal(present.public(index), content, self._config, now=now)


def check_single_proposal(
    state: PublicState, content: VerifiedContent, config: Config, *, now: int | None
) -> None:
    """Raises where a proposal is invalid by itself, whatever else is committed with it (§12.1)."""
    proposal, sender, policy = content.content.body, content.sender, config.policy()
    assert isinstance(proposal, Proposal)
    check_proposal_sender(proposal, sender, policy.custom)
    body, suite = proposal.content, state.suite
    match body:
        case Add():
            check_add(state, body, policy, now=now)
        case Update():
            if sender.leaf_index is not None:
                check_update(state, sender.leaf_index, body, policy, now=now)
        case Remove():
            state.tree.member(body.removed, rule=Rule.REMOVE_BLANK)
        case PreSharedKey():
            check_psk(body.psk, suite.hash_length, None)
        case ReInit():
            check_reinit(body, state.context.version)
        case ExternalInit():
            msg = "an ExternalInit outside of an external Commit"
            raise RuleViolation(msg, rule=Rule.LIST_EXTERNAL_INIT)
        case GroupContextExtensions():
            check_extension_list(body.extensions)
            check_external_senders(
                body.extensions, state.context.extensions, policy.authenticator, now=now
            )
        case bytes():
            check_custom_type(proposal.proposal_type, policy.custom)


def sender_key(content: FramedContent, tree: RatchetTree, context: GroupContext) -> bytes:
    """The signature key with which content of this sender must be signed (§6.1).

    Raises `RuleViolation` where the sender is nobody, or may not send such content.
    """
    sender, body = content.sender, content.body
    kind = sender.sender_type
    if kind == SenderType.MEMBER:
        return tree.member(sender.leaf_index or 0, rule=Rule.SENDER_BLANK).signature_key
    if kind == SenderType.EXTERNAL:
        if content.content_type != ContentType.PROPOSAL:
            msg = "an external sender sent something else than a proposal"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_SENDER_CONTENT)
        listed = context.external_senders()
        index = sender.sender_index or 0
        if listed is None or index >= len(listed.external_senders):
            msg = f"external sender {index} is not listed by the group"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_SENDER_INDEX)
        return listed.external_senders[index].signature_key
    if kind == SenderType.NEW_MEMBER_COMMIT:
        if not isinstance(body, Commit):
            msg = "a new member's message that should be a Commit is none"
            raise RuleViolation(msg, rule=Rule.NEW_MEMBER_CONTENT)
        if body.path is None:
            msg = "an external Commit without a path"
            raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_PATH)
        return body.path.leaf_node.signature_key
    if not isinstance(body, Proposal) or not isinstance(body.content, Add):
        msg = "a new member's message that should propose its Add does not"
        raise RuleViolation(msg, rule=Rule.NEW_MEMBER_CONTENT)
    return body.content.key_package.leaf_node.signature_key


def _is_data(body: PublicMessage | PrivateMessage) -> bool:
    return isinstance(body, PrivateMessage) and body.content_type == ContentType.APPLICATION


def _wrong_epoch(epoch: int, present: int) -> EpochError:
    stale = epoch < present
    msg = (
        f"the message is of epoch {epoch}, which is over (the group is in {present})"
        if stale
        else f"the message is of epoch {epoch}, the group is in {present}: catch up first"
    )
    return EpochError(msg, rule=Rule.EPOCH, stale=stale)
