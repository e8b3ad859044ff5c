#!/usr/bin/env python3
"""dockeraudit: a Docker socket proxy that audits log streams.

It stands between Docker clients and the engine and relays the whole Engine API byte for byte. In
the container output that flows past it looks for leaked secrets, and writes one JSON line for each
to an audit log. MIT licence.

    client ──bytes──▶ RequestHead ─▶ Route ─▶ admission ─▶ engine_connection ─▶ engine
       ▲                                                         │
       │                verbatim block, sent at once             ▼
       └────────────────────────◀───────────────────── ResponseHead + body
                                            copy of the payload │ bounded, ordered per stream
                                                                ▼
          AuditLog ◀─ StreamRecords ◀─ Scanner ◀─ TextScanner ◀─ frames

This file holds the handler of a connection, the servers, and the process from start to stop. All
that they stand on lies in `_dockeraudit/`, a concern a file; its `__init__.py` lists them in order.
`patterns.py` is the table of what counts as a secret.

Three ways to read on. What is recorded: `scanning.py`, then `streamrecords.py` and `auditlog.py`.
What is changed on the wire: `forwarded_request_head` and `forwarded_response_head` in `http1.py`,
nothing else. What counts as a secret: `patterns.py`, then `scanner.py`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

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

from _dockeraudit.alerts import Alerts, TerminalNews, alert_command, start_alerts
from _dockeraudit.allow import allow_parser, command_allow
from _dockeraudit.commands import (
    command_learn,
    command_policy,
    command_report,
    command_rules,
    command_verify,
    command_watch,
    learn_parser,
    policy_parser,
    report_parser,
    rules_parser,
    verify_parser,
    watch_parser,
)
from _dockeraudit.completions import completions_parser, run_completions
from _dockeraudit.connections import Connection
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import engine_connection
from _dockeraudit.errors import (
    EXIT_CANNOT_LISTEN,
    EXIT_CONFIGURATION,
    EXIT_DEFECT,
    AuditLogError,
    ConfigurationError,
    Denied,
    EngineError,
    HTTPError,
    ListenError,
    OutOfScope,
    defect,
)
from _dockeraudit.exchange import Exchange
from _dockeraudit.explain import command_test, explain_parser
from _dockeraudit.handshake import shake_hands
from _dockeraudit.healthcheck import command_healthcheck, healthcheck_parser
from _dockeraudit.heldbody import with_body
from _dockeraudit.helptext import Command, command_named, help_parser, run_help, serve_parser
from _dockeraudit.holding import Whole, judge_whole
from _dockeraudit.http1 import (
    HTTP2_PREFACE,
    NO_BODY,
    RequestHead,
    empty_lines,
    error_response,
    head_length,
    json_response,
)
from _dockeraudit.listeners import load_listeners
from _dockeraudit.mainthread import SIGNALS, start_admin, stop_service, wait_for_end
from _dockeraudit.manpage import man_parser, run_man
from _dockeraudit.maskpipe import command_mask, mask_parser
from _dockeraudit.objections import objections
from _dockeraudit.options import load_settings, unknown_variables
from _dockeraudit.policy import refusal
from _dockeraudit.proxy import Proxy
from _dockeraudit.relay import Relay, RelayState
from _dockeraudit.remoteengine import NO_DESCRIPTORS, TCP_OPTIONS, with_tls
from _dockeraudit.routes import (
    Route,
    cut_path,
    is_short,
    read_request,
    seeming_request,
)
from _dockeraudit.scan import command_scan, scan_parser
from _dockeraudit.scoping import persists
from _dockeraudit.settings import Listener
from _dockeraudit.sockets import (
    GONE,
    HEAD_TIMEOUT,
    LINGER,
    Pending,
    bind_unix,
    half_close,
    inherited_sockets,
    linger,
    listen_failure,
    listens_at,
    notify_systemd,
    peer_identity,
    readable_now,
    receive,
    send_some,
    wait_until,
    with_groups,
)
from _dockeraudit.startup import (
    announce,
    give_back_memory,
    inherited_count,
    load_known,
    load_scanner,
    open_log,
    raise_descriptor_limit,
    refuse_loop,
    replace_closed_streams,
    require_linux,
    watchdog_interval,
)
from _dockeraudit.tlssocket import TLSClientSocket

BACKLOG = 1024  # connections waiting in the kernel, which cuts it to net.core.somaxconn
SHUTDOWN_POLL = 0.25  # seconds until an accepting thread notices that it is to stop
DESCRIPTOR_PAUSE = 0.2  # seconds without accepting when descriptors have run out: never a spin
SMALL_HEAD = 8 << 10  # bytes of a head that do not count against the budget of large ones
LAST_ALERTS = 0.5  # seconds for alerts of streams that ended with the shutdown timeout
SWITCH_INTERVAL = 0.0005  # seconds that a thread may keep the interpreter from the others


class ProxyHandler(BaseHTTPRequestHandler):
    """A client's connection: its requests, one after another, each an Exchange with the engine.

    Answers of its own: 400 illegal HTTP, 403 refused, 408 a head that does not end, 431 a head too
    large, 502 no engine, 503 no room.
    """

    server: RelayServer

    def setup(self) -> None:
        """Take the connection over; nothing of the base class's buffered files is used."""
        self.peer: Connection = self.client_address  # type: ignore[assignment]  # of the server
        self.proxy = self.server.proxy
        self.listener = self.server.listener
        self.buffer = b""  # bytes from the client that no exchange has claimed yet
        self.client_eof = False
        self.upstream: HTTPConnection | None = None  # kept between requests
        self.called = threading.Semaphore(0)  # released when a lent connection needs its thread
        self.failure: Exception | None = None  # of a short request, for our own thread to raise
        self._head_bytes = 0  # taken from the budget of large heads

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        try:
            if self._begin():
                while self._serve():
                    self.peer.idle_since = time.monotonic()
        except GONE:
            pass  # the client is gone, and nothing of it is left
        except (TimeoutError, socket.timeout):  # two classes before Python 3.10
            pass  # a TLS handshake that did not end
        except OSError as error:
            text = f"a connection to {self.listener.name} failed: {error}; it was closed"
            self.proxy.diagnostics.say("error", text)

    def finish(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.proxy.connections.leave(self.peer)
        self._drop_upstream()
        if isinstance(self.peer.sock, ssl.SSLSocket):
            half_close(self.peer.sock)  # without close_notify a client takes the end for a cut
        self.peer.sock.close()

    # -- TLS

    def _begin(self) -> bool:
        """Shake hands where the listener speaks TLS; whether requests may follow."""
        if self.listener.tls is None:
            return True
        try:
            encrypted = shake_hands(self.peer, self.listener.tls)
        except ssl.SSLError as error:
            who = self.peer.identity.get("address")
            text = f"{self.listener.name}: TLS with {who} failed: {error.reason}"
            self.proxy.diagnostics.seldom("warning", "tls", text)
            raise
        self.peer.sock.setblocking(False)
        if not encrypted:
            hint = "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"
            self._refuse(HTTPError(400, f"this listener speaks TLS: {hint}"), (None, None))
        return encrypted

    # -- one request

    def _serve(self) -> bool:
        """One request; whether another may follow on this connection."""
        raw, asked = None, None
        try:
            if self._lendable():
                self.proxy.kept.lend(self)
            if self.failure:
                raise self.failure
            if self.peer.exchange:  # begun by the thread of the kept connections
                asked = (self.peer.exchange.head.method, self.peer.exchange.route.path)
                return self._relay(self.peer.exchange)
            raw = self._read_head()
            if raw is None:
                return False
            self.peer.request = True
            self.listener = self.server.listener  # SIGHUP may have changed its rules
            if raw.startswith(HTTP2_PREFACE):
                return self._http2(raw)
            head, route = read_request(raw)
            raw, asked = None, (head.method, cut_path(route.path))  # a large head is held once
            self._admit(head, route)
            if self.listener.scope:
                head, route, answer = self.listener.scope.admit(head, route)
                if answer:
                    return self._answer(head, route, *answer)
            head, route = self._judged(head, route), route.brief()
            return self._relay(self._open(head, route))
        except HTTPError as error:
            if self.peer.exchange and self.peer.exchange.relay.answered:
                return False
            return self._refuse(error, asked or seeming_request(raw or self.buffer))
        finally:
            self.peer.exchange = None
            self.peer.request = False
            self._charge_head(0)

    def _read_head(self) -> bytes | None:
        """The next head with its empty line; None when no more requests come. Raises HTTPError."""
        seen, deadline = 0, None
        while True:
            if self.buffer[:1] in (b"\r", b"\n"):
                self.buffer = self.buffer[empty_lines(self.buffer) :]
            if self.buffer and deadline is None:
                deadline = time.monotonic() + HEAD_TIMEOUT
                self.peer.idle_since = None
            length = head_length(self.buffer, seen) if self.buffer else 0
            if length:
                raw, self.buffer = self.buffer[:length], self.buffer[length:]
                return raw
            seen = len(self.buffer)
            if self.client_eof or self.proxy.stopping:
                return None
            self._await_bytes(deadline)
            self._charge_head(len(self.buffer))

    def _await_bytes(self, deadline: float | None) -> None:
        """Wait for more of a head, or for its first byte as long as it takes."""
        sock = self.peer.sock
        buffered = isinstance(sock, ssl.SSLSocket) and sock.pending()
        left = None if deadline is None else deadline - time.monotonic()
        if not buffered and not wait_until(sock, select.POLLIN, left):
            text = f"the request's head was not complete after {HEAD_TIMEOUT:.0f} seconds"
            raise HTTPError(408, text)
        data = receive(sock)
        self.client_eof = data == b""
        self.buffer += data or b""

    def _charge_head(self, size: int) -> None:
        """Account for what is held of a request until it is over; raises HTTPError (503)."""
        size = size if size > SMALL_HEAD else 0
        if not self.proxy.heads.take(size - self._head_bytes):
            raise HTTPError(503, "too many large requests are under way; try again later")
        self._head_bytes = size

    def _relay(self, exchange: Exchange) -> bool:
        """Relay one request and its answer; whether the connection can carry another."""
        relay = self._run(exchange)
        if relay.state is RelayState.STALE:
            self._drop_upstream()
            relay = self._run(self._open(exchange.head, exchange.route))
        cut = relay.state is RelayState.CUT
        if not relay.keep_engine or cut:
            self._drop_upstream()
        if cut:
            return False
        keep = relay.keep_client and relay.upload.done and not self.proxy.stopping
        if not keep and not self.client_eof and not relay.engine_broke:
            linger(self.peer.sock)
        return keep

    def _open(self, head: RequestHead, route: Route) -> Exchange:
        """Connect to the engine, and make the exchange; raises EngineError."""
        try:
            engine, reused = self._engine()
        except EngineError as error:
            self.proxy.record_request(head.method, route, error.status, self.peer.identity, 0.0)
            raise
        return self._exchange(head, route, engine, reused)

    def _exchange(
        self, head: RequestHead, route: Route, engine: socket.socket, reused: bool
    ) -> Exchange:
        exchange = Exchange(
            self.proxy,
            self.peer,
            head,
            route,
            engine,
            reused=reused,
            unread=self.buffer,
            mask=self.listener.mask,
            scope=self.listener.scope,
        )
        exchange.relay.client.ended = self.client_eof
        self.peer.exchange = exchange
        return exchange

    def _run(self, exchange: Exchange) -> Relay:
        """Run it; what it leaves unread of the client's bytes is the next request's."""
        relay = exchange.relay
        try:
            exchange.run()
        finally:
            self.buffer, self.client_eof = relay.unread, relay.client.ended
        return relay

    def _http2(self, raw: bytes) -> bool:
        """An HTTP/2 preface: refused as an engine without HTTP/2 does, or relayed without audit."""
        head = RequestHead(b"PRI", b"2.0", raw, {})
        route = Route("*", "", None, "other")
        if self.proxy.settings.http2 != "relay":
            self.proxy.record_denial("denied", b"PRI", "*", self.peer.identity, "http2")
            raise Denied(400, "http2", "HTTP/2 is not spoken here; use HTTP/1.1")
        if self.listener.ruled:
            text = "HTTP/2 cannot be held to this listener's rules, so it is refused"
            self._deny(head, route, "http2", text)
        engine, _ = self._engine()
        exchange = Exchange(self.proxy, self.peer, head, route, engine, unread=self.buffer)
        self.peer.exchange = exchange
        exchange.begin_opaque()
        exchange.run()
        return False

    # -- short requests, in the thread of the kept connections

    def _lendable(self) -> bool:
        """Whether that thread can wait for the next request: one has been served, without TLS."""
        if self.upstream is None or self.buffer or self.client_eof or self.proxy.stopping:
            return False
        return not (self.listener.tls or isinstance(self.upstream.sock, TLSClientSocket))

    def descriptors(self) -> Sequence[int]:
        """Of the client's socket, and of the kept one to the engine."""
        assert self.upstream is not None
        return self.peer.sock.fileno(), self.upstream.sock.fileno()

    def serve_short(self, fileno: int) -> bool:
        """Serve what has come on a descriptor, without waiting; False for our own thread to do.

        What is illegal is met again there, when the head is read once more. Any other exception
        is raised there.
        """
        try:
            if self.peer.exchange is None:
                return fileno == self.peer.sock.fileno() and self._begin_short()
            return fileno != self.peer.sock.fileno() and self._hear_short(self.peer.exchange)
        except HTTPError:
            return False
        except Exception as error:
            self.failure = error
            return False

    def _begin_short(self) -> bool:
        """Send a request to the engine, if it is short."""
        data = receive(self.peer.sock, SMALL_HEAD)
        if data is None:
            return True  # nothing has come after all
        self.client_eof = data == b""
        self.buffer = data
        if not data or head_length(data) != len(data) or data.startswith(HTTP2_PREFACE):
            return False
        self.listener = self.server.listener  # SIGHUP may have changed its rules
        head, route = read_request(data)
        if not self._passes_at_once(head, route):
            return False
        self.buffer = b""
        self.peer.request, self.peer.idle_since = True, None
        assert self.upstream is not None
        self._exchange(head, route.brief(), self.upstream.sock, reused=True).begin()
        return True

    def _passes_at_once(self, head: RequestHead, route: Route) -> bool:
        """Whether a request is short, and nobody on this listener has to see more of it."""
        listener = self.listener
        if listener.mask or listener.scope:
            return False
        if any(judge.wants(head, route) for judge in listener.judges):
            return False
        if not is_short(head, route):
            return False
        return not any(objections(self.proxy, listener, self.peer, head, route))

    def _hear_short(self, exchange: Exchange) -> bool:
        """Deliver what the engine has said; when that was all, wait for the next request."""
        finished = exchange.hear()
        relay = exchange.relay
        if not finished:
            return exchange.is_short
        if not (relay.keep_client and relay.keep_engine) or self.proxy.stopping:
            return False
        exchange.record()
        self.peer.exchange, self.peer.request = None, False
        self.peer.idle_since = time.monotonic()
        return True

    # -- admission

    def _admit(self, head: RequestHead, route: Route) -> None:
        """Raise Denied for what must not reach the engine."""
        for objection in objections(self.proxy, self.listener, self.peer, head, route):
            self._deny(head, route, *objection)
        deny = self.proxy.settings.on_audit_failure == "deny"
        if deny and route.audited and self.proxy.log.failed():
            text = (
                "the audit log cannot be written, and streams that would go unrecorded are refused"
            )
            raise Denied(503, "audit", text)

    def _judged(self, head: RequestHead, route: Route) -> RequestHead:
        """Have the judges see the whole request, whose body is then the beginning of `buffer`."""
        charge = lambda size, of_head=self._head_bytes: self._charge_head(of_head + size)
        whole = Whole(self.peer.sock, self.buffer, head, route)
        seen = judge_whole(whole, self.listener.judges, charge)
        if seen is None:
            return head
        verdict, self.buffer = seen
        for objection in verdict.objections:
            self._deny(head, route, *objection, held=True)
        self.buffer = verdict.body + self.buffer
        return with_body(head, verdict.body)

    def _deny(self, head: RequestHead, route: Route, *said: str, held: bool = False) -> None:
        """Record a refusal (`said`: see Verdict); raises Denied unless it is only being learned."""
        rule, message, *admits = said
        learning = self.proxy.settings.mode == "learn" and rule not in ("browser", "mask")
        event = "would_deny" if learning else "denied"
        self.proxy.record_denial(event, head.method, route.path, self.peer.identity, rule, *admits)
        if not learning:
            keep = head.keeps_alive and head.version == b"1.1" and (held or head.framing is NO_BODY)
            raise Denied(403, rule, message, keep=keep)

    # -- the engine

    def _engine(self) -> tuple[socket.socket, bool]:
        """A connection to the engine, and whether it is the kept one; raises EngineError."""
        if self.upstream and readable_now(self.upstream.sock):
            self._drop_upstream()  # it has ended, or says something unasked
        if self.upstream:
            return self.upstream.sock, True
        self.upstream = engine_connection(self.proxy.settings.upstream)
        self.upstream.connect()
        secure = isinstance(self.upstream.sock, TLSClientSocket)
        self.upstream.sock.setblocking(not secure)  # see NO_WAIT: only TLS does not block
        return self.upstream.sock, False

    def _drop_upstream(self) -> None:
        if self.upstream:
            self.upstream.close()
            self.upstream = None

    # -- answers of our own

    def _refuse(self, error: HTTPError, asked: tuple[bytes | None, str | None]) -> bool:
        """Answer for ourselves; whether the connection goes on.

        Where it does not, it is closed so that the answer arrives. `asked`: method and path, as far
        as they are known.
        """
        method, path = asked
        self._report(error, method, path)
        keep = isinstance(error, Denied) and error.keep and not self.proxy.stopping
        prefix = "" if isinstance(error, OutOfScope) and error.as_engine else "dockeraudit: "
        text = str(error)
        return self._say(
            error_response(error.status, text, method or b"GET", keep=keep, prefix=prefix), keep
        )

    def _answer(self, head: RequestHead, route: Route, status: int, body: bytes) -> bool:
        """Give an answer that the engine has given to us; whether the connection goes on."""
        client, keep = self.peer.identity, persists(head, head.framing is NO_BODY)
        self.proxy.record_request(head.method, route, status, client, 0.0)
        if route.answer and self.proxy.settings.answers == "on":
            scan = self.proxy.answers.open(route.brief(), client, self.proxy.scanner, None)
            scan.answered(body)
            scan.close("end")
        keep = keep and not self.proxy.stopping
        return self._say(json_response(status, body, head.method, keep=keep), keep)

    def _say(self, rest: Pending, keep: bool) -> bool:
        """Send an answer of ours; whether the connection goes on."""
        deadline = time.monotonic() + LINGER
        while rest and time.monotonic() < deadline:
            rest = send_some(self.peer.sock, rest)
            if rest:
                wait_until(self.peer.sock, select.POLLOUT, deadline - time.monotonic())
        if not keep or rest:
            linger(self.peer.sock)
            return False
        return True

    def _report(self, error: HTTPError, method: bytes | None, path: str | None) -> None:
        """Count a refusal, and say or record what nothing else tells of."""
        proxy, who = self.proxy, self.peer.identity
        if isinstance(error, OutOfScope) and error.recorded:
            proxy.record_denial("denied", method, path, who, "scope")
        if isinstance(error, EngineError):
            proxy.engine_failed(str(error))
        elif not self.peer.exchange:
            proxy.count_request(method, error.status)
        if error.status in (400, 408, 413, 417, 431) and not isinstance(error, Denied):
            name = who.get("address", f"uid {who.get('uid')}")
            text = f"{self.listener.name}: a request of {name} was refused: {error}"
            proxy.diagnostics.seldom("warning", "http", text)
            proxy.record_denial("denied", method, path, who, "http")


class RelayServer(ThreadingHTTPServer):
    """One listener, TCP or Unix; a thread for each connection that is admitted."""

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
        self._inode: int | None = None
        try:
            super().__init__(
                listener.address.target, ProxyHandler, bind_and_activate=inherited is None
            )
        except OSError as error:
            url = listener.address.url
            option = "--listen" if listener.name == url else f"listen of [listener {listener.name}]"
            raise ListenError(listen_failure(url, option, error)) from error
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
        """Bind so that the socket is never open to others, and replace only a dead one."""
        bind_unix(self.socket, path, self.listener.socket_mode, self.listener.socket_group)
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
        """Accept. Out of descriptors: pause, so that connections wait in the backlog meanwhile."""
        try:
            sock, address = self.socket.accept()
        except OSError as error:
            if error.errno in (*NO_DESCRIPTORS, errno.ENOBUFS, errno.ENOMEM):
                text = f"cannot accept on {self.listener.address.url}: {error.strerror}"
                hint = "new connections wait until others close"
                self.proxy.diagnostics.seldom("error", "accept", f"{text}; {hint}")
                time.sleep(DESCRIPTOR_PAUSE)
            raise
        if sock.family != socket.AF_UNIX:
            for level, option, value in TCP_OPTIONS:
                sock.setsockopt(level, option, value)
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Admit a connection, then start its thread; one that is refused never holds a thread."""
        identity = peer_identity(request, client_address, self.listener.name)
        connection = Connection(request, identity, time.monotonic())
        refused = self._refused(connection)
        if refused:
            self._turn_away(request, refused)
            return
        try:
            super().process_request(request, connection)
        except RuntimeError:
            self.proxy.connections.leave(connection)
            self.shutdown_request(request)
            text = "no thread can be started for a new connection; it was closed"
            self.proxy.diagnostics.seldom("error", "thread", text)

    def _refused(self, connection: Connection) -> HTTPError | None:
        """Why a connection cannot be admitted; None if it is, and counted in."""
        proxy, clients = self.proxy, self.listener.clients
        if clients and proxy.settings.mode != "learn":
            decision = clients.admits(with_groups(connection.identity, connection.sock))
            if not decision.allowed:
                proxy.record_denial("denied", None, None, connection.identity, decision.rule)
                return Denied(403, decision.rule, refusal("a connection", "", decision))
        if proxy.connections.join(connection):
            return None
        most = proxy.connections.most
        text = f"no connection is free: {most} may be open, half of them by one client"
        proxy.diagnostics.seldom("warning", "full", f"{text}; a new one was answered 503")
        return HTTPError(503, f"{text}; try again later")

    def _turn_away(self, request: socket.socket, refused: HTTPError) -> None:
        self.proxy.count_request(None, refused.status)
        if self.listener.tls:  # the client would take a plain answer for a broken handshake
            self.shutdown_request(request)
            return
        self.proxy.doorman.turn_away(request, error_response(refused.status, str(refused)))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An exception that nobody expected: say its kind and place, never its values.

        They may hold secrets.
        """
        kind, place = defect(sys.exc_info()[1])
        text = f"a connection to {self.listener.name} was closed by a defect: {kind} at {place}"
        self.proxy.diagnostics.seldom("error", f"defect {kind} {place}", text)


class Service:
    """The running proxy: its listeners, from start to stop."""

    def __init__(
        self, proxy: Proxy, listeners: Sequence[Listener], sockets_passed: int = 0
    ) -> None:
        self.proxy = proxy
        self.servers: list[RelayServer] = []
        self.alerts: list[Alerts | TerminalNews] = []
        self._threads: list[threading.Thread] = []
        inherited = inherited_sockets(sockets_passed)
        try:
            for listener in listeners:
                passed = [sock for sock in inherited if listens_at(sock, listener.address)]
                if passed:
                    inherited.remove(passed[0])
                self.servers.append(RelayServer(proxy, listener, passed[0] if passed else None))
            if inherited:
                name = inherited[0].getsockname()
                raise ListenError(f"systemd passed a socket at {name!r}, which no --listen names")
        except ListenError:
            self._close()
            raise

    def start(self) -> None:
        """Accept from here on."""
        self.proxy.kept.start()
        for server in self.servers:
            thread = threading.Thread(
                target=server.serve_forever,
                name=f"accept {server.listener.name}",
                args=(SHUTDOWN_POLL,),
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def alive(self) -> bool:
        """Whether all listeners still accept, which is what systemd's watchdog is told."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float) -> None:
        """Stop accepting, then the proxy, then the alerts, within about `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for server in self.servers:
            server.shutdown()
        self._close()
        try:
            self.proxy.stop(deadline)
        finally:
            for alerts in self.alerts:
                alerts.stop(max(deadline, time.monotonic() + LAST_ALERTS))

    def end_at_once(self, status: int) -> NoReturn:
        """End the process, and the command of an alert with it."""
        for alerts in self.alerts:
            alerts.kill()
        os._exit(status)

    def _close(self) -> None:
        for server in self.servers:
            server.server_close()


def command_serve(arguments: Sequence[str]) -> int:
    """`serve`: relay until SIGTERM or SIGINT."""
    settings = load_settings(arguments, os.environ, serve_parser())
    require_linux()
    watchdog, inherited = watchdog_interval(os.environ), inherited_count(os.environ)
    diagnostics = Diagnostics(settings.log_level)
    for text in unknown_variables(os.environ):
        diagnostics.say("warning", text)
    scanner, known = load_scanner(settings), load_known(settings, diagnostics)
    settings.upstream = with_tls(settings.upstream, settings.upstream_tls)
    listeners = load_listeners(settings, os.environ, diagnostics.say)
    refuse_loop(settings.upstream, listeners)
    command = alert_command(settings, os.environ)
    raise_descriptor_limit(settings.max_connections)
    sys.setswitchinterval(SWITCH_INTERVAL)
    # Before any thread starts: all inherit the mask, and the main thread waits for the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    log = open_log(settings, scanner, listeners, diagnostics, known=known)
    reason = "a defect"
    try:
        proxy = Proxy(settings, log, scanner, diagnostics, known)
        service = Service(proxy, listeners, inherited)
        admin = start_admin(proxy)
        service.alerts = start_alerts(settings, log, command, diagnostics)
        service.start()
        give_back_memory()
        announce(settings, listeners, diagnostics)
        notify_systemd("READY=1")
        reason = signal.Signals(wait_for_end(service, watchdog)).name
        stop_service(service, settings.shutdown_timeout)
        if admin:
            admin.stop()
    except ListenError:
        reason = "cannot listen"
        raise
    finally:
        status = log.close(reason, settings.shutdown_timeout)
    return status


def command_help(arguments: Sequence[str]) -> int:
    """`help [COMMAND]`: what a command does and takes."""
    return run_help(arguments, COMMANDS)


def command_completions(arguments: Sequence[str]) -> int:
    """`completions SHELL`: a script that completes commands, options and values."""
    return run_completions(arguments, COMMANDS)


def command_man(arguments: Sequence[str]) -> int:
    """`man`: the manual page."""
    return run_man(arguments, COMMANDS)


COMMANDS: Mapping[str, Command] = {
    "serve": Command(command_serve, serve_parser),
    "scan": Command(command_scan, scan_parser),
    "mask": Command(command_mask, mask_parser),
    "report": Command(command_report, report_parser),
    "watch": Command(command_watch, watch_parser),
    "allow": Command(command_allow, allow_parser),
    "verify": Command(command_verify, verify_parser),
    "learn": Command(command_learn, learn_parser),
    "policy": Command(command_policy, policy_parser),
    "rules": Command(command_rules, rules_parser),
    "test": Command(command_test, explain_parser),
    "healthcheck": Command(command_healthcheck, healthcheck_parser),
    "completions": Command(command_completions, completions_parser),
    "man": Command(command_man, man_parser),
    "help": Command(command_help, help_parser),
}


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names, or `serve`; raises what commands raise."""
    first = arguments[0] if arguments else ""
    if first in ("-h", "--help"):
        return command_help([])
    if first and not first.startswith("-"):
        return command_named(first, COMMANDS).run(arguments[1:])
    return command_serve(arguments)


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. Errors are one sentence on standard error."""
    try:
        return run_command(arguments)
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
    except Exception as error:
        kind, place = defect(error)
        status, text = EXIT_DEFECT, f"ended by a defect: {kind} at {place}"
    sys.stderr.write(f"dockeraudit: {text}\n")
    return status


def main() -> NoReturn:
    """The program.

    It ends the process itself: Python would wait for ever for a thread stuck in a hung disk.
    """
    replace_closed_streams()
    status = dispatch(sys.argv[1:])
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed at the start
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


if __name__ == "__main__":
    main()
