"""The key of the fingerprints, and whom a file must belong to that we trust.

Importing this room needs nothing that Linux alone has.
"""

from __future__ import annotations

import errno as errno_codes
import hashlib
import os
import stat as stat_bits
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from _dockeraudit.errors import AuditLogError

KEY_BYTES = 32
KEY_CHARACTERS = 32  # characters that a variable with a key has at least
KEY_VARIABLE = "env:"  # what a variable's name is preceded by in place of a file
NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
NOT_INHERITED = getattr(os, "O_CLOEXEC", 0)


def beside(log_path: str, suffix: str) -> str:
    """`/x/.audit.log.SUFFIX` for `/x/audit.log`: the log itself gets renamed."""
    folder, name = os.path.split(os.path.abspath(log_path))
    return os.path.join(folder, f".{name}.{suffix}")


def foreign_owner(found: os.stat_result) -> str | None:
    """A sentence if the file belongs to neither root nor us."""
    if hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        return f"it belongs to uid {found.st_uid}"
    return None


def unfit_log(found: os.stat_result) -> str | None:
    """Why a file must not be taken as audit log: others could change it, or it is another's."""
    if stat_bits.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if not stat_bits.S_ISREG(found.st_mode):
        return "it is not a regular file"
    if found.st_nlink > 1:
        return "it is a hard link, a second name of another file"
    if found.st_mode & stat_bits.S_IWOTH:
        return "everybody may write it; `chmod o-w` mends that"
    return foreign_owner(found)


def unfit_key(found: os.stat_result) -> str | None:
    """Why a file must not be taken as fingerprint key: others know it, or can.

    As with ssh, a group may read a key that is not ours but root's: through it we read the key, and
    so do services that systemd gives a credential (LoadCredential).
    """
    if not stat_bits.S_ISREG(found.st_mode):
        return "it is not a regular file"
    owner = foreign_owner(found)
    ours = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    others = 0o077 if ours else 0o027
    if owner or os.name != "posix" or not found.st_mode & others:
        return owner
    return f"others may read or write it (mode {found.st_mode & 0o777:04o}); `chmod 600` mends that"


def refuse_unfit_log(path: str) -> None:
    """Look at the path before anything is made beside it; raises AuditLogError."""
    if path == "-":
        return
    try:
        reason = unfit_log(os.lstat(path))
        if not reason and not os.access(path, os.W_OK):
            reason = os.strerror(errno_codes.EACCES)
    except FileNotFoundError:
        reason = unfit_folder(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        reason = error.strerror
    if reason:
        raise cannot_be_opened(path, reason)


def unfit_folder(folder: str) -> str | None:
    """Why a log cannot be made in a folder; one that is missing is made, where that is allowed."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return f"{folder} is not a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        who = f"uid {os.geteuid()}" if hasattr(os, "geteuid") else "this user"
        return f"{who} may not write in the folder {folder}"
    return None


def cannot_be_opened(path: str, reason: str | None) -> AuditLogError:
    """The error for a log that cannot be used."""
    return AuditLogError(
        f"the audit log {path} cannot be opened: {reason}; choose another with --audit-log"
    )


def default_key_path(log_path: str) -> str:
    """Where the fingerprints' key lies unless told otherwise."""
    return beside(log_path, "key")


def key_file(text: str | None) -> str | None:
    """The file that --fingerprint-key names, None where it names a variable or nothing."""
    return None if text is None or text.startswith(KEY_VARIABLE) else text


def load_fingerprint_key(
    path: str | None, environ: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    """The key in the file, which is made (0600) if it is not there. Raises AuditLogError.

    Without a path: a key that lives as long as the process. env:NAME: the key is the SHA-256 of
    that variable's text.
    """
    if path is None:
        return os.urandom(KEY_BYTES)
    if path.startswith(KEY_VARIABLE):
        return key_of_variable(path[len(KEY_VARIABLE) :], environ)
    try:
        if not os.path.lexists(path):  # one that exists may lie where nothing can be written
            with suppress(FileExistsError):
                write_key(path, os.urandom(KEY_BYTES))
        key, reason = read_key(path)
    except OSError as error:
        link = error.errno == errno_codes.ELOOP
        key, reason = b"", "it is a symbolic link" if link else error.strerror
    if reason:
        raise AuditLogError(
            f"the fingerprint key {path} cannot be used: {reason}; "
            "give another with --fingerprint-key"
        )
    if len(key) != KEY_BYTES:
        raise AuditLogError(
            f"the fingerprint key {path} does not hold {KEY_BYTES} bytes; "
            "remove it to have it made anew"
        )
    return key


def key_of_variable(name: str, environ: Mapping[str, str]) -> bytes:
    """The key that a variable's text gives; raises AuditLogError, which never holds the text."""
    text = environ.get(name, "")
    if len(text) < KEY_CHARACTERS:
        raise AuditLogError(
            f"--fingerprint-key env:{name}: the variable holds {len(text)} characters; "
            f"it needs {KEY_CHARACTERS} that nobody guesses, as `openssl rand -hex 32` prints them"
        )
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def read_key(path: str) -> tuple[bytes, str | None]:
    """The bytes of a key file (one more than a key's at most), and why they must not be used."""
    if os.path.islink(path):  # where O_NOFOLLOW is missing
        raise OSError(errno_codes.ELOOP, "it is a symbolic link")
    fd = os.open(path, os.O_RDONLY | NOT_INHERITED | NOT_FOLLOWED | getattr(os, "O_BINARY", 0))
    try:
        reason = unfit_key(os.fstat(fd))
        return b"" if reason else os.read(fd, KEY_BYTES + 1), reason
    finally:
        os.close(fd)


def write_key(path: str, key: bytes) -> None:
    """Make a key file whole or not at all; raises FileExistsError if there is one."""
    part = f"{path}.{os.urandom(4).hex()}"  # not the pid: a container's is always 1
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOT_INHERITED | getattr(os, "O_BINARY", 0)
    fd = os.open(part, flags, 0o600)
    try:
        try:
            os.write(fd, key)
            os.fsync(fd)
        finally:
            os.close(fd)
        put_in_place(part, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def put_in_place(part: str, path: str) -> None:
    """Give a finished file its name, unless there is a file of that name: then FileExistsError."""
    try:
        os.link(part, path)
        return
    except FileExistsError:
        raise
    except (
        OSError,
        AttributeError,
    ):  # FAT, some network file systems and Android have no hard links
        pass
    with locked_folder(os.path.dirname(os.path.abspath(path))):
        if os.path.lexists(path):
            raise FileExistsError(errno_codes.EEXIST, os.strerror(errno_codes.EEXIST), path)
        os.rename(part, path)


@contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    """Keep other processes of ours from naming a file in the folder, where there are locks."""
    fd = -1
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | NOT_INHERITED)
        if fcntl:
            fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)
