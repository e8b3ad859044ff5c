"""A request's whole body, held until judges have seen it, and what is then forwarded."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from wire import read_until, send_parts

from _dockeraudit.errors import HTTPError
from _dockeraudit.heldbody import MAX_HELD_BODY, HeldBody, awaits_continue, with_body
from _dockeraudit.holding import hold_body
from _dockeraudit.http1 import RequestHead
from _dockeraudit.routes import parse_request
from conftest import DEADLINE, splits

START = b"POST /containers/create HTTP/1.1\r\nHost: d\r\n"


def head_of(*fields: bytes, start: bytes = START) -> RequestHead:
    return parse_request(start + b"".join(field + b"\r\n" for field in fields) + b"\r\n")[0]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, ours = socket.socketpair()
    for sock in (client, ours):
        sock.settimeout(DEADLINE)
    with client, ours:
        yield client, ours


# ================================================================================================
# holding
# ================================================================================================

BODIES = [
    ("no body", [], b"", b""),
    ("of length zero", [b"Content-Length: 0"], b"", b""),
    ("of a length", [b"Content-Length: 5"], b"hello", b"hello"),
    (
        "in chunks",
        [b"Transfer-Encoding: chunked"],
        b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"hello",
    ),
    (
        "with a trailer",
        [b"Transfer-Encoding: chunked"],
        b"5\r\nhello\r\n0\r\nA: b\r\n\r\n",
        b"hello",
    ),
]


@pytest.mark.parametrize(("name", "fields", "wire", "payload"), BODIES, ids=[b[0] for b in BODIES])
def test_a_body_is_held_whatever_its_framing_and_cuts(
    name: str, fields: list[bytes], wire: bytes, payload: bytes
) -> None:
    rest = b"GET /_ping HTTP/1.1\r\n"
    for parts in splits(wire + rest, 7):
        held, behind = HeldBody(head_of(*fields)), b""
        for part in parts:
            behind += part[held.feed(part) :]
        assert held.done and bytes(held.payload) == payload and behind == rest


def test_a_body_that_is_announced_as_too_long_is_refused_before_it_comes() -> None:
    HeldBody(head_of(b"Content-Length: %d" % MAX_HELD_BODY))
    with pytest.raises(HTTPError) as raised:
        HeldBody(head_of(b"Content-Length: %d" % (MAX_HELD_BODY + 1)))
    assert raised.value.status == 413 and str(MAX_HELD_BODY) in str(raised.value)


def test_chunks_that_sum_up_to_too_much_are_refused() -> None:
    held = HeldBody(head_of(b"Transfer-Encoding: chunked"))
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(MAX_HELD_BODY // 65536):
        held.feed(chunk)
    with pytest.raises(HTTPError) as raised:
        held.feed(b"1\r\ny\r\n")
    assert raised.value.status == 413


@pytest.mark.parametrize(
    "wire", [b"0x5\r\nhello\r\n0\r\n\r\n", b"4\r\nhello\r\n", b"-1\r\n", b"5\n"]
)
def test_a_body_that_breaks_its_framing_is_refused(wire: bytes) -> None:
    held = HeldBody(head_of(b"Transfer-Encoding: chunked"))
    with pytest.raises(HTTPError) as raised:
        held.feed(wire)
    assert raised.value.status == 400


# ================================================================================================
# what is forwarded
# ================================================================================================


def test_a_head_that_fits_its_body_is_forwarded_as_it_came() -> None:
    head = head_of(b"X-Odd:  Case ", b"content-LENGTH: 5")
    assert with_body(head, b"hello") is head
    empty = head_of()
    assert with_body(empty, b"") is empty


def test_another_head_differs_in_the_fields_of_the_body_alone() -> None:
    fields = [
        b"X-A: 1",
        b"Transfer-Encoding: chunked",
        b"Trailer: A",
        b"x-b:2",
        b"Expect: 100-Continue",
    ]
    head = with_body(head_of(*fields), b"hello")
    assert head.end_to_end == START + b"X-A: 1\r\nx-b:2\r\nContent-Length: 5\r\n"
    assert (head.method, head.target, head.framing) == (
        b"POST",
        b"/containers/create",
        ("length", 5),
    )
    assert head.index[b"content-length"] == [b"5"] and b"transfer-encoding" not in head.index


def test_a_body_that_a_judge_changed_has_a_length_set_anew() -> None:
    head = with_body(head_of(b"Content-Length: 2", b"Content-Type: application/json"), b'{"a":1}')
    assert head.end_to_end == START + b"Content-Type: application/json\r\nContent-Length: 7\r\n"
    assert with_body(head_of(), b"{}").end_to_end == START + b"Content-Length: 2\r\n"


# ================================================================================================
# reading it from a client
# ================================================================================================


def test_a_body_is_read_from_the_socket_and_what_is_behind_it_stays(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, ours = pair
    charged: list[int] = []
    for cut, parts in enumerate(splits(b"5\r\nhello\r\n0\r\n\r\nGET", 3)):
        sender = threading.Thread(target=send_parts, args=(client, parts[1:]))
        sender.start()
        body, rest = hold_body(
            ours, parts[0], head_of(b"Transfer-Encoding: chunked"), charged.append
        )
        while rest != b"GET":
            rest += ours.recv(3)
        sender.join(DEADLINE)
        assert body == b"hello" and charged[-1] == 5, cut


def test_a_client_that_waits_to_be_told_is_told_once(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, ours = pair
    head = head_of(b"Expect: 100-continue", b"Content-Length: 2")

    def talk() -> None:
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"h")
        client.sendall(b"i")

    talker = threading.Thread(target=talk)
    talker.start()
    assert hold_body(ours, b"", head, lambda size: None) == (b"hi", b"")
    talker.join(DEADLINE)
    assert hold_body(ours, b"hi", head, lambda size: None) == (b"hi", b"")  # it has not waited
    ours.close()
    assert client.recv(100) == b""


def test_who_cannot_expect_is_told_nothing() -> None:
    assert awaits_continue(head_of(b"Expect: 100-CONTINUE", b"Content-Length: 1"))
    old = START.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert not awaits_continue(head_of(b"Expect: 100-continue", start=old))
    assert not awaits_continue(head_of())
    with pytest.raises(HTTPError) as raised:
        awaits_continue(head_of(b"Expect: 200-ok"))
    assert raised.value.status == 417


def test_a_body_that_trickles_or_ends_early_is_refused(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, ours = pair
    head = head_of(b"Content-Length: 9")
    with pytest.raises(HTTPError) as raised:
        hold_body(ours, b"half", head, lambda size: None, seconds=0.01)
    assert raised.value.status == 408
    client.close()
    with pytest.raises(HTTPError) as raised:
        hold_body(ours, b"half", head, lambda size: None)
    assert raised.value.status == 400 and "ended within" in str(raised.value)
