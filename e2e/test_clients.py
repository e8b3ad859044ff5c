"""Real clients on real engines: each command runs directly and through dockeraudit.

A case is what a user would type. Its exit code and its output must be the same directly, over
dockeraudit's Unix socket and over TCP, once ids, times and the names that keep the three apart are
left out. No case needs a network, since engine 20 of e2e/engine has no bridge.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse

import pytest
from clients import LIMIT, MATRIX, PREFIX, Terminal, Way, docker_clis, same
from needs import need_module, skip_outside_ci

from conftest import ProxyProcess, wait_for

pytestmark = pytest.mark.engine
CLIS = docker_clis()
MEGABYTE = 1 << 20

#: an `ssh` that runs its command on this machine; the arguments before the host's name are options
FAKE_SSH = """
        echo '#!/bin/sh' > $WORK/ssh
        echo 'until [ "$1" = ssh-host ]; do shift; done; shift' >> $WORK/ssh
        echo '[ "$1" = -- ] && shift' >> $WORK/ssh
        echo "DOCKER_HOST=$DOCKER_HOST exec sh -c \\"\\$*\\"" >> $WORK/ssh
        chmod +x $WORK/ssh
        PATH=$WORK:$PATH
        DOCKER_HOST=ssh://ssh-host
"""

#: name, script, and what it must print, so that two equal failures are not taken for a success
SCRIPTS = [
    (
        "version",
        """
        docker version
        """,
        rb"Server:",
    ),
    (
        "info",
        """
        docker info --format '{{.ServerVersion}} {{.Driver}} {{.NCPU}} {{.MemTotal}}'
        docker info --format '{{json .Plugins}} {{json .Swarm}}'
        """,
        rb"overlay|vfs",
    ),
    (
        "ps",
        """
        docker run -d --name $NAME --network none -l a=b busybox sleep 1000
        docker ps -a --no-trunc --filter name=$NAME | tr -s ' '
        docker ps -q --filter label=nope
        docker rm -f $NAME
        """,
        rb"sleep 1000",
    ),
    (
        "images, history, inspect",
        """
        docker images --digests busybox
        docker history --no-trunc busybox
        docker inspect --type image busybox
        docker inspect $NAME-none
        """,
        rb"RepoTags",
    ),
    (
        "run --rm",
        """
        docker run --rm --network none busybox sh -c 'echo out; sleep 0.1; echo err >&2; exit 3'
        echo $?
        """,
        rb"out\n3\n",
    ),
    (
        "run -i",
        """
        echo ok | docker run -i --rm --network none busybox cat
        """,
        rb"^ok\n$",
    ),
    (
        "run -i, large input and output",
        """
        head -c 3000000 $DATA | docker run -i --rm --network none busybox cat | sha256sum
        """,
        rb"<id>",
    ),
    (
        "run, command not found",
        """
        docker run --rm --network none busybox $NAME-nope
        echo $?
        """,
        rb"127\n",
    ),
    (
        "run, image not found",
        """
        docker run --rm --pull never $NAME-image
        echo $?
        """,
        rb"125\n",
    ),
    (
        "run -d, wait",
        """
        docker run -d --name $NAME --network none busybox sh -c 'sleep 0.5; exit 42'
        docker wait $NAME
        docker wait $NAME
        docker rm $NAME
        """,
        rb"42\n42\n",
    ),
    (
        "create, start -a -i",
        """
        docker create -i --name $NAME --network none busybox sh -c 'read x; echo got $x; exit 6'
        echo word | docker start -a -i $NAME
        echo $?
        docker rm $NAME
        """,
        rb"got word\n6\n",
    ),
    (
        "exec",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        docker exec $NAME sh -c 'echo out; sleep 0.1; echo err >&2; exit 7'
        echo $?
        docker exec -e A=b -w /tmp $NAME sh -c 'echo $A; pwd'
        docker exec $NAME nope
        echo $?
        docker rm -f $NAME
        """,
        rb"out\n7\nb\n/tmp\n",
    ),
    (
        "exec -i",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        echo ok | docker exec -i $NAME cat
        head -c 3000000 $DATA | docker exec -i $NAME sha256sum
        docker rm -f $NAME
        """,
        rb"ok\n<id>",
    ),
    (
        "exec -d",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        docker exec -d $NAME sh -c 'echo done > /tmp/x'
        until docker exec $NAME cat /tmp/x 2>/dev/null; do sleep 0.05; done
        docker rm -f $NAME
        """,
        rb"done\n",
    ),
    (
        "attach",
        """
        docker run -di --name $NAME --network none busybox sh -c 'read x; echo got $x; exit 4'
        (echo hello; docker wait $NAME >&2) | docker attach $NAME
        echo $?
        docker rm $NAME
        """,
        rb"got hello\n4\n",
    ),
    (
        "attach --no-stdin",
        """
        script='until [ -e /go ]; do echo tick; sleep 0.05; done; echo out; echo err >&2; exit 5'
        docker run -d --name $NAME --network none busybox sh -c "$script"
        touch $WORK/o
        (until grep -q tick $WORK/o; do sleep 0.05; done; docker exec $NAME touch /go) &
        docker attach --no-stdin $NAME > $WORK/o
        echo $?
        wait
        grep -v tick $WORK/o
        docker rm $NAME
        """,
        rb"5\nout\n",
    ),
    (
        "logs",
        """
        script='for i in 1 2 3; do echo out $i; sleep 0.2; echo err $i >&2; sleep 0.2; done'
        docker run --name $NAME --network none busybox sh -c "$script" >/dev/null 2>&1
        docker logs $NAME
        docker logs --tail 1 $NAME
        docker logs --details $NAME
        docker rm $NAME
        """,
        rb"out 1\nout 2",
    ),
    (
        "logs --timestamps, --since, --until",
        """
        script='for i in 1 2 3; do echo out $i; sleep 1.1; done'
        docker run --name $NAME --network none busybox sh -c "$script" >/dev/null
        docker logs -t $NAME
        t=$(docker logs -t $NAME | sed -n 's/ out 2//p')
        docker logs --since $t $NAME
        docker logs --until $t $NAME
        docker rm $NAME
        """,
        rb"<time> out 1\n<time> out 2",
    ),
    (
        "logs -f",
        """
        script='for i in 1 2 3 4 5; do echo out $i; sleep 0.2; done'
        docker run -d --name $NAME --network none busybox sh -c "$script"
        docker logs -f $NAME
        docker rm $NAME
        """,
        rb"out 1\nout 2\nout 3\nout 4\nout 5\n",
    ),
    (
        "logs -f, interrupted",
        """
        docker run -d --name $NAME --network none busybox sh -c 'echo out; sleep 1000'
        touch $WORK/o
        env --default-signal=INT docker logs -f $NAME > $WORK/o & p=$!
        until grep -q out $WORK/o; do sleep 0.05; done
        kill -INT $p
        wait $p
        echo $?
        cat $WORK/o
        docker rm -f $NAME
        """,
        rb"out\n",
    ),
    (
        "logs, TTY container",
        """
        docker run -t --name $NAME --network none busybox sh -c 'echo out; echo err >&2'
        docker logs $NAME
        docker logs -t --tail 1 $NAME
        docker rm $NAME
        """,
        rb"out\r\nerr\r\n",
    ),
    (
        "cp in, cp out",
        """
        cd $WORK
        mkdir d
        echo one > d/a
        head -c 2000000 $DATA > d/b
        docker create --name $NAME --network none busybox
        docker cp d $NAME:/tmp/
        docker cp $NAME:/tmp/d e
        diff -r d e && echo equal
        docker cp $NAME:/tmp/d/a - | tar -xO
        docker cp $NAME:/nope .
        echo $?
        tar -c d | docker cp - $NAME:/root
        docker cp $NAME:/root/d/b - | tar -xO | sha256sum
        docker diff $NAME | sort
        docker rm $NAME
        """,
        rb"equal\n",
    ),
    (
        "save, load",
        """
        docker tag busybox $NAME:1
        docker save $NAME:1 | tar -xO manifest.json
        docker save -o $WORK/i.tar $NAME:1
        docker rmi $NAME:1
        docker load -i $WORK/i.tar
        docker load < $WORK/i.tar
        docker run --rm --network none $NAME:1 echo runs
        docker rmi $NAME:1
        """,
        rb"runs\n",
    ),
    (
        "export, import",
        """
        docker create --name $NAME --network none busybox
        docker export $NAME | docker import -c 'CMD ["echo", "imported"]' - $NAME:2
        docker run --rm --network none $NAME:2
        docker rmi $NAME:2 | grep Untagged
        docker rm $NAME
        """,
        rb"imported\n",
    ),
    (
        "commit, tag, rmi",
        """
        docker run --name $NAME --network none busybox touch /new
        docker commit -m m -c 'ENV A=b' $NAME $NAME:3
        docker tag $NAME:3 $NAME:4
        docker run --rm --network none $NAME:4 sh -c 'ls /new; echo $A'
        docker rmi $NAME:3 $NAME:4 | grep Untagged
        docker rm $NAME
        """,
        rb"/new\nb\n",
    ),
    (
        "build, classic",
        r"""
        printf '%s\n' 'FROM busybox' 'ARG A' 'RUN echo built with $A' > $WORK/Dockerfile
        printf '%s\n' 'COPY f /f' 'CMD ["cat", "/f"]' >> $WORK/Dockerfile
        head -c 20 $DATA | base64 > $WORK/f
        DOCKER_BUILDKIT=0 docker build --no-cache --network none --build-arg A=arg -t $NAME:5 $WORK
        docker run --rm --network none $NAME:5
        docker rmi $NAME:5 | grep Untagged
        """,
        rb"built with arg",
    ),
    (
        "build, failing",
        r"""
        printf 'FROM busybox\nRUN exit 9\n' > $WORK/Dockerfile
        DOCKER_BUILDKIT=0 docker build --no-cache --network none $WORK
        echo $?
        echo 'NONSENSE' > $WORK/Dockerfile
        DOCKER_BUILDKIT=0 docker build $WORK
        echo $?
        """,
        rb"^9$",
    ),
    (
        "build, from standard input",
        r"""
        printf 'FROM busybox\nCMD ["echo", "piped"]\n' |
            DOCKER_BUILDKIT=0 docker build --no-cache -q -t $NAME:6 -
        docker run --rm --network none $NAME:6
        docker rmi $NAME:6 | grep Untagged
        """,
        rb"piped\n",
    ),
    (
        "events",
        """
        t=$(date +%s)
        docker run --rm --name $NAME --network none busybox true
        until=$(($(date +%s) + 2))
        docker events --since $t --until $until --filter container=$NAME \\
            --format '{{.Type}} {{.Action}}'
        """,
        rb"container create\ncontainer attach\ncontainer start\ncontainer die",
    ),
    (
        "events, live, ended by a signal",
        """
        touch $WORK/e
        docker events --filter container=$NAME --format '{{.Action}}' > $WORK/e & p=$!
        until grep -A 2 create $WORK/e | grep -q start
        do docker run --rm --name $NAME --network none busybox true
        done
        kill -TERM $p
        wait $p
        grep -A 2 create $WORK/e | head -n 3
        """,
        rb"create\nattach\nstart\n",
    ),
    (
        "stats",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        docker stats --no-stream --format '{{.Name}} {{.PIDs}}' $NAME
        api GET /containers/$NAME/stats | head -n 1 | wc -l
        docker rm -f $NAME
        """,
        rb" 1\n1\n",
    ),
    (
        "top, port, inspect, update, rename",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        until docker top $NAME | grep -q sleep; do sleep 0.05; done
        docker top $NAME -eo pid,args | sed 's/^ *[0-9]* *//'
        docker port $NAME
        docker update --memory 64m --memory-swap 64m $NAME
        docker inspect -f '{{.HostConfig.Memory}} {{.Name}}' $NAME
        docker rename $NAME $NAME-2
        docker rm -f $NAME-2
        """,
        rb"sleep 1000",
    ),
    (
        "pause, unpause, restart, stop, kill",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        docker pause $NAME
        docker inspect -f '{{.State.Status}}' $NAME
        docker unpause $NAME
        docker restart -t 0 $NAME
        docker stop -t 0 $NAME
        docker start $NAME
        docker kill -s KILL $NAME
        docker wait $NAME
        docker rm $NAME
        """,
        rb"paused\n",
    ),
    (
        "signals to run",
        """
        touch $WORK/o
        script='trap "echo caught; exit 5" INT; echo ready; while :; do sleep 0.05; done'
        docker run --name $NAME --network none busybox sh -c "$script" > $WORK/o & p=$!
        until grep -q ready $WORK/o; do sleep 0.05; done
        kill -INT $p
        wait $p
        echo $?
        cat $WORK/o
        docker rm $NAME
        """,
        rb"5\nready\ncaught\n",
    ),
    (
        "volume",
        """
        docker volume create --label a=b $NAME
        docker run --rm --network none -v $NAME:/v busybox sh -c 'echo kept > /v/f'
        docker run --rm --network none -v $NAME:/v busybox cat /v/f
        docker volume ls -q --filter name=$NAME
        docker volume inspect -f '{{json .Labels}}' $NAME
        docker volume rm $NAME
        docker volume rm $NAME
        echo $?
        """,
        rb"kept\n",
    ),
    (
        "network",
        """
        docker network ls --filter name=none
        docker network inspect -f '{{.Driver}}' none host
        docker network rm $NAME
        echo $?
        """,
        rb"null\nhost\n",
    ),
    (
        "system",
        """
        again() { until flock $DATA "$@" 2>/dev/null; do sleep 0.1; done; }
        again docker system df --format '{{.Type}}'
        again docker container prune -f --filter label=$NAME
        again docker image prune -f --filter label=$NAME
        docker plugin ls
        docker search --limit 1 127.0.0.1:1/$NAME
        docker pull 127.0.0.1:1/$NAME
        echo $?
        """,
        rb"Images\nContainers",
    ),
    (
        "system dial-stdio",
        r"""
        printf 'GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n' |
            docker system dial-stdio 2>/dev/null | tail -c 2
        """,
        rb"^OK$",
    ),
    (
        "-H ssh://, by way of system dial-stdio",
        FAKE_SSH
        + """
        docker version --format '{{.Server.Version}}'
        echo ok | docker run -i --rm --network none busybox cat
        docker run -d --name $NAME --network none busybox sh -c 'echo logged; sleep 1000'
        until docker logs $NAME | grep logged; do sleep 0.1; done
        echo ok | docker exec -i $NAME cat
        docker exec $NAME sh -c 'exit 3'
        echo $?
        docker rm -f $NAME
        """,
        rb"ok\n(?:.|\n)*logged\nok\n3\n",
    ),
    (
        "curl",
        r"""
        api GET /v1.41/containers/json?limit=0\&filters=%7B%22name%22:%5B%22$NAME%22%5D%7D
        api HEAD /_ping -I | sed /Date/d
        api POST /v1.41/containers/$NAME/start -i | sed /Date/d
        api GET /nope
        api GET /v9.99/info
        body='{"Image": "busybox", "Cmd": ["echo", "hi"], "HostConfig": {"NetworkMode": "none"}}'
        id=$(api POST "/v1.41/containers/create?name=$NAME" \
            -H 'Content-Type: application/json' -d "$body" | cut -d'"' -f4)
        api POST /v1.41/containers/$id/start -w '%{http_code}'
        api POST /v1.41/containers/$id/wait
        api GET /v1.41/containers/$id/logs?stdout=1 --output - | xxd
        api DELETE /v1.41/containers/$id -w '%{http_code}'
        """,
        rb"6869 0a",
    ),
    (
        "curl, an answer before the body's end",
        """
        api PUT /v1.41/containers/$NAME/archive?path=/ -T $DATA -w ' %{http_code}'
        api POST /v1.41/build?dockerfile=/../../x --data-binary @$DATA \\
            -H 'Content-Type: application/x-tar' -w ' %{http_code}'
        api POST /v1.41/images/load -T $DATA -w ' %{http_code}'
        """,
        rb" 404",
    ),
    (
        "curl, Expect: 100-continue",
        r"""
        docker create --name $NAME --network none busybox
        mkdir $WORK/d
        head -c 3000000 $DATA > $WORK/d/f
        tar -C $WORK -c d > $WORK/t
        api PUT /v1.41/containers/$NAME/archive?path=/tmp -T $WORK/t \
            -H 'Expect: 100-continue' -w '%{http_code}\n'
        docker cp $NAME:/tmp/d/f - | tar -xO | sha256sum
        docker rm $NAME
        """,
        rb"200\n",
    ),
    (
        "exec -i, much in and out",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        docker exec -i $NAME sha256sum < $DATA | cmp - <(sha256sum < $DATA) &&
            docker exec -i $NAME cat < $DATA | cmp - $DATA && echo equal
        docker rm -f $NAME
        """,
        rb"equal\n",
    ),
]

