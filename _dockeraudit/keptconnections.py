"""Kept connections between requests: one thread waits for all of them, and serves short requests.

A connection's own thread lends the connection here once its first request is over, and sleeps. What
is short is then served here from beginning to end: a request without a body whose answer is no
stream. For everything else the connection's own thread is woken.

Why: a thread that waits in a system call gives up the interpreter's lock and must get it back. With
a thread a connection, 32 clients that ask at once hand the lock on some eight times a request, and
get a quarter of the answers that one thread for all of them gives.

Threads. `_lock` guards the book of who waits. A connection is served by the thread of this room as
long as it stands in that book, and by its own thread otherwise.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence
from typing import Protocol

EVENTS_A_TURN = 64  # sockets that are served before the kernel is asked again


class Lent(Protocol):
    """A kept connection that waits here."""

    called: threading.Semaphore  # released when its own thread is to go on

    def descriptors(self) -> Sequence[int]:
        """Of the client's socket, and of the kept one to the engine."""

    def serve_short(self, fileno: int) -> bool:
        """Serve what has come on a descriptor, without waiting; False for its own thread to do."""


class KeptConnections:
    """The connections that wait for a request, or for the answer to a short one."""

    def __init__(self) -> None:
        self._waiting: dict[int, Lent] = {}  # by each descriptor
        self._epoll: select.epoll | None = None  # while the thread runs
        self._end = -1  # the pipe whose closing ends the thread
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread; until then every connection waits for itself. Raises OSError."""
        self._epoll = epoll = select.epoll()
        ended, self._end = os.pipe()
        epoll.register(ended, select.EPOLLIN)
        thread = threading.Thread(
            target=self._serve, name="kept connections", args=(epoll, ended), daemon=True
        )
        thread.start()

    def lend(self, connection: Lent) -> None:
        """Wait, in the connection's own thread, until that is needed again.

        Returns at once where the kernel has no room for one more.
        """
        with self._lock:
            if self._epoll is None:
                return
            try:
                for fileno in connection.descriptors():
                    self._waiting[fileno] = connection
                    self._epoll.register(fileno, select.EPOLLIN)
            except OSError:
                self._forget(connection)
                return
        connection.called.acquire()

    def stop(self) -> None:
        """End the thread; what still waits goes on in its own threads."""
        with self._lock:
            if self._end >= 0:
                os.close(self._end)
                self._end = -1

    def _serve(self, epoll: select.epoll, ended: int) -> None:
        """Serve those that wait, until the pipe is closed."""
        while True:
            for fileno, _ in epoll.poll(-1, EVENTS_A_TURN):
                if fileno == ended:
                    self._stopped(epoll, ended)
                    return
                connection = self._waiting.get(fileno)  # None: given back in this turn
                if connection and not connection.serve_short(fileno):
                    self._give_back(connection)

    def _give_back(self, connection: Lent) -> None:
        with self._lock:
            self._forget(connection)
        connection.called.release()

    def _stopped(self, epoll: select.epoll, ended: int) -> None:
        with self._lock:
            self._epoll = None
            left = {id(connection): connection for connection in self._waiting.values()}
            self._waiting.clear()
        epoll.close()
        os.close(ended)
        for connection in left.values():
            connection.called.release()

    def _forget(self, connection: Lent) -> None:
        """Take a connection out of the book. Call with the lock."""
        for fileno in connection.descriptors():
            if self._waiting.pop(fileno, None) and self._epoll:
                try:
                    self._epoll.unregister(fileno)
                except OSError:
                    pass  # the kernel had no room for it
