"""The options: one table gives the parser, its help, the variables and the file's keys."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from _dockeraudit import __version__
from _dockeraudit.clients import read_group, read_network, read_user
from _dockeraudit.commandline import OneLineParser
from _dockeraudit.diagnostics import LEVELS
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.keyfile import default_key_path
from _dockeraudit.presets import PRESET_POLICIES
from _dockeraudit.routes import UNMASKABLE
from _dockeraudit.settings import Settings
from _dockeraudit.text import did_you_mean
from _dockeraudit.values import (
    OneOf,
    read_address,
    read_command,
    read_guard,
    read_mode,
    read_number,
    read_object_word,
    read_scope_word,
    read_severity,
    read_switch,
    read_text,
    read_upstream,
    read_workers,
)

ENVIRONMENT = "DOCKERAUDIT_"
#: variables without our prefix, which other socket proxies take too
SHARED_VARIABLES = {"log-level": "LOG_LEVEL", "upstream": "SOCKET_PATH"}
#: variables that Docker's links and Kubernetes set for a service called dockeraudit
SERVICE_VARIABLE = re.compile(
    r"DOCKERAUDIT_(NAME$|ENV_|SERVICE_(HOST|PORT)|PORT($|_[0-9]+_(TCP|UDP)))"
)
PRECEDENCE = """\
Each option has a variable DOCKERAUDIT_NAME (dashes as underscores), and a key of its name in the
file of --config. The command line wins over the variable, the variable over the file."""
#: the groups of the help, by the option that each begins with
GROUPS = {
    "listen": "where it listens, and to which engine it relays",
    "audit-log": "the audit log",
    "rules": "what counts as a finding",
    "scope": "who may connect, and who may do what",
    "config": "from a file",
}


class Option(NamedTuple):
    """An option: its name on the command line, in the environment and in the file.

    `read`: from its text to its value, or a ConfigurationError. `metavar`: None is a switch.
    `many`: it may be repeated, and its value is a list. `per_listener`: it is also a key of a
    [listener NAME]. `reloads`: SIGHUP puts a new value in force; the others need a restart.
    """

    name: str
    default: str | None
    read: Callable[[str], Any]
    metavar: str | None
    help: str
    many: bool = False
    per_listener: bool = False
    reloads: bool = False

    @property
    def key(self) -> str:
        """The name as an attribute of Settings."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return ENVIRONMENT + self.key.upper()


POLICIES = OneOf("off", "tecnativa", "linuxserver", "rules", "auto", *PRESET_POLICIES)
SECONDS = read_number(float, 0, "a number of seconds")
CONNECTIONS = read_number(int, 2, "a number of connections from 2")
SYNCS = OneOf("always", "interval", "never")
LISTEN_HELP = "tcp://HOST:PORT, tcp://[::]:PORT or unix:///PATH; repeatable"
LEVEL_HELP = "lines on standard error: debug, info, warning, error"
FSYNC_HELP = "always, interval (each second or 64 KiB) or never"
POLICY_HELP = (
    "who may do what: off (the default), tecnativa, linuxserver, rules, auto, "
    "preset:CLIENT (see the command policy)"
)
SCOPE_HELP = (
    "clients get these containers only: label=K=V, name=GLOB, image=GLOB, compose-project=NAME, own"
)
SECRET_HELP = "a finding known as harmless, or CONTAINER:FINGERPRINT; repeatable"

