"""Which requests come from a web page and are refused, and how repeated denials are counted. Performs no I/O."""

from __future__ import annotations

import ipaddress
from typing import Any

from _dockeraudit.http1 import RequestHead
from _dockeraudit.routes import Route

# RFC 6761 and RFC 8375: names that no public DNS server answers for, so no page can rebind one to loopback.
PRIVATE_SUFFIXES = (".localhost", ".internal", ".local", ".home.arpa")


def browser_refusal(
    head: RequestHead, route: Route, check_names: bool, allowed: frozenset[str]
) -> str | None:
    """Why a request looks like a web page's, or None.

    A page cannot forge Sec-Fetch-Site or Origin; against DNS rebinding the Host must not be a public-looking name.
    """
    site = head.first(b"sec-fetch-site")
    if site in (b"cross-site", b"same-site"):
        return f"a web page of another site sent it (Sec-Fetch-Site: {site.decode()})"
    host = head.first(b"host") or b""
    origin = head.first(b"origin")
    if origin is not None and not same_authority(origin, host):
        return "a web page sent it (its Origin is not the Host it was sent to)"
    for name in (host, route.authority or b""):
        if check_names and not admitted_host(host_name(name), allowed):
            return f"its Host {host_name(name)!r} is a public-looking name, as a rebound web page sends it"
    return None


def same_authority(origin: bytes, host: bytes) -> bool:
    """Whether an Origin names the host and port of the Host field; `null` never does."""
    scheme, _, authority = origin.partition(b"://")
    default = {b"http": b":80", b"ws": b":80", b"https": b":443", b"wss": b":443"}.get(
        scheme.lower()
    )
    if default is None:
        return False
    return authority.lower().removesuffix(default) == host.lower().removesuffix(default)


def host_name(authority: bytes) -> str:
    """The host of an authority (RFC 3986 §3.2), lower-case, without user, port, brackets or a final dot."""
    name = authority.rpartition(b"@")[2].decode("ascii", "replace").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def admitted_host(name: str, allowed: frozenset[str]) -> bool:
    """Whether no page could have made a browser send this name: an address, one label, a private suffix, or allowed."""
    if "*" in allowed or name in allowed or "." not in name or name.endswith(PRIVATE_SUFFIXES):
        return True
    if name == "docker.example.com":  # what the docker CLI's ssh helper says
        return True
    if name.startswith("tasks.") and name.count(".") == 1:  # Swarm's name for a service's tasks
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


DENIAL_INTERVAL = 60.0  # seconds between two records of the same denial: a client that retries must not fill the log
MAX_DENIALS = 1000  # different ones that are told apart; beyond, counting starts afresh


class DenialCounts:
    """Counts equal denials, so that each is written at most once a minute and none is forgotten; bounded."""

    def __init__(self) -> None:
        self._entries: dict[
            tuple[Any, ...], list[Any]
        ] = {}  # key → when it was written, how often since, what

    def add(
        self, key: tuple[Any, ...], denial: tuple[Any, ...], now: float
    ) -> list[tuple[tuple[Any, ...], int]]:
        """One more; returns what is to be written now, with counts."""
        entry = self._entries.get(key)
        if entry and now - entry[0] < DENIAL_INTERVAL:
            entry[1] += 1
            return []
        due = [(denial, 1 + (entry[1] if entry else 0))]
        if entry is None and len(self._entries) >= MAX_DENIALS:
            due = self.drain() + due
        self._entries[key] = [now, 0, denial]
        return due

    def drain(self) -> list[tuple[tuple[Any, ...], int]]:
        """What has not been written yet."""
        due = [(denial, count) for _, count, denial in self._entries.values() if count]
        self._entries.clear()
        return due
