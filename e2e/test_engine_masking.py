"""A masking listener on real engines: each form of a stream, against what the engine sends itself.

Nothing but the secrets' bytes differs: lengths, frame headers, chunk sizes, stamps, line ends. The
secrets stand in lines, in private keys, and where the engine cuts a line at 16 KiB.
"""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from clients import PREFIX
from planted import same_but_for_asterisks, shown_windows, text_of, word
from raw import ask

from conftest import ProxyProcess, RealEngine

pytestmark = pytest.mark.engine
LINES = 300
CUT = 16 << 10  # bytes after which an engine's log cuts a line
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
SOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Origin: http://d\r\nSec-WebSocket-Key: {}\r\n"
)
OWN = "winter-otter" + "-57-lantern"


class Written(NamedTuple):
    """An engine, a container for either kind of output, and the secrets in what they wrote.

    `cut`: the secrets that the engine's log may cut in two.
    """

    engine: RealEngine
    names: dict[bool, str]
    secrets: list[bytes]
    cut: list[bytes]


def long_lines(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Lines with a secret at each place around the engine's cut."""
    for shift in range(0, 40, 3):
        secret = word(rng, 20).encode()
        yield b"x " * ((CUT - shift) // 2 - 5) + b"password=" + secret + b" end\n", secret


@pytest.fixture(scope="module")
def written(real_engine: RealEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    """Containers that have written a text, with a TTY and without."""
    rng = random.Random(11)
    text, secrets = text_of(rng, LINES)
    cut = []
    for line, secret in long_lines(rng):
        text += line
        cut.append(secret)
    text += f"cannot log in as app with {OWN}\n".encode()
    secrets.append(OWN.encode())
    file = tmp_path_factory.mktemp("text") / "text"
    file.write_bytes(text)
    names = {}
    try:
        for tty in (False, True):
            name = names[tty] = f"{PREFIX}-mask-{os.getpid()}-{int(tty)}"
            real_engine.docker(
                "create", "--network", "none", "--name", name, "--label", "team=a b",
                "--log-opt", "labels=team", "-e", f"DB_PASSWORD={OWN}", *["-t"] * tty,
                "busybox", "sh", "-c", "cat /text; exec sleep 900",
            )  # fmt: skip
            real_engine.docker("cp", str(file), f"{name}:/text")
            real_engine.docker("start", name)
        yield Written(real_engine, names, secrets, cut)
    finally:
        for name in names.values():
            real_engine.docker("rm", "-f", name, check=False)


@pytest.fixture(scope="module")
def masked(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy that masks."""
    folder = Path(tmp_path_factory.mktemp("proxy"))
    proxy = ProxyProcess(folder, written.engine.socket, "--mask", "MEDIUM").ready()
    yield proxy
    assert proxy.stop() == 0
    assert not proxy.records("scan_error") and not proxy.records("scan_gap")


def compare(written: Written, direct: bytes, masked: bytes, joined: bool = True) -> None:
    """The same bytes but for the secrets, of which no six are left.

    `joined`: the two parts of a line that the engine's log has cut can be told from two lines.
    """
    assert same_but_for_asterisks(masked, direct)
    assert len(shown_windows(written.secrets, direct)) > 1000
    assert shown_windows(written.secrets + written.cut * joined, masked) == []


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    ("version", "query"),
    [
        ("/v1.24", ""),
        ("/v1.41", "&timestamps=1"),
        ("", ""),
        ("", "&timestamps=1"),
        ("", "&details=1"),
        ("", "&timestamps=1&details=1"),
    ],
)
def test_a_log(written: Written, masked: ProxyProcess, tty: bool, version: str, query: str) -> None:
    name = written.names[tty]
    wait_for_text(written, name)
    target = f"{version}/containers/{name}/logs?stdout=1&stderr=1{query}"
    request = f"GET {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode()
    direct, answer = ask(written.engine.socket, request), ask(masked.socket, request)
    assert direct.status == answer.status == 200
    # with a TTY and details alone, nothing marks the second part of a line
    compare(written, direct.body, answer.body, joined=not tty or query != "&details=1")


def wait_for_text(written: Written, name: str) -> None:
    """Wait until a container has written all."""
    for _ in range(200):
        if OWN.encode() in written.engine.docker("logs", "--tail", "1", name).stdout:
            return
    raise AssertionError(f"{name} has not written its text")


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("form", ["101", "200", "websocket"])
def test_an_attach_to_what_was_written(
    written: Written, masked: ProxyProcess, tty: bool, form: str
) -> None:
    name = written.names[tty]
    wait_for_text(written, name)
    query = "logs=1&stream=0&stdout=1&stderr=1"
    key = base64.b64encode(b"0123456789abcdef").decode()
    request = {
        "101": f"POST /containers/{name}/attach?{query} HTTP/1.1\r\nHost: d\r\n{UPGRADE}\r\n",
        "200": f"POST /containers/{name}/attach?{query} HTTP/1.1\r\nHost: d\r\n\r\n",
        "websocket": f"GET /containers/{name}/attach/ws?{query} HTTP/1.1\r\nHost: d\r\n"
        + SOCKET.format(key)
        + "\r\n",
    }[form].encode()
    direct, answer = ask(written.engine.socket, request), ask(masked.socket, request)
    assert direct.status == answer.status
    if form == "websocket":  # each connection may get the bytes in messages of other sizes
        assert shown_windows(written.secrets, answer.body) == []
        assert answer.body.count(b"*") > 1000
        return
    compare(written, direct.body, answer.body)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("upgrade", ["", UPGRADE])
def test_an_exec(written: Written, masked: ProxyProcess, tty: bool, upgrade: str) -> None:
    name = written.names[False]
    texts = []
    for socket in (written.engine.socket, masked.socket):
        create = {"Cmd": ["cat", "/text"], "AttachStdout": True, "AttachStderr": True, "Tty": tty}
        made = ask_json(socket, f"/containers/{name}/exec", create)
        body = json.dumps({"Detach": False, "Tty": tty}).encode()
        head = f"POST /exec/{made['Id']}/start HTTP/1.1\r\nHost: d\r\n{upgrade}"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        answer = ask(socket, head.encode() + body)
        assert answer.status in (101, 200)
        texts.append(answer.body if tty else frames_text(answer.body))
    compare(written, texts[0], texts[1])


def ask_json(socket: str, target: str, value: Any) -> Any:
    """The answer to a POST."""
    body = json.dumps(value).encode()
    head = f"POST {target} HTTP/1.0\r\nHost: d\r\nContent-Type: application/json\r\n"
    answer = ask(socket, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.status == 201, answer
    return json.loads(answer.body)


def frames_text(body: bytes) -> bytes:
    """The text of frames: an exec's output is cut into them as it comes."""
    text, at = b"", 0
    while at < len(body):
        size = int.from_bytes(body[at + 4 : at + 8], "big")
        text += body[at + 8 : at + 8 + size]
        at += 8 + size
    return text


def test_an_inspect_is_json_without_the_containers_secrets(
    written: Written, masked: ProxyProcess
) -> None:
    request = f"GET /containers/{written.names[False]}/json HTTP/1.1\r\nHost: d\r\n"
    request += "Connection: close\r\n\r\n"
    answers = [ask(socket, request.encode()) for socket in (written.engine.socket, masked.socket)]
    assert OWN.encode() in answers[0].body and OWN.encode() not in answers[1].body
    assert same_but_for_asterisks(answers[1].body, answers[0].body)
    compared = written.engine.docker(
        "inspect", written.names[False], host=f"unix://{masked.socket}"
    )
    assert json.loads(compared.stdout)[0]["Name"] == "/" + written.names[False]


def test_what_the_cli_prints_is_the_same_but_for_asterisks(
    written: Written, masked: ProxyProcess
) -> None:
    for tty, name in written.names.items():
        wait_for_text(written, name)
        direct = written.engine.docker("logs", name)
        shown = written.engine.docker("logs", name, host=f"unix://{masked.socket}")
        assert same_but_for_asterisks(shown.stdout, direct.stdout), tty
        assert shown_windows(written.secrets, shown.stdout) == []


def test_clean_output_is_equal(written: Written, masked: ProxyProcess, tmp_path: Path) -> None:
    line = b"2026-01-02 03:04:05 INFO request served from cache in 12 ms, queue drained\n"
    file = tmp_path / "clean"
    file.write_bytes(line * 300_000)
    name = written.names[False]
    written.engine.docker("cp", str(file), f"{name}:/clean")
    for flags in ([], ["-t"]):
        outputs = [
            written.engine.docker("exec", *flags, name, "cat", "/clean", host=host).stdout
            for host in (written.engine.host, f"unix://{masked.socket}")
        ]
        assert outputs[0] == outputs[1] and len(outputs[0]) > 20_000_000
