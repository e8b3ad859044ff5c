"""The command `report`, and what else reads audit logs: files, exit statuses, state, learn."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys

import pytest
from auditrecords import (
    DB,
    RECORDS,
    REMOTE,
    Terminal,
    denied,
    finding,
    gap,
    line_of,
    log_bytes,
    numbered,
    report,
    stream,
    write,
)
from program import run_program

import _dockeraudit.report as report_room
from _dockeraudit.report import line_batches, log_history, read_tail
from _dockeraudit.summary import AuditSummary
from conftest import PROGRAM, ROOT


def command(*arguments, stdin=b"", env=None, **streams):
    """The product's own command; standard input is these bytes."""
    return run_program(*arguments, input=stdin, env={**os.environ, **(env or {})}, **streams)


class OneByteReads(io.BytesIO):
    """A file that gives at most so many bytes at once."""

    def __init__(self, data, size):
        super().__init__(data)
        self.size = size

    def read1(self, size=-1):
        return super().read1(self.size)


@pytest.mark.parametrize(
    "option, text",
    [
        ("since", "yesterday"), ("severity", "loud"), ("fail_on", "x"), ("secret", "abc"),
        ("secret", "ghij"), ("top", "0"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_and_78(tmp_path, option, text):
    status, out, err = report([write(tmp_path, RECORDS)], **{option: text})
    assert status == 78 and repr(text) in err and out == ""


def test_exit_statuses(tmp_path):
    path = write(tmp_path, RECORDS)
    assert report([path])[0] == 0
    assert report([path], fail_on="HIGH")[0] == 1
    assert report([path], fail_on="HIGH", pattern="Email Address")[0] == 0
    assert report([path], fail_on="medium", pattern="Email Address")[0] == 0
    assert report([path], fail_on="low", pattern="Email Address")[0] == 1


def test_an_unreadable_file_is_named_and_the_others_are_read(tmp_path):
    bad = tmp_path / "bad.gz"
    lines = b"".join(line_of(record) + b"\n" for record in numbered([finding()] * 9))
    bad.write_bytes(gzip.compress(lines)[:-12])
    status, out, err = report([str(tmp_path / "none"), str(bad), write(tmp_path, RECORDS)])
    assert status == 66 and "none: No such file" in err and "bad.gz: " in err
    assert "What leaked" in out and "files could not be read" in out


def test_a_log_without_records_is_no_all_clear(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "other").write_bytes(b"hello\nworld\n")
    for options in ({}, {"format": "html"}, {"format": "csv"}, {"state": str(tmp_path / "s")}):
        status, out, err = report([str(tmp_path / "empty")], **options)
        assert (status, out) == (66, "") and "there are no records of dockeraudit in" in err
    status, out, err = report([str(tmp_path / "other")])
    assert (status, out) == (66, "") and "2 lines of something else" in err
    status, out, err = report([str(tmp_path / "empty")], format="json")
    assert status == 66 and json.loads(out)["totals"]["records"] == 0


def test_a_log_that_has_ended_before_since_is_no_all_clear(tmp_path):
    path = write(tmp_path, RECORDS)
    status, out, err = report([path], since="2026-01-04", fail_on="HIGH")
    assert (status, out) == (66, "")
    assert "no records since 2026-01-04; the last: 2026-01-03 00:00" in err
    quiet = [*RECORDS, {"timestamp": "2026-01-05T00:00:00.000000Z", "event": "stats"}]
    assert report([write(tmp_path, quiet)], since="2026-01-04", container="web")[0] == 0


SHIPPERS = {
    "json-file": lambda line: line_of({"log": line.decode() + "\n", "stream": "stdout"}),
    "CRI": lambda line: b"2026-01-02T03:04:05.123456789Z stdout F " + line,
    "syslog": lambda line: b"Jan  2 03:04:05 host dockeraudit[1]: " + line,
    "Compose": lambda line: b"dockeraudit-1  | " + line,
}


@pytest.mark.parametrize("shipper", SHIPPERS)
def test_a_shipped_log_is_reported_as_the_log_itself(tmp_path, shipper):
    expected = report([write(tmp_path, RECORDS)])
    lines = [SHIPPERS[shipper](line_of(record)) for record in numbered(RECORDS)]
    (tmp_path / "shipped").write_bytes(b"\n".join(lines) + b"\n")
    assert report([str(tmp_path / "shipped")]) == expected
    assert report([str(tmp_path / "shipped"), str(tmp_path / "audit.log")]) == expected


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
def test_a_file_and_its_copy_count_once(tmp_path, suffix):
    path = write(tmp_path, RECORDS)
    expected = report([path])
    copy = write(tmp_path, RECORDS, f"copy{suffix}")
    assert report([copy]) == expected
    assert report([path, copy]) == report([copy, path, path]) == expected


def test_where_no_log_was_named_its_absence_says_how_to_name_it(tmp_path):
    missing = str(tmp_path / "audit.log")
    assert "name the log: dockeraudit report FILE" in report([missing], named=False)[2]
    assert "name the log" not in report([missing])[2]


def test_csv_has_a_row_for_each_way_a_secret_was_seen(tmp_path):
    formula = finding(
        container_id="e" * 64,
        container_name="=cmd",
        client={"address": "@x"},
        fingerprint="ee" * 8,
        env="DB_PASSWORD",
    )
    path = write(tmp_path, [*RECORDS, formula])
    rows = list(csv.DictReader(io.StringIO(report([path], format="csv")[1])))
    assert len(rows) == 4 and sum(int(row["count"]) for row in rows) == 7
    assert {row["container_name"] for row in rows} == {"web", "db", "'=cmd"}
    assert [row["env"] for row in rows if row["env"]] == ["DB_PASSWORD"]
    assert "'@x" in {row["client"] for row in rows} and rows[0]["severity"] == "HIGH"


# ==================================================================================================
# files
# ==================================================================================================


def test_lines_come_whole_wherever_blocks_end_and_endless_ones_in_pieces(monkeypatch):
    data = b"".join(b"%d" % number * (number % 7) + b"\n" for number in range(500)) + b"torn"
    for size in (1, 2, 7, 4096):
        batches = list(line_batches(OneByteReads(data, size)))
        assert [line for _, lines in batches for line in lines] == data.split(b"\n")
        assert sum(size for size, _ in batches) == len(data)
    monkeypatch.setattr(report_room, "LONGEST_LINE", 100)
    endless = line_batches(OneByteReads(b"x" * 10_000, 64))
    assert max(len(line) for _, lines in endless for line in lines) <= 164


def test_progress_is_for_terminals_and_large_files(tmp_path, monkeypatch):
    path = write(tmp_path, RECORDS)
    monkeypatch.setattr(report_room, "PROGRESS_BYTES", 1)
    clock = iter(range(100))
    monkeypatch.setattr(report_room.time, "monotonic", lambda: next(clock))
    shown = report([path], err=Terminal())[2]
    assert "of 2." in shown and shown.endswith("\r\x1b[K")
    assert report([path])[2] == ""


def test_the_history_is_the_log_with_its_rotated_files_oldest_first(tmp_path):
    names = [
        "audit.log.2.gz", "audit.log.1", "audit.log-20260101.xz", "audit.log", "audit.log.key",
        ".audit.log.lock", "audit.log.bak", "other.log.1",
    ]  # fmt: skip
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1767000000 + age, 1767000000 + age))
    log = str(tmp_path / "audit.log")
    assert [os.path.basename(path) for path in log_history(log)] == names[:4]
    assert log_history(log, "2030-01-01") == [log]
    assert log_history("-") == ["-"] and log_history("/nonexistent/x") == ["/nonexistent/x"]


def test_the_tail_of_a_log_begins_with_a_whole_line(tmp_path):
    path = write(tmp_path, [finding()] * 100)
    summary = AuditSummary()
    read_tail(summary, path, size=5000)
    assert 5 < summary.records < 12 and not summary.losses


# ==================================================================================================
# --state: nothing twice
# ==================================================================================================


def reported(folder, *records):
    return report([write(folder, records)], state=str(folder / "state"))


def test_with_a_state_only_news_is_told(tmp_path):
    later = "2026-01-05T00:00:00.000000Z"
    assert "What leaked" in reported(tmp_path, *RECORDS)[1]
    assert reported(tmp_path, *RECORDS) == (0, "", "")
    again = [*RECORDS, finding(timestamp=later), stream("stream_close", timestamp=later)]
    assert reported(tmp_path, *again)[1] == ""
    for news in (
        finding(timestamp=later, fingerprint="ee" * 8),
        finding(timestamp=later, container_id=DB),
        finding(timestamp=later, client={"address": "10.9.9.9"}),
        finding(timestamp=later, endpoint="inspect"),
        denied(timestamp=later, path="/new"),
        gap(timestamp=later, records=1, matches=0),
    ):
        again.append(news)
        out = reported(tmp_path, *again)[1]
        assert out.startswith("2026-01-05 00:00 UTC, "), news
        assert reported(tmp_path, *again)[1] == "", news
    assert os.stat(tmp_path / "state").st_mode & 0o777 == 0o600


def test_a_record_that_waited_for_its_name_is_not_missed(tmp_path):
    reported(tmp_path, *RECORDS)
    late = finding(timestamp="2026-01-02T23:59:59.200000Z", fingerprint="ee" * 8)
    assert "eeee" in reported(tmp_path, *RECORDS, late)[1]


def test_a_state_file_of_something_else_is_kept(tmp_path):
    (tmp_path / "state").write_text("precious")
    assert reported(tmp_path, *RECORDS)[0] == 78
    assert (tmp_path / "state").read_text() == "precious"


def test_a_state_that_cannot_be_written_is_said(tmp_path):
    status, out, err = report([write(tmp_path, RECORDS)], state=str(tmp_path / "none" / "state"))
    assert status == 73 and "What leaked" in out and "cannot be written" in err


def test_cron_mails_once(tmp_path):
    log = write(tmp_path, RECORDS)
    environment = {**os.environ, "DOCKERAUDIT_AUDIT_LOG": log, "DOCKERAUDIT_PROGRAM": PROGRAM}

    def run():
        script = str(ROOT / "deploy" / "cron.daily")
        done = subprocess.run(
            [script], env=environment, capture_output=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    status, out, err = run()
    assert status == 0 and b"What leaked" in out and b"\x1b" not in out and err == b""
    assert run() == (0, b"", b"")


# ==================================================================================================
# closed streams
# ==================================================================================================


def without(descriptor, *arguments):
    """A run of the command with a standard descriptor closed: its status and all it said."""
    close = f"exec {descriptor}<&-" if descriptor == 0 else f"exec {descriptor}>&-"
    line = [sys.executable, PROGRAM, *map(str, arguments)]
    done = subprocess.run(
        ["sh", "-c", f'{close}; exec "$@"', "sh", *line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("descriptor", [0, 1, 2])
@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "-"),
        ("verify", "-"),
        ("scan", "-", "--shutdown-timeout", "0.1"),  # how long records wait for a broken output
        ("learn", "-"),
        ("report", "LOG"),
    ],
)
def test_a_closed_standard_stream_is_no_traceback(tmp_path, descriptor, arguments):
    log = write(tmp_path, RECORDS)
    given = [log if argument == "LOG" else argument for argument in arguments]
    status, said = without(descriptor, *given)
    assert b"Traceback" not in said and b"Error" not in said, said
    if descriptor == 0 and given[1] == "-":
        assert status not in (0, 1), said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [(), ("--json",), ("--html",)])
