"""Real faults under the audit log: what is written, lost, counted as lost, and how soon it goes on.

Each test prints its rows of the table in docs/reliability.md. With DOCKERAUDIT_FAULT_TABLE=FILE it
appends them to FILE. Where a fault cannot be had, `tests/test_auditlog.py` injects the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from audit_writer import STATE
from scripted import LOGS_HEAD, ScriptedEngine, chunk, stdcopy_frame

from _dockeraudit.records import rfc3339
from _dockeraudit.verify import open_audit_log, verify_files
from conftest import PROGRAM, ROOT, ProxyProcess, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

AWS_KEY = b"AK" + b"IA" + b"IOSFODNN7EXAMPLE"
WRITER = str(ROOT / "e2e" / "audit_writer.py")
LOGS = b"GET /containers/web/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n\r\n"
BY_INJECTION = "tests/test_auditlog.py has the same fault by injection"
EXT4_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)


def row(fault, how, runs, written, lost, counted, seconds=None):
    """Print a row of the table, and append it to the file that DOCKERAUDIT_FAULT_TABLE names."""
    resumed = "" if seconds is None else f"{seconds:.2f}"
    test = re.search(r"::test_(\w+)", os.environ["PYTEST_CURRENT_TEST"])[1]
    line = f"| {fault} | {how} | {runs} | {written} | {lost} | {counted} | {resumed} | `{test}` |"
    print(line)
    if os.environ.get("DOCKERAUDIT_FAULT_TABLE"):
        with open(os.environ["DOCKERAUDIT_FAULT_TABLE"], "a", encoding="utf-8") as file:
            file.write(line + "\n")


class Writer:
    """audit_writer.py as a process."""

    def __init__(self, log, *options, prefix=(), **popen):
        self.log = Path(log)
        self.folder = Path(popen.pop("scratch", self.log.parent))
        self.errors = self.folder / "writer.err"
        self._state = self.folder / "writer.state"
        self._state.write_bytes(bytes(STATE.size))
        self._state.chmod(0o666)
        command = [*prefix, sys.executable, WRITER, str(log), "--state", str(self._state), *options]
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, **popen
            )

    def ready(self):
        line = self.process.stdout.readline()
        assert line == b"ready\n", self.said()
        return self

    def said(self):
        return self.errors.read_text()

    def state(self):
        """Records accepted and written."""
        return STATE.unpack(self._state.read_bytes())

    def hears(self, text, count=1):
        wait_for(
            lambda: self.said().count(text) >= count or self.process.poll() is not None,
            f"{text!r} on stderr",
        )
        assert self.process.poll() is None, self.said()

    def stop(self):
        """End it; returns its exit status and what it says of itself."""
        self.process.send_signal(signal.SIGTERM)
        out = self.process.stdout.read()
        return self.process.wait(20), json.loads(out)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def write(folder):
    """Start writers; all are ended after the test."""
    started = []

    def start(log, *options, **popen):
        writer = Writer(log, *options, **{"scratch": folder, **popen})
        started.append(writer)
        return writer.ready()

    yield start
    for writer in started:
        writer.end()


@pytest.fixture
def engine(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


def needs(program):
    """Skip without a program, but never in CI."""
    if not shutil.which(program):
        assert not os.environ.get("CI"), f"there is no {program}: `make e2e` installs it"
        pytest.skip(f"there is no {program} here: `make e2e` installs it; {BY_INJECTION}")


@contextlib.contextmanager
def mounted(path, *arguments):
    """A mount, or a printed reason why there is none."""
    path.mkdir(exist_ok=True)
    run = subprocess.run(
        ["mount", *arguments, str(path)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        pytest.skip(f"this machine mounts nothing here ({run.stderr.strip()}); {BY_INJECTION}")
    try:
        yield path
    except BaseException:
        subprocess.run(
            ["umount", "--lazy", str(path)], capture_output=True, check=False
        )  # its processes end later
        raise
    wait_for(
        lambda: (
            not os.path.ismount(path)
            or not subprocess.run(
                ["umount", str(path)], capture_output=True, check=False
            ).returncode
        ),
        f"{path} to be unmounted",
    )


def fill(path):
    """Write into a file until its disk is full."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@contextlib.contextmanager
