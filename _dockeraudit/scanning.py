"""A stream's pieces to findings, beside the relay: in order, and bounded in bytes.

delivered bytes ─▶ decoder ─▶ pieces ─▶ StreamScanner (queue, budget) ─▶ TextScanner ─▶ records
                                             └─▶ blocks ahead ─▶ Workers ─▶ matches ─┘
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Protocol, Union

from _dockeraudit.ownsecrets import (
    AnyScanner,
    OwnSecrets,
    secret_of,
    with_own_secrets,
)
from _dockeraudit.rules import Match
from _dockeraudit.scanner import Scanner
from _dockeraudit.streams import (
    DETAILS,
    Decoded,
    Decoder,
    Piece,
    StreamDemuxer,
    decode,
    stream_type_of,
)
from _dockeraudit.textscanner import (
    FRAMES,
    RAW,
    FindingRecords,
    Lines,
    Reading,
    TextScanner,
    TwoReadings,
    reading_of,
)
from _dockeraudit.workers import LEAST_BLOCK, Job, Workers

OWN_SHARE = 64 << 10  # bytes that each stream may queue for scanning whatever the others do
STREAM_SHARE = 2 << 20  # bytes that one stream may queue
TOTAL_SHARE = 16 << 20  # bytes that all streams may queue beyond their own shares
ROOM_WAIT = 1.0  # seconds that a block waits for room before it passes unscanned
INSPECT_WAIT = 1.0  # seconds from its opening that a stream waits for its container's inspect
QUICK_SCAN = 0.003  # processor seconds; a stream whose last scan took longer is left to a worker
JOB_LIMIT = 256 << 10  # bytes that one scanning job takes, so that busy streams take turns
JOINED = 256 << 10  # bytes that wait behind lines ahead before they are searched, too
ENTER = re.compile(rb"\r(?!\n)")  # what the Enter key of a terminal sends
# Threads. The relaying thread offers blocks. Who scans is whoever sets `_running` under the
# stream's lock, so never two at once: the relaying thread itself, once it has delivered, or a
# thread of the executor. `inspected` comes from a thread of the look-ups, and has the executor scan
# what waited for it. Where there are workers, a large block is searched in one of them, and what
# follows goes ahead meanwhile; whoever scans takes up its matches in order. The worker's thread
# calls `_landed`, which has the executor go on if nobody else will.
# Locks are held for bookkeeping only.
# Nothing here touches the log's file or the engine: `StreamRecords` never blocks.


class ScanRecords(FindingRecords, Protocol):
    """Where a scan reports to: a stream's records."""

    def progress(self, nbytes: int, frames: int) -> None:
        """So much has flowed."""

    def gap(self, nbytes: int, since: float) -> None:
        """So many bytes passed unscanned."""

    def error(self, text: str) -> None:
        """A scan raised."""

    def close(
        self, *, framing: str, nbytes: int, frames: int, lines: int, unscanned: int, reason: str
    ) -> None:
        """All has been scanned."""


class ScanBudget:
    """Bytes that many share: streams beyond their own shares, or large heads under way."""

    def __init__(self, total: int = TOTAL_SHARE) -> None:
        self._left = total
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take so many bytes (give them back if negative), or none and False."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class Skipped:
    """In the queue: bytes of a text passed unscanned here, with so many line ends."""

    def __init__(self, text: str, newlines: int) -> None:
        self.text = text
        self.newlines = newlines


class Dropped:
    """In the queue: of two readings, this one was wrong."""

    def __init__(self, reading: str) -> None:
        self.reading = reading


