"""Presets on real engines: what their clients ask for, and the clients that run here themselves."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest
from needs import need_program, skip_outside_ci
from presetrequests import CLIENT_REQUESTS, ELSE, NEVER, requests_in
from test_access import ask

from _dockeraudit.presets import PRESETS
from _dockeraudit.routes import classify
from conftest import wait_for

NAME = f"da-presets-{os.getpid()}"


@pytest.fixture
def container(real_engine):
    """A running container of a name of its own."""
    real_engine.docker(
        "run", "-d", "--network", "none", "--name", NAME, "--label", "team=a",
        "busybox", "sh", "-c", "echo started; exec sleep 300",
    )  # fmt: skip
    yield NAME
    real_engine.docker("rm", "-f", NAME)


def on_engine(target):
    """A target with the names that the tables leave open."""
    return (
        target.replace("/C", f"/{NAME}")
        .replace("/I/", "/busybox/")
        .replace("=I", "=busybox")
        .replace("/N", f"/{NAME}-none")
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_client_gets_what_it_asks_for_and_nothing_else(
    name, real_engine, container, start_proxy, folder
):
    proxy = start_proxy(real_engine.host, "--policy", f"preset:{name}")
    for method, target in requests_in(CLIENT_REQUESTS[name]):
        direct = ask(real_engine.socket, method, on_engine(target))[0]
        assert ask(proxy.socket, method, on_engine(target))[0] == direct != 403, (method, target)
    asked = {
        (method, classify(method.encode(), target.encode()).path)
        for method, target in requests_in(CLIENT_REQUESTS[name])
    }
    for method, target in requests_in(f"{NEVER}; {ELSE}"):
        if (method, target.partition("?")[0]) in asked:
            continue
        status, body = ask(proxy.socket, method, on_engine(target))
        assert status == 403 and b"dockeraudit: " in body, (method, target, status)
    state = real_engine.docker("inspect", "-f", "{{.State.Running}} {{.Name}}", NAME).stdout
    assert state == f"true /{NAME}\n".encode()


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_docker_builds_tags_and_pushes_but_runs_nothing(
    buildkit, real_engine, container, start_proxy, folder
):
    proxy = start_proxy(real_engine.host, "--policy", "preset:ci-build")
    image = f"127.0.0.1:1/{NAME}"
    (folder / "Dockerfile").write_text(f"FROM busybox\nRUN echo {NAME} > /made\n")

    def docker(*arguments, check=True):
        return real_engine.docker(
            *arguments,
            host=f"unix://{proxy.socket}",
            check=check,
            env={"DOCKER_BUILDKIT": buildkit, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
        )

    try:
        docker("build", "--network", "none", "-t", f"{image}:1", str(folder))
        docker("tag", f"{image}:1", f"{image}:2")
        assert docker("images", "-q", image).stdout.split()
        pushed = docker("push", f"{image}:2", check=False)
        assert pushed.returncode == 1 and b"refused" in pushed.stdout + pushed.stderr
        assert b"dockeraudit" not in pushed.stderr, "it was the registry that could not be reached"
        for command in (
            ("run", "--rm", f"{image}:1"),
            ("exec", container, "true"),
            ("rm", "-f", container),
            ("logs", container),
            ("cp", f"{container}:/etc/passwd", "-"),
            ("rmi", f"{image}:1"),
        ):
            run = docker(*command, check=False)
            assert run.returncode and b"no rule of access admits it" in run.stderr, command
    finally:
        real_engine.docker("rmi", "-f", f"{image}:1", f"{image}:2", check=False)


def free_port():
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@contextlib.contextmanager
def running_prometheus(folder, discovery):
    """Prometheus with one way of discovery; yields the address of its API."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        json.dumps({"scrape_configs": [{"job_name": "x", **discovery}]})
    )
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/api/v1/targets"
    finally:
        process.kill()
        process.wait()


def targets(address):
    """The labels of the targets that Prometheus has found."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return [one["discoveredLabels"] for one in json.load(answer)["data"]["activeTargets"]]
    except OSError:
        return []


def test_prometheus_finds_its_targets(real_engine, container, start_proxy, folder):
    need_program("prometheus")
    proxy = start_proxy(real_engine.host, "--policy", "preset:prometheus")
    discovery = {
        "host": f"unix://{proxy.socket}",
        "filters": [{"name": "name", "values": [NAME]}],
    }
    with running_prometheus(folder, {"docker_sd_configs": [discovery]}) as address:
        wait_for(lambda: targets(address), "a target")
        (found,) = targets(address)
    assert found["__meta_docker_container_name"] == f"/{NAME}"
    assert found["__meta_docker_container_label_team"] == "a"
    assert found["__meta_docker_network_name"] == "none"
    assert not proxy.records("denied")


#: what homepage's pages ask through dockerode, and then what they do not
HOMEPAGE = """
const docker = new (require('dockerode'))({socketPath: process.argv[2]});
(async () => {
  const listed = await docker.listContainers({all: true});
  const container = docker.getContainer(process.argv[3]);
  const info = await container.inspect();
  const stats = await container.stats({stream: false});
  const tried = await container.stop().catch((error) => error);
  console.log(JSON.stringify([
    listed.some((one) => one.Names.includes('/' + process.argv[3])),
    info.State.Status, typeof stats.memory_stats, tried.statusCode]));
})();
"""


def test_homepages_requests_pass_by_its_own_library(real_engine, container, start_proxy, folder):
    modules = os.path.join(sys.prefix, "node", "node_modules")
    if not (shutil.which("node") and os.path.isdir(os.path.join(modules, "dockerode"))):
        skip_outside_ci("node or dockerode is not installed: `make e2e` installs them (as root)")
    proxy = start_proxy(real_engine.host, "--policy", "preset:homepage")
    (folder / "homepage.js").write_text(HOMEPAGE)
    run = subprocess.run(
        ["node", str(folder / "homepage.js"), proxy.socket, NAME],
        env={**os.environ, "NODE_PATH": modules},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert json.loads(run.stdout or "0") == [True, "running", "object", 403], run.stderr


def test_netdata_names_containers(real_engine, container, start_proxy, folder):
    script = shutil.which("cgroup-name.sh")
    if script is None:
        skip_outside_ci("netdata's cgroup-name.sh is missing: `make e2e` unpacks it (as root)")
    need_program("docker")  # which it calls where there is one
    proxy = start_proxy(real_engine.host, "--policy", "preset:netdata")
    full_id = real_engine.docker("inspect", "-f", "{{.Id}}", NAME).stdout.decode().strip()
    run = subprocess.run(
        ["bash", script, f"/docker/{full_id}", f"docker_{full_id}"],
        env={"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{proxy.socket}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout.split()[:1]) == (0, [NAME]), run.stderr
    assert not proxy.records("denied")
