"""What a request target means to the engine, whatever its spelling. Performs no I/O.

raw target ─▶ decoded path without version ─▶ Route (which endpoint, which container)
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple, Optional

from _dockeraudit.http1 import (
    KEPT_FIELDS,
    KNOWN_HEAD,
    NO_BODY,
    SCHEME,
    RequestHead,
    parse_request_head,
    remember,
    request_framing,
)

LIBPOD = "/libpod"  # before the paths of Podman's own API
#: Bytes of a path that are kept for records and counts, and while an exchange runs.
MAX_PATH = 512
#: Methods that records and counts name. Clients invent others, and could hide secrets in them.
#: PRI begins a connection of HTTP/2 (RFC 9113 §3.4).
KNOWN_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"PRI"}
)
#: How `surrogateescape` spells bytes that are no UTF-8, such as half of a character.
LONE_BYTES = "".join(map(chr, range(0xDC80, 0xDD00)))
# moby's router: "/v{version:[0-9.]+}"; Podman's: "/v{version:[0-9][0-9A-Za-z.-]*}"
VERSION_SEGMENT = re.compile(r"/v[0-9.][0-9A-Za-z.\-]*(?=/)")
DOCKER_VERSION = re.compile(r"/v[0-9.]+")
#: Method, path without version, and the endpoint. Moby's router takes any characters, slashes too,
#: for a container's name.
AUDITED_ROUTES = (
    ("GET", re.compile(r"(?:/libpod)?/containers/(?P<container>.*)/logs", re.S), "logs"),
    ("GET", re.compile(r"/services/(?P<service>.*)/logs", re.S), "logs"),
    ("GET", re.compile(r"/tasks/(?P<task>.*)/logs", re.S), "logs"),
    ("POST", re.compile(r"(?:/libpod)?/containers/(?P<container>.*)/attach", re.S), "attach"),
    ("GET", re.compile(r"/containers/(?P<container>.*)/attach/ws", re.S), "attach_ws"),
    ("POST", re.compile(r"(?:/libpod)?/exec/(?P<exec>.*)/start", re.S), "exec"),
    ("POST", re.compile(r"(?P<tunnel>/session|/grpc)"), "tunnel"),
)
#: Answers and request bodies that may hold secrets: method, path, the word for them in records, and
#: the kind of what they are about. Podman has these paths under /libpod too. A name may hold
#: slashes.
ANSWERS = (
    ("GET", "/containers/json", "list", None),
    ("GET", "/pods/json", "list", None),
    ("GET", "/images/json", "list", None),
    ("GET", "/services", "list", None),
    ("GET", "/tasks", "list", None),
    ("GET", "/plugins", "list", None),
    ("GET", "/volumes(?:/json)?", "list", None),
    ("GET", "/configs", "list", "config"),
    ("GET", "/secrets(?:/json)?", "list", None),
    ("GET", "/system/df", "list", None),
    ("GET", "/events", "events", None),
    ("GET", "/containers/(.+)/top", "top", "container"),
    ("GET", "/images/(.+)/history", "history", "image"),
    ("GET", "/containers/(.+)/json", "inspect", "container"),
    ("GET", "/exec/(.+)/json", "inspect", "exec"),
    ("GET", "/pods/(.+)/json", "inspect", "pod"),
    ("GET", "/images/(.+)/json", "inspect", "image"),
    ("GET", "/plugins/(.+)/json", "inspect", "plugin"),
    ("GET", "/services/(.+)", "inspect", "service"),
    ("GET", "/tasks/(.+)", "inspect", "task"),
    ("GET", "/configs/(.+)", "inspect", "config"),
    ("GET", "/secrets/(.+)", "inspect", "secret"),
    ("GET", "/volumes/(.+)", "inspect", "volume"),
    ("POST", "/build", "build", None),
    ("POST", "/containers/create", "create", "container"),
    ("POST", "/containers/(.+)/exec", "create", "container"),
    ("POST", "/commit", "create", "image"),
    ("POST", "/pods/create", "create", "pod"),
    ("POST", "/services/create", "create", "service"),
    ("POST", "/configs/create", "create", "config"),
    ("POST", "/secrets/create", "create", "secret"),
    ("POST", "/volumes/create", "create", "volume"),
    ("POST", "/containers/(.+)/update", "update", "container"),
    ("POST", "/services/(.+)/update", "update", "service"),
    ("POST", "/configs/(.+)/update", "update", "config"),
    ("POST", "/secrets/(.+)/update", "update", "secret"),
    ("PUT", "/volumes/(.+)", "update", "volume"),
)
#: GET requests that copy data out of the host. They are recorded like requests that change
#: something.
EXPORTS = re.compile(
    r"(?:/libpod)?/(?:containers/.*/(?:archive|export)|images/(?:.*/)?get|images/export)", re.S
)
FLOWING_ANSWERS = ("events", "build")  # endless answers, and those that people watch
#: The words for routes whose output cannot be masked: copies of files, and BuildKit's tunnels.
UNMASKABLE = ("export", "archive", "get", "tunnel")
#: Answers that go on until somebody ends them. The proxy cuts them at once when it stops.
ENDLESS = re.compile(r"(?:/libpod)?/(?:events|containers/.*/stats|containers/stats)", re.S)
# A parameter of a query
PARAMETER = re.compile(r"([^&=]*)=?([^&]*)(?:&|\Z)")
# The request line of an illegal head, as far as it is one: method and target, nothing else.
SEEMING_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~\x80-\xff]{1,4096})")
#: Heads that may stay in memory: a query could hold a secret, unless it is made of these flags.
KEPT_REQUEST = re.compile(
    rb"(?:GET|HEAD) /[!->@-~]*(?:[?&](?:all|digests|follow|limit|one-shot|shared-size|size|stderr"
    rb"|stdout|stream|tail|timestamps|verbose)=(?:[0-9]{1,10}|true|false))* HTTP/1\.1\r\n"
    + KEPT_FIELDS
)


def method_name(method: bytes | None) -> str | None:
    """A method for records and counts: a client can send anything as one, even a secret."""
    if method is None:
        return None
    return method.decode("ascii") if method in KNOWN_METHODS else "other"


def cut_path(path: str, limit: int = MAX_PATH) -> str:
    """At most `limit` bytes of a path in UTF-8, a character never cut in two."""
    if len(path) <= limit and path.isascii():
        return path
    raw = path[:limit].encode("utf-8", "surrogateescape")
    cut = raw[:limit].decode("utf-8", "surrogateescape")
    return cut if len(raw) <= limit else cut.rstrip(LONE_BYTES)


class Route(NamedTuple):
    """What a request means to the engine.

    `path`: decoded, without version, query or authority.
    `endpoint`: logs, attach, attach_ws, exec, tunnel or other.
    `kind` and `name`: the container, exec, service or task whose output is asked for.
    `endless`, `exports`: whether the path is one of ENDLESS, of EXPORTS.
    `answer`: inspect, list, top, events, history, build, create or update where the answer, or
    what the client sends, may hold secrets; `kind` and `name` then say what it is about.
    """

    path: str
    query: str
    authority: bytes | None
    endpoint: str
    kind: str | None = None
    name: str = ""
    endless: bool = False
    exports: bool = False
    answer: str = ""
    podman_version: str = ""  # the version segment, if Docker's router knows none such
    version: str = ""  # the version segment, such as /v1.51

    @property
    def audited(self) -> bool:
        """Whether container output flows in the answer, in a form that can be read."""
        return self.endpoint not in ("other", "tunnel")

    @property
    def unmaskable(self) -> str:
        """Which word of UNMASKABLE says what it is; empty if its output can be masked."""
        if self.endpoint == "tunnel":
            return "tunnel"
        return self.path.rpartition("/")[2] if self.exports else ""

    @property
    def has_scanned_body(self) -> bool:
        """Whether what the client sends may hold secrets; a build sends its files as an archive."""
        return self.answer in ("create", "update")

    @property
    def reads_log(self) -> bool:
        """Whether an attach asks for the container's log too, in any spelling of an engine's.

        Engines built with Go before 1.17 end a parameter at `;`, too.
        """
        both = self._replace(query=self.query.replace(";", "&"))
        return self.endpoint in ("attach", "attach_ws") and any(
            name.lower() == "logs" and says_yes(value) for name, value in both.parameters()
        )

    def flag(self, name: str) -> bool:
        """A query flag as the engine reads it (moby's httputils.BoolValue).

        The first parameter of that name decides; it is true unless it says no.
        """
        return says_yes(self.first(name))

    def first(self, name: str) -> str:
        """The value of the first parameter of that name; empty if there is none."""
        return next((value for key, value in self.parameters() if key == name), "")

    def parameters(self) -> Iterator[tuple[str, str]]:
        """The query's parameters, decoded, one at a time: a list of 500,000 would fill 100 MB."""
        for parameter in PARAMETER.finditer(self.query):
            name, value = parameter.groups()
            yield urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(value)

    def brief(self) -> Route:
        """The same, as small as an exchange can do with: path and name cut, the query if needed."""
        asks = self.audited or self.answer == "build"
        return self._replace(
            path=cut_path(self.path),
            name=cut_path(self.name),
            query=self.query if asks else "",
            authority=None,
            podman_version="",
            version="",
        )


def is_short(head: RequestHead, route: Route) -> bool:
    """Whether a request has no body, and is answered at once by what is no stream.

    Of a path that only Podman serves it is not known: that may take a question to the engine.
    """
    reads = head.method in (b"GET", b"HEAD") and head.framing is NO_BODY
    flows = route.audited or route.endless or route.exports or route.answer in FLOWING_ANSWERS
    plain = head.first(b"upgrade") is None and not route.podman_version
    return reads and not flows and plain


def says_yes(value: str) -> bool:
    """A flag's value as the engine reads it (moby's httputils.BoolValue)."""
    return value.strip().lower() not in ("", "0", "no", "false", "none")


def classify(method: bytes, target: bytes) -> Route:
    """Route a request as the engine does: on the decoded target, whatever its spelling."""
    if method == b"CONNECT" and target[:1] != b"/":  # authority form (RFC 9112 §3.2.3)
        return Route("", "", target, "other")
    path, query, authority = split_target(target)
    version = VERSION_SEGMENT.match(path)
    if version:
        path = path[version.end() :]
    route = route_of(method.decode("ascii"), path, query.decode("utf-8", "replace"), authority)
    if version and not DOCKER_VERSION.fullmatch(version[0]):
        return route._replace(podman_version=version[0], version=version[0])
    return route._replace(version=version[0]) if version else route


def split_target(target: bytes) -> tuple[str, bytes, bytes | None]:
    """A target's path, decoded once and with its version, its raw query, and its authority."""
    raw_path, _, query = target.partition(b"?")
    authority = None
    scheme = SCHEME.match(raw_path)
    if scheme and raw_path[:1] != b"/":
        raw_path = raw_path[scheme.end() :]
        if raw_path[:2] == b"//":
            authority, slash, rest = raw_path[2:].partition(b"/")
            raw_path = slash + rest
    path = urllib.parse.unquote_to_bytes(raw_path).decode("utf-8", "surrogateescape")
    return path, query, authority


def route_of(method: str, path: str, query: str, authority: bytes | None) -> Route:
    """The first audited route that the decoded path matches; other if there is none."""
    exports, endless = bool(EXPORTS.fullmatch(path)), bool(ENDLESS.fullmatch(path))
    for wanted, pattern, endpoint in AUDITED_ROUTES:
        match = pattern.fullmatch(path) if method == wanted else None
        if match:
            kind, name = next((k, v) for k, v in match.groupdict().items() if v is not None)
            return Route(path, query, authority, endpoint, kind, name, endless, exports)
    word, subject, name = answer_of(method, path)
    route = Route(path, query, authority, "other", subject, name, endless, exports, word)
    return route._replace(name=route.first("name")) if word == "create" and not name else route


def answer_of(method: str, path: str) -> tuple[str, str | None, str]:
    """What ANSWERS says of a request: the word for it, the kind of what it is about, its name."""
    if path.startswith(LIBPOD):
        path = path[len(LIBPOD) :]
    first = path.split("/", 2)[1] if path[:1] == "/" else ""
    for pattern, word, kind in ANSWER_PATTERNS.get((method, first), ()):
        match = pattern.fullmatch(path)
        if match:
            return word, kind, match[1] if pattern.groups else ""
    return "", None, ""


AnswerPattern = tuple[re.Pattern[str], str, Optional[str]]


def answer_patterns() -> dict[tuple[str, str], list[AnswerPattern]]:
    """The rows of ANSWERS by method and first segment, so that a request is held to few of them."""
    patterns: dict[tuple[str, str], list[AnswerPattern]] = {}
    for method, path, word, kind in ANSWERS:
        first = re.split(r"\W", path)[1]
        patterns.setdefault((method, first), []).append((re.compile(path, re.S), word, kind))
    return patterns


ANSWER_PATTERNS = answer_patterns()


def seeming_request(raw: bytes) -> tuple[bytes | None, str | None]:
    """Method and path that an illegal head seems to name, for the record of its refusal.

    The path is decoded and cut, without query and authority. None for what the head does not name.
    """
    line = SEEMING_REQUEST_LINE.match(raw)
    if line is None:
        return None, None
    method, target = line.groups()
    path = classify(method, target).path
    return method, cut_path(path) if path[:1] == "/" else None


def parse_request(raw: bytes) -> tuple[RequestHead, Route]:
    """A request's head, its body's framing included, and what it means; raises HTTPError."""
    head = parse_request_head(raw)
    head.framing = request_framing(head)
    return head, classify(head.method, head.target)


known_requests: dict[bytes, tuple[RequestHead, Route]] = {}


def read_request(raw: bytes) -> tuple[RequestHead, Route]:
    """parse_request, from memory for a head that has come before, as dashboards send them."""
    request = known_requests.get(raw)
    if request is not None:
        return request
    request = parse_request(raw)
    if len(raw) > KNOWN_HEAD or not KEPT_REQUEST.fullmatch(raw):
        return request
    return remember(known_requests, raw, request)


def offered_protocols(head: RequestHead, route: Route, relay_http2: bool) -> list[bytes]:
    """The protocols of an Upgrade that may reach the engine (RFC 9110 §7.8).

    Moby looks at the Upgrade field alone, so it is an offer without `Connection: upgrade` too, and
    even when it is empty. HTTP/2 would be a way around the audit: `h2c` passes only where BuildKit
    needs it, in a tunnel that nobody audits.
    """
    values = head.index.get(b"upgrade")
    if values is None:
        return []
    members = [member.strip() for value in values for member in value.split(b",")]
    offers = [member for member in members if member] or [b""]
    if relay_http2 or route.endpoint == "tunnel":
        return offers
    return [offer for offer in offers if not offer.lower().startswith((b"h2", b"http/2"))]
