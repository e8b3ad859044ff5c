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


def action_clause(name: str, linuxserver: bool) -> Clause:
    """POST alone, and exactly the container's action: nothing behind it."""
    base, verbs = ACTIONS[name]
    shape = f"{base}/*/{'|'.join(verbs)}"
    if linuxserver and not name.startswith("LIBPOD_"):
        base = ANY_CONTAINER
    path = re.compile(rf"{base}/{CONTAINER_NAME}/(?:{'|'.join(verbs)})\Z", FLAGS)
    return Clause(True, frozenset(("POST",)), path, name, shape)


def reader_clauses(name: str) -> list[Clause]:
    """The denies of one kind of reading, however many links stand in the container's name."""
    verbs = "|".join(READERS[name])
    path = rf"{ANY_CONTAINER}/(?:{CONTAINER_NAME}/(?:{verbs})|.+/(?:{verbs})\Z)"
    found = [
        Clause(False, frozenset(), re.compile(path, FLAGS), name, f"/containers/**/{verbs}"),
    ]
    if name == "ALLOW_LOGS":
        attach = re.compile(rf"{ANY_CONTAINER}/.+/attach(?:/ws)?\Z", FLAGS)
        shape = "/containers/**/attach?logs=1"
        found.append(Clause(False, frozenset(), attach, name, shape, log_only=True))
    return found


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

    Tecnativa's order is POST, the actions, the sections; linuxserver's is the readers, the actions,
    POST, the sections.
    """

    def __init__(self, on: Iterable[str], linuxserver: bool) -> None:
        self.on = frozenset(on)
        self.linuxserver = linuxserver
        gate = [] if "POST" in self.on else gate_clauses()
        actions = [action_clause(name, linuxserver) for name in self._actions() if name in self.on]
        denies = [
            clause
            for name in READERS
            if linuxserver and name not in self.on
            for clause in reader_clauses(name)
        ]
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
        """Sets of variables each of which admits the request; none if no section has its path."""
        readers = [
            name
            for name in READERS
            if self.linuxserver and any(clause.matches(asked) for clause in reader_clauses(name))
        ]
        post = ["POST"] if any(gate.matches(asked) for gate in gate_clauses()) else []
        found = [
            [*([] if self.linuxserver else post), name]
            for name in self._actions()
            if action_clause(name, self.linuxserver).matches(asked)
        ]
        found += [
            [*post, *readers, name]
            for name in self._sections()
            if section_clause(name).matches(asked)
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
    foreign = [name for name in used if name in LINUXSERVER_ONLY]
    linuxserver = mode == "linuxserver" or (mode == "auto" and bool(foreign))
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
    warnings += [IGNORED_SWITCH.format(name) for name in set_switches(environ, UNKNOWN_SWITCHES)]
    return compatible_policy(environ, linuxserver), warnings


NO_POLICY = (
    "{} is set but no policy is on: everything passes; "
    "DOCKERAUDIT_POLICY=auto makes the variables count"
)
NO_VARIABLE = (
    "no variable is set, so everything passes and is audited; "
    "DOCKERAUDIT_POLICY=tecnativa refuses all but events, ping and version"
)
IGNORED_SWITCH = (
    "{} is not a variable of this policy and changes nothing: "
    "POST=1 admits every method of the sections that are on"
)
