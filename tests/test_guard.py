"""The guard: what gives a client the host is refused, whatever its spelling; the rest passes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from guardcases import DOCKER_CLI, GITLAB_RUNNER, PORTAINER, RYUK, TESTCONTAINERS
from raw import ask
from scripted import ScriptedEngine, json_answer
from wire import read_all, read_until

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.guard import Guard
from _dockeraudit.guardfields import FIELD_ROWS, SHAPES, Field
from _dockeraudit.guardfile import GUARD_WORDS, Exceptions, guard_exceptions
from _dockeraudit.guardroutes import GUARDED_ROUTES, QUERIES, guarded_route
from _dockeraudit.guardrules import JUDGES, Objection
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import load_settings
from _dockeraudit.routes import parse_request
from conftest import DEADLINE, ProxyProcess, wait_for

CREATE = "/v1.51/containers/create"
DEFINITION = Path(__file__).parent / "api_fields.txt"


def against_request(
    guard: Guard, method: str, target: str, body: bytes = b"", *fields: str
) -> list[Objection]:
    """All that a guard has against a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: d", *fields, f"Content-Length: {len(body)}"]
    head, route = parse_request("\r\n".join([*lines, "", ""]).encode("latin-1"))
    found = list(guard.refuses(head, route))
    if guard.wants(head, route):
        verdict = guard.judge(head, route, body)
        assert verdict.body is body
        found += [Objection(*objection) for objection in verdict.objections]
    return found


def strict(**words: list[str]) -> Guard:
    return Guard(Exceptions({word.replace("_", "-"): values for word, values in words.items()}))


def against_value(guard: Guard, target: str, value: Any) -> list[Objection]:
    return against_request(guard, "POST", target, json.dumps(value).encode())


def host(**fields: Any) -> dict[str, Any]:
    return {"Image": "busybox", "HostConfig": fields}


def mount(**fields: Any) -> dict[str, Any]:
    return host(Mounts=[{"Target": "/m", **fields}])


def endpoints(**networks: Any) -> dict[str, Any]:
    return {"Image": "x", "NetworkingConfig": {"EndpointsConfig": networks}}


def volume(**options: str) -> dict[str, Any]:
    return {"Name": "v", "Driver": "local", "DriverOpts": options}


