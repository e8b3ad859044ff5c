"""The audit log: takes records and returns at once; a worker writes them; what is lost is counted.

    record ─▶ queue (10,000) ─▶ worker: a batch gets seq and prev ─▶ AuditFile: one write
                 │ full: a marker counts what is lost

Write, clock, stat and sync are passed in, so that every fault can be tested.
"""

from __future__ import annotations

import errno as errno_codes
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, NamedTuple

from _dockeraudit.answerrecords import AnswerPlaces
from _dockeraudit.budgets import ClientBudgets, FindingBudgets
from _dockeraudit.errors import EXIT_LOST, AuditLogError
from _dockeraudit.failures import FailureListener
from _dockeraudit.forks import OWN_OF_THIS_PROCESS
from _dockeraudit.logfile import AuditFile, AuditPipe, FileEvent
from _dockeraudit.logsync import Syncer
from _dockeraudit.records import (
    MAX_LINE,
    Fields,
    Fingerprinter,
    Overflow,
    Record,
    encode_record,
    line_hash,
)
from _dockeraudit.streamrecords import REPEAT_PERIOD, FoundRule, KnownFindings, StreamRecords
from _dockeraudit.subscribers import Subscribers

QUEUE_LIMIT = 10_000  # records held while the disk does not take them; about 10 MB
#: Of that limit, what findings of a severity, clients' records, and records waiting for a name may
#: fill while the disk is well: a record beyond is suppressed, or does not wait, before one is lost.
QUEUE_SHARES = {"LOW": 0.5, "MEDIUM": 0.65, "HIGH": 0.8}
CLIENT_SHARE = 0.9
WAITING_SHARE = 0.5
BATCH_RECORDS = 512  # records in the worker's hands; fewer of them fill a write
NAME_WAIT = 1.0  # seconds that a stream's records wait for its container's name
REPEATS_A_TICK = 1000  # repeats written at once; more would keep the lock for over 10 ms
STATS_PERIOD = 600.0  # seconds between two `stats`
RETRY_PERIOD = 1.0  # seconds between attempts to write while that fails
LOOK_PERIOD = 1.0  # seconds between looks at the path while nothing is written
LOST_PERIOD = 60.0  # seconds between two lines on standard error that say how much was lost
STUCK_WRITE = 1.0  # seconds after which an unfinished write counts as a failure
TICK = 0.1  # seconds between looks at everything that is a matter of time
#: What a record's fields can raise if they do not fit into JSON: a defect, and the record is lost.
ENCODING_ERRORS = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
COUNTERS = ("written", "lost", "streams", "bytes", "frames", "unscanned", "queued_max")
#: fdatasync(2) leaves out a file's times, which nobody needs; macOS and Windows have only fsync.
FDATASYNC: Callable[[int], Any] = getattr(os, "fdatasync", os.fsync)

# Threads. `lock` guards the queue, the counts, the budgets and the streams; it is never held over a
# system call. The worker alone touches the file and gives seq and prev. The ticker does what is a
# matter of time. The syncer has a thread of its own, so that a slow fdatasync delays neither.
# Any thread may `accept`.


class Line(NamedTuple):
    """A record and its line; for a record that cannot be encoded, the gap that counts it."""

    record: Record
    text: bytes


