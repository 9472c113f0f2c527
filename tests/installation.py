"""An installation of the services in a directory, run as real processes: for tests of the whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = """
realm = "example.org"
listen = "127.0.0.1:0"
data = "data"
[root]
passphrase_file = "passphrase"
"""


@dataclass
class Installation:
    """A directory with a configuration, and the commands that run on it."""

    home: Path
    text: str = CONFIG
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.config.write_text(self.text)
        passphrase = self.home / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text("a passphrase that is long enough\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "COTERIE_CONFIG": str(self.config),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    @property
    def config(self) -> Path:
        return self.home / "coterie.toml"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from coterie.apps.cli import main; main()", *arguments]

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments: str, code: int = 1) -> str:
        done = self.run(*arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        """The base URL of the running services, and their process."""
        log = self.home / "log"
        with log.open("w") as stream:
            command = self.command("serve", *arguments)
            process = subprocess.Popen(command, stderr=stream, text=True, env=self.environment)
        try:
            yield f"{self.scheme}://127.0.0.1:{self._port(log, process)}", process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    @property
    def scheme(self) -> str:
        return "https" if "[tls]" in self.text else "http"

    def _port(self, log: Path, process: subprocess.Popen[str]) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            for line in log.read_text().splitlines():
                if line.endswith("}") and (said := json.loads(line))["event"] == "listening":
                    return int(said["port"])
            time.sleep(0.05)
        raise AssertionError(log.read_text())
