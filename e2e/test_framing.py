"""Every form of a container's stream on real engines, over raw sockets.

The client gets the bytes that it gets from the engine directly, and each secret is found once.

The matrix: logs, attach, exec × answered 101 or 200 × API prefix v1.24, v1.41, the engine's newest
× TTY or not. One program writes the output. It waits for a line before each of its steps, so that
a stream that held anything back would stand still. Before each secret it prints what looks like a
frame's header: with a TTY nothing else is a header. Its secrets come as two words that it joins; it
writes the first one in two parts with a pause between, so that two frames cut it.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients import MATRIX, PREFIX

from conftest import ProxyProcess, wait_for

pytestmark = pytest.mark.engine
NAME = PREFIX + "-streams"
PROGRAM = """
while read a b c d e; do
  [ "$a" = bye ] && exit 4
  printf "\\001\\000\\000\\000\\000\\000\\000\\010out $a"; sleep 0.3; echo "$b ="
  read go; printf "\\000\\000\\000\\000\\000\\000\\000\\040err $c$d =\\n" >&2
  read go; echo END
done
"""
LOGGED = (
    'printf "\\001\\000\\000\\000\\000\\000\\000\\010out $1"; sleep 0.3; echo "$2"; sleep 0.2;'
    'printf "\\000\\000\\000\\000\\000\\000\\000\\040err $3$4\\n" >&2'
)
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def key(letter, number):
    """An access key, as two halves; its last two characters tell which one it is."""
    return "AK", "IA" + "EXAMPLEONLY777"[:14] + f"{letter}{number}"


def shown(letter, number):
    """How the key's finding shows it."""
    return f"AK***{letter}{number}"


class Wire:
    """A raw connection to an engine: one request, then whatever comes."""

    def __init__(self, address):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(30)
        self.sock.connect(address)
        self.data = b""

    def request(self, line, extra="", body=None):
        """Send a request, read the answer's head: (status, content type)."""
        payload = json.dumps(body).encode() if body is not None else b""
        sized = (
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
            if body is not None
            else ""
        )
        self.sock.sendall(
            f"{line} HTTP/1.1\r\nHost: docker\r\n{extra}{sized}\r\n".encode() + payload
        )
        head = self.until(b"\r\n\r\n").decode()
        kind = re.search(r"(?i)\r\ncontent-type: *([^\r]*)", head)
        self.chunked = "chunked" in head.lower()
        return int(head.split()[1]), kind and kind[1]

    def until(self, mark):
        """The bytes up to and with `mark`."""
        while mark not in self.data:
            block = self.sock.recv(65536)
            assert block, f"the stream ended before {mark!r}: {self.data!r}"
            self.data += block
        head, _, self.data = self.data.partition(mark)
        return head + mark

    def rest(self):
        """All bytes to the end of the stream, without chunk framing."""
        if self.chunked:
            pieces = []
            while True:
                size = int(self.until(b"\r\n"), 16)
                while len(self.data) < size + 2:
                    self.data += self.sock.recv(65536)
                pieces.append(self.data[:size])
                self.data = self.data[size + 2 :]
                if not size:
                    return b"".join(pieces)
        while True:
            block = self.sock.recv(65536)
            self.data += block
            if not block:
                return self.data

    def close(self):
        self.sock.close()


