"""Giving the service the chunks of the group's state (docs/delivery-protocol.md, D-BUN-1, D-BUN-5, D-CHK-7, D-CHK-9).

Whoever makes a Commit supplies what it changes: with the bundle where it is little, before it where it is much. What
stands is renewed by some of the members, so that it does not age away; any member can make any missing chunk again.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

from coterie.client import chunks
from coterie.client.intents import COMMITS, Intent
from coterie.client.line import Line
from coterie.client.place import Place
from coterie.errors import ServiceError
from coterie.transport import api
from coterie.transport.refusal import Refused

RENEWERS = 16
"""How many members renew the chunks in each period, on average (D-CHK-9)."""
DOUBT_WAIT = 600
"""Within how many seconds chunks are looked after that a committer seems not to have supplied."""
FRESH = 3600
"""For how many seconds a device that saw all chunks stored need not look again before it adds somebody again."""
_UPLOAD = 4 << 20
"""Bytes of chunks in one upload."""
_ASKED = 4096
"""Addresses in one request."""
_ENDED = frozenset({api.ErrorCode.EPOCH_ENDED, api.ErrorCode.GONE, api.ErrorCode.UNKNOWN_EPOCH})

Data = Callable[[bytes], bytes]
"""The chunk with an address, made anew."""


class Supplying(Place):
    """Uploads chunks and renews them."""

    async def _append(self, intent: Intent) -> api.Appended:
        """Sends the entry of an intent, and before it or with it the chunks that it lists (D-BUN-5).

        Raises `Refused`, or `ServiceError` where the service does not keep what it was given.
        """
        sealed = intent.sealed
        if sealed is None:
            msg = "an intent is sent before it is sealed"
            raise ServiceError(msg)
        change = self._change_of(intent)
        if change is None or not change.chunks:
            return await self._tools.delivery.append(sealed)
        by_address = {ref.address: place for place, ref in change.chunks.items()}
        if change.data:
            chunks_inside = tuple(api.Chunk(change.data[place]) for place in by_address.values())
            try:
                return await self._tools.delivery.append(sealed.replace(chunks=chunks_inside))
            except Refused as refused:
                if refused.code != api.ErrorCode.MISSING_CHUNK:
                    raise
        await self._supply(self.line, by_address, lambda a: self._made(change, by_address[a]))
        try:
            return await self._tools.delivery.append(sealed)
        except Refused as refused:
            if refused.code != api.ErrorCode.MISSING_CHUNK:
                raise
            msg = "the service does not keep the chunks that it is given"
            raise ServiceError(msg, rule="D-BUN-5", retry_after=60) from refused

    def _change_of(self, intent: Intent) -> chunks.StateChange | None:
        """What an own Commit adds to the chunks; None where the intent is none, or its Commit is given up."""
        pending = self.group.pending_commit
        if intent.kind not in COMMITS or pending is None:
            return None
        return self.line.next_state(pending)

    def _made(self, change: chunks.StateChange, place: chunks.Place) -> bytes:
        """A chunk of an own pending Commit."""
        pending = self.group.pending_commit
        if pending is None or pending.next is None:
            msg = "the Commit was given up while its chunks were uploaded"
            raise ServiceError(msg, retry_after=0)
        tree = chunks.covered(pending.next.epoch.tree, place)
        content = chunks.content_of(tree, place, change.children.get(place, ()))
        return chunks.seal_chunk(content, change.chunks[place].key)

    async def _supply(self, line: Line, addresses: Iterable[bytes], data: Data) -> None:
        """Renews chunks, and uploads those that the service has not; goes on after a cut where it was (D-CHK-7)."""
        for some in _parts(list(addresses), _ASKED):
            missing = await self._put(line, some, ())
            waiting, size, supplied = list[api.Chunk](), 0, 0
            for address in missing:
                made = data(address)
                if api.sha256(made) != address:
                    # Sealed by a member in its own way: nobody can make it again (D-CHK-6).
                    self._tools.count("chunks that cannot be made again")
                    continue
                waiting.append(api.Chunk(made))
                size += len(made)
                supplied += 1
                if size >= _UPLOAD:
                    await self._put(line, (), waiting)
                    waiting, size = [], 0
            if waiting:
                await self._put(line, (), waiting)
            self._tools.count_many("chunks supplied", supplied)

    async def _put(
        self, line: Line, renewed: Iterable[bytes], data: Iterable[api.Chunk]
    ) -> tuple[bytes, ...]:
        put = api.PutChunks(
            line.binding.log_id,
            line.state.epoch,
            secrets.token_bytes(32),
            tuple(renewed),
            tuple(data),
        )
        request = api.PutChunksRequest(put, line.keys.sign(put.to_be_signed()))
        result = await self._tools.delivery.put_chunks(request)
        if not set(result.missing) <= set(put.renewed):
            msg = "the service misses chunks that it was not asked about"
            raise ServiceError(msg, rule="D-CHK-7", retry_after=60)
        return result.missing

    # -- so that nothing ages away

    async def _renew_state(self) -> None:
        """Renews all chunks of the present state, and uploads those that are missing (D-CHK-9)."""
        line, tree = self.line, self.group.tree
        refs = dict(line.shared.all_refs(tree))
        places: Mapping[bytes, chunks.Place] = {ref.address: place for place, ref in refs.items()}

        def data(address: bytes) -> bytes:
            place = places[address]
            return line.shared.data(tree, place, refs[place])

        try:
            await self._supply(line, places, data)
        except Refused as refused:
            if refused.code not in _ENDED:
                raise
            return
        now = self._tools.clock()
        with self._tools.vault.step() as step:
            step.set_state_renewed(self.id, now)

    async def _keep_state(self) -> None:
        """Renews the chunks when it is time, and when it falls to this member (D-CHK-9)."""
        if not self.is_active or self.line.shared.root is None:
            return
        now, due = self._tools.clock(), self._tools.vault.state_due(self.id)
        retention = self.line.binding.retention
        if due is not None and now < due:
            return
        mine = False
        if due is not None:
            # Who was away cannot assume that others did it.
            late = now - due > retention // 10
            mine = late or random.random() * self.group.tree.member_count < RENEWERS  # noqa: S311
        if mine:
            await self._renew_state()
        later = random.randint(retention * 4 // 10, retention * 6 // 10)  # noqa: S311 - a time
        with self._tools.vault.step() as step:
            step.set_state_due(self.id, now + later)

    async def _see_state_stored(self) -> None:
        """Makes sure that all chunks are stored, unless this device saw it just now: somebody could not have them."""
        renewed = self._tools.vault.state_renewed(self.id)
        if self.line.shared.root is not None and self._tools.clock() - renewed >= FRESH:
            await self._renew_state()


def _parts(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))
