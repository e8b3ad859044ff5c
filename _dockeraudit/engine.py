"""The engine: connections to relay on, our own questions, facts about containers.

An `Engine` is a Unix socket's path, or a RemoteEngine.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.parse
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

from _dockeraudit.errors import EngineError, HTTPError
from _dockeraudit.http1 import (
    BodyReader,
    CloseReader,
    ResponseHead,
    body_reader,
    head_length,
    parse_response_head,
    response_framing,
)
from _dockeraudit.ownsecrets import OwnSecrets
from _dockeraudit.remoteengine import (
    CONNECT_TIMEOUT,
    NO_DESCRIPTORS,
    UPSTREAM_TLS,
    Engine,
    RemoteEngine,
    RemoteHTTPConnection,
    no_descriptors,
    remote_failure,
)
from _dockeraudit.secretsmemory import SecretsMemory

BLOCK = 64 << 10  # bytes read at once; a Unix socket's buffer holds 208 KiB, more gains nothing
RETRY_PAUSE = 0.01  # seconds until a full backlog is tried again
STREAM_TIMEOUT = 60.0  # seconds until a log that `scan` asks for begins; a busy disk is slow
MAX_ANSWER = 16 << 20  # bytes of an answer to a question of ours; an inspected container has 10 KiB
LOOKUP_WORKERS = 2  # look-ups under way at the same time, without the slow ones
LOOKUP_SLOW = 1.0  # seconds after which a look-up no longer counts as one of those
LOOKUP_TIMEOUT = 5.0  # seconds after which a look-up is given up: at most 12 threads exist
LOOKUP_QUEUE = 256  # look-ups that wait; beyond, the answer is "unknown" at once
LOOKUP_CALLERS = 1024  # streams that wait for look-ups; as many as there are connections
TTY_CACHE = 1024  # full ids whose TTY is remembered
KIND_KEPT = 60.0  # seconds for which the engine's kind is remembered
KIND_RETRY = 5.0  # seconds until an engine that did not tell its kind is asked again
KIND_TIMEOUT = 1.0  # seconds for that question, which a request waits for


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket.

    `timeout` is for connecting. Raises EngineError, which says why the engine cannot be reached.
    """

    def __init__(self, path: str, timeout: float | None = CONNECT_TIMEOUT) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect; a full backlog (EAGAIN) is tried again until the time is up."""
        if not hasattr(socket, "AF_UNIX"):
            raise EngineError("this Python has no Unix sockets, so it cannot reach an engine")
        deadline = time.monotonic() + (self.timeout or CONNECT_TIMEOUT)
        while True:
            try:
                self._connect()
                return
            except OSError as error:
                self.close()
                if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                    raise EngineError(engine_error(self.path, error)) from error
                time.sleep(RETRY_PAUSE)

    def _connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine_error(path: str, error: OSError) -> str:
    """Why the engine's socket cannot be reached, and what to do about it: one sentence."""
    name = errno.errorcode.get(error.errno or 0, "timeout")
    if error.errno in NO_DESCRIPTORS:
        return no_descriptors(error.errno)
    text = f"cannot reach the Docker engine at {path}: {error.strerror or error} ({name})"
    try:
        info = os.stat(path)
    except OSError:
        return text + "; is the engine running, and is this its socket?"
    if error.errno == errno.EACCES:
        return (
            f"{text}; the socket belongs to group {info.st_gid}: "
            "add this process to it (group_add in Compose)"
        )
    if info.st_nlink == 0:
        return (
            f"{text}; this socket was replaced when the engine restarted: "
            "mount the directory, not the file"
        )
    return text + "; is the engine running?"


def engine_connection(
    engine: Engine, timeout: float | None = CONNECT_TIMEOUT
) -> http.client.HTTPConnection:
    """A connection to an engine, not connected yet; `connect` raises EngineError."""
    if isinstance(engine, RemoteEngine):
        return RemoteHTTPConnection(engine, timeout)
    return UnixHTTPConnection(engine, timeout)


