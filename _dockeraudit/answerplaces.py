"""Where the texts of answers stand in their bytes on the wire. Performs no I/O.

    payload ─▶ JsonPlaces / DataPlaces / BuildPlaces ─▶ Places

These read an answer as the decoders of `answertext` do. What JSON writes as an escape is
overwritten whole, and base64 with base64: an answer stays what its reader can read.
"""

from __future__ import annotations

import binascii
import re

from _dockeraudit.answertext import (
    ANSWER,
    DATA,
    DATA_BEGINS,
    LONGEST_DATA,
    LONGEST_MESSAGE,
    MESSAGES,
    UNICODE_ESCAPE,
    unicode_character,
)
from _dockeraudit.places import NOWHERE, PayloadSpans, Pieces, PlacedText, Places
from _dockeraudit.routes import Route

#: an escape of JSON's (RFC 8259 §7), or one that has not wholly come
JSON_ESCAPE = re.compile(rb"\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4}|(?:u[0-9a-fA-F]{0,3})?\Z)")
JSON_ESCAPED = {
    b"\\n": b"\n", b"\\t": b"\t", b"\\r": b"\r", b"\\b": b"\b", b"\\f": b"\f",
}  # fmt: skip
OUTPUT = re.compile(rb'"stream"\s*:\s*"((?:[^"\\]|\\.)*)"')
STANDARD = bytes.maketrans(b"-_", b"+/")  # base64 as RFC 4648 §5 writes it to that of §4
HIDDEN = {3: b"Kioq", 2: b"Kio=", 1: b"Kg=="}  # base64 of so many asterisks


class JsonPlaces:
    """Where the text of JSON stands, with the escapes of its strings undone."""

    frames = 0
    inside_frame = False

    def __init__(self) -> None:
        self._waiting = Pieces()

    @property
    def undecided(self) -> int:
        """Where the beginning of something stands whose end has not come."""
        return self._waiting.starts[0] if self._waiting.starts else NOWHERE

    def place(self, block: bytes, spans: PayloadSpans, base: int, places: Places) -> None:
        """Place the payload's text."""
        pieces, self._waiting = self._waiting, Pieces()
        for start, end in spans:
            pieces.add(block[start:end], base + start)
        way = PlacedText(pieces)
        end = self._end(way.text)
        self._waiting = way.cut(end, len(way.text))
        self._read(way, end, places)

    def lapse(self, places: Places) -> None:
        """No more comes: what waited is text as it stands."""
        pieces, self._waiting = self._waiting, Pieces()
        if pieces.parts:
            way = PlacedText(pieces)
            self._read(way, len(way.text), places)

    def _end(self, text: bytes) -> int:
        """Up to where the text has wholly come."""
        at = text.find(b"\\")
        while at >= 0:
            escape = JSON_ESCAPE.match(text, at)
            if escape and escape.end() == len(text) and not is_whole(escape[0]):
                return at
            at = text.find(b"\\", escape.end() if escape else at + 1)
        return len(text)

    def _read(self, way: PlacedText, end: int, places: Places) -> None:
        place_json(way, 0, end, places.of(ANSWER), places)


def is_whole(escape: bytes) -> bool:
    """Whether an escape has wholly come."""
    return len(escape) == (6 if escape[1:2] == b"u" else 2)


def place_json(way: PlacedText, at: int, end: int, into: Pieces, places: Places) -> None:
    """Place a stretch of JSON, with its escapes undone."""
    for escape in JSON_ESCAPE.finditer(way.text, at, end):
        if not is_whole(escape[0]):
            break
        add(into, way.cut(at, escape.start()))
        text = JSON_ESCAPED.get(escape[0]) or UNICODE_ESCAPE.sub(unicode_character, escape[0])
        text = text[1:] if text == escape[0] else text
        way.escape(escape.start(), escape.end(), text, into, places)
        at = escape.end()
    add(into, way.cut(at, end))


def add(into: Pieces, more: Pieces) -> None:
    """Append pieces."""
    into.parts += more.parts
    into.starts += more.starts


class DataPlaces(JsonPlaces):
    """Where the text of configs and secrets stands: their data, which is base64, decoded."""

    def _end(self, text: bytes) -> int:
        whole = max((data.end() for data in DATA.finditer(text)), default=0)
        begun = DATA_BEGINS.search(text, whole)
        escaped = begun and text[: begun.start()].endswith(b"\\")
        if begun and not escaped and len(text) - begun.start() <= LONGEST_DATA:
            return begun.start()
        return super()._end(text)

    def _read(self, way: PlacedText, end: int, places: Places) -> None:
        into, at = places.of(ANSWER), 0
        for data in DATA.finditer(way.text, 0, end):
            place_json(way, at, data.start(2), into, places)
            place_data(way, data.start(2), data.end(2), into, places)
            at = data.end(2)
        place_json(way, at, end, into, places)


def place_data(way: PlacedText, start: int, end: int, into: Pieces, places: Places) -> None:
    """Place base64 as what it says, on lines of its own; as it is, if it is none."""
    decoded = []
    for at in range(start, end, 4):
        try:
            group = way.text[at : min(end, at + 4)].translate(STANDARD)
            decoded.append(binascii.a2b_base64(group.ljust(4, b"=")))
        except binascii.Error:
            add(into, way.cut(start, end))
            return
    into.add(b"\n", NOWHERE)
    for number, text in enumerate(decoded):
        at = start + 4 * number
        cut, hidden = way.cut(at, min(end, at + 4)), HIDDEN.get(len(text), b"")
        if text:
            into.add(text, cut.starts[0])
            places.escaped[cut.starts[0]] = [
                (place, hidden[sum(map(len, cut.parts[:i])) :][: len(part)])
                for i, (part, place) in enumerate(zip(cut.parts, cut.starts))
            ]
    into.add(b"\n", NOWHERE)


class BuildPlaces(JsonPlaces):
    """Where the texts of the classic builder's answer stand: its output, and all else it says."""

    def _end(self, text: bytes) -> int:
        end = text.rfind(b"\n") + 1
        return end if len(text) - end <= LONGEST_MESSAGE else len(text)

    def _read(self, way: PlacedText, end: int, places: Places) -> None:
        at = 0
        while at < end:
            eol = way.text.find(b"\n", at, end) + 1 or end
            output = OUTPUT.search(way.text, at, eol)
            if output:
                place_json(way, output.start(1), output.end(1), places.of(ANSWER), places)
            else:
                place_json(way, at, eol, places.of(ANSWER + MESSAGES), places)
            at = eol


def answer_places(route: Route) -> JsonPlaces:
    """What finds the places of an answer's texts."""
    if route.answer == "build":
        return BuildPlaces()
    return DataPlaces() if route.kind in ("config", "secret") else JsonPlaces()
