"""The replayed log streams: text with a known number of secrets, cut up as engines cut it.

    lines ─▶ frames (header, payload) ─▶ chunks ─▶ sends

A shape is one cycle, which the engine repeats. It has three files: NAME.wire is the chunked body,
NAME.cuts the sizes of its sends, NAME.body the contents of the chunks. Everything is drawn from
seeds, so that two machines replay the same bytes.
"""

from __future__ import annotations

import array
import random
import string
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

ALNUM = string.ascii_letters + string.digits
LETTERS = string.ascii_lowercase
WORDS = """
    request served from cache in accepted connection worker started queue drained batch of rows
    written checkpoint reached retrying after timeout upstream replied with status session
    resumed for tenant index rebuilt snapshot uploaded garbage collected heartbeat received
""".split()


class Shape(NamedTuple):
    """How a stream is made: one line in `planted` holds a secret; `cut` makes chunks and sends."""

    name: str
    line: int
    frames: int
    planted: int
    cut: Callable[[Sequence[bytes], random.Random], Iterator[tuple[bytes, list[int]]]]


class Written(NamedTuple):
    """A shape on disk: what one cycle of it holds."""

    shape: Shape
    body: Path
    wire: Path
    secrets: int
    payload: int


def access(dice: random.Random) -> str:
    """What a web server says of a request."""
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
    path = f"/{dice.choice(WORDS)}/{dice.choice(WORDS)}/{dice.randrange(10000)}"
    query = f"page={dice.randrange(50)}"
    address = f"10.0.{dice.randrange(256)}.{dice.randrange(256)}"
    status, size = dice.choice((200, 200, 200, 304, 404)), dice.randrange(99999)
    return f'{address} - - "GET {path}?{query} HTTP/1.1" {status} {size} "-" "{agent}"'


def pairs(dice: random.Random) -> str:
    """logfmt."""
    return " ".join(
        f"{dice.choice(WORDS)}={dice.choice((dice.choice(WORDS), dice.randrange(10000)))}"
        for _ in range(6)
    )


def structured(dice: random.Random) -> str:
    """A JSON object, as structured logging writes it."""
    trace = "".join(dice.choices("0123456789abcdef", k=32))
    logger, took = dice.choice(WORDS), dice.randrange(999)
    return (
        f'{{"level":"info","logger":"com.example.{logger}","trace_id":"{trace}",'
        f'"took_ms":{took},"msg":"{prose(dice)}"}}'
    )


def prose(dice: random.Random) -> str:
    """What people write into log messages."""
    return " ".join(dice.choices(WORDS, k=8))


def stack(dice: random.Random) -> str:
    """A frame of a stack trace."""
    package, kind, method, file = (dice.choice(WORDS) for _ in range(4))
    line = dice.randrange(999)
    return f"    at com.example.{package}.{kind.title()}.{method}({file.title()}.java:{line})"


STYLES = (access, pairs, structured, prose, stack)


def plain_line(size: int, dice: random.Random) -> bytes:
    """A line such as programs log, of exactly so many bytes, without anything like a secret."""
    day, hour = dice.randrange(1, 31), dice.randrange(24)
    minute, second, millisecond = dice.randrange(60), dice.randrange(60), dice.randrange(1000)
    stamp = f"2026-11-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
    style = dice.choice(STYLES)
    line = f"{stamp} {dice.choice(('INFO', 'WARN', 'DEBUG'))} [http-{dice.randrange(64)}] "
    while len(line) < size:
        line += style(dice) + " "
    return line[: size - 1].encode() + b"\n"


