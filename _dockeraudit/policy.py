"""Which requests may pass: (method, classified path) to a Decision. Performs no I/O.

    settings ─▶ Policy: clauses in order ─▶ decide(method, path) ─▶ Decision

A path is the one that `routes` has classified: decoded and without its version, whatever the
client's spelling was. This room has what every policy shares, and the native rules
(`allow = METHODS /path`). The policies that read other proxies' variables are in `compatible`, who
may connect is in `clients`, rules made from traffic are in `learning`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

NO_RULE = "no rule"  # the name of a refusal by a policy none of whose clauses matches
VERSION_RULE = "version"  # the rule that refuses a version segment which the engine does not know
LONGEST_HINT = 512  # bytes of a path for which a refusal still prints the rule that would admit it


class PolicyError(ValueError):
    """A policy setting that cannot be used; the message says which and what is legal."""


class Decision(NamedTuple):
    """`rule`: what decided. `admits`: the settings each of which would admit what was refused."""

    allowed: bool
    rule: str
    admits: tuple[str, ...] = ()


def refusal(method: str, path: str, decision: Decision) -> str:
    """Why a request is refused, and every setting that would admit it."""
    if decision.rule == VERSION_RULE:
        return (
            f"{method} {path} is refused: the version in front of it is one that only Podman "
            "serves, and this engine is not known to be Podman"
        )
    if decision.rule == NO_RULE and decision.admits:
        return f"{method} {path} is refused: no rule of access admits it; {decision.admits[0]}"
    admits = (
        "it takes " + ", or ".join(decision.admits)
        if decision.admits
        else "no setting of this policy admits it"
    )
    return f"{method} {path} is refused by {decision.rule}; {admits}"


class Asked(NamedTuple):
    """What a policy looks at: one spelling of a request.

    `reads_log`: an attach that asks for the container's log as well (`?logs=1`).
    """

    method: str
    path: str
    reads_log: bool = False


class Clause(NamedTuple):
    """One line of a policy.

    `methods`: empty means any; with `others` the clause is about all methods but these. `path`: a
    compiled regex or a PathPattern. `name`: what the user set; it stands in records. `shape`: the
    path as the table at start prints it. `log_only`: the clause is about requests that read a log.
    """

    allow: bool
    methods: frozenset[str]
    path: Any
    name: str
    shape: str
    others: bool = False
    log_only: bool = False

    def matches(self, asked: Asked) -> bool:
        """Whether this clause is about the request."""
        if self.methods and (asked.method in self.methods) == self.others:
            return False
        if self.log_only and not asked.reads_log:
            return False
        return bool(self.path.match(asked.path))

    def line(self) -> str:
        """The clause as a line of the table that is printed at start."""
        methods = ("not " if self.others else "") + (",".join(sorted(self.methods)) or "*")
        return f"{'allow' if self.allow else 'deny':5}  {methods:12}  {self.shape:34}  {self.name}"


class Policy:
    """Clauses in order: the first that matches decides; a request that none matches is refused."""

    def __init__(self, title: str, clauses: Sequence[Clause]) -> None:
        self.title = title
        self._clauses = tuple(clauses)

    def decide(
        self, method: str, path: str, *, version: str = "", reads_log: bool = False
    ) -> Decision:
        """Whether the request may pass, in each way in which the engine may read its path.

        `version`: a version segment that the engine may not know, and then takes for part of the
        path. `reads_log`: see Asked.
        """
        decided = ""
        for spelling in dict.fromkeys((path, cleaned(path))):
            decision = self._decide(Asked(method, spelling, reads_log))
            if not decision.allowed:
                return decision
            decided = decided or decision.rule
        if version and not self._decide(Asked(method, version + path, reads_log)).allowed:
            return Decision(False, VERSION_RULE)
        return Decision(True, decided)

    def _decide(self, asked: Asked) -> Decision:
        clause = next((clause for clause in self._clauses if clause.matches(asked)), None)
        if clause is not None and clause.allow:
            return Decision(True, clause.name)
        rule = clause.name if clause else self.unnamed(asked)
        return Decision(False, rule, self.admits(asked, clause))

    def unnamed(self, asked: Asked) -> str:
        """The name of the refusal of a request that no clause matches."""
        return NO_RULE

    def admits(self, asked: Asked, clause: Clause | None) -> tuple[str, ...]:
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

WILDCARD = re.compile(r"(\*\*|\*)")
NATIVE_RULE = re.compile(r"\s*(allow|deny)\s*=\s*(\*|[A-Z]+(?:,[A-Z]+)*)\s+(/\S*)\s*")


class PathPattern:
    """The path of a native rule: `*` stands for characters of one segment, `**` for any.

    A regular expression with two `**` tries every way to divide a path between them, and holds the
    interpreter meanwhile. Here each part between two wildcards is searched once: behind `**` the
    first place where it stands is as good as any, behind `*` the first in each segment.
    """

    def __init__(self, text: str) -> None:
        self._head, *parts = WILDCARD.split(text)
        self._parts = list(zip(parts[::2], parts[1::2]))  # each wildcard, and the text behind it

    def match(self, path: str) -> bool:
        """Whether the whole path matches."""
        if not path.startswith(self._head):
            return False
        ends = [len(self._head)]  # where the text so far may end: at most one place in a segment
        for number, (wildcard, text) in enumerate(self._parts):
            spans = wildcard_spans(path, wildcard, ends)
            if number == len(self._parts) - 1:
                begin = len(path) - len(text)
                return path.endswith(text) and any(a <= begin <= b for a, b in spans)
            across = self._parts[number + 1][0] == "**"
            ends = text_ends(path, text, spans, first_only=across)
            if not ends:
                return False
        return ends == [len(path)]


Span = tuple[int, int]  # the first and the last place at which something may begin


def wildcard_spans(path: str, wildcard: str, ends: Sequence[int]) -> list[Span]:
    """Where the text behind a wildcard may begin, if the text before it ends at one of `ends`."""
    if wildcard == "**":
        return [(ends[0], len(path))]
    slashes = [path.find("/", end) for end in ends]
    return [(end, slash if slash >= 0 else len(path)) for end, slash in zip(ends, slashes)]


def text_ends(path: str, text: str, spans: Sequence[Span], first_only: bool) -> list[int]:
    """Where `text` may end that begins in one of `spans`: the first place in each segment."""
    ends = []
    for begin, last in spans:
        while begin <= last:
            place = path.find(text, begin, last + len(text))
            if place < 0:
                break
            ends.append(place + len(text))
            if first_only:
                return ends
            # a text with a slash that begins later ends in a later segment
            slash = place if "/" in text else path.find("/", ends[-1], last)
            begin = slash + 1 if slash >= 0 else last + 1
    return ends


class NativePolicy(Policy):
    """Lines `allow = METHODS /path` and `deny = METHODS /path`, in their order."""

    def admits(self, asked: Asked, clause: Clause | None) -> tuple[str, ...]:
        """The line that would admit the request, and where it would have to stand."""
        if len(asked.path) > LONGEST_HINT:
            return ()
        rule = f"`allow = {asked.method} {path_pattern(asked.path)}`"
        return (f"the rule {rule} above that one" if clause else f"add {rule}",)

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
    return Clause(action == "allow", names, PathPattern(path), line.strip(), path)


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
