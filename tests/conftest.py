"""What every test may use: the directory of specifications and vectors, and the settings of hypothesis."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from coterie.mls.sodium import use_libsodium

if os.environ.get("COTERIE_PRIMITIVES") == "libsodium":
    use_libsodium()

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores interrupts, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: the machines that run this are slow in their own ways, and a suite that fails by chance is not believed.
settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory with `specs/` and `test-vectors/`: COTERIE_SHARED, or `../shared` beside the checkout."""
    named = os.environ.get("COTERIE_SHARED")
    directory = Path(named) if named else ROOT.parent / "shared"
    if not directory.is_dir():
        pytest.skip(
            f"{directory} is not there; set COTERIE_SHARED to the directory with the official vectors"
        )
    return directory
