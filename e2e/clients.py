"""Real clients on an engine, directly and through dockeraudit, and how their results are compared.

A `Way` leads to an engine: directly, or through dockeraudit over a Unix socket or TCP.
`way.shell(SCRIPT)` runs a script with `docker`, `api` (curl) and $NAME set up for that way and
returns its Outcome. `same(ways, case)` runs a case on every way at once; the outcomes must be equal
once ids, times and names are left out.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, NamedTuple

LIMIT = 110.0  # seconds for a run of a client: below pytest's limit, so that a test says what hung
PREFIX = f"da-clients-{os.getpid()}"  # of every name that these tests make on an engine

#: What differs between two runs of the same command on the same way. The docker CLI 20.10 prints
#: the last line only sometimes.
VOLATILE = (
    (re.compile(rb"(?:sha256:)?\b[0-9a-f]{64}\b"), b"<id>"),
    (re.compile(rb"\b[0-9a-f]{12}\b"), b"<id>"),
    (
        re.compile(
            rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?: ?[-+]\d{4} UTC|Z| UTC|[-+]\d\d:\d\d)?"
        ),
        b"<time>",
    ),
    (re.compile(rb"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"), b"<time>"),
    (re.compile(rb"(?:Less than a|About an?|\d+) (?:second|minute|hour)s?(?: ago)?"), b"<time>"),
    (re.compile(rb"\b\d+\.\d+s\b"), b"<time>"),
    (
        re.compile(
            rb'time="[^"]*" level=error msg="error waiting for container: context canceled"\n'
        ),
        b"",
    ),
)


class Outcome(NamedTuple):
    """What a user sees of a command."""

    code: int
    stdout: bytes
    stderr: bytes


def docker_clis() -> list[tuple[str, str]]:
    """(version, path) of each docker CLI on PATH, in the order of PATH."""
    found: dict[str, str] = {}
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder, "docker")
        if os.access(path, os.X_OK):
            said = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=LIMIT, check=False
            ).stdout
            version = re.search(r"version (\d+\.\d+\.\d+)", said)
            if version:
                found.setdefault(version[1], path)
    return list(found.items())


class Way:
    """One way to an engine. `name` is direct, unix or tcp; `host` what DOCKER_HOST says."""

    def __init__(self, name: str, host: str, folder: str) -> None:
        self.name = name
        self.letter = name[0]  # names of one length, so that lengths in answers are equal too
        self.host = host
        self.folder = folder

    @property
    def api(self) -> str:
        """A shell function: `api METHOD PATH [CURL OPTIONS]`."""
        where = (
            f"--unix-socket {self.host[len('unix://') :]}"
            if self.host.startswith("unix://")
            else ""
        )
        base = "http://docker" if where else "http" + self.host[len("tcp") :]
        return f'api() {{ m=$1; p=$2; shift 2; curl -sS {where} -X "$m" "$@" "{base}$p"; }}\n'

    def environment(self, cli: str) -> dict[str, str]:
        """The environment of a client: `docker` is the CLI at `cli`, whatever else is on PATH."""
        tools = os.path.join(self.folder, "bin-" + cli.strip("/").replace("/", "-"))
        try:
            os.mkdir(tools)
            os.symlink(cli, os.path.join(tools, "docker"))
        except FileExistsError:
            pass
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER")}
        return {**plain, "PATH": tools + os.pathsep + os.environ["PATH"], "DOCKER_HOST": self.host}

    def shell(self, script: str, name: str, cli: str, **more: str) -> Outcome:
        """Run a script; $NAME is `name`, $WORK an empty folder of its own."""
        work = os.path.join(self.folder, name)
        os.makedirs(work, exist_ok=True)
        environment = {**self.environment(cli), "NAME": name, "WORK": work, **more}
        command = ["bash", "-c", self.api + script]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                stdout, stderr = process.communicate()
                raise AssertionError(
                    f"{self.name} hung: {script!r} said {stdout[-2000:]!r} {stderr[-2000:]!r}"
                ) from None
        shutil.rmtree(work)
        return self.plain(Outcome(process.returncode, stdout, stderr), name)

    def docker(self, *arguments: str) -> Outcome:
        """One run of the docker CLI that has to succeed."""
        run = subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT,
            env={**os.environ, "DOCKER_HOST": self.host},
            check=False,
        )
        assert run.returncode == 0, (arguments, run.stderr)
        return Outcome(run.returncode, run.stdout, run.stderr)

    def plain(self, outcome: Outcome, name: str) -> Outcome:
        """An outcome without what differs anyway: names, ids, times and this way's address."""
        return outcome._replace(
            stdout=self._plain(outcome.stdout, name), stderr=self._plain(outcome.stderr, name)
        )

    def _plain(self, text: bytes, name: str) -> bytes:
        address = self.host.split("://", 1)[1]
        for own in (name, self.host, address, self.host.replace("tcp", "http")):
            text = text.replace(own.encode(), b"<own>")
        for pattern, replacement in VOLATILE:
            text = pattern.sub(replacement, text)
        return text


