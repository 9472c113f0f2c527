"""The client's storage in the client's words: one `Step` is one transaction (principle 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from coterie.client.chunks import SharedState
from coterie.client.content import Content
from coterie.client.identity import Identity, Package, StoredAttempt, StoredIdentity
from coterie.client.intents import Intent, IntentKind, Invitation, WelcomeSlice
from coterie.client.keeping import KeepingStep, KeepingView
from coterie.client.line import Line, LineState
from coterie.client.notes import StepNotes, VaultNotes
from coterie.client.trail import PASSED, Passed, Trail
from coterie.errors import StateError
from coterie.mls.group import Config, Delta, Group
from coterie.mls.tls import Struct, Uint
from coterie.storage import Message, MessageState, Transaction, View
from coterie.storage.view import SpaceReader
from coterie.transport import api

_CLIENT = "client"
_CONVERSATIONS = "conversations"
_PACKAGES = "packages"
_LINES = "lines"
_LAZY = (b"n/", b"i/")
_PAGE = 200
_ALL = 1 << 62
_IDENTITY = b"identity"
_ATTEMPT = b"attempt"
_BOXES = "boxes"
_OPEN = bytes(8)
"""The time at which an epoch was left that was not."""
_NUMBER = 8
_EVIDENCE = "evidence"
_BOX_CURSOR = b"box-cursor/"
_BOX_LOOK = b"box-look/"
_REQUESTED = b"requested/"
_ADDED = b"added/"
_REVOCATIONS = b"revocations"
_RENEWAL = b"renewal/"
_READ = b"read/"
_READING = b"reading/"
_STATE_DUE = b"state-due/"
_STATE_RENEWED = b"state-renewed/"
_INVITATIONS = "invitations"


class StoredConversation(Struct):
    """What is known of a conversation besides its group and its line."""

    name: bytes
    status: bytes
    """active, creating, moving, left, stuck or stopped."""
    why: bytes
    joined_at: Annotated[int, Uint(8)]
    create: api.CreateLogRequest | None = None


def _group_space(conversation: str) -> str:
    return f"group/{conversation}"


def _passed_space(conversation: str) -> str:
    return f"passed/{conversation}"


def _trail_space(conversation: str) -> str:
    return f"receipts/{conversation}"


def _state_space(conversation: str) -> str:
    return f"state/{conversation}"


def _chunk_space(conversation: str) -> str:
    return f"chunks/{conversation}"


def _welcome_space(conversation: str, intent_id: int) -> str:
    return f"welcomes/{conversation}/{intent_id}"


class Step(StepNotes, KeepingStep):
    """One transaction."""

    def __init__(self, tx: Transaction, reader: Callable[[str], SpaceReader]) -> None:
        super().__init__(tx)
        self._reader = reader

    # -- the device

    def save_identity(self, stored: StoredIdentity) -> None:
        """Keeps the enrolment."""
        self._tx.put(_CLIENT, _IDENTITY, stored.encode())
        self._tx.delete(_CLIENT, _ATTEMPT)

    def save_attempt(self, attempt: StoredAttempt) -> None:
        """Keeps with which key this device is being enrolled."""
        self._tx.put(_CLIENT, _ATTEMPT, attempt.encode())

    def save_revocations(self, der: bytes) -> None:
        """Keeps the newest list of revoked certificates."""
        self._tx.put(_CLIENT, _REVOCATIONS, der, secret=False)

    def set_next_renewal(self, conversation: str, at: int) -> None:
        """When this device's keys in the group are to be replaced."""
        self._tx.put(_CLIENT, _RENEWAL + conversation.encode(), b"%d" % at)

    def add_package(self, package: Package) -> None:
        """Keeps a key package that will be published."""
        self._tx.put(_PACKAGES, package.reference, package.stored())

    def remove_package(self, reference: bytes) -> None:
        """Deletes a key package's private keys: it was used, or has expired."""
        self._tx.delete(_PACKAGES, reference)

    # -- conversations

    def begin(self, conversation: str, entry: StoredConversation) -> None:
        """A conversation that this device makes or enters."""
        self._tx.put(_CONVERSATIONS, conversation.encode(), entry.encode())

    def save_group(self, conversation: str, group: Group) -> None:
        """What the group's last step changed."""
        self._tx.apply(_group_space(conversation), group.save())

    def save_line(self, conversation: str, line: Line) -> None:
        """The group's changes and the place in the log."""
        self.save_group(conversation, line.group)
        space = _state_space(conversation)
        for key, value in line.shared.take_changes().items():
            if value is None:
                self._tx.delete(space, key)
            else:
                self._tx.put(space, key, value)
        self._tx.put(_LINES, conversation.encode(), line.state.encode())
        self._save_trail(_trail_space(conversation), line.trail)

    def _save_trail(self, space: str, trail: Trail) -> None:
        if trail.begins:
            self._tx.delete_space(space)
        puts, drops = trail.unsaved()
        self._tx.apply(space, Delta(puts, drops), public=(b"",))
        trail.saved(self._reader(space).get)

    def add_passed(self, conversation: str, epoch: int, passed: Passed) -> None:
        """Remembers an epoch that was left by the number `epoch`, and forgets what is too much."""
        space = _passed_space(conversation)
        self._tx.put(space, epoch.to_bytes(8), passed.encode())
        for key, _ in list(self._tx.scan(space))[:-PASSED]:
            self._tx.delete(space, key)

    def forget_passed(self, conversation: str, before: int) -> None:
        """Forgets the epochs that were left before a time: the service has dropped them."""
        space = _passed_space(conversation)
        for key, value in list(self._tx.scan(space)):
            if Passed.decode(value).left_at < before:
                self._tx.delete(space, key)

    def set_next_reading(self, conversation: str, at: int) -> None:
        """When an older epoch is to be read again."""
        self._tx.put(_CLIENT, _READING + conversation.encode(), b"%d" % at, secret=False)

    def begin_again(self, conversation: str) -> None:
        """Deletes what is left of an earlier membership, before the group is entered anew."""
        self.forget_members(conversation)
        self._tx.delete_space(_group_space(conversation))
        self._tx.delete_space(_passed_space(conversation))
        self._tx.delete_space(_state_space(conversation))
        for intent_id, intent in self.intents(conversation):
            self._tx.update_intent(intent_id, payload=intent.waiting().encode())

    def continue_in(
        self, conversation: str, group_id: bytes, *, reformed: bool, next_group: bool = False
    ) -> None:
        """Another group takes the place of the conversation's: the old one's keys go, the history stays.

        With `next_group` it is the one that was prepared; any other the caller stores.

        What is still wanted is wanted of the new group; of a re-formed one only that texts are sent.
        """
        for space in (_group_space, _passed_space, _trail_space, _state_space):
            self._tx.delete_space(space(conversation))
        self._tx.delete(_LINES, conversation.encode())
        self._remove_boxes(conversation)
        for prefix in (_RENEWAL, _REQUESTED):
            self._tx.delete(_CLIENT, prefix + conversation.encode())
        if next_group:
            self.take_next_group(conversation)
        self.end_succession(conversation)
        for intent_id, intent in self.intents(conversation):
            carried = intent.carried(reformed=reformed)
            if carried is None:
                self.remove_welcomes(conversation, intent_id)
                self._tx.remove_intent(intent_id)
            else:
                self._tx.update_intent(intent_id, payload=carried.encode())
        self.forget_joins(conversation)
        self.link_group(group_id, conversation, present=True)

    def add_box(self, conversation: str, epoch: bytes, box: bytes, number: int) -> None:
        """Keeps the seed of an epoch's request box (D-BOX-4), and the epoch's number."""
        value = _OPEN + number.to_bytes(_NUMBER) + box
        self._tx.put(_BOXES, conversation.encode() + epoch, value)

    def forget_boxes(self, conversation: str, present: bytes, now: int, retention: int) -> None:
        """Deletes the seeds of boxes that the service has dropped: of epochs left before the retention (D-ACC-8).

        An epoch counts as left from the first call on that finds it so.
        """
        key = conversation.encode()
        for name, value in list(self._tx.scan(_BOXES, key)):
            left = int.from_bytes(value[: len(_OPEN)])
            if name == key + present:
                continue
            if not left:
                self._tx.put(_BOXES, name, now.to_bytes(len(_OPEN)) + value[len(_OPEN) :])
            elif left < now - retention:
                self._tx.delete(_BOXES, name)

    def _remove_boxes(self, conversation: str) -> None:
        """Deletes the seeds of all boxes, and how far they were read."""
        for key, _ in list(self._tx.scan(_BOXES, conversation.encode())):
            self._tx.delete(_BOXES, key)
        for prefix in (_BOX_CURSOR, _BOX_LOOK):
            self._tx.delete(_CLIENT, prefix + conversation.encode())

    def set_box_cursor(self, conversation: str, number: int) -> None:
        """Up to where the boxes were read."""
        self._tx.put(_CLIENT, _BOX_CURSOR + conversation.encode(), b"%d" % number)

    def set_box_look(self, conversation: str, now: int) -> None:
        """Notes that the boxes are read from their beginning."""
        self._tx.put(_CLIENT, _BOX_LOOK + conversation.encode(), b"%d" % now, secret=False)

    def save_evidence(self, conversation: str, receipts: bytes) -> None:
        """Keeps two receipts that contradict each other, one after the other."""
        self._tx.put(_EVIDENCE, conversation.encode(), receipts, secret=False)

    def note_added(self, conversation: str, client: bytes, made_at: int) -> None:
        """Notes that a client was added with a key package whose lifetime begins then (D-BOX-7)."""
        newest = max(made_at, _added_with(self._tx, conversation, client))
        self._tx.put(_CLIENT, _added_key(conversation, client), b"%d" % newest, secret=False)

    def set_requested(self, conversation: str, package: bytes, now: int) -> None:
        """Notes that this device asked to be added again."""
        self._tx.put(_CLIENT, _REQUESTED + conversation.encode(), b"%d " % now + package)

    def end(self, conversation: str, why: str) -> None:
        """The device is out: every key of the group goes, the history stays."""
        self._tx.delete_space(_group_space(conversation))
        self._tx.delete(_LINES, conversation.encode())
        self._tx.delete_space(_trail_space(conversation))
        self._tx.delete_space(_passed_space(conversation))
        self._tx.delete_space(_state_space(conversation))
        self._remove_boxes(conversation)
        self.end_succession(conversation)
        for intent_id, intent in self.intents(conversation):
            self.give_up(conversation, intent_id, intent)
        self.forget_joins(conversation)
        self.forget_members(conversation)
        self.set_leaving(conversation, leaving=False)
        self.set_status(conversation, "left", why)

    def set_status(self, conversation: str, status: str, why: str = "") -> None:
        """Whether the device takes part, and why not."""
        entry = _conversation(self._tx, conversation)
        self.begin(
            conversation, entry.replace(status=status.encode(), why=why.encode(), create=None)
        )
        if status == "active":
            self._tx.delete(_CLIENT, _REQUESTED + conversation.encode())

    def set_name(self, conversation: str, name: str) -> None:
        """The group's present name."""
        entry = _conversation(self._tx, conversation)
        if entry.name != name.encode():
            self.begin(conversation, entry.replace(name=name.encode()))

    # -- intents

    def add_intent(self, conversation: str, intent: Intent) -> int:
        """Keeps what is wanted; returns its number."""
        return self._tx.add_intent(conversation.encode(), intent.kind.name.lower(), intent.encode())

    def update_intent(self, intent_id: int, intent: Intent) -> None:
        """Keeps how far it got."""
        self._tx.update_intent(intent_id, payload=intent.encode())

    def remove_intent(self, intent_id: int) -> None:
        """It is done, or wanted no more."""
        self._tx.remove_intent(intent_id)

    def give_up(self, conversation: str, intent_id: int, intent: Intent) -> None:
        """It is not done, and not tried again: a text stays in the history as one that failed."""
        self.remove_welcomes(conversation, intent_id)
        self._tx.remove_intent(intent_id)
        if intent.kind == IntentKind.SEND:
            said = Content.decode(intent.argument)
            self._tx.update_state(conversation.encode(), said.message_id, MessageState.FAILED)

    def intents(self, conversation: str) -> list[tuple[int, Intent]]:
        """What is wanted, in order."""
        return _intents(self._tx, conversation)

    # -- Welcomes on their way

    def add_welcome(
        self, conversation: str, intent_id: int, number: int, piece: WelcomeSlice
    ) -> None:
        """Keeps what one new member gets, until it is posted."""
        space = _welcome_space(conversation, intent_id)
        self._tx.put(space, number.to_bytes(4), piece.encode())

    def remove_welcome(self, conversation: str, intent_id: int, number: int) -> None:
        """It was posted."""
        self._tx.delete(_welcome_space(conversation, intent_id), number.to_bytes(4))

    def remove_welcomes(self, conversation: str, intent_id: int) -> None:
        """Those of one Commit that are left."""
        self._tx.delete_space(_welcome_space(conversation, intent_id))

    # -- the group's state in chunks

    def set_state_due(self, conversation: str, at: int) -> None:
        """When the chunks of the group's state are to be renewed (D-CHK-9)."""
        self._tx.put(_CLIENT, _STATE_DUE + conversation.encode(), b"%d" % at, secret=False)

    def set_state_renewed(self, conversation: str, at: int) -> None:
        """When this device last saw all of them stored."""
        self._tx.put(_CLIENT, _STATE_RENEWED + conversation.encode(), b"%d" % at, secret=False)

    def save_invitation(self, join: Invitation) -> None:
        """Keeps an invitation whose state is still to be downloaded, in the place of one to the same log."""
        self._tx.put(_INVITATIONS, join.conversation + bytes(join.welcome.log_id), join.encode())

    def add_chunk(self, conversation: str, address: bytes, data: bytes) -> None:
        """Keeps a downloaded chunk until the group is entered; it is sealed as it is."""
        self._tx.put(_chunk_space(conversation), address, data, secret=False)

    def remove_chunk(self, conversation: str, address: bytes) -> None:
        """Gives up a chunk that the disk has not kept."""
        self._tx.delete(_chunk_space(conversation), address)

    def remove_invitation(self, conversation: str, log_id: bytes) -> None:
        """The group of a log cannot be entered: without another invitation, nothing of the download is left."""
        kept = 0
        for key, value in list(self._tx.scan(_INVITATIONS, conversation.encode())):
            if Invitation.decode(value).welcome.log_id == log_id:
                self._tx.delete(_INVITATIONS, key)
            else:
                kept += 1
        if not kept:
            self._tx.delete_space(_chunk_space(conversation))

    def remove_invitations(self, conversation: str) -> None:
        """The group was entered: nothing of the download is left."""
        for key, _ in list(self._tx.scan(_INVITATIONS, conversation.encode())):
            self._tx.delete(_INVITATIONS, key)
        self._tx.delete_space(_chunk_space(conversation))

    # -- history

    def mark_read(self, conversation: str, position: int) -> None:
        """Up to where the user has read."""
        self._tx.put(_CLIENT, _READ + conversation.encode(), b"%d" % position, secret=False)

    def add_own_text(self, conversation: str, content: Content, user: str) -> None:
        """An own text that waits to be sent."""
        self._tx.add_message(
            _message(conversation, content, user, content.sent_at, MessageState.WAITING)
        )

    def add_text(self, conversation: str, content: Content, sender: str, now: int) -> bool:
        """A text that arrived; False where it is there already."""
        return self._tx.add_message(
            _message(conversation, content, sender, now, MessageState.RECEIVED)
        )

    def mark_sent(self, conversation: str, message_id: str) -> None:
        """The text stands in the log."""
        self._tx.update_state(conversation.encode(), bytes.fromhex(message_id), MessageState.SENT)

    def mark_seen(self, conversation: str, message_ids: list[str], by: str) -> list[str]:
        """A member has shown these; gives those of which that was not known."""
        return [
            message_id
            for message_id in message_ids
            if self._tx.mark_seen(conversation.encode(), bytes.fromhex(message_id), by)
        ]


