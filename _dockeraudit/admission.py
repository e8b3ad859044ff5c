"""Requests that web pages send, and equal denials counted together. Performs no I/O."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, NamedTuple

from _dockeraudit.http1 import RequestHead
from _dockeraudit.routes import Route, cut_path

# Nobody can register a public name that ends so, thus no page can rebind one to this host: special
# names of RFC 6761, 6762, 8375 and of ICANN, the names of home routers, Docker's and Kubernetes'.
PRIVATE_NAMES = (
    "localhost", "localdomain", "internal", "local", "lan", "home", "home.arpa", "intranet",
    "corp", "private", "svc", "test", "fritz.box",
)  # fmt: skip
PRIVATE_SUFFIXES = tuple(f".{name}" for name in PRIVATE_NAMES)
SSH_HELPER_NAME = "docker.example.com"  # the Host that the docker CLI sends through ssh
MAX_NAME = 253  # characters of a name that is looked at; DNS has no longer ones
# A number of an IPv4 address as URL parsers read it (WHATWG URL §3.5): hexadecimal, octal, decimal
HOST_NUMBER = re.compile(r"0x([0-9a-f]*)|0([0-7]*)|([1-9][0-9]{0,9})")


def browser_refusal(
    head: RequestHead, route: Route, check_names: bool, allowed: frozenset[str]
) -> str | None:
    """Why a request looks like a web page's, or None.

    A page cannot forge Sec-Fetch-Site or Origin. Against DNS rebinding, neither the Host nor an
    absolute target's authority may be a public-looking name.
    """
    site = head.first(b"sec-fetch-site")
    if site in (b"cross-site", b"same-site"):
        return f"a web page of another site sent it (Sec-Fetch-Site: {site.decode()})"
    host = head.first(b"host") or b""
    origin = head.first(b"origin")
    if origin is not None and not same_authority(origin, host):
        return "a web page sent it (its Origin is not the Host it was sent to)"
    for authority in (host, route.authority or b"") if check_names else ():
        name = host_name(authority)
        if not admitted_host(name, allowed):
            shown = name[:MAX_NAME]
            return f"its Host {shown!r} is a public-looking name, as a rebound web page sends it"
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
    """The host of an authority (RFC 3986 §3.2): no user, port, brackets, final dot, capitals."""
    name = authority.rpartition(b"@")[2].decode("ascii", "replace").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def admitted_host(name: str, allowed: frozenset[str]) -> bool:
    """Whether no page can have a browser send this name, or it was allowed."""
    if "*" in allowed or name in allowed or name == SSH_HELPER_NAME:
        return True
    if "." not in name or name in PRIVATE_NAMES or name.endswith(PRIVATE_SUFFIXES):
        return True
    if name.startswith("tasks.") and name.count(".") == 1:  # Swarm's name for a service's tasks
        return True
    return is_ipv4(name) or is_ipv6(name)


def is_ipv4(name: str) -> bool:
    """Whether a URL parser reads the name as an IPv4 address, as it does `127.1` and `0x7f.1`.

    Each number but the last is one byte; the last one fills the bytes that are left.
    """
    if len(name) > MAX_NAME:
        return False
    numbers = [host_number(part) for part in name.split(".")]
    if len(numbers) > 4 or None in numbers:
        return False
    limits = [256] * (len(numbers) - 1) + [256 ** (5 - len(numbers))]
    return all(number < limit for number, limit in zip(numbers, limits) if number is not None)


def host_number(text: str) -> int | None:
    """A number of an IPv4 address; None for a text that is none."""
    match = HOST_NUMBER.fullmatch(text)
    if match is None:
        return None
    hexadecimal, octal, decimal = match.groups()
    if decimal is not None:
        return int(decimal)
    return int(hexadecimal or "0", 16) if hexadecimal is not None else int(octal or "0", 8)


def is_ipv6(name: str) -> bool:
    """Whether the name is an IPv6 address, as one stands between brackets."""
    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True


DENIAL_INTERVAL = 60.0  # seconds between two records of the same denial, against clients that retry
MAX_DENIALS = 1000  # different ones that are told apart; beyond, counting starts afresh


class Denial(NamedTuple):
    """A refused request, as its `denied` or `would_deny` record says it.

    Method and path are None where they are not known. `admits`: the line of a guard's file that
    would admit the request; empty for other refusals.
    """

    event: str
    method: str | None
    path: str | None
    client: dict[str, Any]
    rule: str
    admits: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for denials that are counted together, whatever the client's process is."""
        who = self.client.get("address", self.client.get("uid"))
        return (
            self.event,
            self.method,
            self.path,
            self.client["listener"],
            who,
            self.rule,
            self.admits,
        )


class DenialCounts:
    """Counts equal denials, so that each is written at most once a minute. Bounded.

    No count is ever lost: `add`, `due` and `drain` return, between them, each denial once.
    """

    def __init__(self) -> None:
        #: by key: when the denial was last written, how often it came since, the denial
        self._entries: dict[tuple[Any, ...], tuple[float, int, Denial]] = {}

    def add(self, denial: Denial, now: float) -> list[tuple[Denial, int]]:
        """Count one more; returns the denials that are to be written now, with their counts."""
        if denial.path is not None:
            denial = denial._replace(path=cut_path(denial.path))
        key = denial.key
        written, count, _ = self._entries.get(key, (None, 0, None))
        if written is not None and now - written < DENIAL_INTERVAL:
            self._entries[key] = written, count + 1, denial
            return []
        full = written is None and len(self._entries) >= MAX_DENIALS
        drained = self.drain() if full else []
        self._entries[key] = now, 0, denial
        return [*drained, (denial, count + 1)]

    def due(self, now: float) -> list[tuple[Denial, int]]:
        """The denials that came again and were last written a minute ago; forgets single ones."""
        due = []
        for key, (written, count, denial) in list(self._entries.items()):
            if now - written < DENIAL_INTERVAL:
                continue
            if count:
                due.append((denial, count))
                self._entries[key] = now, 0, denial
            else:
                del self._entries[key]
        return due

    def drain(self) -> list[tuple[Denial, int]]:
        """All counts that have not been written yet; counting starts afresh."""
        due = [(denial, count) for _, count, denial in self._entries.values() if count]
        self._entries.clear()
        return due


def unmaskable_refusal(word: str) -> str:
    """Why a masking listener refuses a route, and how it is let pass."""
    what = "BuildKit's tunnels" if word == "tunnel" else "copies of files"
    return (
        f"secrets are masked on this listener, and {what} cannot be; --mask-pass {word} admits them"
    )
