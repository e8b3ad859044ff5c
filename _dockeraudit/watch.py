"""The command `watch`: findings as they come, a line each, from a log that grows and is rotated.

audit log ─▶ LogFollower (lines as they are written) ─▶ RecordReader ─▶ Watch (a line each)
"""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, Callable, TextIO

from _dockeraudit.choice import Choice
from _dockeraudit.logrecords import RecordReader, client_text, counts_of, number_of, text_of
from _dockeraudit.report import line_batches, log_history
from _dockeraudit.summary import UPDATED_FIELDS
from _dockeraudit.tallies import OUTPUT_ENDPOINTS
from _dockeraudit.terminal import Look
from _dockeraudit.text import SEVERITY_RANK, columns, fit, pad, printable
from _dockeraudit.textfiles import open_text, read_errors, read_failure, standard_input

POLL_PERIOD = 0.25  # seconds between two looks at a log that has not grown
FOLLOW_BLOCK = 1 << 20  # bytes read at once
FINDINGS_KEPT = 10_000  # findings whose update may still come
WIDE = 110  # columns from which on the fingerprint is shown too
EXIT_UNREADABLE = 66


class LogFollower:
    """The lines of a log as they are written, across rotation, truncation and deletion.

    `wait` is called where nothing has come; it returns False to end.
    """

    def __init__(self, path: str, wait: Callable[[], bool], from_start: bool) -> None:
        self._path = path
        self._wait = wait
        self._from_start = from_start
        self._carry = b""

    def lines(self) -> Iterator[list[bytes]]:
        """Whole lines without their newlines, as many as have come; raises OSError."""
        file = self._open(self._from_start)
        try:
            while True:
                grown = self._read(file) if file else []
                if grown:
                    yield grown
                elif file is None or self._replaced(file):
                    if file and (rest := self._read(file)):
                        yield rest  # written between the last look and the rotation
                    fresh = self._open(True)
                    if fresh is not None:
                        if file:
                            file.close()
                        file = fresh
                        continue
                if not grown and not self._wait():
                    return
        finally:
            if file:
                file.close()

    def _open(self, from_start: bool) -> IO[bytes] | None:
        """The log at its path now, None while there is none."""
        try:
            file = open(self._path, "rb", buffering=0)  # noqa: SIM115 - `lines` closes it
        except FileNotFoundError:
            return None
        if not from_start:
            file.seek(0, os.SEEK_END)
        return file

    def _read(self, file: IO[bytes]) -> list[bytes]:
        """The lines that have come since the last look."""
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)  # truncated, as copytruncate does
            self._carry = b""
        lines = (self._carry + file.read(FOLLOW_BLOCK)).split(b"\n")
        self._carry = lines.pop()[:FOLLOW_BLOCK]
        return lines

    def _replaced(self, file: IO[bytes]) -> bool:
        """Whether another file is at the path now."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False  # renamed, and not made anew yet
        return not os.path.samestat(there, os.fstat(file.fileno()))


class Watch:
    """Writes a line for each finding and each loss of the records that it is given."""

    def __init__(self, choice: Choice, out: TextIO, look: Look, as_json: bool = False) -> None:
        self._choice = choice
        self._out = out
        self._look = look
        self._as_json = as_json
        self._findings: OrderedDict[Any, Mapping[str, Any]] = OrderedDict()

    def show(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write what some records say."""
        for record in records:
            event = record["event"]
            if event == "finding":
                self._finding(record)
            elif event == "finding_update":
                self._update(record)
            elif text_of(record.get("timestamp")) >= self._choice.since:
                self._loss(event, record)
        self._out.flush()

    def _finding(self, record: Mapping[str, Any]) -> None:
        key = (record.get("run"), record.get("seq"))
        self._findings[key] = record
        if len(self._findings) > FINDINGS_KEPT:
            self._findings.popitem(last=False)
        if self._counts(record):
            self._write(record, finding_line(record, self._look))

    def _update(self, update: Mapping[str, Any]) -> None:
        """Write what a finding is now, if that is something else than was shown."""
        key = (update.get("run"), update.get("finding"))
        before = self._findings.get(key)
        if before is None or not update.get("complete"):
            return
        better = {name: update[name] for name in UPDATED_FIELDS if update.get(name) is not None}
        now = {**before, **better}
        self._findings[key] = now
        if self._counts(now) and (now != before or not self._counts(before)):
            self._write(now, finding_line(now, self._look, updates=self._counts(before)))

    def _counts(self, record: Mapping[str, Any]) -> bool:
        """Whether a finding was chosen."""
        if record.get("placeholder") and not self._choice.placeholders:
            return False
        if self._choice.leaves_out(record):
            return False
        in_time = text_of(record.get("timestamp")) >= self._choice.since
        return in_time and self._choice.takes_finding(record)

    def _loss(self, event: str, record: Mapping[str, Any]) -> None:
        text = loss_sentence(event, record)
        if text:
            line = f"{clock(record)}  {self._look.paint('LOSS', 'loss')}    "
            self._write(record, line + fit(text, self._look.width - 18))

    def _write(self, record: Mapping[str, Any], line: str) -> None:
        text = json.dumps(record, ensure_ascii=True) if self._as_json else line
        self._out.write(text + "\n")


