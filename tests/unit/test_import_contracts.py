"""The import contracts of pyproject.toml, run over small packages of our making that break them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECRET_HALF = ("group", "key_schedule", "private_message", "secret_tree", "treekem")
ROOMS = "Rooms import downwards only"
CORE = "Modules of the core import in the order of the RFC"
SERVERS = "Servers and transport cannot name a group secret"


def broken(directory: Path, modules: dict[str, str]) -> set[str]:
    """Which of the project's contracts a package `coterie` with these modules and sources breaks."""
    shutil.copy(ROOT / "pyproject.toml", directory)
    package = directory / "coterie"
    for name, source in {"errors.py": "", "mls/__init__.py": "", **modules}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        for parent in {path.parent, package}:
            (parent / "__init__.py").touch()
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    output = " ".join(done.stdout.split())
    count = re.search(r"Contracts: (\d) kept, (\d) broken", output)
    assert count, output
    names = {name for name in (ROOMS, CORE, SERVERS) if re.search(rf"{name}[^A-Z]*BROKEN", output)}
    assert len(names) == int(count[2]), output
    assert done.returncode == (1 if names else 0), output
    return names


def test_a_package_that_keeps_the_order_passes(tmp_path: Path) -> None:
    modules = {"mls/group.py": "import coterie.errors", "apps.py": "import coterie.mls.group"}
    assert broken(tmp_path, modules) == set()


@pytest.mark.parametrize("server", ["authentication", "delivery", "transport"])
def test_a_server_cannot_import_the_secret_half(tmp_path: Path, server: str) -> None:
    modules = {f"{server}.py": "import coterie.mls.group", "mls/group.py": ""}
    assert broken(tmp_path, modules) == {SERVERS}


@pytest.mark.parametrize("module", SECRET_HALF)
def test_a_server_cannot_reach_the_secret_half_through_another_module(
    tmp_path: Path, module: str
) -> None:
    modules = {
        "delivery/service.py": "import coterie.storage",
        "storage.py": f"import coterie.mls.{module}",
        f"mls/{module}.py": "",
    }
    assert broken(tmp_path, modules) == {SERVERS}


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        ("apps", "interop"),
        ("interop", "client"),
        ("client", "storage"),
        ("client", "transport"),
        ("delivery", "transport"),
        ("authentication", "identity"),
        ("identity", "errors"),
        ("mls", "errors"),
    ],
)
def test_a_room_cannot_import_from_one_above_it(tmp_path: Path, upper: str, lower: str) -> None:
    modules = {f"{lower}.py": f"import coterie.{upper}", f"{upper}/__init__.py": ""}
    assert broken(tmp_path, modules) == {ROOMS}


@pytest.mark.parametrize(
    ("importer", "imported"),
    [("client", "delivery"), ("delivery", "client"), ("delivery", "authentication")],
)
def test_client_and_services_cannot_import_each_other(
    tmp_path: Path, importer: str, imported: str
) -> None:
    modules = {f"{importer}.py": f"import coterie.{imported}", f"{imported}.py": ""}
    assert broken(tmp_path, modules) == {ROOMS}


def test_the_public_half_cannot_import_the_secret_half(tmp_path: Path) -> None:
    modules = {"mls/validation.py": "import coterie.mls.treekem", "mls/treekem.py": ""}
    assert broken(tmp_path, modules) == {CORE}


@pytest.mark.parametrize(("module", "contract"), [("utils.py", ROOMS), ("mls/misc.py", CORE)])
def test_a_module_without_a_place_in_the_order_is_refused(
    tmp_path: Path, module: str, contract: str
) -> None:
    assert broken(tmp_path, {module: ""}) == {contract}


def test_every_module_of_the_secret_half_stands_in_both_contracts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    _, order, servers = (row["layers"] for row in settings["tool"]["importlinter"]["contracts"])
    above_public = order[: order.index("(public_group) | (external)")]
    assert sorted(above_public) == [f"({name})" for name in SECRET_HALF]
    assert all(f"(coterie.mls.{name})" in servers[0] for name in SECRET_HALF)
