"""The guard: no request of its clients gives them the host. Performs no I/O.

    head ─▶ refuses ─▶ objections by route and query
    body ─▶ read_strict ─▶ Walk over the shape's fields ─▶ judges of values ─▶ objections

Closed by default: a route, a parameter, a field, a type or a spelling that the tables do not name
is refused. What is forwarded is byte for byte what was judged.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, Callable

from _dockeraudit.guardfields import FIRST_MINOR, SHAPES, Field
from _dockeraudit.guardfile import Exceptions
from _dockeraudit.guardroutes import READING, SECRET_READS, GuardedRoute, guarded_route
from _dockeraudit.guardrules import (
    JUDGES,
    SHOWN_PATH,
    Court,
    FieldPlace,
    Objection,
    against,
    is_default,
    judge_default,
    judge_volume_create,
    shown_value,
)
from _dockeraudit.heldbody import Verdict
from _dockeraudit.http1 import RequestHead
from _dockeraudit.policy import LONGEST_HINT, path_pattern
from _dockeraudit.routes import Route
from _dockeraudit.strictjson import NotStrict, read_strict

OLDEST_MINOR = 24  # of API 1; older ones take a HostConfig on more routes
API_VERSION = re.compile(r"/v1\.([1-9][0-9]{1,2})")
MOST_OBJECTIONS = 32  # that are looked for in one request, and recorded in learn mode
OTHERS_SHOWN = 5  # further fields that a refusal names
EMPTY_BODIES = (b"", b"{}", b"null")
NUMBERS = range(-(2**63), 2**64)  # Go's int64 and uint64


def is_scalar(value: Any, kind: str) -> bool:
    """Whether a value has a type of `guardfields` that is no shape."""
    if kind == "text":
        return isinstance(value, str)
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int) and not isinstance(value, bool) and value in NUMBERS
    if kind == "real":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "map":
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if kind == "set":
        return isinstance(value, dict) and all(inner in ({}, None) for inner in value.values())
    if kind == "words" and isinstance(value, str):
        return True
    inner = {"texts": "text", "words": "text", "numbers": "number", "pairs": "texts"}.get(kind)
    if inner:
        return isinstance(value, list) and all(is_scalar(member, inner) for member in value)
    return kind == "any"


def unknown_rule(where: str) -> str:
    """The rule of a field that no row names: a client chooses its name, and could choose many."""
    outer, dot, _ = where.rpartition(".")
    return f"{outer}{dot}?"


class Walk:
    """One body, looked at field by field.

    `minor`: the version of API 1 that was asked for; None: the engine's own.
    """

    def __init__(self, court: Court, minor: int | None) -> None:
        self.court = court
        self.minor = minor

    def members(self, value: dict[str, Any], shape: str, path: str) -> Iterator[Objection]:
        """What is against the members of an object."""
        fields = SHAPES[shape]
        for name, member in value.items():
            where = f"{path}.{name}" if path else name
            if name in fields:
                yield from self.field(member, fields[name], where)
            else:
                yield from self.unknown(name, member, fields, where)

    def unknown(
        self, name: str, member: Any, fields: dict[str, Field], where: str
    ) -> Iterator[Objection]:
        """A member that no row names; Go's reader would take `privileged` for `Privileged`."""
        folded = {known.casefold(): known for known in fields}.get(name.casefold())
        if folded:
            place = FieldPlace(where, f"the API spells it {folded}")
            yield against(place, member, rule=unknown_rule(where))
        elif not self.court.exceptions.admit("field", where):
            place = FieldPlace(where, "no field that the guard knows")
            yield against(place, member, f"field = {where}", rule=unknown_rule(where))

    def field(self, value: Any, field: Field, where: str) -> Iterator[Objection]:
        """What is against one field."""
        if self.court.exceptions.admit("field", where):
            return
        place = FieldPlace(where, field.reason)
        known = self.minor is None or field.since <= max(self.minor, FIRST_MINOR) <= field.until
        if not (known or is_default(value)):
            why = f"API 1.{self.minor} has no such field"
            yield against(place, value, f"field = {where}", why)
        problems = list(itertools.islice(self.typed(value, field.type, where), MOST_OBJECTIONS))
        yield from problems
        if not problems and field.verdict in JUDGES:
            yield from JUDGES[field.verdict](value, place, self.court)

    def typed(self, value: Any, kind: str, where: str) -> Iterator[Objection]:
        """What is against a value's type, and against the fields of a shape."""
        if value is None:
            return
        if kind[0].isupper():
            if isinstance(value, dict):
                yield from self.members(value, kind, where)
            else:
                yield self.mistyped(value, where, "an object")
        elif kind[0] == "[":
            if isinstance(value, list) and None not in value:
                for member in value:
                    yield from self.typed(member, kind[1:-1], f"{where}[]")
            else:
                yield self.mistyped(value, where, "a list without null")
        elif kind[0] == "{":
            if isinstance(value, dict):
                for member in value.values():
                    yield from self.typed(member, kind[1:-1], f"{where}{{}}")
            else:
                yield self.mistyped(value, where, "an object")
        elif not is_scalar(value, kind):
            yield self.mistyped(value, where, f"a {kind}")

    def mistyped(self, value: Any, where: str, wanted: str) -> Objection:
        """The objection to a value of another type, which readers may mend differently."""
        return against(FieldPlace(where, f"it should be {wanted}"), value)


