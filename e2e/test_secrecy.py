"""Secrets wherever a client or a container can put them, none of which may show up elsewhere.

Not even six bytes in a row of one may be in the log, on standard error, in a metric or a traceback.
"""

from __future__ import annotations

import base64
import json
import random
import socket
import string
import time
from pathlib import Path

import pytest
from scripted import LOGS_HEAD, ScriptedEngine, chunk, json_answer, stdcopy_frame

from conftest import PROGRAM, wait_for

RNG = random.Random(20)


def letters(count, alphabet=string.ascii_letters + string.digits):
    return "".join(RNG.choice(alphabet) for _ in range(count))


UPPER = string.ascii_uppercase + string.digits
SECRETS = {
    "query": "AK" + "IA" + letters(16, UPPER),
    "path": "AK" + "IA" + letters(16, UPPER),
    "header": letters(40),
    "registry": letters(24),
    "body": letters(32),
    "line": "AK" + "IA" + letters(16, UPPER),
    "password": letters(20),
    "bearer": letters(40),
    "mail": letters(12).lower() + "@" + letters(12).lower() + ".org",
    "frames": letters(30),
    "partial": letters(60),
    "long": letters(70_000),
    "key": letters(64 * 12),
    "typed": letters(20),
    "exception": letters(40),
    "illegal": "AK" + "IA" + letters(16, UPPER),  # a refused path is recorded, masked
    "comment": letters(30),
}
REGISTRY_AUTH = base64.urlsafe_b64encode(
    json.dumps({"username": "u", "password": SECRETS["registry"]}).encode()
).decode()
WINDOW = 6

#: dockeraudit with three defects: a request, a scan and a look-up raise errors that hold a secret
BROKEN = """
import sys
sys.path.insert(0, {folder!r})
import dockeraudit
for room in ("engine", "exchange", "scanner"):  # of the stitched file, one module stands for all
    sys.modules.setdefault("_dockeraudit." + room, dockeraudit)
from _dockeraudit.engine import Lookups
from _dockeraudit.exchange import Exchange
from _dockeraudit.scanner import Scanner
run, scan, ask = Exchange.run, Scanner.scan_lines, Lookups._ask
def broken_run(self):
    if b"/boom" in self.head.target:
        held = {secret!r}
        raise LookupError(held, self.head)
    run(self)
def broken_scan(self, block):
    if b"poison" in block:
        raise ValueError(block)
    return scan(self, block)
def broken_ask(self, kind, name):
    if name == "unlucky":
        raise KeyError({secret!r})
    return ask(self, kind, name)
Exchange.run, Scanner.scan_lines, Lookups._ask = broken_run, broken_scan, broken_ask
dockeraudit.main()
"""


def windows():
    """Every six bytes in a row of each secret, and of the header that a client sends one in."""
    found = {}
    for name, secret in {**SECRETS, "registry, encoded": REGISTRY_AUTH}.items():
        if name == "registry, encoded":
            secret = secret[44:-4]  # without {"username": "u", "password": " and its end
        for start in range(len(secret) - WINDOW + 1):
            found[secret[start : start + WINDOW]] = name
    return found


def leaks(text):
    """The names of the secrets of which a text holds six bytes in a row."""
    known = windows()
    return sorted(
        {
            known[text[start : start + WINDOW]]
            for start in range(len(text) - WINDOW + 1)
            if text[start : start + WINDOW] in known
        }
    )


def test_the_search_finds_six_bytes_of_a_secret_and_not_its_redacted_form():
    assert leaks("x" + SECRETS["line"][3:9] + "y") == ["line"]
    assert leaks(f"AK***{SECRETS['line'][-2:]}") == [] and leaks(REGISTRY_AUTH) == [
        "registry, encoded"
    ]


def log_lines():
    """The container's output, in frames."""
    secret = {name: value.encode() for name, value in SECRETS.items()}
    lines = [
        b"key " + secret["line"] + b" pass" + b"word=" + secret["password"] + b"\n",
        b"Authorization: Bearer " + secret["bearer"] + b" from " + secret["mail"] + b"\n",
        b"-----BEGIN RSA PRIVATE " + b"KEY-----\n",
        *(secret["key"][start : start + 64] + b"\n" for start in range(0, len(secret["key"]), 64)),
        b"-----END RSA PRIVATE " + b"KEY-----\n",
        b"poison " + secret["comment"] + b"\n",
        b"api" + b"_key=" + secret["long"] + b"\n",
    ]
    frames = [stdcopy_frame(1, line) for line in lines]
    split = b"api" + b"_key=" + secret["frames"] + b"\n"
    frames += [stdcopy_frame(2, split[start : start + 7]) for start in range(0, len(split), 7)]
    return frames + [stdcopy_frame(1, b"token = api" + b"_key: " + secret["partial"])]


