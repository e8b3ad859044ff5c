"""An engine on another host: its address, TCP with or without TLS, and why it cannot be reached.

    --upstream tcp://HOST:PORT ─▶ RemoteEngine ─▶ RemoteHTTPConnection ─▶ dockerd -H tcp://…
    --upstream-tls FOLDER ─▶ client_context ─┘

The folder has the file names of DOCKER_CERT_PATH: ca.pem, the authority that signed the engine's
certificate, and cert.pem with key.pem, which the engine asks for.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import os
import re
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Union

from _dockeraudit.certificates import load_authority, load_certificate
from _dockeraudit.errors import ConfigurationError, EngineError
from _dockeraudit.tlssocket import TLSClientSocket

CONNECT_TIMEOUT = 10.0  # seconds to reach the engine, a TLS handshake or a full backlog included
NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)  # of this process, of the whole host
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH)
# Send small frames at once; notice a vanished host without traffic, as Go's servers do (15 s).
TCP_OPTIONS = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 15),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
    )
    if hasattr(socket, name)  # macOS has another name for one of them
)
REMOTE_URL = re.compile(r"tcp://(?:\[([^\[\]/]+)\]|([^\[\]:/@]+)):([0-9]{1,5})/?", re.A)
#: what OpenSSL says where the peer speaks plain HTTP
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
#: alerts of an engine that is not content with our certificate (RFC 8446 §6.2), or with none
CERTIFICATE_ALERTS = (
    "access denied", "bad certificate", "certificate expired", "certificate required",
    "certificate revoked", "certificate unknown", "handshake failure", "unknown ca",
    "unsupported certificate",
)  # fmt: skip
#: ssl.h: takes an end without close_notify for a clean one; on in Python 3.9, which has no name
IGNORE_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
UPSTREAM_TLS = "--upstream-tls"


class RemoteEngine:
    """An engine's address. `folder`: of its TLS files; None is plain TCP.

    Two of them are equal where the addresses are.
    """

    def __init__(self, host: str, port: int, folder: str | None = None) -> None:
        self.host, self.port, self.folder = host, port, folder
        self.tls = client_context(folder) if folder else None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteEngine) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def loopback(self) -> bool:
        """Whether it is this host's own."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def wants_tls(self, status: int, body: bytes) -> bool:
        """Whether this answer is what Go's servers say to plain HTTP where they speak TLS."""
        return self.tls is None and status == 400 and b"an HTTPS server" in body

    def renew(self, fresh: RemoteEngine) -> None:
        """Take over another's certificates, for connections from now on."""
        self.tls = fresh.tls


Engine = Union[str, RemoteEngine]  # an engine's Unix socket by its path, or a remote engine


def remote_engine(text: str) -> RemoteEngine:
    """The engine at `tcp://HOST:PORT`, without TLS; raises ConfigurationError."""
    match = REMOTE_URL.fullmatch(text)
    if match is None or not 0 < int(match[3]) < 65536:
        raise ConfigurationError(f"{text!r} is not tcp://HOST:PORT or tcp://[IPv6]:PORT")
    return RemoteEngine(match[1] or match[2], int(match[3]))


def with_tls(engine: Engine, folder: str | None) -> Engine:
    """The engine, reached over TLS with the files of a folder; raises ConfigurationError."""
    if folder is None:
        return engine
    if isinstance(engine, str):
        raise ConfigurationError(
            f"{UPSTREAM_TLS} needs an engine on TCP, --upstream tcp://HOST:PORT; "
            f"{engine} is a Unix socket, which has no TLS"
        )
    return RemoteEngine(engine.host, engine.port, folder)


