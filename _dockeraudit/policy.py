"""policy: who may do what. Sans I/O: (method, classified path) and (client) → a Decision.

    settings ─▶ Policy: an ordered list of Clauses ─▶ decide(method, path) ─▶ allowed by which, or what would admit it

Sections:

    decisions        Decision, Clause, Policy
    compatible       the variables of Tecnativa's and linuxserver's docker-socket-proxy
    native rules     allow = METHODS /path
    clients          addresses, uids, gids
    learning         the least settings that admit what a log has seen

Paths are those that the relay has classified: decoded, without the version, whatever the spelling was. The compatible
policies decide as their originals do, but are never laxer than that classification, which closes the originals' holes:

    an action's variable admits POST of exactly that action: not DELETE /containers/x/start, not …/x/stop/attach
    what a reader's variable refuses stays refused under a link's name (/containers/parent/alias/logs) and under /libpod
    a WebSocket attach is asked for by GET but writes to the container's stdin, so it needs POST=1
    a path with //, /./ or /../ must be admitted as it stands and as the engine's redirect will clean it
"""

from __future__ import annotations

import grp
import ipaddress
import posixpath
import pwd
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


def refusal(method: str, path: str, decision: Decision) -> str:
    """Why a request is refused, and every setting that would admit it."""
    admits = (
        "it takes " + ", or ".join(decision.admits)
        if decision.admits
        else "no setting of this policy admits it"
    )
    return f"{method} {path} is refused by {decision.rule}; {admits}"


class PolicyError(ValueError):
    """A policy setting that cannot be used; the message says which and what is legal."""


class Decision(NamedTuple):
    """`rule`: what decided. `admits`: if it was refused, the alternatives of settings, each of which would admit it."""

    allowed: bool
    rule: str
    admits: tuple[str, ...] = ()


class Clause(NamedTuple):
    """One line of a policy. `methods`: empty means any, with `others` all but these; `path`: a compiled regex.

    `name` is what decides, as people set it; `shape` the path as it is printed.
    """

    allow: bool
    methods: frozenset[str]
    path: Any
    name: str
    shape: str
    others: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Whether this clause speaks about the request."""
        if self.methods and (method in self.methods) == self.others:
            return False
        return self.path.match(path) is not None

    def line(self) -> str:
        """The clause as a line of the table that is printed at start."""
        methods = ("not " if self.others else "") + (",".join(sorted(self.methods)) or "*")
        return f"{'allow' if self.allow else 'deny':5}  {methods:12}  {self.shape:34}  {self.name}"


READS = frozenset(("GET", "HEAD"))


class Policy:
    """An ordered list of clauses: the first that matches decides, none denies."""

    def __init__(self, title: str, clauses: Sequence[Clause]) -> None:
        self.title = title
        self._clauses = tuple(clauses)

    def decide(self, method: str, path: str) -> Decision:
        """Whether the request may pass. `path`: as classified."""
        decided = ""
        for spelling in dict.fromkeys((path, cleaned(path))):
            clause = next(
                (clause for clause in self._clauses if clause.matches(method, spelling)), None
            )
            if clause is None or not clause.allow:
                return Decision(
                    False,
                    clause.name if clause else self.unnamed(spelling),
                    self.admits(method, spelling, clause),
                )
            decided = decided or clause.name
        return Decision(True, decided)

    def unnamed(self, path: str) -> str:
        """What to call the refusal of a path that no clause speaks about."""
        return "no rule"

    def admits(self, method: str, path: str, clause: Clause | None) -> tuple[str, ...]:
        """What would admit a request that `clause`, or none, refused."""
        return ()

    def table(self) -> list[str]:
        """The policy as lines to print at start."""
        return [f"policy {self.title}: the first line that matches decides"] + [
            clause.line() for clause in self._clauses
        ]


class DenyAll(Policy):
    """What `--mode learn` measures by where there is no policy: everything is worth learning."""

    def __init__(self) -> None:
        super().__init__("none, so that everything is learned", ())


def cleaned(path: str) -> str:
    """The path that the engine's router redirects to: without //, /./ and /../."""
    return "/" + posixpath.normpath(path).lstrip("/") if "//" in path or "/." in path else path