def loop_disk(folder, *options, size="24M"):
    """An ext4 file system in a file, through a loop device: its mount point and its image."""
    needs("mkfs.ext4")
    image = folder / "disk.img"
    with open(image, "wb") as file:
        file.truncate(int(size[:-1]) << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted(folder / "disk", "-o", ",".join(["loop", *options]), str(image)) as path:
        yield path, image


def needs_strace():
    needs("strace")
    run = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    if run.returncode:
        pytest.skip(f"strace may not trace here ({run.stderr.decode().strip()}); {BY_INJECTION}")


def lines_of(*paths):
    lines = []
    for path in paths:
        with open_audit_log(str(path)) as file:
            lines += file.read().splitlines()
    return lines


def records_of(*paths):
    """Records of files; lines that are none are left out."""
    found = []
    for line in lines_of(*paths):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def of(records, event):
    return [record for record in records if record["event"] == event]


def problems(*paths):
    return [item["problem"] for item in verify_files([str(path) for path in paths]).problems]


def balance(records, accepted, runs=1):
    """Of `accepted` requests: how many are in the log, how many are not, how many the gaps count.

    None may be there twice.
    """
    requests = of(records, "request")
    assert len({(record["run"], record["thread"], record["number"]) for record in requests}) == len(
        requests
    )
    return (
        len(requests),
        accepted - len(requests),
        sum(record["records"] for record in of(records, "gap")),
    )


def named_missing(*paths):
    """How many records `verify` names as missing without a gap."""
    said = re.compile(r"seq (\d+)(?: to (\d+))? (?:is|are) missing")
    found = [said.search(text) for text in problems(*paths)]
    return sum(int(match[2] or match[1]) - int(match[1]) + 1 for match in found if match)


def only_gaps(*paths):
    """`verify` finds these files whole, but for the gaps that are named in them."""
    return [text for text in problems(*paths) if "were lost" not in text] == []


# =================================================================================================
# kills
# =================================================================================================


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.full)])
def test_a_kill_at_any_byte_leaves_every_complete_line_readable(write, folder, kills):
    log = folder / "audit.log"
    rng = random.Random(7)
    for _ in range(kills):
        writer = write(log, "--rate", "0", "--size", "3500", scratch=folder)
        size = log.stat().st_size
        wait_for(lambda size=size: log.stat().st_size > size, "the first record")
        time.sleep(rng.random() * 0.01)
        writer.process.kill()
        writer.process.wait()
    write(log, "--rate", "1").stop()
    lines, records = lines_of(log), records_of(log)
    runs = {}
    for record in records:
        runs.setdefault(record["run"], []).append(record["seq"])
    assert len(runs) == kills + 1 and all(
        seqs == list(range(1, len(seqs) + 1)) for seqs in runs.values()
    )
    torn, recovered = len(lines) - len(records), of(records, "recovered")
    whole_but_no_end = (
        len(recovered) - torn
    )  # the kill came between a record's last byte and its newline
    assert torn <= len(recovered) and whole_but_no_end <= 2, (torn, len(recovered))
    assert sorted({re.sub("run .*", "run", text) for text in problems(log)}) in (
        ["run"],
        ["run", "the line is not a record (a torn one ends like this)"],
    )
    assert len(problems(log)) == kills + torn
    written = len(of(records, "request"))
    row(
        "SIGKILL in a tight write loop",
        f"kill -9 within 10 ms, 3.6 kB records; {torn} torn lines, all isolated",
        kills,
        written,
        "what was queued",
        "`verify` names each run",
    )


# =================================================================================================
# full disks and failing system calls
# =================================================================================================


@pytest.mark.root
@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.full)])
def test_a_full_disk_loses_only_what_is_counted_and_is_left_within_two_seconds(
    write, folder, rounds
):
    worst = 0.0
    with mounted(
        folder / "disk", "-t", "tmpfs", "-o", f"size={16 + 10 * rounds}m", "tmpfs"
    ) as disk:
        log = disk / "audit.log"
        writer = write(log, "--rate", "8000", "--size", "100")
        for number in range(1, rounds + 1):
            filler = disk / "filler"
            fill(filler)
            writer.hears("cannot be written: No space left on device", number)
            accepted = writer.state()[0]
            wait_for(
                lambda accepted=accepted: writer.state()[0] > accepted + 11_000,
                "more than can be held",
            )
            filler.unlink()
            began = time.monotonic()
            writer.hears("can be written again", number)
            worst = max(worst, time.monotonic() - began)
            wait_for(lambda number=number: len(of(records_of(log), "gap")) >= number, "the gap")
        status, result = writer.stop()
        records = records_of(log)
        assert only_gaps(log) and len(lines_of(log)) == len(records)
        assert "ENOSPC" in {record["errno"] for record in of(records, "gap")}
    written, lost, counted = balance(records, result["accepted"])
    row(
        "disk full (ENOSPC, short writes)",
        "a tmpfs filled up, then freed",
        rounds,
        written,
        lost,
        counted,
        worst,
    )
    assert lost == counted > 0 and status == 74 and worst <= 2.0


def test_a_file_size_limit_is_a_full_disk(write, folder):
    log = folder / "audit.log"
    writer = write(log, "--rate", "500")
    wait_for(lambda: log.stat().st_size > 20_000, "some records")
    limit = log.stat().st_size + 5_000
    subprocess.run(
        ["prlimit", "--pid", str(writer.process.pid), f"--fsize={limit}:unlimited"], check=True
    )
    writer.hears("cannot be written: File too large")
    assert log.read_bytes().endswith(b"}\n")  # the short write at the limit was taken back
    subprocess.run(
        ["prlimit", "--pid", str(writer.process.pid), "--fsize=unlimited:unlimited"], check=True
    )
    began = time.monotonic()
    writer.hears("can be written again")
    seconds = time.monotonic() - began
    status, result = writer.stop()
    written, lost, counted = balance(records_of(log), result["accepted"])
    row(
        "file size limit (EFBIG, short write)",
        "`prlimit --fsize`",
        1,
        written,
        lost,
        counted,
        seconds,
    )
    assert (lost, counted, status, problems(log)) == (0, 0, 0, []) and seconds <= 2.0


