"""Where a request ends: the proxy sees it end where the real engine does.

Crafted heads and bodies, each followed by marker requests, go to the engine directly and through
the proxy. The engine's answers name the requests that it saw. Through the proxy it sees the same
ones, or the proxy refuses one, and the engine has seen those before it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
import test_http1
from raw import ask

from _dockeraudit.http1 import MAX_HEAD, MAX_TRAILER

pytestmark = pytest.mark.engine

MARKER = b"GET /containers/marker-%d/json HTTP/1.1\r\nHost: d\r\n%b\r\n"
LAST = MARKER % (9, b"Connection: close\r\n")
POST = b"POST /containers/marker-1/kill HTTP/1.1\r\nHost: d\r\n"
GET = b"GET /containers/marker-1/json HTTP/1.1\r\nHost: d\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

#: fields of framing and bodies that do and do not fit them
BODIES = [
    b"Content-Length: 5\r\n\r\nhello",
    b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"Content-Length: 0\r\n\r\n",
    b"Content-Length: 0\r\n\r\nhello",
    b"content-length: 000\r\n\r\n",
    b"Content-Length:\t5 \r\n\r\nhello",
    b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"Content-Length: %d\r\n\r\n" % len(MARKER % (2, b"")) + MARKER % (2, b""),
    b"\r\n",
    b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
    b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 3\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nabc",
    b"Content-Length: 3\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nabc",
    b"Content-Length: 3\r\nUpgrade: tcp\r\n\r\nabc",
    b"Content-Length: 3\r\nUpgrade:\r\n\r\nabc",
]
#: lines of framing, in spellings that are legal and that are not
FRAMING = [
    b"Content-Length: 5\r\n",
    b"Content-Length: 15\r\n",
    b"Content-Length:5\r\n",
    b"Content-Length: 5 \r\n",
    b"Content-Length: 5\n",
    b"Content-Length : 5\r\n",
    b"Content-Length: 5,5\r\n",
    b"Content_Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\tchunked\r\n",
    b"Transfer-Encoding: chunked\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: Chunked \r\n",
    b"transfer-encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"X: y\r\n Content-Length: 5\r\n",
    b"X: y\rContent-Length: 5\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n",
    b"X: y\n\rContent-Length: 5\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
]


def crafted() -> list[bytes]:
    """Heads of every shape and bodies that do and do not fit them."""
    rng = random.Random(9)
    chunks = [data for data, _ in test_http1.CHUNKED.values()]
    chunks += [data for data in test_http1.BAD_CHUNKS.values() if len(data) < 1000]
    legal = [data for name, data in test_http1.ACCEPTED.items() if name != "a thousand fields"]
    cases = [POST + body for body in BODIES]
    cases += [POST + CHUNKED + data for data in chunks]
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
        cases.append(GET.replace(b"GET", method) + b"Content-Length: 4\r\n\r\nbody")
    cases.append(b"GET /containers/marker-1/json HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    cases += [framed_at_random(rng) for _ in range(200)]
    cases += [legal_request(rng) for _ in range(200)]
    cases += [head_in_lf(case) for case in cases[::3]]
    return [*cases, *test_http1.REFUSED.values(), *legal, *map(head_in_lf, legal)]


def head_in_lf(case: bytes) -> bytes:
    """The same request, its head's lines ending in LF alone."""
    head, empty, body = case.partition(b"\r\n\r\n")
    return (head + empty).replace(b"\r\n", b"\n") + body


