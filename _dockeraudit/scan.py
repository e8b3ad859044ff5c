"""The command `scan`: what files, standard input or containers' logs leak.

sources ─▶ TextScanner ─▶ AuditLog (records) ─▶ RecordTee ─▶ standard output or a file
                                                   └─▶ FoundSecrets (for people, SARIF, CSV)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Callable, NamedTuple, TextIO

from _dockeraudit.auditlog import AuditLog
from _dockeraudit.commandline import OneLineParser
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import BLOCK, ask_engine, engine_connection, engine_stream, nested
from _dockeraudit.errors import (
    EXIT_FOUND,
    EXIT_UNAVAILABLE,
    ConfigurationError,
    EngineError,
    HTTPError,
)
from _dockeraudit.found import FoundSecrets, found_text, write_found_csv, write_sarif
from _dockeraudit.options import ENVIRONMENT, load_settings, option_parser
from _dockeraudit.ownsecrets import (
    AnyScanner,
    OwnSecrets,
    counts_of_needles,
    own_secrets,
    with_own_secrets,
)
from _dockeraudit.remoteengine import Engine, with_tls
from _dockeraudit.report import look_for
from _dockeraudit.scaninspect import inspect_findings
from _dockeraudit.scanner import Scanner
from _dockeraudit.settings import Settings
from _dockeraudit.sockets import command_of
from _dockeraudit.startup import load_scanner, open_log
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import Decoder, Piece, RawDecoder, StreamDemuxer
from _dockeraudit.text import (
    WIDTH,
    ReportError,
    counted,
    fit,
    printable,
    severity_rank,
    size_text,
)
from _dockeraudit.textfiles import (
    error_output,
    open_text,
    plain_size,
    read_errors,
    read_failure,
    with_output,
)
from _dockeraudit.textscanner import TextScanner

SCAN_OPTIONS = (
    "upstream", "upstream-tls", "log-level", "fsync", "fingerprint-key", "rules", "only-rules",
    "disable-rule", "allow-secret", "own-secrets", "baseline", "config",
)  # fmt: skip
SCAN_THREADS = 4  # containers read at once: the engine reads while we scan
SCAN_QUEUE = 100_000  # records that may wait for a slow reader of standard output
SCAN_HELD = 10_000  # of them, beyond which a scan pauses; one more block of each thread fits then
SCAN_PATIENCE = 30.0  # seconds that it pauses for a log that takes nothing
PROGRESS_PERIOD = 0.2  # seconds between two updates of a terminal's progress line
ESTIMATE_AFTER = 2.0  # seconds from which on the time left is estimated
EXIT_UNREAD = 2
KEY_HINT = "Each run gives other fingerprints; --fingerprint-key FILE keeps them.\n"
SCAN_FORMATS = ("text", "json", "sarif", "csv")


def command_scan(arguments: Sequence[str]) -> int:
    """`scan [FILE...] [--containers [NAME...]]`: what files or containers' logs leak.

    On a terminal the findings are shown by file; piped, they are audit records (--json).
    Exit status: 0 nothing found, 1 found, 2 a file could not be read, 69 a container's log could
    not be read, 74 records were lost, 130 interrupted.
    """
    settings = load_settings(
        arguments, {**os.environ, ENVIRONMENT + "AUDIT_LOG": "-"}, scan_parser()
    )
    try:
        least = severity_rank("--fail-on", settings.fail_on)
    except ReportError as error:
        raise ConfigurationError(str(error)) from None
    chosen = scan_format(settings)
    if settings.baseline and settings.fingerprint_key is None:
        raise ConfigurationError(
            "--baseline knows fingerprints, which mean nothing under a key that lives for one run; "
            "give the key that they were made with: --fingerprint-key FILE, or env:NAME in CI"
        )
    return with_output("scan", lambda out: run_scan(settings, chosen, least, out))


def scan_parser() -> OneLineParser:
    """The parser of `scan`'s options."""
    parser = option_parser(SCAN_OPTIONS, prog="dockeraudit scan", description=command_scan.__doc__)
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a file, a folder, also compressed ones; - is standard input, the default",
    )
    parser.add_argument(
        "--containers",
        nargs="*",
        metavar="NAME",
        help="the logs of the engine's containers, running or not: all, or those named",
    )
    parser.add_argument(
        "--audit-log",
        action="append",
        metavar="PATH",
        help="a file that the audit records go to",
    )
    parser.add_argument(
        "--fail-on",
        metavar="SEVERITY",
        default="LOW",
        help="exit 1 only for such a finding, or a graver one (default: LOW)",
    )
    for name, text in (
        ("text", "by file or container; the default on a terminal"),
        ("json", "audit records; the default where standard output is no terminal"),
        ("sarif", "for code scanning (SARIF 2.1.0)"),
        ("csv", "a row for each line with a secret"),
        ("placeholders", "also what is plainly no secret: defaults, asterisks, examples"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def scan_format(settings: Settings) -> str:
    """The format on standard output; raises ConfigurationError for two at once."""
    chosen = [name for name in SCAN_FORMATS if getattr(settings, name)]
    if len(chosen) > 1:
        raise ConfigurationError(f"--{chosen[0]} and --{chosen[1]} cannot be had together")
    if chosen:
        return chosen[0]
    if settings.audit_log == "-":
        return "text" if sys.stdout is not None and sys.stdout.isatty() else "json"
    return "text" if sys.stdout is not None and sys.stdout.isatty() else "none"


def run_scan(settings: Settings, chosen: str, least: int, out: TextIO) -> int:
    """Scan what was asked for, write what was found, and return the exit status."""
    diagnostics = Diagnostics(settings.log_level, error_output())
    scanner, secrets = load_scanner(settings), FoundSecrets()
    to_file = settings.audit_log != "-"
    tee = RecordTee(write_or_end if to_file or chosen == "json" else write_nowhere, secrets)
    about_log = diagnostics if to_file or chosen == "json" else Diagnostics("error", error_output())
    log = open_log(settings, scanner, [], about_log, tee, SCAN_QUEUE, budgeted=False)
    scan = Scan(scanner, log, diagnostics, settings.own_secrets)
    reason = "end"
    try:
        if settings.files or settings.containers is None:
            scan.files(settings.files or ["-"])
        if settings.containers is not None:
            engine = with_tls(settings.upstream, settings.upstream_tls)
            scan.containers(engine, settings.containers)
    except KeyboardInterrupt:
        reason = "SIGINT"
    finally:
        scan.tell_end()
        status = log.close(reason, settings.shutdown_timeout)
    write_found(secrets, chosen, out, settings)
    if reason != "end":
        return 128 + signal.SIGINT
    if secrets.grave(least):
        return EXIT_FOUND
    return status or scan.exit_status()


def write_found(secrets: FoundSecrets, chosen: str, out: TextIO, settings: Settings) -> None:
    """What was found, in the format that was chosen; as JSON it has been written already."""
    placeholders = settings.placeholders
    if chosen == "text":
        out.write(found_text(secrets, look_for(out), placeholders))
        if settings.fingerprint_key is None and any(secrets.by_source(placeholders)):
            out.write(KEY_HINT)
    elif chosen == "sarif":
        write_sarif(secrets, out, placeholders)
    elif chosen == "csv":
        write_found_csv(secrets, out, placeholders)


def write_or_end(fd: int, data: bytes) -> int:
    """Write; where the reader of standard output is gone, end as SIGPIPE ends a process."""
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        os._exit(128 + 13)  # SIGPIPE, which not all systems have


def write_nowhere(fd: int, data: bytes) -> int:
    """Write nothing: the records are only read by us."""
    return len(data)


class RecordTee:
    """Writes the log's bytes, and hands them to the findings of this scan."""

    def __init__(self, write: Callable[[int, bytes], int], secrets: FoundSecrets) -> None:
        self._write = write
        self._secrets = secrets

    def __call__(self, fd: int, data: bytes) -> int:
        """Write some bytes; returns how many were taken."""
        taken = self._write(fd, data)
        self._secrets.feed(data[:taken])
        return taken


class Container(NamedTuple):
    """A container of the engine's list."""

    container_id: str
    name: str

    def is_named(self, name: str) -> bool:
        """Whether somebody means it by this name or beginning of an id."""
        return name in (self.name, "/" + self.name) or (
            len(name) >= 4 and self.container_id.startswith(name)
        )


class Scan:
    """A scan of files and containers: each is a stream in the log, with findings as of any other.

    Threads. Containers are read by several at once; each owns its scanners, `_lock` guards the
    figures.
    """

    def __init__(
        self, scanner: Scanner, log: AuditLog, diagnostics: Diagnostics, own_secrets: bool = True
    ) -> None:
        self.log = log
        self.unread_files = self.unread_logs = 0
        self._scanner = scanner
        self._own_secrets = own_secrets  # of containers are searched for
        self._diagnostics = diagnostics
        self._client = {
            "listener": "scan",
            "uid": os.getuid() if hasattr(os, "getuid") else None,  # Windows has no such numbers
            "gid": os.getgid() if hasattr(os, "getgid") else None,
            "pid": os.getpid(),
            "command": command_of(os.getpid()),
        }
        self._lock = threading.Lock()
        self._terminal = diagnostics.stream.isatty()
        self._begun = self._shown = time.monotonic()
        self._bytes = self._done = 0
        self._sources: int | None = None  # in all, where that is known
        self._size = self._position = 0  # of the files, on disk

    def exit_status(self) -> int:
        """0, or what could not be read."""
        if self.unread_files:
            return EXIT_UNREAD
        return EXIT_UNAVAILABLE if self.unread_logs else 0

    # -- files

    def files(self, paths: Sequence[str]) -> None:
        """Scan files, the files of folders, and standard input."""
        if self._terminal:
            self._announce(paths)
        for path in self._expand(paths):
            begun_at, bytes_before = self._position, self._bytes
            try:
                with open_text(path) as file:
                    blocks = self._blocks(file, begun_at)
                    self._source(path, None, blocks, RawDecoder("file"), path)
            except read_errors() as error:
                part = "; what came before is scanned" if self._bytes > bytes_before else ""
                self._fail(read_failure(path, error) + part)
                self.unread_files += 1
            self._position = begun_at + plain_size(path)

    def _announce(self, paths: Sequence[str]) -> None:
        """Measure the files, for the progress; say so where a person is to type."""
        if "-" in paths and sys.stdin is not None and sys.stdin.isatty():
            self._diagnostics.say(
                "info", "reading this terminal: type or paste, then Ctrl-D at a line's beginning"
            )
        self._size = sum(plain_size(path) for path in self._expand(paths, quiet=True))

    def _blocks(self, file: Any, begun_at: int) -> Iterator[bytes]:
        """A file's blocks; the position on disk goes along."""
        while True:
            block = file.read1(BLOCK)
            if not block:
                return
            if self._size:
                self._position = begun_at + file.position()
            yield block

    def _expand(self, paths: Iterable[str], quiet: bool = False) -> Iterator[str]:
        """The files meant by files and folders; a folder's sockets and devices are passed over."""

        def unreadable(error: OSError) -> None:
            if not quiet:
                self._fail(f"cannot read the folder {error.filename}: {error.strerror}")
                self.unread_files += 1

        for path in paths:
            if not os.path.isdir(path):
                yield path
                continue
            for folder, folders, names in os.walk(path, onerror=unreadable):
                folders.sort()
                inside = (os.path.join(folder, name) for name in sorted(names))
                yield from filter(os.path.isfile, inside)

    # -- containers

    def containers(self, engine: Engine, names: Sequence[str] = ()) -> None:
        """Scan the logs of all containers, or of those named; several at once."""
        try:
            found = self._listed(engine)
        except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            self._fail(f"cannot list the containers of {engine}: {error}")
            self.unread_logs += 1
            return
        for name in names:
            if not any(one.is_named(name) for one in found):
                known = ", ".join(one.name for one in found[:5]) or "none"
                self._fail(f"the engine has no container {name!r}; there are: {known}")
                self.unread_logs += 1
        if names:
            found = [one for one in found if any(map(one.is_named, names))]
        self._sources = self._done + len(found)
        executor = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scan")
        try:
            for job in [executor.submit(self._container, engine, one) for one in found]:
                job.result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _listed(self, engine: Engine) -> list[Container]:
        """The engine's containers; raises what asking and reading the answer may raise."""
        with closing(engine_connection(engine)) as connection:
            head, blocks = engine_stream(connection, "/containers/json?all=1")
            answer = b"".join(blocks)
        if head.status != 200:
            raise EngineError(f"the engine answered {head.status}")
        return [
            Container(container["Id"], container_title(container))
            for container in json.loads(answer)
        ]

    def _container(self, engine: Engine, container: Container) -> None:
        """Scan what one container's inspect shows, and its log.

        With a terminal the log is raw, which engines before 23 do not say in their answer.
        """
        container_id, name = container
        try:
            answer = ask_engine(engine, f"/containers/{container_id}/json")
            tty = nested(answer, ("Config", "Tty"))
            own = self._own_secrets_of(answer)
            self._inspect(container, answer, own)
            with closing(engine_connection(engine)) as connection:
                target = f"/containers/{container_id}/logs?stdout=1&stderr=1"
                head, blocks = engine_stream(connection, target)
                if head.status != 200:
                    message = engine_message(b"".join(blocks))
                    raise EngineError(f"the engine answered {head.status}: {message}")
                decoder = RawDecoder("tty") if tty else StreamDemuxer("multiplexed")
                self._source(container_id, name, blocks, decoder, name, own)
        except (HTTPError, OSError, ValueError) as error:
            self._fail(f"cannot read the log of {name}: {error}")
            with self._lock:
                self.unread_logs += 1

    def _own_secrets_of(self, answer: Any) -> OwnSecrets | None:
        """The secrets of a container's Env; None where they are not to be searched for."""
        env = nested(answer, ("Config", "Env"))
        entries = env if isinstance(env, list) else []
        return own_secrets(entries, self._scanner) if self._own_secrets else None

    def _inspect(self, container: Container, answer: Any, own: OwnSecrets | None) -> None:
        """Report what everybody sees who may inspect the container; nothing if that is harmless."""
        found = list(inspect_findings(answer, with_own_secrets(self._scanner, own)))
        if not found:
            return
        audit = self.log.open_stream("inspect", container.container_id, self._client, False, True)
        audit.named(container.container_id, container.name, counts_of_needles(own))
        for match, shown, secret, line in found:
            env = match.needle.env if match.needle else None
            audit.finding("answer", match.rule, shown, secret, line, env=env)
        ending = {"nbytes": 0, "frames": 0, "lines": 0, "unscanned": 0}
        audit.close(framing="raw", reason="end", **ending)

    # -- either

    def _source(
        self,
        container_id: str,
        container_name: str | None,
        blocks: Iterable[bytes],
        decoder: Decoder,
        title: str,
        own: OwnSecrets | None = None,
    ) -> None:
        """Scan one source to its end.

        An exception of its reading passes through, when all before it has been scanned.
        """
        audit = self.log.open_stream("scan", container_id, self._client, False, True)
        audit.named(container_id, container_name, counts_of_needles(own))
        scanner = with_own_secrets(self._scanner, own)
        texts: dict[str, TextScanner] = {}
        size, reason = 0, "error"
        try:
            for block in blocks:
                size += len(block)
                self._feed(texts, audit, decoder.feed(block), scanner)
                self._advance(len(block), title)
            reason = "cut_frame" if decoder.inside_frame else "end"
        finally:
            self._feed(texts, audit, decoder.end(), scanner)
            for text in texts.values():
                text.end()
            audit.close(
                framing=decoder.framing or "raw",
                nbytes=size,
                frames=decoder.frames,
                lines=sum(text.lines for text in texts.values()),
                unscanned=0,
                reason=reason,
            )
        with self._lock:
            self._done += 1
        if not self._terminal:
            level = "info" if container_name else "debug"
            self._diagnostics.say(level, printable(f"scanned {title}: {size_text(size)}"))

    def _feed(
        self,
        texts: dict[str, TextScanner],
        audit: StreamRecords,
        pieces: Sequence[Piece],
        scanner: AnyScanner | None = None,
    ) -> None:
        """Scan some runs, once the log has room for what they may hold."""
        deadline = time.monotonic() + SCAN_PATIENCE
        while self.log.held > SCAN_HELD and time.monotonic() < deadline:
            time.sleep(0.01)
        for stream_type, data in pieces:
            if stream_type not in texts:
                texts[stream_type] = TextScanner(scanner or self._scanner, audit, stream_type)
            texts[stream_type].feed(data)

    # -- for people

    def _advance(self, nbytes: int, title: str) -> None:
        """Count what has been read; on a terminal, show it now and then."""
        with self._lock:
            self._bytes += nbytes
            if self._terminal and time.monotonic() - self._shown >= PROGRESS_PERIOD:
                self._shown = time.monotonic()
                self._rewrite(f"{self._progress()}{self._figures()}: {title}")

    def _progress(self) -> str:
        """Percent and time left, where the size of all is known."""
        if not self._size:
            return ""
        part = min(1.0, self._position / self._size)
        text, spent = f"{part:.0%}, ", time.monotonic() - self._begun
        if part and spent > ESTIMATE_AFTER:
            text += f"{spent * (1 - part) / part:.0f} s left, "
        return text

    def _figures(self) -> str:
        of = f" of {self._sources}" if self._sources is not None else ""
        found = sum(self.log.counters()["findings"].values())
        return f"{self._done}{of} scanned, {size_text(self._bytes)}, {counted(found, 'finding')}"

    def _rewrite(self, text: str) -> None:
        """Replace the progress line."""
        try:
            line = fit(text, WIDTH - 1) if text else ""
            self._diagnostics.stream.write(f"\r{line}\x1b[K")
            self._diagnostics.stream.flush()
        except (OSError, ValueError):
            pass  # the terminal is gone

    def _fail(self, text: str) -> None:
        with self._lock:
            if self._terminal:
                self._rewrite("")
            self._diagnostics.say("error", printable(text))

    def tell_end(self) -> None:
        """The figures, for people."""
        with self._lock:
            if self._terminal:
                self._rewrite("")
            spent = time.monotonic() - self._begun
            self._diagnostics.say("info", f"{self._figures()}, in {spent:.1f} s")


def container_title(container: Mapping[str, Any]) -> str:
    """A container's own name, without those that links give it; its id where it has none."""
    names = [name.lstrip("/") for name in container.get("Names") or () if name.count("/") < 2]
    return names[0] if names else str(container["Id"])


def engine_message(body: bytes) -> str:
    """The message of an error answer of the engine."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
