"""A group whose tree travels in chunks is moved, and replaced (docs/delivery-protocol.md, D-SUC-9, D-CHK-1)."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from coterie.client import mailbox
from coterie.client import reforming as reforming_module
from coterie.client.chunks import WIDTH
from tests.client_world import World, texts
from tests.successions import group, group_of, jam, line, problems, run, same, suite

NAMES = tuple(f"u{n}" for n in range(WIDTH + 2))


@pytest.fixture(autouse=True)
def _few_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "STOCK", 2)
    monkeypatch.setattr(mailbox, "LOW_STOCK", 0)


def test_a_large_group_moves_and_takes_in_somebody_there(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        clients = await group_of(w, *NAMES)
        await group(clients[0]).reinitialise(cipher_suite=3)
        await w.settle(rounds=3)
        assert same(*clients)
        assert {suite(c) for c in clients} == {3}
        assert len({line(c).shared.root for c in clients}) == 1
        assert line(clients[1]).shared.root is not None
        late = await w.device("late")
        await group(clients[0]).add("late")
        await w.settle()
        await group(clients[3]).send("hello")
        await w.settle()
        assert same(late, *clients)
        assert texts(late) == ["hello"]

    run(tmp_path, story)


def test_a_large_group_is_replaced_and_followed_by_a_download(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        clients = await group_of(w, *NAMES, "mallory")
        await jam(w, clients[-1])
        del w.clients["mallory"]
        await group(clients[0]).reform(without=["mallory"])
        await w.settle()
        assert all(len(group(c).invitations()) == 1 for c in clients[1:-1])
        for client in clients[1:4]:
            await group(client).follow()
            assert client.vault.invitations() == []
        await w.settle()
        assert same(*clients[:4])

    run(tmp_path, story)


def test_a_large_group_by_who_has_no_right_holds_up_nothing(tmp_path: Path) -> None:
    async def story(w: World) -> None:
        clients = await group_of(w, *NAMES, "mallory")
        await jam(w, clients[-1])
        with (
            mock.patch.object(reforming_module, "may_reform", return_value=True),
            mock.patch.object(reforming_module, "_check_jammed"),
        ):
            await group(clients[-1]).reform()
        told = await w.settle("u1")
        assert any("no right to replace the group" in what for what in problems(told["u1"]))
        assert clients[1].vault.invitations() == []
        assert group(clients[1]).invitations() == []
        assert group(clients[1]).status == "stuck"

    run(tmp_path, story)
