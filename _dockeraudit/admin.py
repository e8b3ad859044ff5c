"""The admin listener: health, metrics and the page of what runs now.

It is apart from the Docker listeners, whose API has paths of its own. Like them it answers no web
page: the page of what runs now names containers and clients.
"""

from __future__ import annotations

import http.client
import os
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from typing import Any, Callable, NamedTuple

from _dockeraudit import __version__
from _dockeraudit.admission import browser_refusal
from _dockeraudit.engine import engine_answer
from _dockeraudit.errors import HTTPError, ListenError, defect
from _dockeraudit.http1 import RequestHead, head_length
from _dockeraudit.proxy import Proxy
from _dockeraudit.remoteengine import Engine
from _dockeraudit.routes import Route, read_request
from _dockeraudit.settings import Address
from _dockeraudit.sockets import HEAD_TIMEOUT, bind_unix, listen_failure, shut_down

ADMIN_CONNECTIONS = (
    64  # open at once, a thread each; a new one takes the longest silent one's place
)
ADMIN_HEAD = 16 << 10  # bytes of a request's head, which a browser's cookies can fill
ANSWER_TIMEOUT = 30.0  # seconds in which a client must take its answer
ADMIN_POLL = 0.25  # seconds until the accepting thread notices that it is to stop
PLAIN_TEXT = "text/plain; charset=utf-8"
Samples = list[tuple[str, float]]  # label sets and values


class Metric(NamedTuple):
    """A metric in Prometheus' text format."""

    name: str
    kind: str
    text: str
    samples: Samples

    def lines(self) -> Iterator[str]:
        """Its lines."""
        yield f"# HELP dockeraudit_{self.name} {self.text}"
        yield f"# TYPE dockeraudit_{self.name} {self.kind}"
        for labels, value in self.samples:
            yield f"dockeraudit_{self.name}{f'{{{labels}}}' if labels else ''} {value}"


def metrics_text(proxy: Proxy) -> str:
    """The state as Prometheus reads it (text format 0.0.4)."""
    metrics = [*traffic_metrics(proxy), *log_metrics(proxy.log.counters()), *state_metrics(proxy)]
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def traffic_metrics(proxy: Proxy) -> Iterator[Metric]:
    """What clients ask for, and what is open now."""
    requests = sorted(proxy.request_counts().items())
    exchanges = proxy.connections.exchanges()
    scans = (scan for each in exchanges for scan in (each.scanner, each.answers) if scan)
    lag = sum(scan.waiting for scan in scans)
    yield Metric(
        "requests_total",
        "counter",
        "Requests answered by the engine or by dockeraudit itself; method none: a connection "
        "that was refused before its request.",
        [(f'method="{method}",status="{status}"', count) for (method, status), count in requests],
    )
    yield counter("denied_total", "Requests refused by a rule.", proxy.denied)
    connections = proxy.connections
    yield gauge("connections", "Connections of clients open now.", len(connections.open()))
    yield gauge("connections_max", "Connections that may be open at once.", connections.most)
    open_now = sum(bool(exchange.audit) for exchange in exchanges)
    yield gauge("open_streams", "Audited streams and tunnels open now.", open_now)
    yield gauge("scan_lag_bytes", "Bytes delivered to clients that wait to be scanned.", lag)


def log_metrics(counters: Mapping[str, Any]) -> Iterator[Metric]:
    """What was scanned, found and recorded."""
    yield counter("stream_bytes_total", "Payload bytes of audited streams.", counters["bytes"])
    yield counter("stream_frames_total", "Frames of audited streams.", counters["frames"])
    findings = finding_samples(counters["findings"])
    yield Metric("findings_total", "counter", "Findings, repeats included.", findings)
    yield Metric(
        "findings_by_endpoint_total",
        "counter",
        "Findings by where they were seen: logs, attach, inspect, list, build and so on.",
        finding_samples(counters["endpoints"], "endpoint"),
    )
    yield counter("scan_gap_bytes_total", "Bytes that passed unscanned.", counters["unscanned"])
    yield counter("audit_records_written_total", "Records in the audit log.", counters["written"])
    yield counter(
        "audit_records_lost_total", "Records that were lost, counted in gaps.", counters["lost"]
    )
    yield gauge(
        "audit_degraded", "1 while the audit log cannot be written.", int(counters["degraded"])
    )


