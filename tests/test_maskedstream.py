"""A masking listener: what its clients get, what it refuses, and what the records say of it."""

from __future__ import annotations

import base64
import json
import os
import random
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from program import run_program
from scripted import (
    CONTAINER_ID,
    LOGS_HEAD,
    ScriptedEngine,
    chunk,
    json_answer,
    logs_answer,
    stdcopy_frame,
)

from _dockeraudit.answerplaces import BuildPlaces, DataPlaces, JsonPlaces
from _dockeraudit.answertext import ANSWER, BuildText, DataText, JsonText
from _dockeraudit.http1 import CloseReader
from _dockeraudit.maskedstream import ANSWER_MOST, MaskAsked, MaskedStream, NoRecords
from _dockeraudit.masking import Mask
from _dockeraudit.places import Places, PlainSpans, WirePlaces
from _dockeraudit.records import Fingerprinter
from _dockeraudit.scanner import Scanner
from _dockeraudit.streams import RawDecoder
from conftest import DEADLINE, ProxyProcess, splits, wait_for
from patterns import RULES

SECRET = "Zq7x" + "W9mK4pLr2Vt8"  # made here, so that no file holds a password
STARS = b"*" * len(SECRET)
LINE = f"password={SECRET} done\n".encode()
MASKED = LINE.replace(SECRET.encode(), STARS)
OWN = "zebra-fox" + "-91-river"
RAW_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)


