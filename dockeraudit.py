#!/usr/bin/env python3
"""dockeraudit: a Docker socket proxy that audits log streams.

It stands between Docker clients and the engine's Unix socket, relays the whole Engine API byte for byte, and looks for
leaked secrets in the container output that flows past. One JSON line for each goes to an audit log. MIT licence.

    client ──bytes──▶ RequestHead ─▶ classify ─▶ admission ─▶ UnixHTTPConnection ─▶ engine
       ▲                                                            │
       │                 verbatim block, sent at once               ▼
       └──────────────────────────◀────────────────────── ResponseHead + body
                                             copy of the block │ bounded, ordered per stream
                                                               ▼
           AuditLog ◀─ redact ◀─ Scanner ◀─ TextScanner ◀─ StreamDemuxer ◀─ ChunkedReader

Sections, low to high, each using only those above it:

    limits and errors      every bound of the wire, with its reason; what can go wrong
    HTTP/1.1 messages      heads and bodies, sans I/O (RFC 9112)
    routes                 what a target means to the engine, and what of it is audited
    Docker streams         frames and WebSocket messages to runs of bytes, sans I/O
    scanning a stream      runs to lines to findings, beside the relay, bounded
    upstream               the engine's socket, and the names of its containers
    relay                  one exchange, both directions in one loop
    servers                listeners, the handler of a connection, start and stop
    observation            health, metrics and the page of the admin listener
    command line           options, configuration, subcommands

Three ways to read it. What is recorded: `auditlog`, from `TextScanner` and `Exchange`. What is changed on the wire:
`forwarded_request_head` and `forwarded_response_head`, nothing else. What counts as a secret: `patterns`.
"""
from __future__ import annotations

import argparse
import errno
import fcntl
import functools
import gc
import grp
import gzip
import http.client
import importlib.util
import ipaddress
import json
import os
import platform
import re
import resource
import select
import signal
import socket
import ssl
import stat
import struct
import sys
import threading
import time
import urllib.parse
import zlib
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, NoReturn, Optional, Sequence, TextIO, Tuple, Union

# --- lone file check: begin
if any(importlib.util.find_spec(name) is None for name in ("patterns", "auditlog", "policy", "report")):
    sys.stderr.write(
        "dockeraudit: this file needs patterns.py, auditlog.py, policy.py and report.py beside it; "
        "copy all five, or the single file that 'make dist' writes to dist/dockeraudit.py\n"
    )
    sys.exit(78)
# --- lone file check: end

from auditlog import EXIT_LOST, QUEUE_LIMIT, AuditLog, AuditLogError, StreamAudit, default_key_path, load_fingerprint_key, printable, redact_bytes, run_verify
from patterns import RULES, Match, RuleError, Scanner, load_rules, rules_markdown, select_rules
from policy import SWITCHES, ClientFilter, Decision, DenyAll, Policy, PolicyError, client_filter, learn, native_policy, policy_from_environment, set_switches
from report import PAGE_TAIL, SEVERITY_RANK, WIDTH, AuditSummary, ReportError, counted, fit, log_history, read_tail, render_html, run_report, severity_rank, size_text

__version__ = "0.1.0"


# =====================================================================================================================
# limits and errors
# =====================================================================================================================

MAX_HEAD = 1 << 20  # bytes of a head in all; Go's http.DefaultMaxHeaderBytes, so the engine's own limit
MAX_CHUNK_LINE = 4096  # bytes of a chunk's size line with extensions; Go's net/http/internal.maxLineLength
MAX_TRAILER = 64 << 10  # bytes of a trailer section; none of Docker's clients sends one
BLOCK = 64 << 10  # bytes read at once; more gains nothing (a Unix socket's default buffer holds 208 KiB)
BUSY_BLOCK = 16 << 10  # bytes of a block from an engine that has more to say: it is read again without a poll between
BLOCKS_A_TURN = 8  # such blocks before the client is looked at again
SPLICE_LEAST = 1 << 20  # bytes of a body that are worth a pipe and its two descriptors
SPLICE_SIZE = 256 << 10  # bytes of that pipe; more gains nothing
SPLICE_TURN = 0.1  # seconds until the client is looked at again, though the engine goes on
SPLICE_PATIENCE = struct.pack("@ll", 0, 50_000)  # struct timeval: how long only the engine is waited for, and not the client
KNOWN_FIELD, KNOWN_FIELDS = 96, 1024  # bytes of a field line, and how many of them, that are kept parsed
KNOWN_HEAD, KNOWN_HEADS = 1024, 256  # and of whole heads
HEAD_BLOCK = 8 << 10  # bytes read at once while a request is awaited
EVENTS_A_TURN = 64  # sockets of kept connections that are looked at between two looks at all of them
MAX_READ_AHEAD = 64 << 10  # bytes of pipelined requests read while an exchange runs, so that a client's EOF is noticed
HEAD_TIMEOUT = 10.0  # seconds from a head's first byte to its end, against slow heads holding threads
FIRST_BYTE_TIMEOUT = 60.0  # seconds until a connection's first byte; Go's pools dial ahead, so it is closed silently
CONNECT_TIMEOUT = 10.0  # seconds to reach the engine, a full backlog included
LINGER = 1.0  # seconds a refused client's bytes are read and dropped: closing over unread bytes would reset its reply
MAX_CONNECTIONS = 1024  # of all listeners together, a thread each; 503 beyond
BACKLOG = 1024  # connections waiting in the kernel; the kernel itself cuts it to net.core.somaxconn
SHUTDOWN_POLL = 0.25  # seconds until an accepting thread notices that it is to stop
DESCRIPTORS = 2 * MAX_CONNECTIONS + 128  # wanted: two a connection, and the log, the listeners, look-ups
COMPLAINT_INTERVAL = 60.0  # seconds in which a shortage of descriptors is told once
MAX_REFUSALS = 64  # threads that say 503 at the same time; connections beyond those are closed without a word
DESCRIPTOR_PAUSE = 0.2  # seconds without accepting when descriptors have run out: never a spin

SILENCE = 0.2  # seconds after which an unfinished line is looked at although more of it may come
CARRY_LIMIT = 64 << 10  # bytes of an unfinished line; a longer one is scanned window by window
CARRY_KEPT = 4 << 10  # bytes of such a window that the next one begins with, so that no secret is cut
CARRY_CONTEXT = 64  # bytes of those that are context only: a token that began before them must not look new
KEY_BODY_LIMIT = 64 << 10  # bytes of a private key kept for its fingerprint; an RSA-16384 key has 13 KiB
OWN_SHARE = 64 << 10  # bytes that each stream may queue for scanning whatever the others do
STREAM_SHARE = 2 << 20  # bytes that one stream may queue
TOTAL_SHARE = 16 << 20  # bytes that all streams may queue beyond their own shares
ROOM_WAIT = 1.0  # seconds that a block waits for room before it passes unscanned
QUICK_SCAN = 0.003  # processor seconds; most blocks take a sixth of that, one full of secrets twice as long. Handing each on costs 20 % more
WALK_LEAST = 1 << 10  # bytes of a block that may hold enough frames for walking over them to be worth its beginning
HEAD_OF_FRAME = 32  # bytes that hold a chunk's size line and its frame's header, as far as engines write them
KNOWN_FRAMES = 4096  # heads of frames that FrameReader remembers; twice as many line lengths as are common, 1 MiB
LONG_LINE = 512  # bytes of a line from which on newlines are found rather than counted
JOB_LIMIT = 256 << 10  # bytes that one scanning job takes, so that busy streams take turns

LOOKUP_WORKERS = 2  # threads that ask the engine for names
LOOKUP_TIMEOUT = 5.0  # seconds for one such question
STREAM_PATIENCE = 60.0  # seconds until a log that `scan` asks for begins: a busy disk has to find it first
LOOKUP_CACHE = 1024  # answers kept, by full id
MAX_LOOKUP = 16 << 20  # bytes of an answer to such a question; an inspected container has some 10 KiB
SWITCH_INTERVAL = 0.0005  # seconds a thread keeps the interpreter; the default 5 ms would be a quiet stream's latency
CROWD = 128  # connections from which on it is longer: 1,000 that were cut at once spent 1.5 s of system time on waking up
CROWD_INTERVAL = 0.005  # seconds then, and while no stream is scanned, the interpreter's default: half as many requests again

EXIT_FOUND = 1
EXIT_UNAVAILABLE = 69
EXIT_CANNOT_LISTEN = 73
EXIT_CONFIGURATION = 78


class HTTPError(Exception):
    """A message that is not relayed: `status` is what the client is answered, the text says what was illegal in it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class EngineError(HTTPError):
    """The engine cannot be reached or does not speak HTTP; answered with 502."""

    def __init__(self, message: str) -> None:
        super().__init__(502, message)


class ConfigurationError(Exception):
    """An option's value that cannot be used: names the value and what is legal; exit 78."""


class ListenError(Exception):
    """An address that cannot be listened on; exit 73."""


# =====================================================================================================================
# HTTP/1.1 messages (sans I/O)
# =====================================================================================================================

# RFC 9110 §5.6.2: token
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9112 §3: request-line. One space each, versions 1.0 and 1.1; the target's own grammar follows below.
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~]+) HTTP/(1\.[01])\r\n")
# RFC 9112 §4: status-line. Real servers leave out the space before an empty reason.
STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?\r\n")
# RFC 9112 §5: field-line. No space before the colon, no obs-fold, no control byte but HTAB: a bare CR ends nothing.
FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):([\t -~\x80-\xff]*)")
# RFC 9112 §7.1: chunk-size and extensions. Sixteen digits would pass Go's limit of 2^63.
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?\r\n")
# RFC 9110 §8.6: Content-Length; Go reads it into 63 bits.
LENGTH = re.compile(rb"[0-9]{1,18}")
# RFC 3986 §2.1: what Go refuses in a path
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# RFC 9110 §7.2: Host, the characters that Go's server admits
HOST = re.compile(rb"[0-9A-Za-z!$%&'()*+,\-.:;=\[\]_~]*")
BARE_NEWLINE = re.compile(rb"(?<!\r)\n|\r(?!\n)(?!\Z)")
HEAD_END = b"\r\n\r\n"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n"  # RFC 9113 §3.4, as far as it differs from a request

# RFC 9110 §7.6.1: fields of one hop. Transfer-Encoding, TE and Trailer are too, but the body is relayed with its chunks.
HOP_FIELDS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"})
# Fields that a Connection header cannot name away: without them the message would end elsewhere or mean another.
FIXED_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"host", b"te", b"trailer"})
READ_FIELDS = HOP_FIELDS | FIXED_FIELDS | {b"content-type", b"origin", b"sec-fetch-site"}  # the others are passed on unread


class Field(NamedTuple):
    """A field: name and value as they came, without surrounding white space, the lower-case name, its line as it is sent."""

    name: bytes
    value: bytes
    key: bytes
    line: bytes


class Head:
    """The fields of a message: `fields` as they came, `index` of the values of READ_FIELDS by lower-case name."""

    def __init__(self, start_line: bytes, version: bytes, fields: Sequence[Field]) -> None:
        self.start_line = start_line
        self.version = version
        self.fields = fields
        self.index: dict[bytes, list[bytes]] = {}
        for _, value, key, _ in fields:
            if key in READ_FIELDS:
                self.index.setdefault(key, []).append(value)

    def first(self, name: bytes) -> Optional[bytes]:
        """The value of the first field of this lower-case name, one of READ_FIELDS."""
        assert name in READ_FIELDS
        values = self.index.get(name)
        return values[0] if values else None

    def members(self, name: bytes) -> list[bytes]:
        """The members of a list-valued field (RFC 9110 §5.6.1), lower-case."""
        values = self.index.get(name)
        if not values:
            return []
        return [member.strip().lower() for value in values for member in value.split(b",") if member.strip()]

    @functools.cached_property
    def keeps_alive(self) -> bool:
        """Whether the connection persists after this message (RFC 9112 §9.3)."""
        options = self.members(b"connection")
        if b"close" in options:
            return False
        return self.version == b"1.1" or b"keep-alive" in options

    @functools.cached_property
    def end_to_end(self) -> bytes:
        """Its lines, but those of the fields of one hop, in their order and spelling."""
        if HOP_FIELDS.isdisjoint(self.index):  # as in every answer of an engine that keeps its connection
            return b"".join([self.start_line, *[field.line for field in self.fields]])
        nominated = HOP_FIELDS.union(self.members(b"connection")) - FIXED_FIELDS
        return b"".join([self.start_line, *[field.line for field in self.fields if field.key not in nominated]])


class RequestHead(Head):
    """A request's head; `method` and `target` as they came."""

    def __init__(self, method: bytes, target: bytes, version: bytes, fields: Sequence[Field], start_line: bytes) -> None:
        super().__init__(start_line, version, fields)
        self.method = method
        self.target = target
        self.framing = NO_BODY

    @functools.cached_property
    def replayable(self) -> bool:
        """Whether it may be sent twice: it changes nothing (RFC 9110 §9.2.1) and has no body."""
        return self.method in (b"GET", b"HEAD") and self.framing is NO_BODY


class ResponseHead(Head):
    """A response's head with its `status`."""

    def __init__(self, status: int, version: bytes, fields: Sequence[Field], start_line: bytes) -> None:
        super().__init__(start_line, version, fields)
        self.status = status


def head_length(buffer: bytes, seen: int = 0, what: str = "request") -> int:
    """The length of the head at the start of `buffer` with its empty line, or 0 if more is needed.

    `seen`: bytes that an earlier call has looked at. Raises HTTPError: 400 for a line that ends in a bare CR or LF (it
    would never end the head), 431 beyond MAX_HEAD.
    """
    end = buffer.find(HEAD_END, max(0, seen - 3)) + len(HEAD_END)
    if end >= len(HEAD_END):
        if end > MAX_HEAD:
            raise HTTPError(431, f"the {what}'s head is larger than {MAX_HEAD} bytes")
        return end
    if BARE_NEWLINE.search(buffer, max(0, seen - 1)) or buffer[:2] == b"\r\n":
        raise HTTPError(400, f"the {what}'s head has a line that does not end in CR LF")
    if len(buffer) > MAX_HEAD:
        raise HTTPError(431, f"the {what}'s head is larger than {MAX_HEAD} bytes")
    return 0


def parse_request_head(head: bytes) -> RequestHead:
    """A request's head, complete with its empty line, checked against RFC 9112; raises HTTPError (400)."""
    line = REQUEST_LINE.match(head)
    if line is None:
        raise HTTPError(400, "the request line is not 'METHOD TARGET HTTP/1.1'")
    method, target, version = line.groups()
    request = RequestHead(method, target, version, parse_fields(head, line.end()), line.group())
    check_target(target, method)
    hosts = request.index.get(b"host", ())
    if len(hosts) > 1 or (version == b"1.1" and not hosts):
        raise HTTPError(400, f"the request has {len(hosts)} Host fields, HTTP/1.1 needs exactly one")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise HTTPError(400, "the Host field holds an illegal character")
    return request


def parse_response_head(head: bytes) -> ResponseHead:
    """A response's head, complete with its empty line; raises EngineError."""
    line = STATUS_LINE.match(head)
    if line is None:
        raise EngineError("the engine's answer does not begin with an HTTP/1.1 status line")
    try:
        return ResponseHead(int(line.group(2)), line.group(1), parse_fields(head, line.end()), line.group())
    except HTTPError as error:
        raise EngineError(f"the engine's answer is not HTTP: {error}") from None


def read_response_head(raw: bytes) -> ResponseHead:
    """The same, from memory for an answer that came before in this second; longer ago its Date differs."""
    return (known_response_head if may_be_kept(raw) else parse_response_head)(raw)


known_response_head = functools.lru_cache(maxsize=KNOWN_HEADS)(parse_response_head)


def may_be_kept(raw: bytes) -> bool:
    """Whether a head may stay in memory, to be known when it comes again: short, and without Authorization."""
    return len(raw) <= KNOWN_HEAD and b"uth" not in raw


def parse_fields(head: bytes, pos: int) -> list[Field]:
    """The fields from `pos` to the head's empty line; raises HTTPError (400)."""
    lines = head[pos:-4].split(b"\r\n") if pos < len(head) - 2 else []
    return [known_field(line) if len(line) <= KNOWN_FIELD and b"uth" not in line else parse_field(line) for line in lines]


def parse_field(line: bytes) -> Field:
    """A field line without its end."""
    match = FIELD_LINE.fullmatch(line)
    if match is None:
        raise HTTPError(400, "a header line is not 'Name: value' (RFC 9112, section 5)")
    name, value = match.group(1), match.group(2).strip(b" \t")
    return Field(name, value, name.lower(), b"%b: %b\r\n" % (name, value))


#: the same for lines that come again and again, a tenth of the time; credentials are too long or left out
known_field = functools.lru_cache(maxsize=KNOWN_FIELDS)(parse_field)


def check_target(target: bytes, method: bytes) -> None:
    """Refuse what is none of the four forms of RFC 9112 §3.2, or what the engine's URL parser would refuse."""
    path = target.partition(b"?")[0]
    if BAD_ESCAPE.search(path):
        raise HTTPError(400, "the request target holds a '%' that is not followed by two hex digits")
    scheme = SCHEME.match(path)
    if path[scheme.end() if scheme else 0 :][:1] == b"/":
        return
    if (target == b"*" and method == b"OPTIONS") or method == b"CONNECT":
        return
    raise HTTPError(400, "the request target is neither a path nor an absolute URL")


class Framing(NamedTuple):
    """Where a body ends (RFC 9112 §6.3): `kind` is none, length, chunked or close; `length` in bytes."""

    kind: str
    length: int = 0


NO_BODY = Framing("none")


