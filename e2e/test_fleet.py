"""Many hosts: rsyslog brings every line to one place, and ClickHouse answers what one host cannot.

The files under deploy/ are what runs here, with other paths and addresses. Two hosts are network
namespaces with a bridge between them and the collector; where namespaces are refused, they are
processes on loopback.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from _dockeraudit.auditlog import AuditLog
from _dockeraudit.records import rfc3339
from conftest import PROGRAM, ROOT, wait_for

pytestmark = pytest.mark.root

RSYSLOG = shutil.which("rsyslogd", path=os.environ.get("PATH", "") + ":/usr/sbin")
RELP = any(Path("/usr/lib").glob("*/rsyslog/omrelp.so"))
KEY = b"k" * 32  # the shared fingerprint key


def command(*arguments):
    """The product's own command."""
    return subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)],
        capture_output=True,
        timeout=120,
        check=False,
    )


# ==================================================================================================
# rsyslog
# ==================================================================================================


class Network:
    """Two hosts and a collector.

    `prefix(host)` begins a command that runs on a host, `collector` is the collector's address.
    """

    def __init__(self):
        self.bridge = f"da{os.getpid()}"
        self.names = {host: f"{self.bridge}{host[-1]}" for host in ("host-a", "host-b")}
        self.net = f"10.213.{100 + os.getpid() % 100}"
        self.refused = ""

    def __enter__(self):
        try:
            self._make()
        except (OSError, subprocess.CalledProcessError) as error:
            self.refused = str(getattr(error, "stderr", None) or error).strip()
            self._remove()
            print(
                f"network namespaces are refused here ({self.refused}): "
                "the hosts are processes on loopback"
            )
        self.collector = "127.0.0.1" if self.refused else f"{self.net}.1"
        return self

    def __exit__(self, *_):
        self._remove()

    def _make(self):
        self._ip("link", "add", self.bridge, "type", "bridge")
        self._ip("addr", "add", f"{self.net}.1/24", "dev", self.bridge)
        self._ip("link", "set", self.bridge, "up")
        for number, name in enumerate(self.names.values(), 2):
            self._ip("netns", "add", name)
            self._ip(
                "link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name
            )
            self._ip("link", "set", f"{name}h", "master", self.bridge, "up")
            self._ip("-n", name, "addr", "add", f"{self.net}.{number}/24", "dev", "eth0")
            self._ip("-n", name, "link", "set", "eth0", "up")

    def _remove(self):
        for name in self.names.values():
            self._ip("netns", "del", name, check=False)
        self._ip("link", "del", self.bridge, check=False)

    def _ip(self, *arguments, check=True):
        subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True, timeout=20)

    def prefix(self, host):
        return (
            []
            if self.refused or host not in self.names
            else ["ip", "netns", "exec", self.names[host]]
        )


class Rsyslog:
    """An rsyslogd with a configuration from deploy/, changed only in paths and addresses."""

    def __init__(self, network, host, folder, source, changes):
        self.command = [
            *network.prefix(host),
            str(RSYSLOG),
            "-n",
            "-f",
            str(folder / f"{host}.conf"),
            "-i",
            str(folder / f"{host}.pid"),
        ]
        self.folder = folder
        text = (ROOT / "deploy" / source).read_text()
        for old, new in changes.items():
            assert old in text, f"{source} has no {old!r} any more"
            text = text.replace(old, new)
        work = folder / f"{host}.work"
        work.mkdir()
        (folder / f"{host}.conf").write_text(
            f'global(workDirectory="{work}" localHostname="{host}")\n{text}'
        )
        self.process = None

    def start(self):
        with open(self.folder / "rsyslog.txt", "ab") as errors:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0


@pytest.fixture
def fleet(tmp_path):
    """Hosts with logs, their senders, the collector, and where it puts the files."""
    missing = (
        ""
        if RSYSLOG and RELP
        else "rsyslog or rsyslog-relp is not installed: `make e2e` installs them"
    )
    missing = missing or ("" if os.geteuid() == 0 else "network namespaces need root")
    if missing:
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    with Network() as network:
        port = str(20_000 + os.getpid() % 20_000)
        central = tmp_path / "central"
        collector = Rsyslog(
            network,
            "collector",
            tmp_path,
            "rsyslog-collector.conf",
            {"/var/log/dockeraudit-fleet": str(central), 'port="2514"': f'port="{port}"'},
        )
        senders = {}
        for host in network.names:
            (tmp_path / host).mkdir()
            changes = {
                "/var/log/dockeraudit/": f"{tmp_path / host}/",
                "collector.example.com": network.collector,
                'port="2514"': f'port="{port}"',
            }
            senders[host] = Rsyslog(
                network,
                host,
                tmp_path,
                "rsyslog-host.conf",
                {**changes, 'resumeIntervalMax="30"': 'resumeIntervalMax="1"'},
            )
        try:
            yield tmp_path, central, collector, senders
        finally:
            for service in (*senders.values(), collector):
                service.stop()