def test_an_output_that_cannot_be_written_is_said(tmp_path, arguments):
    with open("/dev/full", "wb") as full:
        log = write(tmp_path, RECORDS)
        done = command("report", log, *arguments, stdout=full.fileno())
    assert done.returncode == 74 and b"cannot write its output: No space left" in done.stderr
    assert b"Traceback" not in done.stderr


# ==================================================================================================
# learn
# ==================================================================================================


def test_learn_reads_shipped_and_compressed_logs(tmp_path):
    asked = [denied(event="would_deny", path="/containers/web/restart")]
    log = write(tmp_path, asked, "audit.log.gz")
    expected = command("learn", log)
    assert expected.returncode == 0 and b"ALLOW_RESTARTS=1" in expected.stdout
    shipped = b"".join(SHIPPERS["json-file"](line_of(one)) + b"\n" for one in numbered(asked))
    assert command("learn", "-", stdin=shipped).stdout == expected.stdout


@pytest.mark.parametrize(
    "data, arguments, sentence",
    [
        (b"", (), "there are no records of dockeraudit in standard input"),
        (b"hello\n", (), "there are no records of dockeraudit"),
        (log_bytes([{"event": "start"}]), (), "it has recorded no request"),
        (log_bytes([denied(event="would_deny")]), ("--listener", "x"), "there are: tcp"),
    ],
)
def test_learn_from_nothing_is_no_policy(data, arguments, sentence):
    done = command("learn", *arguments, "-", stdin=data)
    assert (done.returncode, done.stdout) == (78, b"") and sentence in done.stderr.decode()


def test_learn_names_a_file_it_cannot_read(tmp_path):
    done = command("learn", tmp_path / "none")
    assert done.returncode == 78 and b"none: No such file" in done.stderr


def test_learn_takes_one_listener_alone():
    asked = [
        denied(event="would_deny", path="/containers/web/restart", client=REMOTE),
        denied(event="would_deny", path="/containers/web/stop", client={"listener": "ci"}),
    ]
    done = command("learn", "--listener", "ci", "-", stdin=log_bytes(numbered(asked)))
    assert b"ALLOW_STOP=1" in done.stdout and b"ALLOW_RESTARTS" not in done.stdout