def request_framing(head: RequestHead) -> Framing:
    """Where a request's body ends, numbered as in RFC 9112 §6.3; raises HTTPError (400) where two readers could differ."""
    codings, lengths = head.index.get(b"transfer-encoding"), head.index.get(b"content-length")
    if codings:
        if lengths:  # 3.
            raise HTTPError(400, "the request has both Content-Length and Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked" or head.version == b"1.0":  # 4.
            raise HTTPError(400, "the request's Transfer-Encoding is not 'chunked' alone in HTTP/1.1")
        return Framing("chunked")
    if not lengths:  # 7.
        return NO_BODY
    return Framing("length", content_length(lengths))  # 5., 6.


def content_length(values: Sequence[bytes]) -> int:
    """The one length that repeated Content-Length fields agree on; raises HTTPError (400)."""
    if len(set(values)) > 1 or not LENGTH.fullmatch(values[0]):
        raise HTTPError(400, "Content-Length is not one decimal number")
    return int(values[0])


def response_framing(head: ResponseHead, method: bytes) -> Framing:
    """Where a response's body ends (RFC 9112 §6.3); raises EngineError."""
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:  # 1.
        return NO_BODY
    codings, lengths = head.index.get(b"transfer-encoding"), head.index.get(b"content-length")
    if codings:
        if head.members(b"transfer-encoding") != [b"chunked"] or lengths:
            raise EngineError("the engine's answer has a Transfer-Encoding other than 'chunked' alone")
        return Framing("chunked")  # 4.
    if not lengths:
        return Framing("close")  # 8.
    try:
        return Framing("length", content_length(lengths))  # 6.
    except HTTPError as error:
        raise EngineError(f"the engine's answer is not HTTP: {error}") from None


class LengthReader:
    """A body of known length. `feed` tells how many bytes of a block belong to it."""

    def __init__(self, length: int) -> None:
        self.left = length

    @property
    def done(self) -> bool:
        return self.left == 0

    def feed(self, block: bytes) -> tuple[int, bytes]:
        """How many bytes of `block` are the body's, and its payload among them."""
        used = min(self.left, len(block))
        self.left -= used
        return used, block if used == len(block) else block[:used]


class CloseReader:
    """A body that ends with its connection."""

    done = False

    def feed(self, block: bytes) -> tuple[int, bytes]:
        """All of `block`, twice: it is body, and it is payload."""
        return len(block), block


class ChunkedReader:
    """A chunked body (RFC 9112 §7.1), walked and not rewritten.

    `feed` raises HTTPError (400) at the first byte that is not chunked coding; what it took before that is sound.
    `collect=False` leaves the payload alone, for bodies that nobody audits.
    """

    #: size lines seen, as their numbers: engines repeat a few, and a look-up costs a third of int(text, 16)
    sizes: dict[bytes, int] = {}

    def __init__(self, collect: bool = True) -> None:
        self.collect = collect
        self.done = False
        self.left = 0  # bytes of the current chunk's data still to come, with its CR LF
        self.line = b""  # the beginning of a size line, or of the trailer section, that has not ended yet
        self.trailer = False

    def feed(self, block: bytes) -> tuple[int, bytes]:
        """How many bytes of `block` are the body's, and the payload among them."""
        pieces: list[bytes] = []
        pos = self._rest_of_chunk(block, 0, pieces) if self.left else 0
        while pos < len(block) and not self.done:
            if not self.line and not self.trailer:
                pos = self._whole_chunks(block, pos, pieces)
                if pos >= len(block):
                    break
            pos = self._trailer(block, pos) if self.trailer else self._size_line(block, pos)
            if self.left:
                pos = self._rest_of_chunk(block, pos, pieces)
        return pos, b"".join(pieces)

    def is_whole(self, block: bytes) -> bool:
        """Whether a block is one whole chunk for certain, as the frames of quiet streams are."""
        eol = -1 if self.left or self.line or self.trailer else block.find(b"\r\n", 0, 18)
        size = self.sizes.get(block[:eol]) if eol > 0 else None
        return size is not None and eol + size + 4 == len(block)

    def _whole_chunks(self, block: bytes, pos: int, pieces: list[bytes]) -> int:
        """The fast way over chunks that lie wholly in the block; stops before the first that does not."""
        find, sizes, collect, end = block.find, self.sizes, self.collect, len(block)
        while True:
            eol = find(b"\r\n", pos, pos + 18)
            size = sizes.get(block[pos:eol]) if eol > 0 else None
            if size is None:
                return pos
            data = eol + 2
            after = data + size
            if after + 2 > end or block[after : after + 2] != b"\r\n":
                return pos
            if collect:
                pieces.append(block[data:after])
            pos = after + 2

    def _size_line(self, block: bytes, pos: int) -> int:
        eol = block.find(b"\n", pos)
        end = len(block) if eol < 0 else eol + 1
        self.line += block[pos:end]
        if eol < 0:
            self._check_length(MAX_CHUNK_LINE, "size line")
            return end
        match = CHUNK_LINE.fullmatch(self.line)
        if match is None or len(self.line) > MAX_CHUNK_LINE:
            raise HTTPError(400, "a chunk's size line is not a hexadecimal number (RFC 9112, section 7.1)")
        size = int(match.group(1), 16)
        if 0 < size and len(self.sizes) < 4096 and len(self.line) < 16:
            self.sizes[self.line[:-2]] = size
        self.line = b""
        self.trailer = size == 0
        self.left = size + 2 if size else 0
        return end

    def _rest_of_chunk(self, block: bytes, pos: int, pieces: list[bytes]) -> int:
        """The chunk's data as far as it has come, then its CR LF, which may be cut too."""
        data = block[pos : pos + self.left - 2] if self.left > 2 else b""
        if self.collect and data:
            pieces.append(data)
        pos += len(data)
        self.left -= len(data)
        while self.left <= 2 and self.left and pos < len(block):
            if block[pos] != (13 if self.left == 2 else 10):
                raise HTTPError(400, "a chunk's data is not followed by CR LF: its size is wrong")
            self.left -= 1
            pos += 1
        return pos

    def _trailer(self, block: bytes, pos: int) -> int:
        """The trailer section with its empty line; its fields are checked and passed on as they are."""
        kept = len(self.line)
        self.line += block[pos : pos + MAX_TRAILER + 2]
        if self.line.startswith(b"\r\n"):
            self.done = True
            return pos + 2 - kept
        end = self.line.find(HEAD_END, max(0, kept - 3))
        if end < 0:
            if BARE_NEWLINE.search(self.line, max(0, kept - 1)):
                raise HTTPError(400, "the trailer section has a line that does not end in CR LF")
            self._check_length(MAX_TRAILER, "trailer section")
            return len(block)
        for field in parse_fields(self.line[: end + 4], 0):
            if field.key in FIXED_FIELDS:  # RFC 9110 §6.5.1: a reader that merged it would see another message
                raise HTTPError(400, f"the trailer section of a chunked body holds {field.name.decode('ascii')}")
        self.done = True
        return pos + end + 4 - kept

    def _check_length(self, limit: int, what: str) -> None:
        if len(self.line) > limit:
            raise HTTPError(400, f"the {what} of a chunked body is longer than {limit} bytes")


BodyReader = Union[LengthReader, CloseReader, ChunkedReader]


def body_reader(framing: Framing, collect: bool = False) -> BodyReader:
    """The reader for a body that is framed so."""
    if framing.kind == "chunked":
        return ChunkedReader(collect)
    return CloseReader() if framing.kind == "close" else LengthReader(framing.length)


def forwarded_request_head(head: RequestHead, upgrade: Sequence[bytes], close: bool) -> bytes:
    """The request's head as the engine gets it: everything as it came but the hop-by-hop fields, which are set anew.

    `upgrade`: the protocols to offer; `close`: ask the engine to close after its answer.
    """
    if upgrade:
        hop = [b"Connection: Upgrade\r\nUpgrade: ", b", ".join(upgrade), b"\r\n"]
    elif close:
        hop = [b"Connection: close\r\n"]
    else:
        hop = [b"Connection: keep-alive\r\n"] if head.version == b"1.0" and head.keeps_alive else []
    return b"".join([head.end_to_end, *hop, b"\r\n"])


def forwarded_response_head(head: ResponseHead, client_version: bytes, keep: bool) -> bytes:
    """The response's head as the client gets it; `keep`: its connection persists after this response."""
    if not keep:
        return head.end_to_end + b"Connection: close\r\n\r\n"
    return head.end_to_end + (b"\r\n" if client_version == b"1.1" else b"Connection: keep-alive\r\n\r\n")


def error_response(status: int, message: str, method: bytes = b"GET") -> bytes:
    """An answer of our own, as Docker's clients print it: JSON with one `message`; the connection closes after it."""
    body = json.dumps({"message": f"dockeraudit: {message}"}).encode() + b"\n"
    reason = http.client.responses.get(status, "Error")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)


# =====================================================================================================================
# routes
# =====================================================================================================================

# RFC 3986 §3.1, as Go's URL parser reads it; what follows may be '//authority/path' or a path alone.
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*:")
# moby's router: "/v{version:[0-9.]+}"; Podman's: "/v{version:[0-9][0-9A-Za-z.-]*}"
VERSION_SEGMENT = re.compile(r"/v[0-9.][0-9A-Za-z.\-]*(?=/)")

#: method, path without version, and what it is. Moby's router takes any characters, slashes too, for a container's name.
AUDITED_ROUTES = (
    ("GET", re.compile(r"(?:/libpod)?/containers/(?P<container>.*)/logs", re.S), "logs"),
    ("GET", re.compile(r"/services/(?P<service>.*)/logs", re.S), "logs"),
    ("GET", re.compile(r"/tasks/(?P<task>.*)/logs", re.S), "logs"),
    ("POST", re.compile(r"(?:/libpod)?/containers/(?P<container>.*)/attach", re.S), "attach"),
    ("GET", re.compile(r"/containers/(?P<container>.*)/attach/ws", re.S), "attach_ws"),
    ("POST", re.compile(r"(?:/libpod)?/exec/(?P<exec>.*)/start", re.S), "exec"),
    ("POST", re.compile(r"(?P<tunnel>/session|/grpc)"), "tunnel"),
)
#: GET requests that copy data out of the host, recorded like those that change something
EXPORTS = re.compile(r"(?:/libpod)?/(?:containers/.*/(?:archive|export)|images/(?:.*/)?get|images/export)", re.S)
#: answers that go on until somebody ends them: cut at once when the proxy stops
ENDLESS = re.compile(r"(?:/libpod)?/(?:events|containers/.*/stats|containers/stats)", re.S)


class Route(NamedTuple):
    """What a request means to the engine.

    `path`: decoded, without version, query or authority. `endpoint`: logs, attach, attach_ws, exec, tunnel or other.
    `kind` and `name`: what the stream is asked of (container, exec, service, task).
    """

    path: str
    query: str
    authority: Optional[bytes]
    endpoint: str
    kind: Optional[str] = None
    name: str = ""

    @property
    def audited(self) -> bool:
        """Whether container output flows in the answer, in a form that can be read."""
        return self.endpoint not in ("other", "tunnel")

    def flag(self, name: str) -> bool:
        """A query flag as the engine reads it (moby's httputils.BoolValue): the first one, true unless it says no."""
        value = next((v for k, v in urllib.parse.parse_qsl(self.query, True) if k == name), "")
        return value.strip().lower() not in ("", "0", "no", "false", "none")


def classify(method: bytes, target: bytes) -> Route:
    """Route a request as the engine does: on the decoded target, whatever its spelling."""
    raw_path, _, query = target.partition(b"?")
    authority = None
    scheme = SCHEME.match(raw_path)
    if scheme and raw_path[:1] != b"/":
        raw_path = raw_path[scheme.end() :]
        if raw_path[:2] == b"//":
            authority, slash, rest = raw_path[2:].partition(b"/")
            raw_path = slash + rest
    path = urllib.parse.unquote_to_bytes(raw_path).decode("utf-8", "surrogateescape")
    version = VERSION_SEGMENT.match(path)
    if version:
        path = path[version.end() :]
    return route_of(method.decode("ascii"), path, query.decode("ascii", "replace"), authority)


def route_of(method: str, path: str, query: str, authority: Optional[bytes]) -> Route:
    """The first audited route that the decoded path matches; other if there is none."""
    for wanted, pattern, endpoint in AUDITED_ROUTES:
        match = pattern.fullmatch(path) if method == wanted else None
        if match:
            kind, name = next((k, v) for k, v in match.groupdict().items() if v is not None)
            return Route(path, query, authority, endpoint, kind, name)
    return Route(path, query, authority, "other")


def parse_request(raw: bytes) -> tuple[RequestHead, Route]:
    """A request's head, its body's framing included, and what it means; raises HTTPError (400)."""
    head = parse_request_head(raw)
    head.framing = request_framing(head)
    return head, classify(head.method, head.target)


def read_request(raw: bytes) -> tuple[RequestHead, Route]:
    """The same, from memory for what came before, as dashboards ask."""
    return (known_request if may_be_kept(raw) else parse_request)(raw)


known_request = functools.lru_cache(maxsize=KNOWN_HEADS)(parse_request)


def offered_protocols(head: RequestHead, route: Route, relay_http2: bool) -> list[bytes]:
    """The protocols of an Upgrade that may reach the engine (RFC 9110 §7.8).

    HTTP/2 would be a way around the audit, so `h2c` passes only where BuildKit needs it: a tunnel, audited by nobody.
    """
    if b"upgrade" not in head.index or b"upgrade" not in head.members(b"connection"):
        return []
    offers = [part.strip() for value in head.index.get(b"upgrade", ()) for part in value.split(b",") if part.strip()]
    if relay_http2 or route.endpoint == "tunnel":
        return offers
    return [offer for offer in offers if not offer.lower().startswith((b"h2", b"http/2"))]


# RFC 6761 and RFC 8375: names that no public DNS server answers for, so no page can rebind one to loopback.
PRIVATE_SUFFIXES = (".localhost", ".internal", ".local", ".home.arpa")


def browser_refusal(head: RequestHead, route: Route, check_names: bool, allowed: frozenset[str]) -> Optional[str]:
    """Why a request looks like a web page's, or None.

    A page cannot forge Sec-Fetch-Site or Origin; against DNS rebinding the Host must not be a public-looking name.
    """
    site = head.first(b"sec-fetch-site")
    if site in (b"cross-site", b"same-site"):
        return f"a web page of another site sent it (Sec-Fetch-Site: {site.decode()})"
    host = head.first(b"host") or b""
    origin = head.first(b"origin")
    if origin is not None and not same_authority(origin, host):
        return "a web page sent it (its Origin is not the Host it was sent to)"
    for name in (host, route.authority or b""):
        if check_names and not admitted_host(host_name(name), allowed):
            return f"its Host {host_name(name)!r} is a public-looking name, as a rebound web page sends it"
    return None


def same_authority(origin: bytes, host: bytes) -> bool:
    """Whether an Origin names the host and port of the Host field; `null` never does."""
    scheme, _, authority = origin.partition(b"://")
    default = {b"http": b":80", b"ws": b":80", b"https": b":443", b"wss": b":443"}.get(scheme.lower())
    if default is None:
        return False
    return authority.lower().removesuffix(default) == host.lower().removesuffix(default)


def host_name(authority: bytes) -> str:
    """The host of an authority (RFC 3986 §3.2), lower-case, without user, port, brackets or a final dot."""
    name = authority.rpartition(b"@")[2].decode("ascii", "replace").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def admitted_host(name: str, allowed: frozenset[str]) -> bool:
    """Whether no page could have made a browser send this name: an address, one label, a private suffix, or allowed."""
    if "*" in allowed or name in allowed or "." not in name or name.endswith(PRIVATE_SUFFIXES):
        return True
    if name == "docker.example.com":  # what the docker CLI's ssh helper says
        return True
    if name.startswith("tasks.") and name.count(".") == 1:  # Swarm's name for a service's tasks
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


# =====================================================================================================================
# Docker streams (frames and messages → runs of bytes, sans I/O)
# =====================================================================================================================

# Engine API, "Stream format": [type 0 0 0][big-endian uint32 size], 0 stdin, 1 stdout, 2 stderr, 3 the engine's errors
FRAME_HEADER = struct.Struct(">II")
FRAME_TYPES = {0: "stdin", 1 << 24: "stdout", 2 << 24: "stderr", 3 << 24: "stderr"}
FRAMED_PREFIX = re.compile(rb"[\x00-\x03](?:\Z|\x00(?:\Z|\x00(?:\Z|\x00)))")  # as far as it has come
MULTIPLEXED = b"application/vnd.docker.multiplexed-stream"

Run = Tuple[str, bytes]  # (stream type, bytes): stdin, stdout, stderr or tty


