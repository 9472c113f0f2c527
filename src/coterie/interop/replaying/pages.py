"""What came of playing vectors through the peers: a section of docs/interop.md, and docs/differential.md."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coterie.errors import DecodeError
from coterie.interop.replaying.differential import DifferentialResult, Outcome
from coterie.interop.replaying.judgements import Judgement, Who, judgement_of
from coterie.interop.replaying.passive import DIFFERENT, GENERATORS, PassiveResult
from coterie.interop.tables import flat, spans, table

DIFFERENCES = frozenset({Outcome.ACCEPTED, Outcome.SPOILT, Outcome.BROKE})
"""Outcomes in which a peer does otherwise than we do."""

_PASSIVE = """## Our passive-client vectors

The other way round: vectors of the three passive-client kinds that `coterie vectors generate` makes, played through
each peer's own calls by `coterie interop vectors`, in the format of the official files. A peer has accepted a vector if
it joins, takes every proposal and Commit, and comes to the epoch authenticator that the vector says in each epoch.
"""

_DIFFERENTIAL = """# The same malformed messages, given to everybody

Written by `coterie interop vectors`; do not edit. `make interop-vectors` makes the vectors and plays them again.

The [negative vectors](negative-vectors.md), every case of them, are given to the peers through their own calls: a
client joins by a Welcome, receives messages, and receives one that breaks one rule. We refuse each, by its rule. Where
a peer does not, one of us is wrong, or the RFC leaves it open; the tables say which. `full` is a group with our
extensions in the GroupContext, `bare` one without, for peers that do not know extensions beyond the RFC's.

