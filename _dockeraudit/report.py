"""The command `report`: reads audit logs, shows what they say, remembers what it has told."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import IO, Any, NamedTuple, TextIO

from _dockeraudit import __version__
from _dockeraudit.choice import Choice, fingerprint_prefix, since_timestamp
from _dockeraudit.export import summary_dict, write_csv
from _dockeraudit.logrecords import RecordReader
from _dockeraudit.page import PAGE_TAIL, render_html
from _dockeraudit.summary import LOSS_KEYS_LIMIT, AuditSummary
from _dockeraudit.terminal import ROWS, Look, minute, render_text, table_by
from _dockeraudit.text import (
    WIDTH,
    ReportError,
    counted,
    fit,
    printable,
    severity_rank,
    size_text,
)
from _dockeraudit.textfiles import open_text, plain_size, read_errors, read_failure
from patterns import RULES

READ_SIZE = 1 << 20  # bytes read at once
LONGEST_LINE = 1 << 20  # bytes of a line that may be a record; the writer's are 4,096 at most
PROGRESS_BYTES = 16 << 20  # of a log between two looks at the clock
EXIT_FOUND_GRAVE, EXIT_NO_INPUT, EXIT_CANNOT_CREATE, EXIT_WRONG_OPTION = 1, 66, 73, 78
STATE_MARK = "dockeraudit report state 1"
STATE_OVERLAP = timedelta(seconds=10)  # read again; what was told is known by its digest
ROTATED = re.compile(r"[.-]\d[\d.-]*(\.(gz|xz|bz2|zst))?")  # what logrotate adds to a log's name
FORMATS = ("text", "json", "html", "csv")
TABLES = ("rule", "container", "reader")


class ReportOptions(NamedTuple):
    """What `report` was asked for, as text; `choice_of` and others say what is wrong with it."""

    since: str | None = None
    container: str | None = None
    pattern: str | None = None
    secret: str | None = None
    severity: str | None = None
    fail_on: str | None = None
    state: str | None = None
    placeholders: bool = False
    format: str = "text"
    by: str | None = None
    everything: bool = False  # --all
    top: str | None = None
    known: frozenset[str] = frozenset()  # secrets to leave out
    named: bool = True  # files were named on the command line


class State(NamedTuple):
    """What earlier reports have told: up to when they had read, and digests, the oldest first."""

    until: str = ""
    reported: Sequence[str] = ()

    @classmethod
    def read(cls, path: str) -> State:
        """From its file; empty where there is none. Raises ReportError for another file."""
        try:
            with open(path, encoding="ascii") as file:
                mark, until, *reported = file.read().split("\n")
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError):
            mark, until, reported = "", "", []
        if mark != STATE_MARK:
            raise ReportError(
                f"--state {path!r} is not a file that an earlier report has written; "
                "name another, or remove it"
            )
        return cls(until, [digest for digest in reported if digest])

    def write(self, path: str) -> None:
        """Into its file, whole or not at all; raises OSError."""
        part = f"{path}.{os.getpid()}"
        with open(part, "w", encoding="ascii", opener=open_private) as file:
            file.write("\n".join((STATE_MARK, self.until, *self.reported)) + "\n")
        os.replace(part, path)

    def since(self) -> str:
        """From when on to read: records may have waited a second for their container's name."""
        try:
            until = datetime.strptime(self.until, "%Y-%m-%dT%H:%M:%S.%fZ")
        except ValueError:
            return ""
        return (until - STATE_OVERLAP).isoformat()


def open_private(name: str, flags: int) -> int:
    """Open a file that only its owner can read."""
    return os.open(name, flags, 0o600)


