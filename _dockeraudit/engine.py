"""The engine's Unix socket, and questions of our own to it: names of containers, logs for `scan`."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import threading
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import (
    BodyReader,
    CloseReader,
    ResponseHead,
    body_reader,
    head_length,
    parse_response_head,
    response_framing,
)

BLOCK = (
    64 << 10
)  # bytes read at once; more gains nothing (a Unix socket's default buffer holds 208 KiB)
CONNECT_TIMEOUT = 10.0  # seconds to reach the engine, a full backlog included
LOOKUP_WORKERS = 2  # threads that ask the engine for names
LOOKUP_TIMEOUT = 5.0  # seconds for one such question
STREAM_PATIENCE = (
    60.0  # seconds until a log that `scan` asks for begins: a busy disk has to find it first
)
LOOKUP_CACHE = 1024  # answers kept, by full id
MAX_LOOKUP = (
    16 << 20
)  # bytes of an answer to such a question; an inspected container has some 10 KiB
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)  # of this process, of the whole host


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket. `timeout` covers the connecting; raises EngineError, which says why."""

    def __init__(self, path: str, timeout: float | None = CONNECT_TIMEOUT) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect; a full backlog (EAGAIN) is tried again until the time is up."""
        deadline = time.monotonic() + (self.timeout or CONNECT_TIMEOUT)
        while True:
            try:
                self._connect()
                return
            except OSError as error:
                self.close()
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise EngineError(engine_error(self.path, error)) from error
                time.sleep(0.01)

    def _connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine_error(path: str, error: OSError) -> str:
    """Why the engine's socket cannot be reached, and what to do: one sentence."""
    name = errno.errorcode.get(error.errno or 0, "timeout")
    if error.errno in NO_DESCRIPTORS:
        return f"no file descriptor is left to reach the Docker engine with ({name}); try again when other requests are done"
    text = f"cannot reach the Docker engine at {path}: {error.strerror or error} ({name})"
    try:
        info = os.stat(path)
    except OSError:
        return text + "; is the engine running, and is this its socket?"
    if error.errno == errno.EACCES:
        return (
            text
            + f"; the socket belongs to group {info.st_gid}: add this process to it (group_add in Compose)"
        )
    if info.st_nlink == 0:
        return (
            text
            + "; this socket was replaced when the engine restarted: mount the directory, not the file"
        )
    return text + "; is the engine running?"


class Lookups:
    """Full ids and names of what streams are asked of: looked up beside the stream, never in its way."""

    #: kind → path, key of the id, key of the name, key of whether there is a TTY
    SOURCES = {
        "container": ("/containers/{}/json", ("Id",), ("Name",), ("Config", "Tty")),
        "service": (
            "/services/{}",
            ("ID",),
            ("Spec", "Name"),
            ("Spec", "TaskTemplate", "ContainerSpec", "TTY"),
        ),
        "task": ("/tasks/{}", ("ID",), ("Name",), ("Spec", "ContainerSpec", "TTY")),
        "exec": ("/exec/{}/json", ("ContainerID",), (), ("ProcessConfig", "tty")),
    }

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._executor = ThreadPoolExecutor(LOOKUP_WORKERS, thread_name_prefix="names")
        self._cache: OrderedDict[tuple[str, str], tuple[str, str | None, bool | None]] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def resolve(
        self, kind: str, name: str, done: Callable[[str | None, str | None, bool | None], Any]
    ) -> None:
        """Call `done(id, name, tty)` when they are known, with None for what is not; here if the cache knows."""
        with self._lock:
            known = self._cache.get((kind, name))
        if known:
            done(*known)
            return
        try:
            self._executor.submit(self._look_up, kind, name, done)
        except RuntimeError:  # shutting down
            done(None, None, None)

    def stop(self) -> None:
        """Take no more questions; a silent engine is not waited for."""
        self._executor.shutdown(wait=False)

    def _look_up(
        self, kind: str, name: str, done: Callable[[str | None, str | None, bool | None], Any]
    ) -> None:
        found: tuple[str | None, str | None, bool | None] = (None, None, None)
        try:
            found = self._ask(kind, name)
        except (HTTPError, OSError, ValueError, KeyError, TypeError):
            pass  # then the record says what the client asked for
        finally:
            done(*found)

    def _ask(self, kind: str, name: str) -> tuple[str | None, str | None, bool | None]:
        path, id_keys, name_keys, tty_keys = self.SOURCES[kind]
        answer = ask_engine(self._socket_path, path.format(urllib.parse.quote(name, safe="")))
        full_id, tty = nested(answer, id_keys), nested(answer, tty_keys)
        tty = tty if kind == "container" else bool(tty)  # swarm leaves out what is false
        if kind == "exec":
            return (*self._ask("container", str(full_id))[:2], tty)
        found = (
            str(full_id),
            str(nested(answer, name_keys)).lstrip("/") if nested(answer, name_keys) else None,
            tty,
        )
        if (
            name == found[0]
        ):  # only a full id means the same for ever; a name can pass to another container
            with self._lock:
                self._cache[kind, name] = found
                while len(self._cache) > LOOKUP_CACHE:
                    self._cache.popitem(last=False)
        return found


