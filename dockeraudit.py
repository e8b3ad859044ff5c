#!/usr/bin/env python3
"""dockeraudit: a Docker socket proxy that audits log streams.

It stands between Docker clients and the engine's Unix socket, relays the whole Engine API byte for byte, and looks for
leaked secrets in the container output that flows past. One JSON line for each goes to an audit log. MIT licence.

    client ──bytes──▶ RequestHead ─▶ classify ─▶ admission ─▶ UnixHTTPConnection ─▶ engine
       ▲                                                            │
       │                 verbatim block, sent at once               ▼
       └──────────────────────────◀────────────────────── ResponseHead + body
                                             copy of the block │ bounded, ordered per stream
                                                               ▼
           AuditLog ◀─ redact ◀─ Scanner ◀─ TextScanner ◀─ StreamDemuxer ◀─ ChunkedReader

Sections, low to high, each using only those above it:

    limits and errors      every bound of the wire, with its reason; what can go wrong
    HTTP/1.1 messages      heads and bodies, sans I/O (RFC 9112)
    routes                 what a target means to the engine, and what of it is audited
    Docker streams         frames and WebSocket messages to runs of bytes, sans I/O
    scanning a stream      runs to lines to findings, beside the relay, bounded
    upstream               the engine's socket, and the names of its containers
    relay                  one exchange, both directions in one loop
    servers                listeners, the handler of a connection, start and stop
    observation            health, metrics and the page of the admin listener
    command line           options, configuration, subcommands

Three ways to read it. What is recorded: `auditlog`, from `TextScanner` and `Exchange`. What is changed on the wire:
`forwarded_request_head` and `forwarded_response_head`, nothing else. What counts as a secret: `patterns`.
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import resource
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, NoReturn

if sys.version_info < (3, 9):  # before the imports below, which need it
    sys.stderr.write(
        "dockeraudit needs Python 3.9 or newer; this is %d.%d\n" % sys.version_info[:2]
    )
    sys.exit(78)

# --- lone file check: begin
if any(importlib.util.find_spec(name) is None for name in ("patterns", "_dockeraudit")):
    sys.stderr.write(
        "dockeraudit: this file needs patterns.py and the folder _dockeraudit beside it; "
        "copy all three, or the single file that 'make dist' writes to dist/dockeraudit.py\n"
    )
    sys.exit(78)
# --- lone file check: end

from _dockeraudit.admin import AdminServer
from _dockeraudit.admission import browser_refusal
from _dockeraudit.commands import (
    command_healthcheck,
    command_learn,
    command_report,
    command_rules,
    command_verify,
)
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import BLOCK, NO_DESCRIPTORS, UnixHTTPConnection, ask_engine
from _dockeraudit.errors import (
    EXIT_CANNOT_LISTEN,
    EXIT_CONFIGURATION,
    EXIT_LOST,
    AuditLogError,
    ConfigurationError,
    Denied,
    HTTPError,
    ListenError,
)
from _dockeraudit.exchange import Exchange
from _dockeraudit.http1 import HEAD_END, HTTP2_PREFACE, RequestHead, error_response, head_length
from _dockeraudit.options import load_listeners, load_scanner, load_settings, open_log
from _dockeraudit.policy import refusal
from _dockeraudit.proxy import MAX_CONNECTIONS, Proxy
from _dockeraudit.report import live_page
from _dockeraudit.routes import Route, read_request
from _dockeraudit.scan import command_scan
from _dockeraudit.settings import Address, Listener, Settings
from _dockeraudit.sockets import (
    GONE,
    HEAD_TIMEOUT,
    TCP_OPTIONS,
    Waiting,
    certificate_subject,
    half_close,
    inherited_sockets,
    listens_at,
    notify_systemd,
    peer_identity,
    receive,
    remove_dead_socket,
    send_some,
)

HEAD_BLOCK = 8 << 10  # bytes read at once while a request is awaited
FIRST_BYTE_TIMEOUT = (
    60.0  # seconds until a connection's first byte; Go's pools dial ahead, so it is closed silently
)
LINGER = 1.0  # seconds a refused client's bytes are read and dropped: closing over unread bytes would reset its reply
BACKLOG = 1024  # connections waiting in the kernel; the kernel itself cuts it to net.core.somaxconn
SHUTDOWN_POLL = 0.25  # seconds until an accepting thread notices that it is to stop
DESCRIPTORS = (
    2 * MAX_CONNECTIONS + 128
)  # wanted: two a connection, and the log, the listeners, look-ups
COMPLAINT_INTERVAL = 60.0  # seconds in which a shortage of descriptors is told once
MAX_REFUSALS = (
    64  # threads that say 503 at the same time; connections beyond those are closed without a word
)
DESCRIPTOR_PAUSE = 0.2  # seconds without accepting when descriptors have run out: never a spin


class ProxyHandler(BaseHTTPRequestHandler):
    """A client's connection: its requests, one after another, each an Exchange with the engine.

    Answers of its own: 400 illegal HTTP, 403 refused, 408 a head that does not end, 431 too large, 502 no engine, 503.
    """

    server: RelayServer

    def setup(self) -> None:
        """Take the socket over; nothing of the base class's buffered files is used."""
        self.connection: socket.socket = self.request
        self.proxy = self.server.proxy
        self.listener = self.server.listener
        self.buffer = b""  # bytes from the client that no exchange has claimed yet
        self.client_eof = False
        self.exchange: Exchange | None = None
        self.upstream: UnixHTTPConnection | None = None  # kept between requests
        self.identity: dict[str, Any] = {"listener": self.listener.name}
        self.served = 0
        self.called = (
            threading.Lock()
        )  # held, but for the moment in which another thread calls this one
        self.called.acquire()

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        try:
            if not self.proxy.join(self):
                self._overfull()
                return
            if self._begin():
                while self._serve():
                    self.served += 1
        except GONE:
            pass  # the client is gone, and nothing of it is left
        except (TimeoutError, socket.timeout):  # two classes before Python 3.10
            pass  # a TLS handshake that did not end
        except OSError as error:
            self.proxy.diagnostics.say(
                "error", f"a connection to {self.listener.name} failed: {error}; it was closed"
            )

    def finish(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.proxy.leave(self)
        self._drop_upstream()
        if isinstance(self.connection, ssl.SSLSocket):
            half_close(self.connection)  # without it a client takes the end for a cut
        self.connection.close()

    def _begin(self) -> bool:
        """Learn who it is, and shake hands where the listener speaks TLS; whether requests may follow."""
        self.identity = peer_identity(self.connection, self.client_address, self.listener.name)
        encrypted = self.listener.tls is None or self._shake_hands(self.listener.tls)
        if self.listener.tls:
            self.connection.setblocking(False)
        if not encrypted:
            self._refuse(
                400,
                "this listener speaks TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH",
                b"GET",
            )
        return encrypted

    def _shake_hands(self, context: ssl.SSLContext) -> bool:
        """TLS, within HEAD_TIMEOUT in all; False for a client whose first byte begins no handshake (RFC 8446 §5.1)."""
        deadline = time.monotonic() + HEAD_TIMEOUT
        self.connection.settimeout(HEAD_TIMEOUT)
        if self.connection.recv(1, socket.MSG_PEEK) not in (b"\x16", b""):
            return False
        self.connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except ssl.SSLError as error:
            who = self.identity.get("address")
            self.proxy.diagnostics.say(
                "debug", f"{self.listener.name}: no TLS with {who}: {error.reason}"
            )
            raise
        certificate = self.connection.getpeercert()
        if certificate:
            self.identity["certificate"] = certificate_subject(certificate)
        return True

    def _overfull(self) -> None:
        if self.proxy.stopping or self.listener.tls:  # a handshake is what a crowd must not get
            return
        self.connection.setblocking(False)
        self.proxy.refuse(+1)
        try:
            self._refuse(
                503,
                f"there are {MAX_CONNECTIONS} open connections already; try again later",
                b"GET",
            )
        finally:
            self.proxy.refuse(-1)

    # -- one request

    def _serve(self) -> bool:
        """One request; whether another may follow on this connection."""
        method = b"GET"
        try:
            if self._lendable():
                self._quiet_engine()
                self.proxy.kept.wait(self)
            if self.exchange:
                method = self.exchange.head.method
                return self._finish_exchange(self.exchange)
            raw = self._read_head()
            if raw is None:
                return False
            self.listener = self.server.listener  # SIGHUP may have changed its rules
            if raw.startswith(HTTP2_PREFACE):
                return self._http2(raw)
            head, route = read_request(raw)
            method = head.method
            self._admit(head, route)
            return self._relay(head, route)
        except HTTPError as error:
            if not self.exchange or not self.exchange.answered:
                self._refuse(error.status, str(error), method)
            return False
        finally:
            self.exchange = None

    def _read_head(self) -> bytes | None:
        """The next head with its empty line; None when the client has no more requests. Raises HTTPError."""
        seen = 0
        deadline = time.monotonic() + (FIRST_BYTE_TIMEOUT if not self.served else float("inf"))
        started = False
        while True:
            if self.buffer and not started:
                started, deadline = True, time.monotonic() + HEAD_TIMEOUT
            length = head_length(self.buffer, seen) if self.buffer else 0
            if length:
                raw, self.buffer = self.buffer[:length], self.buffer[length:]
                return raw
            seen = len(self.buffer)
            if self.client_eof or self.proxy.stopping:
                return None
            if not self._readable(deadline - time.monotonic()):
                if started:
                    raise HTTPError(
                        408, f"the request's head was not complete after {HEAD_TIMEOUT:.0f} seconds"
                    )
                return None
            data = receive(self.connection)
            self.client_eof = data == b""
            self.buffer += data or b""

    def _readable(self, timeout: float) -> bool:
        """Wait until the client has something to say."""
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.pending():
            return True
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout == float("inf") else max(0.0, timeout) * 1000))

    def _admit(self, head: RequestHead, route: Route) -> None:
        """Raise Denied for what must not reach the engine."""
        for rule, message in self._objections(head, route):
            self._deny(head, route, rule, message)
        if (
            self.proxy.settings.on_audit_failure == "deny"
            and route.audited
            and self.proxy.log.failed()
        ):
            raise Denied(
                503,
                "audit",
                "the audit log cannot be written, and streams that would go unrecorded are refused",
            )

    def _objections(self, head: RequestHead, route: Route) -> Iterator[tuple[str, str]]:
        """The rules that a request breaks, each with what its client is told."""
        settings = self.proxy.settings
        on_tcp = self.listener.address.family != socket.AF_UNIX
        if on_tcp and "certificate" not in self.identity and not settings.allow_browser:
            encrypted = isinstance(self.connection, ssl.SSLSocket)
            reason = browser_refusal(head, route, not encrypted, settings.allow_host)
            if reason:
                hint = "; if this is meant, start dockeraudit with --allow-browser, or with --allow-host NAME for its name"
                yield "browser", f"a request from a web page is refused: {reason}{hint}"
        decisions = []
        if self.listener.clients:
            decisions.append(self.listener.clients.admits(self.identity))
        if self.listener.policy:
            decisions.append(self.listener.policy.decide(head.method.decode(), route.path))
        for decision in decisions:
            if not decision.allowed:
                yield (
                    decision.rule,
                    refusal(head.method.decode(), self.proxy.masked(route.path), decision),
                )

    def _deny(self, head: RequestHead, route: Route, rule: str, message: str) -> None:
        learning = self.proxy.settings.mode == "learn" and rule != "browser"
        event = "would_deny" if learning else "denied"
        self.proxy.record_denial(event, head.method.decode(), route.path, self.identity, rule)
        if not learning:
            self.proxy.count_request(head.method, 403)
            raise Denied(403, rule, message)

    def _relay(self, head: RequestHead, route: Route) -> bool:
        """Relay one request and its answer; whether the connection can carry another."""
        engine, reused = self._engine()
        self.exchange = Exchange(self, head, route, engine, reused)
        return self._finish_exchange(self.exchange)

    def _finish_exchange(self, exchange: Exchange) -> bool:
        """Relay the rest of it; whether the connection can carry another."""
        exchange.run()
        if exchange.stale:
            self._drop_upstream()
            exchange = self.exchange = Exchange(
                self, exchange.head, exchange.route, self._engine()[0], False
            )
            exchange.run()
        if not exchange.keep_engine or exchange.over:
            self._drop_upstream()
        keep = (
            exchange.keep_client
            and not exchange.over
            and exchange.upload.done
            and not self.proxy.stopping
        )
        if not keep and not exchange.over and not self.client_eof:
            self._linger()
        return keep

    # -- requests that another thread serves, one that waits as this one does

    def _lendable(self) -> bool:
        """Whether the next request may be waited for by another thread: between requests, and without TLS."""
        between = (
            self.served and not self.buffer and not self.client_eof and not self.proxy.stopping
        )
        return bool(between) and not isinstance(self.connection, ssl.SSLSocket)

    def descriptors(self) -> Iterator[int]:
        """Of the client's connection, and of the kept one to the engine."""
        yield self.connection.fileno()
        if self.upstream:
            yield self.upstream.sock.fileno()

    def serve_short(self, fileno: int) -> bool:
        """Serve what comes on one of them; False for what may take long, and is for the connection's own thread."""
        try:
            if fileno == self.connection.fileno():
                return self.exchange is None and self._begin_short()
            return self.exchange is not None and self._hear_short(self.exchange)
        except Exception as error:  # its own thread is to meet with it, and no other: in the exchange, or when it reads the head again
            if self.exchange:
                self.exchange.failure = error
            return False

    def _begin_short(self) -> bool:
        data = receive(self.connection, HEAD_BLOCK)
        if data is None:
            return True
        self.buffer, self.client_eof = data, not data
        if self.upstream is None or data.find(HEAD_END) != len(data) - 4 or self.proxy.stopping:
            return False
        self.listener = self.server.listener
        head, route = read_request(data)
        if (
            not head.replayable
            or route.endpoint != "other"
            or b"upgrade" in head.index
            or next(self._objections(head, route), None)
        ):
            return False
        self.exchange = Exchange(self, head, route, self.upstream.sock, True)
        self.buffer = b""
        self.exchange.start()
        return not self.exchange.to_engine

    def _hear_short(self, exchange: Exchange) -> bool:
        exchange.hear()
        if (
            exchange.finished
            and exchange.keep_client
            and exchange.keep_engine
            and not exchange.over
            and not self.proxy.stopping
        ):
            exchange.record()
            self.exchange = None
            self.served += 1
            return True
        return exchange.response is None and not exchange.over and not exchange.to_client

    # -- the engine

    def _engine(self) -> tuple[socket.socket, bool]:
        """A connection to the engine, the kept one if it is still quiet; and whether it was kept."""
        kept = self._quiet_engine()
        if kept:
            return kept, True
        self.upstream = UnixHTTPConnection(self.proxy.settings.upstream)
        self.upstream.connect()
        self.upstream.sock.settimeout(None)
        self._upstream_poll = select.poll()
        self._upstream_poll.register(self.upstream.sock.fileno(), select.POLLIN)
        return self.upstream.sock, False

    def _quiet_engine(self) -> socket.socket | None:
        """The kept connection, if it has not ended and says nothing unasked; else it is closed."""
        if self.upstream and self._upstream_poll.poll(0):
            self._drop_upstream()
        return self.upstream.sock if self.upstream else None

    def _drop_upstream(self) -> None:
        if self.upstream:
            self.upstream.close()
            self.upstream = None

    def _http2(self, raw: bytes) -> bool:
        """A bare HTTP/2 preface: refused as an engine without HTTP/2 does, or, if asked for, relayed unseen."""
        head = RequestHead(b"PRI", b"*", b"2.0", (), raw)
        route = Route("*", "", None, "other")
        if self.proxy.settings.http2 != "relay":
            self.proxy.record_denial("denied", "PRI", "*", self.identity, "http2")
            raise HTTPError(400, "HTTP/2 is not spoken here; use HTTP/1.1")
        if self.listener.policy or self.listener.clients:
            self._deny(
                head,
                route,
                "http2",
                "HTTP/2 cannot be held to this listener's rules, so it is refused",
            )
        exchange = self.exchange = Exchange(self, head, route, self._engine()[0], False)
        exchange.begin_opaque()
        exchange.run()
        return False

    def _refuse(self, status: int, message: str, method: bytes) -> None:
        """Answer for ourselves, and close so that the answer arrives."""
        rest: Waiting = error_response(status, message, method)
        deadline = time.monotonic() + LINGER
        while rest and time.monotonic() < deadline:
            rest = send_some(self.connection, rest)
            if rest:
                poll = select.poll()
                poll.register(self.connection.fileno(), select.POLLOUT)
                poll.poll(LINGER * 1000)
        self._linger()

    def _linger(self) -> None:
        """Close the sending side and drop what still comes, for a moment (RFC 9112 §9.6)."""
        half_close(self.connection)
        if isinstance(self.connection, ssl.SSLSocket):
            try:
                socket.socket.shutdown(self.connection, socket.SHUT_WR)
            except OSError:
                return
        deadline = time.monotonic() + LINGER
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        while time.monotonic() < deadline and poll.poll(
            max(0.0, deadline - time.monotonic()) * 1000
        ):
            try:
                if not socket.socket.recv(
                    self.connection, BLOCK
                ):  # of a TLS session: what it still encrypts
                    return
            except OSError:
                return


