"""Streams beside the relay: order, bounds, gaps, errors, and how their bytes are read."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import recorded
from recorded import (
    AWS,
    SECRET,
    STAMP,
    PlainScanner,
    RecordedStream,
    SlowScanner,
    stream_scanner,
)
from scripted import stdcopy_frame

from _dockeraudit import scanning
from _dockeraudit.ownsecrets import own_secrets
from _dockeraudit.scanning import OWN_SHARE, ScanBudget, StreamScanner
from _dockeraudit.streams import RawDecoder, StreamDemuxer
from conftest import wait_for
from patterns import DEFAULT_SCANNER

KEY = AWS.encode()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def closed(records: RecordedStream) -> dict[str, Any]:
    """The stream's close, once it has been written."""
    wait_for(lambda: records.closed, "stream_close")
    assert len(records.closed) == 1
    return records.closed[0]


# -- order and bounds


def test_order_is_kept_and_nothing_is_lost_between_inline_and_jobs(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(7)
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records)
    for number in range(300):
        monkeypatch.setattr(scanning, "QUICK_SCAN", rng.choice([0, 60]))
        rest = b"." * rng.choice([1, 100, 40_000])
        stream.offer(decoder, b"%d %b%04d \n%b\n" % (number, KEY[:16], number, rest))
    stream.close((decoder,), "end")
    close = closed(records)
    assert [f["match"][-4:] for f in records.findings] == [b"%04d" % i for i in range(300)]
    assert (close["lines"], close["unscanned"], close["reason"]) == (600, 0, "end")


class Noting(SlowScanner):
    """A slow scanner that notes in which threads it scans."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    def scan_lines(self, block: bytes) -> list[Any]:
        self.threads.append(threading.current_thread())
        return super().scan_lines(block)


def test_a_stream_is_left_to_a_worker_while_its_scans_are_slow(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, decoder, scanner = threading.current_thread(), RawDecoder("tty"), Noting()
    stream = stream_scanner(executor, RecordedStream(), scanner)
    for _ in range(2):
        stream.offer(decoder, b"x\n")
    wait_for(lambda: len(scanner.threads) == 2, "the job")
    assert scanner.threads[0] is here is not scanner.threads[1]
    scanner.go.set()
    wait_for(lambda: not stream.waiting, "the job to end")
    monkeypatch.setattr(scanning, "QUICK_SCAN", 60)
    for _ in range(2):
        stream.offer(decoder, b"x\n")
        wait_for(lambda: not (stream.waiting or stream._running), "the block to be scanned")
    assert scanner.threads[-1] is here, "the scan before it was quick"


def test_without_room_blocks_pass_unscanned_and_are_counted(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "ROOM_WAIT", 0.001)
    records, scanner, decoder = RecordedStream(), SlowScanner(), RawDecoder("tty")
    budget = ScanBudget(100_000)
    stream = stream_scanner(executor, records, scanner, budget=budget)
    block = b"x" * 32_767 + b"\n"
    for _ in range(40):
        stream.offer(decoder, block)
    assert stream.waiting <= OWN_SHARE + 100_000
    scanner.go.set()
    stream.close((decoder,), "end")
    assert closed(records)["lines"] == 40
    assert sum(records.gaps) == stream.unscanned > 0
    assert sum(map(len, scanner.blocks)) + stream.unscanned == 40 * len(block)
    assert budget.take(100_000), "all room was given back"


def test_abandoned_ends_the_wait_for_room(executor: ThreadPoolExecutor) -> None:
    records, scanner, decoder = RecordedStream(), SlowScanner(), RawDecoder("tty")
    options: dict[str, Any] = {"abandoned": lambda: True, "patient": True}
    stream = stream_scanner(executor, records, scanner, budget=ScanBudget(0), **options)
    for _ in range(10):
        stream.offer(decoder, b"x" * 32_768)
    assert stream.unscanned > 0
    scanner.go.set()
    stream.close((decoder,), "client")
    closed(records)


class Broken(PlainScanner):
    """A scanner that raises at some of its blocks."""

    def __init__(self, *blocks: int) -> None:
        self.calls = 0
        self.blocks = blocks

    def scan_lines(self, block: bytes) -> list[Any]:
        self.calls += 1
        if self.calls in self.blocks:
            raise RuntimeError("text with a secret")
        return DEFAULT_SCANNER.scan_lines(block)


def test_a_scan_that_raises_is_recorded_and_the_stream_goes_on(
    executor: ThreadPoolExecutor,
) -> None:
    records, decoder = RecordedStream(), RawDecoder("tty")
    failures: list[bool] = []
    stream = stream_scanner(executor, records, Broken(2), on_error=lambda: failures.append(True))
    for _ in range(3):
        stream.offer(decoder, SECRET)
    stream.close((decoder,), "end")
    close = closed(records)
    assert records.errors == ["RuntimeError"] and failures and len(records.findings) == 2
    assert (close["unscanned"], close["lines"]) == (len(SECRET), 3)


class Interrupted(StreamScanner):
    """A stream's scanner whose thread is always switched while it counts unscanned bytes."""

    _unscanned = 0

    @property
    def unscanned(self) -> int:  # type: ignore[override]
        count = self._unscanned
        threading.Event().wait(0.001)
        return count

    @unscanned.setter
    def unscanned(self, count: int) -> None:
        self._unscanned = count


