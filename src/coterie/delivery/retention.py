"""Retention by age (section 15): what is dropped when, decided from the hours that the ledger knows."""

from __future__ import annotations

from dataclasses import dataclass

from coterie.delivery.ledger import Ages, Epoch, LogTransaction
from coterie.delivery.settings import DAY, HOUR, Settings

_BATCH = 20
_LEAP = 7 * DAY
"""So much later than the round before, or than anything that is stored, a round finds a clock that may be wrong."""


def over_at(epoch: Epoch, ages: Ages, settings: Settings) -> int:
    """The first hour at which the whole epoch is gone (D-RET-2, D-RET-5)."""
    if ages.newest_candidate is not None:
        return ages.newest_candidate + _hours(epoch.retention) + 1
    last = epoch.opened_hour if ages.newest is None else ages.newest
    return last + _hours(settings.idle_age) + 1


@dataclass(frozen=True, slots=True)
class Swept:
    """What a part of a round did; true as long as there may be more to do."""

    more: bool
    dropped: tuple[tuple[bytes, bytes], ...] = ()
    """Log and name of each epoch that is gone now and was not before."""

    def __bool__(self) -> bool:
        return self.more


@dataclass(slots=True)
class ClockWatch:
    """Whether anything may be dropped at the time that the clock says (D-RET-6).

    A machine may start with a clock that is years ahead and set right a moment later: all would be gone by then.
    """

    wait: float
    """For how many seconds nothing is dropped where the clock went far ahead."""
    last: float | None = None
    """When it was right last: a round was made, or something was stored."""
    found_at: float | None = None
    """By a clock that nobody sets: when it was found ahead. None while it is not."""

    def may_be_wrong(self, now: float, monotonic: float) -> bool:
        """Whether it is too early for a round of retention; where not, one is made now."""
        if self.last is not None and now - self.last > _LEAP:
            self.found_at = monotonic if self.found_at is None else self.found_at
            if monotonic - self.found_at < self.wait:
                return True
        self.last, self.found_at = now, None
        return False


def sweep(tx: LogTransaction, settings: Settings, now: float) -> Swept:
    """Drops what is too old, in a bounded number of epochs: others are answered between two calls."""
    hour = int(now) // HOUR
    dropped = []
    epochs = tx.due_epochs(hour, _BATCH)
    for epoch in epochs:
        over = None if epoch.gone else over_at(epoch, tx.ages(epoch), settings)
        if over is None or over <= hour:
            if over is not None:
                dropped.append((epoch.log_id, epoch.name))
            complete = tx.drop_epoch(epoch)
        else:
            complete = _drop_messages(tx, epoch, over, hour)
        if not complete:
            break
    if epochs:
        return Swept(more=True, dropped=tuple(dropped))
    return Swept(more=not tx.drop_old(hour, hour - _hours(settings.request_age)))


def _drop_messages(tx: LogTransaction, epoch: Epoch, over: int, hour: int) -> bool:
    """Drops messages of an epoch that goes on until the hour `over`; returns whether it was all."""
    retention = _hours(epoch.retention)
    if not tx.drop_messages_before(epoch, hour - retention):
        return False
    oldest = tx.ages(epoch).oldest_message
    # Nothing that comes later can be due before a retention from now.
    due = hour + retention if oldest is None else oldest + retention + 1
    tx.set_due(epoch, max(hour + 1, min(over, due)))
    return True


def _hours(seconds: int) -> int:
    """Seconds as hours, rounded up: nothing is dropped before its time (D-RET-6)."""
    return -(-seconds // HOUR)
