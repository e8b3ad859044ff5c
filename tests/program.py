"""Runs of the program without its start, which takes 0.4 s: a fork server imports it once.

The fork server is a process of one thread that has imported the program. For each run it forks a
child, which has standard streams, arguments, environment and working directory of its own and
calls `main`. Its parent says its process id and its end on a socket.

A forked run cannot show what Python or the program does before `main`. Tests of that start a
process: of standard streams closed at the start, of variables that Python reads at its start, of
`python -m dockeraudit`, of missing modules.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from product import PROGRAM, STITCHED, import_stitched_file

LARGEST_RUN = 1 << 17  # bytes of arguments and environment; Linux's socket buffers hold more
RUN_TIMEOUT = 60.0  # seconds until a run is killed, several times what the longest takes
POLL = 0.02  # seconds until threads of a forked run notice that they are to stop; else 0.1 or 0.25
AT_START = ("PYTHON", "LC_", "LANG")  # variables that Python reads at its start
READ_AT_START = {name: os.environ[name] for name in os.environ if name.startswith(AT_START)}


# =================================================================================================
# in the test
# =================================================================================================


class ForkedProgram:
    """A run of the program that has begun; its methods are those of `subprocess.Popen`."""

    def __init__(
        self,
        *arguments: object,
        stdin: int,
        stdout: int,
        stderr: int,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
    ) -> None:
        environment = dict(os.environ if env is None else env)
        read = {name: environment[name] for name in environment if name.startswith(AT_START)}
        assert read == READ_AT_START, "these variables need a process of their own"
        self.args = [PROGRAM, *map(str, arguments)]
        self.returncode: int | None = None
        run = {"args": self.args, "env": environment, "cwd": str(cwd or os.getcwd())}
        self._news, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            streams = [stdin, stdout, stderr, theirs.fileno()]
            socket.send_fds(fork_server(), [json.dumps(run).encode()], streams)
        self.pid = self._number()

    def _number(self) -> int:
        """The next number that the run's parent says: its process id, then its wait status."""
        data = self._news.recv(32)
        assert data, "the fork server has ended; its error stands on standard error"
        return int(data)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._news], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(self._number())
            self._news.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the run has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run_program(
    *arguments: object,
    input: bytes | str = b"",
    text: bool = False,
    stdout: int | None = None,
    timeout: float = RUN_TIMEOUT,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[Any]:
    """Run the program to its end, as `subprocess.run` would with captured output.

    `stdout` is a descriptor to use instead of a pipe. A run that takes longer than `timeout`
    seconds is killed: subprocess.TimeoutExpired.
    """
    data = input.encode() if isinstance(input, str) else input
    pipes = [os.pipe() for _ in range(3)]
    given, written, said = pipes[0][0], pipes[1][1], pipes[2][1]
    try:
        run = ForkedProgram(
            *arguments,
            stdin=given,
            stdout=written if stdout is None else stdout,
            stderr=said,
            env=env,
            cwd=cwd,
        )
    finally:
        for number in (given, written, said):
            os.close(number)
    with ThreadPoolExecutor(3) as threads:
        threads.submit(feed, pipes[0][1], data)
        outputs = [threads.submit(drain, pipe[0]) for pipe in pipes[1:]]
        try:
            run.wait(timeout)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            raise
    out, err = (output.result() for output in outputs)
    assert run.returncode is not None
    if text:
        return subprocess.CompletedProcess(run.args, run.returncode, out.decode(), err.decode())
    return subprocess.CompletedProcess(run.args, run.returncode, out, err)


def feed(number: int, data: bytes) -> None:
    """Write all of `data` to a pipe and close it; the reader may be gone."""
    try:
        with open(number, "wb") as pipe:
            pipe.write(data)
    except BrokenPipeError:
        pass


def drain(number: int) -> bytes:
    """All that comes out of a pipe."""
    with open(number, "rb") as pipe:
        return pipe.read()


@functools.cache
def fork_server() -> socket.socket:
    """The connection to this process's fork server, which ends with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    atexit.register(server.wait)
    atexit.register(ours.close)  # called before the line above
    return ours


# =================================================================================================
# in the fork server
# =================================================================================================


def serve_forks(requests: socket.socket) -> None:
    """Have a child begin each run that is asked for; only a run returns, with `main` to call."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the runs' parents
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, LARGEST_RUN, 4)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            return begin(json.loads(data), descriptors)
        for number in descriptors:
            os.close(number)


def begin(run: Mapping[str, Any], descriptors: list[int]) -> None:
    """Fork the run itself, in which this returns, and say its process id and its wait status."""
    *streams, news = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(news)
        return become(run, streams)
    for number in streams:
        os.close(number)
    os.write(news, b"%d" % pid)
    _, status = os.waitpid(pid, 0)
    try:
        os.write(news, b"%d" % status)
    except OSError:
        pass  # the tests have ended
    os._exit(0)


def become(run: Mapping[str, Any], streams: list[int]) -> None:
    """Take over what distinguishes this run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, (stream, name) in enumerate(zip(streams, ("stdin", "stdout", "stderr"))):
        os.dup2(stream, number)
        os.close(stream)
        set_stream(number, name)
    os.chdir(run["cwd"])
    os.environ.clear()
    os.environ.update(run["env"])
    sys.argv[:] = run["args"]


def set_stream(number: int, name: str) -> None:
    """Make a standard stream anew, as Python does at its start."""
    old = getattr(sys, name)
    new = os.fdopen(
        number,
        "r" if name == "stdin" else "w",
        encoding=old.encoding,
        errors=old.errors,
        newline=None if name == "stdin" else "\n",
        closefd=False,
    )
    if name == "stderr":
        new.reconfigure(line_buffering=True)
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


if __name__ == "__main__":
    sys.path[0] = str(Path(PROGRAM).parent)
    if STITCHED:
        import_stitched_file()
    import dockeraudit
    from _dockeraudit import admin, auditlog

    dockeraudit.SHUTDOWN_POLL = admin.ADMIN_POLL = auditlog.TICK = POLL
    gc.freeze()  # the collector of a run leaves the pages that it shares with the server alone
    serve_forks(socket.socket(fileno=int(sys.argv[1])))
    dockeraudit.main()
