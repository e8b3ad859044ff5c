"""Kept connections: one thread waits for all of them, and serves short requests."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable

import pytest
from scripted import LOGS_HEAD, ScriptedEngine, chunk, json_answer, stdcopy_frame
from waiting import wait_for

from _dockeraudit.connections import Connection
from _dockeraudit.keptconnections import KeptConnections
from _dockeraudit.routes import is_short, parse_request
from dockeraudit import ProxyHandler


class Echo:
    """A connection whose peer is sent what it says; "long" is for its own thread."""

    def __init__(self) -> None:
        self.called = threading.Semaphore(0)
        self.ours, self.theirs = socket.socketpair()
        self.engine, self._other = socket.socketpair()
        self.theirs.settimeout(10)
        self.served_by: set[str] = set()

    def descriptors(self) -> Sequence[int]:
        return self.ours.fileno(), self.engine.fileno()

    def serve_short(self, fileno: int) -> bool:
        assert fileno == self.ours.fileno()
        self.served_by.add(threading.current_thread().name)
        data = self.ours.recv(100)
        if data in (b"", b"long"):
            return False
        self.ours.sendall(data)
        return True

    def close(self) -> None:
        for sock in (self.ours, self.theirs, self.engine, self._other):
            sock.close()


@pytest.fixture
def kept() -> Iterator[KeptConnections]:
    connections = KeptConnections()
    connections.start()
    yield connections
    connections.stop()
    name = "kept connections"
    wait_for(
        lambda: all(thread.name != name for thread in threading.enumerate()), "its thread to end"
    )


@pytest.fixture
def echoes() -> Iterator[list[Echo]]:
    made = [Echo() for _ in range(20)]
    yield made
    for echo in made:
        echo.close()


def lend(kept: KeptConnections, connection: Echo) -> threading.Thread:
    """Lend a connection in a thread of its own, as its handler does."""
    thread = threading.Thread(target=kept.lend, args=(connection,))
    thread.start()
    return thread


def test_one_thread_serves_many_connections(kept: KeptConnections, echoes: list[Echo]) -> None:
    threads = [lend(kept, echo) for echo in echoes]
    for word in (b"one", b"two"):
        for echo in echoes:
            echo.theirs.sendall(word)
            assert echo.theirs.recv(100) == word
    assert {name for echo in echoes for name in echo.served_by} == {"kept connections"}
    for echo in echoes:
        echo.theirs.sendall(b"long")
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_connection_can_be_lent_again(kept: KeptConnections, echoes: list[Echo]) -> None:
    for _ in range(3):
        thread = lend(kept, echoes[0])
        echoes[0].theirs.sendall(b"long")
        thread.join(10)
        assert not thread.is_alive()


def test_a_connection_whose_peer_goes_is_given_back(
    kept: KeptConnections, echoes: list[Echo]
) -> None:
    thread = lend(kept, echoes[0])
    echoes[0].theirs.close()
    thread.join(10)
    assert not thread.is_alive()


def test_all_are_given_back_when_it_stops(kept: KeptConnections, echoes: list[Echo]) -> None:
    threads = [lend(kept, echo) for echo in echoes]
    echoes[-1].theirs.sendall(b"x")
    assert echoes[-1].theirs.recv(1) == b"x"
    kept.stop()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_connection_that_the_kernel_cannot_watch_waits_for_itself(
    kept: KeptConnections, echoes: list[Echo], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(__file__, "rb") as file:  # epoll refuses files
        monkeypatch.setattr(
            echoes[0], "descriptors", lambda: (echoes[0].ours.fileno(), file.fileno())
        )
        kept.lend(echoes[0])
        echoes[0].theirs.sendall(b"x")
        assert echoes[0].ours.recv(1) == b"x" and not echoes[0].served_by


def test_a_defect_is_raised_by_the_connections_own_thread(
    echoes: list[Echo], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = ProxyHandler.__new__(ProxyHandler)
    handler.failure = None
    handler.peer = Connection(echoes[0].ours, {"listener": "l", "uid": 1}, 0.0)

    def defect() -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(handler, "_begin_short", defect)
    assert not handler.serve_short(echoes[0].ours.fileno())
    monkeypatch.setattr(handler, "_lendable", lambda: False)
    monkeypatch.setattr(handler, "_charge_head", lambda size: None)
    with pytest.raises(ZeroDivisionError):
        handler._serve()


@pytest.mark.parametrize(
    "request_line, headers, short",
    [
        (b"GET /_ping", b"", True),
        (b"HEAD /_ping", b"", True),
        (b"GET /v1.41/containers/json?all=1", b"", True),
        (b"GET /containers/web/json", b"", True),
        (b"GET /events", b"", False),
        (b"GET /containers/web/logs?follow=1", b"", False),
        (b"GET /containers/web/stats", b"", False),
        (b"GET /containers/web/export", b"", False),
        (b"GET /_ping", b"Upgrade: tcp\r\n", False),
        (b"GET /_ping", b"Content-Length: 1\r\n", False),
        (b"POST /containers/web/start", b"", False),
        (b"DELETE /containers/web", b"", False),
    ],
)
def test_short_is_what_reads_and_does_not_flow(
    request_line: bytes, headers: bytes, short: bool
) -> None:
    raw = request_line + b" HTTP/1.1\r\nHost: d\r\n" + headers + b"\r\n"
    assert is_short(*parse_request(raw)) is short


# -- as a client meets it


class Client(http.client.HTTPConnection):
    """A client that keeps its connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("d", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.path)

    def get(self, target: str, method: str = "GET") -> tuple[int, bytes]:
        self.request(method, target)
        answer = self.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def engine(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(str(folder / "engine.sock")) as scripted:
        yield scripted


StartProxy = Callable[..., Any]


def test_requests_of_all_kinds_follow_one_another(
    engine: ScriptedEngine, start_proxy: StartProxy
) -> None:
    long = b"x" * 3_000_000
    engine.routes["/images/json"] = lambda sock, head: sock.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(long) + long
    )
    engine.routes["/containers/web/start"] = json_answer({})
    proxy = start_proxy(engine.path)
    client = Client(proxy.socket)
    for _ in range(3):
        assert client.get("/_ping") == (200, b"OK")
        assert client.get("/images/json") == (200, long)
        assert client.get("/containers/web/start", "POST")[0] == 200
        assert client.get("/nothing")[0] == 404
        assert client.get("/_ping", "HEAD") == (200, b"")
    assert client.sock is not None, "the connection was not kept"
    client.close()
    assert proxy.stop() == 0
    (stop,) = proxy.records("stop")
    assert stop["reason"] == "SIGTERM"


