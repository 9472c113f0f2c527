"""Every way in which a rule is broken on purpose. Importing this package fills `registry.CASES`.

A case is a function of a world and a forging member that returns an attack; the tests run it, and the negative vectors
are made of it.
"""

from __future__ import annotations

from tests.rules.cases import (
    after,
    commits,
    encoding,
    framing,
    greased,
    joining,
    key_packages,
    leaves,
    proposals,
    trees,
)
from tests.rules.cases.registry import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "after",
    "commits",
    "encoding",
    "framing",
    "greased",
    "joining",
    "key_packages",
    "leaves",
    "proposals",
    "trees",
]