@pytest.mark.parametrize(
    "call, error, when, text",
    [
        ("write", "EIO", "40..41", "cannot be written: Input/output error"),
        ("write", "ENOSPC", "60..61", "cannot be written: No space left on device"),
        ("write", "EDQUOT", "5", "cannot be written: Disk quota exceeded"),
        ("fdatasync", "EIO", "2..3", "cannot be synced: Input/output error"),
    ],
)
def test_a_system_call_fails(write, folder, call, error, when, text):
    needs_strace()
    log = folder / "audit.log"
    inject = [
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={error}:when={when}",
        "-P",
        str(log),
    ]
    writer = write(
        log, "--rate", "200", prefix=["strace", "-f", "-qq", "-o", str(folder / "trace"), *inject]
    )
    writer.hears(text)
    began = time.monotonic()
    writer.hears(
        "again", 2 if call == "write" else 1
    )  # "it is tried again" is said of the failure itself
    seconds = time.monotonic() - began
    os.kill(of(records_of(log), "start")[0]["pid"], signal.SIGTERM)  # strace's child
    result = json.loads(writer.process.stdout.read())
    status = writer.process.wait(20)
    written, lost, counted = balance(records_of(log), result["accepted"])
    row(
        f"{call} fails: {error}",
        f"`strace -e inject={call}:error={error}:when={when}`",
        1,
        written,
        lost,
        counted,
        seconds,
    )
    assert (lost, counted, status, problems(log)) == (0, 0, 0, [])
    assert (
        len(re.findall(text, writer.said())) == 1
    )  # one line a change of state, though it failed twice


@pytest.mark.root
@pytest.mark.parametrize("fault", ["EROFS", "EIO"])
def test_a_file_system_turns_read_only_or_dies_and_another_takes_its_place(write, folder, fault):
    """ext4 turns read-only after an error: `remount,abort` feigns one, EXT4_IOC_SHUTDOWN is one."""
    with loop_disk(folder, "errors=remount-ro") as (disk, image):
        log = disk / "audit.log"
        writer = write(log, "--rate", "500")
        wait_for(lambda: writer.state()[1] > 200, "some records")
        if fault == "EROFS":
            subprocess.run(
                ["mount", "-o", "remount,abort", str(disk)], capture_output=True, check=False
            )
        else:
            fd = os.open(disk, os.O_RDONLY)
            fcntl.ioctl(
                fd, EXT4_SHUTDOWN, struct.pack("I", 0)
            )  # 0: what is written is flushed first
            os.close(fd)
        writer.hears("cannot be written")
        said = {"EROFS": "Read-only file system", "EIO": "Input/output error"}[fault]
        assert f"cannot be written: {said}" in writer.said()
        subprocess.run(
            ["umount", "--lazy", str(disk)], check=True
        )  # the path is now the folder below the mount
        began = time.monotonic()
        writer.hears("can be written again")
        seconds = time.monotonic() - began
        status, result = writer.stop()
        with mounted(folder / "after", "-o", "loop", str(image)) as after:
            shutil.copy(after / "audit.log", folder / "old.log")
        written, lost, counted = balance(records_of(folder / "old.log", log), result["accepted"])
        missing = named_missing(folder / "old.log", log)
    how = {"EROFS": "`mount -o remount,abort`", "EIO": "EXT4_IOC_SHUTDOWN"}[
        fault
    ] + " of ext4 on a loop device, then another disk in its place"
    row(
        {"EROFS": "file system turns read-only (EROFS)", "EIO": "disk dies (EIO)"}[fault],
        how,
        1,
        written,
        f"{lost} not synced yet",
        f"`verify` names {missing}",
        seconds,
    )
    assert (missing, counted, status) == (lost, 0, 0) and seconds <= 2.0
    assert lost < 1000 and (
        fault == "EROFS" or not lost
    )  # up to an interval of syncing: what the disk never got


