"""Tests of dockeraudit.py, in the order of its sections; `e2e/` holds those of the running proxy.

Names are promises. A scripted engine on a Unix socket stands in for Docker; nothing here needs root or an engine.
"""

from __future__ import annotations

import json
import os
import random
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import pytest
from scripted import ScriptedEngine, stdcopy_frame

import patterns
from _dockeraudit import scanning, streams
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.engine import ask_engine
from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import ChunkedReader, parse_response_head
from _dockeraudit.options import OPTIONS
from _dockeraudit.routes import classify
from _dockeraudit.rules import shape_sample
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import (
    CARRY_LIMIT,
    OWN_SHARE,
    QUICK_SCAN,
    ScanBudget,
    StreamScanner,
    TextScanner,
    count_lines,
)
from _dockeraudit.streams import (
    Decoded,
    FrameReader,
    RawDecoder,
    StreamDemuxer,
    WebSocketDecoder,
    decode,
    output_decoder,
)
from conftest import ROOT, splits, wait_for
from patterns import RULES

AWS = "AK" + "IA" + "IOSFODNN7EXAMPLE"
SECRET = f"key={AWS} end\n".encode()


def chunked(parts: Sequence[bytes]) -> bytes:
    """A chunked body, one chunk a part."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class RecordedStream:
    """Stands in for auditlog.StreamRecords: keeps what a scanner reports."""

    number = 1

    def __init__(self) -> None:
        self.findings: list[dict[str, Any]] = []
        self.gaps: list[int] = []
        self.errors: list[str] = []
        self.closed: list[dict[str, Any]] = []

    def finding(
        self,
        stream_type: str,
        rule: Any,
        match: bytes,
        secret: Any,
        line: int,
        partial: bool = False,
    ) -> Any:
        found = {
            "type": stream_type,
            "rule": rule.name,
            "match": match,
            "secret": secret,
            "line": line,
            "partial": partial,
        }
        self.findings.append(found)
        return found

    def update(
        self, handle: Any, rule: Any, match: bytes, secret: Any, lines: int, complete: bool
    ) -> None:
        handle.update(secret=secret, lines=lines, complete=complete)
        if complete:
            handle["match"] = match

    def progress(self, nbytes: int, frames: int) -> None:
        pass

    def gap(self, nbytes: int, since: float) -> None:
        self.gaps.append(nbytes)

    def error(self, text: str) -> None:
        self.errors.append(text)

    def close(self, **fields: Any) -> None:
        self.closed.append(fields)

    def named(self, *names: Any) -> None:
        pass


# =====================================================================================================================
# Docker streams
# =====================================================================================================================

SIZES = (0, 1, 255, 256, 1024, 65535, 16777216)


@pytest.mark.parametrize(
    "stream_type, name", [(0, "stdin"), (1, "stdout"), (2, "stderr"), (3, "stderr")]
)
@pytest.mark.parametrize("size", SIZES)
def test_header_types_and_big_endian_sizes(stream_type: int, name: str, size: int) -> None:
    demuxer = StreamDemuxer("multiplexed")
    runs = demuxer.feed(stdcopy_frame(stream_type, b"x" * size))
    assert runs == ([(name, b"x" * size)] if size else [(name, b"")])
    assert demuxer.frames == 1 and not demuxer.inside_frame


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_read_big_endian(size: int) -> None:
    header = stdcopy_frame(1, b"x" * size)[:8]
    assert header[4:] == bytes([size >> 24 & 255, size >> 16 & 255, size >> 8 & 255, size & 255])
    demuxer = StreamDemuxer("multiplexed")
    demuxer.feed(header)
    assert demuxer.inside_frame == (size > 0)


def joined(runs: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """The text of each stream type."""
    texts: dict[str, bytes] = {}
    for name, data in runs:
        texts[name] = texts.get(name, b"") + data
    return {name: text for name, text in texts.items() if text}


STREAM = (
    stdcopy_frame(1, b"out one\n")
    + stdcopy_frame(2, b"error\n")
    + stdcopy_frame(1, b"")
    + stdcopy_frame(1, b"out two\n")
    + stdcopy_frame(0, b"typed\n")
)


@pytest.mark.parametrize("framing", ["multiplexed", None])
def test_a_stream_cut_anywhere_gives_the_same_texts(framing: Any) -> None:
    for parts in splits(STREAM):
        demuxer = StreamDemuxer(framing)
        runs = [run for part in parts for run in demuxer.feed(part)] + demuxer.end()
        assert joined(runs) == {
            "stdout": b"out one\nout two\n",
            "stderr": b"error\n",
            "stdin": b"typed\n",
        }
        assert (demuxer.framing, demuxer.frames, demuxer.inside_frame) == ("multiplexed", 5, False)


@pytest.mark.parametrize(
    "text",
    [
        b"$ ls\n",
        b"\x01\x00",
        b"\x02\x00\x00",
        b"\x1b[0m",
        b"0123456789",
        b"\x04\x00\x00\x00\x00\x00\x00\x01x",
    ],
)
def test_a_stream_that_is_not_frames_is_raw(text: bytes) -> None:
    for parts in splits(text):
        demuxer = StreamDemuxer()
        runs = [run for part in parts for run in demuxer.feed(part)] + demuxer.end()
        assert joined(runs) == {"tty": text}


def test_a_stream_that_stops_being_frames_is_raw_from_there_on() -> None:
    for parts in splits(stdcopy_frame(1, b"one\n") + b"Panic: not a frame at all\n"):
        demuxer = StreamDemuxer("multiplexed")
        runs = [run for part in parts for run in demuxer.feed(part)]
        assert joined(runs) == {"stdout": b"one\n", "tty": b"Panic: not a frame at all\n"}
        assert demuxer.framing == "broken"


def test_a_header_that_claims_gigabytes_allocates_nothing() -> None:
    demuxer = StreamDemuxer("multiplexed")
    assert demuxer.feed(b"\x01\0\0\0\xff\xff\xff\xffabc") == [("stdout", b"abc")]
    assert demuxer.inside_frame


def test_timestamps_and_details_are_left_out_wherever_they_are_cut() -> None:
    stamp = b"2026-01-02T03:04:05.678901234Z "
    data = b"".join(
        stdcopy_frame(1, stamp + b"a=b,c=d " + text) for text in (b"AKIA", b"IOSF and ", b"more\n")
    )
    for parts in splits(data):
        demuxer = StreamDemuxer("multiplexed", prefixes=2)
        assert joined([run for part in parts for run in demuxer.feed(part)]) == {
            "stdout": b"AKIAIOSF and more\n"
        }


def walked(
    read: Callable[[bytes], tuple[int, Any]],
    reader: Any,
    demuxer: StreamDemuxer,
    parts: Sequence[bytes],
) -> tuple[Any, ...]:
    """All that `read` makes of a chunked body of frames, up to its end or its first illegal byte."""
    texts: dict[str, bytes] = {}
    taken = size = 0
    for part in parts:
        try:
            used, decoded = read(part)
        except HTTPError as error:
            return error.status, str(error)
        taken, size = taken + used, size + decoded.size
        for name, data in decoded.runs:
            texts[name] = texts.get(name, b"") + data
        if used < len(part):
            break
    return texts, taken, size, demuxer.frames, demuxer.framing, demuxer.inside_frame, reader.done


def both_ways(
    parts: Sequence[bytes], framing: Any, prefixes: int
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What chunks and then frames give, and what the one walk over both gives."""
    chunks, frames, demuxer = (
        ChunkedReader(),
        StreamDemuxer(framing, prefixes),
        StreamDemuxer(framing, prefixes),
    )

    def one_after_the_other(part: bytes) -> tuple[int, Any]:
        used, payload = chunks.feed(part)
        return used, decode(frames, payload)

    reader = FrameReader(demuxer)

    def in_one_walk(part: bytes) -> tuple[int, Any]:
        used, payload = reader.feed(part)
        return used, payload if isinstance(payload, Decoded) else decode(demuxer, payload)

    return walked(one_after_the_other, chunks, frames, parts), walked(
        in_one_walk, reader, demuxer, parts
    )


