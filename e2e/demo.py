"""`make demo`: a client reads a container's log through the proxy, with the findings beside it.

A second reader reads it from a masking listener.

The container prints a few lines, some with made-up secrets. It runs on a real engine if DOCKER_HOST
(a Unix socket) or the default socket answers and has busybox or alpine. Otherwise a scripted engine
plays its part, so the demo needs no Docker.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from scripted import CONTAINER_ID, ScriptedEngine, json_answer, logs_answer, stdcopy_frame

PROGRAM = Path(__file__).resolve().parent.parent / "dockeraudit.py"
NAME = "dockeraudit-demo"
UNDER_THE_NAME: dict[str, Any] = {"subsequent_indent": " " * 7}  # behind the severity
PATIENCE = 8.0  # seconds to wait for what usually takes a fraction of one
#: put together at run time, so that nothing in this file looks like a secret
LINES = (
    "billing: starting, 4 workers",
    "aws_access_key_id=" + "AK" + "IA" + "Z7QXV3MD2LKPW5TR",
    "GET /invoices/1042 200 12ms",
    "database: postgres://billing:" + "kR8mQz2vTt" + "@db.internal:5432/billing",
    "github: authenticated with " + "gh" + "p_" + "Zk3Rw9TqLm5XvB2nHc7YpD4sJf8GaE1uQoW6",
    'config: {"smtp_password": "' + "vX9-tulip-Quay" + '"}',
    "invoice sent to ada.winter" + "@example.net",
    "-----BEGIN " + "EC PRIVATE KEY-----",
    "MHcCAQEEIB" + "q7Kz0dXw3Jm5nRt8yUe2vLp9sQaWc4fGh6Bk1xZo" + "oAoGCCqGSM49",
    "-----END " + "EC PRIVATE KEY-----",
    "billing: ready",
)


class UnixClient(http.client.HTTPConnection):
    """An HTTP client on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: Any = None) -> bytes:
        """One request's answer; raises OSError for a refusal."""
        text = None if body is None else json.dumps(body)
        self.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self.getresponse()
        data = answer.read()
        self.close()
        if answer.status >= 400:
            raise OSError(
                f"{method} {path}: {answer.status} {data.decode('utf-8', 'replace').strip()}"
            )
        return data


def real_engine() -> tuple[str, str] | None:
    """The socket of an engine that answers here, and an image to run; None if either is missing."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return None
    path = host[len("unix://") :]
    for image in ("busybox:latest", "alpine:latest", "alpine:3.10"):
        try:
            UnixClient(path).call("GET", f"/images/{image}/json")
            return path, image
        except (OSError, http.client.HTTPException):
            continue
    return None


@contextlib.contextmanager
def proxy(folder: str, upstream: str) -> Iterator[tuple[str, str, Path]]:
    """Run dockeraudit in front of the engine; yields its sockets, one that masks, and its log."""
    path, masked = os.path.join(folder, "docker.sock"), os.path.join(folder, "masked.sock")
    config, log = Path(folder, "config.ini"), Path(folder, "audit.log")
    config.write_text(
        f"[dockeraudit]\n[listener plain]\nlisten = unix://{path}\n"
        f"[listener masked]\nlisten = unix://{masked}\nmask = LOW\n"
    )
    command = [
        sys.executable,
        str(PROGRAM),
        "--config",
        str(config),
        "--upstream",
        upstream,
        "--audit-log",
        str(log),
    ]
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith("DOCKERAUDIT_")
    }
    process = subprocess.Popen([*command, "--log-level", "warning"], env=plain)
    try:
        both = lambda: answers(path) and answers(masked)
        wait_until(lambda: both() or process.poll() is not None)
        yield path, masked, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(path: str) -> bool:
    """Whether a connection to a socket is accepted; its path exists a moment before that."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def wait_until(condition: Any) -> None:
    """Wait until the condition holds, but at most PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


@contextlib.contextmanager
def container(client: UnixClient, image: str) -> Iterator[str]:
    """Start a container that prints the lines, through the proxy; remove it at the end."""
    script = "printf '%s\\n' " + " ".join("'" + line.replace("'", "'\\''") + "'" for line in LINES)
    settings = {"Image": image, "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none"}}
    name = f"{NAME}-{os.getpid()}"
    client.call("POST", f"/containers/create?name={urllib.parse.quote(name)}", settings)
    try:
        client.call("POST", f"/containers/{name}/start")
        yield name
    finally:
        client.call("DELETE", f"/containers/{name}?force=1")


def read_logs(client: UnixClient, name: str) -> list[str]:
    """The lines of the container's output, followed to its end, as a client sees them."""
    data = client.call("GET", f"/containers/{name}/logs?follow=1&stdout=1")
    text = b""
    while data:
        size = int.from_bytes(data[4:8], "big")
        text += data[8 : 8 + size]
        data = data[8 + size :]
    return text.decode().splitlines()