SECTIONS = (
    "AUTH",
    "BUILD",
    "COMMIT",
    "CONFIGS",
    "CONTAINERS",
    "DISTRIBUTION",
    "EVENTS",
    "EXEC",
    "GRPC",
    "IMAGES",
    "INFO",
    "NETWORKS",
    "NODES",
    "PING",
    "PLUGINS",
    "SECRETS",
    "SERVICES",
    "SESSION",
    "SWARM",
    "SYSTEM",
    "TASKS",
    "VERSION",
    "VOLUMES",
)
LIBPOD_SECTIONS = tuple(
    f"LIBPOD_{name}"
    for name in [
        "CONTAINERS",
        "EVENTS",
        "EXEC",
        "GENERATE",
        "IMAGES",
        "INFO",
        "MANIFESTS",
        "NETWORKS",
        "PING",
        "PLAY",
        "PODS",
        "SECRETS",
        "SYSTEM",
        "VERSION",
        "VOLUMES",
    ]
)
OPEN_BY_DEFAULT = frozenset(("EVENTS", "PING", "VERSION", "LIBPOD_PING", "LIBPOD_VERSION"))
#: what is done to a container or pod: variable → last segments of POST /containers/ID/…
VERBS = {
    "RESTARTS": ("stop", "restart", "kill"),
    "START": ("start",),
    "STOP": ("stop",),
    "PAUSE": ("pause",),
    "UNPAUSE": ("unpause",),
}
ACTIONS = {
    f"{prefix}{verb}": (base, VERBS[verb])
    for prefix, base in (
        ("ALLOW_", "/containers"),
        ("LIBPOD_ALLOW_", "/libpod/containers"),
        ("LIBPOD_ALLOW_POD_", "/libpod/pods"),
    )
    for verb in VERBS
}
TECNATIVA_ACTIONS = ("ALLOW_RESTARTS", "ALLOW_START", "ALLOW_STOP")
#: what linuxserver denies unless asked: variable → last segments under /containers (copy: archive's name before API 1.24)
READERS = {
    "ALLOW_ARCHIVE": ("archive", "copy"),
    "ALLOW_CHANGES": ("changes",),
    "ALLOW_EXPORT": ("export",),
    "ALLOW_LOGS": ("logs",),
    "ALLOW_TOP": ("top",),
}
LINUXSERVER_ONLY = (
    *(name for name in ACTIONS if name not in TECNATIVA_ACTIONS),
    *READERS,
    *LIBPOD_SECTIONS,
)
SWITCHES = (*SECTIONS, "POST", *TECNATIVA_ACTIONS, *LINUXSERVER_ONLY)
#: variables of Tecnativa's releases from 2026 on, whose finer gates are not taken over
UNKNOWN_SWITCHES = ("ALLOW_ATTACH", "ALLOW_EXEC", "ALLOW_KILL", "DELETE", "PATCH", "PUT")
TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")
# the names that Docker gives containers, and the originals' pattern
CONTAINER_NAME = "[a-zA-Z0-9_.-]+"
FLAGS = re.I | re.A | re.S


def section_path(name: str) -> str:
    """The prefix that a section's variable speaks about."""
    prefix = "/libpod/" if name.startswith("LIBPOD_") else "/"
    return prefix + name.replace("LIBPOD_", "").replace("PING", "_PING").lower()


def section_clause(name: str) -> Clause:
    """Everything that begins with a section's path."""
    path = section_path(name)
    return Clause(True, frozenset(), re.compile(re.escape(path), FLAGS), name, f"{path}**")