def secret(number: int, dice: random.Random) -> bytes:
    """A secret of the six kinds that every rule set knows, in turn; put together at run time."""

    def draw(alphabet: str, count: int) -> str:
        return "".join(dice.choices(alphabet, k=count))

    kinds = (
        lambda: "AK" + "IA" + draw(string.ascii_uppercase + string.digits, 16),
        lambda: "api" + "_key=" + draw(ALNUM, 23) + "7",
        lambda: draw(LETTERS, 8) + "@" + draw(LETTERS, 7) + ".org",
        lambda: "bear" + "er " + draw(ALNUM, 28),
        lambda: "pass" + "word=" + draw(ALNUM, 11) + "4",
        lambda: "-----BEGIN " + "PRIVATE KEY-----",
    )
    return kinds[number % len(kinds)]().encode()


def text_lines(shape: Shape, dice: random.Random) -> tuple[list[bytes], int]:
    """The lines of a cycle, and how many secrets are in them."""
    lines, secrets = [], 0
    for number in range(shape.frames):
        line = plain_line(shape.line, dice)
        if number % shape.planted == shape.planted // 2:
            planted = b" " + secret(secrets, dice)
            line = line[: shape.line - 1 - len(planted)] + planted + b"\n"
            secrets += 1
        lines.append(line)
    return lines, secrets


def as_frame(payload: bytes) -> bytes:
    """A stdcopy frame on standard output."""
    return struct.pack(">BxxxI", 1, len(payload)) + payload


def as_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body, its size as Go writes it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def each_frame(frames: Sequence[bytes], dice: random.Random) -> Iterator[tuple[bytes, list[int]]]:
    """As an engine sends a log: one chunk and one send for each frame."""
    for frame in frames:
        chunk = as_chunk(frame)
        yield chunk, [len(chunk)]


def packed(frames: Sequence[bytes], dice: random.Random) -> Iterator[tuple[bytes, list[int]]]:
    """Many frames in a chunk of up to 32 KiB, as from an engine behind another proxy."""
    per_chunk = max(1, 32768 // len(frames[0]))
    for at in range(0, len(frames), per_chunk):
        chunk = as_chunk(b"".join(frames[at : at + per_chunk]))
        yield chunk, [len(chunk)]


def cut_anywhere(frames: Sequence[bytes], dice: random.Random) -> Iterator[tuple[bytes, list[int]]]:
    """Chunks that end inside frames, and sends that end inside chunks."""
    body, at = b"".join(frames), 0
    while at < len(body):
        size = dice.randrange(1, 4096)
        chunk = as_chunk(body[at : at + size])
        first = dice.randrange(1, len(chunk))
        yield chunk, [first, len(chunk) - first]
        at += size


SHAPES = (
    Shape("each100", 100, 40_000, 1000, each_frame),
    Shape("packed100", 100, 40_000, 1000, packed),
    Shape("cut100", 100, 40_000, 1000, cut_anywhere),
    Shape("each1k", 1024, 4_000, 1000, each_frame),
    Shape("each16k", 16384, 256, 64, each_frame),
    Shape("secrets100", 100, 40_000, 1, each_frame),
)


def write_shape(shape: Shape, folder: Path, check: Callable[[bytes, int], None]) -> Written:
    """Write a shape's files; `check(text, secrets)` raises if their number is another."""
    dice = random.Random(shape.name)
    lines, secrets = text_lines(shape, dice)
    check(b"".join(lines), secrets)
    wire, cuts = [], array.array("I")
    frames = [as_frame(line) for line in lines]
    for chunk, sends in shape.cut(frames, dice):
        wire.append(chunk)
        cuts.extend(sends)
    if sys.byteorder == "big":
        cuts.byteswap()
    written = Written(
        shape,
        folder / f"{shape.name}.body",
        folder / f"{shape.name}.wire",
        secrets,
        sum(map(len, lines)),
    )
    written.body.write_bytes(b"".join(frames))
    written.wire.write_bytes(b"".join(wire))
    (folder / f"{shape.name}.cuts").write_bytes(cuts.tobytes())
    return written


def write_pattern(folder: Path) -> None:
    """Write the random megabyte that opaque bodies repeat."""
    (folder / "pattern").write_bytes(random.Random("pattern").randbytes(1 << 20))
