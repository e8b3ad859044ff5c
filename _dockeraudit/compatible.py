"""The variables of Tecnativa's and linuxserver's docker-socket-proxy, as a policy. Performs no I/O.

The policies decide as their originals do (HAProxy, with one rule for a variable), but are never
laxer than the classified path allows, which closes five holes of the originals:

- an action's variable admits POST of exactly that action: not DELETE /containers/x/start, not
  /containers/x/stop/attach
- what a reader's variable refuses stays refused under the name that a link gives a container
  (/containers/parent/alias/logs)
- an attach that asks for the log (`?logs=1`) is refused where logs are
- a WebSocket attach is asked for by GET but writes to the container's stdin, so it needs POST=1
- a path with //, /./ or /../ must be admitted as it stands and as the engine's redirect cleans it

Tecnativa's newest configuration has a variable for each method, and denies exec, kill, attach and
three ways of reading a container unless their variables are on. These gates are closed as soon as
one of their variables is set; without any, POST=1 admits every method, as in the releases before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from _dockeraudit.policy import Asked, Clause, Policy, PolicyError

SECTIONS = (
    "AUTH", "BUILD", "COMMIT", "CONFIGS", "CONTAINERS", "DISTRIBUTION", "EVENTS", "EXEC", "GRPC",
    "IMAGES", "INFO", "NETWORKS", "NODES", "PING", "PLUGINS", "SECRETS", "SERVICES", "SESSION",
    "SWARM", "SYSTEM", "TASKS", "VERSION", "VOLUMES",
)  # fmt: skip
LIBPOD_SECTIONS = (
    "LIBPOD_CONTAINERS", "LIBPOD_EVENTS", "LIBPOD_EXEC", "LIBPOD_GENERATE", "LIBPOD_IMAGES",
    "LIBPOD_INFO", "LIBPOD_MANIFESTS", "LIBPOD_NETWORKS", "LIBPOD_PING", "LIBPOD_PLAY",
    "LIBPOD_PODS", "LIBPOD_SECRETS", "LIBPOD_SYSTEM", "LIBPOD_VERSION", "LIBPOD_VOLUMES",
)  # fmt: skip
READS = frozenset(("GET", "HEAD"))
OPEN_BY_DEFAULT = frozenset(("EVENTS", "PING", "VERSION", "LIBPOD_PING", "LIBPOD_VERSION"))
#: what can be done to a container or a pod: a variable's ending → last segments of the path
VERBS = {
    "RESTARTS": ("stop", "restart", "kill"),
    "START": ("start",),
    "STOP": ("stop",),
    "PAUSE": ("pause",),
    "UNPAUSE": ("unpause",),
}
#: a variable's beginning → of what it admits actions
ACTION_PATHS = {
    "ALLOW_": "/containers",
    "LIBPOD_ALLOW_": "/libpod/containers",
    "LIBPOD_ALLOW_POD_": "/libpod/pods",
}
ACTIONS = {
    f"{prefix}{verb}": (path, VERBS[verb])
    for prefix, path in ACTION_PATHS.items()
    for verb in VERBS
}
#: linuxserver's ALLOW_ variables are about Podman's own API, and its pods, as well
ANY_CONTAINER = r"(?:/libpod)?/(?:containers|pods)"
TECNATIVA_ACTIONS = ("ALLOW_RESTARTS", "ALLOW_START", "ALLOW_STOP")
#: what linuxserver denies unless its variable is on: variable → last segments of the path
#: (copy is the name of archive before API 1.24)
READERS = {
    "ALLOW_ARCHIVE": ("archive", "copy"),
    "ALLOW_CHANGES": ("changes",),
    "ALLOW_EXPORT": ("export",),
    "ALLOW_LOGS": ("logs",),
    "ALLOW_TOP": ("top",),
}
#: what Tecnativa's newest configuration denies unless its variable is on, beside some of READERS
WRITERS = {
    "ALLOW_ATTACH": ("attach", "attach/ws"),
    "ALLOW_EXEC": ("exec",),
    "ALLOW_KILL": ("kill",),
}
#: its methods, each with a variable of the same name; all others are refused
GATED_METHODS = ("POST", "DELETE", "PATCH", "PUT")
#: its variables that no other configuration has
TECNATIVA_GATES = (*WRITERS, *GATED_METHODS[1:])
#: its variables that linuxserver's proxy has too
SHARED_GATES = ("ALLOW_ARCHIVE", "ALLOW_EXPORT", "ALLOW_LOGS", "ALLOW_PAUSE", "ALLOW_UNPAUSE")
LINUXSERVER_ONLY = (
    *(name for name in ACTIONS if name not in TECNATIVA_ACTIONS),
    *READERS,
    *LIBPOD_SECTIONS,
)
SWITCHES = (*SECTIONS, "POST", *TECNATIVA_ACTIONS, *TECNATIVA_GATES, *LINUXSERVER_ONLY)
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


def action_clause(name: str, linuxserver: bool) -> Clause:
    """POST alone, and exactly the container's action: nothing behind it."""
    base, verbs = ACTIONS[name]
    shape = f"{base}/*/{'|'.join(verbs)}"
    if linuxserver and not name.startswith("LIBPOD_"):
        base = ANY_CONTAINER
    path = re.compile(rf"{base}/{CONTAINER_NAME}/(?:{'|'.join(verbs)})\Z", FLAGS)
    return Clause(True, frozenset(("POST",)), path, name, shape)


