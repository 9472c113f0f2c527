"""What docs/attacks.md claims is shown by tests that exist."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from coterie.mls.rules import Rule
from tests.attack_list import DOCUMENT, attacks, named
from tests.rules.mutants import CORE
from tests.rules.service_mutants import SUBJECTS

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_document_names_exists() -> None:
    assert len(named()) > 15
    for file, function in named():
        path = ROOT / file
        assert path.is_file(), file
        if function:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            names = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
            assert function in names, f"{file}::{function}"


def test_every_test_of_a_hostile_service_is_in_the_document() -> None:
    file = "tests/unit/client/test_hostile_service.py"
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    tests = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert tests == {function for named, function in named() if named == file}


def _figure(row: str) -> list[int]:
    """The numbers in the second column of a row of the table of figures."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"^\| {re.escape(row)}[^|]*\|([^|]*)\|", text, re.MULTILINE)
    assert found is not None, row
    return [int(number) for number in re.findall(r"\d+", found[1])]


def test_every_attack_over_http_is_in_the_document() -> None:
    file = "tests/services/test_hostile_network.py"
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    tests = {node.name for node in functions if node.name.startswith("test_")}
    assert tests <= {function for named_file, function in named() if named_file == file}


def test_the_figures_of_the_document_are_those_of_the_repository() -> None:
    assert _figure("rules that a receiver enforces") == [len(Rule)]
    assert _figure("attacks in the tables above") == [len(attacks())]
    vectors = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "vectors" / "negative").glob("*.json"))
    ]
    violations = sum(len(case["violations"]) for file in vectors for case in file)
    assert _figure("negative vectors") == [violations]
    bounds = (ROOT / "docs" / "bounds.md").read_text(encoding="utf-8")
    rows = [line for line in bounds.splitlines() if line.startswith("| ")]
    assert _figure("bounds on what a peer steers") == [len(rows) - bounds.count("| What is ")]
    for row, part in (
        ("checks taken out of the core", CORE),
        ("checks taken out of the services", SUBJECTS["services"].part),
        ("checks taken out of the client", SUBJECTS["client"].part),
    ):
        # They change with every check; a tenth more or less is no other statement.
        said, counted = _figure(row)[0], len(list(part.mutants()))
        assert abs(said - counted) <= counted // 10, f"{row}: {counted}"
    corpora = [path for path in (ROOT / "fuzz" / "corpus").iterdir() if path.is_dir()]
    assert _figure("fuzz targets") == [len(corpora)]
