"""Our vectors played through other implementations: the line protocol, the outcomes, the pages, and ts-mls itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import CoterieError, DecodeError
from coterie.interop.negative import NEGATIVE
from coterie.interop.replaying import differential, passive
from coterie.interop.replaying.client import Answer, ReplayClient, Said
from coterie.interop.replaying.differential import DifferentialResult, Outcome
from coterie.interop.replaying.judgements import Who, judgement_of, judgements
from coterie.interop.replaying.pages import Played, differential_page, passive_section, read_played
from coterie.interop.vectors.kind import Case
from coterie.mls.framing import MLSMessage
from coterie.mls.key_package import KeyPackage
from coterie.mls.rules import Rule
from coterie.mls.types import GREASE_VALUES
from tests.rules.negative import chapters

ROOT = Path(__file__).resolve().parents[2]

PEER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    answer = ANSWERS.get(asked["do"], {"ok": ""})
    if answer == "end":
        sys.exit(1)
    print(json.dumps(answer), flush=True)
"""


def peer(**answers: object) -> ReplayClient:
    """A peer that answers each thing to do always alike."""
    program = PEER.replace("ANSWERS", repr(answers))
    return ReplayClient("a peer", [sys.executable, "-c", program])


def package_of(case: dict[str, Any]) -> KeyPackage:
    """The key package of a passive-client vector."""
    body = MLSMessage.read(bytes.fromhex(case["key_package"])).body
    assert isinstance(body, KeyPackage)
    return body


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    """Some negative vectors, and what a valid Commit leads to."""
    (found,) = chapters(1)["9"]
    return found


# -- the line protocol


def test_a_peer_is_asked_line_by_line_and_started_again_after_it_ended() -> None:
    with peer(receive={"refused": "no"}, join="end") as client:
        assert client.begin(1, 0) == Answer(Said.OK)
        assert client.receive("00") == Answer(Said.REFUSED, "no")
        assert client.join({}, "", "").said is Said.BROKE
        assert client.begin(1, 0).fine


def test_a_peer_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.interop.replaying.client.PATIENCE", 0.05)
    with ReplayClient("a peer", [sys.executable, "-c", "import time; time.sleep(60)"]) as client:
        answer = client.receive("00")
    assert answer.said is Said.BROKE
    assert "no answer" in answer.text


# -- passive clients


def test_passive_vectors_for_peers_have_all_kinds_and_grease_only_where_it_is_asked_for() -> None:
    for grease in (False, True):
        vectors = passive.vectors(1, 7, grease=grease)
        assert {vector.kind for vector in vectors} == set(passive.GENERATORS)
        for vector in vectors:
            leaf = package_of(vector.case).leaf_node
            listed = GREASE_VALUES.intersection(leaf.capabilities.extensions)
            assert bool(listed) is bool(leaf.extensions) is grease


def test_a_peer_passes_where_it_comes_to_every_authenticator() -> None:
    (vector, *_) = passive.vectors(1, 7, grease=False)
    wanted = vector.case["initial_epoch_authenticator"]
    with peer(join={"ok": wanted}) as client:
        result = passive.play(client, vector)
    assert (result.outcome, result.epochs, result.of) == ("ok", 1, 1)
    with peer(join={"ok": "00"}) as client:
        assert passive.play(client, vector).outcome == passive.DIFFERENT
    with peer(join={"refused": "no"}) as client:
        assert passive.play(client, vector).outcome == "refused"
    with peer(begin={"lacking": "that suite"}) as client:
        assert passive.play(client, vector).outcome == "lacking"


def test_a_wrong_authenticator_later_on_is_seen() -> None:
    vector = next(v for v in passive.vectors(1, 7, grease=False) if len(v.case["epochs"]) > 1)
    start = vector.case["initial_epoch_authenticator"]
    with peer(join={"ok": start}, receive={"ok": start}) as client:
        result = passive.play(client, vector)
    assert result.outcome == passive.DIFFERENT
    assert result.epochs == 1


# -- differences


def outcomes(case: dict[str, Any], **answers: object) -> set[Outcome]:
    """What a peer that answers like that makes of the violations that are received in the first epoch."""
    chosen = [
        each for each in case["violations"] if each["operation"] == "receive" and not each["before"]
    ]
    assert chosen
    with peer(**answers) as client:
        found = differential.play(client, "full", [{**case, "violations": chosen}])
        return {each.outcome for each in found}


def test_outcomes_are_told_apart(case: dict[str, Any]) -> None:
    assert outcomes(case) == {Outcome.ACCEPTED}
    assert outcomes(case, begin={"lacking": "the suite"}) == {Outcome.LACKING}
    assert outcomes(case, join={"refused": "no"}) == {Outcome.UNREACHED}
    assert outcomes(case, receive="end") == {Outcome.BROKE}
    # It refuses everything, the valid Commit as well.
    assert outcomes(case, receive={"refused": "no"}) == {Outcome.SPOILT}


