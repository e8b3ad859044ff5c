"""The audit log's file, which others rotate, truncate and delete, and the key of its fingerprints."""

from __future__ import annotations

import errno as errno_codes
import fcntl
import hashlib
import os
import stat as stat_bits
from typing import Any, Callable

from _dockeraudit.errors import EXIT_BUSY, AuditLogError
from _dockeraudit.records import NO_LINE, line_hash

RENAME_GRACE = 1.0  # seconds that a renamed file is written on, so that logrotate's own `create` finds the path free


def beside(log_path: str, suffix: str) -> str:
    """`/x/.audit.log.SUFFIX` for `/x/audit.log`: the log itself gets renamed."""
    folder, name = os.path.split(os.path.abspath(log_path))
    return os.path.join(folder, f".{name}.{suffix}")


def default_key_path(log_path: str) -> str:
    """Where the fingerprints' key lies unless told otherwise."""
    return beside(log_path, "key")


def load_fingerprint_key(path: str | None) -> bytes:
    """The 32 bytes in the file, which is made (0600) if it is not there; without a file, bytes for this run.

    Raises AuditLogError.
    """
    if path is None:
        return os.urandom(32)
    try:
        try:
            if not os.path.exists(
                path
            ):  # one that is there may lie where nothing can be written: a mounted secret, /etc
                write_key(path, os.urandom(32))
        except FileExistsError:
            pass
        with open(path, "rb") as file:
            key = file.read(33)
    except OSError as error:
        raise AuditLogError(
            f"the fingerprint key {path} cannot be used: {error.strerror}; give another with --fingerprint-key"
        ) from None
    if len(key) != 32:
        raise AuditLogError(
            f"the fingerprint key {path} does not hold 32 bytes; remove it to have it made anew"
        )
    return key


def write_key(path: str, key: bytes) -> None:
    """Make a key file whole or not at all; raises FileExistsError if there is one."""
    part = f"{path}.{os.urandom(4).hex()}"  # never the pid: in a container it is always 1, and a crash may leave the file
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, key)
        os.fsync(fd)
        os.link(part, path)
    finally:
        os.close(fd)
        os.unlink(part)


