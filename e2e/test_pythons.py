"""Newer Pythons than the machine's own: their interpreters scan, and all is found as ever."""

from __future__ import annotations

import os
import subprocess
import sysconfig

import pytest
from needs import skip_outside_ci

from conftest import ROOT

pytestmark = pytest.mark.slow

#: tests of what workers search and of those who ask them
FILES = "workers scanning textscanner maskedstream startup".split()


@pytest.fixture(scope="module", params=["3.14", "3.15"])
def python(request):
    """The path of a Python that `bench/fetch-python` has fetched."""
    fetch = [str(ROOT / "bench" / "fetch-python"), request.param]
    run = subprocess.run(fetch, capture_output=True, text=True, timeout=110, check=False)
    if run.returncode:
        skip_outside_ci(
            f"Debian's Python {request.param} could not be fetched: {run.stderr[-300:]}"
        )
    return run.stdout.strip()


@pytest.mark.parametrize("form", ["modules", "stitched"])
def test_the_tests_of_scanning_pass(python, form):
    environment = {
        **os.environ,
        "DOCKERAUDIT_FORM": form,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # hypothesis is compiled for another Python
        "PYTHONPATH": sysconfig.get_path("purelib"),
    }
    files = [f"tests/test_{name}.py" for name in FILES]
    command = [python, "-m", "pytest", "-q", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-m", "not (engine or root or slow or full)", *files],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert " skipped" not in run.stdout.splitlines()[-1], "interpreters are there"