class Report:
    """One run of `report`: its options, what it has read, where it writes."""

    def __init__(self, options: ReportOptions, out: TextIO, err: TextIO, now: float) -> None:
        """Raises ReportError for an option that cannot be used."""
        self.options, self.out, self.err, self.now = options, out, err, now
        self.before = State.read(options.state) if options.state else State()
        self.least = severity_rank("--fail-on", options.fail_on)
        self.rows = rows_of(options)
        self.choice = choice_of(options, self.before, now)
        self.reader = RecordReader()
        self.summary = AuditSummary(self.choice)

    def run(self, files: Sequence[str]) -> int:
        """Read the files and write the report; returns the exit status."""
        self._read(files)
        summary = self.summary
        if not self.reader.records_read:
            return self._no_records(files)
        if self.options.since and summary.latest < self.choice.since:
            latest = minute(summary.latest) or "unknown"
            self._complain(f"there are no records since {self.options.since}; the last: {latest}")
            return EXIT_NO_INPUT
        missing = summary.names.missing(rule_names())
        if missing:
            self._complain(*missing)
            return EXIT_WRONG_OPTION
        if not self._tell():
            return EXIT_CANNOT_CREATE
        if self.least and summary.grave(self.least):
            return EXIT_FOUND_GRAVE
        return EXIT_NO_INPUT if summary.losses["files_unreadable"] else 0

    def _complain(self, *sentences: str) -> None:
        for sentence in sentences:
            self.err.write(f"dockeraudit report: {printable(sentence)}\n")

    def _read(self, files: Sequence[str]) -> None:
        """Read the files; those that cannot be read are named, and counted as a loss."""
        for name in files:
            try:
                read_log(self.summary, self.reader, name, self.err)
            except read_errors() as error:
                self.summary.losses["files_unreadable"] += 1
                self._complain(read_failure(name, error))
        if self.reader.bad_lines:
            self.summary.losses["bad_lines"] = self.reader.bad_lines
        self.summary.settle()

    def _no_records(self, files: Sequence[str]) -> int:
        """Say that there is no record at all, which is no good news."""
        if self.summary.losses["files_unreadable"] == len(files):
            if not self.options.named:
                self._complain("name the log: dockeraudit report FILE, or --audit-log FILE")
            return EXIT_NO_INPUT  # each file has been named
        names = ", ".join("standard input" if name == "-" else name for name in files)
        bad = self.reader.bad_lines
        lines = f"; {counted(bad, 'line')} of something else" if bad else ""
        self._complain(f"there are no records of dockeraudit in {names}{lines}")
        if self.options.format == "json":
            self._write(frozenset())
        return EXIT_NO_INPUT

    def _tell(self) -> bool:
        """Write the report, or with --state only what is new; False if the state was not kept."""
        path, before = self.options.state, self.before
        if not path:
            self._write(None)
            return True
        news = self.summary.news() - set(before.reported)
        if news or self.summary.losses["files_unreadable"]:
            self._write(frozenset(news))
            self.out.flush()
        kept = [*before.reported, *sorted(news)][-LOSS_KEYS_LIMIT:]
        try:
            State(max(before.until, self.summary.last), kept).write(path)
        except OSError as error:
            self._complain(
                f"--state {path} cannot be written: {error.strerror}; the same will be told again"
            )
            return False
        return True

    def _write(self, new: frozenset[str] | None) -> None:
        """The report in its format. `new`: digests of what no earlier report has told."""
        out, summary, options = self.out, self.summary, self.options
        if options.format == "json":
            json.dump(summary_dict(summary), out, ensure_ascii=True, indent=1)
            out.write("\n")
        elif options.format == "csv":
            write_csv(summary, out)
        elif options.format == "html":
            moment = datetime.fromtimestamp(self.now, timezone.utc)
            made = moment.strftime("Made by dockeraudit report, %Y-%m-%d %H:%M UTC.")
            out.write(render_html(summary, title="dockeraudit report", made=made, new=new))
        else:
            look = look_for(out)._replace(
                rows=self.rows,
                grouped=not options.everything,
                new=new if self.before.until else None,
            )
            by = options.by
            out.write(table_by(by, summary, look) if by else render_text(summary, look))


def choice_of(options: ReportOptions, before: State, now: float) -> Choice:
    """The records that count; raises ReportError."""
    since = since_timestamp(options.since, now) if options.since else before.since()
    return Choice(
        since,
        options.container or "",
        options.pattern or "",
        severity_rank("--severity", options.severity),
        fingerprint_prefix(options.secret),
        options.placeholders,
        options.known,
    )


def rows_of(options: ReportOptions) -> int:
    """The rows of each table; raises ReportError."""
    if options.top is None:
        return 1 << 30 if options.everything else ROWS
    if not options.top.isdecimal() or int(options.top) < 1:
        raise ReportError(f"--top {options.top!r} is not a number from 1 up")
    return int(options.top)


def rule_names() -> Iterator[str]:
    """Names and ids of the rules that dockeraudit brings."""
    for rule in RULES:
        yield rule.name
        yield rule.id


def look_for(out: TextIO) -> Look:
    """How a report looks here: as wide as the terminal, and coloured on one."""
    if not out.isatty():
        return Look()
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    return Look(colour=not os.environ.get("NO_COLOR"), width=width)


