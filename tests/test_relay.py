"""The relay of one exchange, tested as a dialogue: who says what, and what reaches the other."""

from __future__ import annotations

from typing import Any

import pytest

from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import body_reader
from _dockeraudit.relay import MAX_READ_AHEAD, Relay, RelayState
from _dockeraudit.routes import offered_protocols, parse_request
from conftest import splits

GET = b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n"
POST = b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 6\r\n\r\n"
CHUNKED_POST = b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
LOGS = b"GET /containers/web/logs?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n"
ATTACH = b"POST /containers/web/attach HTTP/1.1\r\nHost: d\r\n"
UPGRADE = ATTACH + b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
HIJACK = ATTACH + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCHED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class Dialogue:
    """A relay between two parties that take at once whatever is for them."""

    def __init__(self, request: bytes, *, reused: bool = False, unread: bytes = b"") -> None:
        head, route = parse_request(request)
        upgrade = offered_protocols(head, route, False)
        self.opened: list[tuple[RelayState, str]] = []
        self.relay = Relay(head, route, upgrade, self._opened, reused=reused, unread=unread)
        self.heard: list[bytes] = []  # payload for the audit
        self.typed: list[bytes] = []

    def _opened(self, relay: Relay, framing: Any) -> Any:
        self.opened.append((relay.state, framing.kind))
        return body_reader(framing, collect=True)

    def client_says(self, data: bytes) -> bytes:
        """The client sends; what the engine gets of it."""
        self.typed.append(self.relay.from_client(data))
        return self.engine_takes()

    def engine_says(self, data: bytes) -> bytes:
        """The engine sends; what the client gets of it."""
        self.heard.append(self.relay.from_engine(data))
        return self.client_takes()

    def engine_takes(self) -> bytes:
        """What waits for the engine, taken."""
        taken, self.relay.engine.pending = bytes(self.relay.engine.pending), b""
        return taken

    def client_takes(self) -> bytes:
        """What waits for the client, taken."""
        taken, self.relay.client.pending = bytes(self.relay.client.pending), b""
        return taken


def test_a_request_and_its_answer_leave_both_connections_open() -> None:
    talk = Dialogue(GET)
    assert talk.relay.state is RelayState.REQUEST
    assert talk.engine_takes() == GET
    assert talk.engine_says(OK) == OK
    relay = talk.relay
    assert relay.state is RelayState.BODY and relay.finished
    assert (relay.keep_client, relay.keep_engine, relay.status) == (True, True, 200)
    assert talk.opened == [(RelayState.BODY, "length")] and b"".join(talk.heard) == b"ok"


def test_an_answer_is_the_same_wherever_its_bytes_are_cut() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    body = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n"
    answer = interim + b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    for parts in splits(answer):
        talk = Dialogue(GET)
        got = b"".join(talk.engine_says(part) for part in parts)
        assert got == answer and b"".join(talk.heard) == b"abcdefg"
        assert talk.relay.status == 201


def test_requests_and_answers_flow_at_the_same_time() -> None:
    talk = Dialogue(POST)
    assert talk.engine_takes() == POST
    assert talk.client_says(b"abc") == b"abc"
    assert talk.engine_says(OK) == OK  # an early answer does not wait for the rest
    assert not talk.relay.finished
    assert talk.client_says(b"def") == b"def"
    assert talk.relay.finished


def test_an_engine_that_resets_behind_its_early_answer_has_not_cut_it() -> None:
    talk = Dialogue(POST)
    talk.engine_takes()
    talk.engine_says(OK)  # the client is still sending, and has to be let read this
    talk.relay.engine_ended(broken=True)
    assert talk.relay.finished and not talk.relay.engine_broke and talk.relay.keep_client


def test_bytes_behind_a_request_are_the_next_ones() -> None:
    talk = Dialogue(POST, unread=b"abcdefGET /next")
    assert talk.client_says(b"") == POST + b"abcdef"
    assert talk.relay.unread == b"GET /next"
    assert talk.client_says(b" HTTP/1.1") == b"" and talk.relay.unread == b"GET /next HTTP/1.1"
    assert talk.relay.wants_client
    talk.client_says(b"x" * MAX_READ_AHEAD)
    assert not talk.relay.wants_client


def test_an_empty_line_behind_a_request_does_not_keep_the_clients_end_back() -> None:
    talk = Dialogue(GET, unread=b"\r\n\n")
    talk.client_says(b"")
    talk.relay.client.ended = True
    assert talk.relay.unread == b"" and talk.relay.engine_shut_due


def test_a_request_body_that_is_not_chunked_coding_is_refused() -> None:
    talk = Dialogue(CHUNKED_POST)
    with pytest.raises(HTTPError) as caught:
        talk.client_says(b"zz\r\n")
    assert caught.value.status == 400 and not talk.relay.answered


