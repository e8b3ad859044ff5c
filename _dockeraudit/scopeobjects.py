"""Networks, volumes and images of a listener: which of them its clients get. Performs no I/O.

Without `scope-networks`, `scope-volumes` and `scope-images` those of the whole host are
everybody's. With one of them, what it does not hold for does not exist, as with containers. The
engine is asked through `ask(path) -> (status, JSON)`.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

from _dockeraudit.errors import OutOfScope
from _dockeraudit.scope import Facts, Scope, Term, dictionary, texts
from _dockeraudit.scopebodies import (
    BodyError,
    Members,
    labelled,
    member,
    single_fields,
    structure,
    text_list,
)
from _dockeraudit.scopefilters import FilterError, filters_text, read_filters, with_label
from _dockeraudit.scoperoutes import RouteError, ScopedRequest

#: networks that every host has; nobody has made them
EVERYBODYS = ("", "default", "bridge", "host", "none")
NEITHER = ("bind", "tmpfs", "npipe")  # mounts whose source is no volume and no image
#: the engine's sentence for what does not exist
MISSING = {
    "networks": "network {} not found",
    "volumes": "get {}: no such volume",
    "images": "No such image: {}",
}
#: requests that make or move images of which nothing is known before
UNKNOWN_IMAGES = ("/images/load", "/build")

Ask = Callable[[str], tuple[int, Any]]


class ObjectScopes:
    """The scopes of a listener's networks, volumes and images; a kind without one is everybody's.

    `scopes`: by the first segment of the kind's routes.
    """

    def __init__(self, scopes: Mapping[str, Scope], ask: Ask) -> None:
        self.scopes = scopes
        self._ask = ask
        images = scopes.get("images")
        if images:
            self.scopes = {**scopes, "images": Scope(by_image(images), images.listener)}

    # -- whose a thing is

    def found(self, kind: str, name: str) -> list[Facts]:
        """What the engine says of a network, a volume or an image; an image has several names.

        Empty: it knows none.
        """
        quoted = urllib.parse.quote(name.encode("utf-8", "surrogateescape"), safe="/:@")
        behind = "/json" if kind == "images" else ""
        status, said = self._ask(f"/{kind}/{quoted}{behind}") if name else (404, None)
        if status != 200 or not isinstance(said, dict):
            return []
        if kind == "images":
            return image_facts(said, name)
        full_id, labels = said.get("Id"), texts(said.get("Labels"))
        named = str(said.get("Name") or "")
        return [Facts(full_id if isinstance(full_id, str) else named, named, "", labels)]

    def require(self, kind: str, name: str, *, under_all: bool = False) -> Facts | None:
        """Facts of a thing in scope; None: its kind has none.

        `under_all`: an image that is named by its id has to be in scope under each of its tags.
        Raises OutOfScope with the engine's own sentence for what does not exist.
        """
        scope = self.scopes.get(kind)
        if scope is None or (kind == "networks" and name in EVERYBODYS):
            return None
        facts = self.found(kind, name)
        free = EVERYBODYS if kind == "networks" else ()
        held = [each for each in facts if scope.holds(each) or each.name in free]
        if not held or (under_all and len(held) < len(facts)):
            text = MISSING[kind].format(name)
            raise OutOfScope(404, text, as_engine=True, recorded=bool(facts))
        return held[0]

    # -- requests

    def admit(self, request: ScopedRequest) -> ScopedRequest:
        """A request held to these scopes; raises OutOfScope, RouteError, FilterError."""
        kind = request.row.split("/")[1]
        scope = self.scopes.get(kind)
        if "images" in self.scopes:
            self._check_images(request, self.scopes["images"])
        if "networks" in self.scopes and request.first("networkmode") not in EVERYBODYS:
            raise RouteError("a build may join no network that was made")
        if scope is None:
            return request
        if "{}" in request.row:
            facts = self.require(kind, request.name, under_all=request.method == "DELETE")
            return request._replace(name=facts.id) if facts and kind == "networks" else request
        if request.row.endswith("/prune"):
            return self._narrowed(request, scope, "the engine prunes by all of several labels only")
        if request.row in LISTS and scope.one_label and kind != "networks":
            return self._narrowed(request, scope, "")
        return request

    def _narrowed(self, request: ScopedRequest, scope: Scope, why: str) -> ScopedRequest:
        if not scope.one_label:
            raise FilterError(why)
        filters = with_label(read_filters(request.first("filters")), scope.one_label)
        return request.put("filters", filters_text(filters))

    def lists(self, request: ScopedRequest) -> bool:
        """Whether the engine lists more than is in scope, so that its answer has to be read."""
        scope = self.scopes.get(request.row.split("/")[1])
        return scope is not None and request.row in LISTS and not scope.one_label

    def without_others(self, request: ScopedRequest, answer: Any) -> Any:
        """A list's answer with what is in scope alone; of networks also those of every host."""
        if request.row == "/system/df":
            return self._usage(answer)
        scope = self.scopes.get(request.row.split("/")[1])
        if scope is None or request.row not in LISTS:
            return answer
        if request.row == "/volumes":
            return {**answer, "Volumes": [*chosen(scope, answer.get("Volumes") or [])]}
        if request.row == "/images/json":
            return [*chosen_images(scope, answer)]
        return [*chosen(scope, answer, also=EVERYBODYS)]

    def _usage(self, answer: Any) -> Any:
        """An answer to /system/df; what the builder keeps belongs to images."""
        told = dict(answer)
        if "volumes" in self.scopes:
            told["Volumes"] = [*chosen(self.scopes["volumes"], told.get("Volumes") or [])]
        if "images" in self.scopes:
            told["Images"] = [*chosen_images(self.scopes["images"], told.get("Images") or [])]
            told["BuildCache"] = []
        return told

    def _check_images(self, request: ScopedRequest, scope: Scope) -> None:
        """Raise RouteError or OutOfScope for a request that would make or reach other images."""
        row, first = request.row, request.first
        if row in UNKNOWN_IMAGES:
            raise RouteError("nobody knows before which images it makes or reads")
        if row == "/images/create":
            name, tag = first("fromImage") or first("repo"), first("tag")
            joint = "@" if ":" in tag else ":"
            require_made(scope, f"{name}{joint}{tag}" if tag else name, {})
        if row == "/images/{}/tag":
            facts = self.found("images", request.name)
            labels = facts[0].labels if facts else {}
            require_made(scope, f"{first('repo')}:{first('tag') or 'latest'}", labels)
        if row == "/images/{}/push":
            if not first("tag"):
                raise RouteError("without a tag it pushes all tags of a name")
            self.require("images", f"{request.name}:{first('tag')}")
        for key, name in request.parameters:
            if row == "/images/get" and key == "names":
                self.require("images", name)

    def committed(self, request: ScopedRequest, labels: Mapping[str, str]) -> None:
        """Raise RouteError where an image from a container with these labels is out of scope."""
        scope = self.scopes.get("images")
        if scope:
            name = f"{request.first('repo')}:{request.first('tag') or 'latest'}"
            require_made(scope, name, labels)

    # -- bodies

    def judge(self, request: ScopedRequest, body: Members) -> None:
        """Hold a body that makes or names such things to the scopes; it may get a label.

        Raises BodyError, OutOfScope.
        """
        if request.row == "/containers/create":
            self._judge_container(body)
        if request.row == "/networks/{}/connect":
            self._require_networks(network_ids({"": body.get(member(body, "EndpointConfig"))}))
        scope = self.scopes.get(request.row.split("/")[1])
        if scope is None or not request.row.endswith("/create"):
            return
        name = body.get(member(body, "Name")) or ""
        if not isinstance(name, str):
            raise BodyError("its Name is no text")
        if request.row == "/volumes/create" and self.found("volumes", name):
            self.require("volumes", name)  # the engine would tell of the one that there is
        source = structure(body, "ConfigFrom")
        if source:
            self.require("networks", str(source.get(member(source, "Network"))))
        labelled(body, name, scope)

    def _judge_container(self, body: Members) -> None:
        host = structure(body, "HostConfig")
        if "images" in self.scopes:
            self.require("images", str(body.get(member(body, "Image")) or ""))
        if "networks" in self.scopes:
            endpoints = structure(structure(body, "NetworkingConfig"), "EndpointsConfig")
            modes = [str(each.get(member(each, "NetworkMode")) or "") for each in (body, host)]
            modes = [mode for mode in modes if not mode.startswith("container:")]
            self._require_networks([*endpoints, *network_ids(endpoints), *modes])
        volumes, images = set[str](), set[str]()
        for members in (body, host):
            volumes.update(bound_volumes(members))
            for kind, source in mounted_sources(members):
                (images if kind == "image" else volumes).add(source)
        for name in sorted(images):
            self.require("images", name)
        self._require_volumes(sorted(volumes))

    def _require_networks(self, names: Iterable[str]) -> None:
        for name in names:
            self.require("networks", name)

    def _require_volumes(self, names: Iterable[str]) -> None:
        """Raise BodyError for a volume that is, or would be made, out of scope."""
        scope = self.scopes.get("volumes")
        for name in names if scope else ():
            known = self.found("volumes", name) or [Facts(name, name, "", {})]
            if scope and not all(scope.holds(facts) for facts in known):
                text = f"the volume {name!r} is not one of this listener's"
                raise BodyError(f"{text}; make it first, with a request of its own")


