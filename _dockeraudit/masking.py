"""Secrets in a stream's bytes to asterisks, on their way to the client. Performs no I/O.

    bytes on the wire ─▶ WirePlaces ─▶ pieces of texts ─▶ MaskedText (scans, records, overwrites)
                                 │                              │ how far each text is decided
                                 └────────▶ Mask: bytes for the client ◀─ asterisks

A secret's bytes become asterisks where they stand, so nothing else of the stream changes: lengths,
frame headers, chunk sizes, order, newlines. The scan that masks is the one that records.

How long a byte waits: complete lines leave at once. An unfinished line waits for its newline, but
no longer than the hold after its last byte; clients read frames whole, so it also waits for the
rest of a frame. Then it is scanned as it stands, and goes. What goes
so and turns out to begin a secret cannot be called back: the rest is masked, and the record says
how many bytes passed. What stands behind a waiting line waits with it.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from _dockeraudit.ownsecrets import AnyScanner, secret_of
from _dockeraudit.places import NOWHERE, Pieces, Places, WirePlaces, Writes
from _dockeraudit.rules import Match, Rule
from _dockeraudit.streams import stream_type_of
from _dockeraudit.text import SEVERITY_RANK
from _dockeraudit.textscanner import (
    KEY_EDGES,
    KEY_END,
    KEY_FIELD,
    KEY_TEXT,
    FindingRecords,
    Reading,
    TextScanner,
    TwoReadings,
    reading_of,
)

HOLD = 0.015  # seconds that an unfinished line waits for more after its last byte
HOLD_TYPED = 0.005  # the same where the client types: an echo is waited for
HELD_MOST = 64 << 10  # bytes that wait, all texts of a stream together
#: what an original rule counts to its secret, and clients may see
LABEL = re.compile(rb"(?i:bearer|basic|token)\s+(?=\S)")
HEADER_END = b"-----"
#: in what one line holds of a private key: escapes, which stay, and stretches of the body
KEY_STRETCH = re.compile(rb"\\+[nrt]|([A-Za-z0-9+/=]+)")
#: how a value goes on that is longer than what is scanned at once
VALUE_GOES_ON = re.compile(rb"[^\s\"'`<>,;)}\]\\]*")


class MaskRecords:
    """Where the findings of a masked stream go: each record says what the client got.

    `cover` is of the match that is recorded next.
    """

    def __init__(self, records: Any) -> None:
        self._records = records
        self.cover: tuple[bool, int] | None = None

    def say(self, cover: tuple[bool, int] | None) -> None:
        """What the client gets of the match that is recorded next; None: all of it."""
        self.cover = cover

    def _take_cover(self) -> tuple[bool, int] | None:
        cover, self.cover = self.cover, None
        return cover

    def finding(self, *match: Any, **more: Any) -> Any:
        """Record a finding; returns the handle by which it can be updated."""
        return self._records.finding(*match, **more, cover=self._take_cover())

    def update(self, *match: Any, **more: Any) -> None:
        """Record what a finding is now that all of it is known."""
        self._records.update(*match, **more, cover=self._take_cover())


class MaskedText(TextScanner):
    """One text of a masked stream.

    It keeps the places of an unfinished line's bytes, and overwrites secrets there. `overwrite`:
    puts asterisks on the wire, for a part that begins at a place, from which of its bytes on, and
    for how many; False where these have left.
    """

    def __init__(
        self,
        scanner: AnyScanner,
        records: FindingRecords,
        say: Callable[[tuple[bool, int] | None], None],
        name: str,
        masks: Callable[[bytes, Match], bool],
        overwrite: Callable[[int, int, int], bool],
    ) -> None:
        super().__init__(scanner, records, stream_type_of(name))
        self.size = 0  # bytes so far
        self.arrived = 0.0  # when the last of them came
        self._masks = masks
        self._say = say
        self._overwrite = overwrite
        self._position = 0  # where the carry begins in the text
        self._base = 0  # where the block that was scanned last begins in the text
        self._lapsed = 0  # what was let go although its line had not ended
        self._settling = False
        self._runs_on = False  # a secret is longer than what is scanned at once, and goes on
        self._reaches = False  # a secret reaches the end of the block that was scanned last
        self._key_passed = 0
        self._offsets: list[int] = []  # in the text, of the parts of the unfinished line
        self._starts: list[int] = []  # on the wire, of the same parts
        self._masked: list[tuple[int, int]] = []  # of the text, from the carry's beginning on

    # -- what comes

    def use(self, scanner: AnyScanner) -> None:
        """Scan with these rules from here on."""
        super().use(scanner)
        self._scan_lines = self._scan
        self._scan = self._scan_and_mask

    def take(self, pieces: Pieces, now: float) -> None:
        """The next bytes of the text."""
        parts = pieces.parts
        if not parts:
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._offsets += accumulate(map(len, parts[:-1]), initial=self.size)
        self._starts += pieces.starts
        before, self.size, self.arrived = self.size, self.size + len(data), now
        if self._runs_on:
            self._run_on(before, data)
        self.feed(data)
        self._trim()

    def lapse(self) -> None:
        """Nothing more came in time: mask what is a secret by now, and let the line go."""
        self._settling = True
        if self._key is not None:
            line = bytes(self.carry[self._names :])
            begin = len(line) if self._key.is_before(line) else self._key.begins(line)
            self._mask_key_line(line[begin:], self._position + self._names + begin)
        self.settle()
        self._settling = False
        self._lapsed = self.size

    def finish(self) -> None:
        """The text ends."""
        self.end()
        self._lapsed = self.size

    @property
    def open_from(self) -> int:
        """Where on the wire the first byte stands that must wait; NOWHERE: none must."""
        begin = max(self._final, self._lapsed)
        if begin >= self.size:
            return NOWHERE
        number = bisect.bisect_right(self._offsets, begin) - 1
        if self._starts[number] >= 0:
            return self._starts[number] + begin - self._offsets[number]
        return next((start for start in self._starts[number:] if start >= 0), NOWHERE)

    @property
    def _final(self) -> int:
        """Where in the text the unfinished line begins, or what of it is not decided."""
        return self._position + max(self._names, self._decided)

    def _trim(self) -> None:
        """Forget the places of what is final."""
        final = self._final
        if final >= self.size:
            self._offsets.clear()
            self._starts.clear()
            return
        number = bisect.bisect_right(self._offsets, final) - 1
        if number > 0:
            del self._offsets[:number], self._starts[:number]

    def _forget(self, size: int) -> None:
        super()._forget(size)
        self._position += size
        if self._masked:
            self._masked = [span for span in self._masked if span[1] > self._position]

    # -- what is a secret

    def _scan_and_mask(self, block: bytes) -> list[Match]:
        matches = self._scan_lines(block)
        self._base = self._position
        if self._settling:
            self._base += len(self.carry) - len(block)
        self._reaches = False
        for match in matches:
            if not self._masks(block, match):
                continue
            if match.rule.find == "pem":
                self._mask_key_rest(block, match.start)
                continue
            start, end = masked_span(block, match)
            self._mark(self._base + start, self._base + end)
            self._reaches = self._reaches or end == len(block)
        return matches

    def _window(self, size: int) -> None:
        end = self._position + size
        super()._window(size)
        if self._reaches:
            self._run_on(end, bytes(self.carry[end - self._position :]))

    def _run_on(self, offset: int, data: bytes) -> None:
        """Mask what goes on of a secret that is longer than what is scanned at once."""
        match = VALUE_GOES_ON.match(data)
        length = match.end() if match else 0
        self._mark(offset, offset + length)
        self._runs_on = length == len(data)

    def _mark(self, start: int, end: int) -> int:
        """Put asterisks on the wire for a span of the text; how many of its bytes had left."""
        if start >= end:
            return 0
        number = max(0, bisect.bisect_right(self._offsets, start) - 1)
        at = start
        while at < end and number < len(self._offsets):
            offset, place = self._offsets[number], self._starts[number]
            number += 1
            stop = self._offsets[number] if number < len(self._offsets) else self.size
            low, stop = max(at, offset), min(stop, end)
            if low < stop:
                if place >= 0 and self._overwrite(place, low - offset, stop - low):
                    self._masked.append((low, stop))
                at = stop
        return self._passed(start, end)

    def _passed(self, start: int, end: int) -> int:
        """How many bytes of a span of the text left without a mask."""
        if start >= self._lapsed:
            return 0
        at = start
        passed = 0
        for low, high in sorted(self._masked):
            if low >= end:
                break
            if high > at:
                passed += max(0, low - at)
                at = max(at, high)
        return passed + max(0, end - at)

    # -- private keys

    def _mask_key_rest(self, block: bytes, pos: int) -> None:
        """Mask what one line holds of a private key behind its header, which begins at `pos`."""
        pos = block.find(HEADER_END, pos + len(HEADER_END)) + len(HEADER_END)
        end = block.find(b"\n", pos)
        end = len(block) if end < 0 else end
        stop = block.find(KEY_END, pos, end)
        self._mask_stretches(block, pos, end if stop < 0 else stop)

    def _key_body(self, block: bytes, pos: int, matches: Sequence[Match], number: int) -> int:
        """Walk the key's body, and mask what it walked over."""
        key = self._key
        stop = super()._key_body(block, pos, matches, number)
        while key and pos < stop:
            eol = block.find(b"\n", pos, stop) + 1 or stop
            end = block.find(KEY_END, pos, eol)
            pos += key.begins(block[pos:eol])
            line = block[pos:eol]
            if end >= 0:
                self._key_passed += self._mask_stretches(block, pos, end)
            elif not is_key_field(line):
                self._key_passed += self._mask_key_line(line, self._base + pos)
            pos = eol
        return stop

    def _mask_key_line(self, line: bytes, offset: int) -> int:
        """Mask a line of a key's body, as far as it has come; how many bytes of it had left."""
        text = line.lstrip(KEY_EDGES)
        match = KEY_TEXT.match(text)
        end = match.end() if match else 0
        if not end or text[end:].strip(KEY_EDGES) and text[end : end + 1] != b"-":
            return 0
        begin = offset + len(line) - len(text)
        return self._mark(begin, begin + end)

    def _mask_stretches(self, block: bytes, pos: int, end: int) -> int:
        """Mask a key's body on one line; how many bytes of it had left."""
        return sum(
            self._mark(self._base + stretch.start(1), self._base + stretch.end(1))
            for stretch in KEY_STRETCH.finditer(block, pos, end)
            if stretch.group(1)
        )

    def _finish_key(self, complete: bool) -> None:
        masked = self._key is not None and self._masks(b"", as_match(self._key.rule))
        self._say((True, self._key_passed) if masked else None)
        self._key_passed = 0
        super()._finish_key(complete)

    # -- what records say

    def _finding(self, block: bytes, match: Match, line: int, partial: bool) -> Any:
        self._say(self._cover(block, match))
        return super()._finding(block, match, line, partial)

    def _complete(self, block: bytes, match: Match, line: int, before: Any) -> Any:
        if before is not None:  # else `_finding` says it
            self._say(self._cover(block, match))
        return super()._complete(block, match, line, before)

    def _withdraw(self, handle: Any) -> None:
        self._say(None)
        super()._withdraw(handle)

    def _cover(self, block: bytes, match: Match) -> tuple[bool, int] | None:
        """Whether a match's secret is masked, and how many of its bytes had left before."""
        if not self._masks(block, match):
            return None
        if match.rule.multiline:
            return True, self._key_passed
        start, end = masked_span(block, match)
        passed = self._passed(self._base + start, self._base + end)
        return passed < end - start, passed


