"""The proxy under load: slow heads, idle streams, no free descriptors, clients that vanish.

Everything runs against a scripted engine on this machine, is bounded, and ends by itself. Times are
compared within a run. The long forms are marked `full`.
"""

from __future__ import annotations

import os
import random
import resource
import select
import selectors
import socket
import statistics
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from needs import skip_outside_ci
from scripted import LOGS_HEAD, chunk, stdcopy_frame
from wire import LAZY_WORKERS, RawEngine, Wire, read_all, read_until

from conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
LOGS = b"GET /containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n"
LINE = chunk(stdcopy_frame(1, b"one line\n"))


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough descriptors for both ends of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if wanted < 4096:
        skip_outside_ci(f"the limit of open files is {hard}; these tests need 4,096")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class CrowdEngine(RawEngine):
    """Serves all connections in one thread: answers pings, and holds logs until `end_streams`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.streams: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._ending = threading.Event()
        self._wake, self._waker = socket.socketpair()

    def __enter__(self) -> CrowdEngine:
        self._listener.bind(self.path)
        self._listener.listen(1024)
        for sock in (self._listener, self._wake):
            self._selector.register(sock, selectors.EVENT_READ)
        self._start(self._loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._waker.send(b"x")
        self._threads[0].join(20)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._waker.close()
        os.unlink(self.path)

    def end_streams(self) -> None:
        """Send every stream a last line and its end."""
        for sock in list(self.streams):
            sock.sendall(LINE + b"0\r\n\r\n")

    def _loop(self) -> None:
        while not self._ending.is_set():
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    sock, _ = self._listener.accept()
                    self._selector.register(sock, selectors.EVENT_READ)
                elif key.fileobj is not self._wake:
                    self._answer(key.fileobj)  # type: ignore[arg-type]

    def _answer(self, sock: socket.socket) -> None:
        try:
            head = sock.recv(65536)
        except OSError:
            head = b""
        if not head:
            self._selector.unregister(sock)
            self.streams.discard(sock)
            sock.close()
        elif b"/logs" in head:
            sock.sendall(LOGS_HEAD + LINE)
            self.streams.add(sock)
        else:
            sock.sendall(
                OK if b"_ping" in head else b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
            )


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A proxy that lets one client hold 1,024 connections."""
    monkeypatch.setattr("wire.RawEngine", CrowdEngine)
    with Wire("--max-connections", "2048") as wire:
        yield wire
        wire.settled()


def ping_times(wire: Wire, count: int) -> list[float]:
    """The seconds that each of some requests takes, on a connection of its own."""
    times = []
    for _ in range(count):
        begun = time.monotonic()
        assert wire.talk(PING, tcp=True).endswith(b"OK")
        times.append(time.monotonic() - begun)
    return times


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_of_a_core(pid: int, seconds: float) -> float:
    """The share of a core that an idle process takes."""
    begun, used = time.monotonic(), processor_seconds(pid)
    select.select([], [], [], seconds)
    return (processor_seconds(pid) - used) / (time.monotonic() - begun)