- **refused**: as we do, and the valid Commit is accepted afterwards.
- **kept**: a wrong proposal is kept; the RFC lets a client judge it when a Commit covers it, which other cases do.
- **accepted**: not refused. **ended**: the process ends. **spoilt**: refused, but then the valid Commit is refused too.
- **lacking**: the peer has no such thing. **unreached**: it does not come to the epoch where it would happen.
"""

_VERDICTS = {
    Who.PEER: "## The peer is wrong",
    Who.OPEN: "## The RFC leaves it open",
    Who.APPLICATION: "## The application decides",
}
_NAMES = {Outcome.BROKE: "ended"}


@dataclass
class Played:
    """Everything that was played, and the versions that played."""

    versions: dict[str, str] = field(default_factory=dict)
    passive: list[PassiveResult] = field(default_factory=list)
    differential: list[DifferentialResult] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self)

    @property
    def wrong(self) -> list[PassiveResult]:
        """Passive-client vectors that lead a peer to another epoch than us."""
        return [each for each in self.passive if each.outcome == DIFFERENT]

    @property
    def differences(self) -> list[DifferentialResult]:
        """What peers did otherwise than we."""
        return [each for each in self.differential if each.outcome in DIFFERENCES]

    @property
    def unjudged(self) -> list[DifferentialResult]:
        """Differences that nobody has judged yet."""
        return [each for each in self.differences if judgement_of(each.rule, each.about) is None]


def read_played(path: Path) -> Played:
    """What a run wrote; raises `DecodeError` for another file."""
    try:
        data = json.loads(path.read_text())
        passive = [PassiveResult(**each) for each in data["passive"]]
        differential = [
            DifferentialResult(**{**each, "outcome": Outcome(each["outcome"])})
            for each in data["differential"]
        ]
        return Played(dict(data["versions"]), passive, differential)
    except (ValueError, TypeError, KeyError) as error:
        msg = f"{path} is no result of `coterie interop vectors`: {error}"
        raise DecodeError(msg) from error


def passive_section(played: Played) -> str:
    """The section of docs/interop.md."""
    if not played.passive:
        return ""
    rows = []
    for grease in (False, True):
        for kind in GENERATORS:
            row = [kind, "with" if grease else "without"]
            for peer in played.versions:
                chosen = (peer, kind, grease)
                found = [r for r in played.passive if (r.peer, r.kind, r.grease) == chosen]
                row.append(_accepted(found))
            rows.append(row)
    head = ("kind", "GREASE values", *played.versions)
    return f"{_PASSIVE}\n{table(head, rows)}\n{_reasons(played.passive)}"


def _accepted(found: Sequence[PassiveResult]) -> str:
    able = [each for each in found if each.outcome != "lacking"]
    if not able:
        return "–"
    fine = [each for each in able if each.outcome == "ok"]
    epochs = sum(each.epochs for each in fine)
    suites = spans({each.suite for each in able})
    return f"{len(fine)} of {len(able)} in suites {suites}, {epochs} epochs"


def _reasons(found: Iterable[PassiveResult]) -> str:
    stopped = Counter(
        (r.peer, r.kind, flat(r.words)) for r in found if r.outcome not in {"ok", "lacking"}
    )
    lines = [
        f"- {peer} stops in {count} of {kind}: {words}\n"
        for (peer, kind, words), count in stopped.items()
    ]
    return "".join(lines) or "All are accepted.\n"


def differential_page(played: Played) -> str:
    """The text of docs/differential.md."""
    parts = [_DIFFERENTIAL, _counts(played)]
    grouped: dict[tuple[str, Judgement | None], list[DifferentialResult]] = defaultdict(list)
    for each in played.differences:
        grouped[each.rule, judgement_of(each.rule, each.about)].append(each)
    for who, title in _VERDICTS.items():
        rows = [
            _row(rule, judgement, found)
            for (rule, judgement), found in sorted(grouped.items(), key=lambda g: _place(g[0][0]))
            if judgement is not None and judgement.who is who
        ]
        if rows:
            head = ("rule", "RFC 9420", "accepted by", "cases", "verdict")
            parts.append(f"{title}\n\n{table(head, rows)}")
    if unjudged := {(each.peer, each.rule, each.about) for each in played.unjudged}:
        parts.append("## Nobody has judged\n\n" + table(("who", "rule", "case"), sorted(unjudged)))
    parts.append(_ended(played))
    return "\n".join(part for part in parts if part)


def _counts(played: Played) -> str:
    rows = []
    for peer, version in played.versions.items():
        for group in dict.fromkeys(each.group for each in played.differential):
            found = [
                each for each in played.differential if (each.peer, each.group) == (peer, group)
            ]
            counted = Counter(each.outcome for each in found)
            suites = spans({each.suite for each in found})
            numbers = [str(counted[outcome]) for outcome in Outcome]
            rows.append([f"{peer} {version}", group, suites, str(len(found)), *numbers])
    head = ("peer", "group", "suites", "cases", *(_NAMES.get(o, o.value) for o in Outcome))
    return f"## How many\n\n{table(head, rows)}"


def _row(rule: str, judgement: Judgement, found: Sequence[DifferentialResult]) -> list[str]:
    who = dict.fromkeys(
        each.peer
        + (
            f" ({_NAMES.get(each.outcome, each.outcome.value)})"
            * (each.outcome is not Outcome.ACCEPTED)
        )
        for each in found
    )
    # The two framings of a case are one for a reader.
    cases = dict.fromkeys(
        each.about.removesuffix(", encrypted").removesuffix(", in the clear") for each in found
    )
    section = rule.split("/", maxsplit=1)[0]
    return [f"`{rule}`", f"§{section}", ", ".join(who), "; ".join(cases), judgement.why]


def _place(rule: str) -> tuple[list[int], str]:
    section, name = rule.split("/", maxsplit=1)
    return [int(part) for part in section.split(".")], name


def _ended(played: Played) -> str:
    ended = Counter(
        (each.peer, each.about.removesuffix(", encrypted").removesuffix(", in the clear"))
        for each in played.differential
        if each.outcome is Outcome.BROKE
    )
    if not ended:
        return ""
    lines = "".join(f"- {peer}: {about}\n" for peer, about in ended)
    return (
        "## Messages that end the process\n\nA program that receives one of these has to be started again: our driver "
        "catches whatever a call throws, and nobody can catch these. (Of several promises that fail, chance says which "
        f"is first, so the numbers above may differ by a few.)\n\n{lines}"
    )
