"""What the report says of a log, and that no hostile text gets out of it unescaped."""

import gzip
import io
import json
import os
import random
import re
import subprocess

import pytest

import _dockeraudit.report as report_room
import _dockeraudit.summary as summary_room
from _dockeraudit.page import bar_hours, render_html
from _dockeraudit.records import Record, encode_record
from _dockeraudit.report import line_batches, log_history, read_tail, run_report
from _dockeraudit.summary import (
    HOUR_LIMIT,
    LOSSES,
    OTHERS,
    AuditSummary,
    Choice,
    hours_between,
    since_timestamp,
)
from _dockeraudit.terminal import render_text
from _dockeraudit.text import columns, fit, pad, printable
from conftest import PROGRAM, ROOT

HOSTILE = "<script>alert(1)</script>\u202e'\"\x1b[2J\u2028\u061c"
DOCKER = {"listener": "unix:///run/d.sock", "uid": 7, "gid": 7, "pid": 99, "command": "docker"}
REMOTE = {"listener": "tcp", "address": "10.0.0.9", "certificate": "CN=portainer"}
WEB, DB = "c" * 64, "d" * 64


def finding(**changes):
    record = {
        "timestamp": "2026-01-02T03:04:05.000000Z", "event": "finding", "run": "0badcafe", "seq": 5, "prev": "0" * 16, "container_id": WEB, "container_name": "web",
        "stream_type": "stdout", "pattern": "Password", "redacted_match": "pa***23", "severity": "HIGH", "rule": "password", "fingerprint": "ab" * 8, "count": 2,
        "endpoint": "logs", "client": DOCKER, "stream": 1, "line": 9,
    }  # fmt: skip
    return {**record, **changes}


def stream(event, **changes):
    record = {
        "timestamp": "2026-01-02T03:05:00.000000Z",
        "event": event,
        "run": "0badcafe",
        "stream": 1,
        "container_id": WEB,
        "container_name": "web",
        "client": DOCKER,
    }
    return {**record, "audited": True, **changes}


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
    {
        "timestamp": "2026-01-02T03:06:00.000000Z",
        "event": "denied",
        "method": "POST",
        "path": "/x",
        "client": REMOTE,
        "rule": "POST",
        "count": 4,
    },
    {
        "timestamp": "2026-01-02T03:07:00.000000Z",
        "event": "gap",
        "records": 9,
        "matches": 2,
        "since": "2026-01-02T01:00:00.000000Z",
    },
]


def line_of(record):
    return json.dumps(record).encode()


def summary_of(*records, **choice):
    summary = AuditSummary(Choice(**choice))
    summary.add_lines(map(line_of, records))
    summary.settle()
    return summary


def write(tmp_path, records, name="audit.log"):
    data = b"".join(line_of(record) + b"\n" for record in records)
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def report(files, out=None, err=None, **options):
    out, err = out or io.StringIO(), err or io.StringIO()
    chosen = dict.fromkeys(("since", "container", "pattern", "severity", "fail_on"))
    status = run_report(
        files,
        **{**chosen, "json_output": False, "html": False, **options},
        out=out,
        err=err,
        now=1767400000.0,
    )
    return status, out.getvalue(), err.getvalue()


def json_report(*records, tmp_path, **options):
    return json.loads(report([write(tmp_path, records)], json_output=True, **options)[1])


# =====================================================================================================================
# choosing
# =====================================================================================================================


def test_options_choose(tmp_path):
    path = write(tmp_path, RECORDS, "audit.log.1.gz")

    def counts(**options):
        return json.loads(report([path], json_output=True, **options)[1])["totals"]["findings"]

    assert counts() == {"HIGH": 4, "LOW": 1}
    assert counts(severity="high") == {"HIGH": 4}
    assert (
        counts(container="db")
        == counts(container="ddd")
        == counts(since="2026-01-02T12:00")
        == {"HIGH": 2}
    )
    assert (
        counts(pattern="email address")
        == counts(pattern="EMAIL-address")
        == counts(secret="CDCD")
        == {"LOW": 1}
    )
    assert counts(pattern="email address", severity="HIGH") == {}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("24h", "2026-01-01T00:26:40"),
        ("90s", "2026-01-02T00:25:10"),
        ("2026-01-01", "2026-01-01T00:00:00"),
        ("2026-01-01T02:00+02:00", "2026-01-01T00:00:00"),
    ],
)
def test_since_is_a_span_or_a_timestamp(text, expected):
    assert since_timestamp(text, 1767313600.0) == expected


