"""What a scan has found, read from its own audit records: for people, as SARIF, as CSV.

    records as they are written ─▶ FoundSecrets ─▶ found_text, write_sarif, write_found_csv

Performs no I/O but for writing to what it is given.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO
from urllib.parse import quote

from _dockeraudit import __version__
from _dockeraudit.export import csv_cells
from _dockeraudit.logrecords import RecordReader, counts_of, number_of, text_of
from _dockeraudit.summary import UPDATED_FIELDS
from _dockeraudit.terminal import INDENT, PLAIN, Look, wrapped_parts
from _dockeraudit.text import SEVERITY_RANK, columns, counted, fit, fit_middle, pad

FOUND_LIMIT = 100_000  # distinct findings kept; beyond, they are counted only
LINES_SHOWN = 6  # lines named for a secret that was found again
SARIF_LEVELS = {"HIGH": "error", "MEDIUM": "warning", "LOW": "note"}
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
FOUND_COLUMNS = (
    "source", "stream", "line", "severity", "pattern", "rule", "fingerprint", "redacted_match",
    "env",
)  # fmt: skip


class FoundSecret:
    """A secret in one source: what it is, and the lines on which it stands."""

    __slots__ = (
        "stream", "stream_type", "pattern", "rule", "severity", "fingerprint", "redacted_match",
        "placeholder", "env", "count", "lines",
    )  # fmt: skip

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.stream = record.get("stream")
        self.stream_type = text_of(record.get("stream_type"))
        self.count = 0
        self.lines: dict[int, None] = {}
        self.placeholder = False
        self.pattern = self.rule = self.severity = self.fingerprint = self.redacted_match = ""
        self.env = ""
        self.become(record)

    def become(self, record: Mapping[str, Any]) -> None:
        """Take over what a finding or its update says it is."""
        for name in UPDATED_FIELDS:
            value = record.get(name)
            if value is not None:
                setattr(self, name, bool(value) if name == "placeholder" else text_of(value))

    def again(self, record: Mapping[str, Any]) -> None:
        """It has been found, or found again."""
        self.count += number_of(record.get("count"), 1)
        lines = record.get("lines")
        new = lines if isinstance(lines, list) else [record.get("line")]
        self.lines.update((line, None) for line in new if isinstance(line, int))


class FoundSecrets:
    """The findings of a scan by source, from its records as they are written."""

    def __init__(self) -> None:
        self.sources: dict[Any, str] = {}  # titles by the number of the stream
        self.found: dict[Any, FoundSecret] = {}
        self.counted_only: Counter[str] = Counter()  # by severity, of what is not in `found`
        self.left_out = 0  # findings beyond FOUND_LIMIT
        self._by_seq: dict[Any, FoundSecret] = {}
        self._reader = RecordReader()
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """The next bytes of the records' lines."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for record in self._reader.records(lines):
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """One record."""
        event = record["event"]
        if event == "stream_open":
            title = text_of(record.get("container_name")) or text_of(record.get("container_id"))
            title += " (docker inspect)" if record.get("endpoint") == "inspect" else ""
            self.sources[record.get("stream")] = "standard input" if title == "-" else title
        elif event == "finding":
            self._finding(record)
        elif event == "finding_update":
            found = self._by_seq.get(record.get("finding"))
            if found:
                found.become(record)
        elif event == "suppressed":
            self.counted_only.update(counts_of(record.get("severities")))

    def _finding(self, record: Mapping[str, Any]) -> None:
        seq = record.get("seq")
        same = (record.get("stream_type"), record.get("rule"), record.get("fingerprint") or seq)
        found = self.found.get((record.get("stream"), *same))
        if found is None:
            if len(self.found) >= FOUND_LIMIT:
                self._leave_out(record)
                return
            found = self.found[(record.get("stream"), *same)] = FoundSecret(record)
        if record.get("partial") or record.get("fingerprint") is None:
            self._by_seq[seq] = found
        found.again(record)

    def _leave_out(self, record: Mapping[str, Any]) -> None:
        self.left_out += 1
        if not record.get("placeholder"):
            self.counted_only[text_of(record.get("severity"))] += 1

    def grave(self, least: int) -> bool:
        """Whether a secret of this rank or a higher one was found."""
        ranks = {found.severity for found in self.found.values() if not found.placeholder}
        return any(SEVERITY_RANK.get(name, 0) >= least for name in ranks | set(self.counted_only))

    def by_source(self, placeholders: bool) -> Iterator[tuple[str, list[FoundSecret]]]:
        """Each source with its findings by line, in the order in which they were scanned."""
        groups: dict[Any, list[FoundSecret]] = {}
        for found in self.found.values():
            if placeholders or not found.placeholder:
                groups.setdefault(found.stream, []).append(found)
        for stream, group in groups.items():
            group.sort(key=lambda found: min(found.lines, default=0))
            yield self.sources.get(stream, "?"), group


