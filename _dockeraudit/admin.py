"""The admin listener: health, metrics and the page of what runs now."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from _dockeraudit import __version__
from _dockeraudit.engine import engine_answer
from _dockeraudit.errors import HTTPError, ListenError
from _dockeraudit.proxy import Proxy
from _dockeraudit.settings import Address
from _dockeraudit.sockets import HEAD_TIMEOUT, remove_dead_socket


def metrics_text(proxy: Proxy) -> str:
    """The state as Prometheus reads it (text format 0.0.4)."""
    counters = proxy.log.counters()
    exchanges = proxy.connections.exchanges()
    lag = sum(exchange.scanner.waiting for exchange in exchanges if exchange.scanner)
    version = f'version="{__version__}",python="{platform.python_version()}"'
    requests = sorted(proxy.request_counts().items())
    families: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        (
            "requests_total",
            "counter",
            "Requests answered.",
            [(f'method="{m}",status="{s}"', n) for (m, s), n in requests],
        ),
        ("denied_total", "counter", "Requests refused by a rule.", [("", proxy.denied)]),
        (
            "open_streams",
            "gauge",
            "Audited streams and tunnels open now.",
            [("", sum(bool(e.audit) for e in exchanges))],
        ),
        (
            "stream_bytes_total",
            "counter",
            "Payload bytes of audited streams.",
            [("", counters["bytes"])],
        ),
        (
            "stream_frames_total",
            "counter",
            "Frames of audited streams.",
            [("", counters["frames"])],
        ),
        (
            "findings_total",
            "counter",
            "Findings, repeats included.",
            finding_samples(counters["findings"]),
        ),
        ("scan_lag_bytes", "gauge", "Bytes that wait to be scanned.", [("", lag)]),
        (
            "scan_gap_bytes_total",
            "counter",
            "Bytes that passed unscanned.",
            [("", counters["unscanned"])],
        ),
        (
            "audit_records_written_total",
            "counter",
            "Records in the audit log.",
            [("", counters["written"])],
        ),
        (
            "audit_records_lost_total",
            "counter",
            "Records that were lost, counted in gaps.",
            [("", counters["lost"])],
        ),
        (
            "audit_degraded",
            "gauge",
            "1 while the audit log cannot be written.",
            [("", int(counters["degraded"]))],
        ),
        (
            "engine_up",
            "gauge",
            "1 if the engine answers.",
            [("", int(engine_answers(proxy.settings.upstream)))],
        ),
        ("build_info", "gauge", "What runs.", [(version, 1)]),
    ]
    lines = []
    for name, kind, text, samples in families:
        lines += [f"# HELP dockeraudit_{name} {text}", f"# TYPE dockeraudit_{name} {kind}"]
        lines += [
            f"dockeraudit_{name}{{{labels}}} {value}" if labels else f"dockeraudit_{name} {value}"
            for labels, value in samples
        ]
    return "\n".join(lines) + "\n"


def finding_samples(findings: Mapping[tuple[str, str], int]) -> list[tuple[str, float]]:
    """Label sets and counts of the findings by pattern and severity."""
    quote = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return [
        (f'pattern="{pattern.translate(quote)}",severity="{severity}"', count)
        for (pattern, severity), count in sorted(findings.items())
    ]


def engine_answers(socket_path: str) -> bool:
    """Whether the engine answers /_ping within a second."""
    try:
        return engine_answer(socket_path, "/_ping", 1.0)[0] == 200
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


class AdminHandler(BaseHTTPRequestHandler):
    """`/healthz` (the process), `/readyz` (engine and log), `/metrics`, and `/`, the page of what runs now."""

    server_version = "dockeraudit"
    sys_version = ""
    timeout = HEAD_TIMEOUT
    server: AdminServer

    def do_GET(self) -> None:
        """Answer one of the four."""
        proxy = self.server.proxy
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._send(200, "ok\n")
        elif path == "/readyz":
            broken = [text for text, bad in self._checks(proxy) if bad]
            self._send(503 if broken else 200, "\n".join(broken or ["ready"]) + "\n")
        elif path == "/metrics":
            self._send(200, metrics_text(proxy), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/":
            self._send(200, self.server.page(live_state(proxy)), "text/html; charset=utf-8")
        else:
            self._send(404, "there is /, /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET

    @staticmethod
    def _checks(proxy: Proxy) -> Iterator[tuple[str, bool]]:
        yield (
            f"the engine at {proxy.settings.upstream} does not answer",
            not engine_answers(proxy.settings.upstream),
        )
        yield "the audit log cannot be written", bool(proxy.log.counters()["degraded"])

    def _send(
        self, status: int, text: str, content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")  # the page's own policy cannot say this
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""


class AdminServer(ThreadingHTTPServer):
    """The admin listener: apart from the Docker listeners, since its paths would shadow the API."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, proxy: Proxy, address: Address, page: Callable[[Mapping[str, Any]], str]
    ) -> None:
        self.proxy = proxy
        self.page = page
        self.address_family = address.family
        self._address = address
        try:
            super().__init__(address.target, AdminHandler)
        except OSError as error:
            raise ListenError(
                f"cannot listen on {address.url} (--admin-listen): {error.strerror or error}"
            ) from error

    def server_bind(self) -> None:
        """Bind without the base class's look-up of host names."""
        if self.address_family == socket.AF_UNIX:
            remove_dead_socket(str(self._address.target))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self._address.target)
        self.server_address = self.socket.getsockname()
