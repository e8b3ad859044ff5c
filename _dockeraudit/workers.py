"""Workers that scan blocks beside the threads that relay: interpreters with locks of their own.

    Workers.submit(scanner, block) ─▶ Job ─▶ a worker: BlockScanner ─▶ spans ─▶ Job.matches()

Python runs one thread of an interpreter at a time. Since 3.14 a process can have several
interpreters, and each runs on a core of its own. A worker knows the rules and keeps nothing of a
stream: order, counts and records stay with the stream. Older Pythons have no workers. In a
free-threaded Python, which runs all threads at once, workers are threads: interpreters take 1.8
times as long there.

Threads. Any thread may submit and ask. Each worker has one thread of the pool's, which waits for
its interpreter; it calls `Job.landed`. `Workers._lock` is held for bookkeeping only.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

from _dockeraudit import __version__
from _dockeraudit.heap import trim_heap
from _dockeraudit.ownsecrets import AnyScanner
from _dockeraudit.rules import Match, Needle
from _dockeraudit.scanner import Scanner
from _dockeraudit.spans import BlockScanner, matches_of, needles_in, plain_needles, plain_rules

LEAST_BLOCK = 16 << 10  # bytes; to hand a block over costs 30 µs, as much as to scan 3 KiB
HUNG = 20.0  # seconds after which a scan is given up; a block takes a millisecond
READY_AFTER = 2.0  # seconds after which all workers have the rules
MOST_LOST = 3  # workers that may hang before no more are used
LEAST_WORKERS = 2  # of `auto`, with two cores or more: to relay takes a fourth of a core then
MOST_WORKERS = 8  # of `auto`: the relay itself cannot feed more (docs/performance.md)
JOB_THREADS = 2  # where there are no interpreters: one goes on while another has a slow scan
NOT_READY = "not ready"  # what a worker answers that could not load the rules
CPU_LIMIT = "/sys/fs/cgroup/cpu.max"  # of the container that dockeraudit runs in: quota and period


def runs_one_thread() -> bool:
    """Whether this Python runs one thread at a time; a free-threaded one runs all."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def interpreter_pool() -> Callable[..., futures.Executor] | None:
    """What makes a pool of interpreters; None where Python has none (before 3.14)."""
    return getattr(futures, "InterpreterPoolExecutor", None)


def worker_pool() -> Callable[..., futures.Executor] | None:
    """What makes a pool of workers; None where they would bring nothing."""
    return interpreter_pool() if runs_one_thread() else futures.ThreadPoolExecutor


def usable_cores(cpu_limit: str = CPU_LIMIT) -> int:
    """How many cores this process may use, by its affinity and its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        with open(cpu_limit) as file:
            quota, period = file.read().split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # there is no group, or no limit ("max")
        pass
    return cores or 1


def automatic_workers(cores: int) -> int:
    """How many workers `auto` means: a core is left to those who relay, where there are many."""
    if worker_pool() is None:
        return JOB_THREADS
    return 0 if cores < 2 else min(max(LEAST_WORKERS, cores - 1), MOST_WORKERS)


def worker_kind() -> str:
    """What workers are in this Python."""
    return "interpreters" if runs_one_thread() and interpreter_pool() else "threads"


# -- in the worker


def prepare_interpreter(place: str, stitched: bool, version: str, rules: tuple[Any, ...]) -> None:
    """Load what a worker needs into a new interpreter. It runs there, so it uses no global name.

    `place`: the folder of the package, or the stitched file. Of the file only the rooms from
    `rules` to `spans` are run: all others would cost 20 MiB. Each room's text stands between two
    banners, and around the rooms that it was the first to import.
    """
    import importlib
    import re
    import sys
    import types

    worker: Any = types.ModuleType("dockeraudit_worker")
    sys.modules["dockeraudit_worker"] = worker
    worker.scan = lambda block, needles: "not ready"
    try:
        if not stitched:
            sys.path.insert(0, place)
            found = vars(importlib.import_module("_dockeraudit.spans"))
            found = {**found, **vars(sys.modules["_dockeraudit"])}
        else:
            around: list[str] = []
            texts: dict[str, str] = {}
            with open(place, encoding="utf-8") as file:
                parts = re.split(r"(?m)^# (<{12}|>{12}) (\S+)\n", file.read())
            for mark, room, text in zip(parts[1::3], parts[2::3], parts[3::3]):
                around = [*around, room] if mark[0] == "<" else around[:-1]
                if around:
                    texts[around[-1]] = texts.get(around[-1], "") + text
            first = "_dockeraudit/__init__.py"
            order = re.findall(r"(?m)^    (\w+) {2,}", texts[first])
            rooms = order[order.index("rules") : order.index("spans") + 1]
            found = vars(worker)
            for room in (first, *[f"_dockeraudit/{name}.py" for name in rooms]):  # one by one:
                text = "from __future__ import annotations\n" + texts[room]
                exec(compile(text, place, "exec"), found)  # all at once takes 8 MiB more
        if found["__version__"] == version:
            worker.scan = found["BlockScanner"](rules).scan
    except Exception:  # the worker has no scanner then, which its first block's answer tells
        pass


def scan_in_interpreter(block: bytes, needles: tuple[Any, ...]) -> Any:
    """A block's spans, or why there are none. It runs in a worker, so it uses no global name."""
    import sys

    return sys.modules["dockeraudit_worker"].scan(block, needles)


