"""The audit log: takes records and returns at once; a worker writes them; what is lost is counted.

    record ─▶ queue (10,000) ─▶ worker: gives seq and prev ─▶ AuditFile ─▶ one JSON line
                 │ full: a marker counts what is lost

Write, clock, stat and sync are passed in, so that every fault can be tested.
"""

from __future__ import annotations

import errno as errno_codes
import os
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Callable

from _dockeraudit.errors import EXIT_LOST
from _dockeraudit.logfile import AuditFile, AuditPipe
from _dockeraudit.records import Fingerprinter, Record, encode_record, rfc3339
from _dockeraudit.streamrecords import REPEAT_PERIOD, Budget, Known, StreamRecords

QUEUE_LIMIT = 10_000  # records held while the disk does not take them; about 10 MB
NAME_WAIT = 1.0  # seconds that a stream's records wait for its container's name
REPEATS_A_TICK = 1000  # records of repeats written at once; more would keep the lock from the relay for over 10 ms
KNOWN_FINDINGS = 200_000  # findings whose repeats are counted rather than written
STATS_PERIOD = 600.0  # seconds between two `stats`
RETRY_PERIOD = 1.0  # seconds between attempts to write while that fails
LOOK_PERIOD = 1.0  # seconds between looks at the path while nothing is written
STUCK_WRITE = 1.0  # seconds after which an unfinished write counts as a failure
SYNC_PERIOD = 1.0  # seconds, or
SYNC_BYTES = 64 << 10  # bytes, after which what was written is synced
TICK = 0.1  # seconds between looks at everything that is a matter of time


# Threads. `lock` guards the queue, the counts and the streams; it is never held over a system call. The worker alone
# touches the file and gives seq and prev. The ticker does what is a matter of time. Syncing has a thread of its own, so
# that a slow fdatasync delays neither. Any thread may `accept`.


class Overflow(Record):
    """Stands in the queue where records found no room: how many, how many matches were in them, and what went wrong."""

    __slots__ = ("records", "error")

    def __init__(self, timestamp: float, error: OSError | None) -> None:
        super().__init__(timestamp, "gap", None)
        self.records = 0
        self.error = error

    def add(self, record: Record) -> None:
        """One more is lost."""
        self.records += 1
        self.matches += record.matches