class StreamDemuxer:
    """A container's output stream to runs of (stream type, bytes), one run a type and block, never one a frame.

    `framing` is multiplexed, raw, or None until the first eight bytes have told (API 1.41 and older say nothing, or
    raw-stream for either). A stream that stops being frames is `broken`, and raw from there on.
    `prefixes`: how many space-ended words stand before each frame's text (timestamps, details); they are left out.
    """

    def __init__(self, framing: Optional[str] = None, prefixes: int = 0) -> None:
        self.framing = framing
        self.prefixes = prefixes
        self.frames = 0
        self._head = b""  # a frame's header that has not wholly come
        self._type = "tty"
        self._left = 0  # bytes of the current frame's payload still to come
        self._words = 0  # prefix words of it still to be left out

    @property
    def inside_frame(self) -> bool:
        """Whether the stream so far ends in the middle of a frame."""
        return bool(self._left or (self._head and self.framing == "multiplexed"))

    @property
    def between_frames(self) -> bool:
        """Whether a frame's header comes next, and its whole payload is text."""
        return self.framing == "multiplexed" and not (self._left or self._head or self.prefixes)

    def feed(self, block: bytes) -> list[Run]:
        """The runs in the next block of the stream."""
        if self._head:
            block, self._head = self._head + block, b""
        if self.framing is None:
            self._decide(block)
        if self.framing is None:
            self._head = block
            return []
        if self.framing != "multiplexed":
            return [("tty", block)] if block else []
        return self._frames(block)

    def end(self) -> list[Run]:
        """What was still undecided when the stream ended."""
        undecided, self._head = self._head, b""
        return [("tty", undecided)] if undecided and self.framing is None else []

    def _decide(self, block: bytes) -> None:
        begins = FRAMED_PREFIX.match(block)
        if not begins and block:
            self.framing = "raw"
        elif len(block) >= 8:
            self.framing = "multiplexed"

    def _frames(self, block: bytes) -> list[Run]:
        pieces: dict[str, list[bytes]] = {}
        pos = self._payload(block, 0, pieces) if self._left else 0
        unpack, types, end = FRAME_HEADER.unpack_from, FRAME_TYPES, len(block)
        frames, last, take = 0, None, None
        while pos + 8 <= end:
            word, size = unpack(block, pos)
            kind = types.get(word)
            if kind is None:
                self.frames += frames
                return self._broken(block[pos:], pieces)
            frames += 1
            pos += 8
            if self.prefixes or pos + size > end:
                self._type, self._left, self._words = kind, size, self.prefixes
                pos = self._payload(block, pos, pieces)
                continue
            if kind is not last:  # looked up when the type changes: 0.1 of 0.3 µs a frame
                last, take = kind, pieces.setdefault(kind, []).append
            take(block[pos : pos + size])
            pos += size
        self.frames += frames
        self._head = block[pos:]
        return [(kind, b"".join(parts)) for kind, parts in pieces.items()]

    def _payload(self, block: bytes, pos: int, pieces: dict[str, list[bytes]]) -> int:
        """The current frame's payload as far as it has come, without its prefix words."""
        end = min(len(block), pos + self._left)
        self._left -= end - pos
        start = pos
        while self._words and start < end:
            space = block.find(b" ", start, end)
            start = end if space < 0 else space + 1
            self._words -= space >= 0
        if start < end:
            pieces.setdefault(self._type, []).append(block[start:end])
        return end

    def _broken(self, rest: bytes, pieces: dict[str, list[bytes]]) -> list[Run]:
        self.framing = "broken"
        return [(kind, b"".join(parts)) for kind, parts in pieces.items()] + [("tty", rest)]


