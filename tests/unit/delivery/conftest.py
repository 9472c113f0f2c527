"""A service in memory whose rates do not get in the way, a clock to move, and one log."""

from __future__ import annotations

import pytest

from tests.delivery_bench import Bench
from tests.delivery_model import ModelEpoch


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def epoch(bench: Bench) -> ModelEpoch:
    return bench.new_log()
