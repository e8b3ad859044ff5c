"""The command `report`: files, progress, state."""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import IO, Any, NamedTuple, TextIO

from _dockeraudit import __version__
from _dockeraudit.page import PAGE_TAIL, render_html
from _dockeraudit.summary import (
    STATE_LIMIT,
    AuditSummary,
    Choice,
    fingerprint_prefix,
    since_timestamp,
)
from _dockeraudit.terminal import render_text
from _dockeraudit.text import (
    SEVERITY_RANK,
    WIDTH,
    ReportError,
    fit,
    printable,
    severity_rank,
    size_text,
)
from _dockeraudit.verify import open_audit_log

READ_SIZE = 1 << 20  # bytes read at once
LONGEST_LINE = 1 << 20  # bytes of a line that may be a record; the writer's are 4,096 at most
PROGRESS_BYTES = 16 << 20  # of a log between two looks at the clock
EXIT_FOUND_GRAVE, EXIT_NO_INPUT, EXIT_CANNOT_CREATE = 1, 66, 73
STATE_MARK = "dockeraudit report state 1"
STATE_OVERLAP = timedelta(seconds=10)  # read again; what was told is known by its digest
ROTATED = re.compile(r"[.-]\d[\d.-]*(\.gz)?")  # what logrotate puts behind a log's name