class WebSocketDecoder:
    """The payload of WebSocket data messages (RFC 6455 §5.2), either direction, as runs of one stream type."""

    framing = "websocket"

    def __init__(self, stream_type: str) -> None:
        self.stream_type = stream_type
        self.frames = 0
        self._head = b""
        self._left = 0
        self._mask = b""
        self._data = False

    @property
    def inside_frame(self) -> bool:
        return bool(self._left or self._head)

    def feed(self, block: bytes) -> list[Run]:
        """The run in the next block of the connection."""
        block, self._head = self._head + block, b""
        pieces: list[bytes] = []
        pos = self._payload(block, 0, pieces)
        while pos < len(block) and not self._head:
            size = self._frame_head(block, pos)
            if not size:
                self._head = block[pos:]
                break
            pos = self._payload(block, pos + size, pieces)
        return [(self.stream_type, b"".join(pieces))] if pieces else []

    def end(self) -> list[Run]:
        """Nothing is ever undecided."""
        return []

    def _frame_head(self, block: bytes, pos: int) -> int:
        """Read the frame header at `pos`; its size, or 0 if it has not wholly come."""
        if len(block) - pos < 2:
            return 0
        short = block[pos + 1] & 0x7F
        extended = {126: 2, 127: 8}.get(short, 0)
        masked = 4 if block[pos + 1] & 0x80 else 0
        size = 2 + extended + masked
        if len(block) - pos < size:
            return 0
        self._left = int.from_bytes(block[pos + 2 : pos + 2 + extended], "big") if extended else short
        self._mask = block[pos + 2 + extended : pos + size]
        self._data = block[pos] & 0x0F <= 2  # continuation, text or binary; control frames are not container output
        self.frames += self._data
        return size

    def _payload(self, block: bytes, pos: int, pieces: list[bytes]) -> int:
        data = block[pos : pos + self._left]
        self._left -= len(data)
        if data and self._data:
            pieces.append(self._unmasked(data))
        return pos + len(data)

    def _unmasked(self, data: bytes) -> bytes:
        """RFC 6455 §5.3, all bytes at once; the mask is turned for what comes next."""
        if not self._mask:
            return data
        key = (self._mask * (len(data) // 4 + 1))[: len(data)]
        turn = len(data) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


class RawDecoder:
    """A direction without frames: what the client types."""

    framing = "raw"
    frames = 0
    inside_frame = False

    def __init__(self, stream_type: str) -> None:
        self.stream_type = stream_type

    def feed(self, block: bytes) -> list[Run]:
        """The block, as it is."""
        return [(self.stream_type, block)]

    def end(self) -> list[Run]:
        """Nothing is ever undecided."""
        return []


Decoder = Union[StreamDemuxer, WebSocketDecoder, RawDecoder]
UNDECODED = RawDecoder("")  # of an exchange that nobody decodes


class Decoded(NamedTuple):
    """What a block held for the audit: its payload's bytes, how many frames began in it, and its runs."""

    size: int
    frames: int
    runs: list[Run]


NOTHING = Decoded(0, 0, [])


def decode(decoder: Decoder, payload: bytes) -> Decoded:
    """The next bytes of a stream, decoded."""
    before = decoder.frames
    runs = decoder.feed(payload)
    return Decoded(len(payload), decoder.frames - before, runs)


class FrameReader(ChunkedReader):
    """A chunked body of frames, which `feed` gives decoded where that is cheaper.

    Engines send each frame of a log in a chunk of its own. Chunks and frames then come off in one walk, which costs
    0.2 µs a frame where one after the other cost 0.7 µs. Anything else goes that longer way.
    """

    #: what stands before the text of a chunk that is one frame (the CR LF of the chunk before it, its size line, the
    #: frame's header) → type, length of all that, length of the text. Lines have few lengths, and a look-up is cheap.
    heads: dict[bytes, tuple[str, int, int]] = {}

    def __init__(self, demuxer: StreamDemuxer) -> None:
        super().__init__(collect=True)
        self.demuxer = demuxer

    def feed(self, block: bytes) -> tuple[int, Any]:
        """How many bytes of `block` are the body's, and their payload, Decoded if it could be; raises as ChunkedReader does."""
        pieces: dict[str, list[bytes]] = {}
        pos = 0
        if len(block) >= WALK_LEAST and self.left in (0, 2) and not (self.line or self.trailer) and self.demuxer.between_frames:
            pos = self._whole_frames(block, pieces)
        if not pieces:
            return super().feed(block)
        if block[pos:] == b"\r\n":  # as nearly always: blocks end where a send did
            self.left, used, rest = 0, 2, NOTHING
        else:
            used, payload = super().feed(block[pos:])
            rest = decode(self.demuxer, payload)
        runs = [(kind, b"".join(parts)) for kind, parts in pieces.items()]
        frames = sum(map(len, pieces.values()))
        self.demuxer.frames += frames
        size = sum(len(text) for _, text in runs) + frames * FRAME_HEADER.size
        return pos + used, Decoded(size + rest.size, frames + rest.frames, runs + rest.runs)

    def _whole_frames(self, block: bytes, pieces: dict[str, list[bytes]]) -> int:
        """The texts of chunks that are one frame and lie in the block; returns where the last one's data ends."""
        known, end = self.heads.get, len(block)
        last, take = None, None
        pos = self.left - 2  # where the CR LF before the next chunk stands
        head = self._learn(b"\r\n"[: -pos] + block[:HEAD_OF_FRAME], 0)
        while head:
            kind, length, size = head
            start = pos + length
            if start + size > end:
                break
            if kind is not last:
                last, take = kind, pieces.setdefault(kind, []).append
            pos = start + size
            take(block[start:pos])
            head = known(block[pos : pos + 14]) or known(block[pos : pos + 15]) or self._learn(block, pos)
        if pieces:
            self.left = 2
        return max(0, pos)

    def _learn(self, block: bytes, pos: int) -> Optional[tuple[str, int, int]]:
        """Read what stands at `pos`, if it is the head of a chunk that is one frame, and remember it."""
        line = CHUNK_LINE.match(block, pos + 2)
        if line is None or block[pos : pos + 2] != b"\r\n" or len(block) - line.end() < FRAME_HEADER.size:
            return None
        word, size = FRAME_HEADER.unpack_from(block, line.end())
        kind = FRAME_TYPES.get(word)
        if kind is None or int(line.group(1), 16) != size + FRAME_HEADER.size:
            return None
        length = line.end() + FRAME_HEADER.size - pos
        if length in (14, 15) and len(self.heads) < KNOWN_FRAMES:  # texts of 8 to 4,087 bytes; longer ones are worth reading
            self.heads[block[pos : pos + length]] = kind, length, size
        return kind, length, size


def output_decoder(route: Route, head: ResponseHead) -> Decoder:
    """How a container's output is framed in this response, as far as its head tells."""
    if route.endpoint == "attach_ws":
        return WebSocketDecoder("tty")
    content_type = (head.first(b"content-type") or b"").partition(b";")[0].strip().lower()
    prefixes = (route.flag("timestamps") + route.flag("details")) if route.endpoint == "logs" else 0
    return StreamDemuxer("multiplexed" if content_type == MULTIPLEXED else None, prefixes)


def input_decoder(route: Route) -> Decoder:
    """How what the client types is framed."""
    return WebSocketDecoder("stdin") if route.endpoint == "attach_ws" else RawDecoder("stdin")


# =====================================================================================================================
# scanning a stream
# =====================================================================================================================
# Threads. A stream's relaying thread offers blocks and scans them itself once they are delivered, or, as soon as that
# takes long, leaves them to a scanning worker: whoever set `_running` under the stream's lock, so never two at once.
# Locks are held for bookkeeping only.
# Nothing here touches the log's file or the engine: `StreamAudit` never blocks.

KEY_TEXT = re.compile(rb"[A-Za-z0-9+/=]*")
KEY_FIELD = re.compile(rb"[A-Za-z-]{1,64}: [ -~]*")  # RFC 1421 §4.6: Proc-Type, DEK-Info
KEY_END = b"-----END"


class KeyBody:
    """A private key whose header was reported: its body as it passes, for the fingerprint."""

    def __init__(self, handle: Any, header: bytes) -> None:
        self.handle = handle
        self.header = header
        self.text: Optional[bytearray] = bytearray()  # None: longer than KEY_BODY_LIMIT
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

    def __init__(self, scanner: Scanner, audit: StreamAudit, stream_type: str) -> None:
        self.scan = scanner.scan_lines
        self.audit = audit
        self.stream_type = stream_type
        self.lines = 0  # complete lines so far
        self.carry = bytearray()
        self._decided = 0  # matches that start before this offset of the carry have been dealt with
        self._open: Optional[OpenMatch] = None
        self._key: Optional[KeyBody] = None

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
        decided = self._report(block, [match for match in self.scan(block) if match.start < limit], final=False)
        if self._open and self._open.start < kept:  # longer than what is kept: nobody will see its end
            self._withdraw()
        if self._open:
            self._open = self._open._replace(start=self._open.start - kept, end=self._open.end - kept)
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
            handle = before.handle if known and before else self._finding(block, match, line, closed)
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
        return self.audit.finding(self.stream_type, match.rule, block[match.start : match.end], secret, line, partial)

    def _update(self, block: bytes, match: Match, handle: Any) -> None:
        secret = block[match.secret_start : match.secret_end]
        self.audit.update(handle, secret, block[match.start : match.end], 1, True)

    def _withdraw(self, gone: Optional[OpenMatch] = None) -> None:
        """An open match whose end cannot be told, or that is none now that more of its line has come."""
        gone = gone or self._open
        if gone:
            self.audit.update(gone.handle, None, b"", 1, False)
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
            self.audit.update(key.handle, bytes(key.text or b"") if whole else None, key.header, key.lines, whole)


class ScanRoom:
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


class StreamAuditor:
    """One audited exchange: decodes what its relaying thread delivered, and has it scanned, in order and bounded.

    `offer` and `silence` are for the relaying thread alone. Each never blocks longer than ROOM_WAIT, or, with
    `patient` (--on-audit-failure deny), until there is room; `abandoned()` ends the wait.
    """

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        room: ScanRoom,
        scanner: Scanner,
        audit: StreamAudit,
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
        self._closing: Optional[dict[str, Any]] = None
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
        self._closing = {"framing": framing, "nbytes": self.bytes, "frames": frames, "reason": reason}
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
        self.unscanned += max(self._held + len(data), sum(failed.held for failed in self._texts.values()))
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


# =====================================================================================================================
# upstream
# =====================================================================================================================


NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)  # of this process, of the whole host


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket. `timeout` covers the connecting; raises EngineError, which says why."""

    def __init__(self, path: str, timeout: Optional[float] = CONNECT_TIMEOUT) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect; a full backlog (EAGAIN) is tried again until the time is up."""
        deadline = time.monotonic() + (self.timeout or CONNECT_TIMEOUT)
        while True:
            try:
                self._connect()
                return
            except OSError as error:
                self.close()
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise EngineError(engine_error(self.path, error)) from error
                time.sleep(0.01)

    def _connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine_error(path: str, error: OSError) -> str:
    """Why the engine's socket cannot be reached, and what to do: one sentence."""
    name = errno.errorcode.get(error.errno or 0, "timeout")
    if error.errno in NO_DESCRIPTORS:
        return f"no file descriptor is left to reach the Docker engine with ({name}); try again when other requests are done"
    text = f"cannot reach the Docker engine at {path}: {error.strerror or error} ({name})"
    try:
        info = os.stat(path)
    except OSError:
        return text + "; is the engine running, and is this its socket?"
    if error.errno == errno.EACCES:
        return text + f"; the socket belongs to group {info.st_gid}: add this process to it (group_add in Compose)"
    if info.st_nlink == 0:
        return text + "; this socket was replaced when the engine restarted: mount the directory, not the file"
    return text + "; is the engine running?"


class NameResolver:
    """Full ids and names of what streams are asked of: looked up beside the stream, never in its way."""

    #: kind → path, key of the id, key of the name
    SOURCES = {
        "container": ("/containers/{}/json", ("Id",), ("Name",)),
        "service": ("/services/{}", ("ID",), ("Spec", "Name")),
        "task": ("/tasks/{}", ("ID",), ("Name",)),
        "exec": ("/exec/{}/json", ("ContainerID",), ()),
    }

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._executor = ThreadPoolExecutor(LOOKUP_WORKERS, thread_name_prefix="names")
        self._cache: OrderedDict[tuple[str, str], tuple[str, Optional[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, kind: str, name: str, done: Callable[[Optional[str], Optional[str]], Any]) -> None:
        """Call `done(id, name)` when both are known, with None for what is not; here if the cache knows."""
        with self._lock:
            known = self._cache.get((kind, name))
        if known:
            done(*known)
            return
        try:
            self._executor.submit(self._look_up, kind, name, done)
        except RuntimeError:  # shutting down
            done(None, None)

    def stop(self) -> None:
        """Take no more questions; a silent engine is not waited for."""
        self._executor.shutdown(wait=False)

    def _look_up(self, kind: str, name: str, done: Callable[[Optional[str], Optional[str]], Any]) -> None:
        found: tuple[Optional[str], Optional[str]] = (None, None)
        try:
            found = self._ask(kind, name)
        except (HTTPError, OSError, ValueError, KeyError, TypeError):
            pass  # then the record says what the client asked for
        finally:
            done(*found)

    def _ask(self, kind: str, name: str) -> tuple[Optional[str], Optional[str]]:
        path, id_keys, name_keys = self.SOURCES[kind]
        answer = ask_engine(self._socket_path, path.format(urllib.parse.quote(name, safe="")))
        full_id = nested(answer, id_keys)
        if kind == "exec":
            return self._ask("container", str(full_id))
        found = (str(full_id), str(nested(answer, name_keys)).lstrip("/") if nested(answer, name_keys) else None)
        if name == found[0]:  # only a full id means the same for ever; a name can pass to another container
            with self._lock:
                self._cache[kind, name] = found
                while len(self._cache) > LOOKUP_CACHE:
                    self._cache.popitem(last=False)
        return found


def nested(answer: Any, keys: Sequence[str]) -> Any:
    """answer[key][key]…; None where a key is missing on the way."""
    for key in keys:
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


def ask_engine(socket_path: str, path: str, timeout: float = LOOKUP_TIMEOUT) -> Any:
    """The JSON answer to a GET of our own; raises HTTPError, OSError or ValueError."""
    status, body = engine_answer(socket_path, path, timeout)
    if status != 200:
        raise EngineError(f"the engine answered {status} to GET {path}")
    return json.loads(body)


def engine_answer(socket_path: str, path: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of the answer to a GET of our own, whole within `timeout`; raises HTTPError or OSError."""
    deadline = time.monotonic() + timeout
    connection = UnixHTTPConnection(socket_path, timeout)
    connection.connect()
    try:
        connection.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode("ascii"))
        head, block = _answer_head(connection.sock, deadline)
        reader, body = body_reader(response_framing(head, b"GET"), collect=True), b""
        while True:
            body += reader.feed(block)[1]
            block = b"" if reader.done else _receive_before(connection.sock, deadline)
            if not block or len(body) > MAX_LOOKUP:
                return head.status, body
    finally:
        connection.close()


def _answer_head(sock: socket.socket, deadline: float) -> tuple[ResponseHead, bytes]:
    """The final response's head, interim ones left out, and what came behind it."""
    data, head = b"", None
    while head is None or head.status < 200:
        length = head_length(data, what="engine's answer") if data else 0
        if length:
            head, data = parse_response_head(data[:length]), data[length:]
            continue
        block = _receive_before(sock, deadline)
        if not block:
            raise EngineError("the engine closed the connection without an answer")
        data += block
    return head, data


def _receive_before(sock: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    try:
        sock.settimeout(max(left, 0.001))
        if left > 0:
            return sock.recv(BLOCK)
    except socket.timeout:  # TimeoutError itself only from Python 3.10 on
        pass
    raise EngineError("the engine did not answer in time")


def engine_stream(connection: UnixHTTPConnection, path: str) -> tuple[ResponseHead, Iterator[bytes]]:
    """The head of the answer to a GET of our own, and its payload, however long; raises HTTPError or OSError. Closing is the caller's."""
    connection.connect()
    connection.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode("ascii"))
    head, rest = _answer_head(connection.sock, time.monotonic() + STREAM_PATIENCE)
    connection.sock.settimeout(None)
    return head, _payload(connection.sock, body_reader(response_framing(head, b"GET"), collect=True), rest)


def _payload(sock: socket.socket, reader: BodyReader, block: bytes) -> Iterator[bytes]:
    """A body's payload block by block; one that is cut short raises EngineError."""
    while True:
        payload = reader.feed(block)[1]
        if payload:
            yield payload
        if reader.done:
            return
        block = sock.recv(BLOCK)
        if not block and isinstance(reader, CloseReader):
            return
        if not block:
            raise EngineError("the engine ended its answer before the end")


# =====================================================================================================================
# relay
# =====================================================================================================================

GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, ssl.SSLError)
LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
NO_WAIT = socket.MSG_DONTWAIT  # plain sockets block, so that a read alone can wait; reads and sends that must not say so


def receive(sock: socket.socket, size: int = BLOCK) -> Optional[bytes]:
    """What has come on a socket: b"" at its end, also a broken one's; None for nothing yet. TLS sockets must not block."""
    try:
        return sock.recv(size, NO_WAIT) if type(sock) is socket.socket else sock.recv(size)
    except LATER:
        return None
    except OSError:  # reset, or a host that keep-alive probes no longer reach: as good as ended
        return b""


class SplicePipe:
    """Bytes from socket to socket that never leave the kernel (splice(2), Python 3.10): a third of the processor time of copying.

    Its methods raise OSError where there is no such thing: no descriptor for it, or sockets that cannot be spliced.
    """

    def __init__(self) -> None:
        if not hasattr(os, "splice"):
            raise OSError(errno.ENOSYS, "this Python has no os.splice")
        self._out, self._in = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._in, F_SETPIPE_SZ, SPLICE_SIZE)
        except OSError:
            pass  # a user's pipes may be limited: then they are smaller

    def move(self, source: socket.socket, sink: socket.socket, most: int) -> Optional[int]:
        """Wait for what comes next and until it has been taken; how many bytes that were.

        0 at the source's end, None when nothing has come in its SO_RCVTIMEO; raises one of GONE when the sink is gone.
        """
        try:
            moved = os.splice(source.fileno(), self._in, min(most, SPLICE_SIZE))
        except LATER:
            return None
        except OSError as error:
            if error.errno in UNSPLICEABLE:
                raise
            return 0
        left = moved
        with suppress(OSError):  # of sandboxes that forbid it
            os.sched_yield()  # the engine, which has room again, goes first: a sixth less processor time, and as much more a second
        try:
            while left:
                left -= os.splice(self._out, sink.fileno(), left)
        except OSError as error:
            if error.errno not in UNSPLICEABLE:
                raise ConnectionAbortedError(error.errno, error.strerror) from error
            sink.sendall(os.read(self._out, left))
        return moved

    def close(self) -> None:
        """Leave no descriptor behind."""
        os.close(self._in)
        os.close(self._out)


UNSPLICEABLE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # what sandboxes' kernels say of sockets
F_SETPIPE_SZ = 1031  # Linux's fcntl.h; Python names it from 3.10 on

Waiting = Union[bytes, memoryview]  # what a side has not taken yet


def send_some(sock: socket.socket, data: Waiting) -> Waiting:
    """Send what a socket takes now; returns the rest. Raises one of GONE."""
    try:
        sent = sock.send(data, NO_WAIT) if type(sock) is socket.socket else sock.send(data)
    except LATER:
        return data
    except GONE:
        raise
    except OSError as error:
        raise ConnectionAbortedError(error.errno, error.strerror) from error
    return memoryview(data)[sent:] if sent < len(data) else b""


def half_close(sock: socket.socket) -> None:
    """Tell the peer that nothing more comes; what it still sends can be read. In TLS that is a close_notify."""
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()  # sends ours; the peer's, which it then waits for, comes later or never
        else:
            sock.shutdown(socket.SHUT_WR)
    except (OSError, ValueError):
        pass  # not yet answered, or the peer is gone already, which the next poll tells


def wake(sock: socket.socket) -> None:
    """From another thread: make whoever polls this socket see its end. Never touches a TLS session."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # closed by its own thread meanwhile


Events = list[tuple[int, int]]  # (descriptor, mask), as select.poll tells


class Exchange:
    """One request and its answer: both directions in one loop, in the handler's thread; what is short, in KeptConnections'.

        buffer ── upload reader (or tunnel) ──▶ to_engine ──▶ engine
        client ◀── to_client ◀── download reader (or tunnel) ◀── engine, a copy of it to the auditor

    A side is read only when what it sent before has been taken by the other: at most one block waits each way, and a
    slow client slows the engine. The loop ends when both bodies have, or a side is gone, or `cut` says so.
    """

    # how each of them begins
    started = False
    failure: Optional[Exception] = None  # what the thread that served it until now has met with
    download: Optional[BodyReader] = None
    response: Optional[ResponseHead] = None
    tunnel = False
    to_client: Waiting = b""
    pipe: Optional[SplicePipe] = None  # what the body goes through
    answer = b""  # a response head that has not wholly come
    answered = False  # bytes have gone to the client
    engine_eof = False
    engine_deaf = False  # it takes no more of the request, but may still answer
    half_closed = False
    client_left = False  # by a close, before all that it sent had been forwarded: that comes first
    client_told = False  # that the engine has ended
    keep_engine = False
    status = 502  # what the client is answered, as far as is known
    stale = False  # the kept connection had been closed: nothing was answered, and it may be sent again
    over = False
    reason = "end"
    audit: Optional[StreamAudit] = None
    auditor: Optional[StreamAuditor] = None
    output: Decoder = UNDECODED
    input: Decoder = UNDECODED
    tunnelled = 0  # bytes through a tunnel that nobody audits
    quiet = False  # its last block was a small one
    _poll: Optional[select.poll] = None  # made when it is needed: most answers come at once
    _watched = (-1, -1)  # what is wanted of client and engine, as the poll knows

    def __init__(self, handler: ProxyHandler, head: RequestHead, route: Route, engine: socket.socket, reused: bool) -> None:
        self.handler = handler
        self.proxy = handler.proxy
        self.client = handler.connection
        self.secure = isinstance(self.client, ssl.SSLSocket)  # then bytes may be waiting that poll does not tell of
        self.engine = engine
        self.head = head
        self.route = route
        self.upload = body_reader(head.framing)
        self.replayable = reused and head.replayable
        self.upgrade = offered_protocols(head, route, self.proxy.settings.http2 == "relay")
        self.asks_log = route.endpoint == "logs" and not self.upgrade
        self.to_engine: Waiting = forwarded_request_head(head, self.upgrade, close=self.asks_log)
        self.keep_client = head.keeps_alive
        self.begun = time.monotonic()

    @property
    def endless(self) -> bool:
        """Whether this goes on until somebody ends it; such exchanges are cut when the proxy stops."""
        return self.tunnel or self.auditor is not None or bool(ENDLESS.fullmatch(self.route.path))

    def cut(self, reason: str) -> None:
        """End it, from another thread."""
        self.reason = reason
        self.over = True
        wake(self.client)
        if self.client_left:  # then only the engine is looked at
            wake(self.engine)

    def start(self) -> None:
        """Send the request, as far as the engine takes it and the client has sent it."""
        self.started = True
        self._forward()

    def hear(self) -> None:
        """Pass on what the engine says now, if it does."""
        block = receive(self.engine)
        if block is not None:
            self._take(block, gone=False)

    def run(self) -> None:
        """Relay until both sides are done; raises HTTPError if the client is to be answered by us."""
        try:
            if self.failure:
                raise self.failure
            if not self.started:
                self.start()
            while not self.finished:
                self._step()
        except HTTPError as error:
            self.status, self.reason = error.status, "engine"
            raise
        finally:
            if self.pipe is not None:
                self.pipe.close()
            self.record()

    def begin_opaque(self) -> None:
        """Make it a tunnel from the first byte on: HTTP/2, where that was asked for."""
        self.tunnel = self.answered = True
        self.to_engine, self.download = self.head.start_line, CloseReader()
        self._open_audit()

    # -- one turn of the loop

    @property
    def finished(self) -> bool:
        """Whether both bodies have ended, or a side is gone."""
        if self.over:
            return True
        if self.to_client:
            return False
        if self.tunnel:
            return self.engine_eof and (self.handler.client_eof or self.engine_deaf)
        answered = self.download is not None and (self.download.done or self.engine_eof)
        return answered and ((self.upload.done and not self.to_engine) or self.engine_deaf or self.engine_eof)

    def _step(self) -> None:
        events = self._follow() if self.quiet else self._wait()
        if events == self._engine_speaks:  # the usual turn of a stream
            self._from_engine(gone=False)
            return
        client = engine = 0
        for fileno, mask in events:
            if fileno == self._engine_fd:
                engine = mask
            else:
                client = mask
        if engine & select.POLLOUT or (engine & HANGUP and self.to_engine):
            self._send_engine()
        if engine & (select.POLLIN | HANGUP) and not self.to_client and not self.engine_eof:
            self._from_engine(gone=bool(engine & HANGUP))
        if client & select.POLLOUT:
            self._send_client()
        if client & select.POLLIN:
            self._from_client(gone=bool(client & HANGUP))
        elif client & HANGUP and self.to_engine and not client & select.POLLERR:
            self.client_left = True
        elif client & HANGUP:
            self._client_gone()

    def _follow(self) -> Events:
        """The turns of a quiet stream: frames that come alone, delivered before they are decoded. Returns what else happens."""
        poll, reader, auditor = self._poll, self.download, self.auditor
        assert poll is not None and isinstance(reader, FrameReader) and auditor is not None
        while not (self.over or self.to_client or reader.done):
            events = poll.poll(SILENCE * 1000 if auditor.restless else None)
            if events != self._engine_speaks:
                if not events:
                    auditor.silence()
                    continue
                self.quiet = False
                return events
            block = receive(self.engine)
            if block is None:
                continue
            if not block or len(block) >= WALK_LEAST or not reader.is_whole(block):
                self._take(block, gone=False)
                break
            self._to_client(block)
            auditor.offer(self.output, reader.feed(block)[1])
        self.quiet = False
        return []

    def _wait(self) -> Events:
        """Poll both sides for what can be done now."""
        wants = self._wants_client()
        client = (select.POLLIN if wants else 0) | (select.POLLOUT if self.to_client else 0)
        if self.client_left and self.to_engine:
            client = -1
        engine = (0 if self.to_client or self.engine_eof else select.POLLIN) | (select.POLLOUT if self.to_engine else 0)
        if (client, engine) != self._watched:
            if self._poll is None:
                self._poll, self._engine_fd = select.poll(), self.engine.fileno()
                self._engine_speaks = [(self._engine_fd, select.POLLIN)]
                self._masks = {self.client.fileno(): -1, self._engine_fd: -1}
            self._watched = client, engine
            self._register(self.client.fileno(), client, client >= 0)
            self._register(self._engine_fd, engine, engine != 0)
        if wants and self.secure and self.client.pending():  # type: ignore[attr-defined]
            return [(self.client.fileno(), select.POLLIN)]
        restless = self.auditor is not None and self.auditor.restless
        assert self._poll is not None
        events = self._poll.poll(SILENCE * 1000 if restless else None)
        if not events and self.auditor:
            self.auditor.silence()
        return events

    def _register(self, fileno: int, mask: int, watched: bool) -> None:
        """Watch a side. One of which nothing is wanted is not watched at all: its hang-up would wake us for ever."""
        mask = mask if watched else -1
        if mask == self._masks[fileno]:
            return
        if mask < 0:
            self._poll.unregister(fileno)
        else:
            self._poll.register(fileno, mask)
        self._masks[fileno] = mask

    def _wants_client(self) -> bool:
        """Whether to read from the client: this exchange's bytes, or ahead, to notice that it is gone."""
        if self.handler.client_eof:
            return False
        if self.tunnel or not self.upload.done:
            return not self.to_engine and not self.engine_deaf
        return len(self.handler.buffer) < MAX_READ_AHEAD

    # -- client to engine

    def _from_client(self, gone: bool) -> None:
        data = receive(self.client)
        if data is None:
            return
        if data:
            self.handler.buffer += data
            self._forward()
        elif gone:
            self._client_gone()
        else:
            self.handler.client_eof = True
            self._pass_half_close()

    def _forward(self) -> None:
        """Pass on those of the client's bytes that are this exchange's; the others are its next request."""
        buffer = self.handler.buffer
        if self.tunnel:
            data = buffer
        elif self.upload.done or self.engine_deaf:
            data = b""
        else:
            data = buffer[: self.upload.feed(buffer)[0]]
        self.handler.buffer = buffer[len(data) :]
        self.to_engine = bytes(self.to_engine) + data if self.to_engine else data
        self._send_engine()
        if self.tunnel and data:
            self._audit(self.input, data)

    def _send_engine(self) -> None:
        if self.to_engine:
            try:
                self.to_engine = send_some(self.engine, self.to_engine)
            except GONE:
                self.engine_deaf = True
                self.to_engine = b""
        self._pass_half_close()

    def _pass_half_close(self) -> None:
        """The client's end, once every byte before it has been forwarded: the engine cancels what it would cancel."""
        if self.handler.client_eof and not self.half_closed and not self.to_engine and not self.handler.buffer:
            self.half_closed = True
            half_close(self.engine)

    def _client_gone(self) -> None:
        """The client is gone: so is the engine's side, before anything else. A thousand that vanish at once queue for the rest."""
        if self.reason == "end" and not (self.tunnel and self.engine_eof):
            self.reason = "client"
        self.over = True
        self.keep_client = False
        wake(self.engine)

    # -- engine to client

    def _from_engine(self, gone: bool) -> None:
        """Take what the engine says; more at once while it has much to say, since a poll a block is a third of the calls."""
        for _ in range(BLOCKS_A_TURN):
            if self.pipe is not None and self.download and not self.download.done:
                self._splice(self.pipe, gone)
                return
            block = receive(self.engine)
            if block is None:
                return
            self._take(block, gone)
            if len(block) < WALK_LEAST:
                self.quiet = self.auditor is not None and isinstance(self.download, FrameReader) and not self.secure
                return
            if len(block) < BUSY_BLOCK or self.to_client or self.over or self.tunnel or (self.download and self.download.done):
                return

    def _take(self, block: bytes, gone: bool) -> None:
        """Bytes of the engine's answer, or its end."""
        if not block:
            self._engine_ended(gone)
        elif self.download is None:
            self._heads(self.answer + block)
        else:
            self._body(block)

    def _splice(self, pipe: SplicePipe, gone: bool) -> None:
        """A body of known length that nobody audits: past us. To wait in splice(2) itself saves a poll each time."""
        assert isinstance(self.download, LengthReader)
        until = time.monotonic() + SPLICE_TURN
        while not (self.over or self.download.done) and time.monotonic() < until:
            try:
                moved = pipe.move(self.engine, self.client, self.download.left)
            except GONE:
                self._client_gone()
                return
            except OSError:  # it cannot be spliced; nothing has been taken
                pipe.close()
                self.pipe = None
                return
            if not moved:
                if moved is not None:
                    self._engine_ended(gone)
                return
            self.download.left -= moved

    def _splice_from_here(self) -> None:
        """Let the rest of the body go through a pipe if it can and is worth it."""
        large = isinstance(self.download, LengthReader) and self.download.left >= SPLICE_LEAST
        if not large or self.audit or self.secure or self.to_engine or not self.upload.done:
            return
        try:
            self.pipe = SplicePipe()
        except OSError:
            return  # it is read and sent, as on Pythons without splice
        self.engine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SPLICE_PATIENCE)

    def _heads(self, answer: bytes) -> None:
        """Pass on the interim responses in `answer`, then begin the final one (RFC 9110 §15.2)."""
        seen = len(self.answer)
        while True:
            try:
                length = head_length(answer, seen, "engine's answer")
            except HTTPError as error:
                raise EngineError(str(error)) from None
            if not length:
                break
            head, answer, seen = read_response_head(answer[:length]), answer[length:], 0
            if head.status == 101 and not self.upgrade:
                raise EngineError("the engine switched to a protocol that was not offered to it")
            if head.status >= 200 or head.status == 101:
                self.answer = b""
                self._begin(head, answer)
                return
            self._to_client(head.end_to_end + b"\r\n")
        self.answer = answer

    def _begin(self, head: ResponseHead, rest: bytes) -> None:
        """The final response's head has come: decide what its body is, and open its audit."""
        self.response, self.status = head, head.status
        framing = Framing("close") if head.status == 101 else response_framing(head, self.head.method)
        hijack = framing.kind == "close" and self.route.endpoint in ("attach", "exec") and head.status == 200
        self.tunnel = hijack or head.status == 101
        stream = self.tunnel
        if self.route.audited and head.status == 200:  # a detached exec's answer is no stream, being empty
            stream = framing.kind == "chunked" or not body_reader(framing).done
        if stream:
            self._open_audit()
        self.keep_client = self.keep_client and framing.kind != "close" and not (stream and self.route.audited)
        self.keep_engine = head.keeps_alive and not self.asks_log and framing.kind != "close"
        self.download = body_reader(framing, collect=self.auditor is not None)
        if framing.kind == "chunked" and self.auditor and isinstance(self.output, StreamDemuxer):
            self.download = FrameReader(self.output)
        if self.tunnel:
            answer = b"".join([head.start_line, *[field.line for field in head.fields], b"\r\n"])
        else:
            answer = forwarded_response_head(head, self.head.version, self.keep_client and not self.proxy.stopping)
        if rest:  # one send with the head: it wakes the client once
            self.to_client = bytes(self.to_client) + answer
            self._body(rest)
        else:
            self._to_client(answer)
        self._splice_from_here()
        if self.tunnel:
            self._record_request()
            self._forward()

    def _body(self, block: bytes) -> None:
        """Deliver a block of the body, then audit it."""
        assert self.download is not None
        try:
            used, payload = self.download.feed(block)
        except HTTPError:  # the client gets what the engine sent, and no end that the engine did not send
            used, payload = len(block), block
            self.download, self.keep_client, self.keep_engine, self.reason = CloseReader(), False, False, "cut_chunk"
        if used < len(block):
            self.keep_engine = False
            block = block[:used]
        self._to_client(block)
        if payload:
            self._audit(self.output, payload)

    def _to_client(self, data: bytes) -> None:
        self.answered = True
        self.to_client = bytes(self.to_client) + data if self.to_client else data
        self._send_client()

    def _send_client(self) -> None:
        try:
            self.to_client = send_some(self.client, self.to_client) if self.to_client else b""
        except GONE:
            self._client_gone()
        if self.tunnel and self.engine_eof and not self.to_client and not self.client_told:
            self.client_told = True
            half_close(self.client)

    def _engine_ended(self, gone: bool) -> None:
        """EOF from the engine: the body's end, a hijack's half-close, or an answer that will never come."""
        self.engine_eof = True
        self.keep_engine = False
        if self.download is None:
            if self.replayable and not self.answer and not self.answered:
                self.stale = self.over = True
                return
            raise EngineError("the engine closed the connection without an answer")
        if self.tunnel:
            self.engine_deaf = self.engine_deaf or gone
            self._send_client()
        elif not self.download.done and not isinstance(self.download, CloseReader):
            self.keep_client = False
            self.reason = "cut_chunk" if isinstance(self.download, ChunkedReader) else "engine"

    # -- beside the relay

    def _open_audit(self) -> None:
        """A stream begins: write its `stream_open` and, where it can be read, set up its decoders."""
        route, proxy = self.route, self.proxy
        endpoint = route.endpoint if route.audited else "tunnel"
        follow = endpoint != "logs" or route.flag("follow")
        kind = route.kind if route.kind in ("service", "task") else None
        self.audit = proxy.log.open_stream(endpoint, route.name, self.handler.identity, follow, route.audited, kind)
        if not route.audited or self.response is None:
            self.audit.named(None, None)
            return
        proxy.resolver.resolve(route.kind or "container", route.name, self.audit.named)
        deny = proxy.settings.on_audit_failure == "deny"
        self.auditor = StreamAuditor(
            proxy.scanning, proxy.room, proxy.scanner, self.audit, self._abandoned, self._scan_failed, patient=deny
        )
        proxy.scans(+1)
        self.output, self.input = output_decoder(route, self.response), input_decoder(route)
        if deny and proxy.log.failed():  # the log failed between the request and here, when there was no stream to cut
            self.cut("audit_failure")

    def _audit(self, decoder: Decoder, payload: Union[bytes, Decoded]) -> None:
        if self.auditor:
            self.auditor.offer(decoder, payload)
        elif self.audit:
            self.tunnelled += len(payload)

    def _abandoned(self) -> bool:
        """Whether waiting for scanning room has become pointless: the client is gone, or we stop."""
        if self.over or self.proxy.stopping:
            return True
        if self.download is not None and self.download.done:  # all has been delivered: the wait holds nobody up
            return False
        hangup = select.poll()
        hangup.register(self.client.fileno(), 0)
        return bool(hangup.poll(0))

    def _scan_failed(self) -> None:
        if self.proxy.settings.on_audit_failure == "deny":
            self.cut("audit_failure")

    def record(self) -> None:
        """The exchange is over: close its stream, and write its `request` record unless that stands at its head."""
        if not self.tunnel and not self.stale:
            self._record_request()
        if self.audit is None:
            return
        if self.reason == "end" and self.output.inside_frame:
            self.reason = "cut_frame"
        framing = self.output.framing or "raw"
        if self.auditor:
            self.proxy.scans(-1)
            self.auditor.close((self.output, self.input), framing, self.reason)
        else:
            self.audit.close(framing="opaque", nbytes=self.tunnelled, frames=0, lines=0, unscanned=0, reason=self.reason)

    def _record_request(self) -> None:
        self.proxy.count_request(self.head.method, self.status)
        reading = self.head.method in (b"GET", b"HEAD") and not EXPORTS.fullmatch(self.route.path)
        if reading and self.proxy.settings.mode != "learn":  # to learn from, all of the traffic is needed
            return
        fields = {
            "method": self.head.method.decode("ascii"),
            "path": self.proxy.masked(self.route.path),
            "status": self.status,
            "client": self.handler.identity,
            "seconds": round(time.monotonic() - self.begun, 6),
        }
        self.proxy.log.accept("request", fields)


# =====================================================================================================================
# servers
# =====================================================================================================================
# Threads. One accepts for each listener, one handles each connection (and alone touches its sockets but for `wake`),
# `--workers` scan, two ask for names, one writes the log. `Proxy._lock` guards the set of connections and the counters,
# and is never held over a system call. The main thread waits for signals and does the stopping.

PEER_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid
KNOWN_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT"})
MASKED_PATH = 512  # bytes of a path in a record
DENIAL_INTERVAL = 60.0  # seconds between two records of the same denial: a client that retries must not fill the log
MAX_DENIALS = 1000  # different ones that are told apart; beyond, counting starts afresh
LEVELS = {"debug": 0, "info": 1, "notice": 1, "warning": 2, "warn": 2, "error": 3, "err": 3, "crit": 3, "alert": 3, "emerg": 3}


class Diagnostics:
    """Lines for people, on standard error, from `level` up."""

    def __init__(self, level: str = "info", stream: Optional[TextIO] = None) -> None:
        self.level = LEVELS[level]
        self.stream = stream or sys.stderr

    def say(self, level: str, text: str) -> None:
        """One line; a closed standard error is nobody's concern."""
        if LEVELS[level] < self.level:
            return
        try:
            self.stream.write(f"dockeraudit: {level}: {text}\n")
            self.stream.flush()
        except (OSError, ValueError):
            pass


class Settings(argparse.Namespace):
    """What OPTIONS say, by key: `settings.audit_log` is `--audit-log`; `sections` holds the file's listeners.

    `arguments` is the command line it came from, to be read again at SIGHUP.
    """

    arguments: Sequence[str]
    sections: list[tuple[str, list[tuple[str, str]]]]


class Address(NamedTuple):
    """Where to listen: `family` and what `bind` takes."""

    url: str
    family: int
    target: Any

    @property
    def loopback(self) -> bool:
        """Whether only this host's processes reach it."""
        return self.family == socket.AF_UNIX or ipaddress.ip_address(self.target[0]).is_loopback


class Listener(NamedTuple):
    """One listener's settings. `tls`: None is plain; `policy`, `clients`: None admit everything."""

    name: str
    address: Address
    policy: Optional[Policy] = None
    clients: Optional[ClientFilter] = None
    tls: Optional[ssl.SSLContext] = None
    socket_mode: int = 0o660
    socket_group: Optional[int] = None


class Denied(HTTPError):
    """A request that is refused by a rule of ours: `rule` names it in the `denied` record."""

    def __init__(self, status: int, rule: str, message: str) -> None:
        super().__init__(status, message)
        self.rule = rule


class DenialCounts:
    """Counts equal denials, so that each is written at most once a minute and none is forgotten; bounded."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Any, ...], list[Any]] = {}  # key → when it was written, how often since, what

    def add(self, key: tuple[Any, ...], denial: tuple[Any, ...], now: float) -> list[tuple[tuple[Any, ...], int]]:
        """One more; returns what is to be written now, with counts."""
        entry = self._entries.get(key)
        if entry and now - entry[0] < DENIAL_INTERVAL:
            entry[1] += 1
            return []
        due = [(denial, 1 + (entry[1] if entry else 0))]
        if entry is None and len(self._entries) >= MAX_DENIALS:
            due = self.drain() + due
        self._entries[key] = [now, 0, denial]
        return due

    def drain(self) -> list[tuple[tuple[Any, ...], int]]:
        """What has not been written yet."""
        due = [(denial, count) for _, count, denial in self._entries.values() if count]
        self._entries.clear()
        return due


class Proxy:
    """What all connections share: settings, the log, the executors, the counters, and the connections themselves."""

    def __init__(self, settings: Settings, log: AuditLog, scanner: Scanner, diagnostics: Diagnostics) -> None:
        self.settings = settings
        self.log = log
        self.scanner = scanner
        self.diagnostics = diagnostics
        self.room = ScanRoom(workers=settings.workers)
        self.scanning = ThreadPoolExecutor(settings.workers, thread_name_prefix="scan")
        self.resolver = NameResolver(settings.upstream)
        self.stopping = False
        self.requests: Counter[tuple[str, int]] = Counter()
        self.denied = 0
        self.streams = 0  # that are scanned now
        self.refusing = 0  # threads that tell a client beyond MAX_CONNECTIONS so
        self.connections: set[ProxyHandler] = set()
        self._interval = 0.0
        self._denials = DenialCounts()
        self._lock = threading.Lock()
        self.kept = KeptConnections()
        if settings.on_audit_failure == "deny":
            log.add_failure_listener(self._audit_failure)

    def join(self, handler: ProxyHandler) -> bool:
        """Count a connection in, unless there are too many."""
        with self._lock:
            if len(self.connections) >= MAX_CONNECTIONS or self.stopping:
                return False
            self.connections.add(handler)
            self._share_interpreter()
            return True

    def leave(self, handler: ProxyHandler) -> None:
        """Count a connection out."""
        with self._lock:
            self.connections.discard(handler)
            self._share_interpreter()

    def scans(self, change: int) -> None:
        """Count the streams that are scanned."""
        with self._lock:
            self.streams += change
            self._share_interpreter()

    def _share_interpreter(self) -> None:
        """A stream's scan must not keep others waiting; without one, or with a crowd of threads that wake up once an interval, a longer one is faster."""
        interval = SWITCH_INTERVAL if self.streams and len(self.connections) < CROWD else CROWD_INTERVAL
        if interval != self._interval:
            self._interval = interval
            sys.setswitchinterval(interval)

    def refuse(self, change: int) -> None:
        """Count the threads that tell a client of being too many."""
        with self._lock:
            self.refusing += change

    def exchanges(self) -> list[Exchange]:
        """The exchanges that run now."""
        with self._lock:
            return [handler.exchange for handler in self.connections if handler.exchange]

    def count_request(self, method: bytes, status: int) -> None:
        """Count an answered request; unknown methods together, since clients invent them."""
        with self._lock:
            self.requests[method.decode() if method in KNOWN_METHODS else "other", status] += 1

    def masked(self, path: str) -> str:
        """A path for a record: what looks like a secret in it is redacted."""
        raw = path.encode("utf-8", "surrogateescape")
        for match in reversed(self.scanner.scan(raw)):
            raw = raw[: match.start] + redact_bytes(raw[match.start : match.end]).encode() + raw[match.end :]
        return raw[:MASKED_PATH].decode("utf-8", "replace")

    def record_denial(self, event: str, method: str, path: str, client: dict[str, Any], rule: str) -> None:
        """Write a `denied` or `would_deny` record, the same one at most once a minute with its count."""
        who = client.get("address", client.get("uid"))
        key = (event, method, path, client["listener"], who, rule)
        with self._lock:
            self.denied += event == "denied"
            due = self._denials.add(key, (event, method, path, client, rule), time.monotonic())
        self._write_denials(due)

    def _write_denials(self, due: Iterable[tuple[tuple[Any, ...], int]]) -> None:
        for (event, method, path, client, rule), count in due:
            fields = {"method": method, "path": self.masked(path), "client": client, "rule": rule, "count": count}
            self.log.accept(event, fields)

    def _audit_failure(self, failed: bool) -> None:
        """With --on-audit-failure deny: what would go unrecorded is cut; all other requests go on."""
        if failed:
            for exchange in self.exchanges():
                if exchange.auditor:
                    exchange.cut("audit_failure")

    def stop(self, deadline: float) -> None:
        """Let open requests finish until `deadline` (monotonic); what never ends by itself is cut at once."""
        self.stopping = True
        while True:
            with self._lock:
                handlers = list(self.connections)
            overdue = time.monotonic() > deadline
            for handler in handlers:
                exchange = handler.exchange
                if exchange is None:
                    wake(handler.connection)
                elif overdue or exchange.endless:
                    exchange.cut("shutdown")
            if not handlers or time.monotonic() > deadline + 0.5:
                break
            time.sleep(0.02)
        with self._lock:
            due = self._denials.drain()
        self._write_denials(due)
        self.resolver.stop()
        finish_executor(self.scanning, deadline + 0.5)


class KeptConnections:
    """Kept connections that wait for their next request: one of the waiting threads waits for them all, and serves what is short.

    Leaders and followers (Schmidt et al., Pattern-Oriented Software Architecture 2): where each thread waits for its own
    client and engine, 32 clients at once hand the interpreter on eight times a request, and get half as many answers.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._waiting: dict[int, ProxyHandler] = {}  # by the descriptor of either side
        self._leader: Optional[ProxyHandler] = None
        self._lock = threading.Lock()

    def wait(self, handler: ProxyHandler) -> None:
        """Lend a connection, until it needs its own thread: what came is in its `buffer`, or in an `exchange` that has begun."""
        with self._lock:
            try:
                for fileno in handler.descriptors():
                    self._epoll.register(fileno, select.EPOLLIN)
                    self._waiting[fileno] = handler
            except OSError:  # the kernel has no room for it: then it waits for itself
                self._remove(handler)
                return
            follows = self._leader is not None
            if not follows:
                self._leader = handler
        if follows:  # decided under the lock: once it is free, the leader may call this one to lead
            handler.called.acquire()
        if self._leader is handler:
            self._lead(handler)

    def _lead(self, handler: ProxyHandler) -> None:
        """Serve all that wait until the leader's own connection needs its thread; then another leads."""
        own = handler.connection.fileno()
        try:
            while own in self._waiting:
                for fileno, _ in self._epoll.poll(-1, EVENTS_A_TURN):
                    waiting = self._waiting.get(fileno)
                    if waiting and not waiting.serve_short(fileno):
                        self._give_back(waiting)
        finally:
            with self._lock:
                self._remove(handler)
                self._leader = next(iter(self._waiting.values()), None)
                if self._leader:
                    self._leader.called.release()

    def _give_back(self, handler: ProxyHandler) -> None:
        with self._lock:
            self._remove(handler)
        if handler is not self._leader:
            handler.called.release()

    def _remove(self, handler: ProxyHandler) -> None:
        for fileno in handler.descriptors():
            if self._waiting.pop(fileno, None):
                self._epoll.unregister(fileno)


def finish_executor(executor: ThreadPoolExecutor, deadline: float) -> None:
    """Let an executor finish its jobs, but not beyond `deadline` (monotonic)."""
    executor.shutdown(wait=False)
    for thread in list(executor._threads):  # there is no public way to join with a limit
        thread.join(max(0.0, deadline - time.monotonic()))


class ProxyHandler(BaseHTTPRequestHandler):
    """A client's connection: its requests, one after another, each an Exchange with the engine.

    Answers of its own: 400 illegal HTTP, 403 refused, 408 a head that does not end, 431 too large, 502 no engine, 503.
    """

    server: RelayServer

    def setup(self) -> None:
        """Take the socket over; nothing of the base class's buffered files is used."""
        self.connection: socket.socket = self.request
        self.proxy = self.server.proxy
        self.listener = self.server.listener
        self.buffer = b""  # bytes from the client that no exchange has claimed yet
        self.client_eof = False
        self.exchange: Optional[Exchange] = None
        self.upstream: Optional[UnixHTTPConnection] = None  # kept between requests
        self.identity: dict[str, Any] = {"listener": self.listener.name}
        self.served = 0
        self.called = threading.Lock()  # held, but for the moment in which another thread calls this one
        self.called.acquire()

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        try:
            if not self.proxy.join(self):
                self._overfull()
                return
            if self._begin():
                while self._serve():
                    self.served += 1
        except GONE:
            pass  # the client is gone, and nothing of it is left
        except (TimeoutError, socket.timeout):  # two classes before Python 3.10
            pass  # a TLS handshake that did not end
        except OSError as error:
            self.proxy.diagnostics.say("error", f"a connection to {self.listener.name} failed: {error}; it was closed")

    def finish(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.proxy.leave(self)
        self._drop_upstream()
        if isinstance(self.connection, ssl.SSLSocket):
            half_close(self.connection)  # without it a client takes the end for a cut
        self.connection.close()

    def _begin(self) -> bool:
        """Learn who it is, and shake hands where the listener speaks TLS; whether requests may follow."""
        self.identity = peer_identity(self.connection, self.client_address, self.listener)
        encrypted = self.listener.tls is None or self._shake_hands(self.listener.tls)
        if self.listener.tls:
            self.connection.setblocking(False)
        if not encrypted:
            self._refuse(400, "this listener speaks TLS: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH", b"GET")
        return encrypted

    def _shake_hands(self, context: ssl.SSLContext) -> bool:
        """TLS, within HEAD_TIMEOUT in all; False for a client whose first byte begins no handshake (RFC 8446 §5.1)."""
        deadline = time.monotonic() + HEAD_TIMEOUT
        self.connection.settimeout(HEAD_TIMEOUT)
        if self.connection.recv(1, socket.MSG_PEEK) not in (b"\x16", b""):
            return False
        self.connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except ssl.SSLError as error:
            who = self.identity.get("address")
            self.proxy.diagnostics.say("debug", f"{self.listener.name}: no TLS with {who}: {error.reason}")
            raise
        certificate = self.connection.getpeercert()
        if certificate:
            self.identity["certificate"] = certificate_subject(certificate)
        return True

    def _overfull(self) -> None:
        if self.proxy.stopping or self.listener.tls:  # a handshake is what a crowd must not get
            return
        self.connection.setblocking(False)
        self.proxy.refuse(+1)
        try:
            self._refuse(503, f"there are {MAX_CONNECTIONS} open connections already; try again later", b"GET")
        finally:
            self.proxy.refuse(-1)

    # -- one request

    def _serve(self) -> bool:
        """One request; whether another may follow on this connection."""
        method = b"GET"
        try:
            if self._lendable():
                self._quiet_engine()
                self.proxy.kept.wait(self)
            if self.exchange:
                method = self.exchange.head.method
                return self._finish_exchange(self.exchange)
            raw = self._read_head()
            if raw is None:
                return False
            self.listener = self.server.listener  # SIGHUP may have changed its rules
            if raw.startswith(HTTP2_PREFACE):
                return self._http2(raw)
            head, route = read_request(raw)
            method = head.method
            self._admit(head, route)
            return self._relay(head, route)
        except HTTPError as error:
            if not self.exchange or not self.exchange.answered:
                self._refuse(error.status, str(error), method)
            return False
        finally:
            self.exchange = None

    def _read_head(self) -> Optional[bytes]:
        """The next head with its empty line; None when the client has no more requests. Raises HTTPError."""
        seen = 0
        deadline = time.monotonic() + (FIRST_BYTE_TIMEOUT if not self.served else float("inf"))
        started = False
        while True:
            if self.buffer and not started:
                started, deadline = True, time.monotonic() + HEAD_TIMEOUT
            length = head_length(self.buffer, seen) if self.buffer else 0
            if length:
                raw, self.buffer = self.buffer[:length], self.buffer[length:]
                return raw
            seen = len(self.buffer)
            if self.client_eof or self.proxy.stopping:
                return None
            if not self._readable(deadline - time.monotonic()):
                if started:
                    raise HTTPError(408, f"the request's head was not complete after {HEAD_TIMEOUT:.0f} seconds")
                return None
            data = receive(self.connection)
            self.client_eof = data == b""
            self.buffer += data or b""

    def _readable(self, timeout: float) -> bool:
        """Wait until the client has something to say."""
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.pending():
            return True
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return bool(poll.poll(None if timeout == float("inf") else max(0.0, timeout) * 1000))

    def _admit(self, head: RequestHead, route: Route) -> None:
        """Raise Denied for what must not reach the engine."""
        for rule, message in self._objections(head, route):
            self._deny(head, route, rule, message)
        if self.proxy.settings.on_audit_failure == "deny" and route.audited and self.proxy.log.failed():
            raise Denied(503, "audit", "the audit log cannot be written, and streams that would go unrecorded are refused")

    def _objections(self, head: RequestHead, route: Route) -> Iterator[tuple[str, str]]:
        """The rules that a request breaks, each with what its client is told."""
        settings = self.proxy.settings
        on_tcp = self.listener.address.family != socket.AF_UNIX
        if on_tcp and "certificate" not in self.identity and not settings.allow_browser:
            encrypted = isinstance(self.connection, ssl.SSLSocket)
            reason = browser_refusal(head, route, not encrypted, settings.allow_host)
            if reason:
                hint = "; if this is meant, start dockeraudit with --allow-browser, or with --allow-host NAME for its name"
                yield "browser", f"a request from a web page is refused: {reason}{hint}"
        decisions = []
        if self.listener.clients:
            decisions.append(self.listener.clients.admits(self.identity))
        if self.listener.policy:
            decisions.append(self.listener.policy.decide(head.method.decode(), route.path))
        for decision in decisions:
            if not decision.allowed:
                yield decision.rule, refusal(head.method.decode(), self.proxy.masked(route.path), decision)

    def _deny(self, head: RequestHead, route: Route, rule: str, message: str) -> None:
        learning = self.proxy.settings.mode == "learn" and rule != "browser"
        event = "would_deny" if learning else "denied"
        self.proxy.record_denial(event, head.method.decode(), route.path, self.identity, rule)
        if not learning:
            self.proxy.count_request(head.method, 403)
            raise Denied(403, rule, message)

    def _relay(self, head: RequestHead, route: Route) -> bool:
        """Relay one request and its answer; whether the connection can carry another."""
        engine, reused = self._engine()
        self.exchange = Exchange(self, head, route, engine, reused)
        return self._finish_exchange(self.exchange)

    def _finish_exchange(self, exchange: Exchange) -> bool:
        """Relay the rest of it; whether the connection can carry another."""
        exchange.run()
        if exchange.stale:
            self._drop_upstream()
            exchange = self.exchange = Exchange(self, exchange.head, exchange.route, self._engine()[0], False)
            exchange.run()
        if not exchange.keep_engine or exchange.over:
            self._drop_upstream()
        keep = exchange.keep_client and not exchange.over and exchange.upload.done and not self.proxy.stopping
        if not keep and not exchange.over and not self.client_eof:
            self._linger()
        return keep

    # -- requests that another thread serves, one that waits as this one does

    def _lendable(self) -> bool:
        """Whether the next request may be waited for by another thread: between requests, and without TLS."""
        between = self.served and not self.buffer and not self.client_eof and not self.proxy.stopping
        return bool(between) and not isinstance(self.connection, ssl.SSLSocket)

    def descriptors(self) -> Iterator[int]:
        """Of the client's connection, and of the kept one to the engine."""
        yield self.connection.fileno()
        if self.upstream:
            yield self.upstream.sock.fileno()

    def serve_short(self, fileno: int) -> bool:
        """Serve what comes on one of them; False for what may take long, and is for the connection's own thread."""
        try:
            if fileno == self.connection.fileno():
                return self.exchange is None and self._begin_short()
            return self.exchange is not None and self._hear_short(self.exchange)
        except Exception as error:  # its own thread is to meet with it, and no other: in the exchange, or when it reads the head again
            if self.exchange:
                self.exchange.failure = error
            return False

    def _begin_short(self) -> bool:
        data = receive(self.connection, HEAD_BLOCK)
        if data is None:
            return True
        self.buffer, self.client_eof = data, not data
        if self.upstream is None or data.find(HEAD_END) != len(data) - 4 or self.proxy.stopping:
            return False
        self.listener = self.server.listener
        head, route = read_request(data)
        if not head.replayable or route.endpoint != "other" or b"upgrade" in head.index or next(self._objections(head, route), None):
            return False
        self.exchange = Exchange(self, head, route, self.upstream.sock, True)
        self.buffer = b""
        self.exchange.start()
        return not self.exchange.to_engine

    def _hear_short(self, exchange: Exchange) -> bool:
        exchange.hear()
        if exchange.finished and exchange.keep_client and exchange.keep_engine and not exchange.over and not self.proxy.stopping:
            exchange.record()
            self.exchange = None
            self.served += 1
            return True
        return exchange.response is None and not exchange.over and not exchange.to_client

    # -- the engine

    def _engine(self) -> tuple[socket.socket, bool]:
        """A connection to the engine, the kept one if it is still quiet; and whether it was kept."""
        kept = self._quiet_engine()
        if kept:
            return kept, True
        self.upstream = UnixHTTPConnection(self.proxy.settings.upstream)
        self.upstream.connect()
        self.upstream.sock.settimeout(None)
        self._upstream_poll = select.poll()
        self._upstream_poll.register(self.upstream.sock.fileno(), select.POLLIN)
        return self.upstream.sock, False

    def _quiet_engine(self) -> Optional[socket.socket]:
        """The kept connection, if it has not ended and says nothing unasked; else it is closed."""
        if self.upstream and self._upstream_poll.poll(0):
            self._drop_upstream()
        return self.upstream.sock if self.upstream else None

    def _drop_upstream(self) -> None:
        if self.upstream:
            self.upstream.close()
            self.upstream = None

    def _http2(self, raw: bytes) -> bool:
        """A bare HTTP/2 preface: refused as an engine without HTTP/2 does, or, if asked for, relayed unseen."""
        head = RequestHead(b"PRI", b"*", b"2.0", (), raw)
        route = Route("*", "", None, "other")
        if self.proxy.settings.http2 != "relay":
            self.proxy.record_denial("denied", "PRI", "*", self.identity, "http2")
            raise HTTPError(400, "HTTP/2 is not spoken here; use HTTP/1.1")
        if self.listener.policy or self.listener.clients:
            self._deny(head, route, "http2", "HTTP/2 cannot be held to this listener's rules, so it is refused")
        exchange = self.exchange = Exchange(self, head, route, self._engine()[0], False)
        exchange.begin_opaque()
        exchange.run()
        return False

    def _refuse(self, status: int, message: str, method: bytes) -> None:
        """Answer for ourselves, and close so that the answer arrives."""
        rest: Waiting = error_response(status, message, method)
        deadline = time.monotonic() + LINGER
        while rest and time.monotonic() < deadline:
            rest = send_some(self.connection, rest)
            if rest:
                poll = select.poll()
                poll.register(self.connection.fileno(), select.POLLOUT)
                poll.poll(LINGER * 1000)
        self._linger()

    def _linger(self) -> None:
        """Close the sending side and drop what still comes, for a moment (RFC 9112 §9.6)."""
        half_close(self.connection)
        if isinstance(self.connection, ssl.SSLSocket):
            try:
                socket.socket.shutdown(self.connection, socket.SHUT_WR)
            except OSError:
                return
        deadline = time.monotonic() + LINGER
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        while time.monotonic() < deadline and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            try:
                if not socket.socket.recv(self.connection, BLOCK):  # of a TLS session: what it still encrypts
                    return
            except OSError:
                return


def refusal(method: str, path: str, decision: Decision) -> str:
    """Why a request is refused, and every setting that would admit it."""
    admits = "it takes " + ", or ".join(decision.admits) if decision.admits else "no setting of this policy admits it"
    return f"{method} {path} is refused by {decision.rule}; {admits}"


def peer_identity(sock: socket.socket, address: Any, listener: Listener) -> dict[str, Any]:
    """Who is at the other end, as the records say it."""
    if sock.family != socket.AF_UNIX:
        ip = ipaddress.ip_address(address[0].partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None)
        return {"listener": listener.name, "address": str(mapped or ip)}
    pid, uid, gid = PEER_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size))
    return {"listener": listener.name, "uid": uid, "gid": gid, "pid": pid or None, "command": command_of(pid)}


