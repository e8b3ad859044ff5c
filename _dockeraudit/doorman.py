"""Answers the connections that are turned away, in one thread for all of them.

A connection without room, or of a client that may not connect, must not hold a thread of its own.
"""

from __future__ import annotations

import select
import socket
import threading
import time

from _dockeraudit.engine import BLOCK
from _dockeraudit.sockets import NO_WAIT, half_close

MOST_WAITING = 256  # connections that wait for their refusal; beyond, the oldest is closed
PATIENCE = 2.0  # seconds for a client to send its request, and to read the answer
TURN = 0.05  # seconds between looks at all of them


class Refused:
    """A connection that is turned away: the answer still to be given, and when patience ends."""

    def __init__(self, answer: bytes, deadline: float) -> None:
        self.answer = answer
        self.deadline = deadline


class Doorman:
    """Refuses connections. Its thread lives only while there are some.

    A client is answered once it has sent something: HTTP clients take an answer that comes before
    their request for a broken server's. What it still sends is read and dropped, since closing over
    unread bytes would reset the connection and lose the answer (RFC 9112 §9.6).
    """

    def __init__(self) -> None:
        self._waiting: dict[socket.socket, Refused] = {}
        self._lock = threading.Lock()
        self._running = False

    def turn_away(self, sock: socket.socket, answer: bytes) -> None:
        """Answer a connection and close it; returns at once, the socket is the doorman's now."""
        excess = None
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                excess = next(iter(self._waiting))
                del self._waiting[excess]
            self._waiting[sock] = Refused(answer, time.monotonic() + PATIENCE)
            start, self._running = not self._running, True
        if excess:
            excess.close()
        if start:
            self._start()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._serve, name="doorman", daemon=True).start()
        except RuntimeError:  # no thread can be started: they are closed unanswered
            with self._lock:
                waiting, self._waiting, self._running = self._waiting, {}, False
            for sock in waiting:
                sock.close()

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                waiting = dict(self._waiting)
            speaking = readable(list(waiting), TURN)
            now = time.monotonic()
            for sock, refused in waiting.items():
                if now > refused.deadline or (sock in speaking and not attend(sock, refused)):
                    self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        with self._lock:
            known = self._waiting.pop(sock, None)
        if known:
            sock.close()


def readable(sockets: list[socket.socket], seconds: float) -> set[socket.socket]:
    """Those of the sockets that can be read now, or within so many seconds; closed ones too."""
    poll = select.poll()
    by_fileno = {sock.fileno(): sock for sock in sockets}
    for fileno in by_fileno:
        if fileno >= 0:
            poll.register(fileno, select.POLLIN)
    ready = {by_fileno[fileno] for fileno, _ in poll.poll(seconds * 1000)}
    return ready | {sock for sock in sockets if sock.fileno() < 0}


def attend(sock: socket.socket, refused: Refused) -> bool:
    """Read what a client says, and answer it once; False when the client has gone."""
    try:
        data = sock.recv(BLOCK, NO_WAIT)
        if data and refused.answer:
            sock.send(refused.answer, NO_WAIT)
            refused.answer = b""
            half_close(sock)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return bool(data)
