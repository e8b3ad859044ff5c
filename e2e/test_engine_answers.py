"""Secrets in answers and bodies of real engines: found in each channel, by what the CLI asks.

A secret is told from others by its fingerprint, under the key that the proxy has made.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from ownengine import own_swarm

from _dockeraudit.records import Fingerprinter
from conftest import ProxyProcess, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.root, pytest.mark.timeout(300)]
NAME = f"da-answers-{os.getpid()}"
CLASSIC = {"DOCKER_BUILDKIT": "0"}


class Place:
    """An engine with its proxy; everything that a test makes there is removed."""

    def __init__(self, engine, folder):
        self.engine = engine
        self.proxy = ProxyProcess(folder, engine.socket).ready()
        self.host = f"unix://{self.proxy.socket}"
        self._random = random.Random(f"{NAME} {engine}")
        self._made = []
        self._fingerprints = Fingerprinter((folder / ".audit.log.key").read_bytes())

    def secret(self):
        """A key that nobody has seen."""
        return "AK" + "IA" + "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))

    def docker(self, *arguments, **options):
        """The CLI through the proxy."""
        return self.engine.docker(*arguments, host=self.host, **options)

    def run(self, *arguments):
        """A container through the proxy; its full id."""
        done = self.docker("run", "-d", "--network", "none", "--init", *arguments)
        container = done.stdout.decode().strip()
        self._made.append(("rm", "-f", container))
        return container

    def later(self, *arguments):
        """Run this command at the end."""
        self._made.append(arguments)

    def api(self, method, target, body=None):
        """One request through the proxy; status and body of the answer."""
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(self.proxy.socket)
        payload = None if body is None else json.dumps(body)
        kind = {"Content-Type": "application/json"}
        connection.request(method, f"/v{self.engine.api}{target}", payload, kind)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def seen(self, secret, endpoint, stream_type="answer"):
        """The first record of a secret at an endpoint."""
        mark = self._fingerprints.of(secret.encode())

        def records():
            return [
                record
                for record in self.proxy.records("finding")
                if (record["fingerprint"], record["endpoint"], record["stream_type"])
                == (mark, endpoint, stream_type)
            ]

        wait_for(records, f"a secret in {endpoint}, {stream_type}")
        assert records()[0]["stream"] is None
        assert secret not in self.proxy.log.read_text() + self.proxy.errors.read_text()
        return records()[0]

    def leave(self):
        for command in reversed(self._made):
            self.engine.docker(*command, check=False)
        self._made.clear()


@pytest.fixture(scope="module")
def shared_place(real_engine):
    folder = Path(tempfile.mkdtemp(prefix="da-"))
    place = Place(real_engine, folder)
    yield place
    place.proxy.stop()
    shutil.rmtree(folder)


@pytest.fixture
def place(shared_place):
    yield shared_place
    shared_place.leave()


def test_a_secret_in_a_containers_environment(place):
    secret = place.secret()
    name = f"{NAME}-env"
    container = place.run("--name", name, "-e", f"SOME_KEY={secret}", "busybox", "sleep", "1000")
    body = place.seen(secret, "create", "body")
    assert (body["container_id"], body["container_name"]) == (container, name)
    direct = place.engine.docker("inspect", name)
    assert place.docker("inspect", name).stdout == direct.stdout
    record = place.seen(secret, "inspect")
    assert (record["container_id"], record["container_name"]) == (container, name)
    assert record["client"]["command"] == "docker" and record["severity"] == "HIGH"


def test_a_containers_own_secret_of_no_known_shape(place):
    secret = "correct horse " + place.secret()[4:].lower()
    container = place.run("-e", f"DB_PASSWORD={secret}", "busybox", "sleep", "1000")
    assert place.seen(secret, "create", "body")["env"] == "DB_PASSWORD"
    place.docker("inspect", container)
    record = place.seen(secret, "inspect")
    assert (record["env"], record["container_id"]) == ("DB_PASSWORD", container)


def test_a_secret_in_the_output_of_a_health_check(place):
    secret = place.secret()
    quoted = f"{secret[:9]}''{secret[9:]}"  # whole in the output alone
    check = ("--health-cmd", f"echo {quoted}", "--health-interval", "1s")
    container = place.run(*check, "busybox", "sleep", "1000")

    def output():
        return secret.encode() in place.docker("inspect", container).stdout

    wait_for(output, "the health check", 60)
    assert place.seen(secret, "inspect")["container_id"] == container


def test_a_secret_in_an_exec(place):
    secret = place.secret()
    container = place.run("--name", f"{NAME}-exec", "busybox", "sleep", "1000")
    place.docker("exec", container, "echo", secret)
    assert place.seen(secret, "create", "body")["container_id"] == container
    status, data = place.api("POST", f"/containers/{container}/exec", {"Cmd": ["echo", secret]})
    assert status == 201
    place.api("GET", f"/exec/{json.loads(data)['Id']}/json")
    record = place.seen(secret, "inspect")
    assert (record["container_id"], record["container_name"]) == (container, f"{NAME}-exec")


def test_a_password_among_a_processes_arguments(place):
    secret = place.secret()
    container = place.run("busybox", "sh", "-c", f"sleep 1000; echo --password {secret}")
    place.docker("top", container)
    assert place.seen(secret, "top")["container_id"] == container


def test_a_secret_in_lists_that_are_polled(place):
    secret = place.secret()
    place.run("--label", f"key={secret}", "busybox", "sleep", "1000")
    for _ in range(5):
        place.docker("ps")
    record = place.seen(secret, "list")
    assert record["container_id"] is None and record["count"] == 1
    listed = [each for each in place.proxy.records("finding") if each["endpoint"] == "list"]
    assert [each["fingerprint"] for each in listed].count(record["fingerprint"]) == 1


def test_a_secret_in_events(place):
    secret = place.secret()
    container = place.run("busybox", "sleep", "1000")
    events = subprocess.Popen(
        ["docker", "events", "--since", "1m", "--filter", f"container={container}"],
        env={**os.environ, "DOCKER_HOST": place.host},
        stdout=subprocess.PIPE,
    )
    try:
        place.engine.docker("exec", container, "echo", secret)
        while secret.encode() not in events.stdout.readline():
            assert events.poll() is None
        assert place.seen(secret, "events")["container_id"] is None
    finally:
        events.terminate()
        events.wait(30)
        events.stdout.close()


def test_secrets_of_an_image_from_its_build_to_its_history(place, tmp_path):
    argument, printed, kept = place.secret(), place.secret(), place.secret()
    quoted = f"{printed[:9]}''{printed[9:]}"  # whole in the output alone
    text = f"FROM busybox\nENV SOME_KEY={kept}\nARG THE_KEY\nRUN echo {quoted}; echo $THE_KEY\n"
    (tmp_path / "Dockerfile").write_text(text)
    image = f"{NAME}:1"
    place.later("rmi", "-f", image)
    build = ("build", "--network", "none", "--build-arg", f"THE_KEY={argument}", "-t", image)
    done = place.docker(*build, str(tmp_path), env=CLASSIC)
    assert printed.encode() in done.stdout
    place.seen(printed, "build")
    place.seen(argument, "build")
    place.seen(argument, "build", "body")
    place.docker("history", "--no-trunc", image)
    for secret in (argument, kept):
        record = place.seen(secret, "history")
        assert (record["kind"], record["container_id"]) == ("image", image)
    place.docker("image", "inspect", image)
    record = place.seen(kept, "inspect")
    assert record["container_id"].startswith("sha256:") and record["container_name"] == image


def test_a_secret_in_a_volume(place):
    secret = place.secret()
    volume = f"{NAME}-volume"
    place.later("volume", "rm", "-f", volume)
    place.docker("volume", "create", "--label", f"key={secret}", volume)
    place.docker("volume", "inspect", volume)
    place.docker("volume", "ls")
    place.seen(secret, "create", "body")
    place.seen(secret, "list")
    record = place.seen(secret, "inspect")
    assert (record["kind"], record["container_id"]) == ("volume", volume)


def test_a_secret_in_an_error_message(place):
    secret = place.secret()
    body = {"Image": "busybox", "HostConfig": {"Binds": [f"{secret}:relative"]}}
    status, data = place.api("POST", "/containers/create", body)
    assert status >= 400 and secret.encode() in data
    place.seen(secret, "create")


def test_a_secret_in_an_update(place):
    secret = place.secret()
    container = place.run("busybox", "sleep", "1000")
    place.api("POST", f"/containers/{container}/update", {"CpuShares": 512, "Note": secret})
    assert place.seen(secret, "update", "body")["container_id"] == container


# =================================================================================================
# a swarm
# =================================================================================================


@pytest.fixture(scope="module")
def swarm(real_engine):
    """An engine for these tests alone, with its proxy."""
    with own_swarm(real_engine) as engine:
        folder = Path(tempfile.mkdtemp(prefix="da-"))
        place = Place(engine, folder)
        yield place
        place.proxy.stop()
        shutil.rmtree(folder)


@pytest.mark.full
def test_secrets_in_services_and_their_tasks(swarm):
    secret = swarm.secret()
    service = ("service", "create", "-d", "--name", "web", "--network", "host")
    swarm.docker(*service, "-e", f"SOME_KEY={secret}", "busybox", "sleep", "1000")
    swarm.seen(secret, "create", "body")
    swarm.docker("service", "inspect", "web")
    record = swarm.seen(secret, "inspect")
    assert (record["kind"], record["container_name"]) == ("service", "web")
    swarm.docker("service", "ls")
    swarm.seen(secret, "list")

    def tasks():
        return json.loads(swarm.api("GET", "/tasks")[1])

    wait_for(tasks, "a task", 60)
    swarm.api("GET", f"/tasks/{tasks()[0]['ID']}")

    def kinds():
        return [record.get("kind") for record in swarm.proxy.records("finding")]

    wait_for(lambda: "task" in kinds(), "a secret in a task")
    more = swarm.secret()
    swarm.docker("service", "update", "-d", "--env-add", f"MORE={more}", "web")
    record = swarm.seen(more, "update", "body")
    assert record["kind"] == "service"


@pytest.mark.full
def test_data_of_configs_and_secrets_is_decoded(swarm):
    configured, secret = swarm.secret(), swarm.secret()
    for kind, data in (("config", configured), ("secret", secret)):
        swarm.docker(kind, "create", f"some-{kind}", "-", stdin=f"user=x\nkey {data}\n".encode())
        assert swarm.seen(data, "create", "body")["kind"] == kind
    swarm.docker("config", "inspect", "some-config")
    record = swarm.seen(configured, "inspect")
    assert (record["kind"], record["container_name"]) == ("config", "some-config")
    swarm.docker("config", "ls")
    swarm.seen(configured, "list")