class PasswordRule:
    id, name, severity = "password", "Password", "HIGH"


class BetterRule:
    id, name, severity = "better", "Better", "MEDIUM"


class Writer:
    """A host's dockeraudit as far as its log goes: findings one after the other, in a thread."""

    def __init__(self, folder, host):
        self.path = folder / host / "audit.log"
        self.log = AuditLog(str(self.path), KEY, fsync="never")
        self.log.open(version="0", pid=1, listen=[], upstream="", rules=1)
        self.written = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(host,))
        self._thread.start()

    def _write(self, host):
        container = ("a" if host == "host-a" else "b") * 64
        stream = self.log.open_stream(
            "logs",
            container,
            {"listener": "tcp", "address": "10.0.0.7", "certificate": f"CN=é\x7f\u202e{host}"},
            True,
            True,
        )
        stream.named(container, f"web on {host}")
        while not self._end.wait(0.001):
            secret = b"shared by all" if self.written == 100 else f"{host} {self.written}".encode()
            stream.finding("stdout", PasswordRule, b"password=" + secret, secret, self.written)
            self.written += 1
        stream.close(
            framing="raw", nbytes=1, frames=0, lines=self.written, unscanned=0, reason="end"
        )

    def more(self, count):
        """Wait for so many more findings."""
        goal = self.written + count
        wait_for(lambda: self.written >= goal, "findings")

    def rotate(self):
        os.rename(self.path, f"{self.path}.1")
        wait_for(self.path.exists, "the log after its rotation")

    def end(self):
        self._end.set()
        self._thread.join()
        assert self.log.close("end", 20) == 0

    def bytes(self):
        rotated = Path(f"{self.path}.1")
        return (rotated.read_bytes() if rotated.exists() else b"") + self.path.read_bytes()


def test_the_central_files_equal_the_sources_across_restarts_and_rotation(fleet):
    folder, central, collector, senders = fleet
    collector.start()
    writers = {host: Writer(folder, host) for host in senders}
    try:
        for sender in senders.values():
            sender.start()
        wait_for(
            lambda: all((central / host / "audit.log").exists() for host in writers),
            "the first lines",
        )
        for _ in range(2):  # while lines flow, the collector goes away and comes back
            writers["host-b"].more(200)
            collector.stop()
            writers["host-b"].more(200)
            collector.start()
        writers["host-a"].rotate()
        senders["host-b"].stop()
        writers["host-b"].more(200)
        senders["host-b"].start()
    finally:
        for writer in writers.values():
            writer.end()
    for host, writer in writers.items():
        wait_for(
            lambda host=host, writer=writer: (
                (central / host / "audit.log").read_bytes() == writer.bytes()
            ),
            f"the rest of {host}",
            60,
        )
        verified = command("verify", central / host / "audit.log")
        assert verified.returncode == 0 and writer.written > 1000, verified.stdout
    files = [central / host / "audit.log" for host in writers]
    secrets = json.loads(command("report", "--json", *files).stdout)["secrets"]
    (shared,) = (secret for secret in secrets if len(secret["containers"]) == 2)
    told = command("report", "--secret", shared["fingerprint"], *files).stdout.decode()
    assert (
        "web on host-a" in told
        and "web on host-b" in told
        and "\u202e" not in told
        and "\x7f" not in told
    )