def lines_text(lines: Iterable[int]) -> str:
    """`line 3`, or `lines 3, 9 and 5 more`."""
    ordered = sorted(lines)
    if len(ordered) == 1:
        return f"line {ordered[0]}"
    text = "lines " + ", ".join(map(str, ordered[:LINES_SHOWN]))
    return text + (f" and {len(ordered) - LINES_SHOWN} more" if len(ordered) > LINES_SHOWN else "")


def found_text(secrets: FoundSecrets, look: Look = PLAIN, placeholders: bool = False) -> str:
    """The findings for people, grouped by file or container, and a summary."""
    look = look.with_names((found.pattern for found in secrets.found.values()), 56)
    lines, sources = [], 0
    severities: dict[tuple[str, str], str] = {}  # by rule and fingerprint, as report counts
    for title, group in secrets.by_source(placeholders):
        sources += 1
        lines += [look.paint(fit_middle(title, look.width), "title")]
        for found in group:
            severities[found.rule, found.fingerprint or str(id(found))] = found.severity
            lines += found_lines(found, look)
        lines.append("")
    distinct, total = Counter(severities.values()), len(severities)
    graded = ", ".join(f"{distinct[name]:,} {name}" for name in SEVERITY_RANK if distinct[name])
    where = counted(sources, "source")
    nothing = "no secrets found" if secrets.sources else "nothing was scanned"
    lines.append(f"{counted(total, 'secret')} ({graded}) in {where}" if total else nothing)
    if secrets.left_out:
        lines.append(f"and {counted(secrets.left_out, 'more finding')}, counted only")
    hidden = 0 if placeholders else sum(found.placeholder for found in secrets.found.values())
    if hidden:
        them = "it" if hidden == 1 else "them"
        lines.append(f"Left out: {counted(hidden, 'placeholder')}; --placeholders shows {them}.")
    return "\n".join(lines) + "\n"


def found_lines(found: FoundSecret, look: Look) -> list[str]:
    """One secret: a line, and a second one where it stands on many lines or has a variable."""
    pattern = pad(found.pattern, look.name_width)
    where = lines_text(found.lines or [0])
    head = f"  {fit(found.severity, 6):6} {pattern} {pad(found.redacted_match, 9)} "
    end = f"{fit(found.fingerprint or 'end not seen', 16):16}"
    text = look.paint(head, found.severity) + end
    variable = f"the container's variable {found.env}" if found.env else ""
    if columns(where) <= 17:
        return [f"{text}  {where}", *([fit(INDENT + variable, look.width)] if variable else [])]
    where += f" ({counted(found.count, 'time')})" if found.count > len(found.lines) else ""
    return [text, *wrapped_parts(list(filter(None, (where, variable))), look.width, ";")]


def write_found_csv(secrets: FoundSecrets, out: TextIO, placeholders: bool = False) -> None:
    """A row for each line with a secret."""
    import csv  # here, since only --csv needs it

    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(FOUND_COLUMNS)
    for title, group in secrets.by_source(placeholders):
        for found in group:
            what = (
                found.severity, found.pattern, found.rule, found.fingerprint, found.redacted_match,
                found.env,
            )  # fmt: skip
            for line in sorted(found.lines):
                rows.writerow(csv_cells((title, found.stream_type, str(line), *what)))


def write_sarif(secrets: FoundSecrets, out: TextIO, placeholders: bool = False) -> None:
    """SARIF 2.1.0, as code scanning takes it: a result for each line with a secret."""
    rules: dict[str, dict[str, Any]] = {}
    results = []
    for title, group in secrets.by_source(placeholders):
        for found in group:
            rules.setdefault(found.rule, {"id": found.rule, "name": found.pattern})
            results += [sarif_result(found, title, line) for line in sorted(found.lines)]
    driver = {"name": "dockeraudit", "version": __version__, "rules": list(rules.values())}
    run = {"tool": {"driver": driver}, "results": results}
    json.dump({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, out, indent=1)
    out.write("\n")


def sarif_result(found: FoundSecret, title: str, line: int) -> dict[str, Any]:
    """One line with a secret."""
    place = {"artifactLocation": {"uri": quote(title)}, "region": {"startLine": max(1, line)}}
    variable = f" (the container's variable {found.env})" if found.env else ""
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "level": SARIF_LEVELS.get(found.severity, "warning"),
        "message": {"text": f"{found.pattern}: {found.redacted_match}{variable}"},
        "locations": [{"physicalLocation": place}],
    }
    if found.fingerprint:
        result["partialFingerprints"] = {"dockeraudit/v1": found.fingerprint}
    if found.env:
        result["properties"] = {"env": found.env}
    return result