class RelayServer(ThreadingHTTPServer):
    """One listener, TCP or Unix; a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG
    allow_reuse_address = True

    def __init__(
        self, proxy: Proxy, listener: Listener, inherited: socket.socket | None = None
    ) -> None:
        self.proxy = proxy
        self.listener = listener
        self.address_family = listener.address.family
        self._complained = float("-inf")  # when running out of descriptors was last told
        self._inode: int | None = None
        try:
            super().__init__(
                listener.address.target, ProxyHandler, bind_and_activate=inherited is None
            )
        except OSError as error:
            raise ListenError(
                f"cannot listen on {listener.address.url}: {error.strerror or error}"
            ) from error
        if inherited is not None:
            self.socket.close()
            self.socket = inherited

    def server_bind(self) -> None:
        """Bind without the base class's look-up of host names."""
        if self.address_family == socket.AF_UNIX:
            self._bind_unix(str(self.listener.address.target))
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.listener.address.target)
        self.server_address = self.socket.getsockname()

    def _bind_unix(self, path: str) -> None:
        """Bind so that the socket is never open to others, not even for a moment, and replace only a dead one."""
        remove_dead_socket(path)
        before = os.umask(0o177)
        try:
            self.socket.bind(path)
        finally:
            os.umask(before)
        if self.listener.socket_group is not None:
            os.chown(path, -1, self.listener.socket_group)
        os.chmod(path, self.listener.socket_mode)
        self._inode = os.stat(path).st_ino
        self.server_address = (path, 0)

    def server_close(self) -> None:
        """Close, and remove the socket's path if it is still ours."""
        super().server_close()
        path = self.listener.address.target
        try:
            if self._inode is not None and os.stat(path).st_ino == self._inode:
                os.unlink(path)
        except OSError:
            pass  # gone already

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept. Out of descriptors: say so once, pause, go on: connections wait in the backlog meanwhile."""
        try:
            sock, address = self.socket.accept()
        except OSError as error:
            if error.errno in (*NO_DESCRIPTORS, errno.ENOBUFS, errno.ENOMEM):
                self._pause(error)
            raise
        if sock.family != socket.AF_UNIX:
            for level, option, value in TCP_OPTIONS:
                sock.setsockopt(level, option, value)
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, unless enough of them are busy with refusing."""
        if self.proxy.refusing >= MAX_REFUSALS:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def _pause(self, error: OSError) -> None:
        if time.monotonic() - self._complained > COMPLAINT_INTERVAL:
            self._complained = time.monotonic()
            text = f"cannot accept on {self.listener.address.url}: {error.strerror}; new connections wait until others close"
            self.proxy.diagnostics.say("error", text)
        time.sleep(DESCRIPTOR_PAUSE)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An exception nobody expected: named by kind and place, never with its values, which may hold secrets."""
        kind, _, trace = sys.exc_info()
        while trace and trace.tb_next:
            trace = trace.tb_next
        where = (
            f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
            if trace
            else "?"
        )
        name = kind.__name__ if kind else "error"
        self.proxy.diagnostics.say(
            "error",
            f"a connection to {self.listener.name} was closed by a defect: {name} at {where}",
        )


class Service:
    """The running proxy: its listeners, from start to stop."""

    def __init__(self, proxy: Proxy, listeners: Sequence[Listener]) -> None:
        self.proxy = proxy
        self.servers: list[RelayServer] = []
        self._threads: list[threading.Thread] = []
        inherited = inherited_sockets()
        try:
            for listener in listeners:
                passed = next(
                    (sock for sock in inherited if listens_at(sock, listener.address)), None
                )
                if passed is not None:
                    inherited.remove(passed)
                self.servers.append(RelayServer(proxy, listener, passed))
            if inherited:
                raise ListenError(
                    f"systemd passed a socket at {inherited[0].getsockname()!r}, which no --listen names"
                )
        except ListenError:
            self._close()
            raise

    def start(self) -> None:
        """Accept from here on."""
        for server in self.servers:
            name = f"accept {server.listener.name}"
            thread = threading.Thread(
                target=server.serve_forever, name=name, args=(SHUTDOWN_POLL,), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def alive(self) -> bool:
        """Whether all listeners still accept, which is what systemd's watchdog is told."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float) -> None:
        """Stop accepting, then stop the proxy; returns after `timeout` seconds at the latest, and a little."""
        for server in self.servers:
            server.shutdown()
        self._close()
        self.proxy.stop(time.monotonic() + timeout)

    def _close(self) -> None:
        for server in self.servers:
            server.server_close()


