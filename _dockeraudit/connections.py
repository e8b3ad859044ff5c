"""Which clients are connected, and which connection goes when there is no room for a new one.

Threads. A listener's accepting thread calls `join`, a connection's own thread everything else.
`_lock` guards the books and is never held over a system call.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import Any, Protocol

from _dockeraudit.budgets import budget_key
from _dockeraudit.sockets import shut_down


class Running(Protocol):
    """An exchange, as far as others may know it."""

    @property
    def endless(self) -> bool:
        """Whether it goes on until somebody ends it."""

    @property
    def kind(self) -> str:
        """What people call it: `followed logs`, `build`, …"""

    def cut(self, reason: str) -> None:
        """End it, from another thread."""


class Connection:
    """A client's connection: its socket, who it is, and what it does now.

    `idle_since`: monotonic seconds since it waits for a request's first byte; None otherwise.
    `request`: a request's head has come, and its answer is not complete.
    """

    def __init__(self, sock: socket.socket, identity: dict[str, Any], now: float) -> None:
        self.sock = sock
        self.identity = identity
        self.client = budget_key(identity)
        self.idle_since: float | None = now
        self.request = False
        self.exchange: Any = None  # the Exchange that runs, of room `exchange`


class Connections:
    """The open connections of all listeners: at most `most`, half of them of one client."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._all: set[Connection] = set()
        self._by_client: Counter[str] = Counter()
        self._lock = threading.Lock()

    def join(self, connection: Connection) -> bool:
        """Take a connection in; False where it has no room.

        Room is made by closing the connection that has been idle longest: one of the same client if
        that has half of all, else anybody's.
        """
        with self._lock:
            victim = None
            if self._by_client[connection.client] >= max(1, self.most // 2):
                victim = self._idlest(connection.client)
                if victim is None:
                    return False
            elif len(self._all) >= self.most:
                victim = self._idlest()
                if victim is None:
                    return False
            if victim:
                self._remove(victim)
            self._all.add(connection)
            self._by_client[connection.client] += 1
        if victim:
            shut_down(victim.sock)
        return True

    def leave(self, connection: Connection) -> None:
        """A connection has ended."""
        with self._lock:
            self._remove(connection)

    def open(self) -> list[Connection]:
        """The connections that are open now."""
        with self._lock:
            return list(self._all)

    def exchanges(self) -> list[Any]:
        """The exchanges that run now."""
        running = [connection.exchange for connection in self.open()]
        return [exchange for exchange in running if exchange is not None]

    def _idlest(self, client: str | None = None) -> Connection | None:
        """The connection that has been idle longest, of one client or of all."""
        idle = [
            (since, number, connection)
            for number, connection in enumerate(self._all)
            if (since := connection.idle_since) is not None
            and (client is None or connection.client == client)
        ]
        return min(idle)[2] if idle else None

    def _remove(self, connection: Connection) -> None:
        if connection in self._all:
            self._all.discard(connection)
            self._by_client[connection.client] -= 1
            if not self._by_client[connection.client]:
                del self._by_client[connection.client]