#: for engines with BuildKit in the form that buildx drives: /session and /grpc, as h2c
BUILDX = [
    (
        "buildx build",
        r"""
        printf '%s\n' 'FROM busybox' 'RUN echo $((6 * 7)) > /made' > $WORK/Dockerfile
        printf '%s\n' 'COPY f /f' 'CMD cat /made /f' >> $WORK/Dockerfile
        echo $NAME > $WORK/f
        docker buildx build --no-cache --progress quiet --network none -t $NAME:7 $WORK
        docker run --rm --network none $NAME:7
        docker rmi $NAME:7 | grep Untagged
        """,
        rb"42\n<own>\n",
    ),
    (
        "buildx build, failing",
        r"""
        printf 'FROM busybox\nRUN exit 9\n' > $WORK/Dockerfile
        docker buildx build --no-cache --progress plain --network none $WORK > $WORK/o 2>&1
        echo $?
        grep -c 'exit code: 9' $WORK/o
        """,
        rb"1\n[1-9]",
    ),
    (
        "buildx build, with a secret and --output",
        r"""
        echo 'FROM busybox AS a' > $WORK/Dockerfile
        echo 'RUN --mount=type=secret,id=s cat /run/secrets/s > /copy' >> $WORK/Dockerfile
        printf '%s\n' 'FROM scratch' 'COPY --from=a /copy /' >> $WORK/Dockerfile
        echo kept > $WORK/s
        docker buildx build --no-cache --progress quiet --network none \
            --secret id=s,src=$WORK/s -o $WORK/out $WORK
        cat $WORK/out/copy
        """,
        rb"kept\n",
    ),
]

