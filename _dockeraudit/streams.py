"""Docker streams: frames and WebSocket messages to runs of bytes. Performs no I/O.

payload of a body ─▶ StreamDemuxer / WebSocketDecoder / RawDecoder ─▶ [(stream type, bytes), ...]
"""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple, Union

from _dockeraudit.http1 import CHUNK_LINE, ChunkedReader, ResponseHead
from _dockeraudit.routes import Route

WALK_LEAST = (
    1 << 10
)  # bytes of a block that may hold enough frames for walking over them to be worth its beginning
HEAD_OF_FRAME = (
    32  # bytes that hold a chunk's size line and its frame's header, as far as engines write them
)
KNOWN_FRAMES = 4096  # heads of frames that FrameReader remembers; twice as many line lengths as are common, 1 MiB
# Engine API, "Stream format": [type 0 0 0][big-endian uint32 size], 0 stdin, 1 stdout, 2 stderr, 3 the engine's errors
FRAME_HEADER = struct.Struct(">II")
FRAME_TYPES = {0: "stdin", 1 << 24: "stdout", 2 << 24: "stderr", 3 << 24: "stderr"}
FRAMED_PREFIX = re.compile(
    rb"[\x00-\x03](?:\Z|\x00(?:\Z|\x00(?:\Z|\x00)))"
)  # as far as it has come
MULTIPLEXED = b"application/vnd.docker.multiplexed-stream"
Run = tuple[str, bytes]  # (stream type, bytes): stdin, stdout, stderr or tty


class StreamDemuxer:
    """A container's output stream to runs of (stream type, bytes), one run a type and block, never one a frame.

    `framing` is multiplexed, raw, or None until the first eight bytes have told (API 1.41 and older say nothing, or
    raw-stream for either). A stream that stops being frames is `broken`, and raw from there on.
    `prefixes`: how many space-ended words stand before each frame's text (timestamps, details); they are left out.
    """

    def __init__(self, framing: str | None = None, prefixes: int = 0) -> None:
        self.framing = framing
        self.prefixes = prefixes
        self.frames = 0
        self._head = b""  # a frame's header that has not wholly come
        self._type = "tty"
        self._left = 0  # bytes of the current frame's payload still to come
        self._words = 0  # prefix words of it still to be left out

    @property
    def inside_frame(self) -> bool:
        """Whether the stream so far ends in the middle of a frame."""
        return bool(self._left or (self._head and self.framing == "multiplexed"))

    @property
    def between_frames(self) -> bool:
        """Whether a frame's header comes next, and its whole payload is text."""
        return self.framing == "multiplexed" and not (self._left or self._head or self.prefixes)

    def feed(self, block: bytes) -> list[Run]:
        """The runs in the next block of the stream."""
        if self._head:
            block, self._head = self._head + block, b""
        if self.framing is None:
            self._decide(block)
        if self.framing is None:
            self._head = block
            return []
        if self.framing != "multiplexed":
            return [("tty", block)] if block else []
        return self._frames(block)

    def end(self) -> list[Run]:
        """What was still undecided when the stream ended."""
        undecided, self._head = self._head, b""
        return [("tty", undecided)] if undecided and self.framing is None else []

    def _decide(self, block: bytes) -> None:
        begins = FRAMED_PREFIX.match(block)
        if not begins and block:
            self.framing = "raw"
        elif len(block) >= 8:
            self.framing = "multiplexed"

    def _frames(self, block: bytes) -> list[Run]:
        pieces: dict[str, list[bytes]] = {}
        pos = self._payload(block, 0, pieces) if self._left else 0
        unpack, types, end = FRAME_HEADER.unpack_from, FRAME_TYPES, len(block)
        frames, last, take = 0, None, None
        while pos + 8 <= end:
            word, size = unpack(block, pos)
            kind = types.get(word)
            if kind is None:
                self.frames += frames
                return self._broken(block[pos:], pieces)
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
        self._head = block[pos:]
        return [(kind, b"".join(parts)) for kind, parts in pieces.items()]

    def _payload(self, block: bytes, pos: int, pieces: dict[str, list[bytes]]) -> int:
        """The current frame's payload as far as it has come, without its prefix words."""
        end = min(len(block), pos + self._left)
        self._left -= end - pos
        start = pos
        while self._words and start < end:
            space = block.find(b" ", start, end)
            start = end if space < 0 else space + 1
            self._words -= space >= 0
        if start < end:
            pieces.setdefault(self._type, []).append(block[start:end])
        return end

    def _broken(self, rest: bytes, pieces: dict[str, list[bytes]]) -> list[Run]:
        self.framing = "broken"
        return [(kind, b"".join(parts)) for kind, parts in pieces.items()] + [("tty", rest)]


class WebSocketDecoder:
    """The payload of WebSocket data messages (RFC 6455 §5.2), either direction, as runs of one stream type."""

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
        return bool(self._left or self._head)

    def feed(self, block: bytes) -> list[Run]:
        """The run in the next block of the connection."""
        block, self._head = self._head + block, b""
        pieces: list[bytes] = []
        pos = self._payload(block, 0, pieces)
        while pos < len(block) and not self._head:
            size = self._frame_head(block, pos)
            if not size:
                self._head = block[pos:]
                break
            pos = self._payload(block, pos + size, pieces)
        return [(self.stream_type, b"".join(pieces))] if pieces else []

    def end(self) -> list[Run]:
        """Nothing is ever undecided."""
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
        self._left = (
            int.from_bytes(block[pos + 2 : pos + 2 + extended], "big") if extended else short
        )
        self._mask = block[pos + 2 + extended : pos + size]
        self._data = (
            block[pos] & 0x0F <= 2
        )  # continuation, text or binary; control frames are not container output
        self.frames += self._data
        return size

    def _payload(self, block: bytes, pos: int, pieces: list[bytes]) -> int:
        data = block[pos : pos + self._left]
        self._left -= len(data)
        if data and self._data:
            pieces.append(self._unmasked(data))
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

    def feed(self, block: bytes) -> list[Run]:
        """The block, as it is."""
        return [(self.stream_type, block)]

    def end(self) -> list[Run]:
        """Nothing is ever undecided."""
        return []