@pytest.mark.root
@pytest.mark.parametrize(
    "fsync, cuts",
    [("always", 3), ("interval", 3), pytest.param("always", 30, marks=pytest.mark.full)],
)
def test_a_power_cut_takes_nothing_that_was_acknowledged(write, folder, fsync, cuts):
    """The disk's image is copied while the writer is stopped; nothing is flushed for the copy."""
    worst, total, kept = 0, 0, 0
    with loop_disk(folder, "commit=600") as (disk, image):
        log = disk / "audit.log"
        for _cut in range(cuts):
            writer = write(log, "--rate", "300", "--fsync", fsync)
            began = time.time()
            wait_for(lambda writer=writer: writer.state()[1] > 300, "some records")
            if fsync == "interval":
                wait_for(lambda began=began: time.time() - began > 2.5, "two intervals")
            writer.process.send_signal(signal.SIGSTOP)
            accepted, done = writer.state()
            time.sleep(0.1)  # a sync that had begun ends in the kernel
            now = time.time()
            shutil.copy(image, folder / "cut.img")
            full = len(of(records_of(log), "request"))
            writer.process.send_signal(signal.SIGCONT)
            writer.stop()
            with mounted(folder / "after", "-o", "loop", str(folder / "cut.img")) as after:
                text = (after / "audit.log").read_bytes()
            last_run = of(records_of(log), "start")[-1]["run"]
            records = [json.loads(line) for line in text[: text.rindex(b"\n")].splitlines()]
            seqs = [record["seq"] for record in records if record["run"] == last_run]
            assert seqs == list(range(1, len(seqs) + 1))
            if fsync == "always":
                acknowledged = done - 1
            else:
                limit = rfc3339(now - 2.0)
                acknowledged = max(
                    (
                        record["seq"]
                        for record in records_of(log)
                        if record["run"] == last_run and record["timestamp"] < limit
                    ),
                    default=0,
                )
            assert len(seqs) >= acknowledged > 0, (len(seqs), acknowledged)
            worst = max(worst, full - len(of(records, "request")))
            total, kept = total + full, kept + len(of(records, "request"))
            log.unlink()
    how = f"copy of the loop device's image mid-run, `--fsync {fsync}`"
    row(
        "power cut",
        how,
        cuts,
        kept,
        f"{worst} at most, none acknowledged",
        "`verify` names each run",
    )


# =================================================================================================
# a hung disk
# =================================================================================================


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(path)
    return sock


def ping_times(path, seconds):
    """Round trips of /_ping through the proxy, sorted."""
    times = []
    end = time.monotonic() + seconds
    with connect(path) as sock:
        while time.monotonic() < end:
            began = time.monotonic()
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            data = b""
            while not data.endswith(b"OK"):
                data += sock.recv(4096)
            times.append(time.monotonic() - began)
            time.sleep(0.002)
    return sorted(times)


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))]


class Chatter:
    """A log route of a scripted engine: it sends a line with a new secret, again and again."""

    def __init__(self, period=0.002):
        self.period = period
        self.lines = 0
        self.over = threading.Event()

    def __call__(self, sock, head):
        sock.sendall(LOGS_HEAD)
        while not self.over.is_set():
            self.lines += 1
            sock.sendall(chunk(stdcopy_frame(1, b"password=%012d\n" % self.lines)))
            self.over.wait(self.period)


def follow(path, count):
    """So many open `logs -f`, each read by a thread of its own."""
    socks = []

    def read(sock):
        with contextlib.suppress(OSError), sock:
            while sock.recv(1 << 16):
                pass

    for _ in range(count):
        sock = connect(path)
        sock.sendall(LOGS)
        socks.append((sock, threading.Thread(target=read, args=(sock,), daemon=True)))
        socks[-1][1].start()
    return socks


