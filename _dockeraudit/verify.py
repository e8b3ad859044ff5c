"""Reads audit logs, in any order, and names what is missing, changed or counted as lost."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
import time
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any, TextIO

from _dockeraudit.errors import AuditLogError
from _dockeraudit.records import MAX_LINE, NO_LINE, line_hash
from _dockeraudit.text import counted, printable

LINE_PIECE = 1 << 20  # bytes of a line that are read at once; no record has more than MAX_LINE
PROBLEMS_KEPT = 1000  # the rest is only counted
BEING_WRITTEN = (
    0.2  # seconds in which the writer must have finished a line that a reader saw half of
)


class Segment:
    """The lines of one file: where they begin and end in the history."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first: dict[str, Any] | None = None
        self.first_line = 0
        self.last: dict[str, Any] | None = None
        self.last_hash = NO_LINE  # of the last line, a torn one too
        self.record_hash = NO_LINE  # of the last record; a run goes on from it behind a torn line
        self.lines = 0

    def ends_with(self, prev: str) -> bool:
        """Whether a record with this `prev` may come next."""
        return prev in (self.last_hash, self.record_hash)


class Verification:
    """What `verify` found: `problems`, `notes` that are no problem, and totals."""

    def __init__(self, anchors: Sequence[str] = ()) -> None:
        self.problems: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.totals: Counter[str] = Counter()
        self.runs: OrderedDict[str, str] = OrderedDict()  # run → its last event
        self.anchors = {anchor[:16].lower(): False for anchor in anchors}
        self.omitted = 0

    def problem(self, segment: str, line: int, seq: Any, text: str) -> None:
        """Note something that should not be."""
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append({"file": segment, "line": line, "seq": seq, "problem": text})
        else:
            self.omitted += 1

    @property
    def sound(self) -> bool:
        """Whether nothing is missing, changed, or counted as lost."""
        return not self.problems

    # -- one file

    def read(self, name: str, lines: Iterable[bytes]) -> Segment:
        """Check one file's lines against each other; memory does not grow with them."""
        segment = Segment(name)
        for line in lines:
            segment.lines += 1
            self._line(segment, line)
        return segment

    def _line(self, segment: Segment, line: bytes) -> None:
        body = line[:-1] if line.endswith(b"\n") else line
        digest = line_hash(body)
        if digest in self.anchors:
            self.anchors[digest] = True
        record, problems = read_record(line, body)
        for problem in problems:
            self.problem(segment.name, segment.lines, None, problem)
        if record is None:
            segment.last_hash = digest
            return
        if segment.last is None:
            segment.first, segment.first_line = record, segment.lines
        else:
            self._chained(segment, segment.last, record)
        self._count(segment, record)
        segment.last, segment.last_hash, segment.record_hash = record, digest, digest

    def _chained(
        self, segment: Segment, before: Mapping[str, Any], record: Mapping[str, Any]
    ) -> None:
        """Whether a record follows the one before it in the same file."""
        if not segment.ends_with(record["prev"]):
            self._wrong(
                segment,
                record,
                "its prev is not the hash of the line before: "
                "a line was changed, removed or put in",
            )
        self._follows(segment.name, segment.lines, before, record)

    def _wrong(self, segment: Segment, record: Mapping[str, Any], text: str) -> None:
        self.problem(segment.name, segment.lines, record["seq"], text)

    def _follows(
        self, name: str, line: int, before: Mapping[str, Any], record: Mapping[str, Any]
    ) -> None:
        """Whether a record may stand right behind another."""
        same_run = record["run"] == before["run"]
        for text in wrong_seq(before, record) if same_run else wrong_start(before, record):
            self.problem(name, line, record["seq"], text)

    def _count(self, segment: Segment, record: Mapping[str, Any]) -> None:
        """Add a record to the totals, and name what it says is lost."""
        event = record["event"]
        self.runs[record["run"]] = event
        self.totals["records"] += 1
        if event == "finding":
            self.totals["findings"] += as_count(record.get("count"))
        elif event == "suppressed":
            counts = record.get("counts")
            of_client = "client" in record and "stream" not in record  # its requests, no matches
            name = "suppressed_requests" if of_client else "suppressed"
            counted = map(as_count, counts.values()) if isinstance(counts, dict) else ()
            self.totals[name] += sum(counted)
        elif event == "gap":
            self.totals["lost_records"] += as_count(record.get("records"))
            self.totals["lost_matches"] += as_count(record.get("matches"))
            reason = record.get("errno") or "the queue was full"
            lost = f"{record.get('records')} records were lost ({reason}), counted in this gap"
            self._wrong(segment, record, lost)
        elif event == "truncated":
            size = record.get("size_before")
            self._wrong(
                segment, record, f"the file was truncated at {size} bytes while it was written"
            )
        elif event == "scan_gap":
            self.totals["unscanned_bytes"] += as_count(record.get("bytes"))

    # -- all files

    def join(self, segments: Sequence[Segment]) -> None:
        """Put the files in order by run, seq and prev, and check what lies between them."""
        ordered = in_order([segment for segment in segments if segment.first])
        for before, after in zip(ordered, ordered[1:]):
            assert before.last and after.first
            first = after.first
            self._follows(after.name, after.first_line, before.last, first)
            if before.ends_with(first["prev"]):
                continue
            if (
                first["run"] != before.last["run"]
                and first["seq"] == 1
                and first["prev"] == NO_LINE
            ):
                self.notes.append(f"{after.name}: run {first['run']} begins a fresh file")
            else:
                text = f"its prev is not the last line of {before.name}"
                missing = "lines are missing between the files"
                self.problem(after.name, after.first_line, first["seq"], f"{text}: {missing}")
        if ordered:
            self._ends(ordered)
        for anchor, found in self.anchors.items():
            if not found:
                self.problem(
                    "-", 0, None, f"no line has the hash {anchor}, which was seen elsewhere"
                )

    def _ends(self, ordered: Sequence[Segment]) -> None:
        first, last = ordered[0].first, ordered[-1].last
        assert first and last
        if first["seq"] != 1 or first["prev"] != NO_LINE:
            begins = f"the history begins with seq {first['seq']} of run {first['run']}"
            self.notes.append(f"{begins}; what was before is not here")
        if last["event"] != "stop":
            self.notes.append(f"run {last['run']} has not stopped: it lives, or was killed")
        requests = self.totals["suppressed_requests"]
        if requests:
            self.notes.append(f"{requests} requests found no room in their clients' budgets")


