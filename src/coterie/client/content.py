"""What members say to each other inside a group: messages, and what all agree on about the group.

`Content` is the application data of an MLS message; its id is signed with it, so that what arrives twice is shown once
(RFC 9750, replay by insiders). `GroupProfile` stands in the GroupContext, where every member has the same one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, NoReturn, Protocol

from coterie.errors import DecodeError, RuleViolation, StateError
from coterie.mls.credential import Credential
from coterie.mls.extension import Extension
from coterie.mls.group_context import GroupContext
from coterie.mls.proposal import Add, GroupContextExtensions, ReInit, Remove
from coterie.mls.ratchet_tree import RatchetTree
from coterie.mls.tls import Fixed, Struct, Uint, Uint8Enum
from coterie.mls.types import ExtensionType
from coterie.mls.validation import ProposalList
from coterie.transport import api

PROFILE_EXTENSION = ExtensionType(0xF0C0)
BINDING_EXTENSION = ExtensionType(api.BINDING_EXTENSION)
INBOX_EXTENSION = ExtensionType(api.INBOX_EXTENSION)
EXTENSION_TYPES = (PROFILE_EXTENSION, BINDING_EXTENSION, INBOX_EXTENSION)

MAX_SEEN = 500
"""How many texts one statement says to have been shown."""
GROUP_ID = 32
"""How many bytes a group's id has."""
MAX_NAME = 200
"""The longest name of a group, in bytes of UTF-8."""


LATEST = 253_402_128_000
"""The latest time that a text may claim, two days before the year 10000: later ones have no date, and the greatest
cannot be stored."""


