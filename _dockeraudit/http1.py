"""HTTP/1.1 messages: heads and bodies as RFC 9112 has them. Performs no I/O.

    bytes ─▶ head_length ─▶ parse_request_head / parse_response_head ─▶ framing ─▶ body reader

The parser refuses what two readers could understand in two ways. What it accepts is forwarded as it
came: the start line and the field lines, except the fields that RFC 9110 gives to one hop.
"""

from __future__ import annotations

import functools
import http.client
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, Union

from _dockeraudit.errors import EngineError, HTTPError

# -- limits

#: Bytes of a head: Go's http.DefaultMaxHeaderBytes and the slack that its server adds.
MAX_HEAD = (1 << 20) + 4096
#: Bytes of those fields of a head that the proxy reads itself. Real heads have some hundred; a head
#: of 1 MiB could otherwise be made of 200,000 of them, each an object in memory.
MAX_READ_FIELDS = 64 << 10
#: Bytes of a chunk's size line with its extensions: Go's net/http/internal.maxLineLength.
MAX_CHUNK_LINE = 4096
#: Bytes of a trailer section: what Go's buffer holds, which is the engine's own limit.
MAX_TRAILER = 4096
#: Bytes of a head that is kept parsed, and how many such heads there are of requests and answers.
KNOWN_HEAD, KNOWN_HEADS = 1024, 256
#: Chunk sizes that a reader remembers. Lines of a log have few lengths.
KNOWN_SIZES = 1024

# -- grammar

# RFC 9110 §5.6.2: token
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9110 §5.5: field-content with obs-text, and the white space within and around it
TEXT = rb"[\t -~\x80-\xff]*"
# RFC 9112 §3: request-line. One space each; the target's own grammar is check_target's. Bytes
# beyond ASCII are illegal in a target by RFC 3986, but the engine takes them.
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!-~\x80-\xff]+) HTTP/(1\.[01])\r\n")
# RFC 9112 §4: status-line. Real servers leave out the space before an empty reason.
STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: " + TEXT + rb")?\r\n")
# RFC 9112 §5: field-line. No space before the colon, no obs-fold, no control byte but HTAB.
FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):(" + TEXT + rb")\r\n")
# RFC 9112 §7.1: chunk-size and extensions. Sixteen digits would pass Go's limit of 2^63.
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;" + TEXT + rb")?\r\n")
# The same line, and a line of a trailer section (RFC 9112 §7.1.2), as far as they have come: each
# matches the longest beginning of a text with which a legal line can begin.
CHUNK_LINE_SO_FAR = re.compile(rb"(?:[0-9A-Fa-f]{1,15}(?:;" + TEXT + rb")?(?:\r\n?)?)?")
TRAILER_SO_FAR = re.compile(rb"(?:\r\n?|" + TOKEN + rb"(?::" + TEXT + rb"(?:\r\n?)?)?)?")
# RFC 9110 §8.6: Content-Length; Go reads it into 63 bits.
LENGTH = re.compile(rb"[0-9]{1,18}")
# RFC 3986 §2.1: what Go refuses in a path
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# RFC 3986 §3.1, as Go's URL parser reads it; '//authority/path' or a path alone may follow.
SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*:")
# RFC 9110 §7.2: Host, the characters that Go's server admits
HOST = re.compile(rb"[0-9A-Za-z!$%&'()*+,\-.:;=\[\]_~]*")
# A carriage return that ends no line. The last byte of what has come may be half of a CR LF.
BARE_CR = re.compile(rb"\r(?!\n)(?!\Z)")
LAST_CHUNK = b"0\r\n\r\n"  # as nearly every sender writes it, with an empty trailer section
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n"  # RFC 9113 §3.4, as far as it differs from a request
# RFC 9110 §7.6.1: fields of one hop. Transfer-Encoding, TE and Trailer are such fields too, but
# the body is relayed with its chunks.
HOP_FIELDS = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"}
)
# Fields that stay although a Connection field names them: without them the message would end
# elsewhere or mean something else.
FIXED_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"host", b"te", b"trailer"})
# The proxy reads these fields; it passes all others on unread.
READ_FIELDS = (
    HOP_FIELDS
    | FIXED_FIELDS
    | {b"content-encoding", b"content-type", b"expect", b"origin", b"sec-fetch-site"}
)
# Fields of heads that may be kept in memory: none of them carries credentials.
KEPT_FIELDS = (
    rb"(?:(?i:accept|accept-encoding|api-version|builder-version|cache-control|connection"
    rb"|content-length|content-type|date|docker-experimental|host|libpod-api-version|ostype|pragma"
    rb"|server|swarm|transfer-encoding|user-agent):[^\r\n]*\r\n)*\r\n"
)
KEPT_RESPONSE = re.compile(rb"HTTP/1\.1 [^\r\n]*\r\n" + KEPT_FIELDS)


