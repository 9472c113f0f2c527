"""What docs/attacks.md claims is shown by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "attacks.md"


def _named() -> list[tuple[str, str]]:
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)


def test_every_test_that_the_document_names_exists() -> None:
    named = _named()
    assert len(named) > 15
    for file, function in named:
        path = ROOT / file
        assert path.is_file(), file
        if function:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in names, f"{file}::{function}"


def test_every_test_of_a_hostile_service_is_in_the_document() -> None:
    file = "tests/unit/client/test_hostile_service.py"
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    tests = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert tests == {function for named, function in _named() if named == file}