def test_a_thousand_slow_heads_delay_nobody_and_get_408_after_ten_seconds(
    wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = statistics.median(ping_times(wire, 20))
    begun = time.monotonic()
    slow = [wire.connect(tcp=True) for _ in range(1000)]
    for sock in slow:
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n")
    opened = time.monotonic()
    beside: list[float] = []
    while time.monotonic() - opened < 6:
        for sock in slow:
            sock.sendall(b"X: y\r\n")
        beside += ping_times(wire, 20)
    ended = []
    for sock in slow:
        data = read_all(sock)
        ended.append(time.monotonic())
        assert data.startswith(b"HTTP/1.1 408 ") and b'"message"' in data
        sock.close()
    first, last = ended[0] - begun, ended[-1] - opened
    assert 9.5 < first < 20 and last < 20
    assert statistics.median(beside) < max(0.1, 10 * alone)
    with capsys.disabled():
        print(
            f"\n1,000 slow heads: a request takes {1000 * alone:.1f} ms alone, "
            f"{1000 * statistics.median(beside):.1f} ms beside them (medians); "
            f"408 after {first:.1f} to {last:.1f} s"
        )


def test_1024_idle_streams_take_no_processor_time_and_the_next_client_gets_503(
    wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = [wire.connect() for _ in range(1024)]
    for sock in streams:
        sock.sendall(LOGS)
    for sock in streams:
        assert read_until(sock, b"one line\n\r\n").startswith(b"HTTP/1.1 200 OK")
    assert wire.talk(PING).startswith(b"HTTP/1.1 503 ")
    assert wire.talk(PING, tcp=True).endswith(b"OK")  # another client still has room
    crowd = [wire.connect() for _ in range(300)]
    for sock in crowd:
        sock.sendall(PING)
    assert wire.in_use()[0] < 1024 + wire.threads + LAZY_WORKERS + 10, "a refusal takes no thread"
    refusals = [read_all(sock) for sock in crowd]
    for sock in crowd:
        sock.close()
    assert sum(data.startswith(b"HTTP/1.1 503 ") for data in refusals) >= 1
    assert all(data[:13] in (b"", b"HTTP/1.1 503 ") for data in refusals)
    share = share_of_a_core(wire.proxy.process.pid, 2.0)
    wire.engine.end_streams()  # type: ignore[attr-defined]
    for sock in streams:
        assert read_all(sock).endswith(LINE + b"0\r\n\r\n")
        sock.close()
    wire.settled()
    assert wire.talk(PING).endswith(b"OK")
    assert share < 0.05
    opened = wire.proxy.wait_records("stream_close", 1024)
    assert len(opened) == 1024
    with capsys.disabled():
        print(f"\n1,024 idle streams: {100 * share:.1f} % of a core; the next client gets 503")


def test_without_free_descriptors_the_proxy_waits_idle_and_recovers_at_once(
    wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    pid = wire.proxy.process.pid
    before = len(wire.proxy.errors.read_text().splitlines())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
    crowd = [wire.connect(tcp=True) for _ in range(200)]
    wait_for(lambda: "cannot accept" in wire.proxy.errors.read_text(), "the line that says so")
    share = share_of_a_core(pid, 3.0)
    for sock in crowd[:100]:  # these got no answer yet, or are still in the backlog
        sock.sendall(PING)
    answers = [sock.recv(4096)[:13] for sock in crowd[:20]]
    for sock in crowd:
        sock.close()
    closed = time.monotonic()
    assert wire.talk(PING, tcp=True).endswith(b"OK")
    back = time.monotonic() - closed
    said = wire.proxy.errors.read_text().splitlines()[before:]
    assert all(answer in (b"HTTP/1.1 502 ", b"HTTP/1.1 200 ") for answer in answers), answers
    assert share < 0.05
    assert back < 1.0
    assert ["cannot accept" in line for line in said].count(True) == 1 and len(said) < 10, said
    with capsys.disabled():
        print(
            f"\nno descriptors left (limit 64): {100 * share:.1f} % of a core, one line, "
            f"back after {back:.2f} s: {said[0]}"
        )


def vanishing_engine(sock: socket.socket, data: bytes) -> None:
    """Holds logs open, echoes attaches, answers other requests."""
    while data:
        if b"/logs" in data:
            sock.sendall(LOGS_HEAD + LINE * 3)
            read_all(sock)
            return
        if b"/attach" in data:
            sock.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            while data:
                data = sock.recv(65536)
                sock.sendall(data)
            return
        if b"/build" in data:
            read_until(sock, b"0\r\n\r\n")
        sock.sendall(OK)
        data = read_until(sock, b"\r\n\r\n")


VISITS = [
    PING * 3,
    LOGS + PING,
    b"POST /containers/web/attach?stream=1 HTTP/1.1\r\nHost: d\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + b"typed " * 500,
    b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b"x" * 3000) * 3
    + b"0\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: d\r\nX: a\rb\r\n\r\n",
]


def vanish(wire: Wire, rng: random.Random) -> None:
    """Send part of a request, perhaps read a little, and leave by a close or a reset."""
    visit = rng.choice(VISITS)
    tcp = rng.random() < 0.5
    with wire.connect(tcp) as sock:
        try:
            sock.sendall(visit[: rng.randrange(len(visit) + 1)])
            if rng.random() < 0.3:
                sock.settimeout(0.002)
                sock.recv(rng.randrange(1, 200))
        except OSError:
            pass  # refused, or nothing to read yet
        if tcp and rng.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.full)])
def test_clients_that_vanish_at_a_random_byte_leave_nothing_behind(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Wire() as wire:
        wire.engine.serve = vanishing_engine
        rng = random.Random(count)
        for _ in range(count // 4):  # memory of threads and caches grows once
            vanish(wire, rng)
        wire.settled()
        before = wire.resident()
        for _ in range(count - count // 4):
            vanish(wire, rng)
        wire.settled()
        grown = wire.resident() - before
        threads, descriptors = wire.in_use()
        assert wire.talk(PING).endswith(b"OK")
        assert grown < 8 << 20
        with capsys.disabled():
            print(
                f"\n{count} vanished clients: threads {wire.threads} → {threads}, "
                f"descriptors {wire.descriptors} → {descriptors}, "
                f"memory +{grown / (1 << 20):.1f} MiB"
            )


@pytest.mark.parametrize("size", [64 << 20, pytest.param(1 << 30, marks=pytest.mark.full)])
def test_a_slow_reader_on_tcp_slows_the_engine_and_takes_no_memory(size: int) -> None:
    block, sent = LINE * 2000, [0]
    count = size // len(block)

    def serve(sock: socket.socket, data: bytes) -> None:
        sock.sendall(LOGS_HEAD)
        for number in range(count):
            sock.sendall(block)
            sent[0] = number + 1
        sock.sendall(b"0\r\n\r\n")

    with Wire() as wire:
        wire.engine.serve = serve
        with wire.connect(tcp=True) as sock:
            sock.sendall(LOGS)
            read_until(sock, b"\r\n\r\n")
            before = wire.resident()
            peak = total = 0
            for _ in range(20):  # read a part, then pause
                total += drop(sock, size // 100)
                select.select([], [], [], 0.02)
                peak = max(peak, wire.resident())
            assert sent[0] * len(block) < total + (16 << 20)
            while True:
                data = sock.recv(1 << 20)
                if not data:
                    break
            peak = max(peak, wire.resident())
        assert sent[0] == count and peak - before < 48 << 20


def drop(sock: socket.socket, size: int) -> int:
    """Read and drop so many bytes."""
    left = size
    while left:
        block = sock.recv(min(left, 1 << 20))
        assert block, f"the stream ended {left} bytes early"
        left -= len(block)
    return size
