"""Reads a request's whole body from its client's socket, for the judges of a listener."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple

from _dockeraudit.errors import HTTPError
from _dockeraudit.heldbody import BodyJudge, HeldBody, Verdict, awaits_continue
from _dockeraudit.http1 import RequestHead
from _dockeraudit.routes import Route
from _dockeraudit.sockets import Pending, receive, send_some, wait_until

#: Seconds from a held body's head to the body's end: 1 MiB at 35 kB a second. Beyond, a client that
#: sends a byte now and then would hold a thread.
BODY_TIMEOUT = 30.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def hold_body(
    sock: socket.socket,
    buffer: bytes,
    head: RequestHead,
    charge: Callable[[int], None],
    *,
    seconds: float = BODY_TIMEOUT,
) -> tuple[bytes, bytes]:
    """The body of `head`, and what came behind it. `buffer`: what has come behind the head.

    `charge` is told how many bytes of it are held; it may raise. Raises HTTPError: 400 for a body
    that ends early or is illegal, 408 for one that takes too long, 413 for one too long, 417.
    """
    held, deadline = HeldBody(head), time.monotonic() + seconds
    to_continue = awaits_continue(head)
    while True:
        rest = buffer[held.feed(buffer) :]
        charge(len(held.payload))
        if held.done:
            return bytes(held.payload), rest
        if to_continue:
            send_within(sock, CONTINUE, deadline)
            to_continue = False
        buffer = await_body(sock, deadline)


def await_body(sock: socket.socket, deadline: float) -> bytes:
    """More bytes of a body; raises HTTPError (400, 408) where none come."""
    while True:
        buffered = isinstance(sock, ssl.SSLSocket) and sock.pending()
        if not buffered and not wait_until(sock, select.POLLIN, deadline - time.monotonic()):
            raise HTTPError(408, "the request's body was not complete in time")
        data = receive(sock)
        if data:
            return data
        if data is not None:
            raise HTTPError(400, "the connection ended within the request's body")


def send_within(sock: socket.socket, data: bytes, deadline: float) -> None:
    """Send all of some bytes; raises HTTPError (408) where the client does not take them."""
    rest: Pending = data
    while rest:
        rest = send_some(sock, rest)
        if rest and not wait_until(sock, select.POLLOUT, deadline - time.monotonic()):
            raise HTTPError(408, "the client did not take the answer that it waits for")


class Whole(NamedTuple):
    """A request that is to be seen whole. `buffer`: what has come behind its head."""

    sock: socket.socket
    buffer: bytes
    head: RequestHead
    route: Route


def judge_whole(
    asked: Whole, judges: Sequence[BodyJudge], charge: Callable[[int], None]
) -> tuple[Verdict, bytes] | None:
    """What those judges say of a request that want to see it, and what came behind it.

    None: nobody wants to, and nothing has been read. `charge`: see `hold_body`, which may raise.
    """
    _, buffer, head, route = asked
    wanting = [judge for judge in judges if judge.wants(head, route)]
    if not wanting:
        return None
    body, rest = hold_body(asked.sock, buffer, head, charge)
    objections: list[tuple[str, ...]] = []
    for judge in wanting:
        body, more = judge.judge(head, route, body)
        objections += more
    return Verdict(body, tuple(objections)), rest
