"""The interop server and the scenario runner: Coterie against itself, and against ts-mls where that is built."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("grpc_tools") is None:
    pytest.skip(
        "grpcio-tools is not installed: pip install 'coterie[interop]'", allow_module_level=True
    )

from coterie.errors import DecodeError, StateError
from coterie.interop.inspecting import describe
from coterie.interop.runner.differences import comparable, first_difference
from coterie.interop.runner.document import document, read_matrix
from coterie.interop.runner.histories import History
from coterie.interop.runner.matrix import Cell, Matrix, Outcome, square
from coterie.interop.runner.peers import (
    Peer,
    RefusalError,
    built,
    connected,
    ourselves,
    peers_folder,
    started,
)
from coterie.interop.runner.playing import (
    HistoryJob,
    Job,
    Plan,
    history_jobs,
    jobs,
    play,
    play_history,
    play_scenario,
    unplayed,
)
from coterie.interop.runner.scenarios import SCENARIOS
from coterie.interop.runner.transcript import Replay, Transcript, read_transcript
from coterie.interop.runner.verdicts import HISTORIES, verdict_of, verdicts
from coterie.interop.runner.world import WAYS, DifferenceError, Way, World, agree, described
from coterie.interop.server import start
from coterie.interop.tables import spans
from coterie.mls.tls import JSON

PUBLIC, PRIVATE = Way(encrypt=False, beside=False), Way(encrypt=True, beside=True)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    server, port = start()
    with connected("coterie", f"127.0.0.1:{port}") as client:
        yield client
    server.stop(0)


@pytest.fixture(scope="module")
def ts_mls() -> Iterator[Peer]:
    try:
        folder = peers_folder()
    except StateError as error:
        pytest.skip(str(error))
    run = [sys.executable, str(folder / "build.py"), "ts-mls", "--check"]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    if said.strip() != "ts-mls: built":
        pytest.skip(f"{said.strip()}; build it with make interop-peer-ts-mls")
    if shutil.which("node") is None:
        pytest.skip("ts-mls needs Node.js")
    (found,), _ = built(folder, ["ts-mls"])
    with started(found) as client:
        yield client


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_we_play_with_ourselves_in_every_way(peer: Peer, scenario: str) -> None:
    for way in WAYS:
        cell = play_scenario({"coterie": peer}, Job("coterie", "coterie", 1, scenario, way))
        assert (cell.outcome, cell.words) == (Outcome.OK, "")


@pytest.mark.parametrize("suite", range(2, 8))
def test_we_play_with_ourselves_in_every_suite(peer: Peer, suite: int) -> None:
    assert suite in peer.suites
    for name in ("several-proposals", "external-join", "external-sender-add-remove", "reinit"):
        cell = play_scenario({"coterie": peer}, Job("coterie", "coterie", suite, name, PRIVATE))
        assert (cell.outcome, cell.words) == (Outcome.OK, "")


@pytest.mark.parametrize("seed", [1, 2])
def test_random_histories_with_ourselves_end_well(peer: Peer, seed: int) -> None:
    job = HistoryJob(("coterie",), 1, WAYS[seed], seed, 30)
    result = play_history({"coterie": peer}, job)
    assert (result.outcome, result.words, result.steps) == (Outcome.OK, "", 30)
    assert result.epochs > 10


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_we_play_with_ts_mls(peer: Peer, ts_mls: Peer, scenario: str) -> None:
    peers = {"coterie": peer, "ts-mls": ts_mls}
    for first, second, way in (("coterie", "ts-mls", PUBLIC), ("ts-mls", "coterie", PRIVATE)):
        cell = play_scenario(peers, Job(first, second, 1, scenario, way))
        assert cell.outcome is not Outcome.FAILED, cell.words
        assert cell.outcome is Outcome.OK or cell.who == "ts-mls", cell.words


def test_a_random_history_with_ts_mls_ends_well(peer: Peer, ts_mls: Peer) -> None:
    job = HistoryJob(("coterie", "ts-mls"), 2, PRIVATE, 5, 25)
    result = play_history({"coterie": peer, "ts-mls": ts_mls}, job)
    assert (result.outcome, result.words, result.steps) == (Outcome.OK, "", 25)


# -- the server


def _pair(peer: Peer, way: Way = PUBLIC) -> World:
    world = World(1, way)
    world.add(world.create(peer), peer, peer)
    return world


def test_a_commit_leaves_out_proposals_that_it_does_not_name(peer: Peer) -> None:
    world = _pair(peer)
    a, b, _ = world.members
    world.propose(a, "RemoveProposal", removed_id=b.identity)
    world.commit(a)
    assert len(world.members) == 3


def test_a_commit_covers_own_proposals_that_it_names(peer: Peer) -> None:
    world = _pair(peer)
    a, b, _ = world.members
    first = world.propose(a, "RemoveProposal", removed_id=b.identity)
    world.propose(a, "ExternalPSKProposal", psk_id=b"nobody has this")
    world.commit(a, [first], removed=[b])


def test_proposals_of_a_commit_that_was_given_up_can_be_committed_again(peer: Peer) -> None:
    world = _pair(peer, PRIVATE)
    a, b, c = world.members
    gone = world.propose(a, "RemoveProposal", removed_id=c.identity)
    b.peer.Commit(state_id=b.state, by_reference=[gone])
    b.peer.Commit(state_id=b.state)
    world.commit(b, [gone], removed=[c])
    world.chat()


def test_a_proposal_of_a_given_up_commit_can_be_committed_by_another(peer: Peer) -> None:
    world = _pair(peer, PRIVATE)
    a, b, c = world.members
    update = world.propose(a, "UpdateProposal")
    b.peer.Commit(state_id=b.state, by_reference=[update])
    world.commit(c, [update])
    world.commit(b)


@pytest.mark.parametrize(
    ("call", "fields"),
    [
        ("StateAuth", {"state_id": 9999}),
        ("JoinGroup", {"transaction_id": 9999, "welcome": b"x"}),
        ("StorePSK", {"state_or_transaction_id": 9999}),
        ("ReInitWelcome", {"reinit_id": 9999}),
        ("Free", {"state_id": 9999}),
    ],
)
def test_what_the_server_does_not_have_is_an_invalid_argument(
    peer: Peer, call: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(RefusalError, match=r"there is no .* 9999") as caught:
        getattr(peer, call)(**fields)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_a_suite_that_is_not_supported_is_lacking(peer: Peer) -> None:
    with pytest.raises(RefusalError) as caught:
        peer.CreateGroup(group_id=b"g", cipher_suite=0xF042, identity=b"a")
    assert caught.value.lacking


def test_a_freed_state_is_gone(peer: Peer) -> None:
    world = _pair(peer)
    a = world.members[0]
    peer.Free(state_id=a.state)
    with pytest.raises(RefusalError, match="no state"):
        peer.StateAuth(state_id=a.state)


def test_messages_that_are_no_mls_are_refused(peer: Peer) -> None:
    a = _pair(peer).members[0]
    for call, field in (("Unprotect", "ciphertext"), ("HandleCommit", "commit")):
        with pytest.raises(RefusalError) as caught:
            getattr(peer, call)(state_id=a.state, **{field: b"\x00\x01\x00\x09"})
        assert caught.value.code == "INVALID_ARGUMENT"


def test_our_server_starts_as_a_process() -> None:
    with started(ourselves()) as client:
        assert client.Name().name == "Coterie"


# -- the runner


def test_members_of_different_epochs_are_told_apart_by_the_first_field(peer: Peer) -> None:
    world = _pair(peer)
    before = world.members[0]
    world.commit(world.members[1])
    with pytest.raises(DifferenceError, match=r"epoch authenticator differs .*first in .*epoch: 1"):
        agree([before, *world.members[1:]])


def test_the_first_difference_names_its_path() -> None:
    one: JSON = {"a": [1, {"b": "x"}], "c": 1}
    assert first_difference(one, one) is None
    assert first_difference(one, {"a": [1, {"b": "y"}], "c": 2}) == ("a[1].b", "x", "y")
    assert first_difference(one, {"a": [1], "c": 1}) == ("a.length", 2, 1)


def test_a_signature_and_the_order_of_extensions_are_no_difference() -> None:
    one: JSON = {"extensions": [{"t": 1}, {"t": 2}], "signature": "aa", "signer": 0}
    other: JSON = {"extensions": [{"t": 2}, {"t": 1}], "signature": "bb", "signer": 1}
    assert comparable(one) == comparable(other)


def test_a_scenario_that_fails_is_a_failed_cell_with_the_peers_words(
    peer: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(world: World, first: Peer, _second: Peer) -> None:
        member = world.create(first)
        world.commit(member, by_value=[described(first, "remove", removed_id=b"nobody")])

    monkeypatch.setitem(
        SCENARIOS, "welcome-one", dataclasses.replace(SCENARIOS["welcome-one"], play=broken)
    )
    job = Job("coterie", "coterie", 1, "welcome-one", PUBLIC)
    cell = play_scenario({"coterie": peer}, job, tmp_path)
    assert (cell.outcome, cell.who) == (Outcome.FAILED, "coterie")
    assert "there is no member" in cell.words
    assert read_transcript(tmp_path / cell.transcript)[-1]["error"].startswith("INVALID_ARGUMENT")


def test_a_transcript_is_replayed_with_new_keys(peer: Peer, tmp_path: Path) -> None:
    job = Job("coterie", "coterie", 1, "several-proposals", PRIVATE)
    cell = play_scenario({"coterie": peer}, job, tmp_path)
    lines = read_transcript(tmp_path / cell.transcript)
    assert Replay({"coterie": peer}).play(lines) == ""


def test_a_replay_tells_what_came_out_differently(peer: Peer, tmp_path: Path) -> None:
    transcript = peer.transcript = Transcript()
    world = _pair(peer)
    world.commit(world.members[1])
    peer.transcript = None
    path = tmp_path / "t.jsonl"
    transcript.write(path)
    lines = read_transcript(path)
    exports = [line for line in lines if line["call"] == "Export"]
    exports[-1]["request"]["label"] = "another"
    said = Replay({"coterie": peer}).play(lines)
    assert "Export: exported_secret equalled an earlier answer then" in said


@pytest.mark.parametrize("text", ["{", "[]", '{"peer": 1}', json.dumps({"peer": "a", "call": "b"})])
def test_a_line_that_is_no_call_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    with pytest.raises(DecodeError, match="line 1"):
        read_transcript(path)


def test_jobs_are_the_shared_suites_of_every_ordered_pair() -> None:
    offered = {"coterie": frozenset({1, 2}), "x": frozenset({2}), "y": frozenset({2, 3})}
    found = jobs(offered, [1, 2, 3], ["welcome-one"])
    assert {(j.first, j.second, j.suite) for j in found} >= {
        ("coterie", "coterie", 1),
        ("x", "coterie", 2),
        ("y", "y", 3),
    }
    assert len(found) == (9 + 2) * 4
    around = jobs(offered, [2], ["welcome-one"], ways=1, around="coterie")
    assert {(j.first, j.second) for j in around} == {
        ("coterie", "coterie"),
        ("coterie", "x"),
        ("x", "coterie"),
        ("coterie", "y"),
        ("y", "coterie"),
    }
    assert [h.suite for h in history_jobs(offered, [1, 2], 3, 10, 0)] == [1, 2, 1]


def test_a_square_sums_up_suites_and_names_reasons() -> None:
    def cell(suite: int, outcome: Outcome, words: str = "") -> Cell:
        return Cell("a", "b", suite, "s", "w", outcome, "b" if words else "", words)

    cells = [
        cell(1, Outcome.OK),
        cell(2, Outcome.OK),
        cell(3, Outcome.OK),
        cell(3, Outcome.LACKING, "no"),
    ]
    assert square(cells).text == "ok 1-2; – 3"
    assert square(cells).notes == ("b: no",)
    assert "FAILED" in square([cell(1, Outcome.FAILED)]).text
    assert spans([1, 2, 3, 5]) == "1-3, 5"


# -- the command


def _coterie(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "coterie.apps", "interop", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_writes_a_page_a_matrix_and_transcripts_that_replay(tmp_path: Path) -> None:
    page, matrix, transcripts = tmp_path / "p.md", tmp_path / "m.json", tmp_path / "t"
    options = ["--json", str(matrix), "-o", str(page), "--transcripts", str(transcripts)]
    played = ["--suite", "1", "--scenario", "welcome-one", "--histories", "1", "--steps", "5"]
    ran = _coterie("run", "coterie", *played, *options)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "history 1, suite 1: ok, 5 steps" in ran.stdout
    assert "| **coterie** | ok 1 |" in page.read_text()
    again = tmp_path / "again.md"
    assert _coterie("document", str(matrix), "-o", str(again)).returncode == 0
    assert again.read_text() == page.read_text()
    replayed = _coterie("replay", str(next(transcripts.glob("coterie-*.jsonl"))))
    assert "all as before" in replayed.stdout


def test_an_unknown_scenario_is_refused_with_what_to_do() -> None:
    ran = _coterie("run", "coterie", "--scenario", "nope")
    assert ran.returncode == 1
    assert "coterie interop scenarios" in ran.stderr


def test_a_failed_cell_is_on_the_page_with_its_words_unless_there_is_a_verdict(
    tmp_path: Path,
) -> None:
    def cell(who: str, words: str) -> Cell:
        return Cell("a", "b", 1, "welcome-one", "w", Outcome.FAILED, who, words)

    known = verdicts()[0]
    cells = [
        cell("a", "Commit answers INTERNAL: boom | <x>"),
        cell(known.peer, f"{known.call} answers INTERNAL: {known.words}"),
    ]
    path = tmp_path / "m.json"
    path.write_text(json.dumps(Matrix({"a": "1", "b": "2"}, cells).to_json()))
    matrix = read_matrix(path)
    assert [each.outcome for each in matrix.cells] == [Outcome.FAILED, Outcome.EXPLAINED]
    assert matrix.failures == 1
    assert "boom / &lt;x>" in document(matrix)
    assert "**FAILED** 1" in document(matrix)


def test_a_verdict_for_histories_does_not_excuse_a_scenario() -> None:
    for limited in [each for each in verdicts() if each.only]:
        found = [
            verdict_of(limited.peer, limited.call, limited.words, where)
            for where in (HISTORIES, *limited.only, "welcome-one", "")
        ]
        assert found == [limited] * (1 + len(limited.only)) + [None, None]
        assert verdict_of("coterie", limited.call, limited.words, HISTORIES) is None
        assert set(limited.only) <= {HISTORIES, *SCENARIOS}


def test_who_sent_in_a_step_that_was_given_up_sends_no_other_handshake_in_that_epoch(
    peer: Peer,
) -> None:
    history = History([peer], 1, PRIVATE, 1)
    world = history.world
    (other,) = world.add(world.members[0], peer)
    world.propose(other, "UpdateProposal")
    assert world.spent == {other.identity}
    assert {history._sender() for _ in range(20)} == {world.members[0]}
    world.commit(world.members[0])
    assert not world.spent
    with pytest.raises(RefusalError):
        world.commit(other, [b"no proposal"])
    history.play(10)


def test_a_history_goes_on_when_nobody_may_send(peer: Peer) -> None:
    history = History([peer], 1, PRIVATE, 1)
    history.world.spent = {history.world.members[0].identity}
    history.play(1)
    assert set(history.done) <= {"external join", "resync"}


def test_a_commit_in_the_clear_without_proposals_may_be_followed_by_another(peer: Peer) -> None:
    world = World(1, PUBLIC)
    (other,) = world.add(world.create(peer), peer)
    with pytest.raises(RefusalError):
        world.commit(other, by_value=[described(peer, "remove", removed_id=b"nobody")])
    assert not world.spent
    world.propose(other, "ReInitProposal", cipher_suite=1, group_id=b"new")
    assert world.spent == {other.identity}


def test_another_file_is_no_matrix(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("{}")
    with pytest.raises(DecodeError, match="no matrix"):
        read_matrix(path)


def test_the_server_greases_key_packages_only_when_asked() -> None:
    for grease in (False, True):
        server, port = start(grease=grease)
        with connected("coterie", f"127.0.0.1:{port}") as client:
            made = client.CreateKeyPackage(cipher_suite=1, identity=b"a").key_package
        server.stop(0)
        fields: Any = describe(made).fields
        assert bool(fields["body"]["extensions"]) == grease


def cell(outcome: Outcome, scenario: str = "welcome-one", words: str = "") -> Cell:
    return Cell("coterie", "coterie", 1, scenario, "public/inside", outcome, words=words)


def test_a_run_that_is_resumed_plays_what_failed_or_was_not_played() -> None:
    matrix = Matrix({"coterie": "1"}, [cell(Outcome.OK), cell(Outcome.FAILED, "resync")])
    todo = jobs({"coterie": frozenset({1})}, [1], ["welcome-one", "resync", "branch"], ways=4)
    assert len(unplayed(todo, matrix.cells)) == len(todo) - 2
    matrix.forget_failures()
    assert len(unplayed(todo, matrix.cells)) == len(todo) - 1


def test_of_what_was_played_twice_the_later_result_counts() -> None:
    matrix = Matrix({"coterie": "1"}, [cell(Outcome.FAILED), cell(Outcome.OK, "resync")])
    matrix.take_over(Matrix({"coterie": "2"}, [cell(Outcome.OK)]))
    assert [each.outcome for each in matrix.cells] == [Outcome.OK, Outcome.OK]
    assert matrix.versions == {"coterie": "2"}


def test_nothing_new_is_begun_when_the_time_is_up() -> None:
    todo = jobs({"coterie": frozenset({1})}, [1], ["welcome-one"])
    matrix = Matrix({})
    plan = Plan([ourselves()], todo, [], seconds=0)
    assert play(plan, matrix, lambda _result: None) == len(todo)
    assert not matrix.cells


def test_a_run_that_is_told_to_end_ends_its_peers_and_keeps_what_was_played(tmp_path: Path) -> None:
    matrix, transcripts = tmp_path / "m.json", tmp_path / "t"
    command = [sys.executable, "-m", "coterie.apps", "interop", "run", "coterie", "--lanes", "2"]
    options = ["--scenario", "welcome-one", "--suite", "1", "--histories", "2", "--steps", "100000"]
    files = ["--json", str(matrix), "--transcripts", str(transcripts)]
    run = subprocess.Popen([*command, *options, *files], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not list(transcripts.glob("*")) and time.monotonic() < until:
            time.sleep(0.1)
        peers = _children(run.pid)
        run.terminate()
        assert run.wait(60) == 143
        assert peers
        until = time.monotonic() + 20
        while any(map(_runs, peers)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not [each for each in peers if _runs(each)]
        assert len(read_matrix(matrix).cells) == 1
    finally:
        run.kill()


def _runs(process: int) -> bool:
    """Whether a process is there and has not ended; who adopted it may be slow to take notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _children(process: int) -> set[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}
