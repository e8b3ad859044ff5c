"""Answers and bodies of the Engine API to text that can be scanned. Performs no I/O.

    payload ─▶ JsonText / DataText / BuildText ─▶ [(name of a text, bytes), …]
    payload ─▶ subject_of ─▶ what the answer is about: its id and name
    payload ─▶ environment_in ─▶ the variables that it shows or sets

A secret is looked for as it is, and not as JSON writes it: `&` and not `\\u0026`, lines and not
`\\n`. So it has the same fingerprint in an answer as in a log.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Union

from _dockeraudit.routes import Route
from _dockeraudit.streams import Piece

ANSWER, BODY = "answer", "body"  # stream types of findings: what the engine said, what the client
MESSAGES = " messages"  # ends the name of a text that holds what a build says beside its output
LONGEST_MESSAGE = 1 << 20  # bytes of a build's JSON line; a longer one is read as it comes
LONGEST_DATA = 2 << 20  # bytes of base64 of a config or secret; swarm takes 1,000 KiB of either

# RFC 8259 §7. An escaped backslash becomes NUL for a while, which JSON cannot hold as it is.
SHORT_ESCAPES = (
    (b'\\"', b'"'), (b"\\/", b"/"), (b"\\n", b"\n"), (b"\\t", b"\t"), (b"\\r", b"\r"),
    (b"\\b", b"\b"), (b"\\f", b"\f"),
)  # fmt: skip
UNICODE_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")
ESCAPE_BEGINS = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
LONGEST_ESCAPE = 6  # bytes
# The data of a config or secret, in Go's spelling of its key or any that Go reads as that.
DATA = re.compile(rb'("data"\s*:\s*")([\w+/\s-]+={0,2})"', re.I)
# such a key and value as far as they have come, at the end of a block
DATA_BEGINS = re.compile(rb'"(?:d(?:a(?:t(?:a(?:"(?:\s*(?::\s*(?:"[^"]*)?)?)?)?)?)?)?)?\Z', re.I)

# Where an answer says what it is about: id and name, by kind. The first such key is the one, since
# the same inside a text is escaped.
HEX_ID = re.compile(rb'"Id":\s*"([0-9a-f]{64})"')
SWARM_ID = re.compile(rb'"ID":\s*"(\w{1,64})"')
NAME = re.compile(rb'"Name":\s*"/?([^"\\]{1,255})"')
SUBJECTS: dict[str, tuple[re.Pattern[bytes], re.Pattern[bytes] | None]] = {
    "container": (HEX_ID, NAME),
    "pod": (HEX_ID, NAME),
    "exec": (re.compile(rb'"ContainerID":\s*"([0-9a-f]{64})"'), None),
    "image": (re.compile(rb'"Id":\s*"((?:sha256:)?[0-9a-f]{64})"'), None),
    "service": (SWARM_ID, NAME),
    "task": (SWARM_ID, None),
    "config": (SWARM_ID, NAME),
    "secret": (SWARM_ID, NAME),
}

# Where variables stand, by word and kind. Podman's own API takes an object `env`.
SERVICE_ENV = ("TaskTemplate", "ContainerSpec", "Env")
ENVIRONMENTS: dict[tuple[str, str | None], Sequence[str]] = {
    ("inspect", "container"): ("Config", "Env"),
    ("inspect", "image"): ("Config", "Env"),
    ("inspect", "service"): ("Spec", *SERVICE_ENV),
    ("inspect", "task"): ("Spec", "ContainerSpec", "Env"),
    ("create", "container"): ("Env",),
    ("create", "image"): ("Env",),
    ("create", "service"): SERVICE_ENV,
    ("update", "service"): SERVICE_ENV,
}
LONGEST_SHOWN = 1 << 20  # bytes of a payload that is read for its variables


class JsonText:
    """JSON to text: the same bytes, with the escapes of its strings undone."""

    def __init__(self, stream_type: str) -> None:
        self.stream_type = stream_type
        self._kept = b""  # an escape that has not wholly come

    def feed(self, block: bytes) -> list[Piece]:
        """The text of the next block."""
        block, self._kept = self._kept + block, b""
        text = self._plain(block) if b"\\" in block else block
        return [(self.stream_type, text)] if text else []

    def end(self) -> list[Piece]:
        """What was kept back."""
        kept, self._kept = self._kept, b""
        return [(self.stream_type, kept)] if kept else []

    def _plain(self, block: bytes) -> bytes:
        block = block.replace(b"\\\\", b"\0")
        begun = ESCAPE_BEGINS.search(block, max(0, len(block) - LONGEST_ESCAPE))
        if begun:
            self._kept, block = block[begun.start() :], block[: begun.start()]
        return unescaped(block)


def unescaped(text: bytes) -> bytes:
    """JSON without the escapes of its strings; NUL stands for an escaped backslash."""
    for escape, plain in SHORT_ESCAPES:
        text = text.replace(escape, plain)
    if b"\\u" in text:
        text = UNICODE_ESCAPE.sub(unicode_character, text)
    return text.replace(b"\0", b"\\")


def unicode_character(match: re.Match[bytes]) -> bytes:
    """The character of an escape in UTF-8; half of a pair is kept as half."""
    return chr(int(match[1], 16)).encode("utf-8", "surrogatepass")


class DataText(JsonText):
    """JSON of configs and secrets to text: their data, which is base64, stands there decoded."""

    def __init__(self, stream_type: str) -> None:
        super().__init__(stream_type)
        self._data = b""  # from a data key on whose value has not wholly come

    def feed(self, block: bytes) -> list[Piece]:
        """The text of the next block."""
        text, self._data = self._data + b"".join(part for _, part in super().feed(block)), b""
        text = DATA.sub(decoded_data, text)
        begun = DATA_BEGINS.search(text)
        if begun and len(text) - begun.start() <= LONGEST_DATA:
            self._data, text = text[begun.start() :], text[: begun.start()]
        return [(self.stream_type, text)] if text else []

    def end(self) -> list[Piece]:
        """What was kept back."""
        kept, self._data = self._data + b"".join(part for _, part in super().end()), b""
        return [(self.stream_type, kept)] if kept else []


def decoded_data(match: re.Match[bytes]) -> bytes:
    """A data key with its value decoded, on lines of its own; as it is, if it is no base64."""
    try:
        data = base64.b64decode(match[2] + b"==", b"-_" if b"-" in match[2] else None)
    except (binascii.Error, ValueError):
        return match[0]
    return b'%b\n%b\n"' % (match[1], data)


class BuildText:
    """The classic builder's answer to texts: its output, and beside it all that it says else.

    Each line is a JSON object. Output stands in `stream`, a line of it often in two objects.
    """

    def __init__(self, stream_type: str) -> None:
        self.stream_type = stream_type
        self._line = b""  # as far as it has come

    def feed(self, block: bytes) -> list[Piece]:
        """The texts of the next block."""
        *lines, self._line = (self._line + block).split(b"\n")
        if len(self._line) > LONGEST_MESSAGE:
            lines.append(self._line)
            self._line = b""
        return self._pieces(lines)

    def end(self) -> list[Piece]:
        """What was kept back."""
        lines, self._line = [self._line], b""
        return self._pieces(lines)

    def _pieces(self, lines: list[bytes]) -> list[Piece]:
        output, messages = [], []
        for line in lines:
            said = output_in(line)
            if said is not None:
                output.append(said)
            elif line.strip():
                messages += [unescaped(line.replace(b"\\\\", b"\0")), b"\n"]
        texts = [(self.stream_type, output), (self.stream_type + MESSAGES, messages)]
        return [(name, b"".join(parts)) for name, parts in texts if parts]


def output_in(line: bytes) -> bytes | None:
    """The output in a line of a build's answer; None if it holds none."""
    if b'"stream"' not in line:
        return None
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    said = message.get("stream") if isinstance(message, dict) else None
    return said.encode("utf-8", "surrogatepass") if isinstance(said, str) else None


