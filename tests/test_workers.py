"""Workers: a stream's blocks searched elsewhere, its findings the same and in order."""

from __future__ import annotations

import functools
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest
from container_lines import lines_with_secrets
from planted import text_of
from recorded import KEY, RecordedStream, stream_scanner
from scripted import LOGS_HEAD, ScriptedEngine, chunk, stdcopy_frame

from _dockeraudit import scanning, workers
from _dockeraudit.http1 import CloseReader
from _dockeraudit.masking import Mask
from _dockeraudit.ownsecrets import AnyScanner, own_secrets, with_own_secrets
from _dockeraudit.places import PlainSpans, WirePlaces
from _dockeraudit.rules import Match, Rule
from _dockeraudit.scanner import Scanner
from _dockeraudit.spans import BlockScanner, matches_of, needles_in, plain_rules, spans_of
from _dockeraudit.streams import RawDecoder
from _dockeraudit.workers import (
    MOST_LOST,
    SpreadScanner,
    Workers,
    automatic_workers,
    interpreter_pool,
    part_ends,
    scan_in_thread,
    spread,
    usable_cores,
    worker_kind,
)
from conftest import DEADLINE, ROOT, wait_for
from patterns import DEFAULT_SCANNER, RULES

OWN = own_secrets(["DB_PASSWORD=Tr0ub4dor-and-9", "API_TOKEN=zq81kd02mmPx77"], DEFAULT_SCANNER)
SMALL = 300  # bytes of a block that goes to a worker here, so that a text has many
POOLS = [
    pytest.param(ThreadPoolExecutor, id="threads"),
    pytest.param(
        None,
        id="interpreters",
        marks=pytest.mark.skipif(
            interpreter_pool() is None, reason="interpreters need Python 3.14 or newer"
        ),
    ),
]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def make_workers() -> Iterator[Callable[..., Workers]]:
    """A function that makes workers; all are stopped after the test."""
    made: list[Workers] = []

    def make(count: int = 2, scanner: Scanner = DEFAULT_SCANNER, **options: Any) -> Workers:
        made.append(Workers(count, scanner, **options))
        return made[-1]

    yield make
    for each in made:
        each.stop(time.monotonic() + 10)


def text_with_secrets(seed: int) -> bytes:
    """Lines with secrets of all kinds, on one line and over several, and a container's own."""
    rng = random.Random(seed)
    lines = [line.text.encode() + b"\n" for line in rng.sample(lines_with_secrets(), 60)]
    lines += [text_of(rng, 4)[0] for _ in range(20)] + [KEY, b"Password:\n\nxK7m2Qw9zLp4\n"]
    lines += [b"connected with Tr0ub4dor-and-9\n", b'{"a": "zq81kd02mmPx77"}\n', b"." * 700 + b"\n"]
    rng.shuffle(lines)
    return b"".join(lines)


def cut_up(text: bytes, rng: random.Random) -> list[bytes]:
    """A text in pieces of all sizes."""
    pieces, at = [], 0
    while at < len(text):
        size = rng.choice([1, 17, 150, SMALL, 900, 4000])
        pieces.append(text[at : at + size])
        at += size
    return pieces


def scanned(
    pieces: list[bytes], executor: ThreadPoolExecutor, shared: Workers | None, silences: int
) -> RecordedStream:
    """What a stream records; it falls silent behind some of its pieces."""
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, workers=shared)
    stream.inspected(None, OWN)
    rng = random.Random(silences)
    for piece in pieces:
        stream.offer(decoder, piece)
        if rng.random() < 0.1:
            stream.silence()
    stream.close((decoder,), "end")
    wait_for(lambda: records.closed, "stream_close")
    return records


# ================================================================================================
# the same findings, in order
# ================================================================================================


