"""Changes of one place in a module: what `mutants` (the core) and `service_mutants` take out, and how.

Three kinds, each one change of one place:

- raise: an error is made but not raised;
- call: a call of a checking function is left out;
- boundary: a comparison that decides about an error is moved by one, or turned around.

Each mutant lives in a process of its own, forked from one that has loaded the libraries but nothing of Coterie.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
SIDES = {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt}
TURNED = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True)
class Mutant:
    """One change: the number of the node in a walk over the module's tree says where."""

    path: Path
    text: str
    """The module as it was when the mutants were listed: others may be at work on it."""
    node: int
    operator: int
    """Which comparison of a chain."""
    line: int
    kind: str
    source: str
    rules: tuple[str, ...] = ()
    function: str = ""
    error_line: int = 0
    """Where the error is raised that a boundary decides about."""

    @property
    def name(self) -> str:
        """Where it is and what it does; stable while the line's text is."""
        part = f" ({self.operator + 1})" if self.operator else ""
        return f"{self.path.relative_to(SOURCE)}:{self.line} {self.kind} {self.source}{part}"

    @property
    def key(self) -> str:
        """What does not change when lines move: by this, equivalent ones are listed."""
        return f"{self.function} {self.kind} {self.source}"

    @property
    def module(self) -> str:
        """The module that it changes."""
        parts = self.path.relative_to(SOURCE).with_suffix("").parts
        return ".".join(parts).removesuffix(".__init__")


@dataclass(frozen=True)
class Part:
    """Modules that are mutated alike, and what is looked for in them."""

    paths: tuple[Path, ...]
    raises: Callable[[ast.Raise], bool]
    checks: Callable[[str], bool]
    """Whether a function of this name checks something and returns nothing."""
    guarded: Callable[[ast.stmt], bool]
    """Whether a block that ends with this statement ends with an error."""
    strings: bool = False
    """Whether errors stand in generated source as well."""
    predicates: bool = False
    """Whether comparisons in functions that answer yes or no are boundaries as well."""

    def mutants(self) -> Iterator[Mutant]:
        """All of them, in the order of the files and their text."""
        for path in self.paths:
            yield from self._of(path)

    def _of(self, path: Path) -> Iterator[Mutant]:
        text = path.read_text(encoding="utf-8")
        lines, tree = text.splitlines(), ast.parse(text)
        guards, functions = self._guards(tree), _functions(tree)
        for number, node in enumerate(ast.walk(tree)):
            kind = self._kind(node, guards)
            if not kind:
                continue
            line = getattr(node, "lineno", 0)
            shown = " ".join(lines[line - 1].split())[:70]
            rules = _rules(node) if kind == "raise" else ()
            function = functions.get(node, "")
            for operator in _operators(node) if kind == "boundary" else [0]:
                yield Mutant(
                    path,
                    text,
                    number,
                    operator,
                    line,
                    kind,
                    shown,
                    rules=rules,
                    function=function,
                    error_line=guards.get(node, line),
                )

    def _kind(self, node: ast.AST, guards: dict[ast.AST, int]) -> str:
        if isinstance(node, ast.Raise):
            return "raise" if self.raises(node) else ""
        if isinstance(node, ast.Constant) and self.strings:
            return "raise" if isinstance(node.value, str) and "raise _" in node.value else ""
        if isinstance(node, ast.Expr):
            name = called(node.value)
            return "call" if name is not None and self.checks(name) else ""
        return "boundary" if node in guards and _operators(node) else ""

    def _guards(self, tree: ast.AST) -> dict[ast.AST, int]:
        """The comparisons in the condition of an `if` that ends with an error, and the error's line."""
        found: dict[ast.AST, int] = {}
        for node in ast.walk(tree):
            if self.predicates and _answers(node):
                found |= {e: e.lineno for e in ast.walk(node) if isinstance(e, ast.Compare)}
            if isinstance(node, ast.If) and self.guarded(node.body[-1]):
                line = node.body[-1].lineno
                found |= {e: line for e in ast.walk(node.test) if isinstance(e, ast.Compare)}
        return found