def service(**fields: Any) -> dict[str, Any]:
    return {"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "x", **fields}}}


def task(**fields: Any) -> dict[str, Any]:
    return {"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "x"}, **fields}}


# ================================================================================================
# one value after another: what is refused, by which rule, and the word that admits it
# ================================================================================================

DRIVER = {"DriverConfig": {"Name": "local", "Options": {"o": "bind", "device": "/"}}}
REFUSED: list[tuple[str, Any, str, str]] = [
    (CREATE, host(Privileged=True), "HostConfig.Privileged", "field = HostConfig.Privileged"),
    (CREATE, host(CapAdd=["NET_RAW"]), "HostConfig.CapAdd", "capability = NET_RAW"),
    (CREATE, host(CapAdd=["cap_sys_admin"]), "HostConfig.CapAdd", "capability = SYS_ADMIN"),
    (CREATE, host(CapAdd=["ALL"]), "HostConfig.CapAdd", "capability = ALL"),
    (CREATE, host(Devices=[{"PathOnHost": "/dev/sda"}]), "HostConfig.Devices[].PathOnHost",
     "device = /dev/sda"),
    (CREATE, host(DeviceCgroupRules=["b *:* rwm"]), "HostConfig.DeviceCgroupRules",
     "device-rule = b *:* rwm"),
    (CREATE, host(DeviceRequests=[{"Count": -1, "Capabilities": [["gpu"]]}]),
     "HostConfig.DeviceRequests", "device-request = gpu"),
    (CREATE, host(DeviceRequests=[{"Count": -1}]), "HostConfig.DeviceRequests", ""),
    (CREATE, host(NetworkMode="host"), "HostConfig.NetworkMode", "network = host"),
    (CREATE, host(NetworkMode="container:db"), "HostConfig.NetworkMode", "container = db"),
    (CREATE, host(NetworkMode="ns:/proc/1/ns/net"), "HostConfig.NetworkMode",
     "network = ns:/proc/1/ns/net"),
    (CREATE, host(PidMode="host"), "HostConfig.PidMode", "pid = host"),
    (CREATE, host(PidMode="container:db"), "HostConfig.PidMode", "container = db"),
    (CREATE, host(IpcMode="host"), "HostConfig.IpcMode", "ipc = host"),
    (CREATE, host(IpcMode="container:db"), "HostConfig.IpcMode", "container = db"),
    (CREATE, host(UTSMode="host"), "HostConfig.UTSMode", "uts = host"),
    (CREATE, host(UsernsMode="host"), "HostConfig.UsernsMode", "userns = host"),
    (CREATE, host(CgroupnsMode="host"), "HostConfig.CgroupnsMode", "cgroupns = host"),
    (CREATE, host(Cgroup="container:db"), "HostConfig.Cgroup", "container = db"),
    (CREATE, host(CgroupParent="/"), "HostConfig.CgroupParent", "cgroup-parent = /"),
    (CREATE, host(Binds=["/:/h"]), "HostConfig.Binds", "bind = /"),
    (CREATE, host(Binds=["/etc:/h:ro"]), "HostConfig.Binds", "bind-ro = /etc"),
    (CREATE, host(Binds=["/srv/x/:/h:rw,z"]), "HostConfig.Binds", "bind = /srv/x"),
    (CREATE, host(Binds=["/srv/../etc:/h"]), "HostConfig.Binds", ""),
    (CREATE, host(Binds=["//etc:/h"]), "HostConfig.Binds", ""),
    (CREATE, host(Binds=["../etc:/h"]), "HostConfig.Binds", ""),
    (CREATE, host(Binds=["v:/h:rshared"]), "HostConfig.Binds", ""),
    (CREATE, host(Binds=["v:/h:rw:x"]), "HostConfig.Binds", ""),
    (CREATE, host(Binds=["v:rw"]), "HostConfig.Binds", ""),
    (CREATE, mount(Type="bind", Source="/etc"), "HostConfig.Mounts[].Source", "bind = /etc"),
    (CREATE, mount(Type="bind", Source="etc"), "HostConfig.Mounts[].Source", ""),
    (CREATE, mount(Type="Bind", Source="/etc"), "HostConfig.Mounts[].Type",
     "field = HostConfig.Mounts[].Type"),
    (CREATE, mount(Source="/etc"), "HostConfig.Mounts[].Type", "field = HostConfig.Mounts[].Type"),
    (CREATE, mount(Type="npipe", Source="/etc"), "HostConfig.Mounts[].Type",
     "field = HostConfig.Mounts[].Type"),
    (CREATE, mount(Type="cluster", Source="x"), "HostConfig.Mounts[].Type",
     "field = HostConfig.Mounts[].Type"),
    (CREATE, mount(Type="volume", Source="/etc"), "HostConfig.Mounts[].Source", ""),
    (CREATE, mount(Type="volume", VolumeOptions=DRIVER),
     "HostConfig.Mounts[].VolumeOptions.DriverConfig", "bind = /"),
    (CREATE, mount(Type="tmpfs", TmpfsOptions={"Options": [["rshared"]]}),
     "HostConfig.Mounts[].TmpfsOptions.Options", ""),
    (CREATE, mount(Type="tmpfs", TmpfsOptions={"Options": [["size", "1m,rshared"]]}),
     "HostConfig.Mounts[].TmpfsOptions.Options", ""),
    (CREATE, mount(Type="tmpfs", Source="/etc"), "HostConfig.Mounts[].Source", ""),
    (CREATE, host(Tmpfs={"/t": "rw,shared"}), "HostConfig.Tmpfs", ""),
    (CREATE, host(VolumeDriver="x"), "HostConfig.VolumeDriver", "volume-driver = x"),
    (CREATE, host(VolumesFrom=["db:ro"]), "HostConfig.VolumesFrom", "container = db"),
    (CREATE, host(Links=["/db:alias"]), "HostConfig.Links", "container = db"),
    (CREATE, host(SecurityOpt=["seccomp=unconfined"]), "HostConfig.SecurityOpt",
     "security-opt = seccomp=unconfined"),
    (CREATE, host(SecurityOpt=["no-new-privileges:false"]), "HostConfig.SecurityOpt",
     "security-opt = no-new-privileges:false"),
    (CREATE, host(Sysctls={"net.core.somaxconn": "1"}), "HostConfig.Sysctls",
     "sysctl = net.core.somaxconn"),
    (CREATE, host(Runtime="runc"), "HostConfig.Runtime", "runtime = runc"),
    (CREATE, host(OomScoreAdj=-1000), "HostConfig.OomScoreAdj", "field = HostConfig.OomScoreAdj"),
    (CREATE, host(OomKillDisable=True), "HostConfig.OomKillDisable",
     "field = HostConfig.OomKillDisable"),
    (CREATE, host(MaskedPaths=[]), "HostConfig.MaskedPaths", "field = HostConfig.MaskedPaths"),
    (CREATE, host(ReadonlyPaths=["/proc/bus"]), "HostConfig.ReadonlyPaths",
     "field = HostConfig.ReadonlyPaths"),
    (CREATE, host(Annotations={"a": "b"}), "HostConfig.Annotations", "annotation = a"),
    (CREATE, host(LogConfig={"Type": "syslog"}), "HostConfig.LogConfig", "log-driver = syslog"),
    (CREATE, host(LogConfig={"Type": "", "Config": {"syslog-address": "udp://x"}}),
     "HostConfig.LogConfig", ""),
    (CREATE, host(StorageOpt={"dm.x": "1"}), "HostConfig.StorageOpt", "storage-opt = dm.x"),
    (CREATE, host(Ulimits=[{"Name": "rtprio", "Soft": 9, "Hard": 9}]),
     "HostConfig.Ulimits[].Name", "ulimit = rtprio"),
    (CREATE, host(Ulimits=[{"Name": "core", "Soft": -1, "Hard": -1}]),
     "HostConfig.Ulimits[].Name", "ulimit = core"),
    (CREATE, host(Isolation="process"), "HostConfig.Isolation", "field = HostConfig.Isolation"),
    ("/v1.40/containers/create", host(Capabilities=["ALL"]), "HostConfig.Capabilities",
     "field = HostConfig.Capabilities"),
    (CREATE, endpoints(host={}),
     "NetworkingConfig.EndpointsConfig", "network = host"),
    (CREATE, endpoints(n={"DriverOpts": {"a": "b"}}),
     "NetworkingConfig.EndpointsConfig{}.DriverOpts", "network-option = a"),
    (CREATE, endpoints(n={"Links": ["db:x"]}),
     "NetworkingConfig.EndpointsConfig{}.Links", "container = db"),
    (CREATE, {"Image": "x", "Privileged": True}, "?", "field = Privileged"),
    (CREATE, {"Image": "x", "VolumesFrom": ["db"]}, "VolumesFrom", "field = VolumesFrom"),
    (CREATE, {"Image": "x", "Volumes": {"/etc:/x": {}}}, "Volumes", ""),
    (CREATE, mount(Type="tmpfs", Target="/x,type=bind"), "HostConfig.Mounts[].Target", ""),
    (CREATE, host(Tmpfs={"/t:/x": ""}), "HostConfig.Tmpfs", ""),
    (CREATE, {"Image": "x", "MaskedPaths": []}, "?", "field = MaskedPaths"),
    (CREATE, host(maskedpaths=[]), "HostConfig.?", ""),
    (CREATE, mount(Type="bind", Source="/x", ReadOnly=True, readonly=False),
     "HostConfig.Mounts[].?", ""),
    (CREATE, {"Image": "x", "Binds": ["/:/h"]}, "?", "field = Binds"),
    (CREATE, {"Image": "x", "hostconfig": {"Privileged": True}}, "?", ""),
    (CREATE, host(privileged=True), "HostConfig.?", ""),
    (CREATE, {"Image": "x", "Ho\u017ftConfig": {}}, "?", ""),
    (CREATE, {"Image": "x", "HostConfig": {"Networ\u212aMode": "host"}}, "HostConfig.?", ""),
    (CREATE, host(Privileged="true"), "HostConfig.Privileged", ""),
    (CREATE, host(Privileged=1), "HostConfig.Privileged", ""),
    (CREATE, host(Binds="/:/h"), "HostConfig.Binds", ""),
    (CREATE, host(Mounts=[None]), "HostConfig.Mounts", ""),
    (CREATE, host(Mounts={"Type": "bind"}), "HostConfig.Mounts", ""),
    (CREATE, host(Memory=1.0), "HostConfig.Memory", ""),
    (CREATE, host(Memory=2**65), "HostConfig.Memory", ""),
    (CREATE, {"Image": "x", "HostConfig": []}, "HostConfig", ""),
    (CREATE, {"Image": "x", "HostConfig": {"New": 1}}, "HostConfig.?", "field = HostConfig.New"),
    ("/v1.41/containers/create", host(Annotations={"a": "b"}), "HostConfig.Annotations",
     "field = HostConfig.Annotations"),
    ("/containers/web/update", {"CgroupParent": "/"}, "CgroupParent", "cgroup-parent = /"),
    ("/containers/web/update", {"Devices": [{"PathOnHost": "/dev/sda"}]}, "Devices[].PathOnHost",
     "device = /dev/sda"),
    ("/containers/web/update", {"Privileged": True}, "?", "field = Privileged"),
    ("/containers/web/exec", {"Cmd": ["sh"], "Privileged": True}, "Privileged",
     "field = Privileged"),
    ("/volumes/create", volume(type="none", o="bind", device="/"), "DriverOpts", "bind = /"),
    ("/volumes/create", volume(type="none", o="ro,rbind", device="/x"), "DriverOpts",
     "bind = /x"),
    ("/volumes/create", volume(device="/"), "DriverOpts", "bind = /"),
    ("/volumes/create", volume(type="tmpfs", o="bind", device="/"), "DriverOpts", "bind = /"),
    ("/volumes/create", volume(type="nfs", o="bind,addr=x", device="/"), "DriverOpts", ""),
    ("/volumes/create", volume(type="nfs", o="addr=x", device=":/x"), "DriverOpts",
     "volume-type = nfs"),
    ("/volumes/create", volume(type="nfs", o="remount", device="/x"), "DriverOpts", ""),
    ("/volumes/create", volume(type="ext4", device="/dev/sda1"), "DriverOpts",
     "volume-type = ext4"),
    ("/volumes/create", volume(type="overlay", o="lowerdir=/,upperdir=/u,workdir=/w",
                               device="overlay"), "DriverOpts", "volume-type = overlay"),
    ("/volumes/create", volume(mountpoint="/"), "DriverOpts", ""),
    ("/volumes/create", volume(Type="none", O="bind", device="/"), "DriverOpts", ""),
    ("/volumes/create", {"Driver": "rexray", "DriverOpts": {"a": "b"}}, "DriverOpts",
     "volume-driver = rexray"),
    ("/volumes/create", {"Name": "x", "ClusterVolumeSpec": {"Group": "g"}}, "ClusterVolumeSpec",
     "field = ClusterVolumeSpec"),
    ("/networks/create", {"Name": "n", "Driver": "macvlan"}, "Driver", "network-driver = macvlan"),
    ("/networks/create", {"Name": "n", "Driver": "host"}, "Driver", "network-driver = host"),
    ("/networks/create", {"Name": "n", "Options": {"com.docker.network.bridge.name": "br0"}},
     "Options", "network-option = com.docker.network.bridge.name"),
    ("/networks/create", {"Name": "n", "Options": {"parent": "eth0"}}, "Options",
     "network-option = parent"),
    ("/networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "8.8.8.0/24"}]}},
     "IPAM.Config[].Subnet", "subnet = 8.8.8.0/24"),
    ("/networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "169.254.169.0/24"}]}},
     "IPAM.Config[].Subnet", "subnet = 169.254.169.0/24"),
    ("/networks/create", {"Name": "n", "IPAM": {"Config": [{"IPRange": "8.8.8.0/24"}]}},
     "IPAM.Config[].IPRange", "subnet = 8.8.8.0/24"),
    ("/networks/create", {"Name": "n", "IPAM": {"Driver": "x"}}, "IPAM.Driver",
     "field = IPAM.Driver"),
    ("/networks/create", {"Name": "n", "Ingress": True}, "Ingress", "field = Ingress"),
    ("/networks/n/connect", {"Container": "c", "EndpointConfig": {"DriverOpts": {"a": "b"}}},
     "EndpointConfig.DriverOpts", "network-option = a"),
    ("/services/create", service(Mounts=[{"Type": "bind", "Source": "/", "Target": "/h"}]),
     "TaskTemplate.ContainerSpec.Mounts[].Source", "bind = /"),
    ("/services/create", service(CapabilityAdd=["SYS_ADMIN"]),
     "TaskTemplate.ContainerSpec.CapabilityAdd", "capability = SYS_ADMIN"),
    ("/services/create", service(Privileges={"Seccomp": {"Mode": "unconfined"}}),
     "TaskTemplate.ContainerSpec.Privileges", "field = TaskTemplate.ContainerSpec.Privileges"),
    ("/services/create", service(Sysctls={"kernel.x": "1"}),
     "TaskTemplate.ContainerSpec.Sysctls", "sysctl = kernel.x"),
    ("/services/create", task(Networks=[{"Target": "host"}]), "TaskTemplate.Networks[].Target",
     "network = host"),
    ("/services/create", task(Runtime="plugin"), "TaskTemplate.Runtime",
     "field = TaskTemplate.Runtime"),
    ("/services/create", task(PluginSpec={"Name": "p", "Remote": "evil"}),
     "TaskTemplate.PluginSpec", "field = TaskTemplate.PluginSpec"),
    ("/services/create", task(NetworkAttachmentSpec={"ContainerID": "x"}),
     "TaskTemplate.NetworkAttachmentSpec", "field = TaskTemplate.NetworkAttachmentSpec"),
    ("/services/create", task(LogDriver={"Name": "gelf"}), "TaskTemplate.LogDriver",
     "log-driver = gelf"),
    ("/services/x/update?version=1", {"Networks": [{"Target": "host"}]}, "Networks[].Target",
     "network = host"),
    ("/secrets/create", {"Name": "s", "Driver": {"Name": "vault"}}, "Driver", "field = Driver"),
    ("/configs/create", {"Name": "s", "Templating": {"Name": "golang"}}, "Templating",
     "field = Templating"),
    ("/commit?container=x", {"HostConfig": {"Privileged": True}}, "?",
     "field = HostConfig"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "value", "rule", "admits"), REFUSED)
def test_what_is_beyond_the_defaults_is_refused_and_its_word_admits_it(
    target: str, value: Any, rule: str, admits: str
) -> None:
    first = against_value(strict(), target, value)[0]
    assert first.rule == f"guard:{rule}" and first.admits == admits
    assert rule.strip("?.") in first.message
    assert (f"`{admits}`" if admits else "nothing admits") in first.message
    if admits:
        word, _, text = admits.partition(" = ")
        guard = Guard(guard_exceptions("g.ini", [("guard", [(word, text)])]))
        assert not against_value(guard, target, value)


def test_a_refusal_names_what_else_is_refused() -> None:
    value = host(Privileged=True, PidMode="host", CapAdd=["ALL", "SYS_ADMIN"])
    found = against_value(strict(), CREATE, value)
    assert len(found) == 4
    assert found[0].message.endswith("also refused: HostConfig.PidMode, HostConfig.CapAdd")


def test_a_long_value_is_shown_in_short() -> None:
    found = against_value(strict(), CREATE, host(SecurityOpt=["seccomp=" + "x" * 9000]))
    assert len(found[0].message) < 200 and not found[0].admits
    found = against_value(strict(), CREATE, host(**{"N" * 9000: 1}))
    assert found[0].rule == "guard:HostConfig.?" and not found[0].admits
    assert len(found[0].message) < 400


def test_so_many_objections_are_looked_for_and_no_more() -> None:
    assert len(against_value(strict(), CREATE, host(Binds=["/x:/y"] * 9000))) == 32
    assert len(against_value(strict(), CREATE, host(Devices=[1] * 9000))) == 32


# ================================================================================================
# what passes
# ================================================================================================

PASSES: list[tuple[str, Any]] = [
    (CREATE, DOCKER_CLI),
    ("/v1.41/containers/create?name=x&platform=linux/amd64", DOCKER_CLI),
    ("/containers/create", DOCKER_CLI),
    (CREATE, TESTCONTAINERS),
    (CREATE, GITLAB_RUNNER),
    (CREATE, PORTAINER),
    (CREATE + "?name=x&Image=busybox&HostConfig=%7B%22Privileged%22%3Atrue%7D", PORTAINER),
    (CREATE, host(Binds=["data:/data", "data:/d:ro", "/anonymous"], VolumeDriver="local")),
    (CREATE, mount(Type="volume", Source="data", VolumeOptions={"NoCopy": True, "Subpath": "x"})),
    (CREATE, mount(Type="tmpfs", TmpfsOptions={"SizeBytes": 1})),
    (CREATE, mount(Type="tmpfs", TmpfsOptions={"Options": [["exec"], ["size", "1m"]]})),
    (CREATE, mount(Type="image", Source="busybox", ImageOptions={"Subpath": "bin"})),
    (CREATE, host(Tmpfs={"/t": "rw,size=1m,mode=1777,uid=5,noexec", "/u": ""})),
    (CREATE, host(NetworkMode="bridge", IpcMode="private", CgroupnsMode="private")),
    (CREATE, host(SecurityOpt=["no-new-privileges"], Ulimits=[{"Name": "core"}])),
    (CREATE, host(LogConfig={"Type": "local", "Config": {"max-size": "1m"}})),
    (CREATE, host(MaskedPaths=None, StorageOpt={"size": "1G"}, Isolation="default")),
    (CREATE, {"Image": "x", "Cmd": "echo", "Entrypoint": "sh", "Volumes": {"/data": {}}}),
    ("/v1.41/containers/create", host(Annotations={}, Mounts=[])),
    ("/containers/web/update", {"Memory": 1, "RestartPolicy": {"Name": "no"}}),
    ("/containers/web/exec", {"Cmd": ["sh"], "Tty": True, "Detach": True, "User": "root",
                              "Container": "web", "detachKeys": ""}),
    ("/volumes/create", {"Name": "v", "Labels": {"a": "b"}, "Driver": "local", "DriverOpts": {}}),
    ("/volumes/create", {}),
    ("/volumes/create", volume(type="tmpfs", device="tmpfs", o="size=100m,uid=1000")),
    ("/networks/create", {"Name": "n", "Driver": "bridge", "Internal": True,
                          "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.28.0.0/16"}]}}),
    ("/networks/create", {"Name": "n", "CheckDuplicate": True, "EnableIPv6": True,
                          "IPAM": {"Config": [{"Subnet": "fd00:1::/64"}]}}),
    ("/networks/n/connect", {"Container": "c", "EndpointConfig": {"Aliases": ["a"]}}),
    ("/services/create", service(Mounts=[{"Type": "volume", "Source": "v", "Target": "/v"}],
                                 Privileges={"NoNewPrivileges": True}, Secrets=[])),
    ("/services/create", {**task(Runtime="container"), "Mode": {"Global": {}},
                          "UpdateConfig": {"MaxFailureRatio": 0.5}}),
    ("/secrets/create", {"Name": "s", "Data": "eA==", "Labels": {}}),
    ("/commit?container=x", {"Cmd": ["x"], "Labels": None}),
]  # fmt: skip


