"""An engine of a test's own, where it may do what would disturb others."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from realengine import RealEngine
from test_suites import ENGINE, leave_nothing_of


@contextlib.contextmanager
def own_swarm(real_engine: RealEngine) -> Iterator[RealEngine]:
    """An engine of the same version that is a swarm of one.

    DOCKERAUDIT_SWARM names one that runs already.
    """
    running = os.environ.get("DOCKERAUDIT_SWARM")
    if running:
        yield RealEngine(running)
        return
    version = "20" if real_engine.version.startswith("20") else "28"
    home = tempfile.mkdtemp(prefix="da-own-", dir="/var/tmp")
    shared = Path(real_engine.socket).parent / "root"
    os.mkdir(os.path.join(home, version))
    if (shared / "complete").exists():
        os.symlink(shared, os.path.join(home, version, "root"))
    environment = {**os.environ, "ENGINE_HOME": home, "ENGINE_ALONE": "1"}
    start = [*ENGINE, "start", version]
    try:
        started = subprocess.run(
            start, env=environment, stdout=subprocess.PIPE, timeout=280, check=True
        )
        engine = RealEngine(started.stdout.decode().strip())
        engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield engine
        engine.docker("swarm", "leave", "--force", check=False)
    finally:
        stop = [*ENGINE, "stop", version]
        subprocess.run(stop, env=environment, timeout=100, check=False)
        leave_nothing_of(home)
