"""Docker streams: frames and WebSocket messages to pieces of text. Performs no I/O.

payload of a body ─▶ StreamDemuxer / WebSocketDecoder / RawDecoder ─▶ [(name of a text, bytes), …]

Whether a container's output is frames or raw bytes is decided by the engine's word alone: by the
Content-Type of its answer, else by the `Tty` of its inspect. The bytes are the container's, and a
container that prints a frame's header must not decide how it is read.
"""

from __future__ import annotations

import re
import struct
import urllib.parse
from typing import Any, NamedTuple, Union

from _dockeraudit.http1 import CHUNK_LINE, ChunkedReader, ResponseHead
from _dockeraudit.routes import Route

WALK_LEAST = 1 << 10  # bytes of a block from which on the one walk over chunks and frames pays
HEAD_OF_FRAME = 32  # bytes that hold a chunk's size line and its frame's header, as engines write
KNOWN_FRAMES = 4096  # frame heads that FrameReader remembers: some 1 MiB, for all streams together
REREAD = 64 << 10  # bytes of a stream of frames that are read again as raw text if it breaks
JOINED_BLOCK = 4 << 10  # bytes of a block; smaller ones are kept together
# Engine API, "Stream format": [type 0 0 0][big-endian uint32 size]; 0 stdin, 1 stdout, 2 stderr,
# 3 the engine's own errors.
FRAME_HEADER = struct.Struct(">II")
FRAME_TYPES = {0: "stdin", 1 << 24: "stdout", 2 << 24: "stderr", 3 << 24: "stderr"}
#: where it is not sure that these are frames: a container must not pass for the client
UNSURE_TYPES = {**FRAME_TYPES, 0: "stdout"}
MULTIPLEXED = b"application/vnd.docker.multiplexed-stream"
DETAILS = " details"  # ends the name of a text that holds what `details=1` puts before lines
# What `timestamps=1` puts before a line: RFC 3339 with nine digits. It begins with a literal,
# since `re` finds those ten times faster than a class.
STAMP = rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) "
STAMP_PARTS = re.findall(rb"\\d|\\.|[0-9T:-]", STAMP.partition(rb"{9}")[0]) + [rb"\d"] * 8
#: a stamp as far as it has come, at the end of a block; and one whose details have not come whole
STAMP_BEGINS = re.compile(
    b"(?:".join(STAMP_PARTS) + rb"(?:[Z+-][\d:]{0,5})?" + b")?" * (len(STAMP_PARTS) - 1) + rb"\Z"
)
STAMP_BEGINS_DETAILED = re.compile(STAMP_BEGINS.pattern + rb"|" + STAMP + rb"[^ \n]*\Z")
LONGEST_PREFIX = 64 << 10  # bytes; a longer word of details is text
PARTIAL_LINES = (16 << 10, 1_000_000)  # bytes after which engines cut a line: json-file's, local's
Piece = tuple[str, bytes]
"""The name of a text, and some of its bytes. Names are stream types (stdin, stdout, stderr, tty),
or a stream type and DETAILS."""


def stream_type_of(text: str) -> str:
    """The stream type to which a text belongs."""
    return text.partition(" ")[0]


