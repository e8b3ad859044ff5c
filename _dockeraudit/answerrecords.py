"""The records of findings in answers and bodies: who saw which secret where, and how often.

    sighting ─▶ AnswerRecords of its endpoint, subject and client ─▶ seen before? counted
                                                                  └▶ else budget left? `finding`

Dashboards ask for the same answers each second. So a secret that the same client has seen in the
same place is written once, and its repeats are counted and written at most once a minute.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from _dockeraudit.records import rfc3339
from _dockeraudit.streamrecords import (
    REPEAT_PERIOD,
    FindingKey,
    FoundRule,
    Known,
    StreamLog,
    StreamRecords,
    cover_fields,
)
from _dockeraudit.text import SEVERITY_RANK

PLACES_KEPT = 2_000  # places whose repeats are counted; the one longest without a sighting goes


class Sighting(NamedTuple):
    """A secret in an answer, without the secret; `times`: how often it stands there.

    `env`: the variable of the container that holds it.
    """

    rule: FoundRule
    stream_type: str
    redacted: str
    fingerprint: str | None
    line: int
    partial: bool = False
    times: int = 1
    env: str | None = None

    @property
    def key(self) -> FindingKey:
        """What its repeats are met by; a secret of unknown end by what is shown of it."""
        return self.stream_type, self.rule.id, self.fingerprint or self.redacted

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

    @property
    def where(self) -> dict[str, Any]:
        """Where it stands in the answer's text."""
        where: dict[str, Any] = {"line": self.line}
        if self.env is not None:
            where["env"] = self.env
        if self.partial:
            where["partial"] = True
        return where


class Place(NamedTuple):
    """Where secrets are seen: the endpoint's word, what the answer is about, and who asked.

    `kind`: of the subject, unless it is a container. A subject is None where there are many.
    `mask`: the severity from which on the client got asterisks in answers.
    """

    endpoint: str
    kind: str | None
    subject_id: str | None
    subject_name: str | None
    client: Mapping[str, Any]
    mask: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What the place is kept under: each docker command is a new process, so no pid."""
        who = tuple((name, value) for name, value in self.client.items() if name != "pid")
        return self.endpoint, self.kind, self.subject_id, who, self.mask


class AnswerRecords(StreamRecords):
    """The findings of one place; its records name no stream."""

    repeat_lines = 0  # an answer is mostly one line

    def __init__(self, log: StreamLog, place: Place) -> None:
        fields = {
            "container_id": place.subject_id,
            "endpoint": place.endpoint,
            "client": place.client,
            "kind": place.kind,
        }
        super().__init__(log, None, fields)
        self.container_name = place.subject_name
        self._mask = place.mask
        self._waiting = None
        self._unscanned = 0
        self._unscanned_since = 0.0

    # -- under the log's lock

    def sight(self, sighting: Sighting) -> None:
        """Record a secret in an answer, or count it where that has been recorded."""
        rule, count, log = sighting.rule, sighting.times, self._log
        if sighting.fingerprint and log.is_allowed(sighting.fingerprint, self):
            return
        self._count(rule, count)
        known = self._known.get(sighting.key)
        if known:
            log.known.repeat(sighting.key, known, log.monotonic(), count)
        elif not log.admits(self, rule.severity, 1):
            self._suppress(rule, count)
        else:
            where = {**sighting.where, **cover_fields((self._masks(sighting), 0))}
            self._add_finding(rule, sighting.fields(), count, where)
            known = Known(self, sighting.fields(), where, rule)
            self._known[sighting.key] = known
            log.known.remember(sighting.key, known)

    def _masks(self, sighting: Sighting) -> bool:
        """Whether the client got asterisks; what it sends itself is never changed."""
        if self._mask is None or sighting.stream_type == "body":
            return False
        return SEVERITY_RANK[sighting.rule.severity] >= SEVERITY_RANK[self._mask]

    def skip(self, nbytes: int) -> None:
        """Count bytes that passed unscanned, for a `scan_gap` within the minute."""
        self._log.totals["unscanned"] += nbytes
        if not self._unscanned:
            self._unscanned_since = self._log.clock()
            self._due_later()
        self._unscanned += nbytes

    def tick(self, now: float) -> None:
        """Write what has been counted for a minute."""
        if now - self._suppressed_since >= REPEAT_PERIOD:
            self._write_counts()
            self._log.discard(self)

    def flush(self) -> None:
        """Write all repeats and counts now."""
        super().flush()
        self._write_counts()

    def forget_all(self) -> None:
        """The place goes: write what is counted, and let its findings be met anew."""
        self.flush()
        for key in self._known:
            self._log.known.forget(self, key)
        self._known.clear()
        self._log.discard(self)

    def _suppress(self, rule: FoundRule, count: int) -> None:
        if not self._suppressed:
            self._due_later()
        super()._suppress(rule, count)

    def _due_later(self) -> None:
        """Have the log call `tick`, which it does for streams that it knows."""
        if self not in self._log.streams:
            self._suppressed_since = self._log.monotonic()
            self._log.streams.add(self)

    def _write_counts(self) -> None:
        self._write_suppressed()
        if self._unscanned:
            since = rfc3339(self._unscanned_since)
            self._add("scan_gap", {**self._source(), "bytes": self._unscanned, "since": since})
            self._unscanned = 0

    def _source(self) -> dict[str, Any]:
        named = {name: self._fields[name] for name in ("endpoint", "client")}
        return {"stream": None, **named, **self._container_fields()}


class AnswerPlaces:
    """The places where secrets have been seen in answers. Any thread may report a sighting."""

    def __init__(self, log: StreamLog) -> None:
        self._log = log
        self._places: OrderedDict[tuple[Any, ...], AnswerRecords] = OrderedDict()

    def sighted(self, place: Place, sightings: Iterable[Sighting]) -> None:
        """An answer holds these secrets."""
        with self._log.lock:
            records = self._records_of(place)
            for sighting in sightings:
                records.sight(sighting)

    def unscanned(self, place: Place, nbytes: int) -> None:
        """So many bytes of an answer found no room, and passed unscanned."""
        with self._log.lock:
            self._records_of(place).skip(nbytes)

    # -- under the log's lock

    def flush(self) -> None:
        """The log closes: write all that is counted."""
        for records in self._places.values():
            records.flush()

    def _records_of(self, place: Place) -> AnswerRecords:
        key = place.key
        records = self._places.get(key)
        if records is None:
            records = self._places[key] = AnswerRecords(self._log, place)
            if len(self._places) > PLACES_KEPT:
                self._places.popitem(last=False)[1].forget_all()
        else:
            self._places.move_to_end(key)
        return records
