"""What all connections share: settings, log, executors, counters."""

from __future__ import annotations

import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _dockeraudit.admission import DenialCounts
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import Lookups
from _dockeraudit.records import redact_bytes
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import ScanBudget
from _dockeraudit.settings import Settings
from _dockeraudit.sockets import wake

EVENTS_A_TURN = (
    64  # sockets of kept connections that are looked at between two looks at all of them
)
MAX_CONNECTIONS = 1024  # of all listeners together, a thread each; 503 beyond
SWITCH_INTERVAL = 0.0005  # seconds a thread keeps the interpreter; the default 5 ms would be a quiet stream's latency
CROWD = 128  # connections from which on it is longer: 1,000 that were cut at once spent 1.5 s of system time on waking up
CROWD_INTERVAL = 0.005  # seconds then, and while no stream is scanned, the interpreter's default: half as many requests again
KNOWN_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT"}
)
MASKED_PATH = 512  # bytes of a path in a record


class Proxy:
    """What all connections share: settings, the log, the executors, the counters, and the connections themselves."""

    def __init__(
        self, settings: Settings, log: AuditLog, scanner: Scanner, diagnostics: Diagnostics
    ) -> None:
        self.settings = settings
        self.log = log
        self.scanner = scanner
        self.diagnostics = diagnostics
        self.room = ScanBudget()
        self.scanning = ThreadPoolExecutor(settings.workers, thread_name_prefix="scan")
        self.resolver = Lookups(settings.upstream)
        self.stopping = False
        self.requests: Counter[tuple[str, int]] = Counter()
        self.denied = 0
        self.streams = 0  # that are scanned now
        self.refusing = 0  # threads that tell a client beyond MAX_CONNECTIONS so
        self.connections: set[Any] = set()
        self._interval = 0.0
        self._denials = DenialCounts()
        self._lock = threading.Lock()
        self.kept = KeptConnections()
        if settings.on_audit_failure == "deny":
            log.add_failure_listener(self._audit_failure)

    def join(self, handler: Any) -> bool:
        """Count a connection in, unless there are too many."""
        with self._lock:
            if len(self.connections) >= MAX_CONNECTIONS or self.stopping:
                return False
            self.connections.add(handler)
            self._share_interpreter()
            return True

    def leave(self, handler: Any) -> None:
        """Count a connection out."""
        with self._lock:
            self.connections.discard(handler)
            self._share_interpreter()

    def scans(self, change: int) -> None:
        """Count the streams that are scanned."""
        with self._lock:
            self.streams += change
            self._share_interpreter()

    def _share_interpreter(self) -> None:
        """A stream's scan must not keep others waiting; without one, or with a crowd of threads that wake up once an interval, a longer one is faster."""
        interval = (
            SWITCH_INTERVAL if self.streams and len(self.connections) < CROWD else CROWD_INTERVAL
        )
        if interval != self._interval:
            self._interval = interval
            sys.setswitchinterval(interval)

    def refuse(self, change: int) -> None:
        """Count the threads that tell a client of being too many."""
        with self._lock:
            self.refusing += change

    def exchanges(self) -> list[Any]:
        """The exchanges that run now."""
        with self._lock:
            return [handler.exchange for handler in self.connections if handler.exchange]

    def count_request(self, method: bytes, status: int) -> None:
        """Count an answered request; unknown methods together, since clients invent them."""
        with self._lock:
            self.requests[method.decode() if method in KNOWN_METHODS else "other", status] += 1

    def masked(self, path: str) -> str:
        """A path for a record: what looks like a secret in it is redacted."""
        raw = path.encode("utf-8", "surrogateescape")
        for match in reversed(self.scanner.scan(raw)):
            raw = (
                raw[: match.start]
                + redact_bytes(raw[match.start : match.end]).encode()
                + raw[match.end :]
            )
        return raw[:MASKED_PATH].decode("utf-8", "replace")

    def record_denial(
        self, event: str, method: str, path: str, client: dict[str, Any], rule: str
    ) -> None:
        """Write a `denied` or `would_deny` record, the same one at most once a minute with its count."""
        who = client.get("address", client.get("uid"))
        key = (event, method, path, client["listener"], who, rule)
        with self._lock:
            self.denied += event == "denied"
            due = self._denials.add(key, (event, method, path, client, rule), time.monotonic())
        self._write_denials(due)

    def _write_denials(self, due: Iterable[tuple[tuple[Any, ...], int]]) -> None:
        for (event, method, path, client, rule), count in due:
            fields = {
                "method": method,
                "path": self.masked(path),
                "client": client,
                "rule": rule,
                "count": count,
            }
            self.log.accept(event, fields)

    def _audit_failure(self, failed: bool) -> None:
        """With --on-audit-failure deny: what would go unrecorded is cut; all other requests go on."""
        if failed:
            for exchange in self.exchanges():
                if exchange.auditor:
                    exchange.cut("audit_failure")

    def stop(self, deadline: float) -> None:
        """Let open requests finish until `deadline` (monotonic); what never ends by itself is cut at once."""
        self.stopping = True
        while True:
            with self._lock:
                handlers = list(self.connections)
            overdue = time.monotonic() > deadline
            for handler in handlers:
                exchange = handler.exchange
                if exchange is None:
                    wake(handler.connection)
                elif overdue or exchange.endless:
                    exchange.cut("shutdown")
            if not handlers or time.monotonic() > deadline + 0.5:
                break
            time.sleep(0.02)
        with self._lock:
            due = self._denials.drain()
        self._write_denials(due)
        self.resolver.stop()
        finish_executor(self.scanning, deadline + 0.5)


