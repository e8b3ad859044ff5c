"""The guard on real engines: each known way to the host is shown to work, then to be refused.

An escape is first sent to the engine itself, which has to take it. Where a container can tell, its
probe has to say that it has what other containers lack. Then the same bytes go through the guard:
403, and the engine has nothing new.
"""

from __future__ import annotations

import http.server
import io
import json
import os
import random
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from guardcases import DOCKER_CLI, GITLAB_RUNNER, PORTAINER, RYUK, TESTCONTAINERS
from ownengine import own_swarm
from raw import Answer, api, ask
from test_bypass import HEADS, spell

from conftest import ProxyProcess, RealEngine, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PREFIX = f"guard-e2e-{os.getpid()}"
#: what a container knows of itself, a fact a line
PROBE = r"""
say() { echo "$1=$2"; }
for ns in net pid ipc uts cgroup; do say $ns "$(readlink /proc/self/ns/$ns)"; done
say caps "$(grep CapEff /proc/self/status)"
say seccomp "$(grep Seccomp: /proc/self/status)"
say host "$(ls /h 2>/dev/null | tr '\n' ' ')"
say device "$(ls /dev | grep -c kmsg)"
say masked "$(grep -c -E ' /proc/(keys|kcore|timer_list|acpi) ' /proc/self/mountinfo)"
say readonly "$(grep -c ' /proc/sys ro' /proc/self/mountinfo)"
say backlog "$(cat /proc/sys/net/core/somaxconn)"
say volumes "$(ls /held 2>/dev/null | tr '\n' ' ')"
"""


class Escape(NamedTuple):
    """A way to the host.

    `value`: the HostConfig of a create; where `whole`, its fields stand in the body itself, as
    before API 1.15. `fact`: the probe's fact that gives it away; empty where all that can be seen
    is that the engine takes it. `spell`: makes the request's bytes of its JSON.
    """

    name: str
    value: dict[str, Any]
    fact: str = ""
    whole: bool = False
    spell: Callable[[bytes], bytes] | None = None
    target: str = "/containers/create"
    fields: str = ""


def bytes_for(old: str, new: str) -> Callable[[bytes], bytes]:
    """A spelling: some text of the JSON written otherwise."""
    return lambda body: body.replace(old.encode(), new.encode(), 1)


def chunked(body: bytes) -> bytes:
    """A body in chunks of seven bytes, with extensions."""
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