class AuditFile:
    """The log's file: appends whole lines, and notices what others do to it.

    Only the log's worker calls it, after `open`. `append` raises OSError when a line could not be written whole; nothing
    of it is left in the file then, or the next append isolates what is. `notice` tells of what has happened to the path.
    `leave` gets the descriptor of a file that was rotated away, to sync and to close it.
    """

    def __init__(
        self,
        path: str,
        key_path: str | None,
        key: bytes,
        write: Any,
        stat: Any,
        monotonic: Any,
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

    def open(self) -> list[tuple[str, dict[str, Any]]]:
        """Lock, open and recover; returns what there is to record. Raises AuditLogError."""
        try:
            self._lock()
            self._open_path()
            return self._recover()
        except OSError as error:
            reason = "it is a symbolic link" if error.errno == errno_codes.ELOOP else error.strerror
            raise AuditLogError(
                f"the audit log {self.path} cannot be opened: {reason}; choose another with --audit-log"
            ) from None

    def reopen(self) -> None:
        """Open the path anew at the next append, whatever it looks like; only sets a flag."""
        self._reopen = True

    def notice(self) -> list[tuple[str, dict[str, Any]]]:
        """Compare path and file before a write; returns the events of what has changed. Raises OSError."""
        forced = self._reopen
        if forced:
            self._reopen = False
        try:
            found = self._stat(self.path)
        except FileNotFoundError:
            return self._path_is_missing(forced)
        self._missing_since = None
        if (found.st_dev, found.st_ino) == self._identity and found.st_size < self._size:
            before, self._size = self._size, found.st_size
            self._torn = self._torn and found.st_size > 0
            return [("truncated", {"size_before": before})]
        if forced or (found.st_dev, found.st_ino) != self._identity:
            return self._switch("rotated")
        return []

    def append(self, line: bytes) -> None:
        """Write one line with one write; raises OSError with the file as it was."""
        self._isolate()
        self._write_whole(line)
        self._size += len(line)
        self.unsynced += len(line)
        self.last_hash = line_hash(line[:-1])

    def duplicate(self) -> int:
        """A descriptor of the same file, to be synced and closed by another thread."""
        return fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 0)

    def close(self) -> None:
        """Close the file and give the lock up. What closing would tell, the last sync has told."""
        fds, self._fd, self._lock_fd = (self._fd, self._lock_fd), -1, -1
        for fd in fds:
            try:
                if fd >= 0:
                    os.close(fd)
            except OSError:
                pass

    def _isolate(self) -> None:
        """End a torn line, so that the next one stands alone."""
        if self._torn:
            self._write_whole(b"\n")
            self._size += 1
            self._torn = False

    def _write_whole(self, data: bytes) -> None:
        """A short write is what a full disk does first: the rest fails with its reason, and the beginning is taken back."""
        written = self._write(self._fd, data)
        if written == len(data):
            return
        try:
            while written < len(data):
                more = self._write(self._fd, data[written:])
                if not more:
                    raise OSError(errno_codes.EIO, "the file took no bytes")
                written += more
        except OSError:
            self._take_back(written)
            raise

    def _take_back(self, written: int) -> None:
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        except OSError:
            self._torn = True  # then the next line is set apart from it

    def _lock(self) -> None:
        """One process a log: a lock file beside it, held as long as we live (flock(2))."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        fd = os.open(
            beside(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise AuditLogError(
                f"the audit log {self.path} is in use by another dockeraudit; give this one a log of its own",
                EXIT_BUSY,
            ) from None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
        self._lock_fd = fd

    def _open_path(self) -> None:
        """Open the path for appending, making it (0600) if need be; refuse what is no regular file."""
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        self._new_name = self._new_name or not os.path.lexists(self.path)
        try:
            fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            if error.errno in (errno_codes.ENXIO, errno_codes.EISDIR):
                raise OSError(error.errno, "it is not a regular file") from None
            raise
        try:
            found = os.fstat(fd)
            if not stat_bits.S_ISREG(found.st_mode):
                raise OSError(errno_codes.EINVAL, "it is not a regular file")
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
        fd = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno != errno_codes.EINVAL:  # some network file systems know no such thing
                raise
        finally:
            os.close(fd)
        self._new_name = False

    def _recover(self) -> list[tuple[str, dict[str, Any]]]:
        """Take over what an earlier run left: its last line is our `prev`, a torn one is isolated by a newline."""
        if not self._size:
            return []
        start, self.last_hash, torn = last_line(self.path)
        if not torn:
            return []
        self._torn = True
        return [("recovered", {"offset": start})]

    def _path_is_missing(self, forced: bool) -> list[tuple[str, dict[str, Any]]]:
        """Deleted: make it anew at once. Renamed: write on for a moment, whoever renamed it may make the path anew."""
        if os.fstat(self._fd).st_nlink == 0:
            return self._switch("recreated")
        now = self._monotonic()
        if self._missing_since is None:
            self._missing_since = now
        if not forced and now - self._missing_since < RENAME_GRACE:
            return []
        return self._switch("rotated")

    def _switch(self, event: str) -> list[tuple[str, dict[str, Any]]]:
        """Go over to the path as it is now, with its directory, lock and key if those went too."""
        (device, inode), size = self._identity, self._size
        self._hold_lock()
        try:
            self._isolate()
        except OSError:
            pass  # the file that is left stays torn, which `verify` tells
        self._open_path()
        self._missing_since = None
        if self._identity == (device, inode):
            return []
        return [
            (
                event,
                {"inode": self._identity[1]}
                if event == "recreated"
                else {"inode": inode, "size": size},
            )
        ]

    def _hold_lock(self) -> None:
        """Make lock and key anew where they went with their directory. Raises OSError if another process has the lock now."""
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
    """Where a file's last line starts, its hash, and whether it is torn (has no newline); in constant memory."""
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
    """Standard output as the log: the same records, no rotation, no lock. A slow reader is waited for by the worker alone."""

    unsynced = 0

    def __init__(self, write: Any) -> None:
        self.path = "standard output"
        self.last_hash = NO_LINE
        self._write = write
        self._line = b""
        self._rest = b""  # of that line

    def open(self) -> list[tuple[str, dict[str, Any]]]:
        """It is open."""
        return []

    def reopen(self) -> None:
        """There is nothing to reopen."""

    def notice(self) -> list[tuple[str, dict[str, Any]]]:
        """Nothing happens to a pipe."""
        return []

    def append(self, line: bytes) -> None:
        """Write one line; what a pipe took of it cannot be taken back, so the rest goes first the next time."""
        if not self._rest:
            self._line = self._rest = line
        while self._rest:
            self._rest = self._rest[self._write(1, self._rest) :]
        self.last_hash = line_hash(self._line[:-1])

    def close(self) -> None:
        """Standard output is not ours to close."""
