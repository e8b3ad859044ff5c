"""No audit bypass by spelling: what a real engine serves as a stream, however its target is written, the audit sees.

The engine is asked first. Each target then goes through the proxy: it is refused there, or the engine answers it as it did
directly; and for each answer that carried a container's output there is a stream with its finding.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from raw import Answer, api, ask

from conftest import wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

KEY = "AK" + "IA" + "HOSTILE4BYPASS0" + "A"
NAME = f"hostile-bypass-{os.getpid()}"
VERSIONS = [
    "",
    "/v1.24",
    "/v1.41",
    "/v01.41",
    "/v1.41.0",
    "/v1..41",
    "/v.1.41",
    "/v1.41.",
    "/v1%2e41",
    "/%76%31.41",
    "/V1.41",
    "/v1.99",
    "/v",
    "/v1.41/v1.41",
    "/libpod",
]
ABSOLUTE = [
    "",
    "http://any",
    "https://user:pw@any:1",
    "x:",
    "HTTP://[::1]:80",
    "unix://",
    "a+b-c.d:",
    "//any",
    "http:",
    "/http:",
    "1:",
    "http:///",
]
TRAILS = [
    "",
    "/",
    "%2F",
    "//",
    "/.",
    "/..",
    "%00",
    "%0a",
    ";x",
    "#x",
    "%23",
    "%3f",
    "%20",
    "?",
    "/../logs",
    "\\",
    "%5c",
]
QUERIES = [
    "stdout=1", "stdout=yes", "stdout=true&stdout=0", "stdout=0&stdout=1", "%73tdout=%31", "stdout=1&follow=yes", "stdout=T", "stdout=1&timestamps=1", "stdout=1&details=1",
    "stdout=1&timestamps=0&timestamps=1", "stdout=1&timestamps=1&timestamps=0", "stdout=1;timestamps=1", "stdout=1&timestamps=%zz", "&&stdout=1&&", "stdout=+1+", "stdout=1#x",
    "stdout=1&tail=1", "stdout=1&since=0&until=9999999999", "stdout=1&stdout=1&stdout=1", "STDOUT=1", "stdout=1?stdout=0", "stdout=1&timestamps", "x=/../&stdout=1", "stdout=1&t%69mestamps=yes",
]  # fmt: skip
HEADS = [
    "HTTP/1.1\r\nHost: d\r\nConnection: close\r\n",
    "HTTP/1.0\r\n",
    "HTTP/1.1\r\nHost: d\r\nConnection: close, Upgrade\r\nUpgrade: tcp\r\n",
]


def percent(rng: random.Random, path: str, share: float) -> str:
    """Some of a path's characters percent-encoded, slashes and dots too, in either case."""
    return "".join(
        f"%{ord(c):02{rng.choice('xX')}}" if c != "%" and rng.random() < share else c for c in path
    )


def spell(rng: random.Random, path: str) -> str:
    """One way to write a path, legal or not."""
    path = rng.choice(VERSIONS) + path if rng.random() < 0.5 else path
    trick = rng.randrange(12)
    if trick == 0:
        path = path.replace(
            "/", rng.choice(["//", "/./", "/x/../", "%2f", "/%2e/", "/%2F"]), rng.randrange(1, 5)
        )
    elif trick == 1:
        place = rng.randrange(len(path))
        path = path[:place] + path[place:].swapcase()
    elif trick == 2:
        path += rng.choice(TRAILS)
    elif trick == 3:
        place = rng.randrange(1, len(path))
        path = (
            path[:place]
            + rng.choice(
                [
                    "%",
                    "%2",
                    "%zz",
                    "%u002f",
                    "%252F",
                    "+",
                    "\x7f",
                    "\xe4",
                    "%e4",
                    "%c0%af",
                    "^",
                    '"',
                ]
            )
            + path[place:]
        )
    if rng.random() < 0.6:
        path = path[:1] + percent(rng, path[1:], rng.choice([0.05, 0.2, 1.0]))
    return rng.choice(ABSOLUTE) + path if rng.random() < 0.4 else path


class Targets:
    """A container that has said a secret, one that goes on, and fresh execs that will say it."""

    def __init__(self, engine: Any) -> None:
        self.socket = engine.socket
        self.made: list[str] = []

    def start(self) -> None:
        self.ended = self._container("ended", f"echo key {KEY}")
        self.living = self._container("living", f"echo key {KEY}; exec sleep 900")
        api(self.socket, "POST", f"/containers/{self.ended}/wait")

    def _container(self, name: str, script: str) -> str:
        config = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": "none"},
            "StopSignal": "SIGKILL",
        }
        made: str = api(self.socket, "POST", f"/containers/create?name={NAME}-{name}", config)["Id"]
        self.made.append(made)
        starts = (
            ask(self.socket, f"POST /containers/{made}/start HTTP/1.0\r\n\r\n".encode())
            for _ in range(5)
        )
        failures: list[Answer] = []  # a busy engine fails to start a container now and then
        assert any(answer.status == 204 or failures.append(answer) for answer in starts), failures
        return made

    def remove(self) -> None:
        for made in self.made:
            api(self.socket, "DELETE", f"/containers/{made}?force=1")

    def exec(self) -> str:
        config = {"Cmd": ["echo", "key", KEY], "AttachStdout": True}
        made: str = api(self.socket, "POST", f"/containers/{self.living}/exec", config)["Id"]
        return made


