"""Command line, environment and INI file to settings, listeners, rules and the log."""

from __future__ import annotations

import argparse
import grp
import os
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, NoReturn

from _dockeraudit import __version__
from _dockeraudit.auditlog import QUEUE_LIMIT, AuditLog
from _dockeraudit.diagnostics import LEVELS, Diagnostics
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.keyfile import default_key_path, load_fingerprint_key, refuse_unfit_log
from _dockeraudit.policy import (
    SWITCHES,
    DenyAll,
    Policy,
    PolicyError,
    client_filter,
    native_policy,
    policy_from_environment,
    set_switches,
)
from _dockeraudit.scanner import Scanner
from _dockeraudit.settings import Address, Listener, Settings
from _dockeraudit.userrules import RuleError, load_rules, select_rules
from patterns import RULES

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


def read_choice(*choices: str) -> Callable[[str], str]:
    """A reader for one of a few words."""

    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ConfigurationError(f"{text!r} is not one of {', '.join(choices)}")
        return text.lower()

    return read


def read_number(kind: Callable[[str], Any], least: float, what: str) -> Callable[[str], Any]:
    """A reader for a number from `least` up."""

    def read(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            raise ConfigurationError(f"{text!r} is not {what}") from None
        if not least <= number < 1e9:
            raise ConfigurationError(f"{text!r} is not {what}")
        return number

    return read


def read_mode(text: str) -> int:
    """File mode bits, octal."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ConfigurationError(f"{text!r} is not an octal mode such as 0660")
    return int(text, 8)


def read_group(text: str) -> int:
    """A group, by name or number, as its number."""
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigurationError(
            f"{text!r} is not a group of this system, nor a group's number"
        ) from None


def read_switch(text: str) -> bool:
    """Yes or no."""
    return read_choice("1", "true", "yes", "on", "0", "false", "no", "off", "")(text) in (
        "1",
        "true",
        "yes",
        "on",
    )


def read_upstream(text: str) -> str:
    """The engine's socket: `unix:///path` or a bare path."""
    path = text[len("unix://") :] if text.startswith("unix://") else text
    if not path.startswith("/"):
        raise ConfigurationError(
            f"{text!r} is not unix:///PATH or an absolute path; the engine is reached on its Unix socket"
        )
    return path


def read_address(text: str) -> Address:
    """`tcp://HOST:PORT`, `tcp://[IPv6]:PORT` or `unix:///path`; IPv4 stands in for [::] where there is no IPv6."""
    legal = "tcp://HOST:PORT, tcp://[::]:PORT or unix:///PATH"
    scheme, _, rest = text.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return Address(text, socket.AF_UNIX, rest)
    host, colon, port = rest.rpartition(":")
    if scheme != "tcp" or not colon or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"{text!r} is not {legal}")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host == "::" and not has_ipv6():
        host = "0.0.0.0"
    try:
        found = socket.getaddrinfo(
            host or "0.0.0.0", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        raise ConfigurationError(f"{text!r}: the host is not known; legal are {legal}") from None
    return Address(text, found[0][0], found[0][4])


def has_ipv6() -> bool:
    """Whether this host lets us bind to an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


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
LISTENER_KEYS = (
    "listen", "policy", "allow", "deny", "allow-from", "allow-uid", "allow-gid", "tls-cert", "tls-key", "tls-client-ca", "socket-mode", "socket-group"
)  # fmt: skip


def load_listeners(
    settings: Settings, environ: Mapping[str, str], say: Callable[[str, str], None]
) -> list[Listener]:
    """The listeners of the file's [listener NAME] sections, else of --listen; raises ConfigurationError."""
    shared = {
        key: getattr(settings, key.replace("-", "_"))
        for key in LISTENER_KEYS
        if key not in ("listen", "allow", "deny")
    }
    rules = [
        f"{k} = {v}"
        for s, keys in settings.sections
        if s == "dockeraudit"
        for k, v in keys
        if k in ("allow", "deny")
    ]
    rules += [
        line
        for line in environ.get(ENVIRONMENT + "ACCESS", "").replace(";", "\n").splitlines()
        if line.strip()
    ]
    shared.update(rules=rules, variables=environ, mode=settings.mode)
    warnings: dict[str, None] = {}  # each said once, however many listeners it is about
    listeners = [
        section_listener(section, keys, shared, warnings)
        for section, keys in settings.sections
        if section.startswith("listener ")
    ]
    if not listeners:
        listeners = [
            make_listener(address.url, address, shared, warnings) for address in settings.listen
        ]
    for warning in warnings:
        say("warning", warning)
    return listeners


def section_listener(
    section: str,
    keys: Sequence[tuple[str, str]],
    shared: Mapping[str, Any],
    warnings: dict[str, None],
) -> Listener:
    """The listener of one [listener NAME] section; what it does not say is as for all."""
    own = dict(shared)
    rules: list[str] = []
    variables: dict[str, str] = {}
    address = None
    for key, value in keys:
        key = key.replace("_", "-")
        if key in ("allow", "deny"):
            rules.append(f"{key} = {value}")
        elif key == "listen":
            address = read_option(OPTIONS[0]._replace(many=False), [value], f"[{section}] listen")
        elif key in LISTENER_KEYS:
            option = next(option for option in OPTIONS if option.name == key)
            own[key] = read_option(option, [value], f"[{section}] {key}")
        elif key.upper().replace("-", "_") in SWITCHES:
            variables[key.upper().replace("-", "_")] = value
        else:
            raise ConfigurationError(
                f"[{section}]: {key!r} is not one of {', '.join(LISTENER_KEYS)}, nor a variable such as containers"
            )
    if address is None:
        raise ConfigurationError(f"[{section}] has no 'listen = URL'")
    if rules or variables:
        own["rules"] = rules
        own["variables"] = {
            name: text for name, text in shared["variables"].items() if name not in SWITCHES
        }
        own["variables"].update(variables)
        if not any(key == "policy" for key, _ in keys):
            own["policy"] = "auto"
    return make_listener(section[len("listener ") :].strip(), address, own, warnings)


def make_listener(
    name: str, address: Address, own: Mapping[str, Any], warnings: dict[str, None]
) -> Listener:
    """A listener with its policy, its clients and its TLS; raises ConfigurationError."""
    tcp = address.family != socket.AF_UNIX
    if (
        own["variables"].get("DISABLE_IPV6", "").lower() in ("1", "true", "yes")
        and address.target[0] == "::"
    ):
        address = Address(address.url, socket.AF_INET, ("0.0.0.0", address.target[1]))
    try:
        clients = client_filter(
            own["allow-from"] if tcp else (),
            () if tcp else own["allow-uid"],
            () if tcp else own["allow-gid"],
        )
        policy, more = listener_policy(own["policy"], own["rules"], own["variables"])
    except PolicyError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    warnings.update(dict.fromkeys(more))
    if own["mode"] == "learn":
        policy = policy or DenyAll()
    tls = (
        tls_context(own)
        if tcp and (own["tls-cert"] or own["tls-key"] or own["tls-client-ca"])
        else None
    )
    if not address.loopback and tls is None and clients is None:
        warnings[
            f"{address.url} is open to the network: whoever reaches an open Docker port is root on this host"
        ] = None
    return Listener(name, address, policy, clients, tls, own["socket-mode"], own["socket-group"])


def listener_policy(
    chosen: str | None, rules: Sequence[str], variables: Mapping[str, str]
) -> tuple[Policy | None, Sequence[str]]:
    """The policy that was chosen, or that the rules or variables mean, and warnings; raises PolicyError."""
    used = set_switches(variables)
    if chosen == "auto" and rules and used:
        raise PolicyError(
            f"there are rules and there is {used[0]}: say which counts with policy rules, tecnativa or linuxserver"
        )
    if chosen == "rules" or rules and chosen in (None, "auto"):
        return native_policy(rules), ()
    policy, warnings = policy_from_environment(variables, chosen or "off")
    if rules:
        warnings.append(f"{rules[0]!r} and the other rules do not count under policy {chosen}")
    return policy, warnings


def tls_context(own: Mapping[str, Any]) -> ssl.SSLContext:
    """TLS 1.2 and up with ALPN http/1.1; with a client CA, only its certificates are let in."""
    if not own["tls-cert"]:
        raise ConfigurationError(
            "TLS: --tls-key and --tls-client-ca need --tls-cert, the server's certificate"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could make a write wait for its reads
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(
            own["tls-cert"], own["tls-key"], password=lambda: ""
        )  # never ask a terminal
        if own["tls-client-ca"]:
            context.load_verify_locations(own["tls-client-ca"])
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"TLS: cannot load {own['tls-cert']}, its key or the client CA: {error}"
        ) from None
    return context


def load_scanner(settings: Settings) -> Scanner:
    """The rules that were chosen; raises ConfigurationError."""
    try:
        own = load_rules(settings.rules) if settings.rules else ()
        return Scanner(
            select_rules(
                RULES + tuple(own), only=settings.only_rules, disable=settings.disable_rule
            )
        )
    except (RuleError, OSError) as error:
        raise ConfigurationError(str(error)) from None


def open_log(
    settings: Settings, scanner: Scanner, listen: Sequence[str], diagnostics: Diagnostics,
    write: Callable[[int, bytes], int] = os.write, queue_limit: int = QUEUE_LIMIT,
) -> AuditLog:  # fmt: skip
    """The audit log, open; raises AuditLogError."""
    refuse_unfit_log(settings.audit_log)  # before a key is made beside it
    key = load_fingerprint_key(settings.fingerprint_key)
    if settings.fingerprint_key is None:
        diagnostics.say(
            "notice",
            "the fingerprints' key lives for this run only; --fingerprint-key FILE keeps it",
        )
    log = AuditLog(
        settings.audit_log,
        key,
        key_path=settings.fingerprint_key,
        fsync=settings.fsync,
        diagnose=diagnostics.say,
        allow=settings.allow_secret,
        write=write,
        queue_limit=queue_limit,
    )
    log.open(
        version=__version__,
        pid=os.getpid(),
        listen=list(listen),
        upstream=settings.upstream,
        rules=len(scanner.rules),
    )
    return log