def state_metrics(proxy: Proxy) -> Iterator[Metric]:
    """The engine, and what runs."""
    answers = int(engine_answers(proxy.settings.upstream))
    yield gauge("engine_up", "1 if the engine answers.", answers)
    version = f'version="{__version__}",python="{sys.version.split()[0]}"'
    yield Metric("build_info", "gauge", "What runs.", [(version, 1)])


def counter(name: str, text: str, value: float) -> Metric:
    """A metric that only grows."""
    return Metric(name, "counter", text, [("", value)])


def gauge(name: str, text: str, value: float) -> Metric:
    """A metric that goes up and down."""
    return Metric(name, "gauge", text, [("", value)])


def finding_samples(findings: Mapping[tuple[str, str], int], label: str = "pattern") -> Samples:
    """Label sets and counts of the findings by pattern, or by another label, and severity."""
    quote = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return [
        (f'{label}="{value.translate(quote)}",severity="{severity}"', count)
        for (value, severity), count in sorted(findings.items())
    ]


def engine_answers(engine: Engine) -> bool:
    """Whether the engine answers /_ping within a second."""
    try:
        return engine_answer(engine, "/_ping", 1.0)[0] == 200
    except (HTTPError, OSError):
        return False


def live_state(proxy: Proxy) -> dict[str, Any]:
    """What runs now, for the page at `/`."""
    streams = [
        {
            "stream": exchange.audit.number,
            "endpoint": exchange.route.endpoint,
            "container": exchange.audit.container_name or exchange.route.name,
            "client": exchange.connection.identity,
            "seconds": round(time.monotonic() - exchange.begun),
            "bytes": exchange.scanner.bytes if exchange.scanner else exchange.tunnelled,
        }
        for exchange in proxy.connections.exchanges()
        if exchange.audit
    ]
    return {
        "streams": streams,
        "counters": proxy.log.counters(),
        "engine_up": engine_answers(proxy.settings.upstream),
    }


class Answer(NamedTuple):
    """An answer of the admin listener."""

    status: int
    text: str
    content_type: str = PLAIN_TEXT

    def encoded(self, with_body: bool) -> bytes:
        """The answer as it is sent; the connection closes behind it."""
        body = self.text.encode("utf-8", "replace")
        fields = (
            f"HTTP/1.1 {self.status} {http.client.responses[self.status]}",
            "Server: dockeraudit",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: DENY",  # the page's own policy cannot say this
            "Connection: close",
        )
        head = "\r\n".join(fields).encode() + b"\r\n\r\n"
        return head + (body if with_body else b"")


class AdminHandler(BaseRequestHandler):
    """One request: `/healthz` (the process), `/readyz` (engine and log), `/metrics`, or `/`."""

    server: AdminServer

    def handle(self) -> None:
        """Read a head, and answer it."""
        try:
            method, answer = self._answer()
            if answer:
                self.request.settimeout(ANSWER_TIMEOUT)
                self.request.sendall(answer.encoded(with_body=method != b"HEAD"))
        except OSError:
            pass  # the client is gone, or takes nothing
        finally:
            self.server.finished(self.request)

    def _answer(self) -> tuple[bytes, Answer | None]:
        """The request's method and its answer, None for a client that never asked."""
        try:
            raw = self._read_head()
            if raw is None:
                return b"GET", None
            self.server.answering(self.request)
            head, route = read_request(raw)
            return head.method, self._admitted_answer(head, route)
        except HTTPError as error:
            return b"GET", Answer(error.status, f"{error}\n")

    def _read_head(self) -> bytes | None:
        """A request's head, within HEAD_TIMEOUT; None where the client ends before; HTTPError."""
        deadline = time.monotonic() + HEAD_TIMEOUT
        buffer = b""
        while True:
            length = head_length(buffer) if buffer else 0
            if length:
                return buffer[:length]
            if len(buffer) > ADMIN_HEAD:
                raise HTTPError(431, f"the request's head is larger than {ADMIN_HEAD} bytes")
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.request.settimeout(left)
            try:
                data = self.request.recv(ADMIN_HEAD)
            except (TimeoutError, socket.timeout):  # two classes before Python 3.10
                return None
            if not data:
                return None
            buffer += data

    def _admitted_answer(self, head: RequestHead, route: Route) -> Answer:
        """The answer, unless the request is a web page's."""
        settings = self.server.proxy.settings
        if self.request.family != socket.AF_UNIX and not settings.allow_browser:
            reason = browser_refusal(head, route, True, settings.allow_host)
            if reason:
                return Answer(403, f"refused: {reason}; --allow-host NAME admits a name\n")
        if head.method not in (b"GET", b"HEAD"):
            return Answer(405, "only GET and HEAD\n")
        return self._page(route.path)

    def _page(self, path: str) -> Answer:
        proxy = self.server.proxy
        if path == "/healthz":
            return Answer(200, "ok\n")
        if path == "/readyz":
            broken = list(self._broken(proxy))
            return Answer(503 if broken else 200, "\n".join(broken or ["ready"]) + "\n")
        if path == "/metrics":
            return Answer(200, metrics_text(proxy), "text/plain; version=0.0.4; charset=utf-8")
        if path == "/":
            return Answer(200, self.server.page(live_state(proxy)), "text/html; charset=utf-8")
        return Answer(404, "there is /, /healthz, /readyz and /metrics\n")

    @staticmethod
    def _broken(proxy: Proxy) -> Iterator[str]:
        """What keeps the service from being ready."""
        if not engine_answers(proxy.settings.upstream):
            yield f"the engine at {proxy.settings.upstream} does not answer"
        if proxy.log.counters()["degraded"]:
            yield "the audit log cannot be written"