@pytest.mark.parametrize(("target", "value"), PASSES)
def test_what_containers_have_by_default_passes(target: str, value: Any) -> None:
    assert against_value(strict(), target, value) == []


def test_a_listed_container_or_one_that_the_caller_admits_may_be_shared() -> None:
    value = host(NetworkMode="container:db", VolumesFrom=["db"], Links=["db"])
    assert len(against_value(strict(), CREATE, value)) == 3
    assert not against_value(strict(container=["db"]), CREATE, value)
    asked: list[str] = []
    guard = Guard(Exceptions(), admits_container=lambda name: not asked.append(name))
    assert not against_value(guard, CREATE, value) and asked == ["db"] * 3


def test_a_listed_path_is_mounted_by_every_kind_of_mount() -> None:
    guard = strict(bind=["/srv/ci"], bind_ro=["/srv/models/**", "/etc/hosts"])
    for value in (
        host(Binds=["/srv/ci:/x", "/srv/ci/:/y:ro,rslave", "/etc/hosts:/h:ro"]),
        host(Binds=["/srv/models:/x:ro", "/srv/models/a/b:/y:ro,z"]),
        mount(Type="bind", Source="/srv/ci", BindOptions={"Propagation": "rprivate"}),
        mount(Type="bind", Source="/srv/models/a", ReadOnly=True),
        mount(Type="volume", VolumeOptions={"DriverConfig": {"Options": {
            "type": "none", "o": "bind", "device": "/srv/ci"}}}),
    ):  # fmt: skip
        assert not against_value(guard, CREATE, value), value
    for value in (
        host(Binds=["/srv/ci/x:/x"]),
        host(Binds=["/srv/cix:/x"]),
        host(Binds=["/etc/hosts:/x"]),
        host(Binds=["/srv/models/a:/x"]),
        host(Binds=["/srv/modelsx:/x:ro"]),
        host(Binds=["/srv/models/../ci:/x:ro"]),
        mount(Type="bind", Source="/srv/models/a"),
        mount(Type="bind", Source="/srv/ci", BindOptions={"Propagation": "rshared"}),
        mount(Type="bind", Source="/srv/models/a", ReadOnly=False),
        mount(
            Type="bind",
            Source="/srv/models/a",
            ReadOnly=True,
            BindOptions={"ReadOnlyNonRecursive": True},
        ),
        host(Binds=["/srv/models/a:/x:ro,rw"]),
        mount(
            Type="volume",
            VolumeOptions={
                "DriverConfig": {
                    "Options": {"type": "none", "o": "bind,ro,rw", "device": "/srv/models/a"}
                }
            },
        ),
    ):
        assert against_value(guard, CREATE, value), value


