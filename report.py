"""report: reading the audit log: for a terminal, for programs, for a browser.

    lines of audit logs ─▶ AuditSummary (bounded: distinct secrets, containers, readers, losses) ─▶ text, JSON or one HTML page

Sections:

    choosing         Choice: --since, --container, --pattern, --severity, --secret
    gathering        AuditSummary, what it counts, and its fast way for findings
    text             80 columns, coloured on a terminal only
    page             one self-contained HTML page
    command          files, progress, run_report

What a record holds is hostile text: names, paths and commands are escaped in every output. What belongs together is
grouped by container id, since a long name may be shortened differently from record to record; and by fingerprint, which
is the same for the same credential wherever the fingerprint key is.
"""
from __future__ import annotations

import hashlib
import html as markup
import json
import os
import re
import time
import unicodedata
import zlib
from collections import Counter, deque
from datetime import datetime, timedelta, timezone
from typing import IO, Any, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, TextIO

from auditlog import open_audit_log, printable

# =====================================================================================================================
# choosing
# =====================================================================================================================

SEVERITY_RANK = {"HIGH": 3, "MEDIUM": 2, "LOW": 1}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class ReportError(ValueError):
    """An option that cannot be used; the message says which and what is legal."""


def since_timestamp(text: str, now: float) -> str:
    """24h, 7d or a timestamp as RFC 3339 in UTC; raises ReportError."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match:
        moment = datetime.fromtimestamp(max(0.0, now - int(match[1]) * UNITS[match[2]]), timezone.utc)
    else:
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise ReportError(f"--since {text!r} is neither a span such as 24h or 7d nor a timestamp such as 2025-01-31T08:00") from None
        moment = moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def severity_rank(option: str, text: Optional[str]) -> int:
    """A severity's rank, 0 for none; raises ReportError."""
    if text is None:
        return 0
    if text.upper() not in SEVERITY_RANK:
        raise ReportError(f"{option} {text!r} is none of HIGH, MEDIUM, LOW")
    return SEVERITY_RANK[text.upper()]


def fingerprint_prefix(text: Optional[str]) -> str:
    """What --secret gives, an empty one for none; raises ReportError."""
    if text is not None and not re.fullmatch(r"[0-9a-f]{4,16}", text.lower()):
        raise ReportError(f"--secret {text!r} is not a fingerprint: 16 hexadecimal digits, or at least the first four of them")
    return (text or "").lower()


class Choice(NamedTuple):
    """Which records count. `container`: a name or the beginning of an id; `secret`: the beginning of a fingerprint."""

    since: str = ""
    container: str = ""
    pattern: str = ""
    least: int = 0
    secret: str = ""

    @property
    def of_findings(self) -> bool:
        """Whether only some findings count; then only their readers are of interest."""
        return bool(self.pattern or self.least or self.secret)

    def takes_container(self, record: Mapping[str, Any]) -> bool:
        """Whether the record is of the container; a shortened name is taken for what it may have been."""
        if not self.container:
            return True
        name = text_of(record.get("container_name"))
        if name == self.container or text_of(record.get("container_id")).startswith(self.container):
            return True
        return bool(name and record.get("truncated") and self.container.startswith(name))

    def takes_finding(self, record: Mapping[str, Any]) -> bool:
        """Whether the finding counts, all but its time."""
        if self.pattern and self.pattern.lower() not in (text_of(record.get("pattern")).lower(), text_of(record.get("rule")).lower()):
            return False
        if self.secret and not text_of(record.get("fingerprint")).startswith(self.secret):
            return False
        return SEVERITY_RANK.get(text_of(record.get("severity")), 0) >= self.least and self.takes_container(record)


# =====================================================================================================================
# gathering
# =====================================================================================================================

DISTINCT_LIMIT = 20_000  # distinct secrets of each severity, containers, readers or refused requests; the rest is counted together
SIGHTING_LIMIT = 1_000  # pairs of container and reader kept for one secret
SIGHTINGS_IN_ALL = 200_000  # and for all together; some 200 MB with everything else full
PARTIAL_LIMIT = 10_000  # findings that wait for the update that completes them
MEMO_LIMIT = 20_000  # findings and clients recognized by their bytes
STREAM_LIMIT = 50_000  # streams whose end has not been read
HOUR_LIMIT = 20_000  # hours with findings: two years; more are not drawn
RECENT = 20  # latest findings kept for the live page
STATE_LIMIT = 100_000  # things a state file remembers as told; 1.7 MB
OTHERS = "(others)"
HOUR = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3])")

# What the writer puts before each record's own fields: {"timestamp": "2026-01-02T03:04:05.000000Z", "event": "…
HEAD_TEXT, HEAD_EVENT = b'{"timestamp": "', b'", "event": "'
TIME_AT, EVENT_AT = len(HEAD_TEXT), len(HEAD_TEXT) + 27 + len(HEAD_EVENT)
PARSE = json.JSONDecoder().decode
UNREAD = frozenset((b"request", b"rotated", b"recreated", b"stats"))  # events of which only the time counts


class Tally:
    """How often, and when first and last."""

    __slots__ = ("count", "first", "last")

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = ""

    def add(self, count: int, timestamp: str) -> None:
        """So many more, at this time."""
        self.count += count
        if timestamp > self.last:
            self.last = timestamp
        if timestamp < self.first or not self.first:
            self.first = timestamp

    def include(self, count: int, other: Tally) -> None:
        """So many more, from another tally's first to its last."""
        self.add(0, other.first)
        self.add(count, other.last)

    def times(self) -> dict[str, Any]:
        """For programs."""
        return {"count": self.count, "first_seen": self.first, "last_seen": self.last}


class Sighting(Tally):
    """A secret in a container, as a reader saw it. All other counts of findings are sums of these, made by `settle`."""

    __slots__ = ("place", "reader", "settled")

    def __init__(self, place: Optional[Place], reader: Optional[Reader]) -> None:
        super().__init__()
        self.place, self.reader = place, reader
        self.settled = 0  # of the count

    def settle(self, secret: Secret) -> None:
        """Add what has come since the last time to the secret, the container and the reader."""
        more, self.settled = self.count - self.settled, self.count
        secret.include(more, self)
        if self.place and self.reader:
            self.place.include(more, self)
            self.place.patterns[secret.pattern] += more
            self.place.severities[secret.severity] += more
            self.reader.include(more, self)


class Secret(Tally):
    """A distinct credential: one fingerprint under one rule. `sightings`: by container and reader."""

    __slots__ = ("fingerprint", "rule", "pattern", "severity", "redacted", "sightings")

    def __init__(self, fingerprint: str, rule: str, pattern: str, severity: str, redacted: str) -> None:
        super().__init__()
        self.fingerprint, self.rule, self.pattern, self.severity, self.redacted = fingerprint, rule, pattern, severity, redacted
        self.sightings: dict[tuple[str, str], Sighting] = {}

    def by(self, side: int) -> Counter[str]:
        """How often by container (0) or by reader (1), the most first."""
        counts: Counter[str] = Counter()
        for pair, tally in self.sightings.items():
            counts[pair[side]] += tally.count
        return counts


