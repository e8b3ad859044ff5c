"""Bodies that name containers, or make one, held to a scope. Performs no I/O.

    body ─▶ read_body ─▶ references: the places where it names a container
                      ─▶ in_own_scope: the label that puts a new container into the scope

What is forwarded is written anew from what was read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from _dockeraudit.scope import OWN_LABEL, Facts, Scope, Term
from _dockeraudit.strictjson import NotStrict, read_strict

Members = dict[str, Any]
#: networks on which HostConfig.Links are links of the old kind: they hand over environments
DEFAULT_NETWORKS = ("", "default", "bridge")


class BodyError(ValueError):
    """A body that cannot be held to a scope; the message says what of it."""


def folded(key: str) -> str:
    """A key as Go compares it with a field's name: any case, and two letters beyond ASCII."""
    return key.replace("\u017f", "s").replace("\u212a", "k").lower()


def member(members: Members, name: str) -> str:
    """The key under which an object has a field, in whatever case; `name` if it has none."""
    return next((key for key in members if folded(key) == folded(name)), name)


def read_body(raw: bytes) -> Members:
    """The object that a body is; raises BodyError. An empty body is an empty object."""
    try:
        value = read_strict(raw) if raw.strip() else {}
    except NotStrict as error:
        raise BodyError(f"its body is not plain JSON: {error}") from None
    if not isinstance(value, dict):
        raise BodyError("its body is no JSON object")
    single_fields(value, "its body")
    return value


def single_fields(members: Members, where: str) -> Members:
    """The same; raises BodyError where two of its keys are one field to the engine."""
    if len({folded(key) for key in members}) < len(members):
        raise BodyError(f"{where} has a field twice, in different cases")
    return members


def structure(members: Members, name: str) -> Members:
    """The object in a field; an empty one where there is none. Raises BodyError."""
    value = members.get(member(members, name))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BodyError(f"its {name} is no object")
    return single_fields(value, f"its {name}")


def body_bytes(members: Members) -> bytes:
    """A body as the engine gets it; raises BodyError for a number that JSON has none of."""
    try:
        return json.dumps(members, allow_nan=False, separators=(",", ":")).encode("ascii")
    except ValueError:
        raise BodyError("its body holds a number that is too large") from None


def text_list(members: Members, field: str) -> list[str]:
    """The list of texts in a field; an empty one where there is none. Raises BodyError."""
    values = members.get(member(members, field))
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise BodyError(f"its {field} is no list of texts")
    return values


class Reference(NamedTuple):
    """A place in a body that names a container.

    `members[key]`, or `members[key][number]`, is `before` + name + `behind`. `renames`: the id may
    stand there instead of the name.
    """

    members: Any
    key: Any
    before: str
    name: str
    behind: str
    renames: bool = True

    def put(self, full_id: str) -> None:
        """Name the container by its id."""
        if self.renames:
            self.members[self.key] = self.before + full_id + self.behind


def created_references(body: Members) -> Iterator[Reference]:
    """The containers that a body of /containers/create names. Raises BodyError.

    Engine 20 takes the fields of HostConfig at the top too.
    """
    host = structure(body, "HostConfig")
    for members in (body, host):
        yield from mode_references(members)
        yield from list_references(members, "VolumesFrom")
        network = members.get(member(members, "NetworkMode")) or ""
        yield from list_references(members, "Links", renames=network in DEFAULT_NETWORKS)
    yield from endpoint_links(structure(body, "NetworkingConfig"))


def mode_references(members: Members) -> Iterator[Reference]:
    """Modes such as NetworkMode that share another container's namespace: `container:NAME`."""
    for key, value in members.items():
        mode = folded(key).endswith("mode") or folded(key) == "cgroup"
        if mode and isinstance(value, str) and value[: len("container:")].lower() == "container:":
            yield Reference(members, key, "container:", value[len("container:") :], "")


def list_references(members: Members, field: str, renames: bool = True) -> Iterator[Reference]:
    """Lists such as VolumesFrom: `NAME` or `NAME:MORE` each; raises BodyError."""
    values = text_list(members, field)
    for number, value in enumerate(values):
        name, colon, more = value.partition(":")
        behind = colon + more
        if field == "Links":  # also as inspect shows it: /other:/this/alias
            name = name.lstrip("/")
            behind = ":" + (more.rpartition("/")[2] or name)
        yield Reference(values, number, "", name, behind, renames)


def endpoint_links(config: Members) -> Iterator[Reference]:
    """The links of a container's places in networks; raises BodyError.

    They are names in the networks' DNS: an id could not stand there.
    """
    for endpoint in structure(config, "EndpointsConfig").values():
        if isinstance(endpoint, dict):
            yield from list_references(single_fields(endpoint, "an endpoint"), "Links", False)


def connected_references(body: Members) -> Iterator[Reference]:
    """The containers that a body of /networks/NAME/connect or disconnect names."""
    key = member(body, "Container")
    name = body.get(key)
    if not isinstance(name, str) or not name:
        raise BodyError("it names no container")
    yield Reference(body, key, "", name, "")
    endpoint = structure(body, "EndpointConfig")
    yield from list_references(endpoint, "Links", False)


def labelled(body: Members, name: str, scope: Scope) -> None:
    """Give what is to be made the label that its scope wants; raises BodyError.

    A container that is made through a listener belongs to that listener's clients, who mostly
    cannot teach their programs a label. So the first label with a value that the scope names is
    added, unless the container is in scope anyhow. A label with another value is an objection. A
    name, an image or a Compose project is never made up: without one the request is refused.
    """
    key = member(body, "Labels")
    labels = body.get(key)
    labels = {} if labels is None else labels
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise BodyError("its Labels are no object of texts")
    if labels.get(OWN_LABEL, scope.listener) != scope.listener:
        raise BodyError(f"the label {OWN_LABEL} is given by dockeraudit, and is another's here")
    image = body.get(member(body, "Image"))
    facts = Facts("", name.lstrip("/"), image if isinstance(image, str) else "", labels)
    own = next((term for term in scope.terms if term.own), None)
    if own is None and scope.holds(facts):
        return
    term = own or next(filter(addable, scope.terms), None)
    if term is None:
        raise BodyError(f"what it makes would lie outside of this listener's scope: {scope.text}")
    if labels.get(term.key, term.value) != term.value:
        raise BodyError(f"its label {term.key} has to be {term.value!r} here, or absent")
    body[key] = {**labels, term.key: term.value}


def addable(term: Term) -> bool:
    """Whether a label may be added for this term; Compose takes what has its label for its own."""
    return term.kind == "label" and term.value is not None and term.text.startswith("label=")


def only_empty(body: Members) -> None:
    """Raise BodyError for a body of /containers/NAME/start: old engines read a HostConfig there."""
    if body:
        raise BodyError("a body with settings cannot be held to a scope")