def test_a_services_network_is_told_by_the_name_that_the_engine_gives_it() -> None:
    names = {"a" * 64: "host", "b" * 64: "apps", "apps": "apps"}
    guard = Guard(Exceptions(), network_name=names.get)
    for target, refused in (("a" * 64, True), ("b" * 64, False), ("apps", False), ("gone", True)):
        value = task(Networks=[{"Target": target}])
        assert bool(against_value(guard, "/services/create", value)) == refused


# ================================================================================================
# spellings: JSON, routes, versions, heads
# ================================================================================================

ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{}{}",
    b'{"Image":"x"} trailing',
    b"\xef\xbb\xbf{}",
    b'{"Image":"x","Image":"y"}',
    b'{"HostConfig":{"Privileged":false,"Privileged":true}}',
    b'{"HostConfig":{},"HostConfig":{"Privileged":true}}',
    b'{"HostConfig":{"Privileged":false,"\\u0050rivileged":true}}',
    b'{"HostConfig":{"\\u0050rivileged":true}}',
    b'{"HostConfig":{"PRIVILEGED":true}}',
    b'{"HOSTCONFIG":{"Privileged":true}}',
    b'{"HostConfig":{"Memory":NaN}}',
    b'{"HostConfig":{"Memory":1e3}}',
    b'{"Image":"\xff"}',
    b'{"Image":"\\ud800"}',
    '{"Image":"x"}'.encode("utf-16"),
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"\x1f\x8b\x08\x00",
    b"--x\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--x--",
]


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
def test_a_body_that_readers_differ_in_is_refused(body: bytes) -> None:
    assert against_request(strict(), "POST", CREATE, body)