def test_unscanned_bytes_are_counted_by_two_threads_without_a_loss(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relaying thread counts what finds no room, a worker what a scan failed on."""
    monkeypatch.setattr(scanning, "ROOM_WAIT", 0)
    monkeypatch.setattr(scanning, "QUICK_SCAN", 0)  # every block but the first is a job
    monkeypatch.setattr(recorded, "StreamScanner", Interrupted)
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, Broken(*range(1, 10_000)), budget=ScanBudget(0))
    block = b"x" * 20_000 + b"\n"
    for _ in range(100):
        stream.offer(decoder, block)
    stream.close((decoder,), "end")
    assert closed(records)["unscanned"] == 100 * len(block)


def test_an_executor_that_takes_no_jobs_leaves_nothing_unscanned() -> None:
    records, decoder, executor = RecordedStream(), RawDecoder("tty"), ThreadPoolExecutor(1)
    stream = stream_scanner(executor, records)
    executor.shutdown()
    stream._slow = True
    stream.offer(decoder, SECRET)
    stream.close((decoder,), "shutdown")
    assert len(records.findings) == 1 and closed(records)["unscanned"] == 0


def test_an_executor_that_can_start_no_thread_scans_nothing_twice() -> None:
    class Exhausted(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            jobs.append(arguments[0])
            raise RuntimeError("can't start new thread")

    records, decoder, jobs = RecordedStream(), RawDecoder("tty"), []
    stream = stream_scanner(Exhausted(1), records)
    stream._slow = True
    stream.offer(decoder, SECRET)
    assert len(records.findings) == len(jobs) == 1
    stream._running, running = True, stream._running  # as while another thread scans
    jobs[0]()  # a worker comes late, and finds the job that was kept
    assert stream._running and not running
    stream._running = False
    stream.close((decoder,), "end")
    closed(records)


# -- silence


def test_a_silence_looks_at_unfinished_lines_and_the_enter_key_ends_what_is_typed(
    executor: ThreadPoolExecutor,
) -> None:
    records, output, typed = RecordedStream(), RawDecoder("tty"), RawDecoder("stdin")
    stream = stream_scanner(executor, records)
    for key in (b"password=hunt", b"er2hunter2", b"\r", b"ls\r"):
        stream.offer(typed, key)
        stream.silence()
        assert not stream.restless
    (found,) = records.findings
    assert found["complete"] and (found["secret"], found["type"]) == (b"hunter2hunter2", "stdin")
    stream.close((output, typed), "end")
    assert closed(records)["lines"] == 2


# -- the container's own secrets: the scan waits for them, the relay does not

VALUE = b"correct horse " + b"battery staple"
OWN = own_secrets(["DB_PASSWORD=" + VALUE.decode()], DEFAULT_SCANNER)
LINE = b"logged in with " + VALUE + b"\n"


def own_findings(records: RecordedStream) -> list[tuple[Any, ...]]:
    return [(found["id"], found["env"], found["line"]) for found in records.findings]


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_what_came_before_the_answer_is_searched_for_own_secrets_too(
    executor: ThreadPoolExecutor, when: str
) -> None:
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, awaits_own=True)
    if when == "before":
        stream.inspected(True, OWN)
    stream.offer(decoder, LINE)
    if when == "between":
        assert stream.waiting == len(LINE) and stream.restless
        stream.silence()
        assert stream.restless and not records.findings, "it waits for the answer"
        stream.inspected(True, OWN)
        wait_for(lambda: records.findings, "a finding without another byte")
    stream.offer(decoder, LINE)
    if when == "after":
        threading.Timer(0.02, stream.inspected, [True, OWN]).start()
    stream.close((decoder,), "end")
    closed(records)
    assert own_findings(records) == [("container-env", "DB_PASSWORD", n) for n in (1, 2)]


def test_a_look_up_that_takes_too_long_is_waited_for_no_longer(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "INSPECT_WAIT", 0.05)
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, awaits_own=True)
    stream.offer(decoder, SECRET + LINE)

    def found() -> bool:
        stream.silence()
        return bool(records.findings)

    wait_for(found, "what the rules find")
    stream.inspected(True, OWN)
    stream.offer(decoder, LINE)
    stream.close((decoder,), "end")
    closed(records)
    late = ("container-env", "DB_PASSWORD", 3)
    assert own_findings(records) == [("aws-access-key", None, 1), late]


def test_a_look_up_that_fails_leaves_the_rules(executor: ThreadPoolExecutor) -> None:
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, awaits_own=True)
    stream.offer(decoder, SECRET + LINE)
    stream.inspected(None, None)
    stream.close((decoder,), "end")
    closed(records)
    assert own_findings(records) == [("aws-access-key", None, 1)]


def test_where_there_is_no_room_to_wait_the_scan_begins_and_nothing_is_lost(
    executor: ThreadPoolExecutor,
) -> None:
    records, decoder = RecordedStream(), RawDecoder("tty")
    stream = stream_scanner(executor, records, budget=ScanBudget(OWN_SHARE), awaits_own=True)
    for _ in range(40):
        stream.offer(decoder, b"." * 8000 + b"\n" + SECRET)
    stream.inspected(True, OWN)
    stream.offer(decoder, LINE)
    stream.close((decoder,), "end")
    assert closed(records)["unscanned"] == 0 and not records.gaps
    assert len(records.findings) == 41 and records.findings[-1]["env"] == "DB_PASSWORD"


def test_a_stream_that_ends_while_it_waits_is_closed_once_and_whole(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "INSPECT_WAIT", 0.05)
    for data in (b"", LINE, SECRET):
        records, decoder = RecordedStream(), RawDecoder("tty")
        stream = stream_scanner(executor, records, awaits_own=True)
        if data:
            stream.offer(decoder, data)
        stream.close((decoder,), "client")
        assert closed(records)["nbytes"] == len(data)
        assert len(records.findings) == (data == SECRET)


# -- how the output is read: the engine's word decides


LIE = b"\1\0\0\0\0\0\0\x08" + KEY + b"\r\n"  # printed by a container with a TTY
FRAMED = stdcopy_frame(1, b"x " + KEY[:9]) + stdcopy_frame(1, KEY[9:] + b"\n")


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize(
    "tty, data, stream_type, framing",
    [(True, LIE, "tty", "raw"), (False, FRAMED, "stdout", "multiplexed")],
    ids=["tty", "no tty"],
)
def test_output_waits_for_the_inspect_and_is_read_as_it_says(
    executor: ThreadPoolExecutor, when: str, tty: bool, data: bytes, stream_type: str, framing: str
) -> None:
    records, decoder = RecordedStream(), StreamDemuxer()
    stream = stream_scanner(executor, records)
    if when == "before":
        stream.inspected(tty)
    stream.offer(decoder, data[:9])
    if when == "between":
        assert stream.waiting == 9 and stream.restless
        stream.silence()
        assert stream.restless, "what waits is looked at again"
        stream.inspected(tty)
        stream.silence()
        assert not stream.restless and stream.waiting == 0
    stream.offer(decoder, data[9:])
    if when == "after":
        threading.Timer(0.02, stream.inspected, [tty]).start()
    stream.close((decoder,), "end")
    close = closed(records)
    (found,) = records.findings
    assert (found["secret"], found["type"]) == (KEY, stream_type)
    assert (close["framing"], close["nbytes"]) == (framing, len(data))
    assert close["frames"] == records.frames == (0 if tty else 2)


PLAIN = stdcopy_frame(1, KEY + b"\n") + b"\2\0\0\0\0\0"


@pytest.mark.parametrize("data", [LIE, FRAMED, PLAIN], ids=["lie", "cut by a frame", "plain"])
@pytest.mark.parametrize("fails", [True, False], ids=["inspect fails", "inspect hangs"])
def test_without_an_answer_output_is_read_both_ways_and_found_once(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, data: bytes, fails: bool
) -> None:
    monkeypatch.setattr(scanning, "INSPECT_WAIT", 0.05)
    records, decoder = RecordedStream(), StreamDemuxer()
    stream = stream_scanner(executor, records)
    if fails:
        stream.inspected(None)
    stream.offer(decoder, data)
    stream.close((decoder,), "end")
    close = closed(records)
    assert [found["secret"] for found in records.findings] == [KEY]
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    assert (close["framing"], close["lines"], close["reason"]) == ("unknown", lines, "end")


@pytest.mark.parametrize("tty", [True, False])
def test_more_output_than_may_wait_is_read_both_ways_until_the_answer_comes(
    executor: ThreadPoolExecutor, tty: bool
) -> None:
    records, decoder = RecordedStream(), StreamDemuxer()
    stream = stream_scanner(executor, records)
    line = stdcopy_frame(1, b"a line among many\n")
    count = OWN_SHARE // len(line) + 2
    stream.offer(decoder, line * count)
    assert decoder.framing == "unknown" and stream.waiting == 0
    stream.offer(decoder, stdcopy_frame(1, KEY + b" first\n") + b"\1\0\0\0\0\0\0\x07" + KEY[:7])
    stream.inspected(tty)
    stream.offer(decoder, stdcopy_frame(1, KEY[7:] + b" second\n") + stdcopy_frame(1, KEY + b"\n"))
    stream.close((decoder,), "end")
    close = closed(records)
    assert close["framing"] == ("raw" if tty else "multiplexed")
    assert len(records.findings) == (2 if tty else 3), "the raw text has the second key in pieces"
    assert records.findings[-1]["type"] == ("tty" if tty else "stdout")
    assert close["lines"] == count + 3


def test_no_more_than_a_streams_own_share_waits_for_the_inspect(
    executor: ThreadPoolExecutor,
) -> None:
    decoder = StreamDemuxer()
    stream = stream_scanner(executor, RecordedStream())
    for size in (OWN_SHARE // 2, OWN_SHARE // 2):
        stream.offer(decoder, b"x" * size)
    assert stream.waiting == OWN_SHARE and decoder.framing is None
    stream.offer(decoder, b"x")
    assert stream.waiting == 0 and decoder.framing == "unknown"
    stream.close((decoder,), "end")


def test_an_empty_stream_waits_for_nothing(executor: ThreadPoolExecutor) -> None:
    records, decoder = RecordedStream(), StreamDemuxer()
    stream = stream_scanner(executor, records)
    stream._changed.wait_for = None  # type: ignore[assignment, method-assign]
    stream.close((decoder,), "client")
    assert closed(records)["framing"] == "unknown"


BROKEN = [
    stdcopy_frame(1, b"fine\n") + b"no frame at all " + KEY + b"\n",
    stdcopy_frame(1, b"fine\n") + b"\1\0\0\0\0\0\0\x0c" + KEY + b" " * 40 + b"\n",
    stdcopy_frame(2, b"fine\n") + b"\1\0\0\0\0\0\0\x28half a frame " + KEY + b"\nrest, no frame",
    stdcopy_frame(1, STAMP + b"fine " + KEY + b"\n") + b"no frame at all\n",
]


@pytest.mark.parametrize("data", BROKEN, ids=["behind", "across", "before", "stamped"])
def test_frames_that_break_are_read_again_as_raw_text_and_found_once(
    executor: ThreadPoolExecutor, data: bytes
) -> None:
    for cut in range(1, len(data), 7):
        records, decoder = RecordedStream(), StreamDemuxer("multiplexed")
        stream = stream_scanner(executor, records)
        stream.offer(decoder, data[:cut])
        stream.offer(decoder, data[cut:])
        stream.close((decoder,), "end")
        close = closed(records)
        assert [found["secret"] for found in records.findings] == [KEY], cut
        assert (close["framing"], close["reason"]) == ("broken", "end")


def test_a_stream_that_ends_inside_a_frame_is_said_to_be_cut(executor: ThreadPoolExecutor) -> None:
    for reason, said in (("end", "cut_frame"), ("client", "client")):
        records, decoder = RecordedStream(), StreamDemuxer("multiplexed")
        stream = stream_scanner(executor, records)
        stream.offer(decoder, stdcopy_frame(1, b"a line\n")[:-1])
        stream.close((decoder,), reason)
        assert closed(records)["reason"] == said


def test_details_are_a_text_of_their_own(executor: ThreadPoolExecutor) -> None:
    for framing in ("multiplexed", "raw"):
        records, decoder = RecordedStream(), StreamDemuxer(framing, True, True)
        stream = stream_scanner(executor, records)
        for number in range(2):
            line = STAMP + b"a=b,key=" + KEY + b" line %d\n" % number
            stream.offer(decoder, stdcopy_frame(1, line) if framing == "multiplexed" else line)
        stream.close((decoder,), "end")
        assert closed(records)["lines"] == 2
        stream_type = "stdout" if framing == "multiplexed" else "tty"
        assert [(f["secret"], f["type"], f["line"]) for f in records.findings] == [
            (KEY, stream_type, 1),
            (KEY, stream_type, 2),
        ]
