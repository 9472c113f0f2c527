"""What the documents refer to is there: files, headings, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = "*.md", "docs/**/*.md", "bench/*.md", "interop/*.md", "vectors/**/*.md"
PAGES = sorted({page for place in PLACES for page in ROOT.glob(place)})
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
FUNCTIONS = set(re.findall(r"^\s*(?:async )?def (test_\w+)", TESTS, re.MULTILINE))
MODULES = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


def anchors(page: str) -> set[str]:
    """The names by which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_every_named_test_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), f"{path.name}: no {target}"
        if heading:
            assert heading in anchors(linked.read_text(encoding="utf-8")), f"{path.name}: {target}"
    for name in set(re.findall(r"\btests/[\w/.-]*\w", text)):
        assert (ROOT / name).exists() or (ROOT / f"{name}.py").exists(), f"{path.name}: no {name}"
    for name in set(re.findall(r"`(?:[\w/.]+::)?(test_\w+)`", text)):
        assert name in FUNCTIONS | MODULES, f"{path.name}: no {name}"


def test_links_are_looked_at() -> None:
    assert len(PAGES) > 20
    assert sum(page.read_text(encoding="utf-8").count("](") for page in PAGES) > 50
    assert anchors("# A page\n## Two words, and more\n") == {"a-page", "two-words-and-more"}
