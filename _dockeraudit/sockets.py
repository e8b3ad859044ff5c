"""System calls on sockets: reading, sending, half-closing, who the peer is, what systemd passed."""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import ssl
import stat
import struct
import time
from collections.abc import Mapping
from typing import Any, Union

from _dockeraudit.engine import BLOCK
from _dockeraudit.errors import ListenError
from _dockeraudit.settings import Address
from _dockeraudit.tlssocket import TLSClientSocket

HEAD_TIMEOUT = 10.0  # seconds from a head's first byte to its end; a slow head holds a thread
LINGER = 1.0  # seconds for a refused client to read its answer; its bytes are dropped meanwhile
GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError, ssl.SSLError)
LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: poll's answers for a socket that has ended. Windows, where `serve` cannot run, lacks these names.
HANGUP: int = sum(getattr(select, name, 0) for name in ("POLLHUP", "POLLERR", "POLLNVAL"))
#: plain sockets block; only TLS sockets are set to non-blocking
NO_WAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
ABORT = struct.pack(
    "ii", 1, 0
)  # SO_LINGER of zero seconds: closing sends a reset (RFC 9293 §3.10.4)

Pending = Union[bytes, memoryview]  # bytes that a socket has not taken yet


def receive(sock: socket.socket, size: int = BLOCK) -> bytes | None:
    """What has come on a socket: b"" at its end, None where nothing has come yet.

    Raises OSError for a connection that was reset, or whose host no longer answers.
    """
    try:
        return sock.recv(size, NO_WAIT) if type(sock) is socket.socket else sock.recv(size)
    except LATER:
        return None


def send_some(sock: socket.socket, data: Pending) -> Pending:
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
    """Tell the peer that no more bytes come; its own can still be read. In TLS: close_notify."""
    try:
        if isinstance(sock, TLSClientSocket):
            sock.half_close()
        elif isinstance(sock, ssl.SSLSocket):
            sock.unwrap()  # sends our close_notify, then waits for the peer's, which may never come
        else:
            sock.shutdown(socket.SHUT_WR)
    except (OSError, ValueError):
        pass  # the peer is gone, which the next poll tells, or has not sent its close_notify


def linger(sock: socket.socket) -> None:
    """Close the sending side and drop what still comes, for a moment (RFC 9112 §9.6).

    So the peer can read our last answer: bytes that it sends to a closed socket would draw a reset.
    """
    half_close(sock)
    if isinstance(sock, ssl.SSLSocket):
        try:
            socket.socket.shutdown(sock, socket.SHUT_WR)
        except OSError:
            return
    deadline = time.monotonic() + LINGER
    while wait_until(sock, select.POLLIN, deadline - time.monotonic()):
        try:
            if not socket.socket.recv(sock, BLOCK):  # of a TLS session: what it still encrypts
                return
        except OSError:
            return


def shut_down(sock: socket.socket) -> None:
    """Shut a connection down from another thread, so that its own thread's poll returns.

    The socket is closed by its own thread. A TLS session is not touched.
    """
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # its own thread has closed it meanwhile


def abort(sock: socket.socket) -> None:
    """Let the socket's close send a reset, so that the peer does not take it for a clean end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    except OSError:
        pass  # a Unix socket cannot pass a reset on


def wait_until(sock: socket.socket, event: int, seconds: float | None = None) -> bool:
    """Wait until a socket is readable (POLLIN) or writable (POLLOUT); False if it never was."""
    poll = select.poll()
    poll.register(sock.fileno(), event)
    return bool(poll.poll(None if seconds is None else max(0.0, seconds) * 1000))


def readable_now(sock: socket.socket) -> bool:
    """Whether an engine's connection has something to read, its end included."""
    buffered = isinstance(sock, TLSClientSocket) and sock.pending()
    return buffered or wait_until(sock, select.POLLIN, 0)


Events = list[tuple[int, int]]  # (descriptor, mask), as select.poll tells


