"""Scope on real engines: nothing of another team's container is had, and all of one's own is.

Two teams' containers run. Every route of the API is asked for the other team's container, by its
name, its id, a prefix of it and its exec, in many spellings, through a listener with the scope of
the first team: no answer holds a marker of it, and it stays as it was.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from clients import Terminal
from raw import Answer, api, ask
from test_bypass import HEADS, spell

from conftest import ProxyProcess, RealEngine, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PREFIX = f"scope-{os.getpid()}"
TEAM = f"{PREFIX}-team"  # a label
MARK = f"mark{os.getpid()}of"  # in the other team's label, environment, command, output
START = "HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
#: every route of the API that a container, an exec, or anything of Swarm's is named in, and those
#: that list containers or tell of them. {} is the container, {exec} its exec. Left out are those
#: that would remove what other users of this engine need.
ROUTES = [
    "GET /containers/json?all=1&size=1",
    "GET /containers/ps?all=1",
    "GET /containers/json?all=1&filters=%7B%22id%22%3A%5B%22{}%22%5D%7D",
    "GET /containers/json?all=1&filters=%7B%22name%22%3A%7B%22{}%22%3Atrue%7D%7D",
    "GET /containers/json?all=1&filters=%7B%22before%22%3A%5B%22{}%22%5D%7D",
    "GET /containers/json?all=1&filters=%7B%22since%22%3A%5B%22{}%22%5D%7D",
    "GET /containers/json?all=1&since={}&before={}",
    "GET /containers/json?all=1&filters=%7B%7D&filters=%7B%22id%22%3A%5B%22{}%22%5D%7D",
    "GET /containers/json?all=1&Filters=%7B%22id%22%3A%5B%22{}%22%5D%7D",
    "GET /containers/{}/json?size=1",
    "GET /containers/{}/top",
    "GET /containers/{}/top?ps_args=-eo%20args,pid",
    "GET /containers/{}/logs?stdout=1&stderr=1",
    "GET /containers/{}/changes",
    "GET /containers/{}/export",
    "GET /containers/{}/stats?stream=0",
    "GET /containers/{}/stats?stream=0&one-shot=1",
    "POST /containers/{}/resize?h=1&w=1",
    "POST /containers/{}/start",
    "POST /containers/{}/stop?t=0",
    "POST /containers/{}/restart?t=0",
    "POST /containers/{}/kill",
    "POST /containers/{}/update",
    "POST /containers/{}/rename?name=" + PREFIX + "-stolen",
    "POST /containers/{}/pause",
    "POST /containers/{}/unpause",
    "POST /containers/{}/attach?logs=1&stdout=1&stderr=1",
    "GET /containers/{}/attach/ws?logs=1&stdout=1",
    "POST /containers/{}/wait?condition=next-exit",
    "DELETE /containers/{}?force=1",
    "DELETE /containers/{}?link=1",
    "HEAD /containers/{}/archive?path=/etc/hostname",
    "GET /containers/{}/archive?path=/etc",
    "PUT /containers/{}/archive?path=/tmp",
    "POST /containers/{}/copy",
    "POST /containers/{}/exec",
    "GET /containers/{}/checkpoints",
    "POST /containers/{}/checkpoints",
    "DELETE /containers/{}/checkpoints/x",
    "POST /containers/create?name={}",
    "GET /exec/{exec}/json",
    "POST /exec/{exec}/start",
    "POST /exec/{exec}/resize?h=1&w=1",
    "POST /commit?container={}&repo=" + PREFIX + "-stolen",
    "GET /events?since=1&until=2",
    "GET /events?since=1&until={now}",
    "GET /events?since=1&until={now}&filters=%7B%22container%22%3A%5B%22{}%22%5D%7D",
    "GET /events?since=1&until={now}&filters=%7B%22type%22%3A%5B%22network%22%5D%7D",
    "GET /events?since=1&until={now}&filters=%7B%22type%22%3A%7B%22volume%22%3Atrue%7D%7D",
    "GET /networks",
    "GET /networks/none",
    "GET /networks/none?verbose=true",
    "POST /networks/none/connect",
    "POST /networks/none/disconnect",
    "GET /system/df",
    "GET /system/df?type=container",
    "GET /info",
    "GET /version",
    "GET /images/json?all=1&shared-size=1",
    "GET /images/json?manifests=1",
    "GET /images/" + PREFIX + "-committed/json",
    "GET /images/" + PREFIX + "-committed/history",
    "GET /volumes",
    "GET /volumes/" + PREFIX + "-volume",
    "DELETE /volumes/" + PREFIX + "-volume",
    "DELETE /images/" + PREFIX + "-committed",
    "GET /services",
    "GET /services/{}",
    "GET /services/{}/logs?stdout=1",
    "GET /tasks",
    "GET /tasks/{}",
    "GET /tasks/{}/logs?stdout=1",
    "GET /nodes",
    "GET /nodes/{}",
    "GET /swarm",
    "GET /swarm/unlockkey",
    "GET /secrets",
    "GET /configs/{}",
    "GET /plugins",
    "GET /plugins/{}/json",
    "POST /plugins/{}/enable",
    "GET /distribution/{}/json",
    "POST /session",
    "POST /grpc",
    "GET /libpod/containers/{}/json",
    "GET /libpod/containers/json?all=1",
    "OPTIONS /containers/{}/json",
    "PATCH /containers/{}/json",
    "CONNECT /containers/{}/json",
]
#: bodies that name the other container, by the route that reads them
BODIES = {
    "POST /networks/none/connect": [{"Container": "{}"}, {"container": "{}"}],
    "POST /networks/none/disconnect": [{"Container": "{}", "Force": True}],
    "POST /containers/create?name=" + PREFIX + "-new": [
        {"HostConfig": {"NetworkMode": "container:{}"}},
        {"hostconfig": {"networkmode": "container:{}"}},
        {"HostConfig": {"NetworkMode": "none", "IpcMode": "container:{}"}},
        {"HostConfig": {"NetworkMode": "none", "PidMode": "container:{}"}},
        {"HostConfig": {"NetworkMode": "none", "VolumesFrom": ["{}"]}},
        {"HostConfig": {"NetworkMode": "none", "VolumesFrom": ["{}:ro"]}},
        {"HostConfig": {"NetworkMode": "none", "volume\u017ffrom": ["{}"]}},
        {"NetworkMode": "none", "VolumesFrom": ["{}"]},
        {"HostConfig": {"Links": ["{}:other"]}},
        {"HostConfig": {"Lin\u212as": ["/{}:/x/other"]}},
    ],
}


class Teams(NamedTuple):
    """An engine with a container of either team, and an exec of the other's."""

    engine: RealEngine
    mine: str
    other: str
    exec: str
    source: str  # of a committed image; it has no mark, since images are everybody's

    def markers(self, asked: str) -> list[bytes]:
        """What no answer may hold, unless the client has said it itself."""
        own = [MARK, self.other[:12], f"{PREFIX}-other", self.source[:12]]
        return [text.encode() for text in own if text not in urllib.parse.unquote(asked)]

    def told(self, asked: str, answer: Answer) -> list[bytes]:
        """The markers that an answer holds."""
        return [mark for mark in self.markers(asked) if mark in answer.head + answer.body]

    def state(self) -> Any:
        """What of the other's container must stay as it was."""
        said = api(self.engine.socket, "GET", f"/containers/{self.other}/json")
        networks = said["NetworkSettings"]["Networks"]
        kept = [said["Name"], said["State"]["StartedAt"], said["State"]["Status"], networks]
        return [*kept, said["ExecIDs"]]