@pytest.mark.parametrize(
    "option, text",
    [
        ("since", "yesterday"),
        ("severity", "loud"),
        ("fail_on", "x"),
        ("secret", "abc"),
        ("secret", "ghij"),
    ],
)
def test_a_wrong_option_is_named_and_78(tmp_path, option, text):
    status, out, err = report([write(tmp_path, RECORDS)], **{option: text})
    assert status == 78 and repr(text) in err and out == ""


def test_a_shortened_name_is_taken_for_what_it_may_have_been():
    records = [
        finding(container_name="n" * 900, truncated=True),
        finding(container_name="n" * 700, truncated=True),
        finding(container_name="n" * 10),
    ]
    summary = summary_of(*records, container="n" * 1000)
    assert summary.findings == {"HIGH": 4}
    assert [place.name for place in summary.worst_places()] == ["n" * 900]


# =====================================================================================================================
# gathering
# =====================================================================================================================


def test_json_has_every_part(tmp_path):
    found = json_report(*RECORDS, tmp_path=tmp_path)
    assert list(found) == ["totals", "secrets", "containers", "readers", "losses", "denied"]
    assert found["totals"] == {
        "records": 7,
        "first": RECORDS[1]["timestamp"],
        "last": RECORDS[2]["timestamp"],
        "findings": {"HIGH": 4, "LOW": 1},
        "secrets": 2,
    }
    assert [(secret["severity"], secret["count"]) for secret in found["secrets"]] == [
        ("HIGH", 4),
        ("LOW", 1),
    ]
    assert found["losses"] == {"bytes_not_scanned": 5, "records_lost": 9, "findings_lost": 2}
    denied = {
        "event": "denied",
        "method": "POST",
        "path": "/x",
        "rule": "POST",
        "client": "10.0.0.9 (CN=portainer)",
        "count": 4,
    }
    assert found["denied"] == [
        {**denied, "first_seen": RECORDS[5]["timestamp"], "last_seen": RECORDS[5]["timestamp"]}
    ]
    reader = found["readers"][0]
    assert (reader["client"], reader["bytes"], reader["streams"], reader["findings"]) == (
        "uid 7 (docker)",
        2048,
        1,
        3,
    )


def test_a_secret_says_where_it_leaked_and_who_saw_it(tmp_path):
    secret = json_report(*RECORDS, tmp_path=tmp_path)["secrets"][0]
    assert (secret["containers"], secret["readers"]) == (
        [WEB, DB],
        ["10.0.0.9 (CN=portainer)", "uid 7 (docker)"],
    )
    assert [
        (one["container_name"], one["client"], one["count"]) for one in secret["sightings"]
    ] == [("web", "uid 7 (docker)", 2), ("db", "10.0.0.9 (CN=portainer)", 2)]


def test_the_same_credential_is_one_secret_wherever_it_leaks():
    summary = summary_of(
        *(
            finding(container_id=f"{number:064x}", client={"address": f"10.0.0.{number}"})
            for number in range(30)
        )
    )
    (secret,) = summary.worst_secrets()
    assert (secret.count, len(secret.by(0)), len(secret.by(1))) == (60, 30, 30)


