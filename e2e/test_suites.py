"""The clients' own test suites: through the proxy each test ends as it does directly.

They come from the clients' source packages. Many of their tests need a public registry or other
things that are not here, and fail directly too; only those may fail, in the same way, through the
proxy. A test that ends differently is run again on both ways, since some of them are races of their
own. The suites prune, make swarms and remove images, so the engines are the tests' own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest
from clients import MATRIX

from conftest import ROOT, RealEngine, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.root, pytest.mark.full, pytest.mark.timeout(3000)]
AWS_KEY = "AK" + "IA" + "IOSFODNN7EXAMPLE"
ENGINE = ["bash", str(ROOT / "e2e" / "engine")]

DOCKER_PY_LEFT_OUT = [
    "context_api_test.py", "credentials", "api_plugin_test.py", "api_swarm_test.py",
    "api_service_test.py", "api_config_test.py", "api_secret_test.py", "models_swarm_test.py",
    "models_services_test.py", "models_nodes_test.py",
]  # fmt: skip

#: name, version, its tests, packages they need, tests left out, and why
SUITES = [
    (
        "docker",
        "7.0.0",
        "tests/integration",
        ["paramiko"],
        ["--ignore=tests/integration/" + left_out for left_out in DOCKER_PY_LEFT_OUT],
        "contexts and credential stores are the client's own affair, and the first forgets "
        "DOCKER_HOST; plugins come from a public registry; and engine 28 ends with a panic of its "
        "own after some dozen swarms (Swarm's streams have a test below)",
    ),
    (
        "aiodocker",
        None,
        "tests",
        ["pytest-asyncio", "testcontainers", "async-timeout"],
        [
            "-o",
            "asyncio_mode=auto",
            "-W",
            "ignore",
            "--ignore=tests/test_images.py",
            "--ignore=tests/test_ssh.py",
            "--ignore=tests/test_context.py",
            "--deselect=tests/test_containers.py::test_run_container_with_missing_image",
        ],
        "images come from registries, also the one that a test removes and later tests need; "
        "contexts and ssh are the client's own affair",
    ),
]


@pytest.fixture(scope="module")
def own_engine(real_engine):
    """An engine of the same version for these tests alone, in a network of its own."""
    version = "20" if real_engine.version.startswith("20") else "28"
    home = tempfile.mkdtemp(prefix="da-own-", dir="/var/tmp")
    shared = Path(real_engine.socket).parent / "root"
    os.mkdir(os.path.join(home, version))
    if (shared / "complete").exists():
        os.symlink(shared, os.path.join(home, version, "root"))
    environment = {**os.environ, "ENGINE_HOME": home, "ENGINE_ALONE": "1"}
    started = subprocess.run(
        [*ENGINE, "start", version],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=600,
        check=True,
    )
    engine = RealEngine(started.stdout.decode().strip())
    python = Path(real_engine.socket).parent.parent / "python-root"
    if (python / "complete").exists():
        os.symlink(python, os.path.join(home, "python-root"))
    subprocess.run(
        [*ENGINE, "python", version, "python:latest"],
        env=environment,
        stdout=subprocess.DEVNULL,
        timeout=600,
        check=True,
    )
    for image, tag in (
        ("busybox", "alpine:latest"),
        ("busybox", "hello-world:latest"),
        ("python", "python:3.13-alpine"),
        ("python", "python:3.14-alpine"),
    ):
        engine.docker("tag", image, tag)
    yield engine
    subprocess.run([*ENGINE, "stop", version], env=environment, timeout=100, check=False)
    leave_nothing_of(home)


def leave_nothing_of(home):
    """End and unmount what an engine leaves that was stopped with containers, or that fell over."""
    wait_for(lambda: not [end(pid) for pid in processes_of(home)], "the engine's processes to end")
    mounts = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if home in line
    ]
    for mount in sorted(mounts, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(home)


def end(pid):
    """Kill a process, unless it has ended meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def processes_of(home):
    """Processes whose command line names the engine's folder, and their children (containers)."""
    parents, named = {}, set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if home.encode() in (folder / "cmdline").read_bytes():
                named.add(int(folder.name))
        except OSError:
            continue  # it has ended
    return sorted(
        named | {pid for pid, parent in parents.items() if parent in named and parent != 1},
        reverse=True,
    )


def retried(command, **more):
    """Run what asks a package server, again if it is busy."""
    for attempt in range(4):
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, **more
        )
        if run.returncode == 0:
            return
        time.sleep(0.4 * attempt)
    pytest.fail(f"{command} failed: {run.stderr[-1500:]}")


