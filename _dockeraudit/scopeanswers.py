"""Answers that tell of all containers, without those that are out of scope. Performs no I/O.

The engine cannot be asked for less here: a network's inspect has all containers on it, `info` and
`df` count and list all of the host's, and the events of any of several labels are no filter of the
engine's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from _dockeraudit.http1 import LAST_CHUNK, BodyReader
from _dockeraudit.scope import Facts, Scope, dictionary, event_facts

Listed = Sequence[tuple[Facts, dict[str, Any]]]  # the containers in scope, and their list's entries

LONGEST_EVENT = 1 << 20  # bytes of one event; a longer one is dropped, whosever it is
#: what is passed on of an answer to /system/df; newer engines may have more of containers in it
USAGE_FIELDS = ("LayersSize", "Images", "Volumes", "BuildCache", "BuilderSize")
#: fields of /info that count containers, and the states that they count
COUNTS = {
    "Containers": (),
    "ContainersRunning": ("running",),
    "ContainersPaused": ("paused",),
    "ContainersStopped": ("created", "exited", "dead", "restarting", "removing"),
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
        config = {**dictionary(answer, "Config"), "Hostname": ""}
        blank = {"Container": "", "ContainerConfig": {}, "Config": config}
        answer = {**answer, **{key: value for key, value in blank.items() if key in answer}}
    return json.dumps(answer).encode() + b"\n"


def containers_of_image(answer: Any) -> list[str]:
    """What an image's inspect says of the container that it was committed from: ids, prefixes."""
    hosts = [dictionary(answer, key).get("Hostname") for key in ("Config", "ContainerConfig")]
    said = [answer.get("Container") if isinstance(answer, dict) else None, *hosts]
    return sorted({text for text in said if isinstance(text, str) and text})


def network_without(network: Any, ids: set[str]) -> dict[str, Any]:
    """A network with the containers in scope; Swarm's services and peers are left out."""
    kept = {key: value for key, value in network.items() if key not in ("Services", "Peers")}
    if "Containers" in network:
        containers = dictionary(network, "Containers")
        kept["Containers"] = {key: value for key, value in containers.items() if key in ids}
    return kept


class EventFilter:
    """Lets the events of containers in scope through, one a line, and drops all other bytes.

    A Relay's `mask`. `payload`: what was let through of the last block. `reader`: of the body,
    which it writes anew in chunks of its own where it came in chunks. A body that is cut gets no
    end.
    """

    waits = full = False

    def __init__(self, scope: Scope, reader: BodyReader, chunked: bool) -> None:
        self.payload = b""
        self.reader = reader
        self._scope, self._chunked = scope, chunked
        self._line = b""  # the beginning of an event
        self._drops = False  # the event that is under way is too long
        self._ended = False

    def pass_on(self, block: bytes, payload: Any) -> bytes:
        """The bytes for the client of a block with this payload."""
        *lines, rest = (self._line + payload).split(b"\n")
        if lines and self._drops:
            del lines[0]
            self._drops = False
        self._drops = self._drops or len(rest) > LONGEST_EVENT
        self._line = b"" if self._drops else rest
        self.payload = b"".join(line + b"\n" for line in lines if self._holds(line))
        if self._chunked and self.payload:
            return b"%x\r\n%b\r\n" % (len(self.payload), self.payload)
        return self.payload

    def end(self) -> bytes:
        """The body's end, once, if the engine has sent it."""
        if self._ended or not self.reader.done:
            return b""
        self._ended = True
        return LAST_CHUNK if self._chunked else b""

    def _holds(self, line: bytes) -> bool:
        """Whether a line is an event in scope; newer engines may put an RS before it (RFC 7464)."""
        try:
            facts = event_facts(json.loads(line.strip(b"\x1e\r ")))
        except (ValueError, RecursionError):
            return False
        return facts is not None and self._scope.holds(facts)