class Head:
    """What the proxy keeps of a message's head.

    `end_to_end`: the start line and the field lines that are forwarded, each with CR LF.
    `index`: the values of READ_FIELDS by lower-case name, in their order.
    """

    def __init__(self, version: bytes, end_to_end: bytes, index: dict[bytes, list[bytes]]) -> None:
        self.version = version
        self.end_to_end = end_to_end
        self.index = index

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of this lower-case name, one of READ_FIELDS."""
        assert name in READ_FIELDS
        values = self.index.get(name)
        return values[0] if values else None

    def members(self, name: bytes) -> list[bytes]:
        """The members of a list-valued field, lower-case."""
        return list_members(self.index.get(name, ()))

    @functools.cached_property
    def keeps_alive(self) -> bool:
        """Whether the connection persists after this message (RFC 9112 §9.3)."""
        options = self.members(b"connection")
        if b"close" in options:
            return False
        return self.version == b"1.1" or b"keep-alive" in options


class RequestHead(Head):
    """A request's head; `method` as it came."""

    def __init__(
        self, method: bytes, version: bytes, end_to_end: bytes, index: dict[bytes, list[bytes]]
    ) -> None:
        super().__init__(version, end_to_end, index)
        self.method = method
        self.framing = NO_BODY

    @property
    def target(self) -> bytes:
        """The request target as it came. It is cut out anew each time, as it may hold 1 MiB."""
        start = len(self.method) + 1
        return self.end_to_end[start : self.end_to_end.index(b" ", start)]

    @functools.cached_property
    def replayable(self) -> bool:
        """Whether it may be sent twice: it changes nothing (RFC 9110 §9.2.1) and has no body."""
        return self.method in (b"GET", b"HEAD") and self.framing is NO_BODY


class ResponseHead(Head):
    """A response's head with its `status`; `as_it_came` has the fields of one hop too."""

    def __init__(
        self,
        status: int,
        version: bytes,
        as_it_came: bytes,
        end_to_end: bytes,
        index: dict[bytes, list[bytes]],
    ) -> None:
        super().__init__(version, end_to_end, index)
        self.status = status
        self.as_it_came = as_it_came


def empty_lines(buffer: bytes) -> int:
    """How many bytes of empty lines stand before a request line; the caller drops them (§2.2)."""
    blank = buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
    end = blank.rfind(b"\n") + 1
    return 0 if b"\r" in blank[:end].replace(b"\r\n", b"") else end


def head_length(buffer: bytes, seen: int = 0, what: str = "request") -> int:
    """The length of the head at the start of `buffer` with its empty line; 0 if more is needed.

    `seen`: bytes that an earlier call has looked at. A line ends in CR LF or, as RFC 9112 §2.2
    allows, in LF alone. Raises HTTPError: 400 for a bare CR, which would never end the head, and
    for an empty line at the start; 431 beyond MAX_HEAD.
    """
    if buffer[:1] == b"\n" or buffer[:2] == b"\r\n":
        raise HTTPError(400, f"the {what} begins with an empty line")
    length = first_empty_line(buffer, max(0, seen - 2))
    if (length or len(buffer)) > MAX_HEAD:
        raise HTTPError(431, f"the {what}'s head is larger than {MAX_HEAD} bytes")
    if not length and BARE_CR.search(buffer, max(0, seen - 1)):
        raise HTTPError(400, f"the {what}'s head has a CR that is not followed by LF")
    return length


def first_empty_line(buffer: bytes, start: int) -> int:
    """Where the first empty line behind another line ends; 0 if there is none."""
    crlf = buffer.find(b"\n\r\n", start)
    lone = buffer.find(b"\n\n", start, crlf + 1 if crlf >= 0 else len(buffer))
    if lone >= 0:
        return lone + 2
    return crlf + 3 if crlf >= 0 else 0


