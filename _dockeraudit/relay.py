"""One request and its answer, without I/O: bytes in, bytes out, and the state they have come to.

    client's bytes ─▶ from_client ─▶ upload reader ──────────────▶ engine.pending
    client.pending ◀─ heads, download reader ◀─ from_engine ◀───── engine's bytes

`exchange.py` moves the bytes between this and the two sockets. What stands in a side's `pending` is
what its socket has not taken yet. The other socket is read only when that is empty: so a slow
reader slows the writer, and at most one block waits each way.

States, and what leads from one to the next:

    REQUEST   the request is under way, no final response has come
                the final response's head                          ─▶ BODY
                101, or the old hijack of attach and exec          ─▶ TUNNEL
                the engine ends a reused connection unanswered     ─▶ STALE
                the engine ends, or speaks no HTTP                 raises EngineError
    BODY      the response's body flows, maybe the rest of the request too
                both bodies have ended (`finished`)                (stays BODY)
    TUNNEL    bytes pass both ways until both sides have ended
                both ended, or one ended and takes no more         (stays TUNNEL)
    STALE     nothing was answered, and the request may be sent again on a new connection
    CUT       a side is gone, or somebody ended the exchange; from any state
"""

from __future__ import annotations

import enum
from typing import Any, Callable, Protocol, Union

from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import (
    CloseReader,
    Framing,
    RequestHead,
    ResponseHead,
    body_reader,
    empty_lines,
    forwarded_request_head,
    forwarded_response_head,
    head_length,
    read_response_head,
    response_framing,
)
from _dockeraudit.routes import Route

MAX_READ_AHEAD = 64 << 10  # bytes of pipelined requests read early, so that a client's EOF is seen


class RelayState(enum.Enum):
    """Where an exchange stands; the module's docstring says what leads to each."""

    REQUEST = "request"
    BODY = "body"
    TUNNEL = "tunnel"
    STALE = "stale"
    CUT = "cut"


class Side:
    """One peer of an exchange.

    `pending`: bytes for it that its socket has not taken. `ended`: its EOF has been read.
    `deaf`: it takes no more bytes. `shut`: it has been told that no more come (half-close).
    """

    __slots__ = ("deaf", "ended", "pending", "shut")

    def __init__(self) -> None:
        self.pending: Union[bytes, memoryview] = b""
        self.ended = False
        self.deaf = False
        self.shut = False

    def add(self, data: bytes) -> None:
        """Let more bytes wait for it."""
        self.pending = bytes(self.pending) + data if self.pending else data

    def stop_taking(self) -> None:
        """It takes no more: what waited for it is dropped."""
        self.deaf = True
        self.pending = b""


class WireReader(Protocol):
    """What finds the end of a response's body."""

    @property
    def done(self) -> bool: ...
    @property
    def broken(self) -> HTTPError | None: ...

    def feed(self, block: bytes) -> tuple[int, Any]:
        """How many bytes of `block` are the body's, and the payload among them."""


class Masking(Protocol):
    """What puts asterisks where secrets are, on a body's way to the client.

    `payload`: of the last block, for the audit. `waits`: it keeps bytes of a body that has ended
    until it is known how they are framed. `full`: it takes no more of them until then.
    """

    @property
    def payload(self) -> bytes: ...
    @property
    def waits(self) -> bool: ...
    @property
    def full(self) -> bool: ...

    def pass_on(self, block: bytes, payload: Any) -> bytes:
        """A block of the body, with what its reader gave; the bytes for the client."""

    def end(self) -> bytes:
        """The body has ended; the bytes for the client, unless they must wait."""


