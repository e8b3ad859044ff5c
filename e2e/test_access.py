"""Access control beside what it replaces: HAProxy's own decisions, Tecnativa's acceptance cases, and real clients' requests."""
from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from scripted import ScriptedEngine

import policy
from conftest import wait_for
from dockeraudit import classify

# =====================================================================================================================
# the truth table: HAProxy under a configuration written from the semantics
# =====================================================================================================================

CONTAINER = (
    "json top logs changes export stats resize start stop restart kill update rename pause unpause attach attach/ws wait archive exec copy "
    "checkpoints checkpoints/c"
).split()
LIBPOD = (
    "_ping version info events containers/json containers/x/json containers/x/logs containers/x/start containers/x/stop containers/x/restart "
    "containers/x/kill containers/x/pause containers/x/unpause containers/x/exec exec/x/start generate/x/systemd images/json images/pull "
    "manifests/x/json networks/json play/kube pods/json pods/x/start pods/x/stop pods/x/restart pods/x/kill pods/x/pause pods/x/unpause "
    "secrets/json system/df volumes/json"
).split()
ENDPOINTS = [
    *(f"/containers/x/{what}" for what in CONTAINER),
    *"/containers/json /containers/create /containers/prune /containers/x /exec/x/start /exec/x/resize /exec/x/json".split(),
    *"/images/json /images/create /images/search /images/prune /images/get /images/load /images/x /images/x/json /images/x/history".split(),
    *"/images/x/push /images/x/tag /images/x/get /images/host:5000/a/b/json /build /build/prune /build/cancel /session /grpc /commit".split(),
    *"/auth /info /version /_ping /events /system/df /networks /networks/x /networks/create /networks/x/connect /networks/x/disconnect".split(),
    *"/networks/prune /volumes /volumes/x /volumes/create /volumes/prune /swarm /swarm/init /swarm/join /swarm/leave /swarm/update".split(),
    *"/swarm/unlockkey /swarm/unlock /nodes /nodes/x /nodes/x/update /services /services/create /services/x /services/x/update".split(),
    *"/services/x/logs /tasks /tasks/x /tasks/x/logs /secrets /secrets/create /secrets/x /secrets/x/update /configs /configs/create".split(),
    *"/configs/x /configs/x/update /plugins /plugins/privileges /plugins/pull /plugins/x /plugins/x/json /plugins/x/enable".split(),
    *"/plugins/x/disable /plugins/x/upgrade /plugins/create /plugins/x/push /plugins/x/set /distribution/x/json".split(),
    *(f"/libpod/{what}" for what in LIBPOD),
]
#: the same things spelled otherwise, and what only looks like them
SPELLINGS = [
    *"/v1.41/containers/json /v1.51/containers/x/logs /v1%2e51/containers/x/logs /v01.51/containers/x/kill /v1.51.0/images/json".split(),
    *"/%63ontainers/json /containers/x%2Flogs /containers/x/%6cogs /containers/parent/alias/logs /containers/parent/alias/start".split(),
    *"/CONTAINERS/json /Containers/x/Start /containersx/json /infox /versions /v1.41/v1.41/containers/json /v1.41/containers/v1/stop".split(),
    *"/containers/x/stop/attach /containers/x/start/json /containers/x/kill/archive /containers/x/pausex /containers/x/logsx".split(),
    *"//containers/json /containers//json /containers/x//logs /version/../containers/json /events/%2e%2e/images/json /a/../containers/json".split(),
    *"/ /post /unheard/of /images/containers/json http://docker/containers/x/logs http://docker/v1.41/version /v4.0.0-rc1/libpod/pods/json".split(),
    *"/containers/a%20b/start /containers/a%2Fb/stop /libpod/containers/a/b/logs /containers/x/start/ /containers/x/start?t=1 /version?x=/containers".split(),
]
TARGETS = ENDPOINTS + SPELLINGS
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
NAME = "[a-zA-Z0-9_.-]+"


def test_there_are_enough_endpoints():
    assert len(set(ENDPOINTS)) == len(ENDPOINTS) >= 120


