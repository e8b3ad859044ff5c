"""A container's own secrets on every kind of stream that an engine answers with.

Our own requests are counted: one for each stream, and two for that of an exec, as without secrets.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from scripted import CONTAINER_ID, Answer, ScriptedEngine, json_answer, logs_answer, stdcopy_frame

from conftest import ProxyProcess, wait_for

VALUE = "correct horse " + "battery staple"
ENV = ["PATH=/bin", f"DB_PASSWORD={VALUE}"]
LINE = f"logged in with {VALUE}\n".encode()
FRAMES = (stdcopy_frame(1, LINE[:20]), stdcopy_frame(2, b"fine\n"), stdcopy_frame(1, LINE[20:]))
MULTIPLEXED = b"Content-Type: application/vnd.docker.multiplexed-stream\r\n"
RAW = b"Content-Type: application/vnd.docker.raw-stream\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
WEBSOCKET = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\n"
)
ASKS_WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
ASKS_TCP = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
CONTAINER = {"Id": CONTAINER_ID, "Name": "/web", "Config": {"Tty": False, "Env": ENV}}
WITH_TTY = {**CONTAINER, "Config": {"Tty": True, "Env": ENV}}
SPEC = {"ContainerSpec": {"Env": ENV}}
INSPECTS = {
    "/containers/web/json": CONTAINER,
    "/containers/tty/json": WITH_TTY,
    f"/containers/{CONTAINER_ID}/json": CONTAINER,
    "/exec/e1/json": {"ContainerID": CONTAINER_ID, "ProcessConfig": {"tty": False}},
    "/services/s1": {"ID": "s1", "Spec": {"Name": "shop", "TaskTemplate": SPEC}},
    "/tasks/t1": {"ID": "t1", "Spec": SPEC},
}


def until_close(head: bytes, *blocks: bytes) -> Answer:
    """An answer that ends with its connection."""

    def serve(sock: socket.socket, request: bytes) -> None:
        sock.sendall(head + b"\r\n" + b"".join(blocks))
        sock.shutdown(socket.SHUT_RDWR)

    return serve


def message(text: bytes) -> bytes:
    """A server's binary WebSocket message (RFC 6455 §5.2)."""
    return bytes([0x82, len(text)]) + text


HIJACKED = b"HTTP/1.1 200 OK\r\n" + MULTIPLEXED
#: request line, extra fields, the engine's answer, and what we ask the engine ourselves
CHANNELS: dict[str, tuple[str, str, Answer, list[str]]] = {
    "logs": (
        "GET /containers/web/logs?stdout=1",
        "",
        logs_answer(*FRAMES),
        ["/containers/web/json"],
    ),
    "logs, Podman": (
        "GET /libpod/containers/web/logs?stdout=1",
        "",
        logs_answer(*FRAMES),
        ["/containers/web/json"],
    ),
    "attach, 101": (
        "POST /containers/web/attach?stream=1&stdout=1",
        ASKS_TCP,
        until_close(UPGRADED + MULTIPLEXED, *FRAMES),
        ["/containers/web/json"],
    ),
    "attach, 101, TTY": (
        "POST /containers/tty/attach?stream=1&stdout=1",
        ASKS_TCP,
        until_close(UPGRADED + RAW, LINE),
        ["/containers/tty/json"],
    ),
    "attach, 200": (
        "POST /containers/web/attach?stream=1&stdout=1",
        "",
        until_close(HIJACKED, *FRAMES),
        ["/containers/web/json"],
    ),
    "attach/ws": (
        "GET /containers/web/attach/ws?stream=1&stdout=1",
        ASKS_WEBSOCKET,
        until_close(WEBSOCKET[:-2], message(LINE[:20]), message(LINE[20:])),
        ["/containers/web/json"],
    ),
    "exec": (
        "POST /exec/e1/start",
        ASKS_TCP,
        until_close(UPGRADED + MULTIPLEXED, *FRAMES),
        ["/exec/e1/json", f"/containers/{CONTAINER_ID}/json"],
    ),
    "service": ("GET /services/s1/logs?stdout=1", "", logs_answer(*FRAMES), ["/services/s1"]),
    "task": ("GET /tasks/t1/logs?stdout=1", "", logs_answer(*FRAMES), ["/tasks/t1"]),
}


@pytest.fixture
def engine(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes.update({path: json_answer(answer) for path, answer in INSPECTS.items()})
        yield engine


def ask(proxy: ProxyProcess, line: str, fields: str) -> bytes:
    """Send a request, half-close, and read to the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(proxy.socket)
        sized = "Content-Length: 0\r\n" if line.startswith("POST") else ""
        sock.sendall(f"{line} HTTP/1.1\r\nHost: docker\r\n{fields}{sized}\r\n".encode())
        data = b""
        while True:
            block = sock.recv(65536)
            if not block:
                return data
            data += block


def asked(engine: ScriptedEngine) -> list[str]:
    """Which of our own questions the engine was asked, in order."""
    targets = [head.split(b" ")[1].decode() for head, _ in engine.requests]
    return [target for target in targets if target in INSPECTS]


@pytest.mark.parametrize("channel", CHANNELS)
def test_it_is_found_once_on_each_channel_and_one_request_suffices(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess], channel: str
) -> None:
    line, fields, answer, own = CHANNELS[channel]
    engine.routes[line.split()[1].partition("?")[0]] = answer
    proxy = start_proxy(engine.path)
    for streams in (1, 2):
        ask(proxy, line, fields)
        proxy.wait_records("stream_close", streams)
    found = proxy.records("finding")
    assert [(record["rule"], record["env"], record["stream"]) for record in found] == [
        ("container-env", "DB_PASSWORD", 1),
        ("container-env", "DB_PASSWORD", 2),
    ]
    assert [record["needles"] for record in proxy.records("stream_open")] == [1, 1]
    assert asked(engine) == own * 2
    assert VALUE not in proxy.log.read_text() + proxy.errors.read_text()


def test_turned_off_nothing_is_looked_for(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    engine.routes["/containers/web/logs"] = logs_answer(*FRAMES)
    proxy = start_proxy(engine.path, "--own-secrets", "off")
    ask(proxy, "GET /containers/web/logs?stdout=1", "")
    proxy.wait_records("stream_close")
    assert proxy.records("finding") == []
    assert "needles" not in proxy.records("stream_open")[0]


def test_the_client_has_its_bytes_before_the_engine_says_what_is_secret(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    release: list[Any] = []
    answer = json_answer(CONTAINER)

    def late(sock: socket.socket, request: bytes) -> None:
        wait_for(lambda: release, "the client to have its bytes")
        answer(sock, request)

    engine.routes["/containers/web/json"] = late
    engine.routes["/containers/web/logs"] = logs_answer(*FRAMES)
    proxy = start_proxy(engine.path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(proxy.socket)
        sock.sendall(b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(65536)
        release.append(True)
    proxy.wait_records("stream_close")
    assert [record["env"] for record in proxy.records("finding")] == ["DB_PASSWORD"]