SPELLINGS = [
    "/containers/create",
    "/v1.24/containers/create",
    "/v1.41/containers/create",
    "/v1.99/containers/create",
    "/v1.51/containers/%63reate",
    "/%76%31.51/containers%2Fcreate",
    "http://any/v1.51/containers/create",
    "x:/containers/create",
    "/v1.51.0/containers/create",
    "/v01.51/containers/create",
    "/v1.12/containers/create",
    "/v1..51/containers/create",
    "/v/containers/create",
    "/v1.51/v1.51/containers/create",
    "//containers/create",
    "/containers//create",
    "/containers/./create",
    "/containers/x/../create",
    "/containers/create/",
    "/containers/create%00",
    "/Containers/Create",
    "/libpod/containers/create",
    "/containers/create?name=x&platform=",
    "/containers/create?anything=x",
    "/containers/create;x",
]


@pytest.mark.parametrize("target", SPELLINGS)
def test_no_spelling_of_the_route_passes(target: str) -> None:
    assert against_value(strict(), target, host(Privileged=True))


REFUSED_REQUESTS = [
    ("POST", "/v1.23/containers/x/start", b"", "guard:version"),
    ("POST", "/v1.41.0/containers/x/start", b"", "guard:version"),
    ("POST", "/containers/x/start", b'{"Privileged":true}', "guard:body"),
    ("POST", "/containers/x/start?checkpoint=c&checkpoint-dir=/etc", b"",
     "guard:/containers/*/start?checkpoint"),
    ("POST", "/containers/x/checkpoints", b"{}", "guard:route"),
    ("GET", "/containers/x/checkpoints?dir=/root", b"", "guard:route"),
    ("DELETE", "/containers/x/checkpoints/c?dir=/root", b"", "guard:route"),
    ("POST", "/containers/x/copy", b'{"Resource":"/etc"}', "guard:route"),
    ("POST", "/build?networkmode=host", b"", "guard:/build?networkmode"),
    ("POST", "/build?networkmode=default&networkmode=host", b"", "guard:/build?networkmode"),
    ("POST", "/build?n%65tworkmode=h%6fst", b"", "guard:/build?networkmode"),
    ("POST", "/build?networkmode=container:db", b"", "guard:/build?networkmode"),
    ("POST", "/build?cgroupparent=/", b"", "guard:/build?cgroupparent"),
    ("POST", "/build?securityopt=[]", b"", "guard:/build?securityopt"),
    ("POST", "/build?remote=http://10.0.0.1/x", b"", "guard:/build?remote"),
    ("POST", "/build?version=2", b"", "guard:/build?version"),
    ("POST", "/build?session=x", b"", "guard:/build?session"),
    ("POST", "/build?outputs=[]", b"", "guard:/build?outputs"),
    ("POST", "/build?entitlements=x", b"", "guard:/build?"),
    ("POST", '/build?ulimits=[{"Name":"rtprio","Soft":1,"Hard":1}]', b"",
     "guard:/build?ulimits[].Name"),
    ("POST", "/build?t=x;networkmode=host", b"", "guard:query"),
    ("POST", "/plugins/x/disable", b"", "guard:route"),
    ("DELETE", "/plugins/x?force=1", b"", "guard:route"),
    ("POST", "/build?ulimits=x", b"", "guard:/build?ulimits"),
    ("POST", "/images/create?fromSrc=http://10.0.0.1/x", b"", "guard:/images/create?fromSrc"),
    ("POST", "/plugins/pull?remote=evil", b"[]", "guard:route"),
    ("POST", "/plugins/create?name=x", b"", "guard:route"),
    ("POST", "/plugins/a/b/set", b"[]", "guard:route"),
    ("POST", "/plugins/x/upgrade", b"[]", "guard:route"),
    ("POST", "/plugins/x/enable", b"", "guard:route"),
    ("POST", "/swarm/init", b"{}", "guard:route"),
    ("POST", "/swarm/join", b"{}", "guard:route"),
    ("POST", "/nodes/x/update", b"{}", "guard:route"),
    ("POST", "/grpc", b"", "guard:route"),
    ("POST", "/session", b"", "guard:route"),
    ("PUT", "/volumes/x", b"{}", "guard:route"),
    ("PATCH", "/containers/x", b"{}", "guard:route"),
    ("POST", "/new", b"", "guard:route"),
    ("POST", "/libpod/pods/create", b"{}", "guard:route"),
    ("FOO", "/containers/json", b"", "guard:route"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "body", "rule"), REFUSED_REQUESTS)