def deny_clauses(name: str) -> list[Clause]:
    """The denies of one kind of access, however many links stand in the container's name."""
    verbs = "|".join({**READERS, **WRITERS}[name])
    path = rf"{ANY_CONTAINER}/(?:{CONTAINER_NAME}/(?:{verbs})|.+/(?:{verbs})\Z)"
    found = [
        Clause(False, frozenset(), re.compile(path, FLAGS), name, f"/containers/**/{verbs}"),
    ]
    if name == "ALLOW_LOGS":
        attach = re.compile(rf"{ANY_CONTAINER}/.+/attach(?:/ws)?\Z", FLAGS)
        shape = "/containers/**/attach?logs=1"
        found.append(Clause(False, frozenset(), attach, name, shape, log_only=True))
    return found


def method_clauses(on: Iterable[str]) -> list[Clause]:
    """The denies of methods whose variables are not on, and of those that have none."""
    anything = re.compile("")
    return [
        *(
            Clause(False, frozenset((method,)), anything, method, "**")
            for method in GATED_METHODS
            if method not in on
        ),
        Clause(False, READS.union(GATED_METHODS), anything, "METHOD", "**", others=True),
    ]


def gate_clauses() -> list[Clause]:
    """The denies without POST=1: methods but GET and HEAD, and a GET that writes to a container."""
    attach = re.compile(r"(?:/libpod)?/containers/.*/attach/ws", FLAGS)
    return [
        Clause(False, READS, re.compile(""), "POST", "**", others=True),
        Clause(False, frozenset(), attach, "POST", "/containers/**/attach/ws"),
    ]


def switch(environ: Mapping[str, str], name: str) -> bool:
    """A variable's value: its default if it is not set, 0 if it is empty, as in the originals.

    Raises PolicyError for any other word.
    """
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

    Tecnativa's order is POST, the actions, the sections; with `gates` it is the methods, what a
    container's variables deny, the actions, the sections. linuxserver's is the readers, the
    actions, POST, the sections.
    """

    def __init__(self, on: Iterable[str], linuxserver: bool, gates: bool = False) -> None:
        self.on = frozenset(on)
        self.linuxserver = linuxserver
        self.gates = gates and not linuxserver
        actions = [action_clause(name, linuxserver) for name in self._actions() if name in self.on]
        denies = [
            clause
            for name in self._denied()
            if name not in self.on
            for clause in deny_clauses(name)
        ]
        gate = [] if "POST" in self.on else gate_clauses()
        if self.gates:
            gate = method_clauses(self.on)
        sections = [section_clause(name) for name in self._sections() if name in self.on]
        order = [*denies, *actions, *gate] if linuxserver else [*gate, *denies, *actions]
        named = [
            clause._replace(name=f"{clause.name}={int(clause.allow)}")
            for clause in (*order, *sections)
        ]
        super().__init__("linuxserver" if linuxserver else "tecnativa", named)

    def _actions(self) -> Iterable[str]:
        if self.linuxserver:
            return ACTIONS
        return (*TECNATIVA_ACTIONS, *SHARED_GATES[3:]) if self.gates else TECNATIVA_ACTIONS

    def _denied(self) -> Iterable[str]:
        """The variables without which an access to a container is denied."""
        if self.linuxserver:
            return READERS
        return (*WRITERS, *SHARED_GATES[:3]) if self.gates else ()

    def _sections(self) -> Iterable[str]:
        return (*SECTIONS, *LIBPOD_SECTIONS) if self.linuxserver else SECTIONS

    def unnamed(self, asked: Asked) -> str:
        """The section's variable, which is not on."""
        names = (name for name in self._sections() if section_clause(name).matches(asked))
        return next((f"{name}=0" for name in names), "no rule")

    def admits(self, asked: Asked, clause: Clause | None = None) -> tuple[str, ...]:
        """The alternatives that would admit the request, without what is on already."""
        missing = [
            [name for name in needed if name not in self.on] for needed in self.alternatives(asked)
        ]
        least = [
            names for names in missing if not any(set(other) < set(names) for other in missing)
        ]
        return tuple(" ".join(f"{name}=1" for name in names) for names in least)

    def alternatives(self, asked: Asked) -> list[list[str]]:
        """Sets of variables each of which admits the request; none if nothing can admit it."""
        method = self._method_variables(asked)
        if method is None:
            return []
        denied = [
            name
            for name in self._denied()
            if any(clause.matches(asked) for clause in deny_clauses(name))
        ]
        found = [
            [*([] if self.linuxserver else [*method, *denied]), name]
            for name in self._actions()
            if action_clause(name, self.linuxserver).matches(asked)
        ]
        found += [
            [*method, *denied, name]
            for name in self._sections()
            if section_clause(name).matches(asked)
        ]
        return found

    def _method_variables(self, asked: Asked) -> list[str] | None:
        """The variables that admit the request's method; None: there are none for it."""
        if not self.gates:
            return ["POST"] if any(gate.matches(asked) for gate in gate_clauses()) else []
        if asked.method in READS:
            return []
        return [asked.method] if asked.method in GATED_METHODS else None

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


