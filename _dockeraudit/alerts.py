"""Alerts of new secrets: a command for each, and on a terminal a line for each.

    AuditLog ─▶ new in this container? ─▶ queue (256) ─▶ a thread: the command, one at a time
                                            │ full, or the command fails: counted, `alert_gap`
                                            └▶ a line on the terminal, at most one a second

Threads. `offer` is called under the log's lock and returns at once. Each class has one thread,
which alone runs the command or writes to the terminal. `_changed` guards what both touch.
"""

from __future__ import annotations

import math
import shutil
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from _dockeraudit.alertcommand import AlertCommand, make_descriptors_private
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.keyfile import beside
from _dockeraudit.logrecords import client_text, text_of
from _dockeraudit.records import Record, encode_within_limit, rfc3339, split_counts
from _dockeraudit.seensecrets import SecretPlace, SeenSecrets, read_seen, write_seen
from _dockeraudit.settings import Settings
from _dockeraudit.text import SEVERITY_RANK, counted, fit, printable

ALERTS_HELD = 256  # alerts that wait for the command; a person reads no more
ALERT_GAP_PERIOD = 60.0  # seconds between two `alert_gap` records
SAVE_PERIOD = 5.0  # seconds between two writes of what is known; a kill costs as much
DUE_PERIOD = 1.0  # seconds between looks at whether a record or the file is due
LINE_PERIOD = 1.0  # seconds between two lines on the terminal
ANSWER_TYPES = ("answer", "body")  # findings there are whole when they are written


class NewSecret(NamedTuple):
    """A finding, and what it is known by: its container and fingerprint."""

    place: SecretPlace
    timestamp: float
    finding: Mapping[str, Any]

    def text(self) -> str:
        """One sentence for people."""
        found = self.finding
        where = text_of(found.get("container_name")) or text_of(found.get("container_id"))[:12]
        spot = f"{text_of(found.get('stream_type'))}, line {text_of(found.get('line'))}"
        reader = client_text(found.get("client"))
        variable = f"(its variable {found['env']}) " if found.get("env") else ""
        sentence = (
            f"{found['severity']} secret {found['pattern']} {found['redacted_match']} {variable}"
            f"in {fit(where, 64) or 'an answer'} ({spot}), read by {reader} "
            f"in {text_of(found.get('endpoint'))}; fingerprint {found.get('fingerprint')}"
        )
        return printable(sentence)


def new_secret_of(record: Record, least: int) -> NewSecret | None:
    """The secret that a finding or its update is of, once that is known; None for what is no news.

    `least`: the rank of the least severity.
    """
    finding = fields_of(record)
    if record.about is not None:
        finding = updated_finding(fields_of(record.about), finding)
    if SEVERITY_RANK.get(finding["severity"], 0) < least or finding.get("placeholder"):
        return None
    unfinished = finding.get("partial") or finding.get("fingerprint") is None
    if unfinished and record.about is None and finding["stream_type"] not in ANSWER_TYPES:
        return None  # its update will say what it is
    known_by = finding.get("fingerprint") or f"rule {finding['rule']}"
    place = finding.get("container_id") or "-", known_by
    return NewSecret(place, record.timestamp, finding)