def action_clause(name: str) -> Clause:
    """POST alone, and exactly the container's action: nothing behind it."""
    base, verbs = ACTIONS[name]
    path = re.compile(rf"{base}/{CONTAINER_NAME}/(?:{'|'.join(verbs)})\Z", FLAGS)
    return Clause(True, frozenset(("POST",)), path, name, f"{base}/*/{'|'.join(verbs)}")


def reader_clause(name: str) -> Clause:
    """A deny of one kind of reading, however many links stand in the container's name."""
    verbs = "|".join(READERS[name])
    path = re.compile(
        rf"(?:/libpod)?/containers/(?:{CONTAINER_NAME}/(?:{verbs})|.+/(?:{verbs})\Z)", FLAGS
    )
    return Clause(False, frozenset(), path, name, f"/containers/**/{verbs}")


def gate_clauses() -> list[Clause]:
    """Without POST=1: no method but GET and HEAD, and no GET that writes to a container."""
    attach = re.compile(r"(?:/libpod)?/containers/.*/attach/ws", FLAGS)
    return [
        Clause(False, READS, re.compile(""), "POST", "**", others=True),
        Clause(False, frozenset(), attach, "POST", "/containers/**/attach/ws"),
    ]


def switch(environ: Mapping[str, str], name: str) -> bool:
    """One variable's value, absent its default, empty 0 as in the originals; raises PolicyError for what is neither."""
    if name not in environ:
        return name in OPEN_BY_DEFAULT
    text = environ[name].strip().lower()
    if text and text not in TRUE + FALSE:
        raise PolicyError(
            f"{name}={environ[name]!r} is neither of {', '.join(TRUE)} nor of {', '.join(FALSE)}"
        )
    return text in TRUE


class CompatiblePolicy(Policy):
    """The policy of Tecnativa's variables, or of linuxserver's: `on` are those that hold 1.

    Tecnativa's order: POST, the actions, the sections. linuxserver's: the readers, the actions, POST, the sections.
    """

    def __init__(self, on: Iterable[str], linuxserver: bool) -> None:
        self.on = frozenset(on)
        self.linuxserver = linuxserver
        gate = [] if "POST" in self.on else gate_clauses()
        actions = [action_clause(name) for name in self._actions() if name in self.on]
        denies = [reader_clause(name) for name in READERS if linuxserver and name not in self.on]
        sections = [section_clause(name) for name in self._sections() if name in self.on]
        order = [*denies, *actions, *gate] if linuxserver else [*gate, *actions]
        named = [
            clause._replace(name=f"{clause.name}={int(clause.allow)}")
            for clause in (*order, *sections)
        ]
        super().__init__("linuxserver" if linuxserver else "tecnativa", named)

    def _actions(self) -> Iterable[str]:
        return ACTIONS if self.linuxserver else TECNATIVA_ACTIONS

    def _sections(self) -> Iterable[str]:
        return (*SECTIONS, *LIBPOD_SECTIONS) if self.linuxserver else SECTIONS

    def unnamed(self, path: str) -> str:
        """The section's variable, which is not on."""
        return next(
            (f"{name}=0" for name in self._sections() if section_clause(name).matches("GET", path)),
            "no rule",
        )

    def admits(self, method: str, path: str, clause: Clause | None = None) -> tuple[str, ...]:
        """The alternatives that would admit the request, without what is on already."""
        missing = [
            [name for name in needed if name not in self.on]
            for needed in self.alternatives(method, path)
        ]
        least = [
            names for names in missing if not any(set(other) < set(names) for other in missing)
        ]
        return tuple(" ".join(f"{name}=1" for name in names) for names in least)

    def alternatives(self, method: str, path: str) -> list[list[str]]:
        """The sets of variables each of which admits the request by itself; none where no section knows the path."""
        readers = [
            name
            for name in READERS
            if self.linuxserver and reader_clause(name).matches(method, path)
        ]
        post = ["POST"] if any(gate.matches(method, path) for gate in gate_clauses()) else []
        found = [
            [*([] if self.linuxserver else post), name]
            for name in self._actions()
            if action_clause(name).matches(method, path)
        ]
        found += [
            [*post, *readers, name]
            for name in self._sections()
            if section_clause(name).matches(method, path)
        ]
        return found

    def table(self) -> list[str]:
        """The clauses, and what is refused for want of its variable."""
        off = [
            f"{name}=0"
            for name in (*self._actions(), *self._sections())
            if name not in self.on and "LIBPOD" not in name
        ]
        return [
            *super().table(),
            Clause(False, frozenset(), None, " ".join(off), "all else").line(),
        ]


