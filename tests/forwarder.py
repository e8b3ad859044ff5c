"""An engine on TCP, with or without TLS: what comes there is forwarded to an engine's Unix socket.

with Forwarder(engine.path, server_context(authority)) as remote:
    start_proxy(remote.url, "--upstream-tls", authority.docker)

It ends each direction as dockerd's TLS listener does: by close_notify, and the other goes on.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Callable

from waiting import DEADLINE

MOST_HELD = 256 << 10  # bytes that wait in one direction
BLOCK = 64 << 10


class PlainSide:
    """The bytes of the remote side as they are."""

    ended = False  # the peer sends no more
    clean = True  # it has said so

    def start(self) -> bytes:
        """Bytes to send first."""
        return b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What came: (plain bytes of it, bytes to send because of it)."""
        self.ended = not data
        return data, b""

    def seal(self, data: bytes) -> bytes:
        """Plain bytes as they are sent."""
        return data

    def end(self) -> bytes:
        """Bytes that say that no more come."""
        return b""


class SecureSide(PlainSide):
    """The bytes of the remote side as TLS records."""

    clean = False

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._open = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Raises ssl.SSLError where a record, or the handshake, is not right."""
        if not data:
            self.ended = True
            return b"", b""
        self._in.write(data)
        plain = b""
        try:
            if not self._open:
                self._tls.do_handshake()
                self._open = True
            while True:
                block = self._tls.read(BLOCK)
                if not block:
                    raise ssl.SSLZeroReturnError
                plain += block
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = self.clean = True
        return plain, self._out.read()

    def failure(self) -> bytes:
        """The alert that says why the handshake failed."""
        return self._out.read()

    def seal(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._out.read()

    def end(self) -> bytes:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it has sent close_notify, and waits for the peer's
        return self._out.read()


class Forwarder:
    """Listens on a port of the loopback interface; each connection has a thread."""

    def __init__(self, path: str, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.path, self.context = path, context
        self.connections = 0  # accepted so far
        self.ends = 0  # of them that the engine ended first, which the remote side has been told
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Forwarder:
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
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def _start(self, target, *arguments) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                remote, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go's servers do
            self._start(self._serve, remote)

    def _ended(self) -> None:
        with self._lock:
            self.ends += 1

    def _serve(self, remote: socket.socket) -> None:
        side = SecureSide(self.context) if self.context else PlainSide()
        with remote, socket.socket(socket.AF_UNIX) as engine:
            with self._lock:
                self._open |= {remote, engine}
            try:
                engine.connect(self.path)
                Flow(remote, engine, side, self._ended).run()
            except ssl.SSLError:
                assert isinstance(side, SecureSide)
                with contextlib.suppress(OSError):
                    remote.sendall(side.failure())
            except OSError:
                pass  # one side is gone, and so is the other now
            finally:
                with self._lock:
                    self._open -= {remote, engine}


class Flow:
    """Both directions of one connection, in one thread, without blocking."""

    def __init__(
        self,
        remote: socket.socket,
        engine: socket.socket,
        side: PlainSide,
        told: Callable[[], None],
    ) -> None:
        self.remote, self.engine, self.side, self._told = remote, engine, side, told
        self.to_engine = self.to_remote = b""
        self.engine_ended = False  # it sends no more
        self.engine_shut = self.remote_shut = False  # we have told them so
        remote.setblocking(False)
        engine.setblocking(False)

    def run(self) -> None:
        """Raises OSError where a side breaks, ssl.SSLError where its TLS is not right."""
        while not (self.engine_ended and self.side.ended and not self.to_engine + self.to_remote):
            reads = [self.remote] if not self.side.ended and len(self.to_engine) < MOST_HELD else []
            if not self.engine_ended and len(self.to_remote) < MOST_HELD:
                reads.append(self.engine)
            writes = [self.remote] if self.to_remote else []
            if self.to_engine:
                writes.append(self.engine)
            readable, writable, _ = select.select(reads, writes, [])
            if self.remote in readable:
                plain, answer = self.side.feed(self.remote.recv(BLOCK))
                self.to_engine += plain
                self.to_remote += answer
            if self.engine in readable:
                self._from_engine(self.engine.recv(BLOCK))
            if self.remote in writable:
                self.to_remote = self.to_remote[self.remote.send(self.to_remote) :]
            if self.engine in writable:
                self.to_engine = self.to_engine[self.engine.send(self.to_engine) :]
            self._pass_ends_on()

    def _from_engine(self, data: bytes) -> None:
        if data:
            self.to_remote += self.side.seal(data)
            return
        self.engine_ended = True
        self.to_remote += self.side.end()

    def _pass_ends_on(self) -> None:
        if self.side.ended and not self.side.clean:
            raise ConnectionResetError("the remote side ended without close_notify")
        if self.side.ended and not self.to_engine and not self.engine_shut:
            self.engine_shut = True
            self.engine.shutdown(socket.SHUT_WR)
        if self.engine_ended and not self.to_remote and not self.remote_shut:
            self.remote_shut = True
            if type(self.side) is PlainSide:
                self.remote.shutdown(socket.SHUT_WR)
            if not self.side.ended:
                self._told()
