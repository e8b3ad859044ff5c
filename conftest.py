"""What every test shares: which form is tested, marks that need something, and the fixtures.

The helpers behind them lie in `tests/` (scripted engine, proxy process, waiting) and `e2e/`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("tests", "e2e")]
pytest_plugins = ["matrix", "auditlogs"]  # prints of the clients' tests; logs under test
from product import PROGRAM, ROOT, STITCHED, import_stitched_file

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts jobs behind `&` so, and
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the programs under test inherit it

LONG_MARKS = ("engine", "root", "slow", "full")

if STITCHED:
    import_stitched_file()
    collect_ignore = ["tests/test_layers.py"]  # it reads the sources, which are the same

from needs import skip_outside_ci
from proxyprocess import ProxyProcess
from realengine import ENGINE_HOSTS, RealEngine
from splitting import splits
from waiting import DEADLINE, wait_for

__all__ = [
    "DEADLINE",
    "ENGINE_HOSTS",
    "PROGRAM",
    "ROOT",
    "ProxyProcess",
    "RealEngine",
    "splits",
    "wait_for",
]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `root` is skipped for other users."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        skip_outside_ci("it needs root, and this is another user: run `make e2e` as root")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a real engine has the mark `engine`, so none can lack it."""
    for item in items:
        if "real_engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.engine)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for Unix sockets."""
    path = tempfile.mkdtemp(prefix="da-")
    yield Path(path)
    shutil.rmtree(path)


@pytest.fixture
def start_proxy(
    folder: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., ProxyProcess]]:
    """A function that starts proxies, by a fork in tests without a mark; all are ended after it."""
    started = []
    marked = any(request.node.get_closest_marker(mark) for mark in LONG_MARKS)

    def start(upstream: str, *options: str, **keywords: object) -> ProxyProcess:
        keywords.setdefault("forked", not marked and "program" not in keywords)
        proxy = ProxyProcess(folder, upstream, *options, **keywords)  # type: ignore[arg-type]
        started.append(proxy)
        return proxy.ready()

    yield start
    for proxy in started:
        proxy.stop()


@pytest.fixture(
    scope="session",
    params=ENGINE_HOSTS or [None],
    ids=lambda host: host.rsplit("/", 2)[-2] if host else "none",
)
def real_engine(request: pytest.FixtureRequest) -> RealEngine:
    """Each engine of DOCKERAUDIT_ENGINES in turn."""
    if request.param is None:
        skip_outside_ci("no Docker Engine (DOCKERAUDIT_ENGINES is empty): `make e2e` starts them")
    return RealEngine(request.param)
