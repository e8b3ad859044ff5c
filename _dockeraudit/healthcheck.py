"""The command `healthcheck`: whether a listener on this host answers, and the engine behind it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from _dockeraudit.commandline import OneLineParser
from _dockeraudit.errors import EXIT_UNAVAILABLE
from _dockeraudit.http1 import STATUS_LINE
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import OPTIONS, add_option, load_settings, option_parser
from _dockeraudit.settings import UNIX, Listener

HEALTHCHECK_TIMEOUT = 5.0  # seconds for each listener
STATUS_BYTES = 4096  # bytes in which an answer's status line must have come
PING = b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HEALTHCHECK_HELP = """\
The listeners are those of --listen, of the variable DOCKERAUDIT_LISTEN or of the file, tried in
their order: the first that answers decides. All options of serve are taken, so that its command
line can be repeated."""
#: answers of a listener that cannot serve: no engine, and no room for another connection
UNHEALTHY = {502: "its engine cannot be reached", 503: "it has no room for another connection"}
#: what to dial for an address that stands for all (::1 can be off where :: is not)
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::ffff:127.0.0.1"}


def command_healthcheck(arguments: Sequence[str]) -> int:
    """`healthcheck`: exit 0 if a listener answers other than 502 or 503, else 69 and why."""
    settings = load_settings(arguments, os.environ, healthcheck_parser())
    listeners = load_listeners(settings, os.environ, lambda level, text: None)
    for listener in listeners:
        status = ask_listener(listener)
        if status is None:
            continue
        if status in UNHEALTHY:
            return unhealthy(f"{listener.address.url} answers {status}: {UNHEALTHY[status]}")
        return 0
    return unhealthy(f"nobody answers at {', '.join(item.address.url for item in listeners)}")


def healthcheck_parser() -> OneLineParser:
    """The parser of `healthcheck`: it takes what `serve` takes, and shows what it looks at."""
    parser = option_parser(
        ("listen", "config"),
        prog="dockeraudit healthcheck",
        description=f"{command_healthcheck.__doc__}\n\n{HEALTHCHECK_HELP}",
    )
    for option in OPTIONS:
        if option.name not in ("listen", "config"):
            add_option(parser, option._replace(help=argparse.SUPPRESS, default=None))
    return parser


def unhealthy(why: str) -> int:
    """Say why, for `docker inspect`, and return the exit status."""
    sys.stderr.write(f"dockeraudit: {why}\n")
    return EXIT_UNAVAILABLE


def ask_listener(listener: Listener) -> int | None:
    """The status that a listener answers to /_ping; None if nobody does.

    Of a TLS listener the connection suffices: we may have no certificate that it would take.
    """
    address = listener.address
    target = address.target
    if address.family != UNIX:
        target = (LOCAL.get(target[0], target[0]), *target[1:])
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as sock:
            sock.settimeout(HEALTHCHECK_TIMEOUT)
            sock.connect(target)
            if listener.tls:
                return 200
            sock.sendall(PING)
            return answered_status(sock)
    except OSError:
        return None


def answered_status(sock: socket.socket) -> int | None:
    """The status of the answer that comes; None if the connection ends before it."""
    data = b""
    while b"\n" not in data and len(data) < STATUS_BYTES:
        block = sock.recv(STATUS_BYTES)
        if not block:
            return None
        data += block
    line = STATUS_LINE.match(data)
    return int(line.group(2)) if line else None