def test_a_partial_finding_counts_as_what_its_update_says():
    update = {
        "timestamp": "2026-01-02T03:04:06Z",
        "event": "finding_update",
        "run": "0badcafe",
        "finding": 5,
        "redacted_match": "xx***yy",
        "complete": True,
    }
    key = finding(partial=True, fingerprint=None)
    assert [
        (s.fingerprint, s.redacted)
        for s in summary_of(key, {**update, "fingerprint": "ee" * 8}).worst_secrets()
    ] == [("ee" * 8, "xx***yy")]
    assert [s.fingerprint for s in summary_of(key).worst_secrets()] == [""]
    grown = finding(partial=True)
    assert [
        s.fingerprint
        for s in summary_of(grown, {**update, "fingerprint": "ee" * 8}).worst_secrets()
    ] == ["ee" * 8]
    assert [
        s.fingerprint
        for s in summary_of(
            grown, {**update, "fingerprint": None, "complete": False}
        ).worst_secrets()
    ] == [""]
    assert [
        s.fingerprint
        for s in summary_of(
            grown, {**update, "run": "another0", "fingerprint": "ee" * 8}
        ).worst_secrets()
    ] == ["ab" * 8]


def test_open_streams_count_and_a_stopped_run_has_none():
    opened = [
        stream("stream_open"),
        stream("stream_open", stream=2),
        stream("stream_close", stream=2, bytes=10),
    ]
    assert [(r.streams, r.unfinished, r.bytes) for r in summary_of(*opened).all_readers()] == [
        (2, 1, 10)
    ]
    stop = {"timestamp": "2026-01-02T04:00:00Z", "event": "stop", "run": "0badcafe"}
    assert summary_of(*opened, stop).all_readers()[0].unfinished == 0
    assert summary_of(*opened, {**stop, "run": "another0"}).all_readers()[0].unfinished == 1


def test_unscanned_bytes_are_counted_once_whether_the_stream_has_ended_or_not():
    gap = {
        "timestamp": "2026-01-02T03:05:01Z",
        "event": "scan_gap",
        "run": "0badcafe",
        "stream": 1,
        "bytes": 100,
        "since": "2026-01-02T03:05:00Z",
    }
    assert summary_of(stream("stream_open"), gap).losses == {"bytes_not_scanned": 100}
    assert summary_of(
        stream("stream_open"), gap, stream("stream_close", bytes=500, unscanned=130)
    ).losses == {"bytes_not_scanned": 130}


def test_every_loss_is_named():
    at = {"timestamp": "2026-01-02T03:05:01.000000Z", "run": "0badcafe", "stream": 1}
    records = [
        {**at, "event": "gap", "records": 3, "matches": 1}, {**at, "event": "scan_gap", "bytes": 7}, {**at, "event": "scan_error", "error": "ValueError"},
        {**at, "event": "suppressed", "counts": {"Password": 4, "x": 1}}, {**at, "event": "truncated"}, {**at, "event": "recovered"},
        stream("stream_open", stream=9, audited=False), stream("stream_close", stream=9, audited=False, bytes=11),
    ]  # fmt: skip
    summary = summary_of(*records)
    summary.add_line(b"no record")
    summary.losses["files_unreadable"] += 1
    assert set(summary.losses) == set(LOSSES)
    text, page = render_text(summary, False), render_html(summary, title="t")
    for what, words in LOSSES.items():
        assert f"{summary.losses[what]:>11,}  {words}"[:70] in text and words in page


def test_losses_of_other_containers_do_not_count():
    gap = {
        "timestamp": "2026-01-02T03:05:01Z",
        "event": "scan_gap",
        "run": "0badcafe",
        "stream": 1,
        "bytes": 100,
    }
    assert summary_of(stream("stream_open"), gap, container="db").losses == {}
    assert summary_of(stream("stream_open"), gap, container="web").losses == {
        "bytes_not_scanned": 100
    }
    assert summary_of({**gap, "event": "gap", "records": 3}, container="db").losses == {
        "records_lost": 3
    }


def test_bad_lines_are_counted_and_survived():
    summary = AuditSummary()
    for line in (
        b"",
        b"{",
        b"[]",
        b'{"event": 5}',
        b'{"event": "finding", "count": "x"}',
        b"\xff",
        b"[" * 100_000,
        line_of(finding())[:-20],
    ):
        summary.add_line(line)
    summary.settle()
    assert summary.losses["bad_lines"] == 7 and summary.records == 1