def nested(answer: Any, keys: Sequence[str]) -> Any:
    """answer[key][key]…; None where a key is missing on the way."""
    for key in keys:
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


def ask_engine(socket_path: str, path: str, timeout: float = LOOKUP_TIMEOUT) -> Any:
    """The JSON answer to a GET of our own; raises HTTPError, OSError or ValueError."""
    status, body = engine_answer(socket_path, path, timeout)
    if status != 200:
        raise EngineError(f"the engine answered {status} to GET {path}")
    return json.loads(body)


def engine_answer(socket_path: str, path: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of the answer to a GET of our own, whole within `timeout`; raises HTTPError or OSError."""
    deadline = time.monotonic() + timeout
    connection = UnixHTTPConnection(socket_path, timeout)
    connection.connect()
    try:
        connection.sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        head, block = _answer_head(connection.sock, deadline)
        reader, body = body_reader(response_framing(head, b"GET"), collect=True), b""
        while True:
            body += reader.feed(block)[1]
            if reader.broken:
                raise EngineError(f"the engine's answer is not HTTP: {reader.broken}")
            block = b"" if reader.done else _receive_before(connection.sock, deadline)
            if not block or len(body) > MAX_LOOKUP:
                return head.status, body
    finally:
        connection.close()


def _answer_head(sock: socket.socket, deadline: float) -> tuple[ResponseHead, bytes]:
    """The final response's head, interim ones left out, and what came behind it."""
    data, head = b"", None
    while head is None or head.status < 200:
        length = head_length(data, what="engine's answer") if data else 0
        if length:
            head, data = parse_response_head(data[:length]), data[length:]
            continue
        block = _receive_before(sock, deadline)
        if not block:
            raise EngineError("the engine closed the connection without an answer")
        data += block
    return head, data


def _receive_before(sock: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    try:
        sock.settimeout(max(left, 0.001))
        if left > 0:
            return sock.recv(BLOCK)
    except socket.timeout:  # TimeoutError itself only from Python 3.10 on
        pass
    raise EngineError("the engine did not answer in time")


def engine_stream(
    connection: UnixHTTPConnection, path: str
) -> tuple[ResponseHead, Iterator[bytes]]:
    """The head of the answer to a GET of our own, and its payload, however long; raises HTTPError or OSError. Closing is the caller's."""
    connection.connect()
    connection.sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode("ascii")
    )
    head, rest = _answer_head(connection.sock, time.monotonic() + STREAM_PATIENCE)
    connection.sock.settimeout(None)
    return head, _payload(
        connection.sock, body_reader(response_framing(head, b"GET"), collect=True), rest
    )


def _payload(sock: socket.socket, reader: BodyReader, block: bytes) -> Iterator[bytes]:
    """A body's payload block by block; one that is cut short raises EngineError."""
    while True:
        payload = reader.feed(block)[1]
        if payload:
            yield payload
        if reader.broken:
            raise EngineError(f"the engine's answer is not HTTP: {reader.broken}")
        if reader.done:
            return
        block = sock.recv(BLOCK)
        if not block and isinstance(reader, CloseReader):
            return
        if not block:
            raise EngineError("the engine ended its answer before the end")
