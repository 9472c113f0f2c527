"""What the tests of vector files share: reading them, verifying them whole, and changing one value of a case."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from coterie.interop.kinds import KINDS, VectorFile, read_vectors, verify_file

OWN = Path(__file__).resolve().parent.parent / "vectors"


def assert_official_vectors_hold(shared: Path, name: str, count: int) -> None:
    """Every case of an official file holds, none is skipped, and they are as many as the file is known to have."""
    report = verify_file(read_vectors(shared / "test-vectors" / f"{name}.json"))
    assert report.kind == name
    assert report.failures == []
    assert (report.passed, report.skipped) == (count, 0)


def assert_own_vectors_hold(name: str) -> None:
    """Every case of the checked-in file holds."""
    report = verify_file(own(name))
    assert report.kind == name
    assert report.failures == []
    assert report.passed > 0
    assert report.skipped == 0


def own(name: str) -> VectorFile:
    """The checked-in file of a kind."""
    return read_vectors(OWN / f"{name}.json")


def assert_change_is_noticed(name: str, path: str, case: int = 0) -> None:
    """A case of the checked-in file no longer holds when the value at `path` is another one."""
    changed = copy.deepcopy(own(name).cases[case])
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = changed
    for step in parents:
        place = place[step]
    place[last] = _other(place[last])
    report = verify_file(VectorFile(name, KINDS[name], [changed]))
    assert report.failed == 1, f"{name}: {path} can be changed without notice"


def _other(value: object) -> object:
    """A value of the same form that differs in its last bit."""
    if isinstance(value, str):
        data = bytearray.fromhex(value) or bytearray(1)
        data[-1] ^= 1
        return data.hex()
    if isinstance(value, int):
        return value + 1
    assert value is None, f"nothing is known about changing {value!r}"
    return 1
