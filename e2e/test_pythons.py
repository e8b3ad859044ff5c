"""Newer Pythons than the machine's own: their interpreters scan, and all is found as ever."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from needs import skip_outside_ci

from conftest import ROOT

pytestmark = pytest.mark.slow

#: tests of what workers search and of those who ask them
FILES = "workers scanning textscanner maskedstream startup".split()


#: tests that read sources and pages, and install tools of the machine's own Python
OF_SOURCES = ("docs", "layers", "release")


@pytest.fixture(scope="module", params=[pytest.param("3.14", marks=pytest.mark.full), "3.15"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def python(version):
    """The path of a Python that `bench/fetch-python` has fetched."""
    fetch = [str(ROOT / "bench" / "fetch-python"), version]
    run = subprocess.run(fetch, capture_output=True, text=True, timeout=110, check=False)
    if run.returncode:
        skip_outside_ci(f"Debian's Python {version} could not be fetched: {run.stderr[-300:]}")
    return run.stdout.strip()


@pytest.fixture(scope="module")
def packages(version, tmp_path_factory):
    """A folder with what the tests need, for that Python, which has no pip of its own."""
    folder = tmp_path_factory.mktemp("packages")
    listed = [sys.executable, str(ROOT / "e2e" / "requirements.py"), "test"]
    wanted = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line for line in wanted if not line.startswith(("mypy", "ruff"))]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    options = ["--target", str(folder), "--python-version", version, "--only-binary", ":all:"]
    run = subprocess.run(
        [*pip, *options, *names], capture_output=True, text=True, timeout=110, check=False
    )
    if run.returncode:
        skip_outside_ci(f"the tests' packages for Python {version}: {run.stderr[-300:]}")
    return folder


def run_tests(python: str, *arguments: str, timeout: float, **environment: str) -> None:
    """Run fast tests by that Python, all of which must pass, and none be skipped."""
    run = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + ["-m", "not (engine or root or slow or full)", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert " skipped" not in run.stdout.splitlines()[-1], "interpreters are there"


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["modules", "stitched"])
def test_all_fast_tests_pass(python: str, packages: Path, form: str) -> None:
    left_out = [f"--ignore=tests/test_{name}.py" for name in OF_SOURCES]
    run_tests(python, *left_out, timeout=880, DOCKERAUDIT_FORM=form, PYTHONPATH=str(packages))


@pytest.mark.parametrize("form", ["modules", "stitched"])
def test_the_tests_of_scanning_pass(python: str, form: str) -> None:
    run_tests(
        python,
        "-p",
        "pytest_timeout",
        *(f"tests/test_{name}.py" for name in FILES),
        timeout=110,
        DOCKERAUDIT_FORM=form,
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",  # hypothesis is compiled for another Python
        PYTHONPATH=sysconfig.get_path("purelib"),
    )
