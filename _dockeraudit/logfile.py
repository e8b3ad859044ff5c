"""The audit log's file, which others rotate, truncate and delete; or standard output instead.

Importing this room needs nothing that Linux alone has; a file to be written needs `fcntl`.
"""

from __future__ import annotations

import errno as errno_codes
import hashlib
import os
import stat as stat_bits
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from _dockeraudit.errors import EXIT_BUSY, AuditLogError
from _dockeraudit.keyfile import (
    NOT_FOLLOWED,
    NOT_INHERITED,
    beside,
    cannot_be_opened,
    refuse_unfit_log,
    unfit_log,
    write_key,
)
from _dockeraudit.records import MAX_LINE, NO_LINE, line_hash

RENAME_GRACE = 1.0  # seconds that a renamed file is written on: logrotate wants to make the new one
BATCH_BYTES = 64 << 10  # bytes of records in one write to a file

#: What has happened to the file: an event and its record's fields.
FileEvent = tuple[str, dict[str, Any]]


class AuditFile:
    """The log's file: appends whole lines, and notices what others do to it.

    Only the log's worker calls it, after `open`. `notice` tells what has happened to the path.
    `leave` gets the descriptor of a file that was rotated away, to sync and to close it.
    """

    batch_bytes = BATCH_BYTES

    def __init__(
        self,
        path: str,
        key_path: str | None,
        key: bytes,
        write: Callable[[int, bytes], int],
        stat: Callable[[str], os.stat_result],
        monotonic: Callable[[], float],
        leave: Callable[[int], None] = os.close,
    ) -> None:
        self.path = os.path.abspath(path)
        self.unsynced = 0
        self.last_hash = NO_LINE
        self._key_path, self._key = key_path, key
        self._write, self._stat, self._monotonic, self._leave = write, stat, monotonic, leave
        self._fd = -1
        self._lock_fd = -1
        self._size = 0
        self._identity: tuple[int, int] = (0, 0)
        self._torn = False  # the file ends inside a line
        self._new_name = False  # it was created, and its directory has not been synced since
        self._missing_since: float | None = None
        self._reopen = False

    def open(self) -> list[FileEvent]:
        """Lock, open and recover; returns what there is to record. Raises AuditLogError."""
        if not fcntl:
            raise cannot_be_opened(self.path, "this system has no file locks; write to - instead")
        refuse_unfit_log(self.path)  # before a lock file is made beside it
        try:
            self._lock()
            self._open_path(start=True)
            return self._recover()
        except OSError as error:
            self.close()
            reason = "it is a symbolic link" if error.errno == errno_codes.ELOOP else error.strerror
            raise cannot_be_opened(self.path, reason) from None

    def reopen(self) -> None:
        """Open the path anew at the next append, whatever it looks like; only sets a flag."""
        self._reopen = True

    def notice(self) -> list[FileEvent]:
        """Compare path and file before a write; returns the events of what has changed.

        Raises OSError.
        """
        forced, self._reopen = self._reopen, False
        try:
            found = self._stat(self.path)
        except FileNotFoundError:
            return self._path_is_missing(forced)
        self._missing_since = None
        same = (found.st_dev, found.st_ino) == self._identity
        if same and found.st_size < self._size:
            before, self._size = self._size, found.st_size
            self._torn = self._torn and found.st_size > 0
            return [("truncated", {"size_before": before})]
        if forced or not same:
            return self._switch("rotated")
        return []

    def append(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Write lines with one write: how many of them are in the file now, and why not all.

        A line that was written in part is taken back; if that fails, the next append isolates it.
        """
        error = self._isolate()
        if error:
            return 0, error
        data = b"".join(lines)
        written, error = self._write_all(data)
        whole = data.rfind(b"\n", 0, written) + 1
        if written > whole:
            self._take_back(written - whole)
        count = data.count(b"\n", 0, whole)
        if count:
            self._size += whole
            self.unsynced += whole
            self.last_hash = line_hash(lines[count - 1][:-1])
        return count, error

    def duplicate(self) -> int:
        """A descriptor of the same file, to be synced and closed by another thread."""
        return os.dup(self._fd)

    def close(self) -> None:
        """Close the file and give the lock up. What closing would tell, the last sync has told."""
        fds, self._fd, self._lock_fd = (self._fd, self._lock_fd), -1, -1
        for fd in fds:
            with suppress(OSError):
                if fd >= 0:
                    os.close(fd)

    def _isolate(self) -> OSError | None:
        """End a torn line, so that the next one stands alone."""
        if not self._torn:
            return None
        _, error = self._write_all(b"\n")
        if not error:
            self._size += 1
            self._torn = False
        return error

    def _write_all(self, data: bytes) -> tuple[int, OSError | None]:
        """Write as much as can be: the bytes written, and why not all.

        A full disk begins with a short write; the write of the rest then fails with the reason.
        """
        written = 0
        try:
            while written < len(data):
                more = self._write(self._fd, data[written:] if written else data)
                if not more:
                    return written, OSError(errno_codes.EIO, "the file took no bytes")
                written += more
        except OSError as error:
            return written, error
        except MemoryError:
            return written, OSError(errno_codes.ENOMEM, os.strerror(errno_codes.ENOMEM))
        return written, None

    def _take_back(self, nbytes: int) -> None:
        """Cut a line's beginning off the file's end, or remember that it stands there."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - nbytes)
        except OSError:
            self._torn = True
            self._size += nbytes

    def _lock(self) -> None:
        """One process a log: a lock file beside it, locked as long as we live (flock(2))."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | NOT_INHERITED | NOT_FOLLOWED
        fd = os.open(beside(self.path, "lock"), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise AuditLogError(
                f"the audit log {self.path} is in use by another dockeraudit; "
                "give this one a log of its own",
                EXIT_BUSY,
            ) from None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = fd

    def _open_path(self, start: bool = False) -> None:
        """Open the path for appending, making it (0600) if need be; refuse what is no file of ours.

        At the start that is all of `unfit_log`. Later it is links and what is no regular file: to
        write nothing would be worse than to write where logrotate's `create` set another owner.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NOT_INHERITED | NOT_FOLLOWED
        self._new_name = self._new_name or not os.path.lexists(self.path)
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno_codes.ENXIO, errno_codes.EISDIR):
                raise OSError(error.errno, "it is not a regular file") from None
            raise
        try:
            found = os.fstat(fd)
            reason = unfit_log(found)
            if reason and (start or found.st_nlink > 1 or not stat_bits.S_ISREG(found.st_mode)):
                raise OSError(errno_codes.EINVAL, reason)
            if self._new_name:
                self._sync_folder()
        except OSError:
            os.close(fd)
            raise
        left, same = self._fd, self._identity == (found.st_dev, found.st_ino)
        self._torn = self._torn and same
        self._fd, self._identity, self._size = fd, (found.st_dev, found.st_ino), found.st_size
        if left >= 0:
            os.close(left) if same else self._leave(left)

    def _sync_folder(self) -> None:
        """A new name survives a power cut only once its directory has been synced."""
        fd = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | NOT_INHERITED)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno_codes.EINVAL:  # some network file systems know no such thing
                raise
        finally:
            os.close(fd)
        self._new_name = False

    def _recover(self) -> list[FileEvent]:
        """Go on behind an earlier run: its last line is our `prev`, and a torn one is isolated."""
        if not self._size:
            return []
        start, self.last_hash, torn = last_line(self.path)
        if not torn:
            return []
        self._torn = True
        return [("recovered", {"offset": start})]

    def _path_is_missing(self, forced: bool) -> list[FileEvent]:
        """Make a deleted file anew at once, a renamed one after a moment.

        Whoever renamed it may want to make the new file (logrotate's `create` is exclusive).
        """
        if os.fstat(self._fd).st_nlink == 0:
            return self._switch("recreated")
        now = self._monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if not forced and now - self._missing_since < RENAME_GRACE:
            return []
        return self._switch("rotated")

    def _switch(self, event: str) -> list[FileEvent]:
        """Go over to the path as it is now, with its directory, lock and key if those went too."""
        (device, inode), size = self._identity, self._size
        self._hold_lock()
        self._isolate()  # if this fails, the file that is left stays torn, which `verify` tells
        self._open_path()
        self._missing_since = None
        if self._identity == (device, inode):
            return []
        if event == "recreated":
            return [(event, {"inode": self._identity[1]})]
        return [(event, {"inode": inode, "size": size})]

    def _hold_lock(self) -> None:
        """Make lock and key anew where they went with their directory.

        Raises OSError if another process has the lock now.
        """
        folder, lock = os.path.dirname(self.path), beside(self.path, "lock")
        if not os.path.exists(lock) or not os.path.samestat(os.stat(lock), os.fstat(self._lock_fd)):
            try:
                self._lock()
            except AuditLogError:
                raise OSError(errno_codes.EBUSY, "another dockeraudit has it now") from None
        if (
            self._key_path
            and os.path.dirname(os.path.abspath(self._key_path)) == folder
            and not os.path.exists(self._key_path)
        ):
            write_key(self._key_path, self._key)