def parse_request_head(raw: bytes) -> RequestHead:
    """A request's head, complete with its empty line; raises HTTPError (400, 431)."""
    raw = with_crlf(raw)
    line = REQUEST_LINE.match(raw)
    if line is None:
        raise HTTPError(400, "the request line is not 'METHOD TARGET HTTP/1.1'")
    method, target, version = line.groups()
    check_target(target, method)
    index = read_fields(raw, line.end())
    hosts = index.get(b"host", ())
    if len(hosts) > 1 or (version == b"1.1" and not hosts):
        raise HTTPError(
            400, f"the request has {len(hosts)} Host fields, HTTP/1.1 needs exactly one"
        )
    if hosts and not HOST.fullmatch(hosts[0]):
        raise HTTPError(400, "the Host field holds an illegal character")
    return RequestHead(method, version, end_to_end_lines(raw, line.end(), index), index)


def parse_response_head(raw: bytes) -> ResponseHead:
    """A response's head, complete with its empty line; raises EngineError."""
    raw = with_crlf(raw)
    line = STATUS_LINE.match(raw)
    if line is None:
        raise EngineError("the engine's answer does not begin with an HTTP/1.1 status line")
    try:
        index = read_fields(raw, line.end())
    except HTTPError as error:
        raise EngineError(f"the engine's answer is not HTTP: {error}") from None
    end_to_end = end_to_end_lines(raw, line.end(), index)
    return ResponseHead(int(line.group(2)), line.group(1), raw[:-2], end_to_end, index)


def with_crlf(raw: bytes) -> bytes:
    """A head whose lines all end in CR LF, whatever they ended in; a bare CR stays one."""
    if raw.count(b"\n") == raw.count(b"\r\n"):
        return raw
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def read_fields(raw: bytes, pos: int) -> dict[bytes, list[bytes]]:
    """The values of READ_FIELDS from `pos` to the empty line; raises HTTPError (400, 431)."""
    index: dict[bytes, list[bytes]] = {}
    end, room = len(raw) - 2, MAX_READ_FIELDS
    while pos < end:
        field = FIELD_LINE.match(raw, pos)
        if field is None:
            raise HTTPError(400, "a header line is not 'Name: value' (RFC 9112, section 5)")
        key, after = field.group(1).lower(), field.end()
        if key in READ_FIELDS:
            room -= after - pos
            index.setdefault(key, []).append(field.group(2).strip(b" \t"))
        if room < 0:
            raise HTTPError(
                431, f"the fields that dockeraudit reads hold more than {MAX_READ_FIELDS} bytes"
            )
        pos = after
    return index


def end_to_end_lines(raw: bytes, pos: int, index: dict[bytes, list[bytes]]) -> bytes:
    """A head without its empty line, without the fields of one hop, and with one Content-Length.

    `pos`: where its fields begin. Repeated equal lengths are one by RFC 9110 §8.6; content_length
    refuses differing ones.
    """
    end = len(raw) - 2
    if HOP_FIELDS.isdisjoint(index) and len(index.get(b"content-length", ())) < 2:
        return raw[:end]
    dropped = set(HOP_FIELDS.union(list_members(index.get(b"connection", ()))) - FIXED_FIELDS)
    pieces, kept = [], 0
    while pos < end:
        after = raw.index(b"\n", pos) + 1
        name = raw[pos : raw.index(b":", pos)].lower()
        if name in dropped:
            pieces.append(raw[kept:pos])
            kept = after
        elif name == b"content-length":
            dropped.add(name)  # the first one stays
        pos = after
    return b"".join([*pieces, raw[kept:end]])


def list_members(values: Sequence[bytes]) -> list[bytes]:
    """The members of a list-valued field (RFC 9110 §5.6.1), lower-case."""
    members = [member.strip().lower() for value in values for member in value.split(b",")]
    return [member for member in members if member]