COMPOSE_FILE = """
services:
  one:
    image: busybox
    network_mode: none
    stop_signal: SIGKILL
    command: [sh, -c, "echo from one; exec sleep 1000"]
  two:
    image: busybox
    network_mode: none
    stop_signal: SIGKILL
    command: [sh, -c, "echo from two; sleep 1; exit 3"]
"""
COMPOSE = [
    (
        "compose up, ps, logs, exec, down",
        """
        cp $COMPOSE_FILE $WORK/compose.yml
        c="docker compose -p $NAME -f $WORK/compose.yml"
        $c --progress quiet up -d
        docker wait $NAME-two-1
        until $c logs one | grep -q from; do sleep 0.1; done
        $c logs --no-color | sort
        $c ps --format '{{.Service}}'
        $c ps -a --format '{{.Service}} {{.State}} {{.ExitCode}}' | sort
        echo in | $c exec -T one cat
        $c top one | tail -n 1 | grep -o 'sleep 1000'
        $c --progress quiet down -t 0
        docker ps -aq --filter name=$NAME
        """,
        rb"from one\n",
    ),
    (
        "compose up, attached",
        """
        cp $COMPOSE_FILE $WORK/compose.yml
        compose() { docker compose -p $NAME -f $WORK/compose.yml --progress quiet "$@"; }
        compose up --no-color --exit-code-from two -t 0 > $WORK/o 2>/dev/null
        echo $?
        grep -o 'from .*' $WORK/o | sort
        docker compose -p $NAME -f $WORK/compose.yml --progress quiet down -t 0
        """,
        rb"3\nfrom one\nfrom two\n",
    ),
    (
        "compose run",
        """
        cp $COMPOSE_FILE $WORK/compose.yml
        echo piped |
            docker compose -p $NAME -f $WORK/compose.yml --progress quiet run --rm -T one cat
        docker compose -p $NAME -f $WORK/compose.yml --progress quiet down -t 0
        """,
        rb"piped\n",
    ),
]


