"""Fuzz the parsers: python3 e2e/fuzz.py [SECONDS], until interrupted without a number.

Head parser, chunk reader, stream demuxer, WebSocket decoder, route classifier: only errors of our
own may escape, and cutting the bytes elsewhere must change nothing. Inputs come from atheris
(coverage-guided, where it installs), else from seeded random mutations of a few texts. The input
that broke something is printed, and the exit status is 1.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    import atheris
except ImportError:
    atheris = None

if atheris:
    with atheris.instrument_imports(include=["_dockeraudit"]):
        from _dockeraudit import admission, errors, http1, routes, streams
else:
    from _dockeraudit import admission, errors, http1, routes, streams

HEADS = (
    b"GET /v1.43/containers/%61/logs?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n",
    b"\r\nGET /events HTTP/1.1\nHost: d\nContent-Length: 1\r\nContent-Length: 1\n\nx",
    b"POST http://a/exec/x/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nConnection: Upgrade\r\n"
    b"Upgrade: tcp, h2c\r\n\r\n{}",
    b"POST /build HTTP/1.1\r\nHost: [::1]:1\r\nTransfer-Encoding: chunked\r\nOrigin: http://a\r\n\r\n"
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
)
BODIES = (
    b"b\r\n\1\0\0\0\0\0\0\3abc\r\nb\r\n\2\0\0\0\0\0\0\3abc\r\n"
    b"a\r\n\1\0\0\0\0\0\0\3ab\r\n1\r\nc\r\n0\r\n\r\n",
    b"3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    b"\1\0\0\0\0\0\0\3abc\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\1x",
    b"\x82\x85\1\2\3\4hello\x81\x7e\0\x03abc",
)


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the status of its refusal; anything else escapes."""
    try:
        return call(*arguments)
    except errors.HTTPError as error:
        return error.status


def read_request(parts: Sequence[bytes]) -> Any:
    """A head and its body that come in parts: what was seen, forwarded, and left over."""
    buffer, seen = b"", 0
    for number, part in enumerate(parts):
        buffer += part
        buffer = buffer[http1.empty_lines(buffer) :]
        length = http1.head_length(buffer, seen) if buffer else 0
        if length:
            rest = buffer[length:] + b"".join(parts[number + 1 :])
            return request_of(buffer[:length], rest)
        seen = len(buffer)
    return None


def request_of(raw: bytes, rest: bytes) -> Any:
    """Everything that is asked of one request."""
    head = http1.parse_request_head(raw)
    route = routes.classify(head.method, head.target)
    route.flag("follow")
    framing = http1.request_framing(head)
    upgrade = routes.offered_protocols(head, route, False)
    assert (
        not any(protocol.lower().startswith(b"h2") for protocol in upgrade)
        or route.endpoint == "tunnel"
    )
    forwarded = http1.forwarded_request_head(head, upgrade, False)
    again = http1.parse_request_head(forwarded)
    assert (again.method, again.target) == (head.method, head.target) and http1.request_framing(
        again
    ) == framing
    admission.browser_refusal(head, route, True, frozenset())
    assert route.brief() == routes.classify(head.method, head.target).brief()
    return head.target, head.end_to_end, head.index, framing, route, rest


def read_chunks(parts: Sequence[bytes]) -> Any:
    """A chunked body that comes in parts: payload, bytes taken, whether it has ended or broken."""
    reader, payload, used = http1.ChunkedReader(), b"", 0
    for part in parts:
        if part and not reader.done:
            count, data = reader.feed(part)
            payload, used = payload + data, used + count
    return payload, used, reader.done, reader.broken is not None


def decoded(decoder: Any, parts: Sequence[bytes]) -> Any:
    """A stream's texts, its frames, and its framing."""
    texts: dict[str, bytes] = {}
    for name, data in [run for part in parts if part for run in decoder.feed(part)] + decoder.end():
        texts[name] = texts.get(name, b"") + data
    return (
        {name: text for name, text in texts.items() if text},
        decoder.frames,
        decoder.inside_frame,
        decoder.framing,
    )


