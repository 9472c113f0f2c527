"""Takes the core's checks out one by one, and sees whether the tests that are meant for them notice.

`python -m tests.rules.mutants [--list] [--every=N] [PART_OF_A_NAME]`. Of the three kinds of mutants (see `mutating`),
where a raise is taken out, the cases of the rule that it names must fail (all cases where it names none); where a call,
some case; where a boundary was moved, some case or some test that a valid thing is accepted.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.rules.mutating import (
    QUIET,
    SOURCE,
    Mutant,
    Part,
    choose,
    error_of,
    report,
    survives,
)

ERRORS = {
    "RuleViolation",
    "VerificationError",
    "DecodeError",
    "DecryptionError",
    "EpochError",
    "UnsupportedError",
}
CHECK = re.compile(
    r"_?(check|verify|authenticate|validate|valid_|require|refuse|ask$|consume|member$)"
)
# What is equivalent to the original, with the reason.
EQUIVALENT: dict[str, str] = {
    "_take_update raise raise RuleViolation(msg, rule=Rule.EXTERNAL_COMMIT_TYPES)": (
        "an Update in an external Commit is refused by the count of its kinds as well"
    ),
    **{
        f'{function} raise gen.add(f"if p >= e: raise _ends_early({{name!r}})", indent)': (
            "reading past the end raises IndexError, which `decode_prefix` turns into that error"
        )
        for function in ("_read", "decode_source", "_vector_header", "vector_header")
    },
    "_assemble boundary if len(nodes) > 2 * MAX_LEAVES:": "a tree has an odd number of nodes",
    **{
        f"check_all call {check}": (
            "the error is raised in any case, this decides only which leaf's: tests/unit/mls/test_leaf_node.py"
        )
        for check in (
            "check_contents(leaf, suite)",
            "check_lifetime(leaf, now=None, max_lifetime=max_lifetime)",
        )
    },
    "check_all call _check_credential_listed(leaf)": (
        "a joiner has counted before that all members list all types in use: tests/unit/mls/test_leaf_node.py"
    ),
    "stage_proposals call check_update(state, leaf, update, policy, now=now)": (
        "an Update in a Commit came by reference, and was checked when it arrived"
    ),
}


def _raises(node: ast.Raise) -> bool:
    error = error_of(node) or ""
    if error in ERRORS:
        # An error without a rule is about what the caller gave, and the caller's tests cover it.
        return "rule" in ast.dump(node) or "Rule" in ast.dump(node)
    return error.startswith(("_", "wrong_"))


def _guarded(node: ast.stmt) -> bool:
    error = (error_of(node) or "") if isinstance(node, ast.Raise) else ""
    return error in ERRORS or error.startswith("_")


# The second library is no rule for those who receive; it has tests of its own (test_sodium.py).
CORE = Part(
    tuple(p for p in sorted((SOURCE / "coterie/mls").rglob("*.py")) if p.name != "sodium.py"),
    raises=_raises,
    checks=lambda name: CHECK.match(name) is not None,
    guarded=_guarded,
    strings=True,
)


def _held(mutant: Mutant | None) -> bool:
    """Runs in the child: whether nothing notices."""
    from tests.rules.cases import CASES  # noqa: PLC0415 - only now, through the loader
    from tests.rules.check import check, check_observer  # noqa: PLC0415
    from tests.rules.world import make  # noqa: PLC0415

    worlds = {warm: make(warm=warm) for warm in (True, False)}
    for case in CASES:
        if mutant is None or not mutant.rules or case.rule.name in mutant.rules:
            world = worlds[case.warm]
            attack = case.make(world, world.forger("alice", case.framing))
            check(attack, world, case.rule)
            check_observer(attack, world, case.rule)
    if mutant is None or mutant.kind != "raise":
        _accept()
    return True


def _accept() -> None:
    import pytest  # noqa: PLC0415 - as above

    names = ("test_tolerance.py", "test_limits.py", "test_own_side.py")
    files = [str(Path(__file__).with_name(name)) for name in names]
    assert pytest.main([*QUIET, *files]) == 0


def main(arguments: Sequence[str]) -> int:
    """Runs them; the exit status is 1 where one survives that is not equivalent."""
    import cryptography.hazmat.primitives.asymmetric.ec  # noqa: PLC0415
    import pytest  # noqa: F401, PLC0415 - loaded once for all children

    del cryptography
    chosen = choose(CORE, arguments)
    if "--list" in arguments:
        print("\n".join(mutant.name for mutant in chosen))  # noqa: T201 - a command prints
        return 0
    if not survives(None, lambda: _held(None)):
        print("the tests fail without any mutant: run them first", file=sys.stderr)  # noqa: T201
        return 2
    return report(chosen, lambda m: survives(m, lambda: _held(m)), EQUIVALENT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
