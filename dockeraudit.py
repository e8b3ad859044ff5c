#!/usr/bin/env python3
"""dockeraudit: a Docker socket proxy that audits log streams.

It stands between Docker clients and the engine's Unix socket and relays the whole Engine API byte
for byte. In the container output that flows past it looks for leaked secrets, and writes one JSON
line for each to an audit log. MIT licence.

    client ──bytes──▶ RequestHead ─▶ Route ─▶ admission ─▶ UnixHTTPConnection ─▶ engine
       ▲                                                          │
       │                verbatim block, sent at once              ▼
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
import functools
import importlib.util
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
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

from _dockeraudit.admin import AdminServer
from _dockeraudit.admission import browser_refusal
from _dockeraudit.alerts import Alerts, TerminalNews, alert_command, start_alerts
from _dockeraudit.allow import allow_parser, command_allow
from _dockeraudit.commands import (
    command_learn,
    command_report,
    command_rules,
    command_verify,
    command_watch,
    learn_parser,
    report_parser,
    rules_parser,
    verify_parser,
    watch_parser,
)
from _dockeraudit.completions import completions_parser, run_completions
from _dockeraudit.connections import Connection
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import BLOCK, NO_DESCRIPTORS, UnixHTTPConnection
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
    defect,
)
from _dockeraudit.exchange import Exchange
from _dockeraudit.explain import command_test, explain_parser
from _dockeraudit.healthcheck import command_healthcheck, healthcheck_parser
from _dockeraudit.helptext import Command, command_named, help_parser, run_help, serve_parser
from _dockeraudit.http1 import (
    HTTP2_PREFACE,
    NO_BODY,
    RequestHead,
    empty_lines,
    error_response,
    head_length,
)
from _dockeraudit.listeners import load_listeners
from _dockeraudit.manpage import man_parser, run_man
from _dockeraudit.maskpipe import command_mask, mask_parser
from _dockeraudit.options import load_settings, unknown_variables
from _dockeraudit.policy import Decision, Policy, refusal
from _dockeraudit.proxy import Proxy
from _dockeraudit.relay import Relay, RelayState
from _dockeraudit.reload import reload
from _dockeraudit.report import live_page
from _dockeraudit.routes import Route, cut_path, method_name, read_request, seeming_request
from _dockeraudit.scan import command_scan, scan_parser
from _dockeraudit.settings import Listener
from _dockeraudit.sockets import (
    GONE,
    HEAD_TIMEOUT,
    TCP_OPTIONS,
    Pending,
    bind_unix,
    certificate_subject,
    half_close,
    inherited_sockets,
    listen_failure,
    listens_at,
    notify_systemd,
    peer_identity,
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
    require_linux,
    watchdog_interval,
)

BACKLOG = 1024  # connections waiting in the kernel, which cuts it to net.core.somaxconn
LINGER = 1.0  # seconds for a refused client to read its answer; its bytes are dropped meanwhile
SHUTDOWN_POLL = 0.25  # seconds until an accepting thread notices that it is to stop
DESCRIPTOR_PAUSE = 0.2  # seconds without accepting when descriptors have run out: never a spin
BROWSER_HINT = (
    "to admit it, start dockeraudit with --allow-browser, or --allow-host NAME for its name"
)
SMALL_HEAD = 8 << 10  # bytes of a head that do not count against the budget of large ones
LOOK_ROUND = 60.0  # seconds between looks at what is due; a denial is counted for a minute
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
        self.upstream: UnixHTTPConnection | None = None  # kept between requests
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
            encrypted = self._shake_hands(self.listener.tls)
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

    def _shake_hands(self, context: ssl.SSLContext) -> bool:
        """TLS within HEAD_TIMEOUT.

        False where the client's first byte begins no handshake (RFC 8446 §5.1).
        """
        sock, deadline = self.peer.sock, time.monotonic() + HEAD_TIMEOUT
        sock.settimeout(HEAD_TIMEOUT)
        if sock.recv(1, socket.MSG_PEEK) not in (b"\x16", b""):
            return False
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        secure = context.wrap_socket(sock, server_side=True)
        self.peer.sock = secure
        certificate = secure.getpeercert()
        if certificate:
            self.peer.identity["certificate"] = certificate_subject(certificate)
        return True

    # -- one request

    def _serve(self) -> bool:
        """One request; whether another may follow on this connection."""
        raw, asked = None, None
        try:
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
            route = route.brief()
            return self._relay(head, route)
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
        """Account for a head of so many bytes until its request is over; raises HTTPError (503)."""
        size = size if size > SMALL_HEAD else 0
        if not self.proxy.heads.take(size - self._head_bytes):
            raise HTTPError(503, "too many large request heads are under way; try again later")
        self._head_bytes = size

    def _relay(self, head: RequestHead, route: Route) -> bool:
        """Relay one request and its answer; whether the connection can carry another."""
        relay = self._exchange(head, route)
        if relay.state is RelayState.STALE:
            self._drop_upstream()
            relay = self._exchange(head, route)
        cut = relay.state is RelayState.CUT
        if not relay.keep_engine or cut:
            self._drop_upstream()
        if cut:
            return False
        keep = relay.keep_client and relay.upload.done and not self.proxy.stopping
        if not keep and not self.client_eof and not relay.engine_broke:
            self._linger()
        return keep

    def _exchange(self, head: RequestHead, route: Route) -> Relay:
        """Run one exchange; what it leaves unread of the client's bytes is the next request's."""
        try:
            engine, reused = self._engine()
        except EngineError as error:
            self.proxy.record_request(head.method, route, error.status, self.peer.identity, 0.0)
            raise
        exchange = Exchange(
            self.proxy,
            self.peer,
            head,
            route,
            engine,
            reused=reused,
            unread=self.buffer,
            mask=self.listener.mask,
        )
        relay = exchange.relay
        relay.client.ended = self.client_eof
        self.peer.exchange = exchange
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
        if self.listener.policy or self.listener.clients or self.listener.mask:
            text = "HTTP/2 cannot be held to this listener's rules, so it is refused"
            self._deny(head, route, "http2", text)
        engine, _ = self._engine()
        exchange = Exchange(self.proxy, self.peer, head, route, engine, unread=self.buffer)
        self.peer.exchange = exchange
        exchange.begin_opaque()
        exchange.run()
        return False

    # -- admission

    def _admit(self, head: RequestHead, route: Route) -> None:
        """Raise Denied for what must not reach the engine."""
        for rule, message in self._objections(head, route):
            self._deny(head, route, rule, message)
        deny = self.proxy.settings.on_audit_failure == "deny"
        if deny and route.audited and self.proxy.log.failed():
            text = (
                "the audit log cannot be written, and streams that would go unrecorded are refused"
            )
            raise Denied(503, "audit", text)

    def _objections(self, head: RequestHead, route: Route) -> Iterator[tuple[str, str]]:
        """The rules that a request breaks, each with what its client is told."""
        settings, identity = self.proxy.settings, self.peer.identity
        on_tcp = self.listener.address.family != socket.AF_UNIX
        if on_tcp and "certificate" not in identity and not settings.allow_browser:
            plain = not isinstance(self.peer.sock, ssl.SSLSocket)
            reason = browser_refusal(head, route, plain, settings.allow_host)
            if reason:
                yield "browser", f"a request from a web page is refused: {reason}; {BROWSER_HINT}"
        word = route.unmaskable if self.listener.mask else ""
        if word and word not in self.listener.mask_pass and head.method in (b"GET", b"POST"):
            yield "mask", unmaskable_refusal(word)
        decisions = []
        if self.listener.clients:
            client = with_groups(identity, self.peer.sock)
            decisions.append(self.listener.clients.admits(client))
        if self.listener.policy:
            decisions.append(self._decision(self.listener.policy, head, route))
        for decision in decisions:
            if not decision.allowed:
                path = self.proxy.masked(route.path)
                yield decision.rule, refusal(method_name(head.method) or "", path, decision)

    def _decision(self, policy: Policy, head: RequestHead, route: Route) -> Decision:
        """What the listener's policy decides on a request, as this engine would read it."""
        known = not route.podman_version or self.proxy.engine_kind.is_podman()
        form = b"form" in (head.first(b"content-type") or b"").lower()  # may hold `logs=1` as well
        return policy.decide(
            head.method.decode(),
            route.path,
            version="" if known else route.podman_version,
            reads_log=route.reads_log or form,
        )

    def _deny(self, head: RequestHead, route: Route, rule: str, message: str) -> None:
        """Record a refusal; raises Denied unless the policy is only being learned."""
        learning = self.proxy.settings.mode == "learn" and rule not in ("browser", "mask")
        event = "would_deny" if learning else "denied"
        self.proxy.record_denial(event, head.method, route.path, self.peer.identity, rule)
        if not learning:
            keep = head.keeps_alive and head.version == b"1.1" and head.framing is NO_BODY
            raise Denied(403, rule, message, keep=keep)

    # -- the engine

    def _engine(self) -> tuple[socket.socket, bool]:
        """A connection to the engine, and whether it is the kept one; raises EngineError."""
        if self.upstream and wait_until(self.upstream.sock, select.POLLIN, 0):
            self._drop_upstream()  # it has ended, or says something unasked
        if self.upstream:
            return self.upstream.sock, True
        self.upstream = UnixHTTPConnection(self.proxy.settings.upstream)
        self.upstream.connect()
        self.upstream.sock.settimeout(None)
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
        rest: Pending = error_response(error.status, str(error), method or b"GET", keep=keep)
        deadline = time.monotonic() + LINGER
        while rest and time.monotonic() < deadline:
            rest = send_some(self.peer.sock, rest)
            if rest:
                wait_until(self.peer.sock, select.POLLOUT, deadline - time.monotonic())
        if not keep or rest:
            self._linger()
            return False
        return True

    def _report(self, error: HTTPError, method: bytes | None, path: str | None) -> None:
        """Count a refusal, and say or record what nothing else tells of."""
        proxy, who = self.proxy, self.peer.identity
        if isinstance(error, EngineError):
            proxy.engine_failed(str(error))
        elif not self.peer.exchange:
            proxy.count_request(method, error.status)
        if error.status in (400, 408, 431) and not isinstance(error, Denied):
            name = who.get("address", f"uid {who.get('uid')}")
            text = f"{self.listener.name}: a request of {name} was refused: {error}"
            proxy.diagnostics.seldom("warning", "http", text)
            proxy.record_denial("denied", method, path, who, "http")

    def _linger(self) -> None:
        """Close the sending side and drop what still comes, for a moment (RFC 9112 §9.6)."""
        sock = self.peer.sock
        half_close(sock)
        if isinstance(sock, ssl.SSLSocket):
            try:
                socket.socket.shutdown(sock, socket.SHUT_WR)
            except OSError:
                return
        deadline = time.monotonic() + LINGER
        while wait_until(sock, select.POLLIN, deadline - time.monotonic()):
            try:
                if not socket.socket.recv(sock, BLOCK):  # of a TLS session: what it still encrypts
                    return
            except OSError:
                return


