"""TLS with a client: the handshake, and who its certificate says it is."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from _dockeraudit.connections import Connection
from _dockeraudit.sockets import HEAD_TIMEOUT

# RFC 4514 §3: the short names of attributes, and what is escaped in their values (§2.4)
RDN_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
RDN_SPECIAL = re.compile(r'["+,;<>\\]|^[ #]| $')
RDN_ESCAPE = r"\\\g<0>"


def certificate_subject(certificate: Mapping[str, Any]) -> str:
    """A client certificate's subject as a string (RFC 4514): CN=ci,O=Example."""
    names = [
        [f"{RDN_NAMES.get(key, key)}={RDN_SPECIAL.sub(RDN_ESCAPE, value)}" for key, value in part]
        for part in certificate.get("subject", ())
    ]
    return ",".join("+".join(part) for part in reversed(names))


def shake_hands(peer: Connection, context: ssl.SSLContext) -> bool:
    """TLS within HEAD_TIMEOUT; notes the subject of the client's certificate.

    False where the client's first byte begins no handshake (RFC 8446 §5.1). Raises OSError.
    """
    sock, deadline = peer.sock, time.monotonic() + HEAD_TIMEOUT
    sock.settimeout(HEAD_TIMEOUT)
    if sock.recv(1, socket.MSG_PEEK) not in (b"\x16", b""):
        return False
    sock.settimeout(max(0.001, deadline - time.monotonic()))
    secure = context.wrap_socket(sock, server_side=True)
    peer.sock = secure
    certificate = secure.getpeercert()
    if certificate:
        peer.identity["certificate"] = certificate_subject(certificate)
    return True
