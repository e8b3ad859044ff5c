"""SIGHUP: read the options, the rules and the listeners' policies and certificates again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from _dockeraudit.baseline import read_baseline
from _dockeraudit.errors import ConfigurationError
from _dockeraudit.listeners import load_listeners
from _dockeraudit.options import OPTIONS, load_settings
from _dockeraudit.proxy import Proxy
from _dockeraudit.remoteengine import RemoteEngine, with_tls
from _dockeraudit.settings import Listener, Settings
from _dockeraudit.startup import load_scanner, say_guard, say_mask, say_policy, say_scope


class Server(Protocol):
    """A server whose new requests are held to `listener`."""

    listener: Listener


def reload(proxy: Proxy, servers: Sequence[Server], environ: Mapping[str, str]) -> bool:
    """Put in force what has changed, and say what needs a restart.

    Where something is wrong all stays as it was, which is said; returns whether it was right.
    """
    say = proxy.diagnostics.say
    try:
        fresh = load_settings(proxy.settings.arguments, environ)
        listeners = load_listeners(fresh, environ, say, engine=proxy.settings.upstream)
        scanner = load_scanner(fresh)
        entries = read_baseline(fresh.baseline) if fresh.baseline else []
        renewed = renewed_engine(proxy.settings, fresh)
    except ConfigurationError as error:
        say("error", f"SIGHUP: {error}; the rules in force stay as they are")
        return False
    changed = apply_options(proxy, fresh)
    if renewed:
        proxy.settings.upstream.renew(renewed)
    if scanner.rules != proxy.scanner.rules:
        proxy.scanner = scanner
        proxy.workers.use(scanner)
        changed.append("the rules, for streams that begin from now on")
    proxy.diagnostics.set_level(fresh.log_level)
    proxy.known.replace(fresh.allow_secret, entries)
    proxy.log.allow(proxy.known.now())
    replace_listeners(proxy, servers, listeners)
    said = f"; changed: {', '.join(changed)}" if changed else ""
    say("info", f"SIGHUP: options, rules, allow lists and certificates have been read again{said}")
    return True


def renewed_engine(settings: Settings, fresh: Settings) -> RemoteEngine | None:
    """The remote engine with its certificates read again, where it is still the same one.

    Raises ConfigurationError.
    """
    same = (settings.upstream, settings.upstream_tls) == (fresh.upstream, fresh.upstream_tls)
    if not same or isinstance(fresh.upstream, str):
        return None
    engine = with_tls(fresh.upstream, fresh.upstream_tls)
    return engine if isinstance(engine, RemoteEngine) else None


def apply_options(proxy: Proxy, fresh: Settings) -> list[str]:
    """Take over the options that need no restart; returns those that have changed."""
    settings, changed = proxy.settings, []
    for option in OPTIONS:
        if getattr(settings, option.key) == getattr(fresh, option.key):
            continue
        if option.reloads:
            setattr(settings, option.key, getattr(fresh, option.key))
            changed.append(option.name)
        elif option.name != "listen" and not option.per_listener:  # see `replace_listeners`
            text = f"{option.name} has changed, which counts after a restart"
            proxy.diagnostics.say("warning", f"SIGHUP: {text}")
    settings.sections = fresh.sections
    return changed


def replace_listeners(
    proxy: Proxy, servers: Sequence[Server], listeners: Sequence[Listener]
) -> None:
    """Hold each server to its listener's new policy, clients and certificate."""
    say = proxy.diagnostics.say
    by_url = {listener.address.url: listener for listener in listeners}
    for server in servers:
        url = server.listener.address.url
        listener = by_url.pop(url, None)
        if listener is None:
            text = f"{url} is no longer configured; it stays open as it was until a restart"
            say("warning", f"SIGHUP: {text}")
            continue
        before, server.listener = server.listener, listener
        if socket_access(before) != socket_access(listener):
            text = f"the mode or group of {url} has changed, which counts after a restart"
            say("warning", f"SIGHUP: {text}")
        say_policy(listener, proxy.diagnostics)
        say_mask(listener, proxy.diagnostics)
        say_scope(listener, proxy.diagnostics)
        say_guard(listener, proxy.diagnostics)
    for url in by_url:
        say("warning", f"SIGHUP: {url} is new; it is listened on after a restart")


def socket_access(listener: Listener) -> tuple[int, int | None]:
    """Who may open a Unix listener's socket: its mode and group, set when it is bound."""
    return listener.socket_mode, listener.socket_group
