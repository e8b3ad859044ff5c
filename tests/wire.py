"""A proxy between plain sockets and an engine whose every byte is the test's: for hostile cases.

with Wire() as wire:
    wire.engine.serve = lambda sock, data: sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert wire.talk(LAST).startswith(b"HTTP/1.1 204")
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable

from scripted import ScriptedEngine

from conftest import DEADLINE, ProxyProcess

#: threads that start when first needed, and stay: they scan, look up names, write and sync the log
LAZY_WORKERS = 6
WARM_UP = b"GET /warm-up HTTP/1.1\r\nHost: d\r\n\r\n"
WARM = b"HTTP/1.1 204 No Content\r\n\r\n"
LOOKUPS = (b"/containers/web/json", b"/version", b"/exec/web/json")


class RawEngine(ScriptedEngine):
    """Calls `serve(sock, data)` for each connection with the head that came first.

    It answers the proxy's own questions with 404.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.serve: Callable[[socket.socket, bytes], Any] = lambda sock, data: None
        self.failures: list[BaseException] = []

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(DEADLINE)
            data = read_until(sock, b"\r\n\r\n")
            while data == WARM_UP:
                sock.sendall(WARM)
                data = read_until(sock, b"\r\n\r\n")
            if data.split(b" ", 2)[1] in LOOKUPS:
                sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            elif data:
                self.serve(sock, data)
        except (OSError, IndexError):
            pass  # nothing was asked, or the proxy went away, as tests make it do
        except BaseException as error:  # a failed assertion of the test: raised with the wire's end
            self.failures.append(error)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()


class Wire:
    """The proxy on a Unix and a TCP address, its engine, and how much of it is in use.

    `kept`: each connection that `connect` gives to a test has served a request before.
    `forked`: the proxy comes from the fork server of `program.py`.
    """

    def __init__(self, *options: str, kept: bool = False, forked: bool = False) -> None:
        self.options = options
        self.forked = forked
        self.kept = kept

    def __enter__(self) -> Wire:
        self.folder = Path(tempfile.mkdtemp(prefix="da-"))
        self.engine = RawEngine(str(self.folder / "engine.sock"))
        self.engine.__enter__()
        self.port = free_port()
        listen = ("--listen", f"tcp://127.0.0.1:{self.port}")
        self.proxy = ProxyProcess(
            self.folder, self.engine.path, *listen, *self.options, forked=self.forked
        )
        self.proxy.ready()
        self.threads, self.descriptors = self.in_use()
        return self

    def __exit__(self, *_: object) -> None:
        status = self.proxy.stop()
        self.engine.__exit__()
        errors = self.proxy.errors.read_text()
        shutil.rmtree(self.folder)
        assert status == 0 and "defect" not in errors, errors
        assert not self.engine.failures, self.engine.failures

    def in_use(self) -> tuple[int, int]:
        """Threads and descriptors of the proxy."""
        process = f"/proc/{self.proxy.process.pid}"
        return len(os.listdir(process + "/task")), len(os.listdir(process + "/fd"))

    def settled(self) -> None:
        """Wait until no thread and no descriptor of any connection is left."""
        end = time.monotonic() + DEADLINE
        while True:
            threads, descriptors = self.in_use()
            if threads <= self.threads + LAZY_WORKERS and descriptors <= self.descriptors:
                return
            assert time.monotonic() < end, (
                f"{threads} threads of {self.threads} + {LAZY_WORKERS}, "
                f"{descriptors} descriptors of {self.descriptors}: {self.open_files()}"
            )
            time.sleep(0.01)

    def open_files(self) -> list[str]:
        """What the proxy's descriptors are."""
        folder = f"/proc/{self.proxy.process.pid}/fd"
        return [os.readlink(f"{folder}/{number}") for number in os.listdir(folder)]

    def resident(self) -> int:
        """Bytes of memory in use."""
        return int(
            Path(f"/proc/{self.proxy.process.pid}/statm").read_text().split()[1]
        ) * os.sysconf("SC_PAGE_SIZE")

    def connect(self, tcp: bool = False) -> socket.socket:
        """A connection to the proxy."""
        sock = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(("127.0.0.1", self.port) if tcp else self.proxy.socket)
        if self.kept:
            sock.sendall(WARM_UP)
            assert read_exactly(sock, len(WARM)) == WARM
        return sock

    def talk(self, data: bytes, tcp: bool = False) -> bytes:
        """Send, and read to the end of the connection."""
        with self.connect(tcp) as sock:
            sock.sendall(data)
            return read_all(sock)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Read until a mark has come; what there is at the end of the connection."""
    data = b""
    while mark not in data:
        block = sock.recv(65536)
        if not block:
            break
        data += block
    return data


def read_exactly(sock: socket.socket, size: int, data: bytes = b"") -> bytes:
    """Read until there are so many bytes, or the end."""
    while len(data) < size:
        block = sock.recv(size - len(data))
        if not block:
            break
        data += block
    return data


def read_all(sock: socket.socket) -> bytes:
    """Read to the end of the connection; a reset is one."""
    data = b""
    try:
        while True:
            block = sock.recv(65536)
            if not block:
                return data
            data += block
    except ConnectionResetError:
        return data


def send_parts(sock: socket.socket, parts: Iterable[bytes]) -> None:
    """Send in pieces."""
    for part in parts:
        sock.sendall(part)


def cuts(data: bytes, seed: int, times: int = 3) -> Iterator[list[bytes]]:
    """The data whole, byte by byte, and cut at seeded random places."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    rng = random.Random(seed)
    for _ in range(times):
        places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 9)))
        yield [data[a:b] for a, b in zip([0] + places, places + [len(data)])]
