"""Alerts of a real engine's containers, sent by curl to a server as ntfy and Slack have it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import string
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from needs import skip_outside_ci

from conftest import ROOT, wait_for

TOKEN = "AK" + "IA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(16))
KEY_BODY = secrets.token_hex(32)
#: a private key that comes in two pieces, with a silence between them
PRINTS = f"""
echo 'aws {TOKEN}'
echo '-----BEGIN RSA PRIVATE {"KEY"}-----'
echo '{KEY_BODY}'
sleep 1
echo '-----END RSA PRIVATE {"KEY"}-----'
echo 'aws {TOKEN} again'
"""
#: encoded, so that only the output holds the secrets, and no answer that shows the command
COMMAND = f"echo {base64.b64encode(PRINTS.encode()).decode()} | base64 -d | sh"


class Receiver(ThreadingHTTPServer):
    """Takes what is posted; refuses all of it while `refuses` is set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.posted = []
        self.refuses = False
        self.refused = 0


class ReceiverHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 403 if self.server.refuses else 200
        if status == 200:
            self.server.posted.append((dict(self.headers), body.decode()))
        else:
            self.server.refused += 1
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver(folder):
    if not shutil.which("curl"):
        skip_outside_ci("curl is not installed")
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    server.config = folder / "alert.curl"
    server.config.write_text(f'url = "http://127.0.0.1:{server.server_port}/x"\n')
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def container(real_engine):
    """A container whose log holds a token twice and a private key."""
    run = ("run", "-d", "--network", "none", "busybox", "sh", "-c", COMMAND)
    name = real_engine.docker(*run).stdout.decode().strip()
    real_engine.docker("wait", name)
    yield name
    real_engine.docker("rm", "-f", name)


def command(script, receiver):
    return "--on-finding", f"{ROOT}/deploy/{script} {receiver.config}"


def read_log(engine, proxy, container, *options):
    host = f"unix://{proxy.socket}"
    said = engine.docker("logs", *options, container, host=host, timeout=60).stdout
    assert TOKEN.encode() in said


def test_ntfy_gets_each_new_secret_once_across_restarts(
    real_engine, container, receiver, folder, start_proxy
):
    for _ in range(2):
        proxy = start_proxy(real_engine.socket, *command("alert-ntfy", receiver))
        for _ in range(2):
            read_log(real_engine, proxy, container)
        wait_for(lambda: len(receiver.posted) >= 2, "two alerts")
        assert proxy.stop() == 0
    texts = sorted(text for _, text in receiver.posted)
    assert len(texts) == 2 and "AWS Access Key" in texts[0] and "Private Key" in texts[1]
    assert {headers["Priority"] for headers, _ in receiver.posted} == {"high"}
    told = proxy.records("finding") + proxy.records("finding_update")
    found = {record["fingerprint"] for record in told} - {None}
    assert len(found) == 2 and all(any(name in text for name in found) for text in texts)
    assert proxy.records("alert_gap") == []
    kept = (folder / ".audit.log.alerts").read_text()
    assert all(line.startswith(container) for line in kept.splitlines()[1:])
    for text in (*texts, kept, proxy.errors.read_text()):
        assert not [at for at in range(11) if TOKEN[at : at + 6] in text]
        assert KEY_BODY[:6] not in text


def test_a_key_followed_as_it_is_written_gives_its_alert_at_its_end(
    real_engine, receiver, start_proxy
):
    proxy = start_proxy(real_engine.socket, *command("alert-slack", receiver))
    run = ("run", "--rm", "--network", "none", "busybox", "sh", "-c", COMMAND)
    said = real_engine.docker(*run, host=f"unix://{proxy.socket}").stdout
    assert KEY_BODY.encode() in said
    wait_for(lambda: len(receiver.posted) >= 2, "two alerts")
    assert proxy.stop() == 0
    texts = [json.loads(text)["text"] for _, text in receiver.posted]
    assert ["AWS" in text for text in texts] == [True, False]
    update = proxy.records("finding_update")[-1]
    assert f"fingerprint {update['fingerprint']}" in texts[1] and update["complete"]


def test_a_receiver_that_refuses_is_recorded_and_the_secret_told_of_later(
    real_engine, container, receiver, start_proxy
):
    receiver.refuses = True
    proxy = start_proxy(real_engine.socket, *command("alert-ntfy", receiver))
    read_log(real_engine, proxy, container)
    gap = proxy.wait_records("alert_gap")[0]
    assert gap["reason"] == "failed" and set(gap["severities"]) == {"HIGH"}
    wait_for(lambda: receiver.refused == 2, "two refusals")
    wait_for(lambda: "ended with status 22" in proxy.errors.read_text(), "curl's status")
    receiver.refuses = False
    read_log(real_engine, proxy, container)
    wait_for(lambda: len(receiver.posted) >= 1, "an alert")
    read_log(real_engine, proxy, container)  # where the second refusal's end came too late
    assert proxy.stop() == 0
    assert len(receiver.posted) == 2
    assert sum_of_gaps(proxy) == 2 and os.listdir(proxy.folder).count(".audit.log.alerts") == 1


def sum_of_gaps(proxy):
    return sum(sum(record["counts"].values()) for record in proxy.records("alert_gap"))


def test_a_baseline_keeps_a_known_secret_out_of_the_log_and_the_alerts(
    real_engine, container, receiver, folder, start_proxy
):
    known = folder / "known.txt"
    known.write_text("# none yet\n")
    options = ("--baseline", str(known), *command("alert-ntfy", receiver))
    proxy = start_proxy(real_engine.socket, *options)
    read_log(real_engine, proxy, container, "--tail", "1")
    finding = proxy.wait_records("finding")[0]
    wait_for(lambda: receiver.posted, "the alert")
    assert proxy.stop() == 0
    os.unlink(folder / ".audit.log.alerts")
    known.write_text(f"{finding['fingerprint']} - known since this test\n")
    proxy = start_proxy(real_engine.socket, *options)
    read_log(real_engine, proxy, container)
    assert proxy.stop() == 0
    run = proxy.wait_records("start")[-1]["run"]
    found = [record for record in proxy.records("finding") if record["run"] == run]
    assert found and finding["fingerprint"] not in {record["fingerprint"] for record in found}
    assert len(receiver.posted) == 2 and "Private Key" in receiver.posted[1][1]