class Place:
    """An engine with its proxy and containers: plain and with a TTY."""

    def __init__(self, engine, folder):
        self.engine = engine
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.proxy = ProxyProcess(
            folder, engine.socket, "--listen", f"tcp://127.0.0.1:{self.port}"
        ).ready()
        self.prefixes = sorted(
            {"v1.24", "v1.41", f"v{engine.api}"}, key=lambda prefix: int(prefix.partition(".")[2])
        )
        self.containers = {}

    def container(self, tty, *command):
        """Start a container that lives until the end, unless it is there; its full id and name."""
        name = f"{NAME}-{len(self.containers)}"
        if (tty, command) not in self.containers:
            options = ["-dit" if tty else "-di", "--name", name, "--network", "none"]
            full = self.engine.docker("run", *options, "busybox", *command).stdout.decode().strip()
            self.containers[tty, command] = (full, name)
        return self.containers[tty, command]

    def address(self, number):
        """The proxy's Unix socket and its TCP port in turn."""
        return ("127.0.0.1", self.port) if number % 2 else self.proxy.socket

    def findings(self, endpoint, full_id, after, count):
        """What each of the `count` streams behind stream `after` found, once all are closed.

        A Counter of (stream type, the secret as it is shown) for each.
        """
        closes = wait_for(
            lambda: self._closed(endpoint, after, count), f"{count} {endpoint} streams to close"
        )
        found = {}
        for close in closes:
            assert close["unscanned"] == 0
            found[close["stream"]] = Counter()
        for record in self.proxy.records("finding"):
            if record["stream"] in found and record["pattern"] == "AWS Access Key":
                assert record["container_id"] == full_id and record["endpoint"] == endpoint, record
                assert record["container_name"] and record["container_name"].startswith(NAME)
                found[record["stream"]][record["stream_type"], record["redacted_match"]] += record[
                    "count"
                ]
        return [found[stream] for stream in sorted(found)]

    def _closed(self, endpoint, after, count):
        opened = {
            r["stream"]
            for r in self.proxy.records("stream_open")
            if r["endpoint"] == endpoint and r["stream"] > after
        }
        closed = [r for r in self.proxy.records("stream_close") if r["stream"] in opened]
        return closed if len(closed) == count else None

    def streams(self):
        """The number of the last stream so far."""
        return max((record["stream"] for record in self.proxy.records("stream_open")), default=0)


@pytest.fixture(scope="module")
def place(real_engine):
    folder = tempfile.mkdtemp(prefix="da-")
    place = Place(real_engine, folder)
    yield place
    for full, _ in place.containers.values():
        real_engine.docker("rm", "-fv", full)
    assert place.proxy.stop() == 0
    assert [
        line for line in place.proxy.errors.read_text().splitlines() if "info:" not in line
    ] == []
    shutil.rmtree(folder)


def forms(place):
    """Number, prefix and extra header lines of each form of a request."""
    number = 0
    for prefix in place.prefixes:
        for extra in (UPGRADE, ""):
            yield number, prefix, extra
            number += 1


def converse(wire, number):
    """Lead the program through its steps; returns all that came.

    Each step must have been delivered before the next begins.
    """
    first, second, third = key("A", number), key("B", number), key("C", number)
    wire.sock.sendall(" ".join((*first, *second, "".join(third))).encode() + b"\n")
    came = wire.until(first[1].encode() + b" =")  # not as it was typed, which a TTY echoes
    wire.sock.sendall(b"go\n")
    came += wire.until(second[1].encode() + b" =")
    wire.sock.sendall(b"go\n")
    return came + wire.until(b"END")


def expected(tty, number):
    """The findings of such a conversation: with a TTY the kernel echoes what is typed."""
    if tty:
        types = {("tty", "A"), ("tty", "B"), ("tty", "C"), ("stdin", "C")}
    else:
        types = {("stdout", "A"), ("stderr", "B"), ("stdin", "C")}
    return {(stream_type, shown(letter, number)): 1 for stream_type, letter in types}


def verdict(place, client, case, tty, equal):
    name = f"{case}, {'TTY' if tty else 'no TTY'}: v1.24, v1.41, newest; Upgrade or not"
    MATRIX.add(client, name, place.engine.version, "equal" if equal else "differs")


