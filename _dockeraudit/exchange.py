"""One request and its answer: both directions in one loop, and the audit beside it."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from typing import Any, Union

from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import (
    BodyReader,
    ChunkedReader,
    CloseReader,
    Framing,
    LengthReader,
    RequestHead,
    ResponseHead,
    body_reader,
    forwarded_request_head,
    forwarded_response_head,
    head_length,
    read_response_head,
    response_framing,
)
from _dockeraudit.routes import ENDLESS, EXPORTS, Route, offered_protocols
from _dockeraudit.scanning import StreamScanner
from _dockeraudit.sockets import (
    GONE,
    HANGUP,
    SplicePipe,
    Waiting,
    half_close,
    receive,
    send_some,
    wake,
)
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import (
    UNDECODED,
    WALK_LEAST,
    Decoded,
    Decoder,
    FrameReader,
    StreamDemuxer,
    input_decoder,
    output_decoder,
)

BUSY_BLOCK = (
    16 << 10
)  # bytes of a block from an engine that has more to say: it is read again without a poll between
BLOCKS_A_TURN = 8  # such blocks before the client is looked at again
SPLICE_LEAST = 1 << 20  # bytes of a body that are worth a pipe and its two descriptors
SPLICE_TURN = 0.1  # seconds until the client is looked at again, though the engine goes on
SPLICE_PATIENCE = struct.pack(
    "@ll", 0, 50_000
)  # struct timeval: how long only the engine is waited for, and not the client
MAX_READ_AHEAD = (
    64 << 10
)  # bytes of pipelined requests read while an exchange runs, so that a client's EOF is noticed
SILENCE = 0.2  # seconds after which an unfinished line is looked at although more of it may come
Events = list[tuple[int, int]]  # (descriptor, mask), as select.poll tells


class Exchange:
    """One request and its answer: both directions in one loop, in the handler's thread; what is short, in KeptConnections'.

        buffer ── upload reader (or tunnel) ──▶ to_engine ──▶ engine
        client ◀── to_client ◀── download reader (or tunnel) ◀── engine, a copy of it to the auditor

    A side is read only when what it sent before has been taken by the other: at most one block waits each way, and a
    slow client slows the engine. The loop ends when both bodies have, or a side is gone, or `cut` says so.
    """

    # how each of them begins
    started = False
    failure: Exception | None = None  # what the thread that served it until now has met with
    download: BodyReader | None = None
    response: ResponseHead | None = None
    tunnel = False
    to_client: Waiting = b""
    pipe: SplicePipe | None = None  # what the body goes through
    answer = b""  # a response head that has not wholly come
    answered = False  # bytes have gone to the client
    engine_eof = False
    engine_deaf = False  # it takes no more of the request, but may still answer
    half_closed = False
    client_left = False  # by a close, before all that it sent had been forwarded: that comes first
    client_told = False  # that the engine has ended
    keep_engine = False
    status = 502  # what the client is answered, as far as is known
    stale = (
        False  # the kept connection had been closed: nothing was answered, and it may be sent again
    )
    over = False
    reason = "end"
    audit: StreamRecords | None = None
    auditor: StreamScanner | None = None
    output: Decoder = UNDECODED
    input: Decoder = UNDECODED
    tunnelled = 0  # bytes through a tunnel that nobody audits
    quiet = False  # its last block was a small one
    _poll: select.poll | None = None  # made when it is needed: most answers come at once
    _watched = (-1, -1)  # what is wanted of client and engine, as the poll knows

    def __init__(
        self, handler: Any, head: RequestHead, route: Route, engine: socket.socket, reused: bool
    ) -> None:
        self.handler = handler
        self.proxy = handler.proxy
        self.client = handler.connection
        self.secure = isinstance(
            self.client, ssl.SSLSocket
        )  # then bytes may be waiting that poll does not tell of
        self.engine = engine
        self.head = head
        self.route = route
        self.upload = body_reader(head.framing)
        self.replayable = reused and head.replayable
        self.upgrade = offered_protocols(head, route, self.proxy.settings.http2 == "relay")
        self.asks_log = route.endpoint == "logs" and not self.upgrade
        self.to_engine: Waiting = forwarded_request_head(head, self.upgrade, close=self.asks_log)
        self.keep_client = head.keeps_alive
        self.begun = time.monotonic()

    @property
    def endless(self) -> bool:
        """Whether this goes on until somebody ends it; such exchanges are cut when the proxy stops."""
        return self.tunnel or self.auditor is not None or bool(ENDLESS.fullmatch(self.route.path))

    def cut(self, reason: str) -> None:
        """End it, from another thread."""
        self.reason = reason
        self.over = True
        wake(self.client)
        if self.client_left:  # then only the engine is looked at
            wake(self.engine)

    def start(self) -> None:
        """Send the request, as far as the engine takes it and the client has sent it."""
        self.started = True
        self._forward()

    def hear(self) -> None:
        """Pass on what the engine says now, if it does."""
        block = receive(self.engine)
        if block is not None:
            self._take(block, gone=False)

    def run(self) -> None:
        """Relay until both sides are done; raises HTTPError if the client is to be answered by us."""
        try:
            if self.failure:
                raise self.failure
            if not self.started:
                self.start()
            while not self.finished:
                self._step()
        except HTTPError as error:
            self.status, self.reason = error.status, "engine"
            raise
        finally:
            if self.pipe is not None:
                self.pipe.close()
            self.record()

    def begin_opaque(self) -> None:
        """Make it a tunnel from the first byte on: HTTP/2, where that was asked for."""
        self.tunnel = self.answered = True
        self.to_engine, self.download = self.head.start_line, CloseReader()
        self._open_audit()

    # -- one turn of the loop

    @property
    def finished(self) -> bool:
        """Whether both bodies have ended, or a side is gone."""
        if self.over:
            return True
        if self.to_client:
            return False
        if self.tunnel:
            return self.engine_eof and (self.handler.client_eof or self.engine_deaf)
        answered = self.download is not None and (self.download.done or self.engine_eof)
        return answered and (
            (self.upload.done and not self.to_engine) or self.engine_deaf or self.engine_eof
        )

    def _step(self) -> None:
        events = self._follow() if self.quiet else self._wait()
        if events == self._engine_speaks:  # the usual turn of a stream
            self._from_engine(gone=False)
            return
        client = engine = 0
        for fileno, mask in events:
            if fileno == self._engine_fd:
                engine = mask
            else:
                client = mask
        if engine & select.POLLOUT or (engine & HANGUP and self.to_engine):
            self._send_engine()
        if engine & (select.POLLIN | HANGUP) and not self.to_client and not self.engine_eof:
            self._from_engine(gone=bool(engine & HANGUP))
        if client & select.POLLOUT:
            self._send_client()
        if client & select.POLLIN:
            self._from_client(gone=bool(client & HANGUP))
        elif client & HANGUP and self.to_engine and not client & select.POLLERR:
            self.client_left = True
        elif client & HANGUP:
            self._client_gone()

    def _follow(self) -> Events:
        """The turns of a quiet stream: frames that come alone, delivered before they are decoded. Returns what else happens."""
        poll, reader, auditor = self._poll, self.download, self.auditor
        assert poll is not None and isinstance(reader, FrameReader) and auditor is not None
        while not (self.over or self.to_client or reader.done):
            events = poll.poll(SILENCE * 1000 if auditor.restless else None)
            if events != self._engine_speaks:
                if not events:
                    auditor.silence()
                    continue
                self.quiet = False
                return events
            block = receive(self.engine)
            if block is None:
                continue
            if not block or len(block) >= WALK_LEAST or not reader.is_whole(block):
                self._take(block, gone=False)
                break
            self._to_client(block)
            auditor.offer(self.output, reader.feed(block)[1])
        self.quiet = False
        return []

    def _wait(self) -> Events:
        """Poll both sides for what can be done now."""
        wants = self._wants_client()
        client = (select.POLLIN if wants else 0) | (select.POLLOUT if self.to_client else 0)
        if self.client_left and self.to_engine:
            client = -1
        engine = (0 if self.to_client or self.engine_eof else select.POLLIN) | (
            select.POLLOUT if self.to_engine else 0
        )
        if (client, engine) != self._watched:
            if self._poll is None:
                self._poll, self._engine_fd = select.poll(), self.engine.fileno()
                self._engine_speaks = [(self._engine_fd, select.POLLIN)]
                self._masks = {self.client.fileno(): -1, self._engine_fd: -1}
            self._watched = client, engine
            self._register(self.client.fileno(), client, client >= 0)
            self._register(self._engine_fd, engine, engine != 0)
        if wants and self.secure and self.client.pending():  # type: ignore[attr-defined]
            return [(self.client.fileno(), select.POLLIN)]
        restless = self.auditor is not None and self.auditor.restless
        assert self._poll is not None
        events = self._poll.poll(SILENCE * 1000 if restless else None)
        if not events and self.auditor:
            self.auditor.silence()
        return events

    def _register(self, fileno: int, mask: int, watched: bool) -> None:
        """Watch a side. One of which nothing is wanted is not watched at all: its hang-up would wake us for ever."""
        mask = mask if watched else -1
        if mask == self._masks[fileno]:
            return
        if mask < 0:
            self._poll.unregister(fileno)
        else:
            self._poll.register(fileno, mask)
        self._masks[fileno] = mask

    def _wants_client(self) -> bool:
        """Whether to read from the client: this exchange's bytes, or ahead, to notice that it is gone."""
        if self.handler.client_eof:
            return False
        if self.tunnel or not self.upload.done:
            return not self.to_engine and not self.engine_deaf
        return len(self.handler.buffer) < MAX_READ_AHEAD

    # -- client to engine

    def _from_client(self, gone: bool) -> None:
        data = receive(self.client)
        if data is None:
            return
        if data:
            self.handler.buffer += data
            self._forward()
        elif gone:
            self._client_gone()
        else:
            self.handler.client_eof = True
            self._pass_half_close()

    def _forward(self) -> None:
        """Pass on those of the client's bytes that are this exchange's; the others are its next request."""
        buffer = self.handler.buffer
        if self.tunnel:
            data = buffer
        elif self.upload.done or self.engine_deaf:
            data = b""
        else:
            data = buffer[: self.upload.feed(buffer)[0]]
        self.handler.buffer = buffer[len(data) :]
        self.to_engine = bytes(self.to_engine) + data if self.to_engine else data
        self._send_engine()
        if self.tunnel and data:
            self._audit(self.input, data)

    def _send_engine(self) -> None:
        if self.to_engine:
            try:
                self.to_engine = send_some(self.engine, self.to_engine)
            except GONE:
                self.engine_deaf = True
                self.to_engine = b""
        self._pass_half_close()

    def _pass_half_close(self) -> None:
        """The client's end, once every byte before it has been forwarded: the engine cancels what it would cancel."""
        if (
            self.handler.client_eof
            and not self.half_closed
            and not self.to_engine
            and not self.handler.buffer
        ):
            self.half_closed = True
            half_close(self.engine)

    def _client_gone(self) -> None:
        """The client is gone: so is the engine's side, before anything else. A thousand that vanish at once queue for the rest."""
        if self.reason == "end" and not (self.tunnel and self.engine_eof):
            self.reason = "client"
        self.over = True
        self.keep_client = False
        wake(self.engine)

    # -- engine to client

    def _from_engine(self, gone: bool) -> None:
        """Take what the engine says; more at once while it has much to say, since a poll a block is a third of the calls."""
        for _ in range(BLOCKS_A_TURN):
            if self.pipe is not None and self.download and not self.download.done:
                self._splice(self.pipe, gone)
                return
            block = receive(self.engine)
            if block is None:
                return
            self._take(block, gone)
            if len(block) < WALK_LEAST:
                self.quiet = (
                    self.auditor is not None
                    and isinstance(self.download, FrameReader)
                    and not self.secure
                )
                return
            if (
                len(block) < BUSY_BLOCK
                or self.to_client
                or self.over
                or self.tunnel
                or (self.download and self.download.done)
            ):
                return

    def _take(self, block: bytes, gone: bool) -> None:
        """Bytes of the engine's answer, or its end."""
        if not block:
            self._engine_ended(gone)
        elif self.download is None:
            self._heads(self.answer + block)
        else:
            self._body(block)

    def _splice(self, pipe: SplicePipe, gone: bool) -> None:
        """A body of known length that nobody audits: past us. To wait in splice(2) itself saves a poll each time."""
        assert isinstance(self.download, LengthReader)
        until = time.monotonic() + SPLICE_TURN
        while not (self.over or self.download.done) and time.monotonic() < until:
            try:
                moved = pipe.move(self.engine, self.client, self.download.left)
            except GONE:
                self._client_gone()
                return
            except OSError:  # it cannot be spliced; nothing has been taken
                pipe.close()
                self.pipe = None
                return
            if not moved:
                if moved is not None:
                    self._engine_ended(gone)
                return
            self.download.left -= moved

    def _splice_from_here(self) -> None:
        """Let the rest of the body go through a pipe if it can and is worth it."""
        large = isinstance(self.download, LengthReader) and self.download.left >= SPLICE_LEAST
        if not large or self.audit or self.secure or self.to_engine or not self.upload.done:
            return
        try:
            self.pipe = SplicePipe()
        except OSError:
            return  # it is read and sent, as on Pythons without splice
        self.engine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SPLICE_PATIENCE)

    def _heads(self, answer: bytes) -> None:
        """Pass on the interim responses in `answer`, then begin the final one (RFC 9110 §15.2)."""
        seen = len(self.answer)
        while True:
            try:
                length = head_length(answer, seen, "engine's answer")
            except HTTPError as error:
                raise EngineError(str(error)) from None
            if not length:
                break
            head, answer, seen = read_response_head(answer[:length]), answer[length:], 0
            if head.status == 101 and not self.upgrade:
                raise EngineError("the engine switched to a protocol that was not offered to it")
            if head.status >= 200 or head.status == 101:
                self.answer = b""
                self._begin(head, answer)
                return
            self._to_client(head.end_to_end + b"\r\n")
        self.answer = answer

    def _begin(self, head: ResponseHead, rest: bytes) -> None:
        """The final response's head has come: decide what its body is, and open its audit."""
        self.response, self.status = head, head.status
        framing = (
            Framing("close") if head.status == 101 else response_framing(head, self.head.method)
        )
        hijack = (
            framing.kind == "close"
            and self.route.endpoint in ("attach", "exec")
            and head.status == 200
        )
        self.tunnel = hijack or head.status == 101
        stream = self.tunnel
        if (
            self.route.audited and head.status == 200
        ):  # a detached exec's answer is no stream, being empty
            stream = framing.kind == "chunked" or not body_reader(framing).done
        if stream:
            self._open_audit()
        self.keep_client = (
            self.keep_client and framing.kind != "close" and not (stream and self.route.audited)
        )
        self.keep_engine = head.keeps_alive and not self.asks_log and framing.kind != "close"
        self.download = body_reader(framing, collect=self.auditor is not None)
        if framing.kind == "chunked" and self.auditor and isinstance(self.output, StreamDemuxer):
            self.download = FrameReader(self.output)
        if self.tunnel:
            answer = b"".join([head.start_line, *[field.line for field in head.fields], b"\r\n"])
        else:
            answer = forwarded_response_head(
                head, self.head.version, self.keep_client and not self.proxy.stopping
            )
        if rest:  # one send with the head: it wakes the client once
            self.to_client = bytes(self.to_client) + answer
            self._body(rest)
        else:
            self._to_client(answer)
        self._splice_from_here()
        if self.tunnel:
            self._record_request()
            self._forward()

    def _body(self, block: bytes) -> None:
        """Deliver a block of the body, then audit it."""
        assert self.download is not None
        try:
            used, payload = self.download.feed(block)
        except (
            HTTPError
        ):  # the client gets what the engine sent, and no end that the engine did not send
            used, payload = len(block), block
            self.download, self.keep_client, self.keep_engine, self.reason = (
                CloseReader(),
                False,
                False,
                "cut_chunk",
            )
        if used < len(block):
            self.keep_engine = False
            block = block[:used]
        self._to_client(block)
        if payload:
            self._audit(self.output, payload)

    def _to_client(self, data: bytes) -> None:
        self.answered = True
        self.to_client = bytes(self.to_client) + data if self.to_client else data
        self._send_client()

    def _send_client(self) -> None:
        try:
            self.to_client = send_some(self.client, self.to_client) if self.to_client else b""
        except GONE:
            self._client_gone()
        if self.tunnel and self.engine_eof and not self.to_client and not self.client_told:
            self.client_told = True
            half_close(self.client)

    def _engine_ended(self, gone: bool) -> None:
        """EOF from the engine: the body's end, a hijack's half-close, or an answer that will never come."""
        self.engine_eof = True
        self.keep_engine = False
        if self.download is None:
            if self.replayable and not self.answer and not self.answered:
                self.stale = self.over = True
                return
            raise EngineError("the engine closed the connection without an answer")
        if self.tunnel:
            self.engine_deaf = self.engine_deaf or gone
            self._send_client()
        elif not self.download.done and not isinstance(self.download, CloseReader):
            self.keep_client = False
            self.reason = "cut_chunk" if isinstance(self.download, ChunkedReader) else "engine"

    # -- beside the relay

    def _open_audit(self) -> None:
        """A stream begins: write its `stream_open` and, where it can be read, set up its decoders."""
        route, proxy = self.route, self.proxy
        endpoint = route.endpoint if route.audited else "tunnel"
        follow = endpoint != "logs" or route.flag("follow")
        kind = route.kind if route.kind in ("service", "task") else None
        self.audit = proxy.log.open_stream(
            endpoint, route.name, self.handler.identity, follow, route.audited, kind
        )
        if not route.audited or self.response is None:
            self.audit.named(None, None)
            return
        deny = proxy.settings.on_audit_failure == "deny"
        self.auditor = StreamScanner(
            proxy.scanning,
            proxy.room,
            proxy.scanner,
            self.audit,
            self._abandoned,
            self._scan_failed,
            patient=deny,
        )
        proxy.resolver.resolve(route.kind or "container", route.name, self._inspected)
        proxy.scans(+1)
        self.output, self.input = output_decoder(route, self.response), input_decoder(route)
        if (
            deny and proxy.log.failed()
        ):  # the log failed between the request and here, when there was no stream to cut
            self.cut("audit_failure")

    def _inspected(self, container_id: str | None, name: str | None, tty: bool | None) -> None:
        """The look-up is over, in its own thread, or has failed (None)."""
        assert self.audit is not None and self.auditor is not None
        self.audit.named(container_id, name)
        self.auditor.inspected(tty)

    def _audit(self, decoder: Decoder, payload: Union[bytes, Decoded]) -> None:
        if self.auditor:
            self.auditor.offer(decoder, payload)
        elif self.audit:
            self.tunnelled += len(payload)

    def _abandoned(self) -> bool:
        """Whether waiting for scanning room has become pointless: the client is gone, or we stop."""
        if self.over or self.proxy.stopping:
            return True
        if (
            self.download is not None and self.download.done
        ):  # all has been delivered: the wait holds nobody up
            return False
        hangup = select.poll()
        hangup.register(self.client.fileno(), 0)
        return bool(hangup.poll(0))

    def _scan_failed(self) -> None:
        if self.proxy.settings.on_audit_failure == "deny":
            self.cut("audit_failure")

    def record(self) -> None:
        """The exchange is over: close its stream, and write its `request` record unless that stands at its head."""
        if not self.tunnel and not self.stale:
            self._record_request()
        if self.audit is None:
            return
        if self.auditor:
            self.proxy.scans(-1)
            self.auditor.close((self.output, self.input), self.reason)
        else:
            self.audit.close(
                framing="opaque",
                nbytes=self.tunnelled,
                frames=0,
                lines=0,
                unscanned=0,
                reason=self.reason,
            )

    def _record_request(self) -> None:
        self.proxy.count_request(self.head.method, self.status)
        reading = self.head.method in (b"GET", b"HEAD") and not EXPORTS.fullmatch(self.route.path)
        if (
            reading and self.proxy.settings.mode != "learn"
        ):  # to learn from, all of the traffic is needed
            return
        fields = {
            "method": self.head.method.decode("ascii"),
            "path": self.proxy.masked(self.route.path),
            "status": self.status,
            "client": self.handler.identity,
            "seconds": round(time.monotonic() - self.begun, 6),
        }
        self.proxy.log.accept("request", fields)
