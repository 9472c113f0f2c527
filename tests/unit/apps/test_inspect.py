"""The command `coterie inspect`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coterie.apps.cli import app
from coterie.errors import DecodeError, StateError
from tests.vector_files import own

CASE: dict[str, str] = own("messages").cases[0]
PACKAGE = CASE["mls_key_package"]


def run(*words: object, data: bytes | str = b"") -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, words)], input=data)


def test_a_file_is_shown_field_by_field_with_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "package"
    path.write_bytes(bytes.fromhex(PACKAGE))
    result = run(path)
    assert result.exit_code == 0
    lines = [line.strip("│├└─ ") for line in result.stdout.splitlines()]
    assert lines[0] == f"MLSMessage (KeyPackage), {len(PACKAGE) // 2} bytes, from binary"
    assert "wire_format  mls_key_package (5)" in lines
    assert "✓ signature: valid" in lines
    assert any(line.startswith("· KeyPackageRef: ") and len(line) == 17 + 64 for line in lines)


@pytest.mark.parametrize("words", [(), ("-",)])
def test_standard_input_is_read_where_no_file_is_named(words: tuple[str, ...]) -> None:
    result = run(*words, data=PACKAGE)
    assert result.exit_code == 0
    assert "from hexadecimal" in result.stdout


def test_long_values_and_lists_are_cut_off_unless_all_is_asked_for() -> None:
    tree = own("tree-validation").cases[5]["tree"]
    short, full = run(data=tree).stdout, run("--all", data=tree).stdout
    assert "--all shows them" in short
    assert "…" not in full
    assert len(full) > len(short)


def test_secrets_are_shown_only_when_asked_for() -> None:
    secret = CASE["group_secrets"][2:66]
    words = ("--type", "GroupSecrets", "--all")
    assert secret not in run(*words, data=CASE["group_secrets"]).stdout
    assert secret in run(*words, "--secrets", data=CASE["group_secrets"]).stdout


def test_json_has_fields_and_what_was_computed() -> None:
    said = json.loads(run("--json", data=PACKAGE).stdout)
    assert said["fields"]["wire_format"] == "mls_key_package"
    assert {fact["name"] for fact in said["computed"]} >= {"KeyPackageRef", "signature"}


def test_the_list_of_types_has_the_names_of_the_rfc() -> None:
    assert {"LeafNode", "Welcome", "ratchet_tree"} <= set(run("--type", "list").stdout.splitlines())


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_empty_input_is_an_error(data: bytes) -> None:
    assert isinstance(run(data=data).exception, DecodeError)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_an_error(name: str, tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / name).exception, StateError)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\x00\x01\x00\x05\xff\xff", ()), (b"00", ("--type", "Nothing\x1b[2J"))],
    ids=["junk", "control characters"],
)
def test_bad_input_is_one_line_and_status_1_and_no_traceback(
    data: bytes, words: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coterie.apps", "inspect", *words],
        input=data,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr
