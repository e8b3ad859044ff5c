"""HTTP/1.1 messages: heads and bodies as RFC 9112 has them. Performs no I/O.

    bytes ─▶ head_length ─▶ parse_request_head / parse_response_head ─▶ framing ─▶ body reader

The parser is strict where two readers could differ, and keeps every byte that it accepts: what is
forwarded is built from the field lines as they came.
"""

from __future__ import annotations

import functools
import http.client
import json
import re
from collections.abc import Sequence
from typing import NamedTuple, Union

from _dockeraudit.errors import EngineError, HTTPError

MAX_HEAD = (
    1 << 20
)  # bytes of a head in all; Go's http.DefaultMaxHeaderBytes, so the engine's own limit
MAX_CHUNK_LINE = (
    4096  # bytes of a chunk's size line with extensions; Go's net/http/internal.maxLineLength
)
MAX_TRAILER = 64 << 10  # bytes of a trailer section; none of Docker's clients sends one
KNOWN_FIELD, KNOWN_FIELDS = (
    96,
    1024,
)  # bytes of a field line, and how many of them, that are kept parsed
KNOWN_HEAD, KNOWN_HEADS = 1024, 256  # and of whole heads
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
HOP_FIELDS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"}
)
# Fields that a Connection header cannot name away: without them the message would end elsewhere or mean another.
FIXED_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"host", b"te", b"trailer"})
READ_FIELDS = (
    HOP_FIELDS | FIXED_FIELDS | {b"content-type", b"origin", b"sec-fetch-site"}
)  # the others are passed on unread


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

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of this lower-case name, one of READ_FIELDS."""
        assert name in READ_FIELDS
        values = self.index.get(name)
        return values[0] if values else None

    def members(self, name: bytes) -> list[bytes]:
        """The members of a list-valued field (RFC 9110 §5.6.1), lower-case."""
        values = self.index.get(name)
        if not values:
            return []
        return [
            member.strip().lower()
            for value in values
            for member in value.split(b",")
            if member.strip()
        ]

    @functools.cached_property
    def keeps_alive(self) -> bool:
        """Whether the connection persists after this message (RFC 9112 §9.3)."""
        options = self.members(b"connection")
        if b"close" in options:
            return False
        return self.version == b"1.1" or b"keep-alive" in options

    @property
    def as_it_came(self) -> bytes:
        """All its lines, those of one hop too, in their order and spelling."""
        return b"".join([self.start_line, *[field.line for field in self.fields]])

    @functools.cached_property
    def end_to_end(self) -> bytes:
        """Its lines, but those of the fields of one hop, in their order and spelling."""
        if HOP_FIELDS.isdisjoint(
            self.index
        ):  # as in every answer of an engine that keeps its connection
            return b"".join([self.start_line, *[field.line for field in self.fields]])
        nominated = HOP_FIELDS.union(self.members(b"connection")) - FIXED_FIELDS
        return b"".join(
            [self.start_line, *[field.line for field in self.fields if field.key not in nominated]]
        )


class RequestHead(Head):
    """A request's head; `method` and `target` as they came."""

    def __init__(
        self,
        method: bytes,
        target: bytes,
        version: bytes,
        fields: Sequence[Field],
        start_line: bytes,
    ) -> None:
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

    def __init__(
        self, status: int, version: bytes, fields: Sequence[Field], start_line: bytes
    ) -> None:
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
        raise HTTPError(
            400, f"the request has {len(hosts)} Host fields, HTTP/1.1 needs exactly one"
        )
    if hosts and not HOST.fullmatch(hosts[0]):
        raise HTTPError(400, "the Host field holds an illegal character")
    return request


def parse_response_head(head: bytes) -> ResponseHead:
    """A response's head, complete with its empty line; raises EngineError."""
    line = STATUS_LINE.match(head)
    if line is None:
        raise EngineError("the engine's answer does not begin with an HTTP/1.1 status line")
    try:
        return ResponseHead(
            int(line.group(2)), line.group(1), parse_fields(head, line.end()), line.group()
        )
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
    return [
        known_field(line) if len(line) <= KNOWN_FIELD and b"uth" not in line else parse_field(line)
        for line in lines
    ]


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
        raise HTTPError(
            400, "the request target holds a '%' that is not followed by two hex digits"
        )
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
            raise HTTPError(
                400, "the request's Transfer-Encoding is not 'chunked' alone in HTTP/1.1"
            )
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
            raise EngineError(
                "the engine's answer has a Transfer-Encoding other than 'chunked' alone"
            )
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
        self.line = (
            b""  # the beginning of a size line, or of the trailer section, that has not ended yet
        )
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
            raise HTTPError(
                400, "a chunk's size line is not a hexadecimal number (RFC 9112, section 7.1)"
            )
        size = int(match.group(1), 16)
        if size > 0 and len(self.sizes) < 4096 and len(self.line) < 16:
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
            if (
                field.key in FIXED_FIELDS
            ):  # RFC 9110 §6.5.1: a reader that merged it would see another message
                raise HTTPError(
                    400, f"the trailer section of a chunked body holds {field.name.decode('ascii')}"
                )
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
    return head.end_to_end + (
        b"\r\n" if client_version == b"1.1" else b"Connection: keep-alive\r\n\r\n"
    )


def error_response(
    status: int, message: str, method: bytes = b"GET", *, keep: bool = False
) -> bytes:
    """An answer of our own, as Docker's clients print it: JSON with one `message`.

    `keep`: the connection goes on after it.
    """
    body = json.dumps({"message": f"dockeraudit: {message}"}).encode() + b"\n"
    reason = http.client.responses.get(status, "Error")
    connection = "" if keep else "Connection: close\r\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{connection}\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)


# RFC 3986 §3.1, as Go's URL parser reads it; what follows may be '//authority/path' or a path alone.
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*:")
