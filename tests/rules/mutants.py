"""Takes the core's checks out one by one, and sees whether the tests that are meant for them notice.

`python -m tests.rules.mutants [--list] [PART_OF_A_NAME]`. Three kinds of mutants, each one change of one place:

- raise: an error is made but not raised. The cases of the rule that it names must fail (all cases where it names none).
- call: a call of a checking function is left out. Some case must fail.
- boundary: a comparison that decides about an error is moved by one, or turned around. Some case or some test that a
  valid thing is accepted must fail.

Each mutant lives in a process of its own, forked from one that has loaded the libraries but nothing of Coterie.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
ERRORS = {
    "RuleViolation",
    "VerificationError",
    "DecodeError",
    "DecryptionError",
    "EpochError",
    "UnsupportedError",
}
CHECK = re.compile(r"_?(check|verify|require_open|refuse)")
SIDES = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt}
TURNED = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}
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
    "stage_proposals call check_update(state, leaf, update, policy, now=now)": (
        "an Update in a Commit came by reference, and was checked when it arrived"
    ),
}


@dataclass(frozen=True)
class Mutant:
    """One change: the number of the node in a walk over the module's tree says where."""

    path: Path
    text: str
    """The module as it was when the mutants were listed: others may be at work on it."""
    node: int
    line: int
    kind: str
    source: str
    rules: tuple[str, ...] = ()
    function: str = ""

    @property
    def name(self) -> str:
        """Where it is and what it does; stable while the line's text is."""
        return f"{self.path.relative_to(SOURCE)}:{self.line} {self.kind} {self.source}"

    @property
    def module(self) -> str:
        """The module that it changes."""
        parts = self.path.relative_to(SOURCE).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")


def mutants() -> Iterator[Mutant]:
    """All of them."""
    for path in sorted((SOURCE / "coterie/mls").rglob("*.py")):
        text = path.read_text()
        lines, tree = text.splitlines(), ast.parse(text)
        guards, functions = _guards(tree), _functions(tree)
        for number, node in enumerate(ast.walk(tree)):
            kind = _kind(node, guards)
            if kind:
                line = getattr(node, "lineno", 0)
                shown = " ".join(lines[line - 1].split())[:70]
                rules = _rules(node) if kind == "raise" else ()
                yield Mutant(path, text, number, line, kind, shown, rules, functions.get(node, ""))


def _kind(node: ast.AST, guards: set[ast.AST]) -> str:
    if isinstance(node, ast.Raise) and _error(node) in ERRORS:
        # An error without a rule is about what the caller gave, and the caller's tests cover it.
        return "raise" if _rules(node) or "rule" in ast.dump(node) else ""
    if isinstance(node, ast.Raise) and (_error(node) or "").startswith(("_", "wrong_")):
        return "raise"
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "raise _" in node.value:
        return "raise"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return "call" if CHECK.match(_called(node.value) or "") else ""
    if isinstance(node, ast.Compare) and node in guards:
        return "boundary" if type(node.ops[0]) in SIDES | TURNED else ""
    return ""


def _error(node: ast.Raise) -> str | None:
    return _called(node.exc) if isinstance(node.exc, ast.Call) else None


def _called(call: ast.Call) -> str | None:
    function = call.func
    return getattr(function, "id", None) or getattr(function, "attr", None)


def _guards(tree: ast.AST) -> set[ast.AST]:
    """The comparisons in the condition of an `if` that ends with an error."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
            error = _error(node.body[-1])
            if error in ERRORS or (error or "").startswith("_"):
                found |= {each for each in ast.walk(node.test) if isinstance(each, ast.Compare)}
    return found


def _functions(tree: ast.AST) -> dict[ast.AST, str]:
    """The innermost function around each node; outer ones are met first."""
    return {
        node: each.name
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef)
        for node in ast.walk(each)
    }


def _rules(node: ast.AST) -> tuple[str, ...]:
    return tuple(
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and getattr(each.value, "id", "") == "Rule"
    )


def _mutate(mutant: Mutant) -> ast.Module:
    tree = ast.parse(mutant.text)
    target = list(ast.walk(tree))[mutant.node]
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                setattr(
                    parent, name, [_changed(each) if each is target else each for each in value]
                )
            elif value is target:
                setattr(parent, name, _changed(value))
    return ast.fix_missing_locations(tree)


def _changed(node: Any) -> ast.AST:
    new: ast.AST
    if isinstance(node, ast.Raise):
        new = ast.Expr(node.exc)  # type: ignore[arg-type]
    elif isinstance(node, ast.Constant):
        new = ast.Constant(str(node.value).replace("raise _", "_"))
    elif isinstance(node, ast.Expr):
        new = ast.Pass()
    else:
        operator = (SIDES | TURNED)[type(node.ops[0])]
        new = ast.Compare(node.left, [operator(), *node.ops[1:]], node.comparators)
    return ast.copy_location(new, node)


class _Loader(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Loads one module with its change."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        del path, target
        if name != self.mutant.module:
            return None
        package = self.mutant.path.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            name,
            self.mutant.path,
            loader=self,
            submodule_search_locations=[str(self.mutant.path.parent)] if package else None,
        )

    def create_module(self, spec: object) -> None:
        del spec

    def exec_module(self, module: ModuleType) -> None:
        code = compile(_mutate(self.mutant), str(self.mutant.path), "exec")
        exec(code, module.__dict__)


def _survives(mutant: Mutant | None) -> bool:
    """Runs in the child: whether nothing notices; None is the core as it is."""
    if mutant is not None:
        sys.meta_path.insert(0, _Loader(mutant))
    try:
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
    except BaseException:  # noqa: BLE001 - whatever it is, it was noticed
        return False
    return True


def _accept() -> None:
    import pytest  # noqa: PLC0415 - as above

    names = ("test_tolerance.py", "test_limits.py", "test_own_side.py")
    files = [str(Path(__file__).with_name(name)) for name in names]
    quiet = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
    assert pytest.main([*quiet, *files]) == 0


def _run(mutant: Mutant | None) -> bool:
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os._exit(1 if _survives(mutant) else 0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 1


def main(arguments: Sequence[str]) -> int:
    """Runs them; the exit status is 1 where one survives that is not equivalent."""
    import cryptography.hazmat.primitives.asymmetric.ec  # noqa: PLC0415
    import pytest  # noqa: F401, PLC0415 - loaded once for all children

    del cryptography
    wanted = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [m for m in mutants() if all(part in m.name for part in wanted)]
    if "--list" in arguments:
        print("\n".join(mutant.name for mutant in chosen))  # noqa: T201 - a command prints
        return 0
    if not _run(None):
        print("the tests fail without any mutant: run them first", file=sys.stderr)  # noqa: T201
        return 2
    survivors = []
    for count, mutant in enumerate(chosen, 1):
        if _run(mutant):
            survivors.append(mutant)
            print(f"survived: {mutant.name}", flush=True)  # noqa: T201
        elif sys.stdout.isatty():
            print(f"{count}/{len(chosen)}", end="\r")  # noqa: T201
    known = [m for m in survivors if _key(m) in EQUIVALENT]
    print(  # noqa: T201
        f"{len(chosen)} mutants, {len(chosen) - len(survivors)} caught, "
        f"{len(survivors) - len(known)} survived, {len(known)} are equivalent"
    )
    return 1 if len(survivors) > len(known) else 0


def _key(mutant: Mutant) -> str:
    return f"{mutant.function} {mutant.kind} {mutant.source}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
