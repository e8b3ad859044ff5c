"""The records of one stream: its findings, their repeats, and what found no room in a budget.

    match ─▶ allowed secret? nothing ─▶ seen before? counted ─▶ budget left? `finding`
                                                                   └▶ else `suppressed`

Whatever happens: Σ`count` + Σ`suppressed` + Σ`gap.matches` are the matches.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional, Protocol

from _dockeraudit.records import (
    COUNTED_NAME,
    Fields,
    Fingerprinter,
    Record,
    redact_bytes,
    rfc3339,
    split_counts,
)

REPEAT_PERIOD = 60.0  # seconds between two records of the same repeated finding
REPEAT_LINES = 100  # line numbers that such a record names
KNOWN_FINDINGS = 200_000  # findings whose repeats are counted rather than written
FindingKey = tuple[str, str, str]  # stream type, rule's id, fingerprint


#: of a masked stream: whether a secret's bytes were masked, and how many had left before
Cover = Optional[tuple[bool, int]]


def cover_fields(cover: Cover) -> dict[str, Any]:
    """What a record says of what a masked stream's client got."""
    masked, passed = cover or (False, 0)
    fields: dict[str, Any] = {"masked": True} if masked else {}
    return {**fields, "passed": passed} if passed else fields


class FoundRule(Protocol):
    """What a record says of a rule."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def severity(self) -> str: ...


class StreamLog(Protocol):
    """What a stream's records need of the log; all but the clocks is used under `lock`."""

    clock: Callable[[], float]
    monotonic: Callable[[], float]
    fingerprinter: Fingerprinter
    lock: threading.Lock
    known: KnownFindings
    totals: Counter[str]
    streams: set[StreamRecords]  # whose `tick` is called

    def enqueue(self, record: Record) -> None:
        """Queue a record, or count it as lost where there is no room."""

    def hold(self, waiting: list[Record], record: Record) -> bool:
        """Put a record to those that wait for a name; False if there is no room for that."""

    def release(self, stream: StreamRecords) -> None:
        """Queue what waited for the stream's name."""

    def discard(self, stream: StreamRecords) -> None:
        """The stream has ended and nothing of it waits."""

    def is_allowed(self, fingerprint: str, stream: StreamRecords) -> bool:
        """Whether this secret is known as harmless, everywhere or in this container."""

    def admits(self, stream: StreamRecords, severity: str, records: int) -> bool:
        """Take room in the budgets for so many records of the stream's container."""

    def charge(self, stream: StreamRecords, severity: str) -> None:
        """Charge the budgets with a record that is written whatever is left."""

    def move_charges(self, stream: StreamRecords, container_id: str) -> None:
        """Charge a container with what was charged to the name that it was asked for by."""

    def count_finding(self, stream: StreamRecords, rule: FoundRule, change: int) -> None:
        """Count matches, or take one back (-1), for the metrics."""


class Known:
    """A finding that has been written: its repeats are counted until the next record is due."""

    __slots__ = ("stream", "fields", "where", "rule", "pending", "passed", "lines")

    def __init__(
        self,
        stream: StreamRecords,
        fields: Mapping[str, Any],
        where: Mapping[str, Any],
        rule: FoundRule,
    ) -> None:
        self.stream = stream
        self.fields = fields
        self.where = where
        self.rule = rule
        self.pending = 0
        self.passed = 0  # of the pending repeats: bytes of the secret that left unmasked
        self.lines: list[int] = []  # of the pending repeats, the first REPEAT_LINES


