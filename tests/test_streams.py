"""Docker's streams, decoded: frames, WebSocket messages, raw text, and how it is known which."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any, Callable

import pytest
from recorded import STAMP, chunked, joined
from scripted import stdcopy_frame

from _dockeraudit import streams
from _dockeraudit.http1 import ChunkedReader, parse_response_head
from _dockeraudit.routes import classify
from _dockeraudit.streams import (
    REREAD,
    Decoded,
    FrameReader,
    Piece,
    RawDecoder,
    StreamDemuxer,
    WebSocketDecoder,
    decode,
    input_decoder,
    output_decoder,
)
from conftest import splits

SIZES = (0, 1, 255, 256, 1024, 65535, 16777216)


def fed(demuxer: Any, parts: Sequence[bytes]) -> dict[str, bytes]:
    """The texts of a stream that comes in these parts."""
    return joined([piece for part in parts for piece in demuxer.feed(part)] + demuxer.end())


# -- frames


@pytest.mark.parametrize(
    "stream_type, name", [(0, "stdin"), (1, "stdout"), (2, "stderr"), (3, "stderr")]
)
@pytest.mark.parametrize("size", SIZES)
def test_header_types_and_big_endian_sizes(stream_type: int, name: str, size: int) -> None:
    demuxer = StreamDemuxer("multiplexed")
    assert demuxer.feed(stdcopy_frame(stream_type, b"x" * size)) == [(name, b"x" * size)]
    assert demuxer.frames == 1 and not demuxer.inside_frame


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_read_big_endian(size: int) -> None:
    header = stdcopy_frame(1, b"x" * size)[:8]
    assert header[4:] == bytes([size >> 24 & 255, size >> 16 & 255, size >> 8 & 255, size & 255])
    demuxer = StreamDemuxer("multiplexed")
    demuxer.feed(header)
    assert demuxer.inside_frame == (size > 0)


FRAMES = (
    stdcopy_frame(1, b"out one\n")
    + stdcopy_frame(2, b"error\n")
    + stdcopy_frame(1, b"")
    + stdcopy_frame(1, b"out two\n")
    + stdcopy_frame(0, b"typed\n")
)
TEXTS = {"stdout": b"out one\nout two\n", "stderr": b"error\n", "stdin": b"typed\n"}


def test_frames_cut_anywhere_give_the_same_texts() -> None:
    for parts in splits(FRAMES):
        demuxer = StreamDemuxer("multiplexed")
        assert fed(demuxer, parts) == TEXTS
        assert (demuxer.framing, demuxer.frames, demuxer.inside_frame) == ("multiplexed", 5, False)


def test_a_header_that_claims_gigabytes_allocates_nothing() -> None:
    demuxer = StreamDemuxer("multiplexed")
    assert demuxer.feed(b"\x01\0\0\0\xff\xff\xff\xffabc") == [("stdout", b"abc")]
    assert demuxer.inside_frame


# -- how a stream is read

#: what a container with a TTY may print so that its output looks like frames
LIES = [
    b"\1\0\0\0\0\0\0\x08a line\r\n",
    b"\0\0\0\0\0\0\0\x20typed by nobody\r\n",
    b"\1\0\0\0\xff\xff\xff\xffa line\r\n",
    FRAMES,
]


@pytest.mark.parametrize("text", [*LIES, b"$ ls\n", b"\1\0", b"\1", b"0123456789"])
def test_bytes_never_decide_how_a_stream_is_read(text: bytes) -> None:
    for parts in splits(text):
        demuxer = StreamDemuxer()
        assert [piece for part in parts for piece in demuxer.feed(part)] == []
        assert demuxer.framing is None and demuxer.held == len(text)
        assert joined(demuxer.decide(tty=True) + demuxer.end()) == {"tty": text}
        assert (demuxer.framing, demuxer.frames) == ("raw", 0)


def test_an_inspect_without_tty_makes_the_bytes_frames() -> None:
    for parts in splits(FRAMES):
        for known in range(len(parts) + 1):
            demuxer = StreamDemuxer()
            pieces = [piece for part in parts[:known] for piece in demuxer.feed(part)]
            assert pieces == []
            pieces = demuxer.decide(tty=False)
            assert not demuxer.undecided
            pieces += [piece for part in parts[known:] for piece in demuxer.feed(part)]
            assert joined(pieces) == TEXTS
        if len(parts) == len(FRAMES):
            break


def test_bytes_of_which_nobody_knows_are_read_both_ways() -> None:
    for parts in splits(FRAMES):
        demuxer = StreamDemuxer()
        demuxer.decide(tty=None)
        assert demuxer.undecided and demuxer.framing == "unknown"
        texts = fed(demuxer, parts)
        assert texts.pop("tty") == FRAMES
        assert "stdin" not in texts, "a container must not pass for the client"
        assert texts["stderr"] == b"error\n" and not demuxer.inside_frame
        assert texts["stdout"] == b"out one\nout two\ntyped\n"


@pytest.mark.parametrize("tty, framing", [(True, "raw"), (False, "multiplexed")])
def test_an_inspect_that_comes_late_ends_the_reading_both_ways(tty: bool, framing: str) -> None:
    demuxer = StreamDemuxer()
    demuxer.decide(tty=None)
    demuxer.feed(FRAMES[:11])
    assert demuxer.decide(tty=tty) == [] and demuxer.framing == framing
    later = joined(demuxer.feed(FRAMES[11:]))
    if tty:
        assert later == {"tty": FRAMES[11:]}
    else:
        assert later == {**TEXTS, "stdout": b" one\nout two\n"}


def test_an_inspect_without_tty_does_not_make_frames_of_what_was_none() -> None:
    demuxer = StreamDemuxer()
    demuxer.decide(tty=None)
    assert joined(demuxer.feed(b"no frames at all")) == {"tty": b"no frames at all"}
    demuxer.decide(tty=False)
    assert demuxer.framing == "broken" and not demuxer.newly_broken
    assert joined(demuxer.feed(FRAMES)) == {"tty": FRAMES}


CONTENT_TYPES = [
    (b"/containers/x/logs", "application/vnd.docker.multiplexed-stream", "multiplexed"),
    (b"/containers/x/logs", "Application/VND.docker.multiplexed-stream; a=b", "multiplexed"),
    (b"/containers/x/logs", "application/vnd.docker.raw-stream", None),
    (b"/containers/x/logs", "text/plain", None),
    (b"/containers/x/attach/ws", "application/vnd.docker.multiplexed-stream", "websocket"),
]


@pytest.mark.parametrize("path, content_type, framing", CONTENT_TYPES)
def test_only_multiplexed_as_a_content_type_says_how_a_stream_is_framed(
    path: bytes, content_type: str, framing: str | None
) -> None:
    route = classify(b"GET", b"/v1.43" + path)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode()
    assert output_decoder(route, parse_response_head(head)).framing == framing


def test_what_a_client_types_is_raw_or_in_messages() -> None:
    attach = input_decoder(classify(b"POST", b"/containers/x/attach"))
    assert isinstance(attach, RawDecoder) and attach.feed(b"\1\0") == [("stdin", b"\1\0")]
    assert input_decoder(classify(b"GET", b"/containers/x/attach/ws")).framing == "websocket"


# -- streams that break


def test_a_stream_that_stops_being_frames_is_read_as_raw_text_from_its_last_bytes_on() -> None:
    whole = FRAMES + b"Panic: not a frame at all\n"
    for parts in splits(whole):
        demuxer = StreamDemuxer("multiplexed")
        texts = fed(demuxer, parts)
        assert texts == {**TEXTS, "tty": whole}
        assert demuxer.framing == "broken" and demuxer.newly_broken
        assert joined(demuxer.recent()) == TEXTS and not demuxer.newly_broken


def test_a_broken_stream_is_read_again_from_within_a_large_frame() -> None:
    text = random.Random(3).randbytes(3 * REREAD)
    demuxer = StreamDemuxer("multiplexed")
    whole = stdcopy_frame(2, text)
    parts = [whole[at : at + 9000] for at in range(0, len(whole), 9000)]
    raw = fed(demuxer, [*parts, b"no header\n"])["tty"]
    assert len(raw) < 2 * REREAD and (whole + b"no header\n").endswith(raw)
    assert joined(demuxer.recent()) == {"stderr": raw[: -len(b"no header\n")]}


def test_chunks_of_a_broken_stream_are_read_again_without_their_coding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "WALK_LEAST", 0)
    frames = [stdcopy_frame(1, b"a line %d\n" % number) for number in range(20)]
    body = chunked([*frames, b"no header at all"])
    for parts in splits(body):
        demuxer = StreamDemuxer("multiplexed")
        reader, pieces = FrameReader(demuxer), []
        for part in filter(None, parts):
            payload = reader.feed(part)[1]
            decoded = payload if isinstance(payload, Decoded) else decode(demuxer, payload)
            pieces += decoded.pieces
        assert joined(pieces)["tty"] == b"".join(frames) + b"no header at all"


@pytest.mark.parametrize("size", [1, 100, 70_000])
def test_what_is_kept_in_case_a_stream_breaks_is_bounded(size: int) -> None:
    demuxer = StreamDemuxer("multiplexed")
    frame = stdcopy_frame(1, b"x" * size)
    for _ in range(3 * REREAD // len(frame) + 3):
        demuxer.feed(frame)
        kept = demuxer._recent._blocks
        assert len(kept) <= 2 + REREAD // streams.JOINED_BLOCK
        assert (
            sum(len(block[2]) for block in kept) <= REREAD + len(frame) + 2 * streams.JOINED_BLOCK
        )


# -- what the engine puts before lines


def test_timestamps_and_details_are_left_out_of_frames_wherever_they_are_cut() -> None:
    frames = [stdcopy_frame(1, STAMP + b"a=b%21,c=d+e " + text) for text in (b"AKIA", b"IOSF\n")]
    for parts in splits(b"".join(frames)):
        assert fed(StreamDemuxer("multiplexed", True, True), parts) == {
            "stdout": b"AKIAIOSF\n",
            "stdout details": b"a=b! c=d e\n" * 2,
        }


LONG = b"-" * (16384 - 8) + b"a word that the engine cuts" + b"+" * 16384 + b" end"


def stamped(prefix: bytes, size: int = 16384) -> bytes:
    """Two lines of a TTY, the first of which is longer than the engine's log keeps in one piece."""
    pieces = [LONG[at : at + size] for at in range(0, len(LONG), size)]
    return b"".join(prefix + piece for piece in pieces) + b"\r\n" + prefix + b"next\r\n"


