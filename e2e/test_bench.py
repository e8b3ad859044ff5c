"""`make bench` works: a short run, whose figures nobody looks at; bytes and findings are what counts."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow

STREAMS = {"each100", "cut100", "secrets100"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A smoke run's figures, after everything in it was compared; and what it printed."""
    if not shutil.which("cc"):
        pytest.skip(
            "no C compiler (Debian's gcc): the load and the stand-in engine are compiled on the spot"
        )
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER")}
    subprocess.run(["make", "-s", "dist"], cwd=ROOT, check=True)
    run = subprocess.run(
        [sys.executable, "bench/run.py", "--smoke", "--json", str(path)],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(path.read_text()), run.stdout


def test_every_scenario_has_a_figure_of_ours(smoke):
    figures = smoke[0]["figures"]
    for scenario in STREAMS | {"quiet", "requests-1", "chunked", "followers"}:
        for metric, figure in figures[scenario]["dockeraudit"].items():
            assert figure["values"] and all(map(math.isfinite, figure["values"])), (
                scenario,
                metric,
            )
    assert all(
        figures[name]["dockeraudit-six"]["frames_per_second"]["median"] > 0 for name in STREAMS
    )


def test_peers_are_measured_or_said_to_be_missing(smoke):
    result, printed = smoke
    for peer in ("direct", "haproxy", "nginx", "socat", "go"):
        assert (peer in result["figures"]["each100"]) != (peer in result["missing"]), peer
    assert all(f"Missing: {name}" in printed for name in result["missing"])


@pytest.mark.parametrize("broken, complaint", [("byte", "differs"), ("secret", "planted")])
def test_a_false_byte_or_a_missed_secret_ends_it(tmp_path, broken, complaint):
    """The comparisons can fail: the same run against a proxy with one byte changed, or with one rule less."""
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    for name in ("patterns.py", "dockeraudit.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "_dockeraudit", tmp_path / "_dockeraudit")
    subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "stitch.py")],
        stdout=(tmp_path / "whole.py").open("w"),
        check=True,
    )
    (tmp_path / "dist").mkdir()
    program = (tmp_path / "whole.py").read_text()
    if broken == "byte":
        body = '        """Deliver a block of the body, then audit it."""\n'
        assert body in program
        program = program.replace(body, body + '        block = block.replace(b"e", b"E")\n')
    peers = (tmp_path / "bench" / "peers.py").read_text()
    if broken == "secret":
        peers = peers.replace(
            "    options: tuple[str, ...] = ()\n",
            '    options: tuple[str, ...] = ("--disable-rule", "email-address")\n',
        )
    (tmp_path / "bench" / "peers.py").write_text(peers)
    (tmp_path / "dist" / "dockeraudit.py").write_text(program)
    run = subprocess.run(
        [
            sys.executable,
            "bench/run.py",
            "--smoke",
            "--only",
            "each100",
            "--peers",
            "direct,dockeraudit",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1 and complaint in run.stderr, run.stderr
