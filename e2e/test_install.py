"""What lands on a machine: by pip from the tree, a source distribution or a wheel, or by copying.

The oldest and the newest Python found here get fresh virtual environments, and so does the one that
runs the tests. Nothing is taken from a package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HOSTILE = ("report", "policy", "patterns", "auditlog", "http1", "scan", "errors", "engine")
QUIET = ("--disable-pip-version-check", "--no-input", "--no-index")
KEPT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
)


def version_of(python: str) -> str:
    """A Python's version, such as 3.9; empty if it does not run."""
    script = "import sys; print('{}.{}'.format(*sys.version_info))"
    said = subprocess.run([python, "-c", script], capture_output=True, timeout=20, check=False)
    return said.stdout.decode().strip()


def find_pythons() -> dict[str, str]:
    """Version to path of the Pythons on PATH and of pyenv, and of the one that runs the tests."""
    found = {version_of(sys.executable): sys.executable}
    candidates = [shutil.which(f"python3.{minor}") or "" for minor in range(8, 16)]
    candidates += map(str, Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3"))
    for python in filter(None, candidates):
        version = version_of(python)
        if version:
            found.setdefault(version, python)
    return found


PYTHONS = find_pythons()
SUPPORTED = sorted(set(PYTHONS) - {f"3.{minor}" for minor in range(9)}, key=lambda v: int(v[2:]))
TRIED = sorted({SUPPORTED[0], version_of(sys.executable), SUPPORTED[-1]})  # pip takes a while


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command with an environment that points at no Python and configures nothing."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOCKER", "PYTHON", "PYENV", "LOG_LEVEL"))
    }
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=plain, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """What pip can be given: a copy of the tree, and the distributions that are built from it."""
    home = tmp_path_factory.mktemp("sources")
    tree = home / "tree"
    shutil.copytree(ROOT, tree, ignore=KEPT_OUT)
    run(sys.executable, "-m", "venv", home / "build", cwd=home)
    python = home / "build" / "bin" / "python"
    script = f"import backend; backend.build_sdist({str(home)!r})"
    run(python, "-c", script, cwd=tree / "deploy")
    run(python, "-m", "pip", "wheel", "-q", *QUIET, "--no-deps", "-w", home, tree, cwd=home)
    (sdist,) = home.glob("*.tar.gz")
    (wheel,) = home.glob("*.whl")
    yield {"tree": tree, "sdist": sdist, "wheel": wheel}


@pytest.mark.parametrize("source", ["tree", "sdist", "wheel"])
@pytest.mark.parametrize("version", TRIED)
def test_pip_installs_one_module_and_a_command(
    version: str, source: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    run(PYTHONS[version], "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    before = set(os.listdir(site))
    run(python, "-m", "pip", "install", "-q", *QUIET, sources[source], cwd=tmp_path)
    added = {name for name in set(os.listdir(site)) - before if name != "__pycache__"}
    assert {re.sub(r"-.*\.dist-info$", ".dist-info", name) for name in added} == {
        "dockeraudit.py",
        "dockeraudit.dist-info",
    }
    project = tmp_path / "project"
    project.mkdir()
    for name in HOSTILE:  # somebody's own files, which must neither break it nor be run
        (project / f"{name}.py").write_text("raise SystemExit('the wrong file was imported')\n")
    said = run(python, "-m", "dockeraudit", "--version", cwd=project).stdout
    assert said == run(environment / "bin" / "dockeraudit", "--version", cwd=project).stdout
    (project / "log.txt").write_text("key " + "AK" + "IA" + "IOSFODNN7EXAMPLE\n")
    scan = run(environment / "bin" / "dockeraudit", "scan", "log.txt", cwd=project, check=False)
    assert scan.returncode == 1 and '"AWS Access Key"' in scan.stdout, scan.stderr


def test_the_stitched_file_is_the_same_each_time_and_runs_alone(tmp_path: Path) -> None:
    texts = [run(sys.executable, "deploy/stitch.py", cwd=ROOT).stdout for _ in range(2)]
    assert texts[0] == texts[1] and "# requires-python = " in texts[0]
    (tmp_path / "dockeraudit.py").write_text(texts[0])
    for version in SUPPORTED:
        assert run(PYTHONS[version], "dockeraudit.py", "--version", cwd=tmp_path).stdout


@pytest.mark.parametrize("beside", [(), HOSTILE], ids=["alone", "beside foreign files"])
def test_a_copy_without_its_rooms_says_what_to_copy(
    beside: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copy(ROOT / "dockeraudit.py", tmp_path)
    for name in beside:
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    done = run(sys.executable, "dockeraudit.py", "--version", cwd=tmp_path, check=False)
    assert done.returncode == 78 and done.stderr.count("\n") == 1, done.stderr
    assert "patterns.py and the folder _dockeraudit" in done.stderr


@pytest.mark.parametrize("form", ["modules", "stitched"])
def test_python_3_8_is_told_which_version_it_needs(form: str, tmp_path: Path) -> None:
    if "3.8" not in PYTHONS:
        pytest.skip("there is no Python 3.8 here, the newest one that is refused")
    program = ROOT / "dockeraudit.py"
    if form == "stitched":
        program = tmp_path / "dockeraudit.py"
        program.write_text(run(sys.executable, "deploy/stitch.py", cwd=ROOT).stdout)
    for arguments in (["--version"], ["scan", "-"]):
        done = run(PYTHONS["3.8"], program, *arguments, cwd=tmp_path, check=False)
        assert done.returncode == 78 and done.stdout == "", done
        assert done.stderr == "dockeraudit needs Python 3.9 or newer; this is 3.8\n"