@pytest.fixture(scope="module", params=SUITES, ids=[suite[0] for suite in SUITES])
def suite(request, tmp_path_factory):
    """A suite's tests, unpacked from its source package, and the packages they need."""
    name, version, tests, packages, options, _ = request.param
    folder = tmp_path_factory.mktemp(name)
    pinned = f"{name}=={version}" if version else name
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    retried([*pip, "download", "--no-binary", name, "--no-deps", "-d", str(folder), pinned])
    retried([*pip, "install", "--target", str(folder / "packages"), *packages])
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        inside = next(member.name for member in archive).split("/")[0]
        archive.extractall(folder)
    where = folder / "suite"  # the tests alone: the client under test is the installed one
    shutil.copytree(folder / inside / "tests", where / "tests")
    return name, where, tests, options, folder


def outcomes(suite, host, label, only=()):
    """Run the suite, or some of its tests; test → passed, failed, error or skipped."""
    name, where, tests, options, folder = suite
    report = folder / f"{label}.xml"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    plain = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER")}
    environment = {
        **plain,
        "DOCKER_HOST": host,
        "PYTHONPATH": str(folder / "packages"),
        "HOME": str(home),
        "TESTCONTAINERS_RYUK_DISABLED": "true",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        "--timeout",
        "90",
        "--junitxml",
        str(report),
        *options,
    ]
    subprocess.run(
        [*command, *(only or [tests])],
        cwd=where,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    found = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case if child.tag in ("failure", "error", "skipped")}
        found[node_id(case)] = sorted(kinds)[0] if kinds else "passed"
    return found


def node_id(case):
    """How pytest is asked for this test alone."""
    parts = case.get("classname").split(".")
    module = (
        next(index for index, part in enumerate(parts) if re.search(r"^test_|_test$", part)) + 1
    )
    return "::".join(["/".join(parts[:module]) + ".py", *parts[module:], case.get("name")])


def test_a_suite_ends_through_the_proxy_as_it_does_directly(own_engine, suite, start_proxy):
    proxy = start_proxy(own_engine.socket)
    direct = outcomes(suite, own_engine.host, "direct")
    proxied = outcomes(suite, f"unix://{proxy.socket}", "proxied")
    differing = sorted(test for test in direct if direct[test] != proxied.get(test))
    for attempt in range(3):  # those that are races: their outcomes on both ways must meet
        if not differing:
            break
        again = [
            outcomes(suite, host, f"again-{attempt}-{number}", differing)
            for number, host in enumerate((own_engine.host, f"unix://{proxy.socket}"))
        ]
        differing = [
            test
            for test in differing
            if test not in again[0] or again[0][test] != again[1].get(test)
        ]
    passed = sum(outcome == "passed" for outcome in proxied.values())
    verdict = f"{'differs' if differing else 'equal'}: {passed} of {len(direct)} pass"
    MATRIX.add(f"{suite[0]} of PyPI", "its own tests", own_engine.version, verdict)
    assert len(direct) == len(proxied) and passed > 50
    assert not differing, {test: (direct[test], proxied.get(test)) for test in differing}
    assert not proxy.records("scan_error")


def test_logs_of_swarm_services_and_tasks(own_engine, start_proxy):
    """What a service and its tasks print is audited under their ids and names."""
    proxy = start_proxy(own_engine.socket)
    through = f"unix://{proxy.socket}"
    own_engine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        script = f"echo key {AWS_KEY}; sleep 1000"
        own_engine.docker(
            "service",
            "create",
            "-d",
            "--name",
            "web",
            "--network",
            "host",
            "busybox",
            "sh",
            "-c",
            script,
            host=through,
        )
        wait_for(
            lambda: AWS_KEY.encode() in own_engine.docker("service", "logs", "--raw", "web").stdout,
            "the service's log",
            60,
        )
        service = (
            own_engine.docker("service", "inspect", "-f", "{{.ID}}", "web").stdout.decode().strip()
        )
        task = (
            own_engine.docker("service", "ps", "-q", "--no-trunc", "web").stdout.decode().split()[0]
        )
        for kind, name in (("service", "web"), ("service", service), ("task", task)):
            before = len(proxy.records("finding"))
            direct, proxied = (
                own_engine.docker("service", "logs", "--raw", name, host=host)
                for host in (None, through)
            )
            MATRIX.add(
                "docker",
                f"service logs of a {kind}",
                own_engine.version,
                "equal" if direct == proxied else "differs",
            )
            assert (direct.stdout, direct.stderr) == (proxied.stdout, proxied.stderr)
            found = proxy.wait_records("finding", before + 1)[-1]
            assert (found["kind"], found["container_id"]) == (
                kind,
                task if kind == "task" else service,
            )
            assert kind == "task" or found["container_name"] == "web"
    finally:
        own_engine.docker("swarm", "leave", "--force")