class AuditLog:
    """The audit log: `accept` takes records and returns at once, a worker writes them.

    State for failure: ok → degraded (records are held, the write is tried again each second with
    the file reopened) → ok.
    """

    def __init__(
        self,
        path: str,
        key: bytes,
        *,
        run: str | None = None,
        fsync: str = "interval",
        diagnose: Callable[[str, str], None] = lambda level, text: None,
        queue_limit: int = QUEUE_LIMIT,
        budgeted: bool = True,
        key_path: str | None = None,
        allow: Iterable[str] = (),
        write: Callable[[int, bytes], int] = os.write,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        stat: Callable[[str], os.stat_result] = os.stat,
        fdatasync: Callable[[int], Any] = FDATASYNC,
    ) -> None:
        self.run = run or os.urandom(4).hex()
        self.clock, self.monotonic = clock, monotonic
        self.fingerprinter = Fingerprinter(key)
        self.lock = threading.Lock()
        self.held = 0  # records in the queue, in the worker's hands, and waiting for names
        self.streams: set[StreamRecords] = set()
        self.known = KnownFindings()
        self.answers = AnswerPlaces(self)
        self.totals: Counter[str] = Counter()
        self._syncer = Syncer(fsync, fdatasync, monotonic, self._say)
        self._file: AuditFile | AuditPipe = AuditPipe(write)
        if path != "-":
            leave = self._syncer.leave
            self._file = AuditFile(path, key_path, key, write, stat, monotonic, leave)
        self._diagnose = diagnose
        self._queue_limit = queue_limit
        self._allow = frozenset(allow)
        self._budgeted = budgeted
        self._budgets = FindingBudgets(monotonic())
        self._clients = ClientBudgets()
        self._findings: Counter[tuple[str, str]] = Counter()  # by pattern and severity
        self._endpoints: Counter[tuple[str, str]] = Counter()  # by endpoint and severity
        self._numbers = 0
        self._forked = False
        self._make_worker()
        self._make_ticker()

    def _make_worker(self) -> None:
        """The worker's state, and what others tell it by."""
        self._queue: deque[Record] = deque()
        self._filled = threading.Condition(self.lock)
        self._taken: deque[Record] = deque()  # in the worker's hands, not written yet
        self._own: deque[Record] = deque()  # the worker's own records, which go first
        self._seq = 0
        self._error: OSError | None = None  # why the last write failed, while degraded
        self._write_began: float | None = None
        self._before = 0  # records written before the one that is being encoded
        self._lost_unsaid = 0  # lost records that standard error has not been told of
        self._say_lost_at = -math.inf
        self._closing = False
        self._stop_reason = ""
        self._stopped = False  # the `stop` has left the queue: nothing can be written behind it
        self._give_up = False
        self._look = False  # the path is to be looked at without a record
        self._wake = threading.Event()
        self._worker: Future[None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit-log")

    def _make_ticker(self) -> None:
        """The ticker's state."""
        self._subscribers = Subscribers()
        self._opened = self.monotonic()
        self._stats_at = self._opened + STATS_PERIOD
        self._look_at = self._opened + LOOK_PERIOD
        self._defects: set[str] = set()  # what raised in the ticker when it was last done
        self._ticker = threading.Thread(target=self._tick_on, name="audit-tick", daemon=True)

    # -- for everybody

    def open(self, **start_fields: Any) -> None:
        """Open the file, start the threads, and record the `start`. Raises AuditLogError."""
        left_over = self._file.open()
        self.accept("start", {**start_fields, "key": self.fingerprinter.key_id})
        for event, fields in left_over:
            self.accept(event, fields)
        OWN_OF_THIS_PROCESS.add(self)
        try:
            self._ticker.start()
            self._syncer.start()
            self._worker = self._executor.submit(self._work)
        except RuntimeError as error:
            self.close("no thread", 1.0)
            self._file.close()
            raise AuditLogError(f"the audit log cannot be written: {error}") from None

    def accept(self, event: str, fields: Fields, matches: int = 0) -> Record:
        """Stamp a record and queue it; where the queue is full it is counted as lost instead.

        Never blocks, and makes no system call.
        """
        with self.lock:
            record = Record(self.clock(), event, fields, matches)
            self.enqueue(record)
        return record

    def accept_for(self, client: Mapping[str, Any], event: str, fields: Mapping[str, Any]) -> None:
        """Accept a record that a client caused, or count it where the client's budget is spent.

        A client is its uid or its address, whatever process of it asks.
        """
        with self.lock:
            now = self.monotonic()
            if self._has_share(CLIENT_SHARE) and self._clients.take(client, now):
                self.enqueue(Record(self.clock(), event, fields))
            else:
                self._clients.suppress(client, event, int(fields.get("count", 1)), now)

    def open_stream(
        self,
        endpoint: str,
        container_id: str | None,
        client: Mapping[str, Any],
        follow: bool,
        audited: bool,
        kind: str | None = None,
        mask: str | None = None,
    ) -> StreamRecords:
        """A stream has begun: its `stream_open`, and the object for its further records.

        `mask`: the severity from which on its secrets are masked.
        """
        fields = {
            "endpoint": endpoint,
            "container_id": container_id,
            "client": client,
            "follow": follow,
            "audited": audited,
            "kind": kind,
            "mask": mask,
        }
        with self.lock:
            self._numbers += 1
            stream = StreamRecords(self, self._numbers, fields)
            self.streams.add(stream)
            self.totals["streams"] += 1
            stream.open()
        return stream

    def reopen(self) -> None:
        """SIGHUP: open the path anew, now if nothing is being written."""
        self._file.reopen()
        with self.lock:
            self._look = True
            self._filled.notify()
        self._wake.set()

    def failed(self) -> bool:
        """Whether what is accepted now may go unrecorded.

        So it is after a failed write or sync, during a write that takes over a second, and while
        the queue is full.
        """
        began = self._write_began
        stuck = began is not None and self.monotonic() - began > STUCK_WRITE
        dead = self._worker is not None and self._worker.done()
        return bool(self._error or self._syncer.failed or stuck or dead or not self._has_share(1.0))

    def allow(self, fingerprints: Iterable[str]) -> None:
        """From here on these secrets are harmless: FINGERPRINT or CONTAINER:FINGERPRINT."""
        self._allow = frozenset(fingerprints)

    def add_failure_listener(self, listener: Callable[[bool], Any]) -> None:
        """Call `listener(failed)` whenever `failed()` changes: from the ticker, no lock held.

        A call that raises is made again with the next tick.
        """
        self._subscribers.of_failures.append(FailureListener(listener))

    def add_finding_listener(self, listener: Callable[[Record], Any]) -> None:
        """Call `listener(record)` for each finding and update, also one that will be lost.

        The lock is held, and the container is named: the listener returns at once.
        """
        self._subscribers.of_findings.append(listener)

    def release_all(self) -> None:
        """Let nothing wait for a container's name any longer."""
        with self.lock:
            for stream in list(self.streams):
                self.release(stream)

    def counters(self) -> dict[str, Any]:
        """Totals of this run, what is held now, whether it fails, and the findings by rule."""
        with self.lock:
            counts: dict[str, Any] = {name: self.totals[name] for name in COUNTERS}
            counts.update(queued=self.held, degraded=self.failed())
            counts.update(findings=dict(self._findings), endpoints=dict(self._endpoints))
        return counts

    def close(self, reason: str, timeout: float) -> int:
        """Write what is held, then `stop`.

        Returns 0, or EXIT_LOST if records were lost or could not be written in time.
        """
        if self._forked:
            return 0
        deadline = time.monotonic() + timeout
        with self.lock:
            self._closing, self._stop_reason = True, reason
            self._filled.notify()
        self._wake.set()
        try:
            if self._worker:
                self._worker.result(timeout)
            self._syncer.wait(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            self._give_up = True
            self._wake.set()
            held = f"{self.held} records and the stop may be lost"
            self._say("warning", f"could not be finished in time: {held}")
            return EXIT_LOST
        finally:
            OWN_OF_THIS_PROCESS.discard(self)
            self._executor.shutdown(wait=False)
            self._syncer.stop()
        if self._ticker.is_alive():
            self._ticker.join(max(0.0, deadline - time.monotonic()) + TICK)
        return EXIT_LOST if self.totals["lost"] else 0

    def forked(self) -> None:
        """In a child process: this log is the parent's, and nothing is written from here."""
        self._forked = True
        self.lock = threading.Lock()
        self._filled = threading.Condition(self.lock)
        self._file.close()

    def _say(self, level: str, text: str) -> None:
        """A line for people about the log's file."""
        self._diagnose(level, f"the audit log {self._file.path} {text}")

    # -- for StreamRecords (its StreamLog), under the lock

    def enqueue(self, record: Record) -> None:
        """Queue a stamped record, or count it where there is no room."""
        if self._forked:
            return
        if self._stopped:
            self.totals["lost"] += 1
            return
        self._subscribers.tell_finding(record)
        if self.held < self._queue_limit:
            self.held += 1
            self.totals["queued_max"] = max(self.totals["queued_max"], self.held)
            self._queue.append(record)
        else:
            last = self._queue[-1] if self._queue else None
            if not isinstance(last, Overflow):
                last = Overflow(record.timestamp, self._error)
                self._queue.append(last)
            last.add(record)
        self._filled.notify()

    def hold(self, waiting: list[Record], record: Record) -> bool:
        """Put a record to those that wait for a name; False if there is no room for that."""
        if self.held >= self._queue_limit * WAITING_SHARE:
            return False
        self.held += 1
        self.totals["queued_max"] = max(self.totals["queued_max"], self.held)
        waiting.append(record)
        return True

    def release(self, stream: StreamRecords) -> None:
        """Queue what waited for the stream's name, which may have come after the stream's end."""
        for record in stream.waiting_records():
            self.held -= 1
            if not stream.takes_back(record):
                self.enqueue(record)
        if stream.closed:
            self.discard(stream)

    def discard(self, stream: StreamRecords) -> None:
        """The stream has ended and nothing of it waits."""
        self.streams.discard(stream)

    def allows(self, secret: bytes, *names: str | None) -> bool:
        """Whether a secret is known as harmless, everywhere or in a container called so."""
        fingerprint = self.fingerprinter.of(secret)
        return bool(self._allow & {fingerprint, *(f"{name}:{fingerprint}" for name in names)})

    def is_allowed(self, fingerprint: str, stream: StreamRecords) -> bool:
        """Whether this secret is known as harmless, everywhere or in this container."""
        if not self._allow:
            return False
        ids = (stream.container_id, stream.container_name)
        return bool(self._allow & {fingerprint, *(f"{name}:{fingerprint}" for name in ids)})

    def count_finding(self, stream: StreamRecords, rule: FoundRule, change: int) -> None:
        """Count matches, or take one back (-1), for the metrics."""
        self._findings[rule.name, rule.severity] += change
        self._endpoints[stream.endpoint, rule.severity] += change
        self.totals["findings"] += change

    def admits(self, stream: StreamRecords, severity: str, records: int) -> bool:
        """Take room in the budgets for so many records of the stream's container."""
        if not self._budgeted:
            return True
        if not self._has_share(QUEUE_SHARES[severity]):
            return False
        if not self._budgets.take(stream.container_id, severity, records, self.monotonic()):
            return False
        stream.charged[severity] += records
        return True

    def charge(self, stream: StreamRecords, severity: str) -> None:
        """Charge the budgets with a record that is written whatever is left."""
        self._budgets.charge(stream.container_id, severity, 1, self.monotonic())
        self._budgets.charge_total(1)
        stream.charged[severity] += 1

    def move_charges(self, stream: StreamRecords, container_id: str) -> None:
        """Charge a container with what was charged to the name that it was asked for by."""
        for severity, records in stream.charged.items():
            self._budgets.charge(container_id, severity, records, self.monotonic())

    def _has_share(self, share: float) -> bool:
        """Whether less than this share of the queue is filled; all of it while the disk fails."""
        return self.held < self._queue_limit * (1.0 if self._error else share)

    # -- the worker

    def _work(self) -> None:
        """Write the queue until the log closes. A record counts as held until it is written."""
        try:
            while not self._stopped or self._taken:
                self._take()
                if not self._deliver():
                    return
        except Exception as error:
            self._say("error", f"ends here, by a defect: {type(error).__name__}")
            raise
        finally:
            self._syncer.sync_now(self._file)
            self._file.close()
            self._say_lost(at_once=True)

    def _take(self) -> None:
        """Wait for what is to be written: records, a look at the path, or at last the `stop`."""
        with self.lock:
            while True:
                if self._closing and not self._queue and not self._taken:
                    self._flush()
                while self._queue and len(self._taken) < BATCH_RECORDS:
                    self._taken.append(self._queue.popleft())
                if self._taken or self._own:
                    return
                if self._closing:
                    self._stopped = True
                    self.held += 1
                    self._taken.append(Record(self.clock(), "stop", self._stop_fields))
                    return
                if self._look:
                    self._look = False
                    return
                self._filled.wait()

    def _flush(self) -> None:
        """The log closes: queue all that waits for a name or for its minute."""
        for stream in list(self.streams):
            self.release(stream)
            stream.flush()
        self.answers.flush()
        self._write_suppressed(self.monotonic())

    def _deliver(self) -> bool:
        """Write one batch, however long that takes; False if the log was told to give up."""
        while True:
            self._write_began = self.monotonic()
            error = self._write_batch()
            self._write_began = None
            if not error:
                self._recovered()
                return True
            self._degraded(error)
            if self._give_up or not self._retry_later():
                return False

    def _write_batch(self) -> OSError | None:
        """Write as many records as one write takes; returns what went wrong.

        Records that are in the file then are written, whatever went wrong behind them.
        """
        try:
            for event in self._file.notice():
                self._happened(event)
            lines = self._encode_batch()
        except OSError as error:
            return error
        except MemoryError:
            return OSError(errno_codes.ENOMEM, os.strerror(errno_codes.ENOMEM))
        count, failure = self._file.append([line.text for line in lines])
        if count:
            self._seq = lines[count - 1].record.seq or 0
            self._syncer.written(self._file)
            self._count_written(lines[:count])
        return failure

    def _happened(self, event: FileEvent) -> None:
        """Record what others did to the file, and say what nobody should do unseen."""
        name, fields = event
        self._own.append(Record(self.clock(), name, fields))
        if name == "recreated":
            self._say("warning", "was deleted; it has been made anew")
        elif name == "truncated":
            self._say("warning", f"was truncated at {fields['size_before']} bytes")

    def _encode_batch(self) -> list[Line]:
        """The lines of one write: the worker's own records first, in the order of their seq."""
        lines: list[Line] = []
        seq, prev = self._seq, self._file.last_hash
        room = self._file.batch_bytes
        for record in (*self._own, *self._taken):
            if room < MAX_LINE:
                break
            self._before = self.totals["written"] + len(lines)
            line = self._encode(record, seq + 1, prev)
            seq, prev = line.record.seq or 0, line_hash(line.text[:-1])
            room -= len(line.text)
            lines.append(line)
        return lines

    def _encode(self, record: Record, seq: int, prev: str) -> Line:
        """Give a record its seq and make its line; a gap leaves out the seq of what it counts."""
        if isinstance(record, Overflow):
            seq += record.records
            record.name_seqs(seq)
        try:
            text = encode_record(record, self.run, seq, prev)
        except ENCODING_ERRORS as error:
            what = f"a {record.event} record cannot be written, by a defect: {type(error).__name__}"
            self._diagnose("error", f"{what}; it is counted as lost")
            gap = Overflow(record.timestamp, None)
            gap.add(record)
            return self._encode(gap, seq, prev)
        record.seq = seq
        return Line(record, text)

    def _count_written(self, lines: Sequence[Line]) -> None:
        """These lines are in the file: drop their records, count them and what gaps count."""
        lost = 0
        with self.lock:
            for line in lines:
                if self._own:
                    self._own.popleft()
                elif not isinstance(self._taken.popleft(), Overflow):
                    self.held -= 1
                if isinstance(line.record, Overflow):
                    lost += line.record.records
            self.totals["written"] += len(lines)
            self.totals["lost"] += lost
            self._lost_unsaid += lost
        for record, text in lines:
            if record.event in ("stats", "stop"):
                name = f"{record.event} is seq {record.seq} of run {self.run}"
                hashed = line_hash(text[:-1])
                said = f"audit log {self._file.path}: {name}, its line's hash {hashed}"
                self._diagnose("info", said)
        self._say_lost()

    def _stop_fields(self) -> dict[str, Any]:
        return {
            "written": self._before + 1,
            "lost": self.totals["lost"],
            "reason": self._stop_reason,
            "seconds": round(self.monotonic() - self._opened, 6),
        }

    def _stats_fields(self) -> dict[str, Any]:
        names = ("lost", "streams", "bytes", "frames", "findings", "queued_max", "unscanned")
        return {"written": self._before, **{name: self.totals[name] for name in names}}

    def _degraded(self, error: OSError) -> None:
        """Say so once, and hold what comes."""
        if self._error is None:
            held = f"up to {self._queue_limit} records are held, and it is tried again each second"
            self._say("warning", f"cannot be written: {error.strerror}; {held}")
        self._error = error
        self._file.reopen()

    def _recovered(self) -> None:
        if self._error is not None:
            self._error = None
            self._say("warning", "can be written again")

    def _retry_later(self) -> bool:
        """Wait for the next attempt; False if the log was told to give up.

        A closing log makes it at once.
        """
        deadline = time.monotonic() + RETRY_PERIOD
        while time.monotonic() < deadline and not self._give_up:
            self._wake.wait(deadline - time.monotonic())
            if self._wake.is_set() and not self._closing:
                self._wake.clear()
                break
            if self._closing:
                time.sleep(TICK)
                break
        return not self._give_up

    def _say_lost(self, at_once: bool = False) -> None:
        """Say how many records were lost since that was said last, once in LOST_PERIOD."""
        with self.lock:
            now, lost = self.monotonic(), self._lost_unsaid
            if not lost or (not at_once and now < self._say_lost_at):
                return
            self._lost_unsaid, self._say_lost_at = 0, now + LOST_PERIOD
        self._diagnose("warning", f"{lost} audit records were lost; gaps in the log stand for them")

    # -- matters of time

    def _tick_on(self) -> None:
        """The ticker's thread. What raises in it is said, and tried again with the next tick."""
        while not self._give_up:
            if self._closing and (self._worker is None or self._worker.done()):
                return
            self._guarded("the audit log's tick", self.tick)
            self._guarded("the audit log's sync", lambda: self._syncer.tick(self._file))
            self._guarded("a listener to findings", self._subscribers.raise_defect)
            for number, listener in enumerate(self._subscribers.of_failures, 1):
                self._guarded(f"failure listener {number}", listener.tell, self.failed())
            time.sleep(TICK)

    def _guarded(self, what: str, step: Callable[..., None], *arguments: Any) -> None:
        try:
            step(*arguments)
            self._defects.discard(what)
        except Exception as error:
            if what not in self._defects:
                self._defects.add(what)
                raised = f"{what} raised {type(error).__name__}"
                self._diagnose("error", f"{raised}, by a defect; it is tried again")

    def tick(self) -> None:
        """Do what is due: names that do not come, repeats, suppressed counts, a look, stats."""
        now = self.monotonic()
        with self.lock:
            if self._closing:
                return
            for stream in list(self.streams):
                if now - stream.opened >= NAME_WAIT:
                    self.release(stream)
                stream.tick(now)
            for known in self.known.due(now, REPEATS_A_TICK):
                known.stream.write_pending(known)
            self._write_suppressed(now - REPEAT_PERIOD)
            if now >= self._look_at:
                self._look, self._look_at = True, now + LOOK_PERIOD
                self._filled.notify()
            due = now >= self._stats_at
            if due:
                self._stats_at = now + STATS_PERIOD
        if due:
            self.accept("stats", self._stats_fields)
        self._say_lost()

    def _write_suppressed(self, since: float) -> None:
        """Write what clients' budgets have left out since this moment or for longer."""
        for client, counts in self._clients.drain(since):
            self.enqueue(Record(self.clock(), "suppressed", {"client": client, "counts": counts}))
