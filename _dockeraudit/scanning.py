"""A stream's text to findings, beside the relay: lines are joined, scanned and reported, in bounded memory.

runs ─▶ StreamScanner (queue, room) ─▶ TextScanner (lines, carry) ─▶ Scanner ─▶ StreamRecords
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, NamedTuple, Union

from _dockeraudit.rules import Match
from _dockeraudit.scanner import Scanner
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import Decoded, Decoder, decode

CARRY_LIMIT = 64 << 10  # bytes of an unfinished line; a longer one is scanned window by window
CARRY_KEPT = (
    4 << 10
)  # bytes of such a window that the next one begins with, so that no secret is cut
CARRY_CONTEXT = (
    64  # bytes of those that are context only: a token that began before them must not look new
)
KEY_BODY_LIMIT = (
    64 << 10
)  # bytes of a private key kept for its fingerprint; an RSA-16384 key has 13 KiB
OWN_SHARE = 64 << 10  # bytes that each stream may queue for scanning whatever the others do
STREAM_SHARE = 2 << 20  # bytes that one stream may queue
TOTAL_SHARE = 16 << 20  # bytes that all streams may queue beyond their own shares
ROOM_WAIT = 1.0  # seconds that a block waits for room before it passes unscanned
QUICK_SCAN = 0.003  # processor seconds; most blocks take a sixth of that, one full of secrets twice as long. Handing each on costs 20 % more
LONG_LINE = 512  # bytes of a line from which on newlines are found rather than counted
JOB_LIMIT = 256 << 10  # bytes that one scanning job takes, so that busy streams take turns
# Threads. A stream's relaying thread offers blocks and scans them itself once they are delivered, or, as soon as that
# takes long, leaves them to a scanning worker: whoever set `_running` under the stream's lock, so never two at once.
# Locks are held for bookkeeping only.
# Nothing here touches the log's file or the engine: `StreamRecords` never blocks.

KEY_TEXT = re.compile(rb"[A-Za-z0-9+/=]*")
KEY_FIELD = re.compile(rb"[A-Za-z-]{1,64}: [ -~]*")  # RFC 1421 §4.6: Proc-Type, DEK-Info
KEY_END = b"-----END"


class KeyBody:
    """A private key whose header was reported: its body as it passes, for the fingerprint."""

    def __init__(self, handle: Any, header: bytes) -> None:
        self.handle = handle
        self.header = header
        self.text: bytearray | None = bytearray()  # None: longer than KEY_BODY_LIMIT
        self.lines = 0  # the rest of the header's line is the first
        self._full_line = False

    def takes(self, line: bytes) -> bool:
        """Whether the next line is of the body, which it then becomes. White space does not count: logs indent keys."""
        text = line.strip(b" \t\r\n\"',;>|\\")
        if KEY_TEXT.fullmatch(text):
            if 0 < len(text) < 40 and not self._full_line:  # a short line can only be the last one
                return False
            self._full_line = len(text) >= 40
        elif not KEY_FIELD.fullmatch(text):
            return False
        self.lines += 1
        self.add(text)
        return True

    def add(self, text: bytes) -> None:
        """Some more text, as long as it stays below the limit."""
        if self.text is not None and len(self.text) + len(text) <= KEY_BODY_LIMIT:
            self.text += text
        else:
            self.text = None


class OpenMatch(NamedTuple):
    """A match reported before its end was known: where it lies in the carry, and its record."""

    start: int
    end: int
    handle: Any


def count_lines(block: bytes) -> int:
    """The newlines in a block. bytes.count looks at each byte; where lines are long, finding each newline takes a fifth."""
    lines = at = 0
    if block.find(b"\n", 0, LONG_LINE) < 0:
        for _ in range(len(block) // LONG_LINE):
            at = block.find(b"\n", at) + 1
            if not at:
                return lines
            lines += 1
    return lines + block.count(b"\n", at)


class TextScanner:
    """One text (stdout, stderr, tty or stdin of a stream) to findings, the same ones wherever the text was cut.

    Complete lines are scanned as they come. The unfinished one, the carry, waits: for its newline, for silence
    (`settle`), for CARRY_LIMIT, or for the end. A match at the end of an unfinished line may grow: after a silence it
    is reported `partial` and updated later, at CARRY_LIMIT it is left to the next window. Nothing is reported twice: a
    match that begins before what has been decided is dropped.
    """

    def __init__(self, scanner: Scanner, audit: StreamRecords, stream_type: str) -> None:
        self.scan = scanner.scan_lines
        self.audit = audit
        self.stream_type = stream_type
        self.lines = 0  # complete lines so far
        self.carry = bytearray()
        self._decided = 0  # matches that start before this offset of the carry have been dealt with
        self._open: OpenMatch | None = None
        self._key: KeyBody | None = None

    @property
    def held(self) -> int:
        """Bytes kept for later."""
        return len(self.carry) + (len(self._key.text or b"") if self._key else 0)

    def feed(self, data: bytes) -> None:
        """The next bytes of the text."""
        cut = data.rfind(b"\n") + 1
        if cut:
            self._final(bytes(self.carry) + data[:cut] if self.carry else data[:cut])
            self.carry = bytearray(data[cut:])
        else:
            self.carry += data
        while len(self.carry) > CARRY_LIMIT:
            self._window(bytes(self.carry[:CARRY_LIMIT]))

    def settle(self) -> None:
        """Silence: report what the unfinished line holds, and keep it."""
        if self.carry:
            block = bytes(self.carry)
            self._decided = max(self._decided, self._report(block, self.scan(block), final=False))

    def end(self) -> None:
        """The text ends, or is cut: what is left is final."""
        if self.carry:
            self._final(bytes(self.carry))
            self.lines += 1
            self.carry = bytearray()
        if self._key:
            self._finish_key(complete=False)

    def cut(self, newlines: int) -> None:
        """Bytes with so many line ends passed unscanned."""
        self.end()
        self.lines += newlines

    def shrink(self) -> None:
        """Give memory back: decide the unfinished line now, all but its last CARRY_KEPT bytes."""
        if len(self.carry) > CARRY_KEPT:
            self._window(bytes(self.carry))

    def _final(self, block: bytes) -> None:
        """Whole lines, the first of which may have been looked at before."""
        self._report(block, self.scan(block), final=True)
        self.lines += count_lines(block)
        self._decided = 0

    def _window(self, block: bytes) -> None:
        """The beginning of a long line: decide all but its end, which the next window begins with."""
        kept = len(block) - CARRY_KEPT
        limit = kept + CARRY_CONTEXT
        decided = self._report(
            block, [match for match in self.scan(block) if match.start < limit], final=False
        )
        if (
            self._open and self._open.start < kept
        ):  # longer than what is kept: nobody will see its end
            self._withdraw()
        if self._open:
            self._open = self._open._replace(
                start=self._open.start - kept, end=self._open.end - kept
            )
        self._decided = max(decided, self._decided, limit) - kept
        del self.carry[:kept]

    def _report(self, block: bytes, matches: Sequence[Match], final: bool) -> int:
        """Report the block's matches; returns the offset up to which all has been decided."""
        line, counted, before = self.lines + 1, 0, self._open
        skip = max(self._decided, self._key_body(block, 0, final) if self._key else 0)
        for match in matches:
            known = before is not None and match.start < before.end and before.start < match.end
            if match.start < skip and not known:
                continue
            line += block.count(b"\n", counted, match.start)
            counted = match.start
            closed = final or (match.end < len(block) and not match.rule.multiline)
            handle = (
                before.handle if known and before else self._finding(block, match, line, closed)
            )
            self._open = None if closed else OpenMatch(match.start, match.end, handle)
            if known:
                before = None
                if closed and not match.rule.multiline:
                    self._update(block, match, handle)
            skip = match.end
            if closed and match.rule.multiline:
                self._key = KeyBody(handle, block[match.start : match.end])
                skip = self._key_body(block, match.end, final)
        if before is not None:
            self._withdraw(before)
        return skip

    def _finding(self, block: bytes, match: Match, line: int, closed: bool) -> Any:
        """Record a first sight; a key's secret is its body, which has not come yet."""
        secret = None if match.rule.multiline else block[match.secret_start : match.secret_end]
        partial = match.rule.multiline or not closed
        return self.audit.finding(
            self.stream_type, match.rule, block[match.start : match.end], secret, line, partial
        )

    def _update(self, block: bytes, match: Match, handle: Any) -> None:
        secret = block[match.secret_start : match.secret_end]
        self.audit.update(handle, None, block[match.start : match.end], secret, 1, True)

    def _withdraw(self, gone: OpenMatch | None = None) -> None:
        """An open match whose end cannot be told, or that is none now that more of its line has come."""
        gone = gone or self._open
        if gone:
            self.audit.update(gone.handle, None, b"", None, 1, False)
        if gone is self._open:
            self._open = None

    def _key_body(self, block: bytes, pos: int, final: bool) -> int:
        """Walk the key's body from `pos`, line by line; returns where it stops. Unfinished lines are left for later."""
        key = self._key
        while key and pos < len(block) and (final or len(block) > CARRY_KEPT):
            eol = block.find(b"\n", pos) + 1
            line = block[pos : eol or len(block)]
            stop = line.find(KEY_END)
            if stop >= 0:
                key.add(line[:stop].strip())
                key.lines += 1
                self._finish_key(complete=True)
                return pos + len(line)
            if not key.takes(line):
                self._finish_key(complete=False)
                return pos
            pos += len(line)
        return pos

    def _finish_key(self, complete: bool) -> None:
        key, self._key = self._key, None
        if key:
            whole = complete and key.text is not None
            self.audit.update(
                key.handle,
                None,
                key.header,
                bytes(key.text or b"") if whole else None,
                key.lines,
                whole,
            )


