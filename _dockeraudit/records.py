"""Records of the audit log: fields, length, hash, redaction, fingerprint. Performs no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

MAX_LINE = 4096  # bytes of a record with its newline; pipes take so much in one piece (PIPE_BUF)
COUNTS_SIZE = (
    3000  # bytes of `counts` in one `suppressed`; with its other fields it stays below MAX_LINE
)
COUNTED_NAME = 200  # characters of a pattern's name there
NO_LINE = "0" * 16  # `prev` where there is no line before


class Record:
    """An event on its way to the log.

    `fields`: a mapping, or a function that makes it when the line is written. `matches`: how many matches it stands for.
    `seq` is given by the worker, and stays None for a record that was lost.
    """

    __slots__ = ("timestamp", "event", "fields", "matches", "seq")

    def __init__(self, timestamp: float, event: str, fields: Any, matches: int = 0) -> None:
        self.timestamp = timestamp
        self.event = event
        self.fields = fields
        self.matches = matches
        self.seq: int | None = None


def rfc3339(timestamp: float) -> str:
    """UTC with microseconds and Z (RFC 3339)."""
    return datetime.fromtimestamp(timestamp, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def encode_record(record: Record, run: str, seq: int, prev: str) -> bytes:
    """The record's line with its newline, at most MAX_LINE bytes: the longest text in it is shortened until it fits."""
    fields = record.fields() if callable(record.fields) else record.fields
    head = {
        "timestamp": rfc3339(record.timestamp),
        "event": record.event,
        "run": run,
        "seq": seq,
        "prev": prev,
    }
    line = encode_line({**head, **fields})
    while len(line) > MAX_LINE:
        fields = shortened(fields, len(line) - MAX_LINE)
        line = encode_line({**head, **fields})
    return line


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """One JSON line; lone surrogates, which UTF-8 cannot hold, become question marks."""
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def shortened(fields: Mapping[str, Any], excess: int) -> dict[str, Any]:
    """The fields with the longest of them cut by at least `excess` bytes where that suffices, or left out, and marked so."""
    rest = {name: value for name, value in fields.items() if name != "truncated"}
    name = max(rest, key=lambda name: len(encode_line({name: rest[name]})))
    value = rest[name]
    if isinstance(value, Mapping) and value:
        rest[name] = shortened(value, excess)
    elif isinstance(value, (str, list)) and value:
        text = value if isinstance(value, str) else json.dumps(value)
        rest[name] = text[: max(0, min(len(text) - excess, len(text) * 3 // 4))]
    else:
        del rest[name]
    return {**rest, "truncated": True}


def in_records(counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Counts by name, in as many parts as it takes for each to fit into a record."""
    part: dict[str, int] = {}
    size = 0
    for name, count in counts.items():
        more = len(encode_line({name: count}))
        if part and size + more > COUNTS_SIZE:
            yield part
            part, size = {}, 0
        part[name] = count
        size += more
    yield part


def line_hash(line: bytes) -> str:
    """What the next record's `prev` says of this line (without its newline)."""
    return hashlib.sha256(line).hexdigest()[:16]


def redact_bytes(match: bytes) -> str:
    """The first two and last two characters of a match with *** between; *** alone for six characters or fewer."""
    text = match.decode("utf-8", "replace")
    return f"{text[:2]}***{text[-2:]}" if len(text) > 6 else "***"


class Fingerprinter:
    """HMAC-SHA-256 under one key (RFC 2104), its padded keys hashed once; first 16 hex digits."""

    def __init__(self, key: bytes) -> None:
        padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self.key_id = hashlib.sha256(key).hexdigest()[:8]

    def of(self, secret: bytes) -> str:
        """The secret's fingerprint: the same everywhere under the same key, and no help in guessing it without."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(secret)
        outer.update(inner.digest())
        return outer.hexdigest()[:16]
