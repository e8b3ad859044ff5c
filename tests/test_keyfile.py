"""Tests of keyfile.py: the fingerprints' key is made once and whole, and kept from others."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from _dockeraudit import keyfile
from _dockeraudit.errors import AuditLogError
from _dockeraudit.keyfile import load_fingerprint_key, refuse_unfit_log, write_key
from conftest import ROOT

KEY = b"k" * 32


def no_link(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=["hard links", "no hard links", "no os.link"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hard links, on a file system without them, and on a system without them."""
    if request.param == "no hard links":
        monkeypatch.setattr(keyfile.os, "link", no_link)
    elif request.param == "no os.link":
        monkeypatch.delattr(keyfile.os, "link")


def refusal(path: Path) -> str:
    """What a key is refused with."""
    with pytest.raises(AuditLogError) as caught:
        load_fingerprint_key(str(path))
    assert caught.value.status == 78 and str(path) in str(caught.value)
    return str(caught.value)


def test_the_key_is_made_once_and_private(folder: Path, links: None) -> None:
    path = str(folder / ".audit.log.key")
    keys: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: keys.append(load_fingerprint_key(path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8 and len(set(keys)) == 1 and len(keys[0]) == 32
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and os.listdir(folder) == [".audit.log.key"]
    assert len(load_fingerprint_key(None)) == 32


def test_a_key_that_exists_is_never_replaced(folder: Path, links: None) -> None:
    path = folder / "key"
    write_key(str(path), KEY)
    with pytest.raises(FileExistsError):
        write_key(str(path), b"other")
    assert path.read_bytes() == KEY and os.listdir(folder) == ["key"]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_key_that_cannot_be_written_whole_is_not_made(
    folder: Path, links: None, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(keyfile.os, call, fail)
        assert "No space left" in refusal(folder / "key")
    assert os.listdir(folder) == []


def test_a_crash_while_the_key_is_made_does_not_stop_the_next_start(folder: Path) -> None:
    path = str(folder / "key")
    (folder / f"key.{os.getpid()}").write_bytes(b"left over")
    assert len(load_fingerprint_key(path)) == 32


def test_a_key_is_read_where_nothing_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared key may be mounted, or lie in /etc where a service that is not root cannot write."""
    path = folder / "shared.key"
    path.write_bytes(KEY)
    path.chmod(0o400)
    monkeypatch.setattr(keyfile, "write_key", lambda *_: pytest.fail("it was to be written"))
    assert load_fingerprint_key(str(path)) == KEY


def test_a_key_of_another_length_is_refused(folder: Path) -> None:
    path = folder / "key"
    for content in (b"", b"short", b"x" * 33):
        path.write_bytes(content)
        path.chmod(0o600)
        assert "does not hold 32 bytes" in refusal(path)


def test_a_key_in_a_folder_that_is_not_there_is_refused_and_no_folder_is_made(folder: Path) -> None:
    assert "No such file or directory" in refusal(folder / "no" / "such" / "key")
    assert os.listdir(folder) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_key_that_others_may_read_or_write_is_refused(folder: Path, mode: int) -> None:
    path = folder / "key"
    path.write_bytes(KEY)
    path.chmod(mode)
    said = refusal(path)
    assert f"(mode {mode:04o})" in said and "`chmod 600`" in said
    path.chmod(0o600)
    assert load_fingerprint_key(str(path)) == KEY


@pytest.mark.parametrize(
    "owner, mode, us, reason",
    [
        (0, 0o600, 0, None),
        (0, 0o400, 1000, None),
        (1000, 0o600, 1000, None),
        (0, 0o640, 1000, None),  # root's key, which our group may read
        (0, 0o640, 0, "others may read or write it"),
        (1000, 0o640, 1000, "others may read or write it"),
        (0, 0o644, 1000, "others may read or write it"),
        (0, 0o660, 1000, "others may read or write it"),
        (1001, 0o600, 1000, "it belongs to uid 1001"),
        (1000, 0o600, 0, "it belongs to uid 1000"),
    ],
)
def test_a_key_is_taken_from_root_and_from_ourselves(
    monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, us: int, reason: str | None
) -> None:
    monkeypatch.setattr(keyfile.os, "geteuid", lambda: us)
    found = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 32, 0, 0, 0))
    said = keyfile.unfit_key(found)
    assert said is None if reason is None else reason in str(said)


def test_a_key_that_is_a_link_or_no_file_is_refused(folder: Path) -> None:
    (folder / "real").write_bytes(KEY)
    (folder / "real").chmod(0o600)
    (folder / "link").symlink_to(folder / "real")
    (folder / "dangling").symlink_to(folder / "nothing")
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "folder").mkdir()
    assert "it is a symbolic link" in refusal(folder / "link")
    assert "it is a symbolic link" in refusal(folder / "dangling")
    assert "it is not a regular file" in refusal(folder / "fifo")
    refusal(folder / "folder")
    assert not (folder / "nothing").exists()


# =================================================================================================
# the log's path, before anything is made beside it
# =================================================================================================


def log_refusal(path: Path | str) -> str:
    with pytest.raises(AuditLogError) as caught:
        refuse_unfit_log(str(path))
    said = str(caught.value)
    assert caught.value.status == 78 and str(path) in said and "--audit-log" in said
    return said


def test_a_log_that_others_could_change_is_refused(folder: Path) -> None:
    log = folder / "audit.log"
    log.touch(0o600)
    refuse_unfit_log(str(log))
    log.chmod(0o666)
    assert "everybody may write it" in log_refusal(log)
    log.chmod(0o600)
    os.link(log, folder / "second")
    assert "a hard link" in log_refusal(log)
    (folder / "second").unlink()
    (folder / "link").symlink_to(log)
    assert "a symbolic link" in log_refusal(folder / "link")
    refuse_unfit_log(str(folder / "new.log"))
    refuse_unfit_log("-")


def test_a_log_of_another_user_is_refused_and_one_of_root_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = folder / "audit.log"
    log.touch(0o600)
    owner = log.stat().st_uid
    monkeypatch.setattr(keyfile.os, "geteuid", lambda: owner + 1)
    found = list(log.stat())
    for uid, reason in ((owner + 1, None), (0, None), (owner + 7, f"uid {owner + 7}")):
        found[4] = uid
        said = keyfile.unfit_log(os.stat_result(found))
        assert said is None if reason is None else reason in str(said)


def test_the_rooms_of_the_log_are_imported_where_linux_things_are_missing() -> None:
    """macOS and Windows: no fcntl, no fdatasync, no flags, no fork, no users."""
    program = (
        "import os, sys\n"
        "sys.modules['fcntl'] = None\n"
        "for name in ('fdatasync', 'O_NOFOLLOW', 'O_NONBLOCK', 'O_CLOEXEC', 'O_DIRECTORY',\n"
        "             'register_at_fork', 'fork', 'geteuid', 'link'):\n"
        "    delattr(os, name)\n"
        "from _dockeraudit.auditlog import AuditLog\n"
        "from _dockeraudit.errors import AuditLogError\n"
        "from _dockeraudit.verify import verify_files\n"
        "log = AuditLog('-', bytes(32))\n"
        "log.open(version='x')\n"
        "log.accept('request', {})\n"
        "assert log.close('end', 10) == 0\n"
        "try:\n"
        "    AuditLog('audit.log', bytes(32)).open()\n"
        "except AuditLogError as error:\n"
        "    sys.stderr.write(str(error))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout.count(b"\n") == 3 and b"this system has no file locks" in run.stderr
    assert not (ROOT / "audit.log").exists()