def random_record(rng, texts):
    """A record as the writer could have made it, with hostile texts, repeated ones being likely."""
    text = lambda: rng.choice(texts)
    client = rng.choice(
        [
            DOCKER,
            {**DOCKER, "pid": rng.randrange(3)},
            {**DOCKER, "pid": None, "command": text()},
            {"listener": text(), "address": text()},
        ]
    )
    event = rng.choice(
        ("finding",) * 6 + ("stream_open", "stream_close", "denied", "finding_update", "request")
    )
    fields = {
        **finding(
            client=client, count=rng.randrange(3), stream=rng.randrange(4), line=rng.randrange(5)
        ),
        "severity": rng.choice(("HIGH", "LOW", text())),
    }
    for name in (
        "container_id",
        "container_name",
        "pattern",
        "redacted_match",
        "rule",
        "fingerprint",
    ):
        fields[name] = rng.choice((text(), fields[name]))
    fields["fingerprint"] = rng.choice((None, fields["fingerprint"], fields["fingerprint"]))
    fields.update(
        rng.choice([{}, {}, {}, {"partial": True}, {"truncated": True}, {"kind": "service"}])
    )
    if event != "finding":
        fields.update(
            audited=True,
            bytes=5,
            unscanned=0,
            path=text(),
            method="GET",
            finding=rng.randrange(50),
            complete=True,
        )
    for name in ("timestamp", "event", "run", "seq", "prev"):
        fields.pop(name)
    return Record(1767313600.0 + rng.randrange(10**6), event, fields)


def test_the_fast_way_counts_what_the_plain_way_counts():
    rng = random.Random(5)
    texts = [
        HOSTILE,
        "a",
        '", "count": 5, "client": {',
        '\\", \\"stream\\": 3',
        "\\",
        ', "pid": 4',
        "é漢\U0001f511",
        "x" * 4000,
        "(others)",
        "\x7f",
    ]
    for choice in (
        Choice(),
        Choice(since="2026-01-06"),
        Choice(least=3),
        Choice(container="web"),
        Choice(secret="abab", pattern="password"),
    ):
        fast, plain = AuditSummary(choice), AuditSummary(choice)
        for seq in range(1, 400):
            line = encode_record(random_record(rng, texts), "0badcafe", seq, "f" * 16)[:-1]
            fast.add_line(line)
            plain.add(json.loads(line))
            torn = line[: rng.randrange(len(line))]
            fast.add_line(torn)
        fast.settle()
        plain.settle()
        assert fast.losses.pop("bad_lines") == 399
        expected = plain.as_dict()
        assert (
            fast.as_dict() == expected
            and fast.hours == plain.hours
            and expected["totals"]["findings"]
        )


def test_memory_is_bounded(monkeypatch):
    for name, limit in {
        "DISTINCT_LIMIT": 5,
        "SIGHTING_LIMIT": 3,
        "SIGHTINGS_IN_ALL": 12,
        "PARTIAL_LIMIT": 4,
        "MEMO_LIMIT": 4,
        "STREAM_LIMIT": 5,
        "HOUR_LIMIT": 6,
    }.items():
        monkeypatch.setattr(summary_room, name, limit)
    summary = AuditSummary()
    for number in range(100):
        at = f"2026-01-{number % 28 + 1:02}T{number % 24:02}:00:00.000000Z"
        client = {"address": f"10.0.0.{number}"}
        summary.add_line(
            line_of(
                finding(
                    timestamp=at,
                    fingerprint=f"{number:016x}",
                    container_id=f"c{number}",
                    client=client,
                    severity=("HIGH", "LOW", "odd")[number % 3],
                )
            )
        )
        summary.add_line(
            line_of(
                finding(timestamp=at, fingerprint=None, partial=True, seq=number, client=client)
            )
        )
        summary.add_line(line_of(stream("stream_open", timestamp=at, stream=number, client=client)))
        summary.add_line(
            line_of(
                {
                    "timestamp": at,
                    "event": "denied",
                    "method": "GET",
                    "path": f"/{number}",
                    "rule": "r",
                    "client": client,
                }
            )
        )
        for table in (
            summary._known_findings,
            summary._known_clients,
            summary._partial,
            summary._streams,
            summary.hours,
        ):
            assert len(table) <= 6
    summary.settle()
    found = summary.as_dict()
    assert (
        sum(secret["count"] for secret in found["secrets"])
        == sum(place["count"] for place in found["containers"])
        == 400
    )
    assert (
        sum(one["count"] for secret in found["secrets"] for one in secret["sightings"])
        == sum(reader["findings"] for reader in found["readers"])
        == 400
    )
    assert sum(refused["count"] for refused in found["denied"]) == 100
    for name, most in {"secrets": 20, "containers": 6, "readers": 6, "denied": 6}.items():
        assert len(found[name]) <= most
        assert OTHERS in str(found[name])


