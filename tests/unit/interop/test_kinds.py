"""Recognising, verifying and generating files of vectors, whatever stands in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import DecodeError, StateError, UnsupportedError
from coterie.interop.kinds import (
    KINDS,
    VectorFile,
    generate,
    read_vectors,
    recognise,
    verify_file,
)
from tests.vector_files import OWN, own

PASSIVE = ("passive-client-welcome", "passive-client-handling-commit", "passive-client-random")
CHECKED_IN = sorted(path.stem for path in OWN.glob("*.json"))
MADE = [
    (name, suite)
    for name, kind in KINDS.items()
    if kind.generate is not None
    for suite in ((1, 5) if kind.has_suites else (1,))
]


@pytest.mark.parametrize("name", [name for name in CHECKED_IN if name not in PASSIVE])
def test_a_kind_is_recognised_by_its_fields_under_any_file_name(name: str) -> None:
    assert recognise(own(name).cases, "renamed").name == name


@pytest.mark.parametrize("name", PASSIVE)
def test_kinds_with_the_same_fields_are_told_apart_by_the_file_name(name: str) -> None:
    assert recognise(own(name).cases, f"2026-{name}-draft").name == name


def test_a_passive_client_file_of_any_name_is_recognised() -> None:
    assert recognise(own(PASSIVE[1]).cases, "renamed").name in PASSIVE


def test_an_empty_file_has_the_kind_of_its_name() -> None:
    assert recognise([], "tree-math").name == "tree-math"


@pytest.mark.parametrize("cases", [[], [{}], [7], [{"cipher_suite": 1}]])
def test_cases_of_no_known_kind_are_refused(cases: list[Any]) -> None:
    with pytest.raises(DecodeError):
        recognise(cases, "something")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'"x"', b"\xff\xfe\xfd", b"[" * 100_000])
def test_a_file_that_is_no_list_of_cases_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tree-math.json"
    path.write_bytes(content)
    with pytest.raises(DecodeError):
        read_vectors(path)


def test_a_case_of_an_unknown_suite_is_skipped_and_counted() -> None:
    cases = [{**own("welcome").cases[0], "cipher_suite": 0x7A7A}, *own("welcome").cases]
    report = verify_file(VectorFile("welcome", KINDS["welcome"], cases))
    assert (report.passed, report.failed, report.skipped) == (len(cases) - 1, 0, 1)


def test_a_failure_says_which_case_of_which_suite_and_why() -> None:
    cases = [dict(case) for case in own("transcript-hashes").cases]
    cases[2]["interim_transcript_hash_after"] = "00"
    report = verify_file(VectorFile("x", KINDS["transcript-hashes"], cases))
    (failure,) = report.failures
    assert (failure.case, failure.cipher_suite) == (2, 3)
    assert "interim_transcript_hash_after" in failure.reason
    assert "00" in failure.reason


def test_progress_is_told_once_for_each_case() -> None:
    told: list[None] = []
    verify_file(own("psk_secret"), lambda: told.append(None))
    assert len(told) == len(own("psk_secret").cases)


@pytest.mark.parametrize(("name", "suite"), MADE)
def test_what_is_generated_holds_after_a_way_through_a_file(name: str, suite: int) -> None:
    made = generate(name, (suite,), seed=3)
    cases = json.loads(json.dumps(made))
    report = verify_file(VectorFile(name, recognise(cases, name), cases))
    assert report.kind == name
    assert report.failures == []
    assert report.passed == len(made) > 0


@pytest.mark.parametrize(("name", "suite"), [(name, 1) for name, suite in MADE if suite == 1])
def test_a_seed_gives_the_same_vectors_again_and_another_seed_others(name: str, suite: int) -> None:
    first = generate(name, (suite,), seed=3)
    assert generate(name, (suite,), seed=3) == first
    if name != "tree-math":
        assert generate(name, (suite,), seed=4) != first


def test_vectors_of_an_unknown_kind_are_not_generated() -> None:
    with pytest.raises(StateError, match="tree-math"):
        generate("tree-magic")


def test_vectors_of_an_unknown_suite_are_not_generated() -> None:
    with pytest.raises(UnsupportedError):
        generate("welcome", (99,))


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, inner in items:
        found.append((*path, key))
        if isinstance(inner, dict | list):
            found += _places(inner, (*path, key))
    return found


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1 << 65),
    st.text(max_size=4),
    st.binary(max_size=80).map(bytes.hex),
    st.just([]),
    st.just({}),
    st.just([None]),
)


@pytest.mark.parametrize("name", CHECKED_IN)
@settings(max_examples=40)
@given(data=st.data())
def test_whatever_stands_in_a_case_is_a_failure_and_no_other_error(
    name: str, data: st.DataObject
) -> None:
    cases = own(name).cases
    case = json.loads(json.dumps(data.draw(st.sampled_from(cases[:3]))))
    *parents, last = data.draw(st.sampled_from(_places(case)))
    place = case
    for step in parents:
        place = place[step]
    if data.draw(st.booleans()):
        del place[last]
    else:
        place[last] = data.draw(JUNK)
    report = verify_file(VectorFile(name, KINDS[name], [case]))
    assert report.passed + report.failed + report.skipped == 1
