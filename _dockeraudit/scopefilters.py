"""The `filters` of a request, read and narrowed to a scope. Performs no I/O.

What the engine gets is written anew from what was read here, so it cannot read something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from _dockeraudit.scope import Scope
from _dockeraudit.strictjson import NotStrict, read_strict

Filters = dict[str, list[str]]

NOBODY = "0" * 64  # an id that no container has
PLAIN_ID = re.compile(r"\^?[0-9a-f]{1,64}")
#: keys of the list's filters whose values do not name containers
LIST_KEYS = frozenset(
    "ancestor exited expose health id is-task isolation label label! name network publish status"
    " volume".split()
)
RELATIVE_KEYS = ("since", "before")  # of the list's filters: their values name containers
EVENT_KEYS = frozenset(
    "container daemon event image label network plugin scope type volume".split()
)
PRUNE_KEYS = frozenset(["until", "label", "label!"])


class FilterError(ValueError):
    """Filters that cannot be narrowed; the message says which and what is legal."""


def read_filters(text: str) -> Filters:
    """The filters of a query, in either of the engine's spellings; raises FilterError.

    `{"label": ["a=b"]}`, or as before API 1.22 `{"label": {"a=b": true}}`.
    """
    if not text.strip():
        return {}
    try:
        value = read_strict(text.encode("utf-8", "surrogatepass"))
    except NotStrict as error:
        raise FilterError(f"the filters are not plain JSON: {error}") from None
    if not isinstance(value, dict):
        raise FilterError("the filters are no JSON object")
    return {key: filter_values(key, values) for key, values in value.items()}


def filter_values(key: str, values: object) -> list[str]:
    """The values of one filter; raises FilterError."""
    if isinstance(values, dict) and all(value is True for value in values.values()):
        values = list(values)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FilterError(f"the filter {key[:40]!r} is neither a list of texts nor a set of them")
    return values


def known_keys(filters: Filters, legal: Iterable[str]) -> None:
    """Raise FilterError for a filter that is not known to tell nothing of other containers."""
    for key in filters:
        if key not in legal:
            raise FilterError(
                f"the filter {key[:40]!r} is not known to be safe; legal are "
                f"{', '.join(sorted(legal))}"
            )


def filters_text(filters: Filters) -> str:
    """The filters as the engine gets them."""
    return json.dumps({key: values for key, values in filters.items() if values})


def with_label(filters: Filters, label: str) -> Filters:
    """The same, for what has this label as well: the engine asks for all labels of a filter."""
    labels = filters.get("label", [])
    return {**filters, "label": labels if label in labels else [*labels, label]}


def with_ids(filters: Filters, ids: Sequence[str]) -> Filters:
    """The same, among these containers only: the engine takes any of several ids.

    The client's own ids are prefixes here; the engine would take any regular expression. Raises
    FilterError.
    """
    asked = filters.get("id", [])
    for text in asked:
        if not PLAIN_ID.fullmatch(text):
            raise FilterError(f"the filter id={text[:70]!r} is no id nor the beginning of one")
    chosen = [
        full_id
        for full_id in ids
        if not asked or any(full_id.startswith(text.lstrip("^")) for text in asked)
    ]
    return {**filters, "id": chosen or [NOBODY]}


def narrowed_events(filters: Filters, scope: Scope) -> Filters | None:
    """Filters under which the engine sends events of containers in scope only.

    None: it cannot, and each event has to be looked at. Raises FilterError.
    """
    known_keys(filters, EVENT_KEYS)
    types = filters.get("type", [])
    if types and "container" not in types:
        raise FilterError("only events of containers can be had: events of anything else name them")
    narrowed = {**filters, "type": ["container"]}
    if scope.implied_by(filters.get("label", [])):
        return narrowed
    return with_label(narrowed, scope.one_label) if scope.one_label else None


def narrowed_prune(filters: Filters, scope: Scope) -> Filters:
    """Filters under which the engine removes containers in scope only; raises FilterError."""
    known_keys(filters, PRUNE_KEYS)
    if scope.implied_by(filters.get("label", [])):
        return filters
    if scope.one_label is None:
        raise FilterError(
            "the engine can prune by all of several labels, not by any of several words; remove "
            "containers by name, or filter by a label of the scope"
        )
    return with_label(filters, scope.one_label)