def client_context(folder: str) -> ssl.SSLContext:
    """TLS 1.2 and up to an engine whose certificate and name are verified.

    Without ca.pem the system's authorities are trusted. Raises ConfigurationError.
    """
    authority, certificate, key = (
        os.path.join(folder, name) for name in ("ca.pem", "cert.pem", "key.pem")
    )
    there = [os.path.exists(path) for path in (authority, certificate, key)]
    if not any(there):
        raise ConfigurationError(
            f"{UPSTREAM_TLS}: {folder} has none of ca.pem, cert.pem and key.pem"
        )
    if there[1] != there[2]:
        missing = "key.pem" if there[1] else "cert.pem"
        raise ConfigurationError(
            f"{UPSTREAM_TLS}: {folder} has no {missing}; cert.pem and key.pem belong together"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # the engine could make a write wait for its reads
    context.options &= ~IGNORE_EOF  # an answer that is cut short is no whole answer
    context.set_alpn_protocols(["http/1.1"])
    if there[0]:
        load_authority(context, UPSTREAM_TLS, authority)
    else:
        context.load_default_certs()
    if there[1]:
        load_certificate(context, certificate, key, (UPSTREAM_TLS, UPSTREAM_TLS))
    return context


class RemoteHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection to a remote engine.

    `timeout` is for connecting, the handshake included; only the resolver of names may take longer.
    Raises EngineError, which says why the engine cannot be reached.
    """

    def __init__(self, engine: RemoteEngine, timeout: float | None = CONNECT_TIMEOUT) -> None:
        super().__init__(engine.host, engine.port, timeout=timeout)
        self.engine = engine

    def connect(self) -> None:
        """Connect to the first of the host's addresses that answers, and shake hands."""
        deadline = time.monotonic() + (self.timeout or CONNECT_TIMEOUT)
        try:
            found = socket.getaddrinfo(self.engine.host, self.engine.port, type=socket.SOCK_STREAM)
            self._connect_to_one(found, deadline)
            self._secure(deadline)
        except (OSError, ValueError) as error:  # ValueError: it cannot be a host's name
            self.close()
            raise EngineError(remote_failure(self.engine, error)) from error

    def _connect_to_one(self, found: Sequence[tuple[Any, ...]], deadline: float) -> None:
        """Raises OSError of the last address where none answers."""
        for number, (family, kind, protocol, _, address) in enumerate(found, 1):
            try:
                self.sock = socket.socket(family, kind, protocol)
                self.sock.settimeout(max(0.001, deadline - time.monotonic()))
                self.sock.connect(address)
                for level, option, value in TCP_OPTIONS:
                    self.sock.setsockopt(level, option, value)
                return
            except OSError:
                self.close()
                if number == len(found):
                    raise

    def _secure(self, deadline: float) -> None:
        """TLS, where it is asked for."""
        if self.engine.tls is not None:
            name = self.engine.host.partition("%")[0]  # of an IPv6 address without its zone
            secure = TLSClientSocket(self.sock, self.engine.tls, name)
            self.sock = secure
            secure.handshake(deadline)
        self.sock.settimeout(self.timeout)


def remote_failure(engine: RemoteEngine, error: Exception) -> str:
    """Why a remote engine cannot be reached, and what to do about it: one sentence."""
    number = getattr(error, "errno", None)
    if number in NO_DESCRIPTORS:
        return no_descriptors(number)
    text = f"cannot reach the Docker engine at {engine}"
    if isinstance(error, ssl.SSLError):  # some are a ValueError, too
        return f"{text}: {tls_failure(engine, error)}"
    if isinstance(error, (socket.gaierror, ValueError)):
        return f"{text}: no address is known for {engine.host}; check the name, and this host's DNS"
    if isinstance(error, (TimeoutError, socket.timeout)):  # two classes before Python 3.10
        return f"{text}: no answer in time; is this its port, or does a firewall stand between?"
    name = errno.errorcode.get(number or 0, "error")
    text = f"{text}: {getattr(error, 'strerror', None) or error} ({name})"
    if number == errno.ECONNREFUSED:
        return f"{text}; is the engine running, and does it listen there (dockerd -H {engine})?"
    if number in UNREACHABLE:
        return f"{text}; is there a route to {engine.host}?"
    return f"{text}; is the engine running?"


def tls_failure(engine: RemoteEngine, error: ssl.SSLError) -> str:
    """What is wrong with TLS to an engine, and with which file: half a sentence."""
    reason = str(error.reason or "")
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        if "mismatch" in why or "not valid for" in why:
            return f"its certificate is for other names ({why}); use one of those in --upstream"
        folder = engine.folder
        return f"its certificate is not trusted ({why}); ca.pem in {folder} must have signed it"
    if reason in NOT_TLS:
        return f"it does not speak TLS there; is this its TLS port? Without TLS omit {UPSTREAM_TLS}"
    alert = reason.partition("ALERT_")[2].replace("_", " ").lower()
    if alert in CERTIFICATE_ALERTS:
        return (
            f"it refused our certificate ({alert}); cert.pem and key.pem in {engine.folder} must "
            "be there, valid and signed by the authority that it trusts (dockerd --tlscacert)"
        )
    if isinstance(error, ssl.SSLEOFError) or "EOF" in reason:  # Python 3.9 has another class
        return "it ended TLS in the middle; its log may say why"
    return f"TLS failed ({reason or error})"


def no_descriptors(number: int) -> str:
    """What an engine cannot be reached without."""
    return (
        "no file descriptor is left to reach the Docker engine with "
        f"({errno.errorcode[number]}); try again when other requests are done"
    )