def raise_descriptor_limit() -> None:
    """As many descriptors as MAX_CONNECTIONS take, where the hard limit allows: the usual soft one is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def command_serve(arguments: Sequence[str]) -> int:
    """`serve`: relay until SIGTERM or SIGINT."""
    settings = load_settings(arguments, os.environ)
    diagnostics = Diagnostics(settings.log_level)
    scanner = load_scanner(settings)
    listeners = load_listeners(settings, os.environ, diagnostics.say)
    raise_descriptor_limit()
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(
        signal.SIG_BLOCK, signals
    )  # before any thread: all inherit it, and the main thread waits
    log = open_log(settings, scanner, [listener.address.url for listener in listeners], diagnostics)
    proxy = Proxy(settings, log, scanner, diagnostics)
    try:
        service = Service(proxy, listeners)
        admin = (
            AdminServer(
                proxy, settings.admin_listen, functools.partial(live_page, settings.audit_log)
            )
            if settings.admin_listen
            else None
        )
    except ListenError:
        log.close("cannot listen", settings.shutdown_timeout)
        raise
    service.start()
    if admin:
        threading.Thread(target=admin.serve_forever, name="admin", daemon=True).start()
        if not settings.admin_listen.loopback:
            diagnostics.say(
                "warning",
                f"{settings.admin_listen.url} tells whoever reaches it the names of containers and clients",
            )
    announce(settings, listeners, diagnostics)
    notify_systemd("READY=1")
    number = wait_for_end(signals, service, diagnostics)
    return stop_service(service, number, signals, settings.shutdown_timeout)


def announce(settings: Settings, listeners: Sequence[Listener], diagnostics: Diagnostics) -> None:
    """Say what runs, and the line to type next."""
    for listener in listeners:
        say_policy(listener, diagnostics)
        diagnostics.say("info", f"listening on {listener.address.url}")
    try:
        version = ask_engine(settings.upstream, "/version")
        found = f"Docker {version.get('Version')} (API {version.get('ApiVersion')})"
        diagnostics.say("info", f"the engine at {settings.upstream} is {found}")
    except (HTTPError, OSError, ValueError, AttributeError) as error:
        diagnostics.say("warning", f"{error}; requests get 502 until it answers")
    where = "standard output" if settings.audit_log == "-" else os.path.abspath(settings.audit_log)
    diagnostics.say("info", f"findings go to {where}")
    diagnostics.say("info", f"next: export DOCKER_HOST={client_url(listeners[0].address)}")


def say_policy(listener: Listener, diagnostics: Diagnostics) -> None:
    """The table that decides at a listener."""
    for line in listener.policy.table() if listener.policy else ():
        diagnostics.say("info", f"{listener.name}: {line}")


def client_url(address: Address) -> str:
    """What a client on this host puts into DOCKER_HOST."""
    if address.family == socket.AF_UNIX:
        return address.url
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(address.target[0], address.target[0])
    return (
        f"tcp://[{host}]:{address.target[1]}"
        if ":" in host
        else f"tcp://{host}:{address.target[1]}"
    )


def wait_for_end(signals: set[signal.Signals], service: Service, diagnostics: Diagnostics) -> int:
    """Wait for SIGTERM or SIGINT; SIGHUP reopens the log and re-reads the rules; systemd's watchdog is fed."""
    watchdog = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while True:
        info = signal.sigtimedwait(signals, watchdog or 3600)
        if info is None:
            if service.alive():
                notify_systemd("WATCHDOG=1")
        elif info.si_signo == signal.SIGHUP:
            notify_systemd(
                f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
            )
            service.proxy.log.reopen()
            reload_listeners(service, diagnostics)
            notify_systemd("READY=1")
        else:
            return info.si_signo