def nobody(reference: str) -> bool:
    """No container may be shared."""
    return False


def no_network(reference: str) -> str | None:
    """Nobody knows what the engine calls a network."""
    return None


class Guard:
    """A listener's guard: a judge of bodies, and of what can be seen without them.

    `admits_container` and `network_name`: see Court.
    """

    def __init__(
        self,
        exceptions: Exceptions,
        admits_container: Callable[[str], bool] = nobody,
        network_name: Callable[[str], str | None] = no_network,
    ) -> None:
        self.exceptions = exceptions
        self._court = Court(exceptions, admits_container, network_name)

    def refuses(self, head: RequestHead, route: Route) -> Iterator[Objection]:
        """What is against a request by its head alone."""
        method = head.method.decode("ascii", "replace")
        if head.method in READING and not SECRET_READS.fullmatch(route.path):
            return
        row = guarded_route(method, route.path)
        if row.verdict == "refuse":
            if not self.exceptions.admits_route(method, route.path):
                yield refused_route(method, route.path, row)
            return
        if row.verdict == "safe":
            return
        if route.version and minor_version(route.version) is None:
            text = (
                f"the guard judges API 1.{OLDEST_MINOR} and newer, spelled as in /v1.{OLDEST_MINOR}"
            )
            yield Objection("guard:version", f"{text}, and refuses other versions")
        kinds = head.index.get(b"content-type", [])
        if any(part in kind.lower() for kind in kinds for part in (b"form", b"multipart")):
            text = "the guard refuses a form here: it may hold parameters"
            yield Objection("guard:content-type", text)
        if row.query:
            yield from itertools.islice(self._query(route, row), MOST_OBJECTIONS)

    def _query(self, route: Route, row: GuardedRoute) -> Iterator[Objection]:
        """What is against the parameters of a query; the engine takes the first of each name."""
        assert row.query is not None
        if ";" in route.query:  # engines built with Go before 1.17 take it for an ampersand
            yield Objection("guard:query", "the guard refuses a query with a ';'; spell it %3B")
        safe, judged = row.query
        for name, value in route.parameters():
            if name in safe or not (name or value):
                continue
            place = FieldPlace(f"{row.path}?{name}", "beyond the defaults")
            if name not in judged:
                if not self.exceptions.admit("field", place.path):
                    why, rule = "no parameter that the guard knows", f"{row.path}?"
                    yield against(place, value, f"field = {place.path}", why, rule)
            else:
                yield from self._parameter(judged[name], value, place)

    def _parameter(self, judge: str, value: str, place: FieldPlace) -> Iterator[Objection]:
        """What is against one parameter."""
        exceptions = self.exceptions
        if judge == "fetch":
            if value not in ("", "-", "client-session") and not exceptions.admits_url(value):
                admits = f"fetch = {value}" if len(value) < SHOWN_PATH else ""
                yield against(place._replace(reason="the engine loads it"), value, admits)
        elif judge == "builder":
            if value not in ("", "1"):
                why = "another builder, whose parts the guard does not see"
                yield from judge_default(value, place._replace(reason=why), self._court)
        elif judge == "ulimits":
            yield from self._ulimits(value, place)
        else:
            yield from JUDGES[judge](value, place, self._court)

    def _ulimits(self, value: str, place: FieldPlace) -> Iterator[Objection]:
        """A build's limits, which are JSON in a parameter."""
        try:
            limits = read_strict(value.encode("utf-8", "surrogateescape")) if value else None
        except NotStrict as error:
            yield against(place._replace(reason=str(error)), value)
            return
        field = SHAPES["HostConfig"]["Ulimits"]
        yield from Walk(self._court, None).field(limits, field, place.path)

    def wants(self, head: RequestHead, route: Route) -> bool:
        """Whether the request's body is to be judged."""
        row = guarded_route(head.method.decode("ascii", "replace"), route.path)
        return row.verdict in ("body", "empty")

    def judge(self, head: RequestHead, route: Route, body: bytes) -> Verdict:
        """The body as it came, and what is against it."""
        row = guarded_route(head.method.decode("ascii", "replace"), route.path)
        found = self._objections(row, route, body)
        return Verdict(body, summed_up(list(itertools.islice(found, MOST_OBJECTIONS))))

    def _objections(self, row: GuardedRoute, route: Route, body: bytes) -> Iterator[Objection]:
        bare = body.strip(b" \t\r\n")
        if row.verdict == "empty":
            if bare not in EMPTY_BODIES:
                yield Objection("guard:body", f"the guard refuses a body here: {row.reason}")
            return
        if row.optional and bare in EMPTY_BODIES:
            return
        try:
            value = read_strict(body)
        except NotStrict as error:
            text = f"the guard refuses a body that is no strict JSON: {error}"
            yield Objection("guard:json", text)
            return
        if not isinstance(value, dict):
            yield Objection(
                "guard:body", f"the guard refuses the body {shown_value(value)}, which is no object"
            )
            return
        walk = Walk(self._court, minor_version(route.version))
        problems = list(itertools.islice(walk.members(value, row.shape, ""), MOST_OBJECTIONS))
        yield from problems
        if row.shape == "VolumeCreate" and not problems:
            yield from judge_volume_create(value, self._court)


