"""dockeraudit as an operator meets it: health, metrics, systemd, restarts of the engine, IPv6."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from scripted import ScriptedEngine, logs_answer, stdcopy_frame

from _dockeraudit.engine import UnixHTTPConnection
from _dockeraudit.errors import EngineError
from _dockeraudit.values import has_ipv6
from conftest import PROGRAM, ROOT, wait_for

MAX_CONNECTIONS = 1024

AWS_KEY = b"AK" + b"IA" + b"IOSFODNN7EXAMPLE"
DEPLOY = ROOT / "deploy"


def need(*programs):
    """Skip where a program is missing, but never in CI."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        assert not os.environ.get("CI"), f"{missing[0]} is missing: e2e/run installs it"
        pytest.skip(f"{missing[0]} is not installed: `make e2e` installs it (as root)")


@pytest.fixture
def scripted(folder):
    with ScriptedEngine(str(folder / "engine.sock")) as engine:
        yield engine


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url):
    """(status, text) of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def ask(proxy, target, method="GET"):
    """(status, body) of one request to a proxy's Unix socket."""
    connection = UnixHTTPConnection(proxy.socket, 20)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def run(*arguments, env=None):
    """One run of the program."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOCKER", "LOG_LEVEL"))
    }
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        capture_output=True,
        timeout=60,
        env={**plain, **(env or {})},
        check=False,
    )


# ================================================================================================
# health and metrics
# ================================================================================================


@pytest.fixture
def busy(scripted, start_proxy):
    """A proxy with an admin listener, after two log streams with a secret each and a refusal."""
    scripted.routes["/containers/web/logs"] = logs_answer(
        stdcopy_frame(1, b"key " + AWS_KEY + b"\n"), stdcopy_frame(2, b"fine\n")
    )
    port = free_port()
    variables = {"DOCKERAUDIT_POLICY": "tecnativa", "CONTAINERS": "1"}
    proxy = start_proxy(scripted.path, "--admin-listen", f"tcp://127.0.0.1:{port}", env=variables)
    proxy.admin = f"http://127.0.0.1:{port}"
    for _ in range(2):
        assert ask(proxy, "/containers/web/logs?stdout=1&stderr=1")[0] == 200
    assert ask(proxy, "/containers/web/kill", "POST")[0] == 403
    proxy.wait_records("stream_close", 2)
    return proxy


def samples(text):
    """The samples of Prometheus's text format."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def test_metrics_count_what_happened(busy):
    found = samples(fetch(f"{busy.admin}/metrics")[1])
    assert found['dockeraudit_requests_total{method="GET",status="200"}'] == 2
    assert found['dockeraudit_requests_total{method="POST",status="403"}'] == 1
    assert found["dockeraudit_denied_total"] == 1
    assert found["dockeraudit_stream_frames_total"] == 4
    assert found["dockeraudit_stream_bytes_total"] == 2 * (8 + 4 + len(AWS_KEY) + 1 + 8 + 5)
    assert found['dockeraudit_findings_total{pattern="AWS Access Key",severity="HIGH"}'] == 2
    assert found["dockeraudit_engine_up"] == 1 and found["dockeraudit_audit_degraded"] == 0
    assert found["dockeraudit_open_streams"] == 0 and found["dockeraudit_scan_lag_bytes"] == 0
    assert (
        found["dockeraudit_audit_records_written_total"] == len(busy.records())
        and found["dockeraudit_audit_records_lost_total"] == 0
    )
    assert any(name.startswith("dockeraudit_build_info{version=") for name in found)


