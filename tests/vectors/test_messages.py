"""The vectors messages.json: encodings of messages (RFC 9420 §6, §12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.interop.kinds import KINDS, VectorFile, verify_file
from tests.vector_files import assert_official_vectors_hold, assert_own_vectors_hold, own


def test_every_case_of_the_official_file_holds(shared: Path) -> None:
    assert_official_vectors_hold(shared, "messages", 300)


def test_every_case_of_our_own_file_holds() -> None:
    assert_own_vectors_hold("messages")


FIELDS = sorted(own("messages").cases[0])


@pytest.mark.parametrize("field", FIELDS)
def test_a_struct_that_is_cut_off_is_noticed(field: str) -> None:
    case = dict(own("messages").cases[0])
    case[field] = case[field][:-2]
    report = verify_file(VectorFile("messages", KINDS["messages"], [case]))
    assert report.failed == 1


@pytest.mark.parametrize("field", [name for name in FIELDS if name.startswith("public_message")])
def test_a_message_under_another_name_is_noticed(field: str) -> None:
    case = dict(own("messages").cases[0])
    case[field] = case["private_message"]
    report = verify_file(VectorFile("messages", KINDS["messages"], [case]))
    assert report.failed == 1
