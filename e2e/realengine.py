"""A Docker Engine that runs here, and the docker CLI against it."""

from __future__ import annotations

import os
import subprocess

#: DOCKER_HOST values of the engines that `make e2e` starts
ENGINE_HOSTS = os.environ.get("DOCKERAUDIT_ENGINES", "").split()


class RealEngine:
    """`docker` runs the CLI against the engine, or against `host`, which is mostly the proxy."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.socket = host[len("unix://") :]
        said = self.docker("version", "--format", "{{.Server.Version}} {{.Server.APIVersion}}")
        self.version, self.api = said.stdout.decode().split()

    def docker(
        self,
        *arguments: str,
        host: str | None = None,
        check: bool = True,
        env: dict[str, str] | None = None,
        timeout: float = 90,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """One run of the docker CLI; its outputs are bytes."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER")}
        run = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env={**plain, "DOCKER_HOST": host or self.host, **(env or {})},
            check=False,
        )
        assert not check or run.returncode == 0, (arguments, run.returncode, run.stdout, run.stderr)
        return run

    def __repr__(self) -> str:
        return self.version