class StreamDemuxer:
    """A container's output to pieces: for each text one piece a block, never one a frame.

    `framing` says how the stream is read:

        None         nobody knows yet; `feed` keeps the bytes until `decide` is called
        multiplexed  as frames
        raw          as one text
        unknown      as frames and as one text, both: the engine did not say
        broken       as one text: it was to be frames, and a header was none

    `timestamps` and `details`: what the query asked the engine to put before each line.
    """

    def __init__(
        self, framing: str | None = None, timestamps: bool = False, details: bool = False
    ) -> None:
        self.framing = framing
        self.newly_broken = False  # it has stopped being frames, and nobody asked for `recent`
        self.frames = 0
        self.details = bool(details)
        self.prefixes = bool(timestamps) + self.details  # space-ended words before a frame's text
        self._raw = RawText(bool(timestamps), self.details)
        self._waiting = bytearray()
        self._recent = RecentBytes()
        self._lost = False  # no more frames are read: a header was none
        self._head = b""  # a frame's header that has not wholly come
        self._type = "stdout"
        self._left = 0  # bytes of the current frame's payload still to come
        self._words = 0  # prefix words of it still to be left out
        self._word = b""  # the word of details, as far as it has come

    @property
    def undecided(self) -> bool:
        """Whether `decide` can still change how the stream is read."""
        return self.framing is None or self.framing == "unknown"

    @property
    def held(self) -> int:
        """Bytes that wait for `decide`."""
        return len(self._waiting)

    @property
    def inside_frame(self) -> bool:
        """Whether the stream so far ends in the middle of a frame."""
        return bool(self._left or self._head) and self.framing == "multiplexed"

    @property
    def between_frames(self) -> bool:
        """Whether a frame's header comes next, and its whole payload is text."""
        return self.framing == "multiplexed" and not (self._left or self._head or self.prefixes)

    def feed(self, block: bytes) -> list[Piece]:
        """The pieces in the next block of the stream."""
        if self.framing == "multiplexed":
            return self._frames(block)
        if self.framing is None:
            self._waiting += block
            return []
        if self.framing == "unknown" and not self._lost:
            return self._frames(block) + self._raw.feed(block)
        return self._raw.feed(block)

    def decide(self, tty: bool | None) -> list[Piece]:
        """Read the stream as `Tty` of the inspect says (None: unknown); the pieces that waited."""
        waited, self._waiting = bytes(self._waiting), bytearray()
        if tty is None:
            self.framing = "unknown"
        elif tty:
            self.framing = "raw"
        else:
            self.framing = "broken" if self._lost else "multiplexed"
        return self.feed(waited) if waited else []

    def end(self) -> list[Piece]:
        """What was kept back when the stream ended."""
        pieces = self.decide(None) if self.framing is None else []
        return pieces + self._raw.end()

    def recent(self) -> list[Piece]:
        """What a broken stream's last REREAD bytes gave as frames; can be asked for once."""
        self.newly_broken = False
        left, kind, data = self._recent.take()
        again = StreamDemuxer("multiplexed", self.prefixes > self.details, self.details)
        again._left, again._type = left, kind
        return [piece for piece in again.feed(data) if piece[0] != "tty"]

    def remember_chunks(self, block: bytes, end: int, left: int) -> None:
        """Keep the chunks up to `end` of a block, each a whole frame, in case the stream breaks."""
        self._recent.add_chunks(self._type, block, end, left)

    def _frames(self, block: bytes) -> list[Piece]:
        if self._head:
            block, self._head = self._head + block, b""
        left, kind_left = self._left, self._type
        pieces: dict[str, list[bytes]] = {}
        pos = self._payload(block, 0, pieces) if self._left else 0
        pos, sound = self._whole_frames(block, pos, pieces)
        if self.framing == "multiplexed":
            self._recent.add(left, kind_left, block[:pos])
        found = [(kind, b"".join(parts)) for kind, parts in pieces.items()]
        if sound:
            self._head = block[pos:]
            return found
        return self._break(found, block[pos:])

    def _whole_frames(
        self, block: bytes, pos: int, pieces: dict[str, list[bytes]]
    ) -> tuple[int, bool]:
        """Read frames from `pos`; returns where a header has not come, or is none (False)."""
        unpack, end = FRAME_HEADER.unpack_from, len(block)
        types = FRAME_TYPES if self.framing == "multiplexed" else UNSURE_TYPES
        frames, last, take = 0, "", list[bytes]().append
        kind: str | None = last
        while pos + 8 <= end:
            word, size = unpack(block, pos)
            kind = types.get(word)
            if kind is None:
                break
            frames += 1
            pos += 8
            if self.prefixes or pos + size > end:
                self._type, self._left, self._words = kind, size, self.prefixes
                pos = self._payload(block, pos, pieces)
                continue
            if kind is not last:  # looked up when the type changes: 0.1 of 0.3 µs a frame
                last, take = kind, pieces.setdefault(kind, []).append
            take(block[pos : pos + size])
            pos += size
        self.frames += frames
        return pos, kind is not None

    def _payload(self, block: bytes, pos: int, pieces: dict[str, list[bytes]]) -> int:
        """Take the current frame's payload as far as it has come; its prefix words apart."""
        end = min(len(block), pos + self._left)
        self._left -= end - pos
        start = pos
        while self._words and start < end:
            space = block.find(b" ", start, end) + 1
            if self.details and self._words == 1:
                self._word += block[start : space - 1 if space else end]
                if space or len(self._word) > LONGEST_PREFIX:
                    text, self._word = details_text(self._word), b""
                    pieces.setdefault(self._type + DETAILS, []).append(text)
            start = space or end
            self._words -= space > 0
        if start < end:
            pieces.setdefault(self._type, []).append(block[start:end])
        return end

    def _break(self, pieces: list[Piece], rest: bytes) -> list[Piece]:
        """A header is none. What a stream of frames last gave is raw text, too, from there on."""
        self._lost, self._left = True, 0
        if self.framing != "multiplexed":
            return pieces
        self.framing, self.newly_broken = "broken", True
        return pieces + self._raw.feed(self._recent.data() + rest)


