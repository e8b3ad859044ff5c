"""What the report says of a log, and that no hostile text gets out of it unescaped."""
import gzip
import io
import json

from report import AuditSummary, render_html, render_text, run_report

HOSTILE = "<script>alert(1)</script>\u202e'\"\x1b[2J"


def finding(**changes):
    record = {
        "timestamp": "2026-01-02T03:04:05.000000Z", "event": "finding", "container_id": "c" * 64, "container_name": "web", "pattern": "Password",
        "redacted_match": "pa***23", "severity": "HIGH", "rule": "password", "fingerprint": "ab" * 8, "count": 2,
    }  # fmt: skip
    return {**record, **changes}


RECORDS = [
    finding(),
    finding(container_id="d" * 64, container_name="db", timestamp="2026-01-03T00:00:00.000000Z"),
    finding(severity="LOW", rule="email-address", pattern="Email Address", fingerprint="cd" * 8, count=1),
    {"timestamp": "2026-01-02T03:05:00Z", "event": "stream_close", "client": {"uid": 7, "command": "docker"}, "bytes": 2048, "findings": 3, "unscanned": 5, "container_id": "c" * 64},
    {"timestamp": "2026-01-02T03:06:00Z", "event": "denied", "method": "POST", "path": "/x", "rule": "POST", "count": 4},
    {"timestamp": "2026-01-02T03:07:00Z", "event": "gap", "records": 9, "matches": 2},
]


def write(tmp_path, records, name="audit.log"):
    data = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def report(files, **options):
    out, err = io.StringIO(), io.StringIO()
    chosen = dict.fromkeys(("since", "container", "pattern", "severity", "fail_on"))
    status = run_report(files, **{**chosen, "json_output": False, "html": False, **options}, out=out, err=err, now=1767400000.0)
    return status, out.getvalue(), err.getvalue()


def test_json_has_every_part(tmp_path):
    status, out, _ = report([write(tmp_path, RECORDS)], json_output=True)
    found = json.loads(out)
    assert status == 0 and list(found) == ["totals", "secrets", "containers", "readers", "losses", "denied"]
    assert found["totals"]["findings"] == {"HIGH": 4, "LOW": 1}
    assert found["secrets"][0]["count"] == 4 and len(found["secrets"][0]["containers"]) == 2
    assert found["losses"] == {"bytes not scanned": 5, "records lost": 9, "findings lost": 2}
    assert found["denied"] == [{"request": "POST /x (POST)", "count": 4}]
    assert found["readers"][0]["client"] == "uid 7 (docker)"


def test_options_choose(tmp_path):
    path = write(tmp_path, RECORDS, "audit.log.1.gz")
    assert json.loads(report([path], json_output=True, severity="high")[1])["totals"]["findings"] == {"HIGH": 4}
    assert json.loads(report([path], json_output=True, container="db")[1])["totals"]["findings"] == {"HIGH": 2}
    assert json.loads(report([path], json_output=True, since="2026-01-02T12:00")[1])["totals"]["findings"] == {"HIGH": 2}
    assert json.loads(report([path], json_output=True, pattern="email address")[1])["totals"]["findings"] == {"LOW": 1}


def test_exit_codes(tmp_path):
    path = write(tmp_path, RECORDS)
    assert report([path], fail_on="HIGH")[0] == 1
    assert report([path], fail_on="HIGH", pattern="Email Address")[0] == 0
    assert report([path], since="yesterday")[0] == 78
    assert report([path], severity="loud")[0] == 78
    assert report([str(tmp_path / "none")])[0] == 66


def test_text_is_narrow_and_harmless(tmp_path):
    hostile = [finding(container_name=HOSTILE * 50, pattern=HOSTILE), *RECORDS]
    _, out, _ = report([write(tmp_path, hostile)])
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out and "\u202e" not in out
    assert "What leaked" in out and "Who read these streams" in out


def test_colour_only_where_asked():
    summary = AuditSummary()
    summary.add_line(json.dumps(finding()).encode())
    assert "\x1b[31" in render_text(summary, True) and "\x1b" not in render_text(summary, False)


def test_page_escapes_everything():
    summary = AuditSummary()
    fields = ("container_id", "container_name", "pattern", "redacted_match", "severity", "rule", "fingerprint")
    summary.add(finding(**dict.fromkeys(fields, HOSTILE)))
    summary.add({"timestamp": HOSTILE, "event": "denied", "method": HOSTILE, "path": HOSTILE, "rule": HOSTILE})
    summary.add({"timestamp": HOSTILE, "event": "stream_close", "client": {"address": HOSTILE}, "bytes": 1})
    page = render_html(summary, title=HOSTILE, live={"streams": [{"container": HOSTILE}], "counters": {HOSTILE: HOSTILE}, "engine_up": True})
    assert "<script" not in page and "\u202e" not in page and "\x1b" not in page and "'\"" not in page


def test_bad_lines_are_counted_and_survived():
    summary = AuditSummary()
    for line in (b"", b"{", b"[]", b'{"event": 5}', b'{"event": "finding", "count": "x"}', b"\xff"):
        summary.add_line(line)
    assert summary.bad_lines == 5 and summary.records == 1