LISTS = ("/networks", "/volumes", "/images/json")


def image_facts(said: Mapping[str, Any], name: str) -> list[Facts]:
    """An image's facts under the name that was asked for; under all its tags, if by its id."""
    labels, full_id = texts(dictionary(said, "Config").get("Labels")), str(said.get("Id") or "")
    by_id = full_id.startswith((name, f"sha256:{name}"))
    tags = said.get("RepoTags")
    names = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    return [Facts(full_id, "", each, labels) for each in (names or [""] if by_id else [name])]


def by_image(scope: Scope) -> list[Term]:
    """The terms of a scope of images: a name there is what a container's image is."""
    return [term._replace(kind="image") if term.kind == "name" else term for term in scope.terms]


def require_made(scope: Scope, name: str, labels: Mapping[str, str]) -> None:
    """Raise RouteError where an image of this name and these labels is out of scope."""
    if not scope.holds(Facts("", "", name, labels)):
        raise RouteError(f"the image would lie outside of scope-images: {scope.text}")


def network_ids(endpoints: Members) -> Iterator[str]:
    """The networks that endpoints name by id: the engine prefers it to the endpoint's own name."""
    for endpoint in endpoints.values():
        if endpoint is None:
            continue
        if not isinstance(endpoint, dict):
            raise BodyError("an endpoint is no object")
        named = single_fields(endpoint, "an endpoint").get(member(endpoint, "NetworkID"))
        if named:
            yield str(named)