def container(engine: RealEngine, name: str, team: str, mark: str, *binds: str) -> str:
    """A running container of a team."""
    config = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", f"echo {mark} said; exec sleep 900"],
        "Env": [f"WHO={mark}"],
        "Labels": {TEAM: team, **({"more": mark} if mark else {})},
        "HostConfig": {"NetworkMode": "none", "Binds": list(binds)},
        "StopSignal": "SIGKILL",
    }
    made: str = api(engine.socket, "POST", f"/containers/create?name={PREFIX}-{name}", config)["Id"]
    for _attempt in range(5):  # a busy engine fails to start a container now and then
        if ask(engine.socket, f"POST /containers/{made}/start HTTP/1.0\r\n\r\n".encode()).status:
            break
    state = lambda: api(engine.socket, "GET", f"/containers/{made}/json")["State"]["Running"]
    wait_for(state, f"{name} runs")
    return made


@pytest.fixture
def teams(real_engine: RealEngine) -> Iterator[Teams]:
    """Two teams, and what the other one has: a volume, an image that was committed."""
    volume, committed = f"{PREFIX}-volume", f"{PREFIX}-committed"
    try:
        other = container(real_engine, "other", "b", MARK, f"{volume}:/data")
        mine = container(real_engine, "mine", "a", "fine")
        config = {"Cmd": ["echo", MARK], "AttachStdout": True}
        run = api(real_engine.socket, "POST", f"/containers/{other}/exec", config)["Id"]
        source = container(real_engine, "source", "b", "plain")
        api(real_engine.socket, "POST", f"/commit?container={source}&repo={committed}")
        yield Teams(real_engine, mine, other, run, source)
    finally:
        names = [f"{PREFIX}-{name}" for name in ("other", "mine", "source", "new", "made")]
        real_engine.docker("rm", "-f", "-v", *names, check=False)
        real_engine.docker("volume", "rm", "-f", volume, check=False)
        real_engine.docker("rmi", "-f", committed, f"{PREFIX}-stolen", check=False)
        real_engine.docker("image", "prune", "-f", "--filter", f"label={TEAM}")


