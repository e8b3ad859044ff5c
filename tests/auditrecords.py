"""Audit records for tests, as the writer makes them, and reports of them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma

from _dockeraudit.choice import Choice
from _dockeraudit.report import ReportOptions, run_report
from _dockeraudit.summary import AuditSummary

HOSTILE = "<script>alert(1)</script>\u202e'\"\x1b[2J\u2028\u061c"
NOW = 1767400000.0  # 2026-01-03 00:26:40
DOCKER = {"listener": "unix:///run/d.sock", "uid": 7, "gid": 7, "pid": 99, "command": "docker"}
REMOTE = {"listener": "tcp", "address": "10.0.0.9", "certificate": "CN=portainer"}
WEB, DB = "c" * 64, "d" * 64
PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


def finding(**changes):
    """A finding of a password in the container web."""
    record = {
        "timestamp": "2026-01-02T03:04:05.000000Z", "event": "finding", "run": "0badcafe",
        "seq": 5, "prev": "0" * 16, "container_id": WEB, "container_name": "web",
        "stream_type": "stdout", "pattern": "Password", "redacted_match": "pa***23",
        "severity": "HIGH", "rule": "password", "fingerprint": "ab" * 8, "count": 2,
        "endpoint": "logs", "client": DOCKER, "stream": 1, "line": 9,
    }  # fmt: skip
    return {**record, **changes}


def update(**changes):
    """The update of a finding with seq 5."""
    record = {
        "timestamp": "2026-01-02T03:04:06.000000Z",
        "event": "finding_update",
        "run": "0badcafe",
        "finding": 5,
        "complete": True,
    }
    return {**record, **changes}


def stream(event, **changes):
    """A stream_open or stream_close of the container web."""
    record = {
        "timestamp": "2026-01-02T03:05:00.000000Z",
        "event": event,
        "run": "0badcafe",
        "stream": 1,
        "container_id": WEB,
        "container_name": "web",
        "client": DOCKER,
        "audited": True,
    }
    return {**record, **changes}


def denied(**changes):
    """A refused request."""
    record = {
        "timestamp": "2026-01-02T03:06:00.000000Z",
        "event": "denied",
        "method": "POST",
        "path": "/x",
        "client": REMOTE,
        "rule": "POST",
        "count": 4,
    }
    return {**record, **changes}


def gap(**changes):
    """Records that were lost."""
    record = {
        "timestamp": "2026-01-02T03:07:00.000000Z",
        "event": "gap",
        "records": 9,
        "matches": 2,
        "since": "2026-01-02T01:00:00.000000Z",
    }
    return {**record, **changes}


RECORDS = [
    stream("stream_open"),
    finding(),
    finding(
        container_id=DB,
        container_name="db",
        timestamp="2026-01-03T00:00:00.000000Z",
        client=REMOTE,
        stream=2,
    ),
    finding(
        severity="LOW", rule="email-address", pattern="Email Address", fingerprint="cd" * 8, count=1
    ),
    stream("stream_close", bytes=2048, findings=3, unscanned=5),
    denied(),
    gap(),
]


def line_of(record):
    """A record's line without its newline."""
    return json.dumps(record).encode()


def numbered(records):
    """The records with a seq of their own each, as a log has them."""
    return [{"run": "0badcafe", **record, "seq": seq} for seq, record in enumerate(records, 1)]


def log_bytes(records):
    """A log of these records."""
    return b"".join(line_of(record) + b"\n" for record in records)


def write(folder, records, name="audit.log"):
    """A log file of these records, each with a seq of its own; its path."""
    data = log_bytes(numbered(records))
    for suffix, pack in PACKERS.items():
        if name.endswith(suffix):
            data = pack(data)
    (folder / name).write_bytes(data)
    return str(folder / name)


def summary_of(*records, **choice):
    """The summary of some records."""
    summary = AuditSummary(Choice(**choice))
    summary.add_all(records)
    summary.settle()
    return summary


def hostile_summary(text):
    """A summary in which every field says `text`."""
    names = (
        "container_id", "container_name", "pattern", "redacted_match", "severity", "rule",
        "fingerprint", "stream_type", "endpoint",
    )  # fmt: skip
    client = {"address": text, "certificate": text}
    local = {"uid": text, "command": text}
    return summary_of(
        finding(**dict.fromkeys(names, text), client=client),
        finding(),
        denied(timestamp=text, method=text, path=text, rule=text, client=local),
        denied(event="would_deny", method=text, path=text, rule=text, client=local),
        stream(
            "stream_close", timestamp=text, client={"address": text}, container_id=text, bytes=1
        ),
        gap(since=text),
    )


class Terminal(io.StringIO):
    """A text that says it is a terminal."""

    def isatty(self):
        return True


def report(files, out=None, err=None, **options):
    """Status, output and errors of `report`."""
    out, err = out or io.StringIO(), err or io.StringIO()
    status = run_report(files, ReportOptions(**options), out, err, NOW)
    return status, out.getvalue(), err.getvalue()


def json_report(*records, folder, **options):
    """The report of some records as an object."""
    return json.loads(report([write(folder, records)], format="json", **options)[1])