class KeptConnections:
    """Kept connections that wait for their next request: one of the waiting threads waits for them all, and serves what is short.

    Leaders and followers (Schmidt et al., Pattern-Oriented Software Architecture 2): where each thread waits for its own
    client and engine, 32 clients at once hand the interpreter on eight times a request, and get half as many answers.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, Any] = {}  # by the descriptor of either side
        self._leader: Any | None = None
        self._lock = threading.Lock()

    def wait(self, handler: Any) -> None:
        """Lend a connection, until it needs its own thread: what came is in its `buffer`, or in an `exchange` that has begun."""
        with self._lock:
            try:
                for fileno in handler.descriptors():
                    self._epoll.register(fileno, select.EPOLLIN)
                    self._waiting[fileno] = handler
            except OSError:  # the kernel has no room for it: then it waits for itself
                self._remove(handler)
                return
            follows = self._leader is not None
            if not follows:
                self._leader = handler
        if follows:  # decided under the lock: once it is free, the leader may call this one to lead
            handler.called.acquire()
        if self._leader is handler:
            self._lead(handler)

    def _lead(self, handler: Any) -> None:
        """Serve all that wait until the leader's own connection needs its thread; then another leads."""
        own = handler.connection.fileno()
        try:
            while own in self._waiting:
                for fileno, _ in self._epoll.poll(-1, EVENTS_A_TURN):
                    waiting = self._waiting.get(fileno)
                    if waiting and not waiting.serve_short(fileno):
                        self._give_back(waiting)
        finally:
            with self._lock:
                self._remove(handler)
                self._leader = next(iter(self._waiting.values()), None)
                if self._leader:
                    self._leader.called.release()

    def _give_back(self, handler: Any) -> None:
        with self._lock:
            self._remove(handler)
        if handler is not self._leader:
            handler.called.release()

    def _remove(self, handler: Any) -> None:
        for fileno in handler.descriptors():
            if self._waiting.pop(fileno, None):
                self._epoll.unregister(fileno)


def finish_executor(executor: ThreadPoolExecutor, deadline: float) -> None:
    """Let an executor finish its jobs, but not beyond `deadline` (monotonic)."""
    executor.shutdown(wait=False)
    for thread in list(executor._threads):  # there is no public way to join with a limit
        thread.join(max(0.0, deadline - time.monotonic()))