@pytest.fixture(scope="module")
def place():
    """A folder with a short path, and in it data to send: 10 MiB that do not compress."""
    path = tempfile.mkdtemp(prefix="da-")
    with open(os.path.join(path, "data"), "wb") as file:
        file.write(random.Random(20).randbytes(10 * MEGABYTE))
    with open(os.path.join(path, "compose.yml"), "w") as file:
        file.write(COMPOSE_FILE)
    yield path
    shutil.rmtree(path)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def proxy(real_engine, place):
    """One proxy for all cases on an engine. At the end its log is whole, without complaints."""
    folder = os.path.join(place, os.path.basename(os.path.dirname(real_engine.socket)))
    os.mkdir(folder)
    port = free_port()
    proxy = ProxyProcess(
        folder, real_engine.socket, "--listen", f"tcp://127.0.0.1:{port}", "--log-level", "debug"
    )
    proxy.tcp = f"tcp://127.0.0.1:{port}"
    proxy.ready()
    yield proxy
    sweep(real_engine)
    assert proxy.stop() == 0
    complaints = [
        line
        for line in proxy.errors.read_text().splitlines()
        if "info:" not in line and "debug:" not in line
    ]
    assert not complaints
    assert not proxy.records("scan_error") + proxy.records("gap") + proxy.records("scan_gap")
    verified = subprocess.run(
        [*proxy.process.args[:2], "verify", str(proxy.log)], capture_output=True, check=False
    )
    assert verified.returncode == 0, verified.stdout