def updated_finding(before: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """A finding as its update says that it is."""
    gone = {"partial"} if update.get("complete") else set()
    if update["severity"] != before["severity"]:
        gone.add("placeholder")
    kept = {name: value for name, value in before.items() if name not in gone}
    said = {name: update[name] for name in update if name not in ("finding", "lines", "complete")}
    return {**kept, **said}


def fields_of(record: Record) -> dict[str, Any]:
    """A record's fields as they are now."""
    return dict(record.fields() if callable(record.fields) else record.fields)


class FairQueue:
    """Alerts that wait: the containers take turns, and none can keep another's out.

    Where there is no room, the container with the most alerts gives up its last one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: OrderedDict[str, deque[NewSecret]] = OrderedDict()  # by container's id
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, secret: NewSecret) -> NewSecret | None:
        """Queue an alert; returns the one that has no room, which may be the same."""
        self._waiting.setdefault(secret.place[0], deque()).append(secret)
        self._size += 1
        if self._size <= self._limit:
            return None
        longest = max(self._waiting, key=lambda container: len(self._waiting[container]))
        return self._taken(longest, self._waiting[longest].pop())

    def get(self) -> NewSecret:
        """The next alert, of the container whose turn it is; raises IndexError if there is none."""
        if not self._size:
            raise IndexError("no alert waits")
        container = next(iter(self._waiting))
        self._waiting.move_to_end(container)
        return self._taken(container, self._waiting[container].popleft())

    def _taken(self, container: str, secret: NewSecret) -> NewSecret:
        """This alert of a container waits no longer."""
        self._size -= 1
        if not self._waiting[container]:
            del self._waiting[container]
        return secret


def alert_command(settings: Settings, environ: Mapping[str, str]) -> AlertCommand | None:
    """The command of --on-finding; raises ConfigurationError where it cannot be run."""
    words = settings.on_finding
    if not words:
        return None
    if shutil.which(words[0]) is None:
        raise ConfigurationError(f"--on-finding: {words[0]!r} is not a program that can be run")
    make_descriptors_private()
    return AlertCommand(words, environ)


class Alerts:
    """Runs the command for each new secret, one after another, and remembers for which it has.

    A secret is known when its command has ended with 0. One whose alert was dropped is new again
    with its next finding.
    """

    def __init__(
        self,
        log: AuditLog,
        command: AlertCommand,
        least: int,
        path: str | None,
        diagnostics: Diagnostics,
        held: int = ALERTS_HELD,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`path`: of the file with what is known; None if that lives for this run only."""
        self._log = log
        self._command = command
        self._least = least
        self._path = path
        self._diagnostics = diagnostics
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._seen = SeenSecrets(self._known_before())
        self._queue = FairQueue(held)
        self._pending: set[SecretPlace] = set()  # in the queue, or with the command
        self._dropped: dict[str, Counter[tuple[str, str]]] = {}  # by reason; pattern, severity
        self._dropped_since = 0.0
        self._gap_at = -math.inf
        self._unsaved = False
        self._save_at = -math.inf
        self._deadline = math.inf  # of the stop
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)

    def start(self) -> None:
        """Take findings from here on."""
        self._log.add_finding_listener(self.offer)
        self._thread.start()

    def offer(self, record: Record) -> None:
        """A finding or its update: queue an alert if its secret is new. Never blocks."""
        secret = new_secret_of(record, self._least)
        if secret is None:
            return
        with self._changed:
            if secret.place in self._seen or secret.place in self._pending:
                return
            if self._deadline < math.inf:
                self._drop("stop", secret)
                return
            self._pending.add(secret.place)
            left_out = self._queue.put(secret)
            if left_out:
                self._pending.discard(left_out.place)
                self._drop("queue", left_out)
            self._changed.notify()

    def stop(self, deadline: float) -> None:
        """Give the alerts that wait until `deadline` (monotonic); then end the command."""
        self._log.release_all()
        with self._changed:
            self._deadline = deadline
            self._changed.notify()
        self._thread.join(max(0.0, deadline - self._monotonic()) + 1.0)

    def kill(self) -> None:
        """End the command at once."""
        self._command.kill()

    # -- the thread

    def _work(self) -> None:
        while True:
            secret = self._next()
            if secret is None:
                break
            try:
                self._deliver(secret)
            except Exception as error:
                self._undelivered("failed", f"a defect, {type(error).__name__}", secret)
            self._do_due()
        self._do_due(at_once=True)

    def _next(self) -> NewSecret | None:
        """Wait for the next alert, and do what is due meanwhile; None at the end."""
        while True:
            with self._changed:
                stopping = self._deadline < math.inf
                if stopping and self._monotonic() >= self._deadline:
                    while self._queue:
                        self._drop("stop", self._queue.get())
                if self._queue:
                    return self._queue.get()
                if stopping:
                    return None
                due = self._unsaved or self._dropped
                self._changed.wait(DUE_PERIOD if due else None)
            self._do_due()

    def _deliver(self, secret: NewSecret) -> None:
        """Run the command, and remember the secret or count what was dropped."""
        why, sentence = self._command.run(
            alert_line(secret, self._log.run), lambda: self._deadline - self._monotonic()
        )
        if why:
            self._undelivered(why, sentence, secret)
            return
        with self._changed:
            self._pending.discard(secret.place)
            self._seen.add(secret.place)
            self._unsaved = True

    def _undelivered(self, why: str, sentence: str, secret: NewSecret) -> None:
        """The command has not taken an alert: count it, and let its secret be new again."""
        with self._changed:
            self._pending.discard(secret.place)
            self._drop(why, secret)
        text = f"an alert was not delivered: {printable(sentence)}"
        self._diagnostics.seldom("warning", "alert command", text)

    def _drop(self, why: str, secret: NewSecret) -> None:
        """Count an alert that nobody gets; `_changed` is held."""
        if not self._dropped:
            self._dropped_since = self._log.clock()
        kind = text_of(secret.finding["pattern"]), text_of(secret.finding["severity"])
        self._dropped.setdefault(why, Counter())[kind] += 1

    def _do_due(self, at_once: bool = False) -> None:
        """Record what was dropped, and write what is known, each when it is due."""
        now = self._monotonic()
        if at_once or now >= self._gap_at:
            self._write_gap()
        if self._unsaved and (at_once or now >= self._save_at):
            self._save_at = now + SAVE_PERIOD
            self._save()

    def _write_gap(self) -> None:
        """Record what was dropped since that was last recorded."""
        with self._changed:
            dropped, self._dropped = self._dropped, {}
        if not dropped:
            return
        self._gap_at = self._monotonic() + ALERT_GAP_PERIOD
        since = rfc3339(self._dropped_since)
        for reason, counter in dropped.items():
            for counts, severities in split_counts(counter.items()):
                fields = {"reason": reason, "counts": counts, "severities": severities}
                self._log.accept("alert_gap", {**fields, "since": since})
        total = sum(sum(counter.values()) for counter in dropped.values())
        text = f"{counted(total, 'alert')} dropped; alert_gap records in the log count them"
        self._diagnostics.seldom("warning", "alerts dropped", text)

    # -- what is known

    def _known_before(self) -> list[SecretPlace]:
        """What earlier runs gave alerts of; nothing where that cannot be read, which is said."""
        if self._path is None:
            return []
        try:
            return read_seen(self._path, self._log.fingerprinter.key_id)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            text = f"{self._path} cannot be used: {reason}; each secret counts as new once more"
            self._diagnostics.say("warning", text)
            return []

    def _save(self) -> None:
        """Write what is known; where that fails, say so, and try again later."""
        if self._path is None:
            return
        with self._changed:
            places, self._unsaved = self._seen.places(), False
        try:
            write_seen(self._path, self._log.fingerprinter.key_id, places)
        except OSError as error:
            self._unsaved = True
            text = f"{self._path} cannot be written: {error.strerror}; a restart gives alerts again"
            self._diagnostics.seldom("warning", "alerts known", text)