def check_target(target: bytes, method: bytes) -> None:
    """Refuse a target of no form of RFC 9112 §3.2, or one that the engine's URL parser refuses."""
    path = target.partition(b"?")[0]
    if BAD_ESCAPE.search(path):
        raise HTTPError(
            400, "the request target holds a '%' that is not followed by two hex digits"
        )
    scheme = SCHEME.match(path)
    start = scheme.end() if scheme else 0
    if path[start : start + 1] == b"/":
        return
    if (target == b"*" and method == b"OPTIONS") or method == b"CONNECT":
        return
    raise HTTPError(400, "the request target is neither a path nor an absolute URL")


Parsed = TypeVar("Parsed")


def remember(known: dict[bytes, Parsed], raw: bytes, parsed: Parsed) -> Parsed:
    """Keep a head's parsed form in memory; a full memory is emptied first."""
    if len(known) >= KNOWN_HEADS:
        known.clear()
    known[raw] = parsed
    return parsed


known_responses: dict[bytes, ResponseHead] = {}


def read_response_head(raw: bytes) -> ResponseHead:
    """parse_response_head, from memory for an answer that has come before in the same second."""
    head = known_responses.get(raw)
    if head is not None:
        return head
    head = parse_response_head(raw)
    if len(raw) > KNOWN_HEAD or not KEPT_RESPONSE.fullmatch(raw):
        return head
    return remember(known_responses, raw, head)


class Framing(NamedTuple):
    """Where a body ends (RFC 9112 §6.3). `kind`: none, length, chunked or close."""

    kind: str
    length: int = 0


NO_BODY = Framing("none")


def request_framing(head: RequestHead) -> Framing:
    """Where a request's body ends, numbered as in RFC 9112 §6.3; raises HTTPError (400)."""
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

    broken: HTTPError | None = None

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
    broken: HTTPError | None = None

    def feed(self, block: bytes) -> tuple[int, bytes]:
        """Everything up to the connection's end is body, and all of it is payload."""
        return len(block), block


