"""A client's TLS socket that can half-close while the peer goes on sending.

ssl.SSLSocket cannot: its unwrap() sends close_notify and at once looks for the peer's, and drops
application data that it finds there instead. Here TLS works on two buffers of memory (MemoryBIO).
What has come is decrypted before close_notify is made, so unwrap() finds nothing to drop.
"""

from __future__ import annotations

import socket
import ssl
import time

RECORDS = 64 << 10  # bytes that are encrypted, or received, at once: four records of 16 KiB


class TLSClientSocket(socket.socket):
    """A connected socket, taken over from a plain one, that speaks TLS as a client.

    `recv` and `send` follow the socket's mode. Where it does not block they raise BlockingIOError
    or ssl.SSLWantWriteError for "later"; `send` is then called again with the same bytes. A peer
    that ends without close_notify is an ssl.SSLError. One thread uses it; another may shut it
    down.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str) -> None:
        timeout = plain.gettimeout()
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self.settimeout(timeout)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._plain = b""  # decrypted before it was asked for
        self._sealed = b""  # encrypted, not taken by the socket yet
        self._accepted = 0  # bytes of the caller's that `_sealed` ends with
        self._more = False  # what has been received may hold another record
        self._ended = False  # the peer's close_notify has come

    # -- the handshake

    def handshake(self, deadline: float) -> None:
        """Shake hands until `deadline` (monotonic); raises OSError, which ssl.SSLError is too."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send_before(deadline)
                self._receive_before(deadline)
            except ssl.SSLError:
                self._send_before(deadline)  # the alert, so that the peer knows why
                raise
        self._send_before(deadline)

    def _send_before(self, deadline: float) -> None:
        self.settimeout(max(0.001, deadline - time.monotonic()))
        super().sendall(self._outgoing.read())

    def _receive_before(self, deadline: float) -> None:
        self.settimeout(max(0.001, deadline - time.monotonic()))
        self._fill()

    # -- receiving

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Decrypted bytes, as many as have come; b"" behind the peer's close_notify."""
        if self._plain:
            data, self._plain = self._plain[:size], self._plain[size:]
            return data
        while True:
            data = self._decrypt(size)
            if data or self._ended:
                return data
            self._fill()

    def pending(self) -> bool:
        """Whether `recv` has something to give that poll does not see."""
        return bool(self._plain) or self._more

    def _fill(self) -> None:
        """Receive what has come; raises BlockingIOError or TimeoutError where nothing has."""
        data = super().recv(RECORDS)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self, size: int) -> bytes:
        """What the received records hold, up to `size` bytes; b"": no whole record has come."""
        parts, left = [], size
        self._more = False
        try:
            while left > 0:
                part = self._tls.read(left)
                if not part:
                    raise ssl.SSLZeroReturnError
                parts.append(part)
                left -= len(part)
            self._more = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
            self._more = bool(parts)  # the end itself is still to be told
        except ssl.SSLError:
            if not parts:
                raise
            self._more = True  # the next call raises it again
        self._seal()  # what TLS itself has to say, such as new keys
        return b"".join(parts)

    # -- sending

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        """Encrypt and send the first bytes; returns how many were sent."""
        self.flush()
        if not self._accepted and not self._sealed:
            self._accepted = self._tls.write(data[:RECORDS])
            self._seal()
        if self._sealed:
            raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the socket takes no more now")
        accepted, self._accepted = self._accepted, 0
        return accepted

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        """Send all, on a socket that blocks."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    @property
    def unsent(self) -> bool:
        """Whether `flush` has something to send once the socket takes more."""
        return bool(self._sealed)

    def flush(self) -> None:
        """Send what is encrypted already, as far as the socket takes it."""
        while self._sealed:
            try:
                self._sealed = self._sealed[super().send(self._sealed) :]
            except BlockingIOError:
                return

    def half_close(self) -> None:
        """Tell the peer that no more bytes come; its own can still be received."""
        while not self._ended:
            part = self._decrypt(RECORDS)
            self._plain += part
            if not self._more:
                break
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # close_notify is made, and the peer's has not come
        self._seal()

    def _seal(self) -> None:
        self._sealed += self._outgoing.read()
        self.flush()
