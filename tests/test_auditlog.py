"""Tests of auditlog.py: what is queued, written, lost, held and told, with each fault injected.

`e2e/test_faults.py` has the same faults by the real thing.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time

import pytest
from auditlogs import (
    AWS,
    CLIENT,
    EMAIL,
    ENDED,
    FULL_ID,
    KEY,
    Clock,
    find,
    matches_told,
    problems,
    records,
    written,
)

from _dockeraudit import auditlog, budgets, logfile
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.errors import AuditLogError
from _dockeraudit.records import line_hash
from _dockeraudit.verify import verify_files
from conftest import wait_for

HEAD = ["timestamp", "event", "run", "seq", "prev"]
WHERE = "container_id container_name"
STREAM = f"stream endpoint {WHERE} client follow audited"
FIELDS = {
    "start": "version pid listen upstream rules key",
    "stream_open": STREAM,
    "finding": f"{WHERE} stream_type pattern redacted_match severity rule fingerprint count"
    " endpoint client stream line",
    "finding_update": "finding pattern rule severity fingerprint redacted_match lines complete",
    "suppressed": "stream counts severities",
    "scan_gap": "stream bytes since",
    "scan_error": "stream error",
    "stream_close": f"{STREAM} framing bytes frames lines findings unscanned reason seconds",
    "gap": "records matches first_seq last_seq errno since",
    "stats": "written lost streams bytes frames findings queued_max unscanned",
    "rotated": "inode size",
    "recreated": "inode",
    "truncated": "size_before",
    "recovered": "offset",
    "stop": "written lost reason seconds",
}


def test_each_event_has_its_fields_in_order(new_log, folder, disk, monkeypatch):
    monkeypatch.setattr(budgets, "CONTAINER_BURST", {"HIGH": 3})
    monkeypatch.setattr(auditlog, "STATS_PERIOD", 0.0)
    path = folder / "audit.log"
    path.write_bytes(b"torn")
    log = new_log(queue_limit=20)
    stream = log.open_stream("logs", "web", CLIENT, True, True)
    stream.named(FULL_ID, "web")
    find(stream)
    stream.update(find(stream, b"part", partial=True), None, b"key=part", b"part", 1, True)
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
    stream.close(**ENDED)
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
    "mode, syncs", [("always", range(2, 20)), ("interval", range(1, 20)), ("never", range(1))]
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
    new_log, folder, disk, monkeypatch
):
    monkeypatch.setattr(logfile.AuditFile, "batch_bytes", 4096)  # a record a write
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
    monkeypatch.setattr(log, "_encode_batch", lambda: 1 // 0)
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


# =================================================================================================
# batches
# =================================================================================================


def test_what_is_queued_is_written_in_batches_with_a_look_at_the_path_for_each(
    new_log, folder, disk
):
    looks = []
    log = new_log(stat=lambda path: looks.append(path) or os.stat(path))
    written(log, 1)
    disk.free.clear()
    log.accept("request", {"number": -1})
    assert disk.waiting.wait(10)
    writes, looked = disk.writes, len(looks)
    for number in range(2000):
        log.accept("request", {"number": number, "path": "x" * 100})
    disk.free.set()
    log.close("end", 10)
    size = (folder / "audit.log").stat().st_size
    assert max(disk.sizes) <= 64 << 10
    assert disk.writes - writes <= size // (60 << 10) + 2
    assert len(looks) - looked <= disk.writes - writes + 1
    found = records(folder / "audit.log")
    assert [record["number"] for record in found[1:-1]] == list(range(-1, 2000))
    assert not problems(folder / "audit.log")


def test_a_record_alone_is_written_at_once(new_log, folder, disk):
    log = new_log()
    for number in range(5):
        written(log, number + 1)
        log.accept("request", {"number": number})
    log.close("end", 10)
    assert disk.writes == 7 and len(records(folder / "audit.log")) == 7


def test_an_update_names_its_finding_although_both_are_in_one_batch(new_log, folder, disk):
    log = new_log()
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    for _ in range(3):
        stream.update(find(stream, None, partial=True), None, b"key=value", b"value", 1, True)
    stream.named(FULL_ID, "web")
    log.close("end", 10)
    findings = [record["seq"] for record in records(folder / "audit.log", "finding")]
    updates = [record["finding"] for record in records(folder / "audit.log", "finding_update")]
    assert findings == updates and len(findings) == 3


@pytest.mark.parametrize("room", range(100, 4000, 130))
def test_of_a_batch_that_is_cut_short_whole_lines_stay_and_the_rest_follows(
    new_log, folder, disk, room
):
    log = new_log()
    written(log, 1)
    disk.free.clear()
    log.accept("request", {"number": 0})
    assert disk.waiting.wait(10)
    for number in range(1, 30):
        log.accept("request", {"number": number})
    disk.room = room
    disk.free.set()
    wait_for(log.failed, "the failure")
    text = (folder / "audit.log").read_bytes()
    assert text.endswith(b"}\n") and log.counters()["written"] == text.count(b"\n")
    assert log.counters()["queued"] == 31 - text.count(b"\n")
    disk.room = None
    assert log.close("end", 10) == 0
    found = records(folder / "audit.log")
    assert [record["number"] for record in found[1:-1]] == list(range(30))
    assert found[-1]["written"] == 32 == found[-1]["seq"] and not problems(folder / "audit.log")


def test_a_rotation_between_two_tries_of_a_batch_renumbers_it(new_log, folder, disk):
    path = folder / "audit.log"
    log = new_log()
    stream = log.open_stream("logs", FULL_ID, CLIENT, False, True)
    stream.named(FULL_ID, "web")
    written(log, 2)
    disk.error = errno.ENOSPC
    stream.update(find(stream, None, partial=True), None, b"key=value", b"value", 1, True)
    wait_for(log.failed, "the failure")
    path.rename(folder / "1")
    path.touch()
    disk.error = None
    log.close("end", 10)
    found = records(path)
    assert [record["event"] for record in found] == [
        "rotated",
        "finding",
        "finding_update",
        "stop",
    ]
    assert found[2]["finding"] == found[1]["seq"] == 4 and not problems(folder / "1", path)


def test_always_syncs_a_batch_before_it_counts_as_written(new_log, disk):
    log = None
    seen = []

    def fdatasync(fd):
        if log:
            seen.append((log.totals["written"], os.fstat(fd).st_size))

    log = new_log(fsync="always", fdatasync=fdatasync)
    written(log, 1)
    for number in range(50):
        log.accept("request", {"number": number})
    log.close("end", 10)
    assert [size for _, size in seen] == sorted({size for _, size in seen})
    assert seen[-1][0] == log.totals["written"] - 1  # the stop itself was synced, then counted


def test_stats_and_stop_say_what_was_written_before_them_and_with_them(new_log, folder, disk):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    written(log, 1)
    disk.free.clear()
    log.accept("request", {})
    assert disk.waiting.wait(10)
    log.accept("request", {})
    monotonic.now += 600
    log.tick()
    log.accept("request", {})
    disk.free.set()
    log.close("end", 10)
    found = records(folder / "audit.log")
    assert [(record["event"], record["written"]) for record in found if "written" in record] == [
        ("stats", 3),
        ("stop", 6),
    ]


# =================================================================================================
# budgets of clients
# =================================================================================================

OTHER = {"listener": "tcp://127.0.0.1:2375", "address": "127.0.0.2"}


def test_a_client_cannot_buy_volume_and_other_clients_keep_theirs(new_log, folder):
    monotonic = Clock()
    log = new_log(monotonic=monotonic)
    for number in range(3000):
        client = {**CLIENT, "pid": number, "command": f"c{number}"}
        log.accept_for(client, "request", {"path": f"/{number}", "client": client})
        log.accept_for(client, "denied", {"path": f"/{number}", "client": client, "count": 2})
        if number % 1000 == 0:
            log.accept_for(OTHER, "request", {"path": "/other", "client": OTHER})
        written(log, min(number, 990))
    monotonic.now += 60
    log.tick()
    log.accept_for(CLIENT, "request", {"path": "/later", "client": CLIENT})
    for number in range(1200):
        log.accept_for(CLIENT, "would_deny", {"path": f"/{number}", "client": CLIENT})
    assert log.close("end", 10) == 0
    found = records(folder / "audit.log")
    suppressed = [record for record in found if record["event"] == "suppressed"]
    assert [list(record)[5:] for record in suppressed] == [["client", "counts"]] * 2
    assert suppressed[0]["client"] == {"uid": 0}
    assert suppressed[0]["counts"] == {"request": 2500, "denied": 5000}
    assert suppressed[1]["counts"] == {"would_deny": 201}
    assert sum(record.get("path") == "/other" for record in found) == 3
    assert sum(record.get("path") == "/later" for record in found) == 1
    assert not problems(folder / "audit.log")


def test_a_clients_record_is_suppressed_before_a_full_queue_loses_it(new_log, folder, disk):
    log = new_log(queue_limit=50, monotonic=Clock())
    written(log, 1)
    disk.free.clear()
    for number in range(200):
        log.accept_for(CLIENT, "request", {"number": number})
    for number in range(4):
        log.accept("stats", {"number": number})
    disk.free.set()
    assert log.close("end", 10) == 0
    (suppressed,) = records(folder / "audit.log", "suppressed")
    kept = len(records(folder / "audit.log", "request"))
    assert kept == 45 and suppressed["counts"] == {"request": 200 - kept}


# =================================================================================================
# nothing is lost on a healthy disk
# =================================================================================================


def test_nothing_is_lost_while_32_containers_print_a_different_secret_in_each_line(new_log, folder):
    """As fast as they can, with an engine that names none of them for a second."""
    log = new_log()
    begun = threading.Barrier(32)

    def flood(number):
        stream = log.open_stream("logs", f"c{number}", CLIENT, True, True)
        begun.wait()
        for line in range(1500):
            find(stream, b"%d %d" % (number, line), AWS if line % 3 == 0 else EMAIL)
        if number % 2:
            stream.named(f"{number:064x}", f"name {number}")
        stream.close(**ENDED)

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.close("end", 20) == 0
    found = records(folder / "audit.log")
    assert not [record for record in found if record["event"] == "gap"]
    assert matches_told(found) == 32 * 1500
    severities = [record["severity"] for record in found if record["event"] == "finding"]
    assert severities.count("HIGH") > 4_000 and severities.count("LOW") < 8_000
    assert log.counters()["queued_max"] < 9_000


# =================================================================================================
# what is said, and who goes on
# =================================================================================================


def lose(log, disk, count):
    """Have the log lose so many records in one gap."""
    disk.error = errno.ENOSPC
    for _ in range(log._queue_limit - log.held + count):
        log.accept("request", {})
    wait_for(log.failed, "the failure")
    disk.error = None
    wait_for(lambda: not log.failed() and not log.held, "the disk")


def test_lost_records_are_said_once_a_minute_with_their_sum(new_log, folder, disk, said):
    monotonic = Clock()
    log = new_log(queue_limit=10, monotonic=monotonic)
    wait_for(lambda: not log.held, "the start")

    def told():
        return [int(text.split()[0]) for text in said if "were lost" in text]

    lose(log, disk, 3)
    wait_for(lambda: told() == [3], "the first to be said at once")
    for _ in range(4):
        lose(log, disk, 5)
    log.tick()
    assert told() == [3]
    monotonic.now += 60
    log.tick()
    assert told() == [3, 20]
    lose(log, disk, 7)
    assert log.close("end", 10) == 74
    assert told() == [3, 20, 7]
    assert sum(record["records"] for record in records(folder / "audit.log", "gap")) == 30


def test_a_deleted_log_is_said(new_log, folder, said):
    log = new_log()
    written(log, 1)
    (folder / "audit.log").unlink()
    log.accept("request", {})
    written(log, 3)
    assert said == [f"the audit log {folder / 'audit.log'} was deleted; it has been made anew"]


def test_a_truncated_log_is_said_and_a_rotated_one_is_not(new_log, folder, said):
    path = folder / "audit.log"
    log = new_log(monotonic=Clock())
    written(log, 1)
    size = path.stat().st_size
    os.truncate(path, 0)
    log.accept("request", {})
    written(log, 3)
    path.rename(folder / "1")
    log.reopen()
    wait_for(path.exists, "the new file")
    assert said == [f"the audit log {path} was truncated at {size} bytes"]


def test_a_listener_that_raises_stops_neither_the_ticker_nor_other_listeners(
    new_log, folder, disk, said
):
    log = new_log()
    calls, told, broken = [], [], threading.Event()
    broken.set()

    def listener(failed):
        calls.append(failed)
        if broken.is_set():
            raise AttributeError("its text may hold a secret")

    log.add_failure_listener(listener)
    log.add_failure_listener(told.append)
    disk.error = errno.EIO
    log.accept("request", {})
    wait_for(lambda: told == [True] and len(calls) > 3, "both to be told, one again and again")
    assert set(calls) == {True}
    broken.clear()
    count = len(calls)
    wait_for(lambda: len(calls) > count, "the call that does not raise")
    disk.error = None
    wait_for(lambda: told == [True, False] and calls[-1] is False, "the end of the failure")
    defects = [text for text in said if "by a defect" in text]
    assert len(defects) == 1 and "raised AttributeError" in defects[0]
    assert not any("secret" in text for text in said)


def test_whatever_the_tick_raises_the_ticker_goes_on(new_log, folder, said, monkeypatch):
    log = new_log()
    stream = log.open_stream("logs", "web", CLIENT, True, True)
    monkeypatch.setattr(auditlog, "NAME_WAIT", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(stream, "tick", lambda now: 1 // 0)
        wait_for(lambda: any("ZeroDivisionError" in text for text in said), "the defect")
    wait_for(lambda: records(folder / "audit.log", "stream_open"), "the tick's work")
    assert len(said) == 1


@pytest.mark.parametrize("error", [MemoryError(), ValueError("x"), OSError(errno.EIO, "no")])
def test_a_sync_that_raises_anything_is_a_failure_and_is_tried_again(new_log, said, error):
    broken = threading.Event()
    broken.set()
    synced = []

    def fdatasync(fd):
        if broken.is_set():
            raise error
        synced.append(fd)

    log = new_log(fdatasync=fdatasync)
    wait_for(log.failed, "the failure")
    broken.clear()
    wait_for(lambda: not log.failed() and synced, "the next sync")
    assert log.close("end", 10) == 0
    assert ["be synced" in text for text in said] == [True, True, False]


def test_a_sync_that_raises_does_not_stop_a_log_that_syncs_always(new_log, folder):
    calls = []

    def fdatasync(fd):
        calls.append(fd)
        if len(calls) == 2:
            raise MemoryError

    log = new_log(fsync="always", fdatasync=fdatasync)
    for number in range(5):
        written(log, number + 1)
        log.accept("request", {"number": number})
    assert log.close("end", 10) == 0
    assert len(records(folder / "audit.log", "request")) == 5


def test_a_refused_path_leaves_nothing_beside_it(folder):
    (folder / "directory").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "target")
    (folder / "open").touch()
    (folder / "open").chmod(0o666)
    before = sorted(os.listdir(folder))
    for name in before:
        with pytest.raises(AuditLogError) as caught:
            AuditLog(str(folder / name), KEY).open()
        assert caught.value.status == 78
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("started", range(3))
def test_a_log_whose_threads_cannot_start_is_refused_and_gives_its_lock_up(
    new_log, folder, monkeypatch, started
):
    """A container's limit of processes: one of the log's three threads gets none."""
    start, left = threading.Thread.start, [started]

    def limited(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        with pytest.raises(AuditLogError) as caught:
            AuditLog(str(folder / "audit.log"), KEY).open()
    assert "can't start new thread" in str(caught.value) and caught.value.status == 78
    new_log()


def test_what_is_allowed_can_change_while_the_log_is_open(new_log, folder):
    log = new_log()
    stream = log.open_stream("logs", FULL_ID, CLIENT, True, True)
    find(stream, b"one")
    log.allow([log.fingerprinter.of(b"two")])
    find(stream, b"two")
    log.allow([])
    find(stream, b"two")
    log.close("end", 10)
    assert len(records(folder / "audit.log", "finding")) == 2