def test_a_flood_of_low_findings_does_not_hide_a_grave_one(monkeypatch):
    monkeypatch.setattr(summary_room, "DISTINCT_LIMIT", 10)
    summary = summary_of(
        *(finding(severity="LOW", fingerprint=f"{number:016x}") for number in range(50)),
        finding(fingerprint="ee" * 8),
    )
    assert summary.worst_secrets()[0].fingerprint == "ee" * 8


@pytest.mark.parametrize(
    "since, until, count",
    [("2026-01-01T22:59:00Z", "2026-01-02T01:00:00Z", 4), ("2026-01-01T00", "2026-01-01T00", 1), ("2026-01-02", "2026-01-01", 0), ("x", "2026", 0),
     ("2026-02-31T00", "2026-03-31T00", 0), ("9999-12-31T22:00", "9999-12-31T23:59", 2), ("0001-01-01T00", "9999-12-31T23", HOUR_LIMIT)],
)  # fmt: skip
def test_a_gap_covers_its_hours(since, until, count):
    assert len(list(hours_between(since, until))) == count


# =====================================================================================================================
# text
# =====================================================================================================================


def test_text_is_narrow_and_harmless(tmp_path):
    wide = "容器" * 60
    hostile = [
        finding(container_name=HOSTILE * 50, pattern=HOSTILE, client={"address": HOSTILE}),
        finding(container_name=wide, container_id="e", pattern=wide),
        *RECORDS,
    ]
    for options in ({}, {"secret": "abab"}):
        _, out, _ = report([write(tmp_path, hostile)], **options)
        assert max(map(columns, out.splitlines())) <= 80
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u2028\u202e]", out)
    assert "read by" in out and "What leaked" in out


def test_text_names_containers_and_readers_of_each_secret(tmp_path):
    many = [
        finding(
            container_id=f"{number:064x}",
            container_name=f"web-{number}",
            client={"address": f"10.0.0.{number}"},
        )
        for number in range(12)
    ]
    path = write(tmp_path, [*many, *RECORDS[1:]])
    out = report([path])[1]
    assert " and 11 more" in out and "report --secret abababababababab" in out
    everything = report([path], secret="abab")[1]
    for number in range(12):
        assert re.search(rf"2 x  2026-01-02 03:04  web-{number} +10.0.0.{number}\n", everything)
    assert "Email" not in everything


def test_colour_only_on_a_terminal_and_never_with_no_color(tmp_path, monkeypatch):
    path = write(tmp_path, RECORDS)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31;1m" in report([path], out=Terminal())[1]
    assert "\x1b" not in report([path])[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in report([path], out=Terminal())[1]


@pytest.mark.parametrize(
    "text, width, expected",
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abcde…"),
        ("漢字漢字", 8, "漢字漢字"),
        ("漢字漢字", 7, "漢字漢…"),
        ("e\u0301" * 4, 4, "e\u0301" * 4),
    ],
)
def test_fit_counts_columns(text, width, expected):
    assert fit(text, width) == expected and columns(pad(text, width)) == width


