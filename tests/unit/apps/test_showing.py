"""Texts of others are shown, and do nothing else."""

from __future__ import annotations

import pytest

from coterie.apps.showing import confusable, named, person, visible


@pytest.mark.parametrize(
    "char",
    [
        "\x1b",
        "\x07",
        "\x9b",
        "\u202e",
        "\u2066",
        "\u200b",
        "\u2028",
        "\u2029",
        "\ue000",
        "\U000e0041",
    ],
)
def test_what_acts_or_hides_is_shown_as_its_code_point(char: str) -> None:
    assert visible(f"a{char}b") == f"a⟨U+{ord(char):04X}⟩b"


def test_letters_and_joined_emoji_stay_as_they_are() -> None:
    assert visible("Grüße 你好 👩‍🚀") == "Grüße 你好 👩‍🚀"


def test_line_breaks_stay_only_where_they_are_allowed() -> None:
    assert visible("a\nb", lines=True) == "a\nb"
    assert visible("a\nb") == "a⟨U+000A⟩b"


@pytest.mark.parametrize(
    "name",
    [
        "Fri\u0435nds",
        "\u0441\u043e\u0441\u043e\u0430",
        "\uff26riends",
        "\U0001d400lice",
        "\u03b1lice",
        "caf\u0065\u0301",
    ],
)
def test_a_name_that_could_be_taken_for_another_is_flagged(name: str) -> None:
    assert confusable(name)
    assert named(name).endswith("(unusual letters)")


@pytest.mark.parametrize(
    "name", ["Friends 2", "Grüße 你好", "Москва", "東京タワー", "한국어", "🎉", ""]
)
def test_names_in_any_script_are_not(name: str) -> None:
    assert not confusable(name)
    assert named(name) == name


def test_a_users_name_has_ascii_letters_or_is_flagged() -> None:
    assert person("bob@here", "here") == "bob"
    assert person("bob@there", "here") == "bob@there"
    assert person("b\u00f6b@here", "here").endswith("(unusual letters)")