def unmaskable_refusal(word: str) -> str:
    """Why a masking listener refuses a route, and how it is let pass."""
    what = "BuildKit's tunnels" if word == "tunnel" else "copies of files"
    return (
        f"secrets are masked on this listener, and {what} cannot be; --mask-pass {word} admits them"
    )


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


def raise_descriptor_limit(connections: int) -> None:
    """Allow as many descriptors as the connections take, where the hard limit allows it."""
    import resource  # here, since only Unix has it, and other commands run elsewhere too

    needed = 2 * connections + 128  # two a connection, and the log, the listeners, look-ups
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def command_serve(arguments: Sequence[str]) -> int:
    """`serve`: relay until SIGTERM or SIGINT."""
    settings = load_settings(arguments, os.environ, serve_parser())
    require_linux()
    watchdog, inherited = watchdog_interval(os.environ), inherited_count(os.environ)
    diagnostics = Diagnostics(settings.log_level)
    for text in unknown_variables(os.environ):
        diagnostics.say("warning", text)
    scanner, known = load_scanner(settings), load_known(settings, diagnostics)
    listeners = load_listeners(settings, os.environ, diagnostics.say)
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


SIGNALS = {signal.SIGTERM, signal.SIGINT}
if hasattr(signal, "SIGHUP"):  # not on Windows
    SIGNALS.add(signal.SIGHUP)


