"""A Delivery Service that lies: it has no keys of the group, and its receipt key to sign with.

Honest members may be stopped by it, never led apart without evidence.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from coterie.mls.tls import Struct
from coterie.testing.simulator.device import Device
from coterie.testing.simulator.world import World
from coterie.transport import api
from coterie.transport.refusal import Refused

Lie = Callable[[api.ReadResult, random.Random], api.ReadResult]


class LyingService:
    """Forks the log, relays from one side to the other, and tampers with answers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lies: dict[str, tuple[Lie, random.Random]] = {}
        self.drops = 0
        self.spoiled: dict[str, random.Random] = {}
        """Who gets chunks that are not what was asked for."""
        self.attacks: tuple[Callable[[random.Random], None], ...] = (
            self.parts,
            self.relays,
            self.tells_truth,
            self.withholds,
            self.forges,
            self.swaps,
            self.skips,
            self.hides_candidates,
            self.rewrites,
            self.accepts_and_drops,
            self.signs_nothing,
            self.spoils_chunks,
        )
        world.tamper.append(self.answer)

    def __call__(self, choice: int, rng: random.Random) -> None:
        """Begins or ends a lie."""
        self.attacks[choice % len(self.attacks)](rng)

    def answer(self, device: Device, path: str, request: Struct, answer: Struct) -> Struct:
        """What a device is told."""
        del path, request
        if isinstance(answer, api.ReadResult) and device.label in self.lies:
            lie, rng = self.lies[device.label]
            return lie(answer, rng)
        if isinstance(answer, api.Chunks) and device.label in self.spoiled:
            return _spoil(answer, self.spoiled[device.label])
        return answer

    def _victim(self, rng: random.Random) -> Device:
        devices = list(self.world.devices.values())
        return devices[rng.randrange(len(devices))]

    def _lie(self, lie: Lie, rng: random.Random) -> None:
        self.lies[self._victim(rng).label] = (lie, random.Random(rng.randrange(1 << 30)))  # noqa: S311 - repeats

    # -- two histories

    def parts(self, rng: random.Random) -> None:
        """Serves some members another copy of the log from now on."""
        if len(self.world.service.sides) == 1:
            self.world.service.fork()
            for device in self.world.devices.values():
                device.side = rng.randrange(2)

    def relays(self, rng: random.Random) -> None:
        """Appends to one side what was sent to the other."""
        if len(self.world.service.sides) == 1 or not self.world.appends:
            return
        recent = self.world.appends[-8:]
        append = recent[rng.randrange(len(recent))]
        for side in range(2):
            try:
                self.world.service.handle("logs/append", append, b"service", side)
            except Refused:
                continue

    # -- lies about one

    def tells_truth(self, rng: random.Random) -> None:
        """Ends the lies to one device."""
        label = self._victim(rng).label
        self.lies.pop(label, None)
        self.spoiled.pop(label, None)

    def withholds(self, rng: random.Random) -> None:
        """Says that an earlier entry is the newest one."""
        self._lie(_shorten, rng)

    def forges(self, rng: random.Random) -> None:
        """Gives an entry with a byte changed."""
        self._lie(_change, rng)

    def swaps(self, rng: random.Random) -> None:
        """Gives entries in another order."""
        self._lie(_swap, rng)

    def skips(self, rng: random.Random) -> None:
        """Leaves out an entry."""
        self._lie(_skip, rng)

    def hides_candidates(self, rng: random.Random) -> None:
        """Leaves out a bundle and signs new receipts for what follows."""
        self._lie(self._hide, rng)

    def spoils_chunks(self, rng: random.Random) -> None:
        """Gives chunks with a byte changed, others, none, or fewer (D-CHK-6)."""
        self.spoiled[self._victim(rng).label] = random.Random(rng.randrange(1 << 30))  # noqa: S311 - repeats

    def rewrites(self, rng: random.Random) -> None:
        """Leaves out a message, and signs nothing anew but the numbers."""
        self._lie(self._replace, rng)

    def signs_nothing(self, rng: random.Random) -> None:
        """Parts the members, and serves one side with receipts that prove nothing."""
        self.parts(rng)
        for device in self.world.devices.values():
            if device.side:
                self.lies[device.label] = (_unsigned, rng)

    def _hide(self, answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
        del rng
        bundles = [
            n
            for n, stored in enumerate(answer.entries)
            if stored.entry is not None and stored.entry.header.kind == api.EntryKind.BUNDLE
        ]
        if not bundles:
            return answer
        return self._without(answer, bundles[0])

    def _without(self, answer: api.ReadResult, left_out: int) -> api.ReadResult:
        kept, previous = [], answer.entries[left_out].receipt.previous
        for n, stored in enumerate(answer.entries):
            receipt = stored.receipt
            if n > left_out:
                receipt = self.world.service.sign_receipt(
                    receipt.epoch, receipt.number - 1, previous, receipt.entry_hash
                )
                previous = receipt.hash()
            if n != left_out:
                kept.append(stored.replace(receipt=receipt))
        head = kept[-1].receipt if kept else answer.head
        return answer.replace(
            entries=tuple(kept), head=head, next_number=max(answer.next_number - 1, 1)
        )

    def _replace(self, answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
        """The entry before another is replaced by an earlier one; the later receipts stay as they are."""
        if len(answer.entries) < 2:
            return answer
        at = rng.randrange(len(answer.entries) - 1)
        stored = answer.entries[at]
        if stored.entry is None or stored.entry.header.kind != api.EntryKind.MESSAGE:
            return answer
        entry = stored.entry.replace(sealed=rng.randbytes(len(stored.entry.sealed)))
        old = stored.receipt
        receipt = self.world.service.sign_receipt(old.epoch, old.number, old.previous, entry.hash())
        forged = stored.replace(receipt=receipt, entry=entry)
        return answer.replace(entries=(*answer.entries[:at], forged, *answer.entries[at + 1 :]))

    def accepts_and_drops(self, rng: random.Random) -> None:
        """Signs a receipt for the next entry and keeps nothing."""
        del rng
        self.drops += 1
        self.world.drops = 1


def _unsigned(answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
    del rng
    entries = tuple(
        stored.replace(receipt=stored.receipt.replace(signature=bytes(64)))
        for stored in answer.entries
    )
    return answer.replace(entries=entries, head=answer.head.replace(signature=bytes(64)))


def _spoil(answer: api.Chunks, rng: random.Random) -> api.Chunks:
    chunks = list(answer.chunks)
    if not chunks:
        return answer
    at, lie = rng.randrange(len(chunks)), rng.randrange(4)
    chunk = chunks[at]
    if lie == 0 and chunk is not None:
        data = bytearray(chunk.data)
        data[rng.randrange(len(data))] ^= 1
        chunks[at] = api.Chunk(bytes(data))
    elif lie == 1:
        chunks[at] = None
    elif lie == 2:
        rng.shuffle(chunks)
    else:
        del chunks[at:]
    return answer.replace(chunks=tuple(chunks))


def _shorten(answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
    if not answer.entries:
        return answer
    kept = answer.entries[: rng.randrange(len(answer.entries))]
    if not kept:
        return answer.replace(entries=(), next_number=answer.entries[0].receipt.number)
    last = kept[-1].receipt
    return answer.replace(entries=kept, head=last, next_number=last.number + 1)


def _change(answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
    if not answer.entries or answer.entries[0].entry is None:
        return answer
    first = answer.entries[0]
    entry = answer.entries[0].entry
    data = bytearray(entry.sealed or b"\0")
    data[rng.randrange(len(data))] ^= 1
    return answer.replace(
        entries=(first.replace(entry=entry.replace(sealed=bytes(data))), *answer.entries[1:])
    )


def _swap(answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
    entries = list(answer.entries)
    rng.shuffle(entries)
    return answer.replace(entries=tuple(entries))


def _skip(answer: api.ReadResult, rng: random.Random) -> api.ReadResult:
    if not answer.entries:
        return answer
    at = rng.randrange(len(answer.entries))
    return answer.replace(entries=(*answer.entries[:at], *answer.entries[at + 1 :]))
