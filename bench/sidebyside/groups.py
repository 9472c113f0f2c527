"""Groups of any size and shape in which a peer's clients are members, without that peer having made them.

`bench.shapes` makes the tree with all private keys. One of its members then commits: it removes those at the first,
the second and the last leaf, and adds the peer's three clients, who come to stand where the removed ones stood. What
they get is an ordinary Welcome with the tree beside. The nodes above the three are blank after that; each of them
commits once, and the tree is as warm as it was before.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from bench.shapes import Shape, build
from coterie.mls.framing import MLSMessage
from coterie.mls.group import CommitOptions, Group, Limits
from coterie.mls.key_package import KeyPackage
from coterie.mls.leaf_node import Lifetime
from coterie.mls.proposal import Proposal, Remove
from coterie.mls.tree_math import LeafIndex

LEAST = 4
"""Smaller groups have no leaf for the member who invites."""
INVITING = 2
HOUR, DAY = 3600, 24 * 3600


def lifetime() -> Lifetime:
    """Of all leaves and key packages: from an hour ago for four weeks."""
    now = int(time.time())
    return Lifetime(now - HOUR, now + 28 * DAY)


@lru_cache(maxsize=2)
def shape_of(members: int, shape: str, suite: int) -> Shape:
    """A group with all its private keys; the last one is kept for the next peer."""
    return build(members, shape, suite=suite, lifetime=lifetime())


def spoiled(suite: int) -> Shape:
    """A group that nobody should join: a leaf's signature is wrong, all else is right."""
    return build(16, "warm", suite=suite, lifetime=lifetime(), spoiled=5)


@lru_cache(maxsize=1)
def key_packages(count: int, suite: int) -> tuple[str, ...]:
    """As many newcomers' key packages, in base64."""
    made = shape_of(2, "warm", suite)
    return tuple(
        _text(MLSMessage.of(made.bundle(b"newcomer %d" % number, lifetime=lifetime()).key_package))
        for number in range(count)
    )


def _text(message: MLSMessage) -> str:
    return b64encode(message.encode()).decode()


def invite(shape: Shape, packages: Sequence[str]) -> tuple[str, str]:
    """Welcome and tree for three clients who become the first, the second and the last member."""
    # Not all libraries limit the lifetime of their key packages.
    config = replace(shape.config, limits=Limits(max_lifetime=None))
    group: Group = shape.member(INVITING, config)
    now, places = int(time.time()), [0, 1, shape.n - 1]
    bodies = [MLSMessage.read(b64decode(package)).body for package in packages]
    added = [
        body.validate(shape.suite, config.authenticator, now=now, max_lifetime=None)
        for body in bodies
        if isinstance(body, KeyPackage)
    ]
    removed = [Proposal.of(Remove(LeafIndex(place))) for place in places]
    pending = group.commit([*removed, *added], now=now, options=CommitOptions(tree_inside=False))
    assert [add.leaf for add in pending.commit.added] == places
    assert pending.welcome is not None
    assert pending.next is not None
    return _text(pending.welcome), b64encode(pending.next.epoch.tree.encode()).decode()
