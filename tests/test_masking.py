"""Masking in passing: every byte of a secret, no other byte, wherever and whenever blocks come."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from planted import private_key, same_but_for_asterisks, shown_windows, text_of, word

from _dockeraudit.http1 import ChunkedReader, CloseReader
from _dockeraudit.masking import HELD_MOST, HOLD, Mask
from _dockeraudit.places import ChunkSpans, FramedChunks, PlainSpans, WirePlaces
from _dockeraudit.scanner import Scanner
from _dockeraudit.streams import StreamDemuxer, WebSocketDecoder
from conftest import splits
from patterns import RULES

SCANNER = Scanner(RULES)
STAMP = b"2026-01-02T03:04:05.123456789Z "
DETAILS = b"com=a%20b,e=x "
TOKEN = b"gh" + b"p_" + b"A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"


class Records:
    """Takes what a mask reports."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, ...]] = []
        self.updates: list[tuple[Any, ...]] = []

    def finding(self, stream_type: str, rule: Any, match: bytes, *more: Any, **other: Any) -> int:
        """A first sight."""
        self.found.append((stream_type, rule.id, match, other["cover"]))
        return len(self.found)

    def update(self, handle: Any, rule: Any, *more: Any, **other: Any) -> None:
        """What a finding turned out to be."""
        self.updates.append((handle, rule and rule.id, other["cover"]))


def frame(kind: int, data: bytes) -> bytes:
    """A frame of a multiplexed stream."""
    return struct.pack(">BxxxI", kind, len(data)) + data


def chunk(data: bytes) -> bytes:
    """A chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def message(data: bytes) -> bytes:
    """A WebSocket message of a server."""
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return b"\x82" + size + data


def cut(rng: random.Random, data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Pieces of these sizes, at random."""
    pieces, at = [], 0
    while at < len(data):
        size = rng.choice(sizes)
        pieces.append(data[at : at + size])
        at += size
    return pieces


class Stream:
    """A generated stream on the wire: how it is framed, its bytes, the secrets in it."""

    def __init__(self, rng: random.Random, lines: int = 12) -> None:
        self.kind = rng.choice(("multiplexed", "multiplexed", "raw", "websocket"))
        socket = self.kind == "websocket"
        self.chunked = not socket and rng.random() < 0.7
        self.stamps = not socket and rng.random() < 0.3
        self.details = not socket and rng.random() < 0.2
        self.secrets: list[bytes] = []
        pieces = self._pieces(rng, lines)
        if self.kind != "multiplexed":
            pieces = cut(rng, b"".join(pieces), (1, 7, 90, 4000))
            pieces = [message(piece) for piece in pieces] if socket else pieces
        elif not rng.randrange(3):
            pieces = cut(rng, b"".join(pieces), (1, 7, 90, 4000))
        self.wire = (
            b"".join(map(chunk, pieces)) + b"0\r\n\r\n" if self.chunked else b"".join(pieces)
        )

    def _pieces(self, rng: random.Random, lines: int) -> list[bytes]:
        """The frames of two texts in turn, or the lines of one."""
        prefix = STAMP * self.stamps + DETAILS * self.details
        queues = []
        for kind in (1, 2) if self.kind == "multiplexed" else (0,):
            text, secrets = text_of(rng, lines)
            self.secrets += secrets
            parts = text.splitlines(keepends=True)
            if kind:
                parts = [part for line in parts for part in cut(rng, line, (1, 20, 400, 400))]
                queues.append([frame(kind, prefix + part) for part in parts])
            else:
                queues.append([prefix + part for part in parts])
        pieces = []
        while any(queues):
            pieces.append(rng.choice([queue for queue in queues if queue]).pop(0))
        return pieces

    def places(self, known: bool = True) -> WirePlaces:
        """How a mask reads it; `known`: the engine's answer says how it is framed."""
        if self.kind == "websocket":
            return WirePlaces(PlainSpans(CloseReader()), "websocket")
        plain = not (self.stamps or self.details)
        if self.chunked and known and self.kind == "multiplexed" and plain:
            return FramedChunks(ChunkSpans())
        body = ChunkSpans() if self.chunked else PlainSpans(CloseReader())
        return WirePlaces(body, self.kind if known else None, self.stamps, self.details)

    def texts(self, wire: bytes) -> dict[str, bytes]:
        """What a client reads."""
        decoder: Any = WebSocketDecoder("tty")
        if self.kind != "websocket":
            decoder = StreamDemuxer(self.kind, self.stamps, self.details)
            wire = ChunkedReader().feed(wire)[1] if self.chunked else wire
        texts: dict[str, bytes] = {}
        for name, data in decoder.feed(wire) + decoder.end():
            texts[name] = texts.get(name, b"") + data
        return texts