def start_admin(proxy: Proxy) -> AdminServer | None:
    """Serve health, metrics and the page, where --admin-listen asks for it; raises ListenError."""
    address = proxy.settings.admin_listen
    if not address:
        return None
    admin = AdminServer(proxy, address, functools.partial(live_page, proxy.settings.audit_log))
    admin.start()
    if not address.loopback:
        text = f"{address.url} tells whoever reaches it the names of containers and clients"
        proxy.diagnostics.say("warning", text)
    return admin


def wait_for_end(service: Service, watchdog: float) -> int:
    """Wait for SIGTERM or SIGINT, and return its number.

    SIGHUP reopens the log and reads options and rules again. Each `watchdog` seconds, or sooner,
    systemd is told that the listeners live, and what is due is done.
    """
    while True:
        info = signal.sigtimedwait(SIGNALS, min(watchdog, LOOK_ROUND))
        if info is None:
            service.proxy.do_what_is_due()
            if service.alive():
                notify_systemd("WATCHDOG=1")
        elif info.si_signo == signal.SIGHUP:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={now}")
            service.proxy.log.reopen()
            reload(service.proxy, service.servers, os.environ)
            notify_systemd("READY=1")
        else:
            return info.si_signo


def stop_service(service: Service, timeout: float) -> None:
    """Stop within about `timeout` seconds; a second signal ends the process at once."""
    notify_systemd("STOPPING=1")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: service.end_at_once(128 + number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGHUP})
    try:
        service.stop(timeout)
    except Exception as error:
        kind, place = defect(error)
        service.proxy.diagnostics.say("error", f"stopping failed by a defect: {kind} at {place}")


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


def replace_closed_streams() -> None:
    """Give closed standard streams a descriptor that fails, so that no file of ours gets theirs."""
    streams = (
        ("stdin", os.O_WRONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    )
    for number, (name, flags, mode) in enumerate(streams):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


if __name__ == "__main__":
    main()