class PollPair:
    """A poll of two sockets that changes its registrations only where the wanted events change.

    A socket of which nothing is wanted is not registered at all: poll reports POLLHUP even so, and
    would return at once for ever.
    """

    def __init__(self, first: socket.socket, second: socket.socket) -> None:
        self.first, self.second = first.fileno(), second.fileno()
        self.second_readable: Events = [(self.second, select.POLLIN)]
        self._poll = select.poll()
        self._masks: dict[int, int | None] = {self.first: None, self.second: None}

    def wait(self, first: int | None, second: int | None, seconds: float | None) -> Events:
        """Wait for events of both sockets; None for a mask leaves that socket out."""
        masks = self._masks
        if masks[self.first] != first:
            self._change(self.first, first)
        if masks[self.second] != second:
            self._change(self.second, second)
        return self._poll.poll(None if seconds is None else seconds * 1000)

    def _change(self, fileno: int, mask: int | None) -> None:
        if mask is None:
            self._poll.unregister(fileno)
        else:
            self._poll.register(fileno, mask)
        self._masks[fileno] = mask


PEER_CREDENTIALS = struct.Struct("iII")  # unix(7), SO_PEERCRED: pid, uid, gid
SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
GROUPS_AT_ONCE = 1024  # bytes that Python's getsockopt takes, 256 groups
MOST_GROUPS = 65536  # NGROUPS_MAX


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


def with_groups(identity: Mapping[str, Any], sock: socket.socket) -> dict[str, Any]:
    """An identity with the supplementary groups of a Unix client: to decide by, never to record."""
    if "uid" not in identity:
        return dict(identity)
    return {**identity, "groups": peer_groups(sock)}


def peer_groups(sock: socket.socket) -> tuple[int, ...]:
    """The supplementary groups that the peer had when it connected; none where nobody can tell."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_AT_ONCE)
    except OSError as error:
        raw = many_peer_groups(sock) if error.errno == errno.ERANGE else b""
    return struct.unpack(f"{len(raw) // 4}I", raw)


def many_peer_groups(sock: socket.socket) -> bytes:
    """More groups than Python's own getsockopt has room for."""
    import ctypes  # here, since few processes have so many groups, and not all Pythons have it

    room = ctypes.create_string_buffer(4 * MOST_GROUPS)
    size = ctypes.c_uint32(len(room))
    libc = ctypes.CDLL(None, use_errno=True)
    level, option = socket.SOL_SOCKET, SO_PEERGROUPS
    if libc.getsockopt(sock.fileno(), level, option, room, ctypes.byref(size)):
        return b""
    return room.raw[: size.value]


def command_of(pid: int) -> str | None:
    """A process's name, never its command line, which may hold secrets.

    None where the pid is not visible, being of another namespace.
    """
    if pid <= 0:
        return None
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read(64).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return None


def bind_unix(sock: socket.socket, path: str, mode: int, group: int | None = None) -> None:
    """Bind to a path so that the socket is never open to others; replaces only a dead one.

    Raises OSError.
    """
    remove_dead_socket(path)
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    if group is not None:
        os.chown(path, -1, group)
    os.chmod(path, mode)


def remove_dead_socket(path: str) -> None:
    """Remove a socket on which nobody answers; raises OSError where anything else is there."""
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


def listen_failure(url: str, option: str, error: OSError) -> str:
    """Why an address cannot be listened on: who has it, or which option gives another."""
    where, _, port = url.rpartition(":")
    on_tcp = url.startswith("tcp://")
    reason = error.strerror or str(error)
    hint = f"choose another with {option}"
    if error.errno == errno.EADDRINUSE and on_tcp:
        hint = f"`ss -ltnp 'sport = :{port}'` shows who has it; {hint}"
    elif error.errno == errno.EADDRINUSE:
        hint = f"`ss -lxp src {url[len('unix://') :]}` shows who has it; {hint}"
    elif error.errno == errno.EADDRNOTAVAIL:
        hint = f"{where[len('tcp://') :]} is no address of this host; {hint}"
    elif error.errno == errno.EACCES and on_tcp:
        hint = f"ports below 1024 need root; {hint}"
    elif error.errno == errno.ENOENT:
        hint = f"the folder of {url[len('unix://') :]} is missing; make it, or {hint}"
    return f"cannot listen on {url}: {reason}; {hint}"


FIRST_INHERITED = 3  # the first descriptor that systemd passes (sd_listen_fds(3))


def inherited_sockets(count: int) -> list[socket.socket]:
    """The listening sockets that systemd passed; processes of ours do not inherit them further."""
    sockets = []
    for fileno in range(FIRST_INHERITED, FIRST_INHERITED + count):
        try:
            sockets.append(socket.socket(fileno=fileno))
        except OSError as error:
            raise ListenError(
                f"LISTEN_FDS={count}, but descriptor {fileno} is no socket: {error.strerror}"
            ) from error
        sockets[-1].set_inheritable(False)
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
