#!/usr/bin/env python3
"""What masking costs: `python3 bench/masking.py [--engine unix:///PATH] [--logs DIR]`.

Two proxies stand before one engine, equal but for `--mask LOW`. In a round each is measured once,
one after another. A figure is the median of three rounds, a ratio is of the masked proxy to the
audited one.

rate        8 logs of 100-byte lines at once, until all is read and scanned; with a secret in each
            1,000th line, and in every line
replayed    the first of these of a faster engine, one in C that replays a log
memory      of a stream: 100 followers of a silent container
echo        of a character that is typed into an exec with a TTY
line        the way of a whole line through `cat` in an exec, and back
clean       100 MB without a secret through an exec: every byte is compared
noise       what is masked at HIGH in real logs (--logs), where nothing is to be masked

No six bytes of a planted secret may reach the masked client, and no other byte may change:
otherwise it exits with status 1. It removes the containers that it made.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import io
import itertools
import json
import os
import random
import shutil
import signal
import socket
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from answers import Client
from peers import BenchError, Dockeraudit, DockerauditMasked
from run import Bench
from shapes import SHAPES, plain_line, text_lines

from _dockeraudit.http1 import ChunkedReader, CloseReader
from _dockeraudit.masking import Mask, masked_span
from _dockeraudit.places import PlainSpans, WirePlaces
from patterns import DEFAULT_SCANNER

ROUNDS = 3
STREAMS = 8
LINES = {"each100": 60_000, "secrets100": 15_000}  # of each log on the real engine
CYCLES = 4  # repetitions of a replayed log of 40,000 lines
FOLLOWERS = 100
KEYS = 300  # characters typed in a round; a terminal takes 4,095 without a newline
TYPED_LINES = 1000  # in a round
CLEAN = 100_000_000  # bytes
CLEAN_FILE = 10_000_000  # of which so many differ
SHORTEST = 6  # bytes of a secret that nobody may see
NAME = f"masked-bench-{os.getpid()}"
BLOCK = 1 << 20
RETRIES = 100


class Plain(Dockeraudit):
    """Audits alone."""

    name = "audited"


class Masked(DockerauditMasked):
    """Audits and masks."""

    name = "masked"


Ways = dict[str, Dockeraudit]


def main() -> int:
    """Measure, and print; 1 if the mask showed or changed what it must not."""
    options = read_options()
    wanted = options.only.split(",") if options.only else [*FIGURES, "noise"]
    if "noise" in wanted and options.logs:
        noise(options.logs)
    figures = [name for name in FIGURES if name in wanted]
    if not figures:
        return 0
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(1))  # ends what was started
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm"))
    settings = argparse.Namespace(peers="", smoke=False, program=None, more=0)
    try:
        with Bench(folder, settings) as bench, containers(options.engine) as place:
            for name in figures:
                FIGURES[name](bench, place)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    parser.add_argument("--engine", default=engine, help="a real engine's Unix socket")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="a folder with real *.log files")
    parser.add_argument("--only", default="", help="names of figures, comma-separated")
    return parser.parse_args()


# -- the engine and the proxies


class Place:
    """The real engine, and what was made on it."""

    def __init__(self, engine: str) -> None:
        if not engine.startswith("unix://"):
            raise BenchError(f"{engine} is no Unix socket (--engine unix:///PATH)")
        self.socket = engine[len("unix://") :]
        self.made: list[str] = []
        self.ask("GET", "/_ping")

    def ask(self, method: str, target: str, body: object = None) -> bytes:
        """The body of an answer."""
        client = Client(self.socket)
        try:
            return client.ask(method, target, body)
        finally:
            client.close()

    def container(self, name: str, *command: str, file: bytes = b"") -> str:
        """A started container's name; `file` is its /text."""
        name = f"{NAME}-{name}"
        body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none"}}
        answer = self.ask("POST", f"/containers/create?name={name}", body)
        if b'"Id"' not in answer:
            raise BenchError(f"the engine makes no container: {answer.decode()}")
        self.made.append(name)
        if file:
            self._put(name, file)
        self.ask("POST", f"/containers/{name}/start")
        return name

    def _put(self, name: str, data: bytes) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo("text")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket)
        kind = {"Content-Type": "application/x-tar"}
        connection.request("PUT", f"/containers/{name}/archive?path=/", packed.getvalue(), kind)
        answer = connection.getresponse()
        if answer.status != 200:
            raise BenchError(f"the engine takes no file: {answer.read().decode()}")
        connection.close()


