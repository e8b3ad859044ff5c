"""The records of one stream: its findings, their repeats, and what its container may still write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from _dockeraudit.records import COUNTED_NAME, Record, in_records, redact_bytes, rfc3339

REPEAT_PERIOD = 60.0  # seconds between two records of the same repeated finding
BUDGET_BURST = 10_000  # finding records that a container may cause at once
BUDGET_RATE = 100.0  # and then, each second


class Budget:
    """How many finding records a container may still cause: a burst, then a rate."""

    __slots__ = ("tokens", "since")

    def __init__(self, now: float) -> None:
        self.tokens = float(BUDGET_BURST)
        self.since = now

    def take(self, now: float) -> bool:
        """Whether there is one more."""
        self.tokens = min(BUDGET_BURST, self.tokens + (now - self.since) * BUDGET_RATE)
        self.since = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Known:
    """A finding that has been written: its repeats are counted until the next record of it is due."""

    __slots__ = ("stream", "finding", "pending")

    def __init__(self, stream: StreamRecords, finding: Mapping[str, Any]) -> None:
        self.stream = stream
        self.finding = finding
        self.pending = 0


class StreamRecords:
    """One stream's records, in order, and the counts of its findings. All its methods return at once; any thread may call.

    Its records wait until `named` has said what its container is called, or NAME_WAIT has passed.
    """

    def __init__(self, log: Any, number: int, fields: dict[str, Any]) -> None:
        self.number = number
        self.container_id: str | None = fields["container_id"]
        self.container_name: str | None = None
        self.opened = log.monotonic()
        self.spent = 0  # finding records so far, of the budget
        self.closed = False
        self._log = log
        self._fields = fields
        self._waiting: list[Record] | None = []  # None: they go straight to the queue
        self._known: dict[tuple[str, str, str], Known] = {}
        self._suppressed: Counter[str] = Counter()
        self._suppressed_since = 0.0
        self._findings = 0

    def named(
        self, container_id: str | None, container_name: str | None, kind: str | None = None
    ) -> None:
        """The look-up is over, or has failed (None, None): what waited goes out."""
        with self._log.lock:
            if container_id is not None:
                if container_id != self.container_id:
                    self._log.charge(container_id, self.spent)
                self.container_id, self.container_name = container_id, container_name
            self._log.release(self)

    def finding(
        self,
        stream_type: str,
        rule: Any,
        match: bytes,
        secret: bytes | None,
        line: int,
        partial: bool = False,
        placeholder: bool = False,
    ) -> Any:
        """Record a match of `rule` (id, name, severity). Returns a handle for `update`, None where there is nothing to update.

        `secret`: what the fingerprint is of; None if its end has not come, and then it is never merged with another.
        """
        log = self._log
        fingerprint = None if secret is None else log.fingerprinter.of(secret)
        with log.lock:
            if fingerprint is not None and log.is_allowed(fingerprint, self):
                return None
            self._findings += 1
            log.count_finding(rule)
            key = (stream_type, rule.id, fingerprint or "")
            known = self._known.get(key) if fingerprint else None
            if known:
                log.repeat(known)
                log.known.move_to_end((self.number, key))
                return None
            if not log.budget(self):
                self._suppress(rule.name, 1)
                return None
            fields = {
                "stream_type": stream_type,
                "pattern": rule.name,
                "redacted_match": redact_bytes(match),
                "severity": rule.severity,
                "rule": rule.id,
                "fingerprint": fingerprint,
            }
            where: dict[str, Any] = {"line": line}
            where.update({"partial": True} if partial else {})
            where.update({"placeholder": True} if placeholder else {})
            if fingerprint:
                self._remember(key, {**fields, "at": where})
            return self._add("finding", lambda: self._finding_fields(fields, 1, where), 1)

    def update(
        self,
        handle: Any,
        rule: Any,
        match: bytes,
        secret: bytes | None,
        lines: int,
        complete: bool,
    ) -> None:
        """The end of a partial match, or of a private key, has come, or never will (`complete` False).

        `rule`: the one that the whole match has; None for the one that it was recorded with.
        """
        if handle is None:
            return
        fingerprint = None if secret is None else self._log.fingerprinter.of(secret)
        redacted = redact_bytes(match)

        def fields() -> dict[str, Any]:
            what = (
                {"pattern": rule.name, "rule": rule.id, "severity": rule.severity} if rule else {}
            )
            found = {
                "finding": handle.seq,
                **what,
                "fingerprint": fingerprint,
                "redacted_match": redacted,
            }
            return {**found, "lines": lines, "complete": complete}

        with self._log.lock:
            self._add("finding_update", fields)

    def gap(self, nbytes: int, since: float) -> None:
        """So many bytes passed unscanned."""
        with self._log.lock:
            self._log.totals["unscanned"] += nbytes
            self._add("scan_gap", {"stream": self.number, "bytes": nbytes, "since": rfc3339(since)})

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
        """The stream has ended: its pending counts, what was suppressed, and then its `stream_close`."""
        log = self._log
        seconds = round(log.monotonic() - self.opened, 6)
        totals = {
            "framing": framing,
            "bytes": nbytes,
            "frames": frames,
            "lines": lines,
            "findings": self._findings,
        }
        totals.update(unscanned=unscanned, reason=reason, seconds=seconds)
        with log.lock:
            self.flush()
            for key in self._known:
                del log.known[self.number, key]
            self._known.clear()
            self._add("stream_close", lambda: {**self._stream_fields(), **totals})
            self.closed = True
            if self._waiting is None:
                log.streams.discard(self)

    # -- under the log's lock

    def tick(self, now: float) -> None:
        """Write what was suppressed, if that is due."""
        if self._suppressed and now - self._suppressed_since >= REPEAT_PERIOD:
            self._write_suppressed()

    def flush(self) -> None:
        """Write all repeats and suppressions now."""
        for known in self._known.values():
            self.write_pending(known)
        self._write_suppressed()

    def waiting_records(self) -> list[Record]:
        """What waited for the name; from here on nothing does."""
        waiting, self._waiting = self._waiting or [], None
        return waiting

    def forget(self, key: tuple[str, str, str]) -> None:
        """Too many findings are known: this one goes, and what it had pending is suppressed."""
        known = self._known.pop(key)
        if known.pending:
            self._suppress(known.finding["pattern"], known.pending)
            known.pending = 0

    def _remember(self, key: tuple[str, str, str], finding: Mapping[str, Any]) -> None:
        known = self._known[key] = Known(self, finding)
        self._log.remember((self.number, key), known)

    def write_pending(self, known: Known) -> None:
        """Write how often a finding has been seen again, if it has."""
        count, known.pending = known.pending, 0
        if not count:
            return
        if not self._log.budget(self):
            self._suppress(known.finding["pattern"], count)
            return
        fields = {name: value for name, value in known.finding.items() if name != "at"}
        where = known.finding["at"]
        self._add("finding", lambda: self._finding_fields(fields, count, where), count)

    def _suppress(self, pattern: str, count: int) -> None:
        if not self._suppressed:
            self._suppressed_since = self._log.monotonic()
        self._suppressed[pattern[:COUNTED_NAME]] += count

    def _write_suppressed(self) -> None:
        if self._suppressed:
            for counts in in_records(self._suppressed):
                self._add(
                    "suppressed", {"stream": self.number, "counts": counts}, sum(counts.values())
                )
            self._suppressed.clear()

    def _add(self, event: str, fields: Any, matches: int = 0) -> Record:
        """Stamp a record, and queue it, or hold it until the name is known; held ones count as queued."""
        record = Record(self._log.clock(), event, fields, matches)
        if self._waiting is None:
            self._log.enqueue(record)
        elif self._log.has_room():
            self._log.held += 1
            self._waiting.append(record)
        else:
            self._log.release(self)
            self._log.enqueue(record)
        return record

    def _container_fields(self) -> dict[str, Any]:
        kind = self._fields.get("kind")
        fields = {"container_id": self.container_id, "container_name": self.container_name}
        return {**fields, "kind": kind} if kind else fields

    def _finding_fields(
        self, finding: Mapping[str, Any], count: int, where: Mapping[str, Any]
    ) -> dict[str, Any]:
        whose = {
            "endpoint": self._fields["endpoint"],
            "client": self._fields["client"],
            "stream": self.number,
        }
        return {**self._container_fields(), **finding, "count": count, **whose, **where}

    def _stream_fields(self) -> dict[str, Any]:
        fields = {
            "stream": self.number,
            "endpoint": self._fields["endpoint"],
            **self._container_fields(),
        }
        return {**fields, **{name: self._fields[name] for name in ("client", "follow", "audited")}}

    def open(self) -> None:
        """Its first record."""
        self._add("stream_open", self._stream_fields)