@pytest.mark.slow
def test_health_and_readiness_differ_and_are_only_on_the_admin_listener(busy, scripted, folder):
    assert fetch(f"{busy.admin}/healthz") == (200, "ok\n") and fetch(f"{busy.admin}/readyz") == (
        200,
        "ready\n",
    )
    assert (
        fetch(f"{busy.admin}/nothing")[0] == 404
        and fetch(f"{busy.admin}/containers/json")[0] == 404
    )
    assert ask(busy, "/metrics")[0] == 403 and ask(busy, "/healthz")[0] == 403, (
        "the Docker listener knows nothing of them"
    )
    os.rename(folder / "engine.sock", folder / "away.sock")
    try:
        status, text = fetch(f"{busy.admin}/readyz")
        assert status == 503 and "engine" in text and fetch(f"{busy.admin}/healthz")[0] == 200
        assert samples(fetch(f"{busy.admin}/metrics")[1])["dockeraudit_engine_up"] == 0
    finally:
        os.rename(folder / "away.sock", folder / "engine.sock")


@pytest.mark.slow
def test_promtool_accepts_the_metrics(busy):
    need("promtool")
    text = fetch(f"{busy.admin}/metrics")[1]
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_alerts_and_dashboard_name_metrics_that_exist(busy):
    existing = {re.split("[{ ]", name)[0] for name in samples(fetch(f"{busy.admin}/metrics")[1])}
    for name in ("prometheus-alerts.yml", "grafana-dashboard.json"):
        named = set(re.findall(r"dockeraudit_[a-z_]+", (DEPLOY / name).read_text()))
        assert named and named <= existing, (name, named - existing)
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    drawn = set(re.findall(r"dockeraudit_[a-z_]+", json.dumps(dashboard["panels"])))
    assert drawn == existing, "each metric has a panel"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


ALERT_TESTS = """\
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: up{{job="dockeraudit", instance="a"}}
        values: 1 1 0 0 0 0 0
      - series: dockeraudit_audit_degraded{{instance="a"}}
        values: 0 1 1 1 1 1 1
      - series: dockeraudit_audit_records_lost_total{{instance="a"}}
        values: 0 0 0 0 7 7 7
      - series: dockeraudit_findings_total{{instance="a", pattern="Private Key", severity="HIGH"}}
        values: 0 0 0 2 2 2 2
      - series: dockeraudit_engine_up{{instance="a"}}
        values: 1 1 1 1 1 1 1
    alert_rule_test:
      - {{eval_time: 1m, alertname: DockerauditDown, exp_alerts: []}}
      - eval_time: 6m
        alertname: DockerauditDown
        exp_alerts:
          - exp_labels: {{job: dockeraudit, instance: a, severity: critical}}
            exp_annotations:
              summary: dockeraudit on a does not answer
              description: >-
                Its clients do not reach the engine, and nothing is audited. Its standard error says
                why.
      - eval_time: 6m
        alertname: DockerauditAuditLogNotWritable
        exp_alerts:
          - exp_labels: {{instance: a, severity: critical}}
            exp_annotations:
              summary: the audit log of a cannot be written
              description: >-
                10,000 records are held in memory; further ones are lost and counted in a gap. Free
                space on the disk, or mend its permissions.
      - {{eval_time: 6m, alertname: DockerauditEngineDown, exp_alerts: []}}
      - {{eval_time: 2m, alertname: DockerauditHighSeverityFinding, exp_alerts: []}}
      - eval_time: 6m
        alertname: DockerauditHighSeverityFinding
        exp_alerts:
          - exp_labels: {{instance: a, pattern: Private Key, severity: warning}}
            exp_annotations:
              summary: Private Key leaks into container output on a
              description: >-
                dockeraudit report says which container prints it and who read it. Rotate the
                secret.
"""


