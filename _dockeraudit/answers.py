"""Answers and bodies to findings, beside the relay: each is looked at once its client has it.

    payload ─▶ AnswerScan: kept until its end ─▶ seen before, byte for byte? ─▶ what was found then
                      │ endless, or too long            └▶ else, in a quiet moment, TextScanner
                      └▶ StreamScanner, as it comes                      │
                                         AnswerPlaces (answerrecords.py) ◀┘

What waits to be scanned counts against the budget that all streams share. What finds no room is
counted as unscanned; nothing here ever holds the relay up.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, NamedTuple

from _dockeraudit.answerrecords import Place, Sighting
from _dockeraudit.answertext import (
    AnswerDecoder,
    answer_decoder,
    body_decoder,
    environment_in,
    query_text,
    shows_environment,
    subject_of,
)
from _dockeraudit.auditlog import AuditLog
from _dockeraudit.ownsecrets import AnyScanner, OwnSecrets, with_own_secrets
from _dockeraudit.records import redact_bytes
from _dockeraudit.routes import FLOWING_ANSWERS, Route
from _dockeraudit.rules import Rule
from _dockeraudit.scanner import Scanner
from _dockeraudit.scanning import OWN_SHARE, TOTAL_SHARE, ScanBudget, StreamScanner
from _dockeraudit.secretsmemory import SecretsMemory
from _dockeraudit.streams import UNDECODED, Decoded, Piece, stream_type_of
from _dockeraudit.text import SHORT_ID
from _dockeraudit.textscanner import TextScanner

MAX_KEPT = 8 << 20  # bytes of an answer that is kept until its end; 4,000 containers in a list
QUICK_ANSWER = 8 << 10  # bytes; whether a longer answer has been seen before is not asked at once
QUIET_TIME = (
    0.01  # seconds without a request for an answer: the next may come right behind the last
)
LONGEST_WAIT = 0.1  # seconds that an answer waits for such a moment
SCAN_STEP = 256 << 10  # bytes that are read at once
SEEN_ANSWERS = 16_384  # digests of answers, and secrets in them, that are remembered: some 8 MiB
NAMES_KEPT = 1_024  # containers whose names are remembered
NAME_AGE = 60.0  # seconds for which a name is believed: a container can get another one
LEAST_SEVERITIES = ("HIGH", "MEDIUM")  # answers are full of addresses that are no leak

# Threads. The relaying thread offers payloads and closes a scan; a short answer that has been seen
# before it counts itself. A thread of its own scans the rest: a client that asks for one thing
# after another would wait for a scan before its next answer. Workers scan what flows. The tables
# that scans share have locks of their own, held for bookkeeping only.


class SeenAnswers:
    """What was found in answers, by their digest; the longest unseen goes first."""

    def __init__(self, most: int = SEEN_ANSWERS) -> None:
        self._most = most
        self._found: OrderedDict[bytes, tuple[Sighting, ...]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, digest: bytes) -> tuple[Sighting, ...] | None:
        """What such an answer holds; None if none has been scanned."""
        with self._lock:
            found = self._found.get(digest)
            if found is not None:
                self._found.move_to_end(digest)
            return found

    def put(self, digest: bytes, found: tuple[Sighting, ...]) -> None:
        """An answer has been scanned."""
        with self._lock:
            if digest in self._found or len(found) > self._most // 4:
                return
            self._found[digest] = found
            self._size += 1 + len(found)
            while self._size > self._most:
                self._size -= 1 + len(self._found.popitem(last=False)[1])

    def clear(self) -> None:
        """Other rules are in force."""
        with self._lock:
            self._found.clear()
            self._size = 0


class KnownNames:
    """Ids and names of containers as answers and look-ups have told them of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, str, str | None]] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, full_id: str | None, name: str | None) -> None:
        """A container is called so."""
        if full_id is None or name is None:
            return
        told = (self._clock(), full_id, name)
        with self._lock:
            for key in (full_id, full_id[:SHORT_ID], name):
                self._known[key] = told
                self._known.move_to_end(key)
            while len(self._known) > 3 * NAMES_KEPT:
                self._known.popitem(last=False)

    def find(self, asked: str) -> tuple[str | None, str | None]:
        """Id and name of what is asked for by either; (None, None) if that is not known."""
        with self._lock:
            told, full_id, name = self._known.get(asked, (0.0, None, None))
        fresh = full_id is not None and self._clock() - told < NAME_AGE
        return (full_id, name) if fresh else (None, None)


