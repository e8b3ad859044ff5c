"""Stand-ins for a stream's records and for a scanner, and the texts that tests of streams share."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _dockeraudit.scanning import QUICK_SCAN, ScanBudget, StreamScanner
from patterns import DEFAULT_SCANNER

AWS = "AK" + "IA" + "IOSFODNN7EXAMPLE"
SECRET = f"key={AWS} end\n".encode()
STAMP = b"2026-01-02T03:04:05.678901234Z "  # what timestamps=1 puts before a line
KEY_LINES = (
    [b"-----BEGIN RSA " + b"PRIVATE KEY-----"]
    + [bytes([65 + i % 26]) * 64 for i in range(10)]
    + [b"QQ==", b"-----END RSA " + b"PRIVATE KEY-----"]
)
KEY = b"\n".join(KEY_LINES) + b"\n"


def chunked(parts: Sequence[bytes]) -> bytes:
    """A chunked body, one chunk a part."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def joined(pieces: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """The texts of which these are pieces; empty ones are left out."""
    texts: dict[str, bytes] = {}
    for name, data in pieces:
        texts[name] = texts.get(name, b"") + data
    return {name: text for name, text in texts.items() if text}


class RecordedStream:
    """Stands in for a stream's records: keeps what a scanner reports, with all its updates."""

    number = 1

    def __init__(self) -> None:
        self.findings: list[dict[str, Any]] = []
        self.updates = 0
        self.gaps: list[int] = []
        self.errors: list[str] = []
        self.closed: list[dict[str, Any]] = []
        self.frames = 0

    def finding(
        self,
        stream_type: str,
        rule: Any,
        match: bytes,
        secret: Any,
        line: int,
        partial: bool = False,
        placeholder: bool = False,
        env: Any = None,
    ) -> Any:
        found = {
            "type": stream_type,
            "rule": rule.name,
            "id": rule.id,
            "severity": rule.severity,
            "match": match,
            "secret": secret,
            "line": line,
            "partial": partial,
            "placeholder": placeholder,
            "env": env,
        }
        self.findings.append(found)
        return found

    def update(
        self,
        handle: Any,
        rule: Any,
        match: bytes,
        secret: Any,
        lines: int,
        complete: bool,
        env: Any = None,
    ) -> None:
        self.updates += 1
        if env:
            handle.update(env=env)
        handle.update(secret=secret, lines=lines, complete=complete)
        if rule:
            handle.update(rule=rule.name, id=rule.id, severity=rule.severity)
        if complete:
            handle["match"] = match

    @property
    def settled(self) -> list[dict[str, Any]]:
        """The findings as their updates left them, without those that turned out to be none."""
        return [found for found in self.findings if found.get("complete", True)]

    def progress(self, nbytes: int, frames: int) -> None:
        self.frames += frames

    def gap(self, nbytes: int, since: float) -> None:
        self.gaps.append(nbytes)

    def error(self, text: str) -> None:
        self.errors.append(text)

    def close(self, **fields: Any) -> None:
        self.closed.append(fields)

    def named(self, *names: Any) -> None:
        pass


class PlainScanner:
    """A scanner without rules that look a line on."""

    def undecided(self, block: bytes) -> int:
        return len(block)

    def scan_lines(self, block: bytes) -> list[Any]:
        return []


class SlowScanner(PlainScanner):
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


def stream_scanner(
    executor: ThreadPoolExecutor, records: RecordedStream, scanner: Any = None, **options: Any
) -> StreamScanner:
    """The scanner of one stream, whose client and disk are well."""
    budget = options.pop("budget", ScanBudget())
    options = {"abandoned": lambda: False, "on_error": lambda: None, **options}
    return StreamScanner(executor, budget, scanner or DEFAULT_SCANNER, records, **options)
