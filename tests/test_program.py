"""The helper that forks runs of the program: they end as started ones do, and in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from product import PROGRAM
from program import ForkedProgram, run_program
from proxyprocess import plain_environment
from waiting import wait_for


@pytest.mark.parametrize("arguments", [("--version",), ("man",), ("sacn",)], ids=str)
def test_a_forked_run_says_what_a_started_one_says(arguments: tuple[str, ...]) -> None:
    environment = {**plain_environment(), "COLUMNS": "90"}
    started = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    forked = run_program(*arguments, env=environment)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        started.returncode,
        started.stdout,
        started.stderr,
    )


def open_files(pid: int) -> set[str]:
    """The files that a process has open; empty if one was closed meanwhile."""
    try:
        return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    except FileNotFoundError:
        return set()


def test_a_run_has_a_working_directory_and_descriptors_of_its_own(folder: Path) -> None:
    (folder / "log").write_text("")
    with open(os.devnull, "r+b") as null:
        stream = null.fileno()
        run = ForkedProgram("watch", "log", stdin=stream, stdout=stream, stderr=stream, cwd=folder)
    only = {os.devnull, str(folder / "log")}
    wait_for(lambda: open_files(run.pid) == only, "the log to be its only file")
    assert os.readlink(f"/proc/{run.pid}/cwd") == str(folder)
    run.terminate()
    assert run.wait(20) == -signal.SIGTERM == run.poll()


def test_a_run_that_takes_too_long_is_killed(folder: Path) -> None:
    (folder / "log").write_text("")
    with pytest.raises(subprocess.TimeoutExpired):
        run_program("watch", folder / "log", timeout=0.1)


def test_variables_that_python_reads_at_its_start_cannot_differ() -> None:
    with pytest.raises(AssertionError, match="a process of their own"):
        run_program("--version", env={**os.environ, "PYTHONUTF8": "0"})
