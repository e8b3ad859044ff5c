"""The listeners that the options and the file ask for, each with its policy, clients and TLS."""

from __future__ import annotations

import functools
import socket
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from _dockeraudit.certificates import load_authority, load_certificate
from _dockeraudit.clients import client_filter
from _dockeraudit.compatible import SWITCHES, policy_from_environment, set_switches
from _dockeraudit.engine import ask_engine
from _dockeraudit.errors import ConfigurationError, HTTPError
from _dockeraudit.guard import Guard
from _dockeraudit.guardfile import Exceptions, guard_exceptions
from _dockeraudit.options import ENVIRONMENT, OPTION, OPTIONS, read_ini, read_option
from _dockeraudit.policy import DenyAll, Policy, PolicyError, native_policy
from _dockeraudit.presets import PRESET_PREFIX, preset_policy
from _dockeraudit.remoteengine import Engine
from _dockeraudit.settings import UNIX, Address, Listener, Settings
from _dockeraudit.text import did_you_mean
from _dockeraudit.values import YES

#: options that are keys of a [listener NAME] too
LISTENER_OPTIONS = tuple(option for option in OPTIONS if option.per_listener)
LISTENER_KEYS = ("listen", "allow", "deny", *(option.name for option in LISTENER_OPTIONS))
#: options that restrict clients of one kind of listener: on the other kind they would do nothing
TCP_ONLY = ("allow-from", "tls-client-ca")
UNIX_ONLY = ("allow-uid", "allow-gid")


class Wanted(NamedTuple):
    """What is asked of a listener: option values by name, native rules, variables of policies."""

    values: dict[str, Any]
    rules: Sequence[str]
    variables: Mapping[str, str]
    mode: str


def load_listeners(
    settings: Settings, environ: Mapping[str, str], say: Callable[[str, str], None]
) -> list[Listener]:
    """The listeners of the file's [listener NAME] sections, else of --listen.

    Raises ConfigurationError. `say` gets each warning once, however many listeners it is about.
    """
    shared = Wanted(
        {
            **{option.name: getattr(settings, option.key) for option in LISTENER_OPTIONS},
            "http2": settings.http2,
            "upstream": settings.upstream,
        },
        shared_rules(settings, environ),
        environ,
        settings.mode,
    )
    warnings: dict[str, None] = {}
    listeners = [
        section_listener(section, keys, shared, warnings)
        for section, keys in settings.sections
        if section.startswith("listener ")
    ]
    if not listeners:
        listeners = [
            make_listener(address.url, address, shared, warnings) for address in settings.listen
        ]
    check_restrictions(shared.values, [listener.address for listener in listeners])
    for warning in warnings:
        say("warning", warning)
    return listeners


