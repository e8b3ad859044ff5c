"""Access control beside what it replaces: HAProxy's decisions, Tecnativa's cases, real clients."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from scripted import ScriptedEngine, json_answer

from _dockeraudit import compatible
from _dockeraudit.engine import UnixHTTPConnection
from _dockeraudit.policy import cleaned
from _dockeraudit.routes import classify
from conftest import PROGRAM, ROOT, wait_for

# ================================================================================================
# the truth table: HAProxy under a configuration written from the semantics
# ================================================================================================

CONTAINER = [
    "json",
    "top",
    "logs",
    "changes",
    "export",
    "stats",
    "resize",
    "start",
    "stop",
    "restart",
    "kill",
    "update",
    "rename",
    "pause",
    "unpause",
    "attach",
    "attach/ws",
    "wait",
    "archive",
    "exec",
    "copy",
    "checkpoints",
    "checkpoints/c",
]
LIBPOD = [
    "_ping",
    "version",
    "info",
    "events",
    "containers/json",
    "containers/x/json",
    "containers/x/logs",
    "containers/x/start",
    "containers/x/stop",
    "containers/x/restart",
    "containers/x/kill",
    "containers/x/pause",
    "containers/x/unpause",
    "containers/x/exec",
    "exec/x/start",
    "generate/x/systemd",
    "images/json",
    "images/pull",
    "manifests/x/json",
    "networks/json",
    "play/kube",
    "pods/json",
    "pods/x/start",
    "pods/x/stop",
    "pods/x/restart",
    "pods/x/kill",
    "pods/x/pause",
    "pods/x/unpause",
    "secrets/json",
    "system/df",
    "volumes/json",
]
ENDPOINTS = [
    *(f"/containers/x/{what}" for what in CONTAINER),
    *[
        "/containers/json",
        "/containers/create",
        "/containers/prune",
        "/containers/x",
        "/exec/x/start",
        "/exec/x/resize",
        "/exec/x/json",
    ],
    *[
        "/images/json",
        "/images/create",
        "/images/search",
        "/images/prune",
        "/images/get",
        "/images/load",
        "/images/x",
        "/images/x/json",
        "/images/x/history",
    ],
    *[
        "/images/x/push",
        "/images/x/tag",
        "/images/x/get",
        "/images/host:5000/a/b/json",
        "/build",
        "/build/prune",
        "/build/cancel",
        "/session",
        "/grpc",
        "/commit",
    ],
    *[
        "/auth",
        "/info",
        "/version",
        "/_ping",
        "/events",
        "/system/df",
        "/networks",
        "/networks/x",
        "/networks/create",
        "/networks/x/connect",
        "/networks/x/disconnect",
    ],
    *[
        "/networks/prune",
        "/volumes",
        "/volumes/x",
        "/volumes/create",
        "/volumes/prune",
        "/swarm",
        "/swarm/init",
        "/swarm/join",
        "/swarm/leave",
        "/swarm/update",
    ],
    *[
        "/swarm/unlockkey",
        "/swarm/unlock",
        "/nodes",
        "/nodes/x",
        "/nodes/x/update",
        "/services",
        "/services/create",
        "/services/x",
        "/services/x/update",
    ],
    *[
        "/services/x/logs",
        "/tasks",
        "/tasks/x",
        "/tasks/x/logs",
        "/secrets",
        "/secrets/create",
        "/secrets/x",
        "/secrets/x/update",
        "/configs",
        "/configs/create",
    ],
    *[
        "/configs/x",
        "/configs/x/update",
        "/plugins",
        "/plugins/privileges",
        "/plugins/pull",
        "/plugins/x",
        "/plugins/x/json",
        "/plugins/x/enable",
    ],
    *[
        "/plugins/x/disable",
        "/plugins/x/upgrade",
        "/plugins/create",
        "/plugins/x/push",
        "/plugins/x/set",
        "/distribution/x/json",
    ],
    *(f"/libpod/{what}" for what in LIBPOD),
]
#: the same things spelled otherwise, and what only looks like them
SPELLINGS = [
    *[
        "/v1.41/containers/json",
        "/v1.51/containers/x/logs",
        "/v1%2e51/containers/x/logs",
        "/v01.51/containers/x/kill",
        "/v1.51.0/images/json",
    ],
    *[
        "/%63ontainers/json",
        "/containers/x%2Flogs",
        "/containers/x/%6cogs",
        "/containers/parent/alias/logs",
        "/containers/parent/alias/start",
    ],
    *[
        "/CONTAINERS/json",
        "/Containers/x/Start",
        "/containersx/json",
        "/infox",
        "/versions",
        "/v1.41/v1.41/containers/json",
        "/v1.41/containers/v1/stop",
    ],
    *[
        "/containers/x/stop/attach",
        "/containers/x/start/json",
        "/containers/x/kill/archive",
        "/containers/x/pausex",
        "/containers/x/logsx",
    ],
    *[
        "//containers/json",
        "/containers//json",
        "/containers/x//logs",
        "/version/../containers/json",
        "/events/%2e%2e/images/json",
        "/a/../containers/json",
    ],
    *[
        "/",
        "/post",
        "/unheard/of",
        "/images/containers/json",
        "http://docker/containers/x/logs",
        "http://docker/v1.41/version",
        "/v4.0.0-rc1/libpod/pods/json",
    ],
    *[
        "/containers/a%20b/start",
        "/containers/a%2Fb/stop",
        "/libpod/containers/a/b/logs",
        "/containers/x/start/",
        "/containers/x/start?t=1",
        "/version?x=/containers",
    ],
]
TARGETS = ENDPOINTS + SPELLINGS
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
NAME = "[a-zA-Z0-9_.-]+"


def test_the_table_has_every_endpoint_once():
    assert len(set(ENDPOINTS)) == len(ENDPOINTS) >= 120


#: the kinds of configuration: arguments of CompatiblePolicy
MODES = {"tecnativa": (False, False), "newest": (False, True), "linuxserver": (True, False)}


def rule(action, path, value, negated=False):
    """HAProxy's rule for a variable's value, on the decoded path behind an optional version."""
    matched = f"{{ path,url_dec -m reg -i ^(/v[0-9.]+)?{path} }}"
    return (
        f"    http-request {action} if {matched} {'!' if negated else ''}{{ str({value}) -m bool }}"
    )


ANY_CONTAINER = (
    "(/libpod)?/(containers|pods)"  # what linuxserver's variables without LIBPOD are about
)


def haproxy_rules(mode, values):
    """The semantics of the variables, in the order of the mode's original."""
    gate = f"    http-request deny unless METH_GET or {{ str({values['POST']}) -m bool }}"
    wide = mode == "linuxserver"
    actions = [
        rule(
            "allow",
            f"{ANY_CONTAINER if wide and name.startswith('ALLOW_') else base}/{NAME}/"
            f"({'|'.join(verbs)})",
            values[name],
        )
        for name, (base, verbs) in compatible.ACTIONS.items()
        if name in values
    ]
    sections = [
        rule("allow", compatible.section_path(name), values[name])
        for name in compatible.SECTIONS + compatible.LIBPOD_SECTIONS
        if name in values
    ]
    if mode == "tecnativa":
        return [gate, *actions, *sections]
    readers = [
        rule("deny", f"{ANY_CONTAINER}/{NAME}/{verbs[0]}", values[name], negated=True)
        for name, verbs in {**compatible.READERS, **compatible.WRITERS}.items()
        if name in values
    ]
    if mode == "newest":
        methods = " || ".join(
            f"{{ method {name} }} {{ str({values[name]}) -m bool }}"
            for name in ("POST", "DELETE", "PUT", "PATCH")
        )
        gate = f"    http-request deny unless METH_GET || {methods}"
        return [gate, *readers, *actions, *sections]
    return [*readers, *actions, gate, *sections]


