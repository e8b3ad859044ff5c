"""What a guard admits beside the defaults: the words of its file. Performs no I/O.

[guard]
bind = /srv/ci/cache
bind-ro = /srv/models/**
capability = NET_ADMIN
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.policy import PathPattern
from _dockeraudit.text import did_you_mean

#: the words, and what the value of each is
GUARD_WORDS = {
    "bind": "a path of the host that containers may mount",
    "bind-ro": "the same, read-only; PATH/** is everything below PATH",
    "volume-driver": "a driver of volumes, with whatever options",
    "volume-type": "a file system that local volumes may mount, such as nfs",
    "capability": "a capability, such as NET_ADMIN",
    "device": "a device's path, such as /dev/fuse",
    "device-request": "a driver or a capability of device requests, such as gpu",
    "device-rule": "a rule of the device cgroup, such as c 10:229 rwm",
    "network": "a network mode, such as host",
    "pid": "a mode of the PID namespace: host",
    "ipc": "a mode of the IPC namespace: host",
    "uts": "a mode of the UTS namespace: host",
    "userns": "a mode of the user namespace: host",
    "cgroupns": "a mode of the cgroup namespace: host",
    "container": "a container whose namespaces, volumes or links others may share",
    "security-opt": "a security option, such as seccomp=unconfined",
    "sysctl": "a setting's name, such as net.core.somaxconn",
    "ulimit": "a limit's name, such as rtprio",
    "runtime": "a runtime, such as runc",
    "cgroup-parent": "a parent cgroup",
    "annotation": "an annotation's name",
    "storage-opt": "an option's name",
    "log-driver": "a driver of logs, with whatever options",
    "network-driver": "a driver of networks, such as macvlan",
    "network-option": "an option's name, such as com.docker.network.bridge.name",
    "subnet": "addresses that networks may have, such as 100.64.0.0/10",
    "fetch": "the beginning of URLs that the engine may load, such as https://example.com/",
    "route": "a method and a path that the guard refuses or does not know, such as POST /swarm/**",
    "field": "a field's path, such as HostConfig.OomScoreAdj, whatever its value",
}
ALL_BELOW = "/**"
HOST_PATH = re.compile(r"/[^\x00-\x1f:]*")
FETCHED = re.compile(r"(https?|git|ssh)://[A-Za-z0-9.\-]+(:[0-9]+)?/\S*")
ROUTE = re.compile(r"(\*|[A-Z]+) (/\S*)")
#: networks that hosts have no other way to, as a rule: RFC 1918, RFC 4193
PRIVATE_SUBNETS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


class Exceptions:
    """What is admitted beside the defaults. `words`: the values of each word, as given."""

    def __init__(self, words: Mapping[str, Sequence[str]] | None = None) -> None:
        self.words = {word: tuple((words or {}).get(word, ())) for word in GUARD_WORDS}
        self._subnets = [
            ipaddress.ip_network(text) for text in (*PRIVATE_SUBNETS, *self.words["subnet"])
        ]
        routes = [text.split(" ", 1) for text in self.words["route"]]
        self._routes = [(method, PathPattern(path)) for method, path in routes]

    def admit(self, word: str, value: str) -> bool:
        """Whether the value was given for the word."""
        return value in self.words[word]

    def admits_path(self, path: str, *, read_only: bool) -> bool:
        """Whether containers may mount a path of the host."""
        if self.admit("bind", path):
            return True
        return read_only and any(
            path == text or (text.endswith(ALL_BELOW) and is_below(path, text))
            for text in self.words["bind-ro"]
        )

    def admits_subnet(self, text: str) -> bool:
        """Whether a network may have these addresses."""
        try:
            subnet = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return False
        return any(
            subnet.version == known.version and subnet.subnet_of(known)  # type: ignore[arg-type]
            for known in self._subnets
        )

    def admits_url(self, url: str) -> bool:
        """Whether the engine may load a URL."""
        return any(url.startswith(beginning) for beginning in self.words["fetch"])

    def admits_route(self, method: str, path: str) -> bool:
        """Whether a route that the guard refuses was given."""
        return any(wanted in ("*", method) and known.match(path) for wanted, known in self._routes)

    def lines(self) -> list[str]:
        """The lines of a file that says the same."""
        return [f"{word} = {value}" for word, values in self.words.items() for value in values]


def is_below(path: str, pattern: str) -> bool:
    """Whether a path lies below the folder of `FOLDER/**`, or is that folder."""
    folder = pattern[: -len(ALL_BELOW)]
    return path == folder or path.startswith(folder + "/")


def guard_exceptions(
    path: str, sections: Iterable[tuple[str, Iterable[tuple[str, str]]]]
) -> Exceptions:
    """The exceptions of a guard's file, from its sections; raises ConfigurationError."""
    words: dict[str, list[str]] = {}
    for section, keys in sections:
        if section != "guard":
            raise ConfigurationError(f"{path}: [{section}] is not [guard]")
        for key, value in keys:
            word = key.replace("_", "-")
            if word not in GUARD_WORDS:
                hint, known = did_you_mean(word, tuple(GUARD_WORDS)), ", ".join(GUARD_WORDS)
                raise ConfigurationError(f"{path}: {key!r}{hint} is not one of {known}")
            words.setdefault(word, []).append(checked(path, word, value))
    check_symlinks(path, words.get("bind", []), words.get("bind-ro", []))
    return Exceptions(words)


