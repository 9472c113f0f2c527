"""The command `coterie vectors`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coterie.apps.cli import app
from coterie.errors import StateError
from coterie.interop.kinds import KINDS
from tests.vector_files import OWN


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["vectors", *map(str, words)])


def altered(tmp_path: Path) -> Path:
    """Our own vectors of Welcomes, with one that does not hold and one of an unknown suite."""
    cases = json.loads((OWN / "welcome.json").read_text())
    cases[1]["signer_pub"] = cases[2]["signer_pub"]
    cases[3]["cipher_suite"] = 0x3A3A
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(cases))
    return path


def test_files_that_hold_end_with_status_0_and_their_totals() -> None:
    result = run(OWN / "welcome.json", OWN / "tree-math.json")
    assert result.exit_code == 0
    assert "welcome.json" in result.stdout
    assert "14 passed, 0 failed, 0 skipped" in result.stdout


def test_a_directory_stands_for_the_files_in_it() -> None:
    result = run(OWN, "--json")
    assert result.exit_code == 0
    found = {Path(entry["file"]).name for entry in json.loads(result.stdout)["files"]}
    assert found == {path.name for path in OWN.glob("*.json")}


def test_a_case_that_does_not_hold_is_named_with_its_reason(tmp_path: Path) -> None:
    result = run(altered(tmp_path))
    assert result.exit_code == 1
    assert "changed.json (welcome)" in result.stdout
    assert "case 1, suite 2" in result.stdout
    assert "GroupInfoTBS does not verify" in result.stdout.replace("\n", " ")
    assert "5 passed, 1 failed, 1 skipped" in result.stdout


def test_json_has_totals_and_every_failure(tmp_path: Path) -> None:
    result = run("--json", altered(tmp_path))
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["passed"], said["failed"], said["skipped"]) == (5, 1, 1)
    (file,) = said["files"]
    assert file["kind"] == "welcome"
    (failure,) = file["failures"]
    assert (failure["case"], failure["cipher_suite"]) == (1, 2)
    assert "12.4.3/signature" in failure["reason"]


def test_a_file_that_cannot_be_read_fails_and_the_others_are_verified(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_bytes(b"\x1b[2J{")
    result = run("--json", tmp_path / "none.json", broken, OWN / "tree-math.json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["passed"], said["failed"], said["skipped"]) == (7, 2, 0)
    assert "No such file" in said["files"][0]["error"]
    assert "not JSON" in said["files"][1]["error"]


def test_what_a_file_says_does_not_reach_the_terminal_as_control_characters(tmp_path: Path) -> None:
    cases = json.loads((OWN / "key-schedule.json").read_text())
    del cases[0]["epochs"][0]["joiner_secret"]
    path = tmp_path / "evil\x1b[31m\u202e.json"
    path.write_text(json.dumps(cases))
    result = run(path)
    assert result.exit_code == 1
    assert "\x1b[31m\u202e" not in result.stdout
    assert "⟨U+202E⟩" in result.stdout


@pytest.mark.parametrize("kind", ["tree-math", "welcome", "psk_secret"])
def test_what_is_generated_into_a_file_is_verified_from_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    assert run("--generate", kind, "--suite", 1, "-o", path).exit_code == 0
    assert run(path).exit_code == 0


def test_a_seed_is_obeyed_and_without_one_vectors_differ() -> None:
    words = ("--generate", "psk_secret", "--suite", 1)
    assert run(*words, "--seed", 5).stdout == run(*words, "--seed", 5).stdout
    assert run(*words).stdout != run(*words).stdout


def test_only_the_suites_that_are_asked_for_are_generated() -> None:
    made = json.loads(run("--generate", "welcome", "--suite", 2, "--suite", 6).stdout)
    assert [case["cipher_suite"] for case in made] == [2, 6]


def test_the_list_of_kinds_has_every_kind() -> None:
    listed = run("--list").stdout.splitlines()
    assert [line.split(" ")[0] for line in listed] == list(KINDS)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--generate", "nothing"),
        ("--generate", "welcome", OWN / "welcome.json"),
        ("--generate", "tree-math", "-o", "/nowhere/at/all.json"),
    ],
)
def test_wrong_use_is_an_error_that_says_what_to_do(words: tuple[object, ...]) -> None:
    result = run(*words)
    assert isinstance(result.exception, StateError)


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path).exception, StateError)


def test_an_error_is_one_line_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coterie.apps", "vectors", "--generate", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
