"""`scan`: files, folders, standard input, and the logs of scripted and of real engines."""

from __future__ import annotations

import gzip
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading

import pytest
from scripted import LOGS_HEAD, ScriptedEngine, chunk, json_answer, logs_answer, stdcopy_frame

from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.scan import SCAN_HELD, Scan
from _dockeraudit.text import size_text
from conftest import PROGRAM, wait_for

AWS = ("AK" + "IA" + "IOSFODNN7EXAMPLE").encode()
MAIL = b"someone@gro" + b"cers.de"
slow = pytest.mark.slow


def start(*arguments, **streams):
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOCKER", "LOG_LEVEL"))
    }
    chosen = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **streams,
    }
    return subprocess.Popen(
        [sys.executable, PROGRAM, "scan", *map(str, arguments)], env=plain, **chosen
    )


def scan(*arguments, stdin=None):
    """Status, records and diagnostics of one scan."""
    streams = {"stdin": subprocess.PIPE} if stdin is not None else {}
    with start(*arguments, **streams) as process:
        out, err = process.communicate(stdin, timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def of(records, event, container=None, endpoint="scan"):
    return [
        record
        for record in records
        if record["event"] == event
        and container in (None, record["container_id"])
        and record.get("endpoint", endpoint) == endpoint
    ]


# ==================================================================================================
# files
# ==================================================================================================


def test_files_folders_gz_and_standard_input(folder):
    (folder / "sub").mkdir()
    for name, text in {
        "a.log": b"x " + AWS,
        "sub/b.log": MAIL + b"\n",
        "sub/clean": b"nothing\n",
    }.items():
        (folder / name).write_bytes(text)
    (folder / "sub" / "c.gz").write_bytes(gzip.compress(AWS + b"\n" + MAIL + b"\n"))
    os.mkfifo(folder / "sub" / "fifo")
    os.symlink("nowhere", folder / "sub" / "broken")
    status, records, err = scan(folder, "-", stdin=b"key " + AWS + b"\n")
    assert status == 1 and "5 scanned" in err
    assert [record["container_id"] for record in of(records, "stream_close")] == [
        str(folder / name) for name in ("a.log", "sub/b.log", "sub/c.gz", "sub/clean")
    ] + ["-"]
    assert [
        record["pattern"] for record in of(records, "finding", str(folder / "sub" / "c.gz"))
    ] == ["AWS Access Key", "Email Address"]
    assert (
        len(
            {
                record["fingerprint"]
                for record in of(records, "finding")
                if record["rule"] == "aws-access-key"
            }
        )
        == 1
    )
    assert (records[0]["event"], records[-1]["event"], records[-1]["lost"]) == ("start", "stop", 0)
    assert of(records, "finding")[0]["client"]["uid"] == os.getuid()


@slow
def test_a_secret_is_found_wherever_a_block_ends(folder):
    (folder / "long").write_bytes(
        b"z" * (65536 - 10) + b" " + AWS + b" " + b"z" * 65536 + b"\n" + AWS
    )
    assert sum(record["count"] for record in of(scan(folder / "long")[1], "finding")) == 2


@slow
@pytest.mark.parametrize(
    "arguments, text, status",
    [
        ((), b"nothing\n", 0),
        ((), MAIL, 1),
        (("--fail-on", "high"), MAIL, 0),
        (("--fail-on", "HIGH"), AWS, 1),
        (("--fail-on", "loud"), b"", 78),
        (("--disable-rule", "email-address"), MAIL, 0),
        (("--listen", "tcp://127.0.0.1:1"), b"", 78),
        (("/nonexistent/file",), None, 2),
        (("/nonexistent/file", "-"), MAIL, 1),
    ],
)
def test_exit_codes(arguments, text, status):
    code, records, err = scan(*arguments, stdin=text)
    assert code == status, err
    assert "Traceback" not in err and (status != 2 or "cannot read /nonexistent/file" in err)


@slow
def test_a_broken_gz_is_scanned_as_far_as_it_goes(folder):
    whole = gzip.compress(AWS + b"\n" + os.urandom(100_000))
    (folder / "cut.gz").write_bytes(whole[:-5000])
    status, records, err = scan(folder / "cut.gz", folder)
    assert (
        status == 1
        and err.count("cannot read") == 2
        and of(records, "stream_close")[0]["reason"] == "error"
    )
    (folder / "cut.gz").write_bytes(b"no gzip at all")
    assert scan(folder)[0] == 2


@slow
def test_records_go_to_a_log_of_their_own_and_can_be_reported(folder):
    (folder / "text").write_bytes(AWS)
    log = folder / "found.log"
    assert scan(folder / "text", "--audit-log", log)[1] == []
    report = subprocess.run(
        [sys.executable, PROGRAM, "report", str(log)], capture_output=True, timeout=60, check=True
    )
    assert (
        b"AWS Access Key" in report.stdout
        and b"dockeraudit scan (uid" in report.stdout
        and AWS not in log.read_bytes()
    )


@slow
def test_a_scan_can_be_piped_into_a_report(folder):
    (folder / "text").write_bytes(AWS + b"\n")
    with start(folder / "text") as scanning:
        report = subprocess.run(
            [sys.executable, PROGRAM, "report", "--fail-on", "HIGH", "-"],
            stdin=scanning.stdout,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (
        report.returncode == 1
        and b"AWS Access Key" in report.stdout
        and str(folder).encode()[:20] in report.stdout
    )


@slow
def test_a_slow_reader_of_the_records_loses_none(folder):
    """More distinct findings than the log's queue holds, while nobody reads them."""
    for number in range(4):
        (folder / f"{number}.txt").write_bytes(
            b"".join(b"u%d.k%d@gro" % (number, name) + b"cers.de\n" for name in range(9_000))
        )
    with start(folder) as process:
        assert select.select([process.stdout], [], [], 20)[
            0
        ]  # the first record is there, and the pipe soon full
        out, err = process.communicate(timeout=90)
    records = [json.loads(line) for line in out.splitlines()]
    assert (
        len(of(records, "finding")) == 36_000
        and not of(records, "gap")
        and not of(records, "suppressed")
    )
    assert process.returncode == 1 and records[-1]["written"] == len(records)


def test_a_scan_pauses_while_the_log_is_full():
    held = [SCAN_HELD + 5, SCAN_HELD + 1, SCAN_HELD]

    class FullLog:
        @property
        def held(self):
            return held.pop(0)

    Scan(None, FullLog(), Diagnostics("error"))._feed({}, None, [])
    assert held == []


@slow
def test_a_reader_that_goes_away_ends_the_scan(folder):
    (folder / "many").write_bytes(
        b"".join(b"u%d@gro" % name + b"cers.de\n" for name in range(20_000))
    )
    with start(folder / "many") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert b"Traceback" not in process.stderr.read()


@slow
def test_an_interrupt_leaves_a_whole_log(folder):
    log = folder / "found.log"
    with start("--audit-log", log, stdin=subprocess.PIPE) as process:
        process.stdin.write(AWS + b"\n" + b"x" * 100_000)
        process.stdin.flush()
        wait_for(lambda: log.exists() and b'"finding"' in log.read_bytes(), "the finding")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()
    records = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert (
        records[-1]["event"] == "stop"
        and records[-1]["reason"] == "SIGINT"
        and of(records, "stream_close")
    )


@slow
def test_progress_is_shown_on_a_terminal():
    ours, theirs = pty.openpty()
    shown, written = b"", 0
    with start("-", stdin=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        try:
            while True:
                if b"\r0 scanned, " not in shown:
                    written += process.stdin.write(b"nothing to see here\n" * 1000)
                    process.stdin.flush()
                elif not process.stdin.closed:
                    process.stdin.close()
                if process.stdin.closed or select.select([ours], [], [], 0)[0]:
                    shown += os.read(ours, 65536)
        except OSError:
            pass  # the end of a terminal
        os.close(ours)
        assert process.wait(30) == 0
    assert b"\x1b[K" in shown and f"1 scanned, {size_text(written)}, 0 findings".encode() in shown


# ==================================================================================================
# containers of a scripted engine
# ==================================================================================================

NAMES = {
    f"{number:064x}": name
    for number, name in enumerate(("web", "tty", "refuses", "cut", "gone", "old"), 1)
}
BY_NAME = {name: container for container, name in NAMES.items()}
UNSAID = LOGS_HEAD.replace(b"Content-Type: application/vnd.docker.multiplexed-stream\r\n", b"")


@pytest.fixture
def engine(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        for container, name in NAMES.items():
            if name != "gone":
                engine.routes[f"/containers/{container}/json"] = json_answer(
                    {"Id": container, "Config": {"Tty": name == "tty"}}
                )
        listed = [
            {"Id": container, "Names": ["/linked/alias", f"/{name}"]}
            for container, name in NAMES.items()
        ]
        engine.routes["/containers/json"] = json_answer(listed)
        frames = stdcopy_frame(1, b"out " + AWS + b"\n") + stdcopy_frame(2, b"err " + MAIL + b"\n")
        engine.routes[f"/containers/{BY_NAME['web']}/logs"] = logs_answer(frames)
        engine.routes[f"/containers/{BY_NAME['old']}/logs"] = lambda sock, head: sock.sendall(
            UNSAID + chunk(frames[:3]) + chunk(frames[3:]) + b"0\r\n\r\n"
        )
        engine.routes[f"/containers/{BY_NAME['tty']}/logs"] = lambda sock, head: sock.sendall(
            UNSAID + chunk(b"\x01\0\0\0 " + AWS + b"\r\n") + b"0\r\n\r\n"
        )
        engine.routes[f"/containers/{BY_NAME['refuses']}/logs"] = json_answer(
            {"message": "configured logging driver does not support reading"},
            b"501 Not Implemented",
        )

        def cut(sock, head):
            sock.sendall(LOGS_HEAD + chunk(frames) + b"ffff\r\nhalf")
            sock.shutdown(2)

        engine.routes[f"/containers/{BY_NAME['cut']}/logs"] = cut
        yield engine


def test_all_containers_are_scanned_and_failures_named(engine):
    status, records, err = scan("--containers", "--upstream", f"unix://{engine.path}")
    assert status == 1
    for name in ("web", "old", "cut"):
        found = of(records, "finding", BY_NAME[name])
        assert sorted((record["stream_type"], record["pattern"]) for record in found) == [
            ("stderr", "Email Address"),
            ("stdout", "AWS Access Key"),
        ]
        assert {record["container_name"] for record in found} == {name}
    assert [record["stream_type"] for record in of(records, "finding", BY_NAME["tty"])] == ["tty"]
    closes = {
        record["container_name"]: (record["framing"], record["reason"])
        for record in of(records, "stream_close")
    }
    assert closes == {
        "web": ("multiplexed", "end"),
        "old": ("multiplexed", "end"),
        "tty": ("raw", "end"),
        "cut": ("multiplexed", "error"),
    }
    for name, why in {
        "refuses": "does not support reading",
        "gone": "404",
        "cut": "ended its answer before the end",
    }.items():
        assert any(name in line and why in line for line in err.splitlines()), err
    assert "scanned web: " in err and "3 of 6 scanned" in err


def test_named_containers_alone_are_scanned(engine):
    upstream = ("--upstream", engine.path)
    status, records, err = scan(*upstream, "--containers", "web", BY_NAME["tty"])
    assert status == 1 and "2 of 2 scanned" in err
    names = [record["container_name"] for record in of(records, "stream_close")]
    assert sorted(names) == ["tty", "web"]
    status, records, err = scan(*upstream, "--containers", "wbe")
    assert status == 69 and "has no container 'wbe'; there are: web, tty, " in err
    assert of(records, "stream_close") == []


@slow
def test_a_person_is_told_what_a_scan_waits_for_and_what_it_found():
    ours, theirs = pty.openpty()
    with start(stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"type or paste" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, b"key " + AWS + b"\n\x04")
        try:
            while True:
                shown += os.read(ours, 65536)
        except OSError:
            pass  # the end of a terminal
        os.close(ours)
        assert process.wait(30) == 1
    assert b"standard input" in shown and b"line 1" in shown
    assert b"1 secret (1 HIGH) in 1 source" in shown and b'"event"' not in shown


@slow
def test_containers_are_read_several_at_once(engine):
    arrived = threading.Barrier(2, timeout=20)
    answer = logs_answer(stdcopy_frame(1, b"fine\n"))

    def together(sock, head):
        arrived.wait()
        answer(sock, head)

    for name in ("web", "tty"):
        engine.routes[f"/containers/{BY_NAME[name]}/logs"] = together
    for name in ("old", "cut", "refuses", "gone"):
        engine.routes[f"/containers/{BY_NAME[name]}/logs"] = answer
        engine.routes[f"/containers/{BY_NAME[name]}/json"] = json_answer({})
    status, records, err = scan("--containers", "--upstream", engine.path)
    assert status == 0, err
    assert len(of(records, "stream_close")) == 6 and not arrived.broken


@slow
@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"message": "no"}, b"500 Oops"),
        json_answer([{"no": "id"}]),
        lambda sock, head: sock.shutdown(2),
    ],
)
def test_an_engine_that_lists_nothing_is_69(engine, answer):
    engine.routes["/containers/json"] = answer
    status, records, err = scan("--containers", "--upstream", engine.path)
    assert status == 69 and "cannot list the containers" in err and "Traceback" not in err