@contextlib.contextmanager
def containers(engine: str) -> Iterator[Place]:
    """The engine; what is made on it is removed at the end."""
    place = Place(engine)
    try:
        yield place
    finally:
        for name in place.made:
            place.ask("DELETE", f"/containers/{name}?force=1&v=1")


@contextlib.contextmanager
def proxies(bench: Bench, engine: str) -> Iterator[Ways]:
    """Both proxies in front of an engine."""
    ways = {kind.name: kind(bench.folder / "peers", engine) for kind in (Plain, Masked)}
    try:
        for way in ways.values():
            way.start()
        yield ways
    finally:
        for way in ways.values():
            way.stop()


def read_all(path: str, request: bytes) -> bytes:
    """All that answers a request."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(request)
        blocks = []
        while block := sock.recv(BLOCK):
            blocks.append(block)
    return b"".join(blocks)


# -- rate


KINDS = {"each100": "1 in 1,000", "secrets100": "in every line"}


def rate(bench: Bench, place: Place) -> None:
    """8 streams of the real engine."""
    for name, secrets in KINDS.items():
        shape = next(shape for shape in SHAPES if shape.name == name)
        text = b"".join(text_lines(shape._replace(frames=LINES[name]), random_of(name))[0])
        container = place.container(name, "cat", "/text", file=text)
        await_log(place, container, text)
        target = f"/containers/{container}/logs?stdout=1"
        rate_of(f"rate    secrets {secrets}", bench, place.socket, target)


def replayed(bench: Bench, place: Place) -> None:
    """8 streams of the replaying engine."""
    bench.shape("each100")
    target = f"/v1.43/containers/each100.{CYCLES}/logs?stdout=1"
    rate_of("replayed secrets 1 in 1,000", bench, bench.engine, target)


def random_of(name: str) -> random.Random:
    """Chance that is the same in each run."""
    return random.Random(name)


def await_log(place: Place, container: str, text: bytes) -> None:
    """Wait until a container's log is whole."""
    last = text.splitlines(keepends=True)[-1]
    for _ in range(RETRIES):
        if place.ask("GET", f"/containers/{container}/logs?stdout=1&tail=1").endswith(last):
            return
        time.sleep(0.1)
    raise BenchError(f"{container} does not write its text")


def rate_of(name: str, bench: Bench, engine: str, target: str) -> None:
    """The rate of streams through both proxies, and what of them is shown."""
    rates, work = [], []
    with proxies(bench, engine) as ways:
        paths = {"audited": engine, "masked": ways["masked"].address}
        expected = {way: payload_of(read_all(path, get(target))) for way, path in paths.items()}
        check(expected["audited"], expected["masked"])
        await_closed(ways["masked"], 1)
        for _ in range(ROUNDS):
            both = {way: read_at_once(peer, target, expected[way]) for way, peer in ways.items()}
            rates.append(both["audited"][0] / both["masked"][0])
            work.append(both["masked"][1] / both["audited"][1])
            last = both
    lines = text_of(expected["audited"]).count(b"\n") * STREAMS
    print(
        f"{name}: {statistics.median(rates):.2f} of the audited rate"
        f" ({lines / last['masked'][0] / 1e3:.0f} against {lines / last['audited'][0] / 1e3:.0f}"
        f" thousand lines a second), {statistics.median(work):.2f} times the processor time"
    )


def get(target: str) -> bytes:
    """A request."""
    return f"GET {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()


def payload_of(answer: bytes) -> bytes:
    """The frames of a chunked answer."""
    reader = ChunkedReader()
    payload = reader.feed(answer.partition(b"\r\n\r\n")[2])[1]
    if not reader.done:
        raise BenchError("a stream ended before its end")
    return payload


def check(payload: bytes, masked: bytes) -> None:
    """The same frames, in which asterisks stand where a scan of the whole text finds secrets."""
    text = bytearray(text_of(payload))
    before = bytes(text)
    for match in DEFAULT_SCANNER.scan_lines(before):
        if not (match.placeholder or match.rule.multiline):
            start, end = masked_span(before, match)
            text[start:end] = b"*" * (end - start)
    if len(masked) != len(payload) or text_of(masked) != bytes(text):
        raise BenchError("the mask shows a secret, or changes what is none")


def text_of(payload: bytes) -> bytes:
    """The text of frames."""
    parts, at = [], 0
    while at < len(payload):
        end = at + 8 + int.from_bytes(payload[at + 4 : at + 8], "big")
        parts.append(payload[at + 8 : end])
        at = end
    return b"".join(parts)


