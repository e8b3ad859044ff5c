"""One exchange of a masking listener: what its client gets, and what is recorded of it.

    block ─▶ MaskedBody.feed (places) ─▶ .pass_on ─▶ Mask ─▶ bytes for the client
                                                      └──▶ StreamRecords, of a stream

It scans in the relaying thread, before the client gets the bytes; workers search parts of a large
block at the same time. The stream waits for that, and for what the engine says of the container,
rather than pass anything unscanned. If a scan raises, the stream is cut.

Threads. All but `inspected` is for the relaying thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from _dockeraudit.answerplaces import answer_places
from _dockeraudit.errors import HTTPError
from _dockeraudit.http1 import Framing, body_reader
from _dockeraudit.masking import HOLD, HOLD_TYPED, Mask
from _dockeraudit.ownsecrets import OwnSecrets, with_own_secrets
from _dockeraudit.places import ChunkSpans, FramedChunks, Places, PlainSpans, WirePlaces
from _dockeraudit.routes import FLOWING_ANSWERS, Route
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import ENTER
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import DETAILS, Decoder, StreamDemuxer
from _dockeraudit.textscanner import FRAMES, TextScanner, reading_of
from _dockeraudit.workers import Workers, spread

UNSAID_POLL = 0.002  # seconds between looks whether the engine has said how a stream is framed
ANSWER_HOLD = 1.0  # seconds that an answer's unfinished line waits: it comes whole
ANSWER_MOST = 4 << 20  # bytes of an answer that wait: a config's data is read whole
SILENCE_TYPED = 0.2  # seconds after which an unfinished line that was typed is scanned


class MaskAsked(NamedTuple):
    """What is asked of a masked stream.

    `severity`: from which on a secret is masked. `exempts`: some secrets are allowed. `waits`:
    nothing leaves before the engine has said what it knows of the container. `typed`: the client
    types, and sees it come back.
    """

    severity: str
    exempts: bool
    waits: bool
    typed: bool


def wire_places(decoder: Decoder, framing: Framing, waits: bool) -> WirePlaces:
    """What reads a body as a decoder does, and finds the places of its texts on the wire."""
    chunked = framing.kind == "chunked"
    body = ChunkSpans() if chunked else PlainSpans(body_reader(framing))
    if not isinstance(decoder, StreamDemuxer):
        return WirePlaces(body, decoder.framing, waits=waits)
    if chunked and decoder.framing == "multiplexed" and not decoder.prefixes:
        assert isinstance(body, ChunkSpans)
        return FramedChunks(body, waits)
    stamps = decoder.prefixes > decoder.details
    return WirePlaces(body, decoder.framing, stamps, decoder.details, waits=waits)


class MaskedBody:
    """A body on its way to the client.

    As a relay's reader it finds where the body ends; as its mask it gives the bytes for the client.
    `on_error(kind)` is called once if a scan raises; nothing more leaves then.
    """

    def __init__(
        self,
        wire: WirePlaces,
        mask: Mask,
        rules: Scanner,
        on_error: Callable[[str], None],
        workers: Workers | None = None,
    ) -> None:
        self.failed = False
        self.wire = wire
        self.mask = mask
        self._rules = rules
        self._workers = workers
        self._on_error = on_error
        self._said: tuple[bool | None, OwnSecrets | None] | None = None  # by the engine
        self._ended = False
        self._finished = False

    # -- a relay's reader

    @property
    def done(self) -> bool:
        """Whether the body has ended."""
        return self.wire.done

    @property
    def broken(self) -> HTTPError | None:
        """What is illegal in the body."""
        return self.wire.broken

    def feed(self, block: bytes) -> tuple[int, Places]:
        """How many bytes of `block` are the body's, and where texts stand in them."""
        try:
            return self.wire.feed(block)
        except Exception as error:
            self._fail(error)
            return len(block), Places()

    # -- a relay's mask

    @property
    def payload(self) -> bytes:
        """The payload of the last block, for those who scan it beside the relay."""
        return self.wire.taken

    @property
    def waits(self) -> bool:
        """Whether the body has ended, and bytes of it wait for the engine's word."""
        return self._ended and not self._finished and not self.failed

    @property
    def full(self) -> bool:
        """Whether no more bytes can wait for the engine's word."""
        return self.mask.full

    def pass_on(self, block: bytes, payload: Any) -> bytes:
        """A block of the body, with its places; the bytes for the client."""
        return self._guarded(lambda now: self.mask.pass_on(block, payload, now))

    def end(self) -> bytes:
        """The body has ended; the bytes for the client, unless they must wait."""
        self._ended = True
        return self._guarded(lambda now: b"")

    # -- time

    def limit(self) -> float | None:
        """Seconds until `turn` has something to do; None: it has nothing."""
        if self.failed or self._finished:
            return None
        if self.wire.framing is None and (self.mask.held or self._ended):
            return UNSAID_POLL
        due = self.mask.due()
        return None if due is None else max(0.0, due - time.monotonic())

    def turn(self) -> bytes:
        """Let go what has waited long enough; the bytes for the client."""
        return self._guarded(lambda now: self.mask.feed(b"", now))

    def inspected(self, tty: bool | None, own: OwnSecrets | None = None) -> None:
        """The engine says whether there is a TTY, and what the container's secrets are.

        Any thread; None: it cannot say.
        """
        if self._said is None:
            self._said = tty, own

    def _guarded(self, step: Callable[[float], bytes]) -> bytes:
        """One step of the mask, and what the engine's word or the end add to it."""
        if self.failed or self._finished:
            return b""
        now = time.monotonic()
        try:
            out = step(now) + self._decide(now)
            if self._ended and self.wire.framing is not None:
                self._finished = True
                out += self.mask.end()
            self._count()
        except Exception as error:
            self._fail(error)
            return b""
        return out

    def _fail(self, error: Exception) -> None:
        """A scan has raised; by its kind alone: its text may hold what it choked on."""
        if not self.failed:
            self.failed = True
            self._on_error(type(error).__name__)

    def _decide(self, now: float) -> bytes:
        """Take over what the engine has said."""
        said = self._said
        if said is None or self.wire.framing is not None:
            return b""
        tty, own = said
        self.mask.use(spread(with_own_secrets(self._rules, own), self._workers))
        self._framed(tty)
        return self.mask.decide(tty, now)

    def _framed(self, tty: bool | None) -> None:
        """It is known whether there is a TTY."""

    def _count(self) -> None:
        """Count what has flowed."""