def last_line(path: str) -> tuple[int, str, bool]:
    """Where a file's last line starts, its hash, and whether it is torn; in constant memory."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(end - 1)
        torn = file.read(1) != b"\n"
        stop = end if torn else end - 1
        start = stop
        while start > 0:
            size = min(start, 1 << 16)
            file.seek(start - size)
            newline = file.read(size).rfind(b"\n")
            start -= size
            if newline >= 0:
                start += newline + 1
                break
        digest = hashlib.sha256()
        file.seek(start)
        left = stop - start
        while left > 0:
            block = file.read(min(left, 1 << 16))
            digest.update(block)
            left -= len(block) or left
        return start, digest.hexdigest()[:16], torn


class AuditPipe:
    """Standard output as the log: the same records, no rotation, no lock, no sync.

    A slow reader is waited for by the log's worker alone.
    """

    batch_bytes = MAX_LINE  # a pipe takes so much in one piece, whoever else writes to it (pipe(7))
    unsynced = 0

    def __init__(self, write: Callable[[int, bytes], int]) -> None:
        self.path = "standard output"
        self.last_hash = NO_LINE
        self._write = write
        self._rest = b""

    def open(self) -> list[FileEvent]:
        """It is open."""
        return []

    def reopen(self) -> None:
        """There is nothing to reopen."""

    def notice(self) -> list[FileEvent]:
        """Nothing happens to a pipe."""
        return []

    def append(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Write lines: how many the pipe has taken, and why not all to their end.

        What a pipe took cannot be taken back. So a line that it took in part counts as written, and
        its rest goes first the next time.
        """
        data, sent = self._rest + b"".join(lines), 0
        failure = None
        try:
            while sent < len(data):
                sent += self._write(1, data[sent:])
        except OSError as error:
            failure = error
        ahead = len(self._rest)
        end = data.find(b"\n", sent - 1) + 1 if sent else ahead  # of the line that was begun last
        if sent <= ahead:
            self._rest = data[sent:ahead]
            return 0, failure
        self._rest = data[sent:end]
        count = data.count(b"\n", ahead, end)
        self.last_hash = line_hash(lines[count - 1][:-1])
        return count, failure

    def close(self) -> None:
        """Standard output is not ours to close."""
