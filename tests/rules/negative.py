"""Writes vectors/negative/*.json out of the cases: `python -m tests.rules.negative`.

Of each rule the first cases are taken, all framings for suite 1, one for the others; `--all` takes every case. What
starts from a state that no Welcome gives, or from local limits, is not expressible, and neither is what needs no
message. `--bare` leaves the extensions out of the GroupContext, and with them the cases that need those; a peer that
asks the clock needs the present time in the environment variable COTERIE_RULES_NOW.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError
from coterie.interop.negative import verify_negative
from coterie.interop.vectors.kind import Case as Vector
from coterie.mls.group import Limits
from coterie.mls.key_package import KeyPackageBundle
from coterie.mls.rules import Rule
from tests.rules.cases import CASES, Case
from tests.rules.forging import PSK, PUBLIC, Generation
from tests.rules.world import NOW, Attack, Join, JoinExternal, Receive, World, make

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "vectors/negative"
SUITES = {1: 3, 2: 2, 5: 2}
"""Suites, and how many cases of each rule are written."""
INEXPRESSIBLE = frozenset(
    {
        "an own Update that the receiver has lost, encrypted",
        "an own Update that the receiver has lost, in the clear",
    }
)
"""Titles of cases whose start is no Welcome and no message."""

Fields = dict[str, Any]


def chapters(suite: int, *, every: bool = False, bare: bool = False) -> dict[str, list[Fields]]:
    """The files of a suite: by chapter of the RFC, each with one case."""
    worlds = {warm: make(suite, warm=warm, passive=warm, bare=bare) for warm in (True, False)}
    start = _start(worlds[True])
    violations: dict[str, list[Fields]] = {}
    taken: Counter[Rule] = Counter()
    # What only repeats a case in the other framing comes last in suites of which less is written.
    for case in CASES if suite == 1 or every else sorted(CASES, key=_repeats):
        if not every and taken[case.rule] >= SUITES[suite]:
            continue
        written = _bare(case, worlds, start) if bare else _written(case, worlds)
        if written is not None:
            taken[case.rule] += 1
            violations.setdefault(case.rule.section.split(".")[0], []).append(written)
    return {chapter: [{**start, "violations": found}] for chapter, found in violations.items()}


def _written(case: Case, worlds: dict[bool, World]) -> Fields | None:
    world = worlds[case.warm]
    return _violation(case, case.make(world, world.forger("alice", case.framing)), world)


def _bare(case: Case, worlds: dict[bool, World], start: Fields) -> Fields | None:
    """A case in a group without extensions, if it breaks its rule there too."""
    # A case that counts on an extension finds nothing in its list, or a member refuses to make it.
    with contextlib.suppress(CoterieError, LookupError, StopIteration, AssertionError):
        written = _written(case, worlds)
        if written is not None:
            verify_negative(Vector({**start, "violations": [written]}))
        return written
    return None


def _repeats(case: Case) -> bool:
    return case.title.endswith(", in the clear")


def _start(world: World) -> Fields:
    assert world.start is not None
    bundle, welcome = world.start
    sent, epoch = world.forger("alice", PUBLIC).commit_and_epoch()
    return {
        "cipher_suite": int(world.suite.cipher_suite),
        "now": NOW,
        "external_psks": [
            {"psk_id": name.hex(), "psk": PSK.hex()} for name in (b"shared", b"shared too")
        ],
        "start": {**_keys(bundle), "welcome": welcome.hex()},
        "then": {
            "commit": sent.data.hex(),
            "epoch_authenticator": bytes(epoch.secrets.epoch_authenticator).hex(),
        },
    }


def _keys(bundle: KeyPackageBundle) -> Fields:
    return {
        "key_package": bundle.key_package.encode().hex(),
        "init_priv": bytes(bundle.init_key.private_bytes()).hex(),
        "encryption_priv": bytes(bundle.encryption_key.private_bytes()).hex(),
        "signature_priv": bytes(bundle.signature_key.private_bytes()).hex(),
    }


def _violation(case: Case, attack: Attack, world: World) -> Fields | None:
    head = {"rule": case.rule.value, "about": case.title}
    if case.title in INEXPRESSIBLE:
        return None
    if isinstance(attack, Receive):
        return {
            **head,
            "operation": "receive",
            "max_proposals": attack.limits.get("max_proposals", Limits().max_proposals),
            "before": _before(attack.history, 1) + _before(attack.after, 0),
            "message": attack.data.hex(),
            "consumes": [] if attack.consumed is None else [_generation(attack.consumed)],
        }
    if isinstance(attack, Join):
        return {
            **head,
            "operation": "join",
            **_keys(attack.bundle),
            "welcome": attack.welcome.hex(),
            "ratchet_tree": _hex(attack.tree),
            "groups": [group.hex() for group in sorted(attack.groups)],
            "continues": int(attack.continues is not None),
            "before": _before(attack.history, 1),
        }
    if isinstance(attack, JoinExternal):
        return {
            **head,
            "operation": "join_external",
            "group_info": attack.info.hex(),
            "ratchet_tree": _hex(attack.tree),
            "groups": [group.hex() for group in sorted(attack.groups)],
            "signature_priv": bytes(world.key("zoe").private_bytes()).hex(),
            "identity": b"zoe".hex(),
        }
    return None


def _before(messages: tuple[bytes, ...], adopt: int) -> list[Fields]:
    return [{"message": message.hex(), "adopt": adopt} for message in messages]


def _generation(generation: Generation) -> Fields:
    leaf, kind, number = generation
    return {"leaf": int(leaf), "ratchet": kind.label, "generation": number}


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def main() -> int:
    """Writes all files."""
    parser = argparse.ArgumentParser(description="Write the negative vectors.")
    parser.add_argument("--all", action="store_true", help="every case, not some of each rule")
    parser.add_argument("--bare", action="store_true", help="in a group without extensions")
    parser.add_argument("--suite", type=int, action="append", help="only this suite")
    parser.add_argument("--to", type=Path, default=DIRECTORY, help="the folder")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    for suite in options.suite or SUITES:
        found = chapters(suite, every=options.all, bare=options.bare)
        for chapter, cases in found.items():
            path = options.to / f"suite-{suite}-chapter-{chapter}.json"
            path.write_text(json.dumps(cases, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
