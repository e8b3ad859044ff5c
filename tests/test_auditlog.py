"""Tests of auditlog.py, in the order of its sections: each promise with its fault injected. `e2e/test_faults.py` has the real ones."""

from __future__ import annotations

import errno
import gzip
import hashlib
import hmac
import io
import itertools
import json
import os
import random
import re
import stat
import subprocess
import sys
import threading
import time
import types

import pytest

from _dockeraudit import auditlog, logfile, streamrecords
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.errors import AuditLogError
from _dockeraudit.logfile import last_line, load_fingerprint_key, write_key
from _dockeraudit.records import Fingerprinter, Record, encode_record, line_hash, redact_bytes
from _dockeraudit.verify import Verification, run_verify, verify_files
from conftest import PROGRAM, wait_for

KEY = bytes(range(32))
CLIENT = {"listener": "unix:///run/x.sock", "uid": 0, "gid": 0, "pid": 7, "command": "docker"}
AWS = types.SimpleNamespace(id="aws-access-key", name="AWS Access Key", severity="HIGH")
FULL_ID = "ab" * 32


class Disk:
    """A write function that fails when told to: with `error`, when `room` bytes have been written, or not until `free`."""

    def __init__(self):
        self.error = None
        self.writes = 0
        self.free = threading.Event()
        self.free.set()
        self.waiting = threading.Event()
        self._lock = threading.Lock()
        self._room = None

    @property
    def room(self):
        return self._room

    @room.setter
    def room(self, size):
        with self._lock:
            self._room = size

    def write(self, fd, data):
        self.writes += 1
        if not self.free.is_set():
            self.waiting.set()
            self.free.wait()
        if self.error == "memory":
            raise MemoryError
        with self._lock:
            error = self.error or (errno.ENOSPC if self._room == 0 else None)
            if error:
                raise OSError(error, os.strerror(error))
            done = os.write(fd, data[: self._room])
            if self._room is not None:
                self._room -= done
        return done