def checked(path: str, word: str, value: str) -> str:
    """A word's value as it is compared; raises ConfigurationError."""
    problem = problem_of(word, value)
    if problem:
        raise ConfigurationError(f"{path}: {word} = {value}: {problem}")
    return capability_name(value) if word == "capability" else value


def problem_of(word: str, value: str) -> str:
    """What is wrong with a word's value; empty if nothing is."""
    if not value:
        return "the value is empty"
    if word in ("bind", "bind-ro"):
        below = word == "bind-ro" and value.endswith(ALL_BELOW)
        folder = value[: -len(ALL_BELOW)] if below else value
        if not HOST_PATH.fullmatch(folder or "/") or not is_normal(folder or "/"):
            return "a path is absolute, without ':', '//', '/./', '/../' or a last '/'"
        if "*" in folder:
            return "a path has no '*'; bind-ro = PATH/** is everything below PATH, read-only"
    if word == "subnet":
        try:
            ipaddress.ip_network(value)
        except ValueError:
            return "it is no network, such as 10.1.0.0/16"
    if word == "fetch" and not FETCHED.fullmatch(value):
        return "it is no beginning of a URL with a whole host, such as https://example.com/"
    if word == "route" and not ROUTE.fullmatch(value):
        return "it is no METHOD /path, such as POST /swarm/**"
    return ""


def is_normal(path: str) -> bool:
    """Whether a path is spelled in the one shortest way."""
    return posixpath.normpath(path) == path and not path.startswith("//")


def capability_name(text: str) -> str:
    """A capability as the kernel spells it, without CAP_; the engine takes either, in any case."""
    return text.upper().removeprefix("CAP_")


def check_symlinks(path: str, writable: Sequence[str], read_only: Sequence[str]) -> None:
    """Raise ConfigurationError where a container could choose what another path leads to.

    A container that writes to /srv could make /srv/x a symbolic link to /, and the engine would
    follow it for whoever mounts /srv/x.
    """
    for upper in writable:
        for other in (*writable, *read_only):
            folder = other[: -len(ALL_BELOW)] if other.endswith(ALL_BELOW) else other
            inside = other.endswith(ALL_BELOW) and is_below(upper, other)
            if inside or (folder != upper and is_below(folder, upper.rstrip("/") + ALL_BELOW)):
                raise ConfigurationError(
                    f"{path}: a container that writes to {upper} could make a link of what "
                    f"{other} names, to anywhere on the host; list one of them only"
                )