def same(ways: Sequence[Way], run: Callable[[Way], Any]) -> Any:
    """Run a case on all ways at the same time; return its outcome, which must be equal on each."""
    with ThreadPoolExecutor(len(ways)) as executor:
        outcomes = list(executor.map(run, ways))
    for way, outcome in zip(ways[1:], outcomes[1:]):
        assert outcome == outcomes[0], f"{way.name} differs from direct:\n{outcome}\n{outcomes[0]}"
    return outcomes[0]


#: starts a session with a controlling terminal; ctrl-c also works where the tests ignore SIGINT
IN_A_TERMINAL = ("setsid", "--ctty", "--wait", "env", "--default-signal=INT")


class Terminal:
    """A program in a terminal of its own; what it writes is collected in `screen`."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], rows: int = 24, columns: int = 80
    ) -> None:
        self.master, terminal = os.openpty()
        self.resize(rows, columns)
        self.screen = b""
        self.process = subprocess.Popen(
            [*IN_A_TERMINAL, *command],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=environment,
            start_new_session=False,
        )
        os.close(terminal)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the kernel tells the program (SIGWINCH)."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        """Type a text."""
        os.write(self.master, text)

    def expect(self, mark: bytes, deadline: float = 60.0) -> bytes:
        """Wait until the screen shows `mark`; return what stood before it, and drop both."""
        end = time.monotonic() + deadline
        while mark not in self.screen:
            assert self._read(end - time.monotonic()), (
                f"waited in vain for {mark!r}, the screen shows {self.screen!r}"
            )
        before, _, self.screen = self.screen.partition(mark)
        return before

    def _read(self, timeout: float) -> bool:
        """Add the next bytes to the screen; False at the end or when the time is up."""
        if not select.select([self.master], [], [], max(0.0, timeout))[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the last program on the terminal has ended
            return False
        self.screen += data
        return bool(data)

    def end(self, deadline: float = 60.0) -> tuple[int, bytes]:
        """Wait until it ends; return its exit code as a shell gives it, and the screen."""
        limit = time.monotonic() + deadline
        while self._read(limit - time.monotonic()):
            pass
        code = self.process.wait(max(1.0, limit - time.monotonic()))
        return (128 - code if code < 0 else code), self.screen

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


class Matrix:
    """The comparisons that were made: a row for each client and case, a column for each engine."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, str]] = {}
        self._lock = threading.Lock()

    def add(self, client: str, case: str, engine: str, verdict: str) -> None:
        """Fill a cell: equal, or differs."""
        with self._lock:
            self._rows.setdefault((client, case), {})[engine] = verdict

    def table(self) -> str:
        """The comparisons as a Markdown table; empty if nothing was compared."""
        engines = sorted({engine for cells in self._rows.values() for engine in cells})
        lines = [["client", "case", *(f"engine {engine}" for engine in engines)]]
        for (client, case), cells in self._rows.items():
            lines.append([client, case, *(cells.get(engine, "–") for engine in engines)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        lines.insert(1, ["-" * width for width in widths])
        text = "\n".join(
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
            for line in lines
        )
        return text if self._rows else ""


MATRIX = Matrix()
