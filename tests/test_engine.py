"""The engine's socket: its errors, which engine it is, and the look-ups beside the streams."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from scripted import CONTAINER_ID, Answer, ScriptedEngine, json_answer

from _dockeraudit import engine as engine_room
from _dockeraudit.engine import (
    LOOKUP_CALLERS,
    LOOKUP_QUEUE,
    LOOKUP_WORKERS,
    UNKNOWN,
    ContainerFacts,
    EngineKind,
    Lookups,
    UnixHTTPConnection,
    ask_engine,
    engine_title,
    says_podman,
)
from _dockeraudit.errors import EngineError
from _dockeraudit.secretsmemory import SecretsMemory
from conftest import wait_for
from patterns import DEFAULT_SCANNER

DOCKER = {"Version": "28.5.2", "ApiVersion": "1.51", "Components": [{"Name": "Engine"}]}
PODMAN = {"Version": "4.3.1", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}
FULL_ID = "ab" * 32


@pytest.fixture
def scripted(folder: Path) -> Iterator[ScriptedEngine]:
    """An engine under the test's control."""
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


@pytest.fixture
def lookups(scripted: ScriptedEngine) -> Iterator[Lookups]:
    """Look-ups from that engine; after the test no thread of theirs is left."""
    found = Lookups(scripted.path)
    yield found
    found.stop()
    wait_for(lambda: not found._threads, "the look-ups' threads")


class Told:
    """What `resolve` has told, in order."""

    def __init__(self, lookups: Lookups) -> None:
        self.lookups = lookups
        self.facts: list[ContainerFacts] = []

    def ask(self, kind: str, name: str) -> None:
        """Ask, and go on."""
        self.lookups.resolve(kind, name, self.facts.append)

    def wait(self, kind: str, name: str) -> ContainerFacts:
        """Ask, and wait for the answer."""
        before = len(self.facts)
        self.ask(kind, name)
        wait_for(lambda: len(self.facts) > before, "an answer")
        return self.facts[-1]


def asked(scripted: ScriptedEngine) -> list[str]:
    """The targets of the engine's requests so far."""
    return [head.split(b" ")[1].decode() for head, _ in scripted.requests]