@pytest.mark.parametrize(
    "char",
    [
        "\0",
        "\x1b",
        "\x7f",
        "\x9b",
        "\u061c",
        "\u200b",
        "\u200f",
        "\u2028",
        "\u202e",
        "\u2066",
        "\ud800",
        "\ufeff",
        "\U000e0041",
    ],
)
def test_what_a_terminal_would_obey_is_shown(char):
    assert printable(f"a{char}b") == f"a\\u{ord(char):04x}b"
    assert printable("é漢😀 ~") == "é漢😀 ~"


# =====================================================================================================================
# page
# =====================================================================================================================


def hostile_summary(text):
    fields = (
        "container_id",
        "container_name",
        "pattern",
        "redacted_match",
        "severity",
        "rule",
        "fingerprint",
    )
    at = {"timestamp": text}
    return summary_of(
        finding(**dict.fromkeys(fields, text), client={"address": text, "certificate": text}), finding(),
        {**at, "event": "denied", "method": text, "path": text, "rule": text, "client": {"uid": text, "command": text}},
        stream("stream_close", timestamp=text, client={"address": text}, container_id=text, bytes=1),
        {"timestamp": "2026-01-02T03:07:00.000000Z", "event": "gap", "records": 9, "matches": 2, "since": text},
    )  # fmt: skip


def test_page_escapes_everything():
    live = {
        "streams": [{"container": HOSTILE, "endpoint": HOSTILE, "client": {"address": HOSTILE}}],
        "counters": {HOSTILE: 5, "degraded": True},
        "engine_up": False,
    }
    page = render_html(hostile_summary(HOSTILE), title=HOSTILE, live=live, made=HOSTILE)
    assert "<script" not in page and "'\"\\u001b" not in page and "alert(1)" in page
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u2028\u202e]", page)
    assert "does not answer" in page and "cannot be written" in page


def test_page_needs_nothing_and_runs_nothing():
    page = render_html(
        summary_of(*RECORDS), title="t", live={"streams": [], "counters": {}, "engine_up": True}
    )
    assert not re.search(
        r"<(script|link|img|iframe|object|form)|https?:|url\(|@import|\son\w+=", page
    )
    assert (
        "default-src 'none'" in page and "<svg" in page and "class=gap" in page and "Reload" in page
    )


def test_page_says_when_nothing_was_lost_or_found():
    assert "Everything was scanned and recorded" in render_html(summary_of(finding()), title="t")
    assert "no findings" in render_html(AuditSummary(), title="t")


@pytest.mark.parametrize(
    "span, step",
    [
        (1, 1),
        (72, 1),
        (73, 3),
        (24 * 7, 3),
        (24 * 60, 24),
        (24 * 365, 168),
        (24 * 365 * 9, 24 * 365 * 9 // 72),
    ],
)
def test_a_chart_has_a_bounded_number_of_bars(span, step):
    assert bar_hours(span) == step and -(-span // bar_hours(span)) <= 72


# =====================================================================================================================
# command
# =====================================================================================================================


def test_exit_codes(tmp_path):
    path = write(tmp_path, RECORDS)
    assert report([path])[0] == 0
    assert report([path], fail_on="HIGH")[0] == 1
    assert report([path], fail_on="HIGH", pattern="Email Address")[0] == 0
    assert report([path], fail_on="medium", pattern="Email Address")[0] == 0
    assert report([path], fail_on="low", pattern="Email Address")[0] == 1


def test_an_unreadable_file_is_named_and_the_others_are_read(tmp_path):
    bad = tmp_path / "bad.gz"
    bad.write_bytes(gzip.compress(line_of(finding()) * 9)[:-12])
    status, out, err = report([str(tmp_path / "none"), str(bad), write(tmp_path, RECORDS)])
    assert status == 66 and "none cannot be read" in err and "bad.gz cannot be read" in err
    assert "What leaked" in out and "files could not be read" in out


def test_lines_come_whole_wherever_blocks_end_and_endless_ones_in_pieces(monkeypatch):
    data = b"".join(b"%d" % number * (number % 7) + b"\n" for number in range(500)) + b"torn"
    for size in (1, 2, 7, 4096):
        monkeypatch.setattr(report_room, "READ_SIZE", size)
        batches = list(line_batches(io.BytesIO(data)))
        assert [line for _, lines in batches for line in lines] == data.split(b"\n") and sum(
            size for size, _ in batches
        ) == len(data)
    monkeypatch.setattr(report_room, "LONGEST_LINE", 100)
    assert (
        max(len(line) for _, lines in line_batches(io.BytesIO(b"x" * 10_000)) for line in lines)
        <= 4096 + 100
    )


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
        "audit.log.2.gz",
        "audit.log.1",
        "audit.log-20260101",
        "audit.log",
        "audit.log.key",
        ".audit.log.lock",
        "audit.log.bak",
        "other.log.1",
    ]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (1767000000 + age, 1767000000 + age))
    log = str(tmp_path / "audit.log")
    assert [os.path.basename(path) for path in log_history(log)] == [
        "audit.log.2.gz",
        "audit.log.1",
        "audit.log-20260101",
        "audit.log",
    ]
    assert (
        log_history(log, "2030-01-01") == [log]
        and log_history("-") == ["-"]
        and log_history("/nonexistent/x") == ["/nonexistent/x"]
    )