def rule(action, path, value, negated=False):
    """One http-request rule of HAProxy on the decoded path, after an optional version, for a variable's value."""
    return f"    http-request {action} if {{ path,url_dec -m reg -i ^(/v[0-9.]+)?{path} }} {'!' if negated else ''}{{ str({value}) -m bool }}"


def haproxy_rules(mode, values):
    """The semantics of the variables, in the order of the mode's original."""
    gate = f"    http-request deny unless METH_GET or {{ str({values['POST']}) -m bool }}"
    actions = [
        rule("allow", f"{base}/{NAME}/({'|'.join(verbs)})", values[name]) for name, (base, verbs) in policy.ACTIONS.items() if name in values
    ]
    sections = [rule("allow", policy.section_path(name), values[name]) for name in policy.SECTIONS + policy.LIBPOD_SECTIONS if name in values]
    if mode == "tecnativa":
        return [gate, *actions, *sections]
    readers = [rule("deny", f"/containers/{NAME}/{verbs[0]}", values[name], negated=True) for name, verbs in policy.READERS.items()]
    return [*readers, *actions, gate, *sections]


def haproxy_configuration(folder, mode, combinations):
    """One frontend for each combination of values; what a frontend admits is answered with 200."""
    lines = ["global", "    maxconn 4000", "    nbthread 1", "defaults", "    mode http", "    timeout client 60s", "    timeout connect 5s", "    timeout server 60s"]
    for number, on in enumerate(combinations):
        values = {name: int(name in on) for name in names_of(mode)}
        lines += [f"frontend f{number}", f"    bind unix@{folder}/{number}.sock", *haproxy_rules(mode, values)]
        lines += ["    http-request deny", "    default_backend engine"]
    return "\n".join([*lines, "backend engine", "    http-request return status 200 content-type text/plain string ok", ""])


def names_of(mode):
    """The variables that a mode has."""
    return [name for name in policy.SWITCHES if mode == "linuxserver" or name not in policy.LINUXSERVER_ONLY]


def combinations_of(mode, samples, full=False):
    """None, all, each variable alone; seeded samples; in full also each with POST and all but one."""
    names, rng = names_of(mode), random.Random(2018)
    found = [frozenset(), frozenset(names), *(frozenset({name}) for name in names)]
    found += [frozenset(rng.sample(names, rng.randrange(2, len(names)))) | {"POST"} for _ in range(samples)]
    if full:
        found += [frozenset({name, "POST"}) for name in names] + [frozenset(names) - {name} for name in names]
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
    return b"\r\n\r\n" in data and (batch[-1].startswith(b"HEAD") or length is not None and len(body) >= int(length[1]))


def request_bytes(method, target):
    return f"{method} {target} HTTP/1.1\r\nHost: docker\r\n\r\n".encode()


ACTION = re.compile(r"(?:/libpod)?/(?:containers|pods)/[^/]+/(?:stop|restart|kill|start|pause|unpause)", re.I)
READER = re.compile(r"(?:/libpod)?/containers/.+/(archive|copy|changes|export|logs|top)", re.I)


def by_an_action_alone(on, method, path):
    """HAProxy admits it because an action's variable is on, and it is not POST of exactly that action."""
    return bool(ACTION.match(path)) and any("ALLOW" in name for name in on) and not (method == "POST" and ACTION.fullmatch(path))


def by_an_unguarded_reader(on, method, path):
    """HAProxy's pattern for a reader's variable, which is off, does not cover this spelling of the same thing."""
    reader = READER.match(policy.cleaned(path))
    word = reader[1].upper().replace("COPY", "ARCHIVE") if reader else ""
    return bool(reader) and f"ALLOW_{word}" not in on and not re.match(rf"/containers/{NAME}/{word}", path, re.I)


