"""Our passive-client vectors played through a peer: does it follow the group from epoch to epoch as we do?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from coterie.interop.replaying.client import Answer, ReplayClient, Said
from coterie.interop.vectors.groups import (
    generate_passive_client_handling_commit,
    generate_passive_client_random,
    generate_passive_client_welcome,
)
from coterie.interop.vectors.kind import seeded
from coterie.mls.crypto import suite_of

GENERATORS: Final = {
    "passive-client-welcome": generate_passive_client_welcome,
    "passive-client-handling-commit": generate_passive_client_handling_commit,
    "passive-client-random": generate_passive_client_random,
}
KEYS: Final = ("key_package", "init_priv", "encryption_priv", "signature_priv")
DIFFERENT: Final = "different"
"""The outcome where a peer comes to another epoch authenticator than the vector says."""

Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PassiveResult:
    """One vector, once played: how many epochs the peer followed, and what stopped it."""

    peer: str
    kind: str
    grease: bool
    """Whether capabilities and extensions have values of GREASE types."""
    suite: int
    number: int
    outcome: str
    epochs: int
    of: int
    words: str = ""


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector as it stands in a file of its kind, and which one it is there."""

    kind: str
    grease: bool
    number: int
    case: Case


def vectors(suite: int, seed: int, *, grease: bool) -> list[Vector]:
    """Fresh vectors of all three kinds; the same seed gives the same ones."""
    return [
        Vector(kind, grease, number, dict(case))
        for kind, generate in GENERATORS.items()
        for number, case in enumerate(
            generate(suite_of(suite), seeded(seed * 65536 + suite), grease=grease)
        )
    ]


def play(client: ReplayClient, vector: Vector) -> PassiveResult:
    """Plays one vector to its end, or to where the peer refuses or differs."""
    stopped, followed = _played(client, vector.case)
    outcome, words = ("ok", "") if stopped is None else (str(stopped.said), stopped.text)
    if stopped is not None and stopped.fine:
        outcome, words = DIFFERENT, f"the epoch authenticator is {stopped.text[:16]}…"
    return PassiveResult(
        client.name,
        vector.kind,
        vector.grease,
        vector.case["cipher_suite"],
        vector.number,
        outcome,
        followed,
        len(vector.case["epochs"]) + 1,
        words,
    )


def _played(client: ReplayClient, case: Case) -> tuple[Answer | None, int]:
    """What stopped the peer, if anything, and how many epochs it reached."""
    psks = [(psk["psk_id"], psk["psk"]) for psk in case["external_psks"]]
    begun = client.begin(case["cipher_suite"], int(time.time()), psks)
    if not begun.fine:
        return begun, 0
    keys = {name: case[name] for name in KEYS}
    joined = client.join(keys, case["welcome"], case["ratchet_tree"] or "")
    if not _is(joined, case["initial_epoch_authenticator"]):
        return joined, 0
    for number, epoch in enumerate(case["epochs"], 1):
        for message in epoch["proposals"]:
            kept = client.receive(message)
            if not kept.fine:
                return kept, number
        received = client.receive(epoch["commit"])
        if not _is(received, epoch["epoch_authenticator"]):
            return received, number
    return None, len(case["epochs"]) + 1


def _is(answer: Answer, authenticator: str) -> bool:
    return answer.said is Said.OK and answer.text == authenticator