@pytest.fixture
def engine(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


def connect(proxy: ProxyProcess, request: bytes) -> socket.socket:
    """A connection on which a request has been sent."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(proxy.socket)
    sock.sendall(request)
    return sock


def read_all(sock: socket.socket) -> bytes:
    """What comes until the end of the connection."""
    blocks = []
    with sock:
        while block := sock.recv(65536):
            blocks.append(block)
    return b"".join(blocks)


def read_to(sock: socket.socket, end: bytes) -> bytes:
    """What comes, until this has come."""
    data = b""
    while end not in data:
        block = sock.recv(65536)
        assert block, data
        data += block
    return data


def get(target: str, method: str = "GET", more: str = "Connection: close\r\n") -> bytes:
    """A request."""
    return f"{method} {target} HTTP/1.1\r\nHost: docker\r\n{more}\r\n".encode()


def ask(proxy: ProxyProcess, request: bytes) -> tuple[bytes, bytes]:
    """The answer's head and body."""
    head, _, body = read_all(connect(proxy, request)).partition(b"\r\n\r\n")
    return head, body


LOGS = get("/v1.44/containers/web/logs?stdout=1")


def test_a_log_is_masked_and_nothing_else_of_it_changes(engine: Any, start_proxy: Any) -> None:
    frames = [stdcopy_frame(1, LINE), stdcopy_frame(2, b"plain\n"), stdcopy_frame(1, b"rest")]
    engine.routes["/containers/web/logs"] = logs_answer(*frames)
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    body = ask(proxy, LOGS)[1]
    masked = [stdcopy_frame(1, MASKED), *frames[1:]]
    assert body == b"".join(map(chunk, masked)) + b"0\r\n\r\n"
    record = proxy.wait_records("finding", 1)[0]
    assert (record["masked"], record.get("passed")) == (True, None)
    assert proxy.wait_records("stream_open", 1)[0]["mask"] == "HIGH"
    closed = proxy.wait_records("stream_close", 1)[0]
    assert (closed["framing"], closed["frames"], closed["lines"]) == ("multiplexed", 3, 3)
    assert closed["bytes"] == sum(map(len, frames))
    assert proxy.wait_records("start")[0]["mask"] == {f"unix://{proxy.socket}": "HIGH"}


def test_a_listener_beside_it_shows_everything(engine: Any, folder: Any, start_proxy: Any) -> None:
    engine.routes["/containers/web/logs"] = logs_answer(stdcopy_frame(1, LINE))
    config, readers = folder / "config.ini", folder / "proxy.sock"
    config.write_text(
        f"[dockeraudit]\nmask = high\n[listener readers]\nlisten = unix://{readers}\n"
        f"[listener trusted]\nlisten = unix://{folder}/trusted.sock\nmask = off\n"
    )
    proxy = start_proxy(engine.path, "--config", str(config))
    assert SECRET.encode() not in ask(proxy, LOGS)[1]
    proxy.socket = f"{folder}/trusted.sock"
    assert SECRET.encode() in ask(proxy, LOGS)[1]
    assert proxy.wait_records("start")[0]["mask"] == {"readers": "HIGH"}


def gradually(head: bytes, *parts: bytes) -> tuple[Callable[..., None], Callable[[], None]]:
    """An answer whose parts are sent one at a time, and the function that sends the next."""
    turns = [threading.Event() for _ in parts]
    done = iter(turns)

    def answer(sock: socket.socket, request: bytes) -> None:
        sock.sendall(head)
        for turn, part in zip(turns, parts):
            assert turn.wait(DEADLINE)
            sock.sendall(part)
        sock.close()

    return answer, lambda: next(done).set()


def test_an_unfinished_line_arrives_without_its_end(engine: Any, start_proxy: Any) -> None:
    parts = [chunk(stdcopy_frame(1, part)) for part in (b"name> ", b"someone", b"\n")]
    answer, send_next = gradually(LOGS_HEAD, *parts, b"0\r\n\r\n")
    engine.routes["/containers/web/logs"] = answer
    proxy = start_proxy(engine.path, "--mask", "LOW")
    with connect(proxy, LOGS) as sock:
        for part in parts:
            send_next()
            read_to(sock, part[12:-2])
        send_next()


def test_what_passed_of_a_secret_before_it_was_one_is_said(engine: Any, start_proxy: Any) -> None:
    token = "gh" + "p_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    parts = [stdcopy_frame(1, part.encode()) for part in (token[:10], token[10:] + "\n")]
    answer, send_next = gradually(LOGS_HEAD, *map(chunk, parts), b"0\r\n\r\n")
    engine.routes["/containers/web/logs"] = answer
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    with connect(proxy, LOGS) as sock:
        send_next()
        read_to(sock, token[:10].encode())
        send_next()
        assert b"*" * (len(token) - 10) + b"\n" in read_to(sock, b"*\n")
        send_next()
    record = proxy.wait_records("finding", 1)[0]
    assert (record["masked"], record["passed"]) == (True, 10)


def test_an_attached_terminal_is_masked_once_the_engine_says_that_it_is_one(
    engine: Any, start_proxy: Any
) -> None:
    asked = threading.Event()
    inspect = {"Id": CONTAINER_ID, "Name": "/web", "Config": {"Tty": True}}

    def answer_late(sock: socket.socket, head: bytes) -> None:
        assert asked.wait(DEADLINE)
        json_answer(inspect)(sock, head)

    engine.routes["/containers/web/json"] = answer_late
    answer, send_next = gradually(UPGRADED, LINE, b"$ ")
    engine.routes["/containers/web/attach"] = answer
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    upgrade = get(
        "/containers/web/attach?stream=1", "POST", "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    )
    with connect(proxy, upgrade) as sock:
        read_to(sock, b"\r\n\r\n")
        send_next()
        assert not select.select([sock], [], [], 0.1)[0]  # nothing leaves before the engine's word
        asked.set()
        assert read_to(sock, b"\n") == MASKED
        send_next()
        assert read_to(sock, b"$ ") == b"$ "


def test_without_the_engines_word_both_readings_are_masked(engine: Any, start_proxy: Any) -> None:
    engine.routes["/containers/web/json"] = json_answer({"message": "no"}, b"500 Error")
    frames = stdcopy_frame(1, LINE) + stdcopy_frame(2, b"x\n")
    engine.routes["/containers/web/logs"] = lambda sock, head: (
        sock.sendall(RAW_HEAD + frames),
        sock.close(),
    )
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    assert ask(proxy, LOGS)[1] == stdcopy_frame(1, MASKED) + stdcopy_frame(2, b"x\n")
    assert proxy.wait_records("stream_close", 1)[0]["framing"] == "unknown"


def test_a_containers_own_secrets_are_masked(engine: Any, start_proxy: Any) -> None:
    config = {"Tty": False, "Env": [f"DB_PASSWORD={OWN}"]}
    engine.routes["/containers/web/json"] = json_answer(
        {"Id": CONTAINER_ID, "Name": "/web", "Config": config}
    )
    line = stdcopy_frame(1, f"cannot log in with {OWN}\n".encode())
    engine.routes["/containers/web/logs"] = logs_answer(line)
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    masked = line.replace(OWN.encode(), b"*" * len(OWN))
    assert ask(proxy, LOGS)[1] == chunk(masked) + b"0\r\n\r\n"
    assert proxy.wait_records("finding", 1)[0]["rule"] == "container-env"


def test_what_the_client_types_reaches_the_engine_unchanged(engine: Any, start_proxy: Any) -> None:
    received = []

    def echo(sock: socket.socket, head: bytes) -> None:
        sock.sendall(UPGRADED)
        received.append(sock.recv(65536))
        sock.sendall(received[-1])
        sock.close()

    inspect = {"ContainerID": CONTAINER_ID, "ProcessConfig": {"tty": True}}
    engine.routes["/exec/e1/json"] = json_answer(inspect)
    engine.routes["/exec/e1/start"] = echo
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    request = get("/exec/e1/start", "POST", "Connection: Upgrade\r\nUpgrade: tcp\r\n")
    with connect(proxy, request) as sock:
        read_to(sock, b"\r\n\r\n")
        sock.sendall(LINE)
        assert read_all(sock) == MASKED
    assert received == [LINE]
    found = proxy.wait_records("finding", 2)
    assert {record["stream_type"]: record.get("masked") for record in found} == {
        "stdin": None,
        "tty": True,
    }


@pytest.mark.parametrize(
    ("method", "target", "word"),
    [
        ("GET", "/containers/web/export", "export"),
        ("GET", "/containers/web/archive?path=/", "archive"),
        ("GET", "/images/web/get", "get"),
        ("GET", "/images/get?names=web", "get"),
        ("POST", "/session", "tunnel"),
        ("POST", "/grpc", "tunnel"),
    ],
)
def test_what_cannot_be_masked_is_refused_unless_it_is_let_pass(
    engine: Any, start_proxy: Any, method: str, target: str, word: str
) -> None:
    engine.routes[target.partition("?")[0]] = json_answer({})
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    head, body = ask(proxy, get(target, method))
    assert head.startswith(b"HTTP/1.1 403 ")
    assert f"--mask-pass {word} " in json.loads(body)["message"]
    assert proxy.wait_records("denied", 1)[0]["rule"] == "mask"
    proxy.stop()
    proxy = start_proxy(engine.path, "--mask", "HIGH", "--mask-pass", "export,archive,get,tunnel")
    assert ask(proxy, get(target, method))[0].startswith(b"HTTP/1.1 200 ")


def test_a_copy_into_a_container_is_let_pass(engine: Any, start_proxy: Any) -> None:
    engine.routes["/containers/web/archive"] = json_answer({})
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    for method in ("PUT", "HEAD"):
        request = get("/containers/web/archive?path=/", method)
        assert ask(proxy, request)[0].startswith(b"HTTP/1.1 200 ")


def test_learning_lets_nothing_pass_unmasked(engine: Any, start_proxy: Any) -> None:
    engine.routes["/containers/web/export"] = json_answer({})
    proxy = start_proxy(engine.path, "--mask", "HIGH", "--mode", "learn")
    assert ask(proxy, get("/containers/web/export"))[0].startswith(b"HTTP/1.1 403 ")


def test_http2_cannot_be_had_where_secrets_are_masked() -> None:
    run = run_program("--mask", "HIGH", "--http2", "relay")
    assert run.returncode == 78
    assert b"mask and http2 relay cannot be had together" in run.stderr


def test_a_reload_masks_requests_from_then_on(engine: Any, folder: Any, start_proxy: Any) -> None:
    engine.routes["/containers/web/logs"] = logs_answer(stdcopy_frame(1, LINE))
    config = folder / "config.ini"
    config.write_text("[dockeraudit]\n")
    proxy = start_proxy(engine.path, "--config", str(config))
    assert SECRET.encode() in ask(proxy, LOGS)[1]
    config.write_text("[dockeraudit]\nmask = HIGH\n")
    os.kill(proxy.process.pid, signal.SIGHUP)
    wait_for(lambda: SECRET.encode() not in ask(proxy, LOGS)[1], "the mask")


# =================================================================================================
# answers
# =================================================================================================


def placed_text(places: Places) -> dict[str, bytes]:
    """The texts that were placed."""
    return {name: b"".join(pieces.parts) for name, pieces in places.items() if pieces.parts}


ANSWERS = [
    (JsonPlaces, JsonText, b'{"a": "x\\u0026y\\"\\\\n \\n\\/", "b": "\\u00e9\\t"}'),
    (JsonPlaces, JsonText, b"no json \\ \\x \\u12"),
    (DataPlaces, DataText, b'[{"Spec": {"Data": "cGFzc3dvcmQ9YWJjZAo=", "Name": "a\\"b"}}]'),
    (DataPlaces, DataText, b'{"data":"bm90IGJhc2U2NCE","x":"\\u0041"}'),
    (
        BuildPlaces,
        BuildText,
        b'{"stream":"Step 1\\n"}\r\n{"stream":"pass"}\n'
        b'{"stream":"word=x\\n"}\n{"aux":{"ID":"x"}}\n',
    ),
]


@pytest.mark.parametrize(("reader", "decoder", "payload"), ANSWERS)
def test_answers_are_placed_as_they_are_read(reader: Any, decoder: Any, payload: bytes) -> None:
    expected: dict[str, bytes] = {}
    whole = decoder(ANSWER)
    for name, text in (*whole.feed(payload), *whole.end()):
        expected[name] = expected.get(name, b"") + text
    for blocks in splits(payload):
        texts: dict[str, bytes] = {}
        placer, base = reader(), 0
        for block in [*blocks, None]:
            places = Places()
            if block is None:
                placer.lapse(places)
            else:
                placer.place(block, [(0, len(block))], base, places)
                base += len(block)
            for name, text in placed_text(places).items():
                texts[name] = texts.get(name, b"") + text
        assert texts == expected


def answer_mask(reader: Any) -> Mask:
    """A mask of an answer."""
    wire = WirePlaces(PlainSpans(CloseReader()), "raw", reader=reader)
    return Mask(wire, Scanner(RULES), NoRecords(), "MEDIUM", 1.0, None, ANSWER_MOST, spared=b'"')


def mask_answer(reader: Any, blocks: list[bytes]) -> bytes:
    """An answer as a client gets it."""
    mask = answer_mask(reader)
    return b"".join([*(mask.feed(block, 0.0) for block in blocks if block), mask.end()])


def test_an_answer_stays_json_of_the_same_length_wherever_it_is_cut() -> None:
    value = {"Env": [f'DB_PASSWORD={SECRET}&"x\\', f"URL=http://u:{SECRET}@db/"], "N": [1, None]}
    payload = json.dumps(value).replace("&", "\\u0026").encode()
    whole = mask_answer(JsonPlaces(), [payload])
    assert len(whole) == len(payload)
    assert SECRET[:6] not in json.dumps(json.loads(whole))
    for blocks in splits(payload):
        assert mask_answer(JsonPlaces(), blocks) == whole


def test_a_configs_data_stays_base64_of_the_same_length() -> None:
    for size in range(3):
        text = b"x" * size + f"\npassword={SECRET}\nuser=me\n".encode()
        payload = json.dumps({"Spec": {"Data": base64.b64encode(text).decode()}}).encode()
        whole = mask_answer(DataPlaces(), [payload])
        data = base64.b64decode(json.loads(whole)["Spec"]["Data"])
        assert len(data) == len(text)
        assert SECRET.encode() not in data and b"*" * 14 in data and b"ser=me\n" in data
        for blocks in splits(payload):
            assert mask_answer(DataPlaces(), blocks) == whole


def test_a_secret_that_comes_in_two_objects_of_a_build_is_masked() -> None:
    lines = [f'{{"stream":"password={SECRET[:8]}"}}\r\n', f'{{"stream":"{SECRET[8:]}\\n"}}\r\n']
    masked = mask_answer(BuildPlaces(), [line.encode() for line in lines])
    assert (
        masked == "".join(lines).replace(SECRET[:8], "*" * 8).replace(SECRET[8:], "*" * 8).encode()
    )


def test_an_inspect_is_masked_chunked_or_not(engine: Any, start_proxy: Any) -> None:
    inspect = {"Id": CONTAINER_ID, "Name": "/web", "Config": {"Env": [f"DB_PASSWORD={SECRET}"]}}
    payload = json.dumps(inspect).encode()
    masked = payload.replace(SECRET.encode(), STARS)
    engine.routes["/containers/web/json"] = json_answer(inspect)
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    assert ask(proxy, get("/containers/web/json"))[1] == masked
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = b"".join(chunk(payload[at : at + 7]) for at in range(0, len(payload), 7))
    engine.routes["/containers/web/json"] = lambda sock, request: sock.sendall(
        head + chunked + b"0\r\n\r\n"
    )
    body = ask(proxy, get("/containers/web/json"))[1]
    assert body == (
        b"".join(chunk(masked[at : at + 7]) for at in range(0, len(masked), 7)) + b"0\r\n\r\n"
    )
    record = proxy.wait_records("finding", 1)[0]
    assert (record["endpoint"], record["masked"]) == ("inspect", True)


@pytest.mark.parametrize("own_secrets", ["on", "off"])
def test_a_secret_allowed_in_a_container_stays_in_answers_about_it(
    engine: Any, start_proxy: Any, folder: Path, own_secrets: str
) -> None:
    def inspect(name: str) -> tuple[str, bytes]:
        value = {"Id": CONTAINER_ID, "Name": f"/{name}", "Config": {"Env": [f"PASSWORD={SECRET}"]}}
        engine.routes[f"/containers/{name}/json"] = json_answer(value)
        return f"/containers/{name}/json", json.dumps(value).encode()

    (folder / "key").write_bytes(bytes(32))
    os.chmod(folder / "key", 0o600)
    fingerprint = Fingerprinter(bytes(32)).of(SECRET.encode())
    options = ("--mask", "HIGH", "--own-secrets", own_secrets, "--fingerprint-key")
    allowed = ("--allow-secret", f"web:{fingerprint}")
    proxy = start_proxy(engine.path, *options, str(folder / "key"), *allowed)
    target, payload = inspect("web")
    assert ask(proxy, get(target))[1] == payload
    target, payload = inspect("db")
    assert ask(proxy, get(target))[1] == payload.replace(SECRET.encode(), STARS)


def test_a_connection_is_kept_behind_a_masked_answer(engine: Any, start_proxy: Any) -> None:
    engine.routes["/containers/json"] = json_answer([{"Command": f"x password={SECRET}"}])
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    request = get("/containers/json", more="")
    with connect(proxy, request) as sock:
        first = read_to(sock, b"}]")
        sock.sendall(request)
        assert read_to(sock, b"}]") == first
        assert STARS in first


def test_an_answer_that_is_compressed_is_cut(engine: Any, start_proxy: Any) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    engine.routes["/containers/json"] = lambda sock, request: sock.sendall(head + b"abcd")
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    assert b"abcd" not in read_all(connect(proxy, get("/containers/json")))
    assert proxy.wait_records("scan_error", 1)[0]["error"] == "compressed"


def test_eight_streams_at_full_speed_are_masked(engine: Any, start_proxy: Any) -> None:
    rng = random.Random(1)
    lines = [LINE if rng.random() < 0.1 else b"an ordinary line of a log\n" for _ in range(20_000)]
    frames = [stdcopy_frame(1, line) for line in lines]
    engine.routes["/containers/web/logs"] = logs_answer(*frames)
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    bodies: list[bytes] = []
    readers = [
        threading.Thread(target=lambda: bodies.append(ask(proxy, LOGS)[1])) for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(DEADLINE)
    expected = b"".join(map(chunk, frames)).replace(SECRET.encode(), STARS) + b"0\r\n\r\n"
    assert bodies == [expected] * 8


# =================================================================================================
# failures
# =================================================================================================


class FailingScanner:
    """Raises where a text holds a word, with a secret in the exception."""

    rules = Scanner(RULES).rules

    def scan_lines(self, block: bytes) -> list[Any]:
        """No match, or a defect."""
        if b"defect" in block:
            raise RuntimeError(SECRET)
        return []

    def undecided(self, block: bytes) -> int:
        """All lines are decided."""
        return len(block)


class StreamNotes:
    """Takes what a masked stream reports."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def progress(self, nbytes: int, frames: int) -> None:
        """So much has flowed."""

    def error(self, text: str) -> None:
        """A scan raised."""
        self.said.append(text)

    def close(self, **fields: Any) -> None:
        """The stream has ended."""
        self.said.append(fields)


def test_a_mask_that_raises_lets_nothing_more_pass_and_says_its_kind_alone() -> None:
    notes, stopped = StreamNotes(), list[bool]()
    stream: Any = MaskedStream(
        WirePlaces(PlainSpans(CloseReader()), "raw"),
        FailingScanner(),  # type: ignore[arg-type]
        notes,  # type: ignore[arg-type]
        MaskAsked("HIGH", exempts=False, waits=False, typed=False),
        lambda: stopped.append(True),
    )
    passed = [
        stream.pass_on(block, stream.feed(block)[1])
        for block in (b"one\n", b"a defect\n", b"two\n")
    ]
    assert passed == [b"one\n", b"", b""]
    assert (stopped, stream.limit(), stream.end()) == ([True], None, b"")
    stream.close((None, RawDecoder("stdin")), "mask_failure")
    assert notes.said[0] == "RuntimeError"
    assert notes.said[1]["reason"] == "mask_failure"
    assert SECRET not in repr(notes.said)


def test_a_failure_cuts_the_clients_connection(engine: Any, start_proxy: Any) -> None:
    # a message that is encoded as only clients may do (RFC 6455 §5.1)
    encoded = b"\x82" + bytes([0x80 | len(LINE)]) + b"\0\0\0\0" + LINE
    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x\r\n\r\n"
    )
    engine.routes["/containers/web/attach/ws"] = lambda sock, request: sock.sendall(head + encoded)
    proxy = start_proxy(engine.path, "--mask", "HIGH")
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    request = get("/containers/web/attach/ws", more=upgrade + "Sec-WebSocket-Key: x\r\n")
    assert SECRET.encode() not in read_all(connect(proxy, request))
    assert proxy.wait_records("scan_error", 1)[0]["error"] == "ValueError"
    assert proxy.wait_records("stream_close", 1)[0]["reason"] == "mask_failure"
