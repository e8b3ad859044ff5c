"""Where a request ends: the real engine's view is ours.

Crafted heads and bodies, each followed by marker requests, go to the engine directly and through the proxy. The engine's
answers name what it saw. Through the proxy it sees the same requests, or the proxy refused and it sees a prefix of them.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
import test_http1
from raw import ask

pytestmark = pytest.mark.engine

MARKER = b"GET /containers/marker-%d/json HTTP/1.1\r\nHost: d\r\n%b\r\n"
LAST = MARKER % (9, b"Connection: close\r\n")


def crafted() -> list[bytes]:
    """Heads of every shape and bodies that do and do not fit them."""
    post = b"POST /containers/marker-1/kill HTTP/1.1\r\nHost: d\r\n"
    bodies = [
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: 0\r\n\r\nhello",
        b"content-length: 000\r\n\r\n",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"Content-Length: %d\r\n\r\n" % len(MARKER % (2, b"")) + MARKER % (2, b""),
        b"\r\n",
        b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nabc",
        b"Content-Length: 3\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nabc",
    ]
    cases = [post + body for body in bodies]
    cases += [
        post + b"Transfer-Encoding: chunked\r\n\r\n" + data
        for data, _ in test_http1.CHUNKED.values()
    ]
    cases += [
        post + b"Transfer-Encoding: chunked\r\n\r\n" + data
        for data in test_http1.BAD_CHUNKS.values()
        if len(data) < 1000
    ]
    heads = [
        *test_http1.REFUSED.values(),
        *(data for name, data in test_http1.ACCEPTED.items() if name != "a thousand fields"),
    ]
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
        cases.append(
            method
            + b" /containers/marker-1/json HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nbody"
        )
    cases.append(b"GET /containers/marker-1/json HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    rng = random.Random(9)
    for _ in range(
        150
    ):  # two or three lines of framing in any order and spelling, before one of four bodies
        lines = rng.sample(FRAMING, rng.randrange(1, 4))
        cases.append(
            b"POST /containers/marker-1/kill HTTP/1.1\r\nHost: d\r\n"
            + b"".join(lines)
            + b"\r\n"
            + rng.choice([b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"])
        )
    for _ in range(200):  # legal ones, with any body, a request among them
        body = rng.choice(
            [
                b"hello",
                b"",
                b"\r\n\r\n",
                MARKER % (2, b""),
                bytes(rng.randrange(256) for _ in range(rng.randrange(2000))),
            ]
        )
        fields = [
            b"X-%d: %b\r\n" % (number, rng.choice([b"", b"y", b"\xff", b"a: b"]))
            for number in range(rng.randrange(3))
        ] + [rng.choice([b"", b"connection: keep-alive\r\n", b"TE: trailers\r\n"])]
        if rng.random() < 0.5:
            pieces = [body[i : i + 700] for i in range(0, len(body), 700)]
            framing, body = (
                b"transfer-ENCODING: chunked\r\n",
                b"".join(
                    b"%x%b\r\n%b\r\n" % (len(piece), rng.choice([b"", b";a=b"]), piece)
                    for piece in pieces
                )
                + b"0\r\n\r\n",
            )
        else:
            framing = b"Content-Length: %d\r\n" % len(body)
        fields.insert(rng.randrange(len(fields) + 1), framing)
        method = rng.choice([b"POST", b"POST", b"PUT", b"GET", b"DELETE"])
        target = b"/containers/marker-1/kill" if method == b"POST" else b"/containers/marker-1/json"
        cases.append(
            method + b" " + target + b" HTTP/1.1\r\nHost: d\r\n" + b"".join(fields) + b"\r\n" + body
        )
    return cases + heads


FRAMING = [
    b"Content-Length: 5\r\n", b"Content-Length: 15\r\n", b"Content-Length:5\r\n", b"Content-Length: 5 \r\n", b"Content-Length : 5\r\n", b"Content-Length: 5,5\r\n", b"Content_Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"transfer-encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"X: y\r\n Content-Length: 5\r\n", b"X: y\rContent-Length: 5\r\n", b"X: y\nTransfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
]  # fmt: skip


def seen(data: bytes) -> list[bytes]:
    """What the engine saw, by its answers: the marker each names, or the status of one that names none."""
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
        straight, relayed = (
            seen(direct.head + b"\r\n\r\n" + direct.body),
            seen(through.head + b"\r\n\r\n" + through.body),
        )
        tried += 1
        if b'"dockeraudit: ' in through.head + through.body:
            refused += 1
            assert relayed[:-1] == straight[: len(relayed) - 1], (case, straight, relayed)
            assert relayed[-1] in (b"400", b"431"), relayed
            continue
        if (
            relayed != straight
        ):  # an engine that closed behind an answer: the client's connection goes on with a fresh one
            assert b"\r\nConnection: close" in direct.head and relayed == straight + [
                b"marker-8",
                b"marker-9",
            ], (case, straight, relayed)
        equal += 1
    assert equal > 200 and refused > 60
    with capsys.disabled():
        print(
            f"\nends of requests, engine {real_engine.version}: tried {tried}, refused {refused}, forwarded and seen alike {equal}"
        )