IN_THREAD = threading.local()  # a worker's BlockScanner, where workers are threads


def prepare_thread(place: str, stitched: bool, version: str, rules: tuple[Any, ...]) -> None:
    """The same for a thread. It has rules of its own: what threads share makes them wait."""
    IN_THREAD.scanner = BlockScanner(rules)


def scan_in_thread(block: bytes, needles: tuple[Any, ...]) -> Any:
    """A block's spans, or why there are none."""
    return IN_THREAD.scanner.scan(block, needles)


# -- beside it


class Job:
    """A block that a worker scans. `landed` is called once, in any thread, when it is done."""

    __slots__ = ("_block", "_future", "_landed", "_needles", "_scanner", "begun", "lost")

    def __init__(self, scanner: AnyScanner, block: bytes, landed: Callable[[], None]) -> None:
        self.begun = time.monotonic()
        self.lost = False
        self._scanner = scanner
        self._needles: tuple[Needle, ...] = tuple(needles_in(scanner))
        self._block = block
        self._landed = landed
        self._future: futures.Future[Any] | None = None

    def start(self, pool: futures.Executor, scan: Callable[..., Any]) -> futures.Future[Any]:
        """Hand the block over; raises RuntimeError if the pool takes none."""
        self._future = pool.submit(scan, self._block, plain_needles(self._scanner))
        return self._future

    def done(self) -> bool:
        """Whether `matches` returns at once."""
        return self.lost or self._future is None or self._future.done()

    def land(self) -> None:
        """The scan is over, or given up: tell who waits for it."""
        landed, self._landed = self._landed, nothing
        landed()

    @property
    def failed(self) -> bool:
        """Whether the worker can scan nothing."""
        future = self._future
        if future is None or future.cancelled():
            return False
        return future.exception() is not None or future.result() == NOT_READY

    def waited(self) -> list[Match]:
        """Wait until it is done; what `matches` returns or raises."""
        if self._future is not None:
            futures.wait([self._future], max(0.0, self.begun + HUNG - time.monotonic()))
        return self.matches()

    def matches(self) -> list[Match]:
        """What the block holds; raises TimeoutError if its scan hangs.

        Where a worker has failed, the block is scanned here, which raises what the worker met with.
        """
        future = self._future
        if future is not None and not future.done():
            raise TimeoutError
        if future is not None and not future.cancelled() and future.exception() is None:
            spans = future.result()
            if isinstance(spans, bytes):
                return matches_of(spans, self._scanner.rules, self._needles)
        return self._scanner.scan_lines(self._block)


def nothing() -> None:
    """Nobody waits."""