BIND = {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}
OVERLAY = {"type": "overlay", "device": "overlay", "o": "lowerdir=/usr/bin:/etc"}
PRIVILEGED = {"Privileged": True}
CREATES = [
    Escape("privileged", PRIVILEGED, "caps"),
    Escape("all capabilities", {"CapAdd": ["ALL"]}, "caps"),
    Escape("a capability", {"CapAdd": ["SYS_ADMIN"]}, "caps"),
    Escape("a capability by its long name, in lower case", {"CapAdd": ["cap_sys_ptrace"]}, "caps"),
    Escape("bind of /", {"Binds": ["/:/h"]}, "host"),
    Escape("bind of /, read-only", {"Binds": ["/:/h:ro"]}, "host"),
    Escape("bind by a detour", {"Binds": ["/usr/..//etc/../:/h"]}, "host"),
    Escape("bind of /etc", {"Binds": ["/etc:/h"]}, "host"),
    Escape("bind of the engine's socket", {"Binds": ["{socket}:/h/docker.sock"]}, "host"),
    Escape("mount of /", {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}]}, "host"),
    Escape("mount by a detour",
           {"Mounts": [{"Type": "bind", "Source": "/proc/../", "Target": "/h"}]}, "host"),
    Escape("mount of a new volume that is /",
           {"Mounts": [{"Type": "volume", "Target": "/h",
                        "VolumeOptions": {"DriverConfig": BIND}}]},
           "host"),
    Escape("a device", {"Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg",
                                     "CgroupPermissions": "rwm"}]}, "device"),
    Escape("a rule for devices", {"DeviceCgroupRules": ["b *:* rwm"]}),
    Escape("a device request", {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}),
    Escape("the host's network", {"NetworkMode": "host"}, "net"),
    Escape("another container's network", {"NetworkMode": "container:{helper}"}, "net"),
    Escape("the host's processes", {"PidMode": "host"}, "pid"),
    Escape("another container's processes", {"PidMode": "container:{helper}"}, "pid"),
    Escape("the host's memory", {"IpcMode": "host"}, "ipc"),
    Escape("another container's memory", {"IpcMode": "container:{helper}"}, "ipc"),
    Escape("the host's name", {"UTSMode": "host"}, "uts"),
    Escape("the host's users", {"UsernsMode": "host"}),
    Escape("the host's cgroups", {"CgroupnsMode": "host"}, "cgroup"),
    Escape("another parent cgroup", {"CgroupParent": "/guard-e2e"}),
    Escape("no seccomp", {"SecurityOpt": ["seccomp=unconfined"]}, "seccomp"),
    Escape("no AppArmor", {"SecurityOpt": ["apparmor=unconfined"]}),
    Escape("no SELinux", {"SecurityOpt": ["label=disable"]}),
    Escape("nothing masked", {"MaskedPaths": []}, "masked"),
    Escape("nothing read-only", {"ReadonlyPaths": []}, "readonly"),
    Escape("never ended for memory", {"OomScoreAdj": -1000}),
    Escape("not ended for memory", {"OomKillDisable": True, "Memory": 64 << 20}),
    Escape("a sysctl", {"Sysctls": {"net.core.somaxconn": "77"}}, "backlog"),
    Escape("a real-time limit", {"Ulimits": [{"Name": "rtprio", "Soft": 9, "Hard": 9}]}),
    Escape("a runtime", {"Runtime": "runc"}),
    Escape("an annotation", {"Annotations": {"run.oci.keep_original_groups": "1"}}),
    Escape("a log sent to syslog",
           {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "udp://127.0.0.1:1"}}}),
    Escape("a log sent to fluentd",
           {"LogConfig": {"Type": "fluentd", "Config": {"fluentd-async": "true"}}}),
    Escape("another container's volumes", {"VolumesFrom": ["{helper}"]}, "volumes"),
    Escape("a link to another container", {"Links": ["{helper}:x"]}),
    Escape("fields beside HostConfig", {"CapAdd": ["SYS_PTRACE"]}, "caps", whole=True),
    # spellings
    Escape("a key in lower case", PRIVILEGED, "caps",
           spell=bytes_for("Privileged", "privileged")),
    Escape("a key in upper case", PRIVILEGED, "caps", spell=bytes_for("HostConfig", "HOSTCONFIG")),
    Escape("a key with an escape", PRIVILEGED, "caps",
           spell=bytes_for("Privileged", "\\u0050rivileged")),
    Escape("a key with a Kelvin sign", {"NetworkMode": "host"}, "net",
           spell=bytes_for('"NetworkMode"', '"Networ\u212aMode"')),
    Escape("a key with a long s", PRIVILEGED, "caps",
           spell=bytes_for("HostConfig", "Ho\u017ftConfig")),
    Escape("two equal keys", PRIVILEGED, "caps",
           spell=bytes_for('"Privileged": true', '"Privileged": false, "Privileged": true')),
    Escape("two keys in two cases", PRIVILEGED, "caps",
           spell=bytes_for('"Privileged": true', '"Privileged": false, "privileged": true')),
    Escape("two equal objects", PRIVILEGED, "caps",
           spell=bytes_for('"HostConfig"', '"HostConfig": {"NetworkMode": "none"}, "HostConfig"')),
    Escape("in chunks", PRIVILEGED, "caps", spell=chunked,
           fields="Transfer-Encoding: chunked\r\n"),
    Escape("behind an expectation", PRIVILEGED, "caps", fields="Expect: 100-continue\r\n"),
    Escape("the oldest version", PRIVILEGED, "caps", target="/v1.24/containers/create"),
    Escape("an escaped path", PRIVILEGED, "caps", target="/v1.41/containers/%63reate"),
    Escape("an escaped slash", PRIVILEGED, "caps", target="/v1.41/containers%2Fcreate"),
    Escape("an odd version", PRIVILEGED, "caps", target="/v1.41.0/containers/create"),
    Escape("an absolute target", PRIVILEGED, "caps", target="http://any/containers/create"),
    Escape("no host in the target", PRIVILEGED, "caps", target="x:/containers/create"),
    Escape("invalid text in a name", {"Binds": ["/:/h"]}, "host",
           spell=bytes_for('"Cmd"', '"Domainname": "\\ud800", "Cmd"')),
]  # fmt: skip


class Ground(NamedTuple):
    """An engine, a container to share things with, the host's own facts and a container's."""

    engine: RealEngine
    helper: str
    of_host: dict[str, str]
    of_container: dict[str, str]

    def filled(self, value: Any) -> Any:
        """A value with the names of this engine in it."""
        text = json.dumps(value).replace("{helper}", self.helper)
        return json.loads(text.replace("{socket}", self.engine.socket))


def request(escape: Escape, ground: Ground, name: str) -> bytes:
    """The bytes of a create."""
    host = {"NetworkMode": "none", **ground.filled(escape.value)}
    inner = host if escape.whole else {"HostConfig": host}
    body = json.dumps({"Image": "busybox", "Cmd": ["sh", "-c", PROBE], **inner}).encode()
    body = escape.spell(body) if escape.spell else body
    lines = f"POST {escape.target}?name={name} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
    lines += f"Content-Type: application/json\r\n{escape.fields}"
    length = "" if "chunked" in escape.fields else f"Content-Length: {len(body)}\r\n"
    return f"{lines}{length}\r\n".encode() + body


def final(answer: Answer) -> Answer:
    """The answer behind a 100 Continue."""
    if answer.status != 100:
        return answer
    head, _, body = answer.body.partition(b"\r\n\r\n")
    return Answer(int(head[9:12]), head, body, answer.ended)


def facts(engine: RealEngine, name: str) -> dict[str, str]:
    """Run a container's probe to its end; empty if the engine cannot start it here."""
    started = ask(engine.socket, plain("POST", f"/containers/{name}/start"))
    if started.status != 204:
        return {}
    api(engine.socket, "POST", f"/containers/{name}/wait")
    log = engine.docker("logs", name).stdout.decode()
    return dict(line.split("=", 1) for line in log.splitlines() if "=" in line)


