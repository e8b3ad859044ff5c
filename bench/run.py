#!/usr/bin/env python3
"""Speed, side by side: `make bench`, or `python3 bench/run.py --help`.

    shapes ─▶ engine (C, replays) ─▶ each peer in turn ─▶ load (C, compares every byte) ─▶ ratios

Every scenario starts its peers afresh, lets each warm up, and then takes rounds. In a round every
peer runs once, one after another, so that whatever happens on the machine happens to all of them.
A figure is the median of the rounds in which other processes took at most 15 % of the machine. If
there are fewer than three such rounds, the figure is marked as disturbed. Ratios come first, since
absolute figures belong to one machine.

Each byte that a peer delivers is compared with what the engine sent, and on each audited run the
findings are compared with the secrets that were planted. If either differs, the bench prints no
figures and exits with status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))
import peers as peers_module
from peers import (
    HERE,
    PEERS,
    BenchError,
    Direct,
    Dockeraudit,
    DockerauditAlone,
    DockerauditMasked,
    DockerauditSix,
    Go,
    HAProxy,
    Nginx,
    Peer,
    Socat,
)
from shapes import SHAPES, Written, plain_line, secret, write_pattern, write_shape

ROUNDS = 3  # a figure is the median of so many undisturbed ones
MORE_ROUNDS = 3  # taken at most when some were disturbed
OTHERS_LIMIT = 0.15  # share of the machine that others may take in an undisturbed round
RUN_SECONDS = 1.0  # a run of a stream is made so long
#: and no shorter than this, since 2 MiB may still wait to be scanned when the client has everything
RUN_BYTES = 16 << 20
QUIET_STREAMS, QUIET_HZ, QUIET_SECONDS = 20, 20, 3
WORKER_THREADS = "scan-worker"  # as dockeraudit names them, from Python 3.14 on
FOLLOWERS = 500  # one client may have half of the 1,024 connections
GONE_LIMIT = 5.0  # seconds to wait for upstreams whose clients have vanished
BUSY = 32
MIB = 1 << 20


class Figure(NamedTuple):
    """One metric of one peer in one scenario: a value a round, and whether it was disturbed."""

    values: list[float]
    disturbed: list[bool]

    @property
    def clean(self) -> list[float]:
        return [value for value, bad in zip(self.values, self.disturbed) if not bad]

    @property
    def median(self) -> float:
        return statistics.median(self.clean[:ROUNDS] or self.values)

    @property
    def doubtful(self) -> bool:
        """Whether too few rounds were undisturbed."""
        return len(self.clean) < min(ROUNDS, len(self.values))


Metrics = dict[str, float]
Results = dict[str, dict[str, dict[str, Figure]]]  # scenario, peer, metric


class Bench:
    """The stand-in engine, the compiled load, the shapes, and what has been measured."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.results: Results = {}
        self.missing = {peer.name: why for peer in PEERS if (why := peer.missing())}
        if options.peers:
            self.missing.update(
                {
                    peer.name: "not asked for"
                    for peer in PEERS
                    if peer.name not in options.peers.split(",")
                }
            )
        if options.smoke:
            self.missing.setdefault(
                "go", "left out of the smoke run, since compiling it takes longer than the rest"
            )
        self.shapes: dict[str, Written] = {}
        self.engine = str(folder / "e.sock")
        self._own = {os.getpid()}  # processes that are ours, with their descendants
        self._engine: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Bench:
        for name in ("engine", "load"):
            subprocess.run(
                ["cc", "-O2", "-pthread", "-o", str(self.folder / name), str(HERE / f"{name}.c")],
                check=True,
            )
        Dockeraudit.file = write_program(self.folder, self.options.program)
        Dockeraudit.python = self.options.python
        write_pattern(self.folder)
        self._engine = subprocess.Popen(
            [str(self.folder / "engine"), self.engine, str(self.folder)]
        )
        return self

    def __exit__(self, *unused: Any) -> None:
        if self._engine:
            self._engine.kill()
            self._engine.wait()

    def shape(self, name: str) -> Written:
        """A shape, written when it is first asked for."""
        if name not in self.shapes:
            shape = next(shape for shape in SHAPES if shape.name == name)
            if self.options.smoke:
                shape = shape._replace(frames=min(shape.frames, 4000))
            self.shapes[name] = write_shape(shape, self.folder, check_planted)
        return self.shapes[name]

    def load(self, *arguments: object, timeout: float = 180) -> dict[str, float]:
        """One run of the load client; raises BenchError with what it complained about."""
        run = subprocess.run(
            [str(self.folder / "load"), *map(str, arguments)], capture_output=True, timeout=timeout
        )
        if run.returncode:
            raise BenchError(
                f"load {' '.join(map(str, arguments[:3]))}: {run.stderr.decode().strip()}"
            )
        return json.loads(run.stdout)

    def also_own(self, pid: int) -> None:
        """Count a process that works for the measurement, such as a real engine, as ours."""
        self._own.add(pid)

    def compare(
        self,
        scenario: str,
        kinds: Sequence[type[Peer]],
        measure: Callable[[Peer], Metrics],
        engine: str = "",
        restart: bool = False,
    ) -> None:
        """Take the rounds of a scenario. `restart`: a fresh process each time."""
        here = [
            kind(self.folder / "peers", engine or self.engine)
            for kind in kinds
            if kind.name not in self.missing
        ]
        say(f"{scenario}: {', '.join(peer.name for peer in here)}")
        self.results[scenario] = {}
        try:
            for peer in here:
                peer.start()
                if not (self.options.smoke or restart):
                    measure(peer)  # warm-up
            for number in range(1 if self.options.smoke else ROUNDS + self.options.more):
                for peer in here:
                    if restart:
                        peer.stop()
                        peer.check_log()
                        peer.start()
                    self._take(scenario, peer.name, measure, peer)
                if number + 1 >= ROUNDS and not any(
                    figure.doubtful for figure in self._figures(scenario)
                ):
                    break
            for peer in here:
                peer.stop()
                peer.check_log()
        finally:
            for peer in here:
                peer.stop()

    def _figures(self, scenario: str) -> Iterator[Figure]:
        for metrics in self.results[scenario].values():
            yield from metrics.values()

    def _take(
        self, scenario: str, name: str, measure: Callable[[Peer], Metrics], peer: Peer
    ) -> None:
        begun, machine, own = (
            time.monotonic(),
            peers_module.machine_seconds(),
            peers_module.family_seconds(self._own),
        )
        metrics = measure(peer)
        seconds = time.monotonic() - begun
        others = (
            peers_module.machine_seconds()
            - machine
            - (peers_module.family_seconds(self._own) - own)
        )
        share = others / seconds / (os.cpu_count() or 1)
        for metric, value in metrics.items():
            figure = (
                self.results.setdefault(scenario, {})
                .setdefault(name, {})
                .setdefault(metric, Figure([], []))
            )
            figure.values.append(value)
            figure.disturbed.append(share > OTHERS_LIMIT)
        figures = ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
        say(f"  {name}: {figures}{f' (others took {share:.0%})' if share > OTHERS_LIMIT else ''}")