def test_a_slow_answer_holds_nobody_up(engine: ScriptedEngine, start_proxy: StartProxy) -> None:
    release = threading.Event()

    def slow(sock: socket.socket, head: bytes) -> None:
        release.wait(20)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    engine.routes["/info"] = slow
    proxy = start_proxy(engine.path)
    waiting, other = Client(proxy.socket), Client(proxy.socket)
    assert waiting.get("/_ping")[0] == other.get("/_ping")[0] == 200
    waiting.request("GET", "/info")
    for _ in range(20):
        assert other.get("/_ping") == (200, b"OK")
    release.set()
    assert waiting.getresponse().read() == b"slow"
    waiting.close()
    other.close()


def test_a_request_that_comes_in_pieces_or_with_another(
    engine: ScriptedEngine, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(engine.path)
    ping = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    client = Client(proxy.socket)
    assert client.get("/_ping")[0] == 200
    assert client.sock is not None
    before = len(engine.requests)
    for piece in (ping[:7], ping[7:], ping + ping, ping[:-1], ping[-1:] + ping):
        client.sock.sendall(piece)
    received = b""
    while received.count(b"OK") < 10:  # five answers, each with "200 OK" and "OK"
        received += client.sock.recv(65536)
    assert len(engine.requests) == before + 5
    client.close()


def test_a_kept_connection_that_the_engine_closes_is_opened_again(
    engine: ScriptedEngine, start_proxy: StartProxy
) -> None:
    def once(sock: socket.socket, head: bytes) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        sock.shutdown(socket.SHUT_RDWR)

    engine.routes["/version"] = once
    proxy = start_proxy(engine.path)
    client = Client(proxy.socket)
    for _ in range(5):
        assert client.get("/_ping") == (200, b"OK")
        assert client.get("/version") == (200, b"1")
    client.close()


def test_an_answer_that_is_no_http_gets_502_and_the_next_client_is_served(
    engine: ScriptedEngine, start_proxy: StartProxy
) -> None:
    engine.routes["/info"] = lambda sock, head: sock.sendall(b"SSH-2.0-\r\n\r\n")
    proxy = start_proxy(engine.path)
    client = Client(proxy.socket)
    assert client.get("/_ping")[0] == 200
    status, body = client.get("/info")
    assert status == 502 and b'{"message": "dockeraudit: ' in body
    client.close()
    assert Client(proxy.socket).get("/_ping")[0] == 200


def test_a_refused_request_is_refused_and_recorded_once(
    engine: ScriptedEngine, start_proxy: StartProxy
) -> None:
    proxy = start_proxy(engine.path, "--policy", "tecnativa")
    client = Client(proxy.socket)
    assert client.get("/_ping")[0] == 200
    assert client.get("/containers/json")[0] == 403
    assert client.get("/_ping")[0] == 200
    (denied,) = proxy.wait_records("denied")
    assert denied["path"] == "/containers/json" and denied["count"] == 1
    client.close()
    assert [head.split()[1] for head, _ in engine.requests].count(b"/containers/json") == 0


def test_a_stream_follows_a_short_request(engine: ScriptedEngine, start_proxy: StartProxy) -> None:
    frames = [stdcopy_frame(1, b"line %d\n" % number) for number in range(3)]
    wire = b"".join(map(chunk, frames)) + b"0\r\n\r\n"
    engine.routes["/containers/web/logs"] = lambda sock, head: sock.sendall(LOGS_HEAD + wire)
    proxy = start_proxy(engine.path)
    client = Client(proxy.socket)
    assert client.get("/_ping")[0] == 200
    assert client.get("/_ping")[0] == 200
    assert client.get("/containers/web/logs?stdout=1") == (200, b"".join(frames))
    (closed,) = proxy.wait_records("stream_close")
    assert closed["lines"] == 3


def test_a_client_that_leaves_while_the_engine_thinks_ends_the_request(
    engine: ScriptedEngine, start_proxy: StartProxy
) -> None:
    gone = threading.Event()

    def wait_for_end(sock: socket.socket, head: bytes) -> None:
        while sock.recv(100):
            pass
        gone.set()

    engine.routes["/info"] = wait_for_end
    proxy = start_proxy(engine.path)
    client = Client(proxy.socket)
    assert client.get("/_ping")[0] == 200
    client.request("GET", "/info")
    client.close()
    assert gone.wait(20)