def mask_all(mask: Mask, blocks: Iterable[bytes]) -> bytes:
    """The bytes for the client, where all blocks come at once."""
    return b"".join([*(mask.feed(block, 0.0) for block in blocks if block), mask.end()])


def raw_mask(severity: str = "MEDIUM", records: Any = None, **more: Any) -> Mask:
    """A mask of one text."""
    wire = WirePlaces(PlainSpans(CloseReader()), "raw")
    return Mask(wire, SCANNER, records or Records(), severity, **more)


@pytest.mark.parametrize("seed", range(24))
def test_a_stream_is_masked_the_same_at_any_cut(seed: int) -> None:
    rng = random.Random(seed)
    stream = Stream(rng)
    records = Records()
    whole = mask_all(Mask(stream.places(), SCANNER, records, "MEDIUM"), [stream.wire])
    assert same_but_for_asterisks(whole, stream.wire)
    texts = stream.texts(whole)
    assert shown_windows(stream.secrets, b"\n".join(texts.values())) == []
    before = stream.texts(stream.wire)
    assert {name: len(text) for name, text in texts.items()} == {
        name: len(text) for name, text in before.items()
    }
    for blocks in splits(stream.wire, seed, rounds=6):
        again = Records()
        assert mask_all(Mask(stream.places(), SCANNER, again, "MEDIUM"), blocks) == whole
        assert sorted(again.found, key=repr) == sorted(records.found, key=repr)


@pytest.mark.parametrize("seed", range(16))
def test_what_waits_for_the_engines_word_is_masked_the_same(seed: int) -> None:
    rng = random.Random(seed)
    stream = Stream(rng)
    whole = mask_all(Mask(stream.places(), SCANNER, Records(), "MEDIUM"), [stream.wire])
    for framing in {None, stream.kind} - ({None} if stream.kind == "websocket" else set()):
        body = ChunkSpans() if stream.chunked else PlainSpans(CloseReader())
        wire = WirePlaces(body, framing, stream.stamps, stream.details, waits=True)
        mask = Mask(wire, SCANNER, Records(), "MEDIUM")
        blocks = cut(rng, stream.wire, (700, 900))
        half = len(blocks) // 2 + 1
        out = b"".join(mask.feed(block, 0.0) for block in blocks[:half])
        assert mask.due() is None  # only the engine's word ends this wait
        out += mask.decide(stream.kind == "raw", 0.0)
        assert out + mask_all(mask, blocks[half:]) == whole


@pytest.mark.parametrize("seed", range(12))
def test_without_the_engines_word_both_readings_are_masked_and_frame_headers_stay(
    seed: int,
) -> None:
    rng = random.Random(100 + seed)
    stream = Stream(rng)
    while stream.kind == "websocket":
        stream = Stream(rng)
    mask = Mask(stream.places(known=False), SCANNER, Records(), "MEDIUM")
    early = mask.decide(None, 0.0)
    masked = early + mask_all(mask, splits_once(rng, stream.wire))
    assert same_but_for_asterisks(masked, stream.wire)
    if not stream.details:  # of which the raw reading may take bytes for a secret's
        assert shown_windows(stream.secrets, b"\n".join(stream.texts(masked).values())) == []


def splits_once(rng: random.Random, data: bytes) -> list[bytes]:
    """The data in pieces."""
    return cut(rng, data, (1, 9, 100, 1000))


def test_no_window_of_ten_thousand_secrets_reaches_the_client_at_any_cut() -> None:
    rng = random.Random(7)
    secrets, windows = 0, []
    while secrets < 10_000:
        stream = Stream(rng, lines=40)
        blocks = cut(rng, stream.wire, (1, 2, 3, 11, 60, 700))
        masked = mask_all(Mask(stream.places(), SCANNER, Records(), "MEDIUM"), blocks)
        windows += shown_windows(stream.secrets, b"\n".join(stream.texts(masked).values()))
        secrets += len(stream.secrets)
    assert windows == []


def test_a_whole_line_leaves_at_once_and_an_unfinished_one_after_the_hold() -> None:
    mask = raw_mask()
    assert mask.feed(b"done\nname> ", 1.0) == b"done\n"
    assert mask.due() == 1.0 + HOLD
    assert mask.feed(b"", 1.0 + HOLD / 2) == b""
    assert mask.feed(b"", 1.0 + HOLD) == b"name> "
    assert mask.due() is None


