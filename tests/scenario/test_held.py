"""The walk over a group's memory finds what is not named, and what was given up and is still there."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from coterie.mls.crypto import SignaturePrivateKey
from coterie.mls.hpke import HPKEPrivateKey
from coterie.mls.proposal import Add, Proposal
from coterie.mls.secret import Secret
from tests.scenario.held import Watch, reached, secret_values
from tests.scenario.world import Seat, World


def _lived(suite: int = 1) -> tuple[World, Seat]:
    """A group of two, some messages and a restart old."""
    world = World(suite)
    [founder] = world.seats.values()
    group = founder.group
    group.commit([Proposal.of(Add(world.invite().key_package))], now=world.clock())
    founder.save()
    assert world.submit(founder)
    other = next(seat for seat in world.seats.values() if seat is not founder)
    for text in (b"one", b"two"):
        data = other.group.encrypt(text).encode()
        other.save()
        group.receive(data, now=world.clock())
        founder.save()
        world.check()
    founder.restart()
    world.check()
    return world, founder


@pytest.mark.parametrize("suite", [1, 2, 4])
def test_a_secret_that_is_not_named_is_found(suite: int) -> None:
    _, seat = _lived(suite)
    seat.watch.check(seat.group)
    for unnamed in (
        Secret(bytes(range(32))),
        seat.group.suite.generate_hpke_key(seat.client.config.rng),
        seat.group.suite.generate_hpke_key(seat.client.config.rng).key,
        seat.group.suite.generate_signature_key(seat.client.config.rng).key,
    ):
        seat.group._proposals.leak = [SimpleNamespace(inside=unnamed)]  # type: ignore[attr-defined]
        with pytest.raises(AssertionError, match=r"\(1, 0\)"):
            seat.watch.check(seat.group)
    del seat.group._proposals.leak  # type: ignore[attr-defined]


def test_a_secret_that_was_given_up_and_is_kept_as_plain_bytes_is_found() -> None:
    world, seat = _lived()
    held = secret_values(reached(seat.group._keys))
    kept = b"in the middle of " + max(held) + b" something"
    seat.group.commit(now=world.clock())
    seat.save()
    assert world.submit(seat)
    watch = Watch()
    watch._ever = held
    seat.group._proposals.kept = kept  # type: ignore[attr-defined]
    gone = held - secret_values(reached(seat.group))
    assert gone
    if max(held) not in gone:
        seat.group._proposals.kept = min(gone)  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="still in memory"):
        watch.check(seat.group)


def test_no_private_key_lives_anywhere_else() -> None:
    world, _ = _lived()
    gc.collect()
    kinds = (HPKEPrivateKey, SignaturePrivateKey)
    before = {id(each) for each in gc.get_objects() if isinstance(each, kinds)}
    [founder, other] = world.seats.values()
    for seat in (founder, other, founder):
        seat.group.commit(now=world.clock())
        seat.save()
        assert world.submit(seat)
        world.read(other)
        world.read(founder)
    gc.collect()
    alive = [e for e in gc.get_objects() if isinstance(e, kinds) and id(e) not in before]
    assert alive
    known = {id(each) for each in reached(*[seat.group for seat in world.seats.values()])}
    assert [each for each in alive if id(each) not in known] == []