@slow
def test_no_engine_is_69(folder):
    assert scan("--containers", "--upstream", folder / "none.sock")[0] == 69


# ==================================================================================================
# containers of real engines
# ==================================================================================================

SCRIPT = (
    "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; "
    "echo key {}; echo mail {} >&2"
)


@pytest.fixture
def containers(real_engine):
    """Four containers: framed, with a terminal, running, and one whose log driver keeps nothing."""
    prefix = f"rp{os.getpid()}"
    script = SCRIPT.format(AWS.decode(), MAIL.decode())
    common = ("--network", "none", "busybox", "sh", "-c")
    ids = {}
    kinds = {
        "framed": (),
        "terminal": ("-t",),
        "running": (),
        "unreadable": ("--log-driver", "none"),
    }
    for kind, options in kinds.items():
        command = script + ("; exec sleep 600" if kind == "running" else "")
        ids[kind] = (
            real_engine.docker(
                "run", "-d", "--name", f"{prefix}-{kind}", *options, *common, command
            )
            .stdout.decode()
            .strip()
        )
    for kind in ("framed", "terminal", "unreadable"):
        real_engine.docker("wait", ids[kind])
    wait_for(
        lambda: MAIL in real_engine.docker("logs", ids["running"]).stderr,
        "the running container's last line",
    )
    yield prefix, ids
    real_engine.docker("rm", "-f", *ids.values())


