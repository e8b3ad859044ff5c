"""Syncs the audit log's file, in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from _dockeraudit.logfile import AuditFile, AuditPipe

SYNC_PERIOD = 1.0  # seconds, or
SYNC_BYTES = 64 << 10  # bytes, after which what was written is synced


class Syncer:
    """Syncs what was written in its own thread: a slow fdatasync delays neither worker nor ticker.

    `mode`: `always` (a sync waits until it is done), `interval` or `never`.
    """

    def __init__(
        self,
        mode: str,
        fdatasync: Callable[[int], Any],
        monotonic: Callable[[], float],
        diagnose: Callable[[str, str], None],
    ) -> None:
        self.failed = False
        self._mode, self._fdatasync = mode, fdatasync
        self._monotonic, self._diagnose = monotonic, diagnose
        self._synced = monotonic()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="audit-sync")
        self._job: Future[None] | None = None

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where no thread can be started."""
        self._executor.submit(int)

    def written(self, file: AuditFile | AuditPipe) -> None:
        """Something was written: sync it now or when that is due, as the mode says."""
        if self._mode == "always":
            self.sync_now(file)
        elif file.unsynced >= SYNC_BYTES:
            self.tick(file)

    def tick(self, file: AuditFile | AuditPipe) -> None:
        """Sync what is due, unless a sync is under way. A failed one is tried again."""
        if self._job and not self._job.done():
            return
        late = self._monotonic() - self._synced >= SYNC_PERIOD
        if file.unsynced >= SYNC_BYTES or (late and (file.unsynced or self.failed)):
            self._begin(file)

    def sync_now(self, file: AuditFile | AuditPipe) -> None:
        """Sync what is not synced, and wait for that."""
        if file.unsynced or self.failed:
            self._begin(file)
            self.wait(None)

    def leave(self, fd: int) -> None:
        """A file was rotated away: sync its end too, then close it."""
        if self._mode == "never":
            os.close(fd)
        else:
            self._submit(fd)

    def wait(self, timeout: float | None) -> None:
        """Wait for the last sync. Raises TimeoutError of concurrent.futures."""
        if self._job:
            self._job.result(timeout)

    def stop(self) -> None:
        """Take no more work."""
        self._executor.shutdown(wait=False)

    def _begin(self, file: AuditFile | AuditPipe) -> None:
        if self._mode == "never" or isinstance(file, AuditPipe):
            return
        file.unsynced = 0
        self._synced = self._monotonic()
        with suppress(OSError):  # closed, or out of descriptors: the next write or sync tells
            self._submit(file.duplicate())

    def _submit(self, fd: int) -> None:
        """Have a descriptor synced and closed."""
        try:
            self._job = self._executor.submit(self._sync, fd)
        except RuntimeError:  # stopped; the thread has been there since `start`
            os.close(fd)

    def _sync(self, fd: int) -> None:
        """Sync and close. Whatever a sync raises, it has failed, and is tried again."""
        try:
            self._fdatasync(fd)
        except Exception as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            if not self.failed:
                text = f"cannot be synced: {reason}; a power cut may take its latest records"
                self._diagnose("warning", text)
            self.failed = True
        else:
            if self.failed:
                self._diagnose("warning", "can be synced again")
            self.failed = False
        finally:
            os.close(fd)