class RecentBytes:
    """The last REREAD bytes of a stream of frames, kept as the blocks in which they came."""

    def __init__(self) -> None:
        #: bytes of a frame's payload with which the block begins, and their type; the block; how
        #: many bytes of it are chunked coding, and how many of these end the chunk before
        self._blocks: list[tuple[int, str, bytes | bytearray, int, int]] = []
        self._size = 0
        self._joined = bytearray()  # the last block, if it may grow

    def add(self, left: int, kind: str, data: bytes) -> None:
        """Keep one more block; small ones are joined."""
        self._size += len(data)
        if len(data) >= JOINED_BLOCK:
            self._blocks.append((left, kind, data, 0, 0))
        elif self._blocks and self._blocks[-1][2] is self._joined:
            self._joined += data
        else:
            self._joined = bytearray(data)
            self._blocks.append((left, kind, self._joined, 0, 0))
        if len(self._joined) >= JOINED_BLOCK:
            self._joined = bytearray()
        self._forget()

    def add_chunks(self, kind: str, block: bytes, end: int, chunk_rest: int) -> None:
        """Keep whole chunks, each of which is a frame."""
        self._size += end
        self._blocks.append((0, kind, block, end, chunk_rest))
        self._forget()

    def take(self) -> tuple[int, str, bytes]:
        """Bytes of a frame's payload that come first, their type, and all bytes; none are left."""
        left, kind = self._blocks[0][:2] if self._blocks else (0, "stdout")
        data = self.data()
        self._blocks.clear()
        return left, kind, data

    def data(self) -> bytes:
        """The bytes, without chunked coding."""
        return b"".join(
            dechunked(bytes(block), end, chunk_rest) if end else block
            for _, _, block, end, chunk_rest in self._blocks
        )

    def _forget(self) -> None:
        """Let go of the oldest beyond REREAD bytes."""
        while True:
            _, _, block, end, _ = self._blocks[0]
            size = end or len(block)
            if self._size - size < REREAD:
                return
            self._size -= size
            del self._blocks[0]


def dechunked(block: bytes, end: int, chunk_rest: int) -> bytes:
    """The data of the chunks in a block that FrameReader has found sound."""
    parts, pos = [], chunk_rest
    while pos < end:
        line = CHUNK_LINE.match(block, pos)
        assert line is not None
        pos = line.end() + int(line.group(1), 16)
        parts.append(block[line.end() : pos])
        pos += 2
    return b"".join(parts)