def plain(method: str, target: str, body: bytes = b"", fields: str = "") -> bytes:
    """An ordinary request."""
    lines = f"{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{fields}"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def as_json(method: str, target: str, value: Any) -> bytes:
    """An ordinary request with a JSON body."""
    return plain(method, target, json.dumps(value).encode(), "Content-Type: application/json\r\n")


def exists(engine: RealEngine, name: str, kind: str = "containers") -> bool:
    """Whether the engine has something of this name."""
    target = f"/{kind}/{name}" + ("/json" if kind == "containers" else "")
    return ask(engine.socket, plain("GET", target)).status == 200


def removed(engine: RealEngine, name: str) -> None:
    ask(engine.socket, plain("DELETE", f"/containers/{name}?force=1&v=1"))


@pytest.fixture(scope="module")
def ground(real_engine: RealEngine) -> Iterator[Ground]:
    """The helper container, and the facts to compare with."""
    helper = f"{PREFIX}-helper"
    value = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "touch /held/kept; sleep 600"],
        "Volumes": {"/held": {}},
        "HostConfig": {"NetworkMode": "none", "IpcMode": "shareable"},
    }
    api(real_engine.socket, "POST", f"/containers/create?name={helper}", value)
    api(real_engine.socket, "POST", f"/containers/{helper}/start")
    ground = Ground(real_engine, helper, {}, {})
    modes = {f"{mode}Mode": "host" for mode in ("Network", "Pid", "Ipc", "UTS", "Cgroupns")}
    for name, fields, into in (("host", modes, ground.of_host), ("plain", {}, ground.of_container)):
        container = f"{PREFIX}-{name}"
        ask(real_engine.socket, request(Escape(name, fields), ground, container))
        into.update(facts(real_engine, container))
        removed(real_engine, container)
    modes.pop("CgroupnsMode")
    assert ground.of_host and ground.of_container
    yield ground
    removed(real_engine, helper)


@pytest.fixture(scope="module")
def guarded(
    real_engine: RealEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxyProcess]:
    """The proxy with its guard in front of the engine."""
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/da-XXXXXX"], text=True).strip())
    proxy = ProxyProcess(folder, real_engine.socket, "--guard", "strict").ready()
    yield proxy
    assert proxy.stop() == 0
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def shown_by(escape: Escape, found: dict[str, str], ground: Ground) -> bool:
    """Whether a probe's facts show what the escape gives."""
    if not escape.fact or not found:
        return not escape.fact
    shared = ("net", "pid", "ipc", "uts", "cgroup")
    if escape.fact in shared and "container:" not in str(escape.value):
        return found[escape.fact] == ground.of_host[escape.fact]
    return found[escape.fact] != ground.of_container[escape.fact]


@pytest.mark.parametrize("escape", CREATES, ids=[escape.name for escape in CREATES])
def test_an_escape_by_a_container_works_without_the_guard_and_not_with_it(
    escape: Escape, ground: Ground, guarded: ProxyProcess
) -> None:
    engine = ground.engine
    name = f"{PREFIX}-open"
    answer = final(ask(engine.socket, request(escape, ground, name)))
    try:
        taken = answer.status == 201
        newest = engine.api == "1.51"
        # the older engine does not know all of them, the newer one no longer heeds one
        if taken if not newest else not escape.whole:
            assert taken, answer
            found = facts(engine, name)
            unable = not newest and not found  # to start it on this machine
            assert unable or shown_by(escape, found, ground), found
    finally:
        removed(engine, name)
    name = f"{PREFIX}-guarded"
    answer = final(ask(guarded.socket, request(escape, ground, name)))
    assert answer.status == 403 and answer.refused and not exists(engine, name)