def answer_logs(sock, head):
    """Send the frames, with a pause around the one whose scan raises, which is scanned alone."""
    sock.sendall(LOGS_HEAD)
    for frame in log_lines():
        if b"poison" in frame:
            time.sleep(0.1)
        sock.sendall(chunk(frame))
        if b"poison" in frame:
            time.sleep(0.1)
    sock.sendall(b"0\r\n\r\n")


def answer_exec(sock, head):
    sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
    while True:
        block = sock.recv(65536)
        if not block:
            return
        sock.sendall(block)


@pytest.fixture
def engine(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/containers/web/logs"] = engine.routes["/containers/unlucky/logs"] = (
            answer_logs
        )
        engine.routes["/exec/e1/start"] = answer_exec
        engine.routes["/containers/create"] = json_answer({"Id": "x"}, b"201 Created")
        yield engine


def exchange(proxy, data, more=b"", until=None):
    """Send, and receive up to a mark or the end of the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(proxy.socket)
        sock.sendall(data)
        got = b""
        while until is None or until not in got:
            block = sock.recv(65536)
            if not block:
                return got
            got += block
            if more and b"\r\n\r\n" in got:
                sock.sendall(more)
                more = b""
        return got


def request(method, target, *fields, body=b""):
    head = [f"{method} {target} HTTP/1.1", "Host: docker", "Connection: close", *fields]
    if method == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def test_no_secret_byte_reaches_log_stderr_process_list_metrics_or_traceback(
    engine, start_proxy, folder
):
    program = folder / "broken.py"
    program.write_text(BROKEN.format(folder=str(Path(PROGRAM).parent), secret=SECRETS["exception"]))
    admin = socket.socket()
    admin.bind(("127.0.0.1", 0))
    port = admin.getsockname()[1]
    admin.close()
    proxy = start_proxy(
        engine.path,
        "--admin-listen",
        f"tcp://127.0.0.1:{port}",
        "--log-level",
        "debug",
        program=str(program),
    )
    query, header = (
        f"?stdout=1&token={SECRETS['query']}",
        f"Authorization: Basic {SECRETS['header']}",
    )
    for name in ("web", "unlucky"):
        got = exchange(
            proxy,
            request(
                "GET",
                f"/containers/{name}/logs{query}",
                header,
                f"X-Registry-Auth: {REGISTRY_AUTH}",
            ),
        )
        assert SECRETS["line"].encode() in got and got.endswith(
            b"0\r\n\r\n"
        )  # the client gets it all
    create = json.dumps({"Image": "x", "Env": [f"PASSWORD={SECRETS['body']}"]}).encode()
    assert b" 201 " in exchange(
        proxy,
        request(
            "POST", f"/containers/create{query}", f"X-Registry-Auth: {REGISTRY_AUTH}", body=create
        ),
    )
    assert b" 404 " in exchange(
        proxy, request("POST", f"/containers/{SECRETS['path']}/start{query}")
    )
    assert b" 400 " in exchange(
        proxy, f"GET / HTTP/1.1\r\nHost: x\r\nSecret : {SECRETS['illegal']}\r\n\r\n".encode()
    )
    assert b" 400 " in exchange(
        proxy, f"GET /{SECRETS['illegal']}\x01 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    )
    typed = b"pass" + b"word=" + SECRETS["typed"].encode() + b"\n"
    upgrade = request("POST", "/exec/e1/start", "Upgrade: tcp", body=b"{}").replace(
        b"Connection: close", b"Connection: Upgrade"
    )
    assert SECRETS["typed"].encode() in exchange(
        proxy, upgrade, more=typed, until=SECRETS["typed"].encode()
    )
    assert exchange(proxy, request("GET", f"/boom{query}")) == b""
    wait_for(
        lambda: "closed by a defect: LookupError at broken.py" in proxy.errors.read_text(),
        "the defect's line",
    )
    proxy.wait_records("stream_close", 3)
    seen = {"cmdline": Path(f"/proc/{proxy.process.pid}/cmdline").read_text()}
    for path in ("/metrics", "/", "/readyz"):
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            seen[path] = "".join(iter(lambda sock=sock: sock.recv(65536).decode(), ""))
    assert "dockeraudit_findings_total" in seen["/metrics"] and "***" in seen["/"]
    assert proxy.stop() == 0
    seen["audit.log"], seen["stderr"] = proxy.log.read_text(), proxy.errors.read_text()
    found = {record["pattern"] for record in proxy.records("finding")}
    assert {
        "AWS Access Key",
        "Generic API Key",
        "Email Address",
        "Bearer Token",
        "Password",
    } <= found
    assert {record["error"] for record in proxy.records("scan_error")} == {"ValueError"}
    assert any(record["stream_type"] in ("stdin", "tty") for record in proxy.records("finding"))
    assert {name: leaks(text) for name, text in seen.items()} == dict.fromkeys(seen, [])