def details_text(word: bytes) -> bytes:
    """Labels and environment as `details=1` writes them (a=b,c=d%21), as a line of their own."""
    pairs = [urllib.parse.unquote_to_bytes(pair.replace(b"+", b" ")) for pair in word.split(b",")]
    return b" ".join(pairs).replace(b"\n", b"\\n") + b"\n"


class RawText:
    """Output without frames, as one text: without what the engine puts before lines.

    The engine puts a second prefix inside a line that is longer than its log keeps in one piece.
    A stamp elsewhere in a line is the container's, or follows a line that never ended: there a
    blank stands for it, so that nothing is joined that the client sees apart.
    """

    def __init__(self, timestamps: bool, details: bool) -> None:
        stamp, word = STAMP if timestamps else b"", rb"([^ \n]*) " if details else b""
        self._prefix = re.compile(stamp + word) if stamp or word else None
        self._details = details
        self._timestamps = timestamps
        self._begins = STAMP_BEGINS_DETAILED if details else STAMP_BEGINS
        self._held = b""  # the beginning of a prefix
        self._due = True  # a line begins
        self._since = 0  # bytes of the line since its last prefix

    def feed(self, block: bytes) -> list[Piece]:
        """The pieces in the next block."""
        if self._prefix is None:
            return [("tty", block)] if block else []
        block = self._held + block
        end = self._undecided_from(block)
        self._held = block[end:]
        text, details = self._without_prefixes(block[:end], self._prefix)
        pieces = [("tty" + DETAILS, details), ("tty", text)]
        return [piece for piece in pieces if piece[1]]

    def end(self) -> list[Piece]:
        """What was kept back, as text."""
        held, self._held = self._held, b""
        return [("tty", held)] if held else []

    def _undecided_from(self, block: bytes) -> int:
        """Where a prefix begins whose end has not come; the block's end if there is none."""
        end, least = len(block), max(0, len(block) - LONGEST_PREFIX)
        if self._timestamps:
            begins = self._begins.search(block, least)
            return int(begins.start()) if begins else end
        line = block.rfind(b"\n") + 1
        waits = (line or self._due) and line >= least and block.find(b" ", line) < 0
        return line if waits else end

    def _without_prefixes(self, block: bytes, pattern: re.Pattern[bytes]) -> tuple[bytes, bytes]:
        """A block's text, and the words of details that stood before its lines."""
        text, details = self._cuts(block, pattern)
        return (
            b"".join(block[start:stop] if start >= 0 else b" " for start, stop in text),
            b"".join(details_text(block[start:stop]) for start, stop in details),
        )

    def _cuts(
        self, block: bytes, pattern: re.Pattern[bytes]
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Where a block's text stands, and its words of details; (-1, -1) is a blank."""
        text, details = [], []
        pos, end = 0, len(block)
        while pos < end:
            eol = block.find(b"\n", pos) + 1 or end
            prefix = pattern.match(block, pos) if self._due else None
            if prefix is None and self._timestamps:
                prefix = pattern.search(block, pos, eol)
            stop = prefix.start() if prefix else eol
            text.append((pos, stop))
            self._since += stop - pos
            if prefix is None:
                self._due = block[eol - 1] == 10
                self._since = 0 if self._due else self._since
                pos = eol
                continue
            if self._since and self._since not in PARTIAL_LINES:
                text.append((-1, -1))
            if self._details:
                details.append(prefix.span(1))
            pos, self._due, self._since = prefix.end(), False, 0
        return text, details


class WebSocketDecoder:
    """The payload of WebSocket data messages (RFC 6455 §5.2) in one direction, as one text."""

    framing = "websocket"

    def __init__(self, stream_type: str) -> None:
        self.stream_type = stream_type
        self.frames = 0
        self._head = b""
        self._left = 0
        self._mask = b""
        self._data = False

    @property
    def inside_frame(self) -> bool:
        """Whether the stream so far ends in the middle of a message."""
        return bool(self._left or self._head)

    def feed(self, block: bytes) -> list[Piece]:
        """The piece in the next block of the connection."""
        block, self._head = self._head + block, b""
        parts: list[bytes] = []
        pos = self._payload(block, 0, parts)
        while pos < len(block) and not self._head:
            size = self._frame_head(block, pos)
            if not size:
                self._head = block[pos:]
                break
            pos = self._payload(block, pos + size, parts)
        return [(self.stream_type, b"".join(parts))] if parts else []

    def end(self) -> list[Piece]:
        """Nothing is ever kept back."""
        return []

    def _frame_head(self, block: bytes, pos: int) -> int:
        """Read the frame header at `pos`; its size, or 0 if it has not wholly come."""
        if len(block) - pos < 2:
            return 0
        short = block[pos + 1] & 0x7F
        extended = {126: 2, 127: 8}.get(short, 0)
        masked = 4 if block[pos + 1] & 0x80 else 0
        size = 2 + extended + masked
        if len(block) - pos < size:
            return 0
        length = block[pos + 2 : pos + 2 + extended]
        self._left = int.from_bytes(length, "big") if extended else short
        self._mask = block[pos + 2 + extended : pos + size]
        # Continuation, text or binary: control frames are no output of the container.
        self._data = block[pos] & 0x0F <= 2
        self.frames += self._data
        return size

    def _payload(self, block: bytes, pos: int, parts: list[bytes]) -> int:
        data = block[pos : pos + self._left]
        self._left -= len(data)
        if data and self._data:
            parts.append(self._unmasked(data))
        return pos + len(data)

    def _unmasked(self, data: bytes) -> bytes:
        """RFC 6455 §5.3, all bytes at once; the mask is turned for what comes next."""
        if not self._mask:
            return data
        key = (self._mask * (len(data) // 4 + 1))[: len(data)]
        turn = len(data) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


class RawDecoder:
    """A direction without frames: what the client types."""

    framing = "raw"
    frames = 0
    inside_frame = False

    def __init__(self, stream_type: str) -> None:
        self.stream_type = stream_type

    def feed(self, block: bytes) -> list[Piece]:
        """The block, as it is."""
        return [(self.stream_type, block)]

    def end(self) -> list[Piece]:
        """Nothing is ever kept back."""
        return []


Decoder = Union[StreamDemuxer, WebSocketDecoder, RawDecoder]
UNDECODED = RawDecoder("")  # of an exchange that nobody decodes


class Decoded(NamedTuple):
    """A block for the audit: how many bytes its payload has, how many frames began, its pieces."""

    size: int
    frames: int
    pieces: list[Piece]


NOTHING = Decoded(0, 0, [])


def decode(decoder: Decoder, payload: bytes) -> Decoded:
    """The next bytes of a stream, decoded."""
    before = decoder.frames
    pieces = decoder.feed(payload)
    return Decoded(len(payload), decoder.frames - before, pieces)


FrameHead = tuple[str, int, int]  # type, length up to the text, length of the text


class FrameReader(ChunkedReader):
    """A chunked body of frames, which `feed` gives decoded where that is cheaper.

    Engines send each frame of a log in a chunk of its own. One walk over chunks and frames then
    costs 0.2 µs a frame, one after the other 0.7 µs. Anything else goes that longer way.
    """

    #: What stands before the text of a chunk that is one frame: the CR LF of the chunk before it,
    #: its size line, the frame's header. A log's lines have few lengths, and a look-up is cheap.
    #: All streams share the table; it is emptied when it is full.
    heads: dict[bytes, FrameHead] = {}

    def __init__(self, demuxer: StreamDemuxer) -> None:
        super().__init__(collect=True)
        self.demuxer = demuxer

    def feed(self, block: bytes) -> tuple[int, Any]:
        """How many bytes of `block` are the body's, and their payload: Decoded, if it could be."""
        begins = self.left
        if (
            len(block) < WALK_LEAST
            or begins not in (0, 2)
            or self.line
            or self.trailer
            or self.broken
            or not self.demuxer.between_frames
        ):
            return super().feed(block)
        parts: dict[str, list[bytes]] = {}
        pos = self._walk(block, parts)
        if not parts:
            return super().feed(block)
        if block[pos:] == b"\r\n":  # as nearly always: blocks end where a send did
            self.left, used, payload = 0, 2, b""
        else:
            used, payload = super().feed(block[pos:])
        frames = sum(map(len, parts.values()))
        self.demuxer.frames += frames
        self.demuxer.remember_chunks(block, pos, begins)
        pieces = [(kind, b"".join(texts)) for kind, texts in parts.items()]
        size = sum(len(text) for _, text in pieces) + frames * FRAME_HEADER.size
        rest = decode(self.demuxer, payload) if payload else NOTHING
        return pos + used, Decoded(size + rest.size, frames + rest.frames, pieces + rest.pieces)

    def _walk(self, block: bytes, parts: dict[str, list[bytes]]) -> int:
        """Take the texts of chunks that are whole frames; returns where the last one ends."""
        known, end = self.heads.get, len(block)
        last, take = "", list[bytes]().append
        pos = self.left - 2  # where the CR LF before the next chunk stands
        head = self._learn(b"\r\n"[:-pos] + block[:HEAD_OF_FRAME], 0)
        while head:
            kind, length, size = head
            start = pos + length
            if start + size > end:
                break
            if kind is not last:
                last, take = kind, parts.setdefault(kind, []).append
            pos = start + size
            take(block[start:pos])
            head = (
                known(block[pos : pos + 14])
                or known(block[pos : pos + 15])
                or self._learn(block, pos)
            )
        if parts:
            self.left = 2
        return max(0, pos)

    def _learn(self, block: bytes, pos: int) -> FrameHead | None:
        """Read what stands at `pos`, if it is the head of a chunk that is one frame."""
        line = CHUNK_LINE.match(block, pos + 2)
        if line is None or block[pos : pos + 2] != b"\r\n":
            return None
        if len(block) - line.end() < FRAME_HEADER.size:
            return None
        word, size = FRAME_HEADER.unpack_from(block, line.end())
        kind = FRAME_TYPES.get(word)
        if kind is None or int(line.group(1), 16) != size + FRAME_HEADER.size:
            return None
        length = line.end() + FRAME_HEADER.size - pos
        if length in (14, 15):  # texts of 8 to 4,087 bytes; longer ones are worth reading
            if len(self.heads) >= KNOWN_FRAMES:
                self.heads.clear()
            self.heads[block[pos : pos + length]] = kind, length, size
        return kind, length, size


def output_decoder(route: Route, head: ResponseHead) -> Decoder:
    """How a container's output is framed in this response, as far as its head tells.

    `raw-stream` tells nothing: engine 20 sends it with frames on attach and exec, engine 28 with
    every answer of API 1.41 and older, and on attach without an upgrade.
    """
    if route.endpoint == "attach_ws":
        return WebSocketDecoder("tty")
    content_type = (head.first(b"content-type") or b"").partition(b";")[0].strip().lower()
    logs = route.endpoint == "logs"
    return StreamDemuxer(
        "multiplexed" if content_type == MULTIPLEXED else None,
        timestamps=logs and route.flag("timestamps"),
        details=logs and route.flag("details"),
    )


def input_decoder(route: Route) -> Decoder:
    """How what the client types is framed."""
    return WebSocketDecoder("stdin") if route.endpoint == "attach_ws" else RawDecoder("stdin")
