"""Texts of others are shown, and do nothing else."""

from __future__ import annotations

import pytest

from coterie.apps.showing import visible


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
