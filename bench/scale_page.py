"""Makes `docs/scale.md` of what `bench.scale` measured: `python -m bench.scale_page build/bench-scale.json`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
LARGE: Final = 500_000
INTRODUCTION: Final = """\
# A large group through the real Delivery Service

Made by `make bench-scale`; do not edit. The service is one process on loopback with its databases on disk, durable
writes on. Everybody in the group has an X.509 credential. The group is put together in memory, and its log begins with
that epoch; {real} of its {members:,} members are real clients with profiles on disk, all in one process, and {played:,}
are played: they have a subscription each, take what is pushed, and show the next epoch's token after each Commit. They
share {connections:,} connections, since a process may open so many files only. Service, clients and players have two
cores between them.

Times are of one run on a shared machine; processor time says more than the clock, and the real clients share one core:
what all of them do takes {real} times as long as what one does. Bytes are those of the protocol's structs, without
HTTP's headers.
"""
SLOPES: Final = """
## Where it would break at 500,000

On paper, from the slopes above; nothing of this was run.
"""


def page(report: dict[str, Any]) -> str:
    """The page."""
    come = report["played members come"]
    members = report["members"]
    parts = [
        INTRODUCTION.format(
            real=report["real"],
            members=members,
            played=come["members"],
            connections=come["connections"],
        ),
        _table(("what", "clock", "service", "clients", "bytes"), _rows(report)),
        _subscribers(come),
        SLOPES,
        _table(("what", f"at {members:,}", f"at {LARGE:,}", "what follows"), _slopes(report)),
    ]
    return "\n".join(parts)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _seconds(value: float) -> str:
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.1f} s"


def _bytes(value: float) -> str:
    return f"{value / 2**20:,.1f} MiB" if value >= 2**20 else f"{value / 1024:,.1f} KiB"


def _rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    def row(what: str, name: str, size: str = "") -> tuple[str, ...]:
        one = report[name]
        times = (one[key] for key in ("seconds", "service_cpu_s", "clients_cpu_s"))
        return (what, *map(_seconds, times), size)

    state = report["making the group and uploading its state"]
    first = report["first catching up of a real client"]
    quiet, lively = report["a Commit, clients poll"], report["a Commit reaches all"]
    message, join = report["a message reaches all"], report["joining by chunks"]
    add, come = report["adding one"], report["played members come"]
    back = next(name for name in report if name.startswith("back after"))
    reading = report["reading it, reader 1"]
    return [
        row(
            "making the group, uploading its state",
            "making the group and uploading its state",
            _bytes(state["state_bytes"]),
        ),
        row(
            "a real client opens its profile and catches up with nothing new",
            "first catching up of a real client",
            f"{_bytes(first['received'])}; {first['memory_kib']:,.0f} KiB of memory",
        ),
        row(
            f"a Commit by a real client, all {report['real']} real clients poll",
            "a Commit, clients poll",
            f"{_bytes(quiet['bytes_sent'])} up, {_bytes(quiet['bytes_received_each'])} to each",
        ),
        row(
            f"one real client comes {back}",
            back,
            f"{_bytes(report[back]['received'])} down",
        ),
        row("adding one member", "adding one", f"{_bytes(add['sent'])} up"),
        row(
            "joining, the tree downloaded in chunks, every signature and certificate checked",
            "joining by chunks",
            f"{_bytes(join['received'])} down",
        ),
        row(
            "all played members subscribe",
            "played members come",
            f"{come['members']:,} subscriptions",
        ),
        row(
            f"a message, pushed to all (real clients have it after {_seconds(message['real_clients_s'])}, the last "
            f"played one after {_seconds(message['last_of_the_crowd_s'])})",
            "a message reaches all",
            f"{message['frames']:,} frames",
        ),
        row(
            f"a Commit, pushed to all (real clients have it after {_seconds(lively['all_real_adopted_s'])}), and all "
            f"subscribe to the next epoch ({_seconds(lively['crowd_in_next_epoch_s'])})",
            "a Commit reaches all",
            f"{_bytes(lively['bytes_sent'])} up",
        ),
        row(
            "the first Commit by another after all were added at once",
            "the Commit of a blank tree",
            f"{_bytes(report['the Commit of a blank tree']['sent'])} up",
        ),
        row("reading it", "reading it, reader 1", f"{_bytes(reading['received'])} down"),
    ]


def _subscribers(come: dict[str, Any]) -> str:
    return (
        f"A connection costs the service {come['kib_a_connection']:.1f} KiB, a further subscription on it "
        f"{come['kib_a_subscription']:.1f} KiB.\n\n"
        "A reader of the large Commit needs one ciphertext of it, and reads all: docs/decisions/0024 says why.\n"
    )


def _slopes(report: dict[str, Any]) -> list[tuple[str, ...]]:
    members = report["members"]
    times = LARGE / members
    come, message = report["played members come"], report["a message reaches all"]
    lively, join = report["a Commit reaches all"], report["joining by chunks"]
    large = report["the Commit of a blank tree"]["sent"]
    memory = come["members"] * (come["kib_a_connection"] + come["kib_a_subscription"]) * 1024
    return [
        (
            "memory of the service, a connection for each member",
            _bytes(memory),
            _bytes(memory * times),
            "more than one machine should hold: front processes that keep the connections",
        ),
        (
            "processor time to push a message",
            _seconds(message["service_cpu_s"]),
            _seconds(message["service_cpu_s"] * times),
            "one core sends so many messages in a minute at most: fan-out has to be shared between processes",
        ),
        (
            "processor time of a Commit, with the next subscriptions",
            _seconds(lively["service_cpu_s"]),
            _seconds(lively["service_cpu_s"] * times),
            "the first thing to break: Commits must be this far apart, or members poll",
        ),
        (
            "state that a joiner downloads",
            _bytes(join["received"]),
            _bytes(join["received"] * times),
            "linear by nature, as are the signature checks; a joiner on a telephone will not want it",
        ),
        (
            "processor time of a joiner",
            _seconds(join["clients_cpu_s"]),
            _seconds(join["clients_cpu_s"] * times),
            "signatures and certificates of all members",
        ),
        (
            "the Commit of a blank tree",
            _bytes(large),
            _bytes(large * times),
            "beyond the largest bundle (32 MiB by default): members are added in several Commits",
        ),
        (
            "a Commit in a warm tree",
            _bytes(lively["bytes_sent"]),
            _bytes(lively["bytes_sent"] * 1.2),
            "four levels of the tree more; no limit is near",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--docs", type=Path, default=DOCS)
    a = parser.parse_args()
    (a.docs / "scale.md").write_text(page(json.loads(a.report.read_text())))


if __name__ == "__main__":
    main()
