"""A scripted engine on a Unix socket: it answers as Docker does, with bytes that the test chooses.

with ScriptedEngine(path) as engine:
    engine.routes["/containers/web/logs"] = lambda sock, head: sock.sendall(…)
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from typing import Any, Callable

Answer = Callable[[socket.socket, bytes], None]
CONTAINER_ID = "c0ffee" + "0" * 58


def stdcopy_frame(stream_type: int, payload: bytes) -> bytes:
    """One frame of a multiplexed stream, as Docker's API describes it under attach."""
    return struct.pack(">BxxxI", stream_type, len(payload)) + payload


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def json_answer(value: Any, status: bytes = b"200 OK") -> Answer:
    """An answer with a JSON body."""
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        len(body),
    )
    return lambda sock, request: sock.sendall(head if request.startswith(b"HEAD ") else head + body)


LOGS_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: application/vnd.docker.multiplexed-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def logs_answer(*frames: bytes) -> Answer:
    """A multiplexed log stream, one chunk a frame."""
    return lambda sock, request: sock.sendall(
        LOGS_HEAD + b"".join(map(chunk, frames)) + b"0\r\n\r\n"
    )


class ScriptedEngine:
    """Serves each connection in a thread; `requests` keeps the heads and bodies it has seen."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[tuple[bytes, bytes]] = []
        inspect = {"Id": CONTAINER_ID, "Name": "/web", "Config": {"Tty": False}}
        self.routes: dict[str, Answer] = {
            "/_ping": lambda sock, head: sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
                + (b"" if head.startswith(b"HEAD") else b"OK")
            ),
            "/version": json_answer(
                {"Version": "28.0", "ApiVersion": "1.48", "MinAPIVersion": "1.24"}
            ),
            "/containers/web/json": json_answer(inspect),
            f"/containers/{CONTAINER_ID}/json": json_answer(inspect),
        }
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> ScriptedEngine:
        self._listener.bind(self.path)
        self._listener.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is gone already
        for thread in self._threads:
            thread.join(10)
        os.unlink(self.path)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            while self._one(sock):
                pass
        except OSError:
            pass  # the proxy went away, as tests make it do
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _one(self, sock: socket.socket) -> bool:
        """Read and answer one request; returns whether the connection stays open."""
        data = b""
        while b"\r\n\r\n" not in data:
            block = sock.recv(65536)
            if not block:
                return False
            data += block
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        while length and len(body) < int(length[1]):
            body += sock.recv(65536)
        self.requests.append((head, body))
        target = head.split(b" ")[1].decode()
        path = re.sub(r"^/v[\d.]+(?=/)", "", target.partition("?")[0])
        answer = self.routes.get(path) or json_answer(
            {"message": f"No such thing: {path}"}, b"404 Not Found"
        )
        answer(sock, head)
        return b"\r\nupgrade:" not in head.lower() and sock.fileno() >= 0