class Gate:
    """An answer that comes when the test opens the gate."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.open = threading.Event()
        self.reached = 0

    def __call__(self, sock: socket.socket, head: bytes) -> None:
        self.reached += 1
        assert self.open.wait(20)
        self.answer(sock, head)


# ================================================================================================
# the facts
# ================================================================================================


FACTS: list[tuple[str, str, dict[str, Any], ContainerFacts]] = [
    (
        "container",
        "/containers/x/json",
        {"Id": FULL_ID, "Name": "/web", "Config": {"Tty": True}},
        ContainerFacts(FULL_ID, "web", True),
    ),
    (
        "service",
        "/services/x",
        {"ID": "s1", "Spec": {"Name": "web", "TaskTemplate": {"ContainerSpec": {"TTY": True}}}},
        ContainerFacts("s1", "web", True),
    ),
    (
        "service",
        "/services/x",
        {"ID": "s1", "Spec": {"Name": "web", "TaskTemplate": {"ContainerSpec": {}}}},
        ContainerFacts("s1", "web", False),
    ),
    (
        "task",
        "/tasks/x",
        {"ID": "t1", "Spec": {"ContainerSpec": {"TTY": True}}},
        ContainerFacts("t1", None, True),
    ),
    ("task", "/tasks/x", {"ID": "t1"}, ContainerFacts("t1", None, None)),
    ("container", "/containers/x/json", {}, UNKNOWN),
    ("container", "/containers/x/json", {"Id": None, "Name": "/", "Config": {}}, UNKNOWN),
    ("container", "/containers/x/json", {"Id": 7, "Name": 7, "Config": {"Tty": "yes"}}, UNKNOWN),
    ("container", "/containers/x/json", {"Config": "none"}, UNKNOWN),
]


@pytest.mark.parametrize("kind, path, answer, facts", FACTS)
def test_facts_are_read_from_the_engines_answer_and_never_invented(
    scripted: ScriptedEngine,
    lookups: Lookups,
    kind: str,
    path: str,
    answer: dict[str, Any],
    facts: ContainerFacts,
) -> None:
    scripted.routes[path] = json_answer(answer)
    assert Told(lookups).wait(kind, "x") == facts


def test_an_exec_has_its_own_tty_and_its_containers_name(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    execution = {"ContainerID": CONTAINER_ID, "ProcessConfig": {"tty": True}}
    scripted.routes["/exec/x/json"] = json_answer(execution)
    assert Told(lookups).wait("exec", "x") == ContainerFacts(CONTAINER_ID, "web", True)


def test_an_execs_facts_stay_when_its_container_is_gone(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    execution = {"ContainerID": FULL_ID, "ProcessConfig": {"tty": True}}
    scripted.routes["/exec/x/json"] = json_answer(execution)
    assert Told(lookups).wait("exec", "x") == ContainerFacts(FULL_ID, None, True)


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"message": "no such container"}, b"404 Not Found"),
        json_answer([]),
        lambda sock, head: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"),
        lambda sock, head: sock.sendall(b"nonsense\r\n\r\n"),
        lambda sock, head: sock.close(),
        lambda sock, head: sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200000
        ),
    ],
)
def test_an_engine_that_answers_nonsense_leaves_the_facts_unknown(
    scripted: ScriptedEngine, lookups: Lookups, answer: Answer
) -> None:
    scripted.routes["/containers/x/json"] = answer
    assert Told(lookups).wait("container", "x") == UNKNOWN


def test_each_stream_learns_the_name_that_its_container_has_now(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    told = Told(lookups)
    for name in ("old", "new"):
        inspect = {"Id": FULL_ID, "Name": f"/{name}", "Config": {"Tty": True}}
        scripted.routes[f"/containers/{FULL_ID}/json"] = json_answer(inspect)
        assert told.wait("container", FULL_ID) == ContainerFacts(FULL_ID, name, True)


def test_the_tty_of_a_full_id_is_known_without_the_engine(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    told = Told(lookups)
    inspect = {"Id": FULL_ID, "Name": "/web", "Config": {"Tty": True}}
    scripted.routes["/containers/web/json"] = json_answer(inspect)
    assert told.wait("container", "web").tty is True
    assert told.wait("container", FULL_ID) == ContainerFacts(FULL_ID, None, True)
    assert told.wait("container", "gone") == UNKNOWN


# ================================================================================================
# the container's own secrets
# ================================================================================================

VALUE = "Qz7-kH3m-" + "wP9x"
ENV = ["PATH=/bin", "DB_PASSWORD=" + VALUE]


@pytest.fixture
def knowing(scripted: ScriptedEngine) -> Iterator[Lookups]:
    """Look-ups that read the secrets of containers."""
    found = Lookups(scripted.path, SecretsMemory(lambda: DEFAULT_SCANNER))
    yield found
    found.stop()
    wait_for(lambda: not found._threads, "the look-ups' threads")


def container(env: Any, **more: Any) -> Answer:
    return json_answer({"Id": FULL_ID, "Name": "/web", "Config": {"Tty": True, "Env": env}, **more})


def variables(facts: ContainerFacts) -> list[str] | None:
    """The names of the secret variables; None if they are not known."""
    return None if facts.own is None else [needle.env for needle in facts.own.needles]


@pytest.mark.parametrize(
    "kind, path, answer",
    [
        ("container", "/containers/x/json", {"Id": FULL_ID, "Config": {"Env": ENV}}),
        (
            "service",
            "/services/x",
            {"ID": "s1", "Spec": {"TaskTemplate": {"ContainerSpec": {"Env": ENV}}}},
        ),
        ("task", "/tasks/x", {"ID": "t1", "Spec": {"ContainerSpec": {"Env": ENV}}}),
    ],
)
def test_one_request_brings_the_secret_variables_too(
    scripted: ScriptedEngine, knowing: Lookups, kind: str, path: str, answer: dict[str, Any]
) -> None:
    scripted.routes[path] = json_answer(answer)
    assert variables(Told(knowing).wait(kind, "x")) == ["DB_PASSWORD"]
    assert asked(scripted) == [path]


def test_an_exec_has_its_containers_secrets(scripted: ScriptedEngine, knowing: Lookups) -> None:
    execution = {"ContainerID": FULL_ID, "ProcessConfig": {"tty": False}}
    scripted.routes["/exec/x/json"] = json_answer(execution)
    scripted.routes[f"/containers/{FULL_ID}/json"] = container(ENV)
    facts = Told(knowing).wait("exec", "x")
    assert (facts.tty, variables(facts)) == (False, ["DB_PASSWORD"])
    assert asked(scripted) == ["/exec/x/json", f"/containers/{FULL_ID}/json"]


def test_the_secrets_of_a_full_id_are_known_without_the_engine(
    scripted: ScriptedEngine, knowing: Lookups
) -> None:
    scripted.routes["/containers/web/json"] = container(ENV)
    told = Told(knowing).wait("container", "web")
    before = len(asked(scripted))
    known = knowing.known(FULL_ID)
    assert known == ContainerFacts(FULL_ID, None, True, told.own) and known.own is told.own
    assert len(asked(scripted)) == before
    assert knowing.known("web") == knowing.known("cd" * 32) == UNKNOWN


@pytest.mark.parametrize("env", [None, [], "DB_PASSWORD=x", {"DB_PASSWORD": VALUE}, [7, None]])
def test_an_env_of_another_type_holds_nothing(
    scripted: ScriptedEngine, knowing: Lookups, env: Any
) -> None:
    scripted.routes["/containers/x/json"] = container(env)
    assert variables(Told(knowing).wait("container", "x")) == []


def test_the_text_of_what_is_known_shows_no_value(
    scripted: ScriptedEngine, knowing: Lookups
) -> None:
    scripted.routes["/containers/x/json"] = container(ENV)
    facts = Told(knowing).wait("container", "x")
    assert VALUE not in repr(facts) and VALUE not in str([knowing.__dict__, facts.own.__dict__])


# ================================================================================================
# who waits for whom
# ================================================================================================


def test_callers_of_the_same_container_share_its_look_up(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    gates = {name: Gate(json_answer({"Id": f"{name}-id"})) for name in ("a", "b", "web")}
    for name, gate in gates.items():
        scripted.routes[f"/containers/{name}/json"] = gate
    told = Told(lookups)
    for name in ("a", "b"):  # all workers have something to do
        told.ask("container", name)
    wait_for(lambda: gates["a"].reached and gates["b"].reached, "both requests")
    for _ in range(5):
        told.ask("container", "web")
    for gate in gates.values():
        gate.open.set()
    wait_for(lambda: len(told.facts) == 7, "all answers")
    assert gates["web"].reached == 1
    assert [facts.id for facts in told.facts].count("web-id") == 5


def test_a_caller_never_gets_an_answer_that_is_older_than_its_question(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    first = Gate(json_answer({"Id": "1", "Name": "/old"}))
    scripted.routes["/containers/web/json"] = first
    told = Told(lookups)
    told.ask("container", "web")
    wait_for(lambda: first.reached, "the request")
    scripted.routes["/containers/web/json"] = json_answer({"Id": "1", "Name": "/new"})
    told.ask("container", "web")
    told.ask("container", "web")
    first.open.set()
    wait_for(lambda: len(told.facts) == 3, "all answers")
    assert [facts.name for facts in told.facts] == ["old", "new", "new"]
    assert len(asked(scripted)) == 2


def test_containers_whose_inspect_hangs_do_not_keep_others_waiting(
    scripted: ScriptedEngine, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_room, "LOOKUP_SLOW", 0.05)
    gate = Gate(json_answer({"Id": "hung"}))
    told = Told(lookups)
    for number in range(5 * LOOKUP_WORKERS):
        scripted.routes[f"/containers/hung{number}/json"] = gate
        told.ask("container", f"hung{number}")
    assert told.wait("container", "web").id == CONTAINER_ID, "asked while ten others hang"
    gate.open.set()
    wait_for(lambda: len(told.facts) == 5 * LOOKUP_WORKERS + 1, "all answers")
    wait_for(lambda: lookups._threads <= LOOKUP_WORKERS, "the end of the threads that stood in")


def test_a_container_that_was_slow_is_asked_about_after_the_others(
    scripted: ScriptedEngine, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(lookups)
    monkeypatch.setattr(engine_room, "LOOKUP_SLOW", 0.0)
    told.wait("container", "slow")
    monkeypatch.setattr(engine_room, "LOOKUP_SLOW", 60.0)
    gates = [Gate(json_answer({})) for _ in range(LOOKUP_WORKERS)]
    for number, gate in enumerate(gates):
        scripted.routes[f"/containers/{number}/json"] = gate
        told.ask("container", str(number))
    wait_for(lambda: all(gate.reached for gate in gates), "all workers")
    told.ask("container", "slow")
    told.ask("container", "web")
    gates[0].open.set()
    wait_for(lambda: len(told.facts) == 4, "the answers")
    assert asked(scripted)[-2:] == ["/containers/web/json", "/containers/slow/json"]
    gates[1].open.set()


def test_beyond_its_bounds_the_answer_is_unknown_at_once(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    gate = Gate(json_answer({}))
    told = Told(lookups)
    for number in range(LOOKUP_WORKERS):
        scripted.routes[f"/containers/{number}/json"] = gate
        told.ask("container", str(number))
    wait_for(lambda: gate.reached == LOOKUP_WORKERS, "all workers")
    for number in range(LOOKUP_QUEUE):
        told.ask("container", f"queued{number}")
    assert not told.facts
    told.ask("container", "one more")
    assert told.facts == [UNKNOWN], "the queue is full"
    for _ in range(LOOKUP_CALLERS - LOOKUP_WORKERS - LOOKUP_QUEUE):
        told.ask("container", "queued0")
    assert len(told.facts) == 1, "callers of a queued look-up still find room"
    told.ask("container", "queued0")
    assert len(told.facts) == 2, "but not without end"
    lookups.stop()
    gate.open.set()
    wait_for(lambda: len(told.facts) == LOOKUP_CALLERS + 2, "an answer for every caller")
    assert not lookups._lookups and not lookups._callers
    told.ask("container", "web")
    assert len(told.facts) == LOOKUP_CALLERS + 3, "after the stop nothing is asked"


def test_without_a_thread_the_answer_is_unknown_at_once(
    lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    told = Told(lookups)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        told.ask("container", "web")
        assert told.facts == [UNKNOWN]
    assert told.wait("container", "web").id == CONTAINER_ID


def test_a_defect_in_a_look_up_ends_neither_its_callers_wait_nor_the_others(
    scripted: ScriptedEngine, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(kind: str, name: str) -> ContainerFacts:
        if name == "broken":
            raise AssertionError
        return ask(kind, name)

    ask = lookups._ask
    monkeypatch.setattr(lookups, "_ask", broken)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    told = Told(lookups)
    for _ in range(2 * LOOKUP_WORKERS):
        assert told.wait("container", "broken") == UNKNOWN
    assert told.wait("container", "web").id == CONTAINER_ID


def test_look_ups_that_wait_are_done_though_defects_end_all_workers(
    lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_room, "LOOKUP_SLOW", 0.05)
    together = threading.Barrier(LOOKUP_WORKERS + 1)

    def broken(kind: str, name: str) -> ContainerFacts:
        if name.startswith("broken"):
            together.wait(20)
            raise AssertionError
        return ask(kind, name)

    ask = lookups._ask
    monkeypatch.setattr(lookups, "_ask", broken)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    told = Told(lookups)
    for number in range(LOOKUP_WORKERS):
        told.ask("container", f"broken{number}")
    told.ask("container", "web")
    together.wait(20)
    wait_for(lambda: len(told.facts) == LOOKUP_WORKERS + 1, "all answers")
    assert CONTAINER_ID in {facts.id for facts in told.facts}


def test_a_stop_tells_those_too_who_wait_for_the_next_look_up(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    gate = Gate(json_answer({"Id": "1"}))
    scripted.routes["/containers/web/json"] = gate
    told = Told(lookups)
    told.ask("container", "web")
    wait_for(lambda: gate.reached, "the request")
    told.ask("container", "web")
    lookups.stop()
    gate.open.set()
    wait_for(lambda: len(told.facts) == 2, "both answers")
    assert gate.reached == 1


def test_a_name_is_asked_for_with_the_bytes_that_the_client_sent(
    scripted: ScriptedEngine, lookups: Lookups
) -> None:
    Told(lookups).wait("container", "a/b \udcff")
    assert asked(scripted) == ["/containers/a%2Fb%20%FF/json"]


# ================================================================================================
# which engine, and errors
# ================================================================================================


def test_an_engine_is_called_by_its_own_name() -> None:
    assert engine_title(DOCKER) == "Docker 28.5.2 (API 1.51)"
    assert engine_title(PODMAN) == "Podman 4.3.1 (API 1.41)"
    for odd in (None, [], {}, {"Components": 1}, {"Components": [None, {"Name": None}]}):
        assert engine_title(odd) == "Docker of unknown version (API unknown)"
        assert not says_podman(odd)


def test_the_engines_kind_is_remembered_and_asked_again_later(scripted: ScriptedEngine) -> None:
    now = 0.0
    kind = EngineKind(scripted.path, clock=lambda: now)
    scripted.routes["/version"] = json_answer({}, b"500 Internal Server Error")
    assert not kind.is_podman() and not kind.is_podman()
    assert len(asked(scripted)) == 1, "an engine that fails is not asked at each request"
    scripted.routes["/version"] = json_answer(PODMAN)
    now = 10.0
    assert kind.is_podman() and kind.is_podman()
    assert len(asked(scripted)) == 2
    scripted.routes["/version"] = json_answer({}, b"500 Internal Server Error")
    now = 100.0
    assert kind.is_podman(), "the last word counts until there is another"
    scripted.routes["/version"] = json_answer(DOCKER)
    now = 200.0
    assert not kind.is_podman()


def test_without_unix_sockets_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(EngineError, match="no Unix sockets"):
        UnixHTTPConnection("/none.sock").connect()


def test_an_answer_that_is_cut_short_or_late_is_an_error(
    scripted: ScriptedEngine,
) -> None:
    answers: list[tuple[Callable[..., None], str]] = [
        (lambda sock, head: sock.close(), "without an answer"),
        (json_answer({}, b"500 Internal Server Error"), "answered 500"),
        (Gate(json_answer({})), "did not answer in time"),
    ]
    for answer, problem in answers:
        scripted.routes["/version"] = answer
        with pytest.raises(EngineError, match=problem):
            ask_engine(scripted.path, "/version", 0.2)
        if isinstance(answer, Gate):
            answer.open.set()