def memory(pid):
    """Resident bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) << 10


@pytest.mark.root
def test_a_frozen_file_system_delays_nobody(engine, start_proxy, folder):
    chatter = engine.routes["/containers/web/logs"] = Chatter(0.001)
    with loop_disk(folder) as (disk, _):
        log = disk / "audit.log"
        proxy = start_proxy(engine.path, "--audit-log", str(log), "--shutdown-timeout", "2")
        follow(proxy.socket, 4)
        wait_for(lambda: len(of(records_of(log), "finding")) > 100, "findings")
        before = ping_times(proxy.socket, 1.0)
        if subprocess.run(
            ["fsfreeze", "-f", str(disk)], capture_output=True, check=False
        ).returncode:
            pytest.skip(f"this machine freezes no file system; {BY_INJECTION}")
        try:
            frozen_at = time.monotonic()
            lines = chatter.lines
            during = ping_times(proxy.socket, 2.0)
            assert chatter.lines > lines + 100  # the streams flow on
            wait_for(lambda: time.monotonic() - frozen_at > 5, "what may be held to be held")
            resident = memory(proxy.process.pid)
            wait_for(lambda: time.monotonic() - frozen_at > 8, "three more seconds")
            growth = memory(proxy.process.pid) - resident
            began = time.monotonic()
            proxy.process.send_signal(signal.SIGTERM)
            wait_for(
                lambda: "could not be finished in time" in proxy.errors.read_text(),
                "the end of all else",
            )
            wait_for(lambda: not os.path.exists(proxy.socket), "the listener's end")
            ended = time.monotonic() - began
            assert proxy.process.poll() is None  # the stuck write is the kernel's
        finally:
            subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
        thawed = time.monotonic()
        assert proxy.process.wait(20) == 74
        seconds = time.monotonic() - thawed
        chatter.over.set()
        p99 = [percentile(times, 0.99) * 1000 for times in (before, during)]
        how = (
            f"`fsfreeze` for 10 s under four streams: p99 of pings {p99[1]:.1f} ms "
            f"({p99[0]:.1f} before), memory +{growth >> 10} KiB in 3 s, "
            f"SIGTERM: all else ended after {ended:.1f} s, status 74 at the thaw"
        )
        found = records_of(log)
        row(
            "hung disk",
            how,
            1,
            len(of(found, "finding")),
            "what was held at SIGTERM",
            "(status 74)",
            seconds,
        )
        assert p99[1] < max(50.0, 4 * p99[0]) and growth < 8 << 20 and ended < 4
        assert not [text for text in problems(log) if "torn" not in text]


# =================================================================================================
# rotation
# =================================================================================================


@pytest.mark.parametrize("rotations, hup", [(50, False), (50, True)])
def test_rename_and_create_under_four_writers_loses_and_doubles_nothing(
    write, folder, rotations, hup
):
    log = folder / "audit.log"
    writer = write(log, "--rate", "1000", "--threads", "4")
    files = []
    for number in range(rotations):
        files.append(folder / f"audit.log.{number}")
        log.rename(files[-1])
        with contextlib.suppress(FileExistsError):
            os.close(os.open(log, os.O_CREAT | os.O_EXCL, 0o600))
        if hup:
            writer.process.send_signal(signal.SIGHUP)
        wait_for(lambda: log.stat().st_size > 4000, "the switch")
    status, result = writer.stop()
    assert problems(*files, log) == [] and status == 0
    records = records_of(*files, log)
    assert len(of(records, "rotated")) == rotations
    written, lost, counted = balance(records, result["accepted"])
    row(
        "rename + create",
        f"four writers at 1 kHz each, {'with' if hup else 'without'} SIGHUP",
        rotations,
        written,
        lost,
        counted,
    )
    assert (lost, counted) == (0, 0)


def test_copytruncate_shows_its_loss(write, folder):
    log = folder / "audit.log"
    writer = write(log, "--rate", "1000", "--threads", "4")
    files = []
    for number in range(10):
        wait_for(lambda: log.stat().st_size > 100_000, "some records")
        files.append(folder / f"audit.log.{number}")
        shutil.copy(log, files[-1])
        if number % 2:  # a copy that takes its time
            size = log.stat().st_size
            wait_for(
                lambda size=size: log.stat().st_size > size,
                "records between the copy and the truncation",
            )
        os.truncate(log, 0)
    status, result = writer.stop()
    text = b"".join(path.read_bytes() for path in (*files, log))
    assert b"\0" not in text and status == 0
    records = records_of(*files, log)
    written, lost, counted = balance(records, result["accepted"])
    seen = named_missing(*files, log)
    truncated = len(of(records, "truncated"))
    row(
        "copytruncate",
        f"four writers at 1 kHz each; {truncated} `truncated` records, "
        f"`verify` names {seen} lines lost",
        10,
        written,
        lost,
        counted,
    )
    assert truncated == 10 and seen >= lost > 0


def test_a_deleted_file_and_a_deleted_directory_are_made_anew(write, folder):
    home = folder / "logs"
    log = home / "audit.log"
    writer = write(log, "--rate", "500")
    worst, kept = 0.0, 0
    for number in range(10):
        wait_for(lambda: log.exists() and log.stat().st_size > 5_000, "some records")
        began = time.monotonic()
        if number % 2:
            home.rename(folder / f"gone{number}")
            shutil.rmtree(folder / f"gone{number}")
        else:
            log.unlink()
        wait_for(log.exists, "the new file")
        worst = max(worst, time.monotonic() - began)
    status, result = writer.stop()
    records = records_of(log)
    kept = len(of(records, "request"))
    row(
        "file or directory deleted",
        "`rm`, `rm -r`",
        10,
        kept,
        f"{result['accepted'] - kept} (they were deleted)",
        "named by `verify`",
        worst,
    )
    assert status == 0 and records[0]["event"] in ("recreated", "rotated") and worst < 2.0
    assert {path.name for path in home.iterdir()} >= {".audit.log.lock"} and problems(log) == []


@pytest.mark.root
def test_a_lost_permission_is_a_full_disk(write, folder):
    home = folder / "logs"
    home.mkdir()
    os.chmod(folder, 0o755)
    os.chown(home, 65534, 65534)
    log = home / "audit.log"
    writer = write(
        log, "--rate", "500", prefix=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    )
    wait_for(lambda: writer.state()[1] > 100, "some records")
    os.chmod(home, 0)
    writer.hears("cannot be written: Permission denied")
    os.chmod(home, 0o700)
    began = time.monotonic()
    writer.hears("can be written again")
    seconds = time.monotonic() - began
    status, result = writer.stop()
    written, lost, counted = balance(records_of(log), result["accepted"])
    row(
        "permission lost (EACCES)",
        "`chmod 0` of the directory, the writer being no root",
        1,
        written,
        lost,
        counted,
        seconds,
    )
    assert (lost, counted, status, problems(log)) == (0, 0, 0, []) and seconds <= 2.0


def logrotate_in_its_own_world(folder, configuration, systemctl):
    """Run logrotate with one of our configurations, on a folder and with a systemctl of its own."""
    world = folder / "world"
    (world / "bin").mkdir(parents=True, exist_ok=True)
    (world / "bin" / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n")
    (world / "bin" / "systemctl").chmod(0o755)
    shutil.copy(configuration, world / "logrotate.conf")
    os.chmod(world / "logrotate.conf", 0o644)
    logs = "/var/log/dockeraudit"
    command = f"logrotate --force --state {world / 'state'} {world / 'logrotate.conf'}"
    script = (
        f"mount -t tmpfs tmpfs /var/log && mkdir {logs} && "
        f"mount --bind {folder / 'logs'} {logs} && PATH={world / 'bin'}:$PATH {command}"
    )
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.root
@pytest.mark.parametrize("recipe", ["logrotate.conf", "logrotate-copytruncate.conf"])
def test_logrotate_with_our_configuration_as_it_stands(engine, start_proxy, folder, recipe):
    needs("logrotate")
    (folder / "logs").mkdir(mode=0o700)
    chatter = engine.routes["/containers/web/logs"] = Chatter(0.001)
    log = folder / "logs" / "audit.log"
    proxy = start_proxy(engine.path, "--audit-log", str(log))
    follow(proxy.socket, 4)
    for _number in range(1, 4):
        wait_for(lambda: len(of(records_of(log), "finding")) > 50, "findings")
        run = logrotate_in_its_own_world(
            folder,
            ROOT / "deploy" / recipe,
            f'[ "$*" = "reload dockeraudit.service" ] && kill -HUP {proxy.process.pid}',
        )
        if "mount" in run.stderr:
            pytest.skip(f"no mount namespace of its own here: {run.stderr.strip()}")
        assert (run.returncode, run.stderr) == (0, "")
        event = "truncated" if "copytruncate" in recipe else "rotated"
        wait_for(lambda event=event: of(records_of(log), event), event)
    chatter.over.set()
    assert proxy.stop() == 0
    files = sorted((folder / "logs").glob("audit.log*"))
    assert [path.name for path in files] == [
        "audit.log",
        "audit.log.1",
        "audit.log.2.gz",
        "audit.log.3.gz",
    ]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    found = verify_files([str(path) for path in files])
    shown = {
        "truncated": "the file was truncated at|(is|are) missing|lines are missing between"
    }.get(event, "^$")
    assert all(re.search(shown, item["problem"]) for item in found.problems)
    lost = chatter.lines - found.totals["findings"]
    row(
        f"logrotate, {recipe}",
        "Debian's logrotate under four streams",
        3,
        found.totals["findings"],
        lost if event == "truncated" else 0,
        0,
    )
    assert (
        event == "truncated" or lost <= 4
    )  # a stream's last line may not have been relayed any more


def recipe_of(document, first_word):
    """The indented block of a document that begins with a word."""
    blocks = re.findall(r"(?:^    .*\n)+", (ROOT / document).read_text(), re.M)
    (block,) = [block for block in blocks if block.strip().startswith(first_word)]
    return re.sub("^    ", "", block, flags=re.M)


def test_plain_mv_by_cron_as_it_stands(write, folder):
    home = folder / "logs"
    log = home / "audit.log"
    writer = write(log, "--rate", "1000")
    wait_for(lambda: writer.state()[1] > 100, "some records")
    recipe = recipe_of("docs/reliability.md", "cd /var/log/dockeraudit")
    for _number in range(3):
        run = subprocess.run(
            ["sh", "-ec", recipe.replace("/var/log/dockeraudit", str(home))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        wait_for(log.exists, "the new file")
    status, result = writer.stop()
    files = sorted(home.glob("audit.log*"))
    assert status == 0 and problems(*files) == [], files
    written, lost, counted = balance(records_of(*files), result["accepted"])
    row("plain `mv` by cron", "the recipe below, without a signal", 3, written, lost, counted)
    assert (lost, counted) == (0, 0)


# =================================================================================================
# processes and signals
# =================================================================================================


def serve(folder, log):
    proxy = ProxyProcess(folder, str(folder / "no-engine.sock"), "--audit-log", str(log))
    try:
        return proxy.process.wait(20), proxy.errors.read_text()
    finally:
        proxy.stop()


@pytest.mark.root
def test_what_is_no_regular_file_is_refused_with_78(folder):
    os.mkfifo(folder / "fifo")
    (folder / "directory").mkdir()
    (folder / "symlink").symlink_to(folder / "target")
    os.mknod(folder / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for name in ("fifo", "directory", "symlink", "device"):
        status, said = serve(folder, folder / name)
        assert status == 78 and f"{name} cannot be opened: it is" in said, said
    row("FIFO, symlink, directory, device at the path", "`serve` refuses to start: 78", 4, 0, 0, 0)


def test_a_second_process_is_refused_with_75(engine, start_proxy, folder):
    start_proxy(engine.path)
    for _ in range(3):
        status, said = serve(folder, folder / "audit.log")
        assert status == 75 and "in use by another dockeraudit" in said
    row("second process on the same log", "`serve` refuses to start: 75", 3, 0, 0, 0)


def test_a_thousand_hups_in_a_second(engine, start_proxy, folder):
    chatter = engine.routes["/containers/web/logs"] = Chatter()
    proxy = start_proxy(engine.path)
    follow(proxy.socket, 2)
    proxy.wait_records("finding", 10)
    for _ in range(1000):
        proxy.process.send_signal(signal.SIGHUP)
        time.sleep(0.0005)
    found = len(proxy.records("finding"))
    proxy.wait_records("finding", found + 10)
    chatter.over.set()
    assert proxy.stop() == 0
    assert problems(proxy.log) == [] and not proxy.records("rotated")
    row(
        "1,000 SIGHUP in a second",
        "`kill -HUP` under two streams",
        1,
        len(proxy.records("finding")),
        0,
        0,
    )


def test_sigterm_with_twenty_followers_closes_each_stream_in_the_log(engine, start_proxy, folder):
    chatter = engine.routes["/containers/web/logs"] = Chatter(0.01)
    proxy = start_proxy(engine.path)
    follow(proxy.socket, 20)
    proxy.wait_records("stream_open", 20)
    proxy.wait_records("finding", 50)
    began = time.monotonic()
    assert proxy.stop() == 0
    seconds = time.monotonic() - began
    chatter.over.set()
    closes = proxy.records("stream_close")
    assert (
        len(closes) == 20
        and {record["reason"] for record in closes} == {"shutdown"}
        and seconds < 10
    )
    told = sum(record["count"] for record in proxy.records("finding"))
    assert sum(record["findings"] for record in closes) == told and problems(proxy.log) == []
    row(
        "SIGTERM with 20 open `logs -f`",
        "each has its `stream_close`; `stop` is last",
        1,
        told,
        0,
        0,
        None,
    )


def test_a_scanner_that_raises_is_recorded_and_the_stream_goes_on(engine, start_proxy, folder):
    program = folder / "raising.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(PROGRAM).parent)!r})\nimport dockeraudit\n"
        "rooms = sys.modules.get('_dockeraudit.scanner', dockeraudit)  # or the stitched file\n"
        "whole = rooms.Scanner.scan_lines\n"
        "def scan(self, block):\n"
        "    if b'poison' in block: raise ValueError(block)\n"
        "    return whole(self, block)\n"
        "rooms.Scanner.scan_lines = scan\ndockeraudit.main()\n"
    )
    sent = [b"before %b\n" % AWS_KEY, b"poison secret-in-an-exception\n", b"after %b\n" % AWS_KEY]

    def answer(sock, head):
        sock.sendall(LOGS_HEAD)
        for line in sent:
            sock.sendall(chunk(stdcopy_frame(1, line)))
            time.sleep(0.1)
        sock.sendall(b"0\r\n\r\n")

    engine.routes["/containers/web/logs"] = answer
    proxy = start_proxy(engine.path, program=str(program))
    with connect(proxy.socket) as sock:
        sock.sendall(LOGS)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(65536)
    assert all(line in data for line in sent)
    proxy.wait_records("stream_close")
    assert proxy.stop() == 0
    assert [record["error"] for record in proxy.records("scan_error")] == ["ValueError"]
    assert sum(record["count"] for record in proxy.records("finding")) == 2
    assert [(record["unscanned"], record["lines"]) for record in proxy.records("stream_close")] == [
        (len(sent[1]), 3)
    ]
    assert "secret-in-an-exception" not in proxy.log.read_text() + proxy.errors.read_text()
    row(
        "a scanner that raises",
        "a patched scanner; `scan_error`, and the stream goes on",
        1,
        2,
        0,
        0,
    )


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <stdio.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) {
        FILE *file = fopen(getenv("CLOCK_OFFSET"), "r");
        long offset = 0;
        if (file) { if (fscanf(file, "%ld", &offset) != 1) offset = 0; fclose(file); }
        now->tv_sec += offset;
    }
    return result;
}
"""


