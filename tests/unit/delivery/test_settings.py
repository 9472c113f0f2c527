"""Settings that contradict each other, or are no lengths of prefixes, are refused; the last good values are taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coterie.delivery.settings import Settings
from coterie.errors import StateError

_LARGEST = max(Settings().max_bundle, Settings().max_read)


def _under_way(of_prefix: int, of_all: int) -> dict[str, int]:
    return {"max_under_way_of_prefix": of_prefix, "max_under_way": of_all}


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        ({"min_retention": 5, "max_retention": 5}, {"min_retention": 6, "max_retention": 5}),
        (_under_way(2 * _LARGEST, 2 * _LARGEST), _under_way(2 * _LARGEST - 1, 2 * _LARGEST)),
        (_under_way(2 * _LARGEST, 2 * _LARGEST), _under_way(2 * _LARGEST, 2 * _LARGEST - 1)),
        ({"prefix_ipv4": 32}, {"prefix_ipv4": 33}),
        ({"prefix_ipv6": 128}, {"prefix_ipv6": 129}),
    ],
)
def test_the_last_good_value_is_taken_and_the_next_refused(
    good: dict[str, int], wrong: dict[str, int]
) -> None:
    replace(Settings(), **good).check()  # type: ignore[arg-type]
    with pytest.raises(StateError, match=f"delivery: .*{next(iter(wrong))}"):
        replace(Settings(), **wrong).check()  # type: ignore[arg-type]


def test_the_defaults_are_good() -> None:
    Settings().check()