class AuditLog:
    """The audit log: `accept` takes records and returns at once, a worker writes them, and what is lost is counted.

    State for failure: ok → degraded (held records wait, the write is tried again each second, the file reopened) → ok.
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
        key_path: str | None = None,
        allow: Iterable[str] = (),
        write: Callable[[int, bytes], int] = os.write,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        stat: Callable[[str], os.stat_result] = os.stat,
        fdatasync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.run = run or os.urandom(4).hex()
        self.clock, self.monotonic = clock, monotonic
        self.fingerprinter = Fingerprinter(key)
        self.lock = threading.Lock()
        self.held = 0  # records in the queue and waiting for names
        self.streams: set[StreamRecords] = set()
        self.known: OrderedDict[Any, Known] = OrderedDict()
        self.repeats: deque[tuple[float, Known]] = (
            deque()
        )  # what has been seen again, and when that is to be written
        self.totals: Counter[str] = Counter()
        self._file = (
            AuditPipe(write)
            if path == "-"
            else AuditFile(path, key_path, key, write, stat, monotonic, self._leave)
        )
        self._fsync, self._fdatasync = fsync, fdatasync
        self._diagnose = diagnose
        self._queue_limit = queue_limit
        self._allow = frozenset(allow)
        self._queue: deque[Record] = deque()
        self._filled = threading.Condition(self.lock)
        self._findings: Counter[tuple[str, str]] = Counter()
        self._budgets: OrderedDict[str | None, Budget] = OrderedDict()
        self._numbers = 0
        self._seq = 0
        self._error: OSError | None = None  # why the last write failed, while degraded
        self._write_began: float | None = None
        self._sync_error: OSError | None = None
        self._synced = monotonic()
        self._failure_listeners: list[Callable[[bool], Any]] = []
        self._was_failed = False
        self._closing = False
        self._stop_reason = ""
        self._stopped = False  # the `stop` has left the queue: nothing can be written behind it
        self._give_up = False
        self._look = False  # the path is to be looked at without a record
        self._wake = threading.Event()
        self._opened = monotonic()
        self._stats_at = monotonic() + STATS_PERIOD
        self._look_at = monotonic() + LOOK_PERIOD
        self._worker: Future[None] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit-log")
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="audit-sync")
        self._sync_job: Future[None] | None = None
        self._ticker = threading.Thread(target=self._tick_on, name="audit-tick", daemon=True)
        self._forked = False

    # -- for everybody

    def open(self, **start_fields: Any) -> None:
        """Open the file, start the worker, and record the `start`. Raises AuditLogError."""
        left_over = self._file.open()
        self.accept("start", {**start_fields, "key": self.fingerprinter.key_id})
        for event, fields in left_over:
            self.accept(event, fields)
        OPEN_LOGS.add(self)
        self._worker = self._executor.submit(self._work)
        self._ticker.start()

    def accept(self, event: str, fields: Any, matches: int = 0) -> Record:
        """Stamp a record and queue it; where the queue is full it is counted instead. Never blocks, makes no system call."""
        with self.lock:
            record = Record(self.clock(), event, fields, matches)
            self.enqueue(record)
        return record

    def open_stream(
        self,
        endpoint: str,
        container_id: str | None,
        client: Mapping[str, Any],
        follow: bool,
        audited: bool,
        kind: str | None = None,
    ) -> StreamRecords:
        """A stream has begun: its `stream_open`, and the object for its further records."""
        fields = {
            "endpoint": endpoint,
            "container_id": container_id,
            "client": client,
            "follow": follow,
            "audited": audited,
            "kind": kind,
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
        """Whether what is accepted now may go unrecorded: a failed write, one unfinished for a second, or a full queue."""
        began = self._write_began
        stuck = began is not None and self.monotonic() - began > STUCK_WRITE
        dead = self._worker is not None and self._worker.done()
        return (
            self._error is not None
            or self._sync_error is not None
            or stuck
            or dead
            or not self.has_room()
        )

    def add_failure_listener(self, listener: Callable[[bool], Any]) -> None:
        """Call `listener(failed)` whenever `failed()` changes; from the ticker, without a lock held."""
        self._failure_listeners.append(listener)

    def counters(self) -> dict[str, Any]:
        """Totals of this run: written, lost, streams, bytes, frames, unscanned, queued, queued_max, degraded, findings."""
        with self.lock:
            names = ("written", "lost", "streams", "bytes", "frames", "unscanned", "queued_max")
            counts: dict[str, Any] = {name: self.totals[name] for name in names}
            counts.update(queued=self.held, degraded=self.failed(), findings=dict(self._findings))
        return counts

    def close(self, reason: str, timeout: float) -> int:
        """Write what is held, then `stop`; returns 0, or EXIT_LOST if records were lost or could not be written in time."""
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
            if self._sync_job:
                self._sync_job.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            self._give_up = True
            self._wake.set()
            self._diagnose(
                "warning",
                f"the audit log {self._file.path} could not be finished in time: {self.held} records and the stop may be lost",
            )
            return EXIT_LOST
        finally:
            OPEN_LOGS.discard(self)
            self._executor.shutdown(wait=False)
            self._syncer.shutdown(wait=False)
        self._ticker.join(max(0.0, deadline - time.monotonic()) + TICK)
        return EXIT_LOST if self.totals["lost"] else 0

    def forked(self) -> None:
        """In a child process: this log is the parent's, and nothing is written from here."""
        self._forked = True
        self.lock = threading.Lock()
        self._filled = threading.Condition(self.lock)
        self._file.close()

    # -- for StreamRecords, under the lock

    def enqueue(self, record: Record) -> None:
        """Queue a stamped record, or count it where there is no room."""
        if self._forked:
            return
        if self._stopped:
            self.totals["lost"] += 1
            return
        if self.has_room():
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

    def has_room(self) -> bool:
        """Whether one more record can be held."""
        return self.held < self._queue_limit

    def release(self, stream: StreamRecords) -> None:
        """Queue what waited for the stream's name, which may have come after the stream's end."""
        for record in stream.waiting_records():
            self.held -= 1
            self.enqueue(record)
        if stream.closed:
            self.streams.discard(stream)

    def set_allowed(self, entries: Iterable[str]) -> None:
        """The secrets known as harmless from now on: FINGERPRINT or CONTAINER:FINGERPRINT."""
        self._allow = frozenset(entries)

    def is_allowed(self, fingerprint: str, stream: StreamRecords) -> bool:
        """Whether this secret is known as harmless, everywhere or in this container."""
        if not self._allow:
            return False
        return bool(
            self._allow
            & {
                fingerprint,
                f"{stream.container_id}:{fingerprint}",
                f"{stream.container_name}:{fingerprint}",
            }
        )

    def count_finding(self, rule: Any) -> None:
        """One more match, for the metrics."""
        self._findings[rule.name, rule.severity] += 1
        self.totals["findings"] += 1

    def budget(self, stream: StreamRecords) -> bool:
        """Whether the stream's container may cause one more record."""
        if not self._budget_of(stream.container_id).take(self.monotonic()):
            return False
        stream.spent += 1
        return True

    def charge(self, container_id: str, records: int) -> None:
        """So many were caused by this container while only the name was known that it was asked for by."""
        self._budget_of(container_id).tokens -= records

    def _budget_of(self, container_id: str | None) -> Budget:
        budget = self._budgets.get(container_id)
        if budget is None:
            budget = self._budgets[container_id] = Budget(self.monotonic())
            if len(self._budgets) > QUEUE_LIMIT:
                self._budgets.popitem(last=False)
        return budget

    def repeat(self, known: Known) -> None:
        """A finding has been seen again: counted now, written when it is due."""
        if not known.pending:
            self.repeats.append((self.monotonic() + REPEAT_PERIOD, known))
        known.pending += 1

    def remember(self, key: Any, known: Known) -> None:
        """A finding has been written; the one longest without a sight makes room for it."""
        self.known[key] = known
        if len(self.known) > KNOWN_FINDINGS:
            (_, oldest_key), oldest = self.known.popitem(last=False)
            oldest.stream.forget(oldest_key)

    # -- the worker

    def _work(self) -> None:
        """Write the queue until the log closes. A record counts as held until it has been written."""
        try:
            while not self._stopped:
                record = self._next()
                if not self._deliver(record):
                    return
                if record is not None and not isinstance(record, Overflow) and not self._stopped:
                    with self.lock:
                        self.held -= 1
        except Exception as error:
            self._diagnose(
                "error",
                f"the audit log {self._file.path} ends here, by a defect: {type(error).__name__}",
            )
            raise
        finally:
            self._sync(force=True)
            self._file.close()

    def _next(self) -> Record | None:
        """Wait for what is to be written: the queue's first, None for a look at the path; when the log closes, at last `stop`."""
        with self.lock:
            while True:
                if self._closing and not self._queue:
                    for stream in list(self.streams):
                        self.release(stream)
                        stream.flush()
                if self._queue:
                    return self._queue.popleft()
                if self._closing:
                    self._stopped = True
                    return Record(self.clock(), "stop", self._stop_fields)
                if self._look:
                    self._look = False
                    return None
                self._filled.wait()

    def _deliver(self, record: Record | None) -> bool:
        """Write one record (None: only look at the path), however long that takes; False if the log was told to give up."""
        own: list[Record] = []  # of what has happened to the file meanwhile
        while True:
            try:
                self._write_began = self.monotonic()
                own += [
                    Record(self.clock(), event, fields) for event, fields in self._file.notice()
                ]
                while own:
                    self._append(own[0])
                    own.pop(0)
                if record is not None:
                    self._append(record)
                self._write_began = None
                self._recovered()
                return True
            except MemoryError:
                self._degraded(OSError(errno_codes.ENOMEM, os.strerror(errno_codes.ENOMEM)))
            except OSError as error:
                self._degraded(error)
            self._write_began = None
            if self._give_up or not self._retry_later():
                return False

    def _append(self, record: Record) -> None:
        """Give a record its seq and prev, and write it; a gap leaves out the seq of what it stands for."""
        skipped = record.records if isinstance(record, Overflow) else 0
        seq = self._seq + skipped + 1
        if isinstance(record, Overflow):
            record.fields = self._gap_fields(record, seq)
        try:
            line = encode_record(record, self.run, seq, self._file.last_hash)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            self._diagnose(
                "error",
                f"a {record.event} record cannot be written, by a defect: {type(error).__name__}; it is counted as lost",
            )
            gap = Overflow(record.timestamp, None)
            gap.add(record)
            self._append(gap)
            return
        self._file.append(line)
        self._seq = record.seq = seq
        self.totals["written"] += 1
        if skipped:
            self.totals["lost"] += skipped
            self._diagnose(
                "warning",
                f"{skipped} audit records were lost; the gap is in the log, with seq {seq}",
            )
        if record.event in ("stats", "stop"):
            self._diagnose(
                "info",
                f"audit log {self._file.path}: {record.event} is seq {seq} of run {self.run}, its line's hash {self._file.last_hash}",
            )
        if self._fsync == "always" or self._file.unsynced >= SYNC_BYTES:
            self._sync(force=self._fsync == "always")

    def _gap_fields(self, overflow: Overflow, seq: int) -> dict[str, Any]:
        fields = {
            "records": overflow.records,
            "matches": overflow.matches,
            "first_seq": seq - overflow.records,
            "last_seq": seq - 1,
        }
        code = overflow.error.errno if overflow.error else None
        return {
            **fields,
            "errno": errno_codes.errorcode.get(code or 0),
            "since": rfc3339(overflow.timestamp),
        }

    def _stop_fields(self) -> dict[str, Any]:
        counts = {
            "written": self.totals["written"] + 1,
            "lost": self.totals["lost"],
            "reason": self._stop_reason,
        }
        return {**counts, "seconds": round(self.monotonic() - self._opened, 6)}

    def _degraded(self, error: OSError) -> None:
        """Say so once, and hold what comes."""
        if self._error is None:
            self._diagnose(
                "warning",
                f"the audit log {self._file.path} cannot be written: {error.strerror}; up to {self._queue_limit} records are held, "
                "and it is tried again each second",
            )
        self._error = error
        self._file.reopen()

    def _recovered(self) -> None:
        if self._error is not None:
            self._error = None
            self._diagnose("warning", f"the audit log {self._file.path} can be written again")

    def _retry_later(self) -> bool:
        """Wait until the next attempt; a closing log makes it at once, and then gives up only when told to."""
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

    # -- matters of time

    def _tick_on(self) -> None:
        while (
            not (self._closing and (self._worker is None or self._worker.done()))
            and not self._give_up
        ):
            self.tick()
            self._sync(force=False)
            failed = self.failed()
            if failed != self._was_failed:
                self._was_failed = failed
                for listener in self._failure_listeners:
                    listener(failed)
            time.sleep(TICK)

    def tick(self) -> None:
        """Let go what has waited long enough for a name; write repeats, suppressions and stats that are due."""
        now = self.monotonic()
        with self.lock:
            if self._closing:
                return
            for stream in list(self.streams):
                if now - stream.opened >= NAME_WAIT:
                    self.release(stream)
                stream.tick(now)
            self._write_repeats(now)
            if now >= self._look_at:
                self._look, self._look_at = True, now + LOOK_PERIOD
                self._filled.notify()
            due = now >= self._stats_at
            if due:
                self._stats_at = now + STATS_PERIOD
        if due:
            self.accept("stats", self._stats_fields)

    def _write_repeats(self, now: float) -> None:
        for _ in range(REPEATS_A_TICK):
            if not self.repeats or self.repeats[0][0] > now:
                return
            known = self.repeats.popleft()[1]
            known.stream.write_pending(known)

    def _stats_fields(self) -> dict[str, Any]:
        names = (
            "written",
            "lost",
            "streams",
            "bytes",
            "frames",
            "findings",
            "queued_max",
            "unscanned",
        )
        return {name: self.totals[name] for name in names}

    def _sync(self, force: bool) -> None:
        """Have what was written synced, in the syncer's thread; only `always` and the end wait for it."""
        file = self._file
        if self._fsync == "never" or isinstance(file, AuditPipe):
            return
        if (
            not file.unsynced and self._sync_error is None
        ):  # a failed sync is tried again, with or without new records
            return
        due = file.unsynced >= SYNC_BYTES or self.monotonic() - self._synced >= SYNC_PERIOD
        if not force and (not due or (self._sync_job and not self._sync_job.done())):
            return
        file.unsynced = 0
        self._synced = self.monotonic()
        try:
            fd = file.duplicate()
        except OSError:
            return  # closed meanwhile, or out of descriptors: the next write or sync tells
        job = self._submit_sync(fd)
        if force and job:
            job.result()

    def _submit_sync(self, fd: int) -> Future[None] | None:
        """Sync and close a descriptor in the syncer's thread; None if that has ended."""
        try:
            self._sync_job = self._syncer.submit(self._sync_duplicate, fd)
            return self._sync_job
        except RuntimeError:
            os.close(fd)
            return None

    def _leave(self, fd: int) -> None:
        """A file was rotated away: what is not synced of it yet is synced too, then it is closed."""
        if self._fsync == "never":
            os.close(fd)
        else:
            self._submit_sync(fd)

    def _sync_duplicate(self, fd: int) -> None:
        try:
            self._fdatasync(fd)
            if self._sync_error is not None:
                self._sync_error = None
                self._diagnose("warning", f"the audit log {self._file.path} can be synced again")
        except OSError as error:
            if self._sync_error is None:
                self._diagnose(
                    "warning",
                    f"the audit log {self._file.path} cannot be synced: {error.strerror}; a power cut may take its latest records",
                )
            self._sync_error = error
        finally:
            os.close(fd)


OPEN_LOGS: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def forget_logs_after_fork() -> None:
    """A child of this process owns none of its logs."""
    for log in list(OPEN_LOGS):
        log.forked()


os.register_at_fork(after_in_child=forget_logs_after_fork)