def tar(**files: str) -> bytes:
    """An archive of some files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


TAR = "Content-Type: application/x-tar\r\n"
INTERFACES = tar(Dockerfile="FROM busybox\nRUN cat /proc/net/dev\n")


def test_exec_and_update_give_no_more_than_the_create_did(
    ground: Ground, guarded: ProxyProcess
) -> None:
    engine, helper = ground.engine, ground.helper
    command = {"AttachStdout": True, "Cmd": ["grep", "CapEff", "/proc/self/status"]}
    made = api(engine.socket, "POST", f"/containers/{helper}/exec", {**command, "Privileged": True})
    answer = ask(engine.socket, as_json("POST", f"/exec/{made['Id']}/start", {"Detach": False}))
    assert ground.of_container["caps"].split()[1].encode() not in answer.body
    for target, value in (
        (f"/containers/{helper}/exec", {**command, "Privileged": True}),
        (f"/containers/{helper}/exec", {**command, "PRIVILEGED": True}),
        (f"/v1.41/containers/{helper}/%65xec", {**command, "Privileged": True}),
        (f"/containers/{helper}/update", {"OomKillDisable": True}),
        (f"/containers/{helper}/update", {"CgroupParent": "/"}),
        (f"/containers/{helper}/update", {"Devices": [{"PathOnHost": "/dev/kmsg"}]}),
    ):
        direct = ask(engine.socket, as_json("POST", target, value))
        assert direct.status in (200, 201), (target, direct)
        assert ask(guarded.socket, as_json("POST", target, value)).status == 403, target


VOLUMES = [
    ("a volume that is /", {"Driver": "local", "DriverOpts": BIND["Options"]}),
    ("a volume that is /, recursively",
     {"DriverOpts": {"type": "none", "o": "rbind", "device": "/"}}),
    ("a volume that is an overlay of /etc", {"DriverOpts": OVERLAY}),
    ("a volume on a disk of the host", {"DriverOpts": {"type": "ext4", "device": "/dev/sda1"}}),
    ("a volume on another host", {"DriverOpts": {"type": "nfs", "o": "addr=127.0.0.1",
                                                 "device": ":/x"}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), VOLUMES, ids=[name for name, _ in VOLUMES])
def test_an_escape_by_a_volume_works_without_the_guard_and_not_with_it(
    name: str, value: dict[str, Any], ground: Ground, guarded: ProxyProcess
) -> None:
    engine = ground.engine
    volume, container = f"{PREFIX}-volume", f"{PREFIX}-mounts"
    try:
        api(engine.socket, "POST", "/volumes/create", {"Name": volume, **value})
        mounted = Escape(name, {"Binds": [f"{volume}:/h"]}, "host")
        assert ask(engine.socket, request(mounted, ground, container)).status == 201
        found = facts(engine, container)
        if "bind" in str(value) or "overlay" in str(value):
            assert shown_by(mounted, found, ground), found
    finally:
        removed(engine, container)
        ask(engine.socket, plain("DELETE", f"/volumes/{volume}?force=1"))
    created = as_json("POST", "/volumes/create", {"Name": volume, **value})
    answer = ask(guarded.socket, created)
    assert answer.status == 403 and not exists(engine, volume, "volumes")


NETWORKS = [
    ("a bridge of the host", {"Options": {"com.docker.network.bridge.name": "guarde2e0"}}),
    ("a macvlan", {"Driver": "macvlan"}),
    ("an ipvlan", {"Driver": "ipvlan"}),
    (
        "addresses of the world",
        {"Driver": "macvlan", "IPAM": {"Config": [{"Subnet": "203.0.113.0/24"}]}},
    ),
]


@pytest.mark.parametrize(("name", "value"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_an_escape_by_a_network_works_without_the_guard_and_not_with_it(
    name: str, value: dict[str, Any], ground: Ground, guarded: ProxyProcess
) -> None:
    engine, network = ground.engine, f"{PREFIX}-network"
    created = as_json("POST", "/networks/create", {"Name": network, **value})
    answer = ask(engine.socket, created)
    ask(engine.socket, plain("DELETE", f"/networks/{network}"))
    if engine.api == "1.51" and "macvlan" not in str(value) and "ipvlan" not in str(value):
        assert answer.status == 201, answer
    elif answer.status != 201:  # the kernel of this machine may lack the driver
        assert (
            b"not supported" in answer.body or b"operation" in answer.body or (engine.api != "1.51")
        ), answer
    answer = ask(guarded.socket, created)
    assert answer.status == 403 and not exists(engine, network, "networks")


@pytest.fixture(scope="module")
def inner_service() -> Iterator[tuple[str, list[str]]]:
    """A service of the host that containers cannot reach, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class's name
            asked.append(self.path)
            body = tar(Dockerfile="FROM busybox\n")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_a_build_gets_neither_the_hosts_network_nor_what_only_the_host_reaches(
    ground: Ground, guarded: ProxyProcess, inner_service: tuple[str, list[str]]
) -> None:
    engine, (url, asked) = ground.engine, inner_service
    by_query = plain("POST", f"/build?networkmode=host&nocache=1&t={PREFIX}-host", INTERFACES, TAR)
    shown = ask(engine.socket, by_query).body
    assert b"eth0" in shown, shown
    form = f"fromSrc={url}/form&repo={PREFIX}-form&networkmode=host".encode()
    as_form = "Content-Type: application/x-www-form-urlencoded\r\n"
    for sent in (
        by_query,
        plain("POST", "/build?n%65tworkmode=h%6Fst", INTERFACES, TAR),
        plain("POST", "/build?networkmode=none&networkmode=host", INTERFACES, TAR),
        plain("POST", f"/build?networkmode=container:{ground.helper}", INTERFACES, TAR),
        plain("POST", "/build?cgroupparent=/", INTERFACES, TAR),
        plain("POST", "/build", form, as_form),
        plain("POST", "/images/create", form, as_form),
        plain("POST", "/build?version=2", INTERFACES, TAR),
        plain("POST", f"/build?remote={url}/build"),
        plain("POST", f"/images/create?fromSrc={url}/image&repo={PREFIX}-image"),
    ):
        before = len(asked)
        assert ask(guarded.socket, sent).status == 403, sent[:80]
        assert len(asked) == before
    ask(engine.socket, plain("POST", f"/build?remote={url}/build&t={PREFIX}-build"))
    ask(engine.socket, plain("POST", "/images/create", form, as_form))
    ask(engine.socket, plain("POST", f"/images/create?fromSrc={url}/image&repo={PREFIX}-image"))
    assert {"/build", "/form", "/image"} <= set(asked)  # the engine itself loads them
    passes = ask(
        guarded.socket,
        plain("POST", f"/build?networkmode=none&nocache=1&t={PREFIX}", INTERFACES, TAR),
    )
    assert passes.status == 200 and b"lo:" in passes.body and b"eth0" not in passes.body
    for image in (PREFIX, f"{PREFIX}-host", f"{PREFIX}-build", f"{PREFIX}-form", f"{PREFIX}-image"):
        ask(engine.socket, plain("DELETE", f"/images/{image}?force=1"))