def test_routes_and_parameters_beyond_the_defaults_are_refused(
    method: str, target: str, body: bytes, rule: str
) -> None:
    found = against_request(strict(), method, target, body)
    assert found and found[0].rule == rule
    if found[0].admits:
        word, _, text = found[0].admits.partition(" = ")
        guard = Guard(guard_exceptions("g.ini", [("guard", [(word, text)])]))
        assert rule not in [o.rule for o in against_request(guard, method, target, body)][:1] or (
            "checkpoint" in rule
        )


PASSING_REQUESTS = [
    ("GET", "/containers/json"),
    ("GET", "/v1.12/images/json"),
    ("HEAD", "/_ping"),
    ("POST", "/containers/x/start"),
    ("POST", "/v1.41/containers/x/start?detachKeys=ctrl-p"),
    ("POST", "/containers/a/b/stop?t=1"),
    ("POST", "/containers/x/attach?stream=1"),
    ("POST", "/exec/x/start"),
    ("DELETE", "/containers/x?force=1"),
    ("PUT", "/containers/x/archive?path=/"),
    ("POST", "/images/create?fromImage=busybox&tag=latest"),
    ("POST", "/images/create?fromSrc=-&repo=x"),
    ("POST", "/build?t=x&dockerfile=Dockerfile&networkmode=default&version=1&ulimits=null"),
    ("POST", '/build?ulimits=[{"Name":"nofile","Soft":1,"Hard":1}]&remote='),
    ("POST", "/commit?container=x"),
    ("POST", "/containers/prune"),
    ("POST", "/auth"),
]


@pytest.mark.parametrize(("method", "target"), PASSING_REQUESTS)
def test_requests_that_give_nobody_the_host_pass(method: str, target: str) -> None:
    assert against_request(strict(), method, target) == []


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "APPLICATION/X-WWW-FORM-URLENCODED; charset=utf-8",
        "multipart/form-data; boundary=x",
        "multipart/mixed; boundary=x",
    ],
)
def test_a_form_cannot_hide_parameters(kind: str) -> None:
    fields = ("Content-Type: application/x-tar", f"Content-Type: {kind}")
    found = against_request(strict(), "POST", "/build?t=x", b"networkmode=host", *fields)
    assert [objection.rule for objection in found] == ["guard:content-type"]


def test_a_route_that_is_judged_cannot_be_admitted_whole() -> None:
    guard = strict(route=["* /**"])
    assert against_value(guard, CREATE, host(Privileged=True))
    assert not against_request(guard, "POST", "/plugins/pull?remote=x")
    assert not against_request(guard, "POST", "/libpod/pods/create")


# ================================================================================================
# the file of exceptions
# ================================================================================================


def read(*keys: tuple[str, str], section: str = "guard") -> Exceptions:
    return guard_exceptions("g.ini", [(section, list(keys))])


def test_the_file_says_again_what_it_was_told() -> None:
    exceptions = read(("bind", "/srv/a"), ("capability", "cap_net_admin"), ("bind", "/srv/b"))
    assert exceptions.lines() == ["bind = /srv/a", "bind = /srv/b", "capability = NET_ADMIN"]