def read_at_once(peer: Dockeraudit, target: str, expected: bytes) -> tuple[float, float]:
    """Seconds and processor time until all clients have everything, and all is scanned."""
    answers: list[bytes] = []
    read = functools.partial(read_all, peer.address, get(target))
    readers = [threading.Thread(target=lambda: answers.append(read())) for _ in range(STREAMS)]
    before, begun = peer.seconds(), time.monotonic()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    await_closed(peer, STREAMS)
    seconds = time.monotonic() - begun
    work = peer.seconds() - before
    if any(payload_of(answer) != expected for answer in answers):
        raise BenchError(f"a client of {peer.name} gets other bytes")
    return seconds, work


def await_closed(peer: Dockeraudit, streams: int) -> None:
    """Wait until so many streams are scanned, and closed in the log."""
    closed = 0
    for _ in range(100 * RETRIES):
        for record in peer.records():
            if record["event"] == "stream_close" and record["bytes"]:
                closed += 1
                if record["unscanned"]:
                    raise BenchError(f"{peer.name} left {record['unscanned']} bytes unscanned")
        if closed == streams:
            return
        time.sleep(0.005)
    raise BenchError(f"{peer.name} does not close its streams")


# -- memory


def memory(bench: Bench, place: Place) -> None:
    """What a stream takes."""
    target = f"/containers/{place.container('silent', 'sleep', '900')}/logs?stdout=1&follow=1"
    taken: dict[str, list[float]] = {"audited": [], "masked": []}
    for _ in range(ROUNDS):
        with proxies(bench, place.socket) as ways:
            for name, peer in ways.items():
                taken[name].append(followed(peer, target))
    audited, masked = (statistics.median(figures) for figures in taken.values())
    print(f"memory  of a stream: {masked:.0f} KiB against {audited:.0f} KiB")


def followed(peer: Dockeraudit, target: str) -> float:
    """KiB that each of many followers takes."""
    before, socks = peer.resident(), []
    try:
        for _ in range(FOLLOWERS):
            sock = socket.socket(socket.AF_UNIX)
            socks.append(sock)
            sock.connect(peer.address)
            sock.sendall(get(target))
        for sock in socks:
            if b" 200 " not in sock.recv(BLOCK)[:20]:
                raise BenchError(f"{peer.name} does not follow")
        return (peer.resident() - before) / FOLLOWERS / 1024
    finally:
        for sock in socks:
            sock.close()


# -- delays


class Session:
    """An exec of `cat`, whose client gets back what it sends."""

    def __init__(self, path: str, container: str, tty: bool) -> None:
        asked = {f"Attach{name}": True for name in ("Stdin", "Stdout", "Stderr")}
        client = Client(path)
        made = client.ask(
            "POST", f"/containers/{container}/exec", {**asked, "Tty": tty, "Cmd": ["cat"]}
        )
        client.close()
        body = json.dumps({"Detach": False, "Tty": tty})
        head = f"POST /exec/{json.loads(made)['Id']}/start HTTP/1.1\r\nHost: d\r\n"
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.sock.recv(1)

    def delay(self, data: bytes, answer: bytes) -> float:
        """Milliseconds until the answer has come back."""
        begun = time.perf_counter()
        self.sock.sendall(data)
        got = b""
        while len(got) < len(answer):
            block = self.sock.recv(BLOCK)
            if not block:
                break
            got += block
        taken = time.perf_counter() - begun
        if got != answer:
            raise BenchError("an exec does not give back what was typed")
        return taken * 1e3


def echo(bench: Bench, place: Place) -> None:
    """A typed character's way to the terminal and back."""
    letters = b"the quick brown fox jumps over the lazy dog "
    typed = [bytes([byte]) for byte in itertools.islice(itertools.cycle(letters), KEYS)]
    delays = delays_of(bench, place, True, [(key, key) for key in typed])
    say_delays("echo    of a typed character", delays)


def line(bench: Bench, place: Place) -> None:
    """A whole line's way through `cat` and back."""
    dice = random_of("line")
    lines = [plain_line(100, dice) for _ in range(TYPED_LINES)]
    frames = [b"\1\0\0\0" + len(text).to_bytes(4, "big") + text for text in lines]
    say_delays("line    of 100 bytes", delays_of(bench, place, False, list(zip(lines, frames))))