def framed_body(rng: random.Random) -> bytes:
    """A chunked body of frames: each in a chunk of its own, or chunks that know nothing of frames; damaged, or not."""
    sizes = rng.choices(
        (0, 1, 3, 8, 92, 100, 247, 248, 249, 300, 4090, 5000), k=rng.randrange(1, 30)
    )
    frames = [
        stdcopy_frame(rng.choice((0, 1, 1, 1, 2, 3)), bytes(rng.choices(b"ab \r\n01\0\1", k=size)))
        for size in sizes
    ]
    parts, at = frames, 0
    if rng.random() < 0.4:
        whole, parts = b"".join(frames), []
        while at < len(whole):
            parts.append(whole[at : at + rng.randrange(1, 300)])
            at += len(parts[-1])
    lines = (b"%x\r\n", b"%x\r\n", b"%x\r\n", b"%X\r\n", b"0%x\r\n", b"%x;a=b\r\n")
    body = bytearray(
        b"".join(rng.choice(lines) % len(part) + part + b"\r\n" for part in parts)
        + b"0\r\n\r\n"
        + rng.choice((b"", b"HTTP/1.1"))
    )
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        body[rng.randrange(len(body))] = rng.choice(b"\0\1a\r\n09")
    return bytes(body)


def test_chunks_and_frames_in_one_walk_are_what_they_are_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(7)
    monkeypatch.setattr(streams, "WALK_LEAST", 0)
    for _ in range(300):
        body, framing, prefixes = (
            framed_body(rng),
            rng.choice(("multiplexed", "multiplexed", None, "raw")),
            rng.choice((0, 0, 0, 1)),
        )
        cuts = sorted(rng.choices(range(len(body) + 1), k=rng.choice((0, 1, 3, 30))))
        long_way, walk = both_ways(
            [body[a:b] for a, b in zip([0] + cuts, cuts + [len(body)]) if a < b], framing, prefixes
        )
        assert walk == long_way
    assert FrameReader.heads