def _answers(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return isinstance(node.returns, ast.Name) and node.returns.id == "bool"


def error_of(node: ast.Raise) -> str | None:
    """The name of what is called to make the error."""
    return called(node.exc)


def called(node: ast.AST | None) -> str | None:
    """The name of the function that an expression calls, awaited or not."""
    if isinstance(node, ast.Await):
        node = node.value
    if not isinstance(node, ast.Call):
        return None
    function = node.func
    return getattr(function, "id", None) or getattr(function, "attr", None)


def _operators(node: ast.AST) -> list[int]:
    if not isinstance(node, ast.Compare):
        return []
    return [i for i, each in enumerate(node.ops) if type(each) in SIDES | TURNED]


def _functions(tree: ast.AST) -> dict[ast.AST, str]:
    """The innermost function around each node; outer ones are met first."""
    return {
        node: each.name
        for each in ast.walk(tree)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(each)
    }


def _rules(node: ast.AST) -> tuple[str, ...]:
    return tuple(
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and getattr(each.value, "id", "") == "Rule"
    )


def mutate(mutant: Mutant) -> ast.Module:
    """The module's tree with the change."""
    tree = ast.parse(mutant.text)
    target = list(ast.walk(tree))[mutant.node]
    new = _changed(target, mutant.operator)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                setattr(parent, name, [new if each is target else each for each in value])
            elif value is target:
                setattr(parent, name, new)
    return ast.fix_missing_locations(tree)


def _changed(node: Any, operator: int) -> ast.AST:
    new: ast.AST
    if isinstance(node, ast.Raise):
        new = ast.Expr(node.exc)  # type: ignore[arg-type]
    elif isinstance(node, ast.Constant):
        new = ast.Constant(str(node.value).replace("raise _", "_"))
    elif isinstance(node, ast.Expr):
        new = ast.Pass()
    else:
        operators = list(node.ops)
        operators[operator] = (SIDES | TURNED)[type(operators[operator])]()
        new = ast.Compare(node.left, operators, node.comparators)
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
        code = compile(mutate(self.mutant), str(self.mutant.path), "exec")
        exec(code, module.__dict__)


KINDS = {"raise": "raises", "call": "calls", "boundary": "boundaries"}
QUIET = [
    *("-q", "-x", "-n0", "-p", "no:cacheprovider", "--no-header", "--tb=no"),
    "-Wignore:Module already imported:pytest.PytestAssertRewriteWarning",
]
"""What pytest is told in a mutant's process."""


WAITING = 1200
"""For how many seconds of the clock a mutant's process may live, or one test of it."""
UNNOTICED = 1
"""How a process ends in which the tests hold."""


def survives(mutant: Mutant | None, tests: Callable[[], bool], seconds: int = 300) -> bool:
    """Whether the tests hold with the mutant loaded (None: with the code as it is), in a process of its own.

    Tests that take more than `seconds` of the processor have noticed it: by a loop that does not end, say. They have
    as well where they wait for what does not come; a machine that is busy makes no test slow enough for that.
    """
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        if mutant is not None:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.alarm(WAITING)
            sys.meta_path.insert(0, _Loader(mutant))
        try:
            held = tests()
        except BaseException:  # noqa: BLE001 - whatever it is, it was noticed
            held = False
        os._exit(UNNOTICED if held else 0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == UNNOTICED


def report(
    chosen: Sequence[Mutant],
    alive: Callable[[Mutant], bool],
    equivalent: dict[str, str],
) -> int:
    """Runs them and prints what survived and the counts; 1 where one survives that is not equivalent."""
    survivors = []
    for count, mutant in enumerate(chosen, 1):
        if alive(mutant):
            survivors.append(mutant)
            print(f"survived: {mutant.name}", flush=True)  # noqa: T201 - a command prints
        elif sys.stdout.isatty():
            print(f"{count}/{len(chosen)}", end="\r")  # noqa: T201
    known = [mutant for mutant in survivors if mutant.key in equivalent]
    kinds = Counter(KINDS[mutant.kind] for mutant in chosen)
    print(  # noqa: T201
        f"{len(chosen)} mutants ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}): "
        f"{len(chosen) - len(survivors)} caught, {len(survivors) - len(known)} survived, "
        f"{len(known)} are equivalent"
    )
    return 1 if len(survivors) > len(known) else 0


def choose(part: Part, arguments: Sequence[str]) -> list[Mutant]:
    """Those whose names have every word in them; `--every=20` takes each twentieth of those."""
    words = [argument for argument in arguments if not argument.startswith("--")]
    step = next((int(a.partition("=")[2]) for a in arguments if a.startswith("--every=")), 1)
    return [m for m in part.mutants() if all(word in m.name for word in words)][::step]
