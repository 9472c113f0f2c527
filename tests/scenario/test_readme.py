"""The lines of code in README.md do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def program() -> str:
    block = re.search(
        r"without any I/O:\n\n```python\n(.*?)^```$",
        README.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert block is not None, "README.md has no program for the protocol alone"
    return block[1]


def test_the_program_in_the_readme_exchanges_a_message() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("e2 e4\n", "")


def test_the_program_in_the_readme_has_ten_lines_besides_its_imports() -> None:
    lines = [line for line in program().splitlines() if line]
    assert len([line for line in lines if not line.startswith(("import", "from"))]) == 10
