"""Who may connect to a listener: networks over TCP, uids and gids over a Unix socket."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from _dockeraudit.policy import Decision, PolicyError

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
    allow_from: Iterable[str], allow_uid: Iterable[Any], allow_gid: Iterable[Any]
) -> ClientFilter | None:
    """The filter, or None if everybody may connect; raises PolicyError."""
    networks = [read_network(text) for text in allow_from]
    uids = frozenset(user_number(name) for name in allow_uid)
    gids = frozenset(group_number(name) for name in allow_gid)
    return ClientFilter(networks, uids, gids) if networks or uids or gids else None


def read_network(text: str) -> Any:
    """An address, or a network such as 10.0.0.0/8; raises PolicyError."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise PolicyError(
            f"allow-from: {error}; give addresses or networks such as 10.0.0.0/8"
        ) from None


def user_number(name: Any) -> int:
    """A uid, from a number or a user's name; raises PolicyError."""
    return account_number(name, "allow-uid", lambda text: pwd.getpwnam(text).pw_uid)


def group_number(name: Any) -> int:
    """A gid, from a number or a group's name; raises PolicyError."""
    return account_number(name, "allow-gid", lambda text: grp.getgrnam(text).gr_gid)


def account_number(name: Any, option: str, look_up: Callable[[str], int]) -> int:
    """A uid or gid, from a number or a name; raises PolicyError."""
    text = str(name)
    if text.isascii() and text.isdigit() and int(text) <= LAST_ACCOUNT:
        return int(text)
    try:
        return look_up(text)
    except (KeyError, ValueError, AttributeError):
        raise PolicyError(
            f"{option}: there is no {text!r} on this host; give a number or a name it knows"
        ) from None
