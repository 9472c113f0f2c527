"""Build the interop peers on demand and print the command that starts each.

Every peer is a thin gRPC driver of ours around another MLS library, in a folder beside this file.
A build goes into a cache outside the checkout, named by a hash of the driver's sources and the
interface, so that an unchanged peer is built once and a changed one never reuses an old build.

    python interop/peers/build.py              all peers
    python interop/peers/build.py ts-mls       one peer
    python interop/peers/build.py --check      only say what is built and what could be

Each line of the output is a peer's name, a colon and its command; append `--port N` to start it.
A peer whose toolchain is missing is named on the error stream and makes the exit status 2; a
build that fails makes it 1. The other peers are built all the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
INTEROP = HERE.parent
PROTO = INTEROP / "proto" / "mls_client.proto"
IGNORED = frozenset({"node_modules", "target", "Cargo.lock", "__pycache__"})

EXIT_BUILD_FAILED = 1
EXIT_TOOLCHAIN_MISSING = 2


class MissingToolchainError(Exception):
    """A program that a peer's build needs is not on the path."""


class BuildFailedError(Exception):
    """A build command ended with an error; its log is kept."""


@dataclass(frozen=True)
class Peer:
    """How one peer is built and started."""

    name: str
    tools: tuple[str, ...]
    install_hint: str
    steps: tuple[tuple[str, ...], ...]
    """The build commands, run inside a copy of the driver's folder."""
    command: Callable[[Path], list[str]]
    """The command line of the server, given the folder where the build ended up."""
    shared: tuple[str, ...] = ()
    """Further folders that the driver is built from."""
    home: Path = HERE
    """The folder that has the drivers' folders."""
    files: tuple[Path, ...] = (PROTO,)
    """Further files that the driver is built from; they lie beside `home`, or below."""
    cache: str = "peers"
    """The folder of the builds."""


def cache_root(cache: str = "peers") -> Path:
    """Give the folder of all builds: `$XDG_CACHE_HOME/coterie/peers`, or the same under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "coterie" / cache


def cargo_target(cache: str = "peers") -> Path:
    """Give the folder where cargo keeps its intermediate results between builds."""
    return cache_root(cache) / "cargo-target"


NPM_STEPS = (("npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"),)


def _node_command(folder: Path) -> list[str]:
    return ["node", str(folder / "server.mjs")]


def _cargo_peer(name: str, *tools: str, hint: str = "") -> Peer:
    binary = f"peer-{name}"
    build_binary = ("cargo", "build", "--release", "--quiet")
    # The target folder is shared by all builds; only the program itself is kept per hash.
    keep_binary = ("cp", str(cargo_target() / "release" / binary), ".")
    return Peer(
        name,
        ("cargo", *tools),
        f"Rust 1.91 or later{hint}",
        (build_binary, keep_binary),
        lambda folder: [str(folder / binary)],
        shared=("rust-grpc",),
    )


MAVEN_STEPS = (("mvn", "--batch-mode", "--quiet", "package"),)


def _java_command(folder: Path) -> list[str]:
    classes = f"{folder}/target/peer.jar:{folder}/target/lib/*"
    # Exceptions that are thrown often lose their words otherwise, by which it is told why a message was refused.
    words = "-XX:-OmitStackTraceInFastThrow"
    return ["java", words, "-cp", classes, "coterie.interop.BouncyCastlePeer"]


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("ts-mls", ("node", "npm"), "Node.js 20 or later", NPM_STEPS, _node_command),
        _cargo_peer("openmls"),
        _cargo_peer("mls-rs", "pkg-config", hint=" and the OpenSSL headers with pkg-config"),
        Peer("bouncy-castle", ("java", "mvn"), "a JDK 17 and Maven", MAVEN_STEPS, _java_command),
    )
}


def sources(peer: Peer) -> list[Path]:
    """List the files that a peer is built from, in a stable order."""
    folders = [peer.home / name for name in (peer.name, *peer.shared)]
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    kept = (path for path in found if not IGNORED & set(path.relative_to(peer.home).parts))
    return sorted([*peer.files, *kept])


def build_folder(peer: Peer) -> Path:
    """Name the cache folder for the present sources of a peer."""
    digest = hashlib.sha256()
    for path in sources(peer):
        digest.update(str(path.relative_to(peer.home.parent)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return cache_root(peer.cache) / f"{peer.name}-{digest.hexdigest()[:16]}"


def missing_tools(peer: Peer) -> list[str]:
    """List the programs that the build needs and the path does not have."""
    return [tool for tool in peer.tools if shutil.which(tool) is None]


def _run(peer: Peer, folder: Path) -> None:
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    environment = {**os.environ, "CARGO_TARGET_DIR": str(cargo_target(peer.cache))}
    log = folder / "build.log"
    with log.open("wb") as output:
        for step in peer.steps:
            code = subprocess.run(
                [*nice, *step],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                check=False,
            ).returncode
            if code != 0:
                tail = log.read_text(errors="replace").splitlines()[-15:]
                raise BuildFailedError(
                    f"`{shlex.join(step)}` ended with {code}:\n" + "\n".join(tail)
                )


def build(peer: Peer) -> list[str]:
    """Build a peer if its sources changed, and give the command that starts its server.

    Raises MissingToolchainError when a program is missing and BuildFailedError when a step fails;
    in both cases the cache holds no folder for these sources.
    """
    folder = build_folder(peer)
    started_in = folder / peer.home.name / peer.name
    if folder.exists():
        return peer.command(started_in)
    if missing := missing_tools(peer):
        raise MissingToolchainError(
            f"{peer.name} needs {peer.install_hint}; not on the path: {', '.join(missing)}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{peer.name}-") as scratch:
        work = Path(scratch) / "build"
        for path in sources(peer):
            target = work / path.relative_to(peer.home.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        started = time.monotonic()
        _run(peer, work / peer.home.name / peer.name)
        print(f"{peer.name}: built in {time.monotonic() - started:.0f} s", file=sys.stderr)
        try:
            work.rename(folder)
        except OSError:
            # Somebody else built the same at the same time.
            if not folder.exists():
                raise
    return peer.command(started_in)


def _check(peers: Sequence[Peer]) -> int:
    for peer in peers:
        if build_folder(peer).exists():
            state = "built"
        elif missing := missing_tools(peer):
            state = f"cannot be built, not on the path: {', '.join(missing)}"
        else:
            state = "not built"
        print(f"{peer.name}: {state}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the peers named on the command line and print how to start them."""
    parser = argparse.ArgumentParser(description="Build the interop peers.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; all if none"
    )
    parser.add_argument(
        "--check", action="store_true", help="build nothing, only say what is there"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in PEERS]:
        parser.error(f"unknown peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    peers = [PEERS[name] for name in options.names or PEERS]
    if options.check:
        return _check(peers)
    status = 0
    for peer in peers:
        try:
            print(f"{peer.name}: {shlex.join(build(peer))}", flush=True)
        except MissingToolchainError as error:
            print(error, file=sys.stderr)
            status = status or EXIT_TOOLCHAIN_MISSING
        except BuildFailedError as error:
            print(f"{peer.name} could not be built. {error}", file=sys.stderr)
            status = EXIT_BUILD_FAILED
    return status


if __name__ == "__main__":
    raise SystemExit(main())