@pytest.mark.engine
def test_containers_of_a_real_engine(real_engine, containers):
    prefix, ids = containers
    status, records, err = scan("--containers", "--upstream", real_engine.host)
    assert status == 1
    for kind in ("framed", "running"):
        found = of(records, "finding", ids[kind])
        assert sorted(
            (record["stream_type"], record["pattern"], record["line"]) for record in found
        ) == [("stderr", "Email Address", 301), ("stdout", "AWS Access Key", 301)]
        (close,) = of(records, "stream_close", ids[kind])
        assert (close["container_name"], close["framing"], close["lines"], close["reason"]) == (
            f"{prefix}-{kind}",
            "multiplexed",
            602,
            "end",
        )
    assert {
        (record["stream_type"], record["pattern"])
        for record in of(records, "finding", ids["terminal"])
    } == {("tty", "AWS Access Key"), ("tty", "Email Address")}
    assert of(records, "stream_close", ids["terminal"])[0]["framing"] == "raw"
    for container in ids.values():  # the key stands in each one's command
        shown, *_ = of(records, "finding", container, "inspect")
        assert (shown["rule"], shown["stream_type"]) == ("aws-access-key", "answer")
        printed = real_engine.docker("inspect", container).stdout.splitlines()
        assert AWS in printed[shown["line"] - 1]
    assert f"cannot read the log of {prefix}-unreadable: the engine answered 501" in err
    assert (
        len(
            {
                record["fingerprint"]
                for record in of(records, "finding")
                if record["container_id"] in ids.values() and record["rule"] == "aws-access-key"
            }
        )
        == 1
    )


@pytest.mark.engine
def test_one_command_says_where_a_credential_leaks(real_engine, containers, folder):
    """What a stranger types first: scan the host, then ask the report."""
    prefix, ids = containers
    scan("--containers", "--upstream", real_engine.host, "--audit-log", folder / "first.log")
    report = subprocess.run(
        [
            sys.executable,
            PROGRAM,
            "report",
            "--json",
            "--container",
            f"{prefix}-framed",
            str(folder / "first.log"),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    (key,) = (
        secret
        for secret in json.loads(report.stdout)["secrets"]
        if secret["rule"] == "aws-access-key"
    )
    detail = subprocess.run(
        [
            sys.executable,
            PROGRAM,
            "report",
            "--json",
            "--secret",
            key["fingerprint"],
            str(folder / "first.log"),
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    (found,) = json.loads(detail.stdout)["secrets"]
    ways = {(seen["container_id"], seen["endpoint"]) for seen in found["sightings"]}
    for kind in ("framed", "terminal", "running"):
        assert {(ids[kind], "inspect"), (ids[kind], "output")} <= ways
    assert all(reader.startswith("dockeraudit scan") for reader in found["readers"])
