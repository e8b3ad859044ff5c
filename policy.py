"""policy: who may do what. Sans I/O: (method, classified path) and (client) → a Decision.

    settings ─▶ Policy: an ordered list of Clauses ─▶ decide(method, path) ─▶ allowed by which, or what would admit it

Sections:

    decisions        Decision, Clause, Policy
    compatible       the variables of Tecnativa's and linuxserver's docker-socket-proxy
    native rules     allow = METHODS /path
    clients          addresses, uids, gids
    learning         the least settings that admit what a log has seen

Paths are those that the relay has classified: decoded, without the version. The compatible policies are never laxer
than that classification, so the holes of prefix matching (DELETE /containers/x/start) are closed here.
"""
from __future__ import annotations

import grp
import ipaddress
import pwd
import re
from typing import Any, Iterable, Mapping, NamedTuple, Optional, Sequence

# =====================================================================================================================
# decisions
# =====================================================================================================================


class PolicyError(ValueError):
    """A policy setting that cannot be used; the message says which and what is legal."""


class Decision(NamedTuple):
    """`rule`: what decided. `admits`: the settings that it would take, if it was refused."""

    allowed: bool
    rule: str
    admits: tuple[str, ...] = ()


class Clause(NamedTuple):
    """One line of a policy: `methods` empty means any; `path` is a compiled regex over the whole path."""

    allow: bool
    methods: frozenset[str]
    path: Any
    name: str

    def matches(self, method: str, path: str) -> bool:
        """Whether this clause speaks about the request."""
        return (not self.methods or method in self.methods) and self.path.match(path) is not None


READS = frozenset(("GET", "HEAD"))
VERSION_PREFIX = re.compile(r"/v\d+(?:\.\d+)*(?=/)")


class Policy:
    """An ordered list of clauses: the first that matches decides, none denies."""

    def __init__(self, clauses: Sequence[Clause], settings: Sequence[str], compatible: bool) -> None:
        self._clauses = tuple(clauses)
        self._settings = tuple(settings)
        self._compatible = compatible

    def decide(self, method: str, path: str) -> Decision:
        """Whether the request may pass. `path`: decoded; a version before it is ignored."""
        plain = VERSION_PREFIX.sub("", path, count=1)
        for clause in self._clauses:
            if clause.matches(method, plain):
                return Decision(clause.allow, clause.name, () if clause.allow else self._admits(method, plain))
        return Decision(False, "no rule", self._admits(method, plain))

    def _admits(self, method: str, path: str) -> tuple[str, ...]:
        if not self._compatible:
            return (f"allow = {method} {path_pattern(path)}",)
        return variables_for(method, path)

    def table(self) -> list[str]:
        """The policy as lines to print at start."""
        return list(self._settings)


# =====================================================================================================================
# compatible
# =====================================================================================================================

SECTIONS = tuple(
    "AUTH BUILD COMMIT CONFIGS CONTAINERS DISTRIBUTION EVENTS EXEC GRPC IMAGES INFO NETWORKS NODES PING PLUGINS SECRETS "
    "SERVICES SESSION SWARM SYSTEM TASKS VERSION VOLUMES".split()
)
OPEN_BY_DEFAULT = ("EVENTS", "PING", "VERSION")
SECTION_PATHS = {"PING": "/_ping", **{name: "/" + name.lower() for name in SECTIONS if name != "PING"}}
#: what a container is made to do: variable → last segments of POST /containers/ID/…
ACTIONS = {"ALLOW_RESTARTS": "stop|restart|kill", "ALLOW_START": "start", "ALLOW_STOP": "stop", "ALLOW_PAUSE": "pause", "ALLOW_UNPAUSE": "unpause"}
TECNATIVA_ACTIONS = ("ALLOW_RESTARTS", "ALLOW_START", "ALLOW_STOP")
#: what linuxserver denies unless asked: variable → last segment under /containers
READERS = {"ALLOW_ARCHIVE": "archive", "ALLOW_CHANGES": "changes", "ALLOW_EXPORT": "export", "ALLOW_LOGS": "logs", "ALLOW_TOP": "top"}
LINUXSERVER_ONLY = ("ALLOW_PAUSE", "ALLOW_UNPAUSE", *READERS)
SWITCHES = (*SECTIONS, "POST", *TECNATIVA_ACTIONS, *LINUXSERVER_ONLY)
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")


def section_clause(name: str) -> Clause:
    """Everything under a section, as a whole segment: /containers and /containers/…, not /containersX."""
    return Clause(True, frozenset(), re.compile(re.escape(SECTION_PATHS[name]) + r"(?:/|\Z)", re.I), name)


def action_clause(name: str) -> Clause:
    """POST alone, and exactly the container's action: nothing behind it."""
    return Clause(True, frozenset(("POST",)), re.compile(rf"/containers/[^/]+/(?:{ACTIONS[name]})\Z", re.I), name)


