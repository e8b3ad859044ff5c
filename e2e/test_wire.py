"""The relay byte for byte, between plain sockets and a recording engine, whoever lies.

One proxy serves most tests; after each of them no thread and no descriptor of a connection is left.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import json
import os
import random
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from scripted import chunk, stdcopy_frame
from wire import RawEngine, Wire, cuts, free_port, read_all, read_exactly, read_until, send_parts

import dockeraudit
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import ask_engine
from _dockeraudit.errors import EngineError
from _dockeraudit.http1 import MAX_HEAD
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import load_settings
from _dockeraudit.proxy import Proxy
from _dockeraudit.sockets import GONE, receive, send_some
from _dockeraudit.startup import load_scanner, open_log
from conftest import wait_for

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"GET /info HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
LOGS = b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
    b"Transfer-Encoding: chunked\r\n"
)
UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
ATTACH = b"POST /containers/web/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n%b\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.fixture(scope="module", params=[False, True], ids=["fresh", "kept"])
def shared(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """With fresh connections, and with kept ones that have served a request before."""
    with Wire(kept=request.param) as wire:
        yield wire


@pytest.fixture
def wire(shared: Wire) -> Iterator[Wire]:
    """The shared proxy; after each test everything of it must be gone."""
    yield shared
    shared.settled()
    assert not shared.engine.failures, shared.engine.failures


def answer(data: bytes) -> Any:
    """An engine that answers each request's head with these bytes, and goes on."""

    def serve(sock: socket.socket, request: bytes) -> None:
        while request:
            sock.sendall(data)
            request = read_until(sock, b"\r\n\r\n")

    return serve


def message_of(data: bytes, status: int) -> str:
    """Our own error answer's message."""
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), data[:200]
    assert b"Content-Type: application/json" in head and b"Connection: close" in head
    text: str = json.loads(body)["message"]
    assert text.startswith("dockeraudit: ")
    return text


# ================================================================================================
# nothing changed
# ================================================================================================

#: what the client sends, and what must arrive: the same, but for the fields of one hop
REQUESTS: list[tuple[bytes, bytes]] = [
    (data, data)
    for data in (
        b"GET /v1.43/containers/json?filters=%7B%22a%22%3A1%7D&all=1#x HTTP/1.1\r\nHost: d\r\n"
        b"User-Agent: x\r\n\r\n",
        b"GET /%63ontainers/%2e%2E/x%2Fy/top?a=%zz&&=;+ HTTP/1.1\r\nhOST: d\r\nX-A: 1\r\nx-a: 2\r\n"
        b"X-A: 1\r\nEmpty:\r\n\r\n",
        b"GET /containers/\xc3\xa4\xff/json?n=\xf0\x9f\x90\x8b HTTP/1.1\r\nHost: d\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n",
        b"POST http://anyhost/images/create HTTP/1.1\r\nHost: d\r\nX-Registry-Auth: e30=\r\n"
        b"Content-Length: 5\r\n\r\nhello",
        b"PUT /x HTTP/1.1\r\nContent-Length: 0\r\nHost: d\r\n\r\n",
        b"DELETE /x HTTP/1.1\r\nHost: d\r\ncontent-LENGTH: 3\r\n\r\n\r\n\r",
        b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n"
        b'Trailer: X-Sum\r\n\r\n3;a="b"\r\nabc\r\n0A\r\n0123456789\r\n000\r\nX-Sum: 1\r\n'
        b"x-sum: \xff\r\n\r\n",
        b"POST /build HTTP/1.1\r\nHost: d\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        b"GET /body HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\nGET ",
        b"BREW /pot HTTP/1.1\r\nHost: d\r\nX: \xe4\t y\r\nExpect: nothing\r\n\r\n",
    )
] + [
    (
        b"GET /a HTTP/1.1\r\nHost:d\r\nConnection: keep-alive\r\nKeep-Alive: 3\r\nX:\t y \r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost:d\r\nX:\t y \r\n\r\n",
    ),
    (
        b"GET /a HTTP/1.1\r\nHost: d\r\nConnection: x-hop\r\nX-Hop: 3\r\n"
        b"Proxy-Connection: z\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n",
    ),
    (
        b"POST /a HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nX: y\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: d\r\nX: y\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    ),
    (
        b"GET /a HTTP/1.1\nHost: d\nX: y\n\n",
        b"GET /a HTTP/1.1\r\nHost: d\r\nX: y\r\n\r\n",
    ),
    (
        b"POST /a HTTP/1.1\r\nHost: d\nContent-Length: 5\r\n\na\nb\r\n",
        b"POST /a HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\na\nb\r\n",
    ),
    (
        b"\r\n\nPUT /x HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        b"DELETE /x HTTP/1.1\r\nHost: d\r\ncontent-LENGTH: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"DELETE /x HTTP/1.1\r\nHost: d\r\ncontent-LENGTH: 3\r\n\r\nabc",
    ),
    (
        b"GET /a HTTP/1.0\r\nX: y\r\nConnection: keep-alive\r\n\r\n",
        b"GET /a HTTP/1.0\r\nX: y\r\nConnection: keep-alive\r\n\r\n",
    ),
    (
        b"GET /a HTTP/1.1\r\nHost: d\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAM\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: d\r\n\r\n",
    ),
]


def record(expected: list[bytes], seen: list[bytes]) -> Any:
    """An engine that reads exactly what is expected of each request, and answers."""

    def serve(sock: socket.socket, data: bytes) -> None:
        for wanted in expected:
            seen.append(read_exactly(sock, len(wanted), data)[: len(wanted)])
            data = data[len(wanted) :]
            sock.sendall(OK)

    return serve


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_the_engine_receives_what_was_sent_at_any_cut(wire: Wire, number: int) -> None:
    sent, expected = REQUESTS[number]
    for parts in cuts(sent, number):
        seen: list[bytes] = []
        wire.engine.serve = record([expected], seen)
        with wire.connect() as sock:
            send_parts(sock, parts)
            assert read_until(sock, b"ok").startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
        assert seen == [expected], parts


@pytest.mark.parametrize("tcp", [False, True])
def test_pipelined_requests_arrive_one_after_another_and_unchanged(wire: Wire, tcp: bool) -> None:
    requests = [pair for pair in REQUESTS if not pair[0].startswith(b"GET /a HTTP/1.0")]
    data, expected = b"".join(sent for sent, _ in requests), [wanted for _, wanted in requests]
    for parts in cuts(data, 5):
        seen: list[bytes] = []
        wire.engine.serve = record(expected, seen)
        with wire.connect(tcp) as sock:
            sender = threading.Thread(target=send_parts, args=(sock, parts))
            sender.start()
            received = read_exactly(sock, len(OK) * len(requests))
            sender.join()
        assert received == OK * len(requests)
        assert seen == expected


#: what the engine answers, and what must arrive at the client of a keep-alive connection
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nServer: x\r\nX: 1\r\nx: 2\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 404 \r\nApi-Version: 1.43\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 299 \xff odd\r\ntransfer-ENCODING: Chunked\r\nTrailer: X-Sum\r\n\r\n"
    b'3;a="b"\r\nabc\r\n0A\r\n0123456789\r\n000\r\nX-Sum: 1\r\n\r\n',
    b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
]