def clock(record: Mapping[str, Any]) -> str:
    """The time of day of a record, UTC."""
    return pad(text_of(record.get("timestamp"))[11:19], 8)


def finding_line(record: Mapping[str, Any], look: Look, updates: bool = False) -> str:
    """A finding in one line: when, how grave, where, what, and who read it."""
    severity = text_of(record.get("severity"))
    container = text_of(record.get("container_name")) or text_of(record.get("container_id"))[:12]
    spare = max(0, look.width - 80) // 5
    variable, pattern = text_of(record.get("env")), text_of(record.get("pattern"))
    what = f"{variable}: {pattern}" if variable else pattern
    parts = [pad(container, 15 + spare), pad(what, 17 + spare)]
    parts.append(pad(text_of(record.get("redacted_match")), 9))
    if look.width >= WIDE:
        parts.append(pad(text_of(record.get("fingerprint")) or "end not seen", 16))
    begin = f"{clock(record)} {look.paint(pad(severity, 6), severity)} {' '.join(parts)} "
    room = look.width - 16 - columns(" ".join(parts)) - 1
    return begin + fit(reader_text(record, updates), max(room, 8))


def reader_text(record: Mapping[str, Any], updates: bool) -> str:
    """Who read a finding, where but in the container's output, and how often it came."""
    count, endpoint = number_of(record.get("count"), 1), text_of(record.get("endpoint"))
    text = client_text(record.get("client"))
    text += f" in {endpoint}" if endpoint not in OUTPUT_ENDPOINTS else ""
    text += f", {count:,} x" if count > 1 else ""
    return text + (", known whole now" if updates else "")


def loss_sentence(event: str, record: Mapping[str, Any]) -> str:
    """What was lost, in words; nothing for other events."""
    if event == "gap":
        records, matches = number_of(record.get("records")), number_of(record.get("matches"))
        return f"{records:,} records lost, {matches:,} findings among them"
    if event == "scan_gap":
        return f"{number_of(record.get('bytes')):,} bytes passed unscanned"
    if event == "scan_error":
        return f"a scan failed: {printable(text_of(record.get('error')))}"
    if event == "alert_gap":
        total = sum(counts_of(record.get("counts")).values())
        return f"{total:,} alerts dropped: {printable(text_of(record.get('reason')))}"
    if event == "truncated":
        return "the log was truncated while it was written"
    if event != "suppressed" or record.get("client") is not None:
        return ""
    severities = counts_of(record.get("severities"))
    graded = ", ".join(
        f"{severities[name]:,} {name}" for name in SEVERITY_RANK if name in severities
    )
    total = sum(counts_of(record.get("counts")).values())
    return f"{total:,} findings beyond their container's budget: {graded or 'counted only'}"


def run_watch(path: str, watch: Watch, since: str | None, err: TextIO) -> int:
    """Show a log's findings as they come, until interrupted; with `since` the earlier ones first.

    Raises KeyboardInterrupt; returns 66 for a log that cannot be read.
    """
    reader = RecordReader()
    try:
        if path == "-":
            with standard_input() as file:
                for line in file:
                    watch.show(reader.records([line]))
            return 0
        if since:
            show_earlier(log_history(path, since)[:-1], watch, reader)
        for lines in LogFollower(path, wait_a_moment, from_start=bool(since)).lines():
            watch.show(reader.records(lines))
    except read_errors() as error:
        if isinstance(error, BrokenPipeError):
            raise
        err.write(f"dockeraudit watch: {printable(read_failure(path, error))}\n")
        return EXIT_UNREADABLE
    return 0


def show_earlier(paths: Sequence[str], watch: Watch, reader: RecordReader) -> None:
    """Show what rotated files hold."""
    for path in paths:
        with open_text(path) as file:
            for _, lines in line_batches(file):
                watch.show(reader.records(lines))


def wait_a_moment() -> bool:
    """Wait for the log to grow."""
    time.sleep(POLL_PERIOD)
    return True