def test_tunnels_plugins_and_other_routes_are_shut(ground: Ground, guarded: ProxyProcess) -> None:
    engine = ground.engine
    upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\n"
    for path in ("/grpc", "/session"):
        head = f"POST {path} HTTP/1.1\r\nHost: d\r\n{upgrade}\r\n".encode()
        assert ask(engine.socket, head, timeout=1).status == 101, path
        assert ask(guarded.socket, head, timeout=1).status == 403, path
    config = {"description": "", "entrypoint": ["/x"], "interface": {"types": [], "socket": "x"},
              "network": {"type": "host"}, "linux": {"allowAllDevices": True},
              "mounts": [{"source": "/", "destination": "/h", "type": "bind",
                          "options": ["rbind"]}]}  # fmt: skip
    plugin = tar(**{"config.json": json.dumps(config), "rootfs/x": ""})
    created = plain("POST", f"/plugins/create?name={PREFIX}-plugin", plugin, TAR)
    assert ask(engine.socket, created).status == 204
    for sent in (
        created,
        plain("POST", f"/plugins/{PREFIX}-plugin:latest/enable?timeout=1"),
        as_json("POST", f"/plugins/{PREFIX}-plugin:latest/set", ["x=y"]),
        as_json("POST", "/plugins/pull?remote=example.com/x", []),
        as_json("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:1"}),
        as_json("POST", "/swarm/join", {"RemoteAddrs": ["127.0.0.1:1"]}),
        as_json("POST", f"/containers/{ground.helper}/checkpoints", {"CheckpointDir": "/etc"}),
        plain("POST", f"/containers/{ground.helper}/start?checkpoint=x&checkpoint-dir=/etc"),
        as_json("POST", f"/v1.20/containers/{ground.helper}/start", {"Privileged": True}),
        as_json("POST", "/libpod/containers/create", {"image": "busybox", "privileged": True}),
        plain("PRI", "*"),
    ):
        assert ask(guarded.socket, sent).status in (400, 403), sent[:80]
    ask(engine.socket, plain("DELETE", f"/plugins/{PREFIX}-plugin:latest?force=1"))


SPELLINGS = 250


def test_no_spelling_of_the_path_makes_what_the_guard_refuses(
    ground: Ground, guarded: ProxyProcess
) -> None:
    """Random spellings, each sent to the engine too, which takes many of them."""
    engine, rng, taken = ground.engine, random.Random(29), 0
    name = f"{PREFIX}-spelled"
    body = json.dumps({"Image": "busybox", "HostConfig": {"IpcMode": "host"}}).encode()
    for _ in range(SPELLINGS):
        target = f"{spell(rng, '/containers/create')}?name={name}"
        head = f"POST {target} {rng.choice(HEADS)}Content-Type: application/json\r\n"
        sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        assert ask(guarded.socket, sent, timeout=5).status != 201, sent
        assert not exists(engine, name), sent
        if ask(engine.socket, sent, timeout=5).status == 201:
            taken += 1
            removed(engine, name)
    assert taken > SPELLINGS // 10


@pytest.mark.parametrize(
    "trick",
    [
        lambda body: plain("POST", "/containers/create?name={name}", body + b"{}"),
        lambda body: plain("POST", "/containers/create?name={name}", b"\xef\xbb\xbf" + body),
        lambda body: plain("POST", "//containers/create?name={name}", body),
        lambda body: plain("POST", "/containers/x/../create?name={name}", body),
        lambda body: plain("POST", "/containers/create/?name={name}", body),
        lambda body: plain("POST", "/v1.41/v1.41/containers/create?name={name}", body),
        lambda body: plain("POST", "/containers/create?name={name}",
                           b"--x\r\n\r\n" + body + b"\r\n--x--",
                           "Content-Type: multipart/form-data; boundary=x\r\n"),
        lambda body: plain("POST", "/containers/create?name={name}", body,
                           "Content-Encoding: gzip\r\n"),
        lambda body: plain("post", "/containers/create?name={name}", body),
        lambda body: plain("GET", "/containers/create?name={name}", body,
                           "X-HTTP-Method-Override: POST\r\n"),
    ],
    ids=range(10),
)  # fmt: skip
def test_nothing_is_made_by_what_engines_mostly_refuse_themselves(
    trick: Callable[[bytes], bytes], ground: Ground, guarded: ProxyProcess
) -> None:
    name = f"{PREFIX}-trick"
    value = {"Image": "busybox", "HostConfig": {"Privileged": True, "NetworkMode": "none"}}
    sent = trick(json.dumps(value).encode()).replace(b"{name}", name.encode())
    if b"Content-Type" not in sent:
        sent = sent.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n", 1)
    assert ask(guarded.socket, sent).status >= 400
    assert not exists(ground.engine, name)