def requests_of(teams: Teams, times: int) -> Iterator[tuple[str, bytes]]:
    """Requests for the other team's container: (what was asked, its bytes)."""
    now = str(int(time.time()))
    for route in ROUTES:
        method, _, target = route.partition(" ")
        path, mark, query = target.partition("?")
        for number in range(times):
            rng = random.Random(f"{route}{number}")
            name = rng.choice([teams.other, teams.other[:12], f"{PREFIX}-other"])
            filled = [
                text.replace("{exec}", teams.exec).replace("{now}", now).replace("{}", name)
                for text in (path, query)
            ]
            spelled = filled[0] if number == 0 else spell(rng, filled[0])
            head = START if number == 0 else rng.choice(HEADS)
            asked = f"{method} {spelled}{mark}{filled[1]}"
            yield asked, f"{asked} {head}\r\n".encode("latin-1")


@pytest.mark.parametrize("scope", ["label", "words"])
@pytest.mark.parametrize("times", [16, pytest.param(310, marks=pytest.mark.full)])
def test_no_spelling_of_any_route_tells_of_another_teams_container(
    teams: Teams, start_proxy: Any, scope: str, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"label": f"label={TEAM}=a", "words": f"name={PREFIX}-m*,label={TEAM}=none"}
    proxy = start_proxy(teams.engine.socket, "--scope", words[scope])
    before, statuses, told_directly = teams.state(), Counter[int](), 0
    for number, (asked, request) in enumerate(requests_of(teams, times)):
        answer = ask(proxy.socket, request)
        assert not teams.told(asked, answer) and answer.ended, (asked, answer)
        statuses[answer.status] += 1
        if number % times < 3 and asked.startswith("GET ") and "stats" not in asked:
            told_directly += bool(teams.told(asked, ask(teams.engine.socket, request)))
    assert teams.state() == before
    assert statuses[200] > 10 and statuses[404] > 100 and told_directly > 20
    with capsys.disabled():
        print(
            f"\nengine {teams.engine.version}, scope {scope}: {sum(statuses.values())} requests, "
            f"{len(ROUTES)} routes, 0 told of the other's; "
            f"answers {dict(sorted(statuses.items()))}; "
            f"of some of them {told_directly} tell of it directly"
        )


