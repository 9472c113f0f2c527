"""The negative vectors given to a peer: each breaks one rule, and we refuse all of them.

A violation is tried as docs/negative-vectors.md says. Where the peer accepts what we refuse, one of us is wrong, or the
RFC leaves it open; `judgements` says which. A peer that keeps a wrong proposal has not accepted it yet: the RFC lets it
judge when a Commit covers the proposal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError, DecodeError
from coterie.interop.negative import NEGATIVE
from coterie.interop.replaying.client import Answer, ReplayClient, Said
from coterie.interop.replaying.passive import KEYS
from coterie.interop.vectors.kind import Case as Checked
from coterie.mls.crypto import suite_of
from coterie.mls.framing import MLSMessage, PublicMessage
from coterie.mls.group import Limits
from coterie.mls.key_package import KeyPackage
from coterie.mls.types import ContentType

Case = dict[str, Any]


class Outcome(StrEnum):
    """What a peer makes of a violation."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    KEPT = "kept"
    """It keeps the proposal, and would judge it in a Commit."""
    SPOILT = "spoilt"
    """It refuses, but then it does not take the valid Commit either."""
    LACKING = "lacking"
    """It has no such thing."""
    UNREACHED = "unreached"
    """It does not come to the epoch in which the violation happens."""
    BROKE = "broke"
    """Its process ended."""


@dataclass(frozen=True, slots=True)
class DifferentialResult:
    """One violation, once given to one peer."""

    peer: str
    group: str
    """Where the vector is from: the name of its folder."""
    suite: int
    rule: str
    about: str
    operation: str
    outcome: Outcome
    words: str = ""


def read_cases(folder: Path) -> list[Case]:
    """The cases of all files of a folder; raises `DecodeError` where one is no negative vector that we pass."""
    found = []
    for path in sorted(folder.glob("*.json")):
        for case in json.loads(path.read_text()):
            try:
                NEGATIVE.verify(Checked(case))
            except CoterieError as error:
                msg = f"{path}: {error}"
                raise DecodeError(msg) from error
            found.append(case)
    if not found:
        msg = f"there are no negative vectors in {folder}"
        raise DecodeError(msg)
    return found


def play(client: ReplayClient, group: str, cases: Iterable[Case]) -> Iterator[DifferentialResult]:
    """Gives a peer every violation of some cases, but those of a bound that is each client's own to set."""
    usual = Limits().max_proposals
    for case in cases:
        for violation in case["violations"]:
            if violation.get("max_proposals", usual) == usual:
                yield _result(client, group, case, violation)


def _result(client: ReplayClient, group: str, case: Case, violation: Case) -> DifferentialResult:
    outcome, words = _Trial(client, case, violation).run()
    return DifferentialResult(
        client.name,
        group,
        case["cipher_suite"],
        violation["rule"],
        violation["about"],
        violation["operation"],
        outcome,
        words,
    )


class _Trial:
    def __init__(self, client: ReplayClient, case: Case, violation: Case) -> None:
        self.client, self.case, self.violation = client, case, violation
        self.same_epoch = True

    def run(self) -> tuple[Outcome, str]:
        """The outcome, and the peer's words."""
        psks = [(psk["psk_id"], psk["psk"]) for psk in self.case["external_psks"]]
        begun = self.client.begin(self.case["cipher_suite"], self.case["now"], psks)
        if not begun.fine:
            return _stopped(begun)
        operation = self.violation["operation"]
        if operation == "receive" or self.violation.get("continues"):
            start = self.case["start"]
            joined = self.client.join(_keys(start), start["welcome"], "")
            if not joined.fine:
                return _stopped(joined)
            for each in self.violation["before"]:
                before = self.client.receive(each["message"])
                if not before.fine:
                    # A wrong proposal may be refused before the Commit that covers it.
                    return _stopped(before) if each["adopt"] else self._judged(before)
                self.same_epoch = self.same_epoch and before.text == joined.text
        return self._judged(getattr(self, f"_{operation}")())

    def _receive(self) -> Answer:
        return self.client.receive(self.violation["message"])

    def _join(self) -> Answer:
        violation = self.violation
        tree, continues = violation["ratchet_tree"] or "", violation["continues"]
        return self.client.join(_keys(violation), violation["welcome"], tree, continues=continues)

    def _join_external(self) -> Answer:
        suite = suite_of(self.case["cipher_suite"])
        key = suite.load_signature_key(bytes.fromhex(self.violation["signature_priv"]))
        return self.client.ask(
            "join_external",
            group_info=self.violation["group_info"],
            ratchet_tree=self.violation["ratchet_tree"] or "",
            identity=self.violation["identity"],
            signature_priv=self.violation["signature_priv"],
            signature_pub=key.public.hex(),
        )

    def _judged(self, answer: Answer) -> tuple[Outcome, str]:
        if answer.fine:
            return (Outcome.KEPT if self._is_proposal() else Outcome.ACCEPTED), ""
        if answer.said is not Said.REFUSED or self.violation["operation"] != "receive":
            return Outcome(answer.said), answer.text
        if self.same_epoch:
            valid = self.client.receive(self.case["then"]["commit"])
            if not valid.fine or valid.text != self.case["then"]["epoch_authenticator"]:
                return Outcome.SPOILT, f"{answer.text}; then: {valid.text}"
        return Outcome.REFUSED, answer.text

    def _is_proposal(self) -> bool:
        if self.violation["operation"] != "receive":
            return False
        try:
            body = MLSMessage.read(bytes.fromhex(self.violation["message"])).body
        except CoterieError:
            return False
        content = body.content if isinstance(body, PublicMessage) else body
        return getattr(content, "content_type", None) == ContentType.PROPOSAL


def _stopped(answer: Answer) -> tuple[Outcome, str]:
    outcome = Outcome.UNREACHED if answer.said is Said.REFUSED else Outcome(answer.said)
    return outcome, answer.text


def _keys(start: Case) -> Case:
    """The key package as an MLSMessage, as peers want it, and its private keys."""
    keys = {name: start[name] for name in KEYS}
    package = KeyPackage.decode(bytes.fromhex(start["key_package"]))
    return {**keys, "key_package": MLSMessage.of(package).encode().hex()}