def logs_request(rng: random.Random, targets: Targets) -> bytes:
    name = rng.choice([targets.ended, targets.ended[:12], f"{NAME}-ended"])
    return f"GET {spell(rng, f'/containers/{name}/logs')}?{rng.choice(QUERIES)} {rng.choice(HEADS)}\r\n".encode(
        "latin-1"
    )


def attach_request(rng: random.Random, targets: Targets) -> bytes:
    query = rng.choice(
        [
            "logs=1&stdout=1",
            "logs=yes&stdout=t",
            "stdout=1&logs=1&logs=0",
            "l%6fgs=1&stdout=1&stdin=0",
        ]
    )
    return f"POST {spell(rng, f'/containers/{targets.living}/attach')}?{query} {rng.choice(HEADS)}Content-Length: 0\r\n\r\n".encode(
        "latin-1"
    )


def websocket_request(rng: random.Random, targets: Targets) -> bytes:
    fields = "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://d\r\n"
    return f"GET {spell(rng, f'/containers/{targets.living}/attach/ws')}?logs=1&stdout=1 HTTP/1.1\r\nHost: d\r\n{fields}\r\n".encode(
        "latin-1"
    )


def exec_request(rng: random.Random, targets: Targets) -> bytes:
    body = '{"Detach": false, "Tty": false}'
    head = (
        f"{rng.choice(HEADS)}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return f"POST {spell(rng, f'/exec/{targets.exec()}/start')} {head}{body}".encode("latin-1")


#: how many targets of which kind
KINDS: list[tuple[str, int, Callable[[random.Random, Targets], bytes]]] = [
    ("logs", 420, logs_request),
    ("attach", 60, attach_request),
    ("attach/ws", 30, websocket_request),
    ("exec", 40, exec_request),
]


@pytest.fixture
def targets(real_engine: Any) -> Iterator[Targets]:
    made = Targets(real_engine)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.full)])
def test_every_stream_the_engine_serves_is_audited(
    real_engine: Any,
    targets: Targets,
    start_proxy: Any,
    times: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy = start_proxy(real_engine.socket)
    key, lines, total = KEY.encode(), [], 0
    for kind, count, make in KINDS:
        tried = refused = served = relayed = 0
        before = {record["stream"] for record in proxy.records("stream_open")}
        for number in range(count * times):
            for _attempt in range(3):  # a busy engine may fail to start an exec
                direct = ask(real_engine.socket, make(random.Random(f"{kind}{number}"), targets))
                request = make(random.Random(f"{kind}{number}"), targets)
                through = ask(proxy.socket, request)
                relayed += key in through.body
                if through.refused or same(direct, through, key):
                    break
            else:
                pytest.fail(
                    f"{request!r} is answered {direct} directly and {through} through the proxy"
                )
            tried, refused, served = (
                tried + 1,
                refused + through.refused,
                served + (key in direct.body),
            )
            assert direct.ended and through.ended, request
        audited = wait_for(
            lambda: audited_streams(proxy, before, relayed),
            f"{relayed} audited streams of {kind}, now {audited_streams(proxy, before, 0)}",
        )
        assert relayed > count * times // 8 and audited == relayed
        lines.append(
            f"  {kind:10} tried {tried}, refused {refused}, forwarded {tried - refused}, served as a stream by the engine {served}, through us {relayed}, audited {audited}"
        )
        total += tried
    assert total >= 500
    with capsys.disabled():
        print(f"\nbypass by spelling, engine {real_engine.version}:", *lines, sep="\n")


def same(direct: Answer, through: Answer, key: bytes) -> bool:
    """Whether the proxy's client got what the engine's got: status, and a container's output or not."""
    return direct.status == through.status and (key in direct.body) == (key in through.body)


def audited_streams(proxy: Any, before: set[int], wanted: int) -> int:
    """How many streams since `before` have closed with a finding, once there are as many as wanted."""
    closed = {record["stream"] for record in proxy.records("stream_close")} - before
    found = {record["stream"] for record in proxy.records("finding")} & closed
    return len(found) if len(found) >= wanted else 0