def switches_of(linuxserver: bool, gates: bool = False) -> list[str]:
    """The variables that count in a policy."""
    if linuxserver:
        return [name for name in SWITCHES if name not in TECNATIVA_GATES]
    shared = SHARED_GATES if gates else ()
    return [
        name
        for name in SWITCHES
        if name in shared or name not in (*LINUXSERVER_ONLY, *(() if gates else TECNATIVA_GATES))
    ]


def compatible_policy(
    environ: Mapping[str, str], linuxserver: bool, gates: bool = False
) -> CompatiblePolicy:
    """The policy that the variables describe; raises PolicyError."""
    names = switches_of(linuxserver, gates)
    return CompatiblePolicy((name for name in names if switch(environ, name)), linuxserver, gates)


def set_switches(environ: Mapping[str, str], names: Iterable[str] = SWITCHES) -> list[str]:
    """The variables that hold a word for yes or no; VERSION=1.2.3, say, is another program's."""
    return [name for name in names if environ.get(name, "").strip().lower() in TRUE + FALSE]


def policy_from_environment(
    environ: Mapping[str, str], mode: str
) -> tuple[Policy | None, list[str]]:
    """The policy that `off`, `tecnativa`, `linuxserver` or `auto` means here, and warnings.

    Raises PolicyError.
    """
    used = set_switches(environ)
    if mode == "off":
        return None, [NO_POLICY.format(used[0])] if used else []
    if mode == "auto" and not used:
        return None, [NO_VARIABLE]
    newest = any(name in TECNATIVA_GATES for name in used)
    others = [name for name in used if name in LINUXSERVER_ONLY]
    if newest:
        others = [name for name in others if name not in SHARED_GATES]
    linuxserver = mode == "linuxserver" or (mode == "auto" and bool(others))
    gates = not linuxserver and (newest or any(name in SHARED_GATES for name in used))
    counted = switches_of(linuxserver, gates)
    warnings = [
        f"{name}={environ[name]} counts as 1 here; the original took it for 0"
        for name in used
        if environ[name].strip().lower() in ("true", "yes")
    ]
    warnings += [
        FOREIGN_SWITCH.format(
            name,
            "Tecnativa" if linuxserver else "linuxserver",
            "linuxserver" if linuxserver else "tecnativa",
        )
        for name in used
        if name not in counted
    ]
    return compatible_policy(environ, linuxserver, gates), warnings


NO_POLICY = (
    "{} is set but no policy is on: everything passes; "
    "DOCKERAUDIT_POLICY=auto makes the variables count"
)
NO_VARIABLE = (
    "no variable is set, so everything passes and is audited; "
    "DOCKERAUDIT_POLICY=tecnativa refuses all but events, ping and version"
)
FOREIGN_SWITCH = "{} is a variable of {}'s proxy and changes nothing under {}"
