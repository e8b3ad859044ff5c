"""The whole process between plain sockets and a scripted engine: relay, audit, command line."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading

import pytest
import requests_unixsocket
from program import run_program
from scripted import LOGS_HEAD, ScriptedEngine, chunk, json_answer, logs_answer, stdcopy_frame

from conftest import ROOT, wait_for

AWS_KEY = b"AK" + b"IA" + b"IOSFODNN7EXAMPLE"
LOGS = b"GET /v1.43/containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n"


@pytest.fixture
def engine(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


@pytest.fixture
def proxy(engine, start_proxy):
    return start_proxy(engine.path)


def connect(proxy):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(proxy.socket)
    return sock


def receive_until(sock, mark):
    data = b""
    while mark not in data:
        block = sock.recv(65536)
        assert block, f"closed after {data!r}"
        data += block
    return data


def exchange(proxy, request):
    """Send a request, and read to the end of the connection."""
    with connect(proxy) as sock:
        sock.sendall(request)
        data = b""
        while True:
            block = sock.recv(65536)
            if not block:
                return data
            data += block


def command(*arguments, stdin=b""):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER")}
    return run_program(*arguments, input=stdin, env=plain)


def test_ordinary_requests_and_their_answers_are_relayed(proxy, engine):
    session = requests_unixsocket.Session()
    url = "http+unix://" + proxy.socket.replace("/", "%2F")
    assert session.get(url + "/version").json()["Version"] == "28.0"
    assert session.get(url + "/nothing").status_code == 404
    engine.routes["/containers/create"] = json_answer({"Id": "x"}, b"201 Created")
    assert (
        session.post(url + "/v1.43/containers/create", json={"Image": "busybox"}).status_code == 201
    )
    assert engine.requests[-1][1] == b'{"Image": "busybox"}'
    assert session.head(url + "/_ping").text == ""
    assert proxy.wait_records("request")[0]["path"] == "/containers/create"


def test_pipelined_requests_on_one_connection_are_all_answered(proxy):
    with connect(proxy) as sock:
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n" * 2)
        data = b""
        while data.count(b"OK\r\n") + data.count(b"\r\n\r\nOK") < 4:
            data += sock.recv(65536)
        assert data.count(b"HTTP/1.1 200 OK") == 2


def test_a_log_is_relayed_byte_for_byte_and_its_secrets_are_recorded_redacted(proxy, engine):
    frames = [
        stdcopy_frame(1, b"key " + AWS_KEY + b"\n"),
        stdcopy_frame(2, b"mail user@exa"),
        stdcopy_frame(1, b"fine\n"),
        stdcopy_frame(2, b"mple.org\n"),
    ]
    engine.routes["/containers/web/logs"] = logs_answer(*frames)
    with connect(proxy) as sock:
        sock.sendall(LOGS)
        body = receive_until(sock, b"\r\n0\r\n\r\n").partition(b"\r\n\r\n")[2]
    assert body == b"".join(map(chunk, frames)) + b"0\r\n\r\n"
    close = proxy.wait_records("stream_close")[0]
    assert (close["frames"], close["findings"], close["unscanned"], close["reason"]) == (
        4,
        2,
        0,
        "end",
    )
    found = {record["pattern"]: record for record in proxy.records("finding")}
    assert set(found) == {"AWS Access Key", "Email Address"}
    assert found["AWS Access Key"]["redacted_match"] == "AK***LE"
    assert (found["AWS Access Key"]["stream_type"], found["Email Address"]["stream_type"]) == (
        "stdout",
        "stderr",
    )
    assert found["AWS Access Key"]["container_name"] == "web"
    assert AWS_KEY not in proxy.log.read_bytes() and AWS_KEY not in proxy.errors.read_bytes()


LARGE = random.Random(3).randbytes(3 << 20)


@pytest.mark.parametrize("sent", [len(LARGE), len(LARGE) - 1, 1_500_000])
def test_a_large_body_ends_where_the_engine_ended_it(proxy, engine, sent):
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nContent-Length: %d\r\n\r\n"
        % len(LARGE)
    )

    def export(sock, request):
        sock.sendall(head + LARGE[:sent])
        if sent < len(LARGE):
            sock.close()

    engine.routes["/images/web/get"] = export
    for _ in range(2):
        body = exchange(
            proxy, b"GET /images/web/get HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        ).partition(b"\r\n\r\n")[2]
        assert body == LARGE[:sent]


def test_a_large_body_arrives_whole_at_a_slow_reader_and_the_connection_goes_on(proxy, engine):
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nContent-Length: %d\r\n\r\n"
        % len(LARGE)
    )
    engine.routes["/images/web/get"] = lambda sock, request: sock.sendall(head + LARGE)
    with connect(proxy) as sock:
        for size in (1 << 20, 999):  # bytes that the reader takes at once
            sock.sendall(b"GET /images/web/get HTTP/1.1\r\nHost: d\r\n\r\n")
            body = receive_until(sock, b"\r\n\r\n").partition(b"\r\n\r\n")[2]
            while len(body) < len(LARGE):
                body += sock.recv(size)
            assert body == LARGE
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert receive_until(sock, b"\r\n\r\nOK")


def test_frames_arrive_one_by_one_and_the_engine_sees_the_client_leave(proxy, engine):
    """Each frame arrives before the engine sends the next one."""
    ended, arrived = [], threading.Semaphore(0)

    def follow(sock, head):
        sock.sendall(LOGS_HEAD)
        for number in range(3):
            sock.sendall(chunk(stdcopy_frame(1, b"line %d\n" % number)))
            assert arrived.acquire(timeout=20)
        ended.append(sock.recv(1))

    engine.routes["/containers/web/logs"] = follow
    sock = connect(proxy)
    sock.sendall(LOGS)
    for number in range(3):
        receive_until(sock, b"line %d\n" % number)
        arrived.release()
    assert len(proxy.wait_records("stream_open")) == 1 and not proxy.records("stream_close")
    sock.close()
    wait_for(lambda: ended == [b""], "the engine's connection to end")
    assert proxy.wait_records("stream_close")[0]["reason"] == "client"


def test_an_attached_stream_can_be_half_closed(proxy, engine):
    def attach(sock, head):
        sock.sendall(
            b"HTTP/1.1 101 UPGRADED\r\n"
            b"Content-Type: application/vnd.docker.multiplexed-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        data = b""
        while True:
            block = sock.recv(65536)
            if not block:
                break
            data += block
        sock.sendall(stdcopy_frame(1, data))
        sock.close()

    engine.routes["/containers/web/attach"] = attach
    with connect(proxy) as sock:
        sock.sendall(
            b"POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        receive_until(sock, b"\r\n\r\n")
        sock.sendall(b"hello " + AWS_KEY + b"\n")
        sock.shutdown(socket.SHUT_WR)
        assert receive_until(sock, AWS_KEY + b"\n") == stdcopy_frame(1, b"hello " + AWS_KEY + b"\n")
        assert sock.recv(1) == b""
    proxy.wait_records("stream_close")
    assert "stdout" in {record["stream_type"] for record in proxy.wait_records("finding")}


@pytest.mark.parametrize("cut", [b"\x01\x00\x00", stdcopy_frame(1, b"half of it")[:-4]])
def test_a_stream_that_ends_inside_a_frame_is_recorded_as_cut(proxy, engine, cut):
    engine.routes["/containers/web/logs"] = logs_answer(stdcopy_frame(1, b"whole\n"), cut)
    with connect(proxy) as sock:
        sock.sendall(LOGS)
        assert receive_until(sock, b"0\r\n\r\n").endswith(chunk(cut) + b"0\r\n\r\n")
    assert proxy.wait_records("stream_close")[0]["reason"] == "cut_frame"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nX: a\rSmuggled: b\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: a\r\nBad Name: b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_illegal_heads_get_400_and_never_reach_the_engine(proxy, engine, request_bytes):
    assert exchange(proxy, request_bytes).startswith(b"HTTP/1.1 400 ")
    reached = {head.split(b" ")[1] for head, _ in engine.requests}
    assert reached <= {b"/version"}  # which the proxy asks for itself


def test_requests_get_502_until_the_engine_is_there(folder, start_proxy):
    path = str(folder / "engine.sock")
    proxy = start_proxy(path)
    answer = exchange(proxy, b"GET /_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ") and b'"message"' in answer
    with ScriptedEngine(path):
        assert exchange(
            proxy, b"GET /_ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ).endswith(b"OK")


def test_sigterm_cuts_endless_streams_and_leaves_a_whole_log(proxy, engine):
    def follow(sock, head):
        sock.sendall(LOGS_HEAD + chunk(stdcopy_frame(1, b"api_key=" + b"a1B2" * 6 + b"\n")))
        sock.recv(1)

    engine.routes["/containers/web/logs"] = follow
    with connect(proxy) as sock:
        sock.sendall(LOGS)
        receive_until(sock, b"a1B2")
        assert proxy.stop() == 0
    events = [record["event"] for record in proxy.records()]
    assert events[0] == "start" and events[-1] == "stop" and "finding" in events
    assert proxy.records("stream_close")[0]["reason"] == "shutdown"
    assert command("verify", str(proxy.log)).returncode == 0
    assert os.stat(proxy.log).st_mode & 0o777 == 0o600


def test_rotation_by_rename_loses_nothing(proxy, engine, folder):
    engine.routes["/containers/web/logs"] = logs_answer(stdcopy_frame(1, b"user@example.org\n"))
    for _ in range(2):
        with connect(proxy) as sock:
            sock.sendall(LOGS)
            receive_until(sock, b"0\r\n\r\n")
        proxy.wait_records("stream_close")
        if not (folder / "audit.log.1").exists():
            os.rename(proxy.log, folder / "audit.log.1")
            proxy.process.send_signal(signal.SIGHUP)
            proxy.wait_records("rotated")
    assert proxy.stop() == 0
    verified = command("verify", str(folder / "audit.log.1"), str(proxy.log))
    assert verified.returncode == 0, verified.stdout


def test_verify_notices_a_changed_line(proxy):
    proxy.stop()
    lines = proxy.log.read_bytes().splitlines(keepends=True)
    proxy.log.write_bytes(lines[0].replace(b'"pid": ', b'"pid": 1') + b"".join(lines[1:]))
    assert command("verify", str(proxy.log)).returncode == 1


def test_a_torn_last_line_gets_a_line_of_its_own(folder, engine, start_proxy):
    (folder / "audit.log").write_bytes(b'{"timestamp": "2026')
    proxy = start_proxy(engine.path)
    wait_for(lambda: b'"recovered"' in proxy.log.read_bytes(), "the recovered record")
    proxy.stop()
    assert proxy.log.read_bytes().startswith(b'{"timestamp": "2026\n')


def test_a_second_process_on_the_same_log_is_refused(proxy, engine, folder):
    second = command(
        "--listen",
        f"unix://{folder}/second.sock",
        "--upstream",
        engine.path,
        "--audit-log",
        str(proxy.log),
    )
    assert second.returncode == 75 and b"audit.log" in second.stderr


def test_a_policy_refuses_in_docker_s_json_and_names_the_setting(engine, start_proxy):
    proxy = start_proxy(engine.path, "--policy", "tecnativa", env={"CONTAINERS": "0"})
    answer = exchange(
        proxy, b"POST /v1.43/containers/web/kill HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 403 ") and b"CONTAINERS=1" in answer
    assert proxy.wait_records("denied")[0]["path"] == "/containers/web/kill"


def test_scan_exits_with_1_if_it_found_a_secret():
    found = command("scan", stdin=b"x " + AWS_KEY + b"\n")
    assert (
        found.returncode == 1
        and b'"AWS Access Key"' in found.stdout
        and AWS_KEY not in found.stdout
    )
    assert command("scan", stdin=b"nothing here\n").returncode == 0


def test_healthcheck_exits_with_69_without_a_listener(proxy):
    assert command("healthcheck", "--listen", f"unix://{proxy.socket}").returncode == 0
    assert command("healthcheck", "--listen", "unix:///nonexistent/x.sock").returncode == 69


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listen", "bogus"),
        ("--workers", "many"),
        ("--nonsense",),
        ("--audit-log", "/proc/nonexistent/x"),
    ],
)
def test_a_wrong_setting_exits_with_78_and_no_traceback(arguments):
    result = command(*arguments)
    assert result.returncode == 78, result.stderr
    assert b"Traceback" not in result.stderr


def test_version_and_rules_are_printed():
    assert command("--version").stdout.startswith(b"dockeraudit ")
    assert len(command("rules").stdout.splitlines()) >= 200


def test_the_demo_shows_findings_beside_what_the_client_sees():
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DOCKER")
    }
    environment["COLUMNS"] = "120"
    demo = subprocess.run(
        [sys.executable, str(ROOT / "e2e" / "demo.py")],
        capture_output=True,
        timeout=30,
        env=environment,
        check=False,
    )
    assert demo.returncode == 0, demo.stderr
    assert b"AK***TR" in demo.stdout and b"6 findings" in demo.stdout
    assert b"aws_access_key_id=" + b"*" * 20 in demo.stdout  # what a masked reader sees
