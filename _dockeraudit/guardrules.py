"""The guard's judges of single values: is this beyond what containers have by default?

Performs no I/O. Each judge is named by the rows of `guardfields`. It gets a value whose types have
been looked at, and yields what it has against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Callable, NamedTuple

from _dockeraudit.guardfile import Exceptions, capability_name, is_normal

SHOWN_VALUE = 60  # characters of a value that a refusal shows
SHOWN_PATH = 200  # characters of a path that a refusal shows
LONGEST_LINE_SHOWN = 200  # characters of a line for the guard's file that a refusal shows
# moby: the names of volumes, networks and containers (daemon/names)
OBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
#: what is admitted without a word of the file, by the judge's name
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "ipc": ("none", "private", "shareable"),
    "cgroupns": ("private",),
    "isolation": ("default",),
    "storage-opt": ("size",),
    "volume-driver": ("local",),
    "network-driver": ("bridge", "overlay"),
    "ipam-driver": ("default",),
    "security-opt": ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"),
    "task-runtime": ("container",),
    "network-option": (
        "com.docker.network.bridge.enable_icc",
        "com.docker.network.bridge.enable_ip_masquerade",
        "com.docker.network.container_iface_prefix",
        "com.docker.network.driver.mtu",
    ),
}
LOCAL_LOG_DRIVERS = ("json-file", "local", "journald", "none")
LOG_OPTIONS = frozenset(
    "max-size max-file max-buffer-size mode compress tag labels labels-regex env env-regex "
    "cache-disabled cache-max-size cache-max-file cache-compress".split()
)
ULIMITS = ("nofile", "nproc", "memlock", "stack", "data", "fsize", "as", "rss", "cpu", "locks")
BIND_MODES = frozenset(
    ["ro", "rw", "z", "Z", "private", "rprivate", "slave", "rslave", "nocopy"]
    + ["consistent", "cached", "delegated", "default"]
)
PROPAGATIONS = ("", "private", "rprivate", "slave", "rslave")
TMPFS_OPTIONS = frozenset(
    "defaults rw ro exec noexec suid nosuid dev nodev sync async dirsync atime noatime diratime "
    "nodiratime relatime norelatime strictatime nostrictatime "
    "size mode uid gid nr_inodes nr_blocks".split()
)
VOLUME_OPTIONS = frozenset(["type", "device", "o", "size"])
BIND_FLAGS = frozenset(["bind", "rbind", "ro", "rw", ""])
#: flags of mount(2) that make another mount of what a file system's name says
OTHER_MOUNTS = frozenset(
    ["bind", "rbind", "remount", "move", "shared", "rshared", "slave", "rslave", "unbindable"]
    + ["runbindable"]
)
#: what the engines mask and protect; a list that lacks one of these opens it
KERNEL_PATHS = {
    "MaskedPaths": (
        "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
        "/sys/firmware",
    ),
    "ReadonlyPaths": (
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    ),
}  # fmt: skip


class Objection(NamedTuple):
    """What the guard has against a request.

    `rule`: stands in records. `admits`: the line of the guard's file that would admit it; empty if
    there is none.
    """

    rule: str
    message: str
    admits: str = ""


class Court(NamedTuple):
    """What judges go by.

    `admits_container`: whether a container's name or id may be shared. `network_name`: the name
    that the engine gives to a network's id or name; None where there is none, or nobody answers.
    """

    exceptions: Exceptions
    admits_container: Callable[[str], bool]
    network_name: Callable[[str], str | None]


class FieldPlace(NamedTuple):
    """Where a value stands, and why that matters. `path`: HostConfig.Mounts[].Source."""

    path: str
    reason: str


Judging = Callable[[Any, FieldPlace, Court], Iterator[Objection]]


def shown_value(value: Any) -> str:
    """A value in short."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 1] + "…"


def against(
    place: FieldPlace, value: Any, admits: str = "", why: str = "", rule: str = ""
) -> Objection:
    """The objection to a value, with the line that admits it, if that can stand in a file."""
    if len(admits) > LONGEST_LINE_SHOWN or not admits.isprintable():
        admits = ""
    hint = f"`{admits}` in the guard's file admits it" if admits else "nothing admits it"
    path = place.path if len(place.path) <= SHOWN_PATH else place.path[: SHOWN_PATH - 1] + "…"
    message = f"the guard refuses {path} {shown_value(value)}: {why or place.reason}; {hint}"
    return Objection(f"guard:{rule or place.path}", message, admits)


def is_default(value: Any) -> bool:
    """Whether a value is null, false, zero or empty, through and through."""
    if isinstance(value, dict):
        return all(is_default(member) for member in value.values())
    return not value