def compatible_policy(environ: Mapping[str, str], linuxserver: bool) -> CompatiblePolicy:
    """The policy that the variables describe; raises PolicyError."""
    names = [name for name in SWITCHES if linuxserver or name not in LINUXSERVER_ONLY]
    return CompatiblePolicy((name for name in names if switch(environ, name)), linuxserver)


def set_switches(environ: Mapping[str, str], names: Iterable[str] = SWITCHES) -> list[str]:
    """The variables that hold a word for yes or no. Others of these names (VERSION=1.2.3) mean something else."""
    return [name for name in names if environ.get(name, "").strip().lower() in TRUE + FALSE]


def policy_from_environment(
    environ: Mapping[str, str], mode: str
) -> tuple[Policy | None, list[str]]:
    """The policy that `off`, `tecnativa`, `linuxserver` or `auto` means here, and warnings; raises PolicyError."""
    used = set_switches(environ)
    if mode == "off":
        warning = (
            f"{used[0]} is set but no policy is on: everything passes; DOCKERAUDIT_POLICY=auto makes the variables count"
            if used
            else ""
        )
        return None, [warning] if warning else []
    if mode == "auto" and not used:
        return None, [
            "no variable is set, so everything passes and is audited; DOCKERAUDIT_POLICY=tecnativa refuses all but events, ping and version"
        ]
    foreign = [name for name in used if name in LINUXSERVER_ONLY]
    linuxserver = mode == "linuxserver" or mode == "auto" and bool(foreign)
    warnings = [
        f"{name}={environ[name]} counts as 1 here; the original took it for 0"
        for name in used
        if environ[name].strip().lower() in ("true", "yes")
    ]
    if not linuxserver:
        warnings += [
            f"{name} is a variable of linuxserver's proxy and changes nothing under tecnativa"
            for name in foreign
        ]
    warnings += [
        f"{name} is not a variable of this policy and changes nothing: POST=1 admits every method of the sections that are on"
        for name in set_switches(environ, UNKNOWN_SWITCHES)
    ]
    return compatible_policy(environ, linuxserver), warnings


NATIVE_RULE = re.compile(r"\s*(allow|deny)\s*=\s*(\*|[A-Z]+(?:,[A-Z]+)*)\s+(/\S*)\s*")


class NativePolicy(Policy):
    """Lines `allow = METHODS /path` and `deny = …`, in their order."""

    def admits(self, method: str, path: str, clause: Clause | None) -> tuple[str, ...]:
        """The line that would admit the request, and where it would have to stand."""
        return (
            f"the rule 'allow = {method} {path_pattern(path)}'"
            + (" above that one" if clause else ""),
        )

    def table(self) -> list[str]:
        """The lines as they were given."""
        return [
            "policy rules: the first line that matches decides, no match denies",
            *(clause.name for clause in self._clauses),
        ]


def native_policy(rule_lines: Sequence[str]) -> NativePolicy:
    """The policy of lines `allow = METHODS /path` and `deny = …`; raises PolicyError naming a wrong line."""
    if not rule_lines:
        raise PolicyError(
            "policy 'rules' has no rule: add lines such as allow = GET,HEAD /containers/*/logs"
        )
    return NativePolicy("rules", [native_clause(line) for line in rule_lines])


