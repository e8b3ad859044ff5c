"""Who may connect to a listener: networks over TCP, uids and gids over a Unix socket."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.policy import Decision

try:
    import grp
    import pwd
except ImportError:  # Windows has no such files: numbers only
    grp = pwd = None  # type: ignore[assignment]

LAST_ACCOUNT = 2**32 - 2  # the highest uid or gid; the one above means "none" to the kernel


class ClientFilter:
    """The clients that a listener admits; an empty list of a kind admits everybody of that kind."""

    def __init__(self, networks: Sequence[Any], uids: frozenset[int], gids: frozenset[int]) -> None:
        self._networks, self._uids, self._gids = tuple(networks), uids, gids

    def admits(self, client: Mapping[str, Any]) -> Decision:
        """Whether the client may connect.

        `client`: its identity as records have it; over a Unix socket also `groups`, the numbers of
        its supplementary groups.
        """
        if "address" in client:
            return self._admits_address(str(client["address"]))
        if not self._uids and not self._gids:
            return Decision(True, "allow-uid")
        groups = {client.get("gid"), *client.get("groups", ())}
        allowed = client.get("uid") in self._uids or bool(groups & self._gids)
        hint = f"allow-uid = {client.get('uid')}"
        return Decision(allowed, "allow-uid", () if allowed else (hint,))

    def _admits_address(self, text: str) -> Decision:
        if not self._networks:
            return Decision(True, "allow-from")
        address = ipaddress.ip_address(text.partition("%")[0])
        allowed = any(address in network for network in self._networks)
        return Decision(allowed, "allow-from", () if allowed else (f"allow-from = {address}",))


def client_filter(
    networks: Sequence[Any], uids: Iterable[int], gids: Iterable[int]
) -> ClientFilter | None:
    """The filter, or None if everybody may connect."""
    found = ClientFilter(networks, frozenset(uids), frozenset(gids))
    return found if networks or uids or gids else None


def read_network(text: str) -> Any:
    """An address, or a network such as 10.0.0.0/8; raises ConfigurationError."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigurationError(
            f"{error}; give an address or a network such as 10.0.0.0/8"
        ) from None


def read_user(text: str) -> int:
    """A uid, from a number or a user's name; raises ConfigurationError."""
    return account_number(text, "user", lambda name: pwd.getpwnam(name).pw_uid)


def read_group(text: str) -> int:
    """A gid, from a number or a group's name; raises ConfigurationError."""
    return account_number(text, "group", lambda name: grp.getgrnam(name).gr_gid)


def account_number(text: str, what: str, look_up: Callable[[str], int]) -> int:
    """A uid or gid, from a number or a name; raises ConfigurationError."""
    if text.isascii() and text.isdigit() and int(text) <= LAST_ACCOUNT:
        return int(text)
    try:
        return look_up(text)
    except (KeyError, ValueError, AttributeError):
        raise ConfigurationError(
            f"there is no {what} {text!r} on this host; give a number or a name it knows"
        ) from None