def run_report(
    files: Sequence[str], options: ReportOptions, out: TextIO, err: TextIO, now: float | None = None
) -> int:
    """Write the report of some files; returns the exit status.

    0, 1 where --fail-on found something, 66 for a file that cannot be read or no records at all,
    73 for a state that cannot be written, 78 for a wrong option, also one that names nothing.
    """
    try:
        report = Report(options, out, err, time.time() if now is None else now)
    except ReportError as error:
        err.write(f"dockeraudit report: {error}\n")
        return EXIT_WRONG_OPTION
    return report.run(files)


def log_history(path: str, since: str | None = None) -> list[str]:
    """A log and its rotated files, the oldest first.

    Without those last written before `since`, where that can be read.
    """
    folder, name = os.path.split(path)
    if path == "-":
        return [path]
    try:
        earliest = since_timestamp(since, time.time()) if since else ""
        entries = [
            os.path.join(folder, entry)
            for entry in os.listdir(folder or ".")
            if entry.startswith(name) and ROTATED.fullmatch(entry[len(name) :])
        ]
        dated = sorted((os.stat(entry).st_mtime, entry) for entry in entries)
    except (OSError, ReportError):
        return [path]
    chosen = [
        entry
        for moment, entry in dated
        if datetime.fromtimestamp(moment, timezone.utc).isoformat() >= earliest
    ]
    return [*chosen, path]


def read_log(summary: AuditSummary, reader: RecordReader, name: str, err: TextIO) -> None:
    """Add one file's records; raises one of read_errors()."""
    progress = FileProgress(name, err)
    try:
        with open_text(name) as file:
            for size, lines in line_batches(file):
                summary.add_all(reader.records(lines))
                progress.advance(size)
    finally:
        progress.end()


class FileProgress:
    """How far a file has been read, now and then, on a terminal."""

    def __init__(self, name: str, err: TextIO) -> None:
        self._name = name
        self._err = err
        self._wanted = err.isatty()
        self._total = plain_size(name) if self._wanted else 0
        self._done = self._looked = 0
        self._shown_at = time.monotonic()
        self._shown = False

    def advance(self, size: int) -> None:
        """So many bytes more have been read."""
        self._done += size
        if not self._wanted or self._done - self._looked < PROGRESS_BYTES:
            return
        self._looked = self._done
        if time.monotonic() - self._shown_at >= 0.5:
            self._shown_at, self._shown = time.monotonic(), True
            of = f" of {size_text(self._total)}" if self._total else ""
            text = fit(f"{size_text(self._done)}{of} read: {self._name}", WIDTH - 1)
            self._err.write(f"\r{text}\x1b[K")
            self._err.flush()

    def end(self) -> None:
        """Remove the line."""
        if self._shown:
            self._err.write("\r\x1b[K")


def line_batches(file: Any) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines without their newlines, many at once, with how many bytes they took.

    A line without an end comes in pieces, so that memory stays flat.
    """
    carry = b""
    for block in iter(lambda: file.read1(READ_SIZE), b""):
        lines = (carry + block).split(b"\n")
        carry = lines.pop()
        if len(carry) > LONGEST_LINE:
            lines.append(carry[:80])
            carry = b""
        yield len(block), lines
    if carry:
        yield 0, [carry]


def read_tail(summary: AuditSummary, path: str, size: int = PAGE_TAIL) -> None:
    """Add the records of a log's last so many bytes, from the first whole line on."""
    reader = RecordReader()
    with open(path, "rb") as file:
        skip_to_tail(file, size)
        for _, lines in line_batches(file):
            summary.add_all(reader.records(lines))
    if reader.bad_lines:
        summary.losses["bad_lines"] = reader.bad_lines
    summary.settle()


def skip_to_tail(file: IO[bytes], size: int) -> None:
    """Go to the first line that begins in a file's last so many bytes."""
    start = max(0, file.seek(0, os.SEEK_END) - size)
    file.seek(start)
    if start:
        file.readline(size)


def live_page(path: str, live: Mapping[str, Any]) -> str:
    """The admin listener's page: what runs now, and what the end of the log at `path` holds."""
    summary = AuditSummary()
    made = f"dockeraudit {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}. "
    if path == "-":
        made += "The audit log goes to standard output, so its findings are not shown here."
    else:
        made += f"Findings of the audit log's last {size_text(PAGE_TAIL)}; "
        made += "dockeraudit report reads all of it."
        try:
            read_tail(summary, path)
        except OSError:
            summary.losses["files_unreadable"] += 1
    return render_html(summary, title="dockeraudit: what runs now", live=live, made=made)