@pytest.mark.parametrize("tty", [False, True], ids=["plain", "tty"])
def test_attach(place, tty):
    containers = [place.container(tty, "sh", "-c", PROGRAM, way) for way in ("direct", "proxied")]
    before = place.streams()

    def run(container, address, prefix, extra, number):
        wire = Wire(address)
        query = "stream=1&stdin=1&stdout=1&stderr=1"
        answer = wire.request(f"POST /{prefix}/containers/{container[0]}/attach?{query}", extra)
        came = converse(wire, number)
        wire.close()
        return answer, came

    for number, prefix, extra in forms(place):
        with ThreadPoolExecutor(2) as executor:
            direct = executor.submit(run, containers[0], place.engine.socket, prefix, extra, number)
            proxied = executor.submit(
                run, containers[1], place.address(number), prefix, extra, number
            )
        verdict(place, "raw socket", "attach", tty, direct.result() == proxied.result())
        assert proxied.result() == direct.result(), (prefix, extra)
        assert proxied.result()[0][0] == (101 if extra else 200)
    wanted = [expected(tty, number) for number, _, _ in forms(place)]
    assert place.findings("attach", containers[1][0], before, len(wanted)) == wanted


@pytest.mark.parametrize("tty", [False, True], ids=["plain", "tty"])
def test_exec(place, tty):
    full, _ = place.container(False, "sleep", "1000")
    before = place.streams()

    def run(form, address):
        number, prefix, extra = form
        wire = Wire(place.engine.socket)
        create = {
            "Cmd": ["sh", "-c", PROGRAM],
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
        }
        wire.request(f"POST /{prefix}/containers/{full}/exec", "Connection: close\r\n", create)
        exec_id = json.loads(wire.rest())["Id"]
        wire.close()
        wire = Wire(address)
        answer = wire.request(
            f"POST /{prefix}/exec/{exec_id}/start", extra, {"Detach": False, "Tty": tty}
        )
        came = converse(wire, number)
        wire.sock.sendall(b"bye\n")
        came += wire.rest()
        wire.close()
        wire = Wire(place.engine.socket)
        wire.request(f"GET /{prefix}/exec/{exec_id}/json", "Connection: close\r\n")
        code = json.loads(wire.rest())["ExitCode"]
        wire.close()
        return answer, came, code

    with ThreadPoolExecutor(4) as executor:
        for form in forms(place):
            direct, proxied = executor.map(
                run, (form, form), (place.engine.socket, place.address(form[0]))
            )
            verdict(place, "raw socket", "exec", tty, direct == proxied)
            assert proxied == direct, form
            assert proxied[0][0] == (101 if form[2] else 200) and proxied[2] == 4
    wanted = [expected(tty, number) for number, _, _ in forms(place)]
    assert place.findings("exec", full, before, len(wanted)) == wanted


@pytest.mark.parametrize("tty", [False, True], ids=["plain", "tty"])
def test_logs(place, tty):
    full, name = place.container(tty, "sh", "-c", LOGGED, "sh", *key("A", 0), *key("B", 0))
    place.engine.docker("wait", full)
    before = place.streams()
    queries = (
        "stdout=1&stderr=1",
        "stdout=1&stderr=1&timestamps=1",
        "stdout=true&stderr=true&follow=1&details=1&tail=all",
        "stderr=1",
    )

    def run(address, line, extra):
        wire = Wire(address)
        answer = wire.request(line, extra)
        came = wire.rest() if wire.chunked or not extra else wire.until(key("B", 0)[1].encode())
        wire.close()
        return answer, came

    wanted = []
    for number, prefix, extra in forms(place):
        query, target = queries[number % len(queries)], (full, name, full[:12])[number % 3]
        line = f"GET /{prefix}/containers/{target}/logs?{query}"
        direct, proxied = (
            run(place.engine.socket, line, extra),
            run(place.address(number), line, extra),
        )
        verdict(place, "raw socket", "logs", tty, direct == proxied)
        assert proxied == direct, line
        assert proxied[0][0] == 200
        both = {
            ("tty" if tty else "stdout", shown("A", 0)): 1,
            ("tty" if tty else "stderr", shown("B", 0)): 1,
        }
        wanted.append(both if tty or "stdout" in query else {("stderr", shown("B", 0)): 1})
    if tty:  # a TTY's one stream is what `stdout` asks for
        wanted = [
            each if "stdout" in queries[number % 4] else {} for number, each in enumerate(wanted)
        ]
    assert place.findings("logs", full, before, len(wanted)) == wanted