@pytest.mark.parametrize("data", ANSWERS)
def test_the_client_receives_what_was_answered_at_any_cut(wire: Wire, data: bytes) -> None:
    for parts in cuts(data, 3):
        wire.engine.serve = lambda sock, _, parts=parts: (
            send_parts(sock, parts),
            answer(OK)(sock, read_until(sock, b"\r\n\r\n")),
        )
        with wire.connect() as sock:
            sock.sendall(PING)
            assert read_exactly(sock, len(data)) == data
            sock.sendall(PING)  # and the connection is where it should be
            assert read_exactly(sock, len(OK)) == OK


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_audited_stream_keeps_its_chunks_and_is_closed_behind_the_last(
    wire: Wire, version: bytes
) -> None:
    """What an engine sends behind the last chunk reaches nobody."""
    frames = [stdcopy_frame(1, b"one\n"), stdcopy_frame(2, b""), stdcopy_frame(1, b"two\n")]
    body = b"".join(map(chunk, frames)) + b"0003;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    for parts in cuts(body + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 4):
        wire.engine.serve = lambda sock, _, parts=parts: send_parts(
            sock, [CHUNKED + b"\r\n", *parts]
        )
        data = wire.talk(LOGS.replace(b"HTTP/1.1", b"HTTP/" + version))
        assert data == CHUNKED + b"Connection: close\r\n\r\n" + body


def test_a_log_that_ends_with_its_connection_is_audited_for_http_1_0(wire: Wire) -> None:
    body = stdcopy_frame(1, b"mail " + b"someone@example.org\n")
    head = b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
    wire.engine.serve = lambda sock, _: sock.sendall(head + b"\r\n" + body)
    before = len(wire.proxy.records("finding"))
    assert (
        wire.talk(LOGS.replace(b"HTTP/1.1", b"HTTP/1.0"))
        == head + b"Connection: close\r\n\r\n" + body
    )
    wait_for(lambda: len(wire.proxy.records("finding")) > before, "the finding")


def test_an_upgrade_that_a_log_ignores_is_audited_and_the_length_of_a_101_means_nothing(
    wire: Wire,
) -> None:
    frames = chunk(stdcopy_frame(1, b"mail " + b"someone@example.org\n")) + b"0\r\n\r\n"
    wire.engine.serve = lambda sock, _: sock.sendall(CHUNKED + b"\r\n" + frames)
    before = len(wire.proxy.records("finding"))
    assert wire.talk(LOGS.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"\r\n")).endswith(frames)
    wait_for(lambda: len(wire.proxy.records("finding")) > before, "the finding")

    odd = UPGRADED.replace(b"Connection", b"Content-Length: 3\r\nConnection")
    wire.engine.serve = lambda sock, _: (
        sock.sendall(odd + b"early"),
        sock.sendall(read_exactly(sock, 5)),
    )
    with wire.connect() as sock:
        sock.sendall(ATTACH % UPGRADE + b"typed")
        assert read_exactly(sock, len(odd) + 10) == odd + b"earlytyped"


def test_an_error_reply_to_a_log_keeps_the_client_s_connection(wire: Wire) -> None:
    reply = b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno"
    asked: list[bytes] = []
    wire.engine.serve = lambda sock, data: (
        asked.append(data),
        sock.sendall(reply.replace(b"\r\nC", b"\r\nConnection: close\r\nC")),
    )
    with wire.connect() as sock:
        for _ in range(3):
            sock.sendall(LOGS)
            assert read_exactly(sock, len(reply)) == reply
    assert [data.count(b"\r\nConnection: close\r\n") for data in asked] == [1, 1, 1]


