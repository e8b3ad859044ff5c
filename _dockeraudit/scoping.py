"""Holds a listener's requests to its scope: asks the engine whose a container is, before each.

    head, route ─▶ scoped_request ─▶ look-up ─▶ a head that names the full id ─▶ the engine
                                           └──▶ OutOfScope: the engine's "No such container"

Nothing is remembered between requests. A look-up takes a third of a millisecond; a memory would
have to follow the engine's events, which can be late or lost, and what it got wrong would be
somebody else's container. A container that is renamed between look-up and use stays the one that
was looked up, since its id is what is forwarded.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

from _dockeraudit.engine import engine_answer
from _dockeraudit.errors import EngineError, HTTPError, OutOfScope
from _dockeraudit.heldbody import Verdict
from _dockeraudit.http1 import NO_BODY, Framing, RequestHead, body_reader
from _dockeraudit.remoteengine import Engine
from _dockeraudit.routes import Route, classify
from _dockeraudit.scope import CONTAINER_ID, Facts, Scope, inspected_facts, listed_facts
from _dockeraudit.scopeanswers import EventFilter, containers_of_image, without_containers
from _dockeraudit.scopebodies import (
    BodyError,
    body_bytes,
    connected_references,
    created_references,
    labelled,
    only_empty,
    read_body,
)
from _dockeraudit.scopefilters import (
    LIST_KEYS,
    RELATIVE_KEYS,
    FilterError,
    Filters,
    filters_text,
    known_keys,
    narrowed_events,
    narrowed_prune,
    read_filters,
    with_ids,
    with_label,
)
from _dockeraudit.scopeobjects import ObjectScopes
from _dockeraudit.scoperoutes import RouteError, ScopedRequest, scoped_request

LOOK_TIMEOUT = 30.0  # seconds for a look-up, which its own client alone waits for
WHOLE_ANSWER = 120.0  # seconds for an answer that is read whole: /system/df walks the disk
ID_PREFIX = re.compile(r"[0-9a-f]{1,63}")
AMBIGUOUS = b"ultiple IDs found"  # in the engine's answer to a prefix of several ids
#: the engine's sentence for a removal that fails names containers, so it is not passed on
NOT_REMOVED = (
    "it was not removed; the engine's reason is not passed on, as it may name containers of others "
    "(mostly it is still in use)"
)


class Admitted(NamedTuple):
    """A request as the engine gets it, or the answer (status and JSON) that it has given to us."""

    head: RequestHead
    route: Route
    answer: tuple[int, bytes] | None = None


class ScopeGate:
    """The scope of a listener at work. Any thread may call; it keeps nothing between calls.

    It is a BodyJudge too: of bodies that make a container or name one.
    """

    def __init__(
        self,
        scope: Scope,
        engine: Engine,
        masks: bool,
        objects: Mapping[str, Scope] = MappingProxyType({}),
    ) -> None:
        self.scope = scope
        self.objects = ObjectScopes(objects, self._ask_json)
        self._engine = engine
        self._masks = masks  # the listener masks answers, which ours would pass by
        self._actions: dict[str, Callable[[ScopedRequest], ScopedRequest]] = {
            "container": self._of_container,
            "start": self._of_container,
            "rename": self._rename,
            "exec": self._exec,
            "list": self._list,
            "events": self._events,
            "prune": self._prune,
            "create": self._create,
            "commit": self._commit,
            "absent": self._absent,
        }

    def admit(self, head: RequestHead, route: Route) -> Admitted:
        """A request held to the scope. Raises OutOfScope, EngineError."""
        try:
            return self._admit(head, route)
        except OutOfScope as error:
            error.keep = persists(head, head.framing is NO_BODY)
            raise
        except (RouteError, FilterError) as error:
            refused = self._refused(error)
            refused.keep = persists(head, head.framing is NO_BODY)
            raise refused from None

    def _admit(self, head: RequestHead, route: Route) -> Admitted:
        if any(b"form" in value.lower() for value in head.index.get(b"content-type", ())):
            raise RouteError("a form in its body could name another container")
        method = head.method.decode("ascii")
        request = self.objects.admit(scoped_request(method, head.target))
        answer = self._answer(request)
        if answer is not None:
            return Admitted(head, route, answer)
        if request.action in self._actions:
            request = self._actions[request.action](request)
        fresh = with_target(head, request.target())
        meant = classify(fresh.method, fresh.target)
        if not alike(meant, route):
            raise RouteError("its path can be read in two ways")
        return Admitted(fresh, meant._replace(path=route.path))

    def _refused(self, why: Exception) -> OutOfScope:
        return OutOfScope(
            403, f"clients of this listener get only {self.scope.text}, so this is refused: {why}"
        )

    # -- whose a container is

    def container(self, name: str, status: int = 404) -> Facts:
        """The container in scope that a name, an id or the beginning of one means to the engine.

        Raises OutOfScope with the engine's own sentence, whether it is another's or nobody's.
        """
        facts = self._inspect(name)
        if facts and self.scope.holds(facts):
            return facts
        of_prefix = self._with_prefix(name) if ID_PREFIX.fullmatch(name) else []
        if len(of_prefix) == 1:
            return of_prefix[0]
        if of_prefix:
            text = f"multiple IDs found with provided prefix: {name}"
            raise OutOfScope(400, text, as_engine=True, recorded=False)
        text = f"No such container: {name}"
        raise OutOfScope(status, text, as_engine=True, recorded=facts is not None)

    def _inspect(self, name: str) -> Facts | None:
        """What the engine says of a container; None where it knows none, or several."""
        if not name:
            return None
        quoted = urllib.parse.quote(name.encode("utf-8", "surrogateescape"), safe="")
        status, body = self._ask(f"/containers/{quoted}/json")
        if status == 200:
            return inspected_facts(json_of(body))
        if status in (301, 400, 404) or AMBIGUOUS in body:
            return None
        raise EngineError(f"the engine answered {status} when asked about a container")

    def _with_prefix(self, prefix: str) -> list[Facts]:
        """The containers in scope whose ids begin so: others' ids and names do not hide them."""
        return [facts for facts in self.in_scope() if facts.id.startswith(prefix)]

    def in_scope(self) -> list[Facts]:
        """All containers in scope, also those that do not run."""
        return [facts for facts, _ in self._listed()]

    def _listed(self) -> list[tuple[Facts, dict[str, Any]]]:
        """Each container in scope with its entry in the engine's list."""
        label = self.scope.one_label
        filters = filters_text(with_label({}, label) if label else {})
        status, body = self._ask(f"/containers/json?all=1&filters={urllib.parse.quote(filters)}")
        entries = json_of(body)
        if status != 200 or not isinstance(entries, list):
            raise EngineError(f"the engine answered {status} when asked for its containers")
        found = [(self._as_inspected(listed_facts(entry)), entry) for entry in entries]
        return [(facts, entry) for facts, entry in found if facts and self.scope.holds(facts)]

    def _as_inspected(self, facts: Facts | None) -> Facts | None:
        """Facts from a list, which has an image's id instead of a name that has gone elsewhere."""
        asks = any(term.kind == "image" for term in self.scope.terms)
        if asks and facts and facts.image.startswith("sha256:") and not self.scope.holds(facts):
            return self._inspect(facts.id)
        return facts

    def _ask_json(self, path: str) -> tuple[int, Any]:
        status, body = self._ask(path)
        return status, json_of(body) if status == 200 else None

    def _ask(
        self, path: str, method: str = "GET", timeout: float = LOOK_TIMEOUT
    ) -> tuple[int, bytes]:
        try:
            return engine_answer(self._engine, path, timeout, method)
        except HTTPError:
            raise
        except OSError as error:
            raise EngineError(f"the engine could not be asked: {error.strerror}") from None

    # -- what a request becomes

    def _of_container(self, request: ScopedRequest) -> ScopedRequest:
        return request._replace(name=self.container(request.name).id)

    def _rename(self, request: ScopedRequest) -> ScopedRequest:
        facts = self.container(request.name)
        wanted = request.first("name")
        if not self.scope.holds(facts._replace(name=wanted.lstrip("/"))):
            raise RouteError("under its new name the container would lie outside of the scope")
        self._free(wanted)
        return request.put("name", wanted)._replace(name=facts.id)

    def _free(self, name: str) -> None:
        """Raise OutOfScope where another's container has the name: the engine would tell its id."""
        name = name.lstrip("/")
        facts = self._inspect(name)
        if facts and facts.name == name and not self.scope.holds(facts):
            text = f'Conflict. The container name "/{name}" is already in use.'
            raise OutOfScope(409, text, as_engine=True)

    def _exec(self, request: ScopedRequest) -> ScopedRequest:
        """An exec belongs to its container, and to no other ever."""
        exec_id, known = request.name, None
        if CONTAINER_ID.fullmatch(exec_id):
            status, body = self._ask(f"/exec/{exec_id}/json")
            answer = json_of(body) if status == 200 else None
            known = answer.get("ContainerID") if isinstance(answer, dict) else None
        facts = self._inspect(known) if isinstance(known, str) else None
        if facts is None or facts.id != known or not self.scope.holds(facts):
            text = f"No such exec instance: {exec_id}"
            raise OutOfScope(404, text, as_engine=True, recorded=facts is not None)
        return request

    def _list(self, request: ScopedRequest) -> ScopedRequest:
        filters = read_filters(request.first("filters"))
        known_keys(filters, LIST_KEYS.union(RELATIVE_KEYS))
        for key in RELATIVE_KEYS:
            if key in filters:
                filters[key] = [self.container(name).id for name in filters[key]]
        return request.put("filters", filters_text(self._narrowed(filters)))

    def _narrowed(self, filters: Filters) -> Filters:
        """Filters of the list under which the engine lists containers in scope only."""
        if self.scope.implied_by(filters.get("label", [])):
            return filters
        if self.scope.one_label:
            return with_label(filters, self.scope.one_label)
        return with_ids(filters, [facts.id for facts in self.in_scope()])

    def _events(self, request: ScopedRequest) -> ScopedRequest:
        filters = read_filters(request.first("filters"))
        narrowed = narrowed_events(filters, self.scope)
        if narrowed is None and self._masks:
            raise RouteError(
                "its answer cannot be both held to a scope of several words and masked"
            )
        return request.put("filters", filters_text(narrowed or {**filters, "type": ["container"]}))

    def event_filter(self, head: RequestHead, framing: Framing) -> EventFilter | None:
        """What drops the events out of scope that the engine sends; None: it sends none.

        `head`: of a request that was admitted, whose answer has status 200.
        """
        request = scoped_request(head.method.decode("ascii"), head.target)
        if request.action != "events":
            return None
        if narrowed_events(read_filters(request.first("filters")), self.scope) is not None:
            return None
        if framing.kind == "length":
            raise EngineError("the engine sent events with a length, which cannot be held to scope")
        reader = body_reader(framing, collect=True)
        return EventFilter(self.scope, reader, framing.kind == "chunked")

    def _prune(self, request: ScopedRequest) -> ScopedRequest:
        filters = narrowed_prune(read_filters(request.first("filters")), self.scope)
        return request.put("filters", filters_text(filters))

    def _create(self, request: ScopedRequest) -> ScopedRequest:
        name = request.first("name")
        self._free(name)
        return request.put("name", name)

    def _commit(self, request: ScopedRequest) -> ScopedRequest:
        facts = self.container(request.first("container"))
        self.objects.committed(request, facts.labels)
        return request.put("container", facts.id)

    def _absent(self, request: ScopedRequest) -> ScopedRequest:
        """Nothing of Swarm's and no plugin is in scope, so `docker inspect` may look for it."""
        kind = request.row.split("/")[1][:-1]
        text = f"No such {kind}: {request.name}"
        raise OutOfScope(404, text, as_engine=True, recorded=False)

    # -- bodies

    def wants(self, head: RequestHead, route: Route) -> bool:
        """Whether the body makes a container, or names one."""
        request = scoped_request(head.method.decode("ascii"), head.target)
        if request.action == "make":
            return request.row.split("/")[1] in self.objects.scopes
        return request.action in ("create", "connect") or (
            request.action == "start" and has_content(head)
        )

    def judge(self, head: RequestHead, route: Route, body: bytes) -> Verdict:
        """The body with ids instead of names, and with the label of the scope.

        Raises OutOfScope; the connection then ends, as nobody has taken the body off it.
        """
        request = scoped_request(head.method.decode("ascii"), head.target)
        try:
            return Verdict(self._judged(request, body))
        except BodyError as error:
            raise self._refused(error) from None

    def _judged(self, request: ScopedRequest, raw: bytes) -> bytes:
        body = read_body(raw)
        if request.action == "start":
            only_empty(body)
            return b""
        creates = request.action == "create"
        if request.action != "make":
            references = created_references(body) if creates else connected_references(body)
            for reference in list(references):
                status = 400 if creates else 404  # as the engine answers
                reference.put(self.container(reference.name, status).id)
        self.objects.judge(request, body)
        if creates:
            labelled(body, request.first("name"), self.scope)
        return body_bytes(body)

    # -- answers of the engine that tell of other containers

    def _answer(self, request: ScopedRequest) -> tuple[int, bytes] | None:
        """The engine's answer without other containers, where it has to be read whole."""
        action = request.action
        if action == "image":
            return self._image(request)
        lists = self.objects.lists(request)
        if action not in ("info", "df", "networks", "remove") and not lists:
            return None
        if self._masks and (action == "df" or (lists and action != "networks")):
            raise RouteError("its answer cannot be both held to a scope and masked")
        target = request.target().decode("ascii")
        status, body = self._ask(target, request.method, WHOLE_ANSWER)
        if action == "remove":
            if status < 400 or status == 404:
                return status, body
            raise OutOfScope(status, NOT_REMOVED, recorded=False)
        if status != 200:
            return status, body
        told = self.objects.without_others(request, json_of(body))
        if action == "pass":
            return status, json.dumps(told).encode() + b"\n"
        return status, without_containers(action, told, self._listed())

    def _image(self, request: ScopedRequest) -> tuple[int, bytes] | None:
        """An image's inspect names the container that it was committed from: not another's."""
        status, body = self._ask(request.target().decode("ascii"), "GET", WHOLE_ANSWER)
        answer = json_of(body) if status == 200 else None
        facts = [self._inspect(made_from) for made_from in containers_of_image(answer)]
        if all(found is None or self.scope.holds(found) for found in facts):
            return None
        if self._masks:
            raise RouteError("its answer cannot be both held to a scope and masked")
        return status, without_containers("image", answer, [])


def alike(meant: Route, route: Route) -> bool:
    """Whether two routes are the same to the audit, to masking and to the answers' scan."""
    return (
        (meant.endpoint, meant.kind, meant.endless) == (route.endpoint, route.kind, route.endless)
        and (meant.exports, meant.answer) == (route.exports, route.answer)
        and meant.unmaskable == route.unmaskable
    )


def has_content(head: RequestHead) -> bool:
    """Whether a body comes with a request."""
    return head.framing.kind == "chunked" or head.framing.length > 0


def persists(head: RequestHead, body_read: bool) -> bool:
    """Whether the connection can go on after an answer of ours."""
    return head.keeps_alive and head.version == b"1.1" and body_read


def with_target(head: RequestHead, target: bytes) -> RequestHead:
    """The head with another target."""
    start = len(head.method) + 1
    end = head.end_to_end.index(b" ", start)
    raw = head.end_to_end[:start] + target + head.end_to_end[end:]
    fresh = RequestHead(head.method, head.version, raw, head.index)
    fresh.framing = head.framing
    return fresh


def json_of(body: bytes) -> Any:
    """The engine's JSON; raises EngineError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise EngineError("the engine's answer is no JSON") from None
