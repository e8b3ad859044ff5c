"""The docker CLI on a real engine that is reached over TCP, and over TLS with certificates."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from authority import Authority
from clients import Terminal
from forwarder import Forwarder
from needs import skip_outside_ci
from test_suites import leave_nothing_of
from wire import free_port

from conftest import PROGRAM, ProxyProcess, RealEngine, wait_for

NAME = f"da-remote-{os.getpid()}"
SECRET = "AK" + "IA" + "Q3EGRZ7XW4KTPL2M"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """An authority with a server's and a client's certificate."""
    return Authority(tmp_path_factory.mktemp("ca"), "ca").with_docker()


@contextlib.contextmanager
def running_dockerd(real_engine, authority):
    """An engine of the same version that itself listens with TLS: (RealEngine, address)."""
    root = Path(real_engine.socket).parent / "root" / "usr"
    root = root if (root / "sbin" / "dockerd").exists() else Path("/usr")
    home = Path(tempfile.mkdtemp(prefix="da-tls-", dir="/var/tmp"))
    url = f"tcp://127.0.0.1:{free_port()}"
    tls = ("--tlscacert", authority.certificate, "--tlscert", authority.server[0])
    where = ("--data-root", "data", "--exec-root", "exec", "--pidfile", "pid")
    command = [root / "sbin" / "dockerd", "-H", f"unix://{home}/docker.sock", "-H", url]
    command += ["--tlsverify", *tls, "--tlskey", authority.server[1], "--iptables=false"]
    command += ["--bridge=none", *(str(home / one) if one[0] != "-" else one for one in where)]
    path = f"{root}/bin:{root}/sbin:{os.environ['PATH']}"
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PATH": path}
        )
    try:
        wait_for((home / "docker.sock").exists, "the engine's socket")
        engine = RealEngine(f"unix://{home}/docker.sock")
        engine.docker("load", stdin=real_engine.docker("save", "busybox").stdout)
        yield engine, url
    finally:
        process.terminate()
        process.wait(60)
        leave_nothing_of(str(home))


@pytest.fixture(scope="module", params=["tcp", "tls", "dockerd --tlsverify"])
def remote(request, real_engine, authority):
    """(engine, its address, options): forwarded to, or listening with TLS itself."""
    options = ("--upstream-tls", str(authority.docker))
    if request.param.startswith("dockerd"):
        if os.geteuid() != 0:
            skip_outside_ci("it needs root: it starts an engine")
        with running_dockerd(real_engine, authority) as (engine, url):
            yield engine, url, options
        return
    context = authority.server_context() if request.param == "tls" else None
    with Forwarder(real_engine.socket, context) as forwarder:
        yield real_engine, forwarder.url, options if context else ()


@pytest.fixture(scope="module")
def engine(remote):
    """The engine, reached by its socket."""
    return remote[0]


@pytest.fixture(scope="module")
def proxy(remote):
    """dockeraudit before an engine that TCP leads to."""
    _, url, options = remote
    folder = Path(tempfile.mkdtemp(prefix="da-"))
    started = ProxyProcess(folder, url, *options).ready()
    yield started
    status = started.stop()
    errors = started.errors.read_text()
    shutil.rmtree(folder)
    assert status == 0 and "defect" not in errors, errors


@pytest.fixture(scope="module")
def container(engine, proxy):
    """A running container that prints a secret, and has a name of its own."""
    script = f"echo key={SECRET}; echo ready; exec sleep 600"
    engine.docker("run", "-d", "--network", "none", "--name", NAME, "busybox", "sh", "-c", script)
    yield NAME
    engine.docker("rm", "-f", NAME)


@pytest.fixture
def shell(proxy, container, folder):
    """A function that runs a script whose docker reaches the engine through the proxy."""

    def run(script, buildkit="0"):
        return subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=90,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                "DOCKER_HOST": f"unix://{proxy.socket}",
                "DOCKER_BUILDKIT": buildkit,
                "NAME": container,
                "WORK": str(folder),
            },
            check=False,
        )

    return run


#: a script, its exit status and the end of what it prints
SCRIPTS = {
    "run": ("docker run --rm --network none busybox sh -c 'echo out; exit 3'", 3, "out\n"),
    "run -i, half-closed": (
        "echo ok | docker run -i --rm --network none busybox cat",
        0,
        "ok\n",
    ),
    "logs": ("docker logs $NAME | tail -1", 0, "ready\n"),
    "logs -f": ("timeout -s INT 2 docker logs -f $NAME | tail -1", 0, "ready\n"),
    "exec": ("docker exec $NAME echo in", 0, "in\n"),
    "exec -i, 20 MB in": (
        "head -c 20000000 /dev/zero | docker exec -i $NAME wc -c",
        0,
        "20000000\n",
    ),
    "exec, 20 MB out": ("docker exec $NAME head -c 20000000 /dev/zero | wc -c", 0, "20000000\n"),
    "exec -i, 20 MB there and back": (
        "head -c 20000000 /dev/zero | docker exec -i $NAME cat | wc -c",
        0,
        "20000000\n",
    ),
    "cp there and back": (
        "head -c 9000000 /dev/urandom > $WORK/big && docker cp $WORK/big $NAME:/big 2>/dev/null && "
        "docker cp $NAME:/big $WORK/back 2>/dev/null && cmp $WORK/big $WORK/back && echo same",
        0,
        "same\n",
    ),
    "events": (
        "docker events --since 1h --until 0s --filter container=$NAME "
        "--filter event=start --format '{{.Action}}'",
        0,
        "start\n",
    ),
    "stats": ("docker stats --no-stream --format '{{.Name}}' $NAME", 0, NAME + "\n"),
    "build": (
        "printf 'FROM busybox\\nRUN echo built > /b\\n' > $WORK/Dockerfile; "
        "head -c 5000000 /dev/urandom > $WORK/context; "
        "docker build -q --network none -t $NAME-image $WORK >/dev/null && "
        "docker run --rm --network none $NAME-image cat /b; docker rmi -f $NAME-image >/dev/null",
        0,
        "built\n",
    ),
    "save": ("docker save busybox | tar -t | grep -c manifest.json", 0, "1\n"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_works_on_a_remote_engine(name, shell):
    script, status, end = SCRIPTS[name]
    run = shell(script)
    assert (run.returncode, run.stdout[-len(end) :]) == (status, end), run


def test_buildkit_works_on_a_remote_engine(shell, engine):
    if engine.version.startswith("20."):
        pytest.skip("buildx asks engines from 23 on for their own BuildKit")
    script, status, end = SCRIPTS["build"]
    run = shell(script, buildkit="1")
    assert (run.returncode, run.stdout[-len(end) :]) == (status, end), run


def test_exec_in_a_terminal_takes_what_is_typed(proxy, container):
    environment = {**os.environ, "DOCKER_HOST": f"unix://{proxy.socket}"}
    with Terminal(["docker", "exec", "-it", container, "sh"], environment) as terminal:
        terminal.expect(b"#")
        terminal.type(b"echo $((6 * 7))\n")
        terminal.expect(b"42")
        terminal.type(b"exit 5\n")
        assert terminal.end()[0] == 5


def test_attach_takes_what_is_typed_and_ends_with_the_container(proxy, container, engine):
    name = f"{NAME}-attach"
    script = "read line; echo got $line; exit 4"
    engine.docker("run", "-di", "--network", "none", "--name", name, "busybox", "sh", "-c", script)
    try:
        with subprocess.Popen(
            ["docker", "attach", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "DOCKER_HOST": f"unix://{proxy.socket}"},
        ) as attach:
            assert attach.stdin is not None and attach.stdout is not None
            attach.stdin.write(b"typed\n")
            attach.stdin.flush()
            assert attach.stdout.readline() == b"got typed\n"
            assert attach.wait(30) == 4
    finally:
        engine.docker("rm", "-f", name)


def test_a_followed_log_is_live_and_its_secret_recorded(proxy, container, engine):
    command = ["docker", "logs", "-f", container]
    environment = {**os.environ, "DOCKER_HOST": f"unix://{proxy.socket}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as follower:
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(2)][1] == b"ready\n"
        engine.docker("exec", container, "sh", "-c", "echo later > /proc/1/fd/1")
        assert follower.stdout.readline() == b"later\n"
        follower.send_signal(signal.SIGINT)
    full_id = engine.docker("inspect", "-f", "{{.Id}}", container).stdout.decode().strip()
    finding = proxy.wait_records("finding")[0]
    assert (finding["container_id"], finding["container_name"]) == (full_id, container)
    assert SECRET not in proxy.log.read_text()


def test_scan_reads_the_logs_of_a_remote_engine(remote, container, folder):
    _, url, options = remote
    run = subprocess.run(
        [sys.executable, PROGRAM, "scan", "--containers", container, "--upstream", url, *options],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
    )
    assert (run.returncode, SECRET in run.stdout) == (1, False), run.stderr
    assert "AWS" in run.stdout and container in run.stdout


def test_the_engine_is_named_at_the_start(proxy, engine):
    wait_for(lambda: f"is Docker {engine.version}" in proxy.errors.read_text(), "the engine's name")