#: why ours refuses what HAProxy admits. A cell that none explains fails the test, and so does a reason without a cell.
STRICTER = {
    "an action's variable admits POST of exactly the action": by_an_action_alone,
    "a reader's variable refuses behind a link, under /libpod, and under archive's old name": by_an_unguarded_reader,
    "a WebSocket attach writes to the container, so it needs POST=1": lambda on, method, path: (
        method in ("GET", "HEAD") and path.endswith("/attach/ws") and "POST" not in on
    ),
    "a path must be admitted as the engine's redirect cleans it, too": lambda on, method, path: policy.cleaned(path) != path,
}
#: why ours admits what HAProxy refuses
LAXER = {
    "Podman's versions such as v4.0.0-rc1 are versions": lambda on, method, target: target.startswith("/v4.0.0-rc1/"),
}


def compare(folder, mode, combinations):
    """HAProxy's decisions beside ours: (cells, cells by explanation), and what nothing explains."""
    (folder / "haproxy.cfg").write_text(haproxy_configuration(folder, mode, combinations))
    process = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (folder / f"{len(combinations) - 1}.sock").exists() or process.poll() is not None, "HAProxy")
        assert process.poll() is None
        cells = list(itertools.product(METHODS, TARGETS))
        requests = [request_bytes(*cell) for cell in cells]
        paths = {target: classify(b"GET", target.encode()).path for target in TARGETS}
        explained, unexplained = dict.fromkeys([*STRICTER, *LAXER], 0), []
        for number, on in enumerate(combinations):
            theirs = statuses(str(folder / f"{number}.sock"), requests)
            chosen = policy.CompatiblePolicy(on, mode == "linuxserver")
            assert len(theirs) == len(cells) and set(theirs) <= {200, 403}
            for (method, target), status in zip(cells, theirs):
                ours = chosen.decide(method, paths[target]).allowed
                if ours == (status == 200):
                    continue
                reasons = STRICTER if not ours else LAXER
                key = next((name for name, explains in reasons.items() if explains(on, method, target if ours else paths[target])), None)
                if key is None:
                    unexplained.append((sorted(on), method, target, "ours admits" if ours else "ours refuses"))
                else:
                    explained[key] += 1
        return len(cells) * len(combinations), explained, unexplained
    finally:
        process.terminate()
        process.wait()


def check_table(folder, mode, combinations, record):
    cells, explained, unexplained = compare(folder, mode, combinations)
    print(f"{mode}: {len(combinations)} combinations, {cells} cells, {sum(explained.values())} differences")
    for name, count in explained.items():
        print(f"  {count:7}  {name}")
    assert not unexplained, unexplained[:10]
    idle = [name for name, count in explained.items() if not count]
    assert not idle or mode == "tecnativa" and all("reader" in name or "Podman" in name for name in idle), idle
    record("cells", cells)


needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed (e2e/run installs it)")


@pytest.mark.engine
@needs_haproxy
@pytest.mark.parametrize("mode", ["tecnativa", "linuxserver"])
def test_haproxy_decides_the_same(folder, mode, record_property):
    check_table(folder, mode, combinations_of(mode, 8), record_property)


@pytest.mark.full
@needs_haproxy
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", ["tecnativa", "linuxserver"])
def test_haproxy_decides_the_same_in_full(folder, mode, record_property):
    check_table(folder, mode, combinations_of(mode, 400, full=True), record_property)


@pytest.mark.engine
@needs_haproxy
def test_haproxy_takes_words_for_zero(folder):
    """The one difference that is announced: `true` and `yes` count here."""
    values = {name: "true" for name in names_of("tecnativa")}
    text = haproxy_configuration(folder, "tecnativa", [frozenset()])
    lines = text[: text.index("    http-request")].splitlines() + haproxy_rules("tecnativa", values) + text[text.index("    http-request deny\n") :].splitlines()
    (folder / "haproxy.cfg").write_text("\n".join([*lines, ""]))
    process = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / "0.sock").exists, "HAProxy")
        assert statuses(str(folder / "0.sock"), [request_bytes("GET", "/_ping"), request_bytes("GET", "/containers/json")]) == [403, 403]
    finally:
        process.terminate()
        process.wait()
    ours, warnings = policy.policy_from_environment(values, "auto")
    assert ours.decide("GET", "/containers/json").allowed and len(warnings) == len(values)
