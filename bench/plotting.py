"""Plots that come out alike from alike figures; needs matplotlib (the extra `bench`)."""

from __future__ import annotations

from typing import Any


def pyplot() -> Any:  # noqa: ANN401 - matplotlib need not be installed
    """The module of that name, set to write SVG; raises ImportError where there is none."""
    import matplotlib as mpl  # noqa: PLC0415 - pages can be made without it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "coterie", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    return plt
