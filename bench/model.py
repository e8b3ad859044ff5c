#!/usr/bin/env python3
"""What a host with more cores would do: a model, fed with costs that `bench/run.py` has measured.

    P=$(bench/fetch-python 3.15)
    S=workers-each100,workers-each1k,workers-each16k,workers-secrets100
    python3 bench/run.py --python $P --only $S --json now.json
    python3 bench/model.py now.json

A frame costs processor time in four places: in the main interpreter (relay, decode, decide,
record), in a worker (search), and in the engine and the client. The first can be had once, however
many cores there are, since one thread at a time runs in an interpreter. What is used up first sets
the rate. The model knows nothing of memory bandwidth, of the network, or of other load.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from _dockeraudit.workers import LEAST_WORKERS, MOST_WORKERS

CORES = (2, 4, 16, 64)
BYTES = {
    "workers-each100": 100,
    "workers-each1k": 1024,
    "workers-each16k": 16384,
    "workers-secrets100": 100,
}
NAMES = {
    "workers-each100": "100 B lines",
    "workers-each1k": "1 KiB lines",
    "workers-each16k": "16 KiB lines",
    "workers-secrets100": "100 B lines, a secret in each",
}
MEASURED_CORES = 2  # of the machine that the engine and the client had to themselves


class Costs(NamedTuple):
    """Microseconds of a core for one frame."""

    relay: float
    search: float
    ends: float  # the engine and the client

    @property
    def whole(self) -> float:
        """Everything that a host spends on it."""
        return self.relay + self.search + self.ends


class Limit(NamedTuple):
    """Frames a second at which something is used up."""

    rate: float
    what: str


def costs_of(figures: Mapping[str, Any]) -> Costs:
    """The costs in a scenario's figures."""
    ours, direct = figures["dockeraudit"], figures["direct"]
    relay = ours["relay_cpu_per_million"]["median"]
    search = ours["cpu_per_million"]["median"] - relay
    ends = MEASURED_CORES * 1e6 / direct["frames_per_second"]["median"]
    return Costs(relay, search, ends)


def workers_of(cores: int) -> int:
    """How many workers `--workers auto` means."""
    return 0 if cores < 2 else min(max(LEAST_WORKERS, cores - 1), MOST_WORKERS)


def limits(costs: Costs, cores: int) -> list[Limit]:
    """What would be used up, the first thing first."""
    workers = workers_of(cores)
    return sorted(
        [
            Limit(1e6 / costs.relay, "the main interpreter"),
            Limit(workers * 1e6 / costs.search, f"{workers} workers"),
            Limit(cores * 1e6 / costs.whole, "the cores"),
        ]
    )


def table(figures: Mapping[str, Any]) -> Iterator[str]:
    """The model's table as Markdown."""
    yield (
        "| what flows | relay, search, ends: µs a frame | "
        + " | ".join(f"{cores} cores" for cores in CORES)
        + " | workers that the relay can feed |"
    )
    yield "|---" * (len(CORES) + 3) + "|"
    for scenario in (name for name in BYTES if name in figures):
        costs = costs_of(figures[scenario])
        cells = []
        for cores in CORES:
            first = limits(costs, cores)[0]
            cells.append(f"{first.rate * BYTES[scenario] / 1e6:,.0f} MB/s: {first.what}")
        each = f"{costs.relay:.3g}, {costs.search:.3g}, {costs.ends:.3g}"
        feeds = f"{costs.search / costs.relay:.1f}"
        yield f"| {NAMES[scenario]} | {each} | " + " | ".join(cells) + f" | {feeds} |"


def main(paths: Sequence[str]) -> int:
    """Print the table for the figures in these files."""
    figures: dict[str, Any] = {}
    for path in paths:
        figures.update(json.loads(Path(path).read_text())["figures"])
    print("\n".join(table(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