def with_json(method: str, target: str, value: Any) -> bytes:
    """A request with a JSON body."""
    body = json.dumps(value).encode()
    fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{method} {target} {START}{fields}\r\n".encode() + body


@pytest.mark.parametrize("route", BODIES)
def test_no_body_names_another_teams_container(teams: Teams, start_proxy: Any, route: str) -> None:
    proxy, before = start_proxy(teams.engine.socket, "--scope", f"label={TEAM}=a"), teams.state()
    method, _, target = route.partition(" ")
    for template in BODIES[route]:
        for name in (teams.other, teams.other[:12], f"{PREFIX}-other"):
            body = json.loads(json.dumps(template).replace("{}", name))
            if "create" in route:
                body["Image"] = "busybox"
            answer = ask(proxy.socket, with_json(method, target, body))
            assert answer.status in (400, 404), (body, answer)
            assert f"No such container: {name}".encode() in answer.body, (body, answer)
    assert teams.state() == before


def test_a_form_in_a_body_names_nothing(teams: Teams, start_proxy: Any) -> None:
    proxy = start_proxy(teams.engine.socket, "--scope", f"label={TEAM}=a")
    form = f"container={teams.other}&repo={PREFIX}-stolen".encode()
    kind = "Content-Type: application/x-www-form-urlencoded\r\n"
    head = f"POST /commit?container={teams.mine} {START}{kind}Content-Length: {len(form)}\r\n\r\n"
    assert ask(proxy.socket, head.encode() + form).status == 403
    assert (
        ask(proxy.socket, b"GET /images/%b-stolen/json HTTP/1.0\r\n\r\n" % PREFIX.encode()).status
        == 404
    )


def scoped_docker(teams: Teams, proxy: ProxyProcess) -> Callable[..., str]:
    """The docker CLI through the proxy; returns what it prints."""

    def docker(*arguments: str, **keywords: Any) -> str:
        run = teams.engine.docker(*arguments, host=f"unix://{proxy.socket}", **keywords)
        return (run.stdout + run.stderr).decode()

    return docker


def environment(proxy: ProxyProcess) -> dict[str, str]:
    """The environment of a client of the proxy."""
    return {**os.environ, "DOCKER_HOST": f"unix://{proxy.socket}"}