def sweep(engine):
    """Remove what failed cases left on the engine."""
    for kind, remove in (
        ("ps -aq", "rm -fv"),
        ("volume ls -q", "volume rm"),
        ("images -q", "rmi -f"),
    ):
        name = f"reference={PREFIX}*" if kind.startswith("images") else f"name={PREFIX}"
        left = engine.docker(*kind.split(), "--filter", name).stdout.decode().split()
        if left:
            engine.docker(*remove.split(), *left)


@pytest.fixture(scope="module")
def ways(real_engine, proxy, place):
    return [
        Way("direct", real_engine.host, place),
        Way("unix", f"unix://{proxy.socket}", place),
        Way("tcp", proxy.tcp, place),
    ]


#: the docker CLI that a shell would take, and in the long form every other one
CLI_PARAMETERS = [
    pytest.param((version, path), id=version, marks=[pytest.mark.full] if number else [])
    for number, (version, path) in enumerate(CLIS or [("none", "docker")])
]


def compared(client, case, engine, ways, run):
    """Run a case on all ways, write the verdict into the matrix, and return the outcome."""
    try:
        outcome = same(ways, run)
    except BaseException:
        MATRIX.add(client, case, engine.version, "differs")
        raise
    MATRIX.add(client, case, engine.version, "equal")
    return outcome


def run_script(cli, case, script, holds, engine, ways, place, data="data", client="docker"):
    version, path = cli
    slug = re.sub(r"[^a-z0-9]+", "-", case.lower()).strip("-")
    more = {"DATA": os.path.join(place, data), "COMPOSE_FILE": os.path.join(place, "compose.yml")}
    outcome = compared(
        f"{client} {version}".strip(),
        case,
        engine,
        ways,
        lambda way: way.shell(script, f"{PREFIX}-{slug}-{way.letter}", path, **more),
    )
    assert re.search(holds, outcome.stdout, re.M), outcome
    return outcome


@pytest.mark.parametrize("cli", CLI_PARAMETERS)
@pytest.mark.parametrize("case, script, holds", SCRIPTS, ids=[case for case, _, _ in SCRIPTS])
def test_a_docker_command_gives_the_same(real_engine, ways, place, cli, case, script, holds):
    client = "curl" if case.startswith("curl") else "docker"
    run_script(
        ("", cli[1]) if client == "curl" else cli,
        case.replace("curl, ", ""),
        script,
        holds,
        real_engine,
        ways,
        place,
        client=client,
    )


#: the same again with much more data; they take a minute
LARGE = [
    (
        "exec -i, 100 MB in and out",
        """
        docker run -d --name $NAME --network none busybox sleep 1000
        docker exec -i $NAME sha256sum < $DATA | cmp - <(sha256sum < $DATA) &&
            docker exec -i $NAME cat < $DATA | cmp - $DATA && echo equal
        docker rm -f $NAME
        """,
        rb"equal\n",
    ),
    (
        "run -i, 100 MB in and out",
        """
        docker run -i --rm --network none busybox cat < $DATA | cmp - $DATA && echo equal
        """,
        rb"equal\n",
    ),
    (
        "cp, save, load, import of 100 MB",
        """
        docker create --name $NAME --network none busybox
        docker cp $DATA $NAME:/data
        docker cp $NAME:/data - | tar -xO | cmp - $DATA && echo equal
        docker commit $NAME $NAME:8
        docker save $NAME:8 > $WORK/i
        docker rmi $NAME:8 | grep Untagged
        docker load < $WORK/i
        docker export $NAME | docker import - $NAME:9
        docker run --rm --network none $NAME:9 sha256sum /data
        docker rmi $NAME:8 $NAME:9 | grep Untagged
        docker rm $NAME
        """,
        rb"equal\n",
    ),
    (
        "build, classic, 200 MB of context",
        r"""
        cp $DATA $WORK/one
        cp $DATA $WORK/two
        printf 'FROM busybox\nCOPY one two /\nRUN sha256sum /one /two\n' > $WORK/Dockerfile
        DOCKER_BUILDKIT=0 docker build --no-cache --network none -t $NAME:10 $WORK | grep one
        docker run --rm --network none $NAME:10 sha256sum /two
        docker rmi $NAME:10 | grep Untagged
        """,
        rb"<id>  /one",
    ),
    (
        "build, buildx, 200 MB of context",
        r"""
        cp $DATA $WORK/one
        cp $DATA $WORK/two
        printf 'FROM busybox\nCOPY one two /\n' > $WORK/Dockerfile
        docker buildx build --no-cache --progress quiet --network none -t $NAME:11 $WORK
        docker run --rm --network none $NAME:11 sha256sum /two
        docker rmi $NAME:11 | grep Untagged
        """,
        rb"<id>  /two",
    ),
]


@pytest.fixture(scope="module")
def large(place):
    """100 MiB that do not compress."""
    random_bytes = random.Random(100)
    with open(os.path.join(place, "large"), "wb") as file:
        for _ in range(100):
            file.write(random_bytes.randbytes(MEGABYTE))
    return "large"


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case, script, holds", LARGE, ids=[case for case, _, _ in LARGE])
def test_large_bodies_arrive_whole(real_engine, ways, place, large, case, script, holds):
    run_script(CLIS[0], case, script, holds, real_engine, ways, place, data=large)


def plugin_version(name):
    said = subprocess.run(
        ["docker", name, "version"], capture_output=True, text=True, timeout=LIMIT, check=False
    ).stdout
    version = re.search(r"\d+\.\d+\.\d+", said)
    if not version:
        skip_outside_ci(f"this docker CLI has no {name} plugin: `make e2e` installs one (as root)")
    return version[0]


