"""Lines of audit logs to records: also of logs that were shipped, and each record once.

    lines ─▶ record_of (no prefix, no wrapper) ─▶ SeenRecords (copies dropped) ─▶ records

A log written to standard output is often read from where a shipper has put it: docker's json-file
driver wraps each line in JSON, CRI, syslog and Compose put a prefix before it. The same file may
also be given twice, as a copy or compressed; a record is known by its run and seq. Performs no I/O.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Fields in which shippers put the line: docker's json-file, journald's JSON, fluentd, Loki.
WRAPPERS = ("log", "MESSAGE", "message", "msg", "line")
NESTING = 3  # wrappers and prefixes around one record: a json-file line that syslog carried on
OWN_WORDS = b"dockeraudit: "  # our lines for people, which `docker logs` mixes with the records
RANGES_LIMIT = 1_000_000  # ranges of seq remembered; 16 MB


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record that a line holds, whatever a shipper has put around it; None if there is none."""
    value = parsed_object(line)
    for _ in range(NESTING):
        if value is None:
            return None
        if isinstance(value.get("event"), str):
            return value
        inner = next((value[name] for name in WRAPPERS if isinstance(value.get(name), str)), "")
        value = parsed_object(inner.encode("utf-8", "surrogatepass"))
    return None


def parsed_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object that a line is, or that stands at its end behind a prefix."""
    begin = line.find(b'{"')
    if begin < 0:
        return None
    try:
        value = json.loads((line[begin:] if begin else line).decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class SeqRanges:
    """The seq of one run that have been seen, as ranges; one range where nothing is missing."""

    def __init__(self) -> None:
        self.starts, self.ends = array("q"), array("q")

    def add(self, seq: int) -> bool:
        """Note a seq; False if it was there."""
        starts, ends = self.starts, self.ends
        place = len(ends) if not ends or seq > ends[-1] else bisect_right(starts, seq)
        if place and seq <= ends[place - 1]:
            return False
        if place and seq == ends[place - 1] + 1:
            ends[place - 1] = seq
        elif place < len(starts) and seq == starts[place] - 1:
            starts[place] = seq
        else:
            starts.insert(place, seq)
            ends.insert(place, seq)
        return True


class SeenRecords:
    """The records that have been read, by run and seq, in bounded memory."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, SeqRanges] = OrderedDict()
        self._left = RANGES_LIMIT

    def is_new(self, record: Mapping[str, Any]) -> bool:
        """Note a record; False if the same one was read before."""
        run, seq = record.get("run"), record.get("seq")
        if not isinstance(run, str) or not isinstance(seq, int) or not 0 <= seq < 1 << 62:
            return True
        ranges = self._runs.get(run)
        if ranges is None:
            ranges = self._runs[run] = SeqRanges()
        before = len(ranges.starts)
        new = ranges.add(seq)
        self._left -= len(ranges.starts) - before
        while self._left < 0:
            self._left += len(self._runs.popitem(last=False)[1].starts)
        return new


class RecordReader:
    """Lines to records, each once; `bad_lines` and `copies` count the lines that gave none."""

    def __init__(self) -> None:
        self.records_read = self.bad_lines = self.copies = 0
        self._seen = SeenRecords()

    def records(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """The records of some lines, each line without its newline."""
        for line in lines:
            record = record_of(line)
            if record is None:
                self.bad_lines += OWN_WORDS not in line or b'{"timestamp"' in line
            elif self._seen.is_new(record):
                self.records_read += 1
                yield record
            else:
                self.copies += 1


def text_of(value: Any) -> str:
    """A field that should be text."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def number_of(value: Any, default: int = 0) -> int:
    """A field that should be a count."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return value
    return default


def counts_of(value: Any) -> dict[str, int]:
    """A field that should be counts by name."""
    if not isinstance(value, dict):
        return {}
    return {name: number_of(count) for name, count in value.items() if number_of(count)}


def client_text(client: Any) -> str:
    """A client for people: certificate and address, or uid and command."""
    if not isinstance(client, dict):
        return "unknown"
    if "address" in client:
        certificate = text_of(client.get("certificate"))
        return text_of(client["address"]) + (f" ({certificate})" if certificate else "")
    uid = text_of(client.get("uid"))
    if client.get("listener") == "scan":
        return f"dockeraudit scan (uid {uid})"
    return f"uid {uid} ({text_of(client.get('command')) or 'unknown command'})"