def test_what_is_a_secret_when_the_hold_ends_is_masked() -> None:
    records = Records()
    mask = raw_mask(records=records)
    mask.feed(b"password=" + b"hunter2" * 2, 1.0)
    assert mask.feed(b"", 2.0) == b"password=" + b"*" * 14
    assert [found[3] for found in records.found] == [(True, 0)]


def test_what_passed_before_it_was_a_secret_is_counted_and_the_rest_is_masked() -> None:
    records = Records()
    mask = raw_mask(records=records)
    mask.feed(TOKEN[:12], 1.0)
    assert mask.feed(b"", 2.0) == TOKEN[:12]
    assert mask.feed(TOKEN[12:] + b"\n", 3.0) == b"*" * (len(TOKEN) - 12) + b"\n"
    assert [found[3] for found in records.found] == [(True, 12)]


def test_a_secret_that_passed_whole_is_said_to_be_unmasked() -> None:
    records = Records()
    mask = raw_mask(records=records)
    out = b""
    for number in range(len(TOKEN)):
        out += mask.feed(TOKEN[number : number + 1], float(number))
        out += mask.feed(b"", number + 0.5)
    mask.feed(b"\n", 100.0)
    masked = out.count(b"*")
    covers = [found[3] for found in records.found] + [update[2] for update in records.updates]
    assert (True, len(TOKEN) - masked) in covers


def test_a_line_of_another_text_waits_behind_an_unfinished_one() -> None:
    wire = WirePlaces(PlainSpans(CloseReader()), "multiplexed")
    mask = Mask(wire, SCANNER, Records(), "MEDIUM")
    first, second = frame(1, b"abc"), frame(2, b"line\n")
    assert mask.feed(first + second, 1.0) == first[:8]
    assert mask.feed(b"", 1.0 + HOLD) == first[8:] + second


def test_a_text_that_waits_is_let_go_although_another_goes_on() -> None:
    wire = WirePlaces(PlainSpans(CloseReader()), "multiplexed")
    mask = Mask(wire, SCANNER, Records(), "MEDIUM")
    mask.feed(frame(1, b"abc"), 1.0)
    mask.feed(frame(2, b"line\n"), 1.0 + HOLD / 2)
    assert mask.feed(b"", 1.0 + HOLD).endswith(b"line\n")


def test_the_rest_of_a_frame_is_waited_for() -> None:
    wire = WirePlaces(PlainSpans(CloseReader()), "multiplexed")
    mask = Mask(wire, SCANNER, Records(), "MEDIUM")
    whole = frame(1, b"token " + TOKEN)
    early = mask.feed(whole[:20], 1.0)
    assert mask.due() is None and mask.feed(b"", 9.0) == b""
    late = mask.feed(whole[20:], 9.0) + mask.feed(b"", 10.0)
    assert early + late == frame(1, b"token " + b"*" * len(TOKEN))


@pytest.mark.parametrize("kind", [1, 2])
def test_never_more_than_the_limit_waits(kind: int) -> None:
    wire = WirePlaces(PlainSpans(CloseReader()), "multiplexed")
    mask = Mask(wire, SCANNER, Records(), "MEDIUM")
    blocks = [frame(1, b"unfinished"), *(frame(kind, b"x" * 1000 + b" ") for _ in range(300))]
    out = b""
    for block in blocks:
        out += mask.feed(block, 1.0)
        assert mask.held <= HELD_MOST
    assert out + mask.end() == b"".join(blocks)


def test_a_secret_longer_than_what_is_scanned_at_once_is_masked_to_its_end() -> None:
    rng = random.Random(3)
    value = word(rng, 150_000).encode()
    text = b"password=" + value + b" and more\n"
    for blocks in ([text], cut(rng, text, (5000, 64 << 10, 100))):
        masked = mask_all(raw_mask(), blocks)
        assert masked == b"password=" + b"*" * len(value) + b" and more\n"


@pytest.mark.parametrize(
    ("severity", "masked"), [("LOW", True), ("MEDIUM", False), ("HIGH", False)]
)
def test_noise_is_masked_only_where_it_was_asked_for(severity: str, masked: bool) -> None:
    text = b"mail from someone@acme-mail.net\n"
    assert (mask_all(raw_mask(severity), [text]) != text) == masked


def test_placeholders_and_allowed_secrets_stay() -> None:
    for text in (b"password=changeme\n", b"api_key=xxxxxxxxxxxxxxxxxxxxxxxx\n"):
        assert mask_all(raw_mask("MEDIUM"), [text]) == text
    text = b"password=hunter2hunter2\n"
    assert mask_all(raw_mask(exempt=lambda secret: secret == b"hunter2hunter2"), [text]) == text
    assert mask_all(raw_mask(exempt=lambda secret: False), [text]) != text