@pytest.mark.parametrize("case, script, holds", BUILDX, ids=[case for case, _, _ in BUILDX])
def test_buildx_gives_the_same(real_engine, ways, proxy, place, case, script, holds):
    tunnels = len(proxy.records("stream_open"))
    run_script(
        (plugin_version("buildx"), CLIS[0][1]),
        case,
        script,
        holds,
        real_engine,
        ways,
        place,
        client="buildx",
    )
    wait_for(
        lambda: (
            "tunnel"
            in {
                record["endpoint"]
                for record in proxy.records("stream_open")[tunnels:]
                if not record["audited"]
            }
        ),
        "a tunnel's record",
    )


@pytest.mark.parametrize("case, script, holds", COMPOSE, ids=[case for case, _, _ in COMPOSE])
def test_compose_gives_the_same(real_engine, ways, place, case, script, holds):
    run_script(
        (plugin_version("compose"), CLIS[0][1]),
        case,
        script,
        holds,
        real_engine,
        ways,
        place,
        client="compose",
    )


# -- programs in a terminal

SIZES = ["sh", "-c", "while read line; do [ $line = bye ] && exit 3; stty size; done"]
TICKS = ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]


def print_two_sizes(way, command):
    """Run a program that prints its window's size, twice, and exits with 3."""
    with Terminal(command, way.environment(CLIS[0][1]), rows=31, columns=97) as terminal:
        await_size(terminal, 31, 97)
        await_size(terminal, 43, 111)
        terminal.type(b"bye\r")
        return terminal.end()[0], "two sizes"


def await_size(terminal, rows, columns):
    """Ask for the size until it is this one, since clients report it in a request of its own.

    The size changes again before each question: a client loses a change that comes between its
    first look at the window and its signal handler.
    """
    for _ in range(200):
        terminal.resize(rows + 1, columns)
        terminal.resize(rows, columns)
        terminal.type(b"ask\r")
        terminal.expect(b"ask\r\n")
        seen = terminal.expect(b"\r\n")
        if seen == b"%d %d" % (rows, columns):
            return
    pytest.fail(f"the window never had {rows} rows and {columns} columns, at last {seen!r}")


def started(way, name, *command, options="-di"):
    """A container in the background."""
    way.docker(
        "run",
        options,
        "--name",
        name,
        "--network",
        "none",
        "busybox",
        *(command or ("sleep", "1000")),
    )
    return name


def run_in_a_terminal(way):
    name = f"{PREFIX}-run-it-{way.letter}"
    return print_two_sizes(
        way,
        ["docker", "run", "-it", "--rm", "--name", name, "--network", "none", "busybox", *SIZES],
    )


def exec_in_a_terminal(way):
    name = started(way, f"{PREFIX}-exec-it-{way.letter}")
    return print_two_sizes(way, ["docker", "exec", "-it", name, *SIZES])


def exec_in_a_terminal_without_input(way):
    name = started(way, f"{PREFIX}-exec-t-{way.letter}")
    with Terminal(
        ["docker", "exec", "-t", name, "sh", "-c", "echo one; tty; exit 5"],
        way.environment(CLIS[0][1]),
    ) as terminal:
        return terminal.end()


def interrupt_in_a_terminal(way):
    name = f"{PREFIX}-interrupt-{way.letter}"
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    command = [
        "docker",
        "run",
        "-it",
        "--rm",
        "--name",
        name,
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        script,
    ]
    with Terminal(command, way.environment(CLIS[0][1])) as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\x03")
        return terminal.end()


def follow_logs_in_a_terminal(way):
    name = started(way, f"{PREFIX}-logs-{way.letter}", "sh", "-c", "echo shown; sleep 1000")
    with Terminal(["docker", "logs", "-f", name], way.environment(CLIS[0][1])) as terminal:
        terminal.expect(b"shown\r\n")
        terminal.type(b"\x03")
        code, screen = terminal.end()
    # The kernel echoes ^C, unless the client has left the terminal before.
    return code, screen.replace(b"^C", b"")


def detach(way, command, name, keys):
    """Type the detach keys: the client ends, and its container goes on."""
    with Terminal(command, way.environment(CLIS[0][1])) as terminal:
        terminal.expect(b"tick\r\n")
        for key in keys:
            terminal.type(key)
        code, screen = terminal.end(20)
    return (
        code,
        re.sub(rb"tick\r+\n", b"", screen),
        way.docker("inspect", "-f", "{{.State.Running}}", name).stdout,
    )


def detach_from_run(way):
    name = f"{PREFIX}-detach-run-{way.letter}"
    return detach(
        way,
        ["docker", "run", "-it", "--name", name, "--network", "none", "busybox", *TICKS],
        name,
        [b"\x10", b"\x11"],
    )


def detach_from_attach(way):
    name = started(way, f"{PREFIX}-detach-attach-{way.letter}", *TICKS, options="-dit")
    return detach(
        way, ["docker", "attach", "--detach-keys", "ctrl-x,y", name], name, [b"\x18", b"y"]
    )


def detach_from_exec(way):
    name = started(way, f"{PREFIX}-detach-exec-{way.letter}")
    return detach(
        way,
        ["docker", "exec", "-it", "--detach-keys", "ctrl-x,y", name, *TICKS],
        name,
        [b"\x18", b"y"],
    )