@pytest.mark.parametrize("pool", POOLS)
def test_findings_are_the_same_at_every_cut(
    executor: ThreadPoolExecutor,
    make_workers: Callable[..., Workers],
    pool: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scanning, "LEAST_BLOCK", SMALL)
    monkeypatch.setattr(scanning, "JOINED", 2 * SMALL)
    shared = make_workers(make_pool=pool)
    for seed in range(8):
        pieces = cut_up(text_with_secrets(seed), random.Random(seed))
        expected = scanned(pieces, executor, None, seed)
        found = scanned(pieces, executor, shared, seed)
        assert found.findings == expected.findings
        assert found.closed == expected.closed and not found.errors
        assert len(found.findings) > 50


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_is_ready(make_workers: Callable[..., Workers], pool: Any) -> None:
    said: list[str] = []
    shared = make_workers(1, make_pool=pool, say=lambda level, text: said.append(text))
    for scanner in (DEFAULT_SCANNER, with_own_secrets(DEFAULT_SCANNER, OWN)):
        text = text_with_secrets(1)
        job = shared.submit(scanner, text)
        assert job and job.waited() == scanner.scan_lines(text)
        assert not job.failed and not said


@pytest.mark.parametrize("pool", POOLS)
def test_a_large_block_in_parts_gives_what_it_gives_whole(
    make_workers: Callable[..., Workers], pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LEAST_BLOCK", SMALL)
    shared = make_workers(3, make_pool=pool)
    for seed in range(8):
        text = text_with_secrets(seed)
        for scanner in (DEFAULT_SCANNER, with_own_secrets(DEFAULT_SCANNER, OWN)):
            assert SpreadScanner(scanner, shared).scan_lines(text) == scanner.scan_lines(text)


class CoveredStream(RecordedStream):
    """The records of a masked stream."""

    def finding(self, *match: Any, cover: Any = None, **more: Any) -> Any:
        return super().finding(*match, **more)

    def update(self, *match: Any, cover: Any = None, **more: Any) -> None:
        super().update(*match, **more)


def test_a_masked_stream_is_the_same_with_workers(
    make_workers: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LEAST_BLOCK", SMALL)
    shared = make_workers(3, make_pool=ThreadPoolExecutor)
    for seed in range(4):
        text, seen = text_with_secrets(seed), []
        for scanner in (DEFAULT_SCANNER, spread(DEFAULT_SCANNER, shared)):
            records = CoveredStream()
            mask = Mask(WirePlaces(PlainSpans(CloseReader()), "raw"), scanner, records, "LOW")
            parts = cut_up(text, random.Random(seed))
            out = b"".join([mask.feed(part, 0.0) for part in parts] + [mask.end()])
            seen.append((out, records.findings))
        assert seen[0] == seen[1] and seen[0][0] != text and len(seen[0][0]) == len(text)


def test_parts_end_where_no_line_names_a_secret_on_the_next() -> None:
    text = text_with_secrets(3)
    whole = DEFAULT_SCANNER.scan_lines(text)
    for size in range(100, 3000, 37):
        ends = part_ends(text, size, DEFAULT_SCANNER.undecided)
        assert ends[-1] == len(text) and ends == sorted(set(ends))
        parts = [
            match.moved(begin)
            for begin, end in zip([0, *ends], ends)
            for match in DEFAULT_SCANNER.scan_lines(text[begin:end])
        ]
        assert parts == whole


def test_spans_say_all_that_matches_say() -> None:
    examples = "\n".join(example for rule in RULES for example in rule.examples)
    text = (
        examples.encode() + text_with_secrets(5) + b"password=changeme\npassword: zq81kd02mmPx77\n"
    )
    ranks = {rule.id: rank for rank, rule in enumerate(RULES)}
    for scanner in (DEFAULT_SCANNER, with_own_secrets(DEFAULT_SCANNER, OWN)):
        matches, needles = scanner.scan_lines(text), needles_in(scanner)
        numbers = {needle: number for number, needle in enumerate(needles)}
        assert matches_of(spans_of(matches, ranks, numbers), scanner.rules, needles) == matches
        assert any(match.placeholder for match in matches)
        assert any(match.union for match in matches)
    assert any(match.needle for match in matches)


# ================================================================================================
# who scans what
# ================================================================================================


class Gated(Executor):
    """A pool whose jobs wait until they are released, or never end."""

    def __init__(self, *unused: Any, **options: Any) -> None:
        self.go = threading.Event()
        self.taken = 0
        self._pool = ThreadPoolExecutor(1)
        self._threads = self._pool._threads
        self._scanner = BlockScanner(options["initargs"][-1])

    def submit(self, scan: Any, *arguments: Any, **more: Any) -> Any:
        self.taken += 1
        return self._pool.submit(lambda: self.go.wait(30) and self._scanner.scan(*arguments))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def block_of(number: int) -> bytes:
    key = "AK" + "IA" + f"IOSFODNN7EX{number:05}"
    return f"key={key} end\n".encode() + (b"." * 99 + b"\n") * 200


def numbers_of(records: RecordedStream) -> list[int]:
    return [int(found["match"][-5:]) for found in records.findings]


def test_small_blocks_are_scanned_here_and_reported_in_order(
    executor: ThreadPoolExecutor,
    make_workers: Callable[..., Workers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scanning, "JOINED", 0)
    gates: list[Gated] = []

    def gated(*arguments: Any, **options: Any) -> Gated:
        gates.append(Gated(*arguments, **options))
        return gates[-1]

    shared = make_workers(1, make_pool=gated)
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, workers=shared)
    stream.offer(decoder, b"begun\n")
    for number in range(10):
        size = 2000 if number % 3 == 1 else None
        stream.offer(decoder, block_of(number)[:size])
    wait_for(lambda: len(stream._ahead) == 10, "all to be searched or handed over")
    assert gates[0].taken == 7 and numbers_of(records) == []
    gates[0].go.set()
    wait_for(lambda: len(records.findings) == 10, "the findings without a further block")
    stream.close((decoder,), "end")
    wait_for(lambda: records.closed, "stream_close")
    assert numbers_of(records) == list(range(10)) and not stream.waiting


def test_quiet_streams_use_no_worker(
    executor: ThreadPoolExecutor, make_workers: Callable[..., Workers]
) -> None:
    started: list[int] = []
    shared = make_workers(make_pool=lambda *arguments, **options: started.append(1))
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, workers=shared)
    for number in range(20):
        stream.offer(decoder, block_of(number)[:4000])
    assert len(records.findings) == 20 and not started


MINE = Rule("mine", "Mine", "LOW", (b"foo_",), rb"foo_[a-z]{8}", 0, (), (), "", custom=True)
MINE = MINE._replace(find="line")  # as rules of a user's file are


@pytest.mark.parametrize("pool", POOLS)
def test_other_rules_reach_new_streams_and_old_ones_are_scanned_here(
    make_workers: Callable[..., Workers], pool: Any
) -> None:
    shared = make_workers(make_pool=pool)
    old = shared.submit(DEFAULT_SCANNER, block_of(1))
    fresh = Scanner([MINE, *(rule for rule in RULES if rule.id != "aws-access-key")])
    shared.use(fresh)
    assert shared.submit(DEFAULT_SCANNER, block_of(1)) is None
    text = block_of(1) + b"a user's foo_abcdefgh\n"
    new = shared.submit(fresh, text)
    assert old and new and len(old.waited()) == 1
    assert [match.rule for match in new.waited()] == [MINE] and not new.failed


def test_the_rooms_that_a_worker_loads_are_all_that_it_needs() -> None:
    """In the stitched file: from `rules` to `spans`, as the package lists them."""
    listed = (ROOT / "_dockeraudit" / "__init__.py").read_text()
    order = re.findall(r"(?m)^    (\w+) {2,}", listed)
    loaded = order[order.index("rules") : order.index("spans") + 1]
    for room in loaded:
        text = (ROOT / "_dockeraudit" / f"{room}.py").read_text()
        needed = re.findall(r"(?m)^from _dockeraudit\.(\w+) import|^from (patterns)", text)
        assert {name or other for name, other in needed} <= set(loaded)


def test_a_busy_stream_of_a_process_is_searched_by_its_workers(
    folder: Path, start_proxy: Callable[..., Any]
) -> None:
    frames = [chunk(stdcopy_frame(1, block_of(number))) for number in range(100)]

    def logs(sock: socket.socket, head: bytes) -> None:
        sock.sendall(LOGS_HEAD + b"".join(frames) + b"0\r\n\r\n")

    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/containers/web/logs"] = logs
        proxy = start_proxy(engine.path, "--workers", "2")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(proxy.socket)
            client.sendall(b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: docker\r\n\r\n")
            seen = b"".join(iter(lambda: client.recv(1 << 16), b""))
        (closed,) = proxy.wait_records("stream_close")
        assert seen.endswith(b"".join(frames) + b"0\r\n\r\n")
    (start,) = proxy.wait_records("start")
    assert (start["workers"], start["worker_kind"]) == (2, worker_kind())
    assert (closed["findings"], closed["unscanned"]) == (100, 0)
    lines = [found["line"] for found in proxy.records("finding")]
    assert lines == [1 + 201 * number for number in range(100)]
    assert proxy.stop() == 0 and "worker" not in proxy.errors.read_text()


# ================================================================================================
# what fails
# ================================================================================================


def has(kept: list[Any]) -> bool:
    return bool(kept)


def test_a_scan_that_hangs_is_counted_as_unscanned_and_its_worker_replaced(
    executor: ThreadPoolExecutor,
    make_workers: Callable[..., Workers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates: list[Gated] = []
    said: list[str] = []

    def gated(*arguments: Any, **options: Any) -> Gated:
        gates.append(Gated(*arguments, **options))
        return gates[-1]

    shared = make_workers(1, make_pool=gated, say=lambda level, text: said.append(text))
    for round_number in range(MOST_LOST):
        records, decoder = RecordedStream(), RawDecoder("tty")
        stream = stream_scanner(executor, records, workers=shared)
        stream.offer(decoder, b"begun\n")
        stream.offer(decoder, block_of(1))
        assert len(gates) == round_number + 1
        monkeypatch.setattr(workers, "HUNG", 0.0)
        shared.look()
        monkeypatch.setattr(workers, "HUNG", 20.0)
        wait_for(functools.partial(has, records.errors), "the error's record")
        stream.offer(decoder, block_of(2)[:2000])
        stream.close((decoder,), "end")
        wait_for(functools.partial(has, records.closed), "stream_close")
        assert records.errors == ["TimeoutError"] and numbers_of(records) == [2]
        assert records.closed[0]["unscanned"] == len(block_of(1))
        assert records.closed[0]["lines"] == 1 + 201 + block_of(2)[:2000].count(b"\n") + 1
    assert len(said) == MOST_LOST and said[-1].endswith("no more workers are used")
    assert shared.submit(DEFAULT_SCANNER, block_of(1)) is None
    for gate in gates:
        gate.go.set()


class Dead(Executor):
    """A pool whose workers cannot load the rules, or fail."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._threads = self._pool._threads
        self._answer = answer

    def submit(self, scan: Any, *arguments: Any, **more: Any) -> Any:
        return self._pool.submit(self._answer)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait)


def fails() -> None:
    raise MemoryError("text with a secret")


@pytest.mark.parametrize("answer", [lambda: workers.NOT_READY, fails, lambda: "RecursionError"])
def test_a_block_whose_worker_fails_is_scanned_here(
    executor: ThreadPoolExecutor, make_workers: Callable[..., Workers], answer: Any
) -> None:
    said: list[str] = []
    shared = make_workers(
        make_pool=lambda *_, **__: Dead(answer), say=lambda level, text: said.append(text)
    )
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, workers=shared)
    stream.offer(decoder, b"begun\n")
    for number in range(30):
        stream.offer(decoder, block_of(number))
    stream.close((decoder,), "end")
    wait_for(lambda: records.closed, "stream_close")
    assert numbers_of(records) == list(range(30)) and not records.errors
    assert not any("secret" in text for text in said)


def test_a_worker_tells_an_exception_by_its_kind_alone() -> None:
    class Choking(BlockScanner):
        def _scanner_for(self, needles: Any) -> AnyScanner:
            raise ValueError("text with a secret")

    assert Choking(plain_rules(RULES[:1])).scan(b"x\n", (("A", b"b", False),)) == "ValueError"


def test_a_pool_that_takes_nothing_costs_nothing(make_workers: Callable[..., Workers]) -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    shared = make_workers(make_pool=lambda *arguments, **options: pool)
    assert shared.submit(DEFAULT_SCANNER, block_of(1)) is None
    assert shared.submit(DEFAULT_SCANNER, block_of(1)) is None


# ================================================================================================
# how many
# ================================================================================================


@pytest.mark.parametrize(
    "limit, expected", [("150000 100000", 1), ("max 100000", None), ("50000 100000", 1), ("", None)]
)
def test_a_control_groups_limit_counts(folder: Path, limit: str, expected: int | None) -> None:
    file = folder / "cpu.max"
    file.write_text(limit)
    unlimited = usable_cores(str(folder / "none"))
    assert usable_cores(str(file)) == (expected or unlimited)


def test_auto_leaves_a_core_to_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "runs_one_thread", lambda: True)
    monkeypatch.setattr(workers, "interpreter_pool", lambda: ThreadPoolExecutor)
    assert [automatic_workers(cores) for cores in (1, 2, 4, 9, 64)] == [0, 2, 3, 8, 8]
    monkeypatch.setattr(workers, "interpreter_pool", lambda: None)
    assert [automatic_workers(cores) for cores in (1, 64)] == [2, 2]


def test_in_a_free_threaded_python_workers_are_threads(
    make_workers: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "runs_one_thread", lambda: False)
    assert workers.worker_kind() == "threads"
    assert [automatic_workers(cores) for cores in (1, 2, 4)] == [0, 2, 3]
    shared = make_workers()
    job = shared.submit(DEFAULT_SCANNER, block_of(7))
    assert job is not None and job.waited() == DEFAULT_SCANNER.scan_lines(block_of(7))
    assert isinstance(shared._pool, ThreadPoolExecutor) and not job.failed


def test_a_thread_scans_with_rules_of_its_own() -> None:
    with ThreadPoolExecutor(
        1, initializer=workers.prepare_thread, initargs=("", False, "", plain_rules(RULES))
    ) as pool:
        spans = pool.submit(scan_in_thread, block_of(7), ()).result()
    matches: list[Match] = matches_of(spans, RULES, ())
    assert matches == DEFAULT_SCANNER.scan_lines(block_of(7))


@pytest.mark.parametrize("seconds, times", [(0.0, [1, 1, 2, 2]), (100.0, [0, 0, 0, 0])])
def test_once_the_workers_are_ready_what_that_took_is_given_back(
    make_workers: Callable[..., Workers],
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    times: list[int],
) -> None:
    trimmed: list[int] = []
    monkeypatch.setattr(workers, "trim_heap", lambda: trimmed.append(1))
    monkeypatch.setattr(workers, "READY_AFTER", seconds)
    shared, seen = make_workers(make_pool=ThreadPoolExecutor), []
    for rules in (DEFAULT_SCANNER, Scanner(RULES[:6])):  # other rules come with a new pool
        shared.use(rules)
        for _ in range(2):
            landed = threading.Event()
            assert shared.submit(rules, b"nothing\n", landed.set) is not None
            assert landed.wait(DEADLINE)
            seen.append(len(trimmed))
    assert seen == times
