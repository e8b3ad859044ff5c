"""What dockeraudit promises, in the order in which a byte passes through it.

Each behaviour is tested whole here, by the name that it has always had; `tests/` has a file for
each room. A scripted engine on a Unix socket stands in for Docker: nothing needs root or an engine.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from recorded import AWS, SECRET, RecordedStream, SlowScanner, stream_scanner
from scripted import LOGS_HEAD, ScriptedEngine, chunk, stdcopy_frame

import patterns
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.engine import ask_engine
from _dockeraudit.errors import EngineError
from _dockeraudit.options import OPTIONS
from _dockeraudit.scanner import Scanner
from _dockeraudit.streams import StreamDemuxer
from _dockeraudit.textscanner import TextScanner
from conftest import ROOT, splits, wait_for

FRAMES = ((1, "stdout", b"out\n"), (2, "stderr", b"error\n"), (0, "stdin", b"typed\n"))


def test_header_types_and_big_endian_sizes() -> None:
    """A frame is [type 0 0 0][big-endian size] and its payload, wherever the stream is cut."""
    assert (
        stdcopy_frame(2, b"x" * 258)[:8]
        == b"\x02\0\0\0\0\0\x01\x02"
        == struct.pack(">BxxxI", 2, 258)
    )
    stream = b"".join(stdcopy_frame(kind, payload) for kind, _, payload in FRAMES)
    for parts in splits(stream):
        demuxer = StreamDemuxer("multiplexed")
        texts: dict[str, bytes] = {}
        for part in parts:
            for name, data in demuxer.feed(part):
                texts[name] = texts.get(name, b"") + data
        assert texts == {name: payload for _, name, payload in FRAMES} and demuxer.frames == 3


def test_frame_by_frame_streaming(folder: Any, start_proxy: Any) -> None:
    """Each frame reaches the client, byte for byte, before the engine sends the next."""
    arrived = threading.Semaphore(0)
    frames = [chunk(stdcopy_frame(1, b"line %d\n" % number)) for number in range(3)]

    def follow(sock: socket.socket, head: bytes) -> None:
        sock.sendall(LOGS_HEAD)
        for frame in frames:
            sock.sendall(frame)
            assert arrived.acquire(timeout=20)

    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/containers/web/logs"] = follow
        proxy = start_proxy(engine.path)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(proxy.socket)
            client.sendall(b"GET /containers/web/logs?follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n")
            seen = b""
            for frame in frames:
                while not seen.endswith(frame):
                    seen += client.recv(4096)
                arrived.release()


def test_payload_isolation_a_header_never_reaches_the_scanner() -> None:
    scanner = SlowScanner()
    scanner.go.set()
    records, demuxer = RecordedStream(), StreamDemuxer("multiplexed")
    payload = b"ada.winter" + b"@" * 54  # 64 bytes: the header's last byte is an @ too
    with ThreadPoolExecutor(2) as executor:
        stream = stream_scanner(executor, records, scanner)
        for _ in range(3):
            stream.offer(demuxer, stdcopy_frame(1, payload) + stdcopy_frame(2, b"@example.org\n"))
        stream.close((demuxer,), "end")
        wait_for(lambda: records.closed, "stream_close")
    assert b"".join(scanner.blocks).replace(b"@example.org\n", b"") == payload * 3
    assert records.closed[0]["frames"] == 6


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
