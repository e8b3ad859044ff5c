"""Tests of http1: the grammar of heads, framing, chunked bodies.

Tables first, each run whole, byte by byte and cut at seeded places; then properties over generated
bytes; then the same bytes given to h11.
"""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _dockeraudit import http1
from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import (
    HOP_FIELDS,
    KNOWN_HEAD,
    KNOWN_HEADS,
    KNOWN_SIZES,
    MAX_HEAD,
    MAX_READ_FIELDS,
    MAX_TRAILER,
    ChunkedReader,
    Framing,
    LengthReader,
    RequestHead,
    empty_lines,
    forwarded_request_head,
    forwarded_response_head,
    head_length,
    parse_request_head,
    parse_response_head,
    read_response_head,
    request_framing,
    response_framing,
)
from conftest import splits

#: as many examples as a second allows, the same ones in every run
BOUNDED = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def read_head(parts: Sequence[bytes], what: str = "request") -> tuple[bytes, bytes] | None:
    """A head that comes in parts, and the bytes behind it; None if it never ends.

    Empty lines before a request line are dropped, as the handler of a connection does.
    """
    buffer, seen = b"", 0
    for number, part in enumerate(parts):
        buffer += part
        if what == "request":
            buffer = buffer[empty_lines(buffer) :]
        length = head_length(buffer, seen, what) if buffer else 0
        if length:
            return buffer[:length], buffer[length:] + b"".join(parts[number + 1 :])
        seen = len(buffer)
    return None


def request(data: bytes) -> RequestHead:
    """The head of a request that is all there."""
    found = read_head([data])
    assert found is not None, "the head has no end"
    head = parse_request_head(found[0])
    request_framing(head)
    return head


def refusal(parts: Sequence[bytes]) -> int | None:
    """The status that refuses a head's bytes; None if it is legal, 408 if it has no end."""
    try:
        found = read_head(parts)
        if found is None:
            return 408
        request_framing(parse_request_head(found[0]))
    except HTTPError as error:
        return error.status
    return None


def lines_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """Name and value of each field of a head whose lines end in CR LF."""
    fields = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    return [(name, value.strip(b" \t")) for name, _, value in fields]


# -- request heads

