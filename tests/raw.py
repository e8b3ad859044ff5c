"""Requests to an engine or a proxy, byte by byte as given, whose answers can be compared."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """An answer: `status` 0 for none; `ended`: the connection did, before the time was up."""

    status: int
    head: bytes
    body: bytes
    ended: bool

    @property
    def refused(self) -> bool:
        """Whether the proxy itself answered."""
        return self.status >= 400 and b'"dockeraudit: ' in self.body


def ask(path: str, data: bytes, timeout: float = 20.0) -> Answer:
    """Send bytes to a Unix socket, and read to the end of the connection."""
    received, ended = b"", True
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(path)
        try:
            sock.sendall(data)
            while True:
                block = sock.recv(65536)
                if not block:
                    break
                received += block
        except socket.timeout:
            ended = False
        except (ConnectionResetError, BrokenPipeError):
            pass  # it refused, and closed over what it had not read
    head, _, body = received.partition(b"\r\n\r\n")
    return Answer(int(head[9:12]) if head[9:12].isdigit() else 0, head, body, ended)


def api(path: str, method: str, target: str, value: Any | None = None) -> Any:
    """One ordinary API request; the JSON of its answer."""
    body = json.dumps(value).encode() if value is not None else b""
    fields = "Host: d\r\nConnection: close\r\nContent-Type: application/json\r\n"
    fields += f"Content-Length: {len(body)}\r\n"
    answer = ask(path, f"{method} {target} HTTP/1.0\r\n{fields}\r\n".encode() + body)
    assert 200 <= answer.status < 300, answer
    return json.loads(answer.body) if answer.body.strip() else None
