#!/usr/bin/env python3
"""What the audit of answers costs: `python3 bench/answers.py [ENGINE'S SOCKET]`.

It makes containers on the engine, which it removes again, and asks for one's inspect and for the
list of all, directly and through two proxies: with answers scanned, and with `--answers off`. In a
round each way is measured once, one after another. A figure is the median of the rounds' medians.
Of a request that asks for something new each time, the answer has to be scanned; one that is
repeated is met again by its hash.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "dockeraudit.py"
CONTAINERS = 100
LABELS = {f"com.example.some.label.{n}": f"a value of some length {n}" for n in range(24)}
ROUNDS = 5
NAME = f"da-bench-{os.getpid()}"
DEADLINE = 30.0  # seconds for a proxy to listen


class Proxy:
    """A proxy in front of the engine."""

    def __init__(self, folder: Path, engine: str, answers: str) -> None:
        folder.mkdir()
        self.socket = str(folder / "proxy.sock")
        self.log = folder / "audit.log"
        command = [sys.executable, str(PROGRAM), "--listen", f"unix://{self.socket}"]
        command += ["--upstream", engine, "--audit-log", str(self.log), "--answers", answers]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE
        while not os.path.exists(self.socket):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit("bench: the proxy does not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, and wait for that."""
        self.process.terminate()
        self.process.wait(DEADLINE)


class Client:
    """One connection, kept open."""

    def __init__(self, path: str) -> None:
        self._connection = http.client.HTTPConnection("docker")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(path)

    def ask(self, method: str, target: str, body: object = None) -> bytes:
        """One request; the answer's body."""
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, target, payload, {"Content-Type": "application/json"})
        return self._connection.getresponse().read()

    def close(self) -> None:
        """The end."""
        self._connection.close()


def made(client: Client) -> Iterator[str]:
    """The ids of new containers; one variable of each is a secret."""
    for number in range(CONTAINERS):
        env = [f"DB_PASSWORD=correct-horse-{number}", f"APP_SECRET=battery-staple-{number}"]
        body = {"Image": "busybox", "Cmd": ["true"], "Labels": LABELS, "Env": env}
        answer = client.ask("POST", f"/containers/create?name={NAME}-{number}", body)
        yield json.loads(answer)["Id"]


def seconds_of(path: str, targets: list[str]) -> float:
    """The median of what these requests take, one after another."""
    client, taken = Client(path), []
    for target in targets:
        begun = time.perf_counter()
        client.ask("GET", target)
        taken.append(time.perf_counter() - begun)
    client.close()
    return statistics.median(taken)


def measure(ways: dict[str, str], targets: Callable[[int], list[str]]) -> dict[str, float]:
    """The median of the rounds for each way."""
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name, path in ways.items():
            rounds[name].append(seconds_of(path, targets(number)))
    return {name: statistics.median(found) for name, found in rounds.items()}


def main() -> None:
    """Measure, print, and leave nothing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", nargs="?", default="/var/run/docker.sock")
    engine = parser.parse_args().engine
    folder, proxies, ids = Path(tempfile.mkdtemp(prefix="da-bench-")), [], []
    direct = Client(engine)
    try:
        ids.extend(made(direct))
        for answers in ("off", "on"):
            proxies.append(Proxy(folder / answers, engine, answers))
        ways = {"direct": engine, "off": proxies[0].socket, "on": proxies[1].socket}
        filters = urllib.parse.quote(json.dumps({"label": list(LABELS)[:1]}))
        listed = f"/containers/json?all=1&filters={filters}"
        each = [f"/containers/{container}/json" for container in ids]
        size = len(direct.ask("GET", each[0])), len(direct.ask("GET", listed))
        cases = {
            f"inspect, {size[0]} bytes, new": lambda n: each[20 * n : 20 * n + 20],
            f"inspect, {size[0]} bytes, repeated": lambda n: each[:1] * 100,
            f"list, {size[1]} bytes, repeated": lambda n: [listed] * 20,
        }
        print(f"{'':34}{'direct':>9}{'off':>9}{'on':>9}   on/off")
        for name, targets in cases.items():
            found = measure(ways, targets)
            times = "".join(f"{found[way] * 1e6:7.0f}us" for way in ways)
            print(f"{name:34}{times}   {found['on'] / found['off']:.2f}")
    finally:
        for proxy in proxies:
            proxy.stop()
        cleaner = Client(engine)
        for container in ids:
            cleaner.ask("DELETE", f"/containers/{container}?force=1")
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