def test_a_key_on_one_line_keeps_its_edges_and_its_escapes() -> None:
    text, body = private_key(random.Random(5), "\\n")
    masked = mask_all(raw_mask(), [b'{"key": "' + text.encode() + b'", "id": 7}\n'])
    expected = text
    for line in body:
        expected = expected.replace(line, "*" * len(line))
    assert masked == b'{"key": "' + expected.encode() + b'", "id": 7}\n'


def test_a_key_is_masked_line_by_line_even_where_each_of_them_is_let_go() -> None:
    text, body = private_key(random.Random(5), "\n")
    records, out = Records(), b""
    mask = raw_mask(records=records)
    now = 0.0
    for piece in cut(random.Random(6), text.encode() + b"\n", (3, 20, 40)):
        now += 1.0
        out += mask.feed(piece, now) + mask.feed(b"", now + 0.5)
    edges = [line for line in out.split(b"\n") if b"-" in line]
    assert len(edges) == 2
    assert shown_windows([line.encode() for line in body], out) == []


@pytest.mark.parametrize(
    "before",
    [STAMP, b"web-1  | ", b"web-1  | " + STAMP, b"team=a%20b ", b"[12:34:56] INFO ", b"  "],
)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_key_is_masked_whatever_stands_before_each_of_its_lines(
    before: bytes, newline: bytes
) -> None:
    rng = random.Random(7)
    text, body = private_key(rng, "\n")
    lines = [b"started", *text.encode().split(b"\n"), b"ready to serve requests"]
    shown = [b"*" * len(line) if line.decode() in body else line for line in lines]
    begun = [next_digits(before, rng) for _ in lines]
    wire, expected = (
        b"".join(begin + line + newline for begin, line in zip(begun, texts))
        for texts in (lines, shown)
    )
    for parts in splits(wire):
        assert mask_all(raw_mask(), parts) == expected
    mask, out = raw_mask(), b""
    for number, part in enumerate(cut(rng, wire, (5, 30, 70))):  # each is let go unfinished
        out += mask.feed(part, float(number)) + mask.feed(b"", number + 0.5)
    out += mask.end()
    assert all(a == b or (a == 42 and c == 42) for a, b, c in zip(out, wire, expected))


def next_digits(before: bytes, rng: random.Random) -> bytes:
    """The same with other digits, as in the next line's time stamp."""
    return bytes(rng.choice(b"0123456789") if 48 <= byte <= 57 else byte for byte in before)


def test_the_word_before_a_bearer_token_stays() -> None:
    masked = mask_all(raw_mask(), [b"Authorization: Bearer " + TOKEN + b"\n"])
    assert masked == b"Authorization: Bearer " + b"*" * len(TOKEN) + b"\n"


def test_details_are_masked_where_they_stand_encoded() -> None:
    wire = WirePlaces(PlainSpans(CloseReader()), "multiplexed", details=True)
    word = b"PASSWORD=hunter2%21hunter2,name=web "
    block = frame(1, word + b"line\n")
    masked = mask_all(Mask(wire, SCANNER, Records(), "MEDIUM"), [block])
    assert masked == frame(1, b"PASSWORD=" + b"*" * 17 + b",name=web line\n")


@pytest.mark.parametrize("seed", range(8))
def test_at_any_times_lengths_and_all_other_bytes_stay(seed: int) -> None:
    rng = random.Random(seed)
    stream = Stream(rng)
    mask = Mask(stream.places(), SCANNER, Records(), "MEDIUM")
    out, now = b"", 0.0
    for block in cut(rng, stream.wire, (1, 5, 40, 300)):
        now += rng.choice((0.001, 0.02))
        due = mask.due()
        if due is not None and due <= now:
            out += mask.feed(b"", now)
        out += mask.feed(block, now)
    assert same_but_for_asterisks(out + mask.end(), stream.wire)


def test_a_stream_that_stops_being_frames_is_masked_as_text_from_there_on() -> None:
    wire = WirePlaces(PlainSpans(CloseReader()), "multiplexed")
    mask = Mask(wire, SCANNER, Records(), "MEDIUM")
    text = frame(1, b"hello\n") + b"no frame: password=hunter2hunter2\n"
    assert mask_all(mask, [text]) == text.replace(b"hunter2hunter2", b"*" * 14)
    assert wire.framing == "broken"
