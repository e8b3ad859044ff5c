"""Streams that go on for long: no time limit ends them, and a slow reader costs no memory."""

from __future__ import annotations

import base64
import platform
import re
import socket
import threading
from pathlib import Path

from scripted import CONTAINER_ID, LOGS_HEAD, ScriptedEngine, chunk, json_answer, stdcopy_frame

from conftest import PROGRAM, wait_for

#: Runs the program with both of its clocks two hours ahead as soon as a file exists.
LATER = """
import os, runpy, sys, time
monotonic, wall = time.monotonic, time.time
time.monotonic = lambda: monotonic() + 7200 * os.path.exists({flag!r})
time.time = lambda: wall() + 7200 * os.path.exists({flag!r})
sys.argv[0] = {program!r}
runpy.run_path({program!r}, run_name="__main__")
"""

SWITCHED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
WEBSOCKET_KEY = base64.b64encode(b"0123456789abcdef")

#: name, request line, its further fields, the engine's head, how a word is framed
QUIET_STREAMS = [
    (
        "logs -f",
        b"GET /v1.43/containers/web/logs?stdout=1&follow=1",
        b"",
        LOGS_HEAD,
        lambda word: chunk(stdcopy_frame(1, word)),
    ),
    (
        "attach, 101",
        b"POST /v1.43/containers/web/attach?stream=1&stdout=1",
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n",
        SWITCHED % b"tcp",
        lambda word: stdcopy_frame(1, word),
    ),
    (
        "attach, 200",
        b"POST /containers/web/attach?stream=1&stdout=1",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
        lambda word: stdcopy_frame(1, word),
    ),
    (
        "exec",
        b"POST /v1.43/exec/1/start",
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n",
        SWITCHED % b"tcp",
        lambda word: stdcopy_frame(2, word),
    ),
    (
        "attach/ws",
        b"GET /containers/web/attach/ws?stream=1",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + WEBSOCKET_KEY + b"\r\n",
        SWITCHED % b"websocket",
        lambda word: b"\x82%c" % len(word) + word,
    ),
    (
        "session",
        b"POST /session",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        SWITCHED % b"h2c",
        lambda word: word,
    ),
    ("events", b"GET /v1.43/events", b"", CHUNKED, chunk),
    ("stats", b"GET /v1.43/containers/web/stats", b"", CHUNKED, chunk),
    ("wait", b"POST /v1.43/containers/web/wait", b"", CHUNKED, chunk),
]


class QuietEngine:
    """Answers each stream with a first word, and with a last one once `speak` is set."""

    def __init__(self):
        self.speak = threading.Event()

    def answer(self, head, framed):
        def stream(sock, request):
            sock.sendall(head + framed(b"first"))
            self.speak.wait(60)
            sock.sendall(framed(b"last!"))
            sock.recv(1)

        return stream


def may_look_into(pid):
    """Whether the kernel shows us the system call in which a process waits."""
    try:
        Path(f"/proc/{pid}/syscall").read_text()
    except OSError:
        return False
    return True


PPOLL = {"x86_64": "271", "aarch64": "73"}.get(platform.machine())


def polls_without_limit(pid):
    """How many threads of a process wait in poll(2) without a time limit."""
    endless = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            words = (task / "syscall").read_text().split()
        except FileNotFoundError:  # the thread has just ended
            continue
        if words[0] == "7":  # x86-64: poll(fds, count, milliseconds)
            endless += int(words[3], 16) & 0xFFFFFFFF == 0xFFFFFFFF
        elif words[0] == PPOLL:  # (fds, count, timespec, …), as Python 3.15 waits
            endless += int(words[3], 16) == 0
    return endless


