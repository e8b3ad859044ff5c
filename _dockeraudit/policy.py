"""Which requests may pass: (method, classified path) to a Decision. Performs no I/O.

    settings ─▶ Policy: clauses in order ─▶ decide(method, path) ─▶ Decision: which clause, what would admit it

A path is the one that `routes` has classified: decoded and without its version, whatever the client's spelling was.
This room has what every policy shares, and the native rules (`allow = METHODS /path`). The policies that read other
proxies' variables are in `compatible`, who may connect in `clients`, rules from traffic in `learning`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class PolicyError(ValueError):
    """A policy setting that cannot be used; the message says which and what is legal."""


class Decision(NamedTuple):
    """`rule`: what decided. `admits`: for a refusal, the alternatives, each of which would admit the request."""

    allowed: bool
    rule: str
    admits: tuple[str, ...] = ()


def refusal(method: str, path: str, decision: Decision) -> str:
    """Why a request is refused, and every setting that would admit it."""
    admits = (
        "it takes " + ", or ".join(decision.admits)
        if decision.admits
        else "no setting of this policy admits it"
    )
    return f"{method} {path} is refused by {decision.rule}; {admits}"


class Clause(NamedTuple):
    """One line of a policy.

    `methods`: empty means any; with `others` the clause is about all methods but these. `path`: a compiled regex.
    `name`: what the user set; it stands in records. `shape`: the path as the table at start prints it.
    """

    allow: bool
    methods: frozenset[str]
    path: Any
    name: str
    shape: str
    others: bool = False

    def matches(self, method: str, path: str) -> bool:
        """Whether this clause is about the request."""
        if self.methods and (method in self.methods) == self.others:
            return False
        return self.path.match(path) is not None

    def line(self) -> str:
        """The clause as a line of the table that is printed at start."""
        methods = ("not " if self.others else "") + (",".join(sorted(self.methods)) or "*")
        return f"{'allow' if self.allow else 'deny':5}  {methods:12}  {self.shape:34}  {self.name}"


class Policy:
    """Clauses in order: the first that matches decides; a request that none matches is refused."""

    def __init__(self, title: str, clauses: Sequence[Clause]) -> None:
        self.title = title
        self._clauses = tuple(clauses)

    def decide(self, method: str, path: str) -> Decision:
        """Whether the request may pass: as it stands, and as the engine's redirect would clean its path."""
        decided = ""
        for spelling in dict.fromkeys((path, cleaned(path))):
            clause = next(
                (clause for clause in self._clauses if clause.matches(method, spelling)), None
            )
            if clause is None or not clause.allow:
                rule = clause.name if clause else self.unnamed(spelling)
                return Decision(False, rule, self.admits(method, spelling, clause))
            decided = decided or clause.name
        return Decision(True, decided)

    def unnamed(self, path: str) -> str:
        """The name of the refusal of a path that no clause matches."""
        return "no rule"

    def admits(self, method: str, path: str, clause: Clause | None) -> tuple[str, ...]:
        """What would admit a request that `clause` refused; None: no clause matched."""
        return ()

    def table(self) -> list[str]:
        """The policy as lines to print at start."""
        return [
            f"policy {self.title}: the first line that matches decides",
            *(clause.line() for clause in self._clauses),
        ]


class DenyAll(Policy):
    """Refuses every request, so that `--mode learn` without a policy records all of the traffic."""

    def __init__(self) -> None:
        super().__init__("none, so that everything is learned", ())


def cleaned(path: str) -> str:
    """The path that the engine's router redirects to: without //, /./ and /../."""
    return "/" + posixpath.normpath(path).lstrip("/") if "//" in path or "/." in path else path


# Native rules: lines `allow = METHODS /path` and `deny = METHODS /path`.

NATIVE_RULE = re.compile(r"\s*(allow|deny)\s*=\s*(\*|[A-Z]+(?:,[A-Z]+)*)\s+(/\S*)\s*")


class NativePolicy(Policy):
    """Lines `allow = METHODS /path` and `deny = METHODS /path`, in their order."""

    def admits(self, method: str, path: str, clause: Clause | None) -> tuple[str, ...]:
        """The line that would admit the request, and where it would have to stand."""
        place = " above that one" if clause else ""
        return (f"the rule 'allow = {method} {path_pattern(path)}'{place}",)

    def table(self) -> list[str]:
        """The lines as they were given."""
        return [
            "policy rules: the first line that matches decides, no match denies",
            *(clause.name for clause in self._clauses),
        ]


def native_policy(rule_lines: Sequence[str]) -> NativePolicy:
    """The policy of these lines; raises PolicyError that names a wrong one."""
    if not rule_lines:
        raise PolicyError(
            "policy 'rules' has no rule: add lines such as allow = GET,HEAD /containers/*/logs"
        )
    return NativePolicy("rules", [native_clause(line) for line in rule_lines])


def native_clause(line: str) -> Clause:
    """One rule; `*` matches within a segment, `**` across segments. Raises PolicyError."""
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


# From a path that was asked for to a rule's path.

#: collections of the API whose second segment is a name or an id, unless it is one of these words
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
#: the words that can stand behind a name with slashes
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
    ]
) | {"attach/ws"}


def path_pattern(path: str) -> str:
    """A path with its names and ids as `*`, or `**` where they hold slashes."""
    libpod = "/libpod" if path.startswith("/libpod/") else ""
    _, *parts = path[len(libpod) :].split("/")
    if len(parts) < 2 or parts[0] not in COLLECTIONS:
        return path
    collection, name, *behind = parts
    if not behind and name in COLLECTIONS[collection]:
        return path
    prefix = f"{libpod}/{collection}"
    if collection in SLASHED:
        return f"{prefix}/**" + (f"/{parts[-1]}" if behind and parts[-1] in NAME_VERBS else "")
    if collection == "containers" and len(behind) > 1 and behind != ["attach", "ws"]:
        if behind[0] == "checkpoints":
            return f"{prefix}/*/checkpoints/*"
        return f"{prefix}/**/{behind[-1]}"  # the name of a link: /containers/parent/alias/logs
    return "/".join([prefix, "*", *behind])