def _message(
    conversation: str, content: Content, sender: str, received_at: int, state: MessageState
) -> Message:
    return Message(
        conversation=conversation.encode(),
        message_id=content.message_id,
        sender=sender,
        sent_at=content.sent_at * 1000,
        received_at=received_at * 1000,
        text=content.body.decode(errors="replace"),
        state=state,
    )


def _intents(view: View, conversation: str) -> list[tuple[int, Intent]]:
    return [
        (stored.number, Intent.decode(stored.payload))
        for stored in view.intents(conversation.encode())
    ]


def _added_key(conversation: str, client: bytes) -> bytes:
    return _ADDED + conversation.encode() + b"/" + api.sha256(client)


def _added_with(view: View, conversation: str, client: bytes) -> int:
    return int(view.get(_CLIENT, _added_key(conversation, client)) or 0)


def _conversation(view: View, conversation: str) -> StoredConversation:
    value = view.get(_CONVERSATIONS, conversation.encode())
    if value is None:
        msg = f"there is no conversation {conversation}"
        raise StateError(msg)
    return StoredConversation.decode(value)


class Vault(VaultNotes, KeepingView):
    """A profile, opened."""

    @contextmanager
    def step(self) -> Iterator[Step]:
        """One transaction: all of it is stored when the block ends, nothing where it raises."""
        with self.profile.transaction() as tx:
            yield Step(tx, self.profile.reader)

    def identity(self) -> Identity | None:
        """The enrolled device, None before it is enrolled."""
        value = self._view.get(_CLIENT, _IDENTITY)
        return None if value is None else Identity(StoredIdentity.decode(value))

    def attempt(self) -> StoredAttempt | None:
        """The enrolment that was begun last, where this device is not enrolled."""
        value = self._view.get(_CLIENT, _ATTEMPT)
        return None if value is None else StoredAttempt.decode(value)

    def revocations(self) -> bytes | None:
        """The newest list of revoked certificates that was fetched."""
        return self._view.get(_CLIENT, _REVOCATIONS)

    def next_renewal(self, conversation: str) -> int | None:
        """When this device's keys in the group are to be replaced."""
        value = self._view.get(_CLIENT, _RENEWAL + conversation.encode())
        return None if value is None else int(value)

    def packages(self, identity: Identity) -> list[Package]:
        """All key packages with private keys."""
        return [identity.load_package(value) for _, value in self._view.scan(_PACKAGES)]

    def conversations(self) -> list[str]:
        """All conversations, also ended ones."""
        return [key.decode() for key, _ in self._view.scan(_CONVERSATIONS)]

    def conversation(self, conversation: str) -> StoredConversation:
        """What is known of one; `StateError` where there is none."""
        return _conversation(self._view, conversation)

    def status(self, conversation: str) -> str:
        """active, creating, moving, left, stuck or stopped."""
        return self.conversation(conversation).status.decode()

    def name(self, conversation: str) -> str:
        """The group's name."""
        return self.conversation(conversation).name.decode(errors="replace")

    def intents(self, conversation: str) -> list[tuple[int, Intent]]:
        """What is wanted, in order."""
        return _intents(self._view, conversation)

    def messages(self, conversation: str, limit: int) -> list[Message]:
        """The last texts, oldest first, imported ones too; those of blocked users are left out."""
        return self.texts_after(conversation, -_ALL, limit)

    def texts_after(
        self, conversation: str, position: int, limit: int, before: int | None = None
    ) -> list[Message]:
        """The last texts after a position (and before another), oldest first, without those of blocked users."""
        blocked = self.blocked()
        found: list[Message] = []
        while True:
            page = self._view.messages(conversation.encode(), before=before, limit=_PAGE)
            found = [m for m in page if m.position > position and m.sender not in blocked] + found
            if len(page) < _PAGE or len(found) >= limit or page[0].position <= position:
                return found[-limit:] if limit > 0 else []
            before = page[0].position

    def boxes(self, conversation: str) -> dict[bytes, bytes]:
        """The seeds of request boxes, by epoch name."""
        prefix = conversation.encode()
        found = self._view.scan(_BOXES, prefix)
        start = len(_OPEN) + _NUMBER
        return {key[len(prefix) :]: value[start:] for key, value in found}

    def box_epoch(self, conversation: str, epoch: bytes) -> int | None:
        """The number of an epoch by its name, None where this device has no box of it."""
        value = self._view.get(_BOXES, conversation.encode() + epoch)
        return None if value is None else int.from_bytes(value[len(_OPEN) :][:_NUMBER])

    def box_cursor(self, conversation: str) -> int:
        """From where the boxes are to be read."""
        return int(self._view.get(_CLIENT, _BOX_CURSOR + conversation.encode()) or 0)

    def box_look(self, conversation: str) -> int:
        """When the boxes were last read from their beginning; 0 where they never were."""
        return int(self._view.get(_CLIENT, _BOX_LOOK + conversation.encode()) or 0)

    def passed(self, conversation: str) -> list[Passed]:
        """The epochs that were left, oldest first."""
        return [Passed.decode(value) for _, value in self._view.scan(_passed_space(conversation))]

    def next_reading(self, conversation: str) -> int | None:
        """When an older epoch is to be read again."""
        value = self._view.get(_CLIENT, _READING + conversation.encode())
        return None if value is None else int(value)

    def added_with(self, conversation: str, client: bytes) -> int:
        """When the lifetime of the newest key package begins with which a client was seen added; 0 where none was."""
        return _added_with(self._view, conversation, client)

    def welcomes(
        self, conversation: str, intent_id: int, count: int
    ) -> list[tuple[int, WelcomeSlice]]:
        """Some of the `count` slices that new members are still to get, up to 256; none where all were posted."""
        space = _welcome_space(conversation, intent_id)
        for page in range((count + 255) >> 8):
            found = self._view.scan(space, page.to_bytes(3))
            slices = [(int.from_bytes(k), WelcomeSlice.decode(v)) for k, v in found]
            if slices:
                return slices
        return []

    def state_due(self, conversation: str) -> int | None:
        """When the chunks of the group's state are to be renewed."""
        value = self._view.get(_CLIENT, _STATE_DUE + conversation.encode())
        return None if value is None else int(value)

    def state_renewed(self, conversation: str) -> int:
        """When this device last saw all chunks stored; 0 where it did not."""
        return int(self._view.get(_CLIENT, _STATE_RENEWED + conversation.encode()) or 0)

    def invitations(self) -> list[Invitation]:
        """Invitations whose state is still to be downloaded."""
        return [Invitation.decode(value) for _, value in self._view.scan(_INVITATIONS)]

    def chunk(self, conversation: str, address: bytes) -> bytes | None:
        """A chunk that was downloaded."""
        return self._view.get(_chunk_space(conversation), address)

    def chunks_missing(self, conversation: str, addresses: list[bytes]) -> list[bytes]:
        """Those of the chunks that were not downloaded yet."""
        reader = self.profile.reader(_chunk_space(conversation))
        return [address for address in addresses if reader.get(address) is None]

    def package(self, identity: Identity, reference: bytes) -> Package | None:
        """A key package with its private keys."""
        value = self._view.get(_PACKAGES, reference)
        return None if value is None else identity.load_package(value)

    def requested_at(self, conversation: str) -> int | None:
        """When this device asked to be added again, None where it did not."""
        value = self._view.get(_CLIENT, _REQUESTED + conversation.encode())
        return None if value is None else int(value.split(b" ", 1)[0])

    def read_up_to(self, conversation: str) -> int:
        """The position of the last text that was marked as read."""
        return int(self._view.get(_CLIENT, _READ + conversation.encode()) or 0)

    def unread(self, conversation: str) -> list[Message]:
        """What arrived from others and was not marked as read, oldest first."""
        found = self.texts_after(conversation, self.read_up_to(conversation), _ALL)
        return [m for m in found if m.state == MessageState.RECEIVED]

    def load_group(self, conversation: str, config: Config) -> Group:
        """The group as it was stored."""
        reader = self.profile.reader(_group_space(conversation))
        return Group.load(reader.entries(_LAZY), reader, config)

    def load_line(self, conversation: str, config: Config) -> Line:
        """Group and place in the log; `StateError` where the device is not in the group."""
        stored = self._view.get(_LINES, conversation.encode())
        if stored is None:
            why = self.conversation(conversation).why.decode()
            msg = why or "this device is not in the group yet"
            raise StateError(msg)
        trail = Trail(self.profile.reader(_trail_space(conversation)).get)
        shared = SharedState(self.profile.reader(_state_space(conversation)))
        group = self.load_group(conversation, config)
        return Line(group, LineState.decode(stored), trail, shared)
