"""What every test shares: the form under test (modules or stitched file), and a proxy as a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
STITCHED = os.environ.get("DOCKERAUDIT_FORM") == "stitched"
PROGRAM = str(ROOT / "dist" / "dockeraudit.py") if STITCHED else str(ROOT / "dockeraudit.py")
DEADLINE = 20.0  # seconds a test waits for what happens in milliseconds on an idle machine

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "e2e")]
pytest_plugins = ["matrix", "auditlogs"]  # logs under test; the first prints what the clients' tests compared
if STITCHED:
    spec = importlib.util.spec_from_file_location("dockeraudit", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    package = types.ModuleType("_dockeraudit")
    sys.modules.update({"dockeraudit": module, "patterns": module, "_dockeraudit": package})
    spec.loader.exec_module(module)
    package.__version__ = module.__version__
    for room in (ROOT / "_dockeraudit").glob("*.py"):  # one module stands for all of them
        sys.modules[f"_dockeraudit.{room.stem}"] = module
        setattr(package, room.stem, module)


def wait_for(condition, what, deadline=DEADLINE):
    """Wait until the condition's value is true, and return it."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline:.0f} s in vain for {what}")
        time.sleep(0.01)


def splits(data, seed=1, rounds=20):
    """The data whole, byte by byte, and cut at seeded random places."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    rng = random.Random(seed)
    for _ in range(rounds):
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 12)))
        yield [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]


class ProxyProcess:
    """dockeraudit serving on a Unix socket, with its log and what it says."""

    def __init__(self, folder, upstream, *options, env=None, program=PROGRAM):
        self.folder = Path(folder)
        self.socket = str(self.folder / "proxy.sock")
        self.log = self.folder / "audit.log"
        self.errors = self.folder / "stderr.txt"
        command = [
            sys.executable,
            program,
            "--listen",
            f"unix://{self.socket}",
            "--upstream",
            upstream,
            "--audit-log",
            str(self.log),
            *options,
        ]
        plain = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DOCKER", "LOG_LEVEL"))
        }
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**plain, **(env or {})},
            )

    def ready(self):
        """Wait until it listens."""
        wait_for(
            lambda: os.path.exists(self.socket) or self.process.poll() is not None, "the listener"
        )
        assert self.process.poll() is None, self.errors.read_text()
        wait_for(lambda: "next: export DOCKER_HOST" in self.errors.read_text(), "the start line")
        return self

    def records(self, event=None):
        """The records written so far, of one event if given."""
        data = self.log.read_bytes() if self.log.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]  # a reader sees a write page by page
        records = [json.loads(line) for line in whole.splitlines()]
        return [record for record in records if event in (None, record["event"])]

    def wait_records(self, event, count=1):
        """Wait until the log holds so many records of an event."""
        wait_for(lambda: len(self.records(event)) >= count, f"{count} {event} records")
        return self.records(event)

    def stop(self, sig=signal.SIGTERM):
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture
def folder():
    """A folder with a path short enough for Unix sockets."""
    path = tempfile.mkdtemp(prefix="da-")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture
def start_proxy(folder):
    """Start proxies; all are ended after the test."""
    started = []

    def start(upstream, *options, **kwargs):
        proxy = ProxyProcess(folder, upstream, *options, **kwargs)
        started.append(proxy)
        return proxy.ready()

    yield start
    for proxy in started:
        proxy.stop()


class RealEngine:
    """A Docker Engine that runs here; `docker` runs the CLI against it, directly or through `host`."""

    def __init__(self, host):
        self.host = host
        self.socket = host[len("unix://") :]
        self.version, self.api = (
            self.docker("version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}")
            .stdout.decode()
            .split()
        )

    def docker(self, *arguments, host=None, check=True, env=None, timeout=90, stdin=b""):
        """One run of the docker CLI; its outputs are bytes."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER")}
        run = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env={**plain, "DOCKER_HOST": host or self.host, **(env or {})},
            check=False,
        )
        assert not check or run.returncode == 0, (arguments, run.returncode, run.stdout, run.stderr)
        return run

    def __repr__(self):
        return self.version


ENGINE_HOSTS = os.environ.get("DOCKERAUDIT_ENGINES", "").split()


@pytest.fixture(
    scope="session",
    params=ENGINE_HOSTS or [None],
    ids=lambda host: host.rsplit("/", 2)[-2] if host else "none",
)
def real_engine(request):
    """Each engine of DOCKERAUDIT_ENGINES in turn. Where there is none the tests are skipped, but never in CI."""
    if request.param is None:
        assert not os.environ.get("CI"), "DOCKERAUDIT_ENGINES is empty: `make e2e` sets it"
        pytest.skip("no Docker Engine: `make e2e` starts them (as root)")
    return RealEngine(request.param)
