"""Whose containers a listener's clients get: the words of `scope`, and what they hold. Sans I/O.

    scope = label=team=a, name=ci-*      ─▶ Scope: terms, any of which may hold
    the engine's inspect, list, event    ─▶ Facts ─▶ Scope.holds

A scope is the right to every container that one of its terms holds for. What a term looks at is
said by whoever made the container (labels, image) or may rename it (name), so a scope is as good as
the listeners through which the other containers are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from _dockeraudit.policy import PathPattern

OWN_LABEL = "dockeraudit.listener"  # which a listener with `own` adds to what is made through it
COMPOSE_LABEL = "com.docker.compose.project"
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
SCOPE_WORDS = "label=KEY=VALUE, label=KEY, name=GLOB, image=GLOB, compose-project=NAME, own"
#: words of which the engine's events use each for something else than a label of that name
EVENT_WORDS = frozenset(
    "image name container type driver signal exitCode execID oldName destination propagation"
    " read/write comment imageID imageRef height width execDuration".split()
)


class ScopeError(ValueError):
    """A word that is no scope; the message says what is legal."""


class Facts(NamedTuple):
    """What a scope looks at of a container. `name` has no slash; `image` is as at its creation."""

    id: str
    name: str
    image: str
    labels: Mapping[str, str]


class Term(NamedTuple):
    """One word of a scope. `kind`: label, name or image; of a label `value` None is any value.

    `own`: the label is this listener's, and is added to what is made through it.
    """

    kind: str
    key: str
    value: str | None
    text: str
    own: bool = False

    def holds(self, facts: Facts) -> bool:
        """Whether a container is of this kind."""
        if self.kind == "label":
            said = facts.labels.get(self.key)
            return said is not None and self.value in (None, said)
        text = facts.name if self.kind == "name" else facts.image
        names = [text] if self.kind == "name" else image_names(text)
        pattern = PathPattern(re.sub(r"\*+", "**", self.value or ""))
        return any(pattern.match(name) for name in names)

    @property
    def label(self) -> str:
        """A label as the engine's filters spell it."""
        return self.key if self.value is None else f"{self.key}={self.value}"


def read_scope(text: str) -> Term:
    """One word of a scope; raises ScopeError. `off` is a term of the kind off."""
    kind, _, rest = text.partition("=")
    if text in ("off", "own"):
        return Term("off" if text == "off" else "label", OWN_LABEL, None, text, own=text == "own")
    if kind == "compose-project" and rest:
        return Term("label", COMPOSE_LABEL, rest, text)
    if kind in ("name", "image") and rest:
        return Term(kind, "", rest, text)
    key, equals, value = rest.partition("=")
    if kind != "label" or not key:
        raise ScopeError(f"{text!r} is no scope; legal are {SCOPE_WORDS}, off")
    if key in EVENT_WORDS:
        raise ScopeError(
            f"{text!r}: the engine's events use the word {key!r} for something else, so that they "
            "could not be told apart by such a label; take another label"
        )
    return Term("label", key, value if equals else None, text)


def image_names(image: str) -> list[str]:
    """An image's name as it was given, and with or without the tag that is meant if none is."""
    if image.endswith(":latest"):
        return [image, image[: -len(":latest")]]
    tagged = ":" in image.rpartition("/")[2] or "@" in image
    return [image] if tagged else [image, f"{image}:latest"]


class Scope:
    """The terms of a listener's scope, any of which may hold. `listener`: its name, for `own`."""

    def __init__(self, terms: Sequence[Term], listener: str) -> None:
        self.listener = listener
        self.terms = tuple(term._replace(value=listener) if term.own else term for term in terms)

    def holds(self, facts: Facts) -> bool:
        """Whether a container is in scope."""
        return any(term.holds(facts) for term in self.terms)

    @property
    def text(self) -> str:
        """The scope as it was written."""
        return ", ".join(term.text for term in self.terms)

    @property
    def one_label(self) -> str | None:
        """The label that is the whole scope, as the engine's filters spell it; None: it is more.

        The engine's filters ask for all of several labels, a scope for any of them.
        """
        only = self.terms[0] if len(self.terms) == 1 else None
        return only.label if only and only.kind == "label" else None

    def implied_by(self, labels: Iterable[str]) -> bool:
        """Whether what has all of these labels, as filters spell them, is in scope for certain."""
        wanted = set(labels)
        return any(term.kind == "label" and term.label in wanted for term in self.terms)


# -- the engine's answers to facts


def inspected_facts(answer: Any) -> Facts | None:
    """The facts in an answer to GET /containers/NAME/json; None if it has no full id."""
    config = dictionary(answer, "Config")
    name = answer.get("Name") if isinstance(answer, dict) else None
    full_id = answer.get("Id") if isinstance(answer, dict) else None
    if not isinstance(full_id, str) or not CONTAINER_ID.fullmatch(full_id):
        return None
    image = config.get("Image")
    return Facts(
        full_id,
        name.lstrip("/") if isinstance(name, str) else "",
        image if isinstance(image, str) else "",
        texts(config.get("Labels")),
    )


def listed_facts(entry: Any) -> Facts | None:
    """The facts in an entry of GET /containers/json; None if it has no full id.

    A link to the container is one of its names too: it has a second slash, and is left out.
    """
    full_id = entry.get("Id") if isinstance(entry, dict) else None
    if not isinstance(full_id, str) or not CONTAINER_ID.fullmatch(full_id):
        return None
    names, image = entry.get("Names"), entry.get("Image")
    plain = [
        name[1:]
        for name in (names if isinstance(names, list) else ())
        if isinstance(name, str) and name[:1] == "/" and "/" not in name[1:]
    ]
    return Facts(
        full_id,
        plain[0] if plain else "",
        image if isinstance(image, str) else "",
        texts(entry.get("Labels")),
    )


def event_facts(event: Any) -> Facts | None:
    """The facts in an event of a container; None for an event of anything else."""
    actor = dictionary(event, "Actor")
    full_id, said = actor.get("ID"), texts(actor.get("Attributes"))
    if dictionary({"": event}, "").get("Type") != "container" or not isinstance(full_id, str):
        return None
    labels = {key: value for key, value in said.items() if key not in EVENT_WORDS}
    return Facts(full_id, said.get("name", ""), said.get("image", ""), labels)


def dictionary(value: Any, key: str) -> dict[str, Any]:
    """value[key] where that is an object; else an empty one."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def texts(value: Any) -> dict[str, str]:
    """An object's members that are texts."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