@pytest.mark.parametrize("scope", ["label", "own and label"])
def test_everything_works_in_scope(
    teams: Teams, start_proxy: Any, scope: str, folder: Path
) -> None:
    words = f"label={TEAM}=a" + (",own" if scope != "label" else "")
    proxy = start_proxy(teams.engine.socket, "--scope", words)
    docker, mine, made = scoped_docker(teams, proxy), f"{PREFIX}-mine", f"{PREFIX}-made"
    script = "echo made says; echo kept > /file; exec sleep 900"
    docker("run", "-d", "--network", "none", "--name", made, "busybox", "sh", "-c", script)
    assert docker("ps", "--format", "{{.Names}}").split() == [made, mine]
    assert docker("ps", "-q", "--filter", f"name={made}", "--no-trunc").strip() != teams.mine
    assert docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"since={mine}").split() == [
        made
    ]
    assert docker("logs", made) == "made says\n"
    assert docker("exec", "-i", made, "cat", stdin=b"typed") == "typed"
    assert docker("inspect", "-f", "{{.Name}}", made[:]).strip() == f"/{made}"
    assert docker("inspect", "-f", "{{.Name}}", teams.mine[:12]).strip() == f"/{mine}"
    assert "No such object" in docker("inspect", f"{PREFIX}-other", check=False)
    assert "sleep 900" in docker("top", made) and made in docker("stats", "--no-stream", made)
    docker("cp", f"{made}:/file", str(folder / "file"))
    assert (folder / "file").read_text() == "kept\n"
    docker("cp", str(folder / "file"), f"{made}:/copied")
    assert "A /copied" in docker("diff", made)
    with Terminal(["docker", "exec", "-it", made, "sh"], environment(proxy)) as terminal:
        terminal.type(b"tty && exit 5\n")
        terminal.expect(b"/dev/pts/0")
        assert terminal.end()[0] == 5
    docker("commit", made, f"{PREFIX}-stolen")
    docker("update", "--restart", "no", made)
    docker("rename", made, f"{PREFIX}-new")
    docker("pause", f"{PREFIX}-new"), docker("unpause", f"{PREFIX}-new")
    docker("restart", "-t", "0", f"{PREFIX}-new"), docker("stop", "-t", "0", f"{PREFIX}-new")
    shares = ("--volumes-from", f"{PREFIX}-new", "--network", f"container:{mine}")
    docker("run", "--rm", *shares, "busybox", "true")
    assert f"Containers: {2}" in docker("info")
    assert docker("network", "inspect", "none", "-f", "{{len .Containers}}").strip() == "1"
    said = docker("events", "--since", "60s", "--until", "1s", "--format", "{{.Actor.ID}}")
    assert len(set(said.split())) >= 2 and teams.other not in said
    docker("rm", "-f", f"{PREFIX}-new")
    refused = docker("rm", "-f", f"{PREFIX}-other", check=False)
    assert f"No such container: {PREFIX}-other" in refused
    assert proxy.wait_records("denied")[-1]["rule"] == "scope"
    assert docker("container", "prune", "-f", check=scope == "label")


def rename(engine: RealEngine, old: str, new: str) -> int:
    """Rename a container directly; the status."""
    request = f"POST /containers/{old}/rename?name={new} HTTP/1.0\r\n\r\n"
    return ask(engine.socket, request.encode()).status


def test_a_name_that_goes_from_one_teams_container_to_the_others_never_leads_there(
    teams: Teams, start_proxy: Any
) -> None:
    """Both containers take the same name in turn, as fast as the engine renames them."""
    proxy = start_proxy(teams.engine.socket, "--scope", f"label={TEAM}=a")
    shared, over = f"{PREFIX}-shared", threading.Event()

    def swap() -> None:
        while not over.is_set():
            for taker in (teams.mine, teams.other):
                rename(teams.engine, taker, shared)
                rename(teams.engine, taker, f"{PREFIX}-{taker[:8]}")

    asked = [
        f"GET /containers/{shared}/json",
        f"GET /containers/{shared}/logs?stdout=1",
        f"GET /containers/{shared}/archive?path=/etc/hostname",
        f"POST /containers/{shared}/attach?logs=1&stdout=1",
        f"POST /commit?container={shared}&repo={PREFIX}-stolen",
    ]
    swapper, statuses = threading.Thread(target=swap), Counter[int]()
    swapper.start()
    try:
        for number in range(400):
            request = asked[number % len(asked)] if number % 40 == 4 or number % 5 < 4 else asked[0]
            body = ask(proxy.socket, f"{request} {START}\r\n".encode(), 1.0)
            statuses[body.status] += 1
            assert MARK.encode() not in body.body and teams.other[:12].encode() not in body.body
    finally:
        over.set()
        swapper.join()
        for made, name in ((teams.mine, "mine"), (teams.other, "other")):
            rename(teams.engine, made, f"{PREFIX}-{name}")
    assert statuses[200] > 20 and statuses[404] > 20, statuses