def delays_of(
    bench: Bench, place: Place, tty: bool, dialogue: list[tuple[bytes, bytes]]
) -> dict[str, list[list[float]]]:
    """Milliseconds until each answer has come, a list for each round, one way after another."""
    container = place.container(f"delay-{int(tty)}", "sleep", "900")
    with proxies(bench, place.socket) as ways:
        paths = {"direct": place.socket, **{name: peer.address for name, peer in ways.items()}}
        delays: dict[str, list[list[float]]] = {name: [] for name in paths}
        for _ in range(ROUNDS):
            sessions = {name: Session(path, container, tty) for name, path in paths.items()}
            for name in paths:
                delays[name].append([])
            for sent, answer in dialogue:
                for name, session in sessions.items():
                    delays[name][-1].append(session.delay(sent, answer))
            for session in sessions.values():
                session.sock.close()
    return delays


def say_delays(name: str, delays: dict[str, list[list[float]]]) -> None:
    """The 50th and the 99th hundredth of each way, the medians of the rounds."""
    for share in (50, 99):
        found = {
            way: statistics.median(
                statistics.quantiles(taken, n=100)[share - 1] for taken in rounds
            )
            for way, rounds in delays.items()
        }
        print(
            f"{name}, p{share}: direct {found['direct']:.2f} ms, audited {found['audited']:.2f} ms,"
            f" masked {found['masked']:.2f} ms"
            f" ({found['masked'] - found['audited']:+.2f} ms,"
            f" {found['masked'] / found['audited']:.2f} times)"
        )


# -- what must not change


def clean(bench: Bench, place: Place) -> None:
    """100 MB without a secret, as frames and with a TTY."""
    dice = random_of("clean")
    text = b"".join(plain_line(100, dice) for _ in range(CLEAN_FILE // 100))
    container = place.container("clean", "sleep", "900", file=text)
    times = CLEAN // len(text)
    with proxies(bench, place.socket) as ways:
        for tty in (False, True):
            for _ in range(times):
                shown = exec_output(ways["masked"].address, container, tty)
                shown = shown.replace(b"\r\n", b"\n") if tty else text_of(shown)
                if shown != text:
                    raise BenchError("the mask changes what is no secret")
            print(f"clean   {times * len(text) / 1e6:.0f} MB equal, {'with' if tty else 'no'} TTY")


def exec_output(path: str, container: str, tty: bool) -> bytes:
    """What `cat /text` prints in an exec."""
    client = Client(path)
    asked = {"AttachStdout": True, "Tty": tty, "Cmd": ["cat", "/text"]}
    made = json.loads(client.ask("POST", f"/containers/{container}/exec", asked))
    client.close()
    body = json.dumps({"Detach": False, "Tty": tty})
    head = f"POST /exec/{made['Id']}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n"
    head += f"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return read_all(path, f"{head}\r\n{body}".encode()).partition(b"\r\n\r\n")[2]


class Counted:
    """Counts what is masked, by rule."""

    def __init__(self) -> None:
        self.rules: Counter[str] = Counter()

    def finding(self, stream: str, rule: Any, *rest: Any, **more: Any) -> None:
        """A finding; `cover` says whether it is masked."""
        if more["cover"] and more["cover"][0]:
            self.rules[rule.id] += 1

    def update(self, *rest: Any, **more: Any) -> None:
        """A finding that was counted."""


def noise(logs: Path) -> None:
    """What is masked at HIGH in real logs."""
    records, lines, changed = Counted(), 0, 0
    for path in sorted(logs.glob("*.log")):
        data, shown = path.read_bytes(), b""
        wire = WirePlaces(PlainSpans(CloseReader()), "raw", name="file")
        mask = Mask(wire, DEFAULT_SCANNER, records, "HIGH")
        for at in range(0, len(data), 64 << 10):
            shown += mask.feed(data[at : at + (64 << 10)], 0.0)
        shown += mask.end()
        before, after = data.split(b"\n"), shown.split(b"\n")
        lines += len(before)
        changed += sum(one != other for one, other in zip(before, after))
    rules = ", ".join(f"{rule} {count}" for rule, count in sorted(records.rules.items()))
    print(
        f"noise   at HIGH {changed} of {lines} lines of real logs are masked,"
        f" {changed / lines * 1e4:.2f} in 10,000 ({rules or 'none'})"
    )


FIGURES: dict[str, Any] = {
    "rate": rate,
    "replayed": replayed,
    "memory": memory,
    "echo": echo,
    "line": line,
    "clean": clean,
}


if __name__ == "__main__":
    sys.exit(main())