def native_clause(line: str) -> Clause:
    """One rule; `*` within a segment, `**` across; raises PolicyError."""
    rule = NATIVE_RULE.fullmatch(line)
    if rule is None:
        raise PolicyError(
            f"{line.strip()!r} is no rule; one is: allow = GET,HEAD /containers/*/logs"
        )
    action, methods, path = rule.groups()
    names = frozenset() if methods == "*" else frozenset(methods.split(","))
    regex = "".join(
        {"**": ".*", "*": "[^/]*"}.get(part, re.escape(part))
        for part in re.split(r"(\*\*|\*)", path)
    )
    return Clause(action == "allow", names, re.compile(rf"{regex}\Z", re.S), line.strip(), path)


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
        return Decision(
            allowed, "allow-uid", () if allowed else (f"allow-uid = {client.get('uid')}",)
        )


def client_filter(
    allow_from: Iterable[str], allow_uid: Iterable[Any], allow_gid: Iterable[Any]
) -> ClientFilter | None:
    """The filter, or None where nothing restricts; raises PolicyError."""
    try:
        networks = [ipaddress.ip_network(text, strict=False) for text in allow_from]
    except ValueError as error:
        raise PolicyError(
            f"allow-from: {error}; give addresses or networks such as 10.0.0.0/8"
        ) from None
    uids = frozenset(
        account_number(name, lambda n: pwd.getpwnam(n).pw_uid, "allow-uid") for name in allow_uid
    )
    gids = frozenset(
        account_number(name, lambda n: grp.getgrnam(n).gr_gid, "allow-gid") for name in allow_gid
    )
    return ClientFilter(networks, uids, gids) if networks or uids or gids else None


def account_number(name: Any, look_up: Any, option: str) -> int:
    """A uid or gid by number or name; raises PolicyError."""
    try:
        return int(name) if str(name).isdigit() else int(look_up(str(name)))
    except KeyError:
        raise PolicyError(f"{option}: there is no {name!r} on this host") from None


#: collections whose second segment is a name or an id, unless it is one of these words
COLLECTIONS = {
    "containers": ("json", "create", "prune", "stats"),
    "pods": ("json", "create", "prune", "stats"),
    "images": ("json", "create", "prune", "load", "get", "search", "export", "import", "pull"),
    "networks": ("json", "create", "prune"),
    "volumes": ("json", "create", "prune"),
    "services": ("create",),
    "secrets": ("json", "create"),
    "configs": ("create",),
    "plugins": ("privileges", "pull", "create"),
    **dict.fromkeys(("tasks", "nodes", "exec", "distribution", "manifests", "generate"), ()),
}
SLASHED = ("images", "distribution", "plugins", "manifests")  # collections whose names hold slashes
#: what can stand behind a name with slashes
NAME_VERBS = frozenset(
    [
        "json",
        "history",
        "push",
        "tag",
        "get",
        "exists",
        "tree",
        "untag",
        "resolve",
        "enable",
        "disable",
        "set",
        "upgrade",
        "attach/ws",
    ]
)
LEARNED_EVENTS = ("would_deny", "denied", "request")
STREAM_REQUESTS = {
    "logs": ("GET", "/{0}/{1}/logs"),
    "attach": ("POST", "/{0}/{1}/attach"),
    "attach_ws": ("GET", "/{0}/{1}/attach/ws"),
    "exec": ("POST", "/exec/{1}/start"),
}


def path_pattern(path: str) -> str:
    """A path with names and ids as `*`, or `**` where they hold slashes."""
    libpod = "/libpod" if path.startswith("/libpod/") else ""
    parts = path[len(libpod) :].split("/")
    if (
        len(parts) < 3
        or parts[1] not in COLLECTIONS
        or (len(parts) == 3 and parts[2] in COLLECTIONS[parts[1]])
    ):
        return path
    prefix, behind = f"{libpod}/{parts[1]}", parts[3:]
    if parts[1] in SLASHED:
        return f"{prefix}/**" + (f"/{parts[-1]}" if behind and parts[-1] in NAME_VERBS else "")
    if (
        parts[1] == "containers" and len(behind) > 1 and behind != ["attach", "ws"]
    ):  # a link's name, or a checkpoint's
        return (
            f"{prefix}/*/checkpoints/*"
            if behind[0] == "checkpoints"
            else f"{prefix}/**/{behind[-1]}"
        )
    return "/".join([prefix, "*", *behind])