def reader_clause(name: str) -> Clause:
    """A deny of one kind of reading, however many links stand in the container's name."""
    return Clause(False, frozenset(), re.compile(rf"/containers/.+/{READERS[name]}\Z", re.I), name)


def switch(environ: Mapping[str, str], name: str) -> bool:
    """One variable's value; raises PolicyError for what is neither."""
    text = environ.get(name, "").strip().lower()
    if not text:
        return name in OPEN_BY_DEFAULT
    if text not in TRUE + FALSE:
        raise PolicyError(f"{name}={environ[name]!r} is neither of {', '.join(TRUE)} nor of {', '.join(FALSE)}")
    return text in TRUE


def compatible_policy(environ: Mapping[str, str], linuxserver: bool) -> Policy:
    """The policy of Tecnativa's variables, or of linuxserver's; raises PolicyError."""
    names = [name for name in SWITCHES if linuxserver or name not in LINUXSERVER_ONLY]
    on = {name for name in names if switch(environ, name)}
    gate = [] if "POST" in on else [Clause(False, frozenset(), re.compile(""), "POST")]
    actions = [action_clause(name) for name in (ACTIONS if linuxserver else TECNATIVA_ACTIONS) if name in on]
    denies = [reader_clause(name) for name in READERS if linuxserver and name not in on]
    sections = [section_clause(name) for name in SECTIONS if name in on]
    settings = [f"{name}={int(name in on)}" for name in names]
    if linuxserver:
        return GatedPolicy([*denies, *actions], gate, sections, settings)
    return GatedPolicy([], gate, [*actions, *sections], settings)


class GatedPolicy(Policy):
    """Clauses before the gate of methods, the gate, clauses behind it."""

    def __init__(self, before: Sequence[Clause], gate: Sequence[Clause], behind: Sequence[Clause], settings: Sequence[str]) -> None:
        super().__init__([*before, *gate, *behind], settings, True)
        self._gate = tuple(gate)
        self._reading = Policy([*before, *behind], settings, True)

    def decide(self, method: str, path: str) -> Decision:
        """As Policy's; GET and HEAD do not see the gate."""
        return self._reading.decide(method, path) if method in READS and self._gate else super().decide(method, path)


def variables_for(method: str, path: str) -> tuple[str, ...]:
    """Every variable that this request needs."""
    needed = [] if method in READS else ["POST=1"]
    needed += [f"{name}=1" for name in READERS if reader_clause(name).matches(method, path)]
    needed += [f"{name}=1" for name in SECTIONS if section_clause(name).matches(method, path)]
    actions = [f"{name}=1" for name in ACTIONS if action_clause(name).matches(method, path)]
    return tuple(actions[:1] + [f"({' '.join(needed)})"] if actions else needed)


def policy_from_environment(environ: Mapping[str, str], mode: str) -> tuple[Optional[Policy], list[str]]:
    """The policy that `off`, `tecnativa`, `linuxserver` or `auto` means here, and warnings; raises PolicyError."""
    used = [name for name in SWITCHES if environ.get(name, "").strip().lower() in TRUE + FALSE]
    if mode == "off":
        warning = f"{used[0]} is set but no policy is on: everything passes; --policy auto makes the variables count" if used else ""
        return None, [warning] if warning else []
    if mode == "auto" and not used:
        return None, []
    linuxserver = mode == "linuxserver" or mode == "auto" and any(name in LINUXSERVER_ONLY for name in used)
    words = [name for name in used if environ[name].strip().lower() in ("true", "yes")]
    warnings = [f"{name}={environ[name]} counts as 1 here; the original took it for 0" for name in words]
    return compatible_policy(environ, linuxserver), warnings


# =====================================================================================================================
# native rules
# =====================================================================================================================

NATIVE_RULE = re.compile(r"\s*(allow|deny)\s*=\s*(\*|[A-Z]+(?:,[A-Z]+)*)\s+(/\S*)\s*")


def native_policy(rule_lines: Sequence[str]) -> Policy:
    """The policy of lines `allow = METHODS /path` and `deny = …`; raises PolicyError naming a wrong line."""
    if not rule_lines:
        raise PolicyError("policy 'rules' has no rule: add lines such as allow = GET,HEAD /containers/*/logs")
    return Policy([native_clause(line) for line in rule_lines], [line.strip() for line in rule_lines], False)


def native_clause(line: str) -> Clause:
    """One rule; `*` within a segment, `**` across; raises PolicyError."""
    rule = NATIVE_RULE.fullmatch(line)
    if rule is None:
        raise PolicyError(f"{line.strip()!r} is no rule; one is: allow = GET,HEAD /containers/*/logs")
    action, methods, path = rule.groups()
    names = frozenset() if methods == "*" else frozenset(methods.split(","))
    regex = "".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", path))
    return Clause(action == "allow", names, re.compile(rf"{regex}\Z"), line.strip())


# =====================================================================================================================
# clients
# =====================================================================================================================


