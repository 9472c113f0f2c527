from __future__ import annotations

from importlib.metadata import version

import coterie


def test_installed_version_is_the_version_of_the_sources() -> None:
    assert version("coterie") == coterie.__version__, "stale installation: run `make setup`"
