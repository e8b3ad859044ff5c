"""auditlog: the records of dockeraudit, the writer that never lies about what it lost, and `verify`, which proves it.

    finding ─▶ StreamAudit ─▶ (waits for its container's name) ─▶ queue ─▶ worker ─▶ AuditFile ─▶ one line
                  │ repeats are counted                             │ full: a marker counts what is lost
                  └ volume is bounded per container                 └ gives seq and prev, writes own records

Sections, in the order of the data:

    records          what a line is: fields, length, hash, redaction, fingerprint
    counting         repeats and budgets, so that a container cannot buy volume
    the file         one regular file, rotated and truncated by others, that must lose nothing silently
    the log          the queue, its worker and its policy for failure
    verify           reads what the log wrote, and says what is missing

Nothing here imports dockeraudit. Write, clock, stat and sync are passed in, so that every fault can be tested.
"""
from __future__ import annotations

import errno as errno_codes
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import stat as stat_bits
import sys
import threading
import time
import weakref
import zlib
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import IO, Any, Callable, Iterable, Iterator, Mapping, Optional, Sequence, TextIO

MAX_LINE = 4096  # bytes of a record with its newline; pipes take so much in one piece (PIPE_BUF)
QUEUE_LIMIT = 10_000  # records held while the disk does not take them; about 10 MB
NAME_WAIT = 1.0  # seconds that a stream's records wait for its container's name
REPEAT_PERIOD = 60.0  # seconds between two records of the same repeated finding
REPEATS_A_TICK = 1000  # records of repeats written at once; more would keep the lock from the relay for over 10 ms
KNOWN_FINDINGS = 200_000  # findings whose repeats are counted rather than written
BUDGET_BURST = 10_000  # finding records that a container may cause at once
BUDGET_RATE = 100.0  # and then, each second
STATS_PERIOD = 600.0  # seconds between two `stats`
RETRY_PERIOD = 1.0  # seconds between attempts to write while that fails
LOOK_PERIOD = 1.0  # seconds between looks at the path while nothing is written
STUCK_WRITE = 1.0  # seconds after which an unfinished write counts as a failure
SYNC_PERIOD = 1.0  # seconds, or
SYNC_BYTES = 64 << 10  # bytes, after which what was written is synced
RENAME_GRACE = 1.0  # seconds that a renamed file is written on, so that logrotate's own `create` finds the path free
COUNTS_SIZE = 3000  # bytes of `counts` in one `suppressed`; with its other fields it stays below MAX_LINE
COUNTED_NAME = 200  # characters of a pattern's name there
TICK = 0.1  # seconds between looks at everything that is a matter of time
NO_LINE = "0" * 16  # `prev` where there is no line before

LINE_PIECE = 1 << 20  # bytes of a line that `verify` holds; no record has more than MAX_LINE

EXIT_BUSY = 75
EXIT_LOST = 74
EXIT_BAD_LOG = 78


class AuditLogError(Exception):
    """The audit log cannot be opened; the text is one sentence, `status` the exit status."""

    def __init__(self, message: str, status: int = EXIT_BAD_LOG) -> None:
        super().__init__(message)
        self.status = status


# =====================================================================================================================
# records
# =====================================================================================================================


class Record:
    """An event on its way to the log.

    `fields`: a mapping, or a function that makes it when the line is written. `matches`: how many matches it stands for.
    `seq` is given by the worker, and stays None for a record that was lost.
    """

    __slots__ = ("timestamp", "event", "fields", "matches", "seq")

    def __init__(self, timestamp: float, event: str, fields: Any, matches: int = 0) -> None:
        self.timestamp = timestamp
        self.event = event
        self.fields = fields
        self.matches = matches
        self.seq: Optional[int] = None