class QuietJobs:
    """Does jobs in its own thread: each when nobody asks for anything, or after LONGEST_WAIT."""

    def __init__(self) -> None:
        self.asked = 0.0  # when something was asked for last
        self._jobs: deque[tuple[float, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def submit(self, job: Callable[[], None]) -> None:
        """Have it done soon; at once while we stop, or where no thread can start."""
        with self._changed:
            accepted = not self._stopping and self._started()
            if accepted:
                self._jobs.append((time.monotonic(), job))
                self._changed.notify()
        if not accepted:
            job()

    def stop(self, deadline: float) -> None:
        """Do what is left at once, until `deadline` (monotonic)."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _started(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="answers", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # at the limit of threads
                return False
            self._thread = thread
        return True

    def _work(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            job()

    def _next(self) -> Callable[[], None] | None:
        """Wait for a job and its moment; None: there will be no more."""
        with self._changed:
            while not self._stopping:
                wait = self._until_due()
                if wait is not None and wait <= 0:
                    break
                self._changed.wait(wait)
            return self._jobs.popleft()[1] if self._jobs else None

    def _until_due(self) -> float | None:
        """Seconds until the next job is due; None without one."""
        if not self._jobs:
            return None
        return min(self.asked + QUIET_TIME, self._jobs[0][0] + LONGEST_WAIT) - time.monotonic()


class AnswerFindings:
    """What scanners find in one answer, as sightings, once each finding is final.

    Left out are LOW findings and placeholders: an answer has dozens of either.
    """

    def __init__(self, log: AuditLog, place: Place, report: Callable[[Sighting], Any]) -> None:
        self._log = log
        self._place = place
        self._report = report
        self._skipped = 0

    def finding(
        self,
        stream_type: str,
        rule: Rule,
        match: bytes,
        secret: bytes | None,
        line: int,
        partial: bool = False,
        placeholder: bool = False,
        env: str | None = None,
    ) -> OpenFinding | None:
        """A match; what is partial waits for its update."""
        found = OpenFinding(stream_type, rule, match, line, placeholder, env)
        if partial:
            return found
        self._final(found, match, secret, True)
        return None

    def update(
        self,
        handle: OpenFinding,
        rule: Rule | None,
        match: bytes,
        secret: bytes | None,
        lines: int,
        complete: bool,
        env: str | None = None,
    ) -> None:
        """What a partial match is now that all of it is known, or that its end never comes."""
        found = handle._replace(rule=rule or handle.rule, env=env or handle.env)
        self._final(found, match or handle.match, secret, complete)

    def _final(self, found: OpenFinding, match: bytes, secret: bytes | None, whole: bool) -> None:
        if found.placeholder or found.rule.severity not in LEAST_SEVERITIES:
            return
        fingerprint = None if secret is None else self._log.fingerprinter.of(secret)
        redacted = redact_bytes(match, partial=not whole)
        rule, stream_type, line, env = found.rule, found.stream_type, found.line, found.env
        self._report(Sighting(rule, stream_type, redacted, fingerprint, line, not whole, env=env))

    # -- for StreamScanner

    def progress(self, nbytes: int, frames: int) -> None:
        """Answers are no streams, and not counted as such."""

    def gap(self, nbytes: int, since: float) -> None:
        """So many bytes passed unscanned."""
        self._skipped += nbytes
        self._log.answers.unscanned(self._place, nbytes)

    def error(self, text: str) -> None:
        """A scan raised."""
        record_error(self._log, self._place, text)

    def close(
        self, *, framing: str, nbytes: int, frames: int, lines: int, unscanned: int, reason: str
    ) -> None:
        """The answer has ended: count what a failed scan left out."""
        if unscanned > self._skipped:
            self.gap(unscanned - self._skipped, 0.0)


def record_error(log: AuditLog, place: Place, kind: str) -> None:
    """A scan raised; `kind`: of the exception, whose text may hold what it choked on."""
    fields = {"stream": None, "endpoint": place.endpoint, "client": place.client, "error": kind}
    log.accept_for(place.client, "scan_error", fields)


class OpenFinding(NamedTuple):
    """A match as it was found first."""

    stream_type: str
    rule: Rule
    match: bytes
    line: int
    placeholder: bool
    env: str | None = None


class AnswerAudit:
    """What the scans of all answers share.

    `masked` makes a name fit for a record. `secrets` are the containers' own, as far as an answer
    or a look-up for a stream has told them: the engine is asked for nothing more.
    """

    def __init__(
        self,
        log: AuditLog,
        budget: ScanBudget,
        executor: ThreadPoolExecutor,
        masked: Callable[[str], str],
        secrets: SecretsMemory,
    ) -> None:
        self.log, self.budget, self.executor, self.masked = log, budget, executor, masked
        self.secrets = secrets
        self.seen = SeenAnswers()
        self.names = KnownNames()
        self.jobs = QuietJobs()
        self._scanner: Scanner | None = None

    def open(
        self, route: Route, client: Mapping[str, Any], scanner: Scanner, mask: str | None = None
    ) -> AnswerScan:
        """A request begins whose answer, or body, may hold secrets."""
        self.jobs.asked = time.monotonic()
        if scanner is not self._scanner:
            self._scanner = scanner
            self.seen.clear()
        return AnswerScan(self, route, client, scanner, mask)

    def place(self, route: Route, client: Mapping[str, Any], answer: bytes) -> Place:
        """Where secrets in the answer to a request, or in its body, are seen."""
        full_id, name = self._subject(route, answer)
        if route.kind == "exec" and full_id:  # the container's id, which an exec's inspect tells
            kind, name = None, self.names.find(full_id)[1]
        elif route.kind == "container":
            kind = None
            self.names.note(full_id, name)
            if full_id is None:
                full_id, name = self.names.find(route.name)
        else:
            kind = route.kind
        if full_id is None:
            full_id, name = route.name or None, None
        return Place(route.answer, kind, full_id, name, client)

    def _subject(self, route: Route, answer: bytes) -> tuple[str | None, str | None]:
        """Id and name of what a request is about, where its answer tells the id."""
        if route.answer != "inspect" and not route.path.endswith("/create"):
            return None, None
        full_id, name = subject_of(route.kind, answer)
        return full_id, name or (route.name if full_id else None) or None

    def known_secrets(self, place: Place) -> OwnSecrets | None:
        """The own secrets of the container that an answer is about, if they are in memory."""
        if place.kind is not None or place.subject_id is None:
            return None
        return self.secrets.get(place.subject_id)

    def shown_secrets(self, route: Route, place: Place, payload: bytes) -> OwnSecrets | None:
        """The same, and the secrets in the variables that a payload itself shows or sets."""
        whole = place.subject_id if route.answer == "inspect" and place.kind is None else None
        shown = self.secrets.learn(whole, environment_in(route, payload))
        known = None if whole else self.known_secrets(place)
        if not (shown and known):
            return shown or known
        return OwnSecrets((*shown.needles, *known.needles))

    def recorded(self, place: Place) -> Place:
        """A place as records name it: what the client asked for could hold a secret itself."""
        names = (name and self.masked(name) for name in (place.subject_id, place.subject_name))
        subject_id, subject_name = names
        return place._replace(subject_id=subject_id, subject_name=subject_name)


class AnswerPart:
    """The answer or the body of one request, as far as it waits to be scanned.

    It is kept until its end, at most MAX_KEPT, or flows through a StreamScanner from the start.
    """

    def __init__(self, decoder: AnswerDecoder) -> None:
        self.decoder = decoder
        self.blocks: list[bytes] = []
        self.size = 0
        self.charged = 0  # bytes taken from the budget
        self.flow: StreamScanner | None = None

    def keep(self, payload: bytes, budget: ScanBudget) -> bool:
        """Keep some more of it, as far as there is room: the own share first, then the budget."""
        size = self.size + len(payload)
        due = max(0, size - OWN_SHARE) - self.charged
        if size > MAX_KEPT or (due and not budget.take(due)):
            return False
        self.charged += due
        self.size = size
        self.blocks.append(payload)
        return True

    def joined(self) -> bytes:
        """What was kept, in one piece; its room is still taken."""
        if len(self.blocks) > 1:
            self.blocks = [b"".join(self.blocks)]
        return self.blocks[0] if self.blocks else b""

    def take(self, budget: ScanBudget) -> list[bytes]:
        """What was kept, which then waits no longer."""
        blocks, self.blocks = self.blocks, []
        if self.charged:
            budget.take(-self.charged)
        self.size = self.charged = 0
        return blocks


class AnswerScan:
    """One request's answer and body. All methods are for the relaying thread, and never block."""

    def __init__(
        self,
        audit: AnswerAudit,
        route: Route,
        client: Mapping[str, Any],
        scanner: Scanner,
        mask: str | None = None,
    ) -> None:
        self._audit, self._route, self._client, self._scanner = audit, route, client, scanner
        self._mask = mask  # the severity from which on the client got asterisks
        self._answer = AnswerPart(answer_decoder(route))
        self._body = AnswerPart(body_decoder(route))
        self._broken = False
        if route.answer == "build":
            self.sent(query_text(route))

    @property
    def waiting(self) -> int:
        """Bytes that have been delivered and not scanned yet."""
        parts = (self._answer, self._body)
        return sum(part.flow.waiting if part.flow else part.size for part in parts)

    def sent(self, payload: bytes) -> None:
        """The client has sent this, and it has been forwarded."""
        self._guarded(self._offer, self._body, payload)

    def answered(self, payload: bytes) -> None:
        """The engine has answered this, and it has been delivered."""
        self._guarded(self._offer, self._answer, payload)

    def close(self, reason: str) -> None:
        """The exchange is over: scan what was kept."""
        for part in (self._body, self._answer):
            if part.flow:
                self._guarded(self._end_flow, part, part.flow, reason)
        self._guarded(self._look_at_kept)

    def _look_at_kept(self) -> None:
        size = self._answer.size + self._body.size
        if size > QUICK_ANSWER or (size and not self._is_known()):
            self._audit.jobs.submit(lambda: self._guarded(self._scan_kept))

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        """What goes wrong here is recorded, by its kind alone, and the relay goes on."""
        if self._broken:
            return
        try:
            step(*arguments)
        except Exception as error:
            self._broken = True
            for part in (self._body, self._answer):
                part.take(self._audit.budget)
            place = Place(self._route.answer, None, None, None, self._client, self._mask)
            record_error(self._audit.log, place, type(error).__name__)

    def _place(self, answer: bytes) -> Place:
        """Where the secrets in an answer are seen."""
        place = self._audit.place(self._route, self._client, answer)
        return place._replace(mask=self._mask)

    def _offer(self, part: AnswerPart, payload: bytes) -> None:
        flows = part is self._answer and self._route.answer in FLOWING_ANSWERS
        if part.flow is None and not flows and part.keep(payload, self._audit.budget):
            return
        blocks = [payload]
        if part.flow is None:
            blocks = [*part.take(self._audit.budget), payload]
            part.flow = self._flow(b"" if flows else b"".join(blocks))
        for block in blocks:
            part.flow.offer(UNDECODED, Decoded(len(block), 0, part.decoder.feed(block)))

    @staticmethod
    def _end_flow(part: AnswerPart, flow: StreamScanner, reason: str) -> None:
        flow.offer(UNDECODED, Decoded(0, 0, part.decoder.end()))
        flow.close((UNDECODED,), reason)

    def _flow(self, begun: bytes) -> StreamScanner:
        """A scanner for what cannot be kept; it skips what finds no room, and waits for none."""
        audit = self._audit
        place = audit.recorded(self._place(begun))
        findings = AnswerFindings(
            audit.log, place, lambda sighting: audit.log.answers.sighted(place, [sighting])
        )
        scan = StreamScanner(
            audit.executor,
            audit.budget,
            self._scanner,
            findings,
            abandoned=lambda: True,
            on_error=lambda: None,
            share=TOTAL_SHARE,
        )
        scan.inspected(None, audit.known_secrets(place))
        return scan

    # -- what was kept

    def _is_known(self) -> bool:
        """Whether all of it has been seen before; then it is counted."""
        place = self._place(self._answer.joined())
        found = [self._audit.seen.get(self._digest(place, part)) for part in self._kept()]
        if None in found:
            return False
        for part, sightings in zip(self._kept(), found):
            self._sighted(place, sightings or ())
            part.take(self._audit.budget)
        return True

    def _scan_kept(self) -> None:
        """Look at it all, record what it holds, and give its room back."""
        place = self._place(self._answer.joined())
        for part in self._kept():
            digest = self._digest(place, part)
            found = self._audit.seen.get(digest)
            if found is None:
                found = self._scanned(place, part, digest)
            self._sighted(place, found)
            part.take(self._audit.budget)

    def _kept(self) -> list[AnswerPart]:
        return [part for part in (self._body, self._answer) if part.size]

    def _sighted(self, place: Place, found: Iterable[Sighting]) -> None:
        if found:
            self._audit.log.answers.sighted(self._audit.recorded(place), found)

    def _digest(self, place: Place, part: AnswerPart) -> bytes:
        """What such a payload is met again by, found by these rules in such a place."""
        stream_type = part.decoder.stream_type
        shows = shows_environment(self._route, stream_type)
        own = None if shows else self._audit.known_secrets(place)  # else the payload decides
        rules = id(self._scanner), own and own.needles
        return digest_of(rules, place, stream_type, part.joined())

    def _scanned(self, place: Place, part: AnswerPart, digest: bytes) -> tuple[Sighting, ...]:
        """What a whole answer or body holds."""
        audit, payload = self._audit, part.joined()
        sightings: list[Sighting] = []
        findings = AnswerFindings(audit.log, place, sightings.append)
        try:
            if shows_environment(self._route, part.decoder.stream_type):
                own = audit.shown_secrets(self._route, place, payload)
            else:
                own = audit.known_secrets(place)
            scan_text(with_own_secrets(self._scanner, own), findings, part.decoder, payload)
        except Exception as error:  # by its kind alone: its text may hold what it choked on
            findings.error(type(error).__name__)
            findings.gap(len(payload), 0.0)
            return ()
        found = counted_once(sightings)
        audit.seen.put(digest, found)
        return found


def digest_of(rules: Hashable, place: Place, stream_type: str, payload: bytes) -> bytes:
    """What a payload is met again by: its bytes, and all that decides what is found in them."""
    digest = hashlib.blake2b(digest_size=16)
    said = (hash(rules), place.endpoint, place.kind, place.subject_id, stream_type)
    digest.update(repr(said).encode("utf-8", "surrogatepass") + b"\0")
    digest.update(payload)
    return digest.digest()


def scan_text(
    scanner: AnyScanner, findings: AnswerFindings, decoder: AnswerDecoder, payload: bytes
) -> None:
    """Report what a whole payload holds."""
    texts: dict[str, TextScanner] = {}
    for name, data in pieces_of(decoder, payload):
        text = texts.get(name)
        if text is None:
            text = texts[name] = TextScanner(scanner, findings, stream_type_of(name))
        text.feed(data)
    for text in texts.values():
        text.end()


def pieces_of(decoder: AnswerDecoder, payload: bytes) -> Iterator[Piece]:
    """The texts in a payload, step by step: other threads run between two steps."""
    for at in range(0, len(payload), SCAN_STEP):
        yield from decoder.feed(payload[at : at + SCAN_STEP])
    yield from decoder.end()


def counted_once(sightings: Iterable[Sighting]) -> tuple[Sighting, ...]:
    """Each secret once, as it was seen first, with how often it stands there."""
    counts = Counter(sighting.key for sighting in sightings)
    first = {sighting.key: sighting for sighting in reversed(list(sightings))}
    return tuple(first[key]._replace(times=count) for key, count in counts.items())
