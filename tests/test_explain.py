"""The command `test`: what matches a line, and why the rest of it is no finding."""

from __future__ import annotations

import io
import os
import re
import sys
import types
from typing import Any

import pytest

import dockeraudit
from _dockeraudit.explain import explained
from _dockeraudit.rules import Rule
from _dockeraudit.scanner import Scanner
from patterns import RULES

SCANNER = Scanner(RULES)
AWS_KEY = "AK" + "IA" + "Z7QXV3MD2LKPW5TR"
GITHUB = "gh" + "p_" + "xXB4j3Vh9TkQm2Rw8Zp5Ys7Ld1Nf6Gc0Ht3A"
GITLAB = "gl" + "pat-"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns, and no variable of ours."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in list(os.environ):
        if name.startswith("DOCKERAUDIT_"):
            monkeypatch.delenv(name)


def explain(line: str) -> str:
    """What is said about a line, on one line."""
    return " ".join("\n".join(explained(line.encode(), SCANNER)).split())


@pytest.mark.parametrize(
    "line, said",
    [
        (f"key {AWS_KEY} now", "HIGH aws-access-key (AWS Access Key): AK***TR, bytes 5 to 24"),
        (f"use {GITHUB}", "HIGH github-token (GitHub token): gh***3A, bytes 5 to 44"),
        ("password=changeme", "LOW password (Password): pa***me, bytes 1 to 17; its value is a pl"),
    ],
)
def test_a_match_is_shown_as_the_log_would_show_it(line: str, said: str) -> None:
    text = explain(line)
    assert said in text and "no rule matches" not in text


@pytest.mark.parametrize(
    "line, why",
    [
        ('db_secret = "changeme"', "db_secret: its value of 8 bytes is a placeholder"),
        ("secret_key = hello-world-again", "secret_key: its value of 17 bytes is made of words"),
        ("secret: correct-horse", "secret: its value of 13 bytes is made of words"),
        ("api_token=abc12", "api_token: its value of 5 bytes is too short for a secret (8 bytes)"),
        ("if token == abcdef12345678", "token: its value of 14 bytes is compared, not assigned"),
        (f"commit {DIGEST}", "bytes 8 to 47 look random, .* no name of a secret stands before it"),
        (f"build_id: {DIGEST}", "look random, .* build_id is not a name that secrets have"),
        (f"use {GITHUB[:15]}", "bytes 5 to 19 begin like github-token, but .* this has 15"),
        (f"use {GITLAB}{'x' * 20}", "bytes 5 to 30 have the shape of gitlab-token, but they sta"),
        ("hello world", "nothing in it has a token's shape or looks random"),
    ],
)
def test_what_is_no_finding_has_a_reason(line: str, why: str) -> None:

    text = explain(line)
    assert text.startswith("no rule matches")
    assert re.search(re.sub(r"[()]", r"\\\g<0>", why), text), text


def test_a_rule_that_a_more_specific_one_takes_the_place_of_is_named() -> None:
    text = explain(f"token: {GITHUB}Zq")
    assert "no rule matches" not in text
    assert "matches too; of rules that overlap the more specific one reports" in text


@pytest.mark.parametrize("line", [f"api_token={GITHUB}", f"x {GITHUB[:-4]}", f"id {DIGEST}"])
def test_no_more_of_a_secret_is_shown_than_in_the_log(line: str) -> None:
    text = "\n".join(explained(line.encode(), SCANNER))
    secret = line.split("=")[-1].split(" ")[-1]
    assert not any(secret[at : at + 6] in text for at in range(len(secret) - 5))


def test_text_that_a_terminal_would_obey_is_escaped() -> None:
    for line in explained(b"\x1b[31m password=\x1b[2Jq7Rv!x9Zk2\x07 \xff\n", SCANNER):
        assert line.isprintable() and "\x1b" not in line


def test_lines_fit_the_terminal() -> None:
    lines = "\n".join(explained(f"commit {DIGEST}".encode(), SCANNER)).splitlines()
    assert max(map(len, lines)) < 80


def test_a_rule_of_ones_own_is_tried() -> None:
    own = Rule("mine", "Mine", "HIGH", (b"foo_",), rb"foo_[a-z0-9]{12}", 0, (), (), "", find="line")
    (line,) = explained(b"foo_a1b2c3d4e5f6", Scanner([own]))
    assert line == "HIGH    mine (Mine): fo***f6, bytes 1 to 16"


def test_the_line_comes_from_the_arguments_or_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert dockeraudit.run_command(["test", "key", AWS_KEY]) == 0
    first = capsys.readouterr().out
    stdin = types.SimpleNamespace(buffer=io.BytesIO(f"key {AWS_KEY}\n".encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert dockeraudit.run_command(["test", "-"]) == 0
    assert capsys.readouterr().out == first and "aws-access-key" in first