def command_of(pid: int) -> Optional[str]:
    """A process's name; its command line may hold secrets. None where the pid is not visible (another namespace)."""
    if pid <= 0:
        return None
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return None


# RFC 4514 §3: the short names of attributes, and what is escaped in their values (§2.4)
RDN_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
RDN_SPECIAL = re.compile(r'["+,;<>\\]|^[ #]| $')
RDN_ESCAPE = r"\\\g<0>"


def certificate_subject(certificate: Mapping[str, Any]) -> str:
    """A client certificate's subject as a string (RFC 4514): CN=ci,O=Example."""
    names = [[f"{RDN_NAMES.get(key, key)}={RDN_SPECIAL.sub(RDN_ESCAPE, value)}" for key, value in part] for part in certificate.get("subject", ())]
    return ",".join("+".join(part) for part in reversed(names))



class RelayServer(ThreadingHTTPServer):
    """One listener, TCP or Unix; a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG
    allow_reuse_address = True

    def __init__(self, proxy: Proxy, listener: Listener, inherited: Optional[socket.socket] = None) -> None:
        self.proxy = proxy
        self.listener = listener
        self.address_family = listener.address.family
        self._complained = float("-inf")  # when running out of descriptors was last told
        self._inode: Optional[int] = None
        try:
            super().__init__(listener.address.target, ProxyHandler, bind_and_activate=inherited is None)
        except OSError as error:
            raise ListenError(f"cannot listen on {listener.address.url}: {error.strerror or error}") from error
        if inherited is not None:
            self.socket.close()
            self.socket = inherited

    def server_bind(self) -> None:
        """Bind without the base class's look-up of host names."""
        if self.address_family == socket.AF_UNIX:
            self._bind_unix(str(self.listener.address.target))
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.listener.address.target)
        self.server_address = self.socket.getsockname()

    def _bind_unix(self, path: str) -> None:
        """Bind so that the socket is never open to others, not even for a moment, and replace only a dead one."""
        remove_dead_socket(path)
        before = os.umask(0o177)
        try:
            self.socket.bind(path)
        finally:
            os.umask(before)
        if self.listener.socket_group is not None:
            os.chown(path, -1, self.listener.socket_group)
        os.chmod(path, self.listener.socket_mode)
        self._inode = os.stat(path).st_ino
        self.server_address = (path, 0)

    def server_close(self) -> None:
        """Close, and remove the socket's path if it is still ours."""
        super().server_close()
        path = self.listener.address.target
        try:
            if self._inode is not None and os.stat(path).st_ino == self._inode:
                os.unlink(path)
        except OSError:
            pass  # gone already

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept. Out of descriptors: say so once, pause, go on: connections wait in the backlog meanwhile."""
        try:
            sock, address = self.socket.accept()
        except OSError as error:
            if error.errno in (*NO_DESCRIPTORS, errno.ENOBUFS, errno.ENOMEM):
                self._pause(error)
            raise
        if sock.family != socket.AF_UNIX:
            for level, option, value in TCP_OPTIONS:
                sock.setsockopt(level, option, value)
        return sock, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, unless enough of them are busy with refusing."""
        if self.proxy.refusing >= MAX_REFUSALS:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def _pause(self, error: OSError) -> None:
        if time.monotonic() - self._complained > COMPLAINT_INTERVAL:
            self._complained = time.monotonic()
            text = f"cannot accept on {self.listener.address.url}: {error.strerror}; new connections wait until others close"
            self.proxy.diagnostics.say("error", text)
        time.sleep(DESCRIPTOR_PAUSE)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An exception nobody expected: named by kind and place, never with its values, which may hold secrets."""
        kind, _, trace = sys.exc_info()
        while trace and trace.tb_next:
            trace = trace.tb_next
        where = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}" if trace else "?"
        name = kind.__name__ if kind else "error"
        self.proxy.diagnostics.say("error", f"a connection to {self.listener.name} was closed by a defect: {name} at {where}")


# Small frames at once; and a vanished host noticed without traffic, as the engine's own server does (Go: 15 s).
TCP_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
)


def remove_dead_socket(path: str) -> None:
    """Remove a socket on which nobody answers; raises OSError for anything else that is in the way."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        raise OSError(errno.EEXIST, "the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, "another process answers on it")