def test_clock_steps_disturb_nothing(write, folder):
    if not shutil.which("cc"):
        pytest.skip("no C compiler for a clock that steps; test_auditlog.py steps an injected one")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"],
        check=True,
    )
    log, offset = folder / "audit.log", folder / "offset"
    offset.write_text("0")
    writer = write(
        log,
        "--rate",
        "300",
        env={**os.environ, "LD_PRELOAD": str(folder / "shim.so"), "CLOCK_OFFSET": str(offset)},
    )
    for step in ("3600", "-86400", "500000000", "-1000000000", "0"):
        offset.write_text(step)
        size = log.stat().st_size
        wait_for(lambda size=size: log.stat().st_size > size + 10_000, "more records")
    status, result = writer.stop()
    records = records_of(log)
    assert len({record["timestamp"][:4] for record in records}) >= 3  # the steps were seen
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    written, lost, counted = balance(records, result["accepted"])
    row(
        "clock steps",
        "a preloaded clock_gettime: an hour on, a day back, 16 years on, 32 back",
        5,
        written,
        lost,
        counted,
    )
    assert (lost, counted, status, problems(log)) == (0, 0, 0, [])


# =================================================================================================
# --on-audit-failure deny
# =================================================================================================


def status_of(proxy, request):
    with connect(proxy.socket) as sock:
        sock.sendall(request)
        return int(sock.recv(65536).split(b" ")[1])


