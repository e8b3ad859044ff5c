"""Every request of the API that changes something, and what the guard does about it.

Performs no I/O. A row: method, path (`*` stands for a name, slashes and all), verdict, and what the
verdict needs. A request that no row names is refused; one that only reads passes unseen, unless
SECRET_READS names it. The paths of the engine differ in their first segment or their last, so no
path is one of a row that is judged and another's too.

    safe    taken as it is, with the reason
    refuse  with the reason; the word `route` of the guard's file admits it
    body    the body is judged as the shape says; with a `?` there may be none
    empty   there may be no body
    query   the parameters are judged; a `+` behind another verdict: they are too
"""

from __future__ import annotations

import re
from typing import NamedTuple

from _dockeraudit.guardfields import SHAPES

ROUTE_ROWS = """
POST    /containers/create        body+    ContainerCreate
POST    /containers/*/update      body     ContainerUpdate
POST    /containers/*/exec        body     ExecCreate
POST    /containers/*/start       empty+   before API 1.24 it had a HostConfig
POST    /containers/*/resize      safe     a terminal's size
POST    /containers/*/stop        safe     ends it
POST    /containers/*/restart     safe     with the settings that were judged
POST    /containers/*/kill        safe     ends it
POST    /containers/*/rename      safe     a name
POST    /containers/*/pause       safe     holds it
POST    /containers/*/unpause     safe     lets it go on
POST    /containers/*/attach      safe     streams of the container
POST    /containers/*/wait        safe     waits
POST    /containers/*/checkpoints  refuse  it writes to a folder of the host
POST    /containers/prune         safe     removes
PUT     /containers/*/archive     safe     files inside the container
DELETE  /containers/*/checkpoints/*  refuse  it removes from a folder of the host
DELETE  /containers/*             safe     removes
POST    /exec/*/start             safe     what was judged when it was made
POST    /exec/*/resize            safe     a terminal's size
POST    /build                    query    build
POST    /build/prune              safe     removes
POST    /build/cancel             safe     ends a build
POST    /grpc                     refuse   BuildKit asks for the host's network within it, unseen
POST    /session                  refuse   BuildKit's tunnel, in which nothing can be seen
POST    /images/create            query    image
POST    /images/load              safe     files and defaults of containers, which give no rights
POST    /images/*/push            safe     sends an image
POST    /images/*/tag             safe     a name
POST    /images/prune             safe     removes
DELETE  /images/*                 safe     removes
POST    /auth                     safe     asks a registry
POST    /commit                   body     Config?
POST    /volumes/create           body     VolumeCreate
POST    /volumes/prune            safe     removes
PUT     /volumes/*                refuse   a cluster's volume, which its driver mounts
DELETE  /volumes/*                safe     removes
POST    /networks/create          body     NetworkCreate
POST    /networks/*/connect       body     NetworkConnect
POST    /networks/*/disconnect    safe     takes something away
POST    /networks/prune           safe     removes
DELETE  /networks/*               safe     removes
POST    /plugins/pull             refuse   a plugin runs on the host itself
POST    /plugins/create           refuse   a plugin runs on the host itself
POST    /plugins/*/enable         refuse   a plugin runs on the host itself
POST    /plugins/*/set            refuse   a plugin runs on the host itself
POST    /plugins/*/upgrade        refuse   a plugin runs on the host itself
POST    /plugins/*/push           safe     sends a plugin
POST    /plugins/*/disable        refuse   it may be the plugin that says who may do what
DELETE  /plugins/*                refuse   it may be the plugin that says who may do what
POST    /nodes/*/update           refuse   it makes other hosts managers of this one
DELETE  /nodes/*                  safe     removes
POST    /swarm/init               refuse   it opens a port to whoever holds its token
POST    /swarm/join               refuse   another host becomes the manager of this one
POST    /swarm/leave              safe     removes
POST    /swarm/update             refuse   it changes who may join
POST    /swarm/unlock             refuse   it opens the swarm's keys
POST    /services/create          body     Service
POST    /services/*/update        body     Service
DELETE  /services/*               safe     removes
POST    /secrets/create           body     Secret
POST    /secrets/*/update         body     Secret
DELETE  /secrets/*                safe     removes
POST    /configs/create           body     Secret
POST    /configs/*/update         body     Secret
DELETE  /configs/*                safe     removes
"""
#: parameters of routes whose query is judged: those that are taken as they are, then the others
#: with their judges
Query = tuple[frozenset[str], dict[str, str]]
QUERIES: dict[str, Query] = {
    # dockerode repeats the body's fields here, which no engine reads
    "/containers/create": (frozenset(["name", "platform", *SHAPES["ContainerCreate"]]), {}),
    "/containers/*/start": (
        frozenset(["detachKeys"]), {"checkpoint": "default", "checkpoint-dir": "default"},
    ),
    "/images/create": (
        frozenset("fromImage repo tag platform message changes".split()), {"fromSrc": "fetch"},
    ),
    "/build": (
        frozenset(
            "dockerfile t q nocache cachefrom pull rm forcerm memory memswap cpushares cpusetcpus "
            "cpusetmems cpuperiod cpuquota buildargs shmsize squash labels extrahosts platform "
            "target buildid".split()
        ),
        {
            "networkmode": "network", "cgroupparent": "cgroup-parent", "isolation": "isolation",
            "ulimits": "ulimits", "remote": "fetch", "version": "builder", "session": "default",
            "outputs": "default", "securityopt": "default",
        },
    ),
}  # fmt: skip
#: reads that tell of the host itself
SECRET_READS = re.compile(r"/containers/.*/checkpoints", re.S)
READING = (b"GET", b"HEAD", b"OPTIONS")
ROUTE_ROW = re.compile(r"([A-Z]+) +(/\S+) +([a-z]+)(\+?) +(\S.*)")


class GuardedRoute(NamedTuple):
    """A row. `shape`: of a body that is judged. `optional`: it may be missing."""

    path: str
    verdict: str
    reason: str
    shape: str = ""
    optional: bool = False
    query: Query | None = None


def guarded_routes() -> dict[str, list[tuple[re.Pattern[str], GuardedRoute]]]:
    """The table by method, in its order."""
    routes: dict[str, list[tuple[re.Pattern[str], GuardedRoute]]] = {}
    for row in ROUTE_ROWS.strip().splitlines():
        match = ROUTE_ROW.fullmatch(row)
        assert match is not None, row
        method, path, verdict, plus, reason = match.groups()
        query = QUERIES[path] if plus or verdict == "query" else None
        shape = reason.rstrip("?") if verdict == "body" else ""
        route = GuardedRoute(path, verdict, reason, shape, reason.endswith("?"), query)
        pattern = re.compile(re.escape(path).replace(r"\*", ".+"), re.S)
        routes.setdefault(method, []).append((pattern, route))
    return routes


GUARDED_ROUTES = guarded_routes()
UNKNOWN_ROUTE = GuardedRoute("", "refuse", "the guard does not know this request")


def guarded_route(method: str, path: str) -> GuardedRoute:
    """The first row that a request is of."""
    for pattern, route in GUARDED_ROUTES.get(method, ()):
        if pattern.fullmatch(path):
            return route
    return UNKNOWN_ROUTE
