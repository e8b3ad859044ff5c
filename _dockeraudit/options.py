"""The options of `serve`: one table gives the parser, the help, the environment variables and the file's keys."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, NoReturn

from _dockeraudit import __version__
from _dockeraudit.diagnostics import LEVELS
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.logfile import default_key_path
from _dockeraudit.settings import Settings
from _dockeraudit.values import (
    read_address,
    read_choice,
    read_group,
    read_mode,
    read_number,
    read_switch,
    read_upstream,
)

ENVIRONMENT = "DOCKERAUDIT_"
DESCRIPTION = """\
A Docker socket proxy that audits log streams: it relays the whole Engine API unchanged, and writes one JSON line for
each secret (keys, tokens, passwords) that container output carries past it.

  python3 dockeraudit.py                            relay 127.0.0.1:2375 to /var/run/docker.sock, audit to audit.log
  export DOCKER_HOST=tcp://127.0.0.1:2375           then use docker as always

commands: serve (the default), scan, verify, report, learn, rules, healthcheck; COMMAND --help says more
"""


class Option(NamedTuple):
    """An option of `serve`: its name on the command line, in the environment and in the file; how its text is read."""

    name: str
    default: Any
    read: Callable[[str], Any]
    metavar: str | None
    help: str
    many: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


OPTIONS = (
    Option(
        "listen",
        "tcp://127.0.0.1:2375",
        read_address,
        "URL",
        "tcp://HOST:PORT, tcp://[::]:PORT or unix:///PATH; repeatable",
        many=True,
    ),
    Option("upstream", "/var/run/docker.sock", read_upstream, "URL", "the engine's socket"),
    Option("audit-log", "audit.log", str, "PATH", "where the records go; - is standard output"),
    Option(
        "log-level",
        "info",
        read_choice(*LEVELS),
        "LEVEL",
        "diagnostics on standard error: debug, info, warning, error",
    ),
    Option(
        "shutdown-timeout",
        "10",
        read_number(float, 0, "a number of seconds"),
        "SECONDS",
        "how long open requests may finish",
    ),
    Option("socket-mode", "0660", read_mode, "MODE", "mode of a Unix listener"),
    Option("socket-group", None, read_group, "GROUP", "group of a Unix listener"),
    Option(
        "max-connections",
        "1024",
        read_number(int, 2, "a number of connections from 2"),
        "N",
        "connections of all listeners together; one client may hold half of them",
    ),
    Option(
        "workers", "2", read_number(int, 1, "a number of threads from 1"), "N", "scanning threads"
    ),
    Option(
        "fsync",
        "interval",
        read_choice("always", "interval", "never"),
        "WHEN",
        "always, interval (each second or 64 KiB) or never",
    ),
    Option(
        "fingerprint-key",
        None,
        str,
        "FILE",
        "key of the fingerprints, made once; default: beside the log",
    ),
    Option(
        "on-audit-failure",
        "continue",
        read_choice("continue", "deny"),
        "WHAT",
        "continue, or deny what would go unrecorded",
    ),
    Option(
        "allow-host",
        "",
        str.lower,
        "NAME",
        "a Host that requests over TCP may name, * for any; repeatable",
        many=True,
    ),
    Option("allow-browser", "no", read_switch, None, "admit requests that web pages send"),
    Option(
        "http2",
        "refuse",
        read_choice("refuse", "relay"),
        "WHAT",
        "refuse, or relay HTTP/2 without auditing it",
    ),
    Option("rules", None, str, "FILE", "rules of your own (JSON)"),
    Option("only-rules", "", str, "ID", "only these rules; repeatable", many=True),
    Option("disable-rule", "", str, "ID", "not this rule; repeatable", many=True),
    Option(
        "allow-secret",
        "",
        str,
        "FINGERPRINT",
        "a finding known as harmless, or CONTAINER:FINGERPRINT; repeatable",
        many=True,
    ),
    Option(
        "policy",
        None,
        read_choice("off", "tecnativa", "linuxserver", "rules", "auto"),
        "NAME",
        "who may do what: off (the default), tecnativa, linuxserver, rules, auto",
    ),
    Option(
        "mode",
        "enforce",
        read_choice("enforce", "learn"),
        "WHAT",
        "enforce the policy, or learn what it would refuse",
    ),
    Option("allow-from", "", str, "CIDR", "addresses that may connect; repeatable", many=True),
    Option(
        "allow-uid",
        "",
        str,
        "UID",
        "users that may connect to a Unix listener; repeatable",
        many=True,
    ),
    Option(
        "allow-gid",
        "",
        str,
        "GID",
        "groups that may connect to a Unix listener; repeatable",
        many=True,
    ),
    Option("tls-cert", None, str, "FILE", "certificate of the TCP listeners (PEM)"),
    Option("tls-key", None, str, "FILE", "its key"),
    Option(
        "tls-client-ca", None, str, "FILE", "authority that clients' certificates must come from"
    ),
    Option(
        "admin-listen",
        None,
        read_address,
        "URL",
        "health, metrics and a page; never the Docker listener",
    ),
    Option("config", None, str, "FILE", "INI file: [dockeraudit], [listener NAME]"),
)


def read_ini(path: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The sections of an INI file with their keys, in order and with repetitions, which configparser cannot keep."""
    sections: list[tuple[str, list[tuple[str, str]]]] = []
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config: cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        key, equals, value = line.partition("=")
        if line[0] == "[" and line[-1] == "]":
            sections.append((line[1:-1].strip(), []))
        elif equals and sections:
            sections[-1][1].append((key.strip().lower(), value.strip()))
        else:
            raise ConfigurationError(
                f"{path}, line {number}: {line!r} is neither a [section] nor NAME = VALUE in one"
            )
    return sections


