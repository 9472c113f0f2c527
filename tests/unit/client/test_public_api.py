"""What is public of the client is what `docs/embedding.md` lists, and scripts have all of it."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path

import pytest

from coterie import client as package
from coterie.client import BlockingClient, BlockingGroup, Client, GroupHandle, events
from coterie.errors import StateError
from coterie.storage import StorageKey

PAGE = (Path(__file__).parents[3] / "docs" / "embedding.md").read_text(encoding="utf-8")
INSIDE = {
    "identity": "the device's keys",
    "tools": "what the parts of a client share",
    "vault": "the storage",
    "publish": "done by sync",
    "refresh_revocations": "done by sync, and before anybody is added",
    "renew_certificate": "done by sync",
    "try_sync": "what each method of a group does",
    "reform": "GroupHandle.reform",
    "follow": "GroupHandle.follow",
    "decline": "GroupHandle.decline",
}
"""What `Client` has without an underscore for its other modules, and what programs use instead."""


def _names(of: type) -> set[str]:
    found = {name for name in dir(of) if not name.startswith("_")}
    return found - set(INSIDE) if of is Client else found


@pytest.mark.parametrize(("of", "variable"), [(Client, "client"), (GroupHandle, "group")])
def test_the_page_lists_every_call_and_no_other(of: type, variable: str) -> None:
    listed = set(re.findall(rf"(?<!coterie\.)\b{variable}\.(\w+)", PAGE)) - {"py"}
    opened = set(re.findall(r"\bClient\.(\w+)", PAGE)) if of is Client else set()
    assert listed | opened == _names(of)


def test_the_page_lists_every_event() -> None:
    section = PAGE.partition("| event | when |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {
        name
        for name, value in vars(events).items()
        if inspect.isclass(value) and issubclass(value, events.Event) and value is not events.Event
    }
    assert listed == there


def test_nothing_else_is_exported() -> None:
    assert set(package.__all__) == {"BlockingClient", "BlockingGroup", "Client", "GroupHandle"}


@pytest.mark.parametrize(("of", "facade"), [(Client, BlockingClient), (GroupHandle, BlockingGroup)])
def test_scripts_have_every_call_and_none_is_left_to_be_awaited(of: type, facade: type) -> None:
    assert _names(facade) == _names(of)
    waiting = [name for name in _names(of) if inspect.iscoroutinefunction(getattr(of, name))]
    assert len(waiting) > 5
    for name in waiting:
        call = getattr(facade, name)
        assert not inspect.iscoroutinefunction(call), name
        assert not call.__code__.co_qualname.startswith("_same"), name


def test_the_blocking_client_says_where_it_is_out_of_place(tmp_path: Path) -> None:
    async def story() -> None:
        with (
            pytest.raises(StateError, match=r"coterie\.client\.Client"),
            BlockingClient.open(tmp_path, StorageKey.given(bytes(32))),
        ):
            pass

    asyncio.run(story())