def engine_broke(engine: Engine, error: OSError) -> str:
    """Why an engine's connection broke before an answer; empty where there is no more to say."""
    if isinstance(engine, RemoteEngine) and isinstance(error, ssl.SSLError):
        return remote_failure(engine, error)
    return ""


# Questions of our own.


def ask_engine(engine: Engine, path: str, timeout: float = LOOKUP_TIMEOUT) -> Any:
    """The JSON answer to a GET; raises HTTPError, OSError or ValueError."""
    status, body = engine_answer(engine, path, timeout)
    if isinstance(engine, RemoteEngine) and engine.wants_tls(status, body):
        raise HTTPError(
            status, f"the engine at {engine} speaks TLS; it takes {UPSTREAM_TLS} FOLDER"
        )
    if status != 200:
        raise EngineError(f"the engine answered {status} to GET {path}")
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("the engine's answer is nested too deeply") from None


def engine_answer(engine: Engine, path: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of the answer to a GET, within `timeout`; raises HTTPError or OSError."""
    deadline = time.monotonic() + timeout
    connection = engine_connection(engine, timeout)
    connection.connect()
    try:
        _send_get(connection.sock, path)
        head, block = _answer_head(connection.sock, deadline)
        reader = body_reader(response_framing(head, b"GET"), collect=True)
        parts, size = [], 0
        while True:
            parts.append(reader.feed(block)[1])
            size += len(parts[-1])
            block = b"" if reader.done else _receive_before(connection.sock, deadline)
            if not block or size > MAX_ANSWER:
                return head.status, b"".join(parts)
    except ssl.SSLError as error:
        raise EngineError(engine_broke(engine, error)) from error
    finally:
        connection.close()


def engine_stream(
    connection: http.client.HTTPConnection, path: str
) -> tuple[ResponseHead, Iterator[bytes]]:
    """The head of the answer to a GET, and its payload, however long; raises HTTPError or OSError.

    The caller closes the connection.
    """
    connection.connect()
    _send_get(connection.sock, path)
    head, rest = _answer_head(connection.sock, time.monotonic() + STREAM_TIMEOUT)
    connection.sock.settimeout(None)
    reader = body_reader(response_framing(head, b"GET"), collect=True)
    return head, _payload(connection.sock, reader, rest)


def _send_get(sock: socket.socket, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
    sock.sendall(head.encode("ascii"))


def _answer_head(sock: socket.socket, deadline: float) -> tuple[ResponseHead, bytes]:
    """The head of the final response, without interim ones, and the bytes that came behind it."""
    data, head = b"", None
    while head is None or head.status < 200:
        length = head_length(data, what="engine's answer") if data else 0
        if length:
            head, data = parse_response_head(data[:length]), data[length:]
            continue
        block = _receive_before(sock, deadline)
        if not block:
            raise EngineError("the engine closed the connection without an answer")
        data += block
    return head, data


def _receive_before(sock: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    try:
        sock.settimeout(max(left, 0.001))
        if left > 0:
            return sock.recv(BLOCK)
    except socket.timeout:  # TimeoutError itself only from Python 3.10 on
        pass
    raise EngineError("the engine did not answer in time")


def _payload(sock: socket.socket, reader: BodyReader, block: bytes) -> Iterator[bytes]:
    """A body's payload block by block; raises EngineError if the body is cut short."""
    while True:
        payload = reader.feed(block)[1]
        if payload:
            yield payload
        if reader.done:
            return
        block = sock.recv(BLOCK)
        if not block and isinstance(reader, CloseReader):
            return
        if not block:
            raise EngineError("the engine ended its answer before the end")


def nested(answer: Any, keys: Sequence[str]) -> Any:
    """answer[key][key]…; None where a key is missing on the way."""
    for key in keys:
        answer = answer.get(key) if isinstance(answer, dict) else None
    return answer


# Which engine it is.


def says_podman(version: Any) -> bool:
    """Whether an answer to GET /version is Podman's."""
    components = nested(version, ("Components",))
    names = [nested(part, ("Name",)) for part in components] if isinstance(components, list) else []
    return any(str(name).startswith("Podman") for name in names)


def engine_title(version: Any) -> str:
    """The engine that an answer to GET /version names: `Docker 28.5.2 (API 1.51)`."""
    kind = "Podman" if says_podman(version) else "Docker"
    number, api = nested(version, ("Version",)), nested(version, ("ApiVersion",))
    return f"{kind} {number or 'of unknown version'} (API {api or 'unknown'})"


class EngineKind:
    """Whether the engine is Podman: asked when a request depends on it, then remembered."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()  # held while the engine is asked: one question at a time
        self._podman = False
        self._ask_again = float("-inf")

    def is_podman(self) -> bool:
        """What the engine said last; False for an engine that has never answered."""
        with self._lock:
            if self._clock() < self._ask_again:
                return self._podman
            try:
                self._podman = says_podman(ask_engine(self._engine, "/version", KIND_TIMEOUT))
                self._ask_again = self._clock() + KIND_KEPT
            except (HTTPError, OSError, ValueError):
                self._ask_again = self._clock() + KIND_RETRY
            return self._podman


# What the engine knows of the container that a stream belongs to.


class ContainerFacts(NamedTuple):
    """What the engine says of a stream's container, service or task; None: it does not say.

    `own`: the secrets of its Env; None where they are not to be read, too.
    """

    id: str | None = None
    name: str | None = None
    tty: bool | None = None
    own: OwnSecrets | None = None


UNKNOWN = ContainerFacts()
FULL_ID = 64  # hexadecimal digits of a container's id


class Inspection(NamedTuple):
    """How to ask for a kind of thing, and where its answer has id, name, TTY and Env.

    `tty_absent`: what it means when the field is missing (Swarm leaves out a false one).
    """

    path: str
    id: Sequence[str]
    name: Sequence[str]
    tty: Sequence[str]
    env: Sequence[str] = ()
    tty_absent: bool | None = None


SERVICE_SPEC = ("Spec", "TaskTemplate", "ContainerSpec")
TASK_SPEC = ("Spec", "ContainerSpec")
INSPECTIONS = {
    "container": Inspection(
        "/containers/{}/json", ("Id",), ("Name",), ("Config", "Tty"), ("Config", "Env")
    ),
    "exec": Inspection("/exec/{}/json", ("ContainerID",), (), ("ProcessConfig", "tty")),
    "service": Inspection(
        "/services/{}",
        ("ID",),
        ("Spec", "Name"),
        (*SERVICE_SPEC, "TTY"),
        (*SERVICE_SPEC, "Env"),
        tty_absent=False,
    ),
    "task": Inspection(
        "/tasks/{}",
        ("ID",),
        ("Name",),
        (*TASK_SPEC, "TTY"),
        (*TASK_SPEC, "Env"),
        tty_absent=False,
    ),
}


def facts_in(answer: Any, inspection: Inspection) -> ContainerFacts:
    """The facts in the engine's answer; a field that is not of the documented type is missing."""
    full_id = nested(answer, inspection.id)
    name = nested(answer, inspection.name) if inspection.name else None
    *path, field = inspection.tty
    parent = nested(answer, path)
    tty = parent.get(field, inspection.tty_absent) if isinstance(parent, dict) else None
    return ContainerFacts(
        full_id if isinstance(full_id, str) and full_id else None,
        name.lstrip("/") or None if isinstance(name, str) else None,
        tty if isinstance(tty, bool) else None,
    )


Done = Callable[[ContainerFacts], Any]


class Lookup:
    """One question about a container, and the callers that wait for its answer.

    A caller that comes when the question is under way waits for the next one: the container may
    have been renamed since the engine answered.
    """

    __slots__ = ("key", "waiting", "later", "begun")

    def __init__(self, key: tuple[str, str], done: Done) -> None:
        self.key = key  # kind and name
        self.waiting = [done]
        self.later: list[Done] = []
        self.begun: float | None = None  # when the engine was asked

    def add(self, done: Done) -> None:
        """One more caller."""
        (self.waiting if self.begun is None else self.later).append(done)


class Lookups:
    """Asks the engine for the facts of streams' containers, beside the streams.

    Threads. Any thread may call `resolve`; it never waits. Look-ups run in threads of their own:
    LOOKUP_WORKERS at a time, not counting those that have taken LOOKUP_SLOW, so that a container
    whose inspect hangs does not keep the others waiting. `_changed` guards everything here, and is
    never held while the engine is asked. `secrets` keeps what is read from the containers' Env.
    """

    def __init__(self, engine: Engine, secrets: SecretsMemory | None = None) -> None:
        self.secrets = SecretsMemory(lambda: None) if secrets is None else secrets
        self._engine = engine
        self._changed = threading.Condition()
        self._lookups: dict[tuple[str, str], Lookup] = {}  # all that wait or are under way
        self._queue: deque[Lookup] = deque()
        self._last: deque[Lookup] = deque()  # about containers that were slow; after `_queue`
        self._under_way: set[Lookup] = set()
        self._slow: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._tty: OrderedDict[str, bool] = OrderedDict()  # a container's TTY never changes
        self._threads = 0
        self._callers = 0
        self._stopping = False

    def resolve(self, kind: str, name: str, done: Done) -> None:
        """Call `done(facts)` once the engine has answered, or at once if too many wait.

        `done` must return quickly and not raise.
        """
        key = (kind, name)
        with self._changed:
            if self._accept(key, done):
                return
        done(self._remembered(key))

    def stop(self) -> None:
        """Ask nothing more; a silent engine is not waited for."""
        with self._changed:
            self._stopping = True
            unasked = [*self._queue, *self._last]
            self._queue.clear()
            self._last.clear()
            told = [done for lookup in unasked for done in self._finish(lookup, UNKNOWN)]
            self._changed.notify_all()
        self._tell(told, UNKNOWN)

    # -- with `_changed` held

    def _accept(self, key: tuple[str, str], done: Done) -> bool:
        """Let a caller wait for its look-up; False if there is no room, or nobody to do it."""
        if self._stopping or self._callers >= LOOKUP_CALLERS:
            return False
        lookup = self._lookups.get(key)
        if lookup is not None:
            lookup.add(done)
        elif len(self._queue) + len(self._last) < LOOKUP_QUEUE and self._staff():
            self._lookups[key] = lookup = Lookup(key, done)
            self._enqueue(lookup)
        else:
            return False
        self._callers += 1
        return True

    def _enqueue(self, lookup: Lookup) -> None:
        (self._last if lookup.key in self._slow else self._queue).append(lookup)
        self._changed.notify()

    def _staff(self) -> bool:
        """Have a thread wait for the next look-up; False if there is none and none can start."""
        if self._threads > len(self._under_way):
            return True
        try:
            threading.Thread(target=self._work, name="look-up", daemon=True).start()
        except RuntimeError:  # at the limit of threads; the next free one takes the queue
            return self._threads > 0
        self._threads += 1
        return True

    def _next(self) -> Lookup | None:
        """Wait for a look-up and for its turn; None: this thread is no longer needed."""
        while not self._stopping:
            queue = self._queue or self._last
            wait = self._until_turn() if queue else None
            if queue and not wait:
                lookup = queue.popleft()
                lookup.begun = time.monotonic()
                self._under_way.add(lookup)
                if self._queue or self._last:
                    self._staff()
                return lookup
            if not queue and self._threads > LOOKUP_WORKERS:
                return None
            self._changed.wait(wait)
        return None

    def _until_turn(self) -> float:
        """Seconds until fewer than LOOKUP_WORKERS look-ups count; 0: now."""
        now = time.monotonic()
        begun = [lookup.begun for lookup in self._under_way if lookup.begun is not None]
        counting = [since for since in begun if now - since < LOOKUP_SLOW]
        return min(counting) + LOOKUP_SLOW - now if len(counting) >= LOOKUP_WORKERS else 0.0

    def _finish(self, lookup: Lookup, facts: ContainerFacts) -> list[Done]:
        """End a look-up; return its callers. Those that came meanwhile get a new look-up."""
        self._under_way.discard(lookup)
        self._note(lookup, facts)
        told, lookup.waiting, lookup.later = lookup.waiting, lookup.later, []
        lookup.begun = None
        if lookup.waiting and not self._stopping:
            self._enqueue(lookup)
        else:
            del self._lookups[lookup.key]
            told += lookup.waiting
        self._callers -= len(told)
        return told

    def _note(self, lookup: Lookup, facts: ContainerFacts) -> None:
        self._slow.pop(lookup.key, None)
        if lookup.begun is not None and time.monotonic() - lookup.begun >= LOOKUP_SLOW:
            keep_newest(self._slow, lookup.key, None)
        kind = lookup.key[0]
        if kind == "container" and facts.id and len(facts.id) == FULL_ID and facts.tty is not None:
            keep_newest(self._tty, facts.id, facts.tty)

    # -- in the look-ups' own threads

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    lookup = self._next()
                if lookup is None:
                    return
                self._answer(lookup)
        finally:
            with self._changed:
                self._threads -= 1

    def _answer(self, lookup: Lookup) -> None:
        facts = UNKNOWN
        try:
            facts = self._ask(*lookup.key)
        except (HTTPError, OSError, ValueError, KeyError, TypeError):
            facts = self._remembered(lookup.key)  # records then say what the client asked for
        finally:
            with self._changed:
                told = self._finish(lookup, facts)
            self._tell(told, facts)

    def _tell(self, callers: Sequence[Done], facts: ContainerFacts) -> None:
        for done in callers:
            done(facts)

    def _remembered(self, key: tuple[str, str]) -> ContainerFacts:
        """What is known of a container that was named by its full id."""
        kind, name = key
        return self.known(name) if kind == "container" else UNKNOWN

    def known(self, full_id: str) -> ContainerFacts:
        """What is known of a container without asking: TTY and Env, which never change."""
        tty = self._tty.get(full_id)
        return (
            UNKNOWN
            if tty is None
            else ContainerFacts(full_id, None, tty, self.secrets.get(full_id))
        )

    def _ask(self, kind: str, name: str) -> ContainerFacts:
        deadline = time.monotonic() + LOOKUP_TIMEOUT
        facts = self._inspect(kind, name, deadline)
        if kind != "exec" or facts.id is None:
            return facts
        try:
            container = self._inspect("container", facts.id, deadline)
        except (HTTPError, OSError, ValueError):
            return facts._replace(own=self.secrets.get(facts.id))
        return facts._replace(name=container.name, own=container.own)

    def _inspect(self, kind: str, name: str, deadline: float) -> ContainerFacts:
        inspection = INSPECTIONS[kind]
        path = inspection.path.format(
            urllib.parse.quote(name.encode("utf-8", "surrogateescape"), safe="")
        )
        left = max(0.001, deadline - time.monotonic())
        answer = ask_engine(self._engine, path, left)
        facts = facts_in(answer, inspection)
        if not inspection.env:
            return facts
        full_id = facts.id if kind == "container" and facts.id else None
        return facts._replace(own=self.secrets.learn(full_id, nested(answer, inspection.env)))


def keep_newest(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Keep the latest TTY_CACHE entries."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > TTY_CACHE:
        cache.popitem(last=False)