AnswerDecoder = Union[JsonText, BuildText]


def answer_decoder(route: Route) -> AnswerDecoder:
    """What reads the answer to a request."""
    if route.answer == "build":
        return BuildText(ANSWER)
    return (DataText if route.kind in ("config", "secret") else JsonText)(ANSWER)


def body_decoder(route: Route) -> AnswerDecoder:
    """What reads the body of a request."""
    return (DataText if route.kind in ("config", "secret") else JsonText)(BODY)


def query_text(route: Route) -> bytes:
    """A query's parameters as text, a line each: a build's arguments stand there, as JSON."""
    lines = (f"{name}={value}\n" for name, value in route.parameters() if name or value)
    return "".join(lines).encode("utf-8", "surrogateescape")


def subject_of(kind: str | None, answer: bytes) -> tuple[str | None, str | None]:
    """Id and name of what an answer is about, as far as it says."""
    patterns = SUBJECTS.get(kind or "", (None, None))
    found = [pattern.search(answer) if pattern else None for pattern in patterns]
    full_id, name = (match[1].decode("utf-8", "replace") if match else None for match in found)
    return full_id, name


def shows_environment(route: Route, stream_type: str) -> bool:
    """Whether variables stand in the answer to a request, or in its body."""
    wanted = ANSWER if route.answer == "inspect" else BODY
    return stream_type == wanted and (route.answer, route.kind) in ENVIRONMENTS


def environment_in(route: Route, payload: bytes) -> list[str]:
    """The variables in such an answer or body, as NAME=VALUE."""
    if len(payload) > LONGEST_SHOWN or b"env" not in payload.lower():
        return []
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return []
    if isinstance(said, dict) and isinstance(said.get("env"), dict):
        return [f"{name}={value}" for name, value in said["env"].items()]
    for key in ENVIRONMENTS[route.answer, route.kind]:
        said = said.get(key) if isinstance(said, dict) else None
    return [entry for entry in said if isinstance(entry, str)] if isinstance(said, list) else []
