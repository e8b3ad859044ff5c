"""Tests of routes: endpoints whatever their spelling, flags, upgrades, and what may be kept."""

from __future__ import annotations

import random
import tracemalloc
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _dockeraudit import routes
from _dockeraudit.admission import browser_refusal
from _dockeraudit.http1 import KNOWN_HEADS, RequestHead
from _dockeraudit.routes import (
    MAX_PATH,
    classify,
    cut_path,
    method_name,
    offered_protocols,
    parse_request,
    read_request,
    seeming_request,
)

#: as many examples as a second allows, the same ones in every run
BOUNDED = settings(max_examples=150, derandomize=True, deadline=None, database=None)


SPELLINGS = [
    (b"GET", b"/containers/web/logs", "logs", "web"),
    (b"GET", b"/v1.43/containers/web/logs?stdout=1", "logs", "web"),
    (b"GET", b"/containers/x/%6cogs", "logs", "x"),
    (b"GET", b"/%63ontainers/x/logs", "logs", "x"),
    (b"GET", b"/containers/x%2Flogs", "logs", "x"),
    (b"GET", b"/containers%2fx%2flogs", "logs", "x"),
    (b"GET", b"/v1%2e51/containers/x/logs", "logs", "x"),
    (b"GET", b"/%76%31.51/containers/x/logs", "logs", "x"),
    (b"GET", b"/v01.51/containers/x/logs", "logs", "x"),
    (b"GET", b"/v1.51.0/containers/x/logs", "logs", "x"),
    (b"GET", b"/v.../containers/x/logs", "logs", "x"),
    (b"GET", b"http://any/containers/x/logs", "logs", "x"),
    (b"GET", b"HTTPS://user:pw@any:1/v1.41/containers/x/logs?follow=1", "logs", "x"),
    (b"GET", b"x:/containers/x/logs", "logs", "x"),
    (b"GET", b"a+b-c.d:/containers/x/logs", "logs", "x"),
    (b"GET", b"/containers/a/b/logs", "logs", "a/b"),
    (b"GET", b"/containers//logs", "logs", ""),
    (b"GET", b"/services/s/logs", "logs", "s"),
    (b"GET", b"/v1.43/tasks/t/logs", "logs", "t"),
    (b"GET", b"/v4.0.0/libpod/containers/x/logs", "logs", "x"),
    (b"POST", b"/v1.43/containers/x/attach?stream=1", "attach", "x"),
    (b"GET", b"/containers/x/attach/ws", "attach_ws", "x"),
    (b"POST", b"/exec/e/start", "exec", "e"),
    (b"POST", b"/v5.0.0-dev/libpod/exec/e/start", "exec", "e"),
    (b"POST", b"/session", "tunnel", "/session"),
    (b"POST", b"/v1.43/grpc", "tunnel", "/grpc"),
    (b"GET", b"/containers/\xc3\xa4/logs", "logs", "ä"),
    (b"GET", b"/containers/\xff/logs", "logs", "\udcff"),
    (b"GET", b"/v1.43/\x63ontainers/%c3\xa4/logs", "logs", "ä"),
    (b"CONNECT", b"user:pw@docker:80", "other", ""),
    (b"POST", b"/containers/web/logs", "other", ""),
    (b"HEAD", b"/containers/web/logs", "other", ""),
    (b"GET", b"/containers/web/logs/", "other", ""),
    (b"GET", b"/containers/web/Logs", "other", ""),
    (b"GET", b"/CONTAINERS/web/logs", "other", ""),
    (b"GET", b"/containers/web%252Flogs", "other", ""),
    (b"GET", b"/containers/web/logs%3Fa", "other", ""),
    (b"GET", b"//containers/web/logs", "other", ""),
    (b"GET", b"x:containers/web/logs", "other", ""),
    (b"GET", b"/containers/json", "other", ""),
]


