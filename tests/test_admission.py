"""Tests of admission: requests that web pages send, names of hosts, and counted denials."""

from __future__ import annotations

import random

import pytest

from _dockeraudit.admission import (
    DENIAL_INTERVAL,
    MAX_DENIALS,
    Denial,
    DenialCounts,
    browser_refusal,
)
from _dockeraudit.routes import MAX_PATH, parse_request

# -- names of hosts

ADMITTED = [
    "",
    # addresses, as any URL parser reads them
    "127.0.0.1",
    "127.0.0.1.",
    "10.1.2.3",
    "203.0.113.9",
    "1.28",
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0X7F.0.0.1",
    "0177.0.0.01",
    "1.0xffffff",
    "2130706433",
    "0x7f000001",
    "0.0",
    "0x.0",
    "[::1]",
    "[fe80::1]",
    "[::ffff:127.0.0.1]",
    # single labels
    "docker",
    "localhost",
    "LOCALHOST.",
    "my_service",
    "nas",
    # private names, also deep ones
    "host.localhost",
    "a.b.localhost",
    "localhost.localdomain",
    "web.localdomain",
    "socket.docker.internal",
    "host.docker.internal",
    "nas.local",
    "nas.local.",
    "x.default.svc.cluster.local",
    "nas.lan",
    "NAS.Lan",
    "a.b.c.lan",
    "nas.home",
    "nas.home.arpa",
    "home.arpa",
    "runner.intranet",
    "git.eu.corp",
    "x.private",
    "x.default.svc",
    "dind.test",
    "server.fritz.box",
    "a.server.fritz.box",
    "fritz.box",
    # of Docker's clients
    "docker.example.com",
    "tasks.proxy",
    "TASKS.proxy",
]
REFUSED = [
    "evil.example",
    "EVIL.EXAMPLE.",
    "docker.example.org",
    "x.docker.example.com",
    "example.com",
    "tasks.evil.example",
    "tasks.a.b",
    "xtasks.proxy",
    # private labels that do not stand at the end, or are no labels
    "local.evil.example",
    "lan.example",
    "x.notlocal",
    "evil-local.com",
    "x.home.example",
    "x.arpa",
    "x.box",
    "notfritz.box",
    "x.myfritz.box",
    "x.local.evil",
    # no addresses
    "127.0.0.1.evil.example",
    "1.2.3.4.5",
    "256.0.0.1",
    "1.256.1",
    "1.16777216",
    "127.0.0.08",
    "0x1g.1",
    "1..1",
    "1.+2",
    "1.1_0",
    "[evil.example]",
    "127.0.0.1.nip.io",
    "%2Fvar%2Frun%2Fdocker.sock",
]


def reason_for(host: str, target: str = "/", fields: str = "", *allowed: str) -> str | None:
    """Why a request to a host is refused, or None."""
    raw = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode("latin-1", "replace")
    head, route = parse_request(raw)
    return browser_refusal(head, route, True, frozenset(allowed))


@pytest.mark.parametrize("port", ["", ":2375"])
@pytest.mark.parametrize("name", ADMITTED)
def test_a_name_that_no_page_can_rebind_is_admitted(name: str, port: str) -> None:
    assert reason_for(name + port) is None
    assert reason_for("127.0.0.1", f"http://{name}{port}/info") is None