def test_a_slow_client_stops_the_engine_from_being_read() -> None:
    talk = Dialogue(LOGS)
    talk.engine_takes()
    talk.relay.from_engine(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert not talk.relay.wants_engine and talk.relay.wants_client
    talk.client_takes()
    assert talk.relay.wants_engine


def test_a_stalled_engine_stops_the_client_from_being_read() -> None:
    talk = Dialogue(POST)
    assert not talk.relay.wants_client  # the head has not been taken
    talk.engine_takes()
    assert talk.relay.wants_client


@pytest.mark.parametrize(
    "request_head, answer", [(UPGRADE, SWITCHED), (HIJACK, b"HTTP/1.1 200 OK\r\n\r\n")]
)
def test_a_tunnel_passes_bytes_both_ways_until_both_sides_have_ended(
    request_head: bytes, answer: bytes
) -> None:
    talk = Dialogue(request_head, unread=b"sent ahead")
    relay = talk.relay
    talk.engine_takes()
    assert talk.engine_says(answer + b"first").endswith(b"first")
    assert relay.state is RelayState.TUNNEL and relay.stream
    assert talk.client_says(b"") == b"sent ahead" and talk.client_says(b" typed") == b" typed"
    assert talk.typed[-2:] == [b"sent ahead", b" typed"]
    relay.client.ended = True
    assert relay.engine_shut_due and not relay.finished  # the engine may still speak
    relay.engine.shut = True
    assert talk.engine_says(b"last") == b"last" and not relay.engine_shut_due
    relay.engine_ended()
    assert relay.client_shut_due and relay.finished and relay.reason == "end"


def test_a_clients_end_counts_once_its_bytes_have_been_forwarded() -> None:
    talk = Dialogue(POST)
    talk.relay.from_client(b"abcdef")
    talk.relay.client.ended = True
    assert not talk.relay.engine_shut_due
    talk.engine_takes()
    assert talk.relay.engine_shut_due


def test_a_reused_connection_that_had_ended_is_told_from_one_that_fails() -> None:
    stale = Dialogue(GET, reused=True)
    stale.relay.engine_ended()
    assert stale.relay.state is RelayState.STALE and stale.relay.finished
    for talk in (Dialogue(GET), Dialogue(POST, reused=True)):
        with pytest.raises(EngineError):
            talk.relay.engine_ended()
    begun = Dialogue(GET, reused=True)
    begun.engine_says(b"HTTP/1.1 200 O")
    with pytest.raises(EngineError):
        begun.relay.engine_ended()


def test_a_protocol_that_nobody_offered_is_refused() -> None:
    with pytest.raises(EngineError):
        Dialogue(HIJACK).engine_says(SWITCHED)


@pytest.mark.parametrize(
    "answer, broken, reason",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", False, "engine"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", False, "cut_chunk"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", False, "end"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil a reset", True, "engine"),
    ],
)
def test_a_body_that_ends_early_says_so_and_closes_the_client(
    answer: bytes, broken: bool, reason: str
) -> None:
    talk = Dialogue(GET)
    assert talk.engine_says(answer).endswith(answer.rpartition(b"\r\n")[2])
    talk.relay.engine_ended(broken)
    relay = talk.relay
    assert relay.finished and not relay.keep_client and not relay.keep_engine
    assert relay.reason == reason and relay.engine_broke is broken


def test_what_stands_behind_an_answer_reaches_nobody() -> None:
    talk = Dialogue(GET)
    talk.engine_takes()
    assert talk.engine_says(OK + b"HTTP/1.1 200 OK\r\n\r\nforged") == OK
    assert talk.relay.finished and not talk.relay.keep_engine and talk.relay.keep_client


def test_an_illegal_chunk_ends_the_answer_without_an_end_of_its_own() -> None:
    talk = Dialogue(GET)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    talk.engine_says(head)
    assert b"0\r\n\r\n" not in talk.engine_says(b"not a size\r\n")
    assert talk.relay.finished and talk.relay.reason == "cut_chunk" and not talk.relay.keep_client


def test_a_log_asks_the_engine_to_close_and_closes_the_client() -> None:
    talk = Dialogue(LOGS)
    assert b"Connection: close\r\n" in talk.engine_takes()
    answer = talk.engine_says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert b"Connection: close\r\n" in answer
    assert not talk.relay.keep_client and not talk.relay.keep_engine
    refused = Dialogue(LOGS)
    refused.engine_says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")
    assert refused.relay.keep_client


def test_a_cut_is_final_and_its_reason_is_kept() -> None:
    talk = Dialogue(GET)
    talk.relay.cut("shutdown")
    talk.engine_says(OK)
    talk.relay.client_gone()
    assert talk.relay.state is RelayState.CUT and talk.relay.reason == "shutdown"


def test_a_client_that_goes_away_is_the_reason() -> None:
    talk = Dialogue(LOGS)
    talk.relay.client_gone()
    assert talk.relay.finished and talk.relay.reason == "client"


def test_an_engine_that_takes_no_more_may_still_answer() -> None:
    talk = Dialogue(POST)
    talk.relay.engine.stop_taking()
    assert talk.client_says(b"abc") == b"" and not talk.relay.finished
    assert talk.engine_says(OK) == OK and talk.relay.finished


def test_an_opaque_tunnel_passes_everything_on_from_its_first_byte() -> None:
    talk = Dialogue(GET, unread=b"rest")
    talk.relay.begin_opaque(b"PRI * HTTP/2.0\r\n\r\n")
    assert talk.client_says(b"") == b"PRI * HTTP/2.0\r\n\r\nrest"
    assert talk.engine_says(b"frames") == b"frames" and talk.relay.answered
