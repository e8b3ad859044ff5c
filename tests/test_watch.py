"""`watch`: findings as they come, across rotation and truncation, and what a line says."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys

import pytest
from auditrecords import (
    HOSTILE,
    RECORDS,
    REMOTE,
    finding,
    gap,
    line_of,
    log_bytes,
    numbered,
    update,
    write,
)
from program import run_program

from _dockeraudit.choice import Choice
from _dockeraudit.terminal import Look
from _dockeraudit.text import columns
from _dockeraudit.watch import LogFollower, Watch
from conftest import PROGRAM, wait_for


def followed(path, *steps, from_start=True):
    """The lines that a follower sees while the steps are done, one at each wait."""
    left = list(steps)

    def wait():
        if not left:
            return False
        left.pop(0)()
        return True

    seen = []
    for lines in LogFollower(str(path), wait, from_start).lines():
        seen += lines
    return seen


def append(path, data):
    def step():
        with open(path, "ab") as file:
            file.write(data)

    return step


def test_lines_are_followed_as_they_are_written_and_only_whole(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    steps = [append(path, b"a\nb"), append(path, b"c\n"), append(path, b"d\nunfinished")]
    assert followed(path, *steps) == [b"old", b"a", b"bc", b"d"]
    path.write_bytes(b"old\n")
    assert followed(path, *steps, from_start=False) == [b"a", b"bc", b"d"]


def test_a_rotated_log_is_followed_into_the_new_file(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")

    def rotate():
        os.rename(path, tmp_path / "log.1")

    steps = [rotate, append(tmp_path / "log.1", b"2\n"), append(path, b"3\n"), append(path, b"4\n")]
    assert followed(path, *steps) == [b"1", b"2", b"3", b"4"]


def test_lines_written_right_before_a_rotation_are_seen(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")

    def rotate():
        append(path, b"2\n")()
        os.rename(path, tmp_path / "log.1")
        path.write_bytes(b"3\n")

    assert followed(path, rotate) == [b"1", b"2", b"3"]


def test_a_truncated_log_is_followed_from_its_beginning(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one long line\nand the next\n")
    steps = [lambda: os.truncate(path, 0), append(path, b"new\n")]
    assert followed(path, *steps) == [b"one long line", b"and the next", b"new"]


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path):
    path = tmp_path / "log"
    assert followed(path, lambda: None, append(path, b"1\n"), from_start=False) == [b"1"]


def shown(*records, look=None, as_json=False, **choice):
    """What is written for some records."""
    out = io.StringIO()
    Watch(Choice(**choice), out, look or Look(width=160), as_json).show(records)
    return out.getvalue().splitlines()


def test_a_line_says_when_how_grave_where_what_and_who():
    (line,) = shown(finding(count=12))
    words = ["03:04:05", "HIGH", "web", "Password", "pa***23", "ab" * 8, "uid 7 (docker), 12 x"]
    places = [line.index(word) for word in words]
    assert places == sorted(places)
    (line,) = shown(finding(container_name=None, endpoint="inspect", client=REMOTE, count=1))
    assert "cccccccccccc" in line and line.endswith("10.0.0.9 (CN=portainer) in inspect")


def test_a_containers_own_secret_has_its_variable_first_so_that_80_columns_show_it():
    own = finding(pattern="Container's Own Secret", env="DB_PASSWORD", endpoint="inspect", count=1)
    (line,) = shown({**own, "client": {"address": "10.0.0.9"}}, look=Look(width=80))
    assert " DB_PASSWORD: Con" in line and line.endswith(" 10.0.0.9 in inspect")


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_line_fits_and_is_harmless(width):
    hostile = dict.fromkeys(("container_name", "pattern", "redacted_match", "severity"), HOSTILE)
    records = [
        finding(**hostile, client={"address": HOSTILE}),
        {"event": "scan_error", "timestamp": HOSTILE, "error": HOSTILE * 9},
    ]
    for line in shown(*records, look=Look(width=width)):
        assert columns(line) <= width and not set(line) & set("\x1b\u202e\u2028\u061c")


def test_only_what_was_chosen_is_shown():
    placeholder = finding(placeholder=True)
    assert shown(placeholder) == [] and len(shown(placeholder, placeholders=True)) == 1
    assert len(shown(*RECORDS, least=3)) == 3  # two findings, and a loss
    assert len(shown(*RECORDS, container="db")) == 2
    assert shown(*RECORDS, since="2026-02-01") == []


def test_an_update_is_shown_if_it_says_something_new():
    cut = finding(partial=True, fingerprint=None, severity="LOW")
    whole = update(fingerprint="ee" * 8, severity="HIGH", pattern="Better")
    lines = shown(cut, whole)
    assert len(lines) == 2 and "HIGH" in lines[1] and "Better" in lines[1]
    assert "ee" * 8 in lines[1] and lines[1].endswith("known whole now")
    assert len(shown(cut, whole, least=3)) == 1
    assert len(shown(finding(), update(fingerprint="ab" * 8))) == 1
    assert len(shown(cut, update(complete=False))) == 1


def test_losses_are_shown():
    at = {"timestamp": "2026-01-02T03:05:01.000000Z"}
    full = {**at, "event": "suppressed", "counts": {"x": 5}, "severities": {"HIGH": 2, "LOW": 3}}
    lines = shown(
        gap(),
        {**at, "event": "scan_gap", "bytes": 7},
        {**at, "event": "truncated"},
        full,
        {**full, "client": REMOTE},
        {**at, "event": "stats"},
        {**at, "event": "alert_gap", "reason": "timeout", "counts": {"x": 2, "y": 1}},
    )
    assert [line.partition("LOSS")[2].strip() for line in lines] == [
        "9 records lost, 2 findings among them",
        "7 bytes passed unscanned",
        "the log was truncated while it was written",
        "5 findings beyond their container's budget: 2 HIGH, 3 LOW",
        "3 alerts dropped: timeout",
    ]


def test_for_programs_a_finding_is_a_record_a_line():
    assert [json.loads(line) for line in shown(finding(), as_json=True)] == [finding()]


# ==================================================================================================
# command
# ==================================================================================================


def start(*arguments, **streams):
    return subprocess.Popen(
        [sys.executable, PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, **streams},
    )


@pytest.mark.parametrize("command", [("watch",), ("report", "--follow")])
def test_a_log_is_watched_until_interrupted(tmp_path, command):
    path = write(tmp_path, RECORDS[:2])
    with start(*command, "--since", "2026-01-01", path) as process:
        assert b"Password" in process.stdout.readline()
        fresh = {**finding(pattern="Fresh", timestamp="2026-01-05T00:00:00.000000Z"), "seq": 77}
        append(path, line_of(fresh) + b"\n")()
        assert b"Fresh" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert b"Traceback" not in process.stderr.read()


def test_without_since_only_what_comes_is_shown(tmp_path):
    path = write(tmp_path, RECORDS)
    with start("watch", path) as process:

        def opened():
            targets = os.listdir(f"/proc/{process.pid}/fd")
            return any(
                os.path.realpath(f"/proc/{process.pid}/fd/{number}") == path for number in targets
            )

        wait_for(opened, "the log to be opened")
        wait_for(
            lambda: f"pos:\t{os.path.getsize(path)}" in positions(process.pid, path), "its end"
        )
        append(path, line_of({**finding(pattern="Fresh"), "seq": 77}) + b"\n")()
        assert b"Fresh" in process.stdout.readline()
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


def positions(pid, path):
    """What the kernel says of a process's open descriptor of a file."""
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        if os.path.realpath(f"{folder}/{number}") == path:
            with open(f"/proc/{pid}/fdinfo/{number}") as file:
                return file.read()
    return ""


def test_a_pipe_is_watched_to_its_end(tmp_path):
    data = log_bytes(numbered(RECORDS))
    done = run_program("watch", "--json", "-", input=data)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4


def test_what_cannot_be_watched_is_said(tmp_path):
    for arguments, status, words in (
        ((tmp_path,), 66, "cannot read"),
        (("a", "b"), 78, "one log can be followed at a time"),
        (("--severity", "loud"), 78, "'loud'"),
    ):
        done = run_program("watch", *arguments, text=True)
        assert (done.returncode, done.stdout) == (status, "") and words in done.stderr