class Place(Tally):
    """A container with findings."""

    __slots__ = ("container_id", "name", "patterns", "severities")

    def __init__(self, container_id: str) -> None:
        super().__init__()
        self.container_id = container_id
        self.name = ""
        self.patterns: Counter[str] = Counter()
        self.severities: Counter[str] = Counter()

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or (self.container_id[:12] if re.fullmatch("[0-9a-f]{64}", self.container_id) else self.container_id)


class Reader(Tally):
    """A client that read streams; its count is that of its findings."""

    __slots__ = ("client", "streams", "unfinished", "bytes", "containers")

    def __init__(self, client: str) -> None:
        super().__init__()
        self.client = client
        self.streams = self.unfinished = self.bytes = 0
        self.containers: set[str] = set()


class OpenStream:
    """A stream whose end has not been read: whose it is, and what of it is known to be unscanned."""

    __slots__ = ("reader", "unscanned")

    def __init__(self) -> None:
        self.reader: Optional[Reader] = None  # None: the choice does not take its container, or it began too early
        self.unscanned = 0


class AuditSummary:
    """What audit logs say, in bounded memory, however long they are."""

    def __init__(self, choice: Choice = Choice()) -> None:
        self.choice = choice
        self.records = 0
        self.first = self.last = ""
        self.findings: Counter[str] = Counter()  # by severity, repeats included
        self.secrets: dict[str, Secret] = {}
        self.places: dict[str, Place] = {}
        self.readers: dict[str, Reader] = {}
        self.denied: dict[tuple[str, ...], Tally] = {}
        self.losses: Counter[str] = Counter()
        self.hours: dict[str, Counter[str]] = {}
        self.loss_hours: Counter[str] = Counter()
        self.told: set[str] = set()  # times of losses, for --state
        self.recent: deque[tuple[str, Secret, Place, str]] = deque(maxlen=RECENT)
        self._distinct: Counter[str] = Counter()
        self._sightings = 0
        self._partial: dict[tuple[str, Any], Mapping[str, Any]] = {}
        self._streams: dict[tuple[str, Any], OpenStream] = {}
        self._known_findings: dict[bytes, Optional[tuple[Secret, Place]]] = {}
        self._known_clients: dict[bytes, str] = {}

    # -- lines

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Count lines of a log, each without its newline."""
        for line in lines:
            self.add_line(line)

    def add_line(self, line: bytes) -> None:
        """Count one line; one that is no record is a loss, and `verify` says which it is."""
        if line[EVENT_AT - 13 : EVENT_AT] == HEAD_EVENT and line[-1:] == b"}":
            event = line[EVENT_AT : line.find(b'"', EVENT_AT)]
            if event == b"finding" and self._finding_line(line):
                return
            if event in UNREAD:
                self._seen(line[TIME_AT : TIME_AT + 27].decode("ascii", "replace"))
                return
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("event"), str):
            self.add(record)
        else:
            self.losses["bad_lines"] += 1

    def _finding_line(self, line: bytes) -> bool:
        """Count a finding whose fields have been met before in these very bytes; False sends it the long way.

        All before its count says what was found where, the client's part who read it; the rest is numbers. No key
        can be met inside a text, where each quotation mark has a backslash before it.
        """
        begin = line.find(b', "container_id": ', EVENT_AT)
        middle = line.find(b', "count": ', begin)
        comma = line.find(b",", middle + 11)
        client = line.find(b', "client": ', comma)
        stream = line.find(b', "stream": ', client)
        number, _, rest = line[stream + 12 : -1].partition(b', "line": ')
        count = line[middle + 11 : comma]
        if not (number.isdigit() and rest.isdigit() and count.isdigit()):
            return False
        timestamp = line[TIME_AT : TIME_AT + 27].decode("ascii", "replace")
        if timestamp < self.choice.since:
            return True
        what, who = line[begin + 2 : middle], line[client + 12 : stream]
        pid = who.find(b', "pid": ')
        if pid >= 0:  # each run of a client has another
            who = who[:pid] + who[who.find(b",", pid + 1) :]
        try:
            targets = self._known_findings[what] if what in self._known_findings else self._learn_finding(what)
            reader = self._known_clients.get(who) or self._learn_client(who)
        except (ValueError, RecursionError):
            return False
        self._finding(targets, reader, int(count), timestamp)
        return True

    def _learn_finding(self, what: bytes) -> Optional[tuple[Secret, Place]]:
        """Remember what is found where; raises ValueError for what is not whole or not known yet."""
        record = PARSE("{%s}" % what.decode())
        if record["fingerprint"] is None:
            raise ValueError("its fingerprint comes later")
        if len(self._known_findings) >= MEMO_LIMIT:
            self._known_findings.clear()
        targets = self._known_findings[what] = self._targets(record)
        return targets

    def _learn_client(self, who: bytes) -> str:
        """Remember a client; raises ValueError."""
        client = client_text(PARSE(who.decode()))
        if len(self._known_clients) >= MEMO_LIMIT:
            self._known_clients.clear()
        self._known_clients[who] = client
        return client

    # -- records

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record."""
        timestamp, event = text_of(record.get("timestamp")), record["event"]
        if event == "finding":
            self._found(record, timestamp)
        elif event == "finding_update":
            self._complete(record)
        elif event in ("stream_open", "stream_close"):
            self._stream(record, timestamp, closes=event == "stream_close")
        elif self._seen(timestamp):
            self._other(event, record, timestamp)

    def _seen(self, timestamp: str) -> bool:
        """Count a record's time; False where it is too early to count."""
        if timestamp < self.choice.since:
            return False
        self.records += 1
        if timestamp > self.last:
            self.last = timestamp
        if timestamp < self.first or not self.first:
            self.first = timestamp
        return True

    def _found(self, record: Mapping[str, Any], timestamp: str) -> None:
        """A finding; one whose end had not come waits for its update, which has its fingerprint."""
        if timestamp < self.choice.since:
            return
        if not record.get("partial") and record.get("fingerprint") is not None:
            self._finding(self._targets(record), client_text(record.get("client")), number_of(record.get("count"), 1), timestamp)
            return
        if len(self._partial) >= PARTIAL_LIMIT:
            self._settle(self._partial.pop(next(iter(self._partial))))
        self._partial[text_of(record.get("run")), record.get("seq") if isinstance(record.get("seq"), int) else id(record)] = record

    def _complete(self, record: Mapping[str, Any]) -> None:
        """The end of a partial finding: what it is, or that nobody will know."""
        seq = record.get("finding")
        waiting = self._partial.pop((text_of(record.get("run")), seq), None) if isinstance(seq, int) else None
        if waiting is not None:
            complete = {name: record.get(name) for name in ("fingerprint", "redacted_match")} if record.get("complete") else {"fingerprint": None}
            self._settle({**waiting, **complete})

    def _settle(self, record: Mapping[str, Any]) -> None:
        self._finding(self._targets(record), client_text(record.get("client")), number_of(record.get("count"), 1), text_of(record.get("timestamp")))

    def settle(self) -> None:
        """All has been read: make the sums. Findings still waiting for an update count as they are, streams without an end as unfinished."""
        waiting, self._partial = list(self._partial.values()), {}
        for record in waiting:
            self._settle(record)
        for secret in self.secrets.values():
            for sighting in secret.sightings.values():
                sighting.settle(secret)
        for reader in self.readers.values():
            reader.unfinished = 0
        for stream in self._streams.values():
            if stream.reader:
                stream.reader.unfinished += 1

    def _targets(self, record: Mapping[str, Any]) -> Optional[tuple[Secret, Place]]:
        """The secret and the container that a finding is of; None if it does not count."""
        if not self.choice.takes_finding(record):
            return None
        fingerprint, rule, severity = text_of(record.get("fingerprint")), text_of(record.get("rule")), text_of(record.get("severity"))
        key = f"{fingerprint} {rule}"
        secret = self.secrets.get(key)
        if secret is None:
            what = (text_of(record.get("pattern")), severity, text_of(record.get("redacted_match")))
            kind = f"secrets {severity if severity in SEVERITY_RANK else OTHERS}"
            if self._distinct[kind] >= DISTINCT_LIMIT:
                key, fingerprint, rule, what = f"{OTHERS} {kind}", OTHERS, OTHERS, (OTHERS, severity, "")
            secret = self.secrets.get(key) or self.secrets.setdefault(key, Secret(fingerprint, rule, *what))
            self._distinct[kind] += 1
        container = text_of(record.get("container_id")) or "unknown"
        container = container if container in self.places or len(self.places) < DISTINCT_LIMIT else OTHERS
        place = self.places.get(container) or self.places.setdefault(container, Place(container))
        name = text_of(record.get("container_name"))
        if len(name) > len(place.name):
            place.name = name
        return secret, place

    def _finding(self, targets: Optional[tuple[Secret, Place]], client: str, count: int, timestamp: str) -> None:
        """Count a finding: in the sums of all, and in its sighting."""
        if targets is None or not self._seen(timestamp):
            return
        secret, place = targets
        severity = secret.severity
        self.findings[severity] += count
        sighting = secret.sightings.get((place.container_id, client)) or self._sighting(secret, place, client, count, timestamp)
        sighting.add(count, timestamp)
        hour = self.hours.get(timestamp[:13]) or self._hour(timestamp[:13])
        if hour is not None:
            hour[severity] += count
        self.recent.append((timestamp, secret, place, client))

    def _sighting(self, secret: Secret, place: Place, client: str, count: int, timestamp: str) -> Sighting:
        """A new sighting; beyond the limits the one of all others, while container and reader are counted at once."""
        reader = self._reader(client)
        if len(secret.sightings) < SIGHTING_LIMIT and self._sightings < SIGHTINGS_IN_ALL:
            self._sightings += 1
            return secret.sightings.setdefault((place.container_id, client), Sighting(place, reader))
        place.add(count, timestamp)
        place.patterns[secret.pattern] += count
        place.severities[secret.severity] += count
        reader.add(count, timestamp)
        return secret.sightings.setdefault((OTHERS, OTHERS), Sighting(None, None))

    def _hour(self, hour: str) -> Optional[Counter[str]]:
        """A new hour with findings; None if it is no hour, or one too many."""
        if hour not in self.hours and (len(self.hours) >= HOUR_LIMIT or not HOUR.fullmatch(hour)):
            return None
        return self.hours.setdefault(hour, Counter())

    def _reader(self, client: str) -> Reader:
        reader = self.readers.get(client)
        if reader is None:
            client = client if len(self.readers) < DISTINCT_LIMIT else OTHERS
            reader = self.readers.get(client) or self.readers.setdefault(client, Reader(client))
        return reader

    def _stream(self, record: Mapping[str, Any], timestamp: str, closes: bool) -> None:
        """A stream's beginning or end: who reads what, and how much."""
        key = stream_key(record)
        stream = (self._streams.pop(key, None) if closes else None) or OpenStream()
        if not closes and len(self._streams) < STREAM_LIMIT:
            self._streams[key] = stream
        if not self.choice.takes_container(record) or not self._seen(timestamp):
            return
        if stream.reader is None:
            stream.reader = self._reader(client_text(record.get("client")))
            stream.reader.streams += 1
        stream.reader.add(0, timestamp)
        if len(stream.reader.containers) < SIGHTING_LIMIT:
            stream.reader.containers.add(text_of(record.get("container_id")))
        if closes:
            stream.reader.bytes += number_of(record.get("bytes"))
            self._lose("bytes_not_scanned", number_of(record.get("unscanned")) - stream.unscanned, timestamp)
        if record.get("audited") is False:
            self._lose("bytes_not_audited" if closes else "streams_not_audited", number_of(record.get("bytes"), 1), timestamp)

    def _other(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        """Refusals, losses, and the end of a run."""
        if event in ("denied", "would_deny"):
            self._refused(event, record, timestamp)
        elif event == "gap":
            self._lose("records_lost", number_of(record.get("records")), timestamp, text_of(record.get("since")))
            self._lose("findings_lost", number_of(record.get("matches")), timestamp)
        elif event in ("scan_gap", "scan_error", "suppressed"):
            self._stream_loss(event, record, timestamp)
        elif event in ("truncated", "recovered"):
            self._lose({"truncated": "log_truncations", "recovered": "torn_lines"}[event], 1, timestamp)
        elif event == "stop":
            for key in [key for key in self._streams if key[0] == record.get("run")]:
                del self._streams[key]

    def _stream_loss(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        """What a stream lost, unless it is known to be another container's."""
        stream = self._streams.get(stream_key(record))
        if self.choice.container and stream and stream.reader is None:
            return
        if event == "scan_gap":
            size = number_of(record.get("bytes"))
            if stream:
                stream.unscanned += size
            self._lose("bytes_not_scanned", size, timestamp, text_of(record.get("since")))
        elif event == "scan_error":
            self._lose("scan_errors", 1, timestamp)
        else:
            counts = record.get("counts")
            self._lose("findings_suppressed", sum(map(number_of, counts.values())) if isinstance(counts, dict) else 0, timestamp)

    def _refused(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        path = text_of(record.get("path"))
        if self.choice.container and f"/{self.choice.container}" not in path:
            return
        key = (event, text_of(record.get("method")), path, text_of(record.get("rule")), client_text(record.get("client")))
        if key not in self.denied and len(self.denied) >= DISTINCT_LIMIT:
            key = (event, "", OTHERS, "", "")
        self.denied.setdefault(key, Tally()).add(number_of(record.get("count"), 1), timestamp)

    def _lose(self, what: str, count: int, timestamp: str, since: str = "") -> None:
        """Something was not recorded or not scanned, from `since` on where that is known."""
        if count <= 0:
            return
        self.losses[what] += count
        if len(self.told) < STATE_LIMIT:
            self.told.add(f"{what} {timestamp}")
        if what in DRAWN_LOSSES:
            for hour in hours_between(since or timestamp, timestamp):
                self.loss_hours[hour] += 1

    # -- what was found

    def worst_secrets(self) -> list[Secret]:
        """The distinct secrets, the gravest and the most frequent first."""
        return sorted(self.secrets.values(), key=lambda secret: (-SEVERITY_RANK.get(secret.severity, 0), -secret.count, secret.fingerprint))

    def worst_places(self) -> list[Place]:
        """The containers that leak, the one with the gravest and most findings first."""
        return sorted(self.places.values(), key=lambda place: ([-place.severities[name] for name in SEVERITY_RANK], -place.count, place.container_id))

    def all_readers(self) -> list[Reader]:
        """Who read: all of them, or where only some findings count those that saw one; the one that saw most first."""
        readers = [reader for reader in self.readers.values() if reader.count or not self.choice.of_findings]
        return sorted(readers, key=lambda reader: (-reader.bytes, -reader.count, reader.client))

    def refusals(self) -> list[tuple[tuple[str, ...], Tally]]:
        """The refused requests, the most frequent first."""
        return sorted(self.denied.items(), key=lambda item: (-item[1].count, item[0]))

    def as_dict(self) -> dict[str, Any]:
        """`totals`, `secrets`, `containers`, `readers`, `losses`, `denied`: for programs."""
        totals = {"records": self.records, "first": self.first, "last": self.last, "findings": dict(self.findings), "secrets": len(self.secrets)}
        return {
            "totals": totals,
            "secrets": [self._secret_dict(secret) for secret in self.worst_secrets()],
            "containers": [
                {"container_id": place.container_id, "container_name": place.name, "patterns": dict(place.patterns.most_common()), **place.times()}
                for place in self.worst_places()
            ],
            "readers": [reader_dict(reader) for reader in self.all_readers()],
            "losses": dict(self.losses),
            "denied": [
                {"event": event, "method": method, "path": path, "rule": rule, "client": client, **tally.times()}
                for (event, method, path, rule, client), tally in self.refusals()
            ],
        }

    def _secret_dict(self, secret: Secret) -> dict[str, Any]:
        what = {name: getattr(secret, name) for name in ("fingerprint", "rule", "pattern", "severity")}
        sightings = [
            {"container_id": container, "container_name": self.name_of(container), "client": client, **tally.times()}
            for (container, client), tally in sorted(secret.sightings.items())
        ]
        return {
            **what,
            "redacted_match": secret.redacted,
            **secret.times(),
            "containers": sorted(secret.by(0)),
            "readers": sorted(secret.by(1)),
            "sightings": sightings,
        }

    def news(self) -> set[str]:
        """What there is to tell, each as a digest: a secret in a container seen by a reader, a refused request, a loss."""
        seen = {f"{s.fingerprint} {s.rule} {container} {client}" for s in self.secrets.values() for container, client in s.sightings}
        return {hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16] for text in seen | self.told | {" ".join(key) for key in self.denied}}

    def name_of(self, container: str) -> str:
        """The name of a container with findings."""
        place = self.places.get(container)
        return place.name if place else ""

    def label_of(self, container: str) -> str:
        """What people call it."""
        place = self.places.get(container)
        return place.label if place else container


#: What is not recorded or not scanned, as the texts for people say it.
LOSSES = {
    "records_lost": "records lost: the disk was full or failing, or the queue was",
    "findings_lost": "findings in those records",
    "bytes_not_scanned": "bytes passed unscanned: there were more than could be looked at",
    "scan_errors": "scans failed and skipped what they held",
    "findings_suppressed": "findings beyond their container's budget, counted only",
    "log_truncations": "times the log was truncated while it was written",
    "torn_lines": "times a killed run left a torn line",
    "bad_lines": "lines are no records; dockeraudit verify says which",
    "streams_not_audited": "streams relayed without looking (tunnels of BuildKit or HTTP/2)",
    "bytes_not_audited": "bytes in those",
    "files_unreadable": "files could not be read",
}
DRAWN_LOSSES = frozenset(("records_lost", "bytes_not_scanned", "scan_errors", "log_truncations"))


def reader_dict(reader: Reader) -> dict[str, Any]:
    """A reader for programs; its `findings` are those that count."""
    return {
        "client": reader.client,
        "streams": reader.streams,
        "unfinished": reader.unfinished,
        "bytes": reader.bytes,
        "containers": sorted(reader.containers),
        "findings": reader.count,
        "first_seen": reader.first,
        "last_seen": reader.last,
    }


def stream_key(record: Mapping[str, Any]) -> tuple[str, Any]:
    """Which stream of which run a record is about."""
    number = record.get("stream")
    return text_of(record.get("run")), number if isinstance(number, int) else None


def hours_between(since: str, until: str) -> Iterator[str]:
    """The hours from one timestamp to another, at most HOUR_LIMIT of them."""
    if not HOUR.fullmatch(since[:13]) or not HOUR.fullmatch(until[:13]) or since > until:
        return
    try:
        hour = datetime.strptime(since[:13], "%Y-%m-%dT%H")
        for _ in range(HOUR_LIMIT):
            text = hour.strftime("%Y-%m-%dT%H")
            yield text
            if text >= until[:13]:
                return
            hour += timedelta(hours=1)
    except (ValueError, OverflowError):  # the 31st of February, the year 0 or 10000
        return


def text_of(value: Any) -> str:
    """A field that should be text."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def number_of(value: Any, default: int = 0) -> int:
    """A field that should be a count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else default


def client_text(client: Any) -> str:
    """Who: certificate, address, or uid and command."""
    if not isinstance(client, dict):
        return "unknown"
    if "address" in client:
        certificate = text_of(client.get("certificate"))
        return text_of(client["address"]) + (f" ({certificate})" if certificate else "")
    if client.get("listener") == "scan":
        return f"dockeraudit scan (uid {text_of(client.get('uid'))})"
    return f"uid {text_of(client.get('uid'))} ({text_of(client.get('command')) or 'unknown command'})"


# =====================================================================================================================
# text
# =====================================================================================================================

COLOURS = {"HIGH": "31;1", "MEDIUM": "33", "LOW": "36", "loss": "31;1", "title": "1"}
WIDTH = 80  # columns of a terminal nobody has widened
ROWS = 20  # rows of each table for people; --json has them all
NAMES = 3  # containers or readers named in a line; --secret has them all
ALL_ROWS = 1_000  # rows where one secret was asked for


def render_text(summary: AuditSummary, colour: bool) -> str:
    """The report for a terminal, at most 80 columns; with --secret every container and reader of it."""

    def paint(text: str, kind: str) -> str:
        return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if colour and kind in COLOURS else text

    choice, secrets = summary.choice, summary.worst_secrets()
    lines = [fit(period_text(summary) or "no records", WIDTH), fit(headline(summary), WIDTH)]
    if secrets:
        lines += ["", paint("What leaked", "title")]
    for secret in secrets[:ROWS]:
        lines += secret_lines(summary, secret, paint)
    if len(secrets) > ROWS:
        lines.append(f"  and {len(secrets) - ROWS} more secrets; --json has them all")
    if not choice.secret:
        lines += table(paint("Which containers leak most", "title"), map(place_line, summary.worst_places()))
        title = "Who read these streams" if not choice.of_findings else "Who saw these findings"
        lines += table(paint(title, "title"), map(reader_line, summary.all_readers()))
        lines += table(paint("Refused requests", "title"), (refusal_line(*item) for item in summary.refusals()))
    losses = [f"{summary.losses[what]:>11,}  {text}" for what, text in LOSSES.items() if summary.losses[what]]
    lines += table(paint("Not recorded or not scanned", "loss"), losses)
    if not losses:
        lines += ["", "Everything was scanned and recorded, as far as these records tell."]
    if secrets and not choice.secret:
        lines.append(f"More of one secret: dockeraudit report --secret {secrets[0].fingerprint or 'FINGERPRINT'}")
    return "\n".join(lines) + "\n"


def period_text(summary: AuditSummary) -> str:
    """From when to when."""
    return f"{minute(summary.first)} to {minute(summary.last)} UTC, {counted(summary.records, 'record')}" if summary.records else ""


def headline(summary: AuditSummary) -> str:
    """The report in one sentence."""
    total = sum(summary.findings.values())
    if not total:
        return "no findings"
    distinct = Counter(secret.severity for secret in summary.secrets.values())
    graded = ", ".join(f"{distinct[name]} {name}" for name in SEVERITY_RANK if distinct[name])
    return f"{counted(len(summary.secrets), 'secret')} ({graded}) in {counted(len(summary.places), 'container')}, seen {total:,} times"


def counted(count: int, what: str) -> str:
    """`1 secret`, `2 secrets`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def minute(timestamp: str) -> str:
    """A timestamp for people: to the minute."""
    return timestamp[:16].replace("T", " ")


def secret_lines(summary: AuditSummary, secret: Secret, paint: Any) -> list[str]:
    """A distinct secret: what, how often, when, where, and who saw it."""
    head = f"  {fit(secret.severity, 6):6} {pad(secret.pattern, 27)} {pad(secret.redacted, 9)} {secret.count:>8,} x  "
    lines = [paint(head, secret.severity) + fit(secret.fingerprint or "end not seen", 17)]
    lines.append(fit(f"         {minute(secret.first)} to {minute(secret.last)}", WIDTH))
    if summary.choice.secret:
        pairs = sorted(secret.sightings.items(), key=lambda item: (-item[1].count, item[0]))
        rows = (f"{tally.count:>10,} x  {minute(tally.last)}  {pad(summary.label_of(container), 24)}  {client}" for (container, client), tally in pairs)
        return lines + table("           times  last seen         container                 read by", rows, ALL_ROWS)[1:]
    lines.append(named_line("in", [summary.label_of(container) for container, _ in secret.by(0).most_common(NAMES)], len(secret.by(0))))
    lines.append(named_line("read by", [client for client, _ in secret.by(1).most_common(NAMES)], len(secret.by(1))))
    return lines


def named_line(what: str, names: Sequence[str], total: int) -> str:
    """As many of the names as find room in a line, at least one, and how many more there are."""
    line, named = f"         {what} ", 0
    for name in names:
        room = WIDTH - columns(line) - len(f",  and {total} more")
        text = fit(name, max(room, 12))
        if named and (room < 12 or text != printable(name)):
            break
        line += (", " if named else "") + text
        named += 1
    return fit(line + (f" and {total - named} more" if total > named else ""), WIDTH)


def place_line(place: Place) -> str:
    """A container with its findings."""
    graded = ", ".join(f"{place.severities[name]:,} {name}" for name in SEVERITY_RANK if place.severities[name])
    return f"{place.count:>11,}  {pad(place.label, 30)}  {graded}"


def reader_line(reader: Reader) -> str:
    """A reader with how much."""
    unfinished = f", {reader.unfinished} open" if reader.unfinished else ""
    return f"{size_text(reader.bytes):>11}  {counted(reader.streams, 'stream'):>13}  {counted(reader.count, 'finding'):>16}  {reader.client}{unfinished}"


def refusal_line(key: Sequence[str], tally: Tally) -> str:
    """A refused request."""
    event, method, path, rule, client = key
    told = "" if event == "denied" else " (only learned)"
    return f"{tally.count:>11,}  {client}: {method} {path}, rule {rule}{told}"


def table(title: str, rows: Iterable[str], limit: int = ROWS) -> list[str]:
    """A titled table, or nothing."""
    rows = list(rows)
    if not rows:
        return []
    more = [f"             and {len(rows) - limit:,} more"] if len(rows) > limit else []
    return ["", title, *(fit(row, WIDTH) for row in rows[:limit]), *more]


def fit(text: str, width: int) -> str:
    """The text, harmless and no wider than this."""
    text = printable(text)
    if text.isascii():
        return text if len(text) <= width else text[: width - 1] + "…"
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[: min(len(text) - 1, width - 1)]
    return text + "…"


def pad(text: str, width: int) -> str:
    """The text, harmless and exactly this wide."""
    text = fit(text, width)
    return text + " " * (width - columns(text))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def size_text(size: int) -> str:
    """Bytes for people."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            break
        amount /= 1000
    else:
        return f"{amount:,.1f} TB"
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


# =====================================================================================================================
# page
# =====================================================================================================================

PAGE_ROWS = 200  # rows of each table of the page
PAGE_NAMES = 8  # containers or readers named in a cell
PAGE_TEXT = 96  # characters of a name that are shown
PAGE_TITLE = 1000  # and that its title has
BARS = 72  # bars of a chart: narrower ones cannot be told apart on a telephone
LEAST_BARS = 24  # hours before the last one that are drawn at least, so that a single bar does not fill the page
STEPS = (1, 3, 6, 12, 24, 168, 720)  # hours a bar may stand for
HEAT_ROWS, HEAT_COLUMNS = 15, 8
PAGE_TAIL = 4 << 20  # bytes of the audit log's end that the live page reads; more is the report's work

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--paper:#fff;--card:#f6f8fa;--line:#d5dae0;
--high:#b3122b;--medium:#8f5200;--low:#0b62a8;--high-bar:#d1344b;--medium-bar:#dd9a2b;--low-bar:#5aa1dd;--heat:179,18,43}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaef;--soft:#9aa5b1;--paper:#0f1318;--card:#181e25;--line:#303842;
--high:#ff8b98;--medium:#f2b55c;--low:#84c3ff;--high-bar:#e0566a;--medium-bar:#c98a2a;--low-bar:#3f86c4;--heat:240,90,110}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;overflow-wrap:anywhere;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:76rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.5rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.125rem;margin:2.25rem 0 .6rem}
p{margin:.25rem 0}
.soft,footer,caption,figcaption{color:var(--soft);font-size:.875rem}
a{color:var(--low)}
nav{margin:.75rem 0 0;display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.9375rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1.25rem 0 0;padding:0;list-style:none}
.tiles li{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--line);border-radius:.375rem;padding:.6rem .8rem}
.tiles b{display:block;font-size:1.6rem;line-height:1.2;font-variant-numeric:tabular-nums;font-weight:650}
.tiles .HIGH{border-top-color:var(--high-bar)}.tiles .MEDIUM{border-top-color:var(--medium-bar)}.tiles .LOW{border-top-color:var(--low-bar)}
.alert{border:1px solid var(--high);border-left-width:.4rem;border-radius:.375rem;padding:.7rem 1rem;margin-top:1.5rem}
.alert h2{margin:0 0 .3rem;color:var(--high)}
.alert ul{margin:0;padding-left:1.2rem}
.calm{border:1px solid var(--line);border-radius:.375rem;padding:.6rem 1rem;margin-top:1.5rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
thead th{font-size:.8125rem;color:var(--soft);font-weight:600;white-space:nowrap;overflow-wrap:normal}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n,td.n{padding-right:1.25rem}
caption{text-align:left}
.t{display:inline-block;max-width:100%;font-variant-numeric:tabular-nums}
.whole{white-space:nowrap}
code{font:.875rem ui-monospace,"SFMono-Regular","DejaVu Sans Mono",Consolas,monospace}
.names{margin:0;padding:0;list-style:none}
.names bdi,td bdi{unicode-bidi:isolate}
.badge{display:inline-block;white-space:nowrap;font-size:.75rem;font-weight:700;letter-spacing:.03em;border:1px solid;border-radius:.25rem;padding:0 .35rem}
.HIGH .badge,.badge.HIGH{color:var(--high)}.badge.MEDIUM{color:var(--medium)}.badge.LOW{color:var(--low)}
figure{margin:0}
.chart{display:grid;grid-template-columns:4.5rem 1fr;gap:0 .6rem;align-items:stretch;margin-bottom:.5rem}
.chart .axis{display:flex;flex-direction:column;justify-content:space-between;text-align:right;font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.chart svg{display:block;width:100%;height:3.75rem;border-bottom:1px solid var(--soft);background:var(--card)}
.times{display:flex;justify-content:space-between;margin-left:5.1rem;font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.bar-HIGH{fill:var(--high-bar)}.bar-MEDIUM{fill:var(--medium-bar)}.bar-LOW{fill:var(--low-bar)}
.gap{fill:var(--high);opacity:.28}
.swatch{display:inline-block;width:.9em;height:.9em;background:var(--high);opacity:.4;vertical-align:-.1em}
.heat{width:auto}
.heat thead th{vertical-align:bottom;white-space:normal;max-width:8rem;min-width:4.5rem;padding-right:.5rem}
.heat td{background:rgba(var(--heat),var(--w,0));text-align:right;padding:.4rem .6rem;font-variant-numeric:tabular-nums;border:1px solid var(--paper)}
.heat tbody th{font-weight:400;min-width:8rem;max-width:20rem}
footer{margin-top:2.5rem;padding-top:.75rem;padding-bottom:2rem}
a:focus-visible,.scroll:focus-visible{outline:2px solid var(--low);outline-offset:2px}
@media(max-width:45rem){
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.cards,.cards tbody,.cards tr{display:block}
.cards tr{border:1px solid var(--line);border-radius:.375rem;padding:.4rem .8rem;margin-bottom:.75rem;background:var(--card)}
.cards td,.cards td.n{display:grid;grid-template-columns:5.5rem minmax(0,1fr);gap:.5rem;border:0;padding:.15rem 0;text-align:left;white-space:normal}
.chart{grid-template-columns:4.2rem 1fr}.times{margin-left:4.8rem}.times span:nth-child(2):not(:last-child){display:none}
.cards td::before{content:attr(data-label);color:var(--soft);font-size:.8125rem}
}
@media print{
:root{--ink:#000;--soft:#444;--paper:#fff;--card:#fff;--line:#bbb;--high:#a00d22;--medium:#7a4600;--low:#0a4f88;--heat:179,18,43}
body{font-size:10pt}main,header,footer{max-width:none;padding:0}nav{display:none}.scroll{overflow:visible}
h2{break-after:avoid}tr,figure,.tiles,.alert{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""


def render_html(summary: AuditSummary, *, title: str, live: Optional[Mapping[str, Any]] = None, made: str = "") -> str:
    """One page without script or network: the summary, and what runs now if `live` is given. `made`: when, for the foot."""
    sections = [
        live_section(live) if live else "",
        losses_section(summary),
        recent_section(summary) if live else "",
        hours_section(summary),
        secrets_section(summary),
        heat_section(summary),
        readers_section(summary),
        refusals_section(summary),
    ]
    present = [name for name in PAGE_SECTIONS if any(text.startswith(f"<section id={name} ") for text in sections)]
    links = "".join(f"<a href='#{name}'>{PAGE_SECTIONS[name][0]}</a>" for name in present)
    reload = "<a href=''>Reload</a>" if live else ""
    return "".join(
        (
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width,initial-scale=1'>",
            f"<meta http-equiv=Content-Security-Policy content=\"{PAGE_POLICY}\"><meta name=referrer content=no-referrer>",
            f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n<body><header><h1>{safe(title)}</h1>",
            f"<p>{safe(headline(summary))}</p><p class=soft>{safe(period_text(summary) or 'no records')}</p>",
            f"<nav aria-label='Sections'>{links}{reload}</nav>{tiles(summary)}</header>\n<main>",
            "\n".join(filter(None, sections)),
            f"</main>\n<footer>{safe(made)}</footer></body></html>\n",
        )
    )


#: Nothing is loaded and nothing runs, even if a text were not escaped.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Sections: the link's text, and the heading.
PAGE_SECTIONS = {
    "now": ("What runs now", "What runs now"),
    "losses": ("Losses", "Not recorded or not scanned"),
    "latest": ("Latest", "Latest findings"),
    "time": ("Over time", "Findings over time"),
    "secrets": ("Secrets", "What leaked"),
    "containers": ("Containers", "Containers and patterns"),
    "readers": ("Readers", "Who read these streams"),
    "refused": ("Refused", "Refused requests"),
}


def safe(value: Any) -> str:
    """Text for HTML: escaped, control characters shown."""
    return markup.escape(printable(text_of(value)), quote=True)


def shown(value: Any) -> str:
    """A text from a record: isolated from its neighbours' direction, a long one shortened with more of it in the title."""
    text = text_of(value)
    if len(text) <= PAGE_TEXT:
        return f"<bdi>{safe(text)}</bdi>"
    return f"<bdi title='{safe(text[:PAGE_TITLE])}'>{safe(text[:PAGE_TEXT])}…</bdi>"


def names_list(names: Sequence[str], total: int) -> str:
    """Names one below the other, and how many more there are."""
    items = "".join(f"<li>{shown(name)}</li>" for name in names)
    more = f"<li class=soft>and {total - len(names):,} more</li>" if total > len(names) else ""
    return f"<ul class=names>{items}{more}</ul>"


def time_cell(timestamp: str, size: int = 16) -> str:
    """A time in UTC, to the minute; date and time may stand one below the other, but neither is broken."""
    if not re.fullmatch(r"[\dT:.Z-]{1,32}", timestamp):
        return shown(timestamp[:size])
    day, _, clock = timestamp[:size].partition("T")
    return f"<span class=t>{day}</span> <span class=t>{clock}</span>"


def fingerprint_cell(fingerprint: str) -> str:
    """A fingerprint, unbroken, so that it can be copied."""
    if re.fullmatch("[0-9a-f]{16}", fingerprint):
        return f"<code class='soft whole'>{fingerprint}</code>"
    return f"<code class=soft>{shown(fingerprint or 'end not seen')}</code>"


def badge(severity: str) -> str:
    """A severity, in words and colour."""
    return f"<span class='badge {severity}'>{severity}</span>" if severity in SEVERITY_RANK else shown(severity)


def tiles(summary: AuditSummary) -> str:
    """The key figures."""
    distinct = Counter(secret.severity for secret in summary.secrets.values())
    counts = [(name, distinct[name], f"{name} secrets<br><span class=soft>seen {summary.findings[name]:,} times</span>") for name in SEVERITY_RANK]
    readers = len(summary.all_readers())
    counts += [("", len(summary.places), "containers that leak"), ("", readers, "reader" if readers == 1 else "readers")]
    return "<ul class=tiles>" + "".join(f"<li class='{kind}'><b>{count:,}</b>{text}</li>" for kind, count, text in counts) + "</ul>"


def page_section(name: str, content: str, note: str = "", kind: str = "") -> str:
    """A section with its heading, or nothing."""
    if not content:
        return ""
    note = f"<p class=soft>{note}</p>" if note else ""
    kind = f" class={kind}" if kind else ""
    return f"<section id={name}{kind} aria-labelledby={name}-title><h2 id={name}-title>{PAGE_SECTIONS[name][1]}</h2>{note}{content}</section>"


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], label: str, total: int = 0) -> str:
    """A table that becomes cards on a narrow screen. A head may begin with its column's class: `n:times`.

    Roles are spelt out, since a browser drops them from a table that is shown as cards.
    """
    if not rows:
        return ""
    split = [head.rpartition(":")[::2] for head in heads]
    head = "".join(f"<th scope=col role=columnheader{f' class={kind}' if kind else ''}>{name}</th>" for kind, name in split)
    cells = [f"<td role=cell{f' class={kind}' if kind else ''} data-label='{name}'><div>" for kind, name in split]
    body = "".join("<tr role=row>" + "".join(f"{begin}{cell}</div></td>" for begin, cell in zip(cells, row)) + "</tr>\n" for row in rows)
    more = f"<p class=soft>and {total - len(rows):,} more; <code>report --json</code> has them all</p>" if total > len(rows) else ""
    return (
        f"<table class=cards role=table aria-label='{label}'><thead role=rowgroup><tr role=row>{head}</tr></thead>"
        f"<tbody role=rowgroup>\n{body}</tbody></table>{more}"
    )


def losses_section(summary: AuditSummary) -> str:
    """What was not recorded or not scanned, in red; or that nothing is known to be missing."""
    losses = [f"<li><b>{summary.losses[what]:,}</b> {text}</li>" for what, text in LOSSES.items() if summary.losses[what]]
    if not losses:
        return "<p class=calm>Everything was scanned and recorded, as far as these records tell.</p>"
    return page_section("losses", f"<ul>{''.join(losses)}</ul>", kind="alert")


def secrets_section(summary: AuditSummary) -> str:
    """The table of distinct secrets."""
    secrets = summary.worst_secrets()
    rows = []
    for secret in secrets[:PAGE_ROWS]:
        places, readers = secret.by(0), secret.by(1)
        rows.append(
            (
                badge(secret.severity),
                f"{shown(secret.pattern)}<br><code>{shown(secret.redacted)}</code> {fingerprint_cell(secret.fingerprint)}",
                f"{secret.count:,}",
                names_list([summary.label_of(container) for container, _ in places.most_common(PAGE_NAMES)], len(places)),
                names_list([client for client, _ in readers.most_common(PAGE_NAMES)], len(readers)),
                time_cell(secret.first),
                time_cell(secret.last),
            )
        )
    heads = ("severity", "secret", "n:times", "containers", "read by", "first seen", "last seen")
    note = "One row for each credential, with its fingerprint: the same fingerprint is the same credential everywhere."
    return page_section("secrets", html_table(heads, rows, "Distinct secrets", len(secrets)), note)


def readers_section(summary: AuditSummary) -> str:
    """Who read, and how much."""
    readers = summary.all_readers()
    rows = []
    for reader in readers[:PAGE_ROWS]:
        streams = f"{reader.streams:,}" + (f" ({reader.unfinished} open)" if reader.unfinished else "")
        rows.append((shown(reader.client), streams, size_text(reader.bytes), f"{len(reader.containers):,}", f"{reader.count:,}", time_cell(reader.last)))
    return page_section("readers", html_table(("client", "n:streams", "n:read", "n:containers", "n:findings", "last"), rows, "Readers", len(readers)))


def refusals_section(summary: AuditSummary) -> str:
    """Refused requests."""
    refusals = summary.refusals()
    rows = [
        (f"{tally.count:,}", f"{shown(method)} {shown(path)}", shown(rule) + ("" if event == "denied" else " (only learned)"), shown(client), time_cell(tally.last))
        for (event, method, path, rule, client), tally in refusals[:PAGE_ROWS]
    ]
    return page_section("refused", html_table(("n:times", "request", "rule", "client", "last"), rows, "Refused requests", len(refusals)))


def recent_section(summary: AuditSummary) -> str:
    """The latest findings."""
    latest = sorted(summary.recent, key=lambda item: item[0], reverse=True)
    rows = [
        (time_cell(timestamp, 19), badge(secret.severity), f"{shown(secret.pattern)} <code>{shown(secret.redacted)}</code>", shown(place.label), shown(client))
        for timestamp, secret, place, client in latest
    ]
    return page_section("latest", html_table(("time", "severity", "secret", "container", "read by"), rows, "Latest findings"))


def heat_section(summary: AuditSummary) -> str:
    """Containers × patterns, the more the redder."""
    places = summary.worst_places()
    totals: Counter[str] = Counter()
    for place in places:
        totals.update(place.patterns)
    patterns = [pattern for pattern, _ in totals.most_common(HEAT_COLUMNS)]
    most = max((place.patterns[pattern] for place in places for pattern in patterns), default=0)
    rows = []
    for place in places[:HEAT_ROWS]:
        cells = (place.patterns[pattern] for pattern in patterns)
        shades = "".join(f"<td style='--w:{shade(count, most):.2f}'>{count:,}</td>" if count else "<td></td>" for count in cells)
        rows.append(f"<tr><th scope=row>{shown(place.label)}</th>{shades}<td class=n>{place.count:,}</td></tr>\n")
    if not rows:
        return ""
    head = "".join(f"<th scope=col>{shown(pattern)}</th>" for pattern in patterns)
    more = f"<p class=soft>and {len(places) - HEAT_ROWS:,} more containers</p>" if len(places) > HEAT_ROWS else ""
    head = f"<thead><tr><th scope=col>container</th>{head}<th scope=col class=n>all</th></tr></thead>"
    body = f"<table class=heat><caption>Findings by container and pattern</caption>{head}<tbody>\n{''.join(rows)}</tbody></table>"
    return page_section("containers", f"<div class=scroll tabindex=0 role=region aria-labelledby=containers-title>{body}</div>{more}")


def shade(count: int, most: int) -> float:
    """How strong a cell's colour is: by the logarithm, so that one flood does not make all others pale."""
    return 0.1 + 0.5 * (count.bit_length() / max(1, most.bit_length()))


def hours_section(summary: AuditSummary) -> str:
    """Findings over time, a chart for each severity on its own scale, and the same as a table for who cannot see it."""
    hours = {hour_number(hour): counts for hour, counts in summary.hours.items()}
    gaps = {hour_number(hour) for hour in summary.loss_hours}
    hours.pop(None, None)
    gaps.discard(None)
    if not hours:
        return ""
    known = sorted(number for number in {*hours, *gaps} if number is not None)
    first = min(known[0], known[-1] - LEAST_BARS + 1)
    step = bar_hours(known[-1] - first + 1)
    bars: dict[int, Counter[str]] = {}
    for number, counts in hours.items():
        bars.setdefault((number - first) // step, Counter()).update(counts)
    missing = sorted({(number - first) // step for number in gaps})
    width = (known[-1] - first) // step + 1
    charts = "".join(severity_chart(severity, bars, missing, width, first, step) for severity in SEVERITY_RANK)
    times = "".join(f"<span>{hour_text(first + step * place)}</span>" for place in ((0, width // 2, width - 1) if width > 4 else (0,)))
    legend = f"One bar for {counted(step, 'hour')}, UTC; each severity has its own scale."
    legend += " <span class=swatch></span> Something was not recorded or not scanned." if missing else ""
    return page_section("time", f"<figure>{charts}<div class=times>{times}</div><figcaption>{legend}</figcaption></figure>")


def bar_hours(span: int) -> int:
    """How many hours a bar stands for."""
    return next((step for step in STEPS if span <= step * BARS), -(-span // BARS))


def hour_number(hour: str) -> Optional[int]:
    """Hours since 1970; None for the 31st of February."""
    try:
        return int(datetime.strptime(hour, "%Y-%m-%dT%H").replace(tzinfo=timezone.utc).timestamp()) // 3600
    except ValueError:
        return None


def hour_text(number: int) -> str:
    """The hour of a number."""
    return (datetime(1970, 1, 1) + timedelta(hours=number)).strftime("%Y-%m-%d %H:00")


def severity_chart(severity: str, bars: Mapping[int, Mapping[str, int]], gaps: Sequence[int], width: int, first: int, step: int) -> str:
    """One severity's bars; where something is missing the ground is red."""
    counts = {place: bar.get(severity, 0) for place, bar in bars.items() if bar.get(severity)}
    top = max(counts.values(), default=0)
    shapes = []
    for place in gaps:
        when = hour_text(first + step * place)
        shapes.append(f"<rect class=gap x={place} y=0 width=1 height=100><title>{when}: not all recorded or scanned</title></rect>")
    for place, count in sorted(counts.items()):
        height = max(2.0, 100.0 * count / top)
        shapes.append(
            f"<rect class=bar-{severity} x={place + 0.1:.1f} y={100 - height:.1f} width=.8 height={height:.1f}>"
            f"<title>{hour_text(first + step * place)}: {count:,} {severity}</title></rect>"
        )
    label = f"{severity}: {sum(counts.values()):,} findings" + (f", at most {top:,} in {counted(step, 'hour')}" if top else "")
    axis = f"<div class=axis><span>{f'{top:,}' if top else ''}</span><span>{badge(severity)}</span><span>0</span></div>"
    return f"<div class=chart>{axis}<svg viewBox='0 0 {width} 100' preserveAspectRatio=none role=img aria-label='{label}'>{''.join(shapes)}</svg></div>\n"


def live_section(live: Mapping[str, Any]) -> str:
    """What runs now: engine, log, open streams."""
    counters = live.get("counters")
    counters = counters if isinstance(counters, dict) else {}
    engine = "The engine answers." if live.get("engine_up") else "<b class='badge HIGH'>The engine does not answer.</b>"
    log = "<b class='badge HIGH'>The audit log cannot be written.</b>" if counters.get("degraded") else "The audit log is written."
    rows = []
    for stream in live.get("streams", ()):
        read, age = size_text(number_of(stream.get("bytes"))), f"{number_of(stream.get('seconds')):,} s"
        rows.append((shown(stream.get("container")), shown(stream.get("endpoint")), shown(client_text(stream.get("client"))), read, age))
    streams = html_table(("container", "endpoint", "client", "n:read", "n:open for"), rows[:PAGE_ROWS], "Open streams", len(rows)) or "<p>No stream is open.</p>"
    plain = [f"{safe(name).replace('_', ' ')} {value:,}" for name, value in counters.items() if isinstance(value, int) and not isinstance(value, bool)]
    return page_section("now", f"<p>{engine} {log}</p><p class=soft>{' · '.join(plain)}</p>{streams}")


# =====================================================================================================================
# command
# =====================================================================================================================

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
            raise ReportError(f"--state {path!r} is not a file that an earlier report has written; name another, or remove it")
        return cls(until, [digest for digest in told if digest])

    def write(self, path: str) -> None:
        """Into its file, whole or not at all; raises OSError."""
        part = f"{path}.{os.getpid()}"
        with open(part, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("\n".join((STATE_MARK, self.until, *self.told)) + "\n")
        os.replace(part, path)

    def since(self) -> str:
        """From when on to read: a little before the end, since a record may wait a second for its container's name."""
        try:
            return (datetime.strptime(self.until, "%Y-%m-%dT%H:%M:%S.%fZ") - STATE_OVERLAP).isoformat()
        except ValueError:
            return ""


def run_report(
    files: Sequence[str], *, since: Optional[str], container: Optional[str], pattern: Optional[str], severity: Optional[str],
    json_output: bool, html: bool, fail_on: Optional[str], out: TextIO, err: TextIO, now: Optional[float] = None, secret: Optional[str] = None,
    state: Optional[str] = None,
) -> int:  # fmt: skip
    """Write the report: 0, 1 where --fail-on found something, 66 for a file that cannot be read, 73 for a state that cannot be written, 78 for a wrong option."""
    now = time.time() if now is None else now
    try:
        before = State.read(state) if state else State()
        moment = since_timestamp(since, now) if since else before.since()
        choice = Choice(moment, container or "", pattern or "", severity_rank("--severity", severity), fingerprint_prefix(secret))
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
            State(max(before.until, summary.last), [*before.told, *sorted(news)][-STATE_LIMIT:]).write(state)
        except OSError as error:
            err.write(f"dockeraudit report: --state {printable(state)} cannot be written: {error.strerror}; the same will be told again\n")
            return EXIT_CANNOT_CREATE
    if least and any(count and SEVERITY_RANK.get(name, 0) >= least for name, count in summary.findings.items()):
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


def write_report(summary: AuditSummary, out: TextIO, *, json_output: bool, html: bool, now: float) -> None:
    """The report as JSON, as a page or as text."""
    if json_output:
        json.dump(summary.as_dict(), out, ensure_ascii=True, indent=1)
        out.write("\n")
    elif html:
        made = datetime.fromtimestamp(now, timezone.utc).strftime("Made by dockeraudit report, %Y-%m-%d %H:%M UTC.")
        out.write(render_html(summary, title="dockeraudit report", made=made))
    else:
        out.write(render_text(summary, out.isatty() and not os.environ.get("NO_COLOR")))


def log_history(path: str, since: Optional[str] = None) -> list[str]:
    """A log and its rotated files, the oldest first; without those last written before `since`, where that can be read."""
    folder, name = os.path.split(path)
    if path == "-":
        return [path]
    try:
        earliest = since_timestamp(since, time.time()) if since else ""
        entries = [entry for entry in os.listdir(folder or ".") if entry.startswith(name) and ROTATED.fullmatch(entry[len(name) :])]
        dated = sorted((os.stat(os.path.join(folder, entry)).st_mtime, os.path.join(folder, entry)) for entry in entries)
    except (OSError, ReportError):
        return [path]
    return [entry for moment, entry in dated if datetime.fromtimestamp(moment, timezone.utc).isoformat() >= earliest] + [path]


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
                    err.write(fit(f"{size_text(done)}{of} read: {name}", WIDTH - 1).join(("\r", "\x1b[K")))
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