Decoder = Union[StreamDemuxer, WebSocketDecoder, RawDecoder]
UNDECODED = RawDecoder("")  # of an exchange that nobody decodes


class Decoded(NamedTuple):
    """What a block held for the audit: its payload's bytes, how many frames began in it, and its runs."""

    size: int
    frames: int
    runs: list[Run]


NOTHING = Decoded(0, 0, [])


def decode(decoder: Decoder, payload: bytes) -> Decoded:
    """The next bytes of a stream, decoded."""
    before = decoder.frames
    runs = decoder.feed(payload)
    return Decoded(len(payload), decoder.frames - before, runs)


class FrameReader(ChunkedReader):
    """A chunked body of frames, which `feed` gives decoded where that is cheaper.

    Engines send each frame of a log in a chunk of its own. Chunks and frames then come off in one walk, which costs
    0.2 µs a frame where one after the other cost 0.7 µs. Anything else goes that longer way.
    """

    #: what stands before the text of a chunk that is one frame (the CR LF of the chunk before it, its size line, the
    #: frame's header) → type, length of all that, length of the text. Lines have few lengths, and a look-up is cheap.
    heads: dict[bytes, tuple[str, int, int]] = {}

    def __init__(self, demuxer: StreamDemuxer) -> None:
        super().__init__(collect=True)
        self.demuxer = demuxer

    def feed(self, block: bytes) -> tuple[int, Any]:
        """How many bytes of `block` are the body's, and their payload, Decoded if it could be; raises as ChunkedReader does."""
        pieces: dict[str, list[bytes]] = {}
        pos = 0
        if (
            len(block) >= WALK_LEAST
            and self.left in (0, 2)
            and not (self.line or self.trailer)
            and self.demuxer.between_frames
        ):
            pos = self._whole_frames(block, pieces)
        if not pieces:
            return super().feed(block)
        if block[pos:] == b"\r\n":  # as nearly always: blocks end where a send did
            self.left, used, rest = 0, 2, NOTHING
        else:
            used, payload = super().feed(block[pos:])
            rest = decode(self.demuxer, payload)
        runs = [(kind, b"".join(parts)) for kind, parts in pieces.items()]
        frames = sum(map(len, pieces.values()))
        self.demuxer.frames += frames
        size = sum(len(text) for _, text in runs) + frames * FRAME_HEADER.size
        return pos + used, Decoded(size + rest.size, frames + rest.frames, runs + rest.runs)

    def _whole_frames(self, block: bytes, pieces: dict[str, list[bytes]]) -> int:
        """The texts of chunks that are one frame and lie in the block; returns where the last one's data ends."""
        known, end = self.heads.get, len(block)
        last, take = None, None
        pos = self.left - 2  # where the CR LF before the next chunk stands
        head = self._learn(b"\r\n"[:-pos] + block[:HEAD_OF_FRAME], 0)
        while head:
            kind, length, size = head
            start = pos + length
            if start + size > end:
                break
            if kind is not last:
                last, take = kind, pieces.setdefault(kind, []).append
            pos = start + size
            take(block[start:pos])
            head = (
                known(block[pos : pos + 14])
                or known(block[pos : pos + 15])
                or self._learn(block, pos)
            )
        if pieces:
            self.left = 2
        return max(0, pos)

    def _learn(self, block: bytes, pos: int) -> tuple[str, int, int] | None:
        """Read what stands at `pos`, if it is the head of a chunk that is one frame, and remember it."""
        line = CHUNK_LINE.match(block, pos + 2)
        if (
            line is None
            or block[pos : pos + 2] != b"\r\n"
            or len(block) - line.end() < FRAME_HEADER.size
        ):
            return None
        word, size = FRAME_HEADER.unpack_from(block, line.end())
        kind = FRAME_TYPES.get(word)
        if kind is None or int(line.group(1), 16) != size + FRAME_HEADER.size:
            return None
        length = line.end() + FRAME_HEADER.size - pos
        if (
            length in (14, 15) and len(self.heads) < KNOWN_FRAMES
        ):  # texts of 8 to 4,087 bytes; longer ones are worth reading
            self.heads[block[pos : pos + length]] = kind, length, size
        return kind, length, size


def output_decoder(route: Route, head: ResponseHead) -> Decoder:
    """How a container's output is framed in this response, as far as its head tells."""
    if route.endpoint == "attach_ws":
        return WebSocketDecoder("tty")
    content_type = (head.first(b"content-type") or b"").partition(b";")[0].strip().lower()
    prefixes = (route.flag("timestamps") + route.flag("details")) if route.endpoint == "logs" else 0
    return StreamDemuxer("multiplexed" if content_type == MULTIPLEXED else None, prefixes)


def input_decoder(route: Route) -> Decoder:
    """How what the client types is framed."""
    return WebSocketDecoder("stdin") if route.endpoint == "attach_ws" else RawDecoder("stdin")