@pytest.mark.parametrize("method, target, endpoint, name", SPELLINGS)
def test_a_route_is_told_whatever_its_spelling(
    method: bytes, target: bytes, endpoint: str, name: str
) -> None:
    route = classify(method, target)
    assert (route.endpoint, route.name) == (endpoint, name)


@BOUNDED
@given(
    st.sampled_from(
        [
            (m, t)
            for m, t, endpoint, _ in SPELLINGS
            if endpoint != "other" and t[:1] == b"/" and b"%" not in t
        ]
    ),
    st.randoms(use_true_random=False),
)
def test_percent_encoding_anywhere_changes_no_route(
    spelling: tuple[bytes, bytes], rng: random.Random
) -> None:
    method, target = spelling
    path, mark, query = target.partition(b"?")
    encoded = path[:1] + b"".join(
        b"%%%02x" % byte if rng.random() < 0.3 else bytes([byte]) for byte in path[1:]
    )
    assert (
        classify(method, encoded + mark + query)[:1] + classify(method, encoded + mark + query)[3:]
        == classify(method, target)[:1] + classify(method, target)[3:]
    )


@pytest.mark.parametrize(
    "query, follow",
    [
        ("follow=1", True),
        ("follow=yes", True),
        ("follow=TRUE", True),
        ("follow=%31", True),
        ("f%6fllow=1", True),
        ("follow=0&follow=1", False),
    ]
    + [
        ("follow=1&follow=0", True),
        ("follow", False),
        ("follow=", False),
        ("follow=No", False),
        ("follow=+none+", False),
        ("follow=false", False),
        ("Follow=1", False),
    ],
)
def test_a_query_flag_is_read_as_the_engine_reads_it(query: str, follow: bool) -> None:
    assert classify(b"GET", b"/containers/x/logs?" + query.encode()).flag("follow") is follow


@BOUNDED
@given(
    st.lists(
        st.sampled_from(["follow", "f%6fllow", "=", "&", "1", "0", "%31", "+", "%zz", ";", "%26"]),
        max_size=9,
    ).map("".join)
)
def test_a_flag_is_the_first_parameter_of_its_name(query: str) -> None:
    parsed = [value for name, value in urllib.parse.parse_qsl(query, True) if name == "follow"]
    expected = bool(parsed) and parsed[0].strip() not in ("", "0")
    assert classify(b"GET", b"/events?" + query.encode()).flag("follow") is expected


def test_a_flag_in_a_large_query_costs_no_memory() -> None:
    route = classify(b"GET", b"/containers/x/logs?" + b"a&" * 200_000 + b"follow=1")
    tracemalloc.start()
    assert route.flag("follow")
    assert tracemalloc.get_traced_memory()[1] < 50_000
    tracemalloc.stop()


@BOUNDED
@given(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT"]),
    st.binary(max_size=60).map(lambda data: bytes(b for b in data if b > 0x20 and b != 0x7F)),
)
def test_any_target_has_a_route(method: bytes, target: bytes) -> None:
    for start, end in ((b"", b""), (b"/", b""), (b"/containers/", b"/logs"), (b"http://", b"")):
        spelled = start + target + end
        route = classify(method, spelled)
        assert route.audited in (True, False)
        route.flag("follow")
        route.brief()
        index = {b"host": [target], b"origin": [b"http://" + target]}
        head = RequestHead(method, b"1.1", method + b" " + spelled + b" HTTP/1.1\r\n", index)
        browser_refusal(head, route, True, frozenset())


