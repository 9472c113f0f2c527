"""Measures all that the Delivery Service bears, and writes docs/delivery-performance.md: `python -m bench.delivery`.

Service and load generator run on this machine together, over real HTTP and WebSocket on loopback, durable writes on.
`--page FILE` makes page and plot of an earlier run's JSON again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import pstats
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench import delivery_appends, delivery_claims, delivery_fanout, delivery_restart

DOCS: Final = Path(__file__).parents[1] / "docs"
CONNECTIONS: Final = (1, 4, 16, 64, 128)
SUBSCRIBERS: Final = (100, 500, 1000, 2000)
KINDS: Final = (
    ("waiting for work", ("select.epoll", "threading.py")),
    ("signatures", ("_rust.openssl", "signatures.py", "signature_worker")),
    ("SQLite", ("apsw", "sqlite_ledger.py", "store.py")),
    ("system calls of sockets", ("_socket.socket",)),
    ("HTTP and the event loop", ("uvicorn", "httptools", "asyncio", "_contextvars", "websockets")),
    ("the protocol's rules and structs", ("coterie", "hashlib")),
)
"""What a line of a profile counts as: the first kind one of whose words is in it."""


def measure(*, quick: bool) -> dict[str, Any]:
    """All figures; `quick` takes a tenth of the requests."""
    few = 10 if quick else 1
    appends = []
    for connections in CONNECTIONS:
        count = (2_000 if connections == 1 else 20_000) // few
        runs = [asyncio.run(delivery_appends.run(count, connections, 50, 1024)) for _ in range(3)]
        runs.sort(key=lambda run: run["per_second"])
        appends.append(runs[1])
    fanout = [
        asyncio.run(delivery_fanout.run(count, max(4, 50_000 // count // few), 0.0, 256))
        for count in SUBSCRIBERS
    ]
    idle = {
        tls: statistics.median(
            asyncio.run(delivery_fanout.idle_kib(2000 // few, tls=tls == "with TLS"))
            for _ in range(3)
        )
        for tls in ("without TLS", "with TLS")
    }
    return {
        "machine": _machine(),
        "appends": appends,
        "fanout": fanout,
        "idle_kib": idle,
        "claims": asyncio.run(delivery_claims.run(50, 100 // few, 32)),
        "restart": delivery_restart.run(1_000_000 // few, 100),
        "profile": _profile(20_000 // few),
    }


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _profile(count: int) -> dict[str, float]:
    """The shares of an append in the service's own process, in the order of `KINDS`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile"
        asyncio.run(delivery_appends.run(count, 64, 50, 1024, ("--profile", str(path))))
        stats: Any = pstats.Stats(str(path))
    seconds: Counter[str] = Counter()
    for (file, _, function), (_, _, own, _, _) in stats.stats.items():
        seconds[_kind(f"{file} {function}")] += own
    del seconds["waiting for work"]
    total = sum(seconds.values())
    return {kind: round(spent / total, 3) for kind, spent in seconds.most_common()}


def _kind(line: str) -> str:
    for kind, words in KINDS:
        if any(word in line for word in words):
            return kind
    return "Python's built-in functions"


INTRODUCTION: Final = """\
# What the Delivery Service bears

Made by `make bench-delivery`; do not edit. One machine, service and load generator on it together, durable writes on
(WAL, synchronous=FULL), over HTTP and WebSocket on loopback, without TLS but where it says so.
"""
APPENDS: Final = """
Medians of three runs. At the highest rate the latency is that of a queue that is always full. While four and more
appends are under way, a second process of the service verifies their signatures (docs/decisions/0128); its time is
in the last column.
"""
LIMITS: Final = """
## What limits an append

Shares of the time in the service's own process at 64 connections, by a profile, which makes Python's part look larger
than it is. The signatures of appends that the second process verified are not in it.
"""
THE_REST: Final = """
What limits the rest: a delivery is uvicorn's frame and one system call; memory per subscriber is uvicorn's connection,
asyncio's transport, one task, and with TLS OpenSSL's state and asyncio's buffers; a claim is HTTP and SQLite;
publishing two signature checks a package, in a thread; at the start nothing is read but the version. Not measured: a
disk slower than this machine's.
"""