# fmt: off
OPTIONS = (
    # where it listens, and to which engine it relays
    Option("listen", "tcp://127.0.0.1:2375", read_address, "URL", LISTEN_HELP, many=True),
    Option("upstream", "/var/run/docker.sock", read_upstream, "URL",
           "the engine's socket, or tcp://HOST:PORT"),
    Option("upstream-tls", None, read_text, "FOLDER",
           "TLS to the engine, with its ca.pem, cert.pem and key.pem"),
    Option("max-connections", "1024", CONNECTIONS, "N",
           "connections of all listeners together; one client may hold half of them"),
    Option("shutdown-timeout", "10", SECONDS, "SECONDS", "how long open requests may finish",
           reloads=True),
    Option("socket-mode", "0660", read_mode, "MODE", "mode of a Unix listener", per_listener=True),
    Option("socket-group", None, read_group, "GROUP", "group of a Unix listener",
           per_listener=True),
    Option("admin-listen", None, read_address, "URL",
           "health, metrics and a page; never the Docker listener"),
    Option("http2", "refuse", OneOf("refuse", "relay"), "WHAT",
           "refuse, or relay HTTP/2 without auditing it", reloads=True),
    # the audit log
    Option("audit-log", "audit.log", read_text, "PATH",
           "where the records go; - is standard output"),
    Option("fsync", "interval", SYNCS, "WHEN", FSYNC_HELP),
    Option("fingerprint-key", None, read_text, "FILE",
           "key of the fingerprints, made once; or env:NAME; default: beside the log"),
    Option("on-audit-failure", "continue", OneOf("continue", "deny"), "WHAT",
           "continue, or deny what would go unrecorded"),
    Option("on-finding", None, read_command, "COMMAND",
           "run for each new secret, with a JSON object on its standard input"),
    Option("alert-severity", "HIGH", OneOf("high", "medium", "low"), "SEVERITY",
           "run --on-finding for secrets of this severity and above"),
    Option("log-level", "info", OneOf(*LEVELS), "LEVEL", LEVEL_HELP, reloads=True),
    # what counts as a finding
    Option("rules", None, read_text, "FILE", "rules of your own (JSON)", reloads=True),
    Option("only-rules", None, read_text, "ID", "only these rules; repeatable", many=True,
           reloads=True),
    Option("disable-rule", None, read_text, "ID", "not this rule; repeatable", many=True,
           reloads=True),
    Option("allow-secret", None, read_text, "FINGERPRINT", SECRET_HELP, many=True, reloads=True),
    Option("baseline", None, read_text, "FILE",
           "known findings, each with a reason and a last day; allow writes it", reloads=True),
    Option("answers", "on", OneOf("on", "off"), "WHAT",
           "look for secrets in inspect, lists, builds and the like too: on, off", reloads=True),
    Option("own-secrets", "on", read_switch, "SWITCH",
           "off: do not look for the values of a container's own secret variables", reloads=True),
    Option("workers", "auto", read_workers, "N",
           "interpreters that scan, or threads before Python 3.14; auto: by the cores"),
    # what clients get
    Option("mask", None, read_severity, "SEVERITY",
           "HIGH, MEDIUM or LOW: clients get asterisks for such secrets and graver ones; or off",
           per_listener=True, reloads=True),
    Option("mask-pass", None, OneOf(*UNMASKABLE), "ROUTE",
           "let pass what cannot be masked: export, archive, get, tunnel; repeatable", many=True,
           per_listener=True, reloads=True),
    # who may do what
    Option("scope", None, read_scope_word, "WORD", SCOPE_HELP, many=True, per_listener=True,
           reloads=True),
    *(
        Option(f"scope-{kind}", None, read_object_word, "WORD",
               f"{kind} that clients get under --scope: label=K=V, name=GLOB …; default: all",
               many=True, per_listener=True, reloads=True)
        for kind in ("networks", "volumes", "images")
    ),
    Option("policy", None, POLICIES, "NAME", POLICY_HELP, per_listener=True, reloads=True),
    Option("guard", None, read_guard, "WHAT",
           "strict, or a file with exceptions: nobody gets the host by creating containers; or off",
           per_listener=True, reloads=True),
    Option("mode", "enforce", OneOf("enforce", "learn"), "WHAT",
           "enforce the policy, or learn what it would refuse", reloads=True),
    Option("allow-from", None, read_network, "CIDR",
           "addresses that may connect over TCP; repeatable",
           many=True, per_listener=True, reloads=True),
    Option("allow-uid", None, read_user, "UID",
           "users that may connect to a Unix listener; repeatable",
           many=True, per_listener=True, reloads=True),
    Option("allow-gid", None, read_group, "GID",
           "groups whose members may connect to a Unix listener; repeatable",
           many=True, per_listener=True, reloads=True),
    Option("allow-host", None, str.lower, "NAME",
           "a Host that requests over TCP may name, * for any; repeatable", many=True,
           reloads=True),
    Option("allow-browser", "no", read_switch, None, "admit requests that web pages send",
           reloads=True),
    Option("tls-cert", None, read_text, "FILE", "certificate of the TCP listeners (PEM)",
           per_listener=True, reloads=True),
    Option("tls-key", None, read_text, "FILE", "its private key", per_listener=True, reloads=True),
    Option("tls-client-ca", None, read_text, "FILE",
           "authority that clients' certificates must come from",
           per_listener=True, reloads=True),
    Option("config", None, read_text, "FILE", "INI file: [dockeraudit], [listener NAME]"),
)
# fmt: on
OPTION = {option.name: option for option in OPTIONS}