@pytest.mark.parametrize(
    "target, endless, exports",
    [
        (b"/events", True, False),
        (b"/v1.43/events?since=1", True, False),
        (b"/containers/x/stats?stream=1", True, False),
        (b"/libpod/containers/stats", True, False),
        (b"/containers/x/export", False, True),
        (b"/v1.43/containers/a/b/archive?path=/", False, True),
        (b"/images/a/b:c/get", False, True),
        (b"/images/get?names=x", False, True),
        (b"/libpod/images/export", False, True),
        (b"/containers/json", False, False),
        (b"/images/json", False, False),
    ],
)
def test_a_route_says_what_has_no_end_and_what_copies_data_out(
    target: bytes, endless: bool, exports: bool
) -> None:
    route = classify(b"GET", target)
    assert (route.endless, route.exports) == (endless, exports)


@pytest.mark.parametrize(
    "path, expected",
    [
        ("", ""),
        ("/containers/json", "/containers/json"),
        ("/" + "a" * 511, "/" + "a" * 511),
        ("/" + "a" * 512, "/" + "a" * 511),
        ("/" + "a" * 1_000_000, "/" + "a" * 511),
        ("/ä" * 1000, "/ä" * 170 + "/"),
        ("🐋" * 1000, "🐋" * 128),
        ("/" + "\udcff" * 600, "/" + "\udcff" * 511),
        ("/\udcff/x", "/\udcff/x"),
    ],
)
def test_a_path_is_cut_to_512_bytes_between_two_characters(path: str, expected: str) -> None:
    cut = cut_path(path)
    assert cut == expected
    assert len(cut.encode("utf-8", "surrogateescape")) <= MAX_PATH


def test_little_is_kept_of_a_large_target_while_its_exchange_runs() -> None:
    for path in (b"/x/" + b"a" * 1_000_000, b"/containers/" + b"b" * 1_000_000 + b"/logs"):
        brief = classify(b"GET", b"http://" + b"c" * 999 + path + b"?follow=1").brief()
        assert len(brief.path) <= MAX_PATH and len(brief.name) <= MAX_PATH
        assert brief.authority is None
    assert brief.flag("follow") and brief.endpoint == "logs"
    assert classify(b"GET", b"/x?" + b"d" * 1_000_000).brief().query == ""


@pytest.mark.parametrize(
    "method, name",
    [(b"GET", "GET"), (b"PRI", "PRI"), (b"get", "other"), (b"BREW", "other"), (None, None)],
)
def test_a_method_that_no_client_sends_is_never_recorded(
    method: bytes | None, name: str | None
) -> None:
    assert method_name(method) == name


@pytest.mark.parametrize(
    "raw, method, path",
    [
        (b"GET /v1.43/info HTTP/1.1\r\nX : y\r\n\r\n", b"GET", "/info"),
        (b"POST http://user:pw@h/a%2fb?c=d HTTP/1.1\r\n\r\n", b"POST", "/a/b"),
        (b"GET /info\n\n", b"GET", "/info"),
        (b"GET /" + b"a" * 9999, b"GET", "/" + "a" * 511),
        (b"CONNECT user:pw@h:80 HTTP/3\r\n", b"CONNECT", None),
        (b"GET user:pw@h HTTP/1.1\r\n", b"GET", None),
        (b"\x16\x03\x01\x02\x00", None, None),
        (b"get /x", None, None),
        (b"", None, None),
    ],
)
def test_an_illegal_head_is_recorded_by_what_it_seems_to_ask(
    raw: bytes, method: bytes | None, path: str | None
) -> None:
    assert seeming_request(raw) == (method, path)


# -- heads that stay in memory