def bound_volumes(members: Members) -> Iterator[str]:
    """The volumes that a container's Binds name; raises BodyError."""
    for bind in text_list(members, "Binds"):
        source, colon, _ = bind.partition(":")
        if colon and not source.startswith("/"):
            yield source


def mounted_sources(members: Members) -> Iterator[tuple[str, str]]:
    """Type and source of a container's Mounts of volumes and images; raises BodyError."""
    mounts = members.get(member(members, "Mounts"))
    if not isinstance(mounts, (list, type(None))):
        raise BodyError("its Mounts are no list")
    for mount in mounts or ():
        if not isinstance(mount, dict):
            raise BodyError("its Mounts are no objects")
        fields = single_fields(mount, "a mount")
        named, kind = (fields.get(member(fields, field)) for field in ("Source", "Type"))
        if named and kind not in NEITHER:
            yield str(kind), str(named)


def chosen(scope: Scope, entries: Sequence[Any], also: Sequence[str] = ()) -> Iterator[Any]:
    """The networks or volumes of a list that are in scope, or of one of the names in `also`."""
    for entry in entries:
        name = str(entry.get("Name") or "")
        if name in also or scope.holds(Facts("", name, "", texts(entry.get("Labels")))):
            yield entry


def chosen_images(scope: Scope, entries: Sequence[Any]) -> Iterator[Any]:
    """The images of a list that are in scope, each with those of its names that are."""
    for entry in entries:
        labels = texts(entry.get("Labels"))
        known = {
            field: [
                name
                for name in entry.get(field) or ()
                if scope.holds(Facts("", "", str(name), labels))
            ]
            for field in ("RepoTags", "RepoDigests")
        }
        if known["RepoTags"] or scope.holds(Facts("", "", "", labels)):
            yield {**entry, **known}
