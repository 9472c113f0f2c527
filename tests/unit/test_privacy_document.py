"""`docs/privacy.md` lists every table of the three databases, and the ages that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coterie.authentication.ledger import MIGRATIONS
from coterie.authentication.settings import DAY
from coterie.delivery.directory_store import SCHEMA as DIRECTORY
from coterie.delivery.settings import Settings
from coterie.delivery.sqlite_ledger import SCHEMA as LOGS

TEXT = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
SECTIONS = {
    "The logs": LOGS.versions,
    "The directory and the inboxes": DIRECTORY.versions,
    "The Authentication Service": MIGRATIONS,
}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_table_is_listed_and_no_other(section: str) -> None:
    there = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", "\n".join(SECTIONS[section])))
    part = TEXT.partition(f"### {section}")[2].partition("\n#")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))
    assert there
    assert listed == there


@pytest.mark.parametrize(
    "said",
    [
        f"{Settings().min_retention // DAY} to {Settings().max_retention // DAY} days",
        f"{Settings().request_age // DAY} days (`request_age`)",
        f"{Settings().ticket_age // DAY} days (`ticket_age`)",
        f"{Settings().inbox_age // DAY} days at most (`inbox_age`)",
        f"({Settings().key_package_lifetime // DAY} days at most)",
    ],
)
def test_ages_are_the_settings(said: str) -> None:
    assert said in TEXT


def test_rules_that_are_named_exist() -> None:
    protocol = (Path(__file__).parents[2] / "docs" / "delivery-protocol.md").read_text(
        encoding="utf-8"
    )
    for rule in set(re.findall(r"D-[A-Z]{3}-\d+", TEXT)):
        assert f"**{rule}**" in protocol, rule