class Relay:
    """The exchange's two sides, its state, and where its bodies end.

    `opened(relay, framing)` is called when the final response's head has come. It returns the
    reader of the response's body, which decides what payload `from_engine` returns for the audit.
    """

    response: ResponseHead | None = None
    download: WireReader | None = None
    status = 502  # what the client is answered, as far as is known
    reason = "end"  # how it ended, in the words of `stream_close`
    stream = False  # the answer is a stream that is recorded
    keep_engine = False  # the engine's connection can carry another request
    engine_broke = False  # the engine's connection was reset before its answer was whole
    mask: Masking | None = None  # of a stream whose secrets the client does not get
    _framing = Framing("close")  # of the response's body

    def __init__(
        self,
        head: RequestHead,
        route: Route,
        upgrade: list[bytes],
        opened: Callable[[Relay, Framing], WireReader],
        *,
        reused: bool = False,
        unread: bytes = b"",
    ) -> None:
        self.state = RelayState.REQUEST
        self.client, self.engine = Side(), Side()
        self.unread = unread  # bytes from the client that are not this exchange's, or not yet
        self.upload = body_reader(head.framing, collect=route.has_scanned_body)
        self.keep_client = head.keeps_alive  # the client's connection can carry another request
        self.asks_log = route.endpoint == "logs" and not upgrade
        self._head, self._route, self._upgrade, self._opened = head, route, upgrade, opened
        self._replayable = reused and head.replayable
        self._answer = b""  # a response head that has not wholly come
        self._answered = False  # an interim response has been passed on
        self.engine.add(forwarded_request_head(head, upgrade, close=self.asks_log))

    @property
    def answered(self) -> bool:
        """Whether bytes have gone to the client, so that no answer of our own can."""
        return self._answered or self.response is not None or self.state is RelayState.TUNNEL

    @property
    def finished(self) -> bool:
        """Whether nothing is left to relay."""
        if self.state is RelayState.CUT or self.state is RelayState.STALE:
            return True
        client, engine = self.client, self.engine
        if client.pending or (self.mask and self.mask.waits):
            return False
        if self.state is RelayState.TUNNEL:
            return engine.ended and (client.ended or engine.deaf)
        if self.download is None or not (self.download.done or engine.ended):
            return False
        return (self.upload.done and not engine.pending) or engine.deaf or engine.ended

    @property
    def wants_client(self) -> bool:
        """Whether the client is to be read: for this exchange, or ahead, to notice its EOF."""
        if self.client.ended:
            return False
        if self.state is RelayState.TUNNEL or not self.upload.done:
            return not self.engine.pending and not self.engine.deaf
        return len(self.unread) < MAX_READ_AHEAD

    @property
    def wants_engine(self) -> bool:
        """Whether the engine is to be read."""
        if self.mask and self.mask.full:
            return False
        return not self.client.pending and not self.engine.ended

    def begin_opaque(self, first: bytes) -> None:
        """Make it a tunnel from its first bytes on: HTTP/2, where that was asked for."""
        self.state = RelayState.TUNNEL
        self.stream = True
        self.engine.pending, self.download = first, CloseReader()

    def cut(self, reason: str) -> None:
        """End it, whatever its state; another thread may call."""
        self._ended_by(reason)
        self.state = RelayState.CUT

    def _enter(self, state: RelayState) -> None:
        """Go on to a state; an exchange that was cut stays so."""
        if self.state is not RelayState.CUT:
            self.state = state

    def _ended_by(self, reason: str) -> None:
        """Note why it ended; the first reason counts."""
        if self.reason == "end":
            self.reason = reason

    # -- the client's events

    def from_client(self, data: bytes) -> bytes:
        """Bytes from the client: those of this exchange wait for the engine, the rest is unread.

        Returns the payload for the audit: of the request's body, or what the client typed into a
        tunnel. Raises HTTPError (400) where the request's body is not what its head says.
        """
        buffer = self.unread + data if self.unread else data
        if self.state is RelayState.TUNNEL:
            mine = payload = buffer
        elif self.upload.done or self.engine.deaf:
            mine = payload = b""
        else:
            used, payload = self.upload.feed(buffer)
            mine = buffer[:used]
            if self.upload.broken:
                raise self.upload.broken
        self.unread = buffer[len(mine) :]
        # Empty lines behind a request are nobody's (RFC 9112 §2.2).
        if self.upload.done and self.unread[:1] in (b"\r", b"\n"):
            self.unread = self.unread[empty_lines(self.unread) :]
        if mine:
            self.engine.add(mine)
        return payload

    @property
    def engine_shut_due(self) -> bool:
        """Whether the engine is to be told now that the client sends no more.

        An EOF counts once every byte before it has been forwarded.
        """
        if self.engine.shut or not self.client.ended:
            return False
        return not self.engine.pending and not self.unread

    def client_gone(self) -> None:
        """The client has closed or reset its connection."""
        if not (self.state is RelayState.TUNNEL and self.engine.ended):
            self._ended_by("client")
        self.keep_client = False
        self.state = RelayState.CUT

    # -- the engine's events

    def from_engine(self, block: bytes) -> Any:
        """Bytes from the engine: what is the client's waits for it now.

        Returns the payload for the audit, as the body's reader gives it, to be scanned once the
        client has its bytes. Raises EngineError for an answer that is not HTTP.
        """
        if self.download is None:
            return self._heads(self._answer + block)
        return self._body(block)

    def engine_ended(self, broken: bool = False, why: str = "") -> None:
        """EOF from the engine: the body's end, a half-close, or an answer that will never come.

        `broken`: its connection was reset; `why`: as far as it is known. Raises EngineError where
        there is no answer.
        """
        self.engine.ended = True
        self.keep_engine = False
        self.engine_broke = broken and not (self.download and self.download.done)
        if self.download is None:
            if self._replayable and not self._answer and not self._answered:
                self._enter(RelayState.STALE)
                return
            raise EngineError(why or "the engine closed the connection without an answer")
        if self.state is RelayState.TUNNEL:
            self.engine.deaf = self.engine.deaf or broken
        elif not self.download.done and (broken or self._framing.kind != "close"):
            self.keep_client = False
            self._ended_by("cut_chunk" if self._framing.kind == "chunked" else "engine")
        if self.mask:
            self.client.add(self.mask.end())

    @property
    def client_shut_due(self) -> bool:
        """Whether the client of a tunnel is to be told now that the engine sends no more."""
        if self.client.shut or not self.engine.ended or self.client.pending:
            return False
        if self.mask and self.mask.waits:
            return False
        return self.state is RelayState.TUNNEL

    def _heads(self, answer: bytes) -> Any:
        """Pass on the interim responses in `answer`, then begin the final one (RFC 9110 §15.2)."""
        seen = len(self._answer)
        while True:
            try:
                length = head_length(answer, seen, "engine's answer")
            except HTTPError as error:
                raise EngineError(str(error)) from None
            if not length:
                self._answer = answer
                return b""
            head, answer, seen = read_response_head(answer[:length]), answer[length:], 0
            if head.status == 101 and not self._upgrade:
                raise EngineError("the engine switched to a protocol that was not offered to it")
            if head.status >= 200 or head.status == 101:
                self._answer = b""
                return self._begin(head, answer)
            self._answered = True
            self.client.add(head.end_to_end + b"\r\n")

    def _begin(self, head: ResponseHead, rest: bytes) -> Any:
        """The final response's head: decide what follows it, and let it wait for the client."""
        upgraded = head.status == 101
        framing = Framing("close") if upgraded else response_framing(head, self._head.method)
        until_close = framing.kind == "close"
        tunnel = upgraded or (
            until_close and head.status == 200 and self._route.endpoint in ("attach", "exec")
        )
        audited = self._route.audited and head.status == 200 and has_body(framing)
        self.response, self.status = head, head.status
        self._enter(RelayState.TUNNEL if tunnel else RelayState.BODY)
        self.stream = tunnel or audited
        self._framing = framing
        self.keep_client = self.keep_client and not until_close and not audited
        self.keep_engine = head.keeps_alive and not self.asks_log and not until_close
        self.download = self._opened(self, framing)
        if tunnel:
            self.client.add(head.as_it_came + b"\r\n")
        else:
            self.client.add(forwarded_response_head(head, self._head.version, self.keep_client))
        return self._body(rest) if rest else b""

    def _body(self, block: bytes) -> Any:
        """A block of the body; what stands behind the body's end reaches nobody."""
        assert self.download is not None
        used, payload = self.download.feed(block)
        if used < len(block):
            self.keep_engine = False
            block = block[:used]
        if self.mask:
            block, payload = self.mask.pass_on(block, payload), self.mask.payload
            if self.download.done or self.download.broken:
                block += self.mask.end()
        self.client.add(block)
        if self.download.broken:  # the client gets no end that the engine did not send
            self.keep_client = False
            self._ended_by("cut_chunk")
            self.engine.ended = True
        return payload


def has_body(framing: Framing) -> bool:
    """Whether a body follows: a detached exec's answer has none, and is no stream."""
    return framing.kind in ("chunked", "close") or framing.length > 0
