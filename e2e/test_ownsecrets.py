"""A container's own secrets on real engines: in its log, attach and exec, with a TTY and without.

One container has DB_PASSWORD and prints it. Another one prints the same value, which it has under
no name: nothing is found there.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import PREFIX
from realengine import RealEngine

from conftest import ProxyProcess, wait_for

pytestmark = pytest.mark.engine
VALUE = "Qz7 kH&m=2:wP" + "!x<9Lr/v"  # of no shape that a rule knows
#: prints the value of $V in a sentence, a URL, base64 and JSON
PRINTS = r"""
say() {
  echo "could not log in with $V, giving up"
  echo "connecting to http://db/login?user=app&code=$(echo "$V" | sed 's/ /%20/; s/&/%26/; s/=/%3D/; s/:/%3A/; s/!/%21/; s/</%3C/; s#/#%2F#')"
  printf %s "app:$V" | base64
  echo "{\"config\": \"$(echo "$V" | sed 's/&/\\u0026/; s/</\\u003c/')\"}"
}
"""
FORMS = 4


class Place:
    """An engine with a proxy before it, and two containers: with the variable, and without."""

    def __init__(self, engine: RealEngine, folder: Path, *run: str) -> None:
        self.engine = engine
        self.proxy = ProxyProcess(folder, engine.socket)
        self.own, self.other = (f"{PREFIX}-{who}" for who in ("own", "other"))
        once = PRINTS + "say; while read line; do say; done; sleep 600"
        for name, variable in ((self.own, "DB_PASSWORD"), (self.other, "GREETING")):
            engine.docker(
                "run", "-d", "-i", *run, "--network", "none", "--name", name,
                "-e", f"{variable}={VALUE}", "busybox", "sh", "-c", f'V="${variable}"; {once}',
            )  # fmt: skip

    def docker(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """The docker CLI through the proxy."""
        done = self.engine.docker(*arguments, host=self.proxy.url, stdin=stdin, check=False)
        return done.stdout + done.stderr

    def records(self) -> list[dict[str, Any]]:
        """What the log holds after all streams have ended."""
        return [json.loads(line) for line in Path(self.proxy.log).read_text().splitlines()]

    def of(self, container: str, endpoint: str) -> Counter[Any]:
        """How often which rule has found what of a container's own, at an endpoint."""
        counts: Counter[Any] = Counter()
        for record in self.records():
            if record["event"] != "finding" or record["container_name"] != container:
                continue
            if record["endpoint"] == endpoint and "env" in record:
                counts[record["env"], record["severity"]] += record["count"]
        return counts

    def close(self) -> None:
        self.engine.docker("rm", "-f", self.own, self.other, check=False)
        self.proxy.stop()
