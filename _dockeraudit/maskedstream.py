"""One audited exchange of a masking listener: what its client gets, and what is recorded of it.

    block ─▶ MaskedStream.feed (places) ─▶ .pass_on ─▶ Mask ─▶ bytes for the client
                                                        └──▶ StreamRecords

It scans in the relaying thread, before the client gets the bytes. The stream waits for that, and
for what the engine says of the container, rather than pass anything unscanned. If a scan raises,
the stream is cut.

Threads. All but `inspected` is for the relaying thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from _dockeraudit.errors import HTTPError
from _dockeraudit.http1 import Framing, body_reader
from _dockeraudit.masking import HOLD, HOLD_TYPED, Mask
from _dockeraudit.ownsecrets import OwnSecrets, with_own_secrets
from _dockeraudit.places import ChunkSpans, FramedChunks, Places, PlainSpans, WirePlaces
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import ENTER
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import DETAILS, Decoder, StreamDemuxer
from _dockeraudit.textscanner import FRAMES, TextScanner, reading_of

UNSAID_POLL = 0.002  # seconds between looks whether the engine has said how a stream is framed
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


class MaskedStream:
    """A stream's reader, mask and scanner in one.

    As a relay's reader it finds where the body ends; as its mask it gives the bytes for the client.
    """

    restless = False  # `limit` says when to look, instead

    def __init__(
        self,
        wire: WirePlaces,
        scanner: Scanner,
        records: StreamRecords,
        asked: MaskAsked,
        on_error: Callable[[], None],
    ) -> None:
        self.records = records
        self.failed = False  # a scan has raised: nothing more leaves
        self._rules = scanner
        self._wire = wire
        self._asked = asked
        self._on_error = on_error
        self._mask = Mask(
            wire,
            scanner,
            records,
            asked.severity,
            HOLD_TYPED if asked.typed and wire.framing == "raw" else HOLD,
            records.exempts if asked.exempts else None,
        )
        self._said: tuple[bool | None, OwnSecrets | None] | None = None  # by the engine
        self._ended = False
        self._finished = False
        self._counted = 0, 0  # bytes and frames
        self._typed: TextScanner | None = None
        self._typed_at: float | None = None
        self._typed_bytes = 0

    # -- a relay's reader

    @property
    def done(self) -> bool:
        """Whether the body has ended."""
        return self._wire.done

    @property
    def broken(self) -> HTTPError | None:
        """What is illegal in the body."""
        return self._wire.broken

    def feed(self, block: bytes) -> tuple[int, Places]:
        """How many bytes of `block` are the body's, and where texts stand in them."""
        try:
            return self._wire.feed(block)
        except Exception as error:
            self._fail(error)
            return len(block), Places()

    # -- a relay's mask

    @property
    def waits(self) -> bool:
        """Whether the body has ended, and bytes of it wait for the engine's word."""
        return self._ended and not self._finished and not self.failed

    @property
    def full(self) -> bool:
        """Whether no more bytes can wait for the engine's word."""
        return self._mask.full

    def pass_on(self, block: bytes, payload: Any) -> bytes:
        """A block of the body, with its places; the bytes for the client."""
        return self._guarded(lambda now: self._mask.pass_on(block, payload, now))

    def end(self) -> bytes:
        """The body has ended; the bytes for the client, unless they must wait."""
        self._ended = True
        return self._guarded(lambda now: b"")

    # -- time

    def limit(self) -> float | None:
        """Seconds until `turn` has something to do; None: it has nothing."""
        if self.failed:
            return None
        if self._wire.framing is None and (self._mask.held or self._ended):
            return UNSAID_POLL
        due = [self._mask.due(), self._typed_at and self._typed_at + SILENCE_TYPED]
        times = [when for when in due if when is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def turn(self) -> bytes:
        """Let go what has waited long enough; the bytes for the client."""
        self._settle_typed()
        return self._guarded(lambda now: self._mask.feed(b"", now))

    def _guarded(self, step: Callable[[float], bytes]) -> bytes:
        """One step of the mask, and what the engine's word or the end add to it."""
        if self.failed or self._finished:
            return b""
        now = time.monotonic()
        try:
            out = step(now) + self._decide(now)
            if self._ended and self._wire.framing is not None:
                self._finished = True
                out += self._mask.end()
            self._count()
        except Exception as error:
            self._fail(error)
            return b""
        return out

    def _fail(self, error: Exception) -> None:
        """A scan has raised; by its kind alone: its text may hold what it choked on."""
        self.failed = True
        self.records.error(type(error).__name__)
        self._on_error()

    def _decide(self, now: float) -> bytes:
        """Take over what the engine has said."""
        said = self._said
        if said is None or self._wire.framing is not None:
            return b""
        tty, own = said
        self._mask.use(with_own_secrets(self._rules, own))
        if self._asked.typed and tty:
            self._mask.hold = HOLD_TYPED
        return self._mask.decide(tty, now)

    def _count(self) -> None:
        size, frames = self._counted
        self._counted = self._wire.payload, self._wire.frames
        self.records.progress(self._counted[0] - size, self._counted[1] - frames)

    # -- a stream's scanner

    def inspected(self, tty: bool | None, own: OwnSecrets | None = None) -> None:
        """The engine says whether there is a TTY, and what the container's secrets are.

        Any thread; None: it cannot say.
        """
        if self._said is None:
            self._said = tty, own

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
        return self._mask.held

    @property
    def bytes(self) -> int:
        """Bytes of the stream so far, both ways."""
        return self._wire.payload + self._typed_bytes

    def close(self, decoders: Sequence[Decoder], reason: str) -> None:
        """The exchange is over: scan what is left, then write its `stream_close`."""
        self._ended = True
        if self._said is None:
            self._said = None, None
        self._guarded(lambda now: b"")
        if self._typed:
            self._guarded_typing(self._typed.end)
        cut = reason == "end" and self._wire.inside_frame
        self.records.close(
            framing=self._wire.framing or "unknown",
            nbytes=self.bytes,
            frames=self._wire.frames + decoders[1].frames,
            lines=self._lines(),
            unscanned=self._mask.held,
            reason="cut_frame" if cut else reason,
        )

    def _lines(self) -> int:
        """The lines of all texts, those that were read twice once."""
        unknown = self._wire.framing == "unknown"
        texts = self._mask.texts.items()
        counted = (
            text.lines
            for name, text in texts
            if not name.endswith(DETAILS) and not (unknown and reading_of(name) == FRAMES)
        )
        return sum(counted) + (self._typed.lines if self._typed else 0)