def learned_requests(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """What a log has seen: (method, path pattern) → one path of it."""
    seen: dict[tuple[str, str], str] = {}
    for record in records:
        event = record.get("event")
        method, path = record.get("method"), record.get("path")
        if event == "stream_open" and record.get("endpoint") in STREAM_REQUESTS:
            method, shape = STREAM_REQUESTS[str(record["endpoint"])]
            path = shape.format(f"{record.get('kind') or 'container'}s", "x")
        elif event not in LEARNED_EVENTS or record.get("rule") in ("browser", "http2"):
            continue
        if isinstance(method, str) and isinstance(path, str) and path.startswith("/"):
            seen.setdefault((method, path_pattern(path)), path)
    return dict(sorted(seen.items()))


def openness(name: str) -> int:
    """How much a variable opens, to choose the least: an action its verbs, a section a hundred, POST everything."""
    if name in ACTIONS:
        return len(ACTIONS[name][1])
    return 1 if name in READERS else 10_000 if name == "POST" else 100


def least_variables(requests: Sequence[tuple[str, str]], linuxserver: bool = True) -> list[str]:
    """The variables to set to 1 so that all requests pass that can, and the least besides; none can be left out."""
    defaults = CompatiblePolicy(OPEN_BY_DEFAULT, linuxserver)
    choices = [
        [frozenset(needed) - OPEN_BY_DEFAULT for needed in defaults.alternatives(*request)]
        for request in requests
    ]
    choices = [alternatives for alternatives in choices if alternatives]
    chosen: set[str] = set()
    for alternatives in sorted(choices, key=len):
        chosen |= min(
            alternatives, key=lambda needed: sum(openness(name) for name in needed - chosen)
        )
    for name in sorted(chosen, key=openness, reverse=True):
        if all(
            any(needed <= chosen - {name} for needed in alternatives) for alternatives in choices
        ):
            chosen.discard(name)
    return [name for name in SWITCHES if name in chosen]


def least_rules(requests: Mapping[tuple[str, str], str]) -> list[str]:
    """Native rules that admit the requests and the least besides; none can be left out."""
    methods: dict[str, list[str]] = {}
    for method, pattern in requests:
        methods.setdefault(pattern, []).append(method)
    lines = {
        f"allow = {','.join(sorted(names))} {pattern}": pattern
        for pattern, names in sorted(methods.items())
    }
    samples = [(method, path) for (method, _), path in requests.items()]
    for line in sorted(lines, key=lambda line: -lines[line].count("*")):
        rest = [other for other in lines if other != line]
        if rest and all(native_policy(rest).decide(*sample).allowed for sample in samples):
            del lines[line]
    return list(lines)


def learn(records: Iterable[Mapping[str, Any]], linuxserver: bool = True) -> list[str]:
    """Lines for people to paste: variables for the environment, and native rules for the file.

    Raises PolicyError for a log without requests: rules from it would refuse everything.
    """
    requests = learned_requests(records)
    if not requests:
        raise PolicyError("it has recorded no request, so there is nothing to learn from it")
    samples = [(method, path) for (method, _), path in requests.items()]
    name = "linuxserver" if linuxserver else "tecnativa"
    variables = least_variables(samples, linuxserver)
    policy = CompatiblePolicy({*OPEN_BY_DEFAULT, *variables}, linuxserver)
    lines = [
        "# as variables, for the environment:",
        f"DOCKERAUDIT_POLICY={name}",
        *(f"{variable}=1" for variable in variables),
    ]
    lines += [
        f"# no variable admits {method} {path}"
        for method, path in samples
        if not policy.decide(method, path).allowed
    ]
    return [
        *lines,
        "# or as native rules, for the file of --config, with policy = rules:",
        *least_rules(requests),
    ]
