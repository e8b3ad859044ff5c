"""What is kept of containers' own secrets: in memory only, and bounded.

Env of inspect ─▶ SecretsMemory.learn ─▶ OwnSecrets, the same one for the same container
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Callable

from _dockeraudit.ownsecrets import OwnSecrets, own_secrets
from _dockeraudit.scanner import Scanner

MOST_CONTAINERS = 1024  # whose secrets are kept although nobody reads them
MOST_BYTES = 16 << 20  # of all secrets in memory, in all their forms


class Kept:
    """Secrets in memory, and the hash of the Env that they were read from."""

    __slots__ = ("own", "source")

    def __init__(self, own: OwnSecrets, source: int) -> None:
        self.own = own
        self.source = source


class SecretsMemory:
    """The secrets of the containers that are read now, and of the latest that were asked about.

    `scanner()` gives the rules in force, or None where secrets are not to be read. Threads: any may
    call; `_lock` guards the tables, and is not held while an Env is searched for secrets.
    """

    def __init__(self, scanner: Callable[[], Scanner | None]) -> None:
        self._scanner = scanner
        self._lock = threading.Lock()
        self._rules: Scanner | None = None  # by which the secrets were found
        self._latest: OrderedDict[str, Kept] = OrderedDict()  # the longest unused first
        self._alive: weakref.WeakSet[OwnSecrets] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def size(self) -> int:
        """Bytes of all secrets in memory."""
        return sum(own.size for own in list(self._alive))

    def get(self, key: str) -> OwnSecrets | None:
        """A container's secrets, if they are known."""
        scanner = self._scanner()
        with self._lock:
            kept = self._latest.get(key)
            if kept is None or scanner is None or scanner is not self._rules:
                return None
            self._latest.move_to_end(key)
            return kept.own

    def learn(self, key: str | None, env: object) -> OwnSecrets | None:
        """The secrets in a container's Env, kept by its full id; None if they are not to be read.

        Where those of the containers that are read now fill the memory, they count as skipped.
        """
        scanner = self._scanner()
        if scanner is None:
            return None
        listed = env if isinstance(env, list) else ()
        entries = tuple(entry for entry in listed if isinstance(entry, str))
        source = hash(entries)
        with self._lock:
            if scanner is not self._rules:
                self._rules = scanner
                self._latest.clear()
            kept = self._latest.get(key) if key else None
            if kept is not None and kept.source == source:
                return kept.own
        fresh = Kept(own_secrets(entries, scanner), source)
        with self._lock:
            return self._keep(key, fresh)

    def _keep(self, key: str | None, kept: Kept) -> OwnSecrets:
        """Make room, the longest unused first, and keep the secrets there."""
        if key:
            self._latest.pop(key, None)
        size = self.size + kept.own.size
        while self._latest and (size > MOST_BYTES or len(self._latest) >= MOST_CONTAINERS):
            size -= self._forget_oldest()
        if size > MOST_BYTES:
            return OwnSecrets((), len(kept.own.needles) + kept.own.skipped)
        self._alive.add(kept.own)
        if key:
            self._latest[key] = kept
        return kept.own

    def _forget_oldest(self) -> int:
        """Forget the longest unused secrets; returns the bytes that this frees."""
        oldest = self._latest.popitem(last=False)[1].own
        size, alive = oldest.size, weakref.ref(oldest)
        del oldest
        return 0 if alive() else size
