"""A command that takes long shows how far it is, and loses nothing of what happened meanwhile."""

from __future__ import annotations

import asyncio
import io
from typing import cast

import pytest
from rich.console import Console

from coterie.apps import terminal
from coterie.client import Client
from coterie.client.events import Event, Joining, MessageReceived


class Slow:
    """A client whose `sync` takes some rounds of the bar; with each something is told."""

    def __init__(self, *events: Event, rounds: int) -> None:
        self.events, self.rounds = list(events), rounds
        self.asked = asyncio.Event()

    async def sync(self) -> None:
        """Waits until the bar has asked often enough."""
        if self.rounds:
            await self.asked.wait()

    def pending_events(self) -> list[Event]:
        """One more of them each time."""
        self.rounds -= 1
        if self.rounds <= 0:
            self.asked.set()
        told, self.events = self.events[:1], self.events[1:]
        return told


def online(
    client: Slow, monkeypatch: pytest.MonkeyPatch, *, watched: bool
) -> tuple[str, tuple[bool, list[Event]]]:
    """What a terminal shows while a client syncs, and what `go_online` answers."""
    shown = io.StringIO()

    def console(**_options: object) -> Console:
        return Console(file=shown, force_terminal=True, width=100)

    monkeypatch.setattr(terminal, "Console", console)
    monkeypatch.setattr(terminal, "is_watched", lambda: watched)
    monkeypatch.setattr(terminal, "_LONG", 0.001)
    answer = asyncio.run(terminal.go_online(cast("Client", client)))
    return shown.getvalue(), answer


EVENTS = (Joining("g", "The [b]many[/b]\x1b", 3, 70), MessageReceived("g", "m", "bob", "hi", 1))


def test_long_work_shows_how_far_it_is_and_tells_everything_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Slow(*EVENTS, Joining("g", "Few", 1, 2), rounds=2)
    shown, (is_online, told) = online(client, monkeypatch, watched=True)
    assert "getting the members of The [b]many[/b]⟨U+001B⟩" in shown
    assert "3/70" in shown
    assert is_online
    assert told == [*EVENTS, Joining("g", "Few", 1, 2)]


def test_where_nobody_looks_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, (is_online, told) = online(Slow(*EVENTS, rounds=0), monkeypatch, watched=False)
    assert not shown
    assert is_online
    assert told == [EVENTS[0]]
