"""The processes that are measured side by side: how each is started, and what it takes and finds.

    Peer ─┬─ Direct              the engine itself, which ratios refer to
          ├─ HAProxy             with the options of Tecnativa's docker-socket-proxy
          ├─ Nginx, Socat        from Debian's packages
          ├─ Go                  bench/reference, the original's design
          └─ Dockeraudit         all rules, or the six alone

Processor time is read from /proc for a process and all its descendants, in clock ticks (10 ms).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
START_LIMIT = 10.0  # seconds for a peer to answer
FOUND_LIMIT = 120.0  # seconds for an auditor to have looked at everything


class BenchError(Exception):
    """A byte differed, a secret was not found, or a peer did not start."""


def process_table() -> dict[int, tuple[int, float]]:
    """Every process: its parent, and the processor seconds of itself and its reaped children."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            table[int(name)] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    return table


def family(table: dict[int, tuple[int, float]], roots: set[int]) -> set[int]:
    """The processes of these roots: they and all their descendants."""
    members: set[int] = set()
    more = roots & set(table)
    while more:
        members |= more
        more = {pid for pid, (parent, _) in table.items() if parent in members} - members
    return members


def family_seconds(roots: set[int]) -> float:
    """Processor time of the processes below these roots, and of them."""
    table = process_table()
    return sum(table[pid][1] for pid in family(table, roots))


def machine_seconds() -> float:
    """Processor time that the machine has spent on anything, time stolen by its host included."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def listener_pid(path: str) -> int:
    """The process that listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return int.from_bytes(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), sys.byteorder
        )


def get(address: str, target: str, timeout: float = 5.0) -> bytes:
    """The body that answers a GET on a Unix socket; raises OSError."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(address)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while block := sock.recv(65536):
            data += block
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise OSError(f"{address} answers {head[:60]!r} to {target}")
    return body


class Peer:
    """A process between the load and the engine. `exact`: it passes chunk framing on as it is."""

    name = "?"
    exact = False
    audits = False
    masks = False
    program = ""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder / self.name
        self.engine = engine
        self.address = str(self.folder / "p.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.planted: int | None = 0  # secrets sent through it; None if not known

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be measured here, or None."""
        return None if shutil.which(cls.program) else f"{cls.program} is not installed"

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def start(self) -> float:
        """Start it in a fresh folder; returns the seconds to its first answer."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        command = self.command()
        begun = time.monotonic()
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                start_new_session=True,
            )
        while True:
            try:
                if get(self.address, "/_ping") == b"OK":
                    return time.monotonic() - begun
            except OSError:
                pass  # not yet
            if self.process.poll() is not None or time.monotonic() - begun > START_LIMIT:
                raise BenchError(
                    f"{self.name} does not start: {(self.folder / 'output').read_text()[-500:]}"
                )
            time.sleep(0.001)

    def stop(self) -> None:
        """End it."""
        if self.process:
            process, self.process = self.process, None
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def seconds(self) -> float:
        """Processor time so far."""
        return family_seconds({self.process.pid}) if self.process else 0.0

    def thread_seconds(self, name: str) -> float:
        """Processor time so far of its threads whose names begin so."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir() if self.process else ()
        ticks = 0
        for task in tasks:
            try:
                head, _, fields = (task / "stat").read_text().rpartition(")")
            except FileNotFoundError:  # the thread has just ended
                continue
            if head.partition("(")[2].startswith(name):
                ticks += sum(map(int, fields.split()[11:13]))
        return ticks / TICKS

    def resident(self) -> int:
        """Bytes of memory in use now, of all its processes."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """The most there have been since `forget_peak`."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> int:
        pids = family(process_table(), {self.process.pid}) if self.process else set()
        lines = [
            line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

    def forget_peak(self) -> None:
        """Begin a new peak here."""
        for pid in family(process_table(), {self.process.pid}) if self.process else set():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def await_found(self, secrets: int, streams: int = 1) -> None:
        """Wait until a stream with so many secrets is audited; BenchError if one was missed."""

    def check_log(self) -> None:
        """After its end, raise BenchError unless its log counts all planted secrets."""


class Direct(Peer):
    """No proxy at all."""

    name = "direct"
    exact = True

    def __init__(self, folder: Path, engine: str) -> None:
        super().__init__(folder, engine)
        self.address = engine

    @classmethod
    def missing(cls) -> str | None:
        return None

    def start(self) -> float:
        return 0.0


HAPROXY = """
global
    maxconn 4000
defaults
    mode http
    option httplog
    option dontlognull
    option http-server-close
    option redispatch
    retries 3
    maxconn 3000
    timeout http-request 10s
    timeout queue 1m
    timeout connect 10s
    timeout client 10m
    timeout server 10m
    timeout http-keep-alive 10s
    timeout check 10s
frontend docker
    bind unix@{folder}/p.sock
    bind 127.0.0.1:{port}
    http-request deny unless METH_GET || {{ env(POST) -m bool }}
    http-request allow if {{ path,url_dec -m reg -i ^(/v[\\d\\.]+)?/containers }}
    http-request allow if {{ path,url_dec -m reg -i ^(/v[\\d\\.]+)?/images }}
    http-request allow if {{ path,url_dec -m reg -i ^(/v[\\d\\.]+)?/(_ping|version) }}
    http-request deny
    default_backend engine
backend engine
    server engine unix@{engine}
"""


def free_port() -> int:
    """A TCP port on loopback that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class HAProxy(Peer):
    """HAProxy with the options and timeouts of Tecnativa's proxy, and rules for our requests."""

    name = "haproxy"
    program = "haproxy"

    def command(self) -> list[str]:
        self.tcp_address = f"127.0.0.1:{free_port()}"
        config = HAPROXY.format(
            folder=self.folder, engine=self.engine, port=self.tcp_address.split(":")[1]
        )
        (self.folder / "haproxy.cfg").write_text(config)
        return ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]


