"""System calls on sockets: reading, sending, half-closing, who the peer is, what systemd passed."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import re
import select
import socket
import ssl
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Union

from _dockeraudit.engine import BLOCK
from _dockeraudit.settings import Address

SPLICE_SIZE = 256 << 10  # bytes of that pipe; more gains nothing
HEAD_TIMEOUT = (
    10.0  # seconds from a head's first byte to its end, against slow heads holding threads
)
GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, ssl.SSLError)
LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
HANGUP = select.POLLHUP | select.POLLERR | select.POLLNVAL
NO_WAIT = (
    socket.MSG_DONTWAIT
)  # plain sockets block, so that a read alone can wait; reads and sends that must not say so


def receive(sock: socket.socket, size: int = BLOCK) -> bytes | None:
    """What has come on a socket: b"" at its end, also a broken one's; None for nothing yet. TLS sockets must not block."""
    try:
        return sock.recv(size, NO_WAIT) if type(sock) is socket.socket else sock.recv(size)
    except LATER:
        return None
    except OSError:  # reset, or a host that keep-alive probes no longer reach: as good as ended
        return b""


class SplicePipe:
    """Bytes from socket to socket that never leave the kernel (splice(2), Python 3.10): a third of the processor time of copying.

    Its methods raise OSError where there is no such thing: no descriptor for it, or sockets that cannot be spliced.
    """

    def __init__(self) -> None:
        if not hasattr(os, "splice"):
            raise OSError(errno.ENOSYS, "this Python has no os.splice")
        self._out, self._in = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._in, F_SETPIPE_SZ, SPLICE_SIZE)
        except OSError:
            pass  # a user's pipes may be limited: then they are smaller

    def move(self, source: socket.socket, sink: socket.socket, most: int) -> int | None:
        """Wait for what comes next and until it has been taken; how many bytes that were.

        0 at the source's end, None when nothing has come in its SO_RCVTIMEO; raises one of GONE when the sink is gone.
        """
        try:
            moved = os.splice(source.fileno(), self._in, min(most, SPLICE_SIZE))
        except LATER:
            return None
        except OSError as error:
            if error.errno in UNSPLICEABLE:
                raise
            return 0
        left = moved
        with suppress(OSError):  # of sandboxes that forbid it
            os.sched_yield()  # the engine, which has room again, goes first: a sixth less processor time, and as much more a second
        try:
            while left:
                left -= os.splice(self._out, sink.fileno(), left)
        except OSError as error:
            if error.errno not in UNSPLICEABLE:
                raise ConnectionAbortedError(error.errno, error.strerror) from error
            sink.sendall(os.read(self._out, left))
        return moved

    def close(self) -> None:
        """Leave no descriptor behind."""
        os.close(self._in)
        os.close(self._out)


UNSPLICEABLE = (
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)  # what sandboxes' kernels say of sockets
F_SETPIPE_SZ = 1031  # Linux's fcntl.h; Python names it from 3.10 on
Waiting = Union[bytes, memoryview]  # what a side has not taken yet


def send_some(sock: socket.socket, data: Waiting) -> Waiting:
    """Send what a socket takes now; returns the rest. Raises one of GONE."""
    try:
        sent = sock.send(data, NO_WAIT) if type(sock) is socket.socket else sock.send(data)
    except LATER:
        return data
    except GONE:
        raise
    except OSError as error:
        raise ConnectionAbortedError(error.errno, error.strerror) from error
    return memoryview(data)[sent:] if sent < len(data) else b""


def half_close(sock: socket.socket) -> None:
    """Tell the peer that nothing more comes; what it still sends can be read. In TLS that is a close_notify."""
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()  # sends ours; the peer's, which it then waits for, comes later or never
        else:
            sock.shutdown(socket.SHUT_WR)
    except (OSError, ValueError):
        pass  # not yet answered, or the peer is gone already, which the next poll tells


def wake(sock: socket.socket) -> None:
    """From another thread: make whoever polls this socket see its end. Never touches a TLS session."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # closed by its own thread meanwhile


# Threads. One accepts for each listener, one handles each connection (and alone touches its sockets but for `wake`),
# `--workers` scan, two ask for names, one writes the log. `Proxy._lock` guards the set of connections and the counters,
# and is never held over a system call. The main thread waits for signals and does the stopping.

PEER_CREDENTIALS = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


def peer_identity(sock: socket.socket, address: Any, listener: str) -> dict[str, Any]:
    """Who is at the other end, as the records say it."""
    if sock.family != socket.AF_UNIX:
        ip = ipaddress.ip_address(address[0].partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None)
        return {"listener": listener, "address": str(mapped or ip)}
    pid, uid, gid = PEER_CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
    )
    return {
        "listener": listener,
        "uid": uid,
        "gid": gid,
        "pid": pid or None,
        "command": command_of(pid),
    }


def command_of(pid: int) -> str | None:
    """A process's name; its command line may hold secrets. None where the pid is not visible (another namespace)."""
    if pid <= 0:
        return None
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return None


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


# Small frames at once; and a vanished host noticed without traffic, as the engine's own server does (Go: 15 s).
TCP_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
)


def remove_dead_socket(path: str) -> None:
    """Remove a socket on which nobody answers; raises OSError for anything else that is in the way."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(info.st_mode):
        raise OSError(errno.EEXIST, "the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, "another process answers on it")


def inherited_sockets() -> list[socket.socket]:
    """The listening sockets that systemd passed (sd_listen_fds(3)); taken once, not to be inherited further."""
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return []
    sockets = [
        socket.socket(fileno=3 + number) for number in range(int(os.environ.pop("LISTEN_FDS", "0")))
    ]
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def listens_at(sock: socket.socket, address: Address) -> bool:
    """Whether a socket is bound to this address."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return address.family == socket.AF_UNIX and name == address.target
    return sock.family == address.family and name[:2] == tuple(address.target[:2])


def notify_systemd(state: str) -> None:
    """Tell systemd (sd_notify(3)), where it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            pass  # systemd's own watchdog decides then