def judge_default(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A field that must be at its default."""
    if not is_default(value) and not court.exceptions.admit("field", place.path):
        yield against(place, value, f"field = {place.path}")


def listed(word: str, name: str | None = None) -> Judging:
    """The judge of a text, of texts, or of a map's keys, each of which must be listed."""
    known = DEFAULTS.get(name or word, ())

    def judge(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
        texts = [value] if isinstance(value, str) and value else value or ()
        for text in texts:
            if text not in known and not court.exceptions.admit(word, text):
                yield against(place, text, f"{word} = {text}")

    return judge


def by_field(name: str) -> Judging:
    """The judge of a text for which the file has no word of its own."""
    known = ("", *DEFAULTS.get(name, ()))

    def judge(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
        if (value or "") not in known:
            yield from judge_default(value, place, court)

    return judge


def judge_capabilities(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Capabilities beyond the default ones, however they are spelled."""
    for text in value or ():
        if not court.exceptions.admit("capability", capability_name(text)):
            yield against(place, text, f"capability = {capability_name(text)}")


# -- namespaces, and other containers


def judge_container(
    reference: str, value: str, place: FieldPlace, court: Court
) -> Iterator[Objection]:
    """A container that this one would share something with."""
    exceptions = court.exceptions
    if not (exceptions.admit("container", reference) or court.admits_container(reference)):
        yield against(place, value, f"container = {reference}")


def namespace(word: str) -> Judging:
    """The judge of a namespace's mode: the default ones, listed ones, another container's."""
    known = ("", *DEFAULTS.get(word, ()))

    def judge(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
        mode, colon, reference = (value or "").partition(":")
        if mode == "container" and colon:
            yield from judge_container(reference, value, place, court)
        elif (value or "") not in known and not court.exceptions.admit(word, value):
            yield against(place, value, f"{word} = {value}")

    return judge


def judge_cgroup(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """The cgroup of another container."""
    mode, _, reference = (value or "").partition(":")
    if mode == "container":
        yield from judge_container(reference, value, place, court)
    else:
        yield from judge_default(value, place, court)


def judge_network(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A network mode: a network of containers, or one that is listed."""
    mode, colon, reference = (value or "").partition(":")
    if mode == "container" and colon:
        yield from judge_container(reference, value, place, court)
    elif value and not is_network_name(value) and not court.exceptions.admit("network", value):
        yield against(place, value, f"network = {value}")


def is_network_name(text: str) -> bool:
    """Whether it names a network that is not the host's."""
    return bool(OBJECT_NAME.fullmatch(text)) and text.lower() != "host"


def judge_endpoints(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """The networks of a container, by name or id."""
    for name in value or ():
        if not is_network_name(name) and not court.exceptions.admit("network", name):
            yield against(place, name, f"network = {name}", "another network namespace")


def judge_service_network(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A service's network: swarm takes the host's own by its id as well."""
    exceptions = court.exceptions
    name = court.network_name(value) if value and is_network_name(value) else value
    if value and not (name and is_network_name(name)):
        admits = name or value
        if not (exceptions.admit("network", value) or exceptions.admit("network", admits)):
            yield against(place, value, f"network = {admits}")


def judge_volumes_from(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Containers whose volumes are taken over: NAME or NAME:MODE."""
    for text in value or ():
        yield from judge_container(text.partition(":")[0], text, place, court)


def judge_links(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Containers that are linked: NAME or NAME:ALIAS."""
    for text in value or ():
        yield from judge_container(text.partition(":")[0].lstrip("/"), text, place, court)


# -- files of the host


def judge_path(
    path: str, place: FieldPlace, court: Court, *, read_only: bool
) -> Iterator[Objection]:
    """A path of the host, which the engine opens, links and all."""
    path = path.rstrip("/") or "/"
    if not is_normal(path):
        yield against(place, path, why="it is not spelled in the shortest way")
    elif not court.exceptions.admits_path(path, read_only=read_only):
        yield against(place, path, f"{'bind-ro' if read_only else 'bind'} = {path}")


def judge_target(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A path inside the container, in which nothing stands that some engine splits it at."""
    if value and (":" in value or "," in value):
        yield against(place, value)


def judge_targets(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """The same, as the keys of a map."""
    for target in value or ():
        yield from judge_target(target, place, court)


def judge_binds(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """SOURCE:TARGET[:MODES], or a target alone.

    A source that begins with a slash is a path, any other the name of a volume.
    """
    for text in value or ():
        source, target, *modes = ["", *text.split(":")] if ":" not in text else text.split(":")
        tokens = frozenset(modes[0].split(",")) if modes else frozenset()
        if len(modes) > 1 or not target.startswith("/"):
            yield against(place, text, why="it is not SOURCE:TARGET or SOURCE:TARGET:MODES")
        elif tokens - BIND_MODES:
            yield against(place, text, why="its modes are not all known, or mount on the host too")
        elif source.startswith("/"):
            read_only = "ro" in tokens and "rw" not in tokens
            yield from judge_path(source, place, court, read_only=read_only)
        elif source and not OBJECT_NAME.fullmatch(source):
            yield against(place, text, why="its source is neither a path nor a volume's name")


def judge_mounts(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Mounts by their type."""
    for mount in value or ():
        kind = mount.get("Type") or ""
        judge = MOUNT_JUDGES.get(kind)
        if judge:
            yield from judge(mount, FieldPlace(f"{place.path}[]", place.reason), court)
        elif not court.exceptions.admit("field", f"{place.path}[].Type"):
            where = FieldPlace(
                f"{place.path}[].Type", "a kind of mount that the guard does not know"
            )
            yield against(where, kind, f"field = {where.path}")


def judge_bind_mount(mount: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A mount of a path of the host."""
    where = FieldPlace(f"{place.path}.Source", place.reason)
    source, options = mount.get("Source") or "", mount.get("BindOptions") or {}
    if not source.startswith("/"):
        yield against(where, source, why="it is no absolute path")
    else:
        read_only = bool(mount.get("ReadOnly")) and not options.get("ReadOnlyNonRecursive")
        yield from judge_path(source, where, court, read_only=read_only)
    propagation = options.get("Propagation") or ""
    if propagation not in PROPAGATIONS:
        where = FieldPlace(f"{place.path}.BindOptions.Propagation", "it mounts on the host too")
        yield against(where, propagation)


def judge_volume_mount(mount: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A mount of a volume, which it may make."""
    source = mount.get("Source") or ""
    if source and not OBJECT_NAME.fullmatch(source):
        where = FieldPlace(f"{place.path}.Source", "it is no volume's name")
        yield against(where, source)
    config = (mount.get("VolumeOptions") or {}).get("DriverConfig") or {}
    where = FieldPlace(
        f"{place.path}.VolumeOptions.DriverConfig", "a driver that mounts what it likes"
    )
    yield from judge_volume(config.get("Name"), config.get("Options"), where, court)


def judge_tmpfs_mount(mount: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A file system in memory."""
    if mount.get("Source"):
        yield against(FieldPlace(f"{place.path}.Source", "a tmpfs has none"), mount["Source"])
    options = (mount.get("TmpfsOptions") or {}).get("Options") or ()
    where = FieldPlace(f"{place.path}.TmpfsOptions.Options", "by mount options")
    for option in options:
        yield from judge_tmpfs_options("=".join(option), where, court)


def judge_image_mount(mount: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """The files of an image, which are nobody's secret by the guard."""
    return iter(())


MOUNT_JUDGES = {
    "bind": judge_bind_mount,
    "volume": judge_volume_mount,
    "tmpfs": judge_tmpfs_mount,
    "image": judge_image_mount,
}


def judge_tmpfs(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Target to options of file systems in memory."""
    yield from judge_targets(value, place, court)
    for options in (value or {}).values():
        yield from judge_tmpfs_options(options, place, court)


def judge_tmpfs_options(options: str, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Mount options that a tmpfs has, and none that moves or shares mounts."""
    names = {token.partition("=")[0] for token in options.split(",") if token}
    if names - TMPFS_OPTIONS:
        yield against(place, options, why="an option that a tmpfs does not need")


def judge_volume(
    driver: str | None, options: Mapping[str, str] | None, place: FieldPlace, court: Court
) -> Iterator[Objection]:
    """A volume that is made: its driver, and what a local one mounts."""
    if driver and driver != "local":
        if not court.exceptions.admit("volume-driver", driver):
            yield against(place, driver, f"volume-driver = {driver}", "a driver of volumes")
        return
    options = options or {}
    if frozenset(options) - VOLUME_OPTIONS:
        yield against(place, sorted(options), why="options that local volumes do not have")
        return
    kind, device = options.get("type", ""), options.get("device", "")
    flags = frozenset(options.get("o", "").split(","))
    if not (kind or device or options.get("o")):
        return
    if flags & {"bind", "rbind"} or kind in ("", "none", "bind"):
        yield from judge_local_bind(device, flags, options, place, court)
    elif kind == "tmpfs":
        yield from judge_tmpfs_options(options.get("o", ""), place, court)
    elif flags & OTHER_MOUNTS or not court.exceptions.admit("volume-type", kind):
        admits = "" if flags & OTHER_MOUNTS else f"volume-type = {kind}"
        yield against(place, options, admits, "it mounts a file system of the host's choice")


def judge_local_bind(
    device: str, flags: frozenset[str], options: Any, place: FieldPlace, court: Court
) -> Iterator[Objection]:
    """A local volume that is a path of the host.

    Whether it is read-only depends on the order of its flags, so it is held to be writable.
    """
    if flags - BIND_FLAGS or not device.startswith("/"):
        yield against(place, options, why="it is not o=bind with a path as device")
    else:
        yield from judge_path(device, place, court, read_only=False)


def judge_volume_create(body: Any, court: Court) -> Iterator[Objection]:
    """The body of a volume's creation."""
    place = FieldPlace("DriverOpts" if body.get("DriverOpts") else "Driver", "files of the host")
    yield from judge_volume(body.get("Driver"), body.get("DriverOpts"), place, court)


# -- devices, limits, logs, confinement


def judge_devices(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Devices of the host, by their path."""
    for device in value or ():
        path = device.get("PathOnHost") or ""
        if not court.exceptions.admit("device", path):
            yield against(
                FieldPlace(f"{place.path}[].PathOnHost", place.reason), path, f"device = {path}"
            )


def judge_device_requests(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Devices by a driver: the driver and each capability must be listed."""
    for request in value or ():
        driver = request.get("Driver") or ""
        named = {name for names in request.get("Capabilities") or () for name in names}
        wanted = sorted(named | ({driver} if driver else set()))
        missing = [name for name in wanted if not court.exceptions.admit("device-request", name)]
        if missing or not wanted:
            admits = f"device-request = {missing[0]}" if missing else ""
            yield against(place, request, admits)


def judge_ulimits(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Limits of processes; a core file of zero bytes takes something away."""
    for limit in value or ():
        name = limit.get("Name") or ""
        no_core = name == "core" and not limit.get("Soft") and not limit.get("Hard")
        if name not in ULIMITS and not no_core and not court.exceptions.admit("ulimit", name):
            yield against(
                FieldPlace(f"{place.path}[].Name", place.reason), name, f"ulimit = {name}"
            )


def judge_log_config(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A driver of logs: those that stay on the host, with options that no other driver heeds."""
    value = value or {}
    driver = value.get("Type") or value.get("Name") or ""
    options = value.get("Config") or value.get("Options") or {}
    if driver and court.exceptions.admit("log-driver", driver):
        return
    if driver and driver not in LOCAL_LOG_DRIVERS:
        yield against(place, driver, f"log-driver = {driver}")
    for name in options:
        if name not in LOG_OPTIONS:
            yield against(place, name, f"log-driver = {driver}" if driver else "")


def judge_kernel_paths(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A list instead of the engine's own: it must hold all of that. An empty list opens all."""
    missing = set(KERNEL_PATHS[place.path.rpartition(".")[2]]) - set(value or ())
    if value is not None and missing and not court.exceptions.admit("field", place.path):
        yield against(place, value, f"field = {place.path}", f"it lacks {min(missing)}")


def judge_privileges(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """A service's confinement: no more than that it gains no privileges."""
    if isinstance(value, dict):
        value = {name: member for name, member in value.items() if name != "NoNewPrivileges"}
    yield from judge_default(value, place, court)


# -- networks


def judge_subnet(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """Addresses that the host sends to the network: private ones, or listed ones."""
    if value and not court.exceptions.admits_subnet(value):
        yield against(place, value, f"subnet = {value}")


def judge_network_name(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """The name of a new network, by which it can be told from the host's."""
    if value and not is_network_name(value):
        yield against(place, value, why="it is no network's name")


def judge_network_id(value: Any, place: FieldPlace, court: Court) -> Iterator[Objection]:
    """The network of an endpoint, as a client repeats it."""
    if value and not is_network_name(value) and not court.exceptions.admit("network", value):
        yield against(place, value, f"network = {value}")


JUDGES: Mapping[str, Judging] = {
    "default": judge_default,
    "capability": judge_capabilities,
    **{
        word: listed(word)
        for word in (
            "device-rule", "security-opt", "sysctl", "runtime", "cgroup-parent", "annotation",
            "storage-opt", "volume-driver", "network-driver", "network-option",
        )
    },
    **{word: namespace(word) for word in ("pid", "ipc", "uts", "userns", "cgroupns")},
    **{name: by_field(name) for name in ("isolation", "ipam-driver", "task-runtime")},
    "cgroup": judge_cgroup,
    "network": judge_network,
    "endpoints": judge_endpoints,
    "network-id": judge_network_id,
    "network-name": judge_network_name,
    "service-network": judge_service_network,
    "volumes-from": judge_volumes_from,
    "links": judge_links,
    "binds": judge_binds,
    "target": judge_target,
    "targets": judge_targets,
    "mounts": judge_mounts,
    "tmpfs": judge_tmpfs,
    "devices": judge_devices,
    "device-requests": judge_device_requests,
    "ulimits": judge_ulimits,
    "log-config": judge_log_config,
    "kernel-paths": judge_kernel_paths,
    "privileges": judge_privileges,
    "subnet": judge_subnet,
}  # fmt: skip
