"""Real clients through a masking listener: what they show is the same but for the asterisks.

Each case runs directly and through the mask, and shows the same planted secrets on both ways. What
a client prints, its exit code, and what an SDK returns must be equal but for bytes that became
asterisks, and no six bytes of a secret may be left. In the long form the whole matrix of
`test_clients.py` runs through a masking listener, too; it shows no secrets, so all of it is equal.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from clients import LIMIT, MATRIX, PREFIX, Terminal, Way, docker_clis
from needs import need_module
from planted import same_but_for_asterisks, shown_windows, text_of
from product import PROGRAM
from test_clients import (
    COMPOSE,
    COMPOSE_FILE,
    DOCKER_PY,
    SCRIPTS,
    plugin_version,
    py_client,
    run_script,
    sweep,
)

from conftest import ProxyProcess, RealEngine, wait_for

pytestmark = pytest.mark.engine
CLIS = docker_clis()
LINES = 120
DATA = 3_500_000  # random bytes; in many more of them something looks like a password
OWN = "winter-otter" + "-57-lantern"
PASSED = "export,archive,get,tunnel"

#: name, and script. $TEXT is a file with secrets; $SHARED is a container that has written it, whose
#: DB_PASSWORD is $OWN.
CLI_CASES = [
    (
        "logs",
        """
        docker logs $SHARED
        docker logs -t --details $SHARED
        docker logs --tail 2 $SHARED
        """,
    ),
    (
        "logs -f",
        """
        docker run -d --name $NAME --network none -e DB_PASSWORD=$OWN -v $TEXT:/text busybox \
            sh -c 'cat /text; sleep 0.2; cat /text'
        docker logs -f $NAME
        docker rm $NAME
        """,
    ),
    (
        "run, both outputs, exit code",
        """
        own='--network none -e DB_PASSWORD='$OWN
        docker run --rm $own -v $TEXT:/text busybox sh -c 'cat /text >&2; exit 3'
        echo $?
        docker run -i --rm $own busybox cat < $TEXT
        """,
    ),
    (
        "run -t, exec -t",
        """
        docker run --rm -t --network none -e DB_PASSWORD=$OWN -v $TEXT:/text busybox cat /text
        docker exec -t $SHARED cat /text
        """,
    ),
    (
        "exec",
        """
        docker exec $SHARED sh -c 'cat /text; echo $DB_PASSWORD >&2; exit 7'
        echo $?
        docker exec -i $SHARED cat < $TEXT
        docker exec $SHARED env
        """,
    ),
    (
        "create, start -a -i",
        """
        docker create -i --name $NAME --network none -e DB_PASSWORD=$OWN busybox cat
        docker start -a -i $NAME < $TEXT
        docker rm $NAME
        """,
    ),
    (
        "inspect, ps, top",
        """
        docker inspect $SHARED
        docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' $SHARED
        docker ps --no-trunc --filter name=$SHARED --format '{{.Command}} {{.Labels}}'
        docker top $SHARED -o pid,args
        """,
    ),
    (
        "events",
        """
        t=$(date +%s)
        docker run --rm --name $NAME --network none -l db_password=$OWN busybox true
        until=$(($(date +%s) + 2))
        docker events --since $t --until $until --filter container=$NAME --format '{{json .Actor}}'
        """,
    ),
    (
        "curl",
        """
        api GET "/containers/$SHARED/logs?stdout=1&stderr=1&timestamps=1"
        api GET "/containers/$SHARED/json"
        """,
    ),
]
MASKED_COMPOSE_FILE = """
services:
  web:
    image: busybox
    network_mode: none
    stop_signal: SIGKILL
    environment: [DB_PASSWORD]
    volumes: ["$TEXT:/text"]
    command: [sh, -c, "cat /text; exec sleep 1000"]
"""
COMPOSE_SCRIPT = """
        sed "s#\\$TEXT#$TEXT#" $MASKED_FILE > $WORK/compose.yml
        export DB_PASSWORD=$OWN
        c="docker compose -p $NAME -f $WORK/compose.yml"
        $c --progress quiet up -d
        until $c logs --no-color web | grep -q END-OF-TEXT; do sleep 0.1; done
        $c logs --no-color web
        $c exec -T web sh -c 'echo login $DB_PASSWORD; cat /text'
        $c run --rm -T web cat /text
        $c --progress quiet down -t 0