class State(NamedTuple):
    """What earlier reports have told: up to when they had read, and digests of what was in them, the oldest first."""

    until: str = ""
    told: Sequence[str] = ()

    @classmethod
    def read(cls, path: str) -> State:
        """From its file; there is nothing yet where there is none. Raises ReportError for a file that is something else."""
        try:
            with open(path, encoding="ascii") as file:
                mark, until, *told = file.read().split("\n")
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError):
            mark, until, told = "", "", []
        if mark != STATE_MARK:
            raise ReportError(
                f"--state {path!r} is not a file that an earlier report has written; name another, or remove it"
            )
        return cls(until, [digest for digest in told if digest])

    def write(self, path: str) -> None:
        """Into its file, whole or not at all; raises OSError."""
        part = f"{path}.{os.getpid()}"
        with open(
            part, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as file:
            file.write("\n".join((STATE_MARK, self.until, *self.told)) + "\n")
        os.replace(part, path)

    def since(self) -> str:
        """From when on to read: a little before the end, since a record may wait a second for its container's name."""
        try:
            return (
                datetime.strptime(self.until, "%Y-%m-%dT%H:%M:%S.%fZ") - STATE_OVERLAP
            ).isoformat()
        except ValueError:
            return ""


def run_report(
    files: Sequence[str], *, since: str | None, container: str | None, pattern: str | None, severity: str | None,
    json_output: bool, html: bool, fail_on: str | None, out: TextIO, err: TextIO, now: float | None = None, secret: str | None = None,
    state: str | None = None,
) -> int:  # fmt: skip
    """Write the report: 0, 1 where --fail-on found something, 66 for a file that cannot be read, 73 for a state that cannot be written, 78 for a wrong option."""
    now = time.time() if now is None else now
    try:
        before = State.read(state) if state else State()
        moment = since_timestamp(since, now) if since else before.since()
        choice = Choice(
            moment,
            container or "",
            pattern or "",
            severity_rank("--severity", severity),
            fingerprint_prefix(secret),
        )
        least = severity_rank("--fail-on", fail_on)
    except ReportError as error:
        err.write(f"dockeraudit report: {error}\n")
        return 78
    summary = read_logs(files, choice, err)
    if not state:
        write_report(summary, out, json_output=json_output, html=html, now=now)
    else:
        news = summary.news() - set(before.told)
        if news or summary.losses["files_unreadable"]:
            write_report(summary, out, json_output=json_output, html=html, now=now)
            out.flush()
        try:
            State(
                max(before.until, summary.last), [*before.told, *sorted(news)][-STATE_LIMIT:]
            ).write(state)
        except OSError as error:
            err.write(
                f"dockeraudit report: --state {printable(state)} cannot be written: {error.strerror}; the same will be told again\n"
            )
            return EXIT_CANNOT_CREATE
    if least and any(
        count and SEVERITY_RANK.get(name, 0) >= least for name, count in summary.findings.items()
    ):
        return EXIT_FOUND_GRAVE
    return EXIT_NO_INPUT if summary.losses["files_unreadable"] else 0


def read_logs(files: Sequence[str], choice: Choice, err: TextIO) -> AuditSummary:
    """What the files say; those that cannot be read are named, and counted as a loss."""
    summary = AuditSummary(choice)
    for name in files:
        try:
            read_log(summary, name, err)
        except (OSError, EOFError, zlib.error) as error:
            summary.losses["files_unreadable"] += 1
            err.write(f"dockeraudit report: {printable(name)} cannot be read: {error}\n")
    summary.settle()
    return summary


def write_report(
    summary: AuditSummary, out: TextIO, *, json_output: bool, html: bool, now: float
) -> None:
    """The report as JSON, as a page or as text."""
    if json_output:
        json.dump(summary.as_dict(), out, ensure_ascii=True, indent=1)
        out.write("\n")
    elif html:
        made = datetime.fromtimestamp(now, timezone.utc).strftime(
            "Made by dockeraudit report, %Y-%m-%d %H:%M UTC."
        )
        out.write(render_html(summary, title="dockeraudit report", made=made))
    else:
        out.write(render_text(summary, out.isatty() and not os.environ.get("NO_COLOR")))


def log_history(path: str, since: str | None = None) -> list[str]:
    """A log and its rotated files, the oldest first; without those last written before `since`, where that can be read."""
    folder, name = os.path.split(path)
    if path == "-":
        return [path]
    try:
        earliest = since_timestamp(since, time.time()) if since else ""
        entries = [
            entry
            for entry in os.listdir(folder or ".")
            if entry.startswith(name) and ROTATED.fullmatch(entry[len(name) :])
        ]
        dated = sorted(
            (os.stat(os.path.join(folder, entry)).st_mtime, os.path.join(folder, entry))
            for entry in entries
        )
    except (OSError, ReportError):
        return [path]
    return [
        entry
        for moment, entry in dated
        if datetime.fromtimestamp(moment, timezone.utc).isoformat() >= earliest
    ] + [path]


def read_log(summary: AuditSummary, name: str, err: TextIO) -> None:
    """Add one file's lines; raises OSError, and what unpacking raises."""
    told = err.isatty()
    done, looked, shown_at = 0, 0, time.monotonic()
    total = os.path.getsize(name) if name != "-" and not name.endswith(".gz") else 0
    with open_audit_log(name) as file:
        for size, lines in line_batches(file):
            summary.add_lines(lines)
            done += size
            if told and done - looked >= PROGRESS_BYTES:
                looked = done
                if time.monotonic() - shown_at >= 0.5:
                    shown_at = time.monotonic()
                    of = f" of {size_text(total)}" if total else ""
                    err.write(
                        fit(f"{size_text(done)}{of} read: {name}", WIDTH - 1).join(("\r", "\x1b[K"))
                    )
                    err.flush()
    if looked:
        err.write("\r\x1b[K")


def line_batches(file: IO[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Whole lines of a file without their newlines, many at once, with how many bytes they took; an endless one in pieces."""
    carry = b""
    for block in iter(lambda: file.read(READ_SIZE), b""):
        lines = (carry + block).split(b"\n")
        carry = lines.pop()
        if len(carry) > LONGEST_LINE:
            lines.append(carry[:80])
            carry = b""
        yield len(block), lines
    if carry:
        yield 0, [carry]


def read_tail(summary: AuditSummary, path: str, size: int = PAGE_TAIL) -> None:
    """Add the lines of a log's last so many bytes, from the first whole one on; raises OSError."""
    with open(path, "rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - size)
        file.seek(start)
        if start:
            file.readline(size)
        for _, lines in line_batches(file):
            summary.add_lines(lines)
    summary.settle()


def live_page(path: str, live: Mapping[str, Any]) -> str:
    """The admin listener's page: what runs now, and what the end of the audit log at `path` holds."""
    summary = AuditSummary()
    made = f"dockeraudit {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}. "
    if path == "-":
        made += "The audit log goes to standard output, so its findings are not shown here."
    else:
        made += f"Findings of the audit log's last {size_text(PAGE_TAIL)}; dockeraudit report reads all of it."
        try:
            read_tail(summary, path)
        except OSError:
            summary.losses["files_unreadable"] += 1
    return render_html(summary, title="dockeraudit: what runs now", live=live, made=made)