def rfc3339(timestamp: float) -> str:
    """UTC with microseconds and Z (RFC 3339)."""
    return datetime.fromtimestamp(timestamp, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def encode_record(record: Record, run: str, seq: int, prev: str) -> bytes:
    """The record's line with its newline, at most MAX_LINE bytes: the longest text in it is shortened until it fits."""
    fields = record.fields() if callable(record.fields) else record.fields
    head = {"timestamp": rfc3339(record.timestamp), "event": record.event, "run": run, "seq": seq, "prev": prev}
    line = encode_line({**head, **fields})
    while len(line) > MAX_LINE:
        fields = shortened(fields, len(line) - MAX_LINE)
        line = encode_line({**head, **fields})
    return line


def encode_line(fields: Mapping[str, Any]) -> bytes:
    """One JSON line; lone surrogates, which UTF-8 cannot hold, become question marks."""
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def shortened(fields: Mapping[str, Any], excess: int) -> dict[str, Any]:
    """The fields with the longest of them cut by at least `excess` bytes where that suffices, or left out, and marked so."""
    rest = {name: value for name, value in fields.items() if name != "truncated"}
    name = max(rest, key=lambda name: len(encode_line({name: rest[name]})))
    value = rest[name]
    if isinstance(value, Mapping) and value:
        rest[name] = shortened(value, excess)
    elif isinstance(value, (str, list)) and value:
        text = value if isinstance(value, str) else json.dumps(value)
        rest[name] = text[: max(0, min(len(text) - excess, len(text) * 3 // 4))]
    else:
        del rest[name]
    return {**rest, "truncated": True}


def in_records(counts: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Counts by name, in as many parts as it takes for each to fit into a record."""
    part: dict[str, int] = {}
    size = 0
    for name, count in counts.items():
        more = len(encode_line({name: count}))
        if part and size + more > COUNTS_SIZE:
            yield part
            part, size = {}, 0
        part[name] = count
        size += more
    yield part


def line_hash(line: bytes) -> str:
    """What the next record's `prev` says of this line (without its newline)."""
    return hashlib.sha256(line).hexdigest()[:16]


def redact_bytes(match: bytes) -> str:
    """The first two and last two characters of a match with *** between; *** alone for six characters or fewer."""
    text = match.decode("utf-8", "replace")
    return f"{text[:2]}***{text[-2:]}" if len(text) > 6 else "***"


class Fingerprinter:
    """HMAC-SHA-256 under one key (RFC 2104), its padded keys hashed once; first 16 hex digits."""

    def __init__(self, key: bytes) -> None:
        padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self.key_id = hashlib.sha256(key).hexdigest()[:8]

    def of(self, secret: bytes) -> str:
        """The secret's fingerprint: the same everywhere under the same key, and no help in guessing it without."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(secret)
        outer.update(inner.digest())
        return outer.hexdigest()[:16]


def beside(log_path: str, suffix: str) -> str:
    """`/x/.audit.log.SUFFIX` for `/x/audit.log`: the log itself gets renamed."""
    folder, name = os.path.split(os.path.abspath(log_path))
    return os.path.join(folder, f".{name}.{suffix}")


def default_key_path(log_path: str) -> str:
    """Where the fingerprints' key lies unless told otherwise."""
    return beside(log_path, "key")


def load_fingerprint_key(path: Optional[str]) -> bytes:
    """The 32 bytes in the file, which is made (0600) if it is not there; without a file, bytes for this run.

    Raises AuditLogError.
    """
    if path is None:
        return os.urandom(32)
    try:
        try:
            if not os.path.exists(path):  # one that is there may lie where nothing can be written: a mounted secret, /etc
                write_key(path, os.urandom(32))
        except FileExistsError:
            pass
        with open(path, "rb") as file:
            key = file.read(33)
    except OSError as error:
        raise AuditLogError(f"the fingerprint key {path} cannot be used: {error.strerror}; give another with --fingerprint-key") from None
    if len(key) != 32:
        raise AuditLogError(f"the fingerprint key {path} does not hold 32 bytes; remove it to have it made anew")
    return key


def write_key(path: str, key: bytes) -> None:
    """Make a key file whole or not at all; raises FileExistsError if there is one."""
    part = f"{path}.{os.urandom(4).hex()}"  # never the pid: in a container it is always 1, and a crash may leave the file
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, key)
        os.fsync(fd)
        os.link(part, path)
    finally:
        os.close(fd)
        os.unlink(part)


# =====================================================================================================================
# counting
# =====================================================================================================================


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

    def __init__(self, stream: StreamAudit, finding: Mapping[str, Any]) -> None:
        self.stream = stream
        self.finding = finding
        self.pending = 0


class StreamAudit:
    """One stream's records, in order, and the counts of its findings. All its methods return at once; any thread may call.

    Its records wait until `named` has said what its container is called, or NAME_WAIT has passed.
    """

    def __init__(self, log: AuditLog, number: int, fields: dict[str, Any]) -> None:
        self.number = number
        self.container_id: Optional[str] = fields["container_id"]
        self.container_name: Optional[str] = None
        self.opened = log.monotonic()
        self.spent = 0  # finding records so far, of the budget
        self.closed = False
        self._log = log
        self._fields = fields
        self._waiting: Optional[list[Record]] = []  # None: they go straight to the queue
        self._known: dict[tuple[str, str, str], Known] = {}
        self._suppressed: Counter[str] = Counter()
        self._suppressed_since = 0.0
        self._findings = 0

    def named(self, container_id: Optional[str], container_name: Optional[str], kind: Optional[str] = None) -> None:
        """The look-up is over, or has failed (None, None): what waited goes out."""
        with self._log.lock:
            if container_id is not None:
                if container_id != self.container_id:
                    self._log.charge(container_id, self.spent)
                self.container_id, self.container_name = container_id, container_name
            self._log.release(self)

    def finding(self, stream_type: str, rule: Any, match: bytes, secret: Optional[bytes], line: int, partial: bool = False) -> Any:
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
            where = {"line": line, "partial": True} if partial else {"line": line}
            if fingerprint:
                self._remember(key, {**fields, "at": where})
            return self._add("finding", lambda: self._finding_fields(fields, 1, where), 1)

    def update(self, handle: Any, secret: Optional[bytes], match: bytes, lines: int, complete: bool) -> None:
        """The end of a partial match, or of a private key, has come, or never will (`complete` False)."""
        if handle is None:
            return
        fingerprint = None if secret is None else self._log.fingerprinter.of(secret)
        redacted = redact_bytes(match)

        def fields() -> dict[str, Any]:
            found = {"finding": handle.seq, "fingerprint": fingerprint, "redacted_match": redacted}
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

    def close(self, *, framing: str, nbytes: int, frames: int, lines: int, unscanned: int, reason: str) -> None:
        """The stream has ended: its pending counts, what was suppressed, and then its `stream_close`."""
        log = self._log
        seconds = round(log.monotonic() - self.opened, 6)
        totals = {"framing": framing, "bytes": nbytes, "frames": frames, "lines": lines, "findings": self._findings}
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
                self._add("suppressed", {"stream": self.number, "counts": counts}, sum(counts.values()))
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

    def _finding_fields(self, finding: Mapping[str, Any], count: int, where: Mapping[str, Any]) -> dict[str, Any]:
        whose = {"endpoint": self._fields["endpoint"], "client": self._fields["client"], "stream": self.number}
        return {**self._container_fields(), **finding, "count": count, **whose, **where}

    def _stream_fields(self) -> dict[str, Any]:
        fields = {"stream": self.number, "endpoint": self._fields["endpoint"], **self._container_fields()}
        return {**fields, **{name: self._fields[name] for name in ("client", "follow", "audited")}}

    def open(self) -> None:
        """Its first record."""
        self._add("stream_open", self._stream_fields)


# =====================================================================================================================
# the file
# =====================================================================================================================


class AuditFile:
    """The log's file: appends whole lines, and notices what others do to it.

    Only the log's worker calls it, after `open`. `append` raises OSError when a line could not be written whole; nothing
    of it is left in the file then, or the next append isolates what is. `notice` tells of what has happened to the path.
    `leave` gets the descriptor of a file that was rotated away, to sync and to close it.
    """

    def __init__(
        self, path: str, key_path: Optional[str], key: bytes, write: Any, stat: Any, monotonic: Any, leave: Callable[[int], None] = os.close
    ) -> None:
        self.path = os.path.abspath(path)
        self.unsynced = 0
        self.last_hash = NO_LINE
        self._key_path, self._key = key_path, key
        self._write, self._stat, self._monotonic, self._leave = write, stat, monotonic, leave
        self._fd = -1
        self._lock_fd = -1
        self._size = 0
        self._identity: tuple[int, int] = (0, 0)
        self._torn = False  # the file ends inside a line
        self._new_name = False  # it was created, and its directory has not been synced since
        self._missing_since: Optional[float] = None
        self._reopen = False

    def open(self) -> list[tuple[str, dict[str, Any]]]:
        """Lock, open and recover; returns what there is to record. Raises AuditLogError."""
        try:
            self._lock()
            self._open_path()
            return self._recover()
        except OSError as error:
            reason = "it is a symbolic link" if error.errno == errno_codes.ELOOP else error.strerror
            raise AuditLogError(f"the audit log {self.path} cannot be opened: {reason}; choose another with --audit-log") from None

    def reopen(self) -> None:
        """Open the path anew at the next append, whatever it looks like; only sets a flag."""
        self._reopen = True

    def notice(self) -> list[tuple[str, dict[str, Any]]]:
        """Compare path and file before a write; returns the events of what has changed. Raises OSError."""
        forced = self._reopen
        if forced:
            self._reopen = False
        try:
            found = self._stat(self.path)
        except FileNotFoundError:
            return self._path_is_missing(forced)
        self._missing_since = None
        if (found.st_dev, found.st_ino) == self._identity and found.st_size < self._size:
            before, self._size = self._size, found.st_size
            self._torn = self._torn and found.st_size > 0
            return [("truncated", {"size_before": before})]
        if forced or (found.st_dev, found.st_ino) != self._identity:
            return self._switch("rotated")
        return []

    def append(self, line: bytes) -> None:
        """Write one line with one write; raises OSError with the file as it was."""
        self._isolate()
        self._write_whole(line)
        self._size += len(line)
        self.unsynced += len(line)
        self.last_hash = line_hash(line[:-1])

    def duplicate(self) -> int:
        """A descriptor of the same file, to be synced and closed by another thread."""
        return fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 0)

    def close(self) -> None:
        """Close the file and give the lock up. What closing would tell, the last sync has told."""
        fds, self._fd, self._lock_fd = (self._fd, self._lock_fd), -1, -1
        for fd in fds:
            try:
                if fd >= 0:
                    os.close(fd)
            except OSError:
                pass

    def _isolate(self) -> None:
        """End a torn line, so that the next one stands alone."""
        if self._torn:
            self._write_whole(b"\n")
            self._size += 1
            self._torn = False

    def _write_whole(self, data: bytes) -> None:
        """A short write is what a full disk does first: the rest fails with its reason, and the beginning is taken back."""
        written = self._write(self._fd, data)
        if written == len(data):
            return
        try:
            while written < len(data):
                more = self._write(self._fd, data[written:])
                if not more:
                    raise OSError(errno_codes.EIO, "the file took no bytes")
                written += more
        except OSError:
            self._take_back(written)
            raise

    def _take_back(self, written: int) -> None:
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        except OSError:
            self._torn = True  # then the next line is set apart from it

    def _lock(self) -> None:
        """One process a log: a lock file beside it, held as long as we live (flock(2))."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        fd = os.open(beside(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise AuditLogError(f"the audit log {self.path} is in use by another dockeraudit; give this one a log of its own", EXIT_BUSY) from None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = fd

    def _open_path(self) -> None:
        """Open the path for appending, making it (0600) if need be; refuse what is no regular file."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._new_name = self._new_name or not os.path.lexists(self.path)
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno_codes.ENXIO, errno_codes.EISDIR):
                raise OSError(error.errno, "it is not a regular file") from None
            raise
        try:
            found = os.fstat(fd)
            if not stat_bits.S_ISREG(found.st_mode):
                raise OSError(errno_codes.EINVAL, "it is not a regular file")
            if self._new_name:
                self._sync_folder()
        except OSError:
            os.close(fd)
            raise
        left, same = self._fd, self._identity == (found.st_dev, found.st_ino)
        self._torn = self._torn and same
        self._fd, self._identity, self._size = fd, (found.st_dev, found.st_ino), found.st_size
        if left >= 0:
            os.close(left) if same else self._leave(left)

    def _sync_folder(self) -> None:
        """A new name survives a power cut only once its directory has been synced."""
        fd = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno_codes.EINVAL:  # some network file systems know no such thing
                raise
        finally:
            os.close(fd)
        self._new_name = False

    def _recover(self) -> list[tuple[str, dict[str, Any]]]:
        """Take over what an earlier run left: its last line is our `prev`, a torn one is isolated by a newline."""
        if not self._size:
            return []
        start, self.last_hash, torn = last_line(self.path)
        if not torn:
            return []
        self._torn = True
        return [("recovered", {"offset": start})]

    def _path_is_missing(self, forced: bool) -> list[tuple[str, dict[str, Any]]]:
        """Deleted: make it anew at once. Renamed: write on for a moment, whoever renamed it may make the path anew."""
        if os.fstat(self._fd).st_nlink == 0:
            return self._switch("recreated")
        now = self._monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if not forced and now - self._missing_since < RENAME_GRACE:
            return []
        return self._switch("rotated")

    def _switch(self, event: str) -> list[tuple[str, dict[str, Any]]]:
        """Go over to the path as it is now, with its directory, lock and key if those went too."""
        (device, inode), size = self._identity, self._size
        self._hold_lock()
        try:
            self._isolate()
        except OSError:
            pass  # the file that is left stays torn, which `verify` tells
        self._open_path()
        self._missing_since = None
        if self._identity == (device, inode):
            return []
        return [(event, {"inode": self._identity[1]} if event == "recreated" else {"inode": inode, "size": size})]

    def _hold_lock(self) -> None:
        """Make lock and key anew where they went with their directory. Raises OSError if another process has the lock now."""
        folder, lock = os.path.dirname(self.path), beside(self.path, "lock")
        if not os.path.exists(lock) or not os.path.samestat(os.stat(lock), os.fstat(self._lock_fd)):
            try:
                self._lock()
            except AuditLogError:
                raise OSError(errno_codes.EBUSY, "another dockeraudit has it now") from None
        if self._key_path and os.path.dirname(os.path.abspath(self._key_path)) == folder and not os.path.exists(self._key_path):
            write_key(self._key_path, self._key)


def last_line(path: str) -> tuple[int, str, bool]:
    """Where a file's last line starts, its hash, and whether it is torn (has no newline); in constant memory."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(end - 1)
        torn = file.read(1) != b"\n"
        stop = end if torn else end - 1
        start = stop
        while start > 0:
            size = min(start, 1 << 16)
            file.seek(start - size)
            newline = file.read(size).rfind(b"\n")
            start -= size
            if newline >= 0:
                start += newline + 1
                break
        digest = hashlib.sha256()
        file.seek(start)
        left = stop - start
        while left > 0:
            block = file.read(min(left, 1 << 16))
            digest.update(block)
            left -= len(block) or left
        return start, digest.hexdigest()[:16], torn


class AuditPipe:
    """Standard output as the log: the same records, no rotation, no lock. A slow reader is waited for by the worker alone."""

    unsynced = 0

    def __init__(self, write: Any) -> None:
        self.path = "standard output"
        self.last_hash = NO_LINE
        self._write = write
        self._line = b""
        self._rest = b""  # of that line

    def open(self) -> list[tuple[str, dict[str, Any]]]:
        """It is open."""
        return []

    def reopen(self) -> None:
        """There is nothing to reopen."""

    def notice(self) -> list[tuple[str, dict[str, Any]]]:
        """Nothing happens to a pipe."""
        return []

    def append(self, line: bytes) -> None:
        """Write one line; what a pipe took of it cannot be taken back, so the rest goes first the next time."""
        if not self._rest:
            self._line = self._rest = line
        while self._rest:
            self._rest = self._rest[self._write(1, self._rest) :]
        self.last_hash = line_hash(self._line[:-1])

    def close(self) -> None:
        """Standard output is not ours to close."""


# =====================================================================================================================
# the log
# =====================================================================================================================
# Threads. `lock` guards the queue, the counts and the streams; it is never held over a system call. The worker alone
# touches the file and gives seq and prev. The ticker does what is a matter of time. Syncing has a thread of its own, so
# that a slow fdatasync delays neither. Any thread may `accept`.


class Overflow(Record):
    """Stands in the queue where records found no room: how many, how many matches were in them, and what went wrong."""

    __slots__ = ("records", "error")

    def __init__(self, timestamp: float, error: Optional[OSError]) -> None:
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
        run: Optional[str] = None,
        fsync: str = "interval",
        diagnose: Callable[[str, str], None] = lambda level, text: None,
        queue_limit: int = QUEUE_LIMIT,
        key_path: Optional[str] = None,
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
        self.streams: set[StreamAudit] = set()
        self.known: OrderedDict[Any, Known] = OrderedDict()
        self.repeats: deque[tuple[float, Known]] = deque()  # what has been seen again, and when that is to be written
        self.totals: Counter[str] = Counter()
        self._file = AuditPipe(write) if path == "-" else AuditFile(path, key_path, key, write, stat, monotonic, self._leave)
        self._fsync, self._fdatasync = fsync, fdatasync
        self._diagnose = diagnose
        self._queue_limit = queue_limit
        self._allow = frozenset(allow)
        self._queue: deque[Record] = deque()
        self._filled = threading.Condition(self.lock)
        self._findings: Counter[tuple[str, str]] = Counter()
        self._budgets: OrderedDict[Optional[str], Budget] = OrderedDict()
        self._numbers = 0
        self._seq = 0
        self._error: Optional[OSError] = None  # why the last write failed, while degraded
        self._write_began: Optional[float] = None
        self._sync_error: Optional[OSError] = None
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
        self._worker: Optional[Future[None]] = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit-log")
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="audit-sync")
        self._sync_job: Optional[Future[None]] = None
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
        self, endpoint: str, container_id: Optional[str], client: Mapping[str, Any], follow: bool, audited: bool, kind: Optional[str] = None
    ) -> StreamAudit:
        """A stream has begun: its `stream_open`, and the object for its further records."""
        fields = {"endpoint": endpoint, "container_id": container_id, "client": client, "follow": follow, "audited": audited, "kind": kind}
        with self.lock:
            self._numbers += 1
            stream = StreamAudit(self, self._numbers, fields)
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
        return self._error is not None or self._sync_error is not None or stuck or dead or not self.has_room()

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
            self._diagnose("warning", f"the audit log {self._file.path} could not be finished in time: {self.held} records and the stop may be lost")
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

    # -- for StreamAudit, under the lock

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

    def release(self, stream: StreamAudit) -> None:
        """Queue what waited for the stream's name, which may have come after the stream's end."""
        for record in stream.waiting_records():
            self.held -= 1
            self.enqueue(record)
        if stream.closed:
            self.streams.discard(stream)

    def is_allowed(self, fingerprint: str, stream: StreamAudit) -> bool:
        """Whether this secret is known as harmless, everywhere or in this container."""
        if not self._allow:
            return False
        return bool(self._allow & {fingerprint, f"{stream.container_id}:{fingerprint}", f"{stream.container_name}:{fingerprint}"})

    def count_finding(self, rule: Any) -> None:
        """One more match, for the metrics."""
        self._findings[rule.name, rule.severity] += 1
        self.totals["findings"] += 1

    def budget(self, stream: StreamAudit) -> bool:
        """Whether the stream's container may cause one more record."""
        if not self._budget_of(stream.container_id).take(self.monotonic()):
            return False
        stream.spent += 1
        return True

    def charge(self, container_id: str, records: int) -> None:
        """So many were caused by this container while only the name was known that it was asked for by."""
        self._budget_of(container_id).tokens -= records

    def _budget_of(self, container_id: Optional[str]) -> Budget:
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
            self._diagnose("error", f"the audit log {self._file.path} ends here, by a defect: {type(error).__name__}")
            raise
        finally:
            self._sync(force=True)
            self._file.close()

    def _next(self) -> Optional[Record]:
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

    def _deliver(self, record: Optional[Record]) -> bool:
        """Write one record (None: only look at the path), however long that takes; False if the log was told to give up."""
        own: list[Record] = []  # of what has happened to the file meanwhile
        while True:
            try:
                self._write_began = self.monotonic()
                own += [Record(self.clock(), event, fields) for event, fields in self._file.notice()]
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
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            self._diagnose("error", f"a {record.event} record cannot be written, by a defect: {type(error).__name__}; it is counted as lost")
            gap = Overflow(record.timestamp, None)
            gap.add(record)
            self._append(gap)
            return
        self._file.append(line)
        self._seq = record.seq = seq
        self.totals["written"] += 1
        if skipped:
            self.totals["lost"] += skipped
            self._diagnose("warning", f"{skipped} audit records were lost; the gap is in the log, with seq {seq}")
        if record.event in ("stats", "stop"):
            self._diagnose("info", f"audit log {self._file.path}: {record.event} is seq {seq} of run {self.run}, its line's hash {self._file.last_hash}")
        if self._fsync == "always" or self._file.unsynced >= SYNC_BYTES:
            self._sync(force=self._fsync == "always")

    def _gap_fields(self, overflow: Overflow, seq: int) -> dict[str, Any]:
        fields = {"records": overflow.records, "matches": overflow.matches, "first_seq": seq - overflow.records, "last_seq": seq - 1}
        code = overflow.error.errno if overflow.error else None
        return {**fields, "errno": errno_codes.errorcode.get(code or 0), "since": rfc3339(overflow.timestamp)}

    def _stop_fields(self) -> dict[str, Any]:
        counts = {"written": self.totals["written"] + 1, "lost": self.totals["lost"], "reason": self._stop_reason}
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
        while not (self._closing and (self._worker is None or self._worker.done())) and not self._give_up:
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
        names = ("written", "lost", "streams", "bytes", "frames", "findings", "queued_max", "unscanned")
        return {name: self.totals[name] for name in names}

    def _sync(self, force: bool) -> None:
        """Have what was written synced, in the syncer's thread; only `always` and the end wait for it."""
        file = self._file
        if self._fsync == "never" or isinstance(file, AuditPipe):
            return
        if not file.unsynced and self._sync_error is None:  # a failed sync is tried again, with or without new records
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

    def _submit_sync(self, fd: int) -> Optional[Future[None]]:
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
                self._diagnose("warning", f"the audit log {self._file.path} cannot be synced: {error.strerror}; a power cut may take its latest records")
            self._sync_error = error
        finally:
            os.close(fd)


OPEN_LOGS: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def forget_logs_after_fork() -> None:
    """A child of this process owns none of its logs."""
    for log in list(OPEN_LOGS):
        log.forked()


os.register_at_fork(after_in_child=forget_logs_after_fork)


# =====================================================================================================================
# verify
# =====================================================================================================================


class Segment:
    """The lines of one file: where they begin and end in the history, and what is wrong between."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first: Optional[dict[str, Any]] = None
        self.first_line = 0
        self.last: Optional[dict[str, Any]] = None
        self.last_hash = NO_LINE  # of the last line
        self.record_hash = NO_LINE  # of the last record: behind a torn line of its own, the same run goes on from there
        self.lines = 0

    def ends_with(self, prev: str) -> bool:
        """Whether a record with this `prev` may come next."""
        return prev in (self.last_hash, self.record_hash)


class Verification:
    """What `verify` found: `problems` (file, line, seq, text), `notes` that are no problem, and the totals."""

    def __init__(self, anchors: Sequence[str] = ()) -> None:
        self.problems: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.totals: Counter[str] = Counter()
        self.runs: OrderedDict[str, str] = OrderedDict()  # run → its last event
        self.anchors = {anchor[:16].lower(): False for anchor in anchors}
        self.omitted = 0

    def problem(self, segment: str, line: int, seq: Any, text: str) -> None:
        """Something that should not be; the first thousand are kept."""
        if len(self.problems) < 1000:
            self.problems.append({"file": segment, "line": line, "seq": seq, "problem": text})
        else:
            self.omitted += 1

    @property
    def sound(self) -> bool:
        """Whether nothing is missing, changed, or counted as lost."""
        return not self.problems

    # -- one file

    def read(self, name: str, lines: Iterable[bytes]) -> Segment:
        """Check one file's lines against each other; memory does not grow with them."""
        segment = Segment(name)
        for line in lines:
            segment.lines += 1
            self._line(segment, line)
        return segment

    def _line(self, segment: Segment, line: bytes) -> None:
        body = line[:-1] if line.endswith(b"\n") else line
        digest = line_hash(body)
        if digest in self.anchors:
            self.anchors[digest] = True
        record = self._record(segment, line, body)
        if record is None:
            segment.last_hash = digest
            return
        if segment.last is None:
            segment.first, segment.first_line = record, segment.lines
        else:
            if not segment.ends_with(record["prev"]):
                self._wrong(segment, record, "its prev is not the hash of the line before: a line was changed, removed or put in")
            self._follows(segment.name, segment.lines, segment.last, record)
        self._count(segment, record)
        segment.last, segment.last_hash, segment.record_hash = record, digest, digest

    def _record(self, segment: Segment, line: bytes, body: bytes) -> Optional[dict[str, Any]]:
        if not line.endswith(b"\n"):
            self.problem(segment.name, segment.lines, None, "the line has no end: it is torn, or longer than any record")
            return None
        if len(line) > MAX_LINE:
            self.problem(segment.name, segment.lines, None, f"the line is longer than {MAX_LINE} bytes")
        try:
            record = json.loads(body)
            if isinstance(record["seq"], int) and isinstance(record["run"], str) and isinstance(record["prev"], str):
                str(record["event"])
                return dict(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        self.problem(segment.name, segment.lines, None, "the line is not a record (a torn one ends like this)")
        return None

    def _wrong(self, segment: Segment, record: Mapping[str, Any], text: str) -> None:
        self.problem(segment.name, segment.lines, record["seq"], text)

    def _follows(self, name: str, line: int, before: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Whether a record may stand right behind another."""
        seq, last = record["seq"], before["seq"]
        if record["run"] != before["run"]:
            if before["event"] != "stop":
                self.problem(name, line, seq, f"run {before['run']} has no stop, and run {record['run']} follows it: it was killed")
            if seq != 1:
                self.problem(name, line, seq, f"run {record['run']} begins with seq {seq}, not 1: records are missing before it")
        elif seq <= last:
            self.problem(name, line, seq, f"seq {seq} stands behind seq {last}: the record is doubled or out of order")
        elif seq > last + 1 or record["event"] == "gap":
            named = (record.get("records"), record.get("first_seq"), record.get("last_seq"))
            if record["event"] != "gap":
                self.problem(name, line, seq, f"seq {last + 1} to {seq - 1} are missing, without a gap that names them")
            elif named != (seq - last - 1, last + 1, seq - 1):
                self.problem(name, line, seq, f"the gap names other records than the {seq - last - 1} that are missing before it")

    def _count(self, segment: Segment, record: Mapping[str, Any]) -> None:
        event = record["event"]
        self.runs[record["run"]] = event
        self.totals["records"] += 1
        if event == "finding":
            self.totals["findings"] += as_count(record.get("count"))
        elif event == "suppressed":
            counts = record.get("counts")
            self.totals["suppressed"] += sum(map(as_count, counts.values())) if isinstance(counts, dict) else 0
        elif event == "gap":
            self.totals["lost_records"] += as_count(record.get("records"))
            self.totals["lost_matches"] += as_count(record.get("matches"))
            self._wrong(segment, record, f"{record.get('records')} records were lost ({record.get('errno') or 'the queue was full'}), counted in this gap")
        elif event == "truncated":
            self._wrong(segment, record, f"the file was truncated at {record.get('size_before')} bytes while it was written")
        elif event == "scan_gap":
            self.totals["unscanned_bytes"] += as_count(record.get("bytes"))

    # -- all files

    def join(self, segments: Sequence[Segment]) -> None:
        """Put the files in order by run, seq and prev, and check what lies between them."""
        ordered = in_order([segment for segment in segments if segment.first])
        for before, after in zip(ordered, ordered[1:]):
            assert before.last and after.first
            first = after.first
            self._follows(after.name, after.first_line, before.last, first)
            if before.ends_with(first["prev"]):
                continue
            if first["run"] != before.last["run"] and first["seq"] == 1 and first["prev"] == NO_LINE:
                self.notes.append(f"{after.name}: run {first['run']} begins a fresh file")
            else:
                text = f"its prev is not the last line of {before.name}: lines are missing between the files"
                self.problem(after.name, after.first_line, first["seq"], text)
        if ordered:
            self._ends(ordered)
        for anchor, found in self.anchors.items():
            if not found:
                self.problem("-", 0, None, f"no line has the hash {anchor}, which was seen elsewhere")

    def _ends(self, ordered: Sequence[Segment]) -> None:
        first, last = ordered[0].first, ordered[-1].last
        assert first and last
        if first["seq"] != 1 or first["prev"] != NO_LINE:
            self.notes.append(f"the history begins with seq {first['seq']} of run {first['run']}; what was before is not here")
        if last["event"] != "stop":
            self.notes.append(f"run {last['run']} has not stopped: it lives, or was killed")


def as_count(value: Any) -> int:
    """A number of a record, 0 where there is none."""
    return value if isinstance(value, int) and value > 0 else 0


def in_order(segments: Sequence[Segment]) -> list[Segment]:
    """Chain files by prev, then by run and seq; chains without a link by their first timestamp."""
    by_hash = {digest: segment for segment in segments for digest in (segment.record_hash, segment.last_hash)}
    by_seq = {(segment.last["run"], segment.last["seq"]): segment for segment in segments if segment.last}
    successor: dict[int, Segment] = {}
    heads = []
    for segment in segments:
        assert segment.first
        run, seq = segment.first["run"], segment.first["seq"]
        before = by_hash.get(segment.first["prev"]) or by_seq.get((run, seq - 1)) or nearest_before(segments, run, seq)
        if before is None or before is segment or id(before) in successor:
            heads.append(segment)
        else:
            successor[id(before)] = segment
    ordered: list[Segment] = []
    for head in sorted(heads, key=lambda segment: str(segment.first and segment.first.get("timestamp"))):
        current: Optional[Segment] = head
        while current is not None and current not in ordered:
            ordered.append(current)
            current = successor.get(id(current))
    return ordered + [segment for segment in segments if segment not in ordered]


def nearest_before(segments: Sequence[Segment], run: str, seq: int) -> Optional[Segment]:
    """The file of the same run that ends last before `seq`."""
    earlier = [segment for segment in segments if segment.last and segment.last["run"] == run and segment.last["seq"] < seq]
    return max(earlier, key=lambda segment: segment.last["seq"] if segment.last else 0, default=None)


def open_audit_log(path: str) -> IO[bytes]:
    """An audit log for reading: `-` is standard input, .gz is unpacked. Raises OSError."""
    if path == "-":
        return io.open(sys.stdin.fileno(), "rb", closefd=False)
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def bounded_lines(file: IO[bytes], size: float = float("inf")) -> Iterator[bytes]:
    """Lines that begin in the first `size` bytes; an endless one comes in pieces, so that memory stays flat.

    A last line without its end may be one that is being written (a reader sees a write page by page): it gets a moment.
    """
    position = 0
    while position < size:
        line = file.readline(LINE_PIECE)
        for _ in range(20 if size != float("inf") else 0):
            if line.endswith(b"\n") or len(line) > MAX_LINE:
                break
            time.sleep(0.01)
            line += file.readline(LINE_PIECE)
        if not line:
            return
        position += len(line)
        yield line


def sizes_at_once(files: Sequence[IO[bytes]]) -> list[float]:
    """How far to read each: sizes that all files had at one moment, since a log lives and is rotated while it is read."""
    before: list[float] = []
    for _ in range(100):
        sizes = [float(os.fstat(file.fileno()).st_size) if type(file) is io.BufferedReader and file.seekable() else float("inf") for file in files]
        if sizes == before:
            break
        before = sizes
    return sizes


def verify_files(names: Sequence[str], anchors: Sequence[str] = ()) -> Verification:
    """Check the files of one log, in any order; raises AuditLogError for one that cannot be read."""
    verification = Verification(anchors)
    segments = []
    with ExitStack() as opened:
        name = ""
        try:
            files = []
            for name in names:
                files.append(opened.enter_context(open_audit_log(name)))
            for name, file, size in zip(names, files, sizes_at_once(files)):
                segments.append(verification.read(name, bounded_lines(file, size)))
        except (OSError, EOFError, zlib.error) as error:
            raise AuditLogError(f"{name} cannot be read: {error}") from None
    verification.join(segments)
    return verification


def run_verify(files: Sequence[str], *, json_output: bool, anchors: Sequence[str], out: TextIO) -> int:
    """The command `verify`: 0 if the history is whole, 1 if not. Raises AuditLogError."""
    found = verify_files(files, anchors)
    names = ("records", "findings", "suppressed", "lost_records", "lost_matches", "unscanned_bytes")
    totals = {name: found.totals[name] for name in names}
    if json_output:
        document = {"sound": found.sound, "runs": len(found.runs), "totals": totals, "problems": found.problems}
        json.dump({**document, "problems_omitted": found.omitted, "notes": found.notes}, out, indent=2)
        out.write("\n")
        return 0 if found.sound else 1
    out.write(f"{len(files)} files, {len(found.runs)} runs\n")
    for name, count in totals.items():
        out.write(f"  {name.replace('_', ' '):16} {count:>12,}\n")
    for note in found.notes:
        out.write(f"note: {printable(note)}\n")
    for problem in found.problems:
        where = f"{problem['file']}, line {problem['line']}" + (f", seq {problem['seq']}" if problem["seq"] is not None else "")
        out.write(f"{printable(where)}: {printable(problem['problem'])}\n")
    if found.omitted:
        out.write(f"and {found.omitted} more\n")
    out.write("whole: nothing is missing, changed or lost\n" if found.sound else f"NOT WHOLE: {len(found.problems) + found.omitted} problems\n")
    return 0 if found.sound else 1


#: What a terminal or a browser would obey, or not show: C0 and C1 controls, zero-width and bidirectional ones, line and
#: paragraph separators, tags, and lone surrogates, which cannot be written at all.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")


def printable(text: str) -> str:
    """Text from a record for a terminal or a page: control characters escaped."""
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