def say(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def write_program(folder: Path, given: str | None) -> Path:
    """Write the single file that is measured: the one given, else one made of the sources."""
    sys.path.insert(0, str(HERE.parent / "deploy"))
    from stitch import stitched

    program = folder / "program" / "dockeraudit.py"
    program.parent.mkdir()
    program.write_text(Path(given).read_text() if given else stitched(HERE.parent))
    return program


def check_planted(text: bytes, secrets: int) -> None:
    """Raise BenchError unless both rule sets find exactly the planted secrets."""
    sys.path.insert(0, str(HERE.parent))
    from _dockeraudit.scanner import Scanner
    from patterns import ORIGINAL_RULES, RULES

    for rules in (RULES, ORIGINAL_RULES):
        found = len(Scanner(rules).scan_lines(text))
        if found != secrets:
            raise BenchError(f"{found} secrets are found in a text with {secrets}; mend shapes.py")


def masked_wire(written: Written) -> Path:
    """A cycle's chunked body with its secrets as asterisks, and nothing else changed."""
    path = written.wire.with_suffix(".masked")
    if path.exists():
        return path
    sys.path.insert(0, str(HERE.parent))
    from _dockeraudit.maskedstream import NoRecords
    from _dockeraudit.masking import Mask
    from _dockeraudit.places import ChunkSpans, WirePlaces
    from _dockeraudit.scanner import Scanner
    from patterns import RULES

    wire = written.wire.read_bytes()
    mask = Mask(WirePlaces(ChunkSpans(), "multiplexed"), Scanner(RULES), NoRecords(), "LOW")
    masked = mask.feed(wire, 0.0) + mask.end()
    if len(masked) != len(wire) or any(a != b and b != 42 for a, b in zip(wire, masked)):
        raise BenchError("the mask changes more than secrets")
    path.write_bytes(masked)
    return path


# -- scenarios: each returns a function that measures one peer once


def stream(bench: Bench, name: str) -> Callable[[Peer], Metrics]:
    """A replayed log, as fast as the peer delivers it."""
    written = bench.shape(name)
    cycles: dict[str, int] = {}

    def measure(peer: Peer) -> Metrics:
        times = cycles.get(peer.name, 1)
        before = peer.seconds()
        run = bench.load(
            "stream",
            peer.address,
            f"/v1.43/containers/{name}.{times}/logs?stdout=1",
            times,
            masked_wire(written) if peer.masks else written.wire if peer.exact else written.body,
            *["wire"] * peer.exact,
        )
        peer.await_found(written.secrets * times)
        frames = written.shape.frames * times
        if not bench.options.smoke:
            cycles.setdefault(
                peer.name,
                max(
                    math.ceil(RUN_BYTES / written.payload),
                    round(times * RUN_SECONDS / run["seconds"]),
                ),
            )
        return {
            "frames_per_second": frames / run["seconds"],
            "mb_per_second": written.payload * times / run["seconds"] / 1e6,
            "cpu_per_million": (peer.seconds() - before) / frames * 1e6,
        }

    return measure


def streams(bench: Bench, name: str, count: int) -> Callable[[Peer], Metrics]:
    """Several replays of a log at once, each as fast as the peer delivers it."""
    written = bench.shape(name)
    times = 1 if bench.options.smoke else math.ceil(RUN_BYTES / written.payload)

    def measure(peer: Peer) -> Metrics:
        before, begun = peer.seconds(), time.monotonic()
        arguments = (
            "stream",
            peer.address,
            f"/v1.43/containers/{name}.{times}/logs?stdout=1",
            times,
            written.wire if peer.exact else written.body,
            *["wire"] * peer.exact,
        )
        with ThreadPoolExecutor(count) as loads:
            for run in [loads.submit(bench.load, *arguments) for _ in range(count)]:
                run.result()
        seconds = time.monotonic() - begun
        peer.await_found(written.secrets * times, count)
        frames = written.shape.frames * times * count
        return {
            "mb_per_second": written.payload * times * count / seconds / 1e6,
            "cpu_per_million": (peer.seconds() - before) / frames * 1e6,
        }

    return measure


def by_thread(measure: Callable[[Peer], Metrics]) -> Callable[[Peer], Metrics]:
    """The same, and of the processor time the part that workers do not take."""

    def measure_too(peer: Peer) -> Metrics:
        before, workers = peer.seconds(), peer.thread_seconds(WORKER_THREADS)
        metrics = measure(peer)
        spent = peer.seconds() - before
        relays = spent - (peer.thread_seconds(WORKER_THREADS) - workers)
        share = relays / spent if spent else 0.0
        return {**metrics, "relay_cpu_per_million": metrics["cpu_per_million"] * share}

    return measure_too


def opaque(bench: Bench, target: str) -> Callable[[Peer], Metrics]:
    """A body that nobody audits."""
    size = (32 if bench.options.smoke else 2048) * MIB

    def measure(peer: Peer) -> Metrics:
        before = peer.seconds()
        run = bench.load(
            "stream", peer.address, target.format(size), size // MIB, bench.folder / "pattern"
        )
        return {
            "mb_per_second": size / run["seconds"] / 1e6,
            "cpu_per_gb": (peer.seconds() - before) / size * 1e9,
        }

    return measure


def requests(bench: Bench, clients: int) -> Callable[[Peer], Metrics]:
    """Keep-alive requests."""

    def measure(peer: Peer) -> Metrics:
        before = peer.seconds()
        run = bench.load(
            "requests", peer.address, "/_ping", clients, 0.2 if bench.options.smoke else 2, "OK"
        )
        return {
            "per_second": run["requests"] / run["seconds"],
            "cpu_per_thousand": (peer.seconds() - before) / run["requests"] * 1e3,
        }

    return measure


def quiet(bench: Bench, busy: int, tcp: bool = False) -> Callable[[Peer], Metrics]:
    """How late the frames of quiet streams arrive, alone or beside busy streams."""
    bench.shape("each100")

    def measure(peer: Peer) -> Metrics:
        peer.planted = None
        address = getattr(peer, "tcp_address", peer.address) if tcp else peer.address
        seconds = 0.5 if bench.options.smoke else QUIET_SECONDS
        target, other = (
            f"/containers/quiet.{QUIET_HZ}/logs?follow=1",
            "/containers/each100.0/logs?follow=1",
        )
        run = bench.load("quiet", address, target, QUIET_STREAMS, seconds, other, busy)
        if run["samples"] < QUIET_STREAMS * QUIET_HZ * seconds * 0.5:
            raise BenchError(
                f"{peer.name} delivered {run['samples']} quiet frames where many more were sent"
            )
        return {
            "p50_ms": run["p50"] * 1e3,
            "p99_ms": run["p99"] * 1e3,
            "busy_mb_per_second": run["bytes"] / seconds / 1e6,
        }

    return measure


def first_byte(bench: Bench) -> Callable[[Peer], Metrics]:
    """How long a new stream waits for its first byte while many are busy."""
    bench.shape("each100")

    def measure(peer: Peer) -> Metrics:
        peer.planted = None
        tries = 3 if bench.options.smoke else 25
        run = bench.load(
            "first",
            peer.address,
            "/containers/follow/logs?follow=1",
            tries,
            "/containers/each100.0/logs?follow=1",
            BUSY,
        )
        return {"first_ms": run["p50"] * 1e3, "first_p99_ms": run["p99"] * 1e3}

    return measure


def followers(bench: Bench) -> Callable[[Peer], Metrics]:
    """A thousand silent followers: their memory, and how soon their upstreams end with them."""
    count = 50 if bench.options.smoke else FOLLOWERS

    def measure(peer: Peer) -> Metrics:
        idle, others = peer.resident(), engine_state(bench)["open"]
        load = subprocess.Popen(
            [
                str(bench.folder / "load"),
                "follow",
                peer.address,
                "/containers/follow/logs?follow=1",
                str(count),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            if not load.stdout or not load.stdout.readline():
                raise BenchError(f"{peer.name} does not hold {count} streams")
            time.sleep(0.3)
            each = (peer.resident() - idle) / count / 1024
            closed_at = json.loads(load.communicate()[0])["closed_ns"]
        finally:
            load.kill()
            load.wait()
        gone = await_none_open(bench, peer, others, closed_at)
        return {"kib_per_follower": each, "gone_seconds": gone, "idle_mib": idle / MIB}

    return measure


def engine_state(bench: Bench) -> dict[str, int]:
    """What the engine says of its follow streams."""
    return json.loads(peers_module.get(bench.engine, "/bench/state"))


def await_none_open(bench: Bench, peer: Peer, others: int, since: float) -> float:
    """Seconds until the engine saw this peer's last follow stream end; infinite after GONE_LIMIT.

    `others` counts streams that another peer has left open; they are not this peer's.
    """
    deadline = time.monotonic() + (0.5 if bench.options.smoke else GONE_LIMIT)
    while True:
        state = engine_state(bench)
        if state["open"] <= others:
            return max(0.0, (state["closed_ns"] - since) / 1e9)
        if time.monotonic() > deadline:
            left = state["open"] - others
            say(f"  {peer.name} left {left} streams open although their clients are gone")
            return float("inf")
        time.sleep(0.02)


def memory(bench: Bench) -> Callable[[Peer], Metrics]:
    """The memory that a slow reader of a large stream takes, and many busy streams."""
    bench.shape("each1k")
    bench.shape("each100")

    def measure(peer: Peer) -> Metrics:
        peer.planted = None
        idle = peer.resident()
        peer.forget_peak()
        size, seconds = (4 * MIB, 0.3) if bench.options.smoke else (512 * MIB, 10)
        bench.load("slow", peer.address, "/containers/each1k.0/logs?follow=1", size, seconds)
        slow = peer.peak()
        peer.forget_peak()
        bench.load(
            "first",
            peer.address,
            "/containers/follow/logs?follow=1",
            3 if bench.options.smoke else 60,
            "/containers/each100.0/logs?follow=1",
            BUSY,
        )
        return {
            "idle_mib": idle / MIB,
            "slow_reader_mib": (slow - idle) / MIB,
            "busy_peak_mib": peer.peak() / MIB,
        }

    return measure


def docker_logs(
    bench: Bench, container: str, expected: Path, secrets: int
) -> Callable[[Peer], Metrics]:
    """`docker logs` of a real container into a file, compared."""
    lines = expected.read_bytes().count(b"\n")

    def measure(peer: Peer) -> Metrics:
        before = peer.seconds()
        got = bench.folder / "docker-logs"
        with open(got, "wb") as file:
            begun = time.monotonic()
            subprocess.run(
                ["docker", "-H", f"unix://{peer.address}", "logs", container],
                stdout=file,
                check=True,
            )
            seconds = time.monotonic() - begun
        if subprocess.run(["cmp", "-s", str(got), str(expected)]).returncode:
            raise BenchError(f"`docker logs` through {peer.name} is not what the container wrote")
        peer.await_found(secrets if peer.audits else 0)
        return {
            "lines_per_second": lines / seconds,
            "cpu_per_million": (peer.seconds() - before) / lines * 1e6,
        }

    return measure


def written_lines(bench: Bench, size: int, lines: int) -> tuple[Path, int]:
    """A file of so many lines of so many bytes, and the secrets in it."""
    dice = random.Random(size)
    text = [plain_line(size, dice) for _ in range(1000)]
    planted = b" " + secret(0, dice) + b"\n"
    text[500] = text[500][: size - len(planted)] + planted
    path = bench.folder / f"docker-{size}"
    path.write_bytes(b"".join(text) * (lines // 1000))
    return path, lines // 1000


def fill_container(engine: str, name: str, source: Path) -> None:
    """A container that has written what is in a file."""
    docker = ["docker", "-H", engine]
    subprocess.run(
        [*docker, "create", "-i", "--name", name, "--network", "none", "busybox", "cat"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with open(source, "rb") as file:
        subprocess.run(
            [*docker, "start", "-ai", name], stdin=file, stdout=subprocess.DEVNULL, check=True
        )


def real_engine(bench: Bench) -> None:
    """The scenarios with a real engine; without one the tables say that it was missing."""
    engine = bench.options.engine
    path = engine[len("unix://") :]
    try:
        if not engine.startswith("unix://"):
            raise OSError("only Unix sockets are measured")
        peers_module.get(path, "/_ping")
    except OSError:
        bench.missing["real engine"] = (
            f"no Docker Engine answers at {engine} (--engine unix:///PATH)"
        )
        return
    bench.also_own(peers_module.listener_pid(path))
    for size, lines in ((100, 300_000), (1024, 60_000)):
        expected, secrets = written_lines(bench, size, lines)
        name = f"dockeraudit-bench-{os.getpid()}-{size}"
        try:
            fill_container(engine, name, expected)
            kinds = (Direct, HAProxy, Nginx, Socat, Go, Dockeraudit)
            bench.compare(
                f"docker logs, {size} B lines",
                kinds,
                docker_logs(bench, name, expected, secrets),
                engine=path,
            )
        except subprocess.CalledProcessError as error:
            raise BenchError(f"the engine at {engine} refused: {error}") from None
        finally:
            subprocess.run(
                ["docker", "-H", engine, "rm", "-f", name],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )


def start_up(bench: Bench) -> None:
    """From the start of the process to its first answer."""
    kinds = [
        kind for kind in (HAProxy, Nginx, Socat, Go, Dockeraudit) if kind.name not in bench.missing
    ]

    def measure(peer: Peer) -> Metrics:
        peer.stop()
        return {"start_seconds": peer.start()}

    bench.compare("start", kinds, measure)


def scenarios(bench: Bench) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every scenario: its name, and the function that runs it."""
    ours = (Direct, HAProxy, Nginx, Socat, Go, Dockeraudit)
    few = (Direct, HAProxy, Go, Dockeraudit, DockerauditSix)
    every, masked = (*ours, DockerauditSix), (Dockeraudit, DockerauditMasked)
    spread = (Direct, Go, Dockeraudit, DockerauditAlone)
    for name in ("each100", "each1k"):
        yield name, lambda name=name: bench.compare(name, every, stream(bench, name))
    for name in ("each100", "each1k", "cut100", "secrets100"):
        yield (
            f"mask-{name}",
            lambda name=name: bench.compare(f"mask-{name}", masked, stream(bench, name)),
        )
    yield "mask-quiet", lambda: bench.compare("mask-quiet", masked, quiet(bench, 0))
    for name in ("each16k", "packed100", "cut100", "secrets100"):
        yield name, lambda name=name: bench.compare(name, few, stream(bench, name))
    for name in ("each100", "each1k", "each16k", "secrets100"):
        yield (
            f"workers-{name}",
            lambda name=name: bench.compare(
                f"workers-{name}", spread, by_thread(stream(bench, name))
            ),
        )
    yield (
        "workers-8",
        lambda: bench.compare("workers-8", spread, by_thread(streams(bench, "each1k", 8))),
    )
    yield "quiet", lambda: bench.compare("quiet", ours, quiet(bench, 0))
    yield "quiet-beside-busy", lambda: bench.compare("quiet-beside-busy", ours, quiet(bench, 1))
    yield (
        "quiet-tcp",
        lambda: bench.compare("quiet-tcp", (HAProxy, Dockeraudit), quiet(bench, 0, tcp=True)),
    )
    yield "first-byte", lambda: bench.compare("first-byte", few[:-1], first_byte(bench))
    yield "requests-1", lambda: bench.compare("requests-1", ours, requests(bench, 1))
    yield "requests-32", lambda: bench.compare("requests-32", ours, requests(bench, 32))
    yield "length", lambda: bench.compare("length", ours, opaque(bench, "/images/{}/get"))
    yield "chunked", lambda: bench.compare("chunked", ours, opaque(bench, "/containers/{}/export"))
    yield (
        "followers",
        lambda: bench.compare(
            "followers", (HAProxy, Nginx, Go, Dockeraudit), followers(bench), restart=True
        ),
    )
    yield (
        "memory",
        lambda: bench.compare("memory", (HAProxy, Go, Dockeraudit), memory(bench), restart=True),
    )
    yield "start", lambda: start_up(bench)
    yield "docker", lambda: real_engine(bench)


SMOKE = ("each100", "cut100", "secrets100", "quiet", "requests-1", "chunked", "followers")


def main() -> int:
    """Measure, print, write. Returns 1 if a byte differed or a secret was not counted."""
    options = read_options()
    wanted = options.only.split(",") if options.only else SMOKE if options.smoke else None
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(1))  # ends what was started
    folder = Path(
        tempfile.mkdtemp(prefix="bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    try:
        with Bench(folder, options) as bench:
            if options.add:
                bench.results = as_results(json.loads(Path(options.json).read_text()))
            for name, run in scenarios(bench):
                if wanted is None or name in wanted:
                    run()
            finish(bench)
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="names of scenarios, comma-separated")
    parser.add_argument("--peers", default="", help="names of peers, comma-separated")
    parser.add_argument(
        "--engine",
        default=os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"),
        help="a real engine's socket, for `docker logs`",
    )
    parser.add_argument(
        "--program", metavar="FILE", help="another dockeraudit.py as `make dist` writes it"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        help='what dockeraudit runs with: "$(bench/fetch-python 3.15)"',
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures, for --compare")
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep the other figures that FILE holds already",
    )
    parser.add_argument(
        "--more",
        type=int,
        default=MORE_ROUNDS,
        metavar="N",
        help="further rounds at most where some were disturbed",
    )
    parser.add_argument(
        "--compare", metavar="FILE", help="an earlier run's --json, to show beside this one"
    )
    parser.add_argument(
        "--document", metavar="FILE", help="put the tables between the marks of docs/performance.md"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a few seconds, to see that all works; its figures mean nothing",
    )
    return parser.parse_args()


def as_results(figures: dict[str, Any]) -> Results:
    """The figures of a --json file."""
    return {
        scenario: {
            peer: {metric: Figure(f["values"], f["disturbed"]) for metric, f in metrics.items()}
            for peer, metrics in measured.items()
        }
        for scenario, measured in figures["figures"].items()
    }


def finish(bench: Bench) -> None:
    """Tables for people, JSON for the next comparison."""
    from tables import as_json, compared, document, goals_table, machine, peers_table

    lines = [
        *machine(bench.missing),
        "",
        *goals_table(bench.results),
        "",
        *peers_table(bench.results),
    ]
    if bench.options.compare:
        lines += ["", *compared(bench.results, json.loads(Path(bench.options.compare).read_text()))]
    print("\n".join(lines))
    if bench.options.json:
        Path(bench.options.json).write_text(
            json.dumps(as_json(bench.results, bench.missing), indent=1) + "\n"
        )
    if bench.options.document:
        document(Path(bench.options.document), lines)


if __name__ == "__main__":
    sys.exit(main())
