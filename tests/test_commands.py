"""The commands as processes, also on systems that lack what only Linux or only Unix has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from program import run_program

from conftest import PROGRAM

KEY = "AK" + "IA" + "IOSFODNN7EXAMPL2"
#: What a system lacks: modules, and names of modules. `ENTRY` is run without them.
MACOS = {
    "os": "fdatasync splice pipe2 posix_fallocate sched_setaffinity",
    "select": "epoll EPOLLIN EPOLLOUT",
    "signal": "sigtimedwait",
    "socket": "SO_PEERCRED MSG_NOSIGNAL SOCK_CLOEXEC TCP_KEEPIDLE",
}
WINDOWS = {
    "": "fcntl grp pwd resource termios",
    "os": "getuid geteuid getgid getegid getgroups fdatasync chown fchmod fchown mkfifo fork "
    "sched_yield splice pipe2 O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_DIRECTORY",
    "select": "poll epoll POLLIN POLLOUT POLLHUP POLLERR POLLNVAL POLLRDHUP EPOLLIN EPOLLOUT",
    "signal": "SIGHUP SIGPIPE SIGCHLD SIGUSR1 pthread_sigmask sigtimedwait sigwait SIG_BLOCK",
    "socket": "AF_UNIX SO_PEERCRED MSG_DONTWAIT MSG_NOSIGNAL SOCK_CLOEXEC TCP_KEEPIDLE "
    "TCP_KEEPINTVL SCM_RIGHTS",
}
ENTRY = """
import importlib, os, runpy, sys
lacking, program = eval(sys.argv[1]), sys.argv[2]
for module, names in lacking.items():
    for name in names.split():
        if not module:
            sys.modules[name] = None
        elif hasattr(importlib.import_module(module), name):
            delattr(sys.modules[module], name)
sys.path.insert(0, os.path.dirname(program))
sys.argv = ["dockeraudit", *sys.argv[3:]]
runpy.run_path(program, run_name="__main__")
"""


def run(
    lacking: dict[str, str], *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """The program on a system that lacks these names."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER", "LOG_LEVEL"))}
    if not lacking:
        return run_program(*arguments, input=stdin, env=environ)
    return subprocess.run(
        [sys.executable, "-c", ENTRY, repr(lacking), PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=environ,
        check=False,
    )


@pytest.fixture(params=[{}, MACOS, WINDOWS], ids=["linux", "macos", "windows"])
def lacking(request: pytest.FixtureRequest) -> dict[str, str]:
    """What this system, or another, lacks."""
    found: dict[str, str] = request.param
    return found


def test_scan_report_verify_learn_and_rules_run_on_other_systems(
    lacking: dict[str, str], folder: Path
) -> None:
    scanned = run(lacking, "scan", "-", stdin=f"key {KEY}\n".encode())
    assert scanned.returncode == 1 and b"aws-access-key" in scanned.stdout, scanned.stderr
    log = folder / "x.log"
    log.write_bytes(scanned.stdout)
    (folder / "text").write_text(f"key {KEY}\n")
    key = ["--fingerprint-key", str(folder / "key")]
    assert run(lacking, "scan", *key, str(folder / "text")).returncode == 1
    assert (folder / "key").stat().st_size == 32
    for command in ("report", "verify"):
        done = run(lacking, command, str(log))
        assert done.returncode == 0 and not done.stderr, (command, done.stderr)
    assert b"nothing to learn" in run(lacking, "learn", str(log)).stderr
    assert b"aws-access-key" in run(lacking, "rules").stdout


@pytest.mark.parametrize("other", [MACOS, WINDOWS], ids=["macos", "windows"])
def test_serve_says_on_other_systems_that_it_needs_linux(other: dict[str, str]) -> None:
    done = run(other, "serve")
    assert done.returncode == 78 and done.stderr.startswith(b"dockeraudit: serve needs Linux")
    assert done.stderr.count(b"\n") == 1
    assert b"usage:" in run(other, "serve", "--help").stdout


def test_without_unix_sockets_no_engine_is_asked_and_one_sentence_says_so() -> None:
    done = run(WINDOWS, "scan", "--containers")
    assert done.returncode == 69 and b"this Python has no Unix sockets" in done.stderr
    done = run(WINDOWS, "healthcheck", "--listen", "unix:///x.sock")
    assert done.returncode == 78 and b"this system has no Unix sockets" in done.stderr


def test_an_unknown_command_is_one_sentence_that_names_the_known_ones() -> None:
    done = run({}, "sacn")
    assert (
        done.returncode == 78
        and b"'sacn' is not a command (did you mean 'scan'?); there are serve" in done.stderr
    )


def test_a_scan_of_a_folder_goes_on_where_the_reader_is_gone(folder: Path) -> None:
    (folder / "text").write_text(f"key {KEY}\n" * 5)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as gone:
        done = subprocess.run(
            [sys.executable, PROGRAM, "scan", str(folder)],
            stdout=gone,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 141 and b"Traceback" not in done.stderr
