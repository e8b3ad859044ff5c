"""What the options say, as values."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any, NamedTuple

from _dockeraudit.clients import ClientFilter
from _dockeraudit.guard import Guard
from _dockeraudit.heldbody import BodyJudge
from _dockeraudit.policy import Policy

UNIX = getattr(socket, "AF_UNIX", -1)  # the family of Unix sockets, which not all systems have


class Settings(argparse.Namespace):
    """The options' values by key: `settings.audit_log` is `--audit-log`.

    `sections`: of the file, as `read_ini` returns them. `arguments`: the command line, to be read
    again at SIGHUP.
    """

    arguments: Sequence[str]
    sections: list[tuple[str, list[tuple[str, str]]]]


class Address(NamedTuple):
    """Where to listen: `family` and what `bind` takes."""

    url: str
    family: int
    target: Any

    @property
    def loopback(self) -> bool:
        """Whether only this host's processes reach it."""
        if isinstance(self.target, str):
            return True
        return ipaddress.ip_address(self.target[0]).is_loopback


class Listener(NamedTuple):
    """A listener's settings. `tls`: None is plain; `policy`, `clients`: None admit everything.

    `mask`: the severity from which on its clients get asterisks for secrets; None: never.
    `mask_pass`: the routes that are let pass although their output cannot be masked.
    `guard`: refuses what would give its clients the host; it is the last of the judges.
    `judges`: they see whole requests before the engine does; what changes a body comes first.
    """

    name: str
    address: Address
    policy: Policy | None = None
    clients: ClientFilter | None = None
    tls: ssl.SSLContext | None = None
    socket_mode: int = 0o660
    socket_group: int | None = None
    mask: str | None = None
    mask_pass: frozenset[str] = frozenset()
    guard: Guard | None = None
    judges: tuple[BodyJudge, ...] = ()

    @property
    def ruled(self) -> bool:
        """Whether its clients are held to rules, which HTTP/2 would be a way around."""
        return bool(self.policy or self.clients or self.mask or self.judges)