def test_a_wrong_proposal_that_is_kept_is_not_accepted_yet() -> None:
    (found,) = chapters(1)["12"]
    kept = [
        each
        for each in found["violations"]
        if each["about"] == "a nonce that is too short, encrypted"
    ]
    case = {**found, "violations": kept or found["violations"][:40]}
    with peer() as client:
        results = list(differential.play(client, "full", [case]))
    assert Outcome.KEPT in {each.outcome for each in results}


def test_bounds_that_are_each_clients_own_are_no_matter_between_implementations() -> None:
    (found,) = chapters(1)["12"]
    bounded = [each for each in found["violations"] if each["rule"] == Rule.PROPOSAL_COUNT]
    assert len(bounded) == 2
    with peer() as client:
        assert list(differential.play(client, "full", [{**found, "violations": bounded}])) == []


def test_vectors_that_we_do_not_pass_are_not_given_to_peers(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps([case]))
    assert differential.read_cases(tmp_path) == [case]
    wrong = json.loads(json.dumps(case))
    wrong["violations"][0]["rule"] = "2.1/truncated"
    (tmp_path / "a.json").write_text(json.dumps([wrong]))
    with pytest.raises(DecodeError, match=r"a\.json"):
        differential.read_cases(tmp_path)
    with pytest.raises(DecodeError, match="no negative vectors"):
        differential.read_cases(tmp_path / "nowhere")


def test_cases_of_a_group_without_extensions_break_their_rules_too() -> None:
    for cases in chapters(1, every=True, bare=True).values():
        for case in cases:
            NEGATIVE.verify(Case(case))


# -- judgements and pages


def test_judgements_are_about_rules_that_exist_and_each_can_be_reached() -> None:
    rules = {rule.value for rule in Rule}
    for each in judgements():
        assert each.rule in rules
        assert each.why
        assert judgement_of(each.rule, each.about) is each
    assert judgement_of("2.1/truncated", "a message") is None


def played() -> Played:
    """A little of everything."""
    accepted = DifferentialResult(
        "a peer", "full", 1, "6.3.1/padding", "a one, encrypted", "receive", Outcome.ACCEPTED
    )
    others = [
        replace(accepted, outcome=Outcome.REFUSED, words="no | way"),
        replace(accepted, rule="10.1/init-key", outcome=Outcome.BROKE),
        replace(accepted, rule="2.1/truncated", about="half a message"),
    ]
    fine = passive.PassiveResult("a peer", "passive-client-random", False, 1, 0, "ok", 31, 31)
    stopped = replace(fine, outcome="refused", epochs=3, words="not | this")
    return Played({"a peer": "1.0"}, [fine, stopped], [accepted, *others])


def test_pages_say_who_is_wrong_and_what_nobody_has_judged() -> None:
    text = differential_page(played())
    assert text.index(judgement_of("6.3.1/padding", "").why) > text.index("## The peer is wrong")  # type: ignore[union-attr]
    assert "| a peer | 2.1/truncated | half a message |" in text[text.index("Nobody has judged") :]
    assert "- a peer: a one" in text[text.index("end the process") :]
    assert "1 of 2 in suites 1, 31 epochs" in passive_section(played())
    assert "not / this" in passive_section(played())
    assert passive_section(Played()) == ""
    assert {each.who for each in judgements()} == set(Who)


def test_results_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(played().to_json()))
    assert read_played(path) == played()
    path.write_text("{}")
    with pytest.raises(DecodeError, match="no result"):
        read_played(path)


# -- a real peer


def test_ts_mls_follows_our_passive_clients_and_refuses_a_forged_message(
    case: dict[str, Any], tmp_path: Path
) -> None:
    build = ROOT / "interop/peers/build.py"
    checked = [sys.executable, str(build), "ts-mls", "--check"]
    said = subprocess.run(checked, capture_output=True, text=True, check=True).stdout.strip()
    if said != "ts-mls: built":
        pytest.skip(f"{said}; build it with make interop-peer-ts-mls")
    (tmp_path / "negative").mkdir()
    result = tmp_path / "vectors.json"
    command = [sys.executable, "-m", "coterie.apps", "interop", "vectors", "--peer", "ts-mls"]
    ran = subprocess.run(
        [*command, "--suite", "1", "--json", str(result)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    found = read_played(result)
    fine = [each for each in found.passive if each.kind != "passive-client-handling-commit"]
    assert {each.outcome for each in fine} == {"ok"}
    assert len(fine) == 2 * 5


def test_errors_of_our_own_are_no_outcome_of_a_peer() -> None:
    with pytest.raises(CoterieError):
        passive.vectors(99, 1, grease=True)