@pytest.mark.parametrize("details", [b"", b"a=b%21 ", b" "])
@pytest.mark.parametrize("size", streams.PARTIAL_LINES)
def test_stamps_are_taken_out_of_raw_text_also_inside_a_long_line(
    details: bytes, size: int
) -> None:
    body = stamped(STAMP + details, size)
    cut_everywhere = [body[at : at + 7] for at in range(0, len(body), 7)]
    for parts in ([body], [body[:16400], body[16400:]], cut_everywhere):
        texts = fed(StreamDemuxer("raw", True, bool(details)), parts)
        assert texts["tty"] == LONG + b"\r\nnext\r\n"
        assert texts.get("tty details", b"").count(b"\n") == body.count(STAMP) * bool(details)


SHORT = STAMP + b"one\r\n" + STAMP + b"\r\n" + STAMP + b"two 20" + b" 2026-01-0\r\n" + STAMP + b"2"


def test_stamps_are_taken_out_of_raw_text_wherever_they_are_cut() -> None:
    for parts in splits(SHORT):
        assert fed(StreamDemuxer("raw", True), parts) == {
            "tty": b"one\r\n\r\ntwo 20 2026-01-0\r\n2"
        }


def test_details_are_taken_out_of_raw_text_wherever_they_are_cut() -> None:
    for parts in splits(b"a=b one two\n\n three\nc=d,e=%0A four"):
        assert fed(StreamDemuxer("raw", False, True), parts) == {
            "tty": b"one two\n\nthree\nfour",
            "tty details": b"a=b\n\nc=d e=\\n\n",
        }