def minor_version(segment: str) -> int | None:
    """The minor version of a path's version segment; None for one that is not judged."""
    match = API_VERSION.fullmatch(segment)
    minor = int(match[1]) if match else 0
    return minor if minor >= OLDEST_MINOR else None


def refused_route(method: str, path: str, row: GuardedRoute) -> Objection:
    """The objection to a route."""
    line = f"route = {method} {path_pattern(path)}" if len(path) <= LONGEST_HINT else ""
    hint = f"`{line}` in the guard's file admits it" if line else "nothing admits it"
    return Objection(
        "guard:route", f"the guard refuses {method} {cut_message(path)}: {row.reason}; {hint}", line
    )


def cut_message(text: str) -> str:
    """A text in a message."""
    return text if len(text) <= SHOWN_PATH else text[: SHOWN_PATH - 1] + "…"


def summed_up(objections: list[Objection]) -> tuple[Objection, ...]:
    """Objections of which the first, which the client is told, names the others' fields."""
    if len(objections) < 2:
        return tuple(objections)
    first, *others = objections
    names = list(dict.fromkeys(other.rule.partition(":")[2] for other in others))
    more = ", ".join(names[:OTHERS_SHOWN]) + (", …" if len(names) > OTHERS_SHOWN else "")
    return first._replace(message=f"{first.message}; also refused: {more}"), *others
