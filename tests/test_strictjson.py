"""JSON in which two readers cannot see two things."""

from __future__ import annotations

import time

import pytest

from _dockeraudit.strictjson import MAX_DEPTH, MAX_VALUES, NotStrict, read_strict

GOOD = [
    (b"{}", {}),
    (
        b' {"a": [1, -2.5, true, null, "\\u00e4\\ud83d\\ude00\\"\\\\"]}\r\n\t',
        {"a": [1, -2.5, True, None, 'ä😀"\\']},
    ),
    (b'{"A": 1, "a": 2}', {"A": 1, "a": 2}),
    (b"[]", []),
    (b"9223372036854775807", 2**63 - 1),
    ('"\u212a"'.encode(), "\u212a"),
    (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
]
BAD = [
    (b"", "Expecting value"),
    (b"{} {}", "Extra data"),
    (b"{}x", "Extra data"),
    (b"{}\x00", "Extra data"),
    (b'{"a": 1, "a": 1}', "'a' stands twice"),
    (b'{"a": 1, "\\u0061": 1}', "'a' stands twice"),
    (b'{"x": {"Privileged": false, "Privileged": true}}', "'Privileged' stands twice"),
    (b'\xef\xbb\xbf{}', "Expecting value"),
    (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
    (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    (b'"\\ud800"', "half of a character"),
    (b'{"\\uDC00": 1}', "half of a character"),
    (b"NaN", "NaN"),
    (b"[-Infinity]", "-Infinity"),
    (b"1" * 21, "digits"),
    (b"{'a': 1}", "property name"),
    (b'{"a": 1,}', ""),
    (b"// c\n{}", "Expecting value"),
    (b'{"a": 01}', "delimiter"),
    (b'{"a": +1}', "Expecting value"),
    (b'{"a": "\n"}', "control character"),
    (b'{"a": "\\x41"}', "escape"),
    (b'{"a": "\\u12"}', "escape"),
    (b"{}".decode().encode("utf-16"), "not UTF-8"),
    (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested"),
    (b"[" + b"0," * (MAX_VALUES + 1) + b"0]", "more than"),
    (b"[" * 500_000, "more than"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "value"), GOOD)
def test_what_all_readers_agree_on_is_read(raw: bytes, value: object) -> None:
    read = read_strict(raw)
    assert value is None or read == value


@pytest.mark.parametrize(("raw", "why"), BAD, ids=[repr(raw[:20]) for raw, _ in BAD])
def test_what_they_differ_in_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(NotStrict) as raised:
        read_strict(raw)
    assert why in str(raised.value)


HOSTILE = [
    b'"' + b'\\"' * 500_000,
    b'"\\' * 350_000,
    b"\\" * (1 << 20),
    b'{"a":"' + b"[" * 1_000_000 + b'"}',
    b"9" * (1 << 20),
    b"[0." + b"1" * 1_000_000 + b"]",
    b'[""' + b',""' * 49_000 + b"]",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_take_time_in_proportion(raw: bytes) -> None:
    begun = time.perf_counter()
    try:
        read_strict(raw)
    except NotStrict:
        pass
    assert time.perf_counter() - begun < 1.0
