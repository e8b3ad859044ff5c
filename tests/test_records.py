"""Tests of records.py: what a line of the log looks like, and what it never shows."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import re
from typing import Any

import pytest

from _dockeraudit.records import (
    Fingerprinter,
    Overflow,
    Record,
    encode_record,
    redact_bytes,
    rfc3339,
    split_counts,
)

HEAD = ["timestamp", "event", "run", "seq", "prev"]


def line_of(**fields: Any) -> bytes:
    return encode_record(Record(0.0, "request", fields), "0" * 8, 1, "0" * 16)


@pytest.mark.parametrize(
    "timestamp, text",
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1e9 + 0.5, "2001-09-09T01:46:40.500000Z"),
        (4102444799.999999, "2099-12-31T23:59:59.999999Z"),
    ],
)
def test_a_timestamp_is_utc_with_microseconds(timestamp: float, text: str) -> None:
    assert rfc3339(timestamp) == text


@pytest.mark.parametrize(
    "fields",
    [
        {"path": "x" * 5000},
        {"path": "\x01" * 2000, "other": "kept"},
        {"path": "é" * 5000},
        {"path": "\U0001f600" * 5000},
        {"path": "\udcff" * 5000},
        {"path": "\\" * 5000},
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
    ids=lambda fields: ascii(next(iter(fields.items())))[:24],
)
def test_a_longer_record_is_shortened_to_4096_bytes_and_says_so(fields: dict[str, Any]) -> None:
    line = line_of(**fields)
    assert len(line) <= 4096 and line.count(b"\n") == 1
    record = json.loads(line)
    assert record["truncated"] is True and list(record)[:5] == HEAD
    for name in ("other", "stream"):
        assert record.get(name) == fields.get(name)


@pytest.mark.parametrize("character", ["x", "é", "\n", "\U0001f600", "\\", "\u202e"], ids=ascii)
def test_a_text_is_cut_no_shorter_than_it_must_be(character: str) -> None:
    line = line_of(path=character * 5000)
    size = len(json.dumps(character)) - 2
    assert 4096 - size < len(line) <= 4096
    assert set(json.loads(line)["path"]) <= {character, "?"}  # "?": half of a surrogate pair


def test_a_record_of_exactly_4096_bytes_is_whole() -> None:
    size = len(line_of(path=""))
    for length, truncated in ((4096, False), (4097, True)):
        line = line_of(path="x" * (length - size))
        assert len(line) <= 4096 and ("truncated" in json.loads(line)) is truncated


def test_nothing_but_printable_ascii_stands_in_a_line() -> None:
    texts = [
        chr(code) for code in [*range(0x300), *range(0x2000, 0x2100), 0xFEFF, 0x1F600, 0xE0001]
    ]
    line = line_of(path="".join(texts), **{"".join(texts[:32]): 1})
    assert re.fullmatch(rb"[ -~]*\n", line)
    record = json.loads(line_of(path="".join(texts[:600])))
    assert record["path"] == "".join(texts[:600])


@pytest.mark.parametrize(
    "text, read",
    [
        ("\udcff", "?"),
        ("a\ud83d", "a?"),
        ("\ude00\ud83d", "??"),
        ("\U0001f600", "\U0001f600"),
        ("\\ud83d", "\\ud83d"),
        ("\\\udcff", "\\?"),
    ],
    ids=ascii,
)
def test_a_lone_surrogate_becomes_a_question_mark(text: str, read: str) -> None:
    assert json.loads(line_of(path=text))["path"] == read


@pytest.mark.parametrize(
    "match, whole, partial",
    [
        (b"AK" + b"IA" + b"IOSFODNN7EXAMPLE", "AK***LE", "AK***"),
        (b"", "***", "***"),
        (b"123456", "***", "***"),
        (b"1234567", "12***67", "12***"),
        ("ααααααα".encode(), "αα***αα", "αα***"),
        (b"\xff\xfe1234\xff", "\ufffd\ufffd***4\ufffd", "\ufffd\ufffd***"),
        (b'"\n34567\x00', '"\n***7\x00', '"\n***'),
    ],
)
def test_redaction_shows_four_characters_at_most_and_two_of_a_partial_match(
    match: bytes, whole: str, partial: str
) -> None:
    assert (redact_bytes(match), redact_bytes(match, partial=True)) == (whole, partial)


def test_fingerprints_are_hmac_sha_256() -> None:
    rng = random.Random(5)
    for length in [0, 1, 31, 32, 63, 64, 65, 200]:
        key = bytes(rng.randrange(256) for _ in range(length))
        maker = Fingerprinter(key)
        for size in (0, 1, 20, 64, 1000):
            secret = bytes(rng.randrange(256) for _ in range(size))
            assert maker.of(secret) == hmac.new(key, secret, "sha256").hexdigest()[:16]
        assert maker.key_id == hashlib.sha256(key).hexdigest()[:8]


def test_counts_are_split_into_records_that_fit_and_their_severities_add_up() -> None:
    rng = random.Random(3)
    counts = {
        (f"A pattern with quite a long name, number {number}", severity): rng.randrange(1, 9)
        for number in range(300)
        for severity in ("LOW", "HIGH")
    }
    parts = list(split_counts(counts.items()))
    assert len(parts) > 1 and list(split_counts([])) == []
    assert sum(sum(names.values()) for names, _ in parts) == sum(counts.values())
    for names, severities in parts:
        assert sum(names.values()) == sum(severities.values())
        line = line_of(stream=10**9, counts=names, severities=severities)
        assert b"truncated" not in line


def test_a_gap_names_the_seqs_right_before_it() -> None:
    gap = Overflow(0.0, OSError(28, "No space left on device"))
    for matches in (0, 2, 5):
        gap.add(Record(0.0, "finding", {}, matches))
    gap.name_seqs(9)
    assert gap.fields == {
        "records": 3,
        "matches": 7,
        "first_seq": 6,
        "last_seq": 8,
        "errno": "ENOSPC",
        "since": "1970-01-01T00:00:00.000000Z",
    }