class KnownFindings:
    """The written findings of all streams; the one longest without a sighting goes first."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[StreamRecords, FindingKey], Known] = OrderedDict()
        self._due: deque[tuple[float, Known]] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, key: FindingKey, known: Known) -> None:
        """A finding has been written."""
        self._known[known.stream, key] = known
        if len(self._known) > KNOWN_FINDINGS:
            (_, oldest_key), oldest = self._known.popitem(last=False)
            oldest.stream.forget(oldest_key)

    def repeat(self, key: FindingKey, known: Known, now: float, count: int = 1) -> None:
        """A finding has been seen again: it is counted now, and written when that is due."""
        if not known.pending:
            self._due.append((now + REPEAT_PERIOD, known))
        known.pending += count
        self._known.move_to_end((known.stream, key))

    def forget(self, stream: StreamRecords, key: FindingKey) -> None:
        """A finding is not to be met again."""
        del self._known[stream, key]

    def due(self, now: float, most: int) -> Iterator[Known]:
        """The findings whose repeats are to be written now, `most` of them."""
        for _ in range(most):
            if not self._due or self._due[0][0] > now:
                return
            yield self._due.popleft()[1]


class FindingHandle:
    """A match and how it was recorded; `StreamRecords.update` may complete or change it.

    `record`: it has a record of its own. `known`: it was counted as a repeat. `suppressed`: it
    found no room. None of these: its secret is allowed.
    """

    __slots__ = (
        "fingerprint", "known", "partial", "prepaid", "record", "redacted", "rule", "stream_type",
        "suppressed", "where",
    )  # fmt: skip

    def __init__(
        self,
        stream_type: str,
        rule: FoundRule,
        match: bytes,
        fingerprint: str | None,
        where: Mapping[str, Any],
        partial: bool,
    ) -> None:
        self.stream_type = stream_type
        self.rule = rule
        self.redacted = redact_bytes(match, partial=partial)
        self.fingerprint = fingerprint
        self.where = where
        self.partial = partial
        self.record: Record | None = None
        self.known: Known | None = None
        self.suppressed = False
        self.prepaid = False  # its update has been charged already

    @property
    def key(self) -> FindingKey | None:
        """What its repeats are met by; None while its end is not known: it is never merged."""
        if self.partial or self.fingerprint is None:
            return None
        return self.stream_type, self.rule.id, self.fingerprint

    def fields(self) -> dict[str, Any]:
        """What its record says of the secret."""
        return {
            "stream_type": self.stream_type,
            "pattern": self.rule.name,
            "redacted_match": self.redacted,
            "severity": self.rule.severity,
            "rule": self.rule.id,
            "fingerprint": self.fingerprint,
        }

    def become(
        self, rule: FoundRule, fingerprint: str | None, redacted: str, partial: bool
    ) -> None:
        """Take over what is known of the match now; a placeholder of another severity is none."""
        gone = {"partial"} if rule.severity == self.rule.severity else {"partial", "placeholder"}
        self.where = {name: value for name, value in self.where.items() if name not in gone}
        self.rule, self.fingerprint = rule, fingerprint
        self.redacted, self.partial = redacted, partial

    def belongs_to(self, env: str) -> None:
        """The secret is the value of this variable of the container."""
        self.where = {**self.where, "env": env}

    def differs(self, rule: FoundRule, fingerprint: str | None) -> bool:
        """Whether it is something else now, and not recorded as that."""
        if self.suppressed:
            return rule.id != self.rule.id
        changed = fingerprint is not None and fingerprint != self.fingerprint
        return changed or (self.known is not None and rule.id != self.rule.id)


class StreamRecords:
    """One stream's records, in order, and the counts of its findings.

    All methods return at once, and any thread may call them. The records wait until `named` has
    said what the container is called, or NAME_WAIT has passed.
    """

    repeat_lines = REPEAT_LINES

    def __init__(self, log: StreamLog, number: int | None, fields: Mapping[str, Any]) -> None:
        self.number = number
        self.endpoint: str = fields["endpoint"]
        self.container_id: str | None = fields["container_id"]
        self.container_name: str | None = None
        self.opened = log.monotonic()
        self.charged: Counter[str] = Counter()  # finding records so far, by severity
        self.closed = False
        self._log = log
        self._fields = fields
        self._waiting: list[Record] | None = []  # None: they go straight to the queue
        self._unnamed: dict[Record, tuple[FoundRule, FindingKey]] = {}  # the findings among them
        self._known: dict[FindingKey, Known] = {}
        self._suppressed: Counter[tuple[str, str]] = Counter()  # by pattern and severity
        self._suppressed_since = 0.0
        self._findings = 0
        self._needles: dict[str, int] = {}  # what `stream_open` says of the container's secrets

    def named(
        self,
        container_id: str | None,
        container_name: str | None,
        needles: tuple[int, int] | None = None,
    ) -> None:
        """The look-up is over, or has failed (None, None): what waited goes out.

        `needles`: how many secrets of the container's own are searched for, and how many are not.
        """
        with self._log.lock:
            if needles is not None:
                self._needles = {"needles": needles[0], "needles_skipped": needles[1]}
            if container_id is not None:
                if container_id != self.container_id:
                    self._log.move_charges(self, container_id)
                self.container_id, self.container_name = container_id, container_name
            self._log.release(self)

    def finding(
        self,
        stream_type: str,
        rule: FoundRule,
        match: bytes,
        secret: bytes | None,
        line: int,
        partial: bool = False,
        placeholder: bool = False,
        env: str | None = None,
        cover: Cover = None,
    ) -> FindingHandle:
        """Record a match; returns the handle for `update`.

        `secret`: what the fingerprint is of; None if its end has not come. `partial`: an `update`
        will say how the match ends; until then it is never merged with another. `env`: the variable
        of the container that holds the secret. `cover`: what the client of a masked stream got.
        """
        fingerprint = None if secret is None else self._log.fingerprinter.of(secret)
        where: dict[str, Any] = {"line": line}
        if env is not None:
            where["env"] = env
        if partial:
            where["partial"] = True
        if placeholder:
            where["placeholder"] = True
        where.update(cover_fields(cover))
        handle = FindingHandle(stream_type, rule, match, fingerprint, where, partial)
        with self._log.lock:
            self._sight(handle)
        return handle

    def update(
        self,
        handle: FindingHandle | None,
        rule: FoundRule | None,
        match: bytes,
        secret: bytes | None,
        lines: int,
        complete: bool,
        env: str | None = None,
        cover: Cover = None,
    ) -> None:
        """Say what a match is now that more of it is known, or that its end never comes.

        `rule`: None if it is the rule that it was found by. `complete` is False if the end of the
        match, or of the private key, will not be known. `env`: as of `finding`.
        """
        if handle is None:
            return
        rule = rule or handle.rule
        fingerprint = None if secret is None else self._log.fingerprinter.of(secret)
        redacted = redact_bytes(match, partial=not complete)
        with self._log.lock:
            if env is not None:
                handle.belongs_to(env)
            if handle.record is not None and handle.record.matches:
                tail = {"redacted_match": redacted, "lines": lines, "complete": complete}
                if "env" in handle.where:
                    tail["env"] = handle.where["env"]
                tail.update(cover_fields(cover))
                self._update_record(handle, handle.record, rule, fingerprint, tail)
            elif handle.differs(rule, fingerprint):
                self._sight_anew(handle, rule, fingerprint, redacted)

    def exempts(self, secret: bytes) -> bool:
        """Whether this secret is known as harmless, everywhere or in this container."""
        fingerprint = self._log.fingerprinter.of(secret)
        with self._log.lock:
            return self._log.is_allowed(fingerprint, self)

    def gap(self, nbytes: int, since: float) -> None:
        """So many bytes passed unscanned."""
        with self._log.lock:
            self._log.totals["unscanned"] += nbytes
            self._add("scan_gap", {**self._source(), "bytes": nbytes, "since": rfc3339(since)})

    def error(self, text: str) -> None:
        """A scan raised."""
        with self._log.lock:
            self._add("scan_error", {"stream": self.number, "error": text})

    def progress(self, nbytes: int, frames: int) -> None:
        """So much has flowed."""
        with self._log.lock:
            self._log.totals["bytes"] += nbytes
            self._log.totals["frames"] += frames

    def close(
        self, *, framing: str, nbytes: int, frames: int, lines: int, unscanned: int, reason: str
    ) -> None:
        """The stream has ended: write repeats, suppressed counts, and one `stream_close`."""
        totals = {"framing": framing, "bytes": nbytes, "frames": frames, "lines": lines}
        ending = {"unscanned": unscanned, "reason": reason}
        log = self._log
        ending["seconds"] = round(log.monotonic() - self.opened, 6)
        with log.lock:
            if self.closed:
                return
            self.closed = True
            self.flush()
            for key in self._known:
                log.known.forget(self, key)
            self._known.clear()
            self._add("stream_close", lambda: self._close_fields(totals, ending))
            if self._waiting is None:
                log.discard(self)

    # -- under the log's lock

    def open(self) -> None:
        """Write the stream's first record."""
        self._add("stream_open", lambda: {**self._stream_fields(), **self._needles})

    def tick(self, now: float) -> None:
        """Write the suppressed counts if that is due."""
        if self._suppressed and now - self._suppressed_since >= REPEAT_PERIOD:
            self._write_suppressed()

    def flush(self) -> None:
        """Write all repeats and suppressed counts now."""
        for known in self._known.values():
            self.write_pending(known)
        self._write_suppressed()

    def waiting_records(self) -> list[Record]:
        """The records that waited for the name; later ones do not wait."""
        waiting, self._waiting = self._waiting or [], None
        return waiting

    def takes_back(self, record: Record) -> bool:
        """Whether a record that waited is of a secret that the container's name allows.

        Such a finding, and the repeats of it that are counted, become no match at all.
        """
        if record not in self._unnamed:
            return False
        rule, key = self._unnamed.pop(record)
        if not self._log.is_allowed(key[2], self):
            return False
        self._count(rule, -record.matches)
        record.matches = 0  # which tells `update` that there is no such record
        known = self._known.pop(key, None)
        if known:
            self._count(rule, -known.pending)
            known.pending = 0
            self._log.known.forget(self, key)
        return True

    def forget(self, key: FindingKey) -> None:
        """Too many findings are known, and this one goes: its repeats count as suppressed."""
        known = self._known.pop(key)
        if known.pending:
            self._suppress(known.rule, known.pending)
            known.pending = 0

    def write_pending(self, known: Known) -> None:
        """Write how often a finding has been seen again, if it has."""
        count, known.pending = known.pending, 0
        passed, known.passed = known.passed, 0
        lines, known.lines = known.lines, []
        if not count:
            return
        if not self._log.admits(self, known.rule.severity, 1):
            self._suppress(known.rule, count)
            return
        where = {name: value for name, value in known.where.items() if name != "passed"}
        where.update({"passed": passed} if passed else {})
        where.update({"lines": lines} if self.repeat_lines else {})
        self._add_finding(known.rule, known.fields, count, where)

    def _sight(self, handle: FindingHandle) -> None:
        """Record a match: as a repeat, as a finding of its own, or among the suppressed ones."""
        log, rule, key = self._log, handle.rule, handle.key
        if handle.fingerprint and log.is_allowed(handle.fingerprint, self):
            return
        self._count(rule, 1)
        known = self._known.get(key) if key else None
        if key and known:
            log.known.repeat(key, known, log.monotonic())
            if len(known.lines) < self.repeat_lines:
                known.lines.append(handle.where["line"])
            known.passed += handle.where.get("passed", 0)
            handle.known = known
            return
        handle.prepaid = handle.partial
        if not log.admits(self, rule.severity, 2 if handle.prepaid else 1):
            self._suppress(rule, 1)
            handle.suppressed = True
            return
        handle.record = self._add_finding(rule, handle.fields(), 1, handle.where)
        if key and not self.closed:
            self._remember(key, handle)

    def _update_record(
        self,
        handle: FindingHandle,
        record: Record,
        rule: FoundRule,
        fingerprint: str | None,
        tail: Mapping[str, Any],
    ) -> None:
        """Write a `finding_update`, charged to the budget of its finding."""
        if not handle.prepaid:
            self._log.charge(self, handle.rule.severity)
        handle.prepaid = False
        before = handle.key
        if (rule.name, rule.severity) != (handle.rule.name, handle.rule.severity):
            self._log.count_finding(self, handle.rule, -1)
            self._log.count_finding(self, rule, 1)
        handle.become(rule, fingerprint, tail["redacted_match"], partial=not tail["complete"])
        self._rename(before, handle)
        said = {
            "pattern": rule.name,
            "rule": rule.id,
            "severity": rule.severity,
            "fingerprint": fingerprint,
            **tail,
        }
        self._add("finding_update", lambda: {"finding": record.seq, **said}, about=record)

    def _rename(self, before: FindingKey | None, handle: FindingHandle) -> None:
        """A written finding is something else now: from here on its repeats are met by that."""
        key = handle.key
        if before == key:
            return
        if before and before in self._known:
            self.write_pending(self._known.pop(before))
            self._log.known.forget(self, before)
        if key and key not in self._known and not self.closed:
            self._remember(key, handle)

    def _sight_anew(
        self, handle: FindingHandle, rule: FoundRule, fingerprint: str | None, redacted: str
    ) -> None:
        """A match without a record of its own turns out to be another: it is recorded as that.

        It is taken back from the count that it went into, unless that has been written meanwhile.
        """
        counted = (handle.rule.name[:COUNTED_NAME], handle.rule.severity)
        if handle.known and handle.known.pending:
            handle.known.pending -= 1
            if handle.where["line"] in handle.known.lines:
                handle.known.lines.remove(handle.where["line"])
            self._count(handle.rule, -1)
        elif handle.suppressed and self._suppressed[counted]:
            self._suppressed[counted] -= 1
            self._suppressed += Counter()  # drops a count of nothing
            self._count(handle.rule, -1)
        handle.known, handle.suppressed = None, False
        handle.become(rule, fingerprint, redacted, partial=False)
        self._sight(handle)

    def _count(self, rule: FoundRule, change: int) -> None:
        self._findings += change
        self._log.count_finding(self, rule, change)

    def _remember(self, key: FindingKey, handle: FindingHandle) -> None:
        known = self._known[key] = Known(self, handle.fields(), handle.where, handle.rule)
        self._log.known.remember(key, known)

    def _suppress(self, rule: FoundRule, count: int) -> None:
        if not self._suppressed:
            self._suppressed_since = self._log.monotonic()
        self._suppressed[rule.name[:COUNTED_NAME], rule.severity] += count
        if self.closed:  # a match reported behind the close, which nothing else would write
            self._write_suppressed()

    def _write_suppressed(self) -> None:
        for counts, severities in split_counts(self._suppressed.items()):
            fields = {**self._source(), "counts": counts, "severities": severities}
            self._add("suppressed", fields, sum(counts.values()))
        self._suppressed.clear()

    def _add(
        self, event: str, fields: Fields, matches: int = 0, about: Record | None = None
    ) -> Record:
        """Stamp a record, and queue it, or hold it until the name is known."""
        record = Record(self._log.clock(), event, fields, matches, about)
        if self._waiting is not None:
            if self._log.hold(self._waiting, record):
                return record
            self._log.release(self)
        self._log.enqueue(record)
        return record

    def _add_finding(
        self, rule: FoundRule, finding: Mapping[str, Any], count: int, where: Mapping[str, Any]
    ) -> Record:
        fields = lambda: self._finding_fields(finding, count, where)
        record = self._add("finding", fields, count)
        if self._waiting is not None and finding["fingerprint"]:
            key = finding["stream_type"], finding["rule"], finding["fingerprint"]
            self._unnamed[record] = rule, key
        return record

    def _finding_fields(
        self, finding: Mapping[str, Any], count: int, where: Mapping[str, Any]
    ) -> dict[str, Any]:
        whose = {
            "endpoint": self._fields["endpoint"],
            "client": self._fields["client"],
            "stream": self.number,
        }
        return {**self._container_fields(), **finding, "count": count, **whose, **where}

    def _close_fields(self, totals: Mapping[str, Any], ending: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of `stream_close`, made when it is written: findings may be taken back."""
        return {**self._stream_fields(), **totals, "findings": self._findings, **ending}

    def _container_fields(self) -> dict[str, Any]:
        kind = self._fields.get("kind")
        fields = {"container_id": self.container_id, "container_name": self.container_name}
        return {**fields, "kind": kind} if kind else fields

    def _source(self) -> dict[str, Any]:
        """What a record about unscanned bytes or suppressed findings says of its stream."""
        return {"stream": self.number}

    def _stream_fields(self) -> dict[str, Any]:
        fields = {
            "stream": self.number,
            "endpoint": self._fields["endpoint"],
            **self._container_fields(),
        }
        names = ("client", "follow", "audited", *(["mask"] if self._fields.get("mask") else []))
        return {**fields, **{name: self._fields[name] for name in names}}
