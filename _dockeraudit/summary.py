"""What audit logs say, in bounded memory, however long they are.

    lines of audit logs ─▶ AuditSummary (distinct secrets, containers, readers, losses)

What a record holds is hostile text: names, paths and commands are escaped in every output. What belongs together is
grouped by container id, since a long name may be shortened differently from record to record; and by fingerprint, which
is the same for the same credential wherever the fingerprint key is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from _dockeraudit.text import SEVERITY_RANK, ReportError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def since_timestamp(text: str, now: float) -> str:
    """24h, 7d or a timestamp as RFC 3339 in UTC; raises ReportError."""
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match:
        moment = datetime.fromtimestamp(
            max(0.0, now - int(match[1]) * UNITS[match[2]]), timezone.utc
        )
    else:
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            raise ReportError(
                f"--since {text!r} is neither a span such as 24h or 7d nor a timestamp such as 2025-01-31T08:00"
            ) from None
        moment = (
            moment.replace(tzinfo=timezone.utc)
            if moment.tzinfo is None
            else moment.astimezone(timezone.utc)
        )
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def fingerprint_prefix(text: str | None) -> str:
    """What --secret gives, an empty one for none; raises ReportError."""
    if text is not None and not re.fullmatch(r"[0-9a-f]{4,16}", text.lower()):
        raise ReportError(
            f"--secret {text!r} is not a fingerprint: 16 hexadecimal digits, or at least the first four of them"
        )
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
        if self.pattern and self.pattern.lower() not in (
            text_of(record.get("pattern")).lower(),
            text_of(record.get("rule")).lower(),
        ):
            return False
        if self.secret and not text_of(record.get("fingerprint")).startswith(self.secret):
            return False
        return SEVERITY_RANK.get(
            text_of(record.get("severity")), 0
        ) >= self.least and self.takes_container(record)


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
UNREAD = frozenset(
    (b"request", b"rotated", b"recreated", b"stats")
)  # events of which only the time counts


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

    def __init__(self, place: Place | None, reader: Reader | None) -> None:
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

    def __init__(
        self, fingerprint: str, rule: str, pattern: str, severity: str, redacted: str
    ) -> None:
        super().__init__()
        self.fingerprint, self.rule, self.pattern, self.severity, self.redacted = (
            fingerprint,
            rule,
            pattern,
            severity,
            redacted,
        )
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
        return self.name or (
            self.container_id[:12]
            if re.fullmatch("[0-9a-f]{64}", self.container_id)
            else self.container_id
        )


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
        self.reader: Reader | None = (
            None  # None: the choice does not take its container, or it began too early
        )
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
        self._known_findings: dict[bytes, tuple[Secret, Place] | None] = {}
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
            targets = (
                self._known_findings[what]
                if what in self._known_findings
                else self._learn_finding(what)
            )
            reader = self._known_clients.get(who) or self._learn_client(who)
        except (ValueError, RecursionError):
            return False
        self._finding(targets, reader, int(count), timestamp)
        return True

    def _learn_finding(self, what: bytes) -> tuple[Secret, Place] | None:
        """Remember what is found where; raises ValueError for what is not whole or not known yet."""
        record = PARSE(f"{{{what.decode()}}}")
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
            self._finding(
                self._targets(record),
                client_text(record.get("client")),
                number_of(record.get("count"), 1),
                timestamp,
            )
            return
        if len(self._partial) >= PARTIAL_LIMIT:
            self._settle(self._partial.pop(next(iter(self._partial))))
        self._partial[
            text_of(record.get("run")),
            record.get("seq") if isinstance(record.get("seq"), int) else id(record),
        ] = record

    def _complete(self, record: Mapping[str, Any]) -> None:
        """The end of a partial finding: what it is, or that nobody will know."""
        seq = record.get("finding")
        waiting = (
            self._partial.pop((text_of(record.get("run")), seq), None)
            if isinstance(seq, int)
            else None
        )
        if waiting is not None:
            complete = (
                {name: record.get(name) for name in ("fingerprint", "redacted_match")}
                if record.get("complete")
                else {"fingerprint": None}
            )
            self._settle({**waiting, **complete})

    def _settle(self, record: Mapping[str, Any]) -> None:
        self._finding(
            self._targets(record),
            client_text(record.get("client")),
            number_of(record.get("count"), 1),
            text_of(record.get("timestamp")),
        )

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

    def _targets(self, record: Mapping[str, Any]) -> tuple[Secret, Place] | None:
        """The secret and the container that a finding is of; None if it does not count."""
        if not self.choice.takes_finding(record):
            return None
        fingerprint, rule, severity = (
            text_of(record.get("fingerprint")),
            text_of(record.get("rule")),
            text_of(record.get("severity")),
        )
        key = f"{fingerprint} {rule}"
        secret = self.secrets.get(key)
        if secret is None:
            what = (text_of(record.get("pattern")), severity, text_of(record.get("redacted_match")))
            kind = f"secrets {severity if severity in SEVERITY_RANK else OTHERS}"
            if self._distinct[kind] >= DISTINCT_LIMIT:
                key, fingerprint, rule, what = (
                    f"{OTHERS} {kind}",
                    OTHERS,
                    OTHERS,
                    (OTHERS, severity, ""),
                )
            secret = self.secrets.get(key) or self.secrets.setdefault(
                key, Secret(fingerprint, rule, *what)
            )
            self._distinct[kind] += 1
        container = text_of(record.get("container_id")) or "unknown"
        container = (
            container if container in self.places or len(self.places) < DISTINCT_LIMIT else OTHERS
        )
        place = self.places.get(container) or self.places.setdefault(container, Place(container))
        name = text_of(record.get("container_name"))
        if len(name) > len(place.name):
            place.name = name
        return secret, place

    def _finding(
        self, targets: tuple[Secret, Place] | None, client: str, count: int, timestamp: str
    ) -> None:
        """Count a finding: in the sums of all, and in its sighting."""
        if targets is None or not self._seen(timestamp):
            return
        secret, place = targets
        severity = secret.severity
        self.findings[severity] += count
        sighting = secret.sightings.get((place.container_id, client)) or self._sighting(
            secret, place, client, count, timestamp
        )
        sighting.add(count, timestamp)
        hour = self.hours.get(timestamp[:13]) or self._hour(timestamp[:13])
        if hour is not None:
            hour[severity] += count
        self.recent.append((timestamp, secret, place, client))

    def _sighting(
        self, secret: Secret, place: Place, client: str, count: int, timestamp: str
    ) -> Sighting:
        """A new sighting; beyond the limits the one of all others, while container and reader are counted at once."""
        reader = self._reader(client)
        if len(secret.sightings) < SIGHTING_LIMIT and self._sightings < SIGHTINGS_IN_ALL:
            self._sightings += 1
            return secret.sightings.setdefault(
                (place.container_id, client), Sighting(place, reader)
            )
        place.add(count, timestamp)
        place.patterns[secret.pattern] += count
        place.severities[secret.severity] += count
        reader.add(count, timestamp)
        return secret.sightings.setdefault((OTHERS, OTHERS), Sighting(None, None))

    def _hour(self, hour: str) -> Counter[str] | None:
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
            self._lose(
                "bytes_not_scanned",
                number_of(record.get("unscanned")) - stream.unscanned,
                timestamp,
            )
        if record.get("audited") is False:
            self._lose(
                "bytes_not_audited" if closes else "streams_not_audited",
                number_of(record.get("bytes"), 1),
                timestamp,
            )

    def _other(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        """Refusals, losses, and the end of a run."""
        if event in ("denied", "would_deny"):
            self._refused(event, record, timestamp)
        elif event == "gap":
            self._lose(
                "records_lost",
                number_of(record.get("records")),
                timestamp,
                text_of(record.get("since")),
            )
            self._lose("findings_lost", number_of(record.get("matches")), timestamp)
        elif event in ("scan_gap", "scan_error", "suppressed"):
            self._stream_loss(event, record, timestamp)
        elif event in ("truncated", "recovered"):
            self._lose(
                {"truncated": "log_truncations", "recovered": "torn_lines"}[event], 1, timestamp
            )
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
            self._lose(
                "findings_suppressed",
                sum(map(number_of, counts.values())) if isinstance(counts, dict) else 0,
                timestamp,
            )

    def _refused(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        path = text_of(record.get("path"))
        if self.choice.container and f"/{self.choice.container}" not in path:
            return
        key = (
            event,
            text_of(record.get("method")),
            path,
            text_of(record.get("rule")),
            client_text(record.get("client")),
        )
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
        return sorted(
            self.secrets.values(),
            key=lambda secret: (
                -SEVERITY_RANK.get(secret.severity, 0),
                -secret.count,
                secret.fingerprint,
            ),
        )

    def worst_places(self) -> list[Place]:
        """The containers that leak, the one with the gravest and most findings first."""
        return sorted(
            self.places.values(),
            key=lambda place: (
                [-place.severities[name] for name in SEVERITY_RANK],
                -place.count,
                place.container_id,
            ),
        )

    def all_readers(self) -> list[Reader]:
        """Who read: all of them, or where only some findings count those that saw one; the one that saw most first."""
        readers = [
            reader
            for reader in self.readers.values()
            if reader.count or not self.choice.of_findings
        ]
        return sorted(readers, key=lambda reader: (-reader.bytes, -reader.count, reader.client))

    def refusals(self) -> list[tuple[tuple[str, ...], Tally]]:
        """The refused requests, the most frequent first."""
        return sorted(self.denied.items(), key=lambda item: (-item[1].count, item[0]))

    def as_dict(self) -> dict[str, Any]:
        """`totals`, `secrets`, `containers`, `readers`, `losses`, `denied`: for programs."""
        totals = {
            "records": self.records,
            "first": self.first,
            "last": self.last,
            "findings": dict(self.findings),
            "secrets": len(self.secrets),
        }
        return {
            "totals": totals,
            "secrets": [self._secret_dict(secret) for secret in self.worst_secrets()],
            "containers": [
                {
                    "container_id": place.container_id,
                    "container_name": place.name,
                    "patterns": dict(place.patterns.most_common()),
                    **place.times(),
                }
                for place in self.worst_places()
            ],
            "readers": [reader_dict(reader) for reader in self.all_readers()],
            "losses": dict(self.losses),
            "denied": [
                {
                    "event": event,
                    "method": method,
                    "path": path,
                    "rule": rule,
                    "client": client,
                    **tally.times(),
                }
                for (event, method, path, rule, client), tally in self.refusals()
            ],
        }

    def _secret_dict(self, secret: Secret) -> dict[str, Any]:
        what = {
            name: getattr(secret, name) for name in ("fingerprint", "rule", "pattern", "severity")
        }
        sightings = [
            {
                "container_id": container,
                "container_name": self.name_of(container),
                "client": client,
                **tally.times(),
            }
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
        seen = {
            f"{s.fingerprint} {s.rule} {container} {client}"
            for s in self.secrets.values()
            for container, client in s.sightings
        }
        return {
            hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
            for text in seen | self.told | {" ".join(key) for key in self.denied}
        }

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
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
        else default
    )


def client_text(client: Any) -> str:
    """Who: certificate, address, or uid and command."""
    if not isinstance(client, dict):
        return "unknown"
    if "address" in client:
        certificate = text_of(client.get("certificate"))
        return text_of(client["address"]) + (f" ({certificate})" if certificate else "")
    if client.get("listener") == "scan":
        return f"dockeraudit scan (uid {text_of(client.get('uid'))})"
    return (
        f"uid {text_of(client.get('uid'))} ({text_of(client.get('command')) or 'unknown command'})"
    )
