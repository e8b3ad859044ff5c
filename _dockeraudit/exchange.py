"""One request and its answer on two sockets: a Relay, the loop that moves its bytes, and its audit.

    client ◀──▶ Exchange ◀──▶ engine         the Relay says what is to be sent, read and shut
                   │ copy of the payload, once the client has its bytes
                   ▼
             StreamScanner ─▶ StreamRecords      a stream
             AnswerScan ─▶ AnswerPlaces          an answer, or a body, that may hold secrets

The loop runs in the thread of the client's connection and polls both sockets.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from typing import Any

from _dockeraudit.answers import AnswerScan
from _dockeraudit.connections import Connection
from _dockeraudit.engine import UNKNOWN, ContainerFacts, engine_broke
from _dockeraudit.errors import HTTPError
from _dockeraudit.http1 import Framing, RequestHead, ResponseHead, body_reader
from _dockeraudit.maskedstream import (
    AnswerMask,
    MaskAsked,
    MaskedBody,
    MaskedStream,
    masked_answer,
    wire_places,
)
from _dockeraudit.ownsecrets import counts_of_needles
from _dockeraudit.proxy import Proxy
from _dockeraudit.relay import Relay, RelayState, WireReader
from _dockeraudit.routes import Route, offered_protocols
from _dockeraudit.scanning import StreamScanner
from _dockeraudit.scoping import ScopeGate
from _dockeraudit.sockets import (
    GONE,
    HANGUP,
    Events,
    PollPair,
    abort,
    half_close,
    receive,
    send_some,
    shut_down,
)
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import (
    UNDECODED,
    WALK_LEAST,
    Decoder,
    FrameReader,
    StreamDemuxer,
    input_decoder,
    output_decoder,
)
from _dockeraudit.tlssocket import TLSClientSocket

SILENCE = 0.2  # seconds after which an unfinished line is scanned although more of it may come
LEAVING = 2.0  # seconds without progress that a closed client's last bytes may take to the engine
BUSY_BLOCK = 16 << 10  # bytes of a block behind which more is likely: read again without a poll
SHORT_ANSWER = 16  # times that an answer is heard before it counts as a long one
BLOCKS_A_TURN = 8  # such blocks before the client is looked at again


class Exchange:
    """One request and its answer.

    `run` relays until both sides are done. `cut` ends it from another thread.
    """

    audit: StreamRecords | None = None  # of a stream that is recorded
    scanner: StreamScanner | MaskedStream | None = None  # of a stream that is scanned too
    masked: MaskedBody | None = None  # the answer, where the client gets no secrets
    answers: AnswerScan | None = None  # of an answer or a body that is scanned
    output: Decoder = UNDECODED
    input: Decoder = UNDECODED
    tunnelled = 0  # bytes of a tunnel that nobody scans
    _poll: PollPair | None = None  # made when it is needed: most answers come at once
    _facts = UNKNOWN  # what the engine says of a masked answer's container
    _hold_over = False  # the mask's hold had ended before the sockets were polled
    _heard = 0  # times that `hear` was called
    _failure: Exception | None = None  # of `hear`
    _recorded = False  # the request has been counted, and recorded where it has to be
    _leaving = False  # the client has closed with part of its request unsent: finish sending first

    def __init__(
        self,
        proxy: Proxy,
        connection: Connection,
        head: RequestHead,
        route: Route,
        engine: socket.socket,
        *,
        reused: bool = False,
        unread: bytes = b"",
        mask: str | None = None,
        scope: ScopeGate | None = None,
    ) -> None:
        self.proxy, self.connection = proxy, connection
        self._scope = scope  # which the answer may have to be held to
        self._mask = mask  # the severity from which on the listener masks
        self.head, self.route = head, route
        self.begun = time.monotonic()
        self._client, self._engine = connection.sock, engine
        # a TLS socket may hold bytes that poll does not see
        self._client_secure = isinstance(self._client, ssl.SSLSocket)
        self._engine_tls = engine if isinstance(engine, TLSClientSocket) else None
        upgrade = offered_protocols(head, route, proxy.settings.http2 == "relay")
        if route.answer and proxy.settings.answers == "on":
            self.answers = proxy.answers.open(route, connection.identity, proxy.scanner, mask)
        self.relay = Relay(head, route, upgrade, self._opened, reused=reused, unread=unread)

    @property
    def audited(self) -> bool:
        """Whether it is a stream that is scanned."""
        return self.scanner is not None

    @property
    def endless(self) -> bool:
        """Whether this goes on until somebody ends it; it is cut when the proxy stops."""
        if self.route.endpoint == "logs":
            return self.route.flag("follow")
        return self.route.endless

    @property
    def kind(self) -> str:
        """What people call it."""
        endpoint = self.route.endpoint
        if endpoint == "other":
            return self.route.path.rpartition("/")[2] if self.endless else "requests"
        return "followed logs" if endpoint == "logs" and self.endless else endpoint

    def cut(self, reason: str) -> bool:
        """End it, from another thread; False if it was ending already."""
        if self.relay.state is RelayState.CUT:
            return False
        self.relay.cut(reason)
        shut_down(self._client)
        shut_down(self._engine)
        return True

    def begin(self) -> None:
        """Send the engine what has come of the request, without waiting."""
        self._from_client(b"")

    def hear(self) -> bool:
        """Deliver what the engine has said, without waiting; whether that was all of the answer.

        An error is kept for `run` to raise.
        """
        self._heard += 1
        try:
            self._read_engine()
        except Exception as error:
            self._failure = error
        return self.relay.finished and self.relay.state is RelayState.BODY and not self._failure

    @property
    def is_short(self) -> bool:
        """Whether it can go on by `hear` alone: nothing waits, and little has been heard."""
        relay = self.relay
        waits = relay.client.pending or relay.engine.pending or relay.finished or self._failure
        return not waits and self._heard < SHORT_ANSWER

    def run(self) -> None:
        """Relay until both sides are done, from the beginning or from what `hear` has left.

        Raises HTTPError where the client is to be answered by us.
        """
        relay = self.relay
        try:
            if self._failure:
                raise self._failure
            self._from_client(b"")
            while not relay.finished:
                self._step()
        except HTTPError as error:
            relay.status, relay.reason = error.status, "engine"
            raise
        finally:
            self.record()

    def begin_opaque(self) -> None:
        """Make it a tunnel from the first byte on: HTTP/2, where that was asked for."""
        self.relay.begin_opaque(self.head.end_to_end)
        self._open_audit(Framing("close"))

    # -- one turn of the loop

    def _step(self) -> None:
        events = self._wait()
        poll = self._poll
        assert poll is not None
        if events == poll.second_readable:  # the usual turn of a stream
            self._read_engine()
            if self.masked:
                self._mask_turn(events)
            return
        masks = dict(events)
        client, engine = masks.get(poll.first, 0), masks.get(poll.second, 0)
        if engine & select.POLLOUT or (engine & HANGUP and self.relay.engine.pending):
            self._send_engine()
        if engine & (select.POLLIN | HANGUP) and self.relay.wants_engine:
            self._read_engine()
        if client & select.POLLOUT:
            self._send_client()
        if client & select.POLLIN:
            self._read_client()
        if client & HANGUP and (self.relay.client.ended or not client & select.POLLIN):
            self._client_hung_up(client)
        if self.masked:
            self._mask_turn(events)

    def _wait(self) -> Events:
        """Poll both sockets for what can be done now."""
        relay = self.relay
        limit = None
        if self.masked and not relay.client.pending:  # no hold ends while the client takes nothing
            limit = self.masked.limit()
            self._hold_over = limit == 0
        if self._poll is None:
            self._poll = PollPair(self._client, self._engine)
        client = select.POLLIN if relay.wants_client else 0
        if client and self._client_secure and self._client.pending():  # type: ignore[attr-defined]
            return [(self._poll.first, select.POLLIN)]
        secure = self._engine_tls
        if secure and relay.wants_engine and secure.pending():
            return self._poll.second_readable
        if relay.client.pending:
            client |= select.POLLOUT
        engine = select.POLLIN if relay.wants_engine else 0
        if relay.engine.pending or (secure and secure.unsent):
            engine |= select.POLLOUT
        leaving = self._leaving and bool(relay.engine.pending)
        restless = self.scanner is not None and self.scanner.restless
        limit = LEAVING if leaving else SILENCE if restless else limit
        events = self._poll.wait(None if leaving else client, engine or None, limit)
        if not events:
            self._nothing_came(leaving)
        return events

    def _nothing_came(self, leaving: bool) -> None:
        if leaving:  # the engine does not read what a closed client has sent
            self._client_gone()
        elif isinstance(self.scanner, StreamScanner):
            self.scanner.silence()

    def _mask_turn(self, events: Events) -> None:
        """Deliver what the mask lets go by now; what could be read has been read before."""
        if self.masked is None or self.relay.client.pending:
            return
        if events and not self._hold_over:
            return
        data = self.masked.turn()
        if data:
            self.relay.client.add(data)
        self._send_client()

    # -- client to engine

    def _read_client(self) -> None:
        try:
            data = receive(self._client)
        except OSError:
            self._client_gone()
            return
        if data:
            self._from_client(data)
        elif data is not None:
            self.relay.client.ended = True
            self._send_engine()

    def _from_client(self, data: bytes) -> None:
        """Forward what the client sent, then scan it: what was typed into a tunnel, or a body."""
        payload = self.relay.from_client(data)
        self._send_engine()
        if not payload:
            return
        if self.relay.state is RelayState.TUNNEL:
            self._audit(self.input, payload)
        elif self.answers and self.route.has_scanned_body and is_plain(self.head):
            self.answers.sent(payload)

    def _send_engine(self) -> None:
        relay = self.relay
        if self._engine_tls and self._engine_tls.unsent:
            self._flush_engine()
        if relay.engine.pending:
            try:
                relay.engine.pending = send_some(self._engine, relay.engine.pending)
            except GONE:
                relay.engine.stop_taking()
        if relay.engine_shut_due:
            relay.engine.shut = True
            half_close(self._engine)

    def _flush_engine(self) -> None:
        """Send what TLS has encrypted; where the engine takes nothing, reading tells why."""
        assert self._engine_tls is not None
        try:
            self._engine_tls.flush()
        except OSError:
            self.relay.engine.stop_taking()

    def _client_hung_up(self, mask: int) -> None:
        """The client has closed; bytes of its request that the engine has not taken go first."""
        if self.relay.engine.pending and not mask & select.POLLERR:
            self._leaving = True
        else:
            self._client_gone()

    def _client_gone(self) -> None:
        """Shut the engine's side first: the rest of the cleanup is slow when many clients go."""
        self.relay.client_gone()
        shut_down(self._engine)

    # -- engine to client

    def _read_engine(self) -> None:
        """Read what the engine says; at once again while it has much to say, without a poll."""
        relay = self.relay
        for _ in range(BLOCKS_A_TURN):
            try:
                block = receive(self._engine)
            except OSError as error:
                self._engine_ended(
                    broken=True, why=engine_broke(self.proxy.settings.upstream, error)
                )
                return
            if block is None:
                return
            if not block:
                self._engine_ended(broken=False)
                return
            self._from_engine(block)
            if len(block) < BUSY_BLOCK or not relay.wants_engine or relay.finished:
                return

    def _from_engine(self, block: bytes) -> None:
        """Deliver a block, then scan its payload."""
        relay = self.relay
        reader = relay.download
        if len(block) < WALK_LEAST and type(reader) is FrameReader and reader.is_whole(block):
            relay.client.add(block)  # a quiet stream's frame: delivered before it is decoded
            self._send_client()
            payload = reader.feed(block)[1]
        else:
            payload = relay.from_engine(block)
            self._send_client()
        if payload:
            self._audit(self.output, payload)
        if relay.unread and relay.state is RelayState.TUNNEL:  # sent ahead of the tunnel's opening
            self._from_client(b"")

    def _engine_ended(self, broken: bool, why: str = "") -> None:
        """Pass the engine's EOF on; a reset in the middle of an answer as a reset."""
        relay = self.relay
        relay.engine_ended(broken, why)
        if broken and relay.download and not relay.download.done:
            abort(self._client)
        self._send_client()

    def _send_client(self) -> None:
        relay = self.relay
        if relay.client.pending:
            try:
                relay.client.pending = send_some(self._client, relay.client.pending)
            except GONE:
                self._client_gone()
                return
        if relay.client_shut_due:
            relay.client.shut = True
            half_close(self._client)

    # -- beside the relay

    def _opened(self, relay: Relay, framing: Framing) -> WireReader:
        """The final response's head has come: open the audit, and choose the body's reader."""
        self.proxy.engine_answered()
        if self.proxy.stopping:
            relay.keep_client = False
        if relay.stream:
            self._open_audit(framing)
        if relay.state is RelayState.TUNNEL:
            self._record_request()
        elif self._mask and self.route.answer and framing.kind != "none":
            self._mask_answer(relay, framing)
        if self.masked:
            relay.mask = self.masked
            return self.masked
        events = relay.status == 200 and self._scope and self.route.answer == "events"
        scoped = self._scope.event_filter(self.head, framing) if events and self._scope else None
        if scoped:
            relay.mask = scoped
            return scoped.reader
        if framing.kind == "chunked" and self.scanner and isinstance(self.output, StreamDemuxer):
            return FrameReader(self.output)
        return body_reader(framing, collect=bool(self.scanner or self.answers))

    def _open_audit(self, framing: Framing) -> None:
        """A stream begins: write its `stream_open`; where it can be read, have it scanned."""
        route, proxy = self.route, self.proxy
        endpoint = route.endpoint if route.audited else "tunnel"
        follow = endpoint != "logs" or route.flag("follow")
        kind = route.kind if route.kind in ("service", "task") else None
        self.audit = proxy.log.open_stream(
            endpoint,
            proxy.masked(route.name),
            self.connection.identity,
            follow,
            route.audited,
            kind,
            self._mask if route.audited else None,
        )
        if not route.audited or self.relay.response is None:
            self.audit.named(None, None)
            return
        self.output = output_decoder(route, self.relay.response)
        self.input = input_decoder(route)
        self.scanner = self._masked_stream(framing) if self._mask else self._stream_scanner()
        self._look_up()
        deny = proxy.settings.on_audit_failure == "deny"
        if deny and proxy.log.failed():  # it failed between the request and here
            self.cut("audit_failure")

    def _stream_scanner(self) -> StreamScanner:
        """What scans a stream beside the relay."""
        proxy = self.proxy
        assert self.audit is not None
        return StreamScanner(
            proxy.scanning,
            proxy.budget,
            proxy.scanner,
            self.audit,
            self._abandoned,
            self._scan_failed,
            patient=proxy.settings.on_audit_failure == "deny",
            awaits_own=proxy.settings.own_secrets,
            workers=proxy.workers,
        )

    def _mask_answer(self, relay: Relay, framing: Framing) -> None:
        """Mask an answer on its way to the client."""
        assert self._mask is not None and relay.response is not None
        proxy, route = self.proxy, self.route
        exempt = self._exempts if proxy.settings.allow_secret else None
        self.masked = masked_answer(
            route,
            framing,
            proxy.scanner,
            AnswerMask(self._mask, exempt, self._container_counts),
            self._answer_unmasked,
        )
        if not is_plain(relay.response):
            self._answer_unmasked("compressed")
        elif self.masked.wire.framing is None:
            known = proxy.lookups.known(route.name)
            if known.own is not None and not self._allows_by_container:
                self._answer_inspected(known)
            else:
                proxy.lookups.resolve(route.kind or "container", route.name, self._answer_inspected)

    def _answer_inspected(self, facts: ContainerFacts) -> None:
        """The look-up is over, in its own thread, or has failed."""
        assert self.masked is not None
        self._facts = facts
        self.masked.inspected(facts.tty, facts.own)

    def _exempts(self, secret: bytes) -> bool:
        """Whether a secret of an answer is allowed, everywhere or in the answer's container."""
        return self.proxy.log.allows(secret, self._facts.id, self._facts.name)

    @property
    def _allows_by_container(self) -> bool:
        return any(":" in text for text in self.proxy.settings.allow_secret)

    @property
    def _container_counts(self) -> bool:
        """Whether what is masked depends on the container."""
        return bool(self.proxy.settings.own_secrets) or self._allows_by_container

    def _answer_unmasked(self, kind: str) -> None:
        """An answer cannot be masked."""
        if self.masked:
            self.masked.failed = True
        fields = {"stream": None, "endpoint": self.route.answer, "error": kind}
        client = self.connection.identity
        self.proxy.log.accept_for(client, "scan_error", {**fields, "client": client})
        self._mask_failed()

    def _masked_stream(self, framing: Framing) -> MaskedStream:
        """What masks a stream on its way to the client."""
        settings = self.proxy.settings
        assert self.audit is not None and self._mask is not None
        asked = MaskAsked(
            self._mask,
            exempts=bool(settings.allow_secret),
            waits=self._container_counts,
            typed=self.route.endpoint != "logs",
        )
        wire = wire_places(self.output, framing, asked.waits)
        proxy = self.proxy
        masked = MaskedStream(
            wire, proxy.scanner, self.audit, asked, self._mask_failed, proxy.workers
        )
        self.masked = masked
        return masked

    def _look_up(self) -> None:
        """Ask for the container's name, TTY and own secrets; what cannot change may be known."""
        assert self.scanner is not None
        lookups, kind = self.proxy.lookups, self.route.kind or "container"
        known = lookups.known(self.route.name)
        if kind == "container" and known.own is not None:
            self.scanner.inspected(known.tty, known.own)
        lookups.resolve(kind, self.route.name, self._inspected)

    def _inspected(self, facts: ContainerFacts) -> None:
        """The look-up is over, in its own thread, or has failed."""
        assert self.audit is not None and self.scanner is not None
        self.audit.named(facts.id, facts.name, counts_of_needles(facts.own))
        if self.route.kind in ("container", "exec"):
            self.proxy.answers.names.note(facts.id, facts.name)
        self.scanner.inspected(facts.tty, facts.own)

    def _audit(self, decoder: Decoder, payload: Any) -> None:
        if self.scanner:
            self.scanner.offer(decoder, payload)
        elif self.audit:
            self.tunnelled += len(payload)
        elif self.answers and self.relay.response and is_plain(self.relay.response):
            self.answers.answered(payload)

    def _abandoned(self) -> bool:
        """Whether waiting for room to scan has become pointless: the client is gone, or we stop."""
        relay = self.relay
        if relay.state is RelayState.CUT or self.proxy.stopping:
            return True
        if (
            relay.download is not None and relay.download.done
        ):  # all is delivered: nobody is held up
            return False
        hangup = select.poll()
        hangup.register(self._client.fileno(), 0)
        return bool(hangup.poll(0))

    def _scan_failed(self) -> None:
        if self.proxy.settings.on_audit_failure == "deny":
            self.cut("audit_failure")

    def _mask_failed(self) -> None:
        """What cannot be masked does not reach the client."""
        text = "what could not be masked was cut; its scan_error says why"
        self.proxy.diagnostics.seldom("error", "mask", text)
        self.cut("mask_failure")

    def record(self) -> None:
        """The exchange is over: close its stream; write its `request` record unless it has one."""
        relay = self.relay
        if relay.state is not RelayState.STALE and not self._recorded:
            self._record_request()
        if self.answers and relay.state is not RelayState.STALE:
            self.answers.close(relay.reason)
        if self.audit is None:
            return
        if self.scanner:
            self.scanner.close((self.output, self.input), relay.reason)
        else:
            self.audit.close(
                framing="opaque",
                nbytes=self.tunnelled,
                frames=0,
                lines=0,
                unscanned=0,
                reason=relay.reason,
            )

    def _record_request(self) -> None:
        """Count the request, and record one that changes something or copies data out."""
        self._recorded = True
        seconds = time.monotonic() - self.begun
        self.proxy.record_request(
            self.head.method, self.route, self.relay.status, self.connection.identity, seconds
        )


def is_plain(head: RequestHead | ResponseHead) -> bool:
    """Whether a message's content is not compressed (RFC 9110 §8.4)."""
    return all(coding.lower() == b"identity" for coding in head.members(b"content-encoding"))