class ClientFilter:
    """Who may connect: networks for TCP, uids and gids for Unix sockets."""

    def __init__(self, networks: Sequence[Any], uids: frozenset[int], gids: frozenset[int]) -> None:
        self._networks, self._uids, self._gids = tuple(networks), uids, gids

    def admits(self, client: Mapping[str, Any]) -> Decision:
        """Whether the client, as it stands in a record, may speak here."""
        if "address" in client:
            if not self._networks:
                return Decision(True, "allow-from")
            address = ipaddress.ip_address(str(client["address"]).partition("%")[0])
            allowed = any(address in network for network in self._networks)
            return Decision(allowed, "allow-from", () if allowed else (f"allow-from = {address}",))
        if not self._uids and not self._gids:
            return Decision(True, "allow-uid")
        allowed = client.get("uid") in self._uids or client.get("gid") in self._gids
        return Decision(allowed, "allow-uid", () if allowed else (f"allow-uid = {client.get('uid')}",))


def client_filter(allow_from: Iterable[str], allow_uid: Iterable[Any], allow_gid: Iterable[Any]) -> Optional[ClientFilter]:
    """The filter, or None where nothing restricts; raises PolicyError."""
    try:
        networks = [ipaddress.ip_network(text, strict=False) for text in allow_from]
    except ValueError as error:
        raise PolicyError(f"allow-from: {error}; give addresses or networks such as 10.0.0.0/8") from None
    uids = frozenset(account_number(name, lambda n: pwd.getpwnam(n).pw_uid, "allow-uid") for name in allow_uid)
    gids = frozenset(account_number(name, lambda n: grp.getgrnam(n).gr_gid, "allow-gid") for name in allow_gid)
    return ClientFilter(networks, uids, gids) if networks or uids or gids else None


def account_number(name: Any, look_up: Any, option: str) -> int:
    """A uid or gid by number or name; raises PolicyError."""
    try:
        return int(name) if str(name).isdigit() else int(look_up(str(name)))
    except KeyError:
        raise PolicyError(f"{option}: there is no {name!r} on this host") from None


# =====================================================================================================================
# learning
# =====================================================================================================================

COLLECTIONS = ("containers", "images", "networks", "volumes", "services", "tasks", "nodes", "secrets", "configs", "plugins", "exec", "distribution")
FIXED = ("json", "create", "prune", "load", "get", "search", "privileges", "pull")
LEARNED_EVENTS = ("would_deny", "denied", "request", "stream_open")
STREAM_REQUESTS = {"logs": ("GET", "/{}/*/logs"), "attach": ("POST", "/{}/*/attach"), "attach_ws": ("GET", "/{}/*/attach/ws"), "exec": ("POST", "/exec/*/start")}


def path_pattern(path: str) -> str:
    """A path with names and ids as `*`."""
    parts = VERSION_PREFIX.sub("", path, count=1).split("/")
    if len(parts) < 3 or parts[1] not in COLLECTIONS or len(parts) == 3 and parts[2] in FIXED:
        return "/".join(parts)
    if parts[1] in ("images", "distribution", "plugins"):
        return f"/{parts[1]}/**" + (f"/{parts[-1]}" if len(parts) > 3 else "")
    return "/".join([*parts[:2], "*", *parts[3:]])


def learned_requests(records: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The distinct (method, path pattern) that a log has seen."""
    seen = set()
    for record in records:
        event = record.get("event")
        if event == "stream_open" and record.get("endpoint") in STREAM_REQUESTS:
            method, pattern = STREAM_REQUESTS[str(record["endpoint"])]
            seen.add((method, pattern.format(f"{record.get('kind') or 'container'}s")))
        elif event in LEARNED_EVENTS and isinstance(record.get("path"), str) and isinstance(record.get("method"), str):
            seen.add((str(record["method"]), path_pattern(str(record["path"]))))
    return sorted(seen)


def least_variables(requests: Sequence[tuple[str, str]]) -> list[str]:
    """The least set of variables that admits the requests: an action's own variable rather than POST."""
    wanted: set[str] = set()
    rest = []
    for method, path in requests:
        actions = [name for name in ACTIONS if action_clause(name).matches(method, path)]
        if actions and "restart" not in path and "kill" not in path and "ALLOW_" + path.rpartition("/")[2].upper() in actions:
            wanted.add("ALLOW_" + path.rpartition("/")[2].upper())
        elif actions:
            wanted.add(actions[0])
        else:
            rest.append((method, path))
    for method, path in rest:
        wanted.update(variable.partition("=")[0] for variable in variables_for(method, path))
    return [f"{name}=1" for name in SWITCHES if name in wanted]


def learn(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines `NAME=1` and `allow = METHODS /path` that admit what the records show and the least besides."""
    requests = learned_requests(records)
    methods: dict[str, set[str]] = {}
    for method, path in requests:
        methods.setdefault(path, set()).add(method)
    return least_variables(requests) + [f"allow = {','.join(sorted(names))} {path}" for path, names in sorted(methods.items())]