def test_the_walk_takes_whole_frames_and_remembers_few_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "KNOWN_FRAMES", 3)
    monkeypatch.setattr(FrameReader, "heads", {})
    lines = [b"x" * size + b"\n" for size in (20, 20, 30, 40, 50, 20, 4096)]
    reader = FrameReader(StreamDemuxer("multiplexed"))
    monkeypatch.setattr(ChunkedReader, "feed", None)  # the longer way
    used, decoded = reader.feed(
        chunked([stdcopy_frame(1, line) for line in lines])[: -len(b"0\r\n\r\n")]
    )
    assert decoded == (
        sum(map(len, lines)) + 8 * len(lines),
        len(lines),
        [("stdout", b"".join(lines))],
    )
    assert len(reader.heads) == 3


def websocket_frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One WebSocket frame (RFC 6455 §5.2)."""
    size = len(payload)
    short, extended = (
        (size, b"")
        if size < 126
        else (126, struct.pack(">H", size))
        if size < 65536
        else (127, struct.pack(">Q", size))
    )
    body = bytes(b ^ mask[i % 4] for i, b in enumerate(payload)) if mask else payload
    return bytes([0x80 | opcode, (0x80 if mask else 0) | short]) + extended + mask + body


@pytest.mark.parametrize("mask", [b"", b"\x01\x82\xf3\x7f"])
def test_websocket_messages_are_unmasked_wherever_they_are_cut(mask: bytes) -> None:
    long = bytes(range(256)) * 2
    data = (
        websocket_frame(2, b"hello ", mask)
        + websocket_frame(9, b"ping", mask)
        + websocket_frame(1, long, mask)
        + websocket_frame(8, b"", mask)
    )
    for parts in splits(data):
        decoder = WebSocketDecoder("tty")
        assert joined([run for part in parts for run in decoder.feed(part)]) == {
            "tty": b"hello " + long
        }
        assert decoder.frames == 2 and not decoder.inside_frame


# =====================================================================================================================
# scanning a stream
# =====================================================================================================================


def scanned(parts: Sequence[bytes], settle: bool = False) -> tuple[RecordedStream, TextScanner]:
    """A text fed to a scanner in parts, with a silence after each if `settle`."""
    audit = RecordedStream()
    text = TextScanner(patterns.DEFAULT_SCANNER, audit, "stdout")
    for part in parts:
        text.feed(part)
        if settle:
            text.settle()
    text.end()
    return audit, text


def seen(audit: RecordedStream) -> list[tuple[Any, ...]]:
    return [(f["rule"], f["match"], f["line"]) for f in audit.findings]


TEXT = (
    b"first line\n"
    + SECRET
    + b"user@example.org wrote\r\n\x1b[31mpassword: hunter2hunter2\x1b[0m\n"
    b"api_key = 'abcdefghij0123456789XYZ'\nbearer abcdefghijklmnopqrstuvwxyz\n"
    + SECRET
    + b"tail "
    + AWS.encode()
)


def test_a_secret_is_found_once_at_any_cut() -> None:
    whole = seen(scanned([TEXT])[0])
    assert len(whole) >= 6
    for parts in splits(TEXT):
        audit, text = scanned(parts)
        assert seen(audit) == whole
        assert text.lines == TEXT.count(b"\n") + 1


def test_a_secret_is_found_once_although_silence_falls_anywhere() -> None:
    whole = [item[::2] for item in seen(scanned([SECRET])[0])]
    for cut in range(1, len(SECRET)):
        audit, _ = scanned([SECRET[:cut], SECRET[cut:]], settle=True)
        assert [item[::2] for item in seen(audit)] == whole, cut
        final = audit.findings[0]
        assert final["secret"] == AWS.encode()
        assert final["partial"] == (cut == len(SECRET) - len(" end\n")) and final.get(
            "complete", True
        )


def test_an_open_match_is_updated_when_its_end_has_come() -> None:
    audit, _ = scanned([b"password=hunter2hun", b"ter2more\n"], settle=True)
    assert [f["match"] for f in audit.findings] == [b"password=hunter2hunter2more"]
    assert audit.findings[0]["partial"] and audit.findings[0]["complete"]


@pytest.mark.parametrize("offset", range(CARRY_LIMIT - 30, CARRY_LIMIT + 30, 7))
def test_a_secret_in_an_endless_line_is_found_once_at_any_offset(offset: int) -> None:
    data = b"." * offset + b" " + AWS.encode() + b" " + b"." * 200_000
    for parts in ([data], [data[i : i + 16384] for i in range(0, len(data), 16384)]):
        audit, text = scanned(parts)
        assert [f["match"] for f in audit.findings] == [AWS.encode()]
        assert not audit.findings[0]["partial"]


def test_memory_stays_flat_without_a_newline() -> None:
    audit = RecordedStream()
    text = TextScanner(patterns.DEFAULT_SCANNER, audit, "tty")
    for _ in range(200):
        text.feed(b"x y" * 10_000)
        assert text.held <= CARRY_LIMIT
    text.end()
    assert audit.findings == []


def framed(parts: Sequence[bytes], prefix: bytes) -> RecordedStream:
    """What is reported of a stream of these frames, each beginning with the prefix (of timestamps=1)."""
    audit = RecordedStream()
    text = TextScanner(patterns.DEFAULT_SCANNER, audit, "stdout")
    demuxer = StreamDemuxer("multiplexed", 1 if prefix else 0)
    for part in parts:
        for _, data in demuxer.feed(stdcopy_frame(1, prefix + part)):
            text.feed(data)
    text.end()
    return audit


ONE_OF_EACH_KIND = {rule.find: rule for rule in patterns.RULES}.values()
CUT_RULES = [
    pytest.param(rule, id=rule.id, marks=() if rule in ONE_OF_EACH_KIND else pytest.mark.full)
    for rule in patterns.RULES
]


@pytest.mark.parametrize("rule", CUT_RULES)
def test_a_rules_secret_is_found_once_wherever_a_frame_cuts_it(rule: Any) -> None:
    text = b"before\nline " + rule.examples[0].encode() + b" end\nafter\n"
    whole = seen(framed([text], b""))
    assert whole
    for cut in range(1, len(text)):
        parts = [text[:cut], text[cut:]]
        assert seen(framed(parts, b"")) == whole, cut
        assert seen(framed(parts, b"2026-01-02T03:04:05.678901234Z ")) == whole, cut


def test_a_match_that_another_rule_completes_after_a_silence_is_one_finding() -> None:
    value = shape_sample("live_{g40}")
    text = b"gocardless_api_key = " + value.encode() + b" end\n"
    for cut in range(1, len(text)):
        audit, _ = scanned([text[:cut], text[cut:]], settle=True)
        assert [f["secret"] for f in audit.findings] == [value.encode()], cut


KEY_LINES = (
    [b"-----BEGIN RSA " + b"PRIVATE KEY-----"]
    + [bytes([65 + i % 26]) * 64 for i in range(10)]
    + [b"QQ==", b"-----END RSA " + b"PRIVATE KEY-----"]
)
KEY = b"\n".join(KEY_LINES) + b"\n"


@pytest.mark.parametrize("settle", [False, True])
def test_a_private_key_is_one_finding_completed_at_its_end(settle: bool) -> None:
    data = b"before\n" + KEY + SECRET
    body = b"".join(KEY_LINES[1:-1])
    for parts in splits(data):
        audit, _ = scanned(parts, settle)
        key, other = audit.findings
        assert (key["rule"], key["line"], key["lines"], key["secret"], key["complete"]) == (
            "Private Key",
            2,
            13,
            body,
            True,
        )
        assert other["secret"] == AWS.encode()


def test_a_key_header_without_a_body_hides_nothing() -> None:
    audit, _ = scanned([KEY_LINES[0] + b"\n" + AWS.encode() + b"\nordinary words\n" + SECRET])
    assert [f["rule"] for f in audit.findings] == [
        "Private Key",
        "AWS Access Key",
        "AWS Access Key",
    ]
    assert audit.findings[0]["complete"] is False and audit.findings[0]["secret"] is None


def test_a_key_without_an_end_is_bounded() -> None:
    audit, text = scanned([KEY_LINES[0] + b"\n"] + [b"A" * 76 + b"\n"] * 2000)
    assert audit.findings[0]["complete"] is False and audit.findings[0]["secret"] is None


def test_the_content_type_tells_a_streams_framing() -> None:
    route = classify(b"GET", b"/v1.43/containers/x/logs?stdout=1")
    for kind, framing in (("multiplexed", "multiplexed"), ("raw", None)):
        head = parse_response_head(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.{kind}-stream\r\n\r\n".encode()
        )
        assert output_decoder(route, head).framing == framing


def test_lines_are_counted_whatever_their_lengths() -> None:
    rng = random.Random(11)
    for _ in range(300):
        lines = [b"x" * rng.choice([0, 1, 100, 511, 512, 5000]) for _ in range(rng.randrange(200))]
        block = b"\n".join(lines)
        assert count_lines(block) == block.count(b"\n")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def auditor(
    executor: ThreadPoolExecutor, audit: RecordedStream, scanner: Any = None, **options: Any
) -> StreamScanner:
    room = options.pop("room", ScanBudget())
    options = {"abandoned": lambda: False, "on_error": lambda: None, **options}
    return StreamScanner(executor, room, scanner or Scanner(RULES), audit, **options)


class SlowScanner:
    """A scanner whose first block takes long, and that then waits until it is released."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.blocks: list[bytes] = []

    def scan_lines(self, block: bytes) -> list[Any]:
        if self.blocks:
            self.go.wait(30)
        else:
            end = time.thread_time() + 2 * QUICK_SCAN
            while time.thread_time() < end:
                pass
        self.blocks.append(block)
        return []