@pytest.mark.root
def test_deny_stops_what_would_go_unrecorded_and_nothing_else(engine, start_proxy, folder):
    chatter = engine.routes["/containers/web/logs"] = Chatter(0.01)
    ping = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
    with mounted(folder / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        log = disk / "audit.log"
        proxy = start_proxy(engine.path, "--audit-log", str(log), "--on-audit-failure", "deny")
        readers = follow(proxy.socket, 3)
        wait_for(lambda: len(of(records_of(log), "finding")) > 20, "findings")
        filler = disk / "filler"
        fill(filler)
        began = time.monotonic()
        for _, thread in readers:
            thread.join(20)
            assert not thread.is_alive()
        cut = time.monotonic() - began
        assert status_of(proxy, LOGS) == 503 and status_of(proxy, ping) == 200
        filler.unlink()
        began = time.monotonic()
        wait_for(lambda: status_of(proxy, LOGS) == 200, "it to open again by itself")
        seconds = time.monotonic() - began
        closes = wait_for(
            lambda: (
                len(of(records_of(log), "stream_close")) >= 3
                and of(records_of(log), "stream_close")
            ),
            "the closes",
        )
        assert {record["reason"] for record in closes[:3]} == {"audit_failure"}
        chatter.over.set()
        assert proxy.stop() == 0 and problems(log) == []
        how = f"tmpfs full: three streams cut within {cut:.1f} s, audited routes 503, /_ping 200"
        row("`--on-audit-failure deny`", how, 1, len(of(records_of(log), "finding")), 0, 0, seconds)
    assert seconds <= 2.5 and cut < 5


# =================================================================================================
# floods
# =================================================================================================


def read_whole(path, request):
    """Send a request and read until the answer has ended."""
    with connect(path) as sock:
        sock.sendall(request)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            block = sock.recv(1 << 20)
            assert block, "the answer was cut"
            data += block[-64:]


@pytest.mark.parametrize("containers", [8, pytest.param(32, marks=pytest.mark.full)])
def test_a_flood_of_secrets_loses_nothing_and_hides_no_key(engine, start_proxy, folder, containers):
    """Each container prints a different secret in every line, every third a key."""
    lines = 2000

    def answer(sock, head):
        name = int(re.search(rb"/containers/c(\d+)/logs", head)[1])
        sock.sendall(LOGS_HEAD)
        for number in range(0, lines, 20):
            texts = [
                b"key %b%04d%04dABCDEFGH\n" % (b"AK" + b"IA", name, line)
                if line % 3 == 0
                else b"user%d@c%d.example.org\n" % (line, name)
                for line in range(number, number + 20)
            ]
            sock.sendall(chunk(b"".join(stdcopy_frame(1, text) for text in texts)))
        sock.sendall(b"0\r\n\r\n")

    for name in range(containers):
        engine.routes[f"/containers/c{name}/logs"] = answer
    proxy = start_proxy(engine.path)
    requests = [LOGS.replace(b"/web/", b"/c%d/" % name) for name in range(containers)]
    threads = [
        threading.Thread(target=read_whole, args=(proxy.socket, request)) for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    proxy.wait_records("stream_close", containers)
    assert proxy.stop() == 0
    records = records_of(proxy.log)
    found, suppressed = of(records, "finding"), of(records, "suppressed")
    matches = sum(record["count"] for record in found) + sum(
        sum(record["counts"].values()) for record in suppressed
    )
    closes = of(records, "stream_close")
    assert matches == sum(record["findings"] for record in closes)
    unscanned = sum(record["unscanned"] for record in closes)
    assert matches == containers * lines or unscanned
    high = sum(record["severity"] == "HIGH" for record in found)
    assert problems(proxy.log) == [] and high > len(found) / 2
    row(
        "flood of secrets",
        f"{containers} containers, a different secret in each of {lines} lines: "
        f"{high} of {len(found)} findings HIGH, {matches - len(found)} counted in `suppressed`",
        1,
        len(records),
        0,
        0,
    )


# =================================================================================================
# cron
# =================================================================================================


def test_the_daily_script_is_silent_of_a_whole_log_and_tells_of_a_hole(write, folder):
    log = folder / "audit.log"
    environment = {
        "PATH": os.environ["PATH"],
        "DOCKERAUDIT_AUDIT_LOG": str(log),
        "DOCKERAUDIT_PROGRAM": PROGRAM,
    }

    def mail():
        run = subprocess.run(
            ["sh", str(ROOT / "deploy" / "cron.daily")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.stderr == "" and run.returncode == 0, run
        return run.stdout

    assert mail() == ""  # there is no log
    writer = write(log, "--rate", "500")
    wait_for(lambda: writer.state()[1] > 50, "some records")
    log.rename(folder / "audit.log.1")
    wait_for(log.exists, "the new file")
    assert "NOT WHOLE" not in mail()
    writer.stop()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3] + lines[4:]))
    told = mail()
    assert "NOT WHOLE" in told and "is missing, without a gap that names it" in told
    assert mail() == ""  # that has been told