NGINX = """
user root; daemon off; worker_processes auto; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    upstream engine {{ server unix:{engine}; keepalive 64; keepalive_requests 1000000000; }}
    keepalive_requests 1000000000;
    server {{
        listen unix:{folder}/p.sock;
        location / {{
            proxy_pass http://engine; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_set_header Host docker;
            proxy_buffering off; proxy_read_timeout 10m;
        }}
    }}
}}
"""


class Nginx(Peer):
    """nginx, unbuffered as log streams need it."""

    name = "nginx"
    program = "nginx"

    def command(self) -> list[str]:
        (self.folder / "nginx.conf").write_text(
            NGINX.format(folder=self.folder, engine=self.engine)
        )
        return ["nginx", "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "errors")]


class Socat(Peer):
    """socat, which copies bytes in a process for each connection."""

    name = "socat"
    exact = True
    program = "socat"

    def command(self) -> list[str]:
        return [
            "socat",
            "-b",
            "65536",
            f"UNIX-LISTEN:{self.address},fork,backlog=1024,max-children=2000",
            f"UNIX-CONNECT:{self.engine}",
        ]


def go_program() -> str | None:
    """The Go command that GO names, else the system's."""
    return shutil.which(os.environ.get("GO", "go"))


class Go(Peer):
    """The original's design in Go: a frame's goroutine runs six expressions."""

    name = "go"
    audits = True
    built: Path | None = None

    @classmethod
    def missing(cls) -> str | None:
        return (
            None if go_program() else "there is no Go (GO=$(bench/fetch-go) or Debian's golang-go)"
        )

    def command(self) -> list[str]:
        program = self.folder.parent / "reference"
        if not program.exists():
            environment = {
                **os.environ,
                "CGO_ENABLED": "0",
                "GOTOOLCHAIN": "local",
                "GOFLAGS": "-mod=mod",
            }
            subprocess.run(
                [str(go_program()), "build", "-o", str(program), "."],
                cwd=HERE / "reference",
                env=environment,
                check=True,
            )
        return [
            str(program),
            "-listen",
            self.address,
            "-upstream",
            self.engine,
            "-audit",
            str(self.folder / "audit.log"),
        ]

    def start(self) -> float:
        self.seen = 0
        return super().start()

    def await_found(self, secrets: int, streams: int = 1) -> None:
        self.planted = (self.planted or 0) + secrets * streams
        path = self.folder / "audit.log"
        deadline = time.monotonic() + FOUND_LIMIT
        while self.seen < self.planted and time.monotonic() < deadline:
            self.seen = path.read_bytes().count(b"\n")
            time.sleep(0.01)
        if self.seen != self.planted:
            raise BenchError(f"{self.name} found {self.seen} of {self.planted} planted secrets")


class Dockeraudit(Peer):
    """The single file that people copy, started as the README says."""

    name = "dockeraudit"
    exact = True
    audits = True
    options: tuple[str, ...] = ()
    file: Path  # the program, alone in its folder
    python = sys.executable

    @classmethod
    def missing(cls) -> str | None:
        return None

    def command(self) -> list[str]:
        self.tcp_address = f"127.0.0.1:{free_port()}"
        listen = f"unix://{self.address},tcp://{self.tcp_address}"
        strange = [
            f"-u{name}" for name in os.environ if name.startswith(("DOCKER", "LOG_LEVEL", "PYTHON"))
        ]
        environment = [
            "env",
            *strange,
            f"DOCKERAUDIT_LISTEN={listen}",
            f"PYTHONPATH={self.file.parent}",
        ]
        return [
            *environment,
            self.python,
            "-m",
            "dockeraudit",
            "--upstream",
            self.engine,
            "--audit-log",
            str(self.folder / "audit.log"),
            *self.options,
        ]

    def start(self) -> float:
        self._read = 0
        return super().start()

    def records(self) -> Iterator[dict[str, Any]]:
        """The whole records that were written since the last call."""
        with open(self.folder / "audit.log", "rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._read += whole
        return map(json.loads, data[:whole].splitlines())

    def await_found(self, secrets: int, streams: int = 1) -> None:
        self.planted = (self.planted or 0) + secrets * streams
        deadline = time.monotonic() + FOUND_LIMIT
        while time.monotonic() < deadline:
            for record in self.records():
                if record["event"] == "stream_close" and record["bytes"]:
                    if record["findings"] != secrets or record["unscanned"]:
                        found, unscanned = record["findings"], record["unscanned"]
                        raise BenchError(
                            f"{self.name} found {found} of {secrets} planted secrets, "
                            f"{unscanned} bytes unscanned"
                        )
                    streams -= 1
            if not streams:
                return
            time.sleep(0.01)
        raise BenchError(f"{self.name} did not finish its stream")

    def check_log(self) -> None:
        self._read = counted = 0
        for record in self.records():
            if record["event"] == "finding":
                counted += record["count"]
            elif record["event"] == "gap":
                counted += record["matches"]
            elif record["event"] == "suppressed":
                counted += sum(record["counts"].values())
        if self.planted is not None and counted != self.planted:
            raise BenchError(
                f"the log of {self.name} counts {counted} of {self.planted} planted secrets"
            )
        self.planted = 0


def six_rules() -> str:
    """The ids of the original's six rules."""
    sys.path.insert(0, str(HERE.parent))
    from patterns import ORIGINAL_RULES

    return ",".join(rule.id for rule in ORIGINAL_RULES)


class DockerauditSix(Dockeraudit):
    """The same with the original's six rules alone."""

    name = "dockeraudit-six"

    def command(self) -> list[str]:
        self.options = ("--only-rules", six_rules())
        return super().command()


class DockerauditAlone(Dockeraudit):
    """The same without workers: one interpreter scans and relays."""

    name = "dockeraudit-alone"
    options = ("--workers", "0")


class DockerauditMasked(Dockeraudit):
    """The same with all severities masked."""

    name = "dockeraudit-masked"
    masks = True
    options = ("--mask", "LOW")


#: measured against each other; what masks delivers other bytes and has scenarios of its own
PEERS: tuple[type[Peer], ...] = (
    Direct,
    HAProxy,
    Nginx,
    Socat,
    Go,
    Dockeraudit,
    DockerauditSix,
    DockerauditAlone,
    DockerauditMasked,
)
