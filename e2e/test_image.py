"""The Dockerfile and the Compose file, built and run on a real engine.

A client outside reads another container's log through the proxy in the image.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from clients import PREFIX

from conftest import ENGINE_HOSTS, ROOT, wait_for

pytestmark = pytest.mark.engine
NAME = PREFIX + "-image"
AWS_KEY = "AK" + "IA" + "IOSFODNN7EXAMPLE"

#: replaces the image's name and the port of docker-compose.yml, which may be in use
OVERRIDE = """
services:
  dockeraudit:
    image: {name}
    ports: !override ["127.0.0.1:{port}:2375"]
"""

#: the port is published on a bridge network, which engine 20 of e2e/engine does not have
WITH_BRIDGE = [host for host in ENGINE_HOSTS if "/20/" not in host] or [None]


class Composed:
    """The Compose project with the image on an engine."""

    def __init__(self, engine, folder):
        self.engine = engine
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.host = f"tcp://127.0.0.1:{self.port}"
        self.override = folder / "override.yml"
        self.override.write_text(OVERRIDE.format(name=NAME, port=self.port))
        group = str(os.stat(engine.socket).st_gid)
        self.variables = {
            "BASE": NAME + "-base",
            "DOCKER_GID": group,
            "DOCKER_SOCKET": engine.socket,
        }

    def compose(self, *arguments):
        files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(self.override))
        return self.engine.docker(
            "compose", "-p", NAME, *files, *arguments, env=self.variables, timeout=110
        ).stdout.decode()

    def inside(self, *command):
        """The output of a command in the proxy's container."""
        return self.compose("exec", "-T", "dockeraudit", *command)

    def records(self):
        text = self.inside("cat", "/var/log/dockeraudit/audit.log")
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def container(self):
        return self.compose("ps", "-aq", "dockeraudit").strip()


@pytest.fixture(scope="module")
def base(real_engine):
    """A base image with python3 from Debian's packages, which needs no public registry."""
    home = Path(real_engine.socket).parent.parent
    command = ["bash", str(ROOT / "e2e" / "engine"), "python", "28", NAME + "-base"]
    made = subprocess.run(
        command,
        env={**os.environ, "ENGINE_HOME": str(home)},
        capture_output=True,
        timeout=400,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    yield NAME + "-base"
    real_engine.docker("rmi", NAME + "-base")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("real_engine", WITH_BRIDGE, indirect=True, scope="session", ids=str)
def test_the_image_audits_as_an_unprivileged_user(real_engine, base, folder):
    composed = Composed(real_engine, folder)
    logging = NAME + "-logging"
    try:
        composed.compose("up", "--detach", "--build", "--quiet-pull")
        container = composed.container
        wait_for(
            lambda: (
                real_engine.docker("inspect", "-f", "{{.State.Health.Status}}", container).stdout
                == b"healthy\n"
            ),
            "the health check",
            60,
        )
        real_engine.docker(
            "run",
            "-d",
            "--name",
            logging,
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            f"echo key {AWS_KEY}; echo err >&2; sleep 1000",
        )
        wait_for(
            lambda: AWS_KEY.encode() in real_engine.docker("logs", logging).stdout,
            "the line in the log",
        )

        direct, through = (
            real_engine.docker("logs", logging),
            real_engine.docker("logs", logging, host=composed.host),
        )
        assert (through.stdout, through.stderr) == (direct.stdout, direct.stderr)
        finding = wait_for(
            lambda: [record for record in composed.records() if record["event"] == "finding"],
            "the finding",
        )[0]
        assert (finding["container_name"], finding["redacted_match"], finding["stream_type"]) == (
            logging,
            "AK***LE",
            "stdout",
        )
        assert AWS_KEY not in json.dumps(composed.records())

        in_the_volume = real_engine.docker(
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{NAME}_log:/log",
            "busybox",
            "ls",
            "-ln",
            "/log",
        ).stdout.decode()
        assert [
            line.split()[:4:2] for line in in_the_volume.splitlines() if line.endswith(" audit.log")
        ] == [["-rw-------", "65534"]]
        status = dict(
            line.split(":\t")
            for line in composed.inside("cat", "/proc/1/status").splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (
            0,
            0,
            "1",
        )
        assert "Read-only" in composed.inside(
            "sh", "-c", "touch /opt/dockeraudit/x 2>&1 || touch /tmp/x 2>&1 || true"
        )
        assert real_engine.docker("port", container).stdout.decode().split() == [
            "2375/tcp",
            "->",
            f"127.0.0.1:{composed.port}",
        ]
        composed.inside("dockeraudit", "verify", "/var/log/dockeraudit/audit.log")  # exits with 0

        composed.compose("stop")
        assert (
            real_engine.docker("inspect", "-f", "{{.State.ExitCode}}", container).stdout == b"0\n"
        )
    finally:
        composed.compose("down", "--volumes", "--timeout", "1")
        real_engine.docker("rm", "-f", logging)
        real_engine.docker("rmi", "-f", NAME)