def read_record(line: bytes, body: bytes) -> tuple[dict[str, Any] | None, list[str]]:
    """A line's record, None if it is none, and what is wrong with the line."""
    if not line.endswith(b"\n"):
        return None, ["the line has no end: it is torn, or longer than any record"]
    problems = [f"the line is longer than {MAX_LINE} bytes"] if len(line) > MAX_LINE else []
    try:
        record = json.loads(body)
        if (
            isinstance(record["seq"], int)
            and isinstance(record["run"], str)
            and isinstance(record["prev"], str)
        ):
            str(record["event"])
            return dict(record), problems
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None, [*problems, "the line is not a record (a torn one ends like this)"]


def wrong_start(before: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the first record of a run behind the last one of another."""
    run, seq = record["run"], record["seq"]
    if before["event"] != "stop":
        yield f"run {before['run']} has no stop, and run {run} follows it: it was killed"
    if seq != 1:
        yield f"run {run} begins with seq {seq}, not 1: records are missing before it"


def wrong_seq(before: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a record's seq behind another's of the same run."""
    seq, last = record["seq"], before["seq"]
    if seq <= last:
        yield f"seq {seq} stands behind seq {last}: the record is doubled or out of order"
    elif record["event"] == "gap":
        named = (record.get("records"), record.get("first_seq"), record.get("last_seq"))
        missing = seq - last - 1
        if named != (missing, last + 1, seq - 1):
            yield f"the gap names other records than the {missing} that are missing before it"
    elif seq > last + 1:
        many = seq > last + 2
        which = f"{last + 1} to {seq - 1} are" if many else f"{last + 1} is"
        yield f"seq {which} missing, without a gap that names {'them' if many else 'it'}"


def as_count(value: Any) -> int:
    """A number of a record, 0 where there is none."""
    return value if isinstance(value, int) and value > 0 else 0


def in_order(segments: Sequence[Segment]) -> list[Segment]:
    """Chain files by prev, then by run and seq; chains without a link by their first timestamp."""
    by_hash = {
        digest: segment
        for segment in segments
        for digest in (segment.record_hash, segment.last_hash)
    }
    by_seq = {
        (segment.last["run"], segment.last["seq"]): segment for segment in segments if segment.last
    }
    successor: dict[int, Segment] = {}
    heads = []
    for segment in segments:
        assert segment.first
        run, seq = segment.first["run"], segment.first["seq"]
        before = (
            by_hash.get(segment.first["prev"])
            or by_seq.get((run, seq - 1))
            or nearest_before(segments, run, seq)
        )
        if before is None or before is segment or id(before) in successor:
            heads.append(segment)
        else:
            successor[id(before)] = segment
    ordered: list[Segment] = []
    for head in sorted(
        heads, key=lambda segment: str(segment.first and segment.first.get("timestamp"))
    ):
        current: Segment | None = head
        while current is not None and current not in ordered:
            ordered.append(current)
            current = successor.get(id(current))
    return ordered + [segment for segment in segments if segment not in ordered]


def nearest_before(segments: Sequence[Segment], run: str, seq: int) -> Segment | None:
    """The file of the same run that ends last before `seq`."""
    earlier = [
        segment
        for segment in segments
        if segment.last and segment.last["run"] == run and segment.last["seq"] < seq
    ]
    return max(
        earlier, key=lambda segment: segment.last["seq"] if segment.last else 0, default=None
    )


def open_audit_log(path: str) -> IO[bytes]:
    """An audit log for reading: `-` is standard input, .gz is unpacked. Raises OSError."""
    if path == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "standard input is closed")
        return open(sys.stdin.fileno(), "rb", closefd=False)
    if path.endswith(".gz"):
        import gzip  # here, since most logs are read as they are

        return gzip.open(path, "rb")  # type: ignore[return-value]
    return open(path, "rb")