def test_a_pipelined_create_is_judged_too(ground: Ground, guarded: ProxyProcess) -> None:
    name = f"{PREFIX}-behind"
    behind = request(Escape("behind", PRIVILEGED), ground, name)
    first = plain("GET", "/_ping").replace(b"Connection: close\r\n", b"")
    answer = ask(guarded.socket, first + first + behind)
    assert answer.status == 200 and b"HTTP/1.1 403" in answer.body
    assert not exists(ground.engine, name)


# ================================================================================================
# bodies at random: what the guard lets pass has, by the engine's own word, nothing of the host
# ================================================================================================

RANDOM_BODIES = 250
VALUES: dict[str, list[Any]] = {
    "Privileged": [False, None, True, "true", 1],
    "CapAdd": [[], None, ["SYS_ADMIN"], ["cap_net_raw"], "ALL"],
    "CapDrop": [["ALL"], None],
    "Binds": [["guard-e2e-fuzz:/h"], ["/h"], [], ["/:/h"], ["/etc/..:/h"], ["./etc:/h"],
              ["guard-e2e-fuzz:/h:ro"], ["guard-e2e-fuzz:/h", "/etc:/x:ro"]],
    "Mounts": [[], [{"Type": "tmpfs", "Target": "/m"}],
               [{"Type": "bind", "Source": "/", "Target": "/m"}],
               [{"Type": "volume", "Target": "/m", "VolumeOptions": {"DriverConfig": BIND}}],
               [{"type": "bind", "source": "/", "target": "/m"}]],
    "NetworkMode": ["none", "none", "", "host", "container:x", "HOST", " host", "host "],
    "PidMode": ["", None, "host", "Host", "container:x"],
    "IpcMode": ["", "private", "host", "shareable", "container:x"],
    "UTSMode": ["", "host"],
    "UsernsMode": ["", "host"],
    "CgroupnsMode": ["", "private", "host"],
    "CgroupParent": ["", "/x", "x.slice"],
    "Devices": [[], None, [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg"}]],
    "DeviceCgroupRules": [None, ["c *:* rwm"]],
    "SecurityOpt": [None, ["no-new-privileges"], ["seccomp=unconfined"], ["label=disable"]],
    "MaskedPaths": [None, [], ["/proc/kcore"]],
    "ReadonlyPaths": [None, []],
    "OomScoreAdj": [0, 500],
    "Sysctls": [{}, None, {"net.core.somaxconn": "77"}],
    "LogConfig": [{}, {"Type": "local"}, {"Type": "syslog"}, {"Type": "json-file",
                  "Config": {"max-size": "1m"}}],
    "VolumesFrom": [None, [], ["{helper}"]],
    "Memory": [0, 64 << 20],
    "RestartPolicy": [{"Name": "no"}, {}],
    "Tmpfs": [{}, {"/t": "size=1m"}, {"/t": "rw,shared"}],
}  # fmt: skip


def one_body(rng: random.Random, helper: str) -> bytes:
    """A create with some fields, mostly at harmless values, written in some way."""
    host = {"NetworkMode": "none"}
    for name in rng.sample(sorted(VALUES), rng.randrange(1, 9)):
        values = VALUES[name]
        host[name] = values[0] if rng.random() < 0.6 else rng.choice(values)
    text = json.dumps({"Image": "busybox", "HostConfig": host}).replace("{helper}", helper)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        text = rng.choice(REWRITES)(rng, text)
    return text.encode("utf-8", "surrogatepass")


def swap_case(rng: random.Random, text: str) -> str:
    """A letter in the other case."""
    at = rng.randrange(len(text))
    return text[:at] + text[at].swapcase() + text[at + 1 :]


def escape_one(rng: random.Random, text: str) -> str:
    """A letter as an escape."""
    at = rng.choice([at for at, letter in enumerate(text) if letter.isalpha()])
    return f"{text[:at]}\\u{ord(text[at]):04x}{text[at + 1 :]}"


def repeat_one(rng: random.Random, text: str) -> str:
    """A member of HostConfig once more, with another value, perhaps in another case."""
    name = rng.choice(sorted(VALUES))
    member = f'"{rng.choice([name, name.lower(), name.upper()])}": '
    member += json.dumps(rng.choice(VALUES[name]))
    place = rng.choice(['"HostConfig": {', "{"])
    return text.replace(place, f"{place}{member}, ", 1)


def twice(rng: random.Random, text: str) -> str:
    """The whole body twice, or with something behind it."""
    return text + rng.choice([text, " ", "\n", "\x00", "null", "]"])


def odd_letter(rng: random.Random, text: str) -> str:
    """Letters that Go takes for k and s."""
    return text.replace(*rng.choice([("k", "\u212a"), ("s", "\u017f"), ("S", "\u017f")]), 1)


REWRITES = [swap_case, escape_one, repeat_one, twice, odd_letter]


def of_the_host(shown: dict[str, Any]) -> list[str]:
    """What a container has of the host, by the engine's inspect."""
    host = shown["HostConfig"]
    empty = (
        "Privileged CapAdd PidMode UTSMode UsernsMode CgroupParent Devices DeviceCgroupRules "
        "DeviceRequests Sysctls VolumesFrom Links OomScoreAdj"
    ).split()
    found = [name for name in empty if host.get(name)]
    found += [bind for bind in host["Binds"] or () if bind.startswith("/") and ":" in bind]
    found += [mount["Source"] for mount in shown["Mounts"] if mount["Type"] == "bind"]
    found += [str(mount) for mount in host.get("Mounts") or () if "DriverConfig" in str(mount)]
    for name in ("NetworkMode", "IpcMode", "CgroupnsMode"):
        mode = host.get(name) or ""
        found += [name] if mode == "host" or ":" in mode else []
    found += [option for option in host["SecurityOpt"] or () if option != "no-new-privileges"]
    found += ["MaskedPaths"] if len(host["MaskedPaths"] or ()) < 9 else []
    found += ["ReadonlyPaths"] if len(host["ReadonlyPaths"] or ()) < 5 else []
    found += ["LogConfig"] if host["LogConfig"]["Type"] not in ("json-file", "local") else []
    return found + [options for options in (host.get("Tmpfs") or {}).values() if "sha" in options]


def test_bodies_at_random_pass_only_without_anything_of_the_host(
    ground: Ground, guarded: ProxyProcess
) -> None:
    engine, name, rng = ground.engine, f"{PREFIX}-random", random.Random(23)
    default_cgroups = of_the_host_by_default(ground)
    passed = 0
    for _ in range(RANDOM_BODIES):
        body = one_body(rng, ground.helper)
        target = f"{rng.choice(['', '/v1.41', f'/v{engine.api}'])}/containers/create?name={name}"
        fields = "Content-Type: application/json\r\n"
        answer = ask(guarded.socket, plain("POST", target, body, fields))
        if answer.status != 201:
            assert not exists(engine, name), body
            continue
        passed += 1
        shown = api(engine.socket, "GET", f"/containers/{name}/json")
        removed(engine, name)
        assert set(of_the_host(shown)) <= set(default_cgroups), body
    for volume in api(engine.socket, "GET", "/volumes")["Volumes"] or ():  # in either case
        if volume["Name"].lower() == "guard-e2e-fuzz":
            ask(engine.socket, plain("DELETE", f"/volumes/{volume['Name']}"))
    assert passed > RANDOM_BODIES // 10


def of_the_host_by_default(ground: Ground) -> list[str]:
    """What every container has: on cgroup v1 the host's cgroup namespace."""
    return of_the_host(api(ground.engine.socket, "GET", f"/containers/{ground.helper}/json"))


# ================================================================================================
# what passes
# ================================================================================================


@pytest.mark.parametrize(
    "value", [DOCKER_CLI, TESTCONTAINERS, GITLAB_RUNNER, PORTAINER], ids=["cli", "tc", "ci", "port"]
)
def test_creates_as_known_clients_send_them_pass(
    value: dict[str, Any], ground: Ground, guarded: ProxyProcess
) -> None:
    name = f"{PREFIX}-client"
    target = f"/v1.41/containers/create?name={name}"
    try:
        assert ask(guarded.socket, as_json("POST", target, value)).status == 201
        assert ask(guarded.socket, plain("POST", f"/containers/{name}/start")).status == 204
    finally:
        removed(ground.engine, name)
        for text in value["HostConfig"].get("Binds") or ():
            ask(ground.engine.socket, plain("DELETE", f"/volumes/{text.partition(':')[0]}"))


def test_the_file_admits_what_it_lists_and_no_more(
    ground: Ground, folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    socket = "/var/run/docker.sock"
    (folder / "guard.ini").write_text(f"[guard]\nbind = {socket}\nbind-ro = /usr/**\n")
    proxy = start_proxy(ground.engine.socket, "--guard", str(folder / "guard.ini"))
    name = f"{PREFIX}-listed"
    for value, status in (
        (RYUK, 201),
        ({"Image": "busybox", "HostConfig": {"Binds": ["/usr/bin:/h:ro"]}}, 201),
        ({"Image": "busybox", "HostConfig": {"Binds": ["/usr/bin:/h"]}}, 403),
        ({"Image": "busybox", "HostConfig": {"Binds": ["/usr/../etc:/h:ro"]}}, 403),
    ):
        sent = as_json("POST", f"/containers/create?name={name}", value)
        assert ask(proxy.socket, sent).status == status, value
        removed(ground.engine, name)


def test_the_docker_cli_works(ground: Ground, guarded: ProxyProcess) -> None:
    def docker(*arguments: str, check: bool = True, **given: Any) -> str:
        run = ground.engine.docker(
            *arguments, host=f"unix://{guarded.socket}", check=check, **given
        )
        return (run.stdout + run.stderr).decode()

    name, volume = f"{PREFIX}-cli", f"{PREFIX}-cli-data"
    assert docker("run", "--rm", "--network", "none", "busybox", "echo", "ran").strip() == "ran"
    piped = docker("run", "-i", "--rm", "--network", "none", "busybox", "cat", stdin=b"piped")
    assert piped == "piped"
    try:
        docker("volume", "create", volume)
        options = (
            "--network none --memory 64m --cpus 0.5 --ulimit nofile=99:99 --init --read-only "
            "--cap-drop ALL --security-opt no-new-privileges --tmpfs /t:size=1m --hostname h "
            f"--mount type=volume,src={volume},dst=/d --log-opt max-size=1m --restart no "
            "--health-cmd true --pids-limit 50 --shm-size 8m --label a=b --user 1000:1000"
        )
        docker("run", "-d", "--name", name, *options.split(), "busybox", "sleep", "600")
        assert docker("exec", name, "echo", "in").strip() == "in"
        docker("exec", "-d", name, "true")
        docker("update", "--memory", "32m", "--memory-swap", "64m", name)
        docker("restart", "-t", "0", name)
        said = docker("run", "--rm", "-v", "/:/h", "busybox", "true", check=False)
        assert "`bind = /` in the guard's file admits it" in re.sub(r"\s+", " ", said)
    finally:
        removed(ground.engine, name)
        ask(ground.engine.socket, plain("DELETE", f"/volumes/{volume}?force=1"))


COMPOSE = """
services:
  web:
    image: busybox
    command: sleep 600
    volumes: ["data:/data"]
    networks: {front: {aliases: [www]}}
    environment: {A: b}
    healthcheck: {test: ["CMD", "true"]}
    deploy: {resources: {limits: {memory: 64m}}}
    logging: {driver: json-file, options: {max-size: 1m}}
    configs: [made]
    depends_on: [db]
  db: {image: busybox, command: sleep 600, networks: [front]}
volumes: {data: {}}
networks: {front: {internal: true}}
configs: {made: {content: "written"}}
"""


def test_compose_brings_a_project_up_and_down(
    ground: Ground, guarded: ProxyProcess, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)

    def compose(*arguments: str, check: bool = True) -> str:
        command = ("compose", "-p", PREFIX, "-f", str(tmp_path / "compose.yaml"), *arguments)
        run = ground.engine.docker(*command, host=f"unix://{guarded.socket}", check=check)
        return run.stdout.decode()

    try:
        compose("up", "-d")
        assert compose("exec", "-T", "web", "cat", "/made") == "written"
    finally:
        compose("down", "-v", "-t", "0", check=False)


# ================================================================================================
# a swarm
# ================================================================================================

SHOWS = ["sh", "-c", "ls /h; ls /sys/class/net; grep -e CapPrm -e Seccomp: /proc/self/status"]
SERVICES: list[tuple[str, dict[str, Any], dict[str, Any], bytes]] = [
    ("a mount of /", {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/h"}]}, {}, b"proc\n"),
    ("a mount of a new volume that is /",
     {"Mounts": [{"Type": "volume", "Target": "/h", "VolumeOptions": {"DriverConfig": BIND}}]}, {},
     b"proc\n"),
    ("a capability", {"CapabilityAdd": ["CAP_SYS_ADMIN"]}, {}, b"a82425fb"),
    ("no seccomp", {"Privileges": {"Seccomp": {"Mode": "unconfined"}}}, {}, b"Seccomp:\t0"),
    ("a sysctl", {"Sysctls": {"net.core.somaxconn": "77"}}, {}, b""),
    ("the host's network", {}, {"Networks": [{"Target": "host"}]}, b"docker0"),
    ("the host's network by its id", {}, {"Networks": [{"Target": "{host}"}]}, b"docker0"),
    ("the host's network by the start of its id", {}, {"Networks": [{"Target": "{prefix}"}]},
     b"docker0"),
]  # fmt: skip


def service(name: str, container: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """A service that runs once."""
    spec = {"Image": "busybox", "Command": SHOWS, **container}
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": spec, "RestartPolicy": {"Condition": "none"}, **task},
    }


@pytest.mark.full
def test_an_escape_by_a_service_works_without_the_guard_and_not_with_it(
    real_engine: RealEngine, folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    with own_swarm(real_engine) as engine:
        proxy = start_proxy(engine.socket, "--guard", "strict")
        host = api(engine.socket, "GET", "/networks/host")["Id"]
        for name, container, task, shown in SERVICES:
            text = json.dumps(service(f"{PREFIX}-task", container, task))
            spec = json.loads(text.replace("{host}", host).replace("{prefix}", host[:5]))
            created = as_json("POST", "/services/create", spec)
            answer = ask(engine.socket, created)
            if answer.status == 201:
                wait_for(lambda want=shown: want in task_log(engine), name)
                ask(engine.socket, plain("DELETE", f"/services/{PREFIX}-task"))
            else:
                assert engine.api != "1.51", (name, answer)
            assert ask(proxy.socket, created).status == 403, name
        guarded_host = f"unix://{proxy.socket}"
        engine.docker("network", "create", "-d", "overlay", f"{PREFIX}-net", host=guarded_host)
        options = ("--network", f"{PREFIX}-net", "--mount", f"src={PREFIX}-vol,dst=/v")
        command = ("service", "create", "-d", "--name", f"{PREFIX}-ok", *options, "busybox")
        engine.docker(*command, "sleep", "600", host=guarded_host)
        engine.docker("service", "update", "-d", "--env-add", "A=b", f"{PREFIX}-ok",
                      host=guarded_host)  # fmt: skip
        engine.docker("service", "rm", f"{PREFIX}-ok", host=guarded_host)


def task_log(engine: RealEngine) -> bytes:
    """What the service has printed."""
    return ask(engine.socket, plain("GET", f"/services/{PREFIX}-task/logs?stdout=1")).body