def page(figures: dict[str, Any]) -> str:
    """The page."""
    machine = figures["machine"]
    about = (
        f"Machine: {machine['cores']} cores, {machine['system']}, CPython {machine['python']}; "
        f"load average {machine['load']:.1f} at the start.\n"
    )
    parts = [INTRODUCTION, about, _table(("what", "measured", "aim"), _summary(figures))]
    parts.append("![Rate and latency by connections and subscribers](delivery-performance.svg)\n")
    parts += ["## Appends, by connections that each wait for their answer\n"]
    parts += [_curve("connections", "appends/s", figures["appends"]) + APPENDS]
    parts += ["## Fan-out, by subscribers of one log\n"]
    parts += [_curve("subscribers", "deliveries/s", figures["fanout"]) + LIMITS]
    shares = [(kind, f"{100 * share:.0f} %") for kind, share in figures["profile"].items()]
    parts += [_table(("part", "share"), shares) + THE_REST]
    return "\n".join(parts)


def _summary(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    best = max(figures["appends"], key=lambda run: run["per_second"])
    fan = figures["fanout"][-1]
    published, claimed = figures["claims"]
    idle, restart = figures["idle_kib"], figures["restart"]
    stored = f"{restart['messages']:,} messages stored ({restart['database_mib']} MiB)"
    again = (
        f"listening after {restart['listening_after_s']} s; an append and a read of up to 16 MiB "
        f"{restart['first_append_and_read_s']} s later"
    )
    return [
        (f"durable appends of 1 KiB, {best['connections']} connections", _speed(best), "5,000/s"),
        (
            f"fan-out of one log to {fan['subscribers']:,} WebSocket subscribers",
            _speed(fan),
            "30,000/s, p99 under 250 ms",
        ),
        ("memory per idle subscriber", f"{idle['without TLS']} KiB", "30 KB"),
        ("the same with TLS", f"{idle['with TLS']} KiB", "90 KB"),
        ("key-package claims, 32 connections", _speed(claimed), ""),
        ("publishing batches of 100 packages", _speed(published), ""),
        (f"start with {stored}", again, "2 s"),
    ]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def _curve(by: str, rate: str, runs: list[dict[str, Any]]) -> str:
    head = (by, rate, "p50 ms", "p99 ms", "processor time of the service, us each")
    keys = (by, "per_second", "p50_ms", "p99_ms", "server_us_each")
    return _table(head, [tuple(f"{run[key]:,}" for key in keys) for run in runs])


def _speed(run: dict[str, Any]) -> str:
    return f"{run['per_second']:,.0f}/s, p50 {run['p50_ms']} ms, p99 {run['p99_ms']} ms"


def plot(figures: dict[str, Any], path: Path) -> None:
    """Rates and latencies; needs matplotlib (the extra `bench`)."""
    import matplotlib as mpl  # noqa: PLC0415 - the page can be made without it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "coterie", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    figure, both = plt.subplots(1, 2, figsize=(10, 4))
    parts = (
        ("appends", "connections", "appends", 5_000),
        ("fanout", "subscribers", "deliveries", 30_000),
    )
    for axes, (name, by, what, aim) in zip(both, parts, strict=True):
        runs = figures[name]
        x = [run[by] for run in runs]
        axes.plot(x, [run["per_second"] for run in runs], marker="o", color="tab:blue")
        axes.axhline(aim, color="tab:blue", linestyle=":", linewidth=1)
        axes.set_xlabel(by)
        axes.set_ylabel(f"{what} per second (dotted: the aim)", color="tab:blue")
        axes.set_ylim(bottom=0)
        latency = axes.twinx()
        for key, style in (("p50_ms", "-"), ("p99_ms", "--")):
            latency.plot(x, [run[key] for run in runs], style, color="tab:red", label=key[:3])
        latency.set_ylabel("milliseconds", color="tab:red")
        latency.set_ylim(bottom=0)
        latency.legend(loc="lower right", fontsize="small")
        axes.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests, no page")
    parser.add_argument("--json", type=Path, default=Path("build/bench-delivery.json"))
    parser.add_argument("--page", type=Path, help="make the page of these figures again")
    parser.add_argument("--docs", type=Path, default=DOCS)
    a = parser.parse_args()
    if a.page is None:
        delivery_fanout.allow_many_files()
        figures = measure(quick=a.quick)
        a.json.parent.mkdir(exist_ok=True)
        a.json.write_text(json.dumps(figures, indent=1))
    else:
        figures = json.loads(a.page.read_text())
    if a.quick:
        print(json.dumps(figures, indent=1))
        return
    (a.docs / "delivery-performance.md").write_text(page(figures))
    try:
        plot(figures, a.docs / "delivery-performance.svg")
    except ImportError:
        print("no plot: matplotlib is not installed (extra `bench`)")


if __name__ == "__main__":
    main()
