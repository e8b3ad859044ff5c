"""Where the texts of a stream lie in its bytes on the wire. Performs no I/O.

    bytes on the wire ─▶ ChunkSpans / PlainSpans ─▶ FramePlaces, RawPlaces, SocketPlaces ─▶ Places

These read a stream as the decoders of `streams` do, and say for each piece of a text where on the
wire it stands, so that its bytes can be overwritten there. Offsets on the wire count from the
body's first byte.
"""

from __future__ import annotations

import bisect
from itertools import accumulate
from typing import Any, Protocol, Union

from _dockeraudit.errors import HTTPError
from _dockeraudit.http1 import BodyReader, ChunkedReader
from _dockeraudit.streams import (
    DETAILS,
    FRAME_HEADER,
    FRAME_TYPES,
    HEAD_OF_FRAME,
    LONGEST_PREFIX,
    UNSURE_TYPES,
    WALK_LEAST,
    FrameReader,
    RawText,
    StreamDemuxer,
    WebSocketDecoder,
)

NOWHERE = -1  # where a byte of a text stands that is not on the wire, or has left
PayloadSpans = list[tuple[int, int]]  # starts and ends of the payload in a block


class Pieces:
    """Some bytes of a text: its parts, and where on the wire each begins."""

    __slots__ = ("parts", "starts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.starts: list[int] = []

    def add(self, part: bytes, start: int) -> None:
        """One more part."""
        self.parts.append(part)
        self.starts.append(start)


Writes = list[tuple[int, bytes]]  # what is to stand where on the wire


class PlacedText:
    """The places of one text, to be looked up by offsets."""

    def __init__(self, pieces: Pieces) -> None:
        self.text = b"".join(pieces.parts)
        self._starts = pieces.starts
        self._offsets = list(accumulate(map(len, pieces.parts), initial=0))

    def cut(self, start: int, stop: int) -> Pieces:
        """The pieces between two offsets of the text."""
        cut = Pieces()
        number = bisect.bisect_right(self._offsets, start) - 1
        while start < stop:
            end = min(stop, self._offsets[number + 1])
            if end > start:
                place, shift = self._starts[number], start - self._offsets[number]
                cut.add(self.text[start:end], place + shift if place >= 0 else NOWHERE)
            start, number = end, number + 1
        return cut

    def escape(self, start: int, stop: int, text: bytes, into: Pieces, places: Places) -> None:
        """Add what some bytes stand for; `text` is not what stands on the wire."""
        cut = self.cut(start, stop)
        into.add(text, cut.starts[0])
        places.escaped[cut.starts[0]] = [
            (place, b"*" * len(part)) for part, place in zip(cut.parts, cut.starts)
        ]


class Places(dict[str, Pieces]):
    """The pieces of a block's texts by the names of the texts.

    `escaped`: by where it begins on the wire, how to overwrite what stands for a part of a text.
    """

    escaped: dict[int, Writes]

    def __init__(self) -> None:
        super().__init__()
        self.escaped = {}

    def of(self, name: str) -> Pieces:
        """The pieces of a text, to be added to."""
        pieces = self.get(name)
        if pieces is None:
            pieces = self[name] = Pieces()
        return pieces


# Bodies: where in the wire's bytes the payload stands.


class ChunkSpans(ChunkedReader):
    """A chunked body whose `feed` gives the spans of the payload instead of its bytes."""

    def __init__(self) -> None:
        super().__init__(collect=False)

    @property
    def between_chunks(self) -> bool:
        """Whether a chunk's size line comes next, or what ends the chunk before it."""
        return self.left in (0, 2) and not (self.line or self.trailer or self.done or self.broken)

    def feed(self, block: bytes) -> tuple[int, Any]:
        """How many bytes of `block` are the body's, and the spans of the payload among them."""
        spans: PayloadSpans = []
        return self.walk(block, spans), spans

    def _whole_chunks(self, block: bytes, pos: int, pieces: list[Any]) -> int:
        find, known, end = block.find, self.sizes.get, len(block)
        while True:
            eol = find(b"\r\n", pos, pos + 18)
            size = (known(block[pos:eol]) or self._size(block[pos:eol])) if eol > 0 else 0
            data = eol + 2
            after = data + size
            if not size or after + 2 > end or block[after : after + 2] != b"\r\n":
                return pos
            pieces.append((data, after))
            pos = after + 2

    def _rest_of_chunk(self, block: bytes, pos: int, pieces: list[Any]) -> int:
        size = min(self.left - 2, len(block) - pos)
        if size > 0:
            pieces.append((pos, pos + size))
        return super()._rest_of_chunk(block, pos, pieces)


class PlainSpans:
    """A body without chunks; `reader` knows where it ends."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader

    @property
    def done(self) -> bool:
        """Whether the body has ended."""
        return self._reader.done

    @property
    def broken(self) -> HTTPError | None:
        """What is illegal in the body."""
        return self._reader.broken

    def feed(self, block: bytes) -> tuple[int, PayloadSpans]:
        """How many bytes of `block` are the body's, and the span of the payload among them."""
        used = self._reader.feed(block)[0]
        return used, [(0, used)] if used else []


# Texts: where in the payload they stand.


class FramePlaces:
    """Where the texts of a multiplexed stream stand.

    `broken`: a header was none, and from there on nothing is read as frames. `names`: the texts by
    the first word of a frame's header.
    """

    undecided = NOWHERE  # where the beginning of a text waits for its end, which is not on the wire

    def __init__(self, sure: bool, timestamps: bool, details: bool) -> None:
        self.frames = 0
        self.broken = False
        self.names = FRAME_TYPES if sure else UNSURE_TYPES
        self.heads: PayloadSpans = []  # frame headers on the wire, if somebody asks for them
        self.keeps_heads = not sure
        self._details = details
        self._prefixes = timestamps + details
        self.header_so_far = b""
        self.name = ""  # the text of the frame
        self.text_left = 0  # bytes of the frame still to come
        self._words = 0  # prefix words of the frame still to be left out
        self._word = Pieces()  # the word of details, as far as it has come

    @property
    def inside_frame(self) -> bool:
        """Whether the stream so far ends in the middle of a frame."""
        return bool(self.text_left or self.header_so_far) and not self.broken

    @property
    def inside_header(self) -> bool:
        """Whether a frame's header has come in part."""
        return bool(self.header_so_far)

    @property
    def between_frames(self) -> bool:
        """Whether a frame's header comes next, and its whole payload is text."""
        return not (
            self.text_left
            or self.header_so_far
            or self._prefixes
            or self.broken
            or self.keeps_heads
        )

    def feed(self, block: bytes, spans: PayloadSpans, base: int, places: Places) -> PayloadSpans:
        """Place the payload's texts. Returns the spans that are no frames, from a bad header on."""
        for number, (pos, end) in enumerate(spans):
            while pos < end and not self.broken:
                if self.text_left:
                    pos = self._payload(block, pos, end, base, places)
                else:
                    pos = self._header(block, pos, end, base)
            if self.broken:
                return [(pos, end), *spans[number + 1 :]]
        return []

    def _header(self, block: bytes, pos: int, end: int, base: int) -> int:
        """Read a frame's header as far as it has come."""
        stop = min(end, pos + FRAME_HEADER.size - len(self.header_so_far))
        head = self.header_so_far + block[pos:stop]
        if self.keeps_heads:
            self.heads.append((base + pos, base + stop))
        if len(head) < FRAME_HEADER.size:
            self.header_so_far = head
            return stop
        self.header_so_far = b""
        word, size = FRAME_HEADER.unpack(head)
        if word not in self.names:
            self.broken = True
            return pos
        self.frames += 1
        self.name, self.text_left, self._words = self.names[word], size, self._prefixes
        return stop

    def _payload(self, block: bytes, pos: int, end: int, base: int, places: Places) -> int:
        """Take the frame's payload as far as it has come; its prefix words apart."""
        end = min(end, pos + self.text_left)
        self.text_left -= end - pos
        while self._words and pos < end:
            space = block.find(b" ", pos, end) + 1
            if self._details and self._words == 1:
                self._word.add(block[pos : space - 1 if space else end], base + pos)
                if space or sum(map(len, self._word.parts)) > LONGEST_PREFIX:
                    place_details(self._word, places, self.name)
                    self._word, self.undecided = Pieces(), NOWHERE
                elif self.undecided == NOWHERE:
                    self.undecided = base + pos
            pos = space or end
            self._words -= space > 0
        if pos < end:
            places.of(self.name).add(block[pos:end], base + pos)
        return end


def place_details(word: Pieces, places: Places, name: str) -> None:
    """The words of details, as `streams.details_text` gives them, a part for each stretch.

    Its newline, and the second byte of a `\\n` that stands for one, are not on the wire.
    """
    pieces, way, at = places.of(name + DETAILS), PlacedText(word), 0
    raw = way.text
    while at < len(raw):
        stop, byte = at + 1, raw[at : at + 1]
        if byte == b"%" and is_escape(raw[at : at + 3]):
            stop, byte = at + 3, bytes([int(raw[at + 1 : at + 3], 16)])
        text = {b"+": b" ", b",": b" ", b"\n": b"\\n"}.get(byte, byte)
        if raw[at:stop] == b"%2C" or raw[at:stop] == b"%2B":
            text = byte
        if stop == at + 1:
            pieces.add(text, way.cut(at, stop).starts[0])
        else:
            way.escape(at, stop, text, pieces, places)
        at = stop
    pieces.add(b"\n", NOWHERE)


def is_escape(text: bytes) -> bool:
    """Whether this is a percent-encoded byte."""
    try:
        return len(text) == 3 and bool(bytes.fromhex(text[1:].decode("ascii"))) and b" " not in text
    except ValueError:
        return False


class RawPlaces(RawText):
    """Where the text of a stream without frames stands."""

    frames = 0
    inside_frame = False
    between_frames = False

    @property
    def undecided(self) -> int:
        """Where the beginning of a prefix stands whose end has not come."""
        return self._waiting.starts[0] if self._held and self._waiting.starts else NOWHERE

    def __init__(self, timestamps: bool = False, details: bool = False, name: str = "tty") -> None:
        super().__init__(timestamps, details)
        self._name = name
        self._waiting = Pieces()  # `_held`, with its places

    def place(self, block: bytes, spans: PayloadSpans, base: int, places: Places) -> None:
        """Place the payload's text."""
        pieces = Pieces()
        for start, end in spans:
            pieces.add(block[start:end], base + start)
        self.place_pieces(pieces, places)

    def place_pieces(self, pieces: Pieces, places: Places) -> None:
        """Place text whose place is known."""
        if self._prefix is None:
            into = places.of(self._name)
            into.parts += pieces.parts
            into.starts += pieces.starts
            return
        ways = Pieces()
        ways.parts = self._waiting.parts + pieces.parts
        ways.starts = self._waiting.starts + pieces.starts
        way = PlacedText(ways)
        block = way.text
        end = self._undecided_from(block)
        self._held, self._waiting = block[end:], way.cut(end, len(block))
        text, details = self._cuts(block[:end], self._prefix)
        for start, stop in details:
            place_details(way.cut(start, stop), places, self._name)
        into = places.of(self._name)
        for start, stop in text:
            if start < 0:
                into.add(b" ", NOWHERE)
                continue
            cut = way.cut(start, stop)
            into.parts += cut.parts
            into.starts += cut.starts

    def lapse(self, places: Places) -> None:
        """Nothing more of a prefix came in time: what waited is text."""
        into = places.of(self._name)
        into.parts += self._waiting.parts
        into.starts += self._waiting.starts
        self._held, self._waiting = b"", Pieces()


class SocketPlaces(WebSocketDecoder):
    """Where the text of WebSocket messages stands; a server's messages are not masked (§5.1)."""

    undecided = NOWHERE
    between_frames = False

    def __init__(self, name: str = "tty") -> None:
        super().__init__(name)
        self._into = Pieces()
        self._base = 0

    def place(self, block: bytes, spans: PayloadSpans, base: int, places: Places) -> None:
        """Place the messages' text."""
        for start, end in spans:
            self._base = base + start - len(self._head)
            self.feed(block[start:end])
        pieces, self._into = self._into, Pieces()
        if pieces.parts:
            into = places.of(self.stream_type)
            into.parts += pieces.parts
            into.starts += pieces.starts

    def lapse(self, places: Places) -> None:
        """Nothing ever waits."""

    def _payload(self, block: bytes, pos: int, parts: list[bytes]) -> int:
        before = len(parts)
        end = super()._payload(block, pos, parts)
        if len(parts) > before:
            if self._mask:
                raise ValueError("the engine encodes its WebSocket messages as only clients do")
            self._into.add(parts[-1], self._base + pos)
        return end


class TextPlaces(Protocol):
    """What places the text of a payload that is one text, or says itself what its texts are."""

    frames: int

    @property
    def inside_frame(self) -> bool: ...
    @property
    def undecided(self) -> int: ...

    def place(self, block: bytes, spans: PayloadSpans, base: int, places: Places) -> None:
        """Place the payload's text."""

    def lapse(self, places: Places) -> None:
        """No more comes in time: what waited is text as it stands."""


# A stream: its body, and what its texts are read as.


class WirePlaces:
    """A stream's bytes on the wire to Places.

    `framing` as of StreamDemuxer, or `websocket`. While it is None, nobody knows how the stream is
    to be read, and the blocks wait for `decide`. `waits`: they wait for it although that is known,
    since what else the engine says of the container counts, too. `reader`: of a payload that is no
    container's output.
    """

    def __init__(
        self,
        body: Union[ChunkSpans, PlainSpans],
        framing: str | None,
        timestamps: bool = False,
        details: bool = False,
        name: str = "tty",
        waits: bool = False,
        reader: TextPlaces | None = None,
    ) -> None:
        self.taken = b""  # the payload of the last block, where a reader was given
        self.patient = reader is not None  # half of what it reads is of no use to anybody
        self.framing = None if waits else framing
        self._known = framing
        self.size = 0  # bytes that have come
        self.payload = 0
        self._body = body
        self._frames = FramePlaces(framing == "multiplexed", timestamps, details)
        self._raw: TextPlaces = reader or RawPlaces(timestamps, details, name)
        if framing == "websocket":
            self._raw = SocketPlaces(name)
        self._waiting: list[tuple[bytes, PayloadSpans, int]] = []

    @property
    def done(self) -> bool:
        """Whether the body has ended."""
        return self._body.done

    @property
    def broken(self) -> HTTPError | None:
        """What is illegal in the body."""
        return self._body.broken

    @property
    def frames(self) -> int:
        """Frames or messages so far."""
        return self._raw.frames if self.framing in ("raw", "websocket") else self._frames.frames

    @property
    def inside_frame(self) -> bool:
        """Whether the stream so far ends in the middle of a frame."""
        if self.framing == "multiplexed":
            return self._frames.inside_frame
        return self.framing == "websocket" and self._raw.inside_frame

    @property
    def undecided(self) -> int:
        """Where bytes begin of which nobody can say yet whether they are text; NOWHERE: none."""
        if self._waiting:
            return self._waiting[0][2]
        places = (self._frames.undecided, self._raw.undecided)
        return min((place for place in places if place >= 0), default=NOWHERE)

    @property
    def headers(self) -> PayloadSpans:
        """Where headers stand that must stay although another reading has them as text."""
        return self._frames.heads if self.framing == "unknown" else []

    def feed(self, block: bytes) -> tuple[int, Places]:
        """How many bytes of `block` are the body's, and where texts stand in them."""
        used, spans = self._body.feed(block)
        base, self.size = self.size, self.size + used
        self.payload += sum(end - start for start, end in spans)
        places = Places()
        if self.patient:
            self.taken = b"".join(block[start:end] for start, end in spans)
        if self.framing is None:
            if spans:
                self._waiting.append((block, spans, base))
        else:
            self._place(block, spans, base, places)
        return used, places

    def decide(self, tty: bool | None) -> Places:
        """Read the stream as `Tty` of the inspect says (None: unknown); what waited is placed."""
        places, waiting = Places(), self._waiting
        said = "unknown" if tty is None else "raw" if tty else "multiplexed"
        self.framing = self._known or said
        self._frames.keeps_heads = self.framing == "unknown"
        if self.framing == "multiplexed":
            self._frames.names = FRAME_TYPES
        self._waiting = []
        for block, spans, base in waiting:
            self._place(block, spans, base, places)
        return places

    def lapse(self) -> Places:
        """Nothing more came in time: what waits for its end is text."""
        places = Places()
        self._raw.lapse(places)
        return places

    def forget_headers(self, before: int) -> None:
        """The client has all bytes before this place."""
        if self._frames.heads:
            self._frames.heads = [span for span in self._frames.heads if span[1] > before]

    def _place(self, block: bytes, spans: PayloadSpans, base: int, places: Places) -> None:
        rest = spans
        if self.framing in ("multiplexed", "unknown") and not self._frames.broken:
            head = self._frames.header_so_far
            rest = self._frames.feed(block, spans, base, places)
            if self._frames.broken and self.framing == "multiplexed":
                self.framing = "broken"
                if head and isinstance(self._raw, RawPlaces):
                    before = Pieces()
                    before.add(head, NOWHERE)
                    self._raw.place_pieces(before, places)
        if self.framing == "unknown":
            rest = spans
        if rest and self.framing != "multiplexed":
            self._raw.place(block, rest, base, places)


class FramedChunks(WirePlaces):
    """A chunked, multiplexed stream: most of its chunks are one frame each, and read so at once."""

    def __init__(self, body: ChunkSpans, waits: bool = False) -> None:
        super().__init__(body, "multiplexed", waits=waits)
        self._chunks = body
        self._learn = FrameReader(StreamDemuxer("multiplexed"))._learn

    def feed(self, block: bytes) -> tuple[int, Places]:
        """How many bytes of `block` are the body's, and where texts stand in them."""
        if len(block) < WALK_LEAST or self.framing != "multiplexed":
            return super().feed(block)
        places, pos = Places(), 0
        if self._chunks.line or self._frames.inside_header:  # a block ends in any byte of a frame
            pos = self._general(block, 0, HEAD_OF_FRAME, places)
        pos = self._rest_of_frame(block, pos, places)
        if self._frames.between_frames and self._chunks.between_chunks:
            pos = self._walk(block, pos, places)
        if pos < len(block):
            pos = self._general(block, pos, len(block), places)
        self.size += pos
        return pos, places

    def _general(self, block: bytes, pos: int, end: int, places: Places) -> int:
        """Read some bytes of a block by the ordinary way; returns where they end."""
        used, spans = self._chunks.feed(block[pos:end])
        moved = [(start + pos, stop + pos) for start, stop in spans]
        self.payload += sum(stop - start for start, stop in spans)
        self._place(block, moved, self.size, places)
        return pos + used

    def _rest_of_frame(self, block: bytes, pos: int, places: Places) -> int:
        """Take the rest of a frame that is the rest of its chunk, too, if all of it is here."""
        size = self._chunks.left - 2
        if size <= 0 or size != self._frames.text_left or len(block) - pos < size:
            return pos
        places.of(self._frames.name).add(block[pos : pos + size], self.size + pos)
        self._chunks.left, self._frames.text_left = 2, 0
        self.payload += size
        return pos + size

    def _walk(self, block: bytes, pos: int, places: Places) -> int:
        """Take the texts of chunks that are whole frames; returns where the last one ends."""
        known, end, base = FrameReader.heads.get, len(block), self.size
        last, take, at = "", list[bytes]().append, list[int]().append
        begins, first, frames, total = self._chunks.left, pos, 0, 0
        pos += begins - 2
        head = self._learn(b"\r\n"[: 2 - begins] + block[first : first + HEAD_OF_FRAME], 0)
        while head:
            kind, length, size = head
            start = pos + length
            if start + size > end:
                break
            if kind is not last:
                pieces = places.of(kind)
                last, take, at = kind, pieces.parts.append, pieces.starts.append
            pos = start + size
            take(block[start:pos])
            at(base + start)
            total += size
            frames += 1
            head = (
                known(block[pos : pos + 14])
                or known(block[pos : pos + 15])
                or self._learn(block, pos)
            )
        if not frames:
            return first
        self._chunks.left = 2
        self._frames.frames += frames
        self.payload += total + frames * FRAME_HEADER.size
        return pos
