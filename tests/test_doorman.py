"""Connections that are turned away: answered once they speak, by one thread for all."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any

import _dockeraudit.doorman as doorman_room
from _dockeraudit.doorman import MOST_WAITING, Doorman
from conftest import wait_for

ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def refused(doorman: Doorman) -> socket.socket:
    """A connection that has been turned away: the client's end."""
    ours, theirs = socket.socketpair()
    doorman.turn_away(ours, ANSWER)
    theirs.settimeout(10)
    return theirs


def threads() -> int:
    return sum(thread.name == "doorman" for thread in threading.enumerate())


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(4096):
        parts.append(part)
    return b"".join(parts)


def test_a_client_is_answered_when_it_has_sent_its_request() -> None:
    with refused(Doorman()) as client:
        assert not select.select([client], [], [], 0.1)[0]
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_all(client) == ANSWER
    wait_for(lambda: not threads(), "the doorman's thread to end")


def test_one_thread_answers_many_clients_and_ends_with_the_last() -> None:
    doorman = Doorman()
    clients = [refused(doorman) for _ in range(50)]
    assert threads() == 1
    for client in clients:
        client.sendall(b"x" * 100_000)  # more than a request: it is read and dropped
        assert read_all(client) == ANSWER
        client.close()
    wait_for(lambda: not threads(), "the doorman's thread to end")


def test_a_silent_client_is_closed_without_an_answer(monkeypatch: Any) -> None:
    monkeypatch.setattr(doorman_room, "PATIENCE", 0.05)
    with refused(Doorman()) as client:
        assert read_all(client) == b""


def test_the_oldest_makes_room_where_too_many_wait() -> None:
    doorman = Doorman()
    clients = [refused(doorman) for _ in range(MOST_WAITING + 1)]
    assert read_all(clients[0]) == b""
    clients[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert read_all(clients[1]) == ANSWER
    for client in clients:
        client.close()
    wait_for(lambda: not threads(), "the doorman's thread to end")


def test_without_a_thread_they_are_closed(monkeypatch: Any) -> None:
    def no_thread(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    doorman = Doorman()
    with refused(doorman) as client:
        assert read_all(client) == b""
    monkeypatch.undo()
    with refused(doorman) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_all(client) == ANSWER
    wait_for(lambda: not threads(), "the doorman's thread to end")