def test_a_detached_exec_is_no_stream_and_keeps_its_connection(wire: Wire) -> None:
    wire.engine.serve = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with wire.connect() as sock:
        for _ in range(2):
            sock.sendall(
                b"POST /exec/web/start HTTP/1.1\r\nHost: d\r\nContent-Length: 15\r\n\r\n"
                + b'{"Detach":true}'
            )
            assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    wait_for(
        lambda: (
            sum(record["path"] == "/exec/web/start" for record in wire.proxy.records("request"))
            == 2
        ),
        "the requests' records",
    )
    assert not [
        record for record in wire.proxy.records("stream_open") if record["endpoint"] == "exec"
    ]


# ================================================================================================
# the order of things: interim responses, early answers, kept connections, half-close
# ================================================================================================


def test_expect_is_the_engine_s_to_decide(wire: Wire) -> None:
    head = b"POST /build HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"

    def admit(sock: socket.socket, data: bytes) -> None:
        assert data == head
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert read_exactly(sock, 4) == b"body"
        sock.sendall(OK)

    wire.engine.serve = admit
    with wire.connect() as sock:
        sock.sendall(head)
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"body")
        assert read_until(sock, b"ok") == OK

    wire.engine.serve = lambda sock, data: sock.sendall(
        b"HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"
    )
    with wire.connect() as sock:
        sock.sendall(head)
        assert read_all(sock) == b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno"