POLL = b"GET /v1.43/containers/json%b HTTP/1.1\r\nHost: d\r\nUser-Agent: x\r\n%b\r\n"
KNOWN = {
    "no query": POLL % (b"", b""),
    "flags": POLL % (b"?all=1&size=false&limit=100", b""),
    "names in capitals": POLL.replace(b"Host", b"HOST") % (b"", b"ACCEPT: */*\r\n"),
    "HEAD": POLL.replace(b"GET", b"HEAD") % (b"", b""),
}
UNKNOWN = {
    "Authorization": POLL % (b"", b"Authorization: Basic eDp5\r\n"),
    "authorization in capitals": POLL % (b"", b"AUTHORIZATION: x\r\n"),
    "Proxy-Authorization": POLL % (b"", b"Proxy-Authorization: x\r\n"),
    "Cookie": POLL % (b"", b"Cookie: x=y\r\n"),
    "X-Registry-Auth": POLL % (b"", b"X-Registry-Auth: e30=\r\n"),
    "X-Registry-Config": POLL % (b"", b"x-registry-config: e30=\r\n"),
    "a field that nobody knows": POLL % (b"", b"X-Api: x\r\n"),
    "an unknown flag": POLL % (b"?token=1", b""),
    "a flag with a word": POLL % (b"?all=hunter", b""),
    "a long number": POLL % (b"?limit=12345678901", b""),
    "a flag without a value": POLL % (b"?all", b""),
    "a second question": POLL % (b"?all=1?x", b""),
    "user and password": POLL.replace(b"/v1.43", b"http://u:p@d/v1.43") % (b"", b""),
    "POST": POLL.replace(b"GET", b"POST") % (b"", b""),
    "lines that end in LF": (POLL % (b"", b"")).replace(b"\r\n", b"\n"),
    "a long head": POLL.replace(b"json", b"j" * 1024) % (b"", b""),
}


@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_only_heads_that_can_hold_no_secret_stay_in_memory(name: str) -> None:
    raw = KNOWN.get(name) or UNKNOWN[name]
    first, second = read_request(raw), read_request(raw)
    assert (first is second) is (name in KNOWN)
    assert (raw in routes.known_requests) is (name in KNOWN)
    assert first[1] == second[1] == parse_request(raw)[1]


def test_the_memory_of_requests_is_bounded() -> None:
    for number in range(2 * KNOWN_HEADS):
        read_request(POLL % (b"?limit=%d" % number, b""))
        assert len(routes.known_requests) <= KNOWN_HEADS


# -- upgrades


@pytest.mark.parametrize(
    "target, fields, relayed, expected",
    [
        (b"/containers/x/attach", b"Connection: Upgrade\nUpgrade: tcp", False, [b"tcp"]),
        (b"/containers/x/attach", b"Connection: a, upgrade\nUpgrade: TCP", False, [b"TCP"]),
        (b"/containers/x/attach", b"Connection: keep-alive\nUpgrade: tcp", False, [b"tcp"]),
        (b"/containers/x/attach", b"Upgrade: tcp", False, [b"tcp"]),
        (b"/exec/x/start", b"Upgrade: tcp\nUpgrade: x", False, [b"tcp", b"x"]),
        (b"/containers/x/attach", b"Upgrade:", False, [b""]),
        (b"/containers/x/attach", b"Connection: Upgrade", False, []),
        (b"/containers/x/attach", b"Upgrade: h2c", False, []),
        (b"/containers/x/attach", b"Connection: Upgrade\nUpgrade: tcp, H2C", False, [b"tcp"]),
        (b"/containers/x/attach", b"Connection: Upgrade\nUpgrade: h2c", True, [b"h2c"]),
        (b"/containers/json", b"Connection: Upgrade\nUpgrade: HTTP/2.0", False, []),
        (b"/session", b"Connection: Upgrade\nUpgrade: h2c", False, [b"h2c"]),
        (b"/v1.43/grpc", b"Upgrade: h2c", False, [b"h2c"]),
        (b"/v1.43/%67rpc", b"Connection: Upgrade\nUpgrade: h2c", False, [b"h2c"]),
    ],
)
def test_an_upgrade_alone_is_an_offer_and_only_tunnels_of_build_kit_may_become_http2(
    target: bytes, fields: bytes, relayed: bool, expected: list[bytes]
) -> None:
    head, route = parse_request(b"POST " + target + b" HTTP/1.1\nHost: d\n" + fields + b"\n\n")
    assert offered_protocols(head, route, relayed) == expected
