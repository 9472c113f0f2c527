"""The implementations under test: starting their servers and calling them.

A peer is a folder under `interop/peers` of a checkout, which `build.py` there builds. Our own server is started as the
others are, in a process of its own.
"""

# ruff: noqa: ANN401 - the messages' types exist only once the interface is compiled

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import grpc

from coterie.errors import CoterieError, StateError
from coterie.interop.runner.transcript import Transcript
from coterie.interop.server import interface

OURSELVES: Final = "coterie"
PATIENCE: Final = 60
"""Seconds until a call is given up."""
_VERSIONS: Final = (
    ("package.json", r'"{name}":\s*"[^\d]*([\d.]+)"'),
    ("Cargo.toml", r'(?m)^{name}\s*=\s*(?:\{{[^}}]*?version\s*=\s*)?"[^\d]*([\d.]+)"'),
    ("pom.xml", r"<artifactId>bcmls[^<]*</artifactId>\s*<version>([\d.]+)</version>"),
    ("pom.xml", r"<[\w.-]*(?:bc|bouncy)[\w.-]*version>([\d.]+)<"),
)


class RefusalError(CoterieError):
    """A peer refused a call, in its own words."""

    def __init__(self, peer: str, call: str, code: str, words: str) -> None:
        super().__init__(f"{peer}'s {call}: {code}: {words}")
        self.peer, self.call, self.code, self.words = peer, call, code, words

    @property
    def lacking(self) -> bool:
        """Whether the peer says that it has no such thing."""
        return self.code == "UNIMPLEMENTED"


class Peer:
    """One server: `peer.Commit(state_id=...)` makes the call and gives the answer."""

    def __init__(self, name: str, channel: Any) -> None:
        self.name = name
        self.transcript: Transcript | None = None
        self.calls = 0
        self.messages, services = interface()
        self._stub = services.MLSClientStub(channel)
        methods = self.messages.DESCRIPTOR.services_by_name["MLSClient"].methods_by_name
        self._requests = {
            call: getattr(self.messages, method.input_type.name) for call, method in methods.items()
        }
        self.suites = frozenset(self.SupportedCiphersuites().ciphersuites)

    def __getattr__(self, call: str) -> Callable[..., Any]:
        if call not in self.__dict__.get("_requests", ()):
            raise AttributeError(call)

        def invoke(**fields: object) -> Any:
            return self._invoke(call, self._requests[call](**fields))

        return invoke

    def request_type(self, call: str) -> Any:
        """The class of a call's request."""
        return self._requests[call]

    def send(self, call: str, request: Any) -> tuple[Any, str]:
        """Makes a call; gives the answer, or None and the error's code."""
        try:
            return self._invoke(call, request), ""
        except RefusalError as error:
            return None, error.code

    def _invoke(self, call: str, request: Any) -> Any:
        self.calls += 1
        try:
            answer = getattr(self._stub, call)(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            refusal = RefusalError(self.name, call, error.code().name, error.details() or "")
            self._note(call, request, None, f"{refusal.code}: {refusal.words}")
            raise refusal from None
        self._note(call, request, answer, "")
        return answer

    def _note(self, call: str, request: Any, answer: Any, error: str) -> None:
        if self.transcript is not None:
            self.transcript.add(self.name, call, request, answer, error)


@dataclass(frozen=True, slots=True)
class Startable:
    """A peer that is built: the command that starts it, and the version of its library."""

    name: str
    version: str
    command: tuple[str, ...]


def ourselves() -> Startable:
    """Our own server."""
    command = (sys.executable, "-m", "coterie.apps", "interop", "serve")
    return Startable(OURSELVES, version("coterie"), command)


def peers_folder() -> Path:
    """Where the peers' drivers are: in the checkout that this package is used from."""
    for start in (Path.cwd(), *Path(__file__).parents):
        folder = start / "interop" / "peers"
        if (folder / "build.py").exists():
            return folder
    msg = "there are no peers here: run this in a checkout of Coterie, which has interop/peers"
    raise StateError(msg)


def built(folder: Path | None, names: Iterable[str]) -> tuple[list[Startable], list[str]]:
    """Builds peers where that is needed; gives those that can be started, and why others cannot."""
    found, missing = [], []
    for name in names:
        if folder is None or name == OURSELVES:
            found.append(ourselves())
            continue
        run = subprocess.run(  # noqa: S603 - our own script
            [sys.executable, str(folder / "build.py"), name],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            missing.append(run.stderr.strip() or f"{name} could not be built")
            continue
        command = run.stdout.strip().splitlines()[-1].removeprefix(f"{name}: ")
        found.append(Startable(name, library_version(folder / name), tuple(shlex.split(command))))
    return found, missing


def library_version(folder: Path) -> str:
    """The version of the library that a driver pins."""
    for file, pattern in _VERSIONS:
        path = folder / file
        if path.exists() and (
            match := re.search(pattern.format(name=folder.name), path.read_text())
        ):
            return match[1]
    return "unknown"


@contextlib.contextmanager
def started(what: Startable) -> Iterator[Peer]:
    """Starts a peer on a port that it chooses, and stops it afterwards."""
    command = [*what.command, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - a peer of ours
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                msg = f"{what.name} did not start; it said {line.strip()!r}"
                raise StateError(msg)
            with connected(what.name, line.split()[-1]) as peer:
                yield peer
        finally:
            process.terminate()


@contextlib.contextmanager
def connected(name: str, address: str) -> Iterator[Peer]:
    """A peer whose server runs already."""
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        yield Peer(name, channel)