def masked_span(block: bytes, match: Match) -> tuple[int, int]:
    """What is masked of a match: its secret, with what overlaps it, without the word Bearer."""
    start, end = match.secret_start, match.secret_end
    if match.union:
        start, end = min(start, match.union[0]), max(end, match.union[1])
    label = LABEL.match(block, start, end)
    return (label.end() if label else start), end


def is_key_field(line: bytes) -> bool:
    """Whether a line of a key is one of those before its body."""
    text = line.strip(KEY_EDGES)
    return KEY_TEXT.fullmatch(text) is None and KEY_FIELD.fullmatch(text) is not None


def as_match(rule: Rule) -> Match:
    """A match of a rule, nowhere."""
    return Match(rule, 0, 0, 0, 0)


class Mask:
    """A stream on its way to the client: blocks in, the same bytes out, secrets as asterisks.

    `records`: where its findings go. `severity`: from which on a secret is masked. `exempt`:
    whether a secret is known as harmless. `hold`: seconds that an unfinished line waits.
    """

    def __init__(
        self,
        wire: WirePlaces,
        scanner: AnyScanner,
        records: Any,
        severity: str,
        hold: float = HOLD,
        exempt: Callable[[bytes], bool] | None = None,
        most: int = HELD_MOST,
        spared: bytes = b"",
    ) -> None:
        self.wire = wire
        self.texts: dict[str, MaskedText] = {}
        self._scanner = scanner
        self._records = MaskRecords(records)
        least = SEVERITY_RANK[severity]
        self._wanted = {name for name, rank in SEVERITY_RANK.items() if rank >= least}
        self.hold = hold
        self._exempt = exempt
        self._most = most  # bytes that may wait
        self._spared = spared  # bytes that stay even in a secret: they are not the text's
        self._held: bytes | bytearray = b""  # bytes that wait
        self._base = 0  # where on the wire they begin
        self._escaped: dict[int, Writes] = {}
        self._arrived = 0.0
        self._readings: TwoReadings | None = None

    @property
    def held(self) -> int:
        """Bytes that wait."""
        return len(self._held)

    @property
    def full(self) -> bool:
        """Whether nothing more can wait until it is known how the stream is framed."""
        return self.wire.framing is None and len(self._held) >= self._most

    @property
    def _impatient(self) -> bool:
        """Whether what is undecided is let go when the hold ends."""
        return self.wire.framing is not None and not self.wire.patient

    def feed(self, block: bytes, now: float) -> bytes:
        """The next bytes from the engine, or none when the hold ends; the bytes for the client."""
        if not block:
            return self._lapse(now)
        used, places = self.wire.feed(block)
        return self.pass_on(block if used == len(block) else block[:used], places, now)

    def pass_on(self, block: bytes, places: Places, now: float) -> bytes:
        """As feed, for a block that `wire.feed` has taken whole."""
        if self._held:
            if not isinstance(self._held, bytearray):
                self._held = bytearray(self._held)
            self._held += block
        else:
            self._held = block
        self._arrived = now
        self._take(places, now)
        return self._release()

    def use(self, scanner: AnyScanner) -> None:
        """Scan with these rules from here on."""
        self._scanner = scanner
        for text in self.texts.values():
            text.use(scanner)

    def decide(self, tty: bool | None, now: float) -> bytes:
        """It is known how the stream is framed, or known that nobody says (None)."""
        places = self.wire.decide(tty)
        if self.wire.framing == "unknown":
            self._readings = TwoReadings(self._records)
        self._take(places, now)
        return self._release()

    def due(self) -> float | None:
        """When to call `feed` without bytes if none come; None: never."""
        if self.wire.inside_frame:
            return None
        due = [text.arrived for text in self.texts.values() if text.open_from >= 0]
        if self._impatient and self.wire.undecided >= 0:
            due.append(self._arrived)
        return min(due) + self.hold if due else None

    def end(self) -> bytes:
        """The stream has ended: what waited, for the client."""
        decided = self.decide(None, self._arrived) if self.wire.framing is None else b""
        self._take(self.wire.lapse(), self._arrived)
        for text in self.texts.values():
            text.finish()
        out, self._held = bytes(self._held), b""
        self._base += len(out)
        return decided + out

    def _lapse(self, now: float) -> bytes:
        """Let go what has waited long enough, but nothing of a frame whose rest is on its way."""
        if self.wire.framing is None or self.wire.inside_frame:
            return b""
        if self._impatient and self.wire.undecided >= 0 and self._arrived + self.hold <= now:
            self._take(self.wire.lapse(), self._arrived)
        for text in self.texts.values():
            if text.arrived + self.hold <= now and text.open_from >= 0:
                text.lapse()
        return self._release()

    def _take(self, places: Places, now: float) -> None:
        if places.escaped:
            self._escaped.update(places.escaped)
        for name, pieces in places.items():
            self._text(name).take(pieces, now)

    def _text(self, name: str) -> MaskedText:
        text = self.texts.get(name)
        if text is None:
            records: FindingRecords = self._records
            if self._readings and reading_of(name):
                records = Reading(self._readings, reading_of(name))
            text = MaskedText(
                self._scanner, records, self._records.say, name, self.masks, self._overwrite
            )
            self.texts[name] = text
        return text

    def masks(self, block: bytes, match: Match) -> bool:
        """Whether a match's secret is masked."""
        if match.placeholder or match.rule.severity not in self._wanted:
            return False
        if self._exempt is None or match.rule.multiline:
            return True
        return not self._exempt(secret_of(block, match))

    def _overwrite(self, place: int, shift: int, length: int) -> bool:
        """Put asterisks on the wire; False where not all of these bytes are here any more."""
        if not isinstance(self._held, bytearray):
            self._held = bytearray(self._held)
        escaped = self._escaped.get(place)
        if escaped is None:
            return self._put(place + shift, b"*" * length, self._spared)
        here = [self._put(place, data) for place, data in escaped]
        return all(here)

    def _put(self, place: int, data: bytes, spared: bytes = b"") -> bool:
        """Overwrite what is here of some bytes on the wire; False where some have left."""
        here, at = place >= self._base, max(0, place - self._base)
        data = data[max(0, self._base - place) :]
        held = self._held
        assert isinstance(held, bytearray)
        for start, end in self._between_headers(at, at + len(data)):
            new = data[start - at : end - at]
            if spared:
                pairs = zip(new, held[start:end])
                new = bytes(old if old in spared else byte for byte, old in pairs)
            held[start:end] = new
        return here

    def _between_headers(self, start: int, end: int) -> Sequence[tuple[int, int]]:
        """A span of what waits, without frame headers that another reading has as text."""
        spans = []
        for low, high in self.wire.headers:
            low, high = low - self._base, high - self._base
            if high > start and low < end:
                spans.append((start, max(start, low)))
                start = max(start, min(high, end))
        return [*spans, (start, end)]

    def _release(self) -> bytes:
        """The bytes that need not wait."""
        while True:
            cut = self._cut()
            if len(self._held) - cut <= self._most or self.wire.framing is None:
                break
            self._lapse_first()
        if not cut:
            return b""
        if cut == len(self._held):
            out, self._held = bytes(self._held), b""
        else:
            out = bytes(self._held[:cut])
            self._held = self._held[cut:]
        self._base += cut
        if self._escaped:
            self._escaped = {at: to for at, to in self._escaped.items() if at >= self._base}
        self.wire.forget_headers(self._base)
        return out

    def _cut(self) -> int:
        """How many of the bytes that wait need not."""
        places = [self.wire.undecided, *(text.open_from for text in self.texts.values())]
        return max(0, min([len(self._held), *(at - self._base for at in places if at >= 0)]))

    def _lapse_first(self) -> None:
        """Too much waits: let the text go that all others wait for."""
        waiting = [text for text in self.texts.values() if text.open_from >= 0]
        if self.wire.undecided >= 0 and not any(
            text.open_from < self.wire.undecided for text in waiting
        ):
            self._take(self.wire.lapse(), self._arrived)
            waiting = [text for text in self.texts.values() if text.open_from >= 0]
        if waiting:
            min(waiting, key=lambda text: text.open_from).lapse()
