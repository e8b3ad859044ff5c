"""For tests of the audit log's rooms: disks and clocks that a test controls, and records read back.

conftest.py names this file as a plugin, so every test can use the fixtures.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from _dockeraudit import auditlog, logfile, logsync
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.verify import verify_files
from conftest import wait_for

KEY = bytes(range(32))
CLIENT = {"listener": "unix:///run/x.sock", "uid": 0, "gid": 0, "pid": 7, "command": "docker"}
AWS = types.SimpleNamespace(id="aws-access-key", name="AWS Access Key", severity="HIGH")
EMAIL = types.SimpleNamespace(id="email-address", name="Email Address", severity="LOW")
FULL_ID = "ab" * 32
ENDED = {"framing": "framed", "nbytes": 1, "frames": 1, "lines": 1, "unscanned": 0, "reason": "end"}


class Disk:
    """A write function that fails when a test says so.

    With `error` set it raises that; with `room` set it takes so many bytes and is full then; while
    `free` is not set it hangs.
    """

    def __init__(self) -> None:
        self.error: int | str | None = None
        self.sizes: list[int] = []  # of all writes
        self.free = threading.Event()
        self.free.set()
        self.waiting = threading.Event()
        self._lock = threading.Lock()
        self._room: int | None = None

    @property
    def writes(self) -> int:
        return len(self.sizes)

    @property
    def room(self) -> int | None:
        return self._room

    @room.setter
    def room(self, size: int | None) -> None:
        with self._lock:
            self._room = size

    def write(self, fd: int, data: bytes) -> int:
        self.sizes.append(len(data))
        if not self.free.is_set():
            self.waiting.set()
            self.free.wait()
        if self.error == "memory":
            raise MemoryError
        with self._lock:
            error = self.error or (errno.ENOSPC if self._room == 0 else None)
            if error:
                raise OSError(error, os.strerror(int(error)))
            done = os.write(fd, data[: self._room])
            if self._room is not None:
                self._room -= done
        return done


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def said() -> list[str]:
    """What logs say on standard error."""
    return []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes a second takes a moment."""
    monkeypatch.setattr(auditlog, "RETRY_PERIOD", 0.02)
    monkeypatch.setattr(auditlog, "TICK", 0.01)
    monkeypatch.setattr(logfile, "RENAME_GRACE", 0.05)
    monkeypatch.setattr(logsync, "SYNC_PERIOD", 0.05)


@pytest.fixture
def new_log(
    folder: Path, disk: Disk, said: list[str], quick: None
) -> Iterator[Callable[..., AuditLog]]:
    """A function that opens logs at audit.log; after the test all are closed."""
    logs: list[AuditLog] = []

    def new(path: str | None = None, **options: Any) -> AuditLog:
        options = {
            "write": disk.write,
            "diagnose": lambda level, text: said.append(text),
            **options,
        }
        log = AuditLog(path or str(folder / "audit.log"), KEY, **options)
        logs.append(log)
        log.open(version="x", pid=1, listen=["a"], upstream="b", rules=6)
        return log

    yield new
    disk.error = disk.room = None
    disk.free.set()
    for log in logs:
        log.close("end", 10)
        wait_for(lambda log=log: log._worker is None or log._worker.done(), "the worker")


def records(path: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The records of a file, of one event if it is given."""
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [record for record in found if event in (None, record["event"])]


def written(log: AuditLog, count: int) -> None:
    """Wait until the log has written so many records."""
    wait_for(lambda: log.counters()["written"] >= count, f"{count} records")


def problems(*paths: Path) -> list[str]:
    """What `verify` says of files."""
    return [item["problem"] for item in verify_files([str(path) for path in paths]).problems]


def find(
    stream: StreamRecords, secret: bytes | None = b"value", rule: Any = AWS, **options: Any
) -> Any:
    """Report a match of this secret."""
    match = b"key=" + (secret or b"value") + b";"
    return stream.finding("stdout", rule, match, secret, 1, **options)


def matches_told(found: list[dict[str, Any]]) -> int:
    """Σcount + Σsuppressed + Σgap.matches of records."""
    return sum(
        record["count"]
        if record["event"] == "finding"
        else sum(record["counts"].values())
        if record["event"] == "suppressed" and "stream" in record
        else record.get("matches", 0)
        for record in found
    )
