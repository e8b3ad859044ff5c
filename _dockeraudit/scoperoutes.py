"""The routes that a scoped listener knows, and how a request is written anew. Performs no I/O.

    target ─▶ ScopedRequest: action, name, parameters ─▶ a target that names the full id

On such a listener no raw target reaches the engine. What reaches it is written from what was read
here: so it does not matter how a client spells a route, or in how many ways a target can be read.
A route that the table does not have is refused: nobody has looked at what it tells of other
containers. A parameter that it does not have does not reach the engine.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import NamedTuple

from _dockeraudit.policy import cleaned
from _dockeraudit.routes import DOCKER_VERSION, VERSION_SEGMENT, says_yes, split_target

MAX_VERSION = 16  # characters of a version segment; Docker's have six
BAD_QUERY = re.compile(rb"%(?![0-9A-Fa-f]{2})|;")  # what Go's versions read differently

#: What `top` hands to the host's ps. The engine shows a line if the word below the title PID is a
#: process of the container. A column before it could be made of words, another's command line.
PS_ARGS = re.compile(r"(?:-?[A-Za-z]{0,9}|-?[A-Za-z]{0,8}o pid(?:,[a-z]+)*)")
STREAMS = "detachKeys logs stream stdin stdout stderr"
BUILD = (
    "buildargs cachefrom cgroupparent cpuperiod cpuquota cpusetcpus cpusetmems cpushares dockerfile"
    " extrahosts forcerm labels memory memswap networkmode nocache outputs platform pull q remote"
    " rm shmsize squash t target ulimits version"
)
#: method, path, what is done with it, and the parameters that are known to be safe. The actions:
#: pass       no container is named in it, nor told of in its answer
#: container  {} is a container; start and rename too, with checks of their own
#: exec       {} is an exec, whose container is looked up
#: list, events, prune    their filters are narrowed
#: create, connect        their bodies name containers; connect's {} is a network
#: make       a network or a volume, which has a scope of its own or none
#: commit, build          a parameter names a container
#: absent     nothing of the kind is in scope
#: info, df, networks, image, remove   the answer is ours: the engine's, without other containers
ROUTES = (
    ("GET", "/_ping", "pass", ""),
    ("HEAD", "/_ping", "pass", ""),
    ("GET", "/version", "pass", ""),
    ("POST", "/auth", "pass", ""),
    ("GET", "/info", "info", ""),
    ("GET", "/events", "events", "since until filters"),
    ("GET", "/system/df", "df", "type"),
    ("GET", "/containers/json", "list", "all limit size filters"),
    ("POST", "/containers/create", "create", "name platform"),
    ("POST", "/containers/prune", "prune", "filters"),
    ("GET", "/containers/{}/json", "container", "size"),
    ("GET", "/containers/{}/top", "container", "ps_args"),
    ("GET", "/containers/{}/logs", "container",
     "follow stdout stderr since until timestamps tail details"),
    ("GET", "/containers/{}/changes", "container", ""),
    ("GET", "/containers/{}/export", "container", ""),
    ("GET", "/containers/{}/stats", "container", "stream one-shot"),
    ("GET", "/containers/{}/attach/ws", "container", STREAMS),
    ("GET", "/containers/{}/archive", "container", "path"),
    ("HEAD", "/containers/{}/archive", "container", "path"),
    ("PUT", "/containers/{}/archive", "container", "path noOverwriteDirNonDir copyUIDGID"),
    ("POST", "/containers/{}/start", "start", "detachKeys"),
    ("POST", "/containers/{}/stop", "container", "t signal"),
    ("POST", "/containers/{}/restart", "container", "t signal"),
    ("POST", "/containers/{}/kill", "container", "signal"),
    ("POST", "/containers/{}/pause", "container", ""),
    ("POST", "/containers/{}/unpause", "container", ""),
    ("POST", "/containers/{}/wait", "container", "condition"),
    ("POST", "/containers/{}/resize", "container", "h w"),
    ("POST", "/containers/{}/attach", "container", STREAMS),
    ("POST", "/containers/{}/exec", "container", ""),
    ("POST", "/containers/{}/rename", "rename", "name"),
    ("POST", "/containers/{}/update", "container", ""),
    ("DELETE", "/containers/{}", "container", "v force"),
    ("POST", "/exec/{}/start", "exec", ""),
    ("POST", "/exec/{}/resize", "exec", "h w"),
    ("GET", "/exec/{}/json", "exec", ""),
    ("POST", "/commit", "commit", "container repo tag comment author pause changes"),
    ("POST", "/build", "build", BUILD),
    ("POST", "/build/prune", "pass",
     "all filters keep-storage reserved-space max-used-space min-free-space"),
    ("GET", "/images/json", "pass", "all filters filter digests shared-size"),
    ("GET", "/images/search", "pass", "term limit filters"),
    ("GET", "/images/get", "pass", "names platform"),
    ("GET", "/images/{}/json", "image", "platform"),
    ("GET", "/images/{}/history", "pass", "platform"),
    ("GET", "/images/{}/get", "pass", "platform"),
    ("POST", "/images/create", "pass", "fromImage fromSrc repo tag message platform changes"),
    ("POST", "/images/load", "pass", "quiet platform"),
    ("POST", "/images/prune", "pass", "filters"),
    ("POST", "/images/{}/push", "pass", "tag platform"),
    ("POST", "/images/{}/tag", "pass", "repo tag"),
    ("DELETE", "/images/{}", "remove", "force noprune platforms"),
    ("GET", "/distribution/{}/json", "pass", ""),
    ("GET", "/networks", "networks", "filters"),
    ("GET", "/networks/{}", "networks", "scope"),
    ("POST", "/networks/create", "make", ""),
    ("POST", "/networks/prune", "pass", "filters"),
    ("POST", "/networks/{}/connect", "connect", ""),
    ("POST", "/networks/{}/disconnect", "connect", ""),
    ("DELETE", "/networks/{}", "remove", ""),
    ("GET", "/volumes", "pass", "filters"),
    ("POST", "/volumes/create", "make", ""),
    ("POST", "/volumes/prune", "pass", "filters"),
    ("GET", "/volumes/{}", "pass", ""),
    ("DELETE", "/volumes/{}", "remove", "force"),
    ("GET", "/services/{}", "absent", "insertDefaults"),
    ("GET", "/tasks/{}", "absent", ""),
    ("GET", "/nodes/{}", "absent", ""),
    ("GET", "/secrets/{}", "absent", ""),
    ("GET", "/configs/{}", "absent", ""),
    ("GET", "/plugins/{}/json", "absent", ""),
)  # fmt: skip
#: parameters without which a request would mean something else, and why they are refused
REFUSED_PARAMETERS = {
    "checkpoint": "checkpoints lie in the host's folders",
    "checkpoint-dir": "checkpoints lie in the host's folders",
    "link": "a link cannot be removed by its name",
    "manifests": "it tells of other containers",
    "session": "BuildKit's tunnels cannot be held to a scope (DOCKER_BUILDKIT=0 builds without)",
    "verbose": "it tells of other containers",
}
#: why a group of routes is refused, by the first segment of its path
REFUSED = {
    "session": "BuildKit's tunnels cannot be held to a scope (DOCKER_BUILDKIT=0 builds without)",
    "grpc": "BuildKit's tunnels cannot be held to a scope (DOCKER_BUILDKIT=0 builds without)",
    "libpod": "Podman's own API cannot be held to a scope",
    **dict.fromkeys(
        "services tasks nodes swarm secrets configs plugins".split(),
        "Swarm's objects and plugins cannot be held to a scope",
    ),
}


class RouteError(ValueError):
    """A request that cannot be held to a scope; the message says what of it."""


class ScopedRequest(NamedTuple):
    """A request, read. `name`: what stands at {} of its row, decoded; `parameters`: decoded."""

    action: str
    method: str
    version: str
    row: str
    name: str
    parameters: tuple[tuple[str, str], ...]

    def first(self, key: str) -> str:
        """The value that the engine takes: of the first parameter of that name, or an empty one."""
        return next((value for name, value in self.parameters if name == key), "")

    def put(self, key: str, value: str) -> ScopedRequest:
        """The same with one parameter of that name, at the end; an empty value is none."""
        others = [pair for pair in self.parameters if pair[0] != key]
        added = [(key, value)] if value else []
        return self._replace(parameters=(*others, *added))

    def target(self, name: str | None = None) -> bytes:
        """The target as the engine gets it; `name` stands for what the client named."""
        text = self.name if name is None else name
        # surrogateescape: a path may hold bytes that are no UTF-8
        quoted = urllib.parse.quote(text.encode("utf-8", "surrogateescape"), safe="/:@")
        path = self.version + self.row.replace("{}", quoted)
        query = urllib.parse.urlencode(self.parameters, errors="surrogateescape")
        return (f"{path}?{query}" if query else path).encode("ascii")


RowPattern = tuple[re.Pattern[str], str, str, frozenset[str]]


def row_patterns() -> dict[tuple[str, str], list[RowPattern]]:
    """The rows of ROUTES by method and first segment."""
    patterns: dict[tuple[str, str], list[RowPattern]] = {}
    for method, row, action, parameters in ROUTES:
        pattern = re.compile(re.escape(row).replace(r"\{\}", "(.+)"), re.S)
        entry = (pattern, row, action, frozenset(parameters.split()))
        patterns.setdefault((method, row.split("/")[1]), []).append(entry)
    return patterns


ROW_PATTERNS = row_patterns()


def scoped_request(method: str, target: bytes) -> ScopedRequest:
    """A request that a scoped listener knows; raises RouteError for any other."""
    path, query, _ = split_target(target)
    version = VERSION_SEGMENT.match(path)
    path = path[version.end() :] if version else path
    if version and not (len(version[0]) <= MAX_VERSION and DOCKER_VERSION.fullmatch(version[0])):
        raise RouteError("its version is none of Docker's")
    if method in ("GET", "HEAD"):
        path = cleaned(path)  # the engine redirects there
    elif path != cleaned(path):
        raise RouteError("its path holds //, /./ or /../")
    parts = path.split("/", 2)
    first = parts[1] if len(parts) > 1 else ""
    for pattern, row, action, known in ROW_PATTERNS.get((method, first), ()):
        match = pattern.fullmatch(path)
        if match:
            request = ScopedRequest(
                action,
                method,
                version[0] if version else "",
                row,
                match[1] if pattern.groups else "",
                read_query(query, known),
            )
            check_parameters(request)
            return request
    raise RouteError(REFUSED.get(first, "nobody has made sure that this route is safe"))


def read_query(query: bytes, known: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """The known parameters of a query, decoded; raises RouteError for one of REFUSED_PARAMETERS.

    Others are left out. Some clients (dockerode) repeat the members of the body in the query.
    """
    if BAD_QUERY.search(query):
        raise RouteError("its query holds a ';', or a '%' that is not followed by two hex digits")
    parameters = []
    for text in filter(None, query.split(b"&")):
        name, _, value = (
            urllib.parse.unquote_to_bytes(part.replace(b"+", b" ")).decode(
                "utf-8", "surrogateescape"
            )
            for part in text.partition(b"=")
        )
        if name in REFUSED_PARAMETERS and says_yes(value):
            raise RouteError(f"of its parameter {name}: {REFUSED_PARAMETERS[name]}")
        if name in known:
            parameters.append((name, value))
    return tuple(parameters)


def check_parameters(request: ScopedRequest) -> None:
    """Raise RouteError for a value that reaches beyond the container that the request names."""
    if not PS_ARGS.fullmatch(request.first("ps_args")):
        raise RouteError("ps_args may be letters, or -o and columns, of which PID is the first")
    if request.first("networkmode").partition(":")[1]:
        raise RouteError("a build may not join a container's network")