def test_a_stamp_elsewhere_in_a_line_joins_nothing() -> None:
    body = STAMP + b"never ended" + STAMP + b"next\n"
    for parts in splits(body):
        assert fed(StreamDemuxer("raw", True), parts) == {"tty": b"never ended next\n"}


def test_stamps_are_taken_out_of_text_that_is_read_both_ways() -> None:
    demuxer = StreamDemuxer(None, True)
    demuxer.decide(tty=None)
    assert fed(demuxer, [stamped(STAMP)]) == {"tty": LONG + b"\r\nnext\r\n"}


# -- chunks and frames in one walk


def walked(
    read: Callable[[bytes], tuple[int, Any]],
    reader: Any,
    demuxer: StreamDemuxer,
    parts: Sequence[bytes],
) -> tuple[Any, ...]:
    """All that `read` makes of a chunked body, up to its end or its first illegal byte."""
    pieces: list[Piece] = []
    taken = size = 0
    for part in parts:
        used, decoded = read(part)
        taken, size = taken + used, size + decoded.size
        pieces += decoded.pieces
        if used < len(part):
            break
    counted = demuxer.frames, demuxer.framing, demuxer.inside_frame
    return joined(pieces), taken, size, counted, reader.done, str(reader.broken)


def both_ways(
    parts: Sequence[bytes], framing: Any, stamps: bool
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What chunks and then frames give, and what the one walk over both gives."""
    chunks, frames = ChunkedReader(), StreamDemuxer(framing, stamps)
    demuxer = StreamDemuxer(framing, stamps)
    reader = FrameReader(demuxer)

    def one_after_the_other(part: bytes) -> tuple[int, Any]:
        used, payload = chunks.feed(part)
        return used, decode(frames, payload)

    def in_one_walk(part: bytes) -> tuple[int, Any]:
        used, payload = reader.feed(part)
        return used, payload if isinstance(payload, Decoded) else decode(demuxer, payload)

    return walked(one_after_the_other, chunks, frames, parts), walked(
        in_one_walk, reader, demuxer, parts
    )


def framed_body(rng: random.Random) -> bytes:
    """A chunked body: frames in chunks of their own, or chunks of any size; damaged, or not."""
    sizes = rng.choices(
        (0, 1, 3, 8, 92, 100, 247, 248, 249, 300, 4090, 5000), k=rng.randrange(1, 30)
    )
    parts = [
        stdcopy_frame(rng.choice((0, 1, 1, 1, 2, 3)), bytes(rng.choices(b"ab \r\n01\0\1", k=size)))
        for size in sizes
    ]
    if rng.random() < 0.4:
        whole, parts, at = b"".join(parts), [], 0
        while at < len(whole):
            parts.append(whole[at : at + rng.randrange(1, 300)])
            at += len(parts[-1])
    lines = (b"%x\r\n", b"%x\r\n", b"%x\r\n", b"%X\r\n", b"0%x\r\n", b"%x;a=b\r\n")
    chunks = b"".join(rng.choice(lines) % len(part) + part + b"\r\n" for part in parts)
    body = bytearray(chunks + b"0\r\n\r\n" + rng.choice((b"", b"HTTP/1.1")))
    for _ in range(rng.choice((0, 0, 0, 1, 3))):
        body[rng.randrange(len(body))] = rng.choice(b"\0\1a\r\n09")
    return bytes(body)


def test_chunks_and_frames_in_one_walk_are_what_they_are_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(7)
    monkeypatch.setattr(streams, "WALK_LEAST", 0)
    for _ in range(300):
        body, framing = framed_body(rng), rng.choice(("multiplexed", "multiplexed", None, "raw"))
        cuts = sorted(rng.choices(range(len(body) + 1), k=rng.choice((0, 1, 3, 30))))
        parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)]) if a < b]
        long_way, walk = both_ways(parts, framing, rng.random() < 0.2)
        assert walk == long_way
    assert FrameReader.heads


def test_the_walk_takes_whole_frames_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [b"x" * size + b"\n" for size in (20, 20, 30, 40, 50, 20, 4096)]
    reader = FrameReader(StreamDemuxer("multiplexed"))
    monkeypatch.setattr(ChunkedReader, "feed", None)  # the longer way
    body = chunked([stdcopy_frame(1, line) for line in lines])[: -len(b"0\r\n\r\n")]
    size = sum(map(len, lines)) + 8 * len(lines)
    assert reader.feed(body)[1] == (size, len(lines), [("stdout", b"".join(lines))])


def test_lines_of_all_lengths_do_not_fill_the_table_of_frame_heads_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "KNOWN_FRAMES", 100)
    monkeypatch.setattr(FrameReader, "heads", {})
    for size in range(8, 4000):
        FrameReader(StreamDemuxer("multiplexed")).feed(chunked([stdcopy_frame(1, b"x" * size)] * 2))
        assert len(FrameReader.heads) <= 100
    FrameReader(StreamDemuxer("multiplexed")).feed(chunked([stdcopy_frame(2, b"y" * 600)] * 3))
    assert ("stderr", 15, 600) in FrameReader.heads.values(), "a new length is still learnt"


# -- WebSocket


def websocket_frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """One WebSocket frame (RFC 6455 §5.2)."""
    size = len(payload)
    short, extended = size, b""
    if size >= 65536:
        short, extended = 127, struct.pack(">Q", size)
    elif size >= 126:
        short, extended = 126, struct.pack(">H", size)
    body = bytes(b ^ mask[i % 4] for i, b in enumerate(payload)) if mask else payload
    return bytes([0x80 | opcode, (0x80 if mask else 0) | short]) + extended + mask + body


@pytest.mark.parametrize("mask", [b"", b"\x01\x82\xf3\x7f"])
@pytest.mark.parametrize("size", [512, 70_000])
def test_websocket_messages_are_unmasked_wherever_they_are_cut(mask: bytes, size: int) -> None:
    long = (bytes(range(256)) * (size // 256 + 1))[:size]
    messages = ((2, b"hello "), (9, b"ping"), (1, long), (8, b""))
    data = b"".join(websocket_frame(opcode, payload, mask) for opcode, payload in messages)
    cuts = splits(data) if size < 1000 else [[data], [data[:9], data[9:30_000], data[30_000:]]]
    for parts in cuts:
        decoder = WebSocketDecoder("tty")
        assert fed(decoder, parts) == {"tty": b"hello " + long}
        assert decoder.frames == 2 and not decoder.inside_frame
