"""gunicorn's public suite of requests: each legal one passes, each illegal one is refused.

A refusal is an answer 4xx and a closed connection. The suite comes from gunicorn's source
distribution on the package index when the test runs; nothing of it is kept. What the proxy does
differently stands in REFUSED and PASSED, each with its reason.
"""

from __future__ import annotations

import re
import runpy
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from wire import Wire, cuts, read_all

pytestmark = [
    pytest.mark.slow,  # gunicorn's examples come from the package index
    pytest.mark.timeout(900),
]

PROXY = "the PROXY protocol, which no Docker client speaks: without it, an illegal request"
CODING = "a transfer coding besides 'chunked': refused by an engine too"
LENIENT = "legal only with a lenient option of gunicorn's"
ORDER = "gunicorn's own policy; legal by RFC 9110, and an engine takes it"
LIMIT = "a limit of gunicorn's; ours is the engine's, 1 MiB of head"
UNFINISHED = (
    "the head never ends: closed without an answer when the client ends, else 408 after 10 s"
)
BARE_LF = "a lone LF ends a line, as RFC 9112 section 2.2 allows and an engine does"
EMPTY_LINES = "RFC 9112 section 2.2 asks to ignore at least one empty line; we ignore them all"

#: legal requests that do not pass, and why
REFUSED = {
    "025": CODING,
    "025_line": CODING,
    "029": CODING,
    "030": CODING,
    "rfc9112_smuggle_gzip_chunked_01": CODING,
    "rfc9112_smuggle_te_identity_chunked_01": CODING,
    "028": LENIENT,
    "compat_obs_fold": LENIENT,
    "compat_obs_fold_huge": LENIENT,
    "031compat": "gunicorn's option folds the method's case; we forward it as it came",
    "099": "its body is shorter than its Content-Length, and ends with the connection",
    "pp_01": PROXY,
    "pp_02": PROXY,
    "pp_04": PROXY,
    "pp_05": PROXY,
}
#: illegal requests that are not answered with 4xx, and why
PASSED = {
    "001": UNFINISHED,
    "pp_01": UNFINISHED,
    "pp_02": UNFINISHED,
    "pp_03": UNFINISHED,
    "006": LIMIT,
    "007": LIMIT,
    "008": LIMIT,
    "009": LIMIT,
    "011": LIMIT,
    "012": LIMIT,
    "limit_header_default_01": LIMIT,
    "040": ORDER,
    "041": ORDER,
    "rfc9112_bare_lf_01": BARE_LF,
    "rfc9112_leading_crlf_02": EMPTY_LINES,
}


@pytest.fixture(scope="module")
def suite() -> Iterator[Path]:
    """The suite's folder."""
    folder = tempfile.mkdtemp(prefix="da-suite-")
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        ":all:",
        "-d",
        folder,
        "gunicorn",
    ]
    for attempt in range(5):
        done = subprocess.run(download, capture_output=True, timeout=300, check=False)
        if done.returncode == 0:
            break
        time.sleep(0.4 * attempt)
    else:
        shutil.rmtree(folder)
        pytest.fail(f"gunicorn's source distribution cannot be fetched: {done.stderr[-300:]!r}")
    archive = next(Path(folder).glob("gunicorn-*.tar.gz"))
    with tarfile.open(archive) as tar:
        wanted = [
            item for item in tar.getmembers() if "/tests/requests/" in item.name and item.isfile()
        ]
        tar.extractall(folder, wanted)
    yield next(Path(folder).glob("gunicorn-*/tests/requests"))
    shutil.rmtree(folder)


def case_bytes(path: Path) -> bytes:
    """A case's bytes: line ends of the file mean nothing, escapes stand for what is sent."""
    data = path.read_bytes().replace(b"\n", b"")
    names = {b"\\r": b"\r", b"\\n": b"\n", b"\\t": b"\t", b"\\0": b"\0"}
    return re.sub(
        rb"\\(?:[rnt0]|x[0-9A-Fa-f]{2})",
        lambda match: names.get(match[0]) or bytes([int(match[0][2:], 16)]),
        data,
    )