@pytest.mark.parametrize("tcp", [False, True])
def test_an_early_answer_is_heard_while_the_body_still_flows(wire: Wire, tcp: bool) -> None:
    wire.engine.serve = lambda sock, data: sock.sendall(
        b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig"
    )
    with wire.connect(tcp) as sock:
        sock.sendall(b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 200000000\r\n\r\n")
        heard = threading.Event()

        def pour() -> None:
            try:
                while not heard.is_set():
                    sock.sendall(b"x" * 65536)
            except OSError:
                pass  # refused: nobody reads any more

        sender = threading.Thread(target=pour)
        sender.start()
        try:
            assert read_until(sock, b"big").startswith(b"HTTP/1.1 413 ")
        finally:
            heard.set()
            sender.join()
        assert sock.recv(1) == b"", "an end, not a reset, which takes unread answers with it"


def test_an_early_answer_comes_through_while_the_engine_goes_on_reading(wire: Wire) -> None:
    """As `docker build` and `load` report progress: both bodies flow at the same time."""

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            assert read_exactly(sock, 5) == b"step%d" % number
            sock.sendall(chunk(b"did %d" % number))
        sock.sendall(b"0\r\n\r\n")

    wire.engine.serve = serve
    with wire.connect() as sock:
        sock.sendall(b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 15\r\n\r\n")
        read_until(sock, b"\r\n\r\n")
        data = b""
        for number in range(3):
            sock.sendall(b"step%d" % number)
            data += read_until(sock, b"did %d\r\n" % number)
        if not data.endswith(b"\r\n0\r\n\r\n"):
            data += read_until(sock, b"0\r\n\r\n")
        assert data == chunk(b"did 0") + chunk(b"did 1") + chunk(b"did 2") + b"0\r\n\r\n"


def test_answers_without_a_body_leave_the_connection_in_order(wire: Wire) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    answers = [
        head,
        b"HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK,
    ]

    def serve(sock: socket.socket, data: bytes) -> None:
        for item in answers:
            assert data
            sock.sendall(item)
            data = read_until(sock, b"\r\n\r\n")

    wire.engine.serve = serve
    with wire.connect() as sock:
        for item, method in zip(answers, (b"HEAD", b"GET", b"GET", b"GET")):
            sock.sendall(PING.replace(b"GET", method))
            assert read_exactly(sock, len(item)) == item


def test_a_kept_connection_that_the_engine_closed_is_opened_again_for_any_method(
    wire: Wire,
) -> None:
    closed = threading.Event()

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(OK)
        sock.close()
        closed.set()

    wire.engine.serve = serve
    with wire.connect() as sock:
        for method in (b"GET", b"POST", b"PUT", b"GET"):
            sock.sendall(PING.replace(b"GET", method))
            assert read_exactly(sock, len(OK)) == OK
            assert closed.wait(20)
            closed.clear()


def test_kept_connections_are_served_whoever_leaves_and_however_slow_the_engine_is_with_another(
    wire: Wire,
) -> None:
    asked, release = threading.Event(), threading.Event()

    def serve(sock: socket.socket, data: bytes) -> None:
        while data:
            if b"/slow" in data:
                asked.set()
                assert release.wait(20)
            sock.sendall(OK)
            data = read_until(sock, b"\r\n\r\n")

    def ask(sock: socket.socket, request: bytes = PING) -> None:
        sock.sendall(request)
        assert read_exactly(sock, len(OK)) == OK

    wire.engine.serve = serve
    socks = [wire.connect() for _ in range(7)]
    for sock in socks:
        ask(sock)
    slow = socks.pop(2)
    slow.sendall(PING.replace(b"_ping", b"slow"))
    assert asked.wait(20)
    while socks:
        for sock in socks:
            ask(sock)
        ask(socks[-1], PING.replace(b"GET", b"POST"))  # for its own thread
        socks.pop(0).close()
    release.set()
    assert read_exactly(slow, len(OK)) == OK
    ask(slow)
    slow.close()


def moody(sock: socket.socket, data: bytes) -> None:
    """An engine that answers each target with itself, in the way that its first segment says."""
    while data:
        method, target, _ = data.split(b" ", 2)
        mood = target.split(b"/")[1]
        body = b"" if method == b"HEAD" else target * (40_000 if mood == b"large" else 1)
        length = b"Content-Length: %d\r\n" % (len(target) if method == b"HEAD" else len(body))
        if mood == b"late":
            threading.Event().wait(0.003)
        if mood == b"interim":
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if mood == b"chunked" and body:
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            send_parts(sock, (chunk(body[:3]), chunk(body[3:]), b"0\r\n\r\n"))
        else:
            sock.sendall(
                b"HTTP/1.1 200 OK\r\n%b%b\r\n"
                % (b"Connection: close\r\n" if mood == b"last" else b"", length)
                + body
            )
        if mood in (b"last", b"gone"):
            return
        data = read_until(sock, b"\r\n\r\n")


def visit(wire: Wire, number: int) -> int:
    """A client that asks, pipelined or not, leaves at any time, and comes back; counts answers."""
    dice, answers = random.Random(number), 0
    for session in range(12):
        with wire.connect(tcp=dice.random() < 0.5) as sock:
            mood = ""
            for step in range(dice.randrange(1, 20)):
                method = dice.choice(("GET", "GET", "HEAD", "POST")) if mood != "gone" else "GET"
                mood = dice.choice(
                    (
                        "short",
                        "short",
                        "short",
                        "late",
                        "interim",
                        "chunked",
                        "large",
                        "gone",
                        "last",
                    )
                )
                asked = [
                    f"/{mood}/{number}/{session}/{step}/{item}"
                    for item in range(
                        dice.choice((1, 1, 1, 2)) if method == "GET" and mood != "last" else 1
                    )
                ]
                sock.sendall(
                    "".join(
                        f"{method} {target} HTTP/1.1\r\nHost: d\r\n\r\n" for target in asked
                    ).encode()
                )
                if dice.random() < 0.04:
                    break
                for target in asked:
                    response = http.client.HTTPResponse(sock, method=method)
                    response.fp = io.BufferedReader(
                        Unread(sock), 1
                    )  # it must not read what is the next answer's
                    response.begin()
                    assert response.read() == target.encode() * (
                        0 if method == "HEAD" else 40_000 if mood == "large" else 1
                    ), target
                    answers += 1
                if mood == "last":
                    break
    return answers


class Unread(io.RawIOBase):
    """A socket for http.client, read no further than an answer goes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.sock.recv_into(buffer)


def test_a_crowd_of_kept_connections_gets_each_its_own_answers() -> None:
    with Wire(forked=True) as wire:
        wire.engine.serve = moody
        with ThreadPoolExecutor(12) as crowd:
            visits = [crowd.submit(visit, wire, number) for number in range(24)]
            assert sum(visited.result() for visited in visits) > 1000
        wire.settled()


def test_a_kept_connection_is_answered_before_the_proxy_ends() -> None:
    with Wire(kept=True, forked=True) as wire:
        asked, release = threading.Event(), threading.Event()
        wire.engine.serve = lambda sock, _: (asked.set(), release.wait(20), sock.sendall(OK))
        with wire.connect() as idle, wire.connect() as sock:
            sock.sendall(PING)
            assert asked.wait(20)
            wire.proxy.process.send_signal(signal.SIGTERM)
            assert read_all(idle) == b""
            release.set()
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
            assert b"Connection: close" in head and body == b"ok"
        assert wire.proxy.process.wait(20) == 0


@pytest.mark.parametrize(
    "request_bytes, repeated",
    [
        (PING, True),
        (PING.replace(b"GET", b"HEAD"), True),
        (PING.replace(b"GET", b"POST"), False),
        (PING.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nbody"), False),
    ],
)
def test_a_request_is_sent_again_only_if_that_changes_nothing(
    wire: Wire, request_bytes: bytes, repeated: bool
) -> None:
    """The engine takes the second request of a kept connection and closes without an answer."""
    seen: list[bytes] = []

    def serve(sock: socket.socket, data: bytes) -> None:
        seen.append(data)
        sock.sendall(OK if b"HEAD" not in data else OK[:-2])
        if len(seen) == 1:
            seen.append(read_until(sock, b"\r\n\r\n"))

    wire.engine.serve = serve
    with wire.connect() as sock:
        sock.sendall(PING)
        assert read_exactly(sock, len(OK)) == OK
        sock.sendall(request_bytes)
        if repeated:
            assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
        else:
            assert "without an answer" in message_of(read_all(sock), 502)
    assert len(seen) == (3 if repeated else 2)


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("head", [ATTACH % UPGRADE, ATTACH % b""])
def test_either_side_may_end_first_and_still_hear_the_other(
    wire: Wire, tcp: bool, head: bytes
) -> None:
    reply = (
        UPGRADED
        if b"Upgrade" in head
        else b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    )
    heard: list[bytes] = []

    def client_first(sock: socket.socket, data: bytes) -> None:
        sock.sendall(reply)
        sock.sendall(read_all(sock))

    def engine_first(sock: socket.socket, data: bytes) -> None:
        sock.sendall(reply + b"bye")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))

    wire.engine.serve = client_first
    with wire.connect(tcp) as sock:
        sock.sendall(head + b"typed")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == reply + b"typed"

    wire.engine.serve = engine_first
    with wire.connect(tcp) as sock:
        sock.sendall(head)
        assert read_all(sock) == reply + b"bye"
        sock.sendall(b"and you")
        sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: heard == [b"and you"], "the client's last words")


def test_what_a_client_sent_before_it_left_still_arrives(wire: Wire) -> None:
    """As from a script that writes a container's input and closes: the engine reads it later."""
    typed = bytes(range(256)) * 1500
    left, heard = threading.Event(), []

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(UPGRADED)
        assert left.wait(20)
        heard.append(read_all(sock))

    wire.engine.serve = serve
    with wire.connect() as sock:
        sock.sendall(ATTACH % UPGRADE)
        read_until(sock, b"\r\n\r\n")
        sock.sendall(typed)
    steady([0])  # long enough for the relay to see that the client has left
    left.set()
    wait_for(lambda: heard, "the engine to have read it")
    assert heard == [typed]


class BrokenSocket:
    """A socket whose peer is in trouble."""

    def __init__(self, number: int) -> None:
        self.error = OSError(number, os.strerror(number))

    def recv(self, size: int) -> bytes:
        raise self.error

    send = recv


@pytest.mark.parametrize(
    "number",
    [
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    ],
)
def test_a_broken_connection_is_no_ended_one_and_takes_nothing_more(number: int) -> None:
    broken: Any = BrokenSocket(number)
    with pytest.raises(OSError):
        receive(broken)
    with pytest.raises(GONE):
        send_some(broken, b"x")


@pytest.mark.parametrize("kept", [False, True], ids=["fresh", "kept"])
def test_a_slow_reader_holds_the_engine_up_and_not_the_memory(kept: bool) -> None:
    block, sent = chunk(stdcopy_frame(1, (b"word " * 13 + b"\n") * 900)), [0]
    count = 24 * (1 << 20) // len(block)

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(CHUNKED + b"\r\n")
        for number in range(count):
            sock.sendall(block)
            sent[0] = number + 1
        sock.sendall(b"0\r\n\r\n")

    # without workers, which have 16 MiB each
    with Wire("--workers", "0", kept=kept) as wire, wire.connect() as sock:
        wire.engine.serve = serve
        before = wire.resident()
        sock.sendall(LOGS)
        read_until(sock, b"\r\n\r\n")
        stalled = wait_for(
            lambda: sent[0] if sent[0] and steady(sent) else 0, "the engine to be held up"
        )
        assert stalled * len(block) < 4 << 20
        total = 0
        while True:
            data = sock.recv(1 << 20)
            if not data:
                break
            total += len(data)
        assert wire.resident() - before < 32 << 20
    assert sent[0] == count and total >= count * len(block) - 65536


def steady(value: list[int]) -> bool:
    """Whether a count has not changed for a quarter of a second."""
    last, since = value[0], time.monotonic()
    while time.monotonic() - since < 0.25:
        time.sleep(0.02)
        if value[0] != last:
            return False
    return True


# ================================================================================================
# hostile and dying engines
# ================================================================================================

BODIES = [
    (PING, b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", b"twenty bytes of text"),
    (
        PING,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4\r\nfour\r\n00a;x\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    ),
    (LOGS, CHUNKED + b"\r\n", chunk(stdcopy_frame(1, b"a line\n")) + b"0\r\n\r\n"),
]


@pytest.mark.parametrize("request_bytes, head, body", BODIES)
def test_an_answer_cut_at_any_byte_arrives_cut_there(
    wire: Wire, request_bytes: bytes, head: bytes, body: bytes
) -> None:
    for size in range(len(head + body)):
        cut = (head + body)[:size]
        wire.engine.serve = lambda sock, _, cut=cut: sock.sendall(cut)
        data = wire.talk(request_bytes)
        if size < len(head):
            assert "without an answer" in message_of(data, 502), cut
            continue
        received = data.partition(b"\r\n\r\n")
        assert received[2] == body[: size - len(head)], cut
        assert not completed(data, request_bytes), data


class FakeSocket:
    """What http.client reads an answer from."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self.data)


def completed(data: bytes, request_bytes: bytes) -> bool:
    """Whether a client takes these bytes for a whole answer."""
    response = http.client.HTTPResponse(FakeSocket(data), method="GET")  # type: ignore[arg-type]
    response.begin()
    try:
        response.read()
    except http.client.HTTPException:
        return False
    return (
        b"X: y\r\n\r\n" in data or response.chunked is not True or data.endswith(b"\r\n0\r\n\r\n")
    )


@pytest.mark.parametrize("cut", [None, 1 << 20, (3 << 20) - 1])
def test_a_large_body_arrives_whole_or_cut_where_it_was_cut(wire: Wire, cut: Any) -> None:
    """Large enough for the way through the kernel; what is behind its length reaches nobody."""
    body = bytes(range(256)) * (12 << 10)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    behind = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    wire.engine.serve = lambda sock, _: sock.sendall(
        (head + body + behind) if cut is None else (head + body[:cut])
    )
    with wire.connect() as sock:
        sock.sendall(PING)
        if cut is not None:
            assert read_all(sock) == head + body[:cut]
            return
        assert read_exactly(sock, len(head + body)) == head + body
        wire.engine.serve = answer(OK)
        sock.sendall(PING)
        assert read_exactly(sock, len(OK)) == OK


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_reader_that_stalls_in_a_large_body_holds_the_engine_up_until_it_reads_or_leaves(
    wire: Wire, tcp: bool, leaves: bool
) -> None:
    body = bytes(range(256)) * (64 << 10)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    sent, ended = [0], threading.Event()

    def serve(sock: socket.socket, data: bytes) -> None:
        try:
            sock.sendall(head)
            while sent[0] < len(body):
                sent[0] += sock.send(body[sent[0] :][: 64 << 10])
            read_all(sock)
        finally:
            ended.set()

    wire.engine.serve = serve
    with wire.connect(tcp) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        sock.sendall(PING)
        assert read_exactly(sock, len(head)) == head
        wait_for(lambda: sent[0] and steady(sent), "the engine to be held up")
        assert sent[0] < len(body) and not ended.is_set()
        if not leaves:
            assert read_exactly(sock, len(body)) == body
    assert ended.wait(20)


def test_a_stalled_reader_of_a_large_body_does_not_keep_the_proxy_from_ending() -> None:
    with Wire("--shutdown-timeout", "0.1", forked=True) as wire:
        wire.engine.serve = lambda sock, _: sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20) + bytes(8 << 20)
        )
        with wire.connect() as sock:
            sock.sendall(PING)
            read_until(sock, b"\r\n\r\n")
            wire.proxy.process.send_signal(signal.SIGTERM)
            assert wire.proxy.process.wait(20) == 0


def test_a_large_answer_before_the_end_of_the_request_cuts_nothing_off(wire: Wire) -> None:
    body = b"x" * (2 << 20)
    heard: list[bytes] = []

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"surplus"
        )
        heard.append(read_exactly(sock, 4))

    wire.engine.serve = serve
    with wire.connect() as sock:
        sock.sendall(b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 4\r\n\r\n")
        head = read_until(sock, b"\r\n\r\n")
        rest = len(body) - len(head.partition(b"\r\n\r\n")[2])
        assert len(read_exactly(sock, rest)) == rest
        sock.sendall(b"last")
        wait_for(lambda: heard, "the rest of the request")
    assert heard == [b"last"]


MALFORMED = [
    b"garbage\r\n\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rSmuggled: b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x16",
    b"",
]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_an_answer_that_is_not_http_is_502_in_docker_s_json(wire: Wire, data: bytes) -> None:
    wire.engine.serve = lambda sock, _: sock.sendall(data)
    assert "engine" in message_of(wire.talk(PING), 502)


def test_an_answer_longer_than_its_length_is_cut_there(wire: Wire) -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    wire.engine.serve = lambda sock, _: sock.sendall(OK + smuggled)
    with wire.connect() as sock:
        for _ in range(3):
            sock.sendall(PING)
            assert read_exactly(sock, len(OK)) == OK
        sock.sendall(LAST)
        assert b"evil" not in read_all(sock)


@pytest.mark.parametrize(
    "sound, rest",
    [
        (b"", b"zz\r\nabc\r\n0\r\n\r\n"),
        (b"3\r\nabc", b"de\r\n0\r\n\r\n"),
        (b"3", b" \r\nabc\r\n0\r\n\r\n"),
        (b"3\r\nabc\r\n0\r\nHost", b": evil\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("request_bytes", [PING, LOGS])
def test_an_illegal_chunk_ends_both_sides_behind_the_bytes_that_are_sound(
    wire: Wire, request_bytes: bytes, sound: bytes, rest: bytes
) -> None:
    """Though the engine's connection stays open; the bytes before it are delivered."""
    good = chunk(stdcopy_frame(1, b"good\n"))
    for parts in cuts(sound + rest, 6):
        ended = threading.Event()

        def serve(sock: socket.socket, _: bytes, parts=parts, ended=ended) -> None:  # type: ignore
            with contextlib.suppress(OSError):  # the proxy may close before all is sent
                send_parts(sock, [CHUNKED + b"\r\n" + good, *parts])
            read_all(sock)
            ended.set()

        wire.engine.serve = serve
        assert wire.talk(request_bytes).partition(b"\r\n\r\n")[2] == good + sound
        assert ended.wait(20)


def test_interim_responses_without_end_cost_no_memory_and_end_with_the_client(wire: Wire) -> None:
    ended = threading.Event()

    def serve(sock: socket.socket, data: bytes) -> None:
        try:
            while True:
                sock.sendall(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" * 100)
        finally:
            ended.set()

    wire.engine.serve = serve
    before = wire.resident()
    with wire.connect() as sock:
        sock.sendall(PING)
        assert read_exactly(sock, 1 << 19).startswith(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n")
        assert wire.resident() - before < 32 << 20
    assert ended.wait(20)


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nConte", CHUNKED + b"\r\n", CHUNKED + b"\r\n" + chunk(b"x")]
)
@pytest.mark.parametrize("tcp", [False, True])
def test_a_silent_engine_is_left_when_the_client_leaves(wire: Wire, said: bytes, tcp: bool) -> None:
    ended, asked = threading.Event(), threading.Event()

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(said)
        asked.set()
        read_all(sock)
        ended.set()

    wire.engine.serve = serve
    with wire.connect(tcp) as sock:
        sock.sendall(LOGS)
        assert asked.wait(20)
    assert ended.wait(20)


class Babbler(RawEngine):
    """Answers logs, and everything else with interim responses for ever."""

    def _serve(self, sock: socket.socket) -> None:
        try:
            if b"/logs" in read_until(sock, b"\r\n\r\n"):
                sock.sendall(
                    CHUNKED
                    + b"\r\n"
                    + chunk(stdcopy_frame(1, b"someone" + b"@example.org\n"))
                    + b"0\r\n\r\n"
                )
                return
            while True:
                sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
                time.sleep(0.01)
        except OSError:
            pass  # it was given up
        finally:
            sock.close()


def test_a_question_for_a_name_has_one_limit_whatever_the_engine_says(folder: Any) -> None:
    with Babbler(str(folder / "engine.sock")) as engine:
        with pytest.raises(EngineError):
            ask_engine(engine.path, "/containers/web/json", 0.2)
        engine_threads = list(engine._threads)[1:]
        wait_for(
            lambda: not any(thread.is_alive() for thread in engine_threads),
            "the question to be given up",
        )


def test_bad_chunks_of_a_request_never_look_whole_to_the_engine(wire: Wire) -> None:
    seen: list[bytes] = []
    begun = threading.Event()
    wire.engine.serve = lambda sock, data: (begun.set(), seen.append(data + read_all(sock)))
    with wire.connect() as sock:
        sock.sendall(
            b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        assert begun.wait(20)
        sock.sendall(b"0x0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n")
        assert "chunk" in message_of(read_all(sock), 400)
    wait_for(lambda: len(seen) == 1, "the engine's connection to end")
    assert b"0\r\n\r\n" not in seen[0] and b"evil" not in seen[0]


@pytest.mark.parametrize(
    "data, method, path",
    [
        (
            b"DELETE http://u:pw@h/illegal%2ffield?c=d HTTP/1.1\r\nX : y\r\n\r\n",
            "DELETE",
            "/illegal/field",
        ),
        (b"BREW-secret /x HTTP/1.1\r\nHost: d\r\nX : y\r\n\r\n", None, None),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", None, None),
        (b"GET /too-large HTTP/1.1\r\nX: " + b"a" * MAX_HEAD, "GET", "/too-large"),
        (
            b"PUT /illegal-chunk HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "PUT",
            "/illegal-chunk",
        ),
    ],
)
def test_a_request_that_is_no_http_is_recorded_as_denied(
    wire: Wire, data: bytes, method: str | None, path: str | None
) -> None:
    """With what it seems to ask: a known method, a path without query and authority."""
    with wire.connect() as sock:
        with contextlib.suppress(OSError):  # the proxy may refuse before all is sent
            sock.sendall(data)
        assert read_all(sock)[:10] in (b"HTTP/1.1 4",)
    wanted = (method, path, "http")
    wait_for(
        lambda: [
            record
            for record in wire.proxy.records("denied")
            if (record["method"], record["path"], record["rule"]) == wanted
        ],
        f"the record of {wanted}",
    )


# ================================================================================================
# HTTP/2
# ================================================================================================

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_an_http2_preface_is_refused_so_that_clients_fall_back(wire: Wire) -> None:
    before = len(wire.proxy.records("denied"))
    for parts in ([PREFACE], [PREFACE[:10], PREFACE[10:]]):
        with wire.connect() as sock:
            send_parts(sock, parts)
            assert "HTTP/2 is not spoken here" in message_of(read_all(sock), 400)
    wait_for(lambda: len(wire.proxy.records("denied")) > before, "the denied record")
    denied = wire.proxy.records("denied")[-1]
    assert (denied["method"], denied["path"], denied["rule"]) == ("PRI", "*", "http2")


def serve_http2(sock: socket.socket, data: bytes) -> None:
    """An engine that speaks HTTP/2 on its plain socket: each request is answered with its path."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    sock.sendall(connection.data_to_send())
    while data:
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[b":path"]
                connection.send_headers(event.stream_id, [(":status", "200")])
                connection.send_data(event.stream_id, b"you asked for " + path, end_stream=True)
        sock.sendall(connection.data_to_send())
        data = sock.recv(65536)


def ask_http2(sock: socket.socket, path: str) -> tuple[bytes, bytes]:
    """Status and body that a real HTTP/2 client gets, by prior knowledge."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    connection.send_headers(
        1,
        [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "docker")],
        end_stream=True,
    )
    sock.sendall(connection.data_to_send())
    status, body = b"", b""
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionAbortedError("the connection ended")
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                status = dict(event.headers)[b":status"]
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            if isinstance(event, h2.events.StreamEnded):
                return status, body
        sock.sendall(connection.data_to_send())


def test_http2_is_relayed_where_it_was_asked_for_and_the_log_says_unaudited() -> None:
    with Wire("--http2", "relay", forked=True) as wire:
        wire.engine.serve = serve_http2
        with wire.connect() as sock:
            assert ask_http2(sock, "/containers/web/logs") == (
                b"200",
                b"you asked for /containers/web/logs",
            )
        closed = wire.proxy.wait_records("stream_close")[0]
        opened = wire.proxy.records("stream_open")[0]
        assert (opened["endpoint"], opened["audited"]) == ("tunnel", False)
        assert closed["framing"] == "opaque" and closed["bytes"] > 100
        wire.settled()


def test_a_real_http2_client_is_refused_by_default(wire: Wire) -> None:
    wire.engine.serve = serve_http2
    with wire.connect() as sock, pytest.raises(Exception) as caught:
        ask_http2(sock, "/containers/web/logs")
    assert type(caught.value).__module__.startswith("h2") or isinstance(caught.value, OSError)


# ================================================================================================
# who asks, and for how long
# ================================================================================================


def test_a_unix_client_is_known_by_its_credentials(wire: Wire) -> None:
    wire.engine.serve = answer(OK)
    assert wire.talk(b"POST /whoami HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").endswith(
        b"ok"
    )
    record = wait_for(
        lambda: [r for r in wire.proxy.records("request") if r["path"] == "/whoami"], "the record"
    )[0]
    with open("/proc/self/comm") as file:
        command = file.read().strip()
    expected = {"uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid(), "command": command}
    assert {name: record["client"][name] for name in expected} == expected
    wire.talk(b"POST /whoami2 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n", tcp=True)
    record = wait_for(
        lambda: [r for r in wire.proxy.records("request") if r["path"] == "/whoami2"], "the record"
    )[0]
    assert record["client"]["address"] == "127.0.0.1" and "uid" not in record["client"]


class VirtualTime:
    """Stands in for `time` and `select` of the proxy: hours pass at a word, polls tell limits."""

    real_poll = staticmethod(select.poll)

    def __init__(self) -> None:
        self.passed = 0.0
        self.waits: list[Any] = []

    def monotonic(self) -> float:
        return time.monotonic() + self.passed

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def poll(self) -> Any:
        real, waits = self.real_poll(), self.waits

        class Poll:
            register, unregister = real.register, real.unregister

            @staticmethod
            def poll(limit: Any = None) -> Any:
                waits.append(limit)
                found = real.poll(limit)
                waits.append("woken" if found else "limit reached")
                return found

        return Poll()


@pytest.mark.parametrize(
    "head, reply",
    [
        (LOGS, CHUNKED + b"\r\n"),
        (LOGS.replace(b"containers/web/logs", b"events"), CHUNKED + b"\r\n"),
        (ATTACH % UPGRADE, UPGRADED),
    ],
)
def test_a_stream_outlives_any_silence(
    folder: Any, monkeypatch: pytest.MonkeyPatch, head: bytes, reply: bytes
) -> None:
    """In virtual time: the relay waits without limit, and a day later the next line arrives."""
    clock = VirtualTime()
    go = threading.Event()
    frame = stdcopy_frame(1, b"the next day\n")
    last = frame if b"attach" in head else chunk(frame) + b"0\r\n\r\n"

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(reply)
        assert go.wait(20)
        sock.sendall(last)

    with serving(folder) as engine:
        engine.serve = serve
        monkeypatch.setattr(dockeraudit.select, "poll", clock.poll)
        monkeypatch.setattr(dockeraudit, "time", clock)
        try:
            with connected(folder) as sock:
                sock.sendall(head)
                read_until(sock, b"\r\n\r\n")
                wait_for(
                    lambda: clock.waits and clock.waits[-1] is None,
                    "the relay to wait without limit",
                )
                clock.passed += 86_400
                waits = len(clock.waits)
                assert steady([waits]) and len(clock.waits) == waits
                go.set()
                assert read_until(sock, last).endswith(last)
        finally:
            go.set()
            monkeypatch.undo()


@contextlib.contextmanager
def serving(folder: Any) -> Iterator[RawEngine]:
    """A proxy in this process, whose limits and clock a test can change; gives its engine."""
    engine = RawEngine(str(folder / "engine.sock"))
    with pytest.MonkeyPatch.context() as patch, engine:
        patch.setattr(dockeraudit, "SHUTDOWN_POLL", 0.02)
        arguments = [
            "--listen",
            f"unix://{folder}/p.sock",
            "--upstream",
            engine.path,
            "--audit-log",
            str(folder / "audit.log"),
        ]
        options = load_settings(arguments, {})
        quiet = Diagnostics("error")
        log = open_log(options, load_scanner(options), [], quiet)
        proxy = Proxy(options, log, load_scanner(options), quiet)
        service = dockeraudit.Service(proxy, load_listeners(options, {}, quiet.say))
        service.start()
        try:
            yield engine
        finally:
            service.stop(1.0)
            log.close("test", 1.0)


def connected(folder: Any) -> socket.socket:
    """A connection to the proxy in this process."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(f"{folder}/p.sock")
    return sock


def test_only_a_head_that_has_begun_has_a_time_limit(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does a connection without a request, nor an empty line behind one."""
    monkeypatch.setattr(dockeraudit, "HEAD_TIMEOUT", 0.05)
    with serving(folder) as engine:
        engine.serve = answer(OK)
        with connected(folder) as sock:
            sock.sendall(PING[:-2])
            assert "not complete" in message_of(read_all(sock), 408)
        with connected(folder) as sock:
            for empty in (b"", b"\r\n", b"\n"):
                sock.sendall(empty)
                select.select([sock], [], [], 0.15)
                sock.sendall(PING)
                assert read_exactly(sock, len(OK)) == OK


# ================================================================================================
# TLS
# ================================================================================================


def test_a_refused_tls_client_reads_its_answer_and_a_proper_end(
    folder: Any, start_proxy: Any
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl program, which makes the test's certificate")
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(
        [*make, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    port = free_port()
    tls = f"[listener tls]\nlisten = tcp://127.0.0.1:{port}\n"
    tls += f"tls-cert = {folder}/cert.pem\ntls-key = {folder}/key.pem\n"
    (folder / "proxy.ini").write_text(
        f"[listener plain]\nlisten = unix://{folder}/proxy.sock\n{tls}"
    )
    with RawEngine(str(folder / "engine.sock")) as engine:
        engine.serve = answer(OK)
        start_proxy(engine.path, "--config", str(folder / "proxy.ini"))
        context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        for request_bytes, status in (
            (b"GET / HTTP/1.1\r\n\r\n", b"400"),
            (b"G" * MAX_HEAD + b"\r\n" * 9, b"431"),
            (LAST.replace(b"Host: d", b"Host: localhost"), b"200"),
        ):
            plain = socket.create_connection(("127.0.0.1", port), 20)
            with context.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            ) as sock:
                sock.sendall(request_bytes)
                data = read_all(sock)  # an end without close_notify would raise here
                assert data.startswith(b"HTTP/1.1 " + status)
