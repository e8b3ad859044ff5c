"""A request's whole body, held until judges have seen it. Performs no I/O.

    head, bytes ─▶ HeldBody ─▶ payload ─▶ each BodyJudge ─▶ Verdict ─▶ with_body ─▶ the engine

Nothing of such a request has gone to the engine when the judges see it. What goes there is the last
verdict's body. A body that came in chunks goes with one Content-Length, so that no reader behind
can find another end or other bytes in it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from _dockeraudit.errors import HTTPError
from _dockeraudit.http1 import Framing, RequestHead, body_reader
from _dockeraudit.routes import Route

MAX_HELD_BODY = 1 << 20  # bytes; real bodies that create a container have some ten thousand
#: Fields that say how a body comes, or are about that; a body that has come needs none of them.
TRANSFER_FIELDS = (b"content-length", b"transfer-encoding", b"trailer", b"expect")


class Verdict(NamedTuple):
    """What a judge says of a request.

    `body`: what is to be forwarded instead of the body that it was shown, mostly that body itself.
    `objections`: the rules that the request breaks, each with what its client is told and, where
    there is one, the setting that would admit it.
    """

    body: bytes
    objections: tuple[tuple[str, ...], ...] = ()


class BodyJudge(Protocol):
    """Looks at whole requests before the engine gets anything of them.

    A listener's judges are asked in order, and each is shown the body that the one before it has
    returned. So those that change bodies come first, and the last one judges what is forwarded.
    """

    def wants(self, head: RequestHead, route: Route) -> bool:
        """Whether the request's body is to be held for this judge."""

    def judge(self, head: RequestHead, route: Route, body: bytes) -> Verdict:
        """What it says of a request, whose body is decoded from its chunks; empty if none came."""


class HeldBody:
    """A body as far as it has come. Raises HTTPError (413) for one that is announced as too long.

    `payload`: its bytes without the chunks' framing.
    """

    def __init__(self, head: RequestHead) -> None:
        self.payload = bytearray()
        self._reader = body_reader(head.framing, collect=True)
        if head.framing.length > MAX_HELD_BODY:
            raise too_long()

    @property
    def done(self) -> bool:
        """Whether it has wholly come."""
        return self._reader.done

    def feed(self, data: bytes) -> int:
        """How many bytes of `data` are the body's.

        Raises HTTPError: 400 for a body that is not what its head says, 413 for one too long.
        """
        used, payload = self._reader.feed(data)
        if self._reader.broken:
            raise self._reader.broken
        self.payload += payload
        if len(self.payload) > MAX_HELD_BODY:
            raise too_long()
        return used


def too_long() -> HTTPError:
    """The refusal of a body that is too long to be held."""
    return HTTPError(
        413,
        f"the request's body is longer than the {MAX_HELD_BODY} bytes that this listener's rules "
        "can be held to; nothing of it has reached the engine",
    )


def awaits_continue(head: RequestHead) -> bool:
    """Whether the client sends its body once it is told to (RFC 9110 §10.1.1).

    Raises HTTPError (417) for any other expectation, as the engine does.
    """
    expectations = head.members(b"expect")
    if any(expectation != b"100-continue" for expectation in expectations):
        raise HTTPError(417, "the request expects something other than 100-continue")
    return bool(expectations) and head.version == b"1.1"


def with_body(head: RequestHead, body: bytes) -> RequestHead:
    """The head under which a held body is forwarded: its own, where that fits the body."""
    plain = b"expect" not in head.index and head.framing.kind != "chunked"
    if plain and head.framing.length == len(body):
        return head
    line, *fields = head.end_to_end.split(b"\r\n")[:-1]
    kept = [field for field in fields if field.partition(b":")[0].lower() not in TRANSFER_FIELDS]
    raw = b"\r\n".join([line, *kept, b"Content-Length: %d" % len(body), b""])
    index = {name: values for name, values in head.index.items() if name not in TRANSFER_FIELDS}
    index[b"content-length"] = [b"%d" % len(body)]
    fresh = RequestHead(head.method, head.version, raw, index)
    fresh.framing = Framing("length", len(body))
    return fresh