def shared_rules(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The native rules for all listeners: of the file, then of DOCKERAUDIT_ACCESS."""
    in_file = [
        f"{key} = {value}"
        for section, keys in settings.sections
        if section == "dockeraudit"
        for key, value in keys
        if key in ("allow", "deny")
    ]
    lines = environ.get(ENVIRONMENT + "ACCESS", "").replace(";", "\n").splitlines()
    return in_file + [line for line in lines if line.strip()]


def check_restrictions(values: Mapping[str, Any], addresses: Sequence[Address]) -> None:
    """Raise ConfigurationError for an option that would restrict nobody at any of the addresses."""
    kinds = {on_tcp(address) for address in addresses}
    for names, tcp, what in ((TCP_ONLY, True, "TCP"), (UNIX_ONLY, False, "Unix")):
        for name in names:
            if values[name] and tcp not in kinds:
                raise ConfigurationError(
                    f"{name} restricts {what} listeners, and there is none "
                    f"({', '.join(address.url for address in addresses)})"
                )


def on_tcp(address: Address) -> bool:
    """Whether this is no Unix socket."""
    return address.family != UNIX


def section_listener(
    section: str,
    keys: Sequence[tuple[str, str]],
    shared: Wanted,
    warnings: dict[str, None],
) -> Listener:
    """The listener of one [listener NAME] section; what it does not say is as for all."""
    own: dict[str, Any] = {}
    rules: list[str] = []
    variables: dict[str, str] = {}
    address = None
    for key, value in keys:
        key = key.replace("_", "-")
        if key in ("allow", "deny"):
            rules.append(f"{key} = {value}")
        elif key == "listen":
            option = OPTION["listen"]._replace(many=False)
            address = read_option(option, [value], f"[{section}] listen")
        elif key in LISTENER_KEYS:
            own[key] = read_option(OPTION[key], [value], f"[{section}] {key}")
        elif key.upper().replace("-", "_") in SWITCHES:
            variables[key.upper().replace("-", "_")] = value
        else:
            hint, known = did_you_mean(key, LISTENER_KEYS), ", ".join(LISTENER_KEYS)
            raise ConfigurationError(
                f"[{section}]: {key!r}{hint} is not one of {known}, "
                "nor a variable such as containers"
            )
    if address is None:
        raise ConfigurationError(f"[{section}] has no 'listen = URL'")
    check_restrictions({**dict.fromkeys((*TCP_ONLY, *UNIX_ONLY)), **own}, [address])
    wanted = shared._replace(values={**shared.values, **own})
    if rules or variables:
        wanted = own_access(wanted, rules, variables, keeps_policy="policy" in own)
    return make_listener(section[len("listener ") :].strip(), address, wanted, warnings)


def own_access(
    wanted: Wanted, rules: list[str], variables: Mapping[str, str], *, keeps_policy: bool
) -> Wanted:
    """Rules and variables of a section replace all that is said for all listeners."""
    others = {name: text for name, text in wanted.variables.items() if name not in SWITCHES}
    values = wanted.values if keeps_policy else {**wanted.values, "policy": "auto"}
    return wanted._replace(values=values, rules=rules, variables={**others, **variables})


def make_listener(
    name: str, address: Address, wanted: Wanted, warnings: dict[str, None]
) -> Listener:
    """A listener with its policy, its clients and its TLS; raises ConfigurationError."""
    values, tcp = wanted.values, on_tcp(address)
    ipv6_is_off = wanted.variables.get("DISABLE_IPV6", "").lower() in YES
    if ipv6_is_off and address.target[0] == "::":
        address = Address(address.url, socket.AF_INET, ("0.0.0.0", address.target[1]))
    clients = client_filter(
        values["allow-from"] if tcp else (),
        () if tcp else values["allow-uid"],
        () if tcp else values["allow-gid"],
    )
    try:
        policy, more = listener_policy(
            values["policy"], wanted.rules, wanted.variables, learns=wanted.mode == "learn"
        )
    except PolicyError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    warnings.update(dict.fromkeys(more))
    if wanted.mode == "learn":
        policy = policy or DenyAll()
    tls = tls_context(values) if tcp else None
    if tls is None and clients is None and not address.loopback:
        warnings[OPEN_WARNING.format(address.url)] = None
    mode, group = values["socket-mode"], values["socket-group"]
    check_http2(name, values)
    guard = listener_guard(values)
    return Listener(
        name,
        address,
        policy,
        clients,
        tls,
        mode,
        group,
        values["mask"],
        frozenset(values["mask-pass"]),
        guard,
        (guard,) if guard else (),
    )


def check_http2(name: str, values: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for rules that HTTP/2 would be a way around."""
    for option, what in (("mask", "masked"), ("guard", "judged")):
        if values[option] and values["http2"] == "relay":
            raise ConfigurationError(
                f"{name}: {option} and http2 relay cannot be had together: "
                f"nothing in HTTP/2 can be {what}"
            )


def listener_guard(values: Mapping[str, Any]) -> Guard | None:
    """The guard that a listener asks for; raises ConfigurationError for a file that is wrong."""
    chosen = values["guard"]
    if not chosen:
        return None
    exceptions = Exceptions()
    if chosen != "strict":
        exceptions = guard_exceptions(chosen, read_ini(chosen, "--guard"))
    return Guard(exceptions, network_name=functools.partial(network_name, values["upstream"]))


def network_name(upstream: Engine, reference: str) -> str | None:
    """What the engine calls a network; None where it knows none, or does not answer."""
    try:
        answer = ask_engine(upstream, f"/networks/{urllib.parse.quote(reference, safe='')}")
    except (HTTPError, OSError, ValueError):
        return None
    name = answer.get("Name") if isinstance(answer, dict) else None
    return name if isinstance(name, str) else None


UNUSED = "{} is a variable of another proxy and changes nothing under {}"
OPEN_WARNING = "{} is open to the network: whoever reaches an open Docker port is root on this host"


def listener_policy(
    chosen: str | None, rules: Sequence[str], variables: Mapping[str, str], *, learns: bool
) -> tuple[Policy | None, Sequence[str]]:
    """The policy that was chosen, or that the rules or variables mean, and warnings.

    Rules stand above those of a preset. `learns`: rules that there are none of yet are what is to
    be learned. Raises PolicyError.
    """
    used = set_switches(variables)
    if chosen == "auto" and rules and used:
        raise PolicyError(
            f"there are rules and there is {used[0]}: "
            "say which counts with policy rules, tecnativa or linuxserver"
        )
    if chosen and chosen.startswith(PRESET_PREFIX):
        return preset_policy(chosen, rules), [UNUSED.format(name, chosen) for name in used]
    if chosen == "rules" and not rules and learns:
        return DenyAll(), ()
    if chosen == "rules" or (rules and chosen in (None, "auto")):
        return native_policy(rules), ()
    policy, warnings = policy_from_environment(variables, chosen or "off")
    if rules:
        warnings.append(f"{rules[0]!r} and the other rules do not count under policy {chosen}")
    return policy, warnings


def tls_context(values: Mapping[str, Any]) -> ssl.SSLContext | None:
    """TLS 1.2 and up with ALPN http/1.1, or None if no certificate is given.

    With a client CA, only its certificates are let in. Raises ConfigurationError.
    """
    certificate, key, client_ca = (values[f"tls-{name}"] for name in ("cert", "key", "client-ca"))
    if not (certificate or key or client_ca):
        return None
    if not certificate:
        raise ConfigurationError(
            "TLS: --tls-key and --tls-client-ca need --tls-cert, the server's certificate"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could make a write wait for its reads
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, certificate, key)
    if client_ca:
        load_authority(context, "--tls-client-ca", client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
