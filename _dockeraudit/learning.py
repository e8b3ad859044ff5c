"""The least settings that admit the traffic that an audit log has recorded. Performs no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from _dockeraudit.compatible import ACTIONS, OPEN_BY_DEFAULT, READERS, SWITCHES, CompatiblePolicy
from _dockeraudit.policy import Asked, PolicyError, native_policy, path_pattern

LEARNED_EVENTS = ("would_deny", "denied", "request")
#: rules that refuse what no policy should admit
UNLEARNED_RULES = ("browser", "http", "http2", "version")
STREAM_REQUESTS = {
    "logs": ("GET", "/{0}/{1}/logs"),
    "attach": ("POST", "/{0}/{1}/attach"),
    "attach_ws": ("GET", "/{0}/{1}/attach/ws"),
    "exec": ("POST", "/exec/{1}/start"),
}


def learned_requests(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """What a log has seen: (method, path pattern) → one path of it."""
    seen: dict[tuple[str, str], str] = {}
    for record in records:
        event = record.get("event")
        method, path = record.get("method"), record.get("path")
        if event == "stream_open" and record.get("endpoint") in STREAM_REQUESTS:
            method, shape = STREAM_REQUESTS[str(record["endpoint"])]
            path = shape.format(f"{record.get('kind') or 'container'}s", "x")
        elif event not in LEARNED_EVENTS or record.get("rule") in UNLEARNED_RULES:
            continue
        if isinstance(method, str) and isinstance(path, str) and path.startswith("/"):
            seen.setdefault((method, path_pattern(path)), path)
    return dict(sorted(seen.items()))


def openness(name: str) -> int:
    """How much a variable opens: an action as many as its verbs, a section 100, POST 10,000."""
    if name in ACTIONS:
        return len(ACTIONS[name][1])
    if name in READERS:
        return 1
    return 10_000 if name == "POST" else 100


def least_variables(requests: Sequence[tuple[str, str]], linuxserver: bool = True) -> list[str]:
    """The variables which, set to 1, admit all requests that any can, and the least besides.

    None of them can be left out.
    """
    defaults = CompatiblePolicy(OPEN_BY_DEFAULT, linuxserver)
    choices = [
        [frozenset(needed) - OPEN_BY_DEFAULT for needed in defaults.alternatives(Asked(*request))]
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
    admitted: set[str] = set()
    requests = learned_requests(noting_guard(records, admitted))
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
        *guard_lines(admitted),
    ]


def noting_guard(
    records: Iterable[Mapping[str, Any]], admitted: set[str]
) -> Iterator[Mapping[str, Any]]:
    """The records as they come; the lines that would have admitted what a guard refused are noted.

    A request that nothing admits has no such line.
    """
    for record in records:
        line = record.get("admits")
        if record.get("event") in LEARNED_EVENTS and isinstance(line, str) and line.isprintable():
            admitted.add(line)
        yield record


def guard_lines(admitted: Iterable[str]) -> list[str]:
    """The exceptions that a guard's file would have needed; nothing where it refused nothing."""
    lines = sorted(admitted)
    if not lines:
        return []
    return [
        "# and as exceptions, for the file of guard = FILE; each line gives more of the host away,",
        "# so leave out what the clients can do without:",
        "[guard]",
        *lines,
    ]
