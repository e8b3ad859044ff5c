"""Records of the audit log: fields, length, hash, redaction, fingerprint. Performs no I/O."""

from __future__ import annotations

import errno as errno_codes
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Callable, Union

MAX_LINE = 4096  # bytes of a record with its newline; a pipe takes so much in one piece (PIPE_BUF)
COUNTS_SIZE = 3000  # bytes of `counts` in one `suppressed`, which leaves room for its other fields
COUNTED_NAME = 200  # characters of a pattern's name in `counts`
NO_LINE = "0" * 16  # `prev` of the first line of a log

#: A record's fields, or a function that makes them when the record's line is written.
Fields = Union[Mapping[str, Any], Callable[[], Mapping[str, Any]]]


class Record:
    """An event on its way to the log.

    `matches`: how many matches the record stands for. `seq`: its number in the log, given when its
    line is made; None for a record that was lost. `about`: the finding that this one updates.
    """

    __slots__ = ("timestamp", "event", "fields", "matches", "seq", "about")

    def __init__(
        self,
        timestamp: float,
        event: str,
        fields: Fields,
        matches: int = 0,
        about: Record | None = None,
    ) -> None:
        self.about = about
        self.timestamp = timestamp
        self.event = event
        self.fields = fields
        self.matches = matches
        self.seq: int | None = None


class Overflow(Record):
    """Stands in the queue where records found no room: how many, and what had gone wrong."""

    __slots__ = ("records", "error")

    def __init__(self, timestamp: float, error: OSError | None) -> None:
        super().__init__(timestamp, "gap", {})
        self.records = 0
        self.error = error

    def add(self, record: Record) -> None:
        """One more is lost."""
        self.records += 1
        self.matches += record.matches

    def name_seqs(self, seq: int) -> None:
        """The gap's fields, once its seq is known; those that it stands for are right before."""
        code = self.error.errno if self.error else None
        self.fields = {
            "records": self.records,
            "matches": self.matches,
            "first_seq": seq - self.records,
            "last_seq": seq - 1,
            "errno": errno_codes.errorcode.get(code or 0),
            "since": rfc3339(self.timestamp),
        }


def rfc3339(timestamp: float) -> str:
    """UTC with microseconds and Z (RFC 3339)."""
    text = datetime.fromtimestamp(timestamp, timezone.utc).isoformat(timespec="microseconds")
    return text[: -len("+00:00")] + "Z"


def encode_record(record: Record, run: str, seq: int, prev: str) -> bytes:
    """The record's line with its newline, of at most MAX_LINE bytes.

    The longest text of a longer record is cut until the line fits.
    """
    fields = record.fields() if callable(record.fields) else record.fields
    head = {
        "timestamp": rfc3339(record.timestamp),
        "event": record.event,
        "run": run,
        "seq": seq,
        "prev": prev,
    }
    return encode_within_limit(head, fields)


def encode_within_limit(head: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
    """One line of at most MAX_LINE bytes; only texts of `fields` are cut."""
    line = encode_line({**head, **fields})
    while len(line) > MAX_LINE:
        fields = shortened(fields, len(line) - MAX_LINE)
        line = encode_line({**head, **fields})
    return line


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """One JSON line in ASCII: control characters, bidirectional marks and all else are escaped.

    So `tail` shows nothing that acts on a terminal. A lone surrogate, which strict JSON readers
    refuse, becomes a question mark.
    """
    text = json.dumps(fields)
    if "\\ud" in text:  # a surrogate, in a pair or alone
        whole = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
        text = json.dumps(json.loads(whole))
    return text.encode("ascii") + b"\n"


def shortened(fields: Mapping[str, Any], excess: int) -> dict[str, Any]:
    """The fields with the longest of them cut by at least `excess` encoded bytes, marked so.

    A field that is shorter than that becomes empty, or is left out if it is no text.
    """
    rest = {name: value for name, value in fields.items() if name != "truncated"}
    name = max(rest, key=lambda name: len(encode_line({name: rest[name]})))
    value = rest[name]
    if isinstance(value, Mapping) and value:
        rest[name] = shortened(value, excess)
    elif isinstance(value, (str, list)) and value:
        rest[name] = cut_text(value if isinstance(value, str) else json.dumps(value), excess)
    else:
        del rest[name]
    return {**rest, "truncated": True}


def cut_text(text: str, excess: int) -> str:
    """The text without its end, shorter by at least `excess` bytes as JSON."""
    escaped = json.dumps(text)[1:-1]
    for end in range(len(escaped) - excess, 0, -1):
        try:
            return str(json.loads(f'"{escaped[:end]}"'))
        except ValueError:  # cut inside an escape, which is six bytes long at most
            continue
    return ""


def split_counts(
    counts: Iterable[tuple[tuple[str, str], int]],
) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """`counts` by name and `severities` of counts by (name, severity), each pair for one record."""
    names: dict[str, int] = {}
    severities: dict[str, int] = {}
    size = 0
    for (name, severity), count in counts:
        more = len(encode_line({name: count}))
        if names and size + more > COUNTS_SIZE:
            yield names, severities
            names, severities, size = {}, {}, 0
        names[name] = names.get(name, 0) + count
        severities[severity] = severities.get(severity, 0) + count
        size += more
    if names:
        yield names, severities


def line_hash(line: bytes) -> str:
    """What the next record's `prev` says of this line (without its newline)."""
    return hashlib.sha256(line).hexdigest()[:16]


def redact_bytes(match: bytes, *, partial: bool = False) -> str:
    """The match's first two and last two characters with *** between them.

    Of six characters or fewer, *** alone. Of a partial match, whose end is not known, the first
    two characters: shown together with those of its update they tell no more.
    """
    text = match.decode("utf-8", "replace")
    if len(text) <= 6:
        return "***"
    return f"{text[:2]}***" if partial else f"{text[:2]}***{text[-2:]}"


class Fingerprinter:
    """HMAC-SHA-256 under one key (RFC 2104), first 16 hex digits. The padded keys are hashed once.

    A secret has the same fingerprint wherever the key is the same; without the key, a fingerprint
    is no help in guessing the secret.
    """

    def __init__(self, key: bytes) -> None:
        padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self.key_id = hashlib.sha256(key).hexdigest()[:8]

    def of(self, secret: bytes) -> str:
        """The secret's fingerprint."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(secret)
        outer.update(inner.digest())
        return outer.hexdigest()[:16]