def test_nothing_ends_a_stream_in_which_nothing_flows(folder, start_proxy):
    """Every kind of stream is silent for two virtual hours; its thread has no time limit."""
    flag = folder / "later"
    program = folder / "later.py"
    program.write_text(LATER.format(flag=str(flag), program=PROGRAM))
    quiet = QuietEngine()
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        engine.routes["/exec/1/json"] = json_answer({"ContainerID": CONTAINER_ID})
        proxy = start_proxy(
            engine.path, program=str(program), env={"PYTHONPATH": str(Path(PROGRAM).parent)}
        )
        socks = []
        try:
            for name, line, fields, head, framed in QUIET_STREAMS:
                engine.routes[
                    re.sub(r"^/v[\d.]+(?=/)", "", line.split(b" ")[1].partition(b"?")[0].decode())
                ] = quiet.answer(head, framed)
                sock = socket.socket(socket.AF_UNIX)
                socks.append(sock)
                sock.settimeout(20)
                sock.connect(proxy.socket)
                sock.sendall(line + b" HTTP/1.1\r\nHost: docker\r\n" + fields + b"\r\n")
                read_until(sock, b"first", name)
            if platform.machine() in ("x86_64", "aarch64") and may_look_into(proxy.process.pid):
                wait_for(
                    lambda: polls_without_limit(proxy.process.pid) >= len(socks),
                    "every relaying thread to wait without a limit",
                )
            flag.touch()
            quiet.speak.set()
            for (name, *_), sock in zip(QUIET_STREAMS, socks):
                read_until(sock, b"last!", name)
        finally:
            quiet.speak.set()
            for sock in socks:
                sock.close()
        closes = proxy.wait_records("stream_close", 6)
        assert [record["reason"] for record in closes] == ["client"] * 6
        assert min(record["seconds"] for record in closes) >= 7200


def read_until(sock, mark, name):
    data = b""
    while mark not in data:
        block = sock.recv(65536)
        assert block, f"{name} ended after {data!r}"
        data += block


def receive_all(sock):
    """All bytes up to the end of the connection."""
    blocks = []
    while not blocks or blocks[-1]:
        blocks.append(sock.recv(1 << 20))
    return b"".join(blocks)


def memory(pid, field):
    """A line of /proc/PID/status, in bytes."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) << 10


def test_a_slow_reader_holds_the_engine_up_and_memory_flat(folder, start_proxy):
    frame = stdcopy_frame(1, (b"one line among many " * 5 + b"\n") * 300)
    piece, frame_size = chunk(frame), len(frame)
    pieces = (32 << 20) // len(piece)
    sent = []

    def flood(sock, request):
        sock.sendall(LOGS_HEAD)
        for _ in range(pieces):
            sock.sendall(piece)
            sent.append(len(piece))
        sock.sendall(b"0\r\n\r\n")

    with (
        ScriptedEngine(str(folder / "engine.sock")) as engine,
        socket.socket(socket.AF_UNIX) as sock,
    ):
        engine.routes["/containers/web/logs"] = flood
        # its memory is its own, without the 16 MiB of each worker
        proxy = start_proxy(engine.path, "--workers", "0", forked=False)
        before = memory(proxy.process.pid, "VmRSS")
        sock.settimeout(20)
        sock.connect(proxy.socket)
        sock.sendall(b"GET /containers/web/logs?stdout=1 HTTP/1.1\r\nHost: docker\r\n\r\n")
        wait_for(lambda: sent and stands_still(lambda: len(sent)), "the engine to be held up")
        assert sum(sent) < 4 << 20
        body = receive_all(sock).partition(b"\r\n\r\n")[2]
        assert body == piece * pieces + b"0\r\n\r\n"
        assert proxy.wait_records("stream_close")[0]["bytes"] == frame_size * pieces
        assert memory(proxy.process.pid, "VmHWM") - before < 24 << 20


def stands_still(value, turns=30):
    """Whether a value stays the same over some turns of 10 ms."""
    seen = value()
    for _ in range(turns):
        threading.Event().wait(0.01)
        if value() != seen:
            return False
    return True