class Workers:
    """Workers that all streams share; they start when the first block comes for them.

    `count`: 0 for none. `say(level, text)`: for people. `make_pool`: of threads.
    """

    def __init__(
        self,
        count: int,
        scanner: Scanner,
        say: Callable[[str, str], None] = lambda level, text: None,
        make_pool: Callable[..., futures.Executor] | None = None,
    ) -> None:
        self.interpreters = make_pool is None and worker_kind() == "interpreters"
        self._make_pool = make_pool or worker_pool()
        self.count = count if self._make_pool else 0
        self._rules = scanner.rules
        self._say = say
        self._jobs: dict[Job, None] = {}  # the oldest comes first
        self._pool: futures.Executor | None = None
        self._lost = 0
        self._ready_at: float | None = None  # when what it took to start the pool is given back
        self._lock = threading.Lock()

    def use(self, scanner: Scanner) -> None:
        """Scan with other rules from here on; streams that have the old ones are scanned here."""
        with self._lock:
            self._rules = scanner.rules
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def submit(
        self, scanner: AnyScanner, block: bytes, landed: Callable[[], None] = nothing
    ) -> Job | None:
        """Have a worker scan a block of whole lines; None if there is none for it.

        All blocks that wait are bounded by the streams' budgets (scanning.py).
        """
        job = Job(scanner, block, landed)
        with self._lock:
            if not self.count or scanner.rules is not self._rules:
                return None
            overdue = next(iter(self._jobs), job).begun < job.begun - HUNG
            self._jobs[job] = None
            pool = self._pool = self._pool or self._new_pool()
        scan = scan_in_interpreter if self.interpreters else scan_in_thread
        try:
            future = job.start(pool, scan)
        except RuntimeError:  # no thread can be started, or the pool is broken or shut down
            self._forget(job)
            return None
        future.add_done_callback(lambda done: self._finished(job, pool))
        if overdue:
            self.look()
        return job

    def look(self) -> None:
        """Give up scans that hang, and replace the workers; to be called now and then."""
        oldest = time.monotonic() - HUNG
        with self._lock:
            hung = [job for job in self._jobs if job.begun < oldest]
            for job in hung:
                del self._jobs[job]
            pool = self._pool
        if hung:
            self._replace(pool, "a scan took too long, and its bytes count as unscanned")
        for job in hung:
            job.lost = True
            job.land()

    def _replace(self, pool: futures.Executor | None, why: str) -> None:
        """Start other workers when the next block comes, unless too many have failed."""
        with self._lock:
            if pool is None or pool is not self._pool:
                return
            self._pool = None
            self._lost += 1
            if self._lost >= MOST_LOST:
                self.count = 0
        pool.shutdown(wait=False, cancel_futures=True)
        self._say("error", why + ("" if self.count else "; no more workers are used"))

    def stop(self, deadline: float) -> None:
        """Let the workers finish their blocks, but not beyond `deadline` (monotonic)."""
        with self._lock:
            pool, self._pool, self.count = self._pool, None, 0
        if pool is not None:
            finish_executor(pool, deadline)

    def _new_pool(self) -> futures.Executor:
        assert self._make_pool is not None
        self._ready_at = time.monotonic() + READY_AFTER
        stitched = not __name__.startswith("_dockeraudit.")
        file = os.path.abspath(__file__)
        place = file if stitched else os.path.dirname(os.path.dirname(file))
        prepare = prepare_interpreter if self.interpreters else prepare_thread
        return self._make_pool(
            self.count,
            thread_name_prefix="scan-worker",
            initializer=prepare,
            initargs=(place, stitched, __version__, plain_rules(self._rules)),
        )

    def _forget(self, job: Job) -> None:
        with self._lock:
            self._jobs.pop(job, None)

    def _finished(self, job: Job, pool: futures.Executor) -> None:
        """A worker has scanned a block, or could not; that one is scanned where it came from."""
        with self._lock:
            self._jobs.pop(job, None)
            ready = self._ready_at is not None and time.monotonic() >= self._ready_at
            self._ready_at = None if ready else self._ready_at
        if ready:
            trim_heap()
        if job.failed:
            self._replace(pool, "a worker failed, and is replaced")
        job.land()


def spread(scanner: AnyScanner, workers: Workers | None) -> AnyScanner:
    """A scanner that uses the workers, if there are any."""
    return SpreadScanner(scanner, workers) if workers and workers.count else scanner


class SpreadScanner:
    """A scanner that has parts of a large block scanned by workers, and waits for all of them."""

    def __init__(self, scanner: AnyScanner, workers: Workers) -> None:
        self.rules = scanner.rules
        self.undecided = scanner.undecided
        self.scan = scanner.scan
        self._scanner = scanner
        self._workers = workers

    def scan_lines(self, block: bytes) -> list[Match]:
        """As of a Scanner; raises TimeoutError if a worker hangs."""
        size = max(LEAST_BLOCK, len(block) // (self._workers.count + 1) + 1)
        if not self._workers.count or len(block) < 2 * LEAST_BLOCK:
            return self._scanner.scan_lines(block)
        cuts = part_ends(block, size, self.undecided)
        parts = [(begin, block[begin:end]) for begin, end in zip([0, *cuts], cuts)]
        jobs = [(begin, self._scan_later(part)) for begin, part in parts[1:]]
        matches = self._scanner.scan_lines(parts[0][1])
        for begin, scanned in jobs:
            matches += [match.moved(begin) for match in scanned()]
        return matches

    def _scan_later(self, part: bytes) -> Callable[[], list[Match]]:
        """Have a part scanned; call what is returned to wait for its matches."""
        job = self._workers.submit(self._scanner, part)
        return functools.partial(self._scanner.scan_lines, part) if job is None else job.waited


def part_ends(block: bytes, size: int, undecided: Callable[[bytes], int]) -> list[int]:
    """Where to cut a block into parts of at most about `size` bytes; its end is the last.

    Each part is whole lines, none of which names a secret on the first lines of the next part.
    """
    ends = [0]
    while len(block) - ends[-1] > size:
        begin = ends[-1]
        cut = block.rfind(b"\n", begin, begin + size) + 1
        decided = begin + undecided(block[begin:cut]) if cut else begin
        while begin < decided < cut:  # the line above that one may name a secret, too
            cut, decided = decided, begin + undecided(block[begin:decided])
        if decided <= begin:
            break
        ends.append(decided)
    return [*ends[1:], len(block)]


def finish_executor(executor: Any, deadline: float) -> None:
    """Let an executor finish its jobs, but not beyond `deadline` (monotonic)."""
    executor.shutdown(wait=False)
    for thread in list(executor._threads):  # there is no public way to join with a limit
        thread.join(max(0.0, deadline - time.monotonic()))