def reload_listeners(service: Service, diagnostics: Diagnostics) -> None:
    """Re-read policies, allow lists and certificates; a bad file keeps the old ones, and says so."""
    settings = service.proxy.settings
    try:
        fresh = load_settings(settings.arguments, os.environ)
        listeners = {
            item.address.url: item for item in load_listeners(fresh, os.environ, diagnostics.say)
        }
    except ConfigurationError as error:
        diagnostics.say("error", f"SIGHUP: {error}; the rules in force stay as they are")
        return
    for name in RELOADED:
        setattr(settings, name, getattr(fresh, name))
    for server in service.servers:
        url = server.listener.address.url
        if url not in listeners:
            diagnostics.say(
                "warning",
                f"SIGHUP: {url} is no longer configured; until a restart it stays open under the rules it had",
            )
            continue
        server.listener = listeners.pop(url)
        say_policy(server.listener, diagnostics)
    for url in listeners:
        diagnostics.say("warning", f"SIGHUP: {url} is new; it is listened on after a restart")
    diagnostics.say("info", "SIGHUP: rules, allow lists and certificates have been read again")


# what SIGHUP re-reads besides the listeners' own settings
RELOADED = ("allow_host", "allow_browser", "mode")


def stop_service(
    service: Service, number: int, signals: set[signal.Signals], timeout: float
) -> int:
    """Stop within the timeout; a second signal ends at once. Returns the exit status."""
    notify_systemd("STOPPING=1")
    done: Future[int] = Future()

    def stop() -> None:
        deadline = time.monotonic() + timeout
        try:
            service.stop(timeout)
            done.set_result(
                service.proxy.log.close(
                    signal.Signals(number).name, max(0.5, deadline - time.monotonic())
                )
            )
        except Exception as error:  # a defect must not leave the process waiting for ever
            service.proxy.diagnostics.say(
                "error", f"stopping failed by a defect: {type(error).__name__}"
            )
            done.set_result(EXIT_LOST)

    threading.Thread(target=stop, name="stop", daemon=True).start()
    while not done.done():
        again = signal.sigtimedwait(signals - {signal.SIGHUP}, 0.02)
        if again:
            os._exit(128 + again.si_signo)
    return done.result()


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "serve": command_serve,
    "scan": command_scan,
    "verify": command_verify,
    "report": command_report,
    "learn": command_learn,
    "rules": command_rules,
    "healthcheck": command_healthcheck,
}


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. Errors are one sentence on standard error."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    try:
        if command:
            return command(arguments[1:])
        if arguments and not arguments[0].startswith("-"):
            raise ConfigurationError(
                f"{arguments[0]!r} is not a command; there are {', '.join(COMMANDS)}"
            )
        return command_serve(arguments)
    except ConfigurationError as error:
        status, text = EXIT_CONFIGURATION, str(error)
    except ListenError as error:
        status, text = EXIT_CANNOT_LISTEN, str(error)
    except AuditLogError as error:
        status, text = error.status, str(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 141  # the reader of our output is gone: as a process that SIGPIPE ended
    sys.stderr.write(f"dockeraudit: {text}\n")
    return status


def run() -> NoReturn:
    """The program. Ends the process itself: a thread stuck in a hung disk would be waited for, for ever."""
    status = dispatch(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


if __name__ == "__main__":
    run()