class Service:
    """The running proxy: its listeners, from start to stop."""

    def __init__(self, proxy: Proxy, listeners: Sequence[Listener]) -> None:
        self.proxy = proxy
        self.servers: list[RelayServer] = []
        self._threads: list[threading.Thread] = []
        inherited = inherited_sockets()
        try:
            for listener in listeners:
                passed = next((sock for sock in inherited if listens_at(sock, listener.address)), None)
                if passed is not None:
                    inherited.remove(passed)
                self.servers.append(RelayServer(proxy, listener, passed))
            if inherited:
                raise ListenError(f"systemd passed a socket at {inherited[0].getsockname()!r}, which no --listen names")
        except ListenError:
            self._close()
            raise

    def start(self) -> None:
        """Accept from here on."""
        for server in self.servers:
            name = f"accept {server.listener.name}"
            thread = threading.Thread(target=server.serve_forever, name=name, args=(SHUTDOWN_POLL,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def alive(self) -> bool:
        """Whether all listeners still accept, which is what systemd's watchdog is told."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self, timeout: float) -> None:
        """Stop accepting, then stop the proxy; returns after `timeout` seconds at the latest, and a little."""
        for server in self.servers:
            server.shutdown()
        self._close()
        self.proxy.stop(time.monotonic() + timeout)

    def _close(self) -> None:
        for server in self.servers:
            server.server_close()


def inherited_sockets() -> list[socket.socket]:
    """The listening sockets that systemd passed (sd_listen_fds(3)); taken once, not to be inherited further."""
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return []
    sockets = [socket.socket(fileno=3 + number) for number in range(int(os.environ.pop("LISTEN_FDS", "0")))]
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def listens_at(sock: socket.socket, address: Address) -> bool:
    """Whether a socket is bound to this address."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return address.family == socket.AF_UNIX and name == address.target
    return sock.family == address.family and name[:2] == tuple(address.target[:2])


def notify_systemd(state: str) -> None:
    """Tell systemd (sd_notify(3)), where it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            pass  # systemd's own watchdog decides then


# =====================================================================================================================
# observation
# =====================================================================================================================


def metrics_text(proxy: Proxy) -> str:
    """The state as Prometheus reads it (text format 0.0.4)."""
    counters = proxy.log.counters()
    exchanges = proxy.exchanges()
    lag = sum(exchange.auditor.waiting for exchange in exchanges if exchange.auditor)
    version = f'version="{__version__}",python="{platform.python_version()}"'
    with proxy._lock:
        requests = sorted(proxy.requests.items())
    families: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        ("requests_total", "counter", "Requests answered.", [(f'method="{m}",status="{s}"', n) for (m, s), n in requests]),
        ("denied_total", "counter", "Requests refused by a rule.", [("", proxy.denied)]),
        ("open_streams", "gauge", "Audited streams and tunnels open now.", [("", sum(bool(e.audit) for e in exchanges))]),
        ("stream_bytes_total", "counter", "Payload bytes of audited streams.", [("", counters["bytes"])]),
        ("stream_frames_total", "counter", "Frames of audited streams.", [("", counters["frames"])]),
        ("findings_total", "counter", "Findings, repeats included.", finding_samples(counters["findings"])),
        ("scan_lag_bytes", "gauge", "Bytes that wait to be scanned.", [("", lag)]),
        ("scan_gap_bytes_total", "counter", "Bytes that passed unscanned.", [("", counters["unscanned"])]),
        ("audit_records_written_total", "counter", "Records in the audit log.", [("", counters["written"])]),
        ("audit_records_lost_total", "counter", "Records that were lost, counted in gaps.", [("", counters["lost"])]),
        ("audit_degraded", "gauge", "1 while the audit log cannot be written.", [("", int(counters["degraded"]))]),
        ("engine_up", "gauge", "1 if the engine answers.", [("", int(engine_answers(proxy.settings.upstream)))]),
        ("build_info", "gauge", "What runs.", [(version, 1)]),
    ]
    lines = []
    for name, kind, text, samples in families:
        lines += [f"# HELP dockeraudit_{name} {text}", f"# TYPE dockeraudit_{name} {kind}"]
        lines += [f"dockeraudit_{name}{{{labels}}} {value}" if labels else f"dockeraudit_{name} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def finding_samples(findings: Mapping[tuple[str, str], int]) -> list[tuple[str, float]]:
    """Label sets and counts of the findings by pattern and severity."""
    quote = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return [
        (f'pattern="{pattern.translate(quote)}",severity="{severity}"', count)
        for (pattern, severity), count in sorted(findings.items())
    ]


def engine_answers(socket_path: str) -> bool:
    """Whether the engine answers /_ping within a second."""
    try:
        return engine_answer(socket_path, "/_ping", 1.0)[0] == 200
    except (HTTPError, OSError):
        return False


def live_state(proxy: Proxy) -> dict[str, Any]:
    """What runs now, for the page at `/`."""
    streams = [
        {
            "stream": exchange.audit.number,
            "endpoint": exchange.route.endpoint,
            "container": exchange.audit.container_name or exchange.route.name,
            "client": exchange.handler.identity,
            "seconds": round(time.monotonic() - exchange.begun),
            "bytes": exchange.auditor.bytes if exchange.auditor else exchange.tunnelled,
        }
        for exchange in proxy.exchanges()
        if exchange.audit
    ]
    return {"streams": streams, "counters": proxy.log.counters(), "engine_up": engine_answers(proxy.settings.upstream)}


class AdminHandler(BaseHTTPRequestHandler):
    """`/healthz` (the process), `/readyz` (engine and log), `/metrics`, and `/`, the page of what runs now."""

    server_version = "dockeraudit"
    sys_version = ""
    timeout = HEAD_TIMEOUT
    server: AdminServer

    def do_GET(self) -> None:
        """Answer one of the four."""
        proxy = self.server.proxy
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._send(200, "ok\n")
        elif path == "/readyz":
            broken = [text for text, bad in self._checks(proxy) if bad]
            self._send(503 if broken else 200, "\n".join(broken or ["ready"]) + "\n")
        elif path == "/metrics":
            self._send(200, metrics_text(proxy), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/":
            self._send(200, self.server.page(), "text/html; charset=utf-8")
        else:
            self._send(404, "there is /, /healthz, /readyz and /metrics\n")

    do_HEAD = do_GET

    @staticmethod
    def _checks(proxy: Proxy) -> Iterator[tuple[str, bool]]:
        yield f"the engine at {proxy.settings.upstream} does not answer", not engine_answers(proxy.settings.upstream)
        yield "the audit log cannot be written", bool(proxy.log.counters()["degraded"])

    def _send(self, status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")  # the page's own policy cannot say this
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: probes come every few seconds."""


class AdminServer(ThreadingHTTPServer):
    """The admin listener: apart from the Docker listeners, since its paths would shadow the API."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: Proxy, address: Address) -> None:
        self.proxy = proxy
        self.address_family = address.family
        self._address = address
        try:
            super().__init__(address.target, AdminHandler)
        except OSError as error:
            raise ListenError(f"cannot listen on {address.url} (--admin-listen): {error.strerror or error}") from error

    def server_bind(self) -> None:
        """Bind without the base class's look-up of host names."""
        if self.address_family == socket.AF_UNIX:
            remove_dead_socket(str(self._address.target))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self._address.target)
        self.server_address = self.socket.getsockname()

    def page(self) -> str:
        """The report's page: what runs now, and what the end of the audit log holds."""
        summary = AuditSummary()
        path = self.proxy.settings.audit_log
        made = f"dockeraudit {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}. "
        if path == "-":
            made += "The audit log goes to standard output, so its findings are not shown here."
        else:
            made += f"Findings of the audit log's last {size_text(PAGE_TAIL)}; dockeraudit report reads all of it."
            try:
                read_tail(summary, path)
            except OSError:
                summary.losses["files_unreadable"] += 1
        return render_html(summary, title="dockeraudit: what runs now", live=live_state(self.proxy), made=made)


# =====================================================================================================================
# command line
# =====================================================================================================================

ENVIRONMENT = "DOCKERAUDIT_"
DESCRIPTION = """\
A Docker socket proxy that audits log streams: it relays the whole Engine API unchanged, and writes one JSON line for
each secret (keys, tokens, passwords) that container output carries past it.

  python3 dockeraudit.py                            relay 127.0.0.1:2375 to /var/run/docker.sock, audit to audit.log
  export DOCKER_HOST=tcp://127.0.0.1:2375           then use docker as always

commands: serve (the default), scan, verify, report, learn, rules, healthcheck; COMMAND --help says more
"""


class Option(NamedTuple):
    """An option of `serve`: its name on the command line, in the environment and in the file; how its text is read."""

    name: str
    default: Any
    read: Callable[[str], Any]
    metavar: Optional[str]
    help: str
    many: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


def read_choice(*choices: str) -> Callable[[str], str]:
    """A reader for one of a few words."""

    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ConfigurationError(f"{text!r} is not one of {', '.join(choices)}")
        return text.lower()

    return read


def read_number(kind: Callable[[str], Any], least: float, what: str) -> Callable[[str], Any]:
    """A reader for a number from `least` up."""

    def read(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            raise ConfigurationError(f"{text!r} is not {what}") from None
        if not least <= number < 1e9:
            raise ConfigurationError(f"{text!r} is not {what}")
        return number

    return read


def read_mode(text: str) -> int:
    """File mode bits, octal."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ConfigurationError(f"{text!r} is not an octal mode such as 0660")
    return int(text, 8)


def read_group(text: str) -> int:
    """A group, by name or number, as its number."""
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigurationError(f"{text!r} is not a group of this system, nor a group's number") from None


def read_switch(text: str) -> bool:
    """Yes or no."""
    return read_choice("1", "true", "yes", "on", "0", "false", "no", "off", "")(text) in ("1", "true", "yes", "on")


def read_upstream(text: str) -> str:
    """The engine's socket: `unix:///path` or a bare path."""
    path = text[len("unix://") :] if text.startswith("unix://") else text
    if not path.startswith("/"):
        raise ConfigurationError(f"{text!r} is not unix:///PATH or an absolute path; the engine is reached on its Unix socket")
    return path


def read_address(text: str) -> Address:
    """`tcp://HOST:PORT`, `tcp://[IPv6]:PORT` or `unix:///path`; IPv4 stands in for [::] where there is no IPv6."""
    legal = "tcp://HOST:PORT, tcp://[::]:PORT or unix:///PATH"
    scheme, _, rest = text.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return Address(text, socket.AF_UNIX, rest)
    host, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"{text!r} is not {legal}")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host == "::" and not has_ipv6():
        host = "0.0.0.0"
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise ConfigurationError(f"{text!r}: the host is not known; legal are {legal}") from None
    return Address(text, found[0][0], found[0][4])


def has_ipv6() -> bool:
    """Whether this host lets us bind to an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


OPTIONS = (
    Option("listen", "tcp://127.0.0.1:2375", read_address, "URL", "tcp://HOST:PORT, tcp://[::]:PORT or unix:///PATH; repeatable", many=True),
    Option("upstream", "/var/run/docker.sock", read_upstream, "URL", "the engine's socket"),
    Option("audit-log", "audit.log", str, "PATH", "where the records go; - is standard output"),
    Option("log-level", "info", read_choice(*LEVELS), "LEVEL", "diagnostics on standard error: debug, info, warning, error"),
    Option("shutdown-timeout", "10", read_number(float, 0, "a number of seconds"), "SECONDS", "how long open requests may finish"),
    Option("socket-mode", "0660", read_mode, "MODE", "mode of a Unix listener"),
    Option("socket-group", None, read_group, "GROUP", "group of a Unix listener"),
    Option("workers", "2", read_number(int, 1, "a number of threads from 1"), "N", "scanning threads"),
    Option("fsync", "interval", read_choice("always", "interval", "never"), "WHEN", "always, interval (each second or 64 KiB) or never"),
    Option("fingerprint-key", None, str, "FILE", "key of the fingerprints, made once; default: beside the log"),
    Option("on-audit-failure", "continue", read_choice("continue", "deny"), "WHAT", "continue, or deny what would go unrecorded"),
    Option("allow-host", "", str.lower, "NAME", "a Host that requests over TCP may name, * for any; repeatable", many=True),
    Option("allow-browser", "no", read_switch, None, "admit requests that web pages send"),
    Option("http2", "refuse", read_choice("refuse", "relay"), "WHAT", "refuse, or relay HTTP/2 without auditing it"),
    Option("rules", None, str, "FILE", "rules of your own (JSON)"),
    Option("only-rules", "", str, "ID", "only these rules; repeatable", many=True),
    Option("disable-rule", "", str, "ID", "not this rule; repeatable", many=True),
    Option("allow-secret", "", str, "FINGERPRINT", "a finding known as harmless, or CONTAINER:FINGERPRINT; repeatable", many=True),
    Option("policy", None, read_choice("off", "tecnativa", "linuxserver", "rules", "auto"), "NAME", "who may do what: off (the default), tecnativa, linuxserver, rules, auto"),
    Option("mode", "enforce", read_choice("enforce", "learn"), "WHAT", "enforce the policy, or learn what it would refuse"),
    Option("allow-from", "", str, "CIDR", "addresses that may connect; repeatable", many=True),
    Option("allow-uid", "", str, "UID", "users that may connect to a Unix listener; repeatable", many=True),
    Option("allow-gid", "", str, "GID", "groups that may connect to a Unix listener; repeatable", many=True),
    Option("tls-cert", None, str, "FILE", "certificate of the TCP listeners (PEM)"),
    Option("tls-key", None, str, "FILE", "its key"),
    Option("tls-client-ca", None, str, "FILE", "authority that clients' certificates must come from"),
    Option("admin-listen", None, read_address, "URL", "health, metrics and a page; never the Docker listener"),
    Option("config", None, str, "FILE", "INI file: [dockeraudit], [listener NAME]"),
)


def read_ini(path: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of an INI file with their keys, in order and with repetitions, which configparser cannot keep."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config: cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        key, equals, value = line.partition("=")
        if line[0] == "[" and line[-1] == "]":
            sections.append((line[1:-1].strip(), []))
        elif equals and sections:
            sections[-1][1].append((key.strip().lower(), value.strip()))
        else:
            raise ConfigurationError(f"{path}, line {number}: {line!r} is neither a [section] nor NAME = VALUE in one")
    return sections


def read_option(option: Option, texts: Sequence[str], where: str) -> Any:
    """An option's value from its texts; says where a bad one stands."""
    try:
        if not option.many:
            return option.read(texts[-1])
        return [option.read(part.strip()) for text in texts for part in text.split(",") if part.strip()]
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def option_parser(names: Optional[Sequence[str]] = None, **described: Any) -> OneLineParser:
    """The parser of `serve`'s options, or of those of them that another command takes; it knows nothing of their values yet."""
    given = {"prog": "dockeraudit", "description": DESCRIPTION, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = OneLineParser(**{**given, **described})
    parser.add_argument("--version", action="version", version=f"dockeraudit {__version__}")
    for option in OPTIONS:
        if names is not None and option.name not in names:
            continue
        default = f" (default: {option.default})" if option.default else ""
        kind: dict[str, Any] = {"action": "append", "metavar": option.metavar}
        if option.metavar is None:
            kind = {"action": "append_const", "const": "yes"}
        parser.add_argument(f"--{option.name}", dest=option.key, help=option.help.replace("%", "%%") + default, **kind)
    return parser


class OneLineParser(argparse.ArgumentParser):
    """argparse, with errors as one sentence and exit 78."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without the usage of thirty options before it."""
        raise ConfigurationError(f"{message}; see 'dockeraudit --help'")


def load_settings(arguments: Sequence[str], environ: Mapping[str, str], parser: Optional[OneLineParser] = None) -> Settings:
    """Command line over environment over file over default; raises ConfigurationError.

    `parser`: of a command with arguments of its own, which become settings as they are.
    """
    given = vars((parser or option_parser()).parse_intermixed_args(arguments))
    config = (given.get("config") or [environ.get(ENVIRONMENT + "CONFIG")])[-1]
    sections = read_ini(config) if config else []
    in_file: dict[str, list[str]] = {}
    for section, keys in sections:
        if section != "dockeraudit" and not section.startswith("listener "):
            raise ConfigurationError(f"{config}: [{section}] is not [dockeraudit] or [listener NAME]")
        for key, text in keys if section == "dockeraudit" else ():
            in_file.setdefault(key.replace("_", "-"), []).append(text)
    unknown = set(in_file) - {option.name for option in OPTIONS} - {"allow", "deny"}
    if unknown:
        raise ConfigurationError(f"{config}: {sorted(unknown)[0]!r} is not an option; see 'dockeraudit --help'")
    settings = Settings(**{**given, "sections": sections, "arguments": arguments})
    for option in OPTIONS:
        variable = ENVIRONMENT + option.key.upper()
        value: Any = [] if option.many else option.default
        if given.get(option.key):
            value = read_option(option, given[option.key], f"--{option.name}")
        elif variable in environ:
            value = read_option(option, [environ[variable]], variable)
        elif environ.get(SHARED_VARIABLES.get(option.name, "")):
            shared = SHARED_VARIABLES[option.name]
            value = read_option(option, [environ[shared]], shared)
        elif option.name in in_file:
            value = read_option(option, in_file[option.name], f"{config}: {option.name}")
        elif option.default:
            value = read_option(option, [option.default], option.name)
        setattr(settings, option.key, value)
    settings.allow_host = frozenset(settings.allow_host)
    if settings.fingerprint_key is None and settings.audit_log != "-":
        settings.fingerprint_key = default_key_path(settings.audit_log)
    return settings


# variables without our prefix, which other socket proxies take too
SHARED_VARIABLES = {"log-level": "LOG_LEVEL", "upstream": "SOCKET_PATH"}
LISTENER_KEYS = (
    "listen", "policy", "allow", "deny", "allow-from", "allow-uid", "allow-gid", "tls-cert", "tls-key", "tls-client-ca", "socket-mode", "socket-group"
)  # fmt: skip


def load_listeners(settings: Settings, environ: Mapping[str, str], say: Callable[[str, str], None]) -> list[Listener]:
    """The listeners of the file's [listener NAME] sections, else of --listen; raises ConfigurationError."""
    shared = {key: getattr(settings, key.replace("-", "_")) for key in LISTENER_KEYS if key not in ("listen", "allow", "deny")}
    rules = [f"{k} = {v}" for s, keys in settings.sections if s == "dockeraudit" for k, v in keys if k in ("allow", "deny")]
    rules += [line for line in environ.get(ENVIRONMENT + "ACCESS", "").replace(";", "\n").splitlines() if line.strip()]
    shared.update(rules=rules, variables=environ, mode=settings.mode)
    warnings: dict[str, None] = {}  # each said once, however many listeners it is about
    listeners = [
        section_listener(section, keys, shared, warnings) for section, keys in settings.sections if section.startswith("listener ")
    ]
    if not listeners:
        listeners = [make_listener(address.url, address, shared, warnings) for address in settings.listen]
    for warning in warnings:
        say("warning", warning)
    return listeners


def section_listener(section: str, keys: Sequence[tuple[str, str]], shared: Mapping[str, Any], warnings: dict[str, None]) -> Listener:
    """The listener of one [listener NAME] section; what it does not say is as for all."""
    own = dict(shared)
    rules: list[str] = []
    variables: dict[str, str] = {}
    address = None
    for key, value in keys:
        key = key.replace("_", "-")
        if key in ("allow", "deny"):
            rules.append(f"{key} = {value}")
        elif key == "listen":
            address = read_option(OPTIONS[0]._replace(many=False), [value], f"[{section}] listen")
        elif key in LISTENER_KEYS:
            option = next(option for option in OPTIONS if option.name == key)
            own[key] = read_option(option, [value], f"[{section}] {key}")
        elif key.upper().replace("-", "_") in SWITCHES:
            variables[key.upper().replace("-", "_")] = value
        else:
            raise ConfigurationError(f"[{section}]: {key!r} is not one of {', '.join(LISTENER_KEYS)}, nor a variable such as containers")
    if address is None:
        raise ConfigurationError(f"[{section}] has no 'listen = URL'")
    if rules or variables:
        own["rules"] = rules
        own["variables"] = {name: text for name, text in shared["variables"].items() if name not in SWITCHES}
        own["variables"].update(variables)
        if not any(key == "policy" for key, _ in keys):
            own["policy"] = "auto"
    return make_listener(section[len("listener ") :].strip(), address, own, warnings)


def make_listener(name: str, address: Address, own: Mapping[str, Any], warnings: dict[str, None]) -> Listener:
    """A listener with its policy, its clients and its TLS; raises ConfigurationError."""
    tcp = address.family != socket.AF_UNIX
    if own["variables"].get("DISABLE_IPV6", "").lower() in ("1", "true", "yes") and address.target[0] == "::":
        address = Address(address.url, socket.AF_INET, ("0.0.0.0", address.target[1]))
    try:
        clients = client_filter(own["allow-from"] if tcp else (), () if tcp else own["allow-uid"], () if tcp else own["allow-gid"])
        policy, more = listener_policy(own["policy"], own["rules"], own["variables"])
    except PolicyError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    warnings.update(dict.fromkeys(more))
    if own["mode"] == "learn":
        policy = policy or DenyAll()
    tls = tls_context(own) if tcp and (own["tls-cert"] or own["tls-key"] or own["tls-client-ca"]) else None
    if not address.loopback and tls is None and clients is None:
        warnings[f"{address.url} is open to the network: whoever reaches an open Docker port is root on this host"] = None
    return Listener(name, address, policy, clients, tls, own["socket-mode"], own["socket-group"])


def listener_policy(chosen: Optional[str], rules: Sequence[str], variables: Mapping[str, str]) -> tuple[Optional[Policy], Sequence[str]]:
    """The policy that was chosen, or that the rules or variables mean, and warnings; raises PolicyError."""
    used = set_switches(variables)
    if chosen == "auto" and rules and used:
        raise PolicyError(f"there are rules and there is {used[0]}: say which counts with policy rules, tecnativa or linuxserver")
    if chosen == "rules" or rules and chosen in (None, "auto"):
        return native_policy(rules), ()
    policy, warnings = policy_from_environment(variables, chosen or "off")
    if rules:
        warnings.append(f"{rules[0]!r} and the other rules do not count under policy {chosen}")
    return policy, warnings


def tls_context(own: Mapping[str, Any]) -> ssl.SSLContext:
    """TLS 1.2 and up with ALPN http/1.1; with a client CA, only its certificates are let in."""
    if not own["tls-cert"]:
        raise ConfigurationError("TLS: --tls-key and --tls-client-ca need --tls-cert, the server's certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could make a write wait for its reads
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(own["tls-cert"], own["tls-key"], password=lambda: "")  # never ask a terminal
        if own["tls-client-ca"]:
            context.load_verify_locations(own["tls-client-ca"])
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"TLS: cannot load {own['tls-cert']}, its key or the client CA: {error}") from None
    return context


def load_scanner(settings: Settings) -> Scanner:
    """The rules that were chosen; raises ConfigurationError."""
    try:
        own = load_rules(settings.rules) if settings.rules else ()
        return Scanner(select_rules(RULES + tuple(own), only=settings.only_rules, disable=settings.disable_rule))
    except (RuleError, OSError) as error:
        raise ConfigurationError(str(error)) from None


def raise_descriptor_limit() -> None:
    """As many descriptors as MAX_CONNECTIONS take, where the hard limit allows: the usual soft one is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def command_serve(arguments: Sequence[str]) -> int:
    """`serve`: relay until SIGTERM or SIGINT."""
    settings = load_settings(arguments, os.environ)
    diagnostics = Diagnostics(settings.log_level)
    scanner = load_scanner(settings)
    listeners = load_listeners(settings, os.environ, diagnostics.say)
    raise_descriptor_limit()
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before any thread: all inherit it, and the main thread waits
    log = open_log(settings, scanner, [listener.address.url for listener in listeners], diagnostics)
    proxy = Proxy(settings, log, scanner, diagnostics)
    try:
        service = Service(proxy, listeners)
        admin = AdminServer(proxy, settings.admin_listen) if settings.admin_listen else None
    except ListenError:
        log.close("cannot listen", settings.shutdown_timeout)
        raise
    service.start()
    if admin:
        threading.Thread(target=admin.serve_forever, name="admin", daemon=True).start()
        if not settings.admin_listen.loopback:
            diagnostics.say("warning", f"{settings.admin_listen.url} tells whoever reaches it the names of containers and clients")
    announce(settings, listeners, diagnostics)
    notify_systemd("READY=1")
    number = wait_for_end(signals, service, diagnostics)
    return stop_service(service, number, signals, settings.shutdown_timeout)


def open_log(
    settings: Settings, scanner: Scanner, listen: Sequence[str], diagnostics: Diagnostics,
    write: Callable[[int, bytes], int] = os.write, queue_limit: int = QUEUE_LIMIT,
) -> AuditLog:  # fmt: skip
    """The audit log, open; raises AuditLogError."""
    key = load_fingerprint_key(settings.fingerprint_key)
    if settings.fingerprint_key is None:
        diagnostics.say("notice", "the fingerprints' key lives for this run only; --fingerprint-key FILE keeps it")
    log = AuditLog(
        settings.audit_log,
        key,
        key_path=settings.fingerprint_key,
        fsync=settings.fsync,
        diagnose=diagnostics.say,
        allow=settings.allow_secret,
        write=write,
        queue_limit=queue_limit,
    )
    log.open(version=__version__, pid=os.getpid(), listen=list(listen), upstream=settings.upstream, rules=len(scanner.rules))
    return log


def announce(settings: Settings, listeners: Sequence[Listener], diagnostics: Diagnostics) -> None:
    """Say what runs, and the line to type next."""
    for listener in listeners:
        say_policy(listener, diagnostics)
        diagnostics.say("info", f"listening on {listener.address.url}")
    try:
        version = ask_engine(settings.upstream, "/version")
        found = f"Docker {version.get('Version')} (API {version.get('ApiVersion')})"
        diagnostics.say("info", f"the engine at {settings.upstream} is {found}")
    except (HTTPError, OSError, ValueError, AttributeError) as error:
        diagnostics.say("warning", f"{error}; requests get 502 until it answers")
    where = "standard output" if settings.audit_log == "-" else os.path.abspath(settings.audit_log)
    diagnostics.say("info", f"findings go to {where}")
    diagnostics.say("info", f"next: export DOCKER_HOST={client_url(listeners[0].address)}")


def say_policy(listener: Listener, diagnostics: Diagnostics) -> None:
    """The table that decides at a listener."""
    for line in listener.policy.table() if listener.policy else ():
        diagnostics.say("info", f"{listener.name}: {line}")


def client_url(address: Address) -> str:
    """What a client on this host puts into DOCKER_HOST."""
    if address.family == socket.AF_UNIX:
        return address.url
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(address.target[0], address.target[0])
    return f"tcp://[{host}]:{address.target[1]}" if ":" in host else f"tcp://{host}:{address.target[1]}"


def wait_for_end(signals: set[signal.Signals], service: Service, diagnostics: Diagnostics) -> int:
    """Wait for SIGTERM or SIGINT; SIGHUP reopens the log and re-reads the rules; systemd's watchdog is fed."""
    watchdog = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    while True:
        info = signal.sigtimedwait(signals, watchdog or 3600)
        if info is None:
            if service.alive():
                notify_systemd("WATCHDOG=1")
        elif info.si_signo == signal.SIGHUP:
            notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
            service.proxy.log.reopen()
            reload_listeners(service, diagnostics)
            notify_systemd("READY=1")
        else:
            return info.si_signo


def reload_listeners(service: Service, diagnostics: Diagnostics) -> None:
    """Re-read policies, allow lists and certificates; a bad file keeps the old ones, and says so."""
    settings = service.proxy.settings
    try:
        fresh = load_settings(settings.arguments, os.environ)
        listeners = {item.address.url: item for item in load_listeners(fresh, os.environ, diagnostics.say)}
    except ConfigurationError as error:
        diagnostics.say("error", f"SIGHUP: {error}; the rules in force stay as they are")
        return
    for name in RELOADED:
        setattr(settings, name, getattr(fresh, name))
    for server in service.servers:
        url = server.listener.address.url
        if url not in listeners:
            diagnostics.say("warning", f"SIGHUP: {url} is no longer configured; until a restart it stays open under the rules it had")
            continue
        server.listener = listeners.pop(url)
        say_policy(server.listener, diagnostics)
    for url in listeners:
        diagnostics.say("warning", f"SIGHUP: {url} is new; it is listened on after a restart")
    diagnostics.say("info", "SIGHUP: rules, allow lists and certificates have been read again")


# what SIGHUP re-reads besides the listeners' own settings
RELOADED = ("allow_host", "allow_browser", "mode")


def stop_service(service: Service, number: int, signals: set[signal.Signals], timeout: float) -> int:
    """Stop within the timeout; a second signal ends at once. Returns the exit status."""
    notify_systemd("STOPPING=1")
    done: Future[int] = Future()

    def stop() -> None:
        deadline = time.monotonic() + timeout
        try:
            service.stop(timeout)
            done.set_result(service.proxy.log.close(signal.Signals(number).name, max(0.5, deadline - time.monotonic())))
        except Exception as error:  # a defect must not leave the process waiting for ever
            service.proxy.diagnostics.say("error", f"stopping failed by a defect: {type(error).__name__}")
            done.set_result(EXIT_LOST)

    threading.Thread(target=stop, name="stop", daemon=True).start()
    while not done.done():
        again = signal.sigtimedwait(signals - {signal.SIGHUP}, 0.02)
        if again:
            os._exit(128 + again.si_signo)
    return done.result()


SCAN_OPTIONS = ("upstream", "log-level", "fsync", "fingerprint-key", "rules", "only-rules", "disable-rule", "allow-secret", "config")
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
    parser.add_argument("files", nargs="*", metavar="FILE", help="a file, a folder, a .gz, or - for standard input, which is the default")
    parser.add_argument("--containers", action="store_true", help="the logs of all containers of the engine, running or not")
    parser.add_argument("--audit-log", action="append", metavar="PATH", help="where the records go (default: -, standard output)")
    parser.add_argument("--fail-on", metavar="SEVERITY", default="LOW", help="exit 1 only for such a finding, or a graver one (default: LOW)")
    settings = load_settings(arguments, {**os.environ, ENVIRONMENT + "AUDIT_LOG": "-"}, parser)
    try:
        least = severity_rank("--fail-on", settings.fail_on)
    except ReportError as error:
        raise ConfigurationError(str(error)) from None
    diagnostics = Diagnostics(settings.log_level)
    scanner = load_scanner(settings)
    scan = Scan(scanner, open_log(settings, scanner, [], diagnostics, write_or_end, SCAN_QUEUE), diagnostics)
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
        grave = [name for name, severity in scan.log.counters()["findings"] if SEVERITY_RANK.get(severity, 0) >= least]
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
        self._client = {"listener": "scan", "uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid(), "command": command_of(os.getpid())}
        self._lock = threading.Lock()
        self._terminal = diagnostics.stream.isatty()
        self._shown = time.monotonic()
        self._begun = time.monotonic()
        self._bytes = self._done = 0
        self._total: Optional[int] = None  # sources in all, where that is known

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
            for folder, folders, names in os.walk(path, onerror=lambda error: self._fail(f"cannot read the folder {error.filename}: {error.strerror}")):
                folders.sort()
                yield from filter(os.path.isfile, (os.path.join(folder, name) for name in sorted(names)))

    # -- containers

    def containers(self, socket_path: str) -> None:
        """Scan the logs of all containers, several at once."""
        try:
            with closing(UnixHTTPConnection(socket_path)) as connection:
                head, blocks = engine_stream(connection, "/containers/json?all=1")
                answer = b"".join(blocks)
            if head.status != 200:
                raise EngineError(f"the engine answered {head.status}")
            found = [(container["Id"], container_title(container)) for container in json.loads(answer)]
        except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            self._fail(f"cannot list the containers of {socket_path}: {error}")
            return
        self._total = self._done + len(found)
        executor = ThreadPoolExecutor(SCAN_THREADS, thread_name_prefix="scan")
        try:
            for job in [executor.submit(self._container, socket_path, container_id, name) for container_id, name in found]:
                job.result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _container(self, socket_path: str, container_id: str, name: str) -> None:
        """Scan one container's log. With a terminal it is raw, which engines before 23 do not say in their answer."""
        try:
            tty = nested(ask_engine(socket_path, f"/containers/{container_id}/json"), ("Config", "Tty"))
            with closing(UnixHTTPConnection(socket_path)) as connection:
                head, blocks = engine_stream(connection, f"/containers/{container_id}/logs?stdout=1&stderr=1")
                if head.status != 200:
                    raise EngineError(f"the engine answered {head.status}: {engine_message(b''.join(blocks))}")
                decoder = RawDecoder("tty") if tty else StreamDemuxer(None)
                self._source(container_id, name, blocks, decoder, name)
        except (HTTPError, OSError, ValueError) as error:
            self._fail(f"cannot read the log of {name}: {error}")

    # -- either

    def _source(self, container_id: str, container_name: Optional[str], blocks: Iterable[bytes], decoder: Decoder, title: str) -> None:
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
            audit.close(framing=decoder.framing or "raw", nbytes=size, frames=decoder.frames, lines=lines, unscanned=0, reason=reason)
        with self._lock:
            self._done += 1
        if not self._terminal:
            self._diagnostics.say("info" if container_name else "debug", printable(f"scanned {title}: {size_text(size)}"))

    def _feed(self, texts: dict[str, TextScanner], audit: StreamAudit, runs: Sequence[Run]) -> None:
        """Scan some runs, once the log has room for what they may hold."""
        deadline = time.monotonic() + SCAN_PATIENCE
        while self.log.held > SCAN_HELD and time.monotonic() < deadline:
            time.sleep(0.01)
        for stream_type, data in runs:
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
            self._diagnostics.stream.write("\r" + fit(text, WIDTH - 1) + "\x1b[K" if text else "\r\x1b[K")
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
            self._diagnostics.say("info", f"{self._figures()}, in {time.monotonic() - self._begun:.1f} s")


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


def command_rules(arguments: Sequence[str]) -> int:
    """`rules`: the table of rules; --markdown as a document."""
    parser = OneLineParser(prog="dockeraudit rules", description=command_rules.__doc__)
    parser.add_argument("--markdown", action="store_true", help="as docs/rules.md")
    options, rest = parser.parse_known_args(arguments)
    rules = load_scanner(load_settings(rest, os.environ)).rules
    if options.markdown:
        sys.stdout.write(rules_markdown(rules))
        return 0
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        sys.stdout.write(f"{rule.severity:6}  {rule.id:{width}}  {rule.name}\n")
    return 0


def command_verify(arguments: Sequence[str]) -> int:
    """`verify FILE...`: check audit logs: 0 whole, 1 something is missing, changed or counted as lost."""
    parser = OneLineParser(prog="dockeraudit verify", description=command_verify.__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="the files of one log in any order, also .gz; - is standard input")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--anchor", action="append", default=[], metavar="HASH", help="a line's hash seen elsewhere; repeatable")
    options = parser.parse_args(arguments)
    return run_verify(options.files, json_output=options.json, anchors=options.anchor, out=sys.stdout)


def command_report(arguments: Sequence[str]) -> int:
    """`report [FILE...]`: what leaked, where, who read it, and what was not recorded; of the audit log and its rotated files."""
    parser = option_parser(("audit-log", "config"), prog="dockeraudit report", description=command_report.__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help="audit logs, also .gz; - is standard input; default: --audit-log's, with its rotated files")
    for name, metavar, text in (
        ("since", "WHEN", "24h, 7d or a timestamp"),
        ("container", "NAME", "a name, or the beginning of an id"),
        ("pattern", "NAME", "a rule's name or id"),
        ("secret", "FINGERPRINT", "one credential: every container it leaked in, and every reader that saw it"),
        ("severity", "SEVERITY", "HIGH, MEDIUM or LOW, and above"),
        ("fail-on", "SEVERITY", "exit 1 if there is such a finding, or a graver one"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--state", metavar="FILE", help="remember in FILE what was told, and tell nothing unless there is more: for cron")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--html", action="store_true", help="one page, self-contained")
    options = load_settings(arguments, os.environ, parser)
    gc.disable()  # the tables hold no cycles, and this process ends with the report: a third faster
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a locale without the character at hand
    return run_report(
        options.files or log_history(options.audit_log, options.since),
        since=options.since,
        container=options.container,
        pattern=options.pattern,
        secret=options.secret,
        severity=options.severity,
        json_output=options.json,
        html=options.html,
        fail_on=options.fail_on,
        state=options.state,
        out=sys.stdout,
        err=sys.stderr,
        now=time.time(),
    )


def command_learn(arguments: Sequence[str]) -> int:
    """`learn AUDIT_LOG...`: the least settings that admit what the log has seen."""
    parser = OneLineParser(prog="dockeraudit learn", description=command_learn.__doc__)
    parser.add_argument("files", nargs="+", metavar="AUDIT_LOG", help="audit logs, also .gz; - is standard input")
    parser.add_argument("--policy", choices=("linuxserver", "tecnativa"), default="linuxserver", help="whose variables (default: %(default)s, which can open less)")
    parser.add_argument("--listener", metavar="NAME", help="only what came to this listener (its name or URL)")
    options = parser.parse_args(arguments)
    try:
        records = (record for record in read_records(options.files) if options.listener in (None, nested(record, ("client", "listener"))))
        lines = learn(records, options.policy == "linuxserver")
    except OSError as error:
        raise ConfigurationError(f"cannot read {error.filename}: {error.strerror}") from None
    sys.stdout.write("".join(line + "\n" for line in lines))
    return 0


def read_records(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The records of audit logs; lines that are none are passed over (`verify` names them)."""
    for path in paths:
        with open_for_scan(path) as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record


def command_healthcheck(arguments: Sequence[str]) -> int:
    """`healthcheck`: 0 if a listener answers with anything but 502, else 69."""
    settings = load_settings(arguments, os.environ)
    listeners = load_listeners(settings, os.environ, lambda level, text: None)
    for listener in listeners:
        status = ask_listener(listener)
        if status is not None:
            return EXIT_UNAVAILABLE if status == 502 else 0
    return EXIT_UNAVAILABLE


def ask_listener(listener: Listener) -> Optional[int]:
    """The status that a listener answers to /_ping; None if nobody does. Of TLS the connection suffices."""
    address = listener.address
    target = address.target
    if address.family != socket.AF_UNIX:
        local = {"0.0.0.0": "127.0.0.1", "::": "::ffff:127.0.0.1"}.get(target[0], target[0])  # ::1 can be off where :: is not
        target = (local,) + tuple(target[1:])
    with socket.socket(address.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(HEALTHCHECK_TIMEOUT)
        try:
            sock.connect(target)
            if listener.tls:
                return 200
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = STATUS_LINE.match(sock.recv(BLOCK))
        except OSError:
            return None
    return int(line.group(2)) if line else None


HEALTHCHECK_TIMEOUT = 5.0  # seconds for each listener

COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "serve": command_serve,
    "scan": command_scan,
    "verify": command_verify,
    "report": command_report,
    "learn": command_learn,
    "rules": command_rules,
    "healthcheck": command_healthcheck,
}


def dispatch(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status. Errors are one sentence on standard error."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    try:
        if command:
            return command(arguments[1:])
        if arguments and not arguments[0].startswith("-"):
            raise ConfigurationError(f"{arguments[0]!r} is not a command; there are {', '.join(COMMANDS)}")
        return command_serve(arguments)
    except ConfigurationError as error:
        status, text = EXIT_CONFIGURATION, str(error)
    except ListenError as error:
        status, text = EXIT_CANNOT_LISTEN, str(error)
    except AuditLogError as error:
        status, text = error.status, str(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return 141  # the reader of our output is gone: as a process that SIGPIPE ended
    sys.stderr.write(f"dockeraudit: {text}\n")
    return status


def run() -> NoReturn:
    """The program. Ends the process itself: a thread stuck in a hung disk would be waited for, for ever."""
    status = dispatch(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)


if __name__ == "__main__":
    run()