def utf8(text: str) -> bytes:
    """The text as it is sent; raises `StateError` where it is none, as what is read of bytes in another encoding."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        msg = f"this is no text that can be sent: {text[:40]!a} has parts that are not Unicode characters"
        raise StateError(msg) from None


def check_name(name: str) -> None:
    """Raises `StateError` for a name that no group can have."""
    size = len(utf8(name))
    if not name.strip():
        msg = "a group needs a name"
        raise StateError(msg)
    if size > MAX_NAME:
        msg = f"a group's name has at most {MAX_NAME} bytes, this one has {size}"
        raise StateError(msg)


def check_retention(seconds: int) -> None:
    """Raises `StateError` for a time for which no log can keep entries; services have bounds of their own."""
    if not 0 < seconds < 1 << 32:
        msg = f"a group's log keeps entries for 1 to {(1 << 32) - 1} seconds, not for {seconds}"
        raise StateError(msg)


class ContentType(Uint8Enum):
    """What a message is."""

    TEXT = 1
    SEEN = 2


class Content(Struct):
    """A message: `body` is UTF-8 text, or the ids of messages that were seen, 16 bytes each."""

    message_id: Annotated[bytes, Fixed(16)]
    sent_at: Annotated[int, Uint(8)]
    content_type: ContentType
    body: bytes

    @classmethod
    def text(cls, text: str, now: int) -> Content:
        """A text with a fresh id; `StateError` for what is no text."""
        return cls(secrets.token_bytes(16), now, ContentType.TEXT, utf8(text))

    @classmethod
    def seen(cls, message_ids: Sequence[bytes], now: int) -> Content:
        """The statement that texts were shown, by their ids."""
        return cls(secrets.token_bytes(16), now, ContentType.SEEN, b"".join(message_ids))

    def seen_ids(self) -> list[str]:
        """The ids of the texts that were shown, as many as one statement may name."""
        body = self.body[: 16 * MAX_SEEN]
        return [body[n : n + 16].hex() for n in range(0, len(body) - 15, 16)]


class WhoMay(Uint8Enum):
    """Who may do a thing."""

    MEMBERS = 1
    ADMINS = 2


class Links(Uint8Enum):
    """What a link to the group is good for (D-BOX-5, D-BOX-6)."""

    OFF = 1
    """Nothing: requests that come by links are passed over."""
    ASK = 2
    """Who has one may ask, and those who may add decide."""
    OPEN = 3
    """Who has one and asks is added at once, by the client of somebody who may add."""


DAY = 24 * 3600


class GroupProfile(Struct):
    """The group's name and rules, agreed by all members (in the GroupContext).

    `admins` are users as `name@realm` in UTF-8; only they may change the profile, and do what the rules keep for them.
    Where no administrator is left in the group, everybody may.
    """

    name: bytes
    admins: tuple[bytes, ...]
    may_add: WhoMay = WhoMay.ADMINS
    may_remove: WhoMay = WhoMay.ADMINS
    may_rename: WhoMay = WhoMay.MEMBERS
    links: Links = Links.OFF
    links_since: Annotated[int, Uint(8)] = 0
    """The epoch from which on links are good; those made before are revoked."""
    receipts: Annotated[int, Uint(1)] = 0
    """1 where members are asked to say which texts they have shown."""
    replace_after: Annotated[int, Uint(4)] = 14 * DAY
    """After how many seconds a member that never appeared is replaced (D-INB-8); 0 for never."""
    evict_after: Annotated[int, Uint(4)] = 0
    """After how many seconds without new keys a device is removed; 0 for never."""

    def is_admin(self, user: str) -> bool:
        """Whether a user (`name@realm`) is an administrator."""
        return user.encode() in self.admins

    def only_admins(self) -> str:
        """Who may what others may not, for an error."""
        names = ", ".join(admin.decode(errors="replace") for admin in self.admins)
        return f"only administrators may ({names})"

    def extension(self) -> Extension:
        """The GroupContext extension that carries it."""
        return Extension(PROFILE_EXTENSION, self.encode())


def read_profile(extensions: tuple[Extension, ...]) -> GroupProfile:
    """The profile of a group; raises `DecodeError` where there is none."""
    for extension in extensions:
        if extension.extension_type == PROFILE_EXTENSION:
            return GroupProfile.decode(extension.extension_data)
    msg = "the group has no profile: it was not made by Coterie's client"
    raise DecodeError(msg, rule="profile/missing")


def read_binding(extensions: tuple[Extension, ...]) -> api.DeliveryBinding:
    """The log that a group is bound to; raises `DecodeError` where there is none (D-ACC-9)."""
    for extension in extensions:
        if extension.extension_type == BINDING_EXTENSION:
            return api.DeliveryBinding.decode(extension.extension_data)
    msg = "the group is bound to no log"
    raise DecodeError(msg, rule="D-ACC-9")


def lacking_suite(tree: RatchetTree, cipher_suite: int) -> list[int]:
    """The leaves whose capabilities do not list a cipher suite."""
    return [
        int(leaf)
        for leaf, node in tree.members()
        if cipher_suite not in node.capabilities.cipher_suites
    ]


class UserOf(Protocol):
    """Names the user of a leaf."""

    def user_of(self, tree: RatchetTree, leaf: int) -> str:
        """`name@realm` of the member at a leaf."""

    def user_of_credential(self, credential: Credential) -> str:
        """`name@realm` that a credential names."""

    def client_id(self, credential: Credential) -> bytes:
        """What all credentials of one device share."""


class ProfileRules:
    """Judges Commits by the group's profile and binding, alike for every member (D-VAL-5)."""

    def __init__(self, names: UserOf) -> None:
        self._names = names

    def check_commit(
        self,
        before: GroupContext,
        tree: RatchetTree,
        committer: int | None,
        proposals: ProposalList,
    ) -> None:
        """Raises `RuleViolation` for what the group's rules do not allow."""
        if committer is None:
            self._refuse("external-commit", "this group takes no external Commits")
        profile = read_profile(before.extensions)
        returning = self._returning(tree, proposals)
        for entry in proposals.all:
            leaf = entry.sender.leaf_index
            if leaf is None:
                self._refuse("outside-proposal", "this group takes no proposals from outside")
            user = self._names.user_of(tree, leaf)
            content = entry.proposal.content
            if isinstance(content, Add) and not self.may(profile.may_add, profile, tree, user):
                credential = content.key_package.leaf_node.credential
                # A user's devices belong together: who is in the group brings the others.
                own = self._names.user_of_credential(credential) == user
                if not own and self._names.client_id(credential) not in returning:
                    self._refuse("may-add", f"{user} may not add members: {profile.only_admins()}")
            if isinstance(content, Remove):
                own = self._names.user_of(tree, content.removed) == user
                back = self._client(tree, content.removed) in returning
                if not (own or back or self.may(profile.may_remove, profile, tree, user)):
                    what = f"{user} may not remove members: {profile.only_admins()}"
                    self._refuse("may-remove", what)
            if isinstance(content, ReInit):
                self._check_reinit(before, tree, content, user)
            elif isinstance(content, GroupContextExtensions):
                self._check_extensions(before, tree, content.extensions, user)

    def may(self, who: WhoMay, profile: GroupProfile, tree: RatchetTree, user: str) -> bool:
        """Whether a user is among those who may; everybody is where no administrator is left in the group."""
        if who == WhoMay.MEMBERS or profile.is_admin(user):
            return True
        return not any(profile.is_admin(self._names.user_of(tree, n)) for n, _ in tree.members())

    def _client(self, tree: RatchetTree, leaf: int) -> bytes | None:
        node = tree.leaf(leaf)
        return None if node is None else self._names.client_id(node.credential)

    def _returning(self, tree: RatchetTree, proposals: ProposalList) -> set[bytes]:
        """Clients that are removed and added by the same Commit: coming back needs no right (D-BOX-7)."""
        added = {
            self._names.client_id(add.key_package.leaf_node.credential) for add, _ in proposals.adds
        }
        removed = {self._client(tree, leaf) for leaf in proposals.removes}
        return {client for client in added if client in removed}

    def _check_extensions(
        self, before: GroupContext, tree: RatchetTree, after: tuple[Extension, ...], user: str
    ) -> None:
        old, new = read_binding(before.extensions), read_binding(after)
        if old != new.replace(version=old.version, service=old.service):
            # The receipt key, too: who pins another one takes the same receipts for forged that others hold for good.
            self._refuse("binding", "a group stays with its log")
        profile, changed = read_profile(before.extensions), read_profile(after)
        if len(changed.name) > MAX_NAME:
            self._refuse("name-length", f"a group's name has at most {MAX_NAME} bytes")
        if not changed.admins:
            self._refuse("no-admin", "a group has an administrator")
        renamed_only = changed.replace(name=profile.name) == profile and old == new
        who = profile.may_rename if renamed_only else WhoMay.ADMINS
        if not self.may(who, profile, tree, user):
            what = f"{user} may not change the group's rules: {profile.only_admins()}"
            self._refuse("may-change", what)

    def _check_reinit(
        self, before: GroupContext, tree: RatchetTree, reinit: ReInit, user: str
    ) -> None:
        """What an announced group must be, so that all members can follow (D-SUC-8)."""
        profile = read_profile(before.extensions)
        if not self.may(WhoMay.ADMINS, profile, tree, user):
            what = f"{user} may not end the group for another one: {profile.only_admins()}"
            self._refuse("may-reinit", what)
        old, new = read_binding(before.extensions), read_binding(reinit.extensions)
        origin = new.predecessor
        if (
            origin is None
            or origin.predecessor_type != api.PredecessorType.REINIT
            or (origin.group_id, origin.log_id) != (before.group_id, old.log_id)
        ):
            self._refuse("reinit-origin", "the announced group does not name the one it follows")
        if reinit.group_id == before.group_id or new.log_id == old.log_id:
            self._refuse("reinit-new", "the announced group has the old one's id or log")
        if len(reinit.group_id) != GROUP_ID:
            self._refuse("reinit-id", f"the id of the announced group has not {GROUP_ID} bytes")
        if (new.service, new.receipt_key) != (old.service, old.receipt_key):
            self._refuse("reinit-service", "a group stays with its service")
        if len(read_profile(reinit.extensions).name) > MAX_NAME:
            self._refuse("name-length", f"a group's name has at most {MAX_NAME} bytes")
        if lacking := lacking_suite(tree, reinit.cipher_suite):
            users = ", ".join(sorted({self._names.user_of(tree, leaf) for leaf in lacking}))
            msg = f"not all devices can use cipher suite {int(reinit.cipher_suite)}: {users}"
            self._refuse("reinit-suite", msg)

    @staticmethod
    def _refuse(slug: str, message: str) -> NoReturn:
        raise RuleViolation(message, rule=f"profile/{slug}")