class AdminServer(ThreadingHTTPServer):
    """The admin listener: a bounded number of connections, a thread and one request each.

    Threads. `_lock` guards the tables of connections; it is never held over a system call that
    waits.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = ADMIN_CONNECTIONS

    def __init__(
        self, proxy: Proxy, address: Address, page: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self.proxy = proxy
        self.page = page
        self.address_family = address.family
        self._address = address
        self._inode: int | None = None
        self._lock = threading.Lock()
        self._silent: OrderedDict[int, socket.socket] = OrderedDict()  # whose head has not come
        self._open: set[int] = set()
        try:
            super().__init__(address.target, AdminHandler)
        except OSError as error:
            raise ListenError(listen_failure(address.url, "--admin-listen", error)) from error

    def server_bind(self) -> None:
        """Bind without the base class's look-up of host names."""
        if self.address_family == socket.AF_UNIX:
            path = str(self._address.target)
            bind_unix(self.socket, path, 0o600)
            self._inode = os.stat(path).st_ino
        else:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self._address.target)
        self.server_address = self.socket.getsockname()

    def start(self) -> None:
        """Accept in a thread of its own."""
        threading.Thread(
            target=self.serve_forever, name="admin", args=(ADMIN_POLL,), daemon=True
        ).start()

    def stop(self) -> None:
        """Stop accepting, close, and remove the socket's path if it is still ours."""
        self.shutdown()
        self.server_close()
        path = str(self._address.target)
        try:
            if self._inode is not None and os.stat(path).st_ino == self._inode:
                os.unlink(path)
        except OSError:
            pass  # gone already

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection.

        When all are taken, the longest silent one is closed for it; itself, if none is silent.
        """
        full, oldest = self._enter(request)
        if oldest is not None:
            shut_down(oldest)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def _enter(self, request: socket.socket) -> tuple[bool, socket.socket | None]:
        """Count a connection in: whether there is no room, and which silent one gives way."""
        with self._lock:
            oldest = None
            if len(self._open) >= ADMIN_CONNECTIONS:
                if not self._silent:
                    return True, None
                key, oldest = self._silent.popitem(last=False)
                self._open.discard(key)
            self._open.add(id(request))
            self._silent[id(request)] = request
            return False, oldest

    def answering(self, request: socket.socket) -> None:
        """A connection's head has come: it keeps its thread."""
        with self._lock:
            self._silent.pop(id(request), None)

    def finished(self, request: socket.socket) -> None:
        """A connection ends."""
        with self._lock:
            self._silent.pop(id(request), None)
            self._open.discard(id(request))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An exception that nobody expected: say its kind and place, never its values."""
        kind, place = defect(sys.exc_info()[1])
        text = f"a connection to the admin listener was closed by a defect: {kind} at {place}"
        self.proxy.diagnostics.seldom("error", f"defect {kind} {place}", text)
