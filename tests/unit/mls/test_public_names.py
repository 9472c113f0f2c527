"""The names of `coterie.mls` are there, and come without the half that knows of secrets."""

from __future__ import annotations

import subprocess
import sys

import pytest

import coterie.mls


@pytest.mark.parametrize("name", coterie.mls.__all__)
def test_every_public_name_is_found_and_listed(name: str) -> None:
    assert getattr(coterie.mls, name).__name__ == name
    assert name in dir(coterie.mls)


def test_the_list_of_names_is_that_of_their_homes() -> None:
    assert sorted(coterie.mls.__all__) == sorted(coterie.mls._HOME_OF)


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Grupo'"):
        _ = coterie.mls.Grupo


def test_the_public_half_is_loaded_without_the_secret_half() -> None:
    code = (
        "import sys; from coterie.mls import MLSMessage, PublicGroup, new_member_add; "
        "print(sorted(m for m in sys.modules if m.startswith('coterie.mls.') and m.split('.')[2] in "
        "{'group', 'treekem', 'secret_tree', 'key_schedule', 'private_message'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