def read_frames(parts: Sequence[bytes], one_walk: bool) -> Any:
    """A chunked stream of frames that comes in parts, read in one walk or in two."""
    demuxer = streams.StreamDemuxer("multiplexed")
    reader = streams.FrameReader(demuxer) if one_walk else http1.ChunkedReader()
    texts: dict[str, bytes] = {}
    for part in parts:
        if part and not (reader.done or reader.broken):
            payload = reader.feed(part)[1]
            for name, data in (
                payload
                if isinstance(payload, streams.Decoded)
                else streams.decode(demuxer, payload)
            ).pieces:
                texts[name] = texts.get(name, b"") + data
    return reader.done, {name: text for name, text in texts.items() if text}, demuxer.frames


def check(data: bytes) -> None:
    """One input, through everything, whole and cut where its own first bytes say."""
    seeds = data[:2] + b"\0\0"
    places = sorted({seeds[0] % (len(data) + 1), seeds[1] % (len(data) + 1)})
    cut = [data[a:b] for a, b in zip([0, *places], [*places, len(data)])]
    bytewise = [data[i : i + 1] for i in range(len(data))]
    for parts in (cut, bytewise):
        assert outcome(read_request, parts) == outcome(read_request, [data])
        assert outcome(read_chunks, parts) == outcome(read_chunks, [data])
        assert outcome(read_frames, parts, True) == outcome(read_frames, [data], False)
        for framing in (None, "multiplexed"):
            whole = decoded(streams.StreamDemuxer(framing, seeds[0] % 3), [data])
            assert decoded(streams.StreamDemuxer(framing, seeds[0] % 3), parts) == whole
        assert decoded(streams.WebSocketDecoder("tty"), parts) == decoded(
            streams.WebSocketDecoder("tty"), [data]
        )
    routes.seeming_request(data)
    outcome(http1.parse_response_head, data)
    outcome(http1.parse_response_head, b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")
    for method in (b"GET", b"POST"):
        routes.classify(method, data)


def mutate(rng: random.Random) -> bytes:
    """A text with a few bytes changed, doubled, cut out or exchanged for another text's."""
    data = bytearray(rng.choice(HEADS + BODIES))
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            data[place:place] = rng.choice(
                [
                    b"\r",
                    b"\n",
                    b"\r\n",
                    b"\0",
                    b" ",
                    b":",
                    b"%",
                    b"0",
                    b"chunked",
                    b"\xff",
                    b"Content-Length: 1\r\n",
                ]
            )
        elif kind == 2:
            del data[place : place + rng.randrange(1, 9)]
        elif kind == 3:
            data[place:place] = data[place : place + rng.randrange(1, 40)]
        else:
            other = rng.choice(HEADS + BODIES)
            data[place:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def fuzz_by_mutation(seconds: float) -> int:
    """Mutate until the time is up; returns how many inputs were tried."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"fuzz: seeded mutations, seed {seed}; no atheris here", flush=True)
    rng, end, tried, data = random.Random(seed), time.monotonic() + seconds, 0, b""
    try:
        while time.monotonic() < end:
            data = mutate(rng)
            check(data)
            tried += 1
    except KeyboardInterrupt:
        pass
    except Exception:
        print(f"fuzz: broken by {data!r}", file=sys.stderr)
        raise
    return tried


def fuzz_by_coverage(seconds: float) -> None:
    """Run atheris, which ends the process: with 0 when the time is up; else it prints the input."""
    limit = [] if seconds == float("inf") else [f"-max_total_time={int(seconds)}"]

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        """Every fourth input comes from the tables, the others from what has reached new code."""
        return (
            mutate(random.Random(seed))[:max_size]
            if seed % 4 == 0
            else bytes(atheris.Mutate(data, max_size))
        )

    options = [sys.argv[0], *limit, "-max_len=400", "-print_final_stats=1"]
    atheris.Setup(options, lambda data: check(bytes(data)), custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else float("inf")
    if atheris:
        fuzz_by_coverage(SECONDS)
    print(f"fuzz: {fuzz_by_mutation(SECONDS)} inputs, nothing but our own errors")