def bounded_lines(file: IO[bytes], size: float = float("inf")) -> Iterator[bytes]:
    """Lines that begin in the first `size` bytes, an endless one in pieces, so memory stays flat.

    A last line without its end may be half written (a reader sees a write page by page), so it is
    waited for.
    """
    position = 0
    while position < size:
        line = file.readline(LINE_PIECE)
        deadline = time.monotonic() + (BEING_WRITTEN if size != float("inf") else 0)
        while not line.endswith(b"\n") and len(line) <= MAX_LINE and time.monotonic() < deadline:
            time.sleep(0.01)
            line += file.readline(LINE_PIECE)
        if not line:
            return
        position += len(line)
        yield line


def sizes_at_once(files: Sequence[IO[bytes]]) -> list[float]:
    """How far to read each file: sizes that all had at one moment.

    A log lives, and is rotated, while it is read.
    """
    before: list[float] = []
    for _ in range(100):
        sizes = [
            float(os.fstat(file.fileno()).st_size)
            if type(file) is io.BufferedReader and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            else float("inf")
            for file in files
        ]
        if sizes == before:
            break
        before = sizes
    return sizes


def verify_files(names: Sequence[str], anchors: Sequence[str] = ()) -> Verification:
    """Check the files of one log, in any order. Raises AuditLogError if one cannot be read."""
    verification = Verification(anchors)
    segments = []
    with ExitStack() as opened:
        name = ""
        try:
            files = []
            for name in names:
                files.append(opened.enter_context(open_audit_log(name)))
            for name, file, size in zip(names, files, sizes_at_once(files)):
                segments.append(verification.read(name, bounded_lines(file, size)))
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise AuditLogError(f"{name} cannot be read: {reason}") from None
    verification.join(segments)
    return verification


def run_verify(
    files: Sequence[str], *, json_output: bool, anchors: Sequence[str], out: TextIO | None
) -> int:
    """The command `verify`: 0 if the history is whole, 1 if not. Raises AuditLogError.

    `out` is None where standard output is closed.
    """
    found = verify_files(files, anchors)
    names = ("records", "findings", "suppressed", "lost_records", "lost_matches", "unscanned_bytes")
    totals = {name: found.totals[name] for name in names}
    if out and json_output:
        write_json(found, totals, out)
    elif out:
        write_text(found, totals, len(files), out)
    return 0 if found.sound else 1


def write_json(found: Verification, totals: Mapping[str, int], out: TextIO) -> None:
    """What was found, for programs."""
    document = {
        "sound": found.sound,
        "runs": len(found.runs),
        "totals": totals,
        "problems": found.problems,
        "problems_omitted": found.omitted,
        "notes": found.notes,
    }
    json.dump(document, out, indent=2)
    out.write("\n")


def write_text(found: Verification, totals: Mapping[str, int], files: int, out: TextIO) -> None:
    """What was found, for people."""
    out.write(f"{counted(files, 'file')}, {counted(len(found.runs), 'run')}\n")
    for name, count in totals.items():
        out.write(f"  {name.replace('_', ' '):16} {count:>12,}\n")
    for note in found.notes:
        out.write(f"note: {printable(note)}\n")
    for problem in found.problems:
        seq = "" if problem["seq"] is None else f", seq {problem['seq']}"
        where = f"{problem['file']}, line {problem['line']}{seq}"
        out.write(f"{printable(where)}: {printable(problem['problem'])}\n")
    if found.omitted:
        out.write(f"and {found.omitted} more\n")
    out.write(
        "whole: nothing is missing, changed or lost\n"
        if found.sound
        else f"NOT WHOLE: {counted(len(found.problems) + found.omitted, 'problem')}\n"
    )
