"""Answers that tell of all containers, without those that are out of scope. Performs no I/O.

The engine cannot be asked for less here: a network's inspect has all containers on it, `info` and
`df` count and list all of the host's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from _dockeraudit.scope import Facts, dictionary

Listed = Sequence[tuple[Facts, dict[str, Any]]]  # the containers in scope, and their list's entries

#: what is passed on of an answer to /system/df; newer engines may have more of containers in it
USAGE_FIELDS = ("LayersSize", "Images", "Volumes", "BuildCache", "BuilderSize")
#: fields of /info that count containers, and the states that they count
COUNTS = {
    "Containers": (),
    "ContainersRunning": ("running",),
    "ContainersPaused": ("paused",),
    "ContainersStopped": ("created", "exited", "dead"),
}


def without_containers(action: str, answer: Any, listed: Listed) -> bytes:
    """The JSON of an answer to an action of ROUTES, with the containers in scope alone."""
    ids = {facts.id for facts, _ in listed}
    if action == "networks":
        many = answer if isinstance(answer, list) else [answer]
        narrowed = [network_without(network, ids) for network in many]
        answer = narrowed if isinstance(answer, list) else narrowed[0]
    elif action == "info":
        states = [entry.get("State") for _, entry in listed]
        counts = {
            field: sum(not of or state in of for state in states) for field, of in COUNTS.items()
        }
        answer = {**answer, **counts}
    elif action == "df":
        kept = {field: answer[field] for field in USAGE_FIELDS if field in answer}
        containers = answer.get("Containers") or []
        answer = {**kept, "Containers": [entry for entry in containers if entry.get("Id") in ids]}
    else:  # an image that was committed from a container out of scope
        blank = {"Container": "", "ContainerConfig": {}}
        answer = {**answer, **{key: value for key, value in blank.items() if key in answer}}
    return json.dumps(answer).encode() + b"\n"


def network_without(network: Any, ids: set[str]) -> dict[str, Any]:
    """A network with the containers in scope; Swarm's services and peers are left out."""
    kept = {key: value for key, value in network.items() if key not in ("Services", "Peers")}
    if "Containers" in network:
        containers = dictionary(network, "Containers")
        kept["Containers"] = {key: value for key, value in containers.items() if key in ids}
    return kept
