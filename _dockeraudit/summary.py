"""What audit logs say, in bounded memory, however long they are.

    records ─▶ AuditSummary (distinct secrets, containers, readers, refusals, losses)

What belongs together is grouped by container id, since a long name may be shortened differently
from record to record; and by fingerprint, which is the same for the same credential wherever the
fingerprint key is. What a record says is hostile text: names, paths and commands are escaped by
whoever shows them. Performs no I/O.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from _dockeraudit.choice import EVERYTHING, Choice, LogNames
from _dockeraudit.logrecords import client_text, counts_of, number_of, text_of
from _dockeraudit.tallies import (
    NO_CONTAINER,
    OUTPUT_ENDPOINTS,
    Finding,
    LeakingContainer,
    Reader,
    Refusal,
    Secret,
    Sighted,
    Tally,
)
from _dockeraudit.text import SEVERITY_RANK

DISTINCT_LIMIT = 20_000  # secrets of each severity, containers, readers, refusals; the rest is one
SIGHTING_LIMIT = 1_000  # ways in which one secret was seen
SIGHTINGS_IN_ALL = 200_000  # and all secrets together; some 200 MB with everything else full
WAITING_LIMIT = 10_000  # findings that wait for an update, and as many that wait for their end
STREAM_LIMIT = 50_000  # streams whose end has not been read
HOUR_LIMIT = 20_000  # hours with findings: two years; more are not drawn
RECENT = 20  # latest findings kept for the live page
LOSS_KEYS_LIMIT = 100_000  # losses told apart for a state file; 1.7 MB
OTHERS = "(others)"
HOUR = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3])")
#: What a finding_update may say better than its finding.
UPDATED_FIELDS = (
    "pattern", "rule", "severity", "fingerprint", "redacted_match", "placeholder", "env", "masked",
)  # fmt: skip

#: What was not recorded or not scanned, as the texts for people say it.
LOSSES = {
    "records_lost": "records lost: the disk was full or failing, or the queue was",
    "findings_lost": "findings in those records",
    "bytes_not_scanned": "bytes passed unscanned: there were more than could be looked at",
    "scan_errors": "scans failed and skipped what they held",
    "findings_suppressed": "findings beyond their container's budget, counted only",
    "requests_suppressed": "requests beyond their client's budget, counted only",
    "alerts_dropped": "alerts of new secrets dropped: their command failed, or too many waited",
    "log_truncations": "times the log was truncated while it was written",
    "torn_lines": "times a killed run left a torn line",
    "bad_lines": "lines are no records; dockeraudit verify says which",
    "streams_not_audited": "streams relayed without looking (tunnels of BuildKit or HTTP/2)",
    "bytes_not_audited": "bytes in those",
    "files_unreadable": "files could not be read",
}
DRAWN_LOSSES = frozenset(("records_lost", "bytes_not_scanned", "scan_errors", "log_truncations"))


class OpenStream:
    """A stream whose end has not been read: whose it is, and what of it is known as unscanned."""

    __slots__ = ("reader", "unscanned")

    def __init__(self) -> None:
        self.reader: Reader | None = None  # None: it does not count, or it began too early
        self.unscanned = 0


class AuditSummary:
    """What audit logs say, in bounded memory. `add` each record, then `settle`."""

    def __init__(self, choice: Choice = EVERYTHING) -> None:
        self.choice = choice
        self.names = LogNames(choice)
        self.records = 0
        self.first = self.last = ""  # of the records that count
        self.latest = ""  # of all records
        self.findings: Counter[str] = Counter()  # by severity, repeats included
        self.placeholders = 0  # findings that are no secrets; in `findings` only if asked for
        self.known = 0  # findings of known secrets, which are left out of all else
        self.suppressed: Counter[str] = Counter()  # by severity
        self.secrets: dict[str, Secret] = {}
        self.containers: dict[str, LeakingContainer] = {}
        self.readers: dict[str, Reader] = {}
        self.refused: dict[Refusal, Tally] = {}
        self.losses: Counter[str] = Counter()
        self.hours: dict[str, Counter[str]] = {}
        self.loss_hours: Counter[str] = Counter()
        self.recent: deque[Finding] = deque(maxlen=RECENT)
        self._all_count = choice.of_everything
        self._loss_keys: set[str] = set()
        self._distinct: Counter[str] = Counter()
        self._sightings = 0
        self._waiting: OrderedDict[Any, Mapping[str, Any]] = OrderedDict()
        self._unfinished: OrderedDict[Any, Mapping[str, Any]] = OrderedDict()
        self._streams: dict[tuple[str, Any], OpenStream] = {}

    # -- records

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record."""
        timestamp, event = text_of(record.get("timestamp")), record["event"]
        if timestamp > self.latest:
            self.latest = timestamp
        self.names.note(record)
        if event == "finding":
            self._await_update(record)
        elif event == "finding_update":
            self._update(record)
        elif event in ("stream_open", "stream_close"):
            self._stream(record, timestamp, closes=event == "stream_close")
        elif self._in_time(timestamp):
            self._other(event, record, timestamp)

    def add_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Count some records."""
        for record in records:
            self.add(record)

    def settle(self) -> None:
        """All has been read: count the findings that wait, and the streams without an end."""
        for table in (self._waiting, self._unfinished):
            while table:
                self._finding(table.popitem(last=False)[1])
        for reader in self.readers.values():
            reader.unfinished = 0
        for stream in self._streams.values():
            if stream.reader:
                stream.reader.unfinished += 1

    def _in_time(self, timestamp: str) -> bool:
        """Count a record's time; False where it is too early to count."""
        if timestamp < self.choice.since:
            return False
        self.records += 1
        if timestamp > self.last:
            self.last = timestamp
        if timestamp < self.first or not self.first:
            self.first = timestamp
        return True

    # -- findings

    def _await_update(self, record: Mapping[str, Any]) -> None:
        """Hold a finding back: its update, if there is one, says better what it is.

        Findings whose end had not come wait in a table of their own, so that a flood of others
        does not push them out.
        """
        if text_of(record.get("timestamp")) < self.choice.since:
            return
        unfinished = record.get("partial") or record.get("fingerprint") is None
        table = self._unfinished if unfinished else self._waiting
        if len(table) >= WAITING_LIMIT:
            self._finding(table.popitem(last=False)[1])
        seq = record.get("seq")
        key = (text_of(record.get("run")), seq if isinstance(seq, int) else id(record))
        if key in table:
            self._finding(table.pop(key))
        table[key] = record

    def _update(self, update: Mapping[str, Any]) -> None:
        """Count the finding that an update is of, as the update says it."""
        key = (text_of(update.get("run")), update.get("finding"))
        finding = self._unfinished.pop(key, None) or self._waiting.pop(key, None)
        if finding is None:
            return
        better = {name: update[name] for name in UPDATED_FIELDS if update.get(name) is not None}
        if not update.get("complete"):  # nobody will see its end
            better.pop("redacted_match", None)
            better["fingerprint"] = update.get("fingerprint")
        self._finding({**finding, **better})

    def _finding(self, record: Mapping[str, Any]) -> None:
        """Count a finding, if it is one that was chosen."""
        count, timestamp = number_of(record.get("count"), 1), text_of(record.get("timestamp"))
        if not self._all_count and not self.choice.takes_finding(record):
            return
        if self.choice.leaves_out(record):
            self.known += count
            return
        if record.get("placeholder"):
            self.placeholders += count
            if not self.choice.placeholders:
                return
        self._in_time(timestamp)
        secret, container = self._secret(record), self._container(record)
        reader = self._reader(client_text(record.get("client")))
        endpoint = text_of(record.get("endpoint"))
        seen = Sighted(
            container.container_id,
            reader.client,
            "output" if endpoint in OUTPUT_ENDPOINTS else endpoint,
            record.get("masked") is True,
        )
        for tally in (secret, container, reader, self._sighting(secret, seen)):
            tally.add(count, timestamp)
        container.patterns[secret.pattern] += count
        container.severities[secret.severity] += count
        self.findings[secret.severity] += count
        self._count_hour(timestamp[:13], secret.severity, count)
        place = f"{text_of(record.get('stream_type'))}, line {number_of(record.get('line')):,}"
        place = place if seen.where == "output" else seen.where
        self.recent.append(Finding(timestamp, secret, container, reader.client, place))

    def _secret(self, record: Mapping[str, Any]) -> Secret:
        """The secret that a finding is of; beyond the limit one for all others of its severity."""
        fingerprint, rule = text_of(record.get("fingerprint")), text_of(record.get("rule"))
        key = f"{fingerprint} {rule}"
        secret = self.secrets.get(key)
        if secret is not None:
            return secret
        severity = text_of(record.get("severity"))
        kind = f"secrets {severity if severity in SEVERITY_RANK else OTHERS}"
        if self._distinct[kind] >= DISTINCT_LIMIT:
            key = f"{OTHERS} {kind}"
            new = Secret(OTHERS, OTHERS, OTHERS, severity, "")
        else:
            pattern, redacted = (
                text_of(record.get("pattern")),
                text_of(record.get("redacted_match")),
            )
            new = Secret(fingerprint, rule, pattern, severity, redacted)
            new.placeholder = bool(record.get("placeholder"))
            new.env = text_of(record.get("env"))
        self._distinct[kind] += 1
        return self.secrets.setdefault(key, new)

    def _container(self, record: Mapping[str, Any]) -> LeakingContainer:
        """The container that a finding is of; the longest name that was recorded is its name."""
        container_id = text_of(record.get("container_id")) or NO_CONTAINER
        if container_id not in self.containers and len(self.containers) >= DISTINCT_LIMIT:
            container_id = OTHERS
        container = self.containers.get(container_id)
        if container is None:
            container = self.containers[container_id] = LeakingContainer(container_id)
        name = text_of(record.get("container_name"))
        if len(name) > len(container.name):
            container.name = name
        return container

    def _sighting(self, secret: Secret, seen: Sighted) -> Tally:
        """The count of one way in which a secret was seen; beyond the limits, of all others."""
        tally = secret.sightings.get(seen)
        if tally is None:
            if len(secret.sightings) < SIGHTING_LIMIT and self._sightings < SIGHTINGS_IN_ALL:
                self._sightings += 1
            else:
                seen = Sighted(OTHERS, OTHERS, OTHERS)
            tally = secret.sightings.setdefault(seen, Tally())
        return tally

    def _count_hour(self, hour: str, severity: str, count: int) -> None:
        """Count findings in their hour, if it is one and there is room for one more."""
        counts = self.hours.get(hour)
        if counts is None:
            if len(self.hours) >= HOUR_LIMIT or not HOUR.fullmatch(hour):
                return
            counts = self.hours[hour] = Counter()
        counts[severity] += count

    def _reader(self, client: str) -> Reader:
        if client not in self.readers and len(self.readers) >= DISTINCT_LIMIT:
            client = OTHERS
        if client not in self.readers:
            self.readers[client] = Reader(client)
        return self.readers[client]

    # -- streams

    def _stream(self, record: Mapping[str, Any], timestamp: str, closes: bool) -> None:
        """Count a stream's beginning or end: who reads what, and how much."""
        key = stream_key(record)
        stream = (self._streams.pop(key, None) if closes else None) or OpenStream()
        if not closes and len(self._streams) < STREAM_LIMIT:
            self._streams[key] = stream
        if not self.choice.takes_container(record) or not self._in_time(timestamp):
            return
        if stream.reader is None:
            stream.reader = self._reader(client_text(record.get("client")))
            stream.reader.streams += 1
        stream.reader.add(0, timestamp)
        if len(stream.reader.containers) < SIGHTING_LIMIT:
            stream.reader.containers.add(text_of(record.get("container_id")))
        size = number_of(record.get("bytes"))
        if closes:
            stream.reader.bytes += size
            unscanned = number_of(record.get("unscanned")) - stream.unscanned
            self._lose("bytes_not_scanned", unscanned, timestamp)
        if record.get("audited") is False:
            what = "bytes_not_audited" if closes else "streams_not_audited"
            self._lose(what, size if closes else 1, timestamp)

    # -- refusals and losses

    def _other(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        """Count a refusal, a loss, or the end of a run."""
        if event in ("denied", "would_deny"):
            self._refuse(event, record, timestamp)
        elif event == "gap":
            since = text_of(record.get("since"))
            self._lose("records_lost", number_of(record.get("records")), timestamp, since)
            self._lose("findings_lost", number_of(record.get("matches")), timestamp)
        elif event in ("scan_gap", "scan_error", "suppressed"):
            self._stream_loss(event, record, timestamp)
        elif event == "alert_gap":
            self._lose("alerts_dropped", sum(counts_of(record.get("counts")).values()), timestamp)
        elif event == "truncated":
            self._lose("log_truncations", 1, timestamp)
        elif event == "recovered":
            self._lose("torn_lines", 1, timestamp)
        elif event == "stop":
            for key in [key for key in self._streams if key[0] == record.get("run")]:
                del self._streams[key]

    def _stream_loss(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        """Count what a stream lost, unless it is known to be another container's."""
        stream = self._streams.get(stream_key(record))
        if self.choice.container and stream and stream.reader is None:
            return
        if event == "suppressed":
            self._suppress(record, timestamp)
        elif event == "scan_error":
            self._lose("scan_errors", 1, timestamp)
        else:
            size = number_of(record.get("bytes"))
            if stream:
                stream.unscanned += size
            self._lose("bytes_not_scanned", size, timestamp, text_of(record.get("since")))

    def _suppress(self, record: Mapping[str, Any], timestamp: str) -> None:
        """Count what found no room in a budget: a stream's findings, or a client's requests."""
        of_findings = record.get("client") is None
        what = "findings_suppressed" if of_findings else "requests_suppressed"
        self._lose(what, sum(counts_of(record.get("counts")).values()), timestamp)
        if of_findings:
            self.suppressed.update(counts_of(record.get("severities")))

    def _refuse(self, event: str, record: Mapping[str, Any], timestamp: str) -> None:
        path = text_of(record.get("path"))
        if self.choice.container and self.choice.container not in path.split("/"):
            return
        method, rule = text_of(record.get("method")), text_of(record.get("rule"))
        refusal = Refusal(event, method, path, rule, client_text(record.get("client")))
        if refusal not in self.refused and len(self.refused) >= DISTINCT_LIMIT:
            refusal = Refusal(event, "", OTHERS, "", "")
        tally = self.refused.setdefault(refusal, Tally())
        tally.add(number_of(record.get("count"), 1), timestamp)

    def _lose(self, what: str, count: int, timestamp: str, since: str = "") -> None:
        """Count what was not recorded or not scanned, from `since` on where that is known."""
        if count <= 0:
            return
        self.losses[what] += count
        if len(self._loss_keys) < LOSS_KEYS_LIMIT:
            self._loss_keys.add(f"{what} {timestamp}")
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
                secret.placeholder,
                -secret.count,
                secret.fingerprint,
            ),
        )

    def worst_containers(self) -> list[LeakingContainer]:
        """The containers that leak, the one with the gravest and most findings first."""
        return sorted(
            self.containers.values(),
            key=lambda container: (
                [-container.severities[name] for name in SEVERITY_RANK],
                -container.count,
                container.container_id,
            ),
        )

    def all_readers(self) -> list[Reader]:
        """The clients that read, the one that read most first.

        Where only some findings count, those that saw one of them.
        """
        readers = [
            reader
            for reader in self.readers.values()
            if reader.count or not self.choice.of_findings
        ]
        return sorted(readers, key=lambda reader: (-reader.bytes, -reader.count, reader.client))

    def refusals(self, only_learned: bool = False) -> list[tuple[Refusal, Tally]]:
        """The requests that were refused, or would have been; the most frequent first."""
        chosen = [item for item in self.refused.items() if item[0].only_learned == only_learned]
        return sorted(chosen, key=lambda item: (-item[1].count, item[0]))

    def grave(self, least: int) -> bool:
        """Whether a finding has this rank or a higher one; placeholders never count.

        A suppressed one counts unless only one rule or secret was asked for.
        """
        ranks = {secret.severity for secret in self.secrets.values() if not secret.placeholder}
        if not self.choice.pattern and not self.choice.secret:
            ranks |= set(self.suppressed)
        return any(SEVERITY_RANK.get(severity, 0) >= least for severity in ranks)

    def news(self) -> set[str]:
        """Digests of what there is to tell: secrets seen by a reader, refusals, losses."""
        seen = {
            secret_news(secret, seen)
            for secret in self.secrets.values()
            for seen in secret.sightings
        }
        refused = {news_digest(" ".join(refusal)) for refusal in self.refused}
        return seen | refused | {news_digest(key) for key in self._loss_keys}

    def leaking(self) -> int:
        """How many containers have findings."""
        return len(self.containers) - (NO_CONTAINER in self.containers)

    def label_of(self, container_id: str) -> str:
        """What people call a container with findings."""
        container = self.containers.get(container_id)
        return container.label if container else container_id


def news_digest(text: str) -> str:
    """A digest of what was told, for a state file that holds no names."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def secret_news(secret: Secret, seen: Sighted) -> str:
    """The digest of a secret in a container seen by a reader."""
    how = "" if seen.where == "output" else f" {seen.where}"
    how += " masked" if seen.masked else ""
    return news_digest(f"{secret.fingerprint} {secret.rule} {seen.container} {seen.client}{how}")


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
