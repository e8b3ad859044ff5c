"""The command of --on-finding as a process: one JSON line on its standard input, and a time limit.

It has a process group and a signal mask of its own, none of our descriptors, and an environment
without secrets. Its output goes nowhere, since our standard output may be the audit log.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Callable

COMMAND_LIMIT = 30.0  # seconds that the command may take; then it is ended
KILL_GRACE = 1.0  # seconds between SIGTERM and SIGKILL
SHORTEST_LOOK, LONGEST_LOOK = 0.002, 0.05  # seconds between looks at whether it has ended
#: Variables that the command gets, if they are set: ours may hold keys and passwords.
PASSED_VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES",
    "TZ", "TMPDIR",
)  # fmt: skip
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")  # which a command does not expect to be ignored


class AlertCommand:
    """Runs the command, once at a time. `kill` may be called from any thread or signal handler."""

    def __init__(
        self, words: Sequence[str], environ: Mapping[str, str], limit: float = COMMAND_LIMIT
    ) -> None:
        self.words = list(words)
        self._environ = {name: environ[name] for name in PASSED_VARIABLES if name in environ}
        self._limit = limit
        self._pid: int | None = None

    def run(self, line: bytes, time_left: Callable[[], float]) -> tuple[str, str]:
        """Run it, and wait for its end. `time_left`: seconds until nobody can wait any longer.

        Returns nothing twice, or why it counts as not delivered: a word for the record, and a
        sentence.
        """
        try:
            self._pid = spawn_reading(self.words, line, self._environ)
        except OSError as error:
            return "failed", f"{self.words[0]} cannot be run: {error.strerror}"
        ends_at = time.monotonic() + self._limit
        status = self._wait(lambda: min(time_left(), ends_at - time.monotonic()))
        if status is None:
            stopped = time_left() <= 0
            self._end(time_left)
            if stopped:
                return "stop", f"{self.words[0]} was ended, since dockeraudit stops"
            return "timeout", f"{self.words[0]} was ended after {self._limit:g} seconds"
        code = os.waitstatus_to_exitcode(status)
        if code:
            how = f"with status {code}" if code > 0 else f"by signal {-code}"
            return "failed", f"{self.words[0]} ended {how}"
        return "", ""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the command and what it has started, if it runs."""
        if self._pid is not None:
            try:
                os.killpg(self._pid, number)
            except (ProcessLookupError, PermissionError):
                pass  # it has just ended, or has become another user's

    def _wait(self, time_left: Callable[[], float]) -> int | None:
        """The status with which it ends; None if there is no time left."""
        pause = SHORTEST_LOOK
        while self._pid is not None:
            found, status = os.waitpid(self._pid, os.WNOHANG)
            if found:
                self._pid = None
                return status
            left = time_left()
            if left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_LOOK)
        return None

    def _end(self, time_left: Callable[[], float]) -> None:
        """End it and all of its group.

        Only a process in the kernel's hands outlives this, and is waited for unless we stop.
        """
        self.kill(signal.SIGTERM)
        kill_at = time.monotonic() + KILL_GRACE
        if self._wait(lambda: min(time_left(), kill_at - time.monotonic())) is None:
            self.kill()
            given_up_at = time.monotonic() + KILL_GRACE
            self._wait(lambda: max(time_left(), given_up_at - time.monotonic()))


def make_descriptors_private() -> None:
    """Let no command inherit what whoever started us has left open; ours never are inherited."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                pass  # it was the folder's own


def spawn_reading(words: list[str], line: bytes, environ: Mapping[str, str]) -> int:
    """Start a command whose standard input is this line; returns its pid. Raises OSError."""
    read_end, write_end = os.pipe()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.set_blocking(write_end, False)
        os.write(write_end, line)  # at most PIPE_BUF bytes, for which an empty pipe has room
        os.close(write_end)
        write_end = -1
        return os.posix_spawnp(
            words[0],
            words,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read_end, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
            setpgroup=0,
            setsigmask=[],
            setsigdef=[getattr(signal, name) for name in IGNORED_BY_PYTHON],
        )
    finally:
        for fd in (read_end, null, write_end):
            if fd >= 0:
                os.close(fd)
