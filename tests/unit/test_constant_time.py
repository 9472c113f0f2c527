"""No tag, MAC, token or secret is compared with `==`: how long that takes tells where the first difference is.

What is allowed: `hmac.compare_digest`, and what rests on it: `Suite.verify_mac`, `token_fits` and `Secret`, whose
comparison is one. The check reads names, and the types where an annotation gives a name one type throughout; an
exception stands in `ALLOWED` with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import coterie
from coterie.delivery import directory
from coterie.mls import crypto
from coterie.transport.api import base

ROOT = Path(coterie.__file__).parent
SECRET_WORDS = re.compile(
    r"(?:^|_)(?:tag|h?mac|token|secret|psk|seed|digest|passphrase|password|private|authenticator|"
    r"(?:membership|confirmation|private|message|welcome|code|wrapping|storage)_key)s?(?:$|_)"
)
PROPERTIES = re.compile(r"_(?:id|ids|epoch|length|count|type|kind|number|nonce|level)$|^is_|^has_")
"""What is said about a secret, and is none."""
DRIVERS = ("testing/", "interop/runner/", "interop/replaying/")
"""Simulations and the interop harness look at all sides at once: there is nobody to measure them."""
ALLOWED = {
    ("interop/vectors/treekem.py", "sender not in setting.private"): "whether a dict has a leaf",
    ("mls/validation/proposal_list.py", "psk in seen"): "the identifier of a PSK, not the key",
}


@cache
def _sources() -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for path in sorted(ROOT.rglob("*.py"))
        if not path.relative_to(ROOT).as_posix().startswith(DRIVERS)
    }


@cache
def _secret_by_type() -> frozenset[str]:
    """Names that are annotated, and always as a secret or a token."""
    kinds: dict[str, set[bool]] = {}
    for tree in _sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, annotation = node.target.id, node.annotation
            elif isinstance(node, ast.arg) and node.annotation is not None:
                name, annotation = node.arg, node.annotation
            else:
                continue
            text = ast.unparse(annotation)
            secret = re.fullmatch(r"(?:api\.)?(?:Secret|Token)(?: \| None)?", text) is not None
            kinds.setdefault(name, set()).add(secret)
    return frozenset(name for name, found in kinds.items() if found == {True})


def _names(operand: ast.expr) -> Iterator[str]:
    """What an operand is called: through slices, conversions and calls, but not through `len` and the like."""
    match operand:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Subscript(value=value) | ast.NamedExpr(value=value) | ast.Await(value=value):
            yield from _names(value)
        case ast.Call(func=ast.Name(id="bytes" | "bytearray" | "Secret" | "sha256"), args=args):
            for argument in args:
                yield from _names(argument)
        case ast.Call(func=ast.Name(id="len" | "type" | "int" | "set" | "sorted" | "tuple")):
            return
        case ast.Call(func=function):
            yield from _names(function)
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            for element in elements:
                yield from _names(element)
        case ast.BinOp(left=left, right=right):
            yield from _names(left)
            yield from _names(right)


def _is_secret(name: str) -> bool:
    if name.isupper() or PROPERTIES.search(name):
        return False
    return SECRET_WORDS.search(name) is not None or name in _secret_by_type()


def careless(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Comparisons of secrets that may stop early: the line, and the comparison."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops):
            continue
        operands = [node.left, *node.comparators]
        if any(isinstance(each, ast.Constant) and each.value is None for each in operands):
            continue
        if any(_is_secret(name) for each in operands for name in _names(each)):
            yield node.lineno, ast.unparse(node)


def test_no_secret_is_compared_by_a_comparison_that_may_stop_early() -> None:
    found = {
        f"{path}:{line}: {text}"
        for path, tree in _sources().items()
        for line, text in careless(tree)
        if (path, text) not in ALLOWED
    }
    assert not found


def test_every_exception_is_still_needed() -> None:
    sources = _sources()
    for path, text in ALLOWED:
        assert text in {found for _, found in careless(sources[path])}, (path, text)


@pytest.mark.parametrize(
    "line",
    [
        "tag == other",
        "auth.confirmation_tag != expected",
        "suite.mac(key, data) == x",
        "suite.mac(key, data)[:16] == x",
        "hmac.digest(key, data, 'sha256') != x",
        "bytes(epoch.membership_key) == x",
        "sha256(token) == expected",
        "request.token in tokens",
        "(a, read_token) == (b, c)",
        "x == stored.private",
        "joiner_secret == x",
    ],
)
def test_the_check_finds(line: str) -> None:
    assert list(careless(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    ["len(tag) != 16", "psk_id == x", "a.public != b", "token is None", "secret_length == 32"],
)
def test_the_check_leaves_alone(line: str) -> None:
    assert not list(careless(ast.parse(line)))


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (crypto, crypto.Suite.verify_mac),
        (base, base.token_fits),
        (directory, directory.Directory.open_inbox),
    ],
)
def test_what_compares_secrets_compares_digests(module: object, function: object) -> None:
    code = getattr(function, "__code__", None)
    assert code is not None
    assert "compare_digest" in code.co_names
