"""The command `healthcheck`: which answers mean that a listener is well."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from scripted import ScriptedEngine

from _dockeraudit import healthcheck as healthcheck_room
from _dockeraudit.errors import EXIT_UNAVAILABLE
from _dockeraudit.healthcheck import command_healthcheck


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the options' variables is set."""
    for name in list(os.environ):
        if name.startswith("DOCKERAUDIT_"):
            monkeypatch.delenv(name)


@pytest.fixture
def answers(folder: Path) -> Iterator[Callable[[bytes], str]]:
    """Start something that answers /_ping with these bytes; returns its URL."""
    running: list[ScriptedEngine] = []

    def start(answer: bytes) -> str:
        engine = ScriptedEngine(str(folder / f"{len(running)}.sock"))
        engine.routes["/_ping"] = lambda sock, head: sock.sendall(answer)
        running.append(engine)
        return f"unix://{engine.__enter__().path}"

    yield start
    for engine in running:
        engine.__exit__()


def status(code: int, reason: bytes = b"Some Reason") -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Length: 0\r\n\r\n" % (code, reason)


@pytest.mark.parametrize("code", [200, 204, 400, 403, 404, 500])
def test_any_answer_of_a_listener_that_serves_is_well(
    answers: Callable[[bytes], str], code: int
) -> None:
    assert command_healthcheck(["--listen", answers(status(code))]) == 0


@pytest.mark.parametrize("code, why", [(502, "cannot be reached"), (503, "no room")])
def test_no_engine_and_no_room_are_not_well_and_it_says_so(
    answers: Callable[[bytes], str], capsys: Any, code: int, why: str
) -> None:
    assert command_healthcheck(["--listen", answers(status(code))]) == EXIT_UNAVAILABLE
    said = capsys.readouterr().err
    assert f"answers {code}" in said and why in said and said.count("\n") == 1


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200"])
def test_what_does_not_answer_in_http_is_not_well(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, answer: bytes
) -> None:
    monkeypatch.setattr(healthcheck_room, "HEALTHCHECK_TIMEOUT", 5.0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "x.sock"))
        listener.listen(1)

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"unix://{folder}/x.sock"
        assert command_healthcheck(["--listen", url]) == EXIT_UNAVAILABLE
        thread.join(20)
    assert f"nobody answers at {url}" in capsys.readouterr().err


def test_an_answer_that_never_comes_is_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(healthcheck_room, "HEALTHCHECK_TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "x.sock"))
        listener.listen(1)
        assert command_healthcheck(["--listen", f"unix://{folder}/x.sock"]) == EXIT_UNAVAILABLE


def test_the_first_listener_that_answers_decides(
    answers: Callable[[bytes], str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, well, ill = f"unix://{folder}/none", answers(status(200)), answers(status(502))
    monkeypatch.setenv("DOCKERAUDIT_LISTEN", f"{missing},{well},{ill}")
    assert command_healthcheck([]) == 0
    monkeypatch.setenv("DOCKERAUDIT_LISTEN", f"{missing},{ill},{well}")
    assert command_healthcheck([]) == EXIT_UNAVAILABLE
    (folder / "x.ini").write_text(f"[listener a]\nlisten = {well}\n")
    assert command_healthcheck(["--config", str(folder / "x.ini")]) == 0


def test_of_a_tls_listener_the_connection_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr("_dockeraudit.listeners.tls_context", lambda values: object())
        assert command_healthcheck(["--listen", f"tcp://127.0.0.1:{port}"]) == 0
    assert command_healthcheck(["--listen", f"tcp://127.0.0.1:{port}"]) == EXIT_UNAVAILABLE


def test_the_wildcard_is_asked_on_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        asked = threading.Thread(target=lambda: listener.accept()[0].close())
        asked.start()
        port = listener.getsockname()[1]
        arguments = ["--listen", f"tcp://0.0.0.0:{port}"]
        assert command_healthcheck(arguments) == EXIT_UNAVAILABLE
        asked.join(20)
        assert not asked.is_alive(), "it connected, and was closed without an answer"