class Clock:
    """A clock that a test sets."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def said():
    return []


@pytest.fixture
def quick(monkeypatch):
    """What takes a second takes a moment."""
    monkeypatch.setattr(auditlog, "RETRY_PERIOD", 0.02)
    monkeypatch.setattr(auditlog, "TICK", 0.01)
    monkeypatch.setattr(logfile, "RENAME_GRACE", 0.05)
    monkeypatch.setattr(auditlog, "SYNC_PERIOD", 0.05)


@pytest.fixture
def new_log(folder, disk, said, quick):
    """Open logs at audit.log; all are closed after the test, and the disk is well again then."""
    logs = []

    def new(path=None, **options):
        log = AuditLog(
            path or str(folder / "audit.log"),
            KEY,
            **{"write": disk.write, "diagnose": lambda level, text: said.append(text), **options},
        )
        logs.append(log)
        log.open(version="x", pid=1, listen=["a"], upstream="b", rules=6)
        return log

    yield new
    disk.error = disk.room = None
    disk.free.set()
    for log in logs:
        log.close("end", 10)
        wait_for(lambda log=log: log._worker is None or log._worker.done(), "the worker")


def records(path, event=None):
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [record for record in found if event in (None, record["event"])]


def written(log, count):
    wait_for(lambda: log.counters()["written"] >= count, f"{count} records")


def problems(*paths):
    return [item["problem"] for item in verify_files([str(path) for path in paths]).problems]


def find(stream, secret=b"value", rule=AWS, **options):
    return stream.finding("stdout", rule, b"key=" + secret + b";", secret, 1, **options)


def matches_told(found):
    """Σcount + Σsuppressed + Σgap.matches of records."""
    counts = sum(record["count"] for record in found if record["event"] == "finding")
    suppressed = sum(
        sum(record["counts"].values()) for record in found if record["event"] == "suppressed"
    )
    return (
        counts + suppressed + sum(record["matches"] for record in found if record["event"] == "gap")
    )


# =====================================================================================================================
# records
# =====================================================================================================================

HEAD = ["timestamp", "event", "run", "seq", "prev"]
FIELDS = {
    "start": "version pid listen upstream rules key",
    "stream_open": "stream endpoint container_id container_name client follow audited",
    "finding": "container_id container_name stream_type pattern redacted_match severity rule fingerprint count endpoint client stream line",
    "finding_update": "finding fingerprint redacted_match lines complete",
    "suppressed": "stream counts",
    "scan_gap": "stream bytes since",
    "scan_error": "stream error",
    "stream_close": "stream endpoint container_id container_name client follow audited framing bytes frames lines findings unscanned reason seconds",
    "gap": "records matches first_seq last_seq errno since",
    "stats": "written lost streams bytes frames findings queued_max unscanned",
    "rotated": "inode size",
    "recreated": "inode",
    "truncated": "size_before",
    "recovered": "offset",
    "stop": "written lost reason seconds",
}


def test_each_event_has_its_fields_in_order(new_log, folder, disk, monkeypatch):
    monkeypatch.setattr(streamrecords, "BUDGET_BURST", 2)
    monkeypatch.setattr(auditlog, "STATS_PERIOD", 0.0)
    path = folder / "audit.log"
    path.write_bytes(b"torn")
    log = new_log(queue_limit=20)
    stream = log.open_stream("logs", "web", CLIENT, True, True)
    stream.named(FULL_ID, "web")
    find(stream)
    stream.update(find(stream, b"part", partial=True), b"partial", b"key=partial", 1, True)
    find(stream, b"third")
    stream.gap(10, 0.0)
    stream.error("ValueError")
    written(log, 9)
    lines = b""
    changes = {
        "rotated": lambda: path.rename(folder / "1"),
        "recreated": path.unlink,
        "truncated": lambda: os.truncate(path, 0),
    }
    for event, change in changes.items():
        lines += path.read_bytes()
        change()
        log.reopen()
        wait_for(lambda event=event: path.exists() and records(path, event), event)
    stream.close(framing="framed", nbytes=1, frames=1, lines=1, unscanned=10, reason="end")
    disk.error = errno.EIO
    for number in range(30):
        log.accept("request", {"number": number})
    disk.error = None
    log.close("SIGTERM", 10)
    lines += path.read_bytes()
    names = {
        json.loads(line)["event"]: list(json.loads(line))
        for line in lines.splitlines()
        if line.startswith(b"{")
    }
    for event, fields in FIELDS.items():
        expected = HEAD + fields.split()
        assert [name for name in names[event] if name != "partial"] == expected, event


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "x" * 5000},
        {"path": "\x01" * 2000, "other": "kept"},
        {"path": "é" * 5000},
        {"path": "\udcff" * 5000},
        {"client": {"listener": "l" * 5000, "uid": 0}, "stream": 1},
        {
            "client": {"listener": "l" * 3000, "command": "c" * 3000},
            "deep": {"a": {"b": {"c": "d" * 9000}}},
        },
        {"listen": [f"tcp://127.0.0.1:{port}" for port in range(1000)]},
        {"counts": {f"a pattern number {number}": number for number in range(180)}},
        {"n" * 5000: 1},
        {f"a longer name {number}": number for number in range(180)},
        {"path": "x" * (1 << 20)},
    ],
    ids=lambda fields: next(iter(fields))[:10],
)
def test_a_longer_record_is_shortened_to_4096_bytes_and_says_so(fields):
    line = encode_record(Record(0.0, "request", fields), "0" * 8, 1, "0" * 16)
    assert len(line) <= 4096 and line.count(b"\n") == 1
    record = json.loads(line)
    assert record["truncated"] is True and list(record)[:5] == HEAD
    for name in ("other", "stream"):
        assert record.get(name) == fields.get(name)


def test_a_record_of_exactly_4096_bytes_is_whole():
    size = len(encode_record(Record(0.0, "request", {"path": ""}), "0" * 8, 1, "0" * 16))
    for length, truncated in ((4096, False), (4097, True)):
        line = encode_record(
            Record(0.0, "request", {"path": "x" * (length - size)}), "0" * 8, 1, "0" * 16
        )
        assert len(line) <= 4096 and ("truncated" in json.loads(line)) is truncated


@pytest.mark.parametrize(
    "match, expected",
    [
        (b"AK" + b"IA" + b"IOSFODNN7EXAMPLE", "AK***LE"),
        (b"", "***"),
        (b"123456", "***"),
        (b"1234567", "12***67"),
        ("ααααααα".encode(), "αα***αα"),
        (b"\xff\xfe1234\xff", "\ufffd\ufffd***4\ufffd"),
        (b'"\n34567\x00', '"\n***7\x00'),
    ],
)
def test_redaction_shows_four_characters_at_most(match, expected):
    assert redact_bytes(match) == expected


def test_fingerprints_are_hmac_sha_256():
    rng = random.Random(5)
    for length in [0, 1, 31, 32, 63, 64, 65, 200]:
        key = bytes(rng.randrange(256) for _ in range(length))
        maker = Fingerprinter(key)
        for size in (0, 1, 20, 64, 1000):
            secret = bytes(rng.randrange(256) for _ in range(size))
            assert maker.of(secret) == hmac.new(key, secret, "sha256").hexdigest()[:16]
        assert maker.key_id == hashlib.sha256(key).hexdigest()[:8]


def test_the_key_is_made_once_and_private(folder):
    path = str(folder / ".audit.log.key")
    keys = []
    threads = [
        threading.Thread(target=lambda: keys.append(load_fingerprint_key(path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1 and len(keys[0]) == 32
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and os.listdir(folder) == [".audit.log.key"]
    assert len(load_fingerprint_key(None)) == 32


def test_a_crash_while_the_key_is_made_does_not_stop_the_next_start(folder):
    path = str(folder / "key")
    (folder / f"key.{os.getpid()}").write_bytes(b"left over")
    assert len(load_fingerprint_key(path)) == 32


def test_a_key_is_read_where_nothing_can_be_written(folder, monkeypatch) -> None:
    """A mounted secret, or /etc for a service that is not root: a shared key lies where it cannot be made."""
    path = folder / "shared.key"
    path.write_bytes(b"k" * 32)
    monkeypatch.setattr(logfile.os, "open", lambda *arguments: pytest.fail("it was to be written"))
    assert load_fingerprint_key(str(path)) == b"k" * 32


def test_a_wrong_key_is_refused(folder):
    (folder / "key").write_bytes(b"short")
    for path in ("key", "no/such/folder/key"):
        with pytest.raises(AuditLogError) as caught:
            load_fingerprint_key(str(folder / path))
        assert caught.value.status == 78


# =====================================================================================================================
# counting
# =====================================================================================================================


def test_repeats_are_counted_and_written_at_most_once_a_minute(new_log, folder):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    for _ in range(5):
        find(stream)
    written(log, 3)
    log.tick()
    monotonic.now += 59
    find(stream)
    log.tick()
    assert len(records(folder / "audit.log", "finding")) == 1
    monotonic.now += 1
    log.tick()
    written(log, 4)
    find(stream)
    find(stream, b"other")
    stream.close(framing="framed", nbytes=1, frames=1, lines=1, unscanned=0, reason="end")
    log.close("end", 10)
    assert [record["count"] for record in records(folder / "audit.log", "finding")] == [1, 5, 1, 1]
    assert records(folder / "audit.log", "stream_close")[0]["findings"] == 8


def test_an_unknown_end_is_never_merged_and_an_allowed_secret_is_no_match(new_log, folder):
    log = new_log(allow=[Fingerprinter(KEY).of(b"fine")])
    stream = log.open_stream("logs", "web", CLIENT, False, True)
    assert stream.finding("stdout", AWS, b"match", None, 1) is not stream.finding(
        "stdout", AWS, b"match", None, 1
    )
    assert find(stream, b"fine") is None
    log.close("end", 10)
    assert [record["fingerprint"] for record in records(folder / "audit.log", "finding")] == [
        None,
        None,
    ]
    assert log.counters()["findings"] == {("AWS Access Key", "HIGH"): 2}


def test_a_container_cannot_buy_volume_and_nothing_is_uncounted(new_log, folder, monkeypatch):
    monkeypatch.setattr(streamrecords, "BUDGET_BURST", 10)
    log = new_log(monotonic=Clock())
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    for number in range(3000):
        rule = types.SimpleNamespace(
            id=f"r{number % 300}",
            name=f"A pattern with quite a long name, number {number % 300}",
            severity="LOW",
        )
        find(stream, b"%d" % number, rule)
        find(stream, b"%d" % (number % 5), AWS)
    log.close("end", 10)
    path = folder / "audit.log"
    assert len(records(path, "finding")) == 10
    assert len(records(path, "suppressed")) > 1 and not any(
        "truncated" in record for record in records(path)
    )
    assert matches_told(records(path)) == 6000
    assert not problems(path)


def test_the_budget_belongs_to_the_container_under_whatever_name_it_was_asked_for(
    new_log, folder, monkeypatch
):
    monkeypatch.setattr(streamrecords, "BUDGET_BURST", 10)
    log = new_log(monotonic=Clock())
    for name in ("web", FULL_ID[:12], FULL_ID[:13], FULL_ID):
        stream = log.open_stream("logs", name, CLIENT, False, True)
        for number in range(8):
            find(stream, b"%d" % number)
        stream.named(FULL_ID, "web")
        for number in range(8):
            find(stream, b"later %d" % number)
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert matches_told(found) == 64
    first = [record for record in found if record["event"] == "finding" and record["stream"] == 1]
    assert (
        len(first) == 10
    )  # 8 under its name, 2 more; then each new spelling of the name buys no more than itself
    assert len(records(folder / "audit.log", "finding")) == 10 + 8 + 8 + 0


def test_a_budget_refills_with_time(new_log, folder, monkeypatch):
    monkeypatch.setattr(streamrecords, "BUDGET_BURST", 100)
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    stream = log.open_stream("logs", "web", CLIENT, False, True)
    for second in range(3):
        for number in range(200):
            find(stream, b"%d.%d" % (second, number))
        monotonic.now += 0.25
    log.close("end", 10)
    assert len(records(folder / "audit.log", "finding")) == 100 + 25 + 25


def test_an_evicted_finding_leaves_its_repeats_in_suppressed(new_log, folder, monkeypatch):
    monkeypatch.setattr(auditlog, "KNOWN_FINDINGS", 3)
    log = new_log()
    stream = log.open_stream("logs", "web", CLIENT, False, True)
    for number in (0, 0, 0, 1, 2, 3, 0, 3):
        find(stream, b"%d" % number)
    stream.close(framing="framed", nbytes=1, frames=1, lines=1, unscanned=0, reason="end")
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert [record["counts"] for record in found if record["event"] == "suppressed"] == [
        {"AWS Access Key": 2}
    ]
    assert matches_told(found) == 8 and not log.known


def test_records_wait_for_the_name_but_not_for_long(new_log, folder):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    named, silent, failed = (
        log.open_stream("logs", name, CLIENT, False, True) for name in ("a", "b", "c")
    )
    for stream in (named, silent, failed):
        find(stream)
    named.named(FULL_ID, "web")
    failed.named(None, None)
    written(log, 5)
    assert len(records(folder / "audit.log", "finding")) == 2
    monotonic.now += 1.0
    log.tick()
    written(log, 7)
    silent.named("cd" * 32, "late")
    silent.close(framing="framed", nbytes=1, frames=1, lines=1, unscanned=0, reason="end")
    log.close("end", 10)
    assert [
        (record["container_id"], record["container_name"])
        for record in records(folder / "audit.log", "finding")
    ] == [(FULL_ID, "web"), ("c", None), ("b", None)]
    assert records(folder / "audit.log", "stream_close")[0]["container_name"] == "late"


@pytest.mark.parametrize("seed", range(4))
def test_the_sum_of_counts_is_exact_whatever_happens(new_log, folder, disk, monkeypatch, seed):
    monkeypatch.setattr(streamrecords, "BUDGET_BURST", 60)
    monkeypatch.setattr(streamrecords, "REPEAT_PERIOD", 0.02)
    monkeypatch.setattr(auditlog, "REPEAT_PERIOD", 0.02)
    monkeypatch.setattr(auditlog, "KNOWN_FINDINGS", 20)
    monkeypatch.setattr(auditlog, "NAME_WAIT", 0.05)
    log = new_log(queue_limit=50)
    told = [0] * 4

    def feed(number):
        rng = random.Random(seed * 10 + number)
        for _round in range(4):
            stream = log.open_stream("logs", f"c{number % 2}", CLIENT, False, True)
            for _ in range(rng.randrange(200)):
                find(stream, b"%d" % int(rng.expovariate(0.2)))
                told[number] += 1
                if rng.random() < 0.01:
                    stream.named(f"{number % 2}" * 64, "x")
                    time.sleep(0.001)
            if rng.random() < 0.8:
                stream.close(
                    framing="framed", nbytes=1, frames=1, lines=1, unscanned=0, reason="end"
                )

    def shake():
        rng = random.Random(seed)
        for _ in range(8):
            disk.error = rng.choice([None, errno.ENOSPC, errno.EIO])
            disk.room = rng.choice([None, None, rng.randrange(2000)])
            time.sleep(0.01)
        disk.error = disk.room = None

    threads = [threading.Thread(target=feed, args=(number,)) for number in range(4)] + [
        threading.Thread(target=shake)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert matches_told(found) == sum(told)
    gaps = [record for record in found if record["event"] == "gap"]
    assert found[-1]["event"] == "stop" and found[-1]["lost"] == sum(
        record["records"] for record in gaps
    )
    assert found[-1]["seq"] == len(found) + found[-1]["lost"]
    assert all("were lost" in problem for problem in problems(folder / "audit.log"))


# =====================================================================================================================
# the file
# =====================================================================================================================


@pytest.mark.parametrize(
    "error",
    [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG, "memory"],
)
def test_a_failing_disk_holds_records_and_says_so_once_a_change(new_log, folder, disk, said, error):
    log = new_log()
    written(log, 1)
    assert not log.failed()
    disk.error = error
    for number in range(100):
        log.accept("request", {"number": number})
    wait_for(lambda: disk.writes > 5, "several attempts")
    assert log.failed() and log.counters()["degraded"]
    disk.error = None
    written(log, 101)
    assert not log.failed()
    assert log.close("end", 10) == 0
    assert [record["number"] for record in records(folder / "audit.log", "request")] == list(
        range(100)
    )
    assert [
        len(re.findall("cannot be written: ", text))
        + 2 * len(re.findall("can be written again", text))
        for text in said[:2]
    ] == [1, 2]
    assert len(said) == 3 and not problems(folder / "audit.log")


def test_the_nth_write_fails_or_is_short_and_no_line_is_torn(new_log, folder, disk):
    log = new_log()
    written(log, 1)
    for number in range(20):
        disk.room = number * 9
        log.accept("request", {"number": number, "path": "x" * 50})
        wait_for(lambda: log.failed() or log.counters()["written"] == number + 2, "the write")
        if log.failed():
            assert (folder / "audit.log").read_bytes().endswith(b"}\n")
        disk.room = None
        written(log, number + 2)
    log.close("end", 10)
    assert [record["number"] for record in records(folder / "audit.log", "request")] == list(
        range(20)
    )
    assert not problems(folder / "audit.log")


def test_a_torn_line_that_cannot_be_taken_back_is_isolated(new_log, folder, disk, monkeypatch):
    log = new_log()
    written(log, 1)

    def refuse(*_):
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        disk.room = 30
        log.accept("request", {"number": 1})
        wait_for(log.failed, "the failure")
    disk.room = None
    written(log, 2)
    log.accept("request", {"number": 2})
    log.close("end", 10)
    lines = (folder / "audit.log").read_bytes().split(b"\n")
    assert len(lines[1]) == 30 and [json.loads(line)["event"] for line in lines[2:-1]] == [
        "request",
        "request",
        "stop",
    ]
    assert problems(folder / "audit.log") == [
        "the line is not a record (a torn one ends like this)"
    ]


def test_a_failing_sync_is_checked_tried_again_and_told(new_log, said, disk):
    broken = threading.Event()
    broken.set()

    def fdatasync(fd):
        if broken.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(fd)

    told = []
    log = new_log(fdatasync=fdatasync)
    log.add_failure_listener(told.append)
    wait_for(lambda: told == [True], "the failure")
    broken.clear()
    wait_for(lambda: told == [True, False], "the end of it, although nothing new is written")
    assert [("cannot be synced" in text, "can be synced again" in text) for text in said] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    "mode, syncs", [("always", range(5, 20)), ("interval", range(1, 20)), ("never", range(1))]
)
def test_fsync_modes(new_log, mode, syncs):
    calls = []
    log = new_log(fsync=mode, fdatasync=calls.append)
    for number in range(3):
        log.accept("request", {"number": number})
    log.close("end", 10)
    assert len(calls) in syncs


def test_a_hung_disk_delays_nobody_and_memory_stays_bounded(
    new_log, folder, disk, said, monkeypatch
):
    monkeypatch.setattr(auditlog, "STUCK_WRITE", 0.02)
    told = []
    log = new_log(queue_limit=50)
    log.add_failure_listener(told.append)
    written(log, 1)
    disk.free.clear()
    log.accept("request", {"number": -1})
    assert disk.waiting.wait(10)
    began = time.monotonic()
    for number in range(2000):
        log.accept("request", {"number": number})
    assert time.monotonic() - began < 5 and len(log._queue) <= 51
    wait_for(lambda: told == [True], "deny mode to be told")
    assert log.counters()["degraded"]
    disk.free.set()
    wait_for(lambda: told == [True, False], "and again")
    log.close("end", 10)
    (gap,) = records(folder / "audit.log", "gap")
    assert gap["records"] == 1951 and gap["errno"] is None
    assert len(records(folder / "audit.log", "request")) + gap["records"] == 2001


def test_closing_with_a_hung_disk_ends_in_time_with_74(new_log, disk, said):
    log = new_log()
    written(log, 1)
    disk.free.clear()
    log.accept("request", {})
    assert disk.waiting.wait(10)
    began = time.monotonic()
    assert log.close("SIGTERM", 0.2) == 74
    assert time.monotonic() - began < 5
    assert "1 records and the stop may be lost" in said[-1]


def test_closing_with_a_full_disk_tries_until_the_time_is_up(new_log, disk, folder):
    log = new_log()
    written(log, 1)
    disk.error = errno.ENOSPC
    log.accept("request", {})
    wait_for(log.failed, "the failure")
    assert log.close("SIGTERM", 0.1) == 74
    wait_for(lambda: log._worker.done(), "the worker, which gives the lock up")
    disk.error = None
    again = new_log()
    again.close("end", 10)
    assert [record["event"] for record in records(folder / "audit.log")] == [
        "start",
        "start",
        "stop",
    ]


def test_closing_writes_what_a_full_disk_held_once_there_is_room(new_log, disk, folder):
    log = new_log()
    written(log, 1)
    disk.error = errno.ENOSPC
    log.accept("request", {})
    wait_for(log.failed, "the failure")
    threading.Timer(0.05, lambda: setattr(disk, "error", None)).start()
    assert log.close("SIGTERM", 10) == 0
    assert [record["event"] for record in records(folder / "audit.log")] == [
        "start",
        "request",
        "stop",
    ]


def test_a_rename_without_a_new_file_is_followed_after_a_moment(new_log, folder):
    monotonic, path = Clock(), folder / "audit.log"
    log = new_log(monotonic=monotonic)
    written(log, 1)
    path.rename(folder / "1")
    log.accept("request", {"number": 1})
    written(log, 2)
    assert not path.exists()  # logrotate's own `create` would clash with it
    monotonic.now += 1.0
    log.accept("request", {"number": 2})
    log.close("end", 10)
    assert [record["event"] for record in records(folder / "1")] == ["start", "request"]
    assert [record["event"] for record in records(path)] == ["rotated", "request", "stop"]
    assert not problems(path, folder / "1") and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_rename_is_noticed_although_nothing_is_written(new_log, folder, monkeypatch):
    monkeypatch.setattr(auditlog, "LOOK_PERIOD", 0.02)
    log = new_log()
    written(log, 1)
    (folder / "audit.log").rename(folder / "1")
    wait_for(lambda: (folder / "audit.log").exists(), "the new file")
    log.close("end", 10)
    assert not problems(folder / "1", folder / "audit.log")


def test_rename_and_create_loses_and_doubles_nothing(new_log, folder):
    log = new_log(queue_limit=100_000)
    path = folder / "audit.log"

    def feed():
        for number in range(1500):
            log.accept("request", {"number": number})
            if not number % 50:
                time.sleep(0.002)

    threads = [threading.Thread(target=feed) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        path.rename(folder / f"audit.log.{number}")
        path.touch()
        if number % 2:
            log.reopen()
        wait_for(
            lambda: path.stat().st_size or not any(thread.is_alive() for thread in threads),
            "the switch",
        )
    for thread in threads:
        thread.join()
    log.close("end", 10)
    files = [path, *(folder / f"audit.log.{number}" for number in range(20))]
    assert sorted(
        record["number"] for file in files for record in records(file, "request")
    ) == sorted(list(range(1500)) * 3)
    assert not problems(*files)


def test_the_rotated_file_is_synced_too(new_log, folder):
    synced = []
    log = new_log(fdatasync=lambda fd: synced.append(os.fstat(fd).st_ino), monotonic=Clock())
    written(log, 1)
    inode = (folder / "audit.log").stat().st_ino
    (folder / "audit.log").rename(folder / "1")
    log.reopen()
    wait_for(lambda: inode in synced, "the old file's sync, with a clock that stands still")
    log.close("end", 10)
    assert not problems(folder / "1", folder / "audit.log")


def test_sighup_forces_a_look(new_log, folder):
    log = new_log(monotonic=Clock())
    written(log, 1)
    (folder / "audit.log").rename(folder / "1")
    log.reopen()
    wait_for(lambda: (folder / "audit.log").exists(), "the new file")
    for _ in range(1000):
        log.reopen()
    log.close("end", 10)
    assert [record["event"] for record in records(folder / "audit.log")] == ["rotated", "stop"]


def test_a_deleted_log_is_made_anew_with_the_next_record(new_log, folder):
    log = new_log()
    written(log, 1)
    (folder / "audit.log").unlink()
    log.accept("request", {})
    log.close("end", 10)
    assert [record["event"] for record in records(folder / "audit.log")] == [
        "recreated",
        "request",
        "stop",
    ]


def test_a_deleted_directory_is_made_anew_with_lock_and_key(new_log, folder):
    home = folder / "logs"
    key_path = str(home / ".audit.log.key")
    home.mkdir()
    write_key(key_path, KEY)
    log = new_log(str(home / "audit.log"), key_path=key_path, monotonic=Clock())
    written(log, 1)
    for name in os.listdir(home):
        (home / name).unlink()
    home.rmdir()
    log.accept("request", {})
    written(log, 3)
    assert (home / ".audit.log.key").read_bytes() == KEY
    with pytest.raises(AuditLogError) as caught:
        AuditLog(str(home / "audit.log"), KEY).open()
    assert caught.value.status == 75
    log.close("end", 10)
    assert [record["event"] for record in records(home / "audit.log")] == [
        "recreated",
        "request",
        "stop",
    ]


def test_two_processes_never_write_one_log_even_after_its_directory_was_replaced(new_log, folder):
    home = folder / "logs"
    home.mkdir()
    first = new_log(str(home / "audit.log"), monotonic=Clock())
    written(first, 1)
    home.rename(folder / "old")
    home.mkdir()
    second = new_log(str(home / "audit.log"))
    first.accept("request", {"who": 1})
    wait_for(first.failed, "the first to stand back")
    second.close("end", 10)
    wait_for(lambda: not first.failed(), "the first to take over")
    first.close("end", 10)
    assert [record["event"] for record in records(home / "audit.log")] == [
        "start",
        "stop",
        "rotated",
        "request",
        "stop",
    ]


def test_copytruncate_leaves_no_nuls_and_tells(new_log, folder):
    path = folder / "audit.log"
    log = new_log()
    for number in range(10):
        log.accept("request", {"number": number})
    written(log, 11)
    size = path.stat().st_size
    (folder / "1").write_bytes(path.read_bytes())
    os.truncate(path, 0)
    log.accept("request", {"number": 10})
    log.close("end", 10)
    assert b"\0" not in path.read_bytes()
    assert [record["event"] for record in records(path)] == ["truncated", "request", "stop"]
    assert records(path, "truncated")[0]["size_before"] == size
    assert problems(folder / "1", path) == [
        f"the file was truncated at {size} bytes while it was written"
    ]


def test_what_copytruncate_lost_is_seen(new_log, folder):
    path = folder / "audit.log"
    log = new_log()
    written(log, 1)
    (folder / "1").write_bytes(path.read_bytes())
    log.accept("request", {"number": 1})  # between the copy and the truncation
    written(log, 2)
    os.truncate(path, 0)
    log.close("end", 10)
    assert any("seq 2 to 2 are missing" in problem for problem in problems(folder / "1", path))


def test_a_switch_that_fails_halfway_loses_nothing(new_log, folder, monkeypatch):
    path = folder / "audit.log"
    log = new_log(monotonic=Clock())
    written(log, 1)
    descriptors = len(os.listdir("/proc/self/fd"))
    path.rename(folder / "1")
    path.mkdir()
    log.accept("request", {"number": 1})
    wait_for(log.failed, "the failure")
    path.rmdir()
    path.symlink_to(folder / "2")
    time.sleep(0.1)
    assert log.failed() and not (folder / "2").exists()
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "no")))
        wait_for(path.exists, "an attempt whose directory cannot be synced")
        time.sleep(0.1)
        assert log.failed()
    written(log, 3)
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "no descriptor left behind")
    log.close("end", 10)
    assert [record["event"] for record in records(path)] == ["rotated", "request", "stop"]
    assert not problems(path, folder / "1")


def test_a_rotation_while_the_disk_is_full_is_recorded_once_it_is_not(new_log, folder, disk):
    path = folder / "audit.log"
    log = new_log()
    written(log, 1)
    disk.error = errno.ENOSPC
    log.accept("request", {"number": 1})
    wait_for(log.failed, "the failure")
    path.rename(folder / "1")
    path.touch()
    attempts = disk.writes
    wait_for(lambda: disk.writes > attempts + 2, "attempts after the rotation")
    disk.error = None
    log.close("end", 10)
    assert [record["event"] for record in records(path)] == ["rotated", "request", "stop"]
    assert not problems(path, folder / "1")


def test_a_torn_tail_is_isolated_by_the_next_start(new_log, folder):
    path = folder / "audit.log"
    log = new_log()
    log.accept("request", {"number": 1})
    log.close("end", 10)
    whole = path.read_bytes()
    for cut in [0, 1, *range(60, len(whole) - 1, 61), len(whole) - 1, len(whole)]:
        path.write_bytes(whole[:cut])
        log = new_log(run="b" * 8)
        log.close("end", 10)
        text = path.read_bytes()
        start = (
            text.rindex(b"\n", 0, cut) + 1
            if b"\n" in text[:cut] and not whole[:cut].endswith(b"\n")
            else 0
        )
        torn = bool(cut) and not whole[:cut].endswith(b"\n")
        mine = [json.loads(line) for line in text[cut:].splitlines() if line]
        assert [record["event"] for record in mine] == ["start", "recovered", "stop"][
            :: 1 if torn else 2
        ], cut
        if torn:
            assert mine[1]["offset"] == start
        before = text[:cut].rstrip(b"\n").split(b"\n")[-1]
        assert mine[0]["prev"] == (line_hash(before) if cut else "0" * 16)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
@pytest.mark.parametrize("torn", [True, False])
def test_the_last_line_is_found_in_any_file(folder, size, torn):
    path = folder / "log"
    line = b"x" * size
    path.write_bytes(b"first\n" + line + (b"" if torn else b"\n"))
    if torn and not size:
        line, torn, start = b"first", False, 0
    else:
        start = 6
    assert last_line(str(path)) == (start, line_hash(line), torn)


def test_what_is_no_regular_file_is_refused(folder):
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "read")
    reader = os.open(folder / "read", os.O_RDONLY | os.O_NONBLOCK)
    (folder / "directory").mkdir()
    (folder / "target").touch()
    (folder / "symlink").symlink_to(folder / "target")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "file").touch()
    names = ["fifo", "read", "directory", "symlink", "dangling", "file/audit.log"]
    for path in [*(str(folder / name) for name in names), "/dev/null", "/dev/tty"]:
        log = AuditLog(path, KEY)
        with pytest.raises(AuditLogError) as caught:
            log._file._lock = lambda: None  # nothing is to be left beside a device
            log.open()
        assert (
            caught.value.status == 78
            and path in str(caught.value)
            and "--audit-log" in str(caught.value)
        )
    os.close(reader)
    assert not (folder / "nothing").exists() and (folder / "target").stat().st_size == 0


def test_a_second_process_is_refused_with_75(new_log, folder):
    new_log()
    with pytest.raises(AuditLogError) as caught:
        AuditLog(str(folder / "audit.log"), KEY).open()
    assert caught.value.status == 75 and "another dockeraudit" in str(caught.value)


def test_a_file_system_without_locks_is_not_called_busy(folder, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(logfile.fcntl, "flock", refuse)
    with pytest.raises(AuditLogError) as caught:
        AuditLog(str(folder / "audit.log"), KEY).open()
    assert caught.value.status == 78 and "No locks available" in str(caught.value)


def test_a_forked_child_writes_nothing_and_keeps_nothing(new_log, folder):
    log = new_log()
    written(log, 1)
    files = {os.fstat(fd).st_ino for fd in (log._file._fd, log._file._lock_fd)}
    child = os.fork()
    if not child:
        status = 1
        try:
            log.accept("request", {"who": "child"})
            held = {
                os.fstat(int(fd)).st_ino
                for fd in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{fd}")
            }
            status = 0 if log.close("child", 1) == 0 and not held & files else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    log.accept("request", {"who": "parent"})
    with pytest.raises(AuditLogError):
        AuditLog(str(folder / "audit.log"), KEY).open()
    log.close("end", 10)
    assert [record["who"] for record in records(folder / "audit.log", "request")] == ["parent"]


def test_descriptors_are_not_inherited(new_log, folder):
    log = new_log()
    for fd in (log._file._fd, log._file._lock_fd):
        assert not os.get_inheritable(fd)


# =====================================================================================================================
# standard output
# =====================================================================================================================


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        if fd >= 0:
            os.close(fd)


def drain(fd):
    data = b""
    while True:
        block = os.read(fd, 1 << 16)
        if not block:
            return data
        data += block


def test_a_slow_pipe_is_waited_for_and_keeps_every_line(new_log, pipe):
    log = new_log("-", write=lambda fd, data: os.write(pipe[1], data))
    for number in range(300):
        log.accept("request", {"number": number, "path": "x" * 1000})
    wait_for(lambda: log.counters()["written"] < 300 and log._write_began, "the pipe to be full")
    got = []
    reader = threading.Thread(target=lambda: got.append(drain(pipe[0])))
    reader.start()
    assert log.close("end", 10) == 0
    os.close(pipe[1])
    pipe[1] = -1
    reader.join()
    found = verify_lines(got[0])
    assert [record["number"] for record in found if record["event"] == "request"] == list(
        range(300)
    )


def verify_lines(text):
    verification = Verification()
    verification.join([verification.read("-", io.BytesIO(text))])
    assert verification.sound, verification.problems
    return [json.loads(line) for line in text.splitlines()]


def test_a_non_blocking_pipe_that_takes_half_a_line_gets_the_other_half(new_log, pipe):
    os.set_blocking(pipe[1], False)
    log = new_log("-", write=lambda fd, data: os.write(pipe[1], data[:700]))
    names = []
    for _number in range(200):
        log.accept("request", lambda: {"call": names.append(1) or len(names), "path": "x" * 1000})
    got = []
    reader = threading.Thread(target=lambda: got.append(drain(pipe[0])))
    wait_for(log.failed, "the pipe to be full")
    reader.start()
    assert log.close("end", 10) == 0
    os.close(pipe[1])
    pipe[1] = -1
    reader.join()
    assert len(verify_lines(got[0])) == 202


def test_a_closed_pipe_is_a_failure_that_is_told_and_ends_with_74(new_log, pipe, said):
    log = new_log("-", write=lambda fd, data: os.write(pipe[1], data))
    os.close(pipe[0])
    pipe[0] = -1
    for number in range(10):
        log.accept("request", {"number": number})
    wait_for(log.failed, "the failure")
    log.reopen()
    assert log.close("end", 0.1) == 74
    assert "standard output cannot be written: Broken pipe" in said[0]


# =====================================================================================================================
# the log
# =====================================================================================================================


@pytest.mark.parametrize("limit, count", [(10, 11), (10, 500), (2, 3), (50, 51)])
def test_what_finds_no_room_is_counted_exactly_in_a_gap(new_log, folder, disk, limit, count):
    log = new_log(queue_limit=limit)
    written(log, 1)
    disk.error = errno.ENOSPC
    log.accept("first", {})
    wait_for(log.failed, "the failure")
    for number in range(count):
        log.accept("finding", {"number": number, "count": 2}, matches=2)
    disk.error = None
    wait_for(lambda: not log.failed(), "the disk")
    log.accept("last", {})
    assert log.close("end", 10) == 74
    found = records(folder / "audit.log")
    (gap,) = [record for record in found if record["event"] == "gap"]
    lost = count - (limit - 1)
    assert (gap["records"], gap["matches"], gap["errno"]) == (lost, 2 * lost, "ENOSPC")
    assert (gap["first_seq"], gap["last_seq"], gap["seq"]) == (
        2 + limit,
        1 + limit + lost,
        2 + limit + lost,
    )
    assert [record["event"] for record in found] == [
        "start",
        "first",
        *["finding"] * (limit - 1),
        "gap",
        "last",
        "stop",
    ]
    assert problems(folder / "audit.log") == [
        f"{lost} records were lost (ENOSPC), counted in this gap"
    ]
    assert matches_told(found) == 2 * count


def test_the_gap_stands_right_behind_its_hole_even_when_the_file_is_rotated_there(
    new_log, folder, disk
):
    path = folder / "audit.log"
    log = new_log(queue_limit=2)
    written(log, 1)
    disk.error = errno.ENOSPC
    log.accept("request", {})
    wait_for(log.failed, "the failure")
    for _ in range(9):
        log.accept("request", {})
    real, log._file.notice = log._file.notice, list
    seen = []

    def notice():
        found = real()
        if len(records(path)) == 3 and not seen:
            path.rename(folder / "1")
            path.touch()
            seen.append(1)
        return found + (real() if seen == [1] and not seen.append(2) else [])

    log._file.notice = notice
    disk.error = None
    log.close("end", 10)
    assert [record["event"] for record in records(path)] == ["rotated", "gap", "stop"]
    assert problems(folder / "1", path) == ["8 records were lost (ENOSPC), counted in this gap"]


def test_records_lost_while_a_gap_is_written_are_counted_in_the_next(new_log, folder, disk):
    log = new_log(queue_limit=2)
    wait_for(lambda: not log.held and log.counters()["written"], "the start")
    waiting = log.open_stream("logs", "web", CLIENT, False, True)
    find(waiting)  # two records that wait for a name: the log is full, and its queue is empty
    disk.free.clear()
    log.accept("request", {})
    assert disk.waiting.wait(10)  # the gap is being written
    for _ in range(5):
        log.accept("request", {})
    disk.free.set()
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert [record["records"] for record in found if record["event"] == "gap"] == [1, 5]
    assert found[-1]["seq"] == len(found) + 6 and found[-1]["lost"] == 6


def test_a_record_that_cannot_be_encoded_is_a_gap_of_one(new_log, folder, said):
    log = new_log()
    log.accept("finding", {"bytes": b"not for JSON"}, matches=3)
    log.accept("finding", lambda: {}["missing"], matches=4)
    log.accept("request", {})
    assert log.close("end", 10) == 74
    found = records(folder / "audit.log")
    assert [(record["event"], record["seq"]) for record in found] == [
        ("start", 1),
        ("gap", 3),
        ("gap", 5),
        ("request", 6),
        ("stop", 7),
    ]
    assert matches_told(found) == 7 and not any("not for JSON" in text for text in said)


def test_a_dead_worker_is_a_failure(new_log, said, monkeypatch):
    log = new_log()
    written(log, 1)
    monkeypatch.setattr(log, "_append", lambda record: 1 // 0)
    log.accept("request", {})
    wait_for(log.failed, "the failure")
    assert "by a defect: ZeroDivisionError" in said[-1]
    with pytest.raises(ZeroDivisionError):
        log.close("end", 10)
    log._worker = None


def test_stop_is_last_and_everything_before_it_is_there(new_log, folder):
    log = new_log()
    accepted, over = [0] * 4, threading.Event()

    def feed(number):
        while not over.is_set():
            log.accept("request", {"feeder": number})
            accepted[number] += 1
            time.sleep(0.0002)

    threads = [threading.Thread(target=feed, args=(number,)) for number in range(4)]
    stream = log.open_stream("logs", "web", CLIENT, True, True)
    for thread in threads:
        thread.start()
    for _ in range(100):
        find(stream)
    wait_for(lambda: log.counters()["written"] > 100, "some records")
    log.close("end", 10)
    over.set()
    for thread in threads:
        thread.join()
    found = records(folder / "audit.log")
    assert [record["event"] for record in found].index("stop") == len(found) - 1
    assert matches_told(found) == 100 and not problems(folder / "audit.log")
    assert sum(record["event"] == "request" for record in found) + log.totals["lost"] == sum(
        accepted
    )


def test_clock_steps_disturb_neither_order_nor_timers(new_log, folder, monkeypatch):
    clock, monotonic = Clock(1e9), Clock()
    log = new_log(clock=clock, monotonic=monotonic)
    stream = log.open_stream("logs", "web", CLIENT, True, True)
    stream.named(FULL_ID, "web")
    find(stream)
    for step in (3600.0, -86400.0, 5e8, -1e9):
        clock.now += step
        find(stream)
        log.accept("request", {"step": step})
    written(log, 7)
    log.tick()
    assert len(records(folder / "audit.log", "finding")) == 1
    monotonic.now += 60
    log.tick()
    written(log, 8)
    monotonic.now += 600
    log.tick()
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert [record["seq"] for record in found] == list(range(1, len(found) + 1))
    assert [record["count"] for record in found if record["event"] == "finding"] == [1, 4]
    assert [record["event"] for record in found][-2:] == ["stats", "stop"]
    assert not problems(folder / "audit.log")


def test_the_hash_of_stats_and_stop_is_said_elsewhere(new_log, folder, said):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    monotonic.now += 600
    log.tick()
    log.close("end", 10)
    hashes = [line_hash(line) for line in (folder / "audit.log").read_bytes().splitlines()[1:]]
    assert [re.search("hash ([0-9a-f]{16})$", text)[1] for text in said] == hashes
    for anchor in hashes:
        assert verify_files([str(folder / "audit.log")], [anchor, anchor.upper()]).sound
    assert not verify_files([str(folder / "audit.log")], ["f" * 16]).sound


# =====================================================================================================================
# verify
# =====================================================================================================================


def history(runs=3, size=6):
    """The lines of runs that each stopped, chained, made by the encoder alone."""
    lines, prev = [], "0" * 16
    for run in range(runs):
        for number in range(size):
            event = {0: "start", size - 1: "stop"}.get(number, "finding")
            fields = {"count": 2} if event == "finding" else {}
            line = encode_record(
                Record(1e9 + run * 1000 + number, event, fields), f"{run:08x}", number + 1, prev
            )
            prev = line_hash(line[:-1])
            lines.append(line)
    return lines


def chain(*specs):
    """Lines from (run, seq, event, fields), each with the right prev."""
    lines, prev = [], "0" * 16
    for run, seq, event, fields in specs:
        line = encode_record(Record(1e9 + len(lines), event, fields), run, seq, prev)
        prev = line_hash(line[:-1])
        lines.append(line)
    return lines


def save(folder, *files):
    paths = []
    for number, lines in enumerate(files):
        path = folder / f"log.{number}"
        path.write_bytes(b"".join(lines))
        paths.append(path)
    return paths


def told(*paths, **options):
    out = io.StringIO()
    status = run_verify(
        [str(path) for path in paths], **{"json_output": True, "anchors": [], **options}, out=out
    )
    return status, json.loads(out.getvalue())


@pytest.mark.parametrize(
    "cuts", [(), (1,), (6, 12), (3, 9, 15), (5, 7), (17,), tuple(range(1, 18))], ids=str
)
def test_a_whole_history_is_sound_however_it_was_cut_into_files_and_whatever_their_order(
    folder, cuts
):
    lines = history()
    edges = [0, *cuts, len(lines)]
    paths = save(folder, *(lines[a:b] for a, b in zip(edges, edges[1:])))
    rng = random.Random(1)
    orders = (
        list(itertools.permutations(paths))
        if len(paths) < 5
        else [rng.sample(paths, len(paths)) for _ in range(20)]
    )
    for order in orders:
        status, found = told(*order)
        assert (
            status,
            found["problems"],
            found["totals"]["records"],
            found["totals"]["findings"],
        ) == (0, [], 18, 24), order


def edited(line):
    return line.replace(b'"count": 2', b'"count": 1')


L = history()
GAP = {"records": 3, "matches": 1, "first_seq": 2, "last_seq": 4, "errno": None, "since": "x"}
MUTATIONS = {
    "dropped": ([L[:3] + L[4:]], 4, 5, "its prev is not the hash"),
    "dropped, seq": ([L[:3] + L[4:]], 4, 5, "seq 4 to 4 are missing, without a gap"),
    "doubled": ([L[:4] + L[3:]], 5, 4, "doubled or out of order"),
    "swapped": ([L[:2] + [L[3], L[2]] + L[4:]], 4, 3, "out of order"),
    "edited": ([L[:2] + [edited(L[2])] + L[3:]], 4, 4, "its prev is not the hash"),
    "edited first": (
        [[L[0].replace(b"start", b"stert")] + L[1:]],
        2,
        2,
        "its prev is not the hash",
    ),
    "edited last of a run": (
        [L[:5] + [L[5].replace(b"stop", b"stpp")] + L[6:]],
        7,
        1,
        "its prev is not the hash",
    ),
    "stop removed": ([L[:5] + L[6:]], 6, 1, "has no stop"),
    "torn end": ([L[:-1] + [L[-1][:50]]], 18, None, "the line has no end"),
    "torn inside": ([L[:3] + [L[3][:50] + b"\n"] + L[4:]], 4, None, "the line is not a record"),
    "empty line": ([L[:3] + [b"\n"] + L[3:]], 4, None, "the line is not a record"),
    "NULs": ([L[:3] + [b"\0" * 100 + L[3]] + L[4:]], 4, None, "the line is not a record"),
    "not an object": ([L[:3] + [b"[1]\n"] + L[3:]], 4, None, "the line is not a record"),
    "a strange seq": (
        [L[:3] + [b'{"seq": "4", "run": "x", "prev": "", "event": "e"}\n'] + L[3:]],
        4,
        None,
        "the line is not a record",
    ),
    "over-long": (
        [L[:3] + [b'{"x": "' + b"x" * 4200 + b'"}\n'] + L[3:]],
        4,
        None,
        "longer than 4096",
    ),
    "endless": ([L[:3] + [b"x" * (3 << 20)] + L[3:]], 4, None, "the line has no end"),
    "a file missing": ([L[:5], L[10:]], 1, 5, "lines are missing between the files"),
    "a file missing, seq": ([L[:8], L[10:]], 1, 5, "seq 3 to 4 are missing"),
    "a run's beginning missing": ([L[:6], L[8:]], 1, 3, "begins with seq 3, not 1"),
    "a file twice": ([L[:6], L[:6], L[6:]], 1, 1, "doubled or out of order"),
    "killed": (
        [chain(("a", 1, "start", {}), ("b", 1, "start", {}), ("b", 2, "stop", {}))],
        2,
        1,
        "run a has no stop",
    ),
    "gap": (
        [chain(("a", 1, "start", {}), ("a", 5, "gap", GAP), ("a", 6, "stop", {}))],
        2,
        5,
        "3 records were lost (the queue was full)",
    ),
    "gap of another hole": (
        [chain(("a", 1, "start", {}), ("a", 6, "gap", GAP))],
        2,
        6,
        "names other records than the 4",
    ),
    "gap with other figures": (
        [chain(("a", 1, "start", {}), ("a", 5, "gap", {**GAP, "records": 2}))],
        2,
        5,
        "names other records than the 3",
    ),
    "gap not right behind": (
        [chain(("a", 1, "start", {}), ("a", 5, "request", {}), ("a", 6, "gap", GAP))],
        2,
        5,
        "without a gap",
    ),
    "gap without a hole": (
        [chain(("a", 1, "start", {}), ("a", 2, "gap", GAP))],
        2,
        2,
        "names other records than the 0",
    ),
    "truncated": (
        [chain(("a", 1, "start", {}), ("a", 2, "truncated", {"size_before": 9}))],
        2,
        2,
        "truncated at 9 bytes",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_named_with_file_line_and_seq(folder, name):
    files, line, seq, text = MUTATIONS[name]
    paths = save(folder, *files)
    for order in itertools.permutations(paths):
        status, found = told(*order)
        assert status == 1 and found["sound"] is False
        assert any(
            item["line"] == line and item["seq"] == seq and text in item["problem"]
            for item in found["problems"]
        ), found["problems"]
        assert all(item["file"] in [str(path) for path in paths] for item in found["problems"])


@pytest.mark.parametrize("seed", range(3))
def test_no_changed_byte_goes_unseen_before_the_last_line(folder, seed):
    rng = random.Random(seed)
    text = b"".join(L)
    last = len(text) - len(L[-1])
    for _ in range(60):
        position = rng.randrange(last)
        changed = bytes([text[position] ^ (1 << rng.randrange(8))])
        status, _ = told(*save(folder, [text[:position] + changed + text[position + 1 :]]))
        assert status == 1, (position, changed)


@pytest.mark.parametrize(
    "files, note",
    [
        ([L[:4]], "has not stopped: it lives, or was killed"),
        ([L[3:]], "the history begins with seq 4 of run 00000000"),
        ([L, chain(("f", 1, "start", {}), ("f", 2, "stop", {}))], "begins a fresh file"),
        ([L, []], ""),
        ([[]], ""),
    ],
)
def test_what_is_no_problem_is_named_at_most(folder, files, note):
    status, found = told(*save(folder, *files))
    assert status == 0 and not found["problems"]
    assert any(note in text for text in found["notes"]) or not note and not found["notes"]


def test_verify_reads_gz_and_standard_input_and_prints_for_people(folder):
    lines = history()
    (folder / "log.1.gz").write_bytes(gzip.compress(b"".join(lines[:9])))
    command = [sys.executable, PROGRAM, "verify", "-", str(folder / "log.1.gz")]
    for text, status, last in (
        (lines[9:], 0, b"whole: nothing is missing, changed or lost\n"),
        (lines[10:], 1, b"NOT WHOLE: 2 problems\n"),
    ):
        run = subprocess.run(
            command, input=b"".join(text), capture_output=True, timeout=60, check=False
        )
        assert (run.returncode, run.stderr) == (status, b"") and run.stdout.endswith(last), run
    assert b"-, line 1, seq 5: seq 4 to 4 are missing, without a gap that names them" in run.stdout


def test_control_characters_of_a_forged_log_do_not_reach_the_terminal(folder):
    paths = save(folder, chain(("a\x1b[2J", 1, "start", {}), ("b", 1, "start", {})))
    out = io.StringIO()
    assert run_verify([str(paths[0])], json_output=False, anchors=[], out=out) == 1
    assert "\x1b" not in out.getvalue() and "\\u001b[2J" in out.getvalue()


def test_a_file_that_cannot_be_read_is_an_error_of_its_own(folder):
    (folder / "x.gz").write_bytes(gzip.compress(b"".join(L))[:-20])
    for name in ("nothing", "x.gz", "."):
        with pytest.raises(AuditLogError) as caught:
            verify_files([str(folder / name)])
        assert caught.value.status == 78 and "cannot be read" in str(caught.value)


def test_gaps_and_suppressions_are_totalled(folder):
    lines = chain(
        ("a", 1, "start", {}),
        ("a", 2, "finding", {"count": 5}),
        ("a", 3, "suppressed", {"counts": {"x": 2, "y": 3}}),
        ("a", 6, "gap", {**GAP, "records": 2, "matches": 7, "first_seq": 4, "last_seq": 5}),
        ("a", 7, "scan_gap", {"bytes": 100}),
        ("a", 8, "stop", {}),
    )
    status, found = told(*save(folder, lines))
    expected = {
        "records": 6,
        "findings": 5,
        "suppressed": 5,
        "lost_records": 2,
        "lost_matches": 7,
        "unscanned_bytes": 100,
    }
    assert status == 1 and found["totals"] == expected and found["runs"] == 1


def test_a_log_that_lives_and_is_rotated_is_sound_at_any_moment(new_log, folder):
    path = folder / "audit.log"
    log = new_log(queue_limit=1_000_000)
    written(log, 1)
    over = threading.Event()

    def feed():
        while not over.is_set():
            log.accept("request", {"path": "x" * 3000})
            time.sleep(0.0005)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for number in range(25):
            wait_for(path.exists, "the new file")
            path.rename(folder / f"audit.log.{number}")
            if number % 2:
                path.touch()
            for _ in range(3):
                paths = [file for file in folder.iterdir() if file.name.startswith("audit.log")]
                found = verify_files([str(file) for file in paths])
                assert found.sound, found.problems
            log.reopen()
    finally:
        over.set()
        feeder.join()


def test_verify_holds_no_more_for_more_lines(folder):
    line = encode_record(Record(0.0, "request", {"path": "x" * 100}), "a", 1, "0" * 16)
    found = Verification()
    segment = found.read("x", itertools.repeat(line, 5000))
    assert (
        segment.lines == 5000 and len(found.problems) == 1000 and found.omitted == 2 * 4999 - 1000
    )