class NoRecords:
    """Where the findings go of what is recorded by others, or not at all."""

    def finding(self, *match: Any, **more: Any) -> None:
        """Nothing is recorded."""

    def update(self, *match: Any, **more: Any) -> None:
        """Nothing is recorded."""


class AnswerMask(NamedTuple):
    """What is asked of a masked answer.

    `exempt`: whether a secret is allowed. `waits`: what the engine says of the container counts.
    """

    severity: str
    exempt: Callable[[bytes], bool] | None
    waits: bool


def masked_answer(
    route: Route,
    framing: Framing,
    rules: Scanner,
    asked: AnswerMask,
    on_error: Callable[[str], None],
) -> MaskedBody:
    """An answer that may hold secrets; AnswerScan records what is found in it.

    Nothing of an answer that comes whole leaves before it can be read. Of one that people watch,
    lines leave as of a log.
    """
    body = ChunkSpans() if framing.kind == "chunked" else PlainSpans(body_reader(framing))
    of_one = route.kind in ("container", "exec") and route.answer not in ("create", "update")
    waits = asked.waits and of_one
    wire = WirePlaces(body, "raw", waits=waits, reader=answer_places(route))
    hold = HOLD if route.answer in FLOWING_ANSWERS else ANSWER_HOLD
    mask = Mask(
        wire, rules, NoRecords(), asked.severity, hold, asked.exempt, ANSWER_MOST, spared=b'"'
    )
    return MaskedBody(wire, mask, rules, on_error)