class ChunkedReader:
    """A chunked body (RFC 9112 §7.1). The reader finds its end and does not rewrite it.

    `feed` takes bytes up to the first one with which no legal chunked body goes on, wherever the
    blocks were cut. Then `broken` says what is wrong (400), and the reader takes nothing more.
    `collect=False` leaves the payload out, for bodies that nobody audits.
    """

    def __init__(self, collect: bool = True) -> None:
        self.collect = collect
        self.done = False
        self.broken: HTTPError | None = None
        self.left = 0  # bytes of the current chunk's data still to come, with its CR LF
        self.line = b""  # the beginning of a size line or of a trailer's line
        self.trailer = False  # whether the last chunk has come
        self.sizes: dict[bytes, int] = {}  # a look-up costs a third of int(text, 16)
        self._trailer_room = MAX_TRAILER

    def feed(self, block: bytes) -> tuple[int, bytes]:
        """How many bytes of `block` are the body's and sound, and the payload among them."""
        pieces: list[bytes] = []
        return self.walk(block, pieces), b"".join(pieces)

    def walk(self, block: bytes, pieces: list[Any]) -> int:
        """How many bytes of `block` are the body's and sound; the payload goes to `pieces`."""
        pos = 0
        while pos < len(block) and not (self.done or self.broken):
            if self.left:
                pos = self._rest_of_chunk(block, pos, pieces)
                continue
            if not (self.line or self.trailer):
                pos = self._whole_chunks(block, pos, pieces)
                if block[pos : pos + len(LAST_CHUNK)] == LAST_CHUNK:
                    self.done = True
                    pos += len(LAST_CHUNK)
                    break
            if pos < len(block):
                pos = self._line(block, pos)
        return pos

    def is_whole(self, block: bytes) -> bool:
        """Whether a block is one whole chunk for certain, as the frames of quiet streams are."""
        eol = -1 if self.left or self.line or self.trailer else block.find(b"\r\n", 0, 18)
        size = self._size(block[:eol]) if eol > 0 else 0
        return size > 0 and eol + size + 4 == len(block) and block.endswith(b"\r\n")

    def _size(self, digits: bytes) -> int:
        """The size that a line without extensions says; 0 for the last chunk and for no number."""
        size = self.sizes.get(digits)
        if size is not None:
            return size
        if not CHUNK_SIZE.fullmatch(digits):
            return 0
        if len(self.sizes) >= KNOWN_SIZES:
            self.sizes.clear()
        size = self.sizes[digits] = int(digits, 16)
        return size

    def _whole_chunks(self, block: bytes, pos: int, pieces: list[Any]) -> int:
        """The fast way over chunks that lie wholly in the block; stops before the first other."""
        find, known, collect, end = block.find, self.sizes.get, self.collect, len(block)
        while True:
            eol = find(b"\r\n", pos, pos + 18)
            size = (known(block[pos:eol]) or self._size(block[pos:eol])) if eol > 0 else 0
            data = eol + 2
            after = data + size
            if not size or after + 2 > end or block[after : after + 2] != b"\r\n":
                return pos
            if collect:
                pieces.append(block[data:after])
            pos = after + 2

    def _rest_of_chunk(self, block: bytes, pos: int, pieces: list[Any]) -> int:
        """The chunk's data as far as it has come, then its CR LF, which may be cut too."""
        data = block[pos : pos + self.left - 2] if self.left > 2 else b""
        if self.collect and data:
            pieces.append(data)
        pos += len(data)
        self.left -= len(data)
        while self.left <= 2 and self.left and pos < len(block):
            if block[pos] != (13 if self.left == 2 else 10):
                self._break("a chunk's data is not followed by CR LF: its size is wrong")
                return pos
            self.left -= 1
            pos += 1
        return pos

    def _line(self, block: bytes, pos: int) -> int:
        """A size line, or a line of the trailer section, as far as it has come and is legal."""
        room = self._trailer_room if self.trailer else MAX_CHUNK_LINE
        end = block.find(b"\n", pos) + 1 or len(block)
        kept = len(self.line)
        line = self.line + block[pos : min(end, pos + room + 1)]
        sound = min(self._sound(line), room)
        if sound < len(line):
            what = "trailer section" if self.trailer else "size line"
            self._break(f"a {what} of the chunked body is illegal (RFC 9112, section 7.1)")
        elif line.endswith(b"\n"):
            self._end_line(line)
        else:
            self.line = line
        return pos + sound - kept

    def _sound(self, line: bytes) -> int:
        """With how many of a line's bytes a legal line can begin."""
        grammar = TRAILER_SO_FAR if self.trailer else CHUNK_LINE_SO_FAR
        match = grammar.match(line)
        sound = match.end() if match else 0
        colon = line.find(b":", 0, sound) if self.trailer else -1
        # RFC 9110 §6.5.1: a reader that merges such a trailer would see another message
        return colon if colon >= 0 and line[:colon].lower() in FIXED_FIELDS else sound

    def _end_line(self, line: bytes) -> None:
        """A whole legal line: the last chunk's begins the trailer section, an empty one ends it."""
        self.line = b""
        if self.trailer:
            self._trailer_room -= len(line)
            self.done = line == b"\r\n"
            return
        match = CHUNK_LINE.fullmatch(line)
        assert match is not None
        size = int(match.group(1), 16)
        self.trailer = size == 0
        self.left = size + 2 if size else 0

    def _break(self, message: str) -> None:
        self.broken = HTTPError(400, message)


BodyReader = Union[LengthReader, CloseReader, ChunkedReader]


def body_reader(framing: Framing, collect: bool = False) -> BodyReader:
    """The reader for a body that is framed so."""
    if framing.kind == "chunked":
        return ChunkedReader(collect)
    return CloseReader() if framing.kind == "close" else LengthReader(framing.length)


def forwarded_request_head(head: RequestHead, upgrade: Sequence[bytes], close: bool) -> bytes:
    """The request's head as the engine gets it; the hop-by-hop fields are set anew.

    `upgrade`: the protocols to offer; `close`: ask the engine to close after its answer.
    """
    if upgrade:
        hop = [b"Connection: Upgrade\r\nUpgrade: ", b", ".join(upgrade), b"\r\n"]
    elif close:
        hop = [b"Connection: close\r\n"]
    else:
        hop = [b"Connection: keep-alive\r\n"] if head.version == b"1.0" and head.keeps_alive else []
    return b"".join([head.end_to_end, *hop, b"\r\n"])


def forwarded_response_head(head: ResponseHead, client_version: bytes, keep_alive: bool) -> bytes:
    """The response's head as the client gets it; `keep_alive`: its connection persists after it."""
    if not keep_alive:
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
