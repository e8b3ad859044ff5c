"""`make bench` works: a short run compares bytes and findings; its figures mean nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from needs import need_program

from conftest import ROOT

pytestmark = pytest.mark.slow

STREAMS = {"each100", "cut100", "secrets100"}


def bench(*arguments):
    """A smoke run of the bench."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER")}
    return subprocess.run(
        [sys.executable, "bench/run.py", "--smoke", *map(str, arguments)],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The figures of a smoke run, and what it printed."""
    need_program("cc")  # the bench compiles its load and its engine
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    run = bench("--json", path)
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


DEFECTS = {  # run before the program, in place of a defect in it
    "changes a byte": """
import socket
for name in ("send", "sendall"):
    def broken(self, data, *more, name=name):
        data = bytes(data).replace(b"checkpoint", b"Checkpoint")
        return getattr(super(socket.socket, self), name)(data, *more)
    setattr(socket.socket, name, broken)
""",
    "misses a rule": """
import os
os.environ["DOCKERAUDIT_DISABLE_RULE"] = "email-address"
""",
}


@pytest.mark.parametrize(
    "defect, complaint", [("changes a byte", "differs"), ("misses a rule", "planted")]
)
def test_the_bench_fails_if_a_proxy(defect, complaint, tmp_path):
    stitch = [sys.executable, "deploy/stitch.py"]
    text = subprocess.run(stitch, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    future = "from __future__ import annotations\n"
    assert text.count(future) == 1
    (tmp_path / "broken.py").write_text(text.replace(future, future + DEFECTS[defect]))
    run = bench(
        "--only", "each100", "--peers", "direct,dockeraudit", "--program", tmp_path / "broken.py"
    )
    assert run.returncode == 1 and complaint in run.stderr, run.stderr
    assert run.stdout == ""