def option_parser(
    names: Sequence[str] | None = None,
    prog: str = "dockeraudit serve",
    description: str | None = None,
    helps: Mapping[str, str] | None = None,
    **given: Any,
) -> OneLineParser:
    """The parser of all options in their groups, or of those that another command takes.

    `helps`: by an option's name, its help where it means something else to this command. The parser
    leaves the values as texts, which `load_settings` reads.
    """
    parser = OneLineParser(prog, description, **given)
    parser.add_argument(
        "--version",
        action="version",
        version=f"dockeraudit {__version__}",
        help="show the version",
    )
    group: argparse._ActionsContainer = parser
    for option in OPTIONS:
        if names is None and option.name in GROUPS:
            group = parser.add_argument_group(GROUPS[option.name])
        if names is None or option.name in names:
            text = (helps or {}).get(option.name, option.help)
            add_option(group, option._replace(help=text))
    return parser


def add_option(group: argparse._ActionsContainer, option: Option) -> None:
    """Add an option to a parser; all are lists of texts there, of which the last may count."""
    default = f" (default: {option.default})" if option.default else ""
    kind: dict[str, Any] = {"action": "append", "metavar": option.metavar}
    if option.metavar is None:
        kind = {"action": "append_const", "const": "yes"}
        default = ""
    text = option.help.replace("%", "%%") + default
    group.add_argument(f"--{option.name}", dest=option.key, help=text, **kind)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence about each variable with our prefix that is no option's.

    Docker and Kubernetes make variables too, where a service is called dockeraudit: those are left
    out.
    """
    known = [option.variable for option in OPTIONS] + [ENVIRONMENT + "ACCESS"]
    return [
        f"the variable {name} is no option's and does nothing{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(ENVIRONMENT) and name not in known and not SERVICE_VARIABLE.match(name)
    ]


Section = tuple[str, list[tuple[str, str]]]  # a section's name, and its keys with their values


def read_ini(path: str, option: str = "--config") -> list[Section]:
    """The sections of an INI file with their keys, in order and with repetitions.

    configparser keeps neither.
    """
    sections: list[Section] = []
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{option}: cannot read {path}: {reason}") from None
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


def file_options(path: str, sections: Sequence[Section]) -> dict[str, list[str]]:
    """What the file says for all listeners: each option's texts; raises ConfigurationError."""
    found: dict[str, list[str]] = {}
    for section, keys in sections:
        if section != "dockeraudit" and not section.startswith("listener "):
            raise ConfigurationError(f"{path}: [{section}] is not [dockeraudit] or [listener NAME]")
        for key, text in keys if section == "dockeraudit" else ():
            name = key.replace("_", "-")
            if name not in OPTION and name not in ("allow", "deny"):
                hint = did_you_mean(name, (*OPTION, "allow", "deny"))
                raise ConfigurationError(
                    f"{path}: {name!r} is not an option{hint}; see 'dockeraudit --help'"
                )
            found.setdefault(name, []).append(text)
    return found


def read_option(option: Option, texts: Sequence[str], where: str) -> Any:
    """An option's value from its texts; `where` is what an error calls their place."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    text = texts[-1].strip()
    try:
        if not parts or not text:
            raise ConfigurationError("the value is empty")
        return [option.read(part) for part in parts] if option.many else option.read(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def option_value(
    option: Option,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    in_file: Mapping[str, list[str]],
) -> Any:
    """Command line over environment over file over default; an empty variable is an unset one."""
    if given.get(option.key):
        return read_option(option, given[option.key], f"--{option.name}")
    for variable in (option.variable, SHARED_VARIABLES.get(option.name, "")):
        text = environ.get(variable, "").strip()
        if text:
            return read_option(option, [text], variable)
    if option.name in in_file:
        return read_option(option, in_file[option.name], f"--config: {option.name}")
    if option.default:
        return read_option(option, [option.default], option.name)
    return [] if option.many else None


def load_settings(
    arguments: Sequence[str], environ: Mapping[str, str], parser: OneLineParser | None = None
) -> Settings:
    """All options' values; raises ConfigurationError.

    `parser`: of a command with arguments of its own, which become settings as they are.
    """
    given = vars((parser or option_parser()).parse_intermixed_args(arguments))
    config = option_value(OPTION["config"], given, environ, {})
    sections = read_ini(config) if config else []
    in_file = file_options(config, sections) if config else {}
    settings = Settings(**{**given, "sections": sections, "arguments": arguments})
    for option in OPTIONS:
        setattr(settings, option.key, option_value(option, given, environ, in_file))
    settings.config = config
    settings.allow_host = frozenset(settings.allow_host)
    if settings.fingerprint_key is None and settings.audit_log != "-":
        settings.fingerprint_key = default_key_path(settings.audit_log)
    return settings
