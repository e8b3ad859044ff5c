"""Who may connect to a listener: networks over TCP, uids and gids over a Unix socket."""

from __future__ import annotations

import grp
import ipaddress
import pwd
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from _dockeraudit.policy import Decision, PolicyError


class ClientFilter:
    """Who may connect: networks for TCP, uids and gids for Unix sockets."""

    def __init__(self, networks: Sequence[Any], uids: frozenset[int], gids: frozenset[int]) -> None:
        self._networks, self._uids, self._gids = tuple(networks), uids, gids

    def admits(self, client: Mapping[str, Any]) -> Decision:
        """Whether the client, as it stands in a record, may speak here."""
        if "address" in client:
            if not self._networks:
                return Decision(True, "allow-from")
            address = ipaddress.ip_address(str(client["address"]).partition("%")[0])
            allowed = any(address in network for network in self._networks)
            return Decision(allowed, "allow-from", () if allowed else (f"allow-from = {address}",))
        if not self._uids and not self._gids:
            return Decision(True, "allow-uid")
        allowed = client.get("uid") in self._uids or client.get("gid") in self._gids
        return Decision(
            allowed, "allow-uid", () if allowed else (f"allow-uid = {client.get('uid')}",)
        )


def client_filter(
    allow_from: Iterable[str], allow_uid: Iterable[Any], allow_gid: Iterable[Any]
) -> ClientFilter | None:
    """The filter, or None where nothing restricts; raises PolicyError."""
    try:
        networks = [ipaddress.ip_network(text, strict=False) for text in allow_from]
    except ValueError as error:
        raise PolicyError(
            f"allow-from: {error}; give addresses or networks such as 10.0.0.0/8"
        ) from None
    uids = frozenset(
        account_number(name, lambda n: pwd.getpwnam(n).pw_uid, "allow-uid") for name in allow_uid
    )
    gids = frozenset(
        account_number(name, lambda n: grp.getgrnam(n).gr_gid, "allow-gid") for name in allow_gid
    )
    return ClientFilter(networks, uids, gids) if networks or uids or gids else None


def account_number(name: Any, look_up: Any, option: str) -> int:
    """A uid or gid by number or name; raises PolicyError."""
    try:
        return int(name) if str(name).isdigit() else int(look_up(str(name)))
    except KeyError:
        raise PolicyError(f"{option}: there is no {name!r} on this host") from None