def framed_at_random(rng: random.Random) -> bytes:
    """One to three lines of framing in any order and spelling, before one of four bodies."""
    lines = rng.sample(FRAMING, rng.randrange(1, 4))
    body = rng.choice([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"])
    return POST + b"".join(lines) + b"\r\n" + body


def legal_request(rng: random.Random) -> bytes:
    """A legal request with any body, maybe another request within."""
    noise = bytes(rng.randrange(256) for _ in range(rng.randrange(2000)))
    body = rng.choice([b"hello", b"", b"\r\n\r\n", MARKER % (2, b""), noise])
    values = [rng.choice([b"", b"y", b"\xff", b"a: b"]) for _ in range(rng.randrange(3))]
    fields = [b"X-%d: %b\r\n" % numbered for numbered in enumerate(values)]
    fields.append(rng.choice([b"", b"connection: keep-alive\r\n", b"TE: trailers\r\n"]))
    framing = b"Content-Length: %d\r\n" % len(body)
    if rng.random() < 0.5:
        framing, body = b"transfer-ENCODING: chunked\r\n", b"".join(chunks_of(body, rng))
    fields.insert(rng.randrange(len(fields) + 1), framing)
    method = rng.choice([b"POST", b"POST", b"PUT", b"GET", b"DELETE"])
    start = POST if method == b"POST" else GET.replace(b"GET", method)
    return start + b"".join(fields) + b"\r\n" + body


def chunks_of(body: bytes, rng: random.Random) -> Iterator[bytes]:
    """The body in chunks, some with an extension."""
    for at in range(0, len(body), 700):
        piece = body[at : at + 700]
        yield b"%x%b\r\n%b\r\n" % (len(piece), rng.choice([b"", b";a=b"]), piece)
    yield b"0\r\n\r\n"


def seen(data: bytes) -> list[bytes]:
    """The marker that each of the engine's answers names; its status where it names none."""
    answers = re.split(rb"(?=HTTP/1\.[01] [1-5]\d\d )", data)
    found = []
    for answer in answers:
        status, marker = answer[9:12], re.search(rb"marker-\d", answer)
        if status and status != b"100":
            found.append(marker[0] if marker else status)
    return found


def test_the_engine_sees_a_request_end_where_we_do(
    real_engine: Any, start_proxy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = start_proxy(real_engine.socket)
    tried = refused = equal = 0
    for case in crafted():
        data = case + MARKER % (8, b"") + LAST
        direct, through = ask(real_engine.socket, data, 3.0), ask(proxy.socket, data, 3.0)
        straight = seen(direct.head + b"\r\n\r\n" + direct.body)
        relayed = seen(through.head + b"\r\n\r\n" + through.body)
        tried += 1
        if b'"dockeraudit: ' in through.head + through.body:
            refused += 1
            assert relayed[:-1] == straight[: len(relayed) - 1], (case, straight, relayed)
            assert relayed[-1] in (b"400", b"431"), relayed
            continue
        if relayed != straight:  # where the engine closes, the client goes on with a fresh one
            assert b"\r\nConnection: close" in direct.head, (case, straight, relayed)
            assert relayed == [*straight, b"marker-8", b"marker-9"], (case, straight, relayed)
        equal += 1
    assert equal > 350 and refused > 60
    with capsys.disabled():
        print(
            f"\nends of requests, engine {real_engine.version}: tried {tried}, refused {refused}, "
            f"forwarded and seen alike {equal}"
        )


@pytest.mark.parametrize("surplus", [0, 1])
def test_the_limits_of_heads_and_trailers_are_the_engine_s(
    real_engine: Any, start_proxy: Any, surplus: int
) -> None:
    """Exactly so many bytes are taken by both, one more by neither."""
    proxy = start_proxy(real_engine.socket)
    start, end = b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: ", b"\r\n\r\n"
    head = start + b"a" * (MAX_HEAD + surplus - len(start) - len(end)) + end
    trailer = b"X: " + b"a" * (MAX_TRAILER + surplus - 7) + b"\r\n\r\n"
    create = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
    body = create + CHUNKED + b"2\r\n{}\r\n0\r\n" + trailer
    for data in (head, body):
        for path in (real_engine.socket, proxy.socket):
            answer = ask(path, data + LAST, 5.0)
            assert (b"marker-9" in answer.head + answer.body) is (surplus == 0), answer