def script(engine: ScriptedEngine, name: str) -> None:
    """Give the scripted engine the answers for a container that prints the lines."""
    engine.routes["/containers/create"] = json_answer({"Id": CONTAINER_ID}, b"201 Created")
    engine.routes[f"/containers/{name}"] = engine.routes[f"/containers/{name}/start"] = json_answer(
        {}
    )
    engine.routes[f"/containers/{name}/json"] = json_answer(
        {"Id": CONTAINER_ID, "Name": f"/{name}"}
    )
    engine.routes[f"/containers/{name}/logs"] = logs_answer(
        *(stdcopy_frame(1, f"{line}\n".encode()) for line in LINES)
    )


def show(seen: list[str], masked: list[str], log: Path) -> None:
    """Print what two clients saw, line by line, and the findings in it beside them."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    found = [record for record in records if record["event"] == "finding"]
    plain = [record for record in found if record["client"]["listener"] == "plain"]
    findings = [record for record in plain if record["stream"] is not None]
    width = max(76, min(190, shutil.get_terminal_size((120, 24)).columns))
    left = width * 7 // 20
    right = width - 2 * left
    heads = ("what the client sees", "what a masked reader sees")
    print("\n" + "".join(f"{head:{left}}" for head in heads) + "what the audit log says")
    print(f"{'─' * (left - 2)}  {'─' * (left - 2)}  {'─' * right}")
    for number, lines in enumerate(zip(seen, masked), 1):
        notes = [
            f"{record['severity']:6} {record['pattern']}  {record['redacted_match']}"
            for record in findings
            if record["line"] == number
        ]
        notes = [part for note in notes for part in textwrap.wrap(note, right, **UNDER_THE_NAME)]
        for row in rows([*(textwrap.wrap(line, left - 2) or [""] for line in lines), notes]):
            print(f"{row[0]:{left}}{row[1]:{left}}{row[2]}".rstrip())
    print(f"\n{len(findings)} findings; the first one's line in the audit log:")
    print(json.dumps(findings[0]))
    elsewhere = sorted({record["endpoint"] for record in plain if record["stream"] is None})
    if elsewhere:
        print(f"\n{len(plain) - len(findings)} more in other requests: {', '.join(elsewhere)}")


def rows(columns: list[list[str]]) -> Iterator[list[str]]:
    """The rows of columns of different lengths."""
    for number in range(max(map(len, columns))):
        yield [column[number] if number < len(column) else "" for column in columns]


def main() -> int:
    """Run the demo; 0 if both clients saw every line, one of them masked."""
    found = real_engine()
    with (
        tempfile.TemporaryDirectory(prefix="dockeraudit-") as folder,
        contextlib.ExitStack() as stack,
    ):
        if found:
            upstream, image = found
            print(f"a container of {image} on the engine at {upstream}, read through dockeraudit")
        else:
            upstream = os.path.join(folder, "engine.sock")
            script(stack.enter_context(ScriptedEngine(upstream)), f"{NAME}-{os.getpid()}")
            print("no Docker Engine with busybox or alpine here, so a scripted one plays its part")
            image = "scripted"
        path, masked_path, log = stack.enter_context(proxy(folder, upstream))
        client = UnixClient(path)
        with container(client, image) as name:
            seen = read_logs(client, name)
            masked = read_logs(UnixClient(masked_path), name)
        wait_until(lambda: log.read_text().count('"stream_close"') == 2)
        show(seen, masked, log)
    same = [len(line) for line in masked] == [len(line) for line in LINES]
    return 0 if seen == list(LINES) and same and masked != seen else 1


if __name__ == "__main__":
    sys.exit(main())
