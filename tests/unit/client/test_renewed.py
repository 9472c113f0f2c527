"""Renewing a certificate under way: one place in each log, no certificate but the own one, nothing held up by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coterie.client import Client
from coterie.client.events import Problem
from coterie.errors import ServiceError
from coterie.transport import as_api
from coterie.transport.authentication import AuthenticationClient
from tests.client_world import World, texts, world


async def _two(w: World) -> tuple[Client, Client]:
    alice, bob = [await w.device(name) for name in ("alice", "bob")]
    await (await alice.create_group("Friends")).add("bob")
    await w.settle()
    return alice, bob


def _in_the_last_third(w: World) -> None:
    w.now += w.authentication.settings.certificate_lifetime * 3 // 4


def test_a_handle_from_before_the_renewal_has_the_same_place_in_the_log(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            held = alice.groups()[0]
            await held.send("before")
            _in_the_last_third(w)
            await w.settle()
            await held.send("by the handle from before")
            await alice.groups()[0].send("by a new one")
            await held.send("by the old one again")
            await w.settle(rounds=3)
            assert texts(bob)[1:] == [
                "by the handle from before",
                "by a new one",
                "by the old one again",
            ]
            assert {m.state.name for m in held.history()} == {"SENT"}

    asyncio.run(story())


@pytest.mark.parametrize("wrong", ["of another", "junk", "none", "outdated"])
def test_a_certificate_that_is_not_this_devices_is_not_taken(tmp_path: Path, wrong: str) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            old = alice.identity.stored
            lifetime = w.authentication.settings.certificate_lifetime
            chain = {
                "of another": bob.identity.stored.chain,
                "junk": (old.chain[0].replace(cert_data=b"junk"),),
                "none": (),
                "outdated": old.chain,
            }[wrong]
            w.now += lifetime + 7200 if wrong == "outdated" else lifetime * 3 // 4

            async def renew(*_: object) -> as_api.Issued:
                return as_api.Issued(old.device, old.user, old.realm, chain)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(AuthenticationClient, "renew", renew)
                with pytest.raises(ServiceError, match="not valid"):
                    await alice.renew_certificate()
            assert alice.identity.stored == old
            assert alice.vault.identity().stored == old  # type: ignore[union-attr]

    asyncio.run(story())


def test_a_certificate_that_cannot_be_renewed_yet_holds_up_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as w:
            alice, bob = await _two(w)
            _in_the_last_third(w)
            asked = 0

            async def renew(*_: object) -> as_api.Issued:
                nonlocal asked
                asked += 1
                raise ServiceError("the service is away")

            before = alice.identity.credential
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(AuthenticationClient, "renew", renew)
                await bob.groups()[0].send("hello")
                told = (await w.settle("alice", rounds=3))["alice"]
                w.now += 3600
                told += (await w.settle("alice"))["alice"]
                assert texts(alice) == ["hello"]
                assert asked == 2
                failed = [e.what for e in told if isinstance(e, Problem) and "renewed" in e.what]
                assert len(failed) == 1
            w.now += 3600
            await w.settle()
            assert alice.identity.credential != before

    asyncio.run(story())