def test_the_tail_of_a_log_begins_with_a_whole_line(tmp_path):
    path = write(tmp_path, [finding(seq=number) for number in range(100)])
    summary = AuditSummary()
    read_tail(summary, path, size=5000)
    assert 5 < summary.records < 12 and not summary.losses


# =====================================================================================================================
# --state: nothing twice
# =====================================================================================================================


def told(tmp_path, *records):
    return report([write(tmp_path, records)], state=str(tmp_path / "state"))


def test_with_a_state_only_news_is_told(tmp_path):
    later = "2026-01-05T00:00:00.000000Z"
    assert "What leaked" in told(tmp_path, *RECORDS)[1]
    assert told(tmp_path, *RECORDS) == (0, "", "")
    again = [*RECORDS, finding(timestamp=later), stream("stream_close", timestamp=later)]
    assert told(tmp_path, *again)[1] == ""
    for news in (
        finding(timestamp=later, fingerprint="ee" * 8),
        finding(timestamp=later, container_id=DB),
        finding(timestamp=later, client={"address": "10.9.9.9"}),
        {
            "timestamp": later,
            "event": "denied",
            "method": "POST",
            "path": "/new",
            "rule": "POST",
            "client": REMOTE,
        },
        {"timestamp": later, "event": "gap", "records": 1, "matches": 0},
    ):
        again.append(news)
        out = told(tmp_path, *again)[1]
        assert out.startswith("2026-01-05 00:00 to "), news
        assert told(tmp_path, *again)[1] == "", news
    assert os.stat(tmp_path / "state").st_mode & 0o777 == 0o600


def test_a_record_that_waited_for_its_name_is_not_missed(tmp_path):
    told(tmp_path, *RECORDS)
    late = finding(timestamp="2026-01-02T23:59:59.200000Z", fingerprint="ee" * 8)
    assert "eeee" in told(tmp_path, *RECORDS, late)[1]


def test_a_state_file_of_something_else_is_kept(tmp_path):
    (tmp_path / "state").write_text("precious")
    assert told(tmp_path, *RECORDS)[0] == 78 and (tmp_path / "state").read_text() == "precious"


def test_a_state_that_cannot_be_written_is_said(tmp_path):
    status, out, err = report([write(tmp_path, RECORDS)], state=str(tmp_path / "none" / "state"))
    assert status == 73 and "What leaked" in out and "cannot be written" in err


def test_cron_mails_once(tmp_path):
    log = write(tmp_path, RECORDS)
    environment = {**os.environ, "DOCKERAUDIT_AUDIT_LOG": log, "DOCKERAUDIT_PROGRAM": PROGRAM}

    def run():
        return subprocess.run(
            [str(ROOT / "deploy" / "cron.daily")],
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )

    first, second = run(), run()
    assert (first.returncode, second.returncode, second.stdout, second.stderr) == (0, 0, b"", b"")
    assert b"What leaked" in first.stdout and b"\x1b" not in first.stdout and first.stderr == b""