H = b"\r\nHost: docker\r\n"
REFUSED = {
    "bare CR in a value": b"GET / HTTP/1.1" + H + b"X: a\rSmuggled: b\r\n\r\n",
    "bare CR before CR LF": b"GET / HTTP/1.1" + H + b"X: a\r\r\n\r\n",
    "bare CR as line end": b"GET / HTTP/1.1\rHost: a\r\n\r\n",
    "LF CR": b"GET / HTTP/1.1" + H + b"X: a\n\rY: b\r\n\r\n",
    "CR alone before an empty line": b"GET / HTTP/1.1" + H + b"X: a\r\n\r\r\n\r\n",
    "bare CR in a head of LF": b"GET / HTTP/1.1\nHost: d\nX: a\rb\n\n",
    "bare CR before LF": b"GET / HTTP/1.1\nHost: d\nX: a\r\r\n\n",
    "obs-fold in a head of LF": b"GET / HTTP/1.1\nHost: d\nX: a\n b\n\n",
    "NUL in a head of LF": b"GET / HTTP/1.1\nHost: d\nX: a\0b\n\n",
    "no Host in a head of LF": b"GET / HTTP/1.1\nX: a\n\n",
    "length and coding in a head of LF": b"POST / HTTP/1.1\nHost: d\nContent-Length: 1\n"
    b"Transfer-Encoding: chunked\n\n",
    "HTTP/0.9 with LF": b"GET /\n\n",
    "NUL in a value": b"GET / HTTP/1.1" + H + b"X: a\0b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1" + H + b"X\0: a\r\n\r\n",
    "control byte in a value": b"GET / HTTP/1.1" + H + b"X: a\x01b\r\n\r\n",
    "DEL in a value": b"GET / HTTP/1.1" + H + b"X: a\x7f\r\n\r\n",
    "vertical tab in a value": b"GET / HTTP/1.1" + H + b"X: a\x0bb\r\n\r\n",
    "obs-fold": b"GET / HTTP/1.1" + H + b"X: a\r\n b\r\n\r\n",
    "obs-fold with a tab": b"GET / HTTP/1.1" + H + b"X: a\r\n\tb\r\n\r\n",
    "fold before the first field": b"GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1" + H + b"X : a\r\n\r\n",
    "tab before the colon": b"GET / HTTP/1.1" + H + b"X\t: a\r\n\r\n",
    "space in a name": b"GET / HTTP/1.1" + H + b"X Y: a\r\n\r\n",
    "empty name": b"GET / HTTP/1.1" + H + b": a\r\n\r\n",
    "no colon": b"GET / HTTP/1.1" + H + b"Nonsense\r\n\r\n",
    "letter beyond ASCII in a name": b"GET / HTTP/1.1" + H + b"\xc3\x84: a\r\n\r\n",
    "bracket in a name": b"GET / HTTP/1.1" + H + b"X[0]: a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\nX: a\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1" + H + b"Host: docker\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0" + H + b"Host: b\r\n\r\n",
    "illegal Host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with a space": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host with user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "differing lengths": b"POST / HTTP/1.1" + H + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "differing spellings of one length": b"POST / HTTP/1.1"
    + H
    + b"Content-Length: 1\r\nContent-Length: 01\r\n\r\n",
    "list of lengths": b"POST / HTTP/1.1" + H + b"Content-Length: 1, 1\r\n\r\n",
    "length with a sign": b"POST / HTTP/1.1" + H + b"Content-Length: +1\r\n\r\n",
    "negative length": b"POST / HTTP/1.1" + H + b"Content-Length: -1\r\n\r\n",
    "length with an underscore": b"POST / HTTP/1.1" + H + b"Content-Length: 1_0\r\n\r\n",
    "hexadecimal length": b"POST / HTTP/1.1" + H + b"Content-Length: 0x1\r\n\r\n",
    "empty length": b"POST / HTTP/1.1" + H + b"Content-Length: \r\n\r\n",
    "length beyond 63 bits": b"POST / HTTP/1.1"
    + H
    + b"Content-Length: 9999999999999999999\r\n\r\n",
    "length and coding": b"POST / HTTP/1.1"
    + H
    + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding and length": b"POST / HTTP/1.1"
    + H
    + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    "unknown coding": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: xchunked\r\n\r\n",
    "identity": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: identity\r\n\r\n",
    "gzip before chunked": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked not last": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1"
    + H
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked with a control byte": b"POST / HTTP/1.1"
    + H
    + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "chunked with a parameter": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: chunked;a=b\r\n\r\n",
    "empty coding": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: \r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0" + H + b"Transfer-Encoding: chunked\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2" + H + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0" + H + b"\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10" + H + b"\r\n",
    "HTTP/1": b"GET / HTTP/1" + H + b"\r\n",
    "http in lower case": b"GET / http/1.1" + H + b"\r\n",
    "ICAP": b"GET / ICAP/1.1" + H + b"\r\n",
    "two spaces": b"GET  / HTTP/1.1" + H + b"\r\n",
    "two spaces before the version": b"GET /  HTTP/1.1" + H + b"\r\n",
    "tab as separator": b"GET\t/ HTTP/1.1" + H + b"\r\n",
    "space at the end": b"GET / HTTP/1.1 " + H + b"\r\n",
    "space in the target": b"GET /a b HTTP/1.1" + H + b"\r\n",
    "space first": b" GET / HTTP/1.1" + H + b"\r\n",
    "illegal method": b"G(T / HTTP/1.1" + H + b"\r\n",
    "no method": b" / HTTP/1.1" + H + b"\r\n",
    "relative target": b"GET containers/json HTTP/1.1" + H + b"\r\n",
    "authority as target": b"GET docker.sock HTTP/1.1" + H + b"\r\n",
    "authority with a port as target": b"GET docker:2375 HTTP/1.1" + H + b"\r\n",
    "URL without a path": b"GET x:containers/x/logs HTTP/1.1" + H + b"\r\n",
    "scheme alone": b"GET x: HTTP/1.1" + H + b"\r\n",
    "asterisk for GET": b"GET * HTTP/1.1" + H + b"\r\n",
    "NUL in the target": b"GET /a\0b HTTP/1.1" + H + b"\r\n",
    "half an escape": b"GET /%4 HTTP/1.1" + H + b"\r\n",
    "no escape at all": b"GET /%zz/logs HTTP/1.1" + H + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_illegal_heads_are_refused_with_400_at_any_cut(name: str) -> None:
    for parts in splits(REFUSED[name], rounds=5):
        assert refusal(parts) == 400, parts


ACCEPTED = {
    "origin form": b"GET /v1.43/containers/json?all=1 HTTP/1.1" + H + b"\r\n",
    "absolute form": b"GET http://docker/containers/json HTTP/1.1" + H + b"\r\n",
    "absolute form of any scheme": b"GET x:/containers/json HTTP/1.1" + H + b"\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1" + H + b"\r\n",
    "authority form": b"CONNECT docker:80 HTTP/1.1" + H + b"\r\n",
    "empty Host": b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "Host with a port": b"GET / HTTP/1.1\r\nHost: [::1]:2375\r\n\r\n",
    "a socket's path as Host": b"GET / HTTP/1.1\r\nHost: %2Fvar%2Frun%2Fdocker.sock\r\n\r\n",
    "HTTP/1.0 without Host": b"GET / HTTP/1.0\r\n\r\n",
    "unknown method": b"BREW /pot HTTP/1.1" + H + b"\r\n",
    "names of all token characters": b"GET / HTTP/1.1" + H + b"!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n",
    "obs-text in a value": b"GET / HTTP/1.1" + H + b"X: \xe4\xff\r\n\r\n",
    "white space around a value": b"GET / HTTP/1.1" + H + b"X: \t a \tb \t\r\n\r\n",
    "empty value": b"GET / HTTP/1.1" + H + b"X:\r\n\r\n",
    "no space behind the colon": b"GET / HTTP/1.1" + H + b"X:a:b\r\n\r\n",
    "the same length twice": b"POST / HTTP/1.1"
    + H
    + b"Content-Length: 1\r\ncontent-length: 1\r\n\r\n",
    "length with zeros in front": b"POST / HTTP/1.1" + H + b"Content-Length: 007\r\n\r\n",
    "chunked in capitals": b"POST / HTTP/1.1" + H + b"Transfer-Encoding: CHUNKED\r\n\r\n",
    "repeated fields": b"GET / HTTP/1.1" + H + b"X: 1\r\nx: 2\r\nX: 3\r\n\r\n",
    "raw UTF-8 in the target": b"GET /containers/\xc3\xa4\xf0\x9f\x90\x8b/json?n=\xc3\xbc HTTP/1.1"
    + H
    + b"\r\n",
    "bytes that are no UTF-8 in the target": b"GET /\x80\xff HTTP/1.1" + H + b"\r\n",
    "quotes and brackets in the target": b'GET /a"<>\\^`{|}#b HTTP/1.1' + H + b"\r\n",
    "a thousand fields": b"GET / HTTP/1.1" + H + b"X: y\r\n" * 1000 + b"\r\n",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_legal_heads_are_accepted_at_any_cut(name: str) -> None:
    data = ACCEPTED[name]
    for parts in splits(data + b"next", rounds=5) if len(data) < 1000 else [[data, b"next"]]:
        assert refusal(parts) is None
        assert read_head(parts) == (data, b"next")


#: how a head's lines may end besides CR LF: all, its empty line, or every second one in LF alone
ENDINGS = {
    "LF alone": lambda data: data.replace(b"\r\n", b"\n"),
    "LF alone in the empty line": lambda data: data[:-2] + b"\n",
    "LF alone before the empty line": lambda data: data[:-4] + b"\n\r\n",
    "LF alone in every second line": lambda data: re.sub(rb"\r\n(.*?)\r\n", rb"\n\1\r\n", data),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_lone_lf_ends_a_line_and_is_forwarded_as_cr_lf(name: str, ending: str) -> None:
    data = ENDINGS[ending](ACCEPTED[name])
    wanted = forwarded_request_head(request(ACCEPTED[name]), (), close=False)
    cut = splits(data + b"next", rounds=5) if len(data) < 1000 else [[data, b"next"]]
    for parts in cut:
        assert read_head(parts) == (data, b"next")
    assert forwarded_request_head(request(data), (), close=False) == wanted


def test_a_head_of_lf_hides_no_field() -> None:
    head = request(b"POST / HTTP/1.1\nHost: d\r\nX: a\nContent-Length: 3\n\nabc")
    assert request_framing(head) == Framing("length", 3)
    assert head.end_to_end == b"POST / HTTP/1.1\r\nHost: d\r\nX: a\r\nContent-Length: 3\r\n"


@pytest.mark.parametrize(
    "data, dropped",
    [
        (b"", b""),
        (b"GET", b""),
        (b"\r", b""),
        (b"\r\n", b"\r\n"),
        (b"\n", b"\n"),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", b"\r\n"),
        (b"\n\r\n\nGET", b"\n\r\n\n"),
        (b"\r\n\rGET", b"\r\n"),
        (b"\r\r\nGET", b""),
        (b"\rGET", b""),
        (b"\r\n" * 5000 + b"G", b"\r\n" * 5000),
    ],
)
def test_empty_lines_before_a_request_are_dropped(data: bytes, dropped: bytes) -> None:
    assert empty_lines(data) == len(dropped)


@pytest.mark.parametrize("lines", [b"\r\n", b"\n", b"\r\n\n\r\n"])
def test_a_request_behind_empty_lines_is_read_at_any_cut(lines: bytes) -> None:
    data = b"GET / HTTP/1.1" + H + b"\r\n"
    for parts in splits(lines + data + b"\r\nnext", rounds=5):
        assert read_head(parts) == (data, b"\r\nnext")


def test_a_bare_cr_between_empty_lines_is_refused_at_any_cut() -> None:
    for parts in splits(b"\r\n\r\r\nGET / HTTP/1.1" + H + b"\r\n", rounds=5):
        assert refusal(parts) == 400


def test_a_head_may_have_one_mebibyte_and_four_kibibytes_and_no_more() -> None:
    start, end = b"GET / HTTP/1.1" + H + b"X: ", b"\r\n\r\n"
    fill = (1 << 20) + 4096 - len(start) - len(end)
    assert refusal([start + b"a" * fill + end]) is None
    assert refusal([start + b"a" * (fill + 1) + end]) == 431
    assert refusal([start, b"a" * MAX_HEAD]) == 431


def test_a_head_that_comes_in_pieces_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: a piece costs the same at the end of a head as at its beginning."""
    looked = [0]

    class Counted(bytes):
        def find(self, sub: Any, start: Any = 0, *end: Any) -> int:
            looked[0] += len(self) - start
            return super().find(sub, start, *end)

    class CountedPattern:
        def search(self, text: bytes, pos: int = 0) -> None:
            looked[0] += len(text) - pos

    monkeypatch.setattr(http1, "BARE_CR", CountedPattern())
    data = b"GET / HTTP/1.1" + H + b"X: y\r\n" * 2000
    for size in range(1, len(data), 3):
        assert head_length(Counted(data[:size]), max(0, size - 3)) == 0
    assert looked[0] < 8 * len(data)


def test_little_but_the_forwarded_bytes_is_kept_of_a_head() -> None:
    fields = b"".join(b"%x:\r\n" % number for number in range(0x10000, 0x10000 + 130_000))
    hop = b"Connection: x\r\nX: 1\r\n"
    data = b"GET /slow HTTP/1.1" + H + hop + fields + b"\r\n"
    tracemalloc.start()
    head = parse_request_head(data)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(head.end_to_end) == len(data) - len(hop) - 2
    assert kept < len(data) + 100_000 and most < 3 * len(data)


@pytest.mark.parametrize("name", [b"Connection", b"TE", b"Trailer", b"Keep-Alive"])
def test_fields_that_are_read_may_not_fill_the_memory(name: bytes) -> None:
    fields = b"".join(b"%b: a\r\n" % name for _ in range(100_000))
    assert refusal([b"GET / HTTP/1.1" + H + fields + b"\r\n"]) == 431
    long = b"%b: %b\r\n" % (name, b"a," * (MAX_READ_FIELDS // 2))
    assert refusal([b"GET / HTTP/1.1" + H + long + b"\r\n"]) == 431
    with pytest.raises(EngineError):
        parse_response_head(b"HTTP/1.1 200 OK\r\n" + long + b"\r\n")


TARGET_BYTES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x2FF, blacklist_characters="\x7f"), max_size=30
).map(lambda text: b"/" + text.encode().replace(b"%", b"%25"))
NAMES = st.text("!#$%&'*+-.^_`|~09azAZxyzHostConeLgth", min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=20).map(
    lambda data: bytes(b for b in data if b == 9 or 32 <= b < 127 or b >= 128)
)
FRAMED = (b"host", b"content-length", b"transfer-encoding", b"connection")


@BOUNDED
@given(
    st.sampled_from([b"GET", b"POST", b"x-Y"]),
    TARGET_BYTES,
    st.lists(st.tuples(NAMES, VALUES, st.sampled_from([b"\r\n", b"\n"])), max_size=8),
    st.integers(0, 99),
)
def test_what_is_forwarded_is_what_came(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes, bytes]], seed: int
) -> None:
    """Every byte of every legal head at any cut; each line ends in CR LF then."""
    kept = [field for field in fields if field[0].lower() not in (*FRAMED, *HOP_FIELDS)]
    kept.insert(seed % (len(kept) + 1), (b"hOST", b" docker", b"\n"))
    start = b"%b %b HTTP/1.1" % (method, target)
    data = start + b"\n" + b"".join(b"%b:%b%b" % field for field in kept) + b"\r\n"
    wanted = start + b"\r\n" + b"".join(b"%b:%b\r\n" % field[:2] for field in kept) + b"\r\n"
    for parts in splits(data, seed, rounds=5):
        assert read_head(parts) == (data, b"")
    head = parse_request_head(data)
    assert (head.method, head.target) == (method, target)
    assert forwarded_request_head(head, (), close=False) == wanted


def test_fields_of_one_hop_are_set_anew_and_nothing_else_is_touched() -> None:
    head = request(
        b"POST /build?x=%41 HTTP/1.1\r\nhOsT: d\r\nConnection: close, X-Hop, content-length\r\n"
        b"X-Hop: 1\r\nKeep-Alive: 5\r\nX-B:\t2 \r\nx-b: 3\r\nProxy-Connection: x\r\n"
        b"TE: trailers\r\nTrailer: X-Sum\r\nUpgrade: tcp\r\nContent-Length: 3\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    start = b"POST /build?x=%41 HTTP/1.1\r\n"
    kept = (
        b"hOsT: d\r\nX-B:\t2 \r\nx-b: 3\r\nTE: trailers\r\nTrailer: X-Sum\r\nContent-Length: 3\r\n"
        b"Expect: 100-continue\r\n"
    )
    assert forwarded_request_head(head, (), close=False) == start + kept + b"\r\n"
    close = b"Connection: close\r\n\r\n"
    assert forwarded_request_head(head, (), close=True) == start + kept + close
    upgrade = b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    assert forwarded_request_head(head, [b"tcp"], close=True) == start + kept + upgrade
    assert not head.keeps_alive


def test_repeated_equal_lengths_are_forwarded_once() -> None:
    lengths = b"Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\nContent-Length:5 \r\n"
    asked = request(b"POST / HTTP/1.1" + H + lengths + b"\r\n")
    assert request_framing(asked) == Framing("length", 5)
    assert asked.end_to_end == b"POST / HTTP/1.1" + H + b"Content-Length: 5\r\nX: y\r\n"
    answered = parse_response_head(b"HTTP/1.1 200 OK\r\n" + lengths + b"Connection: close\r\n\r\n")
    assert response_framing(answered, b"GET") == Framing("length", 5)
    assert answered.end_to_end == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n"


@pytest.mark.parametrize(
    "version, keep, hop",
    [
        (b"1.1", True, b""),
        (b"1.1", False, b"Connection: close\r\n"),
        (b"1.0", True, b"Connection: keep-alive\r\n"),
        (b"1.0", False, b"Connection: close\r\n"),
    ],
)
def test_a_response_head_says_whether_the_connection_stays(
    version: bytes, keep: bool, hop: bytes
) -> None:
    data = b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close\r\nX: \xff\r\n\r\n"
    head = parse_response_head(data)
    wanted = b"HTTP/1.1 200 OK\r\nServer: x\r\nX: \xff\r\n" + hop + b"\r\n"
    assert forwarded_response_head(head, version, keep) == wanted
    assert head.as_it_came + b"\r\n" == data


# -- responses

BAD_RESPONSES = (
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 200OK\r\n\r\n",
    b"HTTP/1.1 099 X\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n\r\n",
    b"HTTP/1.1 200 O\0K\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nNonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: y\rZ: a\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
)


@pytest.mark.parametrize("data", BAD_RESPONSES)
def test_an_answer_that_is_not_http_is_an_engine_s_error(data: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        parse_response_head(data)
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "method, head, expected",
    [
        (b"GET", b"200 OK\r\nContent-Length: 5\r\n", Framing("length", 5)),
        (b"GET", b"200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n", Framing("length", 5)),
        (b"GET", b"200 OK\r\nTransfer-Encoding: Chunked\r\n", Framing("chunked")),
        (b"GET", b"200 OK\r\n", Framing("close")),
        (b"HEAD", b"200 OK\r\nContent-Length: 5\r\n", Framing("none")),
        (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n", Framing("none")),
        (b"GET", b"204 No Content\r\nContent-Length: 5\r\n", Framing("none")),
        (b"GET", b"304 Not Modified\r\nTransfer-Encoding: chunked\r\n", Framing("none")),
        (b"GET", b"200\r\nContent-Length: 0\r\n", Framing("length", 0)),
        (b"GET", b"200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n", None),
        (b"GET", b"200 OK\r\nContent-Length: -5\r\n", None),
        (b"GET", b"200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", None),
        (b"GET", b"200 OK\r\nTransfer-Encoding: gzip\r\n", None),
        (b"GET", b"200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", None),
    ],
)
def test_where_a_response_ends(method: bytes, head: bytes, expected: Framing | None) -> None:
    response = parse_response_head(b"HTTP/1.1 " + head + b"\r\n")
    if expected is None:
        with pytest.raises(EngineError):
            response_framing(response, method)
        return
    assert response_framing(response, method) == expected


ANSWER = b"HTTP/1.1 200 OK\r\nServer: Docker/28.0.1\r\nContent-Type: application/json\r\n%b\r\n"


@pytest.mark.parametrize(
    "field, known",
    [
        (b"", True),
        (b"api-version: 1.48\r\nOSTYPE: linux\r\nTransfer-Encoding: chunked\r\n", True),
        (b"Set-Cookie: session=1\r\n", False),
        (b"X-Anything: 1\r\n", False),
        (b"Swarm: " + b"x" * KNOWN_HEAD + b"\r\n", False),
    ],
)
def test_only_answers_of_harmless_fields_stay_in_memory(field: bytes, known: bool) -> None:
    raw = ANSWER % field
    first, second = read_response_head(raw), read_response_head(raw)
    assert (first is second) is known
    assert (raw in http1.known_responses) is known


def test_the_memory_of_answers_is_bounded() -> None:
    for number in range(2 * KNOWN_HEADS):
        read_response_head(ANSWER % (b"Content-Length: %d\r\n" % number))
        assert len(http1.known_responses) <= KNOWN_HEADS


# -- chunked bodies

CHUNKED = {
    "nothing": (b"0\r\n\r\n", b""),
    "two chunks": (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    "capital and small digits": (
        b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        b"0123456789" * 2,
    ),
    "zeros in front": (b"0003\r\nabc\r\n000\r\n\r\n", b"abc"),
    "extensions": (b'3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n', b"abc"),
    "trailers": (b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n", b"abc"),
    "line ends as data": (b"8\r\n\r\n0\r\n\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r\n\r"),
    "many of one size": (b"3\r\nabc\r\n" * 30 + b"0\r\n\r\n", b"abc" * 30),
}


def read_chunks(parts: Sequence[bytes]) -> tuple[bytes, bytes, bool, bool]:
    """Payload, bytes that were taken, whether the end has come, whether the body is illegal."""
    reader, payload, used = ChunkedReader(), b"", b""
    for part in parts:
        if part and not reader.done:
            count, data = reader.feed(part)
            assert reader.done or reader.broken or count == len(part)
            payload, used = payload + data, used + part[:count]
    assert reader.broken is None or reader.broken.status == 400
    return payload, used, reader.done, reader.broken is not None


@pytest.mark.parametrize("name", CHUNKED)
def test_a_chunked_body_ends_where_it_ends_at_any_cut(name: str) -> None:
    data, payload = CHUNKED[name]
    for parts in splits(data + b"GET / HTTP/1.1\r\n", rounds=5):
        assert read_chunks(parts) == (payload, data, True, False)


#: illegal bodies: the bytes with which a legal one can begin, those behind them, sound payload
BAD_CHUNKS_SPLIT = {
    "no size": (b"", b"\r\nabc\r\n0\r\n\r\n", b""),
    "0x": (b"0", b"x3\r\nabc\r\n0\r\n\r\n", b""),
    "plus": (b"", b"+3\r\nabc\r\n0\r\n\r\n", b""),
    "minus": (b"", b"-3\r\nabc\r\n0\r\n\r\n", b""),
    "underscore": (b"1", b"_0\r\n0123456789abcdef\r\n0\r\n\r\n", b""),
    "space in front": (b"", b" 3\r\nabc\r\n0\r\n\r\n", b""),
    "space behind": (b"3", b" \r\nabc\r\n0\r\n\r\n", b""),
    "not hexadecimal": (b"3\r\nabc\r\n", b"g\r\nabc\r\n0\r\n\r\n", b"abc"),
    "sixteen digits": (b"800000000000000", b"0\r\nabc\r\n0\r\n\r\n", b""),
    "bare LF": (b"3", b"\nabc\r\n0\r\n\r\n", b""),
    "bare CR": (b"3\r", b"abc\r\n0\r\n\r\n", b""),
    "bare CR in an extension": (b"3;a\r", b"b\r\nabc\r\n0\r\n\r\n", b""),
    "bare LF in an extension": (b"3;a", b"\nabc\r\n0\r\n\r\n", b""),
    "NUL in an extension": (b"3\r\nabc\r\n3;a", b"\0b\r\nabc\r\n0\r\n\r\n", b"abc"),
    "data shorter than its size": (b"4\r\nabc\r", b"\n0\r\n\r\n", b"abc\r"),
    "data longer than its size": (b"3\r\nabc\r\n2\r\nab", b"c\r\n0\r\n\r\n", b"abcab"),
    "LF behind the data": (b"3\r\nabc", b"\n0\r\n\r\n", b"abc"),
    "CR behind the data": (b"3\r\nabc\r", b"0\r\n\r\n", b"abc"),
    "nothing behind the data": (b"3\r\nabc", b"0\r\n\r\n", b"abc"),
    "trailer without a colon": (b"0\r\nNonsense", b"\r\n\r\n", b""),
    "trailer with a bare LF": (b"0\r\nX: y", b"\nZ: a\r\n\r\n", b""),
    "empty trailer line with a bare LF": (b"0\r\n", b"\nGET /", b""),
    "folded trailer": (b"0\r\nX: y\r\n", b" z\r\n\r\n", b""),
    "NUL in a trailer": (b"3\r\nabc\r\n0\r\nX: ", b"\0\r\n\r\n", b"abc"),
    "Content-Length as a trailer": (b"0\r\nContent-Length", b": 3\r\n\r\n", b""),
    "Transfer-Encoding as a trailer": (
        b"0\r\nX: y\r\ntransfer-encoding",
        b": chunked\r\n\r\n",
        b"",
    ),
    "Host as a trailer": (b"0\r\nHost", b": evil\r\n\r\n", b""),
    "size line without end": (b"1" * 15, b"1" * 5000, b""),
    "extension without end": (b"1;" + b"a" * 4094, b"a" * 5000, b""),
    "trailers without end": (
        b"0\r\n" + (b"X: y\r\n" * 1000)[:MAX_TRAILER],
        b" y\r\n" + b"X: y\r\n" * 2000,
        b"",
    ),
}
BAD_CHUNKS = {name: sound + rest for name, (sound, rest, _) in BAD_CHUNKS_SPLIT.items()}


@pytest.mark.parametrize("name", BAD_CHUNKS_SPLIT)
def test_an_illegal_chunk_is_taken_up_to_its_first_illegal_byte_at_any_cut(name: str) -> None:
    sound, rest, payload = BAD_CHUNKS_SPLIT[name]
    data = sound + rest
    pieces = [[data], [data[at : at + 1000] for at in range(0, len(data), 1000)]]
    for parts in splits(data, rounds=5) if len(data) < 10_000 else pieces:
        assert read_chunks(parts) == (payload, sound, False, True), parts


def test_a_broken_reader_takes_nothing_more() -> None:
    reader = ChunkedReader()
    assert reader.feed(b"3\r\nabcX\r\n") == (6, b"abc")
    assert reader.feed(b"\r\n0\r\n\r\n") == (0, b"") and not reader.done


def test_what_is_sound_of_an_illegal_body_never_looks_whole() -> None:
    for sound, _, _ in BAD_CHUNKS_SPLIT.values():
        assert read_chunks([sound])[2:] == (False, False)


def test_a_reader_remembers_few_sizes_and_shares_none() -> None:
    reader = ChunkedReader()
    for size in range(1, 5000):
        reader.feed(b"%x\r\n%b\r\n" % (size, b"x" * size))
        assert len(reader.sizes) <= KNOWN_SIZES
    assert reader.broken is None and ChunkedReader().sizes == {}


@pytest.mark.parametrize(
    "block, whole",
    [
        (b"3\r\nabc\r\n", True),
        (b"3\r\nabcde", False),
        (b"3\r\nabc\n\r", False),
        (b"3\r\nabc\r\n3", False),
        (b"2\r\nabc\r\n", False),
        (b"0\r\n\r\n", False),
        (b"0x\r\nabc\r\n", False),
    ],
)
def test_a_block_is_a_whole_chunk_only_with_its_cr_lf(block: bytes, whole: bool) -> None:
    reader = ChunkedReader()
    assert reader.is_whole(block) is whole
    reader.feed(b"3\r\nabc\r\n")
    assert reader.is_whole(block) is whole
    reader.feed(b"5\r\na")
    assert not reader.is_whole(block)


# -- generated bytes

CHUNK_PARTS = st.lists(
    st.sampled_from(
        [
            b"3\r\nabc\r\n",
            b"a;x=1\r\n0123456789\r\n",
            b"0\r\n",
            b"\r\n",
            b"X: y\r\n",
            b"0",
            b"\r",
            b"\n",
            b"F",
            b";",
            b"10\r\n",
            b"x" * 16,
            b"\0",
        ]
    ),
    max_size=12,
).map(b"".join)
HEAD_PARTS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n",
            b"POST /v1.43/exec/x/start HTTP/1.1\r\n",
            b"Host: d\r\n",
            b"Content-Length: 3\r\n",
            b"Content-Length: 4\r\n",
        ]
        + [
            b"Transfer-Encoding: chunked\r\n",
            b"transfer-encoding:\tchunked \r\n",
            b"X: y\r\n",
            b" folded\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"\0",
            b":",
            b" ",
        ]
        + [
            b"Host",
            b"GET",
            b"HTTP/1.0\r\n",
            b"\xff",
            b"Connection: close\r\n",
            b"%",
            b"Upgrade: h2c\r\n",
        ]
    ),
    max_size=10,
).map(b"".join)


def outcome(call: Any, *arguments: Any) -> Any:
    """What a call returns, or the status it is refused with; any other error fails the test."""
    try:
        return call(*arguments)
    except HTTPError as error:
        return error.status


@settings(BOUNDED, max_examples=300)
@given(st.one_of(CHUNK_PARTS, st.binary(max_size=60)), st.integers(0, 99))
def test_any_bytes_are_the_same_chunks_at_any_cut(data: bytes, seed: int) -> None:
    whole = read_chunks([data])
    for parts in splits(data, seed, rounds=5):
        assert read_chunks(parts) == whole


def head_outcome(parts: Sequence[bytes]) -> Any:
    """Everything that is seen in a request's head, and the bytes behind it."""
    found = read_head(parts)
    if found is None:
        return None
    head = parse_request_head(found[0])
    return head.method, head.target, head.end_to_end, head.index, request_framing(head), found[1]


@settings(BOUNDED, max_examples=300)
@given(
    st.one_of(
        HEAD_PARTS,
        HEAD_PARTS.map(lambda data: b"GET / HTTP/1.1\r\nHost: d\r\n" + data + b"\r\n\r\n"),
        st.binary(max_size=60),
    ),
    st.integers(0, 99),
)
def test_any_bytes_are_the_same_head_at_any_cut(data: bytes, seed: int) -> None:
    """The same bytes are refused at any cut: at once, or when the head's time is over."""
    whole = outcome(head_outcome, [data])
    for parts in splits(data, seed, rounds=5):
        assert outcome(head_outcome, parts) == whole
    outcome(parse_response_head, data + b"\r\n\r\n")
    outcome(parse_response_head, b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")


# -- h11: it accepts what the proxy accepts, but for two differences, and both see the same in it


def ours(data: bytes) -> tuple[Any, ...] | None:
    """Method, target, fields, body and the bytes behind it; None for a refusal or no end."""
    try:
        found = read_head([data])
        if found is None:
            return None
        head = parse_request_head(found[0])
        framing = request_framing(head)
    except HTTPError:
        return None
    reader = ChunkedReader() if framing.kind == "chunked" else LengthReader(framing.length)
    used, body = reader.feed(found[1])
    fields = [(name.lower(), value) for name, value in lines_of(head.end_to_end)]
    return (head.method, head.target, fields, body, found[1][used:]) if reader.done else None


def h11_s(data: bytes) -> tuple[Any, ...] | None:
    """The same as h11 sees them. Difference: h11 refuses empty lines before a request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data[empty_lines(data) :])
    body, head = b"", None
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return None
    except h11.RemoteProtocolError:
        return None
    assert head is not None
    return head.method, head.target, list(head.headers), body, connection.trailing_data[0]


def forwarded(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields without those of framing, which h11 writes anew, and those of one hop."""
    framing = (b"content-length", b"transfer-encoding")
    return [field for field in fields if field[0] not in (*framing, *HOP_FIELDS)]


BODIES = st.sampled_from(
    [
        b"",
        b"abc",
        b"abcdef",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"0\r\nX: y\r\n\r\nmore",
        b"3;a=b\r\nabc\r\n0\r\n\r\n",
    ]
)


@settings(BOUNDED, max_examples=600)
@given(
    st.one_of(HEAD_PARTS, HEAD_PARTS.map(lambda data: b"POST / HTTP/1.1\r\nHost: d\r\n" + data)),
    BODIES,
    st.booleans(),
)
def test_h11_accepts_what_we_accept_and_sees_the_same(data: bytes, body: bytes, lf: bool) -> None:
    message = (data.replace(b"\r\n", b"\n") + b"\n" if lf else data + b"\r\n") + body
    seen = ours(message)
    if seen is not None:
        method, target, fields, payload, rest = seen
        theirs = h11_s(message)
        assert theirs is not None, "h11 refuses it"
        assert (theirs[0], theirs[1], theirs[3], theirs[4]) == (method, target, payload, rest)
        assert forwarded(theirs[2]) == forwarded(fields)


@pytest.mark.parametrize("name", ACCEPTED)
def test_h11_accepts_the_table_of_legal_heads(name: str) -> None:
    """Difference: h11 refuses bytes beyond ASCII in a target, which the engine takes."""
    data = ACCEPTED[name]
    if b"Content-Length" in data or b"Transfer-Encoding" in data:
        data += b"1\r\nabcdefg\r\n0\r\n\r\n"[:7] if b"Content-Length" in data else b"0\r\n\r\n"
    seen, theirs = ours(data), h11_s(data)
    assert seen is not None
    if not seen[1].isascii():
        assert theirs is None
        return
    assert theirs is not None
    assert (seen[0], seen[1], seen[3]) == (theirs[0], theirs[1], theirs[3])