def test_events_of_any_of_several_words_come_as_they_happen(teams: Teams, start_proxy: Any) -> None:
    words = f"label={TEAM}=none,name={PREFIX}-mi*"
    proxy = start_proxy(teams.engine.socket, "--scope", words)
    since = int(time.time()) - 1
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(proxy.socket)
        sock.sendall(f"GET /events?since={since} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        for made in (teams.other, teams.mine):
            api(teams.engine.socket, "POST", f"/containers/{made}/pause")
            api(teams.engine.socket, "POST", f"/containers/{made}/unpause")
        received = b""
        while b'"Action":"unpause"' not in received:
            block = sock.recv(65536)
            assert block, received
            received += block
    assert teams.mine.encode() in received and teams.other.encode() not in received
    assert received.startswith(b"HTTP/1.1 200 OK") and b"Transfer-Encoding: chunked" in received


def test_prune_removes_what_is_in_scope_alone(teams: Teams, start_proxy: Any) -> None:
    proxy, engine = start_proxy(teams.engine.socket, "--scope", f"label={TEAM}=a"), teams.engine
    docker = scoped_docker(teams, proxy)
    for made in (teams.mine, teams.source):
        api(engine.socket, "POST", f"/containers/{made}/kill")
        api(engine.socket, "POST", f"/containers/{made}/wait")
    said = docker("container", "prune", "-f")
    assert teams.mine in said and teams.source not in said
    assert "No such" in engine.docker("inspect", teams.mine, check=False).stderr.decode()
    engine.docker("inspect", teams.source)
    several = start_proxy_again(start_proxy, proxy, engine, f"label={TEAM}=a,own")
    refused = scoped_docker(teams, several)("container", "prune", "-f", check=False)
    assert "any of several" in refused


def start_proxy_again(
    start_proxy: Any, proxy: ProxyProcess, engine: RealEngine, words: str
) -> ProxyProcess:
    """The same with another scope."""
    proxy.stop()
    proxy.errors.unlink()
    again: ProxyProcess = start_proxy(engine.socket, "--scope", words)
    return again


def test_scope_and_masking_hold_together(teams: Teams, start_proxy: Any) -> None:
    proxy = start_proxy(teams.engine.socket, "--scope", f"label={TEAM}=a", "--mask", "HIGH")
    docker, key = scoped_docker(teams, proxy), "AK" + "IA" + "SCOPED7MASKED2Q" + "A"
    docker("run", "--network", "none", "--name", f"{PREFIX}-made", "busybox", "echo", f"key {key}")
    assert docker("logs", f"{PREFIX}-made") == f"key {'*' * 20}\n"
    assert key not in docker("inspect", f"{PREFIX}-made")
    assert "No such container" in docker("logs", f"{PREFIX}-other", check=False)
    assert proxy.wait_records("finding")[0]["container_name"] == f"{PREFIX}-made"


def test_a_compose_project_is_a_scope(teams: Teams, start_proxy: Any, folder: Path) -> None:
    """Compose brings a project up and down through a listener that has the project as its scope."""
    project = f"{PREFIX}-project"
    file = folder / "compose.yml"
    service = "{image: busybox, network_mode: none, command: [sh, -c, 'echo up; exec sleep 900']}"
    file.write_text(f"services:\n  web: {service}\n  more: {service}\n")
    proxy = start_proxy(teams.engine.socket, "--scope", f"compose-project={project}")
    docker = scoped_docker(teams, proxy)
    run = lambda *words: docker("compose", "-p", project, "-f", str(file), *words)
    try:
        run("up", "-d")
        assert len(run("ps", "-q").split()) == 2 == len(docker("ps", "-q").split())
        assert run("exec", "-T", "web", "echo", "inside") == "inside\n"
        assert "up" in run("logs", "web")
        refused = docker("run", "--network", "none", "busybox", "true", check=False)
        assert f"compose-project={project}" in refused
    finally:
        run("down", "-t", "0")
    assert docker("ps", "-aq") == ""


def test_volumes_networks_and_images_have_scopes_of_their_own(
    teams: Teams, start_proxy: Any, folder: Path
) -> None:
    team, volume = f"label={TEAM}=a", f"{PREFIX}-made"
    words = ("--scope", team, "--scope-volumes", team, "--scope-networks", team)
    proxy = start_proxy(teams.engine.socket, *words, "--scope-images", "name=busybox")
    docker, theirs = scoped_docker(teams, proxy), f"{PREFIX}-volume"
    run = ("run", "--rm", "--network", "none")
    try:
        docker("volume", "create", volume)
        assert docker("volume", "ls", "-q").split() == [volume]
        docker(*run, "-v", f"{volume}:/data", "busybox", "touch", "/data/x")
        assert docker(*run, "-v", f"{volume}:/data", "busybox", "ls", "/data") == "x\n"
        refused = docker(*run, "-v", f"{theirs}:/data", "busybox", "ls", "/data", check=False)
        assert f"the volume '{theirs}' is not one" in refused
        mount = f"type=volume,source={theirs},target=/data"
        refused = docker(*run, "--mount", mount, "busybox", "true", check=False)
        assert f"the volume '{theirs}' is not one" in refused
        for command in (("inspect", theirs), ("rm", theirs), ("create", theirs)):
            assert "no such volume" in docker("volume", *command, check=False)
        assert set(docker("image", "ls", "--format", "{{.Repository}}").split()) == {"busybox"}
        for command in (("inspect",), ("history",), ("rm",), ("save", "-o", f"{folder}/x")):
            refused = docker("image", *command, f"{PREFIX}-committed", check=False)
            assert "No such image" in refused, refused
        refused = docker(*run, f"{PREFIX}-committed", "true", check=False)
        assert "outside of scope-images: name=busybox" in refused  # the CLI tries to pull it
        assert_no_way_to_a_network(teams, proxy)
        networks = set(docker("network", "ls", "--format", "{{.Name}}").split())
        assert "none" in networks <= {"bridge", "host", "none"}
    finally:
        teams.engine.docker("volume", "rm", "-f", volume, check=False)
        teams.engine.docker("network", "rm", f"{PREFIX}-net", check=False)


def assert_no_way_to_a_network(teams: Teams, proxy: ProxyProcess) -> None:
    """By no field of a body that makes or connects a container; engine 28 prefers NetworkID."""
    name = f"{PREFIX}-net"
    made = api(teams.engine.socket, "POST", "/networks/create", {"Name": name})["Id"]
    for endpoint in ({"none": {"NetworkID": made}}, {name: {}}, {made: None}):
        config = {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": endpoint}}
        answer = ask(proxy.socket, with_json("POST", "/containers/create", config))
        assert answer.status == 404 and b"not found" in answer.body, answer
    for mode in (name, made, made[:12]):
        config = {"Image": "busybox", "HostConfig": {"NetworkMode": mode}}
        answer = ask(proxy.socket, with_json("POST", "/containers/create", config))
        assert answer.status == 404 and b"not found" in answer.body, answer
    for target, endpoint in (("none", {"NetworkID": made}), (name, {}), (made[:12], {})):
        body = {"Container": teams.mine, "EndpointConfig": endpoint}
        answer = ask(proxy.socket, with_json("POST", f"/networks/{target}/connect", body))
        assert answer.status == 404 and b"not found" in answer.body, answer


def test_scope_and_guard_hold_together(teams: Teams, start_proxy: Any) -> None:
    words = ("--scope", f"label={TEAM}=a", "--guard", "strict")
    proxy = start_proxy(teams.engine.socket, *words)
    docker, run = scoped_docker(teams, proxy), ("run", "--rm", "--network", "none")
    assert docker(*run, "busybox", "echo", "ran") == "ran\n"
    assert "the guard refuses" in docker(*run, "-v", "/:/host", "busybox", "true", check=False)
    assert "the guard refuses" in docker(*run, "--privileged", "busybox", "true", check=False)
    for share in ("--network", "--pid", "--ipc"):
        refused = docker("run", share, f"container:{PREFIX}-other", "busybox", "true", check=False)
        assert f"No such container: {PREFIX}-other" in refused
    rules = {record["rule"] for record in proxy.wait_records("denied", 3)}
    assert "scope" in rules and any(rule.startswith("guard") for rule in rules)