def test_order_is_kept_and_nothing_is_lost_between_inline_and_jobs(
    executor: ThreadPoolExecutor,
) -> None:
    rng = random.Random(7)
    audit = RecordedStream()
    stream = auditor(executor, audit)
    decoder = RawDecoder("tty")
    lines = [
        b"%d %b\n" % (i, AWS[:16].encode() + b"%04d" % i)
        + b"." * rng.choice([1, 100, 40_000])
        + b"\n"
        for i in range(300)
    ]
    for line in lines:
        stream.offer(decoder, line)
    stream.close((decoder,), "raw", "end")
    wait_for(lambda: audit.closed, "stream_close")
    assert [f["match"][-4:] for f in audit.findings] == [b"%04d" % i for i in range(300)]
    assert audit.closed[0]["lines"] == 600 and audit.closed[0]["unscanned"] == 0


def test_a_slow_streams_blocks_are_jobs_unless_all_workers_are_busy(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noting(SlowScanner):
        def __init__(self) -> None:
            super().__init__()
            self.threads: list[threading.Thread] = []

        def scan_lines(self, block: bytes) -> list[Any]:
            self.threads.append(threading.current_thread())
            return super().scan_lines(block)

    here, room, decoder = threading.current_thread(), ScanBudget(workers=1), RawDecoder("tty")
    hung, other = Noting(), Noting()
    first, second = (
        auditor(executor, RecordedStream(), hung, room=room),
        auditor(executor, RecordedStream(), other, room=room),
    )
    for stream in (first, second, first):
        stream.offer(decoder, b"x\n")
    wait_for(lambda: len(hung.threads) == 2, "the first stream's job")
    other.go.set()
    second.offer(decoder, b"x\n")
    assert (
        hung.threads[0] is here is not hung.threads[1]
        and other.threads == [here, here]
        and second.waiting == 0
    )
    hung.go.set()
    wait_for(lambda: room.worker_free and not first.waiting, "the job to end")
    monkeypatch.setattr(scanning, "QUICK_SCAN", 60)
    for _ in range(2):
        first.offer(decoder, b"x\n")
        wait_for(lambda: room.worker_free and not first.waiting, "the block to be scanned")
    assert hung.threads[-1] is here, "the scan before it was quick"


def test_without_room_blocks_pass_unscanned_and_are_counted(
    executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "ROOM_WAIT", 0.01)
    audit, scanner = RecordedStream(), SlowScanner()
    room = ScanBudget(100_000)
    stream = auditor(executor, audit, scanner, room=room)
    decoder = RawDecoder("tty")
    block = b"x" * 32_767 + b"\n"
    for _ in range(40):
        stream.offer(decoder, block)
    assert stream.waiting <= OWN_SHARE + 100_000
    scanner.go.set()
    stream.close((decoder,), "raw", "end")
    wait_for(lambda: audit.closed, "stream_close")
    assert sum(audit.gaps) == stream.unscanned > 0
    assert sum(map(len, scanner.blocks)) + stream.unscanned == 40 * len(block)
    assert audit.closed[0]["lines"] == 40
    assert room.take(100_000), "all room was given back"


def test_a_scan_that_raises_is_recorded_and_the_stream_goes_on(
    executor: ThreadPoolExecutor,
) -> None:
    class Broken:
        calls = 0

        def scan_lines(self, block: bytes) -> list[Any]:
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("text with a secret")
            return Scanner(RULES).scan_lines(block)

    audit = RecordedStream()
    stream = auditor(executor, audit, Broken())
    decoder = RawDecoder("tty")
    for _ in range(3):
        stream.offer(decoder, SECRET)
    stream.close((decoder,), "raw", "end")
    wait_for(lambda: audit.closed, "stream_close")
    assert audit.errors == ["RuntimeError"] and len(audit.findings) == 2


def test_abandoned_ends_the_wait_for_room(executor: ThreadPoolExecutor) -> None:
    audit, scanner = RecordedStream(), SlowScanner()
    stream = auditor(
        executor, audit, scanner, room=ScanBudget(0), abandoned=lambda: True, patient=True
    )
    decoder = RawDecoder("tty")
    for _ in range(10):
        stream.offer(decoder, b"x" * 32_768)
    assert stream.unscanned > 0
    scanner.go.set()
    stream.close((decoder,), "raw", "client")
    wait_for(lambda: audit.closed, "stream_close")


# =====================================================================================================================
# the whole, in one process
# =====================================================================================================================

#: the six patterns that stay as they are: name, severity, what matches, what does not
SIX_PATTERNS = (
    ("AWS Access Key", "HIGH", AWS, AWS[:-1]),
    ("Generic API Key", "HIGH", "api_key=" + "abcdefghij0123456789", "api_key=short"),
    ("Private Key", "HIGH", "-----BEGIN RSA " + "PRIVATE KEY-----", "-----BEGIN PUBLIC KEY-----"),
    ("Email Address", "LOW", "ada.winter@" + "example.org", "ada.winter@host"),
    ("Bearer Token", "HIGH", "Authorization: Bearer " + "abcdefghij.0123456789", "bearer of news"),
    ("Password", "HIGH", "password=" + "correct-horse", "password=short"),
)


@pytest.mark.parametrize(
    "name, severity, text, other", SIX_PATTERNS, ids=[row[0] for row in SIX_PATTERNS]
)
def test_pattern_table(name: str, severity: str, text: str, other: str) -> None:
    scanner = Scanner(patterns.ORIGINAL_RULES)
    assert [
        (match.rule.name, match.rule.severity) for match in scanner.scan(f"x {text} y".encode())
    ] == [(name, severity)]
    assert scanner.scan(f"x {other} y".encode()) == []


def test_payload_isolation_a_header_never_reaches_the_scanner(executor: ThreadPoolExecutor) -> None:
    scanner = SlowScanner()
    scanner.go.set()
    audit = RecordedStream()
    stream = auditor(executor, audit, scanner)
    demuxer = StreamDemuxer("multiplexed")
    payload = b"ada.winter" + b"@" * 54  # 64 bytes: the header's last byte is an @ too
    for _ in range(3):
        stream.offer(demuxer, stdcopy_frame(1, payload) + stdcopy_frame(2, b"@example.org\n"))
    stream.close((demuxer,), "multiplexed", "end")
    wait_for(lambda: audit.closed, "stream_close")
    assert b"".join(scanner.blocks).replace(b"@example.org\n", b"") == payload * 3
    assert audit.closed[0]["frames"] == 6


def test_non_blocking_audit_a_hung_disk_stops_nobody(tmp_path: Any) -> None:
    begun, go = threading.Event(), threading.Event()

    def write(fd: int, data: bytes) -> int:
        begun.set()
        go.wait(30)
        return os.write(fd, data)

    log = AuditLog(str(tmp_path / "audit.log"), b"k" * 32, write=write, fsync="never")
    log.open()
    assert begun.wait(30)
    for number in range(200):
        log.accept("request", {"number": number})
    assert not go.is_set() and log.held >= 200
    go.set()
    assert log.close("end", 30) == 0
    assert len((tmp_path / "audit.log").read_bytes().splitlines()) == 202


def test_audit_log_round_trip(tmp_path: Any) -> None:
    log = AuditLog(str(tmp_path / "audit.log"), b"k" * 32, fsync="never")
    log.open()
    audit = log.open_stream("logs", "web", {"listener": "test"}, False, True)
    audit.named("c0ffee", "web")
    text = TextScanner(patterns.DEFAULT_SCANNER, audit, "stdout")
    text.feed(SECRET)
    text.end()
    audit.close(
        framing="multiplexed",
        nbytes=len(SECRET),
        frames=1,
        lines=text.lines,
        unscanned=0,
        reason="end",
    )
    assert log.close("end", 30) == 0
    records = [json.loads(line) for line in (tmp_path / "audit.log").read_bytes().splitlines()]
    assert [record["event"] for record in records] == [
        "start",
        "stream_open",
        "finding",
        "stream_close",
        "stop",
    ]
    found = records[2]
    assert (found["pattern"], found["redacted_match"], found["stream_type"], found["line"]) == (
        "AWS Access Key",
        "AK***LE",
        "stdout",
        1,
    )
    assert (found["container_id"], found["container_name"], found["count"]) == ("c0ffee", "web", 1)


def test_unix_dialling(folder: Any) -> None:
    path = str(folder / "engine.sock")
    with pytest.raises(EngineError, match=f"{path}.*ENOENT"):
        ask_engine(path, "/version")
    with ScriptedEngine(path):
        assert ask_engine(path, "/version")["Version"] == "28.0"
    with pytest.raises(EngineError, match="ENOENT|ECONNREFUSED"):
        ask_engine(path, "/version")


def test_the_readme_names_every_option() -> None:
    text = (ROOT / "README.md").read_text()
    assert [option.name for option in OPTIONS if f"--{option.name}" not in text] == []