@pytest.mark.parametrize(
    ("word", "value", "why"),
    [
        ("bind", "srv", "absolute"),
        ("bind", "/srv/../etc", "absolute"),
        ("bind", "/srv/", "absolute"),
        ("bind", "//srv", "absolute"),
        ("bind", "/srv/*", "bind-ro = PATH/**"),
        ("bind", "/srv/**", "bind-ro = PATH/**"),
        ("bind-ro", "/srv/*/x", "bind-ro = PATH/**"),
        ("bind", "/srv:/x", "absolute"),
        ("bind", "", "empty"),
        ("subnet", "10.1", "network"),
        ("fetch", "https://github.com", "whole host"),
        ("fetch", "https://", "whole host"),
        ("route", "/swarm/init", "METHOD /path"),
        ("binds", "/x", "did you mean"),
        ("privileged", "yes", "is not one of bind"),
    ],
)
def test_a_wrong_word_or_value_is_a_sentence(word: str, value: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read((word, value))
    assert why in str(raised.value) and "g.ini" in str(raised.value)


def test_only_the_section_guard_is_read() -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(("bind", "/x"), section="listener a")
    assert "is not [guard]" in str(raised.value)


@pytest.mark.parametrize(
    "keys",
    [
        [("bind", "/srv"), ("bind", "/srv/x")],
        [("bind", "/srv"), ("bind-ro", "/srv/x")],
        [("bind", "/srv/x"), ("bind-ro", "/srv/**")],
        [("bind", "/srv"), ("bind-ro", "/srv/**")],
        [("bind", "/"), ("bind-ro", "/etc")],
    ],
)
def test_paths_by_which_a_container_could_choose_what_others_lead_to_are_refused(
    keys: list[tuple[str, str]],
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(*keys)
    assert "could make a link" in str(raised.value)


def test_paths_apart_are_taken() -> None:
    keys = ("bind", "/srv/a"), ("bind", "/srv/b"), ("bind-ro", "/srv/c/**"), ("bind-ro", "/srv/cx")
    assert read(*keys).lines() == [f"{word} = {path}" for word, path in keys]


# ================================================================================================
# the tables against the API's definitions
# ================================================================================================

#: what a definition's type is in the table
TYPES = {
    "string": ("text",),
    "integer": ("number",),
    "number": ("real",),
    "boolean": ("flag",),
    "[string]": ("texts", "words"),
    "[integer]": ("numbers",),
    "[[string]]": ("pairs",),
    "{string}": ("map",),
    "{object}": ("set", "{Endpoint}"),
    "{[object]}": ("{[Port]}",),
}
DEFINED = [line.split(" ") for line in DEFINITION.read_text().splitlines() if line[0] != "#"]
VERSIONS = ("1.41", "1.51", "1.55")


def paths_of(shape: str, minor: int, path: str = "") -> Iterator[tuple[str, Field]]:
    """The fields that the table has for a version, by their whole path."""
    for field in SHAPES[shape].values():
        if not (field.defined and field.since <= minor <= field.until):
            continue
        where = f"{path}.{field.name}" if path else field.name
        yield where, field
        inner = re.fullmatch(r"([\[{]*)([A-Z]\w*)([\]}]*)", field.type)
        if inner:
            marks = {"": "", "[": "[]", "{": "{}", "{[": "{}[]"}[inner[1]]
            yield from paths_of(inner[2], minor, where + marks)


def covered(path: str, known: dict[str, Field]) -> bool:
    """Whether a field lies within one that must be at its default as a whole."""
    parts = re.split(r"(?=[.\[{])", path)
    outer = ["".join(parts[:end]) for end in range(1, len(parts))]
    return any(name in known and known[name].type == "any" for name in outer)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", sorted({line[1] for line in DEFINED if line[0] == "field"}))
def test_every_field_of_the_definition_is_in_the_table_and_no_other(
    shape: str, version: str
) -> None:
    known = dict(paths_of(shape, int(version[2:])))
    defined = {
        path: kind
        for what, name, path, kind, versions in DEFINED
        if what == "field" and name == shape and version in versions.split(",")
    }
    missing = [path for path in defined if path not in known and not covered(path, known)]
    assert not missing, f"the definition of API {version} has these, the table does not: {missing}"
    extra = [path for path in known if path not in defined]
    assert not extra, f"the table has these, the definition of API {version} does not: {extra}"


@pytest.mark.parametrize("shape", sorted({line[1] for line in DEFINED if line[0] == "field"}))
def test_the_types_are_the_definitions(shape: str) -> None:
    known = {path: field for minor in (41, 51, 55) for path, field in paths_of(shape, minor)}
    for what, name, path, kind, _ in DEFINED:
        if what != "field" or name != shape or path not in known or known[path].type == "any":
            continue
        given = known[path].type
        fits = given in TYPES[kind] if kind in TYPES else "object" in kind
        assert fits, (path, kind, given)
        if "object" in kind and kind not in TYPES:  # moby's definition says object for an enum
            assert given[-1] in "]}" or given[0].isupper() or path.endswith("Type"), path


@pytest.mark.parametrize("version", VERSIONS)
def test_every_route_of_the_definition_has_its_row(version: str) -> None:
    for what, method, path, _, versions in DEFINED:
        if what == "route" and version in versions.split(",") and method not in ("GET", "HEAD"):
            row = guarded_route(method, path.replace("*", "name"))
            assert row.path == path, f"{method} {path} of API {version} is in no row"


def test_every_parameter_of_a_judged_query_is_known() -> None:
    for what, method, path, parameters, _ in DEFINED:
        if what == "route" and method == "POST" and path in QUERIES:
            safe, judged = QUERIES[path]
            assert set(parameters.split(",")) - {"-"} <= safe | set(judged), path


def test_every_row_names_a_judge_and_a_shape_that_there_are() -> None:
    for shape, fields in SHAPES.items():
        for field in fields.values():
            assert field.verdict in ("safe", "fields", *JUDGES), (shape, field)
            inner = re.search(r"[A-Z]\w*", field.type)
            assert not inner or inner[0] in FIELD_ROWS, (shape, field)
            assert (field.verdict != "safe") or not inner, (shape, field)
    for rows in GUARDED_ROUTES.values():
        for _, row in rows:
            assert row.verdict in ("safe", "refuse", "body", "empty", "query")
            assert row.verdict != "body" or row.shape in SHAPES


def test_every_judge_is_used_and_each_word_is_one_that_a_refusal_names() -> None:
    used = {field.verdict for fields in SHAPES.values() for field in fields.values()}
    used |= {judge for _, judged in QUERIES.values() for judge in judged.values()}
    assert set(JUDGES) - used == set()
    named = {admits.partition(" = ")[0] for _, _, _, admits in REFUSED}
    named |= {"route", "fetch"}
    assert set(GUARD_WORDS) - named == set()


def test_hostile_bodies_take_little_time() -> None:
    for body in (
        json.dumps(host(Binds=["/x:/y"] * 45_000)).encode(),
        json.dumps(host(Sysctls={str(number): "x" for number in range(45_000)})).encode(),
        json.dumps({f"F{number}": 1 for number in range(45_000)}).encode(),
        b'{"HostConfig":{"Binds":["' + b"/" * 1_000_000 + b':/x"]}}',
    ):
        begun = time.perf_counter()
        assert against_request(strict(), "POST", CREATE, body)
        assert time.perf_counter() - begun < 3.0


# ================================================================================================
# through the proxy
# ================================================================================================


@pytest.fixture
def engine(folder: Path) -> Iterator[ScriptedEngine]:
    with ScriptedEngine(str(folder / "engine.sock")) as scripted:
        for path in ("/containers/create", "/containers/%63reate"):
            scripted.routes[path] = json_answer({"Id": "x"}, b"201 Created")
        yield scripted


def posted(value: Any, target: str = "/containers/create", *fields: str) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"POST {target} HTTP/1.1", "Host: d", "Connection: close", *fields]
    if not any("chunked" in field for field in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_a_refused_create_never_reaches_the_engine(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict")
    answer = ask(proxy.socket, posted(host(Privileged=True)))
    assert answer.status == 403 and b"HostConfig.Privileged true" in answer.body
    assert ask(proxy.socket, posted(TESTCONTAINERS)).status == 201
    record = proxy.wait_records("denied")[0]
    assert (
        record["rule"] == "guard:HostConfig.Privileged" and record["path"] == "/containers/create"
    )
    assert record["admits"] == "field = HostConfig.Privileged"
    creates = [body for head, body in engine.requests if b"create" in head]
    assert creates == [json.dumps(TESTCONTAINERS).encode()]


def test_what_is_forwarded_is_what_was_judged(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict")
    body = b' {"Image" : "x"}\n'
    wire = b"%x;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
    fields = ("X-Kept: 1", "Transfer-Encoding: chunked", "Trailer: X", "Expect: 100-continue")
    answer = ask(proxy.socket, posted(wire, "/v1.41/containers/%63reate", *fields))
    assert answer.status == 201
    head, sent = next(request for request in engine.requests if b"reate" in request[0])
    line = b"POST /v1.41/containers/%63reate HTTP/1.1"
    assert head == line + b"\r\nHost: d\r\nX-Kept: 1\r\nContent-Length: 17" and sent == body


def test_a_connection_goes_on_behind_a_refusal(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict")
    refused = posted(host(Privileged=True)).replace(b"Connection: close\r\n", b"")
    answer = ask(
        proxy.socket, refused + b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    )
    assert answer.status == 403 and answer.body.endswith(b"OK")


def test_each_request_of_a_kept_connection_is_judged(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict")
    kept = lambda sent: sent.replace(b"Connection: close\r\n", b"")
    requests = [
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n", b"200", b"OK"),
        (kept(posted(host(Privileged=True))), b"403", b'admits it"}\n'),
        (b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n", b"200", b"OK"),
        (kept(posted(TESTCONTAINERS)), b"201", b"}"),
        (kept(posted(host(PidMode="host"))), b"403", b'admits it"}\n'),
        (kept(posted(b"", "/plugins/pull")), b"403", b'admits it"}\n'),
    ]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(proxy.socket)
        for sent, status, end in requests:
            sock.sendall(sent)
            answer = read_until(sock, b"\r\n\r\n")
            assert answer[9:12] == status, answer
            while not answer.endswith(end):
                answer += sock.recv(4096)
    creates = [body for head, body in engine.requests if b"create" in head]
    assert creates == [json.dumps(TESTCONTAINERS).encode()]


def test_a_listener_has_its_own_guard_and_hup_reads_the_file_again(
    engine: ScriptedEngine, folder: Path, start_proxy: Callable[..., ProxyProcess]
) -> None:
    (folder / "guard.ini").write_text("[guard]\ncapability = NET_ADMIN\n")
    open_socket = folder / "open.sock"
    (folder / "x.ini").write_text(
        f"[dockeraudit]\nguard = {folder / 'guard.ini'}\n"
        f"[listener shut]\nlisten = unix://{folder / 'proxy.sock'}\n"
        f"[listener open]\nlisten = unix://{open_socket}\nguard = off\n"
    )
    proxy = start_proxy(engine.path, "--config", str(folder / "x.ini"))
    shut = str(folder / "proxy.sock")
    assert ask(shut, posted(host(CapAdd=["NET_ADMIN"]))).status == 201
    assert ask(shut, posted(host(CapAdd=["SYS_ADMIN"]))).status == 403
    assert ask(str(open_socket), posted(host(CapAdd=["SYS_ADMIN"]))).status == 201
    assert "shut:   capability = NET_ADMIN" in proxy.errors.read_text()
    assert proxy.wait_records("start")[0]["guard"] == {"shut": 1}
    (folder / "guard.ini").write_text("[guard]\ncapability = SYS_ADMIN\n")
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: ask(shut, posted(host(CapAdd=["SYS_ADMIN"]))).status == 201, "the new file")
    assert ask(shut, posted(host(CapAdd=["NET_ADMIN"]))).status == 403


def test_held_bodies_have_a_budget_and_give_it_back(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict")
    head = posted(b"", "/containers/create", "X: chunked")  # so that it adds no length
    head = head[:-2] + b"Content-Length: 1048576\r\n\r\n"
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(66)]
        for sock in held:
            sock.settimeout(DEADLINE)
            sock.connect(proxy.socket)
            try:
                sock.sendall(head + b" " * ((1 << 20) - 1))
            except OSError:
                pass  # it was refused, and closed over what it had not read
        answer = read_all(held[-1])
        assert answer.startswith(b"HTTP/1.1 503") and b"try again later" in answer
        assert not any(b"create" in head for head, _ in engine.requests)
    wait_for(lambda: ask(proxy.socket, posted(b" " * 1000_000 + b"{}")).status == 201, "room")


def test_a_body_that_never_ends_goes_with_its_client(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(proxy.socket)
        sock.sendall(posted(TESTCONTAINERS)[:-1])
        sock.shutdown(socket.SHUT_WR)
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 400") and b"ended within the request's body" in answer
    answer = ask(proxy.socket, posted(b"x" * ((1 << 20) + 1)))
    assert answer.status == 413 and b"1048576 bytes" in answer.body
    assert not any(b"create" in head for head, _ in engine.requests)


def test_learning_refuses_nothing_and_says_what_it_would(
    engine: ScriptedEngine, start_proxy: Callable[..., ProxyProcess]
) -> None:
    proxy = start_proxy(engine.path, "--guard", "strict", "--mode", "learn")
    value = host(Privileged=True, Binds=["/srv/x:/x"])
    assert ask(proxy.socket, posted(value)).status == 201
    records = [r for r in proxy.wait_records("would_deny", 3) if r["rule"].startswith("guard:")]
    assert {r["admits"] for r in records} == {"field = HostConfig.Privileged", "bind = /srv/x"}
    assert engine.requests[-1][1] == json.dumps(value).encode()


def test_guard_and_http2_relay_cannot_be_had_together(folder: Path) -> None:
    settings = load_settings(["--guard", "strict", "--http2", "relay"], {})
    with pytest.raises(ConfigurationError) as raised:
        load_listeners(settings, {}, lambda level, text: None)
    assert "guard and http2 relay" in str(raised.value)


def test_the_reapers_socket_is_an_exception() -> None:
    assert against_value(strict(), CREATE, RYUK)[0].admits == "bind = /var/run/docker.sock"
    assert not against_value(strict(bind=["/var/run/docker.sock"]), CREATE, RYUK)
