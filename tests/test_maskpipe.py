"""The command mask: what a person pipes through it."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from product import PROGRAM
from program import run_program

from conftest import DEADLINE

SECRET = b"hunter2" * 2


def mask(text: bytes, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """The command's run on a text."""
    return run_program("mask", *arguments, input=text, timeout=DEADLINE, **more)


def test_secrets_are_asterisks_and_nothing_else_changes() -> None:
    text = b"user=a password=" + SECRET + b" \xff\x00\r\nlast line"
    run = mask(text)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout == text.replace(SECRET, b"*" * len(SECRET))


def test_other_bytes_pass_whatever_they_are() -> None:
    text = os.urandom(1 << 20)
    assert mask(text, "--severity", "HIGH").stdout == text


def test_a_line_leaves_before_the_next_one_comes_and_an_unfinished_one_too() -> None:
    command = [sys.executable, PROGRAM, "mask"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdin and run.stdout
        for text in (b"one\n", b"password: "):
            run.stdin.write(text)
            run.stdin.flush()
            assert os.read(run.stdout.fileno(), 100) == text
        run.stdin.write(SECRET + b"\n")
        run.stdin.close()
        assert run.stdout.read() == b"*" * len(SECRET) + b"\n"


@pytest.mark.parametrize(("severity", "masked"), [("low", True), ("MEDIUM", False)])
def test_the_severity_says_from_which_on_secrets_are_masked(severity: str, masked: bool) -> None:
    text = b"mail from someone@acme-mail.net\n"
    assert (mask(text, "--severity", severity).stdout != text) == masked


def test_a_wrong_severity_is_one_sentence() -> None:
    run = mask(b"", "--severity", "some")
    assert run.returncode == 78
    assert run.stderr == b"dockeraudit: --severity: 'some' is not one of HIGH, MEDIUM, LOW\n"


def test_an_allowed_secret_stays(tmp_path: Path) -> None:

    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    fingerprint = hmac.new(b"k" * 32, SECRET, hashlib.sha256).hexdigest()[:16]
    text = b"password=" + SECRET + b"\n"
    options = ("--fingerprint-key", str(key), "--allow-secret")
    assert mask(text, *options, fingerprint).stdout == text
    assert mask(text, *options, "0" * 16).stdout != text


def test_a_reader_that_goes_ends_it_quietly() -> None:
    command = [sys.executable, PROGRAM, "mask"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdin and run.stdout and run.stderr
        run.stdout.close()
        try:
            run.stdin.write(b"line\n" * 100_000)
            run.stdin.close()
        except BrokenPipeError:
            pass  # it ended before it had read all
        assert run.wait(DEADLINE) == 141
        assert run.stderr.read() == b""