@pytest.mark.slow
def test_alerts_fire_when_they_should(folder):
    need("promtool")
    subprocess.run(
        ["promtool", "check", "rules", str(DEPLOY / "prometheus-alerts.yml")],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (folder / "test.yml").write_text(ALERT_TESTS.format(rules=DEPLOY / "prometheus-alerts.yml"))
    tested = subprocess.run(
        ["promtool", "test", "rules", str(folder / "test.yml")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.full
def test_a_real_prometheus_scrapes_it(busy, folder):
    need("prometheus")
    port, target = free_port(), busy.admin.partition("//")[2]
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s}}\nrule_files: ['{DEPLOY}/prometheus-alerts.yml']\n"
        "scrape_configs: "
        f"[{{job_name: dockeraudit, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def value(query):
            try:
                found = json.loads(fetch(f"http://127.0.0.1:{port}/api/v1/query?query={query}")[1])[
                    "data"
                ]["result"]
            except (OSError, ValueError, KeyError):
                return None
            return found[0]["value"][1] if found else None

        wait_for(lambda: value("up") == "1", "a scrape", 60)
        assert wait_for(lambda: value("sum(dockeraudit_findings_total)"), "the findings") == "2"
        assert value("dockeraudit_engine_up") == "1" and value("dockeraudit_denied_total") == "1"
        assert (
            json.loads(fetch(f"http://127.0.0.1:{port}/api/v1/rules")[1])["data"]["groups"][0][
                "name"
            ]
            == "dockeraudit"
        )
    finally:
        process.terminate()
        process.wait(30)


# ================================================================================================
# systemd
# ================================================================================================


class NotifySocket:
    """What systemd would be told."""

    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self.sock.settimeout(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def wait_for(self, state):
        """All states up to the first that begins so."""
        seen = []
        while not seen or not seen[-1].startswith(state):
            seen.append(self.sock.recv(4096).decode())
        return seen


@pytest.mark.slow
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_ready_watchdog_reloading_and_stopping(
    scripted, start_proxy, folder, abstract
):
    address = f"@dockeraudit-test-{os.getpid()}" if abstract else str(folder / "notify")
    with NotifySocket(address) as notify:
        proxy = start_proxy(
            scripted.path, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        )
        assert notify.wait_for("READY=1") == ["READY=1"]
        assert set(notify.wait_for("WATCHDOG=1")) == {"WATCHDOG=1"}
        proxy.process.send_signal(signal.SIGHUP)
        reloading = notify.wait_for("RELOADING=1")[-1]
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", reloading)
        notify.wait_for("READY=1")
        assert proxy.stop() == 0
        notify.wait_for("STOPPING=1")


ACTIVATOR = """\
import os, socket, sys
path, *command = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX)
sock.bind(path)
sock.listen(16)
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *command])
"""


def activated(folder, path, listen, upstream):
    """dockeraudit behind a socket that its parent has made, as systemd does."""
    command = [
        PROGRAM,
        "--listen",
        listen,
        "--upstream",
        upstream,
        "--audit-log",
        str(folder / "audit.log"),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", ACTIVATOR, path, *command],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def test_socket_activation(scripted, folder):
    path = str(folder / "activated.sock")
    process = activated(folder, path, f"unix://{path}", scripted.path)
    try:
        wait_for(lambda: os.path.exists(path), "the parent's socket")
        connection = UnixHTTPConnection(path, 20)  # may come before the proxy has even started
        wait_for(lambda: connects(connection), "a connection")
        connection.request("GET", "/_ping")
        assert connection.getresponse().read() == b"OK"
        connection.close()
    finally:
        process.terminate()
        said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 0, said
    assert os.path.exists(path), "the socket is systemd's to remove"


def connects(connection):
    try:
        connection.connect()
    except EngineError:
        return False
    return True


@pytest.mark.slow
def test_a_passed_socket_that_no_listener_names_is_refused(scripted, folder):
    process = activated(
        folder, str(folder / "passed.sock"), f"unix://{folder}/other.sock", scripted.path
    )
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 73 and "passed.sock" in said and "no --listen names" in said
    assert not (folder / "other.sock").exists()


@pytest.mark.slow
def test_the_units_are_sound_and_hardened():
    need("systemd-analyze")
    units = [str(DEPLOY / "dockeraudit.service"), str(DEPLOY / "dockeraudit.socket")]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        timeout=60,
        check=False,
    )
    complaints = [
        line
        for line in verified.stderr.decode().splitlines()
        if "dockeraudit" in line and "/opt/dockeraudit" not in line
    ]
    assert not complaints, complaints
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", units[0]],
        capture_output=True,
        timeout=60,
        check=False,
    )
    exposure = re.search(
        r"Overall exposure level for dockeraudit.service: ([\d.]+)", rated.stdout.decode()
    )
    assert exposure and float(exposure[1]) <= 2.0, (
        rated.stdout.decode()[-300:] + rated.stderr.decode()
    )
    unit = (DEPLOY / "dockeraudit.service").read_text()
    limit = int(re.search(r"LimitNOFILE=(\d+)", unit)[1])
    assert limit > 2 * MAX_CONNECTIONS + 100
    listen = re.search(r"ListenStream=(\S+)", (DEPLOY / "dockeraudit.socket").read_text())[1]
    assert f"--listen unix://{listen} " in unit


def allowed_system_calls(unit):
    """What the unit's SystemCallFilter lines leave."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"],
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout.decode()
    groups, name = {}, ""
    for line in listed.splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = []
        elif line.strip() and not line.strip().startswith("#"):
            groups[name].append(line.strip())

    def members(word):
        return (
            set().union(*(members(part) for part in groups[word]))
            if word.startswith("@")
            else {word}
        )

    allowed = members("@default")
    for line in re.findall(r"^SystemCallFilter=(.*)", unit, re.M):
        calls = set().union(*(members(word) for word in line.lstrip("~").split()))
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


@pytest.mark.slow
def test_the_units_filter_admits_every_system_call(scripted, folder):
    need("strace", "systemd-analyze")
    scripted.routes["/containers/web/logs"] = logs_answer(
        stdcopy_frame(1, b"key " + AWS_KEY + b"\n")
    )
    trace, path = folder / "trace", str(folder / "proxy.sock")
    options = [
        "--listen",
        f"unix://{path}",
        "--listen",
        f"tcp://127.0.0.1:{free_port()}",
        "--upstream",
        scripted.path,
        "--socket-group",
        str(os.getgid()),
    ]
    options += [
        "--audit-log",
        str(folder / "audit.log"),
        "--admin-listen",
        f"tcp://127.0.0.1:{free_port()}",
    ]
    with open(folder / "said", "wb") as said:
        command = ["strace", "-f", "-qq", "-o", str(trace), sys.executable, PROGRAM, *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said)
    try:
        wait_for(lambda: "next: export" in (folder / "said").read_text(), "the start", 60)
        connection = UnixHTTPConnection(path, 20)
        for target in ("/version", "/containers/web/logs?stdout=1"):
            connection.request("GET", target)
            connection.getresponse().read()
        connection.close()
        child = int(re.match(r"\d+", trace.read_text())[0])
        os.kill(child, signal.SIGHUP)
        wait_for(lambda: "have been read again" in (folder / "said").read_text(), "the reload")
        os.kill(child, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    lines = trace.read_text().splitlines()
    begun = next(number for number, line in enumerate(lines) if "execve(" in line) + 1
    used = {found[1] for line in lines[begun:] if (found := re.match(r"\d+ +([a-z]\w*)\(", line))}
    assert {"sendto", "accept4", "fdatasync", "chown"} <= used
    assert used <= allowed_system_calls((DEPLOY / "dockeraudit.service").read_text()), (
        "refused: "
        + " ".join(
            sorted(used - allowed_system_calls((DEPLOY / "dockeraudit.service").read_text()))
        )
    )


# ================================================================================================
# the engine restarts
# ================================================================================================


def test_an_engine_that_restarts_is_502_meanwhile_and_then_works(folder, start_proxy):
    path = str(folder / "engine.sock")
    with ScriptedEngine(path):
        proxy = start_proxy(path)
        connection = UnixHTTPConnection(proxy.socket, 20)
        connection.request("GET", "/_ping")
        assert connection.getresponse().read() == b"OK"
    status, body = ask(proxy, "/_ping")
    message = json.loads(body)["message"]
    assert status == 502 and path in message and "ENOENT" in message
    with ScriptedEngine(path):
        connection.request("GET", "/_ping")  # the connection of before, whose own upstream is gone
        assert connection.getresponse().read() == b"OK"
        connection.close()
        assert ask(proxy, "/_ping") == (200, b"OK")


@pytest.mark.root
def test_a_stale_bind_mounted_socket_file_is_named_as_such(folder, start_proxy):
    mounted = folder / "mounted.sock"
    mounted.touch()
    engine = folder / "engine.sock"
    with ScriptedEngine(str(engine)):
        mount = subprocess.run(
            ["mount", "--bind", str(engine), str(mounted)],
            capture_output=True,
            timeout=20,
            check=False,
        )
        if mount.returncode:
            pytest.skip(f"mounting is not allowed here: {mount.stderr.decode().strip()}")
        try:
            proxy = start_proxy(str(mounted))
            assert ask(proxy, "/_ping") == (200, b"OK")
        except BaseException:
            subprocess.run(["umount", str(mounted)], check=True, timeout=20)
            raise
    try:
        with ScriptedEngine(str(engine)):  # the engine has restarted, and made its socket anew
            status, body = ask(proxy, "/_ping")
            assert (
                status == 502 and "mount the directory, not the file" in json.loads(body)["message"]
            )
        proxy.stop()
    finally:
        subprocess.run(["umount", str(mounted)], check=True, timeout=20)


@pytest.mark.root
@pytest.mark.full
def test_a_real_engine_that_restarts(folder, start_proxy):
    engine, environ = (
        str(ROOT / "e2e" / "engine"),
        {**os.environ, "ENGINE_HOME": str(folder / "engines")},
    )

    def control(word):
        subprocess.run(
            ["bash", engine, word, "20"], env=environ, check=True, capture_output=True, timeout=110
        )

    control("start")
    try:
        proxy = start_proxy(f"unix://{folder}/engines/20/docker.sock")
        assert ask(proxy, "/_ping") == (200, b"OK")
        control("stop")
        assert ask(proxy, "/_ping")[0] == 502
        control("start")
        assert ask(proxy, "/_ping") == (200, b"OK")
    finally:
        control("stop")


# ================================================================================================
# IPv6, and none
# ================================================================================================


def get_ping(host, port):
    with socket.create_connection((host, port), 20) as sock:
        sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(4096), b""))


@pytest.mark.slow
def test_the_wildcard_listens_on_both_families(scripted, start_proxy):
    if not has_ipv6():
        pytest.skip("there is no IPv6 here")
    port = free_port()
    proxy = start_proxy(
        scripted.path, "--listen", f"tcp://[::]:{port}", "--allow-from", "127.0.0.0/8"
    )
    assert get_ping("127.0.0.1", port).startswith(b"HTTP/1.1 200"), (
        "an IPv4 client is held to IPv4 networks"
    )
    assert get_ping("::1", port).startswith(b"HTTP/1.1 403")
    assert proxy.wait_records("denied")[0]["client"]["address"] == "::1"
    assert run("healthcheck", "--listen", f"tcp://[::]:{port}").returncode == 0


@pytest.mark.root
def test_a_namespace_without_ipv6(scripted, folder):
    need("unshare", "ip")
    inside = (
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up; "
        f"exec {sys.executable} {PROGRAM} --listen tcp://[::]:2375 "
        f"--upstream {scripted.path} --audit-log {folder}/audit.log"
    )
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", inside], stdin=subprocess.DEVNULL, stderr=said
        )
    try:
        wait_for(
            lambda: process.poll() is not None or "next: export" in (folder / "said").read_text(),
            "the start",
        )
        if process.poll() is not None:
            pytest.skip("no network namespace here: " + (folder / "said").read_text()[:200])
        within = [
            "nsenter",
            "-t",
            str(process.pid),
            "-n",
            sys.executable,
            PROGRAM,
            "healthcheck",
            "--listen",
            "tcp://[::]:2375",
        ]
        assert subprocess.run(within, timeout=60, check=False).returncode == 0
    finally:
        process.terminate()
        process.wait(30)
