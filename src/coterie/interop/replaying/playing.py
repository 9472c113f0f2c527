"""Goes through peers and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from coterie.interop.replaying import differential, passive
from coterie.interop.replaying.client import ReplayClient
from coterie.interop.replaying.pages import Played
from coterie.interop.runner.peers import built, peers_folder


def play(
    names: Sequence[str],
    suites: Iterable[int],
    seed: int,
    negative: Iterable[Path],
    told: Callable[[str], object],
) -> tuple[Played, list[str]]:
    """Plays everything through each peer; gives the results, and why some peers are not there.

    The passive-client vectors are fresh ones of each suite, the negative ones those of some folders.
    """
    startables, missing = built(peers_folder(), names)
    vectors = [
        vector
        for suite in suites
        for grease in (False, True)
        for vector in passive.vectors(suite, seed, grease=grease)
    ]
    groups = {folder.name: differential.read_cases(folder) for folder in negative}
    played = Played({each.name: each.version for each in startables})
    for each in startables:
        with ReplayClient(each.name, each.command) as client:
            followed = [passive.play(client, vector) for vector in vectors]
            tried = [
                r
                for group, cases in groups.items()
                for r in differential.play(client, group, cases)
            ]
        played.passive += followed
        played.differential += tried
        told(f"{each.name}: passive clients {_counted(r.outcome for r in followed)}")
        told(f"{each.name}: negative vectors {_counted(r.outcome.value for r in tried)}")
    return played, missing


def _counted(outcomes: Iterable[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in Counter(outcomes).items()) or "none"