class Reread:
    """In the queue: what follows as raw text has given these pieces before, as frames."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces


class Ahead:
    """Lines whose matches are being found, while what follows them is taken from the queue."""

    def __init__(self, size: int, text: TextScanner, lines: Lines | None) -> None:
        self.size = size  # bytes of the queue
        self.text = text
        self.lines = lines
        self.job: Job | None = None
        self.found: list[Match] = []

    def done(self) -> bool:
        """Whether its matches are known."""
        return self.job is None or self.job.done()

    def decide(self) -> None:
        """Report them."""
        if self.lines is not None:
            self.text.decide(self.lines, self.job.matches() if self.job else self.found)


Item = Union[Piece, Skipped, Dropped, Reread, None]  # None: a silence, or the end


class Idle:
    """There is nothing to do until a worker is done."""


Step = Union[Item, Ahead, Idle]


class StreamScanner:
    """One audited exchange: decodes what was delivered, and has it scanned, in order and bounded.

    `offer`, `silence` and `close` are for the relaying thread alone. Each blocks at most ROOM_WAIT,
    or, with `patient` (--on-audit-failure deny), until there is room; `abandoned()` ends the wait.

    Where only the container's inspect can tell how its output is framed, the decoder keeps the
    bytes until `inspected` was called, at most OWN_SHARE of them and for INSPECT_WAIT. Then they
    are read both ways, until the answer comes after all.

    `share`: bytes that may be queued.

    With `awaits_own` nothing is scanned before `inspected` has brought the container's own secrets,
    for INSPECT_WAIT, and as long as there is room for what waits.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        budget: ScanBudget,
        scanner: Scanner,
        records: ScanRecords,
        abandoned: Callable[[], bool],
        on_error: Callable[[], None],
        patient: bool = False,
        share: int = STREAM_SHARE,
        awaits_own: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self.records = records
        self.restless = False  # an unfinished line has not been looked at
        self.bytes = self.unscanned = 0
        self._executor = executor
        self._workers = workers if workers and workers.count else None
        self._budget = budget
        self._rules = scanner
        self._scanner: AnyScanner = scanner  # the rules, and the container's own secrets
        self._abandoned = abandoned
        self._on_error = on_error
        self._patient = patient
        self._share = share
        self._changed = threading.Condition()  # its lock guards what two threads change
        self._queue: deque[Item] = deque()
        self._ahead: deque[Ahead] = deque()
        self._queued = 0  # bytes in the queue, and of lines ahead
        self._held = 0  # bytes in carries, as of the last item
        self._charged = 0  # bytes taken from the budget
        self._running = False
        self._handed_on = False  # a job is queued for a worker
        self._waits = awaits_own  # nothing is scanned yet
        self._slow = False  # the last scan took longer than QUICK_SCAN
        self._inspected = False
        self._tty: bool | None = None
        self._give_up = time.monotonic() + INSPECT_WAIT
        #: the output's decoder, while `inspected` may change how it reads
        self._undecided: StreamDemuxer | None = None
        self._skipping, self._skipping_since = 0, 0.0  # bytes passed unscanned in the current gap
        self._texts: dict[str, TextScanner] = {}
        self._readings: TwoReadings | None = None
        self._read_twice = 0  # line ends that a broken stream's text has a second time
        self._closing: dict[str, Any] | None = None

    @property
    def waiting(self) -> int:
        """Bytes that have been delivered and not scanned yet."""
        return self._queued + (self._undecided.held if self._undecided else 0)

    def inspected(self, tty: bool | None, own: OwnSecrets | None = None) -> None:
        """The container's inspect says whether it has a TTY, and what its secrets are. Any thread.

        None: it cannot say. Secrets that come late are searched for from then on.
        """
        with self._changed:
            self._inspected, self._tty = True, tty
            if own is not None:
                self._scanner = with_own_secrets(self._rules, own)
            self._changed.notify_all()
        self._wait_no_longer()

    def _wait_no_longer(self) -> None:
        """Scan what has waited for the container's own secrets."""
        with self._changed:
            begin = self._waits and bool(self._queue) and not self._running
            self._waits = False
            self._running = self._running or begin
        if begin:
            self._submit()

    def _look_at_time(self) -> None:
        """Wait no longer once INSPECT_WAIT is over."""
        if self._waits and time.monotonic() >= self._give_up:
            self._wait_no_longer()

    # -- the relaying thread's side

    def offer(self, decoder: Decoder, payload: Union[bytes, Decoded]) -> None:
        """Audit bytes that have been delivered."""
        self._look_at_time()
        if isinstance(decoder, StreamDemuxer) and decoder.undecided:
            self._undecided = decoder
            self._decide(decoder, len(payload))
        decoded = payload if isinstance(payload, Decoded) else decode(decoder, payload)
        self.bytes += decoded.size
        self.records.progress(decoded.size, decoded.frames)
        self._enqueue(decoder, decoded.pieces)
        self.restless = True

    def silence(self) -> None:
        """Nothing has come for SILENCE seconds: look at unfinished lines."""
        self._look_at_time()
        if self._undecided is not None:
            self._decide(self._undecided)
        unframed = self._undecided is not None and self._undecided.framing is None
        self.restless = unframed or self._waits
        if not self._waits:
            self._put(None, 0)

    def close(self, decoders: Sequence[Decoder], reason: str) -> None:
        """The stream has ended: scan what is left, then write its `stream_close`.

        The first decoder is the output's. Where bytes wait for `inspected`, this does too.
        """
        output = decoders[0]
        self._await_inspection(output)
        if isinstance(output, StreamDemuxer) and output.undecided:
            self._give_up = 0.0
            self._decide(output)
        self._wait_no_longer()
        for decoder in decoders:
            self._enqueue(decoder, decoder.end())
        self._end_gap()
        self._closing = {
            "framing": output.framing or "unknown",
            "nbytes": self.bytes,
            "frames": sum(decoder.frames for decoder in decoders),
            "reason": "cut_frame" if reason == "end" and output.inside_frame else reason,
        }
        self._put(None, 0)

    def _await_inspection(self, output: Decoder) -> None:
        undecided = isinstance(output, StreamDemuxer) and output.undecided
        unframed = undecided and output.framing is None and bool(output.held)
        if unframed or (self._waits and self._queue):
            with self._changed:
                left = max(0.0, self._give_up - time.monotonic())
                self._changed.wait_for(lambda: self._inspected, left)

    def _decide(self, decoder: StreamDemuxer, coming: int = 0) -> None:
        """Tell the decoder how the output is framed, once that is known, or nothing can wait.

        `coming`: bytes that would have to wait, too.
        """
        before, frames = decoder.framing, decoder.frames
        room = decoder.held + coming <= OWN_SHARE
        if before is None and room and not self._inspected and time.monotonic() < self._give_up:
            return
        if before is not None and self._tty is None:
            return
        pieces = decoder.decide(self._tty)
        self.records.progress(0, decoder.frames - frames)
        if decoder.framing == "unknown":
            self._readings = TwoReadings(self.records)
        else:
            self._undecided = None
            if before is not None:
                self._put(Dropped(RAW if decoder.framing == "multiplexed" else FRAMES), 0)
        self._enqueue(decoder, pieces)

    def _enqueue(self, decoder: Decoder, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if piece[0] == "tty" and isinstance(decoder, StreamDemuxer) and decoder.newly_broken:
                self._put(Reread(decoder.recent()), 0)
            if self._admitted(len(piece[1])):
                self._put(piece, len(piece[1]))
            else:
                self._skip(piece)

    def _put(self, item: Item, size: int) -> None:
        """Queue an item; scan it here if the stream is idle and its scans are quick, or in a job.

        To hand each item on costs 8 % of a stream's rate. A scan that is not quick would hold the
        relay up, and a stream that is full of secrets is 1.3 times faster beside a worker.
        """
        with self._changed:
            self._queue.append(item)
            self._queued += size
            if self._running or self._waits:
                return
            self._running = True
            here = len(self._queue) == 1 and not self._slow
        if here:
            self._job()
        else:
            self._submit()

    def _admitted(self, size: int) -> bool:
        """Whether there is room for so many bytes, after a wait if need be."""
        with self._changed:
            if self._skipping and self._queued > self._share // 2:
                return False
            has_room = self._charge(size)
        if not has_room:
            self._wait_no_longer()
            has_room = self._await_room(size)
        if has_room:
            self._end_gap()
        return has_room

    def _await_room(self, size: int) -> bool:
        """Wait until there is room for so many bytes; False if there is none in time."""
        deadline = time.monotonic() + ROOM_WAIT
        with self._changed:
            while not self._charge(size):
                if self._abandoned() or (time.monotonic() > deadline and not self._patient):
                    return False
                self._changed.wait(0.05)
        return True

    def _charge(self, size: int) -> bool:
        """Account for `size` more bytes (under the lock): the own share first, then the budget."""
        total = self._queued + self._held + size
        if size and total > self._share:
            return False
        due = max(0, total - OWN_SHARE) - self._charged
        if due == 0 or self._budget.take(due):
            self._charged += due
            return True
        return False

    def _skip(self, piece: Piece) -> None:
        """Let a piece pass unscanned, and count it."""
        text, data = piece
        if not self._skipping:
            self._skipping_since = time.time()
        self._skipping += len(data)
        newlines = data.count(b"\n")
        with self._changed:
            self.unscanned += len(data)
            last = self._queue[-1] if self._queue else None
            if isinstance(last, Skipped) and last.text == text:
                last.newlines += newlines
            else:
                self._queue.append(Skipped(text, newlines))

    def _end_gap(self) -> None:
        if self._skipping:
            self.records.gap(self._skipping, self._skipping_since)
            self._skipping = 0

    # -- the scanning side

    def _submit(self) -> None:
        """Have a worker go on; scan here if none can, rather than not at all.

        An executor that has been shut down takes no job. One that can start no thread raises, too,
        and keeps the job.
        """
        self._handed_on = True
        try:
            self._executor.submit(self._work)
        except RuntimeError:
            self._work()

    def _work(self) -> None:
        """Go on, unless another thread does already."""
        with self._changed:
            handed_on, self._handed_on = self._handed_on, False
        if handed_on:
            self._job()

    def _job(self) -> None:
        """Scan up to JOB_LIMIT bytes of the queue, then hand on, so that streams take turns."""
        taken = 0
        while True:
            with self._changed:
                step = self._next_step() if taken < JOB_LIMIT else Idle()
                if isinstance(step, Idle):
                    more = taken >= JOB_LIMIT and self._has_step()
                    self._running = more
                    break
            size = self._scan(step)
            taken += size or LEAST_BLOCK
            with self._changed:
                self._queued -= size
                self._charge(0)
                self._changed.notify_all()
        if more:
            self._submit()

    def _has_step(self) -> bool:
        """Whether something can be done now (under the lock)."""
        if not self._ahead:
            return bool(self._queue)
        if self._ahead[0].done():
            return True
        waiting = sum(len(item[1]) for item in self._queue if isinstance(item, tuple))
        return bool(self._queue) and waiting >= JOINED and self._may_go_ahead(self._queue[0])

    def _next_step(self) -> Step:
        """What comes next (under the lock): lines whose matches are known, an item, or Idle."""
        if not self._has_step():
            return Idle()
        if self._ahead and self._ahead[0].done():
            return self._ahead.popleft()
        item = self._queue.popleft()
        return self._joined(item) if self._may_go_ahead(item) else item

    def _joined(self, item: Item) -> Item:
        """A piece with those of its text that wait behind it: large blocks cost a worker less."""
        assert isinstance(item, tuple)
        name, parts, size = item[0], [item[1]], len(item[1])
        while self._queue and size < JOINED:
            behind = self._queue[0]
            if not (isinstance(behind, tuple) and behind[0] == name and b"\n" in behind[1]):
                break
            if not self._may_go_ahead(behind):
                break
            self._queue.popleft()
            parts.append(behind[1])
            size += len(behind[1])
        return item if len(parts) == 1 else (name, b"".join(parts))

    def _may_go_ahead(self, item: Item) -> bool:
        """Whether an item can be taken before the lines ahead of it have been searched."""
        if self._workers is None or not isinstance(item, tuple) or item[0] == "stdin":
            return False
        if self._held > OWN_SHARE:  # to be shrunk, once nothing is ahead
            return False
        text = self._texts.get(item[0])
        return text is not None and not text.overflows(item[1])

    def _scan(self, step: Step) -> int:
        """Do one step; how many bytes of the queue it is done with.

        If that fails, record it; the stream goes on.
        """
        begun = time.thread_time()
        size = len(step[1]) if isinstance(step, tuple) else 0
        ahead = False
        try:
            if isinstance(step, Ahead):
                size = step.size
                step.decide()
            else:
                ahead = isinstance(step, tuple) and self._begin(step)
                if not ahead:
                    self._take(step)
        except Exception as error:  # by its kind alone: its text may hold what it choked on
            self.records.error(type(error).__name__)
            size += self._start_afresh(step)
            self._on_error()
        self._slow = time.thread_time() - begun > QUICK_SCAN or (ahead and self._slow)
        self._held = sum(text.held for text in self._texts.values())
        if self._held > OWN_SHARE and not self._ahead:
            for text in self._texts.values():
                text.shrink()
        return 0 if ahead else size

    def _begin(self, piece: Piece) -> bool:
        """Have a worker search a block, or search it here if it is small.

        False if the piece is to be scanned as it comes: nothing is ahead, or it cannot be taken.
        """
        if not (self._ahead or len(piece[1]) >= LEAST_BLOCK) or not self._may_go_ahead(piece):
            return False
        assert self._workers is not None
        text = self._text(piece[0])
        ahead = Ahead(len(piece[1]), text, text.next_lines(piece[1]))
        lines = ahead.lines
        if lines is not None:
            if len(lines.block) >= LEAST_BLOCK:
                ahead.job = self._workers.submit(text.scanner, lines.block, self._landed)
            if ahead.job is None:
                ahead.found = text.scanner.scan_lines(lines.block)
        with self._changed:
            self._ahead.append(ahead)
        return True

    def _landed(self) -> None:
        """A worker is done: have the executor go on if nobody goes on otherwise.

        While a stream is busy its relaying thread does, at the next block, unless it waits for
        room.
        """
        with self._changed:
            ahead = self._ahead
            if self._running or not ahead or not ahead[0].done():
                return
            if not ahead[-1].done() and self._queued <= self._share // 2:
                return
            self._running = True
        self._submit()

    def _take(self, item: Step) -> None:
        if isinstance(item, tuple):
            name, data = item
            self._text(name).feed(ENTER.sub(b"\n", data) if name == "stdin" else data)
        elif item is None:
            self._settle()
        elif isinstance(item, Skipped):
            self._text(item.text).cut(item.newlines)
        elif isinstance(item, Dropped):
            self._drop(item.reading)
        elif isinstance(item, Reread):
            self._expect(item.pieces)

    def _drop(self, reading: str) -> None:
        """Forget the texts of a reading that turned out to be wrong."""
        for name in [name for name in self._texts if reading_of(name) == reading]:
            del self._texts[name]

    def _expect(self, pieces: Sequence[Piece]) -> None:
        """The text that follows, of a broken stream, was read as frames before: these pieces."""
        self._readings = TwoReadings(self.records)
        for name, data in pieces:
            self._read_twice += 0 if name.endswith(DETAILS) else data.count(b"\n")
            for match in self._scanner.scan_lines(data):
                self._readings.expect(match.rule, secret_of(data, match))

    def _start_afresh(self, failed: Step) -> int:
        """Scanners without what the old ones held; that, and what has failed, are counted.

        So are the lines ahead; returns the bytes of those.
        """
        name, data = failed if isinstance(failed, tuple) else ("", b"")
        held = sum(text.held for text in self._texts.values())
        with self._changed:
            ahead = list(self._ahead)
            self._ahead.clear()
            size = sum(each.size for each in ahead)
            lost = size + (failed.size if isinstance(failed, Ahead) else len(data))
            self.unscanned += max(self._held + lost, held)
        if isinstance(failed, Ahead):
            ahead.insert(0, failed)
        for each, old in self._texts.items():
            fresh = TextScanner(self._scanner, old.records, old.stream_type)
            fresh.lines = old.lines + (data.count(b"\n") if each == name else 0)
            for lines in (one.lines for one in ahead if one.text is old):
                fresh.lines += lines.block.count(b"\n", 0, lines.names) if lines else 0
            self._texts[each] = fresh
        return size

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
            self.records.close(lines=self._lines(), unscanned=self.unscanned, **self._closing)

    def _lines(self) -> int:
        """The lines of all texts, those that were read twice once."""
        unknown = self._closing is not None and self._closing["framing"] == "unknown"
        counted = (
            text.lines
            for name, text in self._texts.items()
            if not name.endswith(DETAILS) and not (unknown and reading_of(name) == FRAMES)
        )
        return max(0, sum(counted) - self._read_twice)

    def _text(self, name: str) -> TextScanner:
        text = self._texts.get(name)
        if text is None:
            reading = reading_of(name)
            records: FindingRecords = self.records
            if self._readings and reading:
                records = Reading(self._readings, reading)
            text = TextScanner(self._scanner, records, stream_type_of(name))
            self._texts[name] = text
        elif text.scanner is not self._scanner:
            text.use(self._scanner)
        return text