@pytest.mark.skipif(
    not RSYSLOG and not os.environ.get("CI"),
    reason="rsyslog is not installed: `make e2e` installs it",
)
@pytest.mark.parametrize("name", ["rsyslog-host.conf", "rsyslog-collector.conf"])
def test_rsyslog_takes_the_configuration_as_it_is(name, tmp_path):
    (tmp_path / "rsyslog.conf").write_text(
        f'global(workDirectory="{tmp_path}")\ninclude(file="{ROOT / "deploy" / name}")\n'
    )
    checked = subprocess.run(
        [str(RSYSLOG), "-N1", "-f", str(tmp_path / "rsyslog.conf")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0 and "error" not in checked.stderr.lower(), checked.stderr


# ==================================================================================================
# ClickHouse
# ==================================================================================================

HOSTS, RECORDS = 50, 1_000_000
COLUMNS = 40  # containers of a host
PLANTED = "feedfacefeedface"
RUNNER = """
import json, sys, time
from chdb import session
work = json.load(sys.stdin)
database, answers = session.Session(work["folder"]), []
for statement in work["statements"]:
    times = []
    for _ in range(work["tries"] if statement.startswith("SELECT") else 1):
        begun = time.perf_counter()
        rows = str(database.query(statement, "JSONCompact"))
        times.append(time.perf_counter() - begun)
    answers.append([min(times), json.loads(rows)["data"] if rows else []])
json.dump(answers, sys.stdout)
"""


def statements(files):
    """The statements of deploy/clickhouse.sql by their first words, with other files to load."""
    text = (ROOT / "deploy" / "clickhouse.sql").read_text()
    assert "/var/log/dockeraudit-fleet" in text
    text = text.replace("/var/log/dockeraudit-fleet", str(files)).replace(
        "0123456789abcdef", PLANTED
    )
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [
        statement.strip()
        for statement in re.split(r";\s*\n", "\n".join(lines) + "\n")
        if statement.strip()
    ]


def ask(folder, work, tries=1):
    """Answers of statements, in a process of their own: (best time, rows) each."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps({"folder": str(folder), "statements": work, "tries": tries}),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


class Host:
    """One host's log as its collector's file has it, and what a question about it should answer."""

    def __init__(self, folder, number, now):
        self.name = f"host-{number:02}"
        self.number = number
        self.rng = random.Random(number)
        self.now = now - (7200 if number in (11, 12) else 0)  # two have been silent for two hours
        self.sightings = {}
        (folder / self.name).mkdir(parents=True)
        with open(folder / self.name / "audit.log", "w", encoding="utf-8") as file:
            file.writelines(self.lines(RECORDS // HOSTS))

    def lines(self, count):
        tail = '"seq": {}, "prev": "0000000000000000", '
        for seq in range(1, count + 1):
            if self.number == 21 and 5_000 <= seq < 5_040:
                continue  # lines that never arrived
            if self.number == 31 and 6_000 <= seq < 6_120:
                continue  # and records that the host itself lost, which its gap says
            moment = self.now - 86_400 * (1 - seq / count)
            head = f'{{"timestamp": "{rfc3339(moment)}", "event": "%s", '
            head += f'"run": "{self.number:08x}", {tail.format(seq)}'
            yield head.replace("%s", self.event(seq)) + self.fields(seq) + "}\n"
            if seq == 7_000:
                yield '{"timestamp": "torn\n'
        if self.number == 41:  # a second run, which was killed and left a hole at its beginning
            yield (
                head.replace("%s", "gap").replace(f"{41:08x}", "41414141")
                + '"records": 9, "matches": 4, "first_seq": 1, "last_seq": 9, "errno": "ENOSPC"}\n'
            )

    def event(self, seq):
        if self.number == 31 and seq == 6_120:
            return "gap"
        return {
            0: "stream_open",
            19: "stream_close",
            18: "denied" if seq % 400 == 18 else "finding",
        }.get(seq % 20, "finding")

    def client(self, container):
        if container % 3:
            return (
                '{"listener": "unix:///run/dockeraudit/docker.sock", '
                f'"uid": {1000 + container % 5}, "gid": 7, '
                f'"pid": {self.rng.randrange(30000)}, "command": "docker"}}',
                f"uid {1000 + container % 5} (docker)",
            )
        return (
            f'{{"listener": "tcp", "address": "10.0.{self.number}.{container}", '
            '"certificate": "CN=agent"}',
            f"10.0.{self.number}.{container} (CN=agent)",
        )

    def fields(self, seq):
        event, container = self.event(seq), self.rng.randrange(COLUMNS)
        place = f'"container_id": "{self.number:032x}{container:032x}", '
        place += f'"container_name": "web-{container}"'
        client, reader = self.client(container)
        if event == "gap":
            return (
                '"records": 120, "matches": 7, "first_seq": 6000, "last_seq": 6119, "errno": "EIO"'
            )
        if event == "denied":
            what = '"method": "POST", "path": "/containers/create"'
            return f'{what}, "client": {client}, "rule": "POST", "count": 2'
        if event != "finding":
            close = (
                ', "framing": "multiplexed", "bytes": 1000, "frames": 9, "lines": 9, '
                '"findings": 18, "unscanned": 0, "reason": "end", "seconds": 1.0'
                if event == "stream_close"
                else ""
            )
            return (
                f'"stream": {seq // 20}, "endpoint": "logs", {place}, "client": {client}, '
                f'"follow": false, "audited": true{close}'
            )
        fingerprint = f"{self.rng.randrange(20_000):016x}"
        if self.number < 37 and seq % 4_000 == 3_001:
            fingerprint = PLANTED
            key = (self.name, f"web-{container}", reader)
            self.sightings[key] = self.sightings.get(key, 0) + 3
        severity = "HIGH" if fingerprint == PLANTED else "LOW"
        what = '"stream_type": "stdout", "pattern": "Password", "redacted_match": "pa***23", '
        what += f'"severity": "{severity}", "rule": "password", "fingerprint": "{fingerprint}"'
        return (
            f'{place}, {what}, "count": 3, "endpoint": "logs", "client": {client}, '
            f'"stream": {seq // 20}, "line": 5'
        )


@pytest.mark.full
def test_a_million_records_of_fifty_hosts_answer_in_a_second(tmp_path):
    missing = (
        ""
        if importlib.util.find_spec("chdb")
        else "chdb is not installed: `make e2e-full` installs it"
    )
    if missing:
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    hosts = [Host(tmp_path / "fleet", number, time.time()) for number in range(HOSTS)]
    work = statements(tmp_path / "fleet")
    questions = [statement for statement in work if statement.startswith("SELECT")]
    load = next(statement for statement in work if statement.startswith("INSERT"))
    ask(tmp_path / "db", [statement for statement in work if not statement.startswith("SELECT")])
    answers = dict(
        zip(
            ("secrets", "where_is", "readers", "gaps", "silent", "refusals"),
            ask(tmp_path / "db", questions, tries=5),
        )
    )
    for question, (seconds, rows) in answers.items():
        print(f"{question}: {seconds:.3f} s, {len(rows)} rows")
    assert max(seconds for seconds, _ in answers.values()) < 1.0
    rows = {question: rows for question, (_, rows) in answers.items()}

    worst = rows["secrets"][0]
    assert (worst[0], worst[2], int(worst[5])) == (PLANTED, "HIGH", 37)
    expected = {key: count for host in hosts for key, count in host.sightings.items()}
    assert {(row[0], row[1], row[3]): int(row[5]) for row in rows["where_is"]} == expected and len(
        expected
    ) > 100
    assert rows["readers"][0][0].startswith("uid 100") and int(rows["readers"][0][1]) == HOSTS
    assert {row[0]: (int(row[1]), int(row[2]), int(row[5])) for row in rows["gaps"]} == {
        "host-21": (0, 0, 40),
        "host-31": (120, 7, 0),
        "host-41": (9, 4, 0),
    }
    assert {row[0] for row in rows["silent"]} == {"host-11", "host-12"}
    assert {row[1] for row in rows["refusals"]} == {"POST /containers/create"}

    again = dict(
        zip(answers, ask(tmp_path / "db", [load, *questions])[1:])
    )  # the same files once more change nothing
    assert {question: rows for question, (_, rows) in again.items() if question != "silent"} == {
        question: rows for question, rows in rows.items() if question != "silent"
    }


@pytest.mark.full
def test_a_finding_is_what_its_update_says_and_no_placeholder_is_a_secret(tmp_path):
    if not importlib.util.find_spec("chdb"):
        pytest.skip("chdb is not installed: `make e2e-full` installs it")
    (tmp_path / "fleet" / "host-1").mkdir(parents=True)
    log = AuditLog(str(tmp_path / "fleet" / "host-1" / "audit.log"), KEY, fsync="never")
    log.open(version="0", pid=1, listen=[], upstream="", rules=1)
    stream = log.open_stream(
        "logs",
        "c" * 64,
        {"listener": "unix:///x", "uid": 5, "gid": 5, "pid": 5, "command": None},
        False,
        True,
    )
    stream.named("c" * 64, "web")
    handle = stream.finding("stdout", PasswordRule, b"-----BEGIN-----", None, 1, partial=True)
    stream.update(handle, None, b"-----BEGIN-----", b"body", 9, True)
    stream.finding("stdout", PasswordRule, b"password=xyz", b"xyz", 2)
    cut = stream.finding("stdout", PasswordRule, b"password=cu", b"cu", 3, partial=True)
    stream.update(cut, BetterRule, b"password=cut in two", b"cut in two", 1, True)
    stream.finding("stdout", PasswordRule, b"password=****", b"****", 4, placeholder=True)
    client = {"listener": "tcp", "address": "10.0.0.7"}
    log.accept("suppressed", {"client": client, "counts": {"denied": 900}})
    stream.close(framing="raw", nbytes=1, frames=0, lines=9, unscanned=77, reason="end")
    assert log.close("end", 20) == 0
    work = [
        statement
        for statement in statements(tmp_path / "fleet")
        if not statement.startswith("SELECT")
    ]
    questions = [
        "SELECT fingerprint, pattern, severity FROM dockeraudit.secrets",
        "SELECT reader, streams, secrets FROM dockeraudit.readers",
        "SELECT * FROM dockeraudit.gaps",
    ]
    secrets, readers, gaps = [rows for _, rows in ask(tmp_path / "db", work + questions)[-3:]]
    assert {tuple(row) for row in secrets} == {
        (log.fingerprinter.of(b"body"), "Password", "HIGH"),
        (log.fingerprinter.of(b"xyz"), "Password", "HIGH"),
        (log.fingerprinter.of(b"cut in two"), "Better", "MEDIUM"),
    }
    assert "uid 5 (unknown command)" in [row[0] for row in readers]
    assert [(row[0], *map(int, row[3:])) for row in gaps] == [("host-1", 77, 0, 0)]
