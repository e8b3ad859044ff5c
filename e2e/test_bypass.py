"""No spelling passes the audit: every stream that a real engine serves is seen.

The engine is asked first. Each request then goes through the proxy: it is refused there, or the
engine answers it as it did directly. For each answer that carried a container's output there is a
stream with its finding.
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
    "stdout=1", "stdout=yes", "stdout=true&stdout=0", "stdout=0&stdout=1", "%73tdout=%31",
    "stdout=1&follow=yes", "stdout=T", "stdout=1&timestamps=1", "stdout=1&details=1",
    "stdout=1&timestamps=0&timestamps=1", "stdout=1&timestamps=1&timestamps=0",
    "stdout=1;timestamps=1", "stdout=1&timestamps=%zz", "&&stdout=1&&", "stdout=+1+", "stdout=1#x",
    "stdout=1&tail=1", "stdout=1&since=0&until=9999999999", "stdout=1&stdout=1&stdout=1",
    "STDOUT=1", "stdout=1?stdout=0", "stdout=1&timestamps", "x=/../&stdout=1",
    "stdout=1&t%69mestamps=yes", "stdout=1&x=\xe4\xff",
]  # fmt: skip
HEADS = [
    "HTTP/1.1\r\nHost: d\r\nConnection: close\r\n",
    "HTTP/1.0\r\n",
    "HTTP/1.1\nHost: d\nConnection: close\n",
    "HTTP/1.0\nX: y\n",
    "HTTP/1.1\r\nHost: d\r\nConnection: close, Upgrade\r\nUpgrade: tcp\r\n",
    "HTTP/1.1\r\nHost: d\r\nConnection: close\r\nUpgrade: tcp\r\n",
    "HTTP/1.1\r\nHost: d\r\nConnection: close\r\nUpgrade: h2c\r\n",
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
    target = f"{spell(rng, f'/containers/{name}/logs')}?{rng.choice(QUERIES)}"
    return f"GET {target} {rng.choice(HEADS)}\r\n".encode("latin-1")


def attach_request(rng: random.Random, targets: Targets) -> bytes:
    query = rng.choice(
        [
            "logs=1&stdout=1",
            "logs=yes&stdout=t",
            "stdout=1&logs=1&logs=0",
            "l%6fgs=1&stdout=1&stdin=0",
        ]
    )
    target = f"{spell(rng, f'/containers/{targets.living}/attach')}?{query}"
    head = f"POST {target} {rng.choice(HEADS)}Content-Length: 0\r\n\r\n"
    return head.encode("latin-1")


def websocket_request(rng: random.Random, targets: Targets) -> bytes:
    target = f"{spell(rng, f'/containers/{targets.living}/attach/ws')}?logs=1&stdout=1"
    fields = (
        "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://d\r\n"
    )
    return f"GET {target} HTTP/1.1\r\nHost: d\r\n{fields}\r\n".encode("latin-1")


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


def both_ways(
    real_engine: Any, proxy: Any, make: Callable[[], bytes], key: bytes
) -> tuple[Answer, Answer]:
    """A request's answers, direct and through the proxy, which refused it or gave the same."""
    for _attempt in range(3):  # a busy engine may fail to start an exec
        direct, request = ask(real_engine.socket, make()), make()
        through = ask(proxy.socket, request)
        if through.refused or same(direct, through, key):
            assert direct.ended and through.ended, request
            return direct, through
    pytest.fail(f"{request!r} is answered {direct} directly and {through} through the proxy")


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind, count, make", KINDS, ids=[kind for kind, _, _ in KINDS])
def test_every_stream_the_engine_serves_is_audited(
    real_engine: Any,
    targets: Targets,
    start_proxy: Any,
    kind: str,
    count: int,
    make: Callable[[random.Random, Targets], bytes],
    times: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy, key = start_proxy(real_engine.socket), KEY.encode()
    answers = [
        both_ways(
            real_engine,
            proxy,
            lambda seed=f"{kind}{number}": make(random.Random(seed), targets),
            key,
        )
        for number in range(count * times)
    ]
    refused = sum(through.refused for _, through in answers)
    served = sum(key in direct.body for direct, _ in answers)
    relayed = sum(key in through.body for _, through in answers)
    audited = wait_for(
        lambda: audited_streams(proxy, relayed),
        f"{relayed} audited streams of {kind}, now {audited_streams(proxy, 0)}",
    )
    assert relayed > len(answers) // 8 and audited == relayed
    with capsys.disabled():
        print(
            f"\nengine {real_engine.version}, spellings of {kind}: tried {len(answers)}, "
            f"refused {refused}, forwarded {len(answers) - refused}, "
            f"streams of the engine {served}, through us {relayed}, audited {audited}"
        )


def same(direct: Answer, through: Answer, key: bytes) -> bool:
    """Whether both clients got the same: the status, and a container's output or none.

    The engine upgrades for any protocol, also for h2c, which the proxy does not pass on.
    """
    statuses = (direct.status, through.status)
    alike = direct.status == through.status or statuses == (101, 200)
    return alike and (key in direct.body) == (key in through.body)


def audited_streams(proxy: Any, wanted: int) -> int:
    """How many streams have closed with a finding, once they are as many as wanted."""
    closed = {record["stream"] for record in proxy.records("stream_close")}
    found = {record["stream"] for record in proxy.records("finding")} & closed
    return len(found) if len(found) >= wanted else 0