TERMINALS = [
    ("run -it, resized", run_in_a_terminal, 3),
    ("exec -it, resized", exec_in_a_terminal, 3),
    ("exec -t", exec_in_a_terminal_without_input, 5),
    ("run -it, ctrl-c", interrupt_in_a_terminal, 5),
    ("logs -f in a terminal, ctrl-c", follow_logs_in_a_terminal, 130),
    ("run -it, detached with ctrl-p ctrl-q", detach_from_run, 0),
    ("attach, detached with --detach-keys", detach_from_attach, 1),
    ("exec -it, detached with --detach-keys", detach_from_exec, 1),
]


@pytest.mark.parametrize("case, run, code", TERMINALS, ids=[case for case, _, _ in TERMINALS])
def test_a_docker_command_in_a_terminal_gives_the_same(real_engine, ways, case, run, code):
    # Over TCP the docker CLI misses its own detach keys, also on an engine's own port: Go's TCPConn
    # wraps the error by which the CLI knows them.
    fit = [way for way in ways if "detached" not in case or way.name != "tcp"]
    outcome = compared(f"docker {CLIS[0][0]}", case, real_engine, fit, run)
    assert outcome[0] == code, outcome


# -- docker-py, requests


def py_client(way):
    docker = need_module("docker")
    return docker.DockerClient(base_url=way.host, timeout=LIMIT)


def py_look_around(client, name):
    with pytest.raises(Exception, match="No such container"):
        client.containers.get(name)
    return (
        client.ping(),
        client.version()["ApiVersion"],
        client.info()["OperatingSystem"],
        client.images.get("busybox").tags,
    )


def py_run(client, name):
    output = client.containers.run(
        "busybox",
        ["sh", "-c", "echo out; echo err >&2"],
        name=name,
        network_mode="none",
        stderr=True,
        remove=True,
    )
    try:
        client.containers.run(
            "busybox", ["sh", "-c", "exit 3"], name=name, network_mode="none", remove=True
        )
    except Exception as error:
        return sorted(output.split(b"\n")), error.exit_status
    return output


def py_logs(client, name):
    container = client.containers.run(
        "busybox",
        ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"],
        name=name,
        network_mode="none",
        detach=True,
    )
    followed = b"".join(container.logs(stream=True, follow=True))
    status = container.wait()["StatusCode"]
    return followed, status, container.logs(tail=1), container.logs(since=1), container.remove()


def py_exec(client, name):
    container = client.containers.run(
        "busybox", ["sleep", "1000"], name=name, network_mode="none", detach=True
    )
    both = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    streamed = b"".join(
        container.exec_run(["sh", "-c", "echo 1; sleep 0.1; echo 2"], stream=True).output
    )
    made = client.api.exec_create(container.id, ["cat"], stdin=True)
    sock = client.api.exec_start(made["Id"], socket=True)
    sock._sock.sendall(b"typed\n")
    sock._sock.shutdown(socket.SHUT_WR)
    echoed = sock.read(100)
    sock.close()
    return both, streamed, echoed, container.remove(force=True)


def py_attach(client, name):
    container = client.containers.create(
        "busybox",
        ["sh", "-c", "read x; echo got $x"],
        name=name,
        network_mode="none",
        stdin_open=True,
    )
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    sock._sock.sendall(b"typed\n")
    answer = sock.read(100)
    sock.close()
    container.wait()
    container.remove()
    # Not with logs=True: docker-py loses bytes that come in one packet with the answer's head.
    container = client.containers.create(
        "busybox",
        ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done; exit 3"],
        name=name,
        network_mode="none",
    )
    attached = container.attach(stream=True)
    container.start()
    return answer, b"".join(attached), container.wait()["StatusCode"], container.remove()


def py_archive(client, name):
    container = client.containers.create("busybox", name=name, network_mode="none")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("f")
        member.size = 300_000
        archive.addfile(member, io.BytesIO(b"x" * member.size))
    put = container.put_archive("/tmp", packed.getvalue())
    stream, info = container.get_archive("/tmp/f")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        size = len(archive.extractfile("f").read())
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as archive:
        names = len(archive.getnames())
    return put, info["size"], size, names, container.diff(), container.remove()


def py_images(client, name):
    saved = b"".join(client.images.get("busybox").save(named=True))
    loaded = [image.tags for image in client.images.load(saved)]
    built, log = client.images.build(
        fileobj=io.BytesIO(b"FROM busybox\nLABEL n=%b\n" % name.encode()), tag=name, rm=True
    )
    steps = [line["stream"] for line in log if line.get("stream", "").startswith("Step")]
    client.images.remove(name)
    return (
        loaded,
        [tag.replace(name, "") for tag in built.tags],
        [step.replace(name, "") for step in steps],
    )


def py_events_and_stats(client, name):
    events = client.events(decode=True, filters={"container": name})
    container = client.containers.run(
        "busybox", ["sleep", "1000"], name=name, network_mode="none", detach=True
    )
    seen = [next(events)["Action"] for _ in range(2)]
    events.close()
    samples = container.stats(stream=True, decode=True)
    name_seen = [next(samples)["name"].replace(name, "") for _ in range(2)]
    return seen, name_seen, container.top()["Titles"], container.remove(force=True)


DOCKER_PY = [
    py_look_around,
    py_run,
    py_logs,
    py_exec,
    py_attach,
    py_archive,
    py_images,
    py_events_and_stats,
]


@pytest.mark.parametrize("case", DOCKER_PY, ids=lambda case: case.__name__[3:])
def test_docker_py_gives_the_same(real_engine, ways, case):
    def run(way):
        client = py_client(way)
        try:
            return case(client, f"{PREFIX}-{case.__name__.replace('_', '-')}-{way.letter}")
        finally:
            client.close()

    compared(
        "docker-py " + need_module("docker").__version__,
        case.__name__[3:].replace("_", " "),
        real_engine,
        ways,
        run,
    )


