"""Counters and durations in Prometheus' text format, labelled by path and outcome only (D-TRA-6)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the durations' histogram, in seconds."""


class Metrics:
    """What a service counts about itself; nothing that names a log, an epoch, a user or a client."""

    def __init__(self) -> None:
        self._counters: Counter[str] = Counter()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self._seconds: dict[str, float] = defaultdict(float)

    def count(self, name: str, by: int = 1) -> None:
        """Adds to a counter."""
        self._counters[name] += by

    def request(self, path: str, outcome: str, seconds: float) -> None:
        """Counts a request and how long it took."""
        self._requests[path, outcome] += 1
        row = self._durations[path]
        row[next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
        self._seconds[path] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of it in the exposition format, version 0.0.4."""
        lines = ["# TYPE coterie_delivery_requests_total counter"]
        lines += [
            f'coterie_delivery_requests_total{{path="{path}",outcome="{outcome}"}} {count}'
            for (path, outcome), count in sorted(self._requests.items())
        ]
        lines.append("# TYPE coterie_delivery_request_seconds histogram")
        for path, row in sorted(self._durations.items()):
            lines += self._histogram(path, row)
        for name, count in sorted(self._counters.items()):
            lines += [
                f"# TYPE coterie_delivery_{name}_total counter",
                f"coterie_delivery_{name}_total {count}",
            ]
        for name, value in sorted(gauges.items()):
            lines += [f"# TYPE coterie_delivery_{name} gauge", f"coterie_delivery_{name} {value:g}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, path: str, row: list[int]) -> list[str]:
        name, lines, total = "coterie_delivery_request_seconds", [], 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), row, strict=True):
            total += count
            lines.append(f'{name}_bucket{{path="{path}",le="{bound}"}} {total}')
        lines.append(f'{name}_sum{{path="{path}"}} {self._seconds[path]:.6f}')
        lines.append(f'{name}_count{{path="{path}"}} {total}')
        return lines
