"""A group that is past help is replaced by another one (docs/delivery-protocol.md, D-SUC-6 and D-SUC-7)."""

from __future__ import annotations

from pathlib import Path

from coterie.client.events import Invited, Moved
from tests.client_world import REALM, World, texts
from tests.successions import group, group_of, jam, run, same

HONEST = ("alice", "bob", "carol")


def test_a_jammed_group_is_replaced_without_the_offender_in_one_step(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        alice, bob, carol, mallory = await group_of(w, "alice", "bob", "carol", "mallory")
        await bob.groups()[0].send("before")
        await w.settle()
        ids = [group(c).id for c in (alice, bob, carol)]
        await jam(w, mallory)
        await group(alice).reform(without=["mallory"])
        told = await w.settle(*HONEST)
        for label, client in (("bob", bob), ("carol", carol)):
            (asked,) = [e for e in told[label] if isinstance(e, Invited)]
            assert (asked.by, asked.missing) == (f"alice@{REALM}", (f"mallory@{REALM}",))
            assert group(client).status == "stuck", "nobody goes there unasked"
            await group(client).follow()
            assert any(isinstance(e, Moved) for e in client.pending_events())
        await group(bob).send("after")
        await w.settle(*HONEST)
        assert same(alice, bob, carol)
        assert ids == [group(c).id for c in (alice, bob, carol)]
        for client in (alice, bob, carol):
            assert texts(client) == ["before", "after"]
            assert set(group(client).members()) == {f"{n}@{REALM}" for n in HONEST}
            assert group(client).invitations() == []

    run(tmp_path, story)
