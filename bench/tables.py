"""What bench/run.py measured, as tables: the goals first, then the peers in each scenario."""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, NamedTuple

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
US, SIX = "dockeraudit", "dockeraudit-six"


class Goal(NamedTuple):
    """A goal: `value(results)` should be at least (sign ≥) or at most (sign ≤) `bound`."""

    number: int
    what: str
    sign: str
    bound: float
    value: Callable[[Results], float]


def ratio(scenario: str, metric: str, ours: str, other: str) -> Callable[[Results], float]:
    """Our median over another peer's."""
    return lambda results: (
        results[scenario][ours][metric].median / results[scenario][other][metric].median
    )


def own(scenario: str, metric: str) -> Callable[[Results], float]:
    """Our median."""
    return lambda results: results[scenario][US][metric].median


def stream_goals() -> Iterator[Goal]:
    """Goals 1 to 5: streams."""
    for size, times in ((100, 1.6), (1024, 3.0)):
        name = f"docker logs, {size} B lines"
        yield Goal(
            1, f"{name}: of direct", "≥", 0.85, ratio(name, "lines_per_second", US, "direct")
        )
        yield Goal(
            1, f"{name}: of HAProxy", "≥", 1.0, ratio(name, "lines_per_second", US, "haproxy")
        )
        yield Goal(1, f"{name}: of Go", "≥", times, ratio(name, "lines_per_second", US, "go"))
    yield Goal(
        2,
        "100 B frames, all rules: of Go",
        "≥",
        4.0,
        ratio("each100", "frames_per_second", US, "go"),
    )
    yield Goal(
        2,
        "100 B frames, all rules: of direct",
        "≥",
        0.45,
        ratio("each100", "frames_per_second", US, "direct"),
    )
    yield Goal(
        2,
        "100 B frames, the six: of Go",
        "≥",
        4.5,
        ratio("each100", "frames_per_second", SIX, "go"),
    )
    yield Goal(
        2,
        "100 B frames, the six: of direct",
        "≥",
        0.5,
        ratio("each100", "frames_per_second", SIX, "direct"),
    )
    for name, text, all_rules, six in (
        ("each1k", "1 KiB", 4.0, 7.0),
        ("each16k", "16 KiB", 6.0, 10.0),
    ):
        yield Goal(
            3,
            f"{text} frames, all rules: of Go",
            "≥",
            all_rules,
            ratio(name, "mb_per_second", US, "go"),
        )
        yield Goal(
            3, f"{text} frames, the six: of Go", "≥", six, ratio(name, "mb_per_second", SIX, "go")
        )
    yield Goal(
        4,
        "processor time a frame, all rules: of Go",
        "≤",
        0.18,
        ratio("each100", "cpu_per_million", US, "go"),
    )
    yield Goal(
        4,
        "processor time a frame, the six: of Go",
        "≤",
        0.13,
        ratio("each100", "cpu_per_million", SIX, "go"),
    )
    yield Goal(
        5,
        "a secret in every frame: of Go",
        "≥",
        1.4,
        ratio("secrets100", "frames_per_second", US, "go"),
    )


def other_goals() -> Iterator[Goal]:
    """Goals 6 to 13: latency, requests, memory, starting."""
    yield Goal(6, "20 quiet streams, p50: of Go", "≤", 0.6, ratio("quiet", "p50_ms", US, "go"))
    yield Goal(
        6,
        "beside a busy stream, p99: of Go",
        "≤",
        0.15,
        ratio("quiet-beside-busy", "p99_ms", US, "go"),
    )
    yield Goal(
        6, "over TCP, p50: of HAProxy", "≤", 0.1, ratio("quiet-tcp", "p50_ms", US, "haproxy")
    )
    yield Goal(
        7,
        "keep-alive requests, 1 client: of Go",
        "≥",
        1.8,
        ratio("requests-1", "per_second", US, "go"),
    )
    yield Goal(
        7,
        "keep-alive requests, 32 clients: of Go",
        "≥",
        0.85,
        ratio("requests-32", "per_second", US, "go"),
    )
    yield Goal(
        8, "opaque body with a length: of Go", "≥", 1.3, ratio("length", "mb_per_second", US, "go")
    )
    yield Goal(
        8, "opaque body, chunked: of Go", "≥", 1.2, ratio("chunked", "mb_per_second", US, "go")
    )
    yield Goal(
        8,
        "processor time a GB with a length: of Go",
        "≤",
        0.4,
        ratio("length", "cpu_per_gb", US, "go"),
    )
    yield Goal(
        8, "processor time a GB chunked: of Go", "≤", 0.4, ratio("chunked", "cpu_per_gb", US, "go")
    )
    yield Goal(
        9, "memory a follower: of Go", "≤", 1.0, ratio("followers", "kib_per_follower", US, "go")
    )
    yield Goal(9, "memory a follower, KiB", "≤", 40, own("followers", "kib_per_follower"))
    yield Goal(9, "slow reader of 1 GB, MiB over idle", "≤", 8, own("memory", "slow_reader_mib"))
    yield Goal(9, "32 busy streams, MiB in all", "≤", 45, own("memory", "busy_peak_mib"))
    yield Goal(
        10,
        "500 followers vanish: seconds until no upstream is left",
        "≤",
        0.5,
        own("followers", "gone_seconds"),
    )
    yield Goal(
        11,
        "first byte beside 32 busy streams: of Go",
        "≤",
        0.1,
        ratio("first-byte", "first_ms", US, "go"),
    )
    yield Goal(
        12,
        "all rules: of the six alone, 100 B",
        "≥",
        0.6,
        ratio("each100", "frames_per_second", US, SIX),
    )
    yield Goal(
        12,
        "all rules: of the six alone, 1 KiB",
        "≥",
        0.6,
        ratio("each1k", "frames_per_second", US, SIX),
    )
    yield Goal(
        12,
        "all rules: of the six alone, 16 KiB",
        "≥",
        0.6,
        ratio("each16k", "frames_per_second", US, SIX),
    )
    yield Goal(13, "start to first answer, seconds", "≤", 0.25, own("start", "start_seconds"))