def haproxy_configuration(folder, mode, combinations):
    """One frontend for each combination of values; what a frontend admits is answered with 200."""
    lines = [
        "global",
        "    maxconn 4000",
        "    nbthread 1",
        "defaults",
        "    mode http",
        "    timeout client 60s",
        "    timeout connect 5s",
        "    timeout server 60s",
    ]
    for number, on in enumerate(combinations):
        values = {name: int(name in on) for name in names_of(mode)}
        lines += [
            f"frontend f{number}",
            f"    bind unix@{folder}/{number}.sock",
            *haproxy_rules(mode, values),
        ]
        lines += ["    http-request deny", "    default_backend engine"]
    return "\n".join(
        [
            *lines,
            "backend engine",
            "    http-request return status 200 content-type text/plain string ok",
            "",
        ]
    )


def names_of(mode):
    """The variables that a mode has."""
    return compatible.switches_of(*MODES[mode])


def combinations_of(mode, samples, full=False):
    """None, all, each variable alone, seeded samples; in full also each with POST, all but one."""
    names, rng = names_of(mode), random.Random(2018)
    found = [frozenset(), frozenset(names), *(frozenset({name}) for name in names)]
    found += [
        frozenset(rng.sample(names, rng.randrange(2, len(names)))) | {"POST"}
        for _ in range(samples)
    ]
    if full:
        found += [frozenset({name, "POST"}) for name in names] + [
            frozenset(names) - {name} for name in names
        ]
    return list(dict.fromkeys(found))