class ScanBudget:
    """What all streams share: bytes that they may queue beyond their own shares, and workers."""

    def __init__(self, total: int = TOTAL_SHARE, workers: int = 2) -> None:
        self._left = total
        self._free = workers
        self._lock = threading.Lock()

    @property
    def worker_free(self) -> bool:
        """Whether a job would begin at once."""
        return self._free > 0

    def busy(self, jobs: int) -> None:
        """So many jobs more, or less, are under way."""
        with self._lock:
            self._free -= jobs

    def take(self, size: int) -> bool:
        """Take so many bytes (give them back if negative), or none and False."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class Skipped(NamedTuple):
    """In the queue, for bytes that passed unscanned: how many line ends were in them."""

    stream_type: str
    newlines: int


class StreamScanner:
    """One audited exchange: decodes what its relaying thread delivered, and has it scanned, in order and bounded.

    `offer` and `silence` are for the relaying thread alone. Each never blocks longer than ROOM_WAIT, or, with
    `patient` (--on-audit-failure deny), until there is room; `abandoned()` ends the wait.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        room: ScanBudget,
        scanner: Scanner,
        audit: StreamRecords,
        abandoned: Callable[[], bool],
        on_error: Callable[[], None],
        patient: bool = False,
    ) -> None:
        self.audit = audit
        self._executor = executor
        self._room = room
        self._scanner = scanner
        self._abandoned = abandoned
        self._on_error = on_error
        self._patient = patient
        self._texts: dict[str, TextScanner] = {}
        self._queue: deque[Any] = deque()
        self._queued = 0  # bytes in the queue
        self._held = 0  # bytes in carries, as of the last job
        self._charged = 0  # bytes taken from the common room
        self._running = False
        self._slow = False  # the last scan took longer than QUICK_SCAN
        self._closing: dict[str, Any] | None = None
        self._room_made = threading.Condition()
        self._skipping = 0  # bytes passed unscanned in the current gap; its beginning
        self._skipping_since = 0.0
        self.restless = False  # an unfinished line has not been looked at
        self.bytes = 0
        self.unscanned = 0

    @property
    def waiting(self) -> int:
        """Bytes that have been delivered and not scanned yet."""
        return self._queued

    # -- the relaying thread's side

    def offer(self, decoder: Decoder, payload: Union[bytes, Decoded]) -> None:
        """Audit bytes that have been delivered."""
        decoded = payload if isinstance(payload, Decoded) else decode(decoder, payload)
        self.bytes += decoded.size
        self.audit.progress(decoded.size, decoded.frames)
        for stream_type, data in decoded.runs:
            self._enqueue(stream_type, data)
        self.restless = True

    def silence(self) -> None:
        """Nothing has come for SILENCE seconds: look at unfinished lines."""
        self.restless = False
        self._put(None, 0)

    def close(self, decoders: Sequence[Decoder], framing: str, reason: str) -> None:
        """The stream has ended: scan what is left, then write its `stream_close`."""
        for decoder in decoders:
            for stream_type, data in decoder.end():
                self._enqueue(stream_type, data)
        self._end_gap()
        frames = sum(decoder.frames for decoder in decoders)
        self._closing = {
            "framing": framing,
            "nbytes": self.bytes,
            "frames": frames,
            "reason": reason,
        }
        self._put(None, 0)

    def _enqueue(self, stream_type: str, data: bytes) -> None:
        if not self._admitted(len(data)):
            self._skip(stream_type, data)
            return
        self._put((stream_type, data), len(data))

    def _put(self, item: Any, size: int) -> None:
        """Queue an item; scan it here if nothing else of the stream is going on and its scans are quick, else see that a job runs.

        Those of a slow stream are scanned here too while all workers are busy: to queue them would not make them sooner,
        and 32 such streams would hold 18 MiB.
        """
        with self._room_made:
            self._queue.append(item)
            self._queued += size
            if self._running:
                return
            self._running = True
        if len(self._queue) == 1 and not (self._slow and self._room.worker_free):
            self._job()
        else:
            self._submit()

    def _admitted(self, size: int) -> bool:
        """Whether there is room for so many bytes, after a wait if need be."""
        with self._room_made:
            if self._skipping and self._queued > STREAM_SHARE // 2:
                return False
            if not self._charge(size):
                deadline = time.monotonic() + ROOM_WAIT
                while not self._charge(size):
                    if self._abandoned() or (time.monotonic() > deadline and not self._patient):
                        return False
                    self._room_made.wait(0.05)
        self._end_gap()
        return True

    def _charge(self, size: int) -> bool:
        """Account for `size` more bytes (under the lock): the own share first, then the common room."""
        total = self._queued + self._held + size
        if size and total > STREAM_SHARE:
            return False
        due = max(0, total - OWN_SHARE) - self._charged
        if due == 0 or self._room.take(due):
            self._charged += due
            return True
        return False

    def _skip(self, stream_type: str, data: bytes) -> None:
        if not self._skipping:
            self._skipping_since = time.time()
        self._skipping += len(data)
        self.unscanned += len(data)
        with self._room_made:
            last = self._queue[-1] if self._queue else None
            newlines = data.count(b"\n")
            if isinstance(last, Skipped) and last.stream_type == stream_type:
                self._queue[-1] = last._replace(newlines=last.newlines + newlines)
            else:
                self._queue.append(Skipped(stream_type, newlines))

    def _end_gap(self) -> None:
        if self._skipping:
            self.audit.gap(self._skipping, self._skipping_since)
            self._skipping = 0

    # -- the scanning side

    def _submit(self) -> None:
        self._room.busy(1)
        try:
            self._executor.submit(self._work)
        except RuntimeError:  # the executor has been shut down: scan here, rather than not at all
            self._work()

    def _work(self) -> None:
        try:
            self._job()
        finally:
            self._room.busy(-1)

    def _job(self) -> None:
        """Scan up to JOB_LIMIT bytes of the queue, then hand on, so that streams take turns."""
        taken = 0
        while True:
            with self._room_made:
                more = bool(self._queue)
                if not more or taken >= JOB_LIMIT:
                    self._running = more
                    break
                item = self._queue.popleft()
            self._scan(item)
            size = len(item[1]) if type(item) is tuple else 0
            taken += size
            with self._room_made:
                self._queued -= size
                self._charge(0)
                self._room_made.notify()
        if more:
            self._submit()

    def _scan(self, item: Any) -> None:
        """Scan one item of the queue; whatever goes wrong with it is recorded, and the stream goes on behind it."""
        begun = time.thread_time()
        try:
            if item is None:
                self._settle()
            elif type(item) is Skipped:
                self._text(item.stream_type).cut(item.newlines)
            else:
                self._text(item[0]).feed(item[1])
        except Exception as error:  # by its kind alone: its text may hold what it choked on
            self.audit.error(type(error).__name__)
            self._start_afresh(item)
            self._on_error()
        self._slow = time.thread_time() - begun > QUICK_SCAN
        self._held = sum(text.held for text in self._texts.values())
        if self._held > OWN_SHARE:
            for text in self._texts.values():
                text.shrink()

    def _start_afresh(self, item: Any) -> None:
        """Scanners without what the failed ones were holding; that, and the item they failed on, is counted."""
        stream_type, data = item if type(item) is tuple else ("", b"")
        self.unscanned += max(
            self._held + len(data), sum(failed.held for failed in self._texts.values())
        )
        for name, failed in self._texts.items():
            fresh = self._texts[name] = TextScanner(self._scanner, self.audit, name)
            fresh.lines = failed.lines + (data.count(b"\n") if name == stream_type else 0)

    def _settle(self) -> None:
        """A silence, or the end of the stream once all before it has been scanned."""
        if self._closing is None or self._queue:
            for text in self._texts.values():
                text.settle()
            return
        try:
            for text in self._texts.values():
                text.end()
        finally:
            lines = sum(text.lines for text in self._texts.values())
            self.audit.close(lines=lines, unscanned=self.unscanned, **self._closing)

    def _text(self, stream_type: str) -> TextScanner:
        text = self._texts.get(stream_type)
        if text is None:
            text = self._texts[stream_type] = TextScanner(self._scanner, self.audit, stream_type)
        return text
