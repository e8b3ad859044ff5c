"""The command `scan`: what files, standard input or containers' logs leak."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from _dockeraudit.auditlog import AuditLog
from _dockeraudit.diagnostics import Diagnostics
from _dockeraudit.engine import BLOCK, UnixHTTPConnection, ask_engine, engine_stream, nested
from _dockeraudit.errors import (
    EXIT_FOUND,
    EXIT_UNAVAILABLE,
    ConfigurationError,
    EngineError,
    HTTPError,
)
from _dockeraudit.options import ENVIRONMENT, load_settings, option_parser
from _dockeraudit.scanner import Scanner
from _dockeraudit.sockets import command_of
from _dockeraudit.startup import load_scanner, open_log
from _dockeraudit.streamrecords import StreamRecords
from _dockeraudit.streams import Decoder, Piece, RawDecoder, StreamDemuxer
from _dockeraudit.text import (
    SEVERITY_RANK,
    WIDTH,
    ReportError,
    counted,
    fit,
    printable,
    severity_rank,
    size_text,
)
from _dockeraudit.textscanner import TextScanner

SCAN_OPTIONS = (
    "upstream",
    "log-level",
    "fsync",
    "fingerprint-key",
    "rules",
    "only-rules",
    "disable-rule",
    "allow-secret",
    "config",
)
SCAN_THREADS = 4  # containers read at once: the engine reads while we scan
SCAN_QUEUE = 100_000  # records that may wait for a slow reader of standard output, so that none is lost to a burst
SCAN_HELD = 10_000  # of them, beyond which a scan pauses; what one block of each thread can add finds room behind it
SCAN_PATIENCE = 30.0  # seconds that it pauses for a log that takes nothing
PROGRESS_PERIOD = 0.2  # seconds between two looks of a terminal's progress line


def command_scan(arguments: Sequence[str]) -> int:
    """`scan [FILE...] [--containers]`: what files, standard input or all containers' logs leak, as audit records on standard output.

    Exit status: 0 nothing found, 1 found, 69 something could not be read, 74 records were lost, 130 interrupted.
    """
    parser = option_parser(SCAN_OPTIONS, prog="dockeraudit scan", description=command_scan.__doc__)
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a file, a folder, a .gz, or - for standard input, which is the default",
    )
    parser.add_argument(
        "--containers",
        action="store_true",
        help="the logs of all containers of the engine, running or not",
    )
    parser.add_argument(
        "--audit-log",
        action="append",
        metavar="PATH",
        help="where the records go (default: -, standard output)",
    )
    parser.add_argument(
        "--fail-on",
        metavar="SEVERITY",
        default="LOW",
        help="exit 1 only for such a finding, or a graver one (default: LOW)",
    )
    settings = load_settings(arguments, {**os.environ, ENVIRONMENT + "AUDIT_LOG": "-"}, parser)
    try:
        least = severity_rank("--fail-on", settings.fail_on)
    except ReportError as error:
        raise ConfigurationError(str(error)) from None
    diagnostics = Diagnostics(settings.log_level)
    scanner = load_scanner(settings)
    scan = Scan(
        scanner, open_log(settings, scanner, [], diagnostics, write_or_end, SCAN_QUEUE), diagnostics
    )
    reason = "end"
    try:
        if settings.files or not settings.containers:
            scan.files(settings.files or ["-"])
        if settings.containers:
            scan.containers(settings.upstream)
    except KeyboardInterrupt:
        reason = "SIGINT"
    finally:
        scan.tell_end()
        grave = [
            name
            for name, severity in scan.log.counters()["findings"]
            if SEVERITY_RANK.get(severity, 0) >= least
        ]
        status = scan.log.close(reason, settings.shutdown_timeout)
    if reason != "end":
        return 128 + signal.SIGINT
    return EXIT_FOUND if grave else status or (EXIT_UNAVAILABLE if scan.failures else 0)


def write_or_end(fd: int, data: bytes) -> int:
    """Write; where the reader of standard output is gone, end as a process does that SIGPIPE ends."""
    try:
        return os.write(fd, data)
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)


class Scan:
    """A scan of files and containers: each is a stream in the log, with findings as of any other.

    Threads. Containers are read by several at once; each owns its scanners, `_lock` guards the figures.
    """

    def __init__(self, scanner: Scanner, log: AuditLog, diagnostics: Diagnostics) -> None:
        self.log = log
        self.failures = 0
        self._scanner = scanner
        self._diagnostics = diagnostics
        self._client = {
            "listener": "scan",
            "uid": os.getuid(),
            "gid": os.getgid(),
            "pid": os.getpid(),
            "command": command_of(os.getpid()),
        }
        self._lock = threading.Lock()
        self._terminal = diagnostics.stream.isatty()
        self._shown = time.monotonic()
        self._begun = time.monotonic()
        self._bytes = self._done = 0
        self._total: int | None = None  # sources in all, where that is known

    # -- files

    def files(self, paths: Iterable[str]) -> None:
        """Scan files, the files of folders, and standard input."""
        for path in self._expand(paths):
            try:
                with open_for_scan(path) as file:
                    blocks = iter(lambda: file.read1(BLOCK), b"")
                    self._source(path, None, blocks, RawDecoder("file"), path)
            except (OSError, EOFError, zlib.error) as error:
                self._fail(f"cannot read {path}: {error}; what came before is scanned")

    def _expand(self, paths: Iterable[str]) -> Iterator[str]:
        """The files meant by a list of files and folders; what in a folder is no file (a socket, a device) is passed over."""
        for path in paths:
            if not os.path.isdir(path):
                yield path
                continue
            for folder, folders, names in os.walk(
                path,
                onerror=lambda error: self._fail(
                    f"cannot read the folder {error.filename}: {error.strerror}"
                ),
            ):
                folders.sort()
                yield from filter(
                    os.path.isfile, (os.path.join(folder, name) for name in sorted(names))
                )

    # -- containers

    def containers(self, socket_path: str) -> None:
        """Scan the logs of all containers, several at once."""
        try:
            with closing(UnixHTTPConnection(socket_path)) as connection:
                head, blocks = engine_stream(connection, "/containers/json?all=1")
                answer = b"".join(blocks)
            if head.status != 200:
                raise EngineError(f"the engine answered {head.status}")
            found = [
                (container["Id"], container_title(container)) for container in json.loads(answer)
            ]
        except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            self._fail(f"cannot list the containers of {socket_path}: {error}")
            return
        self._total = self._done + len(found)
        executor = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scan")
        try:
            for job in [
                executor.submit(self._container, socket_path, container_id, name)
                for container_id, name in found
            ]:
                job.result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _container(self, socket_path: str, container_id: str, name: str) -> None:
        """Scan one container's log. With a terminal it is raw, which engines before 23 do not say in their answer."""
        try:
            tty = nested(
                ask_engine(socket_path, f"/containers/{container_id}/json"), ("Config", "Tty")
            )
            with closing(UnixHTTPConnection(socket_path)) as connection:
                head, blocks = engine_stream(
                    connection, f"/containers/{container_id}/logs?stdout=1&stderr=1"
                )
                if head.status != 200:
                    raise EngineError(
                        f"the engine answered {head.status}: {engine_message(b''.join(blocks))}"
                    )
                decoder = RawDecoder("tty") if tty else StreamDemuxer("multiplexed")
                self._source(container_id, name, blocks, decoder, name)
        except (HTTPError, OSError, ValueError) as error:
            self._fail(f"cannot read the log of {name}: {error}")

    # -- either

    def _source(
        self,
        container_id: str,
        container_name: str | None,
        blocks: Iterable[bytes],
        decoder: Decoder,
        title: str,
    ) -> None:
        """Scan one source to its end; what reading it raises passes through, when all before has been scanned."""
        audit = self.log.open_stream("scan", container_id, self._client, False, True)
        audit.named(container_id, container_name)
        texts: dict[str, TextScanner] = {}
        size, reason = 0, "error"
        try:
            for block in blocks:
                size += len(block)
                self._feed(texts, audit, decoder.feed(block))
                self._advance(len(block), title)
            reason = "cut_frame" if decoder.inside_frame else "end"
        finally:
            self._feed(texts, audit, decoder.end())
            for text in texts.values():
                text.end()
            lines = sum(text.lines for text in texts.values())
            audit.close(
                framing=decoder.framing or "raw",
                nbytes=size,
                frames=decoder.frames,
                lines=lines,
                unscanned=0,
                reason=reason,
            )
        with self._lock:
            self._done += 1
        if not self._terminal:
            self._diagnostics.say(
                "info" if container_name else "debug",
                printable(f"scanned {title}: {size_text(size)}"),
            )

    def _feed(
        self, texts: dict[str, TextScanner], audit: StreamRecords, pieces: Sequence[Piece]
    ) -> None:
        """Scan some runs, once the log has room for what they may hold."""
        deadline = time.monotonic() + SCAN_PATIENCE
        while self.log.held > SCAN_HELD and time.monotonic() < deadline:
            time.sleep(0.01)
        for stream_type, data in pieces:
            if stream_type not in texts:
                texts[stream_type] = TextScanner(self._scanner, audit, stream_type)
            texts[stream_type].feed(data)

    def _advance(self, nbytes: int, title: str) -> None:
        """Some more has been read: on a terminal, say so now and then."""
        with self._lock:
            self._bytes += nbytes
            if self._terminal and time.monotonic() - self._shown >= PROGRESS_PERIOD:
                self._shown = time.monotonic()
                self._rewrite(f"{self._figures()}: {title}")

    def _figures(self) -> str:
        of = f" of {self._total}" if self._total is not None else ""
        found = sum(self.log.counters()["findings"].values())
        return f"{self._done}{of} scanned, {size_text(self._bytes)}, {counted(found, 'finding')}"

    def _rewrite(self, text: str) -> None:
        try:
            self._diagnostics.stream.write(
                "\r" + fit(text, WIDTH - 1) + "\x1b[K" if text else "\r\x1b[K"
            )
            self._diagnostics.stream.flush()
        except (OSError, ValueError):
            pass  # nobody looks

    def _fail(self, text: str) -> None:
        with self._lock:
            self.failures += 1
            if self._terminal:
                self._rewrite("")
            self._diagnostics.say("error", printable(text))

    def tell_end(self) -> None:
        """The figures, for people."""
        with self._lock:
            if self._terminal:
                self._rewrite("")
            self._diagnostics.say(
                "info", f"{self._figures()}, in {time.monotonic() - self._begun:.1f} s"
            )


def container_title(container: Mapping[str, Any]) -> str:
    """A container's own name, without those that links give it; its id where it has none."""
    names = [name.lstrip("/") for name in container.get("Names") or () if name.count("/") < 2]
    return names[0] if names else str(container["Id"])


def engine_message(body: bytes) -> str:
    """What an error answer of the engine says."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def open_for_scan(path: str) -> Any:
    """A readable file of bytes; .gz is unpacked, - is standard input."""
    if path == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")
