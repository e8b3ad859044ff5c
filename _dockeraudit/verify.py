"""Reads audit logs, in any order, and names what is missing, changed or counted as lost."""

from __future__ import annotations

import errno
import gzip
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
from _dockeraudit.text import printable

LINE_PIECE = 1 << 20  # bytes of a line that `verify` holds; no record has more than MAX_LINE


class Segment:
    """The lines of one file: where they begin and end in the history, and what is wrong between."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first: dict[str, Any] | None = None
        self.first_line = 0
        self.last: dict[str, Any] | None = None
        self.last_hash = NO_LINE  # of the last line
        self.record_hash = NO_LINE  # of the last record: behind a torn line of its own, the same run goes on from there
        self.lines = 0

    def ends_with(self, prev: str) -> bool:
        """Whether a record with this `prev` may come next."""
        return prev in (self.last_hash, self.record_hash)


class Verification:
    """What `verify` found: `problems` (file, line, seq, text), `notes` that are no problem, and the totals."""

    def __init__(self, anchors: Sequence[str] = ()) -> None:
        self.problems: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.totals: Counter[str] = Counter()
        self.runs: OrderedDict[str, str] = OrderedDict()  # run → its last event
        self.anchors = {anchor[:16].lower(): False for anchor in anchors}
        self.omitted = 0

    def problem(self, segment: str, line: int, seq: Any, text: str) -> None:
        """Something that should not be; the first thousand are kept."""
        if len(self.problems) < 1000:
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
        record = self._record(segment, line, body)
        if record is None:
            segment.last_hash = digest
            return
        if segment.last is None:
            segment.first, segment.first_line = record, segment.lines
        else:
            if not segment.ends_with(record["prev"]):
                self._wrong(
                    segment,
                    record,
                    "its prev is not the hash of the line before: a line was changed, removed or put in",
                )
            self._follows(segment.name, segment.lines, segment.last, record)
        self._count(segment, record)
        segment.last, segment.last_hash, segment.record_hash = record, digest, digest

    def _record(self, segment: Segment, line: bytes, body: bytes) -> dict[str, Any] | None:
        if not line.endswith(b"\n"):
            self.problem(
                segment.name,
                segment.lines,
                None,
                "the line has no end: it is torn, or longer than any record",
            )
            return None
        if len(line) > MAX_LINE:
            self.problem(
                segment.name, segment.lines, None, f"the line is longer than {MAX_LINE} bytes"
            )
        try:
            record = json.loads(body)
            if (
                isinstance(record["seq"], int)
                and isinstance(record["run"], str)
                and isinstance(record["prev"], str)
            ):
                str(record["event"])
                return dict(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        self.problem(
            segment.name,
            segment.lines,
            None,
            "the line is not a record (a torn one ends like this)",
        )
        return None

    def _wrong(self, segment: Segment, record: Mapping[str, Any], text: str) -> None:
        self.problem(segment.name, segment.lines, record["seq"], text)

    def _follows(
        self, name: str, line: int, before: Mapping[str, Any], record: Mapping[str, Any]
    ) -> None:
        """Whether a record may stand right behind another."""
        seq, last = record["seq"], before["seq"]
        if record["run"] != before["run"]:
            if before["event"] != "stop":
                self.problem(
                    name,
                    line,
                    seq,
                    f"run {before['run']} has no stop, and run {record['run']} follows it: it was killed",
                )
            if seq != 1:
                self.problem(
                    name,
                    line,
                    seq,
                    f"run {record['run']} begins with seq {seq}, not 1: records are missing before it",
                )
        elif seq <= last:
            self.problem(
                name,
                line,
                seq,
                f"seq {seq} stands behind seq {last}: the record is doubled or out of order",
            )
        elif seq > last + 1 or record["event"] == "gap":
            named = (record.get("records"), record.get("first_seq"), record.get("last_seq"))
            if record["event"] != "gap":
                self.problem(
                    name,
                    line,
                    seq,
                    f"seq {last + 1} to {seq - 1} are missing, without a gap that names them",
                )
            elif named != (seq - last - 1, last + 1, seq - 1):
                self.problem(
                    name,
                    line,
                    seq,
                    f"the gap names other records than the {seq - last - 1} that are missing before it",
                )

    def _count(self, segment: Segment, record: Mapping[str, Any]) -> None:
        event = record["event"]
        self.runs[record["run"]] = event
        self.totals["records"] += 1
        if event == "finding":
            self.totals["findings"] += as_count(record.get("count"))
        elif event == "suppressed":
            counts = record.get("counts")
            self.totals["suppressed"] += (
                sum(map(as_count, counts.values())) if isinstance(counts, dict) else 0
            )
        elif event == "gap":
            self.totals["lost_records"] += as_count(record.get("records"))
            self.totals["lost_matches"] += as_count(record.get("matches"))
            self._wrong(
                segment,
                record,
                f"{record.get('records')} records were lost ({record.get('errno') or 'the queue was full'}), counted in this gap",
            )
        elif event == "truncated":
            self._wrong(
                segment,
                record,
                f"the file was truncated at {record.get('size_before')} bytes while it was written",
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
                text = f"its prev is not the last line of {before.name}: lines are missing between the files"
                self.problem(after.name, after.first_line, first["seq"], text)
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
            self.notes.append(
                f"the history begins with seq {first['seq']} of run {first['run']}; what was before is not here"
            )
        if last["event"] != "stop":
            self.notes.append(f"run {last['run']} has not stopped: it lives, or was killed")


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
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def bounded_lines(file: IO[bytes], size: float = float("inf")) -> Iterator[bytes]:
    """Lines that begin in the first `size` bytes; an endless one comes in pieces, so that memory stays flat.

    A last line without its end may be one that is being written (a reader sees a write page by page): it gets a moment.
    """
    position = 0
    while position < size:
        line = file.readline(LINE_PIECE)
        for _ in range(20 if size != float("inf") else 0):
            if line.endswith(b"\n") or len(line) > MAX_LINE:
                break
            time.sleep(0.01)
            line += file.readline(LINE_PIECE)
        if not line:
            return
        position += len(line)
        yield line


def sizes_at_once(files: Sequence[IO[bytes]]) -> list[float]:
    """How far to read each: sizes that all files had at one moment, since a log lives and is rotated while it is read."""
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
    """Check the files of one log, in any order; raises AuditLogError for one that cannot be read."""
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
            raise AuditLogError(f"{name} cannot be read: {error}") from None
    verification.join(segments)
    return verification


def run_verify(
    files: Sequence[str], *, json_output: bool, anchors: Sequence[str], out: TextIO
) -> int:
    """The command `verify`: 0 if the history is whole, 1 if not. Raises AuditLogError."""
    found = verify_files(files, anchors)
    names = ("records", "findings", "suppressed", "lost_records", "lost_matches", "unscanned_bytes")
    totals = {name: found.totals[name] for name in names}
    if json_output:
        document = {
            "sound": found.sound,
            "runs": len(found.runs),
            "totals": totals,
            "problems": found.problems,
        }
        json.dump(
            {**document, "problems_omitted": found.omitted, "notes": found.notes}, out, indent=2
        )
        out.write("\n")
        return 0 if found.sound else 1
    out.write(f"{len(files)} files, {len(found.runs)} runs\n")
    for name, count in totals.items():
        out.write(f"  {name.replace('_', ' '):16} {count:>12,}\n")
    for note in found.notes:
        out.write(f"note: {printable(note)}\n")
    for problem in found.problems:
        where = f"{problem['file']}, line {problem['line']}" + (
            f", seq {problem['seq']}" if problem["seq"] is not None else ""
        )
        out.write(f"{printable(where)}: {printable(problem['problem'])}\n")
    if found.omitted:
        out.write(f"and {found.omitted} more\n")
    out.write(
        "whole: nothing is missing, changed or lost\n"
        if found.sound
        else f"NOT WHOLE: {len(found.problems) + found.omitted} problems\n"
    )
    return 0 if found.sound else 1
