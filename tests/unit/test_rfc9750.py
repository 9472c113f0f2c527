"""`docs/rfc9750.md` keeps its word: nothing is left out, what it refers to exists, values are the code's."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from coterie.authentication.settings import DAY, HOUR
from coterie.authentication.settings import Settings as AuthenticationSettings
from coterie.delivery.settings import Settings as DeliverySettings
from coterie.mls.group.config import Limits
from coterie.mls.key_package import MAX_LIFETIME
from coterie.mls.secret_tree import RatchetLimits

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "rfc9750.md").read_text(encoding="utf-8")
LINES = [line.split("|")[1:-1] for line in TEXT.splitlines() if line.startswith("| ")]


def test_every_recommendation_has_its_line_in_order(shared: Path) -> None:
    spec = (shared / "specs" / "rfc9750-architecture.md").read_text(encoding="utf-8")
    count = spec.count("> **Recommendation:**")
    numbered = [int(n) for n in re.findall(r"^\| R(\d+) ", TEXT, re.MULTILINE)]
    assert count > 30
    assert sorted(numbered) == list(range(1, count + 1))


def test_every_line_says_met_partly_or_not_and_where_or_why() -> None:
    judged = [
        line for line in LINES if len(line) == 3 and line[1].strip() in {"met", "partly", "not"}
    ]
    assert len(judged) > 80
    for line in judged:
        assert len(line[2].strip()) > 6, line


def test_every_module_file_and_rule_that_is_named_exists() -> None:
    for name in set(re.findall(r"`(coterie(?:\.\w+)+)`", TEXT)):
        assert importlib.util.find_spec(name), name
    for path in set(re.findall(r"`((?:tests|docs|src)/[\w./-]+)`", TEXT)):
        assert (ROOT / path).exists(), path
    protocol = (ROOT / "docs" / "delivery-protocol.md").read_text(encoding="utf-8")
    for rule in set(re.findall(r"D-[A-Z]{3}-\d+", TEXT)):
        assert f"**{rule}**" in protocol, rule


AUTHENTICATION = AuthenticationSettings()
RATCHETS = RatchetLimits()
VALUES = {
    "Longest lifetime of a key package": f"{MAX_LIFETIME // DAY} days",
    "Resumption PSKs of past epochs": f"{Limits().max_resumption_psks} epochs",
    "Unused nonces and keys of a sender": f"{RATCHETS.max_skipped_age // DAY} days",
    "Most unused keys kept": f"{RATCHETS.max_skipped} per epoch",
    "Most steps forward for one message": f"{RATCHETS.max_forward}",
    "Messages of past epochs": f"{Limits().max_past_epochs} epochs, {Limits().max_past_age // DAY} days",
    "Certificates": f"{AUTHENTICATION.certificate_lifetime // DAY} days",
    "Renewal of an ended certificate": f"{AUTHENTICATION.renewal_grace // DAY} days",
    "Revocation list in force": f"{AUTHENTICATION.list_lifetime // DAY} days, made every hour",
}


@pytest.mark.parametrize("parameter", VALUES)
def test_the_value_is_the_codes(parameter: str) -> None:
    (line,) = [line for line in LINES if line[0].strip() == parameter]
    assert line[1].strip().startswith(VALUES[parameter])


def test_both_sides_have_the_same_longest_lifetime_and_the_list_is_made_every_hour() -> None:
    assert DeliverySettings().key_package_lifetime == MAX_LIFETIME
    assert AUTHENTICATION.list_interval == HOUR
    assert AUTHENTICATION.key_overlap == 7 * DAY