def goals_table(results: Results) -> list[str]:
    """Each goal, what was measured, and whether the goal is kept."""
    lines = ["| # | what | goal | measured | |", "|---|---|---|---|---|"]
    for goal in (*stream_goals(), *other_goals()):
        row = f"| {goal.number} | {goal.what} | {goal.sign} {goal.bound:g} |"
        try:
            value = goal.value(results)
        except KeyError:
            lines.append(f"{row} not measured | |")
            continue
        kept = value >= goal.bound if goal.sign == "≥" else value <= goal.bound
        lines.append(f"{row} {value:.3g} | {'kept' if kept else '**missed**'} |")
    return lines


def peers_table(results: Results) -> list[str]:
    """Every scenario: a row for each peer, each metric as ratio to the first and as figure."""
    lines: list[str] = []
    for scenario, measured in results.items():
        metrics = list(dict.fromkeys(metric for figures in measured.values() for metric in figures))
        if not metrics:
            continue
        lines += [
            f"### {scenario}",
            "",
            "| peer | " + " | ".join(f"{metric.replace('_', ' ')}" for metric in metrics) + " |",
            "|---" * (len(metrics) + 1) + "|",
        ]
        first = next(iter(measured.values()))
        for peer, figures in measured.items():
            lines.append(
                f"| {peer} | "
                + " | ".join(cell(figures.get(metric), first.get(metric)) for metric in metrics)
                + " |"
            )
        lines.append("")
    return lines


def cell(figure: Any | None, first: Any | None) -> str:
    """A figure and its ratio to the first peer's."""
    if figure is None:
        return ""
    ratio_known = first is not None and 0 < first.median < math.inf
    share = f"{figure.median / first.median:.2f}x, " if first is not None and ratio_known else ""
    return f"{share}{figure.median:,.4g}{' (disturbed)' if figure.doubtful else ''}"


def output_of(*command: str) -> str:
    """The first line of a command's output that holds a version; empty if there is none."""
    try:
        run = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10, check=False
        )
    except OSError:
        return ""
    return next(
        (
            line
            for line in run.stdout.decode("utf-8", "replace").splitlines()
            if re.search(r"\d\.\d", line)
        ),
        "",
    ).strip()


def machine(missing: Mapping[str, str]) -> list[str]:
    """The machine, the versions of the peers, and which were missing."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    versions = [
        output_of("haproxy", "-v"),
        output_of("nginx", "-v"),
        output_of("socat", "-V"),
        output_of(os.environ.get("GO", "go"), "version"),
    ]
    processor = cpu.group(1) if cpu else platform.machine()
    peers = "; ".join(re.sub(r" - https?://.*", "", version) for version in versions if version)
    lines = [
        f"Machine: {os.cpu_count()} x {processor}, {memory} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}.",
        f"Peers: {peers}.",
    ]
    lines += [f"Missing: {name}: {why}." for name, why in missing.items()]
    return lines


def as_json(results: Results, missing: Mapping[str, str]) -> dict[str, Any]:
    """Everything that was measured, for programs and for --compare."""
    figures = {
        scenario: {
            peer: {
                metric: {"median": f.median, "values": f.values, "disturbed": f.disturbed}
                for metric, f in metrics.items()
            }
            for peer, metrics in measured.items()
        }
        for scenario, measured in results.items()
    }
    return {"machine": machine({}), "missing": dict(missing), "figures": figures}


def compared(results: Results, before: Mapping[str, Any]) -> list[str]:
    """Our figures over an earlier run's, each as ratio to the first peer of its own run."""
    lines = [
        "| scenario | peer | metric | now : before (each as ratio to the first peer) |",
        "|---|---|---|---|",
    ]
    for scenario, measured in results.items():
        old = before["figures"].get(scenario, {})
        first = next(iter(measured), None)
        for peer in (US, SIX):
            for metric, figure in measured.get(peer, {}).items():
                try:
                    share = (
                        figure.median
                        / measured[first][metric].median
                        / (old[peer][metric]["median"] / old[first][metric]["median"])
                    )
                except (KeyError, ZeroDivisionError):
                    continue
                lines.append(f"| {scenario} | {peer} | {metric} | {share:.2f} |")
    return lines


BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def document(path: Path, lines: list[str]) -> None:
    """Put the tables between the two marks of a page."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")
