"""Tests of logfile.py: torn lines, rotation, truncation, deletion, refused paths, standard output.

`e2e/test_faults.py` has the same faults by the real thing.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import threading
import time

import pytest
from auditlogs import KEY, Clock, problems, records, written

from _dockeraudit import auditlog, logfile
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.errors import AuditLogError
from _dockeraudit.keyfile import write_key
from _dockeraudit.logfile import AuditFile, AuditPipe, last_line
from _dockeraudit.records import line_hash
from _dockeraudit.verify import Verification
from conftest import wait_for

# =================================================================================================
# one write: what is in the file after a failure
# =================================================================================================


@pytest.fixture
def audit_file(folder, disk):
    """A log's file that is open, without a log."""
    file = AuditFile(str(folder / "audit.log"), None, KEY, disk.write, os.stat, Clock())
    assert file.open() == []
    yield file
    file.close()


LINES = [b"%d" % number + b"x" * (5 * number) + b"\n" for number in range(12)]
WHOLE = b"".join(LINES)


def test_lines_are_written_with_one_write(audit_file, disk, folder):
    assert audit_file.append(LINES) == (12, None)
    assert disk.sizes == [len(WHOLE)] and (folder / "audit.log").read_bytes() == WHOLE
    assert audit_file.last_hash == line_hash(LINES[-1][:-1])
    assert audit_file.unsynced == len(WHOLE)


@pytest.mark.parametrize("room", range(0, len(WHOLE), 3))
def test_a_short_write_leaves_whole_lines_and_says_how_many(audit_file, disk, folder, room):
    path = folder / "audit.log"
    disk.room = room
    count, error = audit_file.append(LINES)
    assert count == WHOLE[:room].count(b"\n") and error.errno == errno.ENOSPC
    assert path.read_bytes() == b"".join(LINES[:count])
    assert audit_file.unsynced == path.stat().st_size and audit_file.notice() == []
    if count:
        assert audit_file.last_hash == line_hash(LINES[count - 1][:-1])
    disk.room = None
    assert audit_file.append(LINES[count:]) == (12 - count, None)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("room", [1, 2, 3, 40, 41, 42, 43])
def test_a_torn_line_that_cannot_be_taken_back_is_set_apart(
    audit_file, disk, folder, room, monkeypatch
):
    path = folder / "audit.log"
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", lambda *_: os.write(-1, b""))
        disk.room = room
        count, error = audit_file.append(LINES)
    torn = WHOLE[:room].rpartition(b"\n")[2]
    assert error.errno == errno.ENOSPC and path.read_bytes() == WHOLE[:room]
    assert count == WHOLE[:room].count(b"\n")
    disk.room = 0
    assert audit_file.append(LINES[count:])[0] == 0
    disk.room = None
    assert audit_file.append(LINES[count:]) == (12 - count, None)
    apart = torn + b"\n" if torn else b""
    assert path.read_bytes() == b"".join([*LINES[:count], apart, *LINES[count:]])
    assert audit_file.notice() == []


@pytest.mark.parametrize("what", [MemoryError(), OSError(errno.EIO, "no"), 0])
def test_a_write_that_fails_behind_a_short_one_is_taken_back(folder, what):
    path = folder / "audit.log"
    answers = iter([3, what])

    def write(fd, data):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return os.write(fd, data[:answer])

    file = AuditFile(str(path), None, KEY, write, os.stat, Clock())
    file.open()
    count, error = file.append([b"a\n", b"bcd\n"])
    file.close()
    assert count == 1 and isinstance(error, OSError) and path.read_bytes() == b"a\n"


# =================================================================================================
# torn lines
# =================================================================================================


def test_the_nth_write_fails_or_is_short_and_no_line_is_torn(new_log, folder, disk):
    log = new_log()
    written(log, 1)
    for number in range(20):
        disk.room = number * 9
        log.accept("request", {"number": number, "path": "x" * 50})
        wait_for(
            lambda number=number: log.failed() or log.counters()["written"] == number + 2,
            "the write",
        )
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


# =================================================================================================
# rotation, truncation, deletion
# =================================================================================================


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
    assert any("seq 2 is missing" in problem for problem in problems(folder / "1", path))


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


# =================================================================================================
# what is refused
# =================================================================================================


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


def test_descriptors_are_not_inherited(new_log, folder):
    log = new_log()
    for fd in (log._file._fd, log._file._lock_fd):
        assert not os.get_inheritable(fd)


# =================================================================================================
# standard output
# =================================================================================================


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


PIPED = [b"a\n", b"bcd\n", b"e" * 9 + b"\n", b"\n", b"f\n"]


@pytest.mark.parametrize("cut", range(len(b"".join(PIPED)) + 1))
def test_a_line_that_a_pipe_took_in_part_counts_and_is_finished_first(cut):
    """Wherever the pipe is full, and however its reader drains it then."""
    got, room = bytearray(), [cut]

    def write(fd, data):
        if not room[0]:
            raise BlockingIOError(errno.EAGAIN, "full")
        taken = data[: room[0]]
        room[0] -= len(taken)
        got.extend(taken)
        return len(taken)

    pipe = AuditPipe(write)
    lines, tries = list(PIPED), 0
    error = True
    while error:
        count, error = pipe.append(lines)
        begun = PIPED[: len(PIPED) - len(lines) + count]
        assert b"".join(begun).startswith(bytes(got))
        if begun:
            assert pipe.last_hash == line_hash(begun[-1][:-1])
        del lines[:count]
        assert (error is None) is (bytes(got) == b"".join(PIPED))
        tries += 1
        room[0] = 1 if tries < 5 else 1000
    assert bytes(got) == b"".join(PIPED)


def test_no_write_to_a_pipe_is_longer_than_a_pipe_takes_in_one_piece(new_log, pipe):
    sizes = []
    log = new_log("-", write=lambda fd, data: sizes.append(len(data)) or len(data))
    for number in range(500):
        log.accept("request", {"number": number, "path": "x" * (number * 7)})
    log.close("end", 10)
    assert max(sizes) <= 4096


# =================================================================================================
# what others could write to
# =================================================================================================


def test_a_log_that_becomes_a_hard_link_is_not_written_while_it_is_one(new_log, folder):
    path = folder / "audit.log"
    log = new_log(monotonic=Clock())
    written(log, 1)
    path.rename(folder / "1")
    (folder / "victim").touch()
    os.link(folder / "victim", path)
    log.accept("request", {})
    wait_for(log.failed, "the failure")
    (folder / "victim").unlink()
    wait_for(lambda: not log.failed(), "a file with one name")
    log.close("end", 10)
    assert [record["event"] for record in records(path)] == ["rotated", "request", "stop"]


def test_a_log_that_rotation_made_with_a_mode_of_its_own_is_written(new_log, folder):
    path = folder / "audit.log"
    log = new_log(monotonic=Clock())
    written(log, 1)
    path.rename(folder / "1")
    path.touch()
    path.chmod(0o666)
    log.accept("request", {})
    assert log.close("end", 10) == 0
    assert [record["event"] for record in records(path)] == ["rotated", "request", "stop"]
    with pytest.raises(AuditLogError):  # but not by the next start
        AuditLog(str(path), KEY).open()
