"""The listeners that the options and the file ask for, each with its policy, its clients and its TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from _dockeraudit.clients import client_filter
from _dockeraudit.compatible import SWITCHES, policy_from_environment, set_switches
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.options import ENVIRONMENT, OPTIONS, read_option
from _dockeraudit.policy import DenyAll, Policy, PolicyError, native_policy
from _dockeraudit.settings import Address, Listener, Settings

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