def expectation(path: Path) -> list[dict[str, Any]]:
    """The requests that a case's description expects."""
    config = types.SimpleNamespace(set=lambda *arguments: None)
    modules = {
        name: types.ModuleType(name)
        for name in ("gunicorn", "gunicorn.config", "gunicorn.http", "gunicorn.http.errors")
    }
    modules["gunicorn.config"].Config = lambda: config  # type: ignore[attr-defined]
    modules["gunicorn.http.errors"].__getattr__ = lambda name: name  # type: ignore[method-assign]
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        found = runpy.run_path(str(path), {"uri": lambda raw: raw, "cfg": config})
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    expected = found.get("request", [])
    return expected if isinstance(expected, list) else [expected]


class H11Engine:
    """Reads requests as h11 does, answers each with 404, and ends at an illegal one with 400."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    def __call__(self, sock: socket.socket, data: bytes) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        head, body = None, b""
        connection.receive_data(data)
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(sock.recv(65536))
                elif isinstance(event, h11.Request):
                    head, body = event, b""
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self.seen.append((head.method.decode(), head.target.decode("latin-1"), body))
                    sock.sendall(
                        connection.send(
                            h11.Response(status_code=404, headers=[("Content-Length", "0")])
                        )
                        + connection.send(h11.EndOfMessage())
                    )
                    if (
                        connection.our_state is h11.MUST_CLOSE
                        or connection.their_state is not h11.DONE
                    ):
                        return
                    connection.start_next_cycle()
                else:
                    return
        except h11.RemoteProtocolError:
            sock.sendall(
                b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )


def outcome(wire: Wire, parts: list[bytes]) -> tuple[list[int], H11Engine]:
    """The statuses that the client gets before its connection ends, and what the engine saw."""
    engine = wire.engine.serve = H11Engine()
    with wire.connect() as sock:
        try:
            for part in parts:
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused already
        received = read_all(sock)
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)], engine


def with_host(data: bytes) -> bytes:
    """The same requests, with the Host field that HTTP/1.1 demands and the suite often lacks."""
    if (
        b" HTTP/1.0\r\nContent-Length" in data
    ):  # what looks like a second head is the first one's body
        return data
    return re.sub(rb"( HTTP/1\.1\r\n)(?!(?:[^\r]+\r\n)*?(?i:host):)", rb"\1Host: d\r\n", data)


def passes(wire: Wire, data: bytes, expected: list[dict[str, Any]]) -> bool:
    """Whether exactly the expected requests reach the engine, at any cut, and each is answered."""
    wanted = [(item["method"], item["uri"], item["body"] or b"") for item in expected]
    outcomes = [outcome(wire, parts) for parts in cuts(data, 1, 2)]
    return all(
        engine.seen == wanted and statuses == [404] * len(wanted) for statuses, engine in outcomes
    )


def refused(wire: Wire, data: bytes) -> bool:
    """Whether the last request is answered with 4xx and its connection closed, at any cut."""
    outcomes = [outcome(wire, parts) for parts in cuts(data, 1, 2)]
    return all(
        statuses and 400 <= statuses[-1] < 500 and len(engine.seen) == len(statuses) - 1
        for statuses, engine in outcomes
    )


def report(capsys: pytest.CaptureFixture[str], text: str, exceptions: dict[str, str]) -> None:
    """Say what was seen, with each exception and its reason."""
    with capsys.disabled():
        print(
            f"\n{text}",
            *(f"  {name}: {reason}" for name, reason in sorted(exceptions.items())),
            sep="\n",
        )


def test_every_legal_request_passes(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {path.stem: path for path in sorted((suite / "valid").glob("*.http"))}
    assert len(cases) >= 60
    with Wire() as wire:
        failed = {
            name
            for name, path in cases.items()
            if not passes(wire, with_host(case_bytes(path)), expectation(path.with_suffix(".py")))
        }
    assert failed - set(REFUSED) == set(), "legal requests that did not pass"
    report(
        capsys,
        f"gunicorn's suite, legal requests: {len(cases)} tried, "
        f"{len(cases) - len(failed)} passed; exceptions:",
        {name: REFUSED[name] for name in failed},
    )


def test_every_illegal_request_is_refused(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {path.stem: path for path in sorted((suite / "invalid").glob("*.http"))}
    assert len(cases) >= 75
    with Wire() as wire:
        failed = {name for name, path in cases.items() if not refused(wire, case_bytes(path))}
    assert failed - set(PASSED) == set(), "illegal requests that were not refused"
    report(
        capsys,
        f"gunicorn's suite, illegal requests: {len(cases)} tried, "
        f"{len(cases) - len(failed)} refused; exceptions:",
        {name: PASSED[name] for name in failed},
    )
