"""What all connections share: settings, log, executors, counters, and the connections themselves.

Threads. Each listener's thread accepts connections. A connection's thread relays, and alone reads
and writes its sockets. Some threads scan, beside `--workers`; some ask the engine for names, one
writes the log.
The main thread waits for signals and stops everything. `Proxy._lock` guards the counters and is
never held over a system call.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from _dockeraudit.admission import Denial, DenialCounts
from _dockeraudit.answers import AnswerAudit
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.baseline import KnownSecrets
from _dockeraudit.connections import Connections
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.doorman import Doorman
from _dockeraudit.engine import EngineKind, Lookups
from _dockeraudit.http1 import RequestHead
from _dockeraudit.keptconnections import KeptConnections
from _dockeraudit.policy import Decision, Policy
from _dockeraudit.records import redact_bytes
from _dockeraudit.routes import MAX_PATH, Route, cut_path, method_name
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import ScanBudget
from _dockeraudit.secretsmemory import SecretsMemory
from _dockeraudit.settings import Settings
from _dockeraudit.sockets import shut_down
from _dockeraudit.workers import JOB_THREADS, Workers, finish_executor, worker_pool

MAX_HEADS = 64 << 20  # bytes that all large heads under way may hold together
SCANNED_PATH = 2 * MAX_PATH  # bytes: a secret that begins before a record's cut is seen whole
STOP_POLL = 0.02  # seconds between looks at what still runs while stopping


class Proxy:
    """What all connections share."""

    def __init__(
        self,
        settings: Settings,
        log: AuditLog,
        scanner: Scanner,
        diagnostics: Diagnostics,
        known: KnownSecrets | None = None,
    ) -> None:
        self.settings = settings
        self.known = known or KnownSecrets()
        self.log = log
        self.scanner = scanner
        self.diagnostics = diagnostics
        self.budget = ScanBudget()
        beside = worker_pool() is not None
        threads = JOB_THREADS if beside else max(1, settings.workers)
        self.scanning = ThreadPoolExecutor(threads, thread_name_prefix="scan")
        count = settings.workers if beside else 0
        self.workers = Workers(count, scanner, diagnostics.say)
        secrets = SecretsMemory(self._rules_of_secrets)
        self.answers = AnswerAudit(log, self.budget, self.scanning, self.masked, secrets)
        self.lookups = Lookups(settings.upstream, secrets)
        self.engine_kind = EngineKind(settings.upstream)
        self.connections = Connections(settings.max_connections)
        self.doorman = Doorman()
        self.kept = KeptConnections()
        self.heads = ScanBudget(MAX_HEADS)
        self.stopping = False
        self.requests: Counter[tuple[str, int]] = Counter()
        self.denied = 0
        self._engine_fails = False
        self._denials = DenialCounts()
        self._lock = threading.Lock()
        if settings.on_audit_failure == "deny":
            log.add_failure_listener(self._audit_failure)

    def _rules_of_secrets(self) -> Scanner | None:
        """The rules by which containers' own secrets are found; None: they are not looked for."""
        return self.scanner if self.settings.own_secrets else None

    # -- counters and records

    def count_request(self, method: bytes | None, status: int) -> None:
        """Count an answered request; None for a connection that was refused before one."""
        with self._lock:
            self.requests[method_name(method) or "none", status] += 1

    def request_counts(self) -> dict[tuple[str, int], int]:
        """Answered requests so far by method and status."""
        with self._lock:
            return dict(self.requests)

    def record_request(
        self, method: bytes, route: Route, status: int, client: dict[str, Any], seconds: float
    ) -> None:
        """Count a request, and record one that changes something or copies data out."""
        self.count_request(method, status)
        reading = method in (b"GET", b"HEAD") and not route.exports
        if reading and self.settings.mode != "learn":  # to learn, all of the traffic is needed
            return
        fields = {
            "method": method_name(method),
            "path": self.masked(route.path),
            "status": status,
            "client": client,
            "seconds": round(seconds, 6),
        }
        self.log.accept_for(client, "request", fields)

    def masked(self, path: str) -> str:
        """A path for a record: cut, and what looks like a secret in it redacted."""
        raw = cut_path(path, SCANNED_PATH).encode("utf-8", "surrogateescape")
        pieces, at = [], 0
        for match in self.scanner.scan(raw):
            if match.start >= at:
                pieces += [
                    raw[at : match.start],
                    redact_bytes(raw[match.start : match.end]).encode(),
                ]
                at = match.end
        return cut_path(b"".join([*pieces, raw[at:]]).decode("utf-8", "replace"))

    def record_denial(
        self,
        event: str,
        method: bytes | None,
        path: str | None,
        client: dict[str, Any],
        rule: str,
        admits: str = "",
    ) -> None:
        """Write a `denied` or `would_deny` record, the same one at most once a minute.

        Method and path are None where they are not known: of a connection that was refused, or a
        head that could not be read. `admits`: see Denial.
        """
        name, masked = method_name(method), None if path is None else self.masked(path)
        with self._lock:
            self.denied += event == "denied"
            denial = Denial(event, name, masked, client, rule, admits and self.masked(admits))
            due = self._denials.add(denial, time.monotonic())
        self._write_denials(due)

    def do_what_is_due(self) -> None:
        """Write the counts of denials that are due, and let expired known findings count again."""
        self.workers.look()
        self.write_due_denials()
        self.log.allow(self.known.now())

    def write_due_denials(self) -> None:
        """Write the counts of denials that were last written a minute ago."""
        with self._lock:
            due = self._denials.due(time.monotonic())
        self._write_denials(due)

    def _write_denials(self, due: Iterable[tuple[Denial, int]]) -> None:
        for (event, method, path, client, rule, admits), count in due:
            fields = {"method": method, "path": path, "client": client, "rule": rule}
            if admits:
                fields["admits"] = admits
            self.log.accept_for(client, event, {**fields, "count": count})

    def decision(self, policy: Policy, head: RequestHead, route: Route) -> Decision:
        """What the listener's policy decides on a request, as this engine would read it."""
        known = not route.podman_version or self.engine_kind.is_podman()
        form = b"form" in (head.first(b"content-type") or b"").lower()  # may hold `logs=1` as well
        return policy.decide(
            head.method.decode(),
            route.path,
            version="" if known else route.podman_version,
            reads_log=route.reads_log or form,
        )

    # -- the engine and the log, as far as all are concerned

    def engine_failed(self, reason: str) -> None:
        """A request could not reach the engine: say so when that begins."""
        with self._lock:
            begins, self._engine_fails = not self._engine_fails, True
        if begins:
            self.diagnostics.say("warning", f"{reason}; requests get 502 until it answers")

    def engine_answered(self) -> None:
        """The engine has answered: say so where it had failed before."""
        if not self._engine_fails:
            return
        with self._lock:
            ends, self._engine_fails = self._engine_fails, False
        if ends:
            self.diagnostics.say("info", "the engine answers again")

    def _audit_failure(self, failed: bool) -> None:
        """With --on-audit-failure deny: cut the streams that would go unrecorded, nothing else."""
        if failed:
            for exchange in self.connections.exchanges():
                if exchange.audited:
                    exchange.cut("audit_failure")

    # -- the end

    def stop(self, deadline: float) -> None:
        """Let what ends by itself end until `deadline` (monotonic); cut the rest at once."""
        self.stopping = True
        cut: Counter[str] = Counter()
        while True:
            connections = self.connections.open()
            overdue = time.monotonic() > deadline
            for connection in connections:
                exchange = connection.exchange
                if exchange is not None and (overdue or exchange.endless):
                    if exchange.cut("shutdown"):
                        cut[exchange.kind] += 1
                elif overdue or not connection.request:
                    shut_down(connection.sock)
            if not connections or time.monotonic() > deadline + 0.5:
                break
            time.sleep(STOP_POLL)
        if cut:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(cut.items()))
            self.diagnostics.say("info", f"stopping: cut {kinds}")
        with self._lock:
            due = self._denials.drain()
        self._write_denials(due)
        self.kept.stop()
        self.lookups.stop()
        self.answers.jobs.stop(deadline + 0.5)
        self.workers.stop(deadline + 0.5)
        finish_executor(self.scanning, deadline + 0.5)
