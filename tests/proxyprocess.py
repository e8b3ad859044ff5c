"""dockeraudit as a process of its own, as users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from product import PROGRAM
from program import ForkedProgram
from waiting import DEADLINE, wait_for


class ProxyProcess:
    """dockeraudit serving on a Unix socket, with its log and what it says on standard error.

    `forked`: it comes from the fork server of `program.py`, and begins ten times as fast.
    """

    def __init__(
        self,
        folder: Path | str,
        upstream: str,
        *options: str,
        env: dict[str, str] | None = None,
        program: str = PROGRAM,
        forked: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.socket = str(self.folder / "proxy.sock")
        self.log = self.folder / "audit.log"
        self.errors = self.folder / "stderr.txt"
        command = [sys.executable, program, "--listen", f"unix://{self.socket}"]
        command += ["--upstream", upstream, "--audit-log", str(self.log), *options]
        environment = {**plain_environment(), **(env or {})}
        with open(self.errors, "ab") as errors, open(os.devnull, "r+b") as null:
            self.process: subprocess.Popen[bytes] | ForkedProgram
            if forked:
                streams = {"stdin": null.fileno(), "stdout": null.fileno()}
                self.process = ForkedProgram(
                    *command[2:], **streams, stderr=errors.fileno(), env=environment
                )
            else:
                self.process = subprocess.Popen(
                    command, stdin=null, stdout=null, stderr=errors, env=environment
                )

    def ready(self) -> ProxyProcess:
        """Wait until it listens."""
        wait_for(
            lambda: os.path.exists(self.socket) or self.process.poll() is not None, "the listener"
        )
        assert self.process.poll() is None, self.errors.read_text()
        wait_for(lambda: "next: export DOCKER_HOST" in self.errors.read_text(), "the start line")
        return self

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """The records written so far, of one event if given."""
        data = self.log.read_bytes() if self.log.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]  # a reader may see part of a line
        records = [json.loads(line) for line in whole.splitlines()]
        return [record for record in records if event in (None, record["event"])]

    def wait_records(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the log holds so many records of an event."""
        wait_for(lambda: len(self.records(event)) >= count, f"{count} {event} records")
        return self.records(event)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def plain_environment() -> dict[str, str]:
    """This process's environment without the variables that configure dockeraudit or a client."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOCKER", "LOG_LEVEL"))
    }
