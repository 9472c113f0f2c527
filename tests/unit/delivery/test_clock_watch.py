"""A clock that went far ahead drops nothing at first: it may be wrong, and be set right (D-RET-6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.delivery.retention import ClockWatch
from coterie.delivery.service import DeliveryService, Places
from coterie.delivery.settings import DAY, HOUR, Settings
from coterie.transport.client import DeliveryClient
from coterie.transport.memory import MemoryCarrier
from coterie.transport.refusal import Refused
from tests.delivery_bench import UNLIMITED, Bench
from tests.delivery_devices import identify_basic
from tests.delivery_model import Clock, new_log

YEARS = 70 * 365 * DAY


def test_rounds_go_on_while_the_clock_does() -> None:
    watch = ClockWatch(3600, last=1000.0)
    for now in (1000 + 7 * DAY, 1000 + 14 * DAY, 1000 + 14 * DAY, 0.0, 7 * DAY):
        assert not watch.may_be_wrong(now, 5.0)


def test_a_clock_that_leaps_is_waited_for_and_then_believed() -> None:
    watch = ClockWatch(3600, last=1000.0)
    leapt = 1001.0 + 7 * DAY
    assert watch.may_be_wrong(leapt, 50.0)
    assert watch.may_be_wrong(leapt + 3599, 50.0 + 3599)
    assert not watch.may_be_wrong(leapt + 3600, 50.0 + 3600)
    assert watch.found_at is None
    assert watch.may_be_wrong(leapt + YEARS, 90_000.0)


def test_a_clock_that_is_set_right_is_believed_at_once_and_waited_for_anew() -> None:
    watch = ClockWatch(3600, last=1000.0)
    assert watch.may_be_wrong(YEARS, 0.0)
    assert not watch.may_be_wrong(1300.0, 300.0)
    assert watch.may_be_wrong(YEARS, 3700.0)


def test_a_service_that_stores_nothing_yet_has_nothing_to_wait_for() -> None:
    assert not ClockWatch(3600).may_be_wrong(YEARS, 0.0)


def test_the_newest_hour_is_that_of_the_last_epoch_or_entry() -> None:
    bench = Bench()
    assert bench.run(lambda tx: tx.newest_hour()) is None
    epoch = bench.new_log()
    first = int(bench.clock.now) // HOUR
    assert bench.run(lambda tx: tx.newest_hour()) == first
    bench.clock.forward(3 * HOUR)
    bench.append(epoch.message())
    assert bench.run(lambda tx: tx.newest_hour()) == first + 3
    bench.clock.forward(2 * HOUR)
    bench.new_log()
    assert bench.run(lambda tx: tx.newest_hour()) == first + 5


Story = Callable[[DeliveryService, Clock, Callable[[], Awaitable[bool]]], Awaitable[None]]


def _started_with_a_clock_of_years_ahead(folder: Path, wait: float, story: Story) -> None:
    """A service that has a log, stopped, and started with a wrong clock."""
    clock = Clock()

    def made() -> DeliveryService:
        settings = Settings(rates=UNLIMITED, sweep_interval=0.01, clock_wait=wait)
        key, places = Ed25519PrivateKey.generate(), Places.within(folder)
        return DeliveryService(key, identify_basic, places=places, settings=settings, clock=clock)

    async def main() -> None:
        service = made()
        epoch, create = new_log()
        await DeliveryClient(MemoryCarrier(service)).create_log(create)
        await service.close()
        clock.forward(YEARS)
        service = made()
        service.start()

        async def is_kept() -> bool:
            try:
                await DeliveryClient(MemoryCarrier(service)).read(epoch.read())
            except Refused:
                return False
            return True

        try:
            await story(service, clock, is_kept)
        finally:
            await service.close()

    asyncio.run(main())


def test_a_service_that_starts_years_ahead_drops_nothing_before_its_clock_can_be_set_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(
        service: DeliveryService, clock: Clock, is_kept: Callable[[], Awaitable[bool]]
    ) -> None:
        await asyncio.sleep(0.2)
        assert await is_kept()
        assert service.gauges()["clock_far_ahead"] == 1
        clock.forward(-YEARS)
        await asyncio.sleep(0.2)
        assert await is_kept()
        assert service.gauges()["clock_far_ahead"] == 0

    _started_with_a_clock_of_years_ahead(tmp_path, 3600, story)
    said = [r for r in caplog.records if "clock went far ahead" in r.getMessage()]
    assert [vars(record)["days"] for record in said] == [YEARS // DAY]


def test_a_service_that_was_off_for_years_drops_what_is_too_old_a_while_later(
    tmp_path: Path,
) -> None:
    async def story(
        service: DeliveryService, _clock: Clock, is_kept: Callable[[], Awaitable[bool]]
    ) -> None:
        for _ in range(200):
            await asyncio.sleep(0.05)
            if not await is_kept():
                break
        assert not await is_kept()
        assert service.gauges()["clock_far_ahead"] == 0

    _started_with_a_clock_of_years_ahead(tmp_path, 0.2, story)
