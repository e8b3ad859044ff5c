"""Scope: its words, the routes and filters and bodies that are held to it, and the gate itself."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from raw import ask
from scripted import ScriptedEngine, json_answer

from _dockeraudit.errors import ConfigurationError, Denied, OutOfScope
from _dockeraudit.http1 import ChunkedReader, CloseReader
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import load_settings
from _dockeraudit.routes import read_request
from _dockeraudit.scope import (
    OWN_LABEL,
    Facts,
    Scope,
    ScopeError,
    event_facts,
    inspected_facts,
    listed_facts,
    read_scope,
)
from _dockeraudit.scopeanswers import EventFilter, without_containers
from _dockeraudit.scopebodies import BodyError, created_references, labelled, read_body
from _dockeraudit.scopefilters import (
    NOBODY,
    FilterError,
    narrowed_events,
    narrowed_prune,
    read_filters,
    with_ids,
)
from _dockeraudit.scopeobjects import ObjectScopes
from _dockeraudit.scoperoutes import ROUTES, RouteError, scoped_request
from _dockeraudit.scoping import ScopeGate
from conftest import ROOT, ProxyProcess, splits, wait_for

MINE, OTHER, RUN = "a1" * 32, "b2" * 32, "e3" * 32


def scope_of(*words: str) -> Scope:
    return Scope([read_scope(word) for word in words], "ci")


def facts(name: str = "x", image: str = "busybox", **labels: str) -> Facts:
    return Facts(MINE, name, image, labels)


# ================================================================================================
# words
# ================================================================================================

HOLDS = [
    ("label=team=a", facts(team="a"), True),
    ("label=team=a", facts(team="ab"), False),
    ("label=team=a", facts(Team="a"), False),
    ("label=team=", facts(team=""), True),
    ("label=team=", facts(team="a"), False),
    ("label=team", facts(team="any"), True),
    ("label=team", facts(), False),
    ("label=a.b=c=d", Facts(MINE, "", "", {"a.b": "c=d"}), True),
    ("name=ci-*", facts("ci-1"), True),
    ("name=ci-*", facts("my-ci-1"), False),
    ("name=ci", facts("ci-1"), False),
    ("name=*-db", facts("a-db"), True),
    ("name=c?", facts("ci"), False),
    ("name=c.", facts("ci"), False),
    ("image=busybox", facts(image="busybox"), True),
    ("image=busybox:latest", facts(image="busybox"), True),
    ("image=busybox", facts(image="evil/busybox"), False),
    ("image=reg:5000/team/*", facts(image="reg:5000/team/x/y:1"), True),
    ("image=reg:5000/team:latest", facts(image="reg:5000/team"), True),
    ("compose-project=p", Facts(MINE, "", "", {"com.docker.compose.project": "p"}), True),
    ("own", Facts(MINE, "", "", {OWN_LABEL: "ci"}), True),
    ("own", Facts(MINE, "", "", {OWN_LABEL: "other"}), False),
]


@pytest.mark.parametrize("word, of, expected", HOLDS)
def test_a_word_holds_for_its_containers_alone(word: str, of: Facts, expected: bool) -> None:
    assert scope_of(word).holds(of) is expected
    assert scope_of("label=nobody=has", word).holds(of) is expected


@pytest.mark.parametrize(
    "word",
    ["team=a", "label=", "label==x", "name=", "image=", "compose-project=", "owned", "", "x"],
)
def test_what_is_no_word_is_named(word: str) -> None:
    with pytest.raises(ScopeError, match="is no scope; legal are label=KEY=VALUE"):
        read_scope(word)


def test_a_label_that_events_use_for_something_else_is_refused() -> None:
    with pytest.raises(ScopeError, match="the word 'name' for something else"):
        read_scope("label=name=web")


def test_facts_of_the_engines_three_ways_to_say_them_are_the_same() -> None:
    labels, expected = {"team": "a"}, Facts(MINE, "web", "busybox", {"team": "a"})
    config = {"Image": "busybox", "Labels": labels}
    assert inspected_facts({"Id": MINE, "Name": "/web", "Config": config}) == expected
    entry = {"Id": MINE, "Names": ["/db/link", "/web"], "Image": "busybox", "Labels": labels}
    assert listed_facts(entry) == expected
    actor = {"ID": MINE, "Attributes": {"name": "web", "image": "busybox", "signal": "9", **labels}}
    assert event_facts({"Type": "container", "Actor": actor}) == expected


@pytest.mark.parametrize("said", [None, [], {}, {"Id": "short"}, {"Id": 7}, {"Id": "G" * 64}])
def test_an_answer_without_a_full_id_has_no_facts(said: Any) -> None:
    assert inspected_facts(said) is None and listed_facts(said) is None


def test_an_event_of_anything_else_has_no_facts() -> None:
    actor = {"ID": MINE, "Attributes": {"team": "a"}}
    for event in ({"Type": "network", "Actor": actor}, {"Actor": actor}, None, [], 7):
        assert event_facts(event) is None


# ================================================================================================
# routes
# ================================================================================================

#: target, what it becomes with the id for the name
ANEW = [
    (b"/containers/web/json", b"/containers/ID/json"),
    (b"/v1.41/containers/web/json", b"/v1.41/containers/ID/json"),
    (b"/v01.41/containers/%77eb/%6asons", None),
    (b"/v01.41/containers/%77eb/%6ason?s%69ze=1", b"/v01.41/containers/ID/json?size=1"),
    (b"/v1%2e41/containers%2Fweb%2Fjson", b"/v1.41/containers/ID/json"),
    (b"http://any/containers/web/json", b"/containers/ID/json"),
    (b"x:/containers/web/logs?follow=1", b"/containers/ID/logs?follow=1"),
    (b"//any/containers/web/json", None),
    (b"/containers/web/logs?stdout=1&stdout=0", b"/containers/ID/logs?stdout=1&stdout=0"),
    (b"/containers/web/logs?tail=%zz", None),
    (b"/containers/web/logs?stdout=1;follow=1", None),
    (b"/containers/web/logs?Stdout=1&tail=1", b"/containers/ID/logs?tail=1"),
    (b"/containers/web/logs?container=db", b"/containers/ID/logs"),
    (b"/images/json?manifests=1", None),
    (b"/images/json?manifests=0&all=1", b"/images/json?all=1"),
    (b"/containers/web/logs?&&stdout=+1&", b"/containers/ID/logs?stdout=+1"),
    (b"/containers/parent/alias/logs", b"/containers/ID/logs"),
    (b"/containers/web/json?size=\xe4", b"/containers/ID/json?size=%E4"),
    (b"/containers/\xe4/json", b"/containers/ID/json"),
    (b"/containers/x/../web/json", b"/containers/ID/json"),
    (b"/containers//json", b"/containers/json"),
    (b"/containers/json/", None),
    (b"/Containers/web/json", None),
    (b"/libpod/containers/web/json", None),
    (b"/v5.0.0-rc1/containers/web/json", None),
    (b"/v1.41/v1.41/containers/web/json", None),
    (b"/containers/web/top?ps_args=-eo+pid,args", b"/containers/ID/top?ps_args=-eo+pid%2Cargs"),
    (b"/containers/web/top?ps_args=aux", b"/containers/ID/top?ps_args=aux"),
    (b"/containers/web/top?ps_args=-eo+ppid%3DPID", None),
    (b"/containers/web/top?ps_args=-eo+args,pid", None),
    (b"/containers/web/top?ps_args=-ef+-m", None),
    (b"/containers/ps", None),
    (b"/containers/web/checkpoints", None),
    (b"/swarm", None),
    (b"/services", None),
    (b"*", None),
    (b"/", None),
    (b"", None),
]


@pytest.mark.parametrize("target, expected", ANEW)
def test_a_target_is_written_anew_or_refused(target: bytes, expected: bytes | None) -> None:
    if expected is None:
        with pytest.raises(RouteError):
            scoped_request("GET", target)
        return
    assert scoped_request("GET", target).target("ID") == expected


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS", "PATCH"])
def test_a_method_that_the_route_does_not_have_is_refused(method: str) -> None:
    with pytest.raises(RouteError, match="nobody has made sure"):
        scoped_request(method, b"/containers/web/json")


def test_a_redirected_path_is_refused_where_it_changes_something() -> None:
    with pytest.raises(RouteError, match="//"):
        scoped_request("POST", b"/containers/x/../web/kill")
    with pytest.raises(RouteError, match="a link"):
        scoped_request("DELETE", b"/containers/web?link=1")
    assert scoped_request("DELETE", b"/containers/web?link=false&v=1").action == "container"
    with pytest.raises(RouteError, match="network"):
        scoped_request("POST", b"/build?networkmode=container%3Aweb")


def test_what_was_written_anew_is_read_the_same_again() -> None:
    rng = random.Random(5)
    for method, row, action, parameters in ROUTES:
        for _ in range(20):
            name = "".join(rng.choice("aZ0 %/?#&=+;:@\xe4\n") for _ in range(9)).strip("/") or "x"
            name = re.sub("/+", "/", name)
            keys = [key for key in parameters.split() if key not in ("ps_args", "networkmode")]
            pairs = [(key, "%&=;+ \xe4"[rng.randrange(8) :]) for key in keys]
            path = urllib.parse.quote(row.replace("{}", name), safe="/")
            target = f"{path}?{urllib.parse.urlencode(pairs)}".encode()
            request = scoped_request(method, target)
            assert (request.action, request.parameters) == (action, tuple(pairs))
            assert scoped_request(method, request.target()) == request


def test_the_page_names_every_route() -> None:
    page = (ROOT / "docs" / "scope.md").read_text()
    assert [row for row in ROUTES if f"`{row[0]} {row[1]}`" not in page] == []


# ================================================================================================
# filters
# ================================================================================================


def test_filters_of_either_spelling_are_read() -> None:
    assert read_filters('{"label":["a=b","c"]}') == {"label": ["a=b", "c"]}
    assert read_filters('{"label":{"a=b":true}}') == {"label": ["a=b"]}
    assert read_filters("") == read_filters("{}") == {}


@pytest.mark.parametrize(
    "text",
    [
        '{"label":["a"],"label":["b"]}',
        '{"label":{"a":false}}',
        '{"label":"a"}',
        '{"label":[1]}',
        "[]",
        "x",
        "{} {}",
        '{"label":["\\ud800"]}',
    ],
)
def test_filters_that_can_be_read_in_two_ways_are_refused(text: str) -> None:
    with pytest.raises(FilterError):
        read_filters(text)


def test_ids_of_the_scope_are_asked_for_and_no_others() -> None:
    assert with_ids({}, [MINE, RUN]) == {"id": [MINE, RUN]}
    assert with_ids({"id": [MINE[:5]], "name": ["x"]}, [MINE, RUN]) == {"id": [MINE], "name": ["x"]}
    assert with_ids({"id": [OTHER]}, [MINE]) == {"id": [NOBODY]} == with_ids({}, [])
    with pytest.raises(FilterError, match="no id"):
        with_ids({"id": ["a1|b2"]}, [MINE])


def test_events_are_narrowed_by_one_label() -> None:
    scope = scope_of("label=team=a")
    expected = {"type": ["container"], "label": ["team=a"]}
    assert narrowed_events({}, scope) == expected
    assert narrowed_events({"type": ["container", "network"]}, scope) == expected
    several = scope_of("label=team=a", "own")
    assert narrowed_events({}, several) is None
    assert narrowed_events({"label": ["x", "team=a"]}, several) == {
        "label": ["x", "team=a"],
        "type": ["container"],
    }
    with pytest.raises(FilterError, match="events of anything else"):
        narrowed_events({"type": ["network"]}, scope)
    with pytest.raises(FilterError, match="not known to be safe"):
        narrowed_events({"pod": ["x"]}, scope)


def test_prune_is_narrowed_by_one_label() -> None:
    scope = scope_of("label=team=a")
    assert narrowed_prune({"until": ["1h"]}, scope) == {"until": ["1h"], "label": ["team=a"]}
    with pytest.raises(FilterError, match="not by any of several"):
        narrowed_prune({}, scope_of("label=team=a", "own"))
    with pytest.raises(FilterError, match="not by any of several"):
        narrowed_prune({}, scope_of("name=x*"))


# ================================================================================================
# bodies
# ================================================================================================

NAMING: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"HostConfig": None, "NetworkingConfig": {"EndpointsConfig": None}}, []),
    ({"Image": "container:latest", "Domainname": "container:x"}, []),
    ({"HostConfig": {"NetworkMode": "container:web"}}, ["web"]),
    ({"HOSTCONFIG": {"networkmode": "container:web"}}, ["web"]),
    ({"HostConfig": {"PidMode": "container:a", "IpcMode": "container:b"}}, ["a", "b"]),
    ({"HostConfig": {"Cgroup": "container:a", "UTSMode": "container:b"}}, ["a", "b"]),
    ({"HostConfig": {"VolumesFrom": ["a", "b:ro"]}}, ["a", "b"]),
    ({"HostConfig": {"Volume\u017fFrom": ["a"]}}, ["a"]),
    ({"VolumesFrom": ["a"], "NetworkMode": "container:b"}, ["b", "a"]),
    ({"HostConfig": {"Links": ["a", "b:c", "/d:/e/f"]}}, ["a", "b", "d"]),
    ({"HostConfig": {"Lin\u212as": ["a"]}}, ["a"]),
    ({"NetworkingConfig": {"EndpointsConfig": {"n": {"Links": ["a:b"]}}}}, ["a"]),
]


@pytest.mark.parametrize("body, names", NAMING)
def test_each_place_that_names_a_container_is_found(body: dict[str, Any], names: list[str]) -> None:
    assert [place.name for place in created_references(body)] == names


def test_ids_stand_where_names_stood() -> None:
    links = ["a", "b:c", "/d:/e/f"]
    host = {"NetworkMode": "container:web", "VolumesFrom": ["v:ro"]}
    body: dict[str, Any] = {"HostConfig": dict(host)}
    for place in list(created_references(body)):
        place.put("ID")
    assert body["HostConfig"] == {"NetworkMode": "container:ID", "VolumesFrom": ["ID:ro"]}
    for network, expected in (("bridge", ["ID:a", "ID:c", "ID:f"]), ("mine", links)):
        body = {"HostConfig": {"NetworkMode": network, "Links": list(links)}}
        for place in list(created_references(body)):
            place.put("ID")
        assert body["HostConfig"]["Links"] == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{}{}",
        b'{"Labels":{},"labels":{}}',
        b'{"Labels":{},"Label\xc5\xbf":{}}',
        b'{"HostConfig":{},"HostConfig":{}}',
        b'{"HostConfig":[]}',
        b'{"HostConfig":{"Links":"a"}}',
        b'{"HostConfig":{"VolumesFrom":[1]}}',
        b'{"HostConfig":{"PidMode":"","pidmode":""}}',
        b'\xff{"a":1}',
    ],
)
def test_a_body_that_can_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(BodyError):
        list(created_references(read_body(raw)))


#: scope, body, name, the labels that it gets, or what the refusal says
CREATED: list[tuple[list[str], dict[str, Any], str, dict[str, str] | str]] = [
    (["label=team=a"], {}, "", {"team": "a"}),
    (["label=team=a"], {"Labels": None}, "", {"team": "a"}),
    (["label=team=a"], {"labels": {"x": "y"}}, "", {"x": "y", "team": "a"}),
    (["label=team=a"], {"Labels": {"team": "b"}}, "", "its label team has to be 'a' here"),
    (["label=team=a"], {"Labels": {"team": 7}}, "", "no object of texts"),
    (["label=team"], {}, "", "outside of this listener's scope: label=team"),
    (["label=team"], {"Labels": {"team": "b"}}, "", {"team": "b"}),
    (["name=ci-*"], {}, "ci-1", {}),
    (["name=ci-*"], {}, "/ci-1", {}),
    (["name=ci-*"], {}, "web", "outside of this listener's scope: name=ci-*"),
    (["name=ci-*"], {}, "", "outside of this listener's scope"),
    (["image=busybox"], {"Image": "busybox"}, "", {}),
    (["compose-project=p"], {}, "", "outside of this listener's scope"),
    (["own"], {}, "", {OWN_LABEL: "ci"}),
    (["own"], {"Labels": {OWN_LABEL: "ci"}}, "", {OWN_LABEL: "ci"}),
    (["own"], {"Labels": {OWN_LABEL: "other"}}, "", "given by dockeraudit"),
    (["name=*"], {"Labels": {OWN_LABEL: "other"}}, "x", "given by dockeraudit"),
    (["name=ci-*", "own"], {}, "ci-1", {OWN_LABEL: "ci"}),
    (["name=ci-*", "label=team=a"], {}, "ci-1", {}),
    (["name=ci-*", "label=team=a"], {}, "web", {"team": "a"}),
]


@pytest.mark.parametrize("words, body, name, expected", CREATED)
def test_what_is_made_lies_in_scope(
    words: list[str], body: dict[str, Any], name: str, expected: dict[str, str] | str
) -> None:
    scope = scope_of(*words)
    if isinstance(expected, str):
        with pytest.raises(BodyError) as raised:
            labelled(body, name, scope)
        assert expected in str(raised.value)
        return
    labelled(body, name, scope)
    labels = body.get("labels", body.get("Labels")) or {}
    assert labels == expected
    assert scope.holds(Facts("", name.lstrip("/"), body.get("Image", ""), labels))


# ================================================================================================
# answers
# ================================================================================================


def event(name: str, kind: str = "container") -> bytes:
    actor = {"ID": MINE, "Attributes": {"name": name, "image": "busybox"}}
    return json.dumps({"Type": kind, "Actor": actor}).encode() + b"\n"


def test_only_events_in_scope_pass_at_every_cut() -> None:
    lines = [event("ci-1"), event("web"), event("ci-1", "network"), b"ci-1\n", event("ci-2")]
    expected = lines[0] + lines[4]
    body = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"
    for parts in splits(body, 7):
        reader = ChunkedReader()
        events = EventFilter(scope_of("name=ci-*"), reader, chunked=True)
        sent = b""
        for part in parts:
            used, payload = reader.feed(part)
            sent += events.pass_on(part[:used], payload)
        sent += events.end() + events.end()
        check = ChunkedReader()
        assert check.feed(sent) == (len(sent), expected) and check.done


def test_events_that_are_cut_get_no_end_and_long_ones_are_dropped() -> None:
    reader = CloseReader()
    events = EventFilter(scope_of("name=ci-*"), reader, chunked=False)
    assert events.pass_on(b"", b"x" * (2 << 20)) == b""
    assert events.pass_on(b"", event("ci-1")) == b""  # the end of the long one
    assert events.pass_on(b"", b"\x1e" + event("ci-1")) == b"\x1e" + event("ci-1")
    assert events.pass_on(b"", event("ci-1")[:-1]) == b"" == events.end()


def test_answers_tell_of_the_containers_in_scope_alone() -> None:
    listed = [(facts(), {"State": "running"})]
    both = {MINE: {"Name": "mine"}, OTHER: {"Name": "other"}}
    network = {"Name": "none", "Containers": both, "Services": {"x": {}}, "Peers": []}
    expected = {"Name": "none", "Containers": {MINE: {"Name": "mine"}}}
    assert json.loads(without_containers("networks", network, listed)) == expected
    assert json.loads(without_containers("networks", [network], listed)) == [expected]
    usage = {"Images": [1], "Containers": [{"Id": MINE}, {"Id": OTHER}], "ContainersDiskUsage": {}}
    told = json.loads(without_containers("df", usage, listed))
    assert told == {"Images": [1], "Containers": [{"Id": MINE}]}
    info = {"Containers": 9, "ContainersRunning": 8, "ContainersStopped": 7, "Name": "host"}
    told = json.loads(without_containers("info", info, listed))
    assert [told[key] for key in ("Containers", "ContainersRunning", "ContainersStopped")] == [
        1,
        1,
        0,
    ]


# ================================================================================================
# the gate
# ================================================================================================


@pytest.fixture
def engine(folder: Path) -> Iterator[ScriptedEngine]:
    """An engine with a container of ours, one of others, an exec in each."""
    with ScriptedEngine(str(folder / "engine.sock")) as scripted:
        entries = []
        for full_id, name, team in ((MINE, "mine", "a"), (OTHER, "other", "b")):
            labels = {"team": team}
            said = {"Id": full_id, "Name": f"/{name}", "Config": {"Labels": labels, "Image": "i"}}
            for reference in (full_id, full_id[:12], name):
                scripted.routes[f"/containers/{reference}/json"] = json_answer(said)
            entries.append({"Id": full_id, "Names": [f"/{name}"], "Labels": labels, "Image": "i"})
            exec_id = full_id[:2] * 31 + "ee"
            scripted.routes[f"/exec/{exec_id}/json"] = json_answer({"ContainerID": full_id})
        ambiguous = json_answer({"message": "multiple IDs found"}, b"400 Bad Request")
        scripted.routes["/containers/a/json"] = ambiguous
        scripted.routes["/containers/json"] = json_answer(entries)
        scripted.routes["/containers/broken/json"] = json_answer({}, b"500 Oops")
        yield scripted


def gate_of(engine: ScriptedEngine, *words: str) -> ScopeGate:
    return ScopeGate(scope_of(*words), engine.path, masks=False)


def admitted(gate: ScopeGate, line: str, *fields: str) -> bytes:
    raw = "\r\n".join([f"{line} HTTP/1.1", "Host: d", *fields, "", ""])
    return gate.admit(*read_request(raw.encode("latin-1"))).head.target


@pytest.mark.parametrize(
    "line, target",
    [
        ("GET /containers/mine/json", f"/containers/{MINE}/json"),
        ("GET /v1.41/containers/mine/logs?follow=1", f"/v1.41/containers/{MINE}/logs?follow=1"),
        ("DELETE /containers/mine?force=1", f"/containers/{MINE}?force=1"),
        (f"GET /containers/{MINE[:12]}/json", f"/containers/{MINE}/json"),
        ("GET /containers/a/json", f"/containers/{MINE}/json"),  # the engine knows several
        ("GET /containers/a1a1a/json", f"/containers/{MINE}/json"),  # the engine says 404
        ("POST /commit?container=mine&repo=x", f"/commit?repo=x&container={MINE}"),
        ("POST /containers/mine/rename?name=new", f"/containers/{MINE}/rename?name=new"),
        (f"GET /exec/{'a1' * 31}ee/json", f"/exec/{'a1' * 31}ee/json"),
        ("GET /version", "/version"),
    ],
)
def test_what_is_in_scope_is_forwarded_by_its_id(
    engine: ScriptedEngine, line: str, target: str
) -> None:
    assert admitted(gate_of(engine, "label=team=a"), line).decode() == target


@pytest.mark.parametrize(
    "line, sentence, recorded",
    [
        ("GET /containers/other/json", "No such container: other", True),
        ("GET /containers/nobody/json", "No such container: nobody", False),
        (f"GET /containers/{OTHER}/logs", f"No such container: {OTHER}", True),
        (f"GET /containers/{OTHER[:12]}/logs", f"No such container: {OTHER[:12]}", True),
        ("GET /containers/b/json", "No such container: b", False),
        ("POST /commit?container=other", "No such container: other", True),
        ("POST /commit", "No such container: ", False),
        ("POST /commit?container=other&container=mine", "No such container: other", True),
        (f"GET /exec/{'b2' * 31}ee/json", f"No such exec instance: {'b2' * 31}ee", True),
        (f"POST /exec/{RUN}/start", f"No such exec instance: {RUN}", False),
        ("POST /exec/x/start", "No such exec instance: x", False),
        ("GET /containers/json?filters=%7B%22since%22%3A%5B%22other%22%5D%7D",
         "No such container: other", True),
        ("POST /containers/mine/rename?name=other",
         'Conflict. The container name "/other" is already in use.', True),
        ("POST /containers/create?name=other",
         'Conflict. The container name "/other" is already in use.', True),
        ("GET /plugins/x/json", "No such plugin: x", False),
    ],
)  # fmt: skip
def test_what_is_out_of_scope_does_not_exist(
    engine: ScriptedEngine, line: str, sentence: str, recorded: bool
) -> None:
    with pytest.raises(OutOfScope) as raised:
        admitted(gate_of(engine, "label=team=a"), line)
    error = raised.value
    assert (str(error), error.as_engine, error.recorded) == (sentence, True, recorded)
    assert error.rule == "scope" and error.keep


def test_a_rename_that_leads_out_of_scope_is_refused(engine: ScriptedEngine) -> None:
    gate = gate_of(engine, "name=mi*")
    with pytest.raises(OutOfScope, match="under its new name"):
        admitted(gate, "POST /containers/mine/rename?name=web")
    assert admitted(gate, "POST /containers/mine/rename?name=mit").endswith(b"?name=mit")


def test_a_form_is_refused_and_so_is_an_engine_that_does_not_say(engine: ScriptedEngine) -> None:
    gate = gate_of(engine, "label=team=a")
    for kind in ("application/x-www-form-urlencoded", "Multipart/Form-Data; boundary=x"):
        with pytest.raises(OutOfScope, match="a form"):
            admitted(
                gate, "POST /commit?container=mine", "Content-Type: a/b", f"Content-Type: {kind}"
            )
    with pytest.raises(Exception, match="answered 500") as raised:
        admitted(gate, "GET /containers/broken/json")
    assert not isinstance(raised.value, Denied)


def test_lists_are_narrowed_by_the_label_or_by_ids(engine: ScriptedEngine) -> None:
    def filters(*words: str, line: str = "GET /containers/json?all=1") -> Any:
        target = admitted(gate_of(engine, *words), line).decode()
        query = urllib.parse.parse_qs(target.partition("?")[2])
        return json.loads(query["filters"][0])

    assert filters("label=team=a") == {"label": ["team=a"]}
    assert filters("name=mi*") == {"id": [MINE]}
    assert filters("name=mi*", "label=team=b") == {"id": [MINE, OTHER]}
    assert filters("name=x") == {"id": [NOBODY]}
    assert filters("image=i") == {"id": [MINE, OTHER]}
    entry = {"Id": MINE, "Names": ["/mine"], "Image": f"sha256:{RUN}"}  # its name was moved
    engine.routes["/containers/json"] = json_answer([entry])
    assert filters("image=i") == {"id": [MINE]}
    own = "GET /containers/json?filters=%7B%22label%22%3A%5B%22team%3Da%22%5D%7D"
    assert filters("label=team=a", "name=x", line=own) == {"label": ["team=a"]}


def test_a_body_names_ids_and_gets_the_label(engine: ScriptedEngine) -> None:
    gate = gate_of(engine, "label=team=a")
    head, route = read_request(b"POST /containers/create HTTP/1.1\r\nHost: d\r\n\r\n")
    assert gate.wants(head, route)
    body = json.dumps({"Image": "i", "HostConfig": {"VolumesFrom": ["mine:ro"]}}).encode()
    verdict = gate.judge(head, route, body)
    assert json.loads(verdict.body) == {
        "Image": "i",
        "HostConfig": {"VolumesFrom": [f"{MINE}:ro"]},
        "Labels": {"team": "a"},
    }
    with pytest.raises(OutOfScope, match="^No such container: other$") as raised:
        gate.judge(head, route, body.replace(b"mine", b"other"))
    assert raised.value.status == 400
    with pytest.raises(OutOfScope, match="not plain JSON"):
        gate.judge(head, route, body + body)


def test_old_engines_get_no_settings_with_a_start(engine: ScriptedEngine) -> None:
    gate = gate_of(engine, "label=team=a")
    head, route = read_request(b"POST /containers/mine/start HTTP/1.1\r\nHost: d\r\n\r\n")
    assert not gate.wants(head, route)
    fields = b"POST /containers/mine/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n"
    head, route = read_request(fields)
    assert gate.wants(head, route) and gate.judge(head, route, b"{}").body == b""
    with pytest.raises(OutOfScope, match="a body with settings"):
        gate.judge(head, route, b'{"NetworkMode":"container:other"}')


# ================================================================================================
# networks, volumes, images
# ================================================================================================


def objects_of(**scopes: str) -> ObjectScopes:
    """Scopes over an engine with one thing of each kind of ours and of others."""
    things: dict[str, Any] = {
        "/networks/mine": {"Id": MINE, "Name": "mine", "Labels": {"team": "a"}},
        "/networks/theirs": {"Id": OTHER, "Name": "theirs", "Labels": {}},
        "/volumes/mine": {"Name": "mine", "Labels": {"team": "a"}},
        "/volumes/theirs": {"Name": "theirs", "Labels": None},
        "/images/reg/mine/json": image("reg/mine:latest"),
        "/images/reg/mine:2/json": image("reg/mine:2"),
        f"/images/{MINE[:12]}/json": image("reg/mine:latest", "reg/mine:2"),
        f"/images/{OTHER[:12]}/json": {**image("reg/mine:3", "theirs:1"), "Id": f"sha256:{OTHER}"},
        "/images/theirs/json": image("theirs:latest"),
    }
    ask = lambda path: (200, things[path]) if path in things else (404, None)
    return ObjectScopes({kind: scope_of(word) for kind, word in scopes.items()}, ask)


def image(*tags: str) -> dict[str, Any]:
    return {"Id": f"sha256:{MINE}", "RepoTags": list(tags), "Config": {"Labels": None}}


SCOPED = {"networks": "label=team=a", "volumes": "label=team=a", "images": "name=reg/*"}
#: request, and what it becomes; None: it is not admitted
OBJECTS = [
    ("GET /networks/mine", f"/networks/{MINE}"),
    ("GET /networks/theirs", None),
    ("GET /networks/none", "/networks/none"),
    ("DELETE /networks/theirs", None),
    ("POST /networks/theirs/connect", None),
    ("GET /networks", "/networks"),
    ("POST /networks/prune", "/networks/prune?filters=%7B%22label%22%3A+%5B%22team%3Da%22%5D%7D"),
    ("GET /volumes/mine", "/volumes/mine"),
    ("GET /volumes/theirs", None),
    ("DELETE /volumes/theirs?force=1", None),
    ("GET /volumes", "/volumes?filters=%7B%22label%22%3A+%5B%22team%3Da%22%5D%7D"),
    ("GET /images/reg/mine/json", "/images/reg/mine/json"),
    (f"GET /images/{MINE[:12]}/history", f"/images/{MINE[:12]}/history"),
    (f"GET /images/{OTHER[:12]}/history", f"/images/{OTHER[:12]}/history"),
    (f"DELETE /images/{OTHER[:12]}", None),
    (f"DELETE /images/{MINE[:12]}", f"/images/{MINE[:12]}"),
    ("GET /images/theirs/json", None),
    ("DELETE /images/theirs", None),
    ("GET /images/json", "/images/json"),
    ("GET /images/get?names=reg/mine&names=theirs", None),
    ("GET /images/get?names=reg/mine", "/images/get?names=reg%2Fmine"),
    ("POST /images/prune", None),
    ("POST /images/load", None),
    ("POST /build?t=reg/x", None),
    ("POST /images/create?fromImage=theirs&tag=1", None),
    ("POST /images/create?fromImage=reg/x&tag=1", "/images/create?fromImage=reg%2Fx&tag=1"),
    ("POST /images/create?fromSrc=-&repo=theirs", None),
    ("POST /images/reg/mine/tag?repo=theirs&tag=1", None),
    ("POST /images/reg/mine/tag?repo=reg/x", "/images/reg/mine/tag?repo=reg%2Fx"),
    ("POST /images/reg/mine/push", None),
    ("POST /images/reg/mine/push?tag=2", "/images/reg/mine/push?tag=2"),
    ("POST /images/reg/mine/push?tag=9", None),
    ("POST /images/theirs/push?tag=1", None),
    ("GET /containers/x/json", "/containers/x/json"),
]


@pytest.mark.parametrize("line, target", OBJECTS)
def test_networks_volumes_and_images_have_scopes_of_their_own(
    line: str, target: str | None
) -> None:
    method, _, asked = line.partition(" ")
    request = scoped_request(method, asked.encode())
    assert objects_of().admit(request) == request
    if target is not None:
        assert objects_of(**SCOPED).admit(request).target().decode() == target
        return
    with pytest.raises((OutOfScope, RouteError, FilterError)):
        objects_of(**SCOPED).admit(request)


CREATE, NETWORK, VOLUME = (f"/{kind}/create" for kind in ("containers", "networks", "volumes"))
CONNECT = "/networks/mine/connect"
#: where a body goes, the body, and what its refusal says; an empty text: it is admitted
OBJECT_BODIES: list[tuple[str, dict[str, Any], str]] = [
    (CREATE, {"Image": "reg/mine"}, ""),
    (CREATE, {"Image": "theirs"}, "No such image: theirs"),
    (CREATE, {"image": "theirs"}, "No such image: theirs"),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"NetworkMode": "mine"}}, ""),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"NetworkMode": "none"}}, ""),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"NetworkMode": "theirs"}}, "network theirs not"),
    (CREATE, {"Image": "reg/mine", "NetworkMode": "theirs"}, "network theirs not found"),
    (CREATE, {"Image": "reg/mine", "NetworkingConfig": {"EndpointsConfig": {"theirs": {}}}},
     "network theirs not found"),
    (CREATE, {"Image": "reg/mine", "NetworkingConfig": {"EndpointsConfig": {"mine": {
        "networkid": "theirs"}}}}, "network theirs not found"),
    (CREATE, {"Image": "reg/mine", "NetworkingConfig": {"EndpointsConfig": {"mine": None}}}, ""),
    (CREATE, {"Image": "reg/mine", "NetworkingConfig": {"EndpointsConfig": {"mine": 7}}},
     "no object"),
    (CONNECT, {"Container": "x", "EndpointConfig": {"NetworkID": "theirs"}}, "network theirs not"),
    (CONNECT, {"Container": "x", "EndpointConfig": {"NetworkID": ""}}, ""),
    (CONNECT, {"Container": "x"}, ""),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"Mounts": [
        {"Type": "image", "Source": "theirs", "Target": "/x"}]}}, "No such image: theirs"),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"Binds": ["mine:/x", "/host:/y"]}}, ""),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"Binds": ["theirs:/x"]}}, "'theirs' is not one"),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"Binds": ["new:/x"]}}, "'new' is not one"),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"Mounts": [
        {"Type": "volume", "source": "theirs", "Target": "/x"}]}}, "'theirs' is not one"),
    (CREATE, {"Image": "reg/mine", "HostConfig": {"Mounts": [
        {"Type": "bind", "Source": "/host", "Target": "/x"}, {"Type": "volume"}]}}, ""),
    (CREATE, {"Image": "reg/mine", "Mounts": [{"Source": "theirs"}]}, "'theirs' is not one"),
    (NETWORK, {"Name": "new"}, ""),
    (NETWORK, {"Name": "new", "Labels": {"team": "b"}}, "its label team has to be 'a'"),
    (NETWORK, {"Name": "new", "ConfigFrom": {"Network": "theirs"}}, "network theirs not found"),
    (VOLUME, {"Name": "new"}, ""),
    (VOLUME, {}, ""),
    (VOLUME, {"Name": "mine"}, ""),
    (VOLUME, {"Name": "theirs"}, "get theirs: no such volume"),
    (VOLUME, {"Name": 7}, "no text"),
]  # fmt: skip


@pytest.mark.parametrize("row, body, refusal", OBJECT_BODIES)
def test_bodies_name_networks_volumes_and_images_in_scope(
    row: str, body: dict[str, Any], refusal: str
) -> None:
    request = scoped_request("POST", row.encode())
    objects_of().judge(request, json.loads(json.dumps(body)))
    if not refusal:
        objects_of(**SCOPED).judge(request, body)
        assert row in (CREATE, CONNECT) or body["Labels"] == {"team": "a"}
        return
    with pytest.raises((OutOfScope, BodyError)) as raised:
        objects_of(**SCOPED).judge(request, body)
    assert refusal in str(raised.value)


def test_lists_hold_what_is_in_scope() -> None:
    named = objects_of(networks="name=m*", volumes="name=m*", images="name=reg/*")

    def told(target: bytes, answer: Any) -> Any:
        return named.without_others(scoped_request("GET", target), answer)

    entries = [{"Name": name, "Labels": None} for name in ("mine", "theirs", "bridge")]
    images = [image("reg/x:1"), image("theirs:1"), image("reg/x:1", "theirs:1"), image()]
    assert told(b"/networks", entries) == [entries[0], entries[2]]
    assert told(b"/volumes", {"Volumes": entries, "Warnings": None})["Volumes"] == entries[:1]
    shown = [{**entry, "RepoDigests": []} for entry in (images[0], images[0])]
    assert told(b"/images/json", images) == shown
    usage = {"Images": images, "Volumes": entries, "BuildCache": [1], "LayersSize": 5}
    expected = {"Images": shown, "Volumes": entries[:1], "BuildCache": [], "LayersSize": 5}
    assert told(b"/system/df", usage) == expected


# ================================================================================================
# the process
# ================================================================================================


def test_answers_are_given_and_denials_recorded(
    folder: Path, engine: ScriptedEngine, start_proxy: Any
) -> None:

    proxy: ProxyProcess = start_proxy(engine.path, "--scope", "label=team=a")
    said = proxy.errors.read_text()
    assert "clients get only containers in scope (label=team=a); images, networks, volumes" in said
    line = b"GET /containers/other/json HTTP/1.1\r\nHost: d\r\n\r\n"
    answer = ask(proxy.socket, line + line.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    sentence = b'{"message":"No such container: other"}\n'
    assert answer.status == 404 and answer.body.startswith(sentence)
    assert answer.body.endswith(sentence) and b"dockeraudit" not in answer.head + answer.body
    refused = ask(proxy.socket, b"GET /services HTTP/1.0\r\n\r\n")
    assert refused.status == 403 and refused.refused and b"only label=team=a" in refused.body
    denied = proxy.wait_records("denied", 2)
    assert [(record["path"], record["rule"]) for record in denied] == [
        ("/containers/other/json", "scope"),
        ("/services", "scope"),
    ]


def test_what_is_removed_is_recorded_and_reasons_stay_here(
    folder: Path, engine: ScriptedEngine, start_proxy: Any
) -> None:

    proxy: ProxyProcess = start_proxy(engine.path, "--scope", "label=team=a")
    reason = {"message": f"volume is in use - [{OTHER}]"}
    engine.routes["/volumes/data"] = json_answer(reason, b"409 Conflict")
    answer = ask(proxy.socket, b"DELETE /volumes/data HTTP/1.0\r\n\r\n")
    assert answer.status == 409 and OTHER.encode() not in answer.body
    engine.routes["/volumes/data"] = lambda sock, head: sock.sendall(
        b"HTTP/1.1 204 No Content\r\n\r\n"
    )
    answer = ask(proxy.socket, b"DELETE /volumes/data HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.body) == (204, b"")
    assert [record["status"] for record in proxy.wait_records("request")] == [204]


def test_answers_that_are_read_whole_are_scanned_too(
    engine: ScriptedEngine, start_proxy: Any
) -> None:

    proxy: ProxyProcess = start_proxy(engine.path, "--scope", "label=team=a")
    keys = ["AK" + "IA" + "HELD4WHOLE7ANS" + last for last in ("2Q", "3R")]
    said = [{"Id": each, "Command": f"run {key}"} for each, key in zip((MINE, OTHER), keys)]
    engine.routes["/system/df"] = json_answer({"LayersSize": 1, "Containers": said})
    answer = ask(proxy.socket, b"GET /system/df HTTP/1.0\r\n\r\n")
    assert keys[0].encode() in answer.body and keys[1].encode() not in answer.body
    found = proxy.wait_records("finding")
    assert [(record["endpoint"], record["severity"]) for record in found] == [("list", "HIGH")]


SECTION = "[listener ci]\nlisten = unix:///run/ci.sock\n"
#: what a file says, and what is wrong with it
WRONG = [
    ("scope = own\nscope-volumes = image=x", "only containers have an image"),
    ("scope-volumes = own", "ci: scope-volumes does nothing without scope"),
    ("scope = off, own", "ci: scope is off, or has words, not both"),
    ("scope = own, off", "ci: scope is off, or has words, not both"),
    ("scope = own\nscope-images = name=x, off", "ci: scope-images is off, or has words, not both"),
    ("scope = team=a", "[listener ci] scope: 'team=a' is no scope; legal are label=KEY=VALUE"),
    ("scope = own\n[dockeraudit]\nhttp2 = relay", "ci: scope and http2 relay cannot be had"),
]


@pytest.mark.parametrize("text, wrong", WRONG)
def test_a_scope_that_cannot_be_kept_is_named(folder: Path, text: str, wrong: str) -> None:
    file = folder / "x.ini"
    file.write_text(SECTION + text)
    with pytest.raises(ConfigurationError) as raised:
        load_listeners(load_settings(["--config", str(file)], {}), {}, lambda *said: None)
    assert wrong in str(raised.value)


def test_a_listener_lifts_the_scope_of_all(folder: Path) -> None:
    file = folder / "x.ini"
    file.write_text(f"{SECTION}scope = off\n[listener team]\nlisten = unix:///run/b.sock\n")
    settings = load_settings(
        ["--config", str(file), "--scope", "own,label=a", "--scope-volumes", "own"], {}
    )
    ci, team = load_listeners(settings, {}, lambda *said: None)
    assert ci.scope is None and team.scope is not None and team.judges == (team.scope,)
    assert team.scope.scope.terms[0].label == f"{OWN_LABEL}=team"
    assert team.scope.scope.text == "own, label=a"


def test_sighup_puts_another_scope_in_force(
    folder: Path, engine: ScriptedEngine, start_proxy: Any
) -> None:

    file = folder / "x.ini"
    file.write_text("[dockeraudit]\nscope = label=team=a\n")
    proxy: ProxyProcess = start_proxy(engine.path, "--config", str(file))
    request = b"GET /containers/other/json HTTP/1.0\r\n\r\n"
    assert ask(proxy.socket, request).status == 404
    file.write_text("[dockeraudit]\nscope = label=team=b\n")
    os.kill(proxy.process.pid, signal.SIGHUP)
    wait_for(lambda: "changed: scope" in proxy.errors.read_text(), "the new scope")
    assert ask(proxy.socket, request).status == 200


def test_learning_a_policy_does_not_lift_the_scope(
    engine: ScriptedEngine, start_proxy: Any
) -> None:

    proxy: ProxyProcess = start_proxy(engine.path, "--scope", "label=team=a", "--mode", "learn")
    assert ask(proxy.socket, b"GET /containers/other/json HTTP/1.0\r\n\r\n").status == 404
    assert ask(proxy.socket, b"GET /containers/mine/json HTTP/1.0\r\n\r\n").status == 200
    assert proxy.wait_records("denied")[0]["rule"] == "scope"


def test_each_request_of_a_kept_connection_is_held_to_the_scope(
    engine: ScriptedEngine, start_proxy: Any
) -> None:
    """Short requests of a connection that is kept may be served by another thread than its own."""
    proxy: ProxyProcess = start_proxy(engine.path, "--scope", "label=team=a")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(proxy.socket)
        for name, status in [("mine", 200), ("other", 404), ("mine", 200), ("other", 404)] * 3:
            sock.sendall(f"GET /containers/{name}/json HTTP/1.1\r\nHost: d\r\n\r\n".encode())
            received = b""
            while not received.endswith(b"}") and not received.endswith(b"}\n"):
                received += sock.recv(65536)
            assert received.startswith(f"HTTP/1.1 {status} ".encode()), received
            assert (OTHER.encode() in received) is False


def test_a_refused_body_is_never_read_as_a_request(
    engine: ScriptedEngine, start_proxy: Any
) -> None:
    proxy: ProxyProcess = start_proxy(engine.path, "--scope", "label=team=a")
    body = json.dumps({"HostConfig": {"VolumesFrom": ["other"]}})
    head = f"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = ask(proxy.socket, (head + body).encode())
    assert answer.status == 400 and answer.ended and b"Connection: close" in answer.head
    assert answer.body == b'{"message":"No such container: other"}\n'
