"""The table of rules, against the RFC's text and against what is checked in."""

from __future__ import annotations

import re
from pathlib import Path

from tests.rules import document

HEADING = re.compile(r"^\| (\S+) \| .* \| (\d+) \|$", re.MULTILINE)


def test_every_must_of_the_rfc_is_classified_once(shared: Path) -> None:
    text = (shared / "specs/rfc9420.md").read_text()
    headings = HEADING.findall((shared / "specs/rfc9420-sections.md").read_text())
    expected = []
    for match in re.finditer(r"\bMUST(\s+NOT)?\b", text):
        line = text.count("\n", 0, match.start()) + 1
        section = [name for name, start in headings if int(start) <= line][-1]
        expected.append((line, section, "MUST NOT" if match.group(1) else "MUST"))
    table = [(must["line"], must["section"], must["word"]) for must in document.musts()]
    assert table == expected


def test_there_are_127_musts_and_17_must_nots() -> None:
    words = [must["word"] for must in document.musts()]
    assert (words.count("MUST"), words.count("MUST NOT")) == (127, 17)


def test_every_rule_is_checked_and_broken_and_every_receivers_must_has_one() -> None:
    assert document.faults() == []


def test_the_document_of_rules_is_current() -> None:
    assert document.DOCUMENT.read_text() == document.document()
