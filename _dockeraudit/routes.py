"""What a request target means to the engine, whatever its spelling. Performs no I/O.

raw target ─▶ decoded path without version ─▶ Route (which endpoint, which container)
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from typing import NamedTuple

from _dockeraudit.http1 import (
    KNOWN_HEADS,
    SCHEME,
    RequestHead,
    may_be_kept,
    parse_request_head,
    request_framing,
)

# moby's router: "/v{version:[0-9.]+}"; Podman's: "/v{version:[0-9][0-9A-Za-z.-]*}"
VERSION_SEGMENT = re.compile(r"/v[0-9.][0-9A-Za-z.\-]*(?=/)")
DOCKER_VERSION = re.compile(r"/v[0-9.]+")
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
EXPORTS = re.compile(
    r"(?:/libpod)?/(?:containers/.*/(?:archive|export)|images/(?:.*/)?get|images/export)", re.S
)
#: answers that go on until somebody ends them: cut at once when the proxy stops
ENDLESS = re.compile(r"(?:/libpod)?/(?:events|containers/.*/stats|containers/stats)", re.S)


class Route(NamedTuple):
    """What a request means to the engine.

    `path`: decoded, without version, query or authority. `endpoint`: logs, attach, attach_ws, exec, tunnel or other.
    `kind` and `name`: what the stream is asked of (container, exec, service, task).
    """

    path: str
    query: str
    authority: bytes | None
    endpoint: str
    kind: str | None = None
    name: str = ""
    podman_version: str = (
        ""  # the version segment before `path`, if Docker's router knows none such
    )

    @property
    def audited(self) -> bool:
        """Whether container output flows in the answer, in a form that can be read."""
        return self.endpoint not in ("other", "tunnel")

    @property
    def reads_log(self) -> bool:
        """Whether an attach asks for the container's log too, in any spelling that an engine takes."""
        return self.endpoint in ("attach", "attach_ws") and any(
            name.lower() == "logs" and says_yes(value)
            for name, value in urllib.parse.parse_qsl(self.query, True)
        )

    def flag(self, name: str) -> bool:
        """A query flag as the engine reads it (moby's httputils.BoolValue): the first one, true unless it says no."""
        value = next((v for k, v in urllib.parse.parse_qsl(self.query, True) if k == name), "")
        return says_yes(value)


def says_yes(value: str) -> bool:
    """A flag's value as the engine reads it (moby's httputils.BoolValue)."""
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
    route = route_of(method.decode("ascii"), path, query.decode("ascii", "replace"), authority)
    if version and not DOCKER_VERSION.fullmatch(version[0]):
        return route._replace(podman_version=version[0])
    return route


def route_of(method: str, path: str, query: str, authority: bytes | None) -> Route:
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
    offers = [
        part.strip()
        for value in head.index.get(b"upgrade", ())
        for part in value.split(b",")
        if part.strip()
    ]
    if relay_http2 or route.endpoint == "tunnel":
        return offers
    return [offer for offer in offers if not offer.lower().startswith((b"h2", b"http/2"))]