@pytest.mark.parametrize("tty", [False, True], ids=["plain", "tty"])
def test_websocket_attach(place, tty):
    websocket = pytest.importorskip(
        "websocket", reason="websocket-client is not installed: e2e/run does it"
    )
    containers = [
        place.container(tty, "sh", "-c", PROGRAM, way) for way in ("ws direct", "ws proxied")
    ]
    before = place.streams()

    def run(container, address, number):
        wire = Wire(address)
        path = f"/v1.41/containers/{container[0]}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
        host = "docker" if isinstance(address, str) else f"{address[0]}:{address[1]}"
        connection = websocket.create_connection(f"ws://{host}{path}", socket=wire.sock, timeout=30)
        lines = [
            " ".join((*key("A", number), *key("B", number), "".join(key("C", number)))),
            "go",
            "go",
        ]
        came = b""
        for line, mark in zip(
            lines,
            (key("A", number)[1].encode() + b" =", key("B", number)[1].encode() + b" =", b"END"),
        ):
            connection.send(line + "\n")
            while mark not in came:
                data = connection.recv()
                came += data.encode() if isinstance(data, str) else data
        connection.close()
        return came

    for number in (0, 1):
        direct, proxied = (
            run(containers[0], place.engine.socket, number),
            run(containers[1], place.address(number), number),
        )
        MATRIX.add(
            "websocket-client",
            f"attach/ws, {'TTY' if tty else 'no TTY'}",
            place.engine.version,
            "equal" if direct == proxied else "differs",
        )
        assert proxied == direct
    wanted = [
        {
            **{("tty", shown(letter, number)): 1 for letter in ("ABC" if tty else "AB")},
            ("stdin", shown("C", number)): 1,
        }
        for number in (0, 1)
    ]
    assert place.findings("attach_ws", containers[1][0], before, len(wanted)) == wanted


def test_detach_keys_of_a_raw_attach(place):
    """The engine sees the keys in what is typed, over TCP too: only the stream ends."""
    full, _ = place.container(True, "sh", "-c", PROGRAM, "detach")

    def run(address):
        wire = Wire(address)
        wire.request(
            f"POST /v1.41/containers/{full}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,y",
            UPGRADE,
        )
        wire.sock.sendall(b"\x18")
        wire.sock.sendall(b"y")
        came = wire.rest()
        wire.close()
        return came, place.engine.docker("inspect", "-f", "{{.State.Running}}", full).stdout

    outcomes = [
        run(address) for address in (place.engine.socket, place.address(0), place.address(1))
    ]
    MATRIX.add(
        "raw socket",
        "attach with detachKeys",
        place.engine.version,
        "equal" if len(set(outcomes)) == 1 else "differs",
    )
    assert outcomes[0][1] == b"true\n" and len(set(outcomes)) == 1, outcomes


@pytest.mark.parametrize("extra", [UPGRADE, ""], ids=["101", "200"])
def test_half_close_of_a_raw_exec(place, extra):
    """The end of what is typed reaches the program, and all that it says afterwards comes back."""
    full, _ = place.container(False, "sleep", "1000")

    def run(address):
        made = Wire(place.engine.socket)
        create = {
            "Cmd": ["sh", "-c", "cat; sleep 0.2; echo after"],
            "AttachStdin": True,
            "AttachStdout": True,
        }
        made.request(f"POST /v1.41/containers/{full}/exec", "Connection: close\r\n", create)
        exec_id = json.loads(made.rest())["Id"]
        made.close()
        wire = Wire(address)
        wire.request(f"POST /v1.41/exec/{exec_id}/start", extra, {"Detach": False, "Tty": False})
        wire.sock.sendall(b"typed\n")
        wire.sock.shutdown(socket.SHUT_WR)
        came = wire.rest()
        wire.close()
        return came

    outcomes = [
        run(address) for address in (place.engine.socket, place.address(0), place.address(1))
    ]
    MATRIX.add(
        "raw socket",
        f"exec with half-close, {'101' if extra else '200'}",
        place.engine.version,
        "equal" if len(set(outcomes)) == 1 else "differs",
    )
    assert len(set(outcomes)) == 1 and outcomes[0].endswith(b"after\n"), outcomes