def test_requests_gives_the_same(real_engine, ways):
    """requests over a Unix socket (requests-unixsocket) and over TCP."""
    requests_unixsocket = need_module("requests_unixsocket")

    def run(way):
        base = (
            "http+unix://" + urllib.parse.quote(way.host[7:], safe="")
            if way.host.startswith("unix")
            else way.host.replace("tcp", "http")
        )
        name = f"{PREFIX}-requests-{way.letter}"
        with requests_unixsocket.Session() as session:
            body = {
                "Image": "busybox",
                "Cmd": ["echo", "hi"],
                "HostConfig": {"NetworkMode": "none"},
            }
            made = session.post(f"{base}/containers/create?name={name}", json=body)
            path = f"{base}/v1.41/containers/{made.json()['Id']}"
            started = session.post(path + "/start").status_code
            code = session.post(path + "/wait").json()["StatusCode"]
            followed = session.get(path + "/logs?stdout=1&follow=1", stream=True)
            logs = b"".join(followed.iter_content(None))
            headers = sorted(set(followed.headers) - {"Date", "Connection"})
            gone = session.delete(path).status_code, session.get(path + "/json").status_code
            return (
                made.status_code,
                started,
                code,
                logs,
                headers,
                gone,
                session.get(base + "/_ping").text,
            )

    outcome = compared("requests", "create, start, wait, logs, delete", real_engine, ways, run)
    assert outcome[:4] == (201, 204, 0, b"\x01\0\0\0\0\0\0\x03hi\n")


# -- aiodocker, testcontainers, dockerode: one program for each


async def aio_program(host, name):
    aiodocker = need_module("aiodocker")
    config = {"Image": "busybox", "HostConfig": {"NetworkMode": "none"}}
    seen = []
    async with aiodocker.Docker(url=host) as docker:
        seen.append((await docker.version())["ApiVersion"])
        script = "for i in 1 2 3; do echo $i; sleep 0.1; done; echo err >&2; exit 3"
        container = await docker.containers.run({**config, "Cmd": ["sh", "-c", script]}, name=name)
        seen.append([line async for line in container.log(stdout=True, stderr=True, follow=True)])
        seen.append((await container.wait())["StatusCode"])
        await container.delete()
        container = await docker.containers.create(
            {**config, "Cmd": ["cat"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True},
            name=name,
        )
        async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
            await container.start()
            await stream.write_in(b"typed\n")
            seen.append((await stream.read_out())[:2])
        await container.delete(force=True)
        container = await docker.containers.run({**config, "Cmd": ["sleep", "1000"]}, name=name)
        execution = await container.exec(["sh", "-c", "read x; echo got $x; exit 4"], stdin=True)
        async with execution.start() as stream:
            await stream.write_in(b"typed\n")
            seen.append((await stream.read_out())[:2])
            await stream.read_out()
        seen.append((await execution.inspect())["ExitCode"])
        seen.append(
            [sample["name"].replace(name, "") for sample in await container.stats(stream=False)]
        )
        await container.delete(force=True)
    return seen


def test_aiodocker_gives_the_same(real_engine, ways):
    def run(way):
        return asyncio.run(aio_program(way.host, f"{PREFIX}-aio-{way.letter}"))

    outcome = compared("aiodocker", "run, log, attach, exec, stats", real_engine, ways, run)
    assert outcome[1:] == [
        ["1\n", "2\n", "3\n", "err\n"],
        3,
        (1, b"typed\n"),
        (1, b"got typed\n"),
        4,
        ["/"],
    ]


def test_testcontainers_gives_the_same(real_engine, ways, monkeypatch):
    # its reaper would be an image of a public registry
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    core = need_module("testcontainers.core.container")

    def run(way):
        script = "sleep 0.2; echo ready; echo err >&2; sleep 1000"
        where = {"environment": {"DOCKER_HOST": way.host}}
        container = core.DockerContainer(
            "busybox", docker_client_kw=where, network_mode="none", command=["sh", "-c", script]
        )
        with container.with_name(f"{PREFIX}-testcontainers-{way.letter}") as started:
            wait_for(lambda: started.get_logs()[0], "the log line")
            done = started.exec(["sh", "-c", "echo inside; exit 4"])
            wait_for(lambda: started.get_logs()[1], "the error line")
            return done.exit_code, done.output, started.get_logs()

    outcome = compared(
        "testcontainers", "start, wait for a log line, exec, stop", real_engine, ways, run
    )
    assert outcome == (4, b"inside\n", (b"ready\n", b"err\n"))


def test_dockerode_gives_the_same(real_engine, ways):
    modules = os.path.join(sys.prefix, "node", "node_modules")
    if not (shutil.which("node") and os.path.isdir(os.path.join(modules, "dockerode"))):
        skip_outside_ci("node or dockerode is not installed: `make e2e` installs them (as root)")
    program = os.path.join(os.path.dirname(__file__), "dockerode.js")

    def run(way):
        return way.shell(
            f"node {program} $NAME",
            f"{PREFIX}-dockerode-{way.letter}",
            CLIS[0][1],
            NODE_PATH=modules,
        )

    outcome = compared("dockerode", "run, attach, exec, logs, stats", real_engine, ways, run)
    assert outcome.code == 0, outcome
    seen = json.loads(outcome.stdout)
    assert seen["attach"] == [0, "got typed\n", ""] and seen["run"] == [3, "out\n", "err\n"]
    assert seen["execAndLogs"] == [0, "typed\n", "1\n2\n3\n", True] and seen["gone"][0] == 404