@pytest.mark.parametrize("port", ["", ":2375"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_public_looking_name_is_refused(name: str, port: str) -> None:
    for reason in (reason_for(name + port), reason_for("d", f"http://{name}{port}/info")):
        assert reason and "public-looking name" in reason
    assert reason_for("d", f"x://user@{name}{port}/info")


def test_a_name_beyond_ascii_is_no_address() -> None:
    head, route = parse_request("GET http://1.\u0661/ HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    assert browser_refusal(head, route, True, frozenset())


def test_the_refusal_repeats_no_more_of_a_name_than_dns_has() -> None:
    reason = reason_for("a" * 10_000 + ".example")
    assert reason and len(reason) < 500


def test_a_public_name_is_admitted_where_it_is_allowed_or_certified() -> None:
    name = "docker.corp.example"
    assert reason_for(f"{name}:2375")
    assert reason_for(f"{name}:2375", "/", "", name) is None
    assert reason_for(name, "/", "", "*") is None
    head, route = parse_request(b"GET / HTTP/1.1\r\nHost: docker.corp.example\r\n\r\n")
    assert browser_refusal(head, route, False, frozenset()) is None


# -- what only browsers send

PAGES = [
    # Host, further fields, target, refused
    (b"127.0.0.1", b"Sec-Fetch-Site: cross-site\r\n", b"/", True),
    (b"127.0.0.1", b"Sec-Fetch-Site: same-site\r\n", b"/", True),
    (b"127.0.0.1", b"Sec-Fetch-Site: same-origin\r\n", b"/", False),
    (b"127.0.0.1", b"Sec-Fetch-Site: none\r\n", b"/", False),
    (b"127.0.0.1:2375", b"Origin: http://127.0.0.1:2375\r\n", b"/", False),
    (b"127.0.0.1:2375", b"Origin: ws://127.0.0.1:2375\r\n", b"/", False),
    (b"127.0.0.1", b"Origin: HTTP://127.0.0.1:80\r\n", b"/", False),
    (b"127.0.0.1:443", b"Origin: https://127.0.0.1\r\n", b"/", False),
    (b"127.0.0.1:2375", b"Origin: http://127.0.0.1:2376\r\n", b"/", True),
    (b"127.0.0.1:2375", b"Origin: http://127.0.0.1\r\n", b"/", True),
    (b"127.0.0.1:2375", b"Origin: http://evil.example\r\n", b"/", True),
    (b"127.0.0.1:2375", b"Origin: null\r\n", b"/", True),
    (b"127.0.0.1:2375", b"Origin:\r\n", b"/", True),
    (b"127.0.0.1:2375", b"Origin: chrome-extension://127.0.0.1:2375\r\n", b"/", True),
]


@pytest.mark.parametrize("host, fields, target, refused", PAGES)
def test_what_looks_like_a_web_page_is_refused(
    host: bytes, fields: bytes, target: bytes, refused: bool
) -> None:
    raw = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + fields + b"\r\n"
    head, route = parse_request(raw)
    reason = browser_refusal(head, route, True, frozenset())
    assert (reason is not None) is refused


# -- denials


def denial(path: str = "/x", rule: str = "browser", **client: object) -> Denial:
    """A refused GET of some client."""
    return Denial("denied", "GET", path, {"listener": "tcp", "address": "::1", **client}, rule)


def test_equal_denials_are_written_once_a_minute_and_all_are_counted() -> None:
    counts, rng = DenialCounts(), random.Random(4)
    written, total, last = 0, 0, {}
    for step in range(5000):
        now, path = step * 0.05, f"/{rng.randrange(30 if step < 4000 else 5 * MAX_DENIALS)}"
        due = counts.add(denial(path), now) + (counts.due(now) if step % 100 == 0 else [])
        for item, count in due:
            written += count
            before = last.get(item.path, -DENIAL_INTERVAL)
            assert step >= 4000 or now - before >= DENIAL_INTERVAL
            last[item.path] = now
        assert len(counts._entries) <= MAX_DENIALS
        total += 1
    assert written + sum(count for _, count in counts.drain()) == total
    assert counts.drain() == []


def test_a_denial_that_came_again_is_written_a_minute_later_without_another() -> None:
    counts = DenialCounts()
    assert counts.add(denial(), 0.0) == [(denial(), 1)]
    assert counts.add(denial(), 1.0) == counts.add(denial(), 2.0) == []
    assert counts.due(DENIAL_INTERVAL - 1) == []
    assert counts.due(DENIAL_INTERVAL) == [(denial(), 2)]
    assert counts.due(2 * DENIAL_INTERVAL) == [] and not counts._entries


def test_denials_of_one_client_are_equal_whatever_its_process() -> None:
    counts = DenialCounts()
    assert counts.add(denial(pid=1), 0.0) and not counts.add(denial(pid=2), 0.0)
    assert counts.add(denial(address="::2"), 0.0) and counts.add(denial(rule="http"), 0.0)


def test_a_denial_keeps_no_more_of_a_path_than_a_record_has() -> None:
    counts = DenialCounts()
    for number in range(2 * MAX_DENIALS):
        due = counts.add(denial(f"/{number:06d}" + "a" * 100_000), 0.0)
        assert all(item.path and len(item.path) == MAX_PATH for item, _ in due)
    kept = [item.path for _, _, item in counts._entries.values()]
    assert all(path and len(path) == MAX_PATH for path in kept)


def test_a_denial_without_method_and_path_is_counted_too() -> None:
    counts, nameless = DenialCounts(), denial()._replace(method=None, path=None)
    assert counts.add(nameless, 0.0) == [(nameless, 1)]
    assert counts.add(nameless, 1.0) == [] and counts.drain() == [(nameless, 1)]