"""


class Planted(NamedTuple):
    """Both ways to an engine, the planted secrets, and what scripts are told about them."""

    engine: RealEngine
    ways: list[Way]
    secrets: list[bytes]
    told: dict[str, str]


@pytest.fixture(scope="module")
def planted(real_engine: RealEngine) -> Iterator[Planted]:
    """A container that has written secrets, and a masking listener beside the direct way."""
    place = tempfile.mkdtemp(prefix="da-")
    text, secrets = text_of(random.Random(21), LINES)
    (Path(place) / "text").write_bytes(
        text + b"cannot log in with %b\nEND-OF-TEXT\n" % OWN.encode()
    )
    (Path(place) / "masked.yml").write_text(MASKED_COMPOSE_FILE)
    (Path(place) / "compose.yml").write_text(COMPOSE_FILE)
    shared = f"{PREFIX}-shared"
    told = {
        "TEXT": f"{place}/text",
        "SHARED": shared,
        "OWN": OWN,
        "MASKED_FILE": f"{place}/masked.yml",
    }
    # `unix` and not `masked`: names of one length, as Way says
    options = ("--mask", "MEDIUM", "--mask-pass", PASSED)
    proxy = ProxyProcess(place, real_engine.socket, *options).ready()
    ways = [Way("direct", real_engine.host, place), Way("unix", f"unix://{proxy.socket}", place)]
    try:
        real_engine.docker(
            "run", "-d", "--name", shared, "--network", "none", "-e", f"DB_PASSWORD={OWN}",
            "-l", f"db_password={OWN}", "-v", f"{place}/text:/text", "busybox",
            "sh", "-c", f"cat /text; : password={OWN}; sleep 1000",
        )  # fmt: skip
        wait_for(lambda: b"END-OF-TEXT" in real_engine.docker("logs", shared).stdout, "the text")
        yield Planted(real_engine, ways, [*secrets, OWN.encode()], told)
    finally:
        sweep(real_engine)
        stopped = proxy.stop()
        errors, gaps = proxy.records("scan_error"), proxy.records("scan_gap")
        shutil.rmtree(place)
    assert stopped == 0 and not errors and not gaps


def compare(client: str, case: str, planted: Planted, run: Callable[[Way], Any]) -> None:
    """Run a case on both ways; the results are equal but for the asterisks."""
    direct, masked = (run(way) for way in planted.ways)
    verdict = "differs"
    try:
        assert_same(direct, masked)
        shown = [shown_windows(planted.secrets, one) for one in map(all_bytes, (direct, masked))]
        assert len(shown[0]) > 10 and shown[1] == []
        verdict = "equal but for the asterisks"
    finally:
        MATRIX.add(f"{client}, masked", case, planted.engine.version, verdict)


def assert_same(direct: Any, masked: Any) -> None:
    """Equal but for the asterisks, whatever the results are made of."""
    if isinstance(direct, str):
        direct, masked = direct.encode(), masked.encode()
    if isinstance(direct, bytes):
        assert same_but_for_asterisks(masked, direct), (masked, direct)
    elif isinstance(direct, dict):
        assert_same(list(direct.items()), list(masked.items()))
    elif isinstance(direct, (list, tuple)):
        assert len(direct) == len(masked), (masked, direct)
        for one, other in zip(direct, masked):
            assert_same(one, other)
    else:
        assert direct == masked


def all_bytes(result: Any) -> bytes:
    """Every text in a result."""
    if isinstance(result, dict):
        return all_bytes([*result.keys(), *result.values()])
    if isinstance(result, (list, tuple)):
        return b"\n".join(map(all_bytes, result))
    return result if isinstance(result, bytes) else str(result).encode()


def shell_case(planted: Planted, client: str, case: str, script: str) -> None:
    """Compare what a script prints."""
    slug = f"{PREFIX}-masked-{case.split(',')[0].replace(' ', '')}"
    run = lambda way: way.shell(script, f"{slug}-{way.letter}", CLIS[0][1], **planted.told)
    compare(client, case, planted, run)


@pytest.mark.parametrize("case, script", CLI_CASES, ids=[case for case, _ in CLI_CASES])
def test_a_docker_command_shows_the_same_but_for_asterisks(
    planted: Planted, case: str, script: str
) -> None:
    client = "curl" if case == "curl" else f"docker {CLIS[0][0]}"
    shell_case(planted, client, case, script)


def test_compose_shows_the_same_but_for_asterisks(planted: Planted) -> None:
    client = f"compose {plugin_version('compose')}"
    shell_case(planted, client, "up, logs, exec, run", COMPOSE_SCRIPT)


def test_a_session_in_a_terminal_shows_the_same_but_for_asterisks(planted: Planted) -> None:
    """What is typed is not changed, nor its echo; what the program prints is masked."""

    def run(way: Way) -> tuple[int, bytes]:
        script = "read word; echo got $word; cat /text; echo $DB_PASSWORD; exit 5"
        command = ["docker", "exec", "-it", planted.told["SHARED"], "sh", "-c", script]
        with Terminal(command, way.environment(CLIS[0][1])) as terminal:
            terminal.type(b"blue\r")
            code, screen = terminal.end()
            return code, screen

    compare(f"docker {CLIS[0][0]}", "exec -it", planted, run)


def py_run(way: Way, told: dict[str, str]) -> Any:
    """What docker-py returns."""
    client = py_client(way)
    try:
        shared = client.containers.get(told["SHARED"])
        both = shared.exec_run(["sh", "-c", "cat /text; cat /text >&2; exit 4"], demux=True)
        return (
            shared.logs(timestamps=True),
            [line for line, _ in zip(shared.logs(stream=True, follow=True), range(50))],
            both.exit_code,
            both.output,
            b"".join(shared.exec_run(["cat", "/text"], tty=True, stream=True).output),
            shared.attrs["Config"],
            [c.attrs["Config"]["Env"] for c in client.containers.list(filters=name_of(told))],
        )
    finally:
        client.close()
        gc.collect()  # docker-py leaves open sockets to it, and a stop would wait for them


def name_of(told: dict[str, str]) -> dict[str, str]:
    """A filter for the shared container."""
    return {"name": told["SHARED"]}


def test_docker_py_returns_the_same_but_for_asterisks(planted: Planted) -> None:
    client = "docker-py " + need_module("docker").__version__
    compare(client, "logs, exec, inspect", planted, lambda way: py_run(way, planted.told))


async def aio_run(way: Way, told: dict[str, str]) -> Any:
    """What aiodocker returns."""
    async with need_module("aiodocker").Docker(url=way.host) as docker:
        shared = await docker.containers.get(told["SHARED"])
        lines = await shared.log(stdout=True, stderr=True)
        execution = await shared.exec(["cat", "/text"])
        printed = b""
        async with execution.start() as stream:
            while message := await stream.read_out():
                printed += message.data
        return lines, printed, (await shared.show())["Config"]


def test_aiodocker_returns_the_same_but_for_asterisks(planted: Planted) -> None:
    run = lambda way: asyncio.run(aio_run(way, planted.told))
    compare("aiodocker", "log, exec, show", planted, run)


@pytest.mark.parametrize("flags", [[], ["-t"], ["-t", "--details"]], ids=" ".join)
def test_the_pipe_masks_what_docker_logs_prints(planted: Planted, flags: list[str]) -> None:
    printed = planted.engine.docker("logs", *flags, planted.told["SHARED"]).stdout
    command = [sys.executable, PROGRAM, "mask"]
    run = subprocess.run(command, input=printed, capture_output=True, timeout=LIMIT, check=True)
    assert same_but_for_asterisks(run.stdout, printed)
    of_others = planted.secrets[:-1]  # the pipe does not know the container's own
    assert len(shown_windows(of_others, printed)) > 1000
    assert shown_windows(of_others, run.stdout) == []


# -- the whole matrix of clients, which shows no secrets


@pytest.mark.full
@pytest.mark.parametrize("case, script, holds", SCRIPTS, ids=[case for case, _, _ in SCRIPTS])
def test_the_matrix_through_a_mask(planted: Planted, case: str, script: str, holds: bytes) -> None:
    matrix_case(planted, "docker", case, script, holds)


@pytest.mark.full
@pytest.mark.parametrize("case, script, holds", COMPOSE, ids=[case for case, _, _ in COMPOSE])
def test_compose_through_a_mask(planted: Planted, case: str, script: str, holds: bytes) -> None:
    matrix_case(planted, "compose", case, script, holds)


def matrix_case(planted: Planted, client: str, case: str, script: str, holds: bytes) -> None:
    """A case of test_clients.py, directly and through the mask."""
    place = planted.ways[0].folder
    with open(os.path.join(place, "data"), "wb") as file:
        file.write(random.Random(20).randbytes(DATA))
    engine, ways = planted.engine, planted.ways
    run_script(CLIS[0], case, script, holds, engine, ways, place, client=f"{client}, masked")


@pytest.mark.full
@pytest.mark.parametrize("case", DOCKER_PY, ids=lambda case: case.__name__[3:])
def test_docker_py_through_a_mask(planted: Planted, case: Callable[..., Any]) -> None:
    results = []
    for way in planted.ways:
        client = py_client(way)
        results.append(case(client, f"{PREFIX}-{case.__name__.replace('_', '-')}-{way.letter}"))
        client.close()
    assert results[0] == results[1]
