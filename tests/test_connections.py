"""Who is connected, and who makes room."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Union

import pytest

from _dockeraudit.connections import Connection, Connections


class Clients:
    """Connections of clients, with the other end of each."""

    def __init__(self, most: int) -> None:
        self.connections = Connections(most)
        self.sockets: list[socket.socket] = []

    def connect(self, client: Union[str, int], idle_since: float | None) -> Connection | None:
        """A new connection that has been idle since then (None: busy); None if it has no room."""
        ours, theirs = socket.socketpair()
        self.sockets += [ours, theirs]
        key = "address" if isinstance(client, str) else "uid"
        connection = Connection(ours, {"listener": "l", key: client}, 0.0)
        connection.idle_since = idle_since
        return connection if self.connections.join(connection) else None


@pytest.fixture
def clients() -> Iterator[Any]:
    """Makes Clients; closes what they opened."""
    made: list[Clients] = []

    def make(most: int) -> Clients:
        made.append(Clients(most))
        return made[-1]

    yield make
    for each in made:
        for sock in each.sockets:
            sock.close()


def is_shut(connection: Connection) -> bool:
    """Whether the connection has been shut down."""
    return connection.sock.recv(1, socket.MSG_DONTWAIT) == b"" if readable(connection) else False


def readable(connection: Connection) -> bool:
    """Whether something can be read, an end too."""
    try:
        connection.sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


def test_one_client_holds_at_most_half_and_others_still_come_in(clients: Any) -> None:
    crowd = clients(8)
    assert all(crowd.connect("10.0.0.1", None) for _ in range(4))
    assert crowd.connect("10.0.0.1", None) is None
    assert all(crowd.connect(f"10.0.1.{number}", None) for number in range(4))
    assert crowd.connect("10.0.2.1", None) is None


def test_the_connection_that_has_been_idle_longest_makes_room(clients: Any) -> None:
    crowd = clients(4)
    old, young = crowd.connect("a", 1.0), crowd.connect("b", 2.0)
    busy, other = crowd.connect("c", None), crowd.connect("d", 3.0)
    assert crowd.connect("e", None)
    assert is_shut(old) and not any(map(is_shut, (young, busy, other)))
    assert set(crowd.connections.open()) >= {young, busy, other}
    assert len(crowd.connections.open()) == 4


def test_a_client_with_its_half_makes_room_among_its_own(clients: Any) -> None:
    crowd = clients(6)
    stranger = crowd.connect("b", 0.0)  # idle longer than any of a's
    mine = [crowd.connect("a", since) for since in (3.0, 1.0, 2.0)]
    assert crowd.connect("a", None)
    assert [is_shut(each) for each in mine] == [False, True, False] and not is_shut(stranger)


def test_a_connection_that_has_left_counts_no_more_even_if_it_leaves_twice(clients: Any) -> None:
    crowd = clients(4)
    first, second = crowd.connect(0, None), crowd.connect(0, None)
    assert crowd.connect(0, None) is None
    crowd.connections.leave(first)
    crowd.connections.leave(first)
    assert crowd.connect(0, None) and crowd.connect(0, None) is None
    assert second in crowd.connections.open()


def test_uid_and_address_tell_clients_apart_whatever_their_pid(clients: Any) -> None:
    crowd = clients(2)
    assert crowd.connect(0, None) and crowd.connect(1000, None)
    assert crowd.connect(0, None) is None


def test_only_connections_with_a_request_under_way_have_an_exchange(clients: Any) -> None:
    crowd = clients(4)
    first = crowd.connect("a", None)
    crowd.connect("b", 1.0)
    first.exchange = "running"
    assert crowd.connections.exchanges() == ["running"]
