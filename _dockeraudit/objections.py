"""What is against a request by its head: the rules that it breaks, before the engine gets it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from _dockeraudit.admission import browser_refusal, unmaskable_refusal
from _dockeraudit.connections import Connection
from _dockeraudit.http1 import RequestHead
from _dockeraudit.policy import refusal
from _dockeraudit.proxy import Proxy
from _dockeraudit.routes import Route, method_name
from _dockeraudit.settings import Listener
from _dockeraudit.sockets import with_groups

BROWSER_HINT = (
    "to admit it, start dockeraudit with --allow-browser, or --allow-host NAME for its name"
)


def objections(
    proxy: Proxy, listener: Listener, peer: Connection, head: RequestHead, route: Route
) -> Iterator[tuple[str, ...]]:
    """The rules that a request breaks, each with what its client is told (see Verdict)."""
    on_tcp = listener.address.family != socket.AF_UNIX
    if on_tcp and "certificate" not in peer.identity and not proxy.settings.allow_browser:
        plain = not isinstance(peer.sock, ssl.SSLSocket)
        reason = browser_refusal(head, route, plain, proxy.settings.allow_host)
        if reason:
            yield "browser", f"a request from a web page is refused: {reason}; {BROWSER_HINT}"
    word = route.unmaskable if listener.mask else ""
    if word and word not in listener.mask_pass and head.method in (b"GET", b"POST"):
        yield "mask", unmaskable_refusal(word)
    decisions = []
    if listener.clients:
        decisions.append(listener.clients.admits(with_groups(peer.identity, peer.sock)))
    if listener.policy:
        decisions.append(proxy.decision(listener.policy, head, route))
    for decision in decisions:
        if not decision.allowed:
            path = proxy.masked(route.path)
            yield decision.rule, refusal(method_name(head.method) or "", path, decision)
    if listener.guard:
        yield from listener.guard.refuses(head, route)