def read_option(option: Option, texts: Sequence[str], where: str) -> Any:
    """An option's value from its texts; says where a bad one stands."""
    try:
        if not option.many:
            return option.read(texts[-1])
        return [
            option.read(part.strip()) for text in texts for part in text.split(",") if part.strip()
        ]
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def option_parser(names: Sequence[str] | None = None, **described: Any) -> OneLineParser:
    """The parser of `serve`'s options, or of those of them that another command takes; it knows nothing of their values yet."""
    given = {
        "prog": "dockeraudit",
        "description": DESCRIPTION,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = OneLineParser(**{**given, **described})
    parser.add_argument("--version", action="version", version=f"dockeraudit {__version__}")
    for option in OPTIONS:
        if names is not None and option.name not in names:
            continue
        default = f" (default: {option.default})" if option.default else ""
        kind: dict[str, Any] = {"action": "append", "metavar": option.metavar}
        if option.metavar is None:
            kind = {"action": "append_const", "const": "yes"}
        parser.add_argument(
            f"--{option.name}",
            dest=option.key,
            help=option.help.replace("%", "%%") + default,
            **kind,
        )
    return parser


class OneLineParser(argparse.ArgumentParser):
    """argparse, with errors as one sentence and exit 78."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without the usage of thirty options before it."""
        raise ConfigurationError(f"{message}; see 'dockeraudit --help'")


def load_settings(
    arguments: Sequence[str], environ: Mapping[str, str], parser: OneLineParser | None = None
) -> Settings:
    """Command line over environment over file over default; raises ConfigurationError.

    `parser`: of a command with arguments of its own, which become settings as they are.
    """
    given = vars((parser or option_parser()).parse_intermixed_args(arguments))
    config = (given.get("config") or [environ.get(ENVIRONMENT + "CONFIG")])[-1]
    sections = read_ini(config) if config else []
    in_file: dict[str, list[str]] = {}
    for section, keys in sections:
        if section != "dockeraudit" and not section.startswith("listener "):
            raise ConfigurationError(
                f"{config}: [{section}] is not [dockeraudit] or [listener NAME]"
            )
        for key, text in keys if section == "dockeraudit" else ():
            in_file.setdefault(key.replace("_", "-"), []).append(text)
    unknown = set(in_file) - {option.name for option in OPTIONS} - {"allow", "deny"}
    if unknown:
        raise ConfigurationError(
            f"{config}: {sorted(unknown)[0]!r} is not an option; see 'dockeraudit --help'"
        )
    settings = Settings(**{**given, "sections": sections, "arguments": arguments})
    for option in OPTIONS:
        variable = ENVIRONMENT + option.key.upper()
        value: Any = [] if option.many else option.default
        if given.get(option.key):
            value = read_option(option, given[option.key], f"--{option.name}")
        elif variable in environ:
            value = read_option(option, [environ[variable]], variable)
        elif environ.get(SHARED_VARIABLES.get(option.name, "")):
            shared = SHARED_VARIABLES[option.name]
            value = read_option(option, [environ[shared]], shared)
        elif option.name in in_file:
            value = read_option(option, in_file[option.name], f"{config}: {option.name}")
        elif option.default:
            value = read_option(option, [option.default], option.name)
        setattr(settings, option.key, value)
    settings.allow_host = frozenset(settings.allow_host)
    if settings.fingerprint_key is None and settings.audit_log != "-":
        settings.fingerprint_key = default_key_path(settings.audit_log)
    return settings


# variables without our prefix, which other socket proxies take too
SHARED_VARIABLES = {"log-level": "LOG_LEVEL", "upstream": "SOCKET_PATH"}
