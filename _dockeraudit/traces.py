"""Finds passwords among the arguments that stack traces print, and in protocols' dialogues."""

from __future__ import annotations

import re
from typing import Any

from _dockeraudit.candidates import Anchored, Found, Visitor
from _dockeraudit.plausibility import (
    decoded,
    is_generated,
    is_mixed,
    is_placeholder,
)
from _dockeraudit.rules import Match

#: a call in a trace: ->connect(Array, 'user', 'X', 5432)
CALL = re.compile(rb">(\w{2,40})\(([^\r\n()]{6,600})\)")
ARGUMENTS = re.compile(rb"(?:^|, ?)(?:\"([^\"]*)\"|'([^']*)'|[^,'\"]*)")
#: methods whose arguments are as a rule no secrets, though they look so
NO_LOGIN = re.compile(
    rb"(?i)(?:get|find|load|has|is|fetch|render|handle|log(?!in|on)|debug|info|dispatch|include|"
    rb"require)"
)
MINUS = 45
#: the Base64 of `Password:`, by which SMTP servers ask for it (AUTH LOGIN)
ASKS_PASSWORD = b"UGFzc3dvcmQ6"
PROMPT_ANSWER = re.compile(
    rb"[^\r\n]{0,24}\r?\n[^\n]{0,80}?([A-Za-z0-9+/]{6,128}={0,2})['\"\\rn]{0,6}\r?(?:\n|$)"
)
PRINTABLE = re.compile(rb"[ -~]{4,128}")


#: a frame of a stack trace: #0 /app/db.php(12): mysqli_connect('db', 'user', 'X')
FRAME_SIZE = 240  # bytes from the frame's number to the place it names
FRAME = re.compile(rb"#\d{1,3} [^\r\n]{0,240}?\(\d{1,6}\): ([\w\\]{2,60})\(([^\r\n]{6,600})\)")


def at_frame(anchored: Anchored) -> Visitor:
    """A visitor at the # of a trace's frame that calls a function, not a method."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        if not block[at + 1 : at + 2].isdigit():
            return at + 1
        place = block.find(b"): ", at, at + FRAME_SIZE)
        frame = FRAME.match(block, at) if place > 0 else None
        if frame is None:
            return at + 2
        report_arguments(anchored, frame, found)
        return int(frame.end())

    return visit


def at_call(anchored: Anchored) -> Visitor:
    """A visitor at the > of `->` in a stack trace: an argument with a password's shape."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        if block[at - 1] != MINUS:
            return at + 1
        call = CALL.match(block, at)
        if call is None or NO_LOGIN.match(call.group(1)):
            return at + 1
        report_arguments(anchored, call, found)
        return int(call.end())

    return visit


def report_arguments(anchored: Anchored, call: Any, found: Found) -> None:
    """Report the arguments of a call that are passwords."""
    for argument in ARGUMENTS.finditer(call.group(2)):
        group = argument.lastindex
        if group and is_argument_secret(argument.group(group)):
            start, end = (call.start(2) + place for place in argument.span(group))
            found.append((anchored.rank, Match(anchored.rule, call.start(1), end, start, end)))


def is_argument_secret(value: bytes) -> bool:
    """Whether a call's argument is a password: nothing else of a trace mixes cases and digits
    so."""
    return (
        not value.endswith(b"...")
        and b" " not in value
        and is_generated(value)
        and is_mixed(value)
        and re.search(rb"[A-Z]", value) is not None
        and re.search(rb"[a-z]", value) is not None
        and not re.search(rb"[/\\:.,_-]", value)
    )


def at_challenge(anchored: Anchored) -> Visitor:
    """A visitor at a server's request for the password, whose answer is on the next line."""

    def visit(block: bytes, at: int, lines: bool, found: Found) -> int:
        answer = PROMPT_ANSWER.match(block, at + len(ASKS_PASSWORD))
        if answer and block.startswith(ASKS_PASSWORD, at):
            password = decoded(answer.group(1))
            if PRINTABLE.fullmatch(password) and not is_placeholder(password):
                start, end = answer.span(1)
                found.append((anchored.rank, Match(anchored.rule, at, end, start, end)))
        return at + len(ASKS_PASSWORD)

    return visit
