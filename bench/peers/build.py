"""Builds the benchmark drivers of the peers, on demand, as `interop/peers/build.py` builds its own.

python -m bench.peers.build              all that the toolchains here can build
python -m bench.peers.build openmls      one
"""

from __future__ import annotations

import sys
from pathlib import Path

from interop.peers.build import (
    MAVEN_STEPS,
    NPM_STEPS,
    BuildFailedError,
    MissingToolchainError,
    Peer,
    build,
    build_folder,
    cargo_target,
)

__all__ = ["PEERS", "build_folder", "try_build"]

HERE = Path(__file__).resolve().parent
CACHE = "bench-peers"


def _cargo(name: str, *tools: str, hint: str = "") -> Peer:
    binary = f"bench-{name}"
    keep_binary = ("cp", str(cargo_target(CACHE) / "release" / binary), ".")
    return Peer(
        name,
        ("cargo", *tools),
        f"Rust 1.91 or later{hint}",
        (("cargo", "build", "--release", "--quiet"), keep_binary),
        lambda folder: [str(folder / binary)],
        shared=("rust-line",),
        home=HERE,
        files=(),
        cache=CACHE,
    )


def _java(folder: Path) -> list[str]:
    classes = f"{folder}/target/driver.jar:{folder}/target/lib/*"
    return ["java", "-Xss64m", "-cp", classes, "coterie.bench.Driver"]


def _other(
    name: str, tools: tuple[str, ...], hint: str, steps: tuple[tuple[str, ...], ...]
) -> Peer:
    def command(folder: Path) -> list[str]:
        return ["node", str(folder / "driver.mjs")] if "node" in tools else _java(folder)

    return Peer(name, tools, hint, steps, command, home=HERE, files=(), cache=CACHE)


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        _cargo("openmls"),
        _cargo(
            "mls-rs",
            "pkg-config",
            "cmake",
            hint=", CMake, a C compiler, and the OpenSSL headers with pkg-config",
        ),
        _other("ts-mls", ("node", "npm"), "Node.js 20 or later", NPM_STEPS),
        _other("bouncy-castle", ("java", "mvn"), "a JDK 17 and Maven", MAVEN_STEPS),
    )
}


def try_build(name: str) -> list[str] | None:
    """The command that starts a driver, or None after saying on the error stream why there is none."""
    try:
        return build(PEERS[name])
    except MissingToolchainError as missing:
        print(f"{missing}. It is left out.", file=sys.stderr)
    except BuildFailedError as failed:
        print(f"{name} could not be built and is left out. {failed}", file=sys.stderr)
    return None


if __name__ == "__main__":
    for chosen in sys.argv[1:] or PEERS:
        if command := try_build(chosen):
            print(f"{chosen}: {' '.join(command)}")
