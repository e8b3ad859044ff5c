"""A container's own secrets on real engines: in its log, attach and exec, with a TTY and without.

One container has DB_PASSWORD and prints it. Another one prints the same value, which it has under
a name that says nothing: nothing is found there.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import PREFIX
from realengine import RealEngine

from conftest import ProxyProcess, wait_for

pytestmark = pytest.mark.engine
VALUE = "Qz7_kH&m=2-wP" + "+x<9Lr.v"  # of no shape that a rule knows
#: prints the value of $V in a sentence, a URL, base64 and JSON
PRINTS = r"""
say() {
  echo "could not log in with $V, giving up"
  echo "http://db/login?code=$(echo "$V" | sed 's/&/%26/; s/=/%3D/; s/+/%2B/; s/</%3C/')#x"
  printf %s "app:$V" | base64
  echo "{\"config\": \"$(echo "$V" | sed 's/&/\\u0026/; s/</\\u003c/')\"}"
  echo said
}
"""
LINES = PRINTS.count("echo") - 2  # the two others stand in substitutions


class Place:
    """An engine with a proxy before it, and two containers: with the variable, and without."""

    def __init__(self, engine: RealEngine, folder: Path, *run: str) -> None:
        self.engine, self.tty = engine, "-t" in run
        self.proxy = ProxyProcess(folder, engine.socket).ready()
        self.own, self.other = (f"{PREFIX}-{who}" for who in ("own", "other"))
        for name, variable in ((self.own, "DB_PASSWORD"), (self.other, "GREETING")):
            engine.docker(
                "run", "-d", "-i", *run, "--network", "none", "--name", name,
                "-e", f"{variable}={VALUE}", "busybox", "sh", "-c",
                f'V="${variable}"; {PRINTS} trap say USR1; say; while :; do sleep 0.1; done',
            )  # fmt: skip
            self.wait_said(name)

    def wait_said(self, name: str) -> None:
        """Wait until the container has printed all."""
        wait_for(
            lambda: b"said" in self.engine.docker("logs", name).stdout, f"{name} to print its lines"
        )

    def docker(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """The docker CLI through the proxy; what it prints."""
        host = f"unix://{self.proxy.socket}"
        return self.engine.docker(*arguments, host=host, stdin=stdin).stdout

    def attach(self, name: str) -> None:
        """Attach through the proxy, have the container print once more, and leave."""
        command = ["docker", "-H", f"unix://{self.proxy.socket}", "attach", "--no-stdin", name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
            wait_for(lambda: self.opened("attach", name), "the attach stream")
            self.engine.docker("kill", "--signal", "USR1", name)
            assert client.stdout is not None
            while b"said" not in client.stdout.readline():
                assert client.poll() is None
            client.kill()  # a signal that it could pass on would reach the container

    def opened(self, endpoint: str, name: str) -> list[dict[str, Any]]:
        """The streams of a container at an endpoint, as their `stream_open` says."""
        return [
            record
            for record in self.proxy.records("stream_open")
            if (record["endpoint"], record["container_name"]) == (endpoint, name)
        ]

    def found(self, endpoint: str, name: str) -> Counter[Any]:
        """What was found in a container's streams at an endpoint, once these are closed."""
        wait_for(lambda: self.opened(endpoint, name), "the stream to open")
        streams = {record["stream"] for record in self.opened(endpoint, name)}

        def closed() -> bool:
            return streams == streams & {
                record["stream"] for record in self.proxy.records("stream_close")
            }

        wait_for(closed, "the streams to close")
        counts: Counter[Any] = Counter()
        for record in self.proxy.records("finding"):
            if record["stream"] in streams:
                said = record["rule"], record["severity"], record.get("env"), record["stream_type"]
                counts[said] += record["count"]
        return counts

    def close(self) -> None:
        self.engine.docker("rm", "-f", self.own, self.other, check=False)
        assert self.proxy.stop() == 0


@pytest.fixture(params=[(), ("-t",)], ids=["plain", "tty"])
def place(request: pytest.FixtureRequest, real_engine: RealEngine, folder: Path) -> Iterator[Place]:
    place = Place(real_engine, folder, *request.param)
    yield place
    place.close()
    assert VALUE not in (folder / "audit.log").read_text() + place.proxy.errors.read_text()


def expected(place: Place) -> dict[Any, int]:
    """Each form once."""
    stream_type = "tty" if place.tty else "stdout"
    return {("container-env", "HIGH", "DB_PASSWORD", stream_type): LINES}


def test_a_log_is_searched_for_the_containers_own_secrets(place: Place) -> None:
    for name in (place.own, place.other):
        assert VALUE.encode() in place.docker("logs", name)
    assert place.found("logs", place.own) == expected(place)
    assert place.found("logs", place.other) == {}
    ((own,), (other,)) = (place.opened("logs", name) for name in (place.own, place.other))
    assert (own["needles"], own["needles_skipped"], other["needles"]) == (1, 0, 0)


def test_attach_is_searched_too(place: Place) -> None:
    for name in (place.own, place.other):
        place.attach(name)
    assert place.found("attach", place.own) == expected(place)
    assert place.found("attach", place.other) == {}


def test_exec_is_searched_for_the_secrets_of_its_container(place: Place) -> None:
    for name, variable in ((place.own, "DB_PASSWORD"), (place.other, "GREETING")):
        says = f'V="${variable}"; {PRINTS} say'
        terminal = ["-t"] if place.tty else []
        assert VALUE.encode() in place.docker("exec", *terminal, name, "sh", "-c", says)
    assert place.found("exec", place.own) == expected(place)
    assert place.found("exec", place.other) == {}
