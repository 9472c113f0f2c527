"""Adversaries without the keys of the present epoch: a removed member, a link holder."""

from __future__ import annotations

import random
from collections.abc import Callable

from coterie.client.epoch_keys import EpochKeys
from coterie.testing.simulator.device import Device
from coterie.testing.simulator.world import World
from coterie.transport import api
from coterie.transport.refusal import Refused


class RemovedMember:
    """Keeps all that it had when it was removed, and uses it."""

    def __init__(self, world: World, label: str) -> None:
        self.world = world
        self.device: Device = world.devices[label]
        self.keys: dict[bytes, EpochKeys] = dict(world.observer.keys.get(label, {}))
        self.attacks: tuple[Callable[[random.Random], None], ...] = (
            self.reads_on,
            self.floods_old_epochs,
            self.ends_old_epochs,
            self.writes_with_old_keys,
            self.fills_boxes,
        )

    def __call__(self, choice: int, rng: random.Random) -> None:
        """Does one of its attacks, if it has seen an epoch."""
        if self.keys:
            self.attacks[choice % len(self.attacks)](rng)

    def _epochs(self) -> list[bytes]:
        """All epochs of the log: names are no secret from whoever watches the service."""
        rows = self.world.service.sides[0].execute("SELECT name FROM epoch ORDER BY key")
        return [name for (name,) in rows if isinstance(name, bytes)]

    def _old(self, rng: random.Random) -> tuple[bytes, EpochKeys]:
        names = sorted(self.keys)
        name = names[rng.randrange(len(names))]
        return name, self.keys[name]

    def _try(self, path: str, request: api.Append | api.Read | api.PostRequest) -> object:
        try:
            return self.world.ask(self.device.label, path, request)
        except Refused:
            return None

    def reads_on(self, rng: random.Random) -> None:
        """Tries old tokens on every epoch that it was not in."""
        _, keys = self._old(rng)
        for name in self._epochs():
            if name in self.keys:
                continue
            answer = self._try(
                "logs/read", api.Read(keys.log_id, name, bytes(keys.read_token), 0, 1 << 20)
            )
            if isinstance(answer, api.ReadResult) and answer.entries:
                self.world.leaks.append(f"{self.device.label} reads an epoch it was never in")

    def _entry(self, epoch: bytes, rng: random.Random, bundle: api.Bundle | None) -> api.Entry:
        kind = api.EntryKind.MESSAGE if bundle is None else api.EntryKind.BUNDLE
        header = api.EntryHeader(
            api.DeliveryVersion.COTERIE1, kind, epoch, rng.randbytes(32), bundle, None
        )
        return api.Entry(header, rng.randbytes(256))

    def _append(self, entry: api.Entry, keys: EpochKeys) -> api.Append:
        self.world.observer.by_outsiders.add(entry.hash())
        signature = keys.sign(api.append_to_be_signed(entry.hash()))
        return api.Append(keys.log_id, entry, signature)

    def floods_old_epochs(self, rng: random.Random) -> None:
        """Messages to the epochs that it was in."""
        epoch, keys = self._old(rng)
        self._try("logs/append", self._append(self._entry(epoch, rng, None), keys))

    def ends_old_epochs(self, rng: random.Random) -> None:
        """Further candidates for the epochs that it was in, for whoever still stands there."""
        epoch, keys = self._old(rng)
        public = self._old(rng)[1].access
        for _ in range(5):
            found = self.world.service.on_log(0, lambda tx: _newest(tx, epoch))
            access = api.Access(public.append_key, rng.randbytes(32), rng.randbytes(32))
            entry = self._entry(epoch, rng, api.Bundle(found, access, ()))
            if self._try("logs/append", self._append(entry, keys)) is None:
                return

    def writes_with_old_keys(self, rng: random.Random) -> None:
        """Entries for epochs that it was never in, signed with old keys."""
        _, keys = self._old(rng)
        for name in self._epochs():
            if name in self.keys:
                continue
            for bundle in (None, api.Bundle(api.ZERO32, keys.access, ())):
                append = self._append(self._entry(name, rng, bundle), keys)
                if self._try("logs/append", append) is not None:
                    self.world.leaks.append(f"{self.device.label} writes where it never was")

    def fills_boxes(self, rng: random.Random) -> None:
        """Junk requests to the boxes of the epochs that it was in."""
        epoch, keys = self._old(rng)
        for _ in range(5):
            sealed = api.SealedRequest(rng.randbytes(32), rng.randbytes(4096))
            self._try(
                "boxes/post", api.PostRequest(keys.log_id, epoch, bytes(keys.box_token), sealed)
            )


class LinkHolder(RemovedMember):
    """Knows one epoch's box and nothing else; tries the box token where other keys belong."""

    def __init__(self, world: World, label: str, epoch: bytes, keys: EpochKeys) -> None:
        super().__init__(world, label)
        nothing = keys.box_token
        self.keys = {
            epoch: EpochKeys(
                keys.log_id, nothing, nothing, nothing, nothing, keys.box_token, nothing
            )
        }
        self.attacks = (self.fills_boxes, self.reads_on, self.writes_with_old_keys)

    def _epochs(self) -> list[bytes]:
        """The epoch of the link first: it is in none."""
        return [*self.keys, *super()._epochs()]

    def reads_on(self, rng: random.Random) -> None:
        """Reads with the box token."""
        keys = next(iter(self.keys.values()))
        for name in self._epochs():
            answer = self._try(
                "logs/read", api.Read(keys.log_id, name, bytes(keys.box_token), 0, 1 << 20)
            )
            if answer is not None:
                self.world.leaks.append("a link holder reads")
        del rng

    def writes_with_old_keys(self, rng: random.Random) -> None:
        """Appends with a signature out of the box token."""
        keys = next(iter(self.keys.values()))
        for name in self._epochs():
            append = self._append(self._entry(name, rng, None), keys)
            if self._try("logs/append", append) is not None:
                self.world.leaks.append("a link holder writes")


def _newest(tx: object, epoch: bytes) -> bytes:
    """The hash of the newest candidate's receipt, as a lost race says it."""
    found = tx.epoch(epoch)  # type: ignore[attr-defined]
    row = None if found is None else tx.newest_candidate(found)  # type: ignore[attr-defined]
    return api.ZERO32 if row is None else row.receipt.hash()