def statuses(path, requests):
    """What is answered to pipelined requests on one connection."""
    found, sent = [], 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(path)
        while sent < len(requests):
            batch = requests[sent : sent + 64]
            sock.sendall(b"".join(batch))
            sent += len(batch)
            data = b""
            while len(re.findall(rb"HTTP/1\.1 \d{3} [^\r]*\r\n", data)) < len(batch):
                block = sock.recv(1 << 18)
                assert block, (len(found), data[-200:])
                data += block
            sock.setblocking(False)
            while not complete(data, batch):
                sock.setblocking(True)
                data += sock.recv(1 << 18)
            sock.settimeout(30)
            found += [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]
    return found


def complete(data, batch):
    """Whether the last of the batch's answers has come with its body."""
    head, _, body = data[data.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return b"\r\n\r\n" in data and (
        batch[-1].startswith(b"HEAD") or length is not None and len(body) >= int(length[1])
    )


def request_bytes(method, target):
    return f"{method} {target} HTTP/1.1\r\nHost: docker\r\n\r\n".encode()


ACTION = re.compile(
    r"(?:/libpod)?/(?:containers|pods)/[^/]+/(?:stop|restart|kill|start|pause|unpause)", re.I
)
READER = re.compile(
    r"(?:/libpod)?/containers/.+/(archive|copy|changes|export|logs|top|attach|exec|kill)", re.I
)


def by_an_action_alone(on, method, path):
    """HAProxy admits it by an action's variable, though it is not POST of exactly that action."""
    return (
        bool(ACTION.match(path))
        and any("ALLOW" in name for name in on)
        and not (method == "POST" and ACTION.fullmatch(path))
    )


def by_an_unguarded_reader(on, method, path):
    """HAProxy's pattern for a reader's variable, which is off, does not cover this spelling."""
    reader = READER.match(cleaned(path))
    word = reader[1].upper().replace("COPY", "ARCHIVE") if reader else ""
    return (
        bool(reader)
        and f"ALLOW_{word}" not in on
        and not re.match(rf"{ANY_CONTAINER}/{NAME}/{word}", path, re.I)
    )


#: why ours refuses what HAProxy admits. The test fails for a cell that none of them explains, and
#: for one of them that explains no cell.
STRICTER = {
    "an action's variable admits POST of exactly the action": by_an_action_alone,
    "a reader's variable refuses behind a link, under archive's old name": by_an_unguarded_reader,
    "a WebSocket attach writes to the container, so it needs POST=1": lambda on, method, path: (
        method in ("GET", "HEAD") and path.endswith("/attach/ws") and "POST" not in on
    ),
    "a path must be admitted as the engine's redirect cleans it, too": lambda on, method, path: (
        cleaned(path) != path
    ),
}


def compare(folder, mode, combinations):
    """HAProxy's decisions beside ours: (cells, cells by explanation), and what nothing explains."""
    (folder / "haproxy.cfg").write_text(haproxy_configuration(folder, mode, combinations))
    process = subprocess.Popen(
        ["haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL
    )
    try:
        wait_for(
            lambda: (
                (folder / f"{len(combinations) - 1}.sock").exists() or process.poll() is not None
            ),
            "HAProxy",
        )
        assert process.poll() is None
        cells = list(itertools.product(METHODS, TARGETS))
        requests = [request_bytes(*cell) for cell in cells]
        routes = {target: classify(b"GET", target.encode()) for target in TARGETS}
        explained, unexplained = dict.fromkeys(STRICTER, 0), []
        for number, on in enumerate(combinations):
            theirs = statuses(str(folder / f"{number}.sock"), requests)
            chosen = compatible.CompatiblePolicy(on, *MODES[mode])
            assert len(theirs) == len(cells) and set(theirs) <= {200, 403}
            for (method, target), status in zip(cells, theirs):
                route = routes[target]
                ours = chosen.decide(method, route.path, version=route.podman_version).allowed
                if ours == (status == 200):
                    continue
                found = (
                    name for name, explains in STRICTER.items() if explains(on, method, route.path)
                )
                key = None if ours else next(found, None)
                if key is None:
                    unexplained.append(
                        (sorted(on), method, target, "ours admits" if ours else "ours refuses")
                    )
                else:
                    explained[key] += 1
        return len(cells) * len(combinations), explained, unexplained
    finally:
        process.terminate()
        process.wait()


#: what explains nothing in a mode: a word of it
IDLE = {"tecnativa": "reader", "newest": "WebSocket", "linuxserver": "nothing"}


def check_table(folder, mode, combinations, record):
    cells, explained, unexplained = compare(folder, mode, combinations)
    print(
        f"{mode}: {len(combinations)} combinations, {cells} cells, "
        f"{sum(explained.values())} differences"
    )
    for name, count in explained.items():
        print(f"  {count:7}  {name}")
    assert not unexplained, unexplained[:10]
    idle = [name for name, count in explained.items() if not count]
    assert all(IDLE[mode] in name for name in idle), idle
    record("cells", cells)


@pytest.fixture
def haproxy():
    """The program, where it is installed; it is never skipped in CI."""
    if shutil.which("haproxy") is None:
        assert not os.environ.get("CI"), "HAProxy is missing: e2e/run installs it"
        pytest.skip("HAProxy is not installed: `make e2e` installs it (as root)")
    return "haproxy"


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
def test_haproxy_decides_the_same(haproxy, folder, mode, record_property):
    check_table(folder, mode, combinations_of(mode, 8), record_property)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", list(MODES))
def test_haproxy_decides_the_same_in_full(haproxy, folder, mode, record_property):
    check_table(folder, mode, combinations_of(mode, 150, full=True), record_property)


@pytest.mark.slow
def test_haproxy_takes_words_for_zero(haproxy, folder):
    """The one difference that is announced: `true` and `yes` count here."""
    values = dict.fromkeys(names_of("tecnativa"), "true")
    text = haproxy_configuration(folder, "tecnativa", [frozenset()])
    lines = (
        text[: text.index("    http-request")].splitlines()
        + haproxy_rules("tecnativa", values)
        + text[text.index("    http-request deny\n") :].splitlines()
    )
    (folder / "haproxy.cfg").write_text("\n".join([*lines, ""]))
    process = subprocess.Popen(
        ["haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL
    )
    try:
        wait_for((folder / "0.sock").exists, "HAProxy")
        assert statuses(
            str(folder / "0.sock"),
            [request_bytes("GET", "/_ping"), request_bytes("GET", "/containers/json")],
        ) == [403, 403]
    finally:
        process.terminate()
        process.wait()
    ours, warnings = compatible.policy_from_environment(values, "auto")
    assert ours.decide("GET", "/containers/json").allowed and len(warnings) == len(values)


# ================================================================================================
# Tecnativa's acceptance cases, on a real engine with the docker CLI
# ================================================================================================

#: variables, what passes, what is refused; NAME stands for a running container
ACCEPTANCE = {
    "default": (
        "",
        ["version"],
        [
            "run --rm busybox",
            "pull busybox",
            "logs NAME",
            "wait NAME",
            "rm -f NAME",
            "restart NAME",
            "network ls",
            "config ls",
            "service ls",
        ]
        + [
            "stack ls",
            "secret ls",
            "plugin ls",
            "info",
            "system info",
            "build -",
            "swarm init",
            "exec NAME true",
            "images",
            "volume ls",
            "ps",
        ],
    ),
    "containers": (
        "CONTAINERS=1",
        ["version", "logs NAME", "inspect NAME", "ps"],
        ["wait NAME", "run --rm busybox", "rm -f NAME", "restart NAME", "exec NAME true", "images"],
    ),
    "post": (
        "POST=1",
        [],
        ["rm -f NAME", "pull busybox", "run --rm busybox", "network create NAME-n", "restart NAME"],
    ),
    "networks": (
        "POST=1 NETWORKS=1",
        ["network create NAME-n", "network ls", "network rm NAME-n"],
        ["ps", "run --rm busybox"],
    ),
    "exec": (
        "CONTAINERS=1 EXEC=1 POST=1",
        ["exec NAME true", "restart -t 0 NAME"],
        ["pull busybox", "network ls"],
    ),
    "newest": (
        "CONTAINERS=1 EXEC=1 POST=1 DELETE=0 ALLOW_LOGS=1",
        ["ps", "logs NAME", "inspect NAME", "restart -t 0 NAME", "rename NAME NAME-r"]
        + ["rename NAME-r NAME"],
        ["rm -f NAME", "exec NAME true", "kill NAME"] + ["cp NAME:/etc/passwd -", "export NAME"],
    ),
    "restarter": (
        "CONTAINERS=1 ALLOW_RESTARTS=1 ALLOW_LOGS=0",
        ["ps", "inspect NAME", "restart -t 0 NAME"],
        ["logs NAME", "rm -f NAME", "run --rm busybox"],
    ),
}


def configuration(folder, sections, head=""):
    """An INI file with a Unix listener for each section: name → its lines."""
    path = folder / "access.ini"
    text = [
        f"[dockeraudit]\n{head}",
        *(
            f"[listener {name}]\nlisten = unix://{folder}/{name}.sock\n{lines}"
            for name, lines in sections.items()
        ),
    ]
    path.write_text(
        "\n".join(text) + f"\n[listener proxy]\nlisten = unix://{folder}/proxy.sock\npolicy = off\n"
    )
    return ("--config", str(path))


@pytest.fixture
def container(real_engine):
    """A running container of a name of its own."""
    name = f"access-{os.getpid()}"
    real_engine.docker(
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "echo started; exec sleep 300",
    )
    yield name
    real_engine.docker("rm", "-f", name)


@pytest.mark.engine
def test_tecnativas_acceptance_cases_hold_on_a_real_engine(
    real_engine, container, start_proxy, folder
):
    sections = {
        name: f"policy = {'linuxserver' if name == 'restarter' else 'tecnativa'}\n"
        + words.replace(" ", "\n")
        for name, (words, _, _) in ACCEPTANCE.items()
    }
    proxy = start_proxy(real_engine.host, *configuration(folder, sections))
    for name, (_, admitted, refused) in ACCEPTANCE.items():
        for command, passes in [(command, True) for command in admitted] + [
            (command, False) for command in refused
        ]:
            run = real_engine.docker(
                *command.replace("NAME", container).split(),
                host=f"unix://{folder}/{name}.sock",
                check=False,
            )
            said = (run.stdout + run.stderr).decode()
            assert (
                "dockeraudit: " in said and " is refused by " in said and "=1" in said
            ) is not passes, (name, command, said)
            assert run.returncode == 0 or not passes, (name, command, said)
    wait_for(
        lambda: (
            {record["client"]["listener"] for record in proxy.records("denied")} == set(ACCEPTANCE)
        ),
        "each listener's refusals",
    )
    assert all(record["client"]["uid"] == 0 for record in proxy.records("denied"))
    assert real_engine.docker("exec", container, "echo", "alive").stdout == b"alive\n"


# ================================================================================================
# the requests of real clients
# ================================================================================================

#: C is a running container, I its image, N nothing at all: what would change something gets 400 or
#: 404 from the engine
CLIENTS = {
    "traefik": (
        "HEAD /_ping; GET /v1.24/version; GET /v1.24/containers/json?limit=0; GET "
        "/v1.24/containers/C/json; GET /v1.24/events?since=1&until=2"
    ),
    "dozzle": (
        "HEAD /_ping; GET /v1.41/info; GET /v1.41/containers/json?all=1; GET "
        "/v1.41/containers/C/json; GET /v1.41/containers/N/stats?stream=0;GET "
        "/v1.41/containers/C/logs?stdout=1&stderr=1&timestamps=1; GET "
        "/v1.41/events?since=1&until=2"
    ),
    "watchtower": (
        "HEAD /_ping; GET /v1.41/containers/json; GET /v1.41/containers/C/json; GET "
        "/v1.41/images/I/json; POST /v1.41/images/create?fromImage=N%20;POST "
        "/v1.41/containers/N/kill?signal=SIGTERM; DELETE /v1.41/containers/N?force=1; POST "
        "/v1.41/containers/create; POST /v1.41/networks/N/connect;POST "
        "/v1.41/networks/N/disconnect; POST /v1.41/containers/N/start; POST "
        "/v1.41/containers/N/rename?name=M; DELETE /v1.41/images/N"
    ),
    "portainer": (
        "GET /_ping; GET /version; GET /info; GET /system/df; GET /containers/json?all=1; GET "
        "/containers/C/json; GET /containers/N/stats?stream=0;GET /containers/C/top; GET "
        "/containers/C/logs?stdout=1; GET /containers/C/changes; GET /images/json; GET "
        "/images/I/json; GET /images/I/history;GET /volumes; GET /networks; GET /plugins; GET "
        "/events?since=1&until=2; POST /containers/create; POST /containers/N/start; POST "
        "/containers/N/stop;POST /containers/N/restart; POST /containers/N/kill; POST "
        "/containers/N/pause; POST /containers/N/unpause; DELETE "
        "/containers/N?v=1&force=1;POST /containers/N/exec; POST /exec/N/start; POST "
        "/exec/N/resize?h=1&w=1; POST /containers/N/attach; POST "
        "/images/create?fromImage=N%20;POST /networks/create; DELETE /networks/N; POST "
        "/volumes/create; DELETE /volumes/N; DELETE /images/N; POST /commit?container=N; POST "
        "/auth"
    ),
    "ci": (
        "GET /_ping; GET /v1.41/version; GET /v1.41/info; GET /v1.41/images/I/json; POST "
        "/v1.41/images/create?fromImage=N%20; POST /v1.41/volumes/create;POST "
        "/v1.41/networks/create; POST /v1.41/containers/create; POST "
        "/v1.41/containers/N/attach?stream=1; POST /v1.41/containers/N/start;POST "
        "/v1.41/containers/N/wait; POST /v1.41/containers/N/kill; DELETE "
        "/v1.41/containers/N?force=1; GET /v1.41/containers/C/logs?stdout=1;POST "
        "/v1.41/containers/N/exec; POST /v1.41/exec/N/start; GET /v1.41/exec/N/json; PUT "
        "/v1.41/containers/N/archive?path=/;HEAD /v1.41/containers/C/archive?path=/etc; "
        "DELETE /v1.41/networks/N; DELETE /v1.41/volumes/N; POST /v1.41/session; POST "
        "/v1.41/auth"
    ),
}
LEARNED = {
    "traefik": "CONTAINERS",
    "dozzle": "CONTAINERS INFO ALLOW_LOGS",
    "watchtower": "CONTAINERS IMAGES NETWORKS POST",
    "portainer": (
        "AUTH COMMIT CONTAINERS EXEC IMAGES INFO NETWORKS PLUGINS SYSTEM VOLUMES POST "
        "ALLOW_CHANGES ALLOW_LOGS ALLOW_TOP"
    ),
    "ci": (
        "AUTH CONTAINERS EXEC IMAGES INFO NETWORKS SESSION VOLUMES POST ALLOW_ARCHIVE ALLOW_LOGS"
    ),
}
#: what the Compose file of deploy/ for this client must refuse
REFUSED = {
    "traefik": (
        "POST /containers/C/restart; GET /images/json; GET /secrets; DELETE /containers/C; "
        "POST /exec/N/start; GET /containers/C/attach/ws"
    ),
    "dozzle": (
        "POST /containers/C/stop; GET /containers/C/archive?path=/; GET /containers/C/export; "
        "GET /images/json; POST /containers/create"
    ),
    "portainer": (
        "GET /secrets; POST /swarm/init; GET /containers/C/export; GET /swarm/unlockkey; POST "
        "/services/create"
    ),
    "ci": (
        "POST /swarm/init; GET /secrets; POST /plugins/pull; GET /containers/C/export; GET /nodes"
    ),
}


def requests_of(text, container):
    """(method, target) of a list of requests."""
    words = [request.split() for request in text.split(";")]
    return [
        (method, re.sub(r"(?<=/)C(?=/|$)", container, re.sub(r"(?<=/)I(?=/)", "busybox", target)))
        for method, target in words
    ]


def ask(path, method, target):
    """(status, body) of one request; one that would change something has an unusable body."""
    connection = UnixHTTPConnection(path, 60)
    try:
        reading = method in ("GET", "HEAD")
        connection.request(
            method,
            target,
            None if reading else b"[",
            {} if reading else {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def refusals(folder, listener, requests):
    """The requests that a listener refused; those that read a container must have worked."""
    refused = []
    for method, target in requests:
        status, body = ask(f"{folder}/{listener}.sock", method, target)
        if status == 403 and (b"dockeraudit: " in body or method == "HEAD"):
            refused.append((method, target))
        else:
            assert (
                status < 300
                if method in ("GET", "HEAD") and "/N/" not in target
                else status in (101, 200, 400, 404, 500)
            ), (target, status, body)
    return refused


def compose_environment(client):
    """The environment that a Compose file of deploy/ gives to the proxy, as Compose reads it."""
    command = [
        "docker",
        "compose",
        "-f",
        str(ROOT / "deploy" / f"docker-compose.{client}.yml"),
        "config",
        "--format",
        "json",
    ]
    run = subprocess.run(
        command, capture_output=True, timeout=60, env={**os.environ, "DOCKER_GID": "1"}, check=True
    )
    return json.loads(run.stdout)["services"]["dockeraudit"]["environment"]


def learned(*arguments):
    """What `dockeraudit learn` prints: variables, rules."""
    run = subprocess.run(
        [sys.executable, PROGRAM, "learn", *arguments], capture_output=True, timeout=60, check=True
    )
    lines = run.stdout.decode().splitlines()
    return [line[:-2] for line in lines if line.endswith("=1")], [
        line for line in lines if line.startswith("allow = ")
    ]


@pytest.mark.engine
def test_learned_settings_admit_each_client_and_nothing_can_be_left_out(
    real_engine, container, start_proxy, folder
):
    requests = {client: requests_of(text, container) for client, text in CLIENTS.items()}
    learning = start_proxy(
        real_engine.host, *configuration(folder, dict.fromkeys(CLIENTS, ""), "mode = learn")
    )
    for client in CLIENTS:
        assert refusals(folder, client, requests[client]) == []
    assert (
        learning.stop() == 0 and not learning.records("denied") and learning.records("would_deny")
    )
    sections = {}
    for client in CLIENTS:
        names, rules = learned("--listener", client, str(learning.log))
        assert names == LEARNED[client].split()
        sections[client] = "policy = linuxserver\n" + "\n".join(f"{name} = 1" for name in names)
        sections[f"{client}-rules"] = "\n".join(rules)
        if (
            client == "dozzle"
        ):  # each line is needed: here for one client, in tests/test_learning.py for all traffic
            sections.update(
                {
                    f"{client}-no-{name}": sections[client].replace(f"{name} = 1", f"{name} = 0")
                    for name in names
                }
            )
            sections.update(
                {
                    f"{client}-no-{n}": "\n".join(rules[:n] + rules[n + 1 :])
                    for n in range(len(rules))
                }
            )
    start_proxy(real_engine.host, *configuration(folder, sections))
    for section in sections:
        client, _, without = section.partition("-")
        refused = refusals(folder, section, requests[client])
        assert bool(refused) == without.startswith("no-"), (section, refused)


@pytest.mark.engine
@pytest.mark.parametrize("client", REFUSED)
def test_the_compose_files_admit_their_clients_and_no_more(
    client, real_engine, container, start_proxy, folder
):
    environ = {name: str(value) for name, value in compose_environment(client).items()}
    start_proxy(real_engine.host, env=environ)
    assert refusals(folder, "proxy", requests_of(CLIENTS[client], container)) == []
    forbidden = requests_of(REFUSED[client], container)
    assert refusals(folder, "proxy", forbidden) == forbidden


# ================================================================================================
# listeners, clients and reloading, on the wire
# ================================================================================================


@pytest.fixture
def scripted(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


def test_a_refused_body_is_not_taken_for_the_next_request(scripted, start_proxy, folder):
    start_proxy(scripted.path, env={"DOCKERAUDIT_POLICY": "tecnativa"})
    hidden = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"
    for framing in (
        b"Content-Length: %d\r\n\r\n%b" % (len(hidden), hidden),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden),
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(folder / "proxy.sock"))
            sock.sendall(b"POST /containers/create HTTP/1.1\r\nHost: docker\r\n" + framing + hidden)
            data = b"".join(iter(lambda: sock.recv(65536), b""))
        assert data.count(b"HTTP/1.1 ") == 1 and data.startswith(b"HTTP/1.1 403 ")
        message = json.loads(data.partition(b"\r\n\r\n")[2])["message"]
        assert (
            message == "dockeraudit: POST /containers/create is refused by POST=0; "
            "it takes POST=1 CONTAINERS=1"
        )
    assert not any(head.startswith(b"GET /_ping") for head, _ in scripted.requests)


@pytest.mark.slow
def test_denied_records_say_who_what_and_how_often(scripted, start_proxy, folder):
    proxy = start_proxy(scripted.path, env={"CONTAINERS": "0", "DOCKERAUDIT_POLICY": "auto"})
    for _ in range(3):
        assert ask(f"{folder}/proxy.sock", "GET", "/v1.41/containers/json?all=1")[0] == 403
    denied = proxy.wait_records("denied")
    assert [(r["method"], r["path"], r["rule"], r["count"]) for r in denied] == [
        ("GET", "/containers/json", "CONTAINERS=0", 1)
    ]
    assert proxy.stop() == 0
    assert [record["count"] for record in proxy.records("denied")] == [1, 2], (
        "what was counted is written at the end"
    )
    client = denied[0]["client"]
    assert (client["uid"], client["pid"]) == (os.getuid(), os.getpid()) and client["command"]


@pytest.mark.slow
def test_the_policys_table_and_its_warnings_are_said_at_start(scripted, start_proxy):
    said = start_proxy(
        scripted.path, env={"DOCKERAUDIT_POLICY": "auto", "CONTAINERS": "yes", "ALLOW_TOP": "0"}
    ).errors.read_text()
    assert (
        "policy linuxserver: the first line that matches decides" in said
        and "CONTAINERS=1" in said
        and "ALLOW_TOP=0" in said
    )
    assert said.count("CONTAINERS=yes counts as 1 here") == 1


@pytest.mark.slow
def test_a_variable_without_a_policy_is_warned_of_at_start(scripted, start_proxy):
    said = start_proxy(scripted.path, env={"CONTAINERS": "1"}).errors.read_text()
    assert said.count("CONTAINERS is set but no policy is on") == 1


def test_sighup_rereads_rules_and_holds_open_connections_to_them(scripted, start_proxy, folder):
    options = configuration(folder, {"a": "allow = GET /version", "b": "allow-uid = 0"})
    proxy = start_proxy(scripted.path, *options)
    connection = UnixHTTPConnection(f"{folder}/a.sock", 20)

    def status(target):
        connection.request("GET", target)
        response = connection.getresponse()
        response.read()
        return response.status

    assert status("/version") == 200
    configuration(folder, {"a": "allow = GET /_ping", "b": "allow-uid = 4242"})
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "have been read again" in proxy.errors.read_text(), "the reload")
    assert status("/_ping") == 200 and status("/version") == 403
    connection.close()
    assert ask(f"{folder}/b.sock", "GET", "/_ping")[0] == 403
    assert "allow-uid = 0" in ask(f"{folder}/b.sock", "GET", "/_ping")[1].decode()

    (folder / "access.ini").write_text("[listener a]\nlisten = unix:///x\nallow = get /x\n")
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(
        lambda: "the rules in force stay as they are" in proxy.errors.read_text(), "the complaint"
    )
    assert "'allow = get /x' is no rule" in proxy.errors.read_text()
    assert (
        ask(f"{folder}/a.sock", "GET", "/_ping")[0] == 200
        and ask(f"{folder}/a.sock", "GET", "/version")[0] == 403
    )
    assert proxy.stop() == 0


@pytest.mark.slow
def test_a_changed_set_of_listeners_is_named(scripted, start_proxy, folder):
    proxy = start_proxy(scripted.path, *configuration(folder, {"a": "policy = off"}))
    configuration(folder, {"b": "policy = off"})
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "b.sock is new" in proxy.errors.read_text(), "the warning")
    assert "a.sock is no longer configured" in proxy.errors.read_text()
    assert ask(f"{folder}/a.sock", "GET", "/_ping")[0] == 200


@pytest.mark.slow
def test_an_address_outside_allow_from_is_refused_and_recorded(scripted, start_proxy, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = (
        f"[listener proxy]\nlisten = unix://{folder}/proxy.sock\n[listener tcp]\n"
        f"listen = tcp://127.0.0.1:{port}\nallow-from = 127.0.0.2, 10.0.0.0/8\n"
    )
    (folder / "tcp.ini").write_text(text)
    proxy = start_proxy(scripted.path, "--config", str(folder / "tcp.ini"))

    def status(source):
        with socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0)) as sock:
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
            return sock.recv(65536)

    assert status("127.0.0.2").startswith(b"HTTP/1.1 200") and status("127.0.0.3").startswith(
        b"HTTP/1.1 403"
    )
    denied = proxy.wait_records("denied")[0]
    assert (
        denied["client"] == {"listener": "tcp", "address": "127.0.0.3"}
        and denied["rule"] == "allow-from"
    )


# ================================================================================================
# what the policy knows of a request beyond its path
# ================================================================================================


def test_a_version_that_only_podman_serves_passes_only_to_podman(scripted, start_proxy, folder):
    path, target = f"{folder}/proxy.sock", "/v4.0.0-rc1/containers/web/json"
    policy = {"DOCKERAUDIT_POLICY": "tecnativa", "CONTAINERS": "1"}
    proxy = start_proxy(scripted.path, env=policy)
    status, body = ask(path, "GET", target)
    assert status == 403 and b"only Podman serves" in body
    assert proxy.wait_records("denied")[0]["rule"] == "version"
    assert proxy.stop() == 0
    scripted.routes["/version"] = json_answer({"Components": [{"Name": "Podman Engine"}]})
    start_proxy(scripted.path, env=policy)
    assert ask(path, "GET", target)[0] == 404, "it has reached the engine"


def test_an_attach_that_asks_for_the_log_needs_allow_logs(scripted, start_proxy, folder):
    policy = {"DOCKERAUDIT_POLICY": "linuxserver", "CONTAINERS": "1", "POST": "1"}
    proxy = start_proxy(scripted.path, env=policy)
    attach = "/containers/web/attach?stream=1"
    assert ask(proxy.socket, "POST", attach)[0] == 404, "it has reached the engine"
    for target in (
        f"{attach}&logs=1",
        f"{attach}&logs=0&LOGS=yes",
        "/containers/web/%61ttach?logs=1",
    ):
        status, body = ask(proxy.socket, "POST", target)
        assert status == 403 and b"ALLOW_LOGS=1" in body, target
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(proxy.socket)
        sock.sendall(
            b"POST /containers/web/attach?stream=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 6\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nlogs=1"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 403"), "the engine reads a form's fields too"


# ================================================================================================
# users and groups
# ================================================================================================

#: as a user with these groups: the status of one request to a Unix socket
AS_SOMEBODY = """
import os, socket, sys
path, groups, gid, uid = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.setgroups(list(groups)); os.setgid(gid); os.setuid(uid)
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(20)
    sock.connect(path)
    sock.sendall(b"GET /_ping HTTP/1.0\\r\\n\\r\\n")
    print(sock.recv(4096).split()[1].decode())
"""


@pytest.mark.root
@pytest.mark.parametrize(
    "groups, gid, status",
    [
        ("[4243, 4242]", 1000, "200"),
        ("[]", 4242, "200"),
        ("[4243]", 1000, "403"),
        ("[*range(10_000, 10_600), 4242]", 1000, "200"),
        ("range(10_000, 10_600)", 1000, "403"),
    ],
)
def test_allow_gid_counts_all_groups_of_a_client(
    scripted, start_proxy, folder, groups, gid, status
):
    os.chmod(folder, 0o755)
    proxy = start_proxy(scripted.path, "--allow-gid", "4242", "--socket-mode", "666")
    command = [sys.executable, "-c", AS_SOMEBODY, proxy.socket, groups, str(gid), "3000000000"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().strip() == status
    if status == "403":
        client = proxy.wait_records("denied")[0]["client"]
        assert (client["uid"], client["gid"]) == (3000000000, gid) and "groups" not in client
