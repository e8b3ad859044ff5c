"""Lines to records: whatever a shipper put around them, and each record once."""

from __future__ import annotations

import json
import random

import pytest
from auditrecords import RECORDS, finding, line_of, numbered

import _dockeraudit.logrecords as room
from _dockeraudit.logrecords import (
    RecordReader,
    SeenRecords,
    SeqRanges,
    client_text,
    counts_of,
    number_of,
    record_of,
)

RECORD = finding(container_name='he said "x" {"event": 1}')
LINE = line_of(RECORD).decode()
AT = "2026-01-02T03:04:05.123456789Z"
SHIPPED = {
    "as written": LINE,
    "docker's json-file": json.dumps({"log": LINE + "\n", "stream": "stdout", "time": AT}),
    "CRI": f"{AT} stdout F {LINE}",
    "syslog (RFC 3164)": f"Jan  2 03:04:05 host dockeraudit[123]: {LINE}",
    "syslog (RFC 5424)": f"<134>1 {AT} host dockeraudit 123 - - {LINE}",
    "Compose": f"dockeraudit-1  | {LINE}",
    "Compose in colour": f"\x1b[36mdockeraudit-1  | \x1b[0m{LINE}",
    "docker logs --timestamps": f"{AT} {LINE}",
    "journald": json.dumps({"__CURSOR": "s=1", "MESSAGE": LINE, "_PID": "7"}),
    "fluentd": json.dumps({"source": "stdout", "log": LINE, "container_name": "/dockeraudit"}),
    "a json-file line in syslog": f"Jan  2 03:04:05 host x: {json.dumps({'log': LINE})}",
    "a carriage return behind it": LINE + "\r",
}


@pytest.mark.parametrize("shipper", SHIPPED)
def test_a_shipped_record_is_read(shipper):
    assert record_of(SHIPPED[shipper].encode()) == RECORD


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"5", b'{"event": 5}', b'{"log": "hello"}', b'{"log": 7}', b"\xff",
        b'{"' + b"[" * 100_000, line_of(RECORD)[:-1], b"x {y} z", b'{"log": "{\\"log\\": 1}"}',
        b'{"a": ' * 5000,
    ],
)  # fmt: skip
def test_anything_else_is_no_record(line):
    assert record_of(line) is None


def test_lines_for_people_between_shipped_records_are_no_loss():
    reader = RecordReader()
    said = b"dockeraudit: info: listening on tcp://127.0.0.1:2375"
    lines = [
        said,
        json.dumps({"log": said.decode() + "\n", "stream": "stderr"}).encode(),
        b"dockeraudit-1  | " + said,
        line_of(RECORD),
        b"something else",
    ]
    assert list(reader.records(lines)) == [RECORD] and reader.bad_lines == 1


def test_a_record_is_read_once_however_often_it_comes():
    reader = RecordReader()
    lines = [line_of(record) for record in numbered(RECORDS)]
    assert len(list(reader.records(lines))) == len(RECORDS)
    shipped = [json.dumps({"log": line.decode()}).encode() for line in lines]
    assert list(reader.records(lines[3:] + shipped)) == []
    assert (reader.records_read, reader.copies) == (len(RECORDS), 2 * len(RECORDS) - 3)
    other_run = line_of({**RECORD, "run": "another0", "seq": 1})
    unnumbered = line_of({"event": "stop"})
    assert len(list(reader.records([other_run, unnumbered, unnumbered]))) == 3


def test_ranges_of_seq_know_what_they_have_seen():
    rng = random.Random(3)
    for _ in range(50):
        ranges, seen = SeqRanges(), set()
        for _ in range(300):
            seq = rng.randrange(rng.choice((20, 200)))
            assert ranges.add(seq) == (seq not in seen)
            seen.add(seq)
        expected = sorted(seen)
        covered = [
            seq for start, end in zip(ranges.starts, ranges.ends) for seq in range(start, end + 1)
        ]
        assert sorted(covered) == expected


def test_what_has_been_seen_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr(room, "RANGES_LIMIT", 10)
    seen = SeenRecords()
    for run in range(20):
        for seq in range(0, 8, 2):
            assert seen.is_new({"run": f"{run:08x}", "seq": seq})
            assert sum(len(ranges.starts) for ranges in seen._runs.values()) <= 10
    assert not seen.is_new({"run": f"{19:08x}", "seq": 6})


@pytest.mark.parametrize(
    "client, expected",
    [
        (None, "unknown"), ({}, "uid  (unknown command)"), ({"address": "10.0.0.9"}, "10.0.0.9"),
        ({"uid": 0, "command": "docker"}, "uid 0 (docker)"),
        ({"address": "::1", "certificate": "CN=x"}, "::1 (CN=x)"),
        ({"listener": "scan", "uid": 5}, "dockeraudit scan (uid 5)"),
    ],
)  # fmt: skip
def test_a_client_is_named_for_people(client, expected):
    assert client_text(client) == expected


def test_counts_are_read_from_anything():
    assert [number_of(value, 1) for value in (3, -1, True, "x", None, 1 << 70)] == [
        3,
        1,
        1,
        1,
        1,
        1,
    ]
    assert counts_of({"HIGH": 2, "LOW": 0, "x": "y"}) == {"HIGH": 2} and counts_of([1]) == {}
