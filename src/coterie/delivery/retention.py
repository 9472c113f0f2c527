"""Retention by age (section 15): what is dropped when, decided from the hours that the ledger knows."""

from __future__ import annotations

from coterie.delivery.ledger import Ages, Epoch, LogTransaction
from coterie.delivery.settings import HOUR, Settings

_BATCH = 20


def over_at(epoch: Epoch, ages: Ages, settings: Settings) -> int:
    """The first hour at which the whole epoch is gone (D-RET-2, D-RET-5)."""
    if ages.newest_candidate is not None:
        return ages.newest_candidate + _hours(epoch.retention) + 1
    last = epoch.opened_hour if ages.newest is None else ages.newest
    return last + _hours(settings.idle_age) + 1


def sweep(tx: LogTransaction, settings: Settings, now: float) -> int:
    """Drops what is too old in a bounded number of epochs; returns how many were looked at."""
    hour = int(now) // HOUR
    epochs = tx.due_epochs(hour, _BATCH)
    for epoch in epochs:
        _sweep_epoch(tx, epoch, settings, hour)
    tx.drop_old(hour, hour - _hours(settings.request_age))
    return len(epochs)


def _sweep_epoch(tx: LogTransaction, epoch: Epoch, settings: Settings, hour: int) -> None:
    retention = _hours(epoch.retention)
    over = over_at(epoch, tx.ages(epoch), settings)
    if over <= hour:
        tx.drop_epoch(epoch)
        return
    tx.drop_messages_before(epoch, hour - retention)
    oldest = tx.ages(epoch).oldest_message
    # Nothing that comes later can be due before a retention from now.
    due = hour + retention if oldest is None else oldest + retention + 1
    tx.set_due(epoch, max(hour + 1, min(over, due)))


def _hours(seconds: int) -> int:
    """Seconds as hours, rounded up: nothing is dropped before its time (D-RET-6)."""
    return -(-seconds // HOUR)
