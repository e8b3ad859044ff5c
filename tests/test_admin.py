"""The admin listener: health, metrics and the page; nothing for a web page, no crowd of threads."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

import _dockeraudit.admin as admin_room
from _dockeraudit.admin import ADMIN_CONNECTIONS, AdminServer
from _dockeraudit.errors import ListenError
from _dockeraudit.settings import Address
from conftest import wait_for

COUNTERS = {
    "bytes": 10, "frames": 2, "unscanned": 3, "written": 4, "lost": 5, "degraded": False,
    "findings": Counter({('Say "x"\n', "HIGH"): 7}),
    "endpoints": Counter({("inspect", "HIGH"): 5, ("logs", "HIGH"): 2}),
}  # fmt: skip


def make_proxy(**settings):
    """What the admin listener needs of a proxy; its engine does not answer."""
    chosen = {"upstream": "/nonexistent", "allow_browser": False, "allow_host": frozenset()}
    said = []
    return SimpleNamespace(
        said=said,
        settings=SimpleNamespace(**{**chosen, **settings}),
        log=SimpleNamespace(counters=lambda: COUNTERS),
        connections=SimpleNamespace(exchanges=list, open=lambda: [1, 2], most=1024),
        request_counts=lambda: Counter({("GET", 200): 3, ("other", 400): 1}),
        denied=6,
        diagnostics=SimpleNamespace(seldom=lambda level, key, text: said.append(text)),
    )


@pytest.fixture
def start(monkeypatch):
    """Start admin listeners; all are stopped after the test."""
    monkeypatch.setattr(admin_room, "ADMIN_POLL", 0.01)
    with ExitStack() as stack:

        def start(address=None, page=lambda live: "the page", **settings):
            target = address or Address("tcp://127.0.0.1:0", socket.AF_INET, ("127.0.0.1", 0))
            server = AdminServer(make_proxy(**settings), target, page)
            server.start()
            stack.callback(server.stop)
            return server

        yield start


def connect(server):
    sock = socket.socket(server.address_family)
    sock.settimeout(15)
    sock.connect(server.server_address)
    return sock


def read_all(sock):
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def ask(server, path="/", *fields, host="127.0.0.1", method="GET"):
    """Status and whole answer of one request."""
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", "")
    with connect(server) as sock:
        sock.sendall("\r\n".join(lines).encode())
        answer = read_all(sock)
    return int(answer.split(b" ")[1]) if answer else None, answer


def test_each_path_has_its_answer(start):
    server = start()
    assert ask(server, "/healthz")[1].endswith(b"\r\n\r\nok\n")
    assert ask(server, "/")[1].endswith(b"\r\n\r\nthe page")
    status, answer = ask(server, "/readyz")
    assert status == 503 and b"the engine at /nonexistent does not answer" in answer
    assert ask(server, "/x?/metrics")[0] == 404
    assert ask(server, "/healthz", method="POST")[0] == 405
    status, answer = ask(server, "/metrics", method="HEAD")
    assert status == 200 and answer.endswith(b"\r\n\r\n")
    for field in (b"X-Frame-Options: DENY", b"Cache-Control: no-store", b"nosniff"):
        assert field in answer


def test_a_defect_is_one_line_without_values(start):
    def page(live):
        raise LookupError("a secret value")

    server = start(page=page)
    assert ask(server, "/") == (None, b"")
    wait_for(lambda: server.proxy.said, "the line")
    (said,) = server.proxy.said
    assert "closed by a defect: LookupError at test_admin.py:" in said and "secret" not in said


def test_metrics_are_in_prometheus_text_format(start):
    text = ask(start(), "/metrics")[1].partition(b"\r\n\r\n")[2].decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert 'dockeraudit_requests_total{method="GET",status="200"} 3' in samples
    assert 'dockeraudit_requests_total{method="other",status="400"} 1' in samples
    assert 'dockeraudit_findings_total{pattern="Say \\"x\\"\\n",severity="HIGH"} 7' in samples
    assert 'dockeraudit_findings_by_endpoint_total{endpoint="inspect",severity="HIGH"} 5' in samples
    assert "dockeraudit_engine_up 0" in samples and "dockeraudit_denied_total 6" in samples
    assert "dockeraudit_connections 2" in samples and "dockeraudit_connections_max 1024" in samples
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == 16
    assert all(any(line.startswith(name) for line in samples) for name in names)


FOREIGN = [
    ("evil.example.com", ()),
    ("evil.example.com:9000", ()),
    ("127.0.0.1", ("Sec-Fetch-Site: cross-site",)),
    ("127.0.0.1", ("Sec-Fetch-Site: same-site",)),
    ("127.0.0.1", ("Origin: https://evil.example.com",)),
    ("127.0.0.1", ("Origin: null",)),
]


@pytest.mark.parametrize("host, fields", FOREIGN)
def test_a_web_page_gets_nothing(start, host, fields):
    server = start(page=lambda live: pytest.fail("the page was made"))
    for path in ("/", "/metrics", "/healthz"):
        status, answer = ask(server, path, *fields, host=host)
        assert status == 403 and b"dockeraudit_" not in answer, (host, path)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "dockeraudit", "[::1]:9000"])
def test_addresses_and_private_names_are_served(start, host):
    server = start()
    own = f"Origin: http://{host}"
    assert ask(server, "/", own, "Sec-Fetch-Site: same-origin", host=host)[0] == 200


def test_a_name_can_be_admitted_and_the_check_turned_off(start):
    server = start(allow_host=frozenset({"audit.example.com"}))
    assert ask(server, "/", host="audit.example.com")[0] == 200
    assert ask(server, "/", host="other.example.com")[0] == 403
    assert ask(start(allow_browser=True), "/", host="other.example.com")[0] == 200


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, b"431"),
    ],
)
def test_illegal_requests_are_told_so(start, request_bytes, status):
    server = start()
    with connect(server) as sock:
        sock.sendall(request_bytes)
        assert read_all(sock).startswith(b"HTTP/1.1 " + status)
    assert server.proxy.said == []


def test_resets_leave_neither_a_traceback_nor_a_word(start, capfd):
    server = start()
    for number in range(20):
        sock = connect(server)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(b"GET /metr" if number % 2 else b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.close()
    assert ask(server, "/healthz")[0] == 200
    wait_for(lambda: not server._open, "the connections to end")
    assert server.proxy.said == [] and capfd.readouterr() == ("", "")


def test_a_crowd_of_silent_connections_holds_few_threads_and_shuts_nobody_out(start, monkeypatch):
    server, entered = start(), threading.Semaphore(0)
    enter = server._enter
    monkeypatch.setattr(server, "_enter", lambda sock: (enter(sock), entered.release())[0])
    before = threading.active_count()
    with ExitStack() as stack:
        crowd = []
        for _ in range(3 * ADMIN_CONNECTIONS):
            crowd.append(stack.enter_context(connect(server)))
            assert entered.acquire(timeout=20)  # a full backlog would cost a second
        assert ask(server, "/healthz")[0] == 200
        assert len(server._open) <= ADMIN_CONNECTIONS
        assert read_all(crowd[0]) == b""  # the oldest gave way
        wait_for(
            lambda: threading.active_count() - before <= ADMIN_CONNECTIONS + 1, "threads to end"
        )
    wait_for(lambda: not server._open and not server._silent, "the connections to end")


def test_a_connection_that_is_answered_is_not_closed_for_a_new_one(start, monkeypatch):
    monkeypatch.setattr(admin_room, "ADMIN_CONNECTIONS", 2)
    going_on, entered = threading.Event(), threading.Semaphore(0)

    def page(live):
        entered.release()
        assert going_on.wait(20)
        return "the page"

    server = start(page=page)
    with connect(server) as one, connect(server) as other:
        for sock in (one, other):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert entered.acquire(timeout=20)
        with connect(server) as third:
            assert read_all(third) == b""
        going_on.set()
        assert read_all(one).endswith(b"the page") and read_all(other).endswith(b"the page")


def test_a_silent_connection_ends_when_its_time_is_up(start, monkeypatch):
    monkeypatch.setattr(admin_room, "HEAD_TIMEOUT", 0.05)
    server = start()
    with connect(server) as sock:
        sock.sendall(b"GET / HTT")
        assert read_all(sock) == b""


def test_a_unix_socket_is_private_whatever_the_umask_and_gone_at_the_stop(start, folder):
    path = str(folder / "admin.sock")
    before = os.umask(0)
    try:
        server = start(Address(f"unix://{path}", socket.AF_UNIX, path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert ask(server, "/healthz", host="any.example.com")[0] == 200
    server.stop()
    assert not os.path.exists(path)


def test_a_path_that_another_process_took_over_is_left_alone(start, folder):
    path = str(folder / "admin.sock")
    server = start(Address(f"unix://{path}", socket.AF_UNIX, path))
    os.unlink(path)
    with open(path, "w"):
        pass
    server.stop()
    assert os.path.exists(path)


def test_an_address_in_use_is_one_sentence(start):
    first = start()
    taken = Address("tcp://127.0.0.1:9", socket.AF_INET, first.server_address)
    with pytest.raises(ListenError, match="cannot listen on tcp://127.0.0.1:9: .*--admin"):
        AdminServer(make_proxy(), taken, lambda live: "")
