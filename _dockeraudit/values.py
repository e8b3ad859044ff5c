"""Readers of option values: from a user's text to its value, or a ConfigurationError."""

from __future__ import annotations

import re
import shlex
import socket
from typing import Any, Callable

from _dockeraudit.errors import ConfigurationError
from _dockeraudit.remoteengine import Engine, remote_engine
from _dockeraudit.scope import ScopeError, Term, read_scope
from _dockeraudit.settings import UNIX, Address
from _dockeraudit.text import SEVERITY_RANK
from _dockeraudit.workers import automatic_workers, usable_cores

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?", re.A)
LARGEST = 1e9  # of a number of anything
SHELL_WORDS = {"|", "||", "&", "&&", ";", ">", ">>", "<"}
ADDRESSES = "tcp://HOST:PORT, tcp://[::]:PORT or unix:///PATH"


def read_text(text: str) -> str:
    """The text as it is."""
    return text


class OneOf:
    """A reader for one of a few words, which completions offer too."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        """The word in lower case; raises ConfigurationError."""
        if text.lower() not in self.words:
            raise ConfigurationError(f"{text!r} is not one of {', '.join(self.words)}")
        return text.lower()


def read_severity(text: str) -> str | None:
    """A severity, or off: None."""
    if text.lower() == "off":
        return None
    if text.upper() not in SEVERITY_RANK:
        raise ConfigurationError(f"{text!r} is not one of HIGH, MEDIUM, LOW, off")
    return text.upper()


def read_scope_word(text: str) -> Term:
    """One word of a scope."""
    try:
        return read_scope(text)
    except ScopeError as error:
        raise ConfigurationError(str(error)) from None


def read_object_word(text: str) -> Term:
    """One word of the scope of networks, volumes or images: a label or a name."""
    term = read_scope_word(text)
    if term.kind == "image":
        raise ConfigurationError(f"{text!r}: only containers have an image; legal are label, name")
    return term


def read_guard(text: str) -> str | None:
    """strict, the path of a guard's file, or off: None."""
    if text.lower() == "off":
        return None
    return "strict" if text.lower() == "strict" else text


def read_number(kind: Callable[[str], Any], least: float, what: str) -> Callable[[str], Any]:
    """A reader for a number from `least` up; `what` says in words which numbers are legal."""

    def read(text: str) -> Any:
        try:
            number = kind(text) if NUMBER.fullmatch(text) else None
        except ValueError:
            number = None
        if number is None or not least <= number <= LARGEST:
            raise ConfigurationError(f"{text!r} is not {what}")
        return number

    return read


WORKERS = read_number(int, 0, "a number of workers from 0, or auto")


def read_workers(text: str) -> int:
    """How many workers; `auto`: by the cores and the Python that runs this."""
    if text.lower() == "auto":
        return automatic_workers(usable_cores())
    return int(WORKERS(text))


def read_switch(text: str) -> bool:
    """Yes or no."""
    return OneOf(*YES, *NO)(text) in YES


def read_command(text: str) -> list[str]:
    """A command with its arguments, split as a shell would; no shell runs it."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"{text!r} cannot be split into words: {error}") from None
    if not any(words):
        raise ConfigurationError("the command is empty")
    for word in SHELL_WORDS.intersection(words):
        raise ConfigurationError(f"no shell runs it, so {word!r} needs one: sh -c '...'")
    return words


def read_mode(text: str) -> int:
    """File mode bits, octal."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ConfigurationError(f"{text!r} is not an octal mode such as 0660")
    return int(text, 8)


def read_upstream(text: str) -> Engine:
    """The engine: `unix:///path`, a bare path, or `tcp://HOST:PORT`."""
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme == "tcp":
        return remote_engine(text)
    if scheme == "ssh":
        raise ConfigurationError(
            f"{text!r}: an engine is not reached over SSH from here; have ssh bring its socket, "
            "ssh -L /run/engine.sock:/var/run/docker.sock HOST, and give that as the upstream; or "
            "run dockeraudit on HOST, and give clients a `docker context` of it"
        )
    path = text[len("unix://") :] if scheme == "unix" else text
    if not path.startswith("/"):
        raise ConfigurationError(
            f"{text!r} is not unix:///PATH, an absolute path or tcp://HOST:PORT"
        )
    return path


def read_address(text: str) -> Address:
    """`tcp://HOST:PORT`, `tcp://[IPv6]:PORT` or `unix:///path`.

    Where the host has no IPv6, [::] stands for all IPv4 addresses.
    """
    scheme, _, rest = text.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        if not hasattr(socket, "AF_UNIX"):
            raise ConfigurationError(f"{text!r}: this system has no Unix sockets")
        return Address(text, UNIX, rest)
    host, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigurationError(f"{text!r} is not {ADDRESSES}")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host == "::" and not has_ipv6():
        host = "0.0.0.0"
    try:
        found = socket.getaddrinfo(
            host or "0.0.0.0", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise ConfigurationError(
            f"{text!r}: the host is not known; legal are {ADDRESSES}"
        ) from None
    return Address(text, found[0][0], found[0][4])


def has_ipv6() -> bool:
    """Whether this host lets us bind to an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