def alert_line(secret: NewSecret, run: str) -> bytes:
    """The JSON line that the command reads."""
    head = {
        "timestamp": rfc3339(secret.timestamp),
        "event": "alert",
        "run": run,
        "host": socket.gethostname(),
    }
    return encode_within_limit(head, {"text": secret.text(), **secret.finding})


class TerminalNews:
    """Says each new HIGH secret of this run in a line; of several in a second the rest counted."""

    def __init__(self, log: AuditLog, diagnostics: Diagnostics) -> None:
        self._log = log
        self._diagnostics = diagnostics
        self._seen = SeenSecrets()
        self._changed = threading.Condition()
        self._next: NewSecret | None = None
        self._more = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="terminal-news", daemon=True)

    def start(self) -> None:
        """Take findings from here on."""
        self._log.add_finding_listener(self.offer)
        self._thread.start()

    def offer(self, record: Record) -> None:
        """A finding or its update: to be said, or counted, if its secret is new. Never blocks."""
        secret = new_secret_of(record, SEVERITY_RANK["HIGH"])
        if secret is None or secret.place in self._seen:
            return
        self._seen.add(secret.place)
        with self._changed:
            if self._next is None:
                self._next = secret
                self._changed.notify()
            else:
                self._more += 1

    def kill(self) -> None:
        """Nothing has to be ended."""

    def stop(self, deadline: float) -> None:
        """Say what waits, and end."""
        self._log.release_all()
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(max(0.1, deadline - time.monotonic()))

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._stopping:
                    self._changed.wait()
                secret, self._next = self._next, None
                more, self._more = self._more, 0
            if secret is None:
                return
            others = f" (and {counted(more, 'other')})" if more else ""
            self._diagnostics.say("info", f"new {secret.text()}{others}")
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, LINE_PERIOD)


def start_alerts(
    settings: Settings, log: AuditLog, command: AlertCommand | None, diagnostics: Diagnostics
) -> list[Alerts | TerminalNews]:
    """Start what the settings and the terminal ask for."""
    started: list[Alerts | TerminalNews] = []
    if command:
        least = SEVERITY_RANK[settings.alert_severity.upper()]
        path = None if settings.audit_log == "-" else beside(settings.audit_log, "alerts")
        if path is None:
            text = "a restart gives alerts again, since no file is beside standard output"
            diagnostics.say("notice", text)
        started.append(Alerts(log, command, least, path, diagnostics))
    if diagnostics.stream.isatty():
        started.append(TerminalNews(log, diagnostics))
    for one in started:
        one.start()
    return started
