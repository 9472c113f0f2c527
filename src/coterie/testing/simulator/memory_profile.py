"""A client's storage in memory, as far as `coterie.client.vault` uses it: copied, rolled back and restored at will.

It keeps the promises of `coterie.storage.Profile` that the client rests on (a step is stored whole or not at all, reads
see an open step) and nothing else: no cipher, no file. That those hold on disk is what the crash tests of storage show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from coterie.mls.group import Delta
from coterie.storage import Message, MessageState
from coterie.storage.records import Intent


@dataclass(slots=True)
class Contents:
    """Everything that a profile holds."""

    spaces: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    intents: dict[int, Intent] = field(default_factory=dict)
    messages: dict[tuple[bytes, bytes], Message] = field(default_factory=dict)
    next_intent: int = 1

    def copy(self) -> Contents:
        """A copy that shares no dictionary; the values are immutable."""
        spaces = {name: dict(space) for name, space in self.spaces.items()}
        return Contents(spaces, dict(self.intents), dict(self.messages), self.next_intent)


class MemoryView:
    """Reads, and the changes of the one step that is open."""

    def __init__(self, profile: MemoryProfile) -> None:
        self._profile = profile

    @property
    def _all(self) -> Contents:
        return self._profile.contents

    # -- entries

    def get(self, space: str, key: bytes) -> bytes | None:
        """See View."""
        return self._all.spaces.get(space, {}).get(key)

    def scan(self, space: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See View."""
        entries = self._all.spaces.get(space, {})
        yield from sorted(item for item in entries.items() if item[0].startswith(prefix))

    def put(self, space: str, key: bytes, value: bytes, *, secret: bool = True) -> None:
        """See Transaction."""
        del secret
        self._all.spaces.setdefault(space, {})[key] = value

    def delete(self, space: str, key: bytes) -> None:
        """See Transaction."""
        self._all.spaces.get(space, {}).pop(key, None)

    def delete_space(self, space: str) -> None:
        """See Transaction."""
        self._all.spaces.pop(space, None)

    def apply(self, space: str, delta: Delta, *, public: tuple[bytes, ...] = ()) -> None:
        """See Transaction."""
        del public
        entries = self._all.spaces.setdefault(space, {})
        for prefix in delta.drop_prefixes:
            for key in [key for key in entries if key.startswith(prefix)]:
                del entries[key]
        for key in delta.drops:
            entries.pop(key, None)
        entries.update(delta.puts)

    # -- intents

    def intents(self, conversation: bytes | None = None) -> list[Intent]:
        """See View."""
        found = self._all.intents.values()
        return [i for i in found if conversation is None or i.conversation == conversation]

    def add_intent(self, conversation: bytes, kind: str, payload: bytes) -> int:
        """See Transaction."""
        number = self._all.next_intent
        self._all.next_intent += 1
        self._all.intents[number] = Intent(number, conversation, kind, "", payload)
        return number

    def update_intent(self, number: int, *, payload: bytes) -> None:
        """See Transaction."""
        self._all.intents[number] = dataclasses.replace(self._all.intents[number], payload=payload)

    def remove_intent(self, number: int) -> None:
        """See Transaction."""
        self._all.intents.pop(number, None)

    # -- messages

    def messages(
        self, conversation: bytes, *, before: int | None = None, limit: int = 50
    ) -> list[Message]:
        """See View."""
        found = [m for m in self._all.messages.values() if m.conversation == conversation]
        return [m for m in found if before is None or m.position < before][-limit:]

    def add_message(self, message: Message) -> bool:
        """See Transaction."""
        key = (message.conversation, message.message_id)
        if key in self._all.messages:
            return False
        position = len(self._all.messages) + 1
        self._all.messages[key] = dataclasses.replace(message, position=position)
        return True

    def update_state(self, conversation: bytes, message_id: bytes, state: MessageState) -> bool:
        """See Transaction."""
        key = (conversation, message_id)
        if key not in self._all.messages:
            return False
        self._all.messages[key] = dataclasses.replace(self._all.messages[key], state=state)
        return True

    def mark_seen(self, conversation: bytes, message_id: bytes, user: str) -> None:
        """See Transaction; the simulator does not look at it."""


class MemoryReader:
    """Reads of one space: the `NodeStore` of a group."""

    def __init__(self, profile: MemoryProfile, space: str) -> None:
        self._profile = profile
        self._space = space

    def get(self, key: bytes) -> bytes | None:
        """See SpaceReader."""
        return self._profile.view.get(self._space, key)

    def entries(self, exclude_prefixes: Iterable[bytes] = ()) -> dict[bytes, bytes]:
        """See SpaceReader."""
        excluded = tuple(exclude_prefixes)
        entries = self._profile.contents.spaces.get(self._space, {})
        return {key: value for key, value in entries.items() if not key.startswith(excluded)}


class MemoryProfile:
    """What `Vault` asks of a profile."""

    def __init__(self) -> None:
        self.contents = Contents()
        self.view = MemoryView(self)
        self.steps = 0

    def reader(self, space: str) -> MemoryReader:
        """See Profile."""
        return MemoryReader(self, space)

    @contextmanager
    def transaction(self) -> Iterator[MemoryView]:
        """One step: an exception puts everything back."""
        before = self.contents.copy()
        try:
            yield self.view
        except BaseException:
            self.contents = before
            raise
        self.steps += 1

    def snapshot(self) -> Contents:
        """A copy, as a backup would be."""
        return self.contents.copy()