class MaskedStream(MaskedBody):
    """A stream on its way to the client, and its records."""

    restless = False  # `limit` says when to look, instead

    def __init__(
        self,
        wire: WirePlaces,
        scanner: Scanner,
        records: StreamRecords,
        asked: MaskAsked,
        on_error: Callable[[], None],
        workers: Workers | None = None,
    ) -> None:
        exempt = records.exempts if asked.exempts else None
        mask = Mask(wire, spread(scanner, workers), records, asked.severity, HOLD, exempt)
        super().__init__(wire, mask, scanner, self._failed, workers)
        self.records = records
        self._asked = asked
        self._stop = on_error
        self._counted = 0, 0  # bytes and frames
        self._typed: TextScanner | None = None
        self._typed_at: float | None = None
        self._typed_bytes = 0
        self._framed(wire.framing == "raw")

    def limit(self) -> float | None:
        """Seconds until `turn` has something to do; None: it has nothing."""
        limit = super().limit()
        if self._typed_at is None:
            return limit
        settle = max(0.0, self._typed_at + SILENCE_TYPED - time.monotonic())
        return settle if limit is None else min(limit, settle)

    def turn(self) -> bytes:
        """Let go what has waited long enough; the bytes for the client."""
        self._settle_typed()
        return super().turn()

    def _failed(self, kind: str) -> None:
        self.records.error(kind)
        self._stop()

    def _framed(self, tty: bool | None) -> None:
        """It is known whether there is a TTY: then the client waits for what it types."""
        if tty and self._asked.typed:
            self.mask.hold = HOLD_TYPED

    def _count(self) -> None:
        size, frames = self._counted
        self._counted = self.wire.payload, self.wire.frames
        self.records.progress(self._counted[0] - size, self._counted[1] - frames)

    # -- a stream's scanner

    def offer(self, decoder: Decoder, payload: bytes) -> None:
        """Scan what the client typed; it has been forwarded unchanged."""
        self._typed_bytes += len(payload)
        self.records.progress(len(payload), 0)
        for name, data in decoder.feed(payload):
            if self._typed is None:
                self._typed = TextScanner(self._rules, self.records, name)
            self._guarded_typing(self._typed.feed, ENTER.sub(b"\n", data))
        self._typed_at = time.monotonic()

    def _settle_typed(self) -> None:
        at = self._typed_at
        if self._typed and at is not None and time.monotonic() >= at + SILENCE_TYPED:
            self._typed_at = None
            self._guarded_typing(self._typed.settle)

    def _guarded_typing(self, step: Callable[..., None], *data: bytes) -> None:
        """Scan what was typed; if that fails it is recorded, and the stream goes on."""
        try:
            step(*data)
        except Exception as error:
            self.records.error(type(error).__name__)
            self._typed = None

    @property
    def waiting(self) -> int:
        """Bytes that wait."""
        return self.mask.held

    @property
    def bytes(self) -> int:
        """Bytes of the stream so far, both ways."""
        return self.wire.payload + self._typed_bytes

    def close(self, decoders: Sequence[Decoder], reason: str) -> None:
        """The exchange is over: scan what is left, then write its `stream_close`."""
        self._ended = True
        if self._said is None:
            self._said = None, None
        self._guarded(lambda now: b"")
        if self._typed:
            self._guarded_typing(self._typed.end)
        cut = reason == "end" and self.wire.inside_frame
        self.records.close(
            framing=self.wire.framing or "unknown",
            nbytes=self.bytes,
            frames=self.wire.frames + decoders[1].frames,
            lines=self._lines(),
            unscanned=self.mask.held,
            reason="cut_frame" if cut else reason,
        )

    def _lines(self) -> int:
        """The lines of all texts, those that were read twice once."""
        unknown = self.wire.framing == "unknown"
        texts = self.mask.texts.items()
        counted = (
            text.lines
            for name, text in texts
            if not name.endswith(DETAILS) and not (unknown and reading_of(name) == FRAMES)
        )
        return sum(counted) + (self._typed.lines if self._typed else 0)
